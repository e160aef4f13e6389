//! What the role must read beside the mapping's columns where rows go along, by foreign keys with `ON DELETE CASCADE`.
//!
//! Such rows are counted before they go (see `postgres/cascade.rs`): by their physical places, from the rows of the
//! mapping that go on to what refers to them, and so on.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Row};

use super::check::{CatalogFault, Mend};
use super::read::CatalogTable;
use crate::error::Error;
use crate::mapping::{Mapping, OnAbsent, Relation, RelationKind, TableName};
use crate::postgres::quote;

/// A relation that may lose rows, and its table.
type Losing<'m> = (&'m Relation, &'m CatalogTable);

/// What the role may not read of a table.
struct Unread<'m> {
    because: Losing<'m>,
    columns: BTreeSet<String>,
    /// Nor anything else of it.
    is_whole: bool,
}

/// The tables of which the role could not count the rows that go.
pub(super) async fn faults(
    client: &Client,
    mapping: &Mapping,
    tables: &HashMap<&TableName, CatalogTable>,
) -> Result<Vec<CatalogFault>, Error> {
    let loses = |relation: &&Relation| {
        relation.kind != RelationKind::Root || mapping.sync.on_absent == OnAbsent::Delete
    };
    let losing = mapping.relations.iter().filter(loses);
    let losing: Vec<Losing<'_>> =
        losing.filter_map(|relation| Some((relation, tables.get(&relation.table)?))).collect();
    let mut reached = Reached::new(&losing);
    reached.search(client).await?;
    // The rows of a child are read with those of its parent, and counted without being looked for.
    let is_child = |key: &Key| {
        losing.iter().any(|(relation, table)| table.oid == key.from && relation.parent == key.columns)
    };
    if reached.keys.iter().all(is_child) {
        return Ok(Vec::new());
    }
    reached.look_at_targets(client).await?;
    // That the role may read nothing at all of a table of the mapping is a fault of its own.
    let is_new = |(name, unread): &(String, Unread<'_>)| {
        !(unread.is_whole && tables.values().any(|table| table.name == *name))
    };
    Ok(reached.unread.into_iter().filter(is_new).map(fault).collect())
}

/// A foreign key that deletes along.
struct Key {
    from: u32,
    columns: Vec<String>,
    target: u32,
    referred: Vec<String>,
}

/// The tables that lose rows with those of the mapping.
struct Reached<'m> {
    /// Because of which relation a table loses some.
    because: BTreeMap<u32, Losing<'m>>,
    keys: Vec<Key>,
    /// By table.
    unread: BTreeMap<String, Unread<'m>>,
}

impl<'m> Reached<'m> {
    fn new(losing: &[Losing<'m>]) -> Self {
        let because = losing.iter().map(|&one| (one.1.oid, one)).collect();
        let mut reached = Reached { because, keys: Vec::new(), unread: BTreeMap::new() };
        for &because in losing {
            let (_, table) = because;
            let hidden = table.hidden.iter().filter(|name| *name != "xmin");
            let is_whole = table.missing_privileges.iter().any(|privilege| privilege == "SELECT");
            reached.add(&table.name, because, hidden.cloned().collect(), is_whole);
        }
        reached
    }

    fn add(&mut self, name: &str, because: Losing<'m>, columns: Vec<String>, is_whole: bool) {
        if !columns.is_empty() {
            let new = || Unread { because, columns: BTreeSet::new(), is_whole };
            self.unread.entry(name.to_owned()).or_insert_with(new).columns.extend(columns);
        }
    }

    /// Follows the foreign keys, table by table: the server would hold one recursive statement for so dear that it
    /// compiles it (JIT), which takes seconds.
    async fn search(&mut self, client: &Client) -> Result<(), Error> {
        let mut level: Vec<u32> = self.because.keys().copied().collect();
        while !level.is_empty() {
            let found = client.query_typed(KEYS, &[(&level, Type::OID_ARRAY)]).await?;
            level.clear();
            for row in &found {
                let key = key(row);
                let because = self.because[&key.target];
                self.add(row.get("name"), because, row.get("unread"), row.get("is_whole"));
                if let Entry::Vacant(new) = self.because.entry(key.from) {
                    new.insert(because);
                    level.push(key.from);
                }
                self.keys.push(key);
            }
        }
        Ok(())
    }

    /// Rows that are referred to are looked for in the very partitions that have them.
    async fn look_at_targets(&mut self, client: &Client) -> Result<(), Error> {
        let needed = self.keys.iter().flat_map(|key| {
            let referred = key.referred.iter().map(String::as_str).chain(["ctid"]);
            referred.map(|name| (key.target, name))
        });
        let (targets, names): (Vec<u32>, Vec<&str>) = needed.unzip();
        let params: &[(&(dyn ToSql + Sync), Type)] =
            &[(&targets, Type::OID_ARRAY), (&names, Type::TEXT_ARRAY)];
        for row in client.query_typed(TARGETS, params).await? {
            let because = self.because[&row.get::<_, u32>("target")];
            self.add(row.get("name"), because, row.get("unread"), row.get("is_whole"));
        }
        Ok(())
    }
}

fn key(row: &Row) -> Key {
    let (from, target) = (row.get("from"), row.get("target"));
    Key { from, columns: row.get("columns"), target, referred: row.get("referred") }
}

fn fault(
    (name, Unread { because: (relation, table), columns, is_whole }): (String, Unread<'_>),
) -> CatalogFault {
    let columns = columns.iter().map(|column| quote(column)).collect::<Vec<_>>().join(", ");
    let grant = if is_whole { format!("SELECT ON {name}") } else { format!("SELECT ({columns}) ON {name}") };
    let message = format!(
        "rows that go along by ON DELETE CASCADE are counted first, and the role may not SELECT {columns} of {name}; \
         GRANT {grant} TO {}",
        table.role
    );
    CatalogFault { place: relation.place(), message, mend: Some(Mend::Grant(grant)) }
}

/// What refers to a table that a partition is of, or to a partition of it, refers to the table.
const KEYS: &str = "
SELECT t.oid AS target, c.oid AS from, format('%s.%I', c.relnamespace::regnamespace, c.relname) AS name, own.columns,
       array(SELECT a.attname::text FROM pg_attribute a WHERE a.attrelid = f.confrelid AND a.attnum = ANY (f.confkey)) AS referred,
       array(SELECT n FROM unnest(own.columns || '{ctid,tableoid}'::text[]) AS n
             WHERE NOT has_column_privilege(c.oid, n, 'SELECT')) AS unread,
       NOT has_any_column_privilege(c.oid, 'SELECT') AS is_whole
FROM unnest($1::oid[]) AS t (oid)
CROSS JOIN LATERAL (SELECT t.oid UNION SELECT relid FROM pg_partition_tree(t.oid)
                    UNION SELECT relid FROM pg_partition_ancestors(t.oid)) AS whole (oid)
JOIN pg_constraint f ON f.contype = 'f' AND f.confdeltype = 'c' AND f.conparentid = 0 AND f.confrelid = whole.oid
JOIN pg_class c ON c.oid = f.conrelid
CROSS JOIN LATERAL (
    SELECT array(SELECT a.attname::text FROM unnest(f.conkey) WITH ORDINALITY AS k (number, place)
                 JOIN pg_attribute a ON a.attrelid = f.conrelid AND a.attnum = k.number ORDER BY k.place) AS columns) AS own
ORDER BY array_position($1::oid[], t.oid), 3";

const TARGETS: &str = "
SELECT t.target, format('%s.%I', c.relnamespace::regnamespace, c.relname) AS name, array_agg(t.name) AS unread,
       NOT has_any_column_privilege(c.oid, 'SELECT') AS is_whole
FROM unnest($1::oid[], $2::text[]) AS t (target, name)
CROSS JOIN LATERAL (SELECT t.target UNION SELECT relid FROM pg_partition_tree(t.target)) AS part (oid)
JOIN pg_class c ON c.oid = part.oid AND c.relkind = 'r'
WHERE NOT has_column_privilege(c.oid, t.name, 'SELECT') GROUP BY t.target, c.oid, 2";
