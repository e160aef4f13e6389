//! From the tree to relations and lookups.
//!
//! This file says how each part is read; the rules between parts are in `rules`.
//! Lookups are read first, then the relations from the root inwards, so that
//! everything a relation refers to is known when it is read.

use serde_json::Value as JsonValue;

use super::faults::{Faults, nearest};
use super::tree::{At, Spot, Value};
use crate::mapping::{
    Column, Lookup, LookupIx, Mapping, OnDuplicate, Otherwise, Path, Relation, RelationIx, RelationKind,
    Segment, Source, TableName, TextForm, UniqueIn, WhenAbsent, WhenNull, WhenSingle,
};

const TOP: &[&str] = &["version", "name", "root", "lookups", "sync"];
const ROOT: &[&str] =
    &["table", "key", "alternate_key", "id", "columns", "children", "links", "absent_columns", "on_absent"];
const CHILD: &[&str] = &[
    "name",
    "path",
    "table",
    "parent",
    "key",
    "id",
    "unique_in",
    "pair",
    "where",
    "otherwise",
    "when_absent",
    "when_null",
    "when_single",
    "on_duplicate",
    "absent_columns",
    "columns",
    "children",
    "links",
];
const LINK: &[&str] = &[
    "name",
    "path",
    "table",
    "parent",
    "target",
    "lookup",
    "match",
    "where",
    "otherwise",
    "when_absent",
    "when_null",
    "when_single",
    "on_duplicate",
    "absent_columns",
    "columns",
];
const COLUMN: &[&str] = &[
    "path",
    "zone",
    "type",
    "when_absent",
    "ignore",
    "nullable",
    "nul",
    "nfc",
    "lookup",
    "match",
    "position",
    "value",
];

const WHEN_ABSENT: &[(&str, WhenAbsent)] = &[("keep", WhenAbsent::Keep), ("empty", WhenAbsent::Empty)];
const COLUMN_ABSENT: &[(&str, WhenAbsent)] = &[("keep", WhenAbsent::Keep), ("null", WhenAbsent::Empty)];
const WHEN_NULL: &[(&str, WhenNull)] =
    &[("empty", WhenNull::Empty), ("keep", WhenNull::Keep), ("error", WhenNull::Error)];
const WHEN_SINGLE: &[(&str, WhenSingle)] = &[("error", WhenSingle::Error), ("item", WhenSingle::Item)];
const ON_DUPLICATE: &[(&str, OnDuplicate)] =
    &[("error", OnDuplicate::Error), ("first", OnDuplicate::First), ("last", OnDuplicate::Last)];
const UNIQUE_IN: &[(&str, UniqueIn)] = &[("parent", UniqueIn::Parent), ("all", UniqueIn::All)];

/// Reads the whole mapping. What it returns is of use only if no fault was noted.
pub(super) fn mapping(top: &At<'_>, definition: JsonValue, faults: &mut Faults) -> Mapping {
    let mut reader = Reader {
        faults,
        relations: Vec::new(),
        places: Vec::new(),
        lookups: Vec::new(),
        lookup_places: Vec::new(),
    };
    let name = reader.head(top);
    reader.lookups(top);
    let root = reader.faults.required(top, "root", "describe the table that has one row a document");
    if let Some(root) = root {
        reader.root(&root, &name);
    }
    let sync = reader.sync(top);
    reader.check_names();
    reader.check_tables();
    reader.settle_otherwise();
    Mapping { name, relations: reader.relations, lookups: reader.lookups, sync, definition }
}

/// What has been read so far.
pub(super) struct Reader<'f, 'a> {
    pub(super) faults: &'f mut Faults,
    pub(super) relations: Vec<Relation>,
    /// Where each relation stands.
    pub(super) places: Vec<At<'a>>,
    pub(super) lookups: Vec<Lookup>,
    /// Where each lookup stands.
    pub(super) lookup_places: Vec<At<'a>>,
}

/// What a relation passes on to the ones inside it.
#[derive(Clone, Copy)]
struct Outer {
    relation: RelationIx,
    depth: usize,
    absent_columns: WhenAbsent,
}

/// What the columns of a relation need to know of it.
struct Rules<'a> {
    /// `None`: identified by content.
    key: Option<&'a [String]>,
    /// How many items are around an item of the relation.
    depth: usize,
    absent: WhenAbsent,
}

impl Rules<'_> {
    /// Whether rows are told apart by this column, so that it cannot be left as it is stored.
    fn identifies(&self, column: &str) -> bool {
        self.key.is_none() || self.is_key(column)
    }

    fn is_key(&self, column: &str) -> bool {
        self.key.is_some_and(|key| key.iter().any(|name| name == column))
    }
}

impl<'a> Reader<'_, 'a> {
    /// The mapping's name, after its version and top keys were checked.
    fn head(&mut self, top: &At<'a>) -> String {
        self.faults.table(top, TOP);
        let version = self.faults.required(top, "version", "add version = 1");
        match version.as_ref().map(|at| (at, &at.node.value)) {
            None | Some((_, Value::Integer(1))) => {}
            Some((at, Value::Integer(version))) => {
                let mend = "write version = 1, or update rowdelta if the mapping was written for a newer one";
                self.faults.add(&at.spot, format!("version {version} is not known here; {mend}"));
            }
            Some((at, _)) => self.faults.expected(at, "the integer 1"),
        }
        let mend = "add name = \"…\", which names the mapping in the database";
        let name = self.faults.required(top, "name", mend);
        name.and_then(|at| self.faults.text(&at)).unwrap_or_default()
    }

    fn root(&mut self, at: &At<'a>, name: &str) {
        if !self.faults.table(at, ROOT) {
            return;
        }
        let found = self.faults.required(at, "key", "name the columns that identify a document");
        let key = found.map(|at| self.faults.names(&at)).unwrap_or_default();
        let alternate_key = at.get("alternate_key").map(|at| self.faults.names(&at)).unwrap_or_default();
        let absent_columns = self.absent_columns(at, WhenAbsent::Keep);
        let rules = Rules { key: Some(&key), depth: 0, absent: absent_columns };
        let columns = self.required_columns(at, &rules);
        let relation = Relation {
            name: name.to_owned(),
            kind: RelationKind::Root,
            enclosing: None,
            path: Path::default(),
            conditions: Vec::new(),
            otherwise: Otherwise::default(),
            when_single: WhenSingle::default(),
            table: self.table_name(at),
            id: self.faults.optional(at, "id"),
            parent: Vec::new(),
            key,
            alternate_key,
            unique_in: UniqueIn::All,
            pair: false,
            when_absent: WhenAbsent::Keep,
            when_null: WhenNull::Empty,
            on_duplicate: OnDuplicate::Error,
            columns,
        };
        self.add(at, relation, 0, absent_columns);
    }

    fn child(&mut self, at: &At<'a>, outer: Outer) {
        if !self.faults.table(at, CHILD) {
            return;
        }
        let (name, path) = self.name_and_path(at);
        let key = at.get("key").map(|at| self.faults.names(&at));
        self.check_keyless(at, key.is_none());
        let pair = self.faults.flag(at, "pair");
        self.check_pair(at, pair && key.is_some());
        let absent_columns = self.absent_columns(at, outer.absent_columns);
        let depth = outer.depth + 1;
        let rules = Rules { key: key.as_deref(), depth, absent: absent_columns };
        let columns = self.required_columns(at, &rules);
        let relation = Relation {
            name,
            kind: RelationKind::Child,
            enclosing: Some(outer.relation),
            path,
            conditions: self.faults.conditions(at, depth),
            otherwise: self.faults.otherwise(at).unwrap_or_default(),
            when_single: self.faults.choice(at, "when_single", WHEN_SINGLE, WhenSingle::default()),
            table: self.table_name(at),
            id: self.faults.optional(at, "id"),
            parent: self.parent(at, outer.relation),
            alternate_key: Vec::new(),
            unique_in: self.faults.choice(at, "unique_in", UNIQUE_IN, UniqueIn::default()),
            pair,
            when_absent: self.faults.choice(at, "when_absent", WHEN_ABSENT, WhenAbsent::default()),
            when_null: self.faults.choice(at, "when_null", WHEN_NULL, WhenNull::default()),
            on_duplicate: self.faults.choice(at, "on_duplicate", ON_DUPLICATE, OnDuplicate::default()),
            key: key.unwrap_or_default(),
            columns,
        };
        self.add(at, relation, depth, absent_columns);
    }

    fn link(&mut self, at: &At<'a>, outer: Outer) {
        if !self.faults.table(at, LINK) {
            return;
        }
        let (name, path) = self.name_and_path(at);
        let mend = "name the column that refers to the catalogue";
        let target = self.faults.required(at, "target", mend).and_then(|at| self.faults.text(&at));
        let key: Vec<String> = target.into_iter().collect();
        let absent_columns = self.absent_columns(at, outer.absent_columns);
        let depth = outer.depth + 1;
        let rules = Rules { key: Some(&key), depth, absent: absent_columns };
        let columns = self.link_columns(at, &key, &rules);
        let relation = Relation {
            name,
            kind: RelationKind::Link,
            enclosing: Some(outer.relation),
            path,
            conditions: self.faults.conditions(at, depth),
            otherwise: self.faults.otherwise(at).unwrap_or_default(),
            when_single: self.faults.choice(at, "when_single", WHEN_SINGLE, WhenSingle::default()),
            table: self.table_name(at),
            id: None,
            parent: self.parent(at, outer.relation),
            alternate_key: Vec::new(),
            unique_in: UniqueIn::Parent,
            pair: false,
            when_absent: self.faults.choice(at, "when_absent", WHEN_ABSENT, WhenAbsent::default()),
            when_null: self.faults.choice(at, "when_null", WHEN_NULL, WhenNull::default()),
            // The same catalogue row twice is one pair.
            on_duplicate: self.faults.choice(at, "on_duplicate", ON_DUPLICATE, OnDuplicate::First),
            key,
            columns,
        };
        self.add(at, relation, depth, absent_columns);
    }

    /// The target column, then those of `columns`.
    fn link_columns(&mut self, at: &At<'a>, key: &[String], rules: &Rules<'_>) -> Vec<Column> {
        let source = self.lookup_source(at, rules.depth);
        let target = |name: &String| Column {
            name: name.clone(),
            place: 0,
            source: source.clone().unwrap_or_else(no_source),
            when_absent: WhenAbsent::Empty,
            text: TextForm::default(),
            ignore: false,
            ty: None,
            nullable: false,
        };
        let mut columns: Vec<Column> = key.iter().map(target).collect();
        if let Some(at) = at.get("columns") {
            for column in self.columns(&at, rules) {
                if key.contains(&column.name) {
                    let message =
                        format!("column {:?} is the target, which `match` fills; leave it out", column.name);
                    self.faults.add(&at.spot_of(&column.name), message);
                }
                columns.push(column);
            }
        }
        columns
    }

    /// Notes the relation, checks it against the one around it, and reads the ones inside it.
    fn add(&mut self, at: &At<'a>, relation: Relation, depth: usize, absent_columns: WhenAbsent) {
        self.check_key(at, &relation);
        self.check_alternate_key(at, &relation);
        self.check_id(at, &relation);
        self.check_parent_columns(at, &relation);
        self.check_positions(at, &relation);
        self.check_constant_key(at, &relation);
        let outer = Outer { relation: self.relations.len(), depth, absent_columns };
        self.relations.push(relation);
        self.places.push(at.clone());
        let children = self.faults.list(at, "children");
        let links = self.faults.list(at, "links");
        if !children.is_empty() || !links.is_empty() {
            self.check_encloses(at, outer.relation);
        }
        children.iter().for_each(|child| self.child(child, outer));
        links.iter().for_each(|link| self.link(link, outer));
    }

    fn name_and_path(&mut self, at: &At<'a>) -> (String, Path) {
        let found = self.faults.required(at, "name", "add name = \"…\", which reports and messages use");
        let name = found.and_then(|at| self.faults.text(&at)).unwrap_or_default();
        let path = at.get("path").and_then(|at| self.faults.list_path(&at));
        let path = path.unwrap_or_else(|| Path(vec![Segment::Field(name.clone())]));
        (name, path)
    }

    pub(super) fn table_name(&mut self, at: &At<'a>) -> TableName {
        let found = self.faults.required(at, "table", "add table = \"…\"");
        found.and_then(|at| self.faults.table_name(&at)).unwrap_or_else(no_table)
    }

    fn absent_columns(&mut self, at: &At<'a>, outer: WhenAbsent) -> WhenAbsent {
        self.faults.choice(at, "absent_columns", COLUMN_ABSENT, outer)
    }

    /// The columns that refer to the enclosing row: one for its id, or as many as its key has.
    fn parent(&mut self, at: &At<'a>, enclosing: RelationIx) -> Vec<String> {
        let mend = "name the column that refers to the enclosing row";
        let Some(at) = self.faults.required(at, "parent", mend) else { return Vec::new() };
        let parent = self.faults.names(&at);
        let outer = &self.relations[enclosing];
        let referred = outer.id.as_ref().map_or(outer.key.as_slice(), std::slice::from_ref);
        if parent.len() != referred.len() && !parent.is_empty() && !referred.is_empty() {
            let place = &self.places[enclosing].spot.place;
            let (found, wanted) = (count(parent.len()), count(referred.len()));
            let message = format!("{found}, but rows of {place} are referred to by {}", referred.join(", "));
            self.faults.add(&at.spot, format!("{message}; name {wanted}"));
        }
        parent
    }

    fn required_columns(&mut self, at: &At<'a>, rules: &Rules<'_>) -> Vec<Column> {
        let Some(at) = self.faults.required(at, "columns", "map at least one column to a path") else {
            return Vec::new();
        };
        let columns = self.columns(&at, rules);
        if matches!(&at.node.value, Value::Table(entries) if entries.is_empty()) {
            self.faults.add(&at.spot, "empty; map at least one column to a path");
        }
        columns
    }

    fn columns(&mut self, at: &At<'a>, rules: &Rules<'_>) -> Vec<Column> {
        if !self.faults.is_table(at) {
            return Vec::new();
        }
        let entries = at.entries().into_iter().enumerate();
        let columns = entries.map(|(place, (name, at))| Column { place, ..self.column(name, &at, rules) });
        let mut columns: Vec<Column> = columns.collect();
        columns.sort_by(|a, b| in_order(&a.name, &b.name));
        columns
    }

    fn column(&mut self, name: &str, at: &At<'a>, rules: &Rules<'_>) -> Column {
        let identifies = rules.identifies(name);
        let mut when_absent = if identifies { WhenAbsent::Empty } else { rules.absent };
        let (mut ty, mut nullable, mut text) = (None, false, TextForm::default());
        let mut ignore = false;
        if name.is_empty() {
            self.faults.add(&at.spot, "a column without a name; write its name");
        }
        let source = if matches!(at.node.value, Value::Table(_)) {
            self.faults.table(at, COLUMN);
            when_absent = self.faults.choice(at, "when_absent", COLUMN_ABSENT, when_absent);
            if identifies && when_absent == WhenAbsent::Keep {
                let message =
                    "rows are told apart by this column, so it cannot keep its value; leave when_absent out";
                self.faults.add(&at.spot_of("when_absent"), message);
            }
            ignore = self.faults.flag(at, "ignore");
            if ignore && rules.is_key(name) {
                let message = "rows are told apart by this column, so its change is one; leave ignore out";
                self.faults.add(&at.spot_of("ignore"), message);
            }
            ty = self.faults.type_name(at);
            text = self.faults.text_form(at);
            nullable = self.faults.flag(at, "nullable");
            if nullable && !rules.is_key(name) {
                self.faults.add(&at.spot_of("nullable"), "only columns of the key need it; leave it out");
            }
            match (at.get("position"), at.get("value")) {
                (Some(position), _) => self.position(at, &position),
                (None, Some(value)) => {
                    when_absent = WhenAbsent::Empty;
                    self.constant(at, &value)
                }
                (None, None) => self.column_table(at, rules.depth),
            }
        } else {
            self.paths(at, rules.depth).map(|paths| Source::Path { paths, zone: None })
        };
        let source = source.unwrap_or_else(no_source);
        Column { name: name.to_owned(), place: 0, source, when_absent, ignore, text, ty, nullable }
    }

    /// The same value in every row.
    fn constant(&mut self, at: &At<'a>, value: &At<'a>) -> Option<Source> {
        self.only_alone(
            at,
            &["path", "zone", "lookup", "match", "when_absent", "ignore", "nullable", "nul", "nfc"],
            "the value is the same in every row; leave this out, or value",
        );
        Some(Source::Constant { value: self.faults.constant(value)? })
    }

    /// Keys that have no meaning beside another one.
    fn only_alone(&mut self, at: &At<'a>, keys: &[&str], message: &str) {
        for key in keys.iter().filter(|key| at.get(key).is_some()) {
            self.faults.add(&at.spot_of(key), message);
        }
    }

    /// The place in the list, counted from the number that `position` is.
    fn position(&mut self, at: &At<'a>, position: &At<'a>) -> Option<Source> {
        self.only_alone(
            at,
            &["path", "value", "zone", "lookup", "match", "when_absent", "ignore", "nullable", "nul", "nfc"],
            "the value is the row's place in its list; leave this out, or position",
        );
        match position.node.value {
            Value::Integer(first) => return Some(Source::Position { first }),
            _ => self.faults.expected(position, "the place of the first row, an integer"),
        }
        None
    }

    fn column_table(&mut self, at: &At<'a>, depth: usize) -> Option<Source> {
        let looks_up = at.get("lookup").is_some() || at.get("match").is_some();
        if !looks_up {
            let zone = self.faults.optional(at, "zone");
            let mend = "say where the value is, which lookup gives it, or what it is (value)";
            let found = self.faults.required(at, "path", mend);
            let paths = self.paths(&found?, depth)?;
            return Some(Source::Path { paths, zone });
        }
        let message = "the value comes from a lookup; leave this out, or lookup and match";
        self.only_alone(at, &["path", "zone", "type"], message);
        let message =
            "said of the catalogue's own column, for all that refer to it; write it in columns of the lookup";
        self.only_alone(at, &["nul", "nfc"], message);
        self.lookup_source(at, depth)
    }

    /// One path, or a list of at least one.
    fn paths(&mut self, at: &At<'a>, depth: usize) -> Option<Vec<Path>> {
        match &at.node.value {
            Value::Text(_) => Some(vec![self.faults.path(at, depth)?]),
            Value::List(items) if items.is_empty() => {
                self.faults.add(&at.spot, "an empty list; name at least one path");
                None
            }
            Value::List(_) => {
                let paths = at.items().iter().map(|item| self.faults.path(item, depth)).collect::<Vec<_>>();
                paths.into_iter().collect()
            }
            _ => {
                self.faults.expected(at, "a path, a list of paths, or a table with path, lookup or value");
                None
            }
        }
    }

    /// The source that `lookup` and `match` describe.
    fn lookup_source(&mut self, at: &At<'a>, depth: usize) -> Option<Source> {
        let name = self.faults.required(at, "lookup", "name the lookup that gives the value");
        let matching = self.faults.required(at, "match", "give a path for each key column of the lookup");
        let lookup = name.and_then(|at| self.find_lookup(&at));
        let matching = matching.filter(|at| self.faults.is_table(at))?;
        let paths: Vec<(&str, Option<Path>)> =
            matching.entries().iter().map(|(name, at)| (*name, self.faults.path(at, depth))).collect();
        let lookup = lookup?;
        self.check_match(&matching, lookup, &paths);
        self.check_lookup_reach(lookup, depth);
        let path_of = |column: &String| {
            paths.iter().find(|(name, _)| name == column).and_then(|(_, path)| path.clone())
        };
        let matching = self.lookups[lookup].key.iter().map(path_of).collect::<Option<_>>()?;
        Some(Source::Lookup { lookup, matching })
    }

    fn find_lookup(&mut self, at: &At<'a>) -> Option<LookupIx> {
        let name = self.faults.text(at)?;
        let found = self.lookups.iter().position(|lookup| lookup.name == name);
        if found.is_none() {
            let mend = match nearest(&name, self.lookups.iter().map(|lookup| lookup.name.as_str())) {
                Some(known) => format!("did you mean {known:?}?"),
                None => format!("add [{}]", Spot::default().key("lookups").key(&name).place),
            };
            self.faults.add(&at.spot, format!("no lookup {name:?}; {mend}"));
        }
        found
    }
}

/// The order in which `jsonb` has the members of an object.
pub(super) fn in_order(a: &str, b: &str) -> std::cmp::Ordering {
    (a.len(), a).cmp(&(b.len(), b))
}

/// Stands in for a table that could not be read; compared with none.
pub(super) fn no_table() -> TableName {
    TableName { schema: None, table: String::new() }
}

/// Stands in for a source that could not be read.
fn no_source() -> Source {
    Source::Path { paths: Vec::new(), zone: None }
}

fn count(columns: usize) -> String {
    if columns == 1 { "1 column".to_owned() } else { format!("{columns} columns") }
}
