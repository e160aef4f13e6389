//! Change sets of a batch → ordered steps.
//!
//! A plan is plain data: what will be written, in which order, and how many rows
//! each step must touch. It holds no connection and no text of SQL, so it can be
//! printed and compared without a database; the applier checks the counts.
//!
//! Every row that is written is a node of a graph, and what a constraint of the
//! catalog says of two of them is an edge: what frees a unique value comes before
//! what takes it, a row comes before the rows that refer to it and goes after them.
//! Without an edge that says otherwise rows are written in an order that suits the
//! tree of relations:
//!
//! 1. rows that go, deepest relation first, so that the values they hold are free;
//! 2. rows whose columns change, root first;
//! 3. per relation, root first: rows that move to another parent (which exists by
//!    then), then new rows.
//!
//! An edge against that order puts its later row into a further *round* of the
//! same order. Rows that wait for each other in a circle (unique values that are
//! swapped, tables that refer to each other) cost one write more: a value is
//! parked, an update is split, a reference is filled in afterwards. Constraints
//! that can be deferred cost none.
//!
//! Rows of a relation whose key is unique in the table are not deleted here but
//! *held back*, with whatever encloses them: later in the feed they may turn up
//! under another parent, and must then still have their ids.

mod cascades;
mod changes;
mod cycles;
mod describe;
mod edges;
mod order;
mod terms;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use crate::diff::ChangeSet;
use crate::fingerprint::{RowFingerprint, TreeFingerprint};
use crate::mapping::{Mapping, RelationIx};
use crate::row::Tuple;
use crate::schema::Schema;
use changes::{Changes, Class, Node, Rows, What, changes};
use edges::{Edge, edges};
use order::{groups, order};

pub use cascades::{Losses, handovers, losses};
pub use changes::changed_columns;
pub use edges::{Candidate, Conflict, Question, questions};

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

impl Sides {
    /// Stored rows all of which go.
    pub(crate) fn removed(stored: Vec<StoredRow>) -> Self {
        let changes = ChangeSet { removed: (0..stored.len() as u32).collect(), ..ChangeSet::default() };
        Sides { source: Vec::new(), stored, changes }
    }
}

/// A batch that was compared with what is stored of it.
#[derive(Clone, Copy)]
pub struct Batch<'a> {
    /// The mapping.
    pub mapping: &'a Mapping,
    /// Its tables.
    pub schema: &'a Schema,
    /// Per relation, both sides and how they differ.
    pub sides: &'a [Sides],
    /// How many documents it holds.
    pub documents: usize,
    /// Whether removed rows whose key is unique in the table may still turn up in other documents.
    pub holds: bool,
    /// Whether the root's marks are set: not before the whole document is stored.
    pub marked: Marked<'a>,
}

/// Of which documents of a batch the root's marks are set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Marked<'a> {
    /// Of none.
    No,
    /// Of those of which a row is written, and of these: rows of them were written before.
    Also(&'a [bool]),
}

/// Ordered steps for one batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Constraints to be deferred to the end of the steps, by their quoted names.
    pub deferred: BTreeSet<String>,
    /// In the order in which they must run.
    pub steps: Vec<Step>,
    /// Removals to be decided at the end of the feed: the topmost row of each, per relation.
    pub held: Vec<(RelationIx, u32)>,
    /// Per relation, rows that are written nowhere because they are as they should be.
    pub unchanged: Vec<u64>,
    /// Per document of the batch, whether a row of it is written.
    pub touched: Vec<bool>,
    /// Documents that must be applied together, in an order in which the groups can be applied one by one. Only
    /// for a batch that holds nothing back.
    pub groups: Vec<Vec<u32>>,
    /// Which group must be applied before which, by their places.
    waits: Vec<(usize, usize)>,
}

/// One step: rows of one table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The relation.
    pub relation: RelationIx,
    /// What happens to its rows.
    pub action: Action,
    /// The constraints because of which it does not come earlier.
    pub after: BTreeSet<String>,
}

/// What a step does. Numbers are indexes of stored and source rows in [`Sides`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Columns of stored rows get a value that nobody else has, for a while: others take the one they had.
    Park {
        /// The mapped columns.
        columns: Vec<usize>,
        /// Columns that may be parked too, where that is not enough.
        spare: Vec<usize>,
        /// Whether the reference to the parent is parked too.
        parent: bool,
        /// Stored rows.
        rows: Vec<u32>,
    },
    /// Stored rows go.
    Delete(Vec<u32>),
    /// Stored rows go without a statement: a foreign key deletes them with what they refer to.
    Cascade(Vec<u32>),
    /// Columns of stored rows change.
    Update {
        /// The mapped columns that are set.
        columns: Vec<usize>,
        /// Whether the reference to the parent is set too: the rows move.
        moves: bool,
        /// Whether more of the rows is set in a later step.
        split: bool,
        /// Pairs of stored and source row.
        rows: Vec<(u32, u32)>,
    },
    /// The root's marks are set, and nothing else of it. Pairs of stored and source row.
    Mark(Vec<(u32, u32)>),
    /// Source rows come, with these of the mapped columns; the others get their default.
    Insert {
        /// The mapped columns that are filled.
        columns: Vec<usize>,
        /// Those among them that are NULL until what they refer to is there.
        holes: Vec<usize>,
        /// The rows.
        rows: Vec<u32>,
    },
    /// Columns of new rows that were left NULL get their values.
    Fill {
        /// The mapped columns.
        columns: Vec<usize>,
        /// Source rows.
        rows: Vec<u32>,
    },
}

impl Action {
    /// How many rows the step must touch; another count means that someone else wrote meanwhile.
    pub fn rows(&self) -> usize {
        match self {
            Action::Update { rows, .. } | Action::Mark(rows) => rows.len(),
            Action::Delete(rows) | Action::Cascade(rows) => rows.len(),
            Action::Park { rows, .. } | Action::Insert { rows, .. } | Action::Fill { rows, .. } => rows.len(),
        }
    }

    /// Whether its writes are needed only because rows wait for each other in a circle.
    pub fn is_detour(&self) -> bool {
        matches!(self, Action::Park { .. } | Action::Update { split: true, .. } | Action::Fill { .. })
    }
}

/// Orders the changes of a batch. `conflicts` are the server's answers to [`questions`].
pub fn plan(batch: Batch<'_>, conflicts: &[Conflict]) -> Plan {
    let Changes { mut nodes, held, unchanged, touched } = changes(batch);
    cascades::follow(batch, &mut nodes);
    let mut found = edges(batch, &nodes, conflicts);
    let (groups, waits) = if batch.holds { Default::default() } else { groups(batch, &nodes, &found.edges) };
    let deferred = order::defer(batch.schema, &nodes, &mut found);
    let (rounds, edges) = order(batch, &mut nodes, found.edges, &deferred);
    let steps = steps(batch.schema, &nodes, &rounds, &edges);
    Plan { deferred, steps, held, unchanged, touched, groups, waits }
}

/// The rows of a step, and the constraints that it waits for.
type Gathered = (Vec<Rows>, BTreeSet<String>);

fn steps(schema: &Schema, nodes: &[Node], rounds: &[u32], edges: &[Edge]) -> Vec<Step> {
    let mut steps: BTreeMap<(u32, &Class), Gathered> = BTreeMap::new();
    for (node, round) in nodes.iter().zip(rounds) {
        steps.entry((*round, &node.class)).or_default().0.push(node.rows);
    }
    for edge in edges.iter().filter(|edge| !edge.is_natural(nodes)) {
        let step = (rounds[edge.after], &nodes[edge.after].class);
        steps.entry(step).or_default().1.extend(edge.why.name(schema).map(str::to_owned));
    }
    steps.into_iter().map(|((_, class), (rows, after))| step(class, rows, after)).collect()
}

fn step(class: &Class, rows: Vec<Rows>, after: BTreeSet<String>) -> Step {
    let stored = || rows.iter().filter_map(|rows| rows.stored).collect();
    let source = || rows.iter().filter_map(|rows| rows.source).collect();
    let pairs = || rows.iter().filter_map(|rows| rows.stored.zip(rows.source)).collect();
    let action = match &class.what {
        What::Park { columns, spare, parent } => {
            Action::Park { columns: columns.to_vec(), spare: spare.to_vec(), parent: *parent, rows: stored() }
        }
        What::Delete => Action::Delete(stored()),
        What::Cascade => Action::Cascade(stored()),
        What::Update { columns, moves, whole } => {
            Action::Update { columns: columns.to_vec(), moves: *moves, split: !whole, rows: pairs() }
        }
        What::Mark => Action::Mark(pairs()),
        What::Insert { columns, holes } => {
            Action::Insert { columns: columns.to_vec(), holes: holes.to_vec(), rows: source() }
        }
        What::Fill { columns } => Action::Fill { columns: columns.to_vec(), rows: source() },
    };
    Step { relation: class.relation, action, after }
}
