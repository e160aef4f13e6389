//! What the tables should hold, worked out a second time, without the crate.
//!
//! Too simple to be wrong, it is hoped: PostgreSQL itself takes the documents' JSON
//! apart and casts every scalar's text to the column's type, by assignment, as an
//! INSERT would. Rows are then compared by *natural identity*: a row is found by
//! its key below its parent's, a catalogue row by its key; no surrogate id is
//! looked at. Nothing here imports the crate `rowdelta`.
//!
//! Values are compared in the comparison form that DESIGN.md fixes: `numeric`
//! without a scale trimmed, `jsonb` by its own `=`, all else by its text.
//!
//! - [`check`] compares tables with one feed.
//! - [`State`] remembers feed after feed, since a list that is absent keeps what is
//!   stored; and knows the [`Edit`] from the night before, the least that must be written.
//! - [`Writes`] counts by triggers what was really written.
//!
//! Documents are given as text, so that numbers stay exact.

mod mapping;
mod sql;
mod values;

use std::collections::BTreeMap;
use std::path::Path;

use futures_util::SinkExt;
use tokio_postgres::Client;

use crate::support::database::{describe, rows};
pub use mapping::Mapping;
use sql::Statements;
use values::{Type, Types, literal};

type Result<T> = std::result::Result<T, String>;

/// Rows written in one table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Edit {
    pub inserted: u64,
    pub updated: u64,
    pub deleted: u64,
}

/// Rows written by table; tables without any are left out.
pub type Edits = BTreeMap<String, Edit>;

/// Compares the tables of a mapping with what one feed makes of empty ones.
pub async fn check(client: Client, mapping: &Path, docs: &[String]) -> Result<()> {
    let state = State::open(client, mapping).await?;
    state.feed(docs).await?;
    state.check().await
}

/// What the tables should hold after all feeds so far, kept in the database's schema `oracle`.
pub struct State {
    client: Client,
    pub(crate) mapping: Mapping,
    types: Types,
}

impl State {
    /// Goes on from what the schema `oracle` holds. The connection becomes the oracle's own.
    ///
    /// Call it before the first sync: catalogue rows that are there already are expected to stay.
    pub async fn open(client: Client, mapping: &Path) -> Result<Self> {
        let text =
            std::fs::read_to_string(mapping).map_err(|error| format!("{}: {error}", mapping.display()))?;
        let mapping = mapping::parse(&text)?;
        let types = types(&client, &mapping).await?;
        let state = Self { client, mapping, types };
        state.run("SET TimeZone = 'UTC'; SET DateStyle = ISO; SET client_min_messages = warning").await?;
        state.run("SET jit = off; SET work_mem = '64MB'").await?;
        state.run("CREATE SCHEMA IF NOT EXISTS oracle").await?;
        state.run(values::FUNCTIONS).await?;
        state
            .run(
                "CREATE TABLE IF NOT EXISTS oracle.catalogue (name text, key jsonb, PRIMARY KEY (name, key))",
            )
            .await?;
        for relation in &state.mapping.relations {
            let table = sql::expected(relation);
            state
                .run(&format!("CREATE TABLE IF NOT EXISTS {table} (id jsonb, pid jsonb, cols jsonb)"))
                .await?;
        }
        for (name, key, table) in state.catalogues() {
            let known = format!("SELECT FROM oracle.catalogue WHERE name = {name}");
            let add = format!(
                "INSERT INTO oracle.catalogue SELECT {name}, {key} FROM {table} l WHERE NOT EXISTS ({known})"
            );
            state.run(&add).await?;
        }
        Ok(state)
    }

    /// Takes one feed in. All its documents must be good ones.
    pub async fn feed(&self, docs: &[String]) -> Result<()> {
        self.load(docs).await?;
        self.run("DROP TABLE IF EXISTS oracle.catalogue_before; CREATE TABLE oracle.catalogue_before AS TABLE oracle.catalogue")
            .await?;
        for statements in self.statements() {
            let (before, expected) =
                (sql::before(statements.relation()), sql::expected(statements.relation()));
            self.run(&format!("DROP TABLE IF EXISTS {before}; CREATE TABLE {before} AS TABLE {expected}"))
                .await?;
            self.run(&statements.items()).await?;
            self.run(&statements.typed()).await?;
            self.run(&statements.rename()).await?;
            self.run(&statements.rows()).await?;
            for query in statements.conflicts() {
                if let Some(row) = self.rows(&query).await?.first() {
                    return Err(format!(
                        "{}: rows of one identity differ: {row:?}",
                        statements.relation().name
                    ));
                }
            }
            self.run(&statements.references()).await?;
        }
        for statements in self.statements() {
            self.run(&statements.advance()).await?;
        }
        Ok(())
    }

    /// Takes out the documents that the last feed did not have: it was complete.
    pub async fn only_the_last_feed(&self) -> Result<()> {
        for (at, relation) in self.mapping.relations.iter().enumerate() {
            let expected = sql::expected(relation);
            let (column, of) = match relation.enclosing {
                None => ("id", format!("oracle.r{at}")),
                Some(outer) => ("pid", sql::expected(&self.mapping.relations[outer])),
            };
            self.run(&format!("DELETE FROM {expected} WHERE {column} NOT IN (SELECT id FROM {of})")).await?;
        }
        Ok(())
    }

    /// Compares the tables with what they should hold. The error says per relation how many rows are
    /// missing, how many are there that should not be, and names some.
    pub async fn check(&self) -> Result<()> {
        let mut faults = Vec::new();
        for statements in self.statements() {
            self.run(&statements.actual()).await?;
            let relation = statements.relation();
            let difference = self.rows(&statements.difference()).await?;
            let cell = |row: &[Option<String>], at: usize| row[at].clone().unwrap_or_default();
            let (missing, unexpected) = (cell(&difference[0], 1), cell(&difference[0], 2));
            if (missing.as_str(), unexpected.as_str()) != ("0", "0") {
                let head = format!(
                    "{} ({}): {missing} missing, {unexpected} unexpected",
                    relation.table, relation.name
                );
                let examples = difference[1..].iter().map(|row| {
                    format!("  {} {} {}", cell(row, 0), cell(row, 1), cell(row, 2)).trim_end().to_owned()
                });
                faults.extend(std::iter::once(head).chain(examples));
            }
        }
        faults.extend(self.check_catalogues().await?);
        if faults.is_empty() { Ok(()) } else { Err(faults.join("\n")) }
    }

    /// The least that has to be written for the last feed: from the rows before it to the rows after it.
    pub async fn smallest_edit(&self) -> Result<Edits> {
        let mut edits = Edits::new();
        for statements in self.statements() {
            let row = self.rows(&statements.smallest_edit()).await?.remove(0);
            let number = |at: usize| row[at].as_ref().and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
            let edit = edits.entry(statements.relation().table.clone()).or_default();
            edit.inserted += number(0);
            edit.updated += number(1);
            edit.deleted += number(2);
        }
        for lookup in &self.mapping.lookups {
            let new = "SELECT count(*) FROM (TABLE oracle.catalogue EXCEPT TABLE oracle.catalogue_before) x WHERE name =";
            let count = self.rows(&format!("{new} {}", literal(&lookup.name))).await?;
            let count = count[0][0].as_ref().and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
            edits.entry(lookup.table.clone()).or_default().inserted += count;
        }
        edits.retain(|_, edit| *edit != Edit::default());
        Ok(edits)
    }

    /// Statements that fill empty tables with the expected rows: only to check the oracle itself.
    pub fn fill(&self) -> Vec<String> {
        let catalogues = self.mapping.lookups.iter().map(|lookup| sql::fill_catalogue(&self.types, lookup));
        catalogues.chain(self.statements().flat_map(|statements| statements.fill())).collect()
    }

    async fn check_catalogues(&self) -> Result<Vec<String>> {
        let mut faults = Vec::new();
        for (name, key, table) in self.catalogues() {
            let stored = format!("SELECT {key} FROM {table} l");
            let expected = format!("SELECT key FROM oracle.catalogue WHERE name = {name}");
            for (what, one, other) in [("missing", &expected, &stored), ("unexpected", &stored, &expected)] {
                let found = self.rows(&format!("{one} EXCEPT ALL {other} LIMIT 3")).await?;
                faults.extend(found.iter().map(|row| format!("catalogue {table}: {what} {row:?}")));
            }
        }
        Ok(faults)
    }

    /// Per catalogue: its name as a literal, the expression of its key, its table.
    fn catalogues(&self) -> Vec<(String, String, String)> {
        let one = |lookup: &mapping::Lookup| {
            let key = sql::catalogue_key(&self.types, &lookup.table, &lookup.key);
            (literal(&lookup.name), key, sql::table(&lookup.table))
        };
        self.mapping.lookups.iter().map(one).collect()
    }

    fn statements(&self) -> impl Iterator<Item = Statements<'_>> {
        (0..self.mapping.relations.len()).map(|at| Statements {
            mapping: &self.mapping,
            types: &self.types,
            at,
        })
    }

    /// One row a document, by COPY. A CSV whose quote and delimiter no JSON text contains needs no escaping.
    async fn load(&self, docs: &[String]) -> Result<()> {
        self.run("DROP TABLE IF EXISTS oracle.document").await?;
        let columns = "line bigint GENERATED ALWAYS AS IDENTITY, doc text";
        self.run(&format!("CREATE UNLOGGED TABLE oracle.document ({columns})")).await?;
        let copy = r"COPY oracle.document (doc) FROM STDIN (FORMAT csv, QUOTE E'\x01', DELIMITER E'\x02')";
        let sink = self.client.copy_in(copy).await.map_err(|error| describe(&error))?;
        let mut sink = std::pin::pin!(sink);
        for chunk in docs.chunks(100) {
            // Raw line ends are white space in JSON.
            let lines: String = chunk.iter().map(|doc| doc.replace(['\n', '\r'], " ") + "\n").collect();
            sink.send(bytes::Bytes::from(lines)).await.map_err(|error| describe(&error))?;
        }
        sink.finish().await.map(|_| ()).map_err(|error| describe(&error))
    }

    async fn run(&self, sql: &str) -> Result<()> {
        let start = std::time::Instant::now();
        let done = self.client.batch_execute(sql).await;
        if std::env::var_os("ROWDELTA_IT_TIMES").is_some() && start.elapsed().as_millis() > 100 {
            println!(
                "{:6.2} s  {}",
                start.elapsed().as_secs_f64(),
                sql.trim().replace('\n', " ").get(..120).unwrap_or(sql)
            );
        }
        done.map_err(|error| format!("{}\n{sql}", describe(&error)))
    }

    async fn rows(&self, sql: &str) -> Result<Vec<Vec<Option<String>>>> {
        rows(&self.client, sql).await.map_err(|error| format!("{error}\n{sql}"))
    }
}

/// The types of all columns of the mapping's tables.
async fn types(client: &Client, mapping: &Mapping) -> Result<Types> {
    let mut types = Types::new();
    let tables = mapping.relations.iter().map(|relation| &relation.table);
    for table in tables.chain(mapping.lookups.iter().map(|lookup| &lookup.table)) {
        let found = rows(
            client,
            &format!(
                "SELECT attname, format_type(atttypid, atttypmod), format_type(atttypid, -1), typcategory = 'S',
                   (SELECT pg_get_expr(adbin, adrelid) FROM pg_attrdef WHERE adrelid = attrelid AND adnum = attnum)
                 FROM pg_attribute JOIN pg_type t ON t.oid = atttypid
                 WHERE attrelid = {}::regclass AND attnum > 0 AND NOT attisdropped",
                literal(&sql::table(table))
            ),
        )
        .await?;
        for row in found {
            let text = |at: usize| row[at].clone().unwrap_or_default();
            // A sequence's next value is nothing to expect.
            let default = row[4].clone().filter(|default| !default.contains("nextval("));
            let ty = Type { full: text(1), base: text(2), is_string: text(3) == "t", default };
            types.insert((table.clone(), text(0)), ty);
        }
    }
    let columns = |relation: &mapping::Relation| {
        relation
            .columns
            .iter()
            .map(|column| (relation.table.clone(), column.name.clone()))
            .collect::<Vec<_>>()
    };
    match mapping.relations.iter().flat_map(columns).find(|column| !types.contains_key(column)) {
        Some((table, column)) => Err(format!("{table} has no column {column}")),
        None => Ok(types),
    }
}

/// Counts, by triggers, the rows that are really written in the tables of a mapping.
pub struct Writes {
    client: Client,
}

const COUNTER: &str = "
    CREATE TABLE IF NOT EXISTS oracle.write (tab text, op text);
    CREATE OR REPLACE FUNCTION oracle.count_write() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS
    $$ BEGIN INSERT INTO oracle.write VALUES (TG_ARGV[0], TG_OP); RETURN NULL; END $$;";

impl Writes {
    /// Installs the triggers on every table of the mapping that has none yet.
    pub async fn count(client: Client, mapping: &Mapping) -> Result<Self> {
        let writes = Self { client };
        writes.run(COUNTER).await?;
        let tables = mapping.relations.iter().map(|relation| &relation.table);
        for table in tables.chain(mapping.lookups.iter().map(|lookup| &lookup.table)) {
            let (on, name) = (sql::table(table), literal(table));
            // AFTER, so that they neither change a row nor make the engine think that a trigger might.
            writes
                .run(&format!(
                    "CREATE OR REPLACE TRIGGER oracle_row AFTER INSERT OR UPDATE OR DELETE ON {on}
                       FOR EACH ROW EXECUTE FUNCTION oracle.count_write({name});"
                ))
                .await?;
        }
        Ok(writes)
    }

    /// The rows written, in committed transactions, since the last call.
    pub async fn take(&self) -> Result<Edits> {
        let query = "WITH taken AS (DELETE FROM oracle.write RETURNING *)
                     SELECT tab, op, count(*) FROM taken GROUP BY tab, op";
        let mut edits = Edits::new();
        for row in rows(&self.client, query).await? {
            let text = |at: usize| row[at].clone().unwrap_or_default();
            let edit = edits.entry(text(0)).or_default();
            let count = text(2).parse().expect("a count");
            match text(1).as_str() {
                "INSERT" => edit.inserted = count,
                "UPDATE" => edit.updated = count,
                _ => edit.deleted = count,
            }
        }
        Ok(edits)
    }

    async fn run(&self, sql: &str) -> Result<()> {
        self.client.batch_execute(sql).await.map_err(|error| format!("{}\n{sql}", describe(&error)))
    }
}
