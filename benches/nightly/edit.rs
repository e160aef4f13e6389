//! The smallest edit between two nights: found by comparing the two dumps call by call, by keys and by texts, with
//! code that shares nothing with rowdelta.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::Outcome;
use crate::call::Call;
use crate::catalogues::joined;
use crate::rows::{CATALOGUES, Cell, RELATIONS, Refer, rows};

/// What has to be written. References to catalogues are the key of the entry.
#[derive(Default, Serialize, Deserialize)]
pub struct Edit {
    /// Entries that catalogues lack.
    pub catalogues: BTreeSet<(usize, String)>,
    /// Rows of calls, in the order of the feed; rows below a call before its own.
    pub changes: Vec<Change>,
}

/// One row that is written.
#[derive(Serialize, Deserialize)]
pub struct Change {
    /// The table.
    pub relation: usize,
    /// The call.
    pub call: String,
    /// What finds the row below it.
    pub key: String,
    /// What happens to it.
    pub kind: Kind,
}

/// What happens to a row.
#[derive(Serialize, Deserialize)]
pub enum Kind {
    /// It is inserted.
    Insert(Vec<Option<String>>),
    /// These columns of it get these values.
    Update(Vec<(usize, Option<String>)>),
    /// It is deleted.
    Delete,
}

/// Rows of a table that are inserted, updated and deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RowCounts {
    pub inserted: u64,
    pub updated: u64,
    pub deleted: u64,
}

impl RowCounts {
    /// How many rows are written.
    pub fn sum(self) -> u64 {
        self.inserted + self.updated + self.deleted
    }
}

impl std::ops::AddAssign for RowCounts {
    fn add_assign(&mut self, other: Self) {
        self.inserted += other.inserted;
        self.updated += other.updated;
        self.deleted += other.deleted;
    }
}

impl Edit {
    /// Compares two dumps, both in the order of the calls' numbers. The second one has no call that the first lacks.
    pub fn between(
        before: impl Iterator<Item = Vec<u8>>,
        after: impl Iterator<Item = Vec<u8>>,
    ) -> Outcome<Self> {
        let mut edit = Edit::default();
        let (mut known, mut needed) = (Keys::default(), Keys::default());
        let mut after = after.peekable();
        for old in before {
            let stored = Call::parse(&old)?;
            let stored_rows = rows(&stored, &mut known);
            let code = &*stored.codigo.0;
            if after.next_if(|new| *new == old).is_some() {
                continue;
            }
            let source = after.peek().map(|new| Call::parse(new)).transpose()?;
            match source.filter(|source| source.codigo.0 == code) {
                Some(source) => edit.compare(code, &stored_rows, &rows(&source, &mut needed)),
                None => {
                    edit.compare(code, &stored_rows, &Default::default());
                    continue;
                }
            }
            after.next();
        }
        if after.next().is_some() {
            return Err("a call is new, or out of order".into());
        }
        edit.catalogues = &needed.0 - &known.0;
        Ok(edit)
    }

    fn compare(&mut self, code: &str, stored: &crate::rows::Rows<'_>, source: &crate::rows::Rows<'_>) {
        for relation in (0..RELATIONS.len()).rev() {
            let key =
                |row: &Vec<Cell<'_>>| row[RELATIONS[relation].key].as_deref().unwrap_or_default().to_owned();
            let old: BTreeMap<String, &Vec<Cell<'_>>> =
                stored[relation].iter().map(|row| (key(row), row)).collect();
            let new: BTreeMap<String, &Vec<Cell<'_>>> =
                source[relation].iter().map(|row| (key(row), row)).collect();
            let mut push = |key: &String, kind| {
                self.changes.push(Change { relation, call: code.to_owned(), key: key.clone(), kind });
            };
            old.keys().filter(|key| !new.contains_key(*key)).for_each(|key| push(key, Kind::Delete));
            for (key, row) in &new {
                match old.get(key) {
                    None => push(key, Kind::Insert(row.iter().map(owned).collect())),
                    Some(old) if old != row => push(key, Kind::Update(differing(old, row))),
                    Some(_) => {}
                }
            }
        }
    }

    /// How many rows of each table are written; tables without any are left out.
    pub fn counts(&self) -> BTreeMap<String, RowCounts> {
        let mut counts: BTreeMap<String, RowCounts> = BTreeMap::new();
        for (catalogue, _) in &self.catalogues {
            counts.entry(CATALOGUES[*catalogue].table.to_owned()).or_default().inserted += 1;
        }
        for change in &self.changes {
            let counts = counts.entry(RELATIONS[change.relation].table.to_owned()).or_default();
            match change.kind {
                Kind::Insert(_) => counts.inserted += 1,
                Kind::Update(_) => counts.updated += 1,
                Kind::Delete => counts.deleted += 1,
            }
        }
        counts
    }
}

fn owned(cell: &Cell<'_>) -> Option<String> {
    cell.as_deref().map(str::to_owned)
}

fn differing(old: &[Cell<'_>], new: &[Cell<'_>]) -> Vec<(usize, Option<String>)> {
    let differ = old.iter().zip(new).enumerate().filter(|(_, (old, new))| old != new);
    differ.map(|(at, (_, new))| (at, owned(new))).collect()
}

/// Keys of catalogue entries, as they are met.
#[derive(Default)]
struct Keys(BTreeSet<(usize, String)>);

impl Refer for Keys {
    fn refer<'a>(&mut self, catalogue: usize, key: &[&'a str]) -> Cell<'a> {
        let key = joined(key).into_owned();
        self.0.insert((catalogue, key.clone()));
        Some(Cow::Owned(key))
    }
}
