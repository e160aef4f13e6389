//! What `doctor` is told of a mapping's tables, and of every fault of the mapping against them.

use std::collections::HashMap;

use tokio_postgres::Client;

use super::check::CatalogFault;
use super::read::{CatalogColumn, CatalogTable};
use super::relations::{beyond, unfit};
use super::triggers::CatalogTrigger;
use super::{check, tables};
use crate::error::Error;
use crate::mapping::{Mapping, TableName};
use crate::schema::{Trigger, WriteWay};
use crate::value::{ColumnType, Kind};

/// The tables that are there, in the mapping's order, and every fault.
pub(crate) struct Survey {
    pub tables: Vec<SurveyedTable>,
    pub faults: Vec<CatalogFault>,
}

/// A table of the mapping that is there.
pub(crate) struct SurveyedTable {
    /// As the mapping names it.
    pub asked: TableName,
    pub oid: u32,
    /// Quoted, with its schema.
    pub name: String,
    /// `relkind`.
    pub kind: String,
    /// How new rows are written, where it is a relation's.
    pub way: Option<WriteWay>,
    /// Whether it can be written to at all.
    pub is_writable: bool,
    pub primary_key: Vec<String>,
    /// The columns of each key that no two rows share.
    pub uniques: Vec<Vec<String>>,
    pub columns: Vec<SurveyedColumn>,
    /// The user's triggers, and what each of them can do to what a sync sends.
    pub triggers: Vec<(CatalogTrigger, Option<Trigger>)>,
    partitioned_by: Vec<Option<String>>,
}

/// A column of such a table.
pub(crate) struct SurveyedColumn {
    pub name: String,
    /// Its type, as SQL.
    pub sql: String,
    /// Whether values, or some of them, are converted by the server.
    pub is_by_server: bool,
}

impl SurveyedTable {
    pub fn is_partitioned(&self) -> bool {
        self.kind == "p"
    }

    pub fn column(&self, name: &str) -> Option<&SurveyedColumn> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// What the partition key has beside these columns: then no index over them can be unique.
    pub fn partitioned_beyond(&self, columns: &[String]) -> Option<String> {
        beyond(&self.partitioned_by, columns)
    }

    /// Whether two rows with the same values in these columns are ruled out, NULL aside.
    pub fn rules_out_twins(&self, columns: &[String]) -> bool {
        self.uniques.iter().any(|key| !key.is_empty() && key.iter().all(|name| columns.contains(name)))
    }
}

/// Reads the tables of a mapping, and checks it against them.
pub(crate) async fn survey(client: &Client, mapping: &Mapping) -> Result<Survey, Error> {
    let found: HashMap<&TableName, CatalogTable> = tables(client, mapping).await?.into_iter().collect();
    let faults = check(client, mapping, &found, true).await?.err().unwrap_or_default();
    let names = mapping.relations.iter().map(|relation| &relation.table);
    let mut tables: Vec<SurveyedTable> = Vec::new();
    for name in names.chain(mapping.lookups.iter().map(|lookup| &lookup.table)) {
        if let Some(table) = found.get(name).filter(|_| tables.iter().all(|known| known.asked != *name)) {
            tables.push(surveyed(mapping, name, table));
        }
    }
    Ok(Survey { tables, faults })
}

fn surveyed(mapping: &Mapping, asked: &TableName, table: &CatalogTable) -> SurveyedTable {
    let relation = mapping.relations.iter().find(|relation| relation.table == *asked);
    let uniques = table.uniques.iter().filter(|unique| unique.is_key);
    // Into a catalogue rows are only inserted.
    let effect = |trigger: &CatalogTrigger| match relation {
        Some(relation) => trigger.on(mapping, relation),
        None => trigger.effect(false).filter(|effect| effect.insert),
    };
    SurveyedTable {
        asked: asked.clone(),
        oid: table.oid,
        name: table.name.clone(),
        kind: table.kind.clone(),
        way: relation.map(|relation| table.way(mapping, relation)),
        is_writable: unfit(asked, table).is_empty(),
        primary_key: table.primary_key().to_vec(),
        uniques: uniques.map(|unique| unique.key.clone()).collect(),
        columns: table.columns.iter().map(column).collect(),
        triggers: table.triggers.iter().map(|trigger| (trigger.clone(), effect(trigger))).collect(),
        partitioned_by: table.partitioned_by.clone(),
    }
}

fn column(column: &CatalogColumn) -> SurveyedColumn {
    SurveyedColumn {
        name: column.name.clone(),
        sql: column.ty.sql.clone(),
        is_by_server: is_by_server(&column.ty),
    }
}

fn is_by_server(ty: &ColumnType) -> bool {
    match &ty.kind {
        Kind::Json | Kind::Domain(_) | Kind::Server => true,
        Kind::Array(element) => is_by_server(&element.ty),
        Kind::Composite(attributes) => attributes.iter().any(|attribute| is_by_server(&attribute.ty)),
        _ => false,
    }
}
