//! Random cases, played side by side.

use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::tally::{Drawn, Tally};

/// What cases are played on: a database, and what is made once for it.
pub trait Lane: Send + Sync + Sized + 'static {
    /// A lane is left for a new one after so many: nobody vacuums its catalog.
    const CASES: u64;

    fn open() -> impl Future<Output = Self> + Send;

    /// Draws a case from a seed and plays it.
    ///
    /// # Errors
    /// What was wrong, and where to look.
    fn play(&self, seed: u64) -> impl Future<Output = Result<Drawn, String>> + Send;
}

/// A number from the environment.
pub fn variable(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}: {text:?}")))
}

/// Plays a case that leaves what it was made of in a directory, which goes when the case passes.
///
/// # Errors
/// The case's own, with the seed and where to look.
pub async fn in_dir(
    kind: &str,
    seed: u64,
    play: impl AsyncFnOnce(&Path) -> Result<Drawn, String>,
) -> Result<Drawn, String> {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(kind).join(seed.to_string());
    std::fs::create_dir_all(&dir).map_err(|error| error.to_string())?;
    let played = play(&dir).await;
    if played.is_ok() {
        let _ = std::fs::remove_dir_all(&dir);
    }
    played.map_err(|error| format!("seed {seed}: {error}\nmapping, schema and feeds: {}", dir.display()))
}

/// Plays cases from a seed on, a lane for each core, until one of them has seen more failures than that. Gives what was
/// drawn, and what failed.
pub async fn run<L: Lane>(seed: u64, cases: u64, failures_max: u64) -> (Tally, Vec<String>) {
    // RUST_LOG=rowdelta=debug shows the plans of a case. Without it the process is left to the test of what is logged.
    if let Ok(filter) = tracing_subscriber::EnvFilter::try_from_default_env() {
        let _ = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init();
    }
    let next = Arc::new(AtomicU64::new(0));
    let lanes = std::thread::available_parallelism().map_or(2, usize::from).min(4);
    let lane = |_| tokio::spawn(lane::<L>(seed, cases, failures_max, next.clone()));
    let lanes: Vec<_> = (0..lanes).map(lane).collect();
    let (mut tally, mut failures) = (Tally::default(), Vec::new());
    for lane in lanes {
        let (drawn, failed) = lane.await.expect("a lane ends");
        tally.merge(drawn);
        failures.extend(failed);
    }
    (tally, failures)
}

async fn lane<L: Lane>(
    seed: u64,
    cases: u64,
    failures_max: u64,
    next: Arc<AtomicU64>,
) -> (Tally, Vec<String>) {
    let (mut tally, mut failures) = (Tally::default(), Vec::new());
    let mut lane: Option<L> = None;
    for played in 0.. {
        let case = next.fetch_add(1, Ordering::Relaxed);
        // After a few failures more of them say nothing new.
        if case >= cases || failures.len() as u64 > failures_max {
            break;
        }
        let lane = match lane.take() {
            Some(used) if played % L::CASES != 0 => lane.insert(used),
            _ => lane.insert(L::open().await),
        };
        match lane.play(seed.wrapping_add(case)).await {
            Ok(drawn) => tally.add(&drawn),
            Err(failure) => {
                println!("after {} cases: {failure}\n", case + 1);
                failures.push(failure);
            }
        }
    }
    (tally, failures)
}
