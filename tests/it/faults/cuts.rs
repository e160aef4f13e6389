//! Connections that break, at any moment and in any way.

use std::time::Duration;

use super::Histogram;
use super::proxy::{Fault, Phase};
use super::site::{Site, Way};

/// Cuts so many connections of runs that survive it. `None`: there is no pooler.
pub async fn cut(seed: u64, cuts: usize, way: Way) -> Option<Histogram> {
    let mut site = Site::open(seed, way).await?;
    let mut histogram = Histogram::default();
    let mut retries = 0;
    while histogram.total() < cuts {
        site.dawn().await;
        let phase = [Phase::Between, Phase::Looking, Phase::Writing][site.rng.usize(..3)];
        let traps = vec![
            site.byte(),
            site.byte(),
            site.trap(Phase::Writing, Fault::Cut),
            site.trap(phase, Fault::HalfClose),
            site.trap(Phase::Committing, Fault::CutAnswer),
            site.trap(Phase::Looking, Fault::Delay(Duration::from_millis(20))),
        ];
        site.proxy.set(traps);
        let ran = site.run(&[]).await;
        let hit = site.proxy.hit();
        assert_eq!(ran.code, 0, "{hit:?} {:#}\n{}", ran.report, ran.stderr);
        let retried = ran.report["retries"].as_u64().unwrap();
        retries += retried;
        // A connection that nobody used costs none.
        assert!(retried > 0 || !hit.contains(&Phase::Committing), "{hit:?} {:#}", ran.report);
        histogram.add(hit);
        site.is_as_it_should_be().await;
        site.ends_well().await;
    }
    println!("{retries} retries in the reports");
    Some(histogram)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p27_50_cut_connections_cost_retries_and_nothing_else() {
    cut(5, 50, Way::Direct).await.unwrap().check("cut connections");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p27_p30_25_cut_connections_to_a_pooler_cost_retries_and_nothing_else() {
    let Some(histogram) = cut(6, 25, Way::Pooled).await else { return };
    histogram.check("cut connections to a pooler");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p24_p27_25_cut_connections_between_relations_cost_retries_and_nothing_else() {
    cut(10, 25, Way::ByRelation).await.unwrap().check("cut connections, relation by relation");
}

/// The server commits, and the answer is lost: the next look-up finds the documents as they should be.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p27_a_commit_whose_answer_is_lost_is_not_applied_twice() {
    let mut site = Site::open(8, Way::Direct).await.unwrap();
    for _ in 0..4 {
        site.dawn().await;
        let trap = site.trap(Phase::Committing, Fault::CutAnswer);
        site.proxy.set(vec![trap]);
        site.shop.written().await;
        let ran = site.run(&[]).await.succeeded();
        assert_eq!(site.proxy.hit(), [Phase::Committing]);
        assert!(ran.report["retries"].as_u64().unwrap() > 0, "{:#}", ran.report);
        site.is_as_it_should_be().await;
        assert_eq!(site.shop.written().await, site.shop.state.smallest_edit().await.unwrap());
        site.ends_well().await;
    }
}
