//! Integers in columns of another width: what refers to an id may be narrower, or wider, than the id.

use std::borrow::Cow;

use super::Kind;

/// Whether a type is one of the three integers.
pub(crate) fn is_integer(kind: &Kind) -> bool {
    matches!(kind, Kind::Int2 | Kind::Int4 | Kind::Int8)
}

/// The stored form of a value of one type in a column of another: of an integer in another integer; of all other
/// types it is the same. `None` where it is out of range.
pub(crate) fn resized<'b>(bytes: &'b [u8], from: &Kind, to: &Kind) -> Option<Cow<'b, [u8]>> {
    if from == to || !is_integer(from) || !is_integer(to) {
        return Some(Cow::Borrowed(bytes));
    }
    let value = number(bytes);
    let resized = match to {
        Kind::Int2 => i16::try_from(value).ok()?.to_be_bytes().to_vec(),
        Kind::Int4 => i32::try_from(value).ok()?.to_be_bytes().to_vec(),
        _ => value.to_be_bytes().to_vec(),
    };
    Some(Cow::Owned(resized))
}

/// The number in the stored form of an integer, of eight bytes at most.
fn number(bytes: &[u8]) -> i64 {
    let sign = if bytes.first().is_some_and(|byte| byte & 0x80 != 0) { -1 } else { 0 };
    bytes.iter().fold(sign, |value, byte| value << 8 | i64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_keep_their_value_or_are_out_of_range() {
        let kinds = [Kind::Int2, Kind::Int4, Kind::Int8];
        let stored = |value: i64, kind: &Kind| match kind {
            Kind::Int2 => i16::try_from(value).ok().map(|value| value.to_be_bytes().to_vec()),
            Kind::Int4 => i32::try_from(value).ok().map(|value| value.to_be_bytes().to_vec()),
            _ => Some(value.to_be_bytes().to_vec()),
        };
        let edges = [i64::MIN, -2_147_483_649, -2_147_483_648, -32_769, -32_768, -256, -1];
        for value in edges.into_iter().flat_map(|value| [value, -1 - value]) {
            for from in &kinds {
                let Some(bytes) = stored(value, from) else { continue };
                for to in &kinds {
                    let found = resized(&bytes, from, to).map(Cow::into_owned);
                    assert_eq!(found, stored(value, to), "{value} from {from:?} to {to:?}");
                }
            }
        }
    }

    #[test]
    fn other_types_are_left_alone() {
        assert_eq!(
            resized(b"12345", &Kind::Text, &Kind::Varchar(Some(9))),
            Some(Cow::Borrowed(&b"12345"[..]))
        );
        assert_eq!(
            resized(&[0, 0, 0, 1], &Kind::Int4, &Kind::Numeric(None)),
            Some(Cow::Borrowed(&[0, 0, 0, 1][..]))
        );
    }
}
