//! A step of a pipeline that has a pool of its own: it syncs what an API gave it, shows how far it is, and hands on what
//! changed.
//!
//! ```text
//! cargo run --example embed
//! ```
//!
//! on the database that `DATABASE_URL` names, in a schema of its own; without it on a PostgreSQL that is started for it.

use std::error::Error;
use std::time::Duration;

use bb8_postgres::PostgresConnectionManager;
use rowdelta::engine::documents;
use rowdelta::postgres::install;
use rowdelta::postgres::local::{LocalServer, Options};
use rowdelta::{Engine, Mapping, Report};
use tokio_postgres::NoTls;

const TABLES: &str = "
    DROP SCHEMA IF EXISTS example_embed CASCADE;
    CREATE SCHEMA example_embed;
    CREATE TABLE example_embed.orders (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, number text UNIQUE,
        customer text);
    CREATE TABLE example_embed.line (order_id bigint REFERENCES example_embed.orders, sku text, quantity int,
        PRIMARY KEY (order_id, sku));";

const MAPPING: &str = r#"
    version = 1
    name = "example_embed"
    [root]
    table = "example_embed.orders"
    key = ["number"]
    id = "id"
    columns = { number = "number", customer = "customer.name" }
    [[root.children]]
    name = "lines"
    table = "example_embed.line"
    parent = "order_id"
    key = ["sku"]
    columns = { sku = "sku", quantity = "qty" }
"#;

/// The program's pool; rowdelta takes connections from it as it needs them.
type Pool = bb8::Pool<PostgresConnectionManager<NoTls>>;

/// The step. `?` fails it when documents failed: what succeeded is in, and is skipped when it is tried again.
async fn step(pool: Pool, feed: Vec<Vec<u8>>) -> Result<Report, Box<dyn Error>> {
    let engine = Engine::builder(Mapping::from_toml(MAPPING)?).workers(2).build(pool).await?;
    let progress = engine.progress();
    let shown = tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_secs(10)).await;
            let now = progress.snapshot();
            println!("{}: {} documents read, {} failed", now.phase, now.read, now.failed);
        }
    });
    let synced = engine.sync(documents::of(feed)).await;
    shown.abort();
    Ok(synced?)
}

/// Two nights on this database; gives how many rows each wrote.
pub async fn run(url: &str) -> Result<[u64; 2], Box<dyn Error>> {
    let pool = Pool::builder().build(PostgresConnectionManager::new_from_stringlike(url, NoTls)?).await?;
    {
        let mut client = pool.get().await?;
        client.batch_execute(TABLES).await?;
        install::install(&mut client).await?;
    }
    let night = |quantity: u32| {
        let order = |n: u32| {
            let quantity = if n == 7 { quantity } else { 1 };
            let line = format!(r#"{{"sku": "a", "qty": {quantity}}}"#);
            format!(r#"{{"number": "{n}", "customer": {{"name": "Ana"}}, "lines": [{line}]}}"#).into_bytes()
        };
        (1..=100).map(order).collect()
    };
    let first = step(pool.clone(), night(1)).await?;
    println!("first night, rows written: {}", first.rows_written());
    let second = step(pool, night(2)).await?;
    println!(
        "second night, rows written: {}; documents unchanged: {}",
        second.rows_written(),
        second.documents.unchanged
    );
    Ok([first.rows_written(), second.rows_written()])
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    if let Ok(url) = std::env::var("DATABASE_URL") {
        return run(&url).await.map(drop);
    }
    let server = tokio::task::spawn_blocking(|| LocalServer::start(Options::fast())).await??;
    run(&server.url("postgres")).await.map(drop)
}
