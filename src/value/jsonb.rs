//! `jsonb` in the text its binary output carries, and `json` as plain text.
//!
//! The normal form is the server's: members sorted by the length of their name
//! in bytes, then by its bytes, the last of equal names kept; `, ` and `: `
//! between them; numbers as `numeric` gives them back; of the characters only
//! those escaped that JSON requires. A version byte goes before it.

use std::borrow::Cow;

use super::{Encoded, ValueError, check_storable, out_of_range};
use crate::json::Json;
use crate::value::numeric::Decimal;

const VERSION: u8 = 1;

/// A `jsonb` holds less than 256 MiB. The limit keeps short spellings of long numbers from filling the memory.
const BYTES_MAX: usize = 0x0fff_ffff;

/// Appends a `jsonb`.
pub(super) fn encode(json: &Json<'_>, out: &mut Vec<u8>) -> Result<Encoded, ValueError> {
    encode_within(BYTES_MAX, json, out)
}

pub(super) fn encode_within(
    bytes_max: usize,
    json: &Json<'_>,
    out: &mut Vec<u8>,
) -> Result<Encoded, ValueError> {
    out.push(VERSION);
    append(json, out.len() + bytes_max, out)?;
    Ok(Encoded::Value)
}

fn append(json: &Json<'_>, end_max: usize, out: &mut Vec<u8>) -> Result<(), ValueError> {
    match json {
        Json::Null => out.extend_from_slice(b"null"),
        Json::Bool(value) => out.extend_from_slice(if *value { b"true" } else { b"false" }),
        Json::Number(text) => {
            let decimal = Decimal::parse(text).and_then(|decimal| decimal.append_scaled(out));
            decimal.ok_or_else(|| out_of_range(json, "numeric"))?;
        }
        Json::String(text) => append_string(text, out)?,
        Json::Array(items) => {
            let append = |item: &Json<'_>, out: &mut Vec<u8>| append(item, end_max, out);
            append_list(b"[]", b", ", items, append, out)?;
        }
        Json::Object(members) => append_members(members, end_max, out)?,
    }
    if out.len() > end_max {
        return Err(ValueError("larger than jsonb can hold".into()));
    }
    Ok(())
}

/// Appends the members of an object in the order of the normal form.
fn append_members(
    members: &[(Cow<'_, str>, Json<'_>)],
    end_max: usize,
    out: &mut Vec<u8>,
) -> Result<(), ValueError> {
    let mut sorted: Vec<_> = members.iter().collect();
    // Stable, so that of equal names the last written stays last.
    sorted.sort_by_key(|(name, _)| (name.len(), name.as_bytes()));
    out.push(b'{');
    let first = out.len();
    for (at, (name, value)) in sorted.iter().enumerate() {
        let start = out.len();
        if start > first {
            out.extend_from_slice(b", ");
        }
        append_string(name, out)?;
        out.extend_from_slice(b": ");
        append(value, end_max, out)?;
        // The server, too, drops what a later member supersedes only after it has read it: it has to be valid.
        if sorted.get(at + 1).is_some_and(|(next, _)| next == name) {
            out.truncate(start);
        }
    }
    out.push(b'}');
    Ok(())
}

fn append_list<T>(
    brackets: &[u8; 2],
    separator: &[u8],
    items: &[T],
    mut append: impl FnMut(&T, &mut Vec<u8>) -> Result<(), ValueError>,
    out: &mut Vec<u8>,
) -> Result<(), ValueError> {
    out.push(brackets[0]);
    for (at, item) in items.iter().enumerate() {
        if at > 0 {
            out.extend_from_slice(separator);
        }
        append(item, out)?;
    }
    out.push(brackets[1]);
    Ok(())
}

fn append_string(text: &str, out: &mut Vec<u8>) -> Result<(), ValueError> {
    check_storable(text)?;
    out.push(b'"');
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            0x08 => out.extend_from_slice(b"\\b"),
            0x0c => out.extend_from_slice(b"\\f"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            control @ 0..=0x1f => out.extend_from_slice(format!("\\u{control:04x}").as_bytes()),
            _ => out.push(byte),
        }
    }
    out.push(b'"');
    Ok(())
}

/// A value as JSON text without white space: members and numbers as the document has them.
pub(super) fn plain(json: &Json<'_>) -> Result<String, ValueError> {
    let mut out = Vec::new();
    append_as_written(json, &mut out)?;
    String::from_utf8(out).map_err(|_| ValueError("not UTF-8".into()))
}

fn append_as_written(json: &Json<'_>, out: &mut Vec<u8>) -> Result<(), ValueError> {
    match json {
        Json::Null => out.extend_from_slice(b"null"),
        Json::Bool(value) => out.extend_from_slice(if *value { b"true" } else { b"false" }),
        Json::Number(text) => out.extend_from_slice(text.as_bytes()),
        Json::String(text) => append_string(text, out)?,
        Json::Array(items) => append_list(b"[]", b",", items, append_as_written, out)?,
        Json::Object(members) => {
            append_list(
                b"{}",
                b",",
                members,
                |(name, value), out| {
                    append_string(name, out)?;
                    out.push(b':');
                    append_as_written(value, out)
                },
                out,
            )?;
        }
    }
    Ok(())
}

/// A stored `jsonb` whose numbers have no trailing zero decimals: `[1.50, 2.0]` is `[1.5, 2]`.
pub(super) fn trimmed(stored: &[u8]) -> Cow<'_, [u8]> {
    let mut trimmed = Vec::new();
    let (mut copied, mut at) = (0, 0);
    while at < stored.len() {
        match stored[at] {
            b'"' => at = after_string(stored, at),
            // Outside strings a point is that of a number; the normal form has no exponents.
            b'.' => {
                let end = at + 1 + stored[at + 1..].iter().take_while(|byte| byte.is_ascii_digit()).count();
                let keep = end_of_decimals(stored, at, end);
                if keep < end {
                    trimmed.extend_from_slice(&stored[copied..keep]);
                    copied = end;
                }
                at = end;
            }
            _ => at += 1,
        }
    }
    if copied == 0 {
        return Cow::Borrowed(stored);
    }
    trimmed.extend_from_slice(&stored[copied..]);
    Cow::Owned(trimmed)
}

/// Where the decimals of `point..end` end without their trailing zeros, or at the point if none is left.
fn end_of_decimals(stored: &[u8], point: usize, end: usize) -> usize {
    let last = stored[point..end].iter().rposition(|byte| *byte != b'0').unwrap_or_default();
    if last == 0 { point } else { point + last + 1 }
}

/// The place after the string whose quote opens at `open`.
fn after_string(stored: &[u8], open: usize) -> usize {
    let mut at = open + 1;
    while at < stored.len() {
        match stored[at] {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    at
}
