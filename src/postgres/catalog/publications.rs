//! Publications that would have the server refuse updates and deletes.
//!
//! What is published of an update or a delete names the row by the table's replica identity. Where it has none, or where
//! a condition or a list of columns does not agree with it, the server refuses the statement, whatever `wal_level` is.

use std::collections::HashMap;

use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Row};

use super::check::{CatalogFault, Mend};
use super::read::CatalogTable;
use crate::error::Error;
use crate::mapping::{Mapping, TableName};
use crate::postgres::quote;

/// What would be refused, with what mends it.
pub(super) async fn faults(
    client: &Client,
    mapping: &Mapping,
    tables: &HashMap<&TableName, CatalogTable>,
) -> Result<Vec<CatalogFault>, Error> {
    // Mostly there are none; the view over all that is published takes long to plan.
    if !client.query_typed_one(ANY, &[]).await?.get::<_, bool>(0) {
        return Ok(Vec::new());
    }
    let oids: Vec<u32> = tables.values().map(|table| table.oid).collect();
    let published = client.query_typed(PUBLISHED, &[(&oids, Type::OID_ARRAY)]).await?;
    let mut faults = Vec::new();
    for relation in &mapping.relations {
        let Some(table) = tables.get(&relation.table) else { continue };
        let leaves = || published.iter().filter(|row| row.get::<_, u32>("table") == table.oid);
        let mut found: Vec<(String, Option<Mend>)> = leaves().filter_map(without_identity).collect();
        // Whether conditions and lists agree with the identity the server says best itself.
        if found.is_empty() && leaves().next().is_some() {
            let names = relation.columns.iter().map(|column| &column.name).chain(&relation.parent);
            let columns = names.filter_map(|name| table.column(name));
            // An identity may not be updated to what it is.
            let columns = columns.filter(|column| !column.generated && !column.is_identity);
            let names = leaves().map(publications).next().unwrap_or_default();
            let columns = columns.map(|column| &column.name);
            found.extend(refused(client, &table.name, columns, &names).await?);
        }
        let fault = |(message, mend)| CatalogFault { place: relation.place(), message, mend };
        faults.extend(found.into_iter().map(fault));
    }
    Ok(faults)
}

const ANY: &str = "SELECT EXISTS (SELECT FROM pg_publication WHERE pubupdate OR pubdelete)";

/// Tables and leaf partitions of which publications publish updates or deletes, and what identifies their rows.
/// A deferrable primary key identifies none.
const PUBLISHED: &str = "
SELECT leaf.root AS table, leaf.name, leaf.identity, published.names,
       EXISTS (SELECT FROM pg_index i WHERE i.indrelid = leaf.oid AND i.indisvalid AND i.indimmediate
               AND CASE leaf.identity WHEN 'd' THEN i.indisprimary WHEN 'i' THEN i.indisreplident END) AS is_identified,
       EXISTS (SELECT FROM pg_index i WHERE i.indrelid = leaf.oid AND i.indisvalid AND i.indimmediate AND i.indisprimary) AS has_key,
       (SELECT min(quote_ident(x.relname)) FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid
        WHERE i.indrelid = leaf.oid AND i.indisvalid AND i.indimmediate AND i.indisunique AND i.indpred IS NULL
          AND NOT EXISTS (SELECT FROM unnest(i.indkey[0:i.indnkeyatts - 1]) AS k (number)
                          LEFT JOIN pg_attribute a ON a.attrelid = leaf.oid AND a.attnum = k.number
                          WHERE a.attnotnull IS NOT TRUE)) AS index
FROM (SELECT root.oid AS root, c.oid, format('%s.%I', c.relnamespace::regnamespace, c.relname) AS name, c.relreplident::text AS identity
      FROM unnest($1) AS root (oid)
      CROSS JOIN LATERAL (SELECT root.oid UNION SELECT relid FROM pg_partition_tree(root.oid)) AS part (oid)
      JOIN pg_class c ON c.oid = part.oid
      WHERE c.relkind = 'r' AND c.relpersistence = 'p') AS leaf
CROSS JOIN LATERAL (
    SELECT array_agg(quote_ident(p.pubname) ORDER BY p.pubname) AS names FROM pg_publication p
    WHERE (p.pubupdate OR p.pubdelete) AND (p.puballtables OR EXISTS (
        SELECT FROM pg_publication_tables t JOIN pg_class c ON c.relname = t.tablename
        JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname = t.schemaname
        WHERE t.pubname = p.pubname AND (c.oid = leaf.oid OR c.oid IN (SELECT relid FROM pg_partition_ancestors(leaf.oid)))))) AS published
WHERE published.names IS NOT NULL ORDER BY 2";

/// Why a key would be better.
const FULL: &str = "the whole old row goes to the log with every update and delete, and a subscriber may read its whole \
                    table to find it; a primary key costs neither";

/// Those that a table is in, by name.
fn publications(row: &Row) -> String {
    let names: Vec<&str> = row.get("names");
    let publish = if names.len() > 1 { "publications" } else { "publication" };
    format!("{publish} {}", names.join(", "))
}

fn without_identity(row: &Row) -> Option<(String, Option<Mend>)> {
    let (table, identity): (&str, &str) = (row.get("name"), row.get("identity"));
    if identity == "f" || row.get("is_identified") {
        return None;
    }
    let (identity, caution) = match row.get::<_, Option<&str>>("index") {
        _ if row.get("has_key") => ("DEFAULT".to_owned(), None),
        Some(index) => (format!("USING INDEX {index}"), None),
        None => ("FULL".to_owned(), Some(FULL)),
    };
    let mend = format!("ALTER TABLE {table} REPLICA IDENTITY {identity}");
    let message = format!(
        "{table} is in the {} and has no replica identity, so the server refuses to change or delete its rows; {mend}",
        publications(row)
    );
    Some((message, Some(caution.map_or(Mend::AtOnce(mend.clone()), |why| Mend::WithCare(mend, why)))))
}

/// What the server says against updates of these columns and deletes of all rows, planned but not run.
async fn refused(
    client: &Client,
    table: &str,
    columns: impl Iterator<Item = &String>,
    publications: &str,
) -> Result<Option<(String, Option<Mend>)>, Error> {
    let set = columns.map(|name| format!("{0} = {0}", quote(name))).collect::<Vec<_>>().join(", ");
    let update = (!set.is_empty()).then(|| format!("EXPLAIN UPDATE {table} SET {set}"));
    for statement in update.into_iter().chain([format!("EXPLAIN DELETE FROM {table}")]) {
        let Err(error) = client.query_typed(&statement, &[]).await else { continue };
        let detail = error.as_db_error().and_then(|error| error.detail()).unwrap_or_default().to_owned();
        let error = Error::from(error);
        if error.is_transient() {
            return Err(error);
        }
        // Whatever else is wrong, a missing privilege say, is another fault, and named as such.
        let disagree = [SqlState::INVALID_COLUMN_REFERENCE, SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE];
        if error.code().is_some_and(|code| disagree.contains(code)) {
            let mend = format!("ALTER TABLE {table} REPLICA IDENTITY FULL, or change the publication");
            let why = if detail.is_empty() { error.to_string() } else { detail };
            let why = why.trim_end_matches('.');
            let message = format!(
                "{table} is in the {publications}, and the server refuses to change its rows: {why}; {mend}"
            );
            return Ok(Some((message, None)));
        }
    }
    Ok(None)
}
