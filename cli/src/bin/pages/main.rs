// SPDX-License-Identifier: LGPL-2.1-or-later
//! Writes the manual pages, and completions for shells. Of the command they are made of its command line's definition, and
//! of the functions of the headers' comments, so that they say what there is. xlevent(7) alone is written by hand.
//!
//! usage: xlevent-pages ROOT DIRECTORY
//!
//! ROOT is that of the sources, with `include` and `man`. Below the directory come `man/man1`, `man3` and `man7`, and `bash`,
//! `zsh` and `fish` with a file each.

#[path = "../../args.rs"]
#[allow(dead_code, reason = "the command uses what is parsed")]
mod args;
mod header;
mod manual;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use args::Arguments;
use clap::CommandFactory;
use clap_complete::Shell;
use clap_mangen::Man;
use manual::{Header, Title};

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let (Some(root), Some(directory), None) = (arguments.next(), arguments.next(), arguments.next()) else {
        eprintln!("usage: xlevent-pages ROOT DIRECTORY");
        return ExitCode::from(2);
    };
    match write(Path::new(&root), Path::new(&directory)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xlevent-pages: {error}");
            ExitCode::FAILURE
        }
    }
}

const SOURCE: &str = concat!("xlevent ", env!("CARGO_PKG_VERSION"));

fn write(root: &Path, directory: &Path) -> io::Result<()> {
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
    let place = made("man/man3")?;
    for (name, text) in manual::pages(&headers(root)?, &Title { date: &date(), source: SOURCE }) {
        std::fs::write(place.join(format!("{name}.3")), text)?;
    }
    let concepts = std::fs::read_to_string(root.join("man/xlevent.7"))?;
    let concepts = concepts.replacen("@DATE@ and @SOURCE@ are", "The date and the source were", 1);
    std::fs::write(
        made("man/man7")?.join("xlevent.7"),
        concepts.replace("@DATE@", &date()).replace("@SOURCE@", SOURCE),
    )?;
    // What comes after `run` is completed as the program that it is. zsh knows by itself.
    let additions = [
        (Shell::Bash, "bash", include_str!("run.bash")),
        (Shell::Zsh, "zsh", ""),
        (Shell::Fish, "fish", include_str!("run.fish")),
    ];
    for (shell, place, addition) in additions {
        let file = clap_complete::generate_to(shell, &mut Arguments::command(), "xlevent", made(place)?)?;
        std::fs::OpenOptions::new().append(true).open(file)?.write_all(addition.as_bytes())?;
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
    let command = if command.has_subcommands() { "" } else { "xlevent(1), " };
    writeln!(text, ".SH \"SEE ALSO\"\n{command}xlevent(7), xl(1)")?;
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

fn headers(root: &Path) -> io::Result<Vec<Header>> {
    let header = |name: &'static str| -> io::Result<Header> {
        let text = std::fs::read_to_string(root.join("include").join(name))?;
        Ok(Header { name, items: header::items(&text) })
    };
    Ok(vec![header("libxl_event.h")?, header("xlevent.h")?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_function_has_a_page_that_says_what_its_comment_says() {
        let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
        let headers = headers(root).unwrap();
        let pages = manual::pages(&headers, &Title { date: "2026-01-01", source: SOURCE });
        // The list that the README's table is made of, which is held against the exported symbols.
        let functions = std::fs::read_to_string(root.join("ctests/functions")).unwrap();
        let names =
            functions.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_whitespace().next());
        let mut count = 0;
        for name in names {
            let mut page = pages.get(name).unwrap_or_else(|| panic!("{name} has no page"));
            if let Some(other) = page.strip_prefix(".so man3/") {
                page = &pages[other.trim_end().trim_end_matches(".3")];
            }
            let item = headers
                .iter()
                .flat_map(|header| &header.items)
                .find(|item| item.name == name && item.is_function)
                .unwrap();
            // Every word of its comment.
            let (page, mut at) = (page.replace("\\-", "-").replace("\\(aq", "'").replace(['\\', '\n'], " "), 0);
            let words = item
                .comment
                .iter()
                .filter(|line| *line != "# Safety")
                .flat_map(|line| line.split([' ', '`', '\\']))
                .filter(|word| word.len() > 3);
            for word in words.filter(|word| word.chars().all(|letter| letter.is_ascii_alphabetic())) {
                assert!(page.contains(word), "{name}: {word}");
                at += 1;
            }
            assert!(at > 3, "{name} says next to nothing");
            count += 1;
        }
        assert!(count > 40, "{count}");
    }
}
