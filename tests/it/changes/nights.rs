//! Random nights of which every written row is told: no more and no fewer than triggers count, in an order in which they
//! can be done again.

use std::path::Path;

use fastrand::Rng;
use rowdelta::engine::Engine;
use rowdelta::engine::changes::Change;
use rowdelta::engine::plan::Recorder;
use rowdelta::mapping::Mapping;
use serde_json::Value;
use tokio::sync::mpsc;

use super::planned::Planned;
use super::replay::{Copy, counts};
use crate::lanes::{self, Lane, in_dir};
use crate::nights::case::{FRESH, engine_with, items, reported, write};
use crate::nights::feed::{Night, World};
use crate::nights::is_by_relation;
use crate::nights::rewriting::Rewriting;
use crate::nights::shape::Shape;
use crate::oracle::{State, Writes};
use crate::shop::BY_RELATION;
use crate::support::{Database, db};
use crate::tally::{Drawn, Tally};

type Result<T> = std::result::Result<T, String>;

/// Runs cases from a seed on. Gives what was drawn, and what failed.
pub async fn run(seed: u64, cases: u64) -> (Tally, Vec<String>) {
    lanes::run::<Told>(seed, cases, 0).await
}

struct Told(Database);

impl Lane for Told {
    const CASES: u64 = 25;

    async fn open() -> Self {
        let database = db().await;
        let mut client = database.client().await;
        rowdelta::postgres::install::install(&mut client).await.expect("install the schema");
        Told(database)
    }

    async fn play(&self, seed: u64) -> Result<Drawn> {
        in_dir("told", seed, async |dir| nights(&self.0, seed, dir).await).await
    }
}

/// What waits in a channel.
pub fn drain(changes: &mut mpsc::Receiver<Change>) -> Vec<Value> {
    let mut told = Vec::new();
    while let Ok(change) = changes.try_recv() {
        told.push(serde_json::to_value(&change).expect("a change is JSON"));
    }
    told
}

async fn nights(database: &Database, seed: u64, dir: &Path) -> Result<Drawn> {
    let mut rng = Rng::with_seed(seed);
    let mut drawn = Drawn::default();
    let shape = Shape::draw(&mut rng, &mut drawn);
    let (mut toml, mut ddl) = (shape.toml("case"), shape.ddl());
    // What a trigger makes of a row is not told: the copy has the triggers, too.
    let rewriting = Rewriting::draw(&shape, seed);
    ddl += &rewriting.as_ref().map_or(String::new(), Rewriting::ddl);
    if is_by_relation(seed) {
        toml += BY_RELATION;
    }
    write(dir, "mapping.toml", &toml)?;
    write(dir, "schema.sql", &ddl)?;
    database.execute(&format!("{FRESH}{ddl}")).await;
    let oracle = State::open(database.client().await, &dir.join("mapping.toml")).await?;
    let writes = Writes::count(database.client().await, &oracle.mapping).await?;
    let mapping = Mapping::from_toml(&toml).unwrap();
    let copy = Copy::of(database.client().await, &mapping).await?;
    if let Some(rewriting) = &rewriting {
        database.execute(&also_in_copy(rewriting)).await;
    }
    let (sender, mut changes) = mpsc::channel(100_000);
    let listener = sender.clone();
    let engine =
        engine_with(database, &toml, &mut rng, |builder| builder.changes(sender).history(true)).await?;
    let mut world = World::new(&shape, &mut rng, &mut drawn);
    for night in 0..rng.usize(3..6) {
        let feed = world.night(&mut rng, &mut drawn);
        let docs: String = feed.docs.iter().map(|doc| doc.replace('\n', " ") + "\n").collect();
        write(dir, &format!("night-{night}.ndjson"), docs)?;
        writes.take().await?;
        let failed = |error: String| format!("night {night}: {error}");
        for again in [false, true] {
            let planned = foreseen(&engine, &mapping, database, &writes, &feed).await.map_err(failed)?;
            // Every third case does just what was planned.
            let only = match seed % 3 {
                0 => Some(planned.only(database, &toml, &mut rng, listener.clone()).await?),
                _ => None,
            };
            let by = only.as_ref().unwrap_or(&engine);
            let report = by.sync(futures_util::stream::iter(items(&feed.docs))).await;
            let report = report.map_err(|error| failed(error.to_string()))?;
            let (told, written) = (drain(&mut changes), writes.take().await?);
            let lines: String = told.iter().map(|change| format!("{change}\n")).collect();
            write(dir, &format!("told-{night}-{again}.ndjson"), lines)?;
            if counts(&told) != written || reported(&report) != written {
                return Err(failed(format!("written {written:#?}\ntold {:#?}\n{report:#?}", counts(&told))));
            }
            planned.is_what(&mapping, &report, &told).map_err(failed)?;
            if again && !told.is_empty() {
                return Err(failed(format!("told twice: {told:#?}")));
            }
            copy.replay(&told).await.map_err(failed)?;
            copy.check().await.map_err(failed)?;
            kept(database, &told).await.map_err(failed)?;
        }
    }
    Ok(drawn)
}

/// What a plan says of a feed. It writes nothing, draws no id and leaves no trace.
async fn foreseen(
    engine: &Engine,
    mapping: &Mapping,
    database: &Database,
    writes: &Writes,
    feed: &Night,
) -> Result<Planned> {
    let traces = async || database.table(TRACES).await;
    let before = traces().await;
    let (listener, mut changes) = mpsc::channel(100_000);
    let report = engine.plan(futures_util::stream::iter(items(&feed.docs)), listener).await;
    let report = report.map_err(|error| format!("plan: {error}"))?;
    let written = writes.take().await?;
    if !written.is_empty() || traces().await != before {
        return Err(format!("planning wrote {written:?}, {before:?}, {:?}", traces().await));
    }
    let mut recorder = Recorder::new(mapping, engine.digest().await.map_err(|error| error.to_string())?);
    let mut told = Vec::new();
    while let Ok(change) = changes.try_recv() {
        recorder.add(&change);
        told.push(serde_json::to_value(&change).expect("a change is JSON"));
    }
    Ok(Planned { report, changes: told, saved: recorder.finish() })
}

const TRACES: &str = "
    SELECT (SELECT md5(string_agg(s::text, ' ' ORDER BY s.sequencename)) FROM pg_sequences s),
           (SELECT md5(string_agg(m::text, ' ')) FROM rowdelta.mapping m),
           (SELECT count(*) FROM rowdelta.run), (SELECT md5(string_agg(d::text, ' ' ORDER BY d.key)) FROM rowdelta.document d)";

/// Has the tables of the copy rewrite rows likewise.
fn also_in_copy(rewriting: &Rewriting) -> String {
    let trigger = |(at, (table, _)): (usize, &(String, String))| {
        format!(
            "CREATE TRIGGER rewrite_{at} BEFORE INSERT OR UPDATE ON copy.{table}
                 FOR EACH ROW EXECUTE FUNCTION rewrite_{at}();"
        )
    };
    rewriting.0.iter().enumerate().map(trigger).collect()
}

/// What is kept is what was told.
async fn kept(database: &Database, told: &[Value]) -> Result<()> {
    let sql = "WITH taken AS (DELETE FROM rowdelta.change RETURNING *)
               SELECT jsonb_build_object('document', document, 'relation', relation, 'action', action, 'key', key,
                      'before', before, 'after', after)::text FROM taken";
    let kept = database.table(sql).await.into_iter().filter_map(|row| row[0].clone());
    let mut kept: Vec<Value> = kept.map(|text| serde_json::from_str(&text).unwrap()).collect();
    let without = |change: &Value| {
        let mut change = change.clone();
        let object = change.as_object_mut().unwrap();
        ["id", "parent", "table"].iter().for_each(|name| drop(object.remove(*name)));
        change
    };
    let mut told: Vec<Value> = told.iter().map(without).collect();
    [&mut kept, &mut told].into_iter().for_each(|list| list.sort_by_key(Value::to_string));
    if kept == told { Ok(()) } else { Err(format!("kept {kept:#?}\ntold {told:#?}")) }
}
