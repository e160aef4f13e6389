//! Rows of one document, per relation, each encoded once.
//!
//! A row's cells are kept as the tuple that `COPY … (FORMAT binary)` sends: for
//! each mapped column an int32 length and the value's bytes, −1 for NULL. One
//! more length, −2, stands for a cell that the document has no say about: its
//! field is absent and the mapping keeps what is stored. It is never sent.
//!
//! The length is big-endian, as on the wire, so a cell goes into a COPY stream,
//! into a parameter and into a hash without being decoded.

const NULL: i32 = -1;
const KEPT: i32 = -2;

/// The cells of one row, or of a part of it (a key, a locator), in column order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tuple(Vec<u8>);

/// One cell of a [`Tuple`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cell<'a> {
    /// SQL NULL.
    Null,
    /// The document does not say; what is stored stays.
    Kept,
    /// The stored binary form of a value.
    Value(&'a [u8]),
}

impl<'a> Cell<'a> {
    /// The value's bytes; `None` for NULL and for a kept cell.
    pub fn bytes(self) -> Option<&'a [u8]> {
        match self {
            Cell::Value(bytes) => Some(bytes),
            Cell::Null | Cell::Kept => None,
        }
    }
}

impl Tuple {
    /// Appends a cell.
    ///
    /// # Panics
    /// If the value is longer than 2 GiB, which no PostgreSQL value is.
    pub fn push(&mut self, cell: Cell<'_>) {
        let length = match cell {
            Cell::Null => NULL,
            Cell::Kept => KEPT,
            Cell::Value(bytes) => i32::try_from(bytes.len()).expect("a value is shorter than 2 GiB"),
        };
        self.0.extend_from_slice(&length.to_be_bytes());
        self.0.extend_from_slice(cell.bytes().unwrap_or_default());
    }

    /// Appends a value, or NULL.
    pub fn push_value(&mut self, value: Option<&[u8]>) {
        self.push(value.map_or(Cell::Null, Cell::Value));
    }

    /// Takes all cells away, and keeps the memory.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// A tuple of these cells.
    pub fn of<'a>(cells: impl IntoIterator<Item = Cell<'a>>) -> Self {
        let mut tuple = Self::default();
        cells.into_iter().for_each(|cell| tuple.push(cell));
        tuple
    }

    /// A tuple of the cells at these positions.
    pub fn project(&self, positions: &[usize]) -> Self {
        let cells: Vec<Cell<'_>> = self.cells().collect();
        Self::of(positions.iter().map(|&at| cells[at]))
    }

    /// This tuple with another cell at a position.
    #[must_use]
    pub fn with(&self, position: usize, cell: Cell<'_>) -> Self {
        Self::of(self.cells().enumerate().map(|(at, own)| if at == position { cell } else { own }))
    }

    /// The cells in order.
    pub fn cells(&self) -> Cells<'_> {
        Cells(&self.0)
    }

    /// The cell at a position.
    ///
    /// # Panics
    /// If there are not so many.
    pub fn cell(&self, at: usize) -> Cell<'_> {
        self.cells().nth(at).expect("the position is below the number of cells")
    }

    /// From the encoded form; `None` where it is malformed.
    pub fn from_bytes(bytes: Vec<u8>) -> Option<Self> {
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let (length, after) = rest.split_first_chunk::<4>()?;
            let length = i32::from_be_bytes(*length);
            rest = if [NULL, KEPT].contains(&length) {
                after
            } else {
                after.get(usize::try_from(length).ok()?..)?
            };
        }
        Some(Tuple(bytes))
    }

    /// As [`as_bytes`](Self::as_bytes), without a copy.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// The encoded form: per cell int32 length and bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// The cells of a tuple. See [`Tuple::cells`].
#[derive(Clone, Debug)]
pub struct Cells<'a>(&'a [u8]);

impl<'a> Iterator for Cells<'a> {
    type Item = Cell<'a>;

    fn next(&mut self) -> Option<Cell<'a>> {
        let (length, rest) = self.0.split_first_chunk::<4>()?;
        match i32::from_be_bytes(*length) {
            NULL => {
                self.0 = rest;
                Some(Cell::Null)
            }
            KEPT => {
                self.0 = rest;
                Some(Cell::Kept)
            }
            length => {
                let (value, rest) = rest.split_at(length as usize);
                self.0 = rest;
                Some(Cell::Value(value))
            }
        }
    }
}

/// One row that a document asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Index of the enclosing row among the rows of the enclosing relation; 0 for the root.
    pub parent: u32,
    /// The mapped columns.
    pub tuple: Tuple,
}

/// The rows of one relation of one document.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RelationRows {
    /// In the order of the document.
    pub rows: Vec<Row>,
    /// Indexes of enclosing rows whose list the document has no say about.
    pub kept: Vec<u32>,
}

/// All rows of one document: `relations[r]` belongs to relation `r` of the mapping.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RowSet {
    /// One for each relation of the mapping; the root's holds one row.
    pub relations: Vec<RelationRows>,
    /// References to catalogue rows that are missing and were left out.
    pub skipped_lookups: u32,
    /// Values from which U+0000 was taken out.
    pub nuls: u32,
    /// References left out because their catalogue rows would have to be inserted first, and nothing may be written.
    pub lacking: Vec<Lacking>,
}

/// A reference to a catalogue row that would have to be inserted first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lacking {
    /// The relation whose row refers to it.
    pub relation: usize,
    /// The catalogue.
    pub lookup: usize,
    /// The catalogue row's key, in comparison form.
    pub key: Tuple,
    /// Whether the row that refers to it was left out as a whole: it has no key without it.
    pub whole: bool,
}

impl RowSet {
    /// How many rows the document asks for.
    pub fn len(&self) -> usize {
        self.relations.iter().map(|relation| relation.rows.len()).sum()
    }

    /// Whether it asks for no row at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_come_back_as_pushed() {
        let cells = [Cell::Value(b"ab"), Cell::Null, Cell::Kept, Cell::Value(b"")];
        let tuple = Tuple::of(cells);
        assert_eq!(tuple.cells().collect::<Vec<_>>(), cells);
        assert_eq!(tuple.project(&[3, 1]).cells().collect::<Vec<_>>(), [cells[3], cells[1]]);
        assert_eq!(&tuple.as_bytes()[..6], b"\0\0\0\x02ab");
        assert_eq!(Tuple::from_bytes(tuple.as_bytes().to_vec()), Some(tuple));
        assert_eq!(Tuple::from_bytes(b"\0\0\0\x02a".to_vec()), None);
    }

    #[test]
    fn p34_lengths_tell_neighbours_apart() {
        let of = |a, b| Tuple::of([Cell::Value(a), Cell::Value(b)]);
        assert_ne!(of(b"a", b"bc"), of(b"ab", b"c"));
        assert_ne!(Tuple::of([Cell::Null]), Tuple::of([Cell::Value(b"")]));
    }
}
