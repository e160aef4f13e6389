//! Staging tables and set-based SQL: rows are copied into tables without a log, then each table is brought in step by
//! three statements.
//!
//! As well as that can be written: every worker copies on a connection of its own; the tables are there beforehand; ids
//! of catalogue entries are known already; what is staged is ANALYZEd where it is much; and the tables below the root
//! are merged side by side, in transactions of their own. (So a call is not all or nothing here: in one transaction it
//! would be, and slower.)

use bytes::{BufMut as _, BytesMut};
use futures_util::{SinkExt as _, StreamExt as _, TryStreamExt as _, pin_mut, stream};
use tokio_postgres::{Client, Error, Statement};

use crate::Outcome;
use crate::peer::{Changed, texts};
use crate::recreate::prepare;
use crate::rows::{PARENT, RELATIONS, Relation};

/// From so many staged documents on the planner is told what is there.
const ANALYZE_FROM: usize = 500;
/// For the joins of whole tables: they fit in memory, and take less time than it takes to compile them.
const SESSION: &str = "SET work_mem = '256MB'; SET jit = off";
/// For many documents: of a table that was empty when it was last looked at the planner thinks that it still is, and
/// would read all of it for each row.
const MANY: &str = "SET enable_nestloop = off";
/// Bytes that are handed to the connection at a time.
const CHUNK_BYTES: usize = 64 * 1024;

/// The COPY statements of one connection.
pub struct Staging(Vec<Statement>);

/// Makes the staging tables.
pub fn tables_sql() -> String {
    let table = |relation: &Relation| {
        let columns: Vec<String> = relation.columns.iter().map(|(name, ty)| format!("{name} {ty}")).collect();
        format!("CREATE UNLOGGED TABLE {} (codigo text, {})", staging(relation), columns.join(", "))
    };
    RELATIONS.iter().map(table).collect::<Vec<_>>().join(";\n")
}

fn staging(relation: &Relation) -> String {
    format!("peer.{}", relation.table)
}

impl Staging {
    /// Prepares them.
    pub async fn prepare(client: &Client) -> Outcome<Self> {
        let sql = |relation: &Relation| {
            format!("COPY {} (codigo, {}) FROM STDIN", staging(relation), relation.names().join(", "))
        };
        Ok(Self(prepare(client, RELATIONS.iter().map(sql).collect()).await?))
    }

    /// Copies the rows of a batch.
    pub async fn write(&self, client: &Client, batch: &[Changed<'_>]) -> Outcome<()> {
        for (at, statement) in self.0.iter().enumerate() {
            if batch.iter().all(|call| call.rows[at].is_empty()) {
                continue;
            }
            let mut buffer = BytesMut::new();
            let sink = client.copy_in(statement).await?;
            pin_mut!(sink);
            for call in batch {
                for row in &call.rows[at] {
                    put_row(&mut buffer, [Some(call.code)].into_iter().chain(texts(row)));
                }
                if buffer.len() >= CHUNK_BYTES {
                    sink.send(buffer.split().freeze()).await?;
                }
            }
            sink.send(buffer.freeze()).await?;
            sink.finish().await?;
        }
        Ok(())
    }
}

/// A row in the text format of COPY.
fn put_row<'a>(buffer: &mut BytesMut, cells: impl Iterator<Item = Option<&'a str>>) {
    for (at, cell) in cells.enumerate() {
        if at > 0 {
            buffer.put_u8(b'\t');
        }
        let Some(mut rest) = cell.map(str::as_bytes) else {
            buffer.put_slice(b"\\N");
            continue;
        };
        while let Some(at) = rest.iter().position(|byte| matches!(byte, b'\\' | b'\t' | b'\n' | b'\r')) {
            buffer.put_slice(&rest[..at]);
            buffer.put_slice(match rest[at] {
                b'\\' => b"\\\\",
                b'\t' => b"\\t",
                b'\n' => b"\\n",
                _ => b"\\r",
            });
            rest = &rest[at + 1..];
        }
        buffer.put_slice(rest);
    }
    buffer.put_u8(b'\n');
}

/// Brings the tables in step with what is staged, and empties the staging tables.
pub async fn merge(clients: &[Client], staged: usize) -> Outcome<()> {
    let names: Vec<String> = RELATIONS.iter().map(staging).collect();
    if staged >= ANALYZE_FROM {
        clients[0].batch_execute(&format!("ANALYZE {}", names.join(", "))).await?;
    }
    for client in clients {
        client.batch_execute(SESSION).await?;
        if staged >= ANALYZE_FROM {
            client.batch_execute(MANY).await?;
        }
    }
    clients[0].batch_execute(&root_sql()).await?;
    let below = stream::iter(RELATIONS[1..].iter().zip(clients.iter().cycle()));
    let merges = below.map(|(relation, client)| merge_below(client, relation));
    merges.buffer_unordered(clients.len()).try_collect::<()>().await?;
    Ok(clients[0].batch_execute(&format!("TRUNCATE {}", names.join(", "))).await?)
}

async fn merge_below(client: &Client, relation: &Relation) -> Result<(), Error> {
    client.batch_execute(&below_sql(relation)).await
}

fn prefixed(prefix: &str, names: &[&str]) -> String {
    names.iter().map(|name| format!("{prefix}.{name}")).collect::<Vec<_>>().join(", ")
}

fn root_sql() -> String {
    let root = &RELATIONS[0];
    let (table, staged, names) = (root.table, staging(root), root.names());
    let (own, new) = (prefixed("t", &names), prefixed("s", &names));
    format!(
        "UPDATE {table} t SET ({columns}) = ROW({new}) FROM {staged} s
         WHERE t.codigo_bdns = s.codigo AND ({own}) IS DISTINCT FROM ({new});
         INSERT INTO {table} ({columns}) SELECT {new} FROM {staged} s
         WHERE NOT EXISTS (SELECT FROM {table} t WHERE t.codigo_bdns = s.codigo)",
        columns = names.join(", "),
    )
}

fn below_sql(relation: &Relation) -> String {
    let (table, staged, names) = (relation.table, staging(relation), relation.names());
    let (key, roots) = (names[relation.key], staging(&RELATIONS[0]));
    let (columns, own, new) = (names.join(", "), prefixed("t", &names), prefixed("s", &names));
    let parents = format!("{staged} s JOIN convocatoria c ON c.codigo_bdns = s.codigo");
    // A pair has nothing that could be updated, and the same entry under every call.
    let (update, same) = match relation.is_pair {
        true => (String::new(), format!("t.{PARENT} = c.id AND t.{key} = s.{key}")),
        false => (
            format!(
                "UPDATE {table} t SET ({PARENT}, {columns}) = ROW(c.id, {new}) FROM {parents}
                 WHERE t.{key} = s.{key} AND (t.{PARENT}, {own}) IS DISTINCT FROM (c.id, {new});"
            ),
            format!("t.{key} = s.{key}"),
        ),
    };
    format!(
        "{update}
         DELETE FROM {table} t USING convocatoria c, {roots} r
         WHERE t.{PARENT} = c.id AND c.codigo_bdns = r.codigo
           AND NOT EXISTS (SELECT FROM {staged} s WHERE s.codigo = r.codigo AND s.{key} = t.{key});
         INSERT INTO {table} ({PARENT}, {columns}) SELECT c.id, {new} FROM {parents}
         WHERE NOT EXISTS (SELECT FROM {table} t WHERE {same})"
    )
}
