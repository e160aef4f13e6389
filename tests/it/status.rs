//! What `rowdelta status` says of mappings, leases, runs and failures.

use serde_json::{Value, json};

use crate::shop::Shop;
use crate::support::{command, db};

/// The exit code, what was printed, what was said on standard error.
async fn status(shop: &Shop, more: &[&str]) -> (i32, String, String) {
    let mut arguments: Vec<String> = ["status", "-d", shop.db.url()].map(str::to_owned).to_vec();
    arguments.extend(more.iter().map(|&argument| argument.to_owned()));
    let run = move || command::output(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    let (code, stdout, stderr) = tokio::task::spawn_blocking(run).await.unwrap();
    assert!(stdout.lines().all(|line| line.chars().count() <= 100), "wider than 100 columns:\n{stdout}");
    (code, stdout, stderr)
}

/// The one mapping, as JSON.
async fn as_json(shop: &Shop) -> Value {
    let (code, stdout, stderr) = status(shop, &["--json"]).await;
    assert_eq!(code, 0, "{stderr}");
    let mut ledger: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(ledger["version"], 1);
    ledger["mappings"][0].take()
}

/// The lines of runs: their status, and what is counted of them.
fn runs(stdout: &str) -> Vec<String> {
    let run = |line: &&str| line.starts_with("  20");
    let words = |line: &str| line.split_whitespace().skip(2).map(str::to_owned).collect::<Vec<_>>();
    let shown =
        |line: &str| words(line).into_iter().skip_while(|word| word.parse::<f64>().is_ok() || word == "s");
    stdout.lines().filter(run).map(|line| shown(line).collect::<Vec<_>>().join(" ")).collect()
}

fn docs(count: usize) -> Vec<Value> {
    (0..count)
        .map(|n| json!({ "number": format!("N{n}"), "lines": [{ "no": 1 }], "products": ["p"] }))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p29_status_tells_documents_runs_and_failures() {
    let shop = Shop::open().await;
    let nothing = "no run of any mapping is recorded in this database\n";
    assert_eq!(status(&shop, &[]).await, (0, nothing.to_owned(), String::new()));
    shop.sync(&docs(3)).await;
    shop.sync(&docs(3)).await;
    let mut more = docs(4);
    more.extend((0..15).map(|n| json!({ "number": format!("BAD{n}"), "units": "x".repeat(200) })));
    more[0]["customer"] = json!("c");
    assert_eq!(shop.run(&more).await.code, 1);
    shop.db.execute("SELECT rowdelta.unsettle(mapping, ARRAY[key]) FROM rowdelta.state LIMIT 1").await;
    let (code, stdout, _) = status(&shop, &[]).await;
    assert_eq!(code, 0);
    assert!(
        stdout.starts_with("shop: 4 documents, 1 of them to be done again; no run is at work\n"),
        "{stdout}"
    );
    // Status, read, same, new, changed, removed, failed, rows, retries.
    assert_eq!(
        runs(&stdout),
        ["failed 19 2 1 1 · 15 4 ·", "done 3 3 · · · · · ·", "done 3 · 3 · · · 10 ·"],
        "{stdout}"
    );
    assert!(stdout.contains("\n  15 failures in the newest run:\n    BAD0 ("), "{stdout}");
    assert!(stdout.ends_with("\n    and 5 more\n"), "{stdout}");
    let (_, stdout, _) = status(&shop, &["--runs", "1"]).await;
    assert_eq!(runs(&stdout).len(), 1);
    let told = as_json(&shop).await;
    assert_eq!(
        (&told["name"], &told["documents"], &told["unsettled"]),
        (&json!("shop"), &json!(4), &json!(1))
    );
    assert_eq!(told["lease"], json!({ "state": "free", "holder": null, "since": null, "until": null }));
    let counts = json!({ "read": 19, "unchanged": 2, "new": 1, "changed": 1, "removed": 0, "failed": 15, "rows_written": 4, "retries": 0 });
    assert_eq!((&told["runs"][0]["counts"], &told["runs"][0]["status"]), (&counts, &json!("failed")));
    assert!(told["runs"][0]["elapsed_ms"].is_u64() && told["runs"][0]["finished"].is_string());
    assert_eq!((&told["failed"], told["failures"].as_array().unwrap().len()), (&json!(15), 10));
    assert_eq!(told["failures"][1]["document"], "BAD1");
    assert_eq!(told["failures"][1]["line"], 6);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p29_status_tells_a_run_at_work_from_one_that_died() {
    let shop = Shop::open().await;
    shop.sync(&docs(1)).await;
    let begin = "INSERT INTO rowdelta.run (mapping) SELECT id FROM rowdelta.mapping";
    let acquire = "SELECT rowdelta.acquire(id, 'rowdelta 0.1.0 process 7', 60) FROM rowdelta.mapping";
    shop.db.execute(&format!("{acquire}; {begin}")).await;
    let (_, stdout, _) = status(&shop, &[]).await;
    assert!(
        stdout.starts_with("shop: 1 document; at work: rowdelta 0.1.0 process 7,\n  since 20"),
        "{stdout}"
    );
    assert_eq!(runs(&stdout)[0], "running");
    let told = as_json(&shop).await;
    assert_eq!(
        (&told["lease"]["state"], &told["lease"]["since"]),
        (&json!("held"), &told["runs"][0]["started"])
    );
    // Its process dies, and the lease expires.
    shop.db.execute("UPDATE rowdelta.mapping SET lease_until = clock_timestamp() - interval '1 s'").await;
    let (_, stdout, _) = status(&shop, &[]).await;
    assert!(
        stdout.contains("no run is at work:\n  the lease of rowdelta 0.1.0 process 7 expired 20"),
        "{stdout}"
    );
    assert_eq!(runs(&stdout)[0], "died");
    assert_eq!(as_json(&shop).await["lease"]["state"], "expired");
    // Another one takes over.
    shop.db.execute(&format!("{}; {begin}", acquire.replace("process 7", "process 8"))).await;
    let (_, stdout, _) = status(&shop, &[]).await;
    assert_eq!(runs(&stdout)[..2], ["running", "died"], "{stdout}");
    assert!(stdout.contains("process 8") && !stdout.contains("process 7"), "{stdout}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p29_status_of_one_mapping_by_its_name_or_its_file() {
    let shop = Shop::open().await;
    shop.sync(&docs(1)).await;
    shop.db.execute("SELECT rowdelta.register('other', '{}', '\\x00')").await;
    let first = |stdout: &str| stdout.lines().map(|line| line.split(':').next().unwrap().to_owned()).next();
    let (_, both, _) = status(&shop, &[]).await;
    assert!(both.starts_with("other: 0 documents; no run is at work\n\nshop: 1 document"), "{both}");
    let (_, by_name, _) = status(&shop, &["-m", "shop"]).await;
    let (_, by_file, _) = status(&shop, &["-m", shop.mapping.to_str().unwrap()]).await;
    assert_eq!((first(&by_name).as_deref(), &by_name), (Some("shop"), &by_file));
    let (code, _, stderr) = status(&shop, &["-m", "none"]).await;
    let said = "rowdelta: no mapping none is recorded in this database, and there is no such file; recorded are other, shop\n";
    assert_eq!((code, &*stderr), (2, said));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p29_status_without_a_ledger_exits_2() {
    let database = db().await;
    let url = database.url().to_owned();
    let run = move || (command::output(&["status", "-d", &url]), command::output(&["status"]));
    let (not_installed, unnamed) = tokio::task::spawn_blocking(run).await.unwrap();
    assert_eq!((not_installed.0, unnamed.0), (2, 2));
    assert!(
        not_installed.2.contains("no schema `rowdelta`: if it is the right one, run `rowdelta install`"),
        "{}",
        not_installed.2
    );
    assert!(unnamed.2.contains("no database is named"), "{}", unnamed.2);
}
