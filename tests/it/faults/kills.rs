//! `kill -9` of the command and of the server.

use std::time::Duration;

use super::Histogram;
use super::proxy::{Fault, Phase};
use super::site::{Running, Site, Way};

/// What is killed when, one after the other.
const MOMENTS: [(Phase, Fault); 6] = [
    (Phase::Writing, Fault::Hold),
    (Phase::Between, Fault::Hold),
    (Phase::Committing, Fault::HoldNext),
    (Phase::Looking, Fault::Hold),
    (Phase::Writing, Fault::Hold),
    (Phase::Committing, Fault::Hold),
];

/// Kills the command so many times. `None`: there is no pooler.
pub async fn kill_clients(seed: u64, kills: usize, way: Way) -> Option<Histogram> {
    let mut site = Site::open(seed, way).await?;
    let mut histogram = Histogram::default();
    let mut moments = MOMENTS.iter().cycle();
    while histogram.total() < kills {
        let &(phase, fault) = moments.next()?;
        let (running, is_held) = held(&mut site, phase, fault).await;
        if is_held {
            running.signal("KILL");
        }
        let ran = running.ended().await;
        // Outside a transaction it may have been the goodbye of a connection, for which nobody waits.
        let has_ended = !is_held || (phase == Phase::Between && ran.code == 0);
        assert_eq!(ran.code, if has_ended { 0 } else { -1 }, "{}", ran.stderr);
        histogram.add(site.proxy.hit());
        site.bury().await;
        site.ends_well().await;
    }
    Some(histogram)
}

/// The command at work on another night, held at a moment; false: it ended before that.
async fn held(site: &mut Site, phase: Phase, fault: Fault) -> (Running, bool) {
    site.dawn().await;
    let trap = site.trap(phase, fault);
    site.proxy.set(vec![trap]);
    let mut running = site.start(&[]);
    let is_held = tokio::select! {
        () = site.proxy.sprung() => true,
        () = until_ended(&mut running) => false,
    };
    (running, is_held)
}

async fn until_ended(running: &mut Running) {
    while !running.has_ended() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Kills the server so many times, each time at work for a run that survives it. `None`: there is no pooler.
pub async fn kill_servers(seed: u64, kills: usize, way: Way) -> Option<Histogram> {
    let mut site = Site::durable(seed, way).await?;
    let (mut histogram, mut retries) = (Histogram::default(), 0);
    let mut moments = MOMENTS.iter().cycle();
    while histogram.total() < kills {
        let &(phase, fault) = moments.next()?;
        let (running, is_held) = held(&mut site, phase, fault).await;
        if is_held {
            site.shop.db.kill();
            site.shop.restart().await;
            // A pooler keeps a client that is in no transaction.
            site.proxy.release();
        }
        let ran = running.ended().await.succeeded();
        // What was held was in a transaction that did not end; a COMMIT that arrived may have been answered.
        let is_lost = is_held && phase != Phase::Between && fault == Fault::Hold;
        let retried = ran.report["retries"].as_u64().unwrap();
        assert!(!is_lost || retried > 0, "{:#}", ran.report);
        retries += retried;
        histogram.add(site.proxy.hit());
        site.is_as_it_should_be().await;
        site.ends_well().await;
    }
    println!("{retries} retries in the reports");
    Some(histogram)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p26_after_20_kills_of_the_command_the_next_run_ends_as_if_nothing_had_happened() {
    kill_clients(1, 20, Way::Direct).await.unwrap().check("kills of the command");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p26_p30_after_10_kills_of_the_command_behind_a_pooler_the_next_run_ends_as_if_nothing_had_happened()
{
    let Some(histogram) = kill_clients(2, 10, Way::Pooled).await else { return };
    histogram.check("kills of the command behind a pooler");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p24_p26_after_10_kills_between_relations_the_next_run_ends_as_if_nothing_had_happened() {
    let histogram = kill_clients(9, 10, Way::ByRelation).await.unwrap();
    histogram.check("kills of the command, relation by relation");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p26_p27_a_run_survives_5_kills_of_the_server() {
    kill_servers(3, 5, Way::Direct).await.unwrap().check("kills of the server");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p26_p27_p30_a_run_survives_5_kills_of_the_server_behind_a_pooler() {
    let Some(histogram) = kill_servers(4, 5, Way::Pooled).await else { return };
    histogram.check("kills of the server behind a pooler");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p27_a_run_survives_a_server_that_is_away_for_five_seconds() {
    let mut site = Site::durable(7, Way::Direct).await.unwrap();
    site.dawn().await;
    let trap = site.trap(Phase::Writing, Fault::Hold);
    site.proxy.set(vec![trap]);
    let running = site.start(&[]);
    site.proxy.sprung().await;
    site.shop.db.kill();
    tokio::time::sleep(Duration::from_secs(5)).await;
    site.shop.restart().await;
    let ran = running.ended().await.succeeded();
    println!("{} retries", ran.report["retries"]);
    assert!(ran.report["retries"].as_u64().unwrap() > 0);
    site.is_as_it_should_be().await;
    site.ends_well().await;
}
