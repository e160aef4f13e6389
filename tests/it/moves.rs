//! P17: children that move from one document to another, and documents that claim the same child.

use serde_json::{Value, json};

use crate::oracle::Edits;
use crate::shop::{Shop, edits, failures};

/// More than a batch holds.
const PADDING: usize = 510;

fn order(number: &str, files: &[Value]) -> Value {
    json!({ "number": number, "files": files })
}

/// A file with two pages.
fn file(official: u32) -> Value {
    json!({ "id": official, "name": format!("f{official}"), "pages": [{ "no": 1, "body": "x" }, { "no": 2 }] })
}

/// Documents that differ every night, so that they fill a batch.
fn padding(night: u32) -> Vec<Value> {
    (0..PADDING).map(|n| json!({ "number": format!("pad{n}"), "units": night })).collect()
}

/// What must survive a move: all but the parent.
const KEPT: &str = "SELECT official, id, storage_path FROM file ORDER BY 1";
const WHERE: &str = "SELECT official, number FROM file JOIN orders ON orders.id = order_id ORDER BY 1";

/// A shop after its first night, each file with a path that the feed does not know.
async fn first_night(docs: &[Value]) -> (Shop, Vec<String>) {
    let shop = Shop::open().await;
    shop.sync(docs).await;
    shop.db.execute("UPDATE file SET storage_path = 'files/' || id").await;
    shop.written().await;
    let kept = shop.rows(KEPT).await;
    (shop, kept)
}

/// Syncs a night in which file 1 moves from A to B and nothing else happens to A, B and their files.
async fn moves_once(docs: &[Value], padded: bool) {
    let before = [order("A", &[file(1), file(2)]), order("B", &[])];
    let first = if padded { [&before[..], &padding(1)].concat() } else { before.to_vec() };
    let (shop, kept) = first_night(&first).await;
    shop.expect(docs).await;
    let ran = shop.run(docs).await.succeeded();
    let mut expected = edits(&[("file", 0, 1, 0)]);
    if padded {
        expected.extend(edits(&[("orders", 0, PADDING as u64, 0)]));
    }
    assert_eq!(shop.written().await, expected);
    shop.state.check().await.unwrap();
    assert_eq!(shop.state.smallest_edit().await.unwrap(), expected, "the oracle thinks so too");
    let files = ran.report["relations"].as_array().unwrap().iter().find(|r| r["name"] == "files").unwrap();
    assert_eq!((&files["moved"], &files["updated"], &files["removed"]), (&json!(1), &json!(0), &json!(0)));
    assert_eq!(shop.rows(KEPT).await, kept);
    assert_eq!(shop.rows(WHERE).await, ["1|B", "2|A"]);
    assert_eq!((ran.documents("unsettled"), shop.unsettled().await.as_str()), (0, "0"));
    let again = shop.run(docs).await.succeeded();
    assert_eq!((again.documents("unchanged"), shop.written().await), (docs.len() as u64, Edits::new()));
}

fn after() -> (Value, Value) {
    (order("A", &[file(2)]), order("B", &[file(1)]))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p17_a_file_moves_within_a_batch_whoever_comes_first() {
    let (loser, taker) = after();
    moves_once(&[loser.clone(), taker.clone()], false).await;
    moves_once(&[taker, loser], false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p17_a_file_moves_to_a_later_batch() {
    let (loser, taker) = after();
    moves_once(&[&[loser][..], &padding(2), &[taker]].concat(), true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p17_a_file_moves_to_an_earlier_batch() {
    let (loser, taker) = after();
    moves_once(&[&[taker][..], &padding(2), &[loser]].concat(), true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p17_a_file_moves_from_a_document_that_is_not_in_the_feed() {
    let (shop, kept) = first_night(&[order("A", &[file(1), file(2)]), order("B", &[])]).await;
    let taker = [order("B", &[file(1)])];
    let ran = shop.run(&taker).await.succeeded();
    assert_eq!(shop.written().await, edits(&[("file", 0, 1, 0)]));
    assert_eq!((shop.rows(KEPT).await, shop.rows(WHERE).await), (kept, vec!["1|B".into(), "2|A".into()]));
    assert_eq!(ran.rows_written(), 1);
    // The document that lost it is looked at again, although its bytes are those of last time.
    let ran = shop.run(&[order("A", &[file(1), file(2)])]).await.succeeded();
    assert_eq!(shop.written().await, edits(&[("file", 0, 1, 0)]));
    assert_eq!((ran.documents("changed"), shop.rows(WHERE).await), (1, vec!["1|A".into(), "2|A".into()]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p17_a_file_that_moves_and_changes_is_one_update_and_so_are_its_pages() {
    let (shop, kept) = first_night(&[order("A", &[file(1)]), order("B", &[])]).await;
    let changed = json!({ "id": 1, "name": "new", "pages": [{ "no": 1, "body": "y" }, { "no": 3 }] });
    shop.sync(&[order("A", &[]), order("B", &[changed])]).await;
    assert_eq!(shop.rows(KEPT).await, kept);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p17_files_swap_documents() {
    let (shop, kept) = first_night(&[order("A", &[file(1)]), order("B", &[file(2)])]).await;
    shop.sync(&[order("A", &[file(2)]), order("B", &[file(1)])]).await;
    assert_eq!(
        (shop.rows(KEPT).await, shop.rows(WHERE).await),
        (kept.clone(), vec!["1|B".into(), "2|A".into()])
    );
    let back = [&[order("A", &[file(1)])][..], &padding(1), &[order("B", &[file(2)])]].concat();
    shop.sync(&back).await;
    assert_eq!((shop.rows(KEPT).await, shop.rows(WHERE).await), (kept, vec!["1|A".into(), "2|B".into()]));
    assert_eq!(shop.unsettled().await, "0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p17_a_file_moves_to_a_new_document() {
    let (shop, kept) = first_night(&[order("A", &[file(1)])]).await;
    shop.sync(&[order("A", &[]), order("NEW", &[file(1)])]).await;
    shop.sync(&[&[order("NEWER", &[file(1)])][..], &padding(1), &[order("NEW", &[])]].concat()).await;
    assert_eq!((shop.rows(KEPT).await, shop.rows(WHERE).await), (kept, vec!["1|NEWER".into()]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p17_a_removed_file_that_nobody_takes_is_gone_at_the_end_and_its_document_settled() {
    let (shop, _) = first_night(&[order("A", &[file(1), file(2)]), order("B", &[])]).await;
    let docs = [order("A", &[file(2)]), order("B", &[])];
    let ran = shop.sync(&docs).await;
    assert_eq!((ran.documents("unsettled"), shop.unsettled().await.as_str()), (0, "0"));
    assert_eq!(shop.rows(WHERE).await, ["2|A"]);
    let again = shop.sync(&docs).await;
    assert_eq!(again.documents("unchanged"), 2);
    // Skipped by its bytes: not one row of it was even read.
    let relations = again.report["relations"].as_array().unwrap();
    assert!(relations.iter().all(|relation| relation["unchanged"] == 0), "{relations:#?}");
}

/// A run in which A and B both ask for file 1, and the run with a corrected feed after it.
async fn both_claim(before: &[Value], docs: &[Value], lines: [usize; 2]) {
    let (shop, kept) = first_night(before).await;
    let ran = shop.run(docs).await;
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    let path = shop.scratch.path("feed.ndjson");
    let said = |line: usize, who: &str, other: usize, whom: &str| {
        let place = format!("{}:{other}", path.display());
        format!(
            "feed.ndjson:{line} [{who}] files: a row of file, whose key is unique in the table, is claimed by {whom} ({place}) \
             too: take it out of one of the two, or say unique_in = \"parent\""
        )
    };
    let [a, b] = lines;
    let mut expected = vec![(a, said(a, "A", b, "B")), (b, said(b, "B", a, "A"))];
    expected.sort();
    assert_eq!(failures(&ran), expected.into_iter().map(|(_, said)| said).collect::<Vec<_>>());
    assert_eq!(ran.documents("failed"), 2);
    let corrected: Vec<Value> = docs
        .iter()
        .map(|doc| if doc["number"] == "A" { without_files(doc.clone()) } else { doc.clone() })
        .collect();
    shop.expect(&corrected).await;
    shop.run(&corrected).await.succeeded();
    shop.state.check().await.unwrap();
    assert_eq!((shop.rows(WHERE).await, shop.unsettled().await.as_str()), (vec!["1|B".into()], "0"));
    if !kept.is_empty() {
        assert_eq!(shop.rows(KEPT).await, kept);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p17_two_claims_in_one_batch_name_both_documents() {
    let docs = [order("A", &[file(1)]), order("B", &[file(1)]), order("C", &[])];
    both_claim(&[], &docs, [1, 2]).await;
    both_claim(
        &[order("A", &[file(1)])],
        &docs[1..].iter().chain(&docs[..1]).cloned().map(changed).collect::<Vec<_>>(),
        [3, 1],
    )
    .await;
}

fn without_files(mut doc: Value) -> Value {
    doc["files"] = json!([]);
    doc
}

/// Other bytes and rows: it is looked at.
fn changed(mut doc: Value) -> Value {
    doc["units"] = 7.into();
    doc
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p17_two_claims_in_different_batches_name_both_documents() {
    let docs = [&[order("A", &[file(1)])][..], &padding(1), &[order("B", &[file(1)])]].concat();
    both_claim(&[], &docs, [1, PADDING + 2]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p17_two_claims_on_a_stored_file_in_different_batches_name_both_documents() {
    let before = [order("A", &[file(1)]), order("B", &[])];
    let (a, b) = (changed(order("A", &[file(1)])), order("B", &[file(1)]));
    both_claim(
        &before,
        &[&[a.clone()][..], &padding(1), std::slice::from_ref(&b)].concat(),
        [1, PADDING + 2],
    )
    .await;
    both_claim(&before, &[&[b][..], &padding(1), &[a]].concat(), [PADDING + 2, 1]).await;
}

/// Giving a child up does not make it free for all: B has it when C comes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p17_a_file_given_up_is_claimed_by_two_in_later_batches() {
    let (shop, kept) = first_night(&[order("GAVE", &[file(1)])]).await;
    let docs = [
        &[order("GAVE", &[])][..],
        &padding(1),
        &[order("B", &[file(1)])],
        &padding(1)
            .into_iter()
            .map(|doc| json!({ "number": format!("more {}", doc["number"]) }))
            .collect::<Vec<_>>(),
        &[order("C", &[file(1)])],
    ]
    .concat();
    let ran = shop.run(&docs).await;
    let said = failures(&ran);
    assert_eq!((ran.code, said.len()), (1, 2), "{said:?}");
    assert!(said[0].contains("[B] files: ") && said[0].contains("claimed by C ("), "{said:?}");
    assert!(said[1].contains("[C] files: ") && said[1].contains("claimed by B ("), "{said:?}");
    shop.expect(&docs[..docs.len() - 1]).await;
    shop.run(&docs[..docs.len() - 1]).await.succeeded();
    assert_eq!((shop.rows(KEPT).await, shop.rows(WHERE).await), (kept, vec!["1|B".into()]));
}

/// A is skipped by its bytes; that it has the file is known from the database alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p17_a_claim_against_an_unchanged_document_names_both() {
    let before = [order("A", &[file(1)]), order("B", &[])];
    let (a, b) = (order("A", &[file(1)]), order("B", &[file(1)]));
    both_claim(&before, &[a.clone(), b.clone()], [1, 2]).await;
    both_claim(&before, &[b.clone(), a.clone()], [2, 1]).await;
    both_claim(&before, &[&[b][..], &padding(1), &[a]].concat(), [PADDING + 2, 1]).await;
}

/// Items whose key is unique in the table hang two levels down, under parcels.
const PARCELS: &str = "
    CREATE TABLE shipment (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, code text NOT NULL UNIQUE, units int);
    CREATE TABLE parcel (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, shipment_id int NOT NULL REFERENCES shipment,
        no int NOT NULL, UNIQUE (shipment_id, no));
    CREATE TABLE item (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, parcel_id int NOT NULL REFERENCES parcel,
        serial text NOT NULL UNIQUE, storage_path text);
    CREATE TABLE mark (item_id int NOT NULL REFERENCES item, word text NOT NULL, PRIMARY KEY (item_id, word));";

const PARCELS_MAPPING: &str = r#"
version = 1
name = "shipments"
[root]
table = "shipment"
key = ["code"]
id = "id"
columns = { code = "code", units = "units" }
[[root.children]]
name = "parcels"
table = "parcel"
parent = "shipment_id"
id = "id"
key = ["no"]
columns = { no = "no" }
[[root.children.children]]
name = "items"
table = "item"
parent = "parcel_id"
id = "id"
key = ["serial"]
unique_in = "all"
columns = { serial = "serial" }
[[root.children.children.children]]
name = "marks"
table = "mark"
parent = "item_id"
key = ["word"]
columns = { word = "." }
"#;

fn shipment(code: &str, parcels: Value) -> Value {
    json!({ "code": code, "parcels": parcels })
}

/// The item `x` leaves parcel 1 of A, which dies, for parcel 7 of B.
async fn leaves_a_dying_parcel(docs: &[Value], padding: usize) {
    let shop = Shop::with(PARCELS, PARCELS_MAPPING).await;
    let item = json!({ "serial": "x", "marks": ["m", "n"] });
    shop.sync(&[
        shipment("A", json!([{ "no": 1, "items": [item] }, { "no": 2, "items": [] }])),
        shipment("B", json!([])),
    ])
    .await;
    shop.db.execute("UPDATE item SET storage_path = 'kept'").await;
    shop.written().await;
    shop.expect(docs).await;
    let ran = shop.run(docs).await.succeeded();
    let mut expected = edits(&[("parcel", 1, 0, 1), ("item", 0, 1, 0)]);
    if padding > 0 {
        expected.extend(edits(&[("shipment", padding as u64, 0, 0)]));
    }
    assert_eq!(shop.written().await, expected);
    shop.state.check().await.unwrap();
    let stored = "SELECT i.id, serial, storage_path, no, count(*) FROM item i JOIN mark ON item_id = i.id
                  JOIN parcel ON parcel.id = parcel_id GROUP BY 1, 2, 3, 4";
    assert_eq!(shop.rows(stored).await, ["1|x|kept|7|2"]);
    assert_eq!((ran.documents("unsettled"), shop.unsettled().await.as_str()), (0, "0"));
}

fn parcels_after() -> (Value, Value) {
    let item = json!({ "serial": "x", "marks": ["n", "m"] });
    (shipment("A", json!([{ "no": 2, "items": [] }])), shipment("B", json!([{ "no": 7, "items": [item] }])))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p18_an_item_leaves_a_dying_parcel_before_it_goes() {
    let (loser, taker) = parcels_after();
    leaves_a_dying_parcel(&[loser.clone(), taker.clone()], 0).await;
    leaves_a_dying_parcel(&[taker, loser], 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p18_an_item_leaves_a_dying_parcel_for_another_batch() {
    let (loser, taker) = parcels_after();
    let padding: Vec<Value> = (0..PADDING).map(|n| json!({ "code": format!("pad{n}") })).collect();
    leaves_a_dying_parcel(&[&[loser.clone()][..], &padding, std::slice::from_ref(&taker)].concat(), PADDING)
        .await;
    leaves_a_dying_parcel(&[&[taker][..], &padding, &[loser]].concat(), PADDING).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p18_a_dying_parcel_takes_along_items_that_nobody_takes() {
    let shop = Shop::with(PARCELS, PARCELS_MAPPING).await;
    let items = json!([{ "serial": "x", "marks": ["m"] }, { "serial": "y" }]);
    shop.sync(&[shipment("A", json!([{ "no": 1, "items": items }]))]).await;
    let ran = shop.sync(&[shipment("A", json!([]))]).await;
    assert_eq!((ran.documents("unsettled"), shop.unsettled().await.as_str()), (0, "0"));
    assert_eq!(shop.rows("SELECT (SELECT count(*) FROM parcel) + (SELECT count(*) FROM item)").await, ["0"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p17_an_item_moves_between_parcels_of_one_shipment() {
    let shop = Shop::with(PARCELS, PARCELS_MAPPING).await;
    let item = json!({ "serial": "x", "marks": ["m"] });
    shop.sync(&[shipment("A", json!([{ "no": 1, "items": [item] }, { "no": 2, "items": [] }]))]).await;
    shop.expect(&[shipment("A", json!([{ "no": 1, "items": [] }, { "no": 2, "items": [item] }]))]).await;
    let after = [shipment("A", json!([{ "no": 1, "items": [] }, { "no": 2, "items": [item] }]))];
    shop.run(&after).await.succeeded();
    assert_eq!(shop.written().await, edits(&[("item", 0, 1, 0)]));
    shop.state.check().await.unwrap();
    assert_eq!(shop.unsettled().await, "0");
}
