//! One item of a document: what its paths find, and what its place is called.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt::Write as _;

use super::ShredError;
use crate::json::Json;
use crate::mapping::{Column, Path, Relation, Segment, Source, WhenSingle};
use crate::value::same_scalar;

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
        let (place, path) = (self.place(), path.to_string());
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

/// The path that stands for a column in messages.
pub(crate) fn path_of(column: &Column) -> &Path {
    static ITEM: Path = Path(Vec::new());
    match &column.source {
        Source::Path { paths, .. } => &paths[0],
        Source::Lookup { matching, .. } => &matching[0],
        Source::Position { .. } | Source::Constant { .. } => &ITEM,
    }
}
