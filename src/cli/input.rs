//! Reads feeds: lines of files, one document a line, with the place each came from.
//!
//! Several files are one feed. Each is plain or compressed by gzip or zstd, which
//! its first bytes tell and its name does not. A feed may be larger than memory:
//! what is held at a time is one block of input and the one line that it ends in.
//!
//! A line that is too long fails alone; nothing after it is lost. A stream that
//! breaks off ends the feed, after the lines that were complete before it: half a
//! document could be a valid one, and what follows is not known.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How much is read at a time, before and after decompression.
const BLOCK_BYTES: usize = 256 * 1024;

/// What PowerShell and Notepad write at the start of a file.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
const GZIP_MAGIC: &[u8] = b"\x1f\x8b";
const ZSTD_MAGIC: &[u8] = b"\x28\xb5\x2f\xfd";
/// `0x184D2A50` to `0x184D2A5F`: a frame to skip, which parallel compressors put first.
const ZSTD_SKIPPABLE_TAIL: &[u8] = b"\x2a\x4d\x18";

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

/// One line of a feed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The file as it was named, `-` for standard input.
    pub file: Arc<str>,
    /// The line, from 1. In a compressed file, of what it unpacks to.
    pub line: u64,
    /// The document's bytes without its line end, or why there are none.
    pub content: Result<Vec<u8>, InputError>,
}

/// Why one document could not be read. The ones after it can.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InputError {
    /// It is longer than the options allow.
    TooLong {
        /// The length of the line.
        bytes: u64,
    },
}

impl std::fmt::Display for InputError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            InputError::TooLong { bytes } => write!(f, "the document is too long: {bytes} bytes"),
        }
    }
}

impl std::error::Error for InputError {}

/// Why a feed ends before its end.
#[derive(Debug)]
pub struct FeedError {
    /// The file that could not be opened, read or unpacked.
    pub file: Arc<str>,
    /// The last complete line before it, 0 if there is none.
    pub line: u64,
    source: io::Error,
}

impl std::fmt::Display for FeedError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { file, line, .. } = self;
        match line {
            0 => write!(f, "{file}: cannot be read"),
            _ => write!(f, "{file}: cannot be read after line {line}"),
        }
    }
}

impl std::error::Error for FeedError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// The documents of several files, in order. Ends after an error.
pub struct Feed {
    waiting: VecDeque<PathBuf>,
    current: Option<Lines>,
    options: FeedOptions,
}

impl Feed {
    /// Opens a feed; `-` is standard input. Every file is looked at now, so that a name with a slip
    /// in it stops the command before it writes anything.
    ///
    /// # Errors
    /// A file that is not there or may not be read.
    pub fn open(paths: &[PathBuf], options: FeedOptions) -> Result<Self, FeedError> {
        for path in paths.iter().filter(|path| !is_stdin(path)) {
            check(path).map_err(|source| FeedError { file: name_of(path), line: 0, source })?;
        }
        Ok(Self { waiting: paths.iter().cloned().collect(), current: None, options })
    }

    fn next_record(&mut self) -> Result<Option<Record>, FeedError> {
        loop {
            if let Some(lines) = &mut self.current {
                if let Some(record) = lines.next_record()? {
                    return Ok(Some(record));
                }
                self.current = None;
            }
            let Some(path) = self.waiting.pop_front() else { return Ok(None) };
            self.current = Some(Lines::open(&path, self.options.document_bytes_max)?);
        }
    }
}

impl Iterator for Feed {
    type Item = Result<Record, FeedError>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.next_record().transpose();
        if matches!(next, Some(Err(_))) {
            self.current = None;
            self.waiting.clear();
        }
        next
    }
}

/// Whether a file can be read. A pipe is not opened: its writer would be gone when it is read.
fn check(path: &Path) -> io::Result<()> {
    let kind = std::fs::metadata(path)?.file_type();
    if kind.is_dir() {
        return Err(io::Error::new(io::ErrorKind::IsADirectory, "is a directory"));
    }
    if kind.is_file() {
        File::open(path)?;
    }
    Ok(())
}

fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == "-"
}

fn name_of(path: &Path) -> Arc<str> {
    path.to_string_lossy().into()
}

/// The lines of one file.
struct Lines {
    file: Arc<str>,
    input: Box<dyn BufRead + Send>,
    /// The last line that was complete.
    line: u64,
    bytes_max: usize,
}

/// What is known of a line while it is read.
#[derive(Default)]
struct Partial {
    bytes: Vec<u8>,
    /// Counts on when `bytes` has been given up.
    length: u64,
    ended: bool,
}

impl Lines {
    fn open(path: &Path, bytes_max: usize) -> Result<Self, FeedError> {
        let file = name_of(path);
        if is_stdin(path) {
            return Self::of(file, Box::new(io::stdin()), bytes_max);
        }
        match File::open(path) {
            Ok(input) => Self::of(file, Box::new(input), bytes_max),
            Err(source) => Err(FeedError { file, line: 0, source }),
        }
    }

    fn of(file: Arc<str>, input: Box<dyn Read + Send>, bytes_max: usize) -> Result<Self, FeedError> {
        match unpacked(input) {
            Ok(input) => Ok(Self { file, input, line: 0, bytes_max }),
            Err(source) => Err(FeedError { file, line: 0, source }),
        }
    }

    /// The next line that is not blank.
    fn next_record(&mut self) -> Result<Option<Record>, FeedError> {
        loop {
            let line = self.next_line().map_err(|source| self.error(source))?;
            let Some(line) = line else { return Ok(None) };
            self.line += 1;
            let Some(content) = content(line, self.bytes_max) else { continue };
            return Ok(Some(Record { file: self.file.clone(), line: self.line, content }));
        }
    }

    /// The next line with what ends it taken off; `None` at the end of the file.
    fn next_line(&mut self) -> io::Result<Option<Partial>> {
        let mut line = Partial::default();
        // The carriage return before a line feed is not part of the document.
        let keep_max = self.bytes_max.saturating_add(1);
        while !line.ended {
            let block = match self.input.fill_buf() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                block => block?,
            };
            if block.is_empty() {
                return Ok(if line.length == 0 { None } else { Some(line) });
            }
            let used = line.take(block, keep_max);
            self.input.consume(used);
        }
        Ok(Some(line))
    }

    fn error(&self, source: io::Error) -> FeedError {
        FeedError { file: self.file.clone(), line: self.line, source }
    }
}

impl Partial {
    /// Takes what belongs to the line and says how much of the block that is, the line feed included.
    fn take(&mut self, block: &[u8], keep_max: usize) -> usize {
        let end = memchr::memchr(b'\n', block);
        let part = &block[..end.unwrap_or(block.len())];
        self.length += part.len() as u64;
        self.ended = end.is_some();
        if self.length <= keep_max as u64 {
            self.bytes.extend_from_slice(part);
        } else {
            self.bytes = Vec::new();
        }
        part.len() + usize::from(self.ended)
    }
}

/// The document of a line; `None` if it is blank.
fn content(line: Partial, bytes_max: usize) -> Option<Result<Vec<u8>, InputError>> {
    let Partial { mut bytes, length, .. } = line;
    if bytes.len() as u64 == length {
        if bytes.last() == Some(&b'\r') {
            bytes.pop();
        }
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return None;
        }
        if bytes.len() <= bytes_max {
            return Some(Ok(bytes));
        }
    }
    Some(Err(InputError::TooLong { bytes: length }))
}

/// What a stream unpacks to, without a byte order mark at its start.
fn unpacked(input: Box<dyn Read + Send>) -> io::Result<Box<dyn BufRead + Send>> {
    let (start, input) = start_of(input, 4)?;
    let input = BufReader::with_capacity(BLOCK_BYTES, Cursor::new(start.clone()).chain(input));
    let input: Box<dyn Read + Send> = if start.starts_with(GZIP_MAGIC) {
        Box::new(flate2::bufread::MultiGzDecoder::new(input))
    } else if start.starts_with(ZSTD_MAGIC) || start.get(1..) == Some(ZSTD_SKIPPABLE_TAIL) {
        Box::new(zstd::Decoder::with_buffer(input)?)
    } else {
        Box::new(input)
    };
    let (mut start, input) = start_of(input, BYTE_ORDER_MARK.len())?;
    if start == BYTE_ORDER_MARK {
        start.clear();
    }
    Ok(Box::new(BufReader::with_capacity(BLOCK_BYTES, Cursor::new(start).chain(input))))
}

/// The first bytes of a stream, fewer if it is shorter, and the rest of it.
fn start_of<R: Read>(mut input: R, bytes: usize) -> io::Result<(Vec<u8>, R)> {
    let mut start = Vec::with_capacity(bytes);
    input.by_ref().take(bytes as u64).read_to_end(&mut start)?;
    Ok((start, input))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::sync::atomic::{AtomicU32, Ordering};

    /// A file that goes when the test ends.
    struct Temp(PathBuf);

    impl Temp {
        fn new(bytes: impl AsRef<[u8]>) -> Self {
            static COUNT: AtomicU32 = AtomicU32::new(0);
            let name =
                format!("rowdelta-input-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
            let path = std::env::temp_dir().join(name);
            std::fs::write(&path, bytes).unwrap();
            Self(path)
        }
    }

    impl Drop for Temp {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn feed(files: &[&Temp], document_bytes_max: usize) -> Vec<Result<Record, FeedError>> {
        let paths: Vec<PathBuf> = files.iter().map(|file| file.0.clone()).collect();
        Feed::open(&paths, FeedOptions { document_bytes_max }).unwrap().collect()
    }

    /// Line numbers and documents of a file without faults.
    fn read(bytes: impl AsRef<[u8]>) -> Vec<(u64, String)> {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let records = feed(&[&Temp::new(bytes)], 1000).into_iter().map(Result::unwrap);
        records.map(|record| (record.line, text(record.content.unwrap()))).collect()
    }

    fn lines(expected: &[(u64, &str)]) -> Vec<(u64, String)> {
        expected.iter().map(|(line, text)| (*line, (*text).to_owned())).collect()
    }

    #[test]
    fn blank_lines_count_but_are_no_documents() {
        assert_eq!(read("{}\n\n \t\r\n[1]\n"), lines(&[(1, "{}"), (4, "[1]")]));
        assert_eq!(read(""), []);
        assert_eq!(read("\n\r\n"), []);
    }

    #[test]
    fn the_last_line_needs_no_end() {
        assert_eq!(read("{}\n[1]"), lines(&[(1, "{}"), (2, "[1]")]));
        assert_eq!(read("1"), lines(&[(1, "1")]));
    }

    #[test]
    fn line_ends_of_windows_and_a_byte_order_mark_are_no_part_of_a_document() {
        assert_eq!(read("\u{feff}{}\r\n[1]\r\n"), lines(&[(1, "{}"), (2, "[1]")]));
        assert_eq!(read("\u{feff}"), []);
        assert_eq!(read(gzip("\u{feff}{}".as_bytes())), lines(&[(1, "{}")]));
        assert_eq!(read("{}\n\u{feff}[1]"), lines(&[(1, "{}"), (2, "\u{feff}[1]")]), "only at the start");
    }

    #[test]
    fn what_a_file_is_packed_with_is_told_by_its_bytes() {
        let text = b"{}\n[1]\n";
        let expected = lines(&[(1, "{}"), (2, "[1]")]);
        assert_eq!(read(gzip(text)), expected);
        assert_eq!(read(zstd::encode_all(&text[..], 1).unwrap()), expected);
        assert_eq!(read(gzip(b"")), []);
    }

    #[test]
    fn a_packed_file_of_several_parts_is_one_file() {
        let expected = lines(&[(1, "{\"a\":1}"), (2, "[1]")]);
        assert_eq!(read([gzip(b"{\"a\""), gzip(b":1}\n[1]")].concat()), expected);
        let zstd = |bytes: &[u8]| zstd::encode_all(bytes, 1).unwrap();
        assert_eq!(read([zstd(b"{\"a\""), zstd(b":1}\n[1]")].concat()), expected);
        let skipped = b"\x50\x2a\x4d\x18\x02\x00\x00\x00xx";
        assert_eq!(read([skipped.to_vec(), zstd(b"{\"a\":1}\n[1]")].concat()), expected);
    }

    #[test]
    fn several_files_are_one_feed_and_each_counts_its_lines() {
        let (plain, packed) = (Temp::new("1\n2"), Temp::new(gzip(b"3\n")));
        let records: Vec<Record> = feed(&[&plain, &packed], 1000).into_iter().map(Result::unwrap).collect();
        assert_eq!(records.iter().map(|record| record.line).collect::<Vec<_>>(), [1, 2, 1]);
        assert_eq!(*records[1].file, *plain.0.to_string_lossy());
        assert_eq!(*records[2].file, *packed.0.to_string_lossy());
    }

    #[test]
    fn a_document_that_is_too_long_fails_alone() {
        let long = "x".repeat(3 * BLOCK_BYTES);
        let file = Temp::new(format!("1234567890\r\n{long}\n12345678901\n{{}}\n{long}"));
        let records: Vec<Record> = feed(&[&file], 10).into_iter().map(Result::unwrap).collect();
        let found: Vec<_> = records.iter().map(|record| (record.line, record.content.clone())).collect();
        let too_long = |bytes| Err(InputError::TooLong { bytes });
        assert_eq!(
            found,
            [
                (1, Ok(b"1234567890".to_vec())),
                (2, too_long(long.len() as u64)),
                (3, too_long(11)),
                (4, Ok(b"{}".to_vec())),
                (5, too_long(long.len() as u64)),
            ]
        );
    }

    #[test]
    fn a_long_line_is_not_held_once_it_is_too_long() {
        let mut line = Partial::default();
        for _ in 0..100 {
            line.take(&[b'x'; 1000], 5000);
            assert!(line.bytes.capacity() <= 8192);
        }
        assert_eq!(line.length, 100_000);
    }

    /// What is delivered before the feed breaks off, and how it says so.
    fn torn(bytes: &[u8]) -> (Vec<String>, FeedError) {
        let (first, second) = (Temp::new(bytes), Temp::new("never read"));
        let mut records = feed(&[&first, &second], 1 << 20);
        let error = records.pop().unwrap().unwrap_err();
        assert_eq!(*error.file, *first.0.to_string_lossy());
        let text = |record: Result<Record, _>| String::from_utf8(record.unwrap().content.unwrap()).unwrap();
        (records.into_iter().map(text).collect(), error)
    }

    #[test]
    fn a_torn_stream_ends_the_feed_after_its_complete_lines() {
        let mut seed = fastrand::Rng::with_seed(1);
        let documents: Vec<String> = (0..20_000).map(|_| format!("[{}]", seed.u64(..))).collect();
        let text = documents.join("\n");
        for packed in [gzip(text.as_bytes()), zstd::encode_all(text.as_bytes(), 1).unwrap()] {
            let (found, error) = torn(&packed[..packed.len() / 2]);
            assert!(!found.is_empty() && found.len() < documents.len());
            assert_eq!(found, documents[..found.len()], "no half of a document");
            assert_eq!(error.line, found.len() as u64);
            let (found, _) = torn(&packed[..packed.len() - 1]);
            assert!(found.len() < documents.len(), "the last line is complete only if the stream is");
        }
    }

    /// Fails when its bytes have been read, as a pipe can.
    struct Failing(Cursor<&'static [u8]>);

    impl Read for Failing {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            match self.0.read(buffer)? {
                0 => Err(io::Error::other("gone")),
                count => Ok(count),
            }
        }
    }

    #[test]
    fn a_read_error_comes_after_the_complete_lines_before_it() {
        let mut lines = Lines::of("-".into(), Box::new(Failing(Cursor::new(b"1\n\n22\n3"))), 1000).unwrap();
        assert_eq!(lines.next_record().unwrap().unwrap().content, Ok(b"1".to_vec()));
        assert_eq!(lines.next_record().unwrap().unwrap().content, Ok(b"22".to_vec()));
        let error = lines.next_record().unwrap_err();
        assert_eq!(error.to_string(), "-: cannot be read after line 3");
        assert_eq!(std::error::Error::source(&error).unwrap().to_string(), "gone");
    }

    #[test]
    fn a_damaged_stream_is_an_error_with_its_cause() {
        let mut packed = gzip(b"1\n2\n");
        let at = packed.len() - 6;
        packed[at] ^= 1;
        let (_, error) = torn(&packed);
        assert!(error.to_string().contains("cannot be read"), "{error}");
        assert!(std::error::Error::source(&error).is_some());
    }

    #[test]
    fn a_file_that_is_not_there_is_found_before_any_is_read() {
        let file = Temp::new("1\n");
        let paths = [file.0.clone(), PathBuf::from("no/such/file")];
        let error = Feed::open(&paths, FeedOptions::default()).err().unwrap();
        assert_eq!((&*error.file, error.line), ("no/such/file", 0));
        assert!(Feed::open(&[std::env::temp_dir()], FeedOptions::default()).is_err(), "a directory");
    }
}
