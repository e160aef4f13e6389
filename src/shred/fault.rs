//! What is said of values that do not fit.

use super::item::Item;
use crate::mapping::{Lookup, Missing, Path, Relation};

/// What is wrong with a value, and at which path, where the column does not say so.
pub(crate) struct Fault {
    pub path: Option<Path>,
    pub message: String,
}

impl From<String> for Fault {
    fn from(message: String) -> Self {
        Fault { path: None, message }
    }
}

impl Fault {
    pub fn at(path: &Path, message: String) -> Self {
        Fault { path: Some(path.clone()), message }
    }

    /// A reference has a part of its key only.
    pub fn part_of_key(path: &Path, lookup: &Lookup, column: &str) -> Self {
        let mend = format!("give it, or say nullable = true of {column}");
        Fault::at(path, format!("{column}, part of the key of `{}`, is null: {mend}", lookup.name))
    }

    /// The catalogue has no row with these values.
    pub fn unknown(item: &Item<'_>, matching: &[Path], lookup: &Lookup) -> Self {
        let mend = match lookup.missing {
            Missing::Error => ": add it, or say missing = \"insert\" or \"skip\"",
            _ => "",
        };
        format!("{} is not in the catalogue `{}`{mend}", item.values(matching), lookup.name).into()
    }
}

/// Two items of a list ask for one row, and not for the same one.
pub(super) fn twin(first: &Item<'_>, relation: &Relation) -> String {
    format!(
        "has the key of {} ({}) and other content: on_duplicate = \"first\" or \"last\" takes one of them",
        first.place(),
        first.key(relation)
    )
}

/// Two lists of a document ask for one row.
pub(super) fn two_parents(item: &Item<'_>, other: &str, relation: &Relation) -> String {
    format!(
        "has the key of {other} ({}), under another parent: take it out of one of the two, or say unique_in = \"parent\"",
        item.key(relation)
    )
}
