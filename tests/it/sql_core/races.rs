//! Several sessions at once, and the command beside them: what is left at the end is what one order of all of them leaves.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Sql, json_of, many, open, sync};
use crate::oracle::Edits;
use crate::shop::{MAPPING, Shop};

/// Documents of one version: every one has all its rows from it, and files pass on from one to the next.
fn version(of: u32, documents: u32) -> Vec<Value> {
    let order = |n: u32| {
        json!({ "number": format!("N{n:02}"), "units": of, "tags": [format!("v{of}")], "products": [format!("p{of}")],
                "lines": [{ "no": 1, "qty": of }, { "no": 1 + of, "qty": of }],
                "files": [{ "id": 1000 + (n + of) % documents, "name": format!("v{of}") }] })
    };
    (0..documents).map(order).collect()
}

/// Documents whose rows are not all of one version.
const TORN: &str = "
    SELECT number FROM orders o
    WHERE EXISTS (SELECT FROM line l WHERE l.order_id = o.id AND l.qty <> o.units)
       OR (SELECT count(*) FROM line l WHERE l.order_id = o.id) <> 2
       OR ARRAY(SELECT word FROM tag t WHERE t.order_id = o.id) <> ARRAY['v' || units]
       OR ARRAY(SELECT code FROM order_product JOIN product p ON p.id = product_id WHERE order_id = o.id) <> ARRAY['p' || units]";

/// A session that syncs versions of the same documents again and again, one by one or all at once. What fails must be of
/// the kind that passes.
async fn keep_syncing(shop: &Shop, from: u32, rounds: u32, at_once: bool) -> u32 {
    let sql = Sql::open(&shop.db, &json_of(MAPPING)).await;
    let mut failed = 0;
    for round in 0..rounds {
        let docs: Vec<Value> = version(from + round % 3, 8).into_iter().map(without_files).collect();
        if at_once {
            let docs: Vec<String> = docs.iter().map(Value::to_string).collect();
            let ran = sql.many(&docs).await;
            for failure in ran.report["failures"].as_array().unwrap() {
                assert_eq!(failure["retryable"], true, "{failure}");
                failed += 1;
            }
            continue;
        }
        for document in &docs {
            if let Err(error) = sql.one(document).await {
                assert!(["RD003", "40P01", "40001", "55P03"].contains(&error.code.as_str()), "{error:?}");
                failed += 1;
            }
        }
    }
    failed
}

/// Files that move would make the sessions take rows from each other, which is another test's.
fn without_files(mut document: Value) -> Value {
    document.as_object_mut().unwrap().remove("files");
    document
}

/// Whatever came of the races, one more run of one version leaves just that, and then nothing is left to do.
async fn settles(shop: &Shop, sql: &Sql) {
    let docs: Vec<Value> = version(9, 8);
    let ran = many(sql, &docs).await;
    assert_eq!(ran.report["status"], "done", "{:#}", ran.report);
    assert_eq!(shop.rows(TORN).await, [""; 0]);
    assert_eq!(shop.rows("SELECT DISTINCT units FROM orders").await, ["9"]);
    shop.written().await;
    let again = shop.run(&docs).await.succeeded();
    assert_eq!(
        (again.rows_written(), again.documents("unchanged")),
        (0, 8),
        "the command agrees: {:#}",
        again.report
    );
    assert_eq!(shop.written().await, Edits::new());
    assert_eq!(shop.rows("SELECT * FROM rowdelta.verify('shop')").await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p29_sessions_that_sync_the_same_documents_leave_each_of_them_whole() {
    let (shop, sql) = open().await;
    let sessions = [(1, false), (2, true), (4, false), (5, true)];
    let failed = futures_util::future::join_all(
        sessions.map(|(from, at_once)| keep_syncing(&shop, from, 12, at_once)),
    )
    .await;
    println!("passing failures by session: {failed:?}");
    assert_eq!(shop.rows(TORN).await, [""; 0], "a document is of one version");
    assert_eq!(shop.rows("SELECT count(*) FROM orders").await, ["8"]);
    settles(&shop, &sql).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p29_the_command_and_sessions_at_once_leave_each_document_whole() {
    let (shop, sql) = open().await;
    let by_command = async {
        let mut failed = 0;
        for round in 0..6 {
            let docs: Vec<Value> = version(1 + round % 2, 8).into_iter().map(without_files).collect();
            let ran = shop.run(&docs).await;
            for failure in ran.report["failures"].as_array().unwrap_or_else(|| panic!("{}", ran.stderr)) {
                assert_eq!(failure["retryable"], true, "{failure}");
                failed += 1;
            }
        }
        failed
    };
    let all = (by_command, keep_syncing(&shop, 3, 15, false), keep_syncing(&shop, 5, 15, true));
    let (command, one, many) = tokio::join!(all.0, all.1, all.2);
    println!("passing failures: {command} by the command, {one} and {many} by SQL");
    assert_eq!(shop.rows(TORN).await, [""; 0], "a document is of one version");
    settles(&shop, &sql).await;
}

/// Rows that pass on from document to document, in every session another way round.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p17_p29_rows_that_sessions_take_from_each_other_are_never_lost() {
    let (shop, sql) = open().await;
    sync(&shop, &sql, &version(1, 6)).await;
    let ids = "SELECT official, id FROM file ORDER BY official";
    let before = shop.rows(ids).await;
    let session = async |from: u32| {
        let sql = Sql::open(&shop.db, &json_of(MAPPING)).await;
        for round in 0..8 {
            let ran = many(&sql, &version(from + round, 6)).await;
            for failure in ran.report["failures"].as_array().unwrap() {
                assert_eq!(failure["retryable"], true, "{failure}");
            }
        }
    };
    tokio::join!(session(2), session(4), session(7));
    assert_eq!(shop.rows(ids).await, before, "every file is there, and is the row that it was");
    many(&sql, &version(9, 6)).await;
    assert_eq!(shop.rows("SELECT DISTINCT name FROM file").await, ["v9"]);
    assert_eq!(many(&sql, &version(9, 6)).await.rows_written(), 0);
}

/// The second of two writers of one document waits for the first, sees what that wrote, and writes what still differs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p29_the_second_of_two_sessions_waits_and_then_writes_what_still_differs() {
    let (shop, sql) = open().await;
    sync(&shop, &sql, &version(1, 1)).await;
    let second = Sql::open(&shop.db, &json_of(MAPPING)).await;
    sql.execute("BEGIN").await.unwrap();
    sql.one(&version(2, 1)[0]).await.unwrap();
    let document = version(3, 1).remove(0);
    let waiting = tokio::spawn(async move { second.one(&document).await });
    let blocked = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    for _ in 0..500 {
        if shop.db.value(blocked).await == "1" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(shop.db.value(blocked).await, "1", "the second waits");
    sql.execute("COMMIT").await.unwrap();
    let written = waiting.await.unwrap().unwrap();
    assert_eq!(written.last().unwrap(), "changed", "{written:?}");
    assert_eq!(shop.rows(TORN).await, [""; 0]);
    assert_eq!(shop.rows("SELECT units FROM orders").await, ["3"]);
    assert_eq!(sql.one(&version(3, 1)[0]).await.unwrap(), ["unchanged"]);
}

/// A new document that two sessions store at once is stored once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p29_a_new_document_that_two_sessions_store_at_once_is_stored_once() {
    let (shop, sql) = open().await;
    let second = Sql::open(&shop.db, &json_of(MAPPING)).await;
    for n in 0..10 {
        let document = json!({ "number": format!("X{n}"), "units": 1, "tags": ["t"] });
        let (one, other) = tokio::join!(sql.one(&document), second.one(&document));
        let mut said = [one.unwrap(), other.unwrap()].map(|lines| lines.last().unwrap().clone());
        said.sort();
        assert_eq!(said, ["new", "unchanged"], "{n}");
    }
    assert_eq!(shop.rows("SELECT count(*), count(DISTINCT number) FROM orders").await, ["10|10"]);
    assert_eq!(shop.rows("SELECT count(*) FROM tag").await, ["10"]);
}
