// SPDX-License-Identifier: LGPL-2.1-or-later
//! The C library's functions that take a path: those below `/dev/xen` and `/proc/xen`, and below `/run/xen` and
//! `/var/lib/xen`, where libxl keeps files of its own, lead to the host's directory.
//!
//! `open` and its like are variadic in C, which a definition in Rust cannot be. One that always has the last argument
//! is called in the same way under the calling conventions of Linux; a caller that gave none leaves something in its
//! place, and it is passed on together with the flags that say whether it means anything.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::os::fd::IntoRawFd;

use driver::Role;
use libc::{DIR, FILE, mode_t};

use crate::hosts::{self, Attached, Path};
use crate::{errno, errno_of, fail, next, set_errno};

/// What a path leads to.
#[expect(clippy::large_enum_variant, reason = "nothing may be allocated here, and it lives for one call")]
enum Lead {
    /// Where it says.
    Itself,
    /// Into the host's directory.
    To(Path),
    /// To the event channels of a host.
    Evtchn(&'static Attached),
    /// Nowhere: the error number.
    Nowhere(c_int),
}

/// What a path is wanted for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Open,
    Look,
}

/// What is below a folder.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Devices: a client may be refused them.
    Devices,
    /// Files that libxl keeps of its own: which domains there were lately, what it knows of each.
    State,
}

/// What is simulated: a prefix, what is below it, and the folder in the host's directory.
const FOLDERS: [(&[u8], Kind, &[u8]); 5] = [
    (b"/dev/xen", Kind::Devices, b"dev"),
    (b"/proc/xen", Kind::Devices, b"proc"),
    (b"/var/run/xen", Kind::State, b"run-xen"),
    (b"/run/xen", Kind::State, b"run-xen"),
    (b"/var/lib/xen", Kind::State, b"lib-xen"),
];

/// # Safety
/// `path` is null or a C string.
unsafe fn lead(path: *const c_char, purpose: Purpose) -> Lead {
    if path.is_null() {
        return Lead::Itself;
    }
    // SAFETY: the caller vouches for it.
    let bytes = unsafe { CStr::from_ptr(path) }.to_bytes();
    let below = |(prefix, kind, folder): &(&'static [u8], Kind, &'static [u8])| {
        let rest = bytes.strip_prefix(*prefix)?;
        (rest.is_empty() || rest[0] == b'/').then_some((*kind, *folder, rest))
    };
    match FOLDERS.iter().find_map(below) {
        Some((kind, folder, rest)) if hosts::is_any() => {
            let before = errno();
            let lead = lead_below(kind, folder, rest, purpose);
            set_errno(before);
            lead
        }
        _ => Lead::Itself,
    }
}

fn lead_below(kind: Kind, folder: &[u8], rest: &[u8], purpose: Purpose) -> Lead {
    let host = match hosts::current() {
        Ok(host) => host,
        // Never the machine's own devices.
        Err(error) => return Lead::Nowhere(errno_of(&error)),
    };
    if rest.split(|byte| *byte == b'/').any(|part| part == b"..") {
        return Lead::Nowhere(libc::ENOENT);
    }
    if kind == Kind::Devices {
        let refused = host.table.access().errno().filter(|_| host.role == Role::Client);
        if let Some(errno) = refused.filter(|errno| purpose == Purpose::Open || *errno != libc::EACCES) {
            return Lead::Nowhere(errno);
        }
        if purpose == Purpose::Open && folder == b"dev" && rest == b"/evtchn" {
            return Lead::Evtchn(host);
        }
    }
    match host.path(&[folder, rest]) {
        Some(path) => Lead::To(path),
        None => Lead::Nowhere(libc::ENAMETOOLONG),
    }
}

fn open_evtchn(host: &Attached, flags: c_int) -> c_int {
    let before = errno();
    let opened = host.lock().and_then(|lock| host.channels().open(&lock, flags & libc::O_NONBLOCK != 0));
    set_errno(before);
    let fd = match opened {
        Ok(fd) => fd.into_raw_fd(),
        Err(error) => return fail(errno_of(&error)),
    };
    if flags & libc::O_CLOEXEC == 0 {
        // SAFETY: our own descriptor.
        unsafe { libc::fcntl(fd, libc::F_SETFD, 0) };
    }
    fd
}

/// Defines a function that opens a descriptor. The names of the path and the flags among the arguments stand first.
macro_rules! open_function {
    ($path:ident, $flags:ident, $name:ident($($argument:ident: $type:ty),*)) => {
        /// As in the C library, but for Xen's devices.
        ///
        /// # Safety
        /// As in the C library.
        #[unsafe(no_mangle)]
        pub unsafe extern "C-unwind" fn $name($($argument: $type),*) -> c_int {
            type Function = unsafe extern "C-unwind" fn($($type),*) -> c_int;
            let Some(next) = next!($name as Function) else { return fail(libc::ENOSYS) };
            // SAFETY: our caller's path.
            match unsafe { lead($path, Purpose::Open) } {
                // SAFETY: our caller's arguments.
                Lead::Itself => unsafe { next($($argument),*) },
                Lead::To(there) => {
                    let $path = there.as_c_str().as_ptr();
                    // SAFETY: our caller's arguments, with another path.
                    unsafe { next($($argument),*) }
                }
                Lead::Evtchn(host) => open_evtchn(host, $flags),
                Lead::Nowhere(errno) => fail(errno),
            }
        }
    };
}

open_function!(path, flags, open(path: *const c_char, flags: c_int, mode: mode_t));
open_function!(path, flags, open64(path: *const c_char, flags: c_int, mode: mode_t));
open_function!(path, flags, __open_2(path: *const c_char, flags: c_int));
open_function!(path, flags, __open64_2(path: *const c_char, flags: c_int));
open_function!(path, flags, openat(folder: c_int, path: *const c_char, flags: c_int, mode: mode_t));
open_function!(path, flags, openat64(folder: c_int, path: *const c_char, flags: c_int, mode: mode_t));
open_function!(path, flags, __openat_2(folder: c_int, path: *const c_char, flags: c_int));
open_function!(path, flags, __openat64_2(folder: c_int, path: *const c_char, flags: c_int));

/// Defines a function that does something else with a path, and returns the last of these if there is no such thing.
macro_rules! path_function {
    ($path:ident, $purpose:expr, $name:ident($($argument:ident: $type:ty),*) -> $result:ty, $failed:expr) => {
        /// As in the C library, but for Xen's devices.
        ///
        /// # Safety
        /// As in the C library.
        #[unsafe(no_mangle)]
        pub unsafe extern "C-unwind" fn $name($($argument: $type),*) -> $result {
            type Function = unsafe extern "C-unwind" fn($($type),*) -> $result;
            let Some(next) = next!($name as Function) else {
                set_errno(libc::ENOSYS);
                return $failed;
            };
            // SAFETY: our caller's path.
            match unsafe { lead($path, $purpose) } {
                // SAFETY: our caller's arguments.
                Lead::Itself => unsafe { next($($argument),*) },
                Lead::To(there) => {
                    let $path = there.as_c_str().as_ptr();
                    // SAFETY: our caller's arguments, with another path.
                    unsafe { next($($argument),*) }
                }
                Lead::Evtchn(_) => {
                    // Not through a stream.
                    set_errno(libc::ENXIO);
                    $failed
                }
                Lead::Nowhere(errno) => {
                    set_errno(errno);
                    $failed
                }
            }
        }
    };
}

path_function!(path, Purpose::Open, fopen(path: *const c_char, mode: *const c_char) -> *mut FILE, std::ptr::null_mut());
path_function!(
    path,
    Purpose::Open,
    fopen64(path: *const c_char, mode: *const c_char) -> *mut FILE, std::ptr::null_mut()
);
path_function!(path, Purpose::Look, access(path: *const c_char, mode: c_int) -> c_int, -1);
path_function!(
    path,
    Purpose::Look,
    faccessat(folder: c_int, path: *const c_char, mode: c_int, flags: c_int) -> c_int, -1
);
path_function!(path, Purpose::Look, stat(path: *const c_char, status: *mut c_void) -> c_int, -1);
path_function!(path, Purpose::Look, stat64(path: *const c_char, status: *mut c_void) -> c_int, -1);
path_function!(path, Purpose::Look, lstat(path: *const c_char, status: *mut c_void) -> c_int, -1);
path_function!(path, Purpose::Look, lstat64(path: *const c_char, status: *mut c_void) -> c_int, -1);
path_function!(
    path,
    Purpose::Look,
    fstatat(folder: c_int, path: *const c_char, status: *mut c_void, flags: c_int) -> c_int, -1
);
path_function!(
    path,
    Purpose::Look,
    fstatat64(folder: c_int, path: *const c_char, status: *mut c_void, flags: c_int) -> c_int, -1
);
path_function!(
    path,
    Purpose::Look,
    statx(folder: c_int, path: *const c_char, flags: c_int, mask: c_uint, status: *mut c_void) -> c_int, -1
);
path_function!(path, Purpose::Look, __xstat(version: c_int, path: *const c_char, status: *mut c_void) -> c_int, -1);
path_function!(path, Purpose::Look, __xstat64(version: c_int, path: *const c_char, status: *mut c_void) -> c_int, -1);
path_function!(path, Purpose::Look, __lxstat(version: c_int, path: *const c_char, status: *mut c_void) -> c_int, -1);
path_function!(path, Purpose::Look, __lxstat64(version: c_int, path: *const c_char, status: *mut c_void) -> c_int, -1);
path_function!(path, Purpose::Look, mkdir(path: *const c_char, mode: mode_t) -> c_int, -1);
path_function!(path, Purpose::Look, rmdir(path: *const c_char) -> c_int, -1);
path_function!(path, Purpose::Look, unlink(path: *const c_char) -> c_int, -1);
path_function!(path, Purpose::Look, opendir(path: *const c_char) -> *mut DIR, std::ptr::null_mut());

/// As in the C library, but for Xen's files.
///
/// # Safety
/// As in the C library.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn rename(from: *const c_char, to: *const c_char) -> c_int {
    type Function = unsafe extern "C-unwind" fn(*const c_char, *const c_char) -> c_int;
    let Some(next) = next!(rename as Function) else { return fail(libc::ENOSYS) };
    let mut paths = [from, to];
    // SAFETY: our caller's paths.
    let leads = unsafe { [lead(from, Purpose::Look), lead(to, Purpose::Look)] };
    for (path, lead) in paths.iter_mut().zip(&leads) {
        match lead {
            Lead::Itself => {}
            Lead::To(there) => *path = there.as_c_str().as_ptr(),
            Lead::Evtchn(_) => return fail(libc::EBUSY),
            Lead::Nowhere(errno) => return fail(*errno),
        }
    }
    // SAFETY: our caller's paths, or others that live until the call returns.
    unsafe { next(paths[0], paths[1]) }
}
