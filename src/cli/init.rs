//! `rowdelta init`.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use crate::cli::args;
use crate::cli::input::{Feed, FeedOptions};
use crate::cli::output::{Exit, plural};
use rowdelta::mapping::Mapping;
use rowdelta::propose::{Options, Survey, name_from, propose};

/// Proposes a mapping for a feed.
///
/// # Errors
/// In words.
pub fn init(args: &args::Init) -> Result<Exit, String> {
    // Before the feed is read, which may take a while.
    if let Some(file) = args.out.as_deref().filter(|file| file.exists() && !args.force) {
        return Err(exists(file));
    }
    let feed_options = FeedOptions { document_bytes_max: args.document_bytes_max };
    let feed = Feed::open(&args.feed, feed_options).map_err(|error| error.to_string())?;
    let survey = read(feed, args.sample)?;
    let documents = survey.documents();
    let options = options(args)?;
    let text = propose(survey, &options).map_err(|error| error.to_string())?;
    let mapping = Mapping::from_toml(&text)
        .map_err(|error| format!("what was proposed is no mapping, which is a fault of rowdelta: {error}"))?;
    match &args.out {
        None => io::stdout().write_all(text.as_bytes()).map_err(|error| error.to_string())?,
        Some(file) => {
            write(file, &text, args.force)?;
            print!("{}", written(file, &mapping, documents, args));
        }
    }
    Ok(Exit::Done)
}

fn options(args: &args::Init) -> Result<Options, String> {
    let name = args.name.clone().or_else(|| args.table.clone()).unwrap_or_else(|| name_of(&args.feed[0]));
    let table = args.table.clone().unwrap_or_else(|| name_from(&name));
    let is_faulty =
        table.contains('"') || table.split('.').count() > 2 || table.split('.').any(str::is_empty);
    if is_faulty {
        return Err(format!("--table {table}: write TABLE or SCHEMA.TABLE, without quotes"));
    }
    Ok(Options { name, table, key: args.key.clone() })
}

/// A name from that of a file, without what says how it is packed.
fn name_of(feed: &Path) -> String {
    let name = feed.file_name().unwrap_or_default().to_string_lossy();
    let stem = name.split('.').next().filter(|stem| !stem.is_empty());
    name_from(stem.unwrap_or(&name))
}

/// Reads so many documents. What cannot be used is counted on standard error.
fn read(feed: Feed, documents_max: u64) -> Result<Survey, String> {
    let mut survey = Survey::new();
    let mut first = None;
    for item in feed {
        let (origin, read) = match item {
            Ok(document) => (document.origin, survey.read(&document.bytes)),
            Err(error) if error.fatal => return Err(error.to_string()),
            Err(error) => {
                survey.pass_over();
                (error.origin, Err(error.message))
            }
        };
        if let Err(message) = read {
            first.get_or_insert_with(|| format!("{origin}: {message}"));
        }
        if survey.documents() >= documents_max {
            break;
        }
    }
    match first {
        None if survey.documents() == 0 => {
            return Err("the feed has no documents to propose a mapping from; give one with some".into());
        }
        Some(first) if survey.documents() == 0 => {
            return Err(format!(
                "no document of the feed can be read; the first: {first}\n\
                 a feed is JSON objects, one a line or over several, or arrays of them"
            ));
        }
        Some(first) => {
            let (passed_over, all) = (survey.passed_over(), survey.passed_over() + survey.documents());
            eprintln!("rowdelta: {passed_over} of {all} documents passed over; the first: {first}");
        }
        None => {}
    }
    Ok(survey)
}

fn write(file: &Path, text: &str, force: bool) -> Result<(), String> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(!force).create(force).truncate(force);
    let written = options.open(file).and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => exists(file),
        _ => format!("{}: {error}", file.display()),
    })
}

fn exists(file: &Path) -> String {
    format!("{} exists; give another name, or --force to overwrite it", file.display())
}

/// What was written, and what comes next.
fn written(file: &Path, mapping: &Mapping, documents: u64, args: &args::Init) -> String {
    let tables = plural((mapping.relations.len() + mapping.lookups.len()) as u64, "table");
    let feed: Vec<String> = args.feed.iter().map(|path: &PathBuf| path.display().to_string()).collect();
    let (file, feed) = (file.display(), feed.join(" "));
    format!(
        "{file}: {tables}, from {}\nread it, then:\n  rowdelta schema -m {file} --create -d URL\n  \
         rowdelta sync -m {file} --install -d URL {feed}\n",
        plural(documents, "document")
    )
}
