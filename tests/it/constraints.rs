//! Random schemas with constraints, and random nights of documents that the constraints allow.
//!
//! A case is drawn from one seed: `shape` draws tables with unique constraints, indexes, exclusions and foreign keys,
//! `change` a first state and what changes from night to night, `state` says which rows there must be and which edit
//! is the smallest, `case` plays the nights and checks them. `sieve` helps to draw states that the constraints
//! allow; what it lets through PostgreSQL judges, on twin tables. After each night:
//!
//! - the tables hold what the documents say;
//! - rows written, counted by triggers, are the smallest edit, beside what the report says was parked;
//! - at most one write was parked for each circle of changes that wait for each other, and two for each row that
//!   refers to a key while that passes from one row to another;
//! - rows that stayed have their ids;
//! - the same documents once more write nothing.
//!
//! Documents that are refused must be those that the report names, and there must be no order of writes that gets
//! them in: `orders` tries all.
//!
//! `ROWDELTA_CONSTRAINT_SEED` is the seed of the first case, the next ones count up from it;
//! `ROWDELTA_CONSTRAINT_CASES` is their number. A case that fails prints its seed and leaves its mapping, schema and
//! feeds in a directory. `ROWDELTA_CONSTRAINT_STRICT=1` counts refusals that a parked value would avoid as failures; `ROWDELTA_CONSTRAINT_REFUSALS=1` prints every night of which documents were refused.

mod case;
mod change;
mod detours;
mod orders;
mod shape;
mod sieve;
mod state;
mod stored;

use case::Tables;

use crate::lanes;
use crate::tally::Tally;

/// As many as two cores check in some two minutes.
pub const CASES: u64 = 2_000;
pub const SEED: u64 = 20_260_102;
/// What every run of some length must have drawn in at least one case in twenty.
const REQUIRED: [&str; 7] =
    ["swap", "rotation", "move", "cycle of tables", "keyless", "null key", "dying parent"];
/// After so many failures a run ends.
const FAILURES_SHOWN: u64 = 2;
/// In so many of a hundred cases at most documents may be refused.
const REFUSED_MAX: f64 = 12.0;
/// In so many of a hundred cases at most documents may be left unsettled beside those that are refused.
const IN_PART_MAX: f64 = 3.0;

/// Fails where cases failed; where something that matters was hardly drawn, or much was refused: the test would not be
/// worth much.
pub fn check(tally: &Tally, failures: &[String]) {
    let (failed, cases) = (failures.len() as u64, tally.cases + failures.len() as u64);
    assert!(failures.is_empty(), "{failed} of {cases} cases failed; the first:\n{}", failures[0]);
    // Of a few cases shares say nothing.
    if cases < 100 {
        return;
    }
    for what in REQUIRED {
        assert!(tally.share(what) >= 5.0, "{what} was drawn in {:.1} % of the cases only", tally.share(what));
    }
    let refused = tally.share(case::REFUSED) + tally.share(case::REFUSED_THOUGH);
    assert!(refused <= REFUSED_MAX, "documents were refused in {refused:.1} % of the cases");
    let in_part = tally.share(case::REFUSED_IN_PART);
    assert!(in_part <= IN_PART_MAX, "documents were left unsettled in {in_part:.1} % of the cases");
}

/// Plays cases from a seed on. Gives what was drawn, and what failed.
pub async fn run(seed: u64, cases: u64) -> (Tally, Vec<String>) {
    lanes::run::<Tables>(seed, cases, FAILURES_SHOWN).await
}
