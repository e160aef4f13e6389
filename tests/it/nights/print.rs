//! A shape as it is handed in: the mapping as TOML, the tables as SQL.

use super::kinds::Form;
use super::shape::{Catalogue, Col, Kind, LABELS, Place, Policy, Shape, Twins, counts_nulls_as_equal, name};
use super::value::CONSTANTS;

fn toml(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

fn form_of_code(catalogue: &Catalogue) -> String {
    match catalogue.form == Form::default() {
        true => String::new(),
        false => format!("columns = {{ code = {{ path = \"code\"{} }} }}\n", catalogue.form.toml()),
    }
}

fn list(names: impl Iterator<Item = String>) -> String {
    format!("[{}]", names.map(|name| toml(&name)).collect::<Vec<_>>().join(", "))
}

/// A name in a path.
fn step(name: &str) -> String {
    if name.contains('.') { format!("\"{name}\"") } else { name.to_owned() }
}

impl Shape {
    /// The mapping as a file.
    pub fn toml(&self, name: &str) -> String {
        let mut out = format!("version = 1\nname = {}\n", toml(name));
        self.relation_toml(0, "root", &mut out);
        for catalogue in &self.catalogues {
            let key = if catalogue.composite { "[\"code\", \"no\"]" } else { "\"code\"" };
            out += &format!(
                "[lookups.{}]\ntable = {}\nid = \"id\"\nkey = {key}\nmissing = \"{}\"\n{}",
                catalogue.name,
                toml(&catalogue.table),
                catalogue.missing,
                form_of_code(catalogue)
            );
        }
        out
    }

    fn relation_toml(&self, ix: usize, place: &str, out: &mut String) {
        let rel = &self.relations[ix];
        let head = if ix == 0 {
            format!("[{place}]\n")
        } else {
            format!("[[{place}]]\nname = {}\n", toml(&rel.name))
        };
        *out += &format!("{head}table = {}\n", toml(&rel.table));
        if ix > 0 {
            let word = |policy| match policy {
                Policy::Keep => "keep",
                Policy::Empty => "empty",
                Policy::Error => "error",
            };
            *out += &format!("parent = {}\n", list(rel.parent.iter().cloned()));
            if rel.field != rel.name {
                *out += &format!("path = {}\n", toml(&rel.field));
            }
            if rel.single {
                *out += "when_single = \"item\"\n";
            }
            rel.kinds.iter().for_each(|kinds| *out += &kinds.toml());
            *out += &format!(
                "when_absent = \"{}\"\nwhen_null = \"{}\"\n",
                word(rel.when_absent),
                word(rel.when_null)
            );
        }
        if rel.kind == Kind::Child && rel.unique_in_all {
            *out += "unique_in = \"all\"\n";
        }
        if ix > 0 && !rel.key.is_empty() {
            let twins = match rel.twins {
                Twins::Error => "error",
                Twins::First => "first",
                Twins::Last => "last",
            };
            *out += &format!("on_duplicate = \"{twins}\"\n");
        }
        if rel.kind != Kind::Link && !rel.key.is_empty() {
            *out += &format!("key = {}\n", list(rel.key.iter().map(|&at| rel.columns[at].name.clone())));
        }
        if let Some((id, _)) = rel.id {
            *out += &format!("id = {}\n", toml(id));
        }
        if rel.pair {
            *out += "pair = true\n";
        }
        if let Some(keep) = rel.absent_columns {
            *out += &format!("absent_columns = \"{}\"\n", if keep { "keep" } else { "null" });
        }
        let mut columns = rel.columns.iter();
        if let (Kind::Link, Some(target)) = (rel.kind, columns.as_slice().first()) {
            columns.next();
            *out += &format!("target = {}\n{}\n", toml(&target.name), self.lookup_toml(target, "\n"));
        }
        let columns = columns.map(|col| format!("{} = {}", toml(&col.name), self.column_toml(col)));
        *out += &format!("columns = {{ {} }}\n", columns.collect::<Vec<_>>().join(", "));
        for inner in self.enclosed(ix) {
            let kind = if self.relations[inner].kind == Kind::Link { "links" } else { "children" };
            self.relation_toml(inner, &format!("{place}.{kind}"), out);
        }
    }

    fn lookup_toml(&self, col: &Col, separator: &str) -> String {
        let Some(at) = col.catalogue else { return String::new() };
        let catalogue = &self.catalogues[at];
        let field = step(&col.field);
        let mut matching = format!("code = {}", toml(&format!("{field}.code")));
        if catalogue.composite {
            matching += &format!(", no = {}", toml(&format!("{field}.no")));
        }
        format!("lookup = \"{}\"{separator}match = {{ {matching} }}", catalogue.name)
    }

    fn column_toml(&self, col: &Col) -> String {
        let field = step(&col.field);
        let paths = match col.place {
            Place::Item => vec![".".to_owned()],
            Place::Name => vec!["@key".to_owned()],
            Place::Index => vec!["@index".to_owned()],
            Place::Field => vec![field],
            Place::Nested => vec![format!("{field}.v")],
            Place::Either => vec![field, step(&format!("{}!", col.field))],
            Place::Position(first) => return format!("{{ position = {first} }}"),
            Place::Constant(at) => return format!("{{ value = {} }}", CONSTANTS[at].0),
        };
        let absent = col.when_absent.map(|keep| if keep { "keep" } else { "null" });
        let absent = absent.map_or(String::new(), |word| format!(", when_absent = \"{word}\""));
        match col.catalogue {
            Some(_) => format!("{{ {}{absent} }}", self.lookup_toml(col, ", ")),
            None => {
                let nullable = if col.nullable { ", nullable = true" } else { "" };
                let form = col.form.toml();
                format!("{{ path = {}{absent}{nullable}{form} }}", list(paths.into_iter()))
            }
        }
    }

    /// The tables, with their constraints and the catalogues' first rows.
    pub fn ddl(&self) -> String {
        let labels: Vec<String> = LABELS.iter().map(|label| format!("'{label}'")).collect();
        let mut sql = format!("CREATE TYPE mood AS ENUM ({});\n", labels.join(", "));
        for catalogue in &self.catalogues {
            let (no, key) =
                if catalogue.composite { ("no integer NOT NULL,", "code, no") } else { ("", "code") };
            let table = name(&catalogue.table);
            sql += &format!(
                "CREATE TABLE {table} (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
                   code text NOT NULL, {no} note text, UNIQUE ({key}));\n"
            );
            for n in 0..catalogue.there {
                let cells = catalogue.key(n);
                let cells = cells
                    .iter()
                    .map(|cell| format!("('{}'::jsonb ->> 0)", format!("[{}]", cell[0]).replace('\'', "''")));
                let cells = cells
                    .zip(["::text", "::integer"])
                    .map(|(cell, ty)| cell + ty)
                    .collect::<Vec<_>>()
                    .join(", ");
                sql += &format!("INSERT INTO {table} ({key}) VALUES ({cells});\n");
            }
        }
        (0..self.relations.len()).for_each(|ix| sql += &self.table_ddl(ix));
        sql
    }

    fn table_ddl(&self, ix: usize) -> String {
        let rel = &self.relations[ix];
        let names =
            |columns: &[&str]| columns.iter().map(|column| name(column)).collect::<Vec<_>>().join(", ");
        let key: Vec<&str> = rel.key.iter().map(|&at| rel.columns[at].name.as_str()).collect();
        let parent: Vec<&str> = rel.parent.iter().map(String::as_str).collect();
        let mut parts = Vec::new();
        if let Some((id, ty)) = rel.id {
            parts.push(format!("{} {ty} PRIMARY KEY", name(id)));
        }
        for col in &rel.columns {
            let ty = if col.catalogue.is_some() { "bigint" } else { col.ty.sql() };
            let not_null = if col.not_null { " NOT NULL" } else { "" };
            let default = if col.default { format!(" DEFAULT {}", col.ty.default()) } else { String::new() };
            let to = col.catalogue.map(|at| format!(" REFERENCES {}", name(&self.catalogues[at].table)));
            parts.push(format!("{} {ty}{not_null}{default}{}", name(&col.name), to.unwrap_or_default()));
        }
        if let Some(outer) = rel.enclosing.map(|outer| &self.relations[outer]) {
            let (to, types): (Vec<&str>, Vec<&str>) = match outer.id {
                Some((id, ty)) => (vec![id], vec![ty.split(' ').next().unwrap_or(ty)]),
                None => outer
                    .key
                    .iter()
                    .map(|&at| (outer.columns[at].name.as_str(), outer.columns[at].ty.sql()))
                    .unzip(),
            };
            parts.extend(
                parent.iter().zip(types).map(|(column, ty)| format!("{} {ty} NOT NULL", name(column))),
            );
            let cascade = if rel.cascade { " ON DELETE CASCADE" } else { "" };
            let (from, table, to) = (names(&parent), name(&outer.table), names(&to));
            parts.push(format!("FOREIGN KEY ({from}) REFERENCES {table} ({to}){cascade}"));
        }
        if !key.is_empty() {
            let unique = if ix == 0 || rel.unique_in_all { key } else { [parent, key].concat() };
            let with_null = rel.key.iter().any(|&at| rel.columns[at].nullable) && counts_nulls_as_equal();
            let kind = match () {
                () if with_null => "UNIQUE NULLS NOT DISTINCT",
                () if rel.id.is_none() && rel.primary => "PRIMARY KEY",
                () => "UNIQUE",
            };
            parts.push(format!("{kind} ({})", names(&unique)));
        }
        parts.push("kept_beside text".into());
        format!("CREATE TABLE {} (\n  {});\n", name(&rel.table), parts.join(",\n  "))
    }
}
