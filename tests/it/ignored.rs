//! Columns whose change alone is none: `ignore = true`.

use serde_json::{Value, json};

use crate::shop::{Shop, edits, ndjson};
use crate::verify::verify_at;

const SCHEMA: &str = "
    CREATE TABLE call (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, code text NOT NULL UNIQUE, title text, notice text);
    CREATE TABLE line (call_id bigint NOT NULL REFERENCES call, sku text NOT NULL, qty int, seen text, PRIMARY KEY (call_id, sku));
    CREATE TABLE note (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, call_id bigint NOT NULL REFERENCES call, text text, seen text);";

const MAPPING: &str = r#"
version = 1
name = "calls"
[root]
table = "call"
key = ["code"]
id = "id"
columns = { code = "code", title = "title", notice = { path = "notice", ignore = true } }
[[root.children]]
name = "lines"
table = "line"
parent = "call_id"
key = ["sku"]
columns = { sku = "sku", qty = "qty", seen = { path = "seen", ignore = true } }
[[root.children]]
name = "notes"
table = "note"
parent = "call_id"
columns = { text = "text", seen = { path = "^.seen", ignore = true } }
"#;

fn call(code: &str, title: &str, qty: u32, text: &str, day: &str) -> Value {
    let lines = [("a", qty), ("b", 1)].map(|(sku, qty)| json!({"sku": sku, "qty": qty, "seen": day}));
    json!({"code": code, "title": title, "notice": day, "seen": day, "lines": lines, "notes": [{"text": text}, {"text": "n"}]})
}

async fn dump(shop: &Shop) -> String {
    let tables = "SELECT string_agg(r, '; ' ORDER BY r) FROM (
        SELECT concat_ws(' ', code, title, notice) AS r FROM call UNION ALL SELECT concat_ws(' ', sku, qty, seen) FROM line
        UNION ALL SELECT concat_ws(' ', text, seen) FROM note) x";
    shop.db.value(tables).await
}

/// Rows that a sync wrote, as triggers count them.
async fn written(shop: &Shop, docs: &[Value]) -> crate::oracle::Edits {
    shop.run(docs).await.succeeded();
    shop.written().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p02_a_change_of_ignored_columns_alone_writes_nothing_and_goes_with_the_next_change_of_its_row() {
    let shop = Shop::with(SCHEMA, MAPPING).await;
    let day = |day: &str| [call("1", "t", 1, "m", day), call("2", "t", 1, "m", day)];
    written(&shop, &day("mon")).await;
    let first = dump(&shop).await;
    assert_eq!(written(&shop, &day("tue")).await, edits(&[]));
    assert_eq!(dump(&shop).await, first);

    // One column of one row: the others of its row are brought up to date with it, those of other rows are not.
    let wednesday = [call("1", "t", 2, "m", "wed"), call("2", "u", 1, "other", "wed")];
    assert_eq!(
        written(&shop, &wednesday).await,
        edits(&[("call", 0, 1, 0), ("line", 0, 1, 0), ("note", 1, 0, 1)])
    );
    let expected = "1 t mon; 2 u wed; a 1 mon; a 2 wed; b 1 mon; b 1 mon; m mon; n mon; n mon; other wed";
    assert_eq!(dump(&shop).await, expected);
    assert_eq!(written(&shop, &wednesday).await, edits(&[]));
    shop.db.execute("TRUNCATE rowdelta.document").await;
    assert_eq!(written(&shop, &wednesday).await, edits(&[]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p36_an_ignored_column_that_somebody_changed_is_no_drift() {
    let shop = Shop::with(SCHEMA, MAPPING).await;
    let docs = [call("1", "t", 1, "m", "mon")];
    shop.run(&docs).await.succeeded();
    shop.db
        .execute("UPDATE call SET notice = 'x'; UPDATE line SET seen = NULL; UPDATE note SET seen = 'y'")
        .await;
    verify_at(&shop.url, &shop.mapping, &[]).await.finds_nothing();
    let feed = shop.scratch.write("again.ndjson", ndjson(&docs));
    verify_at(&shop.url, &shop.mapping, &[feed.to_str().unwrap()]).await.finds_nothing();
}
