//! Nights of incremental sync: rowdelta beside other ways to do it, each written as well as it can be, and beside what
//! cannot be done without. `docs/performance.md` says how it is measured and what came of it.
//!
//! ```text
//! cargo bench --bench nightly                          20,000 documents, all scenarios, three rounds
//! cargo bench --bench nightly -- --documents 200000
//! cargo bench --bench nightly -- --help
//! ```
//!
//! Every contestant is a process of its own, so that wall time, CPU time and memory are those of the whole program:
//! rowdelta is the command, the others are this program, started again with a contestant's name.
//!
//! Without `--bench`, as in `cargo test --benches`, everything runs once on 200 documents, to see that it works.

mod blocks;
mod call;
#[path = "../../src/cli/demo/calls.rs"]
#[allow(dead_code, unused_imports)] // its tests are for the command's own run
mod calls;
mod catalogues;
mod contestant;
mod edit;
mod floors;
mod measure;
mod night;
mod options;
mod peer;
mod planned;
mod plot;
mod recreate;
mod results;
mod rows;
mod scenario;
mod seen;
mod server;
mod staging;
mod state;
mod table;
mod targets;
mod wal;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser as _;

use crate::options::Options;
use crate::server::Server;

/// The mapping of all contestants that have one.
const MAPPING: &str = include_str!("../../examples/convocatorias/mapping.toml");

/// A result, or whatever went wrong.
type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

fn main() -> ExitCode {
    match start() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("nightly: {}", words(&*error));
            ExitCode::FAILURE
        }
    }
}

/// This program is three: the benchmark, a contestant, and the process between them.
fn start() -> Outcome<()> {
    let mut arguments = std::env::args_os().skip(1);
    match arguments.next() {
        Some(first) if first == measure::MEASURE => measure::measure(arguments),
        Some(first) if first == contestant::CONTESTANT => {
            let texts = arguments.map(|argument| argument.to_string_lossy().into_owned());
            contestant::run(&texts.collect::<Vec<_>>())
        }
        _ => bench(&Options::parse()),
    }
}

fn bench(options: &Options) -> Outcome<()> {
    let server = Server::start(options.bench)?;
    let dir = Scratch::new()?;
    let kind = match options.bench {
        true => "a measurement",
        false => "a trial that shows that everything works; no figure in it means anything",
    };
    let about = [
        ("this is", kind.to_owned()),
        ("version", env!("CARGO_PKG_VERSION").to_owned()),
        ("server", server.description(options.bench)),
        ("cores", blocks::cores().to_string()),
        ("rounds", options.rounds().to_string()),
        ("seed", options.seed.to_string()),
    ];
    let results = night::run(options, &server, &dir.0)?;
    let verdicts = targets::verdicts(&results);
    print!("{}", table::all(&results, &verdicts, &about));
    if let Some(file) = &options.json {
        std::fs::write(file, serde_json::to_string_pretty(&results.to_json(&about))? + "\n")?;
    }
    if let Some(file) = &options.plot {
        std::fs::write(file, plot::svg(&results))?;
    }
    Ok(())
}

/// An error with its causes: the database's errors say in theirs what it was.
fn words(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    [error.to_string()].into_iter().chain(causes.map(ToString::to_string)).collect::<Vec<_>>().join(": ")
}

/// A directory that goes with the benchmark.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> std::io::Result<Self> {
        let dir = std::env::temp_dir().join(format!("rowdelta-nightly-{:08x}", fastrand::u32(..)));
        std::fs::create_dir_all(&dir)?;
        Ok(Self(dir))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
