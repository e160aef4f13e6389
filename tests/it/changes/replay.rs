//! Does again what changes say, on a copy of the tables without their constraints.

use std::collections::BTreeMap;

use rowdelta::mapping::Mapping;
use serde_json::Value;
use tokio_postgres::Client;

use crate::oracle::{Edit, Edits};
use crate::support::database::{describe, rows};

type Result<T> = std::result::Result<T, String>;

/// A table of a mapping.
struct Table {
    /// As the mapping names it.
    name: String,
    /// Quoted.
    sql: String,
    id: Option<String>,
    /// All columns that the mapping knows, quoted.
    columns: Vec<String>,
}

/// The copy, in the schema `copy`.
pub struct Copy {
    client: Client,
    tables: Vec<Table>,
}

impl Copy {
    /// Of the tables as they are.
    pub async fn of(client: Client, mapping: &Mapping) -> Result<Self> {
        let mut tables = Vec::new();
        for relation in &mapping.relations {
            let id = relation.id.iter().map(String::as_str);
            let columns = relation.columns.iter().map(|column| column.name.as_str());
            let columns = id.chain(relation.parent.iter().map(String::as_str)).chain(columns);
            let name = (relation.table.to_string(), relation.table.table.as_str());
            tables.push(table(name, relation.id.as_deref(), columns));
        }
        for lookup in &mapping.lookups {
            let others = lookup.columns.iter().map(|column| column.0.as_str());
            let columns = [lookup.id.as_str()].into_iter().chain(lookup.key.iter().map(String::as_str));
            let name = (lookup.table.to_string(), lookup.table.table.as_str());
            tables.push(table(name, Some(&lookup.id), columns.chain(others)));
        }
        let copy = Copy { client, tables };
        copy.run("SET TimeZone = 'UTC'; DROP SCHEMA IF EXISTS copy CASCADE; CREATE SCHEMA copy").await?;
        for Table { sql, .. } in &copy.tables {
            copy.run(&format!(
                "CREATE TABLE IF NOT EXISTS copy.{sql} (LIKE public.{sql} INCLUDING DEFAULTS)"
            ))
            .await?;
            copy.run(&format!(
                "TRUNCATE copy.{sql}; INSERT INTO copy.{sql} OVERRIDING SYSTEM VALUE SELECT * FROM public.{sql}"
            ))
            .await?;
        }
        Ok(copy)
    }

    /// Does changes, in their order.
    pub async fn replay(&self, changes: &[Value]) -> Result<()> {
        for change in changes {
            let sql = self.statement(change)?;
            let done = self.client.execute(&sql, &[]).await;
            match done.map_err(|error| format!("{change}\n{sql}\n{}", describe(&error)))? {
                1 => {}
                count => return Err(format!("{change}\n{sql}\n{count} rows")),
            }
        }
        Ok(())
    }

    /// Compares the copy with the tables.
    pub async fn check(&self) -> Result<()> {
        for Table { sql, columns, .. } in &self.tables {
            let list = columns.iter().map(|column| format!("{column}::text")).collect::<Vec<_>>().join(", ");
            let all = |schema: &str| format!("SELECT {list} FROM {schema}.{sql}");
            for (a, b) in [("public", "copy"), ("copy", "public")] {
                let only = rows(&self.client, &format!("{} EXCEPT ALL {}", all(a), all(b))).await?;
                if !only.is_empty() {
                    return Err(format!("{sql}: only in {a}: {only:?}"));
                }
            }
        }
        Ok(())
    }

    fn statement(&self, change: &Value) -> Result<String> {
        let known = |table: &&Table| change["table"] == table.name;
        let Table { sql, id, .. } = self.tables.iter().find(known).ok_or(format!("no table: {change}"))?;
        let mut after = cells(&change["after"]);
        let id = id.as_deref().filter(|_| !change["id"].is_null());
        match change["action"].as_str() {
            Some("added") => {
                after.extend(cells(&change["parent"]));
                after.extend(id.map(|id| (quote(id), literal(&change["id"]))));
                let (names, values): (Vec<String>, Vec<String>) = after.into_iter().unzip();
                let (names, values) = (names.join(", "), values.join(", "));
                Ok(format!("INSERT INTO copy.{sql} ({names}) OVERRIDING SYSTEM VALUE VALUES ({values})"))
            }
            Some("removed") => Ok(format!("DELETE FROM copy.{sql} WHERE {}", found(sql, id, change))),
            _ => {
                let set = after.iter().map(|(name, value)| format!("{name} = {value}"));
                let set = set.collect::<Vec<_>>().join(", ");
                Ok(format!("UPDATE copy.{sql} SET {set} WHERE {}", found(sql, id, change)))
            }
        }
    }

    async fn run(&self, sql: &str) -> Result<()> {
        self.client.batch_execute(sql).await.map_err(|error| format!("{sql}\n{}", describe(&error)))
    }
}

fn table<'n>(
    (name, table): (String, &str),
    id: Option<&str>,
    columns: impl Iterator<Item = &'n str>,
) -> Table {
    let mut columns: Vec<String> = columns.map(quote).collect();
    columns.sort();
    columns.dedup();
    Table { name, sql: quote(table), id: id.map(str::to_owned), columns }
}

/// Finds the row as it was: by its id, else by all that is said of it.
fn found(sql: &str, id: Option<&str>, change: &Value) -> String {
    if let Some(id) = id {
        return format!("{} = {}", quote(id), literal(&change["id"]));
    }
    let mut known = cells(&change["key"]);
    if change["action"] != "moved" {
        known.extend(cells(&change["parent"]));
    }
    known.extend(cells(&change["before"]));
    // A value that a trigger rewrote may be told as it was sent.
    let condition = |(name, value): (&String, &String)| {
        format!("({name}::text IS NOT DISTINCT FROM {value}::text OR {name}::text = {value}::text || '~')")
    };
    let conditions = known.iter().map(condition).collect::<Vec<_>>().join(" AND ");
    format!("ctid = (SELECT ctid FROM copy.{sql} WHERE {conditions} LIMIT 1)")
}

/// Columns and their values, as SQL.
fn cells(values: &Value) -> BTreeMap<String, String> {
    let object = values.as_object().into_iter().flatten();
    object.map(|(name, value)| (quote(name), literal(value))).collect()
}

fn literal(value: &Value) -> String {
    value.as_str().map_or("NULL".to_owned(), |text| format!("'{}'", text.replace('\'', "''")))
}

fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// How many rows changes are about, by table.
pub fn counts(changes: &[Value]) -> Edits {
    let mut edits = Edits::new();
    for change in changes {
        let edit: &mut Edit =
            edits.entry(change["table"].as_str().unwrap_or_default().to_owned()).or_default();
        match change["action"].as_str() {
            Some("added") => edit.inserted += 1,
            Some("removed") => edit.deleted += 1,
            _ => edit.updated += 1,
        }
    }
    edits
}
