//! Documents that must fail: made of good ones by one change, in a relation that is then to blame.

use fastrand::Rng;
use serde_json::{Value, json};

use crate::nights::shape::{Col, Kind, Place, Shape, Twins, name};
use crate::nights::value::Ty;
use crate::tally::Drawn;

/// Something that is no list stands for one.
pub const LIST: &str = "failing: no list";
/// Something that is no scalar stands for one.
pub const SCALAR: &str = "failing: no scalar";
/// A key is null.
pub const KEY: &str = "failing: null in a key";
/// A constraint of the table refuses a row.
pub const CHECK: &str = "failing: a constraint";

/// What no text may be.
const FORBIDDEN: &str = "forbidden";

/// Constraints that refuse [`FORBIDDEN`].
pub fn ddl(shape: &Shape) -> String {
    let mut sql = String::new();
    for rel in &shape.relations {
        for col in rel.columns.iter().filter(|col| is_text(col)) {
            sql += &format!(
                "ALTER TABLE {} ADD CHECK ({} <> '{FORBIDDEN}');\n",
                name(&rel.table),
                name(&col.name)
            );
        }
    }
    sql
}

/// What becomes of a reference to a row that the catalogue lacks.
fn missing<'s>(shape: &'s Shape, col: &Col) -> Option<&'s str> {
    Some(shape.catalogues[col.catalogue?].missing)
}

fn is_text(col: &Col) -> bool {
    col.ty == Ty::Text && col.catalogue.is_none() && col.place == Place::Field
}

/// One way to spoil a document.
struct Way<'s> {
    kind: &'static str,
    /// The JSON pointer of what is changed, and to what.
    at: String,
    to: Value,
    relation: &'s str,
}

/// A document that fails, and the relation that is to blame; `None` where nothing in it can be spoiled.
///
/// `reaches_tables`: whether it may fail in the tables, too. By then rows of catalogues are inserted.
pub fn spoil<'s>(
    shape: &'s Shape,
    text: &str,
    reaches_tables: bool,
    rng: &mut Rng,
    drawn: &mut Drawn,
) -> Option<(String, &'s str)> {
    let mut document: Value = serde_json::from_str(text).expect("a document is JSON");
    if !is_exact(&document) {
        return None;
    }
    let mut ways = Vec::new();
    find(shape, 0, &document, "", reaches_tables, true, &mut ways);
    // First the kind, or the most frequent one would be drawn nearly always.
    let mut kinds: Vec<&str> = ways.iter().map(|way| way.kind).collect();
    kinds.dedup();
    kinds.sort_unstable();
    kinds.dedup();
    let kind = *kinds.get(rng.usize(..kinds.len().max(1)))?;
    ways.retain(|way| way.kind == kind);
    let way = ways.swap_remove(rng.usize(..ways.len()));
    drawn.note(kind);
    drawn.note("failing document");
    let (within, field) = way.at.rsplit_once('/')?;
    let field = field.replace("~1", "/").replace("~0", "~");
    document.pointer_mut(within)?.as_object_mut()?.insert(field, way.to);
    Some((document.to_string(), way.relation))
}

/// Whether numbers are what they were in the text: as doubles equal siblings would differ.
fn is_exact(value: &Value) -> bool {
    match value {
        Value::Number(number) => number.as_f64().is_none_or(|double| !number.is_f64() || double.abs() < 1e15),
        Value::Array(items) => items.iter().all(is_exact),
        Value::Object(members) => members.values().all(is_exact),
        _ => true,
    }
}

/// `is_alone`: whether there is no other item in the list, or it is the document.
fn find<'s>(
    shape: &'s Shape,
    ix: usize,
    item: &Value,
    at: &str,
    reaches_tables: bool,
    is_alone: bool,
    ways: &mut Vec<Way<'s>>,
) {
    let rel = &shape.relations[ix];
    let Some(members) = item.as_object() else { return };
    let relation = if ix == 0 { "case" } else { rel.name.as_str() };
    let place = |field: &str| format!("{at}/{}", field.replace('~', "~0").replace('/', "~1"));
    // A link whose target is missing is no row: of what else it holds nothing is looked at.
    let is_row = rel.kind != Kind::Link || missing(shape, &rel.columns[0]) != Some("skip");
    // Another key makes equal siblings two, whose own lists then hold the same keys; and documents with one key each
    // one.
    let is_leaf = ix != 0 && shape.is_leaf(ix);
    for (n, col) in
        rel.columns.iter().enumerate().filter(|(_, col)| col.place == Place::Field && col.catalogue.is_none())
    {
        let mut way = |kind, to| ways.push(Way { kind, at: place(&col.field), to, relation });
        let is_key = rel.key.contains(&n);
        if is_row && !matches!(col.ty, Ty::Jsonb | Ty::IntArray) {
            way(SCALAR, json!({ "a": 1 }));
        }
        if is_key && !col.nullable {
            way(KEY, Value::Null);
        }
        if is_row && reaches_tables && is_text(col) && (is_leaf || !is_key) {
            way(CHECK, json!(FORBIDDEN));
        }
    }
    for inner in shape.enclosed(ix) {
        let inner_rel = &shape.relations[inner];
        ways.push(Way { kind: LIST, at: place(&inner_rel.field), to: json!("x"), relation: &inner_rel.name });
        let items = members.get(&inner_rel.field).and_then(Value::as_array);
        // Of items with one key that do not count nothing but the key is looked at; and which count is known once the
        // catalogues have the rows of the keys.
        let all_count = inner_rel.twins == Twins::Error || inner_rel.key.is_empty();
        let is_known = reaches_tables || inner_rel.kind != Kind::Link;
        let items = items.filter(|items| all_count || (is_known && items.len() == 1));
        let list_is_alone = items.is_some_and(|items| items.len() == 1);
        for (n, item) in items.into_iter().flatten().enumerate() {
            // Of equal siblings that hold lists one would differ from the other: that is to blame, and not the list.
            let reaches_tables = reaches_tables && is_alone;
            let at = format!("{}/{n}", place(&inner_rel.field));
            find(shape, inner, item, &at, reaches_tables, list_is_alone, ways);
        }
    }
}
