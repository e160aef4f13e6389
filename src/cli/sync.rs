//! `rowdelta sync` and `rowdelta install`.

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use futures_util::stream;
use tokio::sync::mpsc;

use crate::cli::args;
use crate::cli::connect;
use crate::cli::input::{Feed, FeedOptions, Record};
use crate::cli::output::{Exit, report, summary};
use rowdelta::document::{Document, Origin};
use rowdelta::engine::report::Status;
use rowdelta::engine::{Engine, FeedError, FeedItem};
use rowdelta::mapping::Mapping;
use rowdelta::postgres::install;

/// Documents read ahead of the engine.
const READ_AHEAD: usize = 64;

/// Which signal asked the command to stop: an exit code, 0 for none.
static STOP: AtomicU8 = AtomicU8::new(0);

/// Installs the schema `rowdelta`.
///
/// # Errors
/// In words.
pub async fn install(database: args::Database) -> Result<Exit, String> {
    let pool = connect::pool(connect::config(database.database.as_deref())?, 1).await?;
    let mut client = pool.get().await.map_err(|error| error.to_string())?;
    let done = install::install(&mut client).await.map_err(|error| error.to_string())?;
    let what = if done { "installed" } else { "is installed already" };
    println!("schema rowdelta {} {what}", install::VERSION);
    Ok(Exit::Done)
}

/// Syncs a feed.
///
/// # Errors
/// What kept it from starting, in words.
pub async fn sync(args: args::Sync) -> Result<Exit, String> {
    let text = std::fs::read_to_string(&args.mapping)
        .map_err(|error| format!("{}: {error}", args.mapping.display()))?;
    let mapping =
        Mapping::from_toml(&text).map_err(|error| format!("{}: {error}", args.mapping.display()))?;
    let options = FeedOptions { document_bytes_max: args.document_bytes_max };
    let feed = Feed::open(&args.feed, options).map_err(|error| words(&error))?;
    let workers = args.workers.unwrap_or_else(default_workers).max(1);
    let pool = connect::pool(connect::config(args.database.database.as_deref())?, workers).await?;
    if args.install {
        let mut client = pool.get().await.map_err(|error| error.to_string())?;
        install::install(&mut client).await.map_err(|error| error.to_string())?;
    }
    let engine = Engine::builder(mapping)
        .workers(workers)
        .lock_timeout(Duration::from_millis(args.lock_timeout))
        .retries_max(args.retries)
        .wait(Duration::from_secs(args.wait))
        .lease(Duration::from_secs(args.lease))
        .build(pool)
        .await
        .map_err(|error| error.to_string())?;
    stop_on_signals();
    let result = engine.sync(read(feed)).await;
    if let Err(error) = &result {
        eprintln!("rowdelta: {error}");
    }
    if let Some(report) = report(&result) {
        let to_stdout = args.report.as_deref() == Some(Path::new("-"));
        if let Some(file) = &args.report {
            let json = serde_json::to_string_pretty(report).map_err(|error| error.to_string())? + "\n";
            write_report(file, &json)?;
        }
        if !to_stdout {
            print!("{}", summary(report));
        }
    }
    // A signal that came when all was done changed nothing.
    let aborted = report(&result).is_some_and(|report| report.status == Status::Aborted);
    Ok(match STOP.load(Ordering::Relaxed) {
        130 if aborted => Exit::Interrupted,
        143 if aborted => Exit::Terminated,
        _ => Exit::of(&result),
    })
}

fn default_workers() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from).clamp(2, 4)
}

fn write_report(file: &Path, json: &str) -> Result<(), String> {
    if file == Path::new("-") {
        return std::io::stdout().write_all(json.as_bytes()).map_err(|error| error.to_string());
    }
    std::fs::write(file, json).map_err(|error| format!("{}: {error}", file.display()))
}

/// Reads a feed on a thread of its own: decompression keeps a core busy.
fn read(feed: Feed) -> impl futures_util::Stream<Item = FeedItem> + Send {
    let (sender, receiver) = mpsc::channel(READ_AHEAD);
    std::thread::spawn(move || {
        for record in feed {
            let stopped = STOP.load(Ordering::Relaxed) != 0;
            let item = if stopped { stopped_at(record) } else { item(record) };
            if sender.blocking_send(item).is_err() || stopped {
                return;
            }
        }
    });
    stream::unfold(receiver, |mut receiver| async move { Some((receiver.recv().await?, receiver)) })
}

fn item(record: Result<Record, crate::cli::input::FeedError>) -> FeedItem {
    match record {
        Ok(Record { file, line, content }) => {
            let origin = Origin { file: Some(file), line };
            match content {
                Ok(bytes) => Ok(Document { bytes, origin }),
                Err(error) => Err(FeedError { origin, message: error.to_string(), fatal: false }),
            }
        }
        Err(error) => {
            let origin = Origin { file: Some(Arc::clone(&error.file)), line: error.line };
            Err(FeedError { origin, message: words(&error), fatal: true })
        }
    }
}

/// Tells the engine that the feed does not go on, as it would for a file that breaks off.
fn stopped_at(record: Result<Record, crate::cli::input::FeedError>) -> FeedItem {
    let (file, line) = match record {
        Ok(record) => (record.file, record.line),
        Err(error) => (error.file, error.line),
    };
    let origin = Origin { file: Some(file), line };
    Err(FeedError { origin, message: "stopped by a signal before this line".into(), fatal: true })
}

fn words(error: &(dyn std::error::Error + 'static)) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

/// After SIGINT or SIGTERM nothing more is read; what is in hand is finished and reported.
fn stop_on_signals() {
    use tokio::signal::unix::{SignalKind, signal};
    for (kind, code) in [(SignalKind::interrupt(), 130), (SignalKind::terminate(), 143)] {
        let Ok(mut signal) = signal(kind) else { continue };
        tokio::spawn(async move {
            signal.recv().await;
            STOP.store(code, Ordering::Relaxed);
        });
    }
}
