//! From edges to rounds: in a round every class is written once, in the natural order.

use std::collections::BTreeSet;

use petgraph::algo::kosaraju_scc;
use petgraph::graph::{DiGraph, NodeIndex};

use super::changes::Node;
use super::cycles::Breaker;
use super::edges::{Edge, Found, Why};
use super::terms::Terms;
use super::{Batch, Plan};
use crate::schema::{Check, OnChange, Schema};

/// Takes out the edges of constraints that are checked at the end anyway, and of those that can be deferred where
/// one of them is against the natural order, or in a circle, or no order is right. Gives the names of the latter.
pub(super) fn defer(schema: &Schema, nodes: &[Node], found: &mut Found) -> BTreeSet<String> {
    let Found { edges, passing } = found;
    let check = |edge: &Edge| check(schema, nodes, edge);
    edges.retain(|edge| !matches!(check(edge), Check::Deferred(_)));
    let mut deferred: BTreeSet<String> = edges
        .iter()
        .filter(|edge| !edge.is_natural(nodes))
        .filter_map(|edge| deferrable(check(edge)).cloned())
        .collect();
    let passing = passing.iter().map(|&(ix, at)| &schema.tables[ix].references[at].check);
    deferred.extend(passing.filter_map(deferrable).cloned());
    let is_left = |edge: &Edge, deferred: &BTreeSet<String>| {
        deferrable(check(edge)).is_none_or(|name| !deferred.contains(name))
    };
    edges.retain(|edge| is_left(edge, &deferred));
    // Circles are looked for only where that can change something.
    if edges.iter().any(|edge| deferrable(check(edge)).is_some()) {
        let mut places = vec![None; nodes.len()];
        for (place, component) in components(nodes.len(), edges).into_iter().enumerate() {
            component.into_iter().for_each(|node| places[node] = Some(place));
        }
        let in_circles = edges.iter().filter(|edge| places[edge.before] == places[edge.after]);
        deferred.extend(in_circles.filter_map(|edge| deferrable(check(edge)).cloned()));
        edges.retain(|edge| is_left(edge, &deferred));
    }
    deferred
}

fn deferrable(check: &Check) -> Option<&String> {
    match check {
        Check::Deferrable(name) => Some(name),
        Check::AtOnce | Check::Deferred(_) => None,
    }
}

/// When the reason for an edge is checked. Only a check can be put off, not what else a constraint does.
fn check<'s>(schema: &'s Schema, nodes: &[Node], edge: &Edge) -> &'s Check {
    match edge.why {
        Why::Free(ix, at) => &schema.tables[ix].uniques[at].check,
        Why::Leaves(ix, at) => {
            let reference = &schema.tables[ix].references[at];
            match reference.on_change(&nodes[edge.after].class) {
                OnChange::Refused => &reference.check,
                OnChange::Restricted | OnChange::Cascades | OnChange::Clears => &Check::AtOnce,
            }
        }
        Why::Arrives(ix, at) => &schema.tables[ix].references[at].check,
        Why::Passes(..) | Why::Row => &Check::AtOnce,
    }
}

/// The round of every node; nodes are added where rows wait for each other in a circle. Gives the edges that
/// then hold, too.
pub(super) fn order(
    batch: Batch<'_>,
    nodes: &mut Vec<Node>,
    edges: Vec<Edge>,
    deferred: &BTreeSet<String>,
) -> (Vec<u32>, Vec<Edge>) {
    if edges.is_empty() {
        return (vec![0; nodes.len()], edges);
    }
    let mut breaker = Breaker { batch, terms: Terms::new(batch), deferred, nodes, edges };
    let components = loop {
        let components = components(breaker.nodes.len(), &breaker.edges);
        let circles: Vec<&Vec<usize>> = components.iter().filter(|nodes| breaker.is_circle(nodes)).collect();
        if circles.is_empty() {
            break components;
        }
        circles.into_iter().for_each(|nodes| breaker.cut(nodes));
    };
    let edges = breaker.edges;
    (rounds(nodes, &edges, &components), edges)
}

/// Strongly connected nodes, each component after those it waits for. Nodes without an edge are left out.
fn components(nodes: usize, edges: &[Edge]) -> Vec<Vec<usize>> {
    strongly_connected(nodes, edges.iter().map(|edge| (edge.before, edge.after)))
}

fn strongly_connected(nodes: usize, edges: impl Iterator<Item = (usize, usize)>) -> Vec<Vec<usize>> {
    let mut graph: DiGraph<usize, ()> = DiGraph::new();
    let mut places: Vec<Option<NodeIndex>> = vec![None; nodes];
    let mut edges: Vec<(usize, usize)> = edges.collect();
    edges.sort_unstable();
    edges.dedup();
    for (before, after) in edges {
        let [before, after] =
            [before, after].map(|node| *places[node].get_or_insert_with(|| graph.add_node(node)));
        graph.add_edge(before, after, ());
    }
    let components = kosaraju_scc(&graph).into_iter().rev();
    let sorted = components.map(|component| {
        let mut nodes: Vec<usize> = component.into_iter().map(|place| graph[place]).collect();
        nodes.sort_unstable();
        nodes
    });
    sorted.collect()
}

/// Each node as early as the rounds of those before it allow. Nodes that one statement must write together are in
/// one component.
fn rounds(nodes: &[Node], edges: &[Edge], components: &[Vec<usize>]) -> Vec<u32> {
    let mut rounds = vec![0; nodes.len()];
    let mut waiting: Vec<Vec<&Edge>> = vec![Vec::new(); nodes.len()];
    edges.iter().for_each(|edge| waiting[edge.after].push(edge));
    for component in components {
        let waits = component.iter().flat_map(|&node| &waiting[node]);
        let round = waits.map(|edge| rounds[edge.before] + u32::from(!edge.is_natural(nodes))).max();
        component.iter().for_each(|&node| rounds[node] = round.unwrap_or(0));
    }
    rounds
}

/// Documents that cannot be applied without each other, each group after those it waits for; and for which it does.
pub(super) fn groups(
    batch: Batch<'_>,
    nodes: &[Node],
    edges: &[Edge],
) -> (Vec<Vec<u32>>, Vec<(usize, usize)>) {
    let documents = |node: &Node| {
        let side = &batch.sides[node.class.relation];
        let stored = node.rows.stored.and_then(|row| losing(batch, node.class.relation, row));
        let source = node.rows.source.map(|row| side.source[row as usize].document);
        stored.into_iter().chain(source).map(|document| document as usize).collect::<Vec<_>>()
    };
    let mut pairs = Vec::new();
    for edge in edges {
        for before in documents(&nodes[edge.before]) {
            pairs.extend(documents(&nodes[edge.after]).into_iter().map(|after| (before, after)));
        }
    }
    // Who loses a row and who takes it.
    for node in nodes.iter().filter(|node| node.class.is_update()) {
        if let [loser, taker] = documents(node)[..] {
            pairs.extend([(loser, taker), (taker, loser)]);
        }
    }
    // Every document is in a group.
    pairs.extend((0..batch.documents).map(|document| (document, document)));
    let groups = strongly_connected(batch.documents, pairs.iter().copied());
    let mut places = vec![0; batch.documents];
    for (place, group) in groups.iter().enumerate() {
        group.iter().for_each(|&document| places[document] = place);
    }
    let waits = pairs.into_iter().map(|(before, after)| (places[before], places[after]));
    let mut waits: Vec<(usize, usize)> = waits.filter(|(before, after)| before != after).collect();
    waits.sort_unstable();
    waits.dedup();
    let groups = groups.into_iter().map(|group| group.into_iter().map(|document| document as u32).collect());
    (groups.collect(), waits)
}

/// The document below whose row a stored row hangs: a row that moves counts as its taker's already.
fn losing(batch: Batch<'_>, ix: usize, row: u32) -> Option<u32> {
    let stored = &batch.sides[ix].stored[row as usize];
    match (batch.mapping.relations[ix].enclosing, stored.parent) {
        (Some(outer), Some(parent)) => batch.sides[outer].stored[parent as usize].document,
        _ => stored.document,
    }
}

impl Plan {
    /// The order in which groups are applied one by one: first those with documents that give up a key to which others
    /// refer, after what they wait for. What such a reference holds in its stead for a while must not be taken before.
    pub fn one_by_one(&self, giving: &BTreeSet<u32>) -> Vec<usize> {
        let all = || 0..self.groups.len();
        if giving.is_empty() {
            return all().collect();
        }
        let gives = |group: &usize| self.groups[*group].iter().any(|document| giving.contains(document));
        let mut order: Vec<usize> = Vec::new();
        let mut open: Vec<usize> = all().filter(gives).chain(all()).rev().collect();
        while let Some(&group) = open.last() {
            let waits = self.waits.iter().filter(|(_, after)| *after == group).map(|(before, _)| *before);
            let before: Vec<usize> = waits.filter(|before| !order.contains(before)).collect();
            if before.is_empty() {
                open.pop();
                if !order.contains(&group) {
                    order.push(group);
                }
            }
            open.extend(before);
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p18_groups_that_give_up_a_key_come_first_after_what_they_wait_for() {
        let groups = vec![vec![0], vec![1, 4], vec![2], vec![3]];
        let plan = Plan { groups, waits: vec![(1, 3), (0, 2)], ..Plan::default() };
        assert_eq!(plan.one_by_one(&BTreeSet::new()), [0, 1, 2, 3]);
        assert_eq!(plan.one_by_one(&BTreeSet::from([3])), [1, 3, 0, 2]);
        assert_eq!(plan.one_by_one(&BTreeSet::from([2, 4])), [1, 0, 2, 3]);
    }
}
