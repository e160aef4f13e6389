//! Rows that others hold, and what a night says to the server.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rowdelta::postgres::local::Options;
use serde_json::{Value, json};

use crate::shop::{MAPPING, SCHEMA, Shop, edits, failures};
use crate::support::db_on;

fn orders(night: u32, count: usize) -> Vec<Value> {
    let order = |n: usize| json!({ "number": format!("N{n:03}"), "units": night, "lines": [{ "no": 1, "qty": night }] });
    (0..count).map(order).collect()
}

/// Three hundred documents change while another session holds rows of one.
async fn others_commit_while_locked(lock: &[&str]) {
    const ORDERS: usize = 300;
    let shop = Shop::open().await;
    shop.sync(&orders(1, ORDERS)).await;
    let holder = shop.db.client().await;
    holder.batch_execute("BEGIN").await.unwrap();
    for statement in lock {
        holder.simple_query(statement).await.unwrap();
    }
    let feed = orders(2, ORDERS);
    shop.expect(&feed).await;
    let run = shop.run_with(&feed, &["--lock-timeout", "500", "--retries", "2"]);
    let watch = async {
        let started = Instant::now();
        loop {
            let changed = shop.db.value("SELECT count(*) FROM orders WHERE units = 2").await;
            if changed == (ORDERS - 1).to_string() {
                return;
            }
            assert!(started.elapsed() < Duration::from_secs(30), "{changed} of {} are in", ORDERS - 1);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let (ran, ()) = tokio::join!(run, watch);
    assert_eq!(ran.code, 6, "{}", ran.stderr);
    assert_eq!((ran.documents("changed"), ran.documents("failed")), (ORDERS as u64 - 1, 1));
    let said = failures(&ran);
    assert!(said[0].starts_with("feed.ndjson:151 [N150] "), "{said:?}");
    assert!(said[0].ends_with(": canceling statement due to lock timeout (55P03) retryable"), "{said:?}");
    holder.batch_execute("ROLLBACK").await.unwrap();
    shop.written().await;
    let ran = shop.run(&feed).await.succeeded();
    assert_eq!((ran.documents("changed"), ran.documents("unchanged")), (1, ORDERS as u64 - 1));
    assert_eq!(shop.written().await, edits(&[("orders", 0, 1, 0), ("line", 0, 1, 0)]));
    shop.state.check().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p25_all_other_documents_commit_while_one_documents_rows_are_locked() {
    others_commit_while_locked(&[
        "SELECT FROM orders WHERE number = 'N150' FOR UPDATE",
        "SELECT FROM line WHERE order_id = (SELECT id FROM orders WHERE number = 'N150') FOR UPDATE",
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p25_all_other_documents_commit_while_one_root_row_is_locked() {
    others_commit_while_locked(&["SELECT FROM orders WHERE number = 'N150' FOR UPDATE"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p25_all_other_documents_commit_while_one_childs_row_is_locked() {
    others_commit_while_locked(&[
        "SELECT FROM line WHERE order_id = (SELECT id FROM orders WHERE number = 'N150') FOR UPDATE",
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p27_a_lock_that_is_given_back_in_time_costs_a_retry_and_nothing_else() {
    let shop = Shop::open().await;
    shop.sync(&orders(1, 20)).await;
    let holder = shop.db.client().await;
    holder.batch_execute("BEGIN; SELECT FROM orders WHERE number = 'N007' FOR UPDATE").await.unwrap();
    let feed = orders(2, 20);
    shop.expect(&feed).await;
    let release = async {
        // The first wait for the lock has ended by then, the last has not begun.
        while shop.db.value("SELECT count(*) FROM orders WHERE units = 2").await != "19" {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        holder.batch_execute("ROLLBACK").await.unwrap();
    };
    let (ran, ()) = tokio::join!(shop.run_with(&feed, &["--lock-timeout", "300"]), release);
    let ran = ran.succeeded();
    assert!(ran.report["retries"].as_u64().unwrap() > 0);
    shop.check(&ran).await;
}

/// The server refuses the COPY before it asks for the first row: what was sent after it is answered in order all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p27_a_copy_that_waits_in_vain_for_its_table_is_tried_again() {
    let shop = Shop::open().await;
    let feed: Vec<Value> =
        (0..80).map(|n| json!({ "number": format!("N{n:03}"), "tags": ["a", "b"] })).collect();
    shop.expect(&feed).await;
    let holder = shop.db.client().await;
    holder.batch_execute("BEGIN; LOCK TABLE tag IN EXCLUSIVE MODE").await.unwrap();
    let release = async {
        // Of two tries the first has failed by then.
        let waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
        for _ in 0..2 {
            while shop.db.value(waiting).await == "0" {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            while shop.db.value(waiting).await != "0" {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        holder.batch_execute("ROLLBACK").await.unwrap();
    };
    let (ran, ()) = tokio::join!(shop.run_with(&feed, &["--lock-timeout", "200"]), release);
    let ran = ran.succeeded();
    assert!(ran.report["retries"].as_u64().unwrap() > 0, "{:#}", ran.report);
    shop.check(&ran).await;
}

/// Someone else's UPDATE falls between the look-up of a row and its write: a trigger on `orders`, whose rows are
/// written first, waits until it is done. The row is looked up again, and not overwritten unseen.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p29_a_row_changed_between_look_up_and_write_is_looked_up_again() {
    let shop = Shop::open().await;
    shop.sync(&orders(1, 3)).await;
    shop.db
        .execute(
            "CREATE SEQUENCE tries;
             CREATE FUNCTION pause() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 IF nextval('tries') = 1 THEN PERFORM pg_advisory_xact_lock(42); END IF;
                 RETURN NULL;
             END $$;
             CREATE TRIGGER pause AFTER UPDATE ON orders FOR EACH STATEMENT EXECUTE FUNCTION pause()",
        )
        .await;
    let other = shop.db.client().await;
    other.batch_execute("SELECT pg_advisory_lock(42)").await.unwrap();
    let feed = orders(2, 3);
    let meddle = async {
        while shop.db.value("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted").await
            == "0"
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        other.batch_execute("UPDATE line SET label = 'theirs' WHERE no = 1 AND order_id = 1").await.unwrap();
        other.batch_execute("SELECT pg_advisory_unlock(42)").await.unwrap();
    };
    let (ran, ()) = tokio::join!(shop.run(&feed), meddle);
    let ran = ran.succeeded();
    assert!(ran.report["retries"].as_u64().unwrap() > 0, "{:#}", ran.report);
    assert_eq!(
        shop.rows("SELECT units, qty, label FROM orders JOIN line ON order_id = orders.id ORDER BY label NULLS FIRST")
            .await,
        ["2|2|NULL", "2|2|NULL", "2|2|theirs"],
        "both writes are there: the feed has no label"
    );
}

/// A trigger of the user's that touches a row which the same transaction writes later is nobody else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p21_a_row_touched_by_the_users_own_trigger_is_written_all_the_same() {
    let shop = Shop::open().await;
    shop.sync(&orders(1, 3)).await;
    shop.db
        .execute(
            "CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 UPDATE line SET label = 'touched' WHERE order_id = NEW.id;
                 RETURN NULL;
             END $$;
             CREATE TRIGGER touch AFTER UPDATE ON orders FOR EACH ROW EXECUTE FUNCTION touch()",
        )
        .await;
    let ran = shop.run(&orders(2, 3)).await.succeeded();
    assert_eq!(ran.report["retries"], 0);
}

/// A server of its own that logs every statement with its parameters.
async fn logged() -> (Shop, PathBuf) {
    // One process may run all tests, as threads.
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let name = format!("statements-{}-{}.log", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let log = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = std::fs::remove_file(&log);
    let mut options = Options::fast().setting("log_statement", "all").setting("log_line_prefix", "%a|");
    options.log_file = Some(log.clone());
    (Shop::in_database(db_on(options).await, SCHEMA, MAPPING).await, log)
}

/// What `rowdelta` sent in one run, each statement with its parameters.
async fn statements_of(shop: &Shop, log: &Path, docs: &[Value]) -> Vec<String> {
    shop.expect(docs).await;
    let before = std::fs::metadata(log).unwrap().len() as usize;
    let ran = shop.run(docs).await.succeeded();
    let bytes = std::fs::read(log).unwrap();
    shop.check(&ran).await;
    let text = String::from_utf8_lossy(&bytes[before..]).into_owned();
    let mut statements: Vec<String> = Vec::new();
    let mut ours = false;
    for line in text.lines() {
        if let Some((application, rest)) =
            line.split_once('|').filter(|(name, _)| !name.contains([' ', '\t']))
        {
            ours = application == "rowdelta";
            match rest.trim_start() {
                _ if !ours => {}
                rest if rest.starts_with("LOG:") => statements.push(rest.to_owned()),
                rest => statements.last_mut().unwrap().push_str(rest),
            }
        } else if ours {
            statements.last_mut().unwrap().push_str(line);
        }
    }
    assert!(!statements.is_empty(), "{text}");
    statements
}

/// How often each write of a table of the shop's was sent, up to where its values begin.
fn writes(statements: &[String]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for statement in statements {
        let Some(at) = ["UPDATE public.", "DELETE FROM public.", "INSERT INTO public.", "COPY public."]
            .iter()
            .find_map(|word| statement.find(word))
        else {
            continue;
        };
        let text = &statement[at..];
        let end = [" FROM unnest", " USING ", " SELECT ", " FROM STDIN", " OVERRIDING"]
            .iter()
            .filter_map(|word| text.find(word))
            .min();
        *counts.entry(text[..end.unwrap_or(text.len())].to_owned()).or_default() += 1;
    }
    counts
}

fn counts(list: &[(&str, usize)]) -> BTreeMap<String, usize> {
    list.iter().map(|(text, count)| ((*text).to_owned(), *count)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p03_a_night_at_one_percent_writes_changed_columns_and_says_nothing_of_unchanged_documents() {
    let (shop, log) = logged().await;
    let mut docs: Vec<Value> = (0..1000)
        .map(|n| json!({ "number": format!("N{n:03}"), "customer": "c", "units": 1,
            "lines": [{ "no": 1, "label": "l", "qty": 1 }, { "no": 2 }], "files": [{ "id": n }], "tags": ["t"] }))
        .collect();
    shop.sync(&docs).await;
    // Ten of a thousand: four in one column, three in two columns and a line, three lose a line and gain a tag.
    for n in [5, 105, 205, 305] {
        docs[n]["units"] = 2.into();
    }
    for n in [410, 510, 610] {
        docs[n]["customer"] = "d".into();
        docs[n]["note"] = "n".into();
        docs[n]["lines"][0]["qty"] = 2.into();
    }
    for n in [715, 815, 915] {
        docs[n]["lines"] = json!([{ "no": 2 }]);
        docs[n]["tags"] = json!(["t", "u"]);
    }
    let changed = [5, 105, 205, 305, 410, 510, 610, 715, 815, 915];
    let statements = statements_of(&shop, &log, &docs).await;
    let expected = [
        ("UPDATE public.orders t SET \"units\" = v.c0", 1),
        ("UPDATE public.orders t SET \"note\" = v.c0, \"customer\" = v.c1", 1),
        ("UPDATE public.line t SET \"qty\" = v.c0", 1),
        ("DELETE FROM public.line t", 1),
        ("INSERT INTO public.tag (\"order_id\", \"word\")", 1),
    ];
    assert_eq!(writes(&statements), counts(&expected));
    let text = statements.join("\n");
    for n in 0..1000 {
        let key = format!("N{n:03}");
        let hex: String = key.bytes().map(|byte| format!("{byte:02x}")).collect();
        let mentioned = text.contains(&key) || text.contains(&hex);
        assert_eq!(mentioned, changed.contains(&n), "{key}");
    }
    println!("{} statements", statements.len());
    assert!(statements.len() < 110, "{}\n{text}", statements.len());
    let _ = std::fs::remove_file(log);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p03_new_rows_are_copied_from_fifty_on() {
    let (shop, log) = logged().await;
    let docs = |from: usize, to: usize| -> Vec<Value> {
        (from..to).map(|n| json!({ "number": format!("N{n:03}"), "tags": ["t"] })).collect()
    };
    let insert = "INSERT INTO public.tag (\"order_id\", \"word\")";
    let copy = "COPY public.tag (\"order_id\", \"word\")";
    for (from, to, expected) in [(0, 49, insert), (49, 99, copy)] {
        let all = writes(&statements_of(&shop, &log, &docs(from, to)).await);
        let tags: Vec<_> = all.iter().filter(|(text, _)| text.contains("public.tag")).collect();
        assert_eq!(tags, [(&expected.to_owned(), &1)], "{} new rows", to - from);
        let how = if to - from < 50 { "INSERT INTO" } else { "COPY" };
        assert!(all.keys().any(|text| text.starts_with(&format!("{how} public.orders"))), "{all:?}");
        assert_eq!(all.len(), 2, "{all:?}");
    }
    let _ = std::fs::remove_file(log);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p38_a_night_without_changes_says_nothing_of_any_document() {
    let (shop, log) = logged().await;
    let docs = orders(1, 1000);
    shop.sync(&docs).await;
    let statements = statements_of(&shop, &log, &docs).await;
    assert_eq!(writes(&statements), counts(&[]));
    let text = statements.join("\n");
    assert!(!text.contains("N000") && !text.contains("4e303030"), "{text}");
    println!("{} statements", statements.len());
    assert!(statements.len() < 85, "{}\n{text}", statements.len());
    let _ = std::fs::remove_file(log);
}
