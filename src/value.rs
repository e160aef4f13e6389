//! One cell: a JSON value and a column's type → the bytes PostgreSQL would store.
//!
//! A row is fingerprinted over these bytes and sent as these bytes, so they have
//! to be what the server itself would make of the value's text: rounded to the
//! column's scale or precision, in the normal form of `jsonb`. What has one
//! unmistakable spelling is encoded here; other spellings that the server may
//! know are handed back as [`Encoded::Ask`], and what does not fit is an error.
//! Nothing is ever cut, wrapped or turned into NULL.
//!
//! `tests/it/values.rs` compares every encoder with a real server. The table of
//! stored and comparison forms, with more words, is `docs/types.md`:
//!
//! | type | stored form | comparison form |
//! |---|---|---|
//! | `numeric` without a modifier | with the scale it was written with | trailing zero decimals removed |
//! | `jsonb` | version byte and normal-form text | numbers inside without trailing zero decimals |
//! | arrays, composites | the form of each value, with the oids of their types | that of each value, and 0 for the oid of a type that is not built in |
//! | domains | that of the type below | that of the type below |
//! | every other type | its binary output | the same bytes |

use std::borrow::Cow;
use std::sync::Arc;

use crate::json::Json;

mod compared;
mod jsonb;
mod nested;
mod numeric;
mod text;
mod time;
mod width;

pub use nested::{Attribute, Element};
use numeric::Decimal;
pub(crate) use text::in_form;
pub(crate) use width::{is_integer, resized};

/// The type of a column, as far as encoding, comparing and sending its values needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColumnType {
    /// Which encoder makes its values.
    pub kind: Kind,
    /// The type with its modifier, as `format_type` spells it, schema-qualified where needed: `numeric(10,2)`.
    pub sql: String,
    /// The type's oid, for parameters. Never part of a fingerprint.
    pub oid: u32,
    /// The oid of the type's array, for parameters; 0 where it has none.
    pub array_oid: u32,
    /// SQL that converts a text called `v` to the type and its modifier, through the type's own input function:
    /// unlike a cast it refuses what is too long instead of cutting it.
    pub input: String,
    /// The quoted, schema-qualified name of its binary output function: `pg_catalog.int4send`.
    pub send: String,
}

/// Which encoder makes the values of a type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `boolean`
    Bool,
    /// `smallint`
    Int2,
    /// `integer`
    Int4,
    /// `bigint`
    Int8,
    /// `double precision`
    Float8,
    /// `numeric(precision, scale)`; without a modifier `None`.
    Numeric(Option<(u16, i16)>),
    /// `text`
    Text,
    /// `varchar(n)`, in characters; without a modifier `None`.
    Varchar(Option<u32>),
    /// `date`
    Date,
    /// `timestamp(p) without time zone`
    Timestamp(u8),
    /// `timestamp(p) with time zone`
    Timestamptz(u8),
    /// `uuid`
    Uuid,
    /// `jsonb`
    Jsonb,
    /// `json`: the server stores the text that it is given.
    Json,
    /// An enum type: its labels.
    Enum(Arc<[String]>),
    /// An array, of whatever dimensions: its elements.
    Array(Arc<Element>),
    /// A composite type: its attributes.
    Composite(Arc<[Attribute]>),
    /// A domain over a type: its checks only the server knows, so to it all values are left.
    Domain(Arc<ColumnType>),
    /// Any other type: the server converts, text in, binary out.
    Server,
}

impl Kind {
    /// The type itself, or what a domain is over.
    pub fn base(&self) -> &Kind {
        match self {
            Kind::Domain(base) => base.kind.base(),
            kind => kind,
        }
    }
}

/// What encoding a value came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Encoded {
    /// JSON null.
    Null,
    /// The value's bytes were appended to the output.
    Value,
    /// The server must convert this text to the column's type; nothing was appended.
    Ask(String),
}

/// Why a value cannot be stored in a column, in words: `expected an integer, found "two"`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValueError(pub String);

impl std::fmt::Display for ValueError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ValueError {}

/// Longer values stay out of messages.
const QUOTED_CHARS_MAX: usize = 40;

/// Appends the stored binary form of `json` in a column of type `ty`.
///
/// A date without a time zone for a `timestamptz` column is left to the server if a `zone` is
/// declared for it, and refused otherwise.
///
/// # Errors
/// The value does not fit the type; `out` is as it was.
pub fn encode(
    json: &Json<'_>,
    ty: &ColumnType,
    zone: Option<&str>,
    out: &mut Vec<u8>,
) -> Result<Encoded, ValueError> {
    let start = out.len();
    let result = dispatch(json, ty, zone, out);
    // Of a value made of several some may have been appended before one is left to the server.
    if result != Ok(Encoded::Value) {
        out.truncate(start);
    }
    result
}

fn dispatch(
    json: &Json<'_>,
    ty: &ColumnType,
    zone: Option<&str>,
    out: &mut Vec<u8>,
) -> Result<Encoded, ValueError> {
    if *json == Json::Null {
        return Ok(Encoded::Null);
    }
    match &ty.kind {
        Kind::Bool => boolean(json, out),
        Kind::Int2 => integer(json, &INT2, out),
        Kind::Int4 => integer(json, &INT4, out),
        Kind::Int8 => integer(json, &INT8, out),
        Kind::Float8 => float(json, out),
        Kind::Numeric(modifier) => numeric::encode(json, *modifier, out),
        Kind::Text => text(json, None, out),
        Kind::Varchar(length) => text(json, *length, out),
        Kind::Date => time::date(json, out),
        Kind::Timestamp(precision) => time::timestamp(json, *precision, out),
        Kind::Timestamptz(precision) => time::timestamptz(json, *precision, zone, out),
        Kind::Uuid => uuid(json, out),
        Kind::Jsonb => jsonb::encode(json, out),
        Kind::Enum(labels) => label(json, labels, out),
        Kind::Array(_) | Kind::Composite(_) | Kind::Domain(_) => nested::encode(json, ty, out),
        Kind::Json => Ok(Encoded::Ask(jsonb::plain(json)?)),
        Kind::Server => server(json, &ty.sql),
    }
}

/// The comparison form of a stored value: what fingerprints and comparisons see.
///
/// Two values of one type have the same comparison form exactly if they count as the same value.
pub fn comparison_form<'a>(kind: &Kind, stored: &'a [u8]) -> Cow<'a, [u8]> {
    match kind {
        Kind::Numeric(None) => numeric::trimmed(stored),
        Kind::Jsonb => jsonb::trimmed(stored),
        Kind::Array(_) | Kind::Composite(_) => compared::nested(kind, stored),
        Kind::Domain(base) => comparison_form(&base.kind, stored),
        _ => Cow::Borrowed(stored),
    }
}

/// An SQL expression whose binary output is the comparison form of `expression`, a value of type `kind`.
///
/// Not for `jsonb`, which the server has no function to trim, nor for arrays and composites with such values, or with
/// `numeric` of no scale: they cannot be part of a key.
pub fn comparison_sql(kind: &Kind, expression: &str) -> String {
    match kind {
        Kind::Numeric(None) => format!("pg_catalog.trim_scale({expression})"),
        Kind::Domain(base) => comparison_sql(&base.kind, expression),
        _ => expression.to_owned(),
    }
}

/// Whether two scalars are one value: strings by their text, numbers by their value.
pub(crate) fn same_scalar(a: &Json<'_>, b: &Json<'_>) -> bool {
    match (a, b) {
        (Json::Number(a), Json::Number(b)) => {
            let both = Decimal::parse(a).zip(Decimal::parse(b));
            both.is_some_and(|(a, b)| a.equals(&b))
        }
        (Json::String(_), Json::String(_)) | (Json::Bool(_), Json::Bool(_)) => a == b,
        _ => false,
    }
}

/// What was found, for messages: the value itself if it is short.
pub(crate) fn found(json: &Json<'_>) -> String {
    let short = |text: &str| text.chars().nth(QUOTED_CHARS_MAX).is_none();
    match json {
        Json::Bool(value) => value.to_string(),
        Json::Number(text) if short(text) => (*text).to_owned(),
        Json::String(text) if short(text) => format!("{text:?}"),
        _ => json.describe().to_owned(),
    }
}

fn expected(what: &str, json: &Json<'_>) -> ValueError {
    ValueError(format!("expected {what}, found {}", found(json)))
}

fn out_of_range(json: &Json<'_>, name: &str) -> ValueError {
    ValueError(format!("{} is out of range for {name}", found(json)))
}

fn check_storable(text: &str) -> Result<(), ValueError> {
    if text.as_bytes().contains(&0) {
        return Err(ValueError("contains U+0000, which PostgreSQL cannot store".into()));
    }
    Ok(())
}

/// Leaves a text to the server.
fn ask(text: &str) -> Result<Encoded, ValueError> {
    check_storable(text)?;
    Ok(Encoded::Ask(text.to_owned()))
}

/// Without the white space that PostgreSQL's input functions skip at both ends.
fn trim(text: &str) -> &str {
    text.trim_matches([' ', '\t', '\n', '\r', '\x0b', '\x0c'])
}

fn boolean(json: &Json<'_>, out: &mut Vec<u8>) -> Result<Encoded, ValueError> {
    let value = match json {
        Json::Bool(value) => *value,
        Json::Number(text) => return ask(text),
        Json::String(text) => match text.as_ref() {
            "true" | "t" | "yes" | "y" | "on" | "1" => true,
            "false" | "f" | "no" | "n" | "off" | "0" => false,
            other => return ask(other),
        },
        _ => return Err(expected("a boolean", json)),
    };
    out.push(value.into());
    Ok(Encoded::Value)
}

/// One of the integer types: its name, its width and so its range.
struct IntegerType {
    name: &'static str,
    bytes: usize,
}

const INT2: IntegerType = IntegerType { name: "smallint", bytes: 2 };
const INT4: IntegerType = IntegerType { name: "integer", bytes: 4 };
const INT8: IntegerType = IntegerType { name: "bigint", bytes: 8 };

impl IntegerType {
    fn append(&self, value: i64, out: &mut Vec<u8>) -> Option<()> {
        let unused = 64 - 8 * self.bytes;
        if value << unused >> unused != value {
            return None;
        }
        out.extend_from_slice(&value.to_be_bytes()[8 - self.bytes..]);
        Some(())
    }
}

fn integer(json: &Json<'_>, ty: &IntegerType, out: &mut Vec<u8>) -> Result<Encoded, ValueError> {
    let value = match json {
        Json::Number(text) => integer_of_number(text).ok_or_else(|| expected("an integer", json))?,
        Json::String(text) => {
            let digits = trim(text);
            if !is_signed_digits(digits) {
                return ask(text);
            }
            digits.parse().ok()
        }
        _ => return Err(expected("an integer", json)),
    };
    value.and_then(|value| ty.append(value, out)).ok_or_else(|| out_of_range(json, ty.name))?;
    Ok(Encoded::Value)
}

/// `None` if the number has a fraction, `Some(None)` if it is beyond 64 bits.
fn integer_of_number(text: &str) -> Option<Option<i64>> {
    match text.parse() {
        Ok(value) => Some(Some(value)),
        Err(_) => Decimal::parse(text)?.integer(),
    }
}

fn is_signed_digits(text: &str) -> bool {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// The text of a number, or of a string that may hold one.
fn number_text<'j>(json: &'j Json<'_>) -> Result<&'j str, ValueError> {
    match json {
        Json::Number(text) => Ok(text),
        Json::String(text) => Ok(text),
        _ => Err(expected("a number", json)),
    }
}

fn float(json: &Json<'_>, out: &mut Vec<u8>) -> Result<Encoded, ValueError> {
    let text = number_text(json)?;
    let Some(decimal) = Decimal::parse(text) else {
        return ask(text);
    };
    let value: f64 = text.parse().map_err(|_| expected("a number", json))?;
    // The server refuses what only infinity or zero would be near to, rather than lose it.
    if value.is_infinite() || (value == 0.0 && !decimal.is_zero()) {
        return Err(out_of_range(json, "double precision"));
    }
    out.extend_from_slice(&value.to_be_bytes());
    Ok(Encoded::Value)
}

fn text(json: &Json<'_>, length_max: Option<u32>, out: &mut Vec<u8>) -> Result<Encoded, ValueError> {
    let start = out.len();
    match json {
        Json::String(text) => {
            check_storable(text)?;
            out.extend_from_slice(text.as_bytes());
        }
        // Trimmed, so that another spelling of the same number is no change.
        Json::Number(number) => Decimal::parse(number)
            .and_then(|decimal| decimal.append_trimmed(out))
            .ok_or_else(|| out_of_range(json, "numeric"))?,
        Json::Bool(value) => out.extend_from_slice(value.to_string().as_bytes()),
        _ => return Err(expected("text", json)),
    }
    let Some(max) = length_max else { return Ok(Encoded::Value) };
    let count = out[start..].iter().filter(|byte| !is_continuation(**byte)).count();
    if count > max as usize {
        return Err(ValueError(format!("{count} characters, longer than varchar({max})")));
    }
    Ok(Encoded::Value)
}

/// Whether a byte of UTF-8 goes on with a character rather than starting one.
fn is_continuation(byte: u8) -> bool {
    byte & 0xc0 == 0x80
}

fn uuid(json: &Json<'_>, out: &mut Vec<u8>) -> Result<Encoded, ValueError> {
    let text = match json {
        Json::String(text) => text.as_ref(),
        Json::Number(text) => text,
        _ => return Err(expected("a uuid", json)),
    };
    match canonical_uuid(text.as_bytes()) {
        Some(bytes) => out.extend_from_slice(&bytes),
        None => return ask(text),
    }
    Ok(Encoded::Value)
}

fn canonical_uuid(text: &[u8]) -> Option<[u8; 16]> {
    if text.len() != 36 || [8, 13, 18, 23].iter().any(|at| text[*at] != b'-') {
        return None;
    }
    let mut digits = text.iter().filter(|byte| **byte != b'-').map(|byte| (*byte as char).to_digit(16));
    let mut bytes = [0; 16];
    for byte in &mut bytes {
        let (high, low) = (digits.next()??, digits.next()??);
        *byte = (high << 4 | low) as u8;
    }
    Some(bytes)
}

fn label(json: &Json<'_>, labels: &[String], out: &mut Vec<u8>) -> Result<Encoded, ValueError> {
    let text = scalar_text(json).ok_or_else(|| expected("a label of the enum", json))?;
    if !labels.iter().any(|label| *label == text) {
        return Err(ValueError(format!("{} is not a label of the enum", found(json))));
    }
    out.extend_from_slice(text.as_bytes());
    Ok(Encoded::Value)
}

fn server(json: &Json<'_>, sql: &str) -> Result<Encoded, ValueError> {
    match scalar_text(json) {
        Some(text) => ask(&text),
        None => Err(expected(sql, json)),
    }
}

/// The text of a scalar, as the document spells it; `None` for null, lists and objects.
fn scalar_text<'a>(json: &'a Json<'_>) -> Option<Cow<'a, str>> {
    match json {
        Json::Bool(value) => Some(if *value { "true" } else { "false" }.into()),
        Json::Number(text) => Some((*text).into()),
        Json::String(text) => Some(text.as_ref().into()),
        Json::Null | Json::Array(_) | Json::Object(_) => None,
    }
}

#[cfg(test)]
mod tests;
