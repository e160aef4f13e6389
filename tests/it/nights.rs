//! Random mappings and random nights of documents: what `properties.rs` runs for a minute and `soak` for hours.
//!
//! A case is drawn from one seed: `shape` draws the mapping and its tables (`kinds`: lists of several kinds,
//! `print`: how it is handed in), `feed` the documents and how they change, `spelling` how they are written, `value` what is in them; `case` plays the nights and checks them.

pub mod case;
mod drift;
pub mod feed;
mod kinds;
mod print;
pub mod rewriting;
pub mod shape;
mod spelling;
pub mod value;

pub use case::is_by_relation;

use crate::lanes::{self, Lane};
use crate::support::{Database, db};
use crate::tally::{Drawn, Tally};

/// After more failures another says nothing new.
const FAILURES_MAX: u64 = 2;
/// What every run of some length must have drawn in at least one case in twenty.
const REQUIRED: [&str; 19] = [
    "constant",
    "constant in a key",
    "where",
    "list of two kinds",
    "stray item",
    "one item in place of a list",
    "nul = strip",
    "nul = replace",
    "nfc",
    "depth ≥ 2",
    "move",
    "keyless",
    "empty list",
    "null list",
    "duplicate",
    feed::NULL_KEY,
    "position",
    "pair",
    "rewritten by a trigger",
];

/// Fails where something that matters was hardly drawn: the test would not be worth much.
pub fn check_shares(tally: &Tally) {
    // Of a few cases shares say nothing.
    for what in REQUIRED.iter().filter(|_| tally.cases >= 100) {
        assert!(tally.share(what) >= 5.0, "{what} was drawn in {:.1} % of the cases only", tally.share(what));
    }
}

/// Runs cases from a seed on. Gives what was drawn, and what failed.
pub async fn run(seed: u64, cases: u64) -> (Tally, Vec<String>) {
    lanes::run::<Installed>(seed, cases, FAILURES_MAX).await
}

/// A database with the schema `rowdelta`.
struct Installed(Database);

impl Lane for Installed {
    const CASES: u64 = 25;

    async fn open() -> Self {
        let database = db().await;
        let mut client = database.client().await;
        rowdelta::postgres::install::install(&mut client).await.expect("install the schema");
        Installed(database)
    }

    async fn play(&self, seed: u64) -> Result<Drawn, String> {
        case::run(&self.0, seed).await
    }
}
