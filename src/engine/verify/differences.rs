//! Both sides of a batch → the rows that differ, in words.

use std::collections::{BTreeMap, HashMap};

use tokio_postgres::Transaction;

use crate::document::short;
use crate::engine::held::own_place;
use crate::engine::prepare::Prepared;
use crate::engine::run::Run;
use crate::engine::verify::report::{ColumnDifference, Difference, Kind};
use crate::error::Error;
use crate::fingerprint::comparison_key;
use crate::mapping::{Mapping, RelationIx, UniqueIn};
use crate::plan::{Sides, changed_columns};
use crate::postgres::words::words;
use crate::row::{Cell, Tuple};
use crate::schema::{PhysicalColumn, Schema, Table};

/// A row that is not as its document asks for.
pub(crate) struct Noted {
    /// Eight bytes that stand for the document.
    pub document: u64,
    /// Index among the relations and, behind them, the catalogues.
    pub relation: usize,
    pub kind: Kind,
    /// The row that this one hangs below, if that is missing or surplus itself: its place in the list.
    pub below: Option<usize>,
    /// Of a row whose key is unique in its table, eight bytes that stand for the key.
    pub everywhere: Option<u64>,
    /// Eight bytes that stand for the place of a stored row.
    pub place: Option<u64>,
    /// `None` where enough are in words already.
    pub words: Option<Difference>,
}

/// A row that differs, before it is put into words.
struct Differing {
    document: u32,
    relation: RelationIx,
    kind: Kind,
    stored: Option<u32>,
    source: Option<u32>,
    columns: Vec<usize>,
    below: Option<usize>,
}

/// The rows of a batch that differ; none where nobody wants to know.
pub(crate) async fn found(
    run: &Run,
    transaction: &Transaction<'_>,
    documents: &[&Prepared],
    sides: &[Sides],
) -> Result<Vec<Noted>, Error> {
    let Some(findings) = run.purpose.findings() else { return Ok(Vec::new()) };
    let (mapping, schema) = (&run.mapping, &run.schema);
    let differing = differing(mapping, schema, sides);
    let spoken = &differing[..differing.len().min(findings.room())];
    let words = spoken.iter().map(|one| Some(one.words(mapping, documents))).chain(std::iter::repeat(None));
    let all = differing.iter().zip(words);
    let mut noted: Vec<Noted> =
        all.map(|(one, words)| Noted { words, ..noted(mapping, schema, documents, sides, one) }).collect();
    for (ix, side) in sides.iter().enumerate() {
        speak(transaction, (ix, &schema.tables[ix]), side, spoken, findings.values(), &mut noted).await?;
    }
    for document in documents {
        noted.extend(lacking(run, transaction, document, findings.room()).await?);
    }
    Ok(noted)
}

fn differing(mapping: &Mapping, schema: &Schema, sides: &[Sides]) -> Vec<Differing> {
    let mut found: Vec<Differing> = Vec::new();
    // Per relation, where missing source rows and surplus stored rows stand in the list.
    let mut missing: Vec<HashMap<u32, usize>> = vec![HashMap::new(); sides.len()];
    let mut surplus = missing.clone();
    for (relation, side) in sides.iter().enumerate() {
        let outer = mapping.relations[relation].enclosing;
        let (table, changes) = (&schema.tables[relation], &side.changes);
        for (kind, pairs) in [(Kind::Changed, &changes.updated), (Kind::Moved, &changes.moved)] {
            for &(stored, source) in pairs {
                let (old, new) = (&side.stored[stored as usize], &side.source[source as usize]);
                let columns = changed_columns(table, &old.tuple, &new.tuple);
                if kind == Kind::Moved || !columns.is_empty() {
                    let (document, stored, source) = (new.document, Some(stored), Some(source));
                    found.push(Differing { document, relation, kind, stored, source, columns, below: None });
                }
            }
        }
        for &source in &changes.added {
            let row = &side.source[source as usize];
            let below = outer.and_then(|outer| missing[outer].get(&row.parent)).copied();
            missing[relation].insert(source, found.len());
            let (document, kind, source, columns) = (row.document, Kind::Missing, Some(source), Vec::new());
            found.push(Differing { document, relation, kind, stored: None, source, columns, below });
        }
        for &stored in &changes.removed {
            let row = &side.stored[stored as usize];
            let Some(document) = row.document else { continue };
            let below = outer.zip(row.parent).and_then(|(outer, parent)| surplus[outer].get(&parent));
            let below = below.copied();
            surplus[relation].insert(stored, found.len());
            let (kind, stored, columns) = (Kind::Surplus, Some(stored), Vec::new());
            found.push(Differing { document, relation, kind, stored, source: None, columns, below });
        }
    }
    found
}

fn noted(
    mapping: &Mapping,
    schema: &Schema,
    documents: &[&Prepared],
    sides: &[Sides],
    one: &Differing,
) -> Noted {
    let (table, side) = (&schema.tables[one.relation], &sides[one.relation]);
    let stored = one.stored.map(|row| &side.stored[row as usize]);
    let everywhere = mapping.relations[one.relation].unique_in == UniqueIn::All;
    Noted {
        document: documents[one.document as usize].key.short(),
        relation: one.relation,
        kind: one.kind,
        below: one.below,
        everywhere: stored
            .filter(|_| everywhere)
            .map(|row| short(comparison_key(table, &row.tuple).as_bytes())),
        place: stored.map(|row| short(own_place(table, row).as_bytes())),
        words: None,
    }
}

impl Differing {
    /// Without key and columns yet.
    fn words(&self, mapping: &Mapping, documents: &[&Prepared]) -> Difference {
        let document = documents[self.document as usize];
        let relation = &mapping.relations[self.relation].name;
        let below = self.below.is_some();
        Difference { below, ..difference(document, relation, self.kind) }
    }

    /// The mapped columns of the row as it should be, else as it is.
    fn tuple<'s>(&self, side: &'s Sides) -> Option<&'s Tuple> {
        let source = self.source.map(|row| &side.source[row as usize].tuple);
        source.or_else(|| self.stored.map(|row| &side.stored[row as usize].tuple))
    }
}

fn difference(document: &Prepared, relation: &str, kind: Kind) -> Difference {
    Difference {
        document: document.label.clone(),
        file: document.origin.file.as_deref().map(str::to_owned),
        line: document.origin.line,
        relation: relation.to_owned(),
        kind,
        ..Difference::default()
    }
}

/// Fills in keys and columns of the differing rows of one relation.
async fn speak(
    transaction: &Transaction<'_>,
    (ix, table): (RelationIx, &Table),
    side: &Sides,
    spoken: &[Differing],
    values: bool,
    noted: &mut [Noted],
) -> Result<(), Error> {
    let mine: Vec<usize> = (0..spoken.len()).filter(|&at| spoken[at].relation == ix).collect();
    if mine.is_empty() {
        return Ok(());
    }
    let keys = keys(transaction, table, side, spoken, &mine).await?;
    let names = &table.names;
    let all = table.columns_at(&(0..names.len()).collect::<Vec<_>>());
    let stored = |at: &usize| spoken[*at].stored.map(|row| side.stored[row as usize].tuple.clone());
    let wanted = |at: &usize| spoken[*at].source.map(|row| side.source[row as usize].tuple.clone());
    let stored = told(transaction, &all, mine.iter().map(stored).collect(), values).await?;
    let wanted = told(transaction, &all, mine.iter().map(wanted).collect(), values).await?;
    for ((&at, key), (stored, wanted)) in mine.iter().zip(keys).zip(stored.iter().zip(&wanted)) {
        let Some(words) = &mut noted[at].words else { continue };
        words.key = key;
        let one = &spoken[at];
        let columns = match one.kind {
            Kind::Changed | Kind::Moved => one.columns.clone(),
            _ if values => said(one, side),
            _ => Vec::new(),
        };
        let value = |row: &Option<Vec<Option<String>>>, at: usize| row.as_ref().map(|row| row[at].clone());
        let column = |at: usize| ColumnDifference {
            name: names[at].clone(),
            stored: value(stored, at),
            wanted: value(wanted, at),
        };
        words.columns = columns.into_iter().map(column).collect();
    }
    Ok(())
}

/// The columns of a row, but for those about which its document says nothing.
fn said(one: &Differing, side: &Sides) -> Vec<usize> {
    let cells = one.tuple(side).into_iter().flat_map(Tuple::cells).enumerate();
    cells.filter(|(_, cell)| *cell != Cell::Kept).map(|(at, _)| at).collect()
}

/// Tuples in words, if these are asked for.
async fn told(
    transaction: &Transaction<'_>,
    columns: &[PhysicalColumn],
    tuples: Vec<Option<Tuple>>,
    values: bool,
) -> Result<Vec<Option<Vec<Option<String>>>>, Error> {
    if !values {
        return Ok(vec![None; tuples.len()]);
    }
    let known: Vec<Tuple> = tuples.iter().flatten().cloned().collect();
    let mut told = words(transaction, columns, &known).await?.into_iter();
    Ok(tuples.iter().map(|tuple| tuple.as_ref().and_then(|_| told.next())).collect())
}

/// The keys of rows in words, by column.
async fn keys(
    transaction: &Transaction<'_>,
    table: &Table,
    side: &Sides,
    spoken: &[Differing],
    mine: &[usize],
) -> Result<Vec<BTreeMap<String, Option<String>>>, Error> {
    if !table.key.is_empty() {
        let tuples = mine.iter().filter_map(|&at| spoken[at].tuple(side));
        let tuples: Vec<Tuple> = tuples.map(|tuple| tuple.project(&table.key)).collect();
        return named(transaction, &table.key_columns(), &tuples).await;
    }
    let mut keys = vec![BTreeMap::new(); mine.len()];
    let stored = |at: usize| spoken[at].stored.map(|row| own_place(table, &side.stored[row as usize]));
    let places = mine.iter().map(|&at| stored(at)).enumerate().filter_map(|(n, place)| Some((n, place?)));
    let (which, places): (Vec<usize>, Vec<Tuple>) = places.unzip();
    if !table.is_found_by_place() {
        let found = named(transaction, &table.locator[..table.own_locator], &places).await?;
        which.into_iter().zip(found).for_each(|(n, key)| keys[n] = key);
    }
    Ok(keys)
}

async fn named(
    transaction: &Transaction<'_>,
    columns: &[PhysicalColumn],
    tuples: &[Tuple],
) -> Result<Vec<BTreeMap<String, Option<String>>>, Error> {
    let named = |values: Vec<Option<String>>| {
        columns.iter().map(|column| column.name.clone()).zip(values).collect::<BTreeMap<_, _>>()
    };
    Ok(words(transaction, columns, tuples).await?.into_iter().map(named).collect())
}

/// The catalogue rows that a document refers to and that are not there; and the rows that have no key without them.
async fn lacking(
    run: &Run,
    transaction: &Transaction<'_>,
    document: &Prepared,
    room: usize,
) -> Result<Vec<Noted>, Error> {
    let mut noted = Vec::new();
    let mut seen: Vec<(usize, &Tuple)> = Vec::new();
    for lacking in &document.rows.lacking {
        let (table, lookup) = (&run.schema.lookups[lacking.lookup], &run.mapping.lookups[lacking.lookup]);
        let (relation, catalogue) = (lacking.relation, run.mapping.relations.len() + lacking.lookup);
        let mut rows = Vec::new();
        rows.extend((!seen.contains(&(catalogue, &lacking.key))).then_some((catalogue, &lookup.name)));
        let is_new = lacking.whole && !seen.contains(&(relation, &lacking.key));
        rows.extend(is_new.then_some((relation, &run.mapping.relations[relation].name)));
        let key = match rows.is_empty() || room == 0 {
            true => BTreeMap::new(),
            false => {
                let tuples = std::slice::from_ref(&lacking.key);
                named(transaction, &table.key, tuples).await?.pop().unwrap_or_default()
            }
        };
        for (relation, name) in rows {
            seen.push((relation, &lacking.key));
            let words = Difference { key: key.clone(), ..difference(document, name, Kind::Missing) };
            let everywhere = (relation == catalogue).then(|| short(lacking.key.as_bytes()));
            noted.push(Noted {
                document: document.key.short(),
                relation,
                kind: Kind::Missing,
                below: None,
                everywhere,
                place: None,
                words: (room > 0).then_some(words),
            });
        }
    }
    Ok(noted)
}
