//! Documents that are lines.

use std::io;

use rowdelta::document::Origin;
use rowdelta::engine::{FeedError, FeedItem};

use super::text::{Partial, Text};

/// The lines of one file that are not blank.
pub struct Lines {
    text: Text,
    /// The last line that was complete.
    line: u64,
}

impl Lines {
    pub fn of(text: Text) -> Self {
        Self { text, line: 0 }
    }

    /// The next line with what ends it taken off; `None` at the end of the file.
    fn next_line(&mut self) -> io::Result<Option<Partial>> {
        let mut line = Partial::default();
        // The carriage return before a line feed is not part of the document.
        let keep_max = self.text.bytes_max.saturating_add(1);
        loop {
            let block = self.text.block()?;
            if block.is_empty() {
                return Ok((line.length > 0).then_some(line));
            }
            let end = memchr::memchr(b'\n', block);
            let part = &block[..end.unwrap_or(block.len())];
            line.push(part, keep_max);
            let used = part.len() + usize::from(end.is_some());
            self.text.input.consume(used);
            if end.is_some() {
                return Ok(Some(line));
            }
        }
    }

    fn origin(&self) -> Origin {
        Origin { file: Some(self.text.file.clone()), line: self.line, item: None }
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
            if line.bytes.last() == Some(&b'\r') {
                line.bytes.pop();
                line.length -= 1;
            }
            let given_up = line.bytes.is_empty() && line.length > 0;
            if given_up || !line.bytes.iter().all(u8::is_ascii_whitespace) {
                return Some(line.into_item(self.origin(), self.text.bytes_max));
            }
        }
    }
}
