//! Two databases hold the same: rows are compared by what is in them and in all rows around them, catalogue rows by their
//! keys, and no surrogate id is looked at.

use crate::nights::shape::{Col, Rel, Shape, name};
use crate::nights::value::Ty;
use crate::support::Database;

/// # Errors
/// The first relation of which they do not, and rows that only one of them has.
pub async fn compare(shape: &Shape, one: &Database, other: &Database) -> Result<(), String> {
    for ix in 0..shape.relations.len() {
        let sql = rows_sql(shape, ix);
        let (one, other) = (one.table(&sql).await, other.table(&sql).await);
        if one != other {
            let only = |these: &[Vec<Option<String>>], those: &[Vec<Option<String>>]| -> Vec<String> {
                let missing = these.iter().filter(|row| !those.contains(row));
                missing.take(3).map(|row| format!("{row:?}")).collect()
            };
            return Err(format!(
                "{}: {} rows by the engine, {} by SQL; only the engine's {:#?}, only SQL's {:#?}",
                shape.relations[ix].table,
                one.len(),
                other.len(),
                only(&one, &other),
                only(&other, &one)
            ));
        }
    }
    for catalogue in &shape.catalogues {
        let no = if catalogue.composite { "no" } else { "0" };
        let sql = format!("SELECT code, {no} FROM {} ORDER BY code COLLATE \"C\", 2", name(&catalogue.table));
        if one.table(&sql).await != other.table(&sql).await {
            return Err(format!("catalogue {} differs", catalogue.table));
        }
    }
    Ok(())
}

/// The rows of a relation with all rows around them, in an order that follows from their content.
fn rows_sql(shape: &Shape, ix: usize) -> String {
    let (mut cells, mut from) = (Vec::new(), String::new());
    let mut inner: Option<(usize, &Rel)> = None;
    for at in std::iter::successors(Some(ix), |&at| shape.relations[at].enclosing) {
        let rel = &shape.relations[at];
        cells.extend(
            rel.columns.iter().map(|col| cell_sql(shape, col, &format!("t{at}.{}", name(&col.name)))),
        );
        let table = format!("{} AS t{at}", name(&rel.table));
        from += &match inner {
            None => table,
            Some((below, inner)) => format!(" JOIN {table} ON {}", joined(rel, at, inner, below)),
        };
        inner = Some((at, rel));
    }
    format!("SELECT ROW({})::text COLLATE \"C\" AS r FROM {from} ORDER BY r", cells.join(", "))
}

fn joined(outer: &Rel, at: usize, inner: &Rel, below: usize) -> String {
    let to: Vec<&str> = match outer.id {
        Some((id, _)) => vec![id],
        None => outer.key.iter().map(|&column| outer.columns[column].name.as_str()).collect(),
    };
    let pairs = inner.parent.iter().zip(to);
    pairs
        .map(|(own, other)| format!("t{below}.{} = t{at}.{}", name(own), name(other)))
        .collect::<Vec<_>>()
        .join(" AND ")
}

/// A cell in a form that is the same for what counts as the same.
fn cell_sql(shape: &Shape, col: &Col, value: &str) -> String {
    if let Some(catalogue) = col.catalogue.map(|at| &shape.catalogues[at]) {
        let no = if catalogue.composite { "c.no" } else { "0" };
        return format!(
            "(SELECT ROW(c.code, {no}) FROM {} AS c WHERE c.id = {value})",
            name(&catalogue.table)
        );
    }
    match col.ty {
        Ty::Numeric => format!("trim_scale({value})"),
        // By jsonb's own equality, without the spelling of numbers.
        Ty::Jsonb => format!("(SELECT string_agg(e.key || '=' || CASE jsonb_typeof(e.value) WHEN 'number' THEN
            trim_scale(e.value::text::numeric)::text ELSE replace(e.value::text, '1.50,', '1.5,') END, ';' ORDER BY e.key)
            FROM jsonb_each({value}) AS e)"),
        _ => value.to_owned(),
    }
}
