//! What must be written before what, and because of which constraint.
//!
//! For most batches nothing has to be looked at row by row: the natural order of
//! classes does. It can be wrong only where two rows of a table are updated (one may
//! take a unique value that the other frees), where rows move out of rows that go,
//! and where tables refer to each other beyond child and parent. If any edge turns
//! out to be against the natural order, all edges are found, because what is put off
//! puts off what waits for it.

use std::collections::HashMap;

use super::Batch;
use super::changes::{Class, Node, Rows};
use super::terms::{Key, Terms};
use crate::mapping::{Mapping, RelationIx};
use crate::schema::{Attribute, OnChange, Reference, Schema, Table, Unique};

/// `before` is written before `after`. Both are places of nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Edge {
    pub before: usize,
    pub after: usize,
    pub why: Why,
    /// Whether one statement can do both: foreign keys are checked when it is done.
    pub together: bool,
}

/// The constraint, by relation and place in the relation's list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Why {
    /// The unique value must be free.
    Free(RelationIx, usize),
    /// What is referred to must be there. The reference is one of this relation's.
    Arrives(RelationIx, usize),
    /// What refers must be gone.
    Leaves(RelationIx, usize),
    /// The row that had the key must have given it up: what the foreign key does to referring rows then must not meet
    /// one that refers to the row that takes it.
    Passes(RelationIx, usize),
    /// None: it is one row, written twice.
    Row,
}

impl Edge {
    /// Whether the natural order of classes has it so.
    pub fn is_natural(&self, nodes: &[Node]) -> bool {
        let (before, after) = (&nodes[self.before].class, &nodes[self.after].class);
        before < after || self.is_one_statement(nodes)
    }

    /// Whether both are in one statement, and may be.
    pub fn is_one_statement(&self, nodes: &[Node]) -> bool {
        self.together && nodes[self.before].class == nodes[self.after].class
    }
}

impl Why {
    /// The constraint's name.
    pub fn name(self, schema: &Schema) -> Option<&str> {
        match self {
            Why::Free(ix, at) => Some(&schema.tables[ix].uniques[at].name),
            Why::Arrives(ix, at) | Why::Leaves(ix, at) | Why::Passes(ix, at) => {
                Some(&schema.tables[ix].references[at].name)
            }
            Why::Row => None,
        }
    }
}

/// The server's word that a source row takes a value that a stored row frees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The relation.
    pub relation: RelationIx,
    /// Place of the constraint among the relation's unique ones.
    pub unique: usize,
    /// The stored row.
    pub frees: u32,
    /// The source row.
    pub takes: u32,
}

/// Rows about which only the server can say which of them conflict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The relation.
    pub relation: RelationIx,
    /// Place of the constraint among the relation's unique ones.
    pub unique: usize,
    /// Stored rows that may free a value, as they are.
    pub frees: Vec<Candidate>,
    /// Source rows that may take one, as they will be.
    pub takes: Vec<Candidate>,
}

/// A row of a [`Question`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The stored row; `None` if it is new.
    pub stored: Option<u32>,
    /// The source row; `None` if it goes.
    pub source: Option<u32>,
    /// Per attribute of the constraint, its value as far as it is known.
    pub cells: Vec<Option<Vec<u8>>>,
}

/// What the server must be asked before a batch can be planned: of constraints over expressions, under a
/// condition, with an operator or a type of their own, if an order could be wrong.
pub fn questions(batch: Batch<'_>) -> Vec<Question> {
    let odd = |table: &Table| table.uniques.iter().any(|unique| !unique.plain);
    if !batch.schema.tables.iter().any(odd) {
        return Vec::new();
    }
    let nodes = super::changes::changes(batch).nodes;
    let finder = Finder::new(batch, &nodes);
    let constraints = finder.constraints().filter_map(|constraint| match constraint {
        Constraint::Unique(ix, at) if !finder.table(ix).uniques[at].plain => finder.question(ix, at),
        _ => None,
    });
    constraints.collect()
}

/// What was found out about the order of a batch.
pub(super) struct Found {
    pub edges: Vec<Edge>,
    /// References to a key that passes from one row to another. A row that goes on referring to it is right at the
    /// end, and at no moment before.
    pub passing: Vec<(RelationIx, usize)>,
}

/// The edges of a batch: all of them, or none where the natural order is right.
pub(super) fn edges(batch: Batch<'_>, nodes: &[Node], conflicts: &[Conflict]) -> Found {
    let mut finder = Finder::new(batch, nodes);
    let suspects = finder.suspects(conflicts);
    suspects.iter().for_each(|&constraint| finder.find(constraint, conflicts));
    if finder.edges.iter().all(|edge| edge.is_natural(nodes)) && batch.holds {
        return Found { edges: Vec::new(), passing: finder.passing };
    }
    let rest = finder.constraints().filter(|constraint| !suspects.contains(constraint)).collect::<Vec<_>>();
    rest.into_iter().for_each(|constraint| finder.find(constraint, conflicts));
    Found { edges: finder.edges, passing: finder.passing }
}

/// A constraint: a unique one or a reference of a relation.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Constraint {
    Unique(RelationIx, usize),
    Reference(RelationIx, usize),
}

struct Finder<'a> {
    batch: Batch<'a>,
    nodes: &'a [Node],
    per_relation: Vec<Vec<usize>>,
    terms: Terms<'a>,
    edges: Vec<Edge>,
    passing: Vec<(RelationIx, usize)>,
}

impl<'a> Finder<'a> {
    fn new(batch: Batch<'a>, nodes: &'a [Node]) -> Self {
        let mut per_relation = vec![Vec::new(); batch.sides.len()];
        nodes.iter().enumerate().for_each(|(at, node)| per_relation[node.class.relation].push(at));
        Finder {
            batch,
            nodes,
            per_relation,
            terms: Terms::new(batch),
            edges: Vec::new(),
            passing: Vec::new(),
        }
    }

    /// `None` where nothing can be freed for another row to take.
    fn question(&self, relation: RelationIx, unique: usize) -> Option<Question> {
        let attributes = &self.table(relation).uniques[unique].attributes;
        let (mut frees, mut takes) = (Vec::new(), Vec::new());
        for Rows { stored, source } in self.touching(relation, attributes).map(|at| self.nodes[at].rows) {
            let candidate = |cells| Candidate { stored, source, cells };
            frees.extend(stored.map(|row| candidate(self.terms.cells_before(relation, row, attributes))));
            takes.extend(source.map(|row| candidate(self.terms.cells_after(relation, row, attributes))));
        }
        let alone = frees.len() == 1 && takes.len() == 1 && frees[0].stored == takes[0].stored;
        let no_update = !self.touching(relation, attributes).any(|at| self.nodes[at].class.is_update());
        let asks = !frees.is_empty() && !takes.is_empty() && !alone;
        (asks && !(no_update && self.deletes_first())).then_some(Question { relation, unique, frees, takes })
    }

    /// Whether no row that goes can have to wait for another write.
    fn deletes_first(&self) -> bool {
        let is_of_tree = |(ix, table): (usize, &Table)| {
            table.references.iter().all(|reference| reference.is_of_tree(ix, self.batch.mapping))
        };
        let tree_only = self.batch.schema.tables.iter().enumerate().all(is_of_tree);
        self.batch.holds && tree_only && self.batch.sides.iter().all(|side| side.changes.moved.is_empty())
    }

    fn table(&self, ix: RelationIx) -> &'a Table {
        &self.batch.schema.tables[ix]
    }

    /// All constraints that are checked before the end of the transaction, or act before it. Where documents are
    /// grouped, all: a group is applied in one transaction.
    fn constraints(&self) -> impl Iterator<Item = Constraint> + use<'a> {
        let holds = self.batch.holds;
        self.batch.schema.tables.iter().enumerate().flat_map(move |(ix, table)| {
            let uniques = table.uniques.iter().enumerate();
            let uniques = uniques.filter(move |(_, unique)| !holds || !unique.check.is_deferred());
            let references = table.references.iter().enumerate();
            let references =
                references.filter(move |(_, r)| !holds || !r.check.is_deferred() || r.acts_at_once());
            uniques
                .map(move |(at, _)| Constraint::Unique(ix, at))
                .chain(references.map(move |(at, _)| Constraint::Reference(ix, at)))
        })
    }

    /// Constraints that the natural order of this batch may violate.
    fn suspects(&self, conflicts: &[Conflict]) -> Vec<Constraint> {
        self.constraints().filter(|&constraint| self.is_suspect(constraint, conflicts)).collect()
    }

    fn is_suspect(&self, constraint: Constraint, conflicts: &[Conflict]) -> bool {
        match constraint {
            Constraint::Unique(ix, at) => {
                let unique = &self.table(ix).uniques[at];
                let updates =
                    self.touching(ix, &unique.attributes).filter(|&at| self.nodes[at].class.is_update());
                match unique.plain {
                    true => updates.take(2).count() == 2,
                    false => {
                        conflicts.iter().any(|conflict| (conflict.relation, conflict.unique) == (ix, at))
                    }
                }
            }
            Constraint::Reference(ix, at) => {
                let reference = &self.table(ix).references[at];
                let changes_target =
                    self.touching(reference.target, &reference.to).any(|at| self.nodes[at].class.is_update());
                match reference.is_of_tree(ix, self.batch.mapping) {
                    true => changes_target || !self.batch.sides[ix].changes.moved.is_empty(),
                    false => true,
                }
            }
        }
    }

    /// Nodes of a relation that can change one of these columns.
    fn touching(&self, ix: RelationIx, attributes: &'a [Attribute]) -> impl Iterator<Item = usize> + '_ {
        let places = self.per_relation[ix].iter().copied();
        places.filter(move |&at| self.nodes[at].class.touches(attributes))
    }

    fn find(&mut self, constraint: Constraint, conflicts: &[Conflict]) {
        match constraint {
            Constraint::Unique(ix, at) if self.table(ix).uniques[at].plain => self.unique(ix, at),
            Constraint::Unique(ix, at) => self.judged(ix, at, conflicts),
            Constraint::Reference(ix, at) => self.reference(ix, at),
        }
    }

    fn push(&mut self, before: usize, after: usize, why: Why, together: bool) {
        if before != after {
            self.edges.push(Edge { before, after, why, together });
        }
    }

    fn unique(&mut self, ix: RelationIx, at: usize) {
        let unique: &Unique = &self.table(ix).uniques[at];
        let (freed, taken) = self.keys(ix, &unique.attributes, unique.nulls());
        for (after, key) in taken {
            if let Some(&before) = freed.get(&key) {
                self.push(before, after, Why::Free(ix, at), false);
            }
        }
    }

    fn judged(&mut self, ix: RelationIx, at: usize, conflicts: &[Conflict]) {
        let unique: &Unique = &self.table(ix).uniques[at];
        let touching: Vec<usize> = self.touching(ix, &unique.attributes).collect();
        let stored: HashMap<u32, usize> =
            touching.iter().filter_map(|&at| Some((self.nodes[at].rows.stored?, at))).collect();
        let source: HashMap<u32, usize> =
            touching.iter().filter_map(|&at| Some((self.nodes[at].rows.source?, at))).collect();
        for conflict in conflicts.iter().filter(|c| (c.relation, c.unique) == (ix, at)) {
            if let (Some(&before), Some(&after)) = (stored.get(&conflict.frees), source.get(&conflict.takes))
            {
                self.push(before, after, Why::Free(ix, at), false);
            }
        }
    }

    /// The keys that nodes of a relation give up, each by one node, and those that they come to have.
    fn keys(
        &self,
        ix: RelationIx,
        of: &'a [Attribute],
        nulls: bool,
    ) -> (HashMap<Key, usize>, Vec<(usize, Key)>) {
        let (mut freed, mut taken) = (HashMap::new(), Vec::new());
        for at in self.touching(ix, of) {
            let [before, after] = self.terms.keys(&self.nodes[at], of, nulls);
            if before != after {
                freed.extend(before.map(|key| (key, at)));
                taken.extend(after.map(|key| (at, key)));
            }
        }
        (freed, taken)
    }

    fn reference(&mut self, ix: RelationIx, at: usize) {
        let reference: &Reference = &self.table(ix).references[at];
        let (gone, come) = self.keys(reference.target, &reference.to, false);
        let come: HashMap<Key, usize> = come.into_iter().map(|(at, key)| (key, at)).collect();
        if gone.keys().any(|key| come.contains_key(key)) {
            self.passing.push((ix, at));
        }
        let together = self.table(ix).is_written_in_one() && self.table(reference.target).is_written_in_one();
        let acts = |target: usize| reference.on_change(&self.nodes[target].class) != OnChange::Refused;
        let mut edges = Vec::new();
        for place in self.per_relation[ix].iter().copied() {
            let touches = self.nodes[place].class.touches(&reference.from);
            let [before, after] = self.terms.keys(&self.nodes[place], &reference.from, false);
            if touches && before != after {
                let arrives =
                    after.as_ref().and_then(|key| Some((*come.get(key)?, place, Why::Arrives(ix, at))));
                let passes = after.and_then(|key| Some((*gone.get(&key)?, place, Why::Passes(ix, at))));
                edges.extend(arrives);
                edges.extend(passes.filter(|(target, ..)| acts(*target)));
            }
            // A reference that the server changes along is not found by its old value any more.
            let cascades = |target: &usize| {
                reference.on_update == OnChange::Cascades && self.nodes[*target].class.is_update()
            };
            let leaves =
                before.and_then(|key| gone.get(&key).copied()).filter(|target| touches || cascades(target));
            edges.extend(leaves.map(|target| (place, target, Why::Leaves(ix, at))));
        }
        for (before, after, why) in edges {
            self.push(before, after, why, together && !matches!(why, Why::Passes(..)));
        }
    }
}

impl Reference {
    /// Whether it is the one by which rows of a relation hang below the enclosing ones.
    pub(crate) fn is_of_tree(&self, ix: RelationIx, mapping: &Mapping) -> bool {
        let is_parent = |attribute: &Attribute| matches!(attribute, Attribute::Parent(_));
        mapping.relations[ix].enclosing == Some(self.target) && self.from.iter().all(is_parent)
    }

    /// What becomes of rows that refer to one that is written like this.
    pub(super) fn on_change(&self, class: &Class) -> OnChange {
        if class.is_update() { self.on_update } else { self.on_delete }
    }

    /// Whether deleting or changing what is referred to may act at once, though the check is deferred.
    pub(super) fn acts_at_once(&self) -> bool {
        self.on_delete != OnChange::Refused || self.on_update != OnChange::Refused
    }
}

impl Table {
    /// Whether rows of one class are one statement: arrays of all its columns' types exist.
    fn is_written_in_one(&self) -> bool {
        let columns = self.parent.iter().chain(&self.locator).map(|column| &column.ty);
        columns.chain(&self.columns).all(|ty| ty.array_oid != 0)
    }
}
