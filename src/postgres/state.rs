//! What the database remembers of mappings, runs and documents, through the functions of schema `rowdelta`.

use futures_util::TryStreamExt;
use postgres_types::Type;
use tokio_postgres::{Client, GenericClient, Transaction};

use crate::document::DocumentKey;
use crate::error::{Error, ErrorKind};
use crate::fingerprint::{
    DocumentFingerprint, LENGTH, RawFingerprint, RelationFingerprint, comparison_tuple,
};
use crate::mapping::Mapping;
use crate::postgres::fetch::{cells, selected};
use crate::postgres::wire::{Param, Raw, bool_array, bytea_array, text_array, typed};
use crate::schema::{Schema, Table};

/// What is recorded of one document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct State {
    pub raw: Option<RawFingerprint>,
    pub fingerprint: Option<DocumentFingerprint>,
    /// A set: the digest of a relation is part of its fingerprint.
    pub relations: Vec<RelationFingerprint>,
    pub settled: bool,
    /// Whether its root row is marked as missing from a complete feed.
    pub absent: bool,
}

/// A document to record.
pub(crate) struct Record<'a> {
    pub key: &'a DocumentKey,
    /// The state that was read before; `None`: there was none.
    pub before: Option<&'a State>,
    pub raw: RawFingerprint,
    pub fingerprint: DocumentFingerprint,
    pub relations: &'a [RelationFingerprint],
    pub settled: bool,
    /// What the fingerprints cover.
    pub coverage: &'a [u8],
}

impl Record<'_> {
    /// Whether it says anything that was not recorded before.
    pub fn is_news(&self) -> bool {
        self.before.is_none_or(|before| {
            before.raw != Some(self.raw)
                || before.fingerprint != Some(self.fingerprint)
                || before.relations != self.relations
                || before.settled != self.settled
        })
    }
}

/// The right to write under a mapping, for a while.
#[derive(Clone, Debug)]
pub(crate) struct Lease {
    pub mapping: i32,
    /// The token, as text.
    pub token: String,
}

/// Enters or renews the mapping; gives its id.
pub(crate) async fn register(client: &Client, mapping: &Mapping, schema: &Schema) -> Result<i32, Error> {
    let definition = mapping.definition.to_string();
    let params: &[(&(dyn postgres_types::ToSql + Sync), Type)] =
        &[(&mapping.name, Type::TEXT), (&definition, Type::TEXT), (&&schema.digest[..], Type::BYTEA)];
    Ok(client.query_typed_one("SELECT rowdelta.register($1, $2::jsonb, $3)", params).await?.get(0))
}

/// Takes the lease of a mapping for `seconds`.
///
/// # Errors
/// Someone else has it.
pub(crate) async fn acquire(
    client: &Client,
    mapping: i32,
    holder: &str,
    seconds: i32,
) -> Result<Lease, Error> {
    let params: &[(&(dyn postgres_types::ToSql + Sync), Type)] =
        &[(&mapping, Type::INT4), (&holder, Type::TEXT), (&seconds, Type::INT4)];
    let row = client.query_typed_one("SELECT rowdelta.acquire($1, $2, $3)::text", params).await?;
    match row.get(0) {
        Some(token) => Ok(Lease { mapping, token }),
        None => Err(Error::new(ErrorKind::Busy, "another run of this mapping is at work")),
    }
}

/// The lease of a mapping, if this holder has it.
pub(crate) async fn held_lease(client: &Client, mapping: i32, holder: &str) -> Result<Option<Lease>, Error> {
    let params: &[(&(dyn postgres_types::ToSql + Sync), Type)] =
        &[(&mapping, Type::INT4), (&holder, Type::TEXT)];
    let sql = "SELECT lease_token::text FROM rowdelta.mapping WHERE id = $1 AND lease_holder = $2";
    let rows = client.query_typed(sql, params).await?;
    Ok(rows.first().and_then(|row| row.get(0)).map(|token| Lease { mapping, token }))
}

/// Prolongs a lease. False: it was lost.
pub(crate) async fn renew(client: &Client, lease: &Lease, seconds: i32) -> Result<bool, Error> {
    let params: &[(&(dyn postgres_types::ToSql + Sync), Type)] =
        &[(&lease.mapping, Type::INT4), (&lease.token, Type::TEXT), (&seconds, Type::INT4)];
    Ok(client.query_typed_one("SELECT rowdelta.renew($1, $2::uuid, $3)", params).await?.get(0))
}

/// Gives a lease back.
pub(crate) async fn release(client: &Client, lease: &Lease) -> Result<(), Error> {
    let params: &[(&(dyn postgres_types::ToSql + Sync), Type)] =
        &[(&lease.mapping, Type::INT4), (&lease.token, Type::TEXT)];
    client.execute_typed("SELECT rowdelta.release($1, $2::uuid)", params).await?;
    Ok(())
}

/// Checks the lease for the rest of the transaction.
pub(crate) async fn enter(client: &impl GenericClient, lease: &Lease) -> Result<(), Error> {
    let params: &[(&(dyn postgres_types::ToSql + Sync), Type)] =
        &[(&lease.mapping, Type::INT4), (&lease.token, Type::TEXT)];
    client.query_typed("SELECT rowdelta.enter($1, $2::uuid)", params).await?;
    Ok(())
}

/// Calls `each` with the raw fingerprint and the key of every document that is done.
pub(crate) async fn settled(
    client: &Client,
    mapping: i32,
    mut each: impl FnMut(RawFingerprint, DocumentKey),
) -> Result<(), Error> {
    let sql = "SELECT raw, key FROM rowdelta.settled($1)";
    let mut rows = std::pin::pin!(client.query_typed_raw(sql, [(mapping, Type::INT4)]).await?);
    while let Some(row) = rows.try_next().await? {
        if let Ok(raw) = row.get::<_, Raw<'_>>(0).0.try_into() {
            each(RawFingerprint(raw), DocumentKey(row.get::<_, Raw<'_>>(1).0.to_vec()));
        }
    }
    Ok(())
}

/// Calls `each` with the key of every document recorded that is not marked as absent.
pub(crate) async fn present(
    client: &Client,
    mapping: i32,
    mut each: impl FnMut(DocumentKey),
) -> Result<(), Error> {
    let sql = "SELECT key FROM rowdelta.present($1) AS key";
    let mut rows = std::pin::pin!(client.query_typed_raw(sql, [(mapping, Type::INT4)]).await?);
    while let Some(row) = rows.try_next().await? {
        each(DocumentKey(row.get::<_, Raw<'_>>(0).0.to_vec()));
    }
    Ok(())
}

/// What is recorded of documents. One that was never synced is left out.
pub(crate) async fn states(
    client: &impl GenericClient,
    mapping: i32,
    keys: &[&DocumentKey],
) -> Result<Vec<(DocumentKey, State)>, Error> {
    let keys = bytea_array(keys.iter().map(|key| Some(&key.0[..])));
    let params: &[(&(dyn postgres_types::ToSql + Sync), Type)] =
        &[(&mapping, Type::INT4), (&keys, Type::BYTEA_ARRAY)];
    let sql = "SELECT key, raw, fingerprint, relations, settled, absent FROM rowdelta.states($1, $2)";
    let rows = client.query_typed(sql, params).await?;
    let state = |row: &tokio_postgres::Row| State {
        raw: fixed(row, 1).map(RawFingerprint),
        fingerprint: fixed(row, 2).map(DocumentFingerprint),
        relations: relations(row.get(3)),
        settled: row.get(4),
        absent: row.get(5),
    };
    Ok(rows.iter().map(|row| (DocumentKey(row.get(0)), state(row))).collect())
}

fn relations(bytes: &[u8]) -> Vec<RelationFingerprint> {
    let relation = |bytes: &[u8]| Some(RelationFingerprint(bytes.try_into().ok()?));
    bytes.chunks_exact(LENGTH).filter_map(relation).collect()
}

fn fixed(row: &tokio_postgres::Row, at: usize) -> Option<[u8; LENGTH]> {
    row.get::<_, Option<&[u8]>>(at).and_then(|bytes| bytes.try_into().ok())
}

/// Records documents by compare-and-set.
///
/// # Errors
/// Transient, if someone else recorded one of them since `before` was read.
pub(crate) async fn record(
    client: &impl GenericClient,
    mapping: i32,
    records: &[Record<'_>],
) -> Result<(), Error> {
    if records.is_empty() {
        return Ok(());
    }
    let relations: Vec<Vec<u8>> =
        records.iter().map(|record| record.relations.iter().flat_map(|f| f.0).collect()).collect();
    let expected = |record: &Record<'_>| record.before.and_then(|state| state.fingerprint);
    let expected: Vec<_> = records.iter().map(expected).collect();
    let params = [
        Param::scalar(Type::INT4.oid(), Some(&mapping.to_be_bytes())),
        bytea_array(records.iter().map(|record| Some(&record.key.0[..]))),
        bool_array(records.iter().map(|record| record.before.is_none())),
        bytea_array(expected.iter().map(|f| f.as_ref().map(|f| &f.0[..]))),
        bytea_array(records.iter().map(|record| Some(&record.raw.0[..]))),
        bytea_array(records.iter().map(|record| Some(&record.fingerprint.0[..]))),
        bytea_array(relations.iter().map(|relations| Some(&relations[..]))),
        bool_array(records.iter().map(|record| record.settled)),
        bytea_array(records.iter().map(|record| Some(record.coverage))),
    ];
    client.query_typed("SELECT rowdelta.record($1, $2, $3, $4, $5, $6, $7, $8, $9)", &typed(&params)).await?;
    Ok(())
}

/// Records another spelling of documents whose rows did not change.
pub(crate) async fn renew_raw(
    client: &impl GenericClient,
    mapping: i32,
    renewed: &[(&DocumentKey, DocumentFingerprint, RawFingerprint)],
) -> Result<(), Error> {
    if renewed.is_empty() {
        return Ok(());
    }
    let params = [
        Param::scalar(Type::INT4.oid(), Some(&mapping.to_be_bytes())),
        bytea_array(renewed.iter().map(|(key, _, _)| Some(&key.0[..]))),
        bytea_array(renewed.iter().map(|(_, fingerprint, _)| Some(&fingerprint.0[..]))),
        bytea_array(renewed.iter().map(|(_, _, raw)| Some(&raw.0[..]))),
    ];
    client.query_typed("SELECT rowdelta.renew_raw($1, $2, $3, $4)", &typed(&params)).await?;
    Ok(())
}

/// Forgets what is recorded of documents.
pub(crate) async fn unsettle(
    client: &impl GenericClient,
    mapping: i32,
    keys: &[DocumentKey],
) -> Result<(), Error> {
    of_documents(client, "SELECT rowdelta.unsettle($1, $2)", mapping, keys).await
}

/// Drops what is recorded of documents that have another key now.
pub(crate) async fn forget(
    client: &impl GenericClient,
    mapping: i32,
    keys: &[DocumentKey],
) -> Result<(), Error> {
    of_documents(client, "SELECT rowdelta.forget($1, $2)", mapping, keys).await
}

/// Notes that the root rows of documents are marked as missing from a complete feed.
pub(crate) async fn absent(
    client: &impl GenericClient,
    mapping: i32,
    keys: &[DocumentKey],
) -> Result<(), Error> {
    of_documents(client, "SELECT rowdelta.absent($1, $2)", mapping, keys).await
}

/// The database's own limits on what a run may delete: rows, and percent of a table.
pub(crate) async fn guard(
    client: &impl GenericClient,
    mapping: &str,
) -> Result<(Option<i64>, Option<f64>), Error> {
    let sql = "SELECT min(rows_max), min(percent_max)::float8 FROM rowdelta.guard \
               WHERE mapping IS NULL OR mapping = $1";
    let row = client.query_typed_one(sql, &[(&mapping, Type::TEXT)]).await?;
    Ok((row.get(0), row.get(1)))
}

/// How many documents the last feed had that was found to be complete.
pub(crate) async fn last_complete(client: &Client, mapping: i32) -> Result<Option<i64>, Error> {
    let sql = "SELECT (report #>> '{documents,read}')::bigint - (report #>> '{documents,repeated}')::bigint \
               FROM rowdelta.run WHERE mapping = $1 AND report -> 'complete' = 'true' ORDER BY id DESC LIMIT 1";
    let rows = client.query_typed(sql, &[(&mapping, Type::INT4)]).await?;
    Ok(rows.first().and_then(|row| row.get(0)))
}

/// Calls a function of mapping and keys, if there are any keys.
async fn of_documents(
    client: &impl GenericClient,
    sql: &str,
    mapping: i32,
    keys: &[DocumentKey],
) -> Result<(), Error> {
    if keys.is_empty() {
        return Ok(());
    }
    let params = [
        Param::scalar(Type::INT4.oid(), Some(&mapping.to_be_bytes())),
        bytea_array(keys.iter().map(|key| Some(&key.0[..]))),
    ];
    client.query_typed(sql, &typed(&params)).await?;
    Ok(())
}

/// Has every document compared: a table lost its rows.
pub(crate) async fn unsettle_all(client: &Client, mapping: i32) -> Result<(), Error> {
    client.execute_typed("SELECT rowdelta.unsettle_all($1)", &[(&mapping, Type::INT4)]).await?;
    Ok(())
}

/// Declares documents done whose removals had been held back. Gives how many.
pub(crate) async fn settle(
    client: &impl GenericClient,
    mapping: i32,
    documents: &[(&DocumentKey, DocumentFingerprint)],
) -> Result<i64, Error> {
    let params = [
        Param::scalar(Type::INT4.oid(), Some(&mapping.to_be_bytes())),
        bytea_array(documents.iter().map(|(key, _)| Some(&key.0[..]))),
        bytea_array(documents.iter().map(|(_, fingerprint)| Some(&fingerprint.0[..]))),
    ];
    Ok(client.query_typed_one("SELECT rowdelta.settle($1, $2, $3)", &typed(&params)).await?.get(0))
}

/// SQL of the key of the document that a root row `r` belongs to: its bytes, made by the types' own binary output.
fn key_sql(root: &Table) -> String {
    let cell = |at: &usize| {
        let column = &root.columns[*at];
        let name = format!("r.{}", super::quote(&root.names[*at]));
        let sent = format!("{}({})", column.send, crate::value::comparison_sql(&column.kind, &name));
        // −1 for NULL, as in a tuple.
        format!("coalesce(int4send(octet_length({sent})) || {sent}, int4send(-1))")
    };
    root.key.iter().map(cell).collect::<Vec<_>>().join(" || ")
}

/// Calls `each` with the key of every root row, as documents have it.
pub(crate) async fn root_keys(
    client: &Client,
    root: &Table,
    mut each: impl FnMut(DocumentKey),
) -> Result<(), Error> {
    let columns = root.key.iter().map(|&at| selected("r", &root.names[at], &root.columns[at]));
    let sql = format!("SELECT {} FROM {} r", columns.collect::<Vec<_>>().join(", "), root.name);
    let types = root.key_types();
    let mut rows = std::pin::pin!(client.query_typed_raw(&sql, NO_PARAMS).await?);
    while let Some(row) = rows.try_next().await? {
        let key = comparison_tuple(&types, &cells(&row, 0..types.len())?);
        each(DocumentKey(key.into_bytes()));
    }
    Ok(())
}

const NO_PARAMS: [(i32, Type); 0] = [];

/// Finds documents whose root row is gone, and forgets them. Gives their number.
pub(crate) async fn unsettle_lost_roots(client: &Client, mapping: i32, root: &Table) -> Result<u64, Error> {
    let key = key_sql(root);
    let sql = format!(
        "SELECT rowdelta.unsettle($1, (SELECT coalesce(array_agg(d.key), '{{}}') FROM rowdelta.document d \
         WHERE d.mapping = $1 AND d.fingerprint IS NOT NULL \
           AND NOT EXISTS (SELECT FROM {} r WHERE {key} = d.key)))",
        root.name
    );
    let row = client.query_typed_one(&sql, &[(&mapping, Type::INT4)]).await?;
    Ok(row.get::<_, i64>(0) as u64)
}

/// How many root rows belong to no document that is recorded.
pub(crate) async fn unrecorded_roots(
    transaction: &Transaction<'_>,
    mapping: i32,
    root: &Table,
) -> Result<u64, Error> {
    let sql = format!(
        "SELECT count(*) FROM {} r WHERE NOT EXISTS \
         (SELECT FROM rowdelta.document d WHERE d.mapping = $1 AND d.key = {})",
        root.name,
        key_sql(root)
    );
    let row = transaction.query_typed_one(&sql, &[(&mapping, Type::INT4)]).await?;
    Ok(row.get::<_, i64>(0) as u64)
}

/// The id of a mapping, if a run of it was ever begun.
pub(crate) async fn mapping_id(client: &Client, name: &str) -> Result<Option<i32>, Error> {
    let sql = "SELECT id FROM rowdelta.mapping WHERE name = $1";
    let row = client.query_typed(sql, &[(&name, Type::TEXT)]).await?.pop();
    Ok(row.map(|row| row.get(0)))
}

/// What is recorded of one of all documents.
pub(crate) struct Recorded {
    pub key: DocumentKey,
    /// In the order of the mapping under which it was recorded.
    pub relations: Vec<RelationFingerprint>,
    pub settled: bool,
    pub coverage: Option<Vec<u8>>,
}

/// What is recorded of `limit` documents after a key, in the order of their keys.
pub(crate) async fn recorded(
    transaction: &Transaction<'_>,
    mapping: i32,
    after: Option<&DocumentKey>,
    limit: i32,
) -> Result<Vec<Recorded>, Error> {
    let params = [
        Param::scalar(Type::INT4.oid(), Some(&mapping.to_be_bytes())),
        Param::scalar(Type::BYTEA.oid(), after.map(|key| &key.0[..])),
        Param::scalar(Type::INT4.oid(), Some(&limit.to_be_bytes())),
    ];
    let sql = "SELECT key, relations, settled, coverage FROM rowdelta.recorded($1, $2, $3)";
    let rows = transaction.query_typed(sql, &typed(&params)).await?;
    let one = |row: &tokio_postgres::Row| Recorded {
        key: DocumentKey(row.get(0)),
        relations: relations(row.get(1)),
        settled: row.get(2),
        coverage: row.get(3),
    };
    Ok(rows.iter().map(one).collect())
}

/// The relations whose tables held rows at the end of the last run.
pub(crate) async fn filled(client: &Client, mapping: i32) -> Result<Vec<String>, Error> {
    let sql = "SELECT filled FROM rowdelta.mapping WHERE id = $1";
    Ok(client.query_typed_one(sql, &[(&mapping, Type::INT4)]).await?.get(0))
}

/// Remembers which relations' tables hold rows; writes only what differs.
pub(crate) async fn set_filled(client: &Client, mapping: i32, names: &[String]) -> Result<(), Error> {
    let names = text_array(names.iter().map(String::as_str));
    let sql = "UPDATE rowdelta.mapping SET filled = $2 WHERE id = $1 AND filled <> $2";
    client.execute_typed(sql, &[(&mapping, Type::INT4), (&names, Type::TEXT_ARRAY)]).await?;
    Ok(())
}

/// Of each table whether it holds any row.
pub(crate) async fn hold_rows(client: &Client, tables: &[Table]) -> Result<Vec<bool>, Error> {
    let held = tables.iter().map(|table| format!("EXISTS (SELECT FROM {})", table.name));
    let sql = format!("SELECT ARRAY[{}]", held.collect::<Vec<_>>().join(", "));
    Ok(client.query_typed_one(&sql, &[]).await?.get(0))
}

/// The end of the server's write-ahead log.
pub(crate) async fn wal_position(client: &Client) -> Result<i64, Error> {
    let sql = "SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint";
    Ok(client.query_typed_one(sql, &[]).await?.get(0))
}

/// Opens an entry of the ledger; gives its id.
pub(crate) async fn start_run(client: &Client, mapping: i32) -> Result<i64, Error> {
    let sql = "INSERT INTO rowdelta.run (mapping) VALUES ($1) RETURNING id";
    Ok(client.query_typed_one(sql, &[(&mapping, Type::INT4)]).await?.get(0))
}

/// Closes an entry of the ledger. One that is closed already, unknown to the caller, stays as it is.
pub(crate) async fn finish_run(client: &Client, run: i64, status: &str, report: &str) -> Result<(), Error> {
    let params: &[(&(dyn postgres_types::ToSql + Sync), Type)] =
        &[(&run, Type::INT8), (&status, Type::TEXT), (&report, Type::TEXT)];
    let sql = "WITH run AS (UPDATE rowdelta.run SET finished = clock_timestamp(), status = $2, \
                            report = $3::jsonb - 'failures' WHERE id = $1 AND finished IS NULL RETURNING id) \
               INSERT INTO rowdelta.failure (run, document, file, line, item, relation, path, sqlstate, message, \
                                              retryable) \
               SELECT run.id, f.document, f.file, f.line, f.item, f.relation, f.path, f.sqlstate, f.message, \
                      f.retryable \
               FROM run, jsonb_to_recordset($3::jsonb -> 'failures') AS f (document text, file text, line bigint, \
                    item bigint, relation text, path text, sqlstate text, message text, retryable boolean)";
    client.execute_typed(sql, params).await?;
    Ok(())
}
