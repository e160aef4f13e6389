//! Several runs at once, and one that sleeps beyond its lease.

use std::time::Duration;

use serde_json::{Value, json};

use super::proxy::{Fault, Phase};
use super::site::{Site, Way};
use crate::oracle::{self, Edits};
use crate::shop::{SCHEMA, mapping_in, ndjson};
use crate::support::command::{self, Ran, Scratch};
use crate::support::db;

async fn four_at_once(seed: u64, way: Way) {
    let Some(mut site) = Site::open(seed, way).await else { return };
    for _ in 0..3 {
        site.dawn().await;
        let runs: [_; 4] = std::array::from_fn(|_| site.start(&["--wait", "120"]));
        let mut changed = 0;
        for run in runs {
            let ran = run.ended().await.succeeded();
            changed += u64::from(ran.documents("changed") + ran.documents("new") > 0);
        }
        assert_eq!(changed, 1, "one of them found all there was to do");
        site.is_as_it_should_be().await;
        site.ends_well().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p29_of_four_runs_at_once_one_writes_and_the_others_wait() {
    four_at_once(21, Way::Direct).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p29_p30_of_four_runs_at_once_behind_a_pooler_one_writes_and_the_others_wait() {
    four_at_once(22, Way::Pooled).await;
}

/// Each mapping has tables of its own; the catalogue of products is one for all, and all insert into it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p29_four_mappings_share_a_catalogue() {
    const NAMES: [&str; 4] = ["a", "b", "c", "d"];
    let (db, scratch) = (db().await, Scratch::new());
    let (product, rest) = SCHEMA.split_once("CREATE TABLE orders").unwrap();
    db.execute(product).await;
    command::install(db.url());
    for name in NAMES {
        let tables =
            format!("CREATE SCHEMA {name}; SET search_path = {name}, public; CREATE TABLE orders{rest}");
        db.execute(&format!("{tables}; RESET search_path")).await;
        let mapping = mapping_in(name).replace(&format!("\"{name}.product\""), "\"public.product\"");
        scratch.write(&format!("{name}.toml"), mapping);
    }
    for night in 1..4 {
        let feeds = NAMES.map(|name| {
            let order = |n: usize| {
                let products: Vec<String> = (0..3).map(|p| format!("p{night}-{}", (n * 7 + p) % 90)).collect();
                json!({ "number": format!("N{n:03}"), "customer": name, "units": night, "products": products })
            };
            (0..120).map(order).collect::<Vec<Value>>()
        });
        let runs = NAMES.iter().zip(&feeds).map(|(name, docs)| {
            let feed = scratch.write(&format!("{name}.ndjson"), ndjson(docs));
            let (url, mapping) = (db.url().to_owned(), scratch.path(&format!("{name}.toml")));
            let run = move || {
                command::sync_with(
                    &url,
                    &mapping,
                    &[&feed],
                    &["--workers", "2", "--batch", "10", "--allow-deletes", "100000"],
                )
            };
            tokio::task::spawn_blocking(run)
        });
        let runs: Vec<tokio::task::JoinHandle<Ran>> = runs.collect();
        let mut products = 0;
        for run in runs {
            let ran = run.await.unwrap().succeeded();
            let relations = ran.report["relations"].as_array().unwrap();
            products += relations.iter().find(|relation| relation["name"] == "product").unwrap()["added"]
                .as_u64()
                .unwrap();
        }
        assert_eq!(products, 90, "each new product was inserted once");
        for (name, docs) in NAMES.iter().zip(&feeds) {
            db.execute("DROP SCHEMA oracle CASCADE; CREATE SCHEMA oracle").await;
            let docs: Vec<String> = docs.iter().map(Value::to_string).collect();
            oracle::check(db.client().await, &scratch.path(&format!("{name}.toml")), &docs).await.unwrap();
        }
    }
}

/// Stops a run (between transactions, if its COMMIT has just been sent), lets another one take over, and lets the first go on.
async fn sleeps_beyond_its_lease(seed: u64, phase: Phase, way: Way) {
    let Some(mut site) = Site::open(seed, way).await else { return };
    site.dawn().await;
    let trap = site.early_trap(phase, Fault::Tell);
    site.proxy.set(vec![trap]);
    let run = site.start(&["--lease", "2"]);
    site.proxy.sprung().await;
    run.signal("STOP");
    let has_run_out = "SELECT lease_until < clock_timestamp() FROM rowdelta.mapping";
    while site.shop.db.value(has_run_out).await != "t" {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // What `idle_in_transaction_session_timeout` does after a minute.
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
               WHERE datname = current_database() AND application_name = 'rowdelta' AND state LIKE 'idle in%'";
    site.shop.db.execute(end).await;
    let other = site.run(&["--wait", "30"]).await.succeeded();
    assert!(other.rows_written() > 0, "there was nothing left to do");
    site.is_as_it_should_be().await;
    site.shop.written().await;
    run.signal("CONT");
    let ran = run.ended().await;
    assert_eq!(ran.code, 4, "{}\n{:#}", ran.stderr, ran.report);
    assert_eq!(site.shop.written().await, Edits::new(), "rows written after the takeover");
    site.is_as_it_should_be().await;
    site.ends_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p29_a_run_stopped_beyond_its_lease_between_transactions_writes_nothing_more() {
    sleeps_beyond_its_lease(23, Phase::Committing, Way::Direct).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p29_a_run_stopped_beyond_its_lease_while_it_writes_writes_nothing_more() {
    sleeps_beyond_its_lease(24, Phase::Writing, Way::Direct).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p29_p30_a_run_stopped_beyond_its_lease_behind_a_pooler_writes_nothing_more() {
    sleeps_beyond_its_lease(25, Phase::Writing, Way::Pooled).await;
}
