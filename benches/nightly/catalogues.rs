//! The ids of catalogue entries, remembered by the peers: read once, and again when entries were missing.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::sync::RwLock;

use futures_util::future::try_join_all;
use tokio_postgres::{Client, Error};

use crate::call::Call;
use crate::rows::{CATALOGUES, Cell, Refer, Rows, rows};

/// Between the parts of a key. No text of a call has it.
const SEPARATOR: &str = "\u{1f}";

/// Ids by key, for each catalogue.
type Ids = [HashMap<String, String>; 10];

/// What is known of the catalogues.
#[derive(Default)]
pub struct Catalogues(RwLock<Ids>);

/// Entries that have no id yet.
pub type Missing = BTreeSet<(usize, String)>;

/// The key of an entry in one text.
pub fn joined<'a>(key: &[&'a str]) -> Cow<'a, str> {
    match key {
        [only] => Cow::Borrowed(only),
        several => Cow::Owned(several.join(SEPARATOR)),
    }
}

/// The parts of such a text.
pub fn parts(key: &str) -> impl Iterator<Item = &str> {
    key.split(SEPARATOR)
}

impl Catalogues {
    /// Reads all of them.
    pub async fn load(client: &Client) -> Result<Self, Error> {
        let catalogues = Self::default();
        try_join_all((0..CATALOGUES.len()).map(|catalogue| catalogues.read(client, catalogue))).await?;
        Ok(catalogues)
    }

    async fn read(&self, client: &Client, catalogue: usize) -> Result<(), Error> {
        let known = &CATALOGUES[catalogue];
        let sql = format!(
            "SELECT id::text, concat_ws('{SEPARATOR}', {}) FROM {}",
            known.key.join(", "),
            known.table
        );
        let found = client.query(&sql, &[]).await?;
        let mut ids = self.0.write().expect("no panic while it is held");
        ids[catalogue].extend(found.iter().map(|row| (row.get(1), row.get(0))));
        Ok(())
    }

    /// The rows of calls, or the entries that they lack.
    pub fn rows<'a>(&self, calls: &'a [&Call<'_>]) -> Result<Vec<Rows<'a>>, Missing> {
        let ids = self.0.read().expect("no panic while it is held");
        let mut known = Known { ids: &ids, missing: Missing::new() };
        let made = calls.iter().map(|call| rows(call, &mut known)).collect();
        if known.missing.is_empty() { Ok(made) } else { Err(known.missing) }
    }

    /// Inserts entries, each catalogue's in a transaction of its own: that of the calls may last.
    pub async fn insert(&self, client: &Client, missing: &Missing) -> Result<(), Error> {
        let touched: BTreeSet<usize> = missing.iter().map(|(catalogue, _)| *catalogue).collect();
        for catalogue in touched {
            let keys = missing.iter().filter(|(of, _)| *of == catalogue).map(|(_, key)| key.as_str());
            let known = &CATALOGUES[catalogue];
            let parts: Vec<String> =
                (1..=known.key.len()).map(|part| format!("split_part(key, '{SEPARATOR}', {part})")).collect();
            let sql = format!(
                "INSERT INTO {} ({}) SELECT {} FROM unnest($1::text[]) AS keys (key) ON CONFLICT DO NOTHING",
                known.table,
                known.key.join(", "),
                parts.join(", "),
            );
            client.execute(&sql, &[&keys.collect::<Vec<_>>()]).await?;
            self.read(client, catalogue).await?;
        }
        Ok(())
    }

    /// The id of an entry.
    pub fn id(&self, catalogue: usize, key: &str) -> Option<String> {
        self.0.read().expect("no panic while it is held")[catalogue].get(key).cloned()
    }

    /// Notes the id of an entry.
    pub fn note(&self, catalogue: usize, key: &str, id: String) {
        self.0.write().expect("no panic while it is held")[catalogue].insert(key.to_owned(), id);
    }
}

struct Known<'i> {
    ids: &'i Ids,
    missing: Missing,
}

impl Refer for Known<'_> {
    fn refer<'a>(&mut self, catalogue: usize, key: &[&'a str]) -> Cell<'a> {
        let key = joined(key);
        match self.ids[catalogue].get(&*key) {
            Some(id) => Some(Cow::Owned(id.clone())),
            None => {
                self.missing.insert((catalogue, key.into_owned()));
                None
            }
        }
    }
}
