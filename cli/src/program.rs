// SPDX-License-Identifier: LGPL-2.1-or-later
//! What kind of file a program is: whether the dynamic linker will load for it what it is told to preload.
//!
//! Nothing is executed here, and nothing that a file says is believed beyond its own fate: whatever can't be read is left to
//! the kernel to judge.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::unistd::{AccessFlags, access};

/// A script's interpreter may be a script; the kernel goes no deeper.
const DEEPEST: u32 = 5;
/// What the kernel reads of a script's first line.
const FIRST_LINE: usize = 256;

/// Why there is no program.
#[derive(Debug, PartialEq, Eq)]
pub enum Missing {
    /// There is none of this name.
    NotFound,
    /// There is one, and it can't be executed.
    NotExecutable,
}

/// The file of a program, as a shell would find it.
pub fn find(name: &Path) -> Result<PathBuf, Missing> {
    let candidates: Vec<PathBuf> = if name.as_os_str().as_bytes().contains(&b'/') {
        vec![name.to_owned()]
    } else if name.as_os_str().is_empty() {
        Vec::new()
    } else {
        let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into());
        // An empty part is the current directory.
        std::env::split_paths(&path)
            .map(|part| if part.as_os_str().is_empty() { ".".into() } else { part })
            .map(|part: PathBuf| part.join(name))
            .collect()
    };
    let mut missing = Missing::NotFound;
    for candidate in candidates {
        let Ok(about) = candidate.metadata() else { continue };
        if about.is_file() && access(&candidate, AccessFlags::X_OK).is_ok() {
            return Ok(candidate);
        }
        missing = Missing::NotExecutable;
    }
    Err(missing)
}

/// Why nothing can be preloaded into this program, if so.
pub fn why_not_preloaded(program: &Path) -> Option<String> {
    why_not(program, DEEPEST)
}

fn why_not(program: &Path, depth: u32) -> Option<String> {
    let mut file = open(program)?;
    let about = file.metadata().ok()?;
    let mut begin = Vec::new();
    file.by_ref().take(FIRST_LINE as u64).read_to_end(&mut begin).ok()?;
    if let Some(interpreter) = interpreter(&begin) {
        // For scripts the kernel takes no notice of setuid.
        return why_not(interpreter, depth.checked_sub(1)?);
    }
    let name = program.display();
    // Whose this process is: its effective user and group.
    let me = std::fs::metadata("/proc/self").ok()?;
    let setuid = about.mode() & 0o4000 != 0 && about.uid() != me.uid();
    let setgid = about.mode() & 0o2010 == 0o2010 && about.gid() != me.gid();
    if setuid || setgid {
        return Some(format!("{name} gains privileges when it is started"));
    }
    let header = Elf::of(&begin)?;
    let mine = std::env::current_exe().and_then(File::open).ok();
    let mine = mine.and_then(|mut file| {
        let mut begin = [0; ELF_HEADER];
        file.read_exact(&mut begin).ok()?;
        Elf::of(&begin)
    });
    if mine.is_some_and(|mine| mine.kind != header.kind) {
        return Some(format!("{name} is made for another kind of processor"));
    }
    (!header.asks_for_a_linker(&file)?).then(|| format!("{name} is linked statically"))
}

/// Opens what can be a program. A script may name anything as its interpreter: a FIFO or a terminal would keep us waiting, and the
/// kernel executes neither.
pub fn open(path: &Path) -> Option<File> {
    // Opening a device may do something to it.
    path.metadata().ok().filter(fs::Metadata::is_file)?;
    let file = File::options().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path).ok()?;
    file.metadata().is_ok_and(|about| about.is_file()).then_some(file)
}

/// The interpreter that a script names.
fn interpreter(begin: &[u8]) -> Option<&Path> {
    let line = begin.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    let name = line.split(|byte| matches!(byte, b' ' | b'\t')).find(|word| !word.is_empty())?;
    Some(Path::new(std::ffi::OsStr::from_bytes(name)))
}

/// The size of a 64-bit ELF header; a smaller one of 32 bits is never read beyond what tells them apart.
const ELF_HEADER: usize = 64;

/// What an ELF header says.
#[derive(Debug, Clone, Copy)]
struct Elf {
    /// Class, byte order and machine.
    kind: (u8, u8, u16),
    /// Where the table of segments is, how long an entry is, and how many there are.
    table: (u64, u16, u16),
}

impl Elf {
    fn of(begin: &[u8]) -> Option<Self> {
        if begin.len() < ELF_HEADER || !begin.starts_with(b"\x7fELF") {
            return None;
        }
        let table = (u64::from_ne_bytes(part(begin, 32)?), half(begin, 54)?, half(begin, 56)?);
        Some(Elf { kind: (begin[4], begin[5], half(begin, 18)?), table })
    }

    /// One of its segments names the dynamic linker. Only for a file of our own kind.
    fn asks_for_a_linker(&self, file: &File) -> Option<bool> {
        const PT_INTERP: u32 = 3;
        let (offset, size, count) = self.table;
        for index in 0..u64::from(count) {
            let mut kind = [0; 4];
            let at = offset.checked_add(index * u64::from(size))?;
            file.read_exact_at(&mut kind, at).ok()?;
            if u32::from_ne_bytes(kind) == PT_INTERP {
                return Some(true);
            }
        }
        Some(false)
    }
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    part(bytes, at).map(u16::from_ne_bytes)
}

fn part<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_word_of_the_first_line_is_the_interpreter() {
        assert_eq!(interpreter(b"#!/bin/sh\nexit"), Some(Path::new("/bin/sh")));
        assert_eq!(interpreter(b"#! \t/usr/bin/env python3\n"), Some(Path::new("/usr/bin/env")));
        for other in [&b"#!"[..], b"#!\n/bin/sh", b"\x7fELF", b""] {
            assert_eq!(interpreter(other), None);
        }
    }

    #[test]
    fn what_is_no_program_is_not_judged() {
        assert_eq!(Elf::of(b"\x7fELF").map(|elf| elf.kind), None);
        let mut lying = [0xff; ELF_HEADER];
        lying[..4].copy_from_slice(b"\x7fELF");
        let elf = Elf::of(&lying).unwrap();
        assert_eq!(elf.asks_for_a_linker(&File::open("/proc/self/exe").unwrap()), None);
    }

    #[test]
    fn an_interpreter_that_is_no_file_is_not_waited_for() {
        let folder = std::env::temp_dir().join(format!("xlevent-program-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let fifo = folder.join("fifo");
        assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        let script = folder.join("script");
        std::fs::write(&script, format!("#!{}\n", fifo.display())).unwrap();
        let (sender, judged) = std::sync::mpsc::channel();
        std::thread::spawn(move || sender.send(why_not_preloaded(&script)));
        let judgement = judged.recv_timeout(std::time::Duration::from_secs(60));
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!(judgement, Ok(None));
    }

    #[test]
    fn this_program_can_be_preloaded() {
        assert_eq!(why_not_preloaded(&std::env::current_exe().unwrap()), None);
        assert_eq!(find(Path::new("no-such-program-anywhere")), Err(Missing::NotFound));
        assert_eq!(find(Path::new("/etc/passwd")), Err(Missing::NotExecutable));
        assert_eq!(find(Path::new("")), Err(Missing::NotFound));
    }
}
