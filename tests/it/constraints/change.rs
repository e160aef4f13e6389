//! Draws a first state, and what changes from night to night.

use std::collections::BTreeSet;

use fastrand::Rng;

use super::shape::{Cell, Keys, Rel, Role, Shape};
use super::state::{Row, State};

pub use super::shape::chance;

/// Draws a first state that fits.
pub fn first(rng: &mut Rng, shape: &Shape) -> State {
    loop {
        let mut state = State::new(shape);
        for _ in 0..rng.usize(1..5) {
            grow(rng, shape, &mut state, 0, 0);
        }
        mend(rng, shape, &mut state, &|_| true);
        if !state.rows[0].is_empty() && state.is_valid(shape) {
            return state;
        }
    }
}

/// Adds a row with some rows below it.
fn grow(rng: &mut Rng, shape: &Shape, state: &mut State, rel: Rel, parent: Row) {
    let Some(row) = put(rng, shape, state, rel, parent) else { return };
    for inner in shape.inner(rel) {
        for _ in 0..rng.usize(0..5).min(rng.usize(0..7)) {
            grow(rng, shape, state, inner, row);
        }
    }
}

/// Adds a row that conflicts with none, if a few tries find one. References are mended later.
fn put(rng: &mut Rng, shape: &Shape, state: &mut State, rel: Rel, parent: Row) -> Option<Row> {
    for _ in 0..10 {
        let cells = draw_cells(rng, shape, state, rel);
        let row = state.add(rel, parent, cells);
        state.place(shape);
        if state.fits(shape, rel) {
            return Some(row);
        }
        state.remove(shape, rel, row);
        state.place(shape);
    }
    None
}

fn draw_cells(rng: &mut Rng, shape: &Shape, state: &State, rel: Rel) -> Vec<Cell> {
    let mut cells: Vec<Cell> = shape.relations[rel].columns.iter().map(|column| column.draw(rng)).collect();
    for reference in shape.references.iter().filter(|reference| reference.from.0 == rel) {
        let targets = &state.rows[reference.to.0];
        if !targets.is_empty() && cells[reference.from.1].is_some() {
            cells[reference.from.1] = targets[rng.usize(0..targets.len())].cells[reference.to.1];
        }
    }
    let names = |name: &str| shape.relations[rel].columns.iter().position(|column| column.name == name);
    if let Some((low, high)) = names("low").zip(names("high")) {
        let (a, length) = (cells[low].unwrap_or(0), rng.u8(0..4));
        cells[high] = Some((a + length).min(9));
    }
    // A column that must have a value, and refers to one that has none: mended later.
    for (column, cell) in shape.relations[rel].columns.iter().zip(&mut cells) {
        if !column.nullable && cell.is_none() {
            *cell = Some(0);
        }
    }
    cells
}

/// Makes references point at rows that are there: to others, else to none, else their row goes. Only rows of which
/// `may_change` says so of their document change.
fn mend(rng: &mut Rng, shape: &Shape, state: &mut State, may_change: &dyn Fn(Row) -> bool) {
    for _ in 0..40 {
        let Some((at, rel, number)) = dangling(shape, state, may_change) else { return };
        let reference = &shape.references[at];
        let (from, to) = (reference.from.1, reference.to.1);
        let Some(row) = state.find(rel, number).cloned() else { return };
        let targets = state.rows[reference.to.0].iter();
        let targets = targets.filter(|target| !reference.in_parent || target.parent == row.parent);
        let values: Vec<u8> = targets.filter_map(|target| target.cells[to]).collect();
        let nullable = shape.relations[rel].columns[from].nullable;
        let value = match values.len() {
            0 => None,
            _ if nullable && chance(rng, 30) => None,
            many => Some(values[rng.usize(0..many)]),
        };
        match value {
            None if !nullable => state.remove(shape, rel, number),
            value => state.row_mut(rel, number).cells[from] = value,
        }
        state.place(shape);
    }
}

/// A reference, and a row in which it points at nothing.
fn dangling(shape: &Shape, state: &State, may_change: &dyn Fn(Row) -> bool) -> Option<(usize, Rel, Row)> {
    shape.references.iter().enumerate().find_map(|(at, reference)| {
        let (rel, column) = reference.from;
        let row = state.rows[rel].iter().find(|row| {
            row.cells[column].is_some()
                && state.target(reference, row).is_none()
                && may_change(state.document(shape, rel, row.number))
        })?;
        Some((at, rel, row.number))
    })
}

/// What may happen in a night, and how often it is tried.
const KINDS: [(&str, u32); 11] = [
    ("swap", 18),
    ("rotation", 14),
    ("chain", 8),
    ("move", 14),
    ("dying parent", 14),
    ("replaced row", 8),
    ("repointed reference", 8),
    ("added row", 7),
    ("removed row", 5),
    ("edited row", 6),
    ("new order", 6),
];

/// Changes a state. `documents`: those that may change, by their root rows.
pub struct Night<'a> {
    pub shape: &'a Shape,
    pub rng: &'a mut Rng,
    pub documents: BTreeSet<Row>,
}

impl Night<'_> {
    /// Draws some changes, each of which leaves a valid state. Gives their kinds.
    pub fn draw(&mut self, state: &State) -> (State, BTreeSet<&'static str>) {
        let (before, mut state, mut kinds) = (state, state.clone(), BTreeSet::new());
        let wanted = self.rng.usize(1..5);
        for _ in 0..40 {
            if kinds.len() >= wanted {
                break;
            }
            let mut next = state.clone();
            let mut done = BTreeSet::new();
            // Sometimes two at once: the state between need not be valid.
            for _ in 0..if chance(self.rng, 30) { 2 } else { 1 } {
                done.extend(self.one(&mut next));
                next.place(self.shape);
            }
            let documents = self.documents.clone();
            mend(self.rng, self.shape, &mut next, &|document| documents.contains(&document));
            let fits = next.is_valid(self.shape) && self.leaves_absent(before, &next);
            if !done.is_empty() && next != state && fits {
                state = next;
                kinds.extend(done);
            }
        }
        (state, kinds)
    }

    /// Whether no document goes, and those that are not in the feed lose no rows but to others: a row that has moved
    /// may not go then.
    fn leaves_absent(&self, before: &State, after: &State) -> bool {
        let shape = self.shape;
        let stays = before.rows[0].iter().all(|root| after.find(0, root.number).is_some());
        stays
            && (1..before.rows.len()).all(|rel| {
                let outer = shape.relations[rel].outer.unwrap_or(0);
                before.rows[rel].iter().all(|row| {
                    let is_absent = !self.documents.contains(&before.document(shape, rel, row.number));
                    let is_of_absent = || !self.documents.contains(&after.document(shape, outer, row.parent));
                    let is_gone =
                        after.find(rel, row.number).is_none() && after.find(outer, row.parent).is_some();
                    !(is_absent && is_gone && is_of_absent())
                })
            })
    }

    fn one(&mut self, state: &mut State) -> Option<&'static str> {
        let mut left = self.rng.u32(0..KINDS.iter().map(|kind| kind.1).sum());
        let kind = KINDS.iter().find(|kind| {
            let found = left < kind.1;
            left = left.saturating_sub(kind.1);
            found
        })?;
        let done = match kind.0 {
            "swap" => self.pass_on(state, 2, false),
            "rotation" => {
                let many = self.rng.usize(3..5);
                self.pass_on(state, many, false)
            }
            "chain" => {
                let many = self.rng.usize(2..5);
                self.pass_on(state, many, true)
            }
            "move" => self.move_row(state),
            "dying parent" => self.dying_parent(state),
            "replaced row" => self.replace(state),
            "repointed reference" => self.repoint(state),
            "added row" => self.add(state),
            "removed row" => self.remove(state),
            "edited row" => self.edit(state),
            _ => self.reorder(state),
        };
        done.map(|()| kind.0)
    }

    /// A row that may change.
    fn pick(&mut self, state: &State, rel: Rel) -> Option<Row> {
        let mine: Vec<Row> = self.mine(state, rel);
        (!mine.is_empty()).then(|| mine[self.rng.usize(0..mine.len())])
    }

    fn mine(&self, state: &State, rel: Rel) -> Vec<Row> {
        let numbers = state.rows[rel].iter().map(|row| row.number);
        numbers.filter(|&row| self.documents.contains(&state.document(self.shape, rel, row))).collect()
    }

    /// A relation for which the condition holds.
    fn pick_rel(&mut self, fits: impl Fn(Rel) -> bool) -> Option<Rel> {
        let rels: Vec<Rel> = (0..self.shape.relations.len()).filter(|&rel| fits(rel)).collect();
        (!rels.is_empty()).then(|| rels[self.rng.usize(0..rels.len())])
    }

    /// Rows take over from each other what a unique constraint is about. The first gets what the last had, or, in
    /// a chain, something new.
    fn pass_on(&mut self, state: &mut State, many: usize, chain: bool) -> Option<()> {
        let shape = self.shape;
        let passes = |rel: Rel, unique: usize| {
            let relation = &shape.relations[rel];
            let columns = &relation.uniques[unique].columns;
            columns.iter().all(|&at| matches!(relation.columns[at].role, Role::Plain | Role::Reference))
                && !columns.is_empty()
        };
        let rel = self.pick_rel(|rel| {
            state.rows[rel].len() >= many
                && shape.relations[rel].keys != Keys::Content
                && (0..shape.relations[rel].uniques.len()).any(|unique| passes(rel, unique))
        })?;
        let uniques: Vec<usize> =
            (0..shape.relations[rel].uniques.len()).filter(|&unique| passes(rel, unique)).collect();
        let columns = &shape.relations[rel].uniques[uniques[self.rng.usize(0..uniques.len())]].columns;
        // What rows refer to that stay can hardly be passed on.
        let is_referred = shape.references.iter().any(|r| r.to.0 == rel && columns.contains(&r.to.1));
        if is_referred && chance(self.rng, 90) {
            return None;
        }
        let mut rows = self.mine(state, rel);
        self.rng.shuffle(&mut rows);
        // Half of them within one list.
        if chance(self.rng, 50) {
            let parent = state.find(rel, *rows.first()?)?.parent;
            rows.retain(|&row| state.find(rel, row).is_some_and(|row| row.parent == parent));
        }
        rows.truncate(many);
        if rows.len() < many {
            return None;
        }
        let cells = |row: &Row| -> Vec<Cell> {
            let row = state.find(rel, *row).expect("a row that was picked");
            columns.iter().map(|&at| row.cells[at]).collect()
        };
        let mut passed: Vec<Vec<Cell>> = rows.iter().map(cells).collect();
        if passed.iter().collect::<BTreeSet<_>>().len() < many {
            return None;
        }
        passed.rotate_left(1);
        if chain {
            let fresh = draw_cells(self.rng, shape, state, rel);
            passed[many - 1] = columns.iter().map(|&at| fresh[at]).collect();
        }
        for (row, cells) in rows.iter().zip(passed) {
            let row = state.row_mut(rel, *row);
            columns.iter().zip(cells).for_each(|(&at, cell)| row.cells[at] = cell);
        }
        Some(())
    }

    /// A row goes to another parent, perhaps out of a document that is not in the feed.
    fn move_row(&mut self, state: &mut State) -> Option<()> {
        let shape = self.shape;
        let rel = self
            .pick_rel(|rel| shape.relations[rel].outer.is_some() && shape.relations[rel].keys == Keys::All)?;
        let row = state.rows[rel].get(self.rng.usize(0..state.rows[rel].len().max(1)))?.number;
        self.hand_over(state, rel, row, None)
    }

    /// Hangs a row below another parent that may change, and is not the one given.
    fn hand_over(&mut self, state: &mut State, rel: Rel, row: Row, not: Option<Row>) -> Option<()> {
        let outer = self.shape.relations[rel].outer?;
        let parents = self.mine(state, outer);
        let at = state.rows[rel].iter().position(|entry| entry.number == row)?;
        let parents: Vec<Row> = parents
            .into_iter()
            .filter(|&parent| parent != state.rows[rel][at].parent && Some(parent) != not)
            .collect();
        let parent = *parents.get(self.rng.usize(0..parents.len().max(1)))?;
        // Those left behind have new places, which only a document in the feed can say.
        let is_placed = self.shape.relations[rel].with_role(Role::Position).next().is_some();
        if is_placed && !self.documents.contains(&state.document(self.shape, rel, row)) {
            return None;
        }
        let mut entry = state.rows[rel].remove(at);
        entry.parent = parent;
        let place = self.rng.usize(0..=state.rows[rel].len());
        state.rows[rel].insert(place, entry);
        Some(())
    }

    /// A row goes whose children go elsewhere before.
    fn dying_parent(&mut self, state: &mut State) -> Option<()> {
        let shape = self.shape;
        let rel = self.pick_rel(|rel| {
            let outer = shape.relations[rel].outer;
            outer.is_some_and(|outer| outer > 0) && shape.relations[rel].keys == Keys::All
        })?;
        let outer = shape.relations[rel].outer?;
        let mut parents = self.mine(state, outer);
        parents.retain(|&parent| state.rows[rel].iter().any(|row| row.parent == parent));
        let dying = *parents.get(self.rng.usize(0..parents.len().max(1)))?;
        let children: Vec<Row> =
            state.rows[rel].iter().filter(|row| row.parent == dying).map(|row| row.number).collect();
        let heir = match chance(self.rng, 40) {
            true => {
                let parent = state.find(outer, dying)?.parent;
                put(self.rng, shape, state, outer, parent)
            }
            false => None,
        };
        for child in children {
            match heir {
                Some(heir) => state.row_mut(rel, child).parent = heir,
                None if chance(self.rng, 80) => self.hand_over(state, rel, child, Some(dying))?,
                None => {}
            }
        }
        let leaves = state.rows[rel].iter().all(|row| row.parent != dying);
        state.remove(shape, outer, dying);
        (leaves || chance(self.rng, 50)).then_some(())
    }

    /// A row goes, another with the same values comes.
    fn replace(&mut self, state: &mut State) -> Option<()> {
        let rel = self.pick_rel(|rel| rel > 0)?;
        let old = state.find(rel, self.pick(state, rel)?)?.clone();
        // While one goes and the other comes, nothing can refer to either.
        let is_referred = self.shape.references.iter().any(|reference| {
            let rows = &state.rows[reference.from.0];
            reference.to.0 == rel && rows.iter().any(|row| state.target(reference, row) == Some(&old))
        });
        if is_referred && chance(self.rng, 75) {
            return None;
        }
        let mut cells = old.cells.clone();
        let relation = &self.shape.relations[rel];
        let column = match relation.keys {
            Keys::Content => self.rng.usize(0..cells.len()),
            _ => relation.key().next()?,
        };
        cells[column] = relation.columns[column].draw(self.rng);
        state.remove(self.shape, rel, old.number);
        state.add(rel, old.parent, cells);
        Some(())
    }

    fn repoint(&mut self, state: &mut State) -> Option<()> {
        let shape = self.shape;
        let reference = shape.references.get(self.rng.usize(0..shape.references.len().max(1)))?;
        let row = self.pick(state, reference.from.0)?;
        let fresh = draw_cells(self.rng, shape, state, reference.from.0);
        state.row_mut(reference.from.0, row).cells[reference.from.1] = fresh[reference.from.1];
        Some(())
    }

    fn add(&mut self, state: &mut State) -> Option<()> {
        let rel = self.pick_rel(|_| true)?;
        let parent = match self.shape.relations[rel].outer {
            Some(outer) => self.pick(state, outer)?,
            None => 0,
        };
        let row = put(self.rng, self.shape, state, rel, parent)?;
        if rel == 0 {
            self.documents.insert(row);
        }
        if chance(self.rng, 50) {
            // Not at the end of its list.
            let entry = state.rows[rel].pop()?;
            let place = self.rng.usize(0..=state.rows[rel].len());
            state.rows[rel].insert(place, entry);
        }
        for inner in self.shape.inner(rel) {
            for _ in 0..self.rng.usize(0..3) {
                grow(self.rng, self.shape, state, inner, row);
            }
        }
        Some(())
    }

    fn remove(&mut self, state: &mut State) -> Option<()> {
        let rel = self.pick_rel(|rel| rel > 0)?;
        let row = self.pick(state, rel)?;
        state.remove(self.shape, rel, row);
        Some(())
    }

    fn edit(&mut self, state: &mut State) -> Option<()> {
        let rel = self.pick_rel(|_| true)?;
        let row = self.pick(state, rel)?;
        let fresh = draw_cells(self.rng, self.shape, state, rel);
        let relation = &self.shape.relations[rel];
        let columns: Vec<usize> = relation.with_role(Role::Plain).collect();
        for _ in 0..self.rng.usize(1..3) {
            let at = columns[self.rng.usize(0..columns.len())];
            state.row_mut(rel, row).cells[at] = fresh[at];
        }
        Some(())
    }

    fn reorder(&mut self, state: &mut State) -> Option<()> {
        let shape = self.shape;
        let placed = |rel: Rel| shape.relations[rel].with_role(Role::Position).next().is_some();
        let rel = self.pick_rel(|rel| placed(rel) && state.rows[rel].len() > 1)?;
        let many = state.rows[rel].len();
        let documents = &self.documents;
        let mine: Vec<usize> = (0..many)
            .filter(|&at| documents.contains(&state.document(shape, rel, state.rows[rel][at].number)))
            .collect();
        let a = *mine.get(self.rng.usize(0..mine.len().max(1)))?;
        let b = *mine.get(self.rng.usize(0..mine.len().max(1)))?;
        state.rows[rel].swap(a, b);
        Some(())
    }
}

impl State {
    pub fn row_mut(&mut self, rel: Rel, number: Row) -> &mut super::state::Entry {
        let mut rows = self.rows[rel].iter_mut();
        rows.find(|row| row.number == number).expect("a row that was found before")
    }
}
