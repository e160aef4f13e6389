//! Random mappings and random nights of documents: what `properties.rs` runs for a minute and `soak` for hours.
//!
//! A case is drawn from one seed: `shape` draws the mapping and its tables, `feed` the documents and how they
//! change and are spelled, `value` what is in them; `case` plays the nights and checks them, `draw` counts what
//! turned up.

mod case;
mod draw;
mod feed;
mod shape;
mod value;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

pub use draw::Tally;

use crate::support::{Database, db};

/// A database is left for a new one after so many: nobody vacuums its catalog.
const CASES_PER_DATABASE: u64 = 25;
/// What every run of some length must have drawn in at least one case in twenty.
const REQUIRED: [&str; 9] = [
    "depth ≥ 2",
    "move",
    "keyless",
    "empty list",
    "null list",
    "duplicate",
    feed::NULL_KEY,
    "position",
    "pair",
];

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
        let (drawn, failed) = lane.await.expect("a lane ends");
        tally.merge(drawn);
        failures.extend(failed);
    }
    (tally, failures)
}

async fn lane(seed: u64, cases: u64, next: Arc<AtomicU64>) -> (Tally, Vec<String>) {
    let (mut tally, mut failures) = (Tally::default(), Vec::new());
    let mut database: Option<Database> = None;
    for played in 0.. {
        let case = next.fetch_add(1, Ordering::Relaxed);
        // After a few failures more of them say nothing new.
        if case >= cases || failures.len() >= 3 {
            break;
        }
        let database = match database.take() {
            Some(used) if played % CASES_PER_DATABASE != 0 => database.insert(used),
            _ => database.insert(fresh().await),
        };
        match case::run(database, seed.wrapping_add(case)).await {
            Ok(drawn) => tally.add(&drawn),
            Err(failure) => {
                println!("after {} cases: {failure}\n", case + 1);
                failures.push(failure);
            }
        }
    }
    (tally, failures)
}

async fn fresh() -> Database {
    let database = db().await;
    let mut client = database.client().await;
    rowdelta::postgres::install::install(&mut client).await.expect("install the schema");
    database
}
