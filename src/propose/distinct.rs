//! Whether values repeat, in bounded memory.
//!
//! Of a value its hash is remembered. When there are too many, only hashes that end in
//! one more zero bit are looked at from then on: of half the values it is still known
//! for certain whether they repeat, and a value that repeats often is among them.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use crate::json::Json;

/// Hashes of all places together before half of them are forgotten: some 64 MiB.
const HASHES_MAX: usize = 4 << 20;
/// Longer strings are no keys: an index entry has room for some 2,700 bytes.
pub(super) const KEY_BYTES_MAX: usize = 200;
/// After so many repeats a field is no key, whatever else comes.
const REPEATS_MAX: u64 = 10_000;
/// More different items than these, of one list and of all, are no catalogue that is small.
const CONTENTS_MAX: usize = 4_096;
const ALL_CONTENTS_MAX: u64 = 1 << 20;

/// What all places share while documents are read.
#[derive(Clone, Debug)]
pub(super) struct Tally {
    /// Places that are told apart.
    pub nodes: usize,
    /// Hashes remembered, and how many may be.
    pub hashes: usize,
    pub hashes_max: usize,
    /// Items of lists remembered.
    pub contents: u64,
    /// How many zero bits a hash must end in to be looked at.
    pub bits: u32,
    /// In how many lists the value is that is being read.
    pub depth: usize,
}

impl Default for Tally {
    fn default() -> Self {
        Tally { nodes: 0, hashes: 0, hashes_max: HASHES_MAX, contents: 0, bits: 0, depth: 0 }
    }
}

impl Tally {
    /// Counts so many more items of a list; false if they are too many.
    pub fn has_room(&mut self, items: u64) -> bool {
        self.contents += items;
        self.contents <= ALL_CONTENTS_MAX
    }
}

/// Which scalars were seen at one place.
#[derive(Clone, Debug, Default)]
pub(super) struct Distinct {
    seen: HashSet<u64>,
    /// Values that were seen before.
    pub repeated: u64,
    /// Lists in which a value stands twice.
    pub lists_with_repeats: u64,
    /// Whether it was given up: too long for a key, or repeated too often.
    pub is_hopeless: bool,
    /// Of the list that is being read.
    siblings: Vec<u64>,
}

impl Distinct {
    pub fn see(&mut self, json: &Json<'_>, tally: &mut Tally) {
        if self.is_hopeless {
            return;
        }
        if matches!(json, Json::String(text) if text.len() > KEY_BYTES_MAX) || self.repeated > REPEATS_MAX {
            tally.hashes -= self.seen.len();
            *self = Distinct { is_hopeless: true, repeated: self.repeated, ..Distinct::default() };
            return;
        }
        let hash = scalar(json);
        // Siblings are few: they are compared whatever the tally looks at.
        if tally.depth > 0 {
            self.siblings.push(hash);
        }
        if hash.trailing_zeros() >= tally.bits {
            match self.seen.insert(hash) {
                true => tally.hashes += 1,
                false => self.repeated += 1,
            }
        }
    }

    pub fn close_list(&mut self) {
        self.siblings.sort_unstable();
        let repeats = self.siblings.windows(2).any(|pair| pair[0] == pair[1]);
        self.lists_with_repeats += u64::from(repeats);
        self.siblings.clear();
    }

    pub fn prune(&mut self, tally: &Tally) -> usize {
        self.seen.retain(|hash| hash.trailing_zeros() >= tally.bits);
        self.seen.len()
    }

    pub fn absorb(&mut self, other: Distinct) {
        self.is_hopeless |= other.is_hopeless;
        self.repeated += other.repeated;
        self.lists_with_repeats += other.lists_with_repeats;
        self.repeated += other.seen.into_iter().filter(|hash| !self.seen.insert(*hash)).count() as u64;
    }
}

/// Whole items of lists: how many different ones there are.
#[derive(Clone, Debug, Default)]
pub(super) struct Contents {
    /// By hash, whether it was seen more than once.
    seen: HashMap<u64, bool>,
    pub total: u64,
    /// Lists that hold two equal items.
    pub lists_with_repeats: u64,
}

impl Contents {
    /// Takes the items of one list into account; `None` when there are too many different ones.
    pub fn with(mut self, mut items: Vec<u64>) -> Option<Self> {
        self.total += items.len() as u64;
        for item in &items {
            self.seen.entry(*item).and_modify(|again| *again = true).or_insert(false);
        }
        items.sort_unstable();
        self.lists_with_repeats += u64::from(items.windows(2).any(|pair| pair[0] == pair[1]));
        (self.seen.len() <= CONTENTS_MAX).then_some(self)
    }

    pub fn different(&self) -> u64 {
        self.seen.len() as u64
    }

    /// How many were seen only once.
    pub fn once(&self) -> u64 {
        self.seen.values().filter(|again| !**again).count() as u64
    }
}

/// The hash of a scalar. A number is the string of its digits, as in a column of text.
fn scalar(json: &Json<'_>) -> u64 {
    let mut hasher = DefaultHasher::new();
    match json {
        Json::Bool(value) => value.hash(&mut hasher),
        Json::Number("-0") => "0".hash(&mut hasher),
        Json::Number(text) => text.hash(&mut hasher),
        // A uuid is the same in capitals.
        Json::String(text) if text.len() == 36 => text.to_ascii_lowercase().hash(&mut hasher),
        Json::String(text) => text.hash(&mut hasher),
        Json::Null | Json::Array(_) | Json::Object(_) => {}
    }
    hasher.finish()
}

/// The hash of an item without lists in it; `None` for others.
pub(super) fn digest(json: &Json<'_>) -> Option<u64> {
    match json {
        Json::Array(_) => None,
        json => whole(json, false),
    }
}

/// The hash of a document: the same for another order of members or items.
pub(super) fn document(json: &Json<'_>) -> u64 {
    whole(json, true).unwrap_or_default()
}

fn whole(json: &Json<'_>, with_lists: bool) -> Option<u64> {
    let mut hasher = DefaultHasher::new();
    match json {
        Json::Null => 0_u8.hash(&mut hasher),
        Json::Array(_) if !with_lists => return None,
        Json::Array(items) => {
            let hashes = items.iter().map(|item| whole(item, with_lists));
            (1_u8, sum(hashes)?, items.len()).hash(&mut hasher);
        }
        Json::Object(members) => {
            let hashes = members.iter().map(|(name, value)| {
                let mut hasher = DefaultHasher::new();
                (name.as_ref(), whole(value, with_lists)?).hash(&mut hasher);
                Some(hasher.finish())
            });
            (2_u8, sum(hashes)?).hash(&mut hasher);
        }
        Json::Bool(_) | Json::Number(_) => (3_u8, scalar(json)).hash(&mut hasher),
        Json::String(text) => (4_u8, text).hash(&mut hasher),
    }
    Some(hasher.finish())
}

/// A sum does not depend on the order.
fn sum(mut hashes: impl Iterator<Item = Option<u64>>) -> Option<u64> {
    hashes.try_fold(0_u64, |sum, hash| Some(sum.wrapping_add(hash?)))
}
