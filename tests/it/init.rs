//! `rowdelta init`: what it proposes works without an edit, also on the nights after.
//!
//! `ROWDELTA_INIT_SEED` is the seed of the first random case, the next ones count up from it; `ROWDELTA_INIT_CASES` is
//! their number.

mod documents;

use std::path::{Path, PathBuf};
use std::process::Stdio;

use bytes::Bytes;
use fastrand::Rng;
use futures_util::stream;
use rowdelta::ddl::ddl;
use rowdelta::document::{Document, Origin};
use rowdelta::mapping::Mapping;
use rowdelta::propose::{Options, Survey, propose};

use crate::lanes::variable;
use crate::nights::case::{FRESH, engine};
use crate::nights::feed::World;
use crate::nights::shape::Shape;
use crate::real_data::nights;
use crate::support::command::{Ran, Scratch, binary, install, output, run, sync, sync_with};
use crate::support::{Database, db, feed};
use crate::tally::Drawn;

/// The tables that `rowdelta init` proposed for a feed, made and filled.
struct Site {
    db: Database,
    scratch: Scratch,
}

impl Site {
    /// `init`, `schema --create`, `sync --install`, and `sync` again: by the words of the documentation.
    async fn of(sample: &Path) -> (Self, Ran) {
        let site = Site { db: db().await, scratch: Scratch::new() };
        let (mapping, text) = (site.mapping(), |path: &Path| path.to_str().unwrap().to_owned());
        let (code, proposed, stderr) = output(&["init", &text(sample)]);
        assert_eq!((code, stderr.as_str()), (0, ""));
        println!("{proposed}");
        std::fs::write(&mapping, proposed).unwrap();
        let (code, _, stderr) =
            output(&["schema", "-m", &text(&mapping), "--create", "-d", site.db.url(), &text(sample)]);
        assert_eq!((code, stderr.as_str()), (0, ""));
        let first = sync_with(site.db.url(), &mapping, &[sample], &["--install"]).succeeded();
        assert_eq!((first.documents("failed"), first.documents("unsettled")), (0, 0), "{:#}", first.report);
        site.sync_nothing(sample);
        // Nor where every row is read back and compared.
        site.db.execute("TRUNCATE rowdelta.document, rowdelta.base, rowdelta.skip").await;
        site.sync_nothing(sample);
        (site, first)
    }

    fn mapping(&self) -> PathBuf {
        self.scratch.path("map.toml")
    }

    fn sync(&self, feed: &Path) -> Ran {
        let ran = sync(self.db.url(), &self.mapping(), &[feed]).succeeded();
        assert_eq!((ran.documents("failed"), ran.documents("unsettled")), (0, 0), "{:#}", ran.report);
        ran
    }

    fn sync_nothing(&self, feed: &Path) {
        assert_eq!(self.sync(feed).rows_written(), 0);
    }
}

#[tokio::test]
async fn the_generated_feed_syncs_as_proposed_every_night() {
    let scratch = Scratch::new();
    let dir = scratch.path("dumps");
    let (code, stderr) = run(&["demo", "--calls", "1000", "--write", dir.to_str().unwrap()]);
    assert_eq!((code, stderr.as_str()), (0, ""));
    let night = |number: u32| dir.join(format!("night-{number}.ndjson.gz"));
    let (site, first) = Site::of(&night(1)).await;
    assert_eq!(first.documents("new"), 1_000);
    assert!(first.documents("repeated") > 0, "a repeated document is no second one: {:#}", first.report);
    site.sync_nothing(&night(2));
    let changed = site.sync(&night(3));
    let share = changed.documents("changed");
    assert!((5..20).contains(&share) && changed.rows_written() < 1_000, "{:#}", changed.report);
    site.sync_nothing(&night(4));
}

#[tokio::test]
async fn real_calls_sync_as_proposed_and_a_night_in_another_order_writes_nothing() {
    let Some(nights) = nights("bdns/nights") else { return };
    let (site, first) = Site::of(&nights[0]).await;
    assert_eq!(first.documents("new"), 3_149);
    site.sync_nothing(&nights[1]);
    // Calls of other years, which the sample did not have.
    let path = feed::real("bdns/real-all.ndjson.gz").unwrap();
    let all = site.sync(&path);
    assert_eq!((all.documents("unchanged"), all.documents("new")), (3_149, 5_627));
    site.sync_nothing(&path);
}

#[tokio::test]
async fn real_calls_that_grow_from_night_to_night_sync_as_proposed() {
    let Some(nights) = nights("bdns/replay") else { return };
    let (site, _) = Site::of(&nights[0]).await;
    for night in &nights[1..] {
        assert!(site.sync(night).rows_written() > 0);
        site.sync_nothing(night);
    }
}

#[tokio::test]
async fn real_releases_sync_as_proposed_every_night() {
    let Some(nights) = nights("dotnet-releases") else { return };
    let (site, first) = Site::of(&nights[0]).await;
    assert_eq!(first.documents("new"), 3);
    for night in &nights[1..] {
        let ran = site.sync(night);
        assert!(ran.rows_written() > 0);
        site.sync_nothing(night);
    }
    let releases = site.db.value("SELECT count(*) FROM releases_releases").await;
    assert_eq!(releases, "88");
}

#[tokio::test]
async fn flat_real_summaries_sync_as_proposed() {
    let Some(path) = feed::real("bdns/busqueda-sample.ndjson") else { return };
    Site::of(&path).await;
}

const ORDERS: &str = include_str!("../../src/propose/orders.ndjson");

#[tokio::test]
async fn the_same_documents_give_the_same_mapping_whatever_they_come_in() {
    let scratch = Scratch::new();
    let lines = scratch.write("orders.ndjson", ORDERS);
    let array = format!("[{}]", ORDERS.lines().collect::<Vec<_>>().join(",\n"));
    let array = scratch.write("array.json", array);
    let propose = |path: &Path| {
        let (code, proposed, stderr) = output(&["init", "--name", "orders", path.to_str().unwrap()]);
        assert_eq!((code, stderr.as_str()), (0, ""));
        proposed
    };
    let proposed = propose(&lines);
    assert_eq!(proposed, include_str!("../../src/propose/orders.toml"));
    assert_eq!(propose(&array), proposed);
    let mut child = binary()
        .args(["init", "--name", "orders", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), ORDERS.as_bytes()).unwrap();
    assert_eq!(String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap(), proposed);
    Site::of(&lines).await;
}

#[test]
fn a_mapping_that_is_there_is_overwritten_only_by_force() {
    let scratch = Scratch::new();
    let feed = scratch.write("orders-2024-05-31.ndjson", ORDERS);
    let (feed, file) = (feed.to_str().unwrap(), scratch.path("map.toml"));
    let file = file.to_str().unwrap();
    let init = |more: &[&str]| output(&[&["init", feed, "-o", file], more].concat());
    let (code, said, stderr) = init(&[]);
    assert_eq!((code, stderr.as_str()), (0, ""));
    assert!(said.starts_with(&format!("{file}: 7 tables, from 12 documents\n")), "{said}");
    let written = std::fs::read_to_string(file).unwrap();
    assert!(written.contains("\nname = \"orders\"\n"), "the date is no part of the name: {written}");
    let (code, _, stderr) = init(&["--name", "other"]);
    assert_eq!(code, 2);
    assert_eq!(stderr, format!("rowdelta: {file} exists; give another name, or --force to overwrite it\n"));
    assert_eq!(std::fs::read_to_string(file).unwrap(), written);
    let (code, _, _) = init(&["--force", "--name", "shop", "--table", "sales.order", "--key", "orderNumber"]);
    assert_eq!(code, 0);
    let mapping = Mapping::from_toml(&std::fs::read_to_string(file).unwrap()).unwrap();
    assert_eq!(
        (mapping.name.as_str(), mapping.root().key.as_slice()),
        ("shop", &["order_number".to_owned()][..])
    );
    let tables: Vec<String> = mapping.relations.iter().map(|relation| relation.table.to_string()).collect();
    assert_eq!(tables[..3], ["sales.order", "sales.order_lines", "sales.order_serials"]);
}

#[test]
fn what_cannot_be_proposed_is_said_with_what_helps() {
    let scratch = Scratch::new();
    let said = |content: &str, more: &[&str]| {
        let feed = scratch.write("f.ndjson", content);
        let (code, stdout, stderr) = output(&[&["init", feed.to_str().unwrap()], more].concat());
        assert_eq!((code, stdout.as_str()), (2, ""), "{stderr}");
        stderr.replace(feed.to_str().unwrap(), "f.ndjson")
    };
    assert_eq!(
        said("", &[]),
        "rowdelta: the feed has no documents to propose a mapping from; give one with some\n"
    );
    let unreadable = said("{\n[1]\n", &[]);
    assert!(
        unreadable
            .starts_with("rowdelta: no document of the feed can be read; the first: f.ndjson:1: not JSON: "),
        "{unreadable}"
    );
    assert_eq!(
        said("{\"code\": 1, \"x\": 1}\n{\"code\": 1, \"x\": null}\n{\"code\": 2, \"x\": 2}\n", &[]),
        "rowdelta: no field tells the 3 documents apart: in each of them, no two alike; the nearest:\n  \
         `code` has in 1 document a value that another has\n  `x` is null or absent in 1 document\n\
         name the key with --key FIELD; several times, if it takes several fields\n"
    );
    assert_eq!(
        said("{\"a\": {\"b\": 1}, \"l\": []}\n", &["--key", "b"]),
        "rowdelta: no document has a plain value at `b`; the fields are `a.b`\n"
    );
    assert_eq!(
        said("{\"id\": 1}\n", &["--table", "a.b.c"]),
        "rowdelta: --table a.b.c: write TABLE or SCHEMA.TABLE, without quotes\n"
    );
    let broken = scratch.write("b.ndjson.gz", &b"\x1f\x8b\x08 torn"[..]);
    let (code, stderr) = run(&["init", broken.to_str().unwrap()]);
    assert_eq!(code, 2);
    assert!(stderr.contains("b.ndjson.gz"), "{stderr}");
    let missing = scratch.path("none.ndjson");
    let (code, stderr) = run(&["init", missing.to_str().unwrap()]);
    assert_eq!(code, 2);
    assert!(stderr.contains("none.ndjson"), "{stderr}");
}

#[test]
fn documents_that_cannot_be_read_are_counted_and_a_sample_ends_where_it_is_told_to() {
    let scratch = Scratch::new();
    let feed = scratch.write("f.ndjson", "{\"id\": 1}\n{\n{\"id\": 2}\n{\"id\": \"x\"}\n");
    let feed = feed.to_str().unwrap();
    let (code, proposed, stderr) = output(&["init", feed, "--sample", "2"]);
    assert_eq!(code, 0);
    assert!(stderr.starts_with("rowdelta: 1 of 3 documents passed over; the first: "), "{stderr}");
    assert!(
        proposed.starts_with("# Proposed by rowdelta init from 2 documents (1 more could not be read); ")
    );
    assert!(proposed.contains("id = { path = \"id\", type = \"bigint\" }\n"), "{proposed}");
}

/// A key of two fields, asked for; and one of which the sample says that it is none.
#[tokio::test]
async fn a_key_that_is_asked_for_is_taken() {
    let scratch = Scratch::new();
    let documents = "{\"year\": 1, \"no\": 1, \"lines\": [{\"a\": 1}]}\n{\"year\": 1, \"no\": 2}\n{\"year\": 2, \"no\": 1}\n";
    let feed = scratch.write("f.ndjson", documents);
    let (feed_text, mapping) = (feed.to_str().unwrap(), scratch.path("m.toml"));
    let mapping_text = mapping.to_str().unwrap();
    let (code, _, stderr) =
        output(&["init", feed_text, "--key", "year", "--key", "no", "--key", "no", "-o", mapping_text]);
    assert_eq!((code, stderr.as_str()), (0, ""));
    let db = db().await;
    assert_eq!(run(&["schema", "-m", mapping_text, "--create", "-d", db.url()]).0, 0);
    install(db.url());
    assert_eq!(sync(db.url(), &mapping, &[&feed]).succeeded().documents("new"), 3);
    assert_eq!(sync(db.url(), &mapping, &[&feed]).succeeded().rows_written(), 0);
    let (code, proposed, _) = output(&["init", feed_text, "--key", "no"]);
    assert_eq!(code, 0);
    assert!(
        proposed.contains("# Key: `no`, as chosen, although `no` has in 1 document a value that another has: such documents\n# will fail.\n"),
        "{proposed}"
    );
}

/// Proposes a mapping for documents, makes its tables, and syncs them twice.
///
/// # Errors
/// What went wrong, with the mapping.
async fn propose_and_sync(db: &Database, documents: &[String], rng: &mut Rng) -> Result<bool, String> {
    let mut survey = Survey::new();
    for document in documents {
        survey.read(document.as_bytes())?;
    }
    let Ok(toml) = propose(survey, &Options::named("case")) else { return Ok(false) };
    let told = |error: String| format!("{error}\n{toml}\n{}", documents.join("\n"));
    let mapping = Mapping::from_toml(&toml).map_err(|error| told(error.to_string()))?;
    let tables = ddl(&mapping, None, &[]).map_err(|error| told(error.to_string()))?;
    let client = db.client().await;
    let made = client.batch_execute(&format!("{FRESH}{tables}")).await;
    made.map_err(|error| told(format!("{error:?}\n{tables}")))?;
    let engine = engine(db, &toml, rng).await.map_err(told)?;
    for night in 0..2 {
        let item = |text: &String| {
            Ok(Document { bytes: Bytes::copy_from_slice(text.as_bytes()), origin: Origin::default() })
        };
        let feed: Vec<_> = documents.iter().map(item).collect();
        let report = engine.sync(stream::iter(feed)).await;
        let report = report.map_err(|error| told(format!("night {night}: {error}")))?;
        if night == 1 && report.rows_written() > 0 {
            return Err(told(format!("{:#?}", report.relations)));
        }
    }
    Ok(true)
}

/// Documents of any form: kinds of values that change, maps, lists without brackets, names of all sorts.
#[tokio::test(flavor = "multi_thread")]
async fn p06_whatever_documents_look_like_the_proposal_takes_them_and_writes_nothing_again() {
    let (seed, cases) = (variable("ROWDELTA_INIT_SEED", 20_260_201), variable("ROWDELTA_INIT_CASES", 60));
    let db = db().await;
    install(db.url());
    let mut proposed = 0;
    for seed in seed..seed + cases {
        let mut rng = Rng::with_seed(seed);
        let documents = documents::draw(&mut rng);
        let done = propose_and_sync(&db, &documents, &mut rng).await;
        proposed += u64::from(done.unwrap_or_else(|error| panic!("seed {seed}: {error}")));
    }
    assert_eq!(proposed, cases, "each has an id");
}

/// Documents of the mappings that the other properties draw: where one field tells them apart.
#[tokio::test(flavor = "multi_thread")]
async fn p06_documents_of_random_mappings_sync_as_proposed() {
    let (seed, cases) = (variable("ROWDELTA_INIT_SEED", 20_260_101), variable("ROWDELTA_INIT_CASES", 60));
    let db = db().await;
    install(db.url());
    let mut proposed = 0;
    for seed in seed..seed + cases {
        let (mut rng, mut drawn) = (Rng::with_seed(seed), Drawn::default());
        let shape = Shape::draw(&mut rng, &mut drawn);
        let mut world = World::new(&shape, &mut rng, &mut drawn);
        let night = world.night(&mut rng, &mut drawn);
        let done = propose_and_sync(&db, &night.once, &mut rng).await;
        proposed += u64::from(done.unwrap_or_else(|error| panic!("seed {seed}: {error}")));
    }
    println!("{proposed} of {cases} had a key");
    assert!(cases < 50 || proposed * 4 >= cases, "{proposed} of {cases} had a key");
}
