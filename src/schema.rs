//! The tables of a mapping as the database's catalog describes them.
//!
//! This is the second half of what the pure core needs to know: [`crate::mapping`]
//! says which field goes to which column, a [`Schema`] which type that column has,
//! how a stored row is found again, and where a new row's id comes from. It is
//! plain data: `postgres::catalog` reads it, once a run, and everything else
//! only looks at it. Positions agree with the mapping: `schema.tables[r].columns[c]`
//! describes `mapping.relations[r].columns[c]`.

use crate::value::ColumnType;

/// The tables of one mapping.
#[derive(Clone, Debug)]
pub struct Schema {
    /// One for each relation of the mapping, in its order.
    pub tables: Vec<Table>,
    /// One for each lookup of the mapping, in its order.
    pub lookups: Vec<LookupTable>,
    /// Digest of the mapping and of the types of its columns: the key of the raw hash.
    pub digest: [u8; 32],
}

/// The table of a relation.
#[derive(Clone, Debug)]
pub struct Table {
    /// The quoted, schema-qualified name.
    pub name: String,
    /// The names of the mapped columns, not quoted.
    pub names: Vec<String>,
    /// Their numbers in the catalog.
    pub numbers: Vec<i16>,
    /// The types of the mapped columns.
    pub columns: Vec<ColumnType>,
    /// Positions of the key among the mapped columns.
    pub key: Vec<usize>,
    /// The columns that refer to the enclosing row.
    pub parent: Vec<PhysicalColumn>,
    /// The surrogate, and where a new row's one comes from.
    pub id: Option<IdColumn>,
    /// The columns that find one version of a stored row again: the primary key, else its physical place; the
    /// columns that refer to the enclosing row; and `xmin`.
    pub locator: Vec<PhysicalColumn>,
    /// How many of the locator's columns, at its front, are the row's own.
    pub own_locator: usize,
    /// Columns to mark when the document changed (root only).
    pub marks: Marks,
    /// How new rows may be written.
    pub way: WriteWay,
    /// Digest of what decides the relation's fingerprints: its mapping, its columns' types, the format.
    pub digest: [u8; 32],
}

impl Table {
    /// The columns of the key.
    pub fn key_columns(&self) -> Vec<PhysicalColumn> {
        self.columns_at(&self.key)
    }

    /// The mapped columns at these positions.
    pub fn columns_at(&self, positions: &[usize]) -> Vec<PhysicalColumn> {
        let column =
            |&at: &usize| PhysicalColumn { name: self.names[at].clone(), ty: self.columns[at].clone() };
        positions.iter().map(column).collect()
    }

    /// What rows of enclosed relations refer to: the surrogate, else the key.
    pub fn referable_columns(&self) -> Vec<PhysicalColumn> {
        match &self.id {
            Some(id) => vec![id.column.clone()],
            None => self.key_columns(),
        }
    }

    /// The types of the key's columns.
    pub fn key_types(&self) -> Vec<&ColumnType> {
        self.key.iter().map(|&at| &self.columns[at]).collect()
    }
}

/// Root columns that receive a mark when the document changed.
#[derive(Clone, Debug, Default)]
pub struct Marks {
    /// Receives the document's fingerprint.
    pub hash: Option<PhysicalColumn>,
    /// Receives the time of the transaction.
    pub time: Option<PhysicalColumn>,
}

/// A column with its type.
#[derive(Clone, Debug)]
pub struct PhysicalColumn {
    /// The name as in the catalog, not quoted.
    pub name: String,
    /// Its type.
    pub ty: ColumnType,
}

/// A surrogate column.
#[derive(Clone, Debug)]
pub struct IdColumn {
    /// The column.
    pub column: PhysicalColumn,
    /// Where a new row's value comes from.
    pub source: IdSource,
}

/// Where the surrogate of a new row comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IdSource {
    /// It is the mapped column at this position.
    Mapped(usize),
    /// The server evaluates this SQL expression, once a row: the column's default.
    Expression(String),
}

/// How new rows may be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteWay {
    /// `COPY … (FORMAT binary)` for many, `INSERT … SELECT unnest` for few.
    Copy,
    /// Only `INSERT`: row-level security applies to the role.
    Insert,
}

/// The table of a catalogue.
#[derive(Clone, Debug)]
pub struct LookupTable {
    /// The quoted, schema-qualified name.
    pub name: String,
    /// The column that referring columns hold.
    pub id: PhysicalColumn,
    /// The columns of its key.
    pub key: Vec<PhysicalColumn>,
    /// Further columns to fill when a row is inserted.
    pub columns: Vec<PhysicalColumn>,
}
