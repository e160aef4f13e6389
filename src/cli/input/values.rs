//! Documents that are the elements of an array, or objects one after another.
//!
//! A document is cut out by its brackets; whether it is valid is the engine's
//! business. Where what stands between documents is not what should, nobody knows
//! where the next one begins: that breaks the feed off.

use std::fmt::Display;
use std::io;

use rowdelta::document::Origin;
use rowdelta::engine::{FeedError, FeedItem};

use super::Documents;
use super::scan::{Extent, is_space};
use super::text::{Layout, Partial, Text, item};

/// The documents of one file.
pub struct Values {
    text: Text,
    layout: Layout,
    /// Whether the bracket that opens the array was read.
    opened: bool,
    /// Where reading stands, from 1.
    line: u64,
    /// Documents read so far.
    items: u64,
}

impl Values {
    /// A file whose layout is not lines.
    pub fn of(text: Text, layout: Layout) -> Self {
        Self { text, layout, opened: false, line: 1, items: 0 }
    }

    fn next_document(&mut self) -> Result<Option<FeedItem>, String> {
        let first = match self.layout {
            Layout::Array => self.next_element()?,
            _ => self.next_object()?,
        };
        first.map(|first| self.document(first)).transpose()
    }

    /// The first byte of the next object; `None` at the end of the file.
    fn next_object(&mut self) -> Result<Option<u8>, String> {
        match self.peek()? {
            None => Ok(None),
            Some(b'{') => Ok(Some(b'{')),
            found => Err(expected("an object", found)),
        }
    }

    /// The first byte of the next element; `None` at the end of the array, if nothing follows.
    fn next_element(&mut self) -> Result<Option<u8>, String> {
        match (self.opened, self.peek()?) {
            (true, Some(b',')) => self.text.input.consume(1),
            (true, Some(b']')) => return self.end_array(),
            (true, found) => return Err(expected("`,` or `]`", found)),
            (false, _) => {
                self.text.input.consume(1);
                self.opened = true;
                if self.peek()? == Some(b']') {
                    return self.end_array();
                }
            }
        }
        match self.peek()? {
            found @ (None | Some(b',' | b']' | b'}')) => Err(expected("a document", found)),
            first => Ok(first),
        }
    }

    fn end_array(&mut self) -> Result<Option<u8>, String> {
        self.text.input.consume(1);
        match self.peek()? {
            None => Ok(None),
            found => Err(expected("nothing after the array", found)),
        }
    }

    /// The document that begins here.
    fn document(&mut self, first: u8) -> Result<FeedItem, String> {
        let (begin, bytes_max) = (self.line, self.text.bytes_max);
        let (mut document, mut extent, mut last) = (Partial::default(), Extent::of(first), first);
        loop {
            let block = self.text.block().map_err(unreadable)?;
            if block.is_empty() {
                return Err(format!("the file ends within the document that begins on line {begin}"));
            }
            let end = extent.end(block);
            let part = &block[..end.unwrap_or(block.len())];
            document.push(part, bytes_max);
            self.line += line_feeds(part);
            last = part.last().copied().unwrap_or(last);
            let used = part.len();
            self.text.input.consume(used);
            if end.is_some() {
                break;
            }
        }
        if matches!((first, last), (b'{', b']') | (b'[', b'}')) {
            let [first, last] = [first, last].map(char::from);
            return Err(format!("`{last}` closes the `{first}` of line {begin}"));
        }
        self.items += 1;
        let origin = Origin { file: Some(self.text.file.clone()), line: begin, item: Some(self.items) };
        Ok(item(document.bytes.into(), document.length, origin, bytes_max))
    }

    /// The next byte that is not white space, which is taken; `None` at the end of the file.
    fn peek(&mut self) -> Result<Option<u8>, String> {
        loop {
            let block = self.text.block().map_err(unreadable)?;
            let found = block.iter().position(|byte| !is_space(*byte));
            let next = found.map(|at| block[at]);
            let (ended, used) = (block.is_empty(), found.unwrap_or(block.len()));
            self.line += line_feeds(&block[..used]);
            self.text.input.consume(used);
            if ended || next.is_some() {
                return Ok(next);
            }
        }
    }
}

impl Documents for Values {
    fn is_at_hand(&self) -> bool {
        false
    }
}

impl Iterator for Values {
    type Item = FeedItem;

    fn next(&mut self) -> Option<FeedItem> {
        let message = match self.next_document() {
            Ok(item) => return item,
            Err(message) if self.items == 0 => message,
            Err(message) => format!("after item {}: {message}", self.items),
        };
        let origin = Origin { file: Some(self.text.file.clone()), line: self.line, item: None };
        Some(Err(FeedError { origin, message, fatal: true }))
    }
}

fn line_feeds(part: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', part).count() as u64
}

fn unreadable(error: io::Error) -> String {
    format!("cannot be read beyond this line: {error}")
}

fn expected(what: impl Display, found: Option<u8>) -> String {
    match found {
        Some(byte) => format!("expected {what}, found `{}`", byte.escape_ascii()),
        None => format!("expected {what}, found the end of the file"),
    }
}
