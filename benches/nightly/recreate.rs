//! Delete and re-create: for each document the root row is upserted, and the rows of all lists are deleted and
//! inserted again.
//!
//! As well as that can be written: a batch of documents is one transaction of prepared statements, one for each table,
//! that are sent without waiting for each other's answers; of new documents nothing is deleted.

use futures_util::future::try_join_all;
use futures_util::try_join;
use tokio_postgres::{Client, Error, Statement};

use crate::Outcome;
use crate::peer::{Changed, columns, params, texts};
use crate::rows::{PARENT, RELATIONS, Relation};
use crate::seen::{Record, record};

/// The statements of one connection.
pub struct Recreate {
    upsert: Statement,
    delete: Vec<Statement>,
    insert: Vec<Statement>,
}

impl Recreate {
    /// Prepares them.
    pub async fn prepare(client: &Client) -> Outcome<Self> {
        let delete = |relation: &Relation| format!("DELETE FROM {} WHERE {PARENT} = ANY($1)", relation.table);
        let below = &RELATIONS[1..];
        let (upsert, delete, insert) = try_join!(
            prepare(client, vec![upsert_sql()]),
            prepare(client, below.iter().map(delete).collect()),
            prepare(client, below.iter().map(insert_sql).collect()),
        )?;
        Ok(Self { upsert: upsert[0].clone(), delete, insert })
    }

    /// Writes a batch and remembers it, in one transaction.
    pub async fn write(&self, client: &Client, batch: &[Changed<'_>], records: &[Record]) -> Outcome<()> {
        let begin = client.batch_execute("BEGIN");
        let (_, ids) = try_join!(begin, self.upsert(client, batch))?;
        let old: Vec<i64> = ids.iter().filter(|(_, is_new)| !is_new).map(|(id, _)| *id).collect();
        let delete = async {
            match old.is_empty() {
                true => Ok(Vec::new()),
                false => {
                    let old: [&(dyn tokio_postgres::types::ToSql + Sync); 1] = [&old];
                    try_join_all(self.delete.iter().map(|delete| client.execute(delete, &old))).await
                }
            }
        };
        let parents: Vec<String> = ids.iter().map(|(id, _)| id.to_string()).collect();
        let insert =
            try_join_all((1..RELATIONS.len()).map(|relation| self.insert(client, relation, batch, &parents)));
        let record = async {
            match records.is_empty() {
                true => Ok(0),
                false => record(client, records).await,
            }
        };
        try_join!(delete, insert)?;
        try_join!(record, client.batch_execute("COMMIT"))?;
        Ok(())
    }

    /// Upserts the root rows; their ids in the order of the batch, and whether each is new.
    async fn upsert(&self, client: &Client, batch: &[Changed<'_>]) -> Result<Vec<(i64, bool)>, Error> {
        let rows: Vec<_> = batch.iter().map(|call| texts(&call.rows[0][0]).collect()).collect();
        let columns = columns(&rows, RELATIONS[0].columns.len());
        let answers = client.query(&self.upsert, &params(&columns)).await?;
        // Rows are answered in the order in which they are inserted, and that is the order of the arrays.
        Ok(answers.iter().map(|row| (row.get(0), row.get(1))).collect())
    }

    async fn insert(
        &self,
        client: &Client,
        relation: usize,
        batch: &[Changed<'_>],
        parents: &[String],
    ) -> Result<u64, Error> {
        let with_parent = |(call, parent)| -> Vec<Vec<Option<&str>>> {
            let call: &Changed<'_> = call;
            let parent: &String = parent;
            let row = |row| [Some(parent.as_str())].into_iter().chain(texts(row)).collect();
            call.rows[relation].iter().map(|cells| row(cells)).collect()
        };
        let rows: Vec<_> = batch.iter().zip(parents).flat_map(with_parent).collect();
        if rows.is_empty() {
            return Ok(0);
        }
        let columns = columns(&rows, RELATIONS[relation].columns.len() + 1);
        client.execute(&self.insert[relation - 1], &params(&columns)).await
    }
}

/// Prepares statements, without waiting for one before the next is sent.
pub async fn prepare(client: &Client, statements: Vec<String>) -> Result<Vec<Statement>, Error> {
    try_join_all(statements.iter().map(|sql| client.prepare(sql))).await
}

/// `unnest` of so many arrays of texts, `v0` and so on.
pub fn unnest(count: usize) -> String {
    let arrays: Vec<String> = (1..=count).map(|at| format!("${at}::text[]")).collect();
    let names: Vec<String> = (0..count).map(|at| format!("v{at}")).collect();
    format!("unnest({}) AS t ({})", arrays.join(", "), names.join(", "))
}

/// The values of a relation's columns, cast; the first of them is `v` and this number.
pub fn cast(relation: &Relation, first: usize) -> String {
    let cast = |(at, (_, ty)): (usize, &(&str, &str))| format!("v{}::{ty}", at + first);
    relation.columns.iter().enumerate().map(cast).collect::<Vec<_>>().join(", ")
}

/// Inserts rows below calls: the ids of these are the first parameter.
pub fn insert_sql(relation: &Relation) -> String {
    format!(
        "INSERT INTO {} ({PARENT}, {}) SELECT v0::bigint, {} FROM {}",
        relation.table,
        relation.names().join(", "),
        cast(relation, 1),
        unnest(relation.columns.len() + 1),
    )
}

fn upsert_sql() -> String {
    let root = &RELATIONS[0];
    let set: Vec<String> = root.names().iter().map(|name| format!("{name} = EXCLUDED.{name}")).collect();
    format!(
        "INSERT INTO {} ({}) SELECT {} FROM {} ON CONFLICT (codigo_bdns) DO UPDATE SET {} RETURNING id, xmax = 0",
        root.table,
        root.names().join(", "),
        cast(root, 0),
        unnest(root.columns.len()),
        set.join(", "),
    )
}
