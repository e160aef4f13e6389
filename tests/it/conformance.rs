//! P02, P04, P11–P20, P22: the public conformance suite, `tests/conformance`, run through the library.
//!
//! Its README describes the cases. They are played by lanes, one for each core, each on a database of its own:
//!
//! - `ROWDELTA_CONFORMANCE=swap` plays the cases whose path holds that text;
//! - `ROWDELTA_CONFORMANCE_RENEW=1` writes `docs/conformance.md` anew from what came out.

mod case;
mod lane;
mod rows;
mod table;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use case::Case;
use lane::Lane;

/// A case and what came of it.
pub struct Played {
    case: Case,
    outcome: Outcome,
}

/// What came of a case.
pub enum Outcome {
    /// Everything was as the case says.
    AsExpected,
    /// The server is too old, or lacks an extension.
    Skipped(String),
    /// What was not as the case says.
    Failed(String),
}

#[tokio::test(flavor = "multi_thread")]
async fn p02_p04_p11_p12_p13_p14_p15_p16_p17_p18_p19_p20_p22_conformance_cases_pass() {
    let filter = std::env::var("ROWDELTA_CONFORMANCE").unwrap_or_default();
    let (all, faults) = case::discover();
    let cases: Vec<Case> = all.into_iter().filter(|case| case.path.contains(&filter)).collect();
    assert!(!cases.is_empty() || !faults.is_empty(), "no case has {filter:?} in its path");
    let played = play(cases).await;
    let failed = table::print(&played);
    assert!(faults.is_empty(), "not a case as the README describes it:\n{}", faults.join("\n"));
    let renewal = if filter.is_empty() { table::renew(&played) } else { Ok(()) };
    assert!(failed == 0, "{failed} of {} cases failed, see above", played.len());
    renewal.unwrap_or_else(|error| panic!("{error}"));
}

/// Plays cases, in lanes; gives them in their old order.
async fn play(cases: Vec<Case>) -> Vec<Played> {
    let (cases, next) = (Arc::new(cases), Arc::new(AtomicUsize::new(0)));
    let width = std::thread::available_parallelism().map_or(2, usize::from).min(4);
    let lanes: Vec<_> = (0..width).map(|_| tokio::spawn(drive(cases.clone(), next.clone()))).collect();
    let mut played = Vec::new();
    for lane in lanes {
        played.extend(lane.await.expect("a lane ends"));
    }
    played.sort_by(|a, b| a.case.path.cmp(&b.case.path));
    played
}

async fn drive(cases: Arc<Vec<Case>>, next: Arc<AtomicUsize>) -> Vec<Played> {
    let lane = Lane::open().await;
    let mut played = Vec::new();
    while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
        played.push(Played { case: case.clone(), outcome: lane.play(case).await });
    }
    played
}
