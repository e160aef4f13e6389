//! The comparison form of arrays and composites.

use std::borrow::Cow;

use super::nested::{Attribute, INT, put};
use super::{ColumnType, Kind, comparison_form};

/// The comparison form of an array or a composite: that of each of its values, and no oid of a type of one's own,
/// which a dump and restore changes.
pub(super) fn nested<'a>(kind: &Kind, stored: &'a [u8]) -> Cow<'a, [u8]> {
    let compared = match kind {
        Kind::Array(element) if differs(&element.ty) => array(&element.ty, stored),
        Kind::Composite(attributes) if attributes.iter().any(|attribute| differs(&attribute.ty)) => {
            composite(attributes, stored)
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

fn array(ty: &ColumnType, stored: &[u8]) -> Option<Vec<u8>> {
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

fn composite(attributes: &[Attribute], stored: &[u8]) -> Option<Vec<u8>> {
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
