//! The fingerprints of a document's relations as they are recorded.
//!
//! Most relations of most documents have no rows. Their fingerprints follow from the relations' digests, so they are
//! left out:
//!
//! | bytes | |
//! |---|---|
//! | 2 | number of relations |
//! | 1 for each eight of them | a bit for each relation, the lowest first: whether its fingerprint follows |
//! | 16 each | these fingerprints, in order |
//!
//! What was left out is known again only if, filled in with the digests of now, all fingerprints together give that of
//! the document: so it is known under the digests under which it was recorded, and unknown under others.

use sha2::{Digest, Sha256};

use super::coverage::take;
use super::{DocumentFingerprint, LENGTH, RelationFingerprint, finish};
use crate::schema::Schema;

/// The fingerprint of each relation without rows.
pub fn empties(schema: &Schema) -> Vec<RelationFingerprint> {
    schema.tables.iter().map(|table| of_no_rows(&table.digest)).collect()
}

fn of_no_rows(digest: &[u8; 32]) -> RelationFingerprint {
    RelationFingerprint(finish(Sha256::new().chain_update(digest)))
}

/// As they are recorded, `empties` being those of no rows.
pub fn to_bytes(empties: &[RelationFingerprint], relations: &[RelationFingerprint]) -> Vec<u8> {
    let mut bytes = (relations.len() as u16).to_be_bytes().to_vec();
    let bits = bytes.len();
    bytes.resize(bits + relations.len().div_ceil(8), 0);
    for (ix, (fingerprint, empty)) in relations.iter().zip(empties).enumerate() {
        if fingerprint != empty {
            bytes[bits + ix / 8] |= 1 << (ix % 8);
            bytes.extend(fingerprint.0);
        }
    }
    bytes
}

/// From what is recorded with a document's fingerprint: one for each relation of the mapping under which it was; `None`
/// where it is not known. Of what is malformed nothing is.
pub fn from_bytes(
    empties: &[RelationFingerprint],
    document: Option<DocumentFingerprint>,
    bytes: &[u8],
) -> Vec<Option<RelationFingerprint>> {
    let known = parse(bytes).unwrap_or_default();
    if known.iter().all(Option::is_some) || known.len() != empties.len() {
        return known;
    }
    let filled = known.iter().zip(empties).map(|(known, empty)| known.unwrap_or(*empty));
    let filled: Vec<RelationFingerprint> = filled.collect();
    if document == Some(of_document(&filled)) { filled.into_iter().map(Some).collect() } else { known }
}

/// The fingerprint of a document, of those of its relations.
pub(super) fn of_document(relations: &[RelationFingerprint]) -> DocumentFingerprint {
    let mut hash = Sha256::new();
    relations.iter().for_each(|fingerprint| hash.update(fingerprint.0));
    DocumentFingerprint(finish(hash))
}

fn parse(mut rest: &[u8]) -> Option<Vec<Option<RelationFingerprint>>> {
    let relations = usize::from(u16::from_be_bytes(take(&mut rest)?));
    let (bits, mut rest) = rest.split_at_checked(relations.div_ceil(8))?;
    let mut known = Vec::with_capacity(relations);
    for ix in 0..relations {
        let follows = bits[ix / 8] & (1 << (ix % 8)) != 0;
        known.push(if follows { Some(RelationFingerprint(take::<LENGTH>(&mut rest)?)) } else { None });
    }
    rest.is_empty().then_some(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn empties(digests: &[u8]) -> Vec<RelationFingerprint> {
        digests.iter().map(|digest| of_no_rows(&[*digest; 32])).collect()
    }

    const DIGESTS: [u8; 10] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10];
    const WITH_ROWS: [usize; 3] = [0, 2, 9];

    /// Ten relations, of which some have rows.
    fn relations() -> Vec<RelationFingerprint> {
        let fingerprint =
            |(ix, empty)| if WITH_ROWS.contains(&ix) { RelationFingerprint([7; 16]) } else { empty };
        empties(&DIGESTS).into_iter().enumerate().map(fingerprint).collect()
    }

    #[test]
    fn fingerprints_come_back_as_recorded_without_those_of_no_rows() {
        let (empties, relations) = (empties(&DIGESTS), relations());
        let bytes = to_bytes(&empties, &relations);
        assert_eq!(bytes[..4], [0, 10, 0b101, 0b10]);
        assert_eq!(bytes.len(), 4 + WITH_ROWS.len() * LENGTH);
        let all: Vec<_> = relations.iter().copied().map(Some).collect();
        assert_eq!(from_bytes(&empties, Some(of_document(&relations)), &bytes), all);
    }

    #[test]
    fn p33_under_another_digest_what_was_left_out_is_unknown() {
        let relations = relations();
        let (bytes, document) = (to_bytes(&empties(&DIGESTS), &relations), Some(of_document(&relations)));
        let some: Vec<_> = (0..10).map(|ix| WITH_ROWS.contains(&ix).then_some(relations[ix])).collect();
        for other in [&[1, 2, 3, 4, 99, 6, 7, 8, 9, 10][..], &[1, 2, 3], &[]] {
            assert_eq!(from_bytes(&empties(other), document, &bytes), some, "{other:?}");
        }
        assert_eq!(from_bytes(&empties(&DIGESTS), None, &bytes), some);
        assert_eq!(from_bytes(&empties(&DIGESTS), Some(DocumentFingerprint([7; 16])), &bytes), some);
    }

    #[test]
    fn p33_of_malformed_bytes_nothing_is_known() {
        for bytes in [&[][..], &[0], &[0, 2], &[0, 2, 1], &[0, 2, 1, 9, 9], &[0, 2, 0, 9]] {
            assert_eq!(from_bytes(&empties(&[1, 2]), None, bytes), Vec::new(), "{bytes:?}");
        }
    }
}
