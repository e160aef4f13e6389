//! How far a run is, and what its report says of time.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bb8_postgres::PostgresConnectionManager;
use futures_util::{StreamExt as _, stream};
use rowdelta::engine::progress::Phase;
use rowdelta::{Document, Engine, Mapping};
use serde_json::{Value, json};
use tokio_postgres::NoTls;

use crate::shop::{MAPPING, Shop};

fn orders(count: usize, quantity: u64) -> Vec<Value> {
    let order = |n: usize| json!({ "number": format!("N{n:03}"), "lines": [{ "no": 1, "qty": quantity }], "products": ["p"] });
    (0..count).map(order).collect()
}

fn ms(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("a number: {value}"))
}

/// Any change of a line takes so long.
async fn slow_lines(shop: &Shop, condition: &str, seconds: f64) {
    let sql = format!(
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep({seconds}); RETURN NEW; END $$;
         CREATE TRIGGER slow BEFORE INSERT OR UPDATE ON line FOR EACH ROW WHEN ({condition}) EXECUTE FUNCTION slow()"
    );
    shop.db.execute(&sql).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn times_of_a_report_are_plausible() {
    let shop = Shop::open().await;
    slow_lines(&shop, "NEW.qty = 7", 0.4).await;
    let mut feed = orders(60, 1);
    feed[33] = json!({ "number": "SLOW", "lines": [{ "no": 1, "qty": 7 }] });
    let ran = shop.run_with(&feed, &["--batch", "1", "--workers", "2"]).await.succeeded();
    let (report, elapsed) = (&ran.report, ms(&ran.report["elapsed_ms"]));
    let phases = report["phases"].as_object().unwrap();
    let names: Vec<&String> = phases.keys().collect();
    assert_eq!(names, ["close_ms", "feed_ms", "finish_ms", "merge_ms", "start_ms", "sweep_ms"]);
    let sum: u64 = phases.values().map(ms).sum();
    assert!(sum <= elapsed && elapsed - sum <= 2, "{phases:?} of {elapsed}");
    assert!(ms(&phases["feed_ms"]) + ms(&phases["finish_ms"]) >= 400, "{phases:?}");

    let slowest = report["slowest"].as_array().unwrap();
    assert_eq!((slowest.len(), &slowest[0]["document"]), (5, &json!("SLOW")));
    let times: Vec<u64> = slowest.iter().map(|slow| ms(&slow["ms"])).collect();
    assert!(times.is_sorted_by(|a, b| a >= b) && times[0] >= 400 && times[0] <= elapsed, "{times:?}");
    assert!(times[1] < 400, "{times:?}");

    let relation = |name: &str| {
        let relations = report["relations"].as_array().unwrap();
        ms(&relations.iter().find(|relation| relation["name"] == name).unwrap()["ms"])
    };
    let all: u64 = report["relations"].as_array().unwrap().iter().map(|relation| ms(&relation["ms"])).sum();
    assert!(relation("lines") >= 400 && relation("shop") < 400, "{}", report["relations"]);
    assert!(relation("product") > 0, "a catalogue is looked up: {}", report["relations"]);
    assert!(all <= 2 * elapsed, "two workers cannot wait longer: {all} of {elapsed}");

    let ledger =
        shop.rows("SELECT report #>> '{elapsed_ms}', report #>> '{phases,close_ms}' FROM rowdelta.run").await;
    let (told, close) = ledger[0].split_once('|').unwrap();
    let told: u64 = told.parse().unwrap();
    assert!(told >= 400 && told <= elapsed && close == "0", "{ledger:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn documents_that_wait_for_a_lock_are_the_slow_ones() {
    let shop = Shop::open().await;
    shop.sync(&orders(20, 1)).await;
    let holder = shop.db.client().await;
    holder.batch_execute("BEGIN; SELECT FROM orders WHERE number = 'N007' FOR UPDATE").await.unwrap();
    let feed: Vec<Value> = orders(20, 1)
        .into_iter()
        .map(|mut order| {
            order["note"] = json!("x");
            order
        })
        .collect();
    let more = ["--batch", "1", "--lock-timeout", "300", "--retries", "1"];
    let ran = shop.run_with(&feed, &more).await;
    holder.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!((ran.code, ran.documents("failed")), (6, 1), "{}", ran.stderr);
    let slowest = &ran.report["slowest"][0];
    assert!(slowest["document"] == "N007" && ms(&slowest["ms"]) >= 600, "two tries: {slowest}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_can_be_watched_from_within_the_program() {
    let shop = Shop::open().await;
    let manager = PostgresConnectionManager::new_from_stringlike(shop.db.url(), NoTls).unwrap();
    let pool = bb8::Pool::builder().build(manager).await.unwrap();
    let engine = Engine::builder(Mapping::from_toml(MAPPING).unwrap()).workers(1).batch_documents_max(1);
    let engine = Arc::new(engine.build(pool).await.unwrap());
    let progress = engine.progress();
    assert_eq!((progress.snapshot().phase, progress.snapshot().read), (Phase::Idle, 0));
    let (more, fed) = tokio::sync::mpsc::channel(1);
    let feed = stream::unfold(fed, |mut fed| async move { Some((fed.recv().await?, fed)) });
    let syncing = engine.clone();
    let run = tokio::spawn(async move { syncing.sync(feed.boxed()).await });
    for document in orders(3, 1) {
        more.send(Ok(Document::from(document.to_string().as_str()))).await.unwrap();
    }
    // Of the third one it is not known yet whether another follows it in its batch.
    let seen = async {
        while progress.snapshot().new < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), seen).await.expect("two documents are in");
    let now = progress.snapshot();
    assert_eq!((now.phase, now.read, now.new, now.rows_written), (Phase::Feed, 3, 2, 7));
    drop(more);
    let report = run.await.unwrap().unwrap();
    let last = progress.snapshot();
    assert_eq!((last.phase, last.read, last.new, last.bytes_read), (Phase::Idle, 3, 3, report.bytes_read));
    assert_eq!(last.rows_written, report.rows_written());
}

/// A sync that takes some seconds, whose standard error is a pipe.
async fn watched(more: &[&str]) -> String {
    let shop = Shop::open().await;
    slow_lines(&shop, "true", 0.02).await;
    let mut feed = orders(120, 1);
    feed[5] = json!({ "number": "BAD", "units": "many" });
    let more: Vec<&str> =
        ["--batch", "5", "--workers", "1", "--progress-every", "1"].iter().chain(more).copied().collect();
    let ran = shop.run_with(&feed, &more).await;
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    ran.stderr
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_terminal_lines_say_how_far_a_run_is() {
    let said = watched(&[]).await;
    let lines: Vec<&str> = said.lines().filter(|line| line.contains("progress phase=")).collect();
    assert!(!lines.is_empty() && lines[0].contains(" read=") && lines[0].contains(" failed=1 "), "{said}");
    assert!(!said.contains('\x1b') && !said.contains('\r'), "{said}");
    let said = watched(&["--progress", "never"]).await;
    assert!(!said.contains("progress phase="), "{said}");
    let said = watched(&["--log", "json"]).await;
    let line = said.lines().find(|line| line.contains("\"progress\"")).unwrap_or_else(|| panic!("{said}"));
    let line: Value = serde_json::from_str(line).unwrap();
    assert_eq!((&line["target"], &line["level"]), (&json!("rowdelta::progress"), &json!("INFO")));
    assert!(ms(&line["fields"]["read"]) > 0 && ms(&line["fields"]["percent"]) > 0, "{line}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bar_is_not_torn_by_logs_and_leaves_nothing_behind() {
    let said = watched(&["--progress", "always", "--log", "json"]).await;
    assert!(said.contains("[====") && said.contains(" documents: "), "{said:?}");
    // A log line stands where a line was cleared, and ends in a line feed of its own.
    let logged = said.split("\x1b[2K").find(|part| part.contains("document failed"));
    let logged = logged.unwrap_or_else(|| panic!("{said:?}")).trim_start_matches("\x1b[1A");
    let (line, _) = logged.split_once('\n').unwrap();
    assert!(serde_json::from_str::<Value>(line).is_ok(), "{line:?}");
    let after = said.rsplit("\x1b[2K").next().unwrap().trim_start_matches("\x1b[1A");
    assert!(after.starts_with("rowdelta: 1 document failed\n"), "{after:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_summary_says_what_was_not_written_on_standard_error() {
    let shop = Shop::open().await;
    shop.sync(&orders(3, 1)).await;
    let mut feed = orders(3, 1);
    feed.push(feed[0].clone());
    feed.push(json!({ "number": "NEW", "lines": [{ "no": 1 }] }));
    feed.push(json!({ "number": "BAD", "units": "many" }));
    let file = shop.scratch.write("feed.ndjson", crate::shop::ndjson(&feed));
    let mapping = shop.scratch.write("m.toml", MAPPING);
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    let arguments = ["sync", "-d", shop.db.url(), "-m", &path(&mapping), "--report", "-", &path(&file)]
        .map(str::to_owned);
    let run = move || crate::support::command::output(&arguments.each_ref().map(String::as_str));
    let (code, stdout, stderr) = tokio::task::spawn_blocking(run).await.unwrap();
    assert_eq!(code, 1, "{stderr}");
    let report: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(report["documents"]["read"], 6);
    let summary: Vec<&str> = stderr.lines().skip_while(|line| !line.starts_with("shop: ")).collect();
    assert!(summary[0].starts_with("shop: 6 documents read in "), "{stderr}");
    assert!(summary[1].starts_with("  written: 1 new; 2 rows, "), "{stderr}");
    assert_eq!(
        summary[2..],
        [
            "    relation      added    updated      moved    removed",
            "    shop              1          ·          ·          ·",
            "    lines             1          ·          ·          ·",
            "  not written:",
            "           3 unchanged",
            "           1 equal to one that stood before it in the feed",
            "           1 failed: see above; trying again does not help",
        ]
    );
}
