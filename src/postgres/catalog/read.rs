//! The queries: one table, its columns and its unique indexes.

use std::sync::Arc;

use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Row};

use crate::error::{Error, ErrorKind};
use crate::mapping::TableName;
use crate::postgres::catalog::constraints::{CatalogReference, CatalogUnique, references, uniques};
use crate::postgres::catalog::equality::{Unequal, unequal};
use crate::postgres::catalog::nested::nested;
use crate::postgres::catalog::triggers::{CatalogTrigger, triggers};
use crate::value::{ColumnType, Kind};

/// One column as the catalog has it.
pub(super) struct CatalogColumn {
    pub name: String,
    pub number: i16,
    pub ty: ColumnType,
    pub modifier: i32,
    /// Whether NULL is refused: by the column, or by a domain.
    pub not_null: bool,
    /// Its type, or one that it is made of, that cannot be sent and read in binary form.
    pub without_binary: Option<String>,
    pub generated: bool,
    /// SQL of a generated column's value, and the columns it is made of.
    pub generation: Option<(String, Vec<String>)>,
    /// The default as SQL, the next value of its sequence for an identity column.
    pub default: Option<String>,
    /// Whether it is an identity: its sequence may be drawn from by whoever may insert.
    pub is_identity: bool,
    pub access: Access,
    /// The sequence from which the default draws, and the role may not.
    pub undrawable: Option<String>,
}

/// What the role may do with a column.
#[derive(Clone, Copy)]
pub(super) struct Access {
    pub select: bool,
    pub insert: bool,
    pub update: bool,
}

/// One table as the catalog has it.
pub(super) struct CatalogTable {
    pub oid: u32,
    /// Quoted, with its schema.
    pub name: String,
    pub kind: String,
    /// Whether it is its session's own.
    pub is_temporary: bool,
    /// Its schema, quoted.
    pub schema: String,
    /// Whether the role may use its schema.
    pub is_open: bool,
    pub row_security: bool,
    /// The rules that rewrite what is sent to it.
    pub rules: Vec<String>,
    /// Its partitions that are foreign tables.
    pub foreign: Vec<String>,
    /// Tables that inherit from it, partitions apart.
    pub heirs: Vec<String>,
    /// Tables that it is a partition of, or inherits from.
    pub ancestors: Vec<u32>,
    /// The columns by which it, and its partitions, are partitioned; `None` is an expression.
    pub partitioned_by: Vec<Option<String>>,
    pub columns: Vec<CatalogColumn>,
    /// The role, quoted.
    pub role: String,
    /// Privileges that the role does not have, not even on a column.
    pub missing_privileges: Vec<String>,
    /// System columns that the role may not read.
    pub hidden: Vec<String>,
    pub uniques: Vec<CatalogUnique>,
    pub unequal: Unequal,
    pub references: Vec<CatalogReference>,
    /// Columns that foreign keys of any table refer to.
    pub referred: Vec<String>,
    /// The user's triggers.
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
        for column in &mut self.columns {
            (column.access.insert, column.access.update, column.undrawable) = (true, true, None);
        }
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
    let schemas: Vec<Option<&str>> = names.iter().map(|name| name.schema.as_deref()).collect();
    let bare: Vec<&str> = names.iter().map(|name| name.table.as_str()).collect();
    let mut tables: Vec<Option<CatalogTable>> = names.iter().map(|_| None).collect();
    let wanted: &[(&(dyn ToSql + Sync), Type)] = &[(&schemas, Type::TEXT_ARRAY), (&bare, Type::TEXT_ARRAY)];
    for row in client.query_typed(TABLES, wanted).await? {
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
        is_temporary: row.get("is_temporary"),
        is_open: row.get("is_open"),
        schema: row.get("schema"),
        row_security: row.get("row_security"),
        rules: row.get("rules"),
        foreign: row.get("foreign"),
        heirs: row.get("heirs"),
        ancestors: row.get("ancestors"),
        partitioned_by: row.get("partitioned_by"),
        role: row.get("role"),
        missing_privileges: row.get("missing_privileges"),
        hidden: row.get("hidden"),
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

/// Names are compared as they are: `to_regclass` would cut what is too long, and fail for a schema that is closed to
/// the role.
const TABLES: &str = "
SELECT wanted.place, c.oid, quote_ident(n.nspname) || '.' || quote_ident(c.relname) AS name, c.relkind::text,
       c.relpersistence = 't' AS is_temporary, has_schema_privilege(n.oid, 'USAGE') AS is_open, quote_ident(n.nspname) AS schema,
       coalesce(row_security_active(c.oid), false) AS row_security,
       array(SELECT quote_ident(r.rulename) FROM pg_rewrite r
             WHERE r.ev_class = c.oid AND r.ev_type <> '1' AND r.ev_enabled IN ('O', 'A') ORDER BY 1) AS rules,
       array(SELECT format('%s.%I', f.relnamespace::regnamespace, f.relname) FROM pg_partition_tree(c.oid) p
             JOIN pg_class f ON f.oid = p.relid WHERE f.relkind = 'f' AND f.oid <> c.oid ORDER BY 1) AS foreign,
       array(SELECT format('%s.%I', h.relnamespace::regnamespace, h.relname) FROM pg_inherits i
             JOIN pg_class h ON h.oid = i.inhrelid WHERE i.inhparent = c.oid AND NOT h.relispartition ORDER BY 1) AS heirs,
       array(WITH RECURSIVE up (oid) AS (
                 SELECT inhparent FROM pg_inherits WHERE inhrelid = c.oid
                 UNION SELECT i.inhparent FROM up JOIN pg_inherits i ON i.inhrelid = up.oid)
             SELECT oid FROM up) AS ancestors,
       array(SELECT DISTINCT a.attname::text FROM pg_partition_tree(c.oid) p JOIN pg_partitioned_table t ON t.partrelid = p.relid
             CROSS JOIN LATERAL unnest(t.partattrs::int2[]) AS part (number)
             LEFT JOIN pg_attribute a ON a.attrelid = t.partrelid AND a.attnum = part.number ORDER BY 1) AS partitioned_by,
       quote_ident(current_user) AS role,
       array(SELECT s FROM unnest(ARRAY['ctid', 'tableoid', 'xmin']) s
             WHERE CASE WHEN c.relkind IN ('r', 'p') THEN NOT has_column_privilege(c.oid, s, 'SELECT') END) AS hidden,
       (SELECT coalesce(array_agg(p), '{}') FROM unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) p
        WHERE NOT has_table_privilege(c.oid, p)
          AND NOT (p <> 'DELETE' AND has_any_column_privilege(c.oid, p))) AS missing_privileges
FROM unnest($1, $2) WITH ORDINALITY AS wanted (schema, name, place)
JOIN pg_class c ON c.relname = wanted.name JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE CASE WHEN wanted.schema IS NULL THEN c.oid = to_regclass(quote_ident(wanted.name)) ELSE n.nspname = wanted.schema END";

/// `made_of`: on what a generated column is made of depends its expression; before PostgreSQL 15 the column itself.
/// `drawn`: the sequence of an identity or a default.
/// `input` is the type's own input function where the modifier of a cast would cut (`char`, `varchar`, `bit`, and
/// arrays of them); a cast for domains, ranges, composites.
const COLUMNS: &str = "
SELECT a.attrelid AS table, a.attname::text AS name, a.attnum AS number, a.atttypid AS oid, a.atttypmod AS modifier, t.typtype::text,
       CASE WHEN b.typtype = 'c' THEN 0 ELSE t.typarray END AS array_oid,
       format_type(a.atttypid, a.atttypmod) AS sql, a.attnotnull OR base.not_null AS not_null,
       CASE WHEN EXISTS (SELECT FROM pg_type p WHERE p.oid IN (b.oid, b.typelem) AND 0 IN (p.typsend, p.typreceive))
            THEN format_type(a.atttypid, a.atttypmod) END AS without_binary,
       a.attgenerated <> '' AS generated, a.attidentity <> '' AS is_identity,
       CASE WHEN a.attgenerated <> '' THEN pg_get_expr(d.adbin, d.adrelid) END AS generation,
       (SELECT coalesce(array_agg(s.attname::text), '{}') FROM pg_depend p
        JOIN pg_attribute s ON s.attrelid = p.refobjid AND s.attnum = p.refobjsubid
        WHERE (p.classid, p.objid, p.objsubid) IN (('pg_attrdef'::regclass, d.oid, 0), ('pg_class'::regclass, a.attrelid, a.attnum))
          AND p.refclassid = 'pg_class'::regclass AND p.refobjid = a.attrelid AND p.refobjsubid NOT IN (0, a.attnum)) AS made_of,
       CASE WHEN a.attidentity <> '' THEN format('nextval(%L::regclass)', drawn.name)
            WHEN a.attgenerated = '' THEN coalesce(pg_get_expr(d.adbin, d.adrelid), t.typdefault) END AS default,
       CASE WHEN NOT has_sequence_privilege(drawn.oid, 'USAGE, UPDATE') THEN drawn.name END AS undrawable,
       (SELECT quote_ident(n.nspname) || '.' || quote_ident(p.proname) FROM pg_proc p
        JOIN pg_namespace n ON n.oid = p.pronamespace WHERE p.oid = t.typsend) AS send,
       CASE WHEN t.typtype = 'b' OR base.oid IN (1042, 1043, 1560, 1562) OR b.typelem IN (1042, 1043, 1560, 1562)
            THEN (SELECT format(CASE WHEN p.pronargs = 1 THEN '%I.%I(pg_catalog.textout(v))'
                                     ELSE '%I.%I(pg_catalog.textout(v), %s::pg_catalog.oid, %s)' END,
                                n.nspname, p.proname, CASE WHEN b.typelem <> 0 THEN b.typelem ELSE b.oid END,
                                base.modifier) || CASE WHEN t.typtype = 'd' THEN '::' || format_type(t.oid, -1) ELSE '' END
                  FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE p.oid = b.typinput)
            ELSE 'v::' || format_type(a.atttypid, a.atttypmod) END AS input,
       (SELECT coalesce(array_agg(e.enumlabel::text), '{}') FROM pg_enum e WHERE e.enumtypid = t.oid) AS labels,
       has_column_privilege(a.attrelid, a.attnum, 'SELECT') AS may_select,
       has_column_privilege(a.attrelid, a.attnum, 'INSERT') AS may_insert,
       has_column_privilege(a.attrelid, a.attnum, 'UPDATE') AS may_update
FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
CROSS JOIN LATERAL (
    WITH RECURSIVE below (oid, modifier, not_null, depth) AS (
        SELECT a.atttypid, a.atttypmod, false, 0
        UNION ALL SELECT u.typbasetype, u.typtypmod, below.not_null OR u.typnotnull, depth + 1
                  FROM below JOIN pg_type u ON u.oid = below.oid WHERE u.typtype = 'd')
    SELECT oid, modifier, not_null FROM below ORDER BY depth DESC LIMIT 1) AS base
JOIN pg_type b ON b.oid = base.oid
LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
LEFT JOIN LATERAL (
    SELECT s.oid, format('%s.%I', s.relnamespace::regnamespace, s.relname) AS name FROM (
        SELECT p.objid FROM pg_depend p WHERE a.attidentity <> '' AND p.deptype = 'i' AND p.classid = 'pg_class'::regclass
          AND p.refclassid = 'pg_class'::regclass AND p.refobjid = a.attrelid AND p.refobjsubid = a.attnum
        UNION ALL SELECT p.refobjid FROM pg_depend p
        WHERE p.classid = 'pg_attrdef'::regclass AND p.objid = d.oid AND p.refclassid = 'pg_class'::regclass) AS own (oid)
    JOIN pg_class s ON s.oid = own.oid AND s.relkind = 'S' LIMIT 1) AS drawn ON true
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
        without_binary: row.get("without_binary"),
        generated: row.get("generated"),
        generation: row.get::<_, Option<String>>("generation").map(|sql| (sql, row.get("made_of"))),
        default: row.get("default"),
        is_identity: row.get("is_identity"),
        access: Access {
            select: row.get("may_select"),
            insert: row.get("may_insert"),
            update: row.get("may_update"),
        },
        undrawable: row.get("undrawable"),
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
        Some(Type::JSON) => Kind::Json,
        _ => Kind::Server,
    }
}
