//! What would be otherwise by now, had a plan been written as it went.
//!
//! A plan compares documents as a sync does, but the database stays as it was. What later documents must not find as it
//! still is, is remembered here: rows that another document took, and catalogue rows that would be there.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::document::DocumentKey;
use crate::engine::held::own_place;
use crate::engine::registry::Shorts;
use crate::mapping::{LookupIx, Mapping, RelationIx};
use crate::plan::{Sides, StoredRow};
use crate::postgres::changes::Change;
use crate::row::Tuple;
use crate::schema::{LookupTable, Schema, Table};
use crate::value::Kind;

/// Of which documents what is recorded is not believed: a sync would have found that out, and noted it, at its start.
#[derive(Debug)]
pub(crate) enum Doubt {
    /// Of those whose root row is gone.
    Of(Shorts),
    /// Of all: a table was emptied.
    All,
}

/// What a plan must remember.
pub(crate) struct Foresight {
    doubt: Doubt,
    moved: Mutex<HashSet<(RelationIx, Tuple)>>,
    newcomers: Mutex<Newcomers>,
}

/// Catalogue rows that would be there.
#[derive(Default)]
struct Newcomers {
    /// By catalogue and key, what stands for the id.
    ids: HashMap<(LookupIx, Tuple), Vec<u8>>,
    /// By catalogue and what stands for the id, what the row is called.
    labels: HashMap<(LookupIx, Vec<u8>), String>,
}

impl Foresight {
    pub fn new(doubt: Doubt) -> Self {
        Foresight { doubt, moved: Mutex::default(), newcomers: Mutex::default() }
    }

    /// Whether what is recorded of a document is not believed.
    pub fn doubts(&self, key: &DocumentKey) -> bool {
        match &self.doubt {
            Doubt::Of(lost) => lost.contains(&key.short()),
            Doubt::All => true,
        }
    }

    /// Notes the rows that move.
    pub fn note_moves(&self, schema: &Schema, sides: &[Sides]) {
        for (ix, side) in sides.iter().enumerate() {
            let moved = side.changes.moved.iter().map(|pair| &side.stored[pair.0 as usize]);
            lock(&self.moved).extend(moved.map(|row| (ix, own_place(&schema.tables[ix], row))));
        }
    }

    /// Whether a row has moved away from where it is stored.
    pub fn has_moved(&self, ix: RelationIx, table: &Table, row: &StoredRow) -> bool {
        let moved = lock(&self.moved);
        !moved.is_empty() && moved.contains(&(ix, own_place(table, row)))
    }

    /// Rows that moved do not go, and nothing below them does.
    pub fn leave_moved(&self, mapping: &Mapping, schema: &Schema, sides: &mut [Sides]) {
        let mut left: Vec<HashSet<u32>> = vec![HashSet::new(); sides.len()];
        for ix in 1..sides.len() {
            let (outer, table) = (mapping.relations[ix].enclosing.unwrap_or(0), &schema.tables[ix]);
            let Sides { stored, changes, .. } = &mut sides[ix];
            let stays = |row: u32| {
                let stored = &stored[row as usize];
                let is_below = stored.parent.is_some_and(|parent| left[outer].contains(&parent));
                is_below || self.has_moved(ix, table, stored)
            };
            let (stay, go): (Vec<u32>, Vec<u32>) =
                std::mem::take(&mut changes.removed).into_iter().partition(|&row| stays(row));
            changes.removed = go;
            left[ix] = stay.into_iter().collect();
        }
    }

    /// Stored rows without those that moved, and without what is below these.
    pub fn without_moved(
        &self,
        mapping: &Mapping,
        schema: &Schema,
        stored: Vec<Vec<StoredRow>>,
    ) -> Vec<Vec<StoredRow>> {
        let mut places: Vec<HashMap<u32, u32>> = Vec::new();
        let mut all = Vec::new();
        for (ix, rows) in stored.into_iter().enumerate() {
            let outer = mapping.relations[ix].enclosing;
            let (mut kept, mut at) = (Vec::new(), HashMap::new());
            for (old, mut row) in (0u32..).zip(rows) {
                if let (Some(outer), Some(parent)) = (outer, row.parent) {
                    row.parent = places[outer].get(&parent).copied();
                }
                let is_there = outer.is_none() || row.parent.is_some();
                if is_there && !self.has_moved(ix, &schema.tables[ix], &row) {
                    at.insert(old, kept.len() as u32);
                    kept.push(row);
                }
            }
            places.push(at);
            all.push(kept);
        }
        all
    }

    /// What stands for the id of a catalogue row that would be there by now.
    pub fn stand_in(&self, ix: LookupIx, key: &Tuple) -> Option<Vec<u8>> {
        lock(&self.newcomers).ids.get(&(ix, key.clone())).cloned()
    }

    /// Adds a catalogue row. Gives what stands for its id; `None`: nothing can.
    pub fn add(
        &self,
        ix: LookupIx,
        table: &LookupTable,
        key: Tuple,
        change: Option<&Change>,
    ) -> Option<Vec<u8>> {
        let Newcomers { ids, labels } = &mut *lock(&self.newcomers);
        let id = stand_in(table.id.ty.kind.base(), ids.len() as u64)?;
        labels.insert((ix, id.clone()), change.map(Change::label).unwrap_or_default());
        ids.insert((ix, key), id.clone());
        Some(id)
    }

    /// What a catalogue row is called of which this stands for the id.
    pub fn label(&self, ix: LookupIx, id: &[u8]) -> Option<String> {
        let newcomers = lock(&self.newcomers);
        if newcomers.labels.is_empty() { None } else { newcomers.labels.get(&(ix, id.to_vec())).cloned() }
    }
}

/// A value that no row has as its id, or so one hopes: the lowest numbers there are.
fn stand_in(kind: &Kind, nth: u64) -> Option<Vec<u8>> {
    match kind {
        Kind::Int2 => Some(i16::MIN.checked_add(i16::try_from(nth).ok()?)?.to_be_bytes().to_vec()),
        Kind::Int4 => Some(i32::MIN.checked_add(i32::try_from(nth).ok()?)?.to_be_bytes().to_vec()),
        Kind::Int8 => Some(i64::MIN.checked_add(i64::try_from(nth).ok()?)?.to_be_bytes().to_vec()),
        Kind::Uuid => Some((u128::MAX - u128::from(nth)).to_be_bytes().to_vec()),
        Kind::Text | Kind::Varchar(_) => Some(format!("\u{10FFFF}{nth}").into_bytes()),
        _ => None,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
