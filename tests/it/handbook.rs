//! The handbook: every command that it shows as a transcript is run, and prints what is shown; every page is in the table of
//! contents, and every link leads somewhere.
//!
//! A transcript is a block fenced as `console`. A line that begins with `$ ` is a command, those after it are what it
//! prints, standard error included. `…` in a line stands for anything in it; a line of `…` alone for any number of lines.
//! All commands of a page run in one shell, in an empty directory, against a database of their own.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::support::command::{Scratch, output};
use crate::support::db;

/// What separates the outputs of commands.
const SEPARATOR: char = '\u{1e}';

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs")
}

fn pages() -> Vec<(String, String)> {
    let entries = std::fs::read_dir(docs()).unwrap().map(|entry| entry.unwrap().path());
    let mut pages: Vec<(String, String)> = entries
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .map(|path| {
            (path.file_name().unwrap().to_str().unwrap().to_owned(), std::fs::read_to_string(&path).unwrap())
        })
        .collect();
    pages.sort();
    pages
}

/// Commands of a page, each with the lines that it prints.
fn transcript(page: &str) -> Vec<(String, Vec<String>)> {
    let mut commands: Vec<(String, Vec<String>)> = Vec::new();
    let mut is_shown = false;
    for line in page.lines() {
        match line {
            "```console" => is_shown = true,
            _ if line.starts_with("```") => is_shown = false,
            _ if !is_shown => {}
            _ => match (line.strip_prefix("$ "), commands.last_mut()) {
                (Some(command), _) => commands.push((command.to_owned(), Vec::new())),
                (None, Some((_, output))) => output.push(line.to_owned()),
                (None, None) => panic!("{line}: before any command"),
            },
        }
    }
    commands
}

/// What commands print, run one after the other in one shell.
fn run(commands: &[&str], url: &str) -> Vec<String> {
    let scratch = Scratch::new();
    let bin = Path::new(env!("CARGO_BIN_EXE_rowdelta")).parent().unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let script: String =
        commands.iter().map(|command| format!("{command}\nprintf '\\036'\n")).collect::<Vec<_>>().concat();
    let output = Command::new("bash")
        .args(["-c", &format!("exec 2>&1\n{script}")])
        .current_dir(scratch.path("."))
        .env("PATH", path)
        .env("DATABASE_URL", url)
        .env_remove("ROWDELTA_LOG")
        .stdin(Stdio::null())
        .output()
        .expect("bash runs");
    let text = String::from_utf8(output.stdout).unwrap();
    text.split(SEPARATOR).map(str::to_owned).collect()
}

/// Whether a line is as it is shown.
fn is_line(shown: &str, printed: &str) -> bool {
    let mut parts = shown.split('…');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = printed.strip_prefix(first) else { return false };
    let mut last = None;
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
        last = Some(part);
    }
    match last {
        // Nothing is left out, or all to the end of the line is.
        None => rest.is_empty(),
        Some(part) => part.is_empty() || rest.is_empty() || printed.ends_with(part),
    }
}

/// Whether lines are as they are shown.
fn is_shown(shown: &[String], printed: &[&str]) -> bool {
    match shown.split_first() {
        None => printed.is_empty(),
        Some((line, shown)) if line == "…" => (0..=printed.len()).any(|at| is_shown(shown, &printed[at..])),
        Some((line, shown)) => printed
            .split_first()
            .is_some_and(|(first, printed)| is_line(line, first) && is_shown(shown, printed)),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_handbook_shows_is_what_happens() {
    let mut count = 0;
    for (name, page) in pages() {
        let commands = transcript(&page);
        if commands.is_empty() {
            continue;
        }
        let db = db().await;
        let lines: Vec<&str> = commands.iter().map(|(command, _)| command.as_str()).collect();
        let printed = run(&lines, db.url());
        for ((command, shown), printed) in commands.iter().zip(&printed) {
            let printed: Vec<&str> = printed.lines().collect();
            assert!(
                is_shown(shown, &printed),
                "{name}: $ {command}\nshown:\n{}\nprinted:\n{}",
                shown.join("\n"),
                printed.join("\n")
            );
            count += 1;
        }
    }
    assert!(count > 10, "{count} commands are shown");
}

#[test]
fn every_page_is_in_the_table_of_contents() {
    let pages = pages();
    let contents = &pages.iter().find(|(name, _)| name == "SUMMARY.md").unwrap().1;
    for (name, _) in pages.iter().filter(|(name, _)| name != "SUMMARY.md") {
        assert!(contents.contains(&format!("({name})")), "{name} is not in docs/SUMMARY.md");
    }
}

#[test]
fn every_link_of_the_handbook_and_of_the_readme_leads_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = ("../README.md".to_owned(), std::fs::read_to_string(root.join("README.md")).unwrap());
    for (name, page) in pages().into_iter().chain([readme]) {
        let dir = docs().join(&name).parent().unwrap().to_owned();
        for link in page.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = link.split('#').next().unwrap_or_default();
            let is_local = !file.is_empty() && !file.contains("://") && !file.contains(' ');
            assert!(!is_local || dir.join(file).exists(), "{name}: {link}");
        }
    }
}

/// `docs/command.md`: what every command says of itself. With `ROWDELTA_BLESS=1` it is written.
#[test]
fn the_page_of_the_command_is_what_the_command_says() {
    let (_, all, _) = output(&["--help"]);
    let listed =
        all.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let names = listed.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help");
    let mut page = include_str!("handbook/command.md").to_owned();
    for name in names {
        let (code, help, _) = output(&[name, "--help"]);
        assert_eq!(code, 0, "{name}");
        let help: Vec<&str> = help.lines().map(str::trim_end).collect();
        page += &format!("\n## rowdelta {name}\n\n```text\n{}\n```\n", help.join("\n").trim_end());
    }
    let path = docs().join("command.md");
    if std::env::var_os("ROWDELTA_BLESS").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == page,
        "docs/command.md is old: ROWDELTA_BLESS=1 cargo test --test it -- handbook writes it"
    );
}

#[test]
fn a_line_is_compared_but_for_what_is_left_out() {
    for (shown, printed) in
        [("a", "a"), ("a…", "abc"), ("…c", "abc"), ("a…c", "abbc"), ("a … c", "a b c"), ("…", "")]
    {
        assert!(is_line(shown, printed), "{shown} {printed}");
    }
    for (shown, printed) in [("a", "ab"), ("a…c", "abcd"), ("b…", "ab"), ("a…x…c", "abc")] {
        assert!(!is_line(shown, printed), "{shown} {printed}");
    }
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    assert!(is_shown(&lines("a\n…\nd"), &["a", "b", "c", "d"]) && is_shown(&lines("…\nd"), &["d"]));
    assert!(!is_shown(&lines("a\n…\nd"), &["a", "b"]) && !is_shown(&lines("a"), &["a", "b"]));
}
