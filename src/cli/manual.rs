//! `rowdelta completions` and `rowdelta man`: what a package of the command installs beside it.

use std::io::{self, Write as _};
use std::path::Path;

use clap::CommandFactory as _;

use crate::cli::args::{self, Cli};
use crate::cli::output::Exit;

/// Prints a script of completions for a shell.
///
/// # Errors
/// Standard output is closed; in words.
pub fn completions(args: args::Completions) -> Result<Exit, String> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "rowdelta", &mut script);
    io::stdout().write_all(&script).map_err(|error| error.to_string())?;
    Ok(Exit::Done)
}

/// Prints the manual page, or writes one for every command into a directory.
///
/// # Errors
/// A file cannot be written; in words.
pub fn man(args: args::Man) -> Result<Exit, String> {
    let command = Cli::command().disable_help_subcommand(true);
    match &args.dir {
        Some(dir) => pages(command, dir).map_err(|error| format!("{}: {error}", dir.display()))?,
        None => {
            clap_mangen::Man::new(command).render(&mut io::stdout()).map_err(|error| error.to_string())?
        }
    }
    Ok(Exit::Done)
}

fn pages(command: clap::Command, dir: &Path) -> io::Result<()> {
    std::fs::create_dir_all(dir)?;
    clap_mangen::generate_to(command, dir)
}
