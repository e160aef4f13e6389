//! Tables made from a mapping, and types that a mapping gives, on a real server.

use std::path::{Path, PathBuf};

use rowdelta::ddl::ddl;
use rowdelta::mapping::Mapping;
use serde_json::{Map, Value, json};

use crate::support::command::{Scratch, install, output, run, sync};
use crate::support::{Database, db, feed};

/// `rowdelta schema -m MAP [MORE] FEED…`, which must succeed: what it prints.
fn schema(mapping: &Path, more: &[&str], feeds: &[&Path]) -> String {
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    let mapping = path(mapping);
    let feeds: Vec<String> = feeds.iter().map(|feed| path(feed)).collect();
    let mut arguments = vec!["schema", "-m", &mapping];
    arguments.extend(more);
    arguments.extend(feeds.iter().map(String::as_str));
    let (code, stdout, stderr) = output(&arguments);
    assert_eq!((code, stderr.as_str()), (0, ""));
    stdout
}

/// Makes the tables of a mapping from a feed; the feed must load into them without a failure, and a second time
/// write nothing, also where every row is read back and compared.
async fn make_and_sync(mapping: &Path, feed: &Path) -> (Database, String) {
    let db = db().await;
    let sql = schema(mapping, &[], &[feed]);
    db.execute(&sql).await;
    install(db.url());
    let first = sync(db.url(), mapping, &[feed]).succeeded();
    assert!(first.rows_written() > 0);
    assert_eq!((first.documents("failed"), first.documents("unsettled")), (0, 0), "{:#}", first.report);
    assert_eq!(sync(db.url(), mapping, &[feed]).succeeded().rows_written(), 0);
    db.execute("TRUNCATE rowdelta.document, rowdelta.base, rowdelta.skip").await;
    let again = sync(db.url(), mapping, &[feed]).succeeded();
    assert_eq!(again.rows_written(), 0, "{:#}", again.report);
    (db, sql)
}

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(name).join("mapping.toml")
}

/// The foreign keys that no index serves.
const WITHOUT_INDEX: &str = "
SELECT c.conrelid::regclass, c.conname FROM pg_constraint c
WHERE c.contype = 'f' AND c.connamespace <> 'rowdelta'::regnamespace AND NOT EXISTS (
    SELECT FROM pg_index i WHERE i.indrelid = c.conrelid
    AND (i.indkey::int2[])[0:cardinality(c.conkey) - 1] @> c.conkey)";

#[tokio::test]
async fn the_examples_load_into_tables_made_from_their_real_data() {
    for (name, data) in [
        ("convocatorias", "bdns/real-sample.ndjson"),
        ("dotnet_releases", "dotnet-releases/releases-2026-06-09.ndjson.gz"),
    ] {
        let Some(feed) = feed::real(data) else { continue };
        let (db, sql) = make_and_sync(&example(name), &feed).await;
        println!("{sql}");
        assert_eq!(db.table(WITHOUT_INDEX).await, Vec::<Vec<Option<String>>>::new());
    }
}

const SHOP: &str = r#"
version = 1
name = "shop"

[root]
table = '"My Sales"."Order"'
key = ["year", "user"]
columns = { year = "y", user = "u", placed = { path = "at", zone = "Europe/Madrid" }, currency_id = { lookup = "currency", match = { code = "cur" } } }

[[root.children]]
name = "lines"
table = '"My Sales".line'
parent = ["Year", "User"]
key = ["no"]
id = "id"
columns = { no = "@index", extra = "extra", tag_id = { lookup = "tag", match = { label = "tag" } } }

[[root.children.children]]
name = "serials"
table = "serial"
parent = "line_id"
columns = { code = "." }

[[root.children.children]]
name = "rates"
table = "select"
parent = "line_id"
key = ["currency"]
columns = { currency = "@key", rate = "." }

[[root.children.links]]
name = "tags"
table = "line_tag"
parent = "line_id"
target = "tag_id"
lookup = "tag"
match = { label = "label" }
columns = { weight = "w" }

[[root.children]]
name = "parcels"
table = "parcel"
parent = ["order_year", "order_user"]
key = ["barcode"]
unique_in = "all"
columns = { barcode = "barcode" }

[[root.children.children]]
name = "stamps"
table = "stamp"
parent = "barcode"
columns = { id = "id", at = "at" }

[lookups.tag]
table = "tag"
id = "id"
key = ["label"]
missing = "insert"
columns = { color = "color" }

[lookups.currency]
table = "currency"
id = "code"
key = ["code"]
missing = "insert"

[sync]
mark_hash = "hash"
mark_time = "seen"
"#;

const ORDERS: [&str; 2] = [
    r#"{"y": 2024, "u": "007", "at": "2024-05-31 10:00", "cur": "EUR",
        "lines": [{"extra": {"a": [1]}, "tag": "x", "serials": ["s", "s", 5], "rates": {"EUR": 1.5, "USD": 2},
                   "tags": [{"label": "x", "color": "red", "w": 1}, {"label": "y", "w": 2.5}]}, {"extra": 1}],
        "parcels": [{"barcode": "b", "stamps": [{"id": 1, "at": "2024-05-31T10:00:00Z"}, {"id": 1}]}]}"#,
    r#"{"y": 2025, "u": "a", "at": "2024-05-31T10:00:00Z", "cur": "USD", "lines": [{}]}"#,
];

fn lines(documents: &[&str]) -> String {
    documents.iter().map(|document| document.replace('\n', " ") + "\n").collect()
}

#[tokio::test]
async fn tables_of_every_shape_take_the_feed_they_were_made_from() {
    let scratch = Scratch::new();
    let (mapping, feed) = (scratch.write("m.toml", SHOP), scratch.write("f.ndjson", lines(&ORDERS)));
    let (db, _) = make_and_sync(&mapping, &feed).await;
    assert_eq!(db.table(WITHOUT_INDEX).await, Vec::<Vec<Option<String>>>::new());
    let types = "SELECT string_agg(attname || ' ' || format_type(atttypid, atttypmod), ', ' ORDER BY attnum)
                 FROM pg_attribute WHERE attnum > 0 AND attrelid = ";
    for (table, expected) in [
        (
            "\"My Sales\".\"Order\"",
            "year bigint, user text, placed timestamp with time zone, currency_id text, hash text, \
             seen timestamp with time zone",
        ),
        ("\"My Sales\".line", "id bigint, Year bigint, User text, no bigint, extra jsonb, tag_id bigint"),
        ("serial", "id bigint, line_id bigint, code text"),
        ("line_tag", "line_id bigint, tag_id bigint, weight numeric"),
        ("stamp", "barcode text, id bigint, at timestamp with time zone"),
    ] {
        assert_eq!(db.value(&format!("{types} '{table}'::regclass")).await, expected, "{table}");
    }
    // Whoever deletes a document deletes what hangs on it, and leaves the catalogues.
    db.execute("DELETE FROM \"My Sales\".\"Order\"").await;
    assert_eq!(db.value("SELECT count(*) FROM stamp").await, "0");
    assert_eq!(db.value("SELECT count(*) FROM tag").await, "2");
}

#[tokio::test]
async fn tables_that_exist_are_left_out_and_referred_to_by_their_types() {
    let scratch = Scratch::new();
    let (mapping, feed) = (scratch.write("m.toml", SHOP), scratch.write("f.ndjson", lines(&ORDERS)));
    let db = db().await;
    db.execute("CREATE TABLE tag (id serial PRIMARY KEY, label varchar(9) UNIQUE, color text)").await;
    let sql = schema(&mapping, &["-d", db.url()], &[&feed]);
    assert!(sql.contains("because the database has them: \"tag\""), "{sql}");
    assert!(sql.contains("    tag_id  integer NOT NULL REFERENCES tag (id),\n"), "{sql}");
    let created = schema(&mapping, &["-d", db.url(), "--create"], &[&feed]);
    assert_eq!(
        created,
        "created currency\ncreated My Sales.Order\ncreated My Sales.line\ncreated serial\ncreated select\n\
         created parcel\ncreated stamp\ncreated line_tag\n"
    );
    assert_eq!(schema(&mapping, &["-d", db.url(), "--create"], &[]), "every table exists already\n");
    install(db.url());
    sync(db.url(), &mapping, &[&feed]).succeeded();
}

const TYPED: &str = r#"
version = 1
name = "typed"
[root]
table = "t"
key = "code"
[root.columns]
code = { path = "code", type = "varchar(6)" }
amount = { path = "amount", type = "numeric(10, 2)" }
small = { path = "small", type = "Small" }
color = { path = "color", type = "color" }
at = { path = "at", type = "timestamp(3) with time zone" }
counts = { path = "counts", type = "int ARRAY" }
wait = { path = "wait", type = "interval day to second(3)" }
tag_id = { lookup = "tag", match = { label = "tag" } }
[lookups.tag]
table = "tag"
id = "id"
key = "label"
missing = "insert"
columns = { label = { path = "tag", type = "char(2)" } }
"#;
const TYPES: &str =
    "CREATE DOMAIN small AS numeric(4,1) NOT NULL; CREATE TYPE color AS ENUM ('red', 'green')";
const TYPED_ROW: &str = r#"{"code": "000001", "amount": 1.5, "small": 2, "color": "red", "at": "2024-05-31T10:00:00Z", "counts": "{1,2}", "wait": "90 min", "tag": "x"}"#;

#[tokio::test]
async fn types_of_the_mapping_make_tables_without_a_feed() {
    let scratch = Scratch::new();
    let (mapping, feed) = (scratch.write("m.toml", TYPED), scratch.write("f.ndjson", TYPED_ROW));
    let db = db().await;
    db.execute(TYPES).await;
    db.execute(&schema(&mapping, &[], &[])).await;
    install(db.url());
    sync(db.url(), &mapping, &[&feed]).succeeded();
    assert_eq!(sync(db.url(), &mapping, &[&feed]).succeeded().rows_written(), 0);
}

#[tokio::test]
async fn a_column_of_another_type_than_the_mapping_gives_is_a_fault() {
    let scratch = Scratch::new();
    let typed = TYPED.replace("at\", type = \"timestamp(3) with time zone\"", "at\", type = \"timestmp\"");
    let (mapping, feed) = (scratch.write("m.toml", typed), scratch.write("f.ndjson", TYPED_ROW));
    let db = db().await;
    db.execute(TYPES).await;
    db.execute(
        "CREATE TABLE tag (id bigserial PRIMARY KEY, label char(3) UNIQUE);
         CREATE TABLE t (code varchar(7) PRIMARY KEY, amount numeric(10,2), small numeric(4,1), color text,
                         at timestamptz(3), counts int[], wait interval day to second(3), tag_id bigint)",
    )
    .await;
    install(db.url());
    let ran = sync(db.url(), &mapping, &[&feed]);
    assert_eq!(ran.code, 2);
    let faults: Vec<&str> = ran.stderr.lines().skip(1).map(str::trim).collect();
    let alter = |table: &str, column: &str, ty: &str| {
        format!(
            "ALTER TABLE public.{table} ALTER COLUMN \"{column}\" TYPE {ty}, or correct the mapping's type"
        )
    };
    assert_eq!(
        faults,
        [
            format!(
                "lookups.tag.columns.label: column \"label\" is character(3), not char(2) as the mapping says: {}",
                alter("tag", "label", "char(2)")
            ),
            "root.columns.at: type = \"timestmp\": type \"timestmp\" does not exist; correct it".to_owned(),
            format!(
                "root.columns.code: column \"code\" is character varying(7), not varchar(6) as the mapping says: {}",
                alter("t", "code", "varchar(6)")
            ),
            format!(
                "root.columns.color: column \"color\" is text, not color as the mapping says: {}",
                alter("t", "color", "color")
            ),
            format!(
                "root.columns.small: column \"small\" is numeric(4,1), not Small as the mapping says: {}",
                alter("t", "small", "Small")
            ),
        ]
    );
}

#[tokio::test]
async fn what_does_not_fit_is_counted_and_without_any_document_nothing_is_printed() {
    let scratch = Scratch::new();
    let mapping = scratch.write("m.toml", SHOP);
    let mapping = mapping.to_str().unwrap();
    let faulty = lines(&[ORDERS[0], "{", "{\"y\": null}"]);
    let feed = scratch.write("f.ndjson", faulty);
    let (code, sql, said) = output(&["schema", "-m", mapping, feed.to_str().unwrap()]);
    assert_eq!(code, 0);
    assert!(said.starts_with("rowdelta: 2 of 3 documents passed over; the first: "), "{said}");
    assert!(said.contains("f.ndjson:2: not JSON"), "{said}");
    assert!(
        sql.contains("-- Types: inferred from 1 document (2 more did not fit and were passed over)"),
        "{sql}"
    );

    let feed = scratch.write("bad.ndjson", "{\"y\": null}\n");
    let (code, sql, said) = output(&["schema", "-m", mapping, feed.to_str().unwrap()]);
    assert_eq!((code, sql.as_str()), (2, ""));
    assert!(said.contains("no document of the feed fits the mapping; the first: "), "{said}");
    let (code, said) = run(&["schema", "-m", mapping]);
    assert_eq!(code, 2);
    assert!(said.contains("\n  root.columns.year: no type; give type = \"…\", or a feed"), "{said}");
    let (code, said) = run(&["schema", "-m", mapping, "--create", feed.to_str().unwrap()]);
    assert_eq!(code, 2);
    assert!(said.contains("no database is named"), "{said}");
}

/// PostgreSQL's own list of its words, each the name of a column.
#[tokio::test]
async fn every_word_of_sql_can_name_a_column() {
    let db = db().await;
    let words = db.table("SELECT word FROM pg_get_keywords()").await;
    let words: Vec<String> = words.into_iter().filter_map(|mut row| row.remove(0)).collect();
    let column = |word: &String| (word.clone(), json!({ "path": word, "type": "int" }));
    let columns: Map<String, Value> = words.iter().map(column).collect();
    let mapping = Mapping::from_json(&json!({
        "version": 1, "name": "words", "root": { "table": "user", "key": &words[..30], "columns": columns }
    }));
    db.execute(&ddl(&mapping.unwrap(), None, &[]).unwrap().to_string()).await;
    let count =
        db.value("SELECT count(*) FROM pg_attribute WHERE attnum > 0 AND attrelid = '\"user\"'::regclass");
    assert_eq!(count.await, words.len().to_string());
}
