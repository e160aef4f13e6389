//! Whole documents as they are stored, found by their keys.

use std::collections::HashMap;

use tokio_postgres::Transaction;

use crate::document::DocumentKey;
use crate::error::Error;
use crate::fingerprint::comparison_key;
use crate::mapping::Mapping;
use crate::plan::StoredRow;
use crate::postgres::fetch::{below, rows};
use crate::row::Tuple;
use crate::schema::Schema;
use crate::shred::key_cells;

/// The stored rows of documents, per relation; each with its document's place among the keys.
pub(crate) async fn whole(
    transaction: &Transaction<'_>,
    mapping: &Mapping,
    schema: &Schema,
    keys: &[&DocumentKey],
) -> Result<Vec<Vec<StoredRow>>, Error> {
    let tables = &schema.tables;
    let cells: Vec<Tuple> = keys.iter().filter_map(|key| key_cells(schema, key)).collect();
    let places: HashMap<&[u8], u32> = (0..).zip(keys).map(|(at, key)| (&key.0[..], at)).collect();
    let mut roots = rows(transaction, &tables[0], &tables[0].key_columns(), &cells).await?;
    roots.retain_mut(|row| {
        row.document = places.get(comparison_key(&tables[0], &row.tuple).as_bytes()).copied();
        row.document.is_some()
    });
    let mut stored = vec![roots];
    for (ix, relation) in mapping.relations.iter().enumerate().skip(1) {
        let outer = relation.enclosing.unwrap_or(0);
        let mut found = below(transaction, &tables[ix], &tables[outer], &stored[outer])
            .await
            .map_err(|error| error.in_relation(&relation.name))?;
        for row in &mut found {
            row.document = row.parent.and_then(|parent| stored[outer][parent as usize].document);
        }
        stored.push(found);
    }
    Ok(stored)
}
