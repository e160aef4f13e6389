//! A small shop for tests that need each fact by itself: orders with lines, files, tags and products.
//!
//! A [`Shop`] is a database of its own with the tables and a mapping, the oracle
//! beside it and all writes counted. Feeds are synced by the command.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::oracle::{Edit, Edits, State, Writes};
use crate::support::command::{self, Ran, Scratch};
use crate::support::{Database, db};

/// The tables: `file.official` is unique in its table, `tag` has no key at all.
pub const SCHEMA: &str = "
    CREATE TYPE status AS ENUM ('open', 'paid', 'sent');
    CREATE TABLE product (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, code text NOT NULL UNIQUE);
    CREATE TABLE orders (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, number text NOT NULL UNIQUE,
        customer varchar(10), city text, total numeric(10,2), units bigint, ordered date, paid timestamptz,
        status status, note text, remark text, summary text);
    CREATE TABLE line (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, order_id bigint NOT NULL REFERENCES orders,
        no int NOT NULL, label text, qty int, UNIQUE (order_id, no));
    CREATE TABLE serial (line_id bigint NOT NULL REFERENCES line, code text NOT NULL, PRIMARY KEY (line_id, code));
    CREATE TABLE file (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, order_id bigint NOT NULL REFERENCES orders,
        official int NOT NULL UNIQUE, name text, storage_path text);
    CREATE TABLE page (file_id bigint NOT NULL REFERENCES file, no int, body text, PRIMARY KEY (file_id, no));
    CREATE TABLE tag (order_id bigint NOT NULL REFERENCES orders, word text);
    CREATE TABLE order_product (order_id bigint REFERENCES orders, product_id int REFERENCES product,
        PRIMARY KEY (order_id, product_id));
    CREATE INDEX ON file (order_id);
    CREATE INDEX ON tag (order_id);";

/// The mapping of all of them.
pub const MAPPING: &str = r#"
version = 1
name = "shop"

[root]
table = "orders"
key = ["number"]
id = "id"

[root.columns]
number = "number"
customer = "customer"
city = "address.city"
total = "total"
units = "units"
ordered = "ordered"
paid = "paid"
status = "status"
note = "note"
remark = { path = "remark", when_absent = "null" }

[[root.children]]
name = "lines"
table = "line"
parent = "order_id"
id = "id"
key = ["no"]
columns = { no = "no", label = "label", qty = "qty" }

[[root.children.children]]
name = "serials"
table = "serial"
parent = "line_id"
key = ["code"]
columns = { code = "." }

[[root.children]]
name = "files"
table = "file"
parent = "order_id"
id = "id"
key = ["official"]
unique_in = "all"
columns = { official = "id", name = "name" }

[[root.children.children]]
name = "pages"
table = "page"
parent = "file_id"
key = ["no"]
columns = { no = "no", body = "body" }

[[root.children]]
name = "tags"
table = "tag"
parent = "order_id"
columns = { word = "." }

[[root.links]]
name = "products"
table = "order_product"
parent = "order_id"
target = "product_id"
lookup = "product"
match = { code = "." }

[lookups.product]
table = "product"
id = "id"
key = ["code"]
missing = "insert"
"#;

/// What has a mapping store a document's relations one by one.
pub const BY_RELATION: &str = "
[sync]
atomic = \"relation\"
";

/// The mapping of all of them with the tables in a schema, which is its name too.
pub fn mapping_in(schema: &str) -> String {
    let named = MAPPING.replace("name = \"shop\"", &format!("name = \"{schema}\""));
    named.replace("table = \"", &format!("table = \"{schema}."))
}

/// The shop: a database, what it should hold, and what was written.
pub struct Shop {
    pub db: Database,
    /// Where the command connects to.
    pub url: String,
    pub mapping: PathBuf,
    pub state: State,
    pub writes: Writes,
    pub scratch: Scratch,
}

impl Shop {
    /// With the tables and the mapping above.
    pub async fn open() -> Self {
        Self::with(SCHEMA, MAPPING).await
    }

    /// With other ones.
    pub async fn with(schema: &str, mapping: &str) -> Self {
        Self::in_database(db().await, schema, mapping).await
    }

    /// In a database of the caller's choice.
    pub async fn in_database(db: Database, schema: &str, mapping: &str) -> Self {
        let scratch = Scratch::new();
        let mapping = scratch.write("mapping.toml", mapping);
        db.execute(schema).await;
        command::install(db.url());
        let state = State::open(db.client().await, &mapping).await.unwrap();
        let writes = Writes::count(db.client().await, &state.mapping).await.unwrap();
        Self { url: db.url().to_owned(), db, mapping, state, writes, scratch }
    }

    /// Goes on with another mapping, and an oracle that has read the tables' types anew.
    pub async fn remap(&mut self, mapping: &str) {
        self.mapping = self.scratch.write("mapping.toml", mapping);
        self.state = State::open(self.db.client().await, &self.mapping).await.unwrap();
        self.writes = Writes::count(self.db.client().await, &self.state.mapping).await.unwrap();
    }

    /// Brings back the server, which must be the shop's own and was killed, and goes on.
    pub async fn restart(&mut self) {
        self.db.restart().await;
        let mapping = std::fs::read_to_string(&self.mapping).unwrap();
        self.remap(&mapping).await;
    }

    /// Runs the command on a feed of these documents, whatever comes of it.
    pub async fn run(&self, docs: &[Value]) -> Ran {
        // A shop is small: what changes in a test is often a large share of it.
        self.run_with(docs, &["--allow-deletes", "1000000"]).await
    }

    /// As [`run`](Self::run), with more arguments.
    pub async fn run_with(&self, docs: &[Value], more: &[&str]) -> Ran {
        self.run_file(&self.scratch.write("feed.ndjson", ndjson(docs)), more).await
    }

    /// On a thread of its own: the runtime goes on driving the connections meanwhile.
    pub async fn run_file(&self, feed: &Path, more: &[&str]) -> Ran {
        let (url, mapping, feed) = (self.url.clone(), self.mapping.clone(), feed.to_owned());
        let more: Vec<String> = more.iter().map(|&argument| argument.to_owned()).collect();
        let run = move || {
            let more: Vec<&str> = more.iter().map(String::as_str).collect();
            command::sync_with(&url, &mapping, &[&feed], &more)
        };
        tokio::task::spawn_blocking(run).await.unwrap()
    }

    /// Syncs a feed that must succeed, and compares the tables and the rows written with the oracle's.
    pub async fn sync(&self, docs: &[Value]) -> Ran {
        self.expect(docs).await;
        let ran = self.run(docs).await.succeeded();
        self.check(&ran).await;
        ran
    }

    /// Tells the oracle what should be stored.
    pub async fn expect(&self, docs: &[Value]) {
        let docs: Vec<String> = docs.iter().map(Value::to_string).collect();
        self.state.feed(&docs).await.unwrap();
    }

    /// Compares the tables, the rows written and the report with the oracle's.
    pub async fn check(&self, ran: &Ran) {
        self.state.check().await.unwrap_or_else(|error| panic!("{error}\n{:#}", ran.report));
        let (written, least) = (self.written().await, self.state.smallest_edit().await.unwrap());
        assert_eq!(written, least, "rows written (left) and the smallest edit (right)");
        let total: u64 = least.values().map(|edit| edit.inserted + edit.updated + edit.deleted).sum();
        assert_eq!(ran.rows_written(), total, "the report's count, {:#}", ran.report["relations"]);
    }

    /// Rows written since the last call.
    pub async fn written(&self) -> Edits {
        self.writes.take().await.unwrap()
    }

    /// A query's rows as text, cells joined by a bar.
    pub async fn rows(&self, sql: &str) -> Vec<String> {
        let rows = self.db.table(sql).await;
        let cell = |cell: &Option<String>| cell.clone().unwrap_or_else(|| "NULL".into());
        rows.iter().map(|row| row.iter().map(cell).collect::<Vec<_>>().join("|")).collect()
    }

    /// Documents that the next run will do again although their bytes did not change.
    pub async fn unsettled(&self) -> String {
        self.db.value("SELECT count(*) FROM rowdelta.state WHERE NOT settled").await
    }
}

/// One document a line.
pub fn ndjson(docs: &[Value]) -> String {
    docs.iter().map(|doc| format!("{doc}\n")).collect()
}

/// Rows inserted, updated and deleted by table.
pub fn edits(list: &[(&str, u64, u64, u64)]) -> Edits {
    let edit = |&(table, inserted, updated, deleted): &(&str, u64, u64, u64)| {
        (table.to_owned(), Edit { inserted, updated, deleted })
    };
    list.iter().map(edit).collect()
}

/// The failures of a report, one a line, without the directory of their file:
/// `file:line, item n [document] relation path: message (sqlstate) retryable`.
pub fn failures(ran: &Ran) -> Vec<String> {
    let list = ran.report["failures"].as_array().unwrap_or_else(|| panic!("no report\n{}", ran.stderr));
    list.iter().map(failure).collect()
}

fn failure(failure: &Value) -> String {
    let text = |name: &str| failure[name].as_str();
    let file = text("file").map(|file| Path::new(file).file_name().unwrap().to_string_lossy().into_owned());
    let mut line = format!("{}:{}", file.unwrap_or_default(), failure["line"]);
    if let Some(item) = failure["item"].as_u64() {
        line += &format!(", item {item}");
    }
    if let Some(document) = text("document") {
        line += &format!(" [{document}]");
    }
    for part in [text("relation"), text("path")].into_iter().flatten() {
        line += &format!(" {part}");
    }
    line += &format!(": {}", text("message").unwrap());
    if let Some(code) = text("sqlstate") {
        line += &format!(" ({code})");
    }
    if failure["retryable"] == true {
        line += " retryable";
    }
    line
}
