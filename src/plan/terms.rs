//! The values that constraints see in stored and in source rows, as far as they are known.

use std::borrow::Cow;

use super::Batch;
use super::changes::Node;
use crate::mapping::RelationIx;
use crate::row::Cell;
use crate::schema::{Attribute, Check, IdSource, Table, Unique};
use crate::value::{Kind, comparison_form, is_integer, resized};

/// One value.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Term {
    Null,
    /// In comparison form; of an integer the widest: what refers to it may be of another width.
    Value(Vec<u8>),
    /// The id of a row that is not there yet.
    New(RelationIx, u32),
    Unknown,
}

impl Term {
    fn value(self) -> Option<Vec<u8>> {
        match self {
            Term::Value(bytes) => Some(bytes),
            Term::Null | Term::New(..) | Term::Unknown => None,
        }
    }
}

/// The values of some columns, none of them unknown.
pub(super) type Key = Vec<Term>;

/// Both sides of a batch, by what they hold.
pub(super) struct Terms<'a> {
    batch: Batch<'a>,
    /// Per relation and source row, the stored row it was matched with.
    matched: Vec<Vec<Option<u32>>>,
}

impl<'a> Terms<'a> {
    pub fn new(batch: Batch<'a>) -> Self {
        let matched = batch.sides.iter().map(|side| {
            let mut matched = vec![None; side.source.len()];
            side.changes.matched().for_each(|(stored, source)| matched[source as usize] = Some(stored));
            matched
        });
        Terms { batch, matched: matched.collect() }
    }

    fn table(&self, ix: RelationIx) -> &'a Table {
        &self.batch.schema.tables[ix]
    }

    /// What a stored row holds.
    fn before(&self, ix: RelationIx, row: u32, attribute: &Attribute) -> Term {
        let (table, row) = (self.table(ix), &self.batch.sides[ix].stored[row as usize]);
        match attribute {
            Attribute::Mapped(at) => self.cell(ix, *at, row.tuple.cell(*at)),
            Attribute::Parent(at) => value(&table.parent[*at].ty.kind, row.reference.cell(*at)),
            Attribute::Id => match (&table.id, &row.id) {
                (Some(column), Some(id)) => value(&column.column.ty.kind, Cell::Value(id)),
                _ => Term::Unknown,
            },
            Attribute::Unmapped { .. } => Term::Unknown,
        }
    }

    /// What a source row will hold.
    fn after(&self, ix: RelationIx, row: u32, attribute: &Attribute) -> Term {
        let source = &self.batch.sides[ix].source[row as usize];
        let stored = self.matched[ix][row as usize];
        match attribute {
            Attribute::Mapped(at) => match (source.tuple.cell(*at), stored) {
                (Cell::Kept, Some(stored)) => self.before(ix, stored, attribute),
                (Cell::Kept, None) => Term::Unknown,
                (cell, _) => self.cell(ix, *at, cell),
            },
            Attribute::Parent(at) => match self.batch.mapping.relations[ix].enclosing {
                Some(outer) => self.after(outer, source.parent, &referable(self.table(outer), *at)),
                None => Term::Unknown,
            },
            Attribute::Id => match stored {
                Some(stored) => self.before(ix, stored, attribute),
                None => Term::New(ix, row),
            },
            Attribute::Unmapped { .. } => Term::Unknown,
        }
    }

    fn cell(&self, ix: RelationIx, at: usize, cell: Cell<'_>) -> Term {
        value(&self.table(ix).columns[at].kind, cell)
    }

    /// What a stored row holds, as far as it is known.
    pub fn cells_before(&self, ix: RelationIx, row: u32, of: &[Attribute]) -> Vec<Option<Vec<u8>>> {
        of.iter().map(|attribute| self.own(ix, attribute, self.before(ix, row, attribute).value()?)).collect()
    }

    /// What a source row will hold, likewise. The id of a new row is stood for by a number that is hardly anybody's.
    pub fn cells_after(&self, ix: RelationIx, row: u32, of: &[Attribute]) -> Vec<Option<Vec<u8>>> {
        let cell = |attribute: &Attribute| match self.after(ix, row, attribute) {
            Term::New(_, new) => placeholder(&self.table(ix).column(attribute)?.ty.kind, new),
            known => self.own(ix, attribute, known.value()?),
        };
        of.iter().map(cell).collect()
    }

    /// A value in the width of its column.
    fn own(&self, ix: RelationIx, attribute: &Attribute, bytes: Vec<u8>) -> Option<Vec<u8>> {
        let column = self.table(ix).column(attribute)?;
        match column.ty.kind.base() {
            kind if is_integer(kind) => resized(&bytes, &Kind::Int8, kind).map(Cow::into_owned),
            _ => Some(bytes),
        }
    }

    /// The key that a node's row has, and the one that it comes to have.
    pub fn keys(&self, node: &Node, of: &[Attribute], nulls: bool) -> [Option<Key>; 2] {
        let ix = node.class.relation;
        let before = node.rows.stored.and_then(|row| self.key_before(ix, row, of, nulls));
        let after = node.rows.source.and_then(|row| self.key_after(ix, row, of, nulls));
        [before, after]
    }

    /// The key of a stored row, if all of it is known and it takes part.
    pub fn key_before(&self, ix: RelationIx, row: u32, of: &[Attribute], nulls: bool) -> Option<Key> {
        key(of.iter().map(|attribute| self.before(ix, row, attribute)), nulls)
    }

    /// The key of a source row, likewise.
    fn key_after(&self, ix: RelationIx, row: u32, of: &[Attribute], nulls: bool) -> Option<Key> {
        key(of.iter().map(|attribute| self.after(ix, row, attribute)), nulls)
    }
}

fn key(terms: impl Iterator<Item = Term>, nulls: bool) -> Option<Key> {
    terms.map(|term| (term != Term::Unknown && (nulls || term != Term::Null)).then_some(term)).collect()
}

fn value(kind: &Kind, cell: Cell<'_>) -> Term {
    match cell {
        Cell::Null => Term::Null,
        Cell::Kept => Term::Unknown,
        Cell::Value(bytes) => {
            let form = comparison_form(kind, bytes);
            Term::Value(resized(&form, kind.base(), &Kind::Int8).unwrap_or(Cow::Borrowed(&form)).into_owned())
        }
    }
}

/// An id that stands for that of a new row, of the integer types; far up, but with room above it.
fn placeholder(kind: &Kind, row: u32) -> Option<Vec<u8>> {
    match kind.base() {
        Kind::Int2 => Some((i16::MAX - 1 - (row % 1000) as i16).to_be_bytes().to_vec()),
        Kind::Int4 => Some((i32::MAX - 1 - (row % (1 << 30)) as i32).to_be_bytes().to_vec()),
        Kind::Int8 => Some((i64::MAX - 1 - i64::from(row)).to_be_bytes().to_vec()),
        _ => None,
    }
}

/// What the `at`-th column of a reference to the enclosing row holds.
fn referable(table: &Table, at: usize) -> Attribute {
    match &table.id {
        Some(id) => match id.source {
            IdSource::Mapped(at) => Attribute::Mapped(at),
            IdSource::Expression(_) => Attribute::Id,
        },
        None => Attribute::Mapped(table.key[at]),
    }
}

impl Unique {
    /// Whether rows with NULL in it take part.
    pub(super) fn nulls(&self) -> bool {
        !self.nulls_distinct
    }
}

impl Check {
    /// Whether it is at the end of the transaction anyway.
    pub(super) fn is_deferred(&self) -> bool {
        matches!(self, Check::Deferred(_))
    }
}
