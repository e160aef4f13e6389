//! Triggers that change rows, or suppress their writes.

use tokio_postgres::types::Type;
use tokio_postgres::{Client, Row};

use super::read::CatalogTable;
use crate::error::Error;
use crate::mapping::{Mapping, Relation, RelationKind};
use crate::schema::{Trigger, WriteWay};

/// A trigger as the catalog has it.
pub(super) struct CatalogTrigger {
    trigger: Trigger,
    /// The columns of `UPDATE OF`; none: an UPDATE of any column fires it.
    columns: Vec<String>,
}

impl CatalogTable {
    /// The triggers that fire where the columns of a relation are written.
    pub fn triggers_on(&self, mapping: &Mapping, relation: &Relation) -> Vec<Trigger> {
        let is_written = |name: &str| {
            relation.columns.iter().any(|column| column.name == name)
                || relation.parent.iter().any(|parent| parent == name)
                || relation.kind == RelationKind::Root && mapping.sync.marks().any(|mark| mark == name)
        };
        let fires = |one: &CatalogTrigger| {
            let update = one.columns.is_empty() || one.columns.iter().any(|column| is_written(column));
            let trigger = Trigger { update: one.trigger.update && update, ..one.trigger.clone() };
            (trigger.insert || trigger.update || trigger.delete).then_some(trigger)
        };
        self.triggers.iter().filter_map(fires).collect()
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
    let kind: i16 = row.get("kind");
    let is = |bit: i16| kind & bit != 0;
    let before = is(BEFORE);
    let trigger = Trigger {
        name: row.get("name"),
        before,
        insert: is(INSERT),
        update: is(UPDATE),
        // What is gone no trigger changes afterwards.
        delete: is(DELETE) && before,
    };
    CatalogTrigger { trigger, columns: row.get("columns") }
}

/// `tgtype`, from PostgreSQL's `src/include/catalog/pg_trigger.h`.
const BEFORE: i16 = 1 << 1;
const INSERT: i16 = 1 << 2;
const DELETE: i16 = 1 << 3;
const UPDATE: i16 = 1 << 4;

/// Of the tables, and of their partitions, which may have triggers of their own: those that fire before each row (1 |
/// 2), and those that fire afterwards and whose function, by its text, updates the table or one that is not known before
/// it runs. Most of the latter only take notes, and rows need not be read back because of them.
const TRIGGERS: &str = r#"
WITH RECURSIVE below (top, oid) AS (
    SELECT t, t FROM unnest($1) AS t
    UNION SELECT below.top, i.inhrelid FROM below JOIN pg_inherits i ON i.inhparent = below.oid)
SELECT DISTINCT below.top AS table, g.tgname::text AS name, g.tgtype AS kind,
       ARRAY(SELECT a.attname::text FROM pg_attribute a
             WHERE a.attrelid = g.tgrelid AND a.attnum = ANY (g.tgattr::int2[])) AS columns
FROM below JOIN pg_trigger g ON g.tgrelid = below.oid JOIN pg_proc p ON p.oid = g.tgfoid
JOIN pg_class c ON c.oid = g.tgrelid
WHERE NOT g.tgisinternal
  AND g.tgenabled = ANY (CASE current_setting('session_replication_role') WHEN 'replica' THEN '{R,A}' ELSE '{O,A}' END::"char"[])
  AND (g.tgtype & 3 = 3
       OR g.tgtype & 2 = 0 AND (
          p.prosrc ~* ('\m(update|merge\s+into)\s+(only\s+)?("?\w+"?\s*\.\s*)?"?' || regexp_replace(c.relname, '(\W)', '\\\1', 'g') || '("|\M)')
          OR p.prosrc ~* '\mexecute\M.*\m(update|merge\s+into)\s+(only\s+)?(%|''\s*\|\|)'))
ORDER BY name"#;
