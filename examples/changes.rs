//! A step after the sync that works on just the rows that changed: it fetches new files, and no others, and notes beside
//! each where it lies.
//!
//! ```text
//! cargo run --example changes
//! ```
//!
//! on the database that `DATABASE_URL` names, in a schema of its own; without it on a PostgreSQL that is started for it.

use std::error::Error;

use bb8_postgres::PostgresConnectionManager;
use rowdelta::engine::changes::{Action, Change};
use rowdelta::engine::documents;
use rowdelta::postgres::install;
use rowdelta::postgres::local::{LocalServer, Options};
use rowdelta::{Engine, Mapping};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_postgres::NoTls;

const TABLES: &str = "
    DROP SCHEMA IF EXISTS example_changes CASCADE;
    CREATE SCHEMA example_changes;
    CREATE TABLE example_changes.call (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, code text UNIQUE, title text);
    CREATE TABLE example_changes.file (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, official bigint UNIQUE,
        call_id bigint REFERENCES example_changes.call, name text, storage_path text);";

const MAPPING: &str = r#"
    version = 1
    name = "example_changes"
    [root]
    table = "example_changes.call"
    key = ["code"]
    id = "id"
    columns = { code = "code", title = "title" }
    [[root.children]]
    name = "files"
    table = "example_changes.file"
    parent = "call_id"
    id = "id"
    key = ["official"]
    unique_in = "all"
    columns = { official = "id", name = "name" }
"#;

type Pool = bb8::Pool<PostgresConnectionManager<NoTls>>;

/// A night: while it is synced the files of new rows are fetched. Gives their names.
async fn night(pool: Pool, feed: Vec<Value>) -> Result<Vec<String>, Box<dyn Error>> {
    // No more than these wait to be fetched: a slow download slows the sync, and does not fill memory.
    let (sender, changes) = mpsc::channel(100);
    let engine = Engine::builder(Mapping::from_toml(MAPPING)?).changes(sender).build(pool.clone()).await?;
    let fetching = tokio::spawn(fetch(pool, changes));
    let synced = engine.sync(documents::of(feed)).await;
    // With the engine the channel ends.
    drop(engine);
    let fetched = fetching.await?;
    synced?;
    fetched.map_err(|error| -> Box<dyn Error> { error })
}

/// What is told is committed: a row that refers to it, or a column beside it, can be written at once.
async fn fetch(
    pool: Pool,
    mut changes: mpsc::Receiver<Change>,
) -> Result<Vec<String>, Box<dyn Error + Send + Sync>> {
    let mut fetched = Vec::new();
    while let Some(change) = changes.recv().await {
        if &*change.relation != "files" || change.action != Action::Added {
            continue;
        }
        let value = |column| change.after.as_ref()?.get(column)?;
        let (Some(official), Some(name)) = (value("official"), value("name")) else { continue };
        println!("fetching {name}");
        let path = format!("files/{official}/{name}");
        let note = "UPDATE example_changes.file SET storage_path = $1 WHERE official = $2::text::bigint";
        pool.get().await?.execute(note, &[&path, &official]).await?;
        fetched.push(name.to_owned());
    }
    Ok(fetched)
}

/// Two nights on this database; gives what each fetched, and how many files have a path in the end.
pub async fn run(url: &str) -> Result<([Vec<String>; 2], i64), Box<dyn Error>> {
    let pool = Pool::builder().build(PostgresConnectionManager::new_from_stringlike(url, NoTls)?).await?;
    {
        let mut client = pool.get().await?;
        client.batch_execute(TABLES).await?;
        install::install(&mut client).await?;
    }
    let plan = json!({ "id": 1, "name": "plan.pdf" });
    let call = |title: &str, files: Value| json!({ "code": "C1", "title": title, "files": files });
    let first = night(pool.clone(), vec![call("Roads", json!([plan]))]).await?;
    // Another title, and one more file: the first one is not fetched again, and keeps its path.
    let second =
        night(pool.clone(), vec![call("Bridges", json!([{ "id": 2, "name": "map.pdf" }, plan]))]).await?;
    let sql = "SELECT count(storage_path) FROM example_changes.file";
    let stored = pool.get().await?.query_one(sql, &[]).await?.get(0);
    println!("files with a path: {stored}");
    Ok(([first, second], stored))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    if let Ok(url) = std::env::var("DATABASE_URL") {
        return run(&url).await.map(drop);
    }
    let server = tokio::task::spawn_blocking(|| LocalServer::start(Options::fast())).await??;
    run(&server.url("postgres")).await.map(drop)
}
