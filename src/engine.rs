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
mod bystanders;
pub mod changes;
mod claims;
mod compare;
pub mod documents;
mod feed;
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
mod spans;
mod stepwise;
mod sweep;
mod units;
pub mod verify;
mod whole;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bb8_postgres::PostgresConnectionManager;
use futures_util::Stream;
use tokio::sync::{mpsc, watch};
use tokio_postgres::Socket;
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use tracing::Instrument as _;

use crate::document::{Document, DocumentKey, Origin};
use crate::engine::apply::{Round, apply};
use crate::engine::changes::Change;
use crate::engine::feed::{Workers, read_feed};
pub use crate::engine::guard::DeleteLimits;
use crate::engine::lease::Heart;
use crate::engine::metrics::LeaseMeters;
use crate::engine::patience::Patience;
use crate::engine::plan::SavedPlan;
use crate::engine::progress::{Phase, Progress, Stopwatch};
use crate::engine::registry::{Registry, Shorts};
use crate::engine::report::{Failure, Report, Status, SyncError};
use crate::engine::run::{Loaded, Purpose, Run};
use crate::error::{Error, ErrorKind};
use crate::mapping::Mapping;
use crate::postgres::changes::forget_old as forget_old_changes;
use crate::postgres::state::{self, Lease};
use crate::postgres::{Connections, Limits, begin, catalog, install};
use crate::schema::Schema;

/// Limits of a run. The builder's methods say what each is for.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    workers: usize,
    batch_documents_max: usize,
    batch_bytes_max: usize,
    batch_rows_max: usize,
    deferred_bytes_max: usize,
    lock_timeout: Duration,
    statement_timeout: Duration,
    idle_timeout: Duration,
    retries_max: u32,
    retry_time_max: Duration,
    lease: Duration,
    wait: Duration,
    complete: bool,
    expect: Option<u64>,
    delete_limits: DeleteLimits,
    read_only: bool,
    changes: Option<mpsc::Sender<Change>>,
    history: bool,
    only: Option<Arc<SavedPlan>>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            workers: default_workers(),
            batch_documents_max: 500,
            batch_bytes_max: 2 << 20,
            batch_rows_max: 20_000,
            deferred_bytes_max: 16 << 20,
            lock_timeout: Duration::from_secs(5),
            statement_timeout: Duration::from_secs(120),
            idle_timeout: Duration::from_secs(60),
            retries_max: 5,
            retry_time_max: Duration::from_secs(300),
            lease: Duration::from_secs(60),
            wait: Duration::ZERO,
            complete: false,
            expect: None,
            delete_limits: DeleteLimits::default(),
            read_only: false,
            changes: None,
            history: false,
            only: None,
        }
    }
}

impl Options {
    fn limits(&self, read_only: bool) -> Limits {
        let Options { lock_timeout: lock, statement_timeout: statement, idle_timeout: idle, .. } = *self;
        Limits { lock, statement, idle, read_only }
    }
}

/// How many batches are worked on at once where nobody says: the number of cores, 2 to 4.
pub fn default_workers() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from).clamp(2, 4)
}

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

/// Sets up an [`Engine`].
#[derive(Clone, Debug)]
pub struct Builder {
    mapping: Mapping,
    options: Options,
}

impl Builder {
    /// Batches worked on at once, each on a connection of its own. Default: the number of cores, 2 to 4.
    #[must_use]
    pub fn workers(mut self, workers: usize) -> Self {
        self.options.workers = workers.max(1);
        self
    }

    /// Documents of a batch at most; default 500. A batch is one transaction.
    #[must_use]
    pub fn batch_documents_max(mut self, documents: usize) -> Self {
        self.options.batch_documents_max = documents.max(1);
        self
    }

    /// Bytes of documents in a batch at most (a longer document is a batch of its own); default 2 MiB.
    #[must_use]
    pub fn batch_bytes_max(mut self, bytes: usize) -> Self {
        self.options.batch_bytes_max = bytes.max(1);
        self
    }

    /// Rows of a transaction at most (a document with more is alone in one); default 20,000.
    #[must_use]
    pub fn batch_rows_max(mut self, rows: usize) -> Self {
        self.options.batch_rows_max = rows.max(1);
        self
    }

    /// How long a statement waits for a lock; default 5 s.
    #[must_use]
    pub fn lock_timeout(mut self, timeout: Duration) -> Self {
        self.options.lock_timeout = timeout;
        self
    }

    /// How long a statement may run; default 120 s.
    #[must_use]
    pub fn statement_timeout(mut self, timeout: Duration) -> Self {
        self.options.statement_timeout = timeout;
        self
    }

    /// How often a transaction is tried again after an error that may pass; default 5.
    #[must_use]
    pub fn retries_max(mut self, retries: u32) -> Self {
        self.options.retries_max = retries;
        self
    }

    /// How long a transaction is tried again after such an error at most; default 5 min.
    #[must_use]
    pub fn retry_time_max(mut self, time: Duration) -> Self {
        self.options.retry_time_max = time;
        self
    }

    /// How long a run that died blocks the next one; default 60 s. A live one renews its lease.
    #[must_use]
    pub fn lease(mut self, lease: Duration) -> Self {
        self.options.lease = lease.max(Duration::from_secs(2));
        self
    }

    /// How long to wait while another run of the mapping is at work; default 0: refuse at once.
    #[must_use]
    pub fn wait(mut self, wait: Duration) -> Self {
        self.options.wait = wait;
        self
    }

    /// Declares feeds complete: what is recorded and not in the feed is deleted, or marked, as the mapping's `on_absent`
    /// says. Not if the feed is empty, broken off, or has less than half as many documents as the last complete one;
    /// not if a document failed whose key could not be read. Default: nothing is deleted for being absent.
    #[must_use]
    pub fn complete(mut self, complete: bool) -> Self {
        self.options.complete = complete;
        self
    }

    /// How many documents a complete feed has at least; instead of comparing it with the last one.
    #[must_use]
    pub fn expect(mut self, documents: u64) -> Self {
        self.options.expect = Some(documents);
        self
    }

    /// What a run may delete at most; what goes beyond it is withheld. The database's own limits (`rowdelta.guard`) count
    /// where they are stricter.
    #[must_use]
    pub fn delete_limits(mut self, limits: DeleteLimits) -> Self {
        self.options.delete_limits = limits;
        self
    }

    /// Has every row that is written told, each once its transaction is committed. What is not committed, and what is
    /// tried again, is never told; nothing is told twice. A run waits for whoever receives too slowly, with no transaction
    /// open, and ends only when all is told: receive in another task. The channel ends with the engine. Without a
    /// listener, and after one that went away, nothing is put into words.
    ///
    /// Between the commit and the message the process can die: then nothing is told of what is in.
    /// [`history`](Self::history) has it.
    ///
    /// ```no_run
    /// # async fn sync(mapping: rowdelta::Mapping, pool: bb8::Pool<bb8_postgres::PostgresConnectionManager<tokio_postgres::NoTls>>) -> Result<(), Box<dyn std::error::Error>> {
    /// # let feed = futures_util::stream::iter([]);
    /// let (sender, mut changes) = tokio::sync::mpsc::channel::<rowdelta::engine::changes::Change>(1_000);
    /// let later = tokio::spawn(async move {
    ///     while let Some(change) = changes.recv().await {
    ///         println!("{} {}", change.action.as_str(), change.table);
    ///     }
    /// });
    /// let engine = rowdelta::Engine::builder(mapping).changes(sender).build(pool).await?;
    /// engine.sync(feed).await?;
    /// drop(engine);
    /// later.await?;
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn changes(mut self, listener: mpsc::Sender<Change>) -> Self {
        self.options.changes = Some(listener);
        self
    }

    /// Has every row that is written noted in `rowdelta.change`, in the same transaction, for as long as
    /// `rowdelta.keep_history` says, or for good. Default: no. Needs `INSERT` on that table.
    #[must_use]
    pub fn history(mut self, history: bool) -> Self {
        self.options.history = history;
        self
    }

    /// Does only what was planned: a document of which a row would be written otherwise fails, and so does one of which a
    /// planned row needs no change any more. Whether the plan still holds at the start is for the caller to see, by
    /// [`Engine::plan`] and [`SavedPlan::holds`].
    #[must_use]
    pub fn only(mut self, plan: SavedPlan) -> Self {
        self.options.only = Some(Arc::new(plan));
        self
    }

    /// Asks for no privilege to write: for an engine that only verifies, or plans.
    #[must_use]
    pub fn read_only(mut self) -> Self {
        self.options.read_only = true;
        self
    }

    /// Checks the mapping against the database's catalog.
    ///
    /// # Errors
    /// No connection; the schema `rowdelta` is not installed; or every fault of the mapping, at once.
    pub async fn build<T>(self, pool: bb8::Pool<PostgresConnectionManager<T>>) -> Result<Engine, Error>
    where
        T: MakeTlsConnect<Socket> + Clone + Send + Sync + 'static,
        T::Stream: Send + Sync,
        T::TlsConnect: Send,
        <T::TlsConnect as TlsConnect<Socket>>::Future: Send,
    {
        let connections: Arc<dyn Connections> = Arc::new(pool);
        let patience = Patience::unstopped(&self.options);
        let schema = patience.retry(|| check(&*connections, &self.mapping, &self.options)).await?;
        let checked = Mutex::new(Some((Instant::now(), schema)));
        let (mapping, progress) = (Arc::new(self.mapping), Arc::default());
        Ok(Engine { mapping, connections, options: self.options, checked, progress })
    }
}

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
            Ok((workers, broken)) => finish(&run, workers, broken).await,
            Err(error) => Err(error),
        };
        if ended.is_ok() {
            stopwatch.enter(Phase::Merge);
            respelled::record(&run).await;
            merge(&run).await;
            forget_old(&run).await;
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
        let (mut registry, mut roots) = (Registry::default(), Shorts::default());
        let transaction = state::snapshot(client).await?;
        let settled = state::settled(&transaction, lease.mapping, |raw, key| registry.remember(raw, key));
        // Asked for together: the server sends the one while the other is read.
        let keys = state::root_keys(&transaction, &schema.tables[0], |key| roots.extend([key.short()]));
        let (settled, keys) = futures_util::join!(settled, keys);
        settled.and(keys)?;
        transaction.commit().await?;
        if registry.is_within(&roots) {
            return Ok(registry);
        }
        let lost = state::unsettle_lost_roots(client, lease.mapping, &schema.tables[0]).await?;
        tracing::warn!(
            roots = lost,
            "root rows were deleted by someone else; their documents are done again"
        );
        if lost == 0 {
            return Ok(registry);
        }
    }
}

/// Whether the database is as the engine and the mapping need it.
async fn check(connections: &dyn Connections, mapping: &Mapping, options: &Options) -> Result<Schema, Error> {
    let client = connections.get().await?;
    install::check(&client).await?;
    install::check_privileges(&client, !options.read_only).await?;
    if options.history {
        install::check_history(&client).await?;
    }
    catalog::read_for(&client, mapping, !options.read_only).await
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

/// Waits for the workers; then second tries, together, and what held removals were in the way of once more with the
/// documents that hold them; then removals that are still held back; then what a complete feed lacks. After a feed that broke off these stay held: what was removed here might have turned up there.
async fn finish(run: &Arc<Run>, mut workers: Workers, broken: Option<Error>) -> Result<(), Error> {
    while let Some(done) = workers.tasks.join_next().await {
        done.map_err(panicked)??;
    }
    let broken = broken.or_else(|| run.patience.given_up());
    // Together, whatever their rows: what two of them swap must meet in one transaction.
    run.guard.reopen();
    let releases = broken.is_none() && run.holds();
    let round = if releases { Round::Together } else { Round::Last };
    let deferred = run.take_deferred();
    let again = spans::later(deferred.len(), round);
    apply(run, deferred, round).instrument(again).await?;
    if releases {
        let mut waiting = run.take_deferred();
        if !waiting.is_empty() {
            waiting.extend(run.take_holders());
            let last = spans::later(waiting.len(), Round::Last);
            apply(run, waiting, Round::Last).instrument(last).await?;
        }
        held::release(run).await?;
    }
    if run.options.complete && broken.is_none() && run.purpose.sweeps() {
        run.stopwatch.enter(Phase::Sweep);
        sweep::sweep(run).await?;
    }
    if broken.is_none() {
        name_missed(run);
    }
    if run.purpose.writes() {
        let distrusted = run.take_distrusted();
        run.patience.retry(|| unsettle(run, &distrusted)).await?;
    }
    broken.or_else(|| run.patience.given_up()).map_or(Ok(()), Err)
}

/// Documents of which planned changes were not made fail, unless they have already.
fn name_missed(run: &Run) {
    let missed = run.outlet.missed();
    run.tally(|tally| {
        for document in missed {
            let is_it = |failure: &Failure| failure.document.as_ref() == Some(&document);
            if !tally.report.failures.iter().any(is_it) {
                let message = "rows that it was planned to write needed no change any more".to_owned();
                tally.fail_all(vec![Failure::of_document(&Origin::default(), Some(document), message)]);
            }
        }
    });
}

async fn unsettle(run: &Run, keys: &[DocumentKey]) -> Result<(), Error> {
    if keys.is_empty() {
        return Ok(());
    }
    let mut connection = run.connection().await?;
    let transaction = begin(&mut connection, run.limits()).await?;
    state::unsettle(&transaction, run.lease.mapping, keys).await?;
    transaction.commit().await?;
    Ok(())
}

/// Packs what is recorded of documents, if that has become worth its while. Nothing depends on it: what could not be
/// done now the next run does.
async fn merge(run: &Run) {
    let is_cheap = !run.tally(|tally| tally.recorded);
    if is_cheap || run.patience.is_stopped() {
        return;
    }
    let merged = async {
        let mut connection = run.connection().await?;
        state::merge(&mut connection, run.lease.mapping, run.limits()).await
    };
    match merged.await {
        Ok(merged) => run.tally(|tally| tally.report.merged = merged),
        Err(error) => tracing::warn!(%error, "what is recorded of documents was not packed"),
    }
}

/// Deletes what was noted of changed rows long ago. The next run does it, if it cannot be done now.
async fn forget_old(run: &Run) {
    if !run.options.history || run.patience.is_stopped() {
        return;
    }
    let forgotten = async {
        let connection = run.connection().await?;
        forget_old_changes(&connection, run.lease.mapping).await
    };
    if let Err(error) = forgotten.await {
        tracing::warn!(%error, "what was noted of changed rows long ago was not deleted");
    }
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
