//! What a row refers to while the key that it refers to passes from one row to another.

use std::collections::BTreeMap;

use tokio_postgres::Transaction;

use crate::error::Error;
use crate::plan::{Batch, Losses, changed_columns};
use crate::postgres::fetch::{raw, selected};
use crate::postgres::quote;
use crate::postgres::wire::{Param, array, typed};
use crate::row::Tuple;
use crate::schema::{Attribute, PhysicalColumn, Table};

/// Stand-ins tried for a row.
const STAND_INS_MAX: usize = 16;
/// Rows looked at for stand-ins to which nothing refers.
const CANDIDATES_MAX: usize = 1000;

/// What a column holds meanwhile.
#[derive(Clone)]
pub(super) enum Meanwhile {
    /// NULL.
    Null,
    /// One of these, in this order.
    StandIn(Vec<Vec<u8>>),
}

impl Meanwhile {
    /// How many values can be tried.
    pub fn tries(&self) -> usize {
        match self {
            Meanwhile::Null => 1,
            Meanwhile::StandIn(values) => values.len(),
        }
    }

    /// The value of a try; the last, where there are not so many.
    pub fn nth(&self, nth: usize) -> Option<&[u8]> {
        match self {
            Meanwhile::Null => None,
            Meanwhile::StandIn(values) => values.get(nth).or(values.last()).map(Vec::as_slice),
        }
    }
}

/// What the columns of a reference hold while its key passes: NULL, if one of them may be NULL; else the keys of
/// other rows, which the batch does not give up.
pub(super) async fn meanwhile(
    transaction: &Transaction<'_>,
    batch: Batch<'_>,
    losses: &Losses<'_>,
) -> Result<BTreeMap<usize, Meanwhile>, Error> {
    let table = &batch.schema.tables[losses.relation];
    let mapped = losses.reference.from.iter().map(|attribute| match attribute {
        Attribute::Mapped(at) => Some(*at),
        _ => None,
    });
    let mapped: Vec<Option<usize>> = mapped.collect();
    let clearable = mapped.iter().flatten().filter(|&&at| table.nullable[at]);
    let clearable: BTreeMap<usize, Meanwhile> = clearable.map(|&at| (at, Meanwhile::Null)).collect();
    match mapped.into_iter().collect::<Option<Vec<usize>>>() {
        Some(columns) if clearable.is_empty() => stand_ins(transaction, batch, losses, &columns).await,
        _ => Ok(clearable),
    }
}

async fn stand_ins(
    transaction: &Transaction<'_>,
    batch: Batch<'_>,
    losses: &Losses<'_>,
    columns: &[usize],
) -> Result<BTreeMap<usize, Meanwhile>, Error> {
    let (reference, table) = (losses.reference, &batch.schema.tables[losses.relation]);
    let target = &batch.schema.tables[reference.target];
    let key: Vec<PhysicalColumn> = reference.to.iter().filter_map(|to| target.column(to)).collect();
    let changing = keys_that_change(batch, losses);
    let sql = query(target, &key, table, columns);
    let params = key.iter().enumerate().map(|(at, column)| {
        let cells = changing.iter().map(|key| key.cell(at).bytes());
        array(column.ty.oid, column.ty.array_oid, cells)
    });
    let params: Vec<Param> = params.collect();
    let found = transaction.query_typed(&sql, &typed(&params)).await?;
    let mut values = vec![Vec::new(); columns.len()];
    for row in &found {
        for (place, values) in values.iter_mut().enumerate() {
            values.extend(raw(row, place)?.map(<[u8]>::to_vec));
        }
    }
    Ok(columns.iter().copied().zip(values.into_iter().map(Meanwhile::StandIn)).collect())
}

/// The keys that the batch gives up.
fn keys_that_change(batch: Batch<'_>, losses: &Losses<'_>) -> Vec<Tuple> {
    let (target, key) = (losses.reference.target, &losses.reference.to);
    let (side, table) = (&batch.sides[target], &batch.schema.tables[target]);
    let changes = |(stored, source): &(u32, u32), moves: bool| {
        let (stored, source) = (&side.stored[*stored as usize].tuple, &side.source[*source as usize].tuple);
        let columns = changed_columns(table, stored, source);
        key.iter().any(|attribute| match attribute {
            Attribute::Mapped(at) => columns.contains(at),
            Attribute::Parent(_) => moves,
            Attribute::Id | Attribute::Unmapped { .. } => false,
        })
    };
    let updated = side.changes.updated.iter().filter(|pair| changes(pair, false));
    let moved = side.changes.moved.iter().filter(|pair| changes(pair, true));
    let rows = side.changes.removed.iter().copied().chain(updated.chain(moved).map(|pair| pair.0));
    rows.filter_map(|row| side.stored[row as usize].cells(key)).collect()
}

/// Keys of other rows, as the referring columns would hold them; first those that nothing refers to, since a
/// reference may have to be unique.
fn query(target: &Table, key: &[PhysicalColumn], table: &Table, columns: &[usize]) -> String {
    let list =
        |text: &dyn Fn(usize) -> String, by: &str| (0..key.len()).map(text).collect::<Vec<_>>().join(by);
    let names: Vec<String> = key.iter().map(|column| quote(&column.name)).collect();
    let converted = list(&|n| format!("{}::{} AS c{n}", names[n], table.columns[columns[n]].sql), ", ");
    let known = list(&|n| format!("{} IS NOT NULL", names[n]), " AND ");
    let (places, aliases) = (list(&|n| format!("${}", n + 1), ", "), list(&|n| format!("k{n}"), ", "));
    let changes = list(&|n| format!("k.k{n} = t.{}", names[n]), " AND ");
    let refers = list(&|n| format!("r.{} = s.c{n}", quote(&table.names[columns[n]])), " AND ");
    let selected = list(&|n| selected("s", &format!("c{n}"), &table.columns[columns[n]]), ", ");
    format!(
        "SELECT {selected} FROM (SELECT {converted} FROM {} t WHERE {known} \
           AND NOT EXISTS (SELECT FROM unnest({places}) AS k ({aliases}) WHERE {changes}) \
           LIMIT {CANDIDATES_MAX}) AS s \
         ORDER BY EXISTS (SELECT FROM {} r WHERE {refers}) LIMIT {STAND_INS_MAX}",
        target.name, table.name
    )
}
