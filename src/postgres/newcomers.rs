//! New catalogue rows in words.

use std::sync::Arc;

use tokio_postgres::Transaction;

use crate::error::Error;
use crate::mapping::Lookup;
use crate::postgres::changes::{Action, Change, Values};
use crate::postgres::spell::{Spelled, Speller, Word};
use crate::row::{Cell, Tuple};
use crate::schema::{LookupTable, PhysicalColumn};

/// A catalogue row that was inserted, or will be.
pub(crate) struct Newcomer<'c> {
    pub id: Option<&'c [u8]>,
    pub key: Tuple,
    /// The columns beyond the key, if they are known.
    pub columns: Option<&'c Tuple>,
}

/// The rows as changes.
pub(crate) async fn in_words(
    transaction: &Transaction<'_>,
    lookup: &Lookup,
    table: &LookupTable,
    newcomers: Vec<Newcomer<'_>>,
) -> Result<Vec<Change>, Error> {
    let mut speller = Speller::default();
    let mut drafts = Vec::new();
    for Newcomer { id, key, columns } in newcomers {
        let id = speller.word(&table.id.ty, id);
        let key = words(&mut speller, &table.key, &key);
        let others = columns.map_or(Vec::new(), |columns| words(&mut speller, &table.columns, columns));
        drafts.push((id, key, others));
    }
    let mut spelled = speller.ask(transaction).await?;
    let (relation, name): (Arc<str>, Arc<str>) =
        (lookup.name.as_str().into(), lookup.table.to_string().into());
    let mut changes = Vec::new();
    for (id, key, others) in drafts {
        let (id, key, others) = (spelled.take(id), values(&mut spelled, key), values(&mut spelled, others));
        changes.push(Change {
            document: None,
            relation: relation.clone(),
            table: name.clone(),
            action: Action::Added,
            after: Some(Values(key.0.iter().cloned().chain(others.0).collect())),
            key: Some(key),
            id,
            parent: None,
            before: None,
        });
    }
    Ok(changes)
}

fn words(speller: &mut Speller, columns: &[PhysicalColumn], tuple: &Tuple) -> Vec<(Arc<str>, Word)> {
    let cells = columns.iter().zip(tuple.cells());
    let word = |(column, cell): (&PhysicalColumn, Cell<'_>)| {
        (column.name.as_str().into(), speller.word(&column.ty, cell.bytes()))
    };
    cells.map(word).collect()
}

fn values(spelled: &mut Spelled, words: Vec<(Arc<str>, Word)>) -> Values {
    Values(words.into_iter().map(|(name, word)| (name, spelled.take(word))).collect())
}
