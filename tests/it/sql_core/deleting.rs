//! `remove`, `sweep`, and the limits on what may be deleted.

use serde_json::{Value, json};

use super::{Refused, Sql, failed, json_of, many, open, sync};
use crate::oracle::Edits;
use crate::shop::{MAPPING, Shop, edits};

/// Orders with so many lines each.
fn orders(count: usize, lines: usize) -> Vec<Value> {
    let line = |no| json!({ "no": no });
    let order = |n: usize| json!({ "number": format!("N{n:04}"), "lines": (0..lines).map(line).collect::<Vec<_>>(), "tags": ["t"] });
    (0..count).map(order).collect()
}

fn keys(docs: &[Value]) -> Value {
    docs.iter().map(|document| document["number"].clone()).collect()
}

/// The relations of which rows were removed: `relation rows`.
async fn removed(sql: &Sql, call: &str, argument: &Value) -> Result<Vec<String>, Refused> {
    let query =
        format!("SELECT string_agg(relation || ' ' || removed, ',') FROM rowdelta.{call} WHERE removed > 0");
    let found = sql.call(&query, &[&sql.name, &argument.to_string()]).await?;
    Ok(found.split(',').filter(|part| !part.is_empty()).map(str::to_owned).collect())
}

async fn remove(sql: &Sql, key: Value) -> Result<Vec<String>, Refused> {
    removed(sql, "remove($1, $2::text::jsonb)", &key).await
}

/// `more`: further arguments of `sweep`.
async fn sweep(sql: &Sql, keys: &Value, more: &str) -> Result<Vec<String>, Refused> {
    removed(sql, &format!("sweep($1, $2::text::jsonb{more})"), keys).await
}

async fn withheld(shop: &Shop, result: Result<Vec<String>, Refused>, message: &str) {
    let error = result.unwrap_err();
    assert_eq!(error.code, "RD008", "{error:?}");
    assert!(error.message.contains(message), "{error:?}");
    assert_eq!(shop.written().await, Edits::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p31_remove_deletes_a_document_with_all_that_is_below_it_and_what_is_recorded_of_it() {
    let (shop, sql) = open().await;
    let mut docs = orders(2, 2);
    docs[0]["lines"][0]["serials"] = json!(["x"]);
    sync(&shop, &sql, &docs).await;
    assert_eq!(remove(&sql, json!("N0000")).await.unwrap(), ["shop 1", "lines 2", "serials 1", "tags 1"]);
    assert_eq!(
        shop.written().await,
        edits(&[("orders", 0, 0, 1), ("line", 0, 0, 2), ("serial", 0, 0, 1), ("tag", 0, 0, 1)])
    );
    assert_eq!(shop.db.value("SELECT count(*) FROM rowdelta.state").await, "1");
    assert_eq!(
        remove(&sql, json!("N0000")).await.unwrap(),
        [""; 0],
        "one that is not there is none to delete"
    );
    assert_eq!(
        remove(&sql, json!(["N0001"])).await.unwrap(),
        ["shop 1", "lines 2", "tags 1"],
        "a key as a list"
    );
    // It comes back as a new one.
    assert_eq!(many(&sql, &docs).await.documents("new"), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p31_remove_names_the_relation_that_a_foreign_key_holds() {
    let (shop, sql) = open().await;
    sync(&shop, &sql, &orders(1, 1)).await;
    shop.db
        .execute(
            "CREATE TABLE claim (order_id bigint REFERENCES orders); INSERT INTO claim SELECT id FROM orders",
        )
        .await;
    let error = remove(&sql, json!("N0000")).await.unwrap_err();
    assert_eq!((error.code.as_str(), error.detail.as_str()), ("23503", "shop"), "{error:?}");
    assert_eq!(shop.written().await, Edits::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p31_p32_a_complete_feed_sweeps_what_it_lacks_unless_it_is_in_doubt() {
    let (shop, sql) = open().await;
    let docs = orders(10, 1);
    sync(&shop, &sql, &docs).await;
    withheld(&shop, sweep(&sql, &json!([]), "").await, "empty").await;
    withheld(
        &shop,
        sweep(&sql, &keys(&docs[..4]), "").await,
        "at least half must be among them; if the feed is whole, expected => 4",
    )
    .await;
    withheld(&shop, sweep(&sql, &keys(&docs[..9]), ", 10").await, "at least 10").await;
    withheld(&shop, sweep(&sql, &keys(&docs[..9]), ", rows_max => 2").await, "at most 2 may be (rows_max)")
        .await;
    assert_eq!(sweep(&sql, &keys(&docs), "").await.unwrap(), [""; 0], "nothing is missing");
    assert_eq!(sweep(&sql, &keys(&docs[..9]), "").await.unwrap(), ["shop 1", "lines 1", "tags 1"]);
    assert_eq!(
        sweep(&sql, &keys(&docs[..4]), ", 4").await.unwrap(),
        ["shop 5", "lines 5", "tags 5"],
        "as expected"
    );
    assert_eq!(shop.db.value("SELECT count(*) FROM rowdelta.state").await, "4");
    shop.written().await;
    assert_eq!(sweep(&sql, &keys(&docs[..4]), "").await.unwrap(), [""; 0]);
    assert_eq!(many(&sql, &docs[..4]).await.documents("unchanged"), 4);
    assert_eq!(shop.written().await, Edits::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p31_p32_a_share_of_a_table_that_is_too_large_is_not_swept() {
    let (shop, sql) = open().await;
    let docs = orders(300, 1);
    sync(&shop, &sql, &docs).await;
    // A table that loses a hundred rows is not looked at by percent.
    withheld(&shop, sweep(&sql, &keys(&docs[..199]), "").await, "at most 20 % may be (percent_max)").await;
    assert_eq!(sweep(&sql, &keys(&docs[..200]), "").await.unwrap(), ["shop 100", "lines 100", "tags 100"]);
    shop.written().await;
    shop.db.execute("INSERT INTO rowdelta.guard (mapping, rows_max) VALUES ('shop', 149)").await;
    withheld(
        &shop,
        sweep(&sql, &keys(&docs[..150]), ", rows_max => 1000, percent_max => 100").await,
        "at most 149 may be (rowdelta.guard, which no argument lifts)",
    )
    .await;
    assert_eq!(
        sweep(&sql, &keys(&docs[..160]), ", percent_max => 100").await.unwrap(),
        ["shop 40", "lines 40", "tags 40"]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p31_a_mapping_that_keeps_absent_documents_sweeps_none() {
    let (shop, sql) = open().await;
    let docs = orders(4, 1);
    sync(&shop, &sql, &docs).await;
    let mut mapping = json_of(MAPPING);
    mapping["root"]["on_absent"] = "keep".into();
    sql.register(&mapping).await.unwrap();
    assert_eq!(sweep(&sql, &keys(&docs[..3]), "").await.unwrap(), [""; 0]);
    assert_eq!(shop.written().await, Edits::new());
}

/// The limits bind whoever calls: documents that would delete too much are withheld, the others are in.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p32_documents_that_would_delete_more_than_may_be_are_withheld() {
    let (shop, sql) = open().await;
    let before = orders(4, 5);
    sync(&shop, &sql, &before).await;
    shop.db.execute("INSERT INTO rowdelta.guard (mapping, rows_max) VALUES ('shop', 4), ('other', 0)").await;
    let mut after = before.clone();
    (0..2).for_each(|at| after[at]["lines"] = json!([]));
    after[2]["note"] = "kept up".into();
    after.push(json!({ "number": "X" }));
    let ran = many(&sql, &after).await;
    assert_eq!((&ran.report["status"], failed(&ran)), (&json!("withheld"), vec![]));
    assert_eq!(
        ["withheld", "changed", "new", "unchanged"].map(|what| ran.documents(what)),
        [2, 1, 1, 1],
        "{:#}",
        ran.report
    );
    assert_eq!(shop.written().await, edits(&[("orders", 1, 1, 0)]));
    let error = sql.one(&after[0]).await.unwrap_err();
    assert_eq!(error.code, "RD008", "{error:?}");
    withheld(&shop, remove(&sql, json!("N0000")).await, "at most 4").await;
    shop.db.execute("UPDATE rowdelta.guard SET rows_max = 10").await;
    let ran = many(&sql, &after).await;
    assert_eq!((&ran.report["status"], ran.documents("changed")), (&json!("done"), 2));
    assert_eq!(shop.written().await, edits(&[("line", 0, 0, 10)]));
}

/// Rows that go along because of a foreign key of a table that nobody maps.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p32_rows_that_go_along_count_too() {
    let (shop, sql) = open().await;
    let docs = orders(2, 1);
    sync(&shop, &sql, &docs).await;
    shop.db
        .execute(
            "CREATE TABLE event (order_id bigint REFERENCES orders ON DELETE CASCADE);
             INSERT INTO event SELECT id FROM orders, generate_series(1, 50);
             INSERT INTO rowdelta.guard (rows_max) VALUES (52)",
        )
        .await;
    withheld(&shop, remove(&sql, json!("N0000")).await, "53 rows would be deleted").await;
    shop.db.execute("UPDATE rowdelta.guard SET rows_max = 53").await;
    assert_eq!(remove(&sql, json!("N0000")).await.unwrap(), ["shop 1", "lines 1", "tags 1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p33_a_table_of_which_sql_removed_the_last_row_is_not_lost_to_the_command() {
    let (shop, sql) = open().await;
    let order =
        |tags: &[&str]| json!({ "number": "A", "tags": tags, "lines": [], "files": [], "products": ["p"] });
    shop.run(&[order(&["t"])]).await.succeeded();
    many(&sql, &[order(&[])]).await;
    let ran = shop.run(&[order(&[])]).await.succeeded();
    assert_eq!(ran.documents("unchanged"), 1);
    assert!(!ran.stderr.contains("emptied"), "{}", ran.stderr);
    // By somebody else, it is.
    shop.run(&[order(&["t"])]).await.succeeded();
    shop.db.execute("TRUNCATE tag").await;
    let ran = shop.run(&[order(&["t"])]).await.succeeded();
    assert!(ran.stderr.contains("emptied"), "{}", ran.stderr);
    assert_eq!(ran.documents("changed"), 1);
}
