//! Values to park in a column: nobody has them, it is hoped, and a check may allow one of them.
//!
//! They are texts that the server converts. Far-away values come first; then such as checks on the form of a value
//! allow: neighbours of a number, a text of the same pattern.

use crate::row::Cell;
use crate::value::Kind;

/// Values to try for a column that holds `stored` now, best first; `text` is that as text, for a type that is not
/// known here. Other rows have another `salt`.
pub(crate) fn candidates(kind: &Kind, stored: Cell<'_>, text: &str, salt: u64) -> Vec<String> {
    let small = salt % 1000;
    match kind {
        Kind::Int2 => {
            numbers(i16::MAX as i128 - small as i128, i16::MIN as i128 + small as i128, number(stored))
        }
        Kind::Int4 => {
            let far = i128::from(salt % 1_000_000);
            numbers(i32::MAX as i128 - far, i32::MIN as i128 + far, number(stored))
        }
        Kind::Int8 => {
            let far = i128::from(salt >> 8);
            numbers(i64::MAX as i128 - far, i64::MIN as i128 + far, number(stored))
        }
        Kind::Numeric(None) => numbers(1 << 80 | i128::from(salt), -(1 << 80 | i128::from(salt)), None),
        Kind::Numeric(Some((precision, scale))) => {
            let digits = u32::try_from(i32::from(*precision) - i32::from(*scale)).unwrap_or(0).min(30);
            let top = 10i128.pow(digits) - 1;
            let far = i128::from(salt) % (top / 10 + 1);
            numbers(top - far, far - top, None)
        }
        Kind::Float8 => vec![format!("{salt}e90"), format!("-{salt}e90")],
        Kind::Text => texts(utf8(stored), salt, usize::MAX),
        Kind::Varchar(length) => {
            texts(utf8(stored), salt, length.map_or(usize::MAX, |length| length as usize))
        }
        Kind::Date | Kind::Timestamp(_) | Kind::Timestamptz(_) => {
            let day = |year: u64| format!("{year}-{:02}-{:02}", salt / 7 % 12 + 1, salt / 84 % 28 + 1);
            vec![day(10_000 + salt % 200_000), day(1 + salt % 1000), "infinity".into(), "-infinity".into()]
        }
        Kind::Uuid => vec![format!("{salt:016x}{:016x}", salt.rotate_left(29))],
        Kind::Bool => vec!["true".into(), "false".into()],
        Kind::Enum(labels) => labels.to_vec(),
        Kind::Jsonb => vec![format!("\"{salt:016x}\"")],
        Kind::Array(_) | Kind::Composite(_) | Kind::Domain(_) | Kind::Json | Kind::Server => {
            of_any_type(salt).into_iter().chain(alike(text, salt)).collect()
        }
    }
}

/// Far up, far down, then around what is stored, then a little less far: an index may look at remainders.
fn numbers(high: i128, low: i128, stored: Option<i128>) -> Vec<String> {
    let near = stored.into_iter().flat_map(|n| (1..=NEIGHBOURS).flat_map(move |step| [n + step, n - step]));
    let less_far = (1..=LESS_FAR).flat_map(|step| [high - step, low + step]);
    [high, low].into_iter().chain(near).chain(less_far).map(|n| n.to_string()).collect()
}

/// How much less far.
const LESS_FAR: i128 = 2;

/// How far from the stored number a free one is looked for.
const NEIGHBOURS: i128 = 16;

/// The number in a stored cell of an integer type.
fn number(cell: Cell<'_>) -> Option<i128> {
    let bytes = cell.bytes()?;
    let sign = if bytes.first()? & 0x80 == 0 { 0 } else { 0xff };
    let mut wide = [sign; 16];
    wide[16 - bytes.len()..].copy_from_slice(bytes);
    Some(i128::from_be_bytes(wide))
}

fn utf8(cell: Cell<'_>) -> &str {
    cell.bytes().and_then(|bytes| std::str::from_utf8(bytes).ok()).unwrap_or_default()
}

fn texts(stored: &str, salt: u64, length: usize) -> Vec<String> {
    let cut = |text: String| text.chars().take(length).collect::<String>();
    let far = std::iter::once(cut(format!("{salt:016x}")));
    far.chain(alike(stored, salt)).chain([cut(salt.to_string())]).collect()
}

/// How many texts of the stored one's pattern are tried.
const ALIKE: u32 = 6;

/// Texts of the pattern of one.
fn alike(text: &str, salt: u64) -> impl Iterator<Item = String> {
    (0..ALIKE).map(move |nth| scrambled(text, salt.rotate_left(nth * 11)))
}

/// Every digit becomes another digit, every letter another letter of its case; of bits, others.
fn scrambled(text: &str, salt: u64) -> String {
    let mut random = fastrand::Rng::with_seed(salt);
    let digits = if text.chars().all(|c| matches!(c, '0' | '1')) { 2 } else { 10 };
    let other = |c: char| match c {
        '0'..='9' => random.digit(digits),
        'a'..='z' => random.lowercase(),
        'A'..='Z' => random.uppercase(),
        c => c,
    };
    text.chars().map(other).collect()
}

/// Texts that one type or another reads: ranges, character types of extensions, addresses, times, bit strings.
fn of_any_type(salt: u64) -> Vec<String> {
    let (n, day) = (1_000_000_000 + salt % 1_000_000_000, 10_000 + salt % 200_000);
    vec![
        "empty".into(),
        format!("x{salt:016x}"),
        format!("\\x{salt:016x}"),
        format!("fd00::{:x}:{:x}:{:x}", salt & 0xffff, salt >> 16 & 0xffff, salt >> 32 & 0xffff),
        format!("[{n},{})", n + 1),
        format!("[{day}-01-01,{day}-01-02)"),
        n.to_string(),
        format!("{:02}:{:02}:{:02}.{:06}", salt % 24, salt / 24 % 60, salt / 1440 % 60, salt % 1_000_000),
        format!(
            "{:02x}:{:02x}:{:02x}:{:02x}:{:02x}:{:02x}",
            salt & 255,
            salt >> 8 & 255,
            salt >> 16 & 255,
            salt >> 24 & 255,
            salt >> 32 & 255,
            salt >> 40 & 255
        ),
        format!("{salt:064b}"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p19_numbers_fit_their_types_and_neighbours_follow() {
        let of = |kind, stored: &[u8]| candidates(&kind, Cell::Value(stored), "", 1_234_567);
        let small = of(Kind::Int2, &(-5i16).to_be_bytes());
        assert_eq!(small[..4], ["32200", "-32201", "-4", "-6"]);
        assert!(small.iter().all(|text| text.parse::<i16>().is_ok()));
        assert!(of(Kind::Int4, &7i32.to_be_bytes()).iter().all(|text| text.parse::<i32>().is_ok()));
        assert!(of(Kind::Int8, &7i64.to_be_bytes()).iter().all(|text| text.parse::<i64>().is_ok()));
        let decimal = candidates(&Kind::Numeric(Some((5, 2))), Cell::Null, "", 1_234_567);
        assert!(decimal.iter().all(|text| text.parse::<i32>().unwrap().abs() < 1000), "{decimal:?}");
    }

    #[test]
    fn p19_texts_keep_the_length_and_the_pattern() {
        let texts = candidates(&Kind::Varchar(Some(6)), Cell::Value(b"AB-123"), "", 99);
        let is_alike = |text: &String| {
            let shape = |c: char| {
                if c.is_ascii_digit() {
                    '0'
                } else if c.is_ascii_uppercase() {
                    'A'
                } else {
                    c
                }
            };
            text.chars().map(shape).collect::<String>() == "AA-000"
        };
        assert!(texts.iter().all(|text| text.len() <= 6));
        assert!(texts.iter().filter(|text| is_alike(text)).count() >= 4, "{texts:?}");
    }
}
