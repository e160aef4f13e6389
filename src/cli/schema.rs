//! `rowdelta schema`.

use std::io::Write as _;

use crate::cli::args;
use crate::cli::connect;
use crate::cli::input::{Feed, FeedOptions};
use crate::cli::output::Exit;
use crate::cli::sync::read_mapping;
use rowdelta::ddl::{Ddl, ddl};
use rowdelta::mapping::Mapping;
use rowdelta::postgres::{catalog, tables};
use rowdelta::sample::Sample;

/// Prints the tables that a mapping asks for, or creates them.
///
/// # Errors
/// In words.
pub async fn schema(args: args::Schema) -> Result<Exit, String> {
    let mapping = read_mapping(&args.mapping)?;
    let options = FeedOptions { document_bytes_max: args.document_bytes_max };
    let feed = Feed::open(&args.feed, options).map_err(|error| error.to_string())?;
    let named = args.database.local || args.database.database.is_some();
    let target = match named || args.create {
        true => Some(connect::Target::open(&args.database).await?),
        false => None,
    };
    let pool = match &target {
        Some(target) => Some(connect::pool(target.access.clone(), 1).await?),
        None => None,
    };
    let mut client = match &pool {
        Some(pool) => Some(connect::get(pool).await?),
        None => None,
    };
    let existing = match &client {
        Some(client) => catalog::existing(client, &mapping).await.map_err(|error| error.to_string())?,
        None => Vec::new(),
    };
    let sample = if args.feed.is_empty() { None } else { Some(read(feed, &mapping)?) };
    let ddl = ddl(&mapping, sample.as_ref(), &existing).map_err(|error| error.to_string())?;
    let text = match client.as_mut().filter(|_| args.create) {
        None => ddl.to_string(),
        Some(client) => {
            let none = |error| format!("the tables could not be created, none was: {error}");
            tables::create(client, &ddl).await.map_err(none)?;
            created(&ddl)
        }
    };
    std::io::stdout().write_all(text.as_bytes()).map_err(|error| error.to_string())?;
    Ok(Exit::Done)
}

/// Reads a feed to its end. What cannot be used is counted on standard error.
fn read(feed: Feed, mapping: &Mapping) -> Result<Sample<'_>, String> {
    let mut sample = Sample::new(mapping);
    let mut first = None;
    for item in feed {
        let (origin, read) = match item {
            Ok(document) => (document.origin, sample.read(&document.bytes)),
            Err(error) if error.fatal => return Err(error.to_string()),
            Err(error) => {
                sample.pass_over();
                (error.origin, Err(error.message))
            }
        };
        if let Err(message) = read {
            first.get_or_insert_with(|| format!("{origin}: {message}"));
        }
    }
    match first {
        None if sample.documents() == 0 => return Err("the feed has no documents to infer types from".into()),
        Some(first) if sample.documents() == 0 => {
            return Err(format!("no document of the feed fits the mapping; the first: {first}"));
        }
        Some(first) => {
            let (passed_over, all) = (sample.passed_over(), sample.passed_over() + sample.documents());
            eprintln!("rowdelta: {passed_over} of {all} documents passed over; the first: {first}");
        }
        None => {}
    }
    Ok(sample)
}

/// What has been created, a line each.
fn created(ddl: &Ddl) -> String {
    let lines: Vec<String> = ddl.tables().map(|table| format!("created {table}\n")).collect();
    if lines.is_empty() { "every table exists already\n".to_owned() } else { lines.concat() }
}
