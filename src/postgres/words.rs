//! Stored values in words, as the server writes them.

use tokio_postgres::Transaction;

use crate::error::Error;
use crate::postgres::wire::{Param, array, typed};
use crate::row::Tuple;
use crate::schema::PhysicalColumn;

/// The cells of tuples as text; NULL, and a cell of a type of which there are no arrays, as `None`.
pub(crate) async fn words(
    transaction: &Transaction<'_>,
    columns: &[PhysicalColumn],
    tuples: &[Tuple],
) -> Result<Vec<Vec<Option<String>>>, Error> {
    let spoken: Vec<usize> = (0..columns.len()).filter(|&at| columns[at].ty.array_oid != 0).collect();
    let mut words = vec![vec![None; columns.len()]; tuples.len()];
    if spoken.is_empty() || tuples.is_empty() {
        return Ok(words);
    }
    let params: Vec<Param> = spoken
        .iter()
        .map(|&at| {
            let ty = &columns[at].ty;
            array(ty.oid, ty.array_oid, tuples.iter().map(|tuple| tuple.cell(at).bytes()))
        })
        .collect();
    let list = |text: &dyn Fn(usize) -> String| (0..spoken.len()).map(text).collect::<Vec<_>>().join(", ");
    let sql = format!(
        "SELECT {} FROM unnest({}) WITH ORDINALITY AS k ({}, n) ORDER BY n",
        list(&|n| format!("k.c{n}::text")),
        list(&|n| format!("${}", n + 1)),
        list(&|n| format!("c{n}")),
    );
    for (row, words) in transaction.query_typed(&sql, &typed(&params)).await?.iter().zip(&mut words) {
        for (n, &at) in spoken.iter().enumerate() {
            words[at] = row.try_get(n)?;
        }
    }
    Ok(words)
}
