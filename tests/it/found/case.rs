//! The files: reading them.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

/// A file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Area {
    #[serde(default)]
    mappings: BTreeMap<String, String>,
    case: Vec<Case>,
}

/// One case; the head of `found.rs` says what the keys mean.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    pub name: String,
    #[serde(default)]
    pub requires: u32,
    #[serde(default)]
    pub needs: Vec<String>,
    pub tables: String,
    pub role: Option<String>,
    pub mapping: String,
    #[serde(default)]
    pub refused: Vec<String>,
    #[serde(default)]
    pub night: Vec<Night>,
}

/// A feed, and what comes of it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Night {
    #[serde(default)]
    pub before: String,
    pub feed: String,
    pub wrote: BTreeMap<String, String>,
    #[serde(default)]
    pub fails: Vec<String>,
    pub check: Option<String>,
    #[serde(default)]
    pub holds: String,
}

/// The cases of an area.
pub fn read(area: &str) -> Vec<Case> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/found").join(format!("{area}.toml"));
    let text = std::fs::read_to_string(&file).expect("read the cases");
    let Area { mappings, case } = toml::from_str(&text).unwrap_or_else(|error| panic!("{area}: {error}"));
    let named = |mut case: Case| {
        case.mapping = mappings.get(&case.mapping).cloned().unwrap_or(case.mapping);
        assert!(case.refused.is_empty() != case.night.is_empty(), "{}: refused, or else nights", case.name);
        case
    };
    case.into_iter().map(named).collect()
}
