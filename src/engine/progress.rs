//! How far a run is, for whoever watches it.
//!
//! The counts are those of the report in the making: they are copied here when something is counted there, once a
//! chunk of the feed and once a batch, so that a document that is passed over costs nothing more. To look takes no lock.
//!
//! ```no_run
//! # use std::time::Duration;
//! # use rowdelta::engine::{Engine, FeedItem};
//! # async fn watch(engine: Engine, feed: impl futures_util::Stream<Item = FeedItem> + Send) {
//! let progress = engine.progress();
//! tokio::spawn(async move {
//!     loop {
//!         tokio::time::sleep(Duration::from_secs(10)).await;
//!         let now = progress.snapshot();
//!         println!("{}: {} read, {} changed", now.phase, now.read, now.changed);
//!     }
//! });
//! let report = engine.sync(feed).await;
//! # }
//! ```

use std::fmt;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::engine::report::{Phases, Report};

/// What a run is at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Phase {
    /// No run has begun, or the last one has ended.
    #[default]
    Idle,
    /// Reading the catalog, taking the lease (and waiting for it), loading what is known.
    Start,
    /// Reading the feed; documents are compared and written meanwhile.
    Feed,
    /// The feed has been read: the last batches, second tries, and removals that were held back.
    Finish,
    /// Counting and removing what a complete feed lacks.
    Sweep,
    /// Packing what is recorded of documents.
    Merge,
    /// Writing the ledger and giving the lease back.
    Close,
}

const PHASES: [Phase; 7] =
    [Phase::Idle, Phase::Start, Phase::Feed, Phase::Finish, Phase::Sweep, Phase::Merge, Phase::Close];

impl Phase {
    /// A word for it, as in the report's `phases`.
    pub fn as_str(self) -> &'static str {
        match self {
            Phase::Idle => "idle",
            Phase::Start => "start",
            Phase::Feed => "feed",
            Phase::Finish => "finish",
            Phase::Sweep => "sweep",
            Phase::Merge => "merge",
            Phase::Close => "close",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A run's counters while it is at work. Had from [`Engine::progress`](super::Engine::progress).
#[derive(Debug, Default)]
pub struct Progress {
    phase: AtomicU8,
    read: AtomicU64,
    bytes_read: AtomicU64,
    repeated: AtomicU64,
    unchanged: AtomicU64,
    new: AtomicU64,
    changed: AtomicU64,
    removed: AtomicU64,
    failed: AtomicU64,
    withheld: AtomicU64,
    rows_written: AtomicU64,
}

/// How far a run was at one moment. Each count is right by itself; they may be of moments that lie a batch apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Snapshot {
    /// What it was at.
    pub phase: Phase,
    /// Documents read. Those that are in none of the counts below were in hand.
    pub read: u64,
    /// Their bytes.
    pub bytes_read: u64,
    /// Documents equal to one that stood before them in the feed.
    pub repeated: u64,
    /// Documents of which no row was written.
    pub unchanged: u64,
    /// Documents whose root row was inserted.
    pub new: u64,
    /// Documents of which a row was written.
    pub changed: u64,
    /// Documents deleted because a complete feed does not have them.
    pub removed: u64,
    /// Documents not stored.
    pub failed: u64,
    /// Documents not stored because too much would have been deleted.
    pub withheld: u64,
    /// Rows inserted, updated, moved and deleted in transactions that were committed.
    pub rows_written: u64,
}

impl Progress {
    /// How far the run is.
    pub fn snapshot(&self) -> Snapshot {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let phase = usize::from(self.phase.load(Ordering::Relaxed));
        Snapshot {
            phase: PHASES.get(phase).copied().unwrap_or_default(),
            read: count(&self.read),
            bytes_read: count(&self.bytes_read),
            repeated: count(&self.repeated),
            unchanged: count(&self.unchanged),
            new: count(&self.new),
            changed: count(&self.changed),
            removed: count(&self.removed),
            failed: count(&self.failed),
            withheld: count(&self.withheld),
            rows_written: count(&self.rows_written),
        }
    }

    /// Shows what has been counted so far.
    pub(crate) fn show(&self, report: &Report, rows_written: u64) {
        let documents = &report.documents;
        let counts = [
            (&self.read, documents.read),
            (&self.bytes_read, report.bytes_read),
            (&self.repeated, documents.repeated),
            (&self.unchanged, documents.unchanged),
            (&self.new, documents.new),
            (&self.changed, documents.changed),
            (&self.removed, documents.removed),
            (&self.failed, documents.failed),
            (&self.withheld, documents.withheld),
            (&self.rows_written, rows_written),
        ];
        counts.into_iter().for_each(|(counter, count)| counter.store(count, Ordering::Relaxed));
    }

    fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
    }
}

/// Says which phase a run is in, and how long each took.
#[derive(Debug)]
pub(crate) struct Stopwatch {
    progress: Arc<Progress>,
    started: Instant,
    laps: Mutex<Laps>,
}

#[derive(Debug)]
struct Laps {
    phase: Phase,
    since: Instant,
    phases: Phases,
}

impl Stopwatch {
    /// A run begins: what was counted of the last one is over.
    pub fn start(progress: Arc<Progress>) -> Self {
        progress.show(&Report::default(), 0);
        progress.enter(Phase::Start);
        let started = Instant::now();
        let laps = Laps { phase: Phase::Start, since: started, phases: Phases::default() };
        Stopwatch { progress, started, laps: Mutex::new(laps) }
    }

    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Another phase begins.
    pub fn enter(&self, phase: Phase) {
        self.laps().enter(phase);
        self.progress.enter(phase);
    }

    /// How long the phases took, the present one so far.
    pub fn phases(&self) -> Phases {
        let mut laps = self.laps();
        let phase = laps.phase;
        laps.enter(phase);
        laps.phases
    }

    fn laps(&self) -> MutexGuard<'_, Laps> {
        self.laps.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Stopwatch {
    /// However the run ended.
    fn drop(&mut self) {
        self.progress.enter(Phase::Idle);
    }
}

impl Laps {
    fn enter(&mut self, phase: Phase) {
        let phases = &mut self.phases;
        let ms = match self.phase {
            Phase::Idle => return,
            Phase::Start => &mut phases.start_ms,
            Phase::Feed => &mut phases.feed_ms,
            Phase::Finish => &mut phases.finish_ms,
            Phase::Sweep => &mut phases.sweep_ms,
            Phase::Merge => &mut phases.merge_ms,
            Phase::Close => &mut phases.close_ms,
        };
        // What is left of a millisecond counts for the next phase.
        let took = self.since.elapsed().as_millis() as u64;
        *ms += took;
        self.since += Duration::from_millis(took);
        self.phase = phase;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_follow_one_another_and_are_the_whole_time() {
        let progress = Arc::new(Progress::default());
        let stopwatch = Stopwatch::start(progress.clone());
        for phase in PHASES.into_iter().skip(2) {
            std::thread::sleep(Duration::from_micros(1_500));
            stopwatch.enter(phase);
            assert_eq!(progress.snapshot().phase, phase);
        }
        std::thread::sleep(Duration::from_millis(2));
        let (phases, elapsed) = (stopwatch.phases(), stopwatch.elapsed().as_millis() as u64);
        let Phases { start_ms, feed_ms, finish_ms, sweep_ms, merge_ms, close_ms } = phases;
        let all = [start_ms, feed_ms, finish_ms, sweep_ms, merge_ms, close_ms];
        assert!(all.iter().all(|&ms| ms >= 1), "{phases:?}");
        assert!(elapsed - all.iter().sum::<u64>() <= 1, "{phases:?} of {elapsed}");
        drop(stopwatch);
        assert_eq!(progress.snapshot().phase, Phase::Idle);
    }
}
