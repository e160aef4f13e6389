//! The catalogues of a mapping, and their columns.

use super::relations::{Reader, in_order, no_table};
use super::tree::{At, Value};
use crate::mapping::{Lookup, Missing, Path, TextForm};

const LOOKUP: &[&str] = &["table", "id", "key", "missing", "columns"];
const LOOKUP_COLUMN: &[&str] = &["path", "type", "nullable", "nul", "nfc"];
const MISSING: &[(&str, Missing)] =
    &[("error", Missing::Error), ("insert", Missing::Insert), ("skip", Missing::Skip)];

impl<'a> Reader<'_, 'a> {
    pub(super) fn lookups(&mut self, top: &At<'a>) {
        let Some(at) = top.get("lookups") else { return };
        if self.faults.is_table(&at) {
            for (name, at) in at.entries() {
                let lookup = self.lookup(name, &at);
                self.lookups.push(lookup);
                self.lookup_places.push(at);
            }
        }
    }

    fn lookup(&mut self, name: &str, at: &At<'a>) -> Lookup {
        let is_table = self.faults.table(at, LOOKUP);
        let mut key = Vec::new();
        let mut id = String::new();
        if is_table {
            let mend = "name the column that referring columns hold";
            id =
                self.faults.required(at, "id", mend).and_then(|at| self.faults.text(&at)).unwrap_or_default();
            let found =
                self.faults.required(at, "key", "name the columns that identify a row of the catalogue");
            key = found.map(|at| self.faults.names(&at)).unwrap_or_default();
        }
        let columns = self.lookup_columns(at, &key);
        let types = self.lookup_types(at);
        let text = self.lookup_text(at);
        let nullable = self.lookup_nullable(at, &key);
        let table = if is_table { self.table_name(at) } else { no_table() };
        let missing = self.faults.choice(at, "missing", MISSING, Missing::default());
        Lookup { name: name.to_owned(), table, id, key, missing, columns, text, nullable, types }
    }

    /// The columns beyond the key; what identifies a row comes from `match`.
    fn lookup_columns(&mut self, at: &At<'a>, key: &[String]) -> Vec<(String, Path)> {
        let Some(at) = at.get("columns") else { return Vec::new() };
        if !self.faults.is_table(&at) {
            return Vec::new();
        }
        let mut columns = Vec::new();
        for (name, at) in at.entries() {
            let is_key = key.iter().any(|column| column == name);
            let path = self.lookup_path(&at, is_key);
            if !is_key {
                columns.extend(path.map(|path| (name.to_owned(), path)));
            }
        }
        columns.sort_by(|a, b| in_order(&a.0, &b.0));
        columns
    }

    /// A path, or a table with one and perhaps a type. A column of the key has its value from `match`.
    fn lookup_path(&mut self, at: &At<'a>, is_key: bool) -> Option<Path> {
        if !matches!(at.node.value, Value::Table(_)) {
            return self.faults.path_anywhere(at);
        }
        self.faults.table(at, LOOKUP_COLUMN);
        let path = match at.get("path") {
            None if is_key => return None,
            _ => self.faults.required(at, "path", "say where the value is")?,
        };
        self.faults.path_anywhere(&path)
    }

    /// The columns of the key in which NULL may stand.
    fn lookup_nullable(&mut self, at: &At<'a>, key: &[String]) -> Vec<String> {
        let columns = at.get("columns").map(|at| at.entries()).unwrap_or_default();
        let mut nullable = Vec::new();
        for (name, at) in columns {
            if !self.faults.flag(&at, "nullable") {
                continue;
            }
            let is_key = key.iter().any(|column| column == name);
            if is_key && key.len() > 1 {
                nullable.push(name.to_owned());
                continue;
            }
            let message = match is_key {
                true => "a reference whose whole key is null is NULL itself; leave it out",
                false => "only columns of the key need it; leave it out",
            };
            self.faults.add(&at.spot_of("nullable"), message);
        }
        nullable
    }

    /// The types that columns give, those of the key too.
    fn lookup_types(&mut self, at: &At<'a>) -> Vec<(String, String)> {
        let columns = at.get("columns").map(|at| at.entries()).unwrap_or_default();
        columns
            .iter()
            .filter_map(|(name, at)| Some(((*name).to_owned(), self.faults.type_name(at)?)))
            .collect()
    }

    /// How columns alter strings, those of the key too.
    fn lookup_text(&mut self, at: &At<'a>) -> Vec<(String, TextForm)> {
        let columns = at.get("columns").map(|at| at.entries()).unwrap_or_default();
        let form = |(name, at): &(&str, At<'a>)| ((*name).to_owned(), self.faults.text_form(at));
        let mut forms: Vec<_> = columns.iter().map(form).filter(|(_, form)| !form.is_as_given()).collect();
        forms.sort_by(|a, b| a.0.cmp(&b.0));
        forms
    }
}
