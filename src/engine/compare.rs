//! Looks up what is stored of a batch and compares it with what its documents ask for.
//!
//! Only relations whose fingerprint differs are read, and the ones around them,
//! whose ids are needed. Reading goes level by level, the relations of a level
//! side by side; comparing goes from the root down, so that a child is compared
//! below the row its parent was matched with.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use tokio_postgres::Transaction;

use crate::diff::{ChangeSet, Entry, Identity, Leftover, diff, pair};
use crate::document::DocumentKey;
use crate::engine::held::own_place;
use crate::engine::prepare::Prepared;
use crate::engine::rewritten::{Known, Original, revert};
use crate::engine::roots::Roots;
use crate::error::Error;
use crate::fingerprint::{
    self, Level, RowFingerprint, TreeFingerprint, comparison_key, comparison_tuple, trees,
};
use crate::mapping::{Mapping, Relation, RelationIx, RelationKind, UniqueIn, WhenAbsent, WhenNull};
use crate::plan::{Sides, SourceRow, StoredRow};
use crate::postgres::fetch::{Widths, attach, referable, rows};
use crate::postgres::owners::owners;
use crate::postgres::turns::Turns;
use crate::row::{Cell, Tuple};
use crate::schema::{Schema, Table};
use crate::value::{ColumnType, Kind};

/// A batch compared with what is stored of it.
pub(crate) struct Compared {
    pub sides: Vec<Sides>,
    /// Per relation, stored rows that a trigger had rewritten: these have the form here in which they were sent.
    pub restored: Vec<HashMap<u32, Original>>,
    /// Per relation, whether it must be looked at what becomes of its rows.
    pub traced: Vec<bool>,
    /// Time spent reading, per relation.
    pub times: Vec<Duration>,
}

/// Which relations of which documents must be compared: `active[document][relation]`.
pub(crate) type Active = Vec<Vec<bool>>;

/// Adds to the relations that differ those that must be read because of them: the ones with foreign keys to them,
/// for the order of writes; the ones around, for their ids; and, inside a relation without a key, all, because what
/// is below a row tells equal rows apart.
pub(crate) fn close(mapping: &Mapping, schema: &Schema, differs: &mut [bool]) {
    let references = |ix: RelationIx| schema.tables[ix].references.iter().map(move |r| (ix, r.target));
    for (ix, target) in (1..differs.len()).flat_map(references) {
        differs[ix] |= differs[target] && target != 0 && mapping.relations[ix].enclosing != Some(target);
    }
    for ix in (1..differs.len()).rev() {
        if let (true, Some(outer)) = (differs[ix], mapping.relations[ix].enclosing) {
            differs[outer] = true;
        }
    }
    for ix in 1..differs.len() {
        let outer = mapping.relations[ix].enclosing.filter(|&outer| outer != 0);
        if outer.is_some_and(|outer| differs[outer] && !mapping.relations[outer].is_keyed()) {
            differs[ix] = true;
        }
    }
}

/// Adds the relations of which what is recorded may not be all: it has nothing of the rows below a list about which the
/// recorded document said nothing, and such a list has another fingerprint once a document speaks of it.
pub(crate) fn below_silence(mapping: &Mapping, differs: &mut [bool]) {
    let mut unknown = vec![false; differs.len()];
    for (ix, relation) in mapping.relations.iter().enumerate() {
        let Some(outer) = relation.enclosing.filter(|&outer| outer != 0) else { continue };
        let list = &mapping.relations[outer];
        let may_be_silent = list.when_absent == WhenAbsent::Keep || list.when_null == WhenNull::Keep;
        unknown[ix] = unknown[outer] || (differs[outer] && may_be_silent);
        differs[ix] |= unknown[ix];
    }
}

/// Reads and compares.
pub(crate) async fn compare(
    transaction: &Transaction<'_>,
    mapping: &Mapping,
    schema: &Schema,
    documents: &[&Prepared],
    active: &Active,
    roots: Roots,
    known: &mut Known,
) -> Result<Compared, Error> {
    let count = mapping.relations.len();
    let (sides, kept) = sources(mapping, documents, active);
    let mut comparison = Comparison {
        transaction,
        mapping,
        schema,
        active,
        sides,
        kept,
        left_alone: vec![HashSet::new(); count],
        read: vec![HashSet::new(); count],
        carried: vec![HashSet::new(); count],
        known,
        restored: (0..count).map(|_| HashMap::new()).collect(),
        times: vec![Duration::ZERO; count],
    };
    comparison.sides[0].stored = roots.stored;
    comparison.restore(0, 0);
    comparison.times[0] += roots.took;
    comparison.read_levels().await?;
    let trees = comparison.stored_trees();
    for (ix, trees) in trees.iter().enumerate() {
        comparison.read_more(ix).await?;
        comparison.hand_down(ix);
        comparison.revert(ix);
        comparison.sides[ix].changes = comparison.diff(ix, trees);
        comparison.leave_alone(ix);
        comparison.hand_over(ix);
        comparison.carry(ix);
    }
    let Comparison { sides, restored, known, times, .. } = comparison;
    Ok(Compared { sides, restored, traced: known.traced(schema), times })
}

struct Comparison<'a> {
    transaction: &'a Transaction<'a>,
    mapping: &'a Mapping,
    schema: &'a Schema,
    active: &'a Active,
    sides: Vec<Sides>,
    /// Per relation, the enclosing stored rows below which it has been read.
    read: Vec<HashSet<u32>>,
    /// Per relation, the stored rows that stay but come from elsewhere: they moved, or something around them did.
    carried: Vec<HashSet<u32>>,
    /// Per relation, the enclosing source rows whose list their document has no say about.
    kept: Vec<HashSet<u32>>,
    /// Per relation, stored rows below those, at any depth: they are left alone.
    left_alone: Vec<HashSet<u32>>,
    known: &'a mut Known,
    /// Per relation, stored rows that a trigger had rewritten.
    restored: Vec<HashMap<u32, Original>>,
    times: Vec<Duration>,
}

/// The source rows of all relations that take part, and the lists that are kept.
fn sources(mapping: &Mapping, documents: &[&Prepared], active: &Active) -> (Vec<Sides>, Vec<HashSet<u32>>) {
    let mut sides: Vec<Sides> = Vec::new();
    let mut kept: Vec<HashSet<u32>> = Vec::new();
    // Where each document's rows begin in the enclosing relation.
    let mut starts: Vec<Vec<u32>> = Vec::new();
    for (ix, relation) in mapping.relations.iter().enumerate() {
        let mut source = Vec::new();
        let mut start = Vec::new();
        let mut keeps = HashSet::new();
        for (at, document) in documents.iter().enumerate() {
            start.push(source.len() as u32);
            if !active[at][ix] {
                continue;
            }
            let offset = relation.enclosing.map_or(0, |outer| starts[outer][at]);
            keeps.extend(document.rows.relations[ix].kept.iter().map(|parent| offset + parent));
            let fingerprints = &document.fingerprints;
            for (place, row) in document.rows.relations[ix].rows.iter().enumerate() {
                source.push(SourceRow {
                    document: at as u32,
                    parent: offset + row.parent,
                    tuple: row.tuple.clone(),
                    fingerprint: fingerprints.rows[ix][place],
                    tree: fingerprints.trees[ix][place],
                });
            }
        }
        starts.push(start);
        kept.push(keeps);
        sides.push(Sides { source, ..Sides::default() });
    }
    (sides, kept)
}

impl Comparison<'_> {
    async fn read_levels(&mut self) -> Result<(), Error> {
        let depth = |ix: RelationIx| {
            std::iter::successors(Some(ix), |&ix| self.mapping.relations[ix].enclosing).count()
        };
        let depths: Vec<usize> = (0..self.sides.len()).map(depth).collect();
        for level in 2..=depths.iter().copied().max().unwrap_or(1) {
            let relations: Vec<RelationIx> =
                (1..self.sides.len()).filter(|&ix| depths[ix] == level).collect();
            let wanted = |ix: RelationIx| {
                let outer = self.mapping.relations[ix].enclosing.unwrap_or(0);
                let active = |row: &StoredRow| row.document.is_some_and(|at| self.active[at as usize][ix]);
                let rows = self.sides[outer].stored.iter().enumerate();
                rows.filter(|(_, row)| active(row)).map(|(at, _)| at as u32).collect::<Vec<_>>()
            };
            let parents: Vec<Vec<u32>> = relations.iter().map(|&ix| wanted(ix)).collect();
            let turns = Turns::start();
            let reads =
                relations.iter().zip(&parents).map(|(&ix, parents)| self.read_below(ix, parents, &turns));
            let found = try_join_all(reads).await?;
            for ((ix, parents), found) in relations.into_iter().zip(parents).zip(found) {
                self.add(ix, parents, found);
            }
        }
        Ok(())
    }

    /// The rows of a relation below some stored rows of the enclosing one.
    async fn read_below(
        &self,
        ix: RelationIx,
        parents: &[u32],
        turns: &Turns,
    ) -> Result<(Vec<StoredRow>, Duration), Error> {
        let outer = self.mapping.relations[ix].enclosing.unwrap_or(0);
        let stored = &self.sides[outer].stored;
        let (table, enclosing) = (&self.schema.tables[ix], &self.schema.tables[outer]);
        let widths = Widths::of(table, enclosing);
        let refer = |&row: &u32| Some((widths.reference(referable(enclosing, &stored[row as usize]))?, row));
        let parents: HashMap<Tuple, u32> = parents.iter().filter_map(refer).collect();
        let values: Vec<Tuple> = parents.keys().cloned().collect();
        let found = rows(self.transaction, table, &table.parent, &values)
            .await
            .map_err(|error| error.in_relation(&self.mapping.relations[ix].name))?;
        let took = turns.next();
        Ok((attach(found, &parents), took))
    }

    fn add(&mut self, ix: RelationIx, parents: Vec<u32>, found: (Vec<StoredRow>, Duration)) {
        let from = self.sides[ix].stored.len();
        self.sides[ix].stored.extend(found.0);
        self.read[ix].extend(parents);
        self.times[ix] += found.1;
        self.hand_down(ix);
        self.restore(ix, from);
    }

    /// Gives rows, from one on, the form in which they were sent.
    fn restore(&mut self, ix: RelationIx, from: usize) {
        let found = self.known.restore(ix, &self.schema.tables[ix], &mut self.sides[ix], from);
        self.restored[ix].extend(found);
    }

    /// Gives rows the form again in which they are stored, where that is asked for.
    fn revert(&mut self, ix: RelationIx) {
        let slots = self.slots(&self.mapping.relations[ix]);
        let slot = |row: &StoredRow| match &slots {
            Some(slots) => row.parent.map_or(u32::MAX, |parent| slots[parent as usize]),
            // A root row's key is part of its content.
            None => 0,
        };
        revert(&mut self.sides[ix], &self.restored[ix], slot);
    }

    /// A row belongs to the document of its parent.
    fn hand_down(&mut self, ix: RelationIx) {
        let Some(outer) = self.mapping.relations[ix].enclosing else { return };
        // Enclosing relations stand before the ones they enclose.
        let (before, inner) = self.sides.split_at_mut(ix);
        let parents = &before[outer].stored;
        for row in &mut inner[0].stored {
            row.document = row.parent.and_then(|parent| parents[parent as usize].document);
        }
    }

    /// Rows of a list about which their document says nothing do not go, and nothing below them does.
    fn leave_alone(&mut self, ix: RelationIx) {
        let Some(outer) = self.mapping.relations[ix].enclosing else { return };
        let Some(slots) = self.slots(&self.mapping.relations[ix]) else { return };
        let side = &mut self.sides[ix];
        let (alone, gone) = std::mem::take(&mut side.changes.removed).into_iter().partition(|&row| {
            side.stored[row as usize].parent.is_some_and(|parent| {
                self.kept[ix].contains(&slots[parent as usize]) || self.left_alone[outer].contains(&parent)
            })
        });
        side.changes.removed = gone;
        let alone: Vec<u32> = alone;
        self.left_alone[ix].extend(alone);
    }

    /// A row that moves, and with it what is below, belongs to the document that takes it.
    fn hand_over(&mut self, ix: RelationIx) {
        let side = &mut self.sides[ix];
        for &(stored, source) in &side.changes.moved {
            side.stored[stored as usize].document = Some(side.source[source as usize].document);
        }
    }

    /// Notes the rows below which another document's rows are stored: what moved, and what was carried along.
    fn carry(&mut self, ix: RelationIx) {
        let side = &self.sides[ix];
        let around = self.mapping.relations[ix].enclosing.map(|outer| &self.carried[outer]);
        let carried = |row: u32| {
            let parent = side.stored[row as usize].parent;
            parent.zip(around).is_some_and(|(parent, around)| around.contains(&parent))
        };
        let moved = side.changes.moved.iter().map(|pair| pair.0);
        let along = side.changes.matched().map(|pair| pair.0).filter(|&row| carried(row));
        self.carried[ix] = moved.chain(along).collect();
    }

    /// What is below each stored row, where equal rows are told apart by it.
    fn stored_trees(&self) -> Vec<Vec<TreeFingerprint>> {
        let needed = (1..self.sides.len())
            .any(|ix| !self.mapping.relations[ix].is_keyed() && self.mapping.enclosed(ix).next().is_some());
        if !needed {
            return vec![Vec::new(); self.sides.len()];
        }
        let level = |side: &Sides| Level {
            rows: side.stored.iter().map(|row| (row.parent.unwrap_or(u32::MAX), row.fingerprint)).collect(),
            kept: Vec::new(),
        };
        trees(self.mapping, &self.sides.iter().map(level).collect::<Vec<_>>())
    }

    /// Rows that matter only because of what came out one level up: below rows that go although this relation
    /// of their document did not change, or below rows that came from elsewhere; and, where the key is unique
    /// in the table, rows found under parents that are not in the batch.
    async fn read_more(&mut self, ix: RelationIx) -> Result<(), Error> {
        let Some(outer) = self.mapping.relations[ix].enclosing else { return Ok(()) };
        let removed = self.sides[outer].changes.removed.iter();
        let parents: Vec<u32> =
            removed.chain(&self.carried[outer]).copied().filter(|row| !self.read[ix].contains(row)).collect();
        let found = self.read_below(ix, &parents, &Turns::start()).await?;
        self.add(ix, parents, found);
        if identity(&self.mapping.relations[ix]) == Identity::KeyEverywhere {
            self.read_elsewhere(ix).await?;
        }
        Ok(())
    }

    async fn read_elsewhere(&mut self, ix: RelationIx) -> Result<(), Error> {
        let table = &self.schema.tables[ix];
        let side = &self.sides[ix];
        let here: HashSet<Tuple> = side.stored.iter().map(|row| comparison_key(table, &row.tuple)).collect();
        let mut wanted: HashMap<Tuple, Tuple> = HashMap::new();
        for row in &side.source {
            let key = comparison_key(table, &row.tuple);
            if !here.contains(&key) {
                wanted.insert(key, row.tuple.project(&table.key));
            }
        }
        let values: Vec<Tuple> = wanted.values().cloned().collect();
        let started = Instant::now();
        let found = rows(self.transaction, table, &table.key_columns(), &values)
            .await
            .map_err(|error| error.in_relation(&self.mapping.relations[ix].name))?;
        self.times[ix] += started.elapsed();
        let elsewhere =
            found.into_iter().filter(|row| wanted.contains_key(&comparison_key(table, &row.tuple)));
        let (elsewhere, from): (Vec<StoredRow>, usize) = (elsewhere.collect(), side.stored.len());
        self.know_owners(ix, &elsewhere).await?;
        self.sides[ix].stored.extend(elsewhere);
        self.restore(ix, from);
        Ok(())
    }

    /// What is recorded of rows found elsewhere, and of those below them, is recorded with the documents they belong to.
    async fn know_owners(&mut self, ix: RelationIx, elsewhere: &[StoredRow]) -> Result<(), Error> {
        if !self.known.is_possible() || elsewhere.is_empty() {
            return Ok(());
        }
        let references: Vec<Tuple> = elsewhere.iter().map(|row| row.reference.clone()).collect();
        let owners = owners(self.transaction, self.mapping, self.schema, ix, &references).await?;
        let mut keys: Vec<&DocumentKey> = owners.values().map(|owner| &owner.key).collect();
        keys.sort_unstable();
        keys.dedup();
        self.known.read(self.transaction, self.mapping, self.schema, &keys).await
    }

    fn diff(&self, ix: RelationIx, stored_trees: &[TreeFingerprint]) -> ChangeSet {
        let (relation, table, side) = (&self.mapping.relations[ix], &self.schema.tables[ix], &self.sides[ix]);
        let identities = Identities { relation, table, places: relation.position_columns() };
        let stored_key = |row: &StoredRow| identities.of(row.document, &row.tuple, row.fingerprint);
        let source_key = |row: &SourceRow| identities.of(Some(row.document), &row.tuple, row.fingerprint);
        let stored_keys: Vec<Vec<u8>> = side.stored.iter().map(stored_key).collect();
        let source_keys: Vec<Vec<u8>> = side.source.iter().map(source_key).collect();
        let slots = self.slots(relation);
        let stored = side.stored.iter().zip(&stored_keys).enumerate().map(|(index, (row, key))| Entry {
            slot: slots
                .as_ref()
                .map_or(0, |slots| row.parent.map_or(u32::MAX, |parent| slots[parent as usize])),
            key,
            fingerprint: row.fingerprint,
            tree: stored_trees.get(index).copied().unwrap_or(TreeFingerprint(row.fingerprint.0)),
            index: index as u32,
        });
        let source = side.source.iter().zip(&source_keys).enumerate().map(|(index, (row, key))| Entry {
            slot: if slots.is_some() { row.parent } else { 0 },
            key,
            fingerprint: row.fingerprint,
            tree: row.tree,
            index: index as u32,
        });
        let mut changes = diff(stored.collect(), source.collect(), identity(relation));
        if relation.pair {
            let (removed, added) = self.leftovers(ix, &changes, &slots.unwrap_or_default());
            pair(&mut changes, &removed, &added);
        }
        changes
    }

    /// What is left of a relation without a key: stored rows in the order of their ids, source rows in that of
    /// their lists.
    fn leftovers(
        &self,
        ix: RelationIx,
        changes: &ChangeSet,
        slots: &[u32],
    ) -> (Vec<Leftover>, Vec<Leftover>) {
        let (table, side) = (&self.schema.tables[ix], &self.sides[ix]);
        let types: Vec<&ColumnType> = table.columns.iter().collect();
        let cells = |tuple: &Tuple| {
            let compared = comparison_tuple(&types, tuple);
            compared.cells().map(|cell| cell.bytes().map(<[u8]>::to_vec)).collect()
        };
        let mut removed = changes.removed.clone();
        removed.sort_by_cached_key(|&row| place_in_order(table, &side.stored[row as usize]));
        let stored = |index: u32| {
            let row = &side.stored[index as usize];
            let slot = row.parent.map_or(u32::MAX, |parent| slots[parent as usize]);
            Leftover { slot, index, cells: cells(&row.tuple) }
        };
        let source = |&index: &u32| {
            let row = &side.source[index as usize];
            Leftover { slot: row.parent, index, cells: cells(&row.tuple) }
        };
        let mut added = changes.added.clone();
        added.sort_unstable();
        (removed.into_iter().map(stored).collect(), added.iter().map(source).collect())
    }

    /// For each stored row of the enclosing relation, the slot of what is below it: the source row it was
    /// matched with, or a number beyond those. `None` for the root.
    fn slots(&self, relation: &Relation) -> Option<Vec<u32>> {
        let outer = &self.sides[relation.enclosing?];
        let beyond = outer.source.len() as u32;
        let mut slots: Vec<u32> = (0..outer.stored.len() as u32).map(|row| beyond + row).collect();
        for (stored, source) in outer.changes.matched() {
            slots[stored as usize] = source;
        }
        Some(slots)
    }
}

/// What tells the rows of a relation apart.
struct Identities<'a> {
    relation: &'a Relation,
    table: &'a Table,
    /// The columns that hold the place in the list.
    places: Vec<usize>,
}

impl Identities<'_> {
    /// Of a root row its document, which is known already. Else the key in comparison form, or a fingerprint of the
    /// content, in which the place does not count.
    fn of(&self, document: Option<u32>, tuple: &Tuple, fingerprint: RowFingerprint) -> Vec<u8> {
        if self.relation.kind == RelationKind::Root {
            return document.unwrap_or(u32::MAX).to_be_bytes().to_vec();
        }
        if self.relation.is_keyed() {
            return comparison_key(self.table, tuple).into_bytes();
        }
        if self.places.is_empty() {
            return fingerprint.0.to_vec();
        }
        let content = self.places.iter().fold(tuple.clone(), |tuple, &at| tuple.with(at, Cell::Null));
        fingerprint::row(self.table, &content).0.to_vec()
    }
}

/// Sorts stored rows by their id, or by what else finds them. Integers have a sign.
fn place_in_order(table: &Table, row: &StoredRow) -> Vec<u8> {
    let (mut bytes, kind) = match (&row.id, &table.id) {
        (Some(id), Some(column)) => (id.clone(), &column.column.ty.kind),
        _ => (own_place(table, row).into_bytes(), &Kind::Server),
    };
    if let (Kind::Int2 | Kind::Int4 | Kind::Int8, Some(first)) = (kind, bytes.first_mut()) {
        *first ^= 0x80;
    }
    bytes
}

fn identity(relation: &Relation) -> Identity {
    match (relation.is_keyed(), relation.unique_in) {
        (false, _) => Identity::Content,
        (true, UniqueIn::Parent) => Identity::KeyInParent,
        (true, UniqueIn::All) => Identity::KeyEverywhere,
    }
}

/// The cells of a key in comparison form.
pub(crate) fn compared_cells(table: &Table, key: &Tuple) -> Tuple {
    comparison_tuple(&table.key_types(), key)
}
