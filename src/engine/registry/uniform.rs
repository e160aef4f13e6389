//! Hashing of what is a hash already.

use std::hash::{BuildHasherDefault, Hasher};

/// For keys that are hashes: eight bytes of them will do for a table.
pub(crate) type Uniform = BuildHasherDefault<Taken>;

/// Takes eight bytes as they are.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Taken(u64);

impl Hasher for Taken {
    fn write(&mut self, bytes: &[u8]) {
        // Of an array the length is written by `write_usize`, before it: the bytes count.
        self.0 = bytes.first_chunk().map_or(self.0, |bytes| u64::from_le_bytes(*bytes));
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
