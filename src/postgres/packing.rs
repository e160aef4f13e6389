//! What is recorded of many documents at once, in packed rows: `docs/state.md` says how these are.

use postgres_types::Type;
use tokio_postgres::{Client, GenericClient};

use crate::document::DocumentKey;
use crate::error::Error;
use crate::fingerprint::{DocumentFingerprint, RawFingerprint};
use crate::postgres::wire::{Param, bytea_array, typed};
use crate::postgres::{Limits, begin};

/// Another spelling of a document whose rows did not change.
pub(crate) struct Renewal {
    pub key: DocumentKey,
    /// Of its rows: the spelling is recorded only if that still stands.
    pub fingerprint: DocumentFingerprint,
    pub raw: RawFingerprint,
}

/// Records other spellings of documents.
pub(crate) async fn renew_raw(
    client: &impl GenericClient,
    mapping: i32,
    renewals: &[Renewal],
) -> Result<(), Error> {
    if !renewals.is_empty() {
        let params = renewal_params(mapping, renewals);
        client.query_typed("SELECT rowdelta.renew_raw($1, $2, $3, $4)", &typed(&params)).await?;
    }
    Ok(())
}

/// Records other spellings of many documents, in packed rows where nobody else is at work. Gives of how many, and whether
/// packed rows were written.
pub(crate) async fn renew_spellings(
    client: &impl GenericClient,
    mapping: i32,
    renewals: &[Renewal],
) -> Result<(u64, bool), Error> {
    let params = renewal_params(mapping, renewals);
    let sql = "SELECT renewed, in_base FROM rowdelta.renew_spellings($1, $2, $3, $4)";
    let row = client.query_typed_one(sql, &typed(&params)).await?;
    Ok((row.get::<_, i64>(0) as u64, row.get(1)))
}

fn renewal_params(mapping: i32, renewals: &[Renewal]) -> [Param; 4] {
    [
        Param::scalar(Type::INT4.oid(), Some(&mapping.to_be_bytes())),
        bytea_array(renewals.iter().map(|renewal| Some(&renewal.key.0[..]))),
        bytea_array(renewals.iter().map(|renewal| Some(&renewal.fingerprint.0[..]))),
        bytea_array(renewals.iter().map(|renewal| Some(&renewal.raw.0[..]))),
    ]
}

/// Packs what was recorded lately, if that is enough to be worth its while; gives whether it was. Every part is a
/// transaction of its own, and nothing of it changes what is known.
pub(crate) async fn merge(client: &mut Client, mapping: i32, limits: Limits) -> Result<bool, Error> {
    let sql = "SELECT rowdelta.merge_due($1)";
    if !client.query_typed_one(sql, &[(&mapping, Type::INT4)]).await?.get::<_, bool>(0) {
        return Ok(false);
    }
    let mut from: Option<Vec<u8>> = Some(Vec::new());
    while let Some(key) = from {
        let transaction = begin(client, limits).await?;
        let sql = "SELECT rowdelta.merge($1, $2)";
        let row = transaction.query_typed_one(sql, &[(&mapping, Type::INT4), (&key, Type::BYTEA)]).await?;
        let next: Option<Vec<u8>> = row.get(0);
        transaction.commit().await?;
        read_back(client, mapping, &key, next.as_deref()).await?;
        from = next;
    }
    Ok(true)
}

/// Reads what was packed, from a key on and before another. Who reads rows first notes on their pages that they are
/// committed, and clears away those that were deleted. Done at once that costs next to no log; done by the next run, after
/// a checkpoint, a page each.
pub(crate) async fn read_back(
    client: &Client,
    mapping: i32,
    from: &[u8],
    to: Option<&[u8]>,
) -> Result<(), Error> {
    let count = |table: &str, key: &str| {
        let before = if to.is_some() { format!("AND {key} < $3") } else { String::new() };
        format!("(SELECT count(*) FROM rowdelta.{table} WHERE mapping = $1 AND {key} >= $2 {before})")
    };
    let tables = [("document", "key"), ("base", "lowest"), ("skip", "lowest")];
    let counts: Vec<String> = tables.iter().map(|(table, key)| count(table, key)).collect();
    let mut params: Vec<(&(dyn postgres_types::ToSql + Sync), Type)> =
        vec![(&mapping, Type::INT4), (&from, Type::BYTEA)];
    params.extend(to.iter().map(|to| (to as &(dyn postgres_types::ToSql + Sync), Type::BYTEA)));
    client.query_typed(&format!("SELECT {}", counts.join(" + ")), &params).await?;
    Ok(())
}
