//! One run: what its workers share.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OnceCell, Semaphore};
use tokio_postgres::Transaction;

use crate::document::{DocumentKey, Origin, short};
use crate::engine::Options;
use crate::engine::changes::{self, Outlet, Pending, Written};
use crate::engine::foresight::Foresight;
use crate::engine::guard::{Guard, Rows};
use crate::engine::metrics::Meters;
use crate::engine::patience::Patience;
use crate::engine::plan::Expected;
use crate::engine::prepare::Prepared;
use crate::engine::progress::Stopwatch;
use crate::engine::registry::{Outcome, Registry};
use crate::engine::report::Failure;
use crate::engine::respelled::Spellings;
use crate::engine::settled::AllSettled;
use crate::engine::tally::Tally;
use crate::engine::units::Units;
use crate::engine::verify::Findings;
use crate::error::Error;
use crate::fingerprint::{DocumentFingerprint, comparison_key};
use crate::mapping::{Mapping, RelationIx, UniqueIn};
use crate::plan::{Plan, Sides};
use crate::postgres::absent::AbsentMark;
use crate::postgres::changes::{Change, is_committed};
use crate::postgres::state::{self, Lease};
use crate::postgres::{Connection, Connections, Limits};
use crate::row::Tuple;
use crate::schema::Schema;
use crate::shred::Answers;

/// What a run believes, and what it does about what differs.
#[derive(Clone)]
pub(crate) enum Purpose {
    /// Believes what is recorded, and writes what differs.
    Sync,
    /// Compares every row, names what differs and writes it.
    Repair(Arc<Findings>),
    /// Compares every row and names what differs. Writes nothing.
    Verify(Arc<Findings>),
    /// Believes what is recorded, and tells what differs. Writes nothing.
    Plan(Arc<Foresight>),
}

impl Purpose {
    /// Whether rows are left unread that are as they should be going by what is recorded.
    pub fn trusts(&self) -> bool {
        matches!(self, Purpose::Sync | Purpose::Plan(_))
    }

    pub fn as_str(&self) -> &'static str {
        match self {
            Purpose::Sync => "sync",
            Purpose::Repair(_) => "repair",
            Purpose::Verify(_) => "verify",
            Purpose::Plan(_) => "plan",
        }
    }

    pub fn writes(&self) -> bool {
        matches!(self, Purpose::Sync | Purpose::Repair(_))
    }

    /// Whether it is enough to name what differs.
    pub fn names_only(&self) -> bool {
        matches!(self, Purpose::Verify(_))
    }

    /// Whether documents that a complete feed lacks are removed.
    pub fn sweeps(&self) -> bool {
        matches!(self, Purpose::Sync | Purpose::Plan(_))
    }

    /// What would be otherwise by now, had anything been written.
    pub fn foresight(&self) -> Option<&Foresight> {
        match self {
            Purpose::Plan(foresight) => Some(foresight),
            _ => None,
        }
    }

    /// Where what differs is noted, if it is.
    pub fn findings(&self) -> Option<&Findings> {
        match self {
            Purpose::Sync | Purpose::Plan(_) => None,
            Purpose::Repair(findings) | Purpose::Verify(findings) => Some(findings),
        }
    }
}

/// What is learnt before a run reads its feed.
pub(crate) struct Loaded {
    /// The run's number in the ledger; 0 of one that writes nothing.
    pub number: i64,
    pub lease: Lease,
    pub registry: Registry,
    /// Whether rows may be stored otherwise than they are sent, or were.
    pub rewrites: bool,
    pub stopwatch: Arc<Stopwatch>,
}

/// What the workers of a run share.
pub(crate) struct Run {
    /// In the ledger.
    pub number: i64,
    pub purpose: Purpose,
    pub mapping: Arc<Mapping>,
    pub schema: Schema,
    pub connections: Arc<dyn Connections>,
    pub options: Options,
    pub patience: Arc<Patience>,
    pub lease: Lease,
    pub guard: Guard,
    /// What is stored in one transaction, where it is not a document.
    pub units: Option<Units>,
    /// Bounds the transactions at once.
    pub slots: Semaphore,
    /// Whether rows may be stored otherwise than they are sent, or were.
    pub rewrites: bool,
    pub stopwatch: Arc<Stopwatch>,
    pub meters: Meters,
    /// Where changes are told.
    pub outlet: Outlet,
    /// What is recorded of all settled documents, once many had to be looked up.
    pub settled: OnceCell<Option<AllSettled>>,
    registry: Mutex<Registry>,
    tally: Mutex<Tally>,
    answers: Mutex<Vec<Answers>>,
    gathered: Mutex<Kept>,
    deferred: Mutex<Kept>,
    holders: Mutex<Kept>,
    held: Mutex<HashMap<DocumentKey, Held>>,
    /// Per document, how many rows may be removed because of it.
    reserved: Mutex<HashMap<DocumentKey, Rows>>,
    distrusted: Mutex<Vec<DocumentKey>>,
    spellings: Mutex<Spellings>,
    /// Per relation, keys that documents ask for which are not stored, or were not when they were tried.
    wanted: Mutex<HashMap<RelationIx, HashSet<u64>>>,
}

/// Documents kept for the end of the feed.
#[derive(Default)]
struct Kept {
    documents: Vec<Arc<Prepared>>,
    bytes: usize,
}

impl Kept {
    /// Gives the document back where too many are kept already.
    fn keep(&mut self, document: Arc<Prepared>, bytes_max: usize) -> Option<Arc<Prepared>> {
        if self.bytes + document.bytes > bytes_max {
            return Some(document);
        }
        self.bytes += document.bytes;
        self.documents.push(document);
        None
    }
}

/// The removals of a document that wait for the end of the feed.
pub(crate) struct Held {
    pub origin: Origin,
    /// The document's key in words.
    pub label: String,
    /// What was recorded of it: it is settled only if that still stands.
    pub fingerprint: DocumentFingerprint,
    /// Topmost rows to remove.
    pub rows: Vec<HeldRow>,
    /// Whether it is done with its rows: no reference of it was left out.
    pub settles: bool,
}

/// A row that goes, unless it has moved by then.
pub(crate) struct HeldRow {
    pub relation: RelationIx,
    /// The mapped key's cells; empty for a row identified by content.
    pub key: Tuple,
    /// The row's own locator.
    pub place: Tuple,
    /// What it refers to.
    pub reference: Tuple,
}

impl Run {
    pub fn new(
        purpose: Purpose,
        mapping: Arc<Mapping>,
        schema: Schema,
        connections: Arc<dyn Connections>,
        options: Options,
        patience: Arc<Patience>,
        Loaded { number, lease, registry, rewrites, stopwatch }: Loaded,
    ) -> Self {
        let guard = Guard::new(mapping.name.clone(), options.delete_limits);
        let meters = Meters::of(&mapping.name);
        let tally = Mutex::new(Tally::new(&mapping));
        // A repair compares documents as a whole.
        let units = Units::of(&mapping, &schema).filter(|_| matches!(purpose, Purpose::Sync));
        let slots = Semaphore::new(options.workers);
        let expected = options.only.as_ref().map(|plan| Expected::of(&mapping, plan));
        let outlet = Outlet::new(options.changes.clone(), options.history.then_some(lease.mapping), expected);
        Run {
            number,
            purpose,
            mapping,
            schema,
            connections,
            options,
            patience,
            lease,
            guard,
            units,
            slots,
            rewrites,
            stopwatch,
            meters,
            outlet,
            settled: OnceCell::new(),
            registry: Mutex::new(registry),
            tally,
            answers: Mutex::default(),
            gathered: Mutex::default(),
            deferred: Mutex::default(),
            holders: Mutex::default(),
            held: Mutex::default(),
            reserved: Mutex::default(),
            distrusted: Mutex::default(),
            spellings: Mutex::default(),
            wanted: Mutex::default(),
        }
    }

    /// Whether what is recorded of a document is believed.
    pub fn trusts(&self, key: &DocumentKey) -> bool {
        let is_doubted = self.purpose.foresight().is_some_and(|foresight| foresight.doubts(key));
        self.purpose.trusts() && !is_doubted
    }

    /// Checks the lease for the rest of a transaction, if it writes.
    pub async fn enter(&self, transaction: &Transaction<'_>) -> Result<(), Error> {
        if self.purpose.writes() { state::enter(transaction, &self.lease).await } else { Ok(()) }
    }

    /// How root rows get the mark of documents that are missing, or lose it.
    pub fn absent_mark(&self, is_absent: bool) -> AbsentMark {
        AbsentMark { is_absent, telling: self.outlet.telling(), writes: self.purpose.writes() }
    }

    pub fn limits(&self) -> Limits {
        self.options.limits(!self.purpose.writes())
    }

    /// A connection from the caller's pool.
    pub async fn connection(&self) -> Result<Connection, Error> {
        self.patience.connection(&*self.connections).await
    }

    /// The changes of what a transaction wrote, if anybody wants to know.
    pub async fn changes(
        &self,
        transaction: &Transaction<'_>,
        sides: &[Sides],
        plan: &Plan,
        references: &[Vec<Tuple>],
        keys: &[&DocumentKey],
    ) -> Result<Vec<Change>, Error> {
        if !self.outlet.telling().on {
            return Ok(Vec::new());
        }
        let (mapping, schema, foresight) = (&*self.mapping, &self.schema, self.purpose.foresight());
        let written = Written { mapping, schema, sides, plan, references, keys, foresight };
        changes::changes(transaction, written).await
    }

    /// Keeps changes, if they are to be kept, and has them wait for the commit, which must follow.
    pub async fn pend(
        &self,
        transaction: &Transaction<'_>,
        changes: Vec<Change>,
    ) -> Result<Pending<'_>, Error> {
        self.outlet.pend(transaction, changes).await
    }

    /// Commits. If that fails it may have been done all the same: see [`Self::tell_unsure`].
    pub async fn commit<'r>(
        &'r self,
        transaction: Transaction<'_>,
        pending: Pending<'r>,
    ) -> Result<Pending<'r>, tokio_postgres::Error> {
        match transaction.commit().await {
            Ok(()) => Ok(pending),
            Err(error) => {
                self.outlet.doubt(pending);
                Err(error)
            }
        }
    }

    /// Tells what was committed though the answer to the COMMIT was lost. No connection may be held.
    pub async fn tell_unsure(&self) {
        for (id, pending) in self.outlet.take_unsure() {
            if self.is_committed(&id).await {
                pending.tell().await;
            }
        }
    }

    /// Whether a transaction is committed, going by the server's id of it. No connection may be held.
    pub async fn is_committed(&self, id: &str) -> bool {
        let asked = self.patience.retry(|| async {
            let connection = self.connection().await?;
            is_committed(&connection, id).await
        });
        asked.await.unwrap_or_else(|error| {
            tracing::warn!(%error, "whether changes were committed is not known; they are not told");
            false
        })
    }

    pub fn registry(&self) -> MutexGuard<'_, Registry> {
        lock(&self.registry)
    }

    /// Counts something, and shows it to whoever watches.
    pub fn tally<T>(&self, count: impl FnOnce(&mut Tally) -> T) -> T {
        let mut tally = lock(&self.tally);
        let counted = count(&mut tally);
        self.stopwatch.progress().show(&tally.report, tally.rows);
        counted
    }

    /// A transaction with these documents has taken so long.
    pub fn took<'d>(&self, documents: impl Iterator<Item = &'d Prepared> + Clone, took: Duration) {
        let weight = |document: &Prepared| document.rows.len().max(1) as u32;
        let total: u32 = documents.clone().map(weight).sum();
        self.tally(|tally| {
            for document in documents {
                document.spend(took * weight(document) / total);
                tally.slow(document);
            }
        });
    }

    /// What an earlier batch was told; conversions are forgotten, catalogues remembered.
    pub fn take_answers(&self) -> Answers {
        let answers = lock(&self.answers).pop().unwrap_or_default();
        Answers { leaves_missing: !self.purpose.writes(), ..answers }
    }

    pub fn return_answers(&self, mut answers: Answers) {
        answers.conversions.clear();
        if answers.lookups.iter().map(HashMap::len).sum::<usize>() > CATALOGUE_ROWS_MAX {
            answers.lookups.clear();
        }
        lock(&self.answers).push(answers);
    }

    /// Adds the few documents that are left of a batch to those of others. Gives all of them back once they are a batch.
    pub fn gather(&self, documents: Vec<Arc<Prepared>>) -> Vec<Arc<Prepared>> {
        let mut gathered = lock(&self.gathered);
        gathered.bytes += documents.iter().map(|document| document.bytes).sum::<usize>();
        gathered.documents.extend(documents);
        let options = &self.options;
        let is_full = gathered.documents.len() >= options.batch_documents_max
            || gathered.bytes >= options.batch_bytes_max;
        if is_full { std::mem::take(&mut *gathered).documents } else { Vec::new() }
    }

    pub fn take_gathered(&self) -> Vec<Arc<Prepared>> {
        std::mem::take(&mut *lock(&self.gathered)).documents
    }

    /// Keeps a document for the second try. Gives it back where too many wait already.
    #[must_use]
    pub fn defer(&self, document: Arc<Prepared>) -> Option<Arc<Prepared>> {
        lock(&self.deferred).keep(document, self.options.deferred_bytes_max)
    }

    pub fn take_deferred(&self) -> Vec<Arc<Prepared>> {
        std::mem::take(&mut *lock(&self.deferred)).documents
    }

    pub fn hold(&self, key: DocumentKey, held: Held) {
        lock(&self.held).insert(key, held);
    }

    /// The documents that would remove a row for which another one asks that is not stored.
    pub fn asked_for(&self, sides: &[Sides]) -> HashSet<Option<u32>> {
        let wanted = lock(&self.wanted);
        let of_relation = |(ix, keys): (&RelationIx, &HashSet<u64>)| {
            let (table, side) = (&self.schema.tables[*ix], &sides[*ix]);
            let removed = side.changes.removed.iter().map(|&row| &side.stored[row as usize]);
            let asked =
                removed.filter(|row| keys.contains(&short(comparison_key(table, &row.tuple).as_bytes())));
            asked.map(|row| row.document).collect::<Vec<_>>()
        };
        wanted.iter().flat_map(of_relation).collect()
    }

    /// Notes how many rows may be removed because of a document whose removals were held back.
    pub fn note_reserved(&self, key: &DocumentKey, rows: Rows) {
        let mut reserved = lock(&self.reserved);
        if let Some(before) = reserved.get_mut(key) {
            return before.extend(rows);
        }
        reserved.insert(key.clone(), rows);
    }

    /// Takes off what is reserved already for a document.
    pub fn less_reserved(&self, key: &DocumentKey, rows: &mut Rows) {
        if let Some(reserved) = lock(&self.reserved).get(key) {
            for (table, reserved) in reserved {
                rows.entry(table.clone()).and_modify(|rows| *rows = rows.saturating_sub(*reserved));
            }
        }
    }

    /// Whether removals wait for the end of the feed.
    pub fn holds(&self) -> bool {
        !lock(&self.held).is_empty()
    }

    /// Keeps a document whose removals are held back, should they be in the way of another; if it is not too much.
    pub fn keep_holder(&self, document: Arc<Prepared>) {
        if lock(&self.held).contains_key(&document.key) {
            let _ = lock(&self.holders).keep(document, self.options.deferred_bytes_max);
        }
    }

    pub fn take_holders(&self) -> Vec<Arc<Prepared>> {
        std::mem::take(&mut *lock(&self.holders)).documents
    }

    /// What a document held back was decided. False: it held nothing back.
    pub fn unhold(&self, key: &DocumentKey) -> bool {
        lock(&self.held).remove(key).is_some()
    }

    pub fn take_held(&self) -> HashMap<DocumentKey, Held> {
        std::mem::take(&mut *lock(&self.held))
    }

    /// Notes a document that was stored but must be done again.
    pub fn distrust(&self, key: DocumentKey) {
        lock(&self.distrusted).push(key);
    }

    pub fn take_distrusted(&self) -> Vec<DocumentKey> {
        std::mem::take(&mut *lock(&self.distrusted))
    }

    /// Whether other spellings of documents are kept for the end of the run: if that is not too much.
    pub fn keeps_spellings(&self) -> bool {
        self.purpose.writes() && lock(&self.spellings).bytes() < self.options.deferred_bytes_max
    }

    pub fn keep_spellings<'d>(&self, documents: impl Iterator<Item = &'d Prepared>) {
        let mut spellings = lock(&self.spellings);
        documents.for_each(|document| spellings.keep(document));
    }

    pub fn take_spellings(&self) -> Spellings {
        std::mem::take(&mut *lock(&self.spellings))
    }

    /// A document was stored, or needed not be. One that is looked at a second time has been counted.
    pub fn decide(&self, key: &DocumentKey, outcome: Outcome) {
        let mut registry = self.registry();
        let before = registry.decide(key, outcome);
        if before != Outcome::Open {
            registry.decide(key, before);
            return;
        }
        drop(registry);
        self.tally(|tally| tally.outcome(outcome, 1));
    }

    /// A document failed, for one reason or for several.
    pub fn fail(&self, document: &Prepared, failures: Vec<Failure>) {
        self.want(document);
        let mut failures = failures.into_iter();
        if let Some(first) = failures.next() {
            if self.fail_after_all(&document.key, None, first) {
                self.tally(|tally| tally.fail_further(failures));
            }
        }
    }

    /// A document is not stored because too much would be deleted: per relation, so many rows.
    pub fn withhold(&self, document: &Prepared, rows: &[u64]) {
        self.want(document);
        let before = self.registry().decide(&document.key, Outcome::Withheld);
        self.tally(|tally| {
            tally.outcome(before, -1);
            tally.outcome(Outcome::Withheld, 1);
            tally.withheld_rows(rows);
        });
    }

    /// What a document asks for that is not stored is not to be removed elsewhere: it may yet take it, the next time.
    pub fn want(&self, document: &Prepared) {
        let everywhere = |ix: &RelationIx| self.mapping.relations[*ix].unique_in == UniqueIn::All;
        let relations = (1..self.mapping.relations.len()).filter(everywhere);
        let rows = relations.flat_map(|ix| document.rows.relations[ix].rows.iter().map(move |row| (ix, row)));
        for (ix, row) in rows {
            let key = short(comparison_key(&self.schema.tables[ix], &row.tuple).as_bytes());
            lock(&self.wanted).entry(ix).or_default().insert(key);
        }
    }

    /// A document failed that may have been counted already. False: as failed.
    pub fn fail_after_all(
        &self,
        key: &DocumentKey,
        raw: Option<crate::fingerprint::RawFingerprint>,
        failure: Failure,
    ) -> bool {
        let before = self.registry().fail(key, raw);
        let is_first = before != Outcome::Failed;
        if is_first {
            tracing::warn!(%failure, "document failed");
            self.tally(|tally| {
                tally.outcome(before, -1);
                tally.fail(failure);
            });
        }
        is_first
    }
}

/// A panic elsewhere does not make what was counted wrong.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Catalogue rows a worker remembers from batch to batch; beyond it forgets them all and asks anew.
const CATALOGUE_ROWS_MAX: usize = 200_000;
