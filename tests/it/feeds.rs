//! Feeds with faults in them, and runs that cannot start: what is said of each, and that all others are in.

use std::io::Write as _;

use serde_json::{Value, json};

use crate::oracle::Edits;
use crate::shop::{MAPPING, SCHEMA, Shop, edits, failures, ndjson};
use crate::support::{command, db};

/// One line of the feed, and what is said of it: nothing of a good one.
type Line = (&'static [u8], Option<&'static str>);

const FAULTY: [Line; 27] = [
    (br#"{"number":"A","customer":"Ann","lines":[{"no":1}]}"#, None),
    (br#"{"number":"BROKEN","total":}"#, Some("feed.ndjson:2: not JSON: expected a value at byte 28 of the document")),
    (br#"{"customer":"x"}"#, Some("feed.ndjson:3 shop number: is absent, and part of the key")),
    (br#"{"number":null}"#, Some("feed.ndjson:4 shop number: is null, and part of the key")),
    (
        br#"{"number":"WORD","units":"two"}"#,
        Some(r#"feed.ndjson:5 [WORD] shop units: invalid input syntax for type bigint: "two""#),
    ),
    (
        br#"{"number":"2^63","units":9223372036854775808}"#,
        Some("feed.ndjson:6 [2^63] shop units: 9223372036854775808 is out of range for bigint"),
    ),
    (br#"{"number":"2^53+1","units":9007199254740993}"#, None),
    (
        br#"{"number":"NUL","customer":"a\u0000b"}"#,
        Some("feed.ndjson:8 [NUL] shop customer: contains U+0000, which PostgreSQL cannot store"),
    ),
    (
        br#"{"number":"LONG","customer":"12345678901"}"#,
        Some("feed.ndjson:9 [LONG] shop customer: 11 characters, longer than varchar(10)"),
    ),
    (
        br#"{"number":"DATE","ordered":"2023-02-29"}"#,
        Some(r#"feed.ndjson:10 [DATE] shop ordered: expected a date such as 2024-05-31, found "2023-02-29""#),
    ),
    (
        br#"{"number":"ZONE","paid":"2024-07-01T10:00:00"}"#,
        Some(r#"feed.ndjson:11 [ZONE] shop paid: "2024-07-01T10:00:00" has no time zone; declare one with zone = "…""#),
    ),
    (
        br#"{"number":"ENUM","status":"lost"}"#,
        Some(r#"feed.ndjson:12 [ENUM] shop status: "lost" is not a label of the enum"#),
    ),
    (
        br#"{"number":"LIST","address":[]}"#,
        Some("feed.ndjson:13 [LIST] shop address.city: expected an object that holds `city`, found a list"),
    ),
    (
        br#"{"number":"ITEM","lines":[{"no":1},{"no":2,"qty":2147483648}]}"#,
        Some("feed.ndjson:14 [ITEM] lines lines[1].qty: 2147483648 is out of range for integer"),
    ),
    (
        br#"{"number":"DEEP","lines":[{"no":1,"serials":["a",null]}]}"#,
        Some(
            "feed.ndjson:15 [DEEP] serials lines[0].serials[1]: is null, and part of the key; give it, or say nullable = true",
        ),
    ),
    (
        br#"{"number":"OBJECT","lines":{"no":1}}"#,
        Some("feed.ndjson:16 [OBJECT] lines lines: expected a list, found an object"),
    ),
    (
        br#"{"number":"TWICE","lines":[{"no":1,"qty":1},{"no":2},{"no":1,"qty":2}]}"#,
        Some(
            r#"feed.ndjson:17 [TWICE] lines lines[2]: has the key of lines[0] (no=1) and other content: on_duplicate = "first" or "last" takes one of them"#,
        ),
    ),
    (br#"["A"]"#, Some("feed.ndjson:18 shop .: expected an object, found a list")),
    (b"{\"number\":\"\xff\"}", Some("feed.ndjson:19: not JSON: invalid UTF-8 at byte 12 of the document")),
    (b"", None),
    (
        br#"{"number":"MUCH","note":"....................................................................................................................................................................................."}"#,
        Some("feed.ndjson:21: the document has 208 bytes; at most 200 are read (--document-bytes-max)"),
    ),
    // Repeated: by its bytes, in another spelling (twice, once with a list of equal siblings), differing.
    (br#"{"number":"A","customer":"Ann","lines":[{"no":1}]}"#, None),
    (br#"{ "lines":[{"no":1.0,"unmapped":0}], "customer":"\u0041nn", "number":"A"}"#, None),
    (br#"{"number":"A","customer":"Ann","lines":[{"no":1},{"no":1}]}"#, None),
    (
        br#"{"number":"A","customer":"Bea","lines":[{"no":1}]}"#,
        Some("feed.ndjson:25 [A]: stands twice in the feed with different content: first at feed.ndjson:1"),
    ),
    (br#"{"number":"TEXTS","units":"12","total":"1.005","ordered":"2024-02-29","paid":"2024-07-01T10:00:00+02:00"}"#, None),
    (br#"{"number":"Z","status":"paid","tags":["t","t"]}"#, None),
];

fn faulty_feed(shop: &Shop) -> std::path::PathBuf {
    let lines = FAULTY.map(|(line, _)| line);
    shop.scratch.write("feed.ndjson", lines.join(&b'\n'))
}

const SHORT: [&str; 2] = ["--document-bytes-max", "200"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p25_every_bad_document_is_reported_with_its_place_and_all_others_are_in() {
    let shop = Shop::open().await;
    let feed = faulty_feed(&shop);
    let ran = shop.run_file(&feed, &SHORT).await;
    let said: Vec<&str> = FAULTY.iter().filter_map(|(_, said)| *said).collect();
    let path = feed.to_str().unwrap();
    let found: Vec<String> = failures(&ran).iter().map(|said| said.replace(path, "feed.ndjson")).collect();
    assert_eq!(found, said);
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    assert_eq!(ran.report["status"], "failed");
    let counts = ["read", "new", "repeated", "failed", "unchanged"].map(|what| ran.documents(what));
    assert_eq!(counts, [26, 4, 3, 19, 0]);
    let stored = "SELECT number, customer, units, total, ordered, paid AT TIME ZONE 'UTC', status FROM orders ORDER BY 1";
    assert_eq!(
        shop.rows(stored).await,
        [
            "2^53+1|NULL|9007199254740993|NULL|NULL|NULL|NULL",
            "A|Ann|NULL|NULL|NULL|NULL|NULL",
            "TEXTS|NULL|12|1.01|2024-02-29|2024-07-01 08:00:00|NULL",
            "Z|NULL|NULL|NULL|NULL|NULL|paid",
        ]
    );
    assert_eq!(shop.written().await, edits(&[("orders", 4, 0, 0), ("line", 1, 0, 0), ("tag", 2, 0, 0)]));
    assert!(ran.stderr.contains("rowdelta: 19 documents failed\n"), "{}", ran.stderr);
    assert!(ran.stderr.contains("\n  and 9 more"), "{}", ran.stderr);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p25_the_ledger_holds_what_the_report_says() {
    let shop = Shop::open().await;
    let ran = shop.run_file(&faulty_feed(&shop), &SHORT).await;
    let columns = "jsonb_build_object('document', document, 'file', file, 'line', line, 'item', item,
        'relation', relation, 'path', path, 'sqlstate', sqlstate, 'message', message, 'retryable', retryable)";
    let id = ran.report["run"].to_string();
    let ledger = shop
        .db
        .value(&format!("SELECT jsonb_agg({columns} ORDER BY line) FROM rowdelta.failure WHERE run = {id}"))
        .await;
    assert_eq!(serde_json::from_str::<Value>(&ledger).unwrap(), ran.report["failures"]);
    let run = shop
        .rows("SELECT status, finished >= started, report -> 'documents' ->> 'failed' FROM rowdelta.run")
        .await;
    assert_eq!(run, ["failed|t|19"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p01_good_documents_of_a_faulty_feed_are_skipped_by_the_next_run() {
    let shop = Shop::open().await;
    let feed = faulty_feed(&shop);
    let first = shop.run_file(&feed, &SHORT).await;
    shop.written().await;
    let again = shop.run_file(&feed, &SHORT).await;
    assert_eq!(again.code, 1);
    assert_eq!(shop.written().await, Edits::new());
    assert_eq!(again.rows_written(), 0);
    let counts =
        ["read", "unchanged", "new", "changed", "repeated", "failed"].map(|what| again.documents(what));
    assert_eq!(counts, [26, 4, 0, 0, 3, 19]);
    // The last is a differing repeat: the line that it is said to differ from is that of any equal one.
    let (mut again, mut first) = (failures(&again), failures(&first));
    let repeats = [again.pop().unwrap(), first.pop().unwrap()];
    assert!(repeats.iter().all(|said| said.starts_with("feed.ndjson:25 [A]: stands twice ")), "{repeats:?}");
    assert_eq!(again, first);
}

/// Which of two differing versions is stored must not depend on which one was known before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p14_of_two_versions_of_one_document_one_fails_whichever_was_known() {
    let shop = Shop::open().await;
    let (old, new) = (json!({ "number": "A", "note": "old" }), json!({ "number": "A", "note": "new" }));
    shop.sync(std::slice::from_ref(&old)).await;
    let feeds = [[&old, &new], [&new, &old], [&old, &new], [&new, &old]];
    for docs in feeds {
        let ran = shop.run(&docs.map(Value::clone)).await;
        let found = failures(&ran);
        assert_eq!((ran.code, found.len(), ran.documents("failed")), (1, 1, 1), "{found:?}");
        assert!(found[0].contains("stands twice in the feed with different content: first at "), "{found:?}");
        assert_eq!(shop.rows("SELECT count(*) FROM orders").await, ["1"]);
    }
    shop.run(&[new]).await.succeeded();
    assert_eq!(shop.rows("SELECT note FROM orders").await, ["new"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p25_a_row_that_the_database_refuses_fails_its_document_alone() {
    let shop = Shop::open().await;
    shop.db.execute("ALTER TABLE line ADD CONSTRAINT positive CHECK (qty > 0)").await;
    let doc = |n: usize| json!({ "number": format!("N{n:03}"), "lines": [{ "no": 1, "qty": 5 - (n % 100) as i64 * i64::from(n % 100 == 7) }] });
    let docs: Vec<Value> = (0..300).map(doc).collect();
    let ran = shop.run(&docs).await;
    let message = r#"new row for relation "line" violates check constraint "positive""#;
    let said =
        [8, 108, 208].map(|line| format!("feed.ndjson:{line} [N{:03}] lines: {message} (23514)", line - 1));
    assert_eq!(failures(&ran), said);
    assert_eq!((ran.code, ran.documents("new")), (1, 297));
    assert_eq!(
        shop.rows("SELECT count(*) FROM orders UNION ALL SELECT count(*) FROM line").await,
        ["297", "297"]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p25_a_torn_feed_is_aborted_and_its_complete_lines_are_in() {
    let shop = Shop::open().await;
    let mut seed = 1u64;
    let mut noise = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        format!("{seed:016x}")
    };
    let docs: Vec<Value> =
        (0..1500).map(|n| json!({ "number": format!("N{n:04}"), "note": noise() })).collect();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(ndjson(&docs).as_bytes()).unwrap();
    let packed = gzip.finish().unwrap();
    let feed = shop.scratch.write("feed.ndjson.gz", &packed[..packed.len() / 2]);
    let ran = shop.run_file(&feed, &[]).await;
    assert_eq!(ran.code, 2, "{}", ran.stderr);
    assert_eq!(ran.report["status"], "aborted");
    let complete = ran.documents("read");
    assert!(complete > 500 && complete < 1500, "{complete}");
    assert!(
        ran.stderr.contains(&format!("feed.ndjson.gz:{complete}: cannot be read beyond this line: ")),
        "{}",
        ran.stderr
    );
    assert_eq!(ran.documents("new"), complete);
    let stored = shop.rows("SELECT count(*), min(number), max(number) FROM orders").await;
    assert_eq!(stored, [format!("{complete}|N0000|N{:04}", complete - 1)]);
    assert_eq!(shop.rows("SELECT status FROM rowdelta.run").await, ["aborted"]);
    let whole = shop.scratch.write("feed.ndjson.gz", &packed);
    let ran = shop.run_file(&whole, &[]).await.succeeded();
    assert_eq!((ran.documents("unchanged"), ran.documents("new")), (complete, 1500 - complete));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p29_a_second_run_of_a_mapping_is_refused_with_exit_code_4() {
    let shop = Shop::open().await;
    shop.sync(&[json!({ "number": "A" })]).await;
    let held = "SELECT rowdelta.acquire(id, 'the test', 60) FROM rowdelta.mapping";
    shop.db.execute(held).await;
    let ran = shop.run(&[json!({ "number": "B" })]).await;
    assert_eq!(ran.code, 4);
    let said = "rowdelta: another run of shop is at work: the test, lease until ";
    assert!(ran.stderr.starts_with(said) && ran.stderr.contains(" UTC; --wait S "), "{}", ran.stderr);
    assert_eq!(shop.rows("SELECT number FROM orders").await, ["A"]);
    shop.db.execute("UPDATE rowdelta.mapping SET lease_until = clock_timestamp()").await;
    shop.run(&[json!({ "number": "B" })]).await.succeeded();
}

/// The exit code and what was said of a sync that cannot start.
async fn refused(arguments: &[&str]) -> (i32, String) {
    let arguments: Vec<String> = arguments.iter().map(|&argument| argument.to_owned()).collect();
    let run = move || command::run(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    tokio::task::spawn_blocking(run).await.unwrap()
}

fn exit_2(text: impl Into<String>) -> (i32, String) {
    (2, text.into())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_cannot_start_exits_2_and_says_what_mends_it() {
    let shop = Shop::open().await;
    let (map, feed) = (shop.mapping.to_str().unwrap(), shop.scratch.write("feed.ndjson", "{}"));
    let (feed, url) = (feed.to_str().unwrap(), shop.db.url());
    let no_database = refused(&["sync", "-m", map, feed]).await;
    assert_eq!(
        no_database,
        exit_2("rowdelta: no database is named: give -d URL, or set DATABASE_URL or PGHOST\n")
    );
    let missing = refused(&["sync", "-d", url, "-m", map, feed, "no/such.ndjson"]).await;
    assert_eq!(
        missing,
        exit_2("rowdelta: no/such.ndjson: cannot be read: No such file or directory (os error 2)\n")
    );
    let no_mapping = refused(&["sync", "-d", url, "-m", "no/such.toml", feed]).await;
    assert_eq!(no_mapping, exit_2("rowdelta: no/such.toml: No such file or directory (os error 2)\n"));
    let (code, said) = refused(&["sync", "-d", "postgresql://u@127.0.0.1:1/none", "-m", map, feed]).await;
    assert_eq!(code, 2);
    assert!(said.starts_with("rowdelta: no connection to 127.0.0.1:1/none as u (from -d): "), "{said}");
    let (place, _) = url.rsplit_once('/').unwrap();
    let (code, said) = refused(&["status", "-d", &format!("{place}/no_such_database")]).await;
    assert!(code == 2 && said.ends_with(": database \"no_such_database\" does not exist\n"), "{said}");
    assert!(!said.contains("db error") && said.contains("/no_such_database as "), "{said}");
    assert_eq!(refused(&["sync"]).await.0, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_schema_rowdelta_a_run_exits_2_and_names_install() {
    let (db, scratch) = (db().await, command::Scratch::new());
    db.execute(SCHEMA).await;
    let (map, feed) = (scratch.write("mapping.toml", MAPPING), scratch.write("feed.ndjson", ""));
    let arguments = ["sync", "-d", db.url(), "-m", map.to_str().unwrap(), feed.to_str().unwrap()];
    let name = db.value("SELECT current_database()").await;
    let said = format!(
        "rowdelta: database {name} has no schema `rowdelta`: if it is the right one, run `rowdelta install` once\n"
    );
    assert_eq!(refused(&arguments).await, exit_2(said));
    assert_eq!(db.value("SELECT to_regnamespace('rowdelta')").await, "NULL");
    let (code, said) = refused(&[&arguments[..], &["--install"]].concat()).await;
    assert!(
        code == 0 && said.starts_with("shop: 0 documents read in ") && said.lines().count() == 1,
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p22_every_fault_of_a_mapping_against_the_catalog_is_named_at_once() {
    let shop = Shop::open().await;
    shop.db
        .execute(
            "CREATE VIEW lines AS TABLE line;
             ALTER TABLE page ADD words int GENERATED ALWAYS AS (length(body)) STORED;
             ALTER TABLE tag ADD kind text NOT NULL;
             ALTER TABLE orders DROP CONSTRAINT orders_number_key",
        )
        .await;
    let faulty = MAPPING
        .replace("table = \"line\"", "table = \"lines\"")
        .replace("city = \"address.city\"", "citi = \"address.city\"")
        .replace("body = \"body\"", "words = \"body\"")
        .replace("table = \"order_product\"", "table = \"order_products\"");
    let map = shop.scratch.write("faulty.toml", faulty);
    let feed = shop.scratch.write("feed.ndjson", r#"{"number":"A"}"#);
    let (code, said) =
        refused(&["sync", "-d", shop.db.url(), "-m", map.to_str().unwrap(), feed.to_str().unwrap()]).await;
    assert_eq!(code, 2);
    let database = shop.db.value("SELECT current_database()").await;
    let faults = r#"rowdelta: mapping shop does not fit database DATABASE:
  root.columns.citi: table public.orders has no column "citi"; did you mean "city"?
  root.key: the key ("number") is not unique in public.orders: CREATE UNIQUE INDEX ON public.orders ("number")
  children.lines: lines is a view; name the table behind it
  children.pages.columns.words: column "words" is generated by the database; take it out of the mapping
  children.tags: column "kind" of public.tag is NOT NULL, has no default, and the mapping does not fill it; map it, or give it a default
  links.products: table order_products does not exist, or is not on the search path; create it, or name its schema
"#;
    assert_eq!(said.replace(&database, "DATABASE"), faults);
    assert_eq!(shop.written().await, Edits::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p22_every_fault_of_a_mapping_in_itself_is_named_with_its_line() {
    let shop = Shop::open().await;
    let faulty = "version = 1\nname = \"shop\"\n[root]\ntabel = \"orders\"\nkey = [\"number\"]\n[root.columns]\nnumber = 7\n";
    let map = shop.scratch.write("faulty.toml", faulty);
    let feed = shop.scratch.write("feed.ndjson", "");
    let (code, said) =
        refused(&["sync", "-d", shop.db.url(), "-m", map.to_str().unwrap(), feed.to_str().unwrap()]).await;
    assert_eq!(code, 2);
    let faults = r#"rowdelta: MAP has 3 faults:
  line 3: root.table: missing; add table = "…"
  line 4: root.tabel: unknown key; did you mean "table"?
  line 7: root.columns.number: expected a path, a list of paths, or a table with path, lookup or value, found an integer
"#;
    assert_eq!(said.replace(map.to_str().unwrap(), "MAP"), faults);
}
