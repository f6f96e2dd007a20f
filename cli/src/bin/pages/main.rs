// SPDX-License-Identifier: LGPL-2.1-or-later
//! Writes what is installed beside the command: its manual pages, and completions for shells, all made of its command line's
//! definition, so that they say what it does.
//!
//! usage: xlevent-pages DIRECTORY
//!
//! Below the directory come `man/man1`, and `bash`, `zsh` and `fish` with a file each.

#[path = "../../args.rs"]
#[allow(dead_code, reason = "the command uses what is parsed")]
mod args;

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use args::Arguments;
use clap::CommandFactory;
use clap_complete::Shell;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let (Some(directory), None) = (arguments.next(), arguments.next()) else {
        eprintln!("usage: xlevent-pages DIRECTORY");
        return ExitCode::from(2);
    };
    match write(&PathBuf::from(directory)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xlevent-pages: {error}");
            ExitCode::FAILURE
        }
    }
}

fn write(directory: &Path) -> io::Result<()> {
    let made = |name: &str| -> io::Result<PathBuf> {
        let path = directory.join(name);
        std::fs::create_dir_all(&path)?;
        Ok(path)
    };
    // `xlevent help` would have pages, too, one for each page that there is.
    clap_mangen::generate_to(Arguments::command().disable_help_subcommand(true), made("man/man1")?)?;
    for (shell, place) in [(Shell::Bash, "bash"), (Shell::Zsh, "zsh"), (Shell::Fish, "fish")] {
        clap_complete::generate_to(shell, &mut Arguments::command(), "xlevent", made(place)?)?;
    }
    Ok(())
}
