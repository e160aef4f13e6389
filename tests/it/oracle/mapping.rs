//! The oracle's own reading of a mapping: the contract's keys, from generic TOML values.
//!
//! An unknown key is an error here too, so that a new one cannot pass unchecked.

use toml::{Table, Value};

/// A mapping, flattened: the root first, an enclosing relation before the ones inside it.
#[derive(Clone, Debug)]
pub struct Mapping {
    pub relations: Vec<Relation>,
    pub lookups: Vec<Lookup>,
}

#[derive(Clone, Debug, Default)]
pub struct Relation {
    /// Names from the root down, joined by `/`: unique in the mapping.
    pub name: String,
    pub table: String,
    pub enclosing: Option<usize>,
    pub path: Path,
    pub id: Option<String>,
    pub parent: Vec<String>,
    pub key: Vec<String>,
    /// Of the root: what a document keeps although its key changes.
    pub alternate_key: Vec<String>,
    pub unique_in_all: bool,
    pub pair: bool,
    pub when_absent: String,
    pub when_null: String,
    pub on_duplicate: String,
    pub columns: Vec<Column>,
    /// An item belongs to the relation if at each of these paths one of these values, as JSON, stands.
    pub conditions: Vec<(Path, Vec<String>)>,
    /// Whether what is no list is the one item of it.
    pub single: bool,
    absent_columns: String,
}

#[derive(Clone, Debug)]
pub struct Column {
    pub name: String,
    /// The first that is not null counts. Empty for a lookup.
    pub paths: Vec<Path>,
    pub zone: Option<String>,
    /// Index of the catalogue, and one path for each column of its key.
    pub lookup: Option<(usize, Vec<Path>)>,
    /// Whether a missing field leaves the stored value alone.
    pub keep: bool,
    /// The column holds the row's place in its list, counted from this.
    pub position: Option<i64>,
    /// The column holds this in every row, as JSON.
    pub constant: Option<String>,
    pub form: Form,
}

/// What becomes of strings before they are stored.
#[derive(Clone, Debug, Default)]
pub struct Form {
    /// `strip`, `replace`, or anything else.
    pub nul: String,
    pub nfc: bool,
}

#[derive(Clone, Debug)]
pub struct Lookup {
    pub name: String,
    pub table: String,
    pub id: String,
    pub key: Vec<String>,
    pub missing: String,
    /// One for each column of the key.
    pub forms: Vec<Form>,
}

/// A path: how many items up, then down these names.
#[derive(Clone, Debug, Default)]
pub struct Path {
    pub up: usize,
    pub down: Vec<String>,
    pub last: Last,
}

/// What stands at the end of a path.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Last {
    #[default]
    Value,
    Key,
    Index,
}

type Result<T> = std::result::Result<T, String>;

pub fn parse(text: &str) -> Result<Mapping> {
    let file: Table = text.parse().map_err(|error| format!("{error}"))?;
    only(&file, "mapping", &["version", "name", "root", "lookups", "sync"])?;
    let mut mapping = Mapping { relations: Vec::new(), lookups: lookups(&file)? };
    let root = file.get("root").and_then(Value::as_table).ok_or("no [root]")?;
    relation(&mut mapping, root, None, false)?;
    Ok(mapping)
}

fn lookups(file: &Table) -> Result<Vec<Lookup>> {
    let none = Table::new();
    let tables = file.get("lookups").and_then(Value::as_table).unwrap_or(&none);
    let one = |(name, value): (&String, &Value)| {
        let table = value.as_table().ok_or("a lookup is a table")?;
        only(table, name, &["table", "id", "key", "missing", "columns"])?;
        let columns = table.get("columns").and_then(Value::as_table).unwrap_or(&none);
        let key = strings(table, "key")?;
        let of =
            |name: &String| columns.get(name).and_then(Value::as_table).map_or(Ok(Form::default()), form);
        Ok(Lookup {
            name: name.clone(),
            table: string(table, "table", None)?,
            id: string(table, "id", Some("id"))?,
            forms: key.iter().map(of).collect::<Result<_>>()?,
            key,
            missing: string(table, "missing", Some("error"))?,
        })
    };
    tables.iter().map(one).collect()
}

const RELATION_KEYS: [&str; 23] = [
    "where",
    "otherwise",
    "when_single",
    "table",
    "key",
    "alternate_key",
    "on_absent",
    "id",
    "columns",
    "children",
    "links",
    "name",
    "path",
    "parent",
    "unique_in",
    "pair",
    "when_absent",
    "when_null",
    "on_duplicate",
    "absent_columns",
    "target",
    "lookup",
    "match",
];

fn relation(mapping: &mut Mapping, table: &Table, enclosing: Option<usize>, link: bool) -> Result<()> {
    let outer = enclosing.map(|at| mapping.relations[at].clone());
    let name = string(table, "name", Some("root"))?;
    only(table, &name, &RELATION_KEYS)?;
    let inherited = outer.as_ref().map_or("keep", |outer| &outer.absent_columns).to_owned();
    let mut relation = Relation {
        name: outer.as_ref().map_or(name.clone(), |outer| format!("{}/{name}", outer.name)),
        table: string(table, "table", None)?,
        enclosing,
        path: path(&string(table, "path", Some(&name))?)?,
        id: table.contains_key("id").then(|| string(table, "id", None)).transpose()?,
        parent: strings(table, "parent")?,
        key: strings(table, "key")?,
        alternate_key: strings(table, "alternate_key")?,
        unique_in_all: string(table, "unique_in", Some("parent"))? == "all",
        pair: table.get("pair").and_then(Value::as_bool).unwrap_or(false),
        when_absent: string(table, "when_absent", Some("keep"))?,
        when_null: string(table, "when_null", Some("empty"))?,
        on_duplicate: string(table, "on_duplicate", Some("error"))?,
        columns: Vec::new(),
        conditions: conditions(table)?,
        single: string(table, "when_single", Some("error"))? == "item",
        absent_columns: string(table, "absent_columns", Some(&inherited))?,
    };
    if link {
        let target = string(table, "target", None)?;
        let source = lookup(mapping, table)?;
        relation.columns.push(Column {
            name: target.clone(),
            paths: vec![],
            zone: None,
            lookup: Some(source),
            keep: false,
            position: None,
            constant: None,
            form: Form::default(),
        });
        if relation.key.is_empty() {
            relation.key = vec![target];
        }
    }
    let none = Table::new();
    let columns = table.get("columns").and_then(Value::as_table).unwrap_or(&none);
    for (name, value) in columns {
        let column = column(mapping, &relation, name, value)?;
        relation.columns.push(column);
    }
    mapping.relations.push(relation);
    let at = mapping.relations.len() - 1;
    for (kind, link) in [("children", false), ("links", true)] {
        for inner in table.get(kind).and_then(Value::as_array).into_iter().flatten() {
            let inner = inner.as_table().ok_or_else(|| format!("{kind}: tables expected"))?;
            self::relation(mapping, inner, Some(at), link)?;
        }
    }
    Ok(())
}

fn column(mapping: &Mapping, relation: &Relation, name: &str, value: &Value) -> Result<Column> {
    let always_null = relation.key.is_empty() || relation.key.iter().any(|key| key == name);
    let keep = !always_null && relation.absent_columns == "keep";
    let plain = |paths| Column {
        name: name.into(),
        paths,
        zone: None,
        lookup: None,
        keep,
        position: None,
        constant: None,
        form: Form::default(),
    };
    let Some(table) = value.as_table() else { return Ok(plain(paths(value)?)) };
    let known =
        ["path", "zone", "lookup", "match", "when_absent", "nullable", "position", "value", "nul", "nfc"];
    only(table, name, &known)?;
    let mut column = plain(table.get("path").map(paths).transpose()?.unwrap_or_default());
    column.zone = table.get("zone").and_then(Value::as_str).map(str::to_owned);
    if table.contains_key("lookup") {
        column.lookup = Some(lookup(mapping, table)?);
    }
    column.position = table.get("position").and_then(Value::as_integer);
    column.constant = table.get("value").map(scalar).transpose()?;
    column.form = form(table)?;
    column.keep = column.position.is_none()
        && column.constant.is_none()
        && !always_null
        && string(table, "when_absent", Some(if keep { "keep" } else { "null" }))? == "keep";
    Ok(column)
}

fn lookup(mapping: &Mapping, table: &Table) -> Result<(usize, Vec<Path>)> {
    let name = string(table, "lookup", None)?;
    let at = mapping.lookups.iter().position(|lookup| lookup.name == name);
    let at = at.ok_or_else(|| format!("no lookup `{name}`"))?;
    let matching =
        table.get("match").and_then(Value::as_table).ok_or("match = { column = path } expected")?;
    let one = |key: &String| path(&string(matching, key, None)?);
    Ok((at, mapping.lookups[at].key.iter().map(one).collect::<Result<_>>()?))
}

fn form(table: &Table) -> Result<Form> {
    let nfc = table.get("nfc").and_then(Value::as_bool).unwrap_or(false);
    Ok(Form { nul: string(table, "nul", Some("reject"))?, nfc })
}

fn conditions(table: &Table) -> Result<Vec<(Path, Vec<String>)>> {
    let mut found = Vec::new();
    if let Some(table) = table.get("where").and_then(Value::as_table) {
        conditions_below(table, "", &mut found)?;
    }
    Ok(found)
}

fn conditions_below(table: &Table, above: &str, found: &mut Vec<(Path, Vec<String>)>) -> Result<()> {
    for (name, value) in table {
        let name = format!("{above}{name}");
        if let Some(below) = value.as_table() {
            conditions_below(below, &format!("{name}."), found)?;
            continue;
        }
        let path = path(&name)?;
        if path.up > 0 || path.last == Last::Index {
            return Err(format!("the oracle knows no `where` at {name}"));
        }
        let values = value.as_array().cloned().unwrap_or_else(|| vec![value.clone()]);
        found.push((path, values.iter().map(scalar).collect::<Result<_>>()?));
    }
    Ok(())
}

/// A scalar as JSON.
fn scalar(value: &Value) -> Result<String> {
    match value {
        Value::String(text) => Ok(serde_json::Value::from(text.as_str()).to_string()),
        Value::Integer(number) => Ok(number.to_string()),
        Value::Float(number) => Ok(number.to_string()),
        Value::Boolean(flag) => Ok(flag.to_string()),
        other => Err(format!("a scalar expected, found {other:?}")),
    }
}

fn paths(value: &Value) -> Result<Vec<Path>> {
    match value {
        Value::String(text) => Ok(vec![path(text)?]),
        Value::Array(list) => {
            list.iter().map(|text| path(text.as_str().ok_or("a path is a string")?)).collect()
        }
        other => Err(format!("a path expected, found {other:?}")),
    }
}

/// Splits at the dots outside quotes.
fn path(text: &str) -> Result<Path> {
    let mut path = Path::default();
    if text == "." {
        return Ok(path);
    }
    let (mut names, mut quoted, mut was_quoted) = (vec![(String::new(), false)], false, false);
    for c in text.chars() {
        match c {
            '"' => (quoted, was_quoted) = (!quoted, true),
            '.' if !quoted => {
                names.push((String::new(), false));
                was_quoted = false;
            }
            c => names.last_mut().expect("never empty").0.push(c),
        }
        names.last_mut().expect("never empty").1 = was_quoted;
    }
    for name in names {
        match (name.0.as_str(), name.1) {
            ("^", false) => path.up += 1,
            ("@key", false) => path.last = Last::Key,
            ("@index", false) => path.last = Last::Index,
            _ => path.down.push(name.0),
        }
    }
    Ok(path)
}

fn string(table: &Table, key: &str, default: Option<&str>) -> Result<String> {
    let found = table.get(key).and_then(Value::as_str).or(default);
    found.map(str::to_owned).ok_or_else(|| format!("`{key}` is missing"))
}

/// A list of strings, or one string.
fn strings(table: &Table, key: &str) -> Result<Vec<String>> {
    match table.get(key) {
        None => Ok(vec![]),
        Some(Value::String(one)) => Ok(vec![one.clone()]),
        Some(Value::Array(list)) => list
            .iter()
            .map(|value| value.as_str().map(str::to_owned).ok_or(format!("`{key}`: strings")))
            .collect(),
        Some(_) => Err(format!("`{key}`: strings expected")),
    }
}

fn only(table: &Table, place: &str, known: &[&str]) -> Result<()> {
    match table.keys().find(|key| !known.contains(&key.as_str())) {
        Some(key) => Err(format!("{place}: the oracle does not know `{key}`")),
        None => Ok(()),
    }
}
