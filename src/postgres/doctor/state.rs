//! The schema `rowdelta`: whether it is there and can be used, and what it holds of the mapping.

use serde::Serialize;
use tokio_postgres::Transaction;
use tokio_postgres::types::Type;

use super::words::count;
use super::{Exam, Severity};
use crate::error::Error;
use crate::postgres::install::{Lacking, VERSION, lacking};

/// What is recorded of the mapping, and how the tables are that hold it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StateFacts {
    /// Documents that are recorded.
    pub documents: i64,
    /// Those among them that the next run does again.
    pub unsettled: i64,
    /// Bytes of what is recorded of documents, with indexes: of all mappings together.
    pub bytes: i64,
    /// The dead rows of `rowdelta.document`, as the server estimates them.
    pub dead_rows: i64,
    /// Its live rows, likewise.
    pub live_rows: i64,
    /// When autovacuum, or somebody, last cleaned it: ISO 8601, in UTC.
    pub vacuumed: Option<String>,
    /// Runs in the ledger.
    pub runs: i64,
    /// Bytes of the ledger, of all mappings together.
    pub ledger_bytes: i64,
    /// Who has the lease, or had it when it expired.
    pub lease_holder: Option<String>,
    /// When it expires, or did.
    pub lease_until: Option<String>,
    /// Whether it is over.
    pub lease_expired: bool,
    /// The limits in force on rows that a run may delete.
    pub guard_rows_max: Option<i64>,
    /// And on the share of a table's rows, in percent.
    pub guard_percent_max: Option<f64>,
}

/// Looks at the schema `rowdelta`.
pub(super) async fn look(
    exam: &mut Exam<'_>,
    transaction: &Transaction<'_>,
) -> Result<Option<StateFacts>, Error> {
    if !is_usable(exam, transaction).await? {
        return Ok(None);
    }
    let mapping = &exam.mapping.name;
    let row = transaction.query_typed_one(STATE, &[(mapping, Type::TEXT)]).await?;
    let state = StateFacts {
        documents: row.get("documents"),
        unsettled: row.get("unsettled"),
        bytes: row.get("bytes"),
        dead_rows: row.get("dead"),
        live_rows: row.get("live"),
        vacuumed: row.get("vacuumed"),
        runs: row.get("runs"),
        ledger_bytes: row.get("ledger_bytes"),
        lease_holder: row.get("holder"),
        lease_until: row.get("until"),
        lease_expired: row.get("expired"),
        guard_rows_max: row.get("rows_max"),
        guard_percent_max: row.get("percent_max"),
    };
    report(exam, &state);
    Ok(Some(state))
}

const STATE: &str = "
SELECT d.documents, d.unsettled,
       (SELECT sum(pg_total_relation_size(t::regclass))::bigint
        FROM unnest(ARRAY['rowdelta.document', 'rowdelta.base', 'rowdelta.skip']) AS t) AS bytes,
       pg_stat_get_dead_tuples(o.oid) AS dead, pg_stat_get_live_tuples(o.oid) AS live,
       to_char(greatest(pg_stat_get_last_autovacuum_time(o.oid), pg_stat_get_last_vacuum_time(o.oid)) AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') AS vacuumed,
       (SELECT count(*) FROM rowdelta.run r WHERE r.mapping = m.id) AS runs,
       pg_total_relation_size('rowdelta.run'::regclass) + pg_total_relation_size('rowdelta.failure'::regclass) AS ledger_bytes,
       m.lease_holder AS holder, coalesce(m.lease_until < clock_timestamp(), false) AS expired,
       to_char(m.lease_until AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') AS until, g.rows_max, g.percent_max
FROM (SELECT) AS one LEFT JOIN rowdelta.mapping m ON m.name = $1
CROSS JOIN LATERAL rowdelta.counted(m.id) AS d
CROSS JOIN (SELECT 'rowdelta.document'::regclass::oid AS oid) AS o
CROSS JOIN (SELECT min(rows_max) AS rows_max, min(percent_max)::float8 AS percent_max
            FROM rowdelta.guard WHERE mapping IS NULL OR mapping = $1) AS g";

/// Dead rows from which on a share of them says something.
const DEAD_MIN: i64 = 10_000;

fn report(exam: &mut Exam<'_>, state: &StateFacts) {
    if state.unsettled > 0 {
        let message =
            format!("{} of {} documents are unsettled", count(state.unsettled), count(state.documents));
        exam.general(Severity::Note, "unsettled", message)
            .costs("the next run compares them row by row, changed or not")
            .advise("nothing: it settles them. Those that stay so fail each time, or skip a lookup: rowdelta status");
    }
    if state.dead_rows >= DEAD_MIN && state.dead_rows * 5 > state.live_rows {
        let message = format!(
            "rowdelta.document has {} dead rows beside {} live ones; {}",
            count(state.dead_rows),
            count(state.live_rows),
            state.vacuumed.as_deref().map_or("never cleaned".into(), |time| format!("last cleaned {time}"))
        );
        exam.general(Severity::Warning, "dead_rows", message)
            .costs("they are read at the start of each run, too")
            .mend("VACUUM (ANALYZE) rowdelta.document");
    }
    match (&state.lease_holder, state.lease_expired) {
        (Some(holder), true) => {
            let until = state.lease_until.as_deref().unwrap_or_default();
            let message =
                format!("the lease of {holder} expired {until} without being given back: the run died");
            exam.general(Severity::Note, "dead_lease", message).advise("nothing: the next run takes it over");
        }
        (Some(holder), false) => {
            let message = format!("a run is at work: {holder}");
            exam.general(Severity::Note, "busy", message)
                .costs("another one exits with code 4 until it is done, or waits with --wait");
        }
        (None, _) => {}
    }
    guard(exam, state);
}

fn guard(exam: &mut Exam<'_>, state: &StateFacts) {
    let rows = state.guard_rows_max.map(|rows| format!("{} rows", count(rows)));
    let percent = state.guard_percent_max.map(|percent| format!("{percent} % of a table"));
    let limits: Vec<String> = rows.into_iter().chain(percent).collect();
    if !limits.is_empty() {
        let message = format!("rowdelta.guard allows a run to delete {} at most", limits.join(", and "));
        exam.general(Severity::Note, "guard", message).costs(
            "documents that would delete more are withheld whole, whatever the caller allows: exit code 3",
        );
    }
}

/// Whether the schema is there, of this version, and open to the role; what is not is reported.
async fn is_usable(exam: &mut Exam<'_>, transaction: &Transaction<'_>) -> Result<bool, Error> {
    let role = exam.server.quoted_role();
    let sql = "SELECT has_schema_privilege(oid, 'USAGE') FROM pg_namespace WHERE nspname = 'rowdelta'";
    let usage: Option<bool> = transaction.query_typed(sql, &[]).await?.first().map(|row| row.get(0));
    if usage == Some(false) {
        exam.general(Severity::Error, "privilege", "the role may not use the schema rowdelta")
            .mend(format!("GRANT USAGE ON SCHEMA rowdelta TO {role}"))
            .advise("then run doctor again: what the role may do in it is not known so far");
        return Ok(false);
    }
    let sql = "SELECT to_regprocedure('rowdelta.version()') IS NOT NULL";
    if usage.is_none() || !transaction.query_typed_one(sql, &[]).await?.get::<_, bool>(0) {
        exam.general(Severity::Error, "not_installed", "the database has no schema rowdelta")
            .costs("a sync exits with 2, unless it is given --install")
            .advise("rowdelta install -d URL, once, by a role with CREATE on the database");
        return Ok(false);
    }
    let missing = privileges(exam, transaction).await?;
    if missing {
        return Ok(false);
    }
    let version: String = transaction.query_typed_one("SELECT rowdelta.version()", &[]).await?.get(0);
    if version != VERSION {
        let message =
            format!("the schema rowdelta is of version {version}; this program works with {VERSION}");
        exam.general(Severity::Error, "other_version", message)
            .costs("a sync exits with 2")
            .advise("rowdelta install -d URL, or the program of that version");
        return Ok(false);
    }
    Ok(true)
}

/// Reports what the role may not do in the schema. Gives whether there is something of it that it may not read.
async fn privileges(exam: &mut Exam<'_>, transaction: &Transaction<'_>) -> Result<bool, Error> {
    let of_table = |lacking: Lacking| (format!("rowdelta.{}", lacking.table), lacking.privileges);
    let mut missing: Vec<(String, Vec<String>)> =
        lacking(transaction, true).await?.into_iter().map(of_table).collect();
    // The functions run with the caller's privileges.
    if transaction.query_typed_one(MAY_EXECUTE, &[]).await?.get::<_, Option<bool>>(0) == Some(false) {
        missing.push(("ALL FUNCTIONS IN SCHEMA rowdelta".to_owned(), vec!["EXECUTE".to_owned()]));
    }
    let role = exam.server.quoted_role();
    for (what, privileges) in &missing {
        let list = privileges.join(", ");
        exam.general(Severity::Error, "privilege", format!("the role may not {list} on {what}"))
            .costs("a sync cannot record what it did")
            .mend(format!("GRANT {list} ON {what} TO {role}"));
    }
    let is_to_read = |privilege: &String| privilege == "SELECT" || privilege == "EXECUTE";
    Ok(missing.iter().any(|(_, privileges)| privileges.iter().any(is_to_read)))
}

const MAY_EXECUTE: &str = "
SELECT bool_and(has_function_privilege(p.oid, 'EXECUTE')) FROM pg_proc p JOIN pg_namespace s ON s.oid = p.pronamespace
WHERE s.nspname = 'rowdelta'";
