//! The command `rowdelta` as a user runs it.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

/// A directory of this test process for files that it makes; removed when dropped.
pub struct Scratch(PathBuf);

impl Scratch {
    /// A new, empty directory.
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("scratch").join(name);
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).expect("make a scratch directory");
        Self(dir)
    }

    /// A path in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Writes a file in it.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, content).expect("write a scratch file");
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}

/// What a run of the command left.
pub struct Ran {
    /// The exit code; −1 if a signal ended it.
    pub code: i32,
    /// Standard error.
    pub stderr: String,
    /// The report, if it wrote one.
    pub report: Value,
    /// The most memory it held at once, in bytes, where the system tells (Linux).
    pub peak_bytes: Option<u64>,
}

impl Ran {
    /// Fails the test, with all that was printed, unless the command succeeded.
    #[track_caller]
    pub fn succeeded(self) -> Self {
        assert_eq!(self.code, 0, "exit code; report {:#}\n{}", self.report, self.stderr);
        self
    }

    /// A count of the report's `documents`.
    #[track_caller]
    pub fn documents(&self, what: &str) -> u64 {
        let count = &self.report["documents"][what];
        count.as_u64().unwrap_or_else(|| panic!("documents.{what} in {:#}", self.report))
    }

    /// Rows written in the user's tables, over all relations, as the report counts them.
    #[track_caller]
    pub fn rows_written(&self) -> u64 {
        let relations = self.report["relations"].as_array().expect("relations in the report");
        let kinds = ["added", "updated", "moved", "removed"];
        relations
            .iter()
            .flat_map(|relation| kinds.iter().map(|kind| relation[kind].as_u64().unwrap_or(0)))
            .sum()
    }
}

/// `rowdelta install -d URL`.
#[track_caller]
pub fn install(url: &str) {
    let output = binary().args(["install", "-d", url]).output().expect("run the command");
    assert!(output.status.success(), "install: {}", String::from_utf8_lossy(&output.stderr));
}

/// `rowdelta sync -m MAP -d URL --report FILE FEED…`.
pub fn sync(url: &str, mapping: &Path, feeds: &[&Path]) -> Ran {
    sync_with(url, mapping, feeds, &[])
}

/// As [`sync`], with more arguments.
pub fn sync_with(url: &str, mapping: &Path, feeds: &[&Path], more: &[&str]) -> Ran {
    let scratch = Scratch::new();
    let report = scratch.path("report.json");
    let mut command = binary();
    command.args(["sync", "-d", url, "-m"]).arg(mapping).arg("--report").arg(&report).args(more).args(feeds);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("run the command");
    let (output, peak_bytes) = watch_memory(child);
    let report = std::fs::read(&report).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
    Ran {
        code: output.status.code().unwrap_or(-1),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        report: report.unwrap_or(Value::Null),
        peak_bytes,
    }
}

/// Starts a sync and does not wait for it. What it prints is lost.
pub fn start_sync(url: &str, mapping: &Path, feed: &Path) -> Child {
    let mut command = binary();
    command.args(["sync", "-d", url, "-m"]).arg(mapping).arg(feed);
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("run the command")
}

/// The command with just these arguments: its exit code, and what it said on standard error.
pub fn run(arguments: &[&str]) -> (i32, String) {
    let (code, _, stderr) = output(arguments);
    (code, stderr)
}

/// The command with just these arguments: its exit code, its standard output, its standard error.
pub fn output(arguments: &[&str]) -> (i32, String, String) {
    let output = binary().args(arguments).output().expect("run the command");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
}

/// The command, with no database named in its environment.
pub fn binary() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rowdelta"));
    command.stdin(Stdio::null());
    for variable in ["DATABASE_URL", "PGHOST", "PGHOSTADDR", "PGDATABASE", "PGSERVICE"] {
        command.env_remove(variable);
    }
    command
}

/// Waits for the end and polls the high-water mark of memory until then.
fn watch_memory(child: Child) -> (Output, Option<u64>) {
    let status = PathBuf::from(format!("/proc/{}/status", child.id()));
    let (ended, end) = std::sync::mpsc::channel::<()>();
    let poll = std::thread::spawn(move || {
        let mut peak = None;
        while end.recv_timeout(Duration::from_millis(10)) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            peak = peak.max(high_water_mark(&status));
        }
        peak
    });
    let start = Instant::now();
    let output = child.wait_with_output().expect("wait for the command");
    drop(ended);
    println!("rowdelta took {:.2} s", start.elapsed().as_secs_f64());
    (output, poll.join().expect("the memory's watch"))
}

fn high_water_mark(status: &Path) -> Option<u64> {
    let text = std::fs::read_to_string(status).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
}
