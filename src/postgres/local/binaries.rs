//! Where `initdb` and `postgres` come from.
//!
//! In this order: a directory that was given, an installed server of version 14 or
//! later, the package of npm, the one of pip ([`super::download`]). Every candidate
//! is asked for its version *as the user that will run it*, so one that this user
//! cannot reach is passed over like one that does not run; so is one of another
//! major version than the one that was named.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::account::Account;
use super::{LocalError, Options, download};

/// The oldest version that rowdelta supports.
const MAJOR_MIN: u32 = 14;

/// Folders that hold one folder a version; newest first is what counts, so `*` sorts backwards.
const INSTALLED: [&str; 9] = [
    "/usr/lib/postgresql/*/bin",                          // Debian, Ubuntu
    "/usr/pgsql-*/bin",                                   // RHEL, Fedora (PGDG)
    "/usr/libexec/postgresql*",                           // Alpine
    "/opt/homebrew/opt/postgresql@*/bin",                 // Homebrew, Apple silicon
    "/usr/local/opt/postgresql@*/bin",                    // Homebrew, Intel
    "/home/linuxbrew/.linuxbrew/opt/postgresql@*/bin",    // Homebrew, Linux
    "/Applications/Postgres.app/Contents/Versions/*/bin", // Postgres.app
    "/usr/local/pgsql/bin",                               // built from source
    "/usr/bin",                                           // Fedora, Arch
];

/// A directory with `initdb` and `postgres` that run.
#[derive(Debug)]
pub(super) struct Binaries {
    pub(super) dir: PathBuf,
    pub(super) major: u32,
    version: String,
    origin: &'static str,
}

impl std::fmt::Display for Binaries {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PostgreSQL {} ({}, {})", self.version, self.origin, self.dir.display())
    }
}

/// The first usable binaries, in the order of the module's documentation.
pub(super) fn find(options: &Options, account: Option<&Account>) -> Result<Binaries, LocalError> {
    let major = match options.major {
        Some(major) => Some(major),
        None => named()?,
    };
    let probe = |dir: &Path, origin| probe(dir, origin, account, major);
    let given = options.bin_dir.clone().or_else(|| std::env::var_os("ROWDELTA_PG_BIN").map(PathBuf::from));
    if let Some(dir) = given {
        return probe(&dir, "given")
            .map_err(|why| LocalError::NoBinaries(format!("no usable server in {}: {why}", dir.display())));
    }
    let mut tried = Vec::new();
    if options.skip_installed
        || std::env::var_os("ROWDELTA_PG_SKIP_INSTALLED").is_some_and(|value| value == "1")
    {
        tried.push("installed: skipped".into());
    } else if let Some(found) = installed().iter().find_map(|dir| probe(dir, "installed").ok()) {
        return Ok(found);
    } else {
        let sought = major.map_or(format!("{MAJOR_MIN} or later"), |major| major.to_string());
        tried.push(format!("installed: none of version {sought}"));
    }
    for (origin, get) in [("from npm", download::npm as fn(bool, _) -> _), ("from pip", download::pip)] {
        match get(account.is_some(), major).and_then(|dir| probe(&dir, origin)) {
            Ok(found) => return Ok(found),
            Err(why) => tried.push(format!("{origin}: {why}")),
        }
    }
    Err(LocalError::NoBinaries(format!("no PostgreSQL found ({}); {}", tried.join("; "), advice())))
}

fn advice() -> &'static str {
    match std::env::consts::OS {
        "macos" => "run `brew install postgresql@17`",
        _ => "run `sudo apt install postgresql` (it need not be started), or set ROWDELTA_PG_BIN",
    }
}

/// The major version in `ROWDELTA_PG_VERSION`.
fn named() -> Result<Option<u32>, LocalError> {
    let text = std::env::var("ROWDELTA_PG_VERSION").unwrap_or_default();
    match text.parse() {
        _ if text.is_empty() => Ok(None),
        Ok(major) => Ok(Some(major)),
        Err(_) => Err(LocalError::NoBinaries(format!(
            "ROWDELTA_PG_VERSION: a major version such as 16 expected, found {text:?}"
        ))),
    }
}

/// Asks the server in `dir` for its version, which must be the one that was named, if one was.
fn probe(
    dir: &Path,
    origin: &'static str,
    account: Option<&Account>,
    named: Option<u32>,
) -> Result<Binaries, String> {
    if !dir.join("initdb").exists() {
        return Err("it has no initdb".into());
    }
    let mut command = Command::new(dir.join("postgres"));
    command.arg("--version").current_dir("/");
    if let Some(account) = account {
        account.run_as(&mut command);
    }
    let output = command.output().map_err(|error| format!("postgres does not run: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (version, major) =
        parse_version(&text).ok_or_else(|| String::from_utf8_lossy(&output.stderr).trim().to_owned())?;
    if major < MAJOR_MIN {
        return Err(format!("version {version} is older than {MAJOR_MIN}"));
    }
    if let Some(named) = named.filter(|named| *named != major) {
        return Err(format!("version {version} is not {named}"));
    }
    Ok(Binaries { dir: dir.into(), major, version, origin })
}

/// `postgres (PostgreSQL) 15.18 (Debian …)` → `15.18`, 15.
fn parse_version(text: &str) -> Option<(String, u32)> {
    let version = text.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()))?;
    let digits: String = version.chars().take_while(char::is_ascii_digit).collect();
    Some((version.to_owned(), digits.parse().ok()?))
}

fn installed() -> Vec<PathBuf> {
    let asked = Command::new("pg_config").arg("--bindir").output().ok();
    let asked = asked.map(|output| PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()));
    asked.into_iter().chain(INSTALLED.iter().flat_map(|pattern| expand(pattern))).collect()
}

/// The directories that a pattern with at most one `*` names, the highest version first.
fn expand(pattern: &str) -> Vec<PathBuf> {
    let Some((before, after)) = pattern.split_once('*') else { return vec![pattern.into()] };
    let (folder, prefix) = before.rsplit_once('/').unwrap_or(("", before));
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut versions: Vec<String> = entries
        .filter_map(|entry| entry.file_name().into_string().ok()?.strip_prefix(prefix).map(str::to_owned))
        .collect();
    versions.sort_by_key(|version| std::cmp::Reverse(version.parse().unwrap_or(0)));
    versions.into_iter().map(|version| PathBuf::from(format!("{before}{version}{after}"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_what_postgres_prints() {
        let debian = parse_version("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n");
        assert_eq!(debian, Some(("15.18".into(), 15)));
        assert_eq!(parse_version("postgres (PostgreSQL) 18beta1"), Some(("18beta1".into(), 18)));
        assert_eq!(parse_version(""), None);
    }

    #[test]
    fn a_directory_without_a_server_is_refused_by_name() {
        let options = Options { bin_dir: Some("/nowhere".into()), ..Options::fast() };
        let error = find(&options, None).unwrap_err();
        assert_eq!(error.to_string(), "no usable server in /nowhere: it has no initdb");
    }
}
