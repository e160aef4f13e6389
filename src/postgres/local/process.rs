//! One run of `postgres`, and the watchdog that ends it should this process die.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use super::{LocalError, io_error};

/// The longest a start may take; crash recovery comes under it.
const START_MAX: Duration = Duration::from_secs(120);
/// The longest a fast shutdown may take before it becomes an immediate one.
const STOP_MAX: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(10);

/// Waits for one line or the end of its standard input. A line: all is well, the server was stopped.
/// The end: whoever started it is gone. `$1` the server's pid, `$2` what to remove after it, or nothing.
const WATCHDOG: &str = r#"
trap '' INT TERM HUP
if read -r _; then exit 0; fi
kill -INT "$1" 2>/dev/null
tenths=0
while kill -0 "$1" 2>/dev/null; do
  if [ "$tenths" -eq 50 ]; then kill -QUIT "$1" 2>/dev/null; fi
  if [ "$tenths" -eq 100 ]; then kill -KILL "$1" 2>/dev/null; break; fi
  tenths=$((tenths + 1))
  sleep 0.1
done
if [ -n "$2" ]; then rm -rf "$2"; fi
"#;

/// A running server and its watchdog.
#[derive(Debug)]
pub(super) struct Process {
    server: Child,
    watchdog: Child,
    /// Its end, should this process die, is what the watchdog waits for.
    lifeline: ChildStdin,
}

/// What became of a start.
pub(super) enum Started {
    Ready(Process),
    /// It ended by itself; its log says why.
    Failed,
}

impl Process {
    /// Starts the server and waits until it takes connections.
    ///
    /// `run_dir` is what the watchdog removes; data that was given lies elsewhere and stays.
    pub(super) fn start(
        mut postgres: Command,
        data_dir: &Path,
        run_dir: &Path,
    ) -> Result<Started, LocalError> {
        // Of their own group, so that Ctrl-C at a terminal reaches this process alone, which then stops them.
        postgres.stdin(Stdio::null()).stdout(Stdio::null()).process_group(0);
        let server = postgres.spawn().map_err(io_error("start postgres"))?;
        let mut process = watch(server, run_dir)?;
        let start = Instant::now();
        while start.elapsed() < START_MAX {
            if process.server.try_wait().map_err(io_error("wait for postgres"))?.is_some() {
                process.dismiss_watchdog();
                return Ok(Started::Failed);
            }
            if is_ready(data_dir, process.id()) {
                return Ok(Started::Ready(process));
            }
            std::thread::sleep(POLL);
        }
        process.kill();
        Err(LocalError::Server(format!("the server was not ready after {} s", START_MAX.as_secs())))
    }

    pub(super) fn id(&self) -> u32 {
        self.server.id()
    }

    /// A fast shutdown: running statements are cancelled, the data is flushed.
    pub(super) fn stop(mut self) {
        signal("INT", self.id());
        let start = Instant::now();
        while matches!(self.server.try_wait(), Ok(None)) {
            if start.elapsed() > STOP_MAX {
                signal("QUIT", self.id());
                break;
            }
            std::thread::sleep(POLL);
        }
        let _ = self.server.wait();
        self.dismiss_watchdog();
    }

    /// As a crash: `kill -9` of the postmaster. Its children see that and end by themselves.
    pub(super) fn kill(mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
        self.dismiss_watchdog();
    }

    fn dismiss_watchdog(mut self) {
        let _ = self.lifeline.write_all(b"stopped\n");
        let _ = self.watchdog.wait();
    }
}

fn watch(mut server: Child, run_dir: &Path) -> Result<Process, LocalError> {
    let mut sh = Command::new("sh");
    sh.args(["-c", WATCHDOG, "rowdelta-watchdog"]).arg(server.id().to_string()).arg(run_dir);
    sh.current_dir("/").stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
    let started = sh.spawn();
    if started.is_err() {
        let _ = server.kill();
        let _ = server.wait();
    }
    let mut watchdog = started.map_err(io_error("start sh"))?;
    let lifeline = watchdog.stdin.take().expect("standard input is piped");
    Ok(Process { server, watchdog, lifeline })
}

/// As `pg_ctl` finds out: the postmaster writes its state to the eighth line of its pid file.
fn is_ready(data_dir: &Path, pid: u32) -> bool {
    let Ok(text) = std::fs::read_to_string(data_dir.join("postmaster.pid")) else { return false };
    let line = |at: usize| text.lines().nth(at).map(str::trim);
    line(0) == Some(pid.to_string().as_str()) && line(7) == Some("ready")
}

/// The shell's own `kill`: the program of that name is missing in small containers.
fn signal(name: &str, pid: u32) {
    let _ =
        Command::new("sh").args(["-c", r#"kill -"$0" "$1" 2>/dev/null"#, name]).arg(pid.to_string()).status();
}
