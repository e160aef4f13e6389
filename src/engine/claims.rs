//! Children that move: who may take them from whom.
//!
//! A child whose key is unique in the table may turn up under another document.
//! Taking it is right if the document that has it gave it up, or is not in the
//! feed. If both are in the feed and both have it, both fail. Which of these it
//! is can be unknown yet: then the taker waits for the end of the feed.

use std::collections::{BTreeMap, HashMap};

use tokio_postgres::Transaction;

use crate::document::{DocumentKey, Origin};
use crate::engine::compare::compared_key;
use crate::engine::prepare::Prepared;
use crate::engine::registry::Claim;
use crate::engine::report::Failure;
use crate::engine::run::Run;
use crate::error::Error;
use crate::mapping::RelationIx;
use crate::plan::Sides;
use crate::postgres::fetch::{matching, raw, selected};
use crate::postgres::wire::typed;
use crate::postgres::{quote, state};
use crate::row::{Cell, Tuple};
use crate::schema::{PhysicalColumn, Table};
use crate::shred::document_key_of;

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

/// The document that a row belongs to now.
struct Owner {
    key: DocumentKey,
    /// Its key in words.
    label: String,
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
        let owners = owners(run, transaction, ix, &references).await?;
        let keys: Vec<&DocumentKey> = owners.values().map(|owner| &owner.key).collect();
        let states = state::states(transaction, run.lease.mapping, &keys).await?;
        let raws: HashMap<DocumentKey, _> = states.into_iter().map(|(key, state)| (key, state.raw)).collect();
        for taken in taken {
            let Some(owner) = owners.get(&taken.reference) else { continue };
            let raw = raws.get(&owner.key).copied().flatten();
            let claim = run.registry().claim(&(ix, taken.child.clone()), &owner.key, raw, last);
            let document = documents[taken.taker as usize];
            let failure = |other: &str| claimed(run, ix, document, &document.origin, other);
            match claim {
                Claim::Free => robbed.push(owner.key.clone()),
                Claim::GivenUp => {}
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
    raw: Option<crate::fingerprint::RawFingerprint>,
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
    format!("a row of {}, whose key is unique in the table, is claimed by {other} too", relation.table)
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
                    child: compared_key(&run.schema.tables[relation], &row.tuple),
                    taker: side.source[source as usize].document,
                    reference: row.reference.clone(),
                });
            }
        }
    }
    found
}

/// The documents that rows of a relation belong to, by what the rows refer to.
async fn owners(
    run: &Run,
    transaction: &Transaction<'_>,
    ix: RelationIx,
    references: &[Tuple],
) -> Result<HashMap<Tuple, Owner>, Error> {
    let table = &run.schema.tables[ix];
    let root = &run.schema.tables[0];
    let (sql, params) = owners_query(run, ix, references);
    let mut owners = HashMap::new();
    for row in transaction.query_typed(&sql, &typed(&params)).await? {
        let tuple = |from: usize, count: usize| -> Result<Tuple, Error> {
            let mut tuple = Tuple::default();
            for at in from..from + count {
                tuple.push(raw(&row, at)?.map_or(Cell::Null, Cell::Value));
            }
            Ok(tuple)
        };
        let reference = tuple(0, table.parent.len())?;
        let key = tuple(table.parent.len(), root.key.len())?;
        let label = row.try_get(table.parent.len() + root.key.len())?;
        owners.insert(reference, Owner { key: document_key_of(&run.schema, &key), label });
    }
    Ok(owners)
}

/// From what rows of `ix` refer to, up through the enclosing tables, to the root's key.
fn owners_query(
    run: &Run,
    ix: RelationIx,
    references: &[Tuple],
) -> (String, Vec<crate::postgres::wire::Param>) {
    let (relations, tables) = (&run.mapping.relations, &run.schema.tables);
    let chain: Vec<RelationIx> =
        std::iter::successors(relations[ix].enclosing, |&ix| relations[ix].enclosing).collect();
    let referred = |table: &Table| -> Vec<PhysicalColumn> {
        match &table.id {
            Some(id) => vec![id.column.clone()],
            None => table
                .key
                .iter()
                .map(|&at| PhysicalColumn { name: table.names[at].clone(), ty: table.columns[at].clone() })
                .collect(),
        }
    };
    let nearest = referred(&tables[chain[0]]);
    let root = tables[0].key.iter().map(|&at| (&tables[0].names[at], &tables[0].columns[at]));
    let last = format!("t{}", chain.len() - 1);
    let mut list: Vec<String> =
        nearest.iter().map(|column| selected("t0", &column.name, &column.ty)).collect();
    list.extend(root.clone().map(|(name, ty)| selected(&last, name, ty)));
    let words: Vec<String> = root.map(|(name, _)| format!("{last}.{}::text", quote(name))).collect();
    list.push(format!("concat_ws(',', {})", words.join(", ")));
    let mut from = format!("{} t0", tables[chain[0]].name);
    for (at, pair) in chain.windows(2).enumerate() {
        let (inner, outer) = (&tables[pair[0]], &tables[pair[1]]);
        let equal = inner.parent.iter().zip(referred(outer)).map(|(column, target)| {
            format!("t{at}.{} = t{}.{}", quote(&column.name), at + 1, quote(&target.name))
        });
        from += &format!(" JOIN {} t{} ON {}", outer.name, at + 1, equal.collect::<Vec<_>>().join(" AND "));
    }
    let (condition, params) = matching("t0", &nearest, references);
    (format!("SELECT {} FROM {from} WHERE {condition}", list.join(", ")), params)
}
