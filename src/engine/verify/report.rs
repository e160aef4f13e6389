//! What a verification found, for programs and for people.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use crate::engine::report::{Failure, Report};
use crate::mapping::{Mapping, TableName};

/// What a verification found. Its JSON form is a contract: fields may be added, none changes its meaning.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Verification {
    /// Of this format.
    pub version: u32,
    /// Name of the mapping.
    pub mapping: String,
    /// With what the stored rows were compared.
    pub against: Against,
    /// Wall time in milliseconds.
    pub elapsed_ms: u64,
    /// What became of the documents.
    pub documents: VerifiedDocuments,
    /// What could not be told.
    pub unknown: Unknown,
    /// Root rows that belong to no recorded document: other programs', or of documents that were never synced. Only
    /// where no feed was given; not counted as a difference.
    pub unrecorded_roots: u64,
    /// Per relation what differs: the root, its relations, then the catalogues.
    pub relations: Vec<RelationDifferences>,
    /// What differs, at most [`LISTED_MAX`] of it.
    pub differences: Vec<Difference>,
    /// How many differences are counted but not listed.
    pub unlisted: u64,
    /// Documents that could not be compared, or repaired.
    pub failures: Vec<Failure>,
    /// What was done about the differences; `None` where that was not asked for.
    pub repair: Option<Repair>,
}

/// How many differences are listed at most; the rest is counted.
pub const LISTED_MAX: usize = 10_000;

/// With what stored rows are compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Against {
    /// The documents of a feed.
    #[default]
    Feed,
    /// The fingerprints that were recorded as the rows were written.
    Record,
}

/// What became of the documents. Each one is in exactly one of the other counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct VerifiedDocuments {
    /// Documents of the feed, or recorded ones.
    pub read: u64,
    /// Equal to one that stood before it in the feed.
    pub repeated: u64,
    /// Nothing of them differs.
    pub equal: u64,
    /// Something of them differs.
    pub differing: u64,
    /// Nothing can be told of them.
    pub unknown: u64,
    /// They could not be compared, or not be repaired.
    pub failed: u64,
}

/// What could not be told; none of it counts as a difference.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Unknown {
    /// Recorded documents that the next run does again anyway.
    pub unsettled: u64,
    /// Recorded documents that were written under another mapping, or other types of columns.
    pub other_mapping: u64,
    /// Lists of documents that say nothing about some of their rows: pairs of document and relation.
    pub lists: u64,
    /// Relations of documents some of whose columns the document says nothing about: pairs likewise. The other
    /// columns were compared.
    pub columns: u64,
    /// References of the feed left out because the catalogue lacks the row and the mapping says to skip it.
    pub skipped_lookups: u64,
}

/// What differs in one relation. Against a feed rows are counted; against the record, documents.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RelationDifferences {
    /// The relation's name; the mapping's for the root, the lookup's for a catalogue.
    pub name: String,
    /// The table.
    pub table: String,
    /// Rows with other values in mapped columns.
    pub changed: u64,
    /// Rows that hang under another parent.
    pub moved: u64,
    /// Rows that are asked for and not stored. Against the record: documents whose root row is gone.
    pub missing: u64,
    /// Rows that are stored and not asked for.
    pub surplus: u64,
    /// Documents whose rows are not those that were recorded.
    pub altered: u64,
}

impl RelationDifferences {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.changed + self.moved + self.missing + self.surplus + self.altered
    }
}

/// One difference: a row, or the rows of one relation of one document.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The document's key.
    pub document: String,
    /// The file of the feed.
    pub file: Option<String>,
    /// Line in the file at which the document begins, or place in the feed, from 1; 0 without a feed.
    pub line: u64,
    /// The relation's name, or the lookup's.
    pub relation: String,
    /// What is the matter.
    pub kind: Kind,
    /// The row's key, as text by column; of a stored row without a key, its primary key. Empty: it has none.
    pub key: BTreeMap<String, Option<String>>,
    /// The mapped columns that differ; of missing and surplus rows none, unless values were asked for.
    pub columns: Vec<ColumnDifference>,
    /// Whether the row hangs below one that is missing or surplus itself.
    pub below: bool,
}

/// A column that differs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ColumnDifference {
    /// Its name.
    pub name: String,
    /// Its stored value as text, if values were asked for and a row is stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stored: Option<Option<String>>,
    /// The value that it should have, if values were asked for and there should be a row.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wanted: Option<Option<String>>,
}

/// What is the matter with a row, or with rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Mapped columns have other values.
    #[default]
    Changed,
    /// It hangs under another parent; its columns may differ as well.
    Moved,
    /// It is asked for and not stored; of a root against the record: it is gone.
    Missing,
    /// It is stored and not asked for.
    Surplus,
    /// The rows are not those that were recorded.
    Altered,
}

/// What was done about differences.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Repair {
    /// The run that wrote what differed; `None` without a feed.
    pub run: Option<Report>,
    /// Documents marked to be done again by the next run, without a feed.
    pub unsettled: u64,
}

impl Verification {
    pub(crate) fn new(mapping: &Mapping, against: Against) -> Self {
        let relations = mapping.relations.iter().map(|relation| (&relation.name, &relation.table));
        let lookups = mapping.lookups.iter().map(|lookup| (&lookup.name, &lookup.table));
        let none = |(name, table): (&String, &TableName)| RelationDifferences {
            name: name.clone(),
            table: table.to_string(),
            ..RelationDifferences::default()
        };
        Verification {
            version: 1,
            mapping: mapping.name.clone(),
            against,
            relations: relations.chain(lookups).map(none).collect(),
            ..Verification::default()
        }
    }

    /// Counts a difference, and lists it if there is room and words for it.
    pub(crate) fn add(&mut self, relation: usize, kind: Kind, difference: Option<Difference>) {
        let counts = &mut self.relations[relation];
        let count = match kind {
            Kind::Changed => &mut counts.changed,
            Kind::Moved => &mut counts.moved,
            Kind::Missing => &mut counts.missing,
            Kind::Surplus => &mut counts.surplus,
            Kind::Altered => &mut counts.altered,
        };
        *count += 1;
        match difference.filter(|_| self.differences.len() < LISTED_MAX) {
            Some(difference) => self.differences.push(difference),
            None => self.unlisted += 1,
        }
    }

    /// How many differences were found, listed or not.
    pub fn total(&self) -> u64 {
        self.relations.iter().map(RelationDifferences::total).sum()
    }

    /// Whether differences are left as they were found: none was repaired. Without a feed the next run does that.
    pub fn differs(&self) -> bool {
        self.total() > 0 && self.repair.as_ref().is_none_or(|repair| repair.run.is_none())
    }
}

impl fmt::Display for Difference {
    /// `order-7 (feed.ndjson:3): lines no=2: qty, label`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.document)?;
        match &self.file {
            Some(file) => write!(f, " ({file}:{})", self.line)?,
            None if self.line > 0 => write!(f, " (document {})", self.line)?,
            None => {}
        }
        write!(f, ": {}", self.relation)?;
        for (at, (column, value)) in self.key.iter().enumerate() {
            let value = value.as_deref().map_or("NULL".to_owned(), short);
            write!(f, "{}{column}={value}", if at == 0 { " " } else { "," })?;
        }
        let what = match self.kind {
            Kind::Changed => ":",
            Kind::Moved => ": hangs under another parent",
            Kind::Missing => ": missing",
            Kind::Surplus => ": surplus",
            Kind::Altered => ": rows differ from what was recorded",
        };
        f.write_str(what)?;
        for (at, column) in self.columns.iter().enumerate() {
            let separator = match (at, self.kind) {
                (0, Kind::Changed) => " ",
                (0, _) => "; ",
                _ => ", ",
            };
            write!(f, "{separator}{column}")?;
        }
        Ok(())
    }
}

impl fmt::Display for ColumnDifference {
    /// `qty`, or `qty 1 → 2`: stored and wanted.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = |value: &Option<String>| value.as_deref().map_or("NULL".to_owned(), short);
        f.write_str(&self.name)?;
        match (&self.stored, &self.wanted) {
            (Some(stored), Some(wanted)) => write!(f, " {} → {}", word(stored), word(wanted)),
            (Some(value), None) | (None, Some(value)) => write!(f, " {}", word(value)),
            (None, None) => Ok(()),
        }
    }
}

/// Longer values are cut where people read them.
const SHOWN_CHARS_MAX: usize = 60;

fn short(value: &str) -> String {
    let shown: String = value.chars().take(SHOWN_CHARS_MAX).flat_map(char::escape_debug).collect();
    if value.chars().nth(SHOWN_CHARS_MAX).is_some() { shown + "…" } else { shown }
}
