//! What a transaction wrote → its changes, in words.
//!
//! In an order in which they can be done again: what goes, the innermost first; what changes in place; then, from the
//! root down, what moves and what is new.

use std::collections::HashMap;
use std::sync::Arc;

use tokio_postgres::Transaction;

use crate::document::DocumentKey;
use crate::engine::foresight::Foresight;
use crate::error::Error;
use crate::mapping::{Mapping, Relation, RelationIx, Source};
use crate::plan::{Action as Step, Plan, Sides, changed_columns};
use crate::postgres::changes::{Action, Change, Values};
use crate::postgres::spell::{Spelled, Speller, Word};
use crate::row::{Cell, Tuple};
use crate::schema::{PhysicalColumn, Schema, Table};
use crate::shred::{NULL_LABEL, key_cells};

/// What a transaction wrote, or is about to.
#[derive(Clone, Copy)]
pub(crate) struct Written<'w> {
    pub mapping: &'w Mapping,
    pub schema: &'w Schema,
    pub sides: &'w [Sides],
    pub plan: &'w Plan,
    /// Per relation and source row, what enclosed rows refer to, as far as that is known.
    pub references: &'w [Vec<Tuple>],
    /// Of the documents.
    pub keys: &'w [&'w DocumentKey],
    /// Of what is not written.
    pub foresight: Option<&'w Foresight>,
}

/// The changes of a transaction.
pub(crate) async fn changes(
    transaction: &Transaction<'_>,
    written: Written<'_>,
) -> Result<Vec<Change>, Error> {
    let mut drafting = Drafting::new(written);
    let drafts = drafting.drafts();
    let labels = drafting.labels(&drafts);
    let Drafting { speller, names, .. } = drafting;
    let mut spelled = speller.ask(transaction).await?;
    let labels: HashMap<u32, String> = labels
        .into_iter()
        .map(|(document, words)| {
            let word = |word| spelled.take(word).unwrap_or_else(|| NULL_LABEL.to_owned());
            (document, words.into_iter().map(word).collect::<Vec<_>>().join(","))
        })
        .collect();
    Ok(drafts.into_iter().map(|draft| draft.spelled(&names, &labels, &mut spelled)).collect())
}

/// Columns of a row and their values, not spelled yet.
type Words = Vec<(Arc<str>, Word)>;

/// A change that is not spelled yet.
struct Draft {
    relation: RelationIx,
    document: Option<u32>,
    action: Action,
    key: Option<Words>,
    id: Option<Word>,
    parent: Option<Words>,
    before: Option<Words>,
    after: Option<Words>,
}

/// What a relation and its columns are called.
struct Names {
    relation: Arc<str>,
    table: Arc<str>,
    columns: Vec<Arc<str>>,
    /// The columns in the order in which the mapping was written.
    order: Vec<usize>,
}

impl Names {
    fn of(relation: &Relation) -> Self {
        let columns = &relation.columns;
        let mut order: Vec<usize> = (0..columns.len()).collect();
        order.sort_by_key(|&at| columns[at].place);
        Names {
            relation: relation.name.as_str().into(),
            table: relation.table.to_string().into(),
            columns: columns.iter().map(|column| column.name.as_str().into()).collect(),
            order,
        }
    }
}

struct Drafting<'w> {
    written: Written<'w>,
    names: Vec<Names>,
    speller: Speller,
}

impl<'w> Drafting<'w> {
    fn new(written: Written<'w>) -> Self {
        let names = written.mapping.relations.iter().map(Names::of).collect();
        Drafting { written, names, speller: Speller::default() }
    }

    fn table(&self, ix: RelationIx) -> &'w Table {
        &self.written.schema.tables[ix]
    }

    fn side(&self, ix: RelationIx) -> &'w Sides {
        &self.written.sides[ix]
    }

    fn drafts(&mut self) -> Vec<Draft> {
        let relations = 0..self.written.sides.len();
        let mut drafts = Vec::new();
        for ix in relations.clone().rev() {
            let removed = self.gone(ix);
            drafts.extend(removed.into_iter().map(|row| self.removed(ix, row)));
        }
        for ix in relations.clone() {
            let pairs = self.side(ix).changes.updated.iter();
            drafts.extend(pairs.filter_map(|&pair| self.rewritten(ix, pair, Action::Updated)));
        }
        for ix in relations {
            let changes = &self.side(ix).changes;
            drafts.extend(changes.moved.iter().filter_map(|&pair| self.rewritten(ix, pair, Action::Moved)));
            drafts.extend(changes.added.iter().map(|&row| self.added(ix, row)));
        }
        drafts
    }

    /// Removed rows, but for those that wait for the end of the feed.
    fn gone(&self, ix: RelationIx) -> Vec<u32> {
        let steps = self.written.plan.steps.iter().filter(|step| step.relation == ix);
        let rows = steps.filter_map(|step| match &step.action {
            Step::Delete(rows) | Step::Cascade(rows) => Some(rows),
            _ => None,
        });
        let mut rows: Vec<u32> = rows.flatten().copied().collect();
        rows.sort_unstable();
        rows
    }

    fn removed(&mut self, ix: RelationIx, row: u32) -> Draft {
        let (table, stored) = (self.table(ix), &self.side(ix).stored[row as usize]);
        Draft {
            relation: ix,
            document: stored.document,
            action: Action::Removed,
            key: self.key(ix, &stored.tuple),
            id: self.id(ix, stored.id.as_deref()),
            parent: self.own_parent(table, &stored.reference),
            before: Some(self.columns(ix, &stored.tuple, None)),
            after: None,
        }
    }

    fn added(&mut self, ix: RelationIx, row: u32) -> Draft {
        let source = &self.side(ix).source[row as usize];
        let reference = self.reference(ix, row);
        let id = reference.filter(|_| self.table(ix).id.is_some()).and_then(|id| id.cells().next()?.bytes());
        Draft {
            relation: ix,
            document: Some(source.document),
            action: Action::Added,
            key: self.key(ix, &source.tuple),
            id: self.id(ix, id),
            parent: self.new_parent(ix, source.parent),
            before: None,
            after: Some(self.columns(ix, &source.tuple, None)),
        }
    }

    /// A stored row that is written. `None`: it is not, because it says nothing else.
    fn rewritten(&mut self, ix: RelationIx, pair: (u32, u32), action: Action) -> Option<Draft> {
        let (table, side) = (self.table(ix), self.side(ix));
        let (stored, source) = (&side.stored[pair.0 as usize], &side.source[pair.1 as usize]);
        let mut changed = changed_columns(table, &stored.tuple, &source.tuple);
        if action == Action::Updated && changed.is_empty() {
            return None;
        }
        let wanted = &set(&stored.tuple, &changed, &source.tuple);
        if !self.written.mapping.relations[ix].is_keyed() {
            // Nothing else tells them apart.
            changed = (0..table.columns.len()).collect();
        }
        let (mut before, mut after) = (Words::new(), Words::new());
        let (from, to) = (self.own_parent(table, &stored.reference), self.new_parent(ix, source.parent));
        if action == Action::Moved {
            before.extend(self.own_parent(table, &stored.reference).into_iter().flatten());
            after.extend(self.new_parent(ix, source.parent).into_iter().flatten());
        }
        before.extend(self.columns(ix, &stored.tuple, Some(&changed)));
        after.extend(self.columns(ix, wanted, Some(&changed)));
        Some(Draft {
            relation: ix,
            document: Some(source.document),
            action,
            key: self.key(ix, wanted),
            id: self.id(ix, stored.id.as_deref()),
            parent: if action == Action::Moved { to } else { from },
            before: Some(before),
            after: Some(after),
        })
    }

    /// Columns of a row, all or some, but for those about which its document says nothing.
    fn columns(&mut self, ix: RelationIx, tuple: &Tuple, which: Option<&[usize]>) -> Words {
        let (table, cells) = (self.table(ix), tuple.cells().collect::<Vec<_>>());
        let mut words = Words::new();
        for place in 0..cells.len() {
            let at = self.names[ix].order[place];
            if cells[at] == Cell::Kept || which.is_some_and(|which| !which.contains(&at)) {
                continue;
            }
            let word = match self.newcomer(ix, at, cells[at]) {
                Some(label) => Word::Known(Some(label)),
                None => self.speller.word(&table.columns[at], cells[at].bytes()),
            };
            words.push((self.names[ix].columns[at].clone(), word));
        }
        words
    }

    /// What a reference to a catalogue row is called that is not there yet.
    fn newcomer(&self, ix: RelationIx, at: usize, cell: Cell<'_>) -> Option<String> {
        let Source::Lookup { lookup, .. } = self.written.mapping.relations[ix].columns[at].source else {
            return None;
        };
        self.written.foresight?.label(lookup, cell.bytes()?)
    }

    fn key(&mut self, ix: RelationIx, tuple: &Tuple) -> Option<Words> {
        let table = self.table(ix);
        (!table.key.is_empty()).then(|| self.columns(ix, tuple, Some(&table.key)))
    }

    fn id(&mut self, ix: RelationIx, bytes: Option<&[u8]>) -> Option<Word> {
        let id = self.table(ix).id.as_ref()?;
        Some(self.speller.word(&id.column.ty, Some(bytes?)))
    }

    /// The parent as a stored row has it.
    fn own_parent(&mut self, table: &Table, reference: &Tuple) -> Option<Words> {
        (!table.parent.is_empty()).then(|| self.referring(table, &table.parent, reference))
    }

    /// The parent that a row gets, if it is known.
    fn new_parent(&mut self, ix: RelationIx, parent: u32) -> Option<Words> {
        let outer = self.written.mapping.relations[ix].enclosing?;
        let reference = self.reference(outer, parent)?;
        let key = self.table(outer).key.iter().zip(reference.cells());
        if self.table(outer).id.is_none()
            && key.into_iter().any(|(&at, cell)| self.newcomer(outer, at, cell).is_some())
        {
            return None;
        }
        // What refers to it has the same text, whatever its width.
        let columns = self.table(outer).referable_columns();
        Some(self.referring(self.table(ix), &columns, reference))
    }

    fn referring(&mut self, table: &Table, types: &[PhysicalColumn], reference: &Tuple) -> Words {
        let cells = table.parent.iter().zip(types).zip(reference.cells());
        let word = |((own, column), cell): ((&PhysicalColumn, &PhysicalColumn), Cell<'_>)| {
            (own.name.as_str().into(), self.speller.word(&column.ty, cell.bytes()))
        };
        cells.map(word).collect()
    }

    /// What refers to a source row, if that is known.
    fn reference(&self, ix: RelationIx, row: u32) -> Option<&'w Tuple> {
        let reference = self.written.references.get(ix)?.get(row as usize)?;
        (!reference.as_bytes().is_empty()).then_some(reference)
    }

    /// What the documents of changes are called.
    fn labels(&mut self, drafts: &[Draft]) -> HashMap<u32, Vec<Word>> {
        let types = self.table(0).key_types();
        let mut labels = HashMap::new();
        for document in drafts.iter().filter_map(|draft| draft.document) {
            labels.entry(document).or_insert_with(|| {
                let cells = key_cells(self.written.schema, self.written.keys[document as usize]);
                let cells = cells.unwrap_or_default();
                types
                    .iter()
                    .zip(cells.cells())
                    .map(|(ty, cell)| self.speller.word(ty, cell.bytes()))
                    .collect()
            });
        }
        labels
    }
}

/// A stored row of which some columns are set. Others may be spelled otherwise in what is asked for.
fn set(stored: &Tuple, changed: &[usize], source: &Tuple) -> Tuple {
    let cells = stored.cells().zip(source.cells()).enumerate();
    Tuple::of(cells.map(|(at, (old, new))| if changed.contains(&at) { new } else { old }))
}

impl Draft {
    fn spelled(self, names: &[Names], labels: &HashMap<u32, String>, spelled: &mut Spelled) -> Change {
        let mut values = |words: Option<Words>| {
            words.map(|words| {
                Values(words.into_iter().map(|(name, word)| (name, spelled.take(word))).collect())
            })
        };
        let [key, parent, before, after] = [self.key, self.parent, self.before, self.after].map(&mut values);
        let names = &names[self.relation];
        Change {
            document: self.document.and_then(|document| labels.get(&document).cloned()),
            relation: names.relation.clone(),
            table: names.table.clone(),
            action: self.action,
            key,
            id: self.id.and_then(|id| spelled.take(id)),
            parent,
            before,
            after,
        }
    }
}
