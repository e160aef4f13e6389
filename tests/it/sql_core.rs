//! Syncing by the functions of the schema `rowdelta`, from any language: what holds of the engine holds of them.
//!
//! - `real`: real feeds, by the functions alone, and turn about with the command;
//! - `scope`: mappings that are not for them are refused, and where;
//! - `policies`, `failing`, `deleting`, `told`: each fact by itself, on the shop;
//! - `found`: what random nights found;
//! - `digests`: what is recorded is what the engine records;
//! - `races`: several sessions, and the command beside them;
//! - `roles`: what a role needs;
//! - `texts`: documents given as text.
//!
//! Random mappings and nights are played by `crate::agreement`.

mod deleting;
mod digests;
mod failing;
mod found;
mod policies;
mod races;
mod real;
mod roles;
mod scope;
mod texts;
mod told;

use std::path::Path;

use serde_json::Value;
use tokio_postgres::Client;

use crate::shop::Shop;
use crate::support::Database;
use crate::support::command::Ran;

/// A session that calls the functions, for one mapping.
pub struct Sql {
    client: Client,
    pub name: String,
}

/// An error of the server.
#[derive(Debug, PartialEq)]
pub struct Refused {
    pub code: String,
    pub message: String,
    pub detail: String,
}

impl Sql {
    /// Registers a mapping, which must be one for the functions.
    pub async fn open(db: &Database, mapping: &Value) -> Self {
        let sql = Self { client: db.client().await, name: mapping["name"].as_str().unwrap().to_owned() };
        sql.register(mapping).await.unwrap();
        sql
    }

    /// The mapping of a file in TOML.
    pub async fn with_file(db: &Database, mapping: &Path) -> Self {
        Self::open(db, &json_of(&std::fs::read_to_string(mapping).unwrap())).await
    }

    pub async fn register(&self, mapping: &Value) -> Result<String, Refused> {
        self.call("SELECT rowdelta.register($1::text::jsonb)::text", &[&mapping.to_string()]).await
    }

    /// `sync_many` of documents: a report as a run of the command leaves one.
    pub async fn many(&self, docs: &[impl AsRef<str>]) -> Ran {
        self.try_many(docs).await.unwrap_or_else(|error| panic!("{error:?}"))
    }

    pub async fn try_many(&self, docs: &[impl AsRef<str>]) -> Result<Ran, Refused> {
        let docs: Vec<&str> = docs.iter().map(AsRef::as_ref).collect();
        let documents = format!("[{}]", docs.join(","));
        let report = self
            .call("SELECT rowdelta.sync_many($1, $2::text::jsonb)::text", &[&self.name, &documents])
            .await?;
        Ok(ran(&report))
    }

    /// `sync_texts` of documents.
    pub async fn texts(&self, docs: &[String]) -> Ran {
        let sql = "SELECT rowdelta.sync_texts($1, $2)::text";
        let row = self.client.query_one(sql, &[&self.name, &docs]).await;
        ran(row.unwrap_or_else(|error| panic!("{:?}", refused(error))).get(0))
    }

    /// `sync` of a document: a line for each relation of which a row was written, and what became of the document.
    pub async fn one(&self, document: &Value) -> Result<Vec<String>, Refused> {
        let written = "format('%s +%s ~%s >%s -%s', relation, added, updated, moved, removed)";
        let lines = self
            .call(
                &format!(
                    "SELECT concat_ws(E'\\n', string_agg({written}, E'\\n') FILTER (WHERE added + updated + moved + removed > 0),
                     min(status)) FROM rowdelta.sync($1, $2::text::jsonb)"
                ),
                &[&self.name, &document.to_string()],
            )
            .await?;
        Ok(lines.lines().map(str::to_owned).collect())
    }

    /// The one text of a query with texts as parameters.
    pub async fn call(&self, sql: &str, with: &[&String]) -> Result<String, Refused> {
        let with: Vec<_> =
            with.iter().map(|text| *text as &(dyn tokio_postgres::types::ToSql + Sync)).collect();
        let rows = self.client.query(sql, &with).await.map_err(refused)?;
        Ok(rows.first().and_then(|row| row.get::<_, Option<String>>(0)).unwrap_or_default())
    }

    /// Runs statements.
    pub async fn execute(&self, sql: &str) -> Result<(), Refused> {
        self.client.batch_execute(sql).await.map_err(refused)
    }
}

fn ran(report: &str) -> Ran {
    Ran { code: 0, stderr: String::new(), report: serde_json::from_str(report).unwrap(), peak_bytes: None }
}

fn refused(error: tokio_postgres::Error) -> Refused {
    let db = error.as_db_error().unwrap_or_else(|| panic!("{error}"));
    Refused {
        code: db.code().code().into(),
        message: db.message().into(),
        detail: db.detail().unwrap_or_default().into(),
    }
}

/// A mapping in TOML as the functions take it.
pub fn json_of(toml: &str) -> Value {
    toml::from_str(toml).unwrap()
}

/// The shop, and a session that calls the functions with its mapping.
async fn open() -> (Shop, Sql) {
    let shop = Shop::open().await;
    let sql = Sql::with_file(&shop.db, &shop.mapping).await;
    (shop, sql)
}

/// Syncs documents that must succeed by `sync_many`, and compares all with the oracle.
async fn sync(shop: &Shop, sql: &Sql, docs: &[Value]) -> Ran {
    shop.expect(docs).await;
    let ran = many(sql, docs).await;
    assert_eq!((&ran.report["status"], ran.documents("failed")), (&"done".into(), 0), "{:#}", ran.report);
    shop.check(&ran).await;
    ran
}

async fn many(sql: &Sql, docs: &[Value]) -> Ran {
    sql.many(&docs.iter().map(Value::to_string).collect::<Vec<_>>()).await
}

/// The failures of a report: `document relation sqlstate`.
fn failed(ran: &Ran) -> Vec<String> {
    let list = ran.report["failures"].as_array().unwrap();
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    list.iter()
        .map(|one| {
            format!("{} {} {}", text(&one["document"]), text(&one["relation"]), text(&one["sqlstate"]))
        })
        .collect()
}
