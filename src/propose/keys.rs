//! Which fields tell documents, or the items of a list, apart.

use super::distinct::KEY_BYTES_MAX;
use super::fields::Field;
use super::names::key_class;
use super::node::{Items, Shape};
use super::print::{number, plural, quoted_list};
use super::{Options, ProposeError, Survey};
use crate::mapping::Path;

/// Siblings that must have been compared, none alike, before a field is the key of a list's items: if it is called `id`,
/// if it sounds like a key, and if it only sounds like something particular. Wrong, it fails a document some night.
const SIBLINGS_MIN: [u64; 3] = [4, 20, 100];
/// Items, and lists, that must be all different before a key is taken to be unique in all: a wrong guess makes a
/// document fail some night.
const UNIQUE_IN_ALL_MIN: (u64, u64) = (1_000, 100);
/// Of fewer documents any field may be all different by chance.
const FEW: u64 = 20;
/// Names in a comment or message.
const NAMED_MAX: usize = 5;

/// A key, by places among the fields, and the evidence for it. Of no field: what has it is told apart by content.
#[derive(Clone, Debug, Default)]
pub(super) struct Key {
    pub fields: Vec<usize>,
    pub unique_in_all: bool,
    pub evidence: String,
}

/// The key of the documents.
pub(super) fn of_documents(
    survey: &Survey,
    fields: &[Field<'_>],
    options: &Options,
) -> Result<Key, ProposeError> {
    if !options.key.is_empty() {
        return chosen(fields, &options.key);
    }
    let documents = survey.documents();
    let mut ranked: Vec<(u8, usize)> = Vec::new();
    for (at, field) in fields.iter().enumerate() {
        let class = key_class(field.last_name());
        // Of one document every field is all different.
        if is_unique(field) && (documents > 1 || class < 2) {
            ranked.push((rank(field, class), at));
        }
    }
    ranked.sort();
    let (Some((_, best)), others) = (ranked.first(), ranked.iter().skip(1)) else {
        return Err(no_key(survey, fields));
    };
    let path = |at: usize| fields[at].path.to_string();
    let mut evidence = format!(
        "Key: {} of {} documents have `{}`, all different{}.",
        number(documents),
        number(documents),
        path(*best),
        compared(survey),
    );
    let others: Vec<String> = others.map(|(_, at)| path(*at)).collect();
    if !others.is_empty() {
        evidence += &format!(" So are the values of {}; --key chooses.", quoted_list(&others, NAMED_MAX));
    }
    if documents < FEW {
        evidence += " Of so few documents that proves little.";
    }
    Ok(Key { fields: vec![*best], unique_in_all: true, evidence })
}

/// What is said where not all values were compared.
fn compared(survey: &Survey) -> String {
    match survey.tally.bits {
        0 => String::new(),
        bits => format!(" as far as compared (one value in {})", number(1 << bits)),
    }
}

/// Shallow fields with names of keys first; of these what takes little room in an index.
fn rank(field: &Field<'_>, class: u8) -> u8 {
    let depth = u8::try_from(field.path.0.len() - 1).unwrap_or(u8::MAX).min(8);
    let ty = match field.node.guess.name() {
        Some("date" | "timestamp" | "timestamptz") => 2,
        _ => u8::from(field.node.bytes_max > 64),
    };
    (class + 2 * depth) * 3 + ty
}

/// Whether every item has a value there that a key can have.
fn can_be_key(field: &Field<'_>) -> bool {
    let is_type = matches!(
        field.node.guess.name(),
        Some("bigint" | "uuid" | "text" | "date" | "timestamp" | "timestamptz")
    );
    // As text a number has more than one spelling.
    let is_known = !field.node.values.is_hopeless && !field.node.nul && field.node.kinds.count_ones() == 1;
    is_type && is_known && matches!(field.shape, Shape::Scalar) && field.is_always()
}

fn is_unique(field: &Field<'_>) -> bool {
    can_be_key(field) && field.node.values.repeated == 0
}

/// The key that was asked for, which is taken though some documents may not have it.
fn chosen(fields: &[Field<'_>], names: &[String]) -> Result<Key, ProposeError> {
    let (mut key, mut said) = (Vec::new(), Vec::new());
    for name in names {
        let at = fields.iter().position(|field| field.path.to_string() == *name);
        let Some(at) = at.filter(|at| matches!(fields[*at].shape, Shape::Scalar)) else {
            let known = fields.iter().filter(|field| matches!(field.shape, Shape::Scalar));
            let known: Vec<String> = known.map(|field| field.path.to_string()).collect();
            let known = quoted_list(&known, 3 * NAMED_MAX);
            return Err(ProposeError(format!(
                "no document has a plain value at `{name}`; the fields are {known}"
            )));
        };
        if key.contains(&at) {
            continue;
        }
        key.push(at);
        said.extend(blemishes(&fields[at], names.len() == 1).map(|blemish| format!("`{name}` {blemish}")));
    }
    let names = quoted_list(names, usize::MAX);
    let evidence = match said.is_empty() {
        true => format!("Key: {names}, as chosen."),
        false => {
            format!("Key: {names}, as chosen, although {}: such documents will fail.", said.join(", and "))
        }
    };
    Ok(Key { fields: key, unique_in_all: true, evidence })
}

/// What keeps a field from being the key.
fn blemishes(field: &Field<'_>, alone: bool) -> impl Iterator<Item = String> {
    let lacking = field.of - field.filled();
    let lacks = (lacking > 0).then(|| format!("is null or absent in {}", plural(lacking, "document")));
    let repeated = field.node.values.repeated;
    let repeats = (alone && repeated > 0)
        .then(|| format!("has in {} a value that another has", plural(repeated, "document")));
    let long = field.node.values.is_hopeless && field.node.bytes_max > KEY_BYTES_MAX;
    let is_long = long.then(|| format!("is up to {} bytes long", number(field.node.bytes_max as u64)));
    lacks.into_iter().chain(repeats).chain(is_long)
}

fn no_key(survey: &Survey, fields: &[Field<'_>]) -> ProposeError {
    let scalars = fields.iter().filter(|field| matches!(field.shape, Shape::Scalar) && field.filled() > 0);
    let mut nearest: Vec<_> =
        scalars.map(|field| (rank(field, key_class(field.last_name())), field)).collect();
    nearest.sort_by_key(|(rank, _)| *rank);
    let said = nearest.iter().take(NAMED_MAX).filter_map(|(_, field)| {
        let blemishes: Vec<String> = blemishes(field, true).collect();
        (!blemishes.is_empty()).then(|| format!("\n  `{}` {}", field.path, blemishes.join(", and ")))
    });
    let nearest: String = said.collect();
    let looked_for = match survey.documents() {
        1 => "one document alone does not show its key, and no field of it is called like one".to_owned(),
        count => {
            format!("no field tells the {} documents apart: in each of them, no two alike", number(count))
        }
    };
    if let Some((list, items)) = envelope(survey, fields) {
        return ProposeError(format!(
            "one document alone does not show its key; if the documents are the {} of `{list}`, let those be the feed:\n  \
             jq -c '.{list}[]' FILE | rowdelta init -",
            plural(items, "item")
        ));
    }
    let nearest = if nearest.is_empty() { nearest } else { format!("; the nearest:{nearest}") };
    ProposeError(format!(
        "{looked_for}{nearest}\nname the key with --key FIELD; several times, if it takes several fields"
    ))
}

/// The longest list of objects in what may be the answer of an API around the documents.
fn envelope<'f>(survey: &Survey, fields: &'f [Field<'_>]) -> Option<(&'f Path, u64)> {
    let lists = fields.iter().filter_map(|field| match field.shape {
        Shape::List(items) if items.node.objects > 1 => Some((&field.path, items.node.objects)),
        _ => None,
    });
    // What `jq` would write otherwise is not worth a hint.
    let lists = lists.filter(|(path, _)| is_plain(&path.to_string()));
    lists.filter(|_| survey.documents() == 1).max_by_key(|(_, items)| *items)
}

fn is_plain(path: &str) -> bool {
    path.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_' || letter == '.')
}

/// The key of the items of a list, if one field is enough.
pub(super) fn of_items(survey: &Survey, fields: &[Field<'_>], lists: u64, items: &Items) -> Option<Key> {
    let mut ranked: Vec<(u8, usize)> = Vec::new();
    for (at, field) in fields.iter().enumerate() {
        let class = key_class(field.last_name());
        if can_be_key(field) && field.node.values.lists_with_repeats == 0 && is_proven(field, class, items) {
            ranked.push((rank(field, class), at));
        }
    }
    let (_, best) = *ranked.iter().min()?;
    let field = &fields[best];
    let path = &field.path;
    if is_unique_in_all(field, lists) {
        let compared = compared(survey);
        let evidence = format!("each has `{path}`, all different, in whatever list they are{compared}");
        return Some(Key { fields: vec![best], unique_in_all: true, evidence });
    }
    let mut evidence = format!("each has `{path}`, no two alike in one list");
    if field.node.values.repeated == 0 {
        evidence += " (nor in two, but that is not relied on)";
    }
    Some(Key { fields: vec![best], unique_in_all: false, evidence })
}

/// Whether enough siblings were compared for a name of this class.
fn is_proven(field: &Field<'_>, class: u8, items: &Items) -> bool {
    let least = SIBLINGS_MIN.get(usize::from(class));
    least.is_some_and(|least| items.siblings >= *least) && field.path.0.len() <= 2
}

/// Ids that nobody gives twice: whole numbers and uuids, many of them, in many lists.
fn is_unique_in_all(field: &Field<'_>, lists: u64) -> bool {
    let is_id =
        key_class(field.last_name()) < 2 && matches!(field.node.guess.name(), Some("bigint" | "uuid"));
    let (items_min, lists_min) = UNIQUE_IN_ALL_MIN;
    is_id && is_unique(field) && field.of >= items_min && lists >= lists_min
}
