//! `rowdelta plan`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::BufWriter;
use std::path::Path;

use indicatif::HumanCount;
use tokio::sync::mpsc;

use crate::cli::args;
use crate::cli::changes::Lines;
use crate::cli::connect;
use crate::cli::input::{Feed, FeedOptions};
use crate::cli::output::{Exit, plural, print};
use crate::cli::rows::{Paint, Row};
use crate::cli::sync::{read_mapping, stop_on_signals};
use crate::cli::verify::until_stopped;
use rowdelta::engine::changes::Change;
use rowdelta::engine::plan::{CatalogueNames, Recorder};
use rowdelta::engine::report::{RelationCounts, Report};
use rowdelta::engine::{Engine, default_workers};
use rowdelta::error::Error;
use rowdelta::mapping::Mapping;

/// How many documents are shown: the first by their keys.
const DOCUMENTS_MAX: usize = 20;

/// How many rows of each.
const ROWS_MAX: usize = 12;

/// How many failed documents are named.
const FAILURES_MAX: usize = 10;

/// Changes that wait for being gathered.
const WAITING_MAX: usize = 1_000;

/// Says what a sync would do.
///
/// # Errors
/// What kept it from starting, in words.
pub async fn plan(args: args::Plan) -> Result<Exit, String> {
    let mapping = read_mapping(&args.mapping)?;
    let options = FeedOptions { document_bytes_max: args.document_bytes_max };
    let feed = Feed::open(&args.feed, options).map_err(|error| error.to_string())?;
    let workers = args.workers.unwrap_or_else(default_workers).max(1);
    let target = connect::Target::open(&args.database).await?;
    let pool = connect::pool(target.access.clone(), workers).await?;
    let builder = args.deleting.set(Engine::builder(mapping.clone())).workers(workers).read_only();
    let engine = builder.build(pool).await.map_err(|error| error.to_string())?;
    let saving = match &args.out {
        Some(file) => Some(Saving::begin(&engine, &mapping, file).await?),
        None => None,
    };
    let stop = stop_on_signals();
    let feed = until_stopped(feed, stop.clone());
    let (planned, gathered) = match args.json {
        true => {
            let lines = Lines::open("-".as_ref())?;
            let planned = engine.plan(feed, lines.listener()).await;
            lines.finish().await?;
            (planned, (Gathered::default(), None))
        }
        false => {
            let (listener, changes) = mpsc::channel(WAITING_MAX);
            let gathering = tokio::spawn(gather(changes, args.full, saving));
            let planned = engine.plan(feed, listener).await;
            (planned, gathering.await.map_err(|error| error.to_string())?)
        }
    };
    let (gathered, saving) = gathered;
    let signal = *stop.borrow();
    let report = match planned {
        Ok(report) => report,
        Err(error) => return Ok(unable(&error, signal)),
    };
    saving.map_or(Ok(()), Saving::end)?;
    match args.json {
        true => println!("{}", serde_json::to_string(&report).map_err(|error| error.to_string())?),
        false => {
            let shown = gathered.documents.values().flat_map(|rows| &rows.shown);
            let names = engine.catalogue_names(shown).await.map_err(|error| error.to_string())?;
            print(&words(&report, &gathered, &names, args.full))?;
        }
    }
    Ok(exit(&report, args.exit_code))
}

fn unable(error: &Error, signal: u8) -> Exit {
    eprintln!("rowdelta: {error}");
    Exit::of_signal(signal).unwrap_or_else(|| Exit::of_cause(error))
}

fn exit(report: &Report, differs: bool) -> Exit {
    let writes = report.rows_written() + report.marks > 0;
    match () {
        () if report.failures.iter().any(|failure| failure.retryable) => Exit::Retryable,
        () if !report.failures.is_empty() => Exit::Failed,
        () if report.documents.withheld > 0 => Exit::Withheld,
        () if differs && writes => Exit::Differs,
        () => Exit::Done,
    }
}

/// Changes by document, as many as are shown; those of catalogues, which belong to none, before them.
#[derive(Default)]
struct Gathered {
    documents: BTreeMap<Option<String>, Rows>,
    /// Documents that are not shown.
    more: bool,
}

/// The changed rows of a document.
#[derive(Default)]
struct Rows {
    shown: Vec<Change>,
    more: u64,
}

impl Rows {
    /// Rows of a document come in an order that makes sense, those of catalogues in any.
    fn add(&mut self, change: Change, max: usize) {
        if change.document.is_none() {
            let name = |change: &Change| (change.relation.clone(), change.key.clone());
            let at = self.shown.partition_point(|shown| name(shown) < name(&change));
            self.shown.insert(at, change);
        } else {
            self.shown.push(change);
        }
        if self.shown.len() > max {
            self.shown.pop();
            self.more += 1;
        }
    }
}

async fn gather(
    mut changes: mpsc::Receiver<Change>,
    full: bool,
    mut saving: Option<Saving>,
) -> (Gathered, Option<Saving>) {
    let mut gathered = Gathered::default();
    let (documents_max, rows_max) = if full { (usize::MAX, usize::MAX) } else { (DOCUMENTS_MAX, ROWS_MAX) };
    while let Some(change) = changes.recv().await {
        let rows = gathered.documents.entry(change.document.clone()).or_default();
        saving.iter_mut().for_each(|saving| saving.plan.add(&change));
        rows.add(change, rows_max);
        let catalogues = usize::from(gathered.documents.contains_key(&None));
        if gathered.documents.len() - catalogues > documents_max {
            gathered.documents.pop_last();
            gathered.more = true;
        }
    }
    (gathered, saving)
}

/// A plan that is being saved.
struct Saving {
    plan: Recorder,
    file: File,
    name: String,
}

impl Saving {
    async fn begin(engine: &Engine, mapping: &Mapping, file: &Path) -> Result<Self, String> {
        let name = file.display().to_string();
        let digest = engine.digest().await.map_err(|error| error.to_string())?;
        let file = File::create(file).map_err(|error| format!("{name}: {error}"))?;
        Ok(Saving { plan: Recorder::new(mapping, digest), file, name })
    }

    fn end(self) -> Result<(), String> {
        self.plan.finish().write(BufWriter::new(self.file)).map_err(|error| format!("{}: {error}", self.name))
    }
}

/// A summary, the rows, and what to do next.
fn words(report: &Report, gathered: &Gathered, names: &CatalogueNames, full: bool) -> String {
    let paint = Paint::of_terminal();
    let mut text = summary(report);
    let failures = report.failures.iter();
    text.extend(failures.take(FAILURES_MAX).map(|failure| format!("  would fail: {failure}\n")));
    more(&mut text, report.failures.len().saturating_sub(FAILURES_MAX) as u64, "document");
    if let Some(why) = &report.withheld_because {
        let _ = writeln!(text, "  withheld: {why}");
    }
    for (document, rows) in &gathered.documents {
        let head = match document {
            Some(document) => format!("document {document}"),
            None => "catalogues".to_owned(),
        };
        let _ = writeln!(text, "\n{}", paint.bold(&head));
        rows.shown.iter().for_each(|change| text += &row(change, names).words(paint, full));
        if rows.more > 0 {
            let _ = writeln!(text, "  {}", paint.dim(&format!("and {}", plural(rows.more, "more row"))));
        }
    }
    if gathered.more {
        let _ = writeln!(text, "\n{}", paint.dim("and more documents: --full shows all, --json too"));
    }
    text.push('\n');
    text += &closing(report);
    text
}

fn row<'c>(change: &'c Change, names: &'c CatalogueNames) -> Row<'c> {
    Row {
        action: change.action,
        relation: &change.relation,
        key: change.key.as_ref(),
        before: change.before.as_ref(),
        after: change.after.as_ref(),
        names: Some(names),
    }
}

fn summary(report: &Report) -> String {
    let documents = &report.documents;
    let mut text = format!(
        "{}: {} compared in {:.1} s: {} unchanged, {} new, {} changed, {} would fail\n",
        report.mapping,
        plural(documents.read, "document"),
        report.elapsed_ms as f64 / 1000.0,
        HumanCount(documents.unchanged),
        HumanCount(documents.new),
        HumanCount(documents.changed),
        HumanCount(documents.failed),
    );
    let extra = [
        (documents.repeated, "repeated"),
        (documents.absent, "recorded, and not in the feed"),
        (documents.removed, "would be deleted"),
        (documents.withheld, "would be withheld"),
        (report.skipped_lookups, "references would be left out, their catalogue rows missing"),
        (report.marks, "root rows would be marked"),
    ];
    for (count, what) in extra.iter().filter(|extra| extra.0 > 0) {
        let _ = writeln!(text, "  {} {what}", HumanCount(*count));
    }
    relations(&mut text, report);
    text
}

fn relations(text: &mut String, report: &Report) {
    let counts = |r: &RelationCounts| [r.added, r.updated, r.moved, r.removed, r.withheld];
    let written: Vec<_> = report.relations.iter().filter(|r| counts(r).iter().sum::<u64>() > 0).collect();
    if written.is_empty() {
        return;
    }
    let width = written.iter().map(|relation| relation.name.chars().count()).max().unwrap_or(0).max(8);
    let withheld = written.iter().any(|r| r.withheld > 0);
    let columns = if withheld { 5 } else { 4 };
    let line = |text: &mut String, name: &str, cells: [String; 5]| {
        let cells: String = cells[..columns].iter().map(|cell| format!(" {cell:>9}")).collect();
        let _ = writeln!(text, "  {name:<width$}{cells}");
    };
    line(text, "relation", ["add", "update", "move", "remove", "withhold"].map(str::to_owned));
    for relation in written {
        let cell = |n: u64| if n == 0 { "·".to_owned() } else { HumanCount(n).to_string() };
        line(text, &relation.name, counts(relation).map(cell));
    }
}

fn closing(report: &Report) -> String {
    let sum = |count: fn(&RelationCounts) -> u64| HumanCount(report.relations.iter().map(count).sum());
    let documents = &report.documents;
    match report.rows_written() {
        0 if documents.failed + documents.withheld > 0 => return "Nothing would be written.\n".to_owned(),
        0 => return "Nothing to do. Nothing was written.\n".to_owned(),
        _ => {}
    }
    format!(
        "Plan: {} to add, {} to update, {} to move, {} to remove. Nothing was written.\n",
        sum(|r| r.added),
        sum(|r| r.updated),
        sum(|r| r.moved),
        sum(|r| r.removed),
    )
}

fn more(text: &mut String, count: u64, noun: &str) {
    if count > 0 {
        let _ = writeln!(text, "  and {}", plural(count, &format!("more {noun}")));
    }
}
