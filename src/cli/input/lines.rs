//! Documents that are lines.

use std::io;

use bytes::{Buf as _, Bytes};
use rowdelta::document::Origin;
use rowdelta::engine::{FeedError, FeedItem};

use super::Documents;
use super::text::{Partial, Text, item};

/// The lines of one file that are not blank.
pub struct Lines {
    text: Text,
    /// What is read and not yet handed out. Lines are cut from it, not copied.
    block: Bytes,
    /// Where in it the next line ends.
    end: Option<usize>,
    /// The last line that was complete.
    line: u64,
}

/// A line without what ends it.
struct Line {
    /// Nothing, if it was too long to be kept.
    bytes: Bytes,
    length: u64,
}

impl Lines {
    pub fn of(text: Text) -> Self {
        Self { text, block: Bytes::new(), end: None, line: 0 }
    }

    /// The next line with what ends it taken off; `None` at the end of the file.
    fn next_line(&mut self) -> io::Result<Option<Line>> {
        if let Some(bytes) = self.cut() {
            let length = bytes.len() as u64;
            return Ok(Some(Line { bytes, length }));
        }
        // The carriage return before a line feed is not part of the document.
        let keep_max = self.text.bytes_max.saturating_add(1);
        let mut line = Partial::default();
        loop {
            line.push(&std::mem::take(&mut self.block), keep_max);
            self.read()?;
            if self.block.is_empty() {
                return Ok((line.length > 0).then(|| line.into()));
            }
            if let Some(rest) = self.cut() {
                line.push(&rest, keep_max);
                return Ok(Some(line.into()));
            }
        }
    }

    /// What the block holds of the line, if that ends in it.
    fn cut(&mut self) -> Option<Bytes> {
        let line = self.block.split_to(self.end?);
        self.block.advance(1);
        self.end = memchr::memchr(b'\n', &self.block);
        Some(line)
    }

    /// Reads on, however little is there; nothing at the end. A block takes no more memory than it needs: lines that
    /// trickle in must not keep a large one alive each.
    fn read(&mut self) -> io::Result<()> {
        self.block = Bytes::copy_from_slice(self.text.block()?);
        self.text.input.consume(self.block.len());
        self.end = memchr::memchr(b'\n', &self.block);
        Ok(())
    }

    fn origin(&self) -> Origin {
        Origin { file: Some(self.text.file.clone()), line: self.line, item: None }
    }
}

impl From<Partial> for Line {
    fn from(Partial { bytes, length }: Partial) -> Self {
        Line { bytes: bytes.into(), length }
    }
}

impl Line {
    fn trim_carriage_return(&mut self) {
        if self.bytes.ends_with(b"\r") {
            self.bytes.truncate(self.bytes.len() - 1);
            self.length -= 1;
        }
    }

    fn is_blank(&self) -> bool {
        let given_up = self.bytes.is_empty() && self.length > 0;
        !given_up && self.bytes.iter().all(u8::is_ascii_whitespace)
    }
}

impl Documents for Lines {
    fn is_at_hand(&self) -> bool {
        self.end.is_some()
    }
}

impl Iterator for Lines {
    type Item = FeedItem;

    fn next(&mut self) -> Option<FeedItem> {
        loop {
            let mut line = match self.next_line() {
                Ok(line) => line?,
                Err(error) => {
                    let message = format!("cannot be read beyond this line: {error}");
                    return Some(Err(FeedError { origin: self.origin(), message, fatal: true }));
                }
            };
            self.line += 1;
            line.trim_carriage_return();
            if !line.is_blank() {
                return Some(item(line.bytes, line.length, self.origin(), self.text.bytes_max));
            }
        }
    }
}
