//! What a run did, for programs and for people.

use std::fmt;

use serde::Serialize;

use crate::document::Origin;
use crate::error::Error;
use crate::mapping::Mapping;

/// The report of a run. Its JSON form is a contract: fields may be added, none changes its meaning.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Report {
    /// Of this format.
    pub version: u32,
    /// Id of the run in `rowdelta.run`.
    pub run: i64,
    /// Name of the mapping.
    pub mapping: String,
    /// How it ended.
    pub status: Status,
    /// Wall time in milliseconds.
    pub elapsed_ms: u64,
    /// Wall time of the parts of a run, in milliseconds.
    pub phases: Phases,
    /// Bytes of documents read, after decompression.
    pub bytes_read: u64,
    /// Bytes of write-ahead log written between start and end.
    pub wal_bytes: u64,
    /// Whose write-ahead log was counted: `server`, all of it, others' writes included.
    pub wal_scope: &'static str,
    /// Whether the feed was declared complete and taken for it.
    pub complete: bool,
    /// What became of the documents.
    pub documents: DocumentCounts,
    /// What was written, per relation: the root, its relations, then the catalogues.
    pub relations: Vec<RelationCounts>,
    /// Root rows whose marks were set, alone or with other columns.
    pub marks: u64,
    /// Writes beyond the smallest edit, because rows waited for each other in a circle: values that were parked,
    /// updates that were split, references that were filled in afterwards, and references that were NULL while what
    /// they refer to passed from one row to another (two writes each).
    pub parked: u64,
    /// Why documents were withheld, or nothing was swept.
    pub withheld_because: Option<String>,
    /// References left out because the catalogue lacks the row.
    pub skipped_lookups: u64,
    /// Values in which U+0000 was left out or replaced, of documents that were compared.
    pub nuls: u64,
    /// Transactions tried again.
    pub retries: u64,
    /// Whether what is recorded of documents was packed at the end, which costs write-ahead log once in a while.
    pub merged: bool,
    /// The documents that took longest, at most five, the slowest first.
    pub slowest: Vec<Slow>,
    /// The documents that failed.
    pub failures: Vec<Failure>,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Every document is in, or was in already.
    #[default]
    Done,
    /// Documents failed; the others are in.
    Failed,
    /// No document failed, but some were withheld because too much would have been deleted, or a feed declared complete
    /// was not taken for it.
    Withheld,
    /// The run did not reach the end of the feed.
    Aborted,
}

impl Status {
    /// The word that stands for it in the ledger and in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Done => "done",
            Status::Failed => "failed",
            Status::Withheld => "withheld",
            Status::Aborted => "aborted",
        }
    }
}

/// Wall time of the parts of a run, in milliseconds, one after another: together they are
/// [`elapsed_ms`](Report::elapsed_ms), but for what rounding takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Phases {
    /// Reading the catalog, taking the lease (and waiting for it), finding lost rows, loading what is known.
    pub start_ms: u64,
    /// Reading the feed; documents are compared and written meanwhile.
    pub feed_ms: u64,
    /// Waiting for the last batches, second tries, and removals that were held back.
    pub finish_ms: u64,
    /// Counting and removing what a complete feed lacks.
    pub sweep_ms: u64,
    /// Packing what is recorded of documents.
    pub merge_ms: u64,
    /// Writing the ledger and giving the lease back. 0 in the ledger itself.
    pub close_ms: u64,
}

/// What became of the documents. Each one read is in exactly one of `repeated`, `unchanged`, `new`, `changed`, `failed`
/// and `withheld`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DocumentCounts {
    /// Documents of the feed.
    pub read: u64,
    /// Equal to one that stood before it in the feed.
    pub repeated: u64,
    /// No row of them was written.
    pub unchanged: u64,
    /// Their root row was inserted.
    pub new: u64,
    /// A row of them was written.
    pub changed: u64,
    /// Recorded, and missing from a feed declared complete.
    pub absent: u64,
    /// Of those, the ones that were deleted.
    pub removed: u64,
    /// Not stored.
    pub failed: u64,
    /// Not stored because too much would have been deleted; or missing and not swept, because it was too much or the
    /// feed was not taken for complete.
    pub withheld: u64,
    /// Stored, but to be done again by the next run.
    pub unsettled: u64,
    /// Of those that are unchanged, the ones that had to be parsed to know it: their bytes were others.
    pub respelled: u64,
    /// Of these, the ones whose bytes were recorded, to be skipped from now on. Of one whose bytes are others time after
    /// time they are not.
    pub renewed: u64,
}

/// Rows of one relation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RelationCounts {
    /// The relation's name; the mapping's for the root, the lookup's for a catalogue.
    pub name: String,
    /// The table.
    pub table: String,
    /// Inserted.
    pub added: u64,
    /// Updated in place.
    pub updated: u64,
    /// Updated to hang under another parent.
    pub moved: u64,
    /// Deleted.
    pub removed: u64,
    /// Compared and left alone. Rows of documents that were skipped are not counted.
    pub unchanged: u64,
    /// Not deleted because too much would have been.
    pub withheld: u64,
    /// Time spent waiting for the database to read and write its rows, in milliseconds, in transactions that were
    /// committed. Workers wait side by side, so that together these may exceed the run's wall time.
    pub ms: u64,
}

/// A document that took long.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Slow {
    /// The document's key.
    pub document: String,
    /// Milliseconds: parsing, rows and fingerprints, and of each transaction that it was in, failed ones too, its share
    /// by number of rows.
    pub ms: u64,
}

/// A document that failed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// The document's key, if it could be read.
    pub document: Option<String>,
    /// The file.
    pub file: Option<String>,
    /// Line in the file at which the document begins, or place in the feed, from 1.
    pub line: u64,
    /// The document's number in the file, from 1, where several may begin on one line.
    pub item: Option<u64>,
    /// The relation.
    pub relation: Option<String>,
    /// The place in the document.
    pub path: Option<String>,
    /// PostgreSQL's code.
    pub sqlstate: Option<String>,
    /// What is wrong.
    pub message: String,
    /// Whether trying again can help.
    pub retryable: bool,
}

impl Failure {
    /// A document that cannot be read or does not fit the mapping.
    pub(crate) fn of_document(origin: &Origin, document: Option<String>, message: String) -> Self {
        Failure {
            document,
            file: origin.file.as_deref().map(str::to_owned),
            line: origin.line,
            item: origin.item,
            message,
            ..Failure::default()
        }
    }

    /// A document whose rows the database refused, or that could not be applied in the tries there were.
    pub(crate) fn of_error(origin: &Origin, document: &str, error: &Error) -> Self {
        Failure {
            relation: error.relation().map(str::to_owned),
            sqlstate: error.code().map(|code| code.code().to_owned()),
            retryable: error.is_transient(),
            ..Failure::of_document(origin, Some(document.to_owned()), error.to_string())
        }
    }
}

impl fmt::Display for Failure {
    /// `order-7 (feed.ndjson:3): lines[1].qty: expected an integer, found "two"`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let origin = Origin { file: self.file.as_deref().map(Into::into), line: self.line, item: self.item };
        match &self.document {
            Some(document) => write!(f, "{document} ({origin})")?,
            None => origin.fmt(f)?,
        }
        match (&self.path, &self.relation) {
            (Some(path), _) => write!(f, ": {path}")?,
            (None, Some(relation)) => write!(f, ": {relation}")?,
            (None, None) => {}
        }
        write!(f, ": {}", self.message)?;
        self.sqlstate.as_ref().map_or(Ok(()), |code| write!(f, " ({code})"))
    }
}

impl Report {
    /// An empty report for a mapping: all relations and catalogues, nothing counted.
    pub(crate) fn new(mapping: &Mapping) -> Self {
        let relations = mapping.relations.iter().map(|relation| (&relation.name, &relation.table));
        let lookups = mapping.lookups.iter().map(|lookup| (&lookup.name, &lookup.table));
        let counts = |(name, table): (&String, &crate::mapping::TableName)| RelationCounts {
            name: name.clone(),
            table: table.to_string(),
            ..RelationCounts::default()
        };
        Report {
            version: 1,
            mapping: mapping.name.clone(),
            wal_scope: "server",
            relations: relations.chain(lookups).map(counts).collect(),
            ..Report::default()
        }
    }

    /// Rows inserted, updated, moved and deleted, in all tables.
    pub fn rows_written(&self) -> u64 {
        self.relations.iter().map(|r| r.added + r.updated + r.moved + r.removed).sum()
    }
}

/// Documents of the feed failed, or the run could not go on. What succeeded is in the database and is skipped
/// by its fingerprint when the run is tried again.
#[derive(Debug)]
#[non_exhaustive]
pub enum SyncError {
    /// Documents failed: [`Report::failures`] names them.
    Failed(Box<Report>),
    /// No document failed, but deletions were withheld: [`Report::withheld_because`] says why.
    Withheld(Box<Report>),
    /// The run did not reach the end of the feed.
    Aborted {
        /// Why.
        cause: Error,
        /// What was done before.
        report: Box<Report>,
    },
    /// Nothing was done.
    Start(Error),
}

impl fmt::Display for SyncError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SyncError::Failed(report) => {
                let failed = &report.failures;
                let plural = if failed.len() == 1 { "document" } else { "documents" };
                write!(f, "{} {plural} failed", failed.len())?;
                failed.iter().take(10).try_for_each(|failure| write!(f, "\n  {failure}"))?;
                let more = failed.len().saturating_sub(10);
                if more > 0 {
                    write!(f, "\n  and {more} more: --report, or the view rowdelta.failures")
                } else {
                    Ok(())
                }
            }
            SyncError::Withheld(report) => {
                let why = report.withheld_because.as_deref().unwrap_or_default();
                let count = report.documents.withheld;
                let plural = if count == 1 { "document" } else { "documents" };
                write!(f, "{count} {plural} withheld: {why}")
            }
            SyncError::Aborted { cause, .. } => write!(f, "the run was broken off: {cause}"),
            SyncError::Start(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for SyncError {}

impl SyncError {
    /// What was done all the same; `None` where nothing was begun.
    pub fn report(&self) -> Option<&Report> {
        match self {
            SyncError::Failed(report) | SyncError::Withheld(report) | SyncError::Aborted { report, .. } => {
                Some(report)
            }
            SyncError::Start(_) => None,
        }
    }

    /// Why the run did not start, or was broken off; `None` where documents failed or were withheld.
    pub fn cause(&self) -> Option<&Error> {
        match self {
            SyncError::Failed(_) | SyncError::Withheld(_) => None,
            SyncError::Aborted { cause, .. } | SyncError::Start(cause) => Some(cause),
        }
    }
}

impl From<Error> for SyncError {
    fn from(error: Error) -> Self {
        SyncError::Start(error)
    }
}
