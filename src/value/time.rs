//! Dates and timestamps in ISO 8601, and only there.
//!
//! The server would take many more spellings, but what it makes of `01/02/2024`
//! depends on the session's DateStyle and of `today` on the day. Those are
//! refused rather than asked about, so that a feed means the same everywhere.
//!
//! A date counts days, a timestamp microseconds, from 2000-01-01. Fractions of
//! seconds are rounded in two steps, as the server does: to microseconds half to
//! even, then to the column's precision half away from 2000-01-01.

use super::{Encoded, ValueError, expected, found, out_of_range, trim};
use crate::json::Json;

const SECOND: i64 = 1_000_000;
const DAY: i64 = 86_400 * SECOND;
/// The first day after the range of `date`: 5874898-01-01.
const DATE_END: i64 = 2_145_031_949;
/// The first microsecond after the range of `timestamp`: 294277-01-01.
const TIMESTAMP_END: i64 = 9_223_371_331_200_000_000;
/// The first day of `date`, and of `timestamp`: 4714-11-24 BC.
const DATE_START: i64 = -2_451_545;
/// The server's parser has a buffer of little more.
const BYTES_MAX: usize = 120;

/// A text that names a day, perhaps a time of day and an offset from UTC.
struct Written {
    /// Since 2000-01-01.
    days: i64,
    /// Microseconds of the day, up to and with its end; `None` for a date alone.
    time: Option<i64>,
    /// Microseconds east of UTC.
    offset: Option<i64>,
}

enum Moment {
    Infinity,
    MinusInfinity,
    Written(Written),
}

/// Appends a `date`: the day as it is written, whatever time and offset follow.
pub(super) fn date(json: &Json<'_>, out: &mut Vec<u8>) -> Result<Encoded, ValueError> {
    let (_, moment) = parse(json).ok_or_else(|| expected("a date such as 2024-05-31", json))?;
    let days = match moment {
        Moment::Infinity => i32::MAX,
        Moment::MinusInfinity => i32::MIN,
        Moment::Written(written) if (DATE_START..DATE_END).contains(&written.days) => written.days as i32,
        Moment::Written(_) => return Err(out_of_range(json, "date")),
    };
    out.extend_from_slice(&days.to_be_bytes());
    Ok(Encoded::Value)
}

/// Appends a `timestamp without time zone`: the clock as it is written, whatever offset follows.
pub(super) fn timestamp(json: &Json<'_>, precision: u8, out: &mut Vec<u8>) -> Result<Encoded, ValueError> {
    let shape = "a timestamp such as 2024-05-31T10:00:00";
    let (_, moment) = parse(json).ok_or_else(|| expected(shape, json))?;
    append_micros(json, &moment, 0, precision, out)
}

/// Appends a `timestamp with time zone`: the instant.
pub(super) fn timestamptz(
    json: &Json<'_>,
    precision: u8,
    zone: Option<&str>,
    out: &mut Vec<u8>,
) -> Result<Encoded, ValueError> {
    let shape = "a timestamp such as 2024-05-31T10:00:00Z";
    let (text, moment) = parse(json).ok_or_else(|| expected(shape, json))?;
    let offset = match &moment {
        Moment::Written(written) => written.offset,
        Moment::Infinity | Moment::MinusInfinity => Some(0),
    };
    match (offset, zone) {
        (Some(offset), _) => append_micros(json, &moment, offset, precision, out),
        (None, Some(_)) => Ok(Encoded::Ask(text.to_owned())),
        (None, None) => {
            let value = found(json);
            Err(ValueError(format!("{value} has no time zone; declare one with zone = \"…\"")))
        }
    }
}

fn append_micros(
    json: &Json<'_>,
    moment: &Moment,
    offset: i64,
    precision: u8,
    out: &mut Vec<u8>,
) -> Result<Encoded, ValueError> {
    let micros = match moment {
        Moment::Infinity => i64::MAX,
        Moment::MinusInfinity => i64::MIN,
        Moment::Written(written) => {
            let micros = micros(written, offset).ok_or_else(|| out_of_range(json, "timestamp"))?;
            round(micros, precision)
        }
    };
    out.extend_from_slice(&micros.to_be_bytes());
    Ok(Encoded::Value)
}

fn micros(written: &Written, offset: i64) -> Option<i64> {
    let local = written.days.checked_mul(DAY)?.checked_add(written.time.unwrap_or(0))?;
    local.checked_sub(offset).filter(|micros| (DATE_START * DAY..TIMESTAMP_END).contains(micros))
}

/// To `precision` digits of a second, half away from zero.
fn round(micros: i64, precision: u8) -> i64 {
    let unit = 10i64.pow(6 - u32::from(precision.min(6)));
    let rounded = (micros.abs() + unit / 2) / unit * unit;
    if micros < 0 { -rounded } else { rounded }
}

/// The text without white space around it, and what it says; `None` for what is not ISO 8601 or not in the calendar.
fn parse<'a>(json: &'a Json<'_>) -> Option<(&'a str, Moment)> {
    let Json::String(text) = json else { return None };
    let text = trim(text);
    if text.eq_ignore_ascii_case("infinity") {
        return Some((text, Moment::Infinity));
    }
    if text.eq_ignore_ascii_case("-infinity") {
        return Some((text, Moment::MinusInfinity));
    }
    let before_christ = text.len().checked_sub(3).and_then(|at| text.split_at_checked(at));
    let before_christ = before_christ.filter(|(_, era)| era.eq_ignore_ascii_case(" bc"));
    let mut cursor = Cursor {
        rest: before_christ.map_or(text, |(text, _)| text.trim_end_matches(' ')).as_bytes(),
        before_christ: before_christ.is_some(),
    };
    let written = (text.len() <= BYTES_MAX).then(|| cursor.written()).flatten()?;
    cursor.rest.is_empty().then_some((text, Moment::Written(written)))
}

/// What is left of a text to read.
struct Cursor<'a> {
    rest: &'a [u8],
    before_christ: bool,
}

impl<'a> Cursor<'a> {
    fn written(&mut self) -> Option<Written> {
        let days = self.day()?;
        if self.rest.is_empty() {
            return Some(Written { days, time: None, offset: None });
        }
        self.one_of(b"Tt ")?;
        let time = Some(self.time()?);
        while self.one_of(b" ").is_some() {}
        let offset = if self.rest.is_empty() { None } else { Some(self.offset()?) };
        Some(Written { days, time, offset })
    }

    fn day(&mut self) -> Option<i64> {
        // Four digits or more: `24-05-31` could be anything.
        let year = self.run().filter(|digits| (4..=7).contains(&digits.len())).map(number)?;
        self.one_of(b"-")?;
        let month = self.two()?;
        self.one_of(b"-")?;
        let day = self.two()?;
        // Before the year 1 was the year 1 BC.
        let (valid, year) = (year > 0, if self.before_christ { 1 - year } else { year });
        let valid = valid && (1..=12).contains(&month) && (1..=days_in_month(year, month)).contains(&day);
        valid.then(|| days_since_2000(year, month, day))
    }

    /// Microseconds of the day.
    fn time(&mut self) -> Option<i64> {
        let hour = self.two()?;
        self.one_of(b":")?;
        let minute = self.two()?;
        let mut second = 0;
        let mut fraction = 0;
        if self.one_of(b":").is_some() {
            second = self.two()?;
            if self.rest.first() == Some(&b'.') {
                fraction = self.fraction()?;
            }
        }
        let micros = ((hour * 60 + minute) * 60 + second) * SECOND + fraction;
        // Second 60 and hour 24 exist, but no moment after the end of the day.
        (minute < 60 && second <= 60 && micros <= DAY).then_some(micros)
    }

    /// Microseconds, by way of a double because that is the server's way: it decides how halves round.
    fn fraction(&mut self) -> Option<i64> {
        let start = self.rest;
        self.one_of(b".")?;
        let digits = self.run()?;
        let fraction: f64 = std::str::from_utf8(&start[..digits.len() + 1]).ok()?.parse().ok()?;
        Some((fraction * SECOND as f64).round_ties_even() as i64)
    }

    /// Microseconds east of UTC.
    fn offset(&mut self) -> Option<i64> {
        let sign = match self.one_of(b"Zz+-")? {
            b'+' => 1,
            b'-' => -1,
            _ => return Some(0),
        };
        let hour = self.two()?;
        let (mut minute, mut second) = (0, 0);
        if self.one_of(b":").is_some() {
            minute = self.two()?;
            if self.one_of(b":").is_some() {
                second = self.two()?;
            }
        } else if !self.rest.is_empty() {
            minute = self.two()?;
        }
        let valid = hour <= 15 && minute < 60 && second < 60;
        valid.then_some(sign * ((hour * 60 + minute) * 60 + second) * SECOND)
    }

    fn one_of(&mut self, bytes: &[u8]) -> Option<u8> {
        let (first, rest) = self.rest.split_first().filter(|(first, _)| bytes.contains(first))?;
        self.rest = rest;
        Some(*first)
    }

    /// One digit or more.
    fn run(&mut self) -> Option<&'a [u8]> {
        let (digits, rest) =
            self.rest.split_at(self.rest.iter().take_while(|byte| byte.is_ascii_digit()).count());
        self.rest = rest;
        Some(digits).filter(|digits| !digits.is_empty())
    }

    fn two(&mut self) -> Option<i64> {
        let (digits, rest) = self.rest.split_at_checked(2)?;
        self.rest = rest;
        digits.iter().all(u8::is_ascii_digit).then(|| number(digits))
    }
}

fn number(digits: &[u8]) -> i64 {
    digits.iter().fold(0, |sum, digit| sum * 10 + i64::from(digit - b'0'))
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// In the Gregorian calendar, also before it was in use.
fn days_since_2000(year: i64, month: i64, day: i64) -> i64 {
    // Years that begin in March put the leap day at their end.
    let (year, month) = if month < 3 { (year - 1, month + 9) } else { (year, month - 3) };
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    year * 365 + leap_days + (153 * month + 2) / 5 + day - 730_426
}
