//! `rowdelta doctor`.

use std::fmt::Write as _;
use std::time::Instant;

use crate::cli::args;
use crate::cli::connect;
use crate::cli::output::{Exit, plural};
use crate::cli::sync::read_mapping;
use rowdelta::engine::default_workers;
use rowdelta::postgres::doctor::{
    self, Diagnosis, DoctorOptions, Finding, Severity, StateFacts, TableFacts, Way, count, size,
};

/// Columns of a terminal.
const WIDTH: usize = 100;

/// Says what would hurt a sync of a mapping, and prints the statements that mend it.
///
/// # Errors
/// In words.
pub async fn doctor(args: args::Doctor) -> Result<Exit, String> {
    let mapping = read_mapping(&args.mapping)?;
    let target = connect::Target::open(&args.database).await?;
    let connected = Instant::now();
    let pool = connect::pool(target.access.clone(), 1).await?;
    let mut client = connect::get(&pool).await?;
    let options = DoctorOptions {
        thorough: args.thorough,
        workers: args.workers.unwrap_or_else(default_workers).max(1),
        connected_for: Some(connected.elapsed()),
    };
    let diagnosis = doctor::diagnose(&mut client, &mapping, options).await;
    let diagnosis = diagnosis.map_err(|error| error.to_string())?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&diagnosis).map_err(|error| error.to_string())?);
    } else {
        print!("{}", words(&diagnosis));
    }
    Ok(if diagnosis.count(Severity::Error) > 0 { Exit::Failed } else { Exit::Done })
}

fn words(diagnosis: &Diagnosis) -> String {
    let server = &diagnosis.server;
    let mut text = String::new();
    let head = format!(
        "{}: database {}, PostgreSQL {}, role {}",
        diagnosis.mapping, server.database, server.version_text, server.role
    );
    wrapped(&mut text, "", "", &head);
    text.push_str(&summary(diagnosis));
    text.push('\n');
    tables(&mut text, &diagnosis.tables);
    if let Some(state) = &diagnosis.state {
        text.push('\n');
        wrapped(&mut text, "recorded: ", "          ", &recorded(state));
    }
    for group in groups(diagnosis) {
        found(&mut text, &group);
    }
    statements(&mut text, &diagnosis.findings);
    text
}

fn summary(diagnosis: &Diagnosis) -> String {
    let kinds = [(Severity::Error, "error"), (Severity::Warning, "warning"), (Severity::Note, "note")];
    let counts = kinds.map(|(severity, noun)| plural(diagnosis.count(severity) as u64, noun));
    counts.join(", ") + "\n"
}

/// A line for each relation and lookup. Names share what the other columns leave.
fn tables(text: &mut String, tables: &[TableFacts]) {
    let heads = ["relation", "table", "rows", "size", "written by", "found again by"].map(str::to_owned);
    let cells: Vec<[String; 6]> = std::iter::once(heads).chain(tables.iter().map(line)).collect();
    let wide = |at: usize| cells.iter().map(|line| line[at].chars().count()).max().unwrap_or(0);
    let (rows_wide, size_wide, way_wide) = (wide(2), wide(3), wide(4));
    let room = WIDTH.saturating_sub(12 + rows_wide + size_wide + way_wide + wide(5));
    let name_wide = wide(0).min(room.saturating_sub(wide(1)).max(room * 2 / 5));
    let table_wide = wide(1).min(room - name_wide);
    for [relation, table, rows, size, way, by] in &cells {
        let (relation, table) = (cut(relation, name_wide), cut(table, table_wide));
        let line = format!(
            "  {relation:<name_wide$}  {table:<table_wide$}  {rows:>rows_wide$}  {size:>size_wide$}  \
             {way:<way_wide$}  {by}"
        );
        let _ = writeln!(text, "{}", line.trim_end());
    }
}

fn line(facts: &TableFacts) -> [String; 6] {
    let is_there = !matches!(facts.way, Way::Missing);
    let [rows, sizes, by] = match is_there {
        true => [
            facts.rows.map_or("?".to_owned(), count),
            size(facts.bytes + facts.index_bytes),
            match (facts.is_lookup, facts.found_by.is_empty()) {
                (true, _) => "its key".to_owned(),
                (false, false) => "primary key".to_owned(),
                (false, true) => "physical place".to_owned(),
            },
        ],
        false => Default::default(),
    };
    [facts.relation.clone(), facts.table.clone(), rows, sizes, facts.way.to_string(), by]
}

/// A name in so many letters.
fn cut(name: &str, width: usize) -> String {
    if name.chars().count() <= width {
        return name.to_owned();
    }
    name.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

fn recorded(state: &StateFacts) -> String {
    let documents = plural(state.documents.unsigned_abs(), "document");
    let vacuumed =
        state.vacuumed.as_deref().map_or("never cleaned".to_owned(), |time| format!("cleaned {time}"));
    format!(
        "{documents}, {} unsettled, {} in all three tables ({} dead rows, {vacuumed}); {} in the ledger, {}",
        count(state.unsettled),
        size(state.bytes),
        count(state.dead_rows),
        plural(state.runs.unsigned_abs(), "run"),
        size(state.ledger_bytes),
    )
}

/// Findings of one table, or of the database.
struct Group<'d> {
    name: String,
    findings: Vec<&'d Finding>,
}

/// In the order of the worst finding of each.
fn groups(diagnosis: &Diagnosis) -> Vec<Group<'_>> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    for finding in &diagnosis.findings {
        let name = match (&finding.relation, &finding.table) {
            (Some(relation), Some(table)) => format!("{relation}: {table}"),
            (Some(relation), None) => relation.clone(),
            _ => "the database".to_owned(),
        };
        match groups.iter_mut().find(|group| group.name == name) {
            Some(group) => group.findings.push(finding),
            None => groups.push(Group { name, findings: vec![finding] }),
        }
    }
    groups
}

fn found(text: &mut String, group: &Group<'_>) {
    text.push('\n');
    wrapped(text, "", "  ", &group.name);
    for finding in &group.findings {
        let severity = match finding.severity {
            Severity::Error => "  error    ",
            Severity::Warning => "  warning  ",
            Severity::Note => "  note     ",
        };
        wrapped(text, severity, "           ", &finding.message);
        if let Some(cost) = &finding.cost {
            wrapped(text, "           costs: ", "             ", cost);
        }
        if let Some(advice) = &finding.advice {
            wrapped(text, "           to do: ", "             ", advice);
        }
    }
}

/// One block for psql. What needs thought first is in it as a comment.
fn statements(text: &mut String, findings: &[Finding]) {
    let mut seen: Vec<&str> = Vec::new();
    for remedy in findings.iter().flat_map(|finding| &finding.sql) {
        if seen.contains(&remedy.statement.as_str()) {
            continue;
        }
        if seen.is_empty() {
            text.push_str("\n-- For psql, outside a transaction, by the tables' owner:\n");
        }
        seen.push(&remedy.statement);
        let statement = format!("{};", remedy.statement);
        match &remedy.caution {
            None => wrapped_sql(text, "", &statement),
            Some(caution) => {
                wrapped(text, "-- ", "-- ", &format!("Think first: {caution}."));
                wrapped_sql(text, "--   ", &statement);
            }
        }
    }
}

/// Breaks at blanks; the first line begins with one thing, all others with another.
fn wrapped(text: &mut String, first: &str, others: &str, words: &str) {
    wrap(text, first, others, words.split_whitespace());
}

/// Breaks at blanks that are not within quotes.
fn wrapped_sql(text: &mut String, start: &str, statement: &str) {
    let mut quote = None;
    let words = statement.split(|c: char| {
        match quote {
            Some(open) if c == open => quote = None,
            None if matches!(c, '"' | '\'') => quote = Some(c),
            _ => {}
        }
        c == ' ' && quote.is_none()
    });
    wrap(text, start, &format!("{start}  "), words);
}

fn wrap<'w>(text: &mut String, first: &str, others: &str, words: impl Iterator<Item = &'w str>) {
    let (mut line, mut is_empty) = (first.to_owned(), true);
    for word in words {
        if !is_empty && line.chars().count() + 1 + word.chars().count() > WIDTH {
            let _ = writeln!(text, "{line}");
            (line, is_empty) = (others.to_owned(), true);
        }
        if !is_empty {
            line.push(' ');
        }
        line.push_str(word);
        is_empty = false;
    }
    let _ = writeln!(text, "{}", line.trim_end());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_break_outside_quotes_only() {
        let mut text = String::new();
        let name = format!("\"{}\"", "a b ".repeat(30));
        wrapped_sql(&mut text, "", &format!("ALTER TABLE {name} ADD x;"));
        assert_eq!(text, format!("ALTER TABLE\n  {name}\n  ADD x;\n"));
    }

    #[test]
    fn prose_stays_within_the_terminal() {
        let mut text = String::new();
        wrapped(&mut text, "  note     ", "           ", &"it's long, and ".repeat(30));
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
        assert!(text.lines().skip(1).all(|line| line.starts_with("           ")), "{text}");
    }

    #[test]
    fn long_names_are_cut_in_the_table_of_tables() {
        let facts = |name: String| TableFacts {
            relation: name.clone(),
            is_lookup: true,
            table: name.clone(),
            rows: Some(123_456_789),
            bytes: 1 << 40,
            index_bytes: 1 << 40,
            way: Way::Missing,
            found_by: vec![name],
        };
        for length in [1, 20, 63, 120] {
            let mut text = String::new();
            tables(&mut text, &[facts("n".repeat(length)), facts("m".into())]);
            assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
        }
    }
}
