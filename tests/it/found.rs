//! P04, P20, P21, P22, P40: schemas as they are found. Cases are in `found/*.toml`, one file an area.
//!
//! A case has a `name`; `requires`, the least major version of PostgreSQL; `needs`, extensions that must be available;
//! `tables`, SQL; `role`, SQL that gives privileges to `$role`, by which the feeds are synced then (`$database` and
//! `$socket` stand for the server's, here and in `tables`); `mapping`, or the name of one in the file's `[mappings]`. Then
//!
//! - either `refused`: parts of the message with which the mapping is refused; nothing is written;
//! - or nights: `before`, SQL; the `feed`; what the report says it `wrote`, by relation; `fails`, a document and a part of
//!   why; and what the query `check` `holds` afterwards.
//!
//! What was written is compared with the versions of the rows as well. After every night the same feed writes no row version at
//! all, and after the last one, unless documents failed, neither does a sync that has forgotten what it stored; `verify`
//! finds nothing, with the feed and without it.
//!
//! `ROWDELTA_FOUND=partition` plays the cases with that text in their name.

mod beyond;
mod case;
mod play;

use case::Case;

/// Cases played at once.
const LANES: usize = 2;

#[tokio::test(flavor = "multi_thread")]
async fn p04_p20_ids_are_drawn_given_or_left_out() {
    play("ids").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p20_p22_tables_of_every_kind_are_synced_or_refused() {
    play("tables").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p20_p22_keys_constraints_and_catalogues_are_taken_as_they_are() {
    play("keys").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p20_p40_roles_need_no_more_privileges_than_documented() {
    play("roles").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p20_p22_publications_that_forbid_updates_are_found_before_the_first_write() {
    play("publications").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p21_triggers_fire_for_rows_that_changed() {
    play("triggers").await;
}

/// Plays the cases of a file.
async fn play(area: &str) {
    let filter = std::env::var("ROWDELTA_FOUND").unwrap_or_default();
    let cases = case::read(area).into_iter().filter(|case| case.name.contains(&filter));
    let played: Vec<(String, Vec<String>)> = {
        use futures_util::StreamExt;
        futures_util::stream::iter(cases.map(one)).buffered(LANES).collect().await
    };
    let failed: Vec<&(String, Vec<String>)> =
        played.iter().filter(|(_, faults)| !faults.is_empty()).collect();
    let words = failed.iter().map(|(name, faults)| format!("{area}: {name}\n  {}", faults.join("\n  ")));
    assert!(
        failed.is_empty(),
        "{} of {} cases:\n{}",
        failed.len(),
        played.len(),
        words.collect::<Vec<_>>().join("\n")
    );
}

async fn one(case: Case) -> (String, Vec<String>) {
    let name = case.name.clone();
    // The command is waited for on its thread.
    let played = tokio::spawn(async move { play::play(&case).await });
    let faults = played.await.unwrap_or_else(|panic| vec![panic.to_string()]);
    (name, faults)
}
