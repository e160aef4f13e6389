//! Which document a stored row belongs to: up from what it refers to, to the root's key.

use std::collections::HashMap;

use tokio_postgres::Transaction;

use crate::document::DocumentKey;
use crate::error::Error;
use crate::mapping::{Mapping, RelationIx};
use crate::postgres::fetch::{Widths, cells, matching, selected};
use crate::postgres::quote;
use crate::postgres::wire::{Param, typed};
use crate::row::Tuple;
use crate::schema::{PhysicalColumn, Schema};
use crate::shred::{NULL_LABEL, document_key_of};

/// The document that a row belongs to.
pub(crate) struct Owner {
    pub key: DocumentKey,
    /// Its key in words.
    pub label: String,
}

/// The documents that rows of a relation belong to, by what the rows refer to.
pub(crate) async fn owners(
    transaction: &Transaction<'_>,
    mapping: &Mapping,
    schema: &Schema,
    ix: RelationIx,
    references: &[Tuple],
) -> Result<HashMap<Tuple, Owner>, Error> {
    let (reference, key) = (schema.tables[ix].parent.len(), schema.tables[0].key.len());
    let nearest = mapping.relations[ix].enclosing.unwrap_or(0);
    let widths = Widths::of(&schema.tables[ix], &schema.tables[nearest]);
    let mut owners = HashMap::new();
    for (sql, params) in queries(mapping, schema, ix, references) {
        for row in transaction.query_typed(&sql, &typed(&params)).await? {
            let root = cells(&row, reference..reference + key)?;
            let owner = Owner { key: document_key_of(schema, &root), label: row.try_get(reference + key)? };
            let referring = widths.reference(cells(&row, 0..reference)?);
            owners.extend(referring.map(|referring| (referring, owner)));
        }
    }
    Ok(owners)
}

/// What is referred to, the root's key, and that in words; joined up through the enclosing tables.
fn queries(
    mapping: &Mapping,
    schema: &Schema,
    ix: RelationIx,
    references: &[Tuple],
) -> Vec<(String, Vec<Param>)> {
    let enclosing = |&ix: &RelationIx| mapping.relations[ix].enclosing;
    let chain: Vec<RelationIx> = std::iter::successors(enclosing(&ix), enclosing).collect();
    let nearest = schema.tables[chain[0]].referable_columns();
    let last = format!("t{}", chain.len() - 1);
    let root = schema.tables[0].key_columns();
    let mut list: Vec<String> =
        nearest.iter().map(|column| selected("t0", &column.name, &column.ty)).collect();
    list.extend(root.iter().map(|column| selected(&last, &column.name, &column.ty)));
    let word =
        |column: &PhysicalColumn| format!("coalesce({last}.{}::text, '{NULL_LABEL}')", quote(&column.name));
    let words: Vec<String> = root.iter().map(word).collect();
    list.push(format!("concat_ws(',', {})", words.join(", ")));
    let mut from = format!("{} t0", schema.tables[chain[0]].name);
    for (at, pair) in chain.windows(2).enumerate() {
        let (inner, outer) = (&schema.tables[pair[0]], &schema.tables[pair[1]]);
        let columns = inner.parent.iter().zip(outer.referable_columns());
        let equal = columns.map(|(column, target)| {
            format!("t{at}.{} = t{}.{}", quote(&column.name), at + 1, quote(&target.name))
        });
        from += &format!(" JOIN {} t{} ON {}", outer.name, at + 1, equal.collect::<Vec<_>>().join(" AND "));
    }
    let select = format!("SELECT {} FROM {from}", list.join(", "));
    let referred = nearest.iter().zip(&schema.tables[ix].parent);
    let referred =
        referred.map(|(target, own)| PhysicalColumn { name: target.name.clone(), ty: own.ty.clone() });
    let referred: Vec<PhysicalColumn> = referred.collect();
    let ends = matching("t0", &referred, references).into_iter();
    ends.map(|(condition, params)| (format!("{select}{condition}"), params)).collect()
}
