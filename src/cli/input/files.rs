//! Which files a feed consists of.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rowdelta::engine::FeedError;

use super::{broken, unreadable};

/// What the name of a file of lines ends in, before that of its compression.
const LINES: [&str; 2] = [".ndjson", ".jsonl"];
const COMPRESSED: [&str; 2] = [".gz", ".zst"];

/// The files that a name given as FEED stands for, each of which can be read.
pub fn of(path: &Path) -> Result<Vec<PathBuf>, FeedError> {
    let files = if path.is_dir() { below(path)? } else { vec![path.to_owned()] };
    for file in files.iter().filter(|file| !is_stdin(file)) {
        check(file).map_err(|error| unreadable(file, &error))?;
    }
    Ok(files)
}

pub fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// Whether the name says that every line is a document.
pub fn promises_lines(path: &Path) -> bool {
    let name = unpacked_name(path);
    LINES.iter().any(|ending| name.ends_with(ending))
}

/// All feed files below a directory, in the order of their paths' bytes.
fn below(root: &Path) -> Result<Vec<PathBuf>, FeedError> {
    let (mut files, mut folders) = (Vec::new(), vec![root.to_owned()]);
    while let Some(folder) = folders.pop() {
        look_into(&folder, &mut files, &mut folders).map_err(|error| unreadable(&folder, &error))?;
    }
    if files.is_empty() {
        let message = "no file in this directory, or below it, ends in .json, .ndjson or .jsonl (or these with \
                       .gz or .zst)";
        return Err(broken(root, message.into()));
    }
    files.sort_unstable_by(|a, b| a.as_os_str().as_encoded_bytes().cmp(b.as_os_str().as_encoded_bytes()));
    Ok(files)
}

fn look_into(folder: &Path, files: &mut Vec<PathBuf>, folders: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let (kind, path) = (entry.file_type()?, entry.path());
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        if kind.is_dir() {
            folders.push(path);
        } else if is_feed(&path) && (kind.is_file() || is_link_to_file(&path)) {
            files.push(path);
        }
    }
    Ok(())
}

/// Links to directories may lead in a circle. One that leads nowhere is kept, and found when it is checked.
fn is_link_to_file(path: &Path) -> bool {
    path.is_symlink() && !path.is_dir()
}

fn is_feed(path: &Path) -> bool {
    unpacked_name(path).ends_with(".json") || promises_lines(path)
}

/// The name of what a file unpacks to, in small letters.
fn unpacked_name(path: &Path) -> String {
    let name = path.to_string_lossy().to_ascii_lowercase();
    let shorter = COMPRESSED.iter().find_map(|ending| name.strip_suffix(ending));
    shorter.map(str::to_owned).unwrap_or(name)
}

/// Whether a file can be read. A pipe is not opened: its writer would be gone when it is read.
fn check(path: &Path) -> io::Result<()> {
    if fs::metadata(path)?.is_file() {
        File::open(path)?;
    }
    Ok(())
}
