//! One batch: look up, compare, plan, write and record in one transaction; and what to do when that fails.
//!
//! Every try begins with the look-up; an old plan is never replayed. So deadlocks, rows that someone else
//! changed, and a connection lost at COMMIT are one case: if the COMMIT had succeeded, the next look-up finds
//! the documents as they should be.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::Transaction;

use crate::document::{DocumentKey, Origin};
use crate::engine::bystanders::{Bystander, bystanders};
use crate::engine::claims::{Conflict, Verdict, claims};
use crate::engine::compare::{Active, Compared, close, compare, compared_key};
use crate::engine::held::own_place;
use crate::engine::prepare::Prepared;
use crate::engine::registry::{Outcome, Turn};
use crate::engine::report::Failure;
use crate::engine::roots::{Roots, roots};
use crate::engine::run::{Held, HeldRow, Run};
use crate::error::{Error, ErrorKind};
use crate::mapping::UniqueIn;
use crate::plan::{Batch, Plan, Sides, plan, questions};
use crate::postgres::state::{self, Record, State};
use crate::postgres::write::{Marking, Writer, named_by_table, transaction_time};
use crate::postgres::{Limits, begin, judge};

/// How long a batch of several documents waits for a lock once one of them is known to be locked: the others
/// shall not wait for it.
const NARROWING_LOCK_TIMEOUT: Duration = Duration::from_millis(100);

/// Takes note of documents in the order of the feed, and drops repeated ones.
pub(crate) fn admit(run: &Run, documents: Vec<Prepared>) -> Vec<Prepared> {
    let mut admitted = Vec::with_capacity(documents.len());
    for document in documents {
        let turn = run.registry().hand_out(
            &document.key,
            document.fingerprints.document,
            document.sequence,
            &document.origin,
        );
        match turn {
            Turn::First => match other_of_alternate_key(run, &document) {
                None => admitted.push(document),
                Some(first) => {
                    run.fail(&document, differs(Some(&document.label), &document.origin, &first));
                }
            },
            Turn::Repeated => run.tally(|tally| tally.report.documents.repeated += 1),
            Turn::Differs(first) => {
                let failure = differs(Some(&document.label), &document.origin, &first);
                run.tally(|tally| tally.fail_all(vec![failure]));
            }
        }
    }
    admitted
}

/// Where a document with the alternate key of this one, but another key, stood before it.
fn other_of_alternate_key(run: &Run, document: &Prepared) -> Option<Origin> {
    run.registry().hand_out_alternate(document.alternate?, document.sequence, &document.origin)
}

fn differs(label: Option<&str>, origin: &Origin, first: &Origin) -> Failure {
    let message = format!("stands twice in the feed with different content: first at {first}");
    Failure::of_document(origin, label.map(str::to_owned), message)
}

/// When documents are applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Round {
    /// As the feed brings them: what others may still give or take waits for the end.
    Feed,
    /// At its end, all that waited together. What held removals are in the way of waits once more.
    Together,
    /// Nothing is put off any more.
    Last,
}

/// Applies documents, narrowing down to those that fail.
///
/// # Errors
/// Only what ends the run: the lease was lost, or the database is out of reach.
pub(crate) async fn apply(run: &Arc<Run>, documents: Vec<Prepared>, round: Round) -> Result<(), Error> {
    let last = round != Round::Feed;
    let mut pending = VecDeque::from([Part::new(run, documents)]);
    while let Some(part) = pending.pop_back() {
        if part.documents.is_empty() {
            continue;
        }
        tokio::time::sleep(part.pause).await;
        let limits = Limits { lock: part.lock, ..run.limits() };
        let mut groups = Vec::new();
        match transact(run, &part.documents, limits, last, &mut groups).await {
            Ok(Tried::Conflicts(conflicts)) => pending.push_back(part.without(run, conflicts)),
            Ok(Tried::Committed(robbed)) => part.look_again(run, robbed),
            Err(error) if matches!(error.kind(), ErrorKind::Busy | ErrorKind::Setup) => return Err(error),
            Err(error) if error.is_transient() => {
                run.tally(|tally| tally.report.retries += 1);
                tracing::debug!(%error, documents = part.documents.len(), tries = part.tries, "trying again");
                // What has to wait lets the others go first.
                for part in part.again(run, error, groups)? {
                    if part.pause.is_zero() { pending.push_back(part) } else { pending.push_front(part) }
                }
            }
            Err(error) => pending.extend(part.narrowed(run, &error, groups, round)),
        }
    }
    Ok(())
}

/// What a try came to, if it did not fail.
enum Tried {
    Committed(Vec<usize>),
    /// Nothing was written: these documents conflict with others.
    Conflicts(Vec<Conflict>),
}

/// Documents to be applied in one transaction.
struct Part {
    documents: Vec<Prepared>,
    tries: u32,
    lock: Duration,
    /// How long to wait before it.
    pause: Duration,
}

impl Part {
    fn new(run: &Run, documents: Vec<Prepared>) -> Self {
        Part { documents, tries: 0, lock: run.options.lock_timeout, pause: Duration::ZERO }
    }

    /// Two parts, the second to be applied first. Documents of a group stay together, and the groups in order.
    fn halves(mut self, groups: Vec<Vec<usize>>) -> Vec<Part> {
        let mut middle = self.documents.len() / 2;
        if groups.len() > 1 {
            let ends = groups.iter().scan(0, |end, group| {
                *end += group.len();
                Some(*end)
            });
            let inner = ends.take(groups.len() - 1);
            middle = inner.min_by_key(|end| end.abs_diff(middle)).unwrap_or(middle);
            let mut documents: Vec<Option<Prepared>> = self.documents.into_iter().map(Some).collect();
            self.documents = groups.into_iter().flatten().filter_map(|at| documents[at].take()).collect();
        }
        let right = self.documents.split_off(middle);
        vec![Part { documents: right, ..self }, self]
    }

    /// After an error that may pass: another try, later; a locked row is sought for at once.
    fn again(mut self, run: &Run, error: Error, groups: Vec<Vec<usize>>) -> Result<Vec<Part>, Error> {
        self.pause = Duration::ZERO;
        if error.is_lock_timeout() && self.documents.len() > 1 {
            self.lock = NARROWING_LOCK_TIMEOUT.min(run.options.lock_timeout);
            return Ok(self.halves(groups));
        }
        self.tries += 1;
        self.lock = run.options.lock_timeout;
        if self.tries <= run.options.retries_max {
            self.pause = backoff(self.tries).max(Duration::from_millis(1));
            return Ok(vec![self]);
        }
        if error.kind() == ErrorKind::Connection {
            return Err(error);
        }
        if self.documents.len() > 1 {
            return Ok(self.halves(groups));
        }
        self.fail(run, &error);
        Ok(Vec::new())
    }

    /// After an error that stays: halve, until what causes it stands alone; documents that cannot do without each
    /// other together.
    fn narrowed(self, run: &Run, error: &Error, groups: Vec<Vec<usize>>, round: Round) -> Vec<Part> {
        if self.documents.len() > 1 && groups.len() != 1 {
            return self.halves(groups);
        }
        if round != Round::Last && error.may_settle_later() {
            for document in self.documents {
                if let Some(document) = run.defer(document) {
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
            // What it held back stays, and the document unsettled: the next run does it again.
            run.unhold(&document.key);
            run.fail(document, Failure::of_error(&document.origin, &document.label, error));
        }
    }

    /// Documents from which a child was taken while they were compared are looked at again at the end.
    fn look_again(mut self, run: &Run, mut robbed: Vec<usize>) {
        robbed.sort_unstable();
        for at in robbed.into_iter().rev() {
            // Where too many wait already the next run finds it: the document was unsettled as it was robbed.
            let _ = run.defer(self.documents.swap_remove(at));
        }
        self.documents.into_iter().for_each(|document| run.keep_holder(document));
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
                    if let Some(document) = run.defer(document) {
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

/// A batch with what is recorded of its documents.
struct Recorded<'a> {
    documents: &'a [Prepared],
    states: Vec<Option<State>>,
    /// Documents whose rows are as they should be, going by what is recorded.
    same: Vec<usize>,
    /// The others, and where they stand among the documents.
    looked_at: Vec<&'a Prepared>,
    places: Vec<usize>,
}

impl Recorded<'_> {
    /// What the planner sees of it.
    fn view<'v>(&self, run: &'v Run, sides: &'v [Sides], last: bool) -> Batch<'v> {
        let documents = self.looked_at.len();
        Batch { mapping: &run.mapping, schema: &run.schema, sides, documents, holds: !last }
    }

    /// The plan's groups as places among all documents, those that are as they should be before them.
    fn groups(&self, plan: &Plan) -> Vec<Vec<usize>> {
        if plan.groups.is_empty() {
            return Vec::new();
        }
        let same = self.same.iter().map(|&at| vec![at]);
        let place = |&document: &u32| self.places[document as usize];
        same.chain(plan.groups.iter().map(|group| group.iter().map(place).collect())).collect()
    }
}

/// What a batch wrote.
struct Written {
    sides: Vec<Sides>,
    plan: Plan,
    times: Vec<Duration>,
    /// Per document looked at, whether removals of it wait for the end of the feed.
    held: Vec<bool>,
}

/// One try. `groups` is told which documents cannot be applied without each other, if that was found out.
async fn transact(
    run: &Run,
    documents: &[Prepared],
    limits: Limits,
    last: bool,
    groups: &mut Vec<Vec<usize>>,
) -> Result<Tried, Error> {
    let mut connection = run.connections.get().await?;
    let transaction = begin(&mut connection, limits).await?;
    state::enter(&transaction, &run.lease).await?;
    let batch = recorded(run, &transaction, documents).await?;
    let mut repeats = repeats(run, &batch);
    let roots = roots(&transaction, &run.mapping, &run.schema, &batch.looked_at).await?;
    let former = former(run, &transaction, &batch, &roots, &mut repeats).await?;
    if !repeats.is_empty() {
        return Ok(Tried::Conflicts(repeats));
    }
    let active = active(run, &batch, &roots);
    let compared = compare(&transaction, &run.mapping, &run.schema, &batch.looked_at, &active, roots).await?;
    let (conflicts, robbed) = claims(run, &transaction, &batch.looked_at, &compared.sides, last).await?;
    if !conflicts.is_empty() {
        let place = |conflict: Conflict| Conflict { document: batch.places[conflict.document], ..conflict };
        return Ok(Tried::Conflicts(conflicts.into_iter().map(place).collect()));
    }
    let conflicts = unwanted(run, &transaction, &batch, &compared.sides, last).await?;
    if !conflicts.is_empty() {
        return Ok(Tried::Conflicts(conflicts));
    }
    let plan = planned(run, &transaction, &batch, &compared.sides, last).await?;
    *groups = batch.groups(&plan);
    let written = write(run, &transaction, &batch, compared, plan).await?;
    state::unsettle(&transaction, run.lease.mapping, &robbed).await?;
    state::forget(&transaction, run.lease.mapping, &former).await?;
    renew(run, &transaction, &batch).await?;
    let records = records(&batch, &written.held);
    state::record(&transaction, run.lease.mapping, &records).await?;
    let named = |error: tokio_postgres::Error| named_by_table(&run.mapping, &run.schema, error.into());
    transaction.commit().await.map_err(named)?;
    let unsettled = records.iter().filter(|record| !record.settled).count();
    Ok(Tried::Committed(committed(run, &batch, &written, unsettled, last)))
}

async fn recorded<'a>(
    run: &Run,
    transaction: &Transaction<'_>,
    documents: &'a [Prepared],
) -> Result<Recorded<'a>, Error> {
    let keys: Vec<&DocumentKey> = documents.iter().map(|document| &document.key).collect();
    let found = state::states(transaction, run.lease.mapping, &keys).await?;
    let mut found: HashMap<DocumentKey, State> = found.into_iter().collect();
    let states: Vec<Option<State>> = keys.iter().map(|key| found.remove(key)).collect();
    let (same, places): (Vec<usize>, Vec<usize>) =
        (0..documents.len()).partition(|&at| is_settled(&documents[at], states[at].as_ref()));
    let looked_at = places.iter().map(|&at| &documents[at]).collect();
    Ok(Recorded { documents, states, same, looked_at, places })
}

/// Documents that give up what others refer to, where the server would not refuse that. At the end of the feed the
/// others may have let go.
async fn unwanted(
    run: &Run,
    transaction: &Transaction<'_>,
    batch: &Recorded<'_>,
    sides: &[Sides],
    last: bool,
) -> Result<Vec<Conflict>, Error> {
    let found = bystanders(transaction, batch.view(run, sides, last)).await?;
    let conflict = |bystander: Bystander| {
        let at = bystander.document? as usize;
        let document = batch.looked_at[at];
        let failure = Failure {
            relation: Some(run.mapping.relations[bystander.relation].name.clone()),
            ..Failure::of_document(&document.origin, Some(document.label.clone()), bystander.message)
        };
        let verdict = if last { Verdict::Fail(failure) } else { Verdict::Wait(failure) };
        Some(Conflict { document: batch.places[at], verdict })
    };
    Ok(found.into_iter().filter_map(conflict).collect())
}

/// Plans the batch; what only the server can judge it is asked.
async fn planned(
    run: &Run,
    transaction: &Transaction<'_>,
    batch: &Recorded<'_>,
    sides: &[Sides],
    last: bool,
) -> Result<Plan, Error> {
    let batch = batch.view(run, sides, last);
    let conflicts = judge::conflicts(transaction, &run.schema, sides, &questions(batch)).await?;
    Ok(plan(batch, &conflicts))
}

async fn write(
    run: &Run,
    transaction: &Transaction<'_>,
    batch: &Recorded<'_>,
    compared: Compared,
    plan: Plan,
) -> Result<Written, Error> {
    let Compared { sides, times } = compared;
    let marking = marking(run, transaction, &batch.looked_at, &plan).await?;
    let mut writer = Writer::new(transaction, &run.mapping, &run.schema, &sides, &marking, &plan).await?;
    let times = writer.apply(&plan, times).await?;
    let held = held_documents(&sides, &plan, batch.looked_at.len());
    Ok(Written { sides, plan, times, held })
}

/// Counts and remembers what was committed. Gives the documents from which a child was taken meanwhile.
fn committed(run: &Run, batch: &Recorded<'_>, written: &Written, unsettled: usize, last: bool) -> Vec<usize> {
    let plan = &written.plan;
    tracing::debug!(documents = batch.documents.len(), plan = %plan.describe(&run.mapping), "committed");
    run.tally(|tally| {
        tally.applied(plan, marks(run, plan), &written.times);
        tally.report.documents.unsettled += unsettled as u64;
        let skipped = batch.looked_at.iter().map(|document| u64::from(document.rows.skipped_lookups));
        tally.report.skipped_lookups += skipped.sum::<u64>();
    });
    decide(run, batch, &written.sides, plan);
    hold(run, &batch.looked_at, written);
    if last {
        let decided = batch.looked_at.iter().filter(|document| run.unhold(&document.key)).count() as u64;
        run.tally(|tally| {
            let unsettled = &mut tally.report.documents.unsettled;
            *unsettled = unsettled.saturating_sub(decided);
        });
    }
    let keys = batch.documents.iter().map(|document| &document.key).enumerate();
    keys.filter(|(_, key)| !last && run.registry().take_robbed(key)).map(|(at, _)| at).collect()
}

/// Documents of which another version was skipped by its bytes in this feed. Of two versions the first counts.
fn repeats(run: &Run, batch: &Recorded<'_>) -> Vec<Conflict> {
    let documents = batch.documents.iter().zip(&batch.states).enumerate();
    let verdict = |(at, (document, state)): (usize, (&Prepared, &Option<State>))| {
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
async fn former(
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
        state::states(transaction, run.lease.mapping, &keys).await?.into_iter().collect();
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

/// The relations that must be compared, per document looked at. What is recorded counts only if it is about the
/// document's row.
fn active(run: &Run, batch: &Recorded<'_>, roots: &Roots) -> Active {
    let of = |(at, document): (usize, &&Prepared)| {
        let state = batch.states[batch.places[at]].as_ref();
        differing(run, document, state.filter(|_| roots.is_recorded(at, document)))
    };
    batch.looked_at.iter().enumerate().map(of).collect()
}

/// Whether the rows of a document are stored as it asks for, going by what was recorded.
fn is_settled(document: &Prepared, state: Option<&State>) -> bool {
    state.is_some_and(|state| state.settled && state.fingerprint == Some(document.fingerprints.document))
}

/// The relations of a document that must be compared. The root is: the others hang on it.
fn differing(run: &Run, document: &Prepared, state: Option<&State>) -> Vec<bool> {
    let recorded: HashSet<_> = match state {
        Some(state) if state.settled => state.relations.iter().collect(),
        _ => HashSet::new(),
    };
    let relations = document.fingerprints.relations.iter();
    let mut differs: Vec<bool> = relations.map(|fingerprint| !recorded.contains(fingerprint)).collect();
    differs[0] = true;
    close(&run.mapping, &run.schema, &mut differs);
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
    let of_root = plan.steps.iter().filter(|step| step.relation == 0 && !step.action.is_detour());
    of_root.map(|step| step.action.rows() as u64).sum()
}

/// Per document, whether removals of it are held back to the end of the feed.
fn held_documents(sides: &[Sides], plan: &Plan, documents: usize) -> Vec<bool> {
    let mut held = vec![false; documents];
    for &(ix, row) in &plan.held {
        if let Some(document) = sides[ix].stored[row as usize].document {
            held[document as usize] = true;
        }
    }
    held
}

fn records<'a>(batch: &'a Recorded<'_>, held: &[bool]) -> Vec<Record<'a>> {
    let record = |(at, document): (usize, &&'a Prepared)| Record {
        key: &document.key,
        before: batch.states[batch.places[at]].as_ref(),
        raw: document.raw,
        fingerprint: document.fingerprints.document,
        relations: &document.fingerprints.relations,
        settled: !held[at] && document.rows.skipped_lookups == 0,
    };
    batch.looked_at.iter().enumerate().map(record).collect()
}

/// Records the new spelling of documents whose rows are as they were.
async fn renew(run: &Run, transaction: &Transaction<'_>, batch: &Recorded<'_>) -> Result<(), Error> {
    let respelled = batch.same.iter().filter_map(|&at| {
        let (document, state) = (&batch.documents[at], batch.states[at].as_ref()?);
        let renewed = (&document.key, document.fingerprints.document, document.raw);
        (state.raw != Some(document.raw)).then_some(renewed)
    });
    state::renew_raw(transaction, run.lease.mapping, &respelled.collect::<Vec<_>>()).await
}

fn decide(run: &Run, batch: &Recorded<'_>, sides: &[Sides], plan: &Plan) {
    for &at in &batch.same {
        run.decide(&batch.documents[at].key, Outcome::Unchanged);
    }
    let added = sides[0].changes.added.iter();
    let new: HashSet<u32> = added.map(|&row| sides[0].source[row as usize].document).collect();
    for (place, document) in batch.looked_at.iter().enumerate() {
        let outcome = match () {
            () if new.contains(&(place as u32)) => Outcome::New,
            () if plan.touched[place] => Outcome::Changed,
            () => Outcome::Unchanged,
        };
        run.decide(&document.key, outcome);
    }
}

/// Remembers the removals that wait, and the children that other documents may now take.
fn hold(run: &Run, documents: &[&Prepared], written: &Written) {
    let Written { sides, plan, held, .. } = written;
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
        run.hold(document.key.clone(), Held { origin, label, fingerprint, rows });
    }
    let mut registry = run.registry();
    for (ix, side) in sides.iter().enumerate() {
        if run.mapping.relations[ix].unique_in == UniqueIn::All {
            let key = |row: u32| compared_key(&run.schema.tables[ix], &side.stored[row as usize].tuple);
            side.changes.removed.iter().for_each(|&row| registry.release(ix, key(row)));
            side.changes.moved.iter().for_each(|&(row, _)| registry.settle(ix, key(row)));
        }
    }
}
