//! `atomic = "relation"`: the good relations of a document are stored, the bad ones named, and the next run does what is
//! left.

use std::time::Duration;

use serde_json::{Value, json};

use crate::oracle::Edits;
use crate::shop::{BY_RELATION, MAPPING, SCHEMA, Shop, edits, failures};

/// Lines with fewer than none of something, and tags that shout, are refused.
const CHECKS: &str = "ALTER TABLE line ADD CONSTRAINT qty CHECK (qty >= 0);
                      ALTER TABLE tag ADD CONSTRAINT quiet CHECK (word = lower(word));";

async fn shop() -> Shop {
    Shop::with(SCHEMA, &format!("{MAPPING}{BY_RELATION}")).await
}

fn order(number: &str, qty: i32, word: &str) -> Value {
    let serial = format!("{number}-s");
    json!({ "number": number, "units": 1, "lines": [{ "no": 1, "qty": qty, "serials": [serial] }],
            "files": [{ "id": number[1..].parse::<i32>().unwrap(), "name": "f", "pages": [{ "no": 1, "body": "b" }] }],
            "tags": [word], "products": ["p"] })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p24_p25_good_relations_stay_bad_ones_are_named_and_the_next_run_does_what_is_left() {
    let shop = shop().await;
    shop.db.execute(CHECKS).await;
    let mut docs = vec![order("N1", 1, "a"), order("N2", -1, "A"), order("N3", 3, "C"), order("N4", 4, "d")];
    let ran = shop.run(&docs).await;
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    let quiet = "new row for relation \"tag\" violates check constraint \"quiet\" (23514)";
    let found = failures(&ran);
    assert_eq!(found.len(), 3, "{found:#?}");
    assert!(found[0].starts_with("feed.ndjson:2 [N2] lines: ") && found[0].contains("\"qty\""), "{found:#?}");
    assert_eq!(
        found[1..],
        [format!("feed.ndjson:2 [N2] tags: {quiet}"), format!("feed.ndjson:3 [N3] tags: {quiet}")]
    );
    assert_eq!((ran.documents("new"), ran.documents("failed")), (2, 2), "{:#}", ran.report);
    let stored = edits(&[
        ("file", 4, 0, 0),
        ("line", 3, 0, 0),
        ("order_product", 4, 0, 0),
        ("orders", 4, 0, 0),
        ("page", 4, 0, 0),
        ("product", 1, 0, 0),
        ("serial", 3, 0, 0),
        ("tag", 2, 0, 0),
    ]);
    assert_eq!(shop.written().await, stored);
    assert_eq!(shop.unsettled().await, "2");

    let again = shop.run(&docs).await;
    assert_eq!((again.code, failures(&again)), (1, found));
    assert_eq!(shop.written().await, Edits::new(), "what is in is not written again");

    docs[1] = order("N2", 2, "b");
    docs[2] = order("N3", 3, "c");
    shop.expect(&docs).await;
    shop.run(&docs).await.succeeded();
    shop.state.check().await.unwrap();
    assert_eq!(shop.written().await, edits(&[("line", 1, 0, 0), ("serial", 1, 0, 0), ("tag", 2, 0, 0)]));
    assert_eq!(shop.unsettled().await, "0");
    shop.sync(&docs).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p24_a_root_that_is_refused_keeps_its_relations_out() {
    let shop = shop().await;
    shop.db.execute("ALTER TABLE orders ADD CONSTRAINT any_units CHECK (units > 0)").await;
    let mut docs = vec![order("N1", 1, "a"), order("N2", 2, "b")];
    docs[1]["units"] = json!(0);
    let ran = shop.run(&docs).await;
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    assert_eq!(failures(&ran).len(), 1, "{:#?}", failures(&ran));
    shop.expect(&docs[..1]).await;
    shop.state.check().await.unwrap();
    // A stored one keeps what it had.
    let before = shop.rows("SELECT * FROM line ORDER BY id").await;
    docs[0]["units"] = json!(-1);
    docs[0]["lines"][0]["qty"] = json!(7);
    assert_eq!(shop.run(&docs).await.code, 1);
    assert_eq!(shop.rows("SELECT * FROM line ORDER BY id").await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p24_p25_relations_that_others_hold_wait_alone() {
    let shop = shop().await;
    let mut docs = vec![order("N1", 1, "a"), order("N2", 2, "b")];
    shop.sync(&docs).await;
    for doc in &mut docs {
        doc["units"] = json!(9);
        doc["lines"][0]["qty"] = json!(9);
        doc["files"][0]["name"] = json!("g");
    }
    let holder = shop.db.client().await;
    holder.batch_execute("BEGIN; SELECT FROM line ORDER BY id LIMIT 1 FOR UPDATE").await.unwrap();
    let ran = shop.run_with(&docs, &["--lock-timeout", "50", "--retries", "1"]).await;
    assert_eq!(ran.code, 6, "{}", ran.stderr);
    let found = failures(&ran);
    assert_eq!(found.len(), 1, "{found:#?}");
    assert!(
        found[0].starts_with("feed.ndjson:1 [N1] lines: ") && found[0].ends_with("(55P03) retryable"),
        "{found:#?}"
    );
    assert_eq!(shop.written().await, edits(&[("file", 0, 2, 0), ("line", 0, 1, 0), ("orders", 0, 2, 0)]));
    holder.batch_execute("ROLLBACK").await.unwrap();
    shop.expect(&docs).await;
    shop.run(&docs).await.succeeded();
    shop.state.check().await.unwrap();
    assert_eq!(shop.written().await, edits(&[("line", 0, 1, 0)]));
    shop.sync(&docs).await;
}

/// The trigger of the lines waits for a lock while it is seen that the files are committed already.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p24_relations_are_stored_side_by_side_after_the_root() {
    let shop = shop().await;
    shop.db
        .execute(
            "CREATE FUNCTION waits() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 PERFORM pg_advisory_xact_lock(1); RETURN NEW;
             END $$;
             CREATE TRIGGER waits BEFORE INSERT ON line FOR EACH ROW EXECUTE FUNCTION waits();",
        )
        .await;
    let holder = shop.db.client().await;
    holder.batch_execute("SELECT pg_advisory_lock(1)").await.unwrap();
    let docs = [order("N1", 1, "a")];
    shop.expect(&docs).await;
    let look = async {
        let counts = "SELECT (SELECT count(*) FROM orders), (SELECT count(*) FROM order_product), (SELECT count(*) FROM file),
                             (SELECT count(*) FROM tag), (SELECT count(*) FROM line),
                             (SELECT count(*) FILTER (WHERE settled) FROM rowdelta.state)";
        while shop.rows(counts).await != ["1|1|1|1|0|0"] {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        holder.batch_execute("SELECT pg_advisory_unlock(1)").await.unwrap();
    };
    let (ran, ()) = tokio::join!(shop.run(&docs), look);
    ran.succeeded();
    shop.state.check().await.unwrap();
    assert_eq!(shop.unsettled().await, "0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p24_p26_the_root_is_marked_when_all_relations_are_stored() {
    let mut shop = shop().await;
    shop.db.execute(CHECKS).await;
    shop.db.execute("ALTER TABLE orders ADD hash text, ADD synced timestamptz").await;
    shop.remap(&format!("{MAPPING}{BY_RELATION}mark_hash = \"hash\"\nmark_time = \"synced\"\n")).await;
    let marked = "SELECT number, hash IS NOT NULL, synced IS NOT NULL FROM orders ORDER BY number";
    let mut docs = vec![order("N1", 1, "a"), order("N2", -1, "b")];
    assert_eq!(shop.run(&docs).await.code, 1);
    assert_eq!(shop.rows(marked).await, ["N1|t|t", "N2|f|f"]);
    docs[1] = order("N2", 1, "b");
    let ran = shop.run(&docs).await.succeeded();
    assert_eq!(ran.report["marks"], 1, "{:#}", ran.report);
    assert_eq!(shop.rows(marked).await, ["N1|t|t", "N2|t|t"]);
    // What is stored of a failed document leaves the mark of its last whole state.
    let hashes = "SELECT hash FROM orders ORDER BY number";
    let before = shop.rows(hashes).await;
    docs[0] = order("N1", -1, "c");
    assert_eq!(shop.run(&docs).await.code, 1);
    assert_eq!(shop.rows(hashes).await, before);
    docs[0] = order("N1", 2, "c");
    shop.run(&docs).await.succeeded();
    let after = shop.rows(hashes).await;
    assert!(after[0] != before[0] && after[1] == before[1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p22_p24_marks_that_cannot_wait_are_a_fault() {
    let shop = shop().await;
    shop.db
        .execute("ALTER TABLE orders ADD hash text NOT NULL, ADD synced timestamptz NOT NULL DEFAULT now()")
        .await;
    let marks = "mark_hash = \"hash\"\nmark_time = \"synced\"\n";
    let mapping = shop.scratch.write("marks.toml", format!("{MAPPING}{BY_RELATION}{marks}"));
    let feed = shop.scratch.write("feed.ndjson", "");
    let ran = crate::support::command::sync_with(&shop.url, &mapping, &[&feed], &[]);
    assert_eq!(ran.code, 2, "{}", ran.stderr);
    let fault = "sync.mark_hash: column \"hash\" must accept NULL or have a default";
    assert!(ran.stderr.contains(fault) && !ran.stderr.contains("mark_time"), "{}", ran.stderr);
}

/// Files pass between documents while lines of both are refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p17_p24_rows_move_between_documents_of_which_other_relations_fail() {
    let shop = shop().await;
    shop.db.execute(CHECKS).await;
    let mut docs = vec![order("N1", 1, "a"), order("N2", 2, "b"), order("N3", 3, "c")];
    shop.sync(&docs).await;
    let ids = "SELECT official, id, order_id FROM file ORDER BY official";
    let before = shop.rows(ids).await;
    let files = [docs[0]["files"].clone(), docs[1]["files"].clone()];
    docs[0]["files"] = files[1].clone();
    docs[1]["files"] = files[0].clone();
    docs[0]["lines"][0]["qty"] = json!(-1);
    docs[1]["lines"][0]["qty"] = json!(-1);
    for batch in ["1", "500"] {
        let ran = shop.run_with(&docs, &["--batch", batch, "--allow-deletes", "100"]).await;
        assert_eq!(ran.code, 1, "{}", ran.stderr);
        assert_eq!(failures(&ran).len(), 2, "{:#?}", failures(&ran));
    }
    assert_eq!(shop.rows("SELECT count(*), min(qty) FROM line").await, ["3|1"]);
    assert_eq!(shop.written().await, edits(&[("file", 0, 2, 0)]));
    let after = shop.rows(ids).await;
    assert_eq!(after.len(), 3);
    assert!(
        after != before && after.iter().zip(&before).all(|(a, b)| a.split('|').nth(1) == b.split('|').nth(1))
    );
    docs[0]["lines"][0]["qty"] = json!(5);
    docs[1]["lines"][0]["qty"] = json!(5);
    shop.expect(&docs).await;
    shop.run(&docs).await.succeeded();
    shop.state.check().await.unwrap();
    assert_eq!(shop.written().await, edits(&[("line", 0, 2, 0)]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p24_p32_past_a_limit_the_relation_with_removals_is_withheld() {
    let shop = shop().await;
    let mut docs = vec![order("N1", 1, "a"), order("N2", 2, "b")];
    shop.sync(&docs).await;
    docs[0]["units"] = json!(9);
    docs[0]["tags"] = json!(["c", "d"]);
    docs[0]["lines"] = json!([]);
    let ran = shop.run_with(&docs, &["--deletes-max", "0"]).await;
    assert_eq!((ran.code, ran.documents("withheld")), (3, 1), "{}", ran.stderr);
    // The tags that change are rows without a key: one of them goes.
    assert_eq!(shop.written().await, edits(&[("orders", 0, 1, 0)]));
    docs[0]["tags"] = json!(["a", "d"]);
    let ran = shop.run_with(&docs, &["--deletes-max", "0"]).await;
    assert_eq!((ran.code, ran.documents("withheld")), (3, 1), "{}", ran.stderr);
    assert_eq!(shop.written().await, edits(&[("tag", 1, 0, 0)]));
    assert_eq!(shop.unsettled().await, "1");
    shop.expect(&docs).await;
    shop.run(&docs).await.succeeded();
    shop.state.check().await.unwrap();
    assert_eq!(shop.written().await, edits(&[("line", 0, 0, 1), ("serial", 0, 0, 1)]));
}
