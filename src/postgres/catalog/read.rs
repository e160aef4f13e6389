//! The queries: one table, its columns and its unique indexes.

use std::sync::Arc;

use tokio_postgres::types::Type;
use tokio_postgres::{Client, Row};

use crate::error::{Error, ErrorKind};
use crate::mapping::TableName;
use crate::postgres::catalog::constraints::{CatalogReference, CatalogUnique, references, uniques};
use crate::postgres::catalog::equality::{Unequal, unequal};
use crate::postgres::catalog::nested::nested;
use crate::postgres::catalog::triggers::{CatalogTrigger, triggers};
use crate::postgres::quote;
use crate::value::{ColumnType, Kind};

/// One column as the catalog has it.
pub(super) struct CatalogColumn {
    pub name: String,
    pub number: i16,
    pub ty: ColumnType,
    pub modifier: i32,
    pub not_null: bool,
    pub generated: bool,
    /// SQL of a generated column's value, and the columns it is made of.
    pub generation: Option<(String, Vec<String>)>,
    /// The default as SQL, the next value of its sequence for an identity column.
    pub default: Option<String>,
    pub writable: bool,
    /// Whether the role may draw from the identity's sequence.
    pub drawable: bool,
}

/// One table as the catalog has it.
pub(super) struct CatalogTable {
    pub oid: u32,
    /// Quoted, with its schema.
    pub name: String,
    pub kind: String,
    pub row_security: bool,
    pub rules: bool,
    pub columns: Vec<CatalogColumn>,
    pub missing_privileges: Vec<String>,
    pub uniques: Vec<CatalogUnique>,
    pub unequal: Unequal,
    pub references: Vec<CatalogReference>,
    /// Columns that foreign keys of any table refer to.
    pub referred: Vec<String>,
    /// Triggers that can change rows, or suppress their writes.
    pub triggers: Vec<CatalogTrigger>,
}

impl CatalogTable {
    pub fn column(&self, name: &str) -> Option<&CatalogColumn> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// Whether no two rows have the same values in these columns; `with_null`: NULL being a value like any other.
    pub fn is_unique(&self, columns: &[String], with_null: bool) -> bool {
        let same = |index: &CatalogUnique| {
            index.is_key
                && (!with_null || index.is_with_null())
                && index.key.len() == columns.len()
                && index.key.iter().all(|column| columns.contains(column))
        };
        self.uniques.iter().any(same)
    }

    /// Asks for no privilege but to read.
    pub fn for_reading(&mut self) {
        self.missing_privileges.retain(|privilege| privilege == "SELECT");
        self.columns.iter_mut().for_each(|column| (column.writable, column.drawable) = (true, true));
    }

    /// The columns of the primary key; none if there is none.
    pub fn primary_key(&self) -> &[String] {
        self.uniques.iter().find(|unique| unique.is_primary).map_or(&[], |unique| &unique.key)
    }
}

/// What the catalog has of tables, in the order of the names; `None` for one that is not there. All in a few
/// queries: planning them costs more than running them.
pub(super) async fn read_tables(
    client: &Client,
    names: &[&TableName],
) -> Result<Vec<Option<CatalogTable>>, Error> {
    let quoted = names.iter().map(|name| match &name.schema {
        Some(schema) => format!("{}.{}", quote(schema), quote(&name.table)),
        None => quote(&name.table),
    });
    let quoted: Vec<String> = quoted.collect();
    let mut tables: Vec<Option<CatalogTable>> = names.iter().map(|_| None).collect();
    for row in client.query_typed(TABLES, &[(&quoted, Type::TEXT_ARRAY)]).await? {
        tables[row.get::<_, i64>("place") as usize - 1] = Some(table(&row));
    }
    let mut found: Vec<&mut CatalogTable> = tables.iter_mut().flatten().collect();
    let oids: Vec<u32> = found.iter().map(|table| table.oid).collect();
    for row in client.query_typed(COLUMNS, &[(&oids, Type::OID_ARRAY)]).await? {
        let oid: u32 = row.get("table");
        found.iter_mut().filter(|table| table.oid == oid).for_each(|table| table.columns.push(column(&row)));
    }
    nested(client, &mut found).await?;
    uniques(client, &mut found).await?;
    references(client, &mut found).await?;
    unequal(client, &mut found).await?;
    triggers(client, &mut found).await?;
    Ok(tables)
}

fn table(row: &Row) -> CatalogTable {
    CatalogTable {
        oid: row.get("oid"),
        name: row.get("name"),
        kind: row.get("relkind"),
        row_security: row.get("row_security"),
        rules: row.get("rules"),
        missing_privileges: row.get("missing_privileges"),
        columns: Vec::new(),
        uniques: Vec::new(),
        unequal: Unequal::new(),
        references: Vec::new(),
        referred: Vec::new(),
        triggers: Vec::new(),
    }
}

/// `format_type` of a type as it is written, the way [`ColumnType::sql`] has it; or why there is no such type.
///
/// The plan of a constant spells its type with the modifier. The description of a prepared statement has it too, but
/// the statement would outlive the transaction, and the client would prepare more for a type that it does not know.
pub(super) async fn type_of(client: &Client, written: &str) -> Result<Result<String, String>, Error> {
    let explain = format!("EXPLAIN (VERBOSE, COSTS OFF) SELECT CAST(NULL AS {written})");
    let plan = match client.query_typed(&explain, &[]).await.map_err(Error::from) {
        Ok(plan) => plan,
        // A type that is not there is rejected; a schema that is not there counts as the set-up's fault.
        Err(error) if matches!(error.kind(), ErrorKind::Rejected | ErrorKind::Setup) => {
            return Ok(Err(error.to_string()));
        }
        Err(error) => return Err(error),
    };
    let spelled = plan.iter().find_map(|line| line.get::<_, &str>(0).trim_start().strip_prefix(SPELLED));
    let row = client.query_typed_one(TYPE, &[(&written, Type::TEXT), (&spelled, Type::TEXT)]).await?;
    Ok(Ok(row.get(0)))
}

const SPELLED: &str = "Output: NULL::";

/// A domain has no modifier, and is spelled as a cast of the type below it.
const TYPE: &str = "
SELECT CASE WHEN t.typtype <> 'd' AND $2 IS NOT NULL THEN $2 ELSE format_type(t.oid, -1) END
FROM pg_type t WHERE t.oid = to_regtype($1)";

const TABLES: &str = "
SELECT wanted.place, c.oid, quote_ident(n.nspname) || '.' || quote_ident(c.relname) AS name, c.relkind::text,
       coalesce(row_security_active(c.oid), false) AS row_security,
       EXISTS (SELECT FROM pg_rewrite r WHERE r.ev_class = c.oid AND r.ev_type <> '1') AS rules,
       (SELECT coalesce(array_agg(p), '{}') FROM unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) p
        WHERE NOT has_table_privilege(c.oid, p)
          AND NOT (p <> 'DELETE' AND has_any_column_privilege(c.oid, p))) AS missing_privileges
FROM unnest($1) WITH ORDINALITY AS wanted (name, place)
JOIN pg_class c ON c.oid = to_regclass(wanted.name) JOIN pg_namespace n ON n.oid = c.relnamespace";

/// `made_of`: on what a generated column is made of depends its expression; before PostgreSQL 15 the column itself.
/// `input` is the type's own input function where the modifier of a cast would cut (`char`, `varchar`, `bit`, and
/// arrays of them); a cast for domains, ranges, composites.
const COLUMNS: &str = "
SELECT a.attrelid AS table, a.attname::text AS name, a.attnum AS number, a.atttypid AS oid, a.atttypmod AS modifier, t.typtype::text,
       CASE WHEN b.typtype = 'c' THEN 0 ELSE t.typarray END AS array_oid,
       format_type(a.atttypid, a.atttypmod) AS sql, a.attnotnull AS not_null,
       a.attgenerated <> '' AS generated,
       CASE WHEN a.attgenerated <> '' THEN pg_get_expr(d.adbin, d.adrelid) END AS generation,
       (SELECT coalesce(array_agg(s.attname::text), '{}') FROM pg_depend p
        JOIN pg_attribute s ON s.attrelid = p.refobjid AND s.attnum = p.refobjsubid
        WHERE (p.classid, p.objid, p.objsubid) IN (('pg_attrdef'::regclass, d.oid, 0), ('pg_class'::regclass, a.attrelid, a.attnum))
          AND p.refclassid = 'pg_class'::regclass AND p.refobjid = a.attrelid AND p.refobjsubid NOT IN (0, a.attnum)) AS made_of,
       CASE WHEN a.attidentity <> ''
            THEN format('nextval(%L::regclass)', pg_get_serial_sequence(a.attrelid::regclass::text, a.attname))
            WHEN a.attgenerated = '' THEN coalesce(pg_get_expr(d.adbin, d.adrelid), t.typdefault) END AS default,
       CASE WHEN a.attidentity <> ''
            THEN has_sequence_privilege(pg_get_serial_sequence(a.attrelid::regclass::text, a.attname), 'USAGE')
            ELSE true END AS drawable,
       (SELECT quote_ident(n.nspname) || '.' || quote_ident(p.proname) FROM pg_proc p
        JOIN pg_namespace n ON n.oid = p.pronamespace WHERE p.oid = t.typsend) AS send,
       CASE WHEN t.typtype = 'b' OR base.oid IN (1042, 1043, 1560, 1562)
            THEN (SELECT format(CASE WHEN p.pronargs = 1 THEN '%I.%I(pg_catalog.textout(v))'
                                     ELSE '%I.%I(pg_catalog.textout(v), %s::pg_catalog.oid, %s)' END,
                                n.nspname, p.proname, CASE WHEN b.typelem <> 0 THEN b.typelem ELSE b.oid END,
                                base.modifier) || CASE WHEN t.typtype = 'd' THEN '::' || format_type(t.oid, -1) ELSE '' END
                  FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE p.oid = b.typinput)
            ELSE 'v::' || format_type(a.atttypid, a.atttypmod) END AS input,
       (SELECT coalesce(array_agg(e.enumlabel::text), '{}') FROM pg_enum e WHERE e.enumtypid = t.oid) AS labels,
       has_column_privilege(a.attrelid, a.attnum, 'INSERT') AND has_column_privilege(a.attrelid, a.attnum, 'UPDATE')
           AS writable
FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
CROSS JOIN LATERAL (
    WITH RECURSIVE below (oid, modifier, depth) AS (
        SELECT a.atttypid, a.atttypmod, 0
        UNION ALL SELECT u.typbasetype, u.typtypmod, depth + 1 FROM below JOIN pg_type u ON u.oid = below.oid WHERE u.typtype = 'd')
    SELECT oid, modifier FROM below ORDER BY depth DESC LIMIT 1) AS base
JOIN pg_type b ON b.oid = base.oid
LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE a.attrelid = ANY ($1) AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attrelid, a.attnum";

fn column(row: &Row) -> CatalogColumn {
    let oid: u32 = row.get("oid");
    let modifier: i32 = row.get("modifier");
    let labels: Vec<String> = row.get("labels");
    let kind = match row.get::<_, &str>("typtype") {
        "e" => Kind::Enum(Arc::from(labels)),
        _ => kind(oid, modifier),
    };
    let ty = ColumnType {
        kind,
        sql: row.get("sql"),
        oid,
        array_oid: row.get("array_oid"),
        input: row.get("input"),
        send: row.get::<_, Option<String>>("send").unwrap_or_default(),
    };
    CatalogColumn {
        name: row.get("name"),
        number: row.get("number"),
        ty,
        modifier,
        not_null: row.get("not_null"),
        generated: row.get("generated"),
        generation: row.get::<_, Option<String>>("generation").map(|sql| (sql, row.get("made_of"))),
        default: row.get("default"),
        writable: row.get("writable"),
        drawable: row.get("drawable"),
    }
}

/// The encoder of a built-in type. Modifiers are laid out as in PostgreSQL's sources: `numeric` in
/// `utils/adt/numeric.c` (`make_numeric_typmod`), `varchar` in `varchar.c`, timestamps in `timestamp.c`.
pub(super) fn kind(oid: u32, modifier: i32) -> Kind {
    let precision = || u8::try_from(modifier).unwrap_or(6);
    match Type::from_oid(oid) {
        Some(Type::BOOL) => Kind::Bool,
        Some(Type::INT2) => Kind::Int2,
        Some(Type::INT4) => Kind::Int4,
        Some(Type::INT8) => Kind::Int8,
        Some(Type::FLOAT8) => Kind::Float8,
        Some(Type::NUMERIC) if modifier < 4 => Kind::Numeric(None),
        Some(Type::NUMERIC) => {
            let packed = modifier - 4;
            let scale = ((packed & 0x7ff) ^ 1024) - 1024;
            Kind::Numeric(Some(((packed >> 16) as u16, scale as i16)))
        }
        Some(Type::TEXT) => Kind::Text,
        Some(Type::VARCHAR) => Kind::Varchar(u32::try_from(modifier - 4).ok()),
        Some(Type::DATE) => Kind::Date,
        Some(Type::TIMESTAMP) => Kind::Timestamp(precision()),
        Some(Type::TIMESTAMPTZ) => Kind::Timestamptz(precision()),
        Some(Type::UUID) => Kind::Uuid,
        Some(Type::JSONB) => Kind::Jsonb,
        _ => Kind::Server,
    }
}
