//! Decimal numbers, exact at any length, and PostgreSQL's binary `numeric`.
//!
//! A [`Decimal`] is a view of a number's text in which every digit is addressed
//! by its decimal position: 0 is the ones, −1 the tenths. Digits beyond the text
//! are zeros that nobody has to write down, so `1e999999999` costs nothing until
//! it has been checked against the limits of the type.
//!
//! On the wire a `numeric` is four 16-bit fields (count of digits, weight of the
//! first, sign, display scale) and its digits in base 10,000, without zeros at
//! either end. Digit `i` counts `10000^(weight - i)`.

use std::borrow::Cow;

use super::{Encoded, ValueError, ask, found, number_text, out_of_range};
use crate::json::Json;

/// Digits before the point that a `numeric` can have.
const WHOLE_DIGITS_MAX: i64 = 131_072;
/// Digits after the point that a `numeric` can have.
const SCALE_MAX: i64 = 16_383;
/// The server refuses exponents from here on, whatever the digits (from version 16 on it takes this very one).
const EXPONENT_LIMIT: i64 = (i32::MAX / 2) as i64;

/// Decimal digits in one of the wire's digits.
const GROUP: i64 = 4;
const BASE: u16 = 10_000;
const HEADER: usize = 8;
const NEGATIVE: u16 = 0x4000;

/// A number as a JSON document spells it.
pub(super) struct Decimal<'a> {
    negative: bool,
    /// Digits before the point.
    whole: &'a [u8],
    /// Digits after the point.
    fraction: &'a [u8],
    /// Saturated far beyond any limit that matters.
    exponent: i64,
    /// Positions of the first and the last digit that is not zero; `None` for zero.
    span: Option<(i64, i64)>,
}

impl<'a> Decimal<'a> {
    /// Reads a number in the grammar of JSON; `None` for any other text.
    pub(super) fn parse(text: &'a str) -> Option<Self> {
        let unsigned = text.strip_prefix('-').unwrap_or(text);
        let (whole, rest) = digits(unsigned.as_bytes());
        let (fraction, rest) = match rest.split_first() {
            Some((b'.', after)) => Some(digits(after)).filter(|(fraction, _)| !fraction.is_empty())?,
            _ => (&[][..], rest),
        };
        if whole.is_empty() || (whole[0] == b'0' && whole.len() > 1) {
            return None;
        }
        let exponent = parse_exponent(rest)?;
        let negative = unsigned.len() < text.len();
        let mut decimal = Decimal { negative, whole, fraction, exponent, span: None };
        decimal.span = decimal.find_span();
        Some(decimal)
    }

    fn find_span(&self) -> Option<(i64, i64)> {
        let nonzero = |digit: &u8| *digit != b'0';
        let at_whole = self.whole.iter().position(nonzero);
        let at_fraction = || self.fraction.iter().position(nonzero).map(|at| at + self.whole.len());
        let first = at_whole.or_else(at_fraction)?;
        let last_fraction = self.fraction.iter().rposition(nonzero).map(|at| at + self.whole.len());
        let last = last_fraction.or_else(|| self.whole.iter().rposition(nonzero))?;
        let position = |at: usize| self.whole.len() as i64 + self.exponent - 1 - at as i64;
        Some((position(first), position(last)))
    }

    pub(super) fn is_zero(&self) -> bool {
        self.span.is_none()
    }

    /// Whether both are one number, however they are spelled.
    pub(super) fn equals(&self, other: &Decimal<'_>) -> bool {
        match (self.span, other.span) {
            (None, None) => true,
            (Some((first, last)), Some(span)) => {
                let same = |at| self.digit(at) == other.digit(at);
                self.negative == other.negative && (first, last) == span && (last..=first).all(same)
            }
            _ => false,
        }
    }

    /// The digit at a decimal position, zero where none is written.
    fn digit(&self, position: i64) -> u8 {
        let index = self.whole.len() as i64 + self.exponent - 1 - position;
        let Ok(index) = usize::try_from(index) else { return 0 };
        let digit = self.whole.get(index).or_else(|| self.fraction.get(index - self.whole.len()));
        digit.map_or(0, |digit| digit - b'0')
    }

    /// Digits after the point when the exponent is carried out.
    fn scale(&self) -> i64 {
        (self.fraction.len() as i64 - self.exponent).max(0)
    }

    /// `None` if there is a fraction, `Some(None)` if the number is beyond 64 bits.
    pub(super) fn integer(&self) -> Option<Option<i64>> {
        let Some((first, last)) = self.span else { return Some(Some(0)) };
        if last < 0 {
            return None;
        }
        if first > 18 {
            return Some(None);
        }
        let sum = (0..=first).rev().fold(0i128, |sum, at| sum * 10 + i128::from(self.digit(at)));
        Some(i64::try_from(if self.negative { -sum } else { sum }).ok())
    }

    /// Appends the shortest plain spelling: `1.50e1` is `15`. `None` beyond the limits of `numeric`.
    pub(super) fn append_trimmed(&self, out: &mut Vec<u8>) -> Option<()> {
        let scale = self.span.map_or(0, |(_, last)| (-last).max(0));
        self.append_plain(scale, out)
    }

    /// Appends the text `numeric` gives back: `1.50e1` is `15.0`. `None` beyond the limits of `numeric`.
    pub(super) fn append_scaled(&self, out: &mut Vec<u8>) -> Option<()> {
        self.is_numeric().then_some(())?;
        self.append_plain(self.scale(), out)
    }

    /// Whether a `numeric` without a modifier can hold the number with the scale it is written with.
    fn is_numeric(&self) -> bool {
        let first = self.span.map_or(0, |(first, _)| first);
        self.exponent < EXPONENT_LIMIT && first < WHOLE_DIGITS_MAX && self.scale() <= SCALE_MAX
    }

    fn append_plain(&self, scale: i64, out: &mut Vec<u8>) -> Option<()> {
        let first = self.span.map_or(0, |(first, _)| first);
        if first >= WHOLE_DIGITS_MAX || scale > SCALE_MAX {
            return None;
        }
        if self.negative && !self.is_zero() {
            out.push(b'-');
        }
        if self.exponent == 0 {
            out.extend_from_slice(self.whole);
        } else {
            out.extend((0..=first.max(0)).rev().map(|at| b'0' + self.digit(at)));
        }
        if scale > 0 {
            out.push(b'.');
            out.extend((1..=scale).map(|at| b'0' + self.digit(-at)));
        }
        Some(())
    }

    /// The four digits of one digit of the wire, without those below position `bottom`.
    fn group(&self, weight: i64, bottom: i64) -> u16 {
        let low = weight * GROUP;
        (low..low + GROUP).rev().fold(0, |sum, at| {
            let digit = if at < bottom { 0 } else { self.digit(at) };
            sum * 10 + u16::from(digit)
        })
    }

    /// The digits down to position `bottom`, rounded there half away from zero.
    fn rounded(&self, bottom: i64) -> Groups {
        let (first, last) = self.span.unwrap_or((bottom, bottom));
        let bottom = bottom.max(last);
        let (top, low) = (first.max(bottom).div_euclid(GROUP), bottom.div_euclid(GROUP));
        let mut groups = Groups { weight: top, digits: Vec::with_capacity((top - low + 2) as usize) };
        groups.digits.extend((low..=top).rev().map(|weight| self.group(weight, bottom)));
        if self.digit(bottom - 1) >= 5 {
            groups.add_at_end(10u16.pow(bottom.rem_euclid(GROUP) as u32));
        }
        groups.strip();
        groups
    }
}

/// The run of digits that `bytes` begins with, and what follows it.
fn digits(bytes: &[u8]) -> (&[u8], &[u8]) {
    bytes.split_at(bytes.iter().take_while(|byte| byte.is_ascii_digit()).count())
}

fn parse_exponent(text: &[u8]) -> Option<i64> {
    let Some((marker, signed)) = text.split_first() else { return Some(0) };
    if !marker.eq_ignore_ascii_case(&b'e') {
        return None;
    }
    let (negative, unsigned) = match signed.split_first()? {
        (b'-', rest) => (true, rest),
        (b'+', rest) => (false, rest),
        _ => (false, signed),
    };
    let (digits, rest) = digits(unsigned);
    if digits.is_empty() || !rest.is_empty() {
        return None;
    }
    let sum = digits.iter().fold(0i64, |sum, digit| (sum * 10 + i64::from(digit - b'0')).min(1 << 40));
    Some(if negative { -sum } else { sum })
}

/// Digits of the wire, the first of which counts `10000^weight`.
struct Groups {
    weight: i64,
    digits: Vec<u16>,
}

impl Groups {
    fn add_at_end(&mut self, amount: u16) {
        let mut carry = amount;
        for digit in self.digits.iter_mut().rev() {
            let sum = *digit + carry;
            (*digit, carry) = (sum % BASE, sum / BASE);
        }
        if carry > 0 {
            self.digits.insert(0, carry);
            self.weight += 1;
        }
    }

    /// Drops zeros at both ends; zero itself has no digits and the weight 0.
    fn strip(&mut self) {
        let leading = self.digits.iter().take_while(|digit| **digit == 0).count();
        self.digits.drain(..leading);
        self.weight -= leading as i64;
        while self.digits.last() == Some(&0) {
            self.digits.pop();
        }
        if self.digits.is_empty() {
            self.weight = 0;
        }
    }

    /// Decimal digits before the point; negative for zeros right after it.
    fn whole_digits(&self) -> i64 {
        let first = self.digits.first().map_or(0, |digit| i64::from(digit.ilog10()) + 1);
        self.weight * GROUP + first
    }

    fn append(&self, negative: bool, scale: u16, out: &mut Vec<u8>) {
        let sign = if negative && !self.digits.is_empty() { NEGATIVE } else { 0 };
        let header = [self.digits.len() as u16, self.weight as i16 as u16, sign, scale];
        out.extend(header.iter().chain(&self.digits).flat_map(|field| field.to_be_bytes()));
    }
}

/// Appends a `numeric`, rounded to the scale of `modifier` (precision and scale) if there is one.
pub(super) fn encode(
    json: &Json<'_>,
    modifier: Option<(u16, i16)>,
    out: &mut Vec<u8>,
) -> Result<Encoded, ValueError> {
    let text = number_text(json)?;
    let Some(decimal) = Decimal::parse(text) else {
        return ask(text);
    };
    // With a modifier too: a cast of text reads it as it is written before it rounds.
    if !decimal.is_numeric() {
        return Err(out_of_range(json, "numeric"));
    }
    match modifier {
        None => decimal.rounded(-decimal.scale()).append(decimal.negative, decimal.scale() as u16, out),
        Some((precision, scale)) => append_rounded(&decimal, precision, scale, out).ok_or_else(|| {
            let value = found(json);
            ValueError(format!("numeric field overflow: {value} does not fit numeric({precision},{scale})"))
        })?,
    }
    Ok(Encoded::Value)
}

fn append_rounded(decimal: &Decimal<'_>, precision: u16, scale: i16, out: &mut Vec<u8>) -> Option<()> {
    let whole_digits_max = i64::from(precision) - i64::from(scale);
    // Rounding can only add to the digits before the point.
    if decimal.span.is_some_and(|(first, _)| first >= whole_digits_max) {
        return None;
    }
    let groups = decimal.rounded(-i64::from(scale));
    if !groups.digits.is_empty() && groups.whole_digits() > whole_digits_max {
        return None;
    }
    groups.append(decimal.negative, scale.max(0) as u16, out);
    Some(())
}

/// A stored `numeric` with the smallest display scale that shows all its digits.
pub(super) fn trimmed(stored: &[u8]) -> Cow<'_, [u8]> {
    let field = |at: usize| stored.get(at..at + 2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]));
    let (Some(count), Some(weight), Some(sign), Some(scale)) = (field(0), field(2), field(4), field(6))
    else {
        return Cow::Borrowed(stored);
    };
    // NaN and the infinities have no scale to trim.
    if sign != 0 && sign != NEGATIVE {
        return Cow::Borrowed(stored);
    }
    let last = if count == 0 { None } else { field(HEADER + 2 * (usize::from(count) - 1)) };
    let needed = last.map_or(0, |last| scale_needed(i64::from(weight as i16) - i64::from(count) + 1, last));
    if needed >= i64::from(scale) {
        return Cow::Borrowed(stored);
    }
    let mut bytes = stored.to_vec();
    bytes[6..HEADER].copy_from_slice(&(needed as u16).to_be_bytes());
    Cow::Owned(bytes)
}

/// Digits after the point that the last digit of the wire reaches to.
fn scale_needed(weight: i64, digit: u16) -> i64 {
    let zeros = [10, 100, 1000].iter().filter(|power| digit % **power == 0).count() as i64;
    (-weight * GROUP - zeros).max(0)
}
