//! What a batch removes, and whether that is too much.

use std::collections::BTreeMap;

use tokio_postgres::Transaction;

use super::Recorded;
use crate::engine::guard::{Reservation, Rows};
use crate::engine::run::Run;
use crate::error::{Error, ErrorKind};
use crate::plan::Sides;
use crate::postgres::cascade;

/// A document that would delete rows.
pub(in crate::engine) struct Withheld {
    /// Its place among those that were tried.
    pub document: usize,
    /// How many, per relation.
    pub rows: Vec<u64>,
}

/// Per document, how many of its rows go, now or at the end of the feed, in each relation. Documents of which none
/// does are left out.
pub(super) type Removed = BTreeMap<u32, Vec<u64>>;

/// The right to delete what the documents give up, now or at the end of the feed, and what goes along, if that is
/// anything; and what they give up. `Err`: the documents that do, if it is too much.
pub(super) async fn reserve<'r>(
    run: &'r Run,
    transaction: &Transaction<'_>,
    batch: &Recorded<'_>,
    sides: &[Sides],
) -> Result<Result<(Option<Reservation<'r>>, Removed), Vec<Withheld>>, Error> {
    if sides.iter().all(|side| side.changes.removed.is_empty()) {
        return Ok(Ok((None, Removed::new())));
    }
    let (mut rows, removed) = removals(run, transaction, sides).await?;
    for document in &batch.looked_at {
        run.less_reserved(&document.key, &mut rows);
    }
    Ok(match run.guard.reserve(transaction, rows).await? {
        Ok(reservation) => Ok((Some(reservation), removed)),
        // Whose rows they are is not known: they are refused with the whole batch.
        Err(reason) if removed.is_empty() => return Err(Error::new(ErrorKind::Rejected, reason)),
        Err(reason) => {
            run.tally(|tally| tally.withheld_because(reason));
            let withheld =
                |(at, rows): (u32, Vec<u64>)| Withheld { document: batch.places[at as usize], rows };
            Err(removed.into_iter().map(withheld).collect())
        }
    })
}

/// The rows that a batch removes, per table with those that go along, and per document and relation.
pub(in crate::engine) async fn removals(
    run: &Run,
    transaction: &Transaction<'_>,
    sides: &[Sides],
) -> Result<(Rows, Removed), Error> {
    let cascading = run.guard.cascading(transaction, &run.schema).await?;
    let mut rows = cascade::count(transaction, &run.schema, cascading, sides).await?;
    let mut per_document = Removed::new();
    for (ix, side) in sides.iter().enumerate().filter(|(_, side)| !side.changes.removed.is_empty()) {
        let removed = &side.changes.removed;
        *rows.entry(run.schema.tables[ix].name.clone()).or_default() += removed.len() as u64;
        for document in removed.iter().filter_map(|&row| side.stored[row as usize].document) {
            per_document.entry(document).or_insert_with(|| vec![0; sides.len()])[ix] += 1;
        }
    }
    Ok((rows, per_document))
}
