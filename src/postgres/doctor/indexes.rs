//! Look-ups that no index serves, and indexes that serve none.

use std::collections::{BTreeMap, BTreeSet};

use tokio_postgres::{Row, Transaction};

use super::tables::{Measured, measure};
use super::words::{count, create_index, index_caution, list, size};
use super::{Exam, Severity, ask};
use crate::error::Error;

/// An index as the catalog has it.
struct Index {
    oid: u32,
    table: u32,
    /// Quoted, with its schema.
    name: String,
    /// The columns of its key; `None` for an expression.
    columns: Vec<Option<String>>,
    /// The columns of `INCLUDE`.
    included: Vec<String>,
    /// Operator class, collation and options of each, as text.
    layout: Vec<String>,
    is_valid: bool,
    building: Building,
    is_partial: bool,
    is_unique: bool,
    /// Whether something needs it besides queries: a constraint, the replica identity, CLUSTER, a partitioned index.
    is_needed: bool,
    is_partitioned: bool,
    method: String,
    bytes: i64,
    scans: i64,
}

/// Whether a statement makes an index just now. What other roles' statements do the server does not tell, but which locks
/// they hold.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Building {
    No,
    Yes,
    /// A session has locked its table as `CREATE INDEX CONCURRENTLY` does, and `VACUUM`.
    Perhaps(i32),
}

impl Index {
    /// Whether it finds rows by their values in these columns.
    fn serves(&self, columns: &[String]) -> bool {
        let front: Option<BTreeSet<&String>> =
            self.columns.iter().take(columns.len()).map(Option::as_ref).collect();
        let is_whole = self.method == "btree" || self.method == "hash" && columns.len() == 1;
        self.is_valid && !self.is_partial && is_whole && front == Some(columns.iter().collect())
    }

    /// Whether another one answers all that it answers.
    fn is_covered_by(&self, other: &Index) -> bool {
        let is_plain = |index: &Index| {
            index.is_valid
                && !index.is_partial
                && index.method == "btree"
                && index.columns.iter().all(Option::is_some)
        };
        let length = |index: &Index| index.columns.len() + index.included.len();
        let is_longer =
            length(other) > length(self) || other.is_unique || other.is_needed || other.oid < self.oid;
        let has = |name: &String| {
            other.included.contains(name) || other.columns.iter().any(|column| column.as_ref() == Some(name))
        };
        is_plain(self)
            && is_plain(other)
            && self.table == other.table
            && self.oid != other.oid
            && other.columns.starts_with(&self.columns)
            && other.layout.starts_with(&self.layout)
            && self.included.iter().all(has)
            && is_longer
    }
}

/// A foreign key that points at a table of a relation.
struct Pointer {
    name: String,
    from: u32,
    /// Quoted, with its schema.
    from_name: String,
    is_partitioned: bool,
    to: u32,
    columns: Vec<String>,
}

pub(super) async fn look(exam: &mut Exam<'_>, transaction: &Transaction<'_>) -> Result<(), Error> {
    let pointers = ask(transaction, POINTERS, &exam.relation_oids()).await?;
    let pointers: Vec<Pointer> = pointers.iter().map(pointer).collect();
    let mut oids = exam.oids();
    oids.extend(pointers.iter().map(|pointer| pointer.from));
    let indexes = ask(transaction, INDEXES, &oids).await?;
    let indexes: Vec<Index> = indexes.iter().map(index).collect();
    let sizes = measure(transaction, &oids).await?;
    parents(exam, &indexes, &sizes);
    for pointer in &pointers {
        unserved(exam, pointer, &indexes, &sizes);
    }
    for index in &indexes {
        if exam.by_oid(index.table).is_some() {
            broken(exam, index);
            redundant(exam, index, &indexes);
        }
    }
    Ok(())
}

/// The rows of a document are asked for by what they refer to.
fn parents(exam: &mut Exam<'_>, indexes: &[Index], sizes: &BTreeMap<u32, Measured>) {
    for relation in exam.mapping.relations.iter().filter(|relation| !relation.parent.is_empty()) {
        let Some(table) = exam.table(&relation.table).filter(|table| table.is_writable) else { continue };
        let there = relation.parent.iter().all(|name| table.column(name).is_some());
        if !there || serves(indexes, table.oid, &relation.parent) {
            continue;
        }
        let oid = table.oid;
        let statement = create_index(&table.name, table.is_partitioned(), false, &relation.parent);
        let caution = index_caution(table);
        let message = format!("no B-tree or hash index begins with the parent {}", list(&relation.parent));
        let finding = exam.about(Severity::Warning, "missing_index", oid, message).columns(&relation.parent);
        finding.costs(format!("each batch that looks at these lists reads the whole table: {}", sizes[&oid]));
        finding.mend_or_think(statement, caution);
    }
}

fn serves(indexes: &[Index], table: u32, columns: &[String]) -> bool {
    indexes.iter().any(|index| index.table == table && index.serves(columns))
}

/// A row that goes, or whose key changes, is looked for in every table that could refer to it.
fn unserved(exam: &mut Exam<'_>, pointer: &Pointer, indexes: &[Index], sizes: &BTreeMap<u32, Measured>) {
    let is_parent = exam
        .relations()
        .any(|(relation, table)| table.oid == pointer.from && relation.parent == pointer.columns);
    if is_parent || serves(indexes, pointer.from, &pointer.columns) {
        return;
    }
    let message = format!(
        "no B-tree or hash index of {} begins with {}, which refers to this table ({})",
        pointer.from_name,
        list(&pointer.columns),
        pointer.name
    );
    let statement = create_index(&pointer.from_name, pointer.is_partitioned, false, &pointer.columns);
    let caution = pointer.is_partitioned.then_some("a partitioned table cannot have it made CONCURRENTLY");
    let finding = exam.about(Severity::Warning, "missing_index", pointer.to, message);
    finding.costs(format!(
        "each row that goes from this table has all of that one read: {}",
        sizes[&pointer.from]
    ));
    finding.mend_or_think(statement, caution);
}

/// An index that every write maintains and no query uses.
fn broken(exam: &mut Exam<'_>, index: &Index) {
    if index.is_valid {
        return;
    }
    let name = &index.name;
    let building = match index.building {
        Building::No => None,
        Building::Yes => Some(format!("index {name} is being made just now")),
        Building::Perhaps(pid) => Some(format!(
            "index {name} is not valid; backend {pid} holds a lock on the table as one does that makes an index \
             CONCURRENTLY: it is being made, or the table vacuumed"
        )),
    };
    if let Some(message) = building {
        exam.about(Severity::Note, "building_index", index.table, message)
            .costs("a run beside it is slower, and CONCURRENTLY waits for the run's transactions")
            .advise("run doctor again when it is done");
        return;
    }
    if index.is_partitioned {
        let message = format!("index {name} is not valid: not every partition has its part of it");
        exam.about(Severity::Warning, "invalid_index", index.table, message)
            .advise("CREATE INDEX on each partition, then ALTER INDEX … ATTACH PARTITION");
        return;
    }
    let message = format!("index {name} is not valid: a CREATE INDEX CONCURRENTLY did not come to its end");
    let finding = exam.about(Severity::Warning, "invalid_index", index.table, message);
    finding.costs(format!("every write maintains it ({}), and no query uses it", size(index.bytes)));
    match (is_leftover(name), index.is_unique) {
        (true, _) => finding.mend(format!("DROP INDEX CONCURRENTLY {name}")),
        (false, false) => finding.mend(format!("REINDEX INDEX CONCURRENTLY {name}")),
        (false, true) => finding.mend_with_care(
            format!("REINDEX INDEX CONCURRENTLY {name}"),
            "it fails while rows are there that the index forbids; DROP INDEX CONCURRENTLY takes it away",
        ),
    };
}

/// `REINDEX CONCURRENTLY` names what it makes, and what it replaces, after the index.
fn is_leftover(name: &str) -> bool {
    let name = name.trim_end_matches('"').trim_end_matches(|c: char| c.is_ascii_digit());
    name.ends_with("_ccnew") || name.ends_with("_ccold")
}

fn redundant(exam: &mut Exam<'_>, index: &Index, indexes: &[Index]) {
    if index.is_unique || index.is_needed {
        return;
    }
    let Some(other) = indexes.iter().find(|other| index.is_covered_by(other)) else { return };
    let message = format!("index {} answers nothing that {} does not", index.name, other.name);
    let finding = exam.about(Severity::Note, "redundant_index", index.table, message);
    finding.costs(format!(
        "{}, and one more entry for each row; {} since statistics began",
        size(index.bytes),
        match index.scans {
            1 => "1 scan".to_owned(),
            scans => format!("{} scans", count(scans)),
        }
    ));
    finding.mend_with_care(
        format!("DROP INDEX CONCURRENTLY {}", index.name),
        "a shorter index is also a smaller one; look at what is asked of it first",
    );
}

fn index(row: &Row) -> Index {
    Index {
        oid: row.get("oid"),
        table: row.get("table"),
        name: row.get("name"),
        columns: row.get("columns"),
        included: row.get("included"),
        layout: row.get("layout"),
        is_valid: row.get("valid"),
        building: match (row.get("building"), row.get("builder")) {
            (true, _) => Building::Yes,
            (false, Some(pid)) => Building::Perhaps(pid),
            (false, None) => Building::No,
        },
        is_partial: row.get("partial"),
        is_unique: row.get("unique"),
        is_needed: row.get("needed"),
        is_partitioned: row.get("partitioned"),
        method: row.get("method"),
        bytes: row.get("bytes"),
        scans: row.get("scans"),
    }
}

const INDEXES: &str = "
SELECT i.indexrelid AS oid, i.indrelid AS table, quote_ident(n.nspname) || '.' || quote_ident(x.relname) AS name,
       array(SELECT a.attname::text FROM unnest(i.indkey::int2[]) WITH ORDINALITY AS k (attnum, place)
             LEFT JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum AND k.attnum > 0
             WHERE k.place <= i.indnkeyatts ORDER BY k.place) AS columns,
       array(SELECT a.attname::text FROM unnest(i.indkey::int2[]) WITH ORDINALITY AS k (attnum, place)
             JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
             WHERE k.place > i.indnkeyatts ORDER BY k.place) AS included,
       array(SELECT format('%s %s %s', i.indclass[g], i.indcollation[g], i.indoption[g])
             FROM generate_series(0, i.indnkeyatts - 1) AS g ORDER BY g) AS layout,
       i.indisvalid AND i.indisready AND i.indislive AS valid, i.indpred IS NOT NULL AS partial, i.indisunique AS unique,
       EXISTS (SELECT FROM pg_stat_progress_create_index p WHERE p.index_relid = i.indexrelid) AS building,
       CASE WHEN NOT i.indisvalid THEN (
           SELECT min(l.pid) FROM pg_locks l JOIN pg_database d ON d.oid = l.database AND d.datname = current_database()
           WHERE l.relation = i.indrelid AND l.mode = 'ShareUpdateExclusiveLock' AND l.granted) END AS builder,
       i.indisreplident OR i.indisclustered OR i.indisexclusion OR x.relkind = 'I' OR x.relispartition
         OR EXISTS (SELECT FROM pg_constraint c WHERE c.conindid = i.indexrelid) AS needed,
       x.relkind = 'I' AS partitioned, m.amname::text AS method, pg_relation_size(x.oid) AS bytes,
       pg_stat_get_numscans(x.oid) AS scans
FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid JOIN pg_namespace n ON n.oid = x.relnamespace
JOIN pg_am m ON m.oid = x.relam
WHERE i.indrelid = ANY ($1) ORDER BY 2, 3";

fn pointer(row: &Row) -> Pointer {
    Pointer {
        name: row.get("name"),
        from: row.get("from"),
        from_name: row.get("from_name"),
        is_partitioned: row.get("partitioned"),
        to: row.get("to"),
        columns: row.get("columns"),
    }
}

/// A foreign key of a table without rows costs nothing by now; it will.
const POINTERS: &str = "
SELECT f.conname::text AS name, f.conrelid AS from, quote_ident(n.nspname) || '.' || quote_ident(c.relname) AS from_name,
       c.relkind = 'p' AS partitioned, f.confrelid AS to,
       array(SELECT a.attname::text FROM unnest(f.conkey) WITH ORDINALITY AS k (number, place)
             JOIN pg_attribute a ON a.attrelid = f.conrelid AND a.attnum = k.number ORDER BY k.place) AS columns
FROM pg_constraint f JOIN pg_class c ON c.oid = f.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE f.contype = 'f' AND f.conparentid = 0 AND f.confrelid = ANY ($1) ORDER BY 3, 1";

#[cfg(test)]
mod tests {
    use super::is_leftover;

    #[test]
    fn what_a_reindex_left_is_told_by_its_name() {
        for name in ["public.t_k_idx_ccnew", "public.t_k_idx_ccold2", "\"S\".\"T_k_idx_ccnew1\""] {
            assert!(is_leftover(name), "{name}");
        }
        assert!(!is_leftover("public.t_k_idx1"));
    }
}
