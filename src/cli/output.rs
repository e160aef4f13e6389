//! What the command prints, and its exit codes.

use std::io::{self, Write as _};

use indicatif::HumanCount;
use rowdelta::engine::report::{Report, SyncError};
use rowdelta::error::{Error, ErrorKind};

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

/// A number with its noun.
pub fn plural(count: u64, noun: &str) -> String {
    format!("{} {noun}{}", HumanCount(count), if count == 1 { "" } else { "s" })
}
