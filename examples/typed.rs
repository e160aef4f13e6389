//! Documents that are values of a type of the program's own: anything that `serde` can serialize.
//!
//! ```text
//! cargo run --example typed
//! ```
//!
//! on the database that `DATABASE_URL` names, in a schema of its own; without it on a PostgreSQL that is started for it.

use std::error::Error;

use bb8_postgres::PostgresConnectionManager;
use futures_util::{Stream, stream};
use rowdelta::engine::documents;
use rowdelta::postgres::install;
use rowdelta::postgres::local::{LocalServer, Options};
use rowdelta::{Engine, Mapping};
use serde::Serialize;
use tokio_postgres::NoTls;

/// What the program knows of a film. The mapping's paths are the names that `serde` writes.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Film {
    id: u64,
    title: String,
    /// Left out of the JSON where it is not known: the column is left alone then.
    #[serde(skip_serializing_if = "Option::is_none")]
    running_time: Option<u16>,
    cast: Vec<Role>,
}

#[derive(Serialize)]
struct Role {
    name: String,
    actor: String,
}

const TABLES: &str = "
    DROP SCHEMA IF EXISTS example_typed CASCADE;
    CREATE SCHEMA example_typed;
    CREATE TABLE example_typed.film (id bigint PRIMARY KEY, title text NOT NULL, minutes int);
    CREATE TABLE example_typed.role (film bigint REFERENCES example_typed.film, name text, actor text,
        PRIMARY KEY (film, name));";

const MAPPING: &str = r#"
    version = 1
    name = "example_typed"
    [root]
    table = "example_typed.film"
    key = ["id"]
    columns = { id = "id", title = "title", minutes = "runningTime" }
    [[root.children]]
    name = "cast"
    table = "example_typed.role"
    parent = "film"
    key = ["name"]
    columns = { name = "name", actor = "actor" }
"#;

/// What may come from a database cursor, a queue, a paged API.
fn films() -> impl Stream<Item = Film> + Send {
    let role = |name: &str, actor: &str| Role { name: name.into(), actor: actor.into() };
    stream::iter([
        Film {
            id: 1,
            title: "Metropolis".into(),
            running_time: Some(153),
            cast: vec![role("Maria", "Brigitte Helm"), role("Freder", "Gustav Fröhlich")],
        },
        Film {
            id: 2,
            title: "Nosferatu".into(),
            running_time: None,
            cast: vec![role("Orlok", "Max Schreck")],
        },
    ])
}

/// Syncs them twice; gives how many rows each run wrote.
pub async fn run(url: &str) -> Result<[u64; 2], Box<dyn Error>> {
    let manager = PostgresConnectionManager::new_from_stringlike(url, NoTls)?;
    let pool = bb8::Pool::builder().build(manager).await?;
    {
        let mut client = pool.get().await?;
        client.batch_execute(TABLES).await?;
        install::install(&mut client).await?;
    }
    let engine = Engine::builder(Mapping::from_toml(MAPPING)?).build(pool).await?;
    let first = engine.sync(documents::from_serde(films())).await?;
    let again = engine.sync(documents::from_serde(films())).await?;
    println!("{} rows written, then {}", first.rows_written(), again.rows_written());
    Ok([first.rows_written(), again.rows_written()])
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    if let Ok(url) = std::env::var("DATABASE_URL") {
        return run(&url).await.map(drop);
    }
    let server = tokio::task::spawn_blocking(|| LocalServer::start(Options::fast())).await??;
    run(&server.url("postgres")).await.map(drop)
}
