//! The engine and the SQL functions do the same: random mappings and nights, played by both side by side.
//!
//! A case is drawn from one seed by the generator of `nights`, within what the SQL functions know of a mapping. Into
//! each night go some documents that must fail (`spoil`). One database is the engine's; the other one's nights are
//! played by `sync_many` or `sync_texts`, or by SQL and engine turn about. After each night
//!
//! - both report the same of documents, of rows by relation, and of failures: which document, in which relation, with
//!   which code of the server;
//! - tables hold the same, row by row, found by keys and content (`content`), and what the oracle says;
//! - the rows written by SQL, counted by triggers, are the smallest edit;
//! - the same texts again, if the night was SQL's, write nothing, and fail where they failed;
//! - the same night again, respelled, by the other one of the two, writes nothing.
//!
//! At the end both find no drift in what the one or the other recorded.
//!
//! `ROWDELTA_SQL_SEED` is the seed of the first case, the next ones count up from it; `ROWDELTA_SQL_CASES` is their
//! number. What a failed case was made of stays in a directory.

mod case;
mod content;
mod spoil;

use tokio_postgres::Client;

use crate::lanes::{self, Lane};
use crate::nights::feed::NULL_KEY;
use crate::support::{Database, db};
use crate::tally::{Drawn, Tally};

/// As many as a continuous integration can afford.
pub const CASES: u64 = 500;
pub const SEED: u64 = 20_270_101;
/// After more failures another says nothing new.
const FAILURES_MAX: u64 = 2;
/// What every run of some length must have drawn in at least one case in twenty.
const REQUIRED: [&str; 25] = [
    case::BY_SQL,
    case::ENGINE_FIRST,
    case::SQL_FIRST,
    case::UNSETTLED,
    spoil::LIST,
    spoil::SCALAR,
    spoil::KEY,
    spoil::CHECK,
    "move",
    "move from a missing document",
    "keyless",
    "unique in all",
    "composite key",
    "referred to by its key",
    "link",
    "lookup as a column",
    "default",
    "server-converted type",
    "depth 3",
    "empty list",
    "absent list",
    "null list",
    "duplicate",
    "document repeated",
    NULL_KEY,
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
    lanes::run::<Pair>(seed, cases, FAILURES_MAX).await
}

/// Two databases with the schema `rowdelta`: the engine's, and the one for SQL.
struct Pair {
    engine: Database,
    sql: Database,
    /// One session for all cases, as of a pooler: what it has planned for the tables of one must not be taken for
    /// those of the next. To read and plan the functions anew for each case is half of its time, too.
    session: Client,
}

impl Lane for Pair {
    const CASES: u64 = 25;

    async fn open() -> Self {
        let (engine, sql) = (installed().await, installed().await);
        let session = sql.client().await;
        Pair { engine, sql, session }
    }

    async fn play(&self, seed: u64) -> Result<Drawn, String> {
        case::run(self, seed).await
    }
}

async fn installed() -> Database {
    let database = db().await;
    let mut client = database.client().await;
    rowdelta::postgres::install::install(&mut client).await.expect("install the schema");
    database
}
