//! Rows that triggers stored otherwise than they were sent.
//!
//! A trigger may change what it is given. The row is then known in two forms: as a document asks for it, and as it
//! is stored. Of each such row of a document is recorded how it is recognised and which of its columns were sent with
//! which values; of the values only hashes, since a trigger may be there to keep them out of the database.
//!
//! | bytes | |
//! |---|---|
//! | 16 | SHA-256 of: the cells that refer to the enclosing row, then the key's cells; without a key those of the primary key; without both the fingerprint of the row as it is stored |
//! | 16 | the fingerprint of the row as it is stored, columns left out that its document's coverage leaves out |
//! | 16 | likewise of the row as it was sent |
//! | 2 | number of columns that are stored otherwise |
//! | 34 each | their numbers in the catalog, SHA-256 of the cell that is stored, and of the one that was sent |
//!
//! None of it, but the two fingerprints, depends on which other columns are mapped.

use sha2::{Digest, Sha256};

use super::coverage::take;
use super::{LENGTH, RowFingerprint, finish, row, update_cell};
use crate::row::{Cell, Tuple};
use crate::schema::Table;
use crate::value::ColumnType;

/// Stands for a stored row, or for a cell that was sent.
pub type Mark = [u8; LENGTH];

/// A row in its two forms.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rewritten {
    /// What it is recognised by: see [`row_mark`].
    pub row: Mark,
    /// Of the row as it is stored.
    pub stored: RowFingerprint,
    /// Of the row as it was sent.
    pub sent: RowFingerprint,
    /// The columns that differ.
    pub columns: Vec<Column>,
}

/// A column of a row in its two forms, each by its [`cell_mark`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Column {
    /// Its position among the mapped ones.
    pub at: usize,
    /// The cell that is stored.
    pub stored: Mark,
    /// The cell that was sent.
    pub sent: Mark,
}

/// What tells a stored row from all others that are not its equals: what it refers to, and its key, its own place or
/// else, since a physical place changes, its content.
pub fn row_mark(table: &Table, reference: &Tuple, place: &Tuple, tuple: &Tuple) -> Mark {
    let mut hash = Sha256::new().chain_update(reference.as_bytes());
    match (table.key.is_empty(), table.is_found_by_place()) {
        (true, true) => hash.update(row(table, tuple).0),
        (true, false) => hash.update(place.as_bytes()),
        (false, _) => {}
    }
    table.key.iter().for_each(|&at| update_cell(&mut hash, &table.columns[at], tuple.cell(at)));
    finish(hash)
}

/// What stands for a cell.
pub fn cell_mark(ty: &ColumnType, cell: Cell<'_>) -> Mark {
    let mut hash = Sha256::new();
    update_cell(&mut hash, ty, cell);
    finish(hash)
}

/// As they are recorded, in any order. `numbers`: those of the mapped columns, in the catalog.
pub fn to_bytes(numbers: &[i16], rows: &mut [Rewritten]) -> Vec<u8> {
    rows.sort_unstable();
    let mut bytes = Vec::new();
    for row in rows {
        [row.row, row.stored.0, row.sent.0].iter().for_each(|part| bytes.extend(part));
        bytes.extend((row.columns.len() as u16).to_be_bytes());
        for column in &row.columns {
            bytes.extend(numbers[column.at].to_be_bytes());
            bytes.extend(column.stored);
            bytes.extend(column.sent);
        }
    }
    bytes
}

/// From what is recorded; what is malformed is left out, and columns that are not mapped any more.
pub fn from_bytes(numbers: &[i16], mut bytes: &[u8]) -> Vec<Rewritten> {
    std::iter::from_fn(|| one(numbers, &mut bytes)).collect()
}

fn one(numbers: &[i16], rest: &mut &[u8]) -> Option<Rewritten> {
    let (row, stored, sent) = (take(rest)?, RowFingerprint(take(rest)?), RowFingerprint(take(rest)?));
    let count = u16::from_be_bytes(take(rest)?);
    let mut columns = Vec::new();
    for _ in 0..count {
        let number = i16::from_be_bytes(take(rest)?);
        let (stored, sent) = (take(rest)?, take(rest)?);
        let at = numbers.iter().position(|known| *known == number);
        columns.extend(at.map(|at| Column { at, stored, sent }));
    }
    Some(Rewritten { row, stored, sent, columns })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p21_rewritten_rows_come_back_as_recorded() {
        let row = |byte: u8, columns: &[usize]| Rewritten {
            row: [byte; LENGTH],
            stored: RowFingerprint([byte + 1; LENGTH]),
            sent: RowFingerprint([byte + 2; LENGTH]),
            columns: columns
                .iter()
                .map(|&at| Column { at, stored: [9; LENGTH], sent: [8; LENGTH] })
                .collect(),
        };
        let mut rows = vec![row(7, &[1, 2]), row(3, &[])];
        let bytes = to_bytes(&[4, 5, 300], &mut rows);
        assert_eq!(bytes.len(), 2 * 50 + 2 * 34);
        assert_eq!(from_bytes(&[4, 5, 300], &bytes), rows);
        assert_eq!(from_bytes(&[4, 5, 300], &bytes[..bytes.len() - 1]).len(), 1);
        // Under another mapping.
        assert_eq!(from_bytes(&[300], &bytes), [row(3, &[]), row(7, &[0])]);
    }
}
