//! New rows as the bytes that COPY takes.

use super::Filled;

/// Bytes gathered before they are handed to the connection.
const CHUNK_BYTES: usize = 64 * 1024;

/// The COPY BINARY stream: signature, flags and extension length, tuples, and −1 at the end.
/// Source: "Binary Format" in PostgreSQL's documentation of COPY.
pub(super) fn copy_chunks(filled: &[Filled<'_>], rows: usize) -> impl Iterator<Item = bytes::Bytes> {
    let mut next = 0;
    let mut buffer = bytes::BytesMut::from(&b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0"[..]);
    std::iter::from_fn(move || {
        if next > rows {
            return None;
        }
        while next < rows && buffer.len() < CHUNK_BYTES {
            buffer.extend_from_slice(&(filled.len() as i16).to_be_bytes());
            for column in filled {
                let cell = column.cells[next].as_deref();
                buffer.extend_from_slice(&cell.map_or(-1, |cell| cell.len() as i32).to_be_bytes());
                buffer.extend_from_slice(cell.unwrap_or_default());
            }
            next += 1;
        }
        if next == rows {
            buffer.extend_from_slice(&(-1i16).to_be_bytes());
            next += 1;
        }
        Some(buffer.split().freeze())
    })
}
