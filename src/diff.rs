//! Compares the stored rows of a relation with the rows its documents now ask for.
//!
//! Both sides are sorted by identity, so the comparison is one merge walk: linear
//! in the number of rows and free of hash maps. Rows are compared by fingerprint;
//! which columns of a changed row differ is the plan's business. Neither a mapping
//! nor a type is known here, so it works for any rows, of one document or of a
//! whole batch.
//!
//! A *slot* stands for the enclosing row: a stored parent and the source row it
//! was matched with share one, so that the relations of a document are compared
//! level by level with the same walk.
//!
//! Two promises hold for any input, and the tests below check them on random
//! rows: applying the result to `stored` gives `source`, and equal sides give an
//! empty [`ChangeSet`].

mod pair;

pub use pair::{Leftover, PAIRS_MAX, pair};

use crate::fingerprint::{RowFingerprint, TreeFingerprint};

/// One row of a side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The enclosing row.
    pub slot: u32,
    /// What tells rows apart: the key's cells in comparison form; or, where content is the identity, a fingerprint
    /// of the columns that count as such.
    pub key: &'a [u8],
    /// The row's content.
    pub fingerprint: RowFingerprint,
    /// The content of the row and of what is below it: tells rows of equal content apart.
    pub tree: TreeFingerprint,
    /// What the caller calls this row.
    pub index: u32,
}

/// What makes two rows the same one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Identity {
    /// The key, among the rows of one parent.
    KeyInParent,
    /// The key alone: a row may turn up under another parent.
    KeyEverywhere,
    /// The content, among the rows of one parent: a multiset. What does not count as content may change.
    Content,
}

/// Add, update and remove sets of one relation. Pairs are `(stored, source)`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChangeSet {
    /// Source rows without a stored one.
    pub added: Vec<u32>,
    /// Stored rows without a source one.
    pub removed: Vec<u32>,
    /// The same row with other content.
    pub updated: Vec<(u32, u32)>,
    /// The same row under another parent, its content equal or not.
    pub moved: Vec<(u32, u32)>,
    /// The same row with the same content.
    pub unchanged: Vec<(u32, u32)>,
    /// Source rows that claim one identity: the one that was taken, and one more.
    pub claimed: Vec<(u32, u32)>,
}

impl ChangeSet {
    /// Whether nothing has to be written.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty() && self.updated.is_empty() && self.moved.is_empty()
    }

    /// All pairs of a stored row and the source row it was matched with.
    pub fn matched(&self) -> impl Iterator<Item = (u32, u32)> {
        self.unchanged.iter().chain(&self.updated).chain(&self.moved).copied()
    }
}

/// Compares two sides. Their order does not matter.
pub fn diff(mut stored: Vec<Entry<'_>>, mut source: Vec<Entry<'_>>, identity: Identity) -> ChangeSet {
    let order = |a: &Entry<'_>, b: &Entry<'_>| compare(identity, a, b).then(a.index.cmp(&b.index));
    stored.sort_unstable_by(order);
    source.sort_unstable_by(order);
    let mut changes = ChangeSet::default();
    let (mut left, mut right) = (&stored[..], &source[..]);
    while let Some(next) = smaller(identity, left.first(), right.first()) {
        let (old, rest) = left.split_at(run(identity, left, next));
        left = rest;
        let (new, rest) = right.split_at(run(identity, right, next));
        right = rest;
        match identity {
            Identity::Content => match_equal(old, new, &mut changes),
            _ => match_keyed(old, new, &mut changes),
        }
    }
    changes
}

fn compare(identity: Identity, a: &Entry<'_>, b: &Entry<'_>) -> std::cmp::Ordering {
    match identity {
        Identity::KeyInParent | Identity::Content => (a.slot, a.key).cmp(&(b.slot, b.key)),
        Identity::KeyEverywhere => a.key.cmp(b.key),
    }
}

fn smaller<'e, 'k>(
    identity: Identity,
    left: Option<&'e Entry<'k>>,
    right: Option<&'e Entry<'k>>,
) -> Option<&'e Entry<'k>> {
    match (left, right) {
        (Some(l), Some(r)) if compare(identity, l, r).is_gt() => Some(r),
        (left, right) => left.or(right),
    }
}

/// How many entries at the start have the identity of `next`.
fn run(identity: Identity, entries: &[Entry<'_>], next: &Entry<'_>) -> usize {
    entries.iter().take_while(|entry| compare(identity, entry, next).is_eq()).count()
}

/// One identity, at most one row of it on each side: what is beyond is removed, or claimed twice.
fn match_keyed(old: &[Entry<'_>], new: &[Entry<'_>], changes: &mut ChangeSet) {
    if let Some((taken, rest)) = new.split_first() {
        changes.claimed.extend(rest.iter().map(|entry| (taken.index, entry.index)));
    }
    // Of several stored rows (no constraint forbids them) one under the same parent is preferred.
    let at_home = |source: &Entry<'_>| old.iter().position(|entry| entry.slot == source.slot).unwrap_or(0);
    let matched = new.first().filter(|_| !old.is_empty()).map(|source| (at_home(source), source));
    for (at, entry) in old.iter().enumerate() {
        match matched {
            Some((chosen, source)) if chosen == at => {
                let pair = (entry.index, source.index);
                match () {
                    () if entry.slot != source.slot => changes.moved.push(pair),
                    () if entry.fingerprint != source.fingerprint => changes.updated.push(pair),
                    () => changes.unchanged.push(pair),
                }
            }
            _ => changes.removed.push(entry.index),
        }
    }
    if matched.is_none() {
        changes.added.extend(new.first().map(|entry| entry.index));
    }
}

/// Rows of equal content: first those whose whole tree is equal are matched, then those that are equal but for
/// what is below them, then the rest in order.
fn match_equal(old: &[Entry<'_>], new: &[Entry<'_>], changes: &mut ChangeSet) {
    let (old, new): (Vec<_>, Vec<_>) = (old.iter().collect(), new.iter().collect());
    if old.len() == 1 && new.len() == 1 {
        match_by(|_| (), old, new, changes);
        return;
    }
    let (old, new) = match_by(|entry| entry.tree.0, old, new, changes);
    let (old, new) = match_by(|entry| entry.fingerprint.0, old, new, changes);
    let (old, new) = match_by(|_| (), old, new, changes);
    changes.removed.extend(old.iter().map(|entry| entry.index));
    changes.added.extend(new.iter().map(|entry| entry.index));
}

/// Matches, in order, rows of which `by` gives the same. Gives those that are left on each side.
fn match_by<'e, 'k, T: Ord>(
    by: impl Fn(&Entry<'k>) -> T,
    mut old: Vec<&'e Entry<'k>>,
    mut new: Vec<&'e Entry<'k>>,
    changes: &mut ChangeSet,
) -> (Vec<&'e Entry<'k>>, Vec<&'e Entry<'k>>) {
    for side in [&mut old, &mut new] {
        side.sort_by_cached_key(|entry| (by(entry), entry.index));
    }
    let (mut left_old, mut left_new) = (Vec::new(), Vec::new());
    let (mut i, mut j) = (0, 0);
    while i < old.len() && j < new.len() {
        match by(old[i]).cmp(&by(new[j])) {
            std::cmp::Ordering::Equal => {
                let pair = (old[i].index, new[j].index);
                let is_same = old[i].fingerprint == new[j].fingerprint;
                if is_same {
                    changes.unchanged.push(pair)
                } else {
                    changes.updated.push(pair)
                }
                (i, j) = (i + 1, j + 1);
            }
            std::cmp::Ordering::Less => {
                left_old.push(old[i]);
                i += 1;
            }
            std::cmp::Ordering::Greater => {
                left_new.push(new[j]);
                j += 1;
            }
        }
    }
    left_old.extend(&old[i..]);
    left_new.extend(&new[j..]);
    (left_old, left_new)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A row for the tests: slot, key, content.
    type Plain = (u32, u8, u8);

    fn entries(rows: &[Plain]) -> Vec<Entry<'_>> {
        let entry = |(index, row): (usize, &Plain)| Entry {
            slot: row.0,
            key: KEYS[row.1 as usize],
            fingerprint: RowFingerprint([row.1 * 16 + row.2; 16]),
            tree: TreeFingerprint([row.1 * 16 + row.2; 16]),
            index: index as u32,
        };
        rows.iter().enumerate().map(entry).collect()
    }

    const KEYS: [&[u8]; 4] = [b"a", b"b", b"bb", b"c"];

    /// Applies a change set in the simplest way: rows are values, the result is a sorted list.
    fn apply(stored: &[Plain], source: &[Plain], changes: &ChangeSet) -> Vec<Plain> {
        let mut rows: Vec<Plain> = Vec::new();
        rows.extend(changes.unchanged.iter().map(|&(old, _)| stored[old as usize]));
        rows.extend(changes.updated.iter().chain(&changes.moved).map(|&(_, new)| source[new as usize]));
        rows.extend(changes.added.iter().map(|&new| source[new as usize]));
        rows.sort_unstable();
        rows
    }

    /// Rows whose identity is unique, as a source side has them.
    fn unique(rows: Vec<Plain>, identity: Identity) -> Vec<Plain> {
        let mut seen = std::collections::HashSet::new();
        let fresh = |row: &Plain| match identity {
            Identity::KeyInParent => seen.insert((row.0, row.1)),
            Identity::KeyEverywhere => seen.insert((0, row.1)),
            Identity::Content => true,
        };
        let mut fresh = fresh;
        rows.into_iter().filter(|row| fresh(row)).collect()
    }

    fn identities() -> impl Strategy<Value = Identity> {
        prop_oneof![Just(Identity::KeyInParent), Just(Identity::KeyEverywhere), Just(Identity::Content)]
    }

    fn rows() -> impl Strategy<Value = Vec<Plain>> {
        prop::collection::vec((0u32..3, 0u8..4, 0u8..3), 0..12)
    }

    proptest! {
        #[test]
        fn p02_diff_then_apply_gives_source(stored in rows(), source in rows(), identity in identities()) {
            let source = unique(source, identity);
            let changes = diff(entries(&stored), entries(&source), identity);
            let mut expected = source.clone();
            expected.sort_unstable();
            prop_assert_eq!(apply(&stored, &source, &changes), expected);
            prop_assert!(changes.claimed.is_empty());
            let touched = changes.removed.len() + changes.matched().count();
            prop_assert_eq!(touched, stored.len(), "every stored row is accounted for");
        }

        #[test]
        fn p13_equal_sides_in_any_order_give_no_change(rows in rows(), identity in identities()) {
            let rows = unique(rows, identity);
            let mut reversed = entries(&rows);
            reversed.reverse();
            prop_assert!(diff(entries(&rows), reversed, identity).is_empty());
        }
    }

    #[test]
    fn p13_of_rows_of_equal_content_those_with_their_place_stay() {
        // Content b, at places 0, 1, 2; now at 2, 3 and 1.
        let stored = [(0, 1, 0), (0, 1, 1), (0, 1, 2)];
        let source = [(0, 1, 2), (0, 1, 3), (0, 1, 1)];
        let changes = diff(entries(&stored), entries(&source), Identity::Content);
        assert_eq!(changes.unchanged, [(1, 2), (2, 0)]);
        assert_eq!(changes.updated, [(0, 1)]);
        assert!(changes.added.is_empty() && changes.removed.is_empty());
    }

    #[test]
    fn p17_a_row_under_another_parent_has_moved_and_claims_are_named() {
        let stored = [(0, 0, 1)];
        let source = [(1, 0, 1), (2, 0, 1)];
        let changes = diff(entries(&stored), entries(&source), Identity::KeyEverywhere);
        assert_eq!(changes.moved, [(0, 0)]);
        assert_eq!(changes.claimed, [(0, 1)]);
    }
}
