//! One parsed JSON value, borrowed from the bytes of its document.
//!
//! Two things matter to everything after it and decide its shape: a number is
//! kept as the text it was written with, so that no digit is lost on its way to
//! `numeric` or `bigint`; and an object keeps its members in the order of the
//! document, a repeated name included, of which the last one counts (as it does
//! for PostgreSQL's `jsonb`).
//!
//! Tokens are `hifijson`'s: one pass over the bytes, in which text is borrowed and
//! a number stays what it was written as. Other parsers are faster at skipping
//! what is not wanted, or turn numbers into doubles; for a tree of everything
//! this one takes half the time of a lazy parser that has to look again at each
//! level.

use std::borrow::Cow;

use hifijson::num::LexWrite as _;
use hifijson::str::LexAlloc as _;
use hifijson::token::Lex as _;
use hifijson::{Error, Expect, SliceLexer};

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
            column => write!(f, "not JSON: {} at byte {column} of the document", self.message),
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
        let mut lexer = SliceLexer::new(bytes);
        let parsed = lexer.exactly_one(SliceLexer::ws_peek, |first, lexer| value(first, lexer, DEPTH_MAX));
        parsed.map_err(|error| invalid(bytes, bytes.len() - lexer.as_slice().len(), &error))
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

/// What is wrong with a text of which so many bytes were taken.
fn invalid(bytes: &[u8], taken: usize, error: &Error) -> JsonError {
    if let Err(error) = std::str::from_utf8(bytes) {
        return JsonError { message: "invalid UTF-8".into(), column: error.valid_up_to() + 1 };
    }
    let message = match error {
        Error::Depth => format!("nested deeper than {DEPTH_MAX}"),
        Error::Str(error) => in_string(error).into(),
        Error::Token(_) | Error::Num(_) if taken == bytes.len() => "it ends too early".into(),
        Error::Num(_) => "expected a digit".into(),
        Error::Token(expected) => format!("expected {}", words(expected)),
    };
    // Of a string what is wrong is taken already, of anything else it comes next.
    let column = if matches!(error, Error::Str(_)) { taken } else { taken + 1 };
    JsonError { message, column }
}

/// The characters themselves stay out of messages: some would reach terminals.
fn in_string(error: &hifijson::str::Error) -> &'static str {
    use hifijson::str::Error::{Control, Eof, Escape, Utf8};
    match error {
        error if error.is_unicode_error() => "a lone surrogate in a string",
        Control => "a control character in a string",
        Eof | Escape(hifijson::escape::Error::Eof) => "a string does not end",
        Escape(_) | Utf8(_) => "an unknown escape in a string",
    }
}

fn words(expected: &Expect) -> &'static str {
    match expected {
        Expect::Value => "a value",
        Expect::ValueOrEnd => "a value or the end of the list",
        Expect::CommaOrEnd => "a comma or the end of the list or object",
        Expect::String => "a name",
        Expect::Colon => "a colon",
        Expect::Eof => "nothing more",
    }
}

/// The value that begins with the byte `first`, which comes next. Lists and objects may be nested this deep in it.
fn value<'a>(first: u8, lexer: &mut SliceLexer<'a>, depth: usize) -> Result<Json<'a>, Error> {
    Ok(match first {
        b'"' => Json::String(lexer.discarded().str_string()?),
        b'-' | b'0'..=b'9' => Json::Number(lexer.num_string().validated()?.0),
        b'{' => Json::Object(members(lexer, below(depth)?)?),
        b'[' => Json::Array(items(lexer, below(depth)?)?),
        _ => word(lexer)?,
    })
}

fn below(depth: usize) -> Result<usize, Error> {
    depth.checked_sub(1).ok_or(Error::Depth)
}

fn items<'a>(lexer: &mut SliceLexer<'a>, depth: usize) -> Result<Vec<Json<'a>>, Error> {
    let mut items = Vec::new();
    lexer.discarded().seq(b']', SliceLexer::ws_peek, |first, lexer| {
        items.push(value(first, lexer, depth)?);
        Ok::<_, Error>(())
    })?;
    Ok(items)
}

fn members<'a>(lexer: &mut SliceLexer<'a>, depth: usize) -> Result<Vec<(Cow<'a, str>, Json<'a>)>, Error> {
    let mut members = Vec::new();
    lexer.discarded().seq(b'}', SliceLexer::ws_peek, |first, lexer| {
        if first != b'"' {
            return Err(Error::Token(Expect::String));
        }
        let name = lexer.discarded().str_string()?;
        lexer.expect(SliceLexer::ws_peek, b':').ok_or(Expect::Colon)?;
        let first = lexer.ws_peek().ok_or(Expect::Value)?;
        members.push((name, value(first, lexer, depth)?));
        Ok(())
    })?;
    Ok(members)
}

/// `null`, `true` or `false`.
fn word<'a>(lexer: &mut SliceLexer<'a>) -> Result<Json<'a>, Error> {
    let text = lexer.as_slice();
    match lexer.null_or_bool() {
        Some(Some(value)) => Ok(Json::Bool(value)),
        Some(None) => Ok(Json::Null),
        None => {
            // What is none of them is named by its beginning.
            *lexer = SliceLexer::new(text);
            Err(Error::Token(Expect::Value))
        }
    }
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
        let faults: [(&[u8], &str); 18] = [
            (b"{\"a\":\"\xff\"}", "invalid UTF-8 at byte 7"),
            (br#"{"a":"\ud800"}"#, "a lone surrogate in a string at byte 12"),
            (br#"{"a":"\ud800\ud800"}"#, "a lone surrogate in a string at byte 18"),
            (br#"{"a":"\udc00"}"#, "a lone surrogate in a string at byte 12"),
            (br#"{"a":01}"#, "expected a comma or the end of the list or object at byte 7"),
            (br#"{"a":1.}"#, "expected a digit at byte 8"),
            (br#"[-]"#, "expected a digit at byte 3"),
            (br#"[1e+]"#, "expected a digit at byte 5"),
            (br#"[.5]"#, "expected a value at byte 2"),
            (br#"[nul]"#, "expected a value at byte 2"),
            (b"", "it ends too early at byte 1"),
            (br#"{"a":1} x"#, "expected nothing more at byte 9"),
            (br#"{"a" 1}"#, "expected a colon at byte 6"),
            (br#"{a:1}"#, "expected a name at byte 2"),
            (br#"{"a":[1"#, "it ends too early at byte 8"),
            (br#"{"a":"b"#, "a string does not end at byte 7"),
            (b"[\"a\x1bb\"]", "a control character in a string at byte 4"),
            (br#"["\x"]"#, "an unknown escape in a string at byte 4"),
        ];
        for (bad, message) in faults {
            let error = Json::parse(bad).unwrap_err();
            assert_eq!(
                error.to_string(),
                format!("not JSON: {message} of the document"),
                "{}",
                String::from_utf8_lossy(bad)
            );
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
