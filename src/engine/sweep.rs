//! Documents that are missing from a feed declared complete.
//!
//! Only what this mapping has recorded is looked for: rows of others in the root table are theirs. Nothing is swept
//! because of a feed that may not be what it was declared to be; and what is to go is counted before the first row does.

use std::sync::Arc;

use tokio_postgres::Transaction;

use crate::document::{DocumentKey, Origin};
use crate::engine::batch::removals;
use crate::engine::guard::{Reservation, Rows};
use crate::engine::held::{in_parts, remove};
use crate::engine::report::Failure;
use crate::engine::run::Run;
use crate::engine::whole::whole;
use crate::error::Error;
use crate::mapping::OnAbsent;
use crate::plan::Sides;
use crate::postgres::absent::mark_absent;
use crate::postgres::begin;
use crate::postgres::state;
use crate::row::{Cell, Tuple};
use crate::schema::Schema;
use crate::shred::{NULL_LABEL, key_cells};
use crate::value::{ColumnType, Kind};

/// Documents that are counted in one transaction.
const DOCUMENTS_MAX: usize = 500;

/// A feed with less than this share of the documents of the last complete one is not taken for complete.
const SHARE_MIN: f64 = 0.5;

/// Removes, or marks, the documents that the feed does not have.
///
/// # Errors
/// Only what ends the run: the lease was lost, or the database is out of reach.
pub(crate) async fn sweep(run: &Arc<Run>) -> Result<(), Error> {
    if run.patience.is_stopped() {
        run.patience.give_up();
        return Ok(());
    }
    let (absent, seen) = run.patience.retry(|| absent(run)).await?;
    let reason = run.patience.retry(|| doubt(run, seen)).await?;
    run.tally(|tally| {
        tally.report.documents.absent = absent.len() as u64;
        tally.report.complete = reason.is_none();
    });
    match (&run.mapping.sync.on_absent, reason) {
        (OnAbsent::Keep, _) => Ok(()),
        _ if absent.is_empty() => Ok(()),
        (_, Some(reason)) => {
            withhold(run, absent.len() as u64, reason);
            Ok(())
        }
        (OnAbsent::Mark(_), None) => {
            in_parts(run, "sweep", absent, |run, part| Box::pin(mark(run, part)), fail(run)).await
        }
        (OnAbsent::Delete, None) => delete(run, absent).await,
    }
}

/// The documents recorded that the feed does not have, and how many it has.
async fn absent(run: &Run) -> Result<(Vec<DocumentKey>, u64), Error> {
    let (seen, nameless) = {
        let registry = run.registry();
        (registry.seen(), registry.nameless())
    };
    let client = run.connection().await?;
    let mut absent = Vec::new();
    let collect = |key: DocumentKey| {
        if !seen.contains(&key.short()) && key_cells(&run.schema, &key).is_some() {
            absent.push(key);
        }
    };
    state::present(&client, run.lease.mapping, collect).await?;
    absent.sort_unstable();
    Ok((absent, seen.len() as u64 + nameless))
}

/// Why the feed should not be taken for complete.
async fn doubt(run: &Run, seen: u64) -> Result<Option<String>, Error> {
    let nameless = run.registry().nameless();
    if seen == 0 {
        return Ok(Some("the feed is empty".into()));
    }
    if nameless > 0 {
        let message =
            format!("{nameless} documents failed of which not even the key could be read; mend these first");
        return Ok(Some(message));
    }
    if let Some(expected) = run.options.expect {
        let message = format!("the feed has {seen} documents; at least {expected} were expected");
        return Ok((seen < expected).then_some(message));
    }
    let client = run.connection().await?;
    let last = state::last_complete(&client, run.lease.mapping).await?.unwrap_or(0);
    let message = format!(
        "the feed has {seen} documents; the last complete one had {last}, of which it must have half: if the feed is \
         whole, --expect {seen}"
    );
    Ok(((seen as f64) < SHARE_MIN * last as f64).then_some(message))
}

fn withhold(run: &Run, documents: u64, reason: String) {
    tracing::warn!(documents, reason, "nothing is swept");
    run.tally(|tally| {
        tally.report.documents.withheld += documents;
        tally.withheld_because(reason);
    });
}

/// What is said of a document that cannot be swept.
fn fail(run: &Run) -> impl Fn(DocumentKey, &Error) + '_ {
    |key, error| {
        let label = label(&run.schema, &key);
        let failure = Failure::of_error(&Origin::default(), &label, error);
        run.tally(|tally| tally.fail_all(vec![failure]));
    }
}

/// A key in words, where its types are common ones; else its bytes.
fn label(schema: &Schema, key: &DocumentKey) -> String {
    let cells = key_cells(schema, key).unwrap_or_default();
    let word = |(ty, cell): (&ColumnType, Cell<'_>)| {
        let Some(bytes) = cell.bytes() else { return NULL_LABEL.to_owned() };
        let number = match (&ty.kind, bytes) {
            (Kind::Int2, &[a, b]) => Some(i64::from(i16::from_be_bytes([a, b]))),
            (Kind::Int4, &[a, b, c, d]) => Some(i64::from(i32::from_be_bytes([a, b, c, d]))),
            (Kind::Int8, bytes) => bytes.try_into().ok().map(i64::from_be_bytes),
            _ => None,
        };
        let hex = || bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let text = || match ty.kind {
            Kind::Text | Kind::Varchar(_) => String::from_utf8_lossy(bytes).into_owned(),
            _ => hex(),
        };
        number.map_or_else(text, |number| number.to_string())
    };
    let types = schema.tables[0].key_types();
    types.into_iter().zip(cells.cells()).map(word).collect::<Vec<_>>().join(",")
}

/// Marks root rows, and has their documents looked at should they come back.
async fn mark(run: &Run, keys: &[DocumentKey]) -> Result<(), Error> {
    let mut connection = run.connection().await?;
    let transaction = begin(&mut connection, run.limits()).await?;
    run.enter(&transaction).await?;
    let tuples: Vec<Tuple> = keys.iter().filter_map(|key| key_cells(&run.schema, key)).collect();
    let mark = run.absent_mark(true);
    let (marked, changes) = mark_absent(&transaction, &run.mapping, &run.schema, &tuples, mark).await?;
    if run.purpose.writes() {
        state::absent(&transaction, run.lease.mapping, keys).await?;
    }
    let pending = run.pend(&transaction, changes).await?;
    let pending = run.commit(transaction, pending).await?;
    drop(connection);
    run.tally(|tally| tally.report.marks += marked);
    pending.tell().await;
    Ok(())
}

/// Deletes documents, all of them or none.
async fn delete(run: &Arc<Run>, absent: Vec<DocumentKey>) -> Result<(), Error> {
    let documents = absent.len() as u64;
    match run.patience.retry(|| reserve(run, &absent)).await? {
        Err(reason) => withhold(run, documents, reason),
        Ok(reservation) => {
            in_parts(run, "sweep", absent, |run, part| Box::pin(delete_part(run, part)), fail(run)).await?;
            reservation.keep();
        }
    }
    Ok(())
}

/// Counts all that would go.
async fn reserve<'r>(run: &'r Run, keys: &[DocumentKey]) -> Result<Result<Reservation<'r>, String>, Error> {
    let mut connection = run.connection().await?;
    let (mut all, mut per_relation) = (Rows::new(), vec![0; run.mapping.relations.len()]);
    for keys in keys.chunks(DOCUMENTS_MAX) {
        let transaction = begin(&mut connection, run.limits()).await?;
        let (sides, _) = read(run, &transaction, keys).await?;
        for (table, rows) in removals(run, &transaction, &sides).await?.0 {
            *all.entry(table).or_default() += rows;
        }
        per_relation.iter_mut().zip(&sides).for_each(|(rows, side)| *rows += side.stored.len() as u64);
    }
    let reserved = run.guard.reserve(&**connection, all).await?;
    if reserved.is_err() {
        run.tally(|tally| tally.withheld_rows(&per_relation));
    }
    Ok(reserved)
}

async fn delete_part(run: &Run, keys: &[DocumentKey]) -> Result<(), Error> {
    let mut connection = run.connection().await?;
    let transaction = begin(&mut connection, run.limits()).await?;
    run.enter(&transaction).await?;
    let (sides, gone) = read(run, &transaction, keys).await?;
    let (plan, times) = remove(run, &transaction, &sides, gone.len()).await?;
    let changes = run.changes(&transaction, &sides, &plan, &[], &gone.iter().collect::<Vec<_>>()).await?;
    if run.purpose.writes() {
        state::forget(&transaction, run.lease.mapping, &gone).await?;
    }
    let pending = run.pend(&transaction, changes).await?;
    let pending = run.commit(transaction, pending).await?;
    drop(connection);
    run.tally(|tally| {
        tally.applied(&plan, 0, &times);
        tally.report.documents.removed += gone.len() as u64;
    });
    pending.tell().await;
    Ok(())
}

/// All rows of documents, but of those that have one for which a document asks that was not stored: the next run may
/// move it. Gives the documents that may go, too.
async fn read(
    run: &Run,
    transaction: &Transaction<'_>,
    keys: &[DocumentKey],
) -> Result<(Vec<Sides>, Vec<DocumentKey>), Error> {
    let all: Vec<&DocumentKey> = keys.iter().collect();
    let mut stored = whole(transaction, &run.mapping, &run.schema, &all).await?;
    if let Some(foresight) = run.purpose.foresight() {
        stored = foresight.without_moved(&run.mapping, &run.schema, stored);
    }
    let sides: Vec<Sides> = stored.into_iter().map(Sides::removed).collect();
    let wanted = run.asked_for(&sides);
    if !wanted.is_empty() {
        let left = (0..).zip(keys).filter(|(at, _)| !wanted.contains(&Some(*at))).map(|(_, key)| key.clone());
        return Box::pin(read(run, transaction, &left.collect::<Vec<_>>())).await;
    }
    Ok((sides, keys.to_vec()))
}
