//! One batch: look up, compare, plan, write and record in one transaction. What to do when that fails is said in
//! `apply`.

mod outcome;
mod removals;
mod repeats;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_postgres::{Client, Transaction};
use tracing::Instrument as _;

use crate::document::{DocumentKey, Origin};
use crate::engine::apply::Round;
use crate::engine::bystanders::{Bystander, bystanders};
use crate::engine::changes::Pending;
use crate::engine::claims::{Conflict, Verdict, claims};
use crate::engine::compare::{Active, Compared, below_silence, close, compare};
use crate::engine::guard::Reservation;
use crate::engine::handover::{Detached, attach, detach, rewritten};
use crate::engine::prepare::Prepared;
use crate::engine::registry::Turn;
use crate::engine::report::Failure;
use crate::engine::respelled::renewal;
use crate::engine::rewritten::{self, Known, Traces};
use crate::engine::roots::{Roots, roots};
use crate::engine::run::Run;
use crate::engine::spans;
use crate::engine::units::Scope;
use crate::engine::verify::found;
use crate::error::Error;
use crate::plan::{Batch, Marked, Plan, Sides, plan, questions};
use crate::postgres::absent::mark_absent;
use crate::postgres::changes::Change;
use crate::postgres::packing::{self, Renewal};
use crate::postgres::state::{self, Record, State};
use crate::postgres::write::{Marking, Writer, named_by_table, referables, transaction_time};
use crate::postgres::{Limits, begin, discard, judge};
use crate::row::Tuple;
use outcome::{committed, renewed, verified};
use removals::{Removed, reserve};
use repeats::{former, repeats};

pub(super) use removals::{Withheld, removals};

/// Takes note of documents in the order of the feed, and drops repeated ones.
pub(crate) fn admit(run: &Run, documents: Vec<Prepared>) -> Vec<Arc<Prepared>> {
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
                None => admitted.push(Arc::new(document)),
                Some(first) => {
                    run.fail(&document, vec![differs(Some(&document.label), &document.origin, &first)]);
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

/// A document of which another version stands in the feed, there.
pub(super) fn differs(label: Option<&str>, origin: &Origin, first: &Origin) -> Failure {
    let message = format!("stands twice in the feed with different content: first at {first}");
    Failure::of_document(origin, label.map(str::to_owned), message)
}

/// What a try came to, if it did not fail.
pub(super) enum Tried {
    Committed(Vec<usize>),
    /// Nothing was written: these documents conflict with others.
    Conflicts(Vec<Conflict>),
    /// Nothing was written: these documents would delete rows, and in the whole run too many.
    Withheld(Vec<Withheld>),
}

impl Tried {
    fn as_str(&self) -> &'static str {
        match self {
            Tried::Committed(_) => "committed",
            Tried::Conflicts(_) => "conflicts",
            Tried::Withheld(_) => "withheld",
        }
    }
}

/// A batch with what is recorded of its documents.
struct Recorded<'a> {
    began: Instant,
    scope: Scope<'a>,
    documents: &'a [Arc<Prepared>],
    states: Vec<Option<State>>,
    /// Documents whose rows are as they should be, going by what is recorded.
    same: Vec<usize>,
    /// The others, and where they stand among the documents.
    looked_at: Vec<&'a Prepared>,
    places: Vec<usize>,
    /// Per document looked at, whether rows of it were written before.
    touched: Vec<bool>,
    /// Whether other spellings of documents wait for the end of the run.
    keeps_spellings: bool,
}

impl Recorded<'_> {
    /// What the planner sees of it.
    fn view<'v>(&'v self, run: &'v Run, sides: &'v [Sides], holds: bool) -> Batch<'v> {
        let documents = self.looked_at.len();
        let marked = if self.scope.settles() { Marked::Also(&self.touched) } else { Marked::No };
        Batch { mapping: &run.mapping, schema: &run.schema, sides, documents, holds, marked }
    }

    /// Whether a document's root row is marked as missing.
    fn is_back(&self, at: usize) -> bool {
        self.states[at].as_ref().is_some_and(|state| state.absent)
    }

    /// The plan's groups as places among all documents, those that are as they should be before them. `giving`: documents
    /// that give up a key to which others refer.
    fn groups(&self, plan: &Plan, giving: &BTreeSet<u32>) -> Vec<Vec<usize>> {
        if plan.groups.is_empty() {
            return Vec::new();
        }
        let same = self.same.iter().map(|&at| vec![at]);
        let place = |&document: &u32| self.places[document as usize];
        let group = |at: usize| plan.groups[at].iter().map(place).collect();
        same.chain(plan.one_by_one(giving).into_iter().map(group)).collect()
    }
}

/// What a batch wrote.
struct Written {
    sides: Vec<Sides>,
    plan: Plan,
    times: Vec<Duration>,
    /// How many rows were detached and attached again.
    detached: u64,
    /// Per document looked at, whether removals of it wait for the end of the feed.
    held: Vec<bool>,
    removed: Removed,
    traces: Traces,
}

impl Written {
    /// What would be written.
    fn foreseen(run: &Run, batch: &Recorded<'_>, compared: Compared, plan: Plan, removed: Removed) -> Self {
        let Compared { sides, restored, times, .. } = compared;
        let held = held_documents(&sides, &plan, batch.looked_at.len());
        let referables = |(table, side)| referables(table, side, Vec::new());
        let references = run.schema.tables.iter().zip(&sides).map(referables).collect();
        let traces = Traces { restored, places: HashMap::new(), references };
        Written { sides, plan, times, detached: 0, held, removed, traces }
    }

    fn view<'v>(&'v self, batch: &'v Recorded<'_>, active: &'v Active) -> rewritten::Batch<'v> {
        let (documents, sides, plan, traces) = (&batch.looked_at, &self.sides, &self.plan, &self.traces);
        let unmarked = batch.places.iter().map(|&at| batch.is_back(at)).collect();
        rewritten::Batch { documents, active, sides, plan, traces, unmarked }
    }

    /// Every row that was written, in words, if anybody wants to know; behind it root rows whose mark was taken away.
    async fn changes(
        &self,
        run: &Run,
        transaction: &Transaction<'_>,
        batch: &Recorded<'_>,
        unmarked: Vec<Change>,
    ) -> Result<Vec<Change>, Error> {
        let keys: Vec<&DocumentKey> = batch.looked_at.iter().map(|document| &document.key).collect();
        let references = &self.traces.references;
        let mut changes = run.changes(transaction, &self.sides, &self.plan, references, &keys).await?;
        changes.extend(unmarked);
        Ok(changes)
    }
}

/// One try. `groups` is told which documents cannot be applied without each other, if that was found out.
pub(super) async fn transact(
    run: &Run,
    documents: &[Arc<Prepared>],
    limits: Limits,
    round: Round,
    scope: Scope<'_>,
    groups: &mut Vec<Vec<usize>>,
) -> Result<Tried, Error> {
    let slot = run.slots.acquire().await.map_err(crate::engine::panicked)?;
    let mut connection = run.connection().await?;
    let began = Instant::now();
    let span = spans::transaction(documents.len(), round.as_str());
    let tried = transact_on(&mut connection, run, documents, limits, round, scope, groups);
    let tried = tried.instrument(span.clone()).await;
    let is_committed = matches!(tried, Ok((Tried::Committed(_), _)));
    run.meters.transaction(is_committed, began.elapsed());
    if !is_committed {
        run.took(documents.iter().map(|document| &**document), began.elapsed());
    }
    match &tried {
        Ok((tried, _)) => span.record("outcome", tried.as_str()),
        Err(error) => spans::failed(&span, error),
    };
    match tried.as_ref().is_err_and(Error::is_out_of_step) {
        true => discard(connection),
        false => drop(connection),
    }
    drop(slot);
    if tried.is_err() {
        run.tell_unsure().await;
    }
    let (tried, changes) = tried?;
    if let Some(changes) = changes {
        changes.tell().await;
    }
    Ok(tried)
}

async fn transact_on<'r>(
    client: &mut Client,
    run: &'r Run,
    documents: &[Arc<Prepared>],
    limits: Limits,
    round: Round,
    scope: Scope<'_>,
    groups: &mut Vec<Vec<usize>>,
) -> Result<(Tried, Option<Pending<'r>>), Error> {
    let last = round != Round::Feed;
    let transaction = begin(client, limits).await?;
    if run.purpose.writes() {
        state::enter(&transaction, &run.lease).await?;
    }
    let batch = recorded(run, &transaction, documents, scope).await?;
    let mut repeats = repeats(run, &batch);
    let roots = roots(&transaction, &run.mapping, &run.schema, &batch.looked_at).await?;
    let former = former(run, &transaction, &batch, &roots, &mut repeats).await?;
    if !repeats.is_empty() {
        return Ok((Tried::Conflicts(repeats), None));
    }
    let active = active(run, &batch, &roots);
    let mut known = Known::of(run, &transaction, &batch.looked_at, &roots).await?;
    let mut compared =
        compare(&transaction, &run.mapping, &run.schema, &batch.looked_at, &active, roots, &mut known)
            .await?;
    if let Some(foresight) = run.purpose.foresight() {
        foresight.leave_moved(&run.mapping, &run.schema, &mut compared.sides);
    }
    let (conflicts, robbed) = claims(run, &transaction, &batch.looked_at, &compared.sides, last).await?;
    if !conflicts.is_empty() {
        let place = |conflict: Conflict| Conflict { document: batch.places[conflict.document], ..conflict };
        return Ok((Tried::Conflicts(conflicts.into_iter().map(place).collect()), None));
    }
    let found = found(run, &transaction, &batch.looked_at, &compared.sides).await?;
    if run.purpose.names_only() {
        transaction.commit().await?;
        verified(run, &batch, &compared.sides, found);
        return Ok((Tried::Committed(Vec::new()), None));
    }
    let holds = !last || !run.asked_for(&compared.sides).is_empty();
    // Before the last round rows that refer to a key may yet go, or be written by their own documents.
    let (detached, giving) = match round {
        Round::Last if run.purpose.writes() => {
            detach(&transaction, batch.view(run, &compared.sides, holds)).await?
        }
        _ => Default::default(),
    };
    let conflicts = unwanted(run, &transaction, &batch, &compared.sides, round, holds).await?;
    if !conflicts.is_empty() {
        return Ok((Tried::Conflicts(conflicts), None));
    }
    let plan = planned(run, &transaction, &batch, &compared.sides, holds).await?;
    tracing::debug!(documents = batch.documents.len(), round = round.as_str(), plan = %plan.describe(&run.mapping), "planned");
    *groups = batch.groups(&plan, &giving);
    let (reservation, removed) = match reserve(run, &transaction, &batch, &compared.sides).await? {
        Ok(reserved) => reserved,
        Err(withheld) => return Ok((Tried::Withheld(withheld), None)),
    };
    let written = match run.purpose.writes() {
        true => write(run, &transaction, &batch, compared, plan, &detached, removed).await?,
        false => Written::foreseen(run, &batch, compared, plan, removed),
    };
    let records = records(&batch, &written.held);
    let unsettled = records.iter().filter(|record| !record.settled && scope.settles()).count();
    if run.purpose.writes() {
        state::unsettle(&transaction, run.lease.mapping, &robbed).await?;
        state::forget(&transaction, run.lease.mapping, &former).await?;
        renew(run, &transaction, &batch).await?;
        let news: Vec<Record<'_>> = records.into_iter().filter(Record::is_news).collect();
        state::record(&transaction, run.lease.mapping, &run.schema, &news).await?;
    }
    let unmarked = unmark(run, &transaction, &batch).await?;
    if run.purpose.writes() {
        rewritten::record(run, &transaction, &known, written.view(&batch, &active)).await?;
    }
    let changes = written.changes(run, &transaction, &batch, unmarked).await?;
    let pending = run.pend(&transaction, changes).await?;
    let named = |error: tokio_postgres::Error| named_by_table(&run.mapping, &run.schema, error.into());
    let pending = run.commit(transaction, pending).await.map_err(named)?;
    reservation.into_iter().for_each(Reservation::keep);
    run.purpose.findings().into_iter().for_each(|findings| findings.note(&run.mapping, &found));
    if let Some(foresight) = run.purpose.foresight() {
        foresight.note_moves(&run.schema, &written.sides);
    }
    Ok((Tried::Committed(committed(run, &batch, &written, unsettled, last)), Some(pending)))
}

async fn recorded<'a>(
    run: &Run,
    transaction: &Transaction<'_>,
    documents: &'a [Arc<Prepared>],
    scope: Scope<'a>,
) -> Result<Recorded<'a>, Error> {
    let began = Instant::now();
    let keys: Vec<&DocumentKey> = documents.iter().map(|document| &document.key).collect();
    let found = state::states(transaction, run.lease.mapping, &run.schema, &keys).await?;
    let mut found: HashMap<DocumentKey, State> = found.into_iter().collect();
    let states: Vec<Option<State>> = keys.iter().map(|key| found.remove(key)).collect();
    let (same, places): (Vec<usize>, Vec<usize>) = (0..documents.len()).partition(|&at| {
        scope.settles() && run.trusts(&documents[at].key) && is_settled(&documents[at], states[at].as_ref())
    });
    let looked_at: Vec<&Prepared> = places.iter().map(|&at| &*documents[at]).collect();
    let touched = looked_at.iter().map(|document| scope.before(document).1).collect();
    let keeps_spellings = run.keeps_spellings();
    Ok(Recorded { began, scope, documents, states, same, looked_at, places, touched, keeps_spellings })
}

/// Documents that give up what others refer to, where the server would not refuse that. Later the others may have let
/// go.
async fn unwanted(
    run: &Run,
    transaction: &Transaction<'_>,
    batch: &Recorded<'_>,
    sides: &[Sides],
    round: Round,
    holds: bool,
) -> Result<Vec<Conflict>, Error> {
    // Where nothing is written the others cannot have let go.
    let found = match run.purpose.writes() {
        true => bystanders(transaction, batch.view(run, sides, holds)).await?,
        false => Vec::new(),
    };
    let conflict = |bystander: Bystander| {
        let at = bystander.document? as usize;
        let document = batch.looked_at[at];
        let failure = Failure {
            relation: Some(run.mapping.relations[bystander.relation].name.clone()),
            ..Failure::of_document(&document.origin, Some(document.label.clone()), bystander.message)
        };
        let verdict = if round == Round::Last { Verdict::Fail(failure) } else { Verdict::Wait(failure) };
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
    holds: bool,
) -> Result<Plan, Error> {
    let view = batch.view(run, sides, holds);
    let conflicts = judge::conflicts(transaction, &run.schema, sides, &questions(view)).await?;
    let mut plan = plan(view, &conflicts);
    let uncounted = plan.unchanged.iter_mut().enumerate().filter(|(ix, _)| !batch.scope.counts(*ix));
    uncounted.for_each(|(_, rows)| *rows = 0);
    Ok(plan)
}

/// Takes the mark from the root rows of documents that are back.
async fn unmark(
    run: &Run,
    transaction: &Transaction<'_>,
    batch: &Recorded<'_>,
) -> Result<Vec<Change>, Error> {
    let documents = batch.places.iter().filter(|&&at| batch.is_back(at)).map(|&at| &batch.documents[at]);
    let keys: Vec<Tuple> = documents
        .map(|document| document.rows.relations[0].rows[0].tuple.project(&run.schema.tables[0].key))
        .collect();
    Ok(mark_absent(transaction, &run.mapping, &run.schema, &keys, run.absent_mark(false)).await?.1)
}

async fn write(
    run: &Run,
    transaction: &Transaction<'_>,
    batch: &Recorded<'_>,
    compared: Compared,
    plan: Plan,
    detached: &[Detached],
    removed: Removed,
) -> Result<Written, Error> {
    let Compared { sides, restored, traced, times } = compared;
    let marking = match batch.scope.settles() {
        true => Some(marking(run, transaction, &batch.looked_at, &plan).await?),
        false => None,
    };
    let rewritten = rewritten(detached);
    let (view, told) = (batch.view(run, &sides, false), run.outlet.telling().on);
    let mut writer = Writer::new(transaction, view, marking.as_ref(), &plan, rewritten, told).await?;
    writer.traced = traced;
    let times = writer.apply(&plan, times).await?;
    attach(transaction, &run.schema, detached, writer.rewritten()).await?;
    let traces = Traces { restored, places: writer.places, references: writer.references };
    let held = held_documents(&sides, &plan, batch.looked_at.len());
    Ok(Written { sides, plan, times, detached: detached.len() as u64, held, removed, traces })
}

/// The relations that must be compared, per document looked at. What is recorded counts only if it is about the
/// document's row.
fn active(run: &Run, batch: &Recorded<'_>, roots: &Roots) -> Active {
    let of = |(at, document): (usize, &&Prepared)| {
        let state = batch.states[batch.places[at]].as_ref();
        let state = state.filter(|_| run.trusts(&document.key) && roots.is_recorded(at, document));
        let is_ours = state.is_some_and(|state| state.fingerprint == Some(document.fingerprints.document));
        batch.scope.active(document, is_ours, || differing(run, document, state))
    };
    batch.looked_at.iter().enumerate().map(of).collect()
}

/// Whether the rows of a document are stored as it asks for, going by what was recorded.
pub(super) fn is_settled(document: &Prepared, state: Option<&State>) -> bool {
    state.is_some_and(|state| state.settled && state.fingerprint == Some(document.fingerprints.document))
}

/// The relations of a document that must be compared. The root is: the others hang on it.
pub(super) fn differing(run: &Run, document: &Prepared, state: Option<&State>) -> Vec<bool> {
    let recorded: HashSet<_> = match state {
        Some(state) if state.settled => state.relations.iter().collect(),
        _ => HashSet::new(),
    };
    let relations = document.fingerprints.relations.iter();
    let mut differs: Vec<bool> = relations.map(|fingerprint| !recorded.contains(fingerprint)).collect();
    differs[0] = true;
    below_silence(&run.mapping, &mut differs);
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
        settled: batch.scope.settles() && !held[at] && document.rows.skipped_lookups == 0,
        coverage: &document.coverage,
    };
    let recorded = batch.looked_at.iter().enumerate().filter(|_| batch.scope.records());
    recorded.map(record).collect()
}

/// Records the new spelling of documents, where that pays and it is not kept for the end of the run.
async fn renew(run: &Run, transaction: &Transaction<'_>, batch: &Recorded<'_>) -> Result<(), Error> {
    let renewals: Vec<Renewal> = match batch.keeps_spellings {
        true => Vec::new(),
        false => renewed(run, batch).map(renewal).collect(),
    };
    packing::renew_raw(transaction, run.lease.mapping, &renewals).await
}
