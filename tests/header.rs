// SPDX-License-Identifier: LGPL-2.1-or-later
//! The committed headers are what the source says.
//!
//! A header is a frame, `src/capi/libxl_event.h.in` or `src/capi/xlevent.h.in`, with each line `@FILE [tag]@` replaced by
//! what cbindgen makes of `src/FILE`; `tag` asks for plain tagged structs (`struct x;` instead of `typedef struct x x;`).
//! `UPDATE_HEADERS=1 cargo test --test header` (or `make headers`) writes it anew.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use cbindgen::{Builder, Config, Style};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// What cbindgen makes of one file of `src`.
fn section(file: &str, style: Style) -> Result<String> {
    let mut config = Config::from_file(root().join("cbindgen.toml"))?;
    config.style = style;
    let source = root().join("src").join(file);
    let mut text = Vec::new();
    Builder::new().with_config(config).with_src(source).generate()?.write(&mut text);
    Ok(tidy(&String::from_utf8(text)?))
}

/// Puts right what no setting of cbindgen's can: the looks, nothing else.
fn tidy(text: &str) -> String {
    let text = text
        .trim()
        // The one type of ours whose name ends in a star (see cbindgen.toml) is followed by a space.
        .replace("libxl_event_predicate * ", "libxl_event_predicate *")
        // What follows the parameters starts a line of its own.
        .replace("\nLIBXL_EXTERNAL_CALLERS_ONLY", "\n    LIBXL_EXTERNAL_CALLERS_ONLY")
        // A line for cbindgen in a comment leaves the blank line before it.
        .replace("\n *\n */", "\n */");
    // A comment of one line takes one line.
    let mut rest: Vec<&str> = text.lines().rev().collect();
    let mut out: Vec<String> = Vec::with_capacity(rest.len());
    while let Some(line) = rest.pop() {
        match (line.trim(), rest.as_slice()) {
            ("/**", [.., close, words]) if close.trim() == "*/" => {
                out.push(format!("{line} {} */", words.trim().trim_start_matches("* ")));
                rest.truncate(rest.len() - 2);
            }
            _ => out.push(line.to_owned()),
        }
    }
    out.join("\n")
}

/// The whole header.
fn header(frame: &Path) -> Result<String> {
    let mut out = String::new();
    for line in fs::read_to_string(frame)?.lines() {
        match line.strip_prefix('@').and_then(|line| line.strip_suffix('@')) {
            None => out.push_str(line),
            Some(directive) => {
                let (file, style) = match directive.split_once(' ') {
                    None => (directive, Style::Both),
                    Some((file, "tag")) => (file, Style::Tag),
                    Some(_) => return Err(format!("{}: what is @{directive}@?", frame.display()).into()),
                };
                out.push_str(&section(file, style).map_err(|why| format!("src/{file}: {why}"))?);
            }
        }
        out.push('\n');
    }
    Ok(out)
}

/// The first lines where two texts part, for a person to read.
fn difference(committed: &str, generated: &str) -> String {
    let (old, new): (Vec<_>, Vec<_>) = (committed.lines().collect(), generated.lines().collect());
    let same = old.iter().zip(&new).take_while(|(old, new)| old == new).count();
    let show = |sign, lines: &[&str]| {
        lines.iter().skip(same).take(8).map(|line| format!("  {sign}{line}\n")).collect::<Vec<_>>().concat()
    };
    let (old, new): (String, String) = (show('-', &old), show('+', &new));
    format!("they part at line {}:\n{old}{new}", same + 1)
}

fn check(frame: &str, header_path: &str) -> Result<()> {
    let generated = header(&root().join(frame))?;
    let path: PathBuf = root().join(header_path);
    if std::env::var_os("UPDATE_HEADERS").is_some() {
        return Ok(fs::write(path, generated)?);
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    if committed == generated {
        return Ok(());
    }
    Err(format!(
        "{header_path} is not what src/ says ('-' committed, '+' generated); `make headers` writes it anew.\n{}",
        difference(&committed, &generated)
    )
    .into())
}

#[test]
fn libxl_event_h_is_what_the_source_says() {
    if let Err(why) = check("src/capi/libxl_event.h.in", "include/libxl_event.h") {
        panic!("{why}");
    }
}

#[test]
fn xlevent_h_is_what_the_source_says() {
    if let Err(why) = check("src/capi/xlevent.h.in", "include/xlevent.h") {
        panic!("{why}");
    }
}
