//! The neutral tree between the notations and the mapping, and how it is read.
//!
//! A [`Node`] is a value with its line; an [`At`] is a node on the way of reading,
//! with the dotted place it has. The readers on [`Faults`] return what they could
//! read and note what they could not.

use serde_json::Value as JsonValue;
use toml::de::{DeTable, DeValue};

use super::faults::{Fault, Faults, MappingError, alternatives, nearest};
use crate::mapping::TableName;
use crate::mapping::path::{Path, Segment, split};

/// A value and the line it stands in.
pub(super) struct Node {
    line: Option<usize>,
    pub(super) value: Value,
}

/// The values a mapping is made of; anything else is a fault wherever it stands.
pub(super) enum Value {
    Text(String),
    Integer(i64),
    /// As JSON spells it.
    Float(String),
    Bool(bool),
    List(Vec<Node>),
    Table(Vec<(String, Node)>),
    /// A number that is not kept exactly: what is wrong with it.
    Unfit(String),
    Other(&'static str),
}

impl Value {
    fn describe(&self) -> &'static str {
        match self {
            Value::Text(_) => "a string",
            Value::Integer(_) => "an integer",
            Value::Float(_) => "a float",
            Value::Bool(_) => "a boolean",
            Value::List(_) => "a list",
            Value::Table(_) => "a table",
            Value::Unfit(_) => "a number that is not kept exactly",
            Value::Other(kind) => kind,
        }
    }
}

impl Node {
    /// In the words of its notation: what has no lines is JSON.
    fn describe(&self) -> &'static str {
        match self.value {
            Value::Table(_) if self.line.is_none() => "an object",
            ref value => value.describe(),
        }
    }
}

/// A place in the mapping.
#[derive(Clone, Default)]
pub(super) struct Spot {
    pub(super) place: String,
    pub(super) line: Option<usize>,
}

impl Spot {
    /// The place of `key` in the table at this one.
    pub(super) fn key(&self, key: &str) -> Spot {
        let bare = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
        let key = if !key.is_empty() && key.chars().all(bare) { key.to_owned() } else { format!("{key:?}") };
        let place = if self.place.is_empty() { key } else { format!("{}.{key}", self.place) };
        Spot { place, line: self.line }
    }

    /// The place, for a message about another one.
    pub(super) fn named(&self) -> String {
        let line = self.line.map(|line| format!(" (line {line})"));
        self.place.clone() + &line.unwrap_or_default()
    }
}

/// A node and its place.
#[derive(Clone)]
pub(super) struct At<'a> {
    pub(super) spot: Spot,
    pub(super) node: &'a Node,
}

impl<'a> At<'a> {
    /// The whole mapping.
    pub(super) fn top(node: &'a Node) -> Self {
        Self { spot: Spot { place: String::new(), line: node.line }, node }
    }

    /// The entries of a table; none for other values.
    pub(super) fn entries(&self) -> Vec<(&'a str, At<'a>)> {
        let Value::Table(entries) = &self.node.value else { return Vec::new() };
        entries.iter().map(|(key, node)| (key.as_str(), self.enter(key, node))).collect()
    }

    /// The value of `key` in a table.
    pub(super) fn get(&self, key: &str) -> Option<At<'a>> {
        let Value::Table(entries) = &self.node.value else { return None };
        entries.iter().find(|(name, _)| name == key).map(|(name, node)| self.enter(name, node))
    }

    /// Where `key` stands, or would stand, in a table.
    pub(super) fn spot_of(&self, key: &str) -> Spot {
        self.get(key).map_or_else(|| self.spot.key(key), |at| at.spot)
    }

    /// The items of a list; none for other values.
    pub(super) fn items(&self) -> Vec<At<'a>> {
        let Value::List(items) = &self.node.value else { return Vec::new() };
        let place = |at: usize| format!("{}[{at}]", self.spot.place);
        let item =
            |(at, node): (usize, &'a Node)| At { spot: Spot { place: place(at), line: node.line }, node };
        items.iter().enumerate().map(item).collect()
    }

    fn enter(&self, key: &str, node: &'a Node) -> At<'a> {
        At { spot: Spot { line: node.line, ..self.spot.key(key) }, node }
    }
}

impl Faults {
    /// Notes a value of the wrong kind.
    pub(super) fn expected(&mut self, at: &At<'_>, what: &str) {
        self.add(&at.spot, format!("expected {what}, found {}", at.node.describe()));
    }

    /// Whether it is a table; its keys are compared with the known ones.
    pub(super) fn table(&mut self, at: &At<'_>, known: &[&str]) -> bool {
        if !self.is_table(at) {
            return false;
        }
        for (key, entry) in at.entries() {
            if !known.contains(&key) {
                self.unknown_key(&entry.spot, key, known);
            }
        }
        true
    }

    fn unknown_key(&mut self, spot: &Spot, key: &str, known: &[&str]) {
        let mend = match nearest(key, known.iter().copied()) {
            Some(name) => format!("did you mean {name:?}?"),
            None => format!("known here: {}", known.join(", ")),
        };
        self.add(spot, format!("unknown key; {mend}"));
    }

    /// Whether it is a table, whatever its keys.
    pub(super) fn is_table(&mut self, at: &At<'_>) -> bool {
        let is_table = matches!(at.node.value, Value::Table(_));
        if !is_table {
            let is_json = at.node.line.is_none();
            self.expected(at, if is_json { "an object" } else { "a table of keys and values, { key = … }" });
        }
        is_table
    }

    /// The value of `key`; a fault that ends in `mend` if it is not there.
    pub(super) fn required<'a>(&mut self, at: &At<'a>, key: &str, mend: &str) -> Option<At<'a>> {
        let found = at.get(key);
        if found.is_none() {
            self.add(&at.spot.key(key), format!("missing; {mend}"));
        }
        found
    }

    /// The items of a list, each with its place. A key that is not there is an empty list.
    pub(super) fn list<'a>(&mut self, at: &At<'a>, key: &str) -> Vec<At<'a>> {
        let Some(at) = at.get(key) else { return Vec::new() };
        if !matches!(at.node.value, Value::List(_)) {
            let is_json = at.node.line.is_none();
            self.expected(&at, if is_json { "a list of objects" } else { "a list of tables" });
        }
        at.items()
    }

    /// A string that is not empty.
    pub(super) fn text(&mut self, at: &At<'_>) -> Option<String> {
        match &at.node.value {
            Value::Text(text) if text.is_empty() => self.add(&at.spot, "empty; write a name"),
            Value::Text(text) => return Some(text.clone()),
            _ => self.expected(at, "a string"),
        }
        None
    }

    /// The boolean that `key` has; false if it is not there.
    pub(super) fn flag(&mut self, at: &At<'_>, key: &str) -> bool {
        let Some(at) = at.get(key) else { return false };
        match at.node.value {
            Value::Bool(flag) => return flag,
            _ => self.expected(&at, "a boolean"),
        }
        false
    }

    /// The string that `key` has, if it is there.
    pub(super) fn optional(&mut self, at: &At<'_>, key: &str) -> Option<String> {
        at.get(key).and_then(|at| self.text(&at))
    }

    /// One string, or a list of at least one, each of them once.
    pub(super) fn names(&mut self, at: &At<'_>) -> Vec<String> {
        let items = match &at.node.value {
            Value::Text(_) => return self.text(at).into_iter().collect(),
            Value::List(_) => at.items(),
            _ => {
                self.expected(at, "a string or a list of strings");
                return Vec::new();
            }
        };
        if items.is_empty() {
            self.add(&at.spot, "an empty list; name at least one column, or leave the key out");
        }
        let mut names = Vec::with_capacity(items.len());
        for item in &items {
            match self.text(item) {
                Some(name) if names.contains(&name) => {
                    self.add(&item.spot, format!("column {name:?} is named twice; leave one out"));
                }
                name => names.extend(name),
            }
        }
        names
    }

    /// The meaning of the word that `key` has; the default if it is not there or has none.
    pub(super) fn choice<T: Clone>(&mut self, at: &At<'_>, key: &str, words: &[(&str, T)], default: T) -> T {
        let Some(at) = at.get(key) else { return default };
        let Some(word) = self.text(&at) else { return default };
        if let Some((_, meaning)) = words.iter().find(|(name, _)| *name == word) {
            return meaning.clone();
        }
        let known = alternatives(words.iter().map(|(name, _)| *name));
        self.add(&at.spot, format!("expected {known}, found {word:?}"));
        default
    }

    /// A path of an item that has `depth` items around it.
    pub(super) fn path(&mut self, at: &At<'_>, depth: usize) -> Option<Path> {
        let path = self.path_anywhere(at)?;
        self.check_reach(&at.spot, &path, depth);
        Some(path)
    }

    /// A path, whatever item it is seen from.
    pub(super) fn path_anywhere(&mut self, at: &At<'_>) -> Option<Path> {
        let Value::Text(text) = &at.node.value else {
            self.expected(at, "a path");
            return None;
        };
        Path::parse(text).map_err(|message| self.add(&at.spot, message)).ok()
    }

    /// Whether `path` stays inside the document.
    pub(super) fn check_reach(&mut self, spot: &Spot, path: &Path, depth: usize) {
        let ups = path.0.iter().filter(|segment| **segment == Segment::Up).count();
        if ups > depth {
            let mend = match depth {
                0 => "the document has nothing around it; leave `^` out".to_owned(),
                _ => format!("at most {depth} of `^` stay inside it"),
            };
            self.add(spot, format!("`{path}` leads out of the document; {mend}"));
        } else if ups == depth && matches!(path.0.last(), Some(Segment::Key | Segment::Index)) {
            self.add(spot, format!("`{path}`: the document itself has no place in a list; name a field"));
        }
    }

    /// The path to a list: fields only.
    pub(super) fn list_path(&mut self, at: &At<'_>) -> Option<Path> {
        let path = self.path_anywhere(at)?;
        let is_field = |segment: &Segment| matches!(segment, Segment::Field(_));
        if path.0.is_empty() || !path.0.iter().all(is_field) {
            self.add(
                &at.spot,
                format!("`{path}` is not the path of a list; name the fields that lead to it"),
            );
            return None;
        }
        Some(path)
    }

    /// A table's name, with its schema or without.
    pub(super) fn table_name(&mut self, at: &At<'_>) -> Option<TableName> {
        let text = self.text(at)?;
        let names = match split(&text) {
            Ok(names) => names.into_iter().map(|(name, _)| name).collect::<Vec<_>>(),
            Err(message) => {
                self.add(&at.spot, message);
                return None;
            }
        };
        match names.as_slice() {
            names if names.iter().any(String::is_empty) => {
                self.add(&at.spot, format!("an empty name in `{text}`; write table or schema.table"));
                None
            }
            [table] => Some(TableName { schema: None, table: table.clone() }),
            [schema, table] => Some(TableName { schema: Some(schema.clone()), table: table.clone() }),
            _ => {
                let mend = "write schema.table, and quote a name that has a dot: `\"a.b\".c`";
                self.add(&at.spot, format!("too many names in `{text}`; {mend}"));
                None
            }
        }
    }
}

impl Node {
    /// Whether it is this string.
    pub(super) fn is_text(&self, text: &str) -> bool {
        matches!(&self.value, Value::Text(found) if found == text)
    }

    /// The tree as JSON, without lines.
    pub(super) fn to_json(&self) -> JsonValue {
        match &self.value {
            Value::Text(text) => JsonValue::from(text.as_str()),
            Value::Integer(number) => JsonValue::from(*number),
            Value::Float(text) => text.parse::<f64>().map_or(JsonValue::Null, JsonValue::from),
            Value::Bool(flag) => JsonValue::from(*flag),
            Value::List(items) => items.iter().map(Node::to_json).collect(),
            Value::Table(entries) => {
                entries.iter().map(|(key, node)| (key.clone(), node.to_json())).collect()
            }
            // A fault wherever it stands, so this JSON is never handed out.
            Value::Unfit(_) | Value::Other(_) => JsonValue::Null,
        }
    }
}

/// The tree of a JSON value. Tables keep the order that `serde_json` gives them.
pub(super) fn from_json(value: &JsonValue) -> Node {
    let value = match value {
        JsonValue::Null => Value::Other("null"),
        JsonValue::Bool(flag) => Value::Bool(*flag),
        JsonValue::Number(number) if number.is_f64() => Value::Float(number.to_string()),
        JsonValue::Number(number) => {
            number.as_i64().map_or_else(|| beyond(&number.to_string()), Value::Integer)
        }
        JsonValue::String(text) => Value::Text(text.clone()),
        JsonValue::Array(items) => Value::List(items.iter().map(from_json).collect()),
        JsonValue::Object(entries) => {
            Value::Table(entries.iter().map(|(key, value)| (key.clone(), from_json(value))).collect())
        }
    };
    Node { line: None, value }
}

/// The tree of a TOML text, or the faults of its syntax.
pub(super) fn from_toml(text: &str) -> Result<Node, MappingError> {
    let lines = Lines::of(text);
    let (table, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        return Ok(Node { line: Some(1), value: lines.table(table.get_ref()) });
    }
    let fault = |error: &toml::de::Error| Fault {
        line: error.span().map(|span| lines.at(span.start)),
        place: String::new(),
        message: match (error.message(), error.span().and_then(|span| text.get(span))) {
            ("duplicate key", Some(key)) => format!("{key} is written twice; leave one out"),
            (message, _) => message.replace('\n', "; "),
        },
    };
    let mut faults: Vec<Fault> = errors.iter().map(fault).collect();
    faults.sort_by_key(|fault| fault.line);
    Err(MappingError { faults })
}

fn beyond(number: &str) -> Value {
    Value::Unfit(format!("{number} is beyond 64 bits; quote it: \"{number}\""))
}

/// So many digits a float keeps, whatever they are.
const FLOAT_DIGITS: usize = 15;

/// A float that is the very number that was written: as TOML, as JSON, and as text.
fn float(text: &str) -> Value {
    let mantissa = text.split(['e', 'E']).next().unwrap_or_default();
    let digits = mantissa.chars().filter(char::is_ascii_digit).skip_while(|digit| *digit == '0').count();
    let number = text.parse::<f64>().ok().and_then(serde_json::Number::from_f64);
    match number {
        None => Value::Unfit(format!("{text} is no finite number; quote it, if the column holds it")),
        // A number too small for a float is zero, though it has a digit that is not.
        Some(number) if digits <= FLOAT_DIGITS && (digits == 0) == (number.as_f64() == Some(0.0)) => {
            Value::Float(number.to_string())
        }
        Some(_) => Value::Unfit(format!(
            "a float keeps no more than {FLOAT_DIGITS} digits of {text}, if it is not too small for one; quote it: \"{text}\""
        )),
    }
}

/// Where the lines of a text end.
struct Lines(Vec<usize>);

impl Lines {
    fn of(text: &str) -> Self {
        Self(memchr::memchr_iter(b'\n', text.as_bytes()).collect())
    }

    fn at(&self, offset: usize) -> usize {
        self.0.partition_point(|end| *end < offset) + 1
    }

    /// The entries in the order they are written in, which the parser's table does not keep.
    fn table(&self, table: &DeTable<'_>) -> Value {
        let mut entries: Vec<_> = table.iter().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        let entry = |(key, value): &(&toml::Spanned<toml::de::DeString<'_>>, &toml::Spanned<DeValue<'_>>)| {
            let line = Some(self.at(key.span().start));
            (key.get_ref().to_string(), Node { line, value: self.value(value.get_ref()) })
        };
        Value::Table(entries.iter().map(entry).collect())
    }

    fn value(&self, value: &DeValue<'_>) -> Value {
        match value {
            DeValue::String(text) => Value::Text(text.to_string()),
            DeValue::Integer(number) => {
                let text = number.as_str();
                i64::from_str_radix(text, number.radix()).map_or_else(|_| beyond(text), Value::Integer)
            }
            DeValue::Float(number) => float(number.as_str()),
            DeValue::Boolean(flag) => Value::Bool(*flag),
            DeValue::Datetime(_) => Value::Other("a date"),
            DeValue::Array(items) => {
                let item = |item: &toml::Spanned<DeValue<'_>>| Node {
                    line: Some(self.at(item.span().start)),
                    value: self.value(item.get_ref()),
                };
                Value::List(items.iter().map(item).collect())
            }
            DeValue::Table(table) => self.table(table),
        }
    }
}
