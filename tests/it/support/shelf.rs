//! A server that has files of extensions to itself.
//!
//! `postgres` finds its files from where it lies itself. So a server's directories are mirrored: links to everything, but
//! for `initdb` and `postgres`, which are copied, and the directory of extensions, which is a real one with links. What
//! is put there no other server sees, and nothing is written where something is installed.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rowdelta::postgres::local::Options;

use super::{Database, db, db_on};

/// A server, and the directory of the files of its extensions.
pub struct Shelf {
    /// Its database `postgres`; others are [`beside`](Database::beside) it.
    pub server: Database,
    /// The binaries of the server that is mirrored.
    installed: PathBuf,
    extensions: PathBuf,
    major: u32,
    /// Goes last.
    _mirror: Mirror,
}

impl Shelf {
    /// A server with the files of the extension `rowdelta`, as `make install` installs them.
    pub async fn new() -> Self {
        let usual = db().await;
        let path = |name: &str| format!("SELECT setting FROM pg_config() WHERE name = '{name}'");
        let installed = PathBuf::from(usual.value(&path("BINDIR")).await);
        let share = PathBuf::from(usual.value(&path("SHAREDIR")).await);
        let major = usual.value("SELECT current_setting('server_version_num')::int / 10000").await;
        let root = installed.ancestors().find(|dir| share.starts_with(dir)).expect("/ is above all");
        let mirror = Mirror::new();
        let there = |path: &Path| mirror.0.join(path.strip_prefix(root).expect("a path below the root"));
        let extensions = share.join("extension");
        mirrored(root, &mirror.0, &[&installed, &extensions]);
        let (bin, extensions) = (there(&installed), there(&extensions));
        for program in ["initdb", "postgres"] {
            fs::remove_file(bin.join(program)).expect("remove a link");
            fs::copy(installed.join(program), bin.join(program)).expect("copy a program");
        }
        for entry in fs::read_dir(sql()).expect("read sql/").flatten().filter(is_of_extension) {
            fs::copy(entry.path(), extensions.join(entry.file_name())).expect("copy a file of the extension");
        }
        let server = db_on(Options { bin_dir: Some(bin), ..Options::fast() }).await;
        Self { server, installed, extensions, major: major.parse().expect("a number"), _mirror: mirror }
    }

    /// Takes the extension's files away.
    pub fn remove_files(&self) {
        for entry in fs::read_dir(&self.extensions).expect("read it").flatten().filter(is_of_extension) {
            fs::remove_file(entry.path()).expect("remove a file of the extension");
        }
    }

    /// A program of the client side that can serve this server, or `None`, which is said.
    fn program(&self, name: &str) -> Option<PathBuf> {
        let version = |path: &PathBuf| {
            let output = Command::new(path).arg("--version").output().ok()?;
            let text = String::from_utf8(output.stdout).ok()?;
            let digits = |word: &str| word.chars().take_while(char::is_ascii_digit).collect::<String>();
            text.split_whitespace().find_map(|word| digits(word).parse::<u32>().ok())
        };
        // psql runs files on any server; pg_dump dumps none that is newer.
        let serves = |path: &PathBuf| version(path).is_some_and(|its| its >= self.major || name == "psql");
        let found = [self.installed.join(name), name.into()].into_iter().find(serves);
        if found.is_none() {
            println!("skipped: no {name} for PostgreSQL {} here", self.major);
        }
        found
    }

    /// `psql -1 -f FILE…`, or `None` where there is no psql.
    pub fn psql(&self, database: &Database, files: &[PathBuf]) -> Option<Output> {
        let mut psql = Command::new(self.program("psql")?);
        psql.args(["-X", "-q", "-1", "-v", "ON_ERROR_STOP=1", "-d", database.url()]);
        for file in files {
            psql.arg("-f").arg(file);
        }
        Some(psql.output().expect("run psql"))
    }

    /// What `pg_dump` writes, without the comments, or `None` where there is none for this server.
    pub fn dump(&self, database: &Database, arguments: &[&str]) -> Option<String> {
        let mut dump = Command::new(self.program("pg_dump")?);
        let output = dump.args(arguments).args(["-d", database.url()]).output().expect("run pg_dump");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).expect("a dump in UTF-8");
        // `\restrict` has a random word; the setting is one that servers before 17 do not know.
        let kept = text.lines().filter(|line| {
            !line.starts_with("--")
                && !line.contains("restrict ")
                && !line.starts_with("SET transaction_timeout")
        });
        Some(kept.map(|line| format!("{line}\n")).collect())
    }
}

fn is_of_extension(entry: &fs::DirEntry) -> bool {
    let name = entry.file_name();
    let name = name.to_string_lossy();
    name == "rowdelta.control" || name.starts_with("rowdelta--") && name.ends_with(".sql")
}

/// The directory of the SQL core's files.
pub fn sql() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("sql")
}

/// Makes `dir` a directory of links to what is in `from`, but for directories on the way to those in `real`, which are
/// made likewise.
fn mirrored(from: &Path, dir: &Path, real: &[&Path]) {
    fs::create_dir(dir).expect("make a directory of the mirror");
    for entry in fs::read_dir(from).expect("read a directory of the server").flatten() {
        let (path, link) = (entry.path(), dir.join(entry.file_name()));
        match real.iter().any(|real| real.starts_with(&path)) {
            true => mirrored(&path, &link, real),
            false => symlink(path, link).expect("make a link"),
        }
    }
}

/// A directory for everybody to read, which goes at the end.
struct Mirror(PathBuf);

impl Mirror {
    /// Not made yet. It is not below the target's, which the user that servers run as may not be able to reach.
    fn new() -> Self {
        let parent = std::env::temp_dir().join(format!("rowdelta-shelf-{:08x}", fastrand::u32(..)));
        fs::create_dir(&parent).expect("make a temporary directory");
        fs::set_permissions(&parent, fs::Permissions::from_mode(0o755)).expect("let others read it");
        Self(parent.join("mirror"))
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(self.0.parent().expect("it has one"));
    }
}
