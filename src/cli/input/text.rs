//! The text of one file: unpacked, how its documents are laid out, and block by block.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use rowdelta::document::{Document, Origin};
use rowdelta::engine::{FeedError, FeedItem};

use super::files::is_stdin;
use super::scan::{Extent, is_space};

/// How much is read at a time, before and after decompression. Of a smaller file, all of it.
pub const BLOCK_BYTES: usize = 256 * 1024;
const SMALL_BLOCK_BYTES: usize = 8 * 1024;

/// What PowerShell and Notepad write at the start of a file.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
const GZIP_MAGIC: &[u8] = b"\x1f\x8b";
const ZSTD_MAGIC: &[u8] = b"\x28\xb5\x2f\xfd";
/// `0x184D2A50` to `0x184D2A5F`: a frame to skip, which parallel compressors put first.
const ZSTD_SKIPPABLE_TAIL: &[u8] = b"\x2a\x4d\x18";

/// How the documents of a file are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// One a line.
    Lines,
    /// The elements of one array.
    Array,
    /// Objects, one after another, that take any number of lines.
    Objects,
}

/// An unpacked file while it is read.
pub struct Text {
    pub file: Arc<str>,
    pub input: Box<dyn BufRead + Send>,
    /// Longer documents fail.
    pub bytes_max: usize,
}

impl Text {
    /// What comes next, as far as it has been read; empty at the end.
    pub fn block(&mut self) -> io::Result<&[u8]> {
        while let Err(error) = self.input.fill_buf() {
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
        self.input.fill_buf()
    }
}

/// The bytes of a document while it is read.
#[derive(Default)]
pub struct Partial {
    pub bytes: Vec<u8>,
    /// Counts on when `bytes` has been given up.
    pub length: u64,
}

impl Partial {
    pub fn push(&mut self, part: &[u8], bytes_max: usize) {
        self.length += part.len() as u64;
        if self.length <= bytes_max as u64 {
            self.bytes.extend_from_slice(part);
        } else {
            self.bytes = Vec::new();
        }
    }
}

/// The document of these bytes, or that it was too long.
pub fn item(bytes: Bytes, length: u64, origin: Origin, bytes_max: usize) -> FeedItem {
    if length <= bytes_max as u64 {
        return Ok(Document { bytes, origin });
    }
    let message =
        format!("the document has {length} bytes; at most {bytes_max} are read (--document-bytes-max)");
    Err(FeedError { origin, message, fatal: false })
}

/// Opens a file; and how much of it to read at a time.
pub fn open(path: &Path) -> io::Result<(Box<dyn Read + Send>, usize)> {
    if is_stdin(path) {
        return Ok((Box::new(io::stdin()), BLOCK_BYTES));
    }
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    // The length of a pipe is 0, however much will come out of it.
    let length = if metadata.is_file() { metadata.len() } else { u64::MAX };
    let block_bytes = length.clamp(SMALL_BLOCK_BYTES as u64, BLOCK_BYTES as u64) as usize;
    Ok((Box::new(file), block_bytes))
}

/// What a stream unpacks to, without a byte order mark at its start, and how it is laid out.
pub fn unpack(
    input: Box<dyn Read + Send>,
    block_bytes: usize,
) -> io::Result<(Box<dyn BufRead + Send>, Layout)> {
    let mut input = unpacked(input, block_bytes)?;
    let (head, error) = head(&mut input);
    let layout = layout(&head);
    // An error is met again where it stood: what came before it may hold whole documents.
    let rest: Box<dyn BufRead + Send> = match error {
        Some(error) => Box::new(BufReader::new(Failing(Some(error)))),
        None => input,
    };
    Ok((Box::new(head.chain(rest)), layout))
}

fn unpacked(mut input: Box<dyn Read + Send>, block_bytes: usize) -> io::Result<Box<dyn BufRead + Send>> {
    let mut magic = Vec::with_capacity(4);
    input.by_ref().take(4).read_to_end(&mut magic)?;
    let (gzip, zstd) = (
        magic.starts_with(GZIP_MAGIC),
        magic.starts_with(ZSTD_MAGIC) || magic.get(1..) == Some(ZSTD_SKIPPABLE_TAIL),
    );
    let input = BufReader::with_capacity(block_bytes, Cursor::new(magic).chain(input));
    Ok(if gzip {
        Box::new(BufReader::with_capacity(block_bytes, flate2::bufread::MultiGzDecoder::new(input)))
    } else if zstd {
        Box::new(BufReader::with_capacity(block_bytes, zstd::Decoder::with_buffer(input)?))
    } else {
        Box::new(input)
    })
}

/// Takes the first line that is not blank, with the blank ones before it, but no more than a block. Stands
/// behind the byte order mark, if there is one. Gives the error that cut it short as well.
fn head(input: &mut dyn BufRead) -> (Cursor<Vec<u8>>, Option<io::Error>) {
    let mut head = Vec::new();
    let mut mark = 0;
    let error = loop {
        let from = head.len();
        let read = Read::take(&mut *input, (BLOCK_BYTES - from) as u64).read_until(b'\n', &mut head);
        if head.starts_with(BYTE_ORDER_MARK) {
            mark = BYTE_ORDER_MARK.len();
        }
        match read {
            Ok(0) => break None,
            Ok(_) if head[from.max(mark)..].iter().copied().all(is_space) => {}
            Ok(_) => break None,
            Err(error) => break Some(error),
        }
    };
    let mut head = Cursor::new(head);
    head.set_position(mark as u64);
    (head, error)
}

/// Tells the layout by the first line: one that holds a whole document and no second one is a line of many.
///
/// Of a line longer than a block only the block is known. If no document ends in it, it is taken for a line: a
/// file with such a first line is written by a program, for programs, and nobody has laid it out.
fn layout(head: &Cursor<Vec<u8>>) -> Layout {
    let text = &head.get_ref()[head.position() as usize..];
    let text = text.trim_ascii_start();
    match text.first() {
        Some(b'[') => return Layout::Array,
        Some(b'{') => {}
        _ => return Layout::Lines,
    }
    let whole = head.get_ref().len() < BLOCK_BYTES || text.ends_with(b"\n");
    match Extent::of(b'{').end(text) {
        Some(end) if text[end..].trim_ascii_start().starts_with(b"{") => Layout::Objects,
        None if whole => Layout::Objects,
        _ => Layout::Lines,
    }
}

/// Fails once.
struct Failing(Option<io::Error>);

impl Read for Failing {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        self.0.take().map_or(Ok(0), Err)
    }
}
