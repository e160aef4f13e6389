//! Random calls from several sessions, transactions open side by side, and merges between them, beside a map.
//!
//! Each session has documents of its own, so that none waits for another; what happens when two want one is in
//! [`super::races`]. A merge comes at any time, and gives up while somebody has written.

use std::collections::BTreeMap;

use fastrand::Rng;
use tokio_postgres::Client;

use super::Bed;
use crate::support::database::rows;
use crate::support::layout::BROKEN;

/// What is recorded of a document. Fingerprints and raw hashes are numbers.
#[derive(Clone, Debug, Default, PartialEq)]
struct Entry {
    raw: Option<u32>,
    fingerprint: Option<u32>,
    settled: bool,
    absent: bool,
    respelled: bool,
}

type Recorded = BTreeMap<u32, Entry>;

const SESSIONS: u32 = 3;
const DOCUMENTS: u32 = 120;
const STEPS: u32 = 700;

struct Session {
    client: Client,
    is_open: bool,
    /// Whether it holds the base lock.
    has_written: bool,
    /// What it changed, and did not commit; `None`: forgotten.
    changed: BTreeMap<u32, Option<Entry>>,
}

/// Wide, so that few fit a page.
fn key(document: u32) -> String {
    format!("'\\x{document:04x}{}'", "00".repeat(150 + document as usize % 60))
}

fn number(number: Option<u32>) -> String {
    number.map_or("NULL".into(), |number| format!("'\\x{number:032x}'"))
}

fn array(values: impl IntoIterator<Item = String>) -> String {
    format!("ARRAY[{}]::bytea[]", values.into_iter().collect::<Vec<_>>().join(", "))
}

fn relations(fingerprint: Option<u32>) -> String {
    fingerprint.map_or("''".into(), |number| format!("'\\x{}'", format!("{number:08x}").repeat(40)))
}

struct Play {
    bed: Bed,
    rng: Rng,
    recorded: Recorded,
    sessions: Vec<Session>,
    merger: Client,
    next: u32,
    refused: u32,
    merges: u32,
    /// Documents of which another spelling was recorded as recent rows, and in the base.
    renewed: [u32; 2],
}

impl Play {
    async fn open(seed: u64) -> Self {
        let bed = Bed::open().await;
        let mut sessions = Vec::new();
        for _ in 0..SESSIONS {
            let client = bed.db.client().await;
            sessions.push(Session { client, is_open: false, has_written: false, changed: BTreeMap::new() });
        }
        let merger = bed.db.client().await;
        let rng = Rng::with_seed(seed);
        Self {
            bed,
            rng,
            recorded: Recorded::new(),
            sessions,
            merger,
            next: 1,
            refused: 0,
            merges: 0,
            renewed: [0; 2],
        }
    }

    async fn step(&mut self) {
        match self.rng.u8(..100) {
            0..=59 => self.call().await,
            60..=79 => {
                let session = self.rng.usize(..SESSIONS as usize);
                self.end(session).await;
            }
            80..=87 => self.merge().await,
            88..=96 => {
                for session in 0..SESSIONS as usize {
                    self.end(session).await;
                }
                if self.rng.bool() { self.merge().await } else { self.renew().await }
            }
            _ => self.unsettle_all().await,
        }
    }

    /// What a session sees of a document of its own.
    fn seen(&self, session: usize, document: u32) -> Option<Entry> {
        let own = self.sessions[session].changed.get(&document).cloned();
        own.unwrap_or_else(|| self.recorded.get(&document).cloned())
    }

    async fn call(&mut self) {
        let session = self.rng.usize(..SESSIONS as usize);
        if !self.sessions[session].is_open {
            self.sessions[session].client.batch_execute("BEGIN").await.unwrap();
            self.sessions[session].is_open = true;
        }
        let mut documents: Vec<u32> = (0..self.rng.u32(1..12))
            .map(|_| self.rng.u32(..DOCUMENTS / SESSIONS) * SESSIONS + session as u32)
            .collect();
        documents.sort_unstable();
        documents.dedup();
        match self.rng.u8(..20) {
            0..=11 => self.record(session, &documents).await,
            12 => self.by_fingerprint(session, &documents, "renew_raw").await,
            13 => self.by_fingerprint(session, &documents, "settle").await,
            14 | 15 => self.by_key(session, &documents, "unsettle").await,
            16 | 17 => self.by_key(session, &documents, "absent").await,
            _ => self.by_key(session, &documents, "forget").await,
        }
        self.sessions[session].has_written = true;
    }

    async fn record(&mut self, session: usize, documents: &[u32]) {
        let id = self.bed.mapping.clone();
        let (mut fits, mut new, mut expected, mut entries) = (true, Vec::new(), Vec::new(), Vec::new());
        for &document in documents {
            let seen = self.seen(session, document);
            let (mut is_new, mut before) = (seen.is_none(), seen.and_then(|entry| entry.fingerprint));
            if self.rng.u8(..40) == 0 {
                (is_new, before) = if self.rng.bool() { (!is_new, before) } else { (is_new, Some(999_999)) };
                // Of a new one nothing is expected.
                fits &= is_new && self.seen(session, document).is_none();
            }
            new.push(is_new.to_string());
            expected.push(number(before));
            self.next += 2;
            let (raw, fingerprint) = (Some(self.next), Some(self.next + 1));
            entries.push(Entry { raw, fingerprint, settled: self.rng.u8(..5) > 0, ..Entry::default() });
        }
        let each = |one: &dyn Fn(&Entry) -> String| entries.iter().map(one).collect::<Vec<_>>();
        let sql = format!(
            "SAVEPOINT s; SELECT rowdelta.record({id}, {}, ARRAY[{}], {}, {}, {}, {}, ARRAY[{}], {})",
            array(documents.iter().map(|&document| key(document))),
            new.join(", "),
            array(expected),
            array(each(&|entry| number(entry.raw))),
            array(each(&|entry| number(entry.fingerprint))),
            array(each(&|entry| relations(entry.fingerprint))),
            each(&|entry| entry.settled.to_string()).join(", "),
            array(each(&|_| "'\\x0102030405060708'".to_owned())),
        );
        let own = &mut self.sessions[session];
        match own.client.batch_execute(&sql).await {
            Ok(()) => {
                assert!(fits, "it should have been refused: {sql}");
                own.changed.extend(documents.iter().copied().zip(entries.into_iter().map(Some)));
            }
            Err(error) => {
                let code = error.code().map(|code| code.code().to_owned());
                assert!(!fits && code.as_deref() == Some("RD003"), "{error}: {sql}");
                own.client.batch_execute("ROLLBACK TO s").await.unwrap();
                self.refused += 1;
            }
        }
    }

    /// Of some of the documents another fingerprint is said than they have.
    async fn by_fingerprint(&mut self, session: usize, documents: &[u32], call: &str) {
        let (mut said, mut raws, mut count) = (Vec::new(), Vec::new(), 0);
        for &document in documents {
            let seen = self.seen(session, document);
            let right = seen.as_ref().and_then(|entry| entry.fingerprint).filter(|_| self.rng.u8(..5) > 0);
            said.push(number(right.or(Some(999_999))));
            self.next += 1;
            raws.push(number(Some(self.next)));
            let (Some(mut entry), Some(_)) = (seen, right) else { continue };
            if call == "settle" && entry.settled {
                continue;
            }
            count += 1;
            match call {
                "settle" => entry.settled = true,
                _ => (entry.raw, entry.respelled) = (Some(self.next), true),
            }
            self.sessions[session].changed.insert(document, Some(entry));
        }
        let mut arguments = vec![array(documents.iter().map(|&document| key(document))), array(said)];
        if call == "renew_raw" {
            arguments.push(array(raws));
        }
        self.counts(session, call, &arguments.join(", "), count).await;
    }

    async fn by_key(&mut self, session: usize, documents: &[u32], call: &str) {
        let mut count = 0;
        for &document in documents {
            let Some(entry) = self.seen(session, document) else { continue };
            count += 1;
            let changed = match call {
                "unsettle" => Some(Entry { absent: entry.absent, ..Entry::default() }),
                "absent" => Some(Entry { raw: None, settled: false, absent: true, ..entry }),
                _ => None,
            };
            self.sessions[session].changed.insert(document, changed);
        }
        self.counts(session, call, &array(documents.iter().map(|&document| key(document))), count).await;
    }

    async fn counts(&self, session: usize, call: &str, arguments: &str, count: u32) {
        let sql = format!("SELECT rowdelta.{call}({}, {arguments})", self.bed.mapping);
        let counted = rows(&self.sessions[session].client, &sql).await.unwrap();
        assert_eq!(counted[0][0], Some(count.to_string()), "{sql}");
    }

    async fn end(&mut self, session: usize) {
        if !self.sessions[session].is_open {
            return;
        }
        let commits = self.rng.u8(..4) > 0;
        let own = &mut self.sessions[session];
        own.client.batch_execute(if commits { "COMMIT" } else { "ROLLBACK" }).await.unwrap();
        (own.is_open, own.has_written) = (false, false);
        for (document, entry) in std::mem::take(&mut own.changed).into_iter().filter(|_| commits) {
            match entry {
                Some(entry) => drop(self.recorded.insert(document, entry)),
                None => drop(self.recorded.remove(&document)),
            }
        }
        self.compare().await;
    }

    /// Parts of any size, to the end or not; at times only what is worth its while.
    async fn merge(&mut self) {
        let share = ["0", "0", "0.3", "0.8"][self.rng.usize(..4)];
        self.merger.batch_execute(&format!("SET rowdelta.merge_share = {share}")).await.unwrap();
        let mut from = match self.rng.bool() {
            true => "''".to_owned(),
            false => key(self.rng.u32(..DOCUMENTS)),
        };
        let is_busy = self.sessions.iter().any(|session| session.has_written);
        let mut parts = 0;
        loop {
            let documents = self.rng.u32(1..60);
            let sql = format!("SELECT rowdelta.merge({}, {from}, {documents})", self.bed.mapping);
            let next = rows(&self.merger, &sql).await.unwrap().remove(0).remove(0);
            parts += 1;
            assert!(parts < 500, "it comes to no end");
            match next {
                Some(next) if self.rng.u8(..10) > 0 => from = format!("'{next}'"),
                _ => break,
            }
        }
        assert!(!is_busy || parts == 1, "somebody was at work");
        self.merges += u32::from(!is_busy);
        self.compare().await;
    }

    /// Other spellings of documents, while nobody else is at work: where they stand, or as recent rows.
    async fn renew(&mut self) {
        let share = ["0", "0.1", "0.3", "0.8"][self.rng.usize(..4)];
        self.merger.batch_execute(&format!("SET rowdelta.merge_share = {share}")).await.unwrap();
        let (from, many) = (self.rng.u32(..DOCUMENTS), self.rng.u32(1..=DOCUMENTS));
        let one_in = self.rng.u32(1..4);
        let documents: Vec<u32> = (from..DOCUMENTS.min(from + many))
            .filter(|document| *document == from || self.rng.u32(..one_in) == 0)
            .collect();
        let (mut said, mut raws, mut count) = (Vec::new(), Vec::new(), 0);
        for &document in &documents {
            let fingerprint = self.recorded.get(&document).and_then(|entry| entry.fingerprint);
            let right = fingerprint.filter(|_| self.rng.u8(..5) > 0);
            said.push(number(right.or(Some(999_999))));
            self.next += 1;
            raws.push(number(Some(self.next)));
            if let (Some(entry), Some(_)) = (self.recorded.get_mut(&document), right) {
                (entry.raw, entry.respelled) = (Some(self.next), true);
                count += 1;
            }
        }
        let sql = format!(
            "SELECT renewed, in_base FROM rowdelta.renew_spellings({}, {}, {}, {})",
            self.bed.mapping,
            array(documents.iter().map(|&document| key(document))),
            array(said),
            array(raws)
        );
        let told = rows(&self.merger, &sql).await.unwrap().remove(0);
        assert_eq!(told[0], Some(count.to_string()), "{sql}");
        self.renewed[usize::from(told[1].as_deref() == Some("t"))] += count;
        self.compare().await;
    }

    async fn unsettle_all(&mut self) {
        // It waits for those who have written.
        if self.sessions.iter().any(|session| session.has_written) {
            return;
        }
        let settled = self.recorded.values().filter(|entry| entry.settled).count();
        let sql = format!("SELECT rowdelta.unsettle_all({})", self.bed.mapping);
        assert_eq!(self.bed.db.value(&sql).await, settled.to_string());
        for entry in self.recorded.values_mut().filter(|entry| entry.settled) {
            (entry.raw, entry.settled) = (None, false);
        }
        self.compare().await;
    }

    /// What everybody sees is the map.
    async fn compare(&mut self) {
        let (db, id) = (&self.bed.db, &self.bed.mapping);
        assert_eq!(db.table(BROKEN).await, Vec::<Vec<Option<String>>>::new());
        let text = |sql: String| sql.trim_matches('\'').to_owned();
        let cell = |number_: Option<u32>| number_.map(|_| text(number(number_)));
        let bit = |bit: bool| Some(if bit { "t" } else { "f" }.to_owned());
        let state = |(document, entry): (&u32, &Entry)| {
            let (key, relations) = (Some(text(key(*document))), Some(text(relations(entry.fingerprint))));
            let relations =
                relations.map(|relations| if relations.is_empty() { "\\x".into() } else { relations });
            vec![
                key,
                cell(entry.raw),
                cell(entry.fingerprint),
                relations,
                bit(entry.settled),
                bit(entry.absent),
                bit(entry.respelled),
            ]
        };
        let expected: Vec<Vec<Option<String>>> = self.recorded.iter().map(state).collect();
        let columns = "key, raw, fingerprint, relations, settled, absent, respelled";
        let all = array((0..DOCUMENTS).map(key));
        for from in ["rowdelta.state".to_owned(), format!("rowdelta.states({id}, {all})")] {
            let found = db.table(&format!("SELECT {columns} FROM {from} ORDER BY key")).await;
            let differing = found.iter().zip(&expected).find(|(found, expected)| found != expected);
            assert!(differing.is_none() && found.len() == expected.len(), "{from}: {differing:?}");
        }
        let settled = self.recorded.iter().filter(|(_, entry)| entry.settled && entry.raw.is_some());
        let settled: Vec<_> =
            settled.map(|(document, entry)| vec![cell(entry.raw), Some(text(key(*document)))]).collect();
        let sql = format!("SELECT raw, key FROM rowdelta.settled({id}) ORDER BY key");
        assert_eq!(db.table(&sql).await, settled);
        let present = self.recorded.iter().filter(|(_, entry)| !entry.absent);
        let present: Vec<_> = present.map(|(document, _)| vec![Some(text(key(*document)))]).collect();
        assert_eq!(db.table(&format!("SELECT k FROM rowdelta.present({id}) AS k ORDER BY k")).await, present);
        let unsettled = self.recorded.values().filter(|entry| !entry.settled).count();
        let counted = vec![vec![Some(self.recorded.len().to_string()), Some(unsettled.to_string())]];
        assert_eq!(db.table(&format!("SELECT * FROM rowdelta.counted({id})")).await, counted);
        let (mut after, mut paged) = ("NULL".to_owned(), Vec::new());
        loop {
            let limit = self.rng.u32(1..50);
            let sql = format!(
                "SELECT key, fingerprint, relations, settled FROM rowdelta.recorded({id}, {after}, {limit})"
            );
            let page = db.table(&sql).await;
            assert!(page.len() <= limit as usize);
            let Some(last) = page.last() else { break };
            after = format!("'{}'", last[0].as_deref().unwrap());
            paged.extend(page);
        }
        let pages: Vec<_> =
            expected.iter().map(|row| [0, 2, 3, 4].map(|at| row[at].clone()).to_vec()).collect();
        assert_eq!(paged, pages);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p29_random_calls_of_three_sessions_with_merges_between_them_are_as_a_map() {
    for seed in [20260103, 7] {
        let mut play = Play::open(seed).await;
        for _ in 0..STEPS {
            play.step().await;
        }
        let ranges: u32 = play.bed.db.value("SELECT count(*) FROM rowdelta.skip").await.parse().unwrap();
        let Play { merges, refused, renewed, .. } = play;
        println!(
            "seed {seed}: {merges} merges, {refused} records refused, {ranges} ranges, renewed {renewed:?}"
        );
        assert!(merges > 10 && refused > 10 && ranges > 2 && renewed > [10; 2], "too little happened");
    }
}
