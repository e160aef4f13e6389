//! The constraints that decide in which order rows can be written: unique ones, exclusions, foreign keys.

use tokio_postgres::types::Type;
use tokio_postgres::{Client, Row};

use super::read::CatalogTable;
use crate::error::Error;
use crate::mapping::Relation;
use crate::schema::{Attribute, Check, OnChange, Reference, Unique, UniqueTerm};
use crate::value::{ColumnType, Kind};

/// A unique or exclusion constraint, or a unique index, its columns by name.
pub(super) struct CatalogUnique {
    pub is_primary: bool,
    /// Whether its key is columns, and no row can have the key of another.
    pub is_key: bool,
    /// Its index, quoted, with its schema, if that is not valid.
    pub invalid: Option<String>,
    name: String,
    pub check: Check,
    nulls_distinct: bool,
    predicate: Option<String>,
    terms: Vec<UniqueTerm>,
    /// The columns among the parts of the key, in order.
    pub key: Vec<String>,
    /// Whether all parts are columns, compared by the `=` of a B-tree and a deterministic collation.
    pub plain: bool,
    /// All columns it looks at.
    pub columns: Vec<String>,
}

impl CatalogUnique {
    /// Whether NULL is a value like any other.
    pub fn is_with_null(&self) -> bool {
        !self.nulls_distinct
    }
}

/// A foreign key, its columns by name.
#[derive(Clone)]
pub(super) struct CatalogReference {
    table: u32,
    name: String,
    check: Check,
    from: Vec<String>,
    /// Quoted, with its schema.
    target: String,
    to: Vec<String>,
    on_delete: OnChange,
    on_update: OnChange,
}

/// Reads the unique ones of tables.
pub(super) async fn uniques(client: &Client, tables: &mut [&mut CatalogTable]) -> Result<(), Error> {
    let oids: Vec<u32> = tables.iter().map(|table| table.oid).collect();
    for row in client.query_typed(UNIQUES, &[(&oids, Type::OID_ARRAY)]).await? {
        let oid: u32 = row.get("table");
        tables.iter_mut().filter(|table| table.oid == oid).for_each(|table| table.uniques.push(unique(&row)));
    }
    Ok(())
}

/// Reads the foreign keys of tables, and which columns of theirs any table's refer to.
pub(super) async fn references(client: &Client, tables: &mut [&mut CatalogTable]) -> Result<(), Error> {
    let oids: Vec<u32> = tables.iter().map(|table| table.oid).collect();
    for reference in client.query_typed(REFERENCES, &[(&oids, Type::OID_ARRAY)]).await?.iter().map(reference)
    {
        for table in tables.iter_mut() {
            if table.name == reference.target {
                table.referred.extend(reference.to.iter().cloned());
            }
            if table.oid == reference.table {
                table.references.push(reference.clone());
            }
        }
    }
    Ok(())
}

/// `plain`: every part of the key is a column under `=` of a B-tree and a deterministic collation. The row of
/// `pg_index` is asked as JSON because `indnullsnotdistinct` came with PostgreSQL 15.
const UNIQUES: &str = "
SELECT i.indrelid AS table, coalesce(con.conname, x.relname)::text AS name,
       quote_ident(n.nspname) || '.' || quote_ident(con.conname) AS constraint,
       coalesce(con.condeferrable, false) AS deferrable, coalesce(con.condeferred, false) AS deferred,
       i.indisprimary AS is_primary,
       CASE WHEN NOT i.indisvalid THEN format('%I.%I', n.nspname, x.relname) END AS invalid,
       i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL AS is_key,
       NOT coalesce((to_jsonb(i) ->> 'indnullsnotdistinct')::boolean, false) AS nulls_distinct,
       pg_get_expr(i.indpred, i.indrelid) AS predicate, keys.*,
       (SELECT coalesce(array_agg(DISTINCT a.attname::text), '{}') FROM pg_attribute a
        WHERE a.attrelid = i.indrelid AND (a.attnum = ANY (i.indkey[0:i.indnkeyatts - 1]) OR EXISTS (
          SELECT FROM pg_depend d WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = i.indrelid
            AND d.refobjsubid = a.attnum AND a.attnum > 0
            AND (d.classid, d.objid) IN (('pg_class'::regclass, i.indexrelid), ('pg_constraint'::regclass, con.oid))))
       ) AS columns
FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid JOIN pg_namespace n ON n.oid = x.relnamespace
JOIN pg_am m ON m.oid = x.relam
LEFT JOIN pg_constraint con ON con.conindid = i.indexrelid AND con.conrelid = i.indrelid AND con.contype IN ('p', 'u', 'x')
CROSS JOIN LATERAL (
    SELECT array_agg(pg_get_indexdef(i.indexrelid, k.place::integer, true)
             || coalesce(' COLLATE ' || quote_ident(cn.nspname) || '.' || quote_ident(c.collname), '') ORDER BY k.place) AS expressions,
           array_agg('OPERATOR(' || quote_ident(opn.nspname) || '.' || o.oprname || ')' ORDER BY k.place) AS operators,
           array_agg(a.attname::text ORDER BY k.place) AS key,
           i.indpred IS NULL AND con.conexclop IS NULL AND m.amname = 'btree'
             AND bool_and(k.attnum > 0 AND coalesce(c.collisdeterministic, true)) AS plain
    FROM unnest(i.indkey::int2[]) WITH ORDINALITY AS k (attnum, place)
    LEFT JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum AND k.attnum > 0
    LEFT JOIN pg_collation c ON c.oid = i.indcollation[k.place - 1] AND c.collname <> 'default'
    LEFT JOIN pg_namespace cn ON cn.oid = c.collnamespace
    JOIN pg_opclass oc ON oc.oid = i.indclass[k.place - 1]
    LEFT JOIN pg_amop eq ON eq.amopfamily = oc.opcfamily AND eq.amoplefttype = oc.opcintype
      AND eq.amoprighttype = oc.opcintype AND eq.amopstrategy = 3 AND m.amname = 'btree'
    LEFT JOIN pg_operator o ON o.oid = coalesce(con.conexclop[k.place], eq.amopopr)
    LEFT JOIN pg_namespace opn ON opn.oid = o.oprnamespace
    WHERE k.place <= i.indnkeyatts) AS keys
WHERE i.indrelid = ANY ($1) AND (i.indisunique OR i.indisexclusion) AND i.indisready
ORDER BY 1, 2";

const REFERENCES: &str = "
SELECT con.conrelid AS table, con.conname::text AS name, quote_ident(n.nspname) || '.' || quote_ident(con.conname) AS constraint,
       con.condeferrable AS deferrable, con.condeferred AS deferred,
       quote_ident(tn.nspname) || '.' || quote_ident(t.relname) AS target,
       con.confdeltype::text AS on_delete, con.confupdtype::text AS on_update,
       (SELECT array_agg(a.attname::text ORDER BY k.place) FROM unnest(con.conkey) WITH ORDINALITY AS k (attnum, place)
        JOIN pg_attribute a ON a.attrelid = con.conrelid AND a.attnum = k.attnum) AS columns,
       (SELECT array_agg(a.attname::text ORDER BY k.place) FROM unnest(con.confkey) WITH ORDINALITY AS k (attnum, place)
        JOIN pg_attribute a ON a.attrelid = con.confrelid AND a.attnum = k.attnum) AS target_columns
FROM pg_constraint con JOIN pg_namespace n ON n.oid = con.connamespace
JOIN pg_class t ON t.oid = con.confrelid JOIN pg_namespace tn ON tn.oid = t.relnamespace
WHERE (con.conrelid = ANY ($1) OR con.confrelid = ANY ($1)) AND con.contype = 'f' AND con.conparentid = 0
ORDER BY con.conrelid, con.conname";

fn unique(row: &Row) -> CatalogUnique {
    let expressions: Vec<String> = row.get("expressions");
    let operators: Vec<String> = row.get("operators");
    let terms = expressions.into_iter().zip(operators);
    let key: Vec<Option<String>> = row.get("key");
    CatalogUnique {
        is_primary: row.get("is_primary"),
        is_key: row.get("is_key"),
        invalid: row.get("invalid"),
        name: row.get("name"),
        check: check(row),
        nulls_distinct: row.get("nulls_distinct"),
        predicate: row.get("predicate"),
        terms: terms.map(|(expression, operator)| UniqueTerm { expression, operator }).collect(),
        key: key.into_iter().flatten().collect(),
        plain: row.get("plain"),
        columns: row.get("columns"),
    }
}

fn reference(row: &Row) -> CatalogReference {
    CatalogReference {
        table: row.get("table"),
        name: row.get("name"),
        check: check(row),
        from: row.get("columns"),
        target: row.get("target"),
        to: row.get("target_columns"),
        on_delete: on_change(row.get("on_delete")),
        on_update: on_change(row.get("on_update")),
    }
}

fn check(row: &Row) -> Check {
    match row.get::<_, Option<String>>("constraint") {
        Some(name) if row.get("deferred") => Check::Deferred(name),
        Some(name) if row.get("deferrable") => Check::Deferrable(name),
        _ => Check::AtOnce,
    }
}

fn on_change(code: &str) -> OnChange {
    match code {
        "r" => OnChange::Restricted,
        "c" => OnChange::Cascades,
        "n" | "d" => OnChange::Clears,
        _ => OnChange::Refused,
    }
}

/// The names of a relation's columns, and what they are to the mapping.
pub(super) struct Names<'a> {
    pub relation: &'a Relation,
    pub table: &'a CatalogTable,
}

impl Names<'_> {
    fn attribute(&self, name: &str) -> Attribute {
        if let Some(at) = self.relation.columns.iter().position(|column| column.name == name) {
            return Attribute::Mapped(at);
        }
        if let Some(at) = self.relation.parent.iter().position(|parent| parent == name) {
            return Attribute::Parent(at);
        }
        if self.relation.id.as_deref() == Some(name) {
            return Attribute::Id;
        }
        let column = self.table.column(name);
        Attribute::Unmapped {
            name: name.to_owned(),
            generated: column.and_then(|column| Some(column.generation.as_ref()?.0.clone())),
            default: column.and_then(|column| column.default.clone()),
        }
    }

    fn attributes(&self, names: &[String]) -> Vec<Attribute> {
        names.iter().map(|name| self.attribute(name)).collect()
    }

    /// The unique constraints and indexes of the relation's table.
    pub fn uniques(&self) -> Vec<Unique> {
        self.table.uniques.iter().map(|unique| self.unique(unique)).collect()
    }

    fn unique(&self, unique: &CatalogUnique) -> Unique {
        let bytewise = |name: &String| {
            self.attribute(name).is_known() && self.table.column(name).is_some_and(|c| is_bytewise(&c.ty))
        };
        let plain = unique.plain && unique.key.iter().all(bytewise);
        let columns = if plain { unique.key.clone() } else { self.with_made_of(&unique.columns) };
        Unique {
            name: unique.name.clone(),
            attributes: self.attributes(&columns),
            plain,
            nulls_distinct: unique.nulls_distinct,
            check: unique.check.clone(),
            terms: unique.terms.clone(),
            predicate: unique.predicate.clone(),
        }
    }

    /// The columns, and those that generated ones among them are made of.
    fn with_made_of(&self, columns: &[String]) -> Vec<String> {
        let generation = |name: &String| self.table.column(name)?.generation.as_ref();
        let made_of = columns.iter().filter_map(generation).flat_map(|generation| &generation.1);
        let mut all: Vec<String> = columns.iter().chain(made_of).cloned().collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Columns that foreign keys refer to.
    pub fn referred(&self) -> Vec<Attribute> {
        self.attributes(&self.table.referred)
    }

    /// The foreign keys to tables of the mapping; `relations`: all of them with their tables.
    pub fn references(&self, relations: &[Names<'_>]) -> Vec<Reference> {
        let resolve = |reference: &CatalogReference| {
            let target = relations.iter().position(|names| names.table.name == reference.target)?;
            Some(Reference {
                name: reference.name.clone(),
                from: self.attributes(&reference.from),
                target,
                to: relations[target].attributes(&reference.to),
                on_delete: reference.on_delete,
                on_update: reference.on_update,
                check: reference.check.clone(),
            })
        };
        self.table.references.iter().filter_map(resolve).collect()
    }
}

/// Whether two values of a type are equal for an index exactly if their comparison forms are.
fn is_bytewise(ty: &ColumnType) -> bool {
    match ty.kind {
        Kind::Bool
        | Kind::Int2
        | Kind::Int4
        | Kind::Int8
        | Kind::Numeric(_)
        | Kind::Text
        | Kind::Varchar(_) => true,
        Kind::Date | Kind::Timestamp(_) | Kind::Timestamptz(_) | Kind::Uuid | Kind::Enum(_) => true,
        Kind::Float8 | Kind::Jsonb | Kind::Json | Kind::Array(_) | Kind::Composite(_) => false,
        Kind::Domain(_) | Kind::Server => false,
    }
}
