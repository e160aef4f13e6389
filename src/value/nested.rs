//! Types made of others: arrays and composites, which take lists and objects, and domains.
//!
//! Where every element is encoded here, so is the whole: `array_send` in `utils/adt/arrayfuncs.c`, `record_send` in
//! `rowtypes.c`. Where one is left to the server, all of it is, as the text that `array_in` and `record_in` read.

use std::borrow::Cow;

use super::{ColumnType, Encoded, Kind, ValueError, comparison_form, dispatch, expected, scalar_text};
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
const INT: usize = 4;

/// Encodes a list, or leaves a string as it is to the server.
pub(super) fn array(
    json: &Json<'_>,
    sql: &str,
    element: &Element,
    out: &mut Vec<u8>,
) -> Result<Encoded, ValueError> {
    if !matches!(json, Json::Array(_)) {
        return super::server(json, sql);
    }
    let mut shape = Vec::new();
    measure(json, element, &mut shape)?;
    let mut elements = Elements { element, bytes: Vec::new(), has_null: false };
    if !elements.append(json, shape.len())? {
        let mut text = String::new();
        array_text(json, shape.len(), element, &mut text)?;
        return super::ask(&text);
    }
    let is_empty = shape.contains(&0);
    let dimensions: &[usize] = if is_empty { &[] } else { &shape };
    put(out, dimensions.len())?;
    put(out, usize::from(elements.has_null))?;
    out.extend_from_slice(&element.ty.oid.to_be_bytes());
    for &length in dimensions {
        put(out, length)?;
        put(out, 1)?;
    }
    out.extend_from_slice(&elements.bytes);
    Ok(Encoded::Value)
}

/// Encodes an object, or leaves a string as it is to the server. Members that no attribute has are passed over.
pub(super) fn composite(
    json: &Json<'_>,
    sql: &str,
    attributes: &[Attribute],
    out: &mut Vec<u8>,
) -> Result<Encoded, ValueError> {
    if !matches!(json, Json::Object(_)) {
        return super::server(json, sql);
    }
    put(out, attributes.len())?;
    for attribute in attributes {
        let member = json.member(&attribute.name).unwrap_or(&Json::Null);
        out.extend_from_slice(&attribute.ty.oid.to_be_bytes());
        if !append(member, &attribute.ty, out).map_err(|error| inside(&attribute.name, error))? {
            return super::ask(&composite_text(json, attributes)?);
        }
    }
    Ok(Encoded::Value)
}

/// Leaves a value to the server that the type below a domain takes.
pub(super) fn domain(json: &Json<'_>, base: &ColumnType) -> Result<Encoded, ValueError> {
    match text_of(json, base)? {
        Some(text) => super::ask(&text),
        None => Ok(Encoded::Null),
    }
}

fn inside(name: &str, ValueError(message): ValueError) -> ValueError {
    ValueError(format!("{name}: {message}"))
}

fn put(out: &mut Vec<u8>, number: usize) -> Result<(), ValueError> {
    let number = i32::try_from(number).map_err(|_| ValueError("is too long".into()))?;
    out.extend_from_slice(&number.to_be_bytes());
    Ok(())
}

/// Appends one value with its length. False where the server must convert it.
fn append(json: &Json<'_>, ty: &ColumnType, out: &mut Vec<u8>) -> Result<bool, ValueError> {
    let start = out.len();
    out.extend_from_slice(&(-1i32).to_be_bytes());
    match dispatch(json, ty, None, out)? {
        Encoded::Null => Ok(true),
        Encoded::Ask(_) => Ok(false),
        Encoded::Value => {
            let mut length = Vec::new();
            put(&mut length, out.len() - start - INT)?;
            out[start..start + INT].copy_from_slice(&length);
            Ok(true)
        }
    }
}

/// The length of each dimension: lists of one depth must be of one length. Of what may be a list itself (`jsonb`) an
/// array has one dimension.
fn measure(json: &Json<'_>, element: &Element, shape: &mut Vec<usize>) -> Result<(), ValueError> {
    let mut level = vec![json];
    while let Some(Json::Array(first)) = level.first() {
        let mut items = Vec::new();
        for list in &level {
            match list {
                Json::Array(list) if list.len() == first.len() => items.extend(list.iter()),
                _ => {
                    let message = format!("lists of different lengths do not fit {}[]", element.ty.sql);
                    return Err(ValueError(message));
                }
            }
        }
        shape.push(first.len());
        if shape.len() > DIMENSIONS_MAX {
            return Err(ValueError(format!("an array has at most {DIMENSIONS_MAX} dimensions")));
        }
        if takes_lists(&element.ty.kind) {
            break;
        }
        level = items;
    }
    Ok(())
}

fn takes_lists(kind: &Kind) -> bool {
    match kind {
        Kind::Jsonb | Kind::Json | Kind::Array(_) => true,
        Kind::Domain(base) => takes_lists(&base.kind),
        _ => false,
    }
}

struct Elements<'e> {
    element: &'e Element,
    bytes: Vec<u8>,
    has_null: bool,
}

impl Elements<'_> {
    /// Appends what is so many lists deep. False where the server must convert one of them.
    fn append(&mut self, json: &Json<'_>, depth: usize) -> Result<bool, ValueError> {
        match json {
            Json::Array(items) if depth > 0 => {
                for (at, item) in items.iter().enumerate() {
                    let appended = self.append(item, depth - 1);
                    if !appended.map_err(|error| inside(&format!("[{at}]"), error))? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            _ if depth > 0 => Err(expected("a list", json)),
            item => {
                self.has_null |= *item == Json::Null;
                append(item, &self.element.ty, &mut self.bytes)
            }
        }
    }
}

fn array_text(json: &Json<'_>, depth: usize, element: &Element, text: &mut String) -> Result<(), ValueError> {
    let Json::Array(items) = json else { return Err(expected("a list", json)) };
    text.push('{');
    for (at, item) in items.iter().enumerate() {
        if at > 0 {
            text.push(element.delimiter);
        }
        match item {
            Json::Array(_) if depth > 1 => array_text(item, depth - 1, element, text)?,
            _ => match text_of(item, &element.ty).map_err(|error| inside(&format!("[{at}]"), error))? {
                Some(word) => quote(&word, text),
                None => text.push_str("NULL"),
            },
        }
    }
    text.push('}');
    Ok(())
}

fn composite_text(json: &Json<'_>, attributes: &[Attribute]) -> Result<String, ValueError> {
    let mut text = String::from("(");
    for (at, attribute) in attributes.iter().enumerate() {
        if at > 0 {
            text.push(',');
        }
        let member = json.member(&attribute.name).unwrap_or(&Json::Null);
        let word = text_of(member, &attribute.ty).map_err(|error| inside(&attribute.name, error))?;
        word.into_iter().for_each(|word| quote(&word, &mut text));
    }
    text.push(')');
    Ok(text)
}

fn quote(word: &str, text: &mut String) {
    text.push('"');
    for letter in word.chars() {
        if matches!(letter, '"' | '\\') {
            text.push('\\');
        }
        text.push(letter);
    }
    text.push('"');
}

/// What the input function of a type makes the same value of that [`dispatch`] does; `None` for null. What that refuses
/// is refused here.
fn text_of<'a>(json: &'a Json<'_>, ty: &ColumnType) -> Result<Option<Cow<'a, str>>, ValueError> {
    let mut bytes = Vec::new();
    let word = match dispatch(json, ty, None, &mut bytes)? {
        Encoded::Null => return Ok(None),
        Encoded::Ask(text) => Cow::Owned(text),
        Encoded::Value => match &ty.kind {
            Kind::Text | Kind::Varchar(_) | Kind::Enum(_) => Cow::Owned(utf8(bytes)),
            Kind::Int2 | Kind::Int4 | Kind::Int8 => Cow::Owned(integer(&bytes)),
            // A version byte goes before the text.
            Kind::Jsonb => Cow::Owned(utf8(bytes.split_off(1))),
            Kind::Array(element) => {
                let (mut shape, mut text) = (Vec::new(), String::new());
                measure(json, element, &mut shape)?;
                array_text(json, shape.len(), element, &mut text)?;
                Cow::Owned(text)
            }
            Kind::Composite(attributes) => Cow::Owned(composite_text(json, attributes)?),
            _ => scalar_text(json).ok_or_else(|| expected(&ty.sql, json))?,
        },
    };
    Ok(Some(word))
}

fn utf8(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_default()
}

/// A whole number may be spelled otherwise in the document: `5.0`.
fn integer(bytes: &[u8]) -> String {
    let negative = bytes.first().is_some_and(|byte| byte & 0x80 != 0);
    let mut wide = [if negative { 0xff } else { 0 }; 8];
    wide[8 - bytes.len()..].copy_from_slice(bytes);
    i64::from_be_bytes(wide).to_string()
}

/// The comparison form of an array or a composite: that of each of its values, and no oid of a type of one's own,
/// which a dump and restore changes.
pub(super) fn compared<'a>(kind: &Kind, stored: &'a [u8]) -> Cow<'a, [u8]> {
    let compared = match kind {
        Kind::Array(element) if differs(&element.ty) => compared_array(&element.ty, stored),
        Kind::Composite(attributes) if attributes.iter().any(|attribute| differs(&attribute.ty)) => {
            compared_composite(attributes, stored)
        }
        _ => None,
    };
    compared.map_or(Cow::Borrowed(stored), Cow::Owned)
}

/// The first oid that no built-in type has: `FirstNormalObjectId` in `access/transam.h`.
const FIRST_OWN_OID: u32 = 16_384;

/// Whether a value's comparison form may differ from the stored one where it stands within another.
fn differs(ty: &ColumnType) -> bool {
    ty.oid >= FIRST_OWN_OID
        || match &ty.kind {
            Kind::Numeric(None) | Kind::Jsonb => true,
            Kind::Array(element) => differs(&element.ty),
            Kind::Composite(attributes) => attributes.iter().any(|attribute| differs(&attribute.ty)),
            Kind::Domain(base) => differs(base),
            _ => false,
        }
}

fn compared_array(ty: &ColumnType, stored: &[u8]) -> Option<Vec<u8>> {
    let mut reader = Reader(stored);
    let dimensions = reader.take(INT)?;
    let mut out = [dimensions, reader.take(INT)?].concat();
    reader.oid(ty, &mut out)?;
    let dimensions = u32::from_be_bytes(dimensions.try_into().ok()?) as usize;
    out.extend_from_slice(reader.take(dimensions.checked_mul(2 * INT)?)?);
    while !reader.0.is_empty() {
        reader.value(&ty.kind, &mut out)?;
    }
    Some(out)
}

fn compared_composite(attributes: &[Attribute], stored: &[u8]) -> Option<Vec<u8>> {
    let mut reader = Reader(stored);
    let mut out = reader.take(INT)?.to_vec();
    for Attribute { ty, .. } in attributes {
        reader.oid(ty, &mut out)?;
        reader.value(&ty.kind, &mut out)?;
    }
    reader.0.is_empty().then_some(out)
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    /// Appends the oid that stands next, unless it is that of a type of one's own.
    fn oid(&mut self, ty: &ColumnType, out: &mut Vec<u8>) -> Option<()> {
        let oid = self.take(INT)?;
        out.extend_from_slice(if ty.oid < FIRST_OWN_OID { oid } else { &[0; INT] });
        Some(())
    }

    /// Appends the comparison form of the next value, with its length.
    fn value(&mut self, kind: &Kind, out: &mut Vec<u8>) -> Option<()> {
        let length = i32::from_be_bytes(self.take(INT)?.try_into().ok()?);
        if length < 0 {
            out.extend_from_slice(&length.to_be_bytes());
            return Some(());
        }
        let form = comparison_form(kind, self.take(length as usize)?);
        put(out, form.len()).ok()?;
        out.extend_from_slice(&form);
        Some(())
    }
}
