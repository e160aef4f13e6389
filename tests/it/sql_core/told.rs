//! What is told: of what would be written (`plan`), of what was (`rowdelta.change`), of runs, of mappings, of drift.

use serde_json::{Value, json};

use super::{Sql, failed, json_of, many, open, sync};
use crate::oracle::{Edit, Edits};
use crate::shop::{MAPPING, Shop};

fn order(number: &str, note: &str, lines: &[(u32, &str)], files: &[u32]) -> Value {
    let line = |&(no, label): &(u32, &str)| json!({ "no": no, "label": label });
    let file = |id: &u32| json!({ "id": id });
    json!({ "number": number, "note": note, "lines": lines.iter().map(line).collect::<Vec<_>>(), "tags": ["t"],
            "files": files.iter().map(file).collect::<Vec<_>>(), "products": ["p"] })
}

/// Documents as they are stored first, and then one that changes in every way.
fn before() -> [Value; 2] {
    [order("A", "x", &[(1, "a"), (2, "b")], &[1]), order("B", "x", &[], &[7])]
}

fn after() -> Value {
    order("A", "y", &[(2, "c"), (3, "d")], &[1, 7, 8])
}

const PLAN: &str = "SELECT coalesce(jsonb_agg(p), '[]')::text FROM rowdelta.plan($1, $2::text::jsonb) AS p";

async fn plan(sql: &Sql, document: &Value) -> Vec<Value> {
    let text = sql.call(PLAN, &[&sql.name, &document.to_string()]).await.unwrap();
    serde_json::from_str(&text).unwrap()
}

/// `relation action key before after`, sorted.
fn lines(changes: &[Value]) -> Vec<String> {
    let text = |one: &Value, name: &str| one[name].as_str().unwrap_or_default().to_owned();
    let line = |one: &Value| {
        format!(
            "{} {} {} {} {}",
            text(one, "relation"),
            text(one, "action"),
            one["key"],
            one["before"],
            one["after"]
        )
    };
    let mut lines: Vec<String> = changes.iter().map(line).collect();
    lines.sort();
    lines
}

/// Rows by table, as changes say.
fn edits_of(changes: &[Value]) -> Edits {
    let mut edits = Edits::new();
    for one in changes {
        let table = match one["relation"].as_str().unwrap() {
            "shop" => "orders",
            "lines" => "line",
            "files" => "file",
            "tags" => "tag",
            "products" => "order_product",
            other => panic!("{other}"),
        };
        let edit: &mut Edit = edits.entry(table.to_owned()).or_default();
        match one["action"].as_str().unwrap() {
            "added" => edit.inserted += 1,
            "removed" => edit.deleted += 1,
            _ => edit.updated += 1,
        }
    }
    edits
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p05_a_plan_says_what_sync_then_writes_and_writes_nothing_itself() {
    let (shop, sql) = open().await;
    sync(&shop, &sql, &before()).await;
    let planned = plan(&sql, &after()).await;
    assert_eq!(shop.written().await, Edits::new());
    assert_eq!(
        lines(&planned),
        [
            r#"files added {"official":"8"} null {"name":null,"official":"8"}"#,
            r#"files moved {"official":"7"} null null"#,
            r#"lines added {"no":"3"} null {"label":"d","no":"3","qty":null}"#,
            r#"lines removed {"no":"1"} {"label":"a","no":"1","qty":null} null"#,
            r#"lines updated {"no":"2"} {"label":"b"} {"label":"c"}"#,
            r#"shop updated {"number":"A"} {"note":"x"} {"note":"y"}"#,
        ]
    );
    sql.one(&after()).await.unwrap();
    assert_eq!(edits_of(&planned), shop.written().await);
    assert_eq!(plan(&sql, &after()).await, [Value::Null; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p05_a_plan_of_a_new_document_takes_back_the_catalogue_rows_that_it_needs() {
    let (shop, sql) = open().await;
    let planned = plan(&sql, &before()[0]).await;
    assert_eq!(shop.rows("SELECT count(*) FROM product").await, ["0"]);
    assert_eq!(planned.len(), 6, "{planned:#?}");
    assert_eq!(shop.db.value("SELECT count(*) FROM rowdelta.state").await, "0");
    let error =
        sql.call(PLAN, &[&sql.name, &"{\"number\": \"A\", \"lines\": 7}".to_owned()]).await.unwrap_err();
    assert_eq!((error.code.as_str(), error.detail.as_str()), ("RD006", "lines"), "{error:?}");
}

const HISTORY: &str = "SELECT to_jsonb(c) FROM rowdelta.change c ORDER BY id";

async fn history(shop: &Shop) -> Vec<Value> {
    shop.rows(HISTORY).await.iter().map(|row| serde_json::from_str(row).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p05_history_has_every_row_that_is_written_while_it_is_kept_and_no_other() {
    let (shop, sql) = open().await;
    sync(&shop, &sql, &before()).await;
    assert_eq!(history(&shop).await, [Value::Null; 0], "nobody asked for it");
    sql.execute("SELECT rowdelta.keep_history('shop', '1 day')").await.unwrap();
    let planned = plan(&sql, &after()).await;
    sql.one(&after()).await.unwrap();
    let noted = history(&shop).await;
    assert_eq!(lines(&noted), lines(&planned));
    assert!(noted.iter().all(|one| one["document"] == "A"), "{noted:#?}");
    many(&sql, &[after()]).await;
    assert_eq!(history(&shop).await.len(), noted.len(), "an unchanged document writes nothing");
    // What is old goes with the next run, the rest stays.
    shop.db
        .execute("UPDATE rowdelta.change SET at = at - interval '25 hours' WHERE relation = 'lines'")
        .await;
    many(&sql, &[order("C", "x", &[], &[])]).await;
    let kept = history(&shop).await;
    assert!(kept.iter().all(|one| one["relation"] != "lines"), "{kept:#?}");
    assert_eq!(kept.len(), noted.len() - 3 + 3, "and three of C");
    sql.execute("SELECT rowdelta.keep_history('shop', NULL)").await.unwrap();
    assert_eq!(history(&shop).await, [Value::Null; 0]);
    sql.one(&order("D", "x", &[], &[])).await.unwrap();
    assert_eq!(history(&shop).await, [Value::Null; 0]);
}

/// A document that fails takes what was noted of it back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p05_p24_history_has_nothing_of_documents_that_failed() {
    let (shop, sql) = open().await;
    shop.db.execute("ALTER TABLE tag ADD CHECK (word <> 'x')").await;
    sql.execute("SELECT rowdelta.keep_history('shop', '1 day')").await.unwrap();
    let ran =
        many(&sql, &[json!({ "number": "A", "tags": ["x"] }), json!({ "number": "B", "tags": ["y"] })]).await;
    assert_eq!(failed(&ran), ["A tags 23514"]);
    let noted: Vec<Value> = history(&shop).await.iter().map(|one| one["document"].clone()).collect();
    assert_eq!(noted, ["B", "B"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p05_p25_a_run_with_failures_is_in_the_views_until_the_next_one() {
    let (shop, sql) = open().await;
    let status = "SELECT mapping, status, documents ->> 'failed', documents ->> 'new', finished >= started, at_work FROM rowdelta.status";
    let failures =
        "SELECT mapping, document, relation, sqlstate, retryable, item FROM rowdelta.failures ORDER BY item";
    assert_eq!(shop.rows(status).await, ["shop|NULL|NULL|NULL|NULL|NULL"]);
    let bad = [
        json!({ "number": "A", "units": "x" }),
        json!({ "number": "B" }),
        json!({ "number": "C", "lines": 7 }),
    ];
    let ran = many(&sql, &bad).await;
    assert_eq!(shop.rows(status).await, ["shop|failed|2|1|t|NULL"]);
    assert_eq!(shop.rows(failures).await, ["shop|A|shop|22P02|f|1", "shop|C|lines|NULL|f|3"]);
    let stored =
        shop.db.value(&format!("SELECT report FROM rowdelta.run WHERE id = {}", ran.report["run"])).await;
    assert_eq!(
        serde_json::from_str::<Value>(&stored).unwrap(),
        ran.report,
        "the report is kept in the ledger"
    );
    many(&sql, &[json!({ "number": "B" })]).await;
    assert_eq!(shop.rows(status).await, ["shop|done|0|0|t|NULL"]);
    assert_eq!(shop.rows(failures).await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p05_mappings_are_told_with_their_documents() {
    let (shop, sql) = open().await;
    many(&sql, &before()).await;
    sql.one(&order("A", "x", &[], &[1, 7])).await.unwrap();
    let mut other = json_of(MAPPING);
    other["name"] = "another".into();
    sql.register(&other).await.unwrap();
    let told = "SELECT name, documents, unsettled, lease_holder FROM rowdelta.mappings()";
    assert_eq!(shop.rows(told).await, ["another|0|0|NULL", "shop|2|1|NULL"]);
    let definition = shop.db.value("SELECT definition FROM rowdelta.mappings() WHERE name = 'shop'").await;
    assert_eq!(serde_json::from_str::<Value>(&definition).unwrap(), json_of(MAPPING));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p36_verify_names_what_was_changed_by_hand() {
    let (shop, sql) = open().await;
    let docs = [before()[0].clone(), before()[1].clone(), order("C", "x", &[(1, "a")], &[])];
    // A document that leaves something open is passed over there.
    let docs = docs.map(|mut document| {
        for (name, value) in [
            ("customer", json!(null)),
            ("address", json!({ "city": null })),
            ("total", json!(1.5)),
            ("units", json!(1)),
            ("ordered", json!(null)),
            ("paid", json!(null)),
            ("status", json!("open")),
        ] {
            document[name] = value;
        }
        for line in document["lines"].as_array_mut().unwrap() {
            line["qty"] = json!(1);
            line["serials"] = json!([]);
        }
        for file in document["files"].as_array_mut().unwrap() {
            file["name"] = json!(null);
            file["pages"] = json!([]);
        }
        document
    });
    sync(&shop, &sql, &docs).await;
    let found = "SELECT document, relation, differs FROM rowdelta.verify('shop') ORDER BY 1, 2";
    assert_eq!(shop.rows(found).await, [""; 0]);
    shop.db
        .execute(
            "UPDATE orders SET units = 2 WHERE number = 'A'; UPDATE line SET label = 'z' WHERE no = 2; DELETE FROM file WHERE official = 7;
             DELETE FROM line USING orders o WHERE o.id = order_id AND number = 'C'; DELETE FROM tag USING orders o
             WHERE o.id = order_id AND number = 'C'; DELETE FROM order_product USING orders o WHERE o.id = order_id AND
             number = 'C'; DELETE FROM orders WHERE number = 'C'",
        )
        .await;
    let told = shop.rows(found).await;
    assert_eq!(told.len(), 3, "{told:?}");
    assert_eq!(told[..2], ["A|shop, lines|changed", "B|files|changed"]);
    assert!(told[2].ends_with("|shop|gone"), "{told:?}");
    // A document that is synced again is compared with what is recorded of it: only the missing one is found.
    assert_eq!(many(&sql, &docs).await.documents("new"), 1);
}
