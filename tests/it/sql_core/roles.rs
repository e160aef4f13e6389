//! What a role needs to sync by the functions: what docs/privileges.md says, and nothing more. Row-level security holds.

use serde_json::{Value, json};

use super::{Sql, failed, json_of, many};
use crate::oracle::Edits;
use crate::shop::{MAPPING, SCHEMA, Shop, edits};

/// As in docs/privileges.md, for the shop.
const GRANTS: &str = "
    GRANT USAGE ON SCHEMA rowdelta TO $role;
    GRANT SELECT, INSERT, UPDATE ON rowdelta.mapping, rowdelta.run TO $role;
    GRANT SELECT, INSERT, UPDATE, DELETE ON rowdelta.document, rowdelta.base, rowdelta.skip, rowdelta.rewritten TO $role;
    GRANT INSERT ON rowdelta.failure TO $role;
    GRANT SELECT, INSERT, DELETE ON rowdelta.spelling TO $role;
    GRANT SELECT ON rowdelta.guard TO $role;
    GRANT SELECT (xmin, ctid, tableoid, id, number, customer, city, total, units, ordered, paid, status, note, remark),
        INSERT (id, number, customer, city, total, units, ordered, paid, status, note, remark),
        UPDATE (number, customer, city, total, units, ordered, paid, status, note, remark), DELETE ON orders TO $role;
    GRANT SELECT (xmin, ctid, tableoid, id, order_id, no, label, qty), INSERT (id, order_id, no, label, qty),
        UPDATE (order_id, no, label, qty), DELETE ON line TO $role;
    GRANT SELECT (xmin, ctid, tableoid, line_id, code), INSERT (line_id, code), UPDATE (line_id, code), DELETE ON serial TO $role;
    GRANT SELECT (xmin, ctid, tableoid, id, order_id, official, name), INSERT (id, order_id, official, name),
        UPDATE (order_id, official, name), DELETE ON file TO $role;
    GRANT SELECT (xmin, ctid, tableoid, file_id, no, body), INSERT (file_id, no, body), UPDATE (file_id, no, body), DELETE ON page
        TO $role;
    GRANT SELECT (xmin, ctid, tableoid, order_id, word), INSERT (order_id, word), UPDATE (order_id, word), DELETE ON tag TO $role;
    GRANT SELECT (xmin, ctid, tableoid, order_id, product_id), INSERT (order_id, product_id), UPDATE (order_id, product_id),
        DELETE ON order_product TO $role;
    GRANT SELECT (id, code), INSERT (code) ON product TO $role;
    GRANT USAGE ON SEQUENCE orders_id_seq, line_id_seq, file_id_seq TO $role;";

/// A session of a role of its own, with these grants; roles are the cluster's, so that their names are each test's.
async fn as_role(shop: &Shop, role: &str, grants: &str) -> Sql {
    let role = format!("{role}_{}", std::process::id());
    let make = format!("DROP ROLE IF EXISTS {role}; CREATE ROLE {role};");
    shop.db.execute(&make).await;
    shop.db.execute(&grants.replace("$role", &role)).await;
    let sql = Sql::open(&shop.db, &json_of(MAPPING)).await;
    sql.execute(&format!("SET ROLE {role}")).await.unwrap();
    sql
}

/// Every session of the role must be over before it goes.
async fn drop_role(shop: &Shop, role: &str, sql: Sql) {
    sql.execute("RESET ROLE").await.unwrap();
    let role = format!("{role}_{}", std::process::id());
    shop.db.execute(&format!("DROP OWNED BY {role}; DROP ROLE {role}")).await;
}

fn order(number: &str, units: u32) -> Value {
    json!({ "number": number, "units": units, "customer": "a", "lines": [{ "no": units, "serials": ["s"] }],
            "files": [{ "id": 7, "pages": [{ "no": 1 }] }], "tags": ["t"], "products": [format!("p{units}")] })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p40_a_role_with_the_documented_privileges_syncs_and_reads_nothing_else() {
    let shop = Shop::open().await;
    let sql = as_role(&shop, "nightly", GRANTS).await;
    let mut without = order("B", 1);
    without["files"] = json!([]);
    let ran = many(&sql, &[order("A", 1), without]).await;
    assert_eq!((failed(&ran), ran.documents("new")), (vec![], 2));
    // Updates, a move, removals and a new row of the catalogue.
    let mut less = order("A", 2);
    (less["files"], less["tags"]) = (json!([]), json!([]));
    let ran = many(&sql, &[less, order("B", 1)]).await;
    assert_eq!((failed(&ran), ran.documents("changed")), (vec![], 2), "{:#}", ran.report);
    sql.one(&order("C", 3)).await.unwrap();
    for units in [3, 4] {
        let ran = sql.texts(&[order("C", units).to_string()]).await;
        assert_eq!(failed(&ran), [""; 0], "{:#}", ran.report);
    }
    for call in [
        "plan('shop', '{\"number\": \"A\"}')",
        "verify('shop')",
        "remove('shop', '\"B\"')",
        "sweep('shop', '[\"A\", \"C\"]')",
        "mappings()",
    ] {
        sql.execute(&format!("SELECT * FROM rowdelta.{call}"))
            .await
            .unwrap_or_else(|error| panic!("{call}: {error:?}"));
    }
    for refused in [
        "SELECT summary FROM orders",
        "SELECT storage_path FROM file",
        "SELECT * FROM rowdelta.failure",
        "DELETE FROM rowdelta.run",
    ] {
        assert_eq!(sql.execute(refused).await.unwrap_err().code, "42501", "{refused}");
    }
    drop_role(&shop, "nightly", sql).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p40_what_a_role_lacks_fails_the_call_or_the_document_and_writes_nothing() {
    let shop = Shop::open().await;
    let less = GRANTS.replace("INSERT (order_id, word), ", "");
    assert_ne!(less, GRANTS);
    let sql = as_role(&shop, "lacking", &less).await;
    let ran = many(&sql, &[order("A", 1)]).await;
    assert_eq!(failed(&ran), ["A tags 42501"], "{:#}", ran.report);
    let error = sql.one(&order("A", 1)).await.unwrap_err();
    assert_eq!((error.code.as_str(), error.detail.as_str()), ("42501", "tags"), "{error:?}");
    let written: Edits = shop.written().await;
    assert!(written.keys().all(|table| table == "product"), "{written:?}");
    drop_role(&shop, "lacking", sql).await;
}

/// Rows that a policy hides do not exist for the caller; what it refuses fails the document.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p40_row_level_security_is_honoured() {
    let shop = Shop::in_database(crate::support::db().await, SCHEMA, MAPPING).await;
    shop.db
        .execute(
            "ALTER TABLE orders ENABLE ROW LEVEL SECURITY;
             CREATE POLICY own ON orders USING (customer = 'a') WITH CHECK (customer = 'a')",
        )
        .await;
    let all = Sql::open(&shop.db, &json_of(MAPPING)).await;
    let theirs = json!({ "number": "T", "customer": "t", "note": "theirs" });
    all.one(&theirs).await.unwrap();
    let sql = as_role(&shop, "tenant", GRANTS).await;
    shop.written().await;
    let ran =
        many(&sql, &[json!({ "number": "A", "customer": "a" }), json!({ "number": "X", "customer": "x" })])
            .await;
    assert_eq!(
        (failed(&ran), ran.documents("new")),
        (vec!["X shop 42501".to_owned()], 1),
        "{:#}",
        ran.report
    );
    let taken = many(&sql, &[json!({ "number": "T", "customer": "a" })]).await;
    assert_eq!(failed(&taken), ["T shop 23505"], "a key that a hidden row has: {:#}", taken.report);
    assert_eq!(shop.written().await, edits(&[("orders", 1, 0, 0)]));
    sql.execute("SELECT * FROM rowdelta.remove('shop', '\"T\"')").await.unwrap();
    assert_eq!(shop.rows("SELECT number, note FROM orders ORDER BY 1").await, ["A|NULL", "T|theirs"]);
    drop_role(&shop, "tenant", sql).await;
}
