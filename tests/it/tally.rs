//! What was drawn and what came of it.

use std::collections::{BTreeMap, BTreeSet};

/// What one case drew.
#[derive(Default)]
pub struct Drawn {
    kinds: BTreeSet<&'static str>,
    counts: BTreeMap<&'static str, u64>,
}

impl Drawn {
    /// The case has it.
    pub fn note(&mut self, kind: &'static str) {
        self.kinds.insert(kind);
    }

    /// So many of it turned up.
    pub fn count(&mut self, what: &'static str, many: u64) {
        *self.counts.entry(what).or_default() += many;
    }
}

/// What all cases drew.
#[derive(Default)]
pub struct Tally {
    pub cases: u64,
    kinds: BTreeMap<&'static str, u64>,
    counts: BTreeMap<&'static str, u64>,
}

impl Tally {
    pub fn add(&mut self, drawn: &Drawn) {
        self.cases += 1;
        drawn.kinds.iter().for_each(|kind| *self.kinds.entry(kind).or_default() += 1);
        drawn.counts.iter().for_each(|(what, many)| *self.counts.entry(what).or_default() += many);
    }

    /// Adds what other cases drew.
    pub fn merge(&mut self, other: Tally) {
        self.cases += other.cases;
        other.kinds.into_iter().for_each(|(kind, many)| *self.kinds.entry(kind).or_default() += many);
        other.counts.into_iter().for_each(|(what, many)| *self.counts.entry(what).or_default() += many);
    }

    /// The share of the cases that have it, in per cent.
    pub fn share(&self, kind: &str) -> f64 {
        per_cent(self.kinds.get(kind).copied().unwrap_or(0), self.cases)
    }
}

fn per_cent(part: u64, whole: u64) -> f64 {
    part as f64 * 100.0 / whole.max(1) as f64
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{:<44} {:>7}", "cases", self.cases)?;
        for (kind, many) in &self.kinds {
            writeln!(f, "{kind:<44} {many:>7} {:>5.1} %", per_cent(*many, self.cases))?;
        }
        if !self.counts.is_empty() {
            writeln!(f, "in all of them")?;
        }
        self.counts.iter().try_for_each(|(what, many)| writeln!(f, "{what:<44} {many:>7}"))
    }
}
