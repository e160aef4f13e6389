//! Any JSON value into a column of any type: never a panic, nothing half written, and numbers that decode to
//! what was written.
//!
//! A `numeric` is decoded here by long-hand arithmetic on decimal digits that shares nothing with the encoder.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use rowdelta::json::Json;
use rowdelta::value::{ColumnType, Encoded, Kind, comparison_form, encode};

#[derive(Arbitrary, Debug)]
enum Scalar {
    Json(Vec<u8>),
    Text(String),
    Number { negative: bool, whole: u64, zeros: u8, fraction: Option<(u8, u32)>, exponent: Option<i16> },
}

#[derive(Arbitrary, Debug)]
struct Input {
    scalar: Scalar,
    kind: u8,
    precision: u16,
    scale: i16,
    zone: Option<String>,
}

fuzz_target!(|input: Input| {
    let text = match &input.scalar {
        Scalar::Json(bytes) => bytes.clone(),
        Scalar::Text(text) => serde_json::to_vec(text).expect("a string is JSON"),
        Scalar::Number { negative, whole, zeros, fraction, exponent } => {
            let mut text = format!("{}{whole}", if *negative { "-" } else { "" });
            if *whole > 0 {
                text.push_str(&"0".repeat(usize::from(zeros % 40)));
            }
            if let Some((zeros, digits)) = fraction {
                text.push_str(&format!(".{}{digits}", "0".repeat(usize::from(zeros % 40))));
            }
            if let Some(exponent) = exponent {
                text.push_str(&format!("e{exponent}"));
            }
            text.into_bytes()
        }
    };
    let Ok(json) = Json::parse(&text) else { return };
    let kind = kind(&input);
    let ty = ColumnType {
        sql: "t".into(),
        oid: 0,
        array_oid: 0,
        input: String::new(),
        send: String::new(),
        kind: kind.clone(),
    };
    let mut out = b"before".to_vec();
    let encoded = encode(&json, &ty, input.zone.as_deref(), &mut out);
    let stored = out.strip_prefix(b"before").expect("what was there stays");
    match &encoded {
        Ok(Encoded::Value) => check_value(&json, &ty, stored),
        Ok(Encoded::Null) => assert!(json == Json::Null && stored.is_empty()),
        Ok(Encoded::Ask(text)) => assert!(stored.is_empty() && !text.contains('\0')),
        Err(error) => {
            assert!(stored.is_empty() && !error.0.is_empty());
            check_refusal(&json, &kind);
        }
    }
});

fn kind(input: &Input) -> Kind {
    // The limits of the type: precision 1 to 1000, scale −1000 to 1000.
    let (precision, scale) = (1 + input.precision % 1000, input.scale % 1001);
    match input.kind % 18 {
        0 => Kind::Bool,
        1 => Kind::Int2,
        2 => Kind::Int4,
        3 => Kind::Int8,
        4 => Kind::Float8,
        5 | 6 => Kind::Numeric(None),
        7 => Kind::Numeric(Some((precision, scale))),
        8 => Kind::Numeric(Some((1 + precision % 20, scale % 20))),
        9 => Kind::Text,
        10 => Kind::Varchar(Some(u32::from(precision))),
        11 => Kind::Date,
        12 => Kind::Timestamp((precision % 7) as u8),
        13 => Kind::Timestamptz((precision % 7) as u8),
        14 => Kind::Uuid,
        15 | 16 => Kind::Jsonb,
        _ => Kind::Enum(["a".into(), "1.5".into(), "true".into()].into()),
    }
}

fn check_value(json: &Json<'_>, ty: &ColumnType, stored: &[u8]) {
    let form = comparison_form(&ty.kind, stored);
    assert_eq!(comparison_form(&ty.kind, &form), form, "a comparison form is its own");
    let number = number_of(json).and_then(Plain::parse);
    match &ty.kind {
        Kind::Bool => assert!(matches!(stored, [0 | 1])),
        Kind::Int2 | Kind::Int4 | Kind::Int8 => {
            let value =
                stored.iter().fold(-i128::from(stored[0] >> 7), |sum, byte| sum << 8 | i128::from(*byte));
            if let Some(number) = number {
                assert_eq!(number, Plain::parse(&value.to_string()).expect("an integer is a number"));
            }
        }
        Kind::Float8 => assert!(f64::from_be_bytes(stored.try_into().expect("eight bytes")).is_finite()),
        Kind::Numeric(modifier) => {
            let number = number.expect("what is encoded here is a number of JSON");
            let (value, scale) = decode(stored);
            let expected = match modifier {
                None => number.clone(),
                Some((_, scale)) => number.rounded(i64::from(*scale)),
            };
            assert_eq!(value, expected, "{number:?}");
            let scale_expected = modifier.map_or(number.scale_written, |(_, scale)| i64::from(scale).max(0));
            assert_eq!(scale, scale_expected);
            if modifier.is_none() {
                let smallest = decode(&form);
                assert_eq!(smallest, (value, (-expected.lowest).max(0)));
            }
        }
        Kind::Varchar(Some(max)) => {
            let text = std::str::from_utf8(stored).expect("text is UTF-8");
            assert!(text.chars().count() <= *max as usize);
        }
        Kind::Text | Kind::Varchar(None) | Kind::Enum(_) => drop(std::str::from_utf8(stored).expect("UTF-8")),
        Kind::Date => assert_eq!(stored.len(), 4),
        Kind::Timestamp(_) | Kind::Timestamptz(_) => assert_eq!(stored.len(), 8),
        Kind::Uuid => assert_eq!(stored.len(), 16),
        Kind::Jsonb => check_jsonb(ty, stored),
        Kind::Array(_) | Kind::Composite(_) => unreachable!("not drawn here"),
        Kind::Json | Kind::Domain(_) | Kind::Server => unreachable!("the server converts"),
    }
}

/// The normal form is JSON and its own normal form.
fn check_jsonb(ty: &ColumnType, stored: &[u8]) {
    for form in [stored, &comparison_form(&ty.kind, stored)] {
        assert_eq!(form[0], 1, "the version");
        let json = Json::parse(&form[1..]).expect("the normal form is JSON");
        let mut again = Vec::new();
        assert_eq!(encode(&json, ty, None, &mut again), Ok(Encoded::Value));
        assert_eq!(again, form);
    }
}

/// A number is refused only where it does not fit.
fn check_refusal(json: &Json<'_>, kind: &Kind) {
    let Some(number) = number_of(json).and_then(Plain::parse) else { return };
    let whole_digits = |number: &Plain| number.digits.len() as i64 + number.lowest;
    match kind {
        Kind::Numeric(None) => assert!(whole_digits(&number) > 131_072 || number.scale_written > 16_383),
        Kind::Numeric(Some((precision, scale))) => {
            let rounded = number.rounded(i64::from(*scale));
            let too_long = whole_digits(&rounded) > i64::from(*precision) - i64::from(*scale);
            let unreadable = whole_digits(&number) > 131_072 || number.scale_written > 16_383;
            assert!(unreadable || (!rounded.digits.is_empty() && too_long), "{rounded:?}");
        }
        _ => {}
    }
}

fn number_of<'a>(json: &'a Json<'_>) -> Option<&'a str> {
    match json {
        Json::Number(text) => Some(text),
        Json::String(text) => Some(text),
        _ => None,
    }
}

/// ± digits × 10^lowest, without zeros at either end of the digits; zero has none, and is not negative.
#[derive(Clone, Debug)]
struct Plain {
    negative: bool,
    digits: Vec<u8>,
    lowest: i64,
    /// Digits after the point as it is written, exponent carried out. No part of the value.
    scale_written: i64,
}

impl PartialEq for Plain {
    fn eq(&self, other: &Self) -> bool {
        (self.negative, &self.digits, self.lowest) == (other.negative, &other.digits, other.lowest)
    }
}

impl Plain {
    /// `None` for what is no JSON number, and for exponents that no column could hold.
    fn parse(text: &str) -> Option<Self> {
        // Not `str::parse`: it also takes `.5` and `inf`.
        serde_json::from_str::<&serde_json::value::RawValue>(text).ok()?;
        let text = text.trim();
        let (negative, unsigned) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        unsigned.starts_with(|first: char| first.is_ascii_digit()).then_some(())?;
        let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => {
                (mantissa, exponent.parse::<i64>().ok().filter(|e| e.abs() < 1_000_000)?)
            }
            None => (unsigned, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let digits = whole.bytes().chain(fraction.bytes()).map(|byte| byte - b'0').collect();
        let lowest = exponent - fraction.len() as i64;
        Some(Plain { negative, digits, lowest, scale_written: (-lowest).max(0) }.normal())
    }

    fn normal(mut self) -> Self {
        while self.digits.last() == Some(&0) {
            self.digits.pop();
            self.lowest += 1;
        }
        let zeros = self.digits.iter().take_while(|digit| **digit == 0).count();
        self.digits.drain(..zeros);
        if self.digits.is_empty() {
            (self.negative, self.lowest) = (false, 0);
        }
        self
    }

    /// To so many digits after the point, half away from zero.
    fn rounded(&self, scale: i64) -> Self {
        let mut rounded = self.clone();
        let dropped = -scale - self.lowest;
        if dropped <= 0 {
            return rounded;
        }
        let kept = self.digits.len() as i64 - dropped;
        rounded.lowest = -scale;
        if kept < 0 {
            rounded.digits.clear();
            return rounded.normal();
        }
        let up = self.digits[kept as usize] >= 5;
        rounded.digits.truncate(kept as usize);
        if up {
            let nines = rounded.digits.iter().rev().take_while(|digit| **digit == 9).count();
            let at = rounded.digits.len() - nines;
            rounded.digits[at..].fill(0);
            match at.checked_sub(1) {
                Some(before) => rounded.digits[before] += 1,
                None => rounded.digits.insert(0, 1),
            }
        }
        rounded.normal()
    }
}

/// The value of a `numeric` on the wire, and its display scale.
fn decode(wire: &[u8]) -> (Plain, i64) {
    let fields: Vec<u16> = wire.chunks(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect();
    let (count, weight, sign, scale) = (fields[0], fields[1] as i16, fields[2], fields[3]);
    let groups = &fields[4..];
    assert_eq!(usize::from(count), groups.len());
    assert!(groups.first() != Some(&0) && groups.last() != Some(&0), "zeros at an end");
    assert!(matches!(sign, 0 | 0x4000));
    let digits = groups.iter().flat_map(|group| {
        assert!(*group < 10_000);
        [group / 1000, group / 100 % 10, group / 10 % 10, group % 10].map(|digit| digit as u8)
    });
    let lowest = (i64::from(weight) - i64::from(count) + 1) * 4;
    let value = Plain { negative: sign != 0, digits: digits.collect(), lowest, scale_written: 0 }.normal();
    assert!(sign == 0 || !value.digits.is_empty(), "a negative zero");
    (value, i64::from(scale))
}
