//! One cell: a JSON value and a column's type → the bytes PostgreSQL would store.
//!
//! STUB of the interface; the encoders come next.

use std::borrow::Cow;
use std::sync::Arc;

use crate::json::Json;

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
    /// An enum type: its labels.
    Enum(Arc<[String]>),
    /// Any other type: the server converts, text in, binary out.
    Server,
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

/// Appends the stored binary form of `json` in a column of type `ty`.
///
/// # Errors
/// The value does not fit the type.
pub fn encode(json: &Json<'_>, ty: &ColumnType, zone: Option<&str>, out: &mut Vec<u8>) -> Result<Encoded, ValueError> {
    let _ = (json, ty, zone, out);
    Ok(Encoded::Null)
}

/// The comparison form of a stored value: what fingerprints and comparisons see.
pub fn comparison_form<'a>(kind: &Kind, stored: &'a [u8]) -> Cow<'a, [u8]> {
    let _ = kind;
    Cow::Borrowed(stored)
}

/// The SQL expression that yields the comparison form.
pub fn comparison_sql(kind: &Kind, expression: &str) -> String {
    match kind {
        Kind::Numeric(None) => format!("pg_catalog.trim_scale({expression})"),
        _ => expression.to_owned(),
    }
}
