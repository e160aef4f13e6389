//! What `rowdelta doctor` finds, on a healthy schema with one illness after another; and that its statements mend them.

mod illnesses;

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::shop::{MAPPING, SCHEMA};
use crate::support::command::{Scratch, install, output, sync};
use crate::support::{Database, db};

/// The shop with a mark, and nothing about its tables hurts.
const HEALTHY: &str = "
    ALTER TABLE orders ADD seen timestamptz;
    ALTER TABLE orders SET (fillfactor = 90);
    CREATE INDEX ON order_product (product_id);";

const MARKED: &str = "
[sync]
mark_time = \"seen\"
";

const FEED: &str =
    r#"{"number": "a", "lines": [{"no": 1, "qty": 1}], "files": [{"id": 1}], "products": ["p"]}"#;

/// A database with these tables, the schema `rowdelta`, and the mapping.
struct Patient {
    db: Database,
    scratch: Scratch,
    mapping: PathBuf,
}

impl Patient {
    async fn new(more: &str) -> Self {
        let (db, scratch) = (db().await, Scratch::new());
        db.execute(SCHEMA).await;
        db.execute(HEALTHY).await;
        install(db.url());
        db.execute(more).await;
        let mapping = scratch.write("mapping.toml", MAPPING.to_owned() + MARKED);
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
        "ALTER TABLE line DROP CONSTRAINT line_order_id_no_key; CREATE INDEX ON line (order_id);
         ALTER TABLE file DROP CONSTRAINT file_official_key;
         INSERT INTO orders (number) VALUES ('a'), ('b');
         INSERT INTO line (order_id, no) VALUES (1, 1), (1, 1), (1, 2), (2, 1);
         INSERT INTO file (order_id, official) VALUES (1, 1), (2, 1), (1, 2), (2, 2)",
    )
    .await;
    let found = patient.findings();
    let of = |kind: &str| found.iter().find(|finding| finding["kind"] == kind).unwrap();
    let (files, lines) = (of("mapping"), of("no_unique"));
    assert_eq!(files["cost"], "2 repeated values stored: they must go first");
    assert_eq!(
        (&lines["severity"], &lines["message"]),
        (
            &"warning".into(),
            &r#"1 repeated value of ("order_id", "no") stored, and no constraint forbids it"#.into()
        )
    );
    assert_eq!(
        files["advice"],
        r#"SELECT "official", count(*) FROM public.file GROUP BY "official" HAVING count(*) > 1 names them"#
    );
    let text = text(patient.db.url(), &patient.mapping).1;
    assert!(block(&text).is_empty(), "what would fail is no statement to paste:\n{text}");
    patient
        .db
        .execute(
            "DELETE FROM line WHERE id = 2; DELETE FROM file WHERE id > 2; UPDATE file SET official = id",
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
         CREATE INDEX ON attachment (order_id);
         CREATE TABLE photo (id int PRIMARY KEY, line_id bigint REFERENCES line ON DELETE CASCADE);
         CREATE INDEX ON photo (line_id);
         CREATE TABLE thumb (photo_id int REFERENCES photo ON DELETE CASCADE) PARTITION BY LIST (photo_id);
         CREATE TABLE thumb1 PARTITION OF thumb DEFAULT;
         CREATE SEQUENCE product_no;
         ALTER TABLE product ALTER id DROP IDENTITY, ALTER id SET DEFAULT nextval('product_no')",
    )
    .await;
    let role = format!("clerk_{}", patient.db.value("SELECT current_database()").await);
    // That it may read columns does not say that it may count rows that go along.
    patient
        .db
        .execute(&format!(
            "CREATE ROLE {role} LOGIN CONNECTION LIMIT 3; GRANT SELECT (id) ON photo TO {role};
             GRANT SELECT (xmin, id, order_id, no, label, qty), INSERT (order_id, no, label, qty),
                   UPDATE (order_id, no, label, qty), DELETE ON line TO {role}"
        ))
        .await;
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
        format!("GRANT SELECT, INSERT, UPDATE, DELETE ON public.file TO \"{role}\";"),
        format!("GRANT SELECT (\"ctid\", \"tableoid\") ON public.line TO \"{role}\";"),
        format!("GRANT SELECT (\"ctid\", \"line_id\", \"tableoid\") ON public.photo TO \"{role}\";"),
        format!("GRANT SELECT ON public.thumb TO \"{role}\";"),
        format!("GRANT SELECT, INSERT ON public.product TO \"{role}\";"),
        format!("GRANT USAGE ON SEQUENCE public.product_no TO \"{role}\";"),
        format!("GRANT SELECT ON public.attachment TO \"{role}\";"),
        format!("GRANT SELECT, INSERT, UPDATE ON rowdelta.run TO \"{role}\";"),
    ];
    for grant in grants {
        assert!(seen.contains(&grant), "{grant}\n--\n{}", seen.join("\n"));
    }
    assert!(seen.iter().all(|statement| statement.starts_with("GRANT ")), "{seen:#?}");
    patient.db.execute(&format!("ALTER ROLE {role} CONNECTION LIMIT -1")).await;
    for feed in [FEED, r#"{"number": "a", "lines": [], "files": [], "products": []}"#] {
        let feed = patient.scratch.write("feed.ndjson", feed);
        assert!(sync(&url, &patient.mapping, &[&feed]).succeeded().rows_written() > 0);
        assert_eq!(sync(&url, &patient.mapping, &[&feed]).succeeded().rows_written(), 0);
        let photos =
            patient.db.value("SELECT (SELECT count(*) FROM photo) + (SELECT count(*) FROM thumb)").await;
        assert_eq!(photos, "0", "they went along with the line");
        patient
            .db
            .execute("INSERT INTO photo SELECT 1, id FROM line; INSERT INTO thumb SELECT id FROM photo")
            .await;
    }
    patient.db.execute(&format!("DROP OWNED BY {role}; DROP ROLE {role}")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p20_row_level_security_that_applies_is_told_with_its_policies() {
    let patient = Patient::new("ALTER TABLE file ENABLE ROW LEVEL SECURITY").await;
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
    patient.db.execute("CREATE POLICY \"all\" ON file; CREATE POLICY others ON file TO postgres").await;
    patient.mend(&found[0]).await;
    let (_, found) = findings(&url, &patient.mapping);
    assert_eq!(kinds(&found), ["row_security"]);
    assert_eq!(found[0]["message"], "row-level security applies to the role: policy \"all\"");
    let printed = text(&url, &patient.mapping).1;
    let files = printed.lines().find(|line| line.starts_with("  files ")).unwrap();
    assert!(files.contains(" INSERT "), "{printed}");
    patient.db.execute(&format!("DROP OWNED BY {role}; DROP ROLE {role}")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p22_a_schema_that_is_closed_to_the_role_is_no_riddle() {
    let patient = Patient::new(
        "CREATE SCHEMA hidden; CREATE TABLE hidden.t (k int PRIMARY KEY); CREATE TABLE open (t_k int, k int)",
    )
    .await;
    let mapping = "version = 1\nname = \"t\"\n[root]\ntable = \"hidden.t\"\nkey = [\"k\"]\ncolumns = { k = \"k\" }\n\
         [[root.children]]\nname = \"open\"\ntable = \"open\"\nparent = \"t_k\"\ncolumns = { k = \"k\" }";
    let mapping = patient.scratch.write("hidden.toml", mapping);
    let role = format!("stranger_{}", patient.db.value("SELECT current_database()").await);
    patient.db.execute(&format!("CREATE ROLE {role} LOGIN")).await;
    let (code, found) = findings(&patient.url_of(&role), &mapping);
    assert_eq!(code, 1);
    let of_closed = found.iter().find(|finding| finding["relation"] == "t").unwrap();
    assert_eq!(statements(of_closed), [format!("GRANT USAGE ON SCHEMA hidden TO \"{role}\"")]);
    assert_eq!(of_closed["kind"], "mapping");
    // What can be known of other tables is told beside it.
    let of_open = found.iter().filter(|finding| finding["relation"] == "open");
    let kinds: Vec<&Value> = of_open.map(|finding| &finding["kind"]).collect();
    assert_eq!(kinds, ["mapping", "missing_index"], "{found:#?}");
    patient.db.execute(&format!("DROP ROLE {role}")).await;
}

/// Of what another role's statement does the server hides all but its locks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p22_an_index_that_is_just_being_made_is_no_broken_one() {
    let patient = Patient::new("").await;
    let role = format!("watcher_{}", patient.db.value("SELECT current_database()").await);
    patient.db.execute(&format!("CREATE ROLE {role} LOGIN")).await;
    let (mut writer, maker) = (patient.db.client().await, patient.db.client().await);
    let writes = writer.transaction().await.unwrap();
    writes.batch_execute("LOCK TABLE file IN ROW EXCLUSIVE MODE").await.unwrap();
    let made = tokio::spawn(async move {
        maker.batch_execute("CREATE INDEX CONCURRENTLY made ON file (name)").await.unwrap();
    });
    while patient.db.value("SELECT count(*) FROM pg_class WHERE relname = 'made'").await == "0" {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    let told = |found: Vec<Value>| {
        let of_index = found.into_iter().filter(|f| f["kind"].as_str().unwrap().ends_with("_index"));
        of_index.map(|f| (f["kind"].to_string(), f["message"].to_string())).collect::<Vec<_>>()
    };
    let cases =
        [(patient.db.url().to_owned(), "is being made just now"), (patient.url_of(&role), "holds a lock")];
    for (url, message) in cases {
        let found = told(findings(&url, &patient.mapping).1);
        let is_told =
            matches!(&found[..], [(kind, told)] if kind.contains("building") && told.contains(message));
        assert!(is_told, "{found:#?}");
    }
    writes.commit().await.unwrap();
    made.await.unwrap();
    assert!(told(patient.findings()).is_empty());
    patient.db.execute(&format!("DROP ROLE {role}")).await;
}

/// What is included in an index can be all that somebody asks of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p22_an_index_with_columns_that_another_lacks_is_not_redundant() {
    let patient = Patient::new("CREATE INDEX one ON line (order_id) INCLUDE (qty)").await;
    assert_eq!(patient.findings(), Vec::<Value>::new());
    patient.db.execute("CREATE INDEX two ON line (order_id, no) INCLUDE (qty, label)").await;
    let found = patient.findings();
    assert_eq!(found.len(), 1, "{found:#?}");
    assert_eq!(found[0]["message"], "index public.one answers nothing that public.two does not");
}

/// Every statement that others may feel says so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p22_statements_that_others_feel_come_with_a_caution() {
    let patient =
        Patient::new("ALTER TABLE file DROP CONSTRAINT file_pkey CASCADE, DROP CONSTRAINT file_official_key")
            .await;
    let database = patient.db.value("SELECT current_database()").await;
    patient
        .db
        .execute(&format!(
            "CREATE PUBLICATION p FOR TABLE file;
             ALTER DATABASE {database} SET statement_timeout = '5s';
             ALTER DATABASE {database} SET default_transaction_read_only = on"
        ))
        .await;
    let found = patient.findings();
    for word in ["statement_timeout", "read_only", "REPLICA IDENTITY FULL"] {
        let mut remedies = found.iter().flat_map(|finding| finding["sql"].as_array().unwrap());
        let remedy = remedies.find(|remedy| remedy["statement"].as_str().unwrap().contains(word));
        assert!(remedy.unwrap()["caution"].is_string(), "{word}: {found:#?}");
    }
}

/// What the table of tables says of the way to write and what is said of its triggers agree.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p21_p22_a_trigger_that_no_sync_fires_costs_no_copy() {
    let f = "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.name := lower(NEW.name); RETURN NEW; END'";
    let cases = [
        (
            "UPDATE OF storage_path",
            "COPY",
            "note",
            "fires before UPDATE OF \"storage_path\", which a sync does not send",
        ),
        ("UPDATE", "COPY", "warning", "rows that are updated are read back; new ones go by COPY"),
        ("INSERT", "INSERT", "warning", "no COPY: new rows go by INSERT"),
    ];
    for (events, way, severity, told) in cases {
        let trigger = format!("CREATE TRIGGER f BEFORE {events} ON file FOR EACH ROW EXECUTE FUNCTION f()");
        let patient = Patient::new(&format!("{f}; {trigger}")).await;
        let found = patient.findings();
        assert_eq!((found.len(), found[0]["severity"].as_str()), (1, Some(severity)), "{events}: {found:#?}");
        assert!(found[0].to_string().contains(&told.replace('"', "\\\"")), "{events}: {found:#?}");
        let printed = text(patient.db.url(), &patient.mapping).1;
        let files = printed.lines().find(|line| line.starts_with("  files ")).unwrap();
        assert!(files.contains(&format!(" {way} ")), "{events}: {printed}");
    }
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
    patient.db.execute("ALTER TABLE file REPLICA IDENTITY FULL").await;
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
