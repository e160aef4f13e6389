//! The fields of one kind of item, those of objects inside it among them.

use super::node::{Node, Shape};
use crate::mapping::{Path, Segment};

/// More columns than this a table does not get: PostgreSQL has room for 1,600.
const COLUMNS_MAX: usize = 1_000;

/// A field of an item, or of an object inside it.
#[derive(Clone, Debug)]
pub(super) struct Field<'n> {
    pub path: Path,
    pub node: &'n Node,
    pub shape: Shape<'n>,
    /// How many items there are that could have it.
    pub of: u64,
    /// In how many of them an object on the way to it is null.
    pub cut_off: u64,
}

impl Field<'_> {
    /// How many items have a value there.
    pub fn filled(&self) -> u64 {
        self.node.present - self.node.nulls
    }

    /// In how many items it is null: what is below null is, too.
    pub fn nulls(&self) -> u64 {
        self.node.nulls + self.cut_off
    }

    /// How many items do not have the field at all.
    pub fn absent(&self) -> u64 {
        self.of.saturating_sub(self.node.present + self.cut_off)
    }

    /// Whether every item has a value there.
    pub fn is_always(&self) -> bool {
        self.filled() == self.of
    }

    /// The names on the way to it, as words of one name.
    pub fn name(&self) -> String {
        let names = self.path.0.iter().map(|segment| match segment {
            Segment::Field(name) => name.as_str(),
            Segment::Up | Segment::Key | Segment::Index => "",
        });
        names.collect::<Vec<_>>().join(" ")
    }

    /// The last name on the way to it.
    pub fn last_name(&self) -> &str {
        match self.path.0.last() {
            Some(Segment::Field(name)) => name,
            _ => "",
        }
    }
}

/// The fields of the objects at a place, of which there are so many; and the paths of those that no mapping can name.
pub(super) fn fields(node: &Node, of: u64) -> (Vec<Field<'_>>, Vec<Path>) {
    let mut found = Vec::new();
    let top = Place { path: Path::default(), of, cut_off: node.nulls };
    walk(node, &top, true, &mut found);
    if found.len() > COLUMNS_MAX {
        found.clear();
        walk(node, &top, false, &mut found);
    }
    let (known, unknown): (Vec<_>, Vec<_>) = found.into_iter().partition(|field| can_be_written(&field.path));
    (known, unknown.into_iter().map(|field| field.path).collect())
}

/// Where objects are whose fields are looked at.
struct Place {
    path: Path,
    of: u64,
    cut_off: u64,
}

fn walk<'n>(node: &'n Node, place: &Place, deep: bool, found: &mut Vec<Field<'n>>) {
    for (name, node) in &node.fields.nodes {
        let mut path = place.path.clone();
        path.0.push(Segment::Field(name.clone()));
        let (of, cut_off) = (place.of, place.cut_off);
        match node.shape() {
            Shape::Object if deep => {
                walk(node, &Place { path, of, cut_off: cut_off + node.nulls }, deep, found)
            }
            Shape::Object => found.push(Field { path, node, shape: Shape::Mixed, of, cut_off }),
            shape => found.push(Field { path, node, shape, of, cut_off }),
        }
    }
}

/// Whether a mapping has words for it: not for a name that has both a dot and a quote.
fn can_be_written(path: &Path) -> bool {
    let text = path.to_string();
    !text.contains('\0') && Path::parse(&text).as_ref() == Ok(path)
}

/// How often fields were absent, and how often null where they are absent elsewhere; all over the documents.
pub(super) fn absences(node: &Node) -> (u64, u64) {
    let mut sum = (0, 0);
    let mut add = |(absent, null): (u64, u64)| sum = (sum.0 + absent, sum.1 + null);
    if let Shape::Object = node.shape() {
        for (_, field) in &node.fields.nodes {
            if field.present < node.objects {
                add((node.objects - field.present, field.nulls));
            }
            add(absences(field));
        }
    }
    match node.shape() {
        Shape::List(items) => add(absences(&items.node)),
        Shape::Map(values) => add(absences(values)),
        _ => {}
    }
    sum
}
