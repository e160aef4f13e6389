//! Pairs rows without a key that were left over, so that a changed row is one update.
//!
//! What makes two rows without a key the same one is their content, so a row of
//! which one column changed is one row that goes and one that comes. Where the
//! mapping says `pair = true`, those of one parent are taken together again: the
//! pair that differs in the fewest columns first, then the one whose stored row
//! comes first, then the one whose source row does. All pairs have to be looked
//! at for that; where there would be too many, rows are paired in their order.

use std::collections::BTreeMap;

use super::ChangeSet;

/// So many pairs of one parent are looked at, at most.
pub const PAIRS_MAX: usize = 250_000;

/// A row that was left over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leftover {
    /// The enclosing row.
    pub slot: u32,
    /// What the caller calls this row.
    pub index: u32,
    /// Its cells in comparison form.
    pub cells: Vec<Option<Vec<u8>>>,
}

/// Turns pairs of a removed and an added row of one parent into updates. Both sides are in the order that counts
/// where pairs are equally good.
pub fn pair(changes: &mut ChangeSet, removed: &[Leftover], added: &[Leftover]) {
    let mut parents: BTreeMap<u32, (Vec<&Leftover>, Vec<&Leftover>)> = BTreeMap::new();
    removed.iter().for_each(|row| parents.entry(row.slot).or_default().0.push(row));
    added.iter().for_each(|row| parents.entry(row.slot).or_default().1.push(row));
    let (mut gone, mut come) = (Vec::new(), Vec::new());
    for (old, new) in parents.values() {
        let pairs = pairs(old, new);
        gone.extend(left(old, pairs.iter().map(|pair| pair.0)));
        come.extend(left(new, pairs.iter().map(|pair| pair.1)));
        changes.updated.extend(pairs.iter().map(|&(a, b)| (old[a].index, new[b].index)));
    }
    (changes.removed, changes.added) = (gone, come);
    changes.removed.sort_unstable();
    changes.added.sort_unstable();
}

/// Positions of rows that belong together: as many as the shorter side has.
fn pairs(old: &[&Leftover], new: &[&Leftover]) -> Vec<(usize, usize)> {
    let count = old.len().min(new.len());
    if old.len().saturating_mul(new.len()) > PAIRS_MAX {
        return (0..count).map(|at| (at, at)).collect();
    }
    let every = (0..old.len()).flat_map(|a| (0..new.len()).map(move |b| (a, b)));
    let mut every: Vec<(usize, usize, usize)> =
        every.map(|(a, b)| (differing(old[a], new[b]), a, b)).collect();
    every.sort_unstable();
    let (mut is_old_taken, mut is_new_taken) = (vec![false; old.len()], vec![false; new.len()]);
    let mut pairs = Vec::with_capacity(count);
    for (_, a, b) in every {
        if !is_old_taken[a] && !is_new_taken[b] {
            (is_old_taken[a], is_new_taken[b]) = (true, true);
            pairs.push((a, b));
        }
    }
    pairs
}

fn differing(old: &Leftover, new: &Leftover) -> usize {
    old.cells.iter().zip(&new.cells).filter(|(old, new)| old != new).count()
}

/// What the rows without those at these positions are called.
fn left(rows: &[&Leftover], taken: impl Iterator<Item = usize>) -> Vec<u32> {
    let mut is_left = vec![true; rows.len()];
    taken.for_each(|at| is_left[at] = false);
    rows.iter().zip(is_left).filter(|(_, is_left)| *is_left).map(|(row, _)| row.index).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(slot: u32, cells: &[[u8; 3]]) -> Vec<Leftover> {
        let row = |(index, cells): (usize, &[u8; 3])| Leftover {
            slot,
            index: index as u32,
            cells: cells.iter().map(|&cell| (cell > 0).then(|| vec![cell])).collect(),
        };
        cells.iter().enumerate().map(row).collect()
    }

    fn paired(removed: &[Leftover], added: &[Leftover]) -> ChangeSet {
        let mut changes = ChangeSet::default();
        pair(&mut changes, removed, added);
        changes
    }

    #[test]
    fn p02_the_pair_that_differs_in_the_fewest_columns_comes_first() {
        let changes = paired(&rows(0, &[[1, 1, 1], [2, 2, 2]]), &rows(0, &[[2, 2, 0], [1, 9, 9], [7, 7, 7]]));
        assert_eq!(changes.updated, [(1, 0), (0, 1)]);
        assert_eq!((changes.removed, changes.added), (vec![], vec![2]));
    }

    #[test]
    fn of_equally_good_pairs_the_order_decides() {
        let changes = paired(&rows(0, &[[1, 1, 1], [1, 1, 2]]), &rows(0, &[[1, 1, 3], [1, 1, 4]]));
        assert_eq!(changes.updated, [(0, 0), (1, 1)]);
    }

    #[test]
    fn rows_of_different_parents_are_no_pair() {
        let changes = paired(&rows(0, &[[1, 1, 1]]), &rows(1, &[[1, 1, 2]]));
        assert_eq!((changes.updated, changes.removed, changes.added), (vec![], vec![0], vec![0]));
    }

    #[test]
    fn too_many_pairs_are_not_looked_at() {
        let removed: Vec<[u8; 3]> = (0..600).map(|at| [1, (at % 251) as u8, 1]).collect();
        let added: Vec<[u8; 3]> = (0..500).map(|at| [2, (at % 251) as u8, 2]).collect();
        let changes = paired(&rows(0, &removed), &rows(0, &added));
        assert_eq!(changes.updated, (0..500).map(|at| (at, at)).collect::<Vec<_>>());
        assert_eq!((changes.removed.len(), changes.added.len()), (100, 0));
    }
}
