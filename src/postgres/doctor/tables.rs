//! What the tables are: how large, how written to, how their rows are found again.

use std::collections::BTreeMap;

use serde::Serialize;
use tokio_postgres::{Row, Transaction};

use super::words::{count, rows, size};
use super::{Exam, Severity, ask};
use crate::error::Error;
use crate::mapping::{Missing, Relation, RelationKind, Source, TableName};
use crate::postgres::catalog::SurveyedTable;
use crate::schema::WriteWay;

/// The table of a relation or of a lookup.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TableFacts {
    /// The relation, or the lookup.
    pub relation: String,
    /// Whether it is a lookup.
    pub is_lookup: bool,
    /// The table, quoted, with its schema; as the mapping names it where it is not there.
    pub table: String,
    /// Rows, as the server estimates them; `None`: nobody counted yet.
    pub rows: Option<i64>,
    /// Bytes on disk, without the indexes.
    pub bytes: i64,
    /// Bytes of its indexes.
    pub index_bytes: i64,
    /// How rows are written.
    pub way: Way,
    /// The columns by which a stored row is found again: the primary key; of a lookup the mapped key. Empty: by its
    /// physical place.
    pub found_by: Vec<String>,
}

/// How rows of a table are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Way {
    /// `COPY … (FORMAT binary)` for many new rows, `INSERT` for few.
    Copy,
    /// `INSERT` only: row-level security applies to the role, or a trigger may change rows; or a catalogue's missing rows.
    Insert,
    /// They are only read.
    Read,
    /// The table cannot be written to.
    Refused,
    /// There is no such table.
    Missing,
}

impl std::fmt::Display for Way {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Way::Copy => "COPY",
            Way::Insert => "INSERT",
            Way::Read => "only read",
            Way::Refused => "refused",
            Way::Missing => "not there",
        })
    }
}

/// What the server knows of a table and its partitions.
pub(super) struct Measured {
    pub rows: Option<i64>,
    pub bytes: i64,
    index_bytes: i64,
    updates: i64,
    hot_updates: i64,
    has_fillfactor: bool,
    is_unlogged: bool,
}

/// `3,000 rows, 1.2 MiB`.
impl std::fmt::Display for Measured {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}, {}", rows(self.rows), size(self.bytes))
    }
}

/// Measures tables, with their partitions.
pub(super) async fn measure(
    transaction: &Transaction<'_>,
    oids: &[u32],
) -> Result<BTreeMap<u32, Measured>, Error> {
    let measured = |row: &Row| Measured {
        rows: row.get("rows"),
        bytes: row.get("bytes"),
        index_bytes: row.get("index_bytes"),
        updates: row.get("updates"),
        hot_updates: row.get("hot_updates"),
        has_fillfactor: row.get("has_fillfactor"),
        is_unlogged: row.get("is_unlogged"),
    };
    let found = ask(transaction, MEASURE, oids).await?;
    Ok(found.iter().map(|row| (row.get("oid"), measured(row))).collect())
}

/// An estimate of −1 says that nobody counted; an empty file says that there is nothing to count. Of the statistics only
/// those of these tables are asked for: the view of all tables is made of all of them.
const MEASURE: &str = "
SELECT t.oid, CASE WHEN bool_or(part.rows IS NULL) THEN NULL ELSE sum(part.rows)::bigint END AS rows,
       coalesce(sum(pg_table_size(part.oid)), 0)::bigint AS bytes, coalesce(sum(pg_indexes_size(part.oid)), 0)::bigint AS index_bytes,
       coalesce(sum(part.updates), 0)::bigint AS updates, coalesce(sum(part.hot_updates), 0)::bigint AS hot_updates,
       coalesce(bool_and(part.has_fillfactor), true) AS has_fillfactor, coalesce(bool_or(part.is_unlogged), false) AS is_unlogged
FROM (SELECT DISTINCT unnest($1::oid[])) AS t (oid)
LEFT JOIN LATERAL (
    SELECT c.oid, pg_stat_get_tuples_updated(c.oid) AS updates, pg_stat_get_tuples_hot_updated(c.oid) AS hot_updates, c.relpersistence = 'u' AS is_unlogged,
           EXISTS (SELECT FROM unnest(c.reloptions) o WHERE o LIKE 'fillfactor=%' AND o <> 'fillfactor=100') AS has_fillfactor,
           CASE WHEN pg_relation_size(c.oid) = 0 THEN 0 WHEN c.reltuples >= 0 THEN c.reltuples::bigint
                WHEN pg_stat_get_live_tuples(c.oid) > 0 THEN pg_stat_get_live_tuples(c.oid) END AS rows
    FROM (SELECT t.oid UNION SELECT relid FROM pg_partition_tree(t.oid::regclass)) AS all_parts (oid)
    JOIN pg_class c ON c.oid = all_parts.oid
    WHERE c.relkind = 'r') AS part ON true
GROUP BY t.oid";

/// The table of every relation and lookup; and what about them hurts.
pub(super) async fn facts(
    exam: &mut Exam<'_>,
    transaction: &Transaction<'_>,
) -> Result<Vec<TableFacts>, Error> {
    let measured = measure(transaction, &exam.oids()).await?;
    let relations = exam.mapping.relations.iter().map(|relation| {
        let way = |table: &SurveyedTable| match table.way {
            Some(WriteWay::Copy) => Way::Copy,
            _ => Way::Insert,
        };
        fact(exam, &measured, &relation.name, &relation.table, way, None)
    });
    let lookups = exam.mapping.lookups.iter().map(|lookup| {
        let way = if lookup.missing == Missing::Insert { Way::Insert } else { Way::Read };
        fact(exam, &measured, &lookup.name, &lookup.table, |_| way, Some(&lookup.key))
    });
    let facts = relations.chain(lookups).collect();
    for relation in &exam.mapping.relations {
        converted(exam, relation);
        updated(exam, transaction, relation, &measured).await?;
    }
    unlogged(exam, &measured);
    Ok(facts)
}

fn fact(
    exam: &Exam<'_>,
    measured: &BTreeMap<u32, Measured>,
    relation: &str,
    name: &TableName,
    way: impl FnOnce(&SurveyedTable) -> Way,
    key: Option<&[String]>,
) -> TableFacts {
    let found = exam.table(name);
    let sizes = found.and_then(|table| measured.get(&table.oid));
    TableFacts {
        relation: relation.to_owned(),
        is_lookup: key.is_some(),
        table: found.map_or_else(|| name.to_string(), |table| table.name.clone()),
        rows: sizes.and_then(|sizes| sizes.rows),
        bytes: sizes.map_or(0, |sizes| sizes.bytes),
        index_bytes: sizes.map_or(0, |sizes| sizes.index_bytes),
        way: match found {
            None => Way::Missing,
            Some(table) if table.is_writable => way(table),
            Some(_) => Way::Refused,
        },
        found_by: key.or(found.map(|table| &table.primary_key[..])).unwrap_or_default().to_vec(),
    }
}

/// Columns whose values the server makes of text.
fn converted(exam: &mut Exam<'_>, relation: &Relation) {
    let Some(table) = exam.table(&relation.table) else { return };
    let by_server = relation.columns.iter().filter(|column| matches!(column.source, Source::Path { .. }));
    let by_server = by_server.filter_map(|column| table.column(&column.name));
    let by_server: Vec<_> = by_server.filter(|column| column.is_by_server).collect();
    if by_server.is_empty() {
        return;
    }
    let columns: Vec<String> = by_server.iter().map(|column| column.name.clone()).collect();
    let named: Vec<String> = by_server.iter().map(|c| format!("\"{}\" ({})", c.name, c.sql)).collect();
    let message = format!("values are converted by the server: {}", named.join(", "));
    let finding = exam.about(Severity::Note, "converted", table.oid, message).columns(&columns);
    finding.costs("one more round trip for each batch of documents that has such values");
}

/// Tables whose rows are updated, and where the updates must touch every index.
async fn updated(
    exam: &mut Exam<'_>,
    transaction: &Transaction<'_>,
    relation: &Relation,
    measured: &BTreeMap<u32, Measured>,
) -> Result<(), Error> {
    let Some(oid) = exam.table(&relation.table).filter(|table| table.is_writable).map(|table| table.oid)
    else {
        return Ok(());
    };
    let Some(sizes) = measured.get(&oid) else { return Ok(()) };
    let marks: Vec<String> = match relation.kind {
        RelationKind::Root => exam.mapping.sync.marks().map(str::to_owned).collect(),
        _ => Vec::new(),
    };
    let indexed = indexed_marks(transaction, oid, &marks).await?;
    for (index, column, bytes) in &indexed {
        let message = format!("index {index} has the mark \"{column}\", which changes with every document");
        let finding = exam.about(Severity::Warning, "indexed_mark", oid, message);
        finding.columns(std::slice::from_ref(column)).costs(format!(
            "no such UPDATE is HOT: each writes to every index of the table, {} here alone",
            size(*bytes)
        ));
        finding.advise(format!("DROP INDEX CONCURRENTLY {index}, unless a query needs it"));
    }
    crowded(exam, oid, sizes, &marks, indexed.is_empty());
    Ok(())
}

/// Updates from which on a share of them says something.
const UPDATES_MIN: i64 = 1_000;

/// Full pages have no room for the new version of a row.
fn crowded(exam: &mut Exam<'_>, oid: u32, sizes: &Measured, marks: &[String], can_be_hot: bool) {
    let is_cold = sizes.updates >= UPDATES_MIN && sizes.hot_updates * 2 < sizes.updates;
    let is_marked = !marks.is_empty() && can_be_hot;
    let Some(table) = exam.by_oid(oid).filter(|_| !sizes.has_fillfactor && (is_cold || is_marked)) else {
        return;
    };
    let (name, is_partitioned) = (table.name.clone(), table.is_partitioned());
    let why = match (is_cold, marks.first()) {
        (true, _) => format!("of {} updates {} were HOT", count(sizes.updates), count(sizes.hot_updates)),
        (false, Some(mark)) => format!("each document that changes has its row updated (\"{mark}\")"),
        (false, None) => return,
    };
    let message =
        format!("{why}, and pages are filled to 100 %: a new version of a row finds no room on its page");
    let finding = exam.about(Severity::Note, "fillfactor", oid, message);
    finding.costs("an entry in every index for each update, instead of none");
    if is_partitioned {
        finding.advise(
            "ALTER TABLE … SET (fillfactor = 90) for each partition; it counts for pages written later",
        );
    } else {
        finding.advise("it counts for pages that are written later");
        finding.mend(format!("ALTER TABLE {name} SET (fillfactor = 90)"));
    }
}

/// The indexes that a mark's column is part of, and their bytes.
async fn indexed_marks(
    transaction: &Transaction<'_>,
    oid: u32,
    marks: &[String],
) -> Result<Vec<(String, String, i64)>, Error> {
    if marks.is_empty() {
        return Ok(Vec::new());
    }
    let found = ask(transaction, INDEXED, &[oid]).await?;
    let indexed = found.iter().map(|row| (row.get(0), row.get(1), row.get(2)));
    Ok(indexed.filter(|(_, column, _): &(String, String, i64)| marks.contains(column)).collect())
}

/// Through `pg_depend` also the columns of expressions and conditions.
const INDEXED: &str = "
SELECT DISTINCT quote_ident(n.nspname) || '.' || quote_ident(x.relname), a.attname::text, pg_relation_size(x.oid)
FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid JOIN pg_namespace n ON n.oid = x.relnamespace
JOIN pg_am m ON m.oid = x.relam
JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum > 0 AND (a.attnum = ANY (i.indkey::int2[])
  OR EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = x.oid
             AND d.refclassid = 'pg_class'::regclass AND d.refobjid = i.indrelid AND d.refobjsubid = a.attnum))
WHERE i.indrelid = ANY ($1) AND m.amname <> 'brin' ORDER BY 1, 2";

fn unlogged(exam: &mut Exam<'_>, measured: &BTreeMap<u32, Measured>) {
    for oid in measured.iter().filter(|(_, sizes)| sizes.is_unlogged).map(|(&oid, _)| oid) {
        let Some(table) = exam.by_oid(oid) else { continue };
        let (name, is_partitioned) = (table.name.clone(), table.is_partitioned());
        let finding =
            exam.about(Severity::Warning, "unlogged", oid, "the table is unlogged: empty after a crash");
        finding.costs("the next run compares every document and writes the rows again; columns that others fill are lost");
        if is_partitioned {
            finding.advise("ALTER TABLE … SET LOGGED for each partition");
        } else {
            let caution = "it writes the whole table anew, and nobody reads or writes it meanwhile";
            finding.mend_with_care(format!("ALTER TABLE {name} SET LOGGED"), caution);
        }
    }
}
