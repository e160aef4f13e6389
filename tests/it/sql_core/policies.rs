//! What absent, null and repeated parts of a document do to what is stored, as the mapping says.

use serde_json::{Value, json};

use super::{Sql, failed, json_of, many, open, sync};
use crate::shop::{MAPPING, Shop};

/// Registers the shop's mapping with something set in its relation of lines.
async fn with_lines(sql: &Sql, set: &Value) {
    let mut mapping = json_of(MAPPING);
    set.as_object()
        .unwrap()
        .iter()
        .for_each(|(key, value)| mapping["root"]["children"][0][key] = value.clone());
    sql.register(&mapping).await.unwrap();
}

async fn lines(shop: &Shop) -> Vec<String> {
    shop.rows("SELECT no, label FROM line ORDER BY no").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p12_absent_null_and_empty_lists_do_what_the_mapping_says() {
    let (shop, sql) = open().await;
    let full = json!({ "number": "A", "lines": [{ "no": 1, "label": "a" }, { "no": 2, "label": "b" }] });
    let (kept, emptied): (&[&str], &[&str]) = (&["1|a", "2|b"], &[]);
    for (set, document, expected) in [
        (json!({}), json!({ "number": "A" }), Some(kept)),
        (json!({}), json!({ "number": "A", "lines": null }), Some(emptied)),
        (json!({}), json!({ "number": "A", "lines": [] }), Some(emptied)),
        (json!({ "when_absent": "empty" }), json!({ "number": "A" }), Some(emptied)),
        (json!({ "when_absent": "empty" }), json!({ "number": "A", "lines": null }), Some(emptied)),
        (json!({ "when_null": "keep" }), json!({ "number": "A", "lines": null }), Some(kept)),
        (json!({ "when_null": "error" }), json!({ "number": "A", "lines": null }), None),
        (json!({ "when_null": "keep" }), json!({ "number": "A", "lines": [] }), Some(emptied)),
    ] {
        with_lines(&sql, &set).await;
        sql.one(&full).await.unwrap();
        let ran = many(&sql, std::slice::from_ref(&document)).await;
        assert_eq!(lines(&shop).await, expected.unwrap_or(kept), "{set} {document}");
        let failures: &[&str] = if expected.is_none() { &["A lines -"] } else { &[] };
        assert_eq!(failed(&ran), failures, "{set} {document}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p12_an_absent_field_keeps_its_column_or_empties_it_and_null_empties_it() {
    let (shop, sql) = open().await;
    let stored = "SELECT note, remark FROM orders";
    let full = json!({ "number": "A", "note": "n", "remark": "r" });
    sql.one(&full).await.unwrap();
    assert_eq!(sql.one(&json!({ "number": "A" })).await.unwrap(), ["shop +0 ~1 >0 -0", "changed"]);
    assert_eq!(shop.rows(stored).await, ["n|NULL"], "`remark` says when_absent = null");
    assert_eq!(sql.one(&json!({ "number": "A" })).await.unwrap(), ["unchanged"]);
    sql.one(&json!({ "number": "A", "note": null })).await.unwrap();
    assert_eq!(shop.rows(stored).await, ["NULL|NULL"]);
    let mut mapping = json_of(MAPPING);
    mapping["root"]["absent_columns"] = "null".into();
    sql.register(&mapping).await.unwrap();
    sql.one(&full).await.unwrap();
    sql.one(&json!({ "number": "A", "remark": "r" })).await.unwrap();
    assert_eq!(shop.rows(stored).await, ["NULL|r"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p14_of_differing_siblings_with_one_key_the_first_or_the_last_counts_or_the_document_fails() {
    let (shop, sql) = open().await;
    let twins = json!({ "number": "A", "lines": [{ "no": 1, "label": "a" }, { "no": 1, "label": "b" }] });
    for (policy, expected) in [("first", "1|a"), ("last", "1|b")] {
        with_lines(&sql, &json!({ "on_duplicate": policy })).await;
        sql.one(&twins).await.unwrap();
        assert_eq!(lines(&shop).await, [expected], "{policy}");
    }
    with_lines(&sql, &json!({})).await;
    let ran = many(&sql, &[twins, json!({ "number": "B", "lines": [{ "no": 1, "label": "c" }] })]).await;
    assert_eq!(failed(&ran), ["A lines -"]);
    assert_eq!(lines(&shop).await, ["1|b", "1|c"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p14_equal_siblings_collapse_where_there_is_a_key_and_count_where_there_is_none() {
    let (shop, sql) = open().await;
    let line = json!({ "no": 1, "label": "a", "serials": ["x", "x"] });
    let order = json!({ "number": "A", "lines": [line, line], "tags": ["t", "t"], "products": ["p", "p"] });
    sync(&shop, &sql, &[order]).await;
    assert_eq!(lines(&shop).await, ["1|a"]);
    assert_eq!(shop.rows("SELECT word FROM tag").await, ["t", "t"]);
    let one_less = json!({ "number": "A", "lines": [line], "tags": ["t"], "products": ["p"] });
    sync(&shop, &sql, &[one_less]).await;
    assert_eq!(shop.rows("SELECT word FROM tag").await, ["t"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p14_a_document_that_stands_twice_in_a_call_counts_once_or_fails() {
    let (shop, sql) = open().await;
    let document = |note: &str| json!({ "number": "A", "note": note });
    let ran = many(&sql, &[document("x"), document("x"), document("y")]).await;
    assert_eq!((ran.documents("new"), ran.documents("repeated"), ran.documents("failed")), (1, 1, 1));
    assert_eq!(shop.rows("SELECT note FROM orders").await, ["x"]);
    assert!(
        ran.report["failures"][0]["message"].as_str().unwrap().contains("document 1"),
        "{:#}",
        ran.report
    );
}

/// Spelling is nothing that a caller of these functions could see; other fields are nothing to them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p06_p15_other_spellings_and_fields_that_nobody_maps_write_nothing() {
    let (shop, sql) = open().await;
    let docs = [
        r#"{"number": "A", "total": 1.005, "units": 3, "ordered": "2024-05-31", "paid": "2024-05-31T10:00:00Z"}"#,
    ];
    sql.many(&docs).await;
    shop.written().await;
    for again in [
        r#"{"units": 3.0, "total": "1.01", "number": "A", "paid": "2024-05-31T12:00:00+02:00", "ordered": "2024-05-31"}"#,
        r#"{"number": "A", "total": 1.0100, "units": "3", "ordered": " 2024-05-31", "paid": "2024-05-31 10:00:00+00", "x": {}}"#,
    ] {
        let ran = sql.many(&[again]).await;
        assert_eq!((ran.documents("unchanged"), ran.rows_written()), (1, 0), "{again}: {:#}", ran.report);
    }
    assert!(shop.written().await.is_empty());
}
