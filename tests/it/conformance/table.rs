//! The table of results: printed by area, and kept in `docs/conformance.md`.

use std::fmt::Write as _;
use std::path::Path;

use super::case::Case;
use super::{Outcome, Played};

const HEAD: &str = "\
# Conformance

What the cases of [tests/conformance](../tests/conformance) showed when they were last played. Written by the runner:
`ROWDELTA_CONFORMANCE_RENEW=1 cargo test --test it conformance` renews it.
";

/// Prints failures and a line for each area. Gives the number of cases that failed.
pub fn print(played: &[Played]) -> usize {
    let mut failed = 0;
    for Played { case, outcome } in played {
        match outcome {
            Outcome::AsExpected => {}
            Outcome::Skipped(lack) => println!("skipped: {} needs {lack}", case.path),
            Outcome::Failed(error) => {
                failed += 1;
                println!("\nFAILED {}\n{}\n{}", case.path, case.fact, indented(error));
            }
        }
    }
    println!("\n{:<16} {:>6} {:>8} {:>8} {:>7}", "area", "passed", "refused", "skipped", "failed");
    for cases in played.chunk_by(|a, b| a.case.area() == b.case.area()) {
        let count = |wanted: fn(&Played) -> bool| cases.iter().filter(|played| wanted(played)).count();
        println!(
            "{:<16} {:>6} {:>8} {:>8} {:>7}",
            cases[0].case.area(),
            count(|p| matches!(p.outcome, Outcome::AsExpected) && p.case.reason.is_none()),
            count(|p| matches!(p.outcome, Outcome::AsExpected) && p.case.reason.is_some()),
            count(|p| matches!(p.outcome, Outcome::Skipped(_))),
            count(|p| matches!(p.outcome, Outcome::Failed(_))),
        );
    }
    failed
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("    {line}\n")).collect()
}

/// Compares the kept table with what came out; writes it if it is to be renewed.
///
/// # Errors
/// It is out of date.
pub fn renew(played: &[Played]) -> Result<(), String> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/conformance.md");
    let table = markdown(played);
    if std::env::var_os("ROWDELTA_CONFORMANCE_RENEW").is_some() {
        return std::fs::write(&file, table).map_err(|error| format!("{}: {error}", file.display()));
    }
    if std::fs::read_to_string(&file).is_ok_and(|kept| kept == table) {
        return Ok(());
    }
    Err("docs/conformance.md is out of date; ROWDELTA_CONFORMANCE_RENEW=1 renews it".into())
}

fn markdown(played: &[Played]) -> String {
    let mut text = HEAD.to_owned();
    for cases in played.chunk_by(|a, b| a.case.area() == b.case.area()) {
        let _ = writeln!(text, "\n## {}\n\n| fact | outcome |\n|---|---|", cases[0].case.area());
        for Played { case, outcome } in cases {
            let link = format!("../tests/conformance/{}.toml", case.path);
            let _ = writeln!(text, "| [{}]({link}) | {}{} |", case.fact, words(case, outcome), needs(case));
        }
    }
    text
}

/// A skipped case counts as it is written, so that the table does not depend on the server.
fn words(case: &Case, outcome: &Outcome) -> String {
    match (outcome, &case.reason) {
        (Outcome::Failed(_), _) => "**fails**".to_owned(),
        (_, Some(reason)) => format!("refused: {reason}"),
        (_, None) => "passes".to_owned(),
    }
}

fn needs(case: &Case) -> String {
    let version = (case.requires > 0).then(|| format!("PostgreSQL {} or later", case.requires));
    let needs: Vec<String> = version.into_iter().chain(case.needs.iter().cloned()).collect();
    if needs.is_empty() { String::new() } else { format!(" ({})", needs.join(", ")) }
}
