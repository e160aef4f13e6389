//! What is deleted, and what is not: documents missing from a feed, and the limits on how much may go.

use serde_json::{Value, json};

use crate::shop::{MAPPING, SCHEMA, Shop, failures};
use crate::support::command::{self, Ran};

fn order(n: usize) -> Value {
    json!({ "number": format!("N{n:04}"), "customer": "c", "lines": [{ "no": 1, "serials": ["a"] }, { "no": 2 }],
        "files": [{ "id": n, "name": "f", "pages": [{ "no": 1 }] }], "tags": ["t"], "products": ["p"] })
}

fn orders(range: std::ops::Range<usize>) -> Vec<Value> {
    range.map(order).collect()
}

/// A table that nobody maps, whose rows go with the orders, and one below it whose rows go with those.
const ATTACHMENTS: &str = "
    CREATE TABLE attachment (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, order_id bigint REFERENCES orders ON DELETE CASCADE,
        copy_of int REFERENCES attachment ON DELETE CASCADE);
    CREATE TABLE scan (attachment_id int REFERENCES attachment ON DELETE CASCADE);
    CREATE INDEX ON attachment (order_id); CREATE INDEX ON attachment (copy_of); CREATE INDEX ON scan (attachment_id);";

impl Shop {
    /// A complete feed that must succeed; compares the tables and the rows written with the oracle's.
    async fn sync_complete(&self, docs: &[Value], more: &[&str]) -> Ran {
        self.expect(docs).await;
        self.state.only_the_last_feed().await.unwrap();
        let ran = self.run_with(docs, &[&["--complete"], more].concat()).await.succeeded();
        self.check(&ran).await;
        ran
    }

    /// A run that must withhold, and write nothing.
    async fn withholds(&self, docs: &[Value], more: &[&str], withheld: u64, because: &str) -> Ran {
        let ran = self.run_with(docs, more).await;
        assert_eq!(ran.code, 3, "{}\n{:#}", ran.stderr, ran.report);
        assert_eq!(ran.report["status"], "withheld");
        assert_eq!(ran.documents("withheld"), withheld, "{:#}", ran.report);
        let reason = ran.report["withheld_because"].as_str().unwrap();
        assert!(reason.contains(because), "{reason}");
        assert!(ran.stderr.contains(reason), "{}", ran.stderr);
        self.state.check().await.unwrap();
        assert_eq!(self.written().await.values().map(|edit| edit.deleted).sum::<u64>(), 0);
        ran
    }

    async fn count(&self, table: &str) -> String {
        self.db.value(&format!("SELECT count(*) FROM {table}")).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p31_a_missing_document_goes_only_from_a_complete_feed() {
    let shop = Shop::open().await;
    shop.sync_complete(&orders(0..20), &[]).await;
    shop.sync(&orders(0..15)).await;
    assert_eq!(shop.count("orders").await, "20", "nobody said that the feed is complete");
    let ran = shop.sync_complete(&orders(0..15), &[]).await;
    assert_eq!((ran.documents("absent"), ran.documents("removed")), (5, 5));
    assert_eq!(ran.report["complete"], true);
    let ran = shop.sync_complete(&orders(0..15), &[]).await;
    assert_eq!((ran.documents("absent"), ran.rows_written()), (0, 0));
    let ran = shop.sync_complete(&orders(0..20), &[]).await;
    assert_eq!(ran.documents("new"), 5, "they are back");
    // Rows that no run has recorded are somebody else's.
    shop.db.execute("INSERT INTO orders (number) VALUES ('theirs')").await;
    shop.run_with(&orders(0..20), &["--complete"]).await.succeeded();
    assert_eq!(shop.count("orders WHERE number = 'theirs'").await, "1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p31_several_files_are_one_feed() {
    let shop = Shop::open().await;
    shop.sync_complete(&orders(0..20), &[]).await;
    let part = |name: &str, docs: &[Value]| shop.scratch.write(name, crate::shop::ndjson(docs));
    std::fs::create_dir(shop.scratch.path("parts")).unwrap();
    part("parts/1.ndjson", &orders(0..8));
    let second = part("parts/2.ndjson", &orders(8..20));
    let ran = shop.run_file(second.parent().unwrap(), &["--complete"]).await.succeeded();
    assert_eq!((ran.documents("unchanged"), ran.documents("absent")), (20, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p31_a_missing_document_is_marked_or_kept_as_the_mapping_says() {
    let schema = format!("{SCHEMA} ALTER TABLE orders ADD gone timestamptz");
    let root = "[root]\ntable = \"orders\"";
    let marks = MAPPING.replace(root, &format!("{root}\non_absent = \"mark\""))
        + "\n[sync]\nmark_absent = \"gone\"\n";
    let mut shop = Shop::with(&schema, &marks).await;
    shop.sync(&orders(0..10)).await;
    let ran = shop.run_with(&orders(0..8), &["--complete"]).await.succeeded();
    assert_eq!((ran.documents("absent"), ran.documents("removed"), &ran.report["marks"]), (2, 0, &json!(2)));
    shop.state.check().await.unwrap();
    let gone = "SELECT number FROM orders WHERE gone IS NOT NULL ORDER BY 1";
    assert_eq!(shop.rows(gone).await, ["N0008", "N0009"]);
    shop.written().await;
    let ran = shop.run_with(&orders(0..8), &["--complete"]).await.succeeded();
    assert_eq!(ran.documents("absent"), 0, "they are known to be gone");
    assert!(shop.written().await.is_empty());
    // Back with the same bytes: the mark goes, and nothing else is written.
    let ran = shop.run_with(&orders(0..9), &["--complete"]).await.succeeded();
    assert_eq!((ran.documents("unchanged"), ran.rows_written()), (9, 0), "{:#}", ran.report);
    assert_eq!(shop.rows(gone).await, ["N0009"]);
    assert_eq!(shop.written().await, crate::shop::edits(&[("orders", 0, 1, 0)]));
    shop.remap(&MAPPING.replace(root, &format!("{root}\non_absent = \"keep\""))).await;
    let ran = shop.run_with(&orders(0..7), &["--complete"]).await.succeeded();
    assert_eq!((ran.documents("absent"), ran.documents("removed")), (2, 0));
    assert!(shop.written().await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p32_a_feed_that_may_not_be_complete_sweeps_nothing() {
    let shop = Shop::open().await;
    shop.sync_complete(&orders(0..20), &[]).await;
    shop.withholds(&[], &["--complete"], 20, "the feed is empty").await;
    shop.withholds(&[], &["--complete", "--expect", "0"], 20, "the feed is empty").await;
    let few = "the feed has 9 documents; the last complete one had 20, of which it must have half: if the feed is whole, \
               --expect 9";
    // Also the second time: a feed that was not taken for complete is not what the next one is compared with.
    for _ in 0..2 {
        shop.withholds(&orders(0..9), &["--complete"], 11, few).await;
    }
    let expected = "the feed has 19 documents; at least 20 were expected";
    shop.withholds(&orders(0..19), &["--complete", "--expect", "20"], 1, expected).await;
    let ran = shop.sync_complete(&orders(0..9), &["--expect", "9"]).await;
    assert_eq!(ran.documents("removed"), 11);
    let ran = shop.run_with(&orders(0..9), &["--expect", "9"]).await;
    assert_eq!(ran.code, 2, "--expect says nothing of a feed that is not complete");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p32_a_torn_feed_sweeps_nothing() {
    let shop = Shop::open().await;
    shop.sync_complete(&orders(0..2_000), &[]).await;
    let feed = shop.scratch.write("whole.ndjson", crate::shop::ndjson(&orders(0..2_000)));
    let packed = std::process::Command::new("gzip").arg("-kf").arg(&feed).status().unwrap();
    assert!(packed.success());
    let mut bytes = std::fs::read(feed.with_extension("ndjson.gz")).unwrap();
    bytes.truncate(bytes.len() - 100);
    let torn = feed.with_file_name("torn.ndjson.gz");
    std::fs::write(&torn, bytes).unwrap();
    let ran = shop.run_file(&torn, &["--complete"]).await;
    assert_eq!(ran.code, 2, "{}", ran.stderr);
    assert_eq!((ran.documents("removed"), &ran.report["status"]), (0, &json!("aborted")));
    assert_eq!(shop.count("orders").await, "2000");
    assert!(shop.written().await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p32_a_failed_document_counts_as_seen_if_its_key_can_be_read() {
    let shop = Shop::open().await;
    shop.sync_complete(&orders(0..20), &[]).await;
    let mut docs = orders(0..15);
    docs[3]["units"] = json!("many");
    docs[4]["lines"] = json!("none");
    let ran = shop.run_with(&docs, &["--complete"]).await;
    assert_eq!((ran.code, ran.documents("failed"), ran.documents("removed")), (1, 2, 5));
    assert_eq!(shop.count("orders").await, "15");
    docs[5] = json!({ "customer": "who?" });
    docs.truncate(10);
    let ran = shop.run_with(&docs, &["--complete"]).await;
    assert_eq!((ran.code, ran.documents("failed"), ran.documents("removed")), (1, 3, 0));
    assert_eq!(ran.documents("withheld"), 6, "the five at the end, and the nameless one: {:#}", ran.report);
    let reason = ran.report["withheld_because"].as_str().unwrap();
    assert!(reason.contains("not even the key"), "{reason}");
    assert_eq!(shop.count("orders").await, "15");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p32_past_a_limit_documents_with_removals_are_withheld_whole() {
    let shop = Shop::open().await;
    let (small, large) = (["--workers", "1", "--deletes-max", "100"], ["--allow-deletes", "2000"]);
    shop.sync(&orders(0..200)).await;
    // Every list is empty, as after a fault of the source; every second document changes, and one is new.
    let broken = |n: usize| {
        let mut order = json!({ "number": format!("N{n:04}"), "customer": "d", "lines": [], "files": [], "tags": [],
            "products": [] });
        if n.is_multiple_of(2) {
            order = self::order(n);
            order["customer"] = json!("d");
        }
        order
    };
    let docs: Vec<Value> = (0..201).map(broken).collect();
    let kept = |n: usize| if n.is_multiple_of(2) { broken(n) } else { order(n) };
    shop.expect(&(0..201).map(kept).collect::<Vec<_>>()).await;
    let ran =
        shop.withholds(&docs, &small, 100, "more than 100 rows would be deleted; look at the feed").await;
    assert_eq!((ran.documents("changed"), ran.documents("new")), (100, 1), "{:#}", ran.report);
    let withheld: Vec<&Value> =
        ran.report["relations"].as_array().unwrap().iter().map(|relation| &relation["withheld"]).collect();
    assert_eq!(withheld, [0, 200, 100, 100, 100, 100, 100, 0]);
    shop.withholds(
        &docs,
        &["--deletes-percent-max", "10"],
        100,
        "more than 10 % of the 402 rows of public.line ",
    )
    .await;
    shop.expect(&docs).await;
    let ran = shop.run_with(&docs, &large).await.succeeded();
    assert_eq!(ran.documents("withheld"), 0);
    shop.check(&ran).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p32_limits_are_cumulative_over_the_batches_of_a_run() {
    let shop = Shop::open().await;
    shop.sync(&orders(0..1_200)).await;
    let mut docs = orders(0..1_200);
    docs.iter_mut().for_each(|doc| doc["tags"] = json!([]));
    let ran = shop
        .run_with(&docs, &["--workers", "1", "--deletes-max", "600", "--deletes-percent-max", "100"])
        .await;
    assert_eq!(ran.code, 3, "{}", ran.stderr);
    let (left, withheld) = (shop.count("tag").await, ran.documents("withheld"));
    assert_eq!(left, withheld.to_string(), "what was withheld is there, what was not is gone");
    assert!((600..1_200).contains(&withheld), "at most 600 rows went: {withheld}");
    let ran = shop.run_with(&docs, &["--allow-deletes", "1200"]).await.succeeded();
    assert_eq!(ran.documents("unchanged") + withheld, 1_200);
    assert_eq!(shop.count("tag").await, "0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p32_the_limits_of_the_database_override_what_a_caller_allows() {
    let shop = Shop::open().await;
    shop.sync_complete(&orders(0..50), &[]).await;
    shop.db.execute("INSERT INTO rowdelta.guard (mapping, rows_max) VALUES ('shop', 20), ('other', 0)").await;
    shop.withholds(
        &orders(0..40),
        &["--complete", "--allow-deletes", "100000"],
        10,
        "20 rows would be deleted; that is the limit in rowdelta.guard",
    )
    .await;
    shop.db
        .execute("UPDATE rowdelta.guard SET rows_max = 1000, percent_max = 10 WHERE mapping = 'shop'")
        .await;
    shop.sync_complete(&orders(0..40), &["--allow-deletes", "100000"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p32_what_cascades_would_take_counts_in_tables_that_nobody_maps() {
    let shop = Shop::with(&format!("{SCHEMA}{ATTACHMENTS}"), MAPPING).await;
    shop.sync_complete(&orders(0..10), &[]).await;
    // Two attachments an order, a chain of three copies of each, a scan of each of these eight; other rows beside them.
    shop.db
        .execute(
            "INSERT INTO attachment (order_id) SELECT id FROM orders, generate_series(1, 2);
             INSERT INTO attachment (copy_of) SELECT id FROM attachment WHERE order_id IS NOT NULL;
             INSERT INTO attachment (copy_of) SELECT id FROM attachment WHERE copy_of IS NOT NULL;
             INSERT INTO attachment (copy_of) SELECT a.id FROM attachment a WHERE copy_of IS NOT NULL
                 AND NOT EXISTS (SELECT FROM attachment b WHERE b.copy_of = a.id);
             INSERT INTO scan SELECT id FROM attachment;
             INSERT INTO attachment SELECT FROM generate_series(1, 50); INSERT INTO scan SELECT NULL FROM generate_series(1, 50)",
        )
        .await;
    // A document has 8 rows of its own.
    let limit = |rows: &'static str| ["--complete", "--deletes-max", rows, "--expect", "1"];
    shop.withholds(&orders(0..9), &limit("23"), 1, "more than 23 rows would be deleted; ").await;
    assert_eq!(shop.count("attachment").await, "130");
    shop.sync_complete(&orders(0..9), &limit("24")[1..]).await;
    assert_eq!((shop.count("attachment").await, shop.count("scan").await), ("122".into(), "122".into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p32_a_cascade_that_cannot_be_counted_deletes_nothing() {
    let shop = Shop::with(&format!("{SCHEMA}{ATTACHMENTS}"), MAPPING).await;
    shop.sync_complete(&orders(0..3), &[]).await;
    shop.db.execute("INSERT INTO attachment (order_id) SELECT id FROM orders").await;
    let role = format!("clerk_of_{}", shop.db.value("SELECT current_database()").await);
    shop.db
        .execute(&format!(
            "CREATE ROLE {role} LOGIN; GRANT USAGE ON SCHEMA rowdelta TO {role};
             GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public, rowdelta TO {role};
             GRANT USAGE ON ALL SEQUENCES IN SCHEMA public, rowdelta TO {role};
             REVOKE ALL ON attachment FROM {role}"
        ))
        .await;
    let feed = shop.scratch.write("feed.ndjson", crate::shop::ndjson(&orders(0..2)));
    let url = shop.db.url().replacen("postgres@", &format!("{role}@"), 1);
    let mapping = shop.mapping.clone();
    let run = move || command::sync_with(&url, &mapping, &[&feed], &["--complete"]);
    let ran = tokio::task::spawn_blocking(run).await.unwrap();
    assert_ne!(ran.code, 0);
    assert!(ran.stderr.contains("GRANT SELECT"), "{}", ran.stderr);
    assert_eq!(shop.count("orders").await, "3");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p32_rows_that_move_are_not_deletions() {
    let shop = Shop::open().await;
    shop.sync(&orders(0..300)).await;
    // Every file goes one order on: a whole table moves.
    let mut docs = orders(0..300);
    for (n, doc) in docs.iter_mut().enumerate() {
        doc["files"][0]["id"] = json!((n + 1) % 300);
    }
    shop.expect(&docs).await;
    let ran = shop.run_with(&docs, &["--workers", "1", "--deletes-max", "0"]).await.succeeded();
    assert_eq!(ran.documents("withheld"), 0, "{:#}", ran.report);
    shop.check(&ran).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p32_a_missing_document_that_others_need_stays_and_is_named() {
    let shop = Shop::open().await;
    shop.sync_complete(&orders(0..10), &[]).await;
    shop.db
        .execute(
            "CREATE TABLE invoice (order_id bigint REFERENCES orders);
             INSERT INTO invoice SELECT id FROM orders WHERE number = 'N0009'",
        )
        .await;
    let ran = shop.run_with(&orders(0..8), &["--complete"]).await;
    assert_eq!((ran.code, ran.documents("removed")), (1, 1), "{:#}", ran.report);
    let message = "update or delete on table \"orders\" violates foreign key constraint \"invoice_order_id_fkey\" on \
                   table \"invoice\" (23503)";
    assert_eq!(failures(&ran), [format!(":0 [N0009] shop: {message}")]);
    shop.db.execute("DROP TABLE invoice").await;
    let ran = shop.run_with(&orders(0..8), &["--complete"]).await.succeeded();
    assert_eq!(ran.documents("removed"), 1);
    shop.expect(&orders(0..8)).await;
    shop.state.only_the_last_feed().await.unwrap();
    shop.state.check().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p32_a_child_that_a_failed_document_asks_for_keeps_its_missing_document() {
    let shop = Shop::open().await;
    shop.sync_complete(&orders(0..10), &[]).await;
    // N0001 takes the file of N0009, which is missing, but fails.
    let mut docs = orders(0..9);
    docs[1]["files"] = json!([{ "id": 9, "name": "f", "pages": [{ "no": 1 }] }]);
    let id = shop.db.value("SELECT id FROM file WHERE official = 9").await;
    shop.db.execute("ALTER TABLE line ADD CHECK (no < 100)").await;
    docs[1]["lines"] = json!([{ "no": 100 }]);
    let ran = shop.run_with(&docs, &["--complete"]).await;
    assert_eq!((ran.code, ran.documents("removed")), (1, 0), "{:#}", ran.report);
    docs[1]["lines"] = json!([{ "no": 99 }]);
    shop.run_with(&docs, &["--complete"]).await.succeeded();
    let file = "SELECT f.id, number FROM file f JOIN orders o ON o.id = order_id WHERE official = 9";
    assert_eq!(shop.rows(file).await, [format!("{id}|N0001")]);
    assert_eq!(shop.count("orders").await, "9");
}
