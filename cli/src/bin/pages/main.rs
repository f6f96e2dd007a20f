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

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use args::Arguments;
use clap::CommandFactory;
use clap_complete::Shell;
use clap_mangen::Man;

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
    let mut command = Arguments::command().disable_help_subcommand(true);
    command.build();
    let place = made("man/man1")?;
    for command in std::iter::once(&command).chain(command.get_subcommands()) {
        page(command, &place)?;
    }
    for (shell, place) in [(Shell::Bash, "bash"), (Shell::Zsh, "zsh"), (Shell::Fish, "fish")] {
        clap_complete::generate_to(shell, &mut Arguments::command(), "xlevent", made(place)?)?;
    }
    Ok(())
}

/// The manual page of the command, or of one of its subcommands.
fn page(command: &clap::Command, place: &Path) -> io::Result<()> {
    let man =
        Man::new(command.clone()).date(date()).source(concat!("xlevent ", env!("CARGO_PKG_VERSION"))).manual("xlevent");
    let mut text = Vec::new();
    man.render_title(&mut text)?;
    man.render_name_section(&mut text)?;
    man.render_synopsis_section(&mut text)?;
    man.render_description_section(&mut text)?;
    man.render_options_section(&mut text)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut text)?;
    }
    writeln!(text, ".SH \"EXIT STATUS\"")?;
    for (code, meaning) in args::EXIT_STATUS {
        writeln!(text, ".TP\n{code}\n{}", meaning.replace('-', "\\-"))?;
    }
    writeln!(text, ".SH \"SEE ALSO\"\nxlevent(1), xlevent(7), xl(1)")?;
    // Blank lines between paragraphs are said otherwise.
    let text = String::from_utf8_lossy(&text).replace("\n\n", "\n.sp\n");
    std::fs::write(place.join(man.get_filename()), text)
}

/// The day of the build, or that which a reproducible build asks for.
fn date() -> String {
    let epoch = std::env::var("SOURCE_DATE_EPOCH").ok().and_then(|seconds| seconds.parse().ok());
    let time = epoch.map_or_else(SystemTime::now, |seconds| UNIX_EPOCH + Duration::from_secs(seconds));
    humantime::format_rfc3339_seconds(time).to_string().split('T').next().unwrap_or_default().to_owned()
}
