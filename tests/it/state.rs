//! What is recorded and what is stored, when the two no longer fit: lost state, lost rows, changed types, kills.

use std::time::Duration;

use rowdelta::postgres::local::Options;
use serde_json::{Value, json};

use crate::oracle::Edits;
use crate::shop::{MAPPING, SCHEMA, Shop, edits, ndjson};
use crate::support::{command, db_on};

fn orders(count: usize) -> Vec<Value> {
    let order = |n: usize| {
        json!({ "number": format!("N{n:04}"), "customer": "c", "total": format!("{n}.25"), "units": n,
            "lines": [{ "no": 1, "label": "one", "serials": ["a", "b"] }, { "no": 2 }],
            "files": [{ "id": n, "name": "f", "pages": [{ "no": 1 }] }], "tags": ["t", "t", null],
            "products": ["p", format!("q{}", n % 7)] })
    };
    (0..count).map(order).collect()
}

async fn filled(count: usize) -> (Shop, Vec<Value>) {
    let (shop, docs) = (Shop::open().await, orders(count));
    shop.sync(&docs).await;
    (shop, docs)
}

/// Nothing is written by the next run, which only reads, and nothing is even read by the one after it.
async fn compares_then_skips(shop: &Shop, docs: &[Value]) {
    for _ in 0..2 {
        let ran = shop.run(docs).await.succeeded();
        assert_eq!(ran.documents("unchanged"), docs.len() as u64, "{:#}", ran.report);
        assert_eq!(shop.written().await, Edits::new());
        assert_eq!(ran.rows_written(), 0);
        shop.state.check().await.unwrap();
    }
    let ran = shop.run(docs).await.succeeded();
    let relations = ran.report["relations"].as_array().unwrap();
    assert!(relations.iter().all(|relation| relation["unchanged"] == 0), "rows were read: {relations:#?}");
    assert_eq!(shop.unsettled().await, "0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p35_full_tables_without_state_are_adopted_without_a_write() {
    let (shop, docs) = filled(700).await;
    shop.db.execute("TRUNCATE rowdelta.document, rowdelta.base, rowdelta.skip").await;
    compares_then_skips(&shop, &docs).await;
    shop.db.execute("DELETE FROM rowdelta.mapping").await;
    compares_then_skips(&shop, &docs).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p35_adopting_writes_what_differs_and_nothing_else() {
    let (shop, docs) = filled(100).await;
    shop.db
        .execute(
            "TRUNCATE rowdelta.document, rowdelta.base, rowdelta.skip;
             UPDATE orders SET customer = 'x' WHERE number = 'N0010';
             DELETE FROM tag WHERE order_id = (SELECT id FROM orders WHERE number = 'N0020') AND word IS NULL;
             INSERT INTO serial SELECT id, 'theirs' FROM line ORDER BY id LIMIT 1",
        )
        .await;
    shop.written().await;
    shop.run(&docs).await.succeeded();
    shop.state.check().await.unwrap();
    assert_eq!(shop.written().await, edits(&[("orders", 0, 1, 0), ("tag", 1, 0, 0), ("serial", 0, 0, 1)]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p36_a_root_row_deleted_by_hand_comes_back_with_all_below_it() {
    let (shop, docs) = filled(50).await;
    shop.db
        .execute(
            "CREATE TEMP TABLE gone AS SELECT id FROM orders WHERE number = 'N0007';
             DELETE FROM serial WHERE line_id IN (SELECT id FROM line WHERE order_id IN (TABLE gone));
             DELETE FROM line WHERE order_id IN (TABLE gone);
             DELETE FROM page WHERE file_id IN (SELECT id FROM file WHERE order_id IN (TABLE gone));
             DELETE FROM file WHERE order_id IN (TABLE gone);
             DELETE FROM tag WHERE order_id IN (TABLE gone);
             DELETE FROM order_product WHERE order_id IN (TABLE gone);
             DELETE FROM orders WHERE id IN (TABLE gone)",
        )
        .await;
    shop.written().await;
    let ran = shop.run(&docs).await.succeeded();
    assert_eq!((ran.documents("new"), ran.documents("unchanged")), (1, 49));
    shop.state.check().await.unwrap();
    let rows = [
        ("orders", 1, 0, 0),
        ("line", 2, 0, 0),
        ("serial", 2, 0, 0),
        ("file", 1, 0, 0),
        ("page", 1, 0, 0),
        ("tag", 3, 0, 0),
        ("order_product", 2, 0, 0),
    ];
    assert_eq!(shop.written().await, edits(&rows));
    compares_then_skips(&shop, &docs).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p36_a_truncated_child_table_is_filled_again_and_nothing_else() {
    let (shop, docs) = filled(50).await;
    shop.db.execute("TRUNCATE tag").await;
    let ran = shop.run(&docs).await.succeeded();
    assert_eq!(shop.written().await, edits(&[("tag", 150, 0, 0)]));
    assert_eq!(ran.documents("changed"), 50);
    shop.state.check().await.unwrap();
    shop.db.execute("TRUNCATE line CASCADE").await;
    shop.run(&docs).await.succeeded();
    assert_eq!(shop.written().await, edits(&[("line", 100, 0, 0), ("serial", 100, 0, 0)]));
    shop.state.check().await.unwrap();
    compares_then_skips(&shop, &docs).await;
}

/// The server empties an unlogged table as it recovers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p36_an_unlogged_table_is_filled_again_after_a_crash() {
    let schema = ["tag", "page", "serial"].iter().fold(SCHEMA.to_owned(), |schema, table| {
        schema.replace(&format!("CREATE TABLE {table} "), &format!("CREATE UNLOGGED TABLE {table} "))
    });
    let mut shop = Shop::in_database(db_on(Options::durable()).await, &schema, MAPPING).await;
    let docs = orders(50);
    shop.sync(&docs).await;
    shop.db.kill();
    shop.restart().await;
    assert_eq!(shop.rows("SELECT (SELECT count(*) FROM tag), (SELECT count(*) FROM line)").await, ["0|100"]);
    shop.expect(&docs).await;
    shop.run(&docs).await.succeeded();
    assert_eq!(shop.written().await, edits(&[("page", 50, 0, 0), ("serial", 100, 0, 0), ("tag", 150, 0, 0)]));
    shop.state.check().await.unwrap();
    compares_then_skips(&shop, &docs).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p36_truncating_every_table_brings_all_rows_back() {
    let (shop, docs) = filled(50).await;
    shop.db.execute("TRUNCATE orders, product CASCADE").await;
    let ran = shop.run(&docs).await.succeeded();
    assert_eq!(ran.documents("new"), 50);
    shop.state.check().await.unwrap();
    shop.written().await;
    compares_then_skips(&shop, &docs).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p36_a_table_below_a_truncated_one_is_filled_again() {
    let (shop, docs) = filled(20).await;
    shop.db.execute("TRUNCATE serial").await;
    shop.run(&docs).await.succeeded();
    assert_eq!(shop.written().await, edits(&[("serial", 40, 0, 0)]));
    shop.state.check().await.unwrap();
}

/// Widening types changes no value: rows are compared, and only the fingerprints are renewed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p33_wider_types_cost_a_comparison_and_no_write() {
    let (mut shop, docs) = filled(60).await;
    shop.db
        .execute(
            "ALTER TABLE orders ALTER total TYPE numeric(12,3), ALTER customer TYPE varchar(20);
             ALTER TABLE line ALTER label TYPE varchar(40), ALTER qty TYPE bigint",
        )
        .await;
    shop.remap(MAPPING).await;
    shop.expect(&docs).await;
    compares_then_skips(&shop, &docs).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p33_after_a_change_of_scale_the_rows_that_differ_are_written_and_no_others() {
    let mut shop = Shop::open().await;
    let total =
        |number: &str, total: &str| json!({ "number": number, "total": total, "lines": [{ "no": 1 }] });
    let docs = [total("A", "1.234"), total("B", "1.2"), total("C", "1.230"), total("D", "0.005")];
    shop.sync(&docs).await;
    assert_eq!(shop.rows("SELECT total FROM orders ORDER BY number").await, ["1.23", "1.20", "1.23", "0.01"]);
    shop.db.execute("ALTER TABLE orders ALTER total TYPE numeric(12,3)").await;
    shop.remap(MAPPING).await;
    shop.expect(&docs).await;
    let ran = shop.run(&docs).await.succeeded();
    assert_eq!(shop.written().await, edits(&[("orders", 0, 2, 0)]), "A and D have a third decimal");
    assert_eq!((ran.documents("changed"), ran.documents("unchanged")), (2, 2));
    shop.state.check().await.unwrap();
    compares_then_skips(&shop, &docs).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p33_a_column_added_to_the_mapping_costs_the_rows_that_have_a_value() {
    let less = MAPPING.replace("units = \"units\"\n", "");
    let mut shop = Shop::with(SCHEMA, &less).await;
    let mut docs = orders(40);
    docs[3]["units"] = Value::Null;
    shop.sync(&docs).await;
    shop.remap(MAPPING).await;
    shop.expect(&docs).await;
    let ran = shop.run(&docs).await.succeeded();
    assert_eq!(shop.written().await, edits(&[("orders", 0, 39, 0)]));
    assert_eq!((ran.documents("changed"), ran.documents("unchanged")), (39, 1));
    shop.state.check().await.unwrap();
    compares_then_skips(&shop, &docs).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p33_a_relation_added_to_the_mapping_costs_its_own_rows_and_one_taken_out_none() {
    let tags = MAPPING.find("[[root.children]]\nname = \"tags\"").unwrap();
    let links = MAPPING.find("[[root.links]]").unwrap();
    let less = format!("{}{}", &MAPPING[..tags], &MAPPING[links..]);
    let mut shop = Shop::with(SCHEMA, &less).await;
    let docs = orders(40);
    shop.sync(&docs).await;
    shop.remap(MAPPING).await;
    shop.expect(&docs).await;
    shop.run(&docs).await.succeeded();
    assert_eq!(shop.written().await, edits(&[("tag", 120, 0, 0)]));
    shop.state.check().await.unwrap();
    compares_then_skips(&shop, &docs).await;
    shop.remap(&less).await;
    shop.run(&docs).await.succeeded();
    assert_eq!(shop.written().await, Edits::new());
    assert_eq!(shop.rows("SELECT count(*) FROM tag").await, ["120"]);
}

/// The client dies in the middle, at another place each time, and once more in the run after it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p26_after_a_kill_the_next_run_ends_as_if_nothing_had_happened() {
    let shop = Shop::open().await;
    let docs = orders(6000);
    let feed = shop.scratch.write("feed.ndjson", ndjson(&docs));
    let mut interrupted = 0;
    for delay in [60, 120, 250, 400] {
        let mut child = command::start_sync(shop.db.url(), &shop.mapping, &feed);
        tokio::time::sleep(Duration::from_millis(delay)).await;
        interrupted += usize::from(child.try_wait().unwrap().is_none());
        child.kill().unwrap(); // SIGKILL
        child.wait().unwrap();
        let stored = shop.db.value("SELECT count(*) FROM orders").await;
        println!("killed after {delay} ms: {stored} documents are in");
        expire_lease(&shop).await;
        assert_whole(&shop).await;
    }
    assert!(interrupted > 0, "every run had ended before it was killed");
    shop.expect(&docs).await;
    shop.run_file(&feed, &[]).await.succeeded();
    shop.state.check().await.unwrap();
    shop.written().await;
    compares_then_skips(&shop, &docs).await;
    assert_eq!(shop.rows("SELECT count(*) FROM rowdelta.state WHERE settled").await, ["6000"]);
}

/// Instead of waiting for the minute that a dead run's lease lasts.
async fn expire_lease(shop: &Shop) {
    shop.db.execute("UPDATE rowdelta.mapping SET lease_until = clock_timestamp()").await;
}

/// Every document is all or nothing, with what is recorded of it.
async fn assert_whole(shop: &Shop) {
    // A transaction of the dead client may still be in the middle of its COMMIT.
    let others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'rowdelta'";
    while shop.db.value(others).await != "0" {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let counts = "SELECT count(*), (SELECT count(*) FROM line) / 2, (SELECT count(*) FROM serial) / 2,
            (SELECT count(*) FROM file), (SELECT count(*) FROM page), (SELECT count(*) FROM tag) / 3,
            (SELECT count(*) FROM order_product) / 2, (SELECT count(*) FROM rowdelta.state) FROM orders";
    let counts = shop.rows(counts).await.remove(0);
    let parts: Vec<&str> = counts.split('|').collect();
    assert!(parts.iter().all(|part| *part == parts[0]), "{counts}");
}
