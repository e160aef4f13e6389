//! Whether an order of writes leads from one state to another, going by the model; perhaps with a few writes more: a
//! value that is parked, a reference that is filled in later. What it finds PostgreSQL confirms.

use std::collections::HashSet;

use super::shape::{Cell, Form, Role, Shape, When};
use super::state::{Change, Entry, State};

/// Sets of more changes are not gone through.
const CHANGES_MAX: usize = 14;
/// Nor more steps than these.
const STEPS_MAX: usize = 60_000;
/// Values that no document has. Three of them, because there is an index over `x % 3`.
const FAR: [u8; 3] = [200, 201, 202];

/// A write before the last one of a row: what the row is meanwhile.
struct Detour {
    change: usize,
    entry: Entry,
}

struct Search<'a> {
    shape: &'a Shape,
    changes: &'a [Change],
    detours: Vec<Detour>,
    /// What leads nowhere: changes done, as bits, and detours taken.
    dead: HashSet<(u32, Vec<usize>)>,
    taken: Vec<usize>,
    steps: Vec<Change>,
}

/// Steps from one state to the other, with at most so many detours.
pub fn search(shape: &Shape, (before, after): (&State, &State), detours: usize) -> Option<Vec<Change>> {
    let changes = before.changes(after);
    if changes.len() > CHANGES_MAX {
        return None;
    }
    let possible = if detours > 0 { possible(shape, &changes) } else { Vec::new() };
    let mut search = Search {
        shape,
        changes: &changes,
        detours: possible,
        dead: HashSet::new(),
        taken: Vec::new(),
        steps: Vec::new(),
    };
    search.go(before, 0, detours).then_some(search.steps)
}

/// What rows may be for a while: with NULL, or with a value that nobody has, in a column that a constraint is about.
fn possible(shape: &Shape, changes: &[Change]) -> Vec<Detour> {
    let mut detours = Vec::new();
    for (change, Change { relation, before, after }) in changes.iter().enumerate() {
        let Some(entry) = before.as_ref().or(after.as_ref()) else { continue };
        let relation = &shape.relations[*relation];
        let mut put = |cells: &[(usize, Cell)]| {
            let mut entry = entry.clone();
            cells.iter().for_each(|&(at, cell)| entry.cells[at] = cell);
            detours.push(Detour { change, entry });
        };
        for (at, column) in relation.columns.iter().enumerate().filter(|(_, column)| column.role != Role::Key)
        {
            if column.nullable {
                put(&[(at, None)]);
            }
            let far = if relation.uniques.iter().any(|unique| unique.form == Form::Modulo) { 3 } else { 1 };
            FAR[..far].iter().filter(|_| before.is_some()).for_each(|&far| put(&[(at, Some(far))]));
        }
        for unique in relation.uniques.iter().filter(|unique| unique.form == Form::Overlap) {
            put(&[(unique.columns[0], Some(FAR[0])), (unique.columns[1], Some(FAR[0]))]);
        }
    }
    detours
}

impl Search<'_> {
    fn go(&mut self, state: &State, done: u32, detours: usize) -> bool {
        if done == (1 << self.changes.len()) - 1 {
            return true;
        }
        if self.dead.len() > STEPS_MAX || !self.dead.insert((done, self.taken.clone())) {
            return false;
        }
        for at in (0..self.changes.len()).filter(|at| done & 1 << at == 0) {
            let Change { relation, after, .. } = &self.changes[at];
            if self.step(state, *relation, at, after.as_ref(), done | 1 << at, detours) {
                return true;
            }
        }
        let open = |detour: &Detour| done & 1 << detour.change == 0;
        for at in (0..self.detours.len()).filter(|_| detours > 0) {
            let Detour { change, entry } = &self.detours[at];
            let is_taken = self.taken.iter().any(|&other| self.detours[other].change == *change);
            if is_taken || !open(&self.detours[at]) {
                continue;
            }
            let (change, entry) = (*change, entry.clone());
            self.taken.push(at);
            if self.step(state, self.changes[change].relation, change, Some(&entry), done, detours - 1) {
                return true;
            }
            self.taken.pop();
        }
        false
    }

    /// Makes a row what it shall be, and goes on from there.
    fn step(
        &mut self,
        state: &State,
        relation: usize,
        change: usize,
        to: Option<&Entry>,
        done: u32,
        detours: usize,
    ) -> bool {
        let Change { before, after, .. } = &self.changes[change];
        let Some(number) = before.as_ref().or(after.as_ref()).map(|row| row.number) else { return false };
        let now = state.find(relation, number).cloned();
        let mut next = state.clone();
        next.rows[relation].retain(|row| row.number != number);
        next.rows[relation].extend(to.cloned());
        if !next.holds_meanwhile(self.shape) {
            return false;
        }
        self.steps.push(Change { relation, before: now, after: to.cloned() });
        if self.go(&next, done, detours) {
            return true;
        }
        self.steps.pop();
        false
    }
}

impl State {
    /// Whether the constraints hold that are checked at once.
    fn holds_meanwhile(&self, shape: &Shape) -> bool {
        let hangs = |rel: usize, row: &Entry| {
            shape.relations[rel].outer.is_none_or(|outer| self.find(outer, row.parent).is_some())
        };
        let tables = (0..self.rows.len()).all(|rel| {
            self.rows[rel].iter().all(|row| hangs(rel, row))
                && self.fits_at(shape, rel, |check| check == When::AtOnce)
        });
        let at_once = |check| check == When::AtOnce;
        tables && shape.references.iter().filter(|reference| at_once(reference.check)).all(|r| self.refers(r))
    }
}
