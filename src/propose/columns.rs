//! The columns of one kind of item, and what is worth knowing of each.

use super::draft::Column;
use super::fields::Field;
use super::keys::Key;
use super::names::{Names, snake};
use super::node::{BOOLEAN, NUMBER, Node, STRING, Shape};
use super::print::{list_of, number};
use crate::mapping::{Path, Segment};

/// The columns of a relation as they are found.
#[derive(Default)]
pub(super) struct Body {
    /// What is worth knowing of the relation.
    pub notes: Vec<String>,
    pub columns: Vec<Column>,
    /// Names of the columns so far.
    pub taken: Names,
}

impl Body {
    /// Without columns.
    pub fn with(note: String) -> Self {
        Body { notes: vec![note], ..Body::default() }
    }

    /// Adds the columns of all fields that are some. Gives the names of those of the key.
    pub fn add_all(&mut self, fields: &[Field<'_>], key: &Key) -> Vec<String> {
        let mut names = vec![String::new(); key.fields.len()];
        for (at, field) in fields.iter().enumerate().filter(|(_, field)| is_column(field)) {
            self.add(field, None);
            if let Some(place) = key.fields.iter().position(|key| *key == at) {
                names[place] = self.columns[self.columns.len() - 1].name.clone();
            }
        }
        names
    }

    /// Adds the column of a field.
    pub fn add(&mut self, field: &Field<'_>, note: Option<String>) {
        let is_key_of_map = field.path.0 == [Segment::Key];
        let name = if is_key_of_map { "key".to_owned() } else { snake(&field.name(), "value") };
        let ty = match field.shape {
            _ if is_key_of_map => "text",
            Shape::Scalar => field.node.guess.name().unwrap_or("text"),
            _ => "jsonb",
        };
        self.columns.push(Column {
            name: self.taken.give(&name),
            path: field.path.clone(),
            ty,
            nul: !is_key_of_map && field.node.holds_nul(),
            notes: if is_key_of_map { Vec::new() } else { column_notes(field, note) },
        });
    }

    /// Says which fields have no column.
    pub fn leave_out(&mut self, unknown: &[Path]) {
        if !unknown.is_empty() {
            let names: Vec<String> = unknown.iter().map(|path| format!("{:?}", path.to_string())).collect();
            self.notes.push(format!("Left out, because no path can name them: {}.", list_of(&names, 5)));
        }
    }
}

/// Whether it is one column, rather than rows of another table.
pub(super) fn is_column(field: &Field<'_>) -> bool {
    !matches!(field.shape, Shape::List(_) | Shape::Map(_))
}

/// What is worth knowing of a column: what is missing, and what it does not hold.
fn column_notes(field: &Field<'_>, note: Option<String>) -> Vec<String> {
    let node = field.node;
    let mut notes: Vec<String> = note.into_iter().collect();
    match field.shape {
        Shape::Never => notes.push("never a value: jsonb takes whatever comes".to_owned()),
        Shape::Mixed if notes.is_empty() => notes.push(mixture(node)),
        Shape::Scalar if node.kinds.count_ones() > 1 => notes.push(kinds(node)),
        _ => {}
    }
    if field.nulls() > 0 && !matches!(field.shape, Shape::Never) {
        notes.push(format!("null in {}", number(field.nulls())));
    }
    if field.absent() > 0 {
        notes.push(format!("absent in {}", number(field.absent())));
    }
    if node.holds_nul() {
        notes.push("U+0000 in it, which PostgreSQL cannot store, is left out".to_owned());
    }
    notes
}

/// In words, why a list is not taken apart.
pub(super) fn whole_list(shape: Shape<'_>) -> String {
    match shape {
        Shape::List(items) if items.are_tuples() => {
            format!("{} numbers each: whole, in their order", number(items.lengths.1 as u64))
        }
        _ => "lists of what has no columns: whole, in their order".to_owned(),
    }
}

/// In words, which kinds of scalars there are.
fn kinds(node: &Node) -> String {
    let kinds = [(STRING, "strings"), (NUMBER, "numbers"), (BOOLEAN, "booleans")];
    let kinds: Vec<String> =
        kinds.iter().filter(|(bit, _)| node.kinds & bit != 0).map(|(_, kind)| (*kind).to_owned()).collect();
    list_of(&kinds, kinds.len())
}

/// In words, why something has no columns.
fn mixture(node: &Node) -> String {
    let found = [
        (node.scalars, "plain values"),
        (node.objects, "objects"),
        (node.lists.min(node.filled), "lists"),
        (node.lists.saturating_sub(node.filled), "empty lists"),
    ];
    let found: Vec<&str> = found.iter().filter(|(count, _)| *count > 0).map(|(_, what)| *what).collect();
    match (found.as_slice(), node.fields.nodes.is_empty()) {
        (["empty lists"], _) => "only empty lists: jsonb takes whatever comes".to_owned(),
        (["objects"], true) => "only empty objects: jsonb takes whatever comes".to_owned(),
        (["objects"], false) => "objects with too many names for columns".to_owned(),
        (found, _) => found.join(" and "),
    }
}
