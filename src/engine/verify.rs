//! Compares what is stored with what it should be: with a feed, or with what was recorded.
//!
//! With a feed it is a run that believes nothing that is recorded, so that every row is compared, by the same steps as
//! in a sync up to the change sets. What differs is named, and with [`VerifyOptions::repair`] written. Without a feed
//! the fingerprints are made anew from the stored rows; they tell which relations of a document differ, not which rows.
//!
//! Without `repair` nothing is written, not even in the ledger; no lease is taken, and every transaction is read-only
//! and sees one state of the database, so that a sync that is at work meanwhile makes no difference.

mod differences;
mod findings;
mod recorded;
mod report;

pub(crate) use differences::{Noted, found};
pub(crate) use findings::Findings;
pub use report::{
    Against, ColumnDifference, Difference, Kind, LISTED_MAX, RelationDifferences, Repair, Unknown,
    Verification, VerifiedDocuments,
};

use std::sync::Arc;
use std::time::Instant;

use futures_util::Stream;
use tracing::Instrument as _;

use crate::engine::feed::read_feed;
use crate::engine::patience::Patience;
use crate::engine::progress::{Phase, Stopwatch};
use crate::engine::registry::Registry;
use crate::engine::report::{Report, SyncError};
use crate::engine::rewritten;
use crate::engine::run::{Loaded, Purpose, Run};
use crate::engine::{Engine, FeedItem, finish, spans};
use crate::error::Error;
use crate::postgres::catalog;
use crate::postgres::state::{self, Lease};

/// What a verification does beyond naming what differs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VerifyOptions {
    /// Whether what differs is mended: with a feed it is written; without one, where the right values are not known,
    /// its documents are marked, and the next run does them again.
    pub repair: bool,
    /// Whether the report holds the values that differ.
    pub values: bool,
}

impl Engine {
    /// Compares every row of a feed's documents with what is stored, whatever is recorded. What the feed does not have
    /// is not looked at.
    ///
    /// # Errors
    /// What kept it from starting, or from coming to its end. Documents that failed and rows that differ are no errors:
    /// see [`Verification::failures`] and [`Verification::differs`].
    pub async fn verify(
        &self,
        feed: impl Stream<Item = FeedItem> + Send,
        options: VerifyOptions,
    ) -> Result<Verification, Error> {
        let started = Instant::now();
        let findings = Findings::new(Verification::new(&self.mapping, Against::Feed), options.values);
        let findings = Arc::new(findings);
        let report = match options.repair {
            true => self.repaired(findings.clone(), feed).await?,
            false => {
                let span = spans::run(&self.mapping, "verify");
                self.compared(findings.clone(), feed).instrument(span).await?
            }
        };
        let (mut verification, differing) = findings.take();
        // Batches end in any order; the differences of one document stand in that of the relations.
        verification.differences.sort_by(|a, b| (&a.file, a.line).cmp(&(&b.file, b.line)));
        let documents = report.documents;
        let decided = documents.repeated + documents.failed + differing;
        verification.documents = VerifiedDocuments {
            read: documents.read,
            repeated: documents.repeated,
            equal: documents.read.saturating_sub(decided),
            differing,
            unknown: 0,
            failed: documents.failed,
        };
        verification.unknown.skipped_lookups = report.skipped_lookups;
        verification.failures = report.failures.clone();
        if options.repair {
            self.count_inserted(&report, &mut verification);
            verification.repair = Some(Repair { run: Some(report), unsettled: 0 });
        }
        verification.elapsed_ms = started.elapsed().as_millis() as u64;
        Ok(verification)
    }

    async fn repaired(
        &self,
        findings: Arc<Findings>,
        feed: impl Stream<Item = FeedItem> + Send,
    ) -> Result<Report, Error> {
        match self.write(Purpose::Repair(findings), feed, std::future::pending()).await {
            Ok(report) => Ok(report),
            Err(SyncError::Failed(report) | SyncError::Withheld(report)) => Ok(*report),
            Err(SyncError::Aborted { cause, .. } | SyncError::Start(cause)) => Err(cause),
        }
    }

    async fn compared(
        &self,
        findings: Arc<Findings>,
        feed: impl Stream<Item = FeedItem> + Send,
    ) -> Result<Report, Error> {
        let stopwatch = Arc::new(Stopwatch::start(self.progress.clone()));
        let client = self.connections.get().await?;
        let schema = catalog::read_for(&client, &self.mapping, false).await?;
        // Of a mapping that never ran nothing is recorded.
        let mapping = state::mapping_id(&client, &self.mapping.name).await?.unwrap_or_default();
        let rewrites = rewritten::is_possible(&client, &schema, mapping).await?;
        drop(client);
        let lease = Lease { mapping, token: String::new() };
        let options = self.options.clone();
        let (mapping, connections) = (self.mapping.clone(), self.connections.clone());
        let purpose = Purpose::Verify(findings);
        let patience = Arc::new(Patience::unstopped(&options));
        let loaded = Loaded { number: 0, lease, registry: Registry::default(), rewrites, stopwatch };
        let run = Arc::new(Run::new(purpose, mapping, schema, connections, options, patience, loaded));
        run.stopwatch.enter(Phase::Feed);
        let (workers, broken) = read_feed(&run, None, feed).await?;
        run.stopwatch.enter(Phase::Finish);
        finish::finish(&run, workers, broken).await?;
        let mut report = run.tally(|tally| tally.report());
        report.failures.sort_by_key(|failure| (failure.file.clone(), failure.line, failure.item));
        Ok(report)
    }

    /// Catalogue rows are inserted before the rows that refer to them are compared: they are counted, not named.
    fn count_inserted(&self, report: &Report, verification: &mut Verification) {
        let first = self.mapping.relations.len();
        for (ix, counts) in report.relations.iter().enumerate().skip(first) {
            (0..counts.added).for_each(|_| verification.add(ix, Kind::Missing, None));
        }
    }
}
