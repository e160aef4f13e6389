//! One source record, as it was read: bytes, and where they stood.

use std::hash::{DefaultHasher, Hasher as _};
use std::sync::Arc;

use bytes::Bytes;

/// One document of a feed, not parsed yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// The JSON text. It may share its memory with what stood around it in the feed.
    pub bytes: Bytes,
    /// Where it stood.
    pub origin: Origin,
}

/// Documents without a place; the engine counts them.
impl From<Bytes> for Document {
    fn from(bytes: Bytes) -> Self {
        Document { bytes, origin: Origin::default() }
    }
}

impl From<Vec<u8>> for Document {
    fn from(json: Vec<u8>) -> Self {
        Bytes::from(json).into()
    }
}

impl From<String> for Document {
    fn from(json: String) -> Self {
        json.into_bytes().into()
    }
}

impl From<&[u8]> for Document {
    fn from(json: &[u8]) -> Self {
        Bytes::copy_from_slice(json).into()
    }
}

impl From<&str> for Document {
    fn from(json: &str) -> Self {
        json.as_bytes().into()
    }
}

impl From<&serde_json::Value> for Document {
    fn from(value: &serde_json::Value) -> Self {
        value.to_string().into()
    }
}

impl From<serde_json::Value> for Document {
    fn from(value: serde_json::Value) -> Self {
        (&value).into()
    }
}

impl Document {
    /// Writes a value as JSON.
    ///
    /// # Errors
    /// It is none: a map whose keys are no strings, say.
    pub fn serialize(value: &impl serde::Serialize) -> Result<Self, serde_json::Error> {
        serde_json::to_vec(value).map(Into::into)
    }
}

/// Where a document stood in its feed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// The file, or `None` where the caller handed the document over.
    pub file: Option<Arc<str>>,
    /// Line in the file at which it begins, or place in the feed; counted from 1. 0: none, as of a file as a whole, or
    /// of a document that is missing from the feed.
    pub line: u64,
    /// Its number in the file, from 1, where several documents may begin on one line: in an array, say.
    pub item: Option<u64>,
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.file, self.item) {
            (Some(file), _) if self.line == 0 => f.write_str(file)?,
            (Some(file), _) => write!(f, "{file}:{}", self.line)?,
            // Handed over in SQL: places in the array are all there is.
            (None, Some(item)) if self.line == 0 => return write!(f, "item {item}"),
            (None, None) if self.line == 0 => return f.write_str("not in the feed"),
            (None, _) => write!(f, "document {}", self.line)?,
        }
        self.item.map_or(Ok(()), |item| write!(f, ", item {item}"))
    }
}

/// The root's natural key, in comparison form: int32 length and bytes for each key column; −1 for NULL.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DocumentKey(pub Vec<u8>);

impl DocumentKey {
    /// Eight bytes that stand for the key in this process, where remembering all of it would cost too much.
    /// Two of a million documents share them with a probability below 10⁻⁷.
    pub fn short(&self) -> u64 {
        short(&self.0)
    }
}

/// Eight bytes that stand for a key in comparison form: see [`DocumentKey::short`].
pub(crate) fn short(key: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(key);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_says_what_is_known_of_it() {
        let file: Option<Arc<str>> = Some("f".into());
        for (file, line, item, text) in [
            (file.clone(), 3, None, "f:3"),
            (file.clone(), 3, Some(7), "f:3, item 7"),
            (file, 0, None, "f"),
            (None, 3, None, "document 3"),
            (None, 0, Some(7), "item 7"),
            (None, 0, None, "not in the feed"),
        ] {
            assert_eq!(Origin { file, line, item }.to_string(), text);
        }
    }
}
