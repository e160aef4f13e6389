//! What the database remembers of rows that triggers stored otherwise than they were sent.

use tokio_postgres::types::Type;
use tokio_postgres::{Client, GenericClient};

use crate::document::DocumentKey;
use crate::error::Error;
use crate::postgres::wire::{Param, bytea_array, text_array, typed};

/// The rewritten rows of one relation of one document.
pub(crate) struct Recorded {
    pub key: DocumentKey,
    pub relation: String,
    /// As [`crate::fingerprint::rewritten`] has them; none: there is no such row.
    pub forms: Vec<u8>,
}

/// Whether any such row is known of a mapping.
pub(crate) async fn is_any(client: &Client, mapping: i32) -> Result<bool, Error> {
    let sql = "SELECT EXISTS (SELECT FROM rowdelta.rewritten WHERE mapping = $1)";
    Ok(client.query_typed_one(sql, &[(&mapping, Type::INT4)]).await?.get(0))
}

/// What is recorded of documents.
pub(crate) async fn recorded(
    client: &impl GenericClient,
    mapping: i32,
    keys: &[&DocumentKey],
) -> Result<Vec<Recorded>, Error> {
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    let params = [of_mapping(mapping), bytea_array(keys.iter().map(|key| Some(&key.0[..])))];
    let sql = "SELECT key, relation, forms FROM rowdelta.rewritten_rows($1, $2)";
    let rows = client.query_typed(sql, &typed(&params)).await?;
    let one = |row: &tokio_postgres::Row| Recorded {
        key: DocumentKey(row.get(0)),
        relation: row.get(1),
        forms: row.get(2),
    };
    Ok(rows.iter().map(one).collect())
}

/// Records what is known now.
pub(crate) async fn record(
    client: &impl GenericClient,
    mapping: i32,
    known: &[Recorded],
) -> Result<(), Error> {
    if known.is_empty() {
        return Ok(());
    }
    let params = [
        of_mapping(mapping),
        bytea_array(known.iter().map(|one| Some(&one.key.0[..]))),
        text_array(known.iter().map(|one| one.relation.as_str())),
        bytea_array(known.iter().map(|one| Some(&one.forms[..]))),
    ];
    client.query_typed("SELECT rowdelta.record_rewritten($1, $2, $3, $4)", &typed(&params)).await?;
    Ok(())
}

fn of_mapping(mapping: i32) -> Param {
    Param::scalar(Type::INT4.oid(), Some(&mapping.to_be_bytes()))
}
