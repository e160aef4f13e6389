//! The right to write under a mapping: taken at the start of a run, renewed while it is at work.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio_postgres::Client;
use tracing::Instrument as _;

use crate::engine::Options;
use crate::engine::metrics::LeaseMeters;
use crate::engine::patience::{Patience, stopped};
use crate::error::{Error, ErrorKind};
use crate::postgres::Connections;
use crate::postgres::state::{self, Lease};

/// How often a run that waits for another one looks whether that has ended.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// A name that no other run has.
pub(crate) fn holder() -> String {
    let (version, process) = (env!("CARGO_PKG_VERSION"), std::process::id());
    format!("rowdelta {version} process {process} run {:08x}", fastrand::u32(..))
}

/// Takes the lease, waiting for another run for a while.
///
/// # Errors
/// [`ErrorKind::Busy`]: the other run is still at work.
pub(crate) async fn acquire(
    client: &Client,
    mapping: i32,
    holder: &str,
    options: &Options,
    patience: &Patience,
) -> Result<Lease, Error> {
    let began = Instant::now();
    loop {
        let error = match state::acquire(client, mapping, holder, options.lease.as_secs() as i32).await {
            Err(error) if error.kind() == ErrorKind::Busy => error,
            acquired => return acquired,
        };
        // Taken by this run, if the answer to that was lost.
        if let Some(lease) = state::held_lease(client, mapping, holder).await? {
            return Ok(lease);
        }
        if patience.is_stopped() {
            return Err(stopped());
        }
        if began.elapsed() >= options.wait {
            return Err(error);
        }
        patience.pause(LOOK_AGAIN).await;
    }
}

/// Renews the lease while the run is at work.
pub(crate) struct Heart {
    lost: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<()>,
}

impl Heart {
    pub fn start(
        connections: Arc<dyn Connections>,
        lease: Lease,
        period: Duration,
        meters: LeaseMeters,
    ) -> Self {
        let lost = Arc::new(AtomicBool::new(false));
        let flag = lost.clone();
        let beat = async move {
            loop {
                tokio::time::sleep(period / 3).await;
                let Ok(client) = connections.get().await else { continue };
                match state::renew(&client, &lease, period.as_secs() as i32).await {
                    Ok(true) => meters.renewals.increment(1),
                    Ok(false) => {
                        tracing::warn!("the lease was lost to another run");
                        meters.lost.increment(1);
                        flag.store(true, Ordering::Relaxed);
                        return;
                    }
                    Err(error) => {
                        tracing::debug!(%error, "the lease was not renewed, and will be tried again")
                    }
                }
            }
        };
        let task = tokio::spawn(beat.in_current_span());
        Heart { lost, task }
    }

    /// Whether the lease was found to be someone else's.
    pub fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }
}

impl Drop for Heart {
    fn drop(&mut self) {
        self.task.abort();
    }
}
