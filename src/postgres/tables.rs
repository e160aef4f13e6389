//! Creates the tables of a mapping.

use tokio_postgres::Client;

use crate::ddl::Ddl;
use crate::error::Error;

/// Runs the statements, in one transaction.
///
/// # Errors
/// The database's; nothing has been created then.
pub async fn create(client: &mut Client, ddl: &Ddl) -> Result<(), Error> {
    let transaction = client.transaction().await?;
    transaction.batch_execute(&ddl.to_string()).await?;
    Ok(transaction.commit().await?)
}
