//! The runs that "must be seen", on real feeds, with the command as a user runs it.
//!
//! They need the real data, which is no part of the repository: without it each
//! says that it was skipped. Rows are compared with the oracle's, writes are
//! counted by triggers.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use rowdelta::postgres::local::Options;
use serde_json::Value;

use crate::oracle::{Edit, Edits, State, Writes};
use crate::support::command::{self, Ran, Scratch};
use crate::support::{Database, db, db_on, feed};
use crate::verify::verify_at;

pub const REAL_ALL: &str = "bdns/real-all.ndjson.gz";
/// What a night without changes may write of its own: the run's row, its lease.
const WAL_MAX: u64 = 64 * 1024;
const MEMORY_MAX: u64 = 150 << 20;

/// A database with an example's tables, the core installed, the oracle beside it and writes counted.
pub struct Night {
    pub db: Database,
    pub mapping: PathBuf,
    pub state: State,
    pub writes: Writes,
}

pub fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(name)
}

pub fn schema_of(name: &str) -> String {
    let path = example(name).join("schema.sql");
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

impl Night {
    pub async fn of(name: &str) -> Self {
        Self::with_mapping(name, &example(name).join("mapping.toml")).await
    }

    async fn with_mapping(name: &str, mapping: &Path) -> Self {
        Self::in_database(db().await, name, mapping).await
    }

    async fn in_database(db: Database, name: &str, mapping: &Path) -> Self {
        Self::with_tables(db, &schema_of(name), mapping).await
    }

    async fn with_tables(db: Database, schema: &str, mapping: &Path) -> Self {
        db.execute(schema).await;
        command::install(db.url());
        let state = State::open(db.client().await, mapping).await.unwrap();
        let writes = Writes::count(db.client().await, &state.mapping).await.unwrap();
        Self { db, mapping: mapping.into(), state, writes }
    }

    /// Syncs a feed that must succeed, and compares the tables and the rows written with the oracle's.
    pub async fn sync(&self, path: &Path) -> Ran {
        self.state.feed(&feed::lines(path)).await.unwrap();
        let ran = self.run(path).await.succeeded();
        self.check(path, &ran).await;
        ran
    }

    /// Compares the tables and the rows written with the oracle's, after a feed that must have succeeded.
    pub async fn check(&self, path: &Path, ran: &Ran) {
        assert_eq!(ran.documents("failed"), 0, "{:#}", ran.report);
        self.state.check().await.unwrap_or_else(|error| panic!("{}\n{error}", path.display()));
        let (written, least) = (self.writes.take().await.unwrap(), self.state.smallest_edit().await.unwrap());
        let written = self.without_marks(written, &least, ran);
        assert_eq!(written, least, "rows written (left) and the smallest edit (right), {}", path.display());
        assert_eq!(ran.rows_written(), total(&least), "the report's count, {:#}", ran.report["relations"]);
    }

    /// Marks are counted apart: every changed document costs an UPDATE of its root row, whatever changed in it.
    fn without_marks(&self, mut written: Edits, least: &Edits, ran: &Ran) -> Edits {
        if ran.report["marks"].as_u64().unwrap_or(0) > 0 {
            let root = &self.state.mapping.relations[0].table;
            let edit = written.entry(root.clone()).or_default();
            assert_eq!(edit.updated, ran.documents("changed"), "root rows updated, {:#}", ran.report);
            edit.updated = least.get(root).map_or(0, |edit| edit.updated);
            written.retain(|_, edit| *edit != Edit::default());
        }
        written
    }

    /// Syncs a first feed, for what comes after it: another test compares it with the oracle.
    pub async fn fill(&self, path: &Path) {
        self.run(path).await.succeeded();
        self.writes.take().await.unwrap();
    }

    /// Syncs a feed that must not write a row.
    pub async fn sync_nothing(&self, path: &Path) -> Ran {
        let ran = self.run(path).await.succeeded();
        assert_eq!(self.writes.take().await.unwrap(), Edits::new(), "{}", path.display());
        assert_eq!(ran.rows_written(), 0, "{:#}", ran.report["relations"]);
        ran
    }

    /// On a thread of its own: the runtime goes on driving the connections meanwhile.
    async fn run(&self, path: &Path) -> Ran {
        self.run_with(path, &[]).await
    }

    async fn run_with(&self, path: &Path, more: &'static [&'static str]) -> Ran {
        let (url, mapping, path) = (self.db.url().to_owned(), self.mapping.clone(), path.to_owned());
        let run = move || command::sync_with(&url, &mapping, &[&path], more);
        tokio::task::spawn_blocking(run).await.unwrap()
    }

    /// The surrogate ids of a table by natural key, as text.
    async fn ids(&self, table: &str, key: &str) -> Vec<Vec<Option<String>>> {
        self.db.table(&format!("SELECT {key}::text, id::text FROM {table} ORDER BY 1")).await
    }

    /// The mapped tables, quoted.
    fn tables(&self) -> Vec<String> {
        let relations = self.state.mapping.relations.iter().map(|relation| relation.table.clone());
        let mut tables: Vec<String> =
            relations.chain(self.state.mapping.lookups.iter().map(|lookup| lookup.table.clone())).collect();
        tables.sort();
        tables.dedup();
        tables.iter().map(|table| format!("\"{}\"", table.replace('.', "\".\""))).collect()
    }
}

fn total(edits: &Edits) -> u64 {
    edits.values().map(|edit| edit.inserted + edit.updated + edit.deleted).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p01_all_real_calls_as_one_array_are_the_documents_of_the_lines() {
    let Some(path) = feed::real(REAL_ALL) else { return };
    let (night, scratch) = (Night::of("convocatorias").await, Scratch::new());
    night.fill(&path).await;
    let array = scratch.write("calls.json", format!("[{}]", feed::lines(&path).join(",")));
    let ran = night.sync_nothing(&array).await;
    assert_eq!((ran.documents("read"), ran.documents("unchanged")), (8776, 8776));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p31_p32_a_complete_feed_of_real_calls_sweeps_what_it_lacks_unless_it_is_in_doubt() {
    let Some(path) = feed::real(REAL_ALL) else { return };
    let (night, scratch) = (Night::of("convocatorias").await, Scratch::new());
    night.fill(&path).await;
    let lines = feed::lines(&path);
    let first = |count: usize| scratch.write("first.ndjson", lines[..count].join("\n"));
    night.state.feed(&lines).await.unwrap();
    night.state.feed(&lines[..8_000]).await.unwrap();
    night.state.only_the_last_feed().await.unwrap();
    let ran = night.run_with(&first(8_000), &["--complete"]).await.succeeded();
    assert_eq!((ran.documents("absent"), ran.documents("removed")), (776, 776));
    night.state.check().await.unwrap();
    let (written, least) = (night.writes.take().await.unwrap(), night.state.smallest_edit().await.unwrap());
    assert_eq!(written, least, "rows written (left) and the smallest edit (right)");
    for (count, code) in [(8_000, 0), (4_000, 3), (0, 3)] {
        let ran = night.run_with(&first(count), &["--complete"]).await;
        assert_eq!(ran.code, code, "{}", ran.stderr);
        assert_eq!(night.writes.take().await.unwrap(), Edits::new(), "the first {count}");
    }
}

/// All the feeds of a folder, by date.
pub fn nights(folder: &str) -> Option<Vec<PathBuf>> {
    let entries = std::fs::read_dir(feed::real(folder)?).unwrap();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.to_string_lossy().ends_with(".ndjson.gz"));
    files.sort();
    Some(files)
}

fn respelled(scratch: &Scratch, path: &Path, spell: impl Fn(&str) -> String) -> PathBuf {
    let lines: String = feed::lines(path).iter().map(|line| spell(line) + "\n").collect();
    scratch.write("respelled.ndjson", lines)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p02_first_sync_of_all_real_calls_equals_the_oracle() {
    let Some(path) = feed::real(REAL_ALL) else { return };
    let night = Night::of("convocatorias").await;
    let ran = night.sync(&path).await;
    assert_eq!(ran.documents("new"), 8776);
    assert!(night.tables().len() >= 15, "{:?}", night.tables());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p01_second_sync_of_all_real_calls_writes_no_row_and_next_to_no_wal() {
    let Some(path) = feed::real(REAL_ALL) else { return };
    // As in production, whole page images included: the tests' shared server writes next to no WAL.
    let db = db_on(Options::durable().setting("autovacuum", "off").setting("max_wal_size", "4GB")).await;
    let night = Night::in_database(db, "convocatorias", &example("convocatorias").join("mapping.toml")).await;
    night.sync(&path).await;
    night.db.execute("VACUUM").await;
    night.db.execute("CHECKPOINT").await;
    let before = night.db.value("SELECT pg_current_wal_insert_lsn()").await;
    let ran = night.sync_nothing(&path).await;
    let wal =
        night.db.value(&format!("SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '{before}')")).await;
    assert_eq!(ran.documents("unchanged"), 8776);
    assert!(wal.parse::<u64>().unwrap() < WAL_MAX, "{wal} bytes of WAL");
    println!("{wal} bytes of WAL");
    night.state.check().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p15_all_real_calls_respelled_write_nothing() {
    let Some(path) = feed::real(REAL_ALL) else { return };
    let (night, scratch) = (Night::of("convocatorias").await, Scratch::new());
    night.fill(&path).await;
    for spell in [feed::keys_reversed, feed::spaced] {
        let ran = night.sync_nothing(&respelled(&scratch, &path, spell)).await;
        assert_eq!(ran.documents("unchanged"), 8776);
    }
}

/// Both ways: bytes that were seen before, and bytes that were not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p01_unchanged_calls_pass_while_another_session_holds_every_row() {
    let Some(path) = feed::real(REAL_ALL) else { return };
    let (night, scratch) = (Night::of("convocatorias").await, Scratch::new());
    night.fill(&path).await;
    let holder = night.db.client().await;
    holder.batch_execute("BEGIN").await.unwrap();
    for table in night.tables() {
        holder
            .simple_query(&format!("SELECT count(*) FROM (SELECT FROM {table} FOR UPDATE) x"))
            .await
            .unwrap();
    }
    night.sync_nothing(&path).await;
    night.sync_nothing(&respelled(&scratch, &path, feed::spaced)).await;
    holder.batch_execute("ROLLBACK").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p13_a_night_of_reordered_lists_writes_nothing() {
    let Some(nights) = nights("bdns/nights") else { return };
    let night = Night::of("convocatorias").await;
    night.sync(&nights[0]).await;
    let ran = night.sync_nothing(&nights[1]).await;
    assert_eq!(ran.documents("unchanged"), 3149);
    assert_eq!(ran.documents("changed"), 0);
    night.state.feed(&feed::lines(&nights[1])).await.unwrap();
    night.state.check().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p04_five_nights_write_the_smallest_edit_and_keep_ids_and_storage_paths() {
    let Some(nights) = nights("bdns/replay") else { return };
    let night = Night::of("convocatorias").await;
    let mut stored = Vec::new();
    for path in &nights {
        let ran = night.sync(path).await;
        println!("{}: {}", path.display(), ran.report["documents"]);
        assert_survives(&stored, &night.ids("convocatoria", "codigo_bdns").await);
        stored = night.ids("convocatoria", "codigo_bdns").await;
        assert_paths_survive(&night).await;
        fill_storage_paths(&night).await;
    }
}

/// What a later step of the pipeline does: each file that has no path yet gets one, made from its id.
async fn fill_storage_paths(night: &Night) {
    night.db.execute("UPDATE documento SET storage_path = 'files/' || id WHERE storage_path IS NULL").await;
    night.writes.take().await.unwrap();
    night.db.execute("DROP TABLE IF EXISTS public.remembered").await;
    night.db.execute("CREATE TABLE public.remembered AS SELECT id, storage_path FROM documento").await;
}

async fn assert_paths_survive(night: &Night) {
    if night.db.value("SELECT to_regclass('public.remembered')").await == "NULL" {
        return;
    }
    // No call loses a document in these nights, so every row must still be there, under its id.
    let lost = "SELECT r.* FROM remembered r LEFT JOIN documento d USING (id)
                WHERE d.storage_path IS DISTINCT FROM r.storage_path LIMIT 3";
    assert_eq!(night.db.table(lost).await, Vec::<Vec<Option<String>>>::new());
}

fn assert_survives(stored: &[Vec<Option<String>>], now: &[Vec<Option<String>>]) {
    let now: std::collections::HashSet<_> = now.iter().collect();
    let lost: Vec<_> = stored.iter().filter(|row| !now.contains(row)).take(3).collect();
    assert!(lost.is_empty(), "changed or gone: {lost:?}");
}

/// What a Prisma application adds to calls and documents, and by what it finds them.
const ADDED: &str = r#"
    SELECT "codigoBDNS", id::text, resumen, "estadoResumen"::text, visitas::text, "createdAt"::text FROM "Convocatoria"
    UNION ALL SELECT "idOficial"::text, id::text, "storagePath", NULL, NULL, "createdAt"::text FROM "Documento""#;

/// Tables as Prisma makes them. The client's part of its job, `updatedAt`, is the mark's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p02_p04_p20_the_tables_of_a_prisma_application_keep_what_it_adds() {
    let (Some(all), Some(replay), Some(captures)) =
        (feed::real(REAL_ALL), nights("bdns/replay"), nights("bdns/nights"))
    else {
        return;
    };
    let night = Night::of("prisma").await;
    let mut added = Vec::new();
    for path in replay.iter().chain([&all]).chain(&captures) {
        let before = night.db.value("SELECT clock_timestamp()::timestamp(3)").await;
        let ran = night.sync(path).await;
        println!("{}: {}", path.display(), ran.report["documents"]);
        assert_survives(&added, &night.db.table(ADDED).await);
        let renewed = format!(r#"SELECT count(*) FROM "Convocatoria" WHERE "updatedAt" >= '{before}'"#);
        let changed = ran.documents("new") + ran.documents("changed");
        assert_eq!(night.db.value(&renewed).await, changed.to_string(), "calls with a new updatedAt");
        let application = r#"
            UPDATE "Documento" SET "storagePath" = 'files/' || id WHERE "storagePath" IS NULL;
            UPDATE "Convocatoria" SET resumen = 'R' || id, "estadoResumen" = 'HECHO', visitas = id % 7 WHERE resumen IS NULL;
            INSERT INTO "Favorito" (usuario, "convocatoriaId") SELECT 'u', id FROM "Convocatoria" ON CONFLICT DO NOTHING"#;
        night.db.execute(application).await;
        night.writes.take().await.unwrap();
        night.sync_nothing(path).await;
        added = night.db.table(ADDED).await;
    }
    assert_eq!(night.db.value(r#"SELECT count(*) FROM "Favorito""#).await, "8776");
}

/// Before version 6 Prisma gave the tables of its many-to-many relations a unique index in place of a primary key.
fn of_older_prisma(schema: &str) -> String {
    let names = schema.lines().filter_map(|line| line.strip_prefix("CREATE TABLE \"_")?.strip_suffix("\" ("));
    names.fold(schema.to_owned(), |schema, name| {
        let key = format!(",\n\n    CONSTRAINT \"_{name}_AB_pkey\" PRIMARY KEY (\"A\",\"B\")\n);");
        assert!(schema.contains(&key), "no {key}");
        schema.replace(
            &key,
            &format!("\n);\nCREATE UNIQUE INDEX \"_{name}_AB_unique\" ON \"_{name}\"(\"A\", \"B\");"),
        )
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p02_p20_relations_of_older_prisma_applications_have_no_primary_key() {
    let Some(path) = feed::real("bdns/real-sample.ndjson") else { return };
    let (schema, scratch) = (of_older_prisma(&schema_of("prisma")), Scratch::new());
    assert!(!schema.contains("_AB_pkey") && schema.matches("_AB_unique").count() == 7);
    let night = Night::with_tables(db().await, &schema, &example("prisma").join("mapping.toml")).await;
    night.sync(&path).await;
    night.sync_nothing(&path).await;
    // Twelve calls get the lists of the call before them.
    let mut docs: Vec<Value> =
        feed::lines(&path).iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    for at in (1..docs.len()).step_by(docs.len() / 12).take(12) {
        for list in ["regiones", "sectores", "tiposBeneficiarios"] {
            docs[at][list] = docs[at - 1][list].clone();
        }
    }
    let changed = scratch.write("changed.ndjson", crate::shop::ndjson(&docs));
    let ran = night.sync(&changed).await;
    assert!((8..=12).contains(&ran.documents("changed")), "{:#}", ran.report);
    night.sync_nothing(&changed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p02_ten_snapshots_of_lists_three_deep_write_the_smallest_edit() {
    let Some(nights) = nights("dotnet-releases") else { return };
    let night = Night::of("dotnet_releases").await;
    assert_eq!(nights.len(), 10);
    for path in &nights {
        let ran = night.sync(path).await;
        println!("{}: {}", path.display(), ran.report["documents"]);
        night.sync_nothing(path).await;
    }
}

/// Nothing differs as it was synced; what is then changed by hand is found, and mended.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p36_verify_finds_in_all_real_calls_what_was_changed_by_hand_and_nothing_else() {
    let Some(path) = feed::real(REAL_ALL) else { return };
    let night = Night::of("convocatorias").await;
    night.fill(&path).await;
    let with_feed = [path.to_str().unwrap()];
    for arguments in [&[][..], &with_feed] {
        let found = verify_at(night.db.url(), &night.mapping, arguments).await.finds_nothing();
        assert_eq!(found.count("/documents/equal"), 8776);
        println!("{}{:#}", found.stdout, found.report["unknown"]);
    }
    night
        .db
        .execute(
            "UPDATE convocatoria SET descripcion = descripcion || '.' WHERE id IN (SELECT id FROM convocatoria ORDER BY id LIMIT 3);
             DELETE FROM documento WHERE id IN (SELECT id FROM documento ORDER BY id DESC LIMIT 4)",
        )
        .await;
    night.writes.take().await.unwrap();
    let found = verify_at(night.db.url(), &night.mapping, &with_feed).await;
    assert_eq!((found.code, found.count("/relations/0/changed"), found.differences().len()), (5, 3, 7));
    let recorded = verify_at(night.db.url(), &night.mapping, &[]).await;
    assert_eq!((recorded.code, recorded.count("/relations/0/altered")), (5, 3));
    print!("{}{}", found.stdout, recorded.stdout);
    let repair = [with_feed[0], "--repair"];
    assert_eq!(verify_at(night.db.url(), &night.mapping, &repair).await.code, 0);
    assert_eq!(total(&night.writes.take().await.unwrap()), 7);
    verify_at(night.db.url(), &night.mapping, &[]).await.finds_nothing();
    night.sync_nothing(&path).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p36_verify_finds_nothing_in_lists_three_deep() {
    let Some(nights) = nights("dotnet-releases") else { return };
    let night = Night::of("dotnet_releases").await;
    for path in &nights[nights.len() - 2..] {
        night.fill(path).await;
        let found = verify_at(night.db.url(), &night.mapping, &[]).await.finds_nothing();
        println!("{}", found.stdout);
        verify_at(night.db.url(), &night.mapping, &[path.to_str().unwrap()]).await.finds_nothing();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p33_a_relation_added_to_the_mapping_costs_its_own_rows() {
    let Some(path) = feed::real("bdns/real-sample.ndjson") else { return };
    let scratch = Scratch::new();
    let whole = std::fs::read_to_string(example("convocatorias").join("mapping.toml")).unwrap();
    let less = scratch.write("less.toml", without_relation(&whole, "anuncios"));
    let mut night = Night::with_mapping("convocatorias", &less).await;
    night.sync(&path).await;
    assert_eq!(night.db.value("SELECT count(*) FROM anuncio").await, "0");
    night.mapping = example("convocatorias").join("mapping.toml");
    night.state = State::open(night.db.client().await, &night.mapping).await.unwrap();
    night.writes = Writes::count(night.db.client().await, &night.state.mapping).await.unwrap();
    night.sync(&path).await;
    let least = night.state.smallest_edit().await.unwrap();
    assert_eq!(least.keys().collect::<Vec<_>>(), ["anuncio"]);
}

/// The mapping's text without the relation of that name.
fn without_relation(text: &str, name: &str) -> String {
    let mut mapping: toml::Table = text.parse().unwrap();
    let children = mapping["root"]["children"].as_array_mut().unwrap();
    let before = children.len();
    children.retain(|child| child["name"].as_str() != Some(name));
    assert_eq!(children.len(), before - 1, "no relation `{name}` in the mapping");
    toml_text(&mapping)
}

/// Inline TOML of a table: the crate's own writer is not among the features that the tests need.
fn toml_text(table: &toml::Table) -> String {
    fn inline(value: &toml::Value) -> String {
        match value {
            toml::Value::Table(table) => {
                let pairs = table
                    .iter()
                    .map(|(key, value)| format!("{} = {}", Value::from(key.as_str()), inline(value)));
                format!("{{ {} }}", pairs.collect::<Vec<_>>().join(", "))
            }
            toml::Value::Array(list) => {
                format!("[{}]", list.iter().map(inline).collect::<Vec<_>>().join(", "))
            }
            toml::Value::String(text) => Value::from(text.as_str()).to_string(),
            toml::Value::Integer(number) => number.to_string(),
            toml::Value::Boolean(flag) => flag.to_string(),
            other => panic!("no mapping holds {other:?}"),
        }
    }
    table.iter().map(|(key, value)| format!("{key} = {}\n", inline(value))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p37_memory_is_flat_on_ten_times_as_many_documents() {
    let Some(path) = feed::real(REAL_ALL) else { return };
    let scratch = Scratch::new();
    let large = scratch.path("ten-times.ndjson");
    write_copies(&path, &large, 10);
    let mut peaks = Vec::new();
    for feed in [&path, &large] {
        let night = Night::of("convocatorias").await;
        for run in ["first", "again"] {
            let ran = night.run(feed).await.succeeded();
            println!("{} {run}: {:?} bytes at most", feed.display(), ran.peak_bytes);
            peaks.extend(ran.peak_bytes);
        }
    }
    if peaks.is_empty() {
        println!("skipped: this system does not tell a process's peak memory");
    }
    assert!(peaks.iter().all(|peak| *peak < MEMORY_MAX), "{peaks:?}");
    // Flat: ten times the documents may cost some 40 bytes each (P37); the rest is what the allocator keeps of batches
    // in flight, which was seen to differ by 8 to 17 MiB with the load of the machine.
    let room = 20 << 20;
    assert!(peaks.len() < 4 || (peaks[2] < peaks[0] + room && peaks[3] < peaks[1] + room), "{peaks:?}");
}

/// The same documents several times over, with new keys, so that all are different ones.
fn write_copies(from: &Path, to: &Path, copies: u64) {
    let lines = feed::lines(from);
    let mut out = std::io::BufWriter::new(std::fs::File::create(to).unwrap());
    for copy in 0..copies {
        for (at, line) in (0u64..).zip(&lines) {
            let mut doc: Value = serde_json::from_str(line).unwrap();
            // Six digits as in the real ones, which have the room for a hundred copies.
            doc["codigoBDNS"] = format!("{:06}", copy * lines.len() as u64 + at).into();
            shift_ids(&mut doc, copy);
            serde_json::to_writer(&mut out, &doc).unwrap();
            out.write_all(b"\n").unwrap();
        }
    }
    out.flush().unwrap();
}

/// By more than the largest real id, and still within an integer of four bytes.
fn shift_ids(doc: &mut Value, copy: u64) {
    let add = |value: &mut Value| *value = (value.as_u64().unwrap() + copy * 10_000_000).into();
    add(&mut doc["id"]);
    for (list, key) in [("documentos", "id"), ("anuncios", "numAnuncio")] {
        doc[list].as_array_mut().unwrap().iter_mut().for_each(|item| add(&mut item[key]));
    }
}
