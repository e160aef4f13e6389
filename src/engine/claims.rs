//! Children that move: who may take them from whom.
//!
//! A child whose key is unique in the table may turn up under another document.
//! Taking it is right if the document that has it gave it up, or is not in the
//! feed. If both are in the feed and both have it, both fail. Which of these it
//! is can be unknown yet: then the taker waits for the end of the feed.

use std::collections::{BTreeMap, HashMap};

use tokio_postgres::Transaction;

use crate::document::{DocumentKey, Origin};
use crate::engine::prepare::Prepared;
use crate::engine::registry::Claim;
use crate::engine::report::Failure;
use crate::engine::run::Run;
use crate::error::Error;
use crate::fingerprint::{RawFingerprint, comparison_key};
use crate::mapping::RelationIx;
use crate::plan::Sides;
use crate::postgres::owners::{Owner, owners};
use crate::postgres::state;
use crate::row::Tuple;

/// A document that cannot be applied as things stand.
pub(crate) struct Conflict {
    /// Index in the batch.
    pub document: usize,
    pub verdict: Verdict,
}

/// What becomes of it.
pub(crate) enum Verdict {
    Fail(Failure),
    /// Tried again at the end of the feed; the failure says why, should that be impossible.
    Wait(Failure),
    /// Equal to one that was skipped.
    Repeated,
}

/// A child that a document of the batch would take from elsewhere.
struct Taken {
    relation: RelationIx,
    /// The child's key in comparison form.
    child: Tuple,
    /// Index of the taker in the batch.
    taker: u32,
    /// What the child refers to now.
    reference: Tuple,
}

/// Finds conflicts over children, and the documents outside the batch that lose one.
pub(crate) async fn claims(
    run: &Run,
    transaction: &Transaction<'_>,
    documents: &[&Prepared],
    sides: &[Sides],
    last: bool,
) -> Result<(Vec<Conflict>, Vec<DocumentKey>), Error> {
    let mut conflicts = within_batch(run, documents, sides);
    let mut robbed = Vec::new();
    let mut per_relation: BTreeMap<RelationIx, Vec<Taken>> = BTreeMap::new();
    for taken in from_elsewhere(run, sides) {
        per_relation.entry(taken.relation).or_default().push(taken);
    }
    for (ix, taken) in per_relation {
        let references: Vec<Tuple> = taken.iter().map(|taken| taken.reference.clone()).collect();
        let owners = owners(transaction, &run.mapping, &run.schema, ix, &references).await?;
        let keys: Vec<&DocumentKey> = owners.values().map(|owner| &owner.key).collect();
        let states = state::states(transaction, run.lease.mapping, &run.schema, &keys).await?;
        let raws: HashMap<DocumentKey, _> = states.into_iter().map(|(key, state)| (key, state.raw)).collect();
        for taken in taken {
            let Some(owner) = owners.get(&taken.reference) else { continue };
            let raw = raws.get(&owner.key).copied().flatten();
            let claim = run.registry().claim(&(ix, taken.child.clone()), &owner.key, raw, last);
            let document = documents[taken.taker as usize];
            let failure = |other: &str| claimed(run, ix, document, &document.origin, other);
            match claim {
                Claim::Released => {}
                Claim::Free => robbed.push(owner.key.clone()),
                Claim::Wait => conflicts.push(Conflict {
                    document: taken.taker as usize,
                    verdict: Verdict::Wait(failure(&owner.label)),
                }),
                Claim::Taken(origin) => {
                    let other = format!("{} ({origin})", owner.label);
                    conflicts.push(Conflict {
                        document: taken.taker as usize,
                        verdict: Verdict::Fail(failure(&other)),
                    });
                    fail_owner(run, ix, owner, raw, &origin, document);
                }
            }
        }
    }
    robbed.sort_unstable();
    robbed.dedup();
    Ok((conflicts, robbed))
}

/// The document that has the child and is in the feed fails too, and is to be done again.
fn fail_owner(
    run: &Run,
    ix: RelationIx,
    owner: &Owner,
    raw: Option<RawFingerprint>,
    origin: &Origin,
    taker: &Prepared,
) {
    let message = claim_message(run, ix, &format!("{} ({})", taker.label, taker.origin));
    let failure = Failure {
        relation: Some(run.mapping.relations[ix].name.clone()),
        ..Failure::of_document(origin, Some(owner.label.clone()), message)
    };
    run.fail_after_all(&owner.key, raw, failure);
    run.distrust(owner.key.clone());
}

fn claimed(run: &Run, ix: RelationIx, document: &Prepared, origin: &Origin, other: &str) -> Failure {
    Failure {
        relation: Some(run.mapping.relations[ix].name.clone()),
        ..Failure::of_document(origin, Some(document.label.clone()), claim_message(run, ix, other))
    }
}

fn claim_message(run: &Run, ix: RelationIx, other: &str) -> String {
    let relation = &run.mapping.relations[ix];
    format!(
        "a row of {}, whose key is unique in the table, is claimed by {other} too: take it out of one of the two, or \
         say unique_in = \"parent\"",
        relation.table
    )
}

/// Two documents of one batch that ask for the same child.
fn within_batch(run: &Run, documents: &[&Prepared], sides: &[Sides]) -> Vec<Conflict> {
    let mut conflicts = Vec::new();
    for (ix, side) in sides.iter().enumerate() {
        for &(first, second) in &side.changes.claimed {
            let [a, b] = [first, second].map(|row| side.source[row as usize].document as usize);
            for (one, other) in [(a, b), (b, a)] {
                let other = format!("{} ({})", documents[other].label, documents[other].origin);
                let failure = claimed(run, ix, documents[one], &documents[one].origin, &other);
                conflicts.push(Conflict { document: one, verdict: Verdict::Fail(failure) });
            }
        }
    }
    conflicts
}

/// Children found under parents that are not in the batch.
fn from_elsewhere(run: &Run, sides: &[Sides]) -> Vec<Taken> {
    let mut found = Vec::new();
    for (relation, side) in sides.iter().enumerate().skip(1) {
        for &(stored, source) in &side.changes.moved {
            let row = &side.stored[stored as usize];
            if row.parent.is_none() {
                found.push(Taken {
                    relation,
                    child: comparison_key(&run.schema.tables[relation], &row.tuple),
                    taker: side.source[source as usize].document,
                    reference: row.reference.clone(),
                });
            }
        }
    }
    found
}
