//! One item of a document: what its paths find, and what its place is called.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt::Write as _;

use super::ShredError;
use super::fault::Fault;
use crate::json::Json;
use crate::mapping::{Column, Path, Relation, RelationKind, Segment, Source, WhenSingle};
use crate::value::{found, same_scalar};

/// One object (or scalar) of the document, with the way back up.
pub(crate) struct Item<'a> {
    pub json: &'a Json<'a>,
    pub place: Place<'a>,
    pub up: Option<(&'a Item<'a>, &'a Path)>,
}

#[derive(Clone, Copy)]
pub(crate) enum Place<'a> {
    Root,
    Index(usize),
    Name(&'a str),
    /// In place of a list.
    Single,
}

pub(crate) enum Found<'a> {
    Absent,
    Value(Cow<'a, Json<'a>>),
}

impl<'a> Item<'a> {
    pub fn root(json: &'a Json<'a>) -> Self {
        Item { json, place: Place::Root, up: None }
    }

    /// The first value that is not null; else null where any of the fields is there.
    pub fn first(&self, paths: &[Path]) -> Result<Found<'_>, String> {
        let mut found = Found::Absent;
        for path in paths {
            match self.find(path)? {
                Found::Value(value) if *value == Json::Null => found = Found::Value(value),
                Found::Value(value) => return Ok(Found::Value(value)),
                Found::Absent => {}
            }
        }
        Ok(found)
    }

    pub fn find(&self, path: &Path) -> Result<Found<'_>, String> {
        let mut item = self;
        let mut json = self.json;
        for segment in &path.0 {
            match segment {
                Segment::Up => {
                    item = item.up.ok_or("`^` goes up from the root")?.0;
                    json = item.json;
                }
                Segment::Key => return Ok(Found::Value(Cow::Owned(item.name()?))),
                Segment::Index => return Ok(Found::Value(Cow::Owned(item.index()?))),
                Segment::Field(name) => match json {
                    Json::Null => return Ok(Found::Value(Cow::Borrowed(&Json::Null))),
                    Json::Object(_) => match json.member(name) {
                        Some(member) => json = member,
                        None => return Ok(Found::Absent),
                    },
                    other => {
                        return Err(format!(
                            "expected an object that holds `{name}`, found {}",
                            other.describe()
                        ));
                    }
                },
            }
        }
        Ok(Found::Value(Cow::Borrowed(json)))
    }

    fn name(&self) -> Result<Json<'static>, String> {
        match self.place {
            Place::Name(name) => Ok(Json::String(Cow::Owned(name.to_owned()))),
            _ => Err("`@key` needs an item of a map".into()),
        }
    }

    fn index(&self) -> Result<Json<'static>, String> {
        match self.place {
            Place::Index(at) => Ok(Json::String(Cow::Owned(at.to_string()))),
            Place::Single => Ok(Json::String("0".into())),
            _ => Err("`@index` needs an item of a list".into()),
        }
    }

    /// Whether the item is one of those that the relation takes. What its conditions ask for and is not there, or no
    /// scalar, is none of their values.
    pub fn belongs_to(&self, relation: &Relation) -> bool {
        relation.conditions.iter().all(|condition| match self.find(&condition.path) {
            Ok(Found::Value(found)) => {
                condition.values.iter().any(|value| same_scalar(&value.json(), &found))
            }
            Ok(Found::Absent) | Err(_) => false,
        })
    }

    /// The place of this item: `releases[3].files[0]`, with nothing for the root.
    pub fn place(&self) -> String {
        let Some((up, list)) = self.up else { return String::new() };
        let mut text = up.place();
        if !text.is_empty() {
            text.push('.');
        }
        let _ = match self.place {
            Place::Index(at) => write!(text, "{list}[{at}]"),
            Place::Name(name) => write!(text, "{list}[{name:?}]"),
            Place::Single => write!(text, "{list}"),
            Place::Root => Ok(()),
        };
        text
    }

    pub fn error(&self, relation: &Relation, path: &Path, message: String) -> ShredError {
        self.error_at(relation, path.to_string(), message)
    }

    /// Of a column's value: at the path where it was found; where nothing was, at all that were tried.
    pub fn error_in(&self, relation: &Relation, column: &Column, fault: impl Into<Fault>) -> ShredError {
        let Fault { path, message } = fault.into();
        let paths = paths_of(column);
        // What cannot be followed is what was found, too.
        let holds = |path: &&Path| match self.find(path) {
            Ok(Found::Value(value)) => *value != Json::Null,
            Ok(Found::Absent) => false,
            Err(_) => true,
        };
        let path = match path.as_ref().or_else(|| paths.iter().find(holds)) {
            Some(path) => path.to_string(),
            None if paths.is_empty() => Path::default().to_string(),
            None => paths.iter().map(Path::to_string).collect::<Vec<_>>().join(", "),
        };
        self.error_at(relation, path, message)
    }

    /// That a column of the key has no value.
    pub fn lacks_key(&self, relation: &Relation, column: &Column) -> ShredError {
        let absent = paths_of(column).iter().all(|path| matches!(self.find(path), Ok(Found::Absent)));
        let is = if absent { "absent" } else { "null" };
        let mend = match relation.kind {
            RelationKind::Child => "; give it, or say nullable = true",
            RelationKind::Root | RelationKind::Link => "",
        };
        self.error_in(relation, column, format!("is {is}, and part of the key{mend}"))
    }

    /// The values at these paths, for messages: `"x"`, `(7, "x")`.
    pub fn values(&self, paths: &[Path]) -> String {
        let value = |path: &Path| match self.find(path) {
            Ok(Found::Value(value)) => found(&value),
            Ok(Found::Absent) | Err(_) => found(&Json::Null),
        };
        match paths {
            [path] => value(path),
            paths => format!("({})", paths.iter().map(value).collect::<Vec<_>>().join(", ")),
        }
    }

    /// The columns of the key and what they are filled from, for messages: `no=1, kind="x"`.
    pub fn key(&self, relation: &Relation) -> String {
        let columns = relation.key_columns().into_iter().map(|at| &relation.columns[at]);
        let one = |column: &Column| match &column.source {
            Source::Path { paths, .. } => {
                let json = self.first(paths);
                let value = json
                    .ok()
                    .and_then(|json| if let Found::Value(json) = json { Some(found(&json)) } else { None });
                format!("{}={}", column.name, value.unwrap_or_else(|| "null".to_owned()))
            }
            _ => format!("{}={}", column.name, self.values(paths_of(column))),
        };
        columns.map(one).collect::<Vec<_>>().join(", ")
    }

    fn error_at(&self, relation: &Relation, path: String, message: String) -> ShredError {
        let place = self.place();
        let path = match (place.is_empty(), path.as_str()) {
            (true, _) => path,
            (false, ".") => place,
            (false, _) => format!("{place}.{path}"),
        };
        ShredError { relation: relation.name.clone(), path, message }
    }
}

/// The items of a list, or of a map, that the relation takes.
pub(crate) fn items<'a>(
    relation: &'a Relation,
    outer: &'a Item<'a>,
    json: &'a Json<'a>,
) -> Result<Vec<Item<'a>>, ShredError> {
    let mut items = all_items(relation, outer, json)?;
    items.retain(|item| item.belongs_to(relation));
    Ok(items)
}

/// The items of a list, or of a map.
pub(crate) fn all_items<'a>(
    relation: &'a Relation,
    outer: &'a Item<'a>,
    json: &'a Json<'a>,
) -> Result<Vec<Item<'a>>, ShredError> {
    let up = Some((outer, &relation.path));
    match json {
        Json::Array(items) => {
            let item = |(at, json)| Item { json, place: Place::Index(at), up };
            Ok(items.iter().enumerate().map(item).collect())
        }
        Json::Object(members) if relation.is_map() => {
            // The last member of a name counts.
            let places = members.iter().enumerate().map(|(at, (name, _))| (name.as_ref(), at));
            let last: HashMap<&str, usize> = places.collect();
            let counts =
                |(at, member): &(usize, &(_, _))| last.get(AsRef::<str>::as_ref(&member.0)) == Some(at);
            let members = members.iter().enumerate().filter(counts);
            Ok(members.map(|(_, (name, json))| Item { json, place: Place::Name(name), up }).collect())
        }
        single if relation.when_single == WhenSingle::Item => {
            Ok(vec![Item { json: single, place: Place::Single, up }])
        }
        other => {
            let message = format!("expected a list, found {}", other.describe());
            Err(outer.error(relation, &relation.path, message))
        }
    }
}

/// The paths that a column is filled from.
fn paths_of(column: &Column) -> &[Path] {
    match &column.source {
        Source::Path { paths, .. } => paths,
        Source::Lookup { matching, .. } => matching,
        Source::Position { .. } | Source::Constant { .. } => &[],
    }
}
