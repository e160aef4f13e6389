//! Documents whose relations are stored one by one: the root with its links, then the 1-N lists side by side, and
//! when all of these are in what is recorded of the document. What fails is named, and does not keep the others out.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::future::join_all;

use crate::document::DocumentKey;
use crate::engine::apply::{Round, apply_in};
use crate::engine::batch::{differing, is_settled};
use crate::engine::prepare::Prepared;
use crate::engine::report::Failure;
use crate::engine::run::Run;
use crate::engine::units::{Later, Progress, Scope, Steps, Units};
use crate::error::{Error, ErrorKind};
use crate::postgres::state::{self, State};

/// Stores documents by units.
///
/// # Errors
/// As [`apply_in`].
pub(crate) async fn apply(
    run: &Arc<Run>,
    units: &Units,
    documents: Vec<Arc<Prepared>>,
    round: Round,
) -> Result<(), Error> {
    let states = match run.patience.retry(|| states(run, &documents)).await {
        Err(error)
            if run.patience.is_stopped() && (error.kind() == ErrorKind::Stopped || error.is_transient()) =>
        {
            run.patience.give_up();
            return Ok(());
        }
        states => states?,
    };
    // All of them go the same way: what two documents swap must meet in one transaction.
    let is_simple = |document: &Arc<Prepared>| is_simple(run, units, document, states.get(&document.key));
    if documents.iter().all(is_simple) {
        return apply_in(run, documents, round, Scope::Whole).await;
    }
    let steps = Steps::new(units);
    apply_in(run, documents.clone(), round, Scope::Unit(&steps, 0)).await?;
    let unit = |unit: usize| {
        let due = documents.iter().filter(|document| steps.is_due(document, unit)).cloned().collect();
        apply_in(run, due, round, Scope::Unit(&steps, unit))
    };
    // All of them come to an end before it is said what became of the documents.
    join_all((1..units.count).map(unit)).await.into_iter().collect::<Result<(), Error>>()?;
    let stored = documents.into_iter().filter(|document| judge(run, &steps, document)).collect();
    apply_in(run, stored, round, Scope::Rest(&steps)).await
}

async fn states(run: &Run, documents: &[Arc<Prepared>]) -> Result<HashMap<DocumentKey, State>, Error> {
    let keys: Vec<&DocumentKey> = documents.iter().map(|document| &document.key).collect();
    let connection = run.connection().await?;
    Ok(state::states(&**connection, run.lease.mapping, &run.schema, &keys).await?.into_iter().collect())
}

/// Whether only one unit of a document is to be written: then one transaction does all of it.
fn is_simple(run: &Run, units: &Units, document: &Prepared, state: Option<&State>) -> bool {
    let mut differs = differing(run, document, state);
    differs[0] = state.is_none_or(|state| !state.relations.contains(&document.fingerprints.relations[0]));
    is_settled(document, state) || units.written(&differs) <= 1
}

/// Says what became of a document. True: all of it is stored, and it can be settled.
fn judge(run: &Run, steps: &Steps<'_>, document: &Arc<Prepared>) -> bool {
    let is_over = |progress: &mut Progress| {
        progress.later.is_some() || !progress.failures.is_empty() || progress.withheld.is_some()
    };
    if !steps.note(document, is_over) {
        // What a run left undone that was told to stop the next one does.
        return steps.is_stored(document);
    }
    let Progress { mut failures, later, mut withheld, .. } = steps.take(document);
    if let Some(later) = later {
        if run.defer(document.clone()).is_none() {
            return false;
        }
        match later {
            Later::Again => {}
            Later::Failure(failure) => failures.push(failure),
            Later::Withheld(rows) => withheld = Some(rows),
        }
    }
    run.unhold(&document.key);
    // They were found side by side.
    let place = |failure: &Failure| {
        run.mapping.relations.iter().position(|r| Some(&r.name) == failure.relation.as_ref())
    };
    failures.sort_by_key(place);
    match withheld {
        Some(rows) if failures.is_empty() => run.withhold(document, &rows),
        _ => run.fail(document, failures),
    }
    false
}
