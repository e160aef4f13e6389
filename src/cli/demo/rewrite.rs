//! The usual way to keep such tables in step, to measure rowdelta against: for each document the root row is upserted and
//! the rows of every list are deleted and created again, in one transaction.
//!
//! It is written as well as that can be: statements are prepared, the rows of a list are one INSERT, what doesn't wait for an
//! answer is pipelined, catalogue rows are remembered, and as many documents are worked on at once as there are connections.
//! With a hash, documents whose parsed JSON has the SHA-256 that was recorded at the end of their last transaction are skipped.
//!
//! Only mappings whose lists stand directly below the root, and whose surrogates are `bigint`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use futures_util::future::try_join_all;
use futures_util::try_join;
use rowdelta::mapping::{Column, Mapping, Path, Relation, Segment, Source};
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error, Statement};

use crate::cli::connect::{self, Pool};

/// Root column that records the hash.
const HASH_COLUMN: &str = "content_hash";

/// What a night came to.
#[derive(Clone, Debug, Default)]
pub struct Written {
    /// Documents skipped by their hash.
    pub skipped: u64,
    /// Rows inserted, updated or deleted, for each relation of the mapping.
    pub relations: Vec<u64>,
    /// Rows inserted into catalogues.
    pub lookups: u64,
}

/// One night of it.
#[derive(Clone)]
pub struct Rewrite {
    mapping: Arc<Mapping>,
    /// Whether documents are skipped by a hash.
    by_hash: bool,
    ids: Arc<tokio::sync::Mutex<Ids>>,
    written: Arc<Mutex<Written>>,
    hashes: Arc<HashMap<String, String>>,
}

/// Ids of catalogue rows by lookup and key.
type Ids = HashMap<(usize, Vec<String>), i64>;

/// What the statements of one connection are.
struct Statements {
    upsert: Statement,
    delete: Vec<Statement>,
    insert: Vec<Statement>,
    mark: Statement,
}

impl Rewrite {
    /// Brings the tables in step with the documents, `workers` of them at a time, each on a connection of its own.
    ///
    /// # Errors
    /// Any error of the database; what was committed before stays.
    pub async fn night(
        pool: &Pool,
        workers: usize,
        mapping: Arc<Mapping>,
        by_hash: bool,
        documents: impl Iterator<Item = Vec<u8>> + Send + 'static,
    ) -> Result<Written, String> {
        let words = |error: Error| error.to_string();
        let written = Written { relations: vec![0; mapping.relations.len()], ..Written::default() };
        let client = connect::get(pool).await?;
        let hashes = if by_hash { hashes(&client, &mapping).await.map_err(words)? } else { HashMap::new() };
        drop(client);
        let night = Self {
            mapping,
            by_hash,
            ids: Arc::default(),
            written: Arc::new(Mutex::new(written)),
            hashes: Arc::new(hashes),
        };
        let documents = Arc::new(Mutex::new(documents));
        let workers = (0..workers).map(|_| {
            let (pool, night, documents) = (pool.clone(), night.clone(), documents.clone());
            tokio::spawn(async move {
                let client = connect::get(&pool).await?;
                let statements = night.prepare(&client).await.map_err(words)?;
                loop {
                    let Some(document) = documents.lock().expect("no panic while it is held").next() else {
                        return Ok(());
                    };
                    night.document(&client, &statements, &document).await.map_err(words)?;
                }
            })
        });
        for worker in workers.collect::<Vec<_>>() {
            worker.await.map_err(|error| error.to_string()).and_then(|done: Result<(), String>| done)?;
        }
        Ok(night.written.lock().expect("no panic while it is held").clone())
    }

    async fn prepare(&self, client: &Client) -> Result<Statements, Error> {
        let root = self.mapping.root();
        let (mut delete, mut insert) = (Vec::new(), Vec::new());
        for relation in &self.mapping.relations[1..] {
            let types = types(client, relation).await?;
            delete.push(client.prepare(&delete_sql(relation)).await?);
            insert.push(client.prepare(&insert_sql(relation, &types)).await?);
        }
        let upsert = client.prepare(&upsert_sql(root, &types(client, root).await?)).await?;
        let mark = format!("UPDATE {} SET {HASH_COLUMN} = $2 WHERE {} = $1", root.table, root_id(root));
        Ok(Statements { upsert, delete, insert, mark: client.prepare(&mark).await? })
    }

    async fn document(&self, client: &Client, statements: &Statements, bytes: &[u8]) -> Result<(), Error> {
        let document: Value = serde_json::from_slice(bytes).expect("a generated document is JSON");
        let hash = self.by_hash.then(|| hash(&document));
        let root = self.mapping.root();
        if let Some(hash) = &hash {
            let key = text(&document, &root.columns[root.key_columns()[0]]).unwrap_or_default();
            if self.hashes.get(&key) == Some(hash) {
                self.written.lock().expect("no panic while it is held").skipped += 1;
                return Ok(());
            }
        }
        let values = self.values(client, root, &[&document]).await?;
        let lists: Vec<Vec<&Value>> =
            self.mapping.relations[1..].iter().map(|list| items(&document, list)).collect();
        let mut rows = Vec::new();
        for (relation, items) in self.mapping.relations[1..].iter().zip(&lists) {
            rows.push(self.values(client, relation, items).await?);
        }
        let values: Vec<&(dyn ToSql + Sync)> =
            values.iter().map(|column| &column[0] as &(dyn ToSql + Sync)).collect();
        let (_, upserted) =
            try_join!(client.batch_execute("BEGIN"), client.query_one(&statements.upsert, &values))?;
        let id: i64 = upserted.get(0);
        let replaced = try_join_all(
            rows.iter().enumerate().map(|(at, columns)| replace(client, statements, at, id, columns)),
        );
        let mark = async {
            match &hash {
                Some(hash) => client.execute(&statements.mark, &[&id, hash]).await,
                None => Ok(0),
            }
        };
        let (replaced, marked, ()) = try_join!(replaced, mark, client.batch_execute("COMMIT"))?;
        let mut written = self.written.lock().expect("no panic while it is held");
        written.relations[0] += 1 + marked;
        written.relations[1..].iter_mut().zip(replaced).for_each(|(count, rows)| *count += rows);
        Ok(())
    }

    /// The columns of a relation's rows, each as texts.
    async fn values(
        &self,
        client: &Client,
        relation: &Relation,
        items: &[&Value],
    ) -> Result<Vec<Vec<Option<String>>>, Error> {
        let mut columns = Vec::with_capacity(relation.columns.len());
        for column in &relation.columns {
            let mut values = Vec::with_capacity(items.len());
            for item in items {
                values.push(match &column.source {
                    // The demo's mapping has no positions.
                    Source::Path { .. } | Source::Position { .. } | Source::Constant { .. } => {
                        text(item, column)
                    }
                    Source::Lookup { lookup, matching } => {
                        self.reference(client, *lookup, item, matching).await?
                    }
                });
            }
            columns.push(values);
        }
        Ok(columns)
    }

    /// The id of a catalogue row, inserted if it is not there.
    async fn reference(
        &self,
        client: &Client,
        lookup: usize,
        item: &Value,
        matching: &[Path],
    ) -> Result<Option<String>, Error> {
        let Some(key) = matching.iter().map(|path| scalar(find(item, path)?)).collect::<Option<Vec<_>>>()
        else {
            return Ok(None);
        };
        let mut ids = self.ids.lock().await;
        if let Some(id) = ids.get(&(lookup, key.clone())) {
            return Ok(Some(id.to_string()));
        }
        let catalogue = &self.mapping.lookups[lookup];
        let (table, names) = (&catalogue.table, catalogue.key.join(", "));
        let places = (1..=key.len()).map(|at| format!("${at}")).collect::<Vec<_>>().join(", ");
        let params: Vec<&(dyn ToSql + Sync)> = key.iter().map(|value| value as &(dyn ToSql + Sync)).collect();
        let insert = format!("INSERT INTO {table} ({names}) VALUES ({places}) ON CONFLICT DO NOTHING");
        let inserted = client.execute(&insert, &params).await?;
        let select = format!("SELECT {} FROM {table} WHERE ({names}) = ({places})", catalogue.id);
        let id: i64 = client.query_one(&select, &params).await?.get(0);
        ids.insert((lookup, key), id);
        self.written.lock().expect("no panic while it is held").lookups += inserted;
        Ok(Some(id.to_string()))
    }
}

/// Deletes the rows of one list and creates them again; both are on their way before the first is answered.
async fn replace(
    client: &Client,
    statements: &Statements,
    at: usize,
    id: i64,
    columns: &[Vec<Option<String>>],
) -> Result<u64, Error> {
    let mut params: Vec<&(dyn ToSql + Sync)> = vec![&id];
    params.extend(columns.iter().map(|column| column as &(dyn ToSql + Sync)));
    let insert = async {
        match columns.iter().any(|column| !column.is_empty()) {
            true => client.execute(&statements.insert[at], &params).await,
            false => Ok(0),
        }
    };
    let (deleted, inserted) = try_join!(client.execute(&statements.delete[at], &params[..1]), insert)?;
    Ok(deleted + inserted)
}

fn root_id(root: &Relation) -> &str {
    root.id.as_deref().expect("the root has a surrogate")
}

fn names(relation: &Relation) -> Vec<&str> {
    relation.columns.iter().map(|column| column.name.as_str()).collect()
}

fn upsert_sql(root: &Relation, types: &[String]) -> String {
    let names = names(root);
    let values: Vec<String> =
        types.iter().enumerate().map(|(at, ty)| format!("${}::text::{ty}", at + 1)).collect();
    let set: Vec<String> = names.iter().map(|name| format!("{name} = EXCLUDED.{name}")).collect();
    format!(
        "INSERT INTO {} ({}) VALUES ({}) ON CONFLICT ({}) DO UPDATE SET {} RETURNING {}",
        root.table,
        names.join(", "),
        values.join(", "),
        root.key.join(", "),
        set.join(", "),
        root_id(root),
    )
}

fn insert_sql(relation: &Relation, types: &[String]) -> String {
    let values: Vec<String> = types.iter().enumerate().map(|(at, ty)| format!("v{at}::{ty}")).collect();
    let params: Vec<String> = (0..types.len()).map(|at| format!("${}::text[]", at + 2)).collect();
    let aliases: Vec<String> = (0..types.len()).map(|at| format!("v{at}")).collect();
    format!(
        "INSERT INTO {} ({}, {}) SELECT $1::bigint, {} FROM unnest({}) AS t ({})",
        relation.table,
        relation.parent[0],
        names(relation).join(", "),
        values.join(", "),
        params.join(", "),
        aliases.join(", "),
    )
}

fn delete_sql(relation: &Relation) -> String {
    format!("DELETE FROM {} WHERE {} = $1", relation.table, relation.parent[0])
}

/// The types of a relation's columns, as SQL.
async fn types(client: &Client, relation: &Relation) -> Result<Vec<String>, Error> {
    let sql =
        "SELECT format_type(a.atttypid, a.atttypmod) FROM unnest($2::text[]) WITH ORDINALITY AS c (name, at)
               JOIN pg_attribute a ON a.attrelid = to_regclass($1) AND a.attname = c.name ORDER BY c.at";
    let rows = client.query(sql, &[&relation.table.to_string(), &names(relation)]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

async fn hashes(client: &Client, mapping: &Mapping) -> Result<HashMap<String, String>, Error> {
    let root = mapping.root();
    let sql = format!(
        "SELECT {}::text, {HASH_COLUMN} FROM {} WHERE {HASH_COLUMN} IS NOT NULL",
        root.key[0], root.table
    );
    Ok(client.query(&sql, &[]).await?.iter().map(|row| (row.get(0), row.get(1))).collect())
}

/// Of the parsed document, so that white space and the order of its members don't count.
fn hash(document: &Value) -> String {
    Sha256::digest(document.to_string()).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn items<'d>(document: &'d Value, relation: &Relation) -> Vec<&'d Value> {
    find(document, &relation.path).and_then(Value::as_array).into_iter().flatten().collect()
}

/// A column's value as text.
fn text(item: &Value, column: &Column) -> Option<String> {
    let Source::Path { paths, .. } = &column.source else { return None };
    paths.iter().find_map(|path| scalar(find(item, path)?))
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

fn find<'d>(item: &'d Value, path: &Path) -> Option<&'d Value> {
    path.0.iter().try_fold(item, |value, segment| match segment {
        Segment::Field(name) => value.get(name),
        _ => None,
    })
}
