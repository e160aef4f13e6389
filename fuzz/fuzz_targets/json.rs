//! `Json::parse` against serde_json: both accept or both refuse, and what they accept is the same value.
//!
//! One exception is documented: nesting beyond `DEPTH_MAX` is refused, wherever its brackets stand outside
//! strings. serde_json is asked one level at a time (`RawValue`), so that it has no limit of its own here and
//! keeps the text of numbers and the order and repetition of names.
#![no_main]

use std::fmt;

use libfuzzer_sys::fuzz_target;
use rowdelta::json::{DEPTH_MAX, Json};
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

fuzz_target!(|bytes: &[u8]| {
    let parsed = Json::parse(bytes);
    if depth(bytes) > DEPTH_MAX {
        assert!(parsed.is_err(), "nested too deep, and accepted");
        return;
    }
    let oracle = std::str::from_utf8(bytes).ok().and_then(|text| {
        let raw: &RawValue = serde_json::from_str(text).ok()?;
        expand(raw.get())
    });
    match (&parsed, &oracle) {
        (Ok(parsed), Some(oracle)) => assert_eq!(parsed, oracle),
        (Err(_), None) => {}
        _ => panic!("parse: {parsed:?}; serde_json: {oracle:?}"),
    }
});

/// The deepest nesting of brackets outside strings.
fn depth(bytes: &[u8]) -> usize {
    let (mut depth, mut deepest, mut string, mut escaped) = (0usize, 0, false, false);
    for byte in bytes {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if string => escaped = true,
            b'"' => string = !string,
            b'[' | b'{' if !string => depth += 1,
            b']' | b'}' if !string => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}

/// A value as serde_json has it; `None` where a string has no Unicode form (a lone surrogate).
fn expand(text: &str) -> Option<Json<'_>> {
    Some(match text.as_bytes()[0] {
        b'n' => Json::Null,
        b't' => Json::Bool(true),
        b'f' => Json::Bool(false),
        b'"' => Json::String(serde_json::from_str::<String>(text).ok()?.into()),
        b'[' => {
            let items: Vec<&RawValue> = serde_json::from_str(text).ok()?;
            Json::Array(items.into_iter().map(|item| expand(item.get())).collect::<Option<_>>()?)
        }
        b'{' => {
            let mut deserializer = serde_json::Deserializer::from_str(text);
            let members = deserializer.deserialize_map(Members).ok()?;
            let member =
                |(name, raw): (String, &'_ RawValue)| Some((name.into(), expand(raw_text(text, raw))?));
            Json::Object(members.into_iter().map(member).collect::<Option<_>>()?)
        }
        _ => Json::Number(text),
    })
}

/// The text of a part, which lies in that of the whole.
fn raw_text<'a>(whole: &'a str, part: &RawValue) -> &'a str {
    let start = part.get().as_ptr() as usize - whole.as_ptr() as usize;
    &whole[start..start + part.get().len()]
}

/// Members in the order of the text, repeated names included.
struct Members;

impl<'de> Visitor<'de> for Members {
    type Value = Vec<(String, &'de RawValue)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(members)
    }
}
