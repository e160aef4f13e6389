//! Reads stored rows as raw cells.

use std::collections::{BTreeMap, HashMap};
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
use crate::value::{ColumnType, Kind, is_integer, resized};
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
    let mut rows = Vec::new();
    for (condition, params) in matching("t", columns, values) {
        let sql = format!("SELECT {} FROM {} t{condition}", select_list(table), table.name);
        let typed = params.into_iter().map(|param| {
            let ty = param.ty();
            (param, ty)
        });
        let mut stream = std::pin::pin!(transaction.query_typed_raw(&sql, typed).await?);
        while let Some(row) = stream.try_next().await? {
            rows.push(stored(table, &row)?);
        }
    }
    Ok(rows)
}

/// The ends of queries for rows whose `columns` have one of the values, NULL being a value like any other: one
/// query for the values without NULL, and one for each set of columns in which others have it.
pub(crate) fn matching(
    alias: &str,
    columns: &[PhysicalColumn],
    values: &[Tuple],
) -> Vec<(String, Vec<Param>)> {
    let mut by_nulls: BTreeMap<Vec<bool>, Vec<&Tuple>> = BTreeMap::new();
    for value in values {
        let nulls = value.cells().map(|cell| cell.bytes().is_none()).collect();
        by_nulls.entry(nulls).or_default().push(value);
    }
    let conditions = by_nulls.into_iter().flat_map(|(nulls, values)| {
        let is_single = |(column, null): (&PhysicalColumn, &bool)| !null && column.ty.array_oid == 0;
        match columns.iter().zip(&nulls).any(is_single) {
            true => values.into_iter().map(|value| matching_one(alias, columns, value)).collect(),
            false => vec![matching_nulls(alias, columns, &nulls, values)],
        }
    });
    conditions.collect()
}

/// For one value, where one of its columns has a type of which there are no arrays: an array's.
fn matching_one(alias: &str, columns: &[PhysicalColumn], value: &Tuple) -> (String, Vec<Param>) {
    let (mut conditions, mut params) = (Vec::new(), Vec::new());
    for (column, cell) in columns.iter().zip(value.cells()) {
        let name = format!("{alias}.{}", quote(&column.name));
        match cell.bytes() {
            None => conditions.push(format!("{name} IS NULL")),
            Some(bytes) => {
                params.push(Param::scalar(column.ty.oid, Some(bytes)));
                conditions.push(format!("{name} = ${}", params.len()));
            }
        }
    }
    (format!(" WHERE {}", conditions.join(" AND ")), params)
}

/// For values that have NULL in the same columns, by arrays that an index can answer: one column takes `= ANY`,
/// which is cheapest; several are joined with the arrays side by side.
fn matching_nulls(
    alias: &str,
    columns: &[PhysicalColumn],
    nulls: &[bool],
    mut values: Vec<&Tuple>,
) -> (String, Vec<Param>) {
    values.sort_unstable();
    values.dedup();
    let name = |at: usize| format!("{alias}.{}", quote(&columns[at].name));
    let (null, given): (Vec<usize>, Vec<usize>) = (0..columns.len()).partition(|&at| nulls[at]);
    let params = given.iter().map(|&at| {
        let cells = values.iter().map(|value| value.cell(at).bytes());
        array(columns[at].ty.oid, columns[at].ty.array_oid, cells)
    });
    let mut conditions: Vec<String> = null.iter().map(|&at| format!("{} IS NULL", name(at))).collect();
    let mut source = " WHERE ".to_owned();
    match given[..] {
        [] => {}
        [at] => conditions.push(format!("{} = ANY ($1)", name(at))),
        _ => {
            let list =
                |text: &dyn Fn(usize) -> String| (0..given.len()).map(text).collect::<Vec<_>>().join(", ");
            let (places, aliases) = (list(&|n| format!("${}", n + 1)), list(&|n| format!("c{n}")));
            source = format!(" JOIN unnest({places}) AS k ({aliases}) ON ");
            conditions.extend(given.iter().enumerate().map(|(n, &at)| format!("{} = k.c{n}", name(at))));
        }
    }
    (source + &conditions.join(" AND "), params.collect())
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
        fingerprint: fingerprint::row(table, &tuple),
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

/// How what is referred to becomes what the referring columns hold: integers may be of another width there.
pub(crate) struct Widths(Option<Vec<(Kind, Kind)>>);

impl Widths {
    /// Those of a table's references to the enclosing one.
    pub fn of(inner: &Table, outer: &Table) -> Self {
        let kinds = outer.referable_columns().into_iter().zip(&inner.parent);
        let kinds: Vec<(Kind, Kind)> = kinds.map(|(to, own)| (to.ty.kind, own.ty.kind.clone())).collect();
        let differ = kinds.iter().any(|(to, own)| is_integer(own) && own != to);
        Widths(differ.then_some(kinds))
    }

    /// Whether any differs.
    pub fn differ(&self) -> bool {
        self.0.is_some()
    }

    /// What a row holds that refers to this. `None`: its columns are too narrow.
    pub fn reference(&self, referable: Tuple) -> Option<Tuple> {
        let Some(kinds) = &self.0 else { return Some(referable) };
        let mut reference = Tuple::default();
        for ((to, own), cell) in kinds.iter().zip(referable.cells()) {
            match cell {
                Cell::Value(bytes) => reference.push(Cell::Value(&resized(bytes, to, own)?)),
                other => reference.push(other),
            }
        }
        Some(reference)
    }
}

/// The rows of a relation below stored rows of the enclosing one.
pub(crate) async fn below(
    transaction: &Transaction<'_>,
    table: &Table,
    outer: &Table,
    parents: &[StoredRow],
) -> Result<Vec<StoredRow>, Error> {
    let widths = Widths::of(table, outer);
    let refer = |(at, row)| Some((widths.reference(referable(outer, row))?, at));
    let parents: HashMap<Tuple, u32> = (0..).zip(parents).filter_map(refer).collect();
    let values: Vec<Tuple> = parents.keys().cloned().collect();
    Ok(attach(rows(transaction, table, &table.parent, &values).await?, &parents))
}

/// Fills in the parents of rows, by what they refer to; drops rows that refer to none of them.
pub(crate) fn attach(rows: Vec<StoredRow>, parents: &HashMap<Tuple, u32>) -> Vec<StoredRow> {
    let attached = rows.into_iter().filter_map(|mut row| {
        row.parent = Some(*parents.get(&row.reference)?);
        Some(row)
    });
    attached.collect()
}
