//! A proposed mapping, ready to be printed.

use crate::mapping::Path;

/// A proposed mapping, ready to be printed.
#[derive(Clone, Debug)]
pub(super) struct Draft {
    pub name: String,
    /// What an absent field means, if any was absent.
    pub absent: Absent,
    pub root: Relation,
    pub lookups: Vec<Lookup>,
}

/// What a field that is not there says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Absent {
    /// Every field was there in every document.
    Never,
    /// That it has no value: this is how the feed says so.
    Nothing(u64),
    /// Not certain: the feed writes null, too.
    Unclear(u64, u64),
}

#[derive(Clone, Debug, Default)]
pub(super) struct Relation {
    /// The evidence.
    pub notes: Vec<String>,
    pub name: String,
    /// Empty for the root.
    pub path: Path,
    pub table: String,
    pub id: Option<String>,
    pub parent: Vec<String>,
    pub key: Vec<String>,
    pub unique_in_all: bool,
    pub single: bool,
    pub link: Option<Link>,
    pub columns: Vec<Column>,
    pub inner: Vec<Relation>,
}

#[derive(Clone, Debug)]
pub(super) struct Link {
    pub target: String,
    pub lookup: String,
    /// Columns of the catalogue, and paths in the item.
    pub matching: Vec<(String, Path)>,
}

#[derive(Clone, Debug)]
pub(super) struct Column {
    pub name: String,
    pub path: Path,
    pub ty: &'static str,
    /// Whether U+0000 is in it.
    pub nul: bool,
    pub notes: Vec<String>,
}

#[derive(Clone, Debug)]
pub(super) struct Lookup {
    pub name: String,
    pub table: String,
    pub id: String,
    pub columns: Vec<Column>,
}
