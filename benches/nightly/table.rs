//! The tables, in Markdown.

use std::fmt::Write as _;

use crate::contestant::{CONTESTANTS, Contestant};
use crate::edit::RowCounts;
use crate::results::{Cell, Results};
use crate::targets::Verdict;

/// Everything that is printed.
pub fn all(results: &Results, verdicts: &[Verdict], about: &[(&str, String)]) -> String {
    let mut text = String::new();
    for (name, value) in about {
        let _ = writeln!(text, "{name}: {value}  ");
    }
    let loads = results.cells.iter().flat_map(|cell| &cell.samples).filter_map(|sample| sample.load);
    let (low, high) = loads.fold((f64::MAX, 0f64), |(low, high), load| (low.min(load), high.max(load)));
    let _ = writeln!(text, "load average before runs: {low:.1} to {high:.1}\n");
    for (documents, scenario) in results.nights() {
        let _ = writeln!(text, "### {} documents, {}\n", number(documents.into()), scenario.title);
        if let Some(edit) = results.edits.get(&(documents, scenario.name)) {
            let mut sum = RowCounts::default();
            edit.values().for_each(|counts| sum += *counts);
            let _ = writeln!(text, "The smallest edit: {} rows ({}).\n", number(sum.sum()), rows(sum));
        }
        text.push_str(&of_night(results, documents, scenario.name));
    }
    for documents in sizes(results) {
        let _ = writeln!(text, "### {} documents: wall time in seconds\n", number(documents.into()));
        text.push_str(&summary(results, documents));
    }
    let _ = writeln!(text, "### Targets\n");
    text + &of_verdicts(verdicts)
}

fn sizes(results: &Results) -> Vec<u32> {
    let mut sizes: Vec<u32> = results.cells.iter().map(|cell| cell.documents).collect();
    sizes.dedup();
    sizes
}

/// One night, everything about every contestant. Times are medians, page images of the first round.
fn of_night(results: &Results, documents: u32, scenario: &str) -> String {
    let mut text = String::from(
        "| | wall, s | range | ÷ rowdelta's | CPU, s | server's | memory | WAL | page images | inserted, updated, \
         deleted | dead rows | commits |\n|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n",
    );
    let own = results.cell(documents, scenario, Contestant::Rowdelta).map(Cell::wall);
    for cell in results.of(documents, scenario) {
        let walls = || cell.samples.iter().map(|sample| sample.process.wall);
        let columns = [
            title(cell.contestant),
            format!("{:.3}", cell.wall()),
            format!("{:.2} – {:.2}", walls().fold(f64::MAX, f64::min), walls().fold(0.0, f64::max)),
            own.map_or_else(String::new, |own| format!("{:.2}", cell.wall() / own)),
            format!("{:.2}", cell.median(|sample| sample.process.cpu)),
            match cell.samples.iter().all(|sample| sample.server_cpu.is_some()) {
                true => format!("{:.2}", cell.median(|sample| sample.server_cpu.unwrap_or_default())),
                false => "?".into(),
            },
            bytes(cell.memory() as f64),
            bytes(cell.wal_bytes()),
            cell.wal().map_or_else(|| "?".into(), |wal| bytes(wal.images() as f64)),
            rows(cell.rows()),
            number(cell.samples[0].dead),
            number(cell.median(|sample| sample.commits as f64) as u64),
        ];
        let _ = writeln!(text, "| {} |", columns.join(" | "));
    }
    text + "\n"
}

/// A name that tells contestants apart which are called the same in a column of their own.
fn title(contestant: Contestant) -> String {
    format!("{} (`{}`)", contestant.title(), contestant.name())
}

fn rows(counts: RowCounts) -> String {
    [counts.inserted, counts.updated, counts.deleted].map(number).join(" + ")
}

/// For the README: scenarios down, contestants across.
fn summary(results: &Results, documents: u32) -> String {
    let is_there = |contestant: &Contestant| {
        results.cells.iter().any(|cell| cell.documents == documents && cell.contestant == *contestant)
    };
    let contestants: Vec<Contestant> = CONTESTANTS.into_iter().filter(is_there).collect();
    let heads: Vec<String> =
        contestants.iter().map(|contestant| format!("`{}`", contestant.name())).collect();
    let mut text = format!("| | {} |\n|---|{}\n", heads.join(" | "), "--:|".repeat(heads.len()));
    for (_, scenario) in results.nights().into_iter().filter(|(size, _)| *size == documents) {
        let wall = |contestant: &Contestant| {
            let cell = results.cell(documents, scenario.name, *contestant);
            cell.map_or_else(String::new, |cell| format!("{:.3}", cell.wall()))
        };
        let walls: Vec<String> = contestants.iter().map(wall).collect();
        let _ = writeln!(text, "| {} | {} |", scenario.title, walls.join(" | "));
    }
    text + "\n"
}

fn of_verdicts(verdicts: &[Verdict]) -> String {
    let mut text = String::from("| documents | | target | measured | |\n|--:|---|--:|--:|---|\n");
    for verdict in verdicts {
        let Verdict { documents, target, bound, measured, is_met } = verdict;
        let outcome = if *is_met { "met" } else { "**missed**" };
        let documents = number((*documents).into());
        let _ = writeln!(text, "| {documents} | {target} | {bound} | {measured} | {outcome} |");
    }
    text
}

/// With commas between thousands.
pub fn number(count: u64) -> String {
    let digits = count.to_string();
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().filter_map(|group| std::str::from_utf8(group).ok()).collect();
    groups.join(",")
}

/// A number of bytes for people.
pub fn bytes(count: f64) -> String {
    match count {
        small if small < 1e6 => format!("{:.1} kB", small / 1e3),
        large => format!("{:.1} MB", large / 1e6),
    }
}
