//! One parsed JSON value, borrowed from the bytes of its document.
//!
//! Two things matter to everything after it and decide its shape: a number is
//! kept as the text it was written with, so that no digit is lost on its way to
//! `numeric` or `bigint`; and an object keeps its members in the order of the
//! document, a repeated name included, of which the last one counts (as it does
//! for PostgreSQL's `jsonb`).
//!
//! The parsing itself is `sonic-rs`'s. It recurses, so documents nested deeper
//! than [`DEPTH_MAX`] are refused before they reach it.

use std::borrow::Cow;

use sonic_rs::{JsonType, JsonValueTrait, LazyValue};

/// How deep lists and objects of a document may be nested.
pub const DEPTH_MAX: usize = 128;

/// A JSON value. Numbers are the text of the document; strings are unescaped.
#[derive(Clone, Debug, PartialEq)]
pub enum Json<'a> {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A number, spelled as in the document: a valid JSON number.
    Number(&'a str),
    /// A string, without its escapes. It may hold U+0000, which PostgreSQL cannot store.
    String(Cow<'a, str>),
    /// A list.
    Array(Vec<Json<'a>>),
    /// An object: its members in the order of the document, repeated names included.
    Object(Vec<(Cow<'a, str>, Json<'a>)>),
}

/// Why bytes are not a JSON value: what was found, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonError {
    /// What is wrong, without the position.
    pub message: String,
    /// Counted in bytes from 1; 0 where the parser cannot tell.
    pub column: usize,
}

impl std::fmt::Display for JsonError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.column {
            0 => write!(f, "not JSON: {}", self.message),
            column => write!(f, "not JSON: {} at column {column}", self.message),
        }
    }
}

impl std::error::Error for JsonError {}

impl<'a> Json<'a> {
    /// Parses one value that fills `bytes`, white space around it aside.
    ///
    /// # Errors
    /// Invalid JSON or UTF-8, a lone surrogate, or nesting beyond [`DEPTH_MAX`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, JsonError> {
        let text = std::str::from_utf8(bytes).map_err(|error| JsonError {
            message: "invalid UTF-8".into(),
            column: error.valid_up_to() + 1,
        })?;
        check_depth(bytes)?;
        let value: LazyValue<'a> = sonic_rs::from_str(text).map_err(invalid)?;
        expand(value)
    }

    /// The member `name` of an object, the last one if it is repeated; `None` for other values.
    pub fn member(&self, name: &str) -> Option<&Json<'a>> {
        match self {
            Json::Object(members) => {
                members.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value)
            }
            _ => None,
        }
    }

    /// The kind of value in words, for messages: `a string`, `null`, `a list`.
    pub fn describe(&self) -> &'static str {
        match self {
            Json::Null => "null",
            Json::Bool(_) => "a boolean",
            Json::Number(_) => "a number",
            Json::String(_) => "a string",
            Json::Array(_) => "a list",
            Json::Object(_) => "an object",
        }
    }
}

fn invalid(error: sonic_rs::Error) -> JsonError {
    let text = error.to_string();
    // The parser's text goes on with an excerpt of the document; values stay out of messages.
    let message = text.lines().next().unwrap_or_default();
    let message = message.rsplit_once(" at line ").map_or(message, |(what, _)| what);
    JsonError { message: lower_first(message), column: error.column() }
}

fn lower_first(text: &str) -> String {
    let rest = text.char_indices().nth(1).map_or("", |(at, _)| &text[at..]);
    // `EOF while parsing` stays as it is.
    if rest.starts_with(char::is_uppercase) {
        return text.to_owned();
    }
    text.chars().take(1).flat_map(char::to_lowercase).chain(rest.chars()).collect()
}

fn expand(value: LazyValue<'_>) -> Result<Json<'_>, JsonError> {
    Ok(match value.get_type() {
        JsonType::Null => Json::Null,
        JsonType::Boolean => Json::Bool(value.as_bool().unwrap_or_default()),
        JsonType::Number => Json::Number(borrowed(&value)?),
        JsonType::String => Json::String(string(&value)?),
        JsonType::Array => {
            let items = value.into_array_iter().into_iter().flatten();
            Json::Array(items.map(|item| expand(item.map_err(invalid)?)).collect::<Result<_, _>>()?)
        }
        JsonType::Object => {
            let members = value.into_object_iter().into_iter().flatten();
            let mut object = Vec::new();
            for member in members {
                let (name, value) = member.map_err(invalid)?;
                object.push((name, expand(value)?));
            }
            Json::Object(object)
        }
    })
}

/// The text of a value as it stands in the document.
fn borrowed<'a>(value: &LazyValue<'a>) -> Result<&'a str, JsonError> {
    match value.as_raw_cow() {
        Cow::Borrowed(text) => Ok(text.trim()),
        Cow::Owned(_) => Err(JsonError { message: "not borrowed from the document".into(), column: 0 }),
    }
}

fn string<'a>(value: &LazyValue<'a>) -> Result<Cow<'a, str>, JsonError> {
    if let Cow::Borrowed(raw) = value.as_raw_cow() {
        let raw = raw.trim();
        let inner = &raw[1..raw.len() - 1];
        if !inner.as_bytes().contains(&b'\\') {
            return Ok(Cow::Borrowed(inner));
        }
    }
    let lone = || JsonError { message: "a lone surrogate in a string".into(), column: 0 };
    value.as_str().map(|text| Cow::Owned(text.to_owned())).ok_or_else(lone)
}

/// Refuses what would exhaust the parser's stack. Brackets inside strings do not count.
fn check_depth(bytes: &[u8]) -> Result<(), JsonError> {
    let (mut depth, mut at) = (0usize, 0usize);
    while at < bytes.len() {
        match bytes[at] {
            b'[' | b'{' => {
                depth += 1;
                if depth > DEPTH_MAX {
                    let message = format!("nested deeper than {DEPTH_MAX}");
                    return Err(JsonError { message, column: at + 1 });
                }
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            b'"' => at = end_of_string(bytes, at),
            _ => {}
        }
        at += 1;
    }
    Ok(())
}

/// The place of the quote that closes the string opened at `open`, or the end of the bytes.
fn end_of_string(bytes: &[u8], open: usize) -> usize {
    let mut at = open + 1;
    while let Some(found) = memchr::memchr2(b'"', b'\\', &bytes[at.min(bytes.len())..]) {
        at += found;
        if bytes[at] == b'"' {
            return at;
        }
        at += 2;
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_their_text_and_strings_lose_their_escapes() {
        let json = Json::parse(br#" {"n": 1.50e+2, "s": "a\u00e1\n", "l": [null, true]} "#).unwrap();
        assert_eq!(json.member("n"), Some(&Json::Number("1.50e+2")));
        assert_eq!(json.member("s"), Some(&Json::String("aá\n".into())));
        assert_eq!(json.member("l"), Some(&Json::Array(vec![Json::Null, Json::Bool(true)])));
    }

    #[test]
    fn the_last_of_a_repeated_name_counts() {
        let json = Json::parse(br#"{"a": 1, "\u0061": 2}"#).unwrap();
        assert_eq!(json.member("a"), Some(&Json::Number("2")));
    }

    #[test]
    fn p09_what_is_not_json_is_refused_with_its_place() {
        let error = Json::parse(br#"{"a": 1,}"#).unwrap_err();
        assert_eq!(error.column, 9, "{error}");
        for bad in [&b"{\"a\":\"\xff\"}"[..], br#"{"a":"\ud800"}"#, br#"{"a":01}"#, b"", br#"{"a":1} x"#] {
            assert!(Json::parse(bad).is_err(), "{:?}", String::from_utf8_lossy(bad));
        }
    }

    #[test]
    fn nesting_is_bounded_and_brackets_in_strings_do_not_count() {
        let deep = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
        assert!(Json::parse(deep(DEPTH_MAX).as_bytes()).is_ok());
        assert!(Json::parse(deep(DEPTH_MAX + 1).as_bytes()).is_err());
        assert!(Json::parse(deep(1_000_000).as_bytes()).is_err());
        assert!(Json::parse(format!("{:?}", "[".repeat(500)).as_bytes()).is_ok());
        assert!(Json::parse(br#"["\\", "\"["]"#).is_ok());
    }

    #[test]
    fn a_scalar_alone_is_a_value() {
        assert_eq!(Json::parse(br#" "a\nb" "#), Ok(Json::String("a\nb".into())));
        assert_eq!(Json::parse(b" 12 "), Ok(Json::Number("12")));
    }
}
