//! Changed rows in words, and the table `rowdelta.change`, which keeps them.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use serde::ser::{Serialize, SerializeMap, Serializer};
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Row, Transaction};

use crate::error::{Error, ErrorKind};
use crate::postgres::wire::{Param, array, typed};
use crate::shred::NULL_LABEL;

/// A row that a run wrote.
///
/// As JSON it is a line of `rowdelta sync --changes`, which is a contract: fields may be added, none changes its meaning.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Change {
    /// The key of the document in words: the values, joined by commas. `None` of a catalogue row, which belongs to none.
    pub document: Option<String>,
    /// The relation's name; the mapping's for the root, the lookup's for a catalogue.
    #[serde(serialize_with = "text")]
    pub relation: Arc<str>,
    /// The table, as the mapping names it.
    #[serde(serialize_with = "text")]
    pub table: Arc<str>,
    /// What became of the row.
    pub action: Action,
    /// The columns of the key that the mapping declares, as they are afterwards. `None` where it declares none.
    pub key: Option<Values>,
    /// The column that the mapping names as `id`.
    pub id: Option<String>,
    /// The columns that refer to the enclosing row, as they are afterwards; of a row that went as they were.
    pub parent: Option<Values>,
    /// Of a row that went the mapped columns; of one that was written the columns that changed, as they were.
    pub before: Option<Values>,
    /// Of a new row the mapped columns; of one that was written the columns that changed, as they are.
    pub after: Option<Values>,
}

fn text<S: Serializer>(text: &Arc<str>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(text)
}

/// What became of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// It was inserted.
    Added,
    /// Columns of it were set.
    Updated,
    /// It hangs under another row now; columns of it may have been set, too.
    Moved,
    /// It was deleted.
    Removed,
}

impl Action {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Action::Added => "added",
            Action::Updated => "updated",
            Action::Moved => "moved",
            Action::Removed => "removed",
        }
    }
}

/// Columns with their values, in the order in which the mapping was written; of kept changes by name. A value is what
/// PostgreSQL makes of it as text, so that none loses digits; NULL is `None`, and `null` in JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Values(pub Vec<(Arc<str>, Option<String>)>);

impl Values {
    /// The value of a column; `None`: it is not among them.
    pub fn get(&self, column: &str) -> Option<Option<&str>> {
        self.iter().find(|(name, _)| *name == column).map(|(_, value)| value)
    }

    /// From an object of texts.
    fn from_json(json: &str) -> Option<Self> {
        let object: BTreeMap<String, Option<String>> = serde_json::from_str(json).ok()?;
        Some(Values(object.into_iter().map(|(name, value)| (name.into(), value)).collect()))
    }

    /// The columns in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Option<&str>)> {
        self.0.iter().map(|(name, value)| (&**name, value.as_deref()))
    }
}

impl Serialize for Values {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        self.iter().try_for_each(|(name, value)| map.serialize_entry(name, &value))?;
        map.end()
    }
}

/// Who wants to know of changed rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Telling {
    /// Someone listens, or they are kept.
    pub on: bool,
    /// The mapping under which they are kept in `rowdelta.change`.
    pub history: Option<i32>,
}

/// Changes that are committed and not told yet.
#[derive(Debug, Default)]
pub(crate) struct Told {
    pub telling: Telling,
    pub changes: Vec<Change>,
    /// Changes of a transaction, by the server's id of it, whose COMMIT was not answered.
    pub unsure: Option<(String, Vec<Change>)>,
    /// Where new catalogue rows are noted before anybody else can see them.
    pub labels: Option<Arc<Labels>>,
}

/// What catalogue rows were called before they had ids: by lookup and id.
#[derive(Debug, Default)]
pub(crate) struct Labels(Mutex<HashMap<(String, String), String>>);

impl Labels {
    pub fn get(&self, lookup: &str, id: &str) -> Option<String> {
        let labels = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        labels.get(&(lookup.to_owned(), id.to_owned())).cloned()
    }

    /// Notes new rows.
    pub fn note(&self, changes: &[Change]) {
        let mut labels = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for change in changes {
            let Some(id) = &change.id else { continue };
            labels.insert((change.relation.to_string(), id.clone()), change.label());
        }
    }
}

impl Change {
    /// What a catalogue row is called that has no id yet.
    pub(crate) fn label(&self) -> String {
        let values = self.key.iter().flat_map(Values::iter);
        let words: Vec<&str> = values.map(|(_, value)| value.unwrap_or(NULL_LABEL)).collect();
        format!("(new {})", words.join(","))
    }
}

impl Telling {
    /// Keeps changes in the transaction that made them, if that is asked for.
    pub async fn keep(self, transaction: &Transaction<'_>, changes: &[Change]) -> Result<(), Error> {
        let Some(mapping) = self.history.filter(|_| !changes.is_empty()) else { return Ok(()) };
        let texts = |text: &dyn Fn(&Change) -> Option<String>| {
            let texts: Vec<Option<String>> = changes.iter().map(text).collect();
            let bytes = texts.iter().map(|text| text.as_deref().map(str::as_bytes));
            array(Type::TEXT.oid(), Type::TEXT_ARRAY.oid(), bytes)
        };
        let json = |values: &Option<Values>| values.as_ref().and_then(|v| serde_json::to_string(v).ok());
        let params = [
            Param::scalar(Type::INT4.oid(), Some(&mapping.to_be_bytes())),
            texts(&|change| change.document.clone()),
            texts(&|change| Some(change.relation.to_string())),
            texts(&|change| Some(change.action.as_str().to_owned())),
            texts(&|change| json(&change.key)),
            texts(&|change| json(&change.before)),
            texts(&|change| json(&change.after)),
        ];
        transaction.execute_typed(KEEP, &typed(&params)).await?;
        Ok(())
    }
}

const KEEP: &str = "
INSERT INTO rowdelta.change (mapping, document, relation, action, key, before, after)
SELECT $1, c.document, c.relation, c.action, c.key::jsonb, c.before::jsonb, c.after::jsonb
FROM unnest($2, $3, $4, $5, $6, $7) WITH ORDINALITY AS c (document, relation, action, key, before, after, n) ORDER BY n";

/// The server's id of a transaction.
pub(crate) async fn transaction_id(transaction: &Transaction<'_>) -> Result<String, Error> {
    Ok(transaction.query_typed_one("SELECT pg_current_xact_id()::text", &[]).await?.get(0))
}

/// Whether a transaction is committed, going by its id.
///
/// # Errors
/// Transient while the server has not noticed yet that the connection is gone.
pub(crate) async fn is_committed(client: &Client, id: &str) -> Result<bool, Error> {
    let row = client.query_typed_one("SELECT pg_xact_status($1::xid8)", &[(&id, Type::TEXT)]).await?;
    match row.get(0) {
        Some("in progress") => Err(Error::new(ErrorKind::Transient, "a transaction is still in progress")),
        status => Ok(status == Some("committed")),
    }
}

/// Deletes what has been kept for longer than `rowdelta.keep_history` says, if it says anything.
pub(crate) async fn forget_old(client: &Client, mapping: i32) -> Result<(), Error> {
    let sql =
        "SELECT rowdelta.forget_history(id) FROM rowdelta.mapping WHERE id = $1 AND history IS NOT NULL";
    client.query_typed(sql, &[(&mapping, Type::INT4)]).await?;
    Ok(())
}

/// A change as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Kept {
    /// When it was written: ISO 8601, in UTC, to the millisecond.
    pub at: String,
    /// The run of `rowdelta.run` that was at work then, if there was one.
    pub run: Option<i64>,
    /// As [`Change::document`].
    pub document: Option<String>,
    /// As [`Change::relation`].
    pub relation: String,
    /// As [`Change::action`].
    pub action: String,
    /// As [`Change::key`].
    pub key: Option<Values>,
    /// As [`Change::before`].
    pub before: Option<Values>,
    /// As [`Change::after`].
    pub after: Option<Values>,
}

/// What is kept of a document, oldest first; of more changes than so many the newest.
///
/// # Errors
/// The database's. The schema `rowdelta` must be installed: see
/// [`super::install::check`].
pub async fn history(client: &Client, mapping: &str, document: &str, max: u32) -> Result<Vec<Kept>, Error> {
    let params: &[(&(dyn postgres_types::ToSql + Sync), Type)] =
        &[(&mapping, Type::TEXT), (&document, Type::TEXT), (&i64::from(max), Type::INT8)];
    let rows = client.query_typed(HISTORY, params).await?;
    Ok(rows.iter().rev().map(kept).collect())
}

/// A run ends after all that it wrote; one that died, with the next one that began.
const HISTORY: &str = "
SELECT to_char(c.at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"') AS at,
       CASE WHEN r.finished IS NULL OR r.finished >= c.at THEN r.id END AS run, c.document,
       c.relation, c.action, c.key::text AS key, c.before::text AS before, c.after::text AS after
FROM rowdelta.change c JOIN rowdelta.mapping m ON m.id = c.mapping
LEFT JOIN LATERAL (
    SELECT r.id, r.finished FROM rowdelta.run r WHERE r.mapping = m.id AND r.started <= c.at
    ORDER BY r.id DESC LIMIT 1) AS r ON true
WHERE m.name = $1 AND c.document = $2 ORDER BY c.id DESC LIMIT $3";

fn kept(row: &Row) -> Kept {
    let json = |name: &str| {
        let text: Option<String> = row.get(name);
        text.and_then(|text| Values::from_json(&text))
    };
    Kept {
        at: row.get("at"),
        run: row.get("run"),
        document: row.get("document"),
        relation: row.get("relation"),
        action: row.get("action"),
        key: json("key"),
        before: json("before"),
        after: json("after"),
    }
}
