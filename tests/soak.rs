//! The property test of `tests/it/properties.rs`, for a night instead of a minute.
//!
//! ```text
//! cargo test --release --test soak -- --ignored --nocapture
//! ```
//!
//! 100,000 cases (`ROWDELTA_PROPERTY_CASES`), from `ROWDELTA_PROPERTY_SEED` on. What is done is noted in a file
//! under `target/`, so that a run that was stopped goes on where it was; at the end the file is removed.

#[path = "it"]
#[allow(dead_code, unused_imports)] // each binary uses its part of what tests share
mod it {
    pub mod nights;
    pub mod oracle;
    pub mod support;
}

use std::path::Path;

use it::nights::{Tally, check_shares, run, variable};
use it::{oracle, support};

const CASES: u64 = 100_000;
/// Not the seed of the quick run: its cases are known.
const SEED: u64 = 1 << 40;
/// Cases between two notes of what is done.
const CASES_PER_NOTE: u64 = 500;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes hours"]
async fn p02_p04_p17_a_hundred_thousand_cases_equal_the_oracle() {
    let (seed, cases) =
        (variable("ROWDELTA_PROPERTY_SEED", SEED), variable("ROWDELTA_PROPERTY_CASES", CASES));
    let note = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("soak-{seed}"));
    let mut done: u64 =
        std::fs::read_to_string(&note).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0);
    println!("seed {seed}, {done} of {cases} cases done before; noted in {}", note.display());
    let mut all = Tally::default();
    while done < cases {
        let more = CASES_PER_NOTE.min(cases - done);
        let (tally, failures) = run(seed + done, more).await;
        assert!(failures.is_empty(), "{} cases failed; the first:\n{}", failures.len(), failures[0]);
        all.merge(tally);
        done += more;
        std::fs::write(&note, done.to_string()).expect("note what is done");
        println!("{done} of {cases} cases");
    }
    println!("{all}");
    check_shares(&all);
    std::fs::remove_file(&note).expect("forget what is done");
}
