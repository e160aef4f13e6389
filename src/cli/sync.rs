//! `rowdelta sync` and `rowdelta install`.

use std::fs::File;
use std::io::{BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use tokio::sync::{mpsc, watch};

use crate::cli::args;
use crate::cli::changes::Lines;
use crate::cli::connect;
use crate::cli::input::{Feed, FeedOptions};
use crate::cli::metrics::Metrics;
use crate::cli::output::{Exit, report};
use crate::cli::progress::{Shown, Watched};
use crate::cli::summary::summary;
use rowdelta::engine::plan::{Recorder, SavedPlan};
use rowdelta::engine::report::{Status, SyncError};
use rowdelta::engine::{Engine, FeedItem, default_workers};
use rowdelta::error::Error;
use rowdelta::mapping::{Mapping, MappingError};
use rowdelta::postgres::install::{self, Form};

/// What is read ahead of the engine: so many chunks of so many bytes, unless a document is longer.
const READ_AHEAD: usize = 4;
const CHUNK_BYTES: usize = 256 * 1024;

/// Installs the schema `rowdelta`, upgrades it, or hands it over.
///
/// # Errors
/// In words.
pub async fn install(args: args::Install) -> Result<Exit, String> {
    let target = connect::Target::open(&args.database).await?;
    let pool = connect::pool(target.access.clone(), 1).await?;
    let mut client = connect::get(&pool).await?;
    let done = match (args.extension, args.plain) {
        (true, _) => install::install_as(&mut client, Form::Extension).await,
        (_, true) => install::install_as(&mut client, Form::Plain).await,
        _ => install::install(&mut client).await,
    };
    println!("schema rowdelta {} {}", install::VERSION, done.map_err(|error| error.to_string())?);
    Ok(Exit::Done)
}

/// Syncs a feed.
///
/// # Errors
/// What kept it from starting, in words.
pub async fn sync(args: args::Sync) -> Result<Exit, String> {
    let Some(file) = args.metrics.clone() else { return run(args, read_mapping).await };
    let metrics = Metrics::start(&file)?;
    // Of a mapping that cannot be read the file's name stands for its own.
    let mut name = args.mapping.display().to_string();
    let read = |file: &Path| read_mapping(file).inspect(|mapping| name.clone_from(&mapping.name));
    let done = run(args, read).await;
    metrics.end(&name, &done);
    done
}

async fn run(
    args: args::Sync,
    read_mapping: impl FnOnce(&Path) -> Result<Mapping, String>,
) -> Result<Exit, String> {
    let mapping = read_mapping(&args.mapping)?;
    let options = FeedOptions { document_bytes_max: args.document_bytes_max };
    let feed = Feed::open(&args.feed, options).map_err(|error| error.to_string())?;
    let is_stdout = |file: &Option<PathBuf>| file.as_deref() == Some(Path::new("-"));
    if is_stdout(&args.report) && is_stdout(&args.changes) {
        return Err("--report and --changes cannot both be written to standard output".into());
    }
    let lines = args.changes.as_deref().map(Lines::open).transpose()?;
    let workers = args.workers.unwrap_or_else(default_workers).max(1);
    let target = connect::Target::open(&args.database).await?;
    let pool = connect::pool(target.access.clone(), workers).await?;
    if args.install {
        let mut client = connect::get(&pool).await?;
        install::install(&mut client).await.map_err(|error| error.to_string())?;
    }
    let mut builder = args.deleting.set(Engine::builder(mapping.clone()));
    if let Some(file) = &args.plan {
        builder = builder.only(still_holds(&args, &mapping, file, workers, &pool).await?);
    }
    if let Some(lines) = &lines {
        builder = builder.changes(lines.listener());
    }
    let engine = builder
        .history(args.history)
        .workers(workers)
        .batch_documents_max(args.batch)
        .lock_timeout(Duration::from_millis(args.lock_timeout))
        .retries_max(args.retries)
        .wait(Duration::from_secs(args.wait))
        .lease(Duration::from_secs(args.lease))
        .build(pool)
        .await
        .map_err(|error| error.to_string())?;
    let stop = stop_on_signals();
    let watched = Watched { progress: engine.progress(), bytes: feed.bytes(), stop: stop.clone() };
    let shown = Shown::start(args.progress, watched);
    let told = async {
        tokio::select! {
            () = signalled(stop.clone()) => {}
            () = failed(lines.as_ref()) => {}
        }
    };
    let result = engine.sync_until(read(feed), told).await;
    shown.end().await;
    // The listener's channel ends with it.
    drop(engine);
    let written = match lines {
        Some(lines) => lines.finish().await,
        None => Ok(()),
    };
    if let Err(error) = &result {
        eprintln!("rowdelta: {error}");
    }
    if let Some(report) = report(&result) {
        if let Some(file) = &args.report {
            let json = serde_json::to_string_pretty(report).map_err(|error| error.to_string())? + "\n";
            write_report(file, &json)?;
        }
        eprint!("{}", summary(report));
    }
    written?;
    // A signal that came when all was done changed nothing.
    let aborted = report(&result).is_some_and(|report| report.status == Status::Aborted)
        || matches!(&result, Err(SyncError::Start(_)));
    let signal = *stop.borrow();
    Ok(Exit::of_signal(signal).filter(|_| aborted).unwrap_or_else(|| Exit::of(&result)))
}

/// The plan of a file, if what it says would be done now.
async fn still_holds(
    args: &args::Sync,
    mapping: &Mapping,
    file: &Path,
    workers: usize,
    pool: &connect::Pool,
) -> Result<SavedPlan, String> {
    if args.feed.iter().any(|feed| feed.as_path() == Path::new("-")) {
        return Err("--plan reads the feed twice, which standard input cannot be".into());
    }
    let opened = File::open(file).map_err(|error| format!("{}: {error}", file.display()))?;
    let said = |error: Error| format!("{}: {error}", file.display());
    let saved = SavedPlan::read(BufReader::new(opened)).map_err(said)?;
    let builder = args.deleting.set(Engine::builder(mapping.clone())).workers(workers).read_only();
    let engine = builder.build(pool.clone()).await.map_err(|error| error.to_string())?;
    let options = FeedOptions { document_bytes_max: args.document_bytes_max };
    let feed = Feed::open(&args.feed, options).map_err(|error| error.to_string())?;
    let digest = engine.digest().await.map_err(|error| error.to_string())?;
    let mut fresh = Recorder::new(mapping, digest);
    let (listener, mut changes) = mpsc::channel(READ_AHEAD * 1_000);
    let gathering = tokio::spawn(async move {
        while let Some(change) = changes.recv().await {
            fresh.add(&change);
        }
        fresh.finish()
    });
    engine.plan(read(feed), listener).await.map_err(|error| error.to_string())?;
    let fresh = gathering.await.map_err(|error| error.to_string())?;
    saved.holds(&fresh).map_err(|error| format!("{}; nothing was written", said(error)))?;
    Ok(saved)
}

/// Resolves when lines cannot be written: a run of which nobody hears stops.
async fn failed(lines: Option<&Lines>) {
    match lines {
        Some(lines) => lines.failed().await,
        None => std::future::pending().await,
    }
}

/// Reads a mapping from a TOML file.
///
/// # Errors
/// In words.
pub fn read_mapping(file: &Path) -> Result<Mapping, String> {
    let text = std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    Mapping::from_toml(&text).map_err(|MappingError { faults }| {
        let file = file.display();
        match faults.as_slice() {
            [fault] => format!("{file}: {fault}"),
            faults => faults.iter().fold(format!("{file} has {} faults:", faults.len()), |text, fault| {
                text + &format!("\n  {fault}")
            }),
        }
    })
}

/// Writes a report to a file; `-`: to standard output.
///
/// # Errors
/// In words.
pub fn write_report(file: &Path, json: &str) -> Result<(), String> {
    if file == Path::new("-") {
        return std::io::stdout().write_all(json.as_bytes()).map_err(|error| error.to_string());
    }
    std::fs::write(file, json).map_err(|error| format!("{}: {error}", file.display()))
}

/// Reads a feed on a thread of its own: decompression keeps a core busy, and standard input may block.
pub fn read(mut feed: Feed) -> impl futures_util::Stream<Item = FeedItem> + Send {
    let (sender, receiver) = mpsc::channel(READ_AHEAD);
    std::thread::spawn(move || {
        loop {
            let chunk = feed.chunk(CHUNK_BYTES);
            if chunk.is_empty() || sender.blocking_send(chunk).is_err() {
                return;
            }
        }
    });
    let chunks =
        stream::unfold(receiver, |mut receiver| async move { Some((receiver.recv().await?, receiver)) });
    chunks.flat_map(stream::iter)
}

/// Resolves when a signal comes, and only then.
pub async fn signalled(mut stop: watch::Receiver<u8>) {
    if stop.wait_for(|signal| *signal != 0).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Waits for SIGINT or SIGTERM, on which a sync reads nothing more, and finishes and reports what is in hand. Gives
/// the exit code of the signal that came, 0 for none.
pub fn stop_on_signals() -> watch::Receiver<u8> {
    use tokio::signal::unix::{SignalKind, signal};
    let (sender, receiver) = watch::channel(0);
    for (kind, code) in [(SignalKind::interrupt(), 130), (SignalKind::terminate(), 143)] {
        let Ok(mut signal) = signal(kind) else { continue };
        let sender = sender.clone();
        tokio::spawn(async move {
            signal.recv().await;
            sender.send_replace(code);
        });
    }
    receiver
}
