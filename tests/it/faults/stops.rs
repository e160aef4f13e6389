//! Signals to stop.

use std::time::Duration;

use super::proxy::{Fault, Phase};
use super::site::{Site, Way};

async fn stops(seed: u64, signal: &str, code: i32, way: Way) {
    let Some(mut site) = Site::open(seed, way).await else { return };
    for phase in [Phase::Looking, Phase::Writing, Phase::Committing] {
        site.dawn().await;
        let trap = site.early_trap(phase, Fault::Tell);
        // The first trap of a message counts.
        site.proxy.set([vec![trap], site.slow()].concat());
        let run = site.start(&[]);
        site.proxy.sprung().await;
        run.signal(signal);
        let ran = run.ended().await;
        assert_eq!((ran.code, ran.report["status"].as_str()), (code, Some("aborted")), "{}", ran.stderr);
        let done = ran.documents("changed") + ran.documents("new");
        println!("{signal}: {done} documents written, {} of {} read", ran.documents("read"), site.docs.len());
        assert_eq!(ran.documents("failed"), 0, "{:#}", ran.report);
        // Neither the lease is left, nor an open entry of the ledger.
        let left = "SELECT (SELECT count(*) FROM rowdelta.mapping WHERE lease_token IS NOT NULL)
                         + (SELECT count(*) FROM rowdelta.run WHERE status = 'running')";
        assert_eq!(site.shop.db.value(left).await, "0");
        site.ends_well().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p39_after_sigint_a_run_reports_and_the_next_one_finishes() {
    stops(31, "INT", 130, Way::Direct).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p30_p39_after_sigterm_a_run_behind_a_pooler_reports_and_the_next_one_finishes() {
    stops(32, "TERM", 143, Way::Pooled).await;
}

/// The server is gone: nothing in hand can be finished, and nobody waits for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p27_p39_a_signal_ends_a_run_that_tries_again() {
    let mut site = Site::durable(33, Way::Direct).await.unwrap();
    site.dawn().await;
    let trap = site.early_trap(Phase::Writing, Fault::Tell);
    site.proxy.set(vec![trap]);
    let run = site.start(&["--retries", "1000000"]);
    site.proxy.sprung().await;
    site.shop.db.kill();
    tokio::time::sleep(Duration::from_millis(300)).await;
    run.signal("TERM");
    let ran = run.ended().await;
    assert_eq!((ran.code, ran.report["status"].as_str()), (143, Some("aborted")), "{}", ran.stderr);
    site.shop.restart().await;
    site.bury().await;
    site.ends_well().await;
}

/// Another run has the lease: one that waits for it stops waiting.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p39_a_signal_ends_a_run_that_waits_for_another_one() {
    let site = Site::open(34, Way::Direct).await.unwrap();
    site.shop
        .db
        .execute("UPDATE rowdelta.mapping SET lease_token = gen_random_uuid(), lease_until = 'infinity'")
        .await;
    site.proxy.set(Vec::new());
    let run = site.start(&["--wait", "3600"]);
    let asks = "SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid() AND query LIKE '%rowdelta.acquire%'";
    while site.shop.db.value(asks).await == "0" {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    run.signal("INT");
    assert_eq!(run.ended().await.code, 130);
    site.bury().await;
    site.ends_well().await;
}
