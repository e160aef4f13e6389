//! Runs the nights: for each size a database with the first night in it, for each run a copy of that.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

use rowdelta::postgres::install::install;
use tokio_postgres::Client;

use crate::blocks::{Blocks, lines};
use crate::call::{Call, hash};
use crate::calls::{Calls, Night};
use crate::contestant::{Contestant, Task};
use crate::edit::Edit;
use crate::options::Options;
use crate::results::{Cell, Results, Sample};
use crate::scenario::{FIRST, Scenario, Start};
use crate::server::Server;
use crate::state::{self, State};
use crate::{Outcome, measure, seen, staging};

const TABLES: &str = include_str!("../../examples/convocatorias/schema.sql");
/// The databases that are copied, and the one that a contestant works on.
const EMPTY: &str = "empty";
const LOADED: &str = "loaded";
const ADOPTED: &str = "adopted";
const NIGHT: &str = "night";
/// Documents that the peers' memory is filled with at a time.
const SEEN_ROWS: usize = 10_000;

/// Where everything happens.
pub struct Site<'s> {
    server: &'s Server,
    dir: &'s Path,
    calls: Calls,
    /// Whether it is told which run is at hand.
    is_loud: bool,
}

/// Runs all that was asked for.
pub fn run(options: &Options, server: &Server, dir: &Path) -> Outcome<Results> {
    let mut results = Results::default();
    for &documents in options.sizes() {
        let calls = Calls { count: documents, seed: options.seed };
        let site = Site { server, dir, calls, is_loud: options.bench };
        site.prepare()?;
        for scenario in options.scenarios(documents) {
            site.scenario(scenario, options, &mut results)?;
        }
    }
    Ok(results)
}

impl Site<'_> {
    /// Writes the feed of a night.
    fn write(&self, night: Night) -> Outcome<PathBuf> {
        let path = self.dir.join("night.ndjson");
        let mut file = BufWriter::with_capacity(1 << 20, File::create(&path)?);
        for document in self.calls.night(night) {
            file.write_all(&document)?;
            file.write_all(b"\n")?;
        }
        // So that it is not written to the disk during somebody's run.
        file.into_inner()?.sync_all()?;
        Ok(path)
    }

    /// The first night, and the databases that are copied.
    fn prepare(&self) -> Outcome<()> {
        self.say(&format!("{} documents: the first night", self.calls.count));
        let feed = self.write(FIRST)?;
        self.server.create(EMPTY, "template1")?;
        let peer = format!("CREATE SCHEMA peer; {}; {}", seen::TABLE, staging::tables_sql());
        self.server.execute(EMPTY, &[TABLES, &peer])?;
        self.server.with(EMPTY, async |client| Ok(install(client).await.map(drop)?))?;
        self.server.create(LOADED, EMPTY)?;
        let task = self.task(LOADED, &feed, false);
        measure::run(Contestant::Rowdelta.command(&task)?)?;
        self.server.with(LOADED, async |client| remember(client, &feed).await)?;
        self.server.execute(LOADED, &["VACUUM (ANALYZE)"])
    }

    /// Makes everybody forget the first night.
    fn adopt(&self) -> Outcome<()> {
        self.server.create(ADOPTED, LOADED)?;
        self.server.execute(ADOPTED, &["TRUNCATE rowdelta.mapping, peer.seen CASCADE", "VACUUM (ANALYZE)"])
    }

    fn task(&self, database: &str, feed: &Path, complete: bool) -> Task {
        let edit = self.dir.join("edit.json");
        Task { url: self.server.url(database), feed: feed.to_owned(), complete, edit }
    }

    fn scenario(&self, scenario: &'static Scenario, options: &Options, results: &mut Results) -> Outcome<()> {
        let documents = self.calls.count;
        let contestants = options.contestants(documents, scenario);
        let feed = self.write(scenario.night)?;
        let task = self.task(NIGHT, &feed, scenario.complete);
        if scenario.is_edit() {
            let edit = Edit::between(self.calls.night(FIRST), self.calls.night(scenario.night))?;
            std::fs::write(&task.edit, serde_json::to_vec(&edit)?)?;
            results.edits.insert((documents, scenario.name), edit.counts());
        }
        let cell = |&contestant| Cell { documents, scenario, contestant, samples: Vec::new() };
        let mut cells: Vec<Cell> = contestants.iter().map(cell).collect();
        if scenario.start == Start::Adopted {
            self.adopt()?;
        }
        let mut expected = None;
        for round in 0..options.rounds() {
            // Nobody is always the first, or always after the same one.
            for turn in 0..cells.len() {
                let at = (round + turn) % cells.len();
                let sample = self.one(&cells[at], &task, round == 0)?;
                self.check(&cells[at], &mut expected)?;
                let edit = results.edits.get(&(documents, scenario.name));
                if cells[at].contestant == Contestant::Planned && edit != Some(&sample.rows) {
                    return Err(format!("planned {edit:?}, wrote {:?}", sample.rows).into());
                }
                self.say(&format!(
                    "{documents} documents, {}, {}: {:.3} s",
                    scenario.title,
                    cells[at].contestant.name(),
                    sample.process.wall
                ));
                cells[at].samples.push(sample);
            }
        }
        results.cells.append(&mut cells);
        Ok(())
    }

    /// One run on a copy of the database.
    fn one(&self, cell: &Cell, task: &Task, is_first: bool) -> Outcome<Sample> {
        let template = match cell.scenario.start {
            Start::Empty => EMPTY,
            Start::Loaded => LOADED,
            Start::Adopted => ADOPTED,
        };
        self.server.create(NIGHT, template)?;
        self.server.execute(NIGHT, &["VACUUM", "CHECKPOINT"])?;
        let load = load();
        let before = self.server.moment(NIGHT)?;
        let process = measure::run(cell.contestant.command(task)?)?;
        let served = self.server.served(NIGHT, &before, is_first)?;
        Ok(Sample {
            process,
            server_cpu: served.cpu,
            wal_bytes: served.wal_bytes,
            wal: served.wal,
            commits: served.commits,
            rows: served.rows,
            dead: served.dead,
            load,
        })
    }

    /// Whether the tables hold what they hold after every other run of the scenario.
    fn check(&self, cell: &Cell, expected: &mut Option<State>) -> Outcome<()> {
        if !cell.contestant.syncs() {
            return Ok(());
        }
        let state = self.server.with(NIGHT, async |client| state::read(client).await)?;
        let expected = expected.get_or_insert_with(|| state.clone());
        let differ = expected.iter().zip(&state).find(|(expected, state)| expected != state);
        match differ {
            None => Ok(()),
            Some((expected, state)) => Err(format!(
                "{}, {}: the end states differ: {expected:?}, {state:?}",
                cell.scenario.name,
                cell.contestant.name()
            )
            .into()),
        }
    }

    fn say(&self, text: &str) {
        if self.is_loud {
            eprintln!("{text}");
        }
    }
}

/// Fills the peers' memory, as they would have at the end of the first night.
async fn remember(client: &Client, feed: &Path) -> Outcome<()> {
    let blocks = Blocks::open(feed)?;
    let mut records = Vec::new();
    while let Some(block) = blocks.next()? {
        for line in lines(&block) {
            let call = Call::parse(line)?;
            let code = call.codigo.0.clone().into_owned();
            records.push(seen::Record { code, raw: hash(line), parsed: call.hash() });
        }
        if records.len() >= SEEN_ROWS {
            seen::record(client, &std::mem::take(&mut records)).await?;
        }
    }
    seen::record(client, &records).await?;
    Ok(())
}

/// The load average of the last minute.
fn load() -> Option<f64> {
    std::fs::read_to_string("/proc/loadavg").ok()?.split_whitespace().next()?.parse().ok()
}
