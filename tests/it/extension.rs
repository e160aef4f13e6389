//! The SQL core's files: every way to install and to upgrade gives one and the same schema, and the extension and the plain
//! schema can be made of each other.

use std::path::PathBuf;

use sha2::{Digest, Sha256};

use crate::support::shelf::{Shelf, sql};
use crate::support::{Database, command, db};
use crate::upgrade::CATALOG;

const VERSION: &str = rowdelta::postgres::install::VERSION;

/// Versions that were released, the oldest first.
const RELEASED: [&str; 2] = ["0.1.0", "0.2.0"];

type Table = Vec<Vec<Option<String>>>;

fn file(name: &str) -> PathBuf {
    sql().join(name)
}

fn text(name: &str) -> String {
    std::fs::read_to_string(file(name)).expect("read a script")
}

/// The scripts from a version to this one.
fn upgrades(from: &str) -> Vec<PathBuf> {
    let first = RELEASED.iter().position(|version| *version == from).expect("a released version");
    let next = |at: usize| RELEASED.get(at + 1).copied().unwrap_or(VERSION);
    (first..RELEASED.len()).map(|at| file(&format!("rowdelta--{}--{}.sql", RELEASED[at], next(at)))).collect()
}

/// What belongs to the extension, and of what its dumps have the content.
async fn membership(database: &Database) -> Table {
    let members = "SELECT pg_describe_object(d.classid, d.objid, d.objsubid), NULL FROM pg_depend d JOIN pg_extension e
                   ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid WHERE d.deptype = 'e' AND e.extname = 'rowdelta'
                   UNION ALL
                   SELECT c.oid::regclass::text, c.condition FROM pg_extension e, unnest(e.extconfig, e.extcondition) AS c (oid, condition)
                   WHERE e.extname = 'rowdelta'
                   UNION ALL SELECT e.extversion, NULL FROM pg_extension e WHERE e.extname = 'rowdelta' ORDER BY 1, 2";
    database.table(members).await
}

/// Puts rows into all tables that hold what must not be lost.
async fn record(database: &Database, version: &str) {
    let rows = "SELECT rowdelta.register(name, '{}', '\\x00') FROM unnest(ARRAY['a', 'b']) AS name;
         INSERT INTO rowdelta.document (mapping, key, raw, fingerprint, relations, settled, absent, coverage)
         SELECT 1, int4send(4) || int4send(i), CASE WHEN i % 7 > 0 THEN substr(sha256(int4send(i)), 1, 16) END,
                CASE WHEN i % 11 > 0 THEN substr(sha256(int8send(i)), 1, 16) END, '', i % 7 > 0 AND i % 11 > 0, i % 13 = 0, '\\x0102'
         FROM generate_series(1, 300) AS i;
         INSERT INTO rowdelta.rewritten VALUES (1, '\\x01', 'r', '\\x02');
         INSERT INTO rowdelta.run (mapping, status) VALUES (1, 'done'), (2, 'failed');
         INSERT INTO rowdelta.failure (run, document, message, retryable) VALUES (2, 'd', 'm', false);
         INSERT INTO rowdelta.guard VALUES ('a', 1, 2), (NULL, 3, NULL)";
    database.execute(rows).await;
    if version == VERSION {
        let change = "INSERT INTO rowdelta.change (mapping, relation, action, key) VALUES (1, 'r', 'added', '{\"k\": 1}')";
        database.execute(change).await;
    }
}

/// What [`record`] recorded, in words that are the same in all versions.
async fn recorded(database: &Database) -> Table {
    let state = database.value("SELECT coalesce(to_regclass('rowdelta.state'), 'rowdelta.document')").await;
    let change = database.value("SELECT to_regclass('rowdelta.change') IS NOT NULL").await == "t";
    let change = if change { "SELECT c::text FROM rowdelta.change c" } else { "SELECT NULL WHERE false" };
    let rows = format!(
        "SELECT (s.mapping, s.key, s.raw, s.fingerprint, s.settled, s.absent, s.coverage)::text FROM {state} s
         UNION ALL SELECT (m.id, m.name, m.definition, m.digest, m.filled)::text FROM rowdelta.mapping m
         UNION ALL SELECT r::text FROM rowdelta.run r UNION ALL SELECT f::text FROM rowdelta.failure f
         UNION ALL SELECT g::text FROM rowdelta.guard g UNION ALL SELECT w::text FROM rowdelta.rewritten w
         UNION ALL {change} ORDER BY 1"
    );
    database.table(&rows).await
}

/// Ids go on after those that were given.
async fn goes_on(database: &Database) {
    assert_eq!(database.value("SELECT rowdelta.register('next', '{}', '\\x00')").await, "3");
    assert_eq!(database.value("INSERT INTO rowdelta.run (mapping) VALUES (3) RETURNING id").await, "3");
}

/// `rowdelta install`: what it says.
#[track_caller]
fn install(database: &Database, arguments: &[&str]) -> String {
    let (code, out, err) = command::output(&[&["install", "-d", database.url()], arguments].concat());
    assert_eq!(code, 0, "{err}");
    out.strip_prefix("schema rowdelta ").expect("it says of what").trim_end().to_owned()
}

/// `rowdelta install` that fails: why.
#[track_caller]
fn not_installed(database: &Database, arguments: &[&str]) -> String {
    let (code, out, err) = command::output(&[&["install", "-d", database.url()], arguments].concat());
    assert_eq!(code, 2, "{out}{err}");
    err
}

#[track_caller]
fn psql(shelf: &Shelf, database: &Database, files: &[PathBuf]) -> bool {
    let Some(output) = shelf.psql(database, files) else { return false };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    true
}

/// What is installed somewhere is not changed any more: the next version has a script of its own.
#[test]
fn the_scripts_of_versions_that_are_out_stay_as_they_are() {
    let pinned = [
        ("0.1.0", "a00acef8f936306033d87cdf3d564d8436b48098b4f6bbeab04f92909c2ab011"),
        ("0.2.0", "f2dc71b9d60e021ccac72a718753fee753185d476223fa0f7e374f3e25137dfb"),
        ("0.1.0--0.2.0", "0b2b435f416e4a73d63a7dfdf8522e20fe638a3903303ea2e742ea11f427b987"),
    ];
    for (version, pin) in pinned {
        let digest = Sha256::digest(text(&format!("rowdelta--{version}.sql")));
        assert_eq!(digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>(), pin, "{version}");
    }
}

/// What psql alone understands, or CREATE EXTENSION alone, the others trip over; pg_tle takes what CREATE EXTENSION takes, as
/// text between quotes of its own.
#[test]
fn one_text_serves_every_way_in() {
    let mut names: Vec<_> =
        std::fs::read_dir(sql()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    let scripts: Vec<String> = names.into_iter().map(|name| name.into_string().unwrap()).collect();
    let scripts: Vec<&String> = scripts.iter().filter(|name| name.ends_with(".sql")).collect();
    assert!(scripts.len() >= 7, "{scripts:?}");
    for name in scripts {
        let script = text(name);
        for foreign in ["@extschema", "@extowner@", "MODULE_PATHNAME", "$_pgtle_", "$_pg_tle_"] {
            assert!(!script.contains(foreign), "{name} has {foreign}");
        }
        let lines = script.lines().enumerate();
        let alone =
            |line: &str| line.starts_with('\\') || ["BEGIN;", "COMMIT;", "ROLLBACK;"].contains(&line.trim());
        let alone: Vec<_> = lines.filter(|(_, line)| alone(line)).collect();
        assert!(alone.is_empty(), "{name}: {alone:?}");
    }
    let control = text("rowdelta.control");
    assert!(control.contains(&format!("default_version = '{VERSION}'\n")), "{control}");
    assert!(control.contains("relocatable = false\n") && !control.contains("schema ="), "{control}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_way_to_install_gives_one_schema() {
    let shelf = Shelf::new().await;
    let plain = shelf.server.beside().await;
    assert_eq!(install(&plain, &[]), format!("{VERSION} installed"));
    let schema = plain.table(CATALOG).await;

    let by_psql = shelf.server.beside().await;
    if psql(&shelf, &by_psql, &[file(&format!("rowdelta--{VERSION}.sql"))]) {
        assert_eq!(by_psql.table(CATALOG).await, schema);
        assert_eq!(install(&by_psql, &[]), format!("{VERSION} is installed already"));
        let dumps = (shelf.dump(&plain, &["-n", "rowdelta"]), shelf.dump(&by_psql, &["-n", "rowdelta"]));
        assert_eq!(dumps.0, dumps.1);
    }

    let extension = shelf.server.beside().await;
    extension.execute("CREATE EXTENSION rowdelta").await;
    assert_eq!(extension.table(CATALOG).await, schema);
    assert_eq!(install(&extension, &[]), format!("{VERSION} is installed already, as an extension"));
    let members = membership(&extension).await;

    let by_install = shelf.server.beside().await;
    assert_eq!(install(&by_install, &["--extension"]), format!("{VERSION} installed, as an extension"));
    assert_eq!(by_install.table(CATALOG).await, schema);
    assert_eq!(membership(&by_install).await, members);

    // Nobody has to be superuser.
    let by_role = shelf.server.beside().await;
    let may =
        by_role.value("SELECT format('GRANT CREATE ON DATABASE %I TO keeper', current_database())").await;
    by_role.execute(&format!("CREATE ROLE keeper; {may}; SET ROLE keeper; CREATE EXTENSION rowdelta")).await;
    by_role.execute(&text("to-plain.sql")).await;
    by_role.execute(&text("to-extension.sql")).await;
    by_role.execute("RESET ROLE").await;
    assert_eq!(membership(&by_role).await, members);
    let strangers = "SELECT count(*) FROM pg_proc WHERE pronamespace = 'rowdelta'::regnamespace AND proowner <> 'keeper'::regrole";
    assert_eq!(by_role.value(strangers).await, "0");

    // Nothing is left after it, and nothing but it is dropped.
    for database in [&extension, &by_role] {
        database.execute("DROP EXTENSION rowdelta").await;
        assert_eq!(database.value("SELECT to_regnamespace('rowdelta') IS NULL").await, "t");
    }

    // Who owns a schema can put into it what others then call.
    let foreign = shelf.server.beside().await;
    foreign.execute("CREATE SCHEMA rowdelta AUTHORIZATION keeper").await;
    let refused = not_installed(&foreign, &[]);
    assert!(refused.contains("schema rowdelta belongs to role keeper: "), "{refused}");
    let may =
        foreign.value("SELECT format('GRANT CREATE ON DATABASE %I TO keeper', current_database())").await;
    foreign.execute(&format!("{may}; SET ROLE keeper")).await;
    foreign.execute(&text(&format!("rowdelta--{VERSION}.sql"))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_upgrade_gives_the_schema_of_a_fresh_install_and_loses_nothing() {
    let shelf = Shelf::new().await;
    let fresh = shelf.server.beside().await;
    assert_eq!(install(&fresh, &["--extension"]), format!("{VERSION} installed, as an extension"));
    let (schema, members) = (fresh.table(CATALOG).await, membership(&fresh).await);
    install(&fresh, &["--plain"]);
    assert_eq!(fresh.table(CATALOG).await, schema);
    let dump = shelf.dump(&fresh, &["-s", "-n", "rowdelta"]);
    for from in RELEASED {
        for way in
            ["install", "psql", "ALTER EXTENSION", "install of the extension", "to the extension", "to plain"]
        {
            let what = format!("from {from} by {way}");
            let database = shelf.server.beside().await;
            match way {
                "install" | "psql" | "to the extension" => {
                    database.execute(&text(&format!("rowdelta--{from}.sql"))).await;
                }
                _ => database.execute(&format!("CREATE EXTENSION rowdelta VERSION '{from}'")).await,
            }
            record(&database, from).await;
            let before = recorded(&database).await;
            match way {
                "install" => assert_eq!(install(&database, &[]), format!("{VERSION} upgraded from {from}")),
                "psql" if !psql(&shelf, &database, &upgrades(from)) => continue,
                "psql" => {}
                "ALTER EXTENSION" => database.execute("ALTER EXTENSION rowdelta UPDATE").await,
                "install of the extension" => {
                    assert_eq!(
                        install(&database, &[]),
                        format!("{VERSION} upgraded from {from}, as an extension")
                    );
                }
                "to the extension" => assert_eq!(
                    install(&database, &["--extension"]),
                    format!("{VERSION} upgraded from {from}, handed over to the extension")
                ),
                _ => assert_eq!(
                    install(&database, &["--plain"]),
                    format!("{VERSION} upgraded from {from}, taken back from the extension")
                ),
            }
            assert_eq!(database.table(CATALOG).await, schema, "{what}");
            assert_eq!(recorded(&database).await, before, "{what}");
            let is_member =
                ["ALTER EXTENSION", "install of the extension", "to the extension"].contains(&way);
            assert_eq!(
                membership(&database).await,
                if is_member { members.clone() } else { Vec::new() },
                "{what}"
            );
            if is_member {
                install(&database, &["--plain"]);
            }
            assert_eq!(shelf.dump(&database, &["-s", "-n", "rowdelta"]), dump, "{what}");
            goes_on(&database).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_extension_takes_over_and_gives_back_rows_and_grants() {
    const GRANTS: &str = "SELECT o.name, a.grantee::regrole, a.privilege_type, a.is_grantable FROM (
            SELECT oid::regclass::text AS name, relacl AS acl FROM pg_class WHERE relnamespace = 'rowdelta'::regnamespace
            UNION ALL SELECT attrelid::regclass || '.' || attname, attacl FROM pg_attribute WHERE attrelid = 'rowdelta.mapping'::regclass
            UNION ALL SELECT oid::regprocedure::text, proacl FROM pg_proc WHERE pronamespace = 'rowdelta'::regnamespace
            UNION ALL SELECT nspname, nspacl FROM pg_namespace WHERE nspname = 'rowdelta') AS o, aclexplode(o.acl) AS a
        ORDER BY 1, 2, 3, 4";
    let shelf = Shelf::new().await;
    let fresh = shelf.server.beside().await;
    fresh.execute("CREATE EXTENSION rowdelta").await;
    let members = membership(&fresh).await;

    let database = shelf.server.beside().await;
    install(&database, &[]);
    let schema = database.table(CATALOG).await;
    record(&database, VERSION).await;
    let rows = recorded(&database).await;
    let grants = "CREATE ROLE \"a nightly\"; CREATE ROLE reader; GRANT USAGE ON SCHEMA rowdelta TO \"a nightly\", reader;
        GRANT SELECT, INSERT, UPDATE, DELETE ON rowdelta.document TO \"a nightly\" WITH GRANT OPTION;
        GRANT SELECT (id, name) ON rowdelta.mapping TO reader; REVOKE ALL ON FUNCTION rowdelta.acquire FROM PUBLIC;
        GRANT EXECUTE ON FUNCTION rowdelta.acquire TO \"a nightly\"; GRANT SELECT ON rowdelta.status TO PUBLIC;
        CREATE VIEW public.mine AS SELECT * FROM rowdelta.status";
    database.execute(grants).await;
    let granted = database.table(GRANTS).await;

    let dump = shelf.dump(&database, &["-n", "rowdelta"]);
    assert_eq!(
        install(&database, &["--extension"]),
        format!("{VERSION} is installed already, handed over to the extension")
    );
    assert_eq!(
        install(&database, &["--extension"]),
        format!("{VERSION} is installed already, as an extension")
    );
    assert_eq!(membership(&database).await, members);
    assert_eq!(recorded(&database).await, rows);
    assert_eq!(database.table(GRANTS).await, granted);

    // A dump of it restores all.
    if let Some(dump) = shelf.dump(&database, &[]) {
        assert!(
            dump.contains("CREATE EXTENSION IF NOT EXISTS rowdelta") && !dump.contains("CREATE FUNCTION"),
            "{dump}"
        );
        let restored = shelf.server.beside().await;
        let scratch = command::Scratch::new();
        assert!(psql(&shelf, &restored, &[scratch.write("dump.sql", dump)]));
        assert_eq!(membership(&restored).await, members);
        assert_eq!(recorded(&restored).await, rows);
        assert_eq!(restored.table(GRANTS).await, granted);
        goes_on(&restored).await;
    }

    assert_eq!(
        install(&database, &["--plain"]),
        format!("{VERSION} is installed already, taken back from the extension")
    );
    assert_eq!(membership(&database).await, Vec::<Vec<Option<String>>>::new());
    assert_eq!(recorded(&database).await, rows);
    assert_eq!(database.table(GRANTS).await, granted);
    assert_eq!(shelf.dump(&database, &["-n", "rowdelta"]), dump);
    database.execute("REVOKE SELECT ON rowdelta.status FROM PUBLIC").await;

    // By hand, as the documentation says.
    if psql(&shelf, &database, &[file("to-extension.sql")]) {
        assert_eq!(membership(&database).await, members);
        assert!(psql(&shelf, &database, &[file("to-plain.sql")]));
    }
    goes_on(&database).await;

    // What is somebody else's would be in no dump any more.
    let own = shelf.server.beside().await;
    install(&own, &[]);
    assert_eq!(own.table(CATALOG).await, schema);
    for (object, kind) in
        [("mine (a int)", "TABLE"), ("mine() RETURNS int LANGUAGE sql AS 'SELECT 1'", "FUNCTION")]
    {
        own.execute(&format!("CREATE {kind} rowdelta.{object}")).await;
        let refused = not_installed(&own, &["--extension"]);
        assert!(refused.contains("rowdelta.mine") && refused.contains("is not of rowdelta"), "{refused}");
        assert_eq!(membership(&own).await, Vec::<Vec<Option<String>>>::new());
        own.execute(&format!("DROP {kind} rowdelta.mine")).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_way_back_and_none_without_the_files() {
    let shelf = Shelf::new().await;
    let newer = shelf.server.beside().await;
    newer.execute("CREATE EXTENSION rowdelta").await;
    newer
        .execute("CREATE OR REPLACE FUNCTION rowdelta.version() RETURNS text LANGUAGE sql AS $$ SELECT '99.0.0' $$")
        .await;
    for arguments in [&[][..], &["--plain"], &["--extension"]] {
        let refused = not_installed(&newer, arguments);
        assert!(refused.contains("99.0.0") && refused.contains("a program of that version"), "{refused}");
    }
    let old = shelf.server.beside().await;
    old.execute(&text("rowdelta--0.1.0.sql")).await;
    let refused = old.client().await.batch_execute(&text("to-extension.sql")).await.unwrap_err();
    assert!(crate::support::database::describe(&refused).contains("0.1.0"), "{refused:?}");
    let none = shelf.server.beside().await;
    let refused = none.client().await.batch_execute("CREATE EXTENSION rowdelta VERSION 'unpackaged'").await;
    assert_eq!(refused.unwrap_err().code().unwrap().code(), "55000");

    let left = shelf.server.beside().await;
    left.execute("CREATE EXTENSION rowdelta VERSION '0.1.0'").await;
    shelf.remove_files();
    let bare = shelf.server.beside().await;
    for (database, arguments) in [(&bare, &["--extension"][..]), (&left, &[]), (&left, &["--extension"])] {
        let refused = not_installed(database, arguments);
        assert!(refused.contains("`make install`") && refused.contains("--plain"), "{refused}");
    }
    assert_eq!(left.value("SELECT rowdelta.version()").await, "0.1.0");
    assert_eq!(
        install(&left, &["--plain"]),
        format!("{VERSION} upgraded from 0.1.0, taken back from the extension")
    );
    assert!(not_installed(&left, &["--extension"]).contains("`make install`"));
    assert_eq!(install(&left, &[]), format!("{VERSION} is installed already"));
}

/// What a script says must have a form in the encoding of the database, its comments included.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p20_a_database_need_not_be_in_utf8() {
    let database = db().await;
    for older in [false, true] {
        let latin = database.beside_with("ENCODING 'LATIN1' LOCALE 'C'").await;
        if older {
            latin.execute(&text("rowdelta--0.2.0.sql")).await;
        }
        install(&latin, &[]);
        latin.execute("CREATE TABLE word (k text PRIMARY KEY, v text)").await;
        let scratch = command::Scratch::new();
        let mapping = scratch.write(
            "mapping.toml",
            "version = 1\nname = \"words\"\n[root]\ntable = \"word\"\nkey = [\"k\"]\ncolumns = { k = \"k\", v = \"v\" }\n",
        );
        let feed = scratch.write("feed.ndjson", "{\"k\": \"año\", \"v\": \"ü\"}\n");
        command::sync(latin.url(), &mapping, &[&feed]).succeeded();
        assert_eq!(
            latin.value("SELECT encode(convert_to(k || v, 'LATIN1'), 'hex') FROM word").await,
            "61f16ffc"
        );
        let sql = "SELECT rowdelta.register('{\"version\": 1, \"name\": \"sql\", \"root\": {\"table\": \"word\", \"key\": \"k\",
                   \"columns\": {\"k\": \"k\", \"v\": \"v\"}}}'); SELECT rowdelta.sync('sql', '{\"k\": \"año\", \"v\": \"û\"}')";
        latin.execute(sql).await;
        assert_eq!(latin.value("SELECT v FROM word").await, "û");
    }
}
