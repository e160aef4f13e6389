//! The user that the server runs as, when this process is root.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use super::{LocalError, io_error, own_uid};

/// A user that is not root.
#[derive(Debug)]
pub(super) struct Account {
    uid: u32,
    gid: u32,
}

/// The user to drop to under root, made the owner of `run_dir`; `None` for anybody else.
pub(super) fn for_server(run_dir: &Path) -> Result<Option<Account>, LocalError> {
    if own_uid(run_dir)? != 0 {
        return Ok(None);
    }
    let found = ["postgres", "nobody"].into_iter().find_map(named);
    let account = found.ok_or_else(|| {
        LocalError::Server(
            "PostgreSQL refuses to run as root, and there is no user `postgres` or `nobody`".into(),
        )
    })?;
    account.own(run_dir)?;
    Ok(Some(account))
}

fn named(name: &str) -> Option<Account> {
    Some(Account { uid: ask_id("-u", name)?, gid: ask_id("-g", name)? })
}

fn ask_id(what: &str, name: &str) -> Option<u32> {
    let output = Command::new("id").args([what, name]).output().ok()?;
    let id = String::from_utf8_lossy(&output.stdout).trim().parse().ok()?;
    // Never root again, whatever the table of users says.
    (output.status.success() && id != 0).then_some(id)
}

impl Account {
    /// Makes this user the owner of a file or directory.
    pub(super) fn own(&self, path: &Path) -> Result<(), LocalError> {
        let done = std::os::unix::fs::chown(path, Some(self.uid), Some(self.gid));
        done.map_err(io_error(format!("change the owner of {}", path.display())))
    }

    /// Makes the command run as this user.
    pub(super) fn run_as(&self, command: &mut Command) {
        command.uid(self.uid).gid(self.gid);
    }
}
