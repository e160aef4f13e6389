//! What the server does to rows that refer to others, because a foreign key says so.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use super::Batch;
use super::changes::{Class, Node, What};
use super::terms::{Key, Terms};
use crate::mapping::RelationIx;
use crate::schema::{Attribute, OnChange, Reference};

/// A document that keeps a reference to a row that it drops, or whose key it changes. The server would not refuse
/// that but change or delete the referring row, and the document would count as stored though it is not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dangling {
    /// The document.
    pub document: u32,
    /// The relation of the referring row.
    pub relation: RelationIx,
    /// The foreign key.
    pub constraint: String,
}

/// Finds the references that would dangle.
pub fn dangling(batch: Batch<'_>) -> Vec<Dangling> {
    let acting = references(batch).filter(|(_, reference)| reference.acts());
    let mut acting = acting.filter(|(_, reference)| reference.is_touched(batch)).peekable();
    if acting.peek().is_none() {
        return Vec::new();
    }
    let nodes = super::changes::changes(batch).nodes;
    let terms = Terms::new(batch);
    let mut found = Vec::new();
    for (relation, reference) in acting {
        let (mut gone, mut come) = (HashSet::new(), HashSet::new());
        for node in nodes.iter().filter(|node| node.class.relation == reference.target) {
            let [before, after] = keys(&terms, node, &reference.to);
            gone.extend(before);
            come.extend(after);
        }
        for (row, source) in batch.sides[relation].source.iter().enumerate() {
            let key = terms.key_after(relation, row as u32, &reference.from, false);
            if key.is_some_and(|key| gone.contains(&key) && !come.contains(&key)) {
                let constraint = reference.name.clone();
                found.push(Dangling { document: source.document, relation, constraint });
            }
        }
    }
    found
}

/// Leaves to the server what it writes along: references that change as `ON UPDATE CASCADE` changes them.
pub(super) fn follow(batch: Batch<'_>, nodes: &mut Vec<Node>) {
    for (relation, reference) in references(batch).filter(|(_, r)| r.on_update == OnChange::Cascades) {
        let is_update = |node: &&Node| node.class.is_update() && node.class.touches(&reference.to);
        let targets = nodes.iter().filter(|node| node.class.relation == reference.target).filter(is_update);
        let terms = Terms::new(batch);
        let renamed: HashMap<Key, Key> = targets
            .filter_map(|node| {
                let [before, after] = keys(&terms, node, &reference.to);
                before.zip(after)
            })
            .collect();
        if renamed.is_empty() {
            continue;
        }
        let referring =
            nodes.iter_mut().filter(|node| node.class.relation == relation && node.class.is_update());
        for node in referring {
            let [before, after] = keys(&terms, node, &reference.from);
            if before.is_some_and(|before| renamed.get(&before) == after.as_ref()) {
                node.class = without(&node.class, &reference.from);
            }
        }
        nodes.retain(|node| !node.class.is_idle());
        nodes.sort_by(|a, b| a.class.cmp(&b.class));
    }
}

/// An update that leaves these columns alone.
fn without(class: &Class, attributes: &[Attribute]) -> Class {
    let What::Update { whole, moves, columns } = &class.what else { return class.clone() };
    let left: Rc<[usize]> =
        columns.iter().copied().filter(|&at| !attributes.contains(&Attribute::Mapped(at))).collect();
    Class::new(class.relation, What::Update { whole: *whole, moves: *moves, columns: left })
}

/// What a node's row had and has.
fn keys(terms: &Terms<'_>, node: &Node, of: &[Attribute]) -> [Option<Key>; 2] {
    let relation = node.class.relation;
    let before = node.rows.stored.and_then(|row| terms.key_before(relation, row, of, false));
    let after = node.rows.source.and_then(|row| terms.key_after(relation, row, of, false));
    [before, after]
}

/// The references beside those of children to parents.
fn references(batch: Batch<'_>) -> impl Iterator<Item = (RelationIx, &Reference)> {
    let of_table = move |ix: RelationIx| batch.schema.tables[ix].references.iter().map(move |r| (ix, r));
    let all = (0..batch.schema.tables.len()).flat_map(of_table);
    all.filter(move |(ix, reference)| !reference.is_of_tree(*ix, batch.mapping))
}

impl Reference {
    /// Whether it changes or deletes referring rows.
    fn acts(&self) -> bool {
        self.on_delete.acts() || self.on_update.acts()
    }

    /// Whether a row of the table referred to goes or changes.
    fn is_touched(&self, batch: Batch<'_>) -> bool {
        let changes = &batch.sides[self.target].changes;
        !changes.removed.is_empty() || !changes.updated.is_empty() || !changes.moved.is_empty()
    }
}
