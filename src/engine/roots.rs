//! The stored root rows of a batch: which document is which row.
//!
//! A row belongs to the document with its key. Where the mapping has an alternate
//! key that one decides, as far as it is known of both: documents and rows of one
//! alternate key are the same whatever their keys say, and those of different ones
//! are not. So a document whose key was corrected finds its row, which has its
//! *former* key until it is written. What is recorded under the former key is about
//! that row as well, and goes.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use tokio_postgres::Transaction;

use crate::document::DocumentKey;
use crate::engine::prepare::Prepared;
use crate::error::Error;
use crate::fingerprint::{comparison_key, comparison_tuple};
use crate::mapping::Mapping;
use crate::plan::StoredRow;
use crate::postgres::fetch::rows;
use crate::row::{Cell, Tuple};
use crate::schema::{Schema, Table};
use crate::shred::document_key;
use crate::value::ColumnType;

/// The root rows of a batch.
#[derive(Default)]
pub(crate) struct Roots {
    /// Each with its document.
    pub stored: Vec<StoredRow>,
    /// Per document, the key that its row is stored with.
    found: Vec<Option<DocumentKey>>,
    /// Time spent reading.
    pub took: Duration,
}

impl Roots {
    /// Whether what is recorded under a document's key is about the document's row.
    pub fn is_recorded(&self, at: usize, document: &Prepared) -> bool {
        self.found[at].as_ref() == Some(&document.key)
    }

    /// Documents whose key changes, by their place among those looked at, with the key that they had.
    pub fn former<'r>(
        &'r self,
        documents: &'r [&Prepared],
    ) -> impl Iterator<Item = (usize, &'r DocumentKey)> {
        let found = self.found.iter().zip(documents).enumerate();
        found.filter_map(|(at, (found, document))| {
            found.as_ref().filter(|found| **found != document.key).map(|found| (at, found))
        })
    }
}

/// The alternate key in comparison form; `None` where part of it is null, or not said.
pub(crate) fn alternate_key(mapping: &Mapping, table: &Table, tuple: &Tuple) -> Option<Tuple> {
    if mapping.root().alternate_key.is_empty() {
        return None;
    }
    let columns = mapping.root().alternate_key_columns();
    let key = tuple.project(&columns);
    let is_known = key.cells().all(|cell| matches!(cell, Cell::Value(_)));
    let types: Vec<&ColumnType> = columns.iter().map(|&at| &table.columns[at]).collect();
    is_known.then(|| comparison_tuple(&types, &key))
}

/// Reads the root rows of documents.
pub(crate) async fn roots(
    transaction: &Transaction<'_>,
    mapping: &Mapping,
    schema: &Schema,
    documents: &[&Prepared],
) -> Result<Roots, Error> {
    let started = Instant::now();
    let table = &schema.tables[0];
    let tuples: Vec<&Tuple> =
        documents.iter().map(|document| &document.rows.relations[0].rows[0].tuple).collect();
    let mut found = with_keys(transaction, table, &table.key, tuples.iter().copied()).await?;
    let alternate = mapping.root().alternate_key_columns();
    if !alternate.is_empty() {
        let known = tuples.iter().copied().filter(|tuple| alternate_key(mapping, table, tuple).is_some());
        let more = with_keys(transaction, table, &alternate, known).await?;
        let mut seen = HashSet::new();
        found.extend(more);
        found.retain(|row| seen.insert(row.locator.clone()));
    }
    assign(mapping, table, &tuples, &mut found);
    found.retain(|row| row.document.is_some());
    let mut roots = Roots { stored: found, found: vec![None; documents.len()], took: Duration::ZERO };
    for row in &roots.stored {
        if let Some(at) = row.document {
            roots.found[at as usize] = Some(document_key(schema, &row.tuple));
        }
    }
    roots.took = started.elapsed();
    Ok(roots)
}

async fn with_keys(
    transaction: &Transaction<'_>,
    table: &Table,
    columns: &[usize],
    tuples: impl Iterator<Item = &Tuple>,
) -> Result<Vec<StoredRow>, Error> {
    let keys: Vec<Tuple> = tuples.map(|tuple| tuple.project(columns)).collect();
    rows(transaction, table, &table.columns_at(columns), &keys).await
}

/// Gives rows to the documents whose they are: by the alternate key first, then by the key. Composite keys are
/// asked for column by column, which may find more.
fn assign(mapping: &Mapping, table: &Table, documents: &[&Tuple], found: &mut [StoredRow]) {
    let alternates: Vec<Option<Tuple>> =
        documents.iter().map(|tuple| alternate_key(mapping, table, tuple)).collect();
    let by_alternate: HashMap<&Tuple, u32> =
        (0..).zip(&alternates).filter_map(|(at, key)| Some((key.as_ref()?, at))).collect();
    let by_key: HashMap<Tuple, u32> =
        (0..).zip(documents).map(|(at, tuple)| (comparison_key(table, tuple), at)).collect();
    let mut is_taken = vec![false; documents.len()];
    for row in &mut *found {
        let alternate = alternate_key(mapping, table, &row.tuple);
        row.document = alternate.and_then(|key| by_alternate.get(&key)).copied();
        row.document.into_iter().for_each(|at| is_taken[at as usize] = true);
    }
    for row in found.iter_mut().filter(|row| row.document.is_none()) {
        let Some(&at) = by_key.get(&comparison_key(table, &row.tuple)) else { continue };
        // Both known, and not the same one: another document has the key now.
        let differs =
            alternates[at as usize].is_some() && alternate_key(mapping, table, &row.tuple).is_some();
        if !differs && !std::mem::replace(&mut is_taken[at as usize], true) {
            row.document = Some(at);
        }
    }
}
