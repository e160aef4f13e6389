//! What arrays, composite types and domains are made of.

use std::collections::HashMap;
use std::sync::Arc;

use tokio_postgres::types::Type;
use tokio_postgres::{Client, Row};

use super::read::{CatalogTable, kind};
use crate::error::Error;
use crate::value::{Attribute, ColumnType, Element, Kind};

/// A type that columns have, or that a type of columns is made of.
struct Known {
    labels: Option<Arc<[String]>>,
    /// Of an array, the element's type and delimiter.
    element: Option<(u32, char)>,
    attributes: Vec<(String, u32, i32, String)>,
    is_composite: bool,
    /// Of a domain, the type below: its oid, modifier and name.
    base: Option<(u32, i32, String)>,
    /// Whether values can be sent and read in binary form.
    is_binary: bool,
    /// Its name.
    sql: String,
}

impl Known {
    /// The types that it is made of.
    fn parts(&self) -> impl Iterator<Item = u32> {
        let one = self.base.iter().map(|base| base.0).chain(self.element.iter().map(|element| element.0));
        one.chain(self.attributes.iter().map(|attribute| attribute.1))
    }
}

/// Fills in the kinds of columns that hold arrays, composites and domains.
pub(super) async fn nested(client: &Client, tables: &mut [&mut CatalogTable]) -> Result<(), Error> {
    let unknown = tables.iter_mut().flat_map(|table| &mut table.columns);
    let mut unknown: Vec<_> = unknown.filter(|column| column.ty.kind == Kind::Server).collect();
    let oids: Vec<u32> = unknown.iter().map(|column| column.ty.oid).collect();
    if oids.is_empty() {
        return Ok(());
    }
    let rows = client.query_typed(MADE_OF, &[(&oids, Type::OID_ARRAY)]).await?;
    let known: HashMap<u32, Known> = rows.iter().map(|row| (row.get("oid"), known(row))).collect();
    for column in &mut unknown {
        column.ty.kind = kind_of(&known, column.ty.oid, column.modifier);
        if column.without_binary.is_none() {
            column.without_binary = without_binary(&known, column.ty.oid);
        }
    }
    Ok(())
}

/// A type without a binary form that a type is made of.
fn without_binary(types: &HashMap<u32, Known>, oid: u32) -> Option<String> {
    let known = types.get(&oid)?;
    match known.is_binary {
        true => known.parts().find_map(|part| without_binary(types, part)),
        false => Some(known.sql.clone()),
    }
}

/// The encoder of a type.
fn kind_of(types: &HashMap<u32, Known>, oid: u32, modifier: i32) -> Kind {
    let Some(known) = types.get(&oid) else { return kind(oid, modifier) };
    if let Some((base, modifier, sql)) = &known.base {
        return Kind::Domain(Arc::new(part(types, *base, *modifier, sql.clone())));
    }
    if let Some((element, delimiter)) = known.element {
        let sql = types.get(&element).map_or_else(String::new, |element| element.sql.clone());
        return Kind::Array(Arc::new(Element { ty: part(types, element, modifier, sql), delimiter }));
    }
    if known.is_composite {
        let attribute = |(name, oid, modifier, sql): &(String, u32, i32, String)| Attribute {
            name: name.clone(),
            ty: part(types, *oid, *modifier, sql.clone()),
        };
        return Kind::Composite(known.attributes.iter().map(attribute).collect());
    }
    known.labels.clone().map_or_else(|| kind(oid, modifier), Kind::Enum)
}

/// The type of a value within another one: it is never sent by itself.
fn part(types: &HashMap<u32, Known>, oid: u32, modifier: i32, sql: String) -> ColumnType {
    let (input, send) = (String::new(), String::new());
    ColumnType { kind: kind_of(types, oid, modifier), sql, oid, array_oid: 0, input, send }
}

/// An array is what another type names as its array: `int2vector` is none.
const MADE_OF: &str = "
WITH RECURSIVE reached (oid) AS (
    SELECT unnest($1)
    UNION SELECT part.oid FROM reached r JOIN pg_type t ON t.oid = r.oid CROSS JOIN LATERAL (
        SELECT t.typbasetype WHERE t.typtype = 'd'
        UNION ALL SELECT e.oid FROM pg_type e WHERE e.typarray = t.oid
        UNION ALL SELECT a.atttypid FROM pg_attribute a
                  WHERE t.typtype = 'c' AND a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped) AS part (oid))
SELECT t.oid, t.typtype = 'c' AS composite, 0 NOT IN (t.typsend, t.typreceive) AS is_binary, format_type(t.oid, -1) AS sql,
       CASE WHEN t.typtype = 'd' THEN t.typbasetype END AS base, t.typtypmod AS base_modifier,
       format_type(t.typbasetype, t.typtypmod) AS base_sql, e.oid AS element, e.typdelim::text AS delimiter,
       CASE WHEN t.typtype = 'e' THEN (SELECT array_agg(l.enumlabel::text) FROM pg_enum l WHERE l.enumtypid = t.oid) END AS labels,
       a.names, a.oids, a.modifiers, a.types
FROM reached r JOIN pg_type t ON t.oid = r.oid LEFT JOIN pg_type e ON e.typarray = t.oid
CROSS JOIN LATERAL (
    SELECT coalesce(array_agg(a.attname::text ORDER BY a.attnum), '{}') AS names,
           coalesce(array_agg(a.atttypid ORDER BY a.attnum), '{}') AS oids,
           coalesce(array_agg(a.atttypmod ORDER BY a.attnum), '{}') AS modifiers,
           coalesce(array_agg(format_type(a.atttypid, a.atttypmod) ORDER BY a.attnum), '{}') AS types
    FROM pg_attribute a WHERE t.typtype = 'c' AND a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped) AS a";

fn known(row: &Row) -> Known {
    let delimiter = row.get::<_, Option<&str>>("delimiter").and_then(|text| text.chars().next());
    let (names, oids): (Vec<String>, Vec<u32>) = (row.get("names"), row.get("oids"));
    let (modifiers, types): (Vec<i32>, Vec<String>) = (row.get("modifiers"), row.get("types"));
    let attributes = names.into_iter().zip(oids).zip(modifiers).zip(types);
    Known {
        labels: row.get::<_, Option<Vec<String>>>("labels").map(Arc::from),
        element: row.get::<_, Option<u32>>("element").zip(delimiter),
        attributes: attributes.map(|(((name, oid), modifier), ty)| (name, oid, modifier, ty)).collect(),
        is_composite: row.get("composite"),
        base: row
            .get::<_, Option<u32>>("base")
            .map(|oid| (oid, row.get("base_modifier"), row.get("base_sql"))),
        is_binary: row.get("is_binary"),
        sql: row.get("sql"),
    }
}
