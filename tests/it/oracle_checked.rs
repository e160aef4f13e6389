//! The oracle, checked by hand: rows written down here, differences planted, edits counted on fingers.

use std::path::{Path, PathBuf};

use crate::oracle::{Edit, Edits, State, Writes, check};
use crate::support::command::Scratch;
use crate::support::{Database, db, feed};

const SCHEMA: &str = r#"
    CREATE TABLE sector (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, code text UNIQUE, note text);
    CREATE TABLE region (id int PRIMARY KEY, name text UNIQUE);
    CREATE TABLE call (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, code text UNIQUE, amount numeric(10,2),
        raw numeric, day date, at timestamptz, extra jsonb, verbatim json, big bigint, ratio float8, title varchar(5),
        region_id int REFERENCES region, resume text);
    CREATE TABLE doc (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, call_id bigint REFERENCES call, official int UNIQUE,
        name text, path text);
    CREATE TABLE "Page" (doc_id bigint REFERENCES doc, "no" int, body text, PRIMARY KEY (doc_id, "no"));
    CREATE TABLE tag (call_id bigint REFERENCES call, word text);
    CREATE TABLE call_sector (call_id bigint REFERENCES call, sector_id int REFERENCES sector, PRIMARY KEY (call_id, sector_id));
    INSERT INTO region VALUES (7, 'North')"#;

const MAPPING: &str = r#"
    version = 1
    name = "calls"
    [root]
    table = "call"
    key = ["code"]
    id = "id"
    [root.columns]
    code = "code"
    amount = "money.amount"
    raw = "money.raw"
    day = ["day", "otherDay"]
    at = { path = "at", zone = "Europe/Madrid" }
    extra = "extra"
    verbatim = "extra"
    big = "big"
    ratio = "ratio"
    title = { path = "title", when_absent = "null" }
    region_id = { lookup = "region", match = { name = "region" } }
    [[root.children]]
    name = "docs"
    table = "doc"
    parent = "call_id"
    id = "id"
    key = ["official"]
    unique_in = "all"
    columns = { official = "id", name = "name" }
    [[root.children.children]]
    name = "pages"
    table = "Page"
    parent = "doc_id"
    key = ["no"]
    on_duplicate = "last"
    columns = { no = "no", body = "body" }
    [[root.children]]
    name = "tags"
    table = "tag"
    parent = "call_id"
    when_absent = "empty"
    columns = { word = "." }
    [[root.links]]
    name = "sectors"
    table = "call_sector"
    parent = "call_id"
    target = "sector_id"
    lookup = "sector"
    match = { code = "code" }
    [lookups.sector]
    table = "sector"
    id = "id"
    key = ["code"]
    missing = "insert"
    columns = { code = "code" }
    [lookups.region]
    table = "region"
    id = "id"
    key = ["name"]"#;

const FIRST: [&str; 2] = [
    r#"{"code":"A","money":{"amount":1.005,"raw":2.500},"day":null,"otherDay":"2024-02-29","at":"2024-07-01T10:00:00",
        "extra":{"b":1.0,"a":[1,2]},"big":9007199254740993,"ratio":-0.0,"title":1.50,"region":"North",
        "docs":[{"id":1,"name":"one","pages":[{"no":1,"body":"old"},{"no":1,"body":"x"},{"no":2}]},{"id":2,"name":"two"}],
        "tags":["t","t","u"],"sectors":[{"code":"S1"},{"code":"S2"},{"code":"S1"}]}"#,
    r#"{"code":"B","money":null,"at":"2024-07-01T10:00:00+00:00","docs":[{"id":3,"name":null,"pages":null}],"tags":null}"#,
];

/// What the first feed makes, written by hand.
const FIRST_ROWS: &str = r#"
    INSERT INTO sector (code) VALUES ('S2'), ('S1');
    INSERT INTO call (code, at) VALUES ('B', '2024-07-01 10:00+00');
    INSERT INTO call (code, amount, raw, day, at, extra, verbatim, big, ratio, title, region_id) VALUES
        ('A', 1.01, 2.5, '2024-02-29', '2024-07-01 08:00+00', '{"a":[1,2],"b":1.00}', '{"b":1.0,"a":[1,2]}',
         9007199254740993, '-0', '1.5', 7);
    INSERT INTO doc (call_id, official, name) VALUES (2, 2, 'two'), (1, 3, NULL), (2, 1, 'one');
    INSERT INTO "Page" VALUES (3, 1, 'x'), (3, 2, NULL);
    INSERT INTO tag VALUES (2, 't'), (2, 'u'), (2, 't');
    INSERT INTO call_sector VALUES (2, 1), (2, 2)"#;

const SECOND: [&str; 2] = [
    // `title` absent: null; `day` and the rest absent: kept. Document 1 left for B. One tag goes, one comes.
    r#"{"code":"A","docs":[{"id":2,"name":"TWO"}],"tags":["t","v","u"],"sectors":[{"code":"S3"},{"code":"S1"}]}"#,
    // The pages of document 1 are absent: they stay, and move along.
    r#"{"code":"B","money":{"amount":5},"docs":[{"id":3},{"id":1,"name":"one"}]}"#,
];

const SECOND_ROWS: &str = r#"
    INSERT INTO sector (code) VALUES ('S3');
    UPDATE call SET title = NULL WHERE code = 'A';
    UPDATE call SET amount = 5 WHERE code = 'B';
    UPDATE doc SET name = 'TWO' WHERE official = 2;
    UPDATE doc SET call_id = 1 WHERE official = 1;
    DELETE FROM tag WHERE ctid = (SELECT min(ctid) FROM tag WHERE word = 't');
    INSERT INTO tag VALUES (2, 'v');
    DELETE FROM call_sector WHERE sector_id = (SELECT id FROM sector WHERE code = 'S2');
    INSERT INTO call_sector SELECT 2, id FROM sector WHERE code = 'S3'"#;

fn owned(docs: &[&str]) -> Vec<String> {
    docs.iter().map(|doc| (*doc).to_owned()).collect()
}

async fn calls(scratch: &Scratch) -> (Database, PathBuf) {
    let db = db().await;
    db.execute(SCHEMA).await;
    (db, scratch.write("mapping.toml", MAPPING))
}

fn edits(list: &[(&str, u64, u64, u64)]) -> Edits {
    let edit = |&(table, inserted, updated, deleted): &(&str, u64, u64, u64)| {
        (table.to_owned(), Edit { inserted, updated, deleted })
    };
    list.iter().map(edit).collect()
}

#[tokio::test]
async fn rows_written_by_hand_pass_and_the_edit_between_two_nights_is_what_the_triggers_count() {
    let scratch = Scratch::new();
    let (db, mapping) = calls(&scratch).await;
    let state = State::open(db.client().await, &mapping).await.unwrap();
    let writes = Writes::count(db.client().await, &state.mapping).await.unwrap();
    state.feed(&owned(&FIRST)).await.unwrap();
    db.execute(FIRST_ROWS).await;
    state.check().await.unwrap();
    let first = [
        ("call", 2, 0, 0),
        ("doc", 3, 0, 0),
        ("Page", 2, 0, 0),
        ("tag", 3, 0, 0),
        ("call_sector", 2, 0, 0),
        ("sector", 2, 0, 0),
    ];
    assert_eq!(state.smallest_edit().await.unwrap(), edits(&first));
    assert_eq!(writes.take().await.unwrap(), edits(&first));

    state.feed(&owned(&SECOND)).await.unwrap();
    assert!(state.check().await.is_err());
    db.execute(SECOND_ROWS).await;
    state.check().await.unwrap();
    let second = [
        ("call", 0, 2, 0),
        ("doc", 0, 2, 0),
        ("tag", 1, 0, 1),
        ("call_sector", 1, 0, 1),
        ("sector", 1, 0, 0),
    ];
    assert_eq!(state.smallest_edit().await.unwrap(), edits(&second));
    assert_eq!(writes.take().await.unwrap(), edits(&second));

    state.feed(&owned(&SECOND)).await.unwrap();
    assert_eq!(state.smallest_edit().await.unwrap(), Edits::new());
}

#[tokio::test]
async fn every_planted_difference_is_named() {
    let scratch = Scratch::new();
    let (db, mapping) = calls(&scratch).await;
    db.execute(FIRST_ROWS).await;
    check(db.client().await, &mapping, &owned(&FIRST)).await.unwrap();
    let planted = [
        ("UPDATE call SET raw = 2.51 WHERE code = 'A'", "raw: expected 2.5, found 2.51"),
        ("UPDATE call SET ratio = 0 WHERE code = 'A'", "ratio: expected -0, found 0"),
        ("UPDATE call SET verbatim = '{\"b\":1.0, \"a\":[1,2]}' WHERE code = 'A'", "verbatim: expected"),
        ("UPDATE call SET extra = '{\"a\":[2,1],\"b\":1}' WHERE code = 'A'", "extra: expected"),
        ("UPDATE call SET extra = 'null' WHERE code = 'B'", "extra: expected NULL, found [null]"),
        ("UPDATE call SET big = big - 1 WHERE code = 'A'", "big: expected 9007199254740993"),
        ("UPDATE call SET region_id = NULL", "region_id: expected [\"North\"], found NULL"),
        ("UPDATE doc SET call_id = 1 WHERE official = 2", "parent: expected"),
        ("UPDATE \"Page\" SET body = 'old' WHERE body = 'x'", "body: expected x, found old"),
        (
            "DELETE FROM tag WHERE ctid = (SELECT min(ctid) FROM tag WHERE word = 't')",
            "tag (root/tags): 1 missing, 0 unexpected",
        ),
        ("INSERT INTO tag VALUES (2, 'u')", "tag (root/tags): 0 missing, 1 unexpected"),
        ("INSERT INTO tag VALUES (NULL, 'u')", "tag (root/tags): 0 missing, 1 unexpected"),
        (
            "UPDATE call_sector SET call_id = 1 WHERE sector_id = 1",
            "call_sector (root/sectors): 1 missing, 1 unexpected",
        ),
        ("INSERT INTO sector (code) VALUES ('S9')", "catalogue \"sector\": unexpected"),
        ("INSERT INTO call (code) VALUES ('C')", "unexpected [[\"root\", [\"C\"]]]"),
    ];
    for (sql, named) in planted {
        // Each in a copy of its own, made by doing it all again: simpler than undoing it.
        let (db, mapping) = calls(&scratch).await;
        let state = State::open(db.client().await, &mapping).await.unwrap();
        state.feed(&owned(&FIRST)).await.unwrap();
        db.execute(FIRST_ROWS).await;
        db.execute(sql).await;
        let error = state.check().await.expect_err(sql);
        assert!(error.contains(named), "{sql}\nexpected {named}\n{error}");
    }
}

#[tokio::test]
async fn documents_that_must_fail_are_refused_by_the_oracle_too() {
    let scratch = Scratch::new();
    let faulty = [
        (r#"{"code":"A","title":"too long"}"#, "22001"),
        (r#"{"code":"A","big":9223372036854775808}"#, "22003"),
        (r#"{"code":"A","big":1.5}"#, "22P02"),
        (r#"{"code":"A","day":{"y":2024}}"#, "an object in place of a scalar"),
        (r#"{"code":"A","docs":7}"#, "no list"),
        (r#"{"code":"A","docs":[{"id":1,"name":"a"},{"id":1,"name":"b"}]}"#, "rows of one identity differ"),
    ];
    for (doc, named) in faulty {
        let (db, mapping) = calls(&scratch).await;
        let error = check(db.client().await, &mapping, &owned(&[doc])).await.expect_err(doc);
        assert!(error.contains(named), "{doc}: {error}");
    }
}

/// The keys of a mapping that the calls above do not use.
const SHOP_SCHEMA: &str = r#"
    CREATE SCHEMA shop;
    CREATE TABLE shop.unit (id int PRIMARY KEY, "Code" char(3) UNIQUE);
    CREATE TABLE shop."Order" (shop text, no int, note text, PRIMARY KEY (shop, no));
    CREATE TABLE shop.line (shop text, no int, pos int, art text, qty numeric, unit_id int REFERENCES shop.unit,
        PRIMARY KEY (shop, no, art), FOREIGN KEY (shop, no) REFERENCES shop."Order");
    CREATE TABLE shop.price (shop text, no int, art text, currency text, cents int,
        FOREIGN KEY (shop, no, art) REFERENCES shop.line (shop, no, art));
    CREATE TABLE shop.event (shop text, no int, kind text, at text, shop_again text);
    INSERT INTO shop.unit VALUES (1, 'kg'), (2, 'l')"#;

const SHOP_MAPPING: &str = r#"
    version = 1
    name = "shop"
    [root]
    table = "shop.Order"
    key = ["shop", "no"]
    absent_columns = "null"
    columns = { shop = "shop", no = "no", note = { path = '"a.b"', when_absent = "keep" } }
    [[root.children]]
    name = "lines"
    table = "shop.line"
    parent = ["shop", "no"]
    key = ["art"]
    on_duplicate = "first"
    when_null = "keep"
    [root.children.columns]
    art = "art"
    pos = "@index"
    qty = "qty"
    unit_id = { lookup = "unit", match = { Code = "unit" } }
    [[root.children.children]]
    name = "prices"
    table = "shop.price"
    parent = ["shop", "no", "art"]
    key = ["currency"]
    columns = { currency = "@key", cents = "." }
    [[root.children]]
    name = "events"
    table = "shop.event"
    parent = ["shop", "no"]
    pair = true
    columns = { kind = "kind", at = "at", shop_again = "^.shop" }
    [lookups.unit]
    table = "shop.unit"
    id = "id"
    key = ["Code"]
    missing = "skip""#;

#[tokio::test]
async fn maps_places_pairs_and_composite_keys_are_as_the_mapping_says() {
    let scratch = Scratch::new();
    let db = db().await;
    db.execute(SHOP_SCHEMA).await;
    let mapping = scratch.write("mapping.toml", SHOP_MAPPING);
    let state = State::open(db.client().await, &mapping).await.unwrap();
    let nights = [
        (
            r#"{"shop":"s","no":1,"a.b":"n","lines":[{"art":"x","qty":1.0,"unit":"kg","prices":{"EUR":5,"USD":6}},
                {"art":"y","unit":"xx"},{"art":"x","qty":2}],"events":[{"kind":"a","at":"1"},{"kind":"a","at":"1"},{"kind":"b"}]}"#,
            r#"INSERT INTO shop."Order" VALUES ('s', 1, 'n');
               INSERT INTO shop.line VALUES ('s', 1, 1, 'y', NULL, NULL), ('s', 1, 0, 'x', 1, 1);
               INSERT INTO shop.price VALUES ('s', 1, 'x', 'USD', 6), ('s', 1, 'x', 'EUR', 5);
               INSERT INTO shop.event VALUES ('s', 1, 'a', '1', 's'), ('s', 1, 'b', NULL, 's'), ('s', 1, 'a', '1', 's')"#,
            vec![
                ("shop.Order", 1, 0, 0),
                ("shop.line", 2, 0, 0),
                ("shop.price", 2, 0, 0),
                ("shop.event", 3, 0, 0),
            ],
        ),
        (
            // The note is kept, the lines too since null keeps them; one event is paired with a changed one.
            r#"{"shop":"s","no":1,"lines":null,"events":[{"kind":"a","at":"2"},{"kind":"a","at":"1"}]}"#,
            r#"DELETE FROM shop.event WHERE kind = 'b';
               UPDATE shop.event SET at = '2' WHERE ctid = (SELECT min(ctid) FROM shop.event)"#,
            vec![("shop.event", 0, 1, 1)],
        ),
        (
            // `qty` absent: null, as the root says for all below it. A price goes, with its line the others.
            r#"{"shop":"s","no":1,"lines":[{"art":"x","unit":"kg","prices":{"EUR":7}}],"events":null}"#,
            r#"UPDATE shop.line SET qty = NULL WHERE art = 'x';
               DELETE FROM shop.line WHERE art = 'y';
               DELETE FROM shop.price WHERE currency = 'USD';
               UPDATE shop.price SET cents = 7;
               DELETE FROM shop.event"#,
            vec![("shop.line", 0, 1, 1), ("shop.price", 0, 1, 1), ("shop.event", 0, 0, 2)],
        ),
    ];
    for (doc, sql, least) in nights {
        state.feed(&owned(&[doc])).await.unwrap();
        assert!(state.check().await.is_err(), "{doc}");
        db.execute(sql).await;
        state.check().await.unwrap_or_else(|error| panic!("{doc}\n{error}"));
        assert_eq!(state.smallest_edit().await.unwrap(), edits(&least), "{doc}");
    }
}

#[tokio::test]
async fn a_document_that_fails_leaves_the_oracle_as_it_was() {
    let scratch = Scratch::new();
    let (db, mapping) = calls(&scratch).await;
    let state = State::open(db.client().await, &mapping).await.unwrap();
    state.feed(&owned(&FIRST)).await.unwrap();
    db.execute(FIRST_ROWS).await;
    let moved_and_broken = r#"{"code":"B","docs":[{"id":1}],"tags":[{"a":1}]}"#;
    state.feed(&owned(&[moved_and_broken])).await.unwrap_err();
    state.check().await.unwrap();
}

/// At the size of the real data: the tables are filled from the oracle's own rows, so this shows that
/// looking up and comparing agree, and how long they take; not that the rows are right.
#[tokio::test]
async fn real_documents_filled_from_the_oracle_s_rows_pass() {
    let Some((db, state)) = real("convocatorias").await else { return };
    let data = feed::real("bdns/real-all.ndjson.gz").unwrap();
    let start = std::time::Instant::now();
    state.feed(&feed::lines(&data)).await.unwrap();
    println!("fed in {:.1} s", start.elapsed().as_secs_f64());
    for statement in state.fill() {
        db.execute(&statement).await;
    }
    let start = std::time::Instant::now();
    state.check().await.unwrap();
    println!("checked in {:.1} s", start.elapsed().as_secs_f64());
    let edits = state.smallest_edit().await.unwrap();
    // As counted in the README of the data.
    for (table, rows) in [("convocatoria", 8776), ("documento", 16_108), ("anuncio", 3389)] {
        assert_eq!(edits[table], Edit { inserted: rows, updated: 0, deleted: 0 });
    }
}

/// The example's database and the oracle's state on it, or `None` while the example is not there.
async fn real(name: &str) -> Option<(Database, State)> {
    feed::real("bdns/README.md")?;
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(name);
    let schema = std::fs::read_to_string(example.join("schema.sql")).ok()?;
    let db = db().await;
    db.execute(&schema).await;
    let state = State::open(db.client().await, &example.join("mapping.toml")).await.unwrap();
    Some((db, state))
}

/// The README of the data says that the second capture differs by the order of lists alone.
#[tokio::test]
async fn reordered_lists_are_no_edit() {
    let Some((_db, state)) = real("convocatorias").await else { return };
    for (night, calls) in [("2026-02-01", 3149), ("2026-02-02", 0)] {
        let path = feed::real(&format!("bdns/nights/bdns-{night}.ndjson.gz")).unwrap();
        state.feed(&feed::lines(&path)).await.unwrap();
        let edits = state.smallest_edit().await.unwrap();
        assert_eq!(edits.get("convocatoria").map_or(0, |edit| edit.inserted), calls, "{edits:?}");
        assert_eq!(edits.is_empty(), calls == 0, "{edits:?}");
    }
}

/// The replayed nights are cut from one capture by date: rows come, none change and none go.
#[tokio::test]
async fn replayed_nights_only_grow() {
    let Some((_db, state)) = real("convocatorias").await else { return };
    for (day, calls) in
        [(19, 1126), (20, 1154 - 1126), (21, 1187 - 1154), (22, 1227 - 1187), (23, 1260 - 1227)]
    {
        let path = feed::real(&format!("bdns/replay/replay-2024-02-{day}.ndjson.gz")).unwrap();
        state.feed(&feed::lines(&path)).await.unwrap();
        let edits = state.smallest_edit().await.unwrap();
        println!("{day}: {edits:?}");
        assert_eq!(edits["convocatoria"], Edit { inserted: calls, updated: 0, deleted: 0 });
        assert!(edits.values().all(|edit| edit.updated == 0 && edit.deleted == 0), "{edits:?}");
    }
}

/// Counted by others: the manifest of the snapshots has the releases and CVEs of each.
#[tokio::test]
async fn releases_of_the_snapshots_are_as_many_as_their_manifest_says() {
    let Some((db, state)) = real("dotnet_releases").await else { return };
    let manifest = std::fs::read(feed::real("dotnet-releases/manifest.json").unwrap()).unwrap();
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    for snapshot in manifest["snapshots"].as_array().unwrap() {
        let file = format!("dotnet-releases/{}", snapshot["file"].as_str().unwrap());
        state.feed(&feed::lines(&feed::real(&file).unwrap())).await.unwrap();
        println!("{file}: {:?}", state.smallest_edit().await.unwrap());
        let counted = &snapshot["elements"];
        for (relation, element) in
            [("releases", "releases"), ("releases/sdks", "sdks"), ("releases/cves", "cves")]
        {
            let rows = db.value(&format!("SELECT count(*) FROM oracle.\"expected root/{relation}\"")).await;
            assert_eq!(rows, counted[element].to_string(), "{relation} in {file}");
        }
    }
}
