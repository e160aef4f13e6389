//! Values that stand in the mapping itself, and how values are altered: `value`, `where`, `nul`, `nfc`.

use super::faults::Faults;
use super::tree::{At, Value};
use crate::mapping::{Condition, Nul, Otherwise, Path, Scalar, Segment, TextForm};

const NUL: &[(&str, Nul)] = &[("reject", Nul::Reject), ("strip", Nul::Strip), ("replace", Nul::Replace)];
const OTHERWISE: &[(&str, Otherwise)] = &[("error", Otherwise::Error), ("ignore", Otherwise::Ignore)];

impl Faults {
    /// A string, a number or a boolean.
    fn scalar(&mut self, at: &At<'_>, what: &str) -> Option<Scalar> {
        match &at.node.value {
            Value::Text(text) => return Some(Scalar::Text(text.clone())),
            Value::Integer(number) => return Some(Scalar::Number(number.to_string())),
            Value::Float(text) => return Some(Scalar::Number(text.clone())),
            Value::Bool(flag) => return Some(Scalar::Bool(*flag)),
            Value::Unfit(message) => self.add(&at.spot, message.as_str()),
            Value::List(_) | Value::Table(_) | Value::Other(_) => self.expected(at, what),
        }
        None
    }

    /// The value of a column that is the same in every row.
    pub(super) fn constant(&mut self, at: &At<'_>) -> Option<Scalar> {
        let scalar =
            self.scalar(at, "a string, an integer, a float or a boolean (quote what is none of them)")?;
        if matches!(&scalar, Scalar::Text(text) if text.contains('\0')) {
            self.add(&at.spot, "contains U+0000, which PostgreSQL cannot store; leave it out");
            return None;
        }
        Some(scalar)
    }

    /// What `nul` and `nfc` say of a column's strings.
    pub(super) fn text_form(&mut self, at: &At<'_>) -> TextForm {
        let nul = self.choice(at, "nul", NUL, Nul::default());
        TextForm { nul, nfc: self.flag(at, "nfc") }
    }

    /// What `otherwise` says, if it is there.
    pub(super) fn otherwise(&mut self, at: &At<'_>) -> Option<Otherwise> {
        at.get("otherwise")?;
        Some(self.choice(at, "otherwise", OTHERWISE, Otherwise::default()))
    }

    /// The conditions that `where` lists, of an item that has `depth` items around it.
    pub(super) fn conditions(&mut self, at: &At<'_>, depth: usize) -> Vec<Condition> {
        let mut conditions = Vec::new();
        if let Some(at) = at.get("where").filter(|at| self.is_table(at)) {
            self.conditions_below(&at, "", depth, &mut conditions);
        }
        // In another order they are the same, for the relation's digest, too.
        conditions.iter_mut().for_each(|condition| condition.values.sort());
        conditions.sort_by_cached_key(|condition| condition.path.to_string());
        conditions
    }

    /// TOML reads a dotted key as a table in a table, which is as good a path.
    fn conditions_below(&mut self, at: &At<'_>, above: &str, depth: usize, found: &mut Vec<Condition>) {
        let entries = at.entries();
        if entries.is_empty() {
            self.add(&at.spot, "empty; name a field of the item and its value, or leave it out");
        }
        for (name, at) in entries {
            let text = if above.is_empty() { name.to_owned() } else { format!("{above}.{name}") };
            if matches!(at.node.value, Value::Table(_)) {
                self.conditions_below(&at, &text, depth, found);
                continue;
            }
            let path = self.condition_path(&at, &text, depth);
            let values = self.condition_values(&at);
            let Some(path) = path.filter(|_| !values.is_empty()) else { continue };
            if found.iter().any(|condition| condition.path == path) {
                self.add(&at.spot, format!("`{path}` is named twice; put its values into one list"));
            }
            found.push(Condition { path, values });
        }
    }

    fn condition_path(&mut self, at: &At<'_>, text: &str, depth: usize) -> Option<Path> {
        let path = Path::parse(text).map_err(|message| self.add(&at.spot, message)).ok()?;
        if path.0.last() == Some(&Segment::Index) {
            self.add(&at.spot, "a place in the list is no kind of item; name a field");
            return None;
        }
        self.check_reach(&at.spot, &path, depth);
        Some(path)
    }

    /// One value, or a list of at least one, each of them once.
    fn condition_values(&mut self, at: &At<'_>) -> Vec<Scalar> {
        let items = match &at.node.value {
            Value::List(items) if items.is_empty() => {
                self.add(&at.spot, "an empty list, so no item would belong here; name at least one value");
                return Vec::new();
            }
            Value::List(_) => at.items(),
            _ => vec![at.clone()],
        };
        let mut values = Vec::new();
        for item in &items {
            match self.scalar(item, "a string, a number, a boolean, or a list of these") {
                Some(value) if values.contains(&value) => {
                    self.add(&item.spot, format!("{value} is named twice; leave one out"));
                }
                value => values.extend(value),
            }
        }
        values
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mapping::{Mapping, Source, WhenSingle};

    /// A mapping with a column of the root, further keys of a child, and a column of a catalogue.
    fn text(column: &str, child: &str, code: &str) -> String {
        format!(
            "version = 1\nname = \"m\"\n[root]\ntable = \"t\"\nkey = \"a\"\n\
             columns = {{ a = \"a\", b = {column}, k = {{ lookup = \"k\", match = {{ code = \"k\" }} }} }}\n\
             [[root.children]]\nname = \"c\"\ntable = \"c\"\nparent = \"t_a\"\ncolumns = {{ x = \"x\" }}\n{child}\n\
             [lookups.k]\ntable = \"k\"\nid = \"id\"\nkey = \"code\"\ncolumns = {{ code = {code} }}\n"
        )
    }

    fn parse(column: &str, child: &str, code: &str) -> Mapping {
        let text = text(column, child, code);
        Mapping::from_toml(&text).unwrap_or_else(|error| panic!("{error}\n{text}"))
    }

    fn scalar(column: &str) -> Scalar {
        match &parse(&format!("{{ value = {column} }}"), "", "\"code\"").root().columns[1].source {
            Source::Constant { value } => value.clone(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn constants_are_scalars_and_floats_stay_the_number_that_was_written() {
        assert_eq!(scalar("\"\""), Scalar::Text(String::new()));
        assert_eq!(scalar("-7"), Scalar::Number("-7".into()));
        assert_eq!(scalar("false"), Scalar::Bool(false));
        for (written, text) in [
            ("+1.50", "1.5"),
            ("0.1", "0.1"),
            ("1_000.25", "1000.25"),
            ("-0.0", "-0.0"),
            ("2.5e-3", "0.0025"),
        ] {
            assert_eq!(scalar(written), Scalar::Number(text.into()), "{written}");
        }
        let mapping = parse("{ value = 1.50 }", "where = { n = [1.50, true] }", "\"code\"");
        let again = Mapping::from_json(&mapping.definition).unwrap();
        assert_eq!(again, mapping, "the same from JSON");
        for inexact in ["0.1234567890123456", "1e400", "1e-400", "nan"] {
            Mapping::from_toml(&text(&format!("{{ value = {inexact} }}"), "", "\"code\"")).unwrap_err();
        }
    }

    #[test]
    fn conditions_are_paths_however_tables_are_written() {
        let conditions = |child: &str| parse("\"b\"", child, "\"code\"").relations[1].conditions.clone();
        let dotted = conditions("where = { kind = [\"a\", 1], size.known = true, \"^.b\" = \"x\" }");
        let paths: Vec<String> = dotted.iter().map(|condition| condition.path.to_string()).collect();
        assert_eq!(paths, ["^.b", "kind", "size.known"]);
        assert_eq!(dotted[1].values, [Scalar::Text("a".into()), Scalar::Number("1".into())]);
        assert_eq!(
            conditions("where.\"size.known\" = true"),
            conditions("where = { size = { known = true } }")
        );
        assert!(parse("\"b\"", "where = { \"@key\" = \"x\" }", "\"code\"").relations[1].is_map());
    }

    #[test]
    fn p12_an_item_of_an_unknown_kind_is_an_error_unless_one_of_its_list_says_otherwise() {
        let sharing = |one: &str, other: &str| {
            let other = format!(
                "where = {{ n = 1 }}\n{one}\n[[root.children]]\nname = \"d\"\npath = \"c\"\ntable = \"d\"\n\
                 parent = \"t_a\"\ncolumns = {{ x = \"x\" }}\nwhere = {{ n = 2 }}\n{other}"
            );
            let relations = parse("\"b\"", &other, "\"code\"").relations;
            [relations[1].otherwise, relations[2].otherwise]
        };
        assert_eq!(sharing("", ""), [Otherwise::Error; 2]);
        assert_eq!(sharing("otherwise = \"error\"", ""), [Otherwise::Error; 2]);
        assert_eq!(sharing("", "otherwise = \"ignore\""), [Otherwise::Ignore; 2]);
    }

    #[test]
    fn p33_what_rows_could_hold_changes_the_digest_and_nothing_else_does() {
        let serialised = |mapping: Mapping| serde_json::to_string(&mapping).unwrap();
        let of = |column: &str, child: &str, code: &str| serialised(parse(column, child, code));
        let plain = of("\"b\"", "", "\"code\"");
        let kinds = "where = { kind = \"x\" }";
        let with_kinds = of("\"b\"", kinds, "\"code\"");
        for same in [
            of("{ path = \"b\", nul = \"reject\", nfc = false }", "", "{ nul = \"reject\" }"),
            of("\"b\"", "when_single = \"item\"", "\"code\""),
        ] {
            assert_eq!(same, plain);
        }
        assert_eq!(of("\"b\"", &format!("{kinds}\notherwise = \"ignore\""), "\"code\""), with_kinds);
        let others = [
            with_kinds,
            of("\"b\"", "where = { kind = \"y\" }", "\"code\""),
            of("{ value = 1 }", "", "\"code\""),
            of("{ value = \"1\" }", "", "\"code\""),
            of("{ path = \"b\", nul = \"strip\" }", "", "\"code\""),
            of("{ path = \"b\", nul = \"replace\" }", "", "\"code\""),
            of("{ path = \"b\", nfc = true }", "", "\"code\""),
            of("\"b\"", "", "{ nfc = true }"),
        ];
        for (at, other) in others.iter().enumerate() {
            assert!(*other != plain && !others[..at].contains(other), "{other}");
        }
        assert_eq!(
            parse("\"b\"", "when_single = \"item\"", "\"code\"").relations[1].when_single,
            WhenSingle::Item
        );
    }
}
