//! What `rowdelta doctor` finds, on a healthy schema with one illness after another; and that its statements mend them.

mod illnesses;

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::command::{Scratch, install, output, sync};
use crate::support::{Database, db};

/// Nothing about these tables hurts.
const HEALTHY: &str = "
    CREATE TABLE orders (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, number text NOT NULL UNIQUE,
        customer text, seen timestamptz) WITH (fillfactor = 90);
    CREATE TABLE line (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, order_id bigint NOT NULL REFERENCES orders,
        sku text NOT NULL, qty int, note text, UNIQUE (order_id, sku));
    CREATE TABLE parcel (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, order_id bigint NOT NULL REFERENCES orders,
        code text NOT NULL UNIQUE);
    CREATE INDEX ON parcel (order_id);
    CREATE TABLE tag (id serial PRIMARY KEY, label text NOT NULL UNIQUE);
    CREATE TABLE order_tag (order_id bigint REFERENCES orders, tag_id int REFERENCES tag, PRIMARY KEY (order_id, tag_id));
    CREATE INDEX ON order_tag (tag_id);";

const MAPPING: &str = r#"
version = 1
name = "shop"

[root]
table = "orders"
key = ["number"]
id = "id"
columns = { number = "number", customer = "customer" }

[[root.children]]
name = "lines"
table = "line"
parent = "order_id"
id = "id"
key = ["sku"]
columns = { sku = "sku", qty = "qty" }

[[root.children]]
name = "parcels"
table = "parcel"
parent = "order_id"
key = ["code"]
unique_in = "all"
columns = { code = "." }

[[root.links]]
name = "tags"
table = "order_tag"
parent = "order_id"
target = "tag_id"
lookup = "tag"
match = { label = "." }

[lookups.tag]
table = "tag"
id = "id"
key = ["label"]
missing = "insert"

[sync]
mark_time = "seen"
"#;

const FEED: &str = r#"{"number": "a", "lines": [{"sku": "x", "qty": 1}], "parcels": ["p"], "tags": ["t"]}"#;

/// A database with these tables, the schema `rowdelta`, and the mapping.
struct Patient {
    db: Database,
    scratch: Scratch,
    mapping: PathBuf,
}

impl Patient {
    async fn new(more: &str) -> Self {
        let (db, scratch) = (db().await, Scratch::new());
        db.execute(HEALTHY).await;
        install(db.url());
        db.execute(more).await;
        let mapping = scratch.write("mapping.toml", MAPPING);
        Patient { db, scratch, mapping }
    }

    /// What doctor found, but for what is wrong with every server of the tests.
    fn findings(&self) -> Vec<Value> {
        findings(self.db.url(), &self.mapping).1
    }

    /// Runs the statements that a finding comes with.
    async fn mend(&self, finding: &Value) {
        for statement in statements(finding) {
            self.db.execute(&statement).await;
        }
    }

    /// The URL of another role.
    fn url_of(&self, role: &str) -> String {
        let (scheme, rest) = self.db.url().split_once("://").unwrap();
        format!("{scheme}://{role}@{}", rest.split_once('@').map_or(rest, |(_, rest)| rest))
    }
}

fn statements(finding: &Value) -> Vec<String> {
    let remedies = finding["sql"].as_array().unwrap();
    remedies.iter().map(|remedy| remedy["statement"].as_str().unwrap().to_owned()).collect()
}

/// The exit code, and what was found.
fn findings(url: &str, mapping: &Path) -> (i32, Vec<Value>) {
    let (code, stdout, stderr) = output(&["doctor", "-m", mapping.to_str().unwrap(), "-d", url, "--json"]);
    assert!(code < 2, "{stderr}");
    let told: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(told["version"], 1);
    let mut found = told["findings"].as_array().unwrap().clone();
    found.retain(|finding| finding["kind"] != "durability");
    (code, found)
}

/// What doctor prints for people.
fn text(url: &str, mapping: &Path) -> (i32, String) {
    let (code, stdout, stderr) = output(&["doctor", "-m", mapping.to_str().unwrap(), "-d", url]);
    assert_eq!(stderr, "");
    assert!(stdout.lines().all(|line| line.chars().count() <= 100), "wider than 100 columns:\n{stdout}");
    (code, stdout)
}

/// The statements of the block at the end, without those that are comments.
fn block(text: &str) -> Vec<String> {
    let Some((_, block)) = text.split_once("\n-- For psql") else { return Vec::new() };
    let lines = block.lines().skip(1).filter(|line| !line.starts_with("--"));
    let joined = lines.collect::<Vec<_>>().join(" ");
    joined.split_inclusive("; ").map(|statement| statement.trim().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p22_about_healthy_tables_there_is_nothing_to_say() {
    let patient = Patient::new("").await;
    assert_eq!(patient.findings(), Vec::<Value>::new());
    // Nor after a run.
    let feed = patient.scratch.write("feed.ndjson", FEED);
    sync(patient.db.url(), &patient.mapping, &[&feed]).succeeded();
    assert_eq!(patient.findings(), Vec::<Value>::new());
    assert_eq!(text(patient.db.url(), &patient.mapping).0, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p22_the_example_has_nothing_worse_than_notes() {
    let db = db().await;
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/convocatorias");
    db.execute(&std::fs::read_to_string(example.join("schema.sql")).unwrap()).await;
    install(db.url());
    let (code, found) = findings(db.url(), &example.join("mapping.toml"));
    assert_eq!(code, 0);
    assert!(found.iter().all(|finding| finding["severity"] == "note"), "{found:#?}");
}

/// Rows that are there twice, so that a unique index cannot be made.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p22_duplicates_are_counted_where_a_key_should_be_unique() {
    let patient = Patient::new(
        "ALTER TABLE line DROP CONSTRAINT line_order_id_sku_key; CREATE INDEX ON line (order_id);
         ALTER TABLE parcel DROP CONSTRAINT parcel_code_key;
         INSERT INTO orders (number) VALUES ('a'), ('b');
         INSERT INTO line (order_id, sku) VALUES (1, 'x'), (1, 'x'), (1, 'y'), (2, 'x');
         INSERT INTO parcel (order_id, code) VALUES (1, 'p'), (2, 'p'), (1, 'q'), (2, 'q')",
    )
    .await;
    let found = patient.findings();
    let of = |kind: &str| found.iter().find(|finding| finding["kind"] == kind).unwrap();
    let (parcels, lines) = (of("mapping"), of("no_unique"));
    assert_eq!(parcels["cost"], "2 repeated values stored: they must go first");
    assert_eq!(
        (&lines["severity"], &lines["message"]),
        (
            &"warning".into(),
            &r#"1 repeated value of ("order_id", "sku") stored, and no constraint forbids it"#.into()
        )
    );
    assert_eq!(
        parcels["advice"],
        r#"SELECT "code", count(*) FROM public.parcel GROUP BY "code" HAVING count(*) > 1 names them"#
    );
    let text = text(patient.db.url(), &patient.mapping).1;
    assert!(block(&text).is_empty(), "what would fail is no statement to paste:\n{text}");
    patient
        .db
        .execute(
            "DELETE FROM line WHERE id = 2; DELETE FROM parcel WHERE id > 2; UPDATE parcel SET code = id",
        )
        .await;
    for finding in patient.findings() {
        patient.mend(&finding).await;
    }
    assert_eq!(patient.findings().iter().map(|f| f["kind"].clone()).collect::<Vec<_>>(), ["redundant_index"]);
}

/// What a role needs is found in steps: what it may not look into is not known yet. In the end it can sync.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p40_the_grants_that_doctor_prints_are_what_a_sync_needs() {
    let patient = Patient::new(
        "CREATE TABLE attachment (order_id bigint REFERENCES orders ON DELETE CASCADE);
         CREATE INDEX ON attachment (order_id)",
    )
    .await;
    let role = format!("clerk_{}", patient.db.value("SELECT current_database()").await);
    patient.db.execute(&format!("CREATE ROLE {role} LOGIN CONNECTION LIMIT 3")).await;
    let url = patient.url_of(&role);
    let mut seen = Vec::new();
    for round in 1.. {
        let (code, found) = findings(&url, &patient.mapping);
        let errors: Vec<&Value> = found.iter().filter(|finding| finding["severity"] == "error").collect();
        assert_eq!(code, i32::from(!errors.is_empty()));
        if errors.is_empty() {
            assert!(found.iter().any(|finding| finding["kind"] == "connections"), "{found:#?}");
            break;
        }
        assert!(round < 4, "{errors:#?}");
        for statement in block(&text(&url, &patient.mapping).1) {
            patient.db.execute(&statement).await;
            seen.push(statement);
        }
    }
    let grants = [
        format!("GRANT USAGE ON SCHEMA rowdelta TO \"{role}\";"),
        format!("GRANT SELECT, INSERT, UPDATE, DELETE ON public.line TO \"{role}\";"),
        format!("GRANT SELECT, INSERT ON public.tag TO \"{role}\";"),
        format!("GRANT USAGE ON SEQUENCE public.tag_id_seq TO \"{role}\";"),
        format!("GRANT SELECT ON public.attachment TO \"{role}\";"),
        format!("GRANT SELECT, INSERT, UPDATE ON rowdelta.run TO \"{role}\";"),
    ];
    for grant in grants {
        assert!(seen.contains(&grant), "{grant}\n--\n{}", seen.join("\n"));
    }
    assert!(seen.iter().all(|statement| statement.starts_with("GRANT ")), "{seen:#?}");
    patient.db.execute(&format!("ALTER ROLE {role} CONNECTION LIMIT -1")).await;
    for feed in [FEED, r#"{"number": "a", "lines": [], "parcels": [], "tags": []}"#] {
        let feed = patient.scratch.write("feed.ndjson", feed);
        assert!(sync(&url, &patient.mapping, &[&feed]).succeeded().rows_written() > 0);
        assert_eq!(sync(&url, &patient.mapping, &[&feed]).succeeded().rows_written(), 0);
    }
    patient.db.execute(&format!("DROP OWNED BY {role}; DROP ROLE {role}")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p20_row_level_security_that_applies_is_told_with_its_policies() {
    let patient = Patient::new("ALTER TABLE parcel ENABLE ROW LEVEL SECURITY").await;
    let role = format!("tenant_{}", patient.db.value("SELECT current_database()").await);
    patient
        .db
        .execute(&format!(
            "CREATE ROLE {role} LOGIN; GRANT USAGE ON SCHEMA rowdelta TO {role};
             GRANT ALL ON ALL TABLES IN SCHEMA public, rowdelta TO {role};
             GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO {role};
             ALTER ROLE {role} SET default_transaction_read_only = on"
        ))
        .await;
    let kinds = |found: &[Value]| -> Vec<String> {
        found.iter().map(|finding| finding["kind"].as_str().unwrap().to_owned()).collect()
    };
    let url = patient.url_of(&role);
    let (_, found) = findings(&url, &patient.mapping);
    assert_eq!(kinds(&found), ["read_only", "row_policy", "row_security"], "{found:#?}");
    assert_eq!(
        found[1]["message"],
        "no policy lets the role SELECT, INSERT, UPDATE, DELETE: rows are hidden, or refused"
    );
    patient.db.execute("CREATE POLICY \"all\" ON parcel; CREATE POLICY others ON parcel TO postgres").await;
    patient.mend(&found[0]).await;
    let (_, found) = findings(&url, &patient.mapping);
    assert_eq!(kinds(&found), ["row_security"]);
    assert_eq!(found[0]["message"], "row-level security applies to the role: policy \"all\"");
    let printed = text(&url, &patient.mapping).1;
    let parcels = printed.lines().find(|line| line.starts_with("  parcels ")).unwrap();
    assert!(parcels.contains(" INSERT "), "{printed}");
    patient.db.execute(&format!("DROP OWNED BY {role}; DROP ROLE {role}")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p22_a_schema_that_is_closed_to_the_role_is_no_riddle() {
    let patient = Patient::new("CREATE SCHEMA hidden; CREATE TABLE hidden.t (k int PRIMARY KEY)").await;
    let mapping =
        "version = 1\nname = \"t\"\n[root]\ntable = \"hidden.t\"\nkey = [\"k\"]\ncolumns = { k = \"k\" }";
    let mapping = patient.scratch.write("hidden.toml", mapping);
    let role = format!("stranger_{}", patient.db.value("SELECT current_database()").await);
    patient.db.execute(&format!("CREATE ROLE {role} LOGIN")).await;
    let (code, found) = findings(&patient.url_of(&role), &mapping);
    assert_eq!(code, 1);
    assert_eq!(statements(&found[0]), [format!("GRANT USAGE ON SCHEMA \"hidden\" TO \"{role}\"")]);
    patient.db.execute(&format!("DROP ROLE {role}")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p22_the_whole_text_of_one_case() {
    let patient = Patient::new(illnesses::SEVERAL).await;
    let (code, printed) = text(patient.db.url(), &patient.mapping);
    assert_eq!(code, 1);
    let masked = masked(&printed, &patient.db.value("SELECT current_database()").await);
    assert_eq!(masked, include_str!("doctor/several.txt"), "--\n{masked}--");
    // The block can be pasted: what it mends is not found any more, and what is left is for people to decide.
    for statement in block(&printed) {
        patient.db.execute(&statement).await;
    }
    let (code, again) = text(patient.db.url(), &patient.mapping);
    assert_eq!((code, block(&again)), (0, Vec::new()), "{again}");
}

/// Without what differs from server to server: names, versions, sizes, and the blanks after them.
fn masked(printed: &str, database: &str) -> String {
    let mut lines = Vec::new();
    for line in printed.lines() {
        let indent = line.len() - line.trim_start().len();
        let mut words: Vec<String> =
            line.split_whitespace().map(|word| word.replace(database, "DB")).collect();
        for at in 1..words.len() {
            let is_unit = ["bytes", "KiB", "MiB"].contains(&words[at].trim_end_matches([',', ';']));
            if is_unit && words[at - 1].starts_with(|c: char| c.is_ascii_digit()) {
                words[at - 1] = "N".into();
                words[at] = words[at].replace("bytes", "KiB");
            }
            if words[at - 1] == "PostgreSQL" {
                words[at] = "V,".into();
            }
        }
        lines.push(format!("{}{}\n", &line[..indent], words.join(" ")));
    }
    lines.concat()
}
