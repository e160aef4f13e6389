//! `rowdelta history`.

use crate::cli::args;
use crate::cli::connect;
use crate::cli::output::{Exit, plural, print};
use crate::cli::rows::{Paint, Row};
use crate::cli::status::{clock, name, unknown};
use rowdelta::engine::changes::Action;
use rowdelta::postgres::changes::{self, Kept};
use rowdelta::postgres::{install, ledger};

/// Prints what is noted of a document.
///
/// # Errors
/// In words.
pub async fn history(args: args::History) -> Result<Exit, String> {
    let mapping = name(&args.mapping)?;
    let target = connect::Target::open(&args.database).await?;
    let pool = connect::pool(target.access.clone(), 1).await?;
    let client = connect::get(&pool).await?;
    install::check(&client).await.map_err(|error| error.to_string())?;
    let kept = changes::history(&client, &mapping, &args.document, args.max);
    let kept = kept.await.map_err(|error| error.to_string())?;
    if kept.is_empty() {
        let names = ledger::names(&client).await.map_err(|error| error.to_string())?;
        if !names.contains(&mapping) {
            return Err(unknown(&names, &mapping, &args.mapping));
        }
    }
    if args.json {
        let lines = kept.iter().map(serde_json::to_string).collect::<Result<Vec<_>, _>>();
        let lines = lines.map_err(|error| error.to_string())?;
        print(&lines.into_iter().map(|line| line + "\n").collect::<String>())?;
    } else {
        print(&words(&mapping, &args, &kept))?;
    }
    Ok(Exit::Done)
}

fn words(mapping: &str, args: &args::History, kept: &[Kept]) -> String {
    let document = &args.document;
    if kept.is_empty() {
        return format!(
            "{mapping}: no change of document {document} is noted: it was not written with `sync --history`, or its key is \
             spelled otherwise\n"
        );
    }
    let mut text = format!("{mapping}, document {document}: {}", plural(kept.len() as u64, "change"));
    if kept.len() == args.max as usize {
        text += ", the newest";
    }
    text.push('\n');
    let paint = Paint::of_terminal();
    for at_once in kept.chunk_by(|a, b| moment(a) == moment(b)) {
        let by = at_once[0].run.map_or("by no run: in SQL".to_owned(), |run| format!("run {run}"));
        text += &format!("\n{} UTC, {by}\n", paint.bold(&clock(&at_once[0].at[..19])));
        at_once.iter().for_each(|change| text += &row(change).words(paint, args.full));
    }
    text
}

/// What is shown together: to the second.
fn moment(change: &Kept) -> (&str, Option<i64>) {
    (change.at.get(..19).unwrap_or(&change.at), change.run)
}

fn row(change: &Kept) -> Row<'_> {
    let action = match change.action.as_str() {
        "added" => Action::Added,
        "removed" => Action::Removed,
        "moved" => Action::Moved,
        _ => Action::Updated,
    };
    Row {
        action,
        relation: &change.relation,
        key: change.key.as_ref(),
        before: change.before.as_ref(),
        after: change.after.as_ref(),
        names: None,
    }
}
