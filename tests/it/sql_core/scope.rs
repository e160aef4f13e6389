//! What the SQL functions do not know of a mapping is refused before anything is written, with its place in the mapping.

use serde_json::{Value, json};

use super::{Sql, json_of};
use crate::real_data::{example, schema_of};
use crate::shop::{MAPPING, SCHEMA};
use crate::support::command::install;
use crate::support::{Database, db};

/// What is set where in the shop's mapping, and the place that is named.
fn beyond_the_functions() -> Vec<(&'static str, Value, &'static str)> {
    let column = "root/columns/note";
    vec![
        ("root/alternate_key", json!(["note"]), "root.alternate_key: "),
        ("root/on_absent", json!("mark"), "root.on_absent: "),
        ("root/where", json!({ "kind": 1 }), "root.where: "),
        (column, json!({ "path": "note", "ignore": true }), "root.columns.note.ignore: "),
        (column, json!({ "path": "note", "nul": "strip" }), "root.columns.note.nul: "),
        (column, json!({ "path": "note", "nfc": true }), "root.columns.note.nfc: "),
        (column, json!({ "value": "x" }), "root.columns.note.value: "),
        (column, json!({ "path": "@key" }), "root.columns.note: "),
        (column, json!("@index"), "root.columns.note: "),
        (column, json!(["note", "@index"]), "root.columns.note: "),
        ("root/children/0/columns/qty", json!("@index"), "children.lines.columns.qty: "),
        ("root/children/0/columns/qty", json!({ "position": 1 }), "children.lines.columns.qty.position: "),
        ("root/children/0/columns/no", json!("@key"), "children.lines.columns.no: "),
        ("root/children/0/columns/label", json!({ "value": 1 }), "children.lines.columns.label.value: "),
        ("root/children/0/where", json!({ "kind": "a" }), "children.lines.where: "),
        ("root/children/0/otherwise", json!("ignore"), "children.lines.otherwise: "),
        ("root/children/0/when_single", json!("item"), "children.lines.when_single: "),
        ("root/children/0/children/0/when_single", json!("item"), "children.serials.when_single: "),
        ("root/children/2/pair", json!(true), "children.tags.pair: "),
        ("root/links/0/where", json!({ "kind": "a" }), "links.products.where: "),
        ("root/links/0/when_single", json!("item"), "links.products.when_single: "),
        (
            "root/links/0/columns",
            json!({ "place": { "position": 0 } }),
            "links.products.columns.place.position: ",
        ),
        (
            "lookups/product/columns",
            json!({ "code": { "nul": "strip" } }),
            "lookups.product.columns.code.nul: ",
        ),
        ("lookups/product/columns", json!({ "code": { "nfc": true } }), "lookups.product.columns.code.nfc: "),
        ("sync", json!({ "atomic": "relation" }), "sync.atomic: "),
        ("sync", json!({ "mark_hash": "note" }), "sync.mark_hash: "),
        ("sync", json!({ "mark_time": "paid" }), "sync.mark_time: "),
        ("sync", json!({ "mark_absent": "paid" }), "sync.mark_absent: "),
        ("rot", json!({}), "rot: "),
        ("version", json!(2), "version: "),
    ]
}

/// The shop's mapping with something set in it. `path`: a JSON pointer without the slash that it begins with.
fn changed(path: &str, value: &Value) -> Value {
    let mut mapping = json_of(MAPPING);
    let pointer = format!("/{path}");
    let (within, key) = pointer.rsplit_once('/').unwrap();
    let within = mapping.pointer_mut(within).unwrap_or_else(|| panic!("no {within} in the shop's mapping"));
    within[key] = value.clone();
    mapping
}

async fn shop() -> (Database, Sql) {
    let db = db().await;
    db.execute(SCHEMA).await;
    install(db.url());
    let sql = Sql::open(&db, &json_of(MAPPING)).await;
    (db, sql)
}

#[tokio::test]
async fn p22_keys_beyond_the_functions_are_refused_with_their_place() {
    let (db, sql) = shop().await;
    let registered = db.value("SELECT m FROM rowdelta.mapping m").await;
    let mut wrong = Vec::new();
    for (path, value, place) in beyond_the_functions() {
        match sql.register(&changed(path, &value)).await {
            Err(error) if error.code == "RD005" && error.message.starts_with(place) => {}
            other => wrong.push(format!("{path} = {value}: {other:?}, expected RD005 {place}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(db.value("SELECT m FROM rowdelta.mapping m").await, registered, "nothing was registered");
}

#[tokio::test]
async fn p22_columns_whose_types_are_beyond_the_functions_are_refused_with_their_place() {
    let (db, sql) = shop().await;
    db.execute("CREATE TYPE pair AS (a int, b int); CREATE DOMAIN text_in_json AS json").await;
    for (ty, is_known) in [
        ("json", false),
        ("xml", false),
        ("pair", false),
        ("text_in_json", false),
        ("json[]", false),
        ("xml[]", false),
        ("pair[]", false),
        ("jsonb", true),
        ("text[]", true),
        ("status", true),
    ] {
        db.execute(&format!("ALTER TABLE orders DROP COLUMN note; ALTER TABLE orders ADD note {ty}")).await;
        let known = sql.register(&json_of(MAPPING)).await;
        let refused = known.as_ref().is_err_and(|error| {
            // A type of one's own is named with its schema.
            let own = if ty.contains('_') || ty.contains("pair") { "public." } else { "" };
            let of_type = format!(
                "root.columns.note: column \"note\" is {own}{ty}, which the SQL functions do not take: "
            );
            error.code == "RD005" && error.message.starts_with(&of_type)
        });
        assert_eq!((known.is_ok(), refused), (is_known, !is_known), "{ty}: {known:?}");
        if !is_known {
            let synced = sql.one(&json!({ "number": "A" })).await.unwrap_err();
            assert_eq!(
                synced.code, "RD005",
                "{ty}: what was registered before is looked at again: {synced:?}"
            );
        }
    }
    assert_eq!(db.value("SELECT count(*) FROM orders").await, "0");
}

/// What is set where in the shop's mapping, and what is said of it.
fn faults() -> Vec<(&'static str, Value, &'static str)> {
    vec![
        (
            "root/table",
            json!("ordres"),
            "root.table: table ordres does not exist, or is not on the search path; create it, or name its schema",
        ),
        (
            "root/columns/nota",
            json!("note"),
            "root.columns.nota: table public.orders has no column \"nota\"; it has id, number, customer, city, total, units, \
             ordered, paid, status, note, remark, summary",
        ),
        (
            "root/children/0/parent",
            json!("order"),
            "children.lines.parent: table public.line has no column \"order\"; it has id, order_id, no, label, qty",
        ),
        (
            "lookups/product/id",
            json!("ident"),
            "lookups.product.id: table public.product has no column \"ident\"; it has id, code",
        ),
        (
            "root/id",
            json!("summary"),
            "root.id: column \"summary\" has no default, and the mapping does not fill it: \
             ALTER TABLE public.orders ALTER COLUMN summary SET DEFAULT ..., or map it",
        ),
        (
            "root/key",
            json!(["summary"]),
            "root.key: column \"summary\" is not among its columns; add it to columns",
        ),
        (
            "root/key",
            json!("note"),
            "root.key: the key (note) is not unique in public.orders: CREATE UNIQUE INDEX ON public.orders (note)",
        ),
        (
            "root/links/0/lookup",
            json!("produce"),
            "links.products.lookup: no lookup \"produce\"; add lookups.produce",
        ),
        ("root/columns", json!(["note"]), "root.columns: expected an object, found an array"),
        ("root/children", json!(["x"]), "children.?: expected an object, found a string"),
        (
            "root/children/0/parent",
            json!(""),
            "children.lines.parent: empty; name the column that refers to the enclosing row",
        ),
        (
            "root/children/0/key",
            json!(7),
            "children.lines.key: expected a string or a list of strings, found a number",
        ),
        (
            "root/absent_columns",
            json!("nul"),
            "root.absent_columns: expected \"keep\" or \"null\", found \"nul\"",
        ),
        (
            "root/tabel",
            json!("x"),
            "root.tabel: unknown key; known here: table, key, id, columns, children, links, absent_columns, on_absent",
        ),
        (
            "root/where",
            json!({}),
            "root.where: is for the command; the SQL functions do not know it (docs/sql.md)",
        ),
        (
            "root/columns/note",
            json!("^.note"),
            "root.columns.note: \"^.note\" leads out of the document; leave ^ out",
        ),
        (
            "root/children/1/name",
            json!("lines"),
            "children.lines.name: another relation is named \"lines\"; give this one another name, and path",
        ),
        (
            "root/children/0/columns/order_id",
            json!("x"),
            "children.lines.columns.order_id: column \"order_id\" refers to the parent and is filled from it; leave it out",
        ),
        (
            "root/links/0/parent",
            json!(["order_id", "product_id"]),
            "links.products.target: column \"product_id\" refers to the parent and is filled from it; leave it out",
        ),
        ("version", json!(2), "version: 2 is not known here; write \"version\": 1"),
    ]
}

#[tokio::test]
async fn p22_what_is_wrong_is_said_with_what_mends_it() {
    let (_db, sql) = shop().await;
    for (path, value, message) in faults() {
        let error = sql.register(&changed(path, &value)).await.unwrap_err();
        assert_eq!((error.code.as_str(), error.message.as_str()), ("RD005", message), "{path}");
    }
}

/// The engine knows more than the functions: what it registered may not be for them.
#[tokio::test]
async fn p22_an_example_that_is_beyond_the_functions_is_refused() {
    let db = db().await;
    db.execute(&schema_of("prisma")).await;
    install(db.url());
    let sql = Sql { client: db.client().await, name: String::new() };
    let text = std::fs::read_to_string(example("prisma").join("mapping.toml")).unwrap();
    let error = sql.register(&json_of(&text)).await.unwrap_err();
    assert_eq!(
        (error.code.as_str(), error.message.starts_with("sync.mark_time: ")),
        ("RD005", true),
        "{error:?}"
    );
}

#[tokio::test]
async fn p22_a_name_that_nobody_registered_is_unknown_to_every_function() {
    let (_db, sql) = shop().await;
    for call in [
        "sync('x', '{}')",
        "sync_many('x', '[]')",
        "plan('x', '{}')",
        "remove('x', '1')",
        "sweep('x', '[1]')",
        "verify('x')",
        "keep_history('x', '1 day')",
    ] {
        let error = sql.execute(&format!("SELECT * FROM rowdelta.{call}")).await.unwrap_err();
        assert_eq!(
            (error.code.as_str(), error.message.as_str()),
            (
                "RD001",
                "no mapping \"x\" is registered: rowdelta.register(...) enters one, rowdelta.mappings() lists them"
            ),
            "{call}"
        );
    }
}
