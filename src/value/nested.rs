//! Types made of others: arrays and composites, which take lists and objects, and domains.
//!
//! Where every element is encoded here, so is the whole: `array_send` in `utils/adt/arrayfuncs.c`, `record_send` in
//! `rowtypes.c`. Where one is left to the server, all of it is, as the text that `array_in` and `record_in` read.

use std::borrow::Cow;
use std::ops::Range;

use super::{ColumnType, Encoded, Kind, ValueError, dispatch, expected, scalar_text};
use crate::json::Json;

/// What an array holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Element {
    /// Its type, with the modifier of the array's column.
    pub ty: ColumnType,
    /// What stands between two of them in text: a comma but for `box`.
    pub delimiter: char,
}

/// One column of a composite type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attribute {
    /// Its name, which is that of the object's member.
    pub name: String,
    /// Its type.
    pub ty: ColumnType,
}

impl ColumnType {
    /// What the type is made of, beyond its name: an `ALTER TYPE` changes it.
    pub(crate) fn parts(&self) -> String {
        match &self.kind {
            Kind::Array(element) => element.ty.parts(),
            Kind::Domain(base) => format!("{}{}", base.sql, base.parts()),
            Kind::Composite(attributes) => {
                let part = |Attribute { name, ty }: &Attribute| format!("{name:?} {}{}", ty.sql, ty.parts());
                format!("({})", attributes.iter().map(part).collect::<Vec<_>>().join(", "))
            }
            _ => String::new(),
        }
    }
}

/// PostgreSQL's `MAXDIM`.
const DIMENSIONS_MAX: usize = 6;
/// Bytes of a length, a count, an oid.
pub(super) const INT: usize = 4;
/// The length of a null.
const NULL: i32 = -1;

/// Encodes a value of a type made of others, or leaves it to the server if any value inside it must be.
pub(super) fn encode(json: &Json<'_>, ty: &ColumnType, out: &mut Vec<u8>) -> Result<Encoded, ValueError> {
    let mut bytes = Vec::new();
    let part = Part::of(json, ty, &mut bytes)?;
    if part.is_encoded() {
        part.append(&bytes, out)?;
        return Ok(Encoded::Value);
    }
    Ok(part.text(&bytes)?.map_or(Encoded::Null, |text| Encoded::Ask(text.into_owned())))
}

/// A value taken apart: each scalar in it is encoded once, before it is known whether all of it goes as bytes or as
/// text.
enum Part<'v> {
    Null,
    /// A scalar, and where its bytes are.
    Scalar {
        json: &'v Json<'v>,
        ty: &'v ColumnType,
        at: Range<usize>,
    },
    /// What the server must convert.
    Ask(String),
    Array {
        element: &'v Element,
        /// The length of each dimension; an empty array has none.
        shape: Vec<usize>,
        parts: Vec<Part<'v>>,
    },
    Composite {
        attributes: &'v [Attribute],
        parts: Vec<Part<'v>>,
    },
}

impl<'v> Part<'v> {
    /// Takes a value apart; the bytes of its scalars are appended to `bytes`.
    fn of(json: &'v Json<'_>, ty: &'v ColumnType, bytes: &mut Vec<u8>) -> Result<Self, ValueError> {
        let start = bytes.len();
        let encoded = match (&ty.kind, json) {
            (Kind::Array(element), Json::Array(_)) => return Part::array(json, element, bytes),
            (Kind::Composite(attributes), Json::Object(_)) => {
                return Part::composite(json, attributes, bytes);
            }
            (_, Json::Null) => Encoded::Null,
            (Kind::Array(_) | Kind::Composite(_), _) => super::server(json, &ty.sql)?,
            (Kind::Domain(base), _) => {
                let part = Part::of(json, base, bytes)?;
                part.text(bytes)?.map_or(Encoded::Null, |text| Encoded::Ask(text.into_owned()))
            }
            _ => dispatch(json, ty, None, bytes)?,
        };
        Ok(match encoded {
            Encoded::Null => Part::Null,
            Encoded::Value => Part::Scalar { json, ty, at: start..bytes.len() },
            Encoded::Ask(text) => Part::Ask(text),
        })
    }

    fn array(json: &'v Json<'_>, element: &'v Element, bytes: &mut Vec<u8>) -> Result<Self, ValueError> {
        let (mut shape, items) = flatten(json, element)?;
        let mut parts = Vec::with_capacity(items.len());
        for (at, item) in items.into_iter().enumerate() {
            let part = Part::of(item, &element.ty, bytes);
            parts.push(part.map_err(|error| at_index(at, &shape, error))?);
        }
        if parts.is_empty() {
            shape.clear();
        }
        Ok(Part::Array { element, shape, parts })
    }

    /// Members that no attribute has are passed over.
    fn composite(
        json: &'v Json<'_>,
        attributes: &'v [Attribute],
        bytes: &mut Vec<u8>,
    ) -> Result<Self, ValueError> {
        let mut parts = Vec::with_capacity(attributes.len());
        for Attribute { name, ty } in attributes {
            let part = Part::of(json.member(name).unwrap_or(&Json::Null), ty, bytes);
            parts.push(part.map_err(|error| inside(name, error))?);
        }
        Ok(Part::Composite { attributes, parts })
    }

    /// False if the server must convert it, or a value inside it.
    fn is_encoded(&self) -> bool {
        match self {
            Part::Null | Part::Scalar { .. } => true,
            Part::Ask(_) => false,
            Part::Array { parts, .. } | Part::Composite { parts, .. } => parts.iter().all(Part::is_encoded),
        }
    }

    /// Appends the binary form, without a length before it.
    fn append(&self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), ValueError> {
        match self {
            Part::Scalar { at, .. } => out.extend_from_slice(&bytes[at.clone()]),
            Part::Array { element, shape, parts } => {
                put(out, shape.len())?;
                put(out, usize::from(parts.iter().any(|part| matches!(part, Part::Null))))?;
                out.extend_from_slice(&element.ty.oid.to_be_bytes());
                for &length in shape {
                    put(out, length)?;
                    put(out, 1)?;
                }
                parts.iter().try_for_each(|part| part.append_with_length(bytes, out))?;
            }
            Part::Composite { attributes, parts } => {
                put(out, attributes.len())?;
                for (Attribute { ty, .. }, part) in attributes.iter().zip(parts) {
                    out.extend_from_slice(&ty.oid.to_be_bytes());
                    part.append_with_length(bytes, out)?;
                }
            }
            // Neither has a binary form: the length says that the one is null, and the other goes as text.
            Part::Null | Part::Ask(_) => {}
        }
        Ok(())
    }

    fn append_with_length(&self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), ValueError> {
        let start = out.len();
        out.extend_from_slice(&NULL.to_be_bytes());
        if matches!(self, Part::Null) {
            return Ok(());
        }
        self.append(bytes, out)?;
        let mut length = Vec::new();
        put(&mut length, out.len() - start - INT)?;
        out[start..start + INT].copy_from_slice(&length);
        Ok(())
    }

    /// What the input function of the type makes the same value of; `None` for null.
    fn text(&self, bytes: &[u8]) -> Result<Option<Cow<'_, str>>, ValueError> {
        let quoted = |part: &Part<'_>, null: &str| {
            let word = part.text(bytes)?;
            Ok::<_, ValueError>(word.map_or_else(|| null.to_owned(), |word| quote(&word)))
        };
        Ok(Some(match self {
            Part::Null => return Ok(None),
            Part::Scalar { json, ty, at } => scalar(json, ty, &bytes[at.clone()])?,
            Part::Ask(text) => Cow::Borrowed(text),
            Part::Array { element, shape, parts } => {
                let words = parts.iter().map(|part| quoted(part, "NULL")).collect::<Result<Vec<_>, _>>()?;
                Cow::Owned(braces(shape, &words, element.delimiter))
            }
            Part::Composite { parts, .. } => {
                let words = parts.iter().map(|part| quoted(part, "")).collect::<Result<Vec<_>, _>>()?;
                Cow::Owned(format!("({})", words.join(",")))
            }
        }))
    }
}

/// The items of an array and the length of each dimension: lists of one depth must be of one length. Of what may be a
/// list itself (`jsonb`) an array has one dimension.
fn flatten<'v>(json: &'v Json<'_>, element: &Element) -> Result<(Vec<usize>, Vec<&'v Json<'v>>), ValueError> {
    let mut shape = Vec::new();
    let mut items: Vec<&Json<'_>> = vec![json];
    while let Some(Json::Array(first)) = items.first() {
        if shape.len() == DIMENSIONS_MAX {
            return Err(ValueError(format!("an array has at most {DIMENSIONS_MAX} dimensions")));
        }
        let mut below = Vec::new();
        for list in &items {
            match list {
                Json::Array(list) if list.len() == first.len() => below.extend(list),
                _ => {
                    let message = format!("lists of different lengths do not fit {}[]", element.ty.sql);
                    return Err(ValueError(message));
                }
            }
        }
        shape.push(first.len());
        items = below;
        if takes_lists(&element.ty.kind) {
            break;
        }
    }
    Ok((shape, items))
}

fn takes_lists(kind: &Kind) -> bool {
    match kind {
        Kind::Jsonb | Kind::Json | Kind::Array(_) => true,
        Kind::Domain(base) => takes_lists(&base.kind),
        _ => false,
    }
}

fn inside(name: &str, ValueError(message): ValueError) -> ValueError {
    ValueError(format!("{name}: {message}"))
}

/// The error of the item that is `at` so many places from the first, as the document nests it: `[1]: [0]: …`.
fn at_index(at: usize, shape: &[usize], error: ValueError) -> ValueError {
    let mut rest = at;
    shape.iter().rev().fold(error, |error, length| {
        let index = rest % length;
        rest /= length;
        inside(&format!("[{index}]"), error)
    })
}

/// Appends a length or a count.
pub(super) fn put(out: &mut Vec<u8>, number: usize) -> Result<(), ValueError> {
    let number = i32::try_from(number).map_err(|_| ValueError("is too long".into()))?;
    out.extend_from_slice(&number.to_be_bytes());
    Ok(())
}

/// The text of an array whose items are quoted already.
fn braces(shape: &[usize], words: &[String], delimiter: char) -> String {
    let separator = delimiter.to_string();
    let text = match shape {
        [length, below @ ..] if !below.is_empty() => {
            let lists = words.chunks(words.len() / length).map(|words| braces(below, words, delimiter));
            lists.collect::<Vec<_>>().join(&separator)
        }
        _ => words.join(&separator),
    };
    format!("{{{text}}}")
}

fn quote(word: &str) -> String {
    let mut text = String::with_capacity(word.len() + 2);
    text.push('"');
    for letter in word.chars() {
        if matches!(letter, '"' | '\\') {
            text.push('\\');
        }
        text.push(letter);
    }
    text.push('"');
    text
}

/// The text of a scalar that was encoded as `bytes`.
fn scalar<'a>(json: &'a Json<'_>, ty: &ColumnType, bytes: &[u8]) -> Result<Cow<'a, str>, ValueError> {
    match &ty.kind {
        Kind::Text | Kind::Varchar(_) | Kind::Enum(_) => Ok(Cow::Owned(utf8(bytes))),
        Kind::Int2 | Kind::Int4 | Kind::Int8 => Ok(Cow::Owned(integer(bytes))),
        // A version byte goes before the text.
        Kind::Jsonb => Ok(Cow::Owned(utf8(&bytes[1..]))),
        _ => scalar_text(json).ok_or_else(|| expected(&ty.sql, json)),
    }
}

fn utf8(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A whole number may be spelled otherwise in the document: `5.0`.
fn integer(bytes: &[u8]) -> String {
    let negative = bytes.first().is_some_and(|byte| byte & 0x80 != 0);
    let mut wide = [if negative { 0xff } else { 0 }; 8];
    wide[8 - bytes.len()..].copy_from_slice(bytes);
    i64::from_be_bytes(wide).to_string()
}
