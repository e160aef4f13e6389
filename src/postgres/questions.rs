//! Asks the database what shredding needs: conversions, and ids of catalogue rows.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Row, Transaction};

use crate::error::{Error, ErrorKind};
use crate::fingerprint::comparison_tuple;
use crate::mapping::{Lookup, LookupIx, Mapping, Missing};
use crate::postgres::changes::{Change, Told, transaction_id};
use crate::postgres::fetch::{cells, matching, raw, selected};
use crate::postgres::newcomers::{Newcomer, in_words};
use crate::postgres::wire::{ArrayBuilder, Param, text_array, typed};
use crate::postgres::{Limits, begin, quote};
use crate::row::Tuple;
use crate::schema::{LookupTable, PhysicalColumn, Schema};
use crate::shred::{Answers, CatalogueRow, Conversion, Questions};
use crate::value::ColumnType;

/// A longer value is not quoted in a message.
const QUOTED_CHARS_MAX: usize = 40;

/// What was done with a catalogue.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Looked {
    /// Rows inserted.
    pub inserted: u64,
    /// How long the database took.
    pub took: Duration,
}

/// Answers every question, adding to what is known. Says what was done, per lookup. What is committed is told also where
/// it fails in the end.
pub(crate) async fn answer(
    client: &mut Client,
    mapping: &Mapping,
    schema: &Schema,
    limits: Limits,
    questions: Questions,
    answers: &mut Answers,
    told: &mut Told,
) -> Result<Vec<Looked>, Error> {
    convert_all(client, limits, questions.conversions, answers).await?;
    answers.lookups.resize(mapping.lookups.len(), HashMap::new());
    let mut per_lookup: BTreeMap<LookupIx, HashMap<Tuple, CatalogueRow>> = BTreeMap::new();
    for ((ix, key), row) in questions.lookups {
        per_lookup.entry(ix).or_default().insert(key, row);
    }
    let mut looked = vec![Looked::default(); mapping.lookups.len()];
    for (ix, asked) in per_lookup {
        let lookup = &mapping.lookups[ix];
        let insert = lookup.missing == Missing::Insert && !limits.read_only;
        let catalogue = Catalogue { lookup, table: &schema.lookups[ix], insert };
        let started = Instant::now();
        let (found, inserted) = look_up(client, catalogue, limits, &asked, told)
            .await
            .map_err(|error| error.in_relation(&lookup.name))?;
        looked[ix] = Looked { inserted, took: started.elapsed() };
        remember(&mut answers.lookups[ix], asked, found);
    }
    Ok(looked)
}

/// A catalogue, and whether rows may be inserted.
#[derive(Clone, Copy)]
struct Catalogue<'c> {
    lookup: &'c Lookup,
    table: &'c LookupTable,
    insert: bool,
}

impl Catalogue<'_> {
    /// The columns by which a row is found, its id first.
    fn columns(&self) -> String {
        found_columns(self.table)
    }

    /// The rows that were inserted, in words: their ids and keys as they came back, else as they were sent.
    async fn changes(
        &self,
        transaction: &Transaction<'_>,
        sent: &[&CatalogueRow],
        new: &[Row],
    ) -> Result<Vec<Change>, Error> {
        let table = self.table;
        let types: Vec<&ColumnType> = table.key.iter().map(|column| &column.ty).collect();
        let by_key: HashMap<Tuple, &&CatalogueRow> =
            sent.iter().map(|row| (comparison_tuple(&types, &row.key), row)).collect();
        let mut newcomers = Vec::new();
        for row in new {
            let key = cells(row, 1..table.key.len() + 1)?;
            let columns = by_key.get(&comparison_tuple(&types, &key)).map(|sent| &sent.columns);
            newcomers.push(Newcomer { id: raw(row, 0)?, key, columns });
        }
        in_words(transaction, self.lookup, table, newcomers).await
    }
}

/// The columns by which a catalogue row is found, its id first.
fn found_columns(table: &LookupTable) -> String {
    let columns = std::iter::once(&table.id).chain(&table.key);
    let list: Vec<String> = columns.map(|column| selected("t", &column.name, &column.ty)).collect();
    list.join(", ")
}

fn remember(
    known: &mut HashMap<Tuple, Option<Vec<u8>>>,
    asked: HashMap<Tuple, CatalogueRow>,
    mut found: HashMap<Tuple, Vec<u8>>,
) {
    known.extend(asked.into_keys().map(|key| {
        let id = found.remove(&key);
        (key, id)
    }));
}

/// Finds catalogue rows, inserts missing ones if it may, and gives their ids by key. What is inserted is
/// committed before it is used: a document's transaction never waits for another's catalogue rows.
async fn look_up(
    client: &mut Client,
    catalogue: Catalogue<'_>,
    limits: Limits,
    asked: &HashMap<Tuple, CatalogueRow>,
    told: &mut Told,
) -> Result<(HashMap<Tuple, Vec<u8>>, u64), Error> {
    let Catalogue { table, insert, .. } = catalogue;
    let transaction = begin(client, limits).await?;
    let mut rows: Vec<&CatalogueRow> = asked.values().collect();
    let mut found = find(&transaction, table, &rows).await?;
    let types: Vec<&ColumnType> = table.key.iter().map(|column| &column.ty).collect();
    rows.retain(|row| !found.contains_key(&comparison_tuple(&types, &row.key)));
    if rows.is_empty() || !insert {
        transaction.commit().await?;
        return Ok((found, 0));
    }
    // One order for all writers: two runs that insert the same rows wait for each other, but never in a circle.
    rows.sort_unstable_by(|a, b| a.key.cmp(&b.key));
    let (inserted, outrun) = match insert_and_commit(transaction, catalogue, &rows, told).await {
        Err(error) if table.is_deferrable && error.code() == Some(&SqlState::UNIQUE_VIOLATION) => {
            (0, Some(error))
        }
        inserted => (inserted?, None),
    };
    // A row that another transaction inserted meanwhile is visible to a new one.
    let transaction = begin(client, limits).await?;
    found.extend(find(&transaction, table, &rows).await?);
    transaction.commit().await?;
    let total = rows.len();
    rows.retain(|row| !found.contains_key(&comparison_tuple(&types, &row.key)));
    if rows.is_empty() {
        return Ok((found, inserted));
    }
    Err(match outrun {
        // Some of what was missing is there by now: who inserted it was in the way.
        Some(error) if rows.len() < total => {
            let message = format!("rows for {} were inserted by someone else meanwhile: {error}", table.name);
            Error::new(ErrorKind::Transient, message)
        }
        Some(error) => {
            Error::new(ErrorKind::Rejected, format!("a row for {} is refused: {error}", table.name))
        }
        None => {
            let message = format!(
                "a row for {} was not found by its key after the insert: a trigger changes it, or another unique \
                 constraint keeps it out",
                table.name
            );
            Error::new(ErrorKind::Rejected, message)
        }
    })
}

async fn find(
    transaction: &Transaction<'_>,
    table: &LookupTable,
    rows: &[&CatalogueRow],
) -> Result<HashMap<Tuple, Vec<u8>>, Error> {
    let keys: Vec<Tuple> = rows.iter().map(|row| row.key.clone()).collect();
    let list = found_columns(table);
    let types: Vec<&ColumnType> = table.key.iter().map(|column| &column.ty).collect();
    let mut found = HashMap::new();
    for (condition, params) in matching("t", &table.key, &keys) {
        let sql = format!("SELECT {list} FROM {} t{condition}", table.name);
        for row in transaction.query_typed(&sql, &typed(&params)).await? {
            let key = cells(&row, 1..table.key.len() + 1)?;
            found.insert(comparison_tuple(&types, &key), raw(&row, 0)?.unwrap_or_default().to_vec());
        }
    }
    Ok(found)
}

/// Inserts rows, and commits; what is deferred is checked then.
async fn insert_and_commit(
    transaction: Transaction<'_>,
    catalogue: Catalogue<'_>,
    rows: &[&CatalogueRow],
    told: &mut Told,
) -> Result<u64, Error> {
    if !told.telling.on {
        let inserted = insert_rows(&transaction, catalogue.table, rows, "").await?.0;
        transaction.commit().await?;
        return Ok(inserted);
    }
    let returned = format!(" RETURNING {}", catalogue.columns());
    let (inserted, new) = insert_rows(&transaction, catalogue.table, rows, &returned).await?;
    let changes = catalogue.changes(&transaction, rows, &new).await?;
    told.telling.keep(&transaction, &changes).await?;
    told.labels.iter().for_each(|labels| labels.note(&changes));
    if changes.is_empty() {
        transaction.commit().await?;
        return Ok(inserted);
    }
    told.unsure = Some((transaction_id(&transaction).await?, changes));
    transaction.commit().await?;
    told.changes.extend(told.unsure.take().into_iter().flat_map(|(_, changes)| changes));
    Ok(inserted)
}

/// Inserts rows. Gives how many were, and what is `returned` of them.
async fn insert_rows(
    transaction: &Transaction<'_>,
    table: &LookupTable,
    rows: &[&CatalogueRow],
    returned: &str,
) -> Result<(u64, Vec<Row>), Error> {
    let columns: Vec<&PhysicalColumn> = table.key.iter().chain(&table.columns).collect();
    let names = columns.iter().map(|column| quote(&column.name)).collect::<Vec<_>>().join(", ");
    let places = (1..=columns.len()).map(|n| format!("${n}")).collect::<Vec<_>>().join(", ");
    let or_not = if table.is_deferrable { "" } else { " ON CONFLICT DO NOTHING" };
    let insert =
        |values: String| format!("INSERT INTO {} AS t ({names}) {values}{or_not}{returned}", table.name);
    // Of arrays there are no arrays.
    if columns.iter().any(|column| column.ty.array_oid == 0) {
        let sql = insert(format!("VALUES ({places})"));
        let (mut inserted, mut new) = (0, Vec::new());
        for row in rows {
            let cells = columns.iter().zip(row.key.cells().chain(row.columns.cells()));
            let params: Vec<Param> =
                cells.map(|(column, cell)| Param::scalar(column.ty.oid, cell.bytes())).collect();
            let (count, rows) = run(transaction, &sql, &params, returned).await?;
            inserted += count;
            new.extend(rows);
        }
        return Ok((inserted, new));
    }
    let mut arrays: Vec<ArrayBuilder> =
        columns.iter().map(|column| ArrayBuilder::new(column.ty.oid, column.ty.array_oid)).collect();
    for row in rows {
        for (array, cell) in arrays.iter_mut().zip(row.key.cells().chain(row.columns.cells())) {
            array.push(cell.bytes());
        }
    }
    let params: Vec<Param> = arrays.into_iter().map(ArrayBuilder::finish).collect();
    let sql = insert(format!("SELECT * FROM unnest({places})"));
    run(transaction, &sql, &params, returned).await
}

async fn run(
    transaction: &Transaction<'_>,
    sql: &str,
    params: &[Param],
    returned: &str,
) -> Result<(u64, Vec<Row>), Error> {
    if returned.is_empty() {
        return Ok((transaction.execute_typed(sql, &typed(params)).await?, Vec::new()));
    }
    let rows = transaction.query_typed(sql, &typed(params)).await?;
    Ok((rows.len() as u64, rows))
}

async fn convert_all(
    client: &mut Client,
    limits: Limits,
    conversions: impl IntoIterator<Item = Conversion>,
    answers: &mut Answers,
) -> Result<(), Error> {
    let mut groups: BTreeMap<(String, Option<String>), Vec<Conversion>> = BTreeMap::new();
    for conversion in conversions {
        groups.entry((conversion.expression.clone(), conversion.zone.clone())).or_default().push(conversion);
    }
    for ((expression, zone), group) in groups {
        // Halved until the texts that the server refuses stand alone.
        let mut pending = vec![group];
        while let Some(mut group) = pending.pop() {
            match convert(client, limits, &expression, zone.as_deref(), &group).await {
                Ok(values) => answers.conversions.extend(group.into_iter().zip(values.into_iter().map(Ok))),
                Err(error) if error.kind() != ErrorKind::Rejected => return Err(error),
                Err(error) if group.len() == 1 => {
                    let words = |one: &Conversion| match one.text.chars().count() {
                        0..=QUOTED_CHARS_MAX => format!("{error}: {:?}", one.text),
                        _ => error.to_string(),
                    };
                    answers.conversions.extend(group.into_iter().map(|one| {
                        let words = words(&one);
                        (one, Err(words))
                    }));
                }
                Err(_) => {
                    let half = group.split_off(group.len() / 2);
                    pending.extend([group, half]);
                }
            }
        }
    }
    Ok(())
}

async fn convert(
    client: &mut Client,
    limits: Limits,
    expression: &str,
    zone: Option<&str>,
    group: &[Conversion],
) -> Result<Vec<Vec<u8>>, Error> {
    let transaction = begin(client, limits).await?;
    let sql = format!("SELECT {expression} FROM unnest($1) WITH ORDINALITY AS t (v, n) ORDER BY n");
    let mut params = vec![text_array(group.iter().map(|conversion| conversion.text.as_str()))];
    params.extend(zone.map(|zone| Param::scalar(Type::TEXT.oid(), Some(zone.as_bytes()))));
    let rows = transaction.query_typed(&sql, &typed(&params)).await?;
    transaction.commit().await?;
    rows.iter().map(|row| Ok(raw(row, 0)?.unwrap_or_default().to_vec())).collect()
}
