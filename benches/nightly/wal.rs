//! Whose write-ahead log it is: `pg_waldump` tells of each record how long it is, without and with the images of
//! full pages that follow a checkpoint, and of which relation it is.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use serde::Serialize;
use tokio_postgres::Row;

use crate::Outcome;

/// The schema of every file of the database: that of a table for its indexes and for what is out of line, too.
pub const OWNERS_SQL: &str = "
    SELECT pg_relation_filenode(c.oid)::bigint, n.nspname::text,
           (SELECT oid::bigint FROM pg_database WHERE datname = current_database())
    FROM pg_class c
    LEFT JOIN pg_class t ON t.reltoastrelid = c.oid
    LEFT JOIN pg_index i ON i.indexrelid = c.oid
    LEFT JOIN pg_class it ON it.reltoastrelid = i.indrelid
    JOIN pg_namespace n ON n.oid = coalesce(t.relnamespace, it.relnamespace, c.relnamespace)
    WHERE pg_relation_filenode(c.oid) IS NOT NULL";

/// Bytes of write-ahead log.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Bytes {
    /// Of the records themselves.
    pub records: u64,
    /// Of the images of full pages in them.
    pub images: u64,
}

impl Bytes {
    /// All of them.
    pub fn sum(self) -> u64 {
        self.records + self.images
    }
}

/// Whose they are.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Wal {
    /// The user's tables'.
    pub user: Bytes,
    /// The tables' in which a contestant remembers what it has seen.
    pub state: Bytes,
    /// Anything else's: the catalog's, commits.
    pub other: Bytes,
}

impl Wal {
    /// Of images of full pages.
    pub fn images(&self) -> u64 {
        self.user.images + self.state.images + self.other.images
    }
}

/// Reads the log between two places. `None` where there is no `pg_waldump`.
pub fn split(program: &Path, dir: &Path, start: &str, end: &str, owners: &[Row]) -> Outcome<Option<Wal>> {
    if !program.exists() {
        return Ok(None);
    }
    let mut wal = Wal::default();
    if start == end {
        return Ok(Some(wal));
    }
    let Some(database) = owners.first().map(|row| row.get::<_, i64>(2)) else { return Ok(None) };
    let schemas: HashMap<i64, String> = owners.iter().map(|row| (row.get(0), row.get(1))).collect();
    let mut waldump = Command::new(program);
    waldump.arg("-p").arg(dir).args(["-s", start, "-e", end]).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = waldump.spawn()?;
    let Some(output) = child.stdout.take() else { return Ok(None) };
    for line in BufReader::with_capacity(1 << 20, output).split(b'\n') {
        let line = line?;
        let Some((records, all)) = lengths(&line) else { continue };
        let schema = file(&line).filter(|(of, _)| *of == database).and_then(|(_, file)| schemas.get(&file));
        let bytes = match schema.map(String::as_str) {
            Some("public") => &mut wal.user,
            Some("rowdelta" | "peer") => &mut wal.state,
            _ => &mut wal.other,
        };
        bytes.records += records;
        bytes.images += all - records;
    }
    child.wait()?;
    Ok(Some(wal))
}

/// `len (rec/tot):     54/  8150`
fn lengths(line: &[u8]) -> Option<(u64, u64)> {
    let (records, rest) = number(after(line, b"len (rec/tot):")?)?;
    let (all, _) = number(rest.strip_prefix(b"/")?)?;
    Some((records as u64, all as u64))
}

/// `rel 1663/16384/16390`: database and file of the first block that a record is about.
fn file(line: &[u8]) -> Option<(i64, i64)> {
    let (_, rest) = number(after(line, b" rel ")?)?;
    let (database, rest) = number(rest.strip_prefix(b"/")?)?;
    let (file, _) = number(rest.strip_prefix(b"/")?)?;
    Some((database, file))
}

fn after<'l>(line: &'l [u8], word: &[u8]) -> Option<&'l [u8]> {
    memchr::memmem::find(line, word).map(|at| &line[at + word.len()..])
}

fn number(text: &[u8]) -> Option<(i64, &[u8])> {
    let text = text.trim_ascii_start();
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (digits, rest) = text.split_at(digits);
    Some((std::str::from_utf8(digits).ok()?.parse().ok()?, rest))
}
