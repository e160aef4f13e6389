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

mod batch;
mod claims;
mod compare;
mod held;
mod prepare;
mod registry;
pub mod report;
mod run;

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bb8_postgres::PostgresConnectionManager;
use futures_util::{Stream, StreamExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::task::JoinSet;
use tokio_postgres::Socket;
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};

use crate::document::{Document, Origin};
use crate::engine::prepare::{Prepared, Unread, prepare};
use crate::engine::registry::{Glance, Registry};
use crate::engine::report::{Failure, Report, Status, SyncError};
use crate::engine::run::Run;
use crate::error::{Error, ErrorKind};
use crate::fingerprint;
use crate::mapping::Mapping;
use crate::postgres::state::{self, Lease};
use crate::postgres::{Connections, catalog, install};
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
    lease: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            workers: std::thread::available_parallelism().map_or(2, usize::from).clamp(2, 4),
            batch_documents_max: 500,
            batch_bytes_max: 2 << 20,
            batch_rows_max: 20_000,
            deferred_bytes_max: 64 << 20,
            lock_timeout: Duration::from_secs(5),
            statement_timeout: Duration::from_secs(120),
            idle_timeout: Duration::from_secs(60),
            retries_max: 5,
            lease: Duration::from_secs(60),
        }
    }
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

/// Keeps the tables of one mapping in step with feeds. Made by [`Engine::builder`]; may be used again.
pub struct Engine {
    mapping: Arc<Mapping>,
    connections: Arc<dyn Connections>,
    options: Options,
}

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

    /// How long a run that died blocks the next one; default 60 s. A live one renews its lease.
    #[must_use]
    pub fn lease(mut self, lease: Duration) -> Self {
        self.options.lease = lease.max(Duration::from_secs(2));
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
        let client = connections.get().await?;
        install::check(&client).await?;
        catalog::read(&client, &self.mapping).await?;
        drop(client);
        Ok(Engine { mapping: Arc::new(self.mapping), connections, options: self.options })
    }
}

impl Engine {
    /// Starts with a mapping.
    pub fn builder(mapping: Mapping) -> Builder {
        Builder { mapping, options: Options::default() }
    }

    /// Syncs a feed: afterwards the tables hold what its documents ask for, and only what changed was written.
    ///
    /// # Errors
    /// [`SyncError::Failed`] names the documents that are not in; all others are. Trying again skips those.
    pub async fn sync(&self, feed: impl Stream<Item = FeedItem> + Send) -> Result<Report, SyncError> {
        let started = Instant::now();
        let client = self.connections.get().await?;
        // The catalog may have changed since the last run of this engine.
        let schema = catalog::read(&client, &self.mapping).await?;
        let mapping = state::register(&client, &self.mapping, &schema).await?;
        let wal_start = state::wal_position(&client).await?;
        let holder = format!("rowdelta {} process {}", env!("CARGO_PKG_VERSION"), std::process::id());
        let seconds = self.options.lease.as_secs() as i32;
        let lease = state::acquire(&client, mapping, &holder, seconds).await?;
        let id = state::start_run(&client, mapping).await?;
        drop(client);
        let heart = Heart::start(self.connections.clone(), lease.clone(), self.options.lease);
        let (run, ended) = self.run(schema, lease.clone(), &heart, feed, started).await;
        drop(heart);
        let client = self.connections.get().await?;
        let (mut report, cause) = conclude(&client, run.as_deref(), &self.mapping, ended).await;
        report.run = id;
        report.elapsed_ms = started.elapsed().as_millis() as u64;
        report.wal_bytes = state::wal_position(&client).await.map_or(0, |end| (end - wal_start) as u64);
        let json = serde_json::to_string(&report).unwrap_or_default();
        state::finish_run(&client, id, report.status.as_str(), &json).await?;
        state::release(&client, &lease).await?;
        let report = Box::new(report);
        match (cause, report.failures.is_empty()) {
            (Some(cause), _) => Err(SyncError::Aborted { cause, report }),
            (None, true) => Ok(*report),
            (None, false) => Err(SyncError::Failed(report)),
        }
    }

    /// Everything between taking the lease and giving it back.
    async fn run(
        &self,
        schema: Schema,
        lease: Lease,
        heart: &Heart,
        feed: impl Stream<Item = FeedItem> + Send,
        started: Instant,
    ) -> (Option<Arc<Run>>, Result<(), Error>) {
        let run = match self.load(schema, lease).await {
            Ok(run) => Arc::new(run),
            Err(error) => return (None, Err(error)),
        };
        let start = started.elapsed();
        let ended = read_feed(&run, heart, feed).await;
        let fed = started.elapsed();
        let ended = match ended {
            Ok((workers, broken)) => finish(&run, workers, broken).await,
            Err(error) => Err(error),
        };
        run.tally(|tally| {
            let phases = &mut tally.report.phases;
            phases.start_ms = start.as_millis() as u64;
            phases.feed_ms = (fed - start).as_millis() as u64;
            phases.finish_ms = (started.elapsed() - fed).as_millis() as u64;
        });
        (Some(run), ended)
    }

    /// Finds what was lost since the last run, and loads what is known.
    async fn load(&self, schema: Schema, lease: Lease) -> Result<Run, Error> {
        let client = self.connections.get().await?;
        let roots = state::unsettle_lost_roots(&client, lease.mapping, &schema.tables[0]).await?;
        if roots > 0 {
            tracing::warn!(roots, "root rows were deleted by someone else; their documents are done again");
        }
        let filled = state::filled(&client, lease.mapping).await?;
        let mut lost = vec![false; schema.tables.len()];
        for (ix, relation) in self.mapping.relations.iter().enumerate() {
            if filled.contains(&relation.name) && !state::holds_rows(&client, &schema.tables[ix]).await? {
                tracing::warn!(relation = relation.name, "the table is empty; its rows are written again");
                lost[ix] = true;
            }
        }
        let mut registry = Registry::default();
        if !lost.contains(&true) {
            let remember = |raw, key| registry.remember(raw, &key);
            state::settled(&client, lease.mapping, remember).await?;
        }
        let (mapping, connections) = (self.mapping.clone(), self.connections.clone());
        Ok(Run::new(mapping, schema, connections, self.options.clone(), lease, lost, registry))
    }
}

/// Renews the lease while the run is at work.
struct Heart {
    lost: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<()>,
}

impl Heart {
    fn start(connections: Arc<dyn Connections>, lease: Lease, period: Duration) -> Self {
        let lost = Arc::new(AtomicBool::new(false));
        let flag = lost.clone();
        let task = tokio::spawn(async move {
            loop {
                tokio::time::sleep(period / 3).await;
                let Ok(client) = connections.get().await else { continue };
                if let Ok(false) = state::renew(&client, &lease, period.as_secs() as i32).await {
                    flag.store(true, Ordering::Relaxed);
                    return;
                }
            }
        });
        Heart { lost, task }
    }
}

impl Drop for Heart {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Worker tasks, and a bound on how many there are.
struct Workers {
    tasks: JoinSet<Result<(), Error>>,
    free: Arc<Semaphore>,
    /// Fires when the batch before has been admitted: batches are, in the order of the feed.
    admitted: Option<oneshot::Receiver<()>>,
}

impl Workers {
    async fn hand_out(&mut self, run: &Arc<Run>, batch: Vec<Unread>) -> Result<(), Error> {
        if batch.is_empty() {
            return Ok(());
        }
        let permit = self.free.clone().acquire_owned().await.map_err(panicked)?;
        while let Some(done) = self.tasks.try_join_next() {
            done.map_err(panicked)??;
        }
        let (admitted, next) = oneshot::channel();
        let before = self.admitted.replace(next);
        self.tasks.spawn(work(run.clone(), batch, before, admitted, permit));
        Ok(())
    }
}

async fn work(
    run: Arc<Run>,
    batch: Vec<Unread>,
    before: Option<oneshot::Receiver<()>>,
    admitted: oneshot::Sender<()>,
    _permit: OwnedSemaphorePermit,
) -> Result<(), Error> {
    let prepared = prepare(&run, batch).await?;
    if let Some(before) = before {
        // An error means that the batch before has failed as a whole: its turn is over as well.
        let _ = before.await;
    }
    let documents = batch::admit(&run, prepared);
    let _ = admitted.send(());
    for part in by_rows(documents, run.options.batch_rows_max) {
        batch::apply(&run, part, false).await?;
    }
    Ok(())
}

/// Splits documents into parts whose rows fit one transaction.
fn by_rows(documents: Vec<Prepared>, rows_max: usize) -> Vec<Vec<Prepared>> {
    let mut parts: Vec<Vec<Prepared>> = Vec::new();
    let mut rows = usize::MAX;
    for document in documents {
        let more = document.rows.len();
        if rows.saturating_add(more) > rows_max {
            parts.push(Vec::new());
            rows = 0;
        }
        rows += more;
        if let Some(part) = parts.last_mut() {
            part.push(document);
        }
    }
    parts
}

/// Reads the feed to its end, or to where it breaks off, which it gives: skips what is known by its bytes,
/// hands out the rest in batches.
async fn read_feed(
    run: &Arc<Run>,
    heart: &Heart,
    feed: impl Stream<Item = FeedItem> + Send,
) -> Result<(Workers, Option<Error>), Error> {
    let free = Arc::new(Semaphore::new(run.options.workers));
    let mut workers = Workers { tasks: JoinSet::new(), free, admitted: None };
    let (mut batch, mut bytes, mut sequence) = (Vec::new(), 0, 0);
    let mut feed = pin!(feed);
    let mut broken = None;
    while let Some(item) = feed.next().await {
        if heart.lost.load(Ordering::Relaxed) {
            return Err(Error::new(ErrorKind::Busy, "the lease was lost to another run"));
        }
        let document = match item {
            Ok(document) => document,
            Err(error) if error.fatal => {
                broken = Some(Error::new(ErrorKind::Feed, format!("{}: {}", error.origin, error.message)));
                break;
            }
            Err(error) => {
                unreadable(run, &error);
                continue;
            }
        };
        sequence += 1;
        let length = document.bytes.len();
        let Some(unread) = glance(run, document, sequence) else { continue };
        if bytes + length > run.options.batch_bytes_max || batch.len() == run.options.batch_documents_max {
            workers.hand_out(run, std::mem::take(&mut batch)).await?;
            bytes = 0;
        }
        bytes += length;
        batch.push(unread);
    }
    workers.hand_out(run, batch).await?;
    Ok((workers, broken))
}

fn unreadable(run: &Run, error: &FeedError) {
    run.tally(|tally| {
        tally.report.documents.read += 1;
        tally.fail_all(vec![Failure::of_document(&error.origin, None, error.message.clone())]);
    });
}

/// Looks at the bytes of a document. `None`: that was enough.
fn glance(run: &Run, document: Document, sequence: u64) -> Option<Unread> {
    let raw = fingerprint::raw(&run.schema, &document.bytes);
    let glance = run.registry().glance(raw, &document.origin);
    run.tally(|tally| {
        let report = &mut tally.report;
        report.documents.read += 1;
        report.bytes_read += document.bytes.len() as u64;
        match glance {
            Glance::Look => {}
            Glance::Unchanged => report.documents.unchanged += 1,
            Glance::Repeated => report.documents.repeated += 1,
            Glance::Differs(ref first) => {
                let message = format!("stands twice in the feed with different content: first at {first}");
                tally.fail_all(vec![Failure::of_document(&document.origin, None, message)]);
            }
        }
    });
    (glance == Glance::Look).then_some(Unread { sequence, document, raw })
}

/// Waits for the workers; then second tries, together; then removals that were held back. Of a feed that broke
/// off those stay undone, and their documents unsettled: the rows may turn up in the part that was not read.
async fn finish(run: &Arc<Run>, mut workers: Workers, broken: Option<Error>) -> Result<(), Error> {
    while let Some(done) = workers.tasks.join_next().await {
        done.map_err(panicked)??;
    }
    for part in by_rows(run.take_deferred(), run.options.batch_rows_max) {
        batch::apply(run, part, true).await?;
    }
    let client = run.connections.get().await?;
    state::unsettle(&**client, run.lease.mapping, &run.take_distrusted()).await?;
    drop(client);
    match broken {
        Some(error) => Err(error),
        None => held::release(run).await,
    }
}

/// The report, and why the run was broken off if it was.
async fn conclude(
    client: &tokio_postgres::Client,
    run: Option<&Run>,
    mapping: &Mapping,
    ended: Result<(), Error>,
) -> (Report, Option<Error>) {
    let mut report = run.map_or_else(|| Report::new(mapping), |run| run.tally(|tally| tally.report.clone()));
    report.failures.sort_by_key(|failure| (failure.file.clone(), failure.line));
    let cause = match (ended, run) {
        (Err(error), _) => Some(error),
        (Ok(()), Some(run)) => note_filled(client, run).await.err(),
        (Ok(()), None) => None,
    };
    report.status = match (&cause, report.failures.is_empty()) {
        (Some(_), _) => Status::Aborted,
        (None, true) => Status::Done,
        (None, false) => Status::Failed,
    };
    (report, cause)
}

/// Remembers which tables hold rows: one that is empty next time was truncated or lost.
async fn note_filled(client: &tokio_postgres::Client, run: &Run) -> Result<(), Error> {
    let mut filled = Vec::new();
    for (relation, table) in run.mapping.relations.iter().zip(&run.schema.tables) {
        if state::holds_rows(client, table).await? {
            filled.push(relation.name.clone());
        }
    }
    state::set_filled(client, run.lease.mapping, &filled).await
}

/// A worker that panicked: a fault of this crate, reported as such.
fn panicked(error: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Internal, format!("a worker failed: {error}"))
}
