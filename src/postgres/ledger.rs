//! The ledger: what was synced, by which runs, and who is at work.

use postgres_types::Type;
use serde::Serialize;
use tokio_postgres::{Client, Row};

use crate::error::Error;

/// What the database knows of its mappings. Its JSON form is a contract: fields may be added, none changes its meaning.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Ledger {
    /// Of this format.
    pub version: u32,
    /// Every mapping that was ever synced, by name.
    pub mappings: Vec<MappingStatus>,
}

/// One mapping.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MappingStatus {
    /// Its name.
    pub name: String,
    /// Documents that are recorded.
    pub documents: u64,
    /// Those among them that the next run does again.
    pub unsettled: u64,
    /// Who may write under it.
    pub lease: LeaseStatus,
    /// The last runs, newest first.
    pub runs: Vec<RunStatus>,
    /// Failures of the newest run: of a document one, or several where its relations are stored one by one.
    pub failed: u64,
    /// Some of these, in the order of the feed.
    pub failures: Vec<FailureStatus>,
}

/// The right to write under a mapping.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LeaseStatus {
    /// Whether someone has it.
    pub state: LeaseState,
    /// Who has it, or had it when it expired.
    pub holder: Option<String>,
    /// When the run began that has it, if it is one: as [`RunStatus::started`].
    pub since: Option<String>,
    /// When it expires, or did, unless it is renewed.
    pub until: Option<String>,
}

/// Whether someone has a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LeaseState {
    /// Nobody has it.
    Free,
    /// A run is at work.
    Held,
    /// Whoever had it died, or was cut off, without giving it back. The next run takes it.
    Expired,
}

/// One run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RunStatus {
    /// Its id in `rowdelta.run`.
    pub id: i64,
    /// When it began: ISO 8601, in UTC, to the second.
    pub started: String,
    /// When it ended.
    pub finished: Option<String>,
    /// How long it took, or takes so far, in milliseconds; `None` of one that died.
    pub elapsed_ms: Option<u64>,
    /// How it ended, if it did.
    pub status: RunState,
    /// What became of the documents, and what was written; of a run that ended.
    pub counts: RunCounts,
}

/// How a run ended, if it did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RunState {
    /// It is at work.
    Running,
    /// Every document is in.
    Done,
    /// Documents failed; the others are in.
    Failed,
    /// No document failed, but deletions were withheld.
    Withheld,
    /// It did not reach the end of its feed.
    Aborted,
    /// It never said that it ended, and no longer has the lease: its process died, or lost the database.
    Died,
}

/// Counts of a run's report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RunCounts {
    /// Documents of the feed.
    pub read: u64,
    /// Documents of which no row was written.
    pub unchanged: u64,
    /// Documents whose root row was inserted.
    pub new: u64,
    /// Documents of which a row was written.
    pub changed: u64,
    /// Documents removed because they were missing from a complete feed.
    pub removed: u64,
    /// Documents that failed.
    pub failed: u64,
    /// Rows inserted, updated, moved and deleted, in all tables.
    pub rows_written: u64,
    /// Transactions tried again.
    pub retries: u64,
}

/// A document that failed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct FailureStatus {
    /// The document's key, if it could be read.
    pub document: Option<String>,
    /// The file.
    pub file: Option<String>,
    /// Line in the file at which the document begins, or place in the feed, from 1.
    pub line: Option<i64>,
    /// The document's number in the file, from 1, where several may begin on one line.
    pub item: Option<i64>,
    /// The relation.
    pub relation: Option<String>,
    /// The place in the document.
    pub path: Option<String>,
    /// PostgreSQL's code.
    pub sqlstate: Option<String>,
    /// What is wrong.
    pub message: String,
    /// Whether trying again can help.
    pub retryable: bool,
}

/// Reads the ledger: of every mapping, or of the one with that name, at most so many runs and failures.
///
/// # Errors
/// The database's. The schema `rowdelta` must be installed: see [`super::install::check`].
pub async fn read(
    client: &Client,
    mapping: Option<&str>,
    runs_max: u32,
    failures_max: u32,
) -> Result<Ledger, Error> {
    let mut mappings = Vec::new();
    for row in client.query_typed(MAPPINGS, &[(&mapping, Type::TEXT)]).await? {
        let id: i32 = row.get("id");
        let live = row.get::<_, Option<bool>>("live").unwrap_or(false);
        let params: &[(&(dyn postgres_types::ToSql + Sync), Type)] =
            &[(&id, Type::INT4), (&live, Type::BOOL), (&i64::from(runs_max), Type::INT8)];
        let runs: Vec<RunStatus> = client.query_typed(RUNS, params).await?.iter().map(run).collect();
        let newest = runs.first().map_or(0, |run| run.id);
        let params: &[(&(dyn postgres_types::ToSql + Sync), Type)] =
            &[(&newest, Type::INT8), (&i64::from(failures_max), Type::INT8)];
        let failures = client.query_typed(FAILURES, params).await?;
        let failed = failures.first().map_or(0, |row| count(row, "failed"));
        mappings.push(MappingStatus {
            name: row.get("name"),
            documents: count(&row, "documents"),
            unsettled: count(&row, "unsettled"),
            lease: lease(&row, live, &runs),
            runs,
            failed,
            failures: failures.iter().map(failure).collect(),
        });
    }
    Ok(Ledger { version: 1, mappings })
}

/// The names of the mappings of which something is recorded.
///
/// # Errors
/// The database's.
pub async fn names(client: &Client) -> Result<Vec<String>, Error> {
    let rows = client.query_typed("SELECT name FROM rowdelta.mapping ORDER BY name", &[]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

const MAPPINGS: &str = "
SELECT m.id, m.name, d.documents, d.unsettled, m.lease_holder AS holder,
       m.lease_until > clock_timestamp() AS live,
       to_char(m.lease_until AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') AS until
FROM rowdelta.mapping m CROSS JOIN LATERAL rowdelta.counted(m.id) AS d
WHERE $1 IS NULL OR m.name = $1 ORDER BY m.name";

/// The newest run without an end is the one that has a live lease; any other one died.
const RUNS: &str = "
SELECT r.id, to_char(r.started AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') AS started,
       to_char(r.finished AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') AS finished,
       CASE WHEN r.finished IS NOT NULL THEN r.status WHEN $2 AND r.id = max(r.id) OVER () THEN 'running'
            ELSE 'died' END AS status,
       (extract(epoch FROM coalesce(r.finished, clock_timestamp()) - r.started) * 1000)::bigint AS elapsed_ms,
       (r.report #>> '{documents,read}')::bigint AS read,
       (r.report #>> '{documents,unchanged}')::bigint AS unchanged,
       (r.report #>> '{documents,new}')::bigint AS new,
       (r.report #>> '{documents,changed}')::bigint AS changed,
       (r.report #>> '{documents,removed}')::bigint AS removed,
       (r.report #>> '{documents,failed}')::bigint AS failed,
       (r.report ->> 'retries')::bigint AS retries,
       (SELECT sum(c.added + c.updated + c.moved + c.removed)::bigint
        FROM jsonb_to_recordset(r.report -> 'relations')
             AS c (added bigint, updated bigint, moved bigint, removed bigint)) AS rows_written
FROM rowdelta.run r WHERE r.mapping = $1 ORDER BY r.id DESC LIMIT $3";

const FAILURES: &str = "
SELECT document, file, line, item, relation, path, sqlstate, message, retryable, count(*) OVER () AS failed
FROM rowdelta.failure WHERE run = $1 ORDER BY file, line, item LIMIT $2";

fn count(row: &Row, name: &str) -> u64 {
    row.get::<_, Option<i64>>(name).unwrap_or_default().unsigned_abs()
}

fn lease(row: &Row, live: bool, runs: &[RunStatus]) -> LeaseStatus {
    let until: Option<String> = row.get("until");
    let state = match (&until, live) {
        (None, _) => LeaseState::Free,
        (Some(_), true) => LeaseState::Held,
        (Some(_), false) => LeaseState::Expired,
    };
    let running = runs.first().filter(|run| run.status == RunState::Running);
    LeaseStatus { state, holder: row.get("holder"), since: running.map(|run| run.started.clone()), until }
}

fn run(row: &Row) -> RunStatus {
    let status = match row.get("status") {
        "running" => RunState::Running,
        "done" => RunState::Done,
        "failed" => RunState::Failed,
        "withheld" => RunState::Withheld,
        "died" => RunState::Died,
        _ => RunState::Aborted,
    };
    RunStatus {
        id: row.get("id"),
        started: row.get("started"),
        finished: row.get("finished"),
        elapsed_ms: (status != RunState::Died).then(|| count(row, "elapsed_ms")),
        status,
        counts: RunCounts {
            read: count(row, "read"),
            unchanged: count(row, "unchanged"),
            new: count(row, "new"),
            changed: count(row, "changed"),
            removed: count(row, "removed"),
            failed: count(row, "failed"),
            rows_written: count(row, "rows_written"),
            retries: count(row, "retries"),
        },
    }
}

fn failure(row: &Row) -> FailureStatus {
    FailureStatus {
        document: row.get("document"),
        file: row.get("file"),
        line: row.get("line"),
        item: row.get("item"),
        relation: row.get("relation"),
        path: row.get("path"),
        sqlstate: row.get("sqlstate"),
        message: row.get("message"),
        retryable: row.get("retryable"),
    }
}
