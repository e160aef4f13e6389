//! Random mappings and random nights of documents, against the oracle, on a real server.
//!
//! A case is drawn from one seed: a mapping of a root and up to four relations, tables with
//! real foreign keys and unique constraints, and three to six nights, each the one before
//! with edits, moves, respellings, lists emptied, absent or null, duplicates and repeats.
//! Batches hold one to five documents, so that moves cross them. After each night:
//!
//! - every table equals the oracle's;
//! - the rows written, counted by triggers, are the smallest edit, and the report says the same;
//! - rows that stayed have their ids and what a step between nights wrote beside them;
//! - every document is accounted for;
//! - the same feed, respelled, writes nothing.
//!
//! `ROWDELTA_PROPERTY_SEED` is the seed of the first case, the next ones count up from it;
//! `ROWDELTA_PROPERTY_CASES` is their number. A case that fails prints its seed and leaves
//! its mapping, schema and feeds in a directory.

mod case;
mod draw;
mod feed;
mod shape;
mod value;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

pub use draw::Tally;

use crate::support::{Database, db};

/// As many as two cores check in about a minute.
const CASES: u64 = 150;
const SEED: u64 = 20_260_101;
/// A database is left for a new one after so many: nobody vacuums its catalog.
const CASES_PER_DATABASE: u64 = 25;
/// What every run of some length must have drawn in at least one case in twenty.
const REQUIRED: [&str; 6] = ["depth ≥ 2", "move", "keyless", "empty list", "null list", "duplicate"];

#[tokio::test(flavor = "multi_thread")]
async fn p02_p04_p17_random_nights_equal_the_oracle_with_the_smallest_edit() {
    let (seed, cases) =
        (variable("ROWDELTA_PROPERTY_SEED", SEED), variable("ROWDELTA_PROPERTY_CASES", CASES));
    let (tally, failures) = run(seed, cases).await;
    println!("seed {seed}\n{tally}");
    assert!(failures.is_empty(), "{} cases failed; the first:\n{}", failures.len(), failures[0]);
    check_shares(&tally);
}

/// A number from the environment.
pub fn variable(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}: {text:?}")))
}

/// Fails where something that matters was hardly drawn: the test would not be worth much.
pub fn check_shares(tally: &Tally) {
    // Of a few cases shares say nothing.
    for what in REQUIRED.iter().filter(|_| tally.cases >= 100) {
        assert!(tally.share(what) >= 5.0, "{what} was drawn in {:.1} % of the cases only", tally.share(what));
    }
}

/// Runs cases from a seed on, a lane for each core. Gives what was drawn, and what failed.
pub async fn run(seed: u64, cases: u64) -> (Tally, Vec<String>) {
    let next = Arc::new(AtomicU64::new(0));
    let lanes = std::thread::available_parallelism().map_or(2, usize::from).min(4);
    let lanes: Vec<_> = (0..lanes).map(|_| tokio::spawn(lane(seed, cases, next.clone()))).collect();
    let (mut tally, mut failures) = (Tally::default(), Vec::new());
    for lane in lanes {
        for outcome in lane.await.expect("a lane ends") {
            match outcome {
                Ok(drawn) => tally.add(&drawn),
                Err(failure) => failures.push(failure),
            }
        }
    }
    (tally, failures)
}

async fn lane(seed: u64, cases: u64, next: Arc<AtomicU64>) -> Vec<Result<draw::Drawn, String>> {
    let mut outcomes = Vec::new();
    let mut database: Option<Database> = None;
    loop {
        let case = next.fetch_add(1, Ordering::Relaxed);
        // After a few failures more of them say nothing new.
        if case >= cases || outcomes.iter().filter(|outcome: &&Result<_, _>| outcome.is_err()).count() >= 3 {
            return outcomes;
        }
        if (outcomes.len() as u64).is_multiple_of(CASES_PER_DATABASE) {
            database = Some(fresh().await);
        }
        let Some(database) = &database else { unreachable!("made before the first case") };
        let outcome = case::run(database, seed.wrapping_add(case)).await;
        if let Err(failure) = &outcome {
            println!("after {} cases: {failure}\n", case + 1);
        }
        outcomes.push(outcome);
    }
}

async fn fresh() -> Database {
    let database = db().await;
    let mut client = database.client().await;
    rowdelta::postgres::install::install(&mut client).await.expect("install the schema");
    database
}
