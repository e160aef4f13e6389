//! From what was seen to the relations of a mapping: which list becomes which table.

use super::catalogue::is_catalogue;
use super::columns::{Body, is_column, whole_list};
use super::draft::{Absent, Draft, Link, Lookup, Relation};
use super::fields::{Field, absences, fields};
use super::keys::{self, Key};
use super::names::{Names, snake};
use super::node::{Items, Node, Shape};
use super::print::{number, plural};
use super::{Options, ProposeError, Survey};
use crate::mapping::{Path, Segment};

/// What rows of inner relations refer to.
struct Outer<'o> {
    /// Its name, for those of inner relations.
    name: &'o str,
    parent: Vec<String>,
}

/// The rows of a list or map.
struct Rows<'n> {
    fields: Vec<Field<'n>>,
    /// Fields that no path can name.
    unknown: Vec<Path>,
    key: Key,
    note: String,
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
        let (fields, unknown) = fields(&self.survey.root, self.survey.documents());
        let key = keys::of_documents(self.survey, &fields, options)?;
        let mut body = Body::with(key.evidence.clone());
        if let Some(rest) = &self.survey.root.rest {
            body.notes.push(format!("Left out: {} of more than 500 fields.", plural(rest.present, "value")));
        }
        body.leave_out(&unknown);
        let key = body.add_all(&fields, &key);
        let name = self.root.clone();
        let inner = self.inner(&fields, &mut body, &Outer { name: &name, parent: parents(&name, &key) });
        let (name, table) = (options.name.clone(), options.table.clone());
        let Body { notes, columns, .. } = body;
        Ok(Relation { notes, name, table, key, columns, inner, ..Relation::default() })
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

    /// The relation of a list; `None` if its items have no columns.
    fn list(&mut self, field: &Field<'_>, items: &Items, outer: &Outer<'_>) -> Option<Relation> {
        let (fields, unknown) = fields_of_items(items)?;
        let name = self.name(field, outer);
        let lists = field.node.filled;
        let seen = format!("{} in {}", plural(items.node.present, "item"), plural(lists, "list"));
        if unknown.is_empty() && is_catalogue(field.node, items, &fields) {
            return Some(self.link(field, items, &fields, name, outer, &seen));
        }
        let is_scalar = matches!(items.node.shape(), Shape::Scalar);
        let key = if is_scalar { None } else { keys::of_items(self.survey, &fields, lists, items) };
        let told_apart = match &key {
            Some(key) => &key.evidence,
            None if is_scalar => "told apart by their value, equal ones counted, in no order",
            None => "no field surely tells them apart, so their whole content does",
        };
        let note = format!("{seen}; {told_apart}.");
        let rows = Rows { fields, unknown, key: key.unwrap_or_default(), note };
        let mut relation = self.child(field, name, &rows, outer);
        if field.node.singles > 0 {
            let singles = number(field.node.singles);
            relation.notes.push(format!("{singles} times one item stands there without a list around it."));
            relation.single = true;
        }
        Some(relation)
    }

    /// A table of an object's members, by their names.
    fn map(&mut self, field: &Field<'_>, values: &Node, outer: &Outer<'_>) -> Relation {
        let name = self.name(field, outer);
        let (mut fields, unknown) = fields_of_values(values);
        let names = plural(field.node.fields.nodes.len() as u64, "name");
        let note = format!(
            "A map: {} in {} have {names} that look like data. Each member is a row.",
            plural(values.present, "value"),
            plural(field.node.objects, "object"),
        );
        fields.insert(0, Field { path: Path(vec![Segment::Key]), shape: Shape::Scalar, ..itself(values) });
        let key = Key { fields: vec![0], ..Key::default() };
        self.child(field, name, &Rows { fields, unknown, key, note }, outer)
    }

    fn child(&mut self, field: &Field<'_>, name: String, rows: &Rows<'_>, outer: &Outer<'_>) -> Relation {
        let mut body = Body::with(rows.note.clone());
        let parent = outer.parent.iter().map(|column| body.taken.give(column)).collect();
        body.leave_out(&rows.unknown);
        let id = self::id(rows).map(|id| body.taken.give(id));
        let key = body.add_all(&rows.fields, &rows.key);
        let referred = id.as_ref().map_or(key.as_slice(), std::slice::from_ref);
        let inside = Outer { name: &name, parent: parents(&name, referred) };
        let inner = self.inner(&rows.fields, &mut body, &inside);
        let (path, table) = (field.path.clone(), self.table(&name));
        let unique_in_all = rows.key.unique_in_all;
        let Body { notes, columns, .. } = body;
        Relation {
            notes,
            name,
            path,
            table,
            id,
            parent,
            key,
            unique_in_all,
            columns,
            inner,
            ..Relation::default()
        }
    }

    fn link(
        &mut self,
        field: &Field<'_>,
        items: &Items,
        fields: &[Field<'_>],
        name: String,
        outer: &Outer<'_>,
        seen: &str,
    ) -> Relation {
        let (different, once) = items.contents.as_ref().map_or((0, 0), |all| (all.different(), all.once()));
        let only_once = match once {
            0 => "each seen more than once".to_owned(),
            once => format!("{} of them seen only once", number(once)),
        };
        let note = format!("A catalogue: {seen} are {} different ones, {only_once}.", number(different));
        let table = self.table(&name);
        let (lookup, matching) = self.lookup(fields, &name);
        let mut taken = Names::default();
        let parent = outer.parent.iter().map(|column| taken.give(column)).collect();
        let link = Some(Link { target: taken.give(&format!("{name}_id")), lookup, matching });
        let path = field.path.clone();
        Relation { notes: vec![note], name, path, table, parent, link, ..Relation::default() }
    }

    /// A catalogue of the items of a list: its name, and the path of each column.
    fn lookup(&mut self, fields: &[Field<'_>], relation: &str) -> (String, Vec<(String, Path)>) {
        let mut body = Body::default();
        let id = body.taken.give(if fields.iter().any(is_id) { "row_id" } else { "id" });
        fields.iter().for_each(|field| body.add(field, None));
        let matching = body.columns.iter().map(|column| (column.name.clone(), column.path.clone())).collect();
        // Reports name catalogues beside relations.
        let name = self.relations.give(&format!("{relation}_catalogue"));
        let table = self.table(&name);
        self.lookups.push(Lookup { name: name.clone(), table, id, columns: body.columns });
        (name, matching)
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

/// The fields of a list's items, and those that no path can name; `None` if there is no column among them.
fn fields_of_items(items: &Items) -> Option<(Vec<Field<'_>>, Vec<Path>)> {
    let found = match items.node.shape() {
        Shape::Scalar if items.are_tuples() => return None,
        Shape::Scalar => (vec![itself(&items.node)], Vec::new()),
        Shape::Object => fields(&items.node, items.node.present),
        Shape::Map(_) => (vec![whole(&items.node)], Vec::new()),
        Shape::Never | Shape::List(_) | Shape::Mixed => return None,
    };
    found.0.iter().any(is_column).then_some(found)
}

/// The fields of a map's values, likewise. What has none is a column as a whole.
fn fields_of_values(values: &Node) -> (Vec<Field<'_>>, Vec<Path>) {
    let found = match values.shape() {
        Shape::Object => fields(values, values.present),
        Shape::Scalar => (vec![itself(values)], Vec::new()),
        _ => (vec![whole(values)], Vec::new()),
    };
    if found.0.iter().any(is_column) { found } else { (vec![whole(values)], Vec::new()) }
}

/// The item itself, as the only field.
fn itself(node: &Node) -> Field<'_> {
    Field { path: Path::default(), node, shape: node.shape(), of: node.present, cut_off: 0 }
}

/// The item itself, as it is.
fn whole(node: &Node) -> Field<'_> {
    Field { shape: Shape::Mixed, ..itself(node) }
}

/// The usual name of a surrogate, or another one where a field is called so; `None` if rows need none: nothing refers to
/// them, or their key is enough.
fn id(rows: &Rows<'_>) -> Option<&'static str> {
    let encloses = !rows.fields.iter().all(is_column);
    let is_taken = rows.fields.iter().any(is_id);
    // The tables that `ddl` makes have an id where there is no key, unless the mapping has one of that name.
    let needs_one = (encloses && !rows.key.unique_in_all) || (rows.key.fields.is_empty() && is_taken);
    needs_one.then_some(if is_taken { "row_id" } else { "id" })
}

/// Whether a field's column would be called `id`.
fn is_id(field: &Field<'_>) -> bool {
    is_column(field) && snake(&field.name(), "value") == "id"
}

/// The columns that refer to rows of a relation by these.
fn parents(relation: &str, referred: &[String]) -> Vec<String> {
    referred.iter().map(|column| format!("{relation}_{column}")).collect()
}
