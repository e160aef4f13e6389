//! Reads stored rows as raw cells.

use std::collections::HashMap;

use futures_util::TryStreamExt;
use tokio_postgres::{Row, Transaction};

use crate::error::Error;
use crate::fingerprint;
use crate::plan::StoredRow;
use crate::postgres::quote;
use crate::postgres::wire::{Param, Raw, array};
use crate::row::{Cell, Tuple};
use crate::schema::{PhysicalColumn, Table};
use crate::value::ColumnType;
use tokio_postgres::types::Type;

/// Rows of a relation whose `columns` have one of the values; each with its position in `values`, if the
/// columns are the ones that refer to the enclosing row.
pub(crate) async fn rows(
    transaction: &Transaction<'_>,
    table: &Table,
    columns: &[PhysicalColumn],
    values: &[Tuple],
) -> Result<Vec<StoredRow>, Error> {
    if values.is_empty() {
        return Ok(Vec::new());
    }
    let (condition, params) = matching("t", columns, values);
    let sql = format!("SELECT {} FROM {} t WHERE {condition}", select_list(table), table.name);
    let typed = params.into_iter().map(|param| {
        let ty = param.ty();
        (param, ty)
    });
    let mut stream = std::pin::pin!(transaction.query_typed_raw(&sql, typed).await?);
    let mut rows = Vec::new();
    while let Some(row) = stream.try_next().await? {
        rows.push(stored(table, &row)?);
    }
    Ok(rows)
}

/// `(columns) matches one of values`, by arrays that an index can answer.
///
/// One column takes `= ANY`; several are compared column by column, which may find more than asked for (their
/// combinations); the caller pairs what comes back by value anyway, so those extra rows are dropped there.
pub(crate) fn matching(alias: &str, columns: &[PhysicalColumn], values: &[Tuple]) -> (String, Vec<Param>) {
    let condition = |(at, column): (usize, &PhysicalColumn)| {
        format!("{alias}.{} = ANY (${})", quote(&column.name), at + 1)
    };
    let conditions: Vec<String> = columns.iter().enumerate().map(condition).collect();
    let params = columns.iter().enumerate().map(|(at, column)| {
        let mut cells: Vec<&[u8]> = values.iter().filter_map(|value| value.cell(at).bytes()).collect();
        cells.sort_unstable();
        cells.dedup();
        array(column.ty.oid, column.ty.array_oid, cells.into_iter().map(Some))
    });
    (conditions.join(" AND "), params.collect())
}

/// Columns of the reference, the locator, the surrogate, then the mapped ones.
fn select_list(table: &Table) -> String {
    let physical = table.parent.iter().chain(&table.locator).chain(table.id.iter().map(|id| &id.column));
    let physical = physical.map(|column| selected("t", &column.name, &column.ty));
    let mapped = table.names.iter().zip(&table.columns).map(|(name, ty)| selected("t", name, ty));
    physical.chain(mapped).collect::<Vec<_>>().join(", ")
}

/// A column as it is selected. The client asks the server about types it does not know, by statements it
/// prepares; so their values are sent as `bytea`, by their own output function.
pub(crate) fn selected(alias: &str, name: &str, ty: &ColumnType) -> String {
    let column = format!("{alias}.{}", quote(name));
    match Type::from_oid(ty.oid) {
        Some(_) => column,
        None => format!("{}({column})", ty.send),
    }
}

fn stored(table: &Table, row: &Row) -> Result<StoredRow, Error> {
    let mut at = 0;
    let mut take = |count: usize| -> Result<Tuple, Error> {
        let mut tuple = Tuple::default();
        for _ in 0..count {
            tuple.push(raw(row, at)?.map_or(Cell::Null, Cell::Value));
            at += 1;
        }
        Ok(tuple)
    };
    let reference = take(table.parent.len())?;
    let locator = take(table.locator.len())?;
    let id = take(usize::from(table.id.is_some()))?;
    let tuple = take(table.columns.len())?;
    Ok(StoredRow {
        document: None,
        parent: None,
        reference,
        locator,
        id: id.cells().next().and_then(Cell::bytes).map(<[u8]>::to_vec),
        fingerprint: fingerprint::row(&table.columns, &tuple),
        tuple,
    })
}

/// The cell of a result, not decoded.
pub(crate) fn raw(row: &Row, at: usize) -> Result<Option<&[u8]>, Error> {
    Ok(row.try_get::<_, Option<Raw<'_>>>(at)?.map(|raw| raw.0))
}

/// What rows of enclosed relations refer to: the surrogate, else the key.
pub(crate) fn referable(table: &Table, row: &StoredRow) -> Tuple {
    match (&table.id, &row.id) {
        (Some(_), Some(id)) => Tuple::of([Cell::Value(id)]),
        _ => row.tuple.project(&table.key),
    }
}

/// Fills in the parents of rows, by what they refer to; drops rows that refer to none of them.
pub(crate) fn attach(rows: Vec<StoredRow>, parents: &HashMap<Tuple, u32>) -> Vec<StoredRow> {
    let attached = rows.into_iter().filter_map(|mut row| {
        row.parent = Some(*parents.get(&row.reference)?);
        Some(row)
    });
    attached.collect()
}
