//! What random nights found in the functions: each case by itself.

use serde_json::json;

use super::{Sql, many, open, sync};
use crate::nights::shape::counts_nulls_as_equal;
use crate::oracle::Edits;
use crate::shop::{MAPPING, SCHEMA, Shop};
use crate::verify::verify_at;

/// Files whose number may be missing.
async fn with_nameless_files() -> Option<(Shop, Sql)> {
    if !counts_nulls_as_equal() {
        println!("skipped: this server has no NULLS NOT DISTINCT");
        return None;
    }
    let schema = SCHEMA.replace("official int NOT NULL UNIQUE", "official int UNIQUE NULLS NOT DISTINCT");
    let mapping = MAPPING.replace("official = \"id\"", "official = { path = \"id\", nullable = true }");
    let shop = Shop::with(&schema, &mapping).await;
    let sql = Sql::with_file(&shop.db, &shop.mapping).await;
    Some((shop, sql))
}

/// A row with NULL in its key was read along with those that were asked for, and what is below it was deleted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p11_p17_rows_below_one_with_a_null_in_its_key_stay_when_others_of_the_table_are_looked_for() {
    let Some((shop, sql)) = with_nameless_files().await else { return };
    let nameless = json!({ "id": null, "pages": [{ "no": 1 }, { "no": 2 }] });
    sync(&shop, &sql, &[json!({ "number": "A", "files": [nameless] })]).await;
    sync(&shop, &sql, &[json!({ "number": "B", "files": [{ "id": 5, "pages": [{ "no": 1 }] }] })]).await;
    assert_eq!(shop.rows("SELECT count(*) FROM page").await, ["3"]);
    assert_eq!(shop.unsettled().await, "0", "A has lost nothing");
}

/// It was read twice where its document was looked at, too; then it could not be written, and moves were cut in two.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p04_p17_a_row_with_a_null_in_its_key_moves_beside_others() {
    let Some((shop, sql)) = with_nameless_files().await else { return };
    let file = |id: Option<u32>| json!({ "id": id, "pages": [{ "no": 1 }, { "no": 2, "body": "b" }] });
    let order = |number: &str, files: &[Option<u32>]| json!({ "number": number, "files": files.iter().map(|&id| file(id)).collect::<Vec<_>>() });
    sync(&shop, &sql, &[order("A", &[None, Some(1)]), order("B", &[Some(2)])]).await;
    let ids = "SELECT official, id FROM file ORDER BY 1";
    let before = shop.rows(ids).await;
    for docs in [
        [order("A", &[None, Some(2)]), order("B", &[Some(1)])],
        [order("A", &[Some(1), Some(2)]), order("B", &[None])],
        [order("A", &[None]), order("B", &[Some(1), Some(2)])],
    ] {
        sync(&shop, &sql, &docs).await;
        assert_eq!(shop.rows(ids).await, before, "every row is the one that it was");
    }
}

/// A document that stood twice was counted three times where what is recorded of it was packed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p05_p14_a_repeated_document_is_counted_once_whether_or_not_it_is_packed() {
    let (shop, sql) = open().await;
    for share in ["0", "1000000"] {
        shop.db.merge_from(share).await;
        let number = format!("A{share}");
        let docs = [
            json!({ "number": number, "units": 1 }),
            json!({ "number": number, "units": 1, "nobody": "maps" }),
        ];
        shop.run(&docs[..1]).await.succeeded();
        let ran = many(&sql, &docs).await;
        assert_eq!(
            ["read", "unchanged", "repeated"].map(|what| ran.documents(what)),
            [2, 1, 1],
            "share {share}: {:#}",
            ran.report
        );
    }
}

/// Rows of one list that leave different columns open were taken for rows that leave none open.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p36_no_drift_is_seen_in_rows_of_which_only_some_leave_a_column_open() {
    let (shop, sql) = open().await;
    let docs = [
        json!({ "number": "A", "lines": [{ "no": 1, "label": "a" }, { "no": 2 }, { "no": 3, "label": "c", "qty": 1 }] }),
    ];
    sync(&shop, &sql, &docs).await;
    shop.db.execute("UPDATE line SET label = 'by hand' WHERE no = 2").await;
    shop.written().await;
    assert_eq!(shop.rows("SELECT * FROM rowdelta.verify('shop')").await, [""; 0]);
    verify_at(&shop.url, &shop.mapping, &[]).await.finds_nothing();
}

const KEYED: &str = "
    CREATE TABLE root (k numeric PRIMARY KEY, note text);
    CREATE TABLE child (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, root numeric NOT NULL REFERENCES root, no int NOT NULL UNIQUE);";

const KEYED_MAPPING: &str = r#"
version = 1
name = "keyed"
[root]
table = "root"
key = "k"
columns = { k = "k", note = "note" }
[[root.children]]
name = "children"
table = "child"
parent = "root"
id = "id"
key = ["no"]
unique_in = "all"
columns = { no = "." }
"#;

/// A row that moved referred to its parent as the document spells its key, which the command took for another one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p06_p17_a_row_that_moves_refers_to_its_parent_as_that_is_stored() {
    let shop = Shop::with(KEYED, KEYED_MAPPING).await;
    let sql = Sql::with_file(&shop.db, &shop.mapping).await;
    sql.many(&[r#"{"k": 1, "children": [7]}"#, r#"{"k": 2.50, "children": [8]}"#]).await;
    sql.many(&[r#"{"k": 1, "children": []}"#, r#"{"k": 2.5, "children": [7, 8, 9]}"#]).await;
    assert_eq!(shop.rows("SELECT DISTINCT root::text FROM child").await, ["2.50"]);
    shop.written().await;
    let ran = shop.run(&[json!({ "k": 2.5, "children": [7, 8, 9], "note": null })]).await.succeeded();
    assert_eq!(ran.rows_written(), 0, "{:#}", ran.report);
    assert_eq!(shop.written().await, Edits::new());
}

/// A document that the command held back removals of was settled although it lacked a catalogue row.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p16_the_command_leaves_a_document_that_lacks_a_catalogue_row_to_be_done_again_whatever_it_removes() {
    let shop = Shop::with(SCHEMA, &MAPPING.replace("missing = \"insert\"", "missing = \"skip\"")).await;
    let order = |files: &[u32]| {
        let files: Vec<_> = files.iter().map(|id| json!({ "id": id })).collect();
        json!({ "number": "A", "files": files, "products": ["nowhere"] })
    };
    for files in [&[1, 2][..], &[1]] {
        let ran = shop.run(&[order(files)]).await.succeeded();
        assert_eq!((ran.documents("unsettled"), shop.unsettled().await.as_str()), (1, "1"), "{files:?}");
    }
}
