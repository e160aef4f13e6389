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
    /// Positions of the columns whose change alone is none.
    pub ignored: Vec<usize>,
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
    /// Whether each mapped column may be NULL.
    pub nullable: Vec<bool>,
    /// Whether all columns that refer to the enclosing row may be NULL.
    pub parent_nullable: bool,
    /// The unique and exclusion constraints and the unique indexes.
    pub uniques: Vec<Unique>,
    /// The foreign keys to tables of the mapping.
    pub references: Vec<Reference>,
    /// Columns that foreign keys of any table refer to.
    pub referred: Vec<Attribute>,
    /// How new rows may be written.
    pub way: WriteWay,
    /// The triggers that can change what is written, or suppress it.
    pub triggers: Vec<Trigger>,
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

    /// Whether a stored row is found again by its physical place, which changes whenever it is written.
    pub fn is_found_by_place(&self) -> bool {
        self.locator.iter().any(|column| column.name == "ctid")
    }

    /// Whether what is stored may differ from what is sent.
    pub fn is_rewritten(&self) -> bool {
        self.triggers.iter().any(|trigger| trigger.insert || trigger.update)
    }

    /// What a column is to the mapping, if the mapping knows it.
    pub fn attribute(&self, name: &str) -> Option<Attribute> {
        let mapped = self.names.iter().position(|known| known == name).map(Attribute::Mapped);
        let parent = || self.parent.iter().position(|column| column.name == name).map(Attribute::Parent);
        let id = || self.id.as_ref().filter(|id| id.column.name == name).map(|_| Attribute::Id);
        mapped.or_else(parent).or_else(id)
    }

    /// The column that an attribute stands for, unless the mapping does not know it.
    pub fn column(&self, attribute: &Attribute) -> Option<PhysicalColumn> {
        match attribute {
            Attribute::Mapped(at) => {
                Some(PhysicalColumn { name: self.names[*at].clone(), ty: self.columns[*at].clone() })
            }
            Attribute::Parent(at) => Some(self.parent[*at].clone()),
            Attribute::Id => self.id.as_ref().map(|id| id.column.clone()),
            Attribute::Unmapped { .. } => None,
        }
    }

    /// Columns by which this transaction finds a row again that it inserted, whatever its physical place: the primary
    /// key, else one that is unique and never NULL.
    pub fn new_row_key(&self) -> Option<Vec<Attribute>> {
        let primary = self.locator[..self.own_locator].iter().map(|column| self.attribute(&column.name));
        let is_set = |attribute: &Attribute| match attribute {
            Attribute::Mapped(at) => !self.nullable[*at],
            Attribute::Parent(_) => !self.parent_nullable,
            Attribute::Id => true,
            Attribute::Unmapped { .. } => false,
        };
        let unique =
            || self.uniques.iter().find(|unique| unique.plain && unique.attributes.iter().all(is_set));
        primary.collect::<Option<_>>().or_else(|| unique().map(|unique| unique.attributes.clone()))
    }

    /// The types of the key's columns.
    pub fn key_types(&self) -> Vec<&ColumnType> {
        self.key.iter().map(|&at| &self.columns[at]).collect()
    }
}

/// A trigger of the user's, enabled for the session, that can change what is written to a row, or suppress it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trigger {
    /// Its name.
    pub name: String,
    /// Whether it fires before each row. Else it fires afterwards, and is one that updates the table.
    pub before: bool,
    /// Whether an INSERT fires it.
    pub insert: bool,
    /// Whether an UPDATE of columns that the mapping fills fires it.
    pub update: bool,
    /// Whether a DELETE fires it.
    pub delete: bool,
}

/// What the values of some columns may not have in common with those of another row: a unique constraint, a
/// unique index, an exclusion constraint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unique {
    /// The name of the constraint, else of the index.
    pub name: String,
    /// The columns it looks at; for a plain one those of its key, in order.
    pub attributes: Vec<Attribute>,
    /// Whether it compares the bytes of columns that are known here. Of any other the server judges.
    pub plain: bool,
    /// Whether a NULL differs from every other.
    pub nulls_distinct: bool,
    /// When it is checked.
    pub check: Check,
    /// How the server judges, for one that is not plain.
    pub terms: Vec<UniqueTerm>,
    /// The condition, as SQL, for rows to take part.
    pub predicate: Option<String>,
}

/// One column or expression of a [`Unique`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UniqueTerm {
    /// SQL over the table's columns, with its collation.
    pub expression: String,
    /// The operator by which two rows conflict, as SQL.
    pub operator: String,
}

/// When the server checks a constraint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Check {
    /// With every row, or every statement.
    AtOnce,
    /// At once, unless `SET CONSTRAINTS` says otherwise of this name, quoted and schema-qualified.
    Deferrable(String),
    /// At the end of the transaction. The name likewise.
    Deferred(String),
}

/// A column as constraints see it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Attribute {
    /// A mapped column, by position.
    Mapped(usize),
    /// A column that refers to the enclosing row, by position.
    Parent(usize),
    /// The surrogate.
    Id,
    /// A column that the mapping does not know.
    Unmapped {
        /// Its name, not quoted.
        name: String,
        /// SQL of its value, if it is generated from other columns.
        generated: Option<String>,
        /// SQL of its default.
        default: Option<String>,
    },
}

impl Attribute {
    /// Whether its values are known without asking the server.
    pub fn is_known(&self) -> bool {
        !matches!(self, Attribute::Unmapped { .. })
    }
}

/// A foreign key between two tables of the mapping, or within one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// The constraint's name.
    pub name: String,
    /// The referring columns.
    pub from: Vec<Attribute>,
    /// The relation whose table is referred to.
    pub target: usize,
    /// The columns referred to, in the order of `from`.
    pub to: Vec<Attribute>,
    /// What becomes of referring rows when the row they refer to goes.
    pub on_delete: OnChange,
    /// What becomes of them when its key changes.
    pub on_update: OnChange,
    /// When it is checked.
    pub check: Check,
}

/// What a change of a row does to rows that refer to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnChange {
    /// It is refused while they do, when the constraint is checked.
    Refused,
    /// It is refused while they do, at once, deferrable or not.
    Restricted,
    /// They go, or change, too.
    Cascades,
    /// Their reference becomes NULL, or the default.
    Clears,
}

impl OnChange {
    /// Whether it changes or deletes referring rows.
    pub fn acts(self) -> bool {
        matches!(self, OnChange::Cascades | OnChange::Clears)
    }
}

/// Root columns that receive a mark when the document changed.
#[derive(Clone, Debug, Default)]
pub struct Marks {
    /// Receives the document's fingerprint.
    pub hash: Option<PhysicalColumn>,
    /// Receives the time of the transaction.
    pub time: Option<PhysicalColumn>,
    /// Receives the time at which the document was missing from a complete feed.
    pub absent: Option<PhysicalColumn>,
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
    /// Only `INSERT`: row-level security applies to the role, or triggers may change the row, and `RETURNING` says which
    /// row it became. (COPY would insert the rows of such a table one by one, too.)
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
    /// Whether a unique constraint of it is deferrable: `ON CONFLICT` cannot be used then.
    pub is_deferrable: bool,
}
