//! What the documents of a sample can be stored as: types for columns that do not exist yet.
//!
//! Of every column the sample remembers which types are still possible, and nothing
//! else, so that its memory does not grow with the feed. Whether a value is possible
//! in a type is asked of the crate's own encoder: what is inferred certainly loads.
//! Documents are read as shredding reads them, with the same paths.
//!
//! | values | type |
//! |---|---|
//! | `true`, `false` | `boolean` |
//! | numbers without point and exponent | `bigint`, and `numeric` beyond it |
//! | numbers | `numeric` |
//! | strings, every one a date, a timestamp with or without offset, a uuid | `date`, `timestamptz`, `timestamp`, `uuid` |
//! | strings, every one a date or a timestamp, in a column with a `zone` | `timestamptz` |
//! | strings (of digits too), and scalars of several kinds | `text` |
//! | lists and objects, also among scalars | `jsonb` |
//!
//! ```
//! use rowdelta::{mapping::Mapping, sample::Sample};
//!
//! let mapping = Mapping::from_toml(r#"
//!     version = 1
//!     name = "orders"
//!     root = { table = "orders", key = "number", columns = { number = "number", placed = "placedAt" } }
//! "#)?;
//! let mut sample = Sample::new(&mapping);
//! sample.read(br#"{"number": 1, "placedAt": "2024-05-31T10:00:00Z"}"#)?;
//! assert_eq!(sample.column(0, 0), Some("bigint"));
//! assert_eq!(sample.column(0, 1), Some("timestamptz"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::borrow::Cow;

use crate::json::Json;
use crate::mapping::{
    Column, LookupIx, Mapping, Path, RelationIx, Scalar, Segment, Source, TableName, TextForm, WhenNull,
};
use crate::shred::ShredError;
use crate::shred::fault::Fault;
use crate::shred::item::{Found, Item, items};
use crate::shred::strays;
use crate::value::{self, ColumnType, Encoded, Kind, ValueError, in_form};

/// What is known of the types of a mapping's columns from the documents read so far.
#[derive(Clone, Debug)]
pub struct Sample<'m> {
    mapping: &'m Mapping,
    seen: Seen,
    documents: u64,
    passed_over: u64,
}

/// One guess for each column.
#[derive(Clone, Debug)]
struct Seen {
    relations: Vec<Vec<Guess>>,
    lookups: Vec<LookupGuesses>,
}

#[derive(Clone, Debug)]
struct LookupGuesses {
    key: Vec<Guess>,
    columns: Vec<Guess>,
}

impl<'m> Sample<'m> {
    /// A sample without documents.
    pub fn new(mapping: &'m Mapping) -> Self {
        let guess = |column: &Column| match &column.source {
            Source::Constant { value } => Guess::constant(value),
            Source::Path { .. } | Source::Lookup { .. } | Source::Position { .. } => Guess::ANY,
        };
        let relations =
            mapping.relations.iter().map(|relation| relation.columns.iter().map(guess).collect()).collect();
        let lookups = mapping.lookups.iter().map(|lookup| LookupGuesses {
            key: vec![Guess::ANY; lookup.key.len()],
            columns: vec![Guess::ANY; lookup.columns.len()],
        });
        let seen = Seen { relations, lookups: lookups.collect() };
        Sample { mapping, seen, documents: 0, passed_over: 0 }
    }

    /// Takes a document into account. One that cannot be used leaves no trace but its count.
    ///
    /// # Errors
    /// It is not JSON, or does not fit the mapping; in words.
    pub fn read(&mut self, bytes: &[u8]) -> Result<(), String> {
        let seen = Json::parse(bytes)
            .map_err(|error| error.to_string())
            .and_then(|json| self.look(&json).map_err(|error| format!("{}: {}", error.path, error.message)));
        match seen {
            Ok(seen) => {
                self.seen = seen;
                self.documents += 1;
                Ok(())
            }
            Err(message) => {
                self.pass_over();
                Err(message)
            }
        }
    }

    /// Counts a document that could not be had.
    pub fn pass_over(&mut self) {
        self.passed_over += 1;
    }

    /// Documents taken into account.
    pub fn documents(&self) -> u64 {
        self.documents
    }

    /// Documents that were of no use.
    pub fn passed_over(&self) -> u64 {
        self.passed_over
    }

    /// The type of the column at a position of a relation's columns; `None` if there was no value, and for references.
    pub fn column(&self, relation: RelationIx, at: usize) -> Option<&'static str> {
        self.seen.relations[relation][at].name()
    }

    /// The type of a column of a catalogue, from all lookups in that table; `None` if there was no value.
    pub fn catalogue_column(&self, table: &TableName, name: &str) -> Option<&'static str> {
        let mut guess = Guess::ANY;
        for (lookup, seen) in self.mapping.lookups.iter().zip(&self.seen.lookups) {
            let names = lookup.key.iter().chain(lookup.columns.iter().map(|(name, _)| name));
            let guesses = seen.key.iter().chain(&seen.columns);
            let of_name = names.zip(guesses).filter(|(column, _)| lookup.table == *table && *column == name);
            guess = of_name.fold(guess, |guess, (_, other)| guess.and(*other));
        }
        guess.name()
    }

    fn look(&self, json: &Json<'_>) -> Result<Seen, ShredError> {
        let item = Item::root(json);
        if !matches!(json, Json::Object(_)) {
            let message = format!("expected an object, found {}", json.describe());
            return Err(item.error(self.mapping.root(), &Path::default(), message));
        }
        let mut reader = Reader { mapping: self.mapping, seen: self.seen.clone() };
        reader.item(0, &item)?;
        Ok(reader.seen)
    }
}

/// Reads one document.
struct Reader<'m> {
    mapping: &'m Mapping,
    seen: Seen,
}

impl Reader<'_> {
    fn item(&mut self, ix: RelationIx, item: &Item<'_>) -> Result<(), ShredError> {
        let mapping = self.mapping;
        let relation = &mapping.relations[ix];
        for (at, column) in relation.columns.iter().enumerate() {
            let filled = match &column.source {
                Source::Path { paths, zone } => self.seen.relations[ix][at]
                    .look(item, paths, zone.is_some(), column.text)
                    .map_err(Fault::from),
                Source::Lookup { lookup, matching } => self.reference(*lookup, matching, item),
                Source::Position { .. } | Source::Constant { .. } => Ok(true),
            };
            let filled = filled.map_err(|fault| item.error_in(relation, column, fault))?;
            if !filled && relation.key.contains(&column.name) && !column.nullable {
                return Err(item.lacks_key(relation, column));
            }
        }
        for (inner, _) in mapping.enclosed(ix) {
            self.list(inner, item)?;
        }
        Ok(())
    }

    fn list(&mut self, ix: RelationIx, outer: &Item<'_>) -> Result<(), ShredError> {
        let relation = &self.mapping.relations[ix];
        let error = |message| outer.error(relation, &relation.path, message);
        let Found::Value(list) = outer.find(&relation.path).map_err(error)? else { return Ok(()) };
        match list.as_ref() {
            Json::Null if relation.when_null == WhenNull::Error => Err(error("is null".into())),
            Json::Null => Ok(()),
            json => {
                strays::refuse(self.mapping, ix, outer, json)?;
                items(relation, outer, json)?.iter().try_for_each(|item| self.item(ix, item))
            }
        }
    }

    /// Whether an item refers to a row of a catalogue; if so, what the row would hold is looked at.
    fn reference(&mut self, ix: LookupIx, matching: &[Path], item: &Item<'_>) -> Result<bool, Fault> {
        let (lookup, seen) = (&self.mapping.lookups[ix], &mut self.seen.lookups[ix]);
        let (mut filled, mut missing) = (0, None);
        for ((path, guess), column) in matching.iter().zip(&mut seen.key).zip(&lookup.key) {
            let found = guess.look(item, std::slice::from_ref(path), false, lookup.text_form(column));
            match found.map_err(|message| Fault::at(path, message))? {
                true => filled += 1,
                false if lookup.nullable.contains(column) => {}
                false => drop(missing.get_or_insert((path, column))),
            }
        }
        if filled == 0 {
            return Ok(false);
        }
        if let Some((path, column)) = missing {
            return Err(Fault::part_of_key(path, lookup, column));
        }
        for ((name, path), guess) in lookup.columns.iter().zip(&mut seen.columns) {
            let found = guess.look(item, std::slice::from_ref(path), false, lookup.text_form(name));
            found.map_err(|message| Fault::at(path, message))?;
        }
        Ok(true)
    }
}

/// The types that are still possible, a bit each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Guess(u16);

const BOOLEAN: u16 = 1;
const BIGINT: u16 = 1 << 1;
const NUMERIC: u16 = 1 << 2;
const DATE: u16 = 1 << 3;
const TIMESTAMPTZ: u16 = 1 << 4;
const TIMESTAMP: u16 = 1 << 5;
const UUID: u16 = 1 << 6;
const TEXT: u16 = 1 << 7;
const JSONB: u16 = 1 << 8;

/// The narrowest first: of those that are possible the first is the type. Integers are never narrower than `bigint`:
/// a sample does not bound what comes.
static CANDIDATES: [(u16, &str, ColumnType); 9] = [
    (BOOLEAN, "boolean", of_kind(Kind::Bool)),
    (BIGINT, "bigint", of_kind(Kind::Int8)),
    (NUMERIC, "numeric", of_kind(Kind::Numeric(None))),
    (DATE, "date", of_kind(Kind::Date)),
    (TIMESTAMPTZ, "timestamptz", of_kind(Kind::Timestamptz(6))),
    (TIMESTAMP, "timestamp", of_kind(Kind::Timestamp(6))),
    (UUID, "uuid", of_kind(Kind::Uuid)),
    (TEXT, "text", of_kind(Kind::Text)),
    (JSONB, "jsonb", of_kind(Kind::Jsonb)),
];

/// A type as far as encoding needs it.
const fn of_kind(kind: Kind) -> ColumnType {
    ColumnType { kind, sql: String::new(), oid: 0, array_oid: 0, input: String::new(), send: String::new() }
}

impl Guess {
    /// No value has been seen: every value excludes some type.
    pub(crate) const ANY: Guess = Guess((1 << CANDIDATES.len()) - 1);

    /// That of a column which is the same in every row.
    fn constant(value: &Scalar) -> Self {
        possible(&value.json(), Self::ANY.0, false).map_or(Self::ANY, Guess)
    }

    /// The narrowest type that is possible; `None` if no value was seen.
    pub(crate) fn name(self) -> Option<&'static str> {
        let possible = CANDIDATES.iter().find(|(bit, ..)| self.0 & bit != 0);
        possible.filter(|_| self != Guess::ANY).map(|(_, name, _)| *name)
    }

    /// Takes a value into account that is not null.
    pub(crate) fn see(&mut self, value: &Json<'_>, zoned: bool) -> Result<(), ValueError> {
        self.0 &= possible(value, self.0, zoned)?;
        Ok(())
    }

    /// What is possible for the values of both.
    pub(crate) fn and(self, other: Guess) -> Guess {
        Guess(self.0 & other.0)
    }

    /// Looks at the value of a column. False where it is null or absent.
    fn look(&mut self, item: &Item<'_>, paths: &[Path], zoned: bool, form: TextForm) -> Result<bool, String> {
        let value = match item.first(paths)? {
            Found::Value(value) if *value != Json::Null => value,
            _ => return Ok(false),
        };
        // A place is made by the item, and never null: it comes from the first path that asks for one.
        let is_index = matches!(value, Cow::Owned(_)) && place_of(paths) == Some(&Segment::Index);
        match is_index {
            true => self.0 &= BIGINT | NUMERIC | TEXT | JSONB,
            false => {
                self.see(&in_form(&value, form).0, zoned).map_err(|ValueError(message)| message)?;
            }
        }
        Ok(true)
    }
}

/// The type of a column that is the same in every row.
pub(crate) fn constant_type(value: &Scalar) -> Option<&'static str> {
    Guess::constant(value).name()
}

/// What the first path that asks for the item's place asks for.
pub(crate) fn place_of(paths: &[Path]) -> Option<&Segment> {
    let last = paths.iter().filter_map(|path| path.0.last());
    last.into_iter().find(|segment| matches!(segment, Segment::Key | Segment::Index))
}

/// Which types of `wanted` a value is possible in.
fn possible(json: &Json<'_>, wanted: u16, zoned: bool) -> Result<u16, ValueError> {
    // What text can hold `jsonb` can, except that of several kinds only `jsonb` takes all.
    let (broad, certain) = match json {
        Json::Null | Json::Array(_) | Json::Object(_) => (JSONB, JSONB),
        Json::Bool(_) | Json::Number(_) | Json::String(_) => (TEXT, TEXT | JSONB),
    };
    value::encode(json, column_type(broad), None, &mut Vec::new())?;
    let narrower = by_spelling(json, zoned) & wanted;
    let fitting = CANDIDATES.iter().map(|(bit, ..)| *bit).filter(|bit| {
        // With a zone what has no offset is left to the server, which takes what it takes as a timestamp.
        let encoder = if *bit == TIMESTAMPTZ && zoned { TIMESTAMP } else { *bit };
        narrower & bit != 0 && fits(json, encoder)
    });
    Ok(fitting.fold(certain, |types, bit| types | bit))
}

/// The types beyond text and `jsonb` that are worth a try: encoders take other spellings too, but a string of digits is
/// not meant as a number, and a timestamp in a date column would lose its time.
fn by_spelling(json: &Json<'_>, zoned: bool) -> u16 {
    match json {
        Json::Bool(_) => BOOLEAN,
        Json::Number(text) if text.contains(['.', 'e', 'E']) => NUMERIC,
        Json::Number(_) => BIGINT | NUMERIC,
        Json::String(_) if zoned => TIMESTAMPTZ | UUID,
        Json::String(text) if !text.contains(':') => DATE | TIMESTAMPTZ | TIMESTAMP | UUID,
        // A timestamp without time zone would lose the offset.
        Json::String(_) if fits(json, TIMESTAMPTZ) => TIMESTAMPTZ,
        Json::String(_) => TIMESTAMP,
        Json::Null | Json::Array(_) | Json::Object(_) => 0,
    }
}

fn fits(json: &Json<'_>, bit: u16) -> bool {
    value::encode(json, column_type(bit), None, &mut Vec::new()) == Ok(Encoded::Value)
}

fn column_type(bit: u16) -> &'static ColumnType {
    &CANDIDATES[bit.trailing_zeros() as usize].2
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The type of a column that held these values.
    fn inferred(zoned: bool, values: &[&str]) -> Option<&'static str> {
        let zone = if zoned { ", zone = \"Europe/Madrid\"" } else { "" };
        let mapping = Mapping::from_toml(&format!(
            "version = 1\nname = \"m\"\n[root]\ntable = \"t\"\nkey = \"k\"\n\
             columns = {{ k = \"k\", v = {{ path = \"v\"{zone} }} }}"
        ))
        .unwrap();
        let mut sample = Sample::new(&mapping);
        for value in values {
            sample.read(format!("{{\"k\": 1, \"v\": {value}}}").as_bytes()).unwrap();
        }
        sample.column(0, 1)
    }

    #[test]
    fn a_type_is_one_that_every_value_fits() {
        let cases: &[(&[&str], Option<&str>)] = &[
            (&[], None),
            (&["null"], None),
            (&["true", "null"], Some("boolean")),
            (&["\"true\""], Some("text")),
            (&["1", "-9223372036854775808"], Some("bigint")),
            (&["1", "9223372036854775808"], Some("numeric")),
            (&["1", "2.0"], Some("numeric")),
            (&["1e2"], Some("numeric")),
            (&["\"007\""], Some("text")),
            (&["\"2024-05-31\"", "null"], Some("date")),
            (&["\"2024-02-30\""], Some("text")),
            (&["\"2024-05-31\"", "\"\""], Some("text")),
            (&["\"2024-05-31T10:00:00Z\"", "\"2024-05-31 10:00+02:00\""], Some("timestamptz")),
            (&["\"2024-05-31T10:00:00\""], Some("timestamp")),
            (&["\"2024-05-31T00:00:00\"", "\"2024-05-31\""], Some("timestamp")),
            (&["\"2024-05-31T10:00:00\"", "\"2024-05-31T10:00:00Z\""], Some("text")),
            (&["\"2024-05-31T10:00:00Z\"", "\"2024-05-31T10:00:00\""], Some("text")),
            (&["\"2024-05-31\"", "\"2024-05-31T10:00:00Z\""], Some("text")),
            (&["\"2024-05-31\"", "\"infinity\""], Some("date")),
            (&["\"A0EEBC99-9c0b-4ef8-bb6d-6bb9bd380a11\""], Some("uuid")),
            (&["\"a0eebc999c0b4ef8bb6d6bb9bd380a11\""], Some("text")),
            (&["1", "\"x\""], Some("text")),
            (&["1", "true"], Some("text")),
            (&["[1]", "{}"], Some("jsonb")),
            (&["1", "[]"], Some("jsonb")),
            (&["[]", "1"], Some("jsonb")),
        ];
        for (values, expected) in cases {
            assert_eq!(inferred(false, values), *expected, "{values:?}");
        }
    }

    #[test]
    fn with_a_zone_moments_without_an_offset_are_instants_too() {
        assert_eq!(
            inferred(true, &["\"2024-05-31T10:00:00\"", "\"2024-05-31T10:00:00Z\""]),
            Some("timestamptz")
        );
        assert_eq!(inferred(true, &["\"2024-05-31\""]), Some("timestamptz"));
        assert_eq!(inferred(true, &["\"2024-05-31\"", "\"soon\""]), Some("text"));
    }

    const NESTED: &str = r#"
version = 1
name = "m"
[root]
table = "t"
key = "k"
columns = { k = "k", either = ["a", "b.c"] }
[[root.children]]
name = "lines"
table = "line"
parent = "t_k"
key = "no"
id = "id"
columns = { no = "@index", above = "^.k", tag_id = { lookup = "tag", match = { label = "tag.label", kind = "^.kind" } } }
[[root.children.children]]
name = "rates"
table = "rate"
parent = "line_id"
key = "currency"
columns = { currency = "@key", rate = ".", line = ["^.none", "^.@index"] }
[lookups.tag]
table = "tag"
id = "id"
key = ["label", "kind"]
columns = { note = "tag.note" }
"#;

    #[test]
    fn values_are_found_wherever_shredding_finds_them() {
        let mapping = Mapping::from_toml(NESTED).unwrap();
        let mut sample = Sample::new(&mapping);
        let document = r#"{"k": 1, "a": null, "b": {"c": true}, "kind": 2, "lines": [
            {"tag": {"label": "x", "note": [1]}, "rates": {"EUR": 1, "USD": 1.1}}, {"tag": null}]}"#;
        let refused = sample.read(document.as_bytes());
        assert_eq!(refused, Err("lines[1].tag.label: label, part of the key of `tag`, is null: give it, or say nullable = true of label".into()));
        sample.read(document.replace(", {\"tag\": null}", "").as_bytes()).unwrap();
        let types = |relation, count| (0..count).map(|at| sample.column(relation, at)).collect::<Vec<_>>();
        assert_eq!(types(0, 2), [Some("bigint"), Some("boolean")]);
        assert_eq!(types(1, 3), [Some("bigint"), Some("bigint"), None]);
        assert_eq!(types(2, 3), [Some("bigint"), Some("numeric"), Some("text")]);
        let tag = |name| sample.catalogue_column(&mapping.lookups[0].table, name);
        assert_eq!([tag("label"), tag("kind"), tag("note")], [Some("text"), Some("bigint"), Some("jsonb")]);
        assert_eq!((sample.documents(), sample.passed_over()), (1, 1));
    }

    #[test]
    fn a_document_that_does_not_fit_leaves_nothing() {
        let mapping = Mapping::from_toml(NESTED).unwrap();
        let mut sample = Sample::new(&mapping);
        for (document, place) in [
            ("{", "not JSON"),
            ("[]", ".: expected an object"),
            (r#"{"k": null, "a": 1}"#, "k: is null"),
            (r#"{"k": 1, "a": 1, "lines": 3}"#, "lines: expected a list"),
            (r#"{"k": 1, "a": 1, "lines": [{"rates": [1]}]}"#, "lines[0].rates[0].@key: `@key` needs"),
            (r#"{"k": 1, "a": "\u0000"}"#, "a: contains U+0000"),
            // Said of the path at which it was found.
            (r#"{"k": 1, "a": null, "b": {"c": "\u0000"}}"#, "b.c: contains U+0000"),
            (r#"{"k": 1, "b": 2}"#, "b.c: expected an object"),
            (r#"{"a": 1}"#, "k: is absent, and part of the key"),
            (r#"{"k": 1, "a": 1, "b": 2, "lines": {}}"#, "lines: expected a list"),
        ] {
            let message = sample.read(document.as_bytes()).unwrap_err();
            assert!(message.starts_with(place), "{message}");
        }
        assert_eq!((sample.documents(), sample.passed_over()), (0, 10));
        assert_eq!(sample.column(0, 1), None);
    }

    #[test]
    fn p12_items_are_those_of_the_relation_and_text_is_in_its_form() {
        let text = r#"
version = 1
name = "m"
[root]
table = "t"
key = "k"
columns = { k = "k", a = { path = "a", nul = "strip" } }
[[root.children]]
name = "files"
where = { kind = 1 }
table = "f"
parent = "t_k"
when_single = "item"
columns = { n = "n" }
"#;
        let mapping = Mapping::from_toml(text).unwrap();
        let mut sample = Sample::new(&mapping);
        let stray = sample.read(br#"{"k": 1, "files": [{"kind": 1.0, "n": 1}, {"kind": 2, "n": "x"}]}"#);
        let said = "files[1]: no relation takes this item (kind is 2); add one whose where does, or otherwise = \"ignore\"";
        assert_eq!(stray, Err(said.to_owned()));
        let ignoring = Mapping::from_toml(&format!("{text}otherwise = \"ignore\"\n")).unwrap();
        let mut sample = Sample::new(&ignoring);
        sample.read(br#"{"k": 1, "a": "2024-05-31\u0000", "files": {"kind": 1, "n": 7}}"#).unwrap();
        sample.read(br#"{"k": 2, "files": [{"kind": 2, "n": "x"}]}"#).unwrap();
        assert_eq!((sample.column(0, 0), sample.column(1, 0)), (Some("date"), Some("bigint")));
    }
}
