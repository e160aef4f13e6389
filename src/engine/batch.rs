//! One batch: look up, compare, plan, write and record in one transaction; and what to do when that fails.
//!
//! Every try begins with the look-up; an old plan is never replayed. So deadlocks, rows that someone else
//! changed, and a connection lost at COMMIT are one case: if the COMMIT had succeeded, the next look-up finds
//! the documents as they should be.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::Transaction;

use crate::document::DocumentKey;
use crate::engine::claims::{Conflict, Verdict, claims};
use crate::engine::compare::{Active, Compared, close, compare, compared_key};
use crate::engine::prepare::Prepared;
use crate::engine::registry::{Outcome, Turn};
use crate::engine::report::Failure;
use crate::engine::run::{Held, Run};
use crate::error::{Error, ErrorKind};
use crate::mapping::UniqueIn;
use crate::plan::{Plan, Sides, plan};
use crate::postgres::state::{self, Record, State};
use crate::postgres::write::{Marking, Writer, transaction_time};
use crate::postgres::{Limits, begin};

/// How long a batch of several documents waits for a lock once one of them is known to be locked: the others
/// shall not wait for it.
const NARROWING_LOCK_TIMEOUT: Duration = Duration::from_millis(100);

/// Takes note of documents in the order of the feed, and drops repeated ones.
pub(crate) fn admit(run: &Run, documents: Vec<Prepared>) -> Vec<Prepared> {
    let mut admitted = Vec::with_capacity(documents.len());
    for document in documents {
        let turn = run.registry().hand_out(&document.key, document.fingerprints.document, &document.origin);
        match turn {
            Turn::First => admitted.push(document),
            Turn::Repeated => run.tally(|tally| tally.report.documents.repeated += 1),
            Turn::Differs(first) => run.tally(|tally| tally.fail_all(vec![differs(&document, &first)])),
        }
    }
    admitted
}

fn differs(document: &Prepared, first: &crate::document::Origin) -> Failure {
    let message = format!("stands twice in the feed with different content: first at {first}");
    Failure::of_document(&document.origin, Some(document.label.clone()), message)
}

/// Applies documents, narrowing down to those that fail. `last`: nothing is put off any more.
///
/// # Errors
/// Only what ends the run: the lease was lost, or the database is out of reach.
pub(crate) async fn apply(run: &Arc<Run>, documents: Vec<Prepared>, last: bool) -> Result<(), Error> {
    let mut pending = vec![Part { documents, tries: 0, lock: run.options.lock_timeout }];
    while let Some(part) = pending.pop() {
        if part.documents.is_empty() {
            continue;
        }
        let limits = Limits { lock: part.lock, ..run.limits() };
        match transact(run, &part.documents, limits, last).await {
            Ok(conflicts) if conflicts.is_empty() => {}
            Ok(conflicts) => pending.push(part.without(run, conflicts)),
            Err(error) if error.kind() == ErrorKind::Busy => return Err(error),
            Err(error) if error.is_transient() => {
                run.tally(|tally| tally.report.retries += 1);
                tracing::debug!(%error, documents = part.documents.len(), tries = part.tries, "trying again");
                let again = part.again(run, error).await?;
                // A document that waits for someone else comes after those that need not.
                let at = if again.len() == 1 { 0 } else { pending.len() };
                pending.splice(at..at, again);
            }
            Err(error) => pending.extend(part.narrowed(run, &error, last)),
        }
    }
    Ok(())
}

/// Documents to be applied in one transaction.
struct Part {
    documents: Vec<Prepared>,
    tries: u32,
    lock: Duration,
}

impl Part {
    fn halves(mut self, lock: Duration) -> [Part; 2] {
        let right = self.documents.split_off(self.documents.len() / 2);
        let tries = self.tries;
        [Part { documents: right, tries, lock }, Part { documents: self.documents, tries, lock }]
    }

    /// After an error that may pass: wait, then try again; a locked row is sought for at once.
    async fn again(mut self, run: &Run, error: Error) -> Result<Vec<Part>, Error> {
        if error.is_lock_timeout() && self.documents.len() > 1 {
            return Ok(self.halves(NARROWING_LOCK_TIMEOUT.min(run.options.lock_timeout)).into());
        }
        self.tries += 1;
        self.lock = run.options.lock_timeout;
        if self.tries <= run.options.retries_max {
            tokio::time::sleep(backoff(self.tries)).await;
            return Ok(vec![self]);
        }
        if error.kind() == ErrorKind::Connection {
            return Err(error);
        }
        if self.documents.len() > 1 {
            self.tries = run.options.retries_max.saturating_sub(1);
            return Ok(self.halves(run.options.lock_timeout).into());
        }
        self.fail(run, &error);
        Ok(Vec::new())
    }

    /// After an error that stays: halve, until the document that causes it stands alone.
    fn narrowed(self, run: &Run, error: &Error, last: bool) -> Vec<Part> {
        if self.documents.len() > 1 {
            let lock = self.lock;
            return self.halves(lock).into();
        }
        if !last && error.may_settle_later() {
            for document in self.documents {
                if let Err(document) = run.defer(document) {
                    run.fail(&document, Failure::of_error(&document.origin, &document.label, error));
                }
            }
            return Vec::new();
        }
        self.fail(run, error);
        Vec::new()
    }

    fn fail(&self, run: &Run, error: &Error) {
        for document in &self.documents {
            run.fail(document, Failure::of_error(&document.origin, &document.label, error));
        }
    }

    /// Takes out the documents that conflict with others: they fail, or wait for the end of the feed.
    fn without(mut self, run: &Run, conflicts: Vec<Conflict>) -> Part {
        let mut verdicts: Vec<Option<Verdict>> = self.documents.iter().map(|_| None).collect();
        for conflict in conflicts {
            verdicts[conflict.document].get_or_insert(conflict.verdict);
        }
        let documents = std::mem::take(&mut self.documents);
        for (document, verdict) in documents.into_iter().zip(verdicts) {
            match verdict {
                None => self.documents.push(document),
                Some(Verdict::Fail(failure)) => run.fail(&document, failure),
                Some(Verdict::Repeated) => {
                    run.registry().decide(&document.key, Outcome::Unchanged);
                    run.tally(|tally| tally.report.documents.repeated += 1);
                }
                Some(Verdict::Wait(failure)) => {
                    if let Err(document) = run.defer(document) {
                        run.fail(&document, Failure { retryable: true, ..failure });
                    }
                }
            }
        }
        self
    }
}

/// Exponential, with full jitter: between nothing and 50 ms · 2ⁿ, at most 5 s.
pub(crate) fn backoff(tries: u32) -> Duration {
    let ceiling = 50u64.saturating_mul(1 << tries.min(10)).min(5_000);
    Duration::from_millis(fastrand::u64(0..=ceiling))
}

/// One try. Gives the documents that conflict with others, in which case nothing was written.
async fn transact(
    run: &Run,
    documents: &[Prepared],
    limits: Limits,
    last: bool,
) -> Result<Vec<Conflict>, Error> {
    let mut connection = run.connections.get().await?;
    let transaction = begin(&mut connection, limits).await?;
    state::enter(&transaction, &run.lease).await?;
    let keys: Vec<&DocumentKey> = documents.iter().map(|document| &document.key).collect();
    let states = in_order(&keys, state::states(&transaction, run.lease.mapping, &keys).await?);
    let repeats = repeats(run, documents, &states);
    if !repeats.is_empty() {
        return Ok(repeats);
    }
    let (same, other): (Vec<usize>, Vec<usize>) =
        (0..documents.len()).partition(|&at| is_settled(run, &documents[at], states[at].as_ref()));
    let looked_at: Vec<&Prepared> = other.iter().map(|&at| &documents[at]).collect();
    let active: Active =
        other.iter().map(|&at| differing(run, &documents[at], states[at].as_ref())).collect();
    let Compared { sides, times } =
        compare(&transaction, &run.mapping, &run.schema, &looked_at, &active).await?;
    let (conflicts, robbed) = claims(run, &transaction, &looked_at, &sides, last).await?;
    if !conflicts.is_empty() {
        let place = |conflict: Conflict| Conflict { document: other[conflict.document], ..conflict };
        return Ok(conflicts.into_iter().map(place).collect());
    }
    let plan = plan(&run.mapping, &run.schema, &sides, looked_at.len());
    let marking = marking(run, &transaction, &looked_at, &plan).await?;
    let writer = Writer::new(&transaction, &run.mapping, &run.schema, &sides, &marking).await?;
    let times = writer.apply(&plan, times).await?;
    state::unsettle(&transaction, run.lease.mapping, &robbed).await?;
    let held = held_documents(run, &sides, &plan, looked_at.len());
    let records = records(&looked_at, &other, &states, &held);
    renew(run, &transaction, documents, &states, &same).await?;
    state::record(&transaction, run.lease.mapping, &records).await?;
    transaction.commit().await?;
    let unsettled = records.iter().filter(|record| !record.settled).count();
    tracing::debug!(documents = documents.len(), plan = %plan.describe(&run.mapping), "committed");
    run.tally(|tally| {
        tally.applied(&plan, marks(run, &plan), &times);
        tally.report.documents.unsettled += unsettled as u64;
        let skipped = looked_at.iter().map(|document| u64::from(document.rows.skipped_lookups));
        tally.report.skipped_lookups += skipped.sum::<u64>();
    });
    decide(run, documents, &same, &other, &sides, &plan);
    hold(run, &looked_at, &sides, &plan, held);
    Ok(Vec::new())
}

fn in_order(keys: &[&DocumentKey], found: Vec<(DocumentKey, State)>) -> Vec<Option<State>> {
    let mut found: std::collections::HashMap<DocumentKey, State> = found.into_iter().collect();
    keys.iter().map(|key| found.remove(key)).collect()
}

/// Documents of which another spelling was skipped by its bytes, earlier in this feed.
fn repeats(run: &Run, documents: &[Prepared], states: &[Option<State>]) -> Vec<Conflict> {
    let registry = run.registry();
    let mut conflicts = Vec::new();
    for (at, (document, state)) in documents.iter().zip(states).enumerate() {
        let Some(state) = state else { continue };
        let Some(first) = state.raw.and_then(|raw| registry.skipped_at(raw)) else { continue };
        let equal = state.fingerprint == Some(document.fingerprints.document);
        let verdict = if equal { Verdict::Repeated } else { Verdict::Fail(differs(document, &first)) };
        conflicts.push(Conflict { document: at, verdict });
    }
    conflicts
}

/// Whether the rows of a document are stored as it asks for, going by what was recorded.
fn is_settled(run: &Run, document: &Prepared, state: Option<&State>) -> bool {
    let lost =
        run.lost.iter().zip(&document.rows.relations).any(|(lost, rows)| *lost && !rows.rows.is_empty());
    state.is_some_and(|state| {
        state.settled && !lost && state.fingerprint == Some(document.fingerprints.document)
    })
}

/// The relations of a document that must be compared. The root is: the others hang on it.
fn differing(run: &Run, document: &Prepared, state: Option<&State>) -> Vec<bool> {
    let recorded: HashSet<_> = match state {
        Some(state) if state.settled => state.relations.iter().collect(),
        _ => HashSet::new(),
    };
    let relations = document.fingerprints.relations.iter().zip(&run.lost);
    let mut differs: Vec<bool> =
        relations.map(|(fingerprint, lost)| *lost || !recorded.contains(fingerprint)).collect();
    differs[0] = true;
    close(&run.mapping, &mut differs);
    // A list about which the document says nothing is left alone.
    for (ix, rows) in document.rows.relations.iter().enumerate().skip(1) {
        let silent = run.mapping.relations[ix].enclosing == Some(0) && !rows.kept.is_empty();
        differs[ix] &= !silent;
    }
    differs
}

async fn marking(
    run: &Run,
    transaction: &Transaction<'_>,
    documents: &[&Prepared],
    plan: &Plan,
) -> Result<Marking, Error> {
    let marks = &run.schema.tables[0].marks;
    let writes = !plan.steps.is_empty();
    let hex =
        |document: &&Prepared| document.fingerprints.document.0.iter().map(|b| format!("{b:02x}")).collect();
    let hashes =
        if marks.hash.is_some() && writes { documents.iter().map(hex).collect() } else { Vec::new() };
    let time = if writes { transaction_time(transaction, &run.schema).await? } else { None };
    Ok(Marking { hashes, time })
}

/// Root rows whose marks a plan sets.
fn marks(run: &Run, plan: &Plan) -> u64 {
    let marks = &run.schema.tables[0].marks;
    if marks.hash.is_none() && marks.time.is_none() {
        return 0;
    }
    plan.steps.iter().filter(|step| step.relation == 0).map(|step| step.action.rows() as u64).sum()
}

/// Per document, whether removals of it are held back to the end of the feed.
fn held_documents(run: &Run, sides: &[Sides], plan: &Plan, documents: usize) -> Vec<bool> {
    let mut held = vec![false; documents];
    for &(ix, row) in &plan.held {
        if let Some(document) = crate::plan::document_of(&run.mapping, sides, ix, row) {
            held[document as usize] = true;
        }
    }
    held
}

fn records<'a>(
    documents: &[&'a Prepared],
    places: &[usize],
    states: &'a [Option<State>],
    held: &[bool],
) -> Vec<Record<'a>> {
    let record = |(at, document): (usize, &&'a Prepared)| Record {
        key: &document.key,
        before: states[places[at]].as_ref(),
        raw: document.raw,
        fingerprint: document.fingerprints.document,
        relations: &document.fingerprints.relations,
        settled: !held[at] && document.rows.skipped_lookups == 0,
    };
    documents.iter().enumerate().map(record).collect()
}

/// Records the new spelling of documents whose rows are as they were.
async fn renew(
    run: &Run,
    transaction: &Transaction<'_>,
    documents: &[Prepared],
    states: &[Option<State>],
    same: &[usize],
) -> Result<(), Error> {
    let respelled = same.iter().filter_map(|&at| {
        let (document, state) = (&documents[at], states[at].as_ref()?);
        let renewed = (&document.key, document.fingerprints.document, document.raw);
        (state.raw != Some(document.raw)).then_some(renewed)
    });
    state::renew_raw(transaction, run.lease.mapping, &respelled.collect::<Vec<_>>()).await
}

fn decide(run: &Run, documents: &[Prepared], same: &[usize], other: &[usize], sides: &[Sides], plan: &Plan) {
    for &at in same {
        run.decide(&documents[at].key, Outcome::Unchanged);
    }
    let new: HashSet<u32> =
        sides[0].changes.added.iter().map(|&row| sides[0].source[row as usize].document).collect();
    for (place, &at) in other.iter().enumerate() {
        let outcome = match () {
            () if new.contains(&(place as u32)) => Outcome::New,
            () if plan.touched[place] => Outcome::Changed,
            () => Outcome::Unchanged,
        };
        run.decide(&documents[at].key, outcome);
    }
}

/// Remembers the removals that wait, and the children that other documents may now take.
fn hold(run: &Run, documents: &[&Prepared], sides: &[Sides], plan: &Plan, held: Vec<bool>) {
    for (at, document) in documents.iter().enumerate().filter(|(at, _)| held[*at]) {
        let of_document = |row: &&(usize, u32)| {
            crate::plan::document_of(&run.mapping, sides, row.0, row.1) == Some(at as u32)
        };
        let rows = plan.held.iter().filter(of_document);
        let rows = rows.map(|&(ix, row)| (ix, sides[ix].stored[row as usize].clone())).collect();
        run.hold(document.key.clone(), Held { fingerprint: document.fingerprints.document, rows });
    }
    let mut registry = run.registry();
    for (ix, side) in sides.iter().enumerate() {
        if run.mapping.relations[ix].unique_in == UniqueIn::All {
            let table = &run.schema.tables[ix];
            for &row in &side.changes.removed {
                if let Some(at) = crate::plan::document_of(&run.mapping, sides, ix, row) {
                    let key = compared_key(table, &side.stored[row as usize].tuple);
                    registry.release(ix, key, &documents[at as usize].key);
                }
            }
        }
    }
}
