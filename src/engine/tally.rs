//! The counts of a run, of which its report is made.

use std::time::Duration;

use crate::engine::prepare::Prepared;
use crate::engine::registry::Outcome;
use crate::engine::report::{Failure, Report, Slow};
use crate::mapping::Mapping;
use crate::plan::{Action, Plan};
use crate::postgres::questions::Looked;

/// How many of the slowest documents a report names.
const SLOWEST: usize = 5;

/// The report in the making.
pub(crate) struct Tally {
    pub report: Report,
    /// Whether anything was recorded of documents.
    pub recorded: bool,
    /// Rows written.
    pub rows: u64,
    /// Per relation and catalogue, what goes into its `ms`: many batches take less than one each.
    times: Vec<Duration>,
    slowest: Vec<Took>,
}

/// How long a document took.
struct Took {
    /// Its place in the feed.
    sequence: u64,
    label: String,
    took: Duration,
}

impl Tally {
    pub fn new(mapping: &Mapping) -> Self {
        let report = Report::new(mapping);
        let times = vec![Duration::ZERO; report.relations.len()];
        Tally { report, recorded: false, rows: 0, times, slowest: Vec::new() }
    }

    pub fn outcome(&mut self, outcome: Outcome, by: i64) {
        let documents = &mut self.report.documents;
        let count = match outcome {
            Outcome::Unchanged => &mut documents.unchanged,
            Outcome::New => &mut documents.new,
            Outcome::Changed => &mut documents.changed,
            Outcome::Withheld => &mut documents.withheld,
            Outcome::Open | Outcome::Failed => return,
        };
        *count = count.saturating_add_signed(by);
    }

    pub fn fail(&mut self, failure: Failure) {
        self.report.documents.failed += 1;
        self.report.failures.push(failure);
    }

    /// Names more of what is wrong with a document that was counted.
    pub fn fail_further(&mut self, failures: impl Iterator<Item = Failure>) {
        let failures = failures.inspect(|failure| tracing::warn!(%failure, "document failed"));
        self.report.failures.extend(failures);
    }

    /// Counts rows that were not deleted, per relation.
    pub fn withheld_rows(&mut self, rows: &[u64]) {
        self.report.relations.iter_mut().zip(rows).for_each(|(counts, rows)| counts.withheld += rows);
    }

    /// Notes why something was withheld, if it is the first.
    pub fn withheld_because(&mut self, reason: String) {
        self.report.withheld_because.get_or_insert(reason);
    }

    pub fn fail_all(&mut self, failures: Vec<Failure>) {
        for failure in failures {
            tracing::warn!(%failure, "document failed");
            self.fail(failure);
        }
    }

    /// Notes how long a document has taken so far, if it is among those that took longest.
    pub fn slow(&mut self, document: &Prepared) {
        let took = document.spent();
        if let Some(slow) = self.slowest.iter_mut().find(|slow| slow.sequence == document.sequence) {
            slow.took = took;
        } else if self.slowest.len() < SLOWEST || self.slowest.last().is_some_and(|last| last.took < took) {
            let label = document.label.clone();
            self.slowest.push(Took { sequence: document.sequence, label, took });
        } else {
            return;
        }
        self.slowest.sort_by_key(|slow| std::cmp::Reverse(slow.took));
        self.slowest.truncate(SLOWEST);
    }

    /// Counts catalogue rows inserted, per lookup.
    pub fn looked_up(&mut self, looked: &[Looked]) {
        let first = self.times.len() - looked.len();
        let counts = self.report.relations[first..].iter_mut().zip(&mut self.times[first..]);
        for ((count, time), looked) in counts.zip(looked) {
            count.added += looked.inserted;
            *time += looked.took;
            self.rows += looked.inserted;
        }
    }

    /// Counts what a committed plan wrote.
    pub fn applied(&mut self, plan: &Plan, marks: u64, times: &[Duration]) {
        for (counts, unchanged) in self.report.relations.iter_mut().zip(&plan.unchanged) {
            counts.unchanged += unchanged;
        }
        self.times.iter_mut().zip(times).for_each(|(time, took)| *time += *took);
        self.report.marks += marks;
        for step in &plan.steps {
            let counts = &mut self.report.relations[step.relation];
            let rows = step.action.rows() as u64;
            match step.action {
                ref action if action.is_detour() => self.report.parked += rows,
                Action::Delete(_) | Action::Cascade(_) => counts.removed += rows,
                Action::Update { moves: false, .. } => counts.updated += rows,
                Action::Update { moves: true, .. } => counts.moved += rows,
                Action::Insert { .. } => counts.added += rows,
                Action::Mark(_) | Action::Park { .. } | Action::Fill { .. } => continue,
            }
            self.rows += if step.action.is_detour() { 0 } else { rows };
        }
    }

    /// The report as it stands.
    pub fn report(&self) -> Report {
        let mut report = self.report.clone();
        let ms = |took: &Duration| took.as_millis() as u64;
        report.relations.iter_mut().zip(&self.times).for_each(|(counts, time)| counts.ms = ms(time));
        let slow = |slow: &Took| Slow { document: slow.label.clone(), ms: ms(&slow.took) };
        report.slowest = self.slowest.iter().map(slow).collect();
        report
    }
}
