//! Every type that a column can have: alone, in a list, in a composite, as a key. What is stored is what the server's
//! own conversion of the text makes; a second sync writes nothing, and `verify` finds no drift.
//!
//! The README's table of types is made from what comes out; `ROWDELTA_TYPES_RENEW=1` writes it anew.

mod samples;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use rowdelta::mapping::Mapping;
use rowdelta::postgres::catalog;
use rowdelta::value::Kind;
use samples::{MADE, OWN, REFUSED, SAMPLES, Sampled};
use serde_json::Value;
use tokio_postgres::Client;

use crate::support::command::{Scratch, install, sync};
use crate::support::database::describe;
use crate::support::{Database, db};
use crate::verify::verify_at;

/// Documents: as many as the type with the most samples has, so that each is stored alone at least once.
fn documents() -> usize {
    SAMPLES.iter().map(|ty| ty.values.len()).max().unwrap_or(0)
}

/// The types that this server can store: an optional part of it, or an extension, may be missing.
async fn storable(client: &Client) -> Vec<&'static Sampled> {
    for make in MADE {
        if let Err(error) = client.batch_execute(make).await {
            assert!(make.starts_with("CREATE EXTENSION"), "{make}: {}", describe(&error));
        }
    }
    let mut types = Vec::new();
    for ty in SAMPLES.iter().chain(OWN) {
        match client.batch_execute(&format!("SELECT {}", typed_literal(ty, ty.values[0]))).await {
            Ok(()) => types.push(ty),
            Err(error) => {
                let code = error.code().map_or("", |code| code.code());
                // Not supported, or no such type.
                assert!(["0A000", "42704"].contains(&code), "{}: {}", ty.sql, describe(&error));
                println!("skipped: this server was built without {}", ty.sql);
            }
        }
    }
    types
}

/// The JSON of a sample, and its text.
fn spelled(sample: &str) -> (&str, String) {
    if let Some((json, text)) = sample.split_once(" ⇒ ") {
        return (json, text.to_owned());
    }
    match serde_json::from_str(sample).unwrap() {
        Value::String(text) => (sample, text),
        _ => (sample, sample.to_owned()),
    }
}

/// Whether a list is one value of the type: its arrays have one dimension then.
fn takes_lists(ty: &Sampled) -> bool {
    ["json", "jsonb", "own_json", "own_jsonb", "own_list"].contains(&ty.sql)
}

fn typed_literal(ty: &Sampled, sample: &str) -> String {
    let (json, text) = spelled(sample);
    let value = match ty.sql {
        // These take any value, a string as a string.
        "json" | "jsonb" | "own_json" | "own_jsonb" => json.to_owned(),
        // Of a whole number the value counts, not the spelling.
        "smallint" | "integer" | "bigint" if !json.starts_with('"') => {
            return format!("('{json}'::numeric::{})", ty.sql);
        }
        _ => text,
    };
    format!("('{}'::{})", value.replace('\'', "''"), ty.sql)
}

fn sample(ty: &Sampled, document: usize) -> &'static str {
    ty.values[document % ty.values.len()]
}

/// A table's columns: one of each type, `c0` and so on.
fn columns(types: &[&Sampled], suffix: &str) -> String {
    let column = |(at, ty): (usize, &&Sampled)| format!("c{at} {}{suffix}", ty.sql);
    types.iter().enumerate().map(column).collect::<Vec<_>>().join(", ")
}

fn tables(types: &[&Sampled]) -> String {
    format!(
        "CREATE TYPE everything AS ({one});
         CREATE TABLE t (id int PRIMARY KEY, {one}, whole everything, wholes everything[]);
         CREATE TABLE expected (LIKE t);
         CREATE TABLE lists (t_id int REFERENCES t, id int, {lists}, PRIMARY KEY (t_id, id));
         CREATE TABLE expected_lists (LIKE lists);
         CREATE TABLE copies (row bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, t_id int REFERENCES t, {one});
         CREATE TABLE expected_copies (LIKE copies INCLUDING ALL)",
        one = columns(types, ""),
        lists = columns(types, "[]"),
    )
}

fn mapping(types: &[&Sampled]) -> String {
    let column = |at: usize| format!("c{at} = \"c{at}\"");
    let each = (0..types.len()).map(column).collect::<Vec<_>>().join("\n");
    format!(
        "version = 1
         name = \"types\"
         [root]
         table = \"t\"
         key = [\"id\"]
         [root.columns]
         id = \"id\"
         whole = \"whole\"
         wholes = \"wholes\"
         {each}
         [[root.children]]
         name = \"lists\"
         table = \"lists\"
         parent = \"t_id\"
         key = [\"id\"]
         [root.children.columns]
         id = \"id\"
         {each}
         [[root.children]]
         name = \"copies\"
         table = \"copies\"
         parent = \"t_id\"
         [root.children.columns]
         {each}"
    )
}

/// The members of an object with a value of each type.
fn members(types: &[&Sampled], value: impl Fn(&Sampled) -> String) -> String {
    let member = |(at, ty): (usize, &&Sampled)| format!("\"c{at}\":{}", value(ty));
    types.iter().enumerate().map(member).collect::<Vec<_>>().join(",")
}

/// All samples of a type, and a null.
fn list(ty: &Sampled) -> String {
    let values: Vec<&str> = ty.values.iter().map(|sample| spelled(sample).0).collect();
    format!("[{},null]", values.join(","))
}

fn document(types: &[&Sampled], at: usize) -> String {
    let value = |at: usize| move |ty: &Sampled| spelled(sample(ty, at)).0.to_owned();
    let (one, next) = (members(types, value(at)), members(types, value(at + 1)));
    let lists = members(types, list);
    let nested = members(types, |ty| match takes_lists(ty) {
        true => list(ty),
        false => format!("[{list},{list}]", list = list(ty)),
    });
    format!(
        "{{\"id\":{at},{one},\"whole\":{{{one}}},\"wholes\":[{{{next}}},null],\
          \"lists\":[{{\"id\":1,{lists}}},{{\"id\":2,{nested}}}],\"copies\":[{{{one}}},{{{one}}},{{{next}}}]}}"
    )
}

/// Fills the tables of what is expected, every value converted by the server alone.
async fn expect(db: &Database, types: &[&Sampled]) {
    let row =
        |at: usize| types.iter().map(|ty| typed_literal(ty, sample(ty, at))).collect::<Vec<_>>().join(", ");
    let lists = |nested: bool| {
        let array = |ty: &&Sampled| {
            let values: Vec<String> = ty.values.iter().map(|value| typed_literal(ty, value)).collect();
            let one = format!("ARRAY[{}, NULL]", values.join(", "));
            let array = if nested && !takes_lists(ty) { format!("ARRAY[{one}, {one}]") } else { one };
            format!("{array}::{}[]", ty.sql)
        };
        types.iter().map(array).collect::<Vec<_>>().join(", ")
    };
    let names = (0..types.len()).map(|at| format!("c{at}")).collect::<Vec<_>>().join(", ");
    for at in 0..documents() {
        let (one, next) = (row(at), row(at + 1));
        db.execute(&format!(
            "INSERT INTO expected VALUES ({at}, {one}, ROW({one})::everything, ARRAY[ROW({next})::everything, NULL]);
             INSERT INTO expected_lists VALUES ({at}, 1, {}), ({at}, 2, {});
             INSERT INTO expected_copies (t_id, {names}) VALUES ({at}, {one}), ({at}, {one}), ({at}, {next})",
            lists(false),
            lists(true),
        ))
        .await;
    }
}

/// Columns in which a table differs from what is expected, byte by byte.
async fn differing(db: &Database, table: &str, key: &str, types: &[&Sampled], more: &[&str]) -> Vec<String> {
    let names = (0..types.len()).map(|at| format!("c{at}")).chain(more.iter().map(|&name| name.to_owned()));
    let mut differing = Vec::new();
    for (at, name) in names.enumerate() {
        let count = format!(
            "SELECT count(*) FROM {table} t FULL JOIN expected{} e USING ({key}) \
             WHERE record_send(ROW(t.{name})) IS DISTINCT FROM record_send(ROW(e.{name}))",
            if table == "t" { String::new() } else { format!("_{table}") },
        );
        let count = db.value(&count).await;
        if count != "0" {
            let ty = types.get(at).map_or(name.as_str(), |ty| ty.sql);
            differing.push(format!("{table}.{name} ({ty}): {count} rows differ"));
        }
    }
    differing
}

/// Settings on which the meaning of a text may depend.
const HOSTILE: &str = "
    DO $$ DECLARE setting text; BEGIN
      FOREACH setting IN ARRAY ARRAY['datestyle = ''SQL, DMY''', 'intervalstyle = sql_standard', 'timezone = ''America/St_Johns''',
          'array_nulls = off', 'xmloption = document', 'extra_float_digits = -15', 'bytea_output = escape', 'quote_all_identifiers = on'] LOOP
        EXECUTE format('ALTER DATABASE %I SET ', current_database()) || setting;
      END LOOP;
    END $$";

#[tokio::test]
async fn p06_p08_p20_every_type_is_stored_as_the_server_converts_it_and_a_second_sync_writes_nothing() {
    let db = db().await;
    let client = db.client().await;
    let types = storable(&client).await;
    db.execute(&tables(&types)).await;
    expect(&db, &types).await;
    install(db.url());
    db.execute(HOSTILE).await;
    let scratch = Scratch::new();
    let mapping = scratch.write("mapping.toml", mapping(&types));
    let feed: Vec<String> = (0..documents()).map(|at| document(&types, at)).collect();
    let feed = scratch.write("feed.ndjson", feed.join("\n"));

    let first = sync(db.url(), &mapping, &[&feed]).succeeded();
    assert_eq!(first.rows_written() as usize, 6 * documents());
    let mut wrong = differing(&db, "t", "id", &types, &["whole", "wholes"]).await;
    wrong.extend(differing(&db, "lists", "t_id, id", &types, &[]).await);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // Rows without a key come in any order: each pair is told apart by all of its columns.
    let names = (0..types.len()).map(|at| format!("c{at}")).collect::<Vec<_>>().join(", ");
    let rows = |table: &str| format!("SELECT t_id, record_send(ROW({names})) FROM {table}");
    let both = [rows("copies"), rows("expected_copies")];
    let count = |a: usize, b: usize| format!("SELECT count(*) FROM ({} EXCEPT ALL {}) x", both[a], both[b]);
    assert_eq!((db.value(&count(0, 1)).await, db.value(&count(1, 0)).await), ("0".into(), "0".into()));

    assert_eq!(sync(db.url(), &mapping, &[&feed]).succeeded().documents("unchanged") as usize, documents());
    verify_at(db.url(), &mapping, &[]).await.finds_nothing();
    verify_at(db.url(), &mapping, &[feed.to_str().unwrap()]).await.finds_nothing();
    db.execute("TRUNCATE rowdelta.document, rowdelta.base, rowdelta.skip").await;
    let adopted = sync(db.url(), &mapping, &[&feed]).succeeded();
    assert_eq!(adopted.rows_written(), 0, "{:#}", adopted.report);
}

#[tokio::test]
async fn p20_no_type_of_the_catalog_is_forgotten() {
    let db = db().await;
    let known: Vec<String> = SAMPLES.iter().map(|ty| format!("'{}'", ty.sql.replace('\'', "''"))).collect();
    let types = format!(
        "SELECT typname FROM pg_type WHERE typnamespace = 'pg_catalog'::regnamespace AND typtype IN ('b', 'r', 'm')
           AND typelem = 0 OR typname IN ('point', 'line', 'lseg', 'box', 'int2vector', 'oidvector', 'name')
         EXCEPT SELECT (SELECT typname FROM pg_type t WHERE t.oid = to_regtype(known)) FROM unnest(ARRAY[{}]) known
         ORDER BY 1",
        known.join(", ")
    );
    let missing: Vec<String> = db.table(&types).await.into_iter().filter_map(|row| row[0].clone()).collect();
    let missing: Vec<&String> = missing.iter().filter(|name| !REFUSED.contains(&name.as_str())).collect();
    assert!(missing.is_empty(), "neither sampled nor refused: {missing:?}");
}

#[tokio::test]
async fn p22_types_without_a_binary_form_are_refused_before_the_first_write() {
    let db = db().await;
    db.execute(
        "CREATE TYPE grants AS (id int, given aclitem); CREATE DOMAIN given AS grants; CREATE TYPE outer_one AS (n int, g given[]);
         CREATE TYPE harmless AS (id int, words text[]);
         CREATE TABLE k (id int PRIMARY KEY, v aclitem, w aclitem[], x grants, y outer_one, z harmless)",
    )
    .await;
    let mapping = "version = 1\nname = \"k\"\n[root]\ntable = \"k\"\nkey = [\"id\"]\n\
                   columns = { id = \"id\", v = \"v\", w = \"w\", x = \"x\", y = \"y\", z = \"z\" }";
    let client = db.client().await;
    let error = catalog::read(&client, &Mapping::from_toml(mapping).unwrap()).await.unwrap_err().to_string();
    for fault in [
        "root.columns.v: column \"v\" is aclitem, of which there is no binary form; leave it out of the mapping",
        "root.columns.w: column \"w\" is aclitem[], of which there is no binary form; leave it out of the mapping",
        "root.columns.x: column \"x\" is grants, which holds aclitem, of which there is no binary form",
        "root.columns.y: column \"y\" is outer_one, which holds aclitem, of which there is no binary form",
    ] {
        assert!(error.contains(fault), "{error}");
    }
    assert!(!error.contains("root.columns.z"), "{error}");
}

/// What the README says of a type.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Traits {
    /// Whether the server converts.
    asks: bool,
    key: AsKey,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum AsKey {
    Yes,
    /// Its `=` is not equality of what is stored.
    Unequal,
    /// No unique index can be made over it.
    Unordered,
}

/// A table whose key is one column of this type, and what a mapping of it comes to.
async fn traits(client: &Client, ty: &Sampled) -> Traits {
    let create = |key: &str| {
        format!("DROP TABLE IF EXISTS k; CREATE TABLE k (id int PRIMARY KEY, v {} {key})", ty.sql)
    };
    let unique = client.batch_execute(&create("NOT NULL UNIQUE")).await.is_ok();
    if !unique {
        client.batch_execute(&create("")).await.unwrap();
    }
    let mapping = |key: &str| {
        let text = format!(
            "version = 1\nname = \"k\"\n[root]\ntable = \"k\"\nkey = [\"{key}\"]\ncolumns = {{ id = \"id\", v = \"v\" }}"
        );
        Mapping::from_toml(&text).unwrap()
    };
    let schema =
        catalog::read(client, &mapping("id")).await.unwrap_or_else(|error| panic!("{}: {error}", ty.sql));
    let key = match unique {
        false => AsKey::Unordered,
        true if catalog::read(client, &mapping("v")).await.is_ok() => AsKey::Yes,
        true => AsKey::Unequal,
    };
    Traits { asks: matches!(schema.tables[0].columns[0].kind, Kind::Json | Kind::Server), key }
}

#[tokio::test]
async fn p22_the_table_of_types_in_the_readme_is_what_the_catalog_makes_of_them() {
    let db = db().await;
    let client = db.client().await;
    let mut groups: BTreeMap<Traits, Vec<&str>> = BTreeMap::new();
    for ty in SAMPLES {
        groups.entry(traits(&client, ty).await).or_default().push(ty.sql);
    }
    let mut table = String::from("| types | a value is encoded by | as a key |\n|---|---|---|\n");
    for (Traits { asks, key }, types) in groups {
        let types = types.iter().map(|ty| format!("`{ty}`")).collect::<Vec<_>>().join(", ");
        let by = if asks { "the server" } else { "rowdelta" };
        let key = match key {
            AsKey::Yes => "yes",
            AsKey::Unequal => "no: `=` is not equality of what is stored",
            AsKey::Unordered => "no: it cannot be unique",
        };
        writeln!(table, "| {types} | {by} | {key} |").unwrap();
    }
    let refused = REFUSED.iter().map(|ty| format!("`{ty}`")).collect::<Vec<_>>().join(", ");
    writeln!(
        table,
        "| {refused} | refused: the server reads no text as one, or has no binary form of it | |"
    )
    .unwrap();
    compare(&table);
}

/// Compares the table with the README's, or renews it.
fn compare(table: &str) {
    const MARKS: (&str, &str) = ("<!-- types -->\n", "<!-- /types -->");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let readme = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = readme.split_once(MARKS.0).expect("the README has a mark before its table of types");
    let (found, after) = rest.split_once(MARKS.1).expect("and one behind it");
    if std::env::var_os("ROWDELTA_TYPES_RENEW").is_some() {
        std::fs::write(&path, format!("{before}{}{table}{}{after}", MARKS.0, MARKS.1)).unwrap();
        return;
    }
    assert_eq!(found, table, "ROWDELTA_TYPES_RENEW=1 writes the README's table of types anew");
}
