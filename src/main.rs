//! The command `rowdelta`. See `rowdelta --help`.

mod cli;

use std::io::IsTerminal as _;
use std::process::ExitCode;

use crate::cli::args::{Cli, Command, Log};
use crate::cli::output::Exit;
use crate::cli::{demo, doctor, history, init, manual, plan, progress, schema, status, sync, verify};
use clap::Parser;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let cli = Cli::parse();
    start_log(cli.log);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error.to_string()),
    };
    let done = runtime.block_on(async {
        match cli.command {
            Command::Completions(args) => manual::completions(args),
            Command::Demo(args) => demo::demo(args).await,
            Command::Doctor(args) => doctor::doctor(args).await,
            Command::History(args) => history::history(args).await,
            Command::Init(args) => init::init(&args),
            Command::Install(args) => sync::install(args).await,
            Command::Man(args) => manual::man(args),
            Command::Plan(args) => plan::plan(args).await,
            Command::Schema(args) => schema::schema(args).await,
            Command::Status(args) => status::status(args).await,
            Command::Sync(args) => sync::sync(args).await,
            Command::Verify(args) => verify::verify(args).await,
        }
    });
    match done {
        Ok(exit) => ExitCode::from(exit as u8),
        Err(message) => fail(&message),
    }
}

fn fail(message: &str) -> ExitCode {
    eprintln!("rowdelta: {message}");
    ExitCode::from(Exit::Unable as u8)
}

/// Logs go to standard error, around a progress bar that is drawn there. Of other crates only warnings: some would log
/// values. Progress is logged where it is asked for, whatever the level.
fn start_log(format: Log) {
    let filter = std::env::var("ROWDELTA_LOG").unwrap_or_else(|_| "warn".into());
    let filter = EnvFilter::new(format!("warn,rowdelta={filter},{}=info", progress::TARGET));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(|| progress::Stderr);
    let log = log.with_ansi(std::io::stderr().is_terminal());
    match format {
        Log::Text => log.with_target(false).init(),
        Log::Json => log.json().init(),
    }
}
