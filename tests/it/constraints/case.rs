//! One case: a schema, and some nights, each checked.

use std::collections::BTreeSet;
use std::path::Path;

use bb8_postgres::PostgresConnectionManager;
use fastrand::Rng;
use rowdelta::document::{Document, Origin};
use rowdelta::engine::report::{Report, SyncError};
use rowdelta::engine::{Engine, FeedItem};
use rowdelta::mapping::Mapping;
use tokio_postgres::{Client, NoTls};

use super::change::{self, Night, chance};
use super::detours;
use super::orders;
use super::shape::{Purpose, Relation, Role, Shape};
use super::sieve::{circles, onlookers};
use super::state::{Edit, Entry, Line, Row, State, edits};
use super::stored::{self, Stored, WATCH};
use crate::lanes::{Lane, variable};
use crate::nights::is_by_relation;
use crate::shop::BY_RELATION;
use crate::support::database::{Database, db, describe};
use crate::tally::Drawn;

type Result<T> = std::result::Result<T, String>;

/// Documents were refused, rightly as far as can be told.
pub const REFUSED: &str = "nights: refused";
/// Documents were refused, and one of them, or one whose rows they ask for, is not settled.
pub const REFUSED_IN_PART: &str = "nights: refused, and others not settled";
/// Documents were refused though one or two temporary values would have got them in.
pub const REFUSED_THOUGH: &str = "nights: refused, though a parked value would help";

/// The tables are tiny, and the engine reads the catalog for every feed: most of the time is spent on planning that.
const QUICK: &str = "
    DO $$ BEGIN
      EXECUTE format('ALTER DATABASE %I SET join_collapse_limit = 1', current_database());
      EXECUTE format('ALTER DATABASE %I SET jit = off', current_database());
    END $$";

/// A database for one case after the other.
pub struct Tables {
    /// Dropped with the lane.
    _database: Database,
    client: Client,
    pool: bb8::Pool<PostgresConnectionManager<NoTls>>,
}

/// Everything a case works with.
struct Case<'a> {
    lane: &'a Tables,
    shape: Shape,
    queries: String,
    engine: Engine,
    by_relation: bool,
    state: State,
    stored: Stored,
    drawn: Drawn,
    rng: Rng,
    /// Files that tell of the case if it fails.
    files: Vec<(String, String)>,
}

/// How a night went.
enum Went {
    On,
    /// Documents were refused: the case ends here.
    Refused,
}

impl Lane for Tables {
    const CASES: u64 = 100;

    async fn open() -> Self {
        let database = db().await;
        let mut client = database.client().await;
        rowdelta::postgres::install::install(&mut client).await.expect("install the schema");
        let setup = format!("{WATCH} CREATE SCHEMA judged; {QUICK}; SET client_min_messages = warning");
        client.batch_execute(&setup).await.expect("install the counter");
        let manager =
            PostgresConnectionManager::new_from_stringlike(database.url(), NoTls).expect("a valid URL");
        let pool = bb8::Pool::builder().max_size(4).build(manager).await.expect("connect");
        Tables { _database: database, client, pool }
    }

    /// What a failed case was made of stays in a directory.
    async fn play(&self, seed: u64) -> Result<Drawn> {
        let mut files = Vec::new();
        match self.nights(seed, &mut files).await {
            Ok(drawn) => Ok(drawn),
            Err(error) => {
                let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("constraints").join(seed.to_string());
                let write = |(name, text): &(String, String)| std::fs::write(dir.join(name), text);
                let kept = std::fs::create_dir_all(&dir).and_then(|()| files.iter().try_for_each(write));
                kept.map_err(|error| error.to_string())?;
                Err(format!("seed {seed}: {error}\nmapping, schema and feeds: {}", dir.display()))
            }
        }
    }
}

impl Tables {
    async fn nights(&self, seed: u64, files: &mut Vec<(String, String)>) -> Result<Drawn> {
        let mut rng = Rng::with_seed(seed);
        let mut drawn = Drawn::default();
        let shape = Shape::draw(&mut rng, major(), &mut drawn);
        files.push(("schema.sql".into(), shape.ddl(Purpose::Real)));
        let mut toml = shape.toml();
        let by_relation = is_by_relation(seed);
        if by_relation {
            drawn.note("relation by relation");
            toml += BY_RELATION;
        }
        files.push(("mapping.toml".into(), toml.clone()));
        let state = change::first(&mut rng, &shape);
        self.prepare(&shape).await?;
        let queries = stored::queries(&shape);
        let (workers, documents) = (rng.usize(1..4), rng.usize(1..4));
        files.push(("engine.txt".into(), format!("{workers} workers, {documents} documents a batch\n")));
        let engine = self.engine(&toml, workers, documents).await?;
        let stored = Stored::read(&self.client, &shape, &queries).await?;
        let empty = State::new(&shape);
        let mut case = Case {
            lane: self,
            shape,
            queries,
            engine,
            by_relation,
            state: empty,
            stored,
            drawn,
            rng,
            files: Vec::new(),
        };
        let played = case.play(state).await;
        files.append(&mut case.files);
        played.map(|()| case.drawn)
    }

    /// Makes the tables, and their twins for the judge.
    async fn prepare(&self, shape: &Shape) -> Result<()> {
        let sql = format!(
            "DROP SCHEMA public, judged CASCADE; CREATE SCHEMA public; CREATE SCHEMA judged;
             SET search_path = public; {}{}
             SET search_path = judged; {}
             SET search_path = public; DELETE FROM rowdelta.mapping; DELETE FROM watch.write",
            shape.ddl(Purpose::Real),
            stored::triggers(shape),
            shape.ddl(Purpose::Judged)
        );
        self.client.batch_execute(&sql).await.map_err(|error| describe(&error))
    }

    /// An engine whose batches are so small that changes cross them.
    async fn engine(&self, toml: &str, workers: usize, documents: usize) -> Result<Engine> {
        let mapping = Mapping::from_toml(toml).map_err(|error| format!("{error}\n{toml}"))?;
        let builder = Engine::builder(mapping).workers(workers).batch_documents_max(documents);
        builder.build(self.pool.clone()).await.map_err(|error| error.to_string())
    }

    /// Whether PostgreSQL accepts the state as a whole.
    async fn accepts(&self, shape: &Shape, state: &State) -> bool {
        let inserts = state.inserts(shape);
        let sql = format!(
            "BEGIN; SET LOCAL search_path = judged; {inserts} SET CONSTRAINTS ALL IMMEDIATE; ROLLBACK"
        );
        let accepted = self.client.batch_execute(&sql).await.is_ok();
        if !accepted {
            self.client.batch_execute("ROLLBACK").await.expect("end a transaction");
        }
        accepted
    }
}

impl Case<'_> {
    async fn play(&mut self, first: State) -> Result<()> {
        if !self.lane.accepts(&self.shape, &first).await {
            self.drawn.count("states refused by the judge", 1);
            return Ok(());
        }
        let all = first.rows[0].iter().map(|row| row.number).collect();
        if let Went::Refused = self.night(first, &all, 0).await? {
            return Ok(());
        }
        let nights = self.rng.usize(1..4);
        for night in 1..=nights {
            let Some((after, documents)) = self.draw().await else { continue };
            let went = self.night(after, &documents, night).await;
            if let Went::Refused = went.map_err(|error| format!("night {night}: {error}"))? {
                break;
            }
        }
        Ok(())
    }

    /// Draws what a night's feed says, and which documents are in it.
    async fn draw(&mut self) -> Option<(State, BTreeSet<Row>)> {
        let all = self.state.rows[0].iter().map(|row| row.number);
        let absent = chance(&mut self.rng, 25);
        let mut documents: BTreeSet<Row> = all.collect();
        if absent && documents.len() > 1 {
            documents.retain(|_| chance(&mut self.rng, 60));
        }
        for _ in 0..4 {
            let mut night = Night { shape: &self.shape, rng: &mut self.rng, documents: documents.clone() };
            let (after, kinds) = night.draw(&self.state);
            let present = night.documents;
            if kinds.is_empty() {
                continue;
            }
            if !self.lane.accepts(&self.shape, &after).await {
                self.drawn.count("states refused by the judge", 1);
                continue;
            }
            kinds.into_iter().for_each(|kind| self.drawn.note(kind));
            if present.len() < after.rows[0].len() {
                self.drawn.note("documents not in the feed");
            }
            return Some((after, present));
        }
        None
    }

    async fn night(&mut self, after: State, documents: &BTreeSet<Row>, night: usize) -> Result<Went> {
        let feed = self.feed(&after, documents);
        let lines: String = feed.iter().map(|text| text.clone() + "\n").collect();
        self.files.push((format!("night-{night}.ndjson"), lines));
        let numbered = after.numbered_as(&self.shape, &self.state);
        self.drawn.count("nights", u64::from(night > 0));
        let report = match self.sync(&feed).await {
            Ok(report) => report,
            Err(SyncError::Failed(report)) => {
                let present = |row: &&Entry| documents.contains(&row.number);
                let roots = after.rows[0].iter().zip(&numbered.rows[0]).filter(|(row, _)| present(row));
                let documents = roots.map(|(_, row)| row.number).collect();
                return self.refused(&feed, &numbered, &documents, &report).await;
            }
            Err(error) => return Err(error.to_string()),
        };
        let stored = self.read().await?;
        self.compare(&numbered, &stored)?;
        self.compare_writes(&numbered, &stored, &report)?;
        if let Some(lost) = stored.lost_ids(&self.stored) {
            return Err(format!("a row that stayed lost its id: {lost}"));
        }
        self.note_rows(&numbered);
        (self.state, self.stored) = (numbered, stored);
        // A run costs more for reading the catalog than for all else.
        if chance(&mut self.rng, if night > 0 { 50 } else { 10 }) {
            self.again(&feed).await?;
        }
        Ok(Went::On)
    }

    async fn read(&self) -> Result<Stored> {
        Stored::read(&self.lane.client, &self.shape, &self.queries).await
    }

    /// The documents in some order.
    fn feed(&mut self, state: &State, documents: &BTreeSet<Row>) -> Vec<String> {
        let roots = state.rows[0].iter().filter(|row| documents.contains(&row.number));
        let mut feed: Vec<String> =
            roots.map(|root| state.document_json(&self.shape, root).to_string()).collect();
        self.rng.shuffle(&mut feed);
        feed
    }

    async fn sync(&self, feed: &[String]) -> std::result::Result<Report, SyncError> {
        let document = |(at, text): (usize, &String)| -> FeedItem {
            let origin = Origin { file: None, line: at as u64 + 1, item: None };
            Ok(Document { bytes: text.clone().into_bytes().into(), origin })
        };
        let items: Vec<FeedItem> = feed.iter().enumerate().map(document).collect();
        self.engine.sync(futures_util::stream::iter(items)).await
    }

    fn compare(&self, expected: &State, stored: &Stored) -> Result<()> {
        let expected = expected.lines(&self.shape);
        if expected == stored.lines {
            return Ok(());
        }
        let beyond = |these: &[Line], those: &[Line]| -> String {
            these.iter().filter(|line| !those.contains(line)).map(|line| format!("\n  {line}")).collect()
        };
        let (missing, wrong) = (beyond(&expected, &stored.lines), beyond(&stored.lines, &expected));
        Err(format!("not stored:{missing}\nstored, but not expected:{wrong}"))
    }

    /// The smallest edit was written, beside what the report says was parked.
    fn compare_writes(&mut self, after: &State, stored: &Stored, report: &Report) -> Result<()> {
        let changes = self.state.changes(after);
        let smallest = edits(&self.shape, &changes);
        let reported = reported(&self.shape, report);
        let beyond = |(least, written): (&Edit, &Edit)| {
            (least.inserted == written.inserted && least.deleted == written.deleted)
                .then(|| written.updated.checked_sub(least.updated))
                .flatten()
        };
        let beyond: Option<u64> = smallest.iter().zip(&stored.written).map(beyond).sum();
        if beyond != Some(report.parked) || smallest != reported {
            let written = &stored.written;
            let parked = report.parked;
            return Err(format!(
                "the smallest edit is {smallest:?}\nwritten was      {written:?}\nreported         {reported:?}, {parked} parked"
            ));
        }
        if report.parked > 0 {
            let circles = circles(&self.shape, &changes, 1000);
            let onlookers = onlookers(&self.shape, after, &changes);
            if report.parked > circles + 2 * onlookers {
                let parked = report.parked;
                return Err(format!(
                    "{parked} writes were parked, for {circles} circles and {onlookers} rows that look on"
                ));
            }
            self.drawn.note("nights: parked");
            self.drawn.count("parked writes", report.parked);
        }
        Ok(())
    }

    /// Notes what a state holds.
    fn note_rows(&mut self, state: &State) {
        for (relation, rows) in self.shape.relations.iter().zip(&state.rows) {
            if relation.key().any(|at| rows.iter().any(|row| row.cells[at].is_none())) {
                self.drawn.note("null key");
            }
        }
        if let Some((one, other)) = self.shape.cycle() {
            let refers =
                |from: (usize, usize)| state.rows[from.0].iter().any(|row| row.cells[from.1].is_some());
            if refers(one.from) && refers(other.from) {
                self.drawn.note("cycle of tables");
            }
        }
    }

    /// The same documents once more write nothing: as they are, in other words, or though nothing is known of them.
    async fn again(&mut self, feed: &[String]) -> Result<()> {
        let mut feed = feed.to_vec();
        match self.rng.u32(0..3) {
            0 => {}
            1 => feed.iter_mut().for_each(|text| *text = text.replace(':', ": ")),
            _ => {
                let unsettle = "SELECT rowdelta.unsettle_all(id) FROM rowdelta.mapping";
                self.lane.client.batch_execute(unsettle).await.map_err(|error| describe(&error))?;
            }
        }
        let report = self.sync(&feed).await.map_err(|error| format!("once more: {error}"))?;
        let written = self.read().await?.written;
        let nothing = written.iter().all(|edit| *edit == Edit::default());
        if !nothing || report.documents.unchanged != report.documents.read {
            return Err(format!("once more: written was {written:?}\nreported {report:#?}"));
        }
        Ok(())
    }

    /// Documents were refused although all can be stored together. No order of writes may lead there, and the others
    /// must be in.
    async fn refused(
        &mut self,
        feed: &[String],
        after: &State,
        documents: &BTreeSet<Row>,
        report: &Report,
    ) -> Result<Went> {
        let error = SyncError::Failed(Box::new(report.clone())).to_string();
        let labels: BTreeSet<&str> =
            report.failures.iter().filter_map(|failure| failure.document.as_deref()).collect();
        let failed: BTreeSet<Row> = after.rows[0]
            .iter()
            .filter(|root| documents.contains(&root.number) && labels.contains(self.label(root).as_str()))
            .map(|root| root.number)
            .collect();
        if failed.len() != labels.len() {
            return Err(format!("a document is not named: {error}"));
        }
        let done: BTreeSet<Row> = documents.difference(&failed).copied().collect();
        let mixed = self.state.with(&self.shape, after, &done);
        let stored = self.read().await?;
        let compared = self.compare(&mixed, &stored);
        // From there the others' rows are gone that these may not take any more.
        let starts = if compared.is_ok() { 2 } else { 1 };
        let starts: Vec<State> = [&self.state, &mixed].into_iter().take(starts).cloned().collect();
        match compared {
            // Rows that others might take are removed in a transaction of their own: a document of which that is
            // refused, or left for the next run, is in but for it, and said to be unsettled.
            Err(_) if report.documents.unsettled > 0 => self.drawn.note(REFUSED_IN_PART),
            // Which relations of the refused documents are in cannot be told here.
            Err(_) if self.by_relation => {}
            compared => {
                compared.map_err(|differs| format!("{error}\nbut the others are not in: {differs}"))?
            }
        }
        if let Some(order) = self.order(&starts, after).await? {
            return Err(format!("{error}\nbut this order works:\n{}", order.join(";\n")));
        }
        if self.sync(feed).await.is_ok() {
            // Rows of other relations, stored the first time, may have been what a parked value needed.
            if self.by_relation {
                self.drawn.note(REFUSED_THOUGH);
                return Ok(Went::Refused);
            }
            return Err(format!("{error}\nbut the same feed once more succeeds"));
        }
        // Where the others are not in as they are meant to be, there was no such state.
        match self.detours(starts.last().unwrap_or(&mixed), after).await? {
            Some(steps) if variable("ROWDELTA_CONSTRAINT_STRICT", 0) > 0 => {
                return Err(format!("{error}\nbut with a value parked it works:\n{}", steps.join(";\n")));
            }
            Some(_) => self.drawn.note(REFUSED_THOUGH),
            None => self.drawn.note(REFUSED),
        }
        if std::env::var_os("ROWDELTA_CONSTRAINT_REFUSALS").is_some() {
            let changes = mixed.changes(after);
            let statements: Vec<String> =
                changes.iter().map(|change| change.statement(&self.shape)).collect();
            let before = mixed.inserts(&self.shape);
            println!("{error}\n{}{before}\n{}\n\n", self.shape.ddl(Purpose::Named), statements.join(";\n"));
        }
        Ok(Went::Refused)
    }

    /// An order of writes that leads to all documents, from the start of the night or from where the others are in.
    async fn order(&mut self, starts: &[State], after: &State) -> Result<Option<Vec<String>>> {
        for from in starts {
            let ends = (from, after);
            if let Some(steps) = detours::search(&self.shape, ends, 0) {
                if orders::confirms(&self.lane.client, &self.shape, ends, &steps).await? {
                    return Ok(Some(steps.iter().map(|step| step.statement(&self.shape)).collect()));
                }
            }
            if from.changes(after).len() > orders::CHANGES_MAX {
                self.drawn.count("refused: too many changes to try all orders", 1);
            } else if let Some(order) = orders::search(&self.lane.client, &self.shape, ends).await? {
                return Ok(Some(order));
            }
        }
        Ok(None)
    }

    /// Steps that lead to all documents with one or two writes more than the smallest edit.
    async fn detours(&self, mixed: &State, after: &State) -> Result<Option<Vec<String>>> {
        for many in 1..3 {
            let Some(steps) = detours::search(&self.shape, (mixed, after), many) else { continue };
            if orders::confirms(&self.lane.client, &self.shape, (mixed, after), &steps).await? {
                return Ok(Some(steps.iter().map(|step| step.statement(&self.shape)).collect()));
            }
        }
        Ok(None)
    }

    /// What the report calls a document.
    fn label(&self, root: &Entry) -> String {
        let relation = &self.shape.relations[0];
        let word = |at: usize| match root.cells[at] {
            None => "NULL".to_owned(),
            Some(value) => relation.columns[at].ty.print(value),
        };
        relation.with_role(Role::Key).map(word).collect::<Vec<_>>().join(",")
    }
}

/// What the report says was written, per relation.
fn reported(shape: &Shape, report: &Report) -> Vec<Edit> {
    let edit = |relation: &Relation| {
        let counts = report.relations.iter().find(|counts| counts.table == relation.table);
        counts.map_or(Edit::default(), |counts| Edit {
            inserted: counts.added,
            updated: counts.updated + counts.moved,
            deleted: counts.removed,
        })
    };
    shape.relations.iter().map(edit).collect()
}

fn major() -> u32 {
    crate::support::cluster::cluster().major
}

impl State {
    /// This state, with the documents given as they are in another, and what they took from others.
    fn with(&self, shape: &Shape, after: &State, done: &BTreeSet<Row>) -> State {
        let mut mixed = self.clone();
        done.iter().for_each(|&document| mixed.remove(shape, 0, document));
        for rel in 0..shape.relations.len() {
            let of_done = |row: &&Entry| done.contains(&after.document(shape, rel, row.number));
            let rows: Vec<Entry> = after.rows[rel].iter().filter(of_done).cloned().collect();
            rows.iter().for_each(|row| mixed.remove(shape, rel, row.number));
            mixed.rows[rel].extend(rows);
        }
        mixed
    }
}
