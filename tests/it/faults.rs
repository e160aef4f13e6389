//! Nights that go wrong: after each the next run ends as if nothing had happened.
//!
//! Faults fall where they are meant to: a proxy of our own reads what passes and knows how far a transaction is. After
//! each of them the command runs again, every table is compared with the oracle's, and one more run writes nothing. So
//! no document counted as settled whose rows differed: its bytes would have been skipped.

mod bad;
pub mod cuts;
mod disk;
mod foreign;
pub mod kills;
pub mod proxy;
mod runs;
pub mod site;
mod stops;

use std::collections::BTreeMap;

use proxy::Phase;

/// How many faults fell in which phase.
#[derive(Debug, Default)]
pub struct Histogram(BTreeMap<Phase, usize>);

impl Histogram {
    fn add(&mut self, phases: impl IntoIterator<Item = Phase>) {
        phases.into_iter().for_each(|phase| *self.0.entry(phase).or_default() += 1);
    }

    /// How many there were.
    pub fn total(&self) -> usize {
        self.0.values().sum()
    }

    /// Prints it, and checks that a fifth fell between the first write and COMMIT.
    #[track_caller]
    pub fn check(&self, what: &str) {
        println!("{what}: {self}");
        let writing = self.0.get(&Phase::Writing).copied().unwrap_or(0);
        assert!(5 * writing >= self.total(), "too few between the first write and COMMIT: {self}");
    }
}

impl std::fmt::Display for Histogram {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let words = [
            "between transactions",
            "before the first write",
            "between first write and COMMIT",
            "at or after COMMIT",
        ];
        for (phase, words) in proxy::PHASES.into_iter().zip(words) {
            write!(f, "{} {words}, ", self.0.get(&phase).copied().unwrap_or(0))?;
        }
        write!(f, "{} in all", self.total())
    }
}
