//! Which items of a list become rows, where several have one key.

use std::collections::HashMap;

use super::fault::{twin, two_parents};
use super::item::Item;
use super::{ShredError, Shredder, Wanted};
use crate::fingerprint::{self, Level, TreeFingerprint, comparison_key, trees};
use crate::mapping::{OnDuplicate, Path, RelationIx, UniqueIn};
use crate::row::{RelationRows, Row, Tuple};
use crate::schema::Table;

impl Shredder<'_> {
    /// Which items of a list become rows, and their cells: of several with one key, one.
    pub(super) fn chosen(
        &mut self,
        ix: RelationIx,
        items: &[Item<'_>],
    ) -> Result<Vec<(usize, Tuple)>, ShredError> {
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
