//! `rowdelta demo`: four nights of a nightly job on a PostgreSQL of its own, beside the usual way to write it.
//!
//! Three databases of one server get the same dumps: one by rowdelta, one by deleting and re-creating the lists of every
//! document ([`rewrite`]), one by the same with documents skipped by a hash. Server settings (fsync on), number of
//! connections and what happens before each run (VACUUM, CHECKPOINT) are the same for all. At the end the three must hold the
//! same data, or the demo fails.

mod calls;
mod rewrite;
mod table;

use std::io::IsTerminal as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use futures_util::stream;
use rowdelta::document::{Document, Origin};
use rowdelta::engine::Engine;
use rowdelta::mapping::{Mapping, Relation, Source};
use rowdelta::postgres::install::install;
use rowdelta::postgres::local::{LocalServer, Options};
use tokio_postgres::Client;

use crate::cli::args;
use crate::cli::connect::{self, Access, Pool};
use crate::cli::output::Exit;
use crate::cli::sync::stop_on_signals;
use calls::{Calls, Night, RATE};
use rewrite::Rewrite;
use table::{Cell, Survived};

const MAPPING: &str = include_str!("../../examples/convocatorias/mapping.toml");
const TABLES: &str = include_str!("../../examples/convocatorias/schema.sql");

const COMPARED: &str = "\
rowdelta, beside deleting and re-creating the lists of every call, and beside
the same for only those calls whose hash differs: the usual code at its best.";

/// What each night is called, and what has happened by then.
const NIGHTS: [(&str, Night); 4] = [
    ("first load", FIRST),
    ("nothing changed", FIRST),
    ("one call in a hundred changed", CHANGED),
    ("every list in another order", Night { reordered: RATE, ..CHANGED }),
];
const FIRST: Night =
    Night { changed: 0, reordered: 0, removed: 0, added: 0, repeated: 10, unmapped: 0, shuffled: 0 };
const CHANGED: Night = Night { changed: RATE / 100, ..FIRST };

/// Documents that the rewrite works on at once. It commits each by itself, so that it gains by more than rowdelta does.
const REWRITE_WORKERS: usize = 8;

/// A way to sync, with a database of its own.
struct Contestant {
    way: Way,
    pool: Pool,
}

#[derive(Clone, Copy, PartialEq)]
enum Way {
    Rowdelta,
    Rewrite,
    RewriteByHash,
}

const WAYS: [(Way, &str); 3] =
    [(Way::Rowdelta, "rowdelta"), (Way::Rewrite, "recreate"), (Way::RewriteByHash, "recreate_by_hash")];

/// Runs the demo, or only writes its dumps.
///
/// # Errors
/// In words: no server to be had, a database error, results that differ.
pub async fn demo(args: args::Demo) -> Result<Exit, String> {
    let calls = Calls { count: args.calls, seed: args.seed };
    if let Some(dir) = &args.write {
        return write(dir, calls).map_err(|error| format!("{}: {error}", dir.display()));
    }
    // Autovacuum would write during one's run and not during another's.
    let options = Options::durable().setting("autovacuum", "off");
    let start = tokio::task::spawn_blocking(|| LocalServer::start(options))
        .await
        .map_err(|error| error.to_string())?;
    let server = start.map_err(|error| connect::words(&error))?;
    println!("{}", server.description());
    println!("{} generated grant calls, seed {}; fsync on", table::number(calls.count.into()), calls.seed);
    println!("{COMPARED}\n");
    let mapping = Arc::new(Mapping::from_toml(MAPPING).map_err(|error| error.to_string())?);
    let mut contestants = Vec::new();
    for (way, name) in WAYS {
        contestants.push(Contestant { way, pool: database(&server, name).await? });
    }
    for (at, (title, night)) in NIGHTS.into_iter().enumerate() {
        let documents: Arc<Vec<Vec<u8>>> = Arc::new(calls.night(night).collect());
        let mut cells = Vec::new();
        for contestant in &contestants {
            progress(&format!("night {}, {}", at + 1, contestant.way.title()));
            cells.push(contestant.night(&mapping, documents.clone()).await?);
            progress("");
        }
        print!("{}", table::night(at + 1, title, documents.len() as u64, &mapping, &cells));
        if at == 0 {
            for contestant in &contestants {
                contestant
                    .client()
                    .await?
                    .batch_execute(FILL_IN)
                    .await
                    .map_err(|error| connect::words(&error))?;
            }
        }
    }
    let mut survived = Vec::new();
    for contestant in &contestants {
        survived.push(contestant.survived(&mapping).await?);
    }
    print!("{}", table::survived(&survived));
    if survived.iter().any(|one| one.content != survived[0].content) {
        return Err("the databases differ: this is a bug, in rowdelta or in the demo".into());
    }
    println!("All three databases hold the same calls.");
    if args.keep {
        keep(&server).await?;
    }
    Ok(Exit::Done)
}

/// What a later step does: it downloads the file of each document, and says where it is.
const FILL_IN: &str = "UPDATE documento SET storage_path = 'files/' || id_oficial || '.pdf';
     CREATE TABLE first_night AS SELECT id_oficial, id FROM documento";

impl Way {
    fn title(self) -> &'static str {
        match self {
            Way::Rowdelta => "rowdelta",
            Way::Rewrite => "delete and recreate",
            Way::RewriteByHash => "delete and recreate what has another hash",
        }
    }
}

impl Contestant {
    async fn client(&self) -> Result<bb8::PooledConnection<'static, connect::Manager>, String> {
        connect::get(&self.pool).await
    }

    async fn night(&self, mapping: &Arc<Mapping>, documents: Arc<Vec<Vec<u8>>>) -> Result<Cell, String> {
        // As between two nights: what the last one left behind is not this one's.
        for statement in ["VACUUM (ANALYZE)", "CHECKPOINT"] {
            self.client().await?.batch_execute(statement).await.map_err(|error| connect::words(&error))?;
        }
        let before = wal(&*self.client().await?).await?;
        let start = Instant::now();
        let mut cell = match self.way {
            Way::Rowdelta => self.sync(mapping, &documents).await?,
            way => {
                let documents = (0..documents.len()).map(move |at| documents[at].clone());
                let by_hash = way == Way::RewriteByHash;
                let written =
                    Rewrite::night(&self.pool, REWRITE_WORKERS, mapping.clone(), by_hash, documents).await?;
                Cell::of_rewrite(&written)
            }
        };
        cell.elapsed = start.elapsed();
        cell.wal_bytes = wal(&*self.client().await?).await? - before;
        Ok(cell)
    }

    async fn sync(&self, mapping: &Mapping, documents: &[Vec<u8>]) -> Result<Cell, String> {
        let engine = Engine::builder(mapping.clone())
            .build(self.pool.clone())
            .await
            .map_err(|error| error.to_string())?;
        let feed = documents
            .iter()
            .map(|bytes| Ok(Document { bytes: bytes.clone().into(), origin: Origin::default() }));
        let report = engine.sync(stream::iter(feed)).await.map_err(|error| error.to_string())?;
        Ok(Cell::of_report(&report, mapping))
    }

    async fn survived(&self, mapping: &Mapping) -> Result<Survived, String> {
        let client = self.client().await?;
        let sql = "SELECT count(*), count(*) FILTER (WHERE now.id = before.id), count(now.storage_path)
                   FROM first_night before JOIN documento now USING (id_oficial)";
        let row = client.query_one(sql, &[]).await.map_err(|error| connect::words(&error))?;
        let count = |at| row.get::<_, i64>(at) as u64;
        let mut content = Vec::new();
        for relation in &mapping.relations {
            let row = client
                .query_one(&content_sql(mapping, relation), &[])
                .await
                .map_err(|error| error.to_string())?;
            content.push((relation.name.clone(), row.get(0), row.get(1)));
        }
        Ok(Survived { documents: count(0), same_id: count(1), storage_path: count(2), content })
    }
}

/// How many rows a relation has, and a sum of hashes over what they say: surrogate ids stand for what they refer to.
fn content_sql(mapping: &Mapping, relation: &Relation) -> String {
    let root = mapping.root();
    let mut values: Vec<String> = relation
        .columns
        .iter()
        .map(|column| match &column.source {
            Source::Path { .. } | Source::Position { .. } | Source::Constant { .. } => {
                format!("r.{}::text", column.name)
            }
            Source::Lookup { lookup, .. } => {
                let catalogue = &mapping.lookups[*lookup];
                let key = catalogue.key.join(", ");
                format!(
                    "(SELECT ROW({key})::text FROM {} WHERE {} = r.{})",
                    catalogue.table, catalogue.id, column.name
                )
            }
        })
        .collect();
    if let (Some(parent), Some(id)) = (relation.parent.first(), &root.id) {
        values.push(format!("(SELECT {} FROM {} WHERE {id} = r.{parent})", root.key[0], root.table));
    }
    let hash = format!("('x' || left(md5(ROW({})::text), 15))::bit(60)::bigint", values.join(", "));
    format!("SELECT count(*), coalesce(sum({hash}), 0)::text FROM {} r", relation.table)
}

async fn database(server: &LocalServer, name: &str) -> Result<Pool, String> {
    let admin = connect::pool(Access::local(server.config("postgres"))?, 1).await?;
    let client = connect::get(&admin).await?;
    client.batch_execute(&format!("CREATE DATABASE {name}")).await.map_err(|error| connect::words(&error))?;
    let pool = connect::pool(Access::local(server.config(name))?, REWRITE_WORKERS).await?;
    let mut client = connect::get(&pool).await?;
    client.batch_execute(TABLES).await.map_err(|error| connect::words(&error))?;
    install(&mut client).await.map_err(|error| error.to_string())?;
    Ok(pool)
}

/// Where the server's write-ahead log stands, in bytes.
async fn wal(client: &Client) -> Result<u64, String> {
    let sql = "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::int8";
    client
        .query_one(sql, &[])
        .await
        .map(|row| row.get::<_, i64>(0) as u64)
        .map_err(|error| connect::words(&error))
}

/// One line that is overwritten, on a terminal only.
fn progress(text: &str) {
    if std::io::stderr().is_terminal() {
        eprint!("\r\x1b[K{text}");
    }
}

async fn keep(server: &LocalServer) -> Result<(), String> {
    let psql = server.bin_dir().join("psql");
    let psql = if psql.exists() { psql.display().to_string() } else { "psql".into() };
    println!("\nThe databases are there until you press Ctrl-C:");
    for (way, name) in WAYS {
        println!("\n# {}\n{psql} '{}'", way.title(), server.url(name));
    }
    stop_on_signals().wait_for(|signal| *signal != 0).await.map(drop).map_err(|error| error.to_string())
}

/// Writes the dumps, the mapping and the tables, for a database of one's own.
fn write(dir: &Path, calls: Calls) -> std::io::Result<Exit> {
    use std::io::Write as _;
    std::fs::create_dir_all(dir)?;
    std::fs::write(dir.join("mapping.toml"), MAPPING)?;
    std::fs::write(dir.join("schema.sql"), TABLES)?;
    for (at, (title, night)) in NIGHTS.into_iter().enumerate() {
        let path = dir.join(format!("night-{}.ndjson.gz", at + 1));
        let mut file =
            flate2::write::GzEncoder::new(std::fs::File::create(&path)?, flate2::Compression::fast());
        for document in calls.night(night) {
            file.write_all(&document)?;
            file.write_all(b"\n")?;
        }
        file.finish()?;
        println!("{}  {title}", path.display());
    }
    Ok(Exit::Done)
}
