//! What is recorded of documents, packed: the functions of schema `rowdelta` wherever a document stands, side by side
//! with each other and with merges. `docs/state.md` says why they are right.

mod model;
mod nights;
mod races;

use crate::support::command::install;
use crate::support::layout::BROKEN;
use crate::support::{Database, db};

/// A database with one mapping, of which documents are recorded by hand.
struct Bed {
    db: Database,
    mapping: String,
}

impl Bed {
    async fn open() -> Self {
        let db = db().await;
        // Only when a test says so.
        db.merge_from("0").await;
        install(db.url());
        let mapping = db.value("SELECT rowdelta.register('m', '{}', '\\x00')").await;
        Self { db, mapping }
    }

    /// Merges all there is.
    async fn merge(&self) {
        self.db.execute("SET rowdelta.merge_share = 0").await;
        self.db.execute(&merge_sql(&self.mapping, 5000)).await;
    }

    /// Documents with recent rows, gone ones counted, and documents in the base.
    async fn counts(&self) -> String {
        let sql = "SELECT (SELECT count(*) FROM rowdelta.document) || ' recent, '
                       || coalesce((SELECT sum(documents) FROM rowdelta.skip), 0) || ' packed'";
        self.db.value(sql).await
    }

    /// All that any function tells, and whether the layout is as it must be.
    async fn told(&self) -> Vec<Vec<Option<String>>> {
        let id = &self.mapping;
        assert_eq!(self.db.table(BROKEN).await, Vec::<Vec<Option<String>>>::new());
        let all = "(SELECT array_agg(key) FROM rowdelta.state)";
        let mut told = Vec::new();
        for sql in [
            "SELECT * FROM rowdelta.state ORDER BY key".to_owned(),
            format!("SELECT raw, key FROM rowdelta.settled({id}) ORDER BY key"),
            format!("SELECT * FROM rowdelta.states({id}, {all}) ORDER BY key"),
            format!("SELECT * FROM rowdelta.recorded({id}, NULL, 2)"),
            format!("SELECT * FROM rowdelta.recorded({id}, '\\x02', 100)"),
            format!("SELECT present FROM rowdelta.present({id}) ORDER BY 1"),
            format!("SELECT * FROM rowdelta.counted({id})"),
        ] {
            told.extend(self.db.table(&sql).await);
        }
        told
    }
}

/// Merges to the end, each part in a transaction of its own.
fn merge_sql(mapping: &str, documents: usize) -> String {
    format!(
        "DO $$ DECLARE v_from bytea := ''; BEGIN
             WHILE v_from IS NOT NULL LOOP
                 v_from := rowdelta.merge({mapping}, v_from, {documents}); COMMIT;
             END LOOP; END $$"
    )
}

/// A document's key, the fingerprint that was read of it, and the new one; each one byte.
type Change = (u8, Option<u8>, u8);

/// `rowdelta.record` of documents.
fn record(mapping: &str, documents: &[Change], settled: bool) -> String {
    let each = |one: &dyn Fn(&Change) -> String| documents.iter().map(one).collect::<Vec<_>>().join(", ");
    let keys = each(&|(key, ..)| format!("'\\x{key:02x}'"));
    let new = each(&|(_, before, _)| before.is_none().to_string());
    let expected =
        each(&|(_, before, _)| before.map_or("NULL".into(), |before| format!("'\\x{before:02x}'")));
    let raw = each(&|(.., new)| format!("'\\x{new:032x}'"));
    let fingerprint = each(&|(.., new)| format!("'\\x{new:02x}'"));
    let settled = each(&|_| settled.to_string());
    format!(
        "SELECT rowdelta.record({mapping}, ARRAY[{keys}]::bytea[], ARRAY[{new}], ARRAY[{expected}]::bytea[],
             ARRAY[{raw}]::bytea[], ARRAY[{fingerprint}]::bytea[], ARRAY[{raw}]::bytea[], ARRAY[{settled}],
             ARRAY[{keys}]::bytea[])"
    )
}

/// Where documents stand before something is done to them.
#[derive(Clone, Copy, Debug)]
enum Place {
    Recent,
    Base,
    /// In the base as they were before, and recent as they are.
    Both,
}

/// Documents 1, 2 and 3 of which the third is not settled; 4 is absent, 5 was forgotten.
async fn placed(place: Place) -> Bed {
    let bed = Bed::open().await;
    let id = &bed.mapping;
    let all = |before: Option<u8>, new: u8| [1, 2, 4, 5].map(|key| (key, before, new));
    let rest = |bed: &Bed| {
        format!(
            "SELECT rowdelta.absent({id}, ARRAY['\\x04']::bytea[]); SELECT rowdelta.forget({id}, ARRAY['\\x05']::bytea[])",
            id = bed.mapping
        )
    };
    if let Place::Both = place {
        bed.db.execute(&record(id, &all(None, 0xaa), true)).await;
        bed.db.execute(&record(id, &[(3, None, 0xaa)], true)).await;
        bed.merge().await;
        bed.db.execute(&record(id, &all(Some(0xaa), 0x10), true)).await;
        bed.db.execute(&record(id, &[(3, Some(0xaa), 0x10)], false)).await;
    } else {
        bed.db.execute(&record(id, &all(None, 0x10), true)).await;
        bed.db.execute(&record(id, &[(3, None, 0x10)], false)).await;
    }
    bed.db.execute(&rest(&bed)).await;
    if let Place::Base = place {
        bed.merge().await;
    }
    bed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_function_does_the_same_wherever_documents_stand() {
    let calls = |id: &str| {
        vec![
            record(id, &[(1, Some(0x10), 0x11), (3, Some(0x10), 0x12), (6, None, 0x13)], true),
            format!("SELECT rowdelta.renew_raw({id}, ARRAY['\\x01', '\\x02', '\\x05', '\\x77']::bytea[],
                         ARRAY['\\x11', '\\x99', '\\x10', '\\x10']::bytea[], ARRAY['\\x{:032x}', '\\x02', '\\x03', '\\x04']::bytea[])", 0xbb),
            format!("SELECT renewed FROM rowdelta.renew_spellings({id}, ARRAY['\\x04', '\\x03', '\\x02', '\\x05', '\\x02']::bytea[],
                         ARRAY['\\x10', '\\x12', '\\x10', '\\x10', '\\x10']::bytea[],
                         ARRAY['\\x{:032x}', '\\x04', '\\x{1:032x}', '\\x05', '\\x{1:032x}']::bytea[])", 0xc4, 0xc2),
            format!("SELECT rowdelta.unsettle({id}, ARRAY['\\x01', '\\x05', '\\x77']::bytea[])"),
            format!("SELECT rowdelta.settle({id}, ARRAY['\\x02', '\\x03', '\\x04', '\\x01']::bytea[],
                         ARRAY['\\x10', '\\x12', '\\x10', NULL]::bytea[])"),
            format!("SELECT rowdelta.forget({id}, ARRAY['\\x01', '\\x05', '\\x77']::bytea[])"),
            // What is gone can come back, and what never was recorded is new.
            record(id, &[(1, None, 0x21), (5, None, 0x22)], true),
            format!("SELECT rowdelta.absent({id}, ARRAY['\\x01', '\\x02', '\\x77']::bytea[])"),
            format!("SELECT rowdelta.unsettle_all({id})"),
            record(id, &[(2, Some(0x10), 0x31)], true),
        ]
    };
    let mut told = Vec::new();
    for place in [Place::Recent, Place::Base, Place::Both] {
        let bed = placed(place).await;
        let expected = match place {
            Place::Recent => "4 recent, 0 packed",
            Place::Base => "0 recent, 4 packed",
            Place::Both => "5 recent, 5 packed",
        };
        assert_eq!(bed.counts().await, expected);
        let mut all = vec![bed.told().await];
        for call in calls(&bed.mapping) {
            all.push(bed.db.table(&call).await);
            all.push(bed.told().await);
        }
        bed.merge().await;
        all.push(bed.told().await);
        assert_eq!(bed.counts().await, "0 recent, 6 packed");
        told.push(all);
    }
    for (at, recent) in told[0].iter().enumerate() {
        assert_eq!(&told[1][at], recent, "packed (left) and recent (right), after call {at}");
        assert_eq!(&told[2][at], recent, "packed with others recorded since (left) and recent (right)");
    }
    // That they do the same is not enough.
    let last = told[0].last().unwrap();
    let row = |key: &str| last.iter().find(|row| row.get(1) == Some(&Some(key.into()))).cloned().unwrap();
    assert_eq!(row("\\x02")[3].as_deref(), Some("\\x31"));
    assert_eq!(row("\\x06")[5].as_deref(), Some("f"), "not settled any more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p29_what_was_recorded_meanwhile_is_noticed_wherever_documents_stand() {
    for place in [Place::Recent, Place::Base, Place::Both] {
        let bed = placed(place).await;
        let (id, before) = (&bed.mapping, bed.told().await);
        for wrong in [
            record(id, &[(1, Some(0x99), 0x11)], true),
            record(id, &[(1, None, 0x11)], true),
            record(id, &[(5, Some(0x10), 0x11)], true),
            record(id, &[(9, Some(0x10), 0x11)], true),
            // One of several is enough.
            record(id, &[(1, Some(0x10), 0x11), (2, Some(0xaa), 0x11)], true),
        ] {
            let error = bed.db.client().await.batch_execute(&wrong).await.expect_err(&wrong);
            assert_eq!(error.code().map(|code| code.code()), Some("RD003"), "{place:?}: {wrong}");
        }
        assert_eq!(bed.told().await, before);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_merge_is_due_when_enough_was_recorded_and_leaves_what_is_sparse() {
    let bed = Bed::open().await;
    let id = &bed.mapping;
    let record = |from: u32, to: u32, news: bool, fingerprint: &str| {
        format!(
            "SELECT rowdelta.record({id}, array_agg(k), array_agg({news}), array_agg('\\x01'::bytea), array_agg(h),
                 array_agg({fingerprint}::bytea), array_agg(repeat('r', 200)::bytea), array_agg(true), array_agg('\\x00'::bytea))
             FROM (SELECT int4send(4) || int4send(i) AS k, substr(sha256(int4send(i)), 1, 16) AS h
                   FROM generate_series({from}, {to}) AS i) AS s"
        )
    };
    let due = format!("SELECT rowdelta.merge_due({id})");
    bed.db.execute("SET rowdelta.merge_share = ''").await;
    bed.db.execute(&record(1, 500, true, "'\\x01'")).await;
    assert_eq!(bed.db.value(&due).await, "f", "five hundred are never worth it");
    bed.db.execute(&record(501, 20_000, true, "'\\x01'")).await;
    assert_eq!(bed.db.value(&due).await, "t");
    bed.db.execute(&merge_sql(id, 5000)).await;
    assert_eq!((bed.db.value(&due).await, bed.counts().await), ("f".into(), "0 recent, 20000 packed".into()));
    // All that one part has, and one document in another.
    bed.db.execute(&record(1, 3900, false, "'\\x02'")).await;
    assert_eq!(bed.db.value(&due).await, "f");
    bed.db.execute(&record(3901, 4001, false, "'\\x02'")).await;
    bed.db.execute(&record(19_000, 19_000, false, "'\\x02'")).await;
    assert_eq!(bed.db.value(&due).await, "t");
    bed.db.execute(&merge_sql(id, 5000)).await;
    assert_eq!(bed.counts().await, "1 recent, 20000 packed");
    assert_eq!(bed.db.table(BROKEN).await.len(), 0);
    let changed = "SELECT count(*) FROM rowdelta.state WHERE fingerprint = '\\x02'";
    assert_eq!(bed.db.value(changed).await, "4002");
}
