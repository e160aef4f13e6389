//! `rowdelta status`.

use std::fmt::Write as _;
use std::path::Path;

use crate::cli::args;
use crate::cli::connect;
use crate::cli::output::{Exit, plural};
use crate::cli::sync::read_mapping;
use rowdelta::document::Origin;
use rowdelta::postgres::install;
use rowdelta::postgres::ledger::{
    self, FailureStatus, LeaseState, LeaseStatus, MappingStatus, RunState, RunStatus,
};

/// How many failed documents are shown.
const FAILURES_MAX: u32 = 10;

/// Columns of a terminal.
const WIDTH: usize = 100;

/// Says what is recorded of every mapping, or of one.
///
/// # Errors
/// In words.
pub async fn status(args: args::Status) -> Result<Exit, String> {
    let name = args.mapping.as_deref().map(name).transpose()?;
    let target = connect::Target::open(&args.database).await?;
    let pool = connect::pool(target.access.clone(), 1).await?;
    let client = connect::get(&pool).await?;
    install::check(&client).await.map_err(|error| error.to_string())?;
    let ledger = ledger::read(&client, name.as_deref(), args.runs, FAILURES_MAX);
    let ledger = ledger.await.map_err(|error| error.to_string())?;
    if let Some((name, given)) = name.zip(args.mapping).filter(|_| ledger.mappings.is_empty()) {
        let names = ledger::names(&client).await.map_err(|error| error.to_string())?;
        return Err(unknown(&names, &name, &given));
    }
    if args.json {
        println!("{}", serde_json::to_string_pretty(&ledger).map_err(|error| error.to_string())?);
    } else if ledger.mappings.is_empty() {
        println!("no run of any mapping is recorded in this database");
    } else {
        print!("{}", ledger.mappings.iter().map(words).collect::<Vec<_>>().join("\n"));
    }
    Ok(Exit::Done)
}

/// The name that is given, or that of the mapping in the file of that name.
///
/// # Errors
/// What is wrong with the file, in words.
pub fn name(given: &str) -> Result<String, String> {
    let file = Path::new(given);
    if file.is_file() { Ok(read_mapping(file)?.name) } else { Ok(given.to_owned()) }
}

/// That a mapping is none of those that are recorded.
pub fn unknown(recorded: &[String], name: &str, given: &str) -> String {
    let file = if Path::new(given).is_file() { "" } else { ", and there is no such file" };
    let others = match recorded.is_empty() {
        true => "no mapping is".to_owned(),
        false => format!("recorded are {}", recorded.join(", ")),
    };
    format!("no mapping {name} is recorded in this database{file}; {others}")
}

fn words(mapping: &MappingStatus) -> String {
    let mut text = String::new();
    let documents = plural(mapping.documents, "document");
    let _ = write!(text, "{}: {documents}", mapping.name);
    if mapping.unsettled > 0 {
        let _ = write!(text, ", {} of them to be done again", mapping.unsettled);
    }
    let _ = writeln!(text, "; {}", lease(&mapping.lease));
    if mapping.runs.is_empty() {
        return text;
    }
    let _ = writeln!(
        text,
        "  {:<19} {:>6}  {:<8} {:>7} {:>7} {:>6} {:>7} {:>7} {:>6} {:>7} {:>7}",
        "started (UTC)",
        "took",
        "status",
        "read",
        "same",
        "new",
        "changed",
        "removed",
        "failed",
        "rows",
        "retries"
    );
    mapping.runs.iter().for_each(|run| text.push_str(&line(run)));
    if mapping.failed > 0 {
        let failed = plural(mapping.failed, "failure");
        let _ = writeln!(text, "  {failed} in the newest run:");
        mapping.failures.iter().for_each(|failure| text.push_str(&fitted(&failure_words(failure))));
        let more = mapping.failed.saturating_sub(mapping.failures.len() as u64);
        if more > 0 {
            let _ = writeln!(text, "    and {more} more");
        }
    }
    text
}

fn lease(lease: &LeaseStatus) -> String {
    let time = |time: &Option<String>| time.as_deref().map(clock).unwrap_or_default();
    let holder = lease.holder.as_deref().unwrap_or("someone");
    match (lease.state, &lease.since) {
        (LeaseState::Free, _) => "no run is at work".to_owned(),
        (LeaseState::Held, Some(_)) => {
            format!("at work: {holder},\n  since {}, lease until {}", time(&lease.since), time(&lease.until))
        }
        (LeaseState::Held, None) => format!("at work: {holder},\n  lease until {}", time(&lease.until)),
        (LeaseState::Expired, _) => {
            format!("no run is at work:\n  the lease of {holder} expired {}", time(&lease.until))
        }
    }
}

fn line(run: &RunStatus) -> String {
    let status = match run.status {
        RunState::Running => "running",
        RunState::Done => "done",
        RunState::Failed => "failed",
        RunState::Withheld => "withheld",
        RunState::Aborted => "aborted",
        RunState::Died => "died",
    };
    let counts = &run.counts;
    let [read, same, new, changed, removed, failed, rows, retries] = [
        counts.read,
        counts.unchanged,
        counts.new,
        counts.changed,
        counts.removed,
        counts.failed,
        counts.rows_written,
        counts.retries,
    ]
    .map(|count| match run.finished {
        Some(_) => compact(count),
        None => String::new(),
    });
    let line = format!(
        "  {:<19} {:>6}  {status:<8} {read:>7} {same:>7} {new:>6} {changed:>7} {removed:>7} {failed:>6} {rows:>7} {retries:>7}",
        clock(&run.started),
        run.elapsed_ms.map_or(String::new(), took),
    );
    line.trim_end().to_owned() + "\n"
}

/// `2026-11-24T03:00:01Z` for people.
pub fn clock(time: &str) -> String {
    time.trim_end_matches('Z').replace('T', " ")
}

/// A count in six characters or fewer.
fn compact(count: u64) -> String {
    match count {
        0 => "·".to_owned(),
        1..1_000_000 => count.to_string(),
        1_000_000..100_000_000 => format!("{:.1}M", count as f64 / 1e6),
        _ => format!("{}M", count / 1_000_000),
    }
}

/// A time in seven characters or fewer.
fn took(ms: u64) -> String {
    let seconds = ms as f64 / 1000.0;
    match ms {
        0..100_000 => format!("{seconds:.1} s"),
        100_000..6_000_000 => format!("{:.1} m", seconds / 60.0),
        _ => format!("{:.1} h", seconds / 3600.0),
    }
}

fn failure_words(failure: &FailureStatus) -> String {
    let number = |number: Option<i64>| number.map(i64::unsigned_abs);
    let origin = Origin {
        file: failure.file.as_deref().map(Into::into),
        line: number(failure.line).unwrap_or(0),
        item: number(failure.item),
    };
    let mut words = match &failure.document {
        Some(document) => format!("{document} ({origin})"),
        None => origin.to_string(),
    };
    if let Some(part) = failure.path.as_ref().or(failure.relation.as_ref()) {
        words += &format!(": {part}");
    }
    words += &format!(": {}", failure.message);
    if let Some(code) = &failure.sqlstate {
        words += &format!(" ({code})");
    }
    words
}

/// A line that fits, cut where it does not.
fn fitted(words: &str) -> String {
    let letters: Vec<char> = format!("    {words}").chars().collect();
    if letters.len() <= WIDTH {
        return letters.into_iter().chain(['\n']).collect();
    }
    letters.into_iter().take(WIDTH - 1).chain(['…', '\n']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_times_fit_their_columns() {
        for (count, text) in [
            (0, "·"),
            (999_999, "999999"),
            (1_234_567, "1.2M"),
            (99_950_000, "100.0M"),
            (5_000_000_000, "5000M"),
        ] {
            assert_eq!(compact(count), text);
        }
        for (ms, text) in [(0, "0.0 s"), (99_949, "99.9 s"), (600_000, "10.0 m"), (7_200_000, "2.0 h")] {
            assert_eq!(took(ms), text);
            assert!(took(ms).len() <= 6);
        }
        assert!(fitted(&"x".repeat(300)).chars().count() == WIDTH + 1);
    }
}
