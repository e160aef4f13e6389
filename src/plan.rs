//! Change sets of a batch → ordered steps.
//!
//! A plan is plain data: what will be written, in which order, and how many rows
//! each step must touch. It holds no connection and no text of SQL, so it can be
//! printed and compared without a database; the applier checks the counts.
//!
//! The order is one that foreign keys allow:
//!
//! 1. rows that go, deepest relation first, so that the values they hold are free;
//! 2. rows whose columns change, root first;
//! 3. per relation, root first: new rows, then rows that move to another parent
//!    (their new parent exists by then);
//! 4. rows that had to wait until rows below them had moved away.
//!
//! Rows of a relation whose key is unique in the table are not deleted here but
//! *held back*, with whatever encloses them: later in the feed they may turn up
//! under another parent, and must then still have their ids.

use std::collections::{BTreeMap, HashSet};

use crate::diff::ChangeSet;
use crate::fingerprint::{RowFingerprint, TreeFingerprint};
use crate::mapping::{Mapping, RelationIx, UniqueIn};
use crate::row::{Cell, Tuple};
use crate::schema::Schema;
use crate::shred::same;

/// A row that a document of the batch asks for.
#[derive(Clone, Debug)]
pub struct SourceRow {
    /// Index of the document in the batch.
    pub document: u32,
    /// Index among the source rows of the enclosing relation; 0 for the root.
    pub parent: u32,
    /// The mapped columns.
    pub tuple: Tuple,
    /// Of the row.
    pub fingerprint: RowFingerprint,
    /// Of the row and what is below it.
    pub tree: TreeFingerprint,
}

/// A row as it is stored.
#[derive(Clone, Debug)]
pub struct StoredRow {
    /// Index of the document in the batch; `None` for a row of another document.
    pub document: Option<u32>,
    /// Index among the stored rows of the enclosing relation; `None` if that one was not read.
    pub parent: Option<u32>,
    /// The columns that refer to the enclosing row.
    pub reference: Tuple,
    /// The columns that find the row again, and the version that was read (`xmin`) last.
    pub locator: Tuple,
    /// The surrogate, where the table has one.
    pub id: Option<Vec<u8>>,
    /// The mapped columns.
    pub tuple: Tuple,
    /// Of the row.
    pub fingerprint: RowFingerprint,
}

/// One relation of a batch: both sides and how they differ.
#[derive(Clone, Debug, Default)]
pub struct Sides {
    /// What the documents ask for.
    pub source: Vec<SourceRow>,
    /// What is stored.
    pub stored: Vec<StoredRow>,
    /// The difference; indexes into the two lists.
    pub changes: ChangeSet,
}

/// Ordered steps for one batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// In the order in which they must run.
    pub steps: Vec<Step>,
    /// Removals to be decided at the end of the feed: the topmost row of each, per relation.
    pub held: Vec<(RelationIx, u32)>,
    /// Per relation, rows that are written nowhere because they are as they should be.
    pub unchanged: Vec<u64>,
    /// Per document of the batch, whether a row of it is written.
    pub touched: Vec<bool>,
}

/// One step: rows of one table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The relation.
    pub relation: RelationIx,
    /// What happens to its rows.
    pub action: Action,
}

/// What a step does. Numbers are indexes of stored and source rows in [`Sides`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Stored rows go.
    Delete(Vec<u32>),
    /// Columns of stored rows change.
    Update {
        /// The mapped columns that are set.
        columns: Vec<usize>,
        /// Whether the reference to the parent is set too: the rows move.
        moves: bool,
        /// Pairs of stored and source row.
        rows: Vec<(u32, u32)>,
    },
    /// The root's marks are set, and nothing else of it. Pairs of stored and source row.
    Mark(Vec<(u32, u32)>),
    /// Source rows come, with these of the mapped columns; the others get their default.
    Insert {
        /// The mapped columns that are filled.
        columns: Vec<usize>,
        /// The rows.
        rows: Vec<u32>,
    },
}

impl Action {
    /// How many rows the step must touch; another count means that someone else wrote meanwhile.
    pub fn rows(&self) -> usize {
        match self {
            Action::Delete(rows) => rows.len(),
            Action::Update { rows, .. } | Action::Mark(rows) => rows.len(),
            Action::Insert { rows, .. } => rows.len(),
        }
    }
}

/// Orders the changes of a batch of `documents` documents. `holds`: rows whose key is unique in the table may
/// still turn up elsewhere; otherwise they go at once.
pub fn plan(mapping: &Mapping, schema: &Schema, sides: &[Sides], documents: usize, holds: bool) -> Plan {
    let (gone, held) = removals(mapping, sides, holds);
    let late = vacated(mapping, sides);
    let mut plan =
        Plan { held, unchanged: vec![0; sides.len()], touched: vec![false; documents], steps: vec![] };
    let updates: Vec<Updates> = (0..sides.len()).map(|ix| updates(schema, sides, ix)).collect();
    for ix in 0..sides.len() {
        plan.unchanged[ix] = updates[ix].unchanged;
        touch(sides, &updates, &gone, (ix, mapping.relations[ix].enclosing), &mut plan.touched);
    }
    for &(ix, row) in &plan.held {
        if let Some(document) = sides[ix].stored[row as usize].document {
            plan.touched[document as usize] = true;
        }
    }
    let (waiting, free): (Vec<_>, Vec<_>) = gone.into_iter().partition(|row| late.contains(row));
    plan.steps.extend(deletes(sides.len(), &free));
    for (ix, updates) in updates.iter().enumerate() {
        plan.steps.extend(updates.in_place.iter().map(|(columns, rows)| update(ix, columns, false, rows)));
        if ix == 0 {
            plan.steps.extend(marks(schema, sides, updates, &plan.touched));
        }
    }
    for (ix, updates) in updates.iter().enumerate() {
        plan.steps.extend(inserts(sides, ix));
        plan.steps.extend(updates.moves.iter().map(|(columns, rows)| update(ix, columns, true, rows)));
    }
    plan.steps.extend(deletes(sides.len(), &waiting));
    plan
}

fn update(relation: RelationIx, columns: &[usize], moves: bool, rows: &[(u32, u32)]) -> Step {
    Step { relation, action: Action::Update { columns: columns.to_vec(), moves, rows: rows.to_vec() } }
}

type Removed = (RelationIx, u32);

/// Splits removed rows into those that go now and the topmost ones of those that are held back.
fn removals(mapping: &Mapping, sides: &[Sides], holds: bool) -> (Vec<Removed>, Vec<Removed>) {
    let removed: HashSet<Removed> = sides
        .iter()
        .enumerate()
        .flat_map(|(ix, s)| s.changes.removed.iter().map(move |&row| (ix, row)))
        .collect();
    let outer = |(ix, row): Removed| {
        let parent = sides[ix].stored[row as usize].parent?;
        mapping.relations[ix].enclosing.map(|outer| (outer, parent)).filter(|outer| removed.contains(outer))
    };
    let mut held = HashSet::new();
    for &row in removed.iter().filter(|row| holds && mapping.relations[row.0].unique_in == UniqueIn::All) {
        let mut next = Some(row);
        while let Some(row) = next.filter(|&row| held.insert(row)) {
            next = outer(row);
        }
    }
    let top = |row: &Removed| std::iter::successors(Some(*row), |&row| outer(row)).last().unwrap_or(*row);
    // What hangs below a held row stays with it.
    let tops: HashSet<Removed> = held.iter().map(top).collect();
    let mut gone: Vec<Removed> = removed.iter().filter(|row| !tops.contains(&top(row))).copied().collect();
    let mut tops: Vec<Removed> = tops.into_iter().collect();
    gone.sort_unstable();
    tops.sort_unstable();
    (gone, tops)
}

/// Stored rows below which a row moves away.
fn vacated(mapping: &Mapping, sides: &[Sides]) -> HashSet<Removed> {
    let mut late = HashSet::new();
    for (ix, side) in sides.iter().enumerate() {
        for &(stored, _) in &side.changes.moved {
            let (mut ix, mut row) = (ix, stored);
            while let (Some(outer), Some(parent)) =
                (mapping.relations[ix].enclosing, sides[ix].stored[row as usize].parent)
            {
                (ix, row) = (outer, parent);
                late.insert((ix, row));
            }
        }
    }
    late
}

fn deletes(relations: usize, rows: &[Removed]) -> Vec<Step> {
    let of = |ix| -> Vec<u32> { rows.iter().filter(|row| row.0 == ix).map(|row| row.1).collect() };
    let steps = (0..relations).rev().map(|relation| Step { relation, action: Action::Delete(of(relation)) });
    steps.filter(|step| step.action.rows() > 0).collect()
}

/// Changed rows of one relation, grouped by the columns that change.
#[derive(Default)]
struct Updates {
    in_place: BTreeMap<Vec<usize>, Vec<(u32, u32)>>,
    moves: BTreeMap<Vec<usize>, Vec<(u32, u32)>>,
    unchanged: u64,
}

fn updates(schema: &Schema, sides: &[Sides], ix: RelationIx) -> Updates {
    let side = &sides[ix];
    let columns = |(stored, source): (u32, u32)| -> Vec<usize> {
        let old = side.stored[stored as usize].tuple.cells();
        let new = side.source[source as usize].tuple.cells();
        let differ = |(at, (old, new))| (!same(&schema.tables[ix].columns[at], old, new)).then_some(at);
        old.zip(new).enumerate().filter_map(differ).collect()
    };
    let mut updates = Updates { unchanged: side.changes.unchanged.len() as u64, ..Updates::default() };
    for &pair in &side.changes.updated {
        match columns(pair) {
            // Only cells differ about which the document says nothing.
            none if none.is_empty() => updates.unchanged += 1,
            some => updates.in_place.entry(some).or_default().push(pair),
        }
    }
    for &pair in &side.changes.moved {
        updates.moves.entry(columns(pair)).or_default().push(pair);
    }
    updates
}

/// Finds the documents of which a row is written.
fn touch(
    sides: &[Sides],
    updates: &[Updates],
    gone: &[Removed],
    (ix, outer): (RelationIx, Option<RelationIx>),
    touched: &mut [bool],
) {
    let side = &sides[ix];
    let pairs = updates[ix].in_place.values().chain(updates[ix].moves.values()).flatten();
    let written = pairs.map(|pair| pair.1).chain(side.changes.added.iter().copied());
    for row in written {
        touched[side.source[row as usize].document as usize] = true;
    }
    let moved_from = side.changes.moved.iter().filter_map(|&(row, _)| {
        let parent = side.stored[row as usize].parent?;
        outer.and_then(|outer| sides[outer].stored[parent as usize].document)
    });
    let gone = gone.iter().filter(|row| row.0 == ix).filter_map(|row| side.stored[row.1 as usize].document);
    for document in moved_from.chain(gone) {
        touched[document as usize] = true;
    }
}

/// Marks of documents that changed below the root only: the others are marked as the root is written.
fn marks(schema: &Schema, sides: &[Sides], updates: &Updates, touched: &[bool]) -> Option<Step> {
    let marks = &schema.tables[0].marks;
    if marks.hash.is_none() && marks.time.is_none() {
        return None;
    }
    let written: HashSet<u32> = updates.in_place.values().flatten().map(|pair| pair.1).collect();
    let due = |pair: &(u32, u32)| {
        touched[sides[0].source[pair.1 as usize].document as usize] && !written.contains(&pair.1)
    };
    let rows: Vec<(u32, u32)> = sides[0].changes.matched().filter(due).collect();
    (!rows.is_empty()).then_some(Step { relation: 0, action: Action::Mark(rows) })
}

fn inserts(sides: &[Sides], ix: RelationIx) -> Vec<Step> {
    let mut groups: BTreeMap<Vec<usize>, Vec<u32>> = BTreeMap::new();
    for &row in &sides[ix].changes.added {
        let cells = sides[ix].source[row as usize].tuple.cells().enumerate();
        let filled = cells.filter(|(_, cell)| *cell != Cell::Kept).map(|(at, _)| at).collect();
        groups.entry(filled).or_default().push(row);
    }
    groups
        .into_iter()
        .map(|(columns, rows)| Step { relation: ix, action: Action::Insert { columns, rows } })
        .collect()
}

impl Plan {
    /// The steps in words, one a line.
    pub fn describe<'p>(&'p self, mapping: &'p Mapping) -> impl std::fmt::Display + 'p {
        Described { plan: self, mapping }
    }
}

struct Described<'p> {
    plan: &'p Plan,
    mapping: &'p Mapping,
}

impl std::fmt::Display for Described<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for Step { relation, action } in &self.plan.steps {
            let relation = &self.mapping.relations[*relation];
            let names = |columns: &[usize]| -> Vec<&str> {
                columns.iter().map(|&at| relation.columns[at].name.as_str()).collect()
            };
            let (word, detail) = match action {
                Action::Delete(_) => ("delete", String::new()),
                Action::Update { columns, moves: false, .. } => ("update", names(columns).join(", ")),
                Action::Update { columns, moves: true, .. } => ("move", names(columns).join(", ")),
                Action::Mark(_) => ("mark", String::new()),
                Action::Insert { .. } => ("insert", String::new()),
            };
            let rows = action.rows();
            let plural = if rows == 1 { "row" } else { "rows" };
            let line = format!("{word:<7} {:<24} {rows} {plural}  {detail}", relation.table.to_string());
            writeln!(f, "{}", line.trim_end())?;
        }
        for (relation, count) in self.held() {
            writeln!(f, "hold    {:<24} {count}", self.mapping.relations[relation].table.to_string())?;
        }
        Ok(())
    }
}

impl Described<'_> {
    fn held(&self) -> BTreeMap<RelationIx, usize> {
        let mut counts = BTreeMap::new();
        self.plan.held.iter().for_each(|row| *counts.entry(row.0).or_default() += 1);
        counts
    }
}
