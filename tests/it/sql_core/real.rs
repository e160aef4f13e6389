//! Real feeds by the SQL functions: tables equal the oracle's, the rows written are the smallest edit, and the
//! command goes on where the functions stopped, and the other way round.
//!
//! They need the real data, which is no part of the repository: without it each says that it was skipped.

use std::path::Path;

use serde_json::Value;

use super::Sql;
use crate::oracle::Edits;
use crate::real_data::{Night, REAL_ALL, nights};
use crate::support::command::Ran;
use crate::support::feed;
use crate::verify::verify_at;

/// Documents of a call.
const CHUNK: usize = 500;

/// Syncs a feed by calls of some documents each, of `sync_many` or of `sync_texts`. Gives their reports as one.
async fn sync(sql: &Sql, path: &Path, as_texts: bool) -> Ran {
    let start = std::time::Instant::now();
    let mut all: Option<Ran> = None;
    for docs in feed::lines(path).chunks(CHUNK) {
        let ran = if as_texts { sql.texts(docs).await } else { sql.many(docs).await };
        assert_eq!(ran.report["status"], "done", "{:#}", ran.report);
        match &mut all {
            None => all = Some(ran),
            Some(all) => add(&mut all.report, &ran.report),
        }
    }
    println!(
        "{}: {:.2} s by SQL, as {}",
        path.file_name().unwrap().to_string_lossy(),
        start.elapsed().as_secs_f64(),
        if as_texts { "texts" } else { "one array" }
    );
    all.expect("a feed has documents")
}

/// Adds the counts of a report to another's.
fn add(all: &mut Value, more: &Value) {
    for part in ["documents", "relations"] {
        add_numbers(&mut all[part], &more[part]);
    }
}

fn add_numbers(all: &mut Value, more: &Value) {
    match all {
        Value::Number(count) => *all = (count.as_u64().unwrap() + more.as_u64().unwrap()).into(),
        Value::Object(members) => members.iter_mut().for_each(|(name, one)| add_numbers(one, &more[name])),
        Value::Array(list) => {
            list.iter_mut().zip(more.as_array().unwrap()).for_each(|(one, more)| add_numbers(one, more))
        }
        _ => {}
    }
}

/// One night by the functions, compared with the oracle.
async fn night_by_sql(night: &Night, sql: &Sql, path: &Path) -> Ran {
    night.state.feed(&feed::lines(path)).await.unwrap();
    let ran = sync(sql, path, false).await;
    night.check(path, &ran).await;
    ran
}

async fn again_by_sql(night: &Night, sql: &Sql, path: &Path) {
    // As texts they are learnt first, and then known.
    for as_texts in [false, true, true] {
        let ran = sync(sql, path, as_texts).await;
        assert_eq!(night.writes.take().await.unwrap(), Edits::new(), "{}", path.display());
        assert_eq!(
            (ran.rows_written(), ran.documents("unchanged")),
            (0, ran.documents("read")),
            "{:#}",
            ran.report
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p01_p02_all_real_calls_by_sql_equal_the_oracle_and_the_second_time_write_nothing() {
    let Some(path) = feed::real(REAL_ALL) else { return };
    let night = Night::of("convocatorias").await;
    let sql = Sql::with_file(&night.db, &night.mapping).await;
    let ran = night_by_sql(&night, &sql, &path).await;
    assert_eq!((ran.documents("read"), ran.documents("new")), (8776, 8776));
    again_by_sql(&night, &sql, &path).await;
    assert_eq!(sql.call("SELECT count(*)::text FROM rowdelta.verify($1)", &[&sql.name]).await.unwrap(), "0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p33_p36_the_command_finds_nothing_to_do_or_to_mend_in_what_sql_stored() {
    let Some(path) = feed::real(REAL_ALL) else { return };
    let night = Night::of("convocatorias").await;
    let sql = Sql::with_file(&night.db, &night.mapping).await;
    sync(&sql, &path, true).await;
    night.writes.take().await.unwrap();
    let with_feed = [path.to_str().unwrap()];
    for arguments in [&[][..], &with_feed] {
        let found = verify_at(night.db.url(), &night.mapping, arguments).await.finds_nothing();
        assert_eq!(found.count("/documents/equal"), 8776);
    }
    let ran = night.sync_nothing(&path).await;
    assert_eq!(ran.documents("unchanged"), 8776);
    again_by_sql(&night, &sql, &path).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p33_sql_finds_nothing_to_do_in_what_the_command_stored() {
    let Some(path) = feed::real(REAL_ALL) else { return };
    let night = Night::of("convocatorias").await;
    night.fill(&path).await;
    let sql = Sql::with_file(&night.db, &night.mapping).await;
    assert_eq!(sql.call("SELECT count(*)::text FROM rowdelta.verify($1)", &[&sql.name]).await.unwrap(), "0");
    again_by_sql(&night, &sql, &path).await;
    night.sync_nothing(&path).await;
}

/// Each night is synced by the one, then again by the other.
async fn turn_about(example: &str, nights: &[std::path::PathBuf]) {
    let night = Night::of(example).await;
    let sql = Sql::with_file(&night.db, &night.mapping).await;
    for (at, path) in nights.iter().enumerate() {
        if at % 2 == 0 {
            night.sync(path).await;
            again_by_sql(&night, &sql, path).await;
        } else {
            night_by_sql(&night, &sql, path).await;
            night.sync_nothing(path).await;
        }
    }
    assert_eq!(sql.call("SELECT count(*)::text FROM rowdelta.verify($1)", &[&sql.name]).await.unwrap(), "0");
    verify_at(night.db.url(), &night.mapping, &[]).await.finds_nothing();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p02_p13_two_nights_of_real_calls_by_the_command_and_by_sql() {
    let Some(nights) = nights("bdns/nights") else { return };
    turn_about("convocatorias", &nights).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p02_p17_five_nights_of_real_calls_by_the_command_and_by_sql_turn_about() {
    let Some(nights) = nights("bdns/replay") else { return };
    turn_about("convocatorias", &nights).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p02_ten_snapshots_of_lists_three_deep_by_the_command_and_by_sql_turn_about() {
    let Some(nights) = nights("dotnet-releases") else { return };
    turn_about("dotnet_releases", &nights).await;
}
