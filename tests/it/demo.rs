//! The demo, and the generated dumps that it writes.

use std::path::PathBuf;

use crate::support::command::{Scratch, install, output, run, sync};
use crate::support::db;

/// What `rowdelta demo --write` makes.
struct Dumps(Scratch);

impl Dumps {
    fn write(calls: u32) -> Self {
        let scratch = Scratch::new();
        let (dir, calls) = (scratch.path("dumps"), calls.to_string());
        let (code, stdout, stderr) = output(&["demo", "--calls", &calls, "--write", dir.to_str().unwrap()]);
        assert_eq!((code, stderr.as_str()), (0, ""));
        assert_eq!(stdout.lines().count(), 4, "{stdout}");
        Self(scratch)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path("dumps").join(name)
    }

    fn night(&self, number: u32) -> PathBuf {
        self.path(&format!("night-{number}.ndjson.gz"))
    }
}

#[test]
fn the_demo_fits_eighty_columns_and_ends_with_equal_databases() {
    let (code, stdout, stderr) = output(&["demo", "--calls", "60"]);
    assert_eq!((code, stderr.as_str()), (0, ""), "{stdout}");
    let shown: Vec<&str> = stdout.lines().skip(1).collect();
    assert!(shown.iter().all(|line| line.chars().count() <= 80), "{stdout}");
    assert_eq!(shown.iter().filter(|line| line.starts_with("Night ")).count(), 4, "{stdout}");
    assert!(stdout.ends_with("All three databases hold the same calls.\n"), "{stdout}");
    assert!(!stdout.contains('\x1b'), "no colours in a pipe");
}

#[tokio::test]
async fn written_dumps_sync_as_the_demo_does() {
    let (db, dumps) = (db().await, Dumps::write(1_000));
    db.execute(&std::fs::read_to_string(dumps.path("schema.sql")).unwrap()).await;
    install(db.url());
    let mapping = dumps.path("mapping.toml");
    let nights: Vec<_> =
        (1..=4).map(|night| sync(db.url(), &mapping, &[&dumps.night(night)]).succeeded()).collect();
    assert_eq!(nights[0].documents("new"), 1_000);
    assert!(nights[0].documents("repeated") > 0);
    let written: Vec<u64> = nights.iter().map(|night| night.rows_written()).collect();
    assert!(written[0] > 8_000, "{written:?}");
    assert_eq!((written[1], written[3]), (0, 0), "{written:?}");
    assert!((5..20).contains(&nights[2].documents("changed")), "{}", nights[2].report);
}

#[tokio::test]
async fn dumps_load_into_tables_made_from_them() {
    let (db, dumps) = (db().await, Dumps::write(1_000));
    let (mapping, night) = (dumps.path("mapping.toml"), dumps.night(1));
    let arguments =
        ["schema", "-d", db.url(), "--create", "-m", mapping.to_str().unwrap(), night.to_str().unwrap()];
    assert_eq!(run(&arguments), (0, String::new()));
    install(db.url());
    assert_eq!(sync(db.url(), &mapping, &[&night]).succeeded().documents("new"), 1_000);
    assert_eq!(sync(db.url(), &mapping, &[&night]).succeeded().rows_written(), 0);
}
