//! The user's triggers, and which of them change rows, or suppress their writes.

use tokio_postgres::types::Type;
use tokio_postgres::{Client, Row};

use super::read::CatalogTable;
use crate::error::Error;
use crate::mapping::{Mapping, Relation, RelationKind};
use crate::schema::{Trigger, WriteWay};

/// A trigger as the catalog has it.
#[derive(Clone)]
pub(crate) struct CatalogTrigger {
    pub name: String,
    /// Its function, quoted, with its schema.
    pub function: String,
    /// The function's text, if it is PL/pgSQL.
    pub body: Option<String>,
    /// `tgenabled`.
    pub enabled: char,
    /// Whether it fires in this session.
    pub fires: bool,
    /// The columns of `UPDATE OF`; none: an UPDATE of any column fires it.
    pub columns: Vec<String>,
    /// `tgtype`.
    kind: i16,
    /// Whether its function, by its text, updates the table, or one that is not known before it runs.
    updates: bool,
}

impl CatalogTrigger {
    pub fn is_row(&self) -> bool {
        self.kind & ROW != 0
    }

    pub fn is_before(&self) -> bool {
        self.kind & BEFORE != 0
    }

    /// `INSERT or UPDATE`.
    pub fn events(&self) -> String {
        let of = self.columns.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ");
        let update = if of.is_empty() { "UPDATE".to_owned() } else { format!("UPDATE OF {of}") };
        let events =
            [(INSERT, "INSERT"), (UPDATE, update.as_str()), (DELETE, "DELETE"), (TRUNCATE, "TRUNCATE")];
        let events = events.iter().filter(|event| self.kind & event.0 != 0).map(|event| event.1);
        events.collect::<Vec<_>>().join(" or ")
    }

    /// What it can do to writes; `updates`: whether columns are updated on which it fires.
    pub fn effect(&self, updates: bool) -> Option<Trigger> {
        let before = self.is_before();
        let changes = if before { self.is_row() } else { self.updates };
        let trigger = Trigger {
            name: self.name.clone(),
            before,
            insert: self.kind & INSERT != 0,
            update: self.kind & UPDATE != 0 && updates,
            // What is gone no trigger changes afterwards.
            delete: self.kind & DELETE != 0 && before,
        };
        (self.fires && changes && (trigger.insert || trigger.update || trigger.delete)).then_some(trigger)
    }

    /// What it can do where the columns of a relation are written.
    pub fn on(&self, mapping: &Mapping, relation: &Relation) -> Option<Trigger> {
        let is_written = |name: &String| {
            relation.columns.iter().any(|column| column.name == *name)
                || relation.parent.contains(name)
                || relation.kind == RelationKind::Root && mapping.sync.marks().any(|mark| mark == name)
        };
        self.effect(self.columns.is_empty() || self.columns.iter().any(is_written))
    }
}

impl CatalogTable {
    /// The triggers that can change what is written of a relation, or suppress it.
    pub fn triggers_on(&self, mapping: &Mapping, relation: &Relation) -> Vec<Trigger> {
        self.triggers.iter().filter_map(|trigger| trigger.on(mapping, relation)).collect()
    }

    /// How new rows may be written: what triggers make of them is seen by `INSERT … RETURNING` only.
    pub fn way(&self, mapping: &Mapping, relation: &Relation) -> WriteWay {
        match self.row_security || self.triggers_on(mapping, relation).iter().any(|trigger| trigger.insert) {
            true => WriteWay::Insert,
            false => WriteWay::Copy,
        }
    }
}

/// Fills in the triggers of tables.
pub(super) async fn triggers(client: &Client, tables: &mut [&mut CatalogTable]) -> Result<(), Error> {
    let oids: Vec<u32> = tables.iter().map(|table| table.oid).collect();
    for row in client.query_typed(TRIGGERS, &[(&oids, Type::OID_ARRAY)]).await? {
        let oid: u32 = row.get("table");
        let of_oid = tables.iter_mut().filter(|table| table.oid == oid);
        of_oid.for_each(|table| table.triggers.push(trigger(&row)));
    }
    Ok(())
}

fn trigger(row: &Row) -> CatalogTrigger {
    CatalogTrigger {
        name: row.get("name"),
        function: row.get("function"),
        body: row.get("body"),
        enabled: row.get::<_, &str>("enabled").chars().next().unwrap_or('O'),
        fires: row.get("fires"),
        columns: row.get("columns"),
        kind: row.get("kind"),
        updates: row.get("updates"),
    }
}

/// `tgtype`, from PostgreSQL's `src/include/catalog/pg_trigger.h`.
const ROW: i16 = 1;
const BEFORE: i16 = 1 << 1;
const INSERT: i16 = 1 << 2;
const DELETE: i16 = 1 << 3;
const UPDATE: i16 = 1 << 4;
const TRUNCATE: i16 = 1 << 5;

/// Of the tables, and of their partitions, which may have triggers of their own, but each once. What can change rows
/// are those that fire before each row, and those that fire afterwards and whose function, by its text, updates the table
/// or one that is not known before it runs. Most of the latter only take notes, and rows need not be read back because of
/// them.
const TRIGGERS: &str = r#"
WITH RECURSIVE below (top, oid) AS (
    SELECT t, t FROM unnest($1) AS t
    UNION SELECT below.top, i.inhrelid FROM below JOIN pg_inherits i ON i.inhparent = below.oid)
SELECT below.top AS table, g.tgname::text AS name, g.tgtype AS kind, g.tgenabled::text AS enabled,
       g.tgenabled = ANY (CASE current_setting('session_replication_role') WHEN 'replica' THEN '{R,A}' ELSE '{O,A}' END::"char"[])
         AS fires,
       ARRAY(SELECT a.attname::text FROM pg_attribute a
             WHERE a.attrelid = g.tgrelid AND a.attnum = ANY (g.tgattr::int2[])) AS columns,
       format('%s.%I', p.pronamespace::regnamespace, p.proname) AS function,
       CASE WHEN l.lanname = 'plpgsql' THEN p.prosrc END AS body,
       bool_or(g.tgtype & 2 = 0 AND (
          p.prosrc ~* ('\m(update|merge\s+into)\s+(only\s+)?("?\w+"?\s*\.\s*)?"?' || regexp_replace(c.relname, '(\W)', '\\\1', 'g') || '("|\M)')
          OR p.prosrc ~* '\mexecute\M.*\m(update|merge\s+into)\s+(only\s+)?(%|''\s*\|\|)')) AS updates
FROM below JOIN pg_trigger g ON g.tgrelid = below.oid JOIN pg_proc p ON p.oid = g.tgfoid
JOIN pg_language l ON l.oid = p.prolang JOIN pg_class c ON c.oid = g.tgrelid
WHERE NOT g.tgisinternal
GROUP BY 1, 2, 3, 4, 5, 6, 7, 8 ORDER BY name"#;
