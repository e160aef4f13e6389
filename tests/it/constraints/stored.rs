//! What is in the tables: rows, ids, and how many were written.

use std::collections::{BTreeMap, BTreeSet};

use tokio_postgres::Client;

use super::shape::{Keys, Rel, Shape};
use super::state::{Edit, Line};
use crate::support::database::rows;

/// Row triggers write it down. It is emptied whenever it is read.
pub const WATCH: &str = "
    CREATE SCHEMA watch;
    CREATE UNLOGGED TABLE watch.write (relation int, op text);
    CREATE FUNCTION watch.note() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN INSERT INTO watch.write VALUES (TG_ARGV[0]::int, TG_OP); RETURN NULL; END $$;";

const WRITTEN: &str = "
    WITH gone AS (DELETE FROM watch.write RETURNING relation, op)
    SELECT 'written', relation, op, count(*) FROM gone GROUP BY relation, op";

/// A row's identity, with its relation.
type Identity = (Rel, Vec<Vec<Option<String>>>);

/// What was found.
pub struct Stored {
    /// Sorted.
    pub lines: Vec<Line>,
    /// Where the table has ids.
    pub ids: BTreeMap<Identity, BTreeSet<i64>>,
    /// Since it was asked for last, per relation.
    pub written: Vec<Edit>,
}

/// Queries that give all rows with ids, and what was written.
pub fn queries(shape: &Shape) -> String {
    format!("{WRITTEN};\n{}", rows_of(shape))
}

/// Queries that give all rows.
pub fn rows_of(shape: &Shape) -> String {
    let mut queries = Vec::new();
    for (rel, relation) in shape.relations.iter().enumerate() {
        let table = &relation.table;
        let id = if relation.id { format!("{table}.id") } else { "NULL".to_owned() };
        let mut columns = vec![format!("'{rel}', {id}")];
        let mut joins = format!(" FROM {table}");
        let mut inner = rel;
        let around = shape.around(rel);
        for &outer in around.iter().rev() {
            let (child, parent) = (&shape.relations[inner].table, &shape.relations[outer].table);
            joins += &format!(" JOIN {parent} ON {parent}.id = {child}.parent");
            inner = outer;
        }
        for &outer in &around {
            let outer = &shape.relations[outer];
            columns.extend(outer.key().map(|at| format!("{}.{}", outer.table, outer.columns[at].name)));
        }
        columns.extend(relation.columns.iter().map(|column| format!("{table}.{}", column.name)));
        queries.push(format!("SELECT {}{joins}", columns.join(", ")));
    }
    queries.join(";\n")
}

/// Triggers on all tables.
pub fn triggers(shape: &Shape) -> String {
    let trigger = |(rel, table): (usize, &String)| {
        format!(
            "CREATE TRIGGER watch AFTER INSERT OR UPDATE OR DELETE ON {table}
             FOR EACH ROW EXECUTE FUNCTION watch.note({rel});\n"
        )
    };
    shape.relations.iter().map(|relation| &relation.table).enumerate().map(trigger).collect()
}

impl Stored {
    /// Asks.
    pub async fn read(client: &Client, shape: &Shape, queries: &str) -> Result<Stored, String> {
        let mut stored = Stored {
            lines: Vec::new(),
            ids: BTreeMap::new(),
            written: vec![Edit::default(); shape.relations.len()],
        };
        for row in rows(client, queries).await? {
            match row[0].as_deref() {
                Some("written") => stored.count(&row),
                _ => stored.add(shape, row),
            }
        }
        stored.lines.sort();
        Ok(stored)
    }

    fn count(&mut self, row: &[Option<String>]) {
        let number = |at: usize| row[at].as_ref().and_then(|text| text.parse().ok()).unwrap_or_default();
        let edit = &mut self.written[number(1) as usize];
        match row[2].as_deref() {
            Some("INSERT") => edit.inserted = number(3),
            Some("UPDATE") => edit.updated = number(3),
            _ => edit.deleted = number(3),
        }
    }

    fn add(&mut self, shape: &Shape, mut row: Vec<Option<String>>) {
        let relation: Rel = row[0].as_ref().and_then(|text| text.parse().ok()).expect("a relation");
        let id = row[1].take().and_then(|text| text.parse().ok());
        let mut cells = row.into_iter().skip(2);
        let around = shape.around(relation).into_iter();
        let around =
            around.map(|outer| cells.by_ref().take(shape.relations[outer].key().count()).collect()).collect();
        let line = Line { relation, around, cells: cells.collect() };
        if let Some(id) = id {
            self.ids.entry(identity(shape, &line)).or_default().insert(id);
        }
        self.lines.push(line);
    }

    /// Rows that stayed must have their ids: says which did not.
    pub fn lost_ids(&self, before: &Stored) -> Option<String> {
        self.ids.iter().find_map(|(identity, after)| {
            let before = before.ids.get(identity)?;
            let kept = before.intersection(after).count();
            (kept < before.len().min(after.len()))
                .then(|| format!("{identity:?} had the ids {before:?}, has {after:?}"))
        })
    }
}

fn identity(shape: &Shape, line: &Line) -> Identity {
    let mut path = Vec::new();
    for (outer, key) in shape.around(line.relation).into_iter().zip(&line.around) {
        if shape.relations[outer].keys == Keys::All {
            path.clear();
        }
        path.push(key.clone());
    }
    let relation = &shape.relations[line.relation];
    let own = match relation.keys {
        Keys::Content => line.cells.clone(),
        _ => relation.key().map(|at| line.cells[at].clone()).collect(),
    };
    if relation.keys == Keys::All {
        path.clear();
    }
    path.push(own);
    (line.relation, path)
}
