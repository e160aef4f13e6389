//! Reads the tables of a mapping from the database's catalog, and checks that the two fit.
//!
//! Every fault found is reported at once, before the first write, with what would mend it.

mod cascades;
mod check;
mod constraints;
mod equality;
mod nested;
mod privileges;
mod publications;
mod read;
mod relations;
mod survey;
mod triggers;
mod values;

pub(crate) use check::{CatalogFault, Mend};
pub(crate) use survey::{Survey, SurveyedTable, survey};
pub(crate) use triggers::CatalogTrigger;

use std::collections::{BTreeSet, HashMap};

use futures_util::future::try_join_all;
use sha2::{Digest, Sha256};
use tokio_postgres::Client;

use crate::ddl::ExistingTable;
use crate::error::{Error, ErrorKind};
use crate::fingerprint::FORMAT;
use crate::mapping::{Mapping, RelationIx, Source, TableName};
use crate::schema::{Schema, Table};
use check::Checker;
use constraints::Names;
use read::{CatalogTable, read_tables, type_of};

/// A mapping does not fit the database: every fault found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemaFaults {
    /// The mapping's name.
    pub mapping: String,
    /// The database's name.
    pub database: String,
    /// Where it is, what it is, and what mends it.
    pub faults: Vec<String>,
}

impl std::fmt::Display for SchemaFaults {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "mapping {} does not fit database {}:", self.mapping, self.database)?;
        self.faults.iter().try_for_each(|fault| write!(f, "\n  {fault}"))
    }
}

/// Reads what the catalog says of a mapping's tables.
///
/// # Errors
/// The database's; or [`ErrorKind::Setup`] with every fault of the mapping against the catalog.
pub async fn read(client: &Client, mapping: &Mapping) -> Result<Schema, Error> {
    read_for(client, mapping, true).await
}

/// As [`read`]; where nothing will be written the role needs no privilege to write.
pub(crate) async fn read_for(client: &Client, mapping: &Mapping, writes: bool) -> Result<Schema, Error> {
    let mut tables: HashMap<&TableName, CatalogTable> = tables(client, mapping).await?.into_iter().collect();
    if !writes {
        tables.values_mut().for_each(CatalogTable::for_reading);
    }
    match check(client, mapping, &tables, writes).await? {
        Ok(schema) => Ok(schema),
        Err(faults) => {
            let faults = faults.iter().map(ToString::to_string).collect();
            let database = client.query_typed_one("SELECT current_database()::text", &[]).await?.get(0);
            let faults = SchemaFaults { mapping: mapping.name.clone(), database, faults };
            Err(Error::new(ErrorKind::Setup, faults.to_string()))
        }
    }
}

/// Checks a mapping against the tables that are there: every fault found.
async fn check(
    client: &Client,
    mapping: &Mapping,
    tables: &HashMap<&TableName, CatalogTable>,
    writes: bool,
) -> Result<Result<Schema, Vec<CatalogFault>>, Error> {
    let types = given_types(client, mapping).await?;
    let mut checker = Checker { mapping, types, asked: Vec::new(), faults: Vec::new() };
    let lookups: Vec<_> = mapping.lookups.iter().map(|lookup| checker.lookup(lookup, tables)).collect();
    let mut relations: Vec<Option<Table>> = Vec::new();
    for relation in &mapping.relations {
        let table = checker.relation(relation, tables, &relations, &lookups);
        relations.push(table);
    }
    checker.shared_tables(&relations, &lookups, tables);
    if writes {
        checker.faults.extend(publications::faults(client, mapping, tables).await?);
        checker.faults.extend(cascades::faults(client, mapping, tables).await?);
    }
    checker.ask(client).await?;
    if !checker.faults.is_empty() {
        return Ok(Err(checker.faults));
    }
    let mut schema = Schema {
        tables: relations.into_iter().flatten().collect(),
        lookups: lookups.into_iter().flatten().collect(),
        digest: [0; 32],
    };
    add_references(mapping, tables, &mut schema);
    digest(mapping, &mut schema);
    Ok(Ok(schema))
}

/// Fills in the foreign keys, once the tables of all relations are known.
fn add_references(mapping: &Mapping, tables: &HashMap<&TableName, CatalogTable>, schema: &mut Schema) {
    let names = mapping
        .relations
        .iter()
        .filter_map(|relation| tables.get(&relation.table).map(|table| Names { relation, table }));
    let names: Vec<Names<'_>> = names.collect();
    for (names_of_one, table) in names.iter().zip(&mut schema.tables) {
        table.references = names_of_one.references(&names);
    }
}

/// The tables of a mapping that the database has, in the mapping's order.
///
/// # Errors
/// The database's.
pub async fn existing(client: &Client, mapping: &Mapping) -> Result<Vec<ExistingTable>, Error> {
    let table = |(name, table): (&TableName, CatalogTable)| ExistingTable {
        name: name.clone(),
        columns: table.columns.into_iter().map(|column| (column.name, column.ty.sql)).collect(),
    };
    Ok(tables(client, mapping).await?.into_iter().map(table).collect())
}

/// What the catalog has of each table of a mapping that is there.
async fn tables<'m>(
    client: &Client,
    mapping: &'m Mapping,
) -> Result<Vec<(&'m TableName, CatalogTable)>, Error> {
    let relations = mapping.relations.iter().map(|relation| &relation.table);
    let mut names: Vec<&TableName> = Vec::new();
    for name in relations.chain(mapping.lookups.iter().map(|lookup| &lookup.table)) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let found = read_tables(client, &names).await?;
    Ok(names.into_iter().zip(found).filter_map(|(name, table)| Some((name, table?))).collect())
}

/// What the server makes of the types that a mapping gives.
async fn given_types<'m>(
    client: &Client,
    mapping: &'m Mapping,
) -> Result<HashMap<&'m str, Result<String, String>>, Error> {
    let columns = mapping.relations.iter().flat_map(|relation| &relation.columns);
    let given = columns.filter_map(|column| column.ty.as_deref());
    let of_lookups = mapping.lookups.iter().flat_map(|lookup| &lookup.types).map(|(_, ty)| ty.as_str());
    let given: BTreeSet<&str> = given.chain(of_lookups).collect();
    let types = try_join_all(given.iter().map(|ty| type_of(client, ty))).await?;
    Ok(given.into_iter().zip(types).collect())
}

/// Fills in the digests: of each relation what decides its rows, of the schema all of them.
fn digest(mapping: &Mapping, schema: &mut Schema) {
    let mut all = Sha256::new();
    for (ix, relation) in mapping.relations.iter().enumerate() {
        let outer = relation.enclosing.map_or([0; 32], |outer| schema.tables[outer].digest);
        let digest = relation_digest(mapping, schema, ix, &outer);
        all.update(digest);
        schema.tables[ix].digest = digest;
    }
    let sync = serde_json::to_vec(&mapping.sync).unwrap_or_default();
    schema.digest = all.chain_update(sync).finalize().into();
}

fn relation_digest(mapping: &Mapping, schema: &Schema, ix: RelationIx, outer: &[u8; 32]) -> [u8; 32] {
    let relation = &mapping.relations[ix];
    let table = &schema.tables[ix];
    let mut hash = Sha256::new().chain_update([FORMAT]);
    // An enclosed row is identified through the ones around it.
    if relation.enclosing.is_some_and(|outer| outer != 0) {
        hash.update(outer);
    }
    let mut part = |text: &[u8]| {
        hash.update((text.len() as u64).to_be_bytes());
        hash.update(text);
    };
    part(&serde_json::to_vec(relation).unwrap_or_default());
    // Another search path may lead to another table; a column dropped and added anew is another one.
    part(table.name.as_bytes());
    for ((column, ty), number) in relation.columns.iter().zip(&table.columns).zip(&table.numbers) {
        part(ty.sql.as_bytes());
        let parts = ty.parts();
        if !parts.is_empty() {
            part(parts.as_bytes());
        }
        part(&number.to_be_bytes());
        if let Source::Lookup { lookup, .. } = column.source {
            part(&serde_json::to_vec(&mapping.lookups[lookup]).unwrap_or_default());
            part(schema.lookups[lookup].name.as_bytes());
            schema.lookups[lookup].key.iter().for_each(|key| part(key.ty.sql.as_bytes()));
        }
    }
    hash.finalize().into()
}
