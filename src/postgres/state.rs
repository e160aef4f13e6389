//! What the database remembers of mappings, runs and documents, through the functions of schema `rowdelta`.

use std::collections::HashSet;

use futures_util::TryStreamExt;
use postgres_types::Type;
use tokio_postgres::{Client, GenericClient, IsolationLevel, Transaction};

use crate::document::DocumentKey;
use crate::error::{Error, ErrorKind};
use crate::fingerprint::{
    DocumentFingerprint, LENGTH, RawFingerprint, RelationFingerprint, comparison_tuple, recorded as packed,
};
use crate::mapping::Mapping;
use crate::postgres::fetch::{cells, selected};
use crate::postgres::wire::{Param, Raw, bool_array, bytea_array, elements, text_array, typed};
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
    /// Whether its bytes have changed already, and its rows have not, since these were recorded.
    pub respelled: bool,
}

/// A document that was respelled before has its bytes recorded in one run of so many.
const RENEWAL: i64 = 16;

/// Whether other bytes of a document, whose rows did not change, are recorded. The first time they are: it is to be
/// skipped from then on. If it is not, since the bytes are others each time, recording them is for nothing; but now and
/// then they are all the same, in case that has ended.
pub(crate) fn renews(respelled: bool, raw: RawFingerprint, run: i64) -> bool {
    !respelled || run.wrapping_add(raw.0[0].into()).rem_euclid(RENEWAL) == 0
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
        None => Err(busy(client, mapping).await?),
    }
}

/// That another run has the lease: whose it is, and until when.
async fn busy(client: &Client, mapping: i32) -> Result<Error, Error> {
    let sql = "SELECT name, lease_holder, to_char(lease_until AT TIME ZONE 'UTC', 'HH24:MI:SS')
               FROM rowdelta.mapping WHERE id = $1";
    let row = client.query_typed_one(sql, &[(&mapping, Type::INT4)]).await?;
    let mut message = format!("another run of {} is at work", row.get::<_, &str>(0));
    // It may have ended meanwhile.
    if let (Some(holder), Some(until)) = (row.get::<_, Option<&str>>(1), row.get::<_, Option<&str>>(2)) {
        message += &format!(": {holder}, lease until {until} UTC");
    }
    Ok(Error::new(ErrorKind::Busy, message + "; --wait S waits for it, rowdelta status says more"))
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

/// A transaction in which what is recorded may change, whatever the role's default is.
async fn read_committed(client: &mut Client) -> Result<Transaction<'_>, Error> {
    Ok(client.build_transaction().isolation_level(IsolationLevel::ReadCommitted).start().await?)
}

/// A transaction in which all statements see one state of the database: a merge moves rows from one table to another.
pub(crate) async fn snapshot(client: &mut Client) -> Result<Transaction<'_>, Error> {
    let builder = client.build_transaction().isolation_level(IsolationLevel::RepeatableRead).read_only(true);
    Ok(builder.start().await?)
}

/// Of how many documents the base has what is recorded.
pub(crate) async fn packed_documents(transaction: &Transaction<'_>, mapping: i32) -> Result<usize, Error> {
    let sql = "SELECT coalesce(sum(documents), 0) FROM rowdelta.skip WHERE mapping = $1";
    let documents: i64 = transaction.query_typed_one(sql, &[(&mapping, Type::INT4)]).await?.get(0);
    Ok(usize::try_from(documents).unwrap_or(0))
}

/// Calls `each` with the raw fingerprint and the key of every document that is done. `is_packed`: whether the base has any.
///
/// The tables are read as they are: a function would keep the whole of what it gives before it gave any of it.
pub(crate) async fn settled(
    transaction: &Transaction<'_>,
    mapping: i32,
    is_packed: bool,
    mut each: impl FnMut(RawFingerprint, &DocumentKey),
) -> Result<(), Error> {
    let sql =
        "SELECT key, CASE WHEN settled AND NOT gone THEN raw END FROM rowdelta.document WHERE mapping = $1";
    let mut rows = std::pin::pin!(transaction.query_typed_raw(sql, [(mapping, Type::INT4)]).await?);
    let mut recent = HashSet::new();
    while let Some(row) = rows.try_next().await? {
        let key = DocumentKey(row.get::<_, Raw<'_>>(0).0.to_vec());
        if let Some(raw) = fixed(&row, 1) {
            each(RawFingerprint(raw), &key);
        }
        // They hide what is packed.
        if is_packed {
            recent.insert(key);
        }
    }
    let sql = "SELECT keys, raws FROM rowdelta.skip WHERE mapping = $1";
    let mut rows = std::pin::pin!(transaction.query_typed_raw(sql, [(mapping, Type::INT4)]).await?);
    let mut key = DocumentKey(Vec::new());
    while let Some(row) = rows.try_next().await? {
        let (keys, raws) = (row.get::<_, Raw<'_>>(0).0, row.get::<_, Raw<'_>>(1).0);
        for (bytes, raw) in elements(keys).zip(raws.chunks_exact(LENGTH)) {
            key.0.clear();
            key.0.extend_from_slice(bytes);
            match raw.try_into() {
                Ok(raw) if !recent.contains(&key) => each(RawFingerprint(raw), &key),
                _ => {}
            }
        }
    }
    Ok(())
}

/// What is recorded of a settled document, but for the fingerprints of its relations.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settled {
    pub fingerprint: DocumentFingerprint,
    pub raw: Option<RawFingerprint>,
    pub respelled: bool,
}

/// Calls `each` with the key of every settled document, and what is recorded of it.
pub(crate) async fn all_settled(
    transaction: &Transaction<'_>,
    mapping: i32,
    mut each: impl FnMut(&[u8], Settled),
) -> Result<(), Error> {
    type Hash<'a> = Option<&'a [u8]>;
    let fixed = |bytes: Hash<'_>| bytes.and_then(|bytes| bytes.try_into().ok());
    let mut tell =
        |key: &[u8], (raw, fingerprint): (Hash<'_>, Hash<'_>), is_settled: bool, respelled: bool| {
            if let Some(fingerprint) = fixed(fingerprint).filter(|_| is_settled) {
                let (fingerprint, raw) = (DocumentFingerprint(fingerprint), fixed(raw).map(RawFingerprint));
                each(key, Settled { fingerprint, raw, respelled });
            }
        };
    let sql = "SELECT key, raw, fingerprint, settled AND NOT gone, respelled FROM rowdelta.document WHERE mapping = $1";
    let mut rows = std::pin::pin!(transaction.query_typed_raw(sql, [(mapping, Type::INT4)]).await?);
    // They hide what is packed.
    let mut recent = HashSet::new();
    while let Some(row) = rows.try_next().await? {
        tell(row.get(0), (row.get(1), row.get(2)), row.get(3), row.get(4));
        recent.insert(row.get::<_, &[u8]>(0).to_vec());
    }
    let sql = "SELECT keys, raw, fingerprint, settled, respelled FROM rowdelta.base WHERE mapping = $1";
    let mut rows = std::pin::pin!(transaction.query_typed_raw(sql, [(mapping, Type::INT4)]).await?);
    while let Some(row) = rows.try_next().await? {
        let (raws, fingerprints): (Vec<Hash<'_>>, Vec<Hash<'_>>) = (row.get(1), row.get(2));
        let (settled, respelled): (Vec<bool>, Vec<bool>) = (row.get(3), row.get(4));
        let hashes = raws.into_iter().zip(fingerprints);
        let entries =
            elements(row.get::<_, Raw<'_>>(0).0).zip(hashes).zip(settled.into_iter().zip(respelled));
        for ((key, hashes), (is_settled, respelled)) in entries {
            if !recent.contains(key) {
                tell(key, hashes, is_settled, respelled);
            }
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
    schema: &Schema,
    keys: &[&DocumentKey],
) -> Result<Vec<(DocumentKey, State)>, Error> {
    let keys = bytea_array(keys.iter().map(|key| Some(&key.0[..])));
    let params: &[(&(dyn postgres_types::ToSql + Sync), Type)] =
        &[(&mapping, Type::INT4), (&keys, Type::BYTEA_ARRAY)];
    let sql =
        "SELECT key, raw, fingerprint, relations, settled, absent, respelled FROM rowdelta.states($1, $2)";
    let rows = client.query_typed(sql, params).await?;
    let empties = packed::empties(schema);
    let state = |row: &tokio_postgres::Row| {
        let fingerprint = fixed(row, 2).map(DocumentFingerprint);
        let relations = packed::from_bytes(&empties, fingerprint, row.get(3));
        State {
            raw: fixed(row, 1).map(RawFingerprint),
            fingerprint,
            relations: relations.into_iter().flatten().collect(),
            settled: row.get(4),
            absent: row.get(5),
            respelled: row.get(6),
        }
    };
    Ok(rows.iter().map(|row| (DocumentKey(row.get(0)), state(row))).collect())
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
    schema: &Schema,
    records: &[Record<'_>],
) -> Result<(), Error> {
    if records.is_empty() {
        return Ok(());
    }
    let empties = packed::empties(schema);
    let relations: Vec<Vec<u8>> =
        records.iter().map(|record| packed::to_bytes(&empties, record.relations)).collect();
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
pub(crate) async fn unsettle_all(client: &mut Client, mapping: i32) -> Result<(), Error> {
    let transaction = read_committed(client).await?;
    transaction.execute_typed("SELECT rowdelta.unsettle_all($1)", &[(&mapping, Type::INT4)]).await?;
    transaction.commit().await?;
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
    transaction: &Transaction<'_>,
    root: &Table,
    mut each: impl FnMut(DocumentKey),
) -> Result<(), Error> {
    let columns = root.key.iter().map(|&at| selected("r", &root.names[at], &root.columns[at]));
    let sql = format!("SELECT {} FROM {} r", columns.collect::<Vec<_>>().join(", "), root.name);
    let types = root.key_types();
    let mut rows = std::pin::pin!(transaction.query_typed_raw(&sql, NO_PARAMS).await?);
    while let Some(row) = rows.try_next().await? {
        let key = comparison_tuple(&types, &cells(&row, 0..types.len())?);
        each(DocumentKey(key.into_bytes()));
    }
    Ok(())
}

const NO_PARAMS: [(i32, Type); 0] = [];

/// Finds documents whose root row is gone, and forgets them. Gives their number.
///
/// Of documents in the base only settled ones are looked for: the others are compared in any case.
pub(crate) async fn unsettle_lost_roots(
    client: &mut Client,
    mapping: i32,
    root: &Table,
) -> Result<u64, Error> {
    let sql = format!(
        "WITH known AS (
             SELECT d.key, true AS recent FROM rowdelta.document d
             WHERE d.mapping = $1 AND d.fingerprint IS NOT NULL
             UNION ALL
             SELECT k.key, false FROM rowdelta.skip s CROSS JOIN LATERAL unnest(s.keys) AS k (key)
             WHERE s.mapping = $1
         ), lost AS MATERIALIZED (
             SELECT k.key, k.recent FROM known k WHERE NOT EXISTS (SELECT FROM {} r WHERE {} = k.key)
         )
         SELECT rowdelta.unsettle($1, (SELECT coalesce(array_agg(l.key), '{{}}') FROM lost l
             WHERE l.recent OR NOT EXISTS (SELECT FROM rowdelta.document d WHERE d.mapping = $1 AND d.key = l.key)))",
        root.name,
        key_sql(root)
    );
    let transaction = read_committed(client).await?;
    let row = transaction.query_typed_one(&sql, &[(&mapping, Type::INT4)]).await?;
    transaction.commit().await?;
    Ok(row.get::<_, i64>(0) as u64)
}

/// How many root rows belong to no document that is recorded.
pub(crate) async fn unrecorded_roots(
    transaction: &Transaction<'_>,
    mapping: i32,
    root: &Table,
) -> Result<u64, Error> {
    // By one look into the index for each row: nothing is to be kept of all of them.
    let sql = format!(
        "SELECT count(*) FROM (SELECT {} AS key FROM {} r) AS r
         LEFT JOIN rowdelta.document d ON d.mapping = $1 AND d.key = r.key
         WHERE CASE WHEN d.key IS NOT NULL THEN d.gone
               ELSE NOT coalesce((SELECT r.key = ANY (b.keys) FROM rowdelta.base b
                                  WHERE b.mapping = $1 AND b.lowest <= r.key ORDER BY b.lowest DESC LIMIT 1), false) END",
        key_sql(root),
        root.name
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
    /// In the order of the mapping under which it was recorded; none where they are not all known.
    pub relations: Vec<RelationFingerprint>,
    pub settled: bool,
    pub coverage: Option<Vec<u8>>,
}

/// What is recorded of `limit` documents after a key, in the order of their keys.
pub(crate) async fn recorded(
    transaction: &Transaction<'_>,
    mapping: i32,
    schema: &Schema,
    after: Option<&DocumentKey>,
    limit: i32,
) -> Result<Vec<Recorded>, Error> {
    let params = [
        Param::scalar(Type::INT4.oid(), Some(&mapping.to_be_bytes())),
        Param::scalar(Type::BYTEA.oid(), after.map(|key| &key.0[..])),
        Param::scalar(Type::INT4.oid(), Some(&limit.to_be_bytes())),
    ];
    let sql = "SELECT key, fingerprint, relations, settled, coverage FROM rowdelta.recorded($1, $2, $3)";
    let rows = transaction.query_typed(sql, &typed(&params)).await?;
    let empties = packed::empties(schema);
    let one = |row: &tokio_postgres::Row| {
        let fingerprint = fixed(row, 1).map(DocumentFingerprint);
        let relations = packed::from_bytes(&empties, fingerprint, row.get(2));
        Recorded {
            key: DocumentKey(row.get(0)),
            relations: relations.into_iter().collect::<Option<_>>().unwrap_or_default(),
            settled: row.get(3),
            coverage: row.get(4),
        }
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
