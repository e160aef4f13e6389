//! What statements fill columns with, or compare them with: cells where they are, not copies of them.

use std::borrow::Cow;

use super::Writer;
use crate::mapping::RelationIx;
use crate::postgres::fetch::Widths;
use crate::row::{Cell, Tuple};
use crate::schema::{Attribute, IdSource, PhysicalColumn};
use crate::value::ColumnType;

/// A column that a statement fills or compares, and its cell for each row.
pub(super) struct Filled<'c> {
    pub name: &'c str,
    pub ty: &'c ColumnType,
    pub cells: Vec<Option<Cow<'c, [u8]>>>,
}

impl<'c> Filled<'c> {
    fn new(name: &'c str, ty: &'c ColumnType) -> Self {
        Filled { name, ty, cells: Vec::new() }
    }

    fn of(column: &'c PhysicalColumn) -> Self {
        Filled::new(&column.name, &column.ty)
    }
}

/// The cells of tuples, a column each.
fn physical_cells<'c>(
    columns: impl IntoIterator<Item = &'c PhysicalColumn>,
    tuples: impl Iterator<Item = &'c Tuple>,
) -> Vec<Filled<'c>> {
    let mut filled: Vec<Filled<'c>> = columns.into_iter().map(Filled::of).collect();
    for tuple in tuples {
        for (filled, cell) in filled.iter_mut().zip(tuple.cells()) {
            filled.cells.push(cell.bytes().map(Cow::Borrowed));
        }
    }
    filled
}

impl Writer<'_> {
    pub(super) fn source_cells(
        &self,
        ix: RelationIx,
        columns: &[usize],
        rows: impl Iterator<Item = u32>,
    ) -> Vec<Filled<'_>> {
        let (table, side) = (&self.schema.tables[ix], &self.sides[ix]);
        let of = |&at: &usize| Filled::new(&table.names[at], &table.columns[at]);
        let mut filled: Vec<Filled<'_>> = columns.iter().map(of).collect();
        for row in rows {
            let cells: Vec<Cell<'_>> = side.source[row as usize].tuple.cells().collect();
            for (filled, &at) in filled.iter_mut().zip(columns) {
                filled.cells.push(cells[at].bytes().map(Cow::Borrowed));
            }
        }
        filled
    }

    /// The columns that an update sets, without marks.
    pub(super) fn changed_cells(
        &self,
        ix: RelationIx,
        columns: &[usize],
        moves: bool,
        rows: &[(u32, u32)],
    ) -> Vec<Filled<'_>> {
        let source = || rows.iter().map(|pair| pair.1);
        let mut set = self.source_cells(ix, columns, source());
        if moves {
            set.extend(self.parent_cells(ix, source()));
        }
        set
    }

    pub(super) fn locator_cells(&self, ix: RelationIx, stored: impl Iterator<Item = u32>) -> Vec<Filled<'_>> {
        let rows = stored.map(|row| self.locator(ix, row));
        physical_cells(&self.schema.tables[ix].locator, rows)
    }

    pub(super) fn locator(&self, ix: RelationIx, row: u32) -> &Tuple {
        self.rewritten.get(&(ix, row)).unwrap_or(&self.sides[ix].stored[row as usize].locator)
    }

    /// The columns by which new rows are found again.
    pub(super) fn new_row_cells(&self, ix: RelationIx, rows: &[u32]) -> Vec<Filled<'_>> {
        let table = &self.schema.tables[ix];
        let rows = || rows.iter().copied();
        let filled =
            table.new_row_key().unwrap_or_default().into_iter().filter_map(|attribute| match attribute {
                Attribute::Mapped(at) => self.source_cells(ix, &[at], rows()).pop(),
                Attribute::Parent(at) => Some(self.parent_cells(ix, rows()).swap_remove(at)),
                Attribute::Id => {
                    let references = rows().map(|row| &self.references[ix][row as usize]);
                    physical_cells(table.id.as_ref().map(|id| &id.column), references).pop()
                }
                Attribute::Unmapped { .. } => None,
            });
        filled.collect()
    }

    pub(super) fn parent_cells(&self, ix: RelationIx, source: impl Iterator<Item = u32>) -> Vec<Filled<'_>> {
        let Some(outer) = self.mapping.relations[ix].enclosing else { return Vec::new() };
        let table = &self.schema.tables[ix];
        let parents = source.map(|row| self.sides[ix].source[row as usize].parent);
        let references = parents.map(|parent| &self.references[outer][parent as usize]);
        let widths = Widths::of(table, &self.schema.tables[outer]);
        if !widths.differ() {
            return physical_cells(&table.parent, references);
        }
        let fit = "references are checked before anything is written";
        let mut filled: Vec<Filled<'_>> = table.parent.iter().map(Filled::of).collect();
        for reference in references.map(|referable| widths.reference(referable.clone()).expect(fit)) {
            for (filled, cell) in filled.iter_mut().zip(reference.cells()) {
                filled.cells.push(cell.bytes().map(|bytes| Cow::Owned(bytes.to_vec())));
            }
        }
        filled
    }

    pub(super) fn mark_cells(&self, source: impl Iterator<Item = u32> + Clone) -> Vec<Filled<'_>> {
        let Some(marking) = self.marking else { return Vec::new() };
        let marks = &self.schema.tables[0].marks;
        let document = |row: u32| self.sides[0].source[row as usize].document as usize;
        let hash = marks.hash.as_ref().map(|column| {
            let cells =
                source.clone().map(|row| Some(Cow::Borrowed(marking.hashes[document(row)].as_bytes())));
            Filled { name: &column.name, ty: &column.ty, cells: cells.collect() }
        });
        let time = marks.time.as_ref().map(|column| {
            let cells = source.clone().map(|_| marking.time.as_deref().map(Cow::Borrowed));
            Filled { name: &column.name, ty: &column.ty, cells: cells.collect() }
        });
        hash.into_iter().chain(time).collect()
    }

    /// All cells of new rows: the id if it was drawn, the parent, the mapped columns, the marks.
    pub(super) fn inserted_cells(
        &self,
        ix: RelationIx,
        columns: &[usize],
        holes: &[usize],
        rows: &[u32],
    ) -> Vec<Filled<'_>> {
        let table = &self.schema.tables[ix];
        let mut filled = Vec::new();
        let drawn = matches!(&table.id, Some(id) if matches!(id.source, IdSource::Expression(_)));
        if let (Some(id), true, true) = (&table.id, drawn, self.draws[ix]) {
            let references = rows.iter().map(|&row| &self.references[ix][row as usize]);
            filled.extend(physical_cells([&id.column], references));
        }
        filled.extend(self.parent_cells(ix, rows.iter().copied()));
        let mut mapped = self.source_cells(ix, columns, rows.iter().copied());
        for (_, hole) in columns.iter().zip(&mut mapped).filter(|(at, _)| holes.contains(at)) {
            hole.cells.fill(None);
        }
        filled.extend(mapped);
        if ix == 0 {
            filled.extend(self.mark_cells(rows.iter().copied()));
        }
        filled
    }
}
