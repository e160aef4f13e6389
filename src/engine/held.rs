//! Removals that were held back: at the end of the feed, what still hangs where it hung goes.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::document::DocumentKey;
use crate::engine::run::{Held, Run};
use crate::error::{Error, ErrorKind};
use crate::mapping::RelationIx;
use crate::plan::{Action, Plan, Sides, Step, StoredRow};
use crate::postgres::begin;
use crate::postgres::fetch::{attach, referable, rows};
use crate::postgres::state;
use crate::postgres::write::{Marking, Writer};
use crate::row::Tuple;
use crate::schema::Table;

/// Documents settled in one transaction.
const DOCUMENTS_MAX: usize = 200;

/// Removes what was held back and settles the documents. One that fails stays unsettled, for the next run.
///
/// # Errors
/// Only what ends the run: the lease was lost.
pub(crate) async fn release(run: &Arc<Run>) -> Result<(), Error> {
    let mut pending: Vec<Vec<(DocumentKey, Held)>> = Vec::new();
    let mut held: Vec<(DocumentKey, Held)> = run.take_held().into_iter().collect();
    held.sort_by(|a, b| a.0.cmp(&b.0));
    while !held.is_empty() {
        let rest = held.split_off(held.len().min(DOCUMENTS_MAX));
        pending.push(std::mem::replace(&mut held, rest));
    }
    while let Some(mut part) = pending.pop() {
        let Err(error) = transact(run, &part).await else { continue };
        match () {
            () if error.kind() == ErrorKind::Busy => return Err(error),
            () if part.len() > 1 => {
                let right = part.split_off(part.len() / 2);
                pending.extend([right, part]);
            }
            () => tracing::warn!(%error, "removals that were held back failed; the next run tries again"),
        }
    }
    Ok(())
}

async fn transact(run: &Run, documents: &[(DocumentKey, Held)]) -> Result<(), Error> {
    let mut connection = run.connections.get().await?;
    let transaction = begin(&mut connection, run.limits()).await?;
    state::enter(&transaction, &run.lease).await?;
    let mut sides: Vec<Sides> = run.mapping.relations.iter().map(|_| Sides::default()).collect();
    for ix in 1..sides.len() {
        let table = &run.schema.tables[ix];
        let tops = documents.iter().flat_map(|(_, held)| &held.rows).filter(|row| row.0 == ix);
        let tops: HashMap<Tuple, Tuple> =
            tops.map(|(_, row)| (place(table, row), row.reference.clone())).collect();
        let values: Vec<Tuple> = tops.keys().cloned().collect();
        let here = |row: &StoredRow| tops.get(&place(table, row)) == Some(&row.reference);
        let found = rows(&transaction, table, own_locator(table), &values).await?;
        let mut stored: Vec<StoredRow> = found.into_iter().filter(here).collect();
        stored.extend(below(run, &transaction, ix, &sides).await?);
        sides[ix].stored = stored;
    }
    let all = |ix: RelationIx| (0..sides[ix].stored.len() as u32).collect();
    let step = |ix| Step { relation: ix, action: Action::Delete(all(ix)) };
    let steps = (1..sides.len()).rev().map(step).filter(|step| step.action.rows() > 0).collect();
    let plan = Plan { steps, unchanged: vec![0; sides.len()], ..Plan::default() };
    let marking = Marking { hashes: Vec::new(), time: None };
    let writer = Writer::new(&transaction, &run.mapping, &run.schema, &sides, &marking).await?;
    let times = writer.apply(&plan, vec![Duration::ZERO; sides.len()]).await?;
    let recorded: Vec<_> = documents.iter().map(|(key, held)| (key, held.fingerprint)).collect();
    let settled = state::settle(&transaction, run.lease.mapping, &recorded).await?;
    transaction.commit().await?;
    run.tally(|tally| {
        tally.applied(&plan, 0, &times);
        let unsettled = &mut tally.report.documents.unsettled;
        *unsettled = unsettled.saturating_sub(settled as u64);
    });
    Ok(())
}

/// The rows of a relation that hang below rows about to go.
async fn below(
    run: &Run,
    transaction: &tokio_postgres::Transaction<'_>,
    ix: RelationIx,
    sides: &[Sides],
) -> Result<Vec<StoredRow>, Error> {
    let outer = run.mapping.relations[ix].enclosing.unwrap_or(0);
    let stored = sides[outer].stored.iter().enumerate();
    let parents: HashMap<Tuple, u32> =
        stored.map(|(at, row)| (referable(&run.schema.tables[outer], row), at as u32)).collect();
    let values: Vec<Tuple> = parents.keys().cloned().collect();
    let table = &run.schema.tables[ix];
    Ok(attach(rows(transaction, table, &table.parent, &values).await?, &parents))
}

/// The locator without the version, which may have changed, and without the reference to the parent.
fn own_locator(table: &Table) -> &[crate::schema::PhysicalColumn] {
    &table.locator[..table.own_locator]
}

fn place(table: &Table, row: &StoredRow) -> Tuple {
    row.locator.project(&(0..table.own_locator).collect::<Vec<_>>())
}
