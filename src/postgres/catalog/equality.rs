//! Columns whose `=` is not equality of their comparison form.
//!
//! Keys are compared here, as bytes, and by the server, in unique indexes and where rows are asked for. If the two
//! do not agree, one row here is two there, or the other way round: such a column is no key.

use std::collections::HashMap;

use tokio_postgres::types::Type;
use tokio_postgres::{Client, Row};

use super::read::CatalogTable;
use crate::error::Error;

/// Why columns of a table cannot be part of a key, and what mends it, by name.
pub(super) type Unequal = HashMap<String, String>;

/// Reads which columns of tables cannot be part of a key.
pub(super) async fn unequal(client: &Client, tables: &mut [&mut CatalogTable]) -> Result<(), Error> {
    let oids: Vec<u32> = tables.iter().map(|table| table.oid).collect();
    for row in client.query_typed(LEAVES, &[(&oids, Type::OID_ARRAY)]).await? {
        let (oid, name): (u32, String) = (row.get("table"), row.get("name"));
        if let Some((table, reason)) = tables.iter_mut().find(|table| table.oid == oid).zip(reason(&row)) {
            table.unequal.insert(name, reason);
        }
    }
    Ok(())
}

/// Of each column the type of its values, below domains, arrays and ranges, `wrapped` where there is one.
/// `modifier` is that of the type around it, which holds for elements of an array too. `own`: in an array of a type that is
/// not built in, whose oid is part of each value.
const LEAVES: &str = "
WITH RECURSIVE leaf (relation, name, sql, oid, modifier, wrapped, own, coll, depth) AS (
    SELECT a.attrelid, a.attname::text, format_type(a.atttypid, a.atttypmod), a.atttypid, a.atttypmod, false, false,
           a.attcollation, 0
    FROM pg_attribute a WHERE a.attrelid = ANY ($1) AND a.attnum > 0 AND NOT a.attisdropped
    UNION ALL
    SELECT l.relation, l.name, l.sql, coalesce(d.oid, r.rngsubtype, m.rngsubtype, e.oid),
           CASE WHEN t.typtype = 'd' THEN t.typtypmod WHEN e.oid IS NOT NULL THEN l.modifier ELSE -1 END,
           true, l.own OR coalesce(e.oid >= 16384, false), coalesce(r.rngcollation, m.rngcollation, l.coll), depth + 1
    FROM leaf l JOIN pg_type t ON t.oid = l.oid
    LEFT JOIN pg_type d ON t.typtype = 'd' AND d.oid = t.typbasetype
    LEFT JOIN pg_range r ON t.typtype = 'r' AND r.rngtypid = t.oid
    LEFT JOIN pg_range m ON t.typtype = 'm' AND m.rngmultitypid = t.oid
    LEFT JOIN pg_type e ON t.typtype = 'b' AND t.typcategory = 'A' AND e.oid = t.typelem
    WHERE coalesce(d.oid, r.rngsubtype, m.rngsubtype, e.oid) IS NOT NULL)
SELECT DISTINCT ON (l.relation, l.name) l.relation AS table, l.name, l.sql, t.typname::text AS type, t.typtype = 'c' AS composite, l.modifier,
       l.wrapped, l.own, coalesce(NOT c.collisdeterministic, false) AS loose, c.collname::text AS collation_name
FROM leaf l JOIN pg_type t ON t.oid = l.oid LEFT JOIN pg_collation c ON c.oid = l.coll AND t.typcollation <> 0
ORDER BY l.relation, l.name, l.depth DESC";

/// Why the server's `=` differs from that of the bytes, if it does; and what mends it.
fn reason(row: &Row) -> Option<String> {
    let (ty, sql): (&str, &str) = (row.get("type"), row.get("sql"));
    let (modifier, wrapped): (i32, bool) = (row.get("modifier"), row.get("wrapped"));
    if row.get("composite") {
        return Some(format!("is {sql}, a row of several values; map each to a column of its own"));
    }
    if row.get("loose") {
        let collation: &str = row.get("collation_name");
        return Some(format!(
            "has the collation \"{collation}\", by which different texts are equal; \
             give it a deterministic one, such as COLLATE \"C\""
        ));
    }
    let found = match ty {
        "citext" => "by which texts in other letters are equal; make it text",
        "interval" => {
            "of which different ones are equal (1 day and 24 hours); make it a number, of seconds say"
        }
        "timetz" => "of which different ones are equal (by their instant); make it time, or timestamptz",
        "json" => "which has no equality; choose another column",
        "jsonb" => "which cannot be a key; choose another column",
        "hstore" => "which cannot be a key; choose another column",
        "bpchar" if modifier < 0 => "in which blanks at the end do not count; make it text, or char(n)",
        _ if row.get("own") => {
            "whose values hold the oid of a type made in this database, which differs in every other; make it text[]"
        }
        "numeric" if sql.ends_with("range") => {
            "in which 1.0 and 1.00 are equal but differ; key by its bounds, as two numeric columns with a scale"
        }
        "numeric" if wrapped && modifier < 0 => "in which 1.0 and 1.00 are equal but differ; give it a scale",
        _ => return None,
    };
    Some(format!("is {sql}, {found}"))
}
