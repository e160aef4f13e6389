//! Reads a feed: what is known by its bytes is skipped, the rest handed to workers in batches.

use std::pin::{Pin, pin};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{self, FusedStream};
use futures_util::{FutureExt as _, Stream, StreamExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::task::JoinSet;
use tracing::Instrument as _;

use crate::document::{Document, Origin};
use crate::engine::apply::{Round, apply};
use crate::engine::lease::Heart;
use crate::engine::patience::stopped;
use crate::engine::prepare::{Prepared, Unread, prepare};
use crate::engine::registry::Glance;
use crate::engine::report::Failure;
use crate::engine::run::Run;
use crate::engine::settled::pass_over;
use crate::engine::spans;
use crate::engine::tally::Tally;
use crate::engine::{FeedError, FeedItem, batch, panicked};
use crate::error::{Error, ErrorKind, TAKEN_OVER};
use crate::fingerprint::{self, RawFingerprint};

/// Worker tasks, and a bound on how many there are.
pub(crate) struct Workers {
    pub tasks: JoinSet<Result<(), Error>>,
    free: Arc<Semaphore>,
    /// Fires when the batch before has been admitted: batches are, in the order of the feed.
    admitted: Option<oneshot::Receiver<()>>,
    /// How many batches were handed out.
    batches: u64,
}

impl Workers {
    /// Waits for a worker. False: the run was told to stop before one was free.
    async fn hand_out(&mut self, run: &Arc<Run>, batch: Vec<Unread>) -> Result<bool, Error> {
        if batch.is_empty() {
            return Ok(true);
        }
        let permit = tokio::select! {
            biased;
            permit = self.free.clone().acquire_owned() => permit.map_err(panicked)?,
            () = run.patience.stopped() => return Ok(false),
        };
        while let Some(done) = self.tasks.try_join_next() {
            done.map_err(panicked)??;
        }
        let (admitted, next) = oneshot::channel();
        let before = self.admitted.replace(next);
        self.batches += 1;
        let span = spans::batch(self.batches, &batch);
        self.tasks
            .spawn(work(run.clone(), batch, before, admitted, permit).instrument(span).in_current_span());
        Ok(true)
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
    let all = documents.len();
    let mut left = pass_over(&run, documents).await;
    if left.len() < all / 2 {
        // A transaction for these few would cost as much as one for a batch.
        left = run.gather(left);
    }
    apply_parts(&run, left).await
}

/// Applies documents, in as many transactions as they have too many rows for one.
pub(super) async fn apply_parts(run: &Arc<Run>, documents: Vec<Arc<Prepared>>) -> Result<(), Error> {
    for part in by_rows(documents, run.options.batch_rows_max) {
        apply(run, part, Round::Feed).await?;
    }
    Ok(())
}

/// Splits documents into parts whose rows fit one transaction.
fn by_rows(documents: Vec<Arc<Prepared>>, rows_max: usize) -> Vec<Vec<Arc<Prepared>>> {
    let mut parts: Vec<Vec<Arc<Prepared>>> = Vec::new();
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

/// How much is hashed in one go, off the thread that drives the run. More documents at a time would do nothing for speed
/// and hold more memory.
const CHUNK_BYTES: usize = 256 * 1024;
const CHUNK_DOCUMENTS: usize = 1_000;
/// A chunk of fewer bytes is hashed where it is: that takes less than handing it over.
const HANDED_OVER_BYTES_MIN: usize = 32 * 1024;
/// A chunk of more bytes, which is one long document, would keep a thread of the runtime from its tasks for a
/// millisecond and more. Others are hashed by these: each further thread has a heap of its own.
const BLOCKING_BYTES_MIN: usize = 2 * 1024 * 1024;

/// An item of a feed with the hash of its bytes.
type Hashed = Result<(Document, RawFingerprint), FeedError>;

/// Reads the feed to its end: skips what is known by its bytes, hands out the rest in batches. Gives the
/// workers, and why the feed broke off, or was read no further.
pub(crate) async fn read_feed(
    run: &Arc<Run>,
    heart: Option<&Heart>,
    feed: impl Stream<Item = FeedItem> + Send,
) -> Result<(Workers, Option<Error>), Error> {
    let free = Arc::new(Semaphore::new(run.options.workers));
    let mut reader = Reader {
        run,
        workers: Workers { tasks: JoinSet::new(), free, admitted: None, batches: 0 },
        batch: Vec::new(),
        bytes: 0,
        sequence: 0,
    };
    let feed = pin!(feed.fuse());
    let chunks = pin!(chunks(feed));
    let mut hashed = chunks.map(|chunk| hash(run, chunk)).buffered(run.options.workers);
    // One for all documents: most are passed over by a hash.
    let mut stop = pin!(run.patience.stopped());
    loop {
        let next = tokio::select! {
            biased;
            () = &mut stop => return reader.end(Some(stopped())).await,
            next = hashed.next() => next,
        };
        let Some(chunk) = next else { break };
        if heart.is_some_and(Heart::is_lost) {
            return Err(Error::new(ErrorKind::Busy, TAKEN_OVER));
        }
        let (unread, broken) = reader.glance(chunk?);
        for unread in unread {
            if !reader.add(unread).await? {
                return Ok((reader.workers, Some(stopped())));
            }
        }
        if broken.is_some() {
            return reader.end(broken).await;
        }
    }
    reader.end(None).await
}

/// What the feed has ready, up to a chunk of it; at least one item.
fn chunks<'f>(
    feed: Pin<&'f mut (impl FusedStream<Item = FeedItem> + Send)>,
) -> impl Stream<Item = Vec<FeedItem>> + Send + 'f {
    stream::unfold(feed, |mut feed| async move {
        let mut next = Some(feed.next().await?);
        let (mut chunk, mut bytes) = (Vec::new(), 0);
        while let Some(item) = next.take() {
            bytes += item.as_ref().map_or(0, |document| document.bytes.len());
            chunk.push(item);
            if bytes < CHUNK_BYTES && chunk.len() < CHUNK_DOCUMENTS {
                next = feed.next().now_or_never().flatten();
            }
        }
        Some((chunk, feed))
    })
}

/// Hashes the documents of a chunk.
///
/// # Errors
/// A panic.
async fn hash(run: &Arc<Run>, chunk: Vec<FeedItem>) -> Result<Vec<Hashed>, Error> {
    let bytes: usize = chunk.iter().flatten().map(|document| document.bytes.len()).sum();
    if bytes < HANDED_OVER_BYTES_MIN {
        return Ok(hashed(run, chunk));
    }
    let run = run.clone();
    let hashed = move || hashed(&run, chunk);
    match bytes {
        0..BLOCKING_BYTES_MIN => tokio::spawn(async move { hashed() }).await,
        _ => tokio::task::spawn_blocking(hashed).await,
    }
    .map_err(panicked)
}

fn hashed(run: &Run, chunk: Vec<FeedItem>) -> Vec<Hashed> {
    let with_hash = |document: Document| {
        let raw = fingerprint::raw(&run.schema, &document.bytes);
        (document, raw)
    };
    chunk.into_iter().map(|item| item.map(with_hash)).collect()
}

/// Sorts what comes from the feed into what is known and batches of the rest.
struct Reader<'r> {
    run: &'r Arc<Run>,
    workers: Workers,
    batch: Vec<Unread>,
    /// Length of the documents of the batch.
    bytes: usize,
    /// Items read so far.
    sequence: u64,
}

impl Reader<'_> {
    /// Looks at the hashes of documents. Gives those for which that was not enough; and, if the feed broke off, why.
    fn glance(&mut self, chunk: Vec<Hashed>) -> (Vec<Unread>, Option<Error>) {
        let (mut unread, mut broken) = (Vec::new(), None);
        let mut seen = Seen::default();
        let mut registry = self.run.registry();
        for item in chunk {
            self.sequence += 1;
            match item {
                Ok((mut document, raw)) => {
                    if document.origin == Origin::default() {
                        document.origin.line = self.sequence;
                    }
                    let glance = registry.glance(raw, self.sequence, &document.origin);
                    if seen.count(&document, glance) {
                        unread.push(Unread { sequence: self.sequence, document, raw });
                    }
                }
                Err(error) if error.fatal => {
                    broken = Some(Error::new(ErrorKind::Feed, error.to_string()));
                    break;
                }
                Err(error) => {
                    registry.unfit(None);
                    seen.unreadable(&error);
                }
            }
        }
        drop(registry);
        self.run.tally(|tally| seen.tally(tally));
        (unread, broken)
    }

    /// Adds a document to the batch in hand, which is handed out before if it is full. False: the run was told to stop.
    async fn add(&mut self, mut unread: Unread) -> Result<bool, Error> {
        let (options, length) = (&self.run.options, unread.document.bytes.len());
        let full =
            self.bytes + length > options.batch_bytes_max || self.batch.len() == options.batch_documents_max;
        if full && !self.hand_out().await? {
            return Ok(false);
        }
        self.bytes += length;
        // What is kept must not keep alive the block of the feed that it was cut from.
        unread.document.bytes = Bytes::copy_from_slice(&unread.document.bytes);
        self.batch.push(unread);
        Ok(true)
    }

    async fn hand_out(&mut self) -> Result<bool, Error> {
        self.bytes = 0;
        self.workers.hand_out(self.run, std::mem::take(&mut self.batch)).await
    }

    /// Hands out what is left.
    async fn end(mut self, mut broken: Option<Error>) -> Result<(Workers, Option<Error>), Error> {
        if !self.hand_out().await? {
            broken.get_or_insert_with(stopped);
        }
        Ok((self.workers, broken))
    }
}

/// What a chunk of the feed adds to the report.
#[derive(Default)]
struct Seen {
    read: u64,
    bytes: u64,
    unchanged: u64,
    repeated: u64,
    failures: Vec<Failure>,
}

impl Seen {
    /// Counts a document. Whether it must be looked at.
    fn count(&mut self, document: &Document, glance: Glance) -> bool {
        self.read += 1;
        self.bytes += document.bytes.len() as u64;
        match glance {
            Glance::Look => return true,
            Glance::Unchanged => self.unchanged += 1,
            Glance::Repeated => self.repeated += 1,
            Glance::Differs(first) => {
                self.failures.push(batch::differs(None, &document.origin, &first));
            }
        }
        false
    }

    fn unreadable(&mut self, error: &FeedError) {
        self.read += 1;
        self.failures.push(Failure::of_document(&error.origin, None, error.message.clone()));
    }

    fn tally(self, tally: &mut Tally) {
        let report = &mut tally.report;
        report.documents.read += self.read;
        report.bytes_read += self.bytes;
        report.documents.unchanged += self.unchanged;
        report.documents.repeated += self.repeated;
        tally.fail_all(self.failures);
    }
}
