//! Who takes part, and the program that each is.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::measure::Setup;
use crate::peer::{self, Style, Way};
use crate::scenario::{Scenario, Start};
use crate::{Outcome, floors, planned};

/// The first argument of a contestant that is this program.
pub const CONTESTANT: &str = "contestant";
/// No guard on deletions: whether they are wanted is not the question here.
const DELETIONS: &str = "1000000000000";

/// Who takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Contestant {
    /// `rowdelta sync`, as it is.
    Rowdelta,
    /// Delete and re-create, each document in a transaction of its own.
    RecreateEach,
    /// Delete and re-create, many documents in a transaction.
    Recreate,
    /// The same of documents whose hash differs.
    RecreateHash,
    /// Staging tables and set-based SQL.
    Staging,
    /// The same of documents whose hash differs.
    StagingHash,
    /// The smallest edit, known beforehand.
    Planned,
    /// Reading and hashing.
    HashLines,
    /// Parsing, shredding and fingerprinting.
    ShredLines,
    /// COPY of rows that are ready.
    RawCopy,
}

use Contestant::*;

/// All of them: rowdelta, the peers, and what cannot be done without.
pub const CONTESTANTS: [Contestant; 10] = [
    Rowdelta,
    RecreateEach,
    Recreate,
    RecreateHash,
    Staging,
    StagingHash,
    Planned,
    HashLines,
    ShredLines,
    RawCopy,
];
/// Other ways to do the same.
pub const PEERS: [Contestant; 5] = [RecreateEach, Recreate, RecreateHash, Staging, StagingHash];

/// What a contestant is given.
#[derive(Clone, Debug)]
pub struct Task {
    /// The database.
    pub url: String,
    /// The feed.
    pub feed: PathBuf,
    /// Whether documents that are missing have to go.
    pub complete: bool,
    /// The smallest edit, for who knows it beforehand.
    pub edit: PathBuf,
}

impl Contestant {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Rowdelta => "rowdelta",
            RecreateEach => "recreate-each",
            Recreate => "recreate",
            RecreateHash => "recreate-hash",
            Staging => "staging",
            StagingHash => "staging-hash",
            Planned => "planned",
            HashLines => "hash-lines",
            ShredLines => "shred-lines",
            RawCopy => "copy",
        }
    }

    /// What it is called in tables.
    pub fn title(self) -> &'static str {
        match self {
            Rowdelta => "rowdelta",
            RecreateEach => "delete and recreate, one by one",
            Recreate => "delete and recreate, in batches",
            RecreateHash => "the same by hash",
            Staging => "staging and SQL",
            StagingHash => "the same by hash",
            Planned => "planned beforehand",
            HashLines => "read and hash alone",
            ShredLines => "parse, shred and hash alone",
            RawCopy => "COPY of flattened rows",
        }
    }

    /// Whether it ends with the tables in step with the feed.
    pub fn syncs(self) -> bool {
        !matches!(self, HashLines | ShredLines)
    }

    /// Whether it takes part in a scenario.
    pub fn takes_part(self, scenario: &Scenario) -> bool {
        match self {
            Rowdelta | Recreate | RecreateHash | Staging | StagingHash => true,
            // It takes long, and as long in every scenario.
            RecreateEach => ["first", "unchanged", "changed-1"].contains(&scenario.name),
            Planned => scenario.is_edit(),
            HashLines => scenario.name == "unchanged",
            ShredLines => scenario.is_respelled(),
            RawCopy => scenario.start == Start::Empty,
        }
    }

    /// The program.
    pub fn command(self, task: &Task) -> Outcome<Vec<OsString>> {
        if self != Rowdelta {
            let complete = if task.complete { "complete" } else { "partial" };
            let own = [std::env::current_exe()?.into(), CONTESTANT.into(), self.name().into()];
            let rest = [
                task.url.clone().into(),
                task.feed.clone().into(),
                complete.into(),
                task.edit.clone().into(),
            ];
            return Ok(own.into_iter().chain(rest).collect());
        }
        let mapping = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/convocatorias/mapping.toml");
        let mut command: Vec<OsString> = vec![env!("CARGO_BIN_EXE_rowdelta").into(), "sync".into()];
        command.extend(["-d".into(), task.url.clone().into(), "-m".into(), mapping.into()]);
        command.extend(["--allow-deletes".into(), DELETIONS.into()]);
        command.extend(task.complete.then(|| "--complete".into()));
        command.push(task.feed.clone().into());
        Ok(command)
    }
}

/// The program of a contestant that is this one.
pub fn run(arguments: &[String]) -> Outcome<()> {
    let setup = Setup::begin();
    let [name, url, feed, complete, edit] = arguments else {
        return Err("a contestant has five arguments".into());
    };
    let contestant = CONTESTANTS.into_iter().find(|contestant| contestant.name() == name);
    let (feed, complete) = (Path::new(feed), complete == "complete");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let night = |way, by_hash, one_by_one| {
        runtime.block_on(peer::run(url, feed, Style { way, by_hash, one_by_one }, complete))
    };
    match contestant.ok_or("no such contestant")? {
        Rowdelta => Err("rowdelta is a program of its own".into()),
        RecreateEach => night(Way::Recreate, false, true),
        Recreate => night(Way::Recreate, false, false),
        RecreateHash => night(Way::Recreate, true, false),
        Staging => night(Way::Staging, false, false),
        StagingHash => night(Way::Staging, true, false),
        Planned => runtime.block_on(planned::apply(url, Path::new(edit), setup)),
        HashLines => floors::hash_lines(feed),
        ShredLines => floors::shred_lines(&runtime, url, feed, setup),
        RawCopy => runtime.block_on(floors::copy(url, feed, setup)),
    }
}
