//! Plays a case: the command on a database of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::case::{Case, Night};
use crate::support::cluster::cluster;
use crate::support::command::{self, Ran, Scratch};
use crate::support::{Database, db};

/// The tables that hold rows of the user's.
const TABLES: &str = "
    SELECT c.oid::regclass FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind = 'r' AND n.nspname NOT IN ('rowdelta', 'pg_catalog', 'information_schema', 'pg_toast')";

/// Of each table the versions of its rows, each by its place and the transaction that wrote it.
type Versions = BTreeMap<String, BTreeSet<(String, String)>>;

/// Plays a case; gives what is not as it says.
pub async fn play(case: &Case) -> Vec<String> {
    let lab = Lab::open(case).await;
    if let Some(lack) = lab.lacks(case).await {
        println!("skipped: {}: {lack}", case.name);
        return Vec::new();
    }
    lab.prepare(case).await;
    if case.night.is_empty() {
        return lab.is_refused(case).await;
    }
    let mut faults = Vec::new();
    for (at, night) in case.night.iter().enumerate() {
        let found = lab.night(night).await;
        faults.extend(found.into_iter().map(|fault| format!("night {}: {fault}", at + 1)));
    }
    if let Some(last) = case.night.last().filter(|last| last.fails.is_empty()) {
        faults.extend(lab.adopt(last).await);
    }
    faults
}

struct Lab {
    db: Database,
    scratch: Scratch,
    mapping: PathBuf,
    /// By whom the feeds are synced.
    url: String,
    role: String,
}

impl Lab {
    async fn open(case: &Case) -> Self {
        let db = db().await;
        let scratch = Scratch::new();
        let role = format!("role_{}", db.address().1);
        let url = match case.role {
            Some(_) => db.url().replace("//postgres@", &format!("//{role}@")),
            None => db.url().to_owned(),
        };
        Lab { mapping: scratch.write("mapping.toml", &case.mapping), db, scratch, url, role }
    }

    async fn lacks(&self, case: &Case) -> Option<String> {
        if cluster().major < case.requires {
            return Some(format!("PostgreSQL {}", case.requires));
        }
        for need in &case.needs {
            let sql = format!("SELECT EXISTS (SELECT FROM pg_available_extensions WHERE name = '{need}')");
            if self.db.value(&sql).await == "f" {
                return Some(need.clone());
            }
        }
        None
    }

    fn filled(&self, text: &str) -> String {
        let (socket, database) = self.db.address();
        let socket = socket.to_str().expect("a plain path");
        text.replace("$role", &self.role).replace("$database", database).replace("$socket", socket)
    }

    async fn prepare(&self, case: &Case) {
        command::install(self.db.url());
        self.db.execute(&self.filled(&case.tables)).await;
        if let Some(grants) = &case.role {
            // A pid may come again.
            self.db.execute(&format!("DROP ROLE IF EXISTS {0}; CREATE ROLE {0} LOGIN", self.role)).await;
            self.db.execute(&self.filled(grants)).await;
        }
    }

    async fn is_refused(&self, case: &Case) -> Vec<String> {
        let before = self.versions().await;
        let ran = self.sync("{}").await;
        let mut faults = Vec::new();
        if ran.code != 2 {
            faults.push(format!("exit code {}, not 2", ran.code));
        }
        let parts = case.refused.iter().map(|part| self.filled(part));
        let missing: Vec<String> = parts.filter(|part| !ran.stderr.contains(part)).collect();
        if !missing.is_empty() {
            faults.push(format!("{}\n  is not in\n{}", missing.join("\n  "), ran.stderr));
        }
        if self.versions().await != before || self.db.value("SELECT count(*) FROM rowdelta.run").await != "0"
        {
            faults.push("something was written".to_owned());
        }
        faults
    }

    /// One feed, and the same once more.
    async fn night(&self, night: &Night) -> Vec<String> {
        if !night.before.is_empty() {
            self.db.execute(&night.before).await;
        }
        let before = self.versions().await;
        let ran = self.sync(&night.feed).await;
        let after = self.versions().await;
        let mut faults = failures(night, &ran);
        faults.extend(differs("wrote, by the report", &wrote(&ran), &night.wrote));
        faults.extend(if faults.is_empty() { self.miscounted(&ran, &before, &after).await } else { None });
        if let Some(check) = &night.check {
            let rows = self.db.table(check).await;
            let cells = |row: &Vec<Option<String>>| {
                row.iter().map(|cell| cell.clone().unwrap_or_default()).collect::<Vec<_>>().join("|")
            };
            let rows = rows.iter().map(cells).collect::<Vec<_>>().join("\n");
            faults.extend(differs("holds", &rows, &night.holds.trim().to_owned()));
        }
        let again = self.sync(&night.feed).await;
        faults.extend(failures(night, &again).into_iter().map(|fault| format!("again: {fault}")));
        if self.versions().await != after {
            faults.push(format!("again: rows were written: {:#}", again.report["relations"]));
        }
        faults
    }

    /// With nothing known of what was stored: every row is read, and none written. Then `verify`.
    async fn adopt(&self, last: &Night) -> Vec<String> {
        self.db.execute("TRUNCATE rowdelta.document, rowdelta.base, rowdelta.skip").await;
        let before = self.versions().await;
        let ran = self.sync(&last.feed).await;
        let mut faults = failures(last, &ran);
        if self.versions().await != before || !wrote(&ran).is_empty() {
            faults.push(format!("adopting: rows were written: {:#}", ran.report["relations"]));
        }
        let feed = self.scratch.path("feed.ndjson");
        for feeds in [&[][..], &[feed.to_str().expect("a plain path")]] {
            let mapping = self.mapping.to_str().expect("a plain path");
            let arguments = [&["verify", "-d", &self.url, "-m", mapping], feeds].concat();
            let (code, output, errors) = command::output(&arguments);
            if code != 0 {
                faults.push(format!("verify with {} feeds: exit code {code}\n{output}{errors}", feeds.len()));
            }
        }
        faults
    }

    async fn sync(&self, feed: &str) -> Ran {
        let feed = self.scratch.write("feed.ndjson", feed);
        // Cases are small: what changes in them is often a large share.
        command::sync_with(&self.url, &self.mapping, &[&feed], &["--allow-deletes", "1000"])
    }

    async fn versions(&self) -> Versions {
        let mut versions = Versions::new();
        for table in self.db.table(TABLES).await.into_iter().flatten().flatten() {
            let rows = self.db.table(&format!("SELECT ctid, xmin FROM ONLY {table}")).await;
            let version = |row: Vec<Option<String>>| (row[0].clone().unwrap(), row[1].clone().unwrap());
            versions.insert(table, rows.into_iter().map(version).collect());
        }
        versions
    }

    /// The report against the versions of the rows: as many new ones as were added, updated and moved, and as many rows
    /// more or less as were added and removed. (Not where triggers write tables of their own.)
    async fn miscounted(&self, ran: &Ran, before: &Versions, after: &Versions) -> Option<String> {
        if self.db.value("SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal").await != "0" {
            return None;
        }
        let count = |kinds: &[&str]| -> i64 {
            let relations = ran.report["relations"].as_array().expect("relations in the report");
            let of = |kind: &&str| {
                relations.iter().map(|relation| relation[*kind].as_i64().unwrap_or(0)).sum::<i64>()
            };
            kinds.iter().map(of).sum()
        };
        let rows = |versions: &Versions| versions.values().map(|rows| rows.len() as i64).sum::<i64>();
        let none = BTreeSet::new();
        let new =
            after.iter().map(|(table, rows)| rows.difference(before.get(table).unwrap_or(&none)).count());
        let found = (new.sum::<usize>() as i64, rows(after) - rows(before));
        let told = (count(&["added", "updated", "moved"]), count(&["added"]) - count(&["removed"]));
        differs("row versions, and rows more than before", &found, &told)
    }
}

fn differs<T: PartialEq + std::fmt::Debug>(what: &str, found: &T, expected: &T) -> Option<String> {
    (found != expected).then(|| format!("{what}: {found:?}, not {expected:?}"))
}

/// Rows written, in words, by relation.
fn wrote(ran: &Ran) -> BTreeMap<String, String> {
    let mut wrote = BTreeMap::new();
    for relation in ran.report["relations"].as_array().into_iter().flatten() {
        let count =
            |kind: &&str| Some((relation[*kind].as_u64().filter(|&count| count > 0)?, (*kind).to_owned()));
        let kinds = ["added", "updated", "moved", "removed"];
        let counts = kinds.iter().filter_map(count).map(|(count, kind)| format!("{count} {kind}"));
        let counts = counts.collect::<Vec<_>>().join(", ");
        if !counts.is_empty() {
            wrote.insert(relation["name"].as_str().unwrap_or_default().to_owned(), counts);
        }
    }
    wrote
}

/// What differs between the documents that were to fail and those that did.
fn failures(night: &Night, ran: &Ran) -> Vec<String> {
    let text = |failure: &serde_json::Value, key: &str| failure[key].as_str().unwrap_or_default().to_owned();
    let words = |failure: &serde_json::Value| {
        let [document, relation, path, message] =
            ["document", "relation", "path", "message"].map(|key| text(failure, key));
        format!("{document}: {relation} {path} {message}")
    };
    let found: Vec<String> = ran.report["failures"].as_array().into_iter().flatten().map(words).collect();
    let is_that = |expected: &String, found: &String| {
        let (document, part) = expected.split_once(": ").expect("a document, and why");
        found.starts_with(&format!("{document}: ")) && found.contains(part)
    };
    let all = night.fails.iter().all(|expected| found.iter().any(|found| is_that(expected, found)));
    let mut faults = Vec::new();
    if !all || found.len() != night.fails.len() || (ran.code == 0) != night.fails.is_empty() {
        faults.push(format!(
            "exit code {}, failures {found:#?}, not {:#?}\n{}",
            ran.code, night.fails, ran.stderr
        ));
    }
    faults
}
