//! `rowdelta.sync_texts` and `sync_many` beside delete and insert in SQL, on the same nights, from the same texts.
//!
//! Each is one call for a chunk of documents, over one connection: from the text of a JSON array, but for `sync_texts`, which
//! takes the documents' texts, so that it reads only those that changed. The peer (`recreate.sql`) is set-based: roots by ON
//! CONFLICT, lists deleted and inserted for the whole chunk. After each night all databases must hold the same, ids aside. Times are medians of rounds in which both take turns, on a server with fsync on.
//!
//! `cargo bench --bench sql` measures; without `--bench`, as in `cargo test --benches`, it shows on few documents that
//! everything works.

#[path = "../nightly/call.rs"]
#[allow(dead_code)] // made for the peers of `nightly`
mod call;
#[path = "../../src/cli/demo/calls.rs"]
#[allow(dead_code, unused_imports)] // its tests are for the command's own run
mod calls;
#[path = "../nightly/rows.rs"]
#[allow(dead_code)] // likewise
mod rows;
#[path = "../nightly/state.rs"]
mod state;

use std::time::{Duration, Instant};

use rowdelta::mapping::Mapping;
use rowdelta::postgres::install::install;
use rowdelta::postgres::local::{LocalServer, Options};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, NoTls};

use calls::{Calls, Night, RATE};

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

const TABLES: &str = include_str!("../../examples/convocatorias/schema.sql");
const MAPPING: &str = include_str!("../../examples/convocatorias/mapping.toml");
const RECREATE: &str = include_str!("recreate.sql");
const SEED: u64 = 20_260_101;
/// Documents a call.
const CHUNK: usize = 2_000;

/// What is measured, the peer last: the name, and the call.
const WAYS: [(&str, &str); 3] = [
    ("rowdelta.sync_texts", "SELECT rowdelta.sync_texts('convocatorias', $1) ->> 'status'"),
    ("rowdelta.sync_many", "SELECT rowdelta.sync_many('convocatorias', $1::text::jsonb) ->> 'status'"),
    ("delete and insert", "SELECT coalesce(recreate($1::text::jsonb)::text, 'done')"),
];

/// Documents of one call, as one JSON array and each by itself.
struct Chunk {
    array: String,
    texts: Vec<String>,
}

impl Chunk {
    /// What the call of a way takes.
    fn argument(&self, way: usize) -> &(dyn ToSql + Sync) {
        if way == 0 { &self.texts } else { &self.array }
    }
}

/// The nights, each after the first one.
fn nights() -> [(&'static str, Night); 4] {
    let first = Night::default();
    [
        ("nothing changed", first),
        ("1 % changed", Night { changed: RATE / 100, ..first }),
        ("10 % changed", Night { changed: RATE / 10, ..first }),
        ("lists reordered", Night { reordered: RATE, ..first }),
    ]
}

#[tokio::main]
async fn main() -> Outcome<()> {
    let measures = std::env::args().any(|argument| argument == "--bench");
    let (count, rounds) = if measures { (20_000, 3) } else { (100, 1) };
    let calls = Calls { count, seed: SEED };
    let server = LocalServer::start(Options::durable().setting("autovacuum", "off"))?;
    let admin = connect(&server.url("postgres")).await?;
    println!("{}, {count} documents, {CHUNK} a call, {rounds} rounds; seconds", server.description());
    let first = chunks(calls, Night::default());
    let mut loads = Vec::new();
    for at in 0..WAYS.len() {
        admin.batch_execute(&format!("CREATE DATABASE loaded_{at}")).await?;
        let mut client = connect(&server.url(&format!("loaded_{at}"))).await?;
        prepare(&mut client).await?;
        loads.push(timed(&client, at, &first).await?);
        client.batch_execute("VACUUM").await?;
    }
    row("first load", &loads);
    for (name, night) in nights() {
        let feed = chunks(calls, night);
        let mut times = vec![Vec::new(); WAYS.len()];
        for round in 0..rounds {
            let mut ends = Vec::new();
            for turn in 0..WAYS.len() {
                let at = (round + turn) % WAYS.len();
                admin.batch_execute("DROP DATABASE IF EXISTS night WITH (FORCE)").await?;
                admin.batch_execute(&format!("CREATE DATABASE night TEMPLATE loaded_{at}")).await?;
                let client = connect(&server.url("night")).await?;
                client.batch_execute("VACUUM").await?;
                client.batch_execute("CHECKPOINT").await?;
                times[at].push(timed(&client, at, &feed).await?);
                ends.push(state::read(&client).await?);
            }
            if ends.iter().any(|end| *end != ends[0]) {
                return Err(format!("{name}: they hold different calls").into());
            }
        }
        row(name, &times.into_iter().map(median).collect::<Vec<_>>());
    }
    Ok(())
}

/// The tables, and all ways to fill them.
async fn prepare(client: &mut Client) -> Outcome<()> {
    install(client).await?;
    for sql in [TABLES, RECREATE] {
        client.batch_execute(sql).await?;
    }
    let mapping = Mapping::from_toml(MAPPING)?.definition.to_string();
    client.execute("SELECT rowdelta.register($1::text::jsonb)", &[&mapping]).await?;
    Ok(())
}

/// A night, so many documents a call.
fn chunks(calls: Calls, night: Night) -> Vec<Chunk> {
    let documents: Vec<String> =
        calls.night(night).map(|document| String::from_utf8_lossy(&document).trim().to_owned()).collect();
    let chunk = |texts: &[String]| Chunk { array: format!("[{}]", texts.join(",")), texts: texts.to_vec() };
    documents.chunks(CHUNK).map(chunk).collect()
}

/// The time that all chunks take, each in a transaction of its own.
async fn timed(client: &Client, way: usize, chunks: &[Chunk]) -> Outcome<Duration> {
    let started = Instant::now();
    for chunk in chunks {
        let status: String = client.query_one(WAYS[way].1, &[chunk.argument(way)]).await?.get(0);
        if status == "failed" {
            return Err("documents failed".into());
        }
    }
    Ok(started.elapsed())
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn row(name: &str, times: &[Duration]) {
    let peer = times[WAYS.len() - 1].as_secs_f64();
    print!("{name:<16}");
    for ((way, _), time) in WAYS.iter().zip(times) {
        let time = time.as_secs_f64();
        print!("  {way}: {time:.3} ({:.1} times)", peer / time);
    }
    println!();
}

async fn connect(url: &str) -> Outcome<Client> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}
