//! What both peers do: read the feed with as many workers as they have connections, pass over what a hash knows,
//! parse the rest, and hand it to their way of writing, a batch at a time.

use std::collections::HashSet;
use std::path::Path;
use std::sync::{Arc, Mutex};

use tokio::sync::OnceCell;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, NoTls};

use crate::Outcome;
use crate::blocks::{Blocks, cores, lines};
use crate::call::{Call, Hash, hash};
use crate::catalogues::Catalogues;
use crate::recreate::Recreate;
use crate::rows::{Cell, PARENT, RELATIONS, Rows};
use crate::seen::{Record, Seen, record};
use crate::staging::{self, Staging};

/// Bytes of documents that are written at a time: as many as a batch of rowdelta's.
const BATCH_BYTES: usize = 2 << 20;

/// How a peer writes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Way {
    /// Deletes the rows of a document's lists and creates them again.
    Recreate,
    /// Copies all rows into staging tables, and compares by SQL.
    Staging,
}

/// One night of a peer.
struct Night {
    url: String,
    blocks: Blocks,
    /// Read by who needs them first.
    catalogues: OnceCell<Catalogues>,
    seen: Option<Seen>,
    /// Keys of the documents that were parsed, if those that are missing have to go.
    met: Option<Mutex<HashSet<String>>>,
    /// What to remember when what is staged is merged.
    records: Mutex<Vec<Record>>,
}

/// A document that is written.
pub struct Changed<'a> {
    /// Its key.
    pub code: &'a str,
    /// Its rows.
    pub rows: Rows<'a>,
}

/// A line of the feed with its hash.
type Line = (Vec<u8>, Hash);

/// What writes the documents of one worker.
enum Writer {
    Recreate(Box<Recreate>),
    Staging(Staging),
}

/// Runs a night. `by_hash`: documents with a known hash are passed over; `complete`: those that are missing go.
pub async fn run(url: &str, feed: &Path, way: Way, by_hash: bool, complete: bool) -> Outcome<()> {
    let first = connect(url).await?;
    let seen = if by_hash { Some(Seen::load(&first).await?) } else { None };
    let night = Arc::new(Night {
        url: url.to_owned(),
        blocks: Blocks::open(feed)?,
        catalogues: OnceCell::new(),
        seen,
        met: complete.then(Mutex::default),
        records: Mutex::default(),
    });
    let mut first = Some(first);
    let workers: Vec<_> = (0..2 * cores())
        .map(|_| {
            let (night, client) = (night.clone(), first.take());
            tokio::spawn(async move { night.work(client, way).await })
        })
        .collect();
    let (mut clients, mut staged) = (Vec::new(), 0);
    for worker in workers {
        let (client, more) = worker.await??;
        clients.extend(client);
        staged += more;
    }
    if way == Way::Staging && staged > 0 {
        staging::merge(&clients, staged).await?;
    }
    let records = night.records.lock().expect("no panic while it is held").split_off(0);
    if !records.is_empty() {
        record(&clients[0], &records).await?;
    }
    night.remove_gone(&mut clients[0]).await
}

/// A connection to a database.
pub async fn connect(url: &str) -> Outcome<Client> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

impl Night {
    /// What one worker does, over a connection that it makes when it has something to write. Gives that connection,
    /// and how many documents it staged.
    async fn work(&self, mut client: Option<Client>, way: Way) -> Outcome<(Option<Client>, usize)> {
        let mut writer = None;
        let (mut pending, mut bytes, mut staged) = (Vec::new(), 0, 0);
        loop {
            let block = self.blocks.next()?;
            for line in block.as_deref().map(lines).into_iter().flatten() {
                let raw = if self.seen.is_some() { hash(line) } else { Hash::default() };
                if !self.seen.as_ref().is_some_and(|seen| seen.knows_raw(&raw)) {
                    bytes += line.len();
                    pending.push((line.to_vec(), raw));
                }
            }
            if bytes >= BATCH_BYTES || block.is_none() && !pending.is_empty() {
                let client = match &mut client {
                    Some(client) => client,
                    none => none.insert(connect(&self.url).await?),
                };
                staged += self.write(client, way, &mut writer, &std::mem::take(&mut pending)).await?;
                bytes = 0;
            }
            if block.is_none() {
                return Ok((client, staged));
            }
        }
    }

    /// Writes those of the documents that say something new; how many they are.
    async fn write(
        &self,
        client: &Client,
        way: Way,
        writer: &mut Option<Writer>,
        batch: &[Line],
    ) -> Outcome<usize> {
        let (mut calls, mut records, mut renewed) = (Vec::new(), Vec::new(), Vec::new());
        for (line, raw) in batch {
            let call = Call::parse(line)?;
            let code = &*call.codigo.0;
            if let Some(met) = &self.met {
                met.lock().expect("no panic while it is held").insert(code.to_owned());
            }
            let Some(seen) = &self.seen else {
                calls.push(call);
                continue;
            };
            let parsed = call.hash();
            let record = Record { code: code.to_owned(), raw: *raw, parsed };
            if seen.knows_parsed(&parsed) {
                renewed.push(record);
            } else {
                records.push(record);
                calls.push(call);
            }
        }
        if !renewed.is_empty() {
            record(client, &renewed).await?;
        }
        let calls: Vec<&Call<'_>> = calls.iter().collect();
        let changed = self.changed(client, &calls).await?;
        if changed.is_empty() {
            return Ok(0);
        }
        if writer.is_none() {
            *writer = Some(Writer::new(client, way).await?);
        }
        match writer {
            Some(Writer::Recreate(recreate)) => recreate.write(client, &changed, &records).await?,
            Some(Writer::Staging(staging)) => {
                staging.write(client, &changed).await?;
                self.records.lock().expect("no panic while it is held").extend(records);
            }
            None => {}
        }
        Ok(changed.len())
    }

    /// The rows of calls; entries that catalogues lack are inserted first.
    async fn changed<'a>(&self, client: &Client, calls: &'a [&'a Call<'a>]) -> Outcome<Vec<Changed<'a>>> {
        let catalogues = self.catalogues.get_or_try_init(|| Catalogues::load(client)).await?;
        loop {
            let missing = match catalogues.rows(calls) {
                Ok(rows) => {
                    let of = |(call, rows): (&&'a Call<'a>, Rows<'a>)| Changed { code: &call.codigo.0, rows };
                    return Ok(calls.iter().zip(rows).map(of).collect());
                }
                Err(missing) => missing,
            };
            catalogues.insert(client, &missing).await?;
        }
    }

    /// Deletes the documents that the feed did not have, if it is complete.
    async fn remove_gone(&self, client: &mut Client) -> Outcome<()> {
        let Some(met) = &self.met else { return Ok(()) };
        let mut met = std::mem::take(&mut *met.lock().expect("no panic while it is held"));
        met.extend(self.seen.iter().flat_map(Seen::met).map(str::to_owned));
        let (mut ids, mut codes): (Vec<i64>, Vec<String>) = (Vec::new(), Vec::new());
        for row in client.query("SELECT id, codigo_bdns FROM convocatoria", &[]).await? {
            let code: String = row.get(1);
            if !met.contains(&code) {
                ids.push(row.get(0));
                codes.push(code);
            }
        }
        let transaction = client.transaction().await?;
        for relation in &RELATIONS[1..] {
            let sql = format!("DELETE FROM {} WHERE {PARENT} = ANY($1)", relation.table);
            transaction.execute(&sql, &[&ids]).await?;
        }
        transaction.execute("DELETE FROM convocatoria WHERE id = ANY($1)", &[&ids]).await?;
        transaction.execute("DELETE FROM peer.seen WHERE codigo = ANY($1)", &[&codes]).await?;
        Ok(transaction.commit().await?)
    }
}

impl Writer {
    async fn new(client: &Client, way: Way) -> Outcome<Self> {
        Ok(match way {
            Way::Recreate => Writer::Recreate(Box::new(Recreate::prepare(client).await?)),
            Way::Staging => Writer::Staging(Staging::prepare(client).await?),
        })
    }
}

/// Columns of rows, each an array of texts: what `unnest` takes.
pub fn columns<'a>(rows: &[Vec<Option<&'a str>>], count: usize) -> Vec<Vec<Option<&'a str>>> {
    (0..count).map(|at| rows.iter().map(|row| row[at]).collect()).collect()
}

/// Parameters as the driver takes them.
pub fn params<'p, T: ToSql + Sync>(values: &'p [T]) -> Vec<&'p (dyn ToSql + Sync)> {
    values.iter().map(|value| value as &(dyn ToSql + Sync)).collect()
}

/// The cells of a row.
pub fn texts<'a>(row: &'a [Cell<'_>]) -> impl Iterator<Item = Option<&'a str>> {
    row.iter().map(|cell| cell.as_deref())
}
