//! What is recorded of rewritten rows outlives changes of the mapping and of keys.

use serde_json::{Value, json};

use super::{TIDY, order, stays_quiet, writes};
use crate::oracle::Edits;
use crate::shop::{BY_RELATION, MAPPING, SCHEMA, Shop, edits};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p21_p33_forms_outlive_columns_that_come_go_and_change_places() {
    let mut shop = Shop::open().await;
    shop.db.execute(TIDY).await;
    let docs = vec![order(1), order(2)];
    shop.run(&docs).await.succeeded();
    shop.written().await;
    let gone = ["city = \"address.city\"\n", "units = \"units\"\n", "ordered = \"ordered\"\n"];
    let fewer = gone.iter().fold(MAPPING.to_owned(), |mapping, column| mapping.replace(column, ""));
    let lines = r#"{ no = "no", label = "label", qty = "qty" }"#;
    let fewer = fewer.replace(lines, r#"{ label = "label", no = "no" }"#);
    let turned = MAPPING.replace(lines, r#"{ qty = "qty", label = "label", no = "no" }"#);
    let turned = turned
        .replace("number = \"number\"\n", "")
        .replace("note = \"note\"\n", "note = \"note\"\nnumber = \"number\"\n");
    for mapping in [&fewer, MAPPING, &turned] {
        shop.remap(mapping).await;
        let ran = shop.run(&docs).await.succeeded();
        assert_eq!(shop.written().await, Edits::new(), "{:#}", ran.report);
        stays_quiet(&shop, &docs).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p04_p21_p33_rewritten_rows_without_a_key_outlive_a_new_column() {
    let own = "CREATE TABLE tag (order_id bigint NOT NULL REFERENCES orders, word text);";
    let with_id = "CREATE TABLE tag (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        order_id bigint NOT NULL REFERENCES orders, word text, kind text);";
    let tags = MAPPING.replace("columns = { word = \".\" }", "columns = { word = \"word\" }");
    assert!(SCHEMA.contains(own) && tags != MAPPING);
    let mut shop = Shop::with(&SCHEMA.replace(own, with_id), &tags).await;
    shop.db.execute(TIDY).await;
    let mut docs = vec![order(1)];
    docs[0]["tags"] =
        ["Red", "Red", "Blue", "green"].map(|word| json!({ "word": word, "kind": "k" })).to_vec().into();
    shop.run(&docs).await.succeeded();
    shop.db.execute("UPDATE tag SET kind = 'k'").await;
    shop.written().await;
    let before = shop.rows("SELECT id, word FROM tag ORDER BY id").await;
    shop.remap(
        &tags.replace("columns = { word = \"word\" }", "columns = { kind = \"kind\", word = \"word\" }"),
    )
    .await;
    writes(&shop, &docs, &[]).await;
    assert_eq!(shop.rows("SELECT id, word FROM tag ORDER BY id").await, before);
    docs[0]["tags"][0]["word"] = json!("Pink");
    writes(&shop, &docs, &[("tag", 1, 0, 1)]).await;
}

fn silent(mut doc: Value) -> Value {
    ["lines", "files", "tags", "products"]
        .iter()
        .for_each(|list| drop(doc.as_object_mut().unwrap().remove(*list)));
    doc
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p12_p21_forms_outlive_a_document_that_says_nothing_of_its_lists() {
    let shop = Shop::open().await;
    shop.db.execute(TIDY).await;
    let mut docs = vec![order(1)];
    shop.run(&docs).await.succeeded();
    shop.written().await;
    docs[0]["units"] = json!(2);
    shop.run(&[silent(docs[0].clone())]).await.succeeded();
    assert_eq!(shop.written().await, edits(&[("orders", 0, 1, 0)]));
    writes(&shop, &docs, &[]).await;
}

async fn forms_pass_to_the_key_that_a_document_has_now(more: &str) {
    let schema = SCHEMA.replace("summary text)", "summary text, uid int UNIQUE)");
    let mapping = MAPPING.replace("key = [\"number\"]\n", "key = [\"number\"]\nalternate_key = \"uid\"\n");
    let mapping = mapping.replace("[root.columns]\n", "[root.columns]\nuid = \"uid\"\n") + more;
    let shop = Shop::with(&schema, &mapping).await;
    shop.db.execute(TIDY).await;
    let mut docs: Vec<Value> = (1..=3).map(order).collect();
    docs.iter_mut().zip(1..).for_each(|(doc, uid)| doc["uid"] = json!(uid));
    shop.run(&docs).await.succeeded();
    shop.written().await;
    // Corrected, by a document that says nothing of its lists, and by one that does.
    docs[0]["number"] = json!("M1");
    docs[1]["number"] = json!("M2");
    let ran = shop.run(&[silent(docs[0].clone()), docs[1].clone()]).await.succeeded();
    assert_eq!(shop.written().await, edits(&[("orders", 0, 2, 0)]), "{:#}", ran.report);
    let ran = shop.run(&docs).await.succeeded();
    assert_eq!(shop.written().await, Edits::new(), "{:#}", ran.report);
    stays_quiet(&shop, &docs).await;
    // Exchanged.
    docs[0]["number"] = json!("N3");
    docs[2]["number"] = json!("M1");
    docs[0]["tags"] = json!(["Blue"]);
    shop.run(&docs.iter().cloned().map(silent).collect::<Vec<_>>()).await.succeeded();
    shop.written().await;
    let ran = shop.run(&docs).await.succeeded();
    assert_eq!(shop.written().await, edits(&[("tag", 1, 0, 4)]), "{:#}", ran.report);
    stays_quiet(&shop, &docs).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p16_p21_forms_pass_to_the_key_that_a_document_has_now() {
    forms_pass_to_the_key_that_a_document_has_now("").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p16_p21_p24_forms_pass_to_the_key_that_a_document_has_now_relation_by_relation() {
    forms_pass_to_the_key_that_a_document_has_now(BY_RELATION).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p21_an_ignored_column_is_sent_with_a_rewritten_row() {
    let schema = SCHEMA.replace("label text, qty int,", "label text, qty int, size int,");
    let columns = r#"{ no = "no", label = "label", qty = { path = "qty", ignore = true }, size = "size" }"#;
    let mapping = MAPPING.replace(r#"{ no = "no", label = "label", qty = "qty" }"#, columns);
    // The oracle does not know such columns.
    let mut shop = Shop::with(&schema, MAPPING).await;
    shop.mapping = shop.scratch.write("ignoring.toml", mapping);
    shop.db.execute(TIDY).await;
    let mut docs = vec![order(1)];
    docs[0]["lines"].as_array_mut().unwrap().iter_mut().for_each(|line| line["size"] = json!(1));
    shop.run(&docs).await.succeeded();
    shop.written().await;
    // The list is compared, and this row left as it is.
    docs[0]["lines"][0]["qty"] = json!(7);
    docs[0]["lines"][1]["size"] = json!(2);
    writes(&shop, &docs, &[("line", 0, 1, 0)]).await;
    assert_eq!(shop.rows("SELECT qty FROM line WHERE no = 1").await, ["1"]);
    docs[0]["lines"][0]["size"] = json!(3);
    writes(&shop, &docs, &[("line", 0, 1, 0)]).await;
    assert_eq!(shop.rows("SELECT label, qty, size FROM line WHERE no = 1").await, ["one|7|3"]);
}
