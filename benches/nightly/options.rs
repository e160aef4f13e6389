//! The command line.

use std::path::PathBuf;

use clap::Parser;

use crate::contestant::{CONTESTANTS, Contestant};
use crate::scenario::{SCENARIOS, Scenario};

/// From so many documents on rowdelta runs alone, in two scenarios, unless others are asked for.
const ALONE_FROM: u32 = 1_000_000;
const ALONE_SCENARIOS: [&str; 2] = ["unchanged", "changed-1"];
/// What is run where it is only to be seen that everything works.
const TRIAL_DOCUMENTS: u32 = 200;

/// Nights of incremental sync: rowdelta beside other ways to do it, and beside what cannot be done without.
#[derive(Debug, Parser)]
#[command(name = "nightly", bin_name = "cargo bench --bench nightly --")]
pub struct Options {
    /// Documents of the first night; several sizes one after the other. From 1,000,000 on rowdelta runs alone, in two
    /// scenarios, unless others are named.
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "20000")]
    documents: Vec<u32>,

    /// Runs of each contestant in each scenario, interleaved.
    #[arg(long, value_name = "N", default_value_t = 3)]
    rounds: usize,

    /// Only these scenarios.
    #[arg(long, value_name = "NAME,…", value_delimiter = ',', value_parser = scenario)]
    scenarios: Vec<&'static Scenario>,

    /// Only these contestants.
    #[arg(long, value_name = "NAME,…", value_delimiter = ',', value_parser = contestant)]
    contestants: Vec<Contestant>,

    /// What the documents are drawn from.
    #[arg(long, default_value_t = 20_260_101)]
    pub seed: u64,

    /// Write every sample to this file, as JSON.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,

    /// Draw wall time against the share of changed documents, as SVG.
    #[arg(long, value_name = "FILE.svg")]
    pub plot: Option<PathBuf>,

    /// Given by `cargo bench`. Without it everything runs once, on 200 documents and a server that is not durable, to
    /// see that it works.
    #[arg(long, hide = true)]
    pub bench: bool,
}

fn scenario(name: &str) -> Result<&'static Scenario, String> {
    let names = || SCENARIOS.iter().map(|scenario| scenario.name).collect::<Vec<_>>().join(", ");
    SCENARIOS.iter().find(|scenario| scenario.name == name).ok_or_else(|| format!("there are: {}", names()))
}

fn contestant(name: &str) -> Result<Contestant, String> {
    let names = || CONTESTANTS.map(Contestant::name).join(", ");
    let found = CONTESTANTS.into_iter().find(|contestant| contestant.name() == name);
    found.ok_or_else(|| format!("there are: {}", names()))
}

impl Options {
    /// How many documents, one size after the other.
    pub fn sizes(&self) -> &[u32] {
        if self.bench { &self.documents } else { &[TRIAL_DOCUMENTS] }
    }

    /// How many rounds.
    pub fn rounds(&self) -> usize {
        if self.bench { self.rounds.max(1) } else { 1 }
    }

    /// The scenarios of a size.
    pub fn scenarios(&self, documents: u32) -> Vec<&'static Scenario> {
        let default =
            |scenario: &&Scenario| documents < ALONE_FROM || ALONE_SCENARIOS.contains(&scenario.name);
        match self.scenarios.is_empty() {
            true => SCENARIOS.iter().filter(default).collect(),
            false => self.scenarios.clone(),
        }
    }

    /// The contestants of a size in a scenario.
    pub fn contestants(&self, documents: u32, scenario: &Scenario) -> Vec<Contestant> {
        let default = |contestant: Contestant| documents < ALONE_FROM || contestant == Contestant::Rowdelta;
        let is_chosen = |contestant: &Contestant| match self.contestants.is_empty() {
            true => default(*contestant),
            false => self.contestants.contains(contestant),
        };
        let takes_part = |contestant: &Contestant| contestant.takes_part(scenario) && is_chosen(contestant);
        CONTESTANTS.into_iter().filter(takes_part).collect()
    }
}
