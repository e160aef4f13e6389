//! From one version of the schema `rowdelta` to the next.

use rowdelta::fingerprint::{DocumentFingerprint, recorded};
use rowdelta::mapping::Mapping;
use rowdelta::postgres::catalog;
use serde_json::{Value, json};

use crate::oracle::Edits;
use crate::shop::{MAPPING, Shop};
use crate::support::layout::BROKEN;
use crate::support::{Database, command, db};

const FIRST: &str = include_str!("../../sql/rowdelta--0.1.0.sql");
const VERSION: &str = rowdelta::postgres::install::VERSION;

/// All that there is in the schema, as text: two that say the same are the same.
pub const CATALOG: &str = "
SELECT 'function', p.oid::regprocedure::text, pg_get_functiondef(p.oid), obj_description(p.oid, 'pg_proc'), p.proacl::text
FROM pg_proc p WHERE p.pronamespace = 'rowdelta'::regnamespace
UNION ALL
SELECT 'column', a.attrelid::regclass::text || '.' || a.attnum, a.attname || ' ' || format_type(a.atttypid, a.atttypmod)
       || ' ' || a.attstorage::text || ' ' || a.attnotnull::text || ' ' || coalesce(pg_get_expr(d.adbin, d.adrelid), '-'),
       col_description(a.attrelid, a.attnum), a.attacl::text
FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid LEFT JOIN pg_attrdef d ON (d.adrelid, d.adnum) = (a.attrelid, a.attnum)
WHERE c.relnamespace = 'rowdelta'::regnamespace AND a.attnum > 0 AND NOT a.attisdropped
UNION ALL
SELECT 'relation', c.oid::regclass::text, c.relkind::text || ' ' || coalesce(c.reloptions::text, '-')
       || coalesce(pg_get_viewdef(CASE WHEN c.relkind = 'v' THEN c.oid END), '')
       || coalesce((SELECT pg_get_indexdef(i.indexrelid) FROM pg_index i WHERE i.indexrelid = c.oid), ''),
       obj_description(c.oid, 'pg_class'), c.relacl::text
FROM pg_class c WHERE c.relnamespace = 'rowdelta'::regnamespace
UNION ALL
SELECT 'type', t.oid::regtype::text, t.typtype::text, obj_description(t.oid, 'pg_type'), t.typacl::text
FROM pg_type t WHERE t.typnamespace = 'rowdelta'::regnamespace
UNION ALL
SELECT 'constraint', conrelid::regclass::text || ' ' || conname, pg_get_constraintdef(oid), obj_description(oid, 'pg_constraint'), ''
FROM pg_constraint WHERE connamespace = 'rowdelta'::regnamespace
ORDER BY 1, 2";

async fn installs(db: &Database) -> (i32, String, String) {
    command::output(&["install", "-d", db.url()])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upgraded_schema_is_as_a_fresh_one_and_keeps_what_was_recorded() {
    let (fresh, old) = (db().await, db().await);
    assert_eq!(installs(&fresh).await.1, format!("schema rowdelta {VERSION} installed\n"));
    assert_eq!(installs(&fresh).await.1, format!("schema rowdelta {VERSION} is installed already\n"));
    old.execute(FIRST).await;
    old.execute(
        "SELECT rowdelta.register(name, '{}', '\\x00') FROM unnest(ARRAY['a', 'b', 'none']) AS name;
         INSERT INTO rowdelta.document
         SELECT m.id, int4send(4) || int4send(i), CASE WHEN i % 7 > 0 THEN substr(sha256(int4send(i)), 1, 16) END,
                CASE WHEN i % 11 > 0 THEN substr(sha256(int8send(i)), 1, 16) END,
                CASE WHEN i % 11 > 0 THEN sha256(int4send(i)) || sha256(int8send(i)) ELSE '' END, i % 7 > 0 AND i % 11 > 0, i % 13 = 0,
                CASE WHEN i % 17 > 0 THEN '\\x0102030405060708'::bytea END
         FROM rowdelta.mapping m, generate_series(1, 12000) AS i WHERE m.name <> 'none' AND (m.name = 'a' OR i < 10);
         INSERT INTO rowdelta.rewritten VALUES (1, '\\x01', 'r', '\\x02');
         INSERT INTO rowdelta.run (mapping) VALUES (1); INSERT INTO rowdelta.failure (run, message, retryable) VALUES (1, 'm', false);
         INSERT INTO rowdelta.guard VALUES ('a', 1, 2)",
    )
    .await;
    let columns = "mapping, key, raw, fingerprint, settled, absent, coverage";
    let recorded = |table: &str, relations: &str| {
        format!("SELECT {columns}, {relations} FROM rowdelta.{table} ORDER BY mapping, key")
    };
    let before = old.table(&recorded("document", "relations")).await;
    let (code, out, err) = installs(&old).await;
    assert_eq!((code, out), (0, format!("schema rowdelta {VERSION} upgraded from 0.1.0\n")), "{err}");
    assert_eq!(old.table(CATALOG).await, fresh.table(CATALOG).await);
    // Number of relations and a bit for each before them.
    let after = recorded("state", "CASE WHEN relations = '' THEN relations ELSE substr(relations, 4) END");
    assert_eq!(old.table(&after).await, before);
    assert_eq!(
        old.value("SELECT string_agg(DISTINCT substr(relations, 1, 3)::text, ' ') FROM rowdelta.state").await,
        "\\x \\x0004ff"
    );
    assert_eq!(old.table(BROKEN).await.len(), 0);
    let kept = "SELECT (SELECT count(*) FROM rowdelta.rewritten), (SELECT count(*) FROM rowdelta.run), (SELECT count(*) FROM rowdelta.failure),
                       (SELECT count(*) FROM rowdelta.guard), (SELECT count(*) FROM rowdelta.document)";
    let kept: Vec<String> = old.table(kept).await.remove(0).into_iter().flatten().collect();
    assert_eq!(kept, ["1", "1", "1", "1", "0"]);
    assert_eq!(installs(&old).await.1, format!("schema rowdelta {VERSION} is installed already\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upgrade_gives_the_new_tables_to_those_who_had_the_old_one() {
    let db = db().await;
    let role = format!("nightly {}", std::process::id());
    db.execute(&format!("CREATE ROLE \"{role}\"")).await;
    db.execute(FIRST).await;
    db.execute(&format!("GRANT SELECT, INSERT, UPDATE, DELETE ON rowdelta.document TO \"{role}\"; GRANT SELECT ON rowdelta.document TO PUBLIC"))
        .await;
    assert_eq!(installs(&db).await.0, 0);
    let may = |table: &str, privileges: &str| {
        format!("SELECT has_table_privilege('{role}', 'rowdelta.{table}', '{privileges}')")
    };
    for table in ["base", "skip"] {
        for privilege in ["SELECT", "INSERT", "UPDATE", "DELETE"] {
            assert_eq!(db.value(&may(table, privilege)).await, "t", "{privilege} {table}");
        }
        assert_eq!(db.value(&may(table, "TRUNCATE")).await, "f");
    }
    assert_eq!(db.value(&may("state", "SELECT")).await, "t");
    assert_eq!(db.value(&may("state", "DELETE")).await, "f");
    db.execute(&format!("DROP OWNED BY \"{role}\"; DROP ROLE \"{role}\"")).await;
}

fn orders(count: usize) -> Vec<Value> {
    let order = |n: usize| json!({ "number": format!("N{n:04}"), "units": n, "lines": [{ "no": 1, "serials": ["a"] }], "tags": ["t"] });
    (0..count).map(order).collect()
}

/// Puts back what is recorded to how 0.1.0 would have recorded it.
async fn downgrade(shop: &Shop) {
    let client = shop.db.client().await;
    let schema = catalog::read(&client, &Mapping::from_toml(MAPPING).unwrap()).await.unwrap();
    let empties = recorded::empties(&schema);
    let state = client.query(
        "SELECT mapping, key, raw, fingerprint, relations, settled, absent, coverage FROM rowdelta.state",
        &[],
    );
    let state = state.await.unwrap();
    let mappings = client
        .query("SELECT name, definition::text, digest, filled FROM rowdelta.mapping ORDER BY id", &[])
        .await
        .unwrap();
    shop.db.execute("DROP SCHEMA rowdelta CASCADE").await;
    shop.db.execute(FIRST).await;
    for row in mappings {
        let (name, definition, digest, filled): (&str, &str, &[u8], Vec<&str>) =
            (row.get(0), row.get(1), row.get(2), row.get(3));
        let sql = "INSERT INTO rowdelta.mapping (name, definition, digest, filled) VALUES ($1, $2::text::jsonb, $3, $4)";
        client.execute(sql, &[&name, &definition, &digest, &filled]).await.unwrap();
    }
    for row in state {
        let fingerprint: &[u8] = row.get(3);
        let document = DocumentFingerprint(fingerprint.try_into().unwrap());
        let relations = recorded::from_bytes(&empties, Some(document), row.get(4));
        let all: Vec<u8> = relations.into_iter().flat_map(|known| known.expect("all are known").0).collect();
        let (mapping, key, raw, coverage): (i32, &[u8], &[u8], &[u8]) =
            (row.get(0), row.get(1), row.get(2), row.get(7));
        let (settled, absent): (bool, bool) = (row.get(5), row.get(6));
        let sql = "INSERT INTO rowdelta.document VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
        client
            .execute(sql, &[&mapping, &key, &raw, &fingerprint, &all, &settled, &absent, &coverage])
            .await
            .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p33_after_an_upgrade_nothing_is_compared_anew() {
    let shop = Shop::open().await;
    let docs = orders(80);
    shop.sync(&docs).await;
    downgrade(&shop).await;
    let refused = shop.run(&docs).await;
    assert_eq!(refused.code, 2);
    assert!(
        refused.stderr.contains("of version 0.1.0") && refused.stderr.contains("`rowdelta install`"),
        "{}",
        refused.stderr
    );
    command::install(shop.db.url());
    let ran = shop.run(&docs).await.succeeded();
    assert_eq!((ran.documents("unchanged"), ran.documents("respelled")), (80, 0));
    let relations = ran.report["relations"].as_array().unwrap();
    assert!(relations.iter().all(|relation| relation["unchanged"] == 0), "rows were read: {relations:#?}");
    shop.written().await;
    // What differs is found by relation.
    let mut docs = docs;
    docs[7]["tags"] = json!(["t", "u"]);
    docs[8]["lines"] = json!([]);
    let ran = shop.sync(&docs).await;
    let read = |name: &str| {
        let relations = ran.report["relations"].as_array().unwrap();
        relations.iter().find(|relation| relation["name"] == name).unwrap()["unchanged"].clone()
    };
    assert_eq!((read("tags"), read("lines"), read("files")), (json!(1), json!(0), json!(0)));
    let verified = command::run(&["verify", "-d", shop.db.url(), "-m", shop.mapping.to_str().unwrap()]);
    assert_eq!(verified.0, 0, "{}", verified.1);
    assert_eq!(shop.written().await, Edits::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_upgrade_while_a_run_is_at_work_and_none_back() {
    let db = db().await;
    db.execute(FIRST).await;
    let mapping = db.value("SELECT rowdelta.register('m', '{}', '\\x00')").await;
    let token = db.value(&format!("SELECT rowdelta.acquire({mapping}, 'one', 60)")).await;
    let (code, _, err) = installs(&db).await;
    assert!(code == 2 && err.contains("a run is at work"), "{code}: {err}");
    assert_eq!(db.value("SELECT rowdelta.version()").await, "0.1.0");
    // One that sleeps beyond its lease cannot write after the upgrade.
    db.execute("UPDATE rowdelta.mapping SET lease_until = clock_timestamp()").await;
    assert_eq!(installs(&db).await.0, 0);
    let entered =
        db.client().await.batch_execute(&format!("SELECT rowdelta.enter({mapping}, '{token}')")).await;
    assert_eq!(entered.unwrap_err().code().unwrap().code(), "RD002");

    db.execute(
        "CREATE OR REPLACE FUNCTION rowdelta.version() RETURNS text LANGUAGE sql AS $$ SELECT '99.0.0' $$",
    )
    .await;
    let before = db.table(CATALOG).await;
    let (code, _, err) = installs(&db).await;
    assert!(
        code == 2 && err.contains("99.0.0") && err.contains("a program of that version"),
        "{code}: {err}"
    );
    assert_eq!(db.table(CATALOG).await, before);
}
