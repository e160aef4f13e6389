//! One case: a mapping, its tables, and some nights, each checked.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bb8_postgres::PostgresConnectionManager;
use fastrand::Rng;
use rowdelta::document::{Document, Origin};
use rowdelta::engine::report::Report;
use rowdelta::engine::verify::{RelationDifferences, Verification, VerifyOptions};
use rowdelta::engine::{Builder, DeleteLimits, Engine, FeedItem};
use rowdelta::mapping::Mapping;
use tokio_postgres::NoTls;

use super::drift;
use super::feed::{Night, World};
use super::rewriting::Rewriting;
use super::shape::{Col, Kind, Place, Rel, Shape, name};
use crate::lanes::in_dir;
use crate::oracle::{Edit, Edits, State, Writes};
use crate::shop::BY_RELATION;
use crate::support::Database;
use crate::support::database::describe;
use crate::tally::Drawn;

type Result<T> = std::result::Result<T, String>;

/// Everything a case works with.
struct Case<'a> {
    database: &'a Database,
    shape: &'a Shape,
    engine: Engine,
    oracle: State,
    writes: Writes,
    rewriting: Option<Rewriting>,
    dir: PathBuf,
}

/// Empties a database of all but the schema `rowdelta`, and that of mappings.
pub const FRESH: &str = "SET client_min_messages = warning; DROP SCHEMA IF EXISTS public, oracle CASCADE;
                 CREATE SCHEMA public; CREATE SCHEMA oracle; DELETE FROM rowdelta.mapping;";

/// What makes a row the same one, and what of it must stay: by the token it was given.
type Rows = BTreeMap<String, String>;

/// Draws a case and runs it. What a failed one was made of stays in a directory.
///
/// # Errors
/// What was wrong, and where to look.
pub async fn run(database: &Database, seed: u64) -> Result<Drawn> {
    in_dir("properties", seed, async |dir| nights(database, seed, dir).await).await
}

async fn nights(database: &Database, seed: u64, dir: &Path) -> Result<Drawn> {
    let mut rng = Rng::with_seed(seed);
    let mut drawn = Drawn::default();
    let shape = Shape::draw(&mut rng, &mut drawn);
    let (mut toml, mut ddl) = (shape.toml("case"), shape.ddl());
    let rewriting = Rewriting::draw(&shape, seed);
    if let Some(rewriting) = &rewriting {
        drawn.note("rewritten by a trigger");
        ddl += &rewriting.ddl();
    }
    if is_by_relation(seed) {
        drawn.note("relation by relation");
        toml += BY_RELATION;
    }
    write(dir, "mapping.toml", &toml)?;
    write(dir, "schema.sql", &ddl)?;
    database.execute(&format!("{FRESH}{ddl}")).await;
    let oracle = State::open(database.client().await, &dir.join("mapping.toml")).await?;
    let writes = Writes::count(database.client().await, &oracle.mapping).await?;
    let engine = engine(database, &toml, &mut rng).await?;
    let case = Case { database, shape: &shape, engine, oracle, writes, rewriting, dir: dir.to_owned() };
    let mut world = World::new(&shape, &mut rng, &mut drawn);
    let mut last = None;
    for night in 0..rng.usize(3..7) {
        let done = case.night(&mut world, night, &mut rng, &mut drawn).await;
        last = Some(done.map_err(|error| format!("night {night}: {error}"))?);
    }
    if let Some(feed) = last {
        case.drift(&feed, &mut rng, &mut drawn).await.map_err(|error| format!("drift: {error}"))?;
    }
    Ok(drawn)
}

/// Whether a case stores documents relation by relation: one in four does.
pub fn is_by_relation(seed: u64) -> bool {
    seed % 4 == 3
}

pub fn write(dir: &Path, name: &str, text: impl AsRef<str>) -> Result<()> {
    std::fs::write(dir.join(name), text.as_ref()).map_err(|error| error.to_string())
}

/// An engine whose batches are so small that moves cross them.
pub async fn engine(database: &Database, toml: &str, rng: &mut Rng) -> Result<Engine> {
    engine_with(database, toml, rng, |builder| builder).await
}

/// As [`engine`], set up further.
pub async fn engine_with(
    database: &Database,
    toml: &str,
    rng: &mut Rng,
    more: impl FnOnce(Builder) -> Builder,
) -> Result<Engine> {
    let mapping = Mapping::from_toml(toml).map_err(|error| format!("{error}\n{toml}"))?;
    let workers = rng.usize(1..4);
    let manager = PostgresConnectionManager::new_from_stringlike(database.url(), NoTls);
    let manager = manager.map_err(|error| error.to_string())?;
    let pool = bb8::Pool::builder().max_size(workers as u32 + 1).build(manager).await;
    // Of nights that delete much the oracle knows nothing.
    let limits = DeleteLimits { rows_max: u64::MAX, percent_max: None };
    let builder = Engine::builder(mapping).workers(workers).batch_documents_max(rng.usize(1..6));
    let builder = more(builder.delete_limits(limits));
    builder.build(pool.map_err(|error| error.to_string())?).await.map_err(|error| error.to_string())
}

impl Case<'_> {
    async fn night(
        &self,
        world: &mut World<'_>,
        night: usize,
        rng: &mut Rng,
        drawn: &mut Drawn,
    ) -> Result<Night> {
        let before = self.mark_rows().await;
        let feed = world.night(rng, drawn);
        self.keep(&format!("night-{night}.ndjson"), &feed)?;
        self.oracle.feed(&feed.once).await?;
        let report = self.sync(&feed).await?;
        self.check().await?;
        let (smallest, written) = (self.oracle.smallest_edit().await?, self.writes.take().await?);
        if smallest != written {
            return Err(format!("the smallest edit is {smallest:#?}\nwritten was {written:#?}"));
        }
        if reported(&report) != written {
            return Err(format!("written was {written:#?}\nreported {report:#?}"));
        }
        self.check_survivors(&before, &written).await?;
        self.again(world, &feed, night, rng, drawn).await?;
        Ok(feed)
    }

    /// Compares the tables with what they should hold, by what was sent.
    async fn check(&self) -> Result<()> {
        let Some(rewriting) = &self.rewriting else { return self.oracle.check().await };
        let client = self.database.client().await;
        let run = async |sql: String| client.batch_execute(&sql).await.map_err(|error| describe(&error));
        run(rewriting.undo()).await?;
        let checked = self.oracle.check().await;
        run(rewriting.redo()).await?;
        checked
    }

    /// The same feed in other words writes nothing.
    async fn again(
        &self,
        world: &mut World<'_>,
        feed: &Night,
        night: usize,
        rng: &mut Rng,
        drawn: &mut Drawn,
    ) -> Result<()> {
        let again = world.respell(feed, rng, drawn);
        self.keep(&format!("night-{night}-again.ndjson"), &again)?;
        let report = self.sync(&again).await.map_err(|error| format!("respelled: {error}"))?;
        let written = self.writes.take().await?;
        let documents = &report.documents;
        if !written.is_empty() || report.rows_written() > 0 || documents.unchanged != documents.read {
            return Err(format!("respelled: written was {written:#?}\nreported {report:#?}"));
        }
        self.verify(&again).await
    }

    /// Neither from the feed nor from what was recorded does a row differ.
    async fn verify(&self, feed: &Night) -> Result<()> {
        let recorded = self.engine.verify_recorded(VerifyOptions::default()).await;
        let recorded = recorded.map_err(|error| error.to_string())?;
        for verification in [self.compared(feed, false).await?, recorded] {
            let documents = verification.documents;
            let unknown = documents.unknown - verification.unknown.unsettled;
            if verification.total() + documents.differing + unknown > 0 {
                return Err(format!("false drift: {verification:#?}"));
            }
        }
        Ok(())
    }

    async fn compared(&self, feed: &Night, repair: bool) -> Result<Verification> {
        let options = VerifyOptions { repair, ..VerifyOptions::default() };
        let verified = self.engine.verify(futures_util::stream::iter(items(&feed.docs)), options).await;
        let verification = verified.map_err(|error| error.to_string())?;
        if verification.failures.is_empty() { Ok(verification) } else { Err(format!("{verification:#?}")) }
    }

    /// What somebody changes by hand is found, and mended by just as many writes.
    async fn drift(&self, feed: &Night, rng: &mut Rng, drawn: &mut Drawn) -> Result<()> {
        let (sql, restores) = drift::draw(&self.shape.relations, rng);
        write(&self.dir, "drift.sql", &sql)?;
        if self.database.client().await.batch_execute(&sql).await.is_err() {
            return Ok(());
        }
        self.writes.take().await?;
        let found = self.compared(feed, false).await?;
        if found.total() > 0 {
            drawn.note("drift");
        }
        let repaired = self.compared(feed, true).await?;
        let written = self.writes.take().await?;
        if written != expected(&found) || repaired.relations != found.relations {
            return Err(format!("{sql}\nwritten was {written:#?}\nfound {found:#?}\nrepaired {repaired:#?}"));
        }
        if restores && found.total() > 0 {
            self.check().await.map_err(|error| format!("{sql}\n{error}"))?;
        }
        let again = self.compared(feed, false).await?;
        if again.total() > 0 { Err(format!("{sql}\nstill differs {again:#?}")) } else { Ok(()) }
    }

    fn keep(&self, name: &str, feed: &Night) -> Result<()> {
        let lines: String = feed.docs.iter().map(|doc| doc.replace('\n', " ") + "\n").collect();
        write(&self.dir, name, &lines)
    }

    /// Syncs a feed of which every document must succeed, and checks that all are accounted for.
    async fn sync(&self, feed: &Night) -> Result<Report> {
        let items = futures_util::stream::iter(items(&feed.docs));
        let report = self.engine.sync(items).await.map_err(|error| error.to_string())?;
        let documents = &report.documents;
        let counted =
            documents.repeated + documents.unchanged + documents.new + documents.changed + documents.failed;
        let repeated = (feed.docs.len() - feed.once.len()) as u64;
        if documents.read != feed.docs.len() as u64
            || counted != documents.read
            || documents.repeated != repeated
        {
            return Err(format!(
                "{} documents, {repeated} repeated; reported {documents:#?}",
                feed.docs.len()
            ));
        }
        Ok(report)
    }

    /// Plays the step that fills a column nobody maps: each row gets a token. Gives all rows by their tokens.
    async fn mark_rows(&self) -> Vec<Rows> {
        for rel in &self.shape.relations {
            let token = "md5(random()::text || clock_timestamp()::text)";
            let table = name(&rel.table);
            self.database
                .execute(&format!("UPDATE {table} SET kept_beside = {token} WHERE kept_beside IS NULL"))
                .await;
        }
        self.writes.take().await.expect("the writes of the test itself are forgotten");
        let mut all = Vec::new();
        for rel in &self.shape.relations {
            all.push(self.rows(rel).await);
        }
        all
    }

    async fn rows(&self, rel: &Rel) -> Rows {
        let sql = format!(
            "SELECT kept_beside, ROW({})::text FROM {} WHERE kept_beside IS NOT NULL",
            identity(rel).join(", "),
            name(&rel.table)
        );
        let pair = |row: Vec<Option<String>>| match &row[..] {
            [Some(token), Some(row)] => (token.clone(), row.clone()),
            other => panic!("{other:?}"),
        };
        self.database.table(&sql).await.into_iter().map(pair).collect()
    }

    /// Rows that stayed are the rows they were: the same id, the same identity, the same unmapped column.
    async fn check_survivors(&self, before: &[Rows], written: &Edits) -> Result<()> {
        for (rel, before) in self.shape.relations.iter().zip(before) {
            let after = self.rows(rel).await;
            let deleted = written.get(&rel.table).map_or(0, |edit| edit.deleted);
            if after.len() as u64 + deleted != before.len() as u64 {
                let counts = format!("{} rows, {deleted} deleted, {} left", before.len(), after.len());
                return Err(format!("{}: a column nobody maps was lost: {counts}", rel.table));
            }
            let other = |(token, row): &(&String, &String)| before.get(*token) != Some(*row);
            if let Some((token, row)) = after.iter().find(other) {
                return Err(format!(
                    "{}: a row became another: {:?}, now {row}",
                    rel.table,
                    before.get(token)
                ));
            }
        }
        Ok(())
    }
}

/// Documents as a feed has them, by their place in it.
pub fn items(docs: &[String]) -> Vec<FeedItem> {
    let document = |(at, text): (usize, &String)| -> FeedItem {
        let origin = Origin { file: None, line: at as u64 + 1, item: None };
        Ok(Document { bytes: text.clone().into_bytes().into(), origin })
    };
    docs.iter().enumerate().map(document).collect()
}

/// The columns that a row keeps for life.
fn identity(rel: &Rel) -> Vec<String> {
    let id = rel.id.map(|(id, _)| name(id));
    let keyless = rel.key.is_empty();
    let is_content = |col: &Col| keyless && !rel.pair && !matches!(col.place, Place::Position(_));
    let columns = rel.columns.iter().enumerate().filter(|(at, col)| is_content(col) || rel.key.contains(at));
    let parent =
        rel.parent.iter().filter(|_| rel.kind == Kind::Link || !rel.unique_in_all).map(|parent| name(parent));
    id.into_iter().chain(columns.map(|(_, col)| name(&col.name))).chain(parent).collect()
}

/// What mending all that was found writes, by table.
fn expected(found: &Verification) -> Edits {
    let edit = |of: &RelationDifferences| Edit {
        inserted: of.missing,
        updated: of.changed + of.moved,
        deleted: of.surplus,
    };
    let edits = found.relations.iter().map(|relation| (relation.table.clone(), edit(relation)));
    edits.filter(|(_, edit)| *edit != Edit::default()).collect()
}

/// What the report says was written, by table.
pub fn reported(report: &Report) -> Edits {
    let mut edits = Edits::new();
    for counts in &report.relations {
        let edit =
            Edit { inserted: counts.added, updated: counts.updated + counts.moved, deleted: counts.removed };
        if edit != Edit::default() {
            edits.insert(counts.table.clone(), edit);
        }
    }
    edits
}
