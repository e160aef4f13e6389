//! The files of the suite: finding and reading them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::{Table, Value};

/// One file; its README says what the keys mean.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// `area/fact_in_snake_case`, not a key of the file.
    #[serde(skip)]
    pub path: String,
    pub fact: String,
    #[serde(default)]
    pub requires: u32,
    #[serde(default)]
    pub needs: Vec<String>,
    pub batch: Option<usize>,
    pub ddl: String,
    pub mapping: String,
    #[serde(default)]
    pub stored: String,
    #[serde(default)]
    pub feeds: Vec<Feed>,
    pub refused_mapping: Option<String>,
    pub reason: Option<String>,
}

/// One feed and what must be there after it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Feed {
    #[serde(default)]
    pub before: String,
    pub documents: String,
    pub rows: BTreeMap<String, String>,
    #[serde(default)]
    pub writes: BTreeMap<String, Writes>,
    #[serde(default)]
    pub parked: u64,
    #[serde(default)]
    pub refused: Vec<Refusal>,
}

/// Rows of one table that were written, as row triggers count them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Writes {
    pub inserted: u64,
    pub updated: u64,
    pub deleted: u64,
}

/// A document that is not stored.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refusal {
    pub document: String,
    pub relation: Option<String>,
    pub sqlstate: Option<String>,
    #[serde(default)]
    pub message: String,
}

/// What a case of one feed may say at its top.
const FEED: [&str; 5] = ["documents", "rows", "writes", "parked", "refused"];

/// All cases, in the order of their paths; and what is wrong with files that are none.
pub fn discover() -> (Vec<Case>, Vec<String>) {
    let (mut cases, mut faults, mut facts) = (Vec::new(), Vec::new(), BTreeSet::new());
    for file in files(&dir()) {
        match read(&file) {
            Ok(Some(case)) if !facts.insert(case.fact.clone()) => {
                faults.push(format!("{}: another case has its fact", case.path));
            }
            Ok(case) => cases.extend(case),
            Err(error) => faults.push(format!("{}: {error}", file.display())),
        }
    }
    cases.sort_by(|a, b| a.path.cmp(&b.path));
    (cases, faults)
}

/// Where the suite is.
pub fn dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance")
}

/// Every file below a directory.
fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).expect("read the suite's directory");
    let paths = entries.map(|entry| entry.expect("an entry of the directory").path());
    paths.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// `None` for the README.
fn read(file: &Path) -> Result<Option<Case>, String> {
    let name = file.strip_prefix(dir()).expect("below the suite").to_string_lossy().into_owned();
    if name == "README.md" {
        return Ok(None);
    }
    let path = name.strip_suffix(".toml").filter(|path| is_path(path));
    let path = path.ok_or("is not <area>/<fact_in_snake_case>.toml")?;
    let text = std::fs::read_to_string(file).map_err(|error| error.to_string())?;
    let mut case = parse(&text)?;
    path.clone_into(&mut case.path);
    Ok(Some(case))
}

fn is_path(path: &str) -> bool {
    let snake = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_lowercase())
            && part.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'))
    };
    path.split_once('/').is_some_and(|(area, fact)| snake(area) && snake(fact))
}

/// A case of one feed becomes one with a list of feeds, so that unknown keys are found in the same way.
fn parse(text: &str) -> Result<Case, String> {
    let mut table: Table = toml::from_str(text).map_err(|error| error.to_string())?;
    let feed: Table = FEED.iter().filter_map(|&key| table.remove_entry(key)).collect();
    let feeds = Value::Array(vec![Value::Table(feed.clone())]);
    if !feed.is_empty() && table.insert("feeds".into(), feeds).is_some() {
        return Err("feeds, or the keys of one feed, not both".into());
    }
    let case: Case = table.try_into().map_err(|error: toml::de::Error| error.to_string())?;
    let refused = case.feeds.iter().any(|feed| !feed.refused.is_empty()) || case.refused_mapping.is_some();
    match () {
        () if case.feeds.is_empty() == case.refused_mapping.is_none() => {
            Err("has documents, or else refused_mapping".into())
        }
        () if refused != case.reason.is_some() => Err("a refusal, and only that, has a reason".into()),
        () if !case.fact.ends_with('.') || case.fact.contains('|') => Err("fact is one sentence".into()),
        () => Ok(case),
    }
}

impl Case {
    /// The directory.
    pub fn area(&self) -> &str {
        self.path.split('/').next().unwrap_or_default()
    }
}

#[test]
fn an_unknown_key_is_a_fault_wherever_it_stands() {
    let case = |more: &str| {
        parse(&format!("fact = 'f.'\nddl = ''\nmapping = ''\ndocuments = ''\n{more}\n[rows]\nt = 'a'"))
    };
    assert!(case("").is_ok());
    for more in
        ["fakt = 1", "parkt = 1", "writes = { t = { insertet = 1 } }", "refused = [{ dokument = 'A' }]"]
    {
        assert!(case(more).unwrap_err().contains("unknown field"), "{more}");
    }
    assert!(case("reason = 'none'").is_err() && case("feeds = []").is_err());
}
