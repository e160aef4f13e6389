//! What catalogue rows are called, for people: a reference says nothing by its id.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use tokio_postgres::Client;

use crate::engine::Engine;
use crate::error::Error;
use crate::mapping::{LookupIx, Mapping, Source};
use crate::postgres::catalog;
use crate::postgres::changes::Change;
use crate::postgres::quote;
use crate::postgres::wire::{text_array, typed};
use crate::schema::LookupTable;
use crate::shred::NULL_LABEL;

/// The names of catalogue rows that changes refer to.
#[derive(Debug, Default)]
pub struct CatalogueNames {
    /// By relation and column, the catalogue.
    columns: HashMap<(String, String), LookupIx>,
    names: HashMap<(LookupIx, String), String>,
}

impl CatalogueNames {
    /// What the row is called to which a value of a column refers, if it refers to one that is known: the values of its
    /// key, joined by commas.
    pub fn get(&self, relation: &str, column: &str, value: &str) -> Option<&str> {
        let lookup = self.columns.get(&(relation.to_owned(), column.to_owned()))?;
        self.names.get(&(*lookup, value.to_owned())).map(String::as_str)
    }
}

impl Engine {
    /// Asks what the catalogue rows are called that changes refer to.
    ///
    /// # Errors
    /// The database's.
    pub async fn catalogue_names(
        &self,
        changes: impl IntoIterator<Item = &Change>,
    ) -> Result<CatalogueNames, Error> {
        let columns = columns(&self.mapping);
        let mut wanted: BTreeMap<LookupIx, BTreeSet<String>> = BTreeMap::new();
        for change in changes {
            let values = [&change.key, &change.before, &change.after].into_iter().flatten();
            for (name, value) in values.flat_map(|values| values.iter()) {
                let lookup = columns.get(&(change.relation.to_string(), name.to_owned()));
                if let (Some(lookup), Some(value)) = (lookup, value) {
                    wanted.entry(*lookup).or_default().insert(value.to_owned());
                }
            }
        }
        let mut names = HashMap::new();
        if wanted.is_empty() {
            return Ok(CatalogueNames { columns, names });
        }
        let client = self.connections.get().await?;
        let schema = catalog::read_for(&client, &self.mapping, false).await?;
        for (ix, ids) in wanted {
            // What stands for the id of a row that is not there yet says what it is called already.
            let ids: Vec<String> = ids.into_iter().filter(|id| !id.starts_with("(new ")).collect();
            let found = of_lookup(&client, &schema.lookups[ix], &ids).await?;
            names.extend(found.into_iter().map(|(id, name)| ((ix, id), name)));
        }
        Ok(CatalogueNames { columns, names })
    }
}

fn columns(mapping: &Mapping) -> HashMap<(String, String), LookupIx> {
    let mut columns = HashMap::new();
    for relation in &mapping.relations {
        for column in &relation.columns {
            if let Source::Lookup { lookup, .. } = &column.source {
                columns.insert((relation.name.clone(), column.name.clone()), *lookup);
            }
        }
    }
    columns
}

async fn of_lookup(
    client: &Client,
    table: &LookupTable,
    ids: &[String],
) -> Result<Vec<(String, String)>, Error> {
    if ids.is_empty() || table.id.ty.array_oid == 0 {
        return Ok(Vec::new());
    }
    let key = table.key.iter().map(|column| format!("t.{}::text", quote(&column.name)));
    let (id, key) = (quote(&table.id.name), key.collect::<Vec<_>>().join(", "));
    let sql = format!(
        "SELECT t.{id}::text, {key} FROM {} t WHERE t.{id} = ANY ($1::text[]::{}[])",
        table.name, table.id.ty.sql
    );
    let params = [text_array(ids.iter().map(String::as_str))];
    let rows = client.query_typed(&sql, &typed(&params)).await?;
    let name = |row: &tokio_postgres::Row| {
        let words: Vec<String> =
            (1..row.len()).map(|at| row.get::<_, Option<String>>(at).unwrap_or(NULL_LABEL.into())).collect();
        (row.get(0), words.join(","))
    };
    Ok(rows.iter().map(name).collect())
}
