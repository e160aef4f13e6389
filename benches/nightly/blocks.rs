//! The lines of a feed, for several threads: each takes a block of whole lines at a time.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Mutex;

/// How much is read at a time: as much as the command reads.
const BLOCK_BYTES: usize = 256 * 1024;

/// A feed that is being read.
pub struct Blocks(Mutex<Reading>);

struct Reading {
    file: File,
    /// The start of a line that the last block ended in.
    rest: Vec<u8>,
}

impl Blocks {
    /// Opens a feed.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self(Mutex::new(Reading { file: File::open(path)?, rest: Vec::new() })))
    }

    /// The next whole lines; `None` at the end.
    pub fn next(&self) -> io::Result<Option<Vec<u8>>> {
        let mut reading = self.0.lock().expect("no panic while it is held");
        let mut block = std::mem::take(&mut reading.rest);
        loop {
            let (from, mut end) = (block.len(), block.len() + BLOCK_BYTES);
            block.resize(end, 0);
            let read = reading.file.read(&mut block[from..])?;
            end = from + read;
            block.truncate(end);
            if read == 0 {
                return Ok((!block.is_empty()).then_some(block));
            }
            if let Some(last) = memchr::memrchr(b'\n', &block[from..]) {
                reading.rest = block.split_off(from + last + 1);
                return Ok(Some(block));
            }
        }
    }
}

/// The lines of a block that are not empty.
pub fn lines(block: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = block;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let end = memchr::memchr(b'\n', rest).unwrap_or(rest.len());
        let line = &rest[..end];
        rest = rest.get(end + 1..).unwrap_or_default();
        Some(line)
    })
    .filter(|line| !line.is_empty())
}

/// As many threads as there are cores.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from)
}
