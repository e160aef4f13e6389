//! The server of the benchmark: its databases, and what it tells of a run.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use rowdelta::postgres::local::{LocalServer, Options};
use tokio::runtime::Runtime;
use tokio_postgres::{Client, Row};

use crate::Outcome;
use crate::edit::RowCounts;
use crate::peer::connect;
use crate::wal::{self, Wal};

/// The settings of a server that is measured, beside fsync. The log may grow so far, and checkpoints are so rare, that
/// none comes during a run; autovacuum would come during one's run and not during another's.
const SETTINGS: [(&str, &str); 6] = [
    ("autovacuum", "off"),
    ("shared_buffers", "1GB"),
    ("max_wal_size", "32GB"),
    ("min_wal_size", "2GB"),
    ("checkpoint_timeout", "1h"),
    ("max_connections", "50"),
];
/// From this version on what a session counted is there when it has ended. Before, it is sent from time to time.
const COUNTS_AT_ONCE: u32 = 15;
const COUNTS_LATE_BY: Duration = Duration::from_millis(1500);
const POLL: Duration = Duration::from_millis(5);

/// A server, and a connection to it that no contestant uses.
pub struct Server {
    local: LocalServer,
    runtime: Runtime,
    admin: Client,
}

/// What the server has done by a moment.
pub struct Moment {
    lsn: String,
    /// CPU time of all its processes, in seconds, where that can be known.
    cpu: Option<f64>,
    commits: i64,
}

/// What the server did for a run.
pub struct Served {
    /// CPU time in seconds.
    pub cpu: Option<f64>,
    /// Bytes of write-ahead log.
    pub wal_bytes: u64,
    /// Whose they are, if that was asked and can be known.
    pub wal: Option<Wal>,
    /// Transactions committed, those that only read among them.
    pub commits: u64,
    /// Rows written, for each of the user's tables that has any.
    pub rows: BTreeMap<String, RowCounts>,
    /// Dead rows in them.
    pub dead: u64,
}

impl Server {
    /// Starts one: durable, or for a test as fast as can be.
    pub fn start(durable: bool) -> Outcome<Self> {
        let options = if durable { Options::durable() } else { Options::fast() };
        let options = SETTINGS.iter().fold(options, |options, (name, value)| options.setting(name, value));
        let local = LocalServer::start(options)?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let admin = runtime.block_on(connect(&local.url("postgres")))?;
        // What was written is in the files when a statement has ended: `pg_waldump` reads these.
        runtime.block_on(admin.batch_execute("SET synchronous_commit = on"))?;
        Ok(Self { local, runtime, admin })
    }

    /// Which server it is, and how it is set.
    pub fn description(&self, durable: bool) -> String {
        let settings: Vec<String> =
            SETTINGS.iter().map(|(name, value)| format!("{name} = {value}")).collect();
        let fsync = if durable { "on" } else { "off" };
        format!("{}; fsync = {fsync}, {}", self.local.description(), settings.join(", "))
    }

    /// How to connect to a database.
    pub fn url(&self, database: &str) -> String {
        self.local.url(database)
    }

    /// Creates a database, in place of one of that name, as a copy of another.
    pub fn create(&self, name: &str, template: &str) -> Outcome<()> {
        self.remove(name)?;
        // A copy of the files: what is copied through the log has to be read again by the next checkpoint.
        let strategy = if self.local.major_version() >= 15 { "STRATEGY file_copy" } else { "" };
        self.admin(&format!("CREATE DATABASE {name} TEMPLATE {template} {strategy}"))
    }

    /// Drops a database, if it is there.
    pub fn remove(&self, name: &str) -> Outcome<()> {
        self.admin(&format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"))
    }

    fn admin(&self, sql: &str) -> Outcome<()> {
        Ok(self.runtime.block_on(self.admin.batch_execute(sql))?)
    }

    /// Does something with a connection of its own.
    pub fn with<T>(&self, database: &str, work: impl AsyncFnOnce(&mut Client) -> Outcome<T>) -> Outcome<T> {
        self.runtime.block_on(async {
            let mut client = connect(&self.url(database)).await?;
            work(&mut client).await
        })
    }

    /// Runs statements, each in a transaction of its own if they are given apart.
    pub fn execute(&self, database: &str, statements: &[&str]) -> Outcome<()> {
        self.with(database, async |client| {
            for sql in statements {
                client.batch_execute(sql).await?;
            }
            Ok(())
        })
    }

    /// How things stand before a run.
    pub fn moment(&self, database: &str) -> Outcome<Moment> {
        self.settle(database)?;
        let sql =
            "SELECT pg_current_wal_insert_lsn()::text, xact_commit FROM pg_stat_database WHERE datname = $1";
        let row = self.runtime.block_on(self.admin.query_one(sql, &[&database]))?;
        Ok(Moment { lsn: row.get(0), commits: row.get(1), cpu: self.cpu() })
    }

    /// What happened since. `split`: also whose the log is, which takes some time to find out.
    pub fn served(&self, database: &str, before: &Moment, split: bool) -> Outcome<Served> {
        let after = self.moment(database)?;
        let sql = "SELECT pg_wal_lsn_diff($1::text::pg_lsn, $2::text::pg_lsn)::bigint,
                          pg_logical_emit_message(true, 'bench', 'so that all before is flushed')::text";
        let wal_bytes: i64 =
            self.runtime.block_on(self.admin.query_one(sql, &[&after.lsn, &before.lsn]))?.get(0);
        let (counts, owners) = self.with(database, async |client| {
            Ok((client.query(COUNTS_SQL, &[]).await?, client.query(wal::OWNERS_SQL, &[]).await?))
        })?;
        let wal = match split {
            true => wal::split(&self.waldump(), &self.pg_wal(), &before.lsn, &after.lsn, &owners)?,
            false => None,
        };
        Ok(Served {
            cpu: before.cpu.zip(after.cpu).map(|(before, after)| after - before),
            wal_bytes: wal_bytes as u64,
            wal,
            commits: (after.commits - before.commits) as u64,
            rows: counts.iter().map(counts_of).filter(|(_, counts)| counts.sum() > 0).collect(),
            dead: counts.iter().map(|row| row.get::<_, i64>(4) as u64).sum(),
        })
    }

    /// Waits until no session is left in a database, and until what they counted is known.
    fn settle(&self, database: &str) -> Outcome<()> {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = $1";
        while self.runtime.block_on(self.admin.query_one(sql, &[&database]))?.get::<_, i64>(0) > 0 {
            std::thread::sleep(POLL);
        }
        if self.local.major_version() < COUNTS_AT_ONCE {
            std::thread::sleep(COUNTS_LATE_BY);
        }
        Ok(())
    }

    /// CPU time of the server's processes, in seconds, those that have ended included.
    fn cpu(&self) -> Option<f64> {
        let server = self.local.pid()?;
        let ticks: u64 = std::fs::read_dir("/proc")
            .ok()?
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok())
            .filter_map(|pid| ticks(pid, server))
            .sum();
        let per_second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok()??;
        (ticks > 0).then_some(ticks as f64 / per_second as f64)
    }

    fn waldump(&self) -> PathBuf {
        self.local.bin_dir().join("pg_waldump")
    }

    fn pg_wal(&self) -> PathBuf {
        self.local.data_dir().join("pg_wal")
    }
}

const COUNTS_SQL: &str = "SELECT relname::text, n_tup_ins, n_tup_upd, n_tup_del, n_dead_tup
     FROM pg_stat_user_tables WHERE schemaname = 'public'";

fn counts_of(row: &Row) -> (String, RowCounts) {
    let count = |at| row.get::<_, i64>(at) as u64;
    (row.get(0), RowCounts { inserted: count(1), updated: count(2), deleted: count(3) })
}

/// CPU time of a process and of its children that have ended, if it is the server or a child of it. See `proc(5)`.
fn ticks(pid: u32, server: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name stands in parentheses, and may hold any.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let parent: u32 = fields.get(1)?.parse().ok()?;
    (pid == server || parent == server)
        .then(|| fields.get(11..15)?.iter().map(|field| field.parse::<u64>().ok()).sum())
        .flatten()
}
