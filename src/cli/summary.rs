//! What a sync came to, in so few lines that they fit a screen of 24 with those that name failures: what was
//! written, per relation, and what was not, and why.

use std::fmt::Write as _;

use indicatif::HumanCount;
use rowdelta::engine::report::{RelationCounts, Report};
use rowdelta::postgres::doctor::size;

use crate::cli::output::plural;

/// Lines of a screen, but for those of the prompt before and after.
const LINES: usize = 22;
/// Its columns.
const COLUMNS: usize = 80;
/// A longer name of a relation is cut.
const NAME_MAX: usize = 30;
/// `N documents failed`, ten of them, and how many more.
const FAILURE_LINES_MAX: usize = 12;

/// The summary of a run.
pub fn summary(report: &Report) -> String {
    let written = written_lines(report);
    let not_written = not_written(report);
    let failures = match report.failures.len() {
        0 => usize::from(report.withheld_because.is_some()),
        failures => (failures + 1).min(FAILURE_LINES_MAX),
    };
    let taken = 1 + written.len() + not_written.len() + failures;
    let mut lines = vec![first(report)];
    lines.extend(written);
    lines.extend(table(report, LINES.saturating_sub(taken)));
    lines.extend(not_written);
    lines.iter().map(|line| fitted(line) + "\n").collect()
}

fn first(report: &Report) -> String {
    let (read, seconds) = (report.documents.read, report.elapsed_ms as f64 / 1000.0);
    let documents = if read == 1 { "document" } else { "documents" };
    let mut line = format!("{}: {} {documents} read in {seconds:.1} s", report.mapping, HumanCount(read));
    if seconds >= 1.0 {
        let _ = write!(line, ", {} a second", HumanCount((read as f64 / seconds) as u64));
    }
    line
}

/// What was written, and what was odd about it.
fn written_lines(report: &Report) -> Vec<String> {
    let (documents, rows) = (&report.documents, report.rows_written());
    let words = |counts: &[(u64, &str)]| {
        let counts = counts.iter().filter(|count| count.0 > 0);
        counts.map(|(count, what)| format!("{} {what}", HumanCount(*count))).collect::<Vec<_>>().join(", ")
    };
    let mut lines = Vec::new();
    if rows > 0 || documents.new + documents.changed + documents.removed > 0 {
        let counts = [(documents.new, "new"), (documents.changed, "changed"), (documents.removed, "deleted")];
        let (counts, wal) = (words(&counts), size(report.wal_bytes as i64));
        let rows = format!("{} {}", HumanCount(rows), if rows == 1 { "row" } else { "rows" });
        lines.push(format!("  written: {counts}; {rows}, {wal} of {} WAL", report.wal_scope));
    }
    let odd = words(&[
        (report.retries, "transactions tried again"),
        (report.parked, "writes beyond the edit"),
        (report.nuls, "values held U+0000"),
    ]);
    lines.extend((!odd.is_empty()).then(|| format!("  {odd}")));
    lines
}

/// The relations in which rows were written, those with the most first, in so many lines at most.
fn table(report: &Report, lines_max: usize) -> Vec<String> {
    let rows = |counts: &RelationCounts| counts.added + counts.updated + counts.moved + counts.removed;
    let mut written: Vec<&RelationCounts> =
        report.relations.iter().filter(|counts| rows(counts) > 0).collect();
    if written.is_empty() || lines_max < 3 {
        return Vec::new();
    }
    let fits = if written.len() < lines_max { written.len() } else { lines_max - 2 };
    let mut kept: Vec<&RelationCounts> = written.clone();
    kept.sort_by_key(|counts| std::cmp::Reverse(rows(counts)));
    let left = kept.split_off(fits);
    written.retain(|counts| !left.iter().any(|other| std::ptr::eq(*other, *counts)));
    let name = |counts: &RelationCounts| cut(&counts.name, NAME_MAX);
    let width = written.iter().map(|counts| name(counts).chars().count()).max().unwrap_or(0).max(8);
    let line = |name: &str, cells: [String; 4]| {
        let cells: String = cells.iter().map(|cell| format!(" {cell:>10}")).collect();
        format!("    {name:<width$}{cells}")
    };
    let mut lines = vec![line("relation", ["added", "updated", "moved", "removed"].map(str::to_owned))];
    let cell = |count: u64| if count == 0 { "·".to_owned() } else { HumanCount(count).to_string() };
    let cells =
        |counts: &RelationCounts| [counts.added, counts.updated, counts.moved, counts.removed].map(cell);
    lines.extend(written.iter().map(|counts| line(&name(counts), cells(counts))));
    if !left.is_empty() {
        let rows: u64 = left.iter().map(|counts| rows(counts)).sum();
        let relations = plural(left.len() as u64, "more relation");
        lines.push(format!("    and {} rows in {relations}", HumanCount(rows)));
    }
    lines
}

/// What became of the documents of which no row was written, and what is left to do.
fn not_written(report: &Report) -> Vec<String> {
    let documents = &report.documents;
    let rows_withheld: u64 = report.relations.iter().map(|counts| counts.withheld).sum();
    let retryable = report.failures.iter().filter(|failure| failure.retryable).count();
    let failed = match retryable {
        0 => "failed: see above; trying again does not help".to_owned(),
        retryable => format!("failed: see above; trying again can help {retryable}"),
    };
    let withheld = match (rows_withheld, &report.withheld_because) {
        (0, Some(why)) => format!("withheld: {why}"),
        (0, None) => "withheld".to_owned(),
        (rows, _) => format!("withheld, which would have deleted {}", plural(rows, "row")),
    };
    let unchanged = match documents.respelled {
        0 => "unchanged".to_owned(),
        respelled => format!("unchanged, {} of them in another spelling", HumanCount(respelled)),
    };
    let kept = documents.absent.saturating_sub(documents.removed + documents.withheld);
    let counts = [
        (documents.unchanged, &*unchanged),
        (documents.repeated, "equal to one that stood before it in the feed"),
        (documents.failed, &failed),
        (documents.withheld, &withheld),
        (documents.unsettled, "unsettled: written as far as it went, done again by the next run"),
        (report.skipped_lookups, "references left out: the catalogue has no such row"),
        (kept, "recorded and not in the feed: kept, or marked"),
    ];
    let counts: Vec<_> = counts.iter().filter(|count| count.0 > 0).collect();
    if counts.is_empty() {
        return Vec::new();
    }
    let line = |(count, what): &&(u64, &str)| format!("{:>12} {what}", HumanCount(*count).to_string());
    [("  not written:".to_owned())].into_iter().chain(counts.iter().map(line)).collect()
}

/// A line cut to the width of the screen.
fn fitted(line: &str) -> String {
    cut(line, COLUMNS)
}

fn cut(text: &str, letters_max: usize) -> String {
    if text.chars().count() <= letters_max {
        return text.to_owned();
    }
    text.chars().take(letters_max - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rowdelta::engine::report::{DocumentCounts, Failure, Phases, Slow};

    /// A run in which everything happened that there is.
    fn everything(relations: usize, failures: usize) -> Report {
        let relation = |n: usize| RelationCounts {
            name: format!("{}_{n}", "a_long_name_".repeat(n)),
            added: 10_000_000 * n as u64,
            updated: 3,
            withheld: 7,
            ..RelationCounts::default()
        };
        Report {
            mapping: "convocatorias".into(),
            elapsed_ms: 12_345,
            phases: Phases::default(),
            wal_scope: "server",
            wal_bytes: 123_456_789,
            documents: DocumentCounts {
                read: 1_234_567,
                repeated: 1,
                unchanged: 1_200_000,
                new: 3,
                changed: 20_000,
                absent: 40,
                removed: 5,
                failed: failures as u64,
                withheld: 6,
                unsettled: 9,
                ..DocumentCounts::default()
            },
            relations: (0..relations).map(relation).collect(),
            parked: 2,
            nuls: 1,
            retries: 4,
            skipped_lookups: 11,
            slowest: Vec::<Slow>::new(),
            failures: vec![Failure { retryable: true, ..Failure::default() }; failures],
            ..Report::default()
        }
    }

    #[test]
    fn a_summary_fits_a_screen_whatever_happened() {
        for (relations, failures) in [(0, 0), (2, 0), (20, 0), (20, 3), (2, 500), (40, 10)] {
            let report = everything(relations, failures);
            let text = summary(&report);
            let failed = if failures == 0 { 0 } else { (failures + 1).min(FAILURE_LINES_MAX) };
            assert!(text.lines().count() + failed <= 24, "{relations} {failures}\n{text}");
            assert!(text.lines().all(|line| line.chars().count() <= COLUMNS), "{text}");
            assert!(text.contains("   1,200,000 unchanged\n"), "{text}");
        }
    }

    #[test]
    fn relations_with_few_rows_are_left_out_first() {
        let text = summary(&everything(20, 0));
        assert!(text.contains("a_long_name_a_long_name_a_lon… 190,000,000"), "{text}");
        assert!(!text.contains("    _0 ") && text.contains(" rows in "), "{text}");
        let text = summary(&everything(2, 0));
        assert!(text.contains("    _0 ") && !text.contains(" more"), "{text}");
    }

    #[test]
    fn a_night_without_changes_says_so() {
        let documents = DocumentCounts { read: 3, unchanged: 3, ..DocumentCounts::default() };
        let report = Report { mapping: "shop".into(), documents, elapsed_ms: 42, ..Report::default() };
        let said = "shop: 3 documents read in 0.0 s\n  not written:\n           3 unchanged\n";
        assert_eq!(summary(&report), said);
    }
}
