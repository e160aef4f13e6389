//! What a run remembers of the documents of its feed, in some 40 bytes each.
//!
//! *Known* documents are those that the database has as done, by the hash of
//! their bytes: such a document is skipped without being parsed. *Handed out* are
//! those that had to be looked at. Together they tell a document that stands
//! twice in a feed, and whether one that a child would be taken from is in the
//! feed too.

use std::collections::HashMap;
use std::sync::Arc;

use crate::document::{DocumentKey, Origin};
use crate::fingerprint::{DocumentFingerprint, RawFingerprint};
use crate::mapping::RelationIx;
use crate::row::Tuple;

/// An [`Origin`] in eight bytes; 0: none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Place(u64);

const FILE_SHIFT: u32 = 44;

/// How a document of the feed was counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Not decided yet.
    Open,
    Unchanged,
    New,
    Changed,
    Failed,
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
    /// Yes: the document is not in the feed (so far).
    Free,
    /// Yes: the document has given it up, and is recorded without it.
    GivenUp,
    /// It is in the feed and not decided yet.
    Wait,
    /// It is in the feed, there, and has the child.
    Taken(Origin),
}

#[derive(Debug, Default)]
pub(crate) struct Registry {
    known: HashMap<RawFingerprint, Known>,
    handed: HashMap<u64, Handed>,
    files: Vec<Option<Arc<str>>>,
    /// Children that a document no longer has, of relations whose key is unique in the table; and that document.
    /// Whoever takes the child has it then: from there it is not given up.
    released: HashMap<(RelationIx, Tuple), u64>,
}

impl Registry {
    pub fn remember(&mut self, raw: RawFingerprint, key: &DocumentKey) {
        self.known.insert(raw, Known { key: key.short(), seen: Place::default() });
    }

    /// Looks at the bytes of a document only.
    pub fn glance(&mut self, raw: RawFingerprint, origin: &Origin) -> Glance {
        let place = self.place(origin);
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

    /// Takes note of a document that was looked at.
    pub fn hand_out(&mut self, key: &DocumentKey, fingerprint: DocumentFingerprint, origin: &Origin) -> Turn {
        let place = self.place(origin);
        let [first, _] = fingerprint.0.as_chunks::<8>().0 else { return Turn::First };
        let fingerprint = u64::from_le_bytes(*first);
        let handed = Handed { place, fingerprint, outcome: Outcome::Open };
        let before = *self.handed.entry(key.short()).or_insert(handed);
        match () {
            () if before.place == place => Turn::First,
            () if before.fingerprint == fingerprint => Turn::Repeated,
            () => Turn::Differs(self.origin(before.place)),
        }
    }

    /// Where a document stood that was skipped by its bytes, if it was.
    pub fn skipped_at(&self, raw: RawFingerprint) -> Option<Origin> {
        let known = self.known.get(&raw).filter(|known| known.seen != Place::default())?;
        Some(self.origin(known.seen))
    }

    /// Notes how a document was counted.
    pub fn decide(&mut self, key: &DocumentKey, outcome: Outcome) {
        if let Some(handed) = self.handed.get_mut(&key.short()) {
            handed.outcome = outcome;
        }
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

    /// Notes that a document no longer has a child.
    pub fn release(&mut self, relation: RelationIx, key: Tuple, owner: &DocumentKey) {
        self.released.insert((relation, key), owner.short());
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
        if self.released.get(child) == Some(&owner.short()) {
            return Claim::GivenUp;
        }
        if let Some(handed) = self.handed.get(&owner.short()) {
            return if last { Claim::Taken(self.origin(handed.place)) } else { Claim::Wait };
        }
        let Some(raw) = raw else { return Claim::Free };
        match self.known.get(&raw) {
            Some(known) if known.seen != Place::default() => Claim::Taken(self.origin(known.seen)),
            _ => {
                self.known.remove(&raw);
                Claim::Free
            }
        }
    }

    fn place(&mut self, origin: &Origin) -> Place {
        // A feed has few files, and they come one after the other.
        let known = self.files.iter().rposition(|file| *file == origin.file);
        let file = known.unwrap_or_else(|| {
            self.files.push(origin.file.clone());
            self.files.len() - 1
        });
        Place(((file as u64) << FILE_SHIFT) | origin.line)
    }

    fn origin(&self, place: Place) -> Origin {
        let file = self.files.get((place.0 >> FILE_SHIFT) as usize).cloned().flatten();
        Origin { file, line: place.0 & ((1 << FILE_SHIFT) - 1) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(line: u64) -> Origin {
        Origin { file: Some("feed".into()), line }
    }

    #[test]
    fn p14_a_document_that_stands_twice_is_told_by_bytes_and_by_key() {
        let mut registry = Registry::default();
        let (raw, key) = (RawFingerprint([1; 16]), DocumentKey(vec![7]));
        registry.remember(raw, &key);
        assert_eq!(registry.glance(raw, &origin(1)), Glance::Unchanged);
        assert_eq!(registry.glance(raw, &origin(2)), Glance::Repeated);
        assert_eq!(registry.glance(RawFingerprint([2; 16]), &origin(3)), Glance::Look);
        assert_eq!(registry.skipped_at(raw), Some(origin(1)));
        let other = DocumentKey(vec![8]);
        assert_eq!(registry.hand_out(&other, DocumentFingerprint([1; 16]), &origin(4)), Turn::First);
        assert_eq!(registry.hand_out(&other, DocumentFingerprint([1; 16]), &origin(5)), Turn::Repeated);
        assert_eq!(
            registry.hand_out(&other, DocumentFingerprint([2; 16]), &origin(6)),
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
        assert_eq!(registry.glance(raw, &origin(1)), Glance::Look, "the robbed document is looked at");
        registry.hand_out(&owner, DocumentFingerprint::default(), &origin(1));
        assert_eq!(registry.claim(&child, &owner, Some(raw), false), Claim::Wait);
        assert_eq!(registry.claim(&child, &owner, Some(raw), true), Claim::Taken(origin(1)));
        registry.release(child.0, child.1.clone(), &owner);
        assert_eq!(registry.claim(&child, &owner, Some(raw), true), Claim::GivenUp);
        let taker = DocumentKey(vec![8]);
        registry.hand_out(&taker, DocumentFingerprint::default(), &origin(2));
        assert_eq!(
            registry.claim(&child, &taker, None, true),
            Claim::Taken(origin(2)),
            "the taker has it now"
        );
    }

    #[test]
    fn p37_a_document_is_remembered_in_few_bytes() {
        assert_eq!(size_of::<(RawFingerprint, Known)>(), 32);
        assert_eq!(size_of::<(u64, Handed)>(), 32);
    }
}
