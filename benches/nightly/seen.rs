//! What the peers remember of documents from night to night: a table of hashes, of the bytes and of what is parsed.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio_postgres::{Client, Error};

use crate::call::Hash;

/// The table.
pub const TABLE: &str =
    "CREATE TABLE peer.seen (codigo text PRIMARY KEY, raw bytea NOT NULL, parsed bytea NOT NULL)
     WITH (fillfactor = 80)";

/// The hashes of the last night.
pub struct Seen {
    raw: HashMap<Hash, usize>,
    parsed: HashMap<Hash, usize>,
    codes: Vec<String>,
    met: Vec<AtomicBool>,
}

/// What is remembered of a document.
pub struct Record {
    /// Its key.
    pub code: String,
    /// The hash of its bytes.
    pub raw: Hash,
    /// The hash of what is parsed.
    pub parsed: Hash,
}

impl Seen {
    /// Reads the table.
    pub async fn load(client: &Client) -> Result<Self, Error> {
        let rows = client.query("SELECT codigo, raw, parsed FROM peer.seen", &[]).await?;
        let hash =
            |row: &tokio_postgres::Row, at| Hash::try_from(row.get::<_, &[u8]>(at)).unwrap_or_default();
        Ok(Self {
            raw: rows.iter().enumerate().map(|(at, row)| (hash(row, 1), at)).collect(),
            parsed: rows.iter().enumerate().map(|(at, row)| (hash(row, 2), at)).collect(),
            codes: rows.iter().map(|row| row.get(0)).collect(),
            met: rows.iter().map(|_| AtomicBool::new(false)).collect(),
        })
    }

    /// Whether a document of these bytes is known.
    pub fn knows_raw(&self, hash: &Hash) -> bool {
        self.meet(self.raw.get(hash))
    }

    /// Whether a document that says the same is known.
    pub fn knows_parsed(&self, hash: &Hash) -> bool {
        self.meet(self.parsed.get(hash))
    }

    fn meet(&self, at: Option<&usize>) -> bool {
        at.inspect(|&&at| self.met[at].store(true, Ordering::Relaxed)).is_some()
    }

    /// The keys of the documents that were known by a hash.
    pub fn met(&self) -> impl Iterator<Item = &str> {
        let met = self.codes.iter().zip(&self.met).filter(|(_, met)| met.load(Ordering::Relaxed));
        met.map(|(code, _)| code.as_str())
    }
}

/// Remembers documents.
pub async fn record(client: &Client, records: &[Record]) -> Result<u64, Error> {
    let codes: Vec<&str> = records.iter().map(|record| record.code.as_str()).collect();
    let raw: Vec<&[u8]> = records.iter().map(|record| &record.raw[..]).collect();
    let parsed: Vec<&[u8]> = records.iter().map(|record| &record.parsed[..]).collect();
    let sql = "INSERT INTO peer.seen SELECT * FROM unnest($1::text[], $2::bytea[], $3::bytea[])
               ON CONFLICT (codigo) DO UPDATE SET raw = EXCLUDED.raw, parsed = EXCLUDED.parsed";
    client.execute(sql, &[&codes, &raw, &parsed]).await
}
