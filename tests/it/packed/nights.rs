//! Runs of the command over what is packed.

use std::time::Duration;

use rowdelta::postgres::local::Options;
use serde_json::{Value, json};

use super::{Bed, merge_sql};
use crate::oracle::Edits;
use crate::shop::{MAPPING, SCHEMA, Shop};
use crate::support::command::{self, Ran, install};
use crate::support::layout::BROKEN;
use crate::support::{db, db_on};

fn orders(count: usize, units: usize) -> Vec<Value> {
    let order = |n: usize| {
        json!({ "number": format!("N{n:04}"), "customer": "c", "units": if n % 50 == 0 { units } else { 0 },
            "lines": [{ "no": 1 }, { "no": 2 }], "tags": ["t", format!("u{}", n % 7)] })
    };
    (0..count).map(order).collect()
}

/// Documents in another spelling: so many spaces after the first brace.
fn spelled(docs: &[Value], spaces: usize) -> String {
    let line = |doc: &Value| doc.to_string().replacen('{', &format!("{{{}", " ".repeat(spaces)), 1) + "\n";
    docs.iter().map(line).collect()
}

async fn run(shop: &Shop, docs: &[Value], spaces: usize) -> Ran {
    let feed = shop.scratch.write("feed.ndjson", spelled(docs, spaces));
    shop.run_file(&feed, &[]).await.succeeded()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p01_nights_over_packed_documents_write_what_changed_and_pack_when_that_pays() {
    let shop = Shop::open().await;
    shop.db.merge_from("0.1").await;
    let recent = "SELECT count(*) FROM rowdelta.document";
    let mut packed = Vec::new();
    for (units, expected) in [(1, (600, 0)), (2, (0, 12)), (2, (0, 0)), (3, (0, 12)), (4, (0, 12))] {
        let docs = orders(600, units);
        let ran = shop.sync(&docs).await;
        assert_eq!((ran.documents("new"), ran.documents("changed")), expected);
        packed.push((ran.report["merged"] == true, shop.db.value(recent).await));
        assert_eq!(shop.db.table(BROKEN).await.len(), 0);
    }
    let expected = [(true, "0"), (false, "12"), (false, "12"), (false, "12"), (false, "12")];
    assert_eq!(packed, expected.map(|(merged, recent)| (merged, recent.to_owned())));
    // A tenth is enough.
    let mut docs = orders(600, 4);
    docs.iter_mut().take(70).for_each(|doc| doc["customer"] = "d".into());
    let ran = shop.sync(&docs).await;
    assert_eq!((ran.documents("changed"), &ran.report["merged"]), (70, &json!(true)));
    assert_eq!(shop.db.value(recent).await, "0");
    let ran = shop.sync(&docs).await;
    assert_eq!(
        (ran.documents("unchanged"), ran.documents("respelled")),
        (600, 0),
        "they are skipped by their bytes"
    );
}

/// Fails should what is recorded cost pages again rather than bytes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p38_recording_one_document_in_a_hundred_costs_few_bytes_of_log() {
    const BYTES_MAX: u64 = 1500;
    let options = Options::durable().setting("autovacuum", "off").setting("max_wal_size", "4GB");
    let db = db_on(options).await;
    install(db.url());
    let mapping = db.value("SELECT rowdelta.register('m', '{}', '\\x00')").await;
    let bed = Bed { db, mapping };
    let id = &bed.mapping;
    let record = |of: &str, new: bool, expected: &str| {
        format!(
            "SELECT rowdelta.record({id}, array_agg(k), array_agg({new}), array_agg({expected}::bytea),
                 array_agg(substr(sha256(k), 1, 16)), array_agg(substr(sha256(k || '\\x{of}'), 1, 16)),
                 array_agg(sha256(k) || sha256(k || k) || sha256(k || '\\x01') || '\\x001400002a'), array_agg(true),
                 array_agg('\\x0102030405060708'::bytea))
             FROM (SELECT int4send(4) || int4send(i) AS k FROM generate_series(1, 10000) AS i WHERE {} ) AS s",
            if new { "true" } else { "hashint4(i) % 100 = 0" }
        )
    };
    bed.db.execute(&record("00", true, "NULL")).await;
    bed.db.execute(&merge_sql(id, 5000)).await;
    // As a run does: else the next one notes on every page it reads that its rows are committed.
    bed.db.execute("SELECT count(*) FROM rowdelta.base; SELECT count(*) FROM rowdelta.skip").await;
    let mut before = "00";
    for night in ["01", "02", "03"] {
        bed.db.execute("VACUUM rowdelta.document").await;
        bed.db.execute("CHECKPOINT").await;
        let start = bed.db.value("SELECT pg_current_wal_insert_lsn()").await;
        let expected = format!("substr(sha256(k || '\\x{before}'), 1, 16)");
        bed.db.execute(&record(night, false, &expected)).await;
        let wal = format!("SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '{start}')");
        let wal: u64 = bed.db.value(&wal).await.parse().unwrap();
        let documents: u64 = bed.db.value("SELECT count(*) FROM rowdelta.document").await.parse().unwrap();
        println!("night {night}: {wal} bytes for {documents} documents");
        assert!((60..140).contains(&documents), "{documents}");
        assert!(wal < BYTES_MAX * documents, "{wal} bytes for {documents} documents");
        before = night;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p01_a_night_without_changes_over_packed_documents_writes_next_to_no_log() {
    const WAL_MAX: u64 = 64 << 10;
    let options = Options::durable().setting("autovacuum", "off").setting("max_wal_size", "4GB");
    let shop = Shop::in_database(db_on(options).await, SCHEMA, MAPPING).await;
    shop.db.merge_from("0").await;
    let docs = orders(1000, 1);
    run(&shop, &docs, 0).await;
    // What is recorded a run leaves clean by itself.
    let tables = "orders, line, serial, file, page, tag, order_product, product";
    shop.db.execute(&format!("VACUUM {tables}")).await;
    shop.db.execute("CHECKPOINT").await;
    let ran = run(&shop, &docs, 0).await;
    println!("{} bytes", ran.report["wal_bytes"]);
    assert!(ran.report["wal_bytes"].as_u64().unwrap() < WAL_MAX, "{:#}", ran.report);
    assert_eq!(ran.documents("unchanged"), 1000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p15_a_new_spelling_is_recorded_once_and_one_that_never_lasts_hardly_ever() {
    let shop = Shop::open().await;
    let docs = orders(160, 1);
    run(&shop, &docs, 0).await;
    let counts = |ran: &Ran| (ran.documents("respelled"), ran.documents("renewed"));
    // The feed is spelled otherwise from now on.
    assert_eq!(counts(&run(&shop, &docs, 1).await), (160, 160));
    assert_eq!(counts(&run(&shop, &docs, 1).await), (0, 0));
    // It is each night.
    for night in 2..6 {
        let (respelled, renewed) = counts(&run(&shop, &docs, night).await);
        assert!(respelled == 160 && renewed < 40, "{renewed} of {respelled} were recorded in night {night}");
    }
    // It no longer is: it takes some nights to find out.
    let mut left = Vec::new();
    for _ in 0..17 {
        let (respelled, renewed) = counts(&run(&shop, &docs, 6).await);
        assert!(renewed < 40);
        left.push(respelled);
    }
    println!("parsed in vain: {left:?}");
    assert!(left.is_sorted_by(|a, b| a >= b));
    assert_eq!(left.last(), Some(&0));
    // Where rows change it starts anew.
    let known = "SELECT count(*) FROM rowdelta.state WHERE respelled";
    let docs = orders(160, 2);
    assert_eq!(run(&shop, &docs, 6).await.documents("changed"), 4);
    assert_eq!(shop.db.value(known).await, "156");
    run(&shop, &docs, 7).await;
    assert_eq!(shop.db.value(known).await, "160");
    assert_eq!(shop.written().await["orders"].updated, 4);
}

/// What is recorded changes in READ COMMITTED transactions only, and no role has to have them by default.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p36_runs_do_not_depend_on_the_default_isolation() {
    let shop = Shop::open().await;
    shop.db.merge_from("0").await;
    let name = shop.db.address().1.to_owned();
    shop.db
        .execute(&format!("ALTER DATABASE {name} SET default_transaction_isolation = 'serializable'"))
        .await;
    let docs = orders(20, 1);
    shop.sync(&docs).await;
    let lost = "DELETE FROM line WHERE order_id = (SELECT min(id) FROM orders); TRUNCATE tag;
                DELETE FROM orders WHERE id = (SELECT min(id) FROM orders)";
    shop.db.execute(lost).await;
    shop.expect(&docs).await;
    let ran = run(&shop, &docs, 0).await;
    assert_eq!((ran.documents("new"), ran.documents("changed")), (1, 19));
    shop.state.check().await.unwrap();
    assert_eq!(shop.unsettled().await, "0");
}

/// Holds the command in the middle of a merge: it has deleted recent rows, and wants to write to the base.
async fn held_merging(shop: &Shop, docs: &[Value]) -> (std::process::Child, tokio_postgres::Client) {
    let blocker = shop.db.client().await;
    blocker.batch_execute("BEGIN; LOCK TABLE rowdelta.base IN SHARE MODE").await.unwrap();
    let feed = shop.scratch.write("feed.ndjson", spelled(docs, 0));
    let child = command::start_sync(&shop.url, &shop.mapping, &feed);
    let merging = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'
                   AND query LIKE '%rowdelta.merge(%' AND application_name = 'rowdelta'";
    while shop.db.value(merging).await != "1" {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    (child, blocker)
}

/// All is recorded that was written, and nothing has to be looked at again.
async fn nothing_is_lost(shop: &Shop, docs: &[Value]) {
    let others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'rowdelta'";
    while shop.db.value(others).await != "0" {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    shop.db.execute("UPDATE rowdelta.mapping SET lease_until = clock_timestamp()").await;
    assert_eq!(shop.db.table(BROKEN).await.len(), 0);
    shop.expect(docs).await;
    shop.written().await;
    let ran = run(shop, docs, 0).await;
    assert_eq!((ran.documents("unchanged"), ran.documents("respelled")), (docs.len() as u64, 0));
    assert_eq!(shop.written().await, Edits::new());
    shop.state.check().await.unwrap();
    assert_eq!(shop.unsettled().await, "0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p26_a_command_killed_while_it_merges_loses_nothing() {
    let shop = Shop::in_database(db().await, SCHEMA, MAPPING).await;
    shop.db.merge_from("0").await;
    run(&shop, &orders(300, 1), 0).await;
    for units in [2, 3] {
        let docs = orders(300, units);
        let (mut child, blocker) = held_merging(&shop, &docs).await;
        child.kill().unwrap(); // SIGKILL
        child.wait().unwrap();
        blocker.batch_execute("ROLLBACK").await.unwrap();
        nothing_is_lost(&shop, &docs).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p26_a_server_killed_while_it_merges_loses_nothing() {
    let mut shop = Shop::in_database(db_on(Options::durable()).await, SCHEMA, MAPPING).await;
    shop.db.merge_from("0").await;
    run(&shop, &orders(300, 1), 0).await;
    let docs = orders(300, 2);
    let (mut child, _blocker) = held_merging(&shop, &docs).await;
    shop.db.kill();
    shop.restart().await;
    let ended = tokio::task::spawn_blocking(move || child.wait().unwrap()).await.unwrap();
    assert!(ended.success(), "what could not be packed is packed another time: {ended}");
    nothing_is_lost(&shop, &docs).await;
}
