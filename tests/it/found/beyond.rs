//! What a file of cases cannot say: tables of 1,600 columns, temporary tables, roles that only verify, other sessions.

use std::fmt::Write;

use rowdelta::engine::Engine;
use rowdelta::mapping::Mapping;
use tokio_postgres::NoTls;

use crate::support::command::{self, Scratch, install, sync};
use crate::support::db;

/// PostgreSQL's limit is 1,600 columns, of which dropped ones count.
const COLUMNS: usize = 1590;

fn document(k: usize, n: usize) -> String {
    let mut text = format!("{{\"k\": {k}");
    for c in 1..COLUMNS {
        write!(text, ", \"c{c}\": {}", if c % 100 == 5 { n } else { c }).unwrap();
    }
    text + "}"
}

#[tokio::test]
async fn p20_a_table_of_1590_mapped_columns() {
    let db = db().await;
    let columns: Vec<String> = (1..COLUMNS).map(|c| format!("c{c} int")).collect();
    db.execute(&format!("CREATE TABLE t (k int PRIMARY KEY, {})", columns.join(", "))).await;
    install(db.url());
    let scratch = Scratch::new();
    let mut mapping =
        "version = 1\nname = \"wide\"\n[root]\ntable = \"t\"\nkey = [\"k\"]\n[root.columns]\nk = \"k\"\n"
            .to_owned();
    (1..COLUMNS).for_each(|c| writeln!(mapping, "c{c} = \"c{c}\"").unwrap());
    let mapping = scratch.write("mapping.toml", mapping);
    // By COPY, by UPDATE, by INSERT; the parameters of a statement are counted in 16 bits.
    let nights = [("added", 60, 0..60, 0), ("updated", 30, 0..60, 1), ("added", 3, 0..63, 1)];
    for (kind, count, rows, n) in nights {
        let documents: Vec<String> = rows.map(|k| document(k, n * (k % 2))).collect();
        let feed = scratch.write("feed.ndjson", documents.join("\n"));
        let ran = sync(db.url(), &mapping, &[&feed]).succeeded();
        assert_eq!((ran.rows_written(), &ran.report["relations"][0][kind]), (count, &count.into()));
        assert_eq!(sync(db.url(), &mapping, &[&feed]).succeeded().rows_written(), 0);
        db.execute("TRUNCATE rowdelta.document, rowdelta.base, rowdelta.skip").await;
        assert_eq!(sync(db.url(), &mapping, &[&feed]).succeeded().rows_written(), 0);
    }
    assert_eq!(
        db.value("SELECT sum(c5) || ' ' || sum(c1505) || ' ' || sum(c1589) FROM t").await,
        "31 31 100107"
    );
}

/// A pool of one connection, in which the table is seen all the same: another one would not see it.
#[tokio::test]
async fn p22_a_temporary_table_is_refused() {
    let db = db().await;
    install(db.url());
    let manager = bb8_postgres::PostgresConnectionManager::new_from_stringlike(db.url(), NoTls).unwrap();
    let pool = bb8::Pool::builder().max_size(1).build(manager).await.unwrap();
    let create = "CREATE TEMPORARY TABLE t (k int PRIMARY KEY)";
    pool.get().await.unwrap().batch_execute(create).await.unwrap();
    let mapping = "version = 1\nname = \"t\"\n[root]\ntable = \"t\"\nkey = [\"k\"]\ncolumns = { k = \"k\" }";
    let built = Engine::builder(Mapping::from_toml(mapping).unwrap()).build(pool).await;
    let error = built.err().expect("it is refused").to_string();
    assert!(error.contains("root: t is a temporary table, which other sessions do not see"), "{error}");
}

const PLAIN: &str =
    "version = 1\nname = \"t\"\n[root]\ntable = \"t\"\nkey = [\"k\"]\ncolumns = { k = \"k\", n = \"n\" }";

#[tokio::test]
async fn p40_to_verify_it_is_enough_to_read() {
    let db = db().await;
    db.execute("CREATE TABLE t (k int PRIMARY KEY, n int, secret text)").await;
    install(db.url());
    let scratch = Scratch::new();
    let (mapping, feed) =
        (scratch.write("mapping.toml", PLAIN), scratch.write("feed.ndjson", "{\"k\": 1, \"n\": 1}"));
    sync(db.url(), &mapping, &[&feed]).succeeded();
    let role = format!("reader_{}", db.address().1);
    db.execute(&format!("DROP ROLE IF EXISTS {role}; CREATE ROLE {role} LOGIN")).await;
    let url = db.url().replace("//postgres@", &format!("//{role}@"));
    let verify = || command::run(&["verify", "-d", &url, "-m", mapping.to_str().unwrap()]);
    for (grant, missing) in [
        ("USAGE ON SCHEMA rowdelta", "GRANT USAGE ON SCHEMA rowdelta TO"),
        (
            "SELECT ON rowdelta.mapping, rowdelta.document, rowdelta.base, rowdelta.skip, rowdelta.rewritten",
            "GRANT SELECT ON rowdelta.mapping TO",
        ),
        ("SELECT (xmin, k, n) ON t", "root: the role may not SELECT; GRANT SELECT ON public.t TO"),
    ] {
        let (code, errors) = verify();
        assert!(code == 2 && errors.contains(missing), "{code} {errors}");
        db.execute(&format!("GRANT {grant} TO {role}")).await;
    }
    let (code, errors) = verify();
    assert_eq!(code, 0, "{errors}");
}

/// `ON CONFLICT` cannot be used there, so who comes second is refused, and looks again.
#[tokio::test(flavor = "multi_thread")]
async fn p20_somebody_else_fills_a_catalogue_whose_key_is_deferrable() {
    let db = db().await;
    db.execute(
        "CREATE TABLE tag (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, word text UNIQUE DEFERRABLE);
         CREATE TABLE t (k int PRIMARY KEY, n int)",
    )
    .await;
    install(db.url());
    let scratch = Scratch::new();
    let lookup = "n = { lookup = \"tag\", match = { word = \"n\" } }";
    let catalogue = "[lookups.tag]\ntable = \"tag\"\nid = \"id\"\nkey = [\"word\"]\nmissing = \"insert\"";
    let mapping = format!("{}\n{catalogue}", PLAIN.replace("n = \"n\"", lookup));
    let mapping = scratch.write("mapping.toml", mapping);
    let feed = scratch.write("feed.ndjson", "{\"k\": 1, \"n\": \"x\"}\n{\"k\": 2, \"n\": \"y\"}");
    let mut other = db.client().await;
    let other = other.transaction().await.unwrap();
    other.batch_execute("INSERT INTO tag (word) VALUES ('x')").await.unwrap();
    let url = db.url().to_owned();
    let run = tokio::task::spawn_blocking(move || sync(&url, &mapping, &[&feed]));
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()";
    while db.value(waits).await == "0" {
        assert!(!run.is_finished(), "it does not wait");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    other.commit().await.unwrap();
    let ran = run.await.unwrap().succeeded();
    assert!(ran.report["retries"].as_u64() > Some(0), "{:#}", ran.report);
    let rows = "SELECT string_agg(k || word, ' ' ORDER BY k) || ' ' || (SELECT count(*) FROM tag) FROM t JOIN tag ON id = n";
    assert_eq!(db.value(rows).await, "1x 2y 2");
}
