//! What somebody does by hand after the last night.

use fastrand::Rng;

use super::shape::{Place, Rel, name};

/// A statement that changes one row; the server may refuse it. And whether, once it is mended, every table is as the
/// feeds make it: a row that was moved may hang where no document says anything.
pub fn draw(relations: &[Rel], rng: &mut Rng) -> (String, bool) {
    let rel = &relations[rng.usize(0..relations.len())];
    let table = name(&rel.table);
    let row = |rng: &mut Rng, list: &str| {
        format!("(SELECT {list} FROM {table} ORDER BY md5(ctid::text || '{}') LIMIT 1)", rng.u64(..))
    };
    let parents = rel.parent.iter().map(|column| name(column)).collect::<Vec<_>>().join(", ");
    let columns: Vec<_> = rel.columns.iter().filter(|col| !matches!(col.place, Place::Position(_))).collect();
    // A row that is made anew has nothing of what the last documents were silent about.
    let is_said = rel.columns.iter().all(|col| !col.keep) && !relations.iter().any(|rel| rel.cascade);
    match rng.usize(0..3) {
        0 => (format!("DELETE FROM {table} WHERE ctid = {}", row(rng, "ctid")), is_said),
        1 if !parents.is_empty() => {
            let (other, one) = (row(rng, &parents), row(rng, "ctid"));
            (format!("UPDATE {table} SET ({parents}) = {other} WHERE ctid = {one}"), false)
        }
        _ => {
            let column = name(&columns[rng.usize(0..columns.len())].name);
            (format!("UPDATE {table} SET {column} = NULL WHERE ctid = {}", row(rng, "ctid")), true)
        }
    }
}
