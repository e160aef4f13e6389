//! Values as SQL: found at a path, in the form that the mapping asks for, cast to a type, compared.

use std::collections::HashMap;

use super::mapping::{Form, Last, Path};

/// Functions in schema `oracle` that the statements use.
pub const FUNCTIONS: &str = r#"
CREATE OR REPLACE FUNCTION oracle.refuse(what text) RETURNS text LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'oracle: %', what; END $$;

-- The text of a scalar. Numbers are trimmed for text and integer columns: 1.0 is 1, 1.50 is 1.5.
CREATE OR REPLACE FUNCTION oracle.scalar(v jsonb, trimmed boolean) RETURNS text LANGUAGE sql AS
$$ SELECT CASE jsonb_typeof(v)
     WHEN 'null' THEN NULL
     WHEN 'number' THEN CASE WHEN trimmed THEN trim_scale(v::text::numeric)::text ELSE v::text END
     WHEN 'object' THEN oracle.refuse('an object in place of a scalar')
     WHEN 'array' THEN oracle.refuse('a list in place of a scalar')
     ELSE v #>> '{}' END $$;

-- The same from json, which has a number's own spelling: for floats, where -0 and 0 differ.
CREATE OR REPLACE FUNCTION oracle.scalar(v json, trimmed boolean) RETURNS text LANGUAGE sql AS
$$ SELECT CASE json_typeof(v)
     WHEN 'null' THEN NULL
     WHEN 'object' THEN oracle.refuse('an object in place of a scalar')
     WHEN 'array' THEN oracle.refuse('a list in place of a scalar')
     ELSE v #>> '{}' END $$;

-- A document in which U+0000, which no text holds here, is spelled as a letter that no document has.
CREATE OR REPLACE FUNCTION oracle.without_nul(doc text) RETURNS text LANGUAGE sql AS
$$ SELECT CASE WHEN doc LIKE '%\\u0000%'
               THEN regexp_replace(doc, '(?<!\\)((?:\\\\)*)\\u0000', '\1' || E'\uE000', 'g') ELSE doc END $$;

-- A text in the form that its column asks for.
CREATE OR REPLACE FUNCTION oracle.formed(t text, nul text, nfc boolean) RETURNS text LANGUAGE sql AS
$$ SELECT CASE WHEN nfc THEN normalize(x, NFC) ELSE x END FROM (
     SELECT CASE nul WHEN 'strip' THEN replace(t, E'\uE000', '')
                     WHEN 'replace' THEN replace(t, E'\uE000', E'\uFFFD') ELSE t END) AS y (x) $$;

CREATE OR REPLACE FUNCTION oracle.in_zone(t text, zone text) RETURNS timestamptz LANGUAGE sql AS
$$ SELECT CASE WHEN t ~* '\d:\d\d.*(z|[+-]\d{1,2}(:?\d\d)?)\s*$' THEN t::timestamptz
               ELSE t::timestamp AT TIME ZONE zone END $$;
"#;

/// The type of a column as the catalog has it.
#[derive(Clone, Debug)]
pub struct Type {
    /// With its modifier: `numeric(10,2)`.
    pub full: String,
    /// Without: a cast to it rounds and cuts nothing. The modifier is applied by assignment, as in an INSERT.
    pub base: String,
    /// Whether it is a string type.
    pub is_string: bool,
    /// The column's default as SQL, where it is a plain value: what a new row gets that the document is silent about.
    pub default: Option<String>,
}

/// Types by (table, column), names as in the mapping.
pub type Types = HashMap<(String, String), Type>;

impl Type {
    fn trims_numbers(&self) -> bool {
        self.is_string || matches!(self.base.as_str(), "smallint" | "integer" | "bigint")
    }

    pub fn reads_json(&self) -> bool {
        matches!(self.base.as_str(), "json" | "real" | "double precision")
    }

    /// The comparison form of a value of this type, as jsonb. SQL's NULL becomes jsonb's null in an array.
    pub fn comparable(&self, value: &str) -> String {
        match self.base.as_str() {
            "numeric" if self.full == "numeric" => format!("to_jsonb(trim_scale({value})::text)"),
            // In an array, so that a JSON null differs from NULL. jsonb's own `=` compares numbers by value.
            "jsonb" => format!("(CASE WHEN {value} IS NOT NULL THEN jsonb_build_array({value}) END)"),
            _ => format!("to_jsonb({value}::text)"),
        }
    }
}

pub fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

pub fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

pub fn array(names: &[String]) -> String {
    format!("ARRAY[{}]::text[]", names.iter().map(|name| literal(name)).collect::<Vec<_>>().join(","))
}

/// The item that a path starts at: `n` is the relation's own, `p1` the enclosing one, and so on.
pub fn start(path: &Path) -> String {
    if path.up == 0 { "n".into() } else { format!("p{}", path.up) }
}

/// The value at a path, from the item's jsonb (`b`) or json (`j`).
pub fn at(path: &Path, source: &str) -> String {
    let item = start(path);
    let to = if source == "j" { "to_json" } else { "to_jsonb" };
    match path.last {
        Last::Key => format!("{to}({item}.name)"),
        Last::Index => format!("{to}({item}.ord - 1)"),
        Last::Value if path.down.is_empty() => format!("{item}.{source}"),
        Last::Value => format!("({item}.{source} #> {})", array(&path.down)),
    }
}

/// Whether the document has the field. What is inside a null is null, not absent.
pub fn present(path: &Path) -> String {
    if path.last != Last::Value || path.down.is_empty() {
        return "true".into();
    }
    let item = start(path);
    let inside_null = (0..path.down.len())
        .map(|len| format!("jsonb_typeof({item}.b #> {}) = 'null'", array(&path.down[..len])));
    let terms: Vec<String> =
        std::iter::once(format!("{} IS NOT NULL", at(path, "b"))).chain(inside_null).collect();
    format!("coalesce({}, false)", terms.join(" OR "))
}

impl Form {
    /// SQL of a text in this form.
    pub fn of(&self, text: &str) -> String {
        match self.nfc || self.takes_nul() {
            true => format!("oracle.formed({text}, {}, {})", literal(&self.nul), self.nfc),
            false => text.to_owned(),
        }
    }

    pub fn takes_nul(&self) -> bool {
        matches!(self.nul.as_str(), "strip" | "replace")
    }
}

/// A constant, cast to a type without the modifier.
pub fn constant(json: &str, ty: &Type) -> String {
    let value = format!("{}::jsonb", literal(json));
    match ty.base.as_str() {
        "json" | "jsonb" => format!("{}::{}", literal(json), ty.base),
        base => format!("(oracle.scalar({value}, {}))::{base}", ty.trims_numbers()),
    }
}

/// The value of a column, cast to its type without the modifier.
pub fn cast(paths: &[Path], zone: Option<&str>, ty: &Type, form: &Form) -> String {
    // Names of members that are equal in their form must still stand in their order.
    let is_altered = ty.base == "jsonb" && form.takes_nul();
    let source = if ty.reads_json() || is_altered { "j" } else { "b" };
    let values = paths.iter().map(|path| at(path, source));
    if matches!(ty.base.as_str(), "json" | "jsonb") {
        let typeof_ = if source == "j" { "json_typeof" } else { "jsonb_typeof" };
        let values = values.map(|value| {
            let formed = form.of(&format!("({value})::text"));
            format!("CASE WHEN {typeof_}({value}) <> 'null' THEN ({formed})::{} END", ty.base)
        });
        return format!("coalesce({})", values.collect::<Vec<_>>().join(", "));
    }
    let values = values.map(|value| format!("oracle.scalar({value}, {})", ty.trims_numbers()));
    let text = form.of(&format!("coalesce({})", values.collect::<Vec<_>>().join(", ")));
    match zone {
        Some(zone) => format!("oracle.in_zone({text}, {})", literal(zone)),
        None => format!("({text})::{}", ty.base),
    }
}
