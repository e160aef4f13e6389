//! What a run may be told: limits, and what else is to be done.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bb8_postgres::PostgresConnectionManager;
use tokio::sync::mpsc;
use tokio_postgres::Socket;
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};

use crate::engine::Engine;
use crate::engine::changes::Change;
use crate::engine::guard::DeleteLimits;
use crate::engine::patience::Patience;
use crate::engine::plan::SavedPlan;
use crate::error::Error;
use crate::mapping::Mapping;
use crate::postgres::{Connections, Limits, catalog, install};
use crate::schema::Schema;

/// Limits of a run. The builder's methods say what each is for.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub workers: usize,
    pub batch_documents_max: usize,
    pub batch_bytes_max: usize,
    pub batch_rows_max: usize,
    pub deferred_bytes_max: usize,
    pub lock_timeout: Duration,
    pub statement_timeout: Duration,
    pub idle_timeout: Duration,
    pub retries_max: u32,
    pub retry_time_max: Duration,
    pub lease: Duration,
    pub wait: Duration,
    pub complete: bool,
    pub expect: Option<u64>,
    pub delete_limits: DeleteLimits,
    pub read_only: bool,
    pub changes: Option<mpsc::Sender<Change>>,
    pub history: bool,
    pub only: Option<Arc<SavedPlan>>,
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
    pub fn limits(&self, read_only: bool) -> Limits {
        let Options { lock_timeout: lock, statement_timeout: statement, idle_timeout: idle, .. } = *self;
        Limits { lock, statement, idle, read_only }
    }
}

/// How many batches are worked on at once where nobody says: the number of cores, 2 to 4.
pub fn default_workers() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from).clamp(2, 4)
}

/// Sets up an [`Engine`].
#[derive(Clone, Debug)]
pub struct Builder {
    pub(super) mapping: Mapping,
    pub(super) options: Options,
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
