//! Columns whose change alone is none: `ignore = true`.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::shop::ndjson;
use crate::support::command::{self, Scratch};
use crate::support::{Database, db};
use crate::verify::verify_at;

const SCHEMA: &str = "
    CREATE TABLE call (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, code text NOT NULL UNIQUE, title text, notice text);
    CREATE TABLE line (call_id bigint NOT NULL REFERENCES call, sku text NOT NULL, qty int, seen text, PRIMARY KEY (call_id, sku));
    CREATE TABLE note (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, call_id bigint NOT NULL REFERENCES call, text text, seen text);";

const MAPPING: &str = r#"
version = 1
name = "calls"
[root]
table = "call"
key = ["code"]
id = "id"
columns = { code = "code", title = "title", notice = { path = "notice", ignore = true } }
[[root.children]]
name = "lines"
table = "line"
parent = "call_id"
key = ["sku"]
columns = { sku = "sku", qty = "qty", seen = { path = "seen", ignore = true } }
[[root.children]]
name = "notes"
table = "note"
parent = "call_id"
columns = { text = "text", seen = { path = "^.seen", ignore = true } }
"#;

fn call(code: &str, title: &str, qty: u32, text: &str, day: &str) -> Value {
    let lines = [("a", qty), ("b", 1)].map(|(sku, qty)| json!({"sku": sku, "qty": qty, "seen": day}));
    json!({"code": code, "title": title, "notice": day, "seen": day, "lines": lines, "notes": [{"text": text}, {"text": "n"}]})
}

/// A database with the tables, and the mapping as a file. (The oracle does not know of such columns: what is stored
/// depends on what changed when.)
struct Calls {
    db: Database,
    scratch: Scratch,
    mapping: PathBuf,
}

impl Calls {
    async fn new() -> Self {
        let db = db().await;
        db.execute(SCHEMA).await;
        command::install(db.url());
        let scratch = Scratch::new();
        let mapping = scratch.write("mapping.toml", MAPPING);
        Calls { db, scratch, mapping }
    }

    /// Syncs; gives the rows added, updated and removed by relation, of those in which any were.
    fn sync(&self, docs: &[Value]) -> Vec<(String, u64, u64, u64)> {
        let feed = self.scratch.write("feed.ndjson", ndjson(docs));
        let ran = command::sync(self.db.url(), &self.mapping, &[&feed]).succeeded();
        let relations = ran.report["relations"].as_array().unwrap().iter();
        let count = |relation: &Value, what: &str| relation[what].as_u64().unwrap();
        let edits = relations.map(|relation| {
            let name = relation["name"].as_str().unwrap().to_owned();
            (name, count(relation, "added"), count(relation, "updated"), count(relation, "removed"))
        });
        edits.filter(|(_, added, updated, removed)| added + updated + removed > 0).collect()
    }

    async fn stored(&self) -> String {
        let rows = "SELECT string_agg(r, '; ' ORDER BY r) FROM (
            SELECT concat_ws(' ', code, title, notice) AS r FROM call UNION ALL SELECT concat_ws(' ', sku, qty, seen) FROM line
            UNION ALL SELECT concat_ws(' ', text, seen) FROM note) x";
        self.db.value(rows).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p02_a_change_of_ignored_columns_alone_writes_nothing_and_goes_with_the_next_change_of_its_row() {
    let calls = Calls::new().await;
    let day = |day: &str| [call("1", "t", 1, "m", day), call("2", "t", 1, "m", day)];
    calls.sync(&day("mon"));
    let first = calls.stored().await;
    assert_eq!(calls.sync(&day("tue")), []);
    assert_eq!(calls.stored().await, first);

    // One column of one row: the others of its row are brought up to date with it, those of other rows are not.
    let wednesday = [call("1", "t", 2, "m", "wed"), call("2", "u", 1, "other", "wed")];
    let edit = |name: &str, added, updated, removed| (name.to_owned(), added, updated, removed);
    let expected = [edit("calls", 0, 1, 0), edit("lines", 0, 1, 0), edit("notes", 1, 0, 1)];
    assert_eq!(calls.sync(&wednesday), expected);
    let expected = "1 t mon; 2 u wed; a 1 mon; a 2 wed; b 1 mon; b 1 mon; m mon; n mon; n mon; other wed";
    assert_eq!(calls.stored().await, expected);
    assert_eq!(calls.sync(&wednesday), []);
    calls.db.execute("TRUNCATE rowdelta.document, rowdelta.base, rowdelta.skip").await;
    assert_eq!(calls.sync(&wednesday), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p36_an_ignored_column_that_somebody_changed_is_no_drift() {
    let calls = Calls::new().await;
    let docs = [call("1", "t", 1, "m", "mon")];
    calls.sync(&docs);
    calls
        .db
        .execute("UPDATE call SET notice = 'x'; UPDATE line SET seen = NULL; UPDATE note SET seen = 'y'")
        .await;
    verify_at(calls.db.url(), &calls.mapping, &[]).await.finds_nothing();
    let feed = calls.scratch.path("feed.ndjson");
    verify_at(calls.db.url(), &calls.mapping, &[feed.to_str().unwrap()]).await.finds_nothing();
}
