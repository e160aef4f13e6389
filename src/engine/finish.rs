//! What a run does when its feed has ended.

use std::sync::Arc;

use tracing::Instrument as _;

use crate::document::{DocumentKey, Origin};
use crate::engine::apply::{Round, apply};
use crate::engine::feed::{Workers, apply_parts};
use crate::engine::progress::Phase;
use crate::engine::report::Failure;
use crate::engine::run::Run;
use crate::engine::{held, panicked, respelled, spans, sweep};
use crate::error::Error;
use crate::postgres::changes::forget_old as forget_old_changes;
use crate::postgres::{begin, packing, state};

/// Waits for the workers; then what was gathered of their batches; then second tries, together, and what held removals
/// were in the way of once more with the documents that hold them; then removals that are still held back; then what a
/// complete feed lacks. After a feed that broke off these stay held: what was removed here might have turned up there.
pub(super) async fn finish(run: &Arc<Run>, mut workers: Workers, broken: Option<Error>) -> Result<(), Error> {
    while let Some(done) = workers.tasks.join_next().await {
        done.map_err(panicked)??;
    }
    let gathered = run.take_gathered();
    let span = spans::later(gathered.len(), Round::Feed);
    apply_parts(run, gathered).instrument(span).await?;
    let broken = broken.or_else(|| run.patience.given_up());
    // Together, whatever their rows: what two of them swap must meet in one transaction.
    run.guard.reopen();
    let releases = broken.is_none() && run.holds();
    let round = if releases { Round::Together } else { Round::Last };
    let deferred = run.take_deferred();
    let again = spans::later(deferred.len(), round);
    apply(run, deferred, round).instrument(again).await?;
    if releases {
        let mut waiting = run.take_deferred();
        if !waiting.is_empty() {
            waiting.extend(run.take_holders());
            let last = spans::later(waiting.len(), Round::Last);
            apply(run, waiting, Round::Last).instrument(last).await?;
        }
        held::release(run).await?;
    }
    if run.options.complete && broken.is_none() && run.purpose.sweeps() {
        run.stopwatch.enter(Phase::Sweep);
        sweep::sweep(run).await?;
    }
    if broken.is_none() {
        name_missed(run);
    }
    if run.purpose.writes() {
        let distrusted = run.take_distrusted();
        run.patience.retry(|| unsettle(run, &distrusted)).await?;
    }
    broken.or_else(|| run.patience.given_up()).map_or(Ok(()), Err)
}

/// Documents of which planned changes were not made fail, unless they have already.
fn name_missed(run: &Run) {
    let missed = run.outlet.missed();
    // Of where it stood in the feed, if it did, the plan knows nothing.
    let origin = Origin { file: Some("the plan".into()), ..Origin::default() };
    run.tally(|tally| {
        for document in missed {
            let is_it = |failure: &Failure| failure.document.as_ref() == Some(&document);
            if !tally.report.failures.iter().any(is_it) {
                let message =
                    "rows that it was planned to write needed no change any more; plan anew".to_owned();
                tally.fail_all(vec![Failure::of_document(&origin, Some(document), message)]);
            }
        }
    });
}

async fn unsettle(run: &Run, keys: &[DocumentKey]) -> Result<(), Error> {
    if keys.is_empty() {
        return Ok(());
    }
    let mut connection = run.connection().await?;
    let transaction = begin(&mut connection, run.limits()).await?;
    state::unsettle(&transaction, run.lease.mapping, keys).await?;
    transaction.commit().await?;
    Ok(())
}

/// What makes the next run cheaper. Nothing depends on it: what could not be done now the next run does.
pub(super) async fn tidy(run: &Run) {
    run.stopwatch.enter(Phase::Merge);
    respelled::record(run).await;
    merge(run).await;
    forget_old(run).await;
}

/// Packs what is recorded of documents, if that has become worth its while.
async fn merge(run: &Run) {
    let is_cheap = !run.tally(|tally| tally.recorded);
    if is_cheap || run.patience.is_stopped() {
        return;
    }
    let merged = async {
        let mut connection = run.connection().await?;
        packing::merge(&mut connection, run.lease.mapping, run.limits()).await
    };
    match merged.await {
        Ok(merged) => run.tally(|tally| tally.report.merged = merged),
        Err(error) => tracing::warn!(%error, "what is recorded of documents was not packed"),
    }
}

/// Deletes what was noted of changed rows long ago.
async fn forget_old(run: &Run) {
    if !run.options.history || run.patience.is_stopped() {
        return;
    }
    let forgotten = async {
        let connection = run.connection().await?;
        forget_old_changes(&connection, run.lease.mapping).await
    };
    if let Err(error) = forgotten.await {
        tracing::warn!(%error, "what was noted of changed rows long ago was not deleted");
    }
}
