//! Installs and upgrades the schema `rowdelta`: sends the very files that `CREATE EXTENSION` and `ALTER EXTENSION` read.

use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, GenericClient, IsolationLevel, Row, Transaction};

use crate::error::{Error, ErrorKind};

/// The version of the schema that this crate works with.
pub const VERSION: &str = "0.3.0";

const SCRIPT: &str = include_str!("../../sql/rowdelta--0.3.0.sql");

/// From which version to the next one, each with its script, in order; the last one is to [`VERSION`].
const UPGRADES: [(&str, &str); 2] = [
    ("0.1.0", include_str!("../../sql/rowdelta--0.1.0--0.2.0.sql")),
    ("0.2.0", include_str!("../../sql/rowdelta--0.2.0--0.3.0.sql")),
];

/// What [`install`] did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Done {
    /// Nothing: this version is installed.
    Nothing,
    /// It installed the schema.
    Installed,
    /// It upgraded the schema, which was of this version.
    Upgraded(String),
}

/// The installed version of the schema; `None` where it is not installed.
///
/// # Errors
/// The database's.
pub async fn installed(client: &Client) -> Result<Option<String>, Error> {
    installed_in(client).await
}

async fn installed_in(client: &impl GenericClient) -> Result<Option<String>, Error> {
    let usable = "SELECT has_schema_privilege(oid, 'USAGE'), quote_ident(current_user) FROM pg_namespace \
                  WHERE nspname = 'rowdelta'";
    if let Some(row) = client.query_typed(usable, &[]).await?.first().filter(|row| !row.get::<_, bool>(0)) {
        let role: &str = row.get(1);
        let message =
            format!("the role may not use schema rowdelta: GRANT USAGE ON SCHEMA rowdelta TO {role}");
        return Err(Error::new(ErrorKind::Setup, message));
    }
    let found = "SELECT to_regprocedure('rowdelta.version()') IS NOT NULL";
    if !client.query_typed_one(found, &[]).await?.get::<_, bool>(0) {
        return Ok(None);
    }
    Ok(Some(client.query_typed_one("SELECT rowdelta.version()", &[]).await?.get(0)))
}

/// Installs the schema, or upgrades it, in one transaction. Does nothing where this version is installed, and never goes
/// back to an older one.
///
/// # Errors
/// A newer version is installed; a run is at work that the upgrade would change the ground under; or the role may not
/// create a schema, or does not own it.
pub async fn install(client: &mut Client) -> Result<Done, Error> {
    let transaction =
        client.build_transaction().isolation_level(IsolationLevel::ReadCommitted).start().await?;
    // Of two at once the second finds what the first did.
    transaction.execute_typed("SELECT pg_advisory_xact_lock(hashtext('rowdelta.install'), 0)", &[]).await?;
    let done = match installed_in(&transaction).await? {
        Some(version) if version == VERSION => Done::Nothing,
        Some(version) => {
            upgrade(&transaction, &version).await?;
            Done::Upgraded(version)
        }
        None => {
            transaction.batch_execute(SCRIPT).await?;
            Done::Installed
        }
    };
    transaction.commit().await?;
    Ok(done)
}

async fn upgrade(transaction: &Transaction<'_>, version: &str) -> Result<(), Error> {
    let Some(first) = UPGRADES.iter().position(|(from, _)| *from == version) else {
        return Err(wrong_version(version));
    };
    let is_extension = "SELECT EXISTS (SELECT FROM pg_extension WHERE extname = 'rowdelta')";
    if transaction.query_typed_one(is_extension, &[]).await?.get(0) {
        transaction.batch_execute(&format!("ALTER EXTENSION rowdelta UPDATE TO '{VERSION}'")).await?;
        return Ok(());
    }
    for (_, script) in &UPGRADES[first..] {
        transaction.batch_execute(script).await?;
    }
    Ok(())
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

/// What a run needs of the schema's tables. One that only reads needs the first five.
const NEEDED: [(&str, &str); 8] = [
    ("mapping", "SELECT, INSERT, UPDATE"),
    ("document", "SELECT, INSERT, UPDATE, DELETE"),
    ("base", "SELECT, INSERT, UPDATE, DELETE"),
    ("skip", "SELECT, INSERT, UPDATE, DELETE"),
    ("rewritten", "SELECT, INSERT, UPDATE, DELETE"),
    ("run", "SELECT, INSERT, UPDATE"),
    ("failure", "INSERT"),
    ("guard", "SELECT"),
];

const LACKING: &str = "
SELECT t.name, array_agg(p.name ORDER BY p.place) AS privileges, quote_ident(current_user) AS role
FROM unnest($1, $2) WITH ORDINALITY AS t (name, needed, place)
CROSS JOIN LATERAL unnest(string_to_array(t.needed, ', ')) WITH ORDINALITY AS p (name, place)
WHERE NOT has_table_privilege(format('rowdelta.%I', t.name), p.name)
GROUP BY t.name, t.place ORDER BY t.place";

/// What a role may not do with a table of the schema, and must.
pub(crate) struct Lacking {
    /// Its name in the schema.
    pub table: String,
    pub privileges: Vec<String>,
    /// The role, quoted.
    role: String,
}

/// What the role lacks to read, and to write where it `writes`, what is recorded.
pub(crate) async fn lacking(client: &impl GenericClient, writes: bool) -> Result<Vec<Lacking>, Error> {
    let needed: Vec<(&str, &str)> = match writes {
        true => NEEDED.to_vec(),
        false => NEEDED[..5].iter().map(|(table, _)| (*table, "SELECT")).collect(),
    };
    let (tables, privileges): (Vec<&str>, Vec<&str>) = needed.into_iter().unzip();
    let params: &[(&(dyn ToSql + Sync), Type)] =
        &[(&tables, Type::TEXT_ARRAY), (&privileges, Type::TEXT_ARRAY)];
    let rows = client.query_typed(LACKING, params).await?;
    let one = |row: &Row| Lacking {
        table: row.get("name"),
        privileges: row.get("privileges"),
        role: row.get("role"),
    };
    Ok(rows.iter().map(one).collect())
}

/// Fails unless the role may read, and write where it `writes`, what is recorded.
///
/// # Errors
/// It may not; the message has every statement that mends it.
pub(crate) async fn check_privileges(client: &Client, writes: bool) -> Result<(), Error> {
    let lacking = lacking(client, writes).await?;
    if lacking.is_empty() {
        return Ok(());
    }
    let grant = |Lacking { table, privileges, role }: &Lacking| {
        format!("GRANT {} ON rowdelta.{table} TO {role}", privileges.join(", "))
    };
    let grants = lacking.iter().map(grant).collect::<Vec<_>>().join("; ");
    let does = if writes { "write" } else { "read" };
    let message = format!("the role may not {does} what rowdelta records: {grants}");
    Err(Error::new(ErrorKind::Setup, message))
}

fn wrong_version(version: &str) -> Error {
    let mends = match UPGRADES.iter().any(|(from, _)| *from == version) {
        true => "run `rowdelta install` once, which upgrades it, while no run is at work",
        false => "a program of that version is needed",
    };
    let message =
        format!("the schema `rowdelta` is of version {version}; this program works with {VERSION}: {mends}");
    Error::new(ErrorKind::Setup, message)
}
