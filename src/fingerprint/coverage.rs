//! What the fingerprints of a document cover.
//!
//! A cell about which a document says nothing counts as such, whatever is stored in it. Who makes the fingerprints
//! anew from the stored rows must therefore be told which cells these were. This is recorded beside them:
//!
//! | bytes | |
//! |---|---|
//! | 8 | the first of SHA-256 of the digests of all relations: under other ones the fingerprints say nothing |
//! | then, of each relation that is not covered in full, in order: | |
//! | 2 | the relation's index |
//! | 2 | number of columns that are left out of every row; −1: the relation is not covered at all, and that was all |
//! | 2 each | their positions |
//! | 1 | whether a fingerprint follows |
//! | 16 | the relation's, with these columns left out, where rows differ in what they leave out |

use sha2::{Digest, Sha256};

use super::{Fingerprints, LENGTH, RelationFingerprint, fingerprints};
use crate::mapping::Mapping;
use crate::row::{Cell, RowSet, Tuple};
use crate::schema::Schema;

/// What the fingerprints of a document cover.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Coverage {
    /// Of the digests of all relations.
    pub digest: [u8; 8],
    /// One for each relation of the mapping.
    pub relations: Vec<Extent>,
}

/// How much of a relation's rows a document speaks about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Extent {
    /// All rows, but for some columns.
    Rows {
        /// Columns that are left out of every row, in order.
        without: Vec<usize>,
        /// The fingerprint that the rows have then, where that is not the recorded one.
        fingerprint: Option<RelationFingerprint>,
    },
    /// It says nothing about a list of it, so nothing can be said of its rows.
    Nothing,
}

const IN_FULL: Extent = Extent::Rows { without: Vec::new(), fingerprint: None };
const NOTHING: i16 = -1;

/// What stands for the digests of all relations.
pub fn digest(schema: &Schema) -> [u8; 8] {
    let mut hash = Sha256::new();
    schema.tables.iter().for_each(|table| hash.update(table.digest));
    *hash.finalize().first_chunk().expect("a hash has 32 bytes")
}

/// What the fingerprints of a document's rows cover.
pub fn coverage(mapping: &Mapping, schema: &Schema, set: &RowSet, recorded: &Fingerprints) -> Coverage {
    let mut relations: Vec<Extent> = Vec::new();
    for (ix, relation) in mapping.relations.iter().enumerate() {
        let outer = relation.enclosing.map(|outer| &relations[outer]);
        let silent = !set.relations[ix].kept.is_empty() || outer == Some(&Extent::Nothing);
        let without = if silent { Vec::new() } else { kept_columns(set, ix) };
        relations.push(if silent { Extent::Nothing } else { Extent::Rows { without, fingerprint: None } });
    }
    // What tells rows without a key apart is all that is below them.
    for ix in (1..relations.len()).rev().filter(|&ix| !mapping.relations[ix].is_keyed()) {
        if mapping.enclosed(ix).any(|(inner, _)| relations[inner] == Extent::Nothing) {
            forget_below(mapping, ix, &mut relations);
        }
    }
    let mut coverage = Coverage { digest: digest(schema), relations };
    if coverage.relations.iter().any(|extent| *extent != IN_FULL) {
        let mut masked = set.clone();
        coverage.mask(&mut masked);
        if masked != *set {
            let fingerprints = fingerprints(mapping, schema, &masked).relations;
            let all = fingerprints.into_iter().zip(&recorded.relations);
            for (extent, (found, recorded)) in coverage.relations.iter_mut().zip(all) {
                if let (Extent::Rows { fingerprint, .. }, true) = (extent, found != *recorded) {
                    *fingerprint = Some(found);
                }
            }
        }
    }
    coverage
}

/// Columns about which some row says nothing.
fn kept_columns(set: &RowSet, ix: usize) -> Vec<usize> {
    let mut kept = Vec::new();
    for row in &set.relations[ix].rows {
        let cells = row.tuple.cells().enumerate();
        kept.extend(cells.filter(|(_, cell)| *cell == Cell::Kept).map(|(at, _)| at));
    }
    kept.sort_unstable();
    kept.dedup();
    kept
}

fn forget_below(mapping: &Mapping, outer: usize, relations: &mut [Extent]) {
    for (inner, _) in mapping.enclosed(outer) {
        relations[inner] = Extent::Nothing;
        forget_below(mapping, inner, relations);
    }
}

impl Coverage {
    /// Leaves the columns out of rows that are not covered.
    pub fn mask(&self, set: &mut RowSet) {
        for (ix, rows) in set.relations.iter_mut().enumerate() {
            rows.rows.iter_mut().for_each(|row| self.mask_row(ix, &mut row.tuple));
        }
    }

    /// Leaves the columns out of a row of this relation.
    pub fn mask_row(&self, ix: usize, tuple: &mut Tuple) {
        if let Extent::Rows { without, .. } = &self.relations[ix] {
            without.iter().for_each(|&at| *tuple = tuple.with(at, Cell::Kept));
        }
    }

    /// The fingerprint that rows with these columns left out must have; `None` where nothing is known of them.
    pub fn expected(&self, ix: usize, recorded: RelationFingerprint) -> Option<RelationFingerprint> {
        match self.relations.get(ix)? {
            Extent::Rows { fingerprint, .. } => Some(fingerprint.unwrap_or(recorded)),
            Extent::Nothing => None,
        }
    }

    /// As it is recorded.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.digest.to_vec();
        for (ix, extent) in self.relations.iter().enumerate().filter(|(_, extent)| **extent != IN_FULL) {
            bytes.extend((ix as u16).to_be_bytes());
            match extent {
                Extent::Nothing => bytes.extend(NOTHING.to_be_bytes()),
                Extent::Rows { without, fingerprint } => {
                    bytes.extend((without.len() as i16).to_be_bytes());
                    without.iter().for_each(|&at| bytes.extend((at as u16).to_be_bytes()));
                    bytes.push(u8::from(fingerprint.is_some()));
                    fingerprint.iter().for_each(|fingerprint| bytes.extend(fingerprint.0));
                }
            }
        }
        bytes
    }

    /// From what is recorded, for so many relations. `None`: it is malformed.
    pub fn from_bytes(bytes: &[u8], relations: usize) -> Option<Self> {
        let (digest, mut rest) = bytes.split_first_chunk()?;
        let mut coverage = Coverage { digest: *digest, relations: vec![IN_FULL; relations] };
        while !rest.is_empty() {
            let ix = usize::from(u16::from_be_bytes(take(&mut rest)?));
            let columns = i16::from_be_bytes(take(&mut rest)?);
            let extent = if columns == NOTHING { Extent::Nothing } else { rows(columns, &mut rest)? };
            *coverage.relations.get_mut(ix)? = extent;
        }
        Some(coverage)
    }
}

fn rows(columns: i16, rest: &mut &[u8]) -> Option<Extent> {
    let column = |_| take(rest).map(|bytes| usize::from(u16::from_be_bytes(bytes)));
    let without = (0..columns).map(column).collect::<Option<_>>()?;
    let fingerprint = match take(rest)? {
        [0] => None,
        [_] => Some(RelationFingerprint(take::<LENGTH>(rest)?)),
    };
    Some(Extent::Rows { without, fingerprint })
}

pub(super) fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, left) = rest.split_first_chunk()?;
    *rest = left;
    Some(*taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p36_what_is_covered_comes_back_as_recorded() {
        let some = Extent::Rows { without: vec![1, 300], fingerprint: Some(RelationFingerprint([7; 16])) };
        let other = Extent::Rows { without: vec![0], fingerprint: None };
        for relations in [vec![IN_FULL; 3], vec![other.clone(), Extent::Nothing, some], vec![IN_FULL, other]]
        {
            let coverage = Coverage { digest: [3; 8], relations };
            let bytes = coverage.to_bytes();
            assert_eq!(Coverage::from_bytes(&bytes, coverage.relations.len()), Some(coverage));
        }
        assert_eq!(Coverage { digest: [0; 8], relations: vec![IN_FULL; 9] }.to_bytes().len(), 8);
        assert_eq!(Coverage::from_bytes(&[0; 7], 1), None);
        assert_eq!(Coverage::from_bytes(&[0; 9], 1), None);
    }
}
