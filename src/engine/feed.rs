//! Reads a feed: what is known by its bytes is skipped, the rest handed to workers in batches.

use std::pin::pin;
use std::sync::Arc;

use futures_util::{Stream, StreamExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::task::JoinSet;

use crate::document::{Document, Origin};
use crate::engine::apply::{Round, apply};
use crate::engine::lease::Heart;
use crate::engine::patience::stopped;
use crate::engine::prepare::{Prepared, Unread, prepare};
use crate::engine::registry::Glance;
use crate::engine::report::Failure;
use crate::engine::run::Run;
use crate::engine::{FeedError, FeedItem, batch, panicked};
use crate::error::{Error, ErrorKind};
use crate::fingerprint;

/// Worker tasks, and a bound on how many there are.
pub(crate) struct Workers {
    pub tasks: JoinSet<Result<(), Error>>,
    free: Arc<Semaphore>,
    /// Fires when the batch before has been admitted: batches are, in the order of the feed.
    admitted: Option<oneshot::Receiver<()>>,
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
        self.tasks.spawn(work(run.clone(), batch, before, admitted, permit));
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
    for part in by_rows(documents, run.options.batch_rows_max) {
        apply(&run, part, Round::Feed).await?;
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

/// Reads the feed to its end: skips what is known by its bytes, hands out the rest in batches. Gives the
/// workers, and why the feed broke off, or was read no further.
pub(crate) async fn read_feed(
    run: &Arc<Run>,
    heart: Option<&Heart>,
    feed: impl Stream<Item = FeedItem> + Send,
) -> Result<(Workers, Option<Error>), Error> {
    let free = Arc::new(Semaphore::new(run.options.workers));
    let mut workers = Workers { tasks: JoinSet::new(), free, admitted: None };
    let (mut batch, mut bytes, mut sequence) = (Vec::new(), 0, 0);
    let mut broken = None;
    let mut feed = pin!(feed);
    // One for all documents: most are passed over by a hash.
    let mut stop = pin!(run.patience.stopped());
    loop {
        let next = tokio::select! {
            biased;
            () = &mut stop => {
                broken = Some(stopped());
                break;
            }
            next = feed.next() => next,
        };
        let Some(item) = next else { break };
        if heart.is_some_and(Heart::is_lost) {
            return Err(Error::new(ErrorKind::Busy, "the lease was lost to another run"));
        }
        sequence += 1;
        let mut document = match item {
            Ok(document) => document,
            Err(error) if error.fatal => {
                broken = Some(Error::new(ErrorKind::Feed, error.to_string()));
                break;
            }
            Err(error) => {
                unreadable(run, &error);
                continue;
            }
        };
        if document.origin == Origin::default() {
            document.origin.line = sequence;
        }
        let length = document.bytes.len();
        let Some(unread) = glance(run, document, sequence) else { continue };
        if bytes + length > run.options.batch_bytes_max || batch.len() == run.options.batch_documents_max {
            if !workers.hand_out(run, std::mem::take(&mut batch)).await? {
                broken = Some(stopped());
                break;
            }
            bytes = 0;
        }
        bytes += length;
        batch.push(unread);
    }
    if !workers.hand_out(run, batch).await? {
        broken.get_or_insert_with(stopped);
    }
    Ok((workers, broken))
}

fn unreadable(run: &Run, error: &FeedError) {
    run.registry().unfit(None);
    run.tally(|tally| {
        tally.report.documents.read += 1;
        tally.fail_all(vec![Failure::of_document(&error.origin, None, error.message.clone())]);
    });
}

/// Looks at the bytes of a document. `None`: that was enough.
fn glance(run: &Run, document: Document, sequence: u64) -> Option<Unread> {
    let raw = fingerprint::raw(&run.schema, &document.bytes);
    let glance = run.registry().glance(raw, sequence, &document.origin);
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
