//! What a mapping can say beyond names and paths: constants, lists of several kinds, one item in place of a list, and
//! how text is altered.

use serde_json::{Value, json};

use crate::oracle::Edits;
use crate::shop::{Shop, edits, failures};
use crate::support::command::{self, Ran};

const SCHEMA: &str = "
    CREATE TABLE call (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, origin text NOT NULL, code text NOT NULL,
        priority int, open boolean, rate numeric, address inet, since date, note text, extra jsonb, verbatim json,
        title varchar(6), UNIQUE (origin, code));
    CREATE TABLE pdf (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, call_id bigint NOT NULL REFERENCES call,
        kind text NOT NULL, name text NOT NULL, pages int, place int, UNIQUE (call_id, kind, name));
    CREATE TABLE image (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, call_id bigint NOT NULL REFERENCES call,
        name text NOT NULL, width int, place int, UNIQUE (call_id, name));
    CREATE TABLE contact (call_id bigint NOT NULL REFERENCES call, name text NOT NULL, place int, PRIMARY KEY (call_id, name));
    CREATE TABLE tag (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, label text UNIQUE);
    CREATE TABLE call_tag (call_id bigint REFERENCES call, tag_id bigint REFERENCES tag, source text,
        PRIMARY KEY (call_id, tag_id));";

const MAPPING: &str = r#"
version = 1
name = "calls"

[root]
table = "call"
key = ["origin", "code"]
id = "id"

[root.columns]
origin = { value = "bdns" }
code = { path = "code", nfc = true }
priority = { value = 7 }
open = { value = true }
rate = { value = 1.50 }
address = { value = "10.0.0.1" }
since = { value = "2024-02-29" }
note = { path = "note", nul = "strip", nfc = true }
extra = { path = "extra", nul = "replace" }
verbatim = { path = "extra", nul = "strip" }
title = { path = "title", nul = "strip" }

[[root.children]]
name = "pdfs"
path = "files"
where = { kind = "pdf" }
table = "pdf"
parent = "call_id"
id = "id"
key = ["kind", "name"]
columns = { kind = { value = "pdf" }, name = "name", pages = "pages", place = { position = 1 } }

[[root.children]]
name = "images"
path = "files"
where = { kind = ["png", 2, true], size.known = true }
table = "image"
parent = "call_id"
id = "id"
key = ["name"]
columns = { name = "name", width = "size.width", place = "@index" }

[[root.children]]
name = "contacts"
table = "contact"
parent = "call_id"
key = "name"
when_single = "item"
columns = { name = "name", place = "@index" }

[[root.links]]
name = "tags"
table = "call_tag"
parent = "call_id"
target = "tag_id"
lookup = "tag"
match = { label = "." }
when_single = "item"
columns = { source = { value = "feed" } }

[lookups.tag]
table = "tag"
id = "id"
key = "label"
missing = "insert"
columns = { label = { nul = "strip", nfc = true } }
"#;

async fn shop() -> Shop {
    Shop::with(SCHEMA, MAPPING).await
}

/// The images of unknown kinds are passed over.
fn ignoring() -> String {
    MAPPING.replacen("table = \"image\"", "table = \"image\"\notherwise = \"ignore\"", 1)
}

fn call(code: &str, files: Value) -> Value {
    json!({ "code": code, "files": files })
}

/// Syncs a feed that must succeed; the same again writes nothing, and nothing differs from it.
async fn settled(shop: &Shop, docs: &[Value]) -> Ran {
    let ran = shop.sync(docs).await;
    let again = shop.sync(docs).await;
    assert_eq!((again.documents("unchanged"), again.rows_written()), (docs.len() as u64, 0));
    // Without the state every row is read back and compared.
    shop.db.execute("TRUNCATE rowdelta.document, rowdelta.base, rowdelta.skip").await;
    assert_eq!(shop.sync(docs).await.rows_written(), 0);
    let (map, feed) = (shop.mapping.to_str().unwrap(), shop.scratch.path("feed.ndjson"));
    let verify = ["verify", "-d", &shop.url, "-m", map];
    assert_eq!(command::run(&verify).0, 0);
    assert_eq!(command::run(&[&verify[..], &[feed.to_str().unwrap()]].concat()).0, 0);
    ran
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p02_constants_are_stored_like_scalars_of_a_document_and_may_be_part_of_a_key() {
    let shop = shop().await;
    let docs = [
        json!({ "code": "A", "files": [{ "kind": "pdf", "name": "x" }], "tags": ["t"] }),
        json!({ "code": "B" }),
    ];
    settled(&shop, &docs).await;
    let stored = "SELECT origin, code, priority, open, rate, address, since FROM call ORDER BY code";
    let constant = |code: &str| format!("bdns|{code}|7|t|1.5|10.0.0.1|2024-02-29");
    assert_eq!(shop.rows(stored).await, [constant("A"), constant("B")]);
    assert_eq!(shop.rows("SELECT kind, name FROM pdf").await, ["pdf|x"]);
    assert_eq!(shop.rows("SELECT source FROM call_tag").await, ["feed"]);
    // Another source with the same code is another call.
    shop.db.execute("INSERT INTO call (origin, code) VALUES ('other', 'A')").await;
    shop.written().await;
    shop.run(&docs).await.succeeded();
    assert_eq!(shop.written().await, Edits::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p33_another_constant_is_written_once() {
    let mut shop = shop().await;
    let docs = [call("A", json!([])), call("B", json!([]))];
    shop.sync(&docs).await;
    shop.remap(&MAPPING.replace("value = 7", "value = 8")).await;
    shop.sync(&docs).await;
    assert_eq!(shop.rows("SELECT DISTINCT priority FROM call").await, ["8"]);
    settled(&shop, &docs).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p02_items_of_one_list_go_to_the_tables_of_their_kinds() {
    let shop = shop().await;
    let files = json!([
        { "kind": "pdf", "name": "a", "pages": 1 },
        { "kind": "png", "name": "a", "size": { "width": 5, "known": true } },
        { "kind": 2.0, "name": "b", "size": { "known": true } },
        { "kind": "pdf", "name": "c" },
        { "kind": true, "name": "d", "size": { "known": true } },
    ]);
    settled(&shop, &[call("A", files)]).await;
    assert_eq!(shop.rows("SELECT name, pages, place FROM pdf ORDER BY 1").await, ["a|1|1", "c|NULL|2"]);
    let images = shop.rows("SELECT name, width, place FROM image ORDER BY 1").await;
    assert_eq!(images, ["a|5|1", "b|NULL|2", "d|NULL|4"], "@index counts all items of the list");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p02_an_item_of_another_kind_leaves_its_table_for_the_other() {
    let shop = shop().await;
    let files = |kind: &str| json!([{ "kind": kind, "name": "a", "size": { "known": true } }]);
    shop.sync(&[call("A", files("pdf"))]).await;
    shop.expect(&[call("A", files("png"))]).await;
    let ran = shop.run(&[call("A", files("png"))]).await.succeeded();
    assert_eq!(shop.written().await, edits(&[("image", 1, 0, 0), ("pdf", 0, 0, 1)]));
    assert_eq!(ran.rows_written(), 2);
    shop.state.check().await.unwrap();
    settled(&shop, &[call("A", files("png"))]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p12_an_item_of_a_kind_that_nobody_knows_fails_its_document() {
    let shop = shop().await;
    let good = call("B", json!([{ "kind": "pdf", "name": "a" }]));
    shop.sync(&[call("A", json!([{ "kind": "pdf", "name": "kept" }])), good.clone()]).await;
    let mend = "add one whose where does, or otherwise = \"ignore\"";
    for (stray, said) in [
        (json!({ "kind": "PDF" }), "kind is \"PDF\", size.known is absent"),
        (json!({ "kind": "png", "size": { "known": false } }), "kind is \"png\", size.known is false"),
        (json!({ "kind": "2", "size": { "known": true } }), "kind is \"2\", size.known is true"),
        (json!({ "kind": null }), "kind is null, size.known is absent"),
        (json!({ "kind": ["pdf"] }), "kind is a list, size.known is absent"),
        (json!({}), "kind is absent, size.known is absent"),
        (json!("pdf"), "kind is absent, size.known is absent"),
    ] {
        let docs = [call("A", json!([{ "kind": "pdf", "name": "other" }, stray])), good.clone()];
        let ran = shop.run(&docs).await;
        let expected =
            format!("feed.ndjson:1 [A] pdfs files[1]: no relation takes this item ({said}); {mend}");
        assert_eq!((ran.code, failures(&ran)), (1, vec![expected]));
    }
    assert_eq!(shop.written().await, Edits::new());
    assert_eq!(shop.rows("SELECT name FROM pdf ORDER BY 1").await, ["a", "kept"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p12_items_that_are_ignored_take_no_part_in_anything() {
    let shop = Shop::with(SCHEMA, &ignoring()).await;
    let files = json!([
        { "kind": "xls", "name": "a", "pages": 9 },
        { "kind": "pdf", "name": "a", "pages": 1 },
        "no object", null, 7, { "name": "a" }, { "kind": null }, { "kind": { "pdf": 1 } }, ["pdf"],
        { "kind": "pdf", "name": "b" },
        { "kind": "xls" },
    ]);
    settled(&shop, &[call("A", files)]).await;
    assert_eq!(shop.rows("SELECT name, pages, place FROM pdf ORDER BY 1").await, ["a|1|1", "b|NULL|2"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p33_what_becomes_of_unknown_kinds_makes_no_row_unknown() {
    let mut shop = shop().await;
    let docs = [call("A", json!([{ "kind": "pdf", "name": "a" }]))];
    shop.sync(&docs).await;
    shop.remap(&ignoring()).await;
    let ran = shop.run(&docs).await.succeeded();
    assert_eq!((ran.documents("unchanged"), shop.written().await), (1, Edits::new()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p12_what_is_no_list_is_the_one_item_of_it_where_the_mapping_says_so() {
    let shop = shop().await;
    settled(&shop, &[json!({ "code": "A", "contacts": { "name": "n" }, "tags": "t" })]).await;
    assert_eq!(shop.rows("SELECT name, place FROM contact").await, ["n|0"]);
    assert_eq!(shop.rows("SELECT label FROM tag").await, ["t"]);
    // A list of it is the same.
    let listed = [json!({ "code": "A", "contacts": [{ "name": "n" }], "tags": ["t"] })];
    let ran = shop.sync(&listed).await;
    assert_eq!((ran.documents("unchanged"), ran.rows_written()), (1, 0));
    shop.sync(&[json!({ "code": "A", "contacts": null, "tags": [] })]).await;
    assert_eq!(shop.rows("SELECT count(*) FROM contact").await, ["0"]);
    // Places inside are named without a number; by default it is a fault.
    let ran = shop.run(&[json!({ "code": "A", "contacts": { "name": null } })]).await;
    assert_eq!(
        failures(&ran),
        [
            "feed.ndjson:1 [A] contacts contacts.name: is null, and part of the key; give it, or say nullable = true"
        ]
    );
    let ran = shop.run(&[call("A", json!({ "kind": "pdf", "name": "a" }))]).await;
    assert_eq!(failures(&ran), ["feed.ndjson:1 [A] pdfs files: expected a list, found an object"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p09_u0000_is_left_out_or_replaced_as_the_column_says_and_counted() {
    let shop = shop().await;
    let docs = [json!({
        "code": "A", "note": "a\0b\0", "title": "\0six678", "tags": ["\0t", "plain"],
        "extra": { "k\0": ["x\0y", 1.50], "k": 2 },
    })];
    let ran = settled(&shop, &docs).await;
    // The document is shredded twice, because the server converts `verbatim` and looks the tags up.
    assert_eq!(ran.report["nuls"], 5, "note, title, extra, verbatim, one tag; {:#}", ran.report);
    assert_eq!(shop.rows("SELECT note, title FROM call").await, ["ab|six678"]);
    assert_eq!(
        shop.rows("SELECT extra FROM call").await,
        ["{\"k\": 2, \"k\u{fffd}\": [\"x\u{fffd}y\", 1.5]}"]
    );
    assert_eq!(shop.rows("SELECT verbatim FROM call").await, ["{\"k\":2,\"k\":[\"xy\",1.5]}"]);
    assert_eq!(shop.rows("SELECT label FROM tag ORDER BY 1").await, ["plain", "t"]);
    let ran = shop.run(&[json!({ "code": "B\0" })]).await;
    let said = "feed.ndjson:1 [B] calls code: contains U+0000, which PostgreSQL cannot store";
    assert_eq!(failures(&ran), [said], "by default it is a fault");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p09_text_in_another_normal_form_is_the_same_text_where_the_column_says_so() {
    let shop = shop().await;
    let spelled = |e: &str| json!({ "code": format!("caf{e}"), "note": format!("{e}"), "tags": [format!("{e}")], "title": e });
    settled(&shop, &[spelled("e\u{301}")]).await;
    assert_eq!(shop.rows("SELECT code, note, length(title) FROM call").await, ["café|é|2"]);
    assert_eq!(shop.rows("SELECT label FROM tag").await, ["é"]);
    // The key and the tag are the same, whatever form they come in; only `title` keeps the form that it is given.
    shop.expect(&[spelled("é")]).await;
    shop.run(&[spelled("é")]).await.succeeded();
    assert_eq!(shop.written().await, edits(&[("call", 0, 1, 0)]));
    shop.state.check().await.unwrap();
    assert_eq!(shop.rows("SELECT length(title) FROM call").await, ["1"]);
    let twice = shop.run(&[spelled("é"), spelled("é")]).await.succeeded();
    assert_eq!(twice.documents("repeated"), 1);
}
