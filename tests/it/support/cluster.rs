//! One fast cluster for all tests of a run.
//!
//! nextest runs one process a test, `cargo test` one process with threads, so no test
//! can own the cluster. A *keeper* does: this very test binary, started once more and
//! detached. Two lock files order the rest:
//!
//! - `start.lock` is held by whoever looks whether there is a cluster and starts one if not;
//! - `users.lock` is held, shared, by every test process to its end, however it ends.
//!
//! When nobody has held `users.lock` for a while the keeper takes `start.lock`, looks
//! once more, stops the server and ends. Should the keeper itself be killed, the
//! server's own watchdog stops it. Its files are in memory where there is room.
//!
//! `ROWDELTA_PG_BIN` and `ROWDELTA_PG_VERSION` choose the server, as everywhere; runs on different ones share nothing.

// File locks are newer than the Rust that the library promises; the tests need not run there.
#![allow(clippy::incompatible_msrv)]

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rowdelta::postgres::local::{LocalServer, Options};

/// Longer than the pause between two tests of one run.
const IDLE_MAX: Duration = Duration::from_secs(3);
/// A first start may have to download the server.
const START_MAX: Duration = Duration::from_secs(180);
/// Far more than the databases of all tests at once.
const IN_MEMORY_KIB_MIN: u64 = 6 << 20;
const KEEPER: &str = "ROWDELTA_IT_KEEPER";

/// The cluster of this run.
pub struct Cluster {
    /// Connection URL without a database at its end.
    pub url_prefix: String,
    /// Its major version.
    pub major: u32,
    /// Held to the end of the process.
    _user: File,
}

/// The cluster of this run, started if need be.
pub fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(join)
}

fn join() -> Cluster {
    let starting = lock_file("start.lock");
    starting.lock().expect("lock start.lock");
    let user = lock_file("users.lock");
    user.lock_shared().expect("lock users.lock");
    let address = dir().join("address");
    if !fs::read_to_string(&address).is_ok_and(|text| is_alive(&text)) {
        start_keeper(&address);
    }
    let text = fs::read_to_string(&address).expect("the keeper wrote the address");
    let (url_prefix, major) = parse_address(&text).expect("an address has two lines");
    super::database::make_template(&url_prefix);
    starting.unlock().expect("unlock start.lock");
    Cluster { url_prefix, major, _user: user }
}

/// Two lines: the URL up to the database's name, and the major version.
fn parse_address(text: &str) -> Option<(String, u32)> {
    let mut lines = text.lines();
    Some((lines.next()?.to_owned(), lines.next()?.parse().ok()?))
}

/// Whether the server at the address answers.
fn is_alive(address: &str) -> bool {
    parse_address(address).is_some_and(|(prefix, _)| {
        super::database::blocking(async move {
            super::database::connect(&format!("{prefix}postgres")).await.is_ok()
        })
    })
}

#[allow(clippy::zombie_processes)] // it outlives this process, which is the point
fn start_keeper(address: &Path) {
    let _ = fs::remove_file(address);
    let log_file = dir().join("keeper.log");
    let log = File::create(&log_file).expect("make the keeper's log");
    let mut keeper = Command::new(std::env::current_exe().expect("the path of this binary"));
    // The module's path without the crate, which is not part of a test's name.
    let module = module_path!().split_once("::").map_or("", |(_, module)| module);
    keeper.args(["--exact", &format!("{module}::keeper"), "--nocapture"]).env(KEEPER, "1");
    keeper
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a second handle"))
        .stderr(log)
        .process_group(0);
    if let Some(dir) = in_memory() {
        keeper.env("TMPDIR", dir);
    }
    let mut keeper = keeper.spawn().expect("start the keeper");
    let start = Instant::now();
    while !address.exists() {
        let ended = keeper.try_wait().expect("ask for the keeper's state").is_some();
        if ended || start.elapsed() > START_MAX {
            panic!("no cluster: {}", fs::read_to_string(&log_file).unwrap_or_default());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Where files are kept in memory, if there is room enough: tests create and drop so many tables that on a disk a sixth
/// of their time is spent on making files.
fn in_memory() -> Option<PathBuf> {
    let dir = PathBuf::from("/dev/shm");
    let said = Command::new("df").args(["--output=avail", "-k"]).arg(&dir).output().ok()?;
    let available: u64 = String::from_utf8(said.stdout).ok()?.lines().nth(1)?.trim().parse().ok()?;
    (available > IN_MEMORY_KIB_MIN && std::env::var_os("TMPDIR").is_none()).then_some(dir)
}

/// Not a test: the process that owns the cluster, see the head of this file.
#[test]
fn keeper() {
    if std::env::var_os(KEEPER).is_none() {
        return;
    }
    let options = Options { log_file: Some(dir().join("server.log")), ..Options::fast() };
    // Autovacuum would write WAL while a test measures it; the room for locks is for many partitions.
    let options = options.setting("autovacuum", "off").setting("max_connections", "200");
    let server =
        LocalServer::start(options.setting("max_locks_per_transaction", "256")).expect("start the cluster");
    println!("{}", server.description());
    let prefix = server.url("");
    publish(&format!("{prefix}\n{}\n", server.major_version()));
    let starting = wait_until_unused();
    let _ = fs::remove_file(dir().join("address"));
    drop(server);
    drop(starting);
}

/// Appears whole or not at all.
fn publish(address: &str) {
    let draft = dir().join("address.draft");
    fs::write(&draft, address).expect("write the address");
    fs::rename(draft, dir().join("address")).expect("publish the address");
}

/// Returns with `start.lock` held, so that nobody joins any more.
fn wait_until_unused() -> File {
    let users = lock_file("users.lock");
    let mut used = Instant::now();
    loop {
        std::thread::sleep(Duration::from_millis(100));
        if !is_free(&users) {
            used = Instant::now();
        } else if used.elapsed() > IDLE_MAX {
            let starting = lock_file("start.lock");
            starting.lock().expect("lock start.lock");
            if is_free(&users) {
                return starting;
            }
        }
    }
}

fn is_free(users: &File) -> bool {
    let free = users.try_lock().is_ok();
    if free {
        users.unlock().expect("unlock users.lock");
    }
    free
}

fn lock_file(name: &str) -> File {
    let path = dir().join(name);
    File::options()
        .create(true)
        .append(true)
        .open(&path)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn dir() -> PathBuf {
    let chosen =
        ["ROWDELTA_PG_BIN", "ROWDELTA_PG_VERSION"].map(|name| std::env::var(name).unwrap_or_default());
    let name = format!("cluster{}", chosen.concat().replace('/', "-"));
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::create_dir_all(&dir).expect("make the cluster's directory");
    dir
}
