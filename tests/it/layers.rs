//! Imports point inwards: the pure core knows no I/O, and no stage knows those after it.

use std::path::{Path, PathBuf};

/// The stages of the core, each of which may use those before it.
const CORE: [&str; 13] = [
    "json",
    "document",
    "mapping",
    "row",
    "value",
    "schema",
    "fingerprint",
    "diff",
    "shred",
    "sample",
    "propose",
    "ddl",
    "plan",
];

/// What only the rings around the core may touch.
const OUTSIDE: [&str; 9] = [
    "tokio",
    "bb8",
    "futures_util",
    "async fn",
    "std::fs",
    "std::net",
    "std::time",
    "crate::postgres",
    "crate::engine",
];

fn source(module: &str) -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = vec![root.join(format!("{module}.rs"))];
    let mut folders = vec![root.join(module)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() { folders.push(path) } else { found.push(path) }
        }
    }
    found.retain(|path| path.extension().is_some_and(|extension| extension == "rs"));
    found.into_iter().map(|path| (path.clone(), std::fs::read_to_string(path).unwrap())).collect()
}

/// Lines of code outside comments and tests.
fn code(text: &str) -> impl Iterator<Item = &str> {
    let tests = text.find("#[cfg(test)]").unwrap_or(text.len());
    text[..tests].lines().filter(|line| !line.trim_start().starts_with("//"))
}

#[test]
fn the_core_does_no_io_and_knows_no_later_stage() {
    let mut faults = Vec::new();
    for (at, module) in CORE.iter().enumerate() {
        for (path, text) in source(module) {
            for line in code(&text) {
                let outside = OUTSIDE.iter().any(|word| line.contains(word));
                let later = CORE[at + 1..].iter().any(|later| line.contains(&format!("crate::{later}::")));
                if outside || later {
                    faults.push(format!("{}: {}", path.display(), line.trim()));
                }
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn the_database_ring_knows_no_engine_and_diff_no_mapping() {
    for (path, text) in source("postgres") {
        assert!(!code(&text).any(|line| line.contains("crate::engine")), "{}", path.display());
    }
    for (path, text) in source("diff") {
        assert!(!code(&text).any(|line| line.contains("mapping")), "{}", path.display());
    }
}

#[test]
fn the_command_uses_the_public_library_only() {
    for (path, text) in source("cli") {
        let private = |line: &str| line.contains("crate::") && !line.contains("crate::cli");
        assert!(!code(&text).any(private), "{}", path.display());
    }
}
