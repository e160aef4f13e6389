//! What a run remembers of the documents of its feed, in some 40 bytes each.
//!
//! *Known* documents are those that the database has as done, by the hash of
//! their bytes: such a document is skipped without being parsed. *Handed out* are
//! those that had to be looked at. Together they tell a document that stands
//! twice in a feed, and whether one that a child would be taken from is in the
//! feed too.

mod uniform;

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::document::{DocumentKey, Origin};
use crate::fingerprint::{DocumentFingerprint, RawFingerprint};
use crate::mapping::RelationIx;
use crate::row::Tuple;
use uniform::Uniform;

/// What stands for the keys of documents: [`DocumentKey::short`].
pub(crate) type Shorts = HashSet<u64, Uniform>;

/// Where a document stands, in eight bytes, ordered as the feed is; [`Stretch`] has the rest of its [`Origin`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    /// Place in the feed, over all its files, from 1; 0: none.
    sequence: u32,
    line: u32,
}

/// Documents that follow one another in one file.
#[derive(Debug)]
struct Stretch {
    /// Place in the feed of the first.
    first: u32,
    file: Option<Arc<str>>,
    /// Number in the file of the first; the others count on from it.
    item: Option<u64>,
}

impl Stretch {
    fn item(&self, sequence: u32) -> Option<u64> {
        self.item.map(|item| item + u64::from(sequence - self.first))
    }
}

/// How a document of the feed was counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Not decided yet.
    Open,
    Unchanged,
    New,
    Changed,
    Failed,
    /// Not stored because too much would have been deleted.
    Withheld,
}

impl Outcome {
    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::Open => "open",
            Outcome::Unchanged => "unchanged",
            Outcome::New => "new",
            Outcome::Changed => "changed",
            Outcome::Failed => "failed",
            Outcome::Withheld => "withheld",
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Known {
    key: u64,
    seen: Place,
}

#[derive(Clone, Copy, Debug)]
struct Handed {
    place: Place,
    /// Half of the document's fingerprint: tells an equal repeat from a differing one.
    fingerprint: u64,
    outcome: Outcome,
}

/// What the bytes of a document say about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Glance {
    /// It is done, as it was last time.
    Unchanged,
    /// It stood in this feed already.
    Repeated,
    /// Another version of it stood in this feed, there.
    Differs(Origin),
    /// It must be looked at.
    Look,
}

/// Whether a document is the first of its key in the feed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    First,
    /// Equal rows stood there already.
    Repeated,
    /// Other rows stood there.
    Differs(Origin),
}

/// Whether a child may be taken from the document that has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    /// Yes: the document is not in the feed (so far), and loses the child.
    Free,
    /// Yes: in this feed the document gave the child up.
    Released,
    /// It is in the feed and not decided yet.
    Wait,
    /// It is in the feed, there, and has the child.
    Taken(Origin),
}

#[derive(Debug, Default)]
pub(crate) struct Registry {
    known: HashMap<RawFingerprint, Known, Uniform>,
    handed: HashMap<u64, Handed, Uniform>,
    /// Where documents stand that were handed out, by their alternate key.
    alternates: HashMap<u64, Place>,
    /// In the order of the feed.
    stretches: Vec<Stretch>,
    /// Children that their documents no longer have, of relations whose key is unique in the table.
    released: HashSet<(RelationIx, Tuple)>,
    /// Documents from which a child was taken as they were not in the feed so far: one that is compared at the
    /// same time may not have seen it.
    robbed: HashSet<u64>,
    /// Documents that failed before they were handed out.
    unfit: HashSet<u64>,
    /// How many documents had no key that could be read.
    nameless: u64,
}

impl Registry {
    /// With room for so many documents that are known.
    pub fn with_capacity(documents: usize) -> Self {
        let known = HashMap::with_capacity_and_hasher(documents, Uniform::default());
        Registry { known, ..Registry::default() }
    }

    /// How many documents are known.
    pub fn known(&self) -> usize {
        self.known.len()
    }

    /// Whether a child was taken from a document, so that what is recorded of it counts no more.
    pub fn is_robbed(&self, key: &DocumentKey) -> bool {
        self.robbed.contains(&key.short())
    }

    /// Whether all documents that are known are among these.
    pub fn is_within(&self, shorts: &Shorts) -> bool {
        self.known.values().all(|known| shorts.contains(&known.key))
    }

    /// Forgets the documents that are not among these. Gives what stands for their keys.
    pub fn keep_within(&mut self, shorts: &Shorts) -> Shorts {
        let mut lost = Shorts::default();
        self.known.retain(|_, known| shorts.contains(&known.key) || !lost.insert(known.key));
        lost
    }

    pub fn remember(&mut self, raw: RawFingerprint, key: &DocumentKey) {
        self.known.insert(raw, Known { key: key.short(), seen: Place::default() });
    }

    /// Looks at the bytes of a document only. Documents come in the order of the feed.
    pub fn glance(&mut self, raw: RawFingerprint, sequence: u64, origin: &Origin) -> Glance {
        let place = Place::of(sequence, origin);
        self.note(place, origin);
        let Some(known) = self.known.get_mut(&raw) else { return Glance::Look };
        if known.seen != Place::default() {
            return Glance::Repeated;
        }
        if let Some(handed) = self.handed.get(&known.key) {
            let place = handed.place;
            return Glance::Differs(self.origin(place));
        }
        known.seen = place;
        Glance::Unchanged
    }

    /// Takes note of a document that failed before it could be handed out; `None`: its key could not be read.
    pub fn unfit(&mut self, key: Option<&DocumentKey>) {
        match key {
            Some(key) => drop(self.unfit.insert(key.short())),
            None => self.nameless += 1,
        }
    }

    /// How many documents of the feed had no key that could be read.
    pub fn nameless(&self) -> u64 {
        self.nameless
    }

    /// What stands for the keys of all documents of the feed. Two of different keys may share one.
    pub fn seen(&self) -> Shorts {
        let skipped = self.known.values().filter(|known| known.seen != Place::default());
        let skipped = skipped.map(|known| known.key);
        self.handed.keys().copied().chain(skipped).chain(self.unfit.iter().copied()).collect()
    }

    /// Takes note of a document that was looked at.
    pub fn hand_out(
        &mut self,
        key: &DocumentKey,
        fingerprint: DocumentFingerprint,
        sequence: u64,
        origin: &Origin,
    ) -> Turn {
        let place = Place::of(sequence, origin);
        let fingerprint =
            u64::from_le_bytes(*fingerprint.0.first_chunk().expect("a fingerprint has 16 bytes"));
        let handed = Handed { place, fingerprint, outcome: Outcome::Open };
        let before = match self.handed.entry(key.short()) {
            Entry::Vacant(vacant) => {
                vacant.insert(handed);
                return Turn::First;
            }
            Entry::Occupied(occupied) => *occupied.get(),
        };
        if before.fingerprint == fingerprint {
            return Turn::Repeated;
        }
        Turn::Differs(self.origin(before.place))
    }

    /// Takes note of the alternate key of a document that was handed out: it is that of one document only.
    /// Where another one with it stood before, if one did.
    pub fn hand_out_alternate(&mut self, alternate: u64, sequence: u64, origin: &Origin) -> Option<Origin> {
        match self.alternates.entry(alternate) {
            Entry::Vacant(vacant) => {
                vacant.insert(Place::of(sequence, origin));
                None
            }
            Entry::Occupied(occupied) => {
                let first = *occupied.get();
                Some(self.origin(first))
            }
        }
    }

    /// Where another version of a document stood that was skipped by its bytes, if one was; and whether that is
    /// before the document itself.
    pub fn skipped_at(&self, raw: RawFingerprint, key: &DocumentKey) -> Option<(Origin, bool)> {
        let known = self.known.get(&raw).filter(|known| known.seen != Place::default())?;
        let before = self.handed.get(&key.short()).is_none_or(|handed| known.seen < handed.place);
        Some((self.origin(known.seen), before))
    }

    /// Takes back that a document was skipped: a version before it in the feed counts.
    pub fn forget(&mut self, raw: RawFingerprint) {
        self.known.remove(&raw);
    }

    /// Notes how a document is counted; gives how it had been.
    pub fn decide(&mut self, key: &DocumentKey, outcome: Outcome) -> Outcome {
        let handed = self.handed.get_mut(&key.short());
        handed.map_or(Outcome::Open, |handed| std::mem::replace(&mut handed.outcome, outcome))
    }

    /// Whether a child was taken from a document since it was asked last.
    pub fn take_robbed(&mut self, key: &DocumentKey) -> bool {
        self.robbed.remove(&key.short())
    }

    /// Counts a document as failed after all; gives how it had been counted.
    pub fn fail(&mut self, key: &DocumentKey, raw: Option<RawFingerprint>) -> Outcome {
        if let Some(handed) = self.handed.get_mut(&key.short()) {
            return std::mem::replace(&mut handed.outcome, Outcome::Failed);
        }
        match raw.and_then(|raw| self.known.remove(&raw)) {
            Some(known) => {
                let fingerprint = 0;
                let handed = Handed { place: known.seen, fingerprint, outcome: Outcome::Failed };
                self.handed.insert(key.short(), handed);
                Outcome::Unchanged
            }
            None => Outcome::Failed,
        }
    }

    /// Notes that a child has a document again. Whether it had none.
    pub fn settle(&mut self, relation: RelationIx, key: Tuple) -> bool {
        self.released.remove(&(relation, key))
    }

    /// Notes that a document no longer has a child.
    pub fn release(&mut self, relation: RelationIx, key: Tuple) {
        self.released.insert((relation, key));
    }

    /// Whether a child may be taken from `owner`, which was recorded with the bytes `raw`. If so the owner
    /// will be looked at, should it turn up later in the feed.
    pub fn claim(
        &mut self,
        child: &(RelationIx, Tuple),
        owner: &DocumentKey,
        raw: Option<RawFingerprint>,
        last: bool,
    ) -> Claim {
        if self.released.contains(child) {
            return Claim::Released;
        }
        if let Some(handed) = self.handed.get(&owner.short()) {
            return if last { Claim::Taken(self.origin(handed.place)) } else { Claim::Wait };
        }
        let known = raw.and_then(|raw| self.known.get(&raw));
        if let Some(known) = known.filter(|known| known.seen != Place::default()) {
            return Claim::Taken(self.origin(known.seen));
        }
        raw.map(|raw| self.known.remove(&raw));
        self.robbed.insert(owner.short());
        Claim::Free
    }

    /// Begins a new stretch, unless the document carries on the last one.
    fn note(&mut self, place: Place, origin: &Origin) {
        let goes_on = |last: &Stretch| last.file == origin.file && last.item(place.sequence) == origin.item;
        if !self.stretches.last().is_some_and(goes_on) {
            let (file, item) = (origin.file.clone(), origin.item);
            self.stretches.push(Stretch { first: place.sequence, file, item });
        }
    }

    fn origin(&self, place: Place) -> Origin {
        let after = self.stretches.partition_point(|stretch| stretch.first <= place.sequence);
        let stretch = after.checked_sub(1).map(|at| &self.stretches[at]);
        Origin {
            file: stretch.and_then(|stretch| stretch.file.clone()),
            line: place.line.into(),
            item: stretch.and_then(|stretch| stretch.item(place.sequence)),
        }
    }
}

impl Place {
    /// More documents than 32 bits count would not fit into memory.
    fn of(sequence: u64, origin: &Origin) -> Self {
        let [sequence, line] = [sequence, origin.line].map(|count| u32::try_from(count).unwrap_or(u32::MAX));
        Place { sequence, line }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(line: u64) -> Origin {
        Origin { file: Some("feed".into()), line, item: None }
    }

    #[test]
    fn a_place_is_that_of_the_document_in_any_file() {
        let mut registry = Registry::default();
        let origin = |file: &str, line, item| Origin { file: Some(file.into()), line, item };
        let feed = [
            origin("lines", 1, None),
            origin("lines", 3, None),
            origin("array", 1, Some(1)),
            origin("array", 1, Some(2)),
            // One between them was too long.
            origin("array", 7, Some(4)),
            origin("lines", 1, None),
        ];
        let sequences = [1, 2, 3, 4, 6, 7];
        for (sequence, origin) in sequences.iter().zip(&feed) {
            registry.glance(RawFingerprint::default(), *sequence, origin);
        }
        for (sequence, origin) in sequences.iter().zip(&feed) {
            assert_eq!(registry.origin(Place::of(*sequence, origin)), *origin);
        }
        assert_eq!(registry.stretches.len(), 3);
    }

    #[test]
    fn p14_a_document_that_stands_twice_is_told_by_bytes_and_by_key() {
        let mut registry = Registry::default();
        let (raw, key) = (RawFingerprint([1; 16]), DocumentKey(vec![7]));
        registry.remember(raw, &key);
        assert_eq!(registry.glance(raw, 1, &origin(1)), Glance::Unchanged);
        assert_eq!(registry.glance(raw, 2, &origin(2)), Glance::Repeated);
        assert_eq!(registry.glance(RawFingerprint([2; 16]), 3, &origin(3)), Glance::Look);
        assert_eq!(registry.skipped_at(raw, &key), Some((origin(1), true)));
        let other = DocumentKey(vec![8]);
        assert_eq!(registry.hand_out(&other, DocumentFingerprint([1; 16]), 4, &origin(4)), Turn::First);
        assert_eq!(registry.hand_out(&other, DocumentFingerprint([1; 16]), 5, &origin(5)), Turn::Repeated);
        assert_eq!(
            registry.hand_out(&other, DocumentFingerprint([2; 16]), 6, &origin(6)),
            Turn::Differs(origin(4))
        );
    }

    #[test]
    fn p17_a_child_may_be_taken_unless_its_document_is_in_the_feed() {
        let mut registry = Registry::default();
        let child = (1, Tuple::default());
        let (raw, owner) = (RawFingerprint([1; 16]), DocumentKey(vec![7]));
        registry.remember(raw, &owner);
        assert_eq!(registry.claim(&child, &owner, Some(raw), false), Claim::Free);
        assert_eq!(registry.glance(raw, 1, &origin(1)), Glance::Look, "the robbed document is looked at");
        assert!(registry.take_robbed(&owner) && !registry.take_robbed(&owner));
        registry.hand_out(&owner, DocumentFingerprint::default(), 1, &origin(1));
        assert_eq!(registry.claim(&child, &owner, Some(raw), false), Claim::Wait);
        assert_eq!(registry.claim(&child, &owner, Some(raw), true), Claim::Taken(origin(1)));
        registry.release(child.0, child.1.clone());
        assert_eq!(registry.claim(&child, &owner, Some(raw), true), Claim::Released);
        registry.settle(child.0, child.1.clone());
        assert_ne!(
            registry.claim(&child, &owner, Some(raw), true),
            Claim::Released,
            "it has a document again"
        );
    }

    #[test]
    fn p37_a_document_is_remembered_in_few_bytes() {
        assert_eq!(size_of::<(RawFingerprint, Known)>(), 32);
        assert_eq!(size_of::<(u64, Handed)>(), 32);
    }
}
