// SPDX-License-Identifier: LGPL-2.1-or-later
//! Keeps what `xlevent run` preloads to one process.
//!
//! `LD_PRELOAD` is inherited, so everything that a program starts would load the library too. This object is preloaded
//! ahead of it, and runs before the program does:
//!
//! - In the process that `xlevent run` was, it takes both out of `LD_PRELOAD` again: the library is loaded by now, and
//!   nobody will inherit it. Only where that process runs a script it waits, for what the script may become with `exec`:
//!   Debian's `xl` is a script that becomes the real one.
//! - In any other process, which a script has started meanwhile, it takes both out, and starts the program over.
//!
//! So a process other than the one that was asked for never gets beyond its start with the library loaded. `XLEVENT_RUN`
//! holds the number of that process, and goes with the rest. Where the dynamic linker ignores `LD_PRELOAD` (statically
//! linked programs, and those that gain privileges), it ignores this object too.

use std::ffi::{CStr, OsStr, OsString, c_char, c_int};
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;

const PRELOAD: &str = "LD_PRELOAD";
const PROCESS: &str = "XLEVENT_RUN";

/// This object's file. The library comes behind it in `LD_PRELOAD`.
const OURS: &[u8] = b"libxlevent_run.so";

type Init = unsafe extern "C" fn(c_int, *const *const c_char, *const *const c_char);

/// glibc calls what is in this section when the object is loaded, with the arguments of `main`.
#[used]
#[unsafe(link_section = ".init_array")]
static INIT: Init = init;

unsafe extern "C" fn init(_argc: c_int, argv: *const *const c_char, _envp: *const *const c_char) {
    let Some(process) = std::env::var_os(PROCESS) else { return };
    let is_it = process.to_str().and_then(|number| number.parse().ok()) == Some(std::process::id());
    if is_it && runs_a_script() {
        return;
    }
    take_out();
    if !is_it {
        // SAFETY: the arguments of this process.
        unsafe { start_over(argv) };
    }
}

/// Whether this process is the interpreter of a script.
fn runs_a_script() -> bool {
    // SAFETY: no preconditions.
    let name = unsafe { libc::getauxval(libc::AT_EXECFN) } as *const c_char;
    if name.is_null() {
        return false;
    }
    // SAFETY: the kernel's string, with what execve was given, which lives as long as the process.
    let name = OsStr::from_bytes(unsafe { CStr::from_ptr(name) }.to_bytes());
    let mut begin = [0; 2];
    File::open(name).and_then(|mut file| file.read_exact(&mut begin)).is_ok() && &begin == b"#!"
}

/// Leaves the environment as it was before `xlevent run`.
fn take_out() {
    let preload = std::env::var_os(PRELOAD).unwrap_or_default();
    // SAFETY: the program has not begun, and no other thread of its looks at the environment yet.
    unsafe {
        std::env::remove_var(PROCESS);
        match without_ours(&preload) {
            Some(others) => std::env::set_var(PRELOAD, others),
            None => std::env::remove_var(PRELOAD),
        }
    }
}

/// `LD_PRELOAD` without this object and what stands behind it, the library; `None` if there is nothing else. Where a script has
/// put something ahead of them, that stays too.
fn without_ours(preload: &OsStr) -> Option<OsString> {
    let mut entries: Vec<&[u8]> = preload.as_bytes().split(|byte| matches!(byte, b':' | b' ')).collect();
    if let Some(place) = entries.iter().position(|entry| entry.rsplit(|byte| *byte == b'/').next() == Some(OURS)) {
        entries.drain(place..entries.len().min(place + 2));
    }
    entries.retain(|entry| !entry.is_empty());
    (!entries.is_empty()).then(|| OsStr::from_bytes(&entries.join(&b':')).to_owned())
}

/// The same program in the same process, from its beginning, with the environment as it is now. Returns if that can't be: then it
/// goes on with a library that it doesn't use, and what it starts is without.
///
/// # Safety
/// `argv` is this process's.
unsafe fn start_over(argv: *const *const c_char) {
    unsafe extern "C" {
        static environ: *const *const c_char;
    }
    let Ok(program) = std::fs::read_link("/proc/self/exe") else { return };
    let mut path = program.into_os_string();
    path.push("\0");
    if let Ok(path) = CStr::from_bytes_with_nul(path.as_bytes()) {
        // SAFETY: three arguments as the kernel wants them; nothing changes the environment meanwhile.
        unsafe { libc::execve(path.as_ptr(), argv, environ) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_preloaded_before_stays() {
        for (preload, others) in [
            ("/lib/libxlevent_run.so:/lib/libxlevent.so.1", None),
            ("/lib/libxlevent_run.so:/lib/libxlevent.so.1:", None),
            ("/lib/libxlevent_run.so:/lib/libxlevent.so.1:/a.so", Some("/a.so")),
            ("/lib/libxlevent_run.so:/lib/libxlevent.so.1:/a.so:b.so c.so", Some("/a.so:b.so:c.so")),
            ("/a.so /lib/libxlevent_run.so:/lib/libxlevent.so.1:b.so", Some("/a.so:b.so")),
            ("/lib/libxlevent_run.so", None),
            ("/a.so:/lib/libxlevent.so.1", Some("/a.so:/lib/libxlevent.so.1")),
            ("", None),
        ] {
            assert_eq!(without_ours(OsStr::new(preload)), others.map(OsString::from), "{preload}");
        }
    }
}
