//! `rowdelta verify`.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use futures_util::{Stream, StreamExt, stream};
use tokio::sync::watch;

use crate::cli::args;
use crate::cli::connect;
use crate::cli::input::{Feed, FeedOptions};
use crate::cli::output::{Exit, plural};
use crate::cli::progress::{Shown, Watched};
use crate::cli::sync::{read, read_mapping, signalled, stop_on_signals, write_report};
use rowdelta::document::Origin;
use rowdelta::engine::verify::{Against, Difference, RelationDifferences, Verification, VerifyOptions};
use rowdelta::engine::{Engine, FeedError, FeedItem, default_workers};

/// How many differences are printed.
const SHOWN_MAX: usize = 20;

/// How many of them of one relation of one document.
const ROWS_MAX: usize = 3;

/// How many failed documents are printed.
const FAILURES_MAX: usize = 10;

/// Compares what is stored with a feed, or with what was recorded.
///
/// # Errors
/// What kept it from starting, in words.
pub async fn verify(args: args::Verify) -> Result<Exit, String> {
    let mapping = read_mapping(&args.mapping)?;
    let options = FeedOptions { document_bytes_max: args.document_bytes_max };
    let feed = match args.feed.is_empty() {
        true => None,
        false => Some(Feed::open(&args.feed, options).map_err(|error| error.to_string())?),
    };
    let workers = args.workers.unwrap_or_else(default_workers).max(1);
    let target = connect::Target::open(&args.database).await?;
    let pool = connect::pool(target.access.clone(), workers).await?;
    let mut engine = Engine::builder(mapping)
        .workers(workers)
        .wait(Duration::from_secs(args.wait))
        .lease(Duration::from_secs(args.lease));
    if !args.repair {
        engine = engine.read_only();
    }
    let engine = engine.build(pool).await.map_err(|error| error.to_string())?;
    let options = VerifyOptions { repair: args.repair, values: args.values };
    let (verified, signal) = match feed {
        Some(feed) => {
            let stop = stop_on_signals();
            let watched = Watched { progress: engine.progress(), bytes: feed.bytes(), stop: stop.clone() };
            let shown = Shown::start(args.progress, watched);
            let verified = engine.verify(until_stopped(feed, stop.clone()), options).await;
            shown.end().await;
            (verified, *stop.borrow())
        }
        None => (engine.verify_recorded(options).await, 0),
    };
    let verification = match verified {
        Ok(verification) => verification,
        Err(error) => {
            eprintln!("rowdelta: {error}");
            return Ok(Exit::of_signal(signal).unwrap_or_else(|| Exit::of_cause(&error)));
        }
    };
    if let Some(file) = &args.report {
        let json = serde_json::to_string_pretty(&verification).map_err(|error| error.to_string())? + "\n";
        write_report(file, &json)?;
    }
    if args.report.as_deref() != Some(Path::new("-")) {
        print!("{}", words(&verification));
    }
    Ok(exit(&verification))
}

/// A feed that breaks off when a signal comes.
pub fn until_stopped(feed: Feed, stop: watch::Receiver<u8>) -> impl Stream<Item = FeedItem> + Send {
    let told = signalled(stop.clone());
    let origin = Origin { file: Some("the feed".into()), ..Origin::default() };
    let broken = FeedError { origin, message: "stopped by a signal".into(), fatal: true };
    let end = stream::once(async move { (*stop.borrow() != 0).then_some(Err(broken)) });
    read(feed).take_until(told).chain(end.filter_map(std::future::ready))
}

fn exit(verification: &Verification) -> Exit {
    let run = verification.repair.as_ref().and_then(|repair| repair.run.as_ref());
    match () {
        () if verification.failures.iter().any(|failure| failure.retryable) => Exit::Retryable,
        () if !verification.failures.is_empty() => Exit::Failed,
        () if run.is_some_and(|run| run.documents.withheld > 0) => Exit::Withheld,
        () if verification.differs() => Exit::Differs,
        () => Exit::Done,
    }
}

/// A summary, the relations in which anything differs, and what.
fn words(verification: &Verification) -> String {
    let documents = &verification.documents;
    let mut text = String::new();
    let against = match verification.against {
        Against::Feed => "the feed",
        Against::Record => "what was recorded",
    };
    let _ = writeln!(
        text,
        "{}: {} compared with {against} in {:.1} s: {} equal, {} differing, {} unknown, {} failed",
        verification.mapping,
        plural(documents.read, "document"),
        verification.elapsed_ms as f64 / 1000.0,
        documents.equal,
        documents.differing,
        documents.unknown,
        documents.failed,
    );
    let unknown = &verification.unknown;
    let extra = [
        (documents.repeated, "repeated"),
        (unknown.unsettled, "documents are to be done again by the next run anyway"),
        (unknown.other_mapping, "documents were written under another mapping, or other column types"),
        (unknown.lists, "lists hold rows about which their document says nothing"),
        (unknown.columns, "lists were compared without columns about which their document says nothing"),
        (unknown.skipped_lookups, "references were skipped, their catalogue rows missing"),
        (verification.unrecorded_roots, "root rows belong to no recorded document"),
    ];
    for (count, what) in extra.iter().filter(|extra| extra.0 > 0) {
        let _ = writeln!(text, "  {count} {what}");
    }
    relations(&mut text, verification);
    listed(&mut text, verification);
    mended(&mut text, verification);
    let failures = verification.failures.iter();
    text.extend(failures.take(FAILURES_MAX).map(|failure| format!("  failed: {failure}\n")));
    more(&mut text, verification.failures.len().saturating_sub(FAILURES_MAX) as u64);
    text
}

fn relations(text: &mut String, verification: &Verification) {
    let differing: Vec<&RelationDifferences> =
        verification.relations.iter().filter(|relation| relation.total() > 0).collect();
    if differing.is_empty() {
        text.push_str("  nothing differs\n");
        return;
    }
    let width = differing.iter().map(|relation| relation.name.chars().count()).max().unwrap_or(0).max(8);
    let line = |text: &mut String, name: &str, cells: &[String]| {
        let cells: String = cells.iter().map(|cell| format!(" {cell:>9}")).collect();
        let _ = writeln!(text, "  {name:<width$}{cells}");
    };
    let heads: &[&str] = match verification.against {
        Against::Feed => &["changed", "moved", "missing", "surplus"],
        Against::Record => &["altered", "gone"],
    };
    line(text, "relation", &heads.iter().map(|&head| head.to_owned()).collect::<Vec<_>>());
    for r in differing {
        let counts = match verification.against {
            Against::Feed => vec![r.changed, r.moved, r.missing, r.surplus],
            Against::Record => vec![r.altered, r.missing],
        };
        let cell = |n: u64| if n == 0 { "·".to_owned() } else { n.to_string() };
        line(text, &r.name, &counts.into_iter().map(cell).collect::<Vec<_>>());
    }
}

/// Rows below those that are missing or surplus themselves are counted, but not shown.
fn listed(text: &mut String, verification: &Verification) {
    let mut said: HashMap<(&str, &str), usize> = HashMap::new();
    let mut tops: Vec<&Difference> = verification.differences.iter().filter(|one| !one.below).collect();
    tops.retain(|one| {
        let rows = said.entry((&one.document, &one.relation)).or_default();
        *rows += 1;
        *rows <= ROWS_MAX
    });
    text.extend(tops.iter().take(SHOWN_MAX).map(|difference| format!("  {difference}\n")));
    let shown = tops.len().min(SHOWN_MAX) as u64;
    more(text, verification.total() - shown);
}

fn more(text: &mut String, count: u64) {
    if count > 0 {
        let _ = writeln!(text, "  and {count} more");
    }
}

fn mended(text: &mut String, verification: &Verification) {
    match &verification.repair {
        Some(repair) if repair.run.is_none() && repair.unsettled > 0 => {
            let marked = plural(repair.unsettled, "document");
            let _ = writeln!(text, "  {marked} marked: the next sync that has them in its feed mends them");
        }
        Some(repair) => {
            let written = repair.run.as_ref().map_or(0, |run| run.rows_written());
            let _ = writeln!(text, "  {} written", plural(written, "row"));
        }
        None => {}
    }
}
