//! Work of a fixed size for an instruction counter: parse, shred, fingerprint and diff, each a function of its own.
//!
//! A time depends on the machine and on what else it does; a number of instructions hardly does. `.ci/instructions`
//! counts them under valgrind and compares them with `benches/instructions.txt`. `cargo bench --bench instructions`
//! only checks the answers.

use std::hint::black_box;

use rowdelta::diff::{ChangeSet, Entry, Identity, diff};
use rowdelta::fingerprint::{RowFingerprint, TreeFingerprint, fingerprints, raw};
use rowdelta::json::Json;
use rowdelta::row::RowSet;

#[path = "support/grants.rs"]
mod grants;

use grants::Grants;

const DOCUMENTS: usize = 200;
const ROWS: u32 = 10_000;

fn main() {
    let grants = Grants::generate(DOCUMENTS);
    let hashed = counted_raw(&grants);
    assert_eq!(hashed, counted_raw(&grants));
    let parsed = counted_parse(&grants);
    assert_eq!(parsed.len(), DOCUMENTS);
    let sets = counted_shred(&grants);
    assert!(sets.iter().zip(&grants.documents).all(|(set, document)| *set == grants.rows(document)));
    let rows: usize = sets.iter().map(RowSet::len).sum();
    assert_eq!(counted_fingerprint(&grants, &sets), rows);
    let keys: Vec<[u8; 8]> = (0..ROWS).map(|row| u64::from(row).to_be_bytes()).collect();
    let stored = entries(&keys);
    let mut source = stored.clone();
    source.iter_mut().step_by(100).for_each(|entry| entry.fingerprint.0[0] ^= 1);
    source.reverse();
    let changes = counted_diff(stored, source);
    assert_eq!(
        (changes.updated.len(), changes.unchanged.len()),
        (ROWS as usize / 100, ROWS as usize * 99 / 100)
    );
}

/// What is done for every document of a feed.
#[inline(never)]
fn counted_raw(grants: &Grants) -> u8 {
    let hash = |document: &String| raw(&grants.schema, document.as_bytes()).0[0];
    black_box(grants.documents.iter().map(hash).fold(0, u8::wrapping_add))
}

#[inline(never)]
fn counted_parse(grants: &Grants) -> Vec<Json<'_>> {
    let parsed = grants.documents.iter().map(|document| Json::parse(document.as_bytes()));
    black_box(parsed.collect::<Result<_, _>>().expect("a document is JSON"))
}

/// Parses as well.
#[inline(never)]
fn counted_shred(grants: &Grants) -> Vec<RowSet> {
    black_box(grants.documents.iter().map(|document| grants.rows(document)).collect())
}

/// Gives the number of rows.
#[inline(never)]
fn counted_fingerprint(grants: &Grants, sets: &[RowSet]) -> usize {
    let count = |set: &RowSet| {
        fingerprints(&grants.mapping, &grants.schema, set).rows.iter().map(Vec::len).sum::<usize>()
    };
    black_box(sets.iter().map(count).sum())
}

#[inline(never)]
fn counted_diff(stored: Vec<Entry<'_>>, source: Vec<Entry<'_>>) -> ChangeSet {
    black_box(diff(stored, source, Identity::KeyInParent))
}

fn entries(keys: &[[u8; 8]]) -> Vec<Entry<'_>> {
    let mut random = fastrand::Rng::with_seed(1);
    let mut entry = |(index, key)| {
        let content = random.u128(..).to_be_bytes();
        let (fingerprint, tree) = (RowFingerprint(content), TreeFingerprint(content));
        Entry { slot: index / 4, key, fingerprint, tree, index }
    };
    (0..).zip(keys.iter().map(<[u8; 8]>::as_slice)).map(&mut entry).collect()
}
