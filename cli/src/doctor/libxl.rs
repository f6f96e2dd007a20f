// SPDX-License-Identifier: LGPL-2.1-or-later
//! Whether the library gets in front of libxenlight.
//!
//! The dynamic linker is asked: it can load a program, bind its symbols, and say to what, without starting it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use super::{Finding, Show, limit};
use crate::exit::Result;
use crate::libraries::Libraries;
use crate::program::{self, why_not_preloaded};

/// Where distributions keep xl itself. What is in the path may be a script that finds it.
const FOLDERS: [&str; 4] = ["/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/lib/xen/bin"];

/// A function that xl calls, and that both have.
const FUNCTION: &str = "libxl_event_wait";

/// Whether something is amiss.
pub fn findings(show: Show<'_>) -> Result<bool> {
    let mut amiss = false;
    let (programs, slow) = match limit::check("xl", programs) {
        Ok(programs) => (programs, Vec::new()),
        Err(finding) => (Vec::new(), vec![*finding]),
    };
    amiss |= show(slow)?;
    let theirs = programs.clone();
    amiss |= show(vec![limit::check("libxenlight", move || releases(&theirs)).unwrap_or_else(|finding| *finding)])?;
    match limit::check("xlevent", Libraries::find) {
        Ok(Ok(libraries)) => {
            amiss |= show(vec![Finding::ok("xlevent", libraries.library.display())])?;
            amiss |= preloads(&libraries, &programs, show)?;
        }
        Ok(Err(why)) => {
            amiss |= show(vec![Finding::bad("xlevent", why, "install the library beside this command")])?;
        }
        Err(finding) => amiss |= show(vec![*finding])?,
    }
    if std::env::var_os("XLEVENT_REPORT_SUSPEND").is_some_and(|value| value == "1") {
        let advice = "unset it, unless a program relies on it";
        let text = "XLEVENT_REPORT_SUSPEND=1: suspends look like shutdowns";
        amiss |= show(vec![Finding::warn("environment", text, advice)])?;
    }
    Ok(amiss)
}

fn releases(programs: &[PathBuf]) -> Finding {
    let what = "libxenlight";
    let mut found = BTreeMap::new();
    let deadline = limit::for_programs();
    // A host needn't have a cache, and where a program asks for a library it may say itself where that is. The programs first: the
    // cache's program may hang, and take all the time that there is.
    for said in
        programs.iter().map(|program| loaded_by(program, deadline)).chain(std::iter::once_with(|| cache(deadline)))
    {
        for file in libxenlights(&said) {
            // One may be reached by several paths.
            let key = fs::canonicalize(file).unwrap_or_else(|_| file.into());
            found.entry(key).or_insert_with(|| file.to_owned());
        }
    }
    if found.is_empty() {
        let advice = "fine for programs that are linked with xlevent alone; xl and libvirt bring it";
        return Finding::warn(what, "none is in the linker's cache, and no xl here finds one", advice);
    }
    Finding::ok(what, found.into_values().collect::<Vec<_>>().join(", "))
}

/// The linker's cache, in words; empty if there is none.
fn cache(deadline: Instant) -> String {
    let programs = ["ldconfig", "/sbin/ldconfig", "/usr/sbin/ldconfig"];
    let print = |program| limit::output(Command::new(program).arg("-p"), deadline);
    let output = programs.iter().find_map(|program| print(program).ok());
    output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
}

/// What the dynamic linker loads for a program, in its words.
fn loaded_by(program: &Path, deadline: Instant) -> String {
    let output = limit::output(&mut asked_of(program), deadline);
    output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
}

/// The files of libxenlight among libraries that the linker or its cache names.
fn libxenlights(said: &str) -> impl Iterator<Item = &str> {
    let lines = said.lines().filter(|line| line.trim_start().starts_with("libxenlight.so."));
    // The linker says where in memory it is, too.
    let files = lines.filter_map(|line| line.split_once("=> ")?.1.split(" (0x").next());
    files.filter(|file| *file != "not found")
}

fn preloads(libraries: &Libraries, programs: &[PathBuf], show: Show<'_>) -> Result<bool> {
    let what = "preload";
    if programs.is_empty() {
        return show(vec![Finding::ok(what, "there is no xl here to try it with")]);
    }
    let preload = match libraries.preload(std::env::var_os("LD_PRELOAD")) {
        Ok(preload) => preload,
        Err(why) => return show(vec![Finding::bad(what, why, "install it elsewhere")]),
    };
    let mut amiss = false;
    for program in programs {
        let shown = program.display();
        let (program, preload, library) = (program.clone(), preload.clone(), libraries.library.clone());
        let bound = move || {
            let file = bound_to(&program, &preload)?;
            let is_ours = fs::canonicalize(&file).is_ok_and(|file| file == library);
            Ok::<_, String>((file, is_ours))
        };
        let finding = match limit::check(what, bound) {
            Ok(Ok((_, true))) => Finding::ok(what, format_args!("{shown}: its {FUNCTION} is xlevent's")),
            Ok(Ok((file, false))) => {
                let advice = "something else comes ahead of it: look at LD_PRELOAD and /etc/ld.so.preload";
                Finding::bad(what, format_args!("{shown}: its {FUNCTION} is that of {}", file.display()), advice)
            }
            Ok(Err(why)) => Finding::bad(what, format_args!("{shown}: {why}"), "xlevent run can't be used with it"),
            Err(finding) => *finding,
        };
        amiss |= show(vec![finding])?;
    }
    Ok(amiss)
}

/// The xl programs of all releases.
fn programs() -> Vec<PathBuf> {
    let of_releases = fs::read_dir("/usr/lib").into_iter().flatten().flatten().map(|entry| entry.path());
    let of_releases = of_releases
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("xen-")))
        .map(|path| path.join("bin"));
    let mut programs: Vec<PathBuf> = of_releases
        .chain(FOLDERS.iter().map(PathBuf::from))
        .filter_map(|folder| fs::canonicalize(folder.join("xl")).ok())
        .filter(|file| is_a_program(file))
        .collect();
    programs.sort();
    programs.dedup();
    programs
}

fn is_a_program(file: &Path) -> bool {
    let mut begin = [0; 4];
    let is_elf = program::open(file).is_some_and(|mut file| file.read_exact(&mut begin).is_ok());
    is_elf && begin == *b"\x7fELF" && why_not_preloaded(file).is_none()
}

/// A program for which the dynamic linker loads everything, says what that is, and doesn't start it.
fn asked_of(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env("LD_TRACE_LOADED_OBJECTS", "1");
    command
}

/// The file that a program's function would come from.
fn bound_to(program: &Path, preload: &OsString) -> std::result::Result<PathBuf, String> {
    let mut command = asked_of(program);
    // Binds everything, too, and says what.
    command.env("LD_WARN", "1").env("LD_BIND_NOW", "1").env("LD_DEBUG", "bindings").env_remove("LD_DEBUG_OUTPUT");
    let output =
        limit::output(command.env("LD_PRELOAD", preload), limit::for_programs()).map_err(|error| error.to_string())?;
    let said = String::from_utf8_lossy(&output.stderr);
    let program = program.display().to_string();
    said.lines()
        .find_map(|line| binding(line, &program))
        .map(PathBuf::from)
        .ok_or_else(|| format!("the dynamic linker binds no {FUNCTION} for it"))
}

/// Of a line such as "binding file /usr/sbin/xl [0] to /lib/libxenlight.so.4.17 [0]: normal symbol `libxl_event_wait'": the
/// second file, if it is about our function and this program.
fn binding<'a>(line: &'a str, program: &str) -> Option<&'a str> {
    let (files, symbol) = line.split_once("binding file ")?.1.split_once(": normal symbol `")?;
    let (from, to) = files.split_once(" [0] to ")?;
    let to = to.strip_suffix(" [0]")?;
    (from == program && symbol.split('\'').next() == Some(FUNCTION)).then_some(to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_linkers_words_are_understood() {
        let line = "     22164:\tbinding file /usr/lib/xen-4.17/bin/xl [0] to /l/libxlevent.so.1 [0]: normal symbol `libxl_event_wait' [VERS_4.17.0]";
        assert_eq!(binding(line, "/usr/lib/xen-4.17/bin/xl"), Some("/l/libxlevent.so.1"));
        assert_eq!(binding(line, "/usr/sbin/xl"), None);
        assert_eq!(binding(&line.replace("event_wait", "event_waits"), "/usr/lib/xen-4.17/bin/xl"), None);
        let cache = "2 libs found in cache\n\tlibxenlight.so.4.17 (libc6,x86-64) => /lib/libxenlight.so.4.17\n\
                     \tlibxenlight.so (libc6,x86-64) => /lib/libxenlight.so\n\tlibz.so.1 => /lib/libz.so.1\n";
        assert_eq!(libxenlights(cache).collect::<Vec<_>>(), ["/lib/libxenlight.so.4.17"]);
        let loaded = "\tlinux-vdso.so.1 (0x00007ffc)\n\tlibxenlight.so.4.17 => /lib/libxenlight.so.4.17 (0x00007f0e)\n\
                      \tlibxenlight.so.4.20 => not found\n\tlibz.so.1 => /lib/libz.so.1 (0x00007f0d)\n";
        assert_eq!(libxenlights(loaded).collect::<Vec<_>>(), ["/lib/libxenlight.so.4.17"]);
    }
}
