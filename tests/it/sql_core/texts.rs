//! Documents given as text (`sync_texts`): a text that is as it was is not read, and every other one is.

use serde_json::{Value, json};

use super::{Sql, failed, many, open};
use crate::oracle::Edits;
use crate::shop::{Shop, edits};

fn order(number: &str, units: u32) -> Value {
    json!({ "number": number, "units": units, "lines": [{ "no": 1, "serials": ["s"] }], "files": [], "tags": ["t"], "products": ["p"] })
}

fn texts(docs: &[Value]) -> Vec<String> {
    docs.iter().map(Value::to_string).collect()
}

/// Syncs documents that must succeed by `sync_texts`. Gives what that wrote.
async fn sync(shop: &Shop, sql: &Sql, docs: &[Value]) -> Edits {
    shop.written().await;
    let ran = sql.texts(&texts(docs)).await;
    assert_eq!(ran.report["status"], "done", "{:#}", ran.report);
    shop.written().await
}

/// How often a call shreds documents: "0" where it reads none. Taken back.
async fn shredded(sql: &Sql, docs: &[String]) -> String {
    sql.execute("BEGIN; SET LOCAL track_functions = 'all'").await.unwrap();
    sql.texts(docs).await;
    let calls = sql
        .call("SELECT coalesce(max(calls), 0)::text FROM pg_stat_xact_user_functions WHERE funcname = 'shredded'", &[])
        .await
        .unwrap();
    sql.execute("ROLLBACK").await.unwrap();
    calls
}

/// What is known of texts, and how much of it counts.
const KNOWN: &str = "SELECT count(*), count(s.raw) FROM rowdelta.spelling t LEFT JOIN rowdelta.state s ON s.key = t.key AND s.raw = t.hash";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p01_a_text_that_is_as_it_was_is_not_read_and_one_that_differs_is() {
    let (shop, sql) = open().await;
    let docs = [order("A", 1), order("B", 1), order("C", 1)];
    sync(&shop, &sql, &docs).await;
    assert_eq!(shop.rows(KNOWN).await, ["3|3"]);
    assert_eq!(shredded(&sql, &texts(&docs)).await, "0");
    let again = sql.texts(&texts(&docs)).await;
    assert_eq!((again.rows_written(), again.documents("unchanged")), (0, 3));
    assert_eq!(
        sync(&shop, &sql, &[order("A", 1), order("B", 2), order("C", 1)]).await,
        edits(&[("orders", 0, 1, 0)])
    );
    assert_eq!(shop.rows(KNOWN).await, ["3|3"], "the old text is forgotten");
    // The very text of before, and it is another one now.
    assert_eq!(sync(&shop, &sql, &docs).await, edits(&[("orders", 0, 1, 0)]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p33_a_text_counts_no_longer_once_somebody_else_stored_the_document() {
    let (shop, sql) = open().await;
    let docs = [order("A", 1)];
    for round in 2..4 {
        sync(&shop, &sql, &docs).await;
        shop.run(&[order("A", round)]).await.succeeded();
        assert_eq!(sync(&shop, &sql, &docs).await, edits(&[("orders", 0, 1, 0)]), "after the command");
        many(&sql, &[order("A", round)]).await;
        assert_eq!(sync(&shop, &sql, &docs).await, edits(&[("orders", 0, 1, 0)]), "after sync_many");
    }
    // The command left its own hash, which stays while the rows do.
    shop.run(&docs).await.succeeded();
    assert_eq!(sync(&shop, &sql, &docs).await, Edits::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p04_another_spelling_is_learnt_once_and_a_feed_that_always_respells_writes_nothing() {
    let (shop, sql) = open().await;
    let spelled = |spaces: usize| [order("A", 1).to_string() + &" ".repeat(spaces)];
    sql.texts(&spelled(0)).await;
    shop.written().await;
    let state = "SELECT xmin::text FROM rowdelta.document UNION ALL SELECT xmin::text FROM rowdelta.spelling";
    for spaces in [1, 2] {
        let ran = sql.texts(&spelled(spaces)).await;
        assert_eq!((ran.rows_written(), ran.documents("unchanged")), (0, 1));
    }
    assert_eq!(shredded(&sql, &spelled(1)).await, "0", "the first one was learnt");
    let before = shop.rows(state).await;
    sql.texts(&spelled(3)).await;
    assert_eq!(shop.rows(state).await, before);
    assert_eq!(shop.rows(KNOWN).await, ["1|1"]);
    assert_eq!(shop.written().await, Edits::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p25_a_text_that_is_no_json_fails_by_itself() {
    let (shop, sql) = open().await;
    let mut docs = texts(&[order("A", 1), order("B", 1)]);
    docs.insert(1, r#"{"number": "X", "#.to_owned());
    docs.extend([
        "[]".to_owned(),
        r#"{"number": "Y", "note": "\u0000"}"#.to_owned(),
        order("A", 2).to_string(),
    ]);
    for round in 0..2 {
        let ran = sql.texts(&docs).await;
        assert_eq!(ran.documents(["new", "unchanged"][round]), 2, "{:#}", ran.report);
        assert_eq!(failed(&ran), ["- - -", "- shop -", "- - -", "A - -"], "{:#}", ran.report);
        let items: Vec<u64> = ran.report["failures"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["item"].as_u64().unwrap())
            .collect();
        assert_eq!(items, [2, 4, 5, 6]);
    }
    let none = sql.call("SELECT rowdelta.sync_texts('shop', ARRAY[NULL]) ->> 'status'", &[]).await.unwrap();
    assert_eq!(none, "failed", "a text that is NULL is no document");
    let empty = sql.call("SELECT rowdelta.sync_texts('shop', '{}') ->> 'status'", &[]).await.unwrap();
    assert_eq!(empty, "done");
    assert_eq!(
        sql.call("SELECT rowdelta.sync_texts('shop', NULL)::text", &[]).await.unwrap_err().code,
        "RD006"
    );
    assert_eq!(shop.rows("SELECT number || units FROM orders ORDER BY 1").await, ["A1", "B1"]);
}

/// Of two versions in one call the first counts, whether or not one of them is known.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p09_of_a_document_that_stands_twice_the_first_counts_though_the_other_one_is_known() {
    let (shop, sql) = open().await;
    sync(&shop, &sql, &[order("A", 1)]).await;
    let known_first = sql.texts(&texts(&[order("A", 1), order("A", 2), order("A", 1)])).await;
    assert_eq!(failed(&known_first), ["A - -"]);
    assert_eq!((known_first.documents("unchanged"), known_first.documents("repeated")), (1, 1));
    let other_first = sql.texts(&texts(&[order("A", 2), order("A", 1)])).await;
    assert_eq!((failed(&other_first), other_first.documents("changed")), (vec!["A - -".to_owned()], 1));
    assert_eq!(shop.rows("SELECT units FROM orders").await, ["2"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p30_a_document_that_was_removed_or_lost_rows_is_read_again() {
    let (shop, sql) = open().await;
    let docs = [order("A", 1), order("B", 1)];
    sync(&shop, &sql, &docs).await;
    sql.execute("SELECT rowdelta.remove('shop', '\"A\"')").await.unwrap();
    assert_eq!(shop.rows(KNOWN).await, ["1|1"]);
    assert_eq!(sql.texts(&texts(&docs)).await.documents("new"), 1);
    sql.execute("SELECT rowdelta.sweep('shop', '[\"A\"]', 1, 100, 100)").await.unwrap();
    assert_eq!(shop.rows(KNOWN).await, ["1|1"]);
    assert_eq!(sql.texts(&texts(&docs)).await.documents("new"), 1);
    // By somebody else.
    shop.db.execute("TRUNCATE tag").await;
    assert_eq!(sql.texts(&texts(&docs)).await.documents("changed"), 2);
    shop.db.execute("TRUNCATE orders CASCADE").await;
    assert_eq!(sql.texts(&texts(&docs)).await.documents("new"), 2);
    // A column has another type: what is known of the texts is not of its rows.
    shop.db.execute("ALTER TABLE orders ALTER units TYPE integer").await;
    assert_ne!(shredded(&sql, &texts(&docs)).await, "0");
}
