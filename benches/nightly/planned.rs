//! The smallest edit, applied by a program that knows it beforehand: which rows, with which ids. What is timed is
//! nothing but prepared statements for many rows each, sent without waiting for each other's answers, over as many
//! connections as there are cores.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use futures_util::future::try_join_all;
use futures_util::try_join;
use tokio_postgres::{Client, Error, Statement};

use crate::Outcome;
use crate::blocks::cores;
use crate::catalogues::Catalogues;
use crate::edit::{Change, Edit, Kind};
use crate::measure::Setup;
use crate::peer::{connect, params};
use crate::recreate::{insert_sql, unnest};
use crate::rows::{CATALOGUES, PARENT, RELATIONS};

/// Calls of a transaction: as many as a batch of rowdelta's.
const BATCH_CALLS: usize = 500;

/// A statement, and the columns of its rows.
type Step = (Statement, Vec<Vec<Option<String>>>);
/// Rows by statement, in the order in which these run.
type Grouped = BTreeMap<(u8, String), Vec<Vec<Option<String>>>>;

/// Applies an edit; finding ids and preparing statements is set-up.
pub async fn apply(url: &str, edit: &Path, setup: Setup) -> Outcome<()> {
    let edit: Edit = serde_json::from_slice(&std::fs::read(edit)?)?;
    let clients = try_join_all((0..cores()).map(|_| connect(url))).await?;
    let ids = Ids::find(&clients[0], &edit).await?;
    let entries = prepare(&clients[0], ids.entries(&edit)).await?;
    let mut work: Vec<Vec<Vec<Step>>> = clients.iter().map(|_| Vec::new()).collect();
    for (at, batch) in batches(&edit.changes).into_iter().enumerate() {
        let client = at % clients.len();
        work[client].push(prepare(&clients[client], ids.steps(batch)?).await?);
    }
    setup.done();
    run(&clients[0], &entries).await?;
    try_join_all(clients.iter().zip(&work).map(|(client, batches)| transactions(client, batches))).await?;
    Ok(())
}

async fn transactions(client: &Client, batches: &[Vec<Step>]) -> Result<(), Error> {
    for steps in batches {
        try_join!(client.batch_execute("BEGIN"), run(client, steps), client.batch_execute("COMMIT"))?;
    }
    Ok(())
}

async fn run(client: &Client, steps: &[Step]) -> Result<(), Error> {
    let ready: Vec<_> = steps.iter().map(|(statement, columns)| (statement, params(columns))).collect();
    try_join_all(ready.iter().map(|(statement, params)| client.execute(*statement, params))).await.map(drop)
}

async fn prepare(client: &Client, grouped: Grouped) -> Result<Vec<Step>, Error> {
    let mut steps = Vec::new();
    for ((_, sql), rows) in grouped {
        let width = rows.first().map_or(0, Vec::len);
        let columns = (0..width).map(|at| rows.iter().map(|row| row[at].clone()).collect()).collect();
        steps.push((client.prepare(&sql).await?, columns));
    }
    Ok(steps)
}

/// The changes of so many calls each that every connection gets its share.
fn batches(changes: &[Change]) -> Vec<&[Change]> {
    let by_call: Vec<&[Change]> = changes.chunk_by(|a, b| a.call == b.call).collect();
    let calls = by_call.len().div_ceil(cores()).clamp(1, BATCH_CALLS);
    let mut rest = changes;
    let mut batches = Vec::new();
    for group in by_call.chunks(calls) {
        let (batch, after) = rest.split_at(group.iter().map(|changes| changes.len()).sum());
        batches.push(batch);
        rest = after;
    }
    batches
}

/// The ids of what an edit touches.
struct Ids {
    catalogues: Catalogues,
    /// Ids of calls by their key, of the others by theirs, per relation.
    rows: Vec<HashMap<String, String>>,
}

impl Ids {
    async fn find(client: &Client, edit: &Edit) -> Outcome<Self> {
        let catalogues = Catalogues::load(client).await?;
        for (catalogue, key) in &edit.catalogues {
            let sql = format!(
                "SELECT nextval(pg_get_serial_sequence('{}', 'id'))::text",
                CATALOGUES[*catalogue].table
            );
            catalogues.note(*catalogue, key, client.query_one(&sql, &[]).await?.get(0));
        }
        let mut rows = Vec::new();
        for relation in RELATIONS.iter().filter(|relation| !relation.is_pair) {
            let key = relation.columns[relation.key].0;
            let sql = format!("SELECT {key}::text, id::text FROM {}", relation.table);
            rows.push(client.query(&sql, &[]).await?.iter().map(|row| (row.get(0), row.get(1))).collect());
        }
        Ok(Self { catalogues, rows })
    }

    /// The new entries of catalogues.
    fn entries(&self, edit: &Edit) -> Grouped {
        let mut grouped = Grouped::new();
        for (catalogue, key) in &edit.catalogues {
            let known = &CATALOGUES[*catalogue];
            let parts = crate::catalogues::parts(key).map(|part| Some(part.to_owned()));
            let row = [self.catalogues.id(*catalogue, key)].into_iter().chain(parts).collect();
            let names: Vec<String> = (1..=known.key.len()).map(|at| format!("v{at}")).collect();
            let sql = format!(
                "INSERT INTO {} (id, {}) OVERRIDING SYSTEM VALUE SELECT v0::bigint, {} FROM {}",
                known.table,
                known.key.join(", "),
                names.join(", "),
                unnest(known.key.len() + 1),
            );
            grouped.entry((0, sql)).or_default().push(row);
        }
        grouped
    }

    /// The statements of a batch: deletions below calls, updates, insertions, deletions of calls.
    fn steps(&self, batch: &[Change]) -> Outcome<Grouped> {
        let mut grouped = Grouped::new();
        for change in batch {
            let call = self.id(0, &change.call)?;
            let (rank, sql, row) = match &change.kind {
                Kind::Delete => self.delete(change, call)?,
                Kind::Update(columns) => self.update(change, columns)?,
                Kind::Insert(_) if change.relation == 0 => return Err("no call is new".into()),
                Kind::Insert(cells) => {
                    let cells =
                        cells.iter().enumerate().map(|(at, cell)| self.value(change.relation, at, cell));
                    let row = [Ok(Some(call))].into_iter().chain(cells).collect::<Outcome<_>>()?;
                    (2, insert_sql(&RELATIONS[change.relation]), row)
                }
            };
            grouped.entry((rank, sql)).or_default().push(row);
        }
        Ok(grouped)
    }

    fn delete(&self, change: &Change, call: String) -> Outcome<(u8, String, Vec<Option<String>>)> {
        let relation = &RELATIONS[change.relation];
        if !relation.is_pair {
            let sql = format!("DELETE FROM {} WHERE id = ANY ($1::text[]::bigint[])", relation.table);
            let rank = if change.relation == 0 { 3 } else { 0 };
            return Ok((rank, sql, vec![Some(self.id(change.relation, &change.key)?)]));
        }
        let sql = format!(
            "DELETE FROM {} USING {} WHERE {PARENT} = v0::bigint AND {} = v1::bigint",
            relation.table,
            unnest(2),
            relation.columns[0].0,
        );
        Ok((0, sql, vec![Some(call), self.value(change.relation, 0, &Some(change.key.clone()))?]))
    }

    fn update(
        &self,
        change: &Change,
        columns: &[(usize, Option<String>)],
    ) -> Outcome<(u8, String, Vec<Option<String>>)> {
        let relation = &RELATIONS[change.relation];
        let mut row = vec![Some(self.id(change.relation, &change.key)?)];
        let mut set = Vec::new();
        for (place, (at, cell)) in (1..).zip(columns) {
            let (name, ty) = relation.columns[*at];
            set.push(format!("{name} = v{place}::{ty}"));
            row.push(self.value(change.relation, *at, cell)?);
        }
        let from = unnest(row.len());
        let sql =
            format!("UPDATE {} SET {} FROM {from} WHERE id = v0::bigint", relation.table, set.join(", "));
        Ok((1, sql, row))
    }

    /// The id of a row that is there.
    fn id(&self, relation: usize, key: &str) -> Outcome<String> {
        let id = self.rows[relation].get(key).cloned();
        id.ok_or_else(|| format!("{} has no {key}", RELATIONS[relation].table).into())
    }

    /// A cell with the id in place of a catalogue's key.
    fn value(&self, relation: usize, at: usize, cell: &Option<String>) -> Outcome<Option<String>> {
        let reference = RELATIONS[relation].references.iter().find(|(column, _)| *column == at);
        let (Some((_, catalogue)), Some(key)) = (reference, cell) else { return Ok(cell.clone()) };
        let id = self.catalogues.id(*catalogue, key);
        id.map(Some).ok_or_else(|| format!("{} has no {key}", CATALOGUES[*catalogue].table).into())
    }
}
