//! What others do meanwhile: end sessions, hold rows, write in another order, raise errors.

use std::time::Duration;

use super::site::{Site, Way};
use crate::support::command::Ran;

/// Nights of each test: as many as it takes for the trouble to be met, and no fewer than three.
struct Nights(usize);

impl Nights {
    fn go_on(&mut self, met: bool) -> bool {
        self.0 += 1;
        assert!(met || self.0 <= 20, "no trouble in {} nights", self.0 - 1);
        !met || self.0 <= 3
    }
}

/// A night with trouble that goes on to the end of the run.
async fn night(site: &Site, trouble: impl Future<Output = ()>, more: &[&str]) -> Ran {
    let endless = async {
        trouble.await;
        std::future::pending().await
    };
    tokio::select! {
        ran = site.run(more) => ran,
        never = endless => never,
    }
}

/// Some documents may have failed, but none for good.
#[track_caller]
fn can_be_retried(ran: &Ran) {
    let failures = ran.report["failures"].as_array().unwrap_or_else(|| panic!("no report\n{}", ran.stderr));
    assert!(failures.iter().all(|failure| failure["retryable"] == true), "{failures:#?}");
    assert_eq!(ran.code, if failures.is_empty() { 0 } else { 6 }, "{}", ran.stderr);
}

async fn sessions_end(seed: u64, way: Way) {
    let Some(mut site) = Site::open(seed, way).await else { return };
    let mut rng = site.rng.fork();
    let (mut retries, mut nights) = (0, Nights(0));
    while nights.go_on(retries > 0) {
        site.dawn().await;
        site.proxy.set(site.slow());
        let trouble = async {
            let mut ended = 0;
            // No more than one and the same transaction would be tried again.
            while ended < 4 {
                tokio::time::sleep(Duration::from_millis(rng.u64(2..20))).await;
                let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                           WHERE datname = current_database() AND application_name = 'rowdelta'
                             AND (state = 'idle in transaction' OR backend_xid IS NOT NULL) ORDER BY random() LIMIT 1";
                ended += site.shop.db.table(end).await.len();
            }
        };
        let ran = night(&site, trouble, &[]).await.succeeded();
        retries += ran.report["retries"].as_u64().unwrap();
        site.is_as_it_should_be().await;
        site.ends_well().await;
    }
    println!("{retries} retries");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p27_sessions_that_are_terminated_cost_retries_and_nothing_else() {
    sessions_end(11, Way::Direct).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p27_p30_sessions_that_are_terminated_behind_a_pooler_cost_retries_and_nothing_else() {
    sessions_end(12, Way::Pooled).await;
}

async fn rows_are_held(seed: u64, way: Way) {
    let Some(mut site) = Site::open(seed, way).await else { return };
    let mut rng = site.rng.fork();
    let (mut retries, mut failed, mut nights) = (0, 0, Nights(0));
    while nights.go_on(retries > 0) {
        site.dawn().await;
        let holder = site.shop.db.client().await;
        let trouble = async {
            loop {
                let some: Vec<String> =
                    (0..3).map(|_| format!("'N{:05}'", rng.usize(..site.docs.len()))).collect();
                let hold =
                    format!("BEGIN; SELECT FROM orders WHERE number IN ({}) FOR UPDATE", some.join(", "));
                holder.batch_execute(&hold).await.unwrap();
                tokio::time::sleep(Duration::from_millis(rng.u64(20..150))).await;
                holder.batch_execute("ROLLBACK").await.unwrap();
            }
        };
        let ran = night(&site, trouble, &["--lock-timeout", "30", "--retries", "2"]).await;
        can_be_retried(&ran);
        retries += ran.report["retries"].as_u64().unwrap();
        failed += ran.documents("failed");
        let _ = holder.batch_execute("ROLLBACK").await;
        site.ends_well().await;
    }
    println!("{retries} retries, {failed} documents failed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p25_p27_rows_that_others_hold_fail_their_documents_at_most_until_the_next_run() {
    rows_are_held(13, Way::Direct).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p25_p27_p30_rows_that_others_hold_behind_a_pooler_fail_their_documents_at_most_until_the_next_run() {
    rows_are_held(16, Way::Pooled).await;
}

/// Waits until a session of the command waits for a lock. False: none does for a while.
async fn one_waits(site: &Site) -> bool {
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
                   AND application_name = 'rowdelta' AND wait_event_type = 'Lock'";
    for _ in 0..20 {
        if site.shop.db.value(waiting).await != "0" {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    false
}

/// Of two that wait for each other the server ends the one that first looks for the circle: ours. It looks once, so
/// the circle must be closed by then.
async fn deadlocks(seed: u64, way: Way) {
    let Some(mut site) = Site::open(seed, way).await else { return };
    let name = site.shop.db.value("SELECT current_database()").await;
    site.shop.db.execute(&format!("ALTER DATABASE {name} SET deadlock_timeout = '500ms'")).await;
    let mut rng = site.rng.fork();
    let (mut retries, mut deadlocks, mut nights) = (0, 0, Nights(0));
    while nights.go_on(deadlocks > 0) {
        site.dawn().await;
        let foreign = site.shop.db.client().await;
        foreign.batch_execute("SET deadlock_timeout = '10s'").await.unwrap();
        let write = |n: usize| format!("UPDATE orders SET summary = 'theirs' WHERE number = 'N{n:05}'");
        let trouble = async {
            loop {
                let high = rng.usize(12..site.docs.len());
                foreign.batch_execute(&format!("BEGIN; {}", write(high))).await.unwrap();
                if one_waits(&site).await {
                    for n in (high - 12..high).rev() {
                        foreign.batch_execute(&write(n)).await.unwrap();
                    }
                }
                foreign.batch_execute("COMMIT").await.unwrap();
            }
        };
        let ran = night(&site, trouble, &["--retries", "20"]).await.succeeded();
        retries += ran.report["retries"].as_u64().unwrap();
        drop(foreign);
        site.is_as_it_should_be().await;
        site.shop.written().await;
        site.ends_well().await;
        let seen = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
        deadlocks = site.shop.db.value(seen).await.parse().unwrap();
    }
    println!("{deadlocks} deadlocks, {retries} retries");
    assert!(retries > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p27_p28_deadlocks_with_others_cost_retries_and_nothing_else() {
    deadlocks(14, Way::Direct).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p27_p28_p30_deadlocks_with_others_behind_a_pooler_cost_retries_and_nothing_else() {
    deadlocks(17, Way::Pooled).await;
}

/// A deferred trigger speaks up at COMMIT: now and then for a reason that passes, more seldom for one that stays.
async fn a_trigger_raises(seed: u64, way: Way) {
    let Some(mut site) = Site::open(seed, way).await else { return };
    site.shop
        .db
        .execute(
            "CREATE FUNCTION moody() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 IF random() < 0.005 THEN RAISE EXCEPTION 'not now' USING ERRCODE = '40001'; END IF;
                 IF random() < 0.02 THEN RAISE EXCEPTION 'not at all' USING ERRCODE = '23514'; END IF;
                 RETURN NULL;
             END $$",
        )
        .await;
    let (mut retries, mut failed, mut nights) = (0, 0, Nights(0));
    while nights.go_on(retries > 0) {
        site.dawn().await;
        let trigger = "CREATE CONSTRAINT TRIGGER moody AFTER INSERT OR UPDATE OR DELETE ON line
                       DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION moody()";
        site.shop.db.execute(trigger).await;
        let ran = site.run(&[]).await;
        assert!([0, 1, 6].contains(&ran.code), "{}", ran.stderr);
        for failure in ran.report["failures"].as_array().unwrap() {
            assert_eq!(failure["retryable"], failure["sqlstate"] == "40001", "{failure:#}");
        }
        retries += ran.report["retries"].as_u64().unwrap();
        failed += ran.documents("failed");
        site.shop.db.execute("DROP TRIGGER moody ON line").await;
        site.ends_well().await;
    }
    println!("{retries} retries, {failed} documents failed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p25_p26_a_trigger_that_raises_now_and_then_fails_documents_at_most_until_the_next_run() {
    a_trigger_raises(15, Way::Direct).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p25_p26_p30_a_trigger_that_raises_behind_a_pooler_fails_documents_at_most_until_the_next_run() {
    a_trigger_raises(18, Way::Pooled).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p24_p26_a_trigger_that_raises_between_relations_fails_documents_at_most_until_the_next_run() {
    a_trigger_raises(19, Way::ByRelation).await;
}
