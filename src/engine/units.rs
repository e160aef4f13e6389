//! What is stored in one transaction where `atomic = "relation"`, and how far documents are.
//!
//! Unit 0 is the root with its links, the others are the 1-N lists below it, each with the lists inside. A unit of a
//! document is stored whole or not at all. Between the first unit and the last the document is recorded with its new
//! fingerprint, and not as settled: a run that dies has it compared again, and who takes a row from it meanwhile
//! changes what is recorded, which the last transaction sees.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use petgraph::unionfind::UnionFind;

use crate::document::DocumentKey;
use crate::engine::prepare::Prepared;
use crate::engine::report::Failure;
use crate::mapping::{Atomic, Mapping, RelationIx, RelationKind};
use crate::schema::Schema;

/// Which relations are stored together.
pub(crate) struct Units {
    /// Per relation, its unit.
    of: Vec<usize>,
    pub count: usize,
}

impl Units {
    /// `None`: documents are stored whole.
    pub fn of(mapping: &Mapping, schema: &Schema) -> Option<Self> {
        let units = Self::new(mapping, schema);
        (mapping.sync.atomic == Atomic::Relation && units.count > 1).then_some(units)
    }

    fn new(mapping: &Mapping, schema: &Schema) -> Self {
        let mut joined = UnionFind::new(mapping.relations.len());
        for (ix, relation) in mapping.relations.iter().enumerate() {
            let Some(outer) = relation.enclosing else { continue };
            if outer != 0 || relation.kind == RelationKind::Link {
                joined.union(ix, outer);
            }
        }
        // What refers to each other needs one order of writes.
        for (ix, table) in schema.tables.iter().enumerate() {
            for reference in table.references.iter().filter(|r| !r.is_of_tree(ix, mapping)) {
                joined.union(ix, reference.target);
            }
        }
        let mut numbers = HashMap::new();
        let of = joined.into_labeling().into_iter().map(|label| {
            let next = numbers.len();
            *numbers.entry(label).or_insert(next)
        });
        Units { of: of.collect(), count: numbers.len() }
    }

    /// Units of which one of these relations is.
    fn with(&self, relations: &[bool]) -> Vec<bool> {
        let mut units = vec![false; self.count];
        self.of.iter().zip(relations).filter(|(_, is_in)| **is_in).for_each(|(&unit, _)| units[unit] = true);
        units
    }

    /// How many units would be written of a document. `differs`: the relations that differ from what is recorded.
    pub fn written(&self, differs: &[bool]) -> usize {
        self.with(differs).into_iter().filter(|&is_in| is_in).count()
    }
}

/// What a transaction is about.
#[derive(Clone, Copy)]
pub(crate) enum Scope<'s> {
    /// All of its documents.
    Whole,
    /// A unit of them.
    Unit(&'s Steps<'s>, usize),
    /// What is left of documents of which all units are stored: removals to hold back, marks, and what is recorded.
    Rest(&'s Steps<'s>),
}

/// How far documents are.
pub(crate) struct Steps<'u> {
    units: &'u Units,
    progress: Mutex<HashMap<DocumentKey, Progress>>,
}

/// How far a document is.
#[derive(Default)]
pub(super) struct Progress {
    /// The relations that differ from what was recorded before the first unit.
    differs: Vec<bool>,
    /// Per unit, how far it is.
    units: Vec<Stored>,
    pub is_new: bool,
    pub touched: bool,
    pub failures: Vec<Failure>,
    pub later: Option<Later>,
    /// Rows, per relation, that were not deleted: it would have been too much.
    pub withheld: Option<Vec<u64>>,
}

/// How far a unit is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stored {
    #[default]
    No,
    /// But for removals that wait for the end of the feed.
    ButForRemovals,
    Yes,
}

/// Why a document is looked at again at the end of the feed.
pub(crate) enum Later {
    /// Nothing is wrong with it: rows were taken from it meanwhile, or it waits with others.
    Again,
    /// This fails it now.
    Failure(Failure),
    /// This deletes too many rows now; per relation.
    Withheld(Vec<u64>),
}

impl<'u> Steps<'u> {
    pub fn new(units: &'u Units) -> Self {
        Steps { units, progress: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<DocumentKey, Progress>> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes something of a document.
    pub fn note<T>(&self, document: &Prepared, note: impl FnOnce(&mut Progress) -> T) -> T {
        note(self.lock().entry(document.key.clone()).or_default())
    }

    /// Whether a unit of a document is to be stored: it differs, and the first one is in.
    pub fn is_due(&self, document: &Prepared, unit: usize) -> bool {
        self.note(document, |progress| {
            let is_in = progress.units.first().is_some_and(|first| *first != Stored::No);
            is_in && progress.later.is_none() && self.units.with(&progress.differs)[unit]
        })
    }

    /// Whether all units of a document are stored.
    pub fn is_stored(&self, document: &Prepared) -> bool {
        self.note(document, |progress| {
            let due = self.units.with(&progress.differs);
            !progress.units.is_empty()
                && progress.units.iter().zip(due).all(|(stored, due)| !due || *stored != Stored::No)
        })
    }

    /// What was found out of a document.
    pub fn take(&self, document: &Prepared) -> Progress {
        self.lock().remove(&document.key).unwrap_or_default()
    }
}

impl Scope<'_> {
    /// Whether documents are done after it.
    pub fn settles(&self) -> bool {
        !matches!(self, Scope::Unit(..))
    }

    /// Whether it says what is recorded of documents.
    pub fn records(&self) -> bool {
        self.settles() || matches!(self, Scope::Unit(_, 0))
    }

    /// The relations to compare of a document. `differing` are those that differ from what is recorded; `is_ours`: what
    /// is recorded is what the first unit did.
    pub fn active(
        &self,
        document: &Prepared,
        is_ours: bool,
        differing: impl FnOnce() -> Vec<bool>,
    ) -> Vec<bool> {
        match self {
            Scope::Whole => differing(),
            Scope::Unit(steps, unit) => steps.note(document, |progress| {
                if *unit == 0 {
                    progress.differs = differing();
                }
                let relations = steps.units.of.iter().zip(&progress.differs).enumerate();
                // On the root all hang.
                relations.map(|(ix, (of, &differs))| ix == 0 || (differs && of == unit)).collect()
            }),
            Scope::Rest(steps) if is_ours => steps.note(document, |progress| {
                // What was held back may hang below a row that came from elsewhere, in a list that did not differ.
                let is_left = |unit: usize| progress.units.get(unit) == Some(&Stored::ButForRemovals);
                steps.units.of.iter().enumerate().map(|(ix, &unit)| ix == 0 || is_left(unit)).collect()
            }),
            Scope::Rest(_) => differing(),
        }
    }

    /// Whether rows of a relation that are as they should be count: once, though they may be read several times.
    pub fn counts(&self, relation: RelationIx) -> bool {
        match self {
            Scope::Whole => true,
            Scope::Unit(steps, unit) => steps.units.of[relation] == *unit,
            Scope::Rest(_) => false,
        }
    }

    /// Notes that a unit of a document was stored.
    pub fn stored(&self, document: &Prepared, is_new: bool, touched: bool, held: bool) {
        let Scope::Unit(steps, unit) = self else { return };
        steps.note(document, |progress| {
            progress.units.resize(steps.units.count, Stored::No);
            progress.units[*unit] = if held { Stored::ButForRemovals } else { Stored::Yes };
            progress.is_new |= is_new;
            progress.touched |= touched;
        });
    }

    /// What units before this did to a document: whether it is new, and whether a row of it was written.
    pub fn before(&self, document: &Prepared) -> (bool, bool) {
        match self {
            Scope::Rest(steps) => steps.note(document, |progress| (progress.is_new, progress.touched)),
            Scope::Whole | Scope::Unit(..) => (false, false),
        }
    }
}
