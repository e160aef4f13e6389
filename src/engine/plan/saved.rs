//! A plan that is kept, to be done as it is or not at all.
//!
//! Of each row it has a mark: sixteen bytes of SHA-256 over what the change says, without what is known only when it is
//! written. Before a run a fresh plan is compared with it; in the run every transaction compares what it wrote, and is
//! rolled back if that is not what was planned.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, BufRead, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::{Error, ErrorKind};
use crate::mapping::{Mapping, OnAbsent, Source};
use crate::postgres::changes::{Action, Change, Labels, Values};

/// Of this format.
const VERSION: u32 = 1;

/// How many documents are named that are planned otherwise.
const NAMED_MAX: usize = 5;

/// What stands for a change.
type Mark = [u8; 16];

/// A plan to be kept: of every document what its changes are, as far as that can be told before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedPlan {
    head: Head,
    documents: BTreeMap<String, Vec<Mark>>,
}

/// The first line of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Head {
    rowdelta_plan: u32,
    mapping: String,
    /// Of the mapping and the types of its columns.
    digest: String,
}

/// What of the first line every format has.
#[derive(Deserialize)]
struct Version {
    rowdelta_plan: u32,
}

/// Each further line.
#[derive(Serialize, Deserialize)]
struct Line {
    document: String,
    changes: Vec<String>,
}

/// Makes a [`SavedPlan`] of the changes that are planned.
#[derive(Debug)]
pub struct Recorder {
    marking: Marking,
    plan: SavedPlan,
}

impl Recorder {
    /// Of a mapping. `digest` is that of [`Engine::digest`](crate::Engine::digest).
    pub fn new(mapping: &Mapping, digest: String) -> Self {
        let head = Head { rowdelta_plan: VERSION, mapping: mapping.name.clone(), digest };
        let plan = SavedPlan { head, documents: BTreeMap::new() };
        Recorder { marking: Marking::of(mapping), plan }
    }

    /// Takes a planned change in. Catalogue rows are not looked at: who refers to them is.
    pub fn add(&mut self, change: &Change) {
        if let Some(document) = &change.document {
            let mark = self.marking.mark(change, None);
            self.plan.documents.entry(document.clone()).or_default().push(mark);
        }
    }

    /// The plan, when all changes are in.
    pub fn finish(self) -> SavedPlan {
        self.plan
    }
}

impl SavedPlan {
    /// How many documents would change.
    pub fn documents(&self) -> usize {
        self.documents.len()
    }

    /// Writes it: JSON, a line of what it is for, then one for each document.
    ///
    /// # Errors
    /// The writer's.
    pub fn write(&self, mut to: impl Write) -> io::Result<()> {
        serde_json::to_writer(&mut to, &self.head)?;
        to.write_all(b"\n")?;
        for (document, marks) in &self.documents {
            let mut changes: Vec<String> = marks.iter().map(hex).collect();
            changes.sort_unstable();
            serde_json::to_writer(&mut to, &Line { document: document.clone(), changes })?;
            to.write_all(b"\n")?;
        }
        to.flush()
    }

    /// Reads what [`write`](Self::write) wrote.
    ///
    /// # Errors
    /// The reader's; or it is none.
    pub fn read(from: impl BufRead) -> Result<Self, Error> {
        let none = |why: String| Error::new(ErrorKind::Setup, why);
        let mut lines = from.lines();
        let mut next = || lines.next().transpose().map_err(|error| none(format!("cannot be read: {error}")));
        let head = next()?.unwrap_or_default();
        let other = |_| none("no plan; `rowdelta plan --out FILE` writes one".into());
        let Version { rowdelta_plan: version } = serde_json::from_str(&head).map_err(other)?;
        if version != VERSION {
            let message = format!("a plan of format {version}, and this program reads {VERSION}; plan anew");
            return Err(none(message));
        }
        let damaged = |at: usize| none(format!("the plan is damaged at line {at}; plan anew"));
        let head: Head = serde_json::from_str(&head).map_err(|_| damaged(1))?;
        let mut documents = BTreeMap::new();
        while let Some(line) = next()? {
            let at = documents.len() + 2;
            let Line { document, changes } = serde_json::from_str(&line).map_err(|_| damaged(at))?;
            let marks: Option<Vec<Mark>> = changes.iter().map(|text| unhex(text)).collect();
            documents.insert(document, marks.ok_or_else(|| damaged(at))?);
        }
        Ok(SavedPlan { head, documents })
    }

    /// Why this plan does not hold any more, going by a fresh one of the same feed.
    ///
    /// # Errors
    /// In words: the mapping or the tables are others, or documents would be changed otherwise.
    pub fn holds(&self, fresh: &SavedPlan) -> Result<(), Error> {
        if self.head.mapping != fresh.head.mapping {
            let (its, this) = (&self.head.mapping, &fresh.head.mapping);
            return Err(Error::new(ErrorKind::Setup, format!("a plan of mapping {its}, not of {this}")));
        }
        let stale =
            |why: String| Err(Error::new(ErrorKind::Setup, format!("the plan is stale: {why}; plan anew")));
        if self.head.digest != fresh.head.digest {
            return stale("the mapping, or the type of a column, was changed since".into());
        }
        let both = self.documents.keys().chain(fresh.documents.keys());
        let mut others: Vec<&String> = both.filter(|key| self.sorted(key) != fresh.sorted(key)).collect();
        others.sort_unstable();
        others.dedup();
        if others.is_empty() {
            return Ok(());
        }
        let count = |plan: &SavedPlan, key: &String| plan.documents.get(key).map_or(0, Vec::len);
        let word =
            |key: &&String| format!("{key} (rows planned: {}, now: {})", count(self, key), count(fresh, key));
        let mut words: Vec<String> = others.iter().take(NAMED_MAX).map(word).collect();
        if others.len() > NAMED_MAX {
            words.push(format!("and {} more", others.len() - NAMED_MAX));
        }
        stale(format!("these documents would change otherwise now: {}", words.join(", ")))
    }

    fn sorted(&self, document: &String) -> Option<Vec<Mark>> {
        let mut marks = self.documents.get(document)?.clone();
        marks.sort_unstable();
        Some(marks)
    }
}

fn hex(mark: &Mark) -> String {
    mark.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Mark> {
    u128::from_str_radix(text, 16).ok().filter(|_| text.len() == 32).map(u128::to_be_bytes)
}

/// What of a mapping's changes is known only when they are written.
#[derive(Debug)]
struct Marking {
    /// By relation and column, the catalogue that the column refers to.
    lookups: HashMap<(String, String), String>,
    /// By relation, the columns that refer to the parent.
    parents: HashMap<String, Vec<String>>,
    /// The root's relation and the column that says since when a document is missing.
    absent: Option<(String, String)>,
}

impl Marking {
    fn of(mapping: &Mapping) -> Self {
        let mut lookups = HashMap::new();
        for relation in &mapping.relations {
            for column in &relation.columns {
                if let Source::Lookup { lookup, .. } = &column.source {
                    let place = (relation.name.clone(), column.name.clone());
                    lookups.insert(place, mapping.lookups[*lookup].name.clone());
                }
            }
        }
        let parents = mapping.relations.iter().map(|r| (r.name.clone(), r.parent.clone())).collect();
        let absent = match &mapping.sync.on_absent {
            OnAbsent::Mark(column) => Some((mapping.name.clone(), column.clone())),
            _ => None,
        };
        Marking { lookups, parents, absent }
    }

    /// `labels`: what new catalogue rows were called before they had ids.
    fn mark(&self, change: &Change, labels: Option<&Labels>) -> Mark {
        let plain =
            |values: &Option<Values>| values.as_ref().map(|values| self.plain(change, values, labels));
        let is_stored = matches!(change.action, Action::Updated | Action::Removed);
        let plain = Change {
            key: plain(&change.key),
            before: plain(&change.before),
            after: plain(&change.after),
            id: change.id.clone().filter(|_| change.action != Action::Added),
            parent: change.parent.clone().filter(|_| is_stored),
            ..change.clone()
        };
        let json = serde_json::to_vec(&plain).unwrap_or_default();
        let hash: [u8; 32] = Sha256::digest(json).into();
        *hash.first_chunk().expect("a hash has 32 bytes")
    }

    fn plain(&self, change: &Change, values: &Values, labels: Option<&Labels>) -> Values {
        let relation = change.relation.to_string();
        let is_parent = |name: &str| {
            let parents = self.parents.get(&relation);
            change.action == Action::Moved && parents.is_some_and(|names| names.iter().any(|one| one == name))
        };
        let one = |(name, value): &(Arc<str>, Option<String>)| {
            let place = (relation.clone(), name.to_string());
            let value = value.clone().map(|value| match (self.lookups.get(&place), labels) {
                _ if self.absent.as_ref() == Some(&place) => "(now)".to_owned(),
                (Some(lookup), Some(labels)) => labels.get(lookup, &value).unwrap_or(value),
                _ => value,
            });
            (name.clone(), value)
        };
        Values(values.0.iter().filter(|(name, _)| !is_parent(name)).map(one).collect())
    }
}

/// The changes that a run may make.
pub(crate) struct Expected {
    marking: Marking,
    /// What new catalogue rows were called before they had ids.
    pub labels: Arc<Labels>,
    left: Mutex<HashMap<(String, Mark), u32>>,
}

/// Changes taken from those that are expected.
pub(crate) type Taken = Vec<(String, Mark)>;

impl Expected {
    pub fn of(mapping: &Mapping, plan: &SavedPlan) -> Self {
        let mut left: HashMap<(String, Mark), u32> = HashMap::new();
        for (document, marks) in &plan.documents {
            marks.iter().for_each(|mark| *left.entry((document.clone(), *mark)).or_default() += 1);
        }
        Expected { marking: Marking::of(mapping), labels: Arc::default(), left: Mutex::new(left) }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(String, Mark), u32>> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes changes from those that are expected.
    ///
    /// # Errors
    /// One of them is not.
    pub fn take(&self, changes: &[Change]) -> Result<Taken, Error> {
        let mut taken = Taken::new();
        for change in changes {
            let Some(document) = &change.document else { continue };
            let one = (document.clone(), self.marking.mark(change, Some(&self.labels)));
            let is_expected = match self.lock().get_mut(&one) {
                Some(left) if *left > 0 => {
                    *left -= 1;
                    true
                }
                _ => false,
            };
            if !is_expected {
                self.give_back(taken);
                let message = "a row would be written otherwise than planned: what it depends on was changed meanwhile; \
                               plan anew";
                return Err(Error::new(ErrorKind::Rejected, message).in_relation(&change.relation));
            }
            taken.push(one);
        }
        Ok(taken)
    }

    /// Gives changes back that were rolled back.
    pub fn give_back(&self, taken: Taken) {
        let mut left = self.lock();
        taken.into_iter().for_each(|one| *left.entry(one).or_default() += 1);
    }

    /// The documents of which changes were planned that were not made.
    pub fn missed(&self) -> Vec<String> {
        let left = self.lock();
        let mut missed: Vec<String> =
            left.iter().filter(|(_, left)| **left > 0).map(|((document, _), _)| document.clone()).collect();
        missed.sort_unstable();
        missed.dedup();
        missed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_comes_back_as_it_was_written_and_says_what_is_other() {
        let head = Head { rowdelta_plan: VERSION, mapping: "shop".into(), digest: "ab".into() };
        let one = SavedPlan {
            head,
            documents: BTreeMap::from([("A".into(), vec![[1; 16], [2; 16]]), ("B".into(), vec![[3; 16]])]),
        };
        let mut file = Vec::new();
        one.write(&mut file).unwrap();
        let read = SavedPlan::read(&file[..]).unwrap();
        assert_eq!(read, one);
        assert!(read.holds(&one).is_ok());
        let mut other = one.clone();
        other.documents.get_mut("A").unwrap().pop();
        other.documents.insert("C".into(), vec![[4; 16]]);
        let why = one.holds(&other).unwrap_err().to_string();
        assert_eq!(
            why,
            "the plan is stale: these documents would change otherwise now: A (rows planned: 2, now: 1), C (rows planned: 0, now: 1); plan anew"
        );
        let refused = |text: &str| SavedPlan::read(text.as_bytes()).unwrap_err().to_string();
        assert_eq!(refused("version = 1\n"), "no plan; `rowdelta plan --out FILE` writes one");
        assert_eq!(refused(""), refused("{}"));
        assert!(
            refused("{\"rowdelta_plan\":2}").starts_with("a plan of format 2, and this program reads 1;")
        );
        let torn = String::from_utf8(file[..file.len() - 4].to_vec()).unwrap();
        assert_eq!(refused(&torn), "the plan is damaged at line 3; plan anew");
    }
}
