//! What runs record by the [`metrics`] facade, under names and labels that stay.
//!
//! Whoever installs a recorder has them; without one they cost next to nothing. Nothing is recorded for a document that
//! is passed over: transactions are recorded one by one, all else once a run, from its report. Every metric has the
//! label `mapping`.
//!
//! | name | kind | labels | counts |
//! |---|---|---|---|
//! | [`RUNS`] | counter | `status`: done, failed, withheld, aborted, refused | runs; refused is one that did not begin |
//! | [`RUN_SECONDS`] | histogram | `status` | how long they took |
//! | [`PHASE_MILLISECONDS`] | counter | `phase`: start, feed, finish, sweep, merge, close | how long their parts took |
//! | [`DOCUMENTS`] | counter | `outcome`: repeated, unchanged, new, changed, failed, withheld, removed | documents |
//! | [`UNSETTLED`] | gauge | | documents that the last run left to be done again |
//! | [`ROWS`] | counter | `relation`, `action`: added, updated, moved, removed | rows written |
//! | [`BYTES_READ`] | counter | | bytes of documents, after decompression |
//! | [`WAL_BYTES`] | counter | | write-ahead log of the whole server meanwhile |
//! | [`TRANSACTIONS`] | counter | `outcome`: committed, rolled_back | transactions of documents |
//! | [`BATCH_SECONDS`] | histogram | `outcome` | how long these took, look-up and COMMIT included |
//! | [`RETRIES`] | counter | | transactions tried again after an error that may pass |
//! | [`LEASE_WAIT_SECONDS`] | histogram | | how long it took to get the lease |
//! | [`LEASE_RENEWALS`] | counter | | times it was renewed |
//! | [`LEASE_LOST`] | counter | | times it was found to be someone else's |
//!
//! A counter is there from the first run on, also at 0; but of the rows of a relation only those actions that happened.

use std::time::Duration;

use ::metrics::{Counter, Histogram, SharedString, Unit, counter, gauge, histogram};

use crate::engine::report::{Phases, Report};

/// Runs that ended.
pub const RUNS: &str = "rowdelta_runs_total";
/// How long runs took.
pub const RUN_SECONDS: &str = "rowdelta_run_seconds";
/// How long the parts of runs took.
pub const PHASE_MILLISECONDS: &str = "rowdelta_phase_milliseconds_total";
/// Documents by what became of them.
pub const DOCUMENTS: &str = "rowdelta_documents_total";
/// Documents that the last run left to be done again.
pub const UNSETTLED: &str = "rowdelta_documents_unsettled";
/// Rows written.
pub const ROWS: &str = "rowdelta_rows_total";
/// Bytes of documents read.
pub const BYTES_READ: &str = "rowdelta_bytes_read_total";
/// Write-ahead log written by the whole server while runs were at work.
pub const WAL_BYTES: &str = "rowdelta_wal_bytes_total";
/// Transactions of documents.
pub const TRANSACTIONS: &str = "rowdelta_transactions_total";
/// How long transactions of documents took.
pub const BATCH_SECONDS: &str = "rowdelta_batch_seconds";
/// Transactions tried again.
pub const RETRIES: &str = "rowdelta_retries_total";
/// How long it took to get the lease.
pub const LEASE_WAIT_SECONDS: &str = "rowdelta_lease_wait_seconds";
/// Times a lease was renewed.
pub const LEASE_RENEWALS: &str = "rowdelta_lease_renewals_total";
/// Times a lease was found to be someone else's.
pub const LEASE_LOST: &str = "rowdelta_lease_lost_total";

/// Says to the recorder what each metric is, for exporters that show it.
pub fn describe() {
    use ::metrics::{describe_counter, describe_gauge, describe_histogram};
    describe_counter!(RUNS, "Runs that ended, by status");
    describe_histogram!(RUN_SECONDS, Unit::Seconds, "How long runs took");
    describe_counter!(PHASE_MILLISECONDS, Unit::Milliseconds, "How long the parts of runs took");
    describe_counter!(DOCUMENTS, "Documents, by what became of them");
    describe_gauge!(UNSETTLED, "Documents that the last run left to be done again");
    describe_counter!(ROWS, "Rows written, by relation and action");
    describe_counter!(BYTES_READ, Unit::Bytes, "Bytes of documents read, after decompression");
    describe_counter!(WAL_BYTES, Unit::Bytes, "Write-ahead log of the whole server while runs were at work");
    describe_counter!(TRANSACTIONS, "Transactions of documents, by outcome");
    describe_histogram!(BATCH_SECONDS, Unit::Seconds, "How long transactions of documents took");
    describe_counter!(RETRIES, "Transactions tried again after an error that may pass");
    describe_histogram!(LEASE_WAIT_SECONDS, Unit::Seconds, "How long it took to get the lease");
    describe_counter!(LEASE_RENEWALS, "Times a lease was renewed");
    describe_counter!(LEASE_LOST, "Times a lease was found to be someone else's");
}

/// Records the transactions of a run.
pub(crate) struct Meters {
    committed: (Counter, Histogram),
    rolled_back: (Counter, Histogram),
}

impl Meters {
    pub fn of(mapping: &str) -> Self {
        let both = |outcome: &'static str| {
            let labels = [("mapping", SharedString::from(mapping.to_owned())), ("outcome", outcome.into())];
            (counter!(TRANSACTIONS, &labels), histogram!(BATCH_SECONDS, &labels))
        };
        Meters { committed: both("committed"), rolled_back: both("rolled_back") }
    }

    /// A transaction ended, after so long.
    pub fn transaction(&self, is_committed: bool, took: Duration) {
        let (count, seconds) = if is_committed { &self.committed } else { &self.rolled_back };
        count.increment(1);
        seconds.record(took);
    }
}

/// Records what becomes of a lease.
#[derive(Clone)]
pub(crate) struct LeaseMeters {
    pub wait: Histogram,
    pub renewals: Counter,
    pub lost: Counter,
}

impl LeaseMeters {
    pub fn of(mapping: &str) -> Self {
        let labels = [("mapping", mapping.to_owned())];
        LeaseMeters {
            wait: histogram!(LEASE_WAIT_SECONDS, &labels),
            renewals: counter!(LEASE_RENEWALS, &labels),
            lost: counter!(LEASE_LOST, &labels),
        }
    }
}

/// Records a run that did not begin.
pub(crate) fn refused(mapping: &str, took: Duration) {
    let labels = [("mapping", mapping.to_owned()), ("status", "refused".to_owned())];
    counter!(RUNS, &labels).increment(1);
    histogram!(RUN_SECONDS, &labels).record(took);
}

/// Records a run that ended, however it did.
pub(crate) fn ended(report: &Report) {
    let mapping = || SharedString::from(report.mapping.clone());
    let count = |name: &'static str, label: &'static str, value: &'static str, by: u64| {
        counter!(name, "mapping" => mapping(), label => value).increment(by);
    };
    let status = report.status.as_str();
    count(RUNS, "status", status, 1);
    let took = Duration::from_millis(report.elapsed_ms);
    histogram!(RUN_SECONDS, "mapping" => mapping(), "status" => status).record(took);
    for (phase, ms) in phases(&report.phases) {
        count(PHASE_MILLISECONDS, "phase", phase, ms);
    }
    let documents = &report.documents;
    for (outcome, documents) in [
        ("repeated", documents.repeated),
        ("unchanged", documents.unchanged),
        ("new", documents.new),
        ("changed", documents.changed),
        ("failed", documents.failed),
        ("withheld", documents.withheld),
        ("removed", documents.removed),
    ] {
        count(DOCUMENTS, "outcome", outcome, documents);
    }
    gauge!(UNSETTLED, "mapping" => mapping()).set(documents.unsettled as f64);
    counter!(BYTES_READ, "mapping" => mapping()).increment(report.bytes_read);
    counter!(WAL_BYTES, "mapping" => mapping()).increment(report.wal_bytes);
    counter!(RETRIES, "mapping" => mapping()).increment(report.retries);
    rows(report);
}

fn rows(report: &Report) {
    for relation in &report.relations {
        let actions = [
            ("added", relation.added),
            ("updated", relation.updated),
            ("moved", relation.moved),
            ("removed", relation.removed),
        ];
        for (action, rows) in actions.into_iter().filter(|(_, rows)| *rows > 0) {
            let labels = [
                ("mapping", report.mapping.clone()),
                ("relation", relation.name.clone()),
                ("action", action.to_owned()),
            ];
            counter!(ROWS, &labels).increment(rows);
        }
    }
}

fn phases(phases: &Phases) -> [(&'static str, u64); 6] {
    [
        ("start", phases.start_ms),
        ("feed", phases.feed_ms),
        ("finish", phases.finish_ms),
        ("sweep", phases.sweep_ms),
        ("merge", phases.merge_ms),
        ("close", phases.close_ms),
    ]
}
