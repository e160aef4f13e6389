//! The sync in SQL, called inside a transaction of somebody else's.

use std::borrow::Cow;

use tokio_postgres::Transaction;
use tokio_postgres::types::Type;

use crate::error::{Error, ErrorKind};
use crate::mapping::Mapping;

/// Enters the mapping for the SQL functions.
///
/// # Errors
/// It is not for these, or the transaction is not READ COMMITTED.
pub(crate) async fn register(transaction: &Transaction<'_>, mapping: &Mapping) -> Result<(), Error> {
    let definition = mapping.definition.to_string();
    let sql = "SELECT rowdelta.register($1::text::jsonb)";
    transaction.query_typed(sql, &[(&definition, Type::TEXT)]).await.map_err(refused)?;
    Ok(())
}

/// Stores documents, given as text; gives the report.
///
/// # Errors
/// Nothing of them is stored. What is wrong with one of them is no error, but in the report.
pub(crate) async fn sync_texts(
    transaction: &Transaction<'_>,
    mapping: &Mapping,
    documents: &[Cow<'_, str>],
    rows_max: i64,
    percent_max: Option<f64>,
) -> Result<serde_json::Value, Error> {
    let sql = "SELECT rowdelta.sync_texts($1, $2, $3, $4::float8::numeric)::text";
    let params: &[(&(dyn postgres_types::ToSql + Sync), Type)] = &[
        (&mapping.name, Type::TEXT),
        (&documents, Type::TEXT_ARRAY),
        (&rows_max, Type::INT8),
        (&percent_max, Type::FLOAT8),
    ];
    let row = transaction.query_typed_one(sql, params).await.map_err(refused)?;
    serde_json::from_str(row.get(0)).map_err(|error| Error::new(ErrorKind::Internal, error.to_string()))
}

/// What is wrong with the mapping or the transaction is no document's fault.
fn refused(error: tokio_postgres::Error) -> Error {
    match error.code().map(|code| code.code()) {
        Some("RD001" | "RD004" | "RD005") => Error::new(ErrorKind::Setup, Error::from(error).to_string()),
        _ => error.into(),
    }
}
