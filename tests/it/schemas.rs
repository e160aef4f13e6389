//! Schemas as they are found: odd names, odd types, no primary keys, triggers; and what the check refuses.

use std::path::PathBuf;

use crate::support::command::{Ran, Scratch, install, sync};
use crate::support::{Database, db};

/// A database with these tables, and a mapping for it.
struct Case {
    db: Database,
    scratch: Scratch,
    mapping: PathBuf,
}

impl Case {
    async fn new(tables: &str, mapping: &str) -> Self {
        let db = db().await;
        db.execute(tables).await;
        install(db.url());
        let scratch = Scratch::new();
        let mapping = scratch.write("mapping.toml", mapping);
        Case { db, scratch, mapping }
    }

    fn sync(&self, feed: &[&str]) -> Ran {
        let feed = self.scratch.write("feed.ndjson", feed.join("\n"));
        sync(self.db.url(), &self.mapping, &[&feed])
    }

    /// Syncs; then again without the state, so that every row is read back and compared: nothing differs.
    async fn sync_and_adopt(&self, feed: &[&str]) {
        assert!(self.sync(feed).succeeded().rows_written() > 0);
        self.db.execute("TRUNCATE rowdelta.document, rowdelta.base, rowdelta.skip").await;
        let again = self.sync(feed).succeeded();
        assert_eq!(again.rows_written(), 0, "{:#}", again.report);
    }
}

#[tokio::test]
async fn p20_quoted_names_reserved_words_and_another_schema() {
    let case = Case::new(
        r#"CREATE SCHEMA "My Schema";
           CREATE TABLE "My Schema"."Order" ("user" text PRIMARY KEY, "we""ird" int);
           CREATE TABLE "My Schema"."_Lines" ("A" text REFERENCES "My Schema"."Order", "select" text)"#,
        r#"version = 1
           name = "odd"
           [root]
           table = '"My Schema"."Order"'
           key = ["user"]
           [root.columns]
           user = "user"
           'we"ird' = "n"
           [[root.children]]
           name = "lines"
           table = '"My Schema"."_Lines"'
           parent = "A"
           columns = { select = "." }"#,
    )
    .await;
    case.sync_and_adopt(&[r#"{"user": "a", "n": 1, "lines": ["x", "x", "y"]}"#]).await;
    let ran = case.sync(&[r#"{"user": "a", "n": 1, "lines": ["y", "x"]}"#]).succeeded();
    assert_eq!(
        ran.report["relations"][1]["removed"], 1,
        "a table without a primary key: one of two equal rows"
    );
    assert_eq!(ran.rows_written(), 1);
}

#[tokio::test]
async fn p06_domains_ranges_composites_and_arrays_are_converted_by_the_server() {
    let case = Case::new(
        "CREATE DOMAIN code AS varchar(5) CHECK (VALUE <> 'bad');
         CREATE DOMAIN small AS code;
         CREATE TYPE pair AS (x int, y text);
         CREATE TABLE t (id int PRIMARY KEY, d code, e small, r int4range, p pair, a int[], c char(4), i interval(0))",
        r#"version = 1
           name = "types"
           [root]
           table = "t"
           key = ["id"]
           columns = { id = "id", d = "d", e = "e", r = "r", p = "p", a = "a", c = "c", i = "i" }"#,
    )
    .await;
    let row = r#"{"id": 1, "d": "abc", "e": "x", "r": "[1,5)", "p": "(1,z)", "a": "{1,2}", "c": "ab", "i": "90 min"}"#;
    case.sync_and_adopt(&[row]).await;
    let changed = row.replace("(1,z)", "(2,z)").replace("{1,2}", "{3}");
    let ran = case.sync(&[&changed]).succeeded();
    assert_eq!(ran.report["relations"][0]["updated"], 1);
    assert_eq!(
        case.db.value("SELECT d || e || r || p || a::text || c || i FROM t").await,
        "abcx[1,5)(2,z){3}ab01:30:00"
    );
    for (field, bad) in [("d", "toolong"), ("d", "bad"), ("c", "abcde"), ("r", "[5,1)")] {
        let ran = case.sync(&[&format!(r#"{{"id": 2, "{field}": "{bad}"}}"#)]);
        assert_eq!((ran.code, &ran.report["failures"][0]["path"]), (1, &field.into()), "{:#}", ran.report);
    }
}

#[tokio::test]
async fn p20_arrays_are_keys_of_documents_and_of_catalogues() {
    let case = Case::new(
        "CREATE TABLE sector (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, code int[] UNIQUE, tags text[], at point);
         CREATE TABLE t (a int[], b text, sector_id int REFERENCES sector, n int, PRIMARY KEY (a, b));
         CREATE TABLE c (t_a int[], t_b text, k date[] UNIQUE, n int, FOREIGN KEY (t_a, t_b) REFERENCES t)",
        r#"version = 1
           name = "arrays"
           [root]
           table = "t"
           key = ["a", "b"]
           [root.columns]
           a = "a"
           b = "b"
           n = "n"
           sector_id = { lookup = "sector", match = { code = "sector.code" } }
           [[root.children]]
           name = "c"
           table = "c"
           parent = ["t_a", "t_b"]
           key = ["k"]
           unique_in = "all"
           columns = { k = "k", n = "n" }
           [lookups.sector]
           table = "sector"
           id = "id"
           key = ["code"]
           missing = "insert"
           columns = { tags = "sector.tags", at = "sector.at" }"#,
    )
    .await;
    let one = |a: &str, n: u32| {
        format!(
            r#"{{"a": [{a}], "b": "x", "n": {n}, "sector": {{"code": [7, null], "tags": ["p", "q r"], "at": "(1,2)"}},
                "c": [{{"k": ["2024-01-0{a}"], "n": {n}}}]}}"#
        )
        .replace('\n', "")
    };
    case.sync_and_adopt(&[&one("1", 1), &one("2", 1)]).await;
    assert_eq!(case.sync(&[&one("1", 1), &one("2", 5)]).succeeded().rows_written(), 2);
    assert_eq!(
        case.db.value("SELECT string_agg(code::text || tags::text, ';') FROM sector").await,
        "{7,NULL}{p,\"q r\"}"
    );
}

#[tokio::test]
async fn p20_a_domain_refers_to_an_integer_that_comes_with_it() {
    let case = Case::new(
        "CREATE DOMAIN reference AS int;
         CREATE TABLE t (k int PRIMARY KEY);
         CREATE TABLE line (t_k int REFERENCES t, no int PRIMARY KEY, prev reference REFERENCES line)",
        r#"version = 1
           name = "domains"
           [root]
           table = "t"
           key = ["k"]
           columns = { k = "k" }
           [[root.children]]
           name = "lines"
           table = "line"
           parent = "t_k"
           key = ["no"]
           columns = { no = "no", prev = "prev" }"#,
    )
    .await;
    case.sync_and_adopt(&[r#"{"k": 1, "lines": [{"no": 1, "prev": null}]}"#]).await;
    case.sync_and_adopt(&[r#"{"k": 1, "lines": [{"no": 1, "prev": 2}, {"no": 2, "prev": null}]}"#]).await;
}

#[tokio::test]
async fn p20_an_identity_that_is_always_generated_may_be_the_key() {
    let case = Case::new(
        "CREATE TABLE t (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, n int, twice int GENERATED ALWAYS AS (n * 2) STORED)",
        "version = 1\nname = \"t\"\n[root]\ntable = \"t\"\nkey = [\"id\"]\ncolumns = { id = \"id\", n = \"n\" }",
    )
    .await;
    case.sync_and_adopt(&[r#"{"id": 7, "n": 1}"#]).await;
}

const PARENT_AND_CHILD: &str = r#"
    version = 1
    name = "two"
    [root]
    table = "p"
    key = ["k"]
    id = "id"
    columns = { k = "k" }
    [[root.children]]
    name = "c"
    table = "c"
    parent = "p_id"
    key = ["k"]
    unique_in = "all"
    columns = { k = "k" }"#;

const TWO_TABLES: &str = "
    CREATE TABLE p (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, k text UNIQUE);
    CREATE TABLE c (p_id bigint REFERENCES p, k text UNIQUE)";

#[tokio::test]
async fn p25_a_removal_that_an_unmapped_table_forbids_fails_its_document_by_name() {
    let case = Case::new(TWO_TABLES, PARENT_AND_CHILD).await;
    case.sync(&[r#"{"k": "a", "c": [{"k": 1}, {"k": 2}]}"#, r#"{"k": "b", "c": [{"k": 3}]}"#]).succeeded();
    case.db.execute("CREATE TABLE uses (k text REFERENCES c (k)); INSERT INTO uses VALUES ('1')").await;
    let ran = case.sync(&[r#"{"k": "a", "c": []}"#, r#"{"k": "b", "c": []}"#]);
    assert_eq!(ran.code, 1, "{:#}", ran.report);
    let failures = ran.report["failures"].as_array().unwrap();
    assert_eq!(failures.len(), 1, "{:#}", ran.report);
    assert_eq!(failures[0]["document"], "a");
    assert_eq!(failures[0]["sqlstate"], "23503");
    assert_eq!(case.db.value("SELECT string_agg(k, ',' ORDER BY k) FROM c").await, "1,2", "b's is gone");
    case.db.execute("DROP TABLE uses").await;
    case.sync(&[r#"{"k": "a", "c": []}"#, r#"{"k": "b", "c": []}"#]).succeeded();
    assert_eq!(case.db.value("SELECT count(*) FROM c").await, "0");
}

#[tokio::test]
async fn p36_rows_of_a_truncated_table_come_back_even_if_the_next_feed_has_but_some_documents() {
    let case = Case::new(TWO_TABLES, PARENT_AND_CHILD).await;
    let (a, b) = (r#"{"k": "a", "c": [{"k": 1}]}"#, r#"{"k": "b", "c": [{"k": 2}]}"#);
    case.sync(&[a, b]).succeeded();
    case.db.execute("TRUNCATE c").await;
    case.sync(&[a]).succeeded();
    case.sync(&[a, b]).succeeded();
    assert_eq!(case.db.value("SELECT string_agg(k, ',' ORDER BY k) FROM c").await, "1,2");
}

#[tokio::test]
async fn p33_another_table_under_the_same_name_is_not_taken_for_the_one_that_was_synced() {
    let case = Case::new(TWO_TABLES, PARENT_AND_CHILD).await;
    let feed = [r#"{"k": "a", "c": [{"k": 1}]}"#];
    case.sync(&feed).succeeded();
    // Blue and green: the tables are swapped for empty ones of the same shape.
    case.db.execute("ALTER TABLE c RENAME TO old; CREATE TABLE c (LIKE old INCLUDING ALL)").await;
    case.sync(&feed).succeeded();
    assert_eq!(case.db.value("SELECT count(*) FROM c").await, "1");
    case.db.execute("ALTER TABLE p ADD n int").await;
    let with_n = PARENT_AND_CHILD
        .replace("columns = { k = \"k\" }\n    [[", "columns = { k = \"k\", n = \"n\" }\n    [[");
    let case = Case { mapping: case.scratch.write("n.toml", with_n), ..case };
    let feed = [r#"{"k": "a", "n": 5, "c": [{"k": 1}]}"#];
    case.sync(&feed).succeeded();
    case.db.execute("ALTER TABLE p DROP n; ALTER TABLE p ADD n int").await;
    case.sync(&feed).succeeded();
    assert_eq!(case.db.value("SELECT n FROM p").await, "5", "a column dropped and added anew is another one");
}

#[tokio::test]
async fn p22_what_would_fail_every_document_is_found_before_the_first_write() {
    let case = Case::new(
        "CREATE TABLE p (id numeric PRIMARY KEY, k text, must int NOT NULL);
         CREATE TABLE c (p_id numeric(12,2), k text);
         CREATE VIEW v AS SELECT 1 AS id, 'x' AS k",
        &PARENT_AND_CHILD
            .replace("[[root.children]]", "f = { lookup = \"v\", match = { k = \"f\" } }\n[[root.children]]")
            .replace("columns = { k = \"k\" }\nf", "[root.columns]\nk = \"k\"\nf")
            .replace("columns = { k = \"k\" }\n    f", "[root.columns]\n    k = \"k\"\n    f")
            .replace(
                "[[root.children]]",
                "[lookups.v]\ntable = \"v\"\nid = \"id\"\nkey = [\"k\"]\n[[root.children]]",
            ),
    )
    .await;
    let ran = case.sync(&[r#"{"k": "a"}"#]);
    assert_eq!(ran.code, 2, "{}", ran.stderr);
    for fault in [
        "children.c.key: the key (\"k\") is not unique in public.c: CREATE UNIQUE INDEX ON public.c (\"k\")",
        "root.key: the key (\"k\") is not unique in public.p: CREATE UNIQUE INDEX ON public.p (\"k\")",
        "root: column \"must\" of public.p is NOT NULL, has no default, and the mapping does not fill it",
        "root.columns.f: table public.p has no column \"f\"; it has id, k, must",
        "root.id: column \"id\" has no default, and the mapping does not fill it: \
         ALTER TABLE public.p ALTER COLUMN \"id\" SET DEFAULT ..., or map it",
        "lookups.v: v is a view; name the table behind it",
    ] {
        assert!(ran.stderr.contains(fault), "{fault}\n--\n{}", ran.stderr);
    }
    assert_eq!(case.db.value("SELECT count(*) FROM p").await, "0");
}
