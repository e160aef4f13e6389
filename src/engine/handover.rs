//! Keys that pass from one row to another under the eyes of rows that refer to them.
//!
//! A unique constraint wants the old row to let go of the key before the new one takes it; a foreign key that is
//! checked at once wants the key never to be gone. No order satisfies both, so rows that refer to it, of any document,
//! refer to nothing in between: their columns are NULL for a while, where they may be.

use std::collections::BTreeSet;

use tokio_postgres::Transaction;

use crate::engine::bystanders::staying;
use crate::engine::held::{own_part, own_place};
use crate::error::{Error, ErrorKind};
use crate::mapping::RelationIx;
use crate::plan::{Batch, Losses, StoredRow, handovers};
use crate::postgres::fetch::{cells, selected};
use crate::postgres::quote;
use crate::postgres::wire::{Param, typed};
use crate::postgres::write::Locators;
use crate::row::Tuple;
use crate::schema::{Attribute, Schema, Table};

/// A row that refers to nothing for a while.
pub(crate) struct Detached {
    relation: RelationIx,
    /// The mapped columns that are NULL meanwhile.
    columns: BTreeSet<usize>,
    row: StoredRow,
    /// Its place among the rows of the batch, if it is one of them.
    stored: Option<u32>,
    /// Its locator meanwhile.
    locator: Tuple,
}

impl Detached {
    fn new(batch: Batch<'_>, relation: RelationIx, columns: &[usize], row: StoredRow) -> Self {
        let columns = columns.iter().copied().collect();
        let (table, stored) = (&batch.schema.tables[relation], &batch.sides[relation].stored);
        let place = own_place(table, &row);
        let stored = stored.iter().position(|row| own_place(table, row) == place).map(|at| at as u32);
        Detached { relation, columns, locator: row.locator.clone(), row, stored }
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
        let names = columns.iter().map(|&at| table.names[at].as_str());
        let assigned = names.enumerate().map(equal).collect::<Vec<_>>().join(", ");
        let own = table.locator[..table.own_locator].iter();
        let found = own.clone().enumerate().map(|(n, column)| equal((columns.len() + n, &column.name)));
        let found = found.collect::<Vec<_>>().join(" AND ");
        let returned = table.locator.iter().map(|column| selected("t", &column.name, &column.ty));
        let returned = returned.collect::<Vec<_>>().join(", ");
        let assigns = columns.iter().map(|&at| Param::scalar(table.columns[at].oid, value(at)));
        let finds = own.zip(place.cells()).map(|(column, cell)| Param::scalar(column.ty.oid, cell.bytes()));
        let params: Vec<Param> = assigns.chain(finds).collect();
        let sql = format!("UPDATE {} AS t SET {assigned} WHERE {found} RETURNING {returned}", table.name);
        match &transaction.query_typed(&sql, &typed(&params)).await?[..] {
            [row] => cells(row, 0..table.locator.len()),
            _ => {
                let message = "a row that refers to a key that passes was changed meanwhile";
                Err(Error::new(ErrorKind::Transient, message))
            }
        }
    }
}

/// Detaches the rows that refer to keys about to pass, each by one write though it refers to several of them.
pub(crate) async fn detach(transaction: &Transaction<'_>, batch: Batch<'_>) -> Result<Vec<Detached>, Error> {
    let mut detached: Vec<Detached> = Vec::new();
    for losses in handovers(batch) {
        let (relation, table) = (losses.relation, &batch.schema.tables[losses.relation]);
        let columns = clearable(table, &losses);
        if columns.is_empty() {
            continue;
        }
        for row in staying(transaction, batch, &losses).await? {
            let place = own_place(table, &row);
            let is_it = |one: &Detached| one.relation == relation && own_place(table, &one.row) == place;
            match detached.iter().position(is_it) {
                Some(at) => detached[at].columns.extend(&columns),
                None => detached.push(Detached::new(batch, relation, &columns, row)),
            }
        }
    }
    for one in &mut detached {
        let table = &batch.schema.tables[one.relation];
        one.locator = one.set(transaction, table, &one.locator, |_| None).await?;
    }
    Ok(detached)
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

/// The referring columns that can be NULL.
fn clearable(table: &Table, losses: &Losses<'_>) -> Vec<usize> {
    let columns = losses.reference.from.iter().filter_map(|attribute| match attribute {
        Attribute::Mapped(at) => Some(*at),
        _ => None,
    });
    columns.filter(|&at| table.nullable[at]).collect()
}
