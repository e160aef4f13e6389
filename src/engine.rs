//! Keeps the tables of one mapping in step with feeds of documents.
//!
//! ```text
//! feed ─ hash ─ known? ── yes ─► counted
//!                 │ no
//!               batch ─► worker: shred ─► one transaction: look up, compare, plan, write, record
//!                                   │
//!                             fails ├─ may pass ─► again, from the look-up on
//!                                   └─ stays ────► halves, down to the document that fails
//! ```
//!
//! No transaction is open while the feed is read or a document is parsed.

mod apply;
mod batch;
mod builder;
mod bystanders;
pub mod changes;
mod claims;
mod compare;
pub mod documents;
mod feed;
mod finish;
mod foresight;
mod guard;
mod handover;
mod held;
mod inside;
mod lease;
pub mod metrics;
mod patience;
pub mod plan;
mod prepare;
pub mod progress;
mod registry;
pub mod report;
mod respelled;
mod rewritten;
mod roots;
mod run;
mod settled;
mod spans;
mod stepwise;
mod sweep;
mod tally;
mod units;
pub mod verify;
mod whole;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::Stream;
use tokio::sync::watch;
use tokio_postgres::Transaction;
use tracing::Instrument as _;

use crate::document::{Document, Origin};
pub(crate) use crate::engine::builder::Options;
pub use crate::engine::builder::{Builder, default_workers};
use crate::engine::feed::read_feed;
pub use crate::engine::guard::DeleteLimits;
use crate::engine::lease::Heart;
use crate::engine::metrics::LeaseMeters;
use crate::engine::patience::Patience;
use crate::engine::progress::{Phase, Progress, Stopwatch};
use crate::engine::registry::{Registry, Shorts};
use crate::engine::report::{Report, Status, SyncError};
use crate::engine::run::{Loaded, Purpose, Run};
use crate::error::{Error, ErrorKind};
use crate::mapping::Mapping;
use crate::postgres::state::{self, Lease};
use crate::postgres::{Connections, catalog};
use crate::schema::Schema;

/// One item of a feed: a document, or why there is none.
pub type FeedItem = Result<Document, FeedError>;

/// A document that could not be read, or the end of a feed that broke off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeedError {
    /// Where.
    pub origin: Origin,
    /// What is wrong.
    pub message: String,
    /// Whether nothing can follow: the run is broken off. Otherwise only this document fails.
    pub fatal: bool,
}

impl std::fmt::Display for FeedError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.origin, self.message)
    }
}

impl std::error::Error for FeedError {}

/// Keeps the tables of one mapping in step with feeds. Made by [`Engine::builder`]; may be used again.
pub struct Engine {
    mapping: Arc<Mapping>,
    connections: Arc<dyn Connections>,
    options: Options,
    /// What the catalog said as the engine was built, for a run that begins at once.
    checked: Mutex<Option<(Instant, Schema)>>,
    progress: Arc<Progress>,
}

/// For how long what the catalog said need not be asked again. What changes it so soon before a run is as what changes
/// it in the run: fingerprints are recorded under the types that were read, and are unknown under others.
const CHECKED_FOR: Duration = Duration::from_secs(1);

impl Engine {
    /// Starts with a mapping.
    pub fn builder(mapping: Mapping) -> Builder {
        Builder { mapping, options: Options::default() }
    }

    /// The counters of the engine's runs, to be looked at while one is at work. Every run begins at 0. Of two at once
    /// they show now the one, now the other; of [`sync_in`](Self::sync_in) nothing.
    pub fn progress(&self) -> Arc<Progress> {
        self.progress.clone()
    }

    /// Syncs a feed: afterwards the tables hold what its documents ask for, and only what changed was written.
    /// [`documents`] makes feeds of bytes, of JSON values and of types that can be serialized.
    ///
    /// # Errors
    /// [`SyncError::Failed`] names the documents that are not in; all others are. Trying again skips those.
    pub async fn sync(&self, feed: impl Stream<Item = FeedItem> + Send) -> Result<Report, SyncError> {
        self.sync_until(feed, std::future::pending()).await
    }

    /// As [`sync`](Self::sync), until `stop` resolves: then nothing more is read, and nothing tried again. The batches
    /// in hand are finished.
    ///
    /// # Errors
    /// As [`sync`](Self::sync); a run that was stopped before its end is [`SyncError::Aborted`].
    pub async fn sync_until(
        &self,
        feed: impl Stream<Item = FeedItem> + Send,
        stop: impl Future<Output = ()> + Send,
    ) -> Result<Report, SyncError> {
        self.write(Purpose::Sync, feed, stop).await
    }

    /// A run that writes.
    async fn write(
        &self,
        purpose: Purpose,
        feed: impl Stream<Item = FeedItem> + Send,
        stop: impl Future<Output = ()> + Send,
    ) -> Result<Report, SyncError> {
        let (told, stopped) = watch::channel(false);
        let patience = Arc::new(Patience::new(&self.options, stopped));
        let tell = async {
            stop.await;
            told.send_replace(true);
            std::future::pending().await
        };
        let span = spans::run(&self.mapping, purpose.as_str());
        let ended = self.write_with(purpose, feed, &patience).instrument(span.clone());
        let ended = tokio::select! {
            ended = ended => ended,
            never = tell => never,
        };
        span.in_scope(|| spans::ended(&ended));
        ended
    }

    async fn write_with(
        &self,
        purpose: Purpose,
        feed: impl Stream<Item = FeedItem> + Send,
        patience: &Arc<Patience>,
    ) -> Result<Report, SyncError> {
        let stopwatch = Arc::new(Stopwatch::start(self.progress.clone()));
        let (holder, meters) = (lease::holder(), LeaseMeters::of(&self.mapping.name));
        let begun = match patience.retry(|| self.begin(&holder, patience)).await {
            Ok(begun) => begun,
            Err(error) => {
                metrics::refused(&self.mapping.name, stopwatch.elapsed());
                return Err(error.into());
            }
        };
        tracing::Span::current().record("run", begun.run);
        meters.wait.record(begun.waited);
        let lease = begun.lease.clone();
        let heart = Heart::start(self.connections.clone(), lease, self.options.lease, meters);
        let (run, ended) = self.run(purpose, &begun, patience, &heart, feed, &stopwatch).await;
        drop(heart);
        let counted = run.as_ref().map(|run| run.tally(|tally| tally.report()));
        let mut report = counted.unwrap_or_else(|| Report::new(&self.mapping));
        report.run = begun.run;
        report.retries = patience.retries();
        report.failures.sort_by_key(|failure| (failure.file.clone(), failure.line, failure.item));
        let is_withheld = report.documents.withheld > 0;
        // What was too much at first may not have been at the end.
        report.withheld_because = report.withheld_because.take().filter(|_| is_withheld);
        report.status = match () {
            () if ended.is_err() => Status::Aborted,
            () if !report.failures.is_empty() => Status::Failed,
            () if is_withheld => Status::Withheld,
            () => Status::Done,
        };
        stopwatch.enter(Phase::Close);
        (report.phases, report.elapsed_ms) = (stopwatch.phases(), stopwatch.elapsed().as_millis() as u64);
        let closed = patience.retry(|| self.close(&begun, run.as_deref(), patience, report.clone())).await;
        report.wal_bytes = *closed.as_ref().unwrap_or(&0);
        report.retries = patience.retries();
        (report.phases, report.elapsed_ms) = (stopwatch.phases(), stopwatch.elapsed().as_millis() as u64);
        let ended = ended.and(closed.map(drop));
        if ended.is_err() {
            report.status = Status::Aborted;
        }
        metrics::ended(&report);
        match ended {
            Err(cause) => Err(SyncError::Aborted { cause, report: Box::new(report) }),
            Ok(()) if report.status == Status::Withheld => Err(SyncError::Withheld(Box::new(report))),
            Ok(()) if report.failures.is_empty() => Ok(report),
            Ok(()) => Err(SyncError::Failed(Box::new(report))),
        }
    }

    /// Takes the lease and opens the ledger.
    async fn begin(&self, holder: &str, patience: &Patience) -> Result<Begun, Error> {
        let client = patience.connection(&*self.connections).await?;
        let schema = match self.just_checked() {
            Some(schema) => schema,
            // The catalog may have changed since the last run of this engine.
            None => catalog::read(&client, &self.mapping).await?,
        };
        let mapping = state::register(&client, &self.mapping, &schema).await?;
        let wal_start = state::wal_position(&client).await?;
        let asked = Instant::now();
        let lease = lease::acquire(&client, mapping, holder, &self.options, patience).await?;
        let waited = asked.elapsed();
        match state::start_run(&client, mapping).await {
            Ok(run) => Ok(Begun { schema, lease, waited, wal_start, run }),
            Err(error) => {
                let _ = state::release(&client, &lease).await;
                Err(error)
            }
        }
    }

    /// What the catalog said, if it was asked a moment ago to write by, and not used yet.
    fn just_checked(&self) -> Option<Schema> {
        let checked = self.checked.lock().unwrap_or_else(PoisonError::into_inner).take();
        checked
            .filter(|(at, _)| at.elapsed() < CHECKED_FOR && !self.options.read_only)
            .map(|(_, schema)| schema)
    }

    /// Writes the ledger and gives the lease back; that also where the ledger cannot be written. Gives the bytes of
    /// write-ahead log since the beginning.
    async fn close(
        &self,
        begun: &Begun,
        run: Option<&Run>,
        patience: &Patience,
        mut report: Report,
    ) -> Result<u64, Error> {
        let client = patience.connection(&*self.connections).await?;
        let noted = match run {
            Some(run) => note_filled(&client, run).await,
            None => Ok(()),
        };
        let end = state::wal_position(&client).await;
        report.wal_bytes = end.as_ref().map_or(0, |end| (end - begun.wal_start).unsigned_abs());
        let json = serde_json::to_string(&report).unwrap_or_default();
        let written = state::finish_run(&client, report.run, report.status.as_str(), &json).await;
        let released = state::release(&client, &begun.lease).await;
        noted.and(end).and(written).and(released).map(|()| report.wal_bytes)
    }

    /// Everything between taking the lease and giving it back.
    async fn run(
        &self,
        purpose: Purpose,
        begun: &Begun,
        patience: &Arc<Patience>,
        heart: &Heart,
        feed: impl Stream<Item = FeedItem> + Send,
        stopwatch: &Arc<Stopwatch>,
    ) -> (Option<Arc<Run>>, Result<(), Error>) {
        let run = match patience.retry(|| self.load(purpose.clone(), begun, patience, stopwatch)).await {
            Ok(run) => Arc::new(run),
            Err(error) => return (None, Err(error)),
        };
        stopwatch.enter(Phase::Feed);
        let ended = read_feed(&run, Some(heart), feed).await;
        stopwatch.enter(Phase::Finish);
        let ended = match ended {
            Ok((workers, broken)) => finish::finish(&run, workers, broken).await,
            Err(error) => Err(error),
        };
        if ended.is_ok() {
            finish::tidy(&run).await;
        }
        (Some(run), ended)
    }

    /// Finds what was lost since the last run, and loads what is known.
    async fn load(
        &self,
        purpose: Purpose,
        begun: &Begun,
        patience: &Arc<Patience>,
        stopwatch: &Arc<Stopwatch>,
    ) -> Result<Run, Error> {
        let Begun { schema, lease, .. } = begun;
        let mut client = patience.connection(&*self.connections).await?;
        let filled = state::filled(&client, lease.mapping).await?;
        let hold_rows = state::hold_rows(&client, &schema.tables).await?;
        for (relation, holds_rows) in self.mapping.relations.iter().zip(hold_rows) {
            if filled.contains(&relation.name) && !holds_rows {
                tracing::warn!(relation = relation.name, "the table was emptied; all documents are compared");
                state::unsettle_all(&mut client, lease.mapping).await?;
            }
        }
        let registry =
            if purpose.trusts() { settled(&mut client, lease, schema).await? } else { Registry::default() };
        let rewrites = rewritten::is_possible(&client, schema, lease.mapping).await?;
        let (lease, stopwatch) = (lease.clone(), stopwatch.clone());
        let loaded = Loaded { number: begun.run, lease, registry, rewrites, stopwatch };
        let (mapping, connections) = (self.mapping.clone(), self.connections.clone());
        let (schema, options, patience) = (schema.clone(), self.options.clone(), patience.clone());
        Ok(Run::new(purpose, mapping, schema, connections, options, patience, loaded))
    }
}

/// The documents that are done and whose root row is still there.
///
/// That is found out here: where nothing is lost, as nearly always, sending the keys takes a fraction of the time that
/// joining them in the server does.
async fn settled(
    client: &mut tokio_postgres::Client,
    lease: &Lease,
    schema: &Schema,
) -> Result<Registry, Error> {
    loop {
        let transaction = state::snapshot(client).await?;
        let (registry, roots) = settled_and_roots(&transaction, lease.mapping, schema).await?;
        transaction.commit().await?;
        if registry.is_within(&roots) {
            return Ok(registry);
        }
        let lost = state::unsettle_lost_roots(client, lease.mapping, &schema.tables[0]).await?;
        if lost == 0 {
            return Ok(registry);
        }
        tracing::warn!(
            roots = lost,
            "root rows were deleted by someone else; their documents are done again"
        );
    }
}

/// The documents that are done, and the keys of all root rows, in one snapshot.
async fn settled_and_roots(
    transaction: &Transaction<'_>,
    mapping: i32,
    schema: &Schema,
) -> Result<(Registry, Shorts), Error> {
    // Tables that grow to a million documents hold half as much again while they double for the last time.
    let packed = state::packed_documents(transaction, mapping).await?;
    let mut registry = Registry::with_capacity(packed);
    let mut roots = Shorts::with_capacity_and_hasher(packed, Default::default());
    let settled = state::settled(transaction, mapping, packed > 0, |raw, key| registry.remember(raw, key));
    // Asked for together: the server sends the one while the other is read.
    let keys = state::root_keys(transaction, &schema.tables[0], |key| roots.extend([key.short()]));
    let (settled, keys) = futures_util::join!(settled, keys);
    settled.and(keys)?;
    Ok((registry, roots))
}

/// A run that has begun.
struct Begun {
    schema: Schema,
    lease: Lease,
    /// How long it took to get it.
    waited: Duration,
    /// The end of the write-ahead log before it.
    wal_start: i64,
    /// Its number in the ledger.
    run: i64,
}

/// Remembers which tables hold rows: one that is empty next time was truncated or lost.
async fn note_filled(client: &tokio_postgres::Client, run: &Run) -> Result<(), Error> {
    let hold_rows = state::hold_rows(client, &run.schema.tables).await?;
    let filled = run.mapping.relations.iter().zip(hold_rows).filter(|(_, holds_rows)| *holds_rows);
    let filled: Vec<String> = filled.map(|(relation, _)| relation.name.clone()).collect();
    state::set_filled(client, run.lease.mapping, &filled).await
}

/// A worker that panicked: a fault of this crate, reported as such.
fn panicked(error: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Internal, format!("a worker failed: {error}"))
}
