//! Rows that wait for each other in a circle: one of them is written in two steps.
//!
//! Three ways, each of one more write:
//!
//! - *split*: an update sets first the columns for which others wait, and later those
//!   that wait for others. Every value is a final one, so this is preferred.
//! - *park*: a stored row gets a value that nobody else has, so that the one it had is
//!   free; what was to be done with the row follows. References are parked as NULL.
//! - *fill*: a new row is inserted with NULL where it waits for others, and the value is
//!   filled in when they are there.
//!
//! Where none of them opens a circle, a row that goes is left to a foreign key that deletes it together with what it
//! refers to (*cascade*), which takes no write at all; else the circle is left to the server, which refuses the rows.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashSet};
use std::rc::Rc;

use super::Batch;
use super::changes::{Class, Node, Rows, What};
use super::edges::{Edge, Why};
use super::terms::Terms;
use crate::mapping::RelationIx;
use crate::row::{Cell, Tuple};
use crate::schema::{Attribute, Check, OnChange, Reference, Table};
use crate::value::Kind;

/// Nodes and edges while circles are cut.
pub(super) struct Breaker<'a, 'n> {
    pub batch: Batch<'a>,
    pub terms: Terms<'a>,
    /// Constraints that are deferred to the end of the steps.
    pub deferred: &'n BTreeSet<String>,
    pub nodes: &'n mut Vec<Node>,
    pub edges: Vec<Edge>,
}

/// One way to cut a circle.
#[derive(Clone, Debug)]
enum Cut {
    /// These are set first: mapped columns, and whether the row moves.
    Split { columns: BTreeSet<usize>, moves: bool },
    /// `grade` is the worst of the columns'. `spare`: further columns of constraints that only the server can judge.
    Park { grade: Grade, columns: BTreeSet<usize>, spare: BTreeSet<usize>, parent: bool },
    /// These are NULL at first.
    Fill { columns: BTreeSet<usize> },
}

impl Cut {
    /// Less is better.
    fn preference(&self) -> (u8, Grade) {
        match self {
            Cut::Split { .. } => (0, Grade::Nullable),
            Cut::Park { grade, .. } => (1, *grade),
            Cut::Fill { .. } => (2, Grade::Nullable),
        }
    }
}

/// How likely a column is to take a value that is nobody's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Grade {
    /// NULL does.
    Nullable,
    /// Its type has many values.
    Wide,
    /// It refers to another row, and can be NULL.
    Reference,
    /// Its type has few, or they are not known here.
    Narrow,
}

impl Breaker<'_, '_> {
    /// Whether strongly connected nodes really wait for each other: what one statement does at once does not.
    pub fn is_circle(&self, nodes: &[usize]) -> bool {
        nodes.len() > 1 && self.inside(nodes).any(|edge| !edge.is_one_statement(self.nodes))
    }

    fn inside<'e>(&'e self, nodes: &[usize]) -> impl Iterator<Item = &'e Edge> + use<'e> {
        let inside: HashSet<usize> = nodes.iter().copied().collect();
        self.edges.iter().filter(move |edge| inside.contains(&edge.before) && inside.contains(&edge.after))
    }

    /// Cuts one circle among these nodes.
    pub fn cut(&mut self, nodes: &[usize]) {
        let inside: Vec<Edge> = self.inside(nodes).copied().collect();
        let ways = nodes.iter().filter_map(|&node| Some((node, self.way(node, &inside)?)));
        // Of equally good ways the one at the node through which most circles go.
        let best = ways.min_by_key(|(node, cut)| (cut.preference(), Reverse(circles(*node, &inside))));
        match best {
            Some((node, Cut::Split { columns, moves })) => self.split(node, columns, moves),
            Some((node, Cut::Park { columns, spare, parent, .. })) => {
                self.park(node, &inside, columns, spare, parent);
            }
            Some((node, Cut::Fill { columns })) => self.fill(node, &columns),
            None => match inside.iter().find(|edge| self.can_cascade(edge)) {
                Some(&Edge { before, after, .. }) => self.cascade(before, after),
                None => self.edges.retain(|edge| !inside.contains(edge)),
            },
        }
    }

    /// Whether a row that goes would go by itself with the one it has to precede.
    fn can_cascade(&self, edge: &Edge) -> bool {
        let goes = |node: usize| self.nodes[node].class.what == What::Delete;
        let cascades =
            |(ix, at): (RelationIx, usize)| self.table(ix).references[at].on_delete == OnChange::Cascades;
        matches!(edge.why, Why::Leaves(ix, at) if cascades((ix, at))) && goes(edge.before) && goes(edge.after)
    }

    fn table(&self, ix: RelationIx) -> &Table {
        &self.batch.schema.tables[ix]
    }

    /// The columns on this node's side that a constraint is about.
    fn attributes(&self, why: Why, is_before: bool) -> &[Attribute] {
        match (why, is_before) {
            (Why::Free(ix, at), _) => &self.table(ix).uniques[at].attributes,
            (Why::Arrives(ix, at) | Why::Passes(ix, at), true) | (Why::Leaves(ix, at), false) => {
                &self.table(ix).references[at].to
            }
            (Why::Arrives(ix, at) | Why::Passes(ix, at), false) | (Why::Leaves(ix, at), true) => {
                &self.table(ix).references[at].from
            }
            (Why::Row, _) => &[],
        }
    }

    /// The best way to cut a circle at a node.
    fn way(&self, node: usize, inside: &[Edge]) -> Option<Cut> {
        let outs: Vec<Why> = inside.iter().filter(|edge| edge.before == node).map(|edge| edge.why).collect();
        let ins: Vec<Why> = inside.iter().filter(|edge| edge.after == node).map(|edge| edge.why).collect();
        match &self.nodes[node].class.what {
            What::Update { columns, moves, whole } => {
                let split = self.way_to_split(columns, *moves, &outs, &ins);
                // A column that stays as it is can be parked too, if the update can set it back.
                let source = self.nodes[node].rows.source.map(|row| self.source(node, row));
                let is_known = |at| source.is_some_and(|tuple| tuple.cell(at) != Cell::Kept);
                let park = || self.way_to_park(node, inside, &outs, is_known, *moves);
                // What was split or parked once already is not done so again.
                split.filter(|_| *whole).or_else(park)
            }
            What::Delete => self.way_to_park(node, inside, &outs, |_| true, true),
            What::Insert { columns, holes } if holes.is_empty() => {
                self.way_to_fill(node, columns, &outs, &ins)
            }
            _ => None,
        }
    }

    fn source(&self, node: usize, row: u32) -> &Tuple {
        &self.batch.sides[self.nodes[node].class.relation].source[row as usize].tuple
    }

    fn way_to_split(&self, columns: &[usize], moves: bool, outs: &[Why], ins: &[Why]) -> Option<Cut> {
        let first = Changed::of(columns, moves, outs.iter().map(|&why| self.attributes(why, true)));
        let last = Changed::of(columns, moves, ins.iter().map(|&why| self.attributes(why, false)));
        let splits = first.is_apart(&last) && !first.is_empty() && !last.is_empty();
        splits.then_some(Cut::Split { columns: first.columns, moves: first.moves })
    }

    fn way_to_park(
        &self,
        node: usize,
        inside: &[Edge],
        outs: &[Why],
        sets: impl Fn(usize) -> bool,
        moves: bool,
    ) -> Option<Cut> {
        self.nodes[node].rows.stored?;
        let ix = self.nodes[node].class.relation;
        let pinned = self.pinned(node, inside);
        let (mut grade, mut columns, mut parent) = (Grade::Nullable, BTreeSet::new(), false);
        let is_settable = |attribute: &Attribute| {
            let settable = match attribute {
                Attribute::Mapped(at) => sets(*at),
                Attribute::Parent(_) => moves,
                _ => false,
            };
            settable && !pinned.contains(&attribute)
        };
        for &why in outs {
            let of_one = self.attributes(why, true).iter().filter(|attribute| is_settable(attribute));
            let of_one = of_one.filter_map(|attribute| Some((self.grade(ix, why, attribute)?, attribute)));
            let is_changed =
                |attribute: &Attribute| self.nodes[node].class.touches(std::slice::from_ref(attribute));
            let (worst, attribute) =
                of_one.min_by_key(|(grade, attribute)| (*grade, !is_changed(attribute)))?;
            grade = grade.max(worst);
            match attribute {
                Attribute::Mapped(at) => drop(columns.insert(*at)),
                _ => parent = true,
            }
        }
        let spare = &self.judged_with(ix, &columns, is_settable) - &columns;
        Some(Cut::Park { grade, columns, spare, parent })
    }

    /// Columns that constraints of which only the server can tell compare together with one of these: a value of its
    /// own may not do where several do. A range, say, has two ends.
    fn judged_with(
        &self,
        ix: RelationIx,
        columns: &BTreeSet<usize>,
        is_settable: impl Fn(&Attribute) -> bool,
    ) -> BTreeSet<usize> {
        let table = self.table(ix);
        let parked =
            |attribute: &Attribute| matches!(attribute, Attribute::Mapped(at) if columns.contains(at));
        let refers = |attribute: &Attribute| table.references.iter().any(|r| r.from.contains(attribute));
        let judged =
            table.uniques.iter().filter(|unique| !unique.plain && unique.attributes.iter().any(parked));
        let with = judged.flat_map(|unique| &unique.attributes).filter_map(|attribute| match attribute {
            Attribute::Mapped(at) if is_settable(attribute) && !refers(attribute) => Some(*at),
            _ => None,
        });
        with.collect()
    }

    /// Columns of a node's stored row that other rows refer to, and go on referring to until the circle is cut, under
    /// the eyes of the server; or whose change it would pass on to them.
    fn pinned(&self, node: usize, inside: &[Edge]) -> Vec<&Attribute> {
        let Node { class: Class { relation, .. }, rows } = &self.nodes[node];
        let Some(stored) = rows.stored else { return Vec::new() };
        let mut pinned = Vec::new();
        for (ix, table) in self.batch.schema.tables.iter().enumerate() {
            for (at, reference) in table.references.iter().enumerate().filter(|(_, r)| r.target == *relation)
            {
                let key = self.terms.key_before(*relation, stored, &reference.to, false);
                let refers = |row: &u32| self.terms.key_before(ix, *row, &reference.from, false) == key;
                let referring = (0..self.batch.sides[ix].stored.len() as u32).filter(refers).count();
                let leaving =
                    self.edges.iter().filter(|edge| edge.after == node && edge.why == Why::Leaves(ix, at));
                let leaving = leaving.filter(|edge| !inside.contains(edge)).count();
                let refused = referring > leaving && !self.is_checked_at_end(reference);
                if key.is_some() && (reference.on_update.acts() || refused) {
                    pinned.extend(&reference.to);
                }
            }
        }
        pinned
    }

    /// Whether a key to which rows refer may be gone for a while.
    fn is_checked_at_end(&self, reference: &Reference) -> bool {
        let deferred = match &reference.check {
            Check::Deferred(_) => true,
            Check::Deferrable(name) => self.deferred.contains(name),
            Check::AtOnce => false,
        };
        deferred && reference.on_update == OnChange::Refused
    }

    /// How well a column can be parked so that others need not wait for the row.
    fn grade(&self, ix: RelationIx, why: Why, attribute: &Attribute) -> Option<Grade> {
        let table = self.table(ix);
        let (nullable, kind) = match attribute {
            Attribute::Mapped(at) => (table.nullable[*at], Some(&table.columns[*at].kind)),
            Attribute::Parent(_) => (table.parent_nullable, None),
            Attribute::Id | Attribute::Unmapped { .. } => return None,
        };
        // What refers to it from elsewhere follows a value, or forbids it, but would lose a NULL.
        let nullable = nullable && !table.referred.contains(attribute);
        let null_helps = match why {
            Why::Free(ix, at) => self.table(ix).uniques[at].nulls_distinct,
            Why::Arrives(..) | Why::Passes(..) | Why::Row => return None,
            Why::Leaves(..) => true,
        };
        let refers = table.references.iter().any(|reference| reference.from.contains(attribute));
        match kind {
            _ if nullable && matches!(why, Why::Leaves(..)) => Some(Grade::Reference),
            _ if nullable && null_helps => Some(Grade::Nullable),
            Some(_) if matches!(why, Why::Leaves(..)) => None,
            Some(_) if refers => Some(Grade::Narrow),
            Some(Kind::Bool | Kind::Enum(_) | Kind::Json | Kind::Jsonb) => Some(Grade::Narrow),
            Some(Kind::Array(_) | Kind::Composite(_) | Kind::Domain(_) | Kind::Server) => Some(Grade::Narrow),
            Some(_) => Some(Grade::Wide),
            None => None,
        }
    }

    fn way_to_fill(&self, node: usize, columns: &[usize], outs: &[Why], ins: &[Why]) -> Option<Cut> {
        let table = self.table(self.nodes[node].class.relation);
        let mut holes = BTreeSet::new();
        for &why in ins {
            let null_helps = match why {
                Why::Free(ix, at) => self.table(ix).uniques[at].nulls_distinct,
                Why::Arrives(..) | Why::Passes(..) => true,
                Why::Leaves(..) | Why::Row => false,
            };
            let hole = self.attributes(why, false).iter().find_map(|attribute| match attribute {
                Attribute::Mapped(at) if table.nullable[*at] && columns.contains(at) => Some(*at),
                _ => None,
            });
            holes.insert(hole.filter(|_| null_helps)?);
        }
        let needed = outs.iter().flat_map(|&why| self.attributes(why, true));
        let mut needed =
            needed.filter(|attribute| matches!(attribute, Attribute::Mapped(at) if holes.contains(at)));
        (needed.next().is_none() && table.new_row_key().is_some()).then_some(Cut::Fill { columns: holes })
    }

    /// Adds a node for the part of an update that comes first.
    fn split(&mut self, node: usize, first: BTreeSet<usize>, first_moves: bool) {
        let Node { class: Class { relation, what, .. }, rows } = self.nodes[node].clone();
        let What::Update { columns, moves, .. } = what else { return };
        let (early, late): (Vec<usize>, Vec<usize>) = columns.iter().partition(|at| first.contains(at));
        let part = |columns: Vec<usize>, moves, whole| {
            Class::new(relation, What::Update { whole, moves, columns: columns.into() })
        };
        self.nodes[node].class = part(late, moves && !first_moves, true);
        let first = Changed { columns: first, moves: first_moves };
        let early = self.add(Node { class: part(early, first_moves, false), rows });
        self.redirect([node, early], true, &first, |_| true);
        self.redirect([node, early], false, &first, |_| true);
        self.follow(early, node);
    }

    /// Adds a node that parks a row, for which others need not wait any more.
    fn park(
        &mut self,
        node: usize,
        inside: &[Edge],
        columns: BTreeSet<usize>,
        spare: BTreeSet<usize>,
        parent: bool,
    ) {
        let relation = self.nodes[node].class.relation;
        if let What::Update { columns: set, whole, moves } = &self.nodes[node].class.what {
            let set = set.iter().chain(&columns).chain(&spare).copied().collect::<BTreeSet<_>>();
            let what = What::Update { columns: set.into_iter().collect(), whole: *whole, moves: *moves };
            self.nodes[node].class = Class::new(relation, what);
        }
        let parked = Changed { columns: &columns | &spare, moves: parent };
        let [columns, spare] = [columns, spare].map(|columns| columns.into_iter().collect());
        let class = Class::new(relation, What::Park { columns, spare, parent });
        let rows = Rows { source: None, ..self.nodes[node].rows };
        let park = self.add(Node { class, rows });
        let freed: BTreeSet<Why> =
            inside.iter().filter(|edge| edge.before == node).map(|edge| edge.why).collect();
        let moved = self.edges.iter_mut().filter(|edge| edge.before == node && freed.contains(&edge.why));
        moved.for_each(|edge| edge.before = park);
        // What refers to a value must be gone when it is parked already.
        self.redirect([node, park], false, &parked, |why| matches!(why, Why::Leaves(..)));
        self.follow(park, node);
    }

    /// Adds a node that fills in what a new row waits for.
    fn fill(&mut self, node: usize, holes: &BTreeSet<usize>) {
        let Node { class: Class { relation, what, .. }, rows } = self.nodes[node].clone();
        let What::Insert { columns, .. } = what else { return };
        let empty: Rc<[usize]> = holes.iter().copied().collect();
        self.nodes[node].class = Class::new(relation, What::Insert { columns, holes: empty.clone() });
        let fill = self.add(Node { class: Class::new(relation, What::Fill { columns: empty }), rows });
        let filled = Changed { columns: holes.clone(), moves: false };
        self.redirect([node, fill], false, &filled, |_| true);
        self.follow(node, fill);
    }

    /// Has a row go with another one: what waits for either waits for both.
    fn cascade(&mut self, node: usize, with: usize) {
        self.nodes[node].class = Class::new(self.nodes[node].class.relation, What::Cascade);
        for edge in &mut self.edges {
            for end in [&mut edge.before, &mut edge.after].into_iter().filter(|end| **end == node) {
                *end = with;
            }
        }
        self.edges.retain(|edge| edge.before != edge.after);
        self.follow(with, node);
    }

    /// Has edges at one end of a node begin or end at another one: those about a part of what the node changes.
    fn redirect(
        &mut self,
        [node, other]: [usize; 2],
        is_before: bool,
        part: &Changed,
        only: impl Fn(Why) -> bool,
    ) {
        let mut edges = std::mem::take(&mut self.edges);
        for edge in &mut edges {
            let end = if is_before { &mut edge.before } else { &mut edge.after };
            if *end == node && only(edge.why) && part.meets(self.attributes(edge.why, is_before)) {
                *end = other;
            }
        }
        self.edges = edges;
    }

    fn add(&mut self, node: Node) -> usize {
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    /// Two writes of one row, in this order whatever the classes.
    fn follow(&mut self, before: usize, after: usize) {
        self.edges.push(Edge { before, after, why: Why::Row, together: false });
    }
}

/// How many circles may go through a node.
fn circles(node: usize, inside: &[Edge]) -> usize {
    let ins = inside.iter().filter(|edge| edge.after == node).count();
    let outs = inside.iter().filter(|edge| edge.before == node).count();
    ins.min(outs)
}

/// A part of what an update changes.
struct Changed {
    columns: BTreeSet<usize>,
    moves: bool,
}

impl Changed {
    /// What an update changes of the columns of some constraints.
    fn of<'s>(columns: &[usize], moves: bool, constraints: impl Iterator<Item = &'s [Attribute]>) -> Self {
        let mut changed = Changed { columns: BTreeSet::new(), moves: false };
        for attribute in constraints.flatten() {
            match attribute {
                Attribute::Mapped(at) if columns.contains(at) => drop(changed.columns.insert(*at)),
                Attribute::Parent(_) => changed.moves |= moves,
                _ => {}
            }
        }
        changed
    }

    fn is_empty(&self) -> bool {
        self.columns.is_empty() && !self.moves
    }

    fn is_apart(&self, other: &Changed) -> bool {
        self.columns.is_disjoint(&other.columns) && !(self.moves && other.moves)
    }

    fn meets(&self, attributes: &[Attribute]) -> bool {
        attributes.iter().any(|attribute| match attribute {
            Attribute::Mapped(at) => self.columns.contains(at),
            Attribute::Parent(_) => self.moves,
            _ => false,
        })
    }
}
