//! Reads the tables of a mapping from the database's catalog, and checks that the two fit.
//!
//! Every fault found is reported at once, before the first write, with what would mend it.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::future::try_join_all;
use sha2::{Digest, Sha256};
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Row};

use crate::error::{Error, ErrorKind};
use crate::fingerprint::FORMAT;
use crate::mapping::{
    Lookup, Mapping, Missing, Relation, RelationIx, RelationKind, Source, TableName, UniqueIn,
};
use crate::postgres::quote;
use crate::schema::{IdColumn, IdSource, LookupTable, Marks, PhysicalColumn, Schema, Table, WriteWay};
use crate::value::{ColumnType, Kind};

/// A mapping does not fit the database: every fault found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemaFaults(pub Vec<String>);

impl std::fmt::Display for SchemaFaults {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the mapping does not fit the database:")?;
        self.0.iter().try_for_each(|fault| write!(f, "\n  {fault}"))
    }
}

/// One column as the catalog has it.
struct CatalogColumn {
    name: String,
    number: i16,
    ty: ColumnType,
    not_null: bool,
    generated: bool,
    /// The default as SQL, the next value of its sequence for an identity column.
    default: Option<String>,
    writable: bool,
    /// Whether the role may draw from the identity's sequence.
    drawable: bool,
}

/// One table as the catalog has it.
struct CatalogTable {
    /// Quoted, with its schema.
    name: String,
    kind: String,
    row_security: bool,
    rules: bool,
    columns: Vec<CatalogColumn>,
    primary_key: Vec<String>,
    unique: Vec<Vec<String>>,
    missing_privileges: Vec<String>,
}

impl CatalogTable {
    fn column(&self, name: &str) -> Option<&CatalogColumn> {
        self.columns.iter().find(|column| column.name == name)
    }

    fn is_unique(&self, columns: &[String]) -> bool {
        let same = |index: &Vec<String>| {
            index.len() == columns.len() && index.iter().all(|column| columns.contains(column))
        };
        self.unique.iter().any(same)
    }
}

/// Reads what the catalog says of a mapping's tables.
///
/// # Errors
/// The database's; or [`ErrorKind::Setup`] with every fault of the mapping against the catalog.
pub async fn read(client: &Client, mapping: &Mapping) -> Result<Schema, Error> {
    let names = mapping.relations.iter().map(|relation| &relation.table);
    let names: Vec<&TableName> = names.chain(mapping.lookups.iter().map(|lookup| &lookup.table)).collect();
    let found = try_join_all(names.iter().map(|name| read_table(client, name))).await?;
    let mut checker = Checker { mapping, faults: Vec::new() };
    let tables: HashMap<&TableName, CatalogTable> =
        names.into_iter().zip(found).filter_map(|(name, table)| table.map(|table| (name, table))).collect();
    let lookups: Vec<_> = mapping.lookups.iter().map(|lookup| checker.lookup(lookup, &tables)).collect();
    let mut relations: Vec<Option<Table>> = Vec::new();
    for relation in &mapping.relations {
        let table = checker.relation(relation, &tables, &relations, &lookups);
        relations.push(table);
    }
    checker.shared_tables(&relations, &lookups);
    if !checker.faults.is_empty() {
        return Err(Error::new(ErrorKind::Setup, SchemaFaults(checker.faults).to_string()));
    }
    let mut schema = Schema {
        tables: relations.into_iter().flatten().collect(),
        lookups: lookups.into_iter().flatten().collect(),
        digest: [0; 32],
    };
    digest(mapping, &mut schema);
    Ok(schema)
}

/// Fills in the digests: of each relation what decides its rows, of the schema all of them.
fn digest(mapping: &Mapping, schema: &mut Schema) {
    let mut all = Sha256::new();
    for (ix, relation) in mapping.relations.iter().enumerate() {
        let outer = relation.enclosing.map_or([0; 32], |outer| schema.tables[outer].digest);
        let digest = relation_digest(mapping, schema, ix, &outer);
        all.update(digest);
        schema.tables[ix].digest = digest;
    }
    let sync = serde_json::to_vec(&mapping.sync).unwrap_or_default();
    schema.digest = all.chain_update(sync).finalize().into();
}

fn relation_digest(mapping: &Mapping, schema: &Schema, ix: RelationIx, outer: &[u8; 32]) -> [u8; 32] {
    let relation = &mapping.relations[ix];
    let table = &schema.tables[ix];
    let mut hash = Sha256::new().chain_update([FORMAT]);
    // An enclosed row is identified through the ones around it.
    if relation.enclosing.is_some_and(|outer| outer != 0) {
        hash.update(outer);
    }
    let mut part = |text: &[u8]| {
        hash.update((text.len() as u64).to_be_bytes());
        hash.update(text);
    };
    part(&serde_json::to_vec(relation).unwrap_or_default());
    // Another search path may lead to another table; a column dropped and added anew is another one.
    part(table.name.as_bytes());
    for ((column, ty), number) in relation.columns.iter().zip(&table.columns).zip(&table.numbers) {
        part(ty.sql.as_bytes());
        part(&number.to_be_bytes());
        if let Source::Lookup { lookup, .. } = column.source {
            part(&serde_json::to_vec(&mapping.lookups[lookup]).unwrap_or_default());
            part(schema.lookups[lookup].name.as_bytes());
            schema.lookups[lookup].key.iter().for_each(|key| part(key.ty.sql.as_bytes()));
        }
    }
    hash.finalize().into()
}

struct Checker<'m> {
    mapping: &'m Mapping,
    faults: Vec<String>,
}

impl<'m> Checker<'m> {
    fn fault(&mut self, place: &str, message: impl std::fmt::Display) {
        self.faults.push(format!("{place}: {message}"));
    }

    fn table<'t>(
        &mut self,
        place: &str,
        name: &TableName,
        needed: &[&str],
        tables: &'t HashMap<&TableName, CatalogTable>,
    ) -> Option<&'t CatalogTable> {
        let Some(table) = tables.get(name) else {
            self.fault(
                place,
                format!(
                    "table {name} does not exist, or is not on the search path; create it, or name its schema"
                ),
            );
            return None;
        };
        match table.kind.as_str() {
            "r" | "p" => {}
            "v" | "m" => self.fault(place, format!("{name} is a view; name the table behind it")),
            "f" => self.fault(place, format!("{name} is a foreign table, which is not supported yet")),
            _ => self.fault(place, format!("{name} is not a table")),
        }
        if table.rules {
            self.fault(
                place,
                format!("{name} has rules, which would rewrite what is sent; replace them by triggers"),
            );
        }
        let missing = table.missing_privileges.iter().filter(|missing| needed.contains(&missing.as_str()));
        let missing = missing.cloned().collect::<Vec<_>>().join(", ");
        if !missing.is_empty() {
            self.fault(place, format!("the role may not {missing}; GRANT {missing} ON {} TO it", table.name));
        }
        Some(table)
    }

    fn column(&mut self, place: &str, table: &CatalogTable, name: &str) -> Option<PhysicalColumn> {
        let Some(column) = table.column(name) else {
            let names: Vec<&str> = table.columns.iter().map(|column| column.name.as_str()).collect();
            let nearest = nearest(name, &names).map(|near| format!("; did you mean \"{near}\"?"));
            let mend = nearest.unwrap_or_else(|| format!("; it has {}", names.join(", ")));
            self.fault(place, format!("table {} has no column \"{name}\"{mend}", table.name));
            return None;
        };
        Some(PhysicalColumn { name: column.name.clone(), ty: column.ty.clone() })
    }

    fn written(&mut self, place: &str, table: &CatalogTable, name: &str) -> Option<PhysicalColumn> {
        let column = self.column(place, table, name)?;
        if let Some(found) = table.column(name) {
            if found.generated {
                self.fault(
                    place,
                    format!("column \"{name}\" is generated by the database; take it out of the mapping"),
                );
            } else if !found.writable {
                let message = format!("the role may not write column \"{name}\"; GRANT INSERT, UPDATE on it");
                self.fault(place, message);
            }
        }
        Some(column)
    }

    fn unique(&mut self, place: &str, table: &CatalogTable, columns: &[String]) {
        if !table.is_unique(columns) && columns.iter().all(|column| table.column(column).is_some()) {
            let list = columns.iter().map(|column| quote(column)).collect::<Vec<_>>().join(", ");
            let mend = format!("CREATE UNIQUE INDEX ON {} ({list})", table.name);
            self.fault(place, format!("the key ({list}) is not unique in {}: {mend}", table.name));
        }
    }

    fn lookup(&mut self, lookup: &Lookup, tables: &HashMap<&TableName, CatalogTable>) -> Option<LookupTable> {
        let place = format!("lookups.{}", lookup.name);
        let needed: &[&str] =
            if lookup.missing == Missing::Insert { &["SELECT", "INSERT"] } else { &["SELECT"] };
        let table = self.table(&place, &lookup.table, needed, tables)?;
        let id = self.column(&format!("{place}.id"), table, &lookup.id);
        let insert = lookup.missing == Missing::Insert;
        let mut key_column = |name: &String| match insert {
            true => self.written(&format!("{place}.key"), table, name),
            false => self.column(&format!("{place}.key"), table, name),
        };
        let key: Vec<_> = lookup.key.iter().map(&mut key_column).collect();
        let columns = lookup.columns.iter();
        let columns: Vec<_> =
            columns.map(|(name, _)| self.written(&format!("{place}.columns"), table, name)).collect();
        self.unique(&place, table, &lookup.key);
        if lookup.missing == Missing::Insert {
            let given = |name: &str| {
                lookup.key.iter().any(|key| key == name) || lookup.columns.iter().any(|c| c.0 == name)
            };
            self.required(&place, table, given);
        }
        Some(LookupTable {
            name: table.name.clone(),
            id: id?,
            key: key.into_iter().collect::<Option<_>>()?,
            columns: columns.into_iter().collect::<Option<_>>()?,
        })
    }

    /// Columns that must have a value and would get none.
    fn required(&mut self, place: &str, table: &CatalogTable, given: impl Fn(&str) -> bool) {
        for column in &table.columns {
            if column.not_null && column.default.is_none() && !column.generated && !given(&column.name) {
                let message = format!(
                    "column \"{}\" of {} is NOT NULL, has no default, and the mapping does not fill it",
                    column.name, table.name
                );
                self.fault(place, message);
            }
        }
    }

    fn relation(
        &mut self,
        relation: &Relation,
        tables: &HashMap<&TableName, CatalogTable>,
        done: &[Option<Table>],
        lookups: &[Option<LookupTable>],
    ) -> Option<Table> {
        let place = match relation.kind {
            RelationKind::Root => "root".to_owned(),
            RelationKind::Child => format!("children.{}", relation.name),
            RelationKind::Link => format!("links.{}", relation.name),
        };
        let table = self.table(&place, &relation.table, &["SELECT", "INSERT", "UPDATE", "DELETE"], tables)?;
        let columns: Vec<_> = relation
            .columns
            .iter()
            .map(|column| self.written(&format!("{place}.columns.{}", column.name), table, &column.name))
            .collect();
        let id = self.id(&place, relation, table);
        let parent: Vec<_> = relation
            .parent
            .iter()
            .map(|name| self.written(&format!("{place}.parent"), table, name))
            .collect();
        let marks = self.marks(&place, relation, table);
        self.key(&place, relation, table);
        let given = |name: &str| {
            relation.columns.iter().any(|column| column.name == name)
                || relation.parent.iter().any(|parent| parent == name)
                || relation.id.as_deref() == Some(name)
                || [&self.mapping.sync.mark_hash, &self.mapping.sync.mark_time]
                    .iter()
                    .any(|mark| relation.kind == RelationKind::Root && mark.as_deref() == Some(name))
        };
        self.required(&place, table, given);
        let columns: Vec<PhysicalColumn> = columns.into_iter().collect::<Option<_>>()?;
        let parent: Vec<PhysicalColumn> = parent.into_iter().collect::<Option<_>>()?;
        self.lookup_types(&place, relation, &columns, lookups);
        if let Some(outer) = relation.enclosing {
            self.reference_types(&place, &parent, done[outer].as_ref()?);
        }
        let (locator, own_locator) = locator(table, &parent);
        Some(Table {
            name: table.name.clone(),
            names: columns.iter().map(|column| column.name.clone()).collect(),
            numbers: columns.iter().filter_map(|column| Some(table.column(&column.name)?.number)).collect(),
            columns: columns.into_iter().map(|column| column.ty).collect(),
            key: relation.key_columns(),
            parent,
            id: id?,
            locator,
            own_locator,
            marks,
            way: if table.row_security { WriteWay::Insert } else { WriteWay::Copy },
            digest: [0; 32],
        })
    }

    /// A table fed twice, perhaps by two names: what one relation writes the other would remove.
    fn shared_tables(&mut self, relations: &[Option<Table>], lookups: &[Option<LookupTable>]) {
        let names: Vec<&String> = relations.iter().flatten().map(|table| &table.name).collect();
        for (at, name) in names.iter().enumerate() {
            if names[..at].contains(name) {
                self.fault(name, "is the table of two relations; give each its own");
            }
        }
        for lookup in lookups.iter().flatten().filter(|lookup| names.contains(&&lookup.name)) {
            self.fault(&lookup.name, "is the table of a relation and of a lookup; give each its own");
        }
    }

    /// `None` is a fault; `Some(None)` a relation without a surrogate.
    fn id(&mut self, place: &str, relation: &Relation, table: &CatalogTable) -> Option<Option<IdColumn>> {
        let Some(name) = &relation.id else { return Some(None) };
        let column = self.column(&format!("{place}.id"), table, name)?;
        if let Some(at) = relation.columns.iter().position(|column| column.name == *name) {
            return Some(Some(IdColumn { column, source: IdSource::Mapped(at) }));
        }
        match table.column(name).and_then(|column| column.default.clone()) {
            Some(_) if table.column(name).is_some_and(|column| !column.drawable) => {
                let message =
                    format!("the role may not draw from the sequence of \"{name}\"; GRANT USAGE on it");
                self.fault(&format!("{place}.id"), message);
                None
            }
            Some(default) => Some(Some(IdColumn { column, source: IdSource::Expression(default) })),
            None => {
                let mend = format!(
                    "ALTER TABLE {} ALTER COLUMN {} ADD GENERATED BY DEFAULT AS IDENTITY",
                    table.name,
                    quote(name)
                );
                self.fault(
                    &format!("{place}.id"),
                    format!("column \"{name}\" has no default, and the mapping does not fill it: {mend}"),
                );
                None
            }
        }
    }

    fn marks(&mut self, place: &str, relation: &Relation, table: &CatalogTable) -> Marks {
        let mut marks = Marks::default();
        if relation.kind != RelationKind::Root {
            return marks;
        }
        if let Some(name) = &self.mapping.sync.mark_hash {
            marks.hash = self.written(&format!("{place}: sync.mark_hash"), table, name);
            let fits = |kind: &Kind| match kind {
                Kind::Text | Kind::Varchar(None) => true,
                Kind::Varchar(Some(length)) => *length >= 32,
                _ => false,
            };
            if marks.hash.as_ref().is_some_and(|column| !fits(&column.ty.kind)) {
                self.fault(
                    "sync.mark_hash",
                    format!("column \"{name}\" must be text, or varchar of 32 or more"),
                );
            }
        }
        if let Some(name) = &self.mapping.sync.mark_time {
            marks.time = self.written(&format!("{place}: sync.mark_time"), table, name);
            if marks
                .time
                .as_ref()
                .is_some_and(|c| !matches!(c.ty.kind, Kind::Timestamp(_) | Kind::Timestamptz(_)))
            {
                self.fault("sync.mark_time", format!("column \"{name}\" must be timestamptz or timestamp"));
            }
        }
        marks
    }

    fn key(&mut self, place: &str, relation: &Relation, table: &CatalogTable) {
        if relation.kind == RelationKind::Root || (relation.unique_in == UniqueIn::All && relation.is_keyed())
        {
            self.unique(&format!("{place}.key"), table, &relation.key);
        }
        for &at in &relation.key_columns() {
            let Source::Lookup { lookup, .. } = relation.columns[at].source else { continue };
            if relation.kind == RelationKind::Child && self.mapping.lookups[lookup].missing == Missing::Skip {
                let name = &relation.columns[at].name;
                let message = format!(
                    "column \"{name}\" refers to a catalogue with missing = \"skip\": a key cannot be left out"
                );
                self.fault(&format!("{place}.key"), message);
            }
        }
        for name in &relation.key {
            let Some(column) = table.column(name) else { continue };
            if matches!(column.ty.kind, Kind::Jsonb) {
                self.fault(
                    &format!("{place}.key"),
                    format!("column \"{name}\" is jsonb, which cannot be a key"),
                );
            }
        }
    }

    /// Columns that hold a catalogue's id must be of its type: ids are passed on as bytes.
    fn lookup_types(
        &mut self,
        place: &str,
        relation: &Relation,
        columns: &[PhysicalColumn],
        lookups: &[Option<LookupTable>],
    ) {
        for (column, physical) in relation.columns.iter().zip(columns) {
            let Source::Lookup { lookup, .. } = column.source else { continue };
            let Some(target) = &lookups[lookup] else { continue };
            self.same_type(&format!("{place}.columns.{}", column.name), physical, &target.id);
        }
    }

    fn reference_types(&mut self, place: &str, parent: &[PhysicalColumn], outer: &Table) {
        let targets: Vec<PhysicalColumn> = match &outer.id {
            Some(id) => vec![id.column.clone()],
            None => {
                let column = |&at: &usize| PhysicalColumn {
                    name: outer.names[at].clone(),
                    ty: outer.columns[at].clone(),
                };
                outer.key.iter().map(column).collect()
            }
        };
        for (column, target) in parent.iter().zip(&targets) {
            self.same_type(&format!("{place}.parent"), column, target);
        }
    }

    fn same_type(&mut self, place: &str, column: &PhysicalColumn, target: &PhysicalColumn) {
        // With its modifier: what is 5 in one is 5.00 in the other, and ids are passed on as bytes.
        let text = |ty: &ColumnType| matches!(ty.kind, Kind::Text | Kind::Varchar(_));
        if column.ty.sql != target.ty.sql && !(text(&column.ty) && text(&target.ty)) {
            let message = format!(
                "column \"{}\" is {}, but what it refers to, \"{}\", is {}: give both one type",
                column.name, column.ty.sql, target.name, target.ty.sql
            );
            self.fault(place, message);
        }
    }
}

/// The primary key, else the physical place; and the reference to the parent.
fn locator(table: &CatalogTable, parent: &[PhysicalColumn]) -> (Vec<PhysicalColumn>, usize) {
    let builtin = |name: &str, ty: Type, array: Type, send: &str| PhysicalColumn {
        name: name.to_owned(),
        ty: ColumnType {
            kind: Kind::Server,
            sql: ty.name().to_owned(),
            oid: ty.oid(),
            array_oid: array.oid(),
            input: String::new(),
            send: format!("pg_catalog.{send}"),
        },
    };
    let mut columns: Vec<PhysicalColumn> = if table.primary_key.is_empty() {
        let table_oid = builtin("tableoid", Type::OID, Type::OID_ARRAY, "oidsend");
        vec![table_oid, builtin("ctid", Type::TID, Type::TID_ARRAY, "tidsend")]
    } else {
        let column = |name: &String| {
            table.column(name).map(|column| PhysicalColumn { name: name.clone(), ty: column.ty.clone() })
        };
        table.primary_key.iter().filter_map(column).collect()
    };
    let known: Vec<String> = columns.iter().map(|column| column.name.clone()).collect();
    columns.extend(parent.iter().filter(|column| !known.contains(&column.name)).cloned());
    columns.push(builtin("xmin", Type::XID, Type::XID_ARRAY, "xidsend"));
    (columns, known.len())
}

/// The name that differs least, if it differs by a third of its letters at most.
fn nearest<'n>(name: &str, names: &[&'n str]) -> Option<&'n str> {
    let ratio =
        |other: &&str| similar::TextDiff::from_chars(name.to_lowercase(), other.to_lowercase()).ratio();
    let near = names.iter().map(|other| (ratio(other), *other)).filter(|near| near.0 > 0.66);
    near.max_by(|a, b| a.0.total_cmp(&b.0)).map(|near| near.1)
}

async fn read_table(client: &Client, name: &TableName) -> Result<Option<CatalogTable>, Error> {
    let quoted = match &name.schema {
        Some(schema) => format!("{}.{}", quote(schema), quote(&name.table)),
        None => quote(&name.table),
    };
    let Some(row) = client.query_typed_opt(TABLE, &[(&quoted, Type::TEXT)]).await? else { return Ok(None) };
    let oid: u32 = row.get("oid");
    let columns = client.query_typed(COLUMNS, &[(&oid, Type::OID)]).await?;
    let indexes = client.query_typed(INDEXES, &[(&oid, Type::OID)]).await?;
    let key = |row: &Row| row.get::<_, Vec<String>>("columns");
    let primary = indexes.iter().find(|row| row.get("indisprimary"));
    Ok(Some(CatalogTable {
        name: row.get("name"),
        kind: row.get("relkind"),
        row_security: row.get("row_security"),
        rules: row.get("rules"),
        columns: columns.iter().map(column).collect(),
        primary_key: primary.map(key).unwrap_or_default(),
        unique: indexes.iter().map(key).collect(),
        missing_privileges: row.get("missing_privileges"),
    }))
}

const TABLE: &str = "
SELECT c.oid, quote_ident(n.nspname) || '.' || quote_ident(c.relname) AS name, c.relkind::text,
       coalesce(row_security_active(c.oid), false) AS row_security,
       EXISTS (SELECT FROM pg_rewrite r WHERE r.ev_class = c.oid AND r.ev_type <> '1') AS rules,
       (SELECT coalesce(array_agg(p), '{}') FROM unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) p
        WHERE NOT has_table_privilege(c.oid, p)
          AND NOT (p <> 'DELETE' AND has_any_column_privilege(c.oid, p))) AS missing_privileges
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.oid = to_regclass($1)";

/// `input` is the type's own input function where the modifier of a cast would cut (`char`, `varchar`, `bit`, and
/// arrays of them); a cast for domains, ranges, composites.
const COLUMNS: &str = "
SELECT a.attname::text AS name, a.attnum AS number, a.atttypid AS oid, a.atttypmod AS modifier, t.typtype::text,
       CASE WHEN b.typtype = 'c' THEN 0 ELSE t.typarray END AS array_oid,
       format_type(a.atttypid, a.atttypmod) AS sql, a.attnotnull AS not_null,
       a.attgenerated <> '' AS generated,
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
WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum";

const INDEXES: &str = "
SELECT i.indisprimary,
       (SELECT array_agg(a.attname::text ORDER BY k.place) FROM unnest(i.indkey::int2[]) WITH ORDINALITY AS k (attnum, place)
        JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum WHERE k.place <= i.indnkeyatts) AS columns
FROM pg_index i
WHERE i.indrelid = $1 AND i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL";

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
        not_null: row.get("not_null"),
        generated: row.get("generated"),
        default: row.get("default"),
        writable: row.get("writable"),
        drawable: row.get("drawable"),
    }
}

/// The encoder of a built-in type. Modifiers are laid out as in PostgreSQL's sources: `numeric` in
/// `utils/adt/numeric.c` (`make_numeric_typmod`), `varchar` in `varchar.c`, timestamps in `timestamp.c`.
fn kind(oid: u32, modifier: i32) -> Kind {
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
