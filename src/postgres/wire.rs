//! Values as they travel: raw cells of a result, and parameters made of raw cells.

use std::error::Error as StdError;

use bytes::{BufMut, BytesMut};
use postgres_types::{FromSql, IsNull, Kind, ToSql, Type, to_sql_checked};

/// A cell of a result in binary form, not decoded, whatever its type.
pub(crate) struct Raw<'a>(pub &'a [u8]);

impl<'a> FromSql<'a> for Raw<'a> {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn StdError + Sync + Send>> {
        Ok(Raw(raw))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

/// A parameter in binary form, with its type.
#[derive(Debug)]
pub(crate) struct Param {
    bytes: Option<Vec<u8>>,
    oid: u32,
}

impl Param {
    /// One value of a type.
    pub fn scalar(oid: u32, value: Option<&[u8]>) -> Self {
        Param { bytes: value.map(<[u8]>::to_vec), oid }
    }

    /// The type to declare. Only its oid is sent.
    pub fn ty(&self) -> Type {
        let named = || Type::new(String::new(), self.oid, Kind::Simple, String::new());
        Type::from_oid(self.oid).unwrap_or_else(named)
    }
}

impl ToSql for Param {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn StdError + Sync + Send>> {
        match &self.bytes {
            Some(bytes) => {
                out.put_slice(bytes);
                Ok(IsNull::No)
            }
            None => Ok(IsNull::Yes),
        }
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

/// Builds a one-dimensional array parameter: int32 dimensions, int32 "has NULL", the element's oid, int32
/// length, int32 lower bound; then the elements, each an int32 length (−1: NULL) and its bytes.
/// Source: `array_recv` in PostgreSQL's `src/backend/utils/adt/arrayfuncs.c`.
#[derive(Debug)]
pub(crate) struct ArrayBuilder {
    bytes: Vec<u8>,
    array_oid: u32,
    length: i32,
    nulls: bool,
}

const HEADER: usize = 20;

impl ArrayBuilder {
    /// An empty array.
    pub fn new(element_oid: u32, array_oid: u32) -> Self {
        let mut bytes = vec![0; HEADER];
        bytes[8..12].copy_from_slice(&element_oid.to_be_bytes());
        ArrayBuilder { bytes, array_oid, length: 0, nulls: false }
    }

    /// Appends an element.
    pub fn push(&mut self, value: Option<&[u8]>) {
        self.length += 1;
        self.nulls |= value.is_none();
        let length = value.map_or(-1, |value| value.len() as i32);
        self.bytes.extend_from_slice(&length.to_be_bytes());
        self.bytes.extend_from_slice(value.unwrap_or_default());
    }

    /// The parameter.
    pub fn finish(mut self) -> Param {
        let dimensions = i32::from(self.length > 0);
        self.bytes[0..4].copy_from_slice(&dimensions.to_be_bytes());
        self.bytes[4..8].copy_from_slice(&i32::from(self.nulls).to_be_bytes());
        self.bytes[12..16].copy_from_slice(&self.length.to_be_bytes());
        self.bytes[16..20].copy_from_slice(&1i32.to_be_bytes());
        if self.length == 0 {
            self.bytes.truncate(12);
        }
        Param { bytes: Some(self.bytes), oid: self.array_oid }
    }
}

/// An array parameter of byte strings.
pub(crate) fn bytea_array<'a>(values: impl IntoIterator<Item = Option<&'a [u8]>>) -> Param {
    array(Type::BYTEA.oid(), Type::BYTEA_ARRAY.oid(), values)
}

/// The elements of an array of byte strings, as it travels. NULLs are left out, and so is what is malformed.
pub(crate) fn elements(array: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = array.get(HEADER..).unwrap_or_default();
    std::iter::from_fn(move || {
        loop {
            let (length, after) = rest.split_first_chunk()?;
            let length = i32::from_be_bytes(*length);
            let (element, left) = after.split_at_checked(usize::try_from(length).unwrap_or(0))?;
            rest = left;
            if length >= 0 {
                return Some(element);
            }
        }
    })
}

/// An array parameter of texts.
pub(crate) fn text_array<'a>(values: impl IntoIterator<Item = &'a str>) -> Param {
    array(Type::TEXT.oid(), Type::TEXT_ARRAY.oid(), values.into_iter().map(|text| Some(text.as_bytes())))
}

/// An array parameter of booleans.
pub(crate) fn bool_array(values: impl IntoIterator<Item = bool>) -> Param {
    let bytes = |value: bool| Some(if value { &[1u8][..] } else { &[0u8][..] });
    array(Type::BOOL.oid(), Type::BOOL_ARRAY.oid(), values.into_iter().map(bytes))
}

/// An array parameter of raw values.
pub(crate) fn array<'a>(
    element: u32,
    array: u32,
    values: impl IntoIterator<Item = Option<&'a [u8]>>,
) -> Param {
    let mut builder = ArrayBuilder::new(element, array);
    values.into_iter().for_each(|value| builder.push(value));
    builder.finish()
}

/// Parameters with their types, as `query_typed` takes them.
pub(crate) fn typed(params: &[Param]) -> Vec<(&(dyn ToSql + Sync), Type)> {
    params.iter().map(|param| (param as &(dyn ToSql + Sync), param.ty())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_elements_of_an_array_come_back() {
        let elements_of = |values: &[Option<&[u8]>]| {
            let bytes = bytea_array(values.iter().copied()).bytes.unwrap();
            elements(&bytes).map(<[u8]>::to_vec).collect::<Vec<_>>()
        };
        assert_eq!(elements_of(&[]), Vec::<Vec<u8>>::new());
        assert_eq!(elements_of(&[Some(b"a"), None, Some(b""), Some(b"bc")]), [&b"a"[..], b"", b"bc"]);
        let bytes = bytea_array([Some(&b"abc"[..])]).bytes.unwrap();
        assert_eq!(elements(&bytes[..bytes.len() - 1]).count(), 0);
    }
}
