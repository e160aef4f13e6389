//! Removals that were held back: at the end of the feed, what still hangs where it hung goes.

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::document::DocumentKey;
use crate::engine::bystanders::bystanders;
use crate::engine::compare::compared_cells;
use crate::engine::patience::Tries;
use crate::engine::report::Failure;
use crate::engine::run::{Held, Run};
use crate::engine::spans;
use crate::error::{Error, ErrorKind};
use crate::fingerprint::comparison_key;
use crate::mapping::{RelationIx, UniqueIn};
use crate::plan::{Batch, Marked, Plan, Sides, StoredRow, plan};
use crate::postgres::begin;
use crate::postgres::fetch::{below, rows};
use crate::postgres::state;
use crate::postgres::write::Writer;
use crate::row::Tuple;
use crate::schema::Table;
use tokio_postgres::Transaction;
use tracing::Instrument as _;

/// Documents settled in one transaction.
const DOCUMENTS_MAX: usize = 200;

/// Removes what was held back and settles the documents. One whose removals are refused fails. What a document that
/// failed asks for stays, and its holder unsettled: the next run looks at both again.
///
/// # Errors
/// Only what ends the run: the lease was lost, or the database is out of reach.
pub(crate) async fn release(run: &Arc<Run>) -> Result<(), Error> {
    let mut held: Vec<(DocumentKey, Held)> = run.take_held().into_iter().collect();
    held.sort_by(|a, b| a.0.cmp(&b.0));
    let fail = |(key, held): (DocumentKey, Held), error: &Error| {
        run.fail_after_all(&key, None, Failure::of_error(&held.origin, &held.label, error));
    };
    in_parts(run, "held", held, |run, part| Box::pin(transact(run, part)), fail).await
}

/// Does something for documents, in parts of a transaction each; what fails is tried again if that can help, and
/// halved until it stands alone.
///
/// # Errors
/// Only what ends the run: the lease was lost, or the database is out of reach.
pub(super) async fn in_parts<T>(
    run: &Run,
    round: &'static str,
    mut documents: Vec<T>,
    transact: impl for<'p> Fn(&'p Run, &'p [T]) -> Pin<Box<dyn Future<Output = Result<(), Error>> + Send + 'p>>,
    fail: impl Fn(T, &Error),
) -> Result<(), Error> {
    let mut pending: Vec<(Vec<T>, Tries)> = Vec::new();
    while !documents.is_empty() {
        let rest = documents.split_off(documents.len().min(DOCUMENTS_MAX));
        pending.push((std::mem::replace(&mut documents, rest), Tries::default()));
    }
    while let Some((mut part, mut tries)) = pending.pop() {
        let (span, began) = (spans::transaction(part.len(), round), Instant::now());
        let done = transact(run, &part).instrument(span.clone()).await;
        run.meters.transaction(done.is_ok(), began.elapsed());
        let Err(error) = done else {
            span.record("outcome", "committed");
            continue;
        };
        spans::failed(&span, &error);
        run.tell_unsure().await;
        match error.kind() {
            ErrorKind::Busy | ErrorKind::Setup => return Err(error),
            // The next run does them.
            ErrorKind::Stopped => run.patience.give_up(),
            _ if error.is_transient() && run.patience.is_stopped() => run.patience.give_up(),
            _ if error.may_pass() && run.patience.again(&mut tries, &error).await => {
                pending.push((part, tries))
            }
            ErrorKind::Connection => return Err(error),
            _ if part.len() > 1 && !error.is_disk_full() => {
                let right = part.split_off(part.len() / 2);
                pending.extend([(right, tries), (part, tries)]);
            }
            _ => part.into_iter().for_each(|document| fail(document, &error)),
        }
    }
    Ok(())
}

async fn transact(run: &Run, documents: &[(DocumentKey, Held)]) -> Result<(), Error> {
    let mut connection = run.connection().await?;
    let transaction = begin(&mut connection, run.limits()).await?;
    run.enter(&transaction).await?;
    let Found { sides, documents, unsure } = find(run, &transaction, documents.iter().collect()).await?;
    let (plan, times) = remove(run, &transaction, &sides, documents.len()).await?;
    let keys: Vec<&DocumentKey> = documents.iter().map(|(key, _)| key).collect();
    let changes = run.changes(&transaction, &sides, &plan, &[], &keys).await?;
    let sure = documents.iter().enumerate().filter(|(at, (_, held))| held.settles && !unsure.contains(at));
    let recorded: Vec<_> = sure.map(|(_, (key, held))| (key, held.fingerprint)).collect();
    let settled = match run.purpose.writes() {
        true => state::settle(&transaction, run.lease.mapping, &recorded).await?,
        false => recorded.len() as i64,
    };
    let pending = run.pend(&transaction, changes).await?;
    let pending = run.commit(transaction, pending).await?;
    drop(connection);
    run.tally(|tally| {
        tally.applied(&plan, 0, &times);
        let unsettled = &mut tally.report.documents.unsettled;
        *unsettled = unsettled.saturating_sub(settled as u64);
    });
    pending.tell().await;
    Ok(())
}

/// What is to be removed of documents.
struct Found<'h> {
    sides: Vec<Sides>,
    documents: Vec<&'h (DocumentKey, Held)>,
    /// Of which a row could not be found although its table has no key to tell that it is gone.
    unsure: HashSet<usize>,
}

/// All rows to remove, but of documents that have one for which another one asks that was not stored.
async fn find<'h>(
    run: &Run,
    transaction: &Transaction<'_>,
    documents: Vec<&'h (DocumentKey, Held)>,
) -> Result<Found<'h>, Error> {
    let mut sides: Vec<Sides> = run.mapping.relations.iter().map(|_| Sides::default()).collect();
    let mut unsure = HashSet::new();
    for ix in 1..sides.len() {
        let (mut stored, missing) = tops(run, transaction, ix, &documents).await?;
        let outer = run.mapping.relations[ix].enclosing.unwrap_or(0);
        let (tables, outer_rows) = (&run.schema.tables, &sides[outer].stored);
        let mut inner = below(transaction, &tables[ix], &tables[outer], outer_rows).await?;
        for row in &mut inner {
            row.document = row.parent.and_then(|parent| outer_rows[parent as usize].document);
        }
        stored.extend(inner);
        if let Some(foresight) = run.purpose.foresight() {
            stored.retain(|row| !foresight.has_moved(ix, &tables[ix], row));
        }
        sides[ix] = Sides::removed(stored);
        unsure.extend(missing);
    }
    let asked = run.asked_for(&sides);
    if asked.is_empty() {
        return Ok(Found { sides, documents, unsure });
    }
    let left = (0..).zip(documents).filter(|(at, _)| !asked.contains(&Some(*at)));
    Box::pin(find(run, transaction, left.map(|(_, document)| document).collect())).await
}

/// Removes all rows that were read, of so many documents.
pub(super) async fn remove(
    run: &Run,
    transaction: &Transaction<'_>,
    sides: &[Sides],
    documents: usize,
) -> Result<(Plan, Vec<Duration>), Error> {
    let (mapping, schema) = (&run.mapping, &run.schema);
    let batch = Batch { mapping, schema, sides, documents, holds: false, marked: Marked::No };
    if !run.purpose.writes() {
        return Ok((plan(batch, &[]), vec![Duration::ZERO; sides.len()]));
    }
    if let Some(bystander) = bystanders(transaction, batch).await?.pop() {
        let relation = &mapping.relations[bystander.relation].name;
        return Err(Error::new(ErrorKind::Rejected, bystander.message).in_relation(relation));
    }
    let plan = plan(batch, &[]);
    let mut writer = Writer::new(transaction, batch, None, &plan, HashMap::new(), false).await?;
    let times = writer.apply(&plan, vec![Duration::ZERO; sides.len()]).await?;
    Ok((plan, times))
}

/// The topmost rows to remove that still hang where they hung; and the documents of which one is missing, where that
/// tells nothing.
async fn tops(
    run: &Run,
    transaction: &Transaction<'_>,
    ix: RelationIx,
    documents: &[&(DocumentKey, Held)],
) -> Result<(Vec<StoredRow>, Vec<usize>), Error> {
    let (relation, table) = (&run.mapping.relations[ix], &run.schema.tables[ix]);
    let everywhere = relation.unique_in == UniqueIn::All;
    let mut wanted: HashMap<Tuple, (usize, &Tuple)> = HashMap::new();
    let mut values = Vec::new();
    for (at, (_, held)) in documents.iter().enumerate() {
        for row in held.rows.iter().filter(|row| row.relation == ix) {
            let name = if everywhere { compared_cells(table, &row.key) } else { row.place.clone() };
            wanted.insert(name, (at, &row.reference));
            values.push(if everywhere { row.key.clone() } else { row.place.clone() });
        }
    }
    let columns = if everywhere { table.key_columns() } else { table.locator[..table.own_locator].to_vec() };
    let mut stored = rows(transaction, table, &columns, &values).await?;
    stored.retain_mut(|row| {
        let name = if everywhere { comparison_key(table, &row.tuple) } else { own_place(table, row) };
        let hung = wanted.remove(&name).filter(|(_, reference)| **reference == row.reference);
        row.document = hung.map(|(at, _)| at as u32);
        row.document.is_some()
    });
    let physical = !everywhere && table.is_found_by_place();
    let missing = wanted.into_values().map(|(at, _)| at).filter(|_| physical).collect();
    Ok((stored, missing))
}

/// The locator without the version, which may have changed, and without the reference to the parent.
pub(crate) fn own_place(table: &Table, row: &StoredRow) -> Tuple {
    own_part(table, &row.locator)
}

/// The part of a locator that is the row's own.
pub(crate) fn own_part(table: &Table, locator: &Tuple) -> Tuple {
    locator.project(&(0..table.own_locator).collect::<Vec<_>>())
}
