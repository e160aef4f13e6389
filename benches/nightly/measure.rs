//! One run of one program: its wall time, its CPU time and its peak memory, the same way for all.
//!
//! The benchmark starts itself once more between: what the kernel tells a process of its children is the sum, and the
//! highest memory, of all of them; and a child is charged with the memory of whoever started it until it is a program
//! of its own. A small process that starts one program and ends tells of that program alone.

use std::ffi::OsString;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::resource::{Usage, UsageWho, getrusage};
use nix::sys::time::TimeVal;
use serde::{Deserialize, Serialize};

use crate::Outcome;

/// The first argument of the process between.
pub const MEASURE: &str = "measure";
/// How a program says what it took to get ready.
const SETUP: &str = "set-up: ";

/// What a program took.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Process {
    /// Wall time, in seconds, without getting ready.
    pub wall: f64,
    /// CPU time, user and system, in seconds, without getting ready.
    pub cpu: f64,
    /// The most memory that was resident at once, in bytes.
    pub memory: u64,
}

/// What a program does before it is timed. Most have nothing of the kind.
pub struct Setup(Instant);

/// What getting ready took.
#[derive(Serialize, Deserialize)]
struct Spent {
    wall: f64,
    cpu: f64,
}

impl Setup {
    /// Begins with the program.
    pub fn begin() -> Self {
        Self(Instant::now())
    }

    /// Says that the program is ready.
    pub fn done(self) {
        let cpu = getrusage(UsageWho::RUSAGE_SELF).map_or(Duration::ZERO, cpu);
        let spent = Spent { wall: self.0.elapsed().as_secs_f64(), cpu: cpu.as_secs_f64() };
        println!("{SETUP}{}", serde_json::to_string(&spent).expect("two numbers are JSON"));
    }
}

fn cpu(usage: Usage) -> Duration {
    [usage.user_time(), usage.system_time()].into_iter().map(duration).sum()
}

fn duration(time: TimeVal) -> Duration {
    Duration::new(time.tv_sec() as u64, time.tv_usec() as u32 * 1000)
}

/// Runs a program, in the process between, and writes what it took to standard output.
pub fn measure(mut arguments: impl Iterator<Item = OsString>) -> Outcome<()> {
    let program = arguments.next().ok_or("no program to measure")?;
    let start = Instant::now();
    let output = Command::new(&program).args(arguments).stderr(Stdio::inherit()).output()?;
    let wall = start.elapsed().as_secs_f64();
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        return Err(format!("{}: {}\n{text}", program.to_string_lossy(), output.status).into());
    }
    // Linux counts in KiB, others in bytes.
    let unit = if cfg!(target_os = "linux") { 1024 } else { 1 };
    let mut process = Process { wall, memory: usage.max_rss() as u64 * unit, cpu: cpu(usage).as_secs_f64() };
    if let Some(spent) = text.lines().find_map(|line| line.strip_prefix(SETUP)) {
        let spent: Spent = serde_json::from_str(spent)?;
        process.wall -= spent.wall;
        process.cpu -= spent.cpu;
    }
    println!("{}", serde_json::to_string(&process)?);
    Ok(())
}

/// Runs a program and says what it took.
pub fn run(command: Vec<OsString>) -> Outcome<Process> {
    let own = std::env::current_exe()?;
    let output = Command::new(own).arg(MEASURE).args(command).stderr(Stdio::inherit()).output()?;
    if !output.status.success() {
        return Err("a contestant failed".into());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}
