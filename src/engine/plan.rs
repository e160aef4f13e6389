//! What a sync would do, found out without writing anything.
//!
//! It is a run by the same steps as a sync, up to the plan of each batch; the rows of that are told in place of being
//! written. Every transaction is read-only and sees one state of the database; no lease is taken, nothing is locked, no
//! id is drawn. What only the server can know as it writes is not found out: a constraint that refuses rows, a trigger that
//! changes them, an action of a foreign key that would change rows that stay.

mod names;
mod saved;

pub use names::CatalogueNames;
pub(crate) use saved::{Expected, Taken};
pub use saved::{Recorder, SavedPlan};

use std::sync::Arc;

use futures_util::Stream;
use tokio::sync::mpsc;
use tokio_postgres::Client;

use crate::engine::changes::Change;
use crate::engine::feed::read_feed;
use crate::engine::foresight::{Doubt, Foresight};
use crate::engine::patience::Patience;
use crate::engine::progress::{Phase, Stopwatch};
use crate::engine::registry::Registry;
use crate::engine::report::{Report, Status};
use crate::engine::rewritten;
use crate::engine::run::{Loaded, Purpose, Run};
use crate::engine::{Engine, FeedItem, Options, finish, settled_and_roots};
use crate::error::Error;
use crate::postgres::catalog;
use crate::postgres::state::{self, Lease};
use crate::schema::Schema;

impl Engine {
    /// Finds out what [`sync`](Self::sync) would do with a feed, and writes nothing. Every row that it would write is told
    /// as in [`Builder::changes`](crate::engine::Builder::changes), in any order of documents, with these differences: a new
    /// row has no `id`, what refers to a new row has no `parent`, and the id of a new catalogue row is `(new KEY)`. The report
    /// counts what would be done.
    ///
    /// # Errors
    /// What kept it from starting, or from coming to its end. Documents that would fail, or be withheld, are no errors: see
    /// [`Report::failures`] and [`Report::status`].
    pub async fn plan(
        &self,
        feed: impl Stream<Item = FeedItem> + Send,
        listener: mpsc::Sender<Change>,
    ) -> Result<Report, Error> {
        let stopwatch = Arc::new(Stopwatch::start(self.progress.clone()));
        let (mapping, connections) = (self.mapping.clone(), self.connections.clone());
        let mut client = self.connections.get().await?;
        let schema = catalog::read_for(&client, &self.mapping, false).await?;
        // Of a mapping that never ran nothing is recorded.
        let recorded = state::mapping_id(&client, &self.mapping.name).await?;
        let (registry, doubt) = match recorded {
            Some(id) => self.known(&mut client, id, &schema).await?,
            None => (Registry::default(), Doubt::All),
        };
        let id = recorded.unwrap_or_default();
        let rewrites = rewritten::is_possible(&client, &schema, id).await?;
        let lease = Lease { mapping: id, token: String::new() };
        drop(client);
        let options = Options { changes: Some(listener), history: false, only: None, ..self.options.clone() };
        let patience = Arc::new(Patience::unstopped(&options));
        let purpose = Purpose::Plan(Arc::new(Foresight::new(doubt)));
        let loaded = Loaded { number: 0, lease, registry, rewrites, stopwatch: stopwatch.clone() };
        let run = Arc::new(Run::new(purpose, mapping, schema, connections, options, patience, loaded));
        stopwatch.enter(Phase::Feed);
        let (workers, broken) = read_feed(&run, None, feed).await?;
        stopwatch.enter(Phase::Finish);
        finish::finish(&run, workers, broken).await?;
        let report = run.tally(|tally| tally.report.clone());
        let (phases, elapsed_ms) = (stopwatch.phases(), stopwatch.elapsed().as_millis() as u64);
        Ok(Report { phases, elapsed_ms, ..judged(report) })
    }

    /// What a saved plan must agree with: a digest of the mapping and of the types of its columns.
    ///
    /// # Errors
    /// The database's, or that the mapping does not fit it.
    pub async fn digest(&self) -> Result<String, Error> {
        let client = self.connections.get().await?;
        let schema = catalog::read_for(&client, &self.mapping, false).await?;
        Ok(schema.digest.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// The documents that a sync would skip by their bytes, and those that it would not trust what is recorded of.
    async fn known(
        &self,
        client: &mut Client,
        recorded: i32,
        schema: &Schema,
    ) -> Result<(Registry, Doubt), Error> {
        let filled = state::filled(client, recorded).await?;
        let hold_rows = state::hold_rows(client, &schema.tables).await?;
        let mut relations = self.mapping.relations.iter().zip(hold_rows);
        if relations.any(|(relation, holds_rows)| filled.contains(&relation.name) && !holds_rows) {
            return Ok((Registry::default(), Doubt::All));
        }
        let transaction = state::snapshot(client).await?;
        let (mut registry, roots) = settled_and_roots(&transaction, recorded, schema).await?;
        transaction.commit().await?;
        let lost = registry.keep_within(&roots);
        Ok((registry, Doubt::Of(lost)))
    }
}

/// A report with its failures in the order of the feed, and how a sync would end.
fn judged(mut report: Report) -> Report {
    report.failures.sort_by_key(|failure| (failure.file.clone(), failure.line, failure.item));
    let is_withheld = report.documents.withheld > 0;
    report.withheld_because = report.withheld_because.take().filter(|_| is_withheld);
    report.status = match () {
        () if !report.failures.is_empty() => Status::Failed,
        () if is_withheld => Status::Withheld,
        () => Status::Done,
    };
    report
}
