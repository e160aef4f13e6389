//! How often and how long a run tries again what may pass, and whether it was told to stop.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::engine::Options;
use crate::error::{Error, ErrorKind};
use crate::postgres::{Connection, Connections};

/// After it was told to stop a run does not wait longer than this for a server that does not answer.
const STOPPED_WAIT: Duration = Duration::from_secs(3);

/// What all parts of a run share.
pub(crate) struct Patience {
    retries_max: u32,
    retry_time_max: Duration,
    retries: AtomicU64,
    stopped: watch::Receiver<bool>,
    gave_up: AtomicBool,
}

/// The tries of one thing that have failed so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tries {
    count: u32,
    since: Option<Instant>,
}

impl Patience {
    pub fn new(options: &Options, stopped: watch::Receiver<bool>) -> Self {
        Patience {
            retries_max: options.retries_max,
            retry_time_max: options.retry_time_max,
            retries: AtomicU64::new(0),
            stopped,
            gave_up: AtomicBool::new(false),
        }
    }

    /// Of what nobody tells to stop.
    pub fn unstopped(options: &Options) -> Self {
        Self::new(options, watch::channel(false).1)
    }

    /// Retries of the whole run.
    pub fn retries(&self) -> u64 {
        self.retries.load(Ordering::Relaxed)
    }

    /// Counts a retry.
    pub fn count(&self) {
        self.retries.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether the run was told to stop.
    pub fn is_stopped(&self) -> bool {
        *self.stopped.borrow()
    }

    /// Resolves when the run is told to stop.
    pub async fn stopped(&self) {
        // Without a sender nobody can tell it any more.
        if self.stopped.clone().wait_for(|stopped| *stopped).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Notes that something was left undone because the run was told to stop.
    pub fn give_up(&self) {
        self.gave_up.store(true, Ordering::Relaxed);
    }

    /// Why a run ends early that gave something up.
    pub fn given_up(&self) -> Option<Error> {
        self.gave_up.load(Ordering::Relaxed).then(stopped)
    }

    /// Waits, but not after a stop.
    pub async fn pause(&self, pause: Duration) {
        if !pause.is_zero() {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.stopped() => {}
            }
        }
    }

    /// A connection; after a stop only if there is one soon.
    pub async fn connection(&self, connections: &dyn Connections) -> Result<Connection, Error> {
        let soon = async {
            self.stopped().await;
            tokio::time::sleep(STOPPED_WAIT).await;
        };
        tokio::select! {
            biased;
            connection = connections.get() => connection,
            () = soon => Err(stopped()),
        }
    }

    /// How long to wait before another try, exponential with full jitter. `None`: there have been enough, or they
    /// took too long, or the run was told to stop.
    pub fn next(&self, tries: &mut Tries) -> Option<Duration> {
        tries.count += 1;
        let since = *tries.since.get_or_insert_with(Instant::now);
        let enough = tries.count > self.retries_max || since.elapsed() >= self.retry_time_max;
        (!enough && !self.is_stopped()).then(|| backoff(tries.count))
    }

    /// Waits for another try after an error; false: there is to be none.
    pub async fn again(&self, tries: &mut Tries, error: &Error) -> bool {
        let Some(pause) = self.next(tries) else { return false };
        self.count();
        tracing::debug!(%error, "trying again");
        self.pause(pause).await;
        true
    }

    /// Does something, and does it again after errors that may pass.
    pub async fn retry<T, F>(&self, mut attempt: impl FnMut() -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let mut tries = Tries::default();
        loop {
            let error = match attempt().await {
                Err(error) if error.may_pass() => error,
                done => return done,
            };
            if !self.again(&mut tries, &error).await {
                return Err(error);
            }
        }
    }
}

/// Why a run ends that was told to.
pub(crate) fn stopped() -> Error {
    Error::new(ErrorKind::Stopped, "stopped before its end")
}

/// Exponential, with full jitter: between nothing and 50 ms · 2ⁿ, at most 5 s.
fn backoff(tries: u32) -> Duration {
    let ceiling = 50u64.saturating_mul(1 << tries.min(10)).min(5_000);
    Duration::from_millis(fastrand::u64(0..=ceiling))
}
