//! What must hold of a value that was encoded, left to the server, or refused.

use rowdelta::json::Json;
use rowdelta::value::{Attribute, ColumnType, Element, Encoded, Kind, comparison_form, encode};

use crate::literal::Item;
use crate::number::{Plain, decode};
use crate::{binary, literal};

/// The bytes decode to the value of the document, at any depth.
pub fn value(json: &Json<'_>, ty: &ColumnType, stored: &[u8]) {
    let form = comparison_form(&ty.kind, stored);
    assert_eq!(comparison_form(&ty.kind, &form), form, "a comparison form is its own");
    match &ty.kind {
        Kind::Bool => {
            assert!(matches!(stored, [0 | 1]));
            if let Json::Bool(value) = json {
                assert_eq!(stored, [u8::from(*value)]);
            }
        }
        Kind::Int2 | Kind::Int4 | Kind::Int8 => {
            let value =
                stored.iter().fold(-i128::from(stored[0] >> 7), |sum, byte| sum << 8 | i128::from(*byte));
            if let Some(number) = number_of(json) {
                assert_eq!(number, Plain::parse(&value.to_string()).expect("an integer is a number"));
            }
        }
        Kind::Float8 => {
            let value = f64::from_be_bytes(stored.try_into().expect("eight bytes"));
            let text = scalar_text(json).expect("a number or a string");
            assert!(value.is_finite());
            assert_eq!(text.trim().parse().map(f64::to_bits), Ok(value.to_bits()));
        }
        Kind::Numeric(modifier) => numeric(json, *modifier, stored, &form),
        Kind::Text | Kind::Varchar(_) | Kind::Enum(_) => {
            let text = std::str::from_utf8(stored).expect("text is UTF-8");
            same_text(json, text);
            if let Kind::Varchar(Some(max)) = ty.kind {
                assert!(text.chars().count() <= max as usize);
            }
        }
        Kind::Date => assert_eq!(stored.len(), 4),
        Kind::Timestamp(_) | Kind::Timestamptz(_) => assert_eq!(stored.len(), 8),
        Kind::Uuid => {
            let digits: String = stored.iter().map(|byte| format!("{byte:02x}")).collect();
            let written = scalar_text(json).expect("a string").replace('-', "");
            assert_eq!(digits, written.to_ascii_lowercase());
        }
        Kind::Jsonb => jsonb(json, ty, stored),
        Kind::Array(element) => array(json, element, stored, &form),
        Kind::Composite(attributes) => composite(json, attributes, stored, &form),
        Kind::Json | Kind::Domain(_) | Kind::Server => unreachable!("the server converts"),
    }
}

fn numeric(json: &Json<'_>, modifier: Option<(u16, i16)>, stored: &[u8], form: &[u8]) {
    let number = number_of(json).expect("what is encoded here is a number of JSON");
    let (value, scale) = decode(stored);
    let expected = match modifier {
        None => number.clone(),
        Some((_, scale)) => number.rounded(i64::from(scale)),
    };
    assert_eq!(value, expected, "{number:?}");
    let scale_expected = modifier.map_or(number.scale_written, |(_, scale)| i64::from(scale).max(0));
    assert_eq!(scale, scale_expected);
    if modifier.is_none() {
        let smallest = decode(form);
        assert_eq!(smallest, (value, (-expected.lowest).max(0)));
    }
}

/// The normal form is JSON, the document's, and its own normal form.
fn jsonb(json: &Json<'_>, ty: &ColumnType, stored: &[u8]) {
    for form in [stored, &comparison_form(&ty.kind, stored)] {
        assert_eq!(form[0], 1, "the version");
        let parsed = Json::parse(&form[1..]).expect("the normal form is JSON");
        assert!(same_json(json, &parsed), "{parsed:?}");
        let mut again = Vec::new();
        assert_eq!(encode(&parsed, ty, None, &mut again), Ok(Encoded::Value));
        assert_eq!(again, form);
    }
}

fn array(json: &Json<'_>, element: &Element, stored: &[u8], form: &[u8]) {
    let mut items = Vec::new();
    let lengths = shape(json, element, &mut items).expect("lists of one depth are of one length");
    let (array, form) = (binary::array(stored), binary::array(form));
    assert_eq!(array.lengths, if items.is_empty() { vec![] } else { lengths });
    assert_eq!(array.elements.len(), items.len());
    assert_eq!(array.oid, element.ty.oid);
    assert_eq!(array.has_null, items.contains(&&Json::Null));
    assert_eq!((&form.lengths, form.has_null), (&array.lengths, array.has_null));
    assert_eq!(form.oid, compared_oid(array.oid));
    let forms = array.elements.iter().zip(form.elements);
    items.iter().zip(forms).for_each(|(json, (stored, form))| part(json, &element.ty, *stored, form));
}

fn composite(json: &Json<'_>, attributes: &[Attribute], stored: &[u8], form: &[u8]) {
    let (stored, form) = (binary::composite(stored), binary::composite(form));
    assert_eq!((stored.len(), form.len()), (attributes.len(), attributes.len()));
    let parts = stored.into_iter().zip(form);
    for (Attribute { name, ty }, ((oid, stored), (form_oid, form))) in attributes.iter().zip(parts) {
        assert_eq!((oid, form_oid), (ty.oid, compared_oid(ty.oid)));
        part(last_member(json, name), ty, stored, form);
    }
}

/// A value within another: stored, and in the comparison form of the whole.
fn part(json: &Json<'_>, ty: &ColumnType, stored: Option<&[u8]>, form: Option<&[u8]>) {
    assert_eq!(*json == Json::Null, stored.is_none());
    assert_eq!(stored.map(|stored| comparison_form(&ty.kind, stored)).as_deref(), form);
    stored.into_iter().for_each(|stored| value(json, ty, stored));
}

/// The oids of types of one's own change by dump and restore.
fn compared_oid(oid: u32) -> u32 {
    if oid < 16_384 { oid } else { 0 }
}

/// What the server is asked to convert says what the document says, at any depth.
pub fn text(json: &Json<'_>, ty: &ColumnType, text: &str) {
    assert!(!text.contains('\0'));
    match (&ty.kind, json) {
        (Kind::Array(element), Json::Array(_)) => {
            let mut items = Vec::new();
            let lengths = shape(json, element, &mut items).expect("lists of one depth are of one length");
            let list = literal::array(text, element.delimiter);
            let lengths = if items.is_empty() { &[0] } else { lengths.as_slice() };
            same_list(&list, lengths, element, &mut items.into_iter());
        }
        (Kind::Composite(attributes), Json::Object(_)) => {
            if attributes.is_empty() {
                return assert_eq!(text, "()");
            }
            let words = literal::composite(text);
            assert_eq!(words.len(), attributes.len());
            for (Attribute { name, ty }, word) in attributes.iter().zip(words) {
                let member = last_member(json, name);
                assert_eq!(*member == Json::Null, word.is_none());
                word.into_iter().for_each(|word| self::text(member, ty, &word));
            }
        }
        (Kind::Domain(base), _) => self::text(json, base, text),
        (Kind::Json, _) => assert_eq!(Json::parse(text.as_bytes()).as_ref(), Ok(json)),
        (Kind::Jsonb, _) => assert!(same_json(json, &Json::parse(text.as_bytes()).expect("JSON"))),
        (Kind::Text | Kind::Varchar(_), _) => same_text(json, text),
        (Kind::Int2 | Kind::Int4 | Kind::Int8, _) if Plain::parse(text).is_some() => {
            let written = scalar_text(json).expect("a scalar");
            let written = written.trim_matches([' ', '\t', '\n', '\r', '\x0b', '\x0c']);
            match number_of(json) {
                Some(number) => assert_eq!(Plain::parse(text), Some(number)),
                None => assert_eq!(written.parse::<i64>(), text.parse()),
            }
        }
        _ => assert_eq!(Some(text), scalar_text(json).as_deref()),
    }
}

/// The items of a literal, from the first to the last.
fn same_list<'j>(
    item: &Item,
    lengths: &[usize],
    element: &Element,
    expected: &mut impl Iterator<Item = &'j Json<'j>>,
) {
    if let [length, below @ ..] = lengths {
        let Item::List(items) = item else { panic!("no list") };
        assert_eq!(items.len(), *length);
        return items.iter().for_each(|item| same_list(item, below, element, expected));
    }
    let expected = expected.next().expect("as many as in the document");
    match item {
        Item::List(_) => panic!("a list too deep"),
        Item::Null => assert_eq!(*expected, Json::Null),
        Item::Word(word) => {
            assert_ne!(*expected, Json::Null);
            text(expected, &element.ty, word);
        }
    }
}

/// Refused is only what does not fit.
pub fn refusal(json: &Json<'_>, ty: &ColumnType) {
    let taken = |json: &Json<'_>, ty: &ColumnType| encode(json, ty, None, &mut Vec::new()).is_ok();
    match (&ty.kind, json) {
        (Kind::Array(element), Json::Array(_)) => {
            let mut items = Vec::new();
            let lengths = shape(json, element, &mut items);
            let fits = lengths.is_some_and(|lengths| lengths.len() <= 6);
            assert!(
                !fits || !items.iter().all(|item| taken(item, &element.ty)),
                "all of its items are taken"
            );
        }
        (Kind::Composite(attributes), Json::Object(_)) => {
            let mut members =
                attributes.iter().map(|attribute| (last_member(json, &attribute.name), attribute));
            assert!(
                !members.all(|(member, attribute)| taken(member, &attribute.ty)),
                "all of its members are taken"
            );
        }
        (Kind::Domain(base), _) => refusal(json, base),
        (Kind::Numeric(modifier), _) => {
            if let Some(number) = number_of(json) {
                numeric_refusal(&number, *modifier);
            }
        }
        _ => {}
    }
}

fn numeric_refusal(number: &Plain, modifier: Option<(u16, i16)>) {
    let whole_digits = |number: &Plain| number.digits.len() as i64 + number.lowest;
    let is_far = number.exponent >= i64::from(i32::MAX / 2);
    let unreadable = is_far || whole_digits(number) > 131_072 || number.scale_written > 16_383;
    let too_long = modifier.is_some_and(|(precision, scale)| {
        let rounded = number.rounded(i64::from(scale));
        !rounded.digits.is_empty() && whole_digits(&rounded) > i64::from(precision) - i64::from(scale)
    });
    assert!(unreadable || too_long, "{number:?}");
}

/// The lengths of lists in lists, and their items; `None` where two of one depth are of different lengths.
fn shape<'j>(json: &'j Json<'j>, element: &Element, items: &mut Vec<&'j Json<'j>>) -> Option<Vec<usize>> {
    let Json::Array(list) = json else {
        items.push(json);
        return Some(vec![]);
    };
    if matches!(element.ty.kind.base(), Kind::Jsonb | Kind::Json | Kind::Array(_)) {
        items.extend(list);
        return Some(vec![list.len()]);
    }
    let mut below = list.iter().map(|inner| shape(inner, element, items));
    let first = below.next().unwrap_or_else(|| Some(vec![]))?;
    let rest = below.all(|other| other.as_ref() == Some(&first));
    rest.then(|| [&[list.len()], first.as_slice()].concat())
}

fn last_member<'j>(json: &'j Json<'j>, name: &str) -> &'j Json<'j> {
    let Json::Object(members) = json else { panic!("no object") };
    members.iter().filter(|(member, _)| member == name).map(|(_, value)| value).last().unwrap_or(&Json::Null)
}

/// One value, for `jsonb`: members in any order, of equal names the last, numbers by their value.
fn same_json(a: &Json<'_>, b: &Json<'_>) -> bool {
    match (a, b) {
        (Json::Number(a), Json::Number(b)) => Plain::parse(a) == Plain::parse(b),
        (Json::Array(a), Json::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same_json(a, b))
        }
        (Json::Object(members), Json::Object(others)) => {
            let known = |name: &str| others.iter().any(|(other, _)| other == name);
            members.iter().all(|(name, _)| known(name))
                && others.iter().all(|(name, value)| same_json(last_member(a, name), value))
        }
        _ => a == b,
    }
}

fn same_text(json: &Json<'_>, text: &str) {
    match json {
        Json::Number(number) => assert_eq!(Plain::parse(number), Plain::parse(text)),
        _ => assert_eq!(Some(text), scalar_text(json).as_deref()),
    }
}

fn scalar_text(json: &Json<'_>) -> Option<String> {
    match json {
        Json::Bool(value) => Some(value.to_string()),
        Json::Number(text) => Some((*text).to_owned()),
        Json::String(text) => Some(text.to_string()),
        Json::Null | Json::Array(_) | Json::Object(_) => None,
    }
}

fn number_of(json: &Json<'_>) -> Option<Plain> {
    match json {
        Json::Number(text) => Plain::parse(text),
        Json::String(text) => Plain::parse(text),
        _ => None,
    }
}
