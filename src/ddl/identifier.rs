//! Names in SQL: quoted where they have to be, plain where a person would write them plain.

use crate::mapping::TableName;

/// The words that cannot name a table or a column: `R` and `T` of `pg_get_keywords()`, of PostgreSQL 14 to 18.
const RESERVED: [&str; 101] = [
    "all",
    "analyse",
    "analyze",
    "and",
    "any",
    "array",
    "as",
    "asc",
    "asymmetric",
    "authorization",
    "binary",
    "both",
    "case",
    "cast",
    "check",
    "collate",
    "collation",
    "column",
    "concurrently",
    "constraint",
    "create",
    "cross",
    "current_catalog",
    "current_date",
    "current_role",
    "current_schema",
    "current_time",
    "current_timestamp",
    "current_user",
    "default",
    "deferrable",
    "desc",
    "distinct",
    "do",
    "else",
    "end",
    "except",
    "false",
    "fetch",
    "for",
    "foreign",
    "freeze",
    "from",
    "full",
    "grant",
    "group",
    "having",
    "ilike",
    "in",
    "initially",
    "inner",
    "intersect",
    "into",
    "is",
    "isnull",
    "join",
    "lateral",
    "leading",
    "left",
    "like",
    "limit",
    "localtime",
    "localtimestamp",
    "natural",
    "not",
    "notnull",
    "null",
    "offset",
    "on",
    "only",
    "or",
    "order",
    "outer",
    "overlaps",
    "placing",
    "primary",
    "references",
    "returning",
    "right",
    "select",
    "session_user",
    "similar",
    "some",
    "symmetric",
    "system_user",
    "table",
    "tablesample",
    "then",
    "to",
    "trailing",
    "true",
    "union",
    "unique",
    "user",
    "using",
    "variadic",
    "verbose",
    "when",
    "where",
    "window",
    "with",
];

/// A name as an identifier.
pub(super) fn identifier(name: &str) -> String {
    let starts = name.starts_with(|letter: char| letter.is_ascii_lowercase() || letter == '_');
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    if starts && name.bytes().all(is_plain) && !RESERVED.contains(&name) {
        return name.to_owned();
    }
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A table's name, with its schema if it has one.
pub(super) fn table(name: &TableName) -> String {
    let schema = name.schema.as_ref().map(|schema| identifier(schema) + ".").unwrap_or_default();
    schema + &identifier(&name.table)
}

/// Names of columns, joined by commas.
pub(super) fn list(names: &[String]) -> String {
    names.iter().map(|name| identifier(name)).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted_where_they_have_to_be() {
        for name in ["id", "_x1", "release", "name", "key"] {
            assert_eq!(identifier(name), name);
        }
        for name in ["Id", "año", "1st", "a-b", "a b", "user", "order", "left", "", "a.b"] {
            assert_eq!(identifier(name), format!("\"{name}\""));
        }
        assert_eq!(identifier("a\"b"), "\"a\"\"b\"");
    }
}
