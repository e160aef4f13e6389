//! Installs the schema `rowdelta`: sends the very file that `CREATE EXTENSION` reads.

use tokio_postgres::Client;

use crate::error::{Error, ErrorKind};

/// The version of the schema that this crate works with.
pub const VERSION: &str = "0.1.0";

const SCRIPT: &str = include_str!("../../sql/rowdelta--0.1.0.sql");

/// The installed version of the schema; `None` where it is not installed.
///
/// # Errors
/// The database's.
pub async fn installed(client: &Client) -> Result<Option<String>, Error> {
    let found = "SELECT to_regprocedure('rowdelta.version()') IS NOT NULL";
    if !client.query_typed_one(found, &[]).await?.get::<_, bool>(0) {
        return Ok(None);
    }
    Ok(Some(client.query_typed_one("SELECT rowdelta.version()", &[]).await?.get(0)))
}

/// Installs the schema, in one transaction. Does nothing where this version is installed.
/// Gives whether anything was done.
///
/// # Errors
/// Another version is installed, or the role may not create a schema.
pub async fn install(client: &mut Client) -> Result<bool, Error> {
    match installed(client).await? {
        Some(version) if version == VERSION => return Ok(false),
        Some(version) => return Err(wrong_version(&version)),
        None => {}
    }
    let transaction = client.transaction().await?;
    transaction.batch_execute(SCRIPT).await?;
    transaction.commit().await?;
    Ok(true)
}

/// Fails unless the right version is installed.
///
/// # Errors
/// It is not; the message names the command that mends it.
pub async fn check(client: &Client) -> Result<(), Error> {
    match installed(client).await? {
        Some(version) if version == VERSION => Ok(()),
        Some(version) => Err(wrong_version(&version)),
        None => Err(Error::new(
            ErrorKind::Setup,
            "the database has no schema `rowdelta`; run `rowdelta install` once (or give --install)",
        )),
    }
}

fn wrong_version(version: &str) -> Error {
    let message = format!("the schema `rowdelta` is of version {version}; this program works with {VERSION}");
    Error::new(ErrorKind::Setup, message)
}
