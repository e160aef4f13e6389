//! The rows that a batch writes, each with what happens to it.

use std::collections::{BTreeMap, HashSet};
use std::rc::Rc;

use super::{Batch, Marked, Sides};
use crate::mapping::{RelationIx, UniqueIn};
use crate::row::{Cell, Tuple};
use crate::schema::{Attribute, Schema, Table};
use crate::shred::same;

/// What a batch writes and what it leaves alone.
pub(super) struct Changes {
    /// Sorted by class.
    pub nodes: Vec<Node>,
    pub held: Vec<Removed>,
    pub unchanged: Vec<u64>,
    pub touched: Vec<bool>,
}

/// One write of one row.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub class: Class,
    pub rows: Rows,
}

/// The row: as it is stored, as it is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rows {
    pub stored: Option<u32>,
    pub source: Option<u32>,
}

/// Rows of one class and round are one statement. The order of classes is the one in which they are written
/// unless a constraint says otherwise.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Class {
    phase: u8,
    rank: isize,
    pub what: What,
    pub relation: RelationIx,
}

/// What happens to a row.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum What {
    Park {
        columns: Rc<[usize]>,
        spare: Rc<[usize]>,
        parent: bool,
    },
    Delete,
    /// The server deletes it along with what it refers to.
    Cascade,
    /// `whole`: nothing of the row is left for a later step.
    Update {
        whole: bool,
        moves: bool,
        columns: Rc<[usize]>,
    },
    Mark,
    Insert {
        columns: Rc<[usize]>,
        holes: Rc<[usize]>,
    },
    Fill {
        columns: Rc<[usize]>,
    },
}

impl Class {
    pub fn new(relation: RelationIx, what: What) -> Self {
        let root_first = relation as isize;
        let (phase, rank) = match &what {
            What::Park { .. } => (0, root_first),
            What::Delete => (1, -root_first),
            What::Cascade => (2, -root_first),
            What::Update { moves: false, .. } | What::Mark => (2, root_first),
            What::Update { moves: true, .. } | What::Insert { .. } => (3, root_first),
            What::Fill { .. } => (4, root_first),
        };
        Class { phase, rank, what, relation }
    }

    /// Whether writing a row of this class can change one of these columns.
    pub fn touches(&self, attributes: &[Attribute]) -> bool {
        match &self.what {
            What::Delete | What::Insert { .. } => true,
            What::Update { columns, moves, .. } => attributes.iter().any(|attribute| match attribute {
                Attribute::Mapped(at) => columns.contains(at),
                Attribute::Parent(_) => *moves,
                Attribute::Id | Attribute::Unmapped { .. } => false,
            }),
            What::Park { .. } | What::Cascade | What::Mark | What::Fill { .. } => false,
        }
    }

    /// Whether nothing is left to do.
    pub fn is_idle(&self) -> bool {
        matches!(&self.what, What::Update { moves: false, columns, .. } if columns.is_empty())
    }

    pub fn is_update(&self) -> bool {
        matches!(self.what, What::Update { .. })
    }
}

impl Rows {
    pub fn stored(row: u32) -> Self {
        Rows { stored: Some(row), source: None }
    }

    pub fn source(row: u32) -> Self {
        Rows { stored: None, source: Some(row) }
    }

    fn pair((stored, source): (u32, u32)) -> Self {
        Rows { stored: Some(stored), source: Some(source) }
    }
}

/// A stored row that is not asked for any more.
pub(super) type Removed = (RelationIx, u32);

/// Collects the writes of a batch.
pub(super) fn changes(batch: Batch<'_>) -> Changes {
    let Batch { mapping, schema, sides, documents, marked, .. } = batch;
    let (gone, held) = removals(batch);
    let mut nodes: Vec<Node> = Vec::new();
    for &(relation, row) in &gone {
        nodes.push(Node { class: Class::new(relation, What::Delete), rows: Rows::stored(row) });
    }
    let updates: Vec<Updates> = (0..sides.len()).map(|ix| updates(schema, sides, ix)).collect();
    let mut touched = vec![false; documents];
    for ix in 0..sides.len() {
        touch(sides, &updates, &gone, (ix, mapping.relations[ix].enclosing), &mut touched);
        nodes.extend(updates[ix].nodes(ix));
        nodes.extend(inserts(sides, ix));
    }
    for &(ix, row) in &held {
        if let Some(document) = sides[ix].stored[row as usize].document {
            touched[document as usize] = true;
        }
    }
    if let Marked::Also(also) = marked {
        nodes.extend(marks(schema, sides, &updates[0], |document| touched[document] || also[document]));
    }
    nodes.sort_by(|a, b| a.class.cmp(&b.class));
    Changes { nodes, held, unchanged: updates.iter().map(|updates| updates.unchanged).collect(), touched }
}

/// Splits removed rows into those that go now and the topmost ones of those that are held back.
fn removals(batch: Batch<'_>) -> (Vec<Removed>, Vec<Removed>) {
    let Batch { mapping, sides, holds, .. } = batch;
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

/// Changed rows of one relation, grouped by the columns that change.
#[derive(Default)]
struct Updates {
    in_place: BTreeMap<Vec<usize>, Vec<(u32, u32)>>,
    moves: BTreeMap<Vec<usize>, Vec<(u32, u32)>>,
    unchanged: u64,
}

impl Updates {
    fn nodes(&self, relation: RelationIx) -> impl Iterator<Item = Node> + '_ {
        let groups = self.in_place.iter().map(|group| (false, group));
        let groups = groups.chain(self.moves.iter().map(|group| (true, group)));
        groups.flat_map(move |(moves, (columns, pairs))| {
            let class =
                Class::new(relation, What::Update { whole: true, moves, columns: columns[..].into() });
            pairs.iter().map(move |&pair| Node { class: class.clone(), rows: Rows::pair(pair) })
        })
    }
}

/// The mapped columns in which a stored row is not as it should be, by position. None where the mapping ignores all of
/// them.
pub fn changed_columns(table: &Table, stored: &Tuple, source: &Tuple) -> Vec<usize> {
    let differ = |(at, (old, new))| (!same(&table.columns[at], old, new)).then_some(at);
    let changed: Vec<usize> = stored.cells().zip(source.cells()).enumerate().filter_map(differ).collect();
    if changed.iter().all(|at| table.ignored.contains(at)) { Vec::new() } else { changed }
}

fn updates(schema: &Schema, sides: &[Sides], ix: RelationIx) -> Updates {
    let side = &sides[ix];
    let columns = |(stored, source): (u32, u32)| {
        let (stored, source) = (&side.stored[stored as usize], &side.source[source as usize]);
        changed_columns(&schema.tables[ix], &stored.tuple, &source.tuple)
    };
    let mut updates = Updates { unchanged: side.changes.unchanged.len() as u64, ..Updates::default() };
    for &pair in &side.changes.updated {
        match columns(pair) {
            // Only cells differ about which the document says nothing, or of columns that are ignored.
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
fn marks(
    schema: &Schema,
    sides: &[Sides],
    updates: &Updates,
    is_changed: impl Fn(usize) -> bool,
) -> Vec<Node> {
    let marks = &schema.tables[0].marks;
    if marks.hash.is_none() && marks.time.is_none() {
        return Vec::new();
    }
    let written: HashSet<u32> = updates.in_place.values().flatten().map(|pair| pair.1).collect();
    let due = |pair: &(u32, u32)| {
        is_changed(sides[0].source[pair.1 as usize].document as usize) && !written.contains(&pair.1)
    };
    let node = |pair| Node { class: Class::new(0, What::Mark), rows: Rows::pair(pair) };
    sides[0].changes.matched().filter(due).map(node).collect()
}

fn inserts(sides: &[Sides], relation: RelationIx) -> Vec<Node> {
    let mut groups: BTreeMap<Vec<usize>, Vec<u32>> = BTreeMap::new();
    for &row in &sides[relation].changes.added {
        let cells = sides[relation].source[row as usize].tuple.cells().enumerate();
        let filled = cells.filter(|(_, cell)| *cell != Cell::Kept).map(|(at, _)| at).collect();
        groups.entry(filled).or_default().push(row);
    }
    let nodes = groups.into_iter().flat_map(|(columns, rows)| {
        let class = Class::new(relation, What::Insert { columns: columns.into(), holes: Rc::from([]) });
        rows.into_iter().map(move |row| Node { class: class.clone(), rows: Rows::source(row) })
    });
    nodes.collect()
}
