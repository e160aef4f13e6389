//! The property tests of `tests/it/properties.rs` and `tests/it/constraints.rs`, for a night instead of a minute.
//!
//! ```text
//! cargo test --release --test soak -- --ignored --nocapture
//! ```
//!
//! 100,000 cases of each: `ROWDELTA_PROPERTY_CASES` from `ROWDELTA_PROPERTY_SEED` on, and
//! `ROWDELTA_CONSTRAINT_CASES` from `ROWDELTA_CONSTRAINT_SEED` on. What is done is noted in a file
//! under `target/`, so that a run that was stopped goes on where it was; at the end the file is removed.

#[path = "it"]
#[allow(dead_code, unused_imports)] // each binary uses its part of what tests share
mod it {
    pub mod constraints;
    pub mod lanes;
    pub mod nights;
    pub mod oracle;
    pub mod support;
    pub mod tally;
}

use std::path::Path;

use it::lanes::variable;
use it::tally::Tally;
use it::{constraints, lanes, nights, oracle, support, tally};

const CASES: u64 = 100_000;
/// Not the seeds of the quick runs: their cases are known.
const SEED: u64 = 1 << 40;
const CONSTRAINT_SEED: u64 = 1 << 41;
/// Cases between two notes of what is done.
const CASES_PER_NOTE: u64 = 500;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes hours"]
async fn p02_p04_p17_a_hundred_thousand_cases_equal_the_oracle() {
    let (seed, cases) =
        (variable("ROWDELTA_PROPERTY_SEED", SEED), variable("ROWDELTA_PROPERTY_CASES", CASES));
    let mut all = Tally::default();
    let mut progress = Progress::load("soak", seed, cases);
    while let Some((first, more)) = progress.next() {
        let (tally, failures) = nights::run(first, more).await;
        assert!(failures.is_empty(), "{} cases failed; the first:\n{}", failures.len(), failures[0]);
        all.merge(tally);
        progress.note(more);
    }
    progress.end(&all);
    nights::check_shares(&all);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes hours"]
async fn p02_p17_p18_p19_a_hundred_thousand_random_constraints_are_met() {
    let (seed, cases) =
        (variable("ROWDELTA_CONSTRAINT_SEED", CONSTRAINT_SEED), variable("ROWDELTA_CONSTRAINT_CASES", CASES));
    let mut all = Tally::default();
    let mut progress = Progress::load("soak-constraints", seed, cases);
    while let Some((first, more)) = progress.next() {
        let (tally, failures) = constraints::run(first, more).await;
        constraints::check(&tally, &failures);
        all.merge(tally);
        progress.note(more);
    }
    progress.end(&all);
    constraints::check(&all, &[]);
}

/// How much of a long run is done, also by runs before that were stopped.
struct Progress {
    note: std::path::PathBuf,
    seed: u64,
    cases: u64,
    done: u64,
}

impl Progress {
    fn load(name: &str, seed: u64, cases: u64) -> Self {
        let note = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{seed}"));
        let noted = std::fs::read_to_string(&note).ok();
        let done = noted.and_then(|text| text.trim().parse().ok()).unwrap_or(0);
        println!("seed {seed}, {done} of {cases} cases done before; noted in {}", note.display());
        Progress { note, seed, cases, done }
    }

    /// The seed of the next case, and how many to play from there.
    fn next(&self) -> Option<(u64, u64)> {
        (self.done < self.cases).then(|| (self.seed + self.done, CASES_PER_NOTE.min(self.cases - self.done)))
    }

    fn note(&mut self, more: u64) {
        self.done += more;
        std::fs::write(&self.note, self.done.to_string()).expect("note what is done");
        println!("{} of {} cases", self.done, self.cases);
    }

    fn end(&self, tally: &Tally) {
        println!("{tally}");
        if self.note.exists() {
            std::fs::remove_file(&self.note).expect("forget what is done");
        }
    }
}
