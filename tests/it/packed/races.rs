//! Sessions side by side.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use tokio_postgres::Client;

use super::{Bed, merge_sql, record};
use crate::support::database::rows;
use crate::support::layout::BROKEN;

/// The SQLSTATE with which statements fail, if they do.
async fn code(client: &Client, sql: &str) -> Option<String> {
    let error = client.batch_execute(sql).await.err()?;
    Some(error.code().unwrap_or_else(|| panic!("{error}")).code().to_owned())
}

/// Does something in a session of its own, which has to wait for another one's lock.
async fn waits(bed: &Bed, sql: String) -> JoinHandle<Option<String>> {
    let client = bed.db.client().await;
    let pid = rows(&client, "SELECT pg_backend_pid()").await.unwrap()[0][0].clone().unwrap();
    let task = tokio::spawn(async move { code(&client, &sql).await });
    let waiting =
        format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid} AND wait_event_type = 'Lock'");
    while bed.db.value(&waiting).await != "1" {
        assert!(!task.is_finished(), "it did not wait");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    task
}

async fn packed() -> Bed {
    let bed = Bed::open().await;
    bed.db.execute(&record(&bed.mapping, &[(1, None, 0x10), (2, None, 0x10)], true)).await;
    bed.merge().await;
    bed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p29_of_two_that_first_touch_a_packed_document_the_second_waits_and_fails() {
    let bed = packed().await;
    let id = &bed.mapping;
    for (end, expected) in [("ROLLBACK", None), ("COMMIT", Some("RD003".to_owned()))] {
        let first = bed.db.client().await;
        first.batch_execute("BEGIN").await.unwrap();
        first.batch_execute(&record(id, &[(1, Some(0x10), 0x11)], true)).await.unwrap();
        let second = waits(&bed, record(id, &[(1, Some(0x10), 0x12)], true)).await;
        first.batch_execute(end).await.unwrap();
        assert_eq!(second.await.unwrap(), expected, "after {end}");
        bed.db.execute("TRUNCATE rowdelta.document").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p29_of_two_that_record_a_new_document_the_second_waits_and_fails() {
    let bed = packed().await;
    let first = bed.db.client().await;
    first.batch_execute("BEGIN").await.unwrap();
    first.batch_execute(&record(&bed.mapping, &[(3, None, 0x11)], true)).await.unwrap();
    let second = waits(&bed, record(&bed.mapping, &[(3, None, 0x12)], true)).await;
    first.batch_execute("COMMIT").await.unwrap();
    assert_eq!(second.await.unwrap(), Some("RD003".into()));
}

/// What has to be done again must not be lost because somebody else was the first to touch a packed document.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p29_a_document_that_is_recorded_and_unsettled_at_once_is_unsettled() {
    let bed = packed().await;
    let id = &bed.mapping;
    let calls = [
        ("unsettle", "SELECT fingerprint IS NULL AND NOT settled FROM rowdelta.state WHERE key = '\\x01'"),
        ("forget", "SELECT count(*) = 0 FROM rowdelta.state WHERE key = '\\x01'"),
        ("absent", "SELECT absent AND NOT settled AND raw IS NULL FROM rowdelta.state WHERE key = '\\x01'"),
    ];
    for (call, holds) in calls {
        let first = bed.db.client().await;
        first.batch_execute("BEGIN").await.unwrap();
        first.batch_execute(&record(id, &[(1, Some(0x10), 0x11)], true)).await.unwrap();
        let second = waits(&bed, format!("SELECT rowdelta.{call}({id}, ARRAY['\\x01']::bytea[])")).await;
        first.batch_execute("COMMIT").await.unwrap();
        assert_eq!(second.await.unwrap(), None);
        assert_eq!(bed.db.value(holds).await, "t", "{call}");
        bed.db.execute("TRUNCATE rowdelta.document").await;
    }
}

/// The packed entry of a forgotten document must not be there again because the document was recorded meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p29_a_document_that_is_recorded_while_it_is_forgotten_once_more_is_as_it_was_recorded() {
    let bed = packed().await;
    let id = &bed.mapping;
    bed.db.execute(&format!("SELECT rowdelta.forget({id}, ARRAY['\\x01']::bytea[])")).await;
    // It waits for the second, having seen that the first is gone.
    bed.db.execute(&record(id, &[(2, Some(0x10), 0x11)], true)).await;
    let first = bed.db.client().await;
    let lock = "BEGIN; SELECT FROM rowdelta.document WHERE key = '\\x02' FOR UPDATE";
    first.batch_execute(lock).await.unwrap();
    let second = waits(&bed, format!("SELECT rowdelta.forget({id}, ARRAY['\\x01', '\\x02']::bytea[])")).await;
    bed.db.execute(&record(id, &[(1, None, 0x12)], true)).await;
    first.batch_execute("COMMIT").await.unwrap();
    assert_eq!(second.await.unwrap(), None);
    let state = "SELECT key, fingerprint FROM rowdelta.state";
    assert_eq!(bed.db.table(state).await, [[Some("\\x01".to_owned()), Some("\\x12".to_owned())]]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_merge_waits_for_nobody_and_nobody_is_disturbed_by_one() {
    let bed = packed().await;
    let id = &bed.mapping;
    let writer = bed.db.client().await;
    writer.batch_execute("BEGIN").await.unwrap();
    writer.batch_execute(&record(id, &[(1, Some(0x10), 0x11)], true)).await.unwrap();
    bed.db.execute(&record(id, &[(2, Some(0x10), 0x11)], true)).await;
    bed.merge().await;
    assert_eq!(bed.counts().await, "1 recent, 2 packed", "a writer was at work");
    writer.batch_execute("COMMIT").await.unwrap();

    // Between look and record all is merged: what was read still stands.
    writer.batch_execute("BEGIN").await.unwrap();
    let read = format!("SELECT fingerprint FROM rowdelta.states({id}, ARRAY['\\x01']::bytea[])");
    assert_eq!(rows(&writer, &read).await.unwrap()[0][0].as_deref(), Some("\\x11"));
    bed.merge().await;
    assert_eq!(bed.counts().await, "0 recent, 2 packed");
    writer.batch_execute(&record(id, &[(1, Some(0x11), 0x12)], true)).await.unwrap();
    writer.batch_execute("COMMIT").await.unwrap();

    // Who comes while a merge is at work waits, and sees what it left.
    let merger = bed.db.client().await;
    merger.batch_execute("BEGIN; SET rowdelta.merge_share = 0").await.unwrap();
    rows(&merger, &format!("SELECT rowdelta.merge({id}, '')")).await.unwrap();
    let late = waits(&bed, record(id, &[(1, Some(0x12), 0x13)], true)).await;
    merger.batch_execute("COMMIT").await.unwrap();
    assert_eq!(late.await.unwrap(), None);
    let state = "SELECT fingerprint FROM rowdelta.state WHERE key = '\\x01'";
    assert_eq!(bed.db.value(state).await, "\\x13");
    assert_eq!(bed.db.table(BROKEN).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_recorded_changes_in_read_committed_transactions_only() {
    let bed = packed().await;
    let id = &bed.mapping;
    for isolation in ["REPEATABLE READ", "SERIALIZABLE"] {
        for call in [
            record(id, &[(1, Some(0x10), 0x11)], true),
            format!("SELECT rowdelta.unsettle({id}, ARRAY['\\x01']::bytea[])"),
            format!("SELECT rowdelta.unsettle_all({id})"),
            format!("SELECT rowdelta.merge({id}, '')"),
            format!("SELECT rowdelta.renew_spellings({id}, '{{}}', '{{}}', '{{}}')"),
        ] {
            let client = bed.db.client().await;
            client.batch_execute(&format!("BEGIN ISOLATION LEVEL {isolation}")).await.unwrap();
            assert_eq!(code(&client, &call).await.as_deref(), Some("RD004"), "{call}");
            client.batch_execute("ROLLBACK").await.unwrap();
        }
    }
}

const KEYS: u8 = 5;

/// What sessions share.
#[derive(Default)]
struct Shared {
    /// The last fingerprint that was made.
    tokens: AtomicU32,
    /// How often another spelling was recorded in the base.
    renewed: AtomicU32,
    is_over: AtomicBool,
}

/// What a session does to documents until it is told to stop: looks, and records new fingerprints. Gives what it
/// replaced: (document, the fingerprint that it read), each time that it succeeded; and how often it did not.
async fn works(client: Client, mapping: String, shared: Arc<Shared>) -> (Vec<(u8, String)>, u32) {
    let mut rng = fastrand::Rng::new();
    let (mut replaced, mut refused) = (Vec::new(), 0);
    while !shared.is_over.load(Ordering::Relaxed) {
        // In which nobody may hold the base lock.
        tokio::time::sleep(Duration::from_micros(rng.u64(..10_000))).await;
        client.batch_execute("BEGIN; SET LOCAL lock_timeout = 5000").await.unwrap();
        let mut keys: Vec<u8> = (1..=KEYS).filter(|_| rng.u8(..3) == 0).collect();
        if keys.is_empty() {
            keys.push(rng.u8(1..=KEYS));
        }
        let list = keys.iter().map(|key| format!("'\\x{key:02x}'")).collect::<Vec<_>>().join(", ");
        let list = format!("ARRAY[{list}]::bytea[]");
        if rng.u8(..8) == 0 {
            let call = ["unsettle", "forget"][rng.usize(..2)];
            match code(&client, &format!("SELECT rowdelta.{call}({mapping}, {list}); COMMIT"))
                .await
                .as_deref()
            {
                None => {}
                Some("40P01") => client.batch_execute("ROLLBACK").await.unwrap(),
                Some(code) => panic!("{code}: {call}"),
            }
            continue;
        }
        let read = format!("SELECT key, fingerprint FROM rowdelta.states({mapping}, {list})");
        let read: HashMap<String, Option<String>> = rows(&client, &read)
            .await
            .unwrap()
            .into_iter()
            .map(|mut row| (row[0].take().unwrap(), row[1].take()))
            .collect();
        tokio::time::sleep(Duration::from_micros(rng.u64(..2000))).await;
        let mut columns: [Vec<String>; 4] = Default::default();
        let mut taken = Vec::new();
        for &key in &keys {
            let before = read.get(&format!("\\x{key:02x}"));
            let expected = before.cloned().flatten();
            columns[0].push(format!("'\\x{key:02x}'"));
            columns[1].push(before.is_none().to_string());
            columns[2].push(expected.as_ref().map_or("NULL".into(), |before| format!("'{before}'")));
            columns[3].push(format!("'\\x{:032x}'", shared.tokens.fetch_add(1, Ordering::Relaxed)));
            taken.extend(expected.map(|expected| (key, expected)));
        }
        let [keys, new, expected, tokens] = columns.map(|column| format!("ARRAY[{}]", column.join(", ")));
        let sql = format!(
            "SELECT rowdelta.record({mapping}, {keys}::bytea[], {new}, {expected}::bytea[], {tokens}::bytea[], {tokens}::bytea[],
                 {tokens}::bytea[], array_fill(true, ARRAY[cardinality({new})]), {keys}::bytea[])"
        );
        match code(&client, &sql).await.as_deref() {
            None => {
                client.batch_execute("COMMIT").await.unwrap();
                replaced.append(&mut taken);
            }
            Some("RD003" | "40P01") => {
                client.batch_execute("ROLLBACK").await.unwrap();
                refused += 1;
            }
            Some(code) => panic!("{code}: {sql}"),
        }
    }
    (replaced, refused)
}

/// The other spelling of a document.
const SPELLED: &str = "substr(sha256(fingerprint), 1, 16)";

/// Records another spelling of one document after the other, as they were a moment before.
async fn renews(client: Client, mapping: String, shared: Arc<Shared>) {
    let read = format!(
        "SELECT key, fingerprint, {SPELLED} FROM rowdelta.state WHERE fingerprint IS NOT NULL ORDER BY random() LIMIT 1"
    );
    client.batch_execute("SET rowdelta.merge_share = 0").await.unwrap();
    while !shared.is_over.load(Ordering::Relaxed) {
        let Some(row) = rows(&client, &read).await.unwrap().pop() else { continue };
        let row: Vec<String> =
            row.into_iter().map(|cell| format!("ARRAY['{}']::bytea[]", cell.unwrap())).collect();
        let sql = format!(
            "SELECT in_base AND renewed = 1 FROM rowdelta.renew_spellings({mapping}, {})",
            row.join(", ")
        );
        let is_packed = rows(&client, &sql).await.unwrap()[0][0].as_deref() == Some("t");
        shared.renewed.fetch_add(u32::from(is_packed), Ordering::Relaxed);
    }
}

/// A fingerprint that was replaced is gone: no two writers can have read it and both have recorded another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p29_no_record_is_lost_while_sessions_record_and_merge_side_by_side() {
    let bed = Bed::open().await;
    let shared = Arc::new(Shared::default());
    let mut sessions = Vec::new();
    for _ in 0..3 {
        let client = bed.db.client().await;
        sessions.push(tokio::spawn(works(client, bed.mapping.clone(), shared.clone())));
    }
    let renewer = tokio::spawn(renews(bed.db.client().await, bed.mapping.clone(), shared.clone()));
    let merger = bed.db.client().await;
    let (mut merges, start) = (0, Instant::now());
    let enough = |merges| {
        let many = |count: &AtomicU32| count.load(Ordering::Relaxed);
        merges > 10 && many(&shared.renewed) > 5 && many(&shared.tokens) > 500
    };
    while !enough(merges) && start.elapsed() < Duration::from_secs(60) {
        let before = bed.db.value("SELECT coalesce(max(xmin::text::bigint), 0) FROM rowdelta.skip").await;
        merger.batch_execute(&merge_sql(&bed.mapping, 2)).await.unwrap();
        let after = bed.db.value("SELECT coalesce(max(xmin::text::bigint), 0) FROM rowdelta.skip").await;
        merges += u32::from(before != after);
        assert_eq!(bed.db.table(BROKEN).await.len(), 0);
    }
    shared.is_over.store(true, Ordering::Relaxed);
    renewer.await.unwrap();
    let (mut replaced, mut refused) = (Vec::new(), 0);
    for session in sessions {
        let (more, times) = session.await.unwrap();
        replaced.extend(more);
        refused += times;
    }
    println!(
        "{} fingerprints replaced, {refused} times refused, {merges} merges, {:?} renewed in the base",
        replaced.len(),
        shared.renewed
    );
    assert!(replaced.len() > 100 && refused > 10 && enough(merges), "too little happened");
    let wrong = format!(
        "SELECT * FROM rowdelta.state WHERE raw <> CASE WHEN respelled THEN {SPELLED} ELSE fingerprint END"
    );
    assert_eq!(bed.db.table(&wrong).await, Vec::<Vec<Option<String>>>::new(), "a hash is another document's");
    let total = replaced.len();
    replaced.sort();
    replaced.dedup();
    assert_eq!(replaced.len(), total, "two writers replaced the same fingerprint");
    let stored = bed.db.table("SELECT fingerprint FROM rowdelta.state WHERE fingerprint IS NOT NULL").await;
    for row in stored {
        let stored = row[0].clone().unwrap();
        assert!(replaced.iter().all(|(_, before)| *before != stored), "{stored} had been replaced");
    }
}
