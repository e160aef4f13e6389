//! A sync inside a transaction of the caller's.
//!
//! What a run of [`Engine::sync`] does over several connections (its lease and heartbeat, catalogue rows that are
//! committed beforehand, workers side by side) cannot be done inside one transaction that is not its own. The sync in
//! SQL (`docs/sql.md`) is made for it: it writes through the caller's connection alone, records the same fingerprints,
//! and needs no lease, since documents are recorded by compare-and-set.

use std::pin::pin;
use std::time::Instant;

use futures_util::{Stream, StreamExt as _};
use serde_json::Value;
use tokio_postgres::Transaction;
use tracing::Instrument as _;

use crate::document::{Document, Origin};
use crate::engine::report::{DocumentCounts, Failure, RelationCounts, Report, Status, SyncError};
use crate::engine::{Engine, FeedItem, metrics, spans};
use crate::error::{Error, ErrorKind};
use crate::json::{Json, JsonError};
use crate::postgres::inside;
use crate::shred::label;

impl Engine {
    /// Syncs documents inside a transaction of the caller's: they are in when it commits, and gone when it rolls back,
    /// with all else that was done in it.
    ///
    /// Documents that fail are undone by savepoints, and do not keep the others out; the transaction can go on whatever
    /// comes of it, unless its connection is lost. It must be `READ COMMITTED`. Rows that are written stay locked until it
    /// ends: a few thousand documents are a good measure.
    ///
    /// It is the sync in SQL that does it (`rowdelta.sync_texts`, as many documents at once as a batch has), so that the
    /// mapping must be within its scope, and its differences from [`sync`](Self::sync) hold: see `docs/sql.md`. A child that
    /// leaves a document in one batch and turns up in another in the next gets another id; of a document that stands in two
    /// batches the later one counts. No lease is taken, and nothing but documents and rows is counted in the report.
    ///
    /// # Errors
    /// [`SyncError::Failed`] and [`SyncError::Withheld`] as of [`sync`](Self::sync): the others are in, and it is for the
    /// caller to commit them or not. [`SyncError::Start`]: the mapping is not one for the SQL functions, or the engine
    /// declares feeds complete, for which these have `rowdelta.sweep`. [`SyncError::Aborted`]: a deadlock, a timeout, a
    /// lost connection, or the feed broke off; a try with a new transaction may succeed.
    pub async fn sync_in(
        &self,
        transaction: &mut Transaction<'_>,
        feed: impl Stream<Item = FeedItem> + Send,
    ) -> Result<Report, SyncError> {
        let span = spans::run(&self.mapping, "sync_in");
        let ended = self.inside(transaction, feed).instrument(span.clone()).await;
        span.in_scope(|| spans::ended(&ended));
        ended
    }

    async fn inside(
        &self,
        transaction: &mut Transaction<'_>,
        feed: impl Stream<Item = FeedItem> + Send,
    ) -> Result<Report, SyncError> {
        let started = Instant::now();
        if self.options.complete {
            let message =
                "a complete feed cannot be swept inside a transaction of the caller's: rowdelta.sweep can";
            return Err(Error::new(ErrorKind::Setup, message).into());
        }
        let savepoint = transaction.savepoint("rowdelta").await.map_err(Error::from)?;
        match inside::register(&savepoint, &self.mapping).await {
            Ok(()) => savepoint.commit().await.map_err(Error::from)?,
            Err(error) => {
                savepoint.rollback().await.map_err(Error::from)?;
                return Err(error.into());
            }
        }
        let mut inside = Inside { engine: self, transaction, report: Report::new(&self.mapping) };
        let ended = inside.read(feed).await;
        let mut report = inside.report;
        report.elapsed_ms = started.elapsed().as_millis() as u64;
        report.status = match () {
            () if ended.is_err() => Status::Aborted,
            () if !report.failures.is_empty() => Status::Failed,
            () if report.documents.withheld > 0 => Status::Withheld,
            () => Status::Done,
        };
        metrics::ended(&report);
        match (ended, report.status) {
            (Err(cause), _) => Err(SyncError::Aborted { cause, report: Box::new(report) }),
            (Ok(()), Status::Failed) => Err(SyncError::Failed(Box::new(report))),
            (Ok(()), Status::Withheld) => Err(SyncError::Withheld(Box::new(report))),
            (Ok(()), _) => Ok(report),
        }
    }
}

/// A sync inside a transaction.
struct Inside<'e, 't, 'c> {
    engine: &'e Engine,
    transaction: &'t mut Transaction<'c>,
    report: Report,
}

impl Inside<'_, '_, '_> {
    async fn read(&mut self, feed: impl Stream<Item = FeedItem> + Send) -> Result<(), Error> {
        let mut feed = pin!(feed);
        let options = &self.engine.options;
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while let Some(item) = feed.next().await {
            self.report.documents.read += 1;
            let Some(document) = self.readable(item)? else { continue };
            let length = document.bytes.len();
            if bytes + length > options.batch_bytes_max || batch.len() == options.batch_documents_max {
                self.store(std::mem::take(&mut batch)).await?;
                bytes = 0;
            }
            bytes += length;
            self.report.bytes_read += length as u64;
            batch.push(document);
        }
        self.store(batch).await
    }

    /// A document that is text. One that is not fails here: it could not be sent.
    fn readable(&mut self, item: FeedItem) -> Result<Option<Document>, Error> {
        let failure = match item {
            Ok(mut document) => {
                if document.origin == Origin::default() {
                    document.origin.line = self.report.documents.read;
                }
                match std::str::from_utf8(&document.bytes) {
                    Ok(_) => return Ok(Some(document)),
                    Err(error) => {
                        let (message, column) = ("invalid UTF-8".to_owned(), error.valid_up_to() + 1);
                        let message = JsonError { message, column }.to_string();
                        Failure::of_document(&document.origin, None, message)
                    }
                }
            }
            Err(error) if error.fatal => return Err(Error::new(ErrorKind::Feed, error.to_string())),
            Err(error) => Failure::of_document(&error.origin, None, error.message),
        };
        self.fail(failure);
        Ok(None)
    }

    fn fail(&mut self, failure: Failure) {
        self.report.documents.failed += 1;
        self.note(failure);
    }

    /// Names what is wrong with a document that was counted.
    fn note(&mut self, failure: Failure) {
        tracing::warn!(%failure, "document failed");
        self.report.failures.push(failure);
    }

    async fn store(&mut self, documents: Vec<Document>) -> Result<(), Error> {
        if documents.is_empty() {
            return Ok(());
        }
        let texts: Vec<_> =
            documents.iter().map(|document| String::from_utf8_lossy(&document.bytes)).collect();
        let limits = self.engine.options.delete_limits;
        let removed: u64 = self.report.relations.iter().map(|counts| counts.removed).sum();
        let rows_max = i64::try_from(limits.rows_max.saturating_sub(removed)).unwrap_or(i64::MAX);
        let savepoint = self.transaction.savepoint("rowdelta").await?;
        let mapping = &self.engine.mapping;
        match inside::sync_texts(&savepoint, mapping, &texts, rows_max, limits.percent_max).await {
            Ok(told) => {
                savepoint.commit().await?;
                self.add(&documents, &told);
                Ok(())
            }
            Err(error) => {
                savepoint.rollback().await?;
                Err(error)
            }
        }
    }

    /// Adds what a call reported.
    fn add(&mut self, documents: &[Document], told: &Value) {
        let report = &mut self.report;
        report.run = told["run"].as_i64().unwrap_or_default();
        let DocumentCounts { repeated, unchanged, new, changed, failed, withheld, unsettled, .. } =
            &mut report.documents;
        for (count, name) in [
            (repeated, "repeated"),
            (unchanged, "unchanged"),
            (new, "new"),
            (changed, "changed"),
            (failed, "failed"),
            (withheld, "withheld"),
            (unsettled, "unsettled"),
        ] {
            *count += number(&told["documents"][name]);
        }
        report.skipped_lookups += number(&told["skipped_lookups"]);
        let because = told["withheld_because"].as_str();
        report.withheld_because = report.withheld_because.take().or(because.map(str::to_owned));
        self.add_rows(told);
        for failure in told["failures"].as_array().into_iter().flatten() {
            let text = |name: &str| failure[name].as_str().map(str::to_owned);
            let place = (number(&failure["item"]) as usize).saturating_sub(1);
            let Some(document) = documents.get(place) else { continue };
            // jsonb takes less than JSON is: then the key is known here alone. What is no JSON at all is said with its place.
            let (name, message) = match Json::parse(&document.bytes) {
                Ok(json) => {
                    (text("document").unwrap_or_else(|| label(&self.engine.mapping, &json)), text("message"))
                }
                Err(error) => (String::new(), Some(error.to_string())),
            };
            let name = Some(name).filter(|name| !name.is_empty());
            let said = Failure::of_document(&document.origin, name, message.unwrap_or_default());
            let retryable = failure["retryable"] == true;
            self.note(Failure { relation: text("relation"), sqlstate: text("sqlstate"), retryable, ..said });
        }
    }

    /// Relations and catalogues are told by name; one of these may have the name of one of those.
    fn add_rows(&mut self, told: &Value) {
        let count = self.engine.mapping.relations.len();
        for (at, relation) in told["relations"].as_array().into_iter().flatten().enumerate() {
            let (relations, lookups) = self.report.relations.split_at_mut(count);
            let kind = if at < count { relations } else { lookups };
            let of_name = |counts: &&mut RelationCounts| relation["name"] == counts.name.as_str();
            let Some(counts) = kind.iter_mut().find(of_name) else { continue };
            counts.added += number(&relation["added"]);
            counts.updated += number(&relation["updated"]);
            counts.moved += number(&relation["moved"]);
            counts.removed += number(&relation["removed"]);
            counts.unchanged += number(&relation["unchanged"]);
        }
    }
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_default()
}
