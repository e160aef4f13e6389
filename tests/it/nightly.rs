//! What lies around the command for a night: completions, manual pages, and the script that heeds exit codes.

use std::path::Path;
use std::process::Command;

use crate::support::command::{Scratch, output};

#[test]
fn completions_and_manual_pages_name_every_command() {
    let commands = ["demo", "doctor", "install", "schema", "status", "sync", "verify"];
    for shell in ["bash", "zsh", "fish"] {
        let (code, script, stderr) = output(&["completions", shell]);
        assert_eq!((code, stderr.as_str()), (0, ""));
        assert!(commands.iter().all(|command| script.contains(command)), "{shell}");
        assert!(script.contains("allow-deletes") && script.contains("metrics"), "{shell}");
    }
    let (code, page, _) = output(&["man"]);
    assert!(code == 0 && page.contains(".TH rowdelta 1"), "{page}");
    let scratch = Scratch::new();
    let dir = scratch.path("man1");
    assert_eq!(output(&["man", dir.to_str().unwrap()]).0, 0);
    for command in commands {
        let page = std::fs::read_to_string(dir.join(format!("rowdelta-{command}.1"))).unwrap();
        assert!(page.contains(".SH OPTIONS") || command == "man", "{command}");
    }
    let sync = std::fs::read_to_string(dir.join("rowdelta-sync.1")).unwrap();
    assert!(sync.contains("another run of the mapping is at work"), "{sync}");
}

/// Runs the night's script with a command that ends with these codes, one after another; gives the script's own code,
/// what it said, and how often the command was run.
fn night(codes: &[i32]) -> (Option<i32>, String, usize) {
    let scratch = Scratch::new();
    let codes: Vec<String> = codes.iter().map(i32::to_string).collect();
    scratch.write("codes", codes.join("\n") + "\n");
    let command = "#!/bin/sh\necho \"$*\" >>\"$0.ran\"\necho the summary >&2\nat=$(wc -l <\"$0.ran\")\n\
                   exit \"$(sed -n \"${at}p\" \"$(dirname \"$0\")/codes\")\"\n";
    let command = scratch.write("rowdelta", command);
    std::fs::set_permissions(&command, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/nightly/night.sh");
    let mut night = Command::new("sh");
    night.arg(script).args(["-m", "calls.toml", "calls.ndjson"]).env("ROWDELTA", &command).env("PAUSE", "0");
    let output = night.output().unwrap();
    let ran = std::fs::read_to_string(scratch.path("rowdelta.ran")).unwrap();
    assert!(ran.lines().all(|line| line == "sync --progress never -m calls.toml calls.ndjson"), "{ran}");
    (output.status.code(), String::from_utf8(output.stdout).unwrap(), ran.lines().count())
}

#[test]
fn the_nights_script_heeds_exit_codes() {
    for quiet in [0, 4] {
        assert_eq!(night(&[quiet]), (Some(0), String::new(), 1));
    }
    assert_eq!(night(&[6, 6, 0]), (Some(0), String::new(), 3), "tried again");
    for (codes, code, said, runs) in [
        (vec![1], 1, "look at them", 1),
        (vec![2], 2, "could not run", 1),
        (vec![3], 3, "--allow-deletes", 1),
        (vec![6, 1], 1, "look at them", 2),
        (vec![6, 6, 6, 6], 6, "did not help", 4),
        (vec![143], 143, "ended with 143", 1),
    ] {
        let (ended, text, ran) = night(&codes);
        assert_eq!((ended, ran), (Some(code), runs), "{codes:?}");
        assert!(text.contains(said) && text.ends_with("the summary\n"), "{text}");
    }
}
