//! Lists and fields that are empty, absent or null; duplicates; lists without keys; links to a catalogue.

use serde_json::{Value, json};

use crate::oracle::Edits;
use crate::shop::{MAPPING, SCHEMA, Shop, edits, failures};

/// The mapping with settings added to relations: pairs of a relation's name and TOML lines.
fn mapping(settings: &[(&str, &str)]) -> String {
    settings.iter().fold(MAPPING.to_owned(), |text, (name, lines)| {
        let line = format!("name = \"{name}\"\n");
        assert!(text.contains(&line), "no relation {name}");
        text.replace(&line, &format!("{line}{lines}\n"))
    })
}

/// Two lines, the first with two serials.
fn order(number: &str) -> Value {
    json!({ "number": number, "lines": [{ "no": 1, "serials": ["a", "b"] }, { "no": 2 }], "tags": ["t"] })
}

async fn counts(shop: &Shop) -> [String; 2] {
    [shop.db.value("SELECT count(*) FROM line").await, shop.db.value("SELECT count(*) FROM serial").await]
}

/// Syncs a document with some list after the usual one, and says how many lines and serials are left.
async fn left(settings: &[(&str, &str)], then: Value) -> [String; 2] {
    let shop = Shop::with(SCHEMA, &mapping(settings)).await;
    shop.sync(&[order("A")]).await;
    let ran = shop.sync(std::slice::from_ref(&then)).await;
    assert_eq!(ran.documents("unsettled"), 0);
    let again = shop.run(&[then]).await.succeeded();
    assert_eq!((again.documents("unchanged"), shop.written().await), (1, Edits::new()));
    counts(&shop).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p12_an_empty_list_empties_the_relation_and_what_is_below_it() {
    let keep = "when_absent = \"keep\"\nwhen_null = \"keep\"";
    for settings in [&[][..], &[("lines", keep), ("serials", keep)]] {
        assert_eq!(left(settings, json!({ "number": "A", "lines": [] })).await, ["0", "0"]);
        let inner = json!({ "number": "A", "lines": [{ "no": 1, "serials": [] }, { "no": 2 }] });
        assert_eq!(left(settings, inner).await, ["2", "0"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p12_an_absent_list_is_kept_by_default_and_emptied_if_the_mapping_says_so() {
    let outer = json!({ "number": "A", "note": "changed" });
    let inner = json!({ "number": "A", "lines": [{ "no": 1, "qty": 5 }, { "no": 2 }] });
    for keep in ["", "when_absent = \"keep\""] {
        assert_eq!(left(&[("lines", keep)], outer.clone()).await, ["2", "2"]);
        assert_eq!(left(&[("serials", keep)], inner.clone()).await, ["2", "2"]);
    }
    let empty = "when_absent = \"empty\"";
    assert_eq!(left(&[("lines", empty)], outer).await, ["0", "0"]);
    assert_eq!(left(&[("serials", empty)], inner).await, ["2", "0"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p12_a_null_list_is_emptied_by_default_and_kept_if_the_mapping_says_so() {
    let outer = json!({ "number": "A", "note": "changed", "lines": null });
    let inner = json!({ "number": "A", "lines": [{ "no": 1, "serials": null }, { "no": 2 }] });
    for empty in ["", "when_null = \"empty\"", "when_absent = \"keep\""] {
        assert_eq!(left(&[("lines", empty)], outer.clone()).await, ["0", "0"]);
        assert_eq!(left(&[("serials", empty)], inner.clone()).await, ["2", "0"]);
    }
    let keep = "when_null = \"keep\"\nwhen_absent = \"empty\"";
    assert_eq!(left(&[("lines", keep)], outer).await, ["2", "2"]);
    assert_eq!(left(&[("serials", keep)], inner).await, ["2", "2"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p12_a_null_list_fails_its_document_if_the_mapping_says_so() {
    let error = "when_null = \"error\"";
    let shop = Shop::with(SCHEMA, &mapping(&[("lines", error), ("serials", error)])).await;
    shop.sync(&[order("A"), order("B")]).await;
    let inner = json!({ "number": "B", "lines": [{ "no": 2 }, { "no": 1, "serials": null }] });
    let ran = shop.run(&[json!({ "number": "A", "lines": null }), inner]).await;
    assert_eq!(ran.code, 1);
    let said =
        ["feed.ndjson:1 [A] lines lines: is null", "feed.ndjson:2 [B] serials lines[1].serials: is null"];
    assert_eq!(failures(&ran), said);
    assert_eq!(shop.written().await, Edits::new());
}

/// `note` keeps (the default), `remark` becomes null; a new row gets the column's default either way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p12_an_absent_field_is_kept_or_null_on_update_and_the_default_on_insert() {
    let shop = Shop::open().await;
    shop.db
        .execute("ALTER TABLE orders ALTER note SET DEFAULT 'none', ALTER remark SET DEFAULT 'none'")
        .await;
    let columns = "SELECT number, note, remark FROM orders ORDER BY 1";
    shop.run(&[json!({ "number": "A" }), json!({ "number": "B", "note": "n", "remark": "r" })])
        .await
        .succeeded();
    assert_eq!(shop.rows(columns).await, ["A|none|NULL", "B|n|r"]);
    shop.run(&[json!({ "number": "A", "units": 1 }), json!({ "number": "B" })]).await.succeeded();
    assert_eq!(shop.rows(columns).await, ["A|none|NULL", "B|n|NULL"]);
    shop.run(&[json!({ "number": "A", "note": null }), json!({ "number": "B", "note": null })])
        .await
        .succeeded();
    assert_eq!(shop.rows(columns).await, ["A|NULL|NULL", "B|NULL|NULL"]);
    shop.written().await;
    let ran = shop.run(&[json!({ "number": "A" }), json!({ "number": "B" })]).await.succeeded();
    assert_eq!((ran.documents("unchanged"), shop.written().await), (2, Edits::new()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p14_two_siblings_with_one_key_are_an_error_or_the_first_or_the_last() {
    let doc = json!({ "number": "A", "lines": [
        { "no": 1, "label": "one", "serials": ["a"] }, { "no": 2 }, { "no": 1, "label": "uno", "serials": ["b"] }
    ] });
    let stored = "SELECT label, code FROM line LEFT JOIN serial ON line_id = id ORDER BY no";
    for (setting, expected) in [("first", ["one|a", "NULL|NULL"]), ("last", ["uno|b", "NULL|NULL"])] {
        let settings = format!("on_duplicate = \"{setting}\"");
        let shop = Shop::with(SCHEMA, &mapping(&[("lines", &settings)])).await;
        shop.sync(std::slice::from_ref(&doc)).await;
        assert_eq!(shop.rows(stored).await, expected);
    }
    for setting in ["", "on_duplicate = \"error\""] {
        let shop = Shop::with(SCHEMA, &mapping(&[("lines", setting)])).await;
        let ran = shop.run(&[doc.clone(), order("B")]).await;
        let said = [
            r#"feed.ndjson:1 [A] lines lines[2]: has the key of lines[0] (no=1) and other content: on_duplicate = "first" or "last" takes one of them"#,
        ];
        assert_eq!((ran.code, failures(&ran)), (1, said.map(str::to_owned).to_vec()));
        assert_eq!(shop.rows("SELECT number FROM orders").await, ["B"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p14_equal_siblings_collapse() {
    let shop = Shop::open().await;
    let ran = shop
        .sync(&[json!({ "number": "A", "lines": [{ "no": 1 }, { "no": 1 }], "products": ["p", "p"] })])
        .await;
    assert_eq!(ran.rows_written(), 4);
    assert_eq!(shop.rows("SELECT count(*) FROM line").await, ["1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p14_siblings_that_are_equal_in_another_spelling_collapse() {
    let shop = Shop::open().await;
    let lines =
        json!([{ "no": 1, "serials": ["a", "b"] }, { "serials": ["b", "a"], "no": 1.0, "unmapped": 0 }]);
    shop.sync(&[json!({ "number": "A", "lines": lines })]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p14_a_list_without_a_key_is_a_multiset() {
    let shop = Shop::open().await;
    let tags = |tags: Value| [json!({ "number": "A", "tags": tags })];
    shop.sync(&tags(json!(["x", "y", "x"]))).await;
    assert_eq!(shop.rows("SELECT word FROM tag ORDER BY 1").await, ["x", "x", "y"]);
    let ran = shop.sync(&tags(json!(["y", "x", "x"]))).await;
    assert_eq!((ran.documents("unchanged"), ran.rows_written()), (1, 0));
    shop.expect(&tags(json!(["y", "x"]))).await;
    let ran = shop.run(&tags(json!(["y", "x"]))).await.succeeded();
    assert_eq!(shop.written().await, edits(&[("tag", 0, 0, 1)]));
    assert_eq!(ran.rows_written(), 1);
    shop.state.check().await.unwrap();
    shop.sync(&tags(json!(["x", "x", null, "x", null]))).await;
    assert_eq!(shop.rows("SELECT count(*), count(word) FROM tag").await, ["5|3"]);
    shop.sync(&tags(json!([null]))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p13_reordered_lists_write_nothing() {
    let shop = Shop::open().await;
    let doc = |lines: Value, products: Value, files: Value| {
        [json!({ "number": "A", "lines": lines, "products": products, "files": files })]
    };
    let first = doc(
        json!([{ "no": 1, "serials": ["a", "b"] }, { "no": 2, "label": "two" }]),
        json!(["p", "q", "r"]),
        json!([{ "id": 1 }, { "id": 2, "pages": [{ "no": 1 }, { "no": 2 }] }]),
    );
    let second = doc(
        json!([{ "label": "two", "no": 2 }, { "no": 1, "serials": ["b", "a"] }]),
        json!(["r", "p", "q"]),
        json!([{ "id": 2, "pages": [{ "no": 2 }, { "no": 1 }] }, { "id": 1 }]),
    );
    shop.sync(&first).await;
    let ran = shop.sync(&second).await;
    assert_eq!((ran.documents("unchanged"), ran.rows_written()), (1, 0));
}

fn missing(how: &str) -> String {
    MAPPING.replace("missing = \"insert\"", &format!("missing = \"{how}\""))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p24_a_missing_catalogue_row_is_inserted_once_and_never_removed() {
    let shop = Shop::open().await;
    shop.db.execute("INSERT INTO product (code) VALUES ('p')").await;
    shop.state.feed(&[]).await.unwrap();
    shop.run(&[
        json!({ "number": "A", "products": ["p", "q"] }),
        json!({ "number": "B", "products": ["q"] }),
    ])
    .await
    .succeeded();
    let first = [("orders", 2, 0, 0), ("order_product", 3, 0, 0), ("product", 1 + 1, 0, 0)];
    assert_eq!(shop.written().await, edits(&first), "the test's own row included");
    shop.run(&[json!({ "number": "A", "products": [] }), json!({ "number": "B", "products": ["p"] })])
        .await
        .succeeded();
    assert_eq!(shop.written().await, edits(&[("order_product", 1, 0, 3)]));
    assert_eq!(shop.rows("SELECT code FROM product ORDER BY 1").await, ["p", "q"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p25_a_missing_catalogue_row_is_an_error_by_default() {
    let mapping = MAPPING.replace("missing = \"insert\"\n", "");
    for mapping in [mapping, missing("error")] {
        let shop = Shop::with(SCHEMA, &mapping).await;
        shop.db.execute("INSERT INTO product (code) VALUES ('p')").await;
        let ran = shop
            .run(&[
                json!({ "number": "A", "products": ["p", "q"] }),
                json!({ "number": "B", "products": ["p"] }),
            ])
            .await;
        let said = [
            r#"feed.ndjson:1 [A] products products[1]: "q" is not in the catalogue `product`: add it, or say missing = "insert" or "skip""#,
        ];
        assert_eq!((ran.code, failures(&ran)), (1, said.map(str::to_owned).to_vec()));
        assert_eq!(shop.rows("SELECT number FROM orders").await, ["B"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p36_a_skipped_link_is_counted_and_made_by_the_run_after_its_catalogue_row_appears() {
    let shop = Shop::with(SCHEMA, &missing("skip")).await;
    shop.db.execute("INSERT INTO product (code) VALUES ('p')").await;
    let docs =
        [json!({ "number": "A", "products": ["p", "q"] }), json!({ "number": "B", "products": ["p"] })];
    let ran = shop.run(&docs).await.succeeded();
    assert_eq!((ran.report["skipped_lookups"].clone(), ran.documents("unsettled")), (json!(1), 1));
    assert_eq!(shop.rows("SELECT count(*) FROM order_product").await, ["2"]);
    shop.written().await;
    let again = shop.run(&docs).await.succeeded();
    assert_eq!((again.report["skipped_lookups"].clone(), again.documents("unsettled")), (json!(1), 1));
    assert_eq!(shop.written().await, Edits::new(), "nothing can be mended yet");
    shop.db.execute("INSERT INTO product (code) VALUES ('q')").await;
    shop.written().await;
    let mended = shop.run(&docs).await.succeeded();
    assert_eq!(shop.written().await, edits(&[("order_product", 1, 0, 0)]));
    assert_eq!((mended.report["skipped_lookups"].clone(), mended.documents("unsettled")), (json!(0), 0));
    assert_eq!(shop.unsettled().await, "0");
}

/// What was recorded of the night of silence has no serials, as the night after it; what is stored has.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p12_lists_inside_a_list_that_was_absent_are_compared_when_it_is_back() {
    let shop = Shop::open().await;
    let order = |lines: Value| [json!({ "number": "A", "lines": lines })];
    shop.sync(&order(json!([{ "no": 1, "serials": ["a", "b"] }, { "no": 2, "serials": ["c"] }]))).await;
    let ran = shop.sync(&[json!({ "number": "A" })]).await;
    assert_eq!(ran.rows_written(), 0);
    let ran = shop.sync(&order(json!([{ "no": 1, "serials": [] }, { "no": 2, "serials": [] }]))).await;
    assert_eq!(ran.rows_written(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p14_siblings_are_equal_that_differ_by_references_only_that_are_left_out() {
    let schema = "CREATE TABLE kind (id bigserial PRIMARY KEY, name text UNIQUE);
         CREATE TABLE part (number text PRIMARY KEY);
         CREATE TABLE place (id bigserial PRIMARY KEY, part text REFERENCES part, name text, UNIQUE (part, name));
         CREATE TABLE place_kind (place bigint REFERENCES place, kind bigint REFERENCES kind, PRIMARY KEY (place, kind))";
    let mapping = r#"
version = 1
name = "shop"
root = { table = "part", key = "number", columns = { number = "number" }, children = [
    { name = "places", table = "place", parent = "part", id = "id", key = "name", columns = { name = "name" }, links = [
        { name = "kinds", table = "place_kind", parent = "place", target = "kind", lookup = "kind", match = { name = "." } }] }] }
lookups = { kind = { table = "kind", id = "id", key = "name", missing = "skip" } }
"#;
    let shop = Shop::with(schema, mapping).await;
    let part =
        json!({ "number": "1", "places": [{ "name": "a", "kinds": ["new"] }, { "name": "a", "kinds": [] }] });
    let ran = shop.run(&[part]).await.succeeded();
    assert_eq!((ran.documents("new"), ran.documents("unsettled")), (1, 1));
}
