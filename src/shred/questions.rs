//! What shredding must ask the database, and what it was told.

use std::collections::{HashMap, HashSet};

use crate::mapping::LookupIx;
use crate::row::Tuple;

/// What the database said to earlier [`Questions`].
#[derive(Clone, Debug, Default)]
pub struct Answers {
    /// Per conversion: the value's stored binary form, or the server's words for why there is none.
    pub conversions: HashMap<Conversion, Result<Vec<u8>, String>>,
    /// Per catalogue: the id of the row with a key (in comparison form); `None` where there is no such row.
    pub lookups: Vec<HashMap<Tuple, Option<Vec<u8>>>>,
    /// Whether references to rows that would have to be inserted are left out, since nothing may be written.
    pub leaves_missing: bool,
}

/// What only the database can say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Questions {
    /// Texts to convert.
    pub conversions: HashSet<Conversion>,
    /// Catalogue rows to find, or to insert. Per catalogue, by key in comparison form.
    pub lookups: HashMap<(LookupIx, Tuple), CatalogueRow>,
}

impl Questions {
    /// Whether nothing is asked.
    pub fn is_empty(&self) -> bool {
        self.conversions.is_empty() && self.lookups.is_empty()
    }

    /// Adds what another document asks.
    pub fn extend(&mut self, other: Questions) {
        self.conversions.extend(other.conversions);
        self.lookups.extend(other.lookups);
    }
}

/// A text that the server must convert to a type.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Conversion {
    /// SQL that makes the stored binary form, a `bytea`, of the text `v` (read in the time zone `$2`).
    pub expression: String,
    /// The time zone, for a `timestamptz` written without one.
    pub zone: Option<String>,
    /// The text.
    pub text: String,
}

/// A catalogue row as a document describes it, in stored form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CatalogueRow {
    /// The key's columns.
    pub key: Tuple,
    /// The further columns to fill when it is inserted.
    pub columns: Tuple,
}
