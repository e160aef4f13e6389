//! One case: a mapping, its tables twice, and some nights, each checked.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use fastrand::Rng;
use rowdelta::engine::Engine;
use rowdelta::engine::verify::VerifyOptions;
use serde_json::Value;

use super::{Pair, content, spoil};
use crate::lanes::in_dir;
use crate::nights::case::{FRESH, engine, items, write};
use crate::nights::feed::{Night, World};
use crate::nights::shape::Shape;
use crate::oracle::{State, Writes};
use crate::support::database::{describe, rows};
use crate::tally::Drawn;

/// Ways to play the nights of the second database.
pub const BY_SQL: &str = "by SQL alone";
pub const ENGINE_FIRST: &str = "turn about, engine first";
pub const SQL_FIRST: &str = "turn about, SQL first";
/// A document that is to be done again.
pub const UNSETTLED: &str = "unsettled document";

type Result<T> = std::result::Result<T, String>;

/// Everything a case works with.
struct Case<'a> {
    pair: &'a Pair,
    shape: &'a Shape,
    way: &'static str,
    engines: [Engine; 2],
    oracle: State,
    writes: Writes,
    dir: PathBuf,
}

/// What a night came to, but for what only one of the two can tell.
#[derive(Debug)]
struct Outcome {
    documents: BTreeMap<&'static str, u64>,
    /// By relation: added, updated, moved, removed.
    rows: BTreeMap<String, Vec<u64>>,
    /// By the document's place in the feed: relation and code.
    failures: BTreeMap<u64, (String, String)>,
    /// What was said of them, which is not compared.
    messages: Vec<String>,
}

impl Outcome {
    /// Whether those documents failed that were expected to, by the relations that are to blame.
    fn failed_as(&self, expected: &BTreeMap<u64, &str>) -> Result<()> {
        let failed: BTreeMap<u64, &str> =
            self.failures.iter().map(|(at, (relation, _))| (*at, relation.as_str())).collect();
        if failed == *expected {
            return Ok(());
        }
        Err(format!("expected to fail {expected:?}, failed {:?}: {:?}", self.failures, self.messages))
    }

    /// Whether both are of one night. A document whose only change is that another one took a row of it is changed or
    /// unchanged to the engine, as it comes later in a batch with that one, or in one of its own.
    fn agrees(&self, other: &Self) -> bool {
        let count = |one: &Self, kind| one.documents[kind];
        let with = |one: &Self, kind, many| {
            let mut documents = one.documents.clone();
            documents.insert(kind, many);
            documents
        };
        let moved: u64 = self.rows.values().map(|counts| counts[2]).sum();
        let both = |one: &Self| with(one, "changed", count(one, "changed") + count(one, "unchanged"));
        let without = |mut documents: BTreeMap<&'static str, u64>| {
            documents.remove("unchanged");
            documents
        };
        let is_within = count(self, "changed").abs_diff(count(other, "changed")) <= moved;
        is_within
            && without(both(self)) == without(both(other))
            && self.rows == other.rows
            && self.failures == other.failures
    }
}

/// Draws a case and runs it. What a failed one was made of stays in a directory.
///
/// # Errors
/// What was wrong, and where to look.
pub async fn run(pair: &Pair, seed: u64) -> Result<Drawn> {
    in_dir("agreement", seed, async |dir| nights(pair, seed, dir).await).await
}

async fn nights(pair: &Pair, seed: u64, dir: &Path) -> Result<Drawn> {
    let mut rng = Rng::with_seed(seed);
    let mut drawn = Drawn::default();
    let shape = Shape::draw_for_sql(&mut rng, &mut drawn);
    let case = Case::open(pair, &shape, seed, dir, &mut rng).await?;
    drawn.note(case.way);
    let mut world = World::new(&shape, &mut rng, &mut drawn);
    for night in 0..rng.usize(3..7) {
        let done = case.night(&mut world, night, &mut rng, &mut drawn).await;
        done.map_err(|error| format!("{}, night {night}: {error}", case.way))?;
    }
    case.verify().await?;
    Ok(drawn)
}

impl<'a> Case<'a> {
    async fn open(pair: &'a Pair, shape: &'a Shape, seed: u64, dir: &Path, rng: &mut Rng) -> Result<Self> {
        let (toml, ddl) = (shape.toml("case"), shape.ddl() + &spoil::ddl(shape));
        write(dir, "mapping.toml", &toml)?;
        write(dir, "schema.sql", &ddl)?;
        for database in [&pair.engine, &pair.sql] {
            database.execute(&format!("{FRESH}{ddl}")).await;
        }
        let oracle = State::open(pair.sql.client().await, &dir.join("mapping.toml")).await?;
        let writes = Writes::count(pair.sql.client().await, &oracle.mapping).await?;
        let engines = [engine(&pair.engine, &toml, rng).await?, engine(&pair.sql, &toml, rng).await?];
        let definition: Value = toml::from_str(&toml).map_err(|error| error.to_string())?;
        let registered =
            pair.session.query("SELECT rowdelta.register($1::text::jsonb)", &[&definition.to_string()]).await;
        registered.map_err(|error| format!("register: {}", describe(&error)))?;
        let way = [BY_SQL, ENGINE_FIRST, SQL_FIRST][(seed % 3) as usize];
        Ok(Case { pair, shape, way, engines, oracle, writes, dir: dir.to_owned() })
    }

    async fn night(
        &self,
        world: &mut World<'_>,
        night: usize,
        rng: &mut Rng,
        drawn: &mut Drawn,
    ) -> Result<()> {
        let feed = world.night(rng, drawn);
        let (docs, expected) = self.with_failing(world, &feed, rng, drawn);
        self.keep(&format!("night-{night}.ndjson"), &docs)?;
        let by_engine = self.by_engine(0, &docs).await?;
        let by_sql = self.is_by_sql(night);
        let as_texts = rng.bool();
        let outcome =
            if by_sql { self.by_sql(&docs, as_texts).await? } else { self.by_engine(1, &docs).await? };
        outcome.failed_as(&expected)?;
        self.oracle.feed(&feed.once).await?;
        self.check().await?;
        let (least, written) = (self.oracle.smallest_edit().await?, self.writes.take().await?);
        if least != written {
            return Err(format!("the smallest edit is {least:#?}\nwritten was {written:#?}"));
        }
        // References have other values where catalogues were filled in another order.
        let is_same = self.shape.catalogues.iter().all(|catalogue| catalogue.missing != "insert");
        let recorded = if is_same { self.recorded().await } else { Vec::new() };
        if !by_engine.agrees(&outcome) {
            return Err(format!("by the engine {by_engine:?}\nby SQL {outcome:?}"));
        }
        let unsettled = self.unsettled().await;
        if unsettled[0] != unsettled[1] {
            return Err(format!("to be done again by the engine, and by SQL: {unsettled:?}"));
        }
        if let Some(differing) = recorded.iter().find(|(one, other)| one[1] != other[1] || one[2] != other[2])
        {
            return Err(format!("recorded by the engine, and by SQL: {differing:?}"));
        }
        if !unsettled[0].is_empty() {
            drawn.note(UNSETTLED);
        }
        if by_sql {
            self.same(&docs, as_texts, &expected).await?;
        }
        self.again(&world.respell(&feed, rng, drawn), night, by_sql).await
    }

    /// Whether a night of the second database is SQL's.
    fn is_by_sql(&self, night: usize) -> bool {
        match self.way {
            ENGINE_FIRST => night % 2 == 1,
            SQL_FIRST => night % 2 == 0,
            _ => true,
        }
    }

    /// The documents that are to be done again: by the engine, and by SQL.
    async fn unsettled(&self) -> [Vec<String>; 2] {
        let sql = "SELECT key FROM rowdelta.state WHERE NOT settled ORDER BY key";
        let (one, other) = (self.pair.engine.table(sql).await, self.pair.sql.table(sql).await);
        [one, other].map(|rows| rows.into_iter().flatten().flatten().collect())
    }

    /// A night's documents, and between them such as must fail: their places, and the relation that is to blame.
    fn with_failing(
        &self,
        world: &mut World<'_>,
        feed: &Night,
        rng: &mut Rng,
        drawn: &mut Drawn,
    ) -> (Vec<String>, BTreeMap<u64, &'a str>) {
        let (stored, new) = world.others(feed, rng, drawn);
        let mut bad: Vec<(String, &str)> = Vec::new();
        for text in stored {
            bad.extend(spoil::spoil(self.shape, &text, true, rng, drawn));
        }
        if rng.bool() {
            bad.extend(spoil::spoil(self.shape, &new, false, rng, drawn));
        }
        let mut all: Vec<(String, Option<&str>)> =
            feed.docs.iter().map(|text| (text.clone(), None)).collect();
        for (text, relation) in bad {
            all.insert(rng.usize(..=all.len()), (text, Some(relation)));
        }
        let place =
            |(at, (_, relation)): (usize, &(String, Option<&'a str>))| Some((at as u64 + 1, (*relation)?));
        let expected = all.iter().enumerate().filter_map(place).collect();
        (all.into_iter().map(|(text, _)| text).collect(), expected)
    }

    async fn by_engine(&self, which: usize, docs: &[String]) -> Result<Outcome> {
        let report = match self.engines[which].sync(futures_util::stream::iter(items(docs))).await {
            Ok(report) => report,
            Err(error) => error.report().cloned().ok_or_else(|| format!("engine: {error}"))?,
        };
        let report = serde_json::to_value(&report).map_err(|error| error.to_string())?;
        Ok(outcome(&report, "line"))
    }

    /// By `sync_texts`, or by `sync_many`.
    async fn by_sql(&self, docs: &[String], as_texts: bool) -> Result<Outcome> {
        let row = if as_texts {
            self.pair
                .session
                .query_one("SELECT rowdelta.sync_texts('case', $1, percent_max => NULL)::text", &[&docs])
                .await
        } else {
            let documents = format!("[{}]", docs.join(","));
            self.pair
                .session
                .query_one(
                    "SELECT rowdelta.sync_many('case', $1::text::jsonb, percent_max => NULL)::text",
                    &[&documents],
                )
                .await
        };
        let row = row.map_err(|error| format!("by SQL, as texts: {as_texts}: {}", describe(&error)))?;
        let report: Value = serde_json::from_str(row.get(0)).map_err(|error| error.to_string())?;
        Ok(outcome(&report, "item"))
    }

    /// Compares the tables with the oracle's, and with the engine's.
    async fn check(&self) -> Result<()> {
        self.oracle.check().await?;
        content::compare(self.shape, &self.pair.engine, &self.pair.sql).await
    }

    /// What is recorded of the documents that both have done, key by key: by the engine, and by SQL.
    async fn recorded(&self) -> Vec<(Vec<Option<String>>, Vec<Option<String>>)> {
        let settled = "SELECT key, fingerprint, relations FROM rowdelta.state WHERE settled ORDER BY key";
        let (one, other) = (self.pair.engine.table(settled).await, self.pair.sql.table(settled).await);
        let both = one
            .into_iter()
            .filter_map(|row| Some((other.iter().find(|other| other[0] == row[0])?.clone(), row)));
        both.map(|(other, row)| (row, other)).collect()
    }

    /// The same texts write nothing, and those that failed fail again.
    async fn same(&self, docs: &[String], as_texts: bool, expected: &BTreeMap<u64, &str>) -> Result<()> {
        let outcome = self.by_sql(docs, as_texts).await?;
        outcome.failed_as(expected)?;
        let written = self.writes.take().await?;
        if !written.is_empty() || outcome.documents["new"] + outcome.documents["changed"] > 0 {
            return Err(format!("the same texts: written was {written:#?}\nreported {outcome:#?}"));
        }
        Ok(())
    }

    /// The same feed in other words writes nothing, whoever plays it.
    async fn again(&self, feed: &Night, night: usize, by_sql: bool) -> Result<()> {
        self.keep(&format!("night-{night}-again.ndjson"), &feed.docs)?;
        let other = if by_sql && self.way != BY_SQL {
            self.by_engine(1, &feed.docs).await
        } else {
            self.by_sql(&feed.docs, night % 2 == 0).await
        };
        let outcome = other.map_err(|error| format!("again: {error}"))?;
        let written = self.writes.take().await?;
        let rows: u64 = outcome.rows.values().flatten().sum();
        if !written.is_empty() || rows > 0 || outcome.documents["unchanged"] != feed.docs.len() as u64 {
            return Err(format!("again: written was {written:#?}\nreported {outcome:#?}"));
        }
        Ok(())
    }

    /// Neither of the two finds that a row differs from what is recorded.
    async fn verify(&self) -> Result<()> {
        let found = rows(&self.pair.session, "SELECT * FROM rowdelta.verify('case')").await?;
        if !found.is_empty() {
            return Err(format!("rowdelta.verify: {found:?}"));
        }
        let verified = self.engines[1].verify_recorded(VerifyOptions::default()).await;
        let verified = verified.map_err(|error| error.to_string())?;
        // Where a document leaves something open, SQL does not record what its fingerprints cover: it is unknown then.
        if verified.total() + verified.documents.differing > 0 {
            return Err(format!("verify by the engine: {verified:#?}"));
        }
        Ok(())
    }

    fn keep(&self, name: &str, docs: &[String]) -> Result<()> {
        let lines: String = docs.iter().map(|doc| doc.replace('\n', " ") + "\n").collect();
        write(&self.dir, name, &lines)
    }
}

/// What a report says. `place`: what it calls a document's place in the feed.
fn outcome(report: &Value, place: &str) -> Outcome {
    let number = |value: &Value| value.as_u64().unwrap_or_else(|| panic!("{report:#}"));
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let list = |name: &str| report[name].as_array().unwrap_or_else(|| panic!("{report:#}"));
    // Whether a document is to be done again is looked up.
    let kinds = ["read", "repeated", "unchanged", "new", "changed", "failed", "withheld"];
    let counts =
        |one: &Value| ["added", "updated", "moved", "removed"].map(|kind| number(&one[kind])).to_vec();
    Outcome {
        documents: kinds.map(|kind| (kind, number(&report["documents"][kind]))).into(),
        rows: list("relations").iter().map(|one| (text(&one["name"]), counts(one))).collect(),
        failures: list("failures")
            .iter()
            .map(|one| (number(&one[place]), (text(&one["relation"]), text(&one["sqlstate"]))))
            .collect(),
        messages: list("failures").iter().map(|one| text(&one["message"])).collect(),
    }
}
