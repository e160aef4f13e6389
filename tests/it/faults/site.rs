//! A shop with a feed that changes every night, a proxy before its server, and the command between them.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use fastrand::Rng;
use serde_json::{Map, Value, json};
use tokio::task::JoinHandle;

use super::proxy::{Fault, Phase, Proxy, Trap};
use crate::oracle::Edits;
use crate::shop::{BY_RELATION, MAPPING, SCHEMA, Shop, ndjson};
use crate::support::command::{self, Ran};
use crate::support::database::connect;
use crate::support::layout::BROKEN;
use crate::support::pooler::Pooler;
use crate::support::{Database, db, db_on};
use rowdelta::postgres::local::Options;

/// Small batches, so that there are many transactions.
pub const SMALL_BATCHES: [&str; 6] = ["--workers", "3", "--batch", "12", "--allow-deletes", "100000"];
/// Documents of the first night; more come every night.
const DOCUMENTS: usize = 180;
/// Through a pool smaller than what the command would use at once.
pub const POOL: u32 = 3;

/// How the command gets to the database, and what it stores in one transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Direct,
    /// Behind a pooler, if one is installed.
    Pooled,
    /// Directly, relation by relation.
    ByRelation,
}

/// Where faults happen.
pub struct Site {
    pub shop: Shop,
    pub proxy: Proxy,
    pub rng: Rng,
    /// The documents of this night.
    pub docs: Vec<Value>,
    pub feed: PathBuf,
    /// What a night without faults sends: messages by phase, bytes from servers and from clients.
    usual: ([u64; 4], [u64; 2]),
    _pooler: Option<Pooler>,
    _merger: Merger,
}

/// Packs what is recorded over and over, whatever else happens, until it is dropped.
struct Merger(JoinHandle<()>);

impl Merger {
    fn start(url: String) -> Self {
        Merger(tokio::spawn(async move {
            loop {
                if let Ok(client) = connect(&url).await {
                    while client.batch_execute("SET rowdelta.merge_share = 0").await.is_ok()
                        && client.batch_execute(MERGE).await.is_ok()
                    {
                        tokio::time::sleep(Duration::from_millis(3)).await;
                    }
                }
                // The server is away, or the session was ended.
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }))
    }
}

impl Drop for Merger {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// In small parts.
const MERGE: &str = "
DO $$ DECLARE v_mapping integer; v_from bytea; BEGIN
    FOR v_mapping IN SELECT id FROM rowdelta.mapping LOOP
        v_from := '';
        WHILE v_from IS NOT NULL LOOP
            v_from := rowdelta.merge(v_mapping, v_from, 20);
            COMMIT;
        END LOOP;
    END LOOP;
END $$";

impl Site {
    /// In a database of the common server. `None`: there is no pooler.
    pub async fn open(seed: u64, way: Way) -> Option<Self> {
        Self::on(db().await, seed, way).await
    }

    /// On a server of its own, which may be killed.
    pub async fn durable(seed: u64, way: Way) -> Option<Self> {
        Self::on(db_on(Options::durable()).await, seed, way).await
    }

    async fn on(db: Database, seed: u64, way: Way) -> Option<Self> {
        let sync = if way == Way::ByRelation { BY_RELATION } else { "" };
        let mut shop = Shop::in_database(db, SCHEMA, &format!("{MAPPING}{sync}")).await;
        let (dir, name) = shop.db.address();
        let (mut socket, name) = (dir.join(format!(".s.PGSQL.{}", shop.db.port())), name.to_owned());
        let mut pooler = None;
        if way == Way::Pooled {
            pooler = Some(Pooler::start(&shop.db, POOL)?);
            socket = pooler.as_ref()?.socket();
        }
        let proxy = Proxy::start(socket).await;
        let merger = Merger::start(shop.db.url().to_owned());
        shop.url = proxy.url(&name);
        let feed = shop.scratch.path("feed.ndjson");
        let docs = Vec::new();
        let mut site = Site {
            shop,
            proxy,
            rng: Rng::with_seed(seed),
            docs,
            feed,
            usual: Default::default(),
            _pooler: pooler,
            _merger: merger,
        };
        site.dawn().await;
        site.run(&[]).await.succeeded();
        // A second night, since the first one only inserts.
        site.dawn().await;
        site.proxy.set(Vec::new());
        site.run(&[]).await.succeeded();
        let proxy = &site.proxy;
        let messages = super::proxy::PHASES.map(|phase| proxy.messages(phase));
        site.usual = (messages, [false, true].map(|from_client| proxy.bytes(from_client)));
        site.ends_well().await;
        Some(site)
    }

    /// Another night: four documents in ten change, files move, some documents are new. None is gone.
    pub async fn dawn(&mut self) {
        let (rng, docs) = (&mut self.rng, &mut self.docs);
        for doc in docs.iter_mut() {
            if rng.u8(..10) < 4 {
                change(doc, rng);
            }
        }
        for _ in 0..docs.len() / 40 {
            let (from, to) = (rng.usize(..docs.len()), rng.usize(..docs.len()));
            let files = docs[from]["files"].as_array_mut().expect("files");
            if let Some(file) = files.pop() {
                docs[to]["files"].as_array_mut().expect("files").push(file);
            }
        }
        let new = if docs.is_empty() { DOCUMENTS } else { 4 };
        for n in docs.len()..docs.len() + new {
            let mut doc =
                json!({ "number": format!("N{n:05}"), "files": [{ "id": n, "name": "f", "pages": [] }] });
            change(&mut doc, rng);
            docs.push(doc);
        }
        std::fs::write(&self.feed, ndjson(docs)).expect("write the feed");
        self.shop.expect(&self.docs).await;
    }

    /// Runs the command to its end.
    pub async fn run(&self, more: &[&str]) -> Ran {
        self.shop.run_file(&self.feed, &[&SMALL_BATCHES, more].concat()).await
    }

    /// Starts the command.
    pub fn start(&self, more: &[&str]) -> Running {
        let report = self.shop.scratch.path(&format!("report-{:016x}.json", fastrand::u64(..)));
        let mut command = command::binary();
        command
            .args(["sync", "-d", &self.shop.url, "-m"])
            .arg(&self.shop.mapping)
            .arg("--report")
            .arg(&report);
        command.args(SMALL_BATCHES).args(more).arg(&self.feed).stdout(Stdio::null()).stderr(Stdio::piped());
        Running { child: command.spawn().expect("run the command"), report }
    }

    /// A message of the given phase, somewhere in the first two thirds of a usual night's.
    pub fn trap(&mut self, phase: Phase, fault: Fault) -> Trap {
        let last = self.usual.0[phase as usize] * 2 / 3;
        self.trap_before(last, phase, fault)
    }

    /// A message of the given phase, so early that the feed is not read to its end: of some eight batches three are in
    /// hand, and one waits.
    pub fn early_trap(&mut self, phase: Phase, fault: Fault) -> Trap {
        let last = self.usual.0[phase as usize] / 6;
        self.trap_before(last, phase, fault)
    }

    fn trap_before(&mut self, last: u64, phase: Phase, fault: Fault) -> Trap {
        // The first messages are about whether there is a server at all: without one the command does not start.
        let first = if phase == Phase::Between { 4 } else { 1 };
        Trap::Message { phase, nth: self.rng.u64(first..=last.max(first)), fault }
    }

    /// Every look-up of a usual night takes a while: a run that is told something has not ended by then.
    pub fn slow(&self) -> Vec<Trap> {
        let (phase, fault) = (Phase::Looking, Fault::Delay(Duration::from_millis(5)));
        (1..=self.usual.0[phase as usize]).map(|nth| Trap::Message { phase, nth, fault }).collect()
    }

    /// A byte somewhere in the first two thirds of a usual night's.
    pub fn byte(&mut self) -> Trap {
        let from_client = self.rng.bool();
        let usual = self.usual.1[usize::from(from_client)] * 2 / 3;
        Trap::Bytes { from_client, nth: self.rng.u64(4000..=usual.max(4000)) }
    }

    /// After the death of a run: what it left on the server has ended, and its lease has run out.
    pub async fn bury(&self) {
        let at_work = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
                       AND application_name = 'rowdelta' AND state <> 'idle'";
        while self.shop.db.value(at_work).await != "0" {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.shop.db.execute("UPDATE rowdelta.mapping SET lease_until = clock_timestamp()").await;
    }

    /// The next run ends as if nothing had happened, and the one after it finds nothing to do.
    pub async fn ends_well(&self) {
        self.proxy.set(Vec::new());
        self.run(&[]).await.succeeded();
        self.is_as_it_should_be().await;
        self.shop.written().await;
        let ran = self.run(&[]).await.succeeded();
        assert_eq!((ran.rows_written(), self.shop.written().await), (0, Edits::new()));
        assert_eq!(ran.documents("unchanged"), self.docs.len() as u64, "{:#}", ran.report);
        assert_eq!(self.shop.unsettled().await, "0");
    }

    /// Every table holds what the feed says, and what is recorded is packed as it must be.
    pub async fn is_as_it_should_be(&self) {
        assert_eq!(self.shop.db.table(BROKEN).await, Vec::<Vec<Option<String>>>::new());
        assert_ne!(self.shop.db.value("SELECT count(*) FROM rowdelta.base").await, "0");
        self.shop.state.check().await.unwrap_or_else(|error| panic!("{error}"));
    }
}

/// A run of the command that has not ended.
pub struct Running {
    child: std::process::Child,
    report: PathBuf,
}

impl Running {
    /// Sends a signal, such as `STOP`.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status();
        assert!(sent.expect("run kill").success());
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("ask for the command's state").is_some()
    }

    /// Waits for its end.
    pub async fn ended(mut self) -> Ran {
        while !self.has_ended() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let output = self.child.wait_with_output().expect("wait for the command");
        let report = std::fs::read(&self.report).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        Ran {
            code: output.status.code().unwrap_or(-1),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            report: report.unwrap_or(Value::Null),
            peak_bytes: None,
        }
    }
}

/// Gives a document other values and other lists; its files stay, since they are unique in their table.
fn change(doc: &mut Value, rng: &mut Rng) {
    let doc = doc.as_object_mut().expect("an object");
    let word = |rng: &mut Rng| format!("w{}", rng.u8(..50));
    let lines = |rng: &mut Rng| -> Vec<Value> {
        let serials = |rng: &mut Rng| (0..rng.u8(..4)).map(|n| json!(format!("s{n}"))).collect::<Vec<_>>();
        let line = |n: u8, rng: &mut Rng| json!({ "no": n, "qty": rng.u8(..), "label": word(rng), "serials": serials(rng) });
        let all: Vec<u8> = (0..6).filter(|_| rng.bool()).collect();
        all.into_iter().map(|n| line(n, rng)).collect()
    };
    doc.insert("customer".into(), word(rng).into());
    doc.insert("units".into(), rng.u16(..).into());
    doc.insert("lines".into(), lines(rng).into());
    doc.insert("tags".into(), (0..rng.u8(..5)).map(|_| word(rng)).collect::<Vec<_>>().into());
    let products: Vec<String> = (0..rng.u8(..4)).map(|n| format!("p{n}-{}", rng.u8(..40))).collect();
    doc.insert("products".into(), products.into());
    for file in doc.get_mut("files").and_then(Value::as_array_mut).into_iter().flatten() {
        let pages: Vec<Value> = (0..rng.u8(..3)).map(|no| json!({ "no": no, "body": word(rng) })).collect();
        let file: &mut Map<String, Value> = file.as_object_mut().expect("an object");
        file.insert("pages".into(), pages.into());
    }
}
