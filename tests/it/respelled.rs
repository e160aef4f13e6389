//! Nights in which most documents come in another spelling: what is recorded is read at once then, and no longer looked
//! up document by document.

use serde_json::{Value, json};

use crate::oracle::Edits;
use crate::shop::{Shop, edits, failures};
use crate::support::command::Ran;

/// One batch after the other, of so many documents.
const BATCH: usize = 20;
const IN_TURN: [&str; 4] = ["--workers", "1", "--batch", "20"];

fn order(number: &str, files: &[u32]) -> Value {
    let files: Vec<Value> = files.iter().map(|id| json!({ "id": id, "name": format!("f{id}") })).collect();
    json!({ "number": number, "units": 1, "files": files })
}

/// Documents with nothing to them.
fn padding(name: &str, count: usize) -> Vec<Value> {
    (0..count).map(|n| order(&format!("{name}{n}"), &[])).collect()
}

/// With a field that nobody maps.
fn respelled(docs: &[Value]) -> Vec<Value> {
    let with_field = |mut doc: Value| {
        doc["fetched"] = json!("today");
        doc
    };
    docs.iter().cloned().map(with_field).collect()
}

async fn loaded(docs: &[Value]) -> Shop {
    let shop = Shop::open().await;
    shop.sync(docs).await;
    shop.written().await;
    shop
}

fn counts(ran: &Ran) -> [u64; 4] {
    ["unchanged", "changed", "respelled", "repeated"].map(|what| ran.documents(what))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p15_many_other_spellings_are_told_without_looking_each_up() {
    let shop = loaded(&padding("p", 10 * BATCH)).await;
    let (_, name) = shop.db.address();
    shop.db.execute(&format!("ALTER DATABASE {name} SET track_functions = 'all'")).await;
    let docs = respelled(&padding("p", 10 * BATCH));
    let ran = shop.run_with(&docs, &IN_TURN).await.succeeded();
    assert_eq!((counts(&ran), ran.documents("renewed")), ([200, 0, 200, 0], 200));
    assert!(ran.stderr.contains("200 unchanged, 200 of them in another spelling\n"), "{}", ran.stderr);
    assert_eq!(shop.written().await, Edits::new());
    // It is told when the session ends.
    let calls = "SELECT coalesce(sum(calls), 0) FROM pg_stat_user_functions WHERE funcname = 'base_of' OR funcname = 'states'";
    let mut looked_up = String::from("0");
    while looked_up == "0" {
        looked_up = shop.db.value(calls).await;
    }
    assert!(looked_up.parse::<u32>().unwrap() <= 2, "ten batches were looked up in {looked_up} calls");
    assert_eq!(counts(&shop.run_with(&docs, &IN_TURN).await.succeeded()), [200, 0, 0, 0]);
}

/// The few that changed are stored together.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p01_what_changed_among_many_other_spellings_is_stored_in_few_transactions() {
    let shop = loaded(&padding("p", 20 * BATCH)).await;
    let mut docs = respelled(&padding("p", 20 * BATCH));
    docs.iter_mut().step_by(10).for_each(|doc| doc["units"] = json!(2));
    shop.expect(&docs).await;
    let log = shop.db.value("SELECT pg_current_wal_insert_lsn()").await;
    let ran = shop.run_with(&docs, &IN_TURN).await.succeeded();
    assert_eq!(counts(&ran), [360, 40, 360, 0]);
    assert_eq!(shop.written().await, edits(&[("orders", 0, 40, 0)]));
    shop.state.check().await.unwrap();
    let writers = format!(
        "SELECT count(DISTINCT xmin::text) FROM orders WHERE units = 2 AND '{log}'::pg_lsn IS NOT NULL"
    );
    let transactions: u32 = shop.db.value(&writers).await.parse().unwrap();
    assert!(transactions <= 4, "40 documents in {transactions} transactions");
    let again = shop.run_with(&docs, &IN_TURN).await.succeeded();
    assert_eq!((counts(&again), shop.written().await), ([400, 0, 0, 0], Edits::new()));
}

/// What was read says that A has the file; B took it meanwhile, or takes it later as one of the few that are gathered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p17_a_claim_against_a_document_in_another_spelling_names_both() {
    for beside in [BATCH, 0] {
        let (a, b) = (order("A", &[1]), order("B", &[]));
        let shop = loaded(&[&padding("p", 5 * BATCH)[..], &[a.clone(), b]].concat()).await;
        let pad = respelled(&padding("p", 5 * BATCH));
        let claiming = [&[order("B", &[1])][..], &padding("new", beside)].concat();
        let docs = [&pad[..3 * BATCH], &claiming, &pad[3 * BATCH..], &respelled(&[a])].concat();
        let ran = shop.run_with(&docs, &IN_TURN).await;
        let mut said = failures(&ran);
        said.sort_by_key(|said| said.contains("[B]"));
        assert_eq!((ran.code, said.len()), (1, 2), "{said:?}\n{}", ran.stderr);
        assert!(said[0].contains("[A] files: ") && said[0].contains("claimed by B"), "{said:?}");
        assert!(said[1].contains("[B] files: ") && said[1].contains("claimed by A"), "{said:?}");
        let corrected: Vec<Value> = docs[..docs.len() - 1].iter().cloned().chain([order("A", &[])]).collect();
        shop.expect(&corrected).await;
        shop.run_with(&corrected, &IN_TURN).await.succeeded();
        shop.state.check().await.unwrap();
    }
}

/// As it stands in the database, and in another spelling: once it is unchanged, once repeated.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p14_a_document_that_stands_there_in_two_spellings_is_counted_once() {
    let (pad, a) = (padding("p", 3 * BATCH), [order("A", &[1])]);
    let shop = loaded(&[&pad[..], &a].concat()).await;
    let docs = [&a[..], &respelled(&pad), &respelled(&a)].concat();
    let ran = shop.run_with(&docs, &IN_TURN).await.succeeded();
    assert_eq!(counts(&ran), [61, 0, 60, 1]);
    assert_eq!(shop.written().await, Edits::new());
}

/// A plan says of them what the sync then does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p05_a_plan_of_many_other_spellings_counts_as_the_sync_does() {
    let shop = loaded(&padding("p", 5 * BATCH)).await;
    let mut docs = respelled(&padding("p", 5 * BATCH));
    docs[70]["units"] = json!(2);
    let feed = shop.scratch.write("night.ndjson", crate::shop::ndjson(&docs));
    let arguments =
        ["plan", "--json", "-d", &shop.url, "-m", shop.mapping.to_str().unwrap(), feed.to_str().unwrap()];
    let (code, said, told) = crate::support::command::output(&arguments);
    assert_eq!(code, 0, "{told}");
    let planned: Value = said.lines().map(|line| serde_json::from_str(line).unwrap()).next_back().unwrap();
    let ran = shop.run_with(&docs, &IN_TURN).await.succeeded();
    for what in ["unchanged", "changed", "respelled", "renewed"] {
        assert_eq!(planned["documents"][what], ran.report["documents"][what], "{what}: {planned:#}");
    }
    assert_eq!(counts(&ran), [99, 1, 99, 0]);
}
