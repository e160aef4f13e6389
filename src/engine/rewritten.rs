//! Rows that triggers store otherwise than they are sent.
//!
//! Of such a row both forms are recorded, with the document. When the row is read again it is given the form in which
//! it was sent, as far as a document asks for what was sent, and is compared in that. What a trigger makes of a row is
//! looked at after all has been written, in the same transaction; and only where the catalog knows of a trigger that
//! may make something of it, or where something is recorded from before.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::iter::successors;
use std::mem::replace;

use tokio_postgres::{Client, Transaction};

use crate::document::DocumentKey;
use crate::engine::compare::Active;
use crate::engine::held::own_place;
use crate::engine::prepare::Prepared;
use crate::engine::roots::Roots;
use crate::engine::run::Run;
use crate::error::{Error, ErrorKind};
use crate::fingerprint::rewritten::{Column, Mark, Rewritten, cell_mark, from_bytes, row_mark, to_bytes};
use crate::fingerprint::{self, Coverage, RowFingerprint};
use crate::mapping::{Mapping, RelationIx};
use crate::plan::{Action, Plan, Sides, SourceRow, StoredRow, changed_columns};
use crate::postgres::fetch::{Widths, referable, rows};
use crate::postgres::rewritten::{self, Recorded};
use crate::postgres::write::{Places, changes_identity};
use crate::row::{Cell, Tuple};
use crate::schema::{IdSource, Schema, Table};

/// Whether rows of a mapping's tables may be stored otherwise than they are sent, or were.
pub(crate) async fn is_possible(client: &Client, schema: &Schema, mapping: i32) -> Result<bool, Error> {
    Ok(schema.tables.iter().any(Table::is_rewritten) || rewritten::is_any(client, mapping).await?)
}

/// What is recorded of documents.
pub(crate) struct Known {
    /// The mapping, where anything can be recorded of it.
    mapping: Option<i32>,
    /// Of documents whose key changes the former one.
    former: HashMap<DocumentKey, DocumentKey>,
    /// Per relation, rows by what they are recognised by.
    forms: Vec<HashMap<Mark, Vec<Rewritten>>>,
    /// By document and relation, as it is recorded.
    recorded: HashMap<(DocumentKey, RelationIx), Vec<u8>>,
}

/// A stored row that a trigger rewrote.
pub(crate) struct Original {
    /// As it is stored.
    tuple: Tuple,
    fingerprint: RowFingerprint,
    form: Rewritten,
}

impl Known {
    /// Of the documents of a batch; of one whose key changes under its former key.
    pub async fn of(
        run: &Run,
        transaction: &Transaction<'_>,
        documents: &[&Prepared],
        roots: &Roots,
    ) -> Result<Self, Error> {
        let mut known = Known::new(run.rewrites.then_some(run.lease.mapping), run.mapping.relations.len());
        let former = || roots.former(documents);
        known.former = former().map(|(at, former)| (documents[at].key.clone(), former.clone())).collect();
        let keys = documents.iter().map(|document| &document.key).chain(former().map(|(_, key)| key));
        known.read(transaction, &run.mapping, &run.schema, &keys.collect::<Vec<_>>()).await?;
        Ok(known)
    }

    /// `mapping`: `None`, where nothing can be recorded.
    pub fn new(mapping: Option<i32>, relations: usize) -> Self {
        let (former, recorded) = (HashMap::new(), HashMap::new());
        Known { mapping, former, forms: vec![HashMap::new(); relations], recorded }
    }

    /// Reads what is recorded of further documents.
    pub async fn read(
        &mut self,
        transaction: &Transaction<'_>,
        mapping: &Mapping,
        schema: &Schema,
        keys: &[&DocumentKey],
    ) -> Result<(), Error> {
        let Some(id) = self.mapping else { return Ok(()) };
        for Recorded { key, relation, forms } in rewritten::recorded(transaction, id, keys).await? {
            let Some(ix) = mapping.relations.iter().position(|known| known.name == relation) else {
                continue;
            };
            let Entry::Vacant(entry) = self.recorded.entry((key, ix)) else { continue };
            for form in from_bytes(&schema.tables[ix].numbers, &forms) {
                self.forms[ix].entry(form.row).or_default().push(form);
            }
            entry.insert(forms);
        }
        Ok(())
    }

    /// Whether anything can be recorded of the mapping.
    pub fn is_possible(&self) -> bool {
        self.mapping.is_some()
    }

    /// Per relation, whether it must be looked at what becomes of its rows.
    pub fn traced(&self, schema: &Schema) -> Vec<bool> {
        let tables = schema.tables.iter().zip(&self.forms);
        tables.map(|(table, forms)| table.is_rewritten() || !forms.is_empty()).collect()
    }

    /// What is recorded of a relation of a document; nothing: an empty list.
    fn recorded(&self, key: &DocumentKey, ix: RelationIx) -> &[u8] {
        self.recorded.get(&(key.clone(), ix)).map_or(&[], Vec::as_slice)
    }

    /// What a stored row was made of, if a trigger rewrote it. Of equal rows each is found once.
    fn take(&mut self, ix: RelationIx, table: &Table, row: &StoredRow) -> Option<Rewritten> {
        if self.forms[ix].is_empty() {
            return None;
        }
        self.forms[ix].get_mut(&row_mark(table, &row.reference, &own_place(table, row), &row.tuple))?.pop()
    }

    /// Of stored rows, per relation, what they were made of.
    pub fn take_all(&mut self, schema: &Schema, stored: &[Vec<StoredRow>]) -> Vec<Vec<Option<Rewritten>>> {
        let of_relation = |(ix, rows): (usize, &Vec<StoredRow>)| {
            rows.iter().map(|row| self.take(ix, &schema.tables[ix], row)).collect()
        };
        stored.iter().enumerate().map(of_relation).collect()
    }

    /// Gives stored rows, from one on, the form in which they were sent, where that is asked for. Says which were
    /// rewritten.
    pub fn restore(
        &mut self,
        ix: RelationIx,
        table: &Table,
        side: &mut Sides,
        from: usize,
    ) -> Vec<(u32, Original)> {
        if self.forms[ix].is_empty() {
            return Vec::new();
        }
        let asked = Asked::new(table, &side.source, self.forms[ix].values().flatten());
        let mut found = Vec::new();
        for (at, row) in side.stored.iter_mut().enumerate().skip(from) {
            let Some(form) = self.take(ix, table, row) else { continue };
            let tuple = asked.restore(table, row, &form);
            let fingerprint = fingerprint::row(table, &tuple);
            let (tuple, fingerprint) =
                (replace(&mut row.tuple, tuple), replace(&mut row.fingerprint, fingerprint));
            found.push((at as u32, Original { tuple, fingerprint, form }));
        }
        found
    }
}

/// The cells that documents ask for in a relation.
struct Asked<'s> {
    cells: HashMap<(usize, Mark), Cell<'s>>,
}

impl<'s> Asked<'s> {
    fn new<'f>(table: &Table, source: &'s [SourceRow], forms: impl Iterator<Item = &'f Rewritten>) -> Self {
        let columns: HashSet<usize> = forms.flat_map(|form| &form.columns).map(|column| column.at).collect();
        let mut cells = HashMap::new();
        for row in source {
            let told = row.tuple.cells().enumerate().filter(|(_, cell)| *cell != Cell::Kept);
            for (at, cell) in told.filter(|(at, _)| columns.contains(at)) {
                cells.insert((at, cell_mark(&table.columns[at], cell)), cell);
            }
        }
        Asked { cells }
    }

    /// Of a column that somebody else changed since, what is stored is left.
    fn restore(&self, table: &Table, row: &StoredRow, form: &Rewritten) -> Tuple {
        let is_as_stored = |column: &&Column| {
            cell_mark(&table.columns[column.at], row.tuple.cell(column.at)) == column.stored
        };
        let columns = form.columns.iter().filter(is_as_stored);
        let cells =
            columns.filter_map(|column| Some((column.at, *self.cells.get(&(column.at, column.sent))?)));
        cells.fold(row.tuple.clone(), |tuple, (at, cell)| tuple.with(at, cell))
    }
}

/// Gives rows the form again in which they are stored, where by now that is asked for, and not what was sent. A row is
/// looked for below the one that its parent was matched with: `slot` says which that is.
pub(crate) fn revert(side: &mut Sides, restored: &HashMap<u32, Original>, slot: impl Fn(&StoredRow) -> u32) {
    if restored.is_empty() {
        return;
    }
    let mut asked: HashMap<(u32, RowFingerprint), u32> = HashMap::new();
    side.source.iter().for_each(|row| *asked.entry((row.parent, row.fingerprint)).or_default() += 1);
    let mut takes = |asks: (u32, RowFingerprint)| {
        let left = asked.get_mut(&asks).filter(|left| **left > 0);
        left.map(|left| *left -= 1).is_some()
    };
    for (at, row) in side.stored.iter_mut().enumerate() {
        let Some(original) = restored.get(&(at as u32)) else { continue };
        let slot = slot(row);
        if !takes((slot, row.fingerprint)) && takes((slot, original.fingerprint)) {
            (row.tuple, row.fingerprint) = (original.tuple.clone(), original.fingerprint);
        }
    }
}

/// A batch that was written.
pub(crate) struct Batch<'a> {
    pub documents: &'a [&'a Prepared],
    pub active: &'a Active,
    pub sides: &'a [Sides],
    pub plan: &'a Plan,
    pub traces: &'a Traces,
    /// Per document, whether its root row was written beside the plan.
    pub unmarked: Vec<bool>,
}

/// What is known of single rows of it.
pub(crate) struct Traces {
    /// Per relation, stored rows that had been rewritten.
    pub restored: Vec<HashMap<u32, Original>>,
    /// Where written rows are.
    pub places: Places,
    /// Per relation and source row, what enclosed rows refer to.
    pub references: Vec<Vec<Tuple>>,
}

/// Looks at what became of written rows, and records those that a trigger rewrote.
///
/// # Errors
/// A trigger changes what rows are found by.
pub(crate) async fn record(
    run: &Run,
    transaction: &Transaction<'_>,
    known: &Known,
    batch: Batch<'_>,
) -> Result<(), Error> {
    let Some(mapping) = known.mapping else { return Ok(()) };
    let mut news = Vec::new();
    let traced = known.traced(&run.schema);
    for ix in (0..traced.len()).filter(|&ix| traced[ix]) {
        let name = &run.mapping.relations[ix].name;
        // Below a list of which a document says nothing no rows were read.
        let around = || successors(Some(ix), |&ix| run.mapping.relations[ix].enclosing);
        let is_read = |active: &[bool]| around().all(|ix| active[ix]);
        let forms = batch.forms(run, transaction, ix).await.map_err(|error| error.in_relation(name))?;
        for ((document, mut forms), active) in batch.documents.iter().zip(forms).zip(batch.active) {
            let (key, before) = (&document.key, known.recorded(&document.key, ix));
            let forms = match known.former.get(key) {
                _ if is_read(active) => to_bytes(&run.schema.tables[ix].numbers, &mut forms),
                // It says nothing of these rows, which have its new key now.
                Some(former) => known.recorded(former, ix).to_vec(),
                None => continue,
            };
            if before != forms {
                news.push(Recorded { key: key.clone(), relation: name.clone(), forms });
            }
        }
    }
    rewritten::record(transaction, mapping, &news).await
}

impl Batch<'_> {
    /// The rewritten rows of one relation, per document.
    async fn forms(
        &self,
        run: &Run,
        transaction: &Transaction<'_>,
        ix: RelationIx,
    ) -> Result<Vec<Vec<Rewritten>>, Error> {
        let (table, side) = (&run.schema.tables[ix], &self.sides[ix]);
        let mut forms: Vec<Vec<Rewritten>> = self.documents.iter().map(|_| Vec::new()).collect();
        let places = self.places(ix, table);
        for (source, row) in read_back(transaction, table, &places).await? {
            self.check(run, ix, &row, source)?;
            let source = &side.source[source as usize];
            forms[source.document as usize].extend(self.form(ix, table, &row, &row.tuple, source));
        }
        let matched: HashMap<u32, u32> = side.changes.matched().collect();
        let deleted = self.deleted(ix);
        for (stored, original) in &self.traces.restored[ix] {
            let row = &side.stored[*stored as usize];
            let Some(document) = row.document.filter(|_| !deleted.contains(stored)) else { continue };
            let form = match matched.get(stored) {
                Some(source) if places.contains_key(source) => None,
                Some(source) => self.form(ix, table, row, &original.tuple, &side.source[*source as usize]),
                None => Some(original.form.clone()),
            };
            forms[document as usize].extend(form);
        }
        Ok(forms)
    }

    /// Where the written rows of a relation are, by source row.
    fn places(&self, ix: RelationIx, table: &Table) -> HashMap<u32, Tuple> {
        let side = &self.sides[ix];
        let unmarked = side.changes.matched().filter(|(_, source)| {
            let document = side.source[*source as usize].document;
            ix == 0 && self.unmarked[document as usize] && !table.is_found_by_place()
        });
        let unmarked =
            unmarked.map(|(stored, source)| (source, own_place(table, &side.stored[stored as usize])));
        let written = self.traces.places.iter().filter(|((of, _), _)| *of == ix);
        unmarked.chain(written.map(|((_, source), place)| (*source, place.clone()))).collect()
    }

    fn deleted(&self, ix: RelationIx) -> HashSet<u32> {
        let steps = self.plan.steps.iter().filter(|step| step.relation == ix);
        let deleted = steps.filter_map(|step| match &step.action {
            Action::Delete(rows) | Action::Cascade(rows) => Some(rows),
            _ => None,
        });
        deleted.flatten().copied().collect()
    }

    /// The two forms of a row, if they differ.
    fn form(
        &self,
        ix: RelationIx,
        table: &Table,
        row: &StoredRow,
        stored: &Tuple,
        source: &SourceRow,
    ) -> Option<Rewritten> {
        let mut columns = changed_columns(table, stored, &source.tuple);
        // One that is ignored may differ because it was not sent.
        columns.retain(|at| !table.ignored.contains(at));
        if columns.is_empty() {
            return None;
        }
        let coverage = &self.documents[source.document as usize].coverage;
        let coverage = Coverage::from_bytes(coverage, self.sides.len())?;
        let fingerprint = |tuple: &Tuple| {
            let mut covered = tuple.clone();
            coverage.mask_row(ix, &mut covered);
            fingerprint::row(table, &covered)
        };
        let mark = |tuple: &Tuple, at: usize| cell_mark(&table.columns[at], tuple.cell(at));
        let column = |at: usize| Column { at, stored: mark(stored, at), sent: mark(&source.tuple, at) };
        Some(Rewritten {
            row: row_mark(table, &row.reference, &own_place(table, row), stored),
            stored: fingerprint(stored),
            sent: fingerprint(&source.tuple),
            columns: columns.into_iter().map(column).collect(),
        })
    }

    /// By its key a row is found again, and by what it refers to; by its id those are that refer to it.
    fn check(&self, run: &Run, ix: RelationIx, row: &StoredRow, source_at: u32) -> Result<(), Error> {
        let (relation, table) = (&run.mapping.relations[ix], &run.schema.tables[ix]);
        let source = &self.sides[ix].source[source_at as usize];
        let keys = [table.key.clone(), relation.alternate_key_columns()].concat();
        let changed = changed_columns(table, &row.tuple, &source.tuple);
        let changed = changed.into_iter().filter(|at| keys.contains(at)).map(|at| &table.names[at]);
        let mut changed: Vec<String> = changed.map(|name| format!("\"{name}\"")).collect();
        let refers = |outer: RelationIx| {
            let (parent, outer_table) = (source.parent as usize, &run.schema.tables[outer]);
            // Where the key that it refers to was corrected, a foreign key has had the row follow.
            let key = || self.sides[outer].source[parent].tuple.project(&outer_table.key);
            let widths = Widths::of(table, outer_table);
            let is_it = |referable: Tuple| widths.reference(referable).as_ref() == Some(&row.reference);
            is_it(self.traces.references[outer][parent].clone()) || outer_table.id.is_none() && is_it(key())
        };
        if relation.enclosing.is_some_and(|outer| !refers(outer)) {
            changed.extend(table.parent.iter().map(|column| format!("\"{}\"", column.name)));
        }
        if let Some(id) = &table.id {
            let sent = match id.source {
                IdSource::Mapped(at) => source.tuple.project(&[at]),
                // Where nothing refers to it, nothing: then the server has chosen.
                IdSource::Expression(_) => self.traces.references[ix][source_at as usize].clone(),
            };
            let is_sent = matches!(sent.cells().next(), Some(Cell::Value(_)));
            let is_other = is_sent && sent != referable(table, row);
            let name = format!("\"{}\"", id.column.name);
            changed.extend((is_other && !changed.contains(&name)).then_some(name));
        }
        if changed.is_empty() {
            return Ok(());
        }
        Err(changes_identity(table, &changed.join(", ")))
    }
}

/// Written rows as they are now, by source row. One that is found by its physical place, and was written once more by
/// a trigger, is left out.
async fn read_back(
    transaction: &Transaction<'_>,
    table: &Table,
    places: &HashMap<u32, Tuple>,
) -> Result<Vec<(u32, StoredRow)>, Error> {
    let values: Vec<Tuple> = places.values().cloned().collect();
    let found = rows(transaction, table, &table.locator[..table.own_locator], &values).await?;
    let sources: HashMap<&Tuple, u32> = places.iter().map(|(source, place)| (place, *source)).collect();
    let sourced = |row: StoredRow| Some((*sources.get(&own_place(table, &row))?, row));
    let found: Vec<(u32, StoredRow)> = found.into_iter().filter_map(sourced).collect();
    if found.len() < places.len() && !table.is_found_by_place() {
        let message = format!(
            "{} of {} rows written to {} are not there: a trigger removed them, or changed their primary key",
            places.len() - found.len(),
            places.len(),
            table.name
        );
        return Err(Error::new(ErrorKind::Rejected, message));
    }
    Ok(found)
}
