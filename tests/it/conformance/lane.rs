//! Plays cases one after the other in one database.

use std::collections::BTreeMap;
use std::time::Duration;

use bb8_postgres::PostgresConnectionManager;
use rowdelta::document::{Document, Origin};
use rowdelta::engine::report::{Failure, Report, SyncError};
use rowdelta::engine::{Engine, FeedItem};
use rowdelta::mapping::Mapping;
use rowdelta::postgres::install;
use similar::TextDiff;
use tokio_postgres::{Client, NoTls};

use super::Outcome;
use super::case::{Case, Feed, Refusal, Writes};
use super::rows::{Before, Rows, fits, values};
use crate::support::cluster::cluster;
use crate::support::database::{Database, db, describe, rows};

type Result<T> = std::result::Result<T, String>;
type Tables = BTreeMap<String, Rows>;
type Counts = BTreeMap<String, Writes>;

/// A case that takes longer hangs.
const CASE_MAX: Duration = Duration::from_secs(60);

/// Counts the rows written in each table, cascades included. AFTER triggers change nothing by being there.
const COUNTER: &str = "
    CREATE SCHEMA conformance;
    CREATE TABLE conformance.write (tab text, op text);
    CREATE FUNCTION conformance.count_write() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN INSERT INTO conformance.write VALUES (TG_ARGV[0], TG_OP); RETURN NULL; END $$;
    SET TimeZone = 'UTC'; SET DateStyle = 'ISO'; SET client_min_messages = warning";

const FRESH: &str =
    "DROP SCHEMA IF EXISTS public CASCADE; CREATE SCHEMA public; DELETE FROM rowdelta.mapping;";

/// New ids come after those of the rows put there.
const SEQUENCES: &str = "
    DO $$ DECLARE c record; last bigint; BEGIN
      FOR c IN SELECT a.attrelid::regclass tab, a.attname col,
                      pg_get_serial_sequence(a.attrelid::regclass::text, a.attname) seq
                 FROM pg_attribute a JOIN pg_class t ON t.oid = a.attrelid
                WHERE t.relnamespace = 'public'::regnamespace AND t.relkind IN ('r', 'p') AND a.attnum > 0
                      AND NOT a.attisdropped LOOP
        CONTINUE WHEN c.seq IS NULL;
        EXECUTE format('SELECT max(%I) FROM %s', c.col, c.tab) INTO last;
        PERFORM setval(c.seq, last) WHERE last IS NOT NULL;
      END LOOP; END $$";

const TRIGGERS: &str = "
    DO $$ DECLARE t record; BEGIN
      FOR t IN SELECT oid::regclass tab, relname FROM pg_class
                WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition LOOP
        EXECUTE format('CREATE TRIGGER conformance AFTER INSERT OR UPDATE OR DELETE ON %s
                        FOR EACH ROW EXECUTE FUNCTION conformance.count_write(%L)', t.tab, t.relname);
      END LOOP; END $$";

const TABLES: &str = "
    SELECT t.relname, a.attname FROM pg_class t JOIN pg_attribute a ON a.attrelid = t.oid
     WHERE t.relnamespace = 'public'::regnamespace AND t.relkind IN ('r', 'p') AND NOT t.relispartition
           AND a.attnum > 0 AND NOT a.attisdropped
     ORDER BY t.relname, a.attnum";

/// A database for one case after the other.
pub struct Lane {
    database: Database,
    client: Client,
}

impl Lane {
    pub async fn open() -> Self {
        let database = db().await;
        install::install(&mut database.client().await).await.expect("install the schema");
        let client = database.client().await;
        client.batch_execute(COUNTER).await.expect("install the counter");
        Lane { database, client }
    }

    /// Plays one case.
    pub async fn play(&self, case: &Case) -> Outcome {
        if let Some(lack) = self.lacks(case).await {
            return Outcome::Skipped(lack);
        }
        let played = tokio::time::timeout(CASE_MAX, self.whole(case)).await;
        match played.unwrap_or_else(|_| Err(format!("not done after {} s", CASE_MAX.as_secs()))) {
            Ok(()) => Outcome::AsExpected,
            Err(error) => Outcome::Failed(error),
        }
    }

    async fn lacks(&self, case: &Case) -> Option<String> {
        if cluster().major < case.requires {
            return Some(format!("PostgreSQL {}", case.requires));
        }
        for need in &case.needs {
            let sql = match need.as_str() {
                "icu" => "SELECT EXISTS (SELECT FROM pg_collation WHERE collprovider = 'i')".to_owned(),
                name => format!("SELECT EXISTS (SELECT FROM pg_available_extensions WHERE name = '{name}')"),
            };
            if self.database.value(&sql).await == "f" {
                return Some(need.clone());
            }
        }
        None
    }

    async fn whole(&self, case: &Case) -> Result<()> {
        self.run("a fresh start", FRESH).await?;
        self.run("ddl", &case.ddl).await?;
        self.run("stored", &case.stored).await?;
        self.run("sequences", SEQUENCES).await?;
        self.run("triggers", TRIGGERS).await?;
        let engine = self.engine(case).await;
        if let Some(part) = &case.refused_mapping {
            return match engine {
                Ok(_) => Err(format!("the mapping was taken, but: {part}")),
                Err(error) if error.contains(part) => Ok(()),
                Err(error) => Err(format!("the mapping is refused otherwise than by {part:?}:\n{error}")),
            };
        }
        let engine = engine?;
        for (night, feed) in case.feeds.iter().enumerate() {
            let played = self.night(&engine, feed).await;
            played.map_err(|error| {
                if case.feeds.len() > 1 { format!("feed {}: {error}", night + 1) } else { error }
            })?;
        }
        Ok(())
    }

    async fn engine(&self, case: &Case) -> Result<Engine> {
        let mapping = Mapping::from_toml(&case.mapping).map_err(|error| error.to_string())?;
        let manager = PostgresConnectionManager::new_from_stringlike(self.database.url(), NoTls);
        let manager = manager.map_err(|error| error.to_string())?;
        let pool =
            bb8::Pool::builder().max_size(2).build(manager).await.map_err(|error| error.to_string())?;
        let builder = Engine::builder(mapping).workers(1).batch_documents_max(case.batch.unwrap_or(500));
        builder.lock_timeout(Duration::from_secs(2)).build(pool).await.map_err(|error| error.to_string())
    }

    /// One feed, and the same once more: the second time nothing is written.
    async fn night(&self, engine: &Engine, feed: &Feed) -> Result<()> {
        self.run("before", &feed.before).await?;
        let before = values(&self.tables().await?);
        self.take().await?;
        let report = sync(engine, feed).await?;
        let mut wrong = vec![refusals(&feed.refused, &report.failures)];
        wrong.push(self.check_rows(feed, &before).await?);
        wrong.push(compare_writes((&feed.writes, feed.parked), (&self.take().await?, parked(&report))));
        let wrong: String = wrong.into_iter().flatten().collect();
        if !wrong.is_empty() {
            return Err(wrong);
        }
        let report = sync(engine, feed).await?;
        let again = compare_writes((&Counts::new(), 0), (&self.take().await?, parked(&report)));
        let again = [again, refusals(&feed.refused, &report.failures)].into_iter().flatten();
        let again: String = again.map(|wrong| format!("the same feed again: {wrong}")).collect();
        if again.is_empty() { Ok(()) } else { Err(again) }
    }

    async fn run(&self, what: &str, sql: &str) -> Result<()> {
        self.client.batch_execute(sql).await.map_err(|error| format!("{what}: {}", describe(&error)))
    }

    async fn query(&self, sql: &str) -> Result<Vec<Vec<Option<String>>>> {
        rows(&self.client, sql).await
    }

    /// All tables with all their rows.
    async fn tables(&self) -> Result<Tables> {
        let mut columns: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for row in self.query(TABLES).await? {
            let [table, column] = row.try_into().map_err(|row| format!("{row:?}"))?;
            columns.entry(table.unwrap_or_default()).or_default().push(column.unwrap_or_default());
        }
        let mut tables = Tables::new();
        for (table, columns) in columns {
            let rows = self.query(&format!("SELECT * FROM public.\"{table}\"")).await?;
            tables.insert(table, Rows::stored(columns, rows));
        }
        Ok(tables)
    }

    async fn check_rows(&self, feed: &Feed, before: &Before) -> Result<Option<String>> {
        let expected: Tables =
            feed.rows.iter().map(|(table, text)| (table.clone(), Rows::parse(text))).collect();
        let found = self.tables().await?;
        Ok((!fits(&expected, &found, before)).then(|| difference(&expected, &found)))
    }

    /// The rows written, in committed transactions, since the last call.
    async fn take(&self) -> Result<Counts> {
        let sql = "WITH taken AS (DELETE FROM conformance.write RETURNING *)
                   SELECT tab, count(*) FILTER (WHERE op = 'INSERT'), count(*) FILTER (WHERE op = 'UPDATE'),
                          count(*) FILTER (WHERE op = 'DELETE') FROM taken GROUP BY tab";
        let mut counts = Counts::new();
        for row in self.query(sql).await? {
            let [table, inserted, updated, deleted] = row.try_into().map_err(|row| format!("{row:?}"))?;
            let count = |text: Option<String>| text.unwrap_or_default().parse().expect("a count");
            let writes =
                Writes { inserted: count(inserted), updated: count(updated), deleted: count(deleted) };
            counts.insert(table.unwrap_or_default(), writes);
        }
        Ok(counts)
    }
}

/// The report, whether or not documents failed.
async fn sync(engine: &Engine, feed: &Feed) -> Result<Report> {
    let lines = feed.documents.lines().filter(|line| !line.trim().is_empty());
    let document = |(at, line): (usize, &str)| -> FeedItem {
        let origin = Origin { file: None, line: at as u64 + 1, item: None };
        Ok(Document { bytes: line.as_bytes().to_vec().into(), origin })
    };
    let items: Vec<FeedItem> = lines.enumerate().map(document).collect();
    match engine.sync(futures_util::stream::iter(items)).await {
        Ok(report) => Ok(report),
        Err(SyncError::Failed(report)) => Ok(*report),
        Err(error) => Err(format!("{error}\n")),
    }
}

/// Updates to temporary values, as the engine counts them.
fn parked(report: &Report) -> u64 {
    let report = serde_json::to_value(report).expect("a report is JSON");
    report["parked"].as_u64().unwrap_or(0)
}

/// What differs between the documents that were to be refused and those that were.
fn refusals(expected: &[Refusal], found: &[Failure]) -> Option<String> {
    let mut left: Vec<&Failure> = found.iter().collect();
    let mut wrong = String::new();
    for refusal in expected {
        match left.iter().position(|failure| is_that(refusal, failure)) {
            Some(at) => drop(left.remove(at)),
            None => wrong += &format!("not refused, or not so: {refusal:?}\n"),
        }
    }
    left.iter().for_each(|failure| wrong += &format!("refused: {failure}\n"));
    (!wrong.is_empty()).then_some(wrong)
}

fn is_that(refusal: &Refusal, failure: &Failure) -> bool {
    failure.document.as_ref() == Some(&refusal.document)
        && (refusal.sqlstate.is_none() || failure.sqlstate == refusal.sqlstate)
        && failure.message.contains(&refusal.message)
        && (refusal.relation.is_none() || failure.relation == refusal.relation)
}

fn compare_writes(expected: (&Counts, u64), found: (&Counts, u64)) -> Option<String> {
    let words = |(counts, parked): (&Counts, u64)| {
        let line = |(table, writes): (&String, &Writes)| {
            let Writes { inserted, updated, deleted } = writes;
            format!("{table}: {inserted} inserted, {updated} updated, {deleted} deleted\n")
        };
        counts.iter().map(line).chain([format!("{parked} parked\n")]).collect::<String>()
    };
    let (expected, found) = (words(expected), words(found));
    (expected != found).then(|| format!("rows written:\n{}", diff(&expected, &found)))
}

/// The tables that are not as expected.
fn difference(expected: &Tables, found: &Tables) -> String {
    let mut names: Vec<&String> = expected.keys().chain(found.keys()).collect();
    names.sort();
    names.dedup();
    let lines = |tables: &Tables, name: &String| tables.get(name).map(Rows::lines).unwrap_or_default();
    let table = |name: &String| {
        let (expected, found) = (lines(expected, name), lines(found, name));
        (expected != found).then(|| format!("table {name}:\n{}", diff(&expected, &found)))
    };
    names.into_iter().filter_map(table).collect()
}

/// Lines that are missing, and lines that are there instead.
fn diff(expected: &str, found: &str) -> String {
    let diff = TextDiff::from_lines(expected, found);
    diff.iter_all_changes().map(|change| format!("  {} {change}", change.tag())).collect()
}
