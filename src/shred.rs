//! (mapping, document) → rows.
//!
//! Most cells are encoded here. Two kinds need the database: values of types that
//! only the server can convert, and ids of catalogue rows. Shredding does no I/O,
//! so it takes what is known of both as plain data, [`Answers`]; where something
//! is missing it says so, all of it at once, as [`Questions`]. The caller asks the
//! database and shreds again: with every answer known it is one pass.

pub(crate) mod fault;
pub(crate) mod item;
mod questions;
pub(crate) mod strays;

pub use questions::{Answers, CatalogueRow, Conversion, Questions};

use std::borrow::Cow;
use std::collections::HashMap;

use crate::document::DocumentKey;
use crate::fingerprint::{self, Level, TreeFingerprint, comparison_key, comparison_tuple, trees};
use crate::json::Json;
use crate::mapping::{
    Column, LookupIx, Mapping, Missing, OnDuplicate, Path, RelationIx, RelationKind, Source, TextForm,
    UniqueIn, WhenAbsent, WhenNull,
};
use crate::row::{Cell, Lacking, RelationRows, Row, RowSet, Tuple};
use crate::schema::{Schema, Table};
use crate::value::{self, ColumnType, Encoded, ValueError, comparison_form, in_form, resized};
use fault::{Fault, twin, two_parents};
use item::{Found, Item, items};

/// A shredded document, or what must be asked before it can be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shredded {
    /// The rows of the document.
    Rows(RowSet),
    /// What must be known first.
    Asks(Questions),
}

/// Why a document does not fit the mapping, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShredError {
    /// The relation's name.
    pub relation: String,
    /// The place in the document: `documentos[1].long`.
    pub path: String,
    /// What is wrong with it.
    pub message: String,
}

/// The key of the document that a root row belongs to.
pub fn document_key(schema: &Schema, root: &Tuple) -> DocumentKey {
    DocumentKey(comparison_key(&schema.tables[0], root).into_bytes())
}

/// The key of the document whose root row has this key.
pub fn document_key_of(schema: &Schema, key: &Tuple) -> DocumentKey {
    DocumentKey(comparison_tuple(&schema.tables[0].key_types(), key).into_bytes())
}

/// The cells of a document's key. `None` where it is malformed, or of another shape than the mapping's: then it says
/// nothing of any row.
pub(crate) fn key_cells(schema: &Schema, key: &DocumentKey) -> Option<Tuple> {
    let cells = Tuple::from_bytes(key.0.clone());
    cells.filter(|cells| cells.cells().count() == schema.tables[0].key.len())
}

/// Makes the rows of a document.
///
/// # Errors
/// The document does not fit the mapping.
pub fn shred(
    mapping: &Mapping,
    schema: &Schema,
    answers: &Answers,
    json: &Json<'_>,
) -> Result<Shredded, ShredError> {
    let mut shredder = Shredder::new(mapping, schema, answers);
    let item = Item::root(json);
    if !matches!(json, Json::Object(_)) {
        let message = format!("expected an object, found {}", json.describe());
        return Err(item.error(mapping.root(), &Path::default(), message));
    }
    let tuple = shredder.tuple_of(0, &item, Wanted::All)?;
    shredder.set.relations[0].rows.push(Row { parent: 0, tuple });
    shredder.enclosed(0, &item, 0)?;
    if shredder.questions.is_empty() {
        return Ok(Shredded::Rows(shredder.set));
    }
    Ok(Shredded::Asks(shredder.questions))
}

/// The key of a document that may not fit the mapping otherwise. `None` where it cannot be read, or not without asking.
pub fn key_of(mapping: &Mapping, schema: &Schema, answers: &Answers, json: &Json<'_>) -> Option<DocumentKey> {
    let mut shredder = Shredder::new(mapping, schema, answers);
    let is_object = matches!(json, Json::Object(_));
    let tuple = is_object.then(|| shredder.tuple_of(0, &Item::root(json), Wanted::Key).ok())??;
    shredder.questions.is_empty().then(|| document_key(schema, &tuple))
}

/// The key of a document in words: its values, joined by commas. Empty where it cannot be read.
pub fn label(mapping: &Mapping, json: &Json<'_>) -> String {
    let (root, item) = (mapping.root(), Item::root(json));
    let mut words = Vec::new();
    for at in root.key_columns() {
        let column = &root.columns[at];
        let Source::Path { paths, .. } = &column.source else { continue };
        let Ok(found) = item.first(paths) else { continue };
        match found {
            Found::Value(value) if *value != Json::Null => match value.as_ref() {
                Json::String(text) => words.push(text.to_string()),
                Json::Number(text) => words.push((*text).to_owned()),
                _ => {}
            },
            // Where it may be null, that is part of what the document is called.
            _ if column.nullable => words.push(NULL_LABEL.to_owned()),
            _ => {}
        }
    }
    let words = words.join(",");
    // U+0000 would keep the ledger from being written; other control characters would reach terminals.
    words.chars().filter(|letter| !letter.is_control()).take(LABEL_CHARS_MAX).collect()
}

/// What a NULL of a key is in the words for it.
pub(crate) const NULL_LABEL: &str = "NULL";

/// A key is short; one that is not must not fill a log.
const LABEL_CHARS_MAX: usize = 200;

struct Shredder<'s> {
    mapping: &'s Mapping,
    schema: &'s Schema,
    answers: &'s Answers,
    set: RowSet,
    questions: Questions,
    /// Conversions and catalogue rows asked for so far, one asked for again included.
    asked: Asked,
    /// Keys seen in the whole document, of relations whose key is unique in the table.
    claimed: HashMap<RelationIx, HashMap<Tuple, String>>,
    /// What a row, and a cell, is made in, for the next one to be made in as well.
    scratch: (Tuple, Vec<u8>),
}

/// How often something was asked: more than there are different questions where two items ask the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Asked {
    conversions: u32,
    lookups: u32,
}

/// Which cells of an item are made.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wanted {
    All,
    /// Those of the key; the others are null.
    Key,
}

/// A cell that could not be filled as asked.
enum Hole {
    Error(Fault),
    /// The catalogue row is missing and the mapping says to leave the reference out.
    Skipped,
    /// The catalogue row, with this key, is missing and may not be inserted.
    Lacking(LookupIx, Tuple),
}

impl<T: Into<Fault>> From<T> for Hole {
    fn from(fault: T) -> Self {
        Hole::Error(fault.into())
    }
}

impl<'s> Shredder<'s> {
    fn new(mapping: &'s Mapping, schema: &'s Schema, answers: &'s Answers) -> Self {
        let relations = vec![RelationRows::default(); mapping.relations.len()];
        Shredder {
            mapping,
            schema,
            answers,
            set: RowSet { relations, ..RowSet::default() },
            questions: Questions::default(),
            asked: Asked::default(),
            claimed: HashMap::new(),
            scratch: Default::default(),
        }
    }

    /// The lists of an item whose row is `parent` in relation `outer`.
    fn enclosed(&mut self, outer: RelationIx, item: &Item<'_>, parent: u32) -> Result<(), ShredError> {
        let mapping = self.mapping;
        for (ix, relation) in mapping.enclosed(outer) {
            let error = |message| item.error(relation, &relation.path, message);
            let found = item.find(&relation.path).map_err(error)?;
            let Found::Value(list) = found else {
                self.leave(ix, parent, relation.when_absent == WhenAbsent::Keep);
                continue;
            };
            match list.as_ref() {
                Json::Null if relation.when_null == WhenNull::Error => return Err(error("is null".into())),
                Json::Null => self.leave(ix, parent, relation.when_null == WhenNull::Keep),
                json => self.list(ix, item, json, parent)?,
            }
        }
        Ok(())
    }

    fn leave(&mut self, ix: RelationIx, parent: u32, keep: bool) {
        if keep {
            self.set.relations[ix].kept.push(parent);
        }
    }

    fn list(
        &mut self,
        ix: RelationIx,
        outer: &Item<'_>,
        json: &Json<'_>,
        parent: u32,
    ) -> Result<(), ShredError> {
        let relation = &self.mapping.relations[ix];
        strays::refuse(self.mapping, ix, outer, json)?;
        let items = items(relation, outer, json)?;
        let mut chosen = self.chosen(ix, &items)?;
        self.number(ix, &items, &mut chosen)?;
        for (at, tuple) in chosen {
            let rows = &mut self.set.relations[ix].rows;
            rows.push(Row { parent, tuple });
            let row = rows.len() as u32 - 1;
            self.enclosed(ix, &items[at], row)?;
        }
        Ok(())
    }

    /// Fills in the place of each row among those that are asked for: which these are is known by now, unless
    /// questions are open.
    fn number(
        &self,
        ix: RelationIx,
        items: &[Item<'_>],
        chosen: &mut [(usize, Tuple)],
    ) -> Result<(), ShredError> {
        let relation = &self.mapping.relations[ix];
        for at in relation.position_columns() {
            let (column, ty) = (&relation.columns[at], &self.schema.tables[ix].columns[at]);
            let Source::Position { first } = column.source else { continue };
            for (place, (item, tuple)) in (0i128..).zip(&mut *chosen).filter(|_| self.questions.is_empty()) {
                let (number, mut bytes) = ((i128::from(first) + place).to_string(), Vec::new());
                value::encode(&Json::Number(&number), ty, None, &mut bytes)
                    .map_err(|ValueError(message)| items[*item].error_in(relation, column, message))?;
                *tuple = tuple.with(at, Cell::Value(&bytes));
            }
        }
        Ok(())
    }

    /// The cells of an item; `None` where the row is left out because its link has no target.
    fn tuple(
        &mut self,
        ix: RelationIx,
        item: &Item<'_>,
        wanted: Wanted,
    ) -> Result<Option<Tuple>, ShredError> {
        let (skipped, lacking) = (self.set.skipped_lookups, self.set.lacking.len());
        let tuple = self.tuple_of(ix, item, wanted)?;
        // The target is a link's first column; a further reference that is skipped is null.
        let link = self.mapping.relations[ix].kind == RelationKind::Link;
        let missing = link && self.set.skipped_lookups > skipped && tuple.cell(0) == Cell::Null;
        let lacks_key = self.set.lacking[lacking..].iter().any(|lacking| lacking.whole);
        Ok((!missing && !lacks_key).then_some(tuple))
    }

    /// All cells of an item.
    fn tuple_of(&mut self, ix: RelationIx, item: &Item<'_>, wanted: Wanted) -> Result<Tuple, ShredError> {
        let (mut tuple, mut bytes) = std::mem::take(&mut self.scratch);
        tuple.clear();
        let filled = self.fill(ix, item, wanted, &mut tuple, &mut bytes);
        let made = tuple.clone();
        self.scratch = (tuple, bytes);
        filled.map(|()| made)
    }

    fn fill(
        &mut self,
        ix: RelationIx,
        item: &Item<'_>,
        wanted: Wanted,
        tuple: &mut Tuple,
        bytes: &mut Vec<u8>,
    ) -> Result<(), ShredError> {
        let relation = &self.mapping.relations[ix];
        let table = &self.schema.tables[ix];
        for (at, column) in relation.columns.iter().enumerate() {
            if wanted == Wanted::Key && !table.key.contains(&at) {
                tuple.push(Cell::Null);
                continue;
            }
            bytes.clear();
            let asked = self.asked;
            // Without its target a link is no row: what else it refers to is not asked.
            let is_target = relation.kind == RelationKind::Link && at == 0;
            let may_lack = is_target && !self.inserts(column);
            let cell = match self.cell(column, &table.columns[at], item, bytes) {
                Ok(cell) => cell,
                Err(Hole::Skipped) => {
                    self.set.skipped_lookups += 1;
                    tuple.push(Cell::Null);
                    if is_target {
                        return Ok(());
                    }
                    continue;
                }
                Err(Hole::Lacking(lookup, key)) => {
                    let whole = is_target || (ix != 0 && table.key.contains(&at));
                    self.set.lacking.push(Lacking { relation: ix, lookup, key, whole });
                    tuple.push(Cell::Null);
                    if is_target {
                        return Ok(());
                    }
                    continue;
                }
                Err(Hole::Error(fault)) => return Err(item.error_in(relation, column, fault)),
            };
            let answered = asked == self.asked;
            if cell == Cell::Null && answered && table.key.contains(&at) && !column.nullable {
                return Err(item.lacks_key(relation, column));
            }
            tuple.push(cell);
            if may_lack && !answered {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Whether a column refers to a catalogue that gets the rows it lacks. What fails beside such a reference is then
    /// found before a row is inserted for nothing.
    fn inserts(&self, column: &Column) -> bool {
        matches!(column.source, Source::Lookup { lookup, .. } if self.mapping.lookups[lookup].missing == Missing::Insert)
    }

    fn cell<'b>(
        &mut self,
        column: &Column,
        ty: &ColumnType,
        item: &Item<'_>,
        bytes: &'b mut Vec<u8>,
    ) -> Result<Cell<'b>, Hole> {
        match &column.source {
            Source::Path { paths, zone } => match item.first(paths)? {
                Found::Absent if column.when_absent == WhenAbsent::Keep => Ok(Cell::Kept),
                Found::Absent => Ok(Cell::Null),
                Found::Value(json) => {
                    let filled = self.encode(&json, ty, zone.as_deref(), column.text, bytes);
                    Ok(if filled? { Cell::Value(bytes) } else { Cell::Null })
                }
            },
            Source::Constant { value } => {
                let filled = self.encode(&value.json(), ty, None, column.text, bytes);
                Ok(if filled? { Cell::Value(bytes) } else { Cell::Null })
            }
            Source::Lookup { lookup, matching } => {
                self.reference(*lookup, matching, (column, ty), item, bytes)
            }
            // Filled in once it is known which rows there are.
            Source::Position { .. } => Ok(Cell::Null),
        }
    }

    /// Encodes one value. False for null, and for a question.
    fn encode(
        &mut self,
        json: &Json<'_>,
        ty: &ColumnType,
        zone: Option<&str>,
        form: TextForm,
        bytes: &mut Vec<u8>,
    ) -> Result<bool, String> {
        let (json, holds_nul) =
            if form.is_as_given() { (Cow::Borrowed(json), false) } else { in_form(json, form) };
        self.set.nuls += u32::from(holds_nul);
        let text = match value::encode(&json, ty, zone, bytes).map_err(|ValueError(message)| message)? {
            Encoded::Null => return Ok(false),
            Encoded::Value => return Ok(true),
            Encoded::Ask(text) => text,
        };
        let expression = match zone {
            Some(_) => format!("{}((v::timestamp AT TIME ZONE $2)::{})", ty.send, ty.sql),
            None => format!("{}({})", ty.send, ty.input),
        };
        let conversion = Conversion { expression, zone: zone.map(str::to_owned), text };
        match self.answers.conversions.get(&conversion) {
            Some(Ok(answer)) => {
                bytes.extend_from_slice(answer);
                Ok(true)
            }
            Some(Err(message)) => Err(message.clone()),
            None => {
                self.questions.conversions.insert(conversion);
                self.asked.conversions += 1;
                Ok(false)
            }
        }
    }

    /// The id of the catalogue row that an item refers to.
    fn reference<'b>(
        &mut self,
        ix: LookupIx,
        matching: &[Path],
        (column, ty): (&Column, &ColumnType),
        item: &Item<'_>,
        bytes: &'b mut Vec<u8>,
    ) -> Result<Cell<'b>, Hole> {
        let (lookup, table) = (&self.mapping.lookups[ix], &self.schema.lookups[ix]);
        let asked = self.asked.conversions;
        let mut key = Tuple::default();
        let (mut nulls, mut missing, mut absents) = (0, None, 0);
        for (path, column) in matching.iter().zip(&table.key) {
            let found = item.find(path).map_err(|message| Fault::at(path, message))?;
            absents += usize::from(matches!(found, Found::Absent));
            if !self.push(&mut key, path, &column.ty, lookup.text_form(&column.name), item)? {
                nulls += 1;
                if !lookup.nullable.contains(&column.name) {
                    missing.get_or_insert((path, &column.name));
                }
            }
        }
        match () {
            () if self.asked.conversions > asked => return Ok(Cell::Null),
            () if absents == matching.len() && column.when_absent == WhenAbsent::Keep => {
                return Ok(Cell::Kept);
            }
            () if nulls == matching.len() => return Ok(Cell::Null),
            () => {}
        }
        if let Some((path, name)) = missing {
            return Err(Fault::part_of_key(path, lookup, name).into());
        }
        let types: Vec<&ColumnType> = table.key.iter().map(|column| &column.ty).collect();
        let compared = comparison_tuple(&types, &key);
        match self.answers.lookups.get(ix).and_then(|known| known.get(&compared)) {
            Some(Some(id)) => {
                let narrow =
                    || format!("refers to an id of `{}` that is out of range for {}", lookup.name, ty.sql);
                bytes.extend_from_slice(&resized(id, &table.id.ty.kind, &ty.kind).ok_or_else(narrow)?);
                Ok(Cell::Value(bytes))
            }
            Some(None) if lookup.missing == Missing::Skip => Err(Hole::Skipped),
            Some(None) if lookup.missing == Missing::Insert && self.answers.leaves_missing => {
                Err(Hole::Lacking(ix, compared))
            }
            Some(None) => Err(Fault::unknown(item, matching, lookup).into()),
            None => {
                let mut columns = Tuple::default();
                if lookup.missing == Missing::Insert {
                    for ((name, path), column) in lookup.columns.iter().zip(&table.columns) {
                        self.push(&mut columns, path, &column.ty, lookup.text_form(name), item)?;
                    }
                }
                self.asked.lookups += 1;
                if self.asked.conversions == asked {
                    self.questions.lookups.entry((ix, compared)).or_insert(CatalogueRow { key, columns });
                }
                Ok(Cell::Null)
            }
        }
    }

    /// Appends the value at `path` to a tuple. False where it is null or not known yet.
    fn push(
        &mut self,
        tuple: &mut Tuple,
        path: &Path,
        ty: &ColumnType,
        form: TextForm,
        item: &Item<'_>,
    ) -> Result<bool, Hole> {
        let mut bytes = Vec::new();
        let at = |message| Fault::at(path, message);
        let filled = match item.find(path).map_err(at)? {
            Found::Absent => false,
            Found::Value(json) => self.encode(&json, ty, None, form, &mut bytes).map_err(at)?,
        };
        tuple.push_value(filled.then_some(&bytes));
        Ok(filled)
    }

    /// Which items of a list become rows, and their cells: of several with one key, one.
    fn chosen(&mut self, ix: RelationIx, items: &[Item<'_>]) -> Result<Vec<(usize, Tuple)>, ShredError> {
        let relation = &self.mapping.relations[ix];
        match relation.on_duplicate {
            _ if !relation.is_keyed() => self.tuples(ix, items, 0..items.len()),
            OnDuplicate::Error => {
                let tuples = self.tuples(ix, items, 0..items.len())?;
                self.without_equals(ix, items, tuples)
            }
            // The key alone decides: what else an item that does not count holds, and refers to, is not looked at.
            OnDuplicate::First | OnDuplicate::Last => {
                let asked = self.asked;
                let winners = self.winners(ix, items)?;
                // Until all keys are known nothing else is asked: it might be for an item that does not count.
                if self.asked == asked { self.tuples(ix, items, winners) } else { Ok(Vec::new()) }
            }
        }
    }

    fn tuples(
        &mut self,
        ix: RelationIx,
        items: &[Item<'_>],
        places: impl IntoIterator<Item = usize>,
    ) -> Result<Vec<(usize, Tuple)>, ShredError> {
        let mut tuple =
            |at| self.tuple(ix, &items[at], Wanted::All).map(|tuple| tuple.map(|tuple| (at, tuple)));
        places.into_iter().filter_map(|at| Result::transpose(tuple(at))).collect()
    }

    /// The first or last item of each key, in the order of the list.
    fn winners(&mut self, ix: RelationIx, items: &[Item<'_>]) -> Result<Vec<usize>, ShredError> {
        let last = self.mapping.relations[ix].on_duplicate == OnDuplicate::Last;
        let (asked, nuls) = (self.asked, self.set.nuls);
        let mut chosen: HashMap<Tuple, usize> = HashMap::new();
        for (at, item) in items.iter().enumerate() {
            let Some(tuple) = self.tuple(ix, item, Wanted::Key)? else { continue };
            // A key that is not known yet is nobody's duplicate; the document is shredded again.
            let key = if self.asked == asked { self.row_key(ix, &tuple) } else { Tuple::default() };
            match chosen.get(&key) {
                Some(_) if last => drop(chosen.insert(key, at)),
                Some(_) => {}
                None => {
                    self.claim(ix, &key, item)?;
                    chosen.insert(key, at);
                }
            }
        }
        // The keys of those that count are made once more, with the rest of them.
        self.set.nuls = nuls;
        let mut winners: Vec<usize> = chosen.into_values().collect();
        winners.sort_unstable();
        Ok(winners)
    }

    /// Drops items that ask for the same rows as one before them.
    fn without_equals(
        &mut self,
        ix: RelationIx,
        items: &[Item<'_>],
        tuples: Vec<(usize, Tuple)>,
    ) -> Result<Vec<(usize, Tuple)>, ShredError> {
        // While questions are open, cells are missing: what looks equal may differ.
        if !self.questions.is_empty() {
            return Ok(tuples);
        }
        let mut chosen: Vec<(usize, Tuple)> = Vec::new();
        let mut places: HashMap<Tuple, usize> = HashMap::new();
        for (at, tuple) in tuples {
            let key = self.row_key(ix, &tuple);
            let Some(&first) = places.get(&key) else {
                self.claim(ix, &key, &items[at])?;
                places.insert(key, chosen.len());
                chosen.push((at, tuple));
                continue;
            };
            let (first, other) = &chosen[first];
            let (first, other) = (&items[*first], other.clone());
            let asked = self.asked;
            let differs = self.tree(ix, first, &other)? != self.tree(ix, &items[at], &tuple)?;
            // What is asked of the rows below may make them equal yet.
            if differs && self.asked == asked {
                let relation = &self.mapping.relations[ix];
                let message = twin(first, relation);
                return Err(items[at].error(relation, &Path::default(), message));
            }
        }
        Ok(chosen)
    }

    /// What an item asks for, the rows below it included. What it asks the database is asked here too; until that
    /// is answered the document is not shredded anyway.
    fn tree(
        &mut self,
        ix: RelationIx,
        item: &Item<'_>,
        tuple: &Tuple,
    ) -> Result<TreeFingerprint, ShredError> {
        let mut below = Shredder::new(self.mapping, self.schema, self.answers);
        below.set.relations[ix].rows.push(Row { parent: 0, tuple: tuple.clone() });
        below.enclosed(ix, item, 0)?;
        let level = |(relation, table): (&RelationRows, &Table)| Level {
            rows: relation.rows.iter().map(|r| (r.parent, fingerprint::row(table, &r.tuple))).collect(),
            kept: relation.kept.clone(),
        };
        let levels: Vec<Level> = below.set.relations.iter().zip(&self.schema.tables).map(level).collect();
        self.asked.conversions += below.asked.conversions;
        self.asked.lookups += below.asked.lookups;
        self.questions.extend(below.questions);
        Ok(trees(self.mapping, &levels)[ix][0])
    }

    fn row_key(&self, ix: RelationIx, tuple: &Tuple) -> Tuple {
        let table = &self.schema.tables[ix];
        comparison_key(table, tuple)
    }

    /// A key that is unique in the table may stand under one parent only. While questions are open, items that
    /// will not count still stand beside those that do.
    fn claim(&mut self, ix: RelationIx, key: &Tuple, item: &Item<'_>) -> Result<(), ShredError> {
        let relation = &self.mapping.relations[ix];
        if relation.unique_in != UniqueIn::All || !self.questions.is_empty() {
            return Ok(());
        }
        let places = self.claimed.entry(ix).or_default();
        if let Some(other) = places.insert(key.clone(), item.place()) {
            let message = two_parents(item, &other, relation);
            return Err(item.error(relation, &Path::default(), message));
        }
        Ok(())
    }
}

/// Whether two cells hold one value, as far as the document says.
pub fn same(ty: &ColumnType, stored: Cell<'_>, source: Cell<'_>) -> bool {
    match (stored, source) {
        (_, Cell::Kept) => true,
        (Cell::Value(a), Cell::Value(b)) => {
            a == b || comparison_form(&ty.kind, a) == comparison_form(&ty.kind, b)
        }
        (a, b) => a == b,
    }
}
