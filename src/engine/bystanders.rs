//! Rows that a foreign key's action would change or delete though their documents keep them as they are.
//!
//! `ON DELETE SET NULL` and its like do not refuse what a batch does; they pass it on. If the row that they change is
//! one that a document asks for, that document would count as stored and not be. So the rows that refer to what is
//! given up are looked for, in the batch and beside it, and what gives it up is not written while one of them stays.

use std::collections::HashSet;

use tokio_postgres::Transaction;

use crate::engine::held::own_place;
use crate::error::Error;
use crate::mapping::RelationIx;
use crate::plan::{Batch, Losses, StoredRow, losses};
use crate::postgres::fetch::{matching, rows};
use crate::postgres::wire::typed;
use crate::row::Tuple;
use crate::schema::{PhysicalColumn, Table};

/// Something that is not to be given up.
pub(crate) struct Bystander {
    /// The document that gives it up, if it is known.
    pub document: Option<u32>,
    /// The relation of what is given up.
    pub relation: RelationIx,
    /// Why not.
    pub message: String,
}

/// Finds what a batch may not give up.
pub(crate) async fn bystanders(
    transaction: &Transaction<'_>,
    batch: Batch<'_>,
) -> Result<Vec<Bystander>, Error> {
    let mut bystanders = Vec::new();
    for losses in losses(batch) {
        bystanders.extend(of_reference(transaction, batch, &losses).await?);
    }
    Ok(bystanders)
}

async fn of_reference(
    transaction: &Transaction<'_>,
    batch: Batch<'_>,
    losses: &Losses<'_>,
) -> Result<Vec<Bystander>, Error> {
    let Losses { relation, reference, keys, .. } = losses;
    let mut bystanders = Vec::new();
    for row in staying(transaction, batch, losses).await? {
        // Of another type it cannot be told here which key it is: then all are given up in vain.
        let refers = row.cells(&reference.from);
        let is_it = |key: &Tuple| refers.as_ref().is_none_or(|refers| refers == key);
        let any = keys.iter().any(|(key, _)| is_it(key));
        let blamed = keys.iter().filter(|(key, _)| !any || is_it(key));
        bystanders.extend(blamed.map(|(_, document)| Bystander {
            document: *document,
            relation: reference.target,
            message: format!(
                "a row of {} that stays refers to a row that this document gives up, and foreign key \"{}\" would change or \
                 delete it: make that NO ACTION DEFERRABLE, or map that table so that its row goes along",
                batch.mapping.relations[*relation].table, reference.name
            ),
        }));
    }
    Ok(bystanders)
}

/// The rows that refer to keys that are given up and go on doing so. No others can come to refer to them until the end
/// of the transaction: the rows that have these keys are locked.
pub(super) async fn staying(
    transaction: &Transaction<'_>,
    batch: Batch<'_>,
    losses: &Losses<'_>,
) -> Result<Vec<StoredRow>, Error> {
    let Losses { relation, reference, keys, leaving } = losses;
    let (table, target) = (&batch.schema.tables[*relation], &batch.schema.tables[reference.target]);
    // What is compared has the type of what is referred to: the two may differ.
    let columns = reference.from.iter().zip(&reference.to).filter_map(|(from, to)| {
        Some(PhysicalColumn { name: table.column(from)?.name, ty: target.column(to)?.ty })
    });
    let columns: Vec<PhysicalColumn> = columns.collect();
    let values: Vec<Tuple> = keys.iter().map(|(key, _)| key.clone()).collect();
    let referred: Vec<PhysicalColumn> = reference.to.iter().filter_map(|to| target.column(to)).collect();
    lock(transaction, target, &referred, &values).await?;
    let stored = &batch.sides[*relation].stored;
    let leaving: HashSet<Tuple> =
        leaving.iter().map(|&row| own_place(table, &stored[row as usize])).collect();
    let found = rows(transaction, table, &columns, &values).await?;
    Ok(found.into_iter().filter(|row| !leaving.contains(&own_place(table, row))).collect())
}

/// Locks the rows that have these keys against new references to them.
async fn lock(
    transaction: &Transaction<'_>,
    table: &Table,
    columns: &[PhysicalColumn],
    keys: &[Tuple],
) -> Result<(), Error> {
    for (condition, params) in matching("t", columns, keys) {
        let sql = format!("SELECT FROM {} t{condition} FOR UPDATE OF t", table.name);
        transaction.execute_typed(&sql, &typed(&params)).await?;
    }
    Ok(())
}
