//! The feed of changes: every row that is written, once, after its commit, and nothing else.
//!
//! `replay` does changes again on a copy of the tables, `nights` draws what is to be told.

mod nights;
mod planned;
pub mod replay;

use std::time::Duration;

use bb8_postgres::PostgresConnectionManager;
use rowdelta::engine::changes::Change;
use rowdelta::engine::{Builder, Engine};
use rowdelta::mapping::Mapping;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_postgres::NoTls;

use crate::faults::proxy::{Fault, Phase};
use crate::faults::site::{Site, Way};
use crate::lanes::variable;
use crate::nights::case::items;
use crate::oracle::Edits;
use crate::shop::{BY_RELATION, MAPPING, SCHEMA, Shop, failures, ndjson};
use crate::sql_core::Sql;
use crate::support::command::{self, Ran, Scratch};
use crate::support::db;
use nights::drain;
use replay::{Copy, counts};

const CASES: u64 = 24;
const SEED: u64 = 20_261_127;

/// As many as a few seconds allow: `ROWDELTA_CHANGES_CASES` and `ROWDELTA_CHANGES_SEED` for more.
#[tokio::test(flavor = "multi_thread")]
async fn p02_p05_of_random_nights_just_the_rows_that_are_written_are_told_and_can_be_done_again() {
    let (seed, cases) = (variable("ROWDELTA_CHANGES_SEED", SEED), variable("ROWDELTA_CHANGES_CASES", CASES));
    let (tally, failures) = nights::run(seed, cases).await;
    println!("seed {seed}\n{tally}");
    assert!(failures.is_empty(), "{} cases failed; the first:\n{}", failures.len(), failures[0]);
}

fn order(number: &str, customer: &str) -> Value {
    json!({ "number": number, "customer": customer, "total": "1.50", "ordered": "2024-02-29",
            "paid": "2024-03-01T10:00:00+01:00", "status": "open",
            "lines": [{ "no": 1, "label": "one", "qty": 1, "serials": ["s"] }, { "no": 2, "label": "two", "qty": 2 }],
            "files": [{ "id": number.len() * 100, "name": "f", "pages": [{ "no": 1, "body": "a" }] }],
            "tags": ["red", "red", null], "products": ["p", "q"] })
}

/// A run of the command with `--changes`, and what it wrote there.
async fn sync(shop: &Shop, docs: &[Value], more: &[&str]) -> (Ran, Vec<Value>) {
    let file = shop.scratch.path("changes.ndjson");
    let given = ["--allow-deletes", "1000000", "--changes", file.to_str().unwrap()];
    let ran = shop.run_with(docs, &[&given, more].concat()).await;
    let lines = std::fs::read_to_string(&file).unwrap();
    (ran, lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
}

async fn copy(shop: &Shop, mapping: &str) -> Copy {
    Copy::of(shop.db.client().await, &Mapping::from_toml(mapping).unwrap()).await.unwrap()
}

/// Lines for people: `action relation key=… before → after`.
fn words(lines: &[Value]) -> Vec<String> {
    let word = |line: &Value| {
        let text = |name: &str| line[name].as_str().unwrap_or("-").to_owned();
        let (document, relation, action) = (text("document"), text("relation"), text("action"));
        format!("{document} {action} {relation} {} {} {}", line["key"], line["before"], line["after"])
    };
    lines.iter().map(word).collect()
}

async fn each_kind_of_change_is_a_line(mapping: &str) {
    let shop = Shop::with(SCHEMA, mapping).await;
    let copy = copy(&shop, mapping).await;
    let mut docs = vec![order("A", "Ana"), order("BB", "Eva")];
    let (_, told) = sync(&shop, &docs, &[]).await;
    assert_eq!(counts(&told), shop.written().await);
    let roots: Vec<&Value> = told.iter().filter(|line| line["relation"] == "shop").collect();
    let ids: Vec<String> = shop.rows("SELECT id FROM orders ORDER BY number").await;
    let after = json!({ "number": "A", "customer": "Ana", "total": "1.50", "ordered": "2024-02-29",
                        "paid": "2024-03-01 09:00:00+00", "status": "open", "remark": null });
    let first = json!({ "document": "A", "relation": "shop", "table": "orders", "action": "added",
                        "key": { "number": "A" }, "id": ids[0], "parent": null, "before": null, "after": after });
    assert_eq!((roots.len(), roots[0]), (2, &first));
    copy.replay(&told).await.unwrap();
    copy.check().await.unwrap();
    // The same again: not a line.
    let (_, told) = sync(&shop, &docs, &[]).await;
    assert_eq!(told, [Value::Null; 0]);
    // An update, a removal, rows without a key, a new catalogue row, a move from one document to the other.
    docs[0]["customer"] = json!("Ana M.");
    docs[0]["lines"][0]["qty"] = json!(9);
    docs[0]["lines"].as_array_mut().unwrap().pop();
    docs[0]["tags"] = json!(["red", "blue"]);
    docs[0]["products"] = json!(["q", "r"]);
    let file = docs[1]["files"].as_array_mut().unwrap().pop().unwrap();
    docs[0]["files"].as_array_mut().unwrap().push(file);
    let (_, told) = sync(&shop, &docs, &["--batch", "1"]).await;
    assert_eq!(counts(&told), shop.written().await);
    copy.replay(&told).await.unwrap();
    copy.check().await.unwrap();
    let said = words(&told);
    for line in [
        r#"A updated shop {"number":"A"} {"customer":"Ana"} {"customer":"Ana M."}"#,
        r#"A updated lines {"no":"1"} {"qty":"1"} {"qty":"9"}"#,
        r#"A removed lines {"no":"2"} {"label":"two","no":"2","qty":"2"} null"#,
        r#"A removed tags null {"word":null} null"#,
        r#"A added tags null null {"word":"blue"}"#,
        r#"- added product {"code":"r"} null {"code":"r"}"#,
    ] {
        assert!(said.contains(&line.to_owned()), "{line}\n{said:#?}");
    }
    let moved: Vec<&Value> = told.iter().filter(|line| line["action"] == "moved").collect();
    let (from, to) = (json!({ "order_id": ids[1] }), json!({ "order_id": ids[0] }));
    assert_eq!((moved.len(), &moved[0]["before"], &moved[0]["after"]), (1, &from, &to), "{moved:#?}");
    assert_eq!((&moved[0]["document"], &moved[0]["parent"]), (&json!("A"), &to));
    // A document that goes goes with all its rows.
    let (_, told) = sync(&shop, &docs[..1], &["--complete"]).await;
    assert_eq!(counts(&told), shop.written().await);
    assert!(told.iter().all(|line| line["action"] == "removed" && line["document"] == "BB"), "{told:#?}");
    assert_eq!(told.last().unwrap()["relation"], "shop", "the innermost first");
    copy.replay(&told).await.unwrap();
    copy.check().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p05_each_kind_of_change_is_a_line() {
    each_kind_of_change_is_a_line(MAPPING).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p05_p24_each_kind_of_change_is_a_line_relation_by_relation() {
    each_kind_of_change_is_a_line(&format!("{MAPPING}{BY_RELATION}")).await;
}

/// Nothing of what is rolled back: not of the try that failed, not of the document that does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p25_p27_what_is_tried_again_is_told_once_and_what_fails_never() {
    for code in ["40001", "40P01"] {
        let shop = Shop::open().await;
        let copy = copy(&shop, MAPPING).await;
        let raise = format!(
            "CREATE SEQUENCE tries;
             CREATE FUNCTION fails() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 IF nextval('tries') <= 3 THEN RAISE EXCEPTION 'not yet' USING ERRCODE = '{code}'; END IF;
                 RETURN NULL; END $$;
             CREATE CONSTRAINT TRIGGER fails AFTER INSERT ON file DEFERRABLE INITIALLY DEFERRED
                 FOR EACH ROW EXECUTE FUNCTION fails();
             ALTER TABLE tag ADD CHECK (word <> 'bad')"
        );
        shop.db.execute(&raise).await;
        let mut docs = vec![order("A", "Ana"), order("BB", "Eva"), order("CCC", "Ida")];
        docs[1]["tags"] = json!(["good", "bad"]);
        let (ran, told) = sync(&shop, &docs, &["--history"]).await;
        assert_eq!(ran.code, 1, "{}", ran.stderr);
        assert!(ran.report["retries"].as_u64() >= Some(1), "{:#}", ran.report);
        assert_eq!(failures(&ran).len(), 1);
        assert!(told.iter().all(|line| line["document"] != "BB"), "{told:#?}");
        assert_eq!(counts(&told), shop.written().await);
        let kept = "SELECT count(*), count(*) FILTER (WHERE document = 'BB') FROM rowdelta.change";
        assert_eq!(shop.rows(kept).await, [format!("{}|0", told.len())]);
        copy.replay(&told).await.unwrap();
        copy.check().await.unwrap();
    }
}

async fn engine(shop: &Shop, more: impl FnOnce(Builder) -> Builder) -> Engine {
    let manager = PostgresConnectionManager::new_from_stringlike(&shop.url, NoTls).unwrap();
    let pool = bb8::Pool::builder().max_size(3).build(manager).await.unwrap();
    let mapping = Mapping::from_toml(MAPPING).unwrap();
    more(Engine::builder(mapping).workers(2).batch_documents_max(2)).build(pool).await.unwrap()
}

fn feed(docs: &[Value]) -> impl futures_util::Stream<Item = rowdelta::engine::FeedItem> + Send + use<> {
    let docs: Vec<String> = docs.iter().map(Value::to_string).collect();
    futures_util::stream::iter(items(&docs))
}

fn many(count: usize) -> Vec<Value> {
    let number = |n: usize| {
        let mut doc = order("x", "Ana");
        doc["number"] = json!(format!("N{n:03}"));
        doc["files"] = json!([]);
        doc
    };
    (0..count).map(number).collect()
}

/// A run waits for its listener, and holds nothing open meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p23_p37_a_slow_listener_slows_the_run_and_keeps_no_transaction_open() {
    let shop = Shop::open().await;
    let (sender, mut changes) = mpsc::channel(1);
    let engine = engine(&shop, |builder| builder.changes(sender)).await;
    let docs = many(40);
    let run = tokio::spawn(async move { engine.sync(feed(&docs)).await });
    let mut told = vec![serde_json::to_value(changes.recv().await.unwrap()).unwrap()];
    tokio::time::sleep(Duration::from_millis(500)).await;
    let written = shop.db.value("SELECT count(*) FROM orders").await;
    assert!(written.parse::<u64>().unwrap() < 40, "{written} of 40 are in though nobody listens");
    let open = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
                AND state LIKE 'idle in transaction%'";
    assert_eq!(shop.db.value(open).await, "0");
    while let Some(change) = changes.recv().await {
        told.push(serde_json::to_value(&change).unwrap());
    }
    run.await.unwrap().unwrap();
    assert_eq!(counts(&told), shop.written().await);
}

/// Whoever does not listen any more is not waited for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p39_a_run_goes_on_without_its_listener_and_a_stopped_one_tells_what_is_in() {
    let shop = Shop::open().await;
    let (sender, mut changes) = mpsc::channel(1);
    let gone = engine(&shop, |builder| builder.changes(sender)).await;
    let (docs, listened) = (many(20), tokio::spawn(async move { changes.recv().await }));
    let report = gone.sync(feed(&docs)).await.unwrap();
    assert_eq!(report.documents.new, 20);
    assert!(listened.await.unwrap().is_some());
    shop.written().await;
    // Stopped in the midst of it: what is in was told, and only that.
    let (sender, mut changes) = mpsc::channel(100_000);
    let engine = engine(&shop, |builder| builder.changes(sender)).await;
    let docs = many(400);
    let stop = async {
        let busy = async || shop.db.value("SELECT count(*) FROM orders").await.parse::<u64>().unwrap() > 40;
        while !busy().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let stopped = engine.sync_until(feed(&docs), stop).await;
    assert_eq!(counts(&drain(&mut changes)), shop.written().await, "{stopped:?}");
}

/// Rows kept by the command and by the SQL functions look alike.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p05_history_is_the_same_by_the_command_and_in_sql() {
    let mut noted = Vec::new();
    for in_sql in [false, true] {
        let shop = Shop::open().await;
        let sql = Sql::with_file(&shop.db, &shop.mapping).await;
        if in_sql {
            sql.execute("SELECT rowdelta.keep_history('shop', '1 day')").await.unwrap();
        }
        let mut docs = vec![order("A", "Ana"), order("BB", "Eva")];
        for night in 0..2 {
            match in_sql {
                true => drop(sql.many(&docs.iter().map(Value::to_string).collect::<Vec<_>>()).await),
                false => drop(shop.run_with(&docs, &["--history", "--batch", "1"]).await.succeeded()),
            }
            docs[0]["customer"] = json!("Ana M.");
            docs[0]["paid"] = json!(null);
            docs[1]["lines"][0]["label"] = json!("uno");
            docs[1]["tags"] = json!(["blue"]);
            docs[night]["products"] = json!(["q"]);
        }
        // The functions tell nothing of catalogue rows, and of absent fields that they are NULL.
        let sql =
            "SELECT document, relation, action, key, jsonb_strip_nulls(before), jsonb_strip_nulls(after)
                   FROM rowdelta.change WHERE document IS NOT NULL
                   AND relation <> 'products' ORDER BY 1, 2, 3, 4, 5, 6";
        noted.push(shop.rows(sql).await);
    }
    assert_eq!(noted[0], noted[1]);
    assert!(noted[0].len() > 20, "{:#?}", noted[0]);
}

/// What was noted is printed, with the run that wrote it; it goes when it is old.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p05_history_says_which_run_changed_what() {
    let shop = Shop::open().await;
    let mut docs = vec![order("A", "Ana")];
    let history = |more: &[&str]| {
        let given = ["history", "-d", shop.db.url(), "-m", "shop"];
        command::output(&[&given, more].concat())
    };
    let (code, out, stderr) = history(&["A"]);
    assert_eq!((code, out.as_str()), (2, ""));
    let unknown =
        "rowdelta: no mapping shop is recorded in this database, and there is no such file; no mapping is\n";
    assert_eq!(stderr, unknown);
    shop.run(&[]).await.succeeded();
    let (code, out, _) = history(&["A"]);
    let said = "shop: no change of document A is noted: it was not written with `sync --history`, or its key is spelled otherwise\n";
    assert_eq!((code, out.as_str()), (0, said));
    shop.run_with(&docs, &["--history"]).await.succeeded();
    docs[0]["customer"] = json!("Ana M.");
    docs[0]["lines"][0]["qty"] = json!(null);
    shop.run_with(&docs, &["--history"]).await.succeeded();
    let (code, out, stderr) = history(&["A"]);
    assert_eq!(code, 0, "{stderr}");
    let runs = shop.rows("SELECT id FROM rowdelta.run ORDER BY id OFFSET 1").await;
    let last = out.split(&format!("UTC, run {}\n", runs[1])).nth(1).unwrap();
    let said = "  ~ shop number=A\n      customer  Ana -> Ana M.\n  ~ lines no=1\n      qty  1 -> NULL\n";
    assert_eq!(last, said);
    assert!(out.contains(&format!("UTC, run {}\n  + shop number=A\n", runs[0])), "{out}");
    let (_, json, _) = history(&["A", "--json", "--max", "1"]);
    let one: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&one["run"].to_string(), &one["action"]), (&runs[1], &json!("updated")));
    // It is kept for as long as somebody said.
    shop.db
        .execute("SELECT rowdelta.keep_history('shop', '1 day'); UPDATE rowdelta.change SET at = at - interval '2 days'")
        .await;
    docs[0]["customer"] = json!("Eva");
    shop.run_with(&docs, &["--history"]).await.succeeded();
    assert_eq!(shop.rows("SELECT count(*) FROM rowdelta.change").await, ["1"]);
}

/// A role that may not note changes is told so before anything is written.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p40_a_role_that_may_not_note_changes_does_not_start() {
    let shop = Shop::open().await;
    let role = format!("noter_{}", std::process::id());
    let grants = format!(
        "CREATE ROLE {role} LOGIN; GRANT USAGE ON SCHEMA rowdelta, public TO {role};
         GRANT ALL ON ALL TABLES IN SCHEMA rowdelta, public TO {role};
         GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO {role}; REVOKE INSERT ON rowdelta.change FROM {role}"
    );
    shop.db.execute(&grants).await;
    let url = shop.db.url().replace("postgres@", &format!("{role}@"));
    let feed = shop.scratch.write("feed.ndjson", ndjson(&[order("A", "Ana")]));
    let given = ["sync", "-d", &url, "-m", shop.mapping.to_str().unwrap(), feed.to_str().unwrap()];
    let (code, _, stderr) = command::output(&[&given[..], &["--history"]].concat());
    let mends = format!("the role may not note changed rows: GRANT INSERT ON rowdelta.change TO {role}");
    assert!(code == 2 && stderr.contains(&mends), "{stderr}");
    assert_eq!(shop.written().await, Edits::new());
    shop.db.execute(&format!("GRANT INSERT ON rowdelta.change TO {role}")).await;
    let (code, _, stderr) = command::output(&[&given[..], &["--history"]].concat());
    assert_eq!(code, 0, "{stderr}");
    shop.db.execute(&format!("DROP OWNED BY {role}; DROP ROLE {role}")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p40_changes_on_standard_output_stand_alone_and_faults_are_named_before_the_run() {
    let shop = Shop::open().await;
    let feed = shop.scratch.write("feed.ndjson", ndjson(&[order("A", "Ana")]));
    let given = ["sync", "-d", shop.db.url(), "-m", shop.mapping.to_str().unwrap(), feed.to_str().unwrap()];
    let (code, _, stderr) = command::output(&[&given[..], &["--changes", "-", "--report", "-"]].concat());
    assert_eq!(code, 2);
    assert!(stderr.contains("cannot both be written to standard output"), "{stderr}");
    let (code, _, stderr) = command::output(&[&given[..], &["--changes", "no/such/directory"]].concat());
    assert_eq!(code, 2);
    assert!(stderr.contains("no/such/directory: "), "{stderr}");
    assert_eq!(shop.written().await, Edits::new());
    let (code, stdout, stderr) = command::output(&[&given[..], &["--changes", "-"]].concat());
    assert_eq!(code, 0, "{stderr}");
    let told: Vec<Value> = stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(counts(&told), shop.written().await);
    // A file that cannot be written to stops the run.
    if std::path::Path::new("/dev/full").exists() {
        shop.scratch.write("feed.ndjson", ndjson(&many(300)));
        let full = [&given[..], &["--changes", "/dev/full", "--batch", "2"]].concat();
        let (code, _, stderr) = command::output(&full);
        assert_eq!(code, 2);
        assert!(stderr.contains("changes could not be written to /dev/full"), "{stderr}");
    }
}

/// A mark is no row of the feed; that a document went missing is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p31_a_root_row_that_is_marked_as_missing_is_told() {
    let schema = SCHEMA.replace("summary text", "summary text, gone timestamptz, synced timestamptz");
    let mapping = MAPPING
        .replace("id = \"id\"\n\n[root.columns]", "id = \"id\"\non_absent = \"mark\"\n\n[root.columns]");
    let mapping = format!("{mapping}\n[sync]\nmark_absent = \"gone\"\nmark_time = \"synced\"\n");
    let shop = Shop::with(&schema, &mapping).await;
    let mut docs = vec![order("A", "Ana"), order("BB", "Eva")];
    sync(&shop, &docs, &[]).await;
    docs[0]["lines"][0]["qty"] = json!(7);
    let (ran, told) = sync(&shop, &docs[..1], &["--complete", "--expect", "1"]).await;
    assert_eq!((ran.code, ran.report["marks"].as_u64()), (0, Some(2)), "{}", ran.stderr);
    let gone = shop.rows("SELECT gone FROM orders WHERE number = 'BB'").await.remove(0);
    let said = |lines: &[Value]| words(lines).into_iter().map(|w| w.replace(&gone, "T")).collect::<Vec<_>>();
    let line = r#"A updated lines {"no":"1"} {"qty":"1"} {"qty":"7"}"#;
    let marked = r#"BB updated shop {"number":"BB"} {"gone":null} {"gone":"T"}"#;
    assert_eq!(said(&told), [line, marked]);
    let (_, told) = sync(&shop, &docs, &[]).await;
    assert_eq!(said(&told), [r#"BB updated shop {"number":"BB"} {"gone":"T"} {"gone":null}"#]);
}

/// Of types that the client does not know, and of arrays, the server says what they are.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p06_values_of_any_type_are_told_as_the_server_writes_them() {
    let schema = "CREATE TYPE pair AS (a int, b text); CREATE DOMAIN short AS text CHECK (length(value) < 9);
        CREATE TABLE thing (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, code int UNIQUE, n numeric, f float8,
            b bytea, j jsonb, k json, i interval, a int[], p pair, q pair[], d short, t time, u uuid, r int4range);";
    let columns = "code n f b j k i a p q d t u r".split(' ').map(|c| format!("{c} = \"{c}\"\n"));
    let mapping = format!(
        "version = 1\nname = \"things\"\n[root]\ntable = \"thing\"\nkey = [\"code\"]\nid = \"id\"\n[root.columns]\n{}",
        columns.collect::<String>()
    );
    let (db, scratch) = (db().await, Scratch::new());
    db.execute(schema).await;
    command::install(db.url());
    let map = scratch.write("things.toml", &mapping);
    let copy = Copy::of(db.client().await, &Mapping::from_toml(&mapping).unwrap()).await.unwrap();
    let doc = json!({ "code": 1, "n": "1.500", "f": 0.1, "b": "\\x00ff", "j": { "b": [1.50, null], "a": "é" },
                      "k": { "z": 1 }, "i": "1 day 02:00", "a": [1, null, 3], "p": { "a": 1, "b": "x y" },
                      "q": [{ "a": 2, "b": null }], "d": "dom", "t": "10:11:12.5",
                      "u": "00000000-0000-0000-0000-00000000000A", "r": "[1,5)" });
    let feed = scratch.write("things.ndjson", ndjson(&[doc]));
    let given = ["sync", "-d", db.url(), "-m", map.to_str().unwrap(), feed.to_str().unwrap()];
    let (code, stdout, stderr) = command::output(&[&given[..], &["--changes", "-"]].concat());
    assert_eq!(code, 0, "{stderr}");
    let told: Vec<Value> = stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let text = |c: &str| format!("'{c}', {c}::text");
    let all = "code n f b j k i a p q d t u r".split(' ').map(text).collect::<Vec<_>>().join(", ");
    let stored = db.value(&format!("SELECT jsonb_build_object({all}) FROM thing")).await;
    assert_eq!(told[0]["after"], serde_json::from_str::<Value>(&stored).unwrap());
    copy.replay(&told).await.unwrap();
    copy.check().await.unwrap();
}

/// The server commits, and the answer is lost: what was written is told, and told once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p05_p27_changes_of_a_commit_whose_answer_is_lost_are_told_once() {
    let mut site = Site::open(9, Way::Direct).await.unwrap();
    let file = site.shop.scratch.path("changes.ndjson");
    for _ in 0..4 {
        site.dawn().await;
        let trap = site.trap(Phase::Committing, Fault::CutAnswer);
        site.proxy.set(vec![trap]);
        site.shop.written().await;
        site.run(&["--changes", file.to_str().unwrap()]).await.succeeded();
        assert_eq!(site.proxy.hit(), [Phase::Committing]);
        let told = std::fs::read_to_string(&file).unwrap();
        let told: Vec<Value> = told.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(counts(&told), site.shop.written().await);
        site.is_as_it_should_be().await;
        site.ends_well().await;
    }
}

/// A change can be sent to another task.
#[test]
fn a_change_is_plain_data() {
    fn is_plain<T: Send + Sync + Clone + 'static>() {}
    is_plain::<Change>();
}
