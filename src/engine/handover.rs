//! Keys that pass from one row to another under the eyes of rows that refer to them.
//!
//! A unique constraint wants the old row to let go of the key before the new one takes it; a foreign key that is
//! checked at once wants the key never to be gone. No order satisfies both, so rows that refer to it, of any document,
//! refer to nothing in between, where their columns may be NULL, and else to another row that stays: a stand-in.

mod stand_ins;

use std::collections::{BTreeMap, BTreeSet};

use tokio_postgres::Transaction;

use crate::engine::bystanders::staying;
use crate::engine::held::{own_part, own_place};
use crate::error::{Error, ErrorKind};
use crate::mapping::RelationIx;
use crate::plan::{Batch, StoredRow, handovers};
use crate::postgres::fetch::{cells, rows, selected};
use crate::postgres::wire::{Param, typed};
use crate::postgres::write::{Locators, Verb, suppressed, suppressing};
use crate::postgres::{attempt, quote};
use crate::row::Tuple;
use crate::schema::{Schema, Table};
use stand_ins::{Meanwhile, meanwhile};

/// A row that refers to something else for a while.
pub(crate) struct Detached {
    relation: RelationIx,
    /// What the mapped columns of its references hold meanwhile.
    columns: BTreeMap<usize, Meanwhile>,
    row: StoredRow,
    /// Its place among the rows of the batch, if it is one of them.
    stored: Option<u32>,
    /// Its locator meanwhile.
    locator: Tuple,
}

impl Detached {
    fn new(batch: Batch<'_>, relation: RelationIx, row: StoredRow) -> Self {
        let (table, stored) = (&batch.schema.tables[relation], &batch.sides[relation].stored);
        let place = own_place(table, &row);
        let stored = stored.iter().position(|row| own_place(table, row) == place).map(|at| at as u32);
        Detached { relation, columns: BTreeMap::new(), locator: row.locator.clone(), row, stored }
    }

    /// Has it refer to something else: the first that the server takes. False: it takes nothing.
    async fn leave(&mut self, transaction: &Transaction<'_>, table: &Table) -> Result<bool, Error> {
        let tries = self.columns.values().map(Meanwhile::tries).max().unwrap_or(0);
        for nth in 0..tries {
            let value = |at: usize| self.columns[&at].nth(nth);
            match attempt(transaction, self.set(transaction, table, &self.locator, value)).await? {
                Ok(locator) => {
                    self.locator = locator;
                    return Ok(true);
                }
                // Whatever it refers to, a trigger will suppress it.
                Err(error) if error.code().is_none() => return Err(error),
                Err(refused) => tracing::debug!(table = table.name, %refused, "not detached"),
            }
        }
        Ok(false)
    }

    /// Sets its columns. Gives its locator then.
    async fn set<'r>(
        &self,
        transaction: &Transaction<'_>,
        table: &Table,
        locator: &Tuple,
        value: impl Fn(usize) -> Option<&'r [u8]>,
    ) -> Result<Tuple, Error> {
        let (columns, place) = (&self.columns, own_part(table, locator));
        let equal = |(n, name): (usize, &str)| format!("{} = ${}", quote(name), n + 1);
        let names = columns.keys().map(|&at| table.names[at].as_str());
        let assigned = names.enumerate().map(equal).collect::<Vec<_>>().join(", ");
        let own = table.locator[..table.own_locator].iter();
        let found = own.clone().enumerate().map(|(n, column)| equal((columns.len() + n, &column.name)));
        let found = found.collect::<Vec<_>>().join(" AND ");
        let returned = table.locator.iter().map(|column| selected("t", &column.name, &column.ty));
        let returned = returned.collect::<Vec<_>>().join(", ");
        let assigns = columns.keys().map(|&at| Param::scalar(table.columns[at].oid, value(at)));
        let finds = own.zip(place.cells()).map(|(column, cell)| Param::scalar(column.ty.oid, cell.bytes()));
        let params: Vec<Param> = assigns.chain(finds).collect();
        let sql = format!("UPDATE {} AS t SET {assigned} WHERE {found} RETURNING {returned}", table.name);
        match &transaction.query_typed(&sql, &typed(&params)).await?[..] {
            [row] => cells(row, 0..table.locator.len()),
            _ => Err(not_set(transaction, table, &place).await?),
        }
    }
}

/// Why a row was not written that is looked for by its own place: if it is there, a trigger did not let the write
/// through.
async fn not_set(transaction: &Transaction<'_>, table: &Table, place: &Tuple) -> Result<Error, Error> {
    if let Some(names) = suppressing(table, Verb::Update) {
        let own = &table.locator[..table.own_locator];
        if !rows(transaction, table, own, std::slice::from_ref(place)).await?.is_empty() {
            return Ok(suppressed(table, Verb::Update, (1, 1), &names));
        }
    }
    let message = "a row that refers to a key that passes was changed meanwhile";
    Ok(Error::new(ErrorKind::Transient, message))
}

/// Detaches the rows that refer to keys about to pass, each by one write though it refers to several of them. What the
/// server does not let go stays, for it to say what is wrong. Gives the documents that give up such a key, too.
pub(crate) async fn detach(
    transaction: &Transaction<'_>,
    batch: Batch<'_>,
) -> Result<(Vec<Detached>, BTreeSet<u32>), Error> {
    let mut referring: Vec<Detached> = Vec::new();
    let mut giving = BTreeSet::new();
    for losses in handovers(batch) {
        let (relation, table) = (losses.relation, &batch.schema.tables[losses.relation]);
        let rows = staying(transaction, batch, &losses).await?;
        if rows.is_empty() {
            continue;
        }
        giving.extend(losses.keys.iter().filter_map(|(_, document)| *document));
        let columns = meanwhile(transaction, batch, &losses).await?;
        for row in rows {
            let place = own_place(table, &row);
            let is_it = |one: &Detached| one.relation == relation && own_place(table, &one.row) == place;
            let at = referring.iter().position(is_it).unwrap_or_else(|| {
                referring.push(Detached::new(batch, relation, row));
                referring.len() - 1
            });
            referring[at].columns.extend(columns.clone());
        }
    }
    let mut detached = Vec::new();
    for mut one in referring {
        if one.leave(transaction, &batch.schema.tables[one.relation]).await? {
            detached.push(one);
        }
    }
    Ok((detached, giving))
}

/// Lets rows refer again to what they referred to. `written`: where rows of the batch are found by now.
pub(crate) async fn attach(
    transaction: &Transaction<'_>,
    schema: &Schema,
    detached: &[Detached],
    written: &Locators,
) -> Result<(), Error> {
    for one in detached {
        let value = |at: usize| one.row.tuple.cell(at).bytes();
        let locator = one.stored.and_then(|row| written.get(&(one.relation, row))).unwrap_or(&one.locator);
        one.set(transaction, &schema.tables[one.relation], locator, value).await?;
    }
    Ok(())
}

/// Where the detached ones among the rows of a batch are found meanwhile.
pub(crate) fn rewritten(detached: &[Detached]) -> Locators {
    let find = |one: &Detached| Some(((one.relation, one.stored?), one.locator.clone()));
    detached.iter().filter_map(find).collect()
}
