//! Cells in words: the text that `::text` makes of them, which is also what the SQL functions note.
//!
//! What has one spelling whatever the server thinks is spelled here; the rest the server is asked for, all cells of a
//! type in one statement, and the statements of all types in one go.

use std::collections::BTreeMap;

use futures_util::future::try_join_all;
use tokio_postgres::Transaction;

use crate::error::Error;
use crate::postgres::wire::{Param, array, typed};
use crate::value::{ColumnType, Kind};

/// Values of a type without arrays that are asked for at once: each is a parameter.
const SCALARS_MAX: usize = 1_000;

/// The oid of a type, and that of its array.
type Oids = (u32, u32);

/// Collects cells to spell.
#[derive(Debug, Default)]
pub(crate) struct Speller(BTreeMap<Oids, Vec<Vec<u8>>>);

/// A cell in words, or its place among those that the server is asked for.
#[derive(Debug)]
pub(crate) enum Word {
    Known(Option<String>),
    Asked(Oids, usize),
}

/// What the server said.
#[derive(Debug)]
pub(crate) struct Spelled(BTreeMap<Oids, Vec<Option<String>>>);

impl Speller {
    /// Takes a cell in; `None` is NULL.
    pub fn word(&mut self, ty: &ColumnType, bytes: Option<&[u8]>) -> Word {
        let Some(bytes) = bytes else { return Word::Known(None) };
        if let Some(text) = spelled_here(ty.kind.base(), bytes) {
            return Word::Known(Some(text));
        }
        let oids = (ty.oid, ty.array_oid);
        let asked = self.0.entry(oids).or_default();
        asked.push(bytes.to_vec());
        Word::Asked(oids, asked.len() - 1)
    }

    /// Asks for what is not known.
    pub async fn ask(self, transaction: &Transaction<'_>) -> Result<Spelled, Error> {
        let answers = self.0.into_iter().map(async |(oids, values)| {
            let words = match oids.1 {
                0 => of_scalars(transaction, oids.0, &values).await?,
                _ => of_array(transaction, oids, &values).await?,
            };
            Ok::<_, Error>((oids, words))
        });
        Ok(Spelled(try_join_all(answers).await?.into_iter().collect()))
    }
}

impl Spelled {
    /// What a word is. Each is given once.
    pub fn take(&mut self, word: Word) -> Option<String> {
        match word {
            Word::Known(text) => text,
            Word::Asked(oids, at) => self.0.get_mut(&oids)?.get_mut(at)?.take(),
        }
    }
}

/// Values of which the text is known without the server.
fn spelled_here(kind: &Kind, bytes: &[u8]) -> Option<String> {
    let number = match (kind, bytes) {
        (Kind::Int2, &[a, b]) => Some(i64::from(i16::from_be_bytes([a, b]))),
        (Kind::Int4, &[a, b, c, d]) => Some(i64::from(i32::from_be_bytes([a, b, c, d]))),
        (Kind::Int8, bytes) => bytes.try_into().ok().map(i64::from_be_bytes),
        _ => None,
    };
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok();
    match (kind, bytes) {
        (Kind::Text | Kind::Varchar(_) | Kind::Json | Kind::Enum(_), bytes) => text(bytes),
        // The first byte is the version of the format.
        (Kind::Jsonb, [1, rest @ ..]) => text(rest),
        (Kind::Bool, [value]) => Some((*value != 0).to_string()),
        _ => number.map(|number| number.to_string()),
    }
}

async fn of_array(
    transaction: &Transaction<'_>,
    (oid, array_oid): Oids,
    values: &[Vec<u8>],
) -> Result<Vec<Option<String>>, Error> {
    // In the list of what is selected, where a composite stays one value; they come in the order of the array.
    let sql = "SELECT unnest($1)::text";
    let params = [array(oid, array_oid, values.iter().map(|value| Some(&value[..])))];
    let rows = transaction.query_typed(sql, &typed(&params)).await?;
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

async fn of_scalars(
    transaction: &Transaction<'_>,
    oid: u32,
    values: &[Vec<u8>],
) -> Result<Vec<Option<String>>, Error> {
    let mut words = Vec::with_capacity(values.len());
    for values in values.chunks(SCALARS_MAX) {
        let places: Vec<String> = (1..=values.len()).map(|n| format!("({n}, ${n}::text)")).collect();
        let sql = format!("SELECT v FROM (VALUES {}) AS k (n, v) ORDER BY n", places.join(", "));
        let params: Vec<Param> = values.iter().map(|value| Param::scalar(oid, Some(value))).collect();
        for row in transaction.query_typed(&sql, &typed(&params)).await? {
            words.push(row.try_get(0)?);
        }
    }
    Ok(words)
}
