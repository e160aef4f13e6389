//! What was drawn: in how many cases each thing turned up.

use std::collections::{BTreeMap, BTreeSet};

/// What one case drew.
#[derive(Default)]
pub struct Drawn(BTreeSet<&'static str>);

impl Drawn {
    pub fn note(&mut self, what: &'static str) {
        self.0.insert(what);
    }
}

/// What all cases drew.
#[derive(Default)]
pub struct Tally {
    pub cases: u64,
    counts: BTreeMap<&'static str, u64>,
}

impl Tally {
    pub fn add(&mut self, drawn: &Drawn) {
        self.cases += 1;
        drawn.0.iter().for_each(|what| *self.counts.entry(what).or_default() += 1);
    }

    /// Adds what other cases drew.
    pub fn merge(&mut self, other: Tally) {
        self.cases += other.cases;
        other.counts.into_iter().for_each(|(what, count)| *self.counts.entry(what).or_default() += count);
    }

    /// The share of the cases that drew it, in per cent.
    pub fn share(&self, what: &str) -> f64 {
        self.counts.get(what).copied().unwrap_or(0) as f64 * 100.0 / self.cases.max(1) as f64
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{:<36} {:>7}", "cases", self.cases)?;
        self.counts
            .iter()
            .try_for_each(|(what, count)| writeln!(f, "{what:<36} {count:>7} {:>5.1} %", self.share(what)))
    }
}
