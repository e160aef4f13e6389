//! Reads documents of which nothing is known yet.

use std::collections::HashSet;

use super::distinct::{Tally, document};
use super::node::Node;
use crate::json::Json;

/// What the documents of a sample have in common: which fields there are, of which kind, and what repeats.
///
/// Its memory does not grow with what is read, but for 16 bytes a document.
#[derive(Clone, Debug, Default)]
pub struct Survey {
    pub(super) root: Node,
    pub(super) tally: Tally,
    documents: HashSet<u64>,
    repeated: u64,
    passed_over: u64,
}

impl Survey {
    /// A survey without documents.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a document into account, unless it came before. One that cannot be used leaves no trace but its count.
    ///
    /// # Errors
    /// It is not JSON, or no object; in words.
    pub fn read(&mut self, bytes: &[u8]) -> Result<(), String> {
        let json = Json::parse(bytes).map_err(|error| error.to_string()).and_then(|json| match &json {
            Json::Object(_) => Ok(json),
            other => Err(format!("expected an object, found {}", other.describe())),
        });
        let json = json.inspect_err(|_| self.passed_over += 1)?;
        if !self.documents.insert(document(&json)) {
            self.repeated += 1;
            return Ok(());
        }
        self.root.see(&json, &mut self.tally);
        while self.tally.hashes > self.tally.hashes_max {
            self.tally.bits += 1;
            self.tally.hashes = self.root.prune(&self.tally);
        }
        Ok(())
    }

    /// Counts a document that could not be had.
    pub fn pass_over(&mut self) {
        self.passed_over += 1;
    }

    /// Documents taken into account, each once.
    pub fn documents(&self) -> u64 {
        self.documents.len() as u64
    }

    /// Documents that came again, the same.
    pub fn repeated(&self) -> u64 {
        self.repeated
    }

    /// Documents that were of no use.
    pub fn passed_over(&self) -> u64 {
        self.passed_over
    }
}
