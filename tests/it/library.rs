//! The library's front: feeds of what a program has, the sync inside its own transaction, and the examples as they stand.

use std::time::Duration;

use bb8_postgres::PostgresConnectionManager;
use rowdelta::engine::documents;
use rowdelta::engine::report::{Status, SyncError};
use rowdelta::{Engine, ErrorKind, Mapping};
use serde_json::{Value, json};
use tokio_postgres::{Client, NoTls};

use crate::shop::{MAPPING, Shop, edits};
use crate::support::db;

#[path = "../../examples/changes.rs"]
#[allow(dead_code, missing_docs)]
mod changes;
#[path = "../../examples/embed.rs"]
#[allow(dead_code, missing_docs)]
mod embed;
#[path = "../../examples/scheduler.rs"]
#[allow(dead_code, missing_docs)]
mod scheduler;
#[path = "../../examples/transaction.rs"]
#[allow(dead_code, missing_docs)]
mod transaction;
#[path = "../../examples/typed.rs"]
#[allow(dead_code, missing_docs)]
mod typed;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_examples_do_what_they_say() {
    let db = db().await;
    assert_eq!(embed::run(db.url()).await.unwrap(), [200, 1]);
    assert_eq!(embed::run(db.url()).await.unwrap(), [200, 1], "once more in the same database");
    assert_eq!(typed::run(db.url()).await.unwrap(), [5, 0]);
    let (files, accounts) = transaction::run(db.url()).await.unwrap();
    assert_eq!((files, accounts), (vec!["monday".to_owned(), "wednesday".to_owned()], 3));
    let names = |name: &str| vec![name.to_owned()];
    assert_eq!(changes::run(db.url()).await.unwrap(), ([names("plan.pdf"), names("map.pdf")], 2));
    let failed = scheduler::run(db.url()).await.unwrap();
    let failed: Vec<(Vec<&str>, bool)> =
        failed.iter().map(|f| (f.relations.iter().map(String::as_str).collect(), f.try_again)).collect();
    assert_eq!(failed, [(vec!["example_scheduler", "readings"], true), (vec!["readings"], false)]);
}

/// What the pool says of its own accord is that it waited.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_does_not_come_says_why() {
    let db = db().await;
    let role = format!("few_of_{}", db.value("SELECT current_database()").await);
    db.execute(&format!("CREATE ROLE {role} LOGIN CONNECTION LIMIT 1")).await;
    let mut config: tokio_postgres::Config = db.url().parse().unwrap();
    let few = PostgresConnectionManager::new(config.user(&role).clone(), NoTls);
    let pool = |max| bb8::Pool::builder().max_size(max).connection_timeout(Duration::from_secs(1));
    let pools = [pool(1).build(few.clone()).await.unwrap()];
    let held = pools[0].get().await.unwrap();
    let pools = [pool(4).build_unchecked(few), pool(1).build_unchecked(manager(db.url()))];
    let taken = pools[1].get().await.unwrap();
    let said = |at: usize| {
        let pool = pools[at].clone();
        async move { rowdelta::postgres::connection(&pool).await.err().unwrap() }
    };
    let (refused, busy) = (said(0).await, said(1).await);
    drop((held, taken));
    assert_eq!(
        refused.to_string(),
        format!(
            "no connection in 1s: too many connections for role \"{role}\"; the pool takes up to 4: fewer --workers, or \
             a higher limit"
        )
    );
    assert!(refused.is_transient() && refused.kind() == ErrorKind::Connection);
    let all = "no connection in 1s: of 1 of the pool 1 are in use, and none became free";
    assert_eq!((busy.to_string().as_str(), busy.kind()), (all, ErrorKind::Connection));
    db.execute(&format!("DROP ROLE {role}")).await;
}

fn manager(url: &str) -> PostgresConnectionManager<NoTls> {
    PostgresConnectionManager::new_from_stringlike(url, NoTls).unwrap()
}

async fn engine(
    shop: &Shop,
    change: impl FnOnce(rowdelta::engine::Builder) -> rowdelta::engine::Builder,
) -> Engine {
    let manager = PostgresConnectionManager::new_from_stringlike(shop.db.url(), NoTls).unwrap();
    let pool = bb8::Pool::builder().build(manager).await.unwrap();
    change(Engine::builder(Mapping::from_toml(MAPPING).unwrap())).build(pool).await.unwrap()
}

fn orders(count: usize, quantity: u64) -> Vec<Value> {
    let order = |n: usize| json!({ "number": format!("N{n:03}"), "lines": [{ "no": 1, "qty": quantity }] });
    (0..count).map(order).collect()
}

async fn number(client: &impl tokio_postgres::GenericClient, sql: &str) -> i64 {
    client.query_one(sql, &[]).await.unwrap().get(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p24_what_is_synced_in_the_callers_transaction_goes_with_it() {
    let shop = Shop::open().await;
    let engine = engine(&shop, |builder| builder.batch_documents_max(10)).await;
    let mut client: Client = shop.db.client().await;

    let mut transaction = client.transaction().await.unwrap();
    let mut feed = orders(25, 1);
    feed[3]["products"] = json!(["p", "q"]);
    let report = engine.sync_in(&mut transaction, documents::of(feed)).await.unwrap();
    assert_eq!((report.documents.read, report.documents.new, report.rows_written()), (25, 25, 54));
    let added = |name: &str| report.relations.iter().find(|counts| counts.name == name).unwrap().added;
    assert_eq!(["shop", "lines", "products", "product"].map(added), [25, 25, 2, 2]);
    assert_eq!(report.status, Status::Done);
    assert_eq!(number(&transaction, "SELECT count(*) FROM orders").await, 25);
    transaction.rollback().await.unwrap();
    assert_eq!(
        shop.rows("SELECT (SELECT count(*) FROM orders), (SELECT count(*) FROM rowdelta.state)").await,
        ["0|0"]
    );

    let mut transaction = client.transaction().await.unwrap();
    engine.sync_in(&mut transaction, documents::of(orders(25, 1))).await.unwrap();
    transaction.commit().await.unwrap();
    shop.written().await;
    // The engine's own run, and another in a transaction: nothing is to be done.
    let report = engine.sync(documents::of(orders(25, 1))).await.unwrap();
    assert_eq!((report.documents.unchanged, report.rows_written()), (25, 0));
    let mut transaction = client.transaction().await.unwrap();
    let report = engine.sync_in(&mut transaction, documents::of(orders(25, 1))).await.unwrap();
    assert_eq!((report.documents.unchanged, report.rows_written()), (25, 0));
    transaction.commit().await.unwrap();
    assert_eq!(shop.written().await, edits(&[]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p25_documents_that_fail_in_the_callers_transaction_leave_it_usable() {
    let shop = Shop::open().await;
    let engine = engine(&shop, |builder| builder.batch_documents_max(4)).await;
    let mut client = shop.db.client().await;
    let mut transaction = client.transaction().await.unwrap();
    transaction.batch_execute("INSERT INTO orders (number) VALUES ('MINE')").await.unwrap();
    let mut feed: Vec<String> = orders(9, 1).iter().map(Value::to_string).collect();
    feed[2] = r#"{"number": "BAD", "units": "many"}"#.into();
    feed[5] = r#"{"number": "#.into();
    feed[6] = r#"{"number": "NUL", "note": "a\u0000b"}"#.into();
    let Err(SyncError::Failed(report)) = engine.sync_in(&mut transaction, documents::of(feed)).await else {
        panic!("three documents fail")
    };
    let failed: Vec<(Option<&str>, u64)> =
        report.failures.iter().map(|failure| (failure.document.as_deref(), failure.line)).collect();
    assert_eq!((report.documents.failed, report.documents.new), (3, 6), "{:#?}", report.failures);
    assert!(
        [(Some("BAD"), 3), (None, 6), (Some("NUL"), 7)].iter().all(|one| failed.contains(one)),
        "{failed:?}"
    );
    assert_eq!(number(&transaction, "SELECT count(*) FROM orders").await, 7);
    transaction.commit().await.unwrap();
    assert_eq!(shop.rows("SELECT count(*) FROM orders").await, ["7"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_done_in_the_callers_transaction_is_said_and_leaves_it_usable() {
    let shop = Shop::open().await;
    let mut client = shop.db.client().await;
    let complete = engine(&shop, |builder| builder.complete(true)).await;
    let refused = async |engine: &Engine, transaction: &mut tokio_postgres::Transaction<'_>| match engine
        .sync_in(transaction, documents::of(orders(1, 1)))
        .await
    {
        Err(SyncError::Start(error)) => (error.kind(), error.to_string()),
        other => panic!("{other:?}"),
    };
    let mut transaction = client.transaction().await.unwrap();
    let (kind, said) = refused(&complete, &mut transaction).await;
    assert!(kind == ErrorKind::Setup && said.contains("rowdelta.sweep"), "{said}");

    let mapping = MAPPING.replace("columns = { word = \".\" }", "columns = { word = \".\" }\npair = true");
    let manager = PostgresConnectionManager::new_from_stringlike(shop.db.url(), NoTls).unwrap();
    let pool = bb8::Pool::builder().build(manager).await.unwrap();
    let pairing = Engine::builder(Mapping::from_toml(&mapping).unwrap()).build(pool).await.unwrap();
    let (kind, said) = refused(&pairing, &mut transaction).await;
    assert!(kind == ErrorKind::Setup && said.contains("pair"), "{said}");
    assert_eq!(number(&transaction, "SELECT 7::int8").await, 7);
    transaction.rollback().await.unwrap();

    let plain = engine(&shop, |builder| builder).await;
    let builder = client.build_transaction().isolation_level(tokio_postgres::IsolationLevel::Serializable);
    let mut transaction = builder.start().await.unwrap();
    let Err(error) = plain.sync_in(&mut transaction, documents::of(orders(1, 1))).await else {
        panic!("refused")
    };
    assert_eq!(error.cause().map(rowdelta::Error::kind), Some(ErrorKind::Setup), "{error}");
    assert_eq!(number(&transaction, "SELECT 7::int8").await, 7);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p32_the_limits_on_deletions_hold_over_all_batches_of_a_transaction() {
    let shop = Shop::open().await;
    let mut feed = orders(9, 1);
    for order in &mut feed {
        order["tags"] = json!(["a", "b"]);
    }
    shop.sync(&feed).await;
    let limits = rowdelta::engine::DeleteLimits { rows_max: 5, percent_max: None };
    let engine = engine(&shop, |builder| builder.batch_documents_max(1).delete_limits(limits)).await;
    feed.iter_mut().for_each(|order| order["tags"] = json!([]));
    let mut client = shop.db.client().await;
    let mut transaction = client.transaction().await.unwrap();
    let Err(SyncError::Withheld(report)) = engine.sync_in(&mut transaction, documents::of(feed)).await else {
        panic!("more than five rows")
    };
    assert_eq!((report.documents.changed, report.documents.withheld), (2, 7), "{report:#?}");
    transaction.commit().await.unwrap();
    assert_eq!(shop.rows("SELECT count(*) FROM tag").await, ["14"]);
}
