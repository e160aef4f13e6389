//! PgBouncer in transaction mode before a test's database, where it is installed.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::database::{Database, blocking, connect};

/// Where Debian puts it, should the path not lead there.
const SBIN: &str = "/usr/sbin/pgbouncer";
/// A pooler is ready in no time.
const START_MAX: Duration = Duration::from_secs(20);
/// Only the socket's name has it.
const PORT: u16 = 6432;

/// A PgBouncer of one's own. It ends with the test, however that ends.
pub struct Pooler {
    dir: PathBuf,
    url: String,
    process: Child,
}

impl Pooler {
    /// Starts one that keeps at most so many connections to the server. `None`, said once, where none is installed.
    pub fn start(database: &Database, connections: u32) -> Option<Self> {
        let Some(program) = program() else {
            println!("skipped: no pgbouncer");
            return None;
        };
        let (socket_dir, name) = database.address();
        let dir = std::env::temp_dir().join(format!("rowdelta-pooler-{:08x}", fastrand::u32(..)));
        fs::create_dir(&dir).expect("make the pooler's directory");
        // It runs as the server's user, who must reach both sockets.
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o777)).expect("open the pooler's directory");
        let config = dir.join("pgbouncer.ini");
        let text = format!(
            "[databases]\n* = host={} port={} user=postgres\n\
             [pgbouncer]\nlisten_addr =\nlisten_port = {PORT}\nunix_socket_dir = {}\nauth_type = any\n\
             pool_mode = transaction\ndefault_pool_size = {connections}\nmax_db_connections = {connections}\n\
             max_client_conn = 400\nserver_login_retry = 1\nlogfile =\nsyslog = 0\n",
            socket_dir.display(),
            database.port(),
            dir.display(),
        );
        fs::write(&config, text).expect("write the pooler's settings");
        let log = File::create(dir.join("log")).expect("make the pooler's log");
        // When the test's end of the pipe is gone, so is the pooler.
        let watched = "\"$@\" & read -r line; kill $!; wait";
        let mut command = Command::new("sh");
        command.args(["-c", watched, "sh"]).arg(program);
        command.args(user_of(&socket_dir)).arg(&config);
        let log_too = log.try_clone().expect("a second handle");
        command.stdin(Stdio::piped()).stdout(log_too).stderr(log);
        let process = command.spawn().expect("start the pooler");
        let host = dir.to_str().expect("a plain path").replace('/', "%2F");
        let pooler = Self { url: format!("postgresql://postgres@{host}:{PORT}/{name}"), dir, process };
        pooler.wait();
        Some(pooler)
    }

    /// The URL of the database behind it.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its socket.
    pub fn socket(&self) -> PathBuf {
        self.dir.join(format!(".s.PGSQL.{PORT}"))
    }

    fn wait(&self) {
        let (url, started) = (self.url.clone(), Instant::now());
        blocking(async move {
            while connect(&url).await.is_err() {
                let log = fs::read_to_string(self.dir.join("log")).unwrap_or_default();
                assert!(started.elapsed() < START_MAX, "the pooler does not answer: {log}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let _ = self.process.wait();
        if !std::thread::panicking() {
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

fn program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|dir| dir.join("pgbouncer"));
    found.chain([PathBuf::from(SBIN)]).find(|program| program.is_file())
}

/// PgBouncer refuses to run as root: then as the owner of the server's directory.
fn user_of(socket_dir: &Path) -> Vec<String> {
    let own = fs::metadata("/proc/self").map_or(1, |metadata| metadata.uid());
    if own != 0 {
        return Vec::new();
    }
    let owner = fs::metadata(socket_dir).expect("the server's directory").uid();
    let name = Command::new("id").arg("-nu").arg(owner.to_string()).output().expect("run id");
    vec!["-u".into(), String::from_utf8_lossy(&name.stdout).trim().to_owned()]
}
