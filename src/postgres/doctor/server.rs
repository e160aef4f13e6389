//! The server, the session's settings, and the role.

use serde::Serialize;
use tokio_postgres::Transaction;

use super::words::count;
use super::{Exam, Severity};
use crate::error::Error;
use crate::postgres::quote;

/// The server, and who asked it.
#[derive(Clone, Debug, Serialize)]
pub struct ServerFacts {
    /// Its major version.
    pub version: i32,
    /// The same in its own words: `15.8`.
    pub version_text: String,
    /// The database.
    pub database: String,
    /// The role.
    pub role: String,
    /// Whether row-level security does not apply to it: a superuser, or one with BYPASSRLS.
    pub bypasses_row_security: bool,
    /// Connections that the role could open now, as far as the limits of server, database and role tell.
    pub connections_free: i64,
    /// Settings of the session that matter to a sync, as the server writes them.
    pub settings: Vec<(String, String)>,
}

impl ServerFacts {
    /// The role as a statement names it.
    pub(super) fn quoted_role(&self) -> String {
        quote(&self.role)
    }

    /// The statement that sets something for the role in this database.
    fn set(&self, setting: &str) -> String {
        format!("ALTER ROLE {} IN DATABASE {} SET {setting}", self.quoted_role(), quote(&self.database))
    }

    fn setting(&self, name: &str) -> &str {
        self.settings.iter().find(|setting| setting.0 == name).map_or("", |setting| &setting.1)
    }

    /// A setting in milliseconds.
    fn milliseconds(&self, name: &str) -> i64 {
        self.setting(name).parse().unwrap_or(0)
    }
}

pub(super) async fn facts(transaction: &Transaction<'_>) -> Result<ServerFacts, Error> {
    let row = transaction.query_typed_one(FACTS, &[]).await?;
    let names: Vec<String> = row.get("names");
    let values: Vec<String> = row.get("values");
    Ok(ServerFacts {
        version: row.get::<_, i32>("version") / 10_000,
        version_text: row.get("version_text"),
        database: row.get("database"),
        role: row.get("role"),
        bypasses_row_security: row.get("bypasses"),
        connections_free: row.get("free"),
        settings: names.into_iter().zip(values).collect(),
    })
}

/// The settings as the session has them, not as this transaction does. Of other sessions their number is enough:
/// that every role may see.
const FACTS: &str = "
SELECT current_setting('server_version_num')::integer AS version,
       split_part(current_setting('server_version'), ' ', 1) AS version_text,
       current_database()::text AS database, r.rolname::text AS role, r.rolsuper OR r.rolbypassrls AS bypasses,
       least(current_setting('max_connections')::bigint
               - CASE WHEN r.rolsuper THEN 0 ELSE current_setting('superuser_reserved_connections')::bigint
                      + coalesce(current_setting('reserved_connections', true)::bigint, 0) END - a.all,
             CASE WHEN d.datconnlimit >= 0 AND NOT r.rolsuper THEN d.datconnlimit - a.of_database ELSE 1000000 END,
             CASE WHEN r.rolconnlimit >= 0 AND NOT r.rolsuper THEN r.rolconnlimit - a.of_role ELSE 1000000 END) AS free,
       s.names, s.values
FROM pg_roles r, pg_database d,
     (SELECT count(*) AS all, count(*) FILTER (WHERE datname = current_database()) AS of_database,
             count(*) FILTER (WHERE usename = current_user) AS of_role
      FROM pg_stat_activity WHERE coalesce(backend_type, 'client backend') = 'client backend' AND datname IS NOT NULL
        AND pid <> pg_backend_pid()) AS a,
     (SELECT array_agg(name::text ORDER BY name) AS names,
             array_agg((CASE WHEN name LIKE '%timeout' THEN reset_val ELSE setting END)::text ORDER BY name) AS values
      FROM pg_settings WHERE name IN ('default_transaction_read_only', 'idle_session_timeout', 'max_connections',
           'session_replication_role', 'statement_timeout', 'synchronous_commit', 'synchronous_standby_names',
           'transaction_timeout', 'fsync', 'full_page_writes')) AS s
WHERE r.rolname = current_user AND d.datname = current_database()";

/// Connections of a sync beside its workers': the lease's, and one more.
const CONNECTIONS_MORE: i64 = 2;

/// A session may be still for as long, between two heartbeats of the lease or two documents of a slow feed.
const IDLE_MS_MIN: i64 = 120_000;

/// The largest batch takes less, and so does reading what is recorded of a million documents.
const WORK_MS_MIN: i64 = 60_000;

/// Why a setting is not changed without a look.
const SHARED_ROLE: &str = "it is so for every session of the role in this database, an application's too: best for a \
                           role that only syncs use";

pub(super) async fn look(exam: &mut Exam<'_>, transaction: &Transaction<'_>) -> Result<(), Error> {
    let recovery = transaction.query_typed_one("SELECT pg_is_in_recovery()", &[]).await?.get(0);
    read_only(exam, recovery);
    connections(exam);
    timeouts(exam);
    durability(exam);
    pooler(exam, transaction).await
}

fn read_only(exam: &mut Exam<'_>, is_standby: bool) {
    if is_standby {
        let finding = exam.general(Severity::Error, "standby", "the server is a standby: it only reads");
        finding.advise("connect to the primary (target_session_attrs=read-write)");
    } else if exam.server.setting("default_transaction_read_only") == "on" {
        let message = "default_transaction_read_only is on: a sync may not write its lease and its ledger";
        let statement = exam.server.set("default_transaction_read_only = off");
        exam.general(Severity::Error, "read_only", message).mend_with_care(statement, SHARED_ROLE);
    }
    if exam.server.setting("session_replication_role") == "replica" {
        let message = "session_replication_role is replica: neither triggers nor foreign keys are looked at";
        let statement = exam.server.set("session_replication_role = origin");
        let finding = exam.general(Severity::Warning, "replication_role", message);
        finding.costs("rows may refer to nothing, and rows that should go along stay");
        finding.mend_with_care(statement, SHARED_ROLE);
    }
}

fn connections(exam: &mut Exam<'_>) {
    let workers = exam.options.workers as i64;
    let (needed, free) = (workers + CONNECTIONS_MORE, exam.server.connections_free.max(0));
    if workers == 0 || free >= needed {
        return;
    }
    let message = format!(
        "{} connections are free, and a sync with {workers} workers opens up to {needed}",
        count(free)
    );
    let finding = exam.general(Severity::Warning, "connections", message);
    finding.costs("a run that gets none in time exits with 2; one that gets fewer is slower");
    finding.advise(
        "fewer --workers; or a higher limit: max_connections, ALTER ROLE or DATABASE … CONNECTION LIMIT",
    );
}

fn timeouts(exam: &mut Exam<'_>) {
    let all = [
        ("statement_timeout", WORK_MS_MIN, "what a run reads before its first transaction is cut off by it"),
        ("transaction_timeout", WORK_MS_MIN, "a batch that takes longer loses its connection"),
        ("idle_session_timeout", IDLE_MS_MIN, "a connection that waits for the feed is closed under the run"),
    ];
    for (name, least, why) in all {
        let set = exam.server.milliseconds(name);
        if set == 0 || set >= least {
            continue;
        }
        let message = format!("{name} is {} ms: {why}", count(set));
        let statement = exam.server.set(&format!("{name} = 0"));
        let finding = exam.general(Severity::Warning, "timeout", message);
        finding.costs("retries, and a run that breaks off if they do not help");
        finding.mend_with_care(statement, SHARED_ROLE);
    }
}

fn durability(exam: &mut Exam<'_>) {
    for name in ["fsync", "full_page_writes"] {
        if exam.server.setting(name) == "off" {
            let message =
                format!("{name} is off: a crash of the system may leave tables that cannot be mended");
            let finding = exam.general(Severity::Warning, "durability", message);
            finding.advise(format!(
                "set {name} = on in postgresql.conf, and reload, unless the data is for tests"
            ));
        }
    }
    let (commit, standbys) =
        (exam.server.setting("synchronous_commit"), exam.server.setting("synchronous_standby_names"));
    if !standbys.is_empty() && matches!(commit, "on" | "remote_write" | "remote_apply") {
        let message = format!("synchronous_commit is {commit}: each batch waits for a standby");
        let statement = exam.server.set("synchronous_commit = local");
        let finding = exam.general(Severity::Note, "synchronous_commit", message);
        finding.costs("a round trip to the standby for each batch; no batch ends while none is there");
        finding.advise(format!(
            "rows and what is recorded of them commit together, so what a crash loses the next run does again: \
             {statement}, if only syncs use this role"
        ));
    }
}

/// A pooler lends connections that are older than ours.
async fn pooler(exam: &mut Exam<'_>, transaction: &Transaction<'_>) -> Result<(), Error> {
    let Some(ours) = exam.options.connected_for else { return Ok(()) };
    let sql = "SELECT extract(epoch FROM clock_timestamp() - backend_start)::float8 \
               FROM pg_stat_activity WHERE pid = pg_backend_pid()";
    let Some(row) = transaction.query_typed(sql, &[]).await?.into_iter().next() else { return Ok(()) };
    let age: Option<f64> = row.get(0);
    if age.is_some_and(|age| age > ours.as_secs_f64() + 10.0) {
        let message = "the server's connection is older than ours: a pooler such as PgBouncer stands between";
        let finding = exam.general(Severity::Note, "pooler", message);
        finding.advise(
            "transaction mode will do; `options` and PGOPTIONS do not pass it: ALTER ROLE … SET instead; its \
             pool needs as many server connections as a run has workers, and two more",
        );
    }
    Ok(())
}
