//! Installs and upgrades the schema `rowdelta`: sends the very files that `CREATE EXTENSION` and `ALTER EXTENSION` read.

use tokio_postgres::error::SqlState;
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

const TO_EXTENSION: &str = include_str!("../../sql/to-extension.sql");

const TO_PLAIN: &str = include_str!("../../sql/to-plain.sql");

/// To whom the objects of the schema belong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// To nobody but their owner: a dump has all of them.
    Plain,
    /// To the extension `rowdelta`: a dump has the statement that makes it, and the rows.
    Extension,
}

/// What [`install`] found, and how it left it; the schema is of [`VERSION`] now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done {
    /// The version that was installed, if any, and its form.
    pub was: Option<(String, Form)>,
    /// The form of the schema now.
    pub is: Form,
}

impl std::fmt::Display for Done {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.was {
            None => f.write_str("installed")?,
            Some((version, _)) if version == VERSION => f.write_str("is installed already")?,
            Some((version, _)) => write!(f, "upgraded from {version}")?,
        }
        match (self.was.as_ref().map_or(self.is, |(_, form)| *form), self.is) {
            (Form::Plain, Form::Plain) => Ok(()),
            (Form::Plain, Form::Extension) => f.write_str(", handed over to the extension"),
            (Form::Extension, Form::Extension) => f.write_str(", as an extension"),
            (Form::Extension, Form::Plain) => f.write_str(", taken back from the extension"),
        }
    }
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
/// back to an older one. What belongs to the extension is upgraded by `ALTER EXTENSION`.
///
/// # Errors
/// A newer version is installed; a run is at work that the upgrade would change the ground under; or the role may not
/// create a schema, or does not own it. Of an extension: the server lacks its files.
pub async fn install(client: &mut Client) -> Result<Done, Error> {
    install_form(client, None).await
}

/// As [`install`], and in this form: what is installed is handed over to the extension, or taken back from it, with all
/// rows and grants.
///
/// # Errors
/// As for [`install`].
pub async fn install_as(client: &mut Client, form: Form) -> Result<Done, Error> {
    install_form(client, Some(form)).await
}

async fn install_form(client: &mut Client, form: Option<Form>) -> Result<Done, Error> {
    let transaction =
        client.build_transaction().isolation_level(IsolationLevel::ReadCommitted).start().await?;
    // Of two at once the second finds what the first did.
    transaction.execute_typed("SELECT pg_advisory_xact_lock(hashtext('rowdelta.install'), 0)", &[]).await?;
    let was = match installed_in(&transaction).await? {
        Some(version) => Some((version, form_in(&transaction).await?)),
        None => None,
    };
    let scripts = scripts_from(was.as_ref().map(|(version, _)| version.as_str()))?;
    let form_was = was.as_ref().map(|(_, form)| *form);
    let is = form.or(form_was).unwrap_or(Form::Plain);
    match (form_was, is) {
        (None, Form::Extension) => {
            by_extension(&transaction, &format!("CREATE EXTENSION rowdelta VERSION '{VERSION}'")).await?;
        }
        (Some(Form::Extension), Form::Extension) if !scripts.is_empty() => {
            by_extension(&transaction, &format!("ALTER EXTENSION rowdelta UPDATE TO '{VERSION}'")).await?;
        }
        (Some(Form::Extension), Form::Extension) => {}
        (before, after) => {
            if before == Some(Form::Extension) {
                transaction.batch_execute(TO_PLAIN).await?;
            }
            for script in scripts {
                transaction.batch_execute(script).await?;
            }
            if after == Form::Extension {
                by_extension(&transaction, TO_EXTENSION).await?;
            }
        }
    }
    transaction.commit().await?;
    Ok(Done { was, is })
}

/// What makes [`VERSION`] of an installed version, or of nothing.
fn scripts_from(installed: Option<&str>) -> Result<Vec<&'static str>, Error> {
    match installed {
        None => Ok(vec![SCRIPT]),
        Some(version) if version == VERSION => Ok(Vec::new()),
        Some(version) => match UPGRADES.iter().position(|(from, _)| *from == version) {
            Some(first) => Ok(UPGRADES[first..].iter().map(|(_, script)| *script).collect()),
            None => Err(wrong_version(version)),
        },
    }
}

/// The form of the installed schema.
async fn form_in(client: &impl GenericClient) -> Result<Form, Error> {
    let belongs = "SELECT EXISTS (SELECT FROM pg_depend JOIN pg_extension e ON e.oid = refobjid WHERE deptype = 'e' \
                   AND refclassid = 'pg_extension'::regclass AND e.extname = 'rowdelta' \
                   AND classid = 'pg_proc'::regclass AND objid = 'rowdelta.version()'::regprocedure)";
    match client.query_typed_one(belongs, &[]).await?.get(0) {
        true => Ok(Form::Extension),
        false => Ok(Form::Plain),
    }
}

/// Runs a statement that reads the extension's files on the server; the error says what to do where they are not there.
async fn by_extension(transaction: &Transaction<'_>, sql: &str) -> Result<(), Error> {
    let Err(error) = transaction.batch_execute(sql).await else { return Ok(()) };
    let lacks =
        [SqlState::FEATURE_NOT_SUPPORTED, SqlState::UNDEFINED_FILE, SqlState::INVALID_PARAMETER_VALUE];
    match error.as_db_error() {
        Some(db) if lacks.contains(db.code()) => {
            let message = format!(
                "{}: the server needs the files of the extension of version {VERSION} (`make install` in sql/); or do \
                 without them: `rowdelta install --plain`",
                db.message()
            );
            Err(Error::new(ErrorKind::Setup, message))
        }
        _ => Err(error.into()),
    }
}

/// Fails unless the right version is installed.
///
/// # Errors
/// It is not; the message names the command that mends it.
pub async fn check(client: &Client) -> Result<(), Error> {
    match installed(client).await? {
        Some(version) if version == VERSION => Ok(()),
        Some(version) => Err(wrong_version(&version)),
        None => {
            let database: String =
                client.query_typed_one("SELECT current_database()::text", &[]).await?.get(0);
            let message = format!(
                "database {database} has no schema `rowdelta`: if it is the right one, run `rowdelta install` once"
            );
            Err(Error::new(ErrorKind::Setup, message))
        }
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

/// Fails unless the role may note changed rows.
///
/// # Errors
/// It may not; the message has the statement that mends it.
pub(crate) async fn check_history(client: &Client) -> Result<(), Error> {
    let lacks = "SELECT quote_ident(current_user) WHERE NOT has_table_privilege('rowdelta.change', 'INSERT')";
    let Some(row) = client.query_typed(lacks, &[]).await?.into_iter().next() else { return Ok(()) };
    let role: &str = row.get(0);
    let message = format!("the role may not note changed rows: GRANT INSERT ON rowdelta.change TO {role}");
    Err(Error::new(ErrorKind::Setup, message))
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
