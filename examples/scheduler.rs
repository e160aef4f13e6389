//! A step of a scheduler: it fails with the relations that are not in step, and says whether trying again can help.
//!
//! ```text
//! cargo run --example scheduler
//! ```
//!
//! on the database that `DATABASE_URL` names, in a schema of its own; without it on a PostgreSQL that is started for it.
//! Here somebody holds a row while the step runs for the first time, and one document is wrong for good.

use std::collections::BTreeSet;
use std::error::Error;
use std::fmt;
use std::time::Duration;

use bb8_postgres::PostgresConnectionManager;
use rowdelta::engine::documents;
use rowdelta::postgres::install;
use rowdelta::postgres::local::{LocalServer, Options};
use rowdelta::{Engine, Mapping, Report, SyncError};
use tokio_postgres::NoTls;

const TABLES: &str = "
    DROP SCHEMA IF EXISTS example_scheduler CASCADE;
    CREATE SCHEMA example_scheduler;
    CREATE TABLE example_scheduler.place (code text PRIMARY KEY, name text);
    CREATE TABLE example_scheduler.reading (place text REFERENCES example_scheduler.place, hour int CHECK (hour < 24),
        celsius numeric(4,1), PRIMARY KEY (place, hour));";

const MAPPING: &str = r#"
    version = 1
    name = "example_scheduler"
    [root]
    table = "example_scheduler.place"
    key = ["code"]
    columns = { code = "code", name = "name" }
    [[root.children]]
    name = "readings"
    table = "example_scheduler.reading"
    parent = "place"
    key = ["hour"]
    columns = { hour = "hour", celsius = "celsius" }
"#;

const FEED: [&str; 3] = [
    r#"{"code": "MAD", "name": "Madrid", "readings": [{"hour": 9, "celsius": 21.5}]}"#,
    r#"{"code": "BCN", "name": "Barcelona", "readings": [{"hour": 9, "celsius": 23.0}]}"#,
    r#"{"code": "SVQ", "name": "Sevilla", "readings": [{"hour": 25, "celsius": 30.1}]}"#,
];

/// Why a step failed, as a scheduler shows it.
#[derive(Debug)]
pub struct StepFailed {
    /// What is not in step, wholly or in part.
    pub relations: BTreeSet<String>,
    /// Whether the scheduler should run the step again.
    pub try_again: bool,
    cause: SyncError,
}

impl From<SyncError> for StepFailed {
    fn from(cause: SyncError) -> Self {
        let failures = cause.report().map_or(&[][..], |report| &report.failures);
        let relations = failures.iter().filter_map(|failure| failure.relation.clone()).collect();
        let may_pass = cause.cause().is_some_and(rowdelta::Error::is_transient);
        let try_again = may_pass || failures.iter().any(|failure| failure.retryable);
        StepFailed { relations, try_again, cause }
    }
}

impl fmt::Display for StepFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let relations = self.relations.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
        let what = if self.try_again { "to be tried again" } else { "not to be tried again" };
        write!(f, "not in step: {relations}; {what}: {}", self.cause)
    }
}

impl Error for StepFailed {}

/// The step, as short as it gets: `?` makes a failure of it.
async fn step(engine: &Engine) -> Result<Report, StepFailed> {
    Ok(engine.sync(documents::of(FEED)).await?)
}

/// The scheduler: runs the step up to three times; gives what each run failed with.
pub async fn run(url: &str) -> Result<Vec<StepFailed>, Box<dyn Error>> {
    let manager = PostgresConnectionManager::new_from_stringlike(url, NoTls)?;
    let pool = bb8::Pool::builder().build(manager).await?;
    let mut client = pool.get().await?;
    client.batch_execute(TABLES).await?;
    install::install(&mut client).await?;
    let builder = Engine::builder(Mapping::from_toml(MAPPING)?).lock_timeout(Duration::from_millis(200));
    // The scheduler tries again: the engine need not, here.
    let engine = builder.retries_max(0).build(pool.clone()).await?;

    client.batch_execute("INSERT INTO example_scheduler.place VALUES ('BCN', 'Barna')").await?;
    client.batch_execute("BEGIN; SELECT FROM example_scheduler.place WHERE code = 'BCN' FOR UPDATE").await?;
    let mut failed = Vec::new();
    for attempt in 1..=3 {
        match step(&engine).await {
            Ok(report) => {
                println!("attempt {attempt}: {} rows written", report.rows_written());
                break;
            }
            Err(error) => {
                println!("attempt {attempt}: {error}");
                let try_again = error.try_again;
                failed.push(error);
                if !try_again {
                    break;
                }
            }
        }
        // Meanwhile whoever held the row is done with it.
        client.batch_execute("COMMIT").await?;
    }
    Ok(failed)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    if let Ok(url) = std::env::var("DATABASE_URL") {
        return run(&url).await.map(drop);
    }
    let server = tokio::task::spawn_blocking(|| LocalServer::start(Options::fast())).await??;
    run(&server.url("postgres")).await.map(drop)
}
