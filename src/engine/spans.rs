//! The spans of a run, and how it is logged that it ended. Names and fields are a contract: `docs/observability.md`.
//!
//! ```text
//! run ─┬─ batch ─┬─ document …     parsed, made rows of
//!      │         └─ transaction …  looked up, compared, written, recorded
//!      └─ transaction …            held removals, sweep
//! ```
//!
//! A document that is passed over by its bytes has none.

use tracing::field::Empty;
use tracing::{Span, debug_span, error_span};

use crate::document::Document;
use crate::engine::apply::Round;
use crate::engine::prepare::Unread;
use crate::engine::report::{Report, SyncError};
use crate::error::Error;
use crate::mapping::Mapping;

/// A run. It is of the level of errors, so that whatever is logged says which run it is about.
pub(crate) fn run(mapping: &Mapping, purpose: &'static str) -> Span {
    error_span!("run", mapping = mapping.name, purpose, run = Empty)
}

/// A batch as the feed brings it.
pub(crate) fn batch(number: u64, documents: &[Unread]) -> Span {
    let bytes: usize = documents.iter().map(|unread| unread.document.bytes.len()).sum();
    let round = Round::Feed.as_str();
    debug_span!("batch", round, batch = number, documents = documents.len(), bytes)
}

/// Documents that waited for the end of the feed.
pub(crate) fn later(documents: usize, round: Round) -> Span {
    if documents == 0 { Span::none() } else { debug_span!("batch", round = round.as_str(), documents) }
}

/// A document while it is parsed and becomes rows.
pub(crate) fn document(Document { bytes, origin }: &Document) -> Span {
    let file = origin.file.as_deref();
    let (line, item, bytes) = (origin.line, origin.item, bytes.len());
    debug_span!("document", document = Empty, file, line, item, bytes, rows = Empty)
}

/// A transaction of documents.
pub(crate) fn transaction(documents: usize, round: &'static str) -> Span {
    debug_span!("transaction", round, documents, rows = Empty, outcome = Empty, sqlstate = Empty)
}

/// Notes that a transaction failed.
pub(crate) fn failed<'s>(span: &'s Span, error: &Error) -> &'s Span {
    span.record("sqlstate", error.code().map(|code| code.code())).record("outcome", "failed")
}

/// Logs how a run ended.
pub(crate) fn ended(ended: &Result<Report, SyncError>) {
    let Some(report) = ended.as_ref().map_or_else(SyncError::report, Some) else { return };
    let documents = &report.documents;
    tracing::info!(
        status = report.status.as_str(),
        elapsed_ms = report.elapsed_ms,
        read = documents.read,
        repeated = documents.repeated,
        unchanged = documents.unchanged,
        new = documents.new,
        changed = documents.changed,
        removed = documents.removed,
        failed = documents.failed,
        withheld = documents.withheld,
        unsettled = documents.unsettled,
        rows_written = report.rows_written(),
        retries = report.retries,
        wal_bytes = report.wal_bytes,
        "run ended"
    );
}
