//! The local server: found or brought, durable, and gone when its owner is.

use rowdelta::postgres::local::{LocalServer, Options};

use crate::support::database::{blocking, connect, rows};
use crate::support::db_on;

fn ask(server: &LocalServer, sql: &str) -> String {
    let (url, sql) = (server.url("postgres"), sql.to_owned());
    let answer =
        blocking(async move { rows(&connect(&url).await.expect("connect"), &sql).await.expect("ask") });
    answer.first().and_then(|row| row[0].clone()).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crashed_database_has_its_committed_rows() {
    let mut db = db_on(Options::durable()).await;
    db.execute("CREATE TABLE t AS SELECT 7 AS a").await;
    db.execute("BEGIN; DELETE FROM t").await;
    db.crash().await;
    assert_eq!(db.value("SELECT count(*) FROM t").await, "1");
}

#[test]
fn a_killed_server_restarts_at_the_same_address() {
    let mut server = LocalServer::start(Options::durable().setting("work_mem", "5MB")).unwrap();
    let url = server.url("postgres");
    assert_eq!(ask(&server, "SHOW work_mem"), "5MB");
    assert_eq!(ask(&server, "SHOW fsync"), "on");
    assert_eq!(ask(&server, "SHOW listen_addresses"), "");
    ask(&server, "CREATE TABLE t AS SELECT 7 AS a");
    server.kill9();
    assert_eq!(server.pid(), None);
    server.restart().unwrap();
    assert_eq!(server.url("postgres"), url);
    assert_eq!(ask(&server, "SELECT a FROM t"), "7");
}

#[test]
fn a_dropped_server_leaves_nothing_temporary() {
    let server = LocalServer::start(Options::fast()).unwrap();
    println!("{}", server.description());
    assert_eq!(ask(&server, "SHOW fsync"), "off");
    let log = server.log_file().to_owned();
    assert!(log.exists());
    drop(server);
    assert!(!log.parent().unwrap().exists());
}

#[test]
fn data_in_a_given_directory_is_kept_and_used_again() {
    // Not under target/: under root the server runs as a user that may not reach it.
    let dir = std::env::temp_dir().join(format!("rowdelta-kept-{}", std::process::id()));
    let options = Options { data_dir: Some(dir.clone()), ..Options::durable() };
    let server = LocalServer::start(options.clone()).unwrap();
    ask(&server, "CREATE TABLE kept AS SELECT 1 AS a");
    drop(server);
    let server = LocalServer::start(options).unwrap();
    assert_eq!(ask(&server, "SELECT a FROM kept"), "1");
    drop(server);
    std::fs::remove_dir_all(dir).unwrap();
}

/// Run as a child by the test below: starts a server, says its pid, and dies without a destructor.
#[test]
fn owner_that_dies() {
    if std::env::var_os("ROWDELTA_IT_DIES").is_some() {
        let server = LocalServer::start(Options::fast()).unwrap();
        println!("server {} {}", server.pid().unwrap(), server.log_file().parent().unwrap().display());
        std::process::abort();
    }
}

#[test]
fn a_server_does_not_outlive_an_owner_that_was_killed() {
    let mut owner = std::process::Command::new(std::env::current_exe().unwrap());
    owner.args(["--exact", "local::owner_that_dies", "--nocapture"]).env("ROWDELTA_IT_DIES", "1");
    let output = owner.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().find_map(|line| line.split_once("server ")).expect(&text).1;
    let (pid, dir) = line.split_once(' ').unwrap();
    let gone = || {
        let mut probe = std::process::Command::new("sh");
        let dead = !probe.args(["-c", "kill -0 \"$0\" 2>/dev/null", pid]).status().unwrap().success();
        dead && !std::path::Path::new(dir).exists()
    };
    let start = std::time::Instant::now();
    while !gone() {
        assert!(start.elapsed().as_secs() < 15, "server {pid} or {dir} is still there");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

#[test]
fn two_commands_with_local_take_turns_and_find_what_the_other_wrote() {
    // Not under target/: under root the server runs as a user that may not reach it.
    let data = std::env::temp_dir().join(format!("rowdelta-data-{:08x}", fastrand::u32(..)));
    let install = || {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_rowdelta"));
        command.args(["install", "--local"]).env("ROWDELTA_DATA", &data);
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap()
    };
    let outputs = [install(), install()].map(|child| child.wait_with_output().unwrap());
    let texts = outputs.each_ref().map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    assert!(outputs.iter().all(|output| output.status.success()), "{outputs:?}");
    let first = |text: &String| text.contains("installed") && !text.contains("already");
    assert_eq!(texts.iter().filter(|text| first(text)).count(), 1, "{texts:?}");
    std::fs::remove_dir_all(data).unwrap();
}
