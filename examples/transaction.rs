//! A sync inside a transaction of the program's own: documents, and what else belongs to them, are in together or not at
//! all.
//!
//! ```text
//! cargo run --example transaction
//! ```
//!
//! on the database that `DATABASE_URL` names, in a schema of its own; without it on a PostgreSQL that is started for it.

use std::error::Error;

use bb8_postgres::PostgresConnectionManager;
use rowdelta::engine::documents;
use rowdelta::postgres::install;
use rowdelta::postgres::local::{LocalServer, Options};
use rowdelta::{Engine, Mapping, SyncError};
use serde_json::{Value, json};
use tokio_postgres::{Client, NoTls};

const TABLES: &str = "
    DROP SCHEMA IF EXISTS example_transaction CASCADE;
    CREATE SCHEMA example_transaction;
    CREATE TABLE example_transaction.account (number text PRIMARY KEY, owner text NOT NULL);
    CREATE TABLE example_transaction.card (account text REFERENCES example_transaction.account, digits text,
        PRIMARY KEY (account, digits));
    CREATE TABLE example_transaction.import (file text PRIMARY KEY, accounts int NOT NULL);";

const MAPPING: &str = r#"
    version = 1
    name = "example_transaction"
    [root]
    table = "example_transaction.account"
    key = ["number"]
    columns = { number = "number", owner = "owner" }
    [[root.children]]
    name = "cards"
    table = "example_transaction.card"
    parent = "account"
    key = ["digits"]
    columns = { digits = "." }
"#;

/// Imports a file: its accounts, and the note that it was imported. Any account that fails keeps all of it out.
async fn import(
    engine: &Engine,
    client: &mut Client,
    file: &str,
    accounts: Vec<Value>,
) -> Result<u64, Box<dyn Error>> {
    let mut transaction = client.transaction().await?;
    let count = accounts.len() as i32;
    let report = engine.sync_in(&mut transaction, documents::of(accounts)).await?;
    let note = "INSERT INTO example_transaction.import VALUES ($1, $2)";
    transaction.execute(note, &[&file, &count]).await?;
    transaction.commit().await?;
    Ok(report.rows_written())
}

/// Imports three files, of which one is refused; gives the files noted, and how many accounts there are.
pub async fn run(url: &str) -> Result<(Vec<String>, i64), Box<dyn Error>> {
    let manager = PostgresConnectionManager::new_from_stringlike(url, NoTls)?;
    let pool = bb8::Pool::builder().build(manager).await?;
    let mut client = pool.get().await?;
    client.batch_execute(TABLES).await?;
    install::install(&mut client).await?;
    let engine = Engine::builder(Mapping::from_toml(MAPPING)?).build(pool.clone()).await?;

    let ana = json!({ "number": "1", "owner": "Ana", "cards": ["4711", "4712"] });
    let ben = json!({ "number": "2", "owner": "Ben", "cards": [] });
    println!(
        "monday, rows written: {}",
        import(&engine, &mut client, "monday", vec![ana.clone(), ben]).await?
    );
    // Nobody owns the second one.
    let new = json!({ "number": "3", "owner": "Cleo" });
    let refused =
        import(&engine, &mut client, "tuesday", vec![new.clone(), json!({ "number": "4", "owner": null })]);
    match refused.await {
        Err(error) if error.is::<SyncError>() => println!("tuesday: {error}"),
        other => println!("tuesday: {other:?}"),
    }
    println!("wednesday, rows written: {}", import(&engine, &mut client, "wednesday", vec![ana, new]).await?);

    let files = client.query("SELECT file FROM example_transaction.import ORDER BY 1", &[]).await?;
    let accounts = client.query_one("SELECT count(*) FROM example_transaction.account", &[]).await?;
    Ok((files.iter().map(|row| row.get(0)).collect(), accounts.get(0)))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    if let Ok(url) = std::env::var("DATABASE_URL") {
        return run(&url).await.map(drop);
    }
    let server = tokio::task::spawn_blocking(|| LocalServer::start(Options::fast())).await??;
    run(&server.url("postgres")).await.map(drop)
}
