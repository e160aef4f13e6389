//! Real feeds, where they are, and harmless changes of how they are spelled.

use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// A file of the real data, which lies beside a checkout, or `None` (said once) where it does not.
pub fn real(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data").join(name);
    if path.exists() {
        return Some(path);
    }
    println!("skipped: no real data ({name})");
    None
}

/// The lines of an NDJSON file, plain or .gz.
pub fn lines(path: &Path) -> Vec<String> {
    let bytes = std::fs::read(path).expect("read the feed");
    let mut text = String::new();
    if path.extension().is_some_and(|extension| extension == "gz") {
        flate2::read::MultiGzDecoder::new(&bytes[..]).read_to_string(&mut text).expect("unpack the feed");
    } else {
        text = String::from_utf8(bytes).expect("a feed is UTF-8");
    }
    text.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned).collect()
}

/// The same document with the keys of every object in reverse order.
///
/// Through a `Value`, which holds the real data's numbers exactly: integers below 2^53, two decimals.
pub fn keys_reversed(line: &str) -> String {
    fn write(value: &Value, out: &mut String) {
        match value {
            Value::Object(members) => {
                let parts = members.iter().rev().map(|(name, value)| (Some(name), value));
                list('{', '}', parts, out);
            }
            Value::Array(items) => list('[', ']', items.iter().map(|value| (None, value)), out),
            scalar => out.push_str(&scalar.to_string()),
        }
    }
    fn list<'a>(
        open: char,
        close: char,
        parts: impl Iterator<Item = (Option<&'a String>, &'a Value)>,
        out: &mut String,
    ) {
        out.push(open);
        for (at, (name, value)) in parts.enumerate() {
            if at > 0 {
                out.push(',');
            }
            if let Some(name) = name {
                out.push_str(&Value::from(name.as_str()).to_string());
                out.push(':');
            }
            write(value, out);
        }
        out.push(close);
    }
    let mut out = String::with_capacity(line.len());
    write(&serde_json::from_str(line).expect("a line is JSON"), &mut out);
    out
}

/// The same document with a space after every comma and colon outside strings.
pub fn spaced(line: &str) -> String {
    let mut out = String::with_capacity(line.len() * 11 / 10);
    let (mut in_string, mut escaped) = (false, false);
    for c in line.chars() {
        out.push(c);
        match c {
            _ if escaped => escaped = false,
            '\\' if in_string => escaped = true,
            '"' => in_string = !in_string,
            ',' | ':' if !in_string => out.push_str(" \t "),
            _ => {}
        }
    }
    out
}

#[test]
fn respelled_documents_are_the_same_documents() {
    let line = r#"{"a":[1,{"b":"x, \"y\": z","c":1.50}],"d":null}"#;
    let same = |other: &str| {
        serde_json::from_str::<Value>(other).unwrap() == serde_json::from_str::<Value>(line).unwrap()
    };
    assert!(same(&keys_reversed(line)) && keys_reversed(line).starts_with(r#"{"d":null"#));
    assert!(same(&spaced(line)) && spaced(line).contains("\"x, \\\"y\\\": z\""));
}
