//! What the server does to rows that refer to others, because a foreign key says so.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use super::changes::{Class, Node, What};
use super::terms::{Key, Terms};
use super::{Batch, StoredRow};
use crate::mapping::RelationIx;
use crate::row::Tuple;
use crate::schema::{Attribute, Check, OnChange, Reference};

/// Keys that a batch gives up although the server would not refuse that where rows refer to them, but change or
/// delete these rows. One that stays would not be what its document asks for, and nobody would know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Losses<'a> {
    /// The relation of the referring rows.
    pub relation: RelationIx,
    /// The foreign key.
    pub reference: &'a Reference,
    /// The keys, each with the document that gives it up, where it is known.
    pub keys: Vec<(Tuple, Option<u32>)>,
    /// Stored rows that let go of such a key themselves.
    pub leaving: Vec<u32>,
}

/// Finds the keys that a batch gives up and that foreign keys of mapped columns act upon.
pub fn losses(batch: Batch<'_>) -> Vec<Losses<'_>> {
    let acts = |reference: &Reference| reference.on_delete.acts() || reference.on_update.acts();
    given_up(batch, acts, |_, on_change, _| on_change.acts())
}

/// Finds the keys that pass from one row to another while foreign keys of mapped columns refuse, or act, at once: a
/// row that goes on referring to such a key is right at the end, and at no moment before.
pub fn handovers(batch: Batch<'_>) -> Vec<Losses<'_>> {
    let is_early = |reference: &Reference| reference.check == Check::AtOnce || reference.acts_at_once();
    given_up(batch, is_early, |reference, on_change, is_taken| {
        is_taken && (reference.check == Check::AtOnce || on_change != OnChange::Refused)
    })
}

/// The keys that a batch gives up, of some foreign keys. `counts` is told what becomes of referring rows, and whether
/// another row takes the key.
fn given_up<'a>(
    batch: Batch<'a>,
    of: impl Fn(&Reference) -> bool,
    counts: impl Fn(&Reference, OnChange, bool) -> bool,
) -> Vec<Losses<'a>> {
    let mut touched = references(batch).filter(|(_, r)| of(r) && r.is_touched(batch)).peekable();
    if touched.peek().is_none() {
        return Vec::new();
    }
    let nodes = super::changes::changes(batch).nodes;
    let terms = Terms::new(batch);
    let losses = touched.map(|(relation, reference)| Losses {
        relation,
        reference,
        keys: lost_keys(batch, &terms, &nodes, reference, &counts),
        leaving: leaving(&terms, &nodes, relation, reference),
    });
    losses.filter(|losses| !losses.keys.is_empty()).collect()
}

fn lost_keys(
    batch: Batch<'_>,
    terms: &Terms<'_>,
    nodes: &[Node],
    reference: &Reference,
    counts: impl Fn(&Reference, OnChange, bool) -> bool,
) -> Vec<(Tuple, Option<u32>)> {
    let side = &batch.sides[reference.target];
    let of_target = || nodes.iter().filter(|node| node.class.relation == reference.target);
    let changed = |node: &Node| {
        let [before, after] = terms.keys(node, &reference.to, false);
        (before != after).then_some((before, after))
    };
    let taken: HashSet<Key> = of_target().filter_map(|node| changed(node)?.1).collect();
    let lost = of_target().filter_map(|node| {
        let on_change = reference.on_change(&node.class);
        let before = changed(node)?.0?;
        let stored = &side.stored[node.rows.stored? as usize];
        let source = node.rows.source.map(|row| side.source[row as usize].document);
        let given_up = (stored.cells(&reference.to)?, source.or(stored.document));
        counts(reference, on_change, taken.contains(&before)).then_some(given_up)
    });
    lost.collect()
}

/// Stored rows whose reference goes or changes.
fn leaving(terms: &Terms<'_>, nodes: &[Node], relation: RelationIx, reference: &Reference) -> Vec<u32> {
    let of_relation = nodes.iter().filter(|node| node.class.relation == relation);
    let leaves = |node: &&Node| {
        let [before, after] = terms.keys(node, &reference.from, false);
        before != after
    };
    of_relation.filter(leaves).filter_map(|node| node.rows.stored).collect()
}

/// Leaves to the server what it writes along: references that change as `ON UPDATE CASCADE` changes them.
pub(super) fn follow(batch: Batch<'_>, nodes: &mut Vec<Node>) {
    let mut cascading = references(batch).filter(|(_, r)| r.on_update == OnChange::Cascades).peekable();
    if cascading.peek().is_none() {
        return;
    }
    let terms = Terms::new(batch);
    for (relation, reference) in cascading {
        let is_update = |node: &&Node| node.class.is_update() && node.class.touches(&reference.to);
        let targets = nodes.iter().filter(|node| node.class.relation == reference.target).filter(is_update);
        let renamed: HashMap<Key, Key> = targets
            .filter_map(|node| {
                let [before, after] = terms.keys(node, &reference.to, false);
                before.zip(after)
            })
            .collect();
        if renamed.is_empty() {
            continue;
        }
        let referring =
            nodes.iter_mut().filter(|node| node.class.relation == relation && node.class.is_update());
        for node in referring {
            let [before, after] = terms.keys(node, &reference.from, false);
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

/// The references of mapped columns, beside those of children to parents.
fn references(batch: Batch<'_>) -> impl Iterator<Item = (RelationIx, &Reference)> {
    let of_table = move |ix: RelationIx| batch.schema.tables[ix].references.iter().map(move |r| (ix, r));
    let all = (0..batch.schema.tables.len()).flat_map(of_table);
    all.filter(move |(ix, reference)| {
        !reference.is_of_tree(*ix, batch.mapping) && reference.from.iter().all(Attribute::is_known)
    })
}

impl Reference {
    /// Whether a row of the table referred to goes or changes.
    fn is_touched(&self, batch: Batch<'_>) -> bool {
        let changes = &batch.sides[self.target].changes;
        !changes.removed.is_empty() || !changes.updated.is_empty() || !changes.moved.is_empty()
    }
}

impl StoredRow {
    /// The cells of columns, if all of them are known and none is NULL.
    pub(crate) fn cells(&self, of: &[Attribute]) -> Option<Tuple> {
        let mut cells = Tuple::default();
        for attribute in of {
            let cell = match attribute {
                Attribute::Mapped(at) => self.tuple.cell(*at).bytes(),
                Attribute::Parent(at) => self.reference.cell(*at).bytes(),
                Attribute::Id => self.id.as_deref(),
                Attribute::Unmapped { .. } => None,
            };
            cells.push_value(Some(cell?));
        }
        Some(cells)
    }
}
