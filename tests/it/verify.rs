//! Drift made by hand: `verify` names all of it and nothing else, `--repair` mends all of it and nothing else.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::oracle::{Edit, Edits};
use crate::shop::{MAPPING, SCHEMA, Shop, edits, ndjson};
use crate::support::command;

/// What `verify` left.
pub struct Verified {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
    pub report: Value,
}

impl Verified {
    /// A number of the report, by its path.
    #[track_caller]
    pub fn count(&self, path: &str) -> u64 {
        let count = self.report.pointer(path).and_then(Value::as_u64);
        count.unwrap_or_else(|| panic!("{path} in {:#}\n{}", self.report, self.stderr))
    }

    /// The differences, one a line, sorted: `document: relation key=value: kind column,column`.
    pub fn differences(&self) -> Vec<String> {
        let list = self.report["differences"].as_array().unwrap_or_else(|| panic!("{}", self.stderr));
        let mut lines: Vec<String> = list.iter().map(difference).collect();
        lines.sort();
        lines
    }

    /// Rows by table, as a repair of what was found must write them.
    fn edits(&self) -> Edits {
        let relations = self.report["relations"].as_array().unwrap().iter();
        let count = |relation: &Value, kinds: &[&str]| -> u64 {
            kinds.iter().map(|kind| relation[kind].as_u64().unwrap()).sum()
        };
        let edit = |relation: &Value| Edit {
            inserted: count(relation, &["missing"]),
            updated: count(relation, &["changed", "moved"]),
            deleted: count(relation, &["surplus"]),
        };
        let edits = relations.map(|one| (one["table"].as_str().unwrap().to_owned(), edit(one)));
        edits.filter(|(_, edit)| *edit != Edit::default()).collect()
    }

    #[track_caller]
    pub fn finds_nothing(self) -> Self {
        assert_eq!(self.differences(), [""; 0]);
        assert_eq!(self.code, 0, "{}\n{}", self.stdout, self.stderr);
        assert_eq!(self.count("/documents/differing"), 0);
        self
    }
}

fn difference(one: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or("NULL").to_owned();
    let key = one["key"].as_object().unwrap().iter();
    let key: Vec<String> = key.map(|(name, value)| format!("{name}={}", text(value))).collect();
    let columns: Vec<String> =
        one["columns"].as_array().unwrap().iter().map(|column| text(&column["name"])).collect();
    let key = if key.is_empty() { String::new() } else { format!(" {}", key.join(",")) };
    let line = format!("{}: {}{key}: {}", text(&one["document"]), text(&one["relation"]), text(&one["kind"]));
    if columns.is_empty() { line } else { format!("{line} {}", columns.join(",")) }
}

/// `rowdelta verify -m MAP -d URL --report FILE`, with these further arguments.
pub async fn verify_at(url: &str, mapping: &Path, more: &[&str]) -> Verified {
    let report = command::Scratch::new();
    let file = report.path("verification.json");
    let mut arguments: Vec<String> = ["verify", "-d", url, "-m"].map(str::to_owned).to_vec();
    arguments.extend([
        mapping.to_str().unwrap().to_owned(),
        "--report".into(),
        file.to_str().unwrap().into(),
    ]);
    arguments.extend(more.iter().map(|&argument| argument.to_owned()));
    let run = move || command::output(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    let (code, stdout, stderr) = tokio::task::spawn_blocking(run).await.unwrap();
    let report = std::fs::read(&file).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
    Verified { code, stdout, stderr, report: report.unwrap_or_default() }
}

async fn verify(shop: &Shop, more: &[&str]) -> Verified {
    verify_at(shop.db.url(), &shop.mapping, more).await
}

fn feed_of(shop: &Shop, docs: &[Value]) -> PathBuf {
    shop.scratch.write("verified.ndjson", ndjson(docs))
}

/// Everything that a verification must leave as it is, row versions included.
async fn versions(shop: &Shop) -> Vec<String> {
    let mut versions = Vec::new();
    for table in ["mapping", "document", "base", "skip", "run", "failure"] {
        let sql = format!(
            "SELECT count(*), md5(string_agg(t::text || t.xmin || t.ctid, ',' ORDER BY t.ctid)) FROM rowdelta.{table} t"
        );
        versions.extend(shop.rows(&sql).await);
    }
    versions
}

fn orders(count: usize) -> Vec<Value> {
    let order = |n: usize| {
        json!({ "number": format!("N{n:04}"), "customer": "c", "address": { "city": "Vigo" }, "total": "1.25",
            "units": n, "ordered": "2024-05-31", "paid": "2024-06-01T10:00:00Z", "status": "open", "note": "n",
            "remark": "r",
            "lines": [{ "no": 1, "label": "one", "qty": 1, "serials": ["a", "b"] },
                      { "no": 2, "label": "two", "qty": 2, "serials": [] },
                      { "no": 100 + n, "label": "own", "qty": 3, "serials": ["o"] }],
            "files": [{ "id": n * 10, "name": "f", "pages": [{ "no": 1, "body": "b" }, { "no": 2, "body": "c" }] },
                      { "id": n * 10 + 1, "name": "g", "pages": [] }],
            "tags": ["t", "t", null], "products": ["p", format!("q{n}")] })
    };
    (0..count).map(order).collect()
}

/// In the document of the number given: what is done, what is found with the feed, in which relations without it.
type Drift = (usize, &'static str, &'static [&'static str], &'static [&'static str]);

/// `$o` is the order's id, `$1`, `$2` and `$n` its lines', `$f` its first file's.
const DRIFT: [Drift; 36] = [
    (1, "UPDATE orders SET customer = 'x' WHERE id = $o", &["shop number=N0001: changed customer"], &["shop"]),
    (2, "UPDATE orders SET city = NULL WHERE id = $o", &["shop number=N0002: changed city"], &["shop"]),
    (3, "UPDATE orders SET total = 1.26 WHERE id = $o", &["shop number=N0003: changed total"], &["shop"]),
    (4, "UPDATE orders SET units = -1 WHERE id = $o", &["shop number=N0004: changed units"], &["shop"]),
    (5, "UPDATE orders SET ordered = '2024-06-01' WHERE id = $o", &["shop number=N0005: changed ordered"], &["shop"]),
    (6, "UPDATE orders SET paid = paid + interval '1 us' WHERE id = $o", &["shop number=N0006: changed paid"], &["shop"]),
    (7, "UPDATE orders SET status = 'sent' WHERE id = $o", &["shop number=N0007: changed status"], &["shop"]),
    (
        8,
        "UPDATE orders SET note = '', remark = 'x' WHERE id = $o",
        &["shop number=N0008: changed note,remark"],
        &["shop"],
    ),
    (
        9,
        "UPDATE line SET no = 9 WHERE id = $1",
        &["lines no=1: missing", "lines no=9: surplus", "serials code=a: missing", "serials code=a: surplus",
          "serials code=b: missing", "serials code=b: surplus"],
        &["lines", "serials"],
    ),
    (10, "UPDATE line SET label = NULL WHERE id = $2", &["lines no=2: changed label"], &["lines"]),
    (11, "UPDATE line SET qty = 9 WHERE id = $1", &["lines no=1: changed qty"], &["lines"]),
    (
        12,
        "UPDATE serial SET code = 'x' WHERE line_id = $1 AND code = 'a'",
        &["serials code=a: missing", "serials code=x: surplus"],
        &["serials"],
    ),
    (
        13,
        "UPDATE file SET official = -13 WHERE id = $f",
        &["files official=-13: surplus", "files official=130: missing", "pages no=1: missing",
          "pages no=1: surplus", "pages no=2: missing", "pages no=2: surplus"],
        &["files", "pages"],
    ),
    (14, "UPDATE file SET name = 'x' WHERE id = $f", &["files official=140: changed name"], &["files"]),
    (
        15,
        "UPDATE page SET no = 3 WHERE file_id = $f AND no = 2",
        &["pages no=2: missing", "pages no=3: surplus"],
        &["pages"],
    ),
    (16, "UPDATE page SET body = 'x' WHERE file_id = $f AND no = 2", &["pages no=2: changed body"], &["pages"]),
    (
        17,
        "UPDATE tag SET word = 'u' WHERE ctid = (SELECT min(ctid) FROM tag WHERE order_id = $o AND word = 't')",
        &["tags: missing", "tags: surplus"],
        &["tags"],
    ),
    (
        18,
        "UPDATE order_product SET product_id = (SELECT id FROM product WHERE code = 'q1')
         WHERE order_id = $o AND product_id = (SELECT id FROM product WHERE code = 'p')",
        &["products product_id=p: missing", "products product_id=q1: surplus"],
        &["products"],
    ),
    (19, "DELETE FROM serial WHERE line_id = $1 AND code = 'b'", &["serials code=b: missing"], &["serials"]),
    (
        20,
        "DELETE FROM serial WHERE line_id = $1; DELETE FROM line WHERE id = $1",
        &["lines no=1: missing", "serials code=a: missing", "serials code=b: missing"],
        &["lines", "serials"],
    ),
    (21, "DELETE FROM line WHERE id = $2", &["lines no=2: missing"], &["lines"]),
    (22, "DELETE FROM page WHERE file_id = $f AND no = 1", &["pages no=1: missing"], &["pages"]),
    (
        23,
        "DELETE FROM page WHERE file_id = $f; DELETE FROM file WHERE id = $f",
        &["files official=230: missing", "pages no=1: missing", "pages no=2: missing"],
        &["files", "pages"],
    ),
    (24, "DELETE FROM tag WHERE order_id = $o AND word IS NULL", &["tags: missing"], &["tags"]),
    (
        25,
        "DELETE FROM order_product WHERE order_id = $o AND product_id = (SELECT id FROM product WHERE code = 'p')",
        &["products product_id=p: missing"],
        &["products"],
    ),
    (26, "INSERT INTO line (order_id, no) VALUES ($o, 7)", &["lines no=7: surplus"], &["lines"]),
    (27, "INSERT INTO serial VALUES ($2, 'new')", &["serials code=new: surplus"], &["serials"]),
    (28, "INSERT INTO file (order_id, official) VALUES ($o, -28)", &["files official=-28: surplus"], &["files"]),
    (29, "INSERT INTO page VALUES ($f, 7)", &["pages no=7: surplus"], &["pages"]),
    (30, "INSERT INTO tag VALUES ($o, 't')", &["tags: surplus"], &["tags"]),
    (
        31,
        "INSERT INTO order_product SELECT $o, id FROM product WHERE code = 'q2'",
        &["products product_id=q2: surplus"],
        &["products"],
    ),
    // To the order after it.
    (
        32,
        "UPDATE line SET order_id = (SELECT id FROM orders WHERE number = 'N0033') WHERE id = $n",
        &["lines no=132: missing", "serials code=o: missing"],
        &["lines", "serials"],
    ),
    (33, "SELECT", &["lines no=132: surplus", "serials code=o: surplus"], &["lines", "serials"]),
    // To one of another batch.
    (
        34,
        "UPDATE file SET order_id = (SELECT id FROM orders WHERE number = 'N0834') WHERE id = $f",
        &["files official=340: moved"],
        &["files", "pages"],
    ),
    (
        35,
        "DELETE FROM serial WHERE line_id IN ($1, $2, $n); DELETE FROM line WHERE order_id = $o;
         DELETE FROM page WHERE file_id = $f; DELETE FROM file WHERE order_id = $o;
         DELETE FROM tag WHERE order_id = $o; DELETE FROM order_product WHERE order_id = $o;
         DELETE FROM orders WHERE id = $o",
        &["shop number=N0035: missing", "lines no=1: missing", "lines no=2: missing", "lines no=135: missing",
          "serials code=a: missing", "serials code=b: missing", "serials code=o: missing",
          "files official=350: missing", "files official=351: missing", "pages no=1: missing", "pages no=2: missing",
          "tags: missing", "tags: missing", "tags: missing", "products product_id=p: missing",
          "products product_id=q35: missing"],
        &[],
    ),
    // Columns that are not mapped, and a table that is not.
    (
        36,
        "UPDATE orders SET summary = 'theirs' WHERE id = $o; UPDATE file SET storage_path = 'theirs' WHERE id = $f;
         UPDATE orders SET note = note, total = 1.250 WHERE id = $o",
        &[],
        &[],
    ),
];

async fn drift(shop: &Shop) {
    for (n, sql, _, _) in DRIFT {
        let order = format!("(SELECT id FROM orders WHERE number = 'N{n:04}')");
        let line = |no: usize| format!("(SELECT id FROM line WHERE order_id = {order} AND no = {no})");
        let file = format!("(SELECT id FROM file WHERE official = {})", n * 10);
        let parts =
            [("$o", order.clone()), ("$1", line(1)), ("$2", line(2)), ("$n", line(100 + n)), ("$f", file)];
        // Looked up once: later statements of one drift no longer find what an earlier one took.
        let mut text = sql.to_owned();
        for (name, look_up) in parts {
            if text.contains(name) {
                let id = shop.rows(&look_up).await.pop().unwrap();
                text = text.replace(name, &id);
            }
        }
        shop.db.execute(&text).await;
    }
    shop.written().await;
}

/// All that is found with the feed, catalogue rows by their codes.
fn expected() -> Vec<String> {
    let lines = |(n, _, found, _): &Drift| -> Vec<String> {
        found.iter().map(|line| format!("N{n:04}: {line}")).collect()
    };
    let mut lines: Vec<String> = DRIFT.iter().flat_map(lines).collect();
    lines.sort();
    lines
}

/// All that is found without a feed.
fn expected_recorded() -> Vec<String> {
    let lines = |(n, _, _, relations): &Drift| -> Vec<String> {
        let line = |relation: &&str| match *relation {
            "shop" => format!("N{n:04}: shop number=N{n:04}: altered"),
            other => format!("N{n:04}: {other}: altered"),
        };
        relations.iter().map(line).collect()
    };
    let mut lines: Vec<String> = DRIFT.iter().flat_map(lines).collect();
    lines.push("N0035: shop number=N0035: missing".into());
    lines.extend(["N0834: files: altered", "N0834: pages: altered"].map(str::to_owned));
    lines.sort();
    lines
}

/// Catalogue rows by their codes instead of their ids.
async fn with_codes(shop: &Shop, lines: Vec<String>) -> Vec<String> {
    let codes = shop.rows("SELECT id, code FROM product").await;
    let codes: std::collections::HashMap<&str, &str> =
        codes.iter().filter_map(|line| line.split_once('|')).collect();
    let named = |line: String| match line.split_once("product_id=") {
        Some((before, rest)) => {
            let (id, after) = rest.split_once(':').unwrap();
            format!("{before}product_id={}:{after}", codes[id])
        }
        None => line,
    };
    let mut lines: Vec<String> = lines.into_iter().map(named).collect();
    lines.sort();
    lines
}

/// What must be the same before and after, of rows that are not removed.
const KEPT: &str = "SELECT 'o', number, id, summary FROM orders UNION ALL
    SELECT 'f', official::text, id, storage_path FROM file UNION ALL
    SELECT 'l', order_id::text || no, id, NULL FROM line ORDER BY 1, 2";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p36_drift_in_every_table_is_named_and_nothing_else() {
    let (shop, docs) = (Shop::open().await, orders(900));
    shop.sync(&docs).await;
    let feed = feed_of(&shop, &docs);
    let with_feed = [feed.to_str().unwrap()];
    verify(&shop, &[]).await.finds_nothing();
    verify(&shop, &with_feed).await.finds_nothing();
    drift(&shop).await;
    let before = versions(&shop).await;
    let found = verify(&shop, &with_feed).await;
    assert_eq!(with_codes(&shop, found.differences()).await, expected());
    assert_eq!((found.code, found.count("/unlisted")), (5, 0), "{}", found.stdout);
    let documents = ["read", "equal", "differing", "unknown", "failed"];
    assert_eq!(documents.map(|what| found.count(&format!("/documents/{what}"))), [900, 865, 35, 0, 0]);
    let recorded = verify(&shop, &[]).await;
    assert_eq!(recorded.differences(), expected_recorded());
    assert_eq!((recorded.code, recorded.count("/unrecorded_roots")), (5, 0), "{}", recorded.stdout);
    assert_eq!(documents.map(|what| recorded.count(&format!("/documents/{what}"))), [900, 864, 36, 0, 0]);
    assert_eq!(versions(&shop).await, before, "nothing was written");
    assert_eq!(shop.written().await, Edits::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p36_repair_mends_what_was_found_and_writes_nothing_else() {
    let (shop, docs) = (Shop::open().await, orders(900));
    shop.sync(&docs).await;
    let feed = feed_of(&shop, &docs);
    let with_feed = feed.to_str().unwrap();
    shop.db.execute("UPDATE orders SET summary = 's' || id; UPDATE file SET storage_path = 'p' || id").await;
    drift(&shop).await;
    let found = verify(&shop, &[with_feed]).await;
    let (kept, recorded) = (shop.rows(KEPT).await, versions(&shop).await[1..4].to_vec());
    let repaired = verify(&shop, &[with_feed, "--repair"]).await;
    assert_eq!(with_codes(&shop, repaired.differences()).await, expected());
    assert_eq!(repaired.code, 0, "{}\n{}", repaired.stdout, repaired.stderr);
    assert_eq!(shop.written().await, found.edits());
    assert_eq!(repaired.edits(), found.edits());
    assert_eq!(repaired.count("/repair/run/documents/failed"), 0);
    shop.state.check().await.unwrap();
    let now = shop.rows(KEPT).await;
    let gone: Vec<&String> = kept.iter().filter(|row| !now.contains(row)).collect();
    // Surplus files and lines are gone; all others are as they were, those that moved back included.
    let surplus = found.differences().iter().filter(|line| line.ends_with(": surplus")).count();
    assert!(gone.len() < surplus && gone.iter().all(|row| !row.starts_with('o')), "{gone:?}");
    assert_ne!(versions(&shop).await[1..4], recorded);
    verify(&shop, &[with_feed]).await.finds_nothing();
    verify(&shop, &[]).await.finds_nothing();
    let ran = shop.run(&docs).await.succeeded();
    assert_eq!((ran.documents("unchanged"), shop.written().await), (900, Edits::new()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p36_without_a_feed_repair_marks_and_the_next_run_mends() {
    let (shop, docs) = (Shop::open().await, orders(900));
    shop.sync(&docs).await;
    let feed = feed_of(&shop, &docs);
    drift(&shop).await;
    let rows = verify(&shop, &[feed.to_str().unwrap()]).await.edits();
    let marked = verify(&shop, &["--repair"]).await;
    assert_eq!((marked.code, marked.count("/repair/unsettled")), (5, 36), "{}", marked.stdout);
    assert!(marked.stdout.contains("36 documents marked: the next sync"), "{}", marked.stdout);
    assert_eq!(shop.unsettled().await, "36");
    assert_eq!(shop.rows("SELECT lease_holder FROM rowdelta.mapping").await, ["NULL"]);
    assert_eq!(shop.written().await, Edits::new());
    let ran = shop.run(&docs).await.succeeded();
    assert_eq!((ran.documents("unchanged"), shop.written().await), (864, rows));
    shop.state.check().await.unwrap();
    verify(&shop, &[]).await.finds_nothing();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p36_a_renamed_root_and_a_renamed_catalogue_row_are_missing_under_their_names() {
    let (shop, docs) = (Shop::open().await, orders(5));
    shop.sync(&docs).await;
    let feed = feed_of(&shop, &docs);
    let with_feed = feed.to_str().unwrap();
    shop.db
        .execute("UPDATE product SET code = 'other' WHERE code = 'q3'; UPDATE orders SET number = 'Z' WHERE number = 'N0001'")
        .await;
    shop.written().await;
    let found = verify(&shop, &[with_feed]).await;
    let differences = with_codes(&shop, found.differences()).await;
    let of_third: Vec<&String> = differences.iter().filter(|line| line.starts_with("N0003")).collect();
    assert_eq!(
        of_third,
        [
            "N0003: product code=q3: missing",
            "N0003: products code=q3: missing",
            "N0003: products product_id=other: surplus"
        ]
    );
    assert_eq!(differences.len() - 3, differences.iter().filter(|line| line.starts_with("N0001")).count());
    for line in ["shop number=N0001: missing", "files official=10: moved", "lines no=101: missing"] {
        assert!(differences.contains(&format!("N0001: {line}")), "{differences:#?}");
    }
    let recorded = verify(&shop, &[]).await;
    assert_eq!(recorded.differences(), ["N0001: shop number=N0001: missing"]);
    assert_eq!(recorded.count("/unrecorded_roots"), 1, "the order that is called Z now");
    let repaired = verify(&shop, &[with_feed, "--repair"]).await;
    assert_eq!((repaired.code, shop.written().await), (0, found.edits()), "{}", repaired.stdout);
    verify(&shop, &[with_feed]).await.finds_nothing();
    verify(&shop, &[]).await.finds_nothing();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p40_values_are_said_only_where_they_are_asked_for() {
    let (shop, docs) = (Shop::open().await, orders(3));
    shop.sync(&docs).await;
    let feed = feed_of(&shop, &docs);
    shop.db.execute("UPDATE line SET label = 'secret', qty = NULL WHERE no = 101").await;
    let found = verify(&shop, &[feed.to_str().unwrap()]).await;
    let place = feed.display();
    assert!(!found.stdout.contains("secret") && !found.report.to_string().contains("secret"));
    assert!(
        found.stdout.contains(&format!("N0001 ({place}:2): lines no=101: qty, label\n")),
        "{}",
        found.stdout
    );
    assert!(found.stdout.lines().all(|line| line.starts_with("shop:") || line.starts_with("  ")));
    let told = verify(&shop, &[feed.to_str().unwrap(), "--values"]).await;
    assert!(told.stdout.contains("lines no=101: qty NULL → 3, label secret → own\n"), "{}", told.stdout);
    let columns = json!([{ "name": "qty", "stored": null, "wanted": "3" }, { "name": "label", "stored": "secret", "wanted": "own" }]);
    assert_eq!(told.report["differences"][0]["columns"], columns);
}

/// What documents say nothing about may change, row by row; the rest is still compared.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p36_what_a_document_says_nothing_about_is_unknown_and_no_drift() {
    let shop = Shop::open().await;
    let docs = [
        json!({ "number": "A", "customer": "c", "lines": [{ "no": 1, "qty": 1, "serials": ["s"] }, { "no": 2, "label": "l", "qty": 2 }],
            "files": [{ "id": 1 }], "products": ["p"] }),
        json!({ "number": "B", "files": [{ "id": 2, "name": "f", "pages": [] }, { "id": 3, "name": "f", "pages": [{ "no": 1 }] }] }),
        json!({ "number": "C", "tags": [], "products": [], "lines": [{ "no": 1 }] }),
    ];
    shop.sync(&docs).await;
    let feed = feed_of(&shop, &docs);
    let with_feed = feed.to_str().unwrap();
    shop.db
        .execute(
            "UPDATE orders SET note = 'later', city = 'later';
             UPDATE line SET label = 'later' WHERE order_id = (SELECT id FROM orders WHERE number = 'A') AND no = 1;
             UPDATE line SET qty = 7 WHERE order_id = (SELECT id FROM orders WHERE number = 'C');
             UPDATE file SET name = 'later' WHERE official = 1;
             INSERT INTO page VALUES ((SELECT id FROM file WHERE official = 1), 1);
             INSERT INTO tag SELECT id, 'theirs' FROM orders WHERE number IN ('A', 'B');
             INSERT INTO line (order_id, no) SELECT id, 5 FROM orders WHERE number = 'B';
             INSERT INTO serial SELECT id, 'theirs' FROM line WHERE no = 5",
        )
        .await;
    shop.written().await;
    let found = verify(&shop, &[]).await.finds_nothing();
    assert_eq!(found.count("/documents/equal"), 3);
    assert!(found.count("/unknown/columns") >= 5 && found.count("/unknown/lists") >= 5, "{:#}", found.report);
    verify(&shop, &[with_feed]).await.finds_nothing();
    // In one line of A the label is said, in the other it is not: that column is unknown, and no other.
    shop.db.execute("UPDATE line SET qty = 8 WHERE no = 2; UPDATE page SET body = 'x' WHERE no = 1").await;
    assert_eq!(verify(&shop, &[]).await.differences(), ["A: lines: altered"]);
    let found = verify(&shop, &[with_feed]).await;
    assert_eq!(found.differences(), ["A: lines no=2: changed qty"]);
    let repaired = verify(&shop, &[with_feed, "--repair"]).await;
    shop.written().await;
    assert_eq!(repaired.edits(), edits(&[("line", 0, 1, 0)]));
    verify(&shop, &[]).await.finds_nothing();
}

const FORMS: &str = "
    CREATE TABLE item (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, code numeric NOT NULL UNIQUE, price numeric,
        data jsonb, word char(5), hash text, synced timestamptz);
    CREATE TABLE part (item_id int REFERENCES item, place int, weight numeric);";

const FORMS_MAPPING: &str = r#"
version = 1
name = "items"
[root]
table = "item"
key = ["code"]
id = "id"
columns = { code = "code", price = "price", data = "data", word = "word" }
[[root.children]]
name = "parts"
table = "part"
parent = "item_id"
pair = true
columns = { place = { position = 1 }, weight = "." }
[sync]
mark_hash = "hash"
mark_time = "synced"
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p36_equal_values_of_another_form_marks_and_the_order_of_rows_are_no_drift() {
    let shop = Shop::with(FORMS, FORMS_MAPPING).await;
    let doc = |code: &str| {
        format!(r#"{{"code":{code},"price":1.0,"data":{{"a":1.0}},"word":"w","parts":[1.5,2,1.5]}}"#)
    };
    let feed = shop.scratch.write("forms.ndjson", [doc("1.0"), doc("20")].join("\n"));
    shop.run_file(&feed, &[]).await.succeeded();
    shop.db
        .execute(
            r#"UPDATE item SET code = 1.000, price = 1.00, data = '{"a": 1.000}', hash = 'x', synced = now() WHERE code = 1;
               UPDATE part SET weight = 1.50 WHERE place = 3; UPDATE part SET weight = 2.000 WHERE place = 2"#,
        )
        .await;
    verify(&shop, &[]).await.finds_nothing();
    verify(&shop, &[feed.to_str().unwrap()]).await.finds_nothing();
    shop.db.execute("UPDATE part SET weight = 3 WHERE place = 2 AND item_id = 1; UPDATE item SET word = 'v' WHERE id = 2").await;
    let found = verify(&shop, &[feed.to_str().unwrap()]).await;
    assert_eq!(found.differences(), ["1.0: parts: changed weight", "20: items code=20: changed word"]);
    let recorded = verify(&shop, &[]).await;
    assert_eq!(recorded.differences(), ["1: parts: altered", "20: items code=20: altered"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p36_documents_of_another_mapping_and_unsettled_ones_are_unknown() {
    let mut shop = Shop::with(SCHEMA, &MAPPING.replace(r#"missing = "insert""#, r#"missing = "skip""#)).await;
    shop.db.execute("INSERT INTO product (code) VALUES ('p'), ('q0'), ('q1')").await;
    let docs = orders(4);
    shop.run(&docs).await.succeeded();
    let feed = feed_of(&shop, &docs);
    let found = verify(&shop, &[]).await.finds_nothing();
    assert_eq!(
        (found.count("/unknown/unsettled"), found.count("/documents/equal")),
        (2, 2),
        "two lack a product"
    );
    let found = verify(&shop, &[feed.to_str().unwrap()]).await.finds_nothing();
    assert_eq!(found.count("/unknown/skipped_lookups"), 2);
    shop.db.execute("INSERT INTO product (code) VALUES ('q2'), ('q3')").await;
    shop.remap(&MAPPING.replace("remark = { path = \"remark\", when_absent = \"null\" }\n", "")).await;
    shop.run(&docs[..1]).await.succeeded();
    shop.run(&docs[2..3]).await.succeeded();
    shop.db.execute("UPDATE orders SET customer = 'x'").await;
    let found = verify(&shop, &[]).await;
    assert_eq!(found.differences(), [0, 2].map(|n| format!("N{n:04}: shop number=N{n:04}: altered")));
    assert_eq!((found.count("/unknown/other_mapping"), found.count("/unknown/unsettled")), (1, 1));
}

/// A file that passes from one order to another is taken along, its removal held back to the end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p36_after_moves_and_held_removals_nothing_differs() {
    let (shop, mut docs) = (Shop::open().await, orders(700));
    shop.sync(&docs).await;
    let file = docs[3]["files"].as_array_mut().unwrap().pop().unwrap();
    docs[650]["files"].as_array_mut().unwrap().push(file);
    docs[4]["files"].as_array_mut().unwrap().pop();
    shop.sync(&docs).await;
    verify(&shop, &[]).await.finds_nothing();
    let feed = feed_of(&shop, &docs);
    verify(&shop, &[feed.to_str().unwrap()]).await.finds_nothing();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p40_a_role_that_may_only_read_can_verify() {
    let (shop, docs) = (Shop::open().await, orders(20));
    shop.sync(&docs).await;
    let feed = feed_of(&shop, &docs);
    let role = format!("reader_{}", std::process::id());
    shop.db
        .execute(&format!(
            "DROP ROLE IF EXISTS {role}; CREATE ROLE {role} LOGIN; ALTER ROLE {role} SET default_transaction_read_only = on;
             GRANT USAGE ON SCHEMA public, rowdelta TO {role};
             GRANT SELECT ON ALL TABLES IN SCHEMA public, rowdelta TO {role};
             UPDATE orders SET note = 'x' WHERE number = 'N0003'"
        ))
        .await;
    // Another user in the same URL.
    let (scheme, rest) = shop.db.url().split_once("://").unwrap();
    let url = format!("{scheme}://{role}@{}", rest.split_once('@').map_or(rest, |(_, rest)| rest));
    let found = verify_at(&url, &shop.mapping, &[feed.to_str().unwrap()]).await;
    let recorded = verify_at(&url, &shop.mapping, &[]).await;
    let refused = verify_at(&url, &shop.mapping, &["--repair"]).await;
    shop.db.execute(&format!("DROP OWNED BY {role}; DROP ROLE {role}")).await;
    assert_eq!(
        (found.code, found.differences()),
        (5, vec!["N0003: shop number=N0003: changed note".to_owned()]),
        "{}",
        found.stderr
    );
    assert_eq!(
        (recorded.code, recorded.differences()),
        (5, vec!["N0003: shop number=N0003: altered".to_owned()]),
        "{}",
        recorded.stderr
    );
    assert_eq!(refused.code, 2, "{}", refused.stderr);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p36_what_cannot_be_verified_has_its_exit_code() {
    let (shop, docs) = (Shop::open().await, orders(3));
    let never = verify(&shop, &[]).await;
    assert_eq!(never.code, 2);
    assert_eq!(never.stderr, "rowdelta: no run of the mapping `shop` is recorded in this database\n");
    let feed = feed_of(&shop, &docs);
    let with_feed = feed.to_str().unwrap();
    let empty = verify(&shop, &[with_feed]).await;
    assert_eq!((empty.code, empty.count("/documents/differing")), (5, 3), "nothing is stored");
    assert_eq!(empty.edits().get("product").map(|edit| edit.inserted), Some(4));
    shop.sync(&docs).await;
    let faulty = shop
        .scratch
        .write("faulty.ndjson", ndjson(&docs) + "{\"number\":\"X\",\"units\":\"two\"}\nno JSON\n");
    let failed = verify(&shop, &[faulty.to_str().unwrap()]).await;
    assert_eq!((failed.code, failed.count("/documents/failed"), failed.count("/documents/equal")), (1, 2, 3));
    assert!(failed.stdout.contains("  failed: X ("), "{}", failed.stdout);
    shop.db.execute("SELECT rowdelta.acquire(id, 'the test', 60) FROM rowdelta.mapping").await;
    for arguments in [&["--repair"][..], &[with_feed, "--repair"]] {
        let busy = verify(&shop, arguments).await;
        assert_eq!(busy.code, 4);
        let said = "rowdelta: another run of shop is at work: the test, lease until ";
        assert!(busy.stderr.starts_with(said), "{}", busy.stderr);
    }
    verify(&shop, &[with_feed]).await.finds_nothing();
    verify(&shop, &[]).await.finds_nothing();
}
