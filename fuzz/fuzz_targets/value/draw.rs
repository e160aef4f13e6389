//! What is drawn: a type, and JSON that fits it more often than not.

use std::fmt;

use arbitrary::{Arbitrary, Result, Unstructured};
use rowdelta::value::{Attribute, ColumnType, Element, Kind};

pub struct Input {
    pub ty: ColumnType,
    pub json: Vec<u8>,
    pub zone: Option<String>,
}

/// How deep types are made of others.
const TYPE_DEPTH: u8 = 3;
/// How deep lists and objects are drawn that no type asks for.
const TREE_DEPTH: u8 = 4;

impl<'a> Arbitrary<'a> for Input {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        let ty = column_type(u, TYPE_DEPTH)?;
        let mut json = Vec::new();
        match u.ratio(1, 8)? {
            true => json = Vec::arbitrary(u)?,
            false => fitting(u, &ty, &mut json)?,
        }
        Ok(Input { ty, json, zone: Option::arbitrary(u)? })
    }
}

/// The document as text: a crash is read in it.
impl fmt::Debug for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} into {:?}, zone {:?}", String::from_utf8_lossy(&self.json), self.ty, self.zone)
    }
}

fn column_type(u: &mut Unstructured<'_>, depth: u8) -> Result<ColumnType> {
    let kind = match depth {
        0 => scalar_kind(u)?,
        _ => kind(u, depth)?,
    };
    // The first oid that is not PostgreSQL's own is 16,384.
    let oid = *u.choose(&[16, 16_383, 16_384, 90_000])?;
    let (input, send) = (String::new(), String::new());
    Ok(ColumnType { sql: "t".into(), oid, array_oid: 0, input, send, kind })
}

fn kind(u: &mut Unstructured<'_>, depth: u8) -> Result<Kind> {
    Ok(match u.int_in_range(0..=5)? {
        0..=1 => {
            let ty = column_type(u, depth - 1)?;
            // PostgreSQL has arrays of arrays only by way of a domain.
            let ty = match ty.kind {
                Kind::Array(_) => ColumnType { kind: Kind::Domain(ty.clone().into()), ..ty },
                _ => ty,
            };
            Kind::Array(Element { ty, delimiter: if u.ratio(1, 8)? { ';' } else { ',' } }.into())
        }
        2..=3 => {
            let names = ["a", "b", "c d", "\"", "\\é"].into_iter().take(u.int_in_range(0..=5)?);
            let attribute = |name: &str| Ok(Attribute { name: name.into(), ty: column_type(u, depth - 1)? });
            Kind::Composite(names.map(attribute).collect::<Result<Vec<_>>>()?.into())
        }
        4 => Kind::Domain(column_type(u, depth - 1)?.into()),
        _ => scalar_kind(u)?,
    })
}

fn scalar_kind(u: &mut Unstructured<'_>) -> Result<Kind> {
    // The limits of the type: precision 1 to 1000, scale −1000 to 1000.
    let (precision, scale) = (u.int_in_range(1..=1000)?, u.int_in_range(-1000..=1000)?);
    Ok(match u.int_in_range(0..=19)? {
        0 => Kind::Bool,
        1 => Kind::Int2,
        2 => Kind::Int4,
        3 => Kind::Int8,
        4 => Kind::Float8,
        5 | 6 => Kind::Numeric(None),
        7 => Kind::Numeric(Some((precision, scale))),
        8 => Kind::Numeric(Some((1 + precision % 20, scale % 20))),
        9 => Kind::Text,
        10 => Kind::Varchar(u.ratio(3, 4)?.then_some(u32::from(precision))),
        11 => Kind::Date,
        12 => Kind::Timestamp((precision % 7) as u8),
        13 => Kind::Timestamptz((precision % 7) as u8),
        14 => Kind::Uuid,
        15 | 16 => Kind::Jsonb,
        17 => Kind::Json,
        18 => Kind::Server,
        _ => Kind::Enum(["a".into(), "1.5".into(), "true".into()].into()),
    })
}

/// Appends JSON that the type may take; now and then any.
fn fitting(u: &mut Unstructured<'_>, ty: &ColumnType, json: &mut Vec<u8>) -> Result<()> {
    if u.ratio(1, 16)? {
        return tree(u, TREE_DEPTH, json);
    }
    match &ty.kind {
        Kind::Array(element) => {
            let lengths = (0..u.int_in_range(1..=3)?).map(|_| u.int_in_range(0..=3));
            let mut lengths = lengths.collect::<Result<Vec<usize>>>()?;
            if u.ratio(1, 32)? {
                // PostgreSQL takes six dimensions.
                lengths = vec![1; u.int_in_range(4..=8)?];
            }
            lists(u, &lengths, &element.ty, json)
        }
        Kind::Composite(attributes) => {
            json.push(b'{');
            for Attribute { name, ty } in attributes.iter() {
                // A member may be missing, or stand there twice.
                for _ in 0..*u.choose(&[1, 1, 1, 1, 0, 2])? {
                    member(name, json);
                    fitting(u, ty, json)?;
                }
            }
            if u.ratio(1, 8)? {
                member(<&str>::arbitrary(u)?, json);
                tree(u, 1, json)?;
            }
            json.push(b'}');
            Ok(())
        }
        Kind::Domain(base) => fitting(u, base, json),
        Kind::Json | Kind::Jsonb => tree(u, TREE_DEPTH, json),
        Kind::Int2 | Kind::Int4 | Kind::Int8 => {
            append(json, i64::arbitrary(u)? >> u.int_in_range(0..=63)?);
            Ok(())
        }
        Kind::Numeric(_) | Kind::Float8 => number(u, json),
        Kind::Uuid => {
            let mut text = format!("{:032x}", u128::arbitrary(u)?);
            for at in [20, 16, 12, 8] {
                text.insert(at, '-');
            }
            string(&text, json);
            Ok(())
        }
        Kind::Date | Kind::Timestamp(_) | Kind::Timestamptz(_) => {
            let (day, clock) = (u.int_in_range(0..=99_999_999)?, u.int_in_range(0..=999_999)?);
            let offset = *u.choose(&["", "Z", "+02", "-11:30", " BC"])?;
            let (year, month, day) = (day / 10_000, day / 100 % 100 % 14, day % 100 % 34);
            let (hour, minute, second) = (clock / 10_000 % 26, clock / 100 % 100 % 62, clock % 100 % 62);
            let clock = format!("T{hour:02}:{minute:02}:{second:02}{}", u.choose(&["", ".5", ".1234567"])?);
            let clock = if u.ratio(1, 3)? { String::new() } else { clock + offset };
            string(&format!("{year:04}-{month:02}-{day:02}{clock}"), json);
            Ok(())
        }
        Kind::Enum(labels) => {
            string(u.choose(labels)?, json);
            Ok(())
        }
        Kind::Bool | Kind::Text | Kind::Varchar(_) | Kind::Server => scalar(u, json),
    }
}

/// Lists in lists; now and then one is of another length than its siblings.
fn lists(u: &mut Unstructured<'_>, lengths: &[usize], ty: &ColumnType, json: &mut Vec<u8>) -> Result<()> {
    let [length, below @ ..] = lengths else { return fitting(u, ty, json) };
    json.push(b'[');
    for _ in 0..length + usize::from(u.ratio(1, 64)?) {
        separate(b'[', json);
        match u.ratio(1, 16)? {
            true => json.extend_from_slice(b"null"),
            false => lists(u, below, ty, json)?,
        }
    }
    json.push(b']');
    Ok(())
}

/// Any JSON, of bounded depth.
fn tree(u: &mut Unstructured<'_>, depth: u8, json: &mut Vec<u8>) -> Result<()> {
    let count = if depth == 0 { 0 } else { u.int_in_range(0..=4)? };
    match u.int_in_range(0..=4)? {
        0 if depth > 0 => {
            json.push(b'[');
            for _ in 0..count {
                separate(b'[', json);
                tree(u, depth - 1, json)?;
            }
            json.push(b']');
        }
        1 if depth > 0 => {
            json.push(b'{');
            for _ in 0..count {
                member(u.choose(&["a", "b", "", "é", "\"\\"])?, json);
                tree(u, depth - 1, json)?;
            }
            json.push(b'}');
        }
        _ => scalar(u, json)?,
    }
    Ok(())
}

fn scalar(u: &mut Unstructured<'_>, json: &mut Vec<u8>) -> Result<()> {
    match u.int_in_range(0..=7)? {
        0 => json.extend_from_slice(u.choose(&["null", "true", "false"])?.as_bytes()),
        1..=3 => number(u, json)?,
        // Some spelling that only a fuzzer thinks of.
        4 => {
            let raw = <&[u8]>::arbitrary(u)?;
            match serde_json::from_slice::<&serde_json::value::RawValue>(raw) {
                Ok(valid) => json.extend_from_slice(valid.get().as_bytes()),
                Err(_) => json.extend_from_slice(b"null"),
            }
        }
        _ => string(<&str>::arbitrary(u)?, json),
    }
    Ok(())
}

fn number(u: &mut Unstructured<'_>, json: &mut Vec<u8>) -> Result<()> {
    let mut text =
        format!("{}{}", if u.arbitrary()? { "-" } else { "" }, u64::arbitrary(u)? >> u.int_in_range(0..=63)?);
    let zeros = |u: &mut Unstructured<'_>| Ok("0".repeat(u.int_in_range(0..=40)?));
    if u.ratio(1, 4)? && !text.ends_with('0') {
        text += &zeros(u)?;
    }
    if u.ratio(1, 2)? {
        text += &format!(".{}{}", zeros(u)?, u32::arbitrary(u)?);
    }
    match u.int_in_range(0..=15)? {
        // Long when it is written out: few, or the time goes into copying zeros.
        0 => text += &format!("e{}", i16::arbitrary(u)?),
        1..=5 => text += &format!("E{:+}", i8::arbitrary(u)?),
        _ => {}
    }
    append(json, text);
    Ok(())
}

fn member(name: &str, json: &mut Vec<u8>) {
    separate(b'{', json);
    string(name, json);
    json.push(b':');
}

/// A comma, unless nothing stands before.
fn separate(open: u8, json: &mut Vec<u8>) {
    if json.last() != Some(&open) {
        json.push(b',');
    }
}

fn string(text: &str, json: &mut Vec<u8>) {
    json.extend_from_slice(&serde_json::to_vec(text).expect("a string is JSON"));
}

fn append(json: &mut Vec<u8>, text: impl fmt::Display) {
    json.extend_from_slice(text.to_string().as_bytes());
}
