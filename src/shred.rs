//! (mapping, document) → rows.
//!
//! Most cells are encoded here. Two kinds need the database: values of types that
//! only the server can convert, and ids of catalogue rows. Shredding does no I/O,
//! so it takes what is known of both as plain data, [`Answers`]; where something
//! is missing it says so, all of it at once, as [`Questions`]. The caller asks the
//! database and shreds again: with every answer known it is one pass.

mod cells;
mod duplicates;
pub(crate) mod fault;
pub(crate) mod item;
mod questions;
pub(crate) mod strays;

pub use questions::{Answers, CatalogueRow, Conversion, Questions};

use std::collections::HashMap;

use crate::document::DocumentKey;
use crate::fingerprint::{comparison_key, comparison_tuple};
use crate::json::Json;
use crate::mapping::{Mapping, Path, RelationIx, RelationKind, Source, WhenAbsent, WhenNull};
use crate::row::{Cell, Lacking, RelationRows, Row, RowSet, Tuple};
use crate::schema::Schema;
use crate::value::{self, ColumnType, ValueError, comparison_form};
use cells::Hole;
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
