//! Scalars that stand in the mapping itself: constants, and what the items of a list are told apart by.

use serde::Serialize;

use super::Path;
use crate::json::Json;

/// A scalar as a mapping writes it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Scalar {
    /// A string.
    Text(String),
    /// A number, as JSON spells it.
    Number(String),
    /// `true` or `false`
    Bool(bool),
}

impl Scalar {
    /// The same value as a document would hold it.
    pub fn json(&self) -> Json<'_> {
        match self {
            Scalar::Text(text) => Json::String(text.as_str().into()),
            Scalar::Number(text) => Json::Number(text),
            Scalar::Bool(value) => Json::Bool(*value),
        }
    }
}

impl std::fmt::Display for Scalar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Scalar::Text(text) => write!(f, "{text:?}"),
            Scalar::Number(text) => f.write_str(text),
            Scalar::Bool(value) => value.fmt(f),
        }
    }
}

/// What holds for the items that belong to a relation: one of these values stands at the path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Condition {
    /// The place, seen from the item.
    pub path: Path,
    /// At least one.
    pub values: Vec<Scalar>,
}

/// What an item is to its document that none of the relations takes which read its list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Otherwise {
    /// The document fails: of a kind that the mapping does not know nothing is lost unseen.
    #[default]
    Error,
    /// Nothing.
    Ignore,
}

/// How strings become those that are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TextForm {
    /// What U+0000 becomes.
    pub nul: Nul,
    /// Whether they are brought into Unicode's normal form C.
    pub nfc: bool,
}

impl TextForm {
    /// Whether they are stored as they are given.
    pub fn is_as_given(&self) -> bool {
        *self == TextForm::default()
    }
}

/// What U+0000 in a string becomes, which PostgreSQL cannot store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Nul {
    /// The document fails.
    #[default]
    Reject,
    /// It is left out.
    Strip,
    /// It becomes U+FFFD.
    Replace,
}
