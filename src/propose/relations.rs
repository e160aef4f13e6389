//! From what was seen to the relations of a mapping: which list becomes which table.

use super::fields::{Field, absences, fields};
use super::keys::{self, Key};
use super::names::{Names, snake};
use super::node::{BOOLEAN, Items, NUMBER, Node, STRING, Shape};
use super::print::{list_of, number, plural};
use super::{Options, ProposeError, Survey};
use crate::mapping::{Path, Segment};

/// Items that a list must have had before they can be a catalogue, and lists.
const CATALOGUE_MIN: (u64, u64) = (20, 10);
/// How often each item of a catalogue is used, at least, on average.
const CATALOGUE_USES_MIN: u64 = 3;
/// One item in so many, at most, may be the only one like it: as many of those that come will be new.
const CATALOGUE_ONCE: u64 = 8;
/// All columns of a catalogue's key fit into an index entry.
const CATALOGUE_BYTES_MAX: usize = 1_000;

/// A proposed mapping, ready to be printed.
#[derive(Clone, Debug)]
pub(super) struct Draft {
    pub name: String,
    /// What an absent field means, if any was absent.
    pub absent: Absent,
    pub root: Relation,
    pub lookups: Vec<Lookup>,
}

/// What a field that is not there says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Absent {
    /// Every field was there in every document.
    Never,
    /// That it has no value: this is how the feed says so.
    Nothing(u64),
    /// Not certain: the feed writes null, too.
    Unclear(u64, u64),
}

#[derive(Clone, Debug)]
pub(super) struct Relation {
    /// The evidence.
    pub notes: Vec<String>,
    pub name: String,
    /// Empty for the root.
    pub path: Path,
    pub table: String,
    pub id: Option<String>,
    pub parent: Vec<String>,
    pub key: Vec<String>,
    pub unique_in_all: bool,
    pub single: bool,
    pub link: Option<Link>,
    pub columns: Vec<Column>,
    pub inner: Vec<Relation>,
}

#[derive(Clone, Debug)]
pub(super) struct Link {
    pub target: String,
    pub lookup: String,
    /// Columns of the catalogue, and paths in the item.
    pub matching: Vec<(String, Path)>,
}

#[derive(Clone, Debug)]
pub(super) struct Column {
    pub name: String,
    pub path: Path,
    pub ty: &'static str,
    /// Whether U+0000 is in it.
    pub nul: bool,
    pub notes: Vec<String>,
}

#[derive(Clone, Debug)]
pub(super) struct Lookup {
    pub name: String,
    pub table: String,
    pub id: String,
    pub columns: Vec<Column>,
}

/// What rows of inner relations refer to.
struct Outer<'o> {
    /// Its name, for those of inner relations.
    name: &'o str,
    parent: Vec<String>,
}

/// What the items at a place become.
struct Body {
    notes: Vec<String>,
    columns: Vec<Column>,
    /// Names of the columns so far.
    taken: Names,
}

/// Drafts the mapping of what was surveyed.
pub(super) fn draft(survey: &Survey, options: &Options) -> Result<Draft, ProposeError> {
    let (schema, table) = match options.table.rsplit_once('.') {
        Some((schema, table)) => (format!("{schema}."), table),
        None => (String::new(), options.table.as_str()),
    };
    let mut drafter = Drafter {
        survey,
        schema,
        root: table.to_owned(),
        tables: Names::default(),
        relations: Names::default(),
        lookups: Vec::new(),
    };
    drafter.tables.give(table);
    drafter.relations.give(&options.name);
    let root = drafter.root(options)?;
    let absent = match absences(&survey.root) {
        (0, _) => Absent::Never,
        (absent, nulls) if nulls * 10 <= absent => Absent::Nothing(absent),
        (absent, nulls) => Absent::Unclear(absent, nulls),
    };
    Ok(Draft { name: options.name.clone(), absent, root, lookups: drafter.lookups })
}

struct Drafter<'s> {
    survey: &'s Survey,
    /// With its dot.
    schema: String,
    root: String,
    tables: Names,
    relations: Names,
    lookups: Vec<Lookup>,
}

impl Drafter<'_> {
    fn root(&mut self, options: &Options) -> Result<Relation, ProposeError> {
        let documents = self.survey.documents();
        let (fields, unknown) = fields(&self.survey.root, documents);
        let key = keys::of_documents(self.survey, &fields, options)?;
        let mut body =
            Body { notes: vec![key.evidence.clone()], columns: Vec::new(), taken: Names::default() };
        if let Some(rest) = &self.survey.root.rest {
            body.notes.push(format!("Left out: {} of more than 500 fields.", plural(rest.present, "value")));
        }
        body.leave_out(&unknown);
        let key = body.add_all(&fields, &key);
        let inner = self.inner(
            &fields,
            &mut body,
            &Outer { name: &self.root.clone(), parent: parents(&self.root, &key) },
        );
        Ok(Relation {
            notes: body.notes,
            name: options.name.clone(),
            path: Path::default(),
            table: options.table.clone(),
            id: None,
            parent: Vec::new(),
            key,
            unique_in_all: true,
            single: false,
            link: None,
            columns: body.columns,
            inner,
        })
    }

    /// The relations of the lists and maps among the fields. What has no place in one becomes a column.
    fn inner(&mut self, fields: &[Field<'_>], body: &mut Body, outer: &Outer<'_>) -> Vec<Relation> {
        let mut relations = Vec::new();
        for field in fields {
            let relation = match field.shape {
                Shape::List(items) => self.list(field, items, outer),
                Shape::Map(values) => Some(self.map(field, values, outer)),
                Shape::Never | Shape::Scalar | Shape::Object | Shape::Mixed => continue,
            };
            match relation {
                Some(relation) => relations.push(relation),
                None => body.add(field, Some(whole_list(field.shape))),
            }
        }
        relations
    }

    fn list(&mut self, field: &Field<'_>, items: &Items, outer: &Outer<'_>) -> Option<Relation> {
        let count = items.node.present;
        let (own, unknown) = match items.node.shape() {
            Shape::Scalar if items.are_tuples() => return None,
            Shape::Scalar => (vec![itself(&items.node, count)], Vec::new()),
            Shape::Object => fields(&items.node, count),
            Shape::Map(_) => (vec![Field { shape: Shape::Mixed, ..itself(&items.node, count) }], Vec::new()),
            Shape::Never | Shape::List(_) | Shape::Mixed => return None,
        };
        if !own.iter().any(|field| is_column(field)) {
            return None;
        }
        let name = self.name(field, outer);
        let mut seen = format!("{} in {}", plural(count, "item"), plural(field.node.filled, "list"));
        if unknown.is_empty() && is_catalogue(field.node, items, &own) {
            return Some(self.link(field, items, &own, name, outer, seen));
        }
        let is_scalar = matches!(items.node.shape(), Shape::Scalar);
        let key = match is_scalar {
            true => None,
            false => keys::of_items(self.survey, &own, field.node.filled, items),
        };
        seen += "; ";
        seen += match &key {
            Some(key) => &key.evidence,
            None if is_scalar => "told apart by their value, equal ones counted, in no order",
            None => "no field surely tells them apart, so their whole content does",
        };
        seen.push('.');
        let mut relation = self.child(field, name, &own, &unknown, key, outer, vec![seen]);
        if field.node.singles > 0 {
            let singles = number(field.node.singles);
            relation.notes.push(format!("{singles} times one item stands there without a list around it."));
            relation.single = true;
        }
        Some(relation)
    }

    /// A table of an object's members, by their names.
    fn map(&mut self, field: &Field<'_>, values: &Node, outer: &Outer<'_>) -> Relation {
        let count = values.present;
        let name = self.name(field, outer);
        let (mut own, mut unknown) = match values.shape() {
            Shape::Object => fields(values, count),
            Shape::Scalar => (vec![itself(values, count)], Vec::new()),
            _ => (vec![Field { shape: Shape::Mixed, ..itself(values, count) }], Vec::new()),
        };
        if !own.iter().any(|field| is_column(field)) {
            (own, unknown) = (vec![Field { shape: Shape::Mixed, ..itself(values, count) }], Vec::new());
        }
        let names = plural(field.node.fields.nodes.len() as u64, "name");
        let note = format!(
            "A map: {} in {} have {names} that look like data. Each member is a row.",
            plural(count, "value"),
            plural(field.node.objects, "object"),
        );
        let key_of_map = Field {
            path: Path(vec![Segment::Key]),
            node: field.node,
            shape: Shape::Scalar,
            of: count,
            cut_off: 0,
        };
        own.insert(0, key_of_map);
        let key = Key { fields: vec![0], unique_in_all: false, evidence: String::new() };
        self.child(field, name, &own, &unknown, Some(key), outer, vec![note])
    }

    #[allow(clippy::too_many_arguments)]
    fn child(
        &mut self,
        field: &Field<'_>,
        name: String,
        own: &[Field<'_>],
        unknown: &[Path],
        key: Option<Key>,
        outer: &Outer<'_>,
        notes: Vec<String>,
    ) -> Relation {
        let mut body = Body { notes, columns: Vec::new(), taken: Names::default() };
        let parent: Vec<String> = outer.parent.iter().map(|column| body.taken.give(column)).collect();
        body.leave_out(unknown);
        let encloses = own.iter().any(|field| matches!(field.shape, Shape::List(_) | Shape::Map(_)));
        let by_key = key.as_ref().is_some_and(|key| key.unique_in_all);
        // Rows that nothing else identifies have an id, whose usual name a field may have.
        let has_id = |field: &Field<'_>| is_column(field) && snake(&field.name(), "value") == "id";
        let needs_id = (encloses && !by_key) || (key.is_none() && own.iter().any(has_id));
        let id = needs_id.then(|| match own.iter().any(has_id) {
            true => body.taken.give("row_id"),
            false => body.taken.give("id"),
        });
        let key_columns = match &key {
            Some(key) => body.add_all(own, key),
            None => {
                body.add_all(own, &Key { fields: Vec::new(), unique_in_all: false, evidence: String::new() })
            }
        };
        let referred = id.as_ref().map_or(key_columns.as_slice(), std::slice::from_ref);
        let inside = Outer { name: &name, parent: parents(&name, referred) };
        let inner = self.inner(own, &mut body, &inside);
        Relation {
            notes: body.notes,
            path: field.path.clone(),
            table: self.table(&name),
            id,
            parent,
            key: key_columns,
            unique_in_all: by_key,
            single: false,
            link: None,
            columns: body.columns,
            inner,
            name,
        }
    }

    fn link(
        &mut self,
        field: &Field<'_>,
        items: &Items,
        own: &[Field<'_>],
        name: String,
        outer: &Outer<'_>,
        seen: String,
    ) -> Relation {
        let (different, once) = items.contents.as_ref().map_or((0, 0), |all| (all.different(), all.once()));
        let only_once = match once {
            0 => "each seen more than once".to_owned(),
            once => format!("{} of them seen only once", number(once)),
        };
        let note = format!("A catalogue: {seen} are {} different ones, {only_once}.", number(different));
        let mut body = Body { notes: vec![note], columns: Vec::new(), taken: Names::default() };
        let has_id = own.iter().any(|field| snake(&field.name(), "value") == "id");
        let id = body.taken.give(if has_id { "row_id" } else { "id" });
        own.iter().for_each(|field| body.add(field, None));
        let matching = body.columns.iter().map(|column| (column.name.clone(), column.path.clone())).collect();
        let table = self.table(&name);
        // Reports name catalogues beside relations.
        let lookup = self.relations.give(&format!("{name}_catalogue"));
        let catalogue = self.table(&lookup);
        self.lookups.push(Lookup { name: lookup.clone(), table: catalogue, id, columns: body.columns });
        let mut taken = Names::default();
        let parent: Vec<String> = outer.parent.iter().map(|column| taken.give(column)).collect();
        let link = Link { target: taken.give(&format!("{name}_id")), lookup, matching };
        Relation {
            notes: body.notes,
            name,
            path: field.path.clone(),
            table,
            id: None,
            parent,
            key: Vec::new(),
            unique_in_all: false,
            single: false,
            link: Some(link),
            columns: Vec::new(),
            inner: Vec::new(),
        }
    }

    /// A relation's name: its field's, with that of the enclosing one where another list has it already.
    fn name(&mut self, field: &Field<'_>, outer: &Outer<'_>) -> String {
        let name = snake(&field.name(), "list");
        match self.relations.is_given(&name) {
            true => self.relations.give(&format!("{}_{name}", outer.name)),
            false => self.relations.give(&name),
        }
    }

    /// A table of its own, named so that it is none of another application.
    fn table(&mut self, relation: &str) -> String {
        let prefix = format!("{}_", self.root);
        let name = if relation.starts_with(&prefix) { relation.to_owned() } else { prefix + relation };
        self.schema.clone() + &self.tables.give(&name)
    }
}

impl Body {
    /// Adds the columns of all fields that are some. Gives the names of those of the key.
    fn add_all(&mut self, fields: &[Field<'_>], key: &Key) -> Vec<String> {
        let mut names = vec![String::new(); key.fields.len()];
        for (at, field) in fields.iter().enumerate().filter(|(_, field)| is_column(field)) {
            self.add(field, None);
            if let Some(place) = key.fields.iter().position(|key| *key == at) {
                names[place] = self.columns[self.columns.len() - 1].name.clone();
            }
        }
        names
    }

    fn add(&mut self, field: &Field<'_>, note: Option<String>) {
        let is_key_of_map = field.path.0 == [Segment::Key];
        let name = if is_key_of_map { "key".to_owned() } else { snake(&field.name(), "value") };
        let ty = match field.shape {
            _ if is_key_of_map => "text",
            Shape::Scalar => field.node.guess.name().unwrap_or("text"),
            _ => "jsonb",
        };
        self.columns.push(Column {
            name: self.taken.give(&name),
            path: field.path.clone(),
            ty,
            nul: !is_key_of_map && field.node.holds_nul(),
            notes: if is_key_of_map { Vec::new() } else { column_notes(field, note) },
        });
    }

    fn leave_out(&mut self, unknown: &[Path]) {
        if !unknown.is_empty() {
            let names: Vec<String> = unknown.iter().map(|path| format!("{:?}", path.to_string())).collect();
            self.notes.push(format!("Left out, because no path can name them: {}.", list_of(&names, 5)));
        }
    }
}

/// The item itself, as the only field.
fn itself(node: &Node, of: u64) -> Field<'_> {
    Field { path: Path::default(), node, shape: node.shape(), of, cut_off: 0 }
}

fn is_column(field: &Field<'_>) -> bool {
    !matches!(field.shape, Shape::List(_) | Shape::Map(_))
}

/// The columns that refer to rows of a relation by these.
fn parents(relation: &str, referred: &[String]) -> Vec<String> {
    referred.iter().map(|column| format!("{relation}_{column}")).collect()
}

/// What is worth knowing of a column: what is missing, and what it does not hold.
fn column_notes(field: &Field<'_>, note: Option<String>) -> Vec<String> {
    let node = field.node;
    let mut notes: Vec<String> = note.into_iter().collect();
    match field.shape {
        Shape::Never => notes.push("never a value: jsonb takes whatever comes".to_owned()),
        Shape::Mixed if notes.is_empty() => notes.push(mixture(node)),
        Shape::Scalar if node.kinds.count_ones() > 1 => notes.push(kinds(node)),
        _ => {}
    }
    if field.nulls() > 0 && !matches!(field.shape, Shape::Never) {
        notes.push(format!("null in {}", number(field.nulls())));
    }
    if field.absent() > 0 {
        notes.push(format!("absent in {}", number(field.absent())));
    }
    if node.holds_nul() {
        notes.push("U+0000 in it, which PostgreSQL cannot store, is left out".to_owned());
    }
    notes
}

/// In words, why a list is not taken apart.
fn whole_list(shape: Shape<'_>) -> String {
    match shape {
        Shape::List(items) if items.are_tuples() => {
            format!("{} numbers each: whole, in their order", number(items.lengths.1 as u64))
        }
        _ => "lists of what has no columns: whole, in their order".to_owned(),
    }
}

/// In words, which kinds of scalars there are.
fn kinds(node: &Node) -> String {
    let kinds = [(STRING, "strings"), (NUMBER, "numbers"), (BOOLEAN, "booleans")];
    let kinds: Vec<String> =
        kinds.iter().filter(|(bit, _)| node.kinds & bit != 0).map(|(_, kind)| (*kind).to_owned()).collect();
    list_of(&kinds, kinds.len())
}

/// In words, why something has no columns.
fn mixture(node: &Node) -> String {
    let found = [
        (node.scalars, "plain values"),
        (node.objects, "objects"),
        (node.lists.min(node.filled), "lists"),
        (node.lists.saturating_sub(node.filled), "empty lists"),
    ];
    let found: Vec<&str> = found.iter().filter(|(count, _)| *count > 0).map(|(_, what)| *what).collect();
    match (found.as_slice(), node.fields.nodes.is_empty()) {
        (["empty lists"], _) => "only empty lists: jsonb takes whatever comes".to_owned(),
        (["objects"], true) => "only empty objects: jsonb takes whatever comes".to_owned(),
        (["objects"], false) => "objects with too many names for columns".to_owned(),
        (found, _) => found.join(" and "),
    }
}

/// Whether the items of a list look like rows of a catalogue: few different ones, all scalars, each used often, and
/// never twice in one list.
fn is_catalogue(list: &Node, items: &Items, fields: &[Field<'_>]) -> bool {
    let Some(contents) = items.contents.as_ref().filter(|_| list.singles == 0) else { return false };
    let (items_min, lists_min) = CATALOGUE_MIN;
    let is_used = contents.total >= items_min
        && list.filled >= lists_min
        && contents.different() * CATALOGUE_USES_MIN <= contents.total
        && contents.once() * CATALOGUE_ONCE <= contents.total
        && contents.lists_with_repeats == 0;
    let bytes: usize = fields.iter().map(|field| field.node.bytes_max).sum();
    let has_text = fields.iter().any(|field| field.node.guess.name() == Some("text"));
    is_used && has_text && bytes <= CATALOGUE_BYTES_MAX && fields.iter().all(can_be_in_catalogue)
}

fn can_be_in_catalogue(field: &Field<'_>) -> bool {
    let is_type = matches!(field.node.guess.name(), Some("text" | "bigint" | "uuid" | "boolean" | "date"));
    let is_of_one_kind = field.node.kinds.count_ones() == 1 && !field.node.nul;
    matches!(field.shape, Shape::Scalar) && is_type && is_of_one_kind && field.is_always()
}
