//! A database for one test, copied from a template in some 40 ms.

use std::future::Future;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use rowdelta::postgres::local::{LocalServer, Options};
use tokio_postgres::config::Host;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use super::cluster::cluster;

/// What the template holds. Its name carries a digest of this text, so that a change makes a new one.
const TEMPLATE_SQL: &str = "CREATE SCHEMA oracle";

/// A database of one's own. Dropped when the test passes, left for a look when it fails.
pub struct Database {
    name: String,
    url: String,
    client: Client,
    server: Option<LocalServer>,
}

/// A database on a server of its own with these options: to kill it, to trust its disk, to measure its WAL.
pub async fn db_on(options: Options) -> Database {
    let start = || LocalServer::start(options).unwrap_or_else(|error| panic!("{error}"));
    let server = tokio::task::spawn_blocking(start).await.expect("start a server");
    let url = server.url("postgres");
    let client = connect(&url).await.expect("connect to the new server");
    let database = Database { name: "postgres".into(), url, client, server: Some(server) };
    database.execute(TEMPLATE_SQL).await;
    database.merge_by_test().await;
    database
}

/// A fresh database.
pub async fn db() -> Database {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    // Joining the cluster blocks, for seconds when this process is the first.
    let cluster = tokio::task::spawn_blocking(cluster).await.expect("join the cluster");
    let name = format!("it_{}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let strategy = if cluster.major >= 15 { " STRATEGY file_copy" } else { "" };
    let admin = connect(&format!("{}postgres", cluster.url_prefix)).await.expect("connect to the cluster");
    let create = format!("CREATE DATABASE {name} TEMPLATE {}{strategy}", template_name());
    // A pid may come again while an old database of a failed test is still there.
    admin
        .batch_execute(&format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"))
        .await
        .expect("drop database");
    admin.batch_execute(&create).await.expect("create database");
    let url = format!("{}{name}", cluster.url_prefix);
    let client = connect(&url).await.expect("connect to the new database");
    let database = Database { name, url, client, server: None };
    database.merge_by_test().await;
    database
}

impl Database {
    /// Sessions pack what is recorded as by default, or sooner, or whenever anything was recorded. Which it is says the
    /// test's name: a test does the same each time, and of a suite some do this and some that.
    async fn merge_by_test(&self) {
        let share = match fnv(std::thread::current().name().unwrap_or_default()) % 4 {
            0 => return,
            1 => "0.3",
            _ => "0",
        };
        self.merge_from(share).await;
    }

    /// Sessions from now on pack what is recorded when that is such a share of what is packed.
    pub async fn merge_from(&self, share: &str) {
        self.execute(&format!("ALTER DATABASE {} SET rowdelta.merge_share = '{share}'", self.name)).await;
    }

    /// Another, empty one on the same server.
    pub async fn beside(&self) -> Self {
        self.beside_with("").await
    }

    /// Another, empty one, with such options.
    pub async fn beside_with(&self, options: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("beside_{}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        self.execute(&format!("CREATE DATABASE {name} TEMPLATE template0 {options}")).await;
        let (server, _) = self.url.rsplit_once('/').expect("a URL with a database");
        let url = format!("{server}/{name}");
        let client = connect(&url).await.expect("connect to the new database");
        Self { name, url, client, server: None }
    }

    /// The URL for another connection, or for the command.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The directory of the server's socket, and the database's name.
    pub fn address(&self) -> (PathBuf, &str) {
        let config: tokio_postgres::Config = self.url.parse().expect("a URL of the tests' own");
        match config.get_hosts() {
            [Host::Unix(dir)] => (dir.clone(), &self.name),
            hosts => panic!("not on one Unix socket: {hosts:?}"),
        }
    }

    /// The port in the socket's name.
    pub fn port(&self) -> u16 {
        let config: tokio_postgres::Config = self.url.parse().expect("a URL of the tests' own");
        config.get_ports()[0]
    }

    /// A connection of one's own; the database also has one, which [`execute`](Self::execute) uses.
    pub async fn client(&self) -> Client {
        connect(&self.url).await.expect("connect to the test's database")
    }

    /// Crashes the server (`kill -9`), which must be the database's own, and brings it back.
    pub async fn crash(&mut self) {
        self.kill();
        self.restart().await;
    }

    /// Crashes the server, which must be the database's own.
    pub fn kill(&mut self) {
        self.server.as_mut().expect("the server is shared: use db_on").kill9();
    }

    /// Brings it back.
    pub async fn restart(&mut self) {
        let server = self.server.as_mut().expect("the server is shared: use db_on");
        tokio::task::block_in_place(|| server.restart().unwrap_or_else(|error| panic!("{error}")));
        self.client = self.client().await;
    }

    /// Runs statements.
    pub async fn execute(&self, sql: &str) {
        self.client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{}\n{sql}", describe(&error)));
    }

    /// The rows of a query, as text.
    pub async fn table(&self, sql: &str) -> Vec<Vec<Option<String>>> {
        rows(&self.client, sql).await.unwrap_or_else(|error| panic!("{error}\n{sql}"))
    }

    /// The one value of a query, as text.
    pub async fn value(&self, sql: &str) -> String {
        let rows = self.table(sql).await;
        rows[0][0].clone().unwrap_or_else(|| "NULL".into())
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if self.server.is_some() {
            return; // it goes with all that is in it
        }
        if std::thread::panicking() {
            eprintln!("database {} is left while the run lasts", self.url);
            return;
        }
        let (server, _) = self.url.rsplit_once('/').expect("a URL with a database");
        let admin = format!("{server}/postgres");
        let drop = format!("DROP DATABASE {} WITH (FORCE)", self.name);
        // The server waits until every session has heard of it, and one that reads a COPY hears nothing. When that COPY is
        // another lane's of this very task, each waits for the other: what cannot be dropped soon goes with the cluster.
        blocking(async move {
            if let Ok(admin) = connect(&admin).await {
                let _ = admin.batch_execute("SET statement_timeout = '5s'").await;
                let _ = admin.batch_execute(&drop).await;
            }
        });
    }
}

/// Rows of a query as text, whatever their types.
pub async fn rows(client: &Client, sql: &str) -> Result<Vec<Vec<Option<String>>>, String> {
    let messages = client.simple_query(sql).await.map_err(|error| describe(&error))?;
    let cells = |row: tokio_postgres::SimpleQueryRow| {
        (0..row.len()).map(|at| row.get(at).map(str::to_owned)).collect::<Vec<_>>()
    };
    let row = |message| match message {
        SimpleQueryMessage::Row(row) => Some(cells(row)),
        _ => None,
    };
    Ok(messages.into_iter().filter_map(row).collect())
}

/// An error of the server with its detail and place, which `Display` leaves out.
pub fn describe(error: &tokio_postgres::Error) -> String {
    let Some(db) = error.as_db_error() else { return error.to_string() };
    let more = [db.detail(), db.where_(), db.hint()].into_iter().flatten().collect::<Vec<_>>().join("; ");
    format!("{}: {} {more}", db.code().code(), db.message())
}

/// Connects, and drives the connection in the background.
pub async fn connect(url: &str) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// Runs a future to its end from anywhere, also from within another runtime.
pub fn blocking<T: Send>(future: impl Future<Output = T> + Send) -> T {
    let run = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(future)
    };
    std::thread::scope(|scope| scope.spawn(run).join().expect("the future panicked"))
}

/// Makes the template unless it is there. The caller holds the start lock.
pub fn make_template(url_prefix: &str) {
    blocking(async {
        let name = template_name();
        let admin = connect(&format!("{url_prefix}postgres")).await.expect("connect to the cluster");
        let there = rows(&admin, &format!("SELECT 1 FROM pg_database WHERE datname = '{name}'")).await;
        if !there.expect("look for the template").is_empty() {
            return;
        }
        let draft = format!("{name}_draft");
        admin.batch_execute(&format!("DROP DATABASE IF EXISTS {draft}")).await.expect("drop the draft");
        admin
            .batch_execute(&format!("CREATE DATABASE {draft} TEMPLATE template0"))
            .await
            .expect("make the draft");
        let client = connect(&format!("{url_prefix}{draft}")).await.expect("connect to the draft");
        client.batch_execute(TEMPLATE_SQL).await.expect("fill the template");
        drop(client);
        let drain =
            format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{draft}'");
        admin.batch_execute(&drain).await.expect("end the last session");
        rename(&admin, &draft, &name).await;
    });
}

/// A session that was just ended counts for a moment longer.
async fn rename(admin: &Client, draft: &str, name: &str) {
    let rename = format!("ALTER DATABASE {draft} RENAME TO {name}");
    for _ in 0..100 {
        if admin.batch_execute(&rename).await.is_ok() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("the template could not be renamed");
}

fn template_name() -> String {
    format!("template_{:016x}", fnv(TEMPLATE_SQL))
}

/// FNV-1a: stable between builds, which the standard library's hasher does not promise.
fn fnv(text: &str) -> u64 {
    text.bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
