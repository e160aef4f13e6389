//! Publications: an UPDATE or DELETE must say which row it is about.

use tokio_postgres::Transaction;

use super::{Exam, Severity, ask};
use crate::error::Error;

pub(super) async fn look(exam: &mut Exam<'_>, transaction: &Transaction<'_>) -> Result<(), Error> {
    for row in ask(transaction, PUBLISHED, &exam.relation_oids()).await? {
        let (oid, name): (u32, String) = (row.get("table"), row.get("name"));
        let (publications, commands): (Vec<String>, String) = (row.get("publications"), row.get("commands"));
        let index: Option<String> = row.get("index");
        let message = format!(
            "{name} is published for {commands} ({}), and nothing tells its rows apart there: the server refuses these",
            publications.join(", ")
        );
        let finding = exam.about(Severity::Error, "replica_identity", oid, message);
        finding.costs("a document of which a row changes or goes fails");
        match index {
            Some(index) => finding.mend(format!("ALTER TABLE {name} REPLICA IDENTITY USING INDEX {index}")),
            None => finding
                .mend(format!("ALTER TABLE {name} REPLICA IDENTITY FULL"))
                .advise("a primary key is better: with FULL the whole old row goes into the write-ahead log"),
        };
    }
    Ok(())
}

/// Partitions count by themselves. `index`: a unique one that may be the identity.
const PUBLISHED: &str = "
SELECT t.oid AS table, quote_ident(n.nspname) || '.' || quote_ident(c.relname) AS name,
       array_agg(quote_ident(p.pubname) ORDER BY p.pubname) AS publications,
       concat_ws(' and ', CASE WHEN bool_or(p.pubupdate) THEN 'UPDATE' END, CASE WHEN bool_or(p.pubdelete) THEN 'DELETE' END) AS commands,
       (SELECT quote_ident(x.relname) FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid
        WHERE i.indrelid = c.oid AND i.indisunique AND i.indimmediate AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL
          AND NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND NOT a.attnotnull
                          AND a.attnum = ANY (i.indkey[0:i.indnkeyatts - 1]))
        ORDER BY i.indnkeyatts, x.relname LIMIT 1) AS index
FROM unnest($1::oid[]) AS t (oid)
CROSS JOIN LATERAL (SELECT t.oid UNION SELECT relid FROM pg_partition_tree(t.oid::regclass)) AS part (oid)
JOIN pg_class c ON c.oid = part.oid AND c.relkind = 'r' JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_publication p ON (p.pubupdate OR p.pubdelete) AND (p.puballtables OR EXISTS (
     SELECT FROM pg_publication_tables pt WHERE pt.pubname = p.pubname AND (pt.schemaname, pt.tablename) IN (
         SELECT an.nspname, ac.relname FROM pg_class ac JOIN pg_namespace an ON an.oid = ac.relnamespace
         WHERE ac.oid = c.oid OR ac.oid IN (SELECT relid FROM pg_partition_ancestors(c.oid::regclass)))))
WHERE c.relreplident = 'n' OR c.relreplident = 'd' AND NOT EXISTS (
        SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary)
   OR c.relreplident = 'i' AND NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisreplident)
GROUP BY t.oid, c.oid, n.nspname, c.relname ORDER BY 1, 2";
