//! The property tests of `tests/it/properties.rs` and `tests/it/constraints.rs`, and the faults of
//! `tests/it/faults.rs`, for a night instead of a minute.
//!
//! ```text
//! cargo test --release --test soak -- --ignored --nocapture
//! ```
//!
//! 100,000 cases of each: `ROWDELTA_PROPERTY_CASES` from `ROWDELTA_PROPERTY_SEED` on, and
//! `ROWDELTA_CONSTRAINT_CASES` from `ROWDELTA_CONSTRAINT_SEED` on; 10,000 by the engine and by SQL side by side,
//! `ROWDELTA_SQL_CASES` from `ROWDELTA_SQL_SEED` on; 1,000 cut connections, 300 kills of the command and 50
//! of the server. What is done is noted in a file
//! under `target/`, so that a run that was stopped goes on where it was; so is every case that failed. At the end, if none
//! did, the file is removed.

#[path = "it"]
#[allow(dead_code, unused_imports)] // each binary uses its part of what tests share
mod it {
    pub mod agreement;
    pub mod constraints;
    pub mod faults;
    pub mod lanes;
    pub mod nights;
    pub mod oracle;
    pub mod shop;
    pub mod support;
    pub mod tally;
}

use std::path::Path;

use it::faults::site::Way;
use it::lanes::variable;
use it::tally::Tally;
use it::{agreement, constraints, faults, lanes, nights, oracle, shop, support, tally};

const CASES: u64 = 100_000;
/// Not the seeds of the quick runs: their cases are known.
const SEED: u64 = 1 << 40;
const CONSTRAINT_SEED: u64 = 1 << 41;
const SQL_SEED: u64 = 1 << 42;
/// Each is played twice.
const SQL_CASES: u64 = 10_000;
/// Cases between two notes of what is done.
const CASES_PER_NOTE: u64 = 500;

/// Plays cases, of which none may fail. Gives what was drawn of those that were not played by a run before.
async fn play(
    name: &str,
    seed: u64,
    cases: u64,
    run: impl AsyncFn(u64, u64) -> (Tally, Vec<String>),
) -> Tally {
    let mut all = Tally::default();
    let mut progress = Progress::load(name, seed, cases);
    while let Some((first, more)) = progress.next() {
        let (tally, failures) = run(first, more).await;
        progress.note(more, &tally, failures);
        all.merge(tally);
    }
    progress.end(&all);
    all
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes hours"]
async fn p02_p04_p17_a_hundred_thousand_cases_equal_the_oracle() {
    let (seed, cases) =
        (variable("ROWDELTA_PROPERTY_SEED", SEED), variable("ROWDELTA_PROPERTY_CASES", CASES));
    let all = play("soak", seed, cases, nights::run).await;
    nights::check_shares(&all);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes hours"]
async fn p02_p17_p18_p19_a_hundred_thousand_random_constraints_are_met() {
    let (seed, cases) =
        (variable("ROWDELTA_CONSTRAINT_SEED", CONSTRAINT_SEED), variable("ROWDELTA_CONSTRAINT_CASES", CASES));
    let all = play("soak-constraints", seed, cases, constraints::run).await;
    constraints::check(&all, &[]);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes hours"]
async fn p02_p33_sql_and_engine_agree_on_ten_thousand_cases() {
    let (seed, cases) = (variable("ROWDELTA_SQL_SEED", SQL_SEED), variable("ROWDELTA_SQL_CASES", SQL_CASES));
    let all = play("soak-sql", seed, cases, agreement::run).await;
    agreement::check_shares(&all);
}

/// Faults between two notes of what is done: each note costs a site of its own.
const FAULTS_PER_NOTE: u64 = 50;
/// The sites of a note: one in three is behind a pooler, if one is installed, one stores relation by relation.
const WAYS: [(u64, Way); 3] = [(0, Way::Direct), (1 << 32, Way::Pooled), (1 << 33, Way::ByRelation)];

/// Plays faults a site after the other; `play` gives how many there were.
macro_rules! faults {
    ($name:literal, $count:literal, $play:path) => {
        let mut progress = Progress { per_note: FAULTS_PER_NOTE, ..Progress::load($name, 100, $count) };
        while let Some((seed, more)) = progress.next() {
            for (more_seed, way) in WAYS {
                if let Some(histogram) = $play(seed + more_seed, more.div_ceil(3) as usize, way).await {
                    histogram.check($name);
                }
            }
            let mut tally = Tally::default();
            tally.cases = more;
            progress.note(more, &tally, Vec::new());
        }
        progress.end(&Tally::default());
    };
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes hours"]
async fn p26_p30_after_300_kills_of_the_command_the_next_run_ends_as_if_nothing_had_happened() {
    faults!("soak-client-kills", 300, faults::kills::kill_clients);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes hours"]
async fn p26_p27_p30_runs_survive_50_kills_of_the_server() {
    faults!("soak-server-kills", 50, faults::kills::kill_servers);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes hours"]
async fn p27_p30_1000_cut_connections_cost_retries_and_nothing_else() {
    faults!("soak-cuts", 1000, faults::cuts::cut);
}

/// How much of a long run is done, also by runs before that were stopped.
struct Progress {
    note: std::path::PathBuf,
    seed: u64,
    cases: u64,
    per_note: u64,
    done: u64,
    /// What failed, of this run and of those that were stopped.
    failed: Vec<String>,
}

impl Progress {
    fn load(name: &str, seed: u64, cases: u64) -> Self {
        let note = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{seed}"));
        let noted = std::fs::read_to_string(&note).unwrap_or_default();
        let mut lines = noted.lines().map(str::to_owned);
        let done = lines.next().and_then(|text| text.trim().parse().ok()).unwrap_or(0);
        let failed: Vec<String> = lines.collect();
        println!("seed {seed}, {done} of {cases} cases done before; noted in {}", note.display());
        Progress { note, seed, cases, per_note: CASES_PER_NOTE, done, failed }
    }

    /// The seed of the next case, and how many to play from there.
    fn next(&self) -> Option<(u64, u64)> {
        (self.done < self.cases).then(|| (self.seed + self.done, self.per_note.min(self.cases - self.done)))
    }

    /// Of a failure the first line is kept: it names the seed.
    fn note(&mut self, more: u64, tally: &Tally, failures: Vec<String>) {
        assert_eq!(tally.cases + failures.len() as u64, more, "broken off after {} failures", failures.len());
        self.done += more;
        let first_line = |failure: String| failure.lines().next().unwrap_or_default().to_owned();
        self.failed.extend(failures.into_iter().map(first_line));
        let noted = [&[self.done.to_string()], &self.failed[..]].concat().join("\n");
        std::fs::write(&self.note, noted).expect("note what is done");
        println!("{} of {} cases, {} failed", self.done, self.cases, self.failed.len());
    }

    fn end(&self, tally: &Tally) {
        println!("{tally}");
        assert!(self.failed.is_empty(), "cases failed:\n{}", self.failed.join("\n"));
        if self.note.exists() {
            std::fs::remove_file(&self.note).expect("forget what is done");
        }
    }
}
