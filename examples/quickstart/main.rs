//! Four nights of a nightly job, with a PostgreSQL of its own: `cargo run --release --example quickstart`.
//!
//! It starts a local server (found, or fetched into the user's cache), makes the
//! tables of `examples/convocatorias`, and syncs generated grant calls: the first
//! load, a night on which nothing changed, one on which one call in a hundred
//! did, and one on which every list came in another order. An argument sets the
//! number of calls, 5,000 by default; a second one the seed.

mod calls;

use std::error::Error;

use bb8_postgres::PostgresConnectionManager;
use futures_util::stream;
use rowdelta::document::{Document, Origin};
use rowdelta::engine::Engine;
use rowdelta::engine::report::Report;
use rowdelta::mapping::Mapping;
use rowdelta::postgres::install::install;
use rowdelta::postgres::local::{LocalServer, Options};
use tokio_postgres::NoTls;

use calls::{Calls, Night};

const MAPPING: &str = include_str!("../convocatorias/mapping.toml");
const TABLES: &str = include_str!("../convocatorias/schema.sql");

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let count = arguments.next().map_or(Ok(5_000), |text| text.parse())?;
    let seed = arguments.next().map_or(Ok(1), |text| text.parse())?;
    let server = tokio::task::spawn_blocking(|| LocalServer::start(Options::durable())).await??;
    println!("{}\n{count} generated calls, seed {seed}\n", server.description());

    let manager = PostgresConnectionManager::new_from_stringlike(server.url("postgres"), NoTls)?;
    let pool = bb8::Pool::builder().max_size(6).build(manager).await?;
    let mut client = pool.get_owned().await?;
    client.batch_execute(TABLES).await?;
    install(&mut client).await?;
    let engine = Engine::builder(Mapping::from_toml(MAPPING)?).build(pool).await?;

    let calls = Calls { count, seed };
    println!(
        "{:<26}{:>8}{:>11}{:>9}{:>14}{:>12}{:>8}",
        "night", "read", "unchanged", "changed", "rows written", "WAL", "ms"
    );
    let nights = [
        ("first load", Night::First),
        ("nothing changed", Night::First),
        ("one call in a hundred", Night::OneInAHundred),
        ("all lists reordered", Night::Reordered),
    ];
    for (name, night) in nights {
        // As between two nights: what the last one left behind is not this one's.
        client.batch_execute("VACUUM (ANALYZE)").await?;
        client.batch_execute("CHECKPOINT").await?;
        let documents = calls.night(night).enumerate().map(|(at, bytes)| {
            Ok(Document { bytes, origin: Origin { file: None, line: at as u64 + 1, item: None } })
        });
        print_night(name, &engine.sync(stream::iter(documents)).await?);
    }
    Ok(())
}

fn print_night(name: &str, report: &Report) {
    let documents = &report.documents;
    println!(
        "{name:<26}{:>8}{:>11}{:>9}{:>14}{:>8} KiB{:>8}",
        documents.read,
        documents.unchanged,
        documents.new + documents.changed,
        report.rows_written(),
        report.wal_bytes / 1024,
        report.elapsed_ms,
    );
}
