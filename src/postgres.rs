//! The only I/O to the database.
//!
//! Statements for the user's tables are built here from a [`crate::schema::Schema`];
//! what is recorded about documents goes through the functions of the schema
//! `rowdelta`, whose text is in `sql/`. Nothing is prepared by name but COPY, within
//! its transaction, and no session state outlives one: so it works through a pooler.

pub(crate) mod absent;
pub(crate) mod cascade;
pub mod catalog;
pub mod changes;
pub mod doctor;
pub(crate) mod fetch;
pub(crate) mod inside;
pub mod install;
pub(crate) mod judge;
pub mod ledger;
pub mod local;
pub(crate) mod newcomers;
pub(crate) mod owners;
pub(crate) mod packing;
pub(crate) mod park;
pub(crate) mod questions;
pub(crate) mod rewritten;
pub(crate) mod spell;
pub(crate) mod state;
pub mod tables;
pub(crate) mod turns;
pub(crate) mod wire;
pub(crate) mod words;
pub(crate) mod write;

use std::future::Future;
use std::ops::DerefMut;
use std::pin::Pin;
use std::time::Duration;

use bb8::PooledConnection;
use bb8_postgres::PostgresConnectionManager;
use tokio_postgres::error::SqlState;
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use tokio_postgres::{Client, IsolationLevel, Socket, Transaction};

use crate::error::{Error, ErrorKind};

/// A connection on loan from the caller's pool.
pub(crate) type Connection = Box<dyn DerefMut<Target = Client> + Send + Sync>;

/// The caller's pool, whatever its kind of TLS.
pub(crate) trait Connections: Send + Sync {
    /// Waits for a connection.
    fn get(&self) -> Pin<Box<dyn Future<Output = Result<Connection, Error>> + Send + '_>>;
}

impl<T> Connections for bb8::Pool<PostgresConnectionManager<T>>
where
    T: MakeTlsConnect<Socket> + Clone + Send + Sync + 'static,
    T::Stream: Send + Sync,
    T::TlsConnect: Send,
    <T::TlsConnect as TlsConnect<Socket>>::Future: Send,
{
    fn get(&self) -> Pin<Box<dyn Future<Output = Result<Connection, Error>> + Send + '_>> {
        Box::pin(async move { Ok(Box::new(connection(self).await?) as Connection) })
    }
}

/// How long a server may take to say why the pool has no connection to it.
const ANSWER_WAIT: Duration = Duration::from_secs(5);

/// Takes a connection out of a pool. Where none comes in time the error says why, which the pool's own does not.
///
/// # Errors
/// None came in time.
pub async fn connection<T>(
    pool: &bb8::Pool<PostgresConnectionManager<T>>,
) -> Result<PooledConnection<'static, PostgresConnectionManager<T>>, Error>
where
    T: MakeTlsConnect<Socket> + Clone + Send + Sync + 'static,
    T::Stream: Send + Sync,
    T::TlsConnect: Send,
    <T::TlsConnect as TlsConnect<Socket>>::Future: Send,
{
    match pool.get_owned().await {
        Err(bb8::RunError::TimedOut) => {}
        connection => return Ok(connection?),
    }
    let (config, connections) = (pool.config(), pool.state().connections);
    let none = format!("no connection in {:.0?}", config.connection_timeout);
    let max = config.max_size;
    // Why it could not connect the pool keeps to itself, and goes on trying: one more try shows it.
    match tokio::time::timeout(ANSWER_WAIT, pool.dedicated_connection()).await {
        Ok(Err(error)) => {
            let error = Error::from(bb8::RunError::User(error)).because(&none);
            let full = error.code() == Some(&SqlState::TOO_MANY_CONNECTIONS);
            let mend = format!("; the pool takes up to {max}: fewer --workers, or a higher limit");
            Err(if full { error.and(&mend) } else { error })
        }
        Ok(Ok(_)) => {
            let message =
                format!("{none}: of {max} of the pool {connections} are in use, and none became free");
            Err(Error::new(ErrorKind::Connection, message))
        }
        Err(_) => Err(Error::new(ErrorKind::Connection, format!("{none}: the server does not answer"))),
    }
}

/// Limits of one transaction, set for it alone.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub lock: Duration,
    pub statement: Duration,
    pub idle: Duration,
    /// Nothing may be written, and all statements see one state of the database.
    pub read_only: bool,
}

/// Begins a transaction with its limits.
///
/// Rows are asked for by key arrays that an index answers. A table that was analysed while it was empty would
/// make the planner read all of it instead, so it is told to prefer the index whatever the statistics say.
pub(crate) async fn begin(client: &mut Client, limits: Limits) -> Result<Transaction<'_>, Error> {
    // A role may have another default; a look-up must see what was committed before it, not before the lease.
    let isolation =
        if limits.read_only { IsolationLevel::RepeatableRead } else { IsolationLevel::ReadCommitted };
    let builder = client.build_transaction().isolation_level(isolation).read_only(limits.read_only);
    let transaction = builder.start().await?;
    let settings = format!(
        "SET LOCAL lock_timeout = {}; SET LOCAL statement_timeout = {}; \
         SET LOCAL idle_in_transaction_session_timeout = {}; \
         SET LOCAL enable_seqscan = off; SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off; \
         SET LOCAL jit = off; SET LOCAL datestyle = 'ISO, YMD'; SET LOCAL timezone = 'UTC'; \
         SET LOCAL intervalstyle = 'postgres'; SET LOCAL array_nulls = on; SET LOCAL xmloption = content; \
         SET LOCAL extra_float_digits = 1; SET LOCAL bytea_output = 'hex'",
        limits.lock.as_millis(),
        limits.statement.as_millis(),
        limits.idle.as_millis(),
    );
    transaction.batch_execute(&settings).await?;
    Ok(transaction)
}

/// Does something that the server may refuse, and undoes it then: the transaction goes on.
///
/// # Errors
/// What is not a refusal.
pub(crate) async fn attempt<T>(
    transaction: &Transaction<'_>,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<Result<T, Error>, Error> {
    transaction.batch_execute("SAVEPOINT rowdelta_attempt").await?;
    match work.await {
        Ok(done) => {
            transaction.batch_execute("RELEASE SAVEPOINT rowdelta_attempt").await?;
            Ok(Ok(done))
        }
        Err(error) if error.kind() == ErrorKind::Rejected => {
            let undo = "ROLLBACK TO SAVEPOINT rowdelta_attempt; RELEASE SAVEPOINT rowdelta_attempt";
            transaction.batch_execute(undo).await?;
            Ok(Err(error))
        }
        Err(error) => Err(error),
    }
}

/// Closes a connection that may give answers to what was asked before, so that the pool does not lend it again.
pub(crate) fn discard(mut connection: Connection) {
    // The pool drops what is closed, and there is no public way to close a client that is borrowed.
    connection.__private_api_close();
}

/// Quotes an identifier.
pub(crate) fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
