//! How a document becomes rows: the frozen form of a mapping.
//!
//! A mapping is written as TOML (or the same keys as JSON, or built in code from
//! [`Mapping`]'s parts) and parsed once. What comes out has been validated as far
//! as that is possible without a database, and is then only read. The tree of
//! relations is flattened into one list, parents before their children, so that
//! every later stage walks it with a loop and names a relation by its index.
//!
//! Columns have the types of the database's catalog ([`crate::schema`]). A mapping
//! may give some as well: for tables that do not exist yet ([`crate::ddl`]), and to
//! be told when the catalog has another.

mod parse;
mod path;
mod scalar;

pub use parse::{Fault, MappingError};
pub use path::{Path, Segment};
pub use scalar::{Condition, Nul, Otherwise, Scalar, TextForm};

use serde::Serialize;

/// A validated mapping: one root, its relations in order (root first, an
/// enclosing relation before the ones inside it), and its catalogues.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Mapping {
    /// Names the mapping in the database; one run of it at a time.
    pub name: String,
    /// All relations; `relations[0]` is the root.
    pub relations: Vec<Relation>,
    /// The catalogues that columns and links refer to.
    pub lookups: Vec<Lookup>,
    /// Options of the whole sync.
    pub sync: SyncOptions,
    /// The mapping as it was written, as JSON: what the database keeps of it.
    #[serde(skip)]
    pub definition: serde_json::Value,
}

/// Index of a relation in [`Mapping::relations`].
pub type RelationIx = usize;
/// Index of a catalogue in [`Mapping::lookups`].
pub type LookupIx = usize;

/// One table that documents fill: the root, a 1-N list, or an M-N link.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Relation {
    /// Its name in reports: the mapping's name for the root.
    pub name: String,
    /// What it is.
    pub kind: RelationKind,
    /// The relation whose items hold this one's list; `None` for the root. (Not serialised: a place in a list
    /// says nothing about the relation itself.)
    #[serde(skip)]
    pub enclosing: Option<RelationIx>,
    /// Where the list is, seen from the enclosing item. Empty for the root.
    pub path: Path,
    /// What holds for the items of the list that are this relation's. Empty: all are.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// What becomes of items that none of the relations takes which read the list; the same for all of them. (Not
    /// serialised: it decides which documents fail, not what rows hold.)
    #[serde(skip)]
    pub otherwise: Otherwise,
    /// What stands for a list of one item without being a list. (Not serialised, likewise.)
    #[serde(skip)]
    pub when_single: WhenSingle,
    /// The table.
    pub table: TableName,
    /// The surrogate column that rows of enclosed relations refer to; without one they refer to the key.
    pub id: Option<String>,
    /// The columns that refer to the enclosing row: one for its id, else as many as its key has.
    pub parent: Vec<String>,
    /// Names of the columns that identify a row. Empty: identified by content, a multiset.
    pub key: Vec<String>,
    /// Names of columns that identify a document even if its key changes; root only, else empty. (Not serialised: it
    /// decides which row is which, not what rows there are.)
    #[serde(skip)]
    pub alternate_key: Vec<String>,
    /// Where the key is unique.
    pub unique_in: UniqueIn,
    /// Whether rows without a key that are left over are paired, so that a changed row is an update. (Not
    /// serialised: it decides how a difference is written, not what rows there are.)
    #[serde(skip)]
    pub pair: bool,
    /// What a missing field does to the relation's rows.
    pub when_absent: WhenAbsent,
    /// What `null` in place of the list does.
    pub when_null: WhenNull,
    /// What two siblings with one key and different content are.
    pub on_duplicate: OnDuplicate,
    /// The columns that documents fill, by length of their names, then by name, which is the order in which `jsonb` has
    /// them: another order in the mapping is no other mapping. A link's first one is its target.
    pub columns: Vec<Column>,
}

/// What a relation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RelationKind {
    /// The table with one row a document.
    Root,
    /// A 1-N list.
    Child,
    /// An M-N list: pairs of a parent and a catalogue row.
    Link,
}

/// Where the key of a relation is unique.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum UniqueIn {
    /// Among the rows of one parent.
    #[default]
    Parent,
    /// In the whole table: a row found under another parent has moved.
    All,
}

/// What a field that the document does not have does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum WhenAbsent {
    /// The stored rows (or the column's value) stay as they are.
    #[default]
    Keep,
    /// As if the list were empty (or the value null).
    Empty,
}

/// What `null` in place of a list does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum WhenNull {
    /// As if the list were empty.
    #[default]
    Empty,
    /// The stored rows stay as they are.
    Keep,
    /// The document fails.
    Error,
}

/// What a value that is no list is where a list should be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenSingle {
    /// The document fails.
    #[default]
    Error,
    /// The one item of the list.
    Item,
}

/// What two siblings with one key and different content are. Equal ones collapse.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OnDuplicate {
    /// The document fails, naming both positions.
    #[default]
    Error,
    /// The first one counts.
    First,
    /// The last one counts.
    Last,
}

/// What a catalogue row that is not there does to the document that refers to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Missing {
    /// The document fails.
    #[default]
    Error,
    /// The row is inserted.
    Insert,
    /// The column stays null (the link is left out), counted; the document stays unsettled.
    Skip,
}

/// One mapped column.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Column {
    /// Its name in the table.
    pub name: String,
    /// Its place in the mapping as it was written. (Not serialised: it says nothing about the rows.)
    #[serde(skip)]
    pub place: usize,
    /// Where its value comes from.
    pub source: Source,
    /// What happens to the column when the document does not have the field.
    pub when_absent: WhenAbsent,
    /// Whether a change of this column alone is none: it is written with a new row, and with other columns of its row.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub ignore: bool,
    /// How strings become those that are stored. Of a reference its catalogue says so.
    #[serde(skip_serializing_if = "TextForm::is_as_given")]
    pub text: TextForm,
    /// The type as the mapping gives it, a type's name in SQL. (Not serialised: the catalog's type decides.)
    #[serde(skip)]
    pub ty: Option<String>,
    /// Whether NULL may stand in it although it is part of the key; NULL is then a value like any other. (Not
    /// serialised: it decides which documents fail, not what rows hold.)
    #[serde(skip)]
    pub nullable: bool,
}

/// Where a column's value comes from.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// The first of these paths whose value is not null.
    Path {
        /// At least one.
        paths: Vec<Path>,
        /// The time zone of values that are written without one, for a `timestamptz` column.
        zone: Option<String>,
    },
    /// The id of a catalogue row.
    Lookup {
        /// The catalogue. (Not serialised, as [`Relation::enclosing`].)
        #[serde(skip)]
        lookup: LookupIx,
        /// One path for each column of the catalogue's key, in its order.
        matching: Vec<Path>,
    },
    /// The row's place among the rows that its list asks for.
    Position {
        /// The place of the first one.
        first: i64,
    },
    /// The same in every row.
    Constant {
        /// The value.
        value: Scalar,
    },
}

/// A catalogue: rows that documents refer to by key and that are shared by them.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Lookup {
    /// Its name in the mapping.
    pub name: String,
    /// The table.
    pub table: TableName,
    /// The column that referring columns hold.
    pub id: String,
    /// The columns that identify a row; unique in the table.
    pub key: Vec<String>,
    /// What a row that is not there does.
    pub missing: Missing,
    /// Columns beyond the key to fill when a row is inserted, as paths in the item that refers to it; in the order of a
    /// relation's columns.
    pub columns: Vec<(String, Path)>,
    /// How strings become those that are stored, by column, those of the key included, where not as they are given.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub text: Vec<(String, TextForm)>,
    /// The columns of the key in which NULL may stand. (Not serialised, as [`Column::nullable`].)
    #[serde(skip)]
    pub nullable: Vec<String>,
    /// Types that the mapping gives, by column, those of the key included. (Not serialised, as [`Column::ty`].)
    #[serde(skip)]
    pub types: Vec<(String, String)>,
}

/// Options of the whole sync.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct SyncOptions {
    /// What is stored in one transaction, all or nothing.
    pub atomic: Atomic,
    /// Root column that receives the document's fingerprint, in hexadecimal, when the document changed.
    pub mark_hash: Option<String>,
    /// Root column that receives the time of the transaction when the document changed.
    pub mark_time: Option<String>,
    /// What becomes of a document that is missing from a feed declared complete.
    pub on_absent: OnAbsent,
}

impl SyncOptions {
    /// The root columns that are filled beside those of documents.
    pub fn marks(&self) -> impl Iterator<Item = &str> {
        let absent = match &self.on_absent {
            OnAbsent::Mark(column) => Some(column),
            OnAbsent::Delete | OnAbsent::Keep => None,
        };
        [self.mark_hash.as_ref(), self.mark_time.as_ref(), absent].into_iter().flatten().map(String::as_str)
    }
}

/// What is stored in one transaction, all or nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Atomic {
    /// A document.
    #[default]
    Document,
    /// A document's root and links; then each of its 1-N lists, with the lists inside. Lists that refer to each other
    /// count as one, and those that the root or a link refers to are stored with it.
    Relation,
}

/// What becomes of a document that is missing from a feed declared complete.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OnAbsent {
    /// Its rows are deleted, and what is recorded of it.
    #[default]
    Delete,
    /// This root column receives the time of the transaction, and NULL when the document is back.
    Mark(String),
    /// Nothing.
    Keep,
}

/// A table as the mapping names it. Without a schema the connection's search path decides.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct TableName {
    /// The schema, if one was given.
    pub schema: Option<String>,
    /// The table, in the letters it has in the catalog.
    pub table: String,
}

impl std::fmt::Display for TableName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.schema {
            Some(schema) => write!(f, "{schema}.{}", self.table),
            None => f.write_str(&self.table),
        }
    }
}

impl Mapping {
    /// The root relation.
    pub fn root(&self) -> &Relation {
        &self.relations[0]
    }

    /// The relations directly inside `relation`, with their indexes.
    pub fn enclosed(&self, relation: RelationIx) -> impl Iterator<Item = (RelationIx, &Relation)> {
        self.relations.iter().enumerate().filter(move |(_, inner)| inner.enclosing == Some(relation))
    }

    /// The relations that read the same list as this one, with their indexes; itself among them.
    pub fn sharing(&self, relation: RelationIx) -> impl Iterator<Item = (RelationIx, &Relation)> {
        let Relation { enclosing, path, .. } = &self.relations[relation];
        self.relations
            .iter()
            .enumerate()
            .filter(move |(_, other)| other.enclosing == *enclosing && other.path == *path)
    }
}

impl Lookup {
    /// How the strings of a column become those that are stored.
    pub fn text_form(&self, column: &str) -> TextForm {
        let given = self.text.iter().find(|(name, _)| name == column);
        given.map_or_else(TextForm::default, |(_, form)| *form)
    }
}

impl Relation {
    /// What faults call it: `root`, `children.lines`, `links.tags`.
    pub fn place(&self) -> String {
        match self.kind {
            RelationKind::Root => "root".to_owned(),
            RelationKind::Child => format!("children.{}", self.name),
            RelationKind::Link => format!("links.{}", self.name),
        }
    }

    /// The columns with their positions among [`Relation::columns`], in the order in which the mapping was written.
    pub(crate) fn columns_as_written(&self) -> Vec<(usize, &Column)> {
        let mut columns: Vec<_> = self.columns.iter().enumerate().collect();
        columns.sort_by_key(|(_, column)| column.place);
        columns
    }

    /// Positions of the key's columns among [`Relation::columns`], in the key's order.
    pub fn key_columns(&self) -> Vec<usize> {
        self.positions_of(&self.key)
    }

    /// Positions of the alternate key's columns, likewise.
    pub fn alternate_key_columns(&self) -> Vec<usize> {
        self.positions_of(&self.alternate_key)
    }

    fn positions_of(&self, names: &[String]) -> Vec<usize> {
        let position = |name: &String| self.columns.iter().position(|column| column.name == *name);
        names.iter().filter_map(position).collect()
    }

    /// Positions, among [`Relation::columns`], of those that hold the row's place in its list.
    pub fn position_columns(&self) -> Vec<usize> {
        let is_position = |column: &Column| matches!(column.source, Source::Position { .. });
        (0..self.columns.len()).filter(|&at| is_position(&self.columns[at])).collect()
    }

    /// Whether the relation reads an object as a map: one of its own columns, or conditions, asks for the item's name.
    pub fn is_map(&self) -> bool {
        let asks = |path: &Path| path.0.first() == Some(&Segment::Key);
        let column_asks = |column: &Column| match &column.source {
            Source::Path { paths, .. } => paths.iter().any(asks),
            Source::Lookup { matching, .. } => matching.iter().any(asks),
            Source::Position { .. } | Source::Constant { .. } => false,
        };
        self.conditions.iter().any(|condition| asks(&condition.path)) || self.columns.iter().any(column_asks)
    }

    /// Positions of the columns whose change alone is none.
    pub fn ignored_columns(&self) -> Vec<usize> {
        (0..self.columns.len()).filter(|&at| self.columns[at].ignore).collect()
    }

    /// Whether NULL may stand in a column of the key.
    pub fn has_nullable_key(&self) -> bool {
        self.key_columns().iter().any(|&at| self.columns[at].nullable)
    }

    /// Whether rows are identified by a key; otherwise by their content.
    pub fn is_keyed(&self) -> bool {
        !self.key.is_empty()
    }
}
