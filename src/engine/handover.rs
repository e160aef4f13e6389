//! Keys that pass from one row to another under the eyes of rows that refer to them.
//!
//! A unique constraint wants the old row to let go of the key before the new one takes it; a foreign key that is
//! checked at once wants the key never to be gone. No order satisfies both, so rows that refer to it, of any document,
//! refer to nothing in between: their columns are NULL for a while, where they may be.

use tokio_postgres::Transaction;

use crate::engine::bystanders::staying;
use crate::engine::held::own_place;
use crate::error::{Error, ErrorKind};
use crate::mapping::RelationIx;
use crate::plan::{Batch, Losses, StoredRow, handovers};
use crate::postgres::quote;
use crate::postgres::wire::{Param, typed};
use crate::schema::{Attribute, Schema, Table};

/// A row that refers to nothing for a while.
pub(crate) struct Detached {
    relation: RelationIx,
    /// The mapped columns that are NULL meanwhile.
    columns: Vec<usize>,
    row: StoredRow,
}

/// Detaches the rows that refer to keys about to pass.
pub(crate) async fn detach(transaction: &Transaction<'_>, batch: Batch<'_>) -> Result<Vec<Detached>, Error> {
    let mut detached: Vec<Detached> = Vec::new();
    for losses in handovers(batch) {
        let table = &batch.schema.tables[losses.relation];
        let columns = clearable(table, &losses);
        if columns.is_empty() || table.is_found_by_place() {
            continue;
        }
        for row in staying(transaction, batch, &losses).await? {
            let one = Detached { relation: losses.relation, columns: columns.clone(), row };
            set(transaction, table, &one, |_| None).await?;
            detached.push(one);
        }
    }
    Ok(detached)
}

/// Lets rows refer again to what they referred to.
pub(crate) async fn attach(
    transaction: &Transaction<'_>,
    schema: &Schema,
    detached: &[Detached],
) -> Result<(), Error> {
    for one in detached {
        set(transaction, &schema.tables[one.relation], one, |at| one.row.tuple.cell(at).bytes()).await?;
    }
    Ok(())
}

/// The referring columns that can be NULL.
fn clearable(table: &Table, losses: &Losses<'_>) -> Vec<usize> {
    let columns = losses.reference.from.iter().filter_map(|attribute| match attribute {
        Attribute::Mapped(at) => Some(*at),
        _ => None,
    });
    columns.filter(|&at| table.nullable[at]).collect()
}

async fn set<'r>(
    transaction: &Transaction<'_>,
    table: &Table,
    one: &'r Detached,
    value: impl Fn(usize) -> Option<&'r [u8]>,
) -> Result<(), Error> {
    let (place, columns) = (own_place(table, &one.row), &one.columns);
    let equal = |(n, name): (usize, &str)| format!("{} = ${}", quote(name), n + 1);
    let names = columns.iter().map(|&at| table.names[at].as_str());
    let assigned = names.enumerate().map(equal).collect::<Vec<_>>().join(", ");
    let locator = table.locator[..table.own_locator].iter();
    let found = locator.clone().enumerate().map(|(n, column)| equal((columns.len() + n, &column.name)));
    let found = found.collect::<Vec<_>>().join(" AND ");
    let assigns = columns.iter().map(|&at| Param::scalar(table.columns[at].oid, value(at)));
    let finds = locator.zip(place.cells()).map(|(column, cell)| Param::scalar(column.ty.oid, cell.bytes()));
    let params: Vec<Param> = assigns.chain(finds).collect();
    let sql = format!("UPDATE {} SET {assigned} WHERE {found}", table.name);
    match transaction.execute_typed(&sql, &typed(&params)).await? {
        1 => Ok(()),
        _ => Err(Error::new(
            ErrorKind::Transient,
            "a row that refers to a key that passes was changed meanwhile",
        )),
    }
}
