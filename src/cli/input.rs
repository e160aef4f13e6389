//! Reads feeds: the documents of files, in order, each with the place it came from.
//!
//! Several files are one feed; a directory stands for those below it. Each is plain
//! or compressed by gzip or zstd, and holds its documents as lines, as one array, or
//! as objects one after another: its content tells. A feed may be larger than
//! memory: what is held at a time is one block of input and one document.
//!
//! A document that is too long fails alone; nothing after it is lost. A stream that
//! breaks off, or that no longer says where documents begin and end, ends the feed
//! after those that were complete before: half a document could be a valid one.

mod files;
mod lines;
mod scan;
#[cfg(test)]
mod tests;
mod text;
mod values;

use std::collections::VecDeque;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rowdelta::document::Origin;
use rowdelta::engine::{FeedError, FeedItem};

use lines::Lines;
use text::{Layout, Text};
use values::Values;

/// How a feed is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeedOptions {
    /// Longer documents fail. Default 64 MiB: enough for real ones, and what one of them costs stays known.
    pub document_bytes_max: usize,
}

impl Default for FeedOptions {
    fn default() -> Self {
        Self { document_bytes_max: 64 * 1024 * 1024 }
    }
}

/// The documents of several files, in order. Ends after a fatal error.
pub struct Feed {
    waiting: VecDeque<PathBuf>,
    current: Option<Box<dyn Documents>>,
    options: FeedOptions,
    bytes: FeedBytes,
}

/// How much of the files of a feed has been read, as they lie there: compressed, if they are.
#[derive(Clone, Debug, Default)]
pub struct FeedBytes {
    read: Arc<AtomicU64>,
    /// How long they are together; not known of pipes and of standard input.
    pub total: Option<u64>,
}

impl FeedBytes {
    fn of(files: &VecDeque<PathBuf>) -> Self {
        let length = |file: &PathBuf| {
            let metadata = std::fs::metadata(file).ok().filter(|_| !files::is_stdin(file))?;
            metadata.is_file().then_some(metadata.len())
        };
        Self { read: Arc::default(), total: files.iter().map(length).sum() }
    }

    /// Bytes read so far.
    pub fn read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }
}

/// A file whose bytes are counted, a block at a time.
struct Counted<R> {
    input: R,
    read: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, block: &mut [u8]) -> io::Result<usize> {
        let length = self.input.read(block)?;
        self.read.fetch_add(length as u64, Ordering::Relaxed);
        Ok(length)
    }
}

/// The documents of one file.
trait Documents: Iterator<Item = FeedItem> + Send {
    /// Whether the next item comes without waiting for more of the file.
    fn is_at_hand(&self) -> bool;
}

impl Feed {
    /// Opens a feed; `-` is standard input. Every file is looked at now, so that a name with a slip
    /// in it stops the command before it writes anything.
    ///
    /// # Errors
    /// A file that is not there or may not be read, a directory that holds no feed.
    pub fn open(paths: &[PathBuf], options: FeedOptions) -> Result<Self, FeedError> {
        let mut waiting = VecDeque::new();
        for path in paths {
            waiting.extend(files::of(path)?);
        }
        let bytes = FeedBytes::of(&waiting);
        Ok(Self { waiting, current: None, options, bytes })
    }

    /// How much of its files has been read, for whoever watches.
    pub fn bytes(&self) -> FeedBytes {
        self.bytes.clone()
    }

    /// The next items, as many as come without waiting, but not many more than this number of bytes. Empty at the end.
    pub fn chunk(&mut self, bytes_max: usize) -> Vec<FeedItem> {
        let mut bytes = 0;
        let mut chunk = Vec::new();
        while let Some(item) = self.next() {
            bytes += item.as_ref().map_or(0, |document| document.bytes.len());
            chunk.push(item);
            if bytes >= bytes_max || !self.current.as_ref().is_some_and(|documents| documents.is_at_hand()) {
                break;
            }
        }
        chunk
    }

    fn next_item(&mut self) -> Option<FeedItem> {
        loop {
            if let Some(item) = self.current.as_mut().and_then(Iterator::next) {
                return Some(item);
            }
            let path = self.waiting.pop_front()?;
            match open(&path, self.options.document_bytes_max, &self.bytes) {
                Ok(documents) => self.current = Some(documents),
                Err(error) => return Some(Err(unreadable(&path, &error))),
            }
        }
    }
}

impl Iterator for Feed {
    type Item = FeedItem;

    fn next(&mut self) -> Option<FeedItem> {
        let next = self.next_item();
        if matches!(&next, Some(Err(error)) if error.fatal) {
            self.current = None;
            self.waiting.clear();
        }
        next
    }
}

fn open(path: &Path, bytes_max: usize, bytes: &FeedBytes) -> io::Result<Box<dyn Documents>> {
    let (input, block_bytes) = text::open(path)?;
    let input = Box::new(Counted { input, read: bytes.read.clone() });
    documents(path, input, block_bytes, bytes_max)
}

/// The documents of an open file.
fn documents(
    path: &Path,
    input: Box<dyn Read + Send>,
    block_bytes: usize,
    bytes_max: usize,
) -> io::Result<Box<dyn Documents>> {
    let (input, layout) = text::unpack(input, block_bytes)?;
    let text = Text { file: path.to_string_lossy().into(), input, bytes_max };
    let layout = if files::promises_lines(path) { Layout::Lines } else { layout };
    Ok(match layout {
        Layout::Lines => Box::new(Lines::of(text)),
        Layout::Array | Layout::Objects => Box::new(Values::of(text, layout)),
    })
}

fn unreadable(path: &Path, error: &io::Error) -> FeedError {
    broken(path, format!("cannot be read: {error}"))
}

/// What is wrong with a file as a whole.
fn broken(path: &Path, message: String) -> FeedError {
    let origin = Origin { file: Some(path.to_string_lossy().into()), ..Origin::default() };
    FeedError { origin, message, fatal: true }
}
