//! The mark of root rows whose documents are missing from a complete feed.

use std::sync::Arc;

use tokio_postgres::{Row, Transaction};

use crate::error::Error;
use crate::mapping::Mapping;
use crate::postgres::changes::{Action, Change, Telling, Values};
use crate::postgres::fetch::matching;
use crate::postgres::quote;
use crate::postgres::wire::{Param, typed};
use crate::row::Tuple;
use crate::schema::{PhysicalColumn, Schema, Table};
use crate::shred::NULL_LABEL;

/// What becomes of the mark of root rows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AbsentMark {
    /// Whether it is set; else it is taken away.
    pub is_absent: bool,
    pub telling: Telling,
    /// Else it is only told.
    pub writes: bool,
}

/// Sets the mark of root rows, or takes it from them; given are their keys. Gives how many were changed, and the changes
/// where they are told.
pub(crate) async fn mark_absent(
    transaction: &Transaction<'_>,
    mapping: &Mapping,
    schema: &Schema,
    keys: &[Tuple],
    AbsentMark { is_absent, telling, writes }: AbsentMark,
) -> Result<(u64, Vec<Change>), Error> {
    let table = &schema.tables[0];
    let Some(column) = table.marks.absent.as_ref().filter(|_| !keys.is_empty()) else {
        return Ok((0, Vec::new()));
    };
    let name = quote(&column.name);
    let (value, now) = if is_absent { ("now()", "IS NULL") } else { ("NULL", "IS NOT NULL") };
    let (mut changed, mut changes) = (0, Vec::new());
    for (condition, params) in matching("t", &table.key_columns(), keys) {
        if telling.on {
            let found = format!("{condition} AND t.{name} {now}");
            changes.extend(marked(transaction, mapping, table, column, is_absent, (found, &params)).await?);
        }
        if !writes {
            continue;
        }
        let sql = format!(
            "UPDATE {table} SET {name} = {value} WHERE {name} {now} \
             AND (tableoid, ctid) IN (SELECT t.tableoid, t.ctid FROM {table} t{condition})",
            table = table.name
        );
        changed += transaction.execute_typed(&sql, &typed(&params)).await?;
    }
    Ok((if writes { changed } else { changes.len() as u64 }, changes))
}

/// The rows whose mark is about to change, in words.
async fn marked(
    transaction: &Transaction<'_>,
    mapping: &Mapping,
    table: &Table,
    column: &PhysicalColumn,
    is_absent: bool,
    (condition, params): (String, &[Param]),
) -> Result<Vec<Change>, Error> {
    let key = table.key_columns();
    let id = table.id.iter().map(|id| &id.column);
    let words = key.iter().chain(id).chain([column]).map(|column| format!("t.{}::text", quote(&column.name)));
    let words = words.collect::<Vec<_>>().join(", ");
    let sql = format!("SELECT {words}, now()::{}::text FROM {} t{condition}", column.ty.sql, table.name);
    let rows = transaction.query_typed(&sql, &typed(params)).await?;
    let relation: Arc<str> = mapping.name.as_str().into();
    let name: Arc<str> = mapping.root().table.to_string().into();
    let change = |row: &Row| {
        let of_key = key.iter().enumerate().map(|(at, column)| (column.name.as_str().into(), row.get(at)));
        let of_key = Values(of_key.collect());
        let (mark, now) = (row.len() - 2, row.len() - 1);
        let value = |is_set: bool, at: usize| {
            Values(vec![(column.name.as_str().into(), is_set.then(|| row.get(at)))])
        };
        Change {
            document: Some(
                of_key.iter().map(|(_, word)| word.unwrap_or(NULL_LABEL)).collect::<Vec<_>>().join(","),
            ),
            relation: relation.clone(),
            table: name.clone(),
            action: Action::Updated,
            id: table.id.as_ref().and_then(|_| row.get(key.len())),
            key: Some(of_key),
            parent: None,
            before: Some(value(!is_absent, mark)),
            after: Some(value(is_absent, now)),
        }
    };
    Ok(rows.iter().map(change).collect())
}
