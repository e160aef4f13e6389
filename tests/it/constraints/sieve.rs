//! Whether a state fits the constraints, as far as this file knows them, and which changes wait for which.
//!
//! It only helps to draw: PostgreSQL judges what it lets through. And it counts circles of changes, which bound what
//! may be parked.

use std::collections::HashSet;

use super::shape::{Cell, Filter, Form, Keys, OnDelete, Reference, Rel, Relation, Shape, Type, Unique, When};
use super::state::{Change, Entry, Row, State};

/// What an index compares; rows with the same one conflict.
type Compared = (Row, Vec<Cell>);

impl State {
    /// Whether all constraints hold.
    pub fn is_valid(&self, shape: &Shape) -> bool {
        (0..self.rows.len()).all(|rel| self.fits(shape, rel))
            && shape.references.iter().all(|reference| self.refers(reference))
    }

    /// Whether the constraints of one table hold, but for its references.
    pub fn fits(&self, shape: &Shape, rel: Rel) -> bool {
        shape.relations[rel].keys_differ(&self.rows[rel]) && self.fits_at(shape, rel, |_| true)
    }

    /// Whether those hold that are checked at such a time.
    pub fn fits_at(&self, shape: &Shape, rel: Rel, counts: impl Fn(When) -> bool) -> bool {
        let (relation, rows) = (&shape.relations[rel], &self.rows[rel]);
        relation
            .uniques
            .iter()
            .filter(|unique| counts(unique.check))
            .all(|unique| unique.holds(relation, rows))
    }

    pub fn refers(&self, reference: &Reference) -> bool {
        let (rel, column) = reference.from;
        self.rows[rel].iter().all(|row| row.cells[column].is_none() || self.target(reference, row).is_some())
    }

    /// The row that a row refers to.
    pub fn target(&self, reference: &Reference, row: &Entry) -> Option<&Entry> {
        let key = reference.key_from(row)?;
        self.rows[reference.to.0].iter().find(|target| reference.key_to(target) == Some(key))
    }
}

impl Reference {
    pub fn key_from(&self, row: &Entry) -> Option<(Row, u8)> {
        row.cells[self.from.1].map(|value| (if self.in_parent { row.parent } else { 0 }, value))
    }

    pub fn key_to(&self, row: &Entry) -> Option<(Row, u8)> {
        row.cells[self.to.1].map(|value| (if self.in_parent { row.parent } else { 0 }, value))
    }
}

impl Relation {
    /// The mapping's keys, whether an index enforces them or not.
    fn keys_differ(&self, rows: &[Entry]) -> bool {
        let mut seen = HashSet::new();
        let key = |row: &Entry| {
            let scope = if self.keys == Keys::All { 0 } else { row.parent };
            (scope, self.key().map(|at| row.cells[at]).collect::<Vec<_>>())
        };
        self.keys == Keys::Content || rows.iter().all(|row| seen.insert(key(row)))
    }
}

impl Unique {
    fn holds(&self, relation: &Relation, rows: &[Entry]) -> bool {
        if self.form == Form::Overlap {
            let pairs = rows.iter().enumerate().flat_map(|(at, a)| rows[..at].iter().map(move |b| (a, b)));
            return rows.iter().all(|row| self.range(row).is_some())
                && pairs.into_iter().all(|(a, b)| !self.meets(relation, a, b));
        }
        let mut seen = HashSet::new();
        rows.iter().filter_map(|row| self.compared(relation, row)).all(|key| seen.insert(key))
    }

    /// Whether two rows conflict.
    fn meets(&self, relation: &Relation, a: &Entry, b: &Entry) -> bool {
        if self.form != Form::Overlap {
            let a = self.compared(relation, a);
            return a.is_some() && a == self.compared(relation, b);
        }
        let overlap = match (self.range(a), self.range(b)) {
            (Some(a), Some(b)) => a.0 < b.1 && b.0 < a.1 && a.0 < a.1 && b.0 < b.1,
            _ => false,
        };
        overlap && (!self.in_parent || a.parent == b.parent)
    }

    fn range(&self, row: &Entry) -> Option<(u8, u8)> {
        let [low, high] = [self.columns[0], self.columns[1]].map(|at| row.cells[at]);
        low.zip(high).filter(|(low, high)| low <= high)
    }

    /// `None`: the row conflicts with none.
    fn compared(&self, relation: &Relation, row: &Entry) -> Option<Compared> {
        let takes_part = match self.filter {
            None => true,
            Some(Filter::NotNull(at)) => row.cells[at].is_some(),
            Some(Filter::Equals(at, value)) => row.cells[at] == Some(value),
        };
        let cells: Vec<Cell> = self.columns.iter().map(|&at| self.cell(relation, row, at)).collect();
        let differs = self.nulls_distinct && cells.iter().any(Option::is_none);
        (takes_part && !differs).then_some((if self.in_parent { row.parent } else { 0 }, cells))
    }

    fn cell(&self, relation: &Relation, row: &Entry, at: usize) -> Cell {
        let cell = row.cells[at];
        match (self.form, relation.columns[at].ty) {
            (Form::Modulo, _) => cell.map(|value| value % 3),
            (Form::Coalesce, _) => Some(cell.unwrap_or(0)),
            (Form::Lower, ty @ (Type::Text | Type::Varchar)) => {
                let lower = |value| ty.print(value).to_lowercase();
                cell.map(|value| (0..=value).find(|&other| lower(other) == lower(value)).unwrap_or(value))
            }
            _ => cell,
        }
    }
}

/// Which change must come before which, as pairs of places.
fn waits(shape: &Shape, changes: &[Change]) -> HashSet<(usize, usize)> {
    let mut edges = HashSet::new();
    for (a, first) in changes.iter().enumerate() {
        for (b, then) in changes.iter().enumerate().filter(|(b, _)| *b != a) {
            if frees(shape, first, then) || arrives(shape, first, then) || leaves(shape, first, then) {
                edges.insert((a, b));
            }
        }
    }
    edges
}

/// Whether the first gives up what the other takes.
fn frees(shape: &Shape, first: &Change, then: &Change) -> bool {
    let relation = &shape.relations[first.relation];
    let (Some(before), Some(after)) = (&first.before, &then.after) else { return false };
    first.relation == then.relation
        && relation.uniques.iter().any(|unique| unique.meets(relation, before, after))
}

/// Whether the other refers to what the first makes.
fn arrives(shape: &Shape, first: &Change, then: &Change) -> bool {
    let (Some(target), Some(row)) = (&first.after, &then.after) else { return false };
    let of_tree = shape.relations[then.relation].outer == Some(first.relation)
        && first.before.is_none()
        && row.parent == target.number;
    let refers = |reference: &Reference| {
        (reference.from.0, reference.to.0) == (then.relation, first.relation)
            && reference.key_from(row).is_some_and(|key| reference.key_to(target) == Some(key))
    };
    of_tree || shape.references.iter().any(refers)
}

/// Whether the first refers to what the other makes go.
fn leaves(shape: &Shape, first: &Change, then: &Change) -> bool {
    let (Some(row), Some(target)) = (&first.before, &then.before) else { return false };
    let of_tree = shape.relations[first.relation].outer == Some(then.relation)
        && then.after.is_none()
        && row.parent == target.number;
    let refers = |reference: &Reference| {
        (reference.from.0, reference.to.0) == (first.relation, then.relation)
            && reference.key_from(row).is_some_and(|key| reference.key_to(target) == Some(key))
    };
    of_tree || shape.references.iter().any(refers)
}

/// How many rows refer to a key that passes from one row to another, where that is not checked at the end.
pub fn onlookers(shape: &Shape, after: &State, changes: &[Change]) -> u64 {
    let of = |reference: &Reference| {
        let changes = changes.iter().filter(|change| change.relation == reference.to.0);
        let keys = changes.map(|change| {
            [&change.before, &change.after].map(|row| row.as_ref().and_then(|row| reference.key_to(row)))
        });
        let keys: Vec<_> = keys.filter(|[before, after]| before != after).collect();
        let passes = |key| {
            keys.iter().any(|[_, after]| *after == key) && keys.iter().any(|[before, _]| *before == key)
        };
        let rows = after.rows[reference.from.0].iter().map(|row| reference.key_from(row));
        rows.filter(|key| key.is_some() && passes(*key)).count() as u64
    };
    let is_early =
        |reference: &&Reference| reference.check == When::AtOnce || reference.on_delete != OnDelete::NoAction;
    shape.references.iter().filter(is_early).map(of).sum()
}

/// How many circles there are in which changes wait for each other, up to a limit.
pub fn circles(shape: &Shape, changes: &[Change], limit: u64) -> u64 {
    let edges = waits(shape, changes);
    let mut found = 0;
    for start in 0..changes.len() {
        let mut path = vec![start];
        walk(&edges, start, &mut path, changes.len(), limit, &mut found);
    }
    found
}

/// Goes on from the end of a path over places beyond its start, so that each circle is met once.
fn walk(
    edges: &HashSet<(usize, usize)>,
    start: usize,
    path: &mut Vec<usize>,
    all: usize,
    limit: u64,
    found: &mut u64,
) {
    let end = path[path.len() - 1];
    if path.len() > 1 && edges.contains(&(end, start)) {
        *found += 1;
    }
    for next in start + 1..all {
        if *found >= limit {
            return;
        }
        if edges.contains(&(end, next)) && !path.contains(&next) {
            path.push(next);
            walk(edges, start, path, all, limit, found);
            path.pop();
        }
    }
}
