//! Errors say where, what kind, and whether trying again can help.

use std::fmt;

use tokio_postgres::error::SqlState;

use crate::mapping::MappingError;

/// What went wrong, as far as the caller can act on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The mapping does not fit the database, or the database lacks the schema `rowdelta`.
    Setup,
    /// Another run of the mapping is at work.
    Busy,
    /// PostgreSQL refused the rows, for example by a constraint. Trying again fails in the same way.
    Rejected,
    /// Deadlock, lock timeout, lost connection, or rows that changed meanwhile: look again, then retry.
    Transient,
    /// No connection could be had.
    Connection,
    /// The feed broke off.
    Feed,
    /// The caller told the run to stop.
    Stopped,
    /// Anything else: a statement that should have worked did not.
    Internal,
}

/// An error of the engine or of the database.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    /// The relation whose rows were being read or written.
    relation: Option<String>,
    message: String,
    source: Option<tokio_postgres::Error>,
    /// Whether the connection may give answers to what was asked before.
    out_of_step: bool,
}

impl Error {
    /// An error of a kind, in words.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Error { kind, relation: None, message: message.into(), source: None, out_of_step: false }
    }

    /// Names the relation whose rows were being read or written.
    #[must_use]
    pub fn in_relation(mut self, relation: &str) -> Self {
        self.relation.get_or_insert_with(|| relation.to_owned());
        self
    }

    /// Says what the rows were written for.
    #[must_use]
    pub(crate) fn because(mut self, why: &str) -> Self {
        self.message = format!("{why}: {}", self.message);
        self
    }

    /// Adds to what it says.
    #[must_use]
    pub(crate) fn and(mut self, more: &str) -> Self {
        self.message += more;
        self
    }

    /// Marks an error after which the connection cannot be used any more.
    pub(crate) fn out_of_step(mut self) -> Self {
        self.out_of_step = true;
        self
    }

    /// Whether the connection cannot be used any more.
    pub(crate) fn is_out_of_step(&self) -> bool {
        self.out_of_step
    }

    /// The table whose constraint was violated, schema and name, not quoted.
    pub(crate) fn table(&self) -> Option<(&str, &str)> {
        let error = self.source.as_ref()?.as_db_error()?;
        error.schema().zip(error.table())
    }

    /// What went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The relation whose rows were being read or written.
    pub fn relation(&self) -> Option<&str> {
        self.relation.as_deref()
    }

    /// Whether trying again, from the look-up on, can succeed.
    pub fn is_transient(&self) -> bool {
        matches!(self.kind, ErrorKind::Transient | ErrorKind::Connection)
    }

    /// Whether trying again can succeed that soon: nobody makes room on a full disk meanwhile.
    pub(crate) fn may_pass(&self) -> bool {
        self.is_transient() && !self.is_disk_full()
    }

    /// Whether the server has no room left.
    pub fn is_disk_full(&self) -> bool {
        self.code() == Some(&SqlState::DISK_FULL)
    }

    /// Whether a lock could not be had in time.
    pub fn is_lock_timeout(&self) -> bool {
        self.code() == Some(&SqlState::LOCK_NOT_AVAILABLE)
    }

    /// Whether another order of documents might avoid it: a unique, exclusion or foreign-key violation.
    pub fn may_settle_later(&self) -> bool {
        let later =
            [SqlState::UNIQUE_VIOLATION, SqlState::FOREIGN_KEY_VIOLATION, SqlState::EXCLUSION_VIOLATION];
        self.code().is_some_and(|code| later.contains(code))
    }

    /// PostgreSQL's code for what went wrong.
    pub fn code(&self) -> Option<&SqlState> {
        self.source.as_ref().and_then(tokio_postgres::Error::code)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {
    // The message holds the cause's text already.
}

impl From<tokio_postgres::Error> for Error {
    fn from(error: tokio_postgres::Error) -> Self {
        let (kind, message) = (kind_of(&error), words(&error));
        Error { source: Some(error), ..Error::new(kind, message) }
    }
}

impl From<bb8::RunError<tokio_postgres::Error>> for Error {
    fn from(error: bb8::RunError<tokio_postgres::Error>) -> Self {
        match error {
            bb8::RunError::User(error) => {
                let message = words(&error);
                Error { source: Some(error), ..Error::new(ErrorKind::Connection, message) }
            }
            bb8::RunError::TimedOut => {
                Error::new(ErrorKind::Connection, "no connection of the pool became free in time")
            }
        }
    }
}

impl From<MappingError> for Error {
    fn from(error: MappingError) -> Self {
        Error::new(ErrorKind::Setup, error.to_string())
    }
}

/// Class 40 (rollbacks), 55P03 (lock timeout), 57014 (statement timeout), 57P (shutdown), 53 (resources), 08
/// (connection) and 25P03 (idle too long): another attempt may succeed. Codes of our own say that someone
/// else wrote: RD002 lost lease, RD003 state changed.
fn kind_of(error: &tokio_postgres::Error) -> ErrorKind {
    let Some(code) = error.code() else {
        let lost = error.is_closed() || std::error::Error::source(error).is_some_and(is_io);
        return if lost { ErrorKind::Transient } else { ErrorKind::Internal };
    };
    match code.code() {
        // Missing privileges, tables or columns, a server that only reads: no document is to blame.
        "42501" if is_row_policy(error) => ErrorKind::Rejected,
        "42501" | "42P01" | "42703" | "25006" | "3F000" => ErrorKind::Setup,
        "55P03" | "57014" | "25P03" | "RD003" => ErrorKind::Transient,
        "RD002" => ErrorKind::Busy,
        "42P05" | "26000" => ErrorKind::Transient,
        code if ["40", "08", "53"].contains(&&code[..2]) || code.starts_with("57P") => ErrorKind::Transient,
        code if ["22", "23", "P0", "42", "44"].contains(&&code[..2]) => ErrorKind::Rejected,
        _ => ErrorKind::Internal,
    }
}

/// A row that a row-level security policy refuses has the code of a missing privilege.
fn is_row_policy(error: &tokio_postgres::Error) -> bool {
    error.as_db_error().and_then(|db| db.routine()) == Some("ExecWithCheckOptions")
}

fn is_io(error: &(dyn std::error::Error + 'static)) -> bool {
    error.is::<std::io::Error>()
}

/// What is said of a lost lease, whoever finds out: the run, or the database (RD002).
pub(crate) const TAKEN_OVER: &str = "another run took over: this one was still for longer than its lease (--lease); what was \
     committed is in, the other run does the rest";

/// PostgreSQL's message and the constraint; its DETAIL holds values, which stay out.
fn words(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(db) if db.code().code() == "RD002" => TAKEN_OVER.to_owned(),
        // `invalid input syntax for type integer: "x"`: what follows is a value.
        Some(db) if db.code().code().starts_with("22") => {
            db.message().split(": \"").next().unwrap_or_default().to_owned()
        }
        Some(db) => db.message().to_owned(),
        None => match std::error::Error::source(error) {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        },
    }
}
