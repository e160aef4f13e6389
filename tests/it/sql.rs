//! The SQL core by itself: what the functions of schema `rowdelta` promise to their callers.

use std::path::PathBuf;

use crate::support::command::install;
use crate::support::{Database, db};

async fn installed() -> Database {
    let database = db().await;
    install(database.url());
    database
}

/// The SQLSTATE with which a statement fails.
async fn refused(database: &Database, sql: &str) -> String {
    let error = database.client().await.batch_execute(sql).await.expect_err(sql);
    error.code().map(|code| code.code().to_owned()).unwrap_or_default()
}

const REGISTER: &str = "SELECT rowdelta.register('m', '{}', '\\x00')";

#[tokio::test]
async fn installing_twice_changes_nothing() {
    let database = installed().await;
    let objects = "SELECT count(*), max(oid) FROM pg_proc WHERE pronamespace = 'rowdelta'::regnamespace";
    let before = database.table(objects).await;
    install(database.url());
    assert_eq!(database.table(objects).await, before);
}

#[tokio::test]
async fn p40_every_function_pins_its_search_path_and_is_described() {
    let database = installed().await;
    let loose = "SELECT proname FROM pg_proc WHERE pronamespace = 'rowdelta'::regnamespace AND (prosecdef \
                 OR NOT coalesce('search_path=pg_catalog, rowdelta, pg_temp' = ANY (proconfig), false) \
                 OR obj_description(oid, 'pg_proc') IS NULL)";
    assert_eq!(database.table(loose).await, Vec::<Vec<Option<String>>>::new());
}

#[tokio::test]
async fn p29_a_lease_has_one_holder_and_a_lost_one_may_not_write() {
    let database = installed().await;
    let mapping = database.value(REGISTER).await;
    let token = database.value(&format!("SELECT rowdelta.acquire({mapping}, 'one', 60)")).await;
    let second = format!("SELECT rowdelta.acquire({mapping}, 'two', 60)");
    assert_eq!(database.value(&second).await, "NULL");
    database.execute(&format!("SELECT rowdelta.enter({mapping}, '{token}')")).await;
    // The holder sleeps beyond its lease; another one takes over.
    database.execute("UPDATE rowdelta.mapping SET lease_until = now() - interval '1 s'").await;
    assert_ne!(database.value(&second).await, "NULL");
    assert_eq!(refused(&database, &format!("SELECT rowdelta.enter({mapping}, '{token}')")).await, "RD002");
    assert_eq!(database.value(&format!("SELECT rowdelta.renew({mapping}, '{token}', 60)")).await, "f");
    assert_eq!(refused(&database, "SELECT rowdelta.acquire(999, 'x', 60)").await, "RD001");
}

#[tokio::test]
async fn p29_documents_are_recorded_by_compare_and_set() {
    let database = installed().await;
    let mapping = database.value(REGISTER).await;
    let record = |new: bool, expected: &str, fingerprint: &str| {
        format!(
            "SELECT rowdelta.record({mapping}, ARRAY['\\x01'::bytea], ARRAY[{new}], ARRAY[{expected}::bytea], \
             ARRAY['\\x0a'::bytea], ARRAY['{fingerprint}'::bytea], ARRAY['\\x0c'::bytea], ARRAY[true], ARRAY['\\x0d'::bytea])"
        )
    };
    database.execute(&record(true, "NULL", "\\x11")).await;
    assert_eq!(refused(&database, &record(true, "NULL", "\\x22")).await, "RD003", "somebody was first");
    assert_eq!(refused(&database, &record(false, "'\\x99'", "\\x22")).await, "RD003", "not what was read");
    database.execute(&record(false, "'\\x11'", "\\x22")).await;
    let stored = "SELECT fingerprint FROM rowdelta.state";
    assert_eq!(database.value(stored).await, "\\x22");
    database.execute(&format!("SELECT rowdelta.unsettle({mapping}, ARRAY['\\x01'::bytea])")).await;
    assert_eq!(
        refused(&database, &record(false, "'\\x22'", "\\x33")).await,
        "RD003",
        "rows were taken from it"
    );
    assert_eq!(database.table(&format!("SELECT * FROM rowdelta.settled({mapping})")).await.len(), 0);
}

/// What `plpgsql_check` says of the functions. `.ci/sql-lint` brings it, and names the directory it is unpacked in.
#[tokio::test]
async fn plpgsql_check_finds_nothing() {
    let Some(dir) = std::env::var_os("ROWDELTA_PLPGSQL_CHECK").map(PathBuf::from) else {
        println!("skipped: no ROWDELTA_PLPGSQL_CHECK");
        return;
    };
    let database = installed().await;
    let major = database.value("SELECT current_setting('server_version_num')::int / 10000").await;
    let library = dir.join(format!("usr/lib/postgresql/{major}/lib/plpgsql_check.so"));
    let scripts = dir.join(format!("usr/share/postgresql/{major}/extension"));
    assert!(library.exists(), "the package in {} is not for PostgreSQL {major}", dir.display());
    // As CREATE EXTENSION would, but without a file where the server has its own.
    let mut scripts: Vec<_> =
        std::fs::read_dir(scripts).unwrap().map(|entry| entry.unwrap().path()).collect();
    scripts.retain(|path| path.extension().is_some_and(|extension| extension == "sql"));
    assert_eq!(scripts.len(), 1, "{scripts:?}");
    let script = std::fs::read_to_string(&scripts[0]).unwrap();
    let lines: Vec<&str> = script.lines().filter(|line| !line.starts_with('\\')).collect();
    let library = library.with_extension("");
    let script = lines.join("\n").replace("MODULE_PATHNAME", library.to_str().unwrap());
    database.execute("CREATE SCHEMA checks; SET search_path = checks").await;
    database.execute(&script.replace("@extschema@", "checks")).await;
    // What it does not know: that '{}' is no text, but of the type of its variable; that texts made by functions of this
    // schema quote the names that they are made of, and run with the caller's rights; that a column may be there only for
    // the error that it raises.
    let found = database
        .table(
            "SELECT p.proname, c.lineno, c.level, c.message, c.detail, c.query
             FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang
             CROSS JOIN LATERAL checks.plpgsql_check_function_tb(p.oid, security_warnings => true) c
             WHERE p.pronamespace = 'rowdelta'::regnamespace AND l.lanname = 'plpgsql'
               AND NOT coalesce(c.detail ~ '^cast \"(text|unknown)\" value to' AND c.sqlstate = '42804', false)
               AND NOT (c.level = 'security' AND p.proname IN (
                        'owners', 'write', 'insert_rows', 'set_constraints', 'there', 'carried_along', 'emptied'))
               AND NOT (p.proname = 'chosen' AND c.message = 'too many attributes for target variables')
             ORDER BY 1, 2",
        )
        .await;
    assert_eq!(found, Vec::<Vec<Option<String>>>::new());
    let checked = "SELECT count(*) FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang
                   WHERE p.pronamespace = 'rowdelta'::regnamespace AND l.lanname = 'plpgsql'";
    println!("plpgsql_check: {} functions", database.value(checked).await);
}
