//! Documents that stand in the feed in two versions, of which one was skipped by its bytes; or under two keys.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use tokio_postgres::Transaction;

use super::{Recorded, differs};
use crate::document::DocumentKey;
use crate::engine::claims::{Conflict, Verdict};
use crate::engine::prepare::Prepared;
use crate::engine::registry::Outcome;
use crate::engine::roots::Roots;
use crate::engine::run::Run;
use crate::error::Error;
use crate::postgres::state::{self, State};

/// Documents of which another version was skipped by its bytes in this feed. Of two versions the first counts.
pub(super) fn repeats(run: &Run, batch: &Recorded<'_>) -> Vec<Conflict> {
    let documents = batch.documents.iter().zip(&batch.states).enumerate();
    let verdict = |(at, (document, state)): (usize, (&Arc<Prepared>, &Option<State>))| {
        let verdict = repeated(run, document, state.as_ref()?, Some(&document.label))?;
        Some(Conflict { document: at, verdict })
    };
    documents.filter_map(verdict).collect()
}

/// What becomes of a document of which this state is recorded, if the bytes of that were skipped in this feed.
/// `skipped`: what these were called, where that is known.
fn repeated(run: &Run, document: &Prepared, state: &State, skipped: Option<&str>) -> Option<Verdict> {
    let raw = state.raw?;
    let (other, before) = run.registry().skipped_at(raw, &document.key)?;
    match (state.fingerprint == Some(document.fingerprints.document), before) {
        (true, _) => Some(Verdict::Repeated),
        (false, true) => Some(Verdict::Fail(differs(Some(&document.label), &document.origin, &other))),
        (false, false) => {
            run.registry().forget(raw);
            run.tally(|tally| {
                tally.outcome(Outcome::Unchanged, -1);
                tally.fail_all(vec![differs(skipped, &other, &document.origin)]);
            });
            None
        }
    }
}

/// The keys that rows of the batch had and that no document of it takes over: what is recorded under them goes.
/// The documents as they were may be in the feed too, skipped already; if not, they will be looked at.
pub(super) async fn former(
    run: &Run,
    transaction: &Transaction<'_>,
    batch: &Recorded<'_>,
    roots: &Roots,
    conflicts: &mut Vec<Conflict>,
) -> Result<Vec<DocumentKey>, Error> {
    let changed: Vec<(usize, &DocumentKey)> = roots.former(&batch.looked_at).collect();
    if changed.is_empty() {
        return Ok(Vec::new());
    }
    let keys: Vec<&DocumentKey> = changed.iter().map(|(_, key)| *key).collect();
    let states: HashMap<DocumentKey, State> =
        state::states(transaction, run.lease.mapping, &run.schema, &keys).await?.into_iter().collect();
    for (at, key) in &changed {
        let Some(state) = states.get(*key) else { continue };
        match repeated(run, batch.looked_at[*at], state, None) {
            Some(verdict) => conflicts.push(Conflict { document: batch.places[*at], verdict }),
            None => state.raw.into_iter().for_each(|raw| run.registry().forget(raw)),
        }
    }
    let taken_over: HashSet<&DocumentKey> = batch.looked_at.iter().map(|document| &document.key).collect();
    Ok(keys.into_iter().filter(|key| !taken_over.contains(key)).cloned().collect())
}
