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

use crate::agreement;
use crate::constraints;
use crate::lanes::variable;
use crate::nights::{check_shares, run};

/// As many as two cores check in about a minute.
const CASES: u64 = 150;
const SEED: u64 = 20_260_101;
#[tokio::test(flavor = "multi_thread")]
async fn p02_p04_p17_random_nights_equal_the_oracle_with_the_smallest_edit() {
    let (seed, cases) =
        (variable("ROWDELTA_PROPERTY_SEED", SEED), variable("ROWDELTA_PROPERTY_CASES", CASES));
    let (tally, failures) = run(seed, cases).await;
    println!("seed {seed}\n{tally}");
    assert!(failures.is_empty(), "{} cases failed; the first:\n{}", failures.len(), failures[0]);
    check_shares(&tally);
}

/// Random schemas with constraints: see [`constraints`].
#[tokio::test(flavor = "multi_thread")]
async fn p02_p17_p18_p19_random_constraints_are_met_by_the_smallest_edit() {
    let seed = variable("ROWDELTA_CONSTRAINT_SEED", constraints::SEED);
    let cases = variable("ROWDELTA_CONSTRAINT_CASES", constraints::CASES);
    let (tally, failures) = constraints::run(seed, cases).await;
    println!("seed {seed}\n{tally}");
    constraints::check(&tally, &failures);
}

/// Random mappings and nights by the engine and by the SQL functions: see [`agreement`].
#[tokio::test(flavor = "multi_thread")]
async fn p02_p33_sql_and_engine_agree_on_random_nights() {
    let seed = variable("ROWDELTA_SQL_SEED", agreement::SEED);
    let cases = variable("ROWDELTA_SQL_CASES", agreement::CASES);
    let (tally, failures) = agreement::run(seed, cases).await;
    println!("seed {seed}\n{tally}");
    assert!(failures.is_empty(), "{} cases failed; the first:\n{}", failures.len(), failures[0]);
    agreement::check_shares(&tally);
}
