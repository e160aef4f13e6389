//! Which row is which: keys that may be NULL, places in a list, pairs of left-over rows, alternate keys, and the
//! columns that cannot be keys.

use serde_json::{Value, json};

use crate::shop::{Shop, edits, failures, ndjson};
use crate::support::cluster::cluster;
use crate::support::command::{Ran, Scratch, install, start_sync, sync};
use crate::support::db;

/// `UNIQUE NULLS NOT DISTINCT` came with PostgreSQL 15. Says so once where a test is left out.
async fn counts_nulls_as_equal() -> bool {
    drop(db().await);
    let new_enough = cluster().major >= 15;
    if !new_enough {
        println!("skipped: PostgreSQL {} has no NULLS NOT DISTINCT", cluster().major);
    }
    new_enough
}

/// What a mapping is told before the first write.
async fn faults(tables: &str, mapping: &str) -> String {
    let db = db().await;
    db.execute(tables).await;
    install(db.url());
    let scratch = Scratch::new();
    let feed = scratch.write("feed.ndjson", "");
    let ran = sync(db.url(), &scratch.write("mapping.toml", mapping), &[&feed]);
    assert!(ran.code == 2 || ran.code == 0, "{}", ran.stderr);
    ran.stderr
}

// NULL in keys ------------------------------------------------------------------------------------------------------

const OFFICES: &str = "
    CREATE TABLE office (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, country text NOT NULL, branch int,
        name text, UNIQUE NULLS NOT DISTINCT (country, branch));
    CREATE TABLE desk (office_id bigint NOT NULL REFERENCES office, room text, no numeric, label text);
    CREATE TABLE device (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, office_id bigint NOT NULL REFERENCES office,
        maker text, serial text, note text, UNIQUE NULLS NOT DISTINCT (maker, serial));
    CREATE INDEX ON desk (office_id);
    CREATE INDEX ON device (office_id);";

const OFFICE_MAPPING: &str = r#"
version = 1
name = "offices"
[root]
table = "office"
key = ["country", "branch"]
id = "id"
columns = { country = "country", branch = { path = "branch", nullable = true }, name = "name" }
[[root.children]]
name = "desks"
table = "desk"
parent = "office_id"
key = ["room", "no"]
columns = { room = { path = "room", nullable = true }, no = { path = "no", nullable = true }, label = "label" }
[[root.children]]
name = "devices"
table = "device"
parent = "office_id"
id = "id"
key = ["maker", "serial"]
unique_in = "all"
columns = { maker = { path = "maker", nullable = true }, serial = { path = "serial", nullable = true }, note = "note" }
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p11_rows_are_found_by_keys_with_null_at_every_level() {
    if !counts_nulls_as_equal().await {
        return;
    }
    let shop = Shop::with(OFFICES, OFFICE_MAPPING).await;
    let head = json!({ "country": "es", "branch": null, "name": "head",
        "desks": [{ "room": "a", "no": 1.0, "label": "x" }, { "room": null, "no": 1 }, { "label": "nowhere" }],
        "devices": [{ "maker": "m", "serial": "1" }, { "maker": "m" }, { "note": "nameless" }] });
    let branch = json!({ "country": "es", "branch": 2, "name": "branch", "desks": [{}], "devices": [] });
    shop.sync(&[head.clone(), branch.clone()]).await;
    assert_eq!(shop.rows("SELECT count(*) FROM desk WHERE room IS NULL AND no IS NULL").await, ["2"]);
    // Again with nothing recorded: all is read by its keys, and found.
    shop.db.execute("TRUNCATE rowdelta.document, rowdelta.base, rowdelta.skip").await;
    let ran = shop.sync(&[head.clone(), branch.clone()]).await;
    assert_eq!((ran.rows_written(), ran.documents("unchanged")), (0, 2));
    // One update each: the root, a desk without a number, a device that nothing identifies and that moves.
    let ids = shop.rows("SELECT id, maker, serial FROM device ORDER BY 1").await;
    let head = json!({ "country": "es", "name": "HEAD", "desks": head["desks"],
        "devices": [{ "maker": "m", "serial": "1" }, { "maker": "m", "note": "new" }] });
    let branch = json!({ "country": "es", "branch": 2, "name": "branch", "desks": [{ "label": "here" }],
        "devices": [{ "note": "nameless" }] });
    shop.sync(&[head.clone(), branch.clone()]).await;
    assert_eq!(shop.rows("SELECT id, maker, serial FROM device ORDER BY 1").await, ids);
    assert_eq!(shop.unsettled().await, "0");
    // A device with a NULL in its key that goes is held back to the end, and found again there.
    let ran = shop
        .sync(&[json!({ "country": "es", "branch": 2, "desks": [{ "label": "here" }], "devices": [] }), head])
        .await;
    assert_eq!((ran.rows_written(), shop.unsettled().await.as_str()), (1, "0"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p11_a_root_with_null_in_its_key_that_was_deleted_comes_back() {
    if !counts_nulls_as_equal().await {
        return;
    }
    let shop = Shop::with(OFFICES, OFFICE_MAPPING).await;
    let docs = [json!({ "country": "es", "desks": [{}] }), json!({ "country": "pt", "branch": 1 })];
    shop.sync(&docs).await;
    let ran = shop.sync(&docs).await;
    assert_eq!((ran.documents("unchanged"), ran.documents("unsettled")), (2, 0));
    assert!(!ran.stderr.contains("deleted"), "{}", ran.stderr);
    shop.db.execute("DELETE FROM desk; DELETE FROM office WHERE country = 'es'").await;
    shop.written().await;
    let ran = shop.run(&docs).await.succeeded();
    assert_eq!(shop.written().await, edits(&[("desk", 1, 0, 0), ("office", 1, 0, 0)]), "{}", ran.stderr);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p11_claims_and_failures_call_null_by_name() {
    if !counts_nulls_as_equal().await {
        return;
    }
    let shop = Shop::with(OFFICES, OFFICE_MAPPING).await;
    let ran = shop.run(&[json!({ "country": "es", "name": [1] }), json!({ "branch": 1 })]).await;
    assert_eq!(
        failures(&ran),
        [
            "feed.ndjson:1 [es,NULL] offices name: expected text, found a list",
            "feed.ndjson:2 [1] offices country: is absent, and part of the key"
        ]
    );
    let device = json!([{ "maker": null, "serial": null }]);
    let claim = |branch: Value| json!({ "country": "es", "branch": branch, "devices": device });
    let ran = shop.run(&[claim(json!(null)), claim(json!(1))]).await;
    let said = failures(&ran).join("\n");
    assert!(said.contains("is claimed by es,1 ") && said.contains("is claimed by es,NULL "), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p11_p16_catalogue_rows_are_found_by_keys_with_null() {
    if !counts_nulls_as_equal().await {
        return;
    }
    let shop = Shop::with(
        "CREATE TABLE kind (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, code text, sub int, alt int,
             UNIQUE NULLS NOT DISTINCT (code, sub, alt));
         INSERT INTO kind (code) VALUES ('there');
         CREATE TABLE thing (id int PRIMARY KEY, kind_id int REFERENCES kind)",
        r#"version = 1
           name = "things"
           [root]
           table = "thing"
           key = "id"
           columns = { id = "id", kind_id = { lookup = "kind", match = { code = "c", sub = "s", alt = "a" } } }
           [lookups.kind]
           table = "kind"
           id = "id"
           key = ["code", "sub", "alt"]
           missing = "insert"
           columns = { sub = { nullable = true }, alt = { path = "a", nullable = true } }"#,
    )
    .await;
    let docs = [
        json!({ "id": 1, "c": "there" }),
        json!({ "id": 2, "c": "there", "s": 1 }),
        json!({ "id": 3, "c": "new", "s": null, "a": 2 }),
        json!({ "id": 4, "c": "new", "a": 2 }),
        json!({ "id": 5, "c": null }),
    ];
    shop.sync(&docs).await;
    assert_eq!(
        shop.rows("SELECT count(*), count(kind_id), count(DISTINCT kind_id) FROM thing").await,
        ["5|4|3"]
    );
    assert_eq!(shop.rows("SELECT count(*) FROM kind").await, ["3"]);
    shop.db.execute("TRUNCATE rowdelta.document, rowdelta.base, rowdelta.skip").await;
    assert_eq!(shop.sync(&docs).await.rows_written(), 0);
    let ran = shop.run(&[json!({ "id": 6, "s": 1 })]).await;
    assert_eq!(
        failures(&ran),
        [
            "feed.ndjson:1 [6] things c: code, part of the key of `kind`, is null: give it, or say nullable = true of code"
        ]
    );
}

#[tokio::test]
async fn p11_a_key_with_null_needs_an_index_in_which_two_nulls_are_equal() {
    let tables = OFFICES.replace(" NULLS NOT DISTINCT", "");
    let stderr = faults(&tables, OFFICE_MAPPING).await;
    for (place, columns, table) in [
        ("root.key", r#""country", "branch""#, "office"),
        ("children.devices.key", r#""maker", "serial""#, "device"),
    ] {
        let fault = format!(
            "{place}: the key ({columns}) may be NULL in public.{table}, and no unique index counts two NULLs as equal: \
             CREATE UNIQUE INDEX ON public.{table} ({columns}) NULLS NOT DISTINCT, from PostgreSQL 15 on"
        );
        assert!(stderr.contains(&fault), "{fault}\n--\n{stderr}");
    }
    assert!(!stderr.contains("desk"), "within the parent it is compared here alone\n{stderr}");
}

// Places ------------------------------------------------------------------------------------------------------------

const ALBUM: &str = "
    CREATE TABLE tag (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL UNIQUE);
    CREATE TABLE album (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, title text NOT NULL UNIQUE);
    CREATE TABLE song (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, album_id bigint NOT NULL REFERENCES album,
        name text NOT NULL, secs int, place smallint, UNIQUE (album_id, name));
    CREATE TABLE note (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, album_id bigint NOT NULL REFERENCES album,
        body text, extra numeric, place numeric(6,2), kept text);
    CREATE TABLE album_tag (album_id bigint REFERENCES album, tag_id int REFERENCES tag, weight int, place bigint,
        PRIMARY KEY (album_id, tag_id));
    INSERT INTO tag (name) VALUES ('a'), ('b'), ('c');
    CREATE INDEX ON note (album_id)";

const ALBUM_MAPPING: &str = r#"
version = 1
name = "albums"
[root]
table = "album"
key = "title"
id = "id"
columns = { title = "title" }
[[root.children]]
name = "songs"
table = "song"
parent = "album_id"
id = "id"
key = "name"
columns = { name = "name", secs = "secs", place = { position = 1 } }
[[root.children]]
name = "notes"
table = "note"
parent = "album_id"
id = "id"
columns = { place = { position = 0 }, body = "body", extra = "extra" }
[[root.links]]
name = "tags"
table = "album_tag"
parent = "album_id"
target = "tag_id"
lookup = "tag"
match = { name = "." }
columns = { place = { position = -1 } }
[lookups.tag]
table = "tag"
id = "id"
key = "name"
missing = "skip"
"#;

fn album(songs: &[&str], notes: &[&str], tags: &[&str]) -> Value {
    let songs: Vec<Value> = songs.iter().map(|name| json!({ "name": name, "secs": 60 })).collect();
    let notes: Vec<Value> = notes.iter().map(|body| json!({ "body": body, "extra": 1.50 })).collect();
    json!({ "title": "t", "songs": songs, "notes": notes, "tags": tags })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p13_a_new_order_updates_the_places_that_changed_and_nothing_else() {
    let shop = Shop::with(ALBUM, ALBUM_MAPPING).await;
    shop.sync(&[album(&["x", "y", "z", "w"], &["p", "q", "q", "r"], &["a", "b", "c"])]).await;
    assert_eq!(shop.rows("SELECT name, place FROM song ORDER BY 2").await, ["x|1", "y|2", "z|3", "w|4"]);
    assert_eq!(
        shop.rows("SELECT body, place FROM note ORDER BY 2").await,
        ["p|0.00", "q|1.00", "q|2.00", "r|3.00"]
    );
    assert_eq!(shop.rows("SELECT tag_id, place FROM album_tag ORDER BY 2").await, ["1|-1", "2|0", "3|1"]);
    shop.db.execute("UPDATE note SET kept = 'k' || id").await;
    shop.written().await;
    let kept = shop.rows("SELECT id, body, kept FROM note ORDER BY 1").await;
    // Two songs change places; a note moves to the front past another, of two equal ones the second stays.
    shop.sync(&[album(&["y", "x", "z", "w"], &["q", "p", "q", "r"], &["c", "b", "a"])]).await;
    assert_eq!(shop.rows("SELECT id, body, kept FROM note ORDER BY 1").await, kept);
    let ran = shop.sync(&[album(&["y", "x", "z", "w"], &["q", "p", "q", "r"], &["c", "b", "a"])]).await;
    assert_eq!(ran.documents("unchanged"), 1);
    // What goes from the front has the others move up; what comes is one row.
    let ran = shop.sync(&[album(&["x", "z", "w"], &["p", "q", "r", "s"], &["a", "c"])]).await;
    assert_eq!(shop.unsettled().await, "0");
    assert!(ran.rows_written() > 0);
    shop.db.execute("TRUNCATE rowdelta.document, rowdelta.base, rowdelta.skip").await;
    assert_eq!(
        shop.sync(&[album(&["x", "z", "w"], &["p", "q", "r", "s"], &["a", "c"])]).await.rows_written(),
        0
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p13_p14_only_rows_that_are_asked_for_have_a_place() {
    let shop = Shop::with(ALBUM, ALBUM_MAPPING).await;
    // A twin collapses, and a tag that is in no catalogue is left out: neither takes a place.
    shop.sync(&[album(&["x", "x", "y"], &[], &["missing", "b", "b", "a"])]).await;
    assert_eq!(shop.rows("SELECT name, place FROM song ORDER BY 2").await, ["x|1", "y|2"]);
    assert_eq!(shop.rows("SELECT tag_id, place FROM album_tag ORDER BY 2").await, ["2|-1", "1|0"]);
    assert_eq!(shop.unsettled().await, "1");
    // `skip` settles itself: the row that turned up is found by the next run, without a change of the document.
    shop.db.execute("INSERT INTO tag (name) VALUES ('missing')").await;
    shop.written().await;
    let ran = shop.run(&[album(&["x", "x", "y"], &[], &["missing", "b", "b", "a"])]).await.succeeded();
    assert_eq!(shop.written().await, edits(&[("album_tag", 1, 2, 0)]));
    assert_eq!((ran.documents("unsettled"), shop.unsettled().await.as_str()), (0, "0"));
    assert_eq!(shop.rows("SELECT tag_id, place FROM album_tag ORDER BY 2").await, ["4|-1", "2|0", "1|1"]);
    let again = shop.run(&[album(&["x", "x", "y"], &[], &["missing", "b", "b", "a"])]).await.succeeded();
    assert_eq!((again.documents("unchanged"), again.report["skipped_lookups"].as_u64()), (1, Some(0)));
}

#[tokio::test]
async fn p22_a_place_needs_a_whole_number_and_a_list() {
    let stderr = faults(&ALBUM.replace("place smallint", "place text"), ALBUM_MAPPING).await;
    let fault = "children.songs.columns.place: column \"place\" is text, but holds the place in the list: \
                 make it smallint, integer, bigint or numeric";
    assert!(stderr.contains(fault), "{stderr}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p07_a_place_beyond_its_type_is_an_error_with_its_path() {
    let shop = Shop::with(ALBUM, &ALBUM_MAPPING.replace("position = 1", "position = 32767")).await;
    let ran = shop.run(&[album(&["x", "y"], &[], &[])]).await;
    assert_eq!(failures(&ran), ["feed.ndjson:1 [t] songs songs[1]: 32768 is out of range for smallint"]);
}

// Pairs -------------------------------------------------------------------------------------------------------------

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p02_p04_a_changed_row_without_a_key_is_one_update_and_keeps_its_id() {
    let mapping = ALBUM_MAPPING
        .replace("name = \"notes\"", "name = \"notes\"\npair = true")
        .replace("place = { position = 0 }, ", "");
    let shop = Shop::with(ALBUM, &mapping).await;
    let doc = |notes: Value| [json!({ "title": "t", "notes": notes })];
    let note = |body: &str, extra: u32| json!({ "body": body, "extra": extra });
    shop.sync(&doc(json!([note("p", 1), note("q", 2), note("r", 3)]))).await;
    // q changes its number, r its body: each keeps its row, whatever stands first.
    shop.sync(&doc(json!([note("R", 3), note("q", 9), note("p", 1)]))).await;
    assert_eq!(shop.rows("SELECT id, body, extra FROM note ORDER BY 1").await, ["1|p|1", "2|q|9", "3|R|3"]);
    // One more comes: the pair that is alike is an update, the rest an insert.
    shop.sync(&doc(json!([note("x", 7), note("q", 8), note("p", 1), note("R", 3)]))).await;
    assert_eq!(
        shop.rows("SELECT id, body, extra FROM note ORDER BY 1").await,
        ["1|p|1", "2|q|8", "3|R|3", "4|x|7"]
    );
    // Of equally good pairs the id and the order of the list decide.
    shop.sync(&doc(json!([note("A", 1), note("B", 3), note("C", 0)]))).await;
    assert_eq!(shop.rows("SELECT id, body, extra FROM note ORDER BY 1").await, ["1|A|1", "2|C|0", "3|B|3"]);
    let ran = shop.sync(&doc(json!([]))).await;
    assert_eq!(ran.rows_written(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p02_p13_a_place_is_part_of_what_a_pair_differs_in() {
    let shop =
        Shop::with(ALBUM, &ALBUM_MAPPING.replace("name = \"notes\"", "name = \"notes\"\npair = true")).await;
    shop.sync(&[album(&[], &["p", "q", "r"], &[])]).await;
    shop.sync(&[album(&[], &["p", "Q", "R"], &[])]).await;
    assert_eq!(shop.rows("SELECT id, body FROM note ORDER BY 1").await, ["1|p", "2|Q", "3|R"]);
    shop.sync(&[album(&[], &["R", "p", "new"], &[])]).await;
    assert_eq!(shop.rows("SELECT id, body FROM note ORDER BY 1").await, ["1|p", "2|new", "3|R"]);
}

// What is no key ----------------------------------------------------------------------------------------------------

#[tokio::test]
async fn p16_p22_columns_whose_equality_is_not_that_of_their_bytes_are_no_keys() {
    let types = [
        ("text COLLATE loose", "has the collation \"loose\", by which different texts are equal"),
        ("varchar(9)[] COLLATE loose", "has the collation \"loose\""),
        ("loose_text", "has the collation \"loose\""),
        ("interval", "is interval, of which different ones are equal"),
        ("timetz", "is time with time zone, of which"),
        ("json", "is json, which has no equality"),
        ("jsonb", "is jsonb, which cannot be a key"),
        ("pair", "is pair, a row of several values"),
        ("pair[]", "is pair[], a row of several values"),
        ("interval[]", "is interval[], of which"),
        ("numrange", "is numrange, in which 1.0 and 1.00 are equal"),
        ("nummultirange", "is nummultirange, in which 1.0"),
        ("numeric[]", "is numeric[], in which 1.0"),
        ("any_number", "is any_number, in which 1.0"),
        ("bpchar", "is bpchar, in which blanks"),
    ];
    let fine = [
        "text",
        "varchar(9)",
        "text COLLATE \"C\"",
        "char(4)",
        "numeric",
        "numeric(9,2)",
        "numeric(9,2)[]",
        "bytea",
        "inet",
        "macaddr",
        "bit(3)",
        "time",
        "oid",
        "name",
        "money",
        "mood",
        "uuid",
        "date",
        "timestamptz",
        "float8",
        "code",
        "int[]",
        "int4range",
        "tsrange",
        "two_places",
        "text[]",
    ];
    let all: Vec<&str> = types.iter().map(|ty| ty.0).chain(fine).collect();
    // Within a parent no index is needed, which of some of these could not be made.
    let relations: Vec<String> = (0..all.len())
        .map(|n| {
            format!(
                "[[root.children]]\nname = \"c{n}\"\ntable = \"c{n}\"\nparent = \"p\"\nkey = \"k\"\ncolumns = {{ k = \"k\" }}\n"
            )
        })
        .collect();
    let tables: Vec<String> =
        all.iter().enumerate().map(|(n, ty)| format!("CREATE TABLE c{n} (p int, k {ty});")).collect();
    let head = "CREATE COLLATION loose (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
         CREATE DOMAIN loose_text AS text COLLATE loose; CREATE DOMAIN any_number AS numeric;
         CREATE DOMAIN code AS varchar(5); CREATE DOMAIN two_places AS numeric(9,2);
         CREATE TYPE pair AS (x int, y text); CREATE TYPE mood AS ENUM ('a');
         CREATE TABLE t (id int PRIMARY KEY);";
    let mapping = format!(
        "version = 1\nname = \"m\"\n[root]\ntable = \"t\"\nkey = \"id\"\ncolumns = {{ id = \"id\" }}\n{}",
        relations.concat()
    );
    let stderr = faults(&format!("{head}{}", tables.concat()), &mapping).await;
    for (n, ty) in all.iter().enumerate() {
        let place = format!("children.c{n}.key: column \"k\" ");
        let said = stderr.lines().find_map(|line| line.trim().strip_prefix(&place));
        match types.get(n) {
            Some((_, reason)) => {
                assert!(said.is_some_and(|said| said.starts_with(reason)), "{ty}: {said:?}\n{stderr}")
            }
            None => assert_eq!(said, None, "{ty}"),
        }
    }
}

#[tokio::test]
async fn p16_p22_that_holds_for_every_kind_of_key() {
    let stderr = faults(
        "CREATE TABLE kind (id int PRIMARY KEY, k interval UNIQUE);
         CREATE TABLE t (id int PRIMARY KEY, k timetz UNIQUE, kind_id int);
         CREATE TABLE c (p int, k interval UNIQUE)",
        r#"version = 1
           name = "m"
           [root]
           table = "t"
           key = "k"
           id = "id"
           columns = { id = "id", k = "k", kind_id = { lookup = "kind", match = { k = "x" } } }
           [[root.children]]
           name = "c"
           table = "c"
           parent = "p"
           key = "k"
           unique_in = "all"
           columns = { k = "k" }
           [lookups.kind]
           table = "kind"
           id = "id"
           key = "k""#,
    )
    .await;
    for place in ["root.key", "children.c.key", "lookups.kind.key"] {
        assert!(stderr.contains(&format!("{place}: column \"k\" is ")), "{place}\n{stderr}");
    }
}

// Catalogues that several share -------------------------------------------------------------------------------------

const SHARED: &str = "
    CREATE TABLE region (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, code text NOT NULL UNIQUE, name text);
    CREATE TABLE a (id int PRIMARY KEY, region_id bigint REFERENCES region);
    CREATE TABLE b (id int PRIMARY KEY, region_id bigint REFERENCES region)";

/// The mapping of table `a` or `b`, whose regions are inserted as they turn up.
fn shared(table: &str) -> String {
    format!(
        r#"
version = 1
name = "{table}"
[root]
table = "{table}"
key = "id"
columns = {{ id = "id", region_id = {{ lookup = "region", match = {{ code = "r" }} }} }}
[lookups.region]
table = "region"
id = "id"
key = "code"
missing = "insert"
"#
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p16_p28_two_runs_with_several_workers_insert_the_same_catalogue_rows_once() {
    let db = db().await;
    db.execute(SHARED).await;
    install(db.url());
    let scratch = Scratch::new();
    // Every document has a code that few others have, in orders that differ.
    let docs = |step: usize| -> Vec<Value> {
        (0..3000).map(|n| json!({ "id": n, "r": format!("r{}", n * step % 1009) })).collect()
    };
    let start = |table: &str, step: usize| {
        let mapping = scratch.write(&format!("{table}.toml"), shared(table));
        let feed = scratch.write(&format!("{table}.ndjson"), ndjson(&docs(step)));
        start_sync(db.url(), &mapping, &feed)
    };
    let runs = [start("a", 7), start("b", 1000)];
    for mut run in runs {
        let status = tokio::task::spawn_blocking(move || run.wait()).await.unwrap().unwrap();
        assert!(status.success(), "{status}");
    }
    assert_eq!(db.value("SELECT count(*) FROM region").await, "1009");
    for (table, step) in [("a", 7), ("b", 1000)] {
        let wrong = format!(
            "SELECT count(*) FROM {table} t LEFT JOIN region r ON r.id = region_id
             WHERE code IS DISTINCT FROM 'r' || t.id * {step} % 1009"
        );
        assert_eq!(db.value(&wrong).await, "0");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p16_p35_a_catalogue_may_be_the_root_table_of_another_mapping() {
    let db = db().await;
    db.execute(SHARED).await;
    install(db.url());
    let scratch = Scratch::new();
    let run = |name: &str, mapping: &str, docs: &[Value]| -> Ran {
        let mapping = scratch.write(&format!("{name}.toml"), mapping);
        sync(db.url(), &mapping, &[&scratch.write("feed.ndjson", ndjson(docs))])
    };
    run("a", &shared("a"), &[json!({ "id": 1, "r": "north" })]).succeeded();
    let regions = "version = 1\nname = \"regions\"\n[root]\ntable = \"region\"\nkey = \"code\"\nid = \"id\"\n\
                   columns = { code = \"code\", name = \"name\" }";
    let counts = |ran: &Ran| {
        let root = &ran.report["relations"][0];
        [root["added"].as_u64(), root["updated"].as_u64()].map(Option::unwrap)
    };
    let feed =
        [json!({ "code": "north", "name": "The North" }), json!({ "code": "south", "name": "The South" })];
    assert_eq!(counts(&run("regions", regions, &feed).succeeded()), [1, 1]);
    assert_eq!(run("regions", regions, &feed).succeeded().documents("unchanged"), 2);
    // The other way round: a row that the other mapping made is referred to, not made again.
    assert_eq!(run("b", &shared("b"), &[json!({ "id": 1, "r": "south" })]).succeeded().rows_written(), 1);
    assert_eq!(db.value("SELECT string_agg(name, ',' ORDER BY id) FROM region").await, "The North,The South");
}

// Alternate keys ----------------------------------------------------------------------------------------------------

const CALLS: &str = "
    CREATE TABLE call (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, code text NOT NULL UNIQUE, uid int UNIQUE,
        title text, summary text);
    CREATE TABLE file (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, call_id bigint NOT NULL REFERENCES call,
        no int NOT NULL, name text, path text, UNIQUE (call_id, no));";

const CALL_MAPPING: &str = r#"
version = 1
name = "calls"
[root]
table = "call"
key = "code"
alternate_key = "uid"
id = "id"
columns = { code = "code", uid = "uid", title = "title" }
[[root.children]]
name = "files"
table = "file"
parent = "call_id"
id = "id"
key = "no"
columns = { no = "no", name = "name" }
"#;

const CALL_ROWS: &str = "SELECT id, code, uid, title, summary FROM call ORDER BY id";

fn call(code: &str, uid: Option<u32>, title: &str, files: &[u32]) -> Value {
    let files: Vec<Value> = files.iter().map(|no| json!({ "no": no, "name": format!("f{no}") })).collect();
    json!({ "code": code, "uid": uid, "title": title, "files": files })
}

/// More than a batch holds.
fn padding(night: &str) -> Vec<Value> {
    (0..510).map(|n| call(&format!("pad{n}"), Some(1000 + n), night, &[])).collect()
}

/// Calls after their first night, each with a summary that the feed does not know.
async fn calls(schema: &str, docs: &[Value]) -> Shop {
    let shop = Shop::with(schema, CALL_MAPPING).await;
    shop.sync(docs).await;
    shop.db.execute("UPDATE call SET summary = 's' || id; UPDATE file SET path = 'p' || id").await;
    shop.written().await;
    shop
}

/// A night, and after it another with the same feed that writes nothing and looks at nothing.
async fn two_nights(shop: &Shop, docs: &[Value]) {
    let ran = shop.sync(docs).await;
    assert_eq!((ran.documents("unsettled"), shop.unsettled().await.as_str()), (0, "0"));
    let states = "SELECT (SELECT count(*) FROM rowdelta.state) - (SELECT count(*) FROM call)";
    assert_eq!(shop.db.value(states).await, "0", "one state for each row");
    let again = shop.sync(docs).await;
    assert_eq!((again.documents("unchanged"), again.rows_written()), (docs.len() as u64, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p16_p04_a_corrected_key_is_one_update_and_the_row_stays() {
    let shop = calls(CALLS, &[call("a", Some(1), "x", &[1, 2]), call("b", Some(2), "y", &[3])]).await;
    two_nights(&shop, &[call("A", Some(1), "x", &[1, 2]), call("b", Some(2), "y", &[3])]).await;
    assert_eq!(shop.rows(CALL_ROWS).await, ["1|A|1|x|s1", "2|b|2|y|s2"]);
    assert_eq!(shop.rows("SELECT count(path) FROM file").await, ["3"]);
    // With other changes, and what is below compared although all of it is new under this key.
    two_nights(&shop, &[call("AA", Some(1), "z", &[2, 4]), call("b", Some(2), "y", &[3])]).await;
    assert_eq!(shop.rows("SELECT no, path FROM file ORDER BY no").await, ["2|p2", "3|p3", "4|NULL"]);
    // And back: the bytes of the first night are not known any more.
    two_nights(&shop, &[call("a", Some(1), "x", &[1, 2]), call("b", Some(2), "y", &[3])]).await;
    assert_eq!(shop.rows(CALL_ROWS).await, ["1|a|1|x|s1", "2|b|2|y|s2"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p16_a_key_that_was_given_up_is_another_documents() {
    let shop = calls(CALLS, &[call("a", Some(1), "x", &[1]), call("b", Some(2), "y", &[2])]).await;
    // In one batch; then in two, whoever comes first. The new document has the files of the old one, of the same
    // fingerprint: they are its own rows all the same.
    two_nights(
        &shop,
        &[call("a", Some(3), "new", &[1]), call("c", Some(1), "x", &[1]), call("b", Some(2), "y", &[2])],
    )
    .await;
    assert_eq!(shop.rows("SELECT id, code, uid FROM call ORDER BY id").await, ["1|c|1", "2|b|2", "3|a|3"]);
    let night =
        [&[call("b", Some(4), "y", &[2])][..], &padding("one"), &[call("d", Some(2), "y", &[2])]].concat();
    two_nights(&shop, &night).await;
    let night =
        [&[call("e", Some(2), "y", &[2])][..], &padding("two"), &[call("d", Some(5), "y", &[2])]].concat();
    two_nights(&shop, &night).await;
    let kept = "SELECT code, uid, summary FROM call WHERE uid < 1000 ORDER BY uid";
    assert_eq!(shop.rows(kept).await, ["c|1|s1", "e|2|s2", "a|3|NULL", "b|4|NULL", "d|5|NULL"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p16_p19_keys_swap_between_documents() {
    swap(CALLS).await;
    swap(
        &CALLS
            .replace("code text NOT NULL UNIQUE", "code text NOT NULL UNIQUE DEFERRABLE INITIALLY DEFERRED"),
    )
    .await;
}

/// Two calls swap their keys, in one batch and in two.
async fn swap(schema: &str) {
    let shop = calls(schema, &[call("a", Some(1), "x", &[1]), call("b", Some(2), "x", &[2])]).await;
    // Each now has the content that was recorded under the other's key.
    for night in [
        vec![call("b", Some(1), "x", &[2]), call("a", Some(2), "x", &[1])],
        [&[call("a", Some(1), "x", &[1])][..], &padding("one"), &[call("b", Some(2), "x", &[2])]].concat(),
    ] {
        shop.expect(&night).await;
        let ran = shop.run(&night).await.succeeded();
        shop.state.check().await.unwrap();
        // But for the one that may be parked on the way.
        let parked = ran.report["parked"].as_u64().unwrap_or(0);
        let (mut written, least) = (shop.written().await, shop.state.smallest_edit().await.unwrap());
        written.get_mut("call").unwrap().updated -= parked;
        assert!(parked <= 1 && written == least, "{parked}: {written:?} {least:?}");
        let again = shop.sync(&night).await;
        assert_eq!((again.documents("unchanged"), again.rows_written()), (night.len() as u64, 0));
    }
    assert_eq!(
        shop.rows("SELECT id, code, uid FROM call WHERE id < 3 ORDER BY id").await,
        ["1|a|1", "2|b|2"]
    );
    assert_eq!(shop.unsettled().await, "0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p16_without_an_alternate_key_the_key_decides() {
    let shop = calls(CALLS, &[call("a", None, "x", &[1]), call("b", Some(2), "y", &[])]).await;
    // It gets one, and another one loses its own: each is the row that it was.
    two_nights(&shop, &[call("a", Some(1), "x", &[1]), call("b", None, "y", &[])]).await;
    assert_eq!(shop.rows("SELECT id, code, uid FROM call ORDER BY id").await, ["1|a|1", "2|b|NULL"]);
    // A document that does not say it keeps what is stored.
    two_nights(&shop, &[json!({ "code": "a", "title": "z" }), call("b", None, "y", &[])]).await;
    assert_eq!(shop.rows("SELECT id, code, uid FROM call ORDER BY id").await, ["1|a|1", "2|b|NULL"]);
    two_nights(&shop, &[call("c", Some(1), "z", &[1]), call("b", None, "y", &[])]).await;
    assert_eq!(shop.rows("SELECT id, code, uid FROM call ORDER BY id").await, ["1|c|1", "2|b|NULL"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p14_p16_of_two_documents_with_one_alternate_key_the_second_fails() {
    let first = [call("a", Some(1), "x", &[]), call("b", Some(2), "y", &[])];
    let shop = calls(CALLS, &first).await;
    let twice = |line: usize, code: &str, other: usize| {
        let path = shop.scratch.path("feed.ndjson");
        format!(
            "feed.ndjson:{line} [{code}]: stands twice in the feed with different content: first at {}:{other}",
            path.display()
        )
    };
    // Both new to the run; the old version skipped by its bytes before; and after.
    let ran = shop.run(&[call("c", Some(1), "x", &[]), call("d", Some(1), "x", &[])]).await;
    assert_eq!(failures(&ran), [twice(2, "d", 1)]);
    let ran = shop.run(&[call("c", Some(1), "x", &[]), call("e", Some(1), "x", &[])]).await;
    assert_eq!(failures(&ran), [twice(2, "e", 1)]);
    let ran = shop.run(&[call("e", Some(1), "x", &[]), call("c", Some(1), "x", &[])]).await;
    // What it is called was not read.
    assert_eq!(failures(&ran), [twice(2, "c", 1).replace(" [c]", "")]);
    assert_eq!(shop.rows("SELECT code, uid FROM call ORDER BY uid").await, ["e|1", "b|2"]);
    // In batches of their own the old version has not been seen when the new one is written.
    let night =
        [&[call("f", Some(1), "x", &[])][..], &padding("one"), &[call("e", Some(1), "x", &[])]].concat();
    let ran = shop.run(&night).await;
    // Its bytes are known until the first one is written: it may have been skipped, and then taken back.
    let failed: Vec<String> = failures(&ran).iter().map(|failure| failure.replace(" [e]", "")).collect();
    assert_eq!(failed, [twice(512, "e", 1).replace(" [e]", "")]);
    assert_eq!(shop.rows("SELECT code, uid FROM call WHERE uid < 9 ORDER BY uid").await, ["f|1", "b|2"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p16_p25_a_key_that_nobody_gave_up_is_refused_by_name() {
    let shop = calls(CALLS, &[call("a", Some(1), "x", &[1]), call("b", Some(2), "y", &[2])]).await;
    let ran = shop.run(&[call("a", Some(3), "new", &[1]), call("b", Some(2), "Y", &[2])]).await;
    let failed = failures(&ran);
    assert_eq!(failed.len(), 1, "{failed:?}");
    assert!(
        failed[0].starts_with("feed.ndjson:1 [a] calls: ") && failed[0].contains("(23505)"),
        "{failed:?}"
    );
    assert_eq!(shop.rows("SELECT code, uid, title FROM call ORDER BY id").await, ["a|1|x", "b|2|Y"]);
}

#[tokio::test]
async fn p22_an_alternate_key_is_unique_in_its_table() {
    let stderr = faults(&CALLS.replace("uid int UNIQUE", "uid int"), CALL_MAPPING).await;
    let fault = "root.alternate_key: the key (\"uid\") is not unique in public.call: \
                 CREATE UNIQUE INDEX ON public.call (\"uid\")";
    assert!(stderr.contains(fault), "{stderr}");
}
