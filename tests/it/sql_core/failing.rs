//! Documents that fail are named and keep none of the others out; rows that pass from one document to another.

use serde_json::{Value, json};

use super::{Sql, failed, many, open, sync};
use crate::shop::{MAPPING, SCHEMA, Shop, edits};

/// Documents that cannot be stored: what is wrong with each, the relation, and what code the server gave.
fn bad() -> Vec<(Value, &'static str, &'static str)> {
    vec![
        (json!({ "number": "B1", "lines": [{ "no": 1 }, { "no": "x" }] }), "lines", "22P02"),
        (json!({ "number": "B2", "lines": [{ "no": null }] }), "lines", "-"),
        (json!({ "number": "B3", "lines": {} }), "lines", "-"),
        (json!({ "number": "B4", "customer": "longer than ten" }), "shop", "-"),
        (json!({ "number": "B5", "total": 1e9 }), "shop", "22003"),
        (json!({ "number": "B6", "status": "lost" }), "shop", "22P02"),
        (json!({ "number": "B7", "units": 1.5 }), "shop", "-"),
        (json!({ "number": "B8", "paid": "2024-05-31T10:00:00" }), "shop", "-"),
        (json!({ "number": "B9", "lines": [{ "no": 1, "serials": [["x"]] }] }), "serials", "-"),
        (
            json!({ "number": "B10", "files": [{ "id": 1, "pages": [{ "no": 1, "body": "forbidden" }] }] }),
            "pages",
            "23514",
        ),
        (json!({ "number": "B11", "tags": ["forbidden"] }), "tags", "23514"),
        (json!({ "number": "B12", "note": "forbidden" }), "shop", "23514"),
        (json!({ "number": "B13", "products": [{}] }), "products", "-"),
        (json!({ "number": "B14", "address": "here" }), "shop", "-"),
    ]
}

const FORBIDDEN: &str = "
    ALTER TABLE page ADD CHECK (body <> 'forbidden'); ALTER TABLE tag ADD CHECK (word <> 'forbidden');
    ALTER TABLE orders ADD CHECK (note <> 'forbidden');";

/// What is said of documents, behind the relation: where, what there should be, and what was found.
fn said() -> Vec<(Value, &'static str)> {
    vec![
        (json!({ "lines": [{ "no": 1, "qty": [] }] }), "lines: qty: expected a number, found a list"),
        (json!({ "lines": [{ "no": "x" }] }), "lines: no: invalid input syntax for type integer: \"x\""),
        (
            json!({ "lines": [{ "no": null }] }),
            "lines: no: is null, and part of the key; give it, or say nullable = true",
        ),
        (
            json!({ "lines": [{ "qty": 1 }] }),
            "lines: no: is absent, and part of the key; give it, or say nullable = true",
        ),
        (json!({ "lines": {} }), "lines: expected a list, found an object"),
        (json!({ "units": 1.5 }), "shop: units: expected an integer, found 1.5"),
        (json!({ "total": 1e9 }), "shop: total: numeric field overflow"),
        (json!({ "note": { "a": 1 } }), "shop: note: expected text, found an object"),
        (json!({ "customer": "longer than ten" }), "shop: customer: 15 characters, longer than varchar(10)"),
        (
            json!({ "paid": "yesterday" }),
            "shop: paid: expected a timestamp such as 2024-05-31T10:00:00Z, found \"yesterday\"",
        ),
        (
            json!({ "paid": "2024-05-31T10:00:00" }),
            "shop: paid: \"2024-05-31T10:00:00\" has no time zone; declare one with zone",
        ),
        (
            json!({ "address": "here" }),
            "shop: address.city: expected an object that holds \"city\", found \"here\"",
        ),
        (
            json!({ "lines": [{ "no": 7, "qty": 1 }, { "no": 7, "qty": 2 }] }),
            "lines: two items with the key no=7 differ: on_duplicate = \"first\" or \"last\" takes one of them",
        ),
        (json!({ "number": null }), "shop: number: is null, and part of the key"),
        (json!([]), "shop: expected an object, found a list"),
        (
            json!({ "products": ["pears"] }),
            "products: \"pears\" is not in the catalogue \"product\": add it, or say missing = \"insert\" or \"skip\"",
        ),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p25_what_is_said_names_the_path_and_what_was_found() {
    let shop = Shop::with(SCHEMA, &MAPPING.replace("missing = \"insert\"", "missing = \"error\"")).await;
    let sql = Sql::with_file(&shop.db, &shop.mapping).await;
    let mut docs = Vec::new();
    for (at, (mut document, message)) in said().into_iter().enumerate() {
        if let Some(members) = document.as_object_mut() {
            members.entry("number").or_insert(json!(format!("S{at}")));
        }
        assert_eq!(sql.one(&document).await.unwrap_err().message, message, "{document}");
        docs.push(document);
    }
    // Among others it is the same.
    let ran = many(&sql, &docs).await;
    let of =
        |one: &Value| format!("{}: {}", one["relation"].as_str().unwrap(), one["message"].as_str().unwrap());
    let messages: Vec<String> = ran.report["failures"].as_array().unwrap().iter().map(of).collect();
    assert_eq!(messages, said().into_iter().map(|(_, message)| message).collect::<Vec<_>>());
    let texts = ["{\"number\": ", "{\"number\": tru}", "{\"number\": \"\\u0000\"}"].map(str::to_owned);
    let failures = &sql.texts(&texts).await.report["failures"];
    let messages: Vec<&str> =
        failures.as_array().unwrap().iter().map(|one| one["message"].as_str().unwrap()).collect();
    assert_eq!(
        messages,
        [
            "not JSON: The input string ended unexpectedly",
            "not JSON: Token \"tru\" is invalid",
            "unsupported Unicode escape sequence: \\u0000 cannot be converted to text"
        ]
    );
}

async fn strict() -> (Shop, Sql) {
    let shop = Shop::with(&format!("{SCHEMA}{FORBIDDEN}"), MAPPING).await;
    let sql = Sql::with_file(&shop.db, &shop.mapping).await;
    (shop, sql)
}

fn good(number: &str, units: u32) -> Value {
    json!({ "number": number, "units": units, "lines": [{ "no": 1, "qty": units }], "tags": ["t"], "products": ["p"] })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p25_every_failing_document_is_named_and_the_others_are_in() {
    let (shop, sql) = strict().await;
    let mut docs = vec![good("A", 1)];
    for (at, (document, ..)) in bad().into_iter().enumerate() {
        docs.extend([document, good(&format!("G{at}"), 1)]);
    }
    let ran = many(&sql, &docs).await;
    let expected: Vec<String> = bad()
        .iter()
        .map(|(document, relation, state)| {
            format!("{} {relation} {state}", document["number"].as_str().unwrap())
        })
        .collect();
    assert_eq!(failed(&ran), expected, "{:#}", ran.report["failures"]);
    assert_eq!(ran.report["status"], "failed");
    assert_eq!((ran.documents("new"), ran.documents("failed")), (15, 14));
    let goods: Vec<Value> =
        docs.into_iter().filter(|one| !one["number"].as_str().unwrap().starts_with('B')).collect();
    shop.expect(&goods).await;
    shop.check(&ran).await;
    let retryable = |one: &Value| one["retryable"] == false;
    assert!(ran.report["failures"].as_array().unwrap().iter().all(retryable), "{:#}", ran.report["failures"]);
}

/// The command says the same of the same documents.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p25_p33_the_command_names_the_same_documents_and_relations() {
    let (shop, sql) = strict().await;
    let docs: Vec<Value> = bad().into_iter().map(|(document, ..)| document).collect();
    let place = |line: String| line.split(' ').take(2).collect::<Vec<_>>().join(" ");
    let by_sql: Vec<String> = failed(&many(&sql, &docs).await).into_iter().map(place).collect();
    let mut by_command: Vec<String> = failed(&shop.run(&docs).await).into_iter().map(place).collect();
    let number = |line: &String| line[1..].split(' ').next().unwrap().parse::<u32>().unwrap();
    by_command.sort_by_key(number);
    assert_eq!(by_sql, by_command);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p24_p25_a_document_that_fails_stays_as_it_was_and_is_done_when_it_is_good_again() {
    let (shop, sql) = strict().await;
    sync(&shop, &sql, &[good("A", 1), good("C", 1)]).await;
    let mut worse = good("A", 2);
    worse["tags"] = json!(["forbidden"]);
    for _ in 0..2 {
        let ran = many(&sql, &[worse.clone(), good("C", 2)]).await;
        assert_eq!(failed(&ran), ["A tags 23514"], "it is not taken for done");
    }
    assert_eq!(shop.rows("SELECT number, units FROM orders ORDER BY 1").await, ["A|1", "C|2"]);
    let never = json!({ "number": "N", "note": "forbidden" });
    many(&sql, &[never]).await;
    assert_eq!(
        shop.db.value("SELECT count(*) FROM rowdelta.state").await,
        "2",
        "nothing is recorded of what is not stored"
    );
    shop.expect(&[good("C", 2)]).await;
    shop.written().await;
    sync(&shop, &sql, &[good("A", 2), good("C", 2)]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p25_sync_raises_what_is_wrong_with_the_relation_in_its_detail_and_writes_nothing() {
    let (shop, sql) = strict().await;
    for (document, relation, state) in bad() {
        let error = sql.one(&document).await.unwrap_err();
        let code = if state == "-" { "RD006" } else { state };
        assert_eq!((error.code.as_str(), error.detail.as_str()), (code, relation), "{document}: {error:?}");
        assert!(error.message.starts_with(&format!("{relation}: ")), "{error:?}");
    }
    assert!(shop.written().await.is_empty());
    assert_eq!(shop.db.value("SELECT count(*) FROM rowdelta.state").await, "0");
    for no_document in [json!([]), json!(null), json!(7), json!("A"), json!({})] {
        let error = sql.one(&no_document).await.unwrap_err();
        assert_eq!(error.code, "RD006", "{no_document}: {error:?}");
        let ran = many(&sql, &[no_document.clone(), good("A", 1)]).await;
        assert_eq!(ran.documents("failed"), 1, "{no_document}: {:#}", ran.report);
    }
    let error = sql.call("SELECT rowdelta.sync_many('shop', '{}')::text", &[]).await.unwrap_err();
    assert_eq!(
        (error.code.as_str(), error.message.as_str()),
        ("RD006", "expected a JSON array of documents")
    );
    assert_eq!(many(&sql, &[]).await.documents("read"), 0);
}

fn order(number: &str, files: &[(u32, &str)]) -> Value {
    let file =
        |(id, name): &(u32, &str)| json!({ "id": id, "name": name, "pages": [{ "no": 1, "body": name }] });
    json!({ "number": number, "files": files.iter().map(file).collect::<Vec<_>>() })
}

const FILES: &str =
    "SELECT number, official, f.id, f.name FROM file f JOIN orders o ON o.id = order_id ORDER BY official";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p17_a_row_that_two_documents_of_a_call_claim_goes_to_neither() {
    let (shop, sql) = open().await;
    let ran = many(&sql, &[order("A", &[(7, "a")]), order("B", &[(7, "b")]), order("C", &[(8, "c")])]).await;
    assert_eq!(failed(&ran), ["A files -", "B files -"]);
    assert_eq!(shop.rows(FILES).await, ["C|8|1|c"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p17_a_document_that_has_a_row_and_one_that_claims_it_in_the_same_call_are_both_named() {
    let (shop, sql) = open().await;
    sync(&shop, &sql, &[order("A", &[(7, "a")]), order("B", &[])]).await;
    let ran = many(&sql, &[order("A", &[(7, "a")]), order("B", &[(7, "b")])]).await;
    assert_eq!(failed(&ran), ["A files -", "B files -"], "{:#}", ran.report);
    assert_eq!((ran.rows_written(), shop.rows(FILES).await), (0, vec!["A|7|1|a".to_owned()]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p04_p17_a_row_that_moves_keeps_its_id_and_what_is_beside_and_below_it() {
    let (shop, sql) = open().await;
    sync(&shop, &sql, &[order("A", &[(7, "a"), (8, "b")]), order("B", &[])]).await;
    shop.db.execute("UPDATE file SET storage_path = 's' || official").await;
    shop.written().await;
    sync(&shop, &sql, &[order("A", &[(8, "b")]), order("B", &[(7, "a")])]).await;
    assert_eq!(shop.rows(FILES).await, ["B|7|1|a", "A|8|2|b"]);
    assert_eq!(shop.rows("SELECT official, storage_path FROM file ORDER BY 1").await, ["7|s7", "8|s8"]);
    // And on, with a change of its own, out of a document that goes on without it.
    sync(&shop, &sql, &[order("B", &[]), order("C", &[(7, "x")])]).await;
    assert_eq!(shop.rows(FILES).await, ["C|7|1|x", "A|8|2|b"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p17_a_document_outside_the_call_that_loses_a_row_is_done_again() {
    let (shop, sql) = open().await;
    sync(&shop, &sql, &[order("A", &[(7, "a")])]).await;
    assert_eq!(
        sql.one(&order("B", &[(7, "a")])).await.unwrap(),
        ["shop +1 ~0 >0 -0", "files +0 ~0 >1 -0", "new"]
    );
    assert_eq!(shop.rows(FILES).await, ["B|7|1|a"]);
    assert_eq!(shop.unsettled().await, "1", "A lost a row");
    // A has not changed in its feed: it takes the row back, and then B is the loser.
    assert_eq!(sql.one(&order("A", &[(7, "a")])).await.unwrap(), ["files +0 ~0 >1 -0", "changed"]);
    assert_eq!(
        (shop.rows(FILES).await, shop.unsettled().await),
        (vec!["A|7|1|a".to_owned()], "1".to_owned())
    );
    let ran = shop.run(&[order("B", &[])]).await.succeeded();
    assert_eq!((ran.rows_written(), shop.unsettled().await.as_str()), (0, "0"), "the command settles it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p16_a_reference_that_is_skipped_leaves_its_document_to_be_done_again() {
    let shop = Shop::with(SCHEMA, &MAPPING.replace("missing = \"insert\"", "missing = \"skip\"")).await;
    let sql = Sql::with_file(&shop.db, &shop.mapping).await;
    let docs = [json!({ "number": "A", "products": ["p", "q"] }), json!({ "number": "B", "products": [] })];
    shop.db.execute("INSERT INTO product (code) VALUES ('p')").await;
    let ran = many(&sql, &docs).await;
    assert_eq!((ran.documents("new"), ran.documents("unsettled")), (2, 1), "{:#}", ran.report);
    assert_eq!((&ran.report["skipped_lookups"], shop.unsettled().await), (&json!(1), "1".to_owned()));
    let ran = many(&sql, &docs).await;
    assert_eq!(
        (ran.rows_written(), ran.documents("unsettled"), shop.unsettled().await),
        (0, 1, "1".to_owned())
    );
    shop.db.execute("INSERT INTO product (code) VALUES ('q')").await;
    let ran = many(&sql, &docs).await;
    assert_eq!(
        (ran.documents("changed"), ran.documents("unsettled"), shop.unsettled().await),
        (1, 0, "0".to_owned())
    );
    assert_eq!(
        shop.rows("SELECT code FROM order_product JOIN product p ON p.id = product_id ORDER BY 1").await,
        ["p", "q"]
    );
    assert_eq!(many(&sql, &docs).await.documents("unchanged"), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p16_a_reference_to_nothing_fails_its_document_where_the_mapping_says_error() {
    let shop = Shop::with(SCHEMA, &MAPPING.replace("missing = \"insert\"", "missing = \"error\"")).await;
    let sql = Sql::with_file(&shop.db, &shop.mapping).await;
    let ran =
        many(&sql, &[json!({ "number": "A", "products": ["p"] }), json!({ "number": "B", "products": [] })])
            .await;
    assert_eq!((failed(&ran), ran.documents("new")), (vec!["A products -".to_owned()], 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p26_a_root_row_that_somebody_deleted_comes_back_with_all_that_is_below_it() {
    let (shop, sql) = open().await;
    let docs = [good("A", 1), good("B", 1)];
    sync(&shop, &sql, &docs).await;
    shop.db
        .execute(
            "DELETE FROM line USING orders o WHERE o.id = order_id AND number = 'A';
             DELETE FROM tag USING orders o WHERE o.id = order_id AND number = 'A';
             DELETE FROM order_product USING orders o WHERE o.id = order_id AND number = 'A';
             DELETE FROM orders WHERE number = 'A'",
        )
        .await;
    shop.written().await;
    let ran = many(&sql, &docs).await;
    assert_eq!((ran.documents("new"), ran.documents("unchanged")), (1, 1), "{:#}", ran.report);
    assert_eq!(
        shop.written().await,
        edits(&[("orders", 1, 0, 0), ("line", 1, 0, 0), ("tag", 1, 0, 0), ("order_product", 1, 0, 0)])
    );
    shop.state.check().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p29_outside_of_read_committed_nothing_is_written() {
    let (shop, sql) = open().await;
    let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1";
    sql.execute(begin).await.unwrap();
    let error = sql.one(&good("A", 1)).await.unwrap_err();
    assert_eq!(error.code, "RD004", "{error:?}");
    sql.execute("ROLLBACK").await.unwrap();
    assert!(shop.written().await.is_empty());
}
