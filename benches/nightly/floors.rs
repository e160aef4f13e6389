//! What cannot be done without, as programs of their own: reading and hashing the feed; parsing, shredding and
//! fingerprinting it; and one COPY of rows that are ready. The first two on as many threads as there are cores.

use std::path::Path;

use bytes::Bytes;
use futures_util::{SinkExt as _, pin_mut};
use rowdelta::fingerprint::fingerprints;
use rowdelta::json::Json;
use rowdelta::mapping::Mapping;
use rowdelta::postgres::catalog;
use rowdelta::row::{Cell, RowSet, Tuple};
use rowdelta::schema::Schema;
use rowdelta::shred::{Answers, Shredded, shred};

use crate::blocks::{Blocks, cores, lines};
use crate::measure::Setup;
use crate::peer::connect;
use crate::{MAPPING, Outcome};

/// Bytes that are handed to the connection at a time.
const CHUNK_BYTES: usize = 64 * 1024;
const COPY_HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
const COPY_END: &[u8] = b"\xff\xff";

/// Reads a feed and hashes its lines.
pub fn hash_lines(feed: &Path) -> Outcome<()> {
    each_line(feed, |line| u64::from(blake3::hash(line).as_bytes()[0])).map(drop)
}

/// Calls a function for each line, on all cores; the sum of what it gave.
fn each_line(feed: &Path, of_line: impl Fn(&[u8]) -> u64 + Sync) -> Outcome<u64> {
    let blocks = Blocks::open(feed)?;
    let work = || -> std::io::Result<u64> {
        let mut sum = 0u64;
        while let Some(block) = blocks.next()? {
            sum = lines(&block).map(&of_line).fold(sum, u64::wrapping_add);
        }
        Ok(std::hint::black_box(sum))
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..cores()).map(|_| scope.spawn(work)).collect();
        let joined = threads.into_iter().map(|thread| thread.join().expect("the thread does not panic"));
        Ok(joined.sum::<std::io::Result<u64>>()?)
    })
}

/// What shredding needs to know of the database.
struct Known {
    mapping: Mapping,
    schema: Schema,
    answers: Answers,
}

impl Known {
    async fn load(url: &str) -> Outcome<Self> {
        let client = connect(url).await?;
        let mapping = Mapping::from_toml(MAPPING)?;
        let schema = catalog::read(&client, &mapping).await?;
        let mut answers = Answers::default();
        for lookup in &mapping.lookups {
            let sql = format!("SELECT {}, {} FROM {}", lookup.id, lookup.key.join(", "), lookup.table);
            let row = |row: tokio_postgres::Row| {
                let key = (1..row.len()).map(|at| Cell::Value(row.get::<_, &str>(at).as_bytes()));
                (Tuple::of(key), Some(row.get::<_, i64>(0).to_be_bytes().to_vec()))
            };
            answers.lookups.push(client.query(&sql, &[]).await?.into_iter().map(row).collect());
        }
        Ok(Self { mapping, schema, answers })
    }

    fn rows(&self, line: &[u8]) -> RowSet {
        let json = Json::parse(line).expect("a generated call is JSON");
        match shred(&self.mapping, &self.schema, &self.answers, &json).expect("a generated call fits") {
            Shredded::Rows(rows) => rows,
            Shredded::Asks(questions) => panic!("not known: {questions:?}"),
        }
    }
}

/// Parses, shreds and fingerprints a feed whose catalogue entries are all known; learning them is set-up.
pub fn shred_lines(runtime: &tokio::runtime::Runtime, url: &str, feed: &Path, setup: Setup) -> Outcome<()> {
    let known = runtime.block_on(Known::load(url))?;
    setup.done();
    let of_line = |line: &[u8]| {
        let rows = known.rows(line);
        u64::from(fingerprints(&known.mapping, &known.schema, &rows).document.0[0])
    };
    each_line(feed, of_line).map(drop)
}

/// The stream of one COPY.
struct Stream {
    sql: String,
    bytes: Vec<u8>,
}

impl Stream {
    fn new(table: &str, columns: &[String]) -> Self {
        let sql = format!("COPY {table} ({}) FROM STDIN (FORMAT binary)", columns.join(", "));
        Self { sql, bytes: COPY_HEADER.to_vec() }
    }

    /// Appends a row: ids, then cells as they are encoded.
    fn push(&mut self, ids: &[i64], cells: &[u8], count: usize) {
        self.bytes.extend_from_slice(&((ids.len() + count) as i16).to_be_bytes());
        for id in ids {
            self.bytes.extend_from_slice(&8i32.to_be_bytes());
            self.bytes.extend_from_slice(&id.to_be_bytes());
        }
        self.bytes.extend_from_slice(cells);
    }
}

/// Copies the rows of a feed into empty tables over one connection, in one transaction. Making the rows, ids
/// included, is set-up.
pub async fn copy(url: &str, feed: &Path, setup: Setup) -> Outcome<()> {
    let streams = flatten(url, feed).await?;
    let mut client = connect(url).await?;
    setup.done();
    let transaction = client.transaction().await?;
    for stream in streams {
        let sink = transaction.copy_in(&stream.sql).await?;
        pin_mut!(sink);
        let mut rest = Bytes::from(stream.bytes);
        while !rest.is_empty() {
            sink.send(rest.split_to(rest.len().min(CHUNK_BYTES))).await?;
        }
        sink.finish().await?;
    }
    Ok(transaction.commit().await?)
}

/// The COPY streams of all tables, catalogues first.
async fn flatten(url: &str, feed: &Path) -> Outcome<Vec<Stream>> {
    let mut known = Known::load(url).await?;
    let mut streams = catalogues(&mut known, feed)?;
    let mapping = &known.mapping;
    let (first, mut next_id) = (streams.len(), vec![0i64; mapping.relations.len()]);
    for relation in &mapping.relations {
        let ids = relation.id.iter().chain(&relation.parent);
        let columns = ids.cloned().chain(relation.columns.iter().map(|column| column.name.clone()));
        streams.push(Stream::new(&relation.table.to_string(), &columns.collect::<Vec<_>>()));
    }
    let blocks = Blocks::open(feed)?;
    while let Some(block) = blocks.next()? {
        for line in lines(&block) {
            next_id[0] += 1;
            let root = next_id[0];
            for (ix, rows) in known.rows(line).relations.iter().enumerate() {
                let relation = &mapping.relations[ix];
                for row in &rows.rows {
                    let mut ids = Vec::new();
                    if ix == 0 {
                        ids.push(root);
                    } else if relation.id.is_some() {
                        next_id[ix] += 1;
                        ids.push(next_id[ix]);
                    }
                    ids.extend(relation.parent.iter().map(|_| root));
                    streams[first + ix].push(&ids, row.tuple.as_bytes(), relation.columns.len());
                }
            }
        }
    }
    streams.iter_mut().for_each(|stream| stream.bytes.extend_from_slice(COPY_END));
    Ok(streams)
}

/// Gives each catalogue entry of a feed an id; the COPY streams of the catalogues.
fn catalogues(known: &mut Known, feed: &Path) -> Outcome<Vec<Stream>> {
    let mut streams: Vec<Stream> = Vec::new();
    for lookup in &known.mapping.lookups {
        let columns: Vec<String> = [&lookup.id].into_iter().chain(&lookup.key).cloned().collect();
        streams.push(Stream::new(&lookup.table.to_string(), &columns));
    }
    let blocks = Blocks::open(feed)?;
    while let Some(block) = blocks.next()? {
        for line in lines(&block) {
            let json = Json::parse(line)?;
            let asked = match shred(&known.mapping, &known.schema, &known.answers, &json) {
                Ok(Shredded::Asks(questions)) => questions.lookups,
                Ok(Shredded::Rows(_)) => continue,
                Err(error) => return Err(error.message.into()),
            };
            for (lookup, key) in asked.into_keys() {
                let ids = &mut known.answers.lookups[lookup];
                let id = ids.len() as i64 + 1;
                if let std::collections::hash_map::Entry::Vacant(place) = ids.entry(key) {
                    let width = known.mapping.lookups[lookup].key.len();
                    streams[lookup].push(&[id], place.key().as_bytes(), width);
                    place.insert(Some(id.to_be_bytes().to_vec()));
                }
            }
        }
    }
    Ok(streams)
}
