//! What else goes when rows go, because foreign keys delete along: `ON DELETE CASCADE`, in any table.
//!
//! The rows are looked for before they are deleted, level by level from the rows about to go, in tables that
//! nobody maps as well. Each is counted once, however many paths lead to it.

use std::collections::{BTreeMap, HashMap, HashSet};

use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{GenericClient, Transaction};

use crate::error::{Error, ErrorKind};
use crate::mapping::RelationIx;
use crate::plan::Sides;
use crate::postgres::fetch::matching;
use crate::postgres::quote;
use crate::postgres::wire::typed;
use crate::row::Tuple;
use crate::schema::{Schema, Table};

/// Rows by table: the oid of the table that has them (a partition, say), and their places in it.
type Places = HashMap<u32, HashSet<String>>;

/// A foreign key that deletes along.
#[derive(Clone)]
struct Cascade {
    /// The referring table, quoted, with its schema.
    table: String,
    from: Vec<String>,
    to: Vec<String>,
    readable: bool,
    /// Whose privileges these are, quoted.
    role: String,
}

/// The relations whose rows may take others along that nobody reads: not by the reference of a child to its parent.
pub(crate) async fn cascading(
    client: &impl GenericClient,
    schema: &Schema,
) -> Result<HashSet<RelationIx>, Error> {
    let names: Vec<&str> = schema.tables.iter().map(|table| table.name.as_str()).collect();
    let mut cascading = HashSet::new();
    for row in client.query_typed(CASCADING, &[(&names, Type::TEXT_ARRAY)]).await? {
        let (place, table, from): (i64, String, Vec<String>) = (row.get(0), row.get(1), row.get(2));
        let is_child = |child: &Table| {
            child.name == table && child.parent.iter().map(|column| &column.name).eq(from.iter())
        };
        if !schema.tables.iter().any(is_child) {
            cascading.insert(place as RelationIx);
        }
    }
    Ok(cascading)
}

/// Counts the rows that cascades would take beside those that are about to go, per table (quoted, with its schema).
///
/// # Errors
/// A table that would lose rows cannot be read: nobody can say how many.
pub(crate) async fn count(
    transaction: &Transaction<'_>,
    schema: &Schema,
    cascading: &HashSet<RelationIx>,
    sides: &[Sides],
) -> Result<BTreeMap<String, u64>, Error> {
    let (going, mut counts) = (going(schema, sides), BTreeMap::new());
    if !going.keys().any(|ix| cascading.contains(ix)) {
        return Ok(counts);
    }
    let mut search = Search { transaction, seen: Places::new(), cascades: HashMap::new() };
    let mut level = Places::new();
    for (ix, locators) in going {
        let table = &schema.tables[ix];
        for (condition, params) in matching("t", &table.locator[..table.own_locator], &locators) {
            let sql = format!("SELECT t.tableoid, t.ctid::text FROM {} t{condition}", table.name);
            search.find(&sql, &typed(&params), &mut level).await?;
        }
    }
    while !level.is_empty() {
        level = search.next(level, &mut counts).await?;
    }
    Ok(counts)
}

/// The locators of the rows about to go.
fn going(schema: &Schema, sides: &[Sides]) -> BTreeMap<RelationIx, Vec<Tuple>> {
    let removed = sides.iter().enumerate().filter(|(_, side)| !side.changes.removed.is_empty());
    let locators = removed.map(|(ix, side)| {
        let own: Vec<usize> = (0..schema.tables[ix].own_locator).collect();
        let locator = |&row: &u32| side.stored[row as usize].locator.project(&own);
        (ix, side.changes.removed.iter().map(locator).collect())
    });
    locators.collect()
}

struct Search<'t> {
    transaction: &'t Transaction<'t>,
    /// All rows found so far.
    seen: Places,
    /// Per table, the foreign keys that delete along with its rows.
    cascades: HashMap<u32, Vec<Cascade>>,
}

impl Search<'_> {
    /// Finds the rows that go along with these.
    async fn next(&mut self, level: Places, counts: &mut BTreeMap<String, u64>) -> Result<Places, Error> {
        let oids: Vec<u32> = level.keys().copied().collect();
        self.look_up(&oids).await?;
        let mut next = Places::new();
        for (oid, places) in level {
            let places: Vec<String> = places.into_iter().collect();
            for cascade in self.cascades.get(&oid).cloned().unwrap_or_default() {
                cascade.check()?;
                let sql = cascade.sql(&self.name(oid).await?);
                let found = self.find(&sql, &[(&places, Type::TEXT_ARRAY)], &mut next).await?;
                if found > 0 {
                    *counts.entry(cascade.table).or_default() += found;
                }
            }
        }
        Ok(next)
    }

    /// Adds rows not seen before to a level. Gives how many.
    async fn find(
        &mut self,
        sql: &str,
        params: &[(&(dyn ToSql + Sync), Type)],
        level: &mut Places,
    ) -> Result<u64, Error> {
        let mut new = 0;
        for row in self.transaction.query_typed(sql, params).await? {
            let (oid, place): (u32, String) = (row.get(0), row.get(1));
            if self.seen.entry(oid).or_default().insert(place.clone()) {
                level.entry(oid).or_default().insert(place);
                new += 1;
            }
        }
        Ok(new)
    }

    async fn name(&self, oid: u32) -> Result<String, Error> {
        let sql = "SELECT format('%s.%I', relnamespace::regnamespace, relname) FROM pg_class WHERE oid = $1";
        Ok(self.transaction.query_typed_one(sql, &[(&oid, Type::OID)]).await?.get(0))
    }

    /// Learns which foreign keys delete along with rows of these tables.
    async fn look_up(&mut self, oids: &[u32]) -> Result<(), Error> {
        let unknown: Vec<u32> = oids.iter().copied().filter(|oid| !self.cascades.contains_key(oid)).collect();
        if unknown.is_empty() {
            return Ok(());
        }
        let rows = self.transaction.query_typed(CASCADES, &[(&unknown, Type::OID_ARRAY)]).await?;
        self.cascades.extend(unknown.into_iter().map(|oid| (oid, Vec::new())));
        for row in rows {
            let cascade = Cascade {
                table: row.get(1),
                from: row.get(2),
                to: row.get(3),
                readable: row.get(4),
                role: row.get(5),
            };
            self.cascades.entry(row.get(0)).or_default().push(cascade);
        }
        Ok(())
    }
}

impl Cascade {
    fn check(&self) -> Result<(), Error> {
        if self.readable {
            return Ok(());
        }
        let message = format!(
            "rows of {0} would go along by ON DELETE CASCADE, and the role may not count them; GRANT SELECT ON {0} TO {1}",
            self.table, self.role
        );
        Err(Error::new(ErrorKind::Rejected, message))
    }

    /// The rows that refer to rows of a table, which are given by their places.
    fn sql(&self, target: &str) -> String {
        let pairs = self.from.iter().zip(&self.to);
        let equal = pairs.map(|(from, to)| format!("c.{} = p.{}", quote(from), quote(to)));
        format!(
            "SELECT c.tableoid, c.ctid::text FROM ONLY {target} p JOIN {} c ON {} WHERE p.ctid = ANY ($1::tid[])",
            self.table,
            equal.collect::<Vec<_>>().join(" AND ")
        )
    }
}

/// The foreign keys that delete along with rows of tables, or of partitions of them, by the place of the table.
const CASCADING: &str = "
SELECT n.place - 1, format('%s.%I', c.relnamespace::regnamespace, c.relname),
       array(SELECT a.attname::text FROM unnest(f.conkey) WITH ORDINALITY AS k (number, place)
             JOIN pg_attribute a ON a.attrelid = f.conrelid AND a.attnum = k.number ORDER BY k.place)
FROM unnest($1::text[]) WITH ORDINALITY AS n (name, place)
CROSS JOIN LATERAL (SELECT n.name::regclass::oid AS oid UNION SELECT relid FROM pg_partition_tree(n.name::regclass)
                    UNION SELECT relid FROM pg_partition_ancestors(n.name::regclass)) t
JOIN pg_constraint f ON f.contype = 'f' AND f.confdeltype = 'c' AND f.conparentid = 0 AND f.confrelid = t.oid
JOIN pg_class c ON c.oid = f.conrelid";

/// What refers to a partition refers to the table it is of; what is repeated for each partition is left out.
const CASCADES: &str = "
SELECT t.oid, format('%s.%I', c.relnamespace::regnamespace, c.relname),
       array(SELECT a.attname::text FROM unnest(f.conkey) WITH ORDINALITY AS k (number, place)
             JOIN pg_attribute a ON a.attrelid = f.conrelid AND a.attnum = k.number ORDER BY k.place),
       array(SELECT a.attname::text FROM unnest(f.confkey) WITH ORDINALITY AS k (number, place)
             JOIN pg_attribute a ON a.attrelid = f.confrelid AND a.attnum = k.number ORDER BY k.place),
       (SELECT bool_and(has_column_privilege(c.oid, n, 'SELECT')) FROM unnest('{ctid,tableoid}'::text[] || array(
            SELECT a.attname::text FROM pg_attribute a WHERE a.attrelid = f.conrelid AND a.attnum = ANY (f.conkey))) AS n),
       quote_ident(current_user)
FROM unnest($1::oid[]) AS t (oid)
CROSS JOIN LATERAL (SELECT t.oid UNION SELECT relid FROM pg_partition_ancestors(t.oid)) AS whole (oid)
JOIN pg_constraint f ON f.contype = 'f' AND f.confdeltype = 'c' AND f.conparentid = 0 AND f.confrelid = whole.oid
JOIN pg_class c ON c.oid = f.conrelid
ORDER BY 1, 2, f.conname";
