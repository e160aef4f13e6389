//! The command through PgBouncer in transaction mode: nothing of a session outlives a transaction.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::oracle;
use crate::shop::{SCHEMA, Shop, mapping_in, ndjson};
use crate::support::command::{self, Ran};
use crate::support::database::{connect, rows};
use crate::support::pooler::Pooler;

/// Enough rows for COPY into every table, other ones every night.
fn orders(night: usize, count: usize) -> Vec<Value> {
    let order = |n: usize| {
        json!({ "number": format!("N{n:03}"), "customer": "c", "units": night * usize::from(n % 3 == 0),
            "lines": [{ "no": 1, "label": "l", "serials": ["a", format!("s{night}")] }, { "no": 1 + night }],
            "files": [{ "id": n, "name": "f", "pages": [{ "no": night }] }], "tags": ["t", format!("t{night}")],
            "products": [format!("p{}", n % 7), format!("q{}", night + n % 60)] })
    };
    (0..count).map(order).collect()
}

/// A shop whose command goes through a pool of so many connections, if there can be one.
async fn pooled(connections: u32) -> Option<(Shop, Pooler)> {
    let mut shop = Shop::open().await;
    let pooler = Pooler::start(&shop.db, connections)?;
    shop.url = pooler.url().to_owned();
    Some((shop, pooler))
}

/// What prepared statements the server's sessions hold, seen through the pool's one connection.
async fn prepared(pooler: &Pooler) -> Vec<Vec<Option<String>>> {
    let client = connect(pooler.url()).await.unwrap();
    rows(&client, "SELECT name, statement FROM pg_prepared_statements").await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p30_nights_through_one_connection_leave_nothing_in_its_session() {
    let Some((shop, pooler)) = pooled(1).await else { return };
    for night in 1..4 {
        shop.sync(&orders(night, 120)).await;
        assert_eq!(prepared(&pooler).await, Vec::<Vec<_>>::new());
    }
    let ran = shop.sync(&orders(3, 120)).await;
    assert_eq!((ran.rows_written(), ran.report["retries"].as_u64()), (0, Some(0)));
    let settings = "SELECT name FROM pg_settings WHERE source = 'session' AND name NOT IN
        ('application_name', 'client_encoding', 'DateStyle', 'IntervalStyle', 'TimeZone', 'standard_conforming_strings')";
    let client = connect(pooler.url()).await.unwrap();
    let kept = rows(&client, settings).await.unwrap();
    assert_eq!(kept, Vec::<Vec<_>>::new());
}

/// A mapping in a schema with types given, about which the server is asked.
fn typed(mapping: &str, schema: &str) -> String {
    let typed =
        mapping.replace("total = \"total\"", "total = { path = \"total\", type = \"numeric(10, 2)\" }");
    let status = format!("status = {{ path = \"status\", type = \"{schema}.status\" }}");
    typed.replace("status = \"status\"", &status)
}

/// One of two shops in a database.
#[derive(Clone)]
struct Half {
    url: String,
    mapping: PathBuf,
    untyped: PathBuf,
    feed: PathBuf,
}

impl Half {
    fn run(&self) -> Ran {
        command::sync_with(
            &self.url,
            &self.mapping,
            &[&self.feed],
            &["--workers", "3", "--batch", "25", "--allow-deletes", "1000"],
        )
    }
}

/// Processes number their prepared statements alike: both have an `s0`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p30_two_processes_in_turn_and_at_once_share_one_connection() {
    let Some((shop, pooler)) = pooled(1).await else { return };
    let half = |schema: &str| Half {
        url: pooler.url().to_owned(),
        mapping: shop.scratch.write(&format!("{schema}.toml"), typed(&mapping_in(schema), schema)),
        untyped: shop.scratch.write(&format!("{schema}-untyped.toml"), mapping_in(schema)),
        feed: shop.scratch.path(&format!("{schema}.ndjson")),
    };
    let halves = [half("a"), half("b")];
    for schema in ["a", "b"] {
        shop.db
            .execute(&format!(
                "CREATE SCHEMA {schema}; SET search_path = {schema}; {SCHEMA}; RESET search_path"
            ))
            .await;
    }
    for night in 1..6 {
        let docs = orders(night, 200);
        halves.iter().for_each(|half| std::fs::write(&half.feed, ndjson(&docs)).unwrap());
        let at_once = night % 2 == 0;
        let runs = halves.clone().map(|half| move || half.run().succeeded());
        let ran: Vec<Ran> = tokio::task::spawn_blocking(move || match at_once {
            false => runs.map(|run| run()).into(),
            true => std::thread::scope(|scope| {
                let started = runs.map(|run| scope.spawn(run));
                started.map(|run| run.join().unwrap()).into()
            }),
        })
        .await
        .unwrap();
        for (ran, half) in ran.iter().zip(&halves) {
            println!("night {night}: {} rows written, {} retries", ran.rows_written(), ran.report["retries"]);
            assert_eq!(ran.report["retries"], 0, "{:#}", ran.report);
            shop.db.execute("DROP SCHEMA oracle CASCADE; CREATE SCHEMA oracle").await;
            let docs: Vec<String> = docs.iter().map(Value::to_string).collect();
            oracle::check(shop.db.client().await, &half.untyped, &docs).await.unwrap();
        }
        assert_eq!(prepared(&pooler).await, Vec::<Vec<_>>::new());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p30_schema_and_install_work_through_a_pooler() {
    let db = crate::support::db().await;
    let Some(pooler) = Pooler::start(&db, 1) else { return };
    let scratch = command::Scratch::new();
    let mapping = scratch.write("mapping.toml", typed(&mapping_in("public"), "public"));
    let feed = scratch.write("feed.ndjson", ndjson(&orders(1, 60)));
    db.execute("CREATE TYPE status AS ENUM ('open')").await;
    let text = |path: &PathBuf| path.to_str().unwrap().to_owned();
    let (code, said) =
        command::run(&["schema", "-d", pooler.url(), "-m", &text(&mapping), "--create", &text(&feed)]);
    assert_eq!(code, 0, "{said}");
    command::install(pooler.url());
    command::install(pooler.url());
    let ran = command::sync(pooler.url(), &mapping, &[&feed]).succeeded();
    assert_eq!(ran.documents("new"), 60);
}

/// A parameter that PgBouncer does not know is named, and the command could not run.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p30_a_startup_parameter_that_the_pooler_refuses_is_named() {
    let db = crate::support::db().await;
    let Some(pooler) = Pooler::start(&db, 1) else { return };
    let url = format!("{}?options=-c%20statement_timeout%3D1s", pooler.url());
    let (code, said) = command::run(&["install", "-d", &url]);
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("no connection to ") && said.contains("options"), "{said}");
}
