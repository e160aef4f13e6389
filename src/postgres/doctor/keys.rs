//! Keys that no constraint keeps unique, and whether they are.

use std::time::Duration;

use tokio_postgres::Client;

use super::words::{count, create_index, index_caution, list, rows, size};
use super::{Exam, Finding, Severity, TableFacts, limits};
use crate::error::{Error, ErrorKind};
use crate::mapping::{RelationKind, UniqueIn};
use crate::postgres::{begin, quote};

/// A larger table is read only if the caller has the time.
const TABLE_BYTES_MAX: i64 = 256 << 20;
const TIME_MAX: Duration = Duration::from_secs(5);
const TIME_MAX_THOROUGH: Duration = Duration::from_secs(60 * 60);

/// More duplicates are not counted.
const COUNTED_MAX: i64 = 1_000;

/// Why a unique index is not made without a look.
const UNCOUNTED: &str = "it fails, and leaves an invalid index, if a key is there more than once";

/// A key to look at.
struct Key {
    table: String,
    columns: Vec<String>,
    /// Whether NULL equals NULL in it.
    with_null: bool,
}

/// What is known of a key's duplicates.
enum Twins {
    None,
    /// So many keys are there more than once.
    Some(i64),
    /// Not counted, and why.
    Unknown(String),
}

pub(super) async fn look(
    exam: &mut Exam<'_>,
    client: &mut Client,
    facts: &[TableFacts],
) -> Result<(), Error> {
    demanded(exam, client, facts).await?;
    for relation in &exam.mapping.relations {
        let in_parent = relation.kind == RelationKind::Link || relation.unique_in == UniqueIn::Parent;
        let Some(table) = exam.table(&relation.table).filter(|table| table.is_writable) else { continue };
        if relation.parent.is_empty() || !relation.is_keyed() || !in_parent {
            continue;
        }
        let columns: Vec<String> = relation.parent.iter().chain(&relation.key).cloned().collect();
        let there = columns.iter().all(|name| table.column(name).is_some());
        if !there || table.rules_out_twins(&columns) {
            continue;
        }
        let nulls = relation.has_nullable_key().then_some(" NULLS NOT DISTINCT");
        let nulls = nulls.filter(|_| exam.server.version >= 15).unwrap_or_default();
        let remedy = match table.partitioned_beyond(&columns) {
            Some(beyond) => Remedy::Beyond(beyond),
            None => Remedy::Index(
                create_index(&table.name, table.is_partitioned(), true, &columns) + nulls,
                index_caution(table),
            ),
        };
        let oid = table.oid;
        let key = Key { table: table.name.clone(), columns, with_null: relation.has_nullable_key() };
        let twins = twins(exam, client, facts, &key).await?;
        report(exam, oid, &key, &twins, remedy);
    }
    Ok(())
}

/// What keeps a key unique.
enum Remedy {
    /// This statement, and what it does to others.
    Index(String, Option<&'static str>),
    /// No index of the table: its partition key has this beside the columns.
    Beyond(String),
}

fn report(exam: &mut Exam<'_>, oid: u32, key: &Key, twins: &Twins, remedy: Remedy) {
    let columns = list(&key.columns);
    let (severity, message) = match twins {
        Twins::Some(found) => (
            Severity::Warning,
            format!("{} of {columns} stored, and no constraint forbids it", repeated(*found)),
        ),
        Twins::None => (Severity::Note, format!("no constraint keeps {columns} unique; it is so far")),
        Twins::Unknown(why) => (
            Severity::Note,
            format!("no constraint keeps {columns} unique; whether it is was not counted: {why}"),
        ),
    };
    let finding = exam.about(severity, "no_unique", oid, message).columns(&key.columns);
    finding.costs(
        "of two rows with one key under one parent that others write, the next sync that looks at the list \
         updates one and removes the other",
    );
    let (statement, caution) = match remedy {
        Remedy::Index(statement, caution) => (statement, caution),
        Remedy::Beyond(beyond) => {
            finding.advise(format!(
                "no index of the table can be unique over them: its partition key has {beyond}. CREATE UNIQUE INDEX \
                 on each partition rules out twins within it"
            ));
            return;
        }
    };
    match twins {
        Twins::Some(_) => after_twins(finding, key, statement),
        Twins::Unknown(_) => {
            finding.mend_with_care(statement, UNCOUNTED);
        }
        Twins::None => {
            finding.mend_or_think(statement, caution);
        }
    }
}

fn after_twins(finding: &mut Finding, key: &Key, statement: String) {
    let list: Vec<String> = key.columns.iter().map(|column| quote(column)).collect();
    let list = list.join(", ");
    finding.advise(format!(
        "SELECT {list}, count(*) FROM {} GROUP BY {list} HAVING count(*) > 1 names them",
        key.table
    ));
    finding.sql.clear();
    finding.mend_with_care(
        statement,
        "it fails, and leaves an invalid index, while a key is there more than once",
    );
}

fn repeated(found: i64) -> String {
    match found {
        1 => "1 repeated value".to_owned(),
        COUNTED_MAX.. => format!("{} repeated values or more", count(COUNTED_MAX)),
        _ => format!("{} repeated values", count(found)),
    }
}

/// Keys that must be unique for a sync to start: the index that mends it cannot be made while they are not.
async fn demanded(exam: &mut Exam<'_>, client: &mut Client, facts: &[TableFacts]) -> Result<(), Error> {
    for at in 0..exam.findings.len() {
        let finding = &exam.findings[at];
        let Some(remedy) = finding.sql.first().filter(|_| finding.kind == "mapping") else { continue };
        let (Some(table), false) = (finding.table.clone(), finding.columns.is_empty()) else { continue };
        let statement = remedy.statement.clone();
        let with_null = statement.ends_with("NULLS NOT DISTINCT");
        let key = Key { table, columns: finding.columns.clone(), with_null };
        let twins = twins(exam, client, facts, &key).await?;
        let finding = &mut exam.findings[at];
        match twins {
            Twins::None => {}
            Twins::Some(found) => {
                finding.costs(format!("{} stored: they must go first", repeated(found)));
                after_twins(finding, &key, statement);
            }
            Twins::Unknown(why) => {
                finding.costs(format!("whether it is unique by now was not counted: {why}"));
                finding.sql.clear();
                finding.mend_with_care(statement, UNCOUNTED);
            }
        }
    }
    Ok(())
}

/// Counts keys that are there more than once, if that is soon done.
async fn twins(
    exam: &Exam<'_>,
    client: &mut Client,
    facts: &[TableFacts],
    key: &Key,
) -> Result<Twins, Error> {
    let sizes = facts.iter().find(|facts| facts.table == key.table);
    let (thorough, bytes) = (exam.options.thorough, sizes.map_or(0, |sizes| sizes.bytes));
    if bytes > TABLE_BYTES_MAX && !thorough {
        let table = format!("{}, {}", rows(sizes.and_then(|sizes| sizes.rows)), size(bytes));
        return Ok(Twins::Unknown(format!("the table is large ({table}); --thorough counts")));
    }
    let time = if thorough { TIME_MAX_THOROUGH } else { TIME_MAX };
    let transaction = begin(client, limits(time)).await?;
    match transaction.query_typed_one(&sql(key), &[]).await.map_err(Error::from) {
        Ok(row) => {
            let found = row.get(0);
            transaction.commit().await?;
            Ok(if found == 0 { Twins::None } else { Twins::Some(found) })
        }
        Err(error) if error.code().is_none() || error.kind() == ErrorKind::Connection => Err(error),
        Err(error) => {
            transaction.rollback().await?;
            Ok(Twins::Unknown(error.to_string()))
        }
    }
}

fn sql(key: &Key) -> String {
    let columns: Vec<String> = key.columns.iter().map(|column| quote(column)).collect();
    let not_null: Vec<String> = columns.iter().map(|column| format!("{column} IS NOT NULL")).collect();
    let filter = if key.with_null { String::new() } else { format!(" WHERE {}", not_null.join(" AND ")) };
    format!(
        "SELECT count(*) FROM (SELECT FROM {}{filter} GROUP BY {} HAVING count(*) > 1 LIMIT {COUNTED_MAX}) AS twins",
        key.table,
        columns.join(", ")
    )
}
