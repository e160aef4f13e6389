//! Documents to be stored, in one transaction or in several; and what to do when one of them fails.
//!
//! Every try begins with the look-up; an old plan is never replayed. So deadlocks, rows that someone else
//! changed, and a connection lost at COMMIT are one case: if the COMMIT had succeeded, the next look-up finds
//! the documents as they should be.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::engine::batch::{Tried, Withheld, transact};
use crate::engine::claims::{Conflict, Verdict};
use crate::engine::patience::Tries;
use crate::engine::prepare::Prepared;
use crate::engine::registry::Outcome;
use crate::engine::report::Failure;
use crate::engine::run::Run;
use crate::engine::stepwise;
use crate::engine::units::{Later, Scope};
use crate::error::{Error, ErrorKind};
use crate::postgres::Limits;

/// How long a batch of several documents waits for a lock once one of them is known to be locked: the others
/// shall not wait for it.
const NARROWING_LOCK_TIMEOUT: Duration = Duration::from_millis(100);

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

impl Round {
    pub fn as_str(self) -> &'static str {
        match self {
            Round::Feed => "feed",
            Round::Together => "together",
            Round::Last => "last",
        }
    }
}

/// Applies documents, narrowing down to those that fail.
///
/// # Errors
/// Only what ends the run: the lease was lost, or the database is out of reach. A run that was told to stop gives up
/// what would have to be tried again.
pub(crate) async fn apply(run: &Arc<Run>, documents: Vec<Arc<Prepared>>, round: Round) -> Result<(), Error> {
    match &run.units {
        Some(units) => stepwise::apply(run, units, documents, round).await,
        None => apply_in(run, documents, round, Scope::Whole).await,
    }
}

/// Applies documents, or what of them is in scope.
///
/// # Errors
/// As [`apply`].
pub(super) async fn apply_in(
    run: &Arc<Run>,
    documents: Vec<Arc<Prepared>>,
    round: Round,
    scope: Scope<'_>,
) -> Result<(), Error> {
    if round != Round::Feed {
        // When these are applied apart, none removes what another one of them may take.
        documents.iter().for_each(|document| run.want(document));
    }
    let mut pending = VecDeque::from([Part::new(run, documents, scope)]);
    while let Some(part) = pending.pop_back() {
        if part.documents.is_empty() {
            continue;
        }
        run.patience.pause(part.pause).await;
        let limits = Limits { lock: part.lock, ..run.limits() };
        let mut groups = Vec::new();
        match transact(run, &part.documents, limits, round, scope, &mut groups).await {
            Ok(Tried::Conflicts(conflicts)) => pending.push_back(part.without(run, conflicts, round)),
            Ok(Tried::Withheld(withheld)) => pending.push_back(part.without_removals(run, withheld, round)),
            Ok(Tried::Committed(robbed)) => part.look_again(run, robbed),
            Err(error) if matches!(error.kind(), ErrorKind::Busy | ErrorKind::Setup) => return Err(error),
            Err(error) if error.kind() == ErrorKind::Stopped => run.patience.give_up(),
            Err(error) if error.is_disk_full() => part.fail(run, &error),
            Err(error) if error.is_transient() && run.patience.is_stopped() => run.patience.give_up(),
            Err(error) if error.is_transient() => {
                run.patience.count();
                tracing::debug!(%error, documents = part.documents.len(), tries = ?part.tries, "trying again");
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

/// Documents to be applied in one transaction.
struct Part<'s> {
    documents: Vec<Arc<Prepared>>,
    scope: Scope<'s>,
    tries: Tries,
    lock: Duration,
    /// How long to wait before it.
    pause: Duration,
}

impl<'s> Part<'s> {
    fn new(run: &Run, documents: Vec<Arc<Prepared>>, scope: Scope<'s>) -> Self {
        let lock = run.options.lock_timeout;
        Part { documents, scope, tries: Tries::default(), lock, pause: Duration::ZERO }
    }

    /// Two parts, the second to be applied first. Documents of a group stay together, and the groups in order.
    fn halves(mut self, groups: Vec<Vec<usize>>) -> Vec<Self> {
        let mut middle = self.documents.len() / 2;
        if groups.len() > 1 {
            let ends = groups.iter().scan(0, |end, group| {
                *end += group.len();
                Some(*end)
            });
            let inner = ends.take(groups.len() - 1);
            middle = inner.min_by_key(|end| end.abs_diff(middle)).unwrap_or(middle);
            let mut documents: Vec<Option<Arc<Prepared>>> = self.documents.into_iter().map(Some).collect();
            self.documents = groups.into_iter().flatten().filter_map(|at| documents[at].take()).collect();
        }
        let right = self.documents.split_off(middle);
        vec![Part { documents: right, ..self }, self]
    }

    /// After an error that may pass: another try, later; a locked row is sought for at once.
    fn again(mut self, run: &Run, error: Error, groups: Vec<Vec<usize>>) -> Result<Vec<Self>, Error> {
        self.pause = Duration::ZERO;
        if error.is_lock_timeout() && self.documents.len() > 1 {
            self.lock = NARROWING_LOCK_TIMEOUT.min(run.options.lock_timeout);
            return Ok(self.halves(groups));
        }
        self.lock = run.options.lock_timeout;
        if let Some(pause) = run.patience.next(&mut self.tries) {
            self.pause = pause.max(Duration::from_millis(1));
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
    fn narrowed(self, run: &Run, error: &Error, groups: Vec<Vec<usize>>, round: Round) -> Vec<Self> {
        if self.documents.len() > 1 && groups.len() != 1 {
            return self.halves(groups);
        }
        if round != Round::Last && error.may_settle_later() {
            for document in self.documents {
                let failure = Failure::of_error(&document.origin, &document.label, error);
                self.scope.defer(run, document, Later::Failure(failure));
            }
            return Vec::new();
        }
        self.fail(run, error);
        Vec::new()
    }

    fn fail(&self, run: &Run, error: &Error) {
        for document in &self.documents {
            let failure = Failure::of_error(&document.origin, &document.label, error);
            self.scope.fail(run, document, failure);
        }
    }

    /// Documents from which a child was taken while they were compared are looked at again at the end.
    fn look_again(mut self, run: &Run, mut robbed: Vec<usize>) {
        robbed.sort_unstable();
        for at in robbed.into_iter().rev() {
            self.scope.defer(run, self.documents.swap_remove(at), Later::Again);
        }
        if self.scope.settles() {
            self.documents.into_iter().for_each(|document| run.keep_holder(document));
        }
    }

    /// Takes out the documents that would delete too much. What they give up others may take until the end of the
    /// feed; then it is seen what is left to delete.
    fn without_removals(mut self, run: &Run, mut withheld: Vec<Withheld>, round: Round) -> Self {
        withheld.sort_unstable_by_key(|withheld| withheld.document);
        for Withheld { document, rows } in withheld.into_iter().rev() {
            let document = self.documents.remove(document);
            match round {
                Round::Feed => self.scope.defer(run, document, Later::Withheld(rows)),
                Round::Together | Round::Last => self.scope.withhold(run, &document, rows),
            }
        }
        self
    }

    /// Takes out the documents that conflict with others: they fail, or wait for the end of the feed.
    ///
    /// In the round before the last one the others wait with those that do: what they give up these may take.
    fn without(mut self, run: &Run, conflicts: Vec<Conflict>, round: Round) -> Self {
        let waits = |conflict: &Conflict| matches!(conflict.verdict, Verdict::Wait(_));
        let together = round == Round::Together && conflicts.iter().any(waits);
        let mut verdicts: Vec<Option<Verdict>> = self.documents.iter().map(|_| None).collect();
        for conflict in conflicts {
            verdicts[conflict.document].get_or_insert(conflict.verdict);
        }
        let documents = std::mem::take(&mut self.documents);
        for (document, verdict) in documents.into_iter().zip(verdicts) {
            match verdict {
                None if together => self.documents.extend(self.scope.defer_with_others(run, document)),
                None => self.documents.push(document),
                Some(Verdict::Fail(failure)) => self.scope.fail(run, &document, failure),
                Some(Verdict::Repeated) => {
                    run.registry().decide(&document.key, Outcome::Unchanged);
                    run.tally(|tally| tally.report.documents.repeated += 1);
                }
                Some(Verdict::Wait(failure)) => {
                    let failure = Failure { retryable: true, ..failure };
                    self.scope.defer(run, document, Later::Failure(failure));
                }
            }
        }
        self
    }
}

/// What becomes of a document that is not stored. Of one that is stored by units it is said when all were tried.
impl Scope<'_> {
    fn fail(&self, run: &Run, document: &Prepared, failure: Failure) {
        match self {
            Scope::Whole | Scope::Rest(_) => {
                // What it held back stays, and the document unsettled: the next run does it again.
                run.unhold(&document.key);
                run.fail(document, vec![failure]);
            }
            Scope::Unit(steps, _) => steps.note(document, |progress| progress.failures.push(failure)),
        }
    }

    fn withhold(&self, run: &Run, document: &Prepared, rows: Vec<u64>) {
        match self {
            Scope::Whole | Scope::Rest(_) => {
                run.unhold(&document.key);
                run.withhold(document, &rows);
            }
            Scope::Unit(steps, _) => steps.note(document, |progress| progress.withheld = Some(rows)),
        }
    }

    /// Has a document wait for the end of the feed; where too many do already, what it waits for counts.
    fn defer(&self, run: &Run, document: Arc<Prepared>, later: Later) {
        if let Scope::Unit(steps, _) = self {
            return steps.note(&document, |progress| {
                progress.later.get_or_insert(later);
            });
        }
        let Some(document) = run.defer(document) else { return };
        match later {
            // The next run finds it: the document was unsettled as it was robbed.
            Later::Again => {}
            Later::Failure(failure) => run.fail(&document, vec![failure]),
            Later::Withheld(rows) => self.withhold(run, &document, rows),
        }
    }

    /// Has a document wait with others that do. Gives it back where too many do already.
    fn defer_with_others(&self, run: &Run, document: Arc<Prepared>) -> Option<Arc<Prepared>> {
        match self {
            Scope::Whole | Scope::Rest(_) => run.defer(document),
            Scope::Unit(..) => {
                self.defer(run, document, Later::Again);
                None
            }
        }
    }
}
