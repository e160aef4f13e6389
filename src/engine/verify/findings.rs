//! What the workers of a run found to differ.
//!
//! Batches are compared one by one, and a row that hangs under the wrong parent is seen from both: as surplus where it
//! hangs, as moved where it belongs. So surplus rows that may be such are decided on when all batches are in.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};

use crate::engine::verify::differences::Noted;
use crate::engine::verify::report::{Difference, Kind, LISTED_MAX, Verification};
use crate::mapping::{Mapping, RelationIx, UniqueIn};

/// What differs, as far as it was found.
pub(crate) struct Findings {
    values: bool,
    found: Mutex<Found>,
}

struct Found {
    verification: Verification,
    /// Documents of which something differs.
    documents: HashSet<u64>,
    /// Rows that hang under another parent, by their keys.
    moved: HashSet<(RelationIx, u64)>,
    /// Catalogue rows that are missing.
    lacking: HashSet<(usize, u64)>,
    undecided: Vec<Undecided>,
    /// Where those stand in the list, by their places in their tables.
    places: HashMap<(RelationIx, u64), usize>,
}

/// A surplus row that may have moved, or hang below one that has.
struct Undecided {
    document: u64,
    relation: RelationIx,
    everywhere: Option<u64>,
    below: Option<usize>,
    words: Option<Difference>,
}

impl Findings {
    pub fn new(verification: Verification, values: bool) -> Self {
        let found = Found {
            verification,
            documents: HashSet::new(),
            moved: HashSet::new(),
            lacking: HashSet::new(),
            undecided: Vec::new(),
            places: HashMap::new(),
        };
        Findings { values, found: Mutex::new(found) }
    }

    /// Whether values are to be told.
    pub fn values(&self) -> bool {
        self.values
    }

    /// How many more differences are put into words.
    pub fn room(&self) -> usize {
        self.with(|found| {
            LISTED_MAX.saturating_sub(found.verification.differences.len() + found.undecided.len())
        })
    }

    /// Notes what differs in a batch.
    pub fn note(&self, mapping: &Mapping, noted: &[Noted]) {
        let moves = mapping.relations.iter().any(|relation| relation.unique_in == UniqueIn::All);
        self.with(|found| {
            // Where in the list of undecided rows those of this batch stand.
            let mut undecided = HashMap::new();
            for (at, one) in noted.iter().enumerate() {
                match one.kind {
                    Kind::Surplus if moves => {
                        let below = one.below.and_then(|below| undecided.get(&below)).copied();
                        undecided.insert(at, found.leave_open(one, below));
                    }
                    _ => found.note(one),
                }
            }
        });
    }

    /// What was found, and in how many documents.
    pub fn take(&self) -> (Verification, u64) {
        self.with(|found| {
            found.decide();
            (std::mem::take(&mut found.verification), found.documents.len() as u64)
        })
    }

    fn with<T>(&self, look: impl FnOnce(&mut Found) -> T) -> T {
        look(&mut self.found.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Found {
    fn note(&mut self, one: &Noted) {
        self.documents.insert(one.document);
        let key = one.everywhere.map(|key| (one.relation, key));
        match one.kind {
            Kind::Moved => self.moved.extend(key),
            // A catalogue row that several documents refer to is missing once.
            Kind::Missing if key.is_some_and(|key| !self.lacking.insert(key)) => return,
            _ => {}
        }
        self.verification.add(one.relation, one.kind, one.words.clone());
    }

    /// Gives where it stands. A document may be looked at twice.
    fn leave_open(&mut self, one: &Noted, below: Option<usize>) -> usize {
        let next = self.undecided.len();
        let place = one.place.map(|place| (one.relation, place));
        let at = place.map_or(next, |place| *self.places.entry(place).or_insert(next));
        if at == next {
            self.undecided.push(Undecided {
                document: one.document,
                relation: one.relation,
                everywhere: one.everywhere,
                below,
                words: one.words.clone(),
            });
        }
        at
    }

    /// What has moved, and what hangs below it, is no surplus.
    fn decide(&mut self) {
        let mut elsewhere = vec![false; self.undecided.len()];
        for (at, one) in std::mem::take(&mut self.undecided).into_iter().enumerate() {
            let has_moved = one.everywhere.is_some_and(|key| self.moved.contains(&(one.relation, key)));
            elsewhere[at] = has_moved || one.below.is_some_and(|below| elsewhere[below]);
            if !elsewhere[at] {
                self.documents.insert(one.document);
                self.verification.add(one.relation, Kind::Surplus, one.words);
            }
        }
    }
}
