//! What the command prints, and its exit codes.

use std::fmt::Write as _;
use std::io::{self, Write as _};

use rowdelta::engine::report::{Report, SyncError};
use rowdelta::error::{Error, ErrorKind};
use rowdelta::postgres::doctor::size;

/// Exit codes: a contract with whoever schedules the command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Done = 0,
    /// Documents failed; trying again does not help.
    Failed = 1,
    /// Could not run: usage, mapping, connection, feed.
    Unable = 2,
    /// Deletions were withheld.
    Withheld = 3,
    /// Another run is at work.
    Busy = 4,
    /// Rows differ, and were not repaired.
    Differs = 5,
    /// Documents failed; trying again can help some.
    Retryable = 6,
    /// Stopped by SIGINT.
    Interrupted = 130,
    /// Stopped by SIGTERM.
    Terminated = 143,
}

impl Exit {
    /// The exit code for how a run ended.
    pub fn of(result: &Result<Report, SyncError>) -> Self {
        let Err(error) = result else { return Exit::Done };
        if let Some(cause) = error.cause() {
            return Self::of_cause(cause);
        }
        if matches!(error, SyncError::Withheld(_)) {
            return Exit::Withheld;
        }
        let retryable =
            error.report().is_some_and(|report| report.failures.iter().any(|failure| failure.retryable));
        if retryable { Exit::Retryable } else { Exit::Failed }
    }

    /// The exit code for why something could not run, or not to its end.
    pub fn of_cause(cause: &Error) -> Self {
        match cause.kind() {
            ErrorKind::Busy => Exit::Busy,
            ErrorKind::Transient => Exit::Retryable,
            _ => Exit::Unable,
        }
    }

    /// The exit code for what a signal stopped; of 0, none.
    pub fn of_signal(signal: u8) -> Option<Self> {
        match signal {
            130 => Some(Exit::Interrupted),
            143 => Some(Exit::Terminated),
            _ => None,
        }
    }
}

/// Prints a long text. Whoever reads it may have seen enough before its end.
///
/// # Errors
/// In words.
pub fn print(text: &str) -> Result<(), String> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.to_string()),
        _ => Ok(()),
    }
}

/// The report of a run, however it ended.
pub fn report(result: &Result<Report, SyncError>) -> Option<&Report> {
    result.as_ref().map_or_else(SyncError::report, Some)
}

/// A summary that fits a screen: what was read, what was written per relation, what was not.
pub fn summary(report: &Report) -> String {
    let documents = &report.documents;
    let mut text = String::new();
    let _ = writeln!(
        text,
        "{}: {} read in {:.1} s: {} unchanged, {} new, {} changed, {} failed",
        report.mapping,
        plural(documents.read, "document"),
        report.elapsed_ms as f64 / 1000.0,
        documents.unchanged,
        documents.new,
        documents.changed,
        documents.failed,
    );
    let extra = [
        (documents.repeated, "repeated"),
        (documents.absent, "recorded, and not in the feed"),
        (documents.removed, "deleted"),
        (documents.withheld, "withheld"),
        (documents.unsettled, "unsettled, to be done again"),
        (report.nuls, "values held U+0000, which was left out or replaced"),
        (report.parked, "parked for a moment, of rows that waited for each other"),
    ];
    for (count, what) in extra.iter().filter(|extra| extra.0 > 0) {
        let _ = writeln!(text, "  {count} {what}");
    }
    let written: Vec<_> =
        report.relations.iter().filter(|r| r.added + r.updated + r.moved + r.removed > 0).collect();
    if written.is_empty() {
        text.push_str("  no row written\n");
        return text;
    }
    let width = written.iter().map(|relation| relation.name.chars().count()).max().unwrap_or(0).max(8);
    let _ = writeln!(
        text,
        "  {:<width$} {:>9} {:>9} {:>9} {:>9}",
        "relation", "added", "updated", "moved", "removed"
    );
    for relation in written {
        let counts = [relation.added, relation.updated, relation.moved, relation.removed];
        let [added, updated, moved, removed] =
            counts.map(|n| if n == 0 { "·".to_owned() } else { n.to_string() });
        let _ = writeln!(text, "  {:<width$} {added:>9} {updated:>9} {moved:>9} {removed:>9}", relation.name);
    }
    let _ = writeln!(
        text,
        "  {} written, {} of WAL ({})",
        plural(report.rows_written(), "row"),
        size(report.wal_bytes as i64),
        report.wal_scope
    );
    text
}

/// A number with its noun.
pub fn plural(count: u64, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}
