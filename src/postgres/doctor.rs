//! What would hurt a sync, what it costs, and the statement that mends it.
//!
//! Everything is asked of the catalog, the server's statistics and the schema `rowdelta`, in read-only transactions;
//! of the user's rows only whether keys are unique that no constraint keeps so. What comes out is plain data:
//! [`Diagnosis`].

mod access;
mod cascades;
mod faults;
mod indexes;
mod keys;
mod server;
mod state;
mod tables;
mod triggers;
mod words;

use std::time::Duration;

use serde::Serialize;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Transaction};

use crate::error::Error;
use crate::mapping::{Mapping, Missing, OnAbsent, Relation, TableName};
use crate::postgres::catalog::{Survey, SurveyedTable, survey};
use crate::postgres::{Limits, begin};

pub use server::ServerFacts;
pub use state::StateFacts;
pub use tables::{TableFacts, Way};
pub use words::{count, size};

/// What was found. Its JSON form is a contract: fields may be added, none changes its meaning.
#[derive(Clone, Debug, Serialize)]
pub struct Diagnosis {
    /// Of this format.
    pub version: u32,
    /// The mapping's name.
    pub mapping: String,
    /// The server, and who asked.
    pub server: ServerFacts,
    /// The tables of relations and lookups, in the mapping's order.
    pub tables: Vec<TableFacts>,
    /// What is recorded; `None` where the schema `rowdelta` is not there, or the role may not read it.
    pub state: Option<StateFacts>,
    /// Errors first, then warnings, then notes; within these in the mapping's order.
    pub findings: Vec<Finding>,
}

impl Diagnosis {
    /// How many findings have a severity.
    pub fn count(&self, severity: Severity) -> usize {
        self.findings.iter().filter(|finding| finding.severity == severity).count()
    }
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// A sync would refuse to start, or documents would fail.
    Error,
    /// It hurts.
    Warning,
    /// Good to know.
    Note,
}

/// One thing that hurts, or is good to know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// Which illness it is, in a word that does not change.
    pub kind: &'static str,
    /// The relation, or the lookup.
    pub relation: Option<String>,
    /// The table, quoted, with its schema.
    pub table: Option<String>,
    /// The columns.
    pub columns: Vec<String>,
    /// What is so.
    pub message: String,
    /// What it costs.
    pub cost: Option<String>,
    /// What to do, in words.
    pub advice: Option<String>,
    /// The statements that mend it.
    pub sql: Vec<Remedy>,
}

/// A statement that mends something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Remedy {
    /// The statement, without a semicolon.
    pub statement: String,
    /// Why it should not run before somebody has thought about it. `None`: it stops nobody, and loses nothing.
    pub caution: Option<String>,
}

/// What to look at.
#[derive(Clone, Copy, Debug, Default)]
pub struct DoctorOptions {
    /// Count duplicates in large tables, too, however long it takes.
    pub thorough: bool,
    /// How many workers a sync will have.
    pub workers: usize,
    /// How long ago the connection was opened, if that is known: one that is older at the server comes from a pooler.
    pub connected_for: Option<Duration>,
}

/// Longer than any question about a catalog takes.
const STATEMENT_MAX: Duration = Duration::from_secs(30);

/// Looks for what would hurt a sync of a mapping. Nothing is written.
///
/// # Errors
/// The database's.
pub async fn diagnose(
    client: &mut Client,
    mapping: &Mapping,
    options: DoctorOptions,
) -> Result<Diagnosis, Error> {
    let Survey { tables, faults } = survey(client, mapping).await?;
    let transaction = begin(client, limits(STATEMENT_MAX)).await?;
    let server = server::facts(&transaction).await?;
    let mut exam = Exam { mapping, tables, server, options, findings: Vec::new() };
    faults::report(&mut exam, &faults);
    let facts = tables::facts(&mut exam, &transaction).await?;
    let state = state::look(&mut exam, &transaction).await?;
    access::look(&mut exam, &transaction).await?;
    indexes::look(&mut exam, &transaction).await?;
    triggers::look(&mut exam, &transaction).await?;
    cascades::look(&mut exam, &transaction).await?;
    server::look(&mut exam, &transaction).await?;
    transaction.commit().await?;
    keys::look(&mut exam, client, &facts).await?;
    let Exam { server, mut findings, .. } = exam;
    findings.sort_by_key(|finding| {
        let place = facts.iter().position(|facts| finding.relation.as_ref() == Some(&facts.relation));
        // What keeps a sync from starting at all comes before what one table lacks.
        let elsewhere = if finding.severity == Severity::Error { None } else { Some(facts.len()) };
        (finding.severity, place.or(elsewhere))
    });
    Ok(Diagnosis { version: 1, mapping: mapping.name.clone(), server, tables: facts, state, findings })
}

fn limits(statement: Duration) -> Limits {
    Limits { lock: Duration::from_secs(5), statement, idle: Duration::from_secs(60), read_only: true }
}

/// What the questions have in common.
struct Exam<'m> {
    mapping: &'m Mapping,
    /// Those that are there.
    tables: Vec<SurveyedTable>,
    server: ServerFacts,
    options: DoctorOptions,
    findings: Vec<Finding>,
}

impl<'m> Exam<'m> {
    fn table(&self, name: &TableName) -> Option<&SurveyedTable> {
        self.tables.iter().find(|table| table.asked == *name)
    }

    /// The relations whose tables are there.
    fn relations(&self) -> impl Iterator<Item = (&'m Relation, &SurveyedTable)> {
        self.mapping.relations.iter().filter_map(|relation| Some((relation, self.table(&relation.table)?)))
    }

    /// The oids of these tables.
    fn relation_oids(&self) -> Vec<u32> {
        self.relations().map(|(_, table)| table.oid).collect()
    }

    /// The tables that a sync inserts into: of relations, and of catalogues that it adds to.
    fn written_oids(&self) -> Vec<u32> {
        let inserted = self.mapping.lookups.iter().filter(|lookup| lookup.missing == Missing::Insert);
        let inserted = inserted.filter_map(|lookup| Some(self.table(&lookup.table)?.oid));
        self.relation_oids().into_iter().chain(inserted).collect()
    }

    /// Whether a sync sends such a command to a table.
    fn needs(&self, oid: u32, command: &str) -> bool {
        let is_root = self.relations().next().is_some_and(|(_, root)| root.oid == oid);
        match command {
            "SELECT" => true,
            "INSERT" => self.written_oids().contains(&oid),
            "DELETE" if is_root => self.mapping.sync.on_absent == OnAbsent::Delete,
            _ => self.relation_oids().contains(&oid),
        }
    }

    /// All tables of the mapping that are there.
    fn oids(&self) -> Vec<u32> {
        self.tables.iter().map(|table| table.oid).collect()
    }

    fn by_oid(&self, oid: u32) -> Option<&SurveyedTable> {
        self.tables.iter().find(|table| table.oid == oid)
    }

    /// The name of the relation, or of the lookup, that has a table.
    fn relation_of(&self, oid: u32) -> Option<String> {
        let table = &self.by_oid(oid)?.asked;
        let relations = self.mapping.relations.iter().map(|relation| (&relation.name, &relation.table));
        let lookups = self.mapping.lookups.iter().map(|lookup| (&lookup.name, &lookup.table));
        relations.chain(lookups).find(|(_, name)| *name == table).map(|(name, _)| name.clone())
    }

    /// A finding about a table of the mapping, added; the caller says the rest.
    fn about(
        &mut self,
        severity: Severity,
        kind: &'static str,
        oid: u32,
        message: impl Into<String>,
    ) -> &mut Finding {
        let (relation, table) = (self.relation_of(oid), self.by_oid(oid).map(|table| table.name.clone()));
        let finding = self.general(severity, kind, message);
        (finding.relation, finding.table) = (relation, table);
        finding
    }

    /// A finding about the database as a whole, added; the caller says the rest.
    fn general(
        &mut self,
        severity: Severity,
        kind: &'static str,
        message: impl Into<String>,
    ) -> &mut Finding {
        self.findings.push(Finding {
            severity,
            kind,
            relation: None,
            table: None,
            columns: Vec::new(),
            message: message.into(),
            cost: None,
            advice: None,
            sql: Vec::new(),
        });
        self.findings.last_mut().expect("pushed above")
    }
}

impl Finding {
    fn columns(&mut self, columns: &[String]) -> &mut Self {
        self.columns = columns.to_vec();
        self
    }

    fn costs(&mut self, cost: impl Into<String>) -> &mut Self {
        self.cost = Some(cost.into());
        self
    }

    fn advise(&mut self, advice: impl Into<String>) -> &mut Self {
        self.advice = Some(advice.into());
        self
    }

    fn mend(&mut self, statement: impl Into<String>) -> &mut Self {
        self.sql.push(Remedy { statement: statement.into(), caution: None });
        self
    }

    fn mend_with_care(&mut self, statement: impl Into<String>, caution: &str) -> &mut Self {
        self.sql.push(Remedy { statement: statement.into(), caution: Some(caution.to_owned()) });
        self
    }

    /// With care where there is a reason for it.
    fn mend_or_think(&mut self, statement: impl Into<String>, caution: Option<&str>) -> &mut Self {
        match caution {
            Some(caution) => self.mend_with_care(statement, caution),
            None => self.mend(statement),
        }
    }
}

/// Rows of a question about tables, given by their oids.
async fn ask(
    transaction: &Transaction<'_>,
    sql: &str,
    oids: &[u32],
) -> Result<Vec<tokio_postgres::Row>, Error> {
    let params: &[(&(dyn ToSql + Sync), Type)] = &[(&oids, Type::OID_ARRAY)];
    Ok(transaction.query_typed(sql, params).await?)
}
