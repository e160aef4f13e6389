//! Reads stored rows as raw cells.

use std::collections::HashMap;
use std::ops::Range;

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

/// Rows of a relation whose `columns` have one of the values.
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
    let sql = format!("SELECT {} FROM {} t{condition}", select_list(table), table.name);
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

/// The end of a query for rows whose `columns` have one of the values, by arrays that an index can answer:
/// one column takes `= ANY`, which is cheapest; several are joined with the arrays side by side.
pub(crate) fn matching(alias: &str, columns: &[PhysicalColumn], values: &[Tuple]) -> (String, Vec<Param>) {
    let mut values: Vec<&Tuple> = values.iter().collect();
    values.sort_unstable();
    values.dedup();
    let params = columns.iter().enumerate().map(|(at, column)| {
        let cells = values.iter().map(|value| value.cell(at).bytes());
        array(column.ty.oid, column.ty.array_oid, cells)
    });
    let clause = match columns {
        [column] => format!(" WHERE {alias}.{} = ANY ($1)", quote(&column.name)),
        _ => {
            let list =
                |text: &dyn Fn(usize) -> String| (0..columns.len()).map(text).collect::<Vec<_>>().join(", ");
            let equal =
                |(at, column): (usize, &PhysicalColumn)| format!("{alias}.{} = k.c{at}", quote(&column.name));
            let equal: Vec<String> = columns.iter().enumerate().map(equal).collect();
            format!(
                " JOIN unnest({}) AS k ({}) ON {}",
                list(&|at| format!("${}", at + 1)),
                list(&|at| format!("c{at}")),
                equal.join(" AND ")
            )
        }
    };
    (clause, params.collect())
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
    let mut take = |count: usize| {
        at += count;
        cells(row, at - count..at)
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

/// Cells of a result, not decoded.
pub(crate) fn cells(row: &Row, places: Range<usize>) -> Result<Tuple, Error> {
    let mut tuple = Tuple::default();
    for at in places {
        tuple.push_value(raw(row, at)?);
    }
    Ok(tuple)
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
