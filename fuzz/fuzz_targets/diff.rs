//! Applying a change set to the stored rows gives the source rows, whatever the two sides hold; every row is
//! named once; equal sides in any order give an empty change set.
#![no_main]

use std::collections::HashSet;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use rowdelta::diff::{ChangeSet, Entry, Identity, diff};
use rowdelta::fingerprint::{RowFingerprint, TreeFingerprint};

#[derive(Arbitrary, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Plain {
    slot: u8,
    key: Vec<u8>,
    content: u8,
    below: bool,
}

#[derive(Arbitrary, Debug)]
enum Kind {
    KeyInParent,
    KeyEverywhere,
    Content,
}

fuzz_target!(|input: (Kind, Vec<Plain>, Vec<Plain>)| {
    let (kind, stored, source) = input;
    let identity = match kind {
        Kind::KeyInParent => Identity::KeyInParent,
        Kind::KeyEverywhere => Identity::KeyEverywhere,
        Kind::Content => Identity::Content,
    };
    let changes = diff(entries(&stored), entries(&source), identity);
    check_every_row_is_named_once(&changes, stored.len(), source.len());
    check_pairs(&changes, &stored, &source, identity);

    // Of rows that claim one identity the first counts.
    let expected: Vec<Plain> = match identity {
        Identity::Content => source.clone(),
        _ => first_of_each(&source, identity),
    };
    assert_eq!(contents(apply(&stored, &source, &changes)), contents(expected));

    let alone = match identity {
        Identity::Content => source,
        _ => first_of_each(&source, identity),
    };
    let mut reversed = entries(&alone);
    reversed.reverse();
    assert!(diff(entries(&alone), reversed, identity).is_empty());
});

fn entries(rows: &[Plain]) -> Vec<Entry<'_>> {
    rows.iter()
        .enumerate()
        .map(|(index, row)| {
            let mut content = [0; 16];
            content[0] = row.content;
            // Rows of other keys have other contents: the key is part of a row.
            row.key
                .iter()
                .enumerate()
                .for_each(|(at, byte)| content[2 + at % 13] ^= byte.rotate_left(at as u32 / 13));
            content[15] = row.key.len() as u8;
            let fingerprint = RowFingerprint(content);
            content[1] = row.below.into();
            Entry {
                slot: row.slot.into(),
                key: &row.key,
                fingerprint,
                tree: TreeFingerprint(content),
                index: index as u32,
            }
        })
        .collect()
}

fn same_identity(a: &Plain, b: &Plain, identity: Identity) -> bool {
    match identity {
        // What does not count as content may differ.
        Identity::KeyInParent | Identity::Content => (a.slot, &a.key) == (b.slot, &b.key),
        Identity::KeyEverywhere => a.key == b.key,
    }
}

fn fingerprint(row: &Plain) -> RowFingerprint {
    entries(std::slice::from_ref(row))[0].fingerprint
}

fn first_of_each(rows: &[Plain], identity: Identity) -> Vec<Plain> {
    let mut seen = HashSet::new();
    let mut fresh = |row: &&Plain| match identity {
        Identity::KeyInParent => seen.insert((row.slot, row.key.clone())),
        _ => seen.insert((0, row.key.clone())),
    };
    rows.iter().filter(|row| fresh(row)).cloned().collect()
}

/// Rows as a relation has them: what is below a row is another relation's business.
fn contents(rows: Vec<Plain>) -> Vec<(u8, RowFingerprint, Vec<u8>)> {
    let mut contents: Vec<_> = rows.iter().map(|row| (row.slot, fingerprint(row), row.key.clone())).collect();
    contents.sort_unstable();
    contents
}

/// In the simplest way: what is unchanged is taken from the stored side, all else from the source.
fn apply(stored: &[Plain], source: &[Plain], changes: &ChangeSet) -> Vec<Plain> {
    let unchanged = changes.unchanged.iter().map(|pair| &stored[pair.0 as usize]);
    let written = changes.updated.iter().chain(&changes.moved).map(|pair| &source[pair.1 as usize]);
    let added = changes.added.iter().map(|&row| &source[row as usize]);
    unchanged.chain(written).chain(added).cloned().collect()
}

fn check_every_row_is_named_once(changes: &ChangeSet, stored: usize, source: usize) {
    let mut old: Vec<u32> =
        changes.matched().map(|pair| pair.0).chain(changes.removed.iter().copied()).collect();
    let claimed = changes.claimed.iter().map(|pair| pair.1);
    let mut new: Vec<u32> =
        changes.matched().map(|pair| pair.1).chain(changes.added.iter().copied()).chain(claimed).collect();
    old.sort_unstable();
    new.sort_unstable();
    assert_eq!(old, (0..stored as u32).collect::<Vec<_>>());
    assert_eq!(new, (0..source as u32).collect::<Vec<_>>());
}

/// Each pair is one row, and is in the list that says what happened to it.
fn check_pairs(changes: &ChangeSet, stored: &[Plain], source: &[Plain], identity: Identity) {
    let pair = |&(old, new): &(u32, u32)| (&stored[old as usize], &source[new as usize]);
    for (old, new) in changes.matched().collect::<Vec<_>>().iter().map(pair) {
        assert!(same_identity(old, new, identity));
    }
    for (old, new) in changes.unchanged.iter().map(pair) {
        assert!(old.slot == new.slot && fingerprint(old) == fingerprint(new));
    }
    for (old, new) in changes.updated.iter().map(pair) {
        assert!(old.slot == new.slot && fingerprint(old) != fingerprint(new));
    }
    assert!(changes.moved.iter().map(pair).all(|(old, new)| old.slot != new.slot));
    for &(taken, other) in &changes.claimed {
        assert!(same_identity(&source[taken as usize], &source[other as usize], identity));
    }
}
