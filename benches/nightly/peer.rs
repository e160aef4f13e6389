//! What both peers do: read the feed with as many workers as they have connections, pass over what a hash knows,
//! parse the rest, and hand it to their way of writing, a batch at a time.

use std::collections::HashSet;
use std::path::Path;
use std::sync::{Arc, Mutex};

use tokio::sync::OnceCell;
use tokio::task::JoinHandle;
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

/// What a peer is.
#[derive(Clone, Copy, Debug)]
pub struct Style {
    /// How it writes.
    pub way: Way,
    /// Whether documents with a known hash are passed over.
    pub by_hash: bool,
    /// Whether each document is a batch of its own.
    pub one_by_one: bool,
}

impl Style {
    /// How many connections it has, each with a worker. Who waits for a commit after each document gains by many.
    fn workers(self) -> usize {
        if self.one_by_one { 4 * cores() } else { 2 * cores() }
    }

    /// Bytes of documents that are written at a time.
    fn batch_bytes(self) -> usize {
        if self.one_by_one { 1 } else { BATCH_BYTES }
    }
}

/// One night of a peer.
struct Night {
    style: Style,
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

/// What a worker has by now.
#[derive(Default)]
struct Worker {
    /// Made when there is something to write.
    client: Option<Client>,
    /// Prepared likewise.
    writer: Option<Writer>,
    /// Documents that it staged.
    staged: usize,
    /// Documents that don't fill a batch.
    rest: Vec<Line>,
}

/// What writes the documents of one worker.
enum Writer {
    Recreate(Box<Recreate>),
    Staging(Staging),
}

/// Runs a night. `complete`: documents that are missing go.
pub async fn run(url: &str, feed: &Path, style: Style, complete: bool) -> Outcome<()> {
    let first = connect(url).await?;
    let seen = if style.by_hash { Some(Seen::load(&first).await?) } else { None };
    let night = Arc::new(Night {
        style,
        url: url.to_owned(),
        blocks: Blocks::open(feed)?,
        catalogues: OnceCell::new(),
        seen,
        met: complete.then(Mutex::default),
        records: Mutex::default(),
    });
    let first = Worker { client: Some(first), ..Worker::default() };
    let workers = [first].into_iter().chain((1..style.workers()).map(|_| Worker::default()));
    let mut workers = joined(workers.map(|worker| tokio::spawn(night.clone().work(worker)))).await?;
    // What is left of each is little, and often all there is: then it is one batch.
    let mut rest = workers.iter_mut().flat_map(|worker| std::mem::take(&mut worker.rest)).collect::<Vec<_>>();
    let bytes: usize = rest.iter().map(|(line, _)| line.len()).sum();
    let size = rest.len().div_ceil(bytes.div_ceil(BATCH_BYTES).clamp(1, workers.len()));
    for worker in &mut workers {
        let kept = rest.split_off(size.min(rest.len()));
        worker.rest = std::mem::replace(&mut rest, kept);
    }
    let workers = workers.into_iter().map(|worker| tokio::spawn(night.clone().finish(worker)));
    let workers = joined(workers).await?;
    let staged = workers.iter().map(|worker| worker.staged).sum();
    let mut clients: Vec<Client> = workers.into_iter().filter_map(|worker| worker.client).collect();
    if style.way == Way::Staging && staged > 0 {
        staging::merge(&clients, staged).await?;
    }
    let records = night.records.lock().expect("no panic while it is held").split_off(0);
    if !records.is_empty() {
        record(&clients[0], &records).await?;
    }
    night.remove_gone(&mut clients[0]).await
}

/// The workers when all of them are done.
async fn joined(tasks: impl Iterator<Item = JoinHandle<Outcome<Worker>>>) -> Outcome<Vec<Worker>> {
    let mut workers = Vec::new();
    // All of them are at work before the first is waited for.
    for task in tasks.collect::<Vec<_>>() {
        workers.push(task.await??);
    }
    Ok(workers)
}

/// A connection to a database.
pub async fn connect(url: &str) -> Outcome<Client> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

impl Night {
    /// What one worker does: all but what does not fill a batch.
    async fn work(self: Arc<Self>, mut worker: Worker) -> Outcome<Worker> {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while let Some(block) = self.blocks.next()? {
            for line in lines(&block) {
                let raw = if self.seen.is_some() { hash(line) } else { Hash::default() };
                if self.seen.as_ref().is_some_and(|seen| seen.knows_raw(&raw)) {
                    continue;
                }
                bytes += line.len();
                batch.push((line.to_vec(), raw));
                if bytes >= self.style.batch_bytes() {
                    self.write(&mut worker, &std::mem::take(&mut batch)).await?;
                    bytes = 0;
                }
            }
        }
        worker.rest = batch;
        Ok(worker)
    }

    /// Writes what is left.
    async fn finish(self: Arc<Self>, mut worker: Worker) -> Outcome<Worker> {
        let rest = std::mem::take(&mut worker.rest);
        if !rest.is_empty() {
            self.write(&mut worker, &rest).await?;
        }
        Ok(worker)
    }

    /// Writes those of the documents that say something new.
    async fn write(&self, worker: &mut Worker, batch: &[Line]) -> Outcome<()> {
        let Worker { client, writer, staged, .. } = worker;
        let client = match client {
            Some(client) => client,
            none => none.insert(connect(&self.url).await?),
        };
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
            return Ok(());
        }
        if writer.is_none() {
            *writer = Some(Writer::new(client, self.style.way).await?);
        }
        match writer {
            Some(Writer::Recreate(recreate)) => recreate.write(client, &changed, &records).await?,
            Some(Writer::Staging(staging)) => {
                staging.write(client, &changed).await?;
                *staged += changed.len();
                self.records.lock().expect("no panic while it is held").extend(records);
            }
            None => {}
        }
        Ok(())
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
pub fn params<T: ToSql + Sync>(values: &[T]) -> Vec<&(dyn ToSql + Sync)> {
    values.iter().map(|value| value as &(dyn ToSql + Sync)).collect()
}

/// The cells of a row.
pub fn texts<'a>(row: &'a [Cell<'_>]) -> impl Iterator<Item = Option<&'a str>> {
    row.iter().map(|cell| cell.as_deref())
}
