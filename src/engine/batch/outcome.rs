//! What became of a batch: how its documents are counted, what waits for the end of the feed, and what other documents
//! may take now.

use std::collections::{HashMap, HashSet};

use super::{Recorded, Written};
use crate::engine::guard::Rows;
use crate::engine::held::own_place;
use crate::engine::prepare::Prepared;
use crate::engine::registry::Outcome;
use crate::engine::run::{Held, HeldRow, Run};
use crate::engine::verify::Noted;
use crate::fingerprint::comparison_key;
use crate::mapping::UniqueIn;
use crate::plan::{Plan, Sides};
use crate::postgres::state::{State, renews};

/// Counts and remembers what was committed. Gives the documents from which a child was taken meanwhile.
pub(super) fn committed(
    run: &Run,
    batch: &Recorded<'_>,
    written: &Written,
    unsettled: usize,
    last: bool,
) -> Vec<usize> {
    let plan = &written.plan;
    let rows: usize = plan.steps.iter().map(|step| step.action.rows()).sum();
    tracing::Span::current().record("rows", rows);
    tracing::debug!(documents = batch.documents.len(), rows, "committed");
    run.took(batch.looked_at.iter().copied(), batch.began.elapsed());
    let settles = batch.scope.settles();
    run.tally(|tally| {
        tally.applied(plan, if settles { marks(run, plan) } else { 0 }, &written.times);
        tally.report.parked += 2 * written.detached;
        tally.report.documents.unsettled += unsettled as u64;
        tally.report.documents.respelled += respelled(batch).count() as u64;
        if !batch.keeps_spellings {
            tally.report.documents.renewed += renewed(run, batch).count() as u64;
        }
        tally.recorded |= !batch.looked_at.is_empty() || tally.report.documents.renewed > 0;
        let skipped = batch.looked_at.iter().map(|document| u64::from(document.rows.skipped_lookups));
        tally.report.skipped_lookups += if settles { skipped.sum::<u64>() } else { 0 };
        tally.report.nuls += if settles { nuls(batch) } else { 0 };
    });
    if batch.keeps_spellings {
        run.keep_spellings(renewed(run, batch));
    }
    decide(run, batch, written);
    if last && settles {
        let decided = batch.looked_at.iter().filter(|document| run.unhold(&document.key)).count() as u64;
        run.tally(|tally| {
            let unsettled = &mut tally.report.documents.unsettled;
            *unsettled = unsettled.saturating_sub(decided);
        });
    }
    hold(run, batch, written);
    if !run.purpose.writes() {
        // They would be found as they were, and told once more.
        return Vec::new();
    }
    let keys = batch.documents.iter().map(|document| &document.key).enumerate();
    keys.filter(|(_, key)| !last && run.registry().take_robbed(key)).map(|(at, _)| at).collect()
}

/// Notes what was found of documents that were only compared.
pub(super) fn verified(run: &Run, batch: &Recorded<'_>, sides: &[Sides], found: Vec<Noted>) {
    run.tally(|tally| {
        let skipped = batch.looked_at.iter().map(|document| u64::from(document.rows.skipped_lookups));
        tally.report.skipped_lookups += skipped.sum::<u64>();
        tally.report.nuls += nuls(batch);
    });
    run.purpose.findings().into_iter().for_each(|findings| findings.note(&run.mapping, &found));
    run.took(batch.looked_at.iter().copied(), batch.began.elapsed());
    batch.looked_at.iter().for_each(|document| run.decide(&document.key, Outcome::Unchanged));
    give_up(run, sides);
}

/// Values in which documents held U+0000, which was left out or replaced.
fn nuls(batch: &Recorded<'_>) -> u64 {
    batch.looked_at.iter().map(|document| u64::from(document.rows.nuls)).sum()
}

/// Root rows whose marks a plan sets.
fn marks(run: &Run, plan: &Plan) -> u64 {
    let marks = &run.schema.tables[0].marks;
    if marks.hash.is_none() && marks.time.is_none() {
        return 0;
    }
    let of_root = plan.steps.iter().filter(|step| step.relation == 0 && !step.action.is_detour());
    of_root.map(|step| step.action.rows() as u64).sum()
}

/// Documents whose rows are as they were, and their bytes are not.
fn respelled<'b>(batch: &'b Recorded<'_>) -> impl Iterator<Item = (&'b Prepared, &'b State)> {
    let same = batch.same.iter().filter_map(|&at| Some((&*batch.documents[at], batch.states[at].as_ref()?)));
    same.filter(|(document, state)| state.raw != Some(document.raw))
}

/// Of these the ones whose bytes are recorded, since that pays.
pub(super) fn renewed<'b>(run: &'b Run, batch: &'b Recorded<'_>) -> impl Iterator<Item = &'b Prepared> {
    let renewed =
        respelled(batch).filter(|(document, state)| renews(state.respelled, document.raw, run.number));
    renewed.map(|(document, _)| document)
}

/// Says how documents are counted, or how far they are.
fn decide(run: &Run, batch: &Recorded<'_>, Written { sides, plan, held, .. }: &Written) {
    for &at in &batch.same {
        run.decide(&batch.documents[at].key, Outcome::Unchanged);
    }
    let added = sides[0].changes.added.iter();
    let new: HashSet<u32> = added.map(|&row| sides[0].source[row as usize].document).collect();
    for (place, document) in batch.looked_at.iter().enumerate() {
        let was_new = batch.scope.before(document).0;
        let (is_new, touched) =
            (was_new || new.contains(&(place as u32)), batch.touched[place] || plan.touched[place]);
        if !batch.scope.settles() {
            batch.scope.stored(document, is_new, touched, held[place]);
            continue;
        }
        let outcome = match () {
            () if is_new => Outcome::New,
            () if touched => Outcome::Changed,
            () => Outcome::Unchanged,
        };
        tracing::debug!(document = document.label, outcome = outcome.as_str(), "stored");
        run.decide(&document.key, outcome);
    }
}

/// Remembers the removals that wait, and what is given up.
fn hold(run: &Run, batch: &Recorded<'_>, written: &Written) {
    let (Written { sides, plan, held, .. }, documents) = (written, &batch.looked_at);
    let mut rows: HashMap<u32, Vec<HeldRow>> = HashMap::new();
    for &(relation, row) in &plan.held {
        let (table, row) = (&run.schema.tables[relation], &sides[relation].stored[row as usize]);
        let held = HeldRow {
            relation,
            key: row.tuple.project(&table.key),
            place: own_place(table, row),
            reference: row.reference.clone(),
        };
        if let Some(document) = row.document {
            rows.entry(document).or_default().push(held);
        }
    }
    for (at, document) in documents.iter().enumerate().filter(|(at, _)| held[*at]) {
        let (origin, label) = (document.origin.clone(), document.label.clone());
        let (fingerprint, rows) =
            (document.fingerprints.document, rows.remove(&(at as u32)).unwrap_or_default());
        let removed = written.removed.get(&(at as u32)).into_iter().flatten().copied();
        let reserved = run.schema.tables.iter().map(|table| table.name.clone()).zip(removed);
        run.note_reserved(&document.key, reserved.filter(|(_, rows)| *rows > 0).collect());
        // What is stored by units is held by the last of them.
        if batch.scope.settles() {
            let settles = document.rows.skipped_lookups == 0;
            run.hold(document.key.clone(), Held { origin, label, fingerprint, rows, settles });
        }
    }
    give_up(run, sides);
}

/// Remembers the children that other documents may now take.
fn give_up(run: &Run, sides: &[Sides]) {
    let mut registry = run.registry();
    for (ix, side) in sides.iter().enumerate() {
        if run.mapping.relations[ix].unique_in == UniqueIn::All {
            let table = &run.schema.tables[ix];
            let key = |row: u32| comparison_key(table, &side.stored[row as usize].tuple);
            side.changes.removed.iter().for_each(|&row| registry.release(ix, key(row)));
            let moved = side.changes.moved.iter().filter(|(row, _)| registry.settle(ix, key(*row))).count();
            // They were to be deleted.
            run.guard.give_back(&Rows::from([(table.name.clone(), moved as u64)]));
        }
    }
}
