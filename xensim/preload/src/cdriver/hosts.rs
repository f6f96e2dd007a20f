// SPDX-License-Identifier: LGPL-2.1-or-later
//! Hosts: up and down, and whose client this process is.
//!
//! Invariant: a host that this process has brought up and not taken down is taken down when it exits; not by a child
//! that it forked.

use std::ffi::{CStr, CString, OsStr, c_char, c_int, c_uint, c_void};
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Mutex, Once, PoisonError};

use driver::Host;

use super::{Failure, Handle, LAST_ERROR, Result, guard, handle, status, text};

/// Handles of hosts that this process has brought up and not taken down, as numbers.
static OWNED: Mutex<Vec<usize>> = Mutex::new(Vec::new());
static AT_EXIT: Once = Once::new();

extern "C" fn take_all_down() {
    let owned = std::mem::take(&mut *OWNED.lock().unwrap_or_else(PoisonError::into_inner));
    for handle in owned {
        // SAFETY: only handles in use are on the list, and this one's use ends here with the process.
        let handle = unsafe { Box::from_raw(handle as *mut Handle) };
        let _ = catch_unwind(AssertUnwindSafe(|| take_down(*handle)));
    }
}

/// A child that was forked has a copy of the handle, and is not the one to end the host.
fn take_down(handle: Handle) -> Result<()> {
    if handle.owner.is_some_and(|owner| owner != std::process::id()) {
        std::mem::forget(handle);
        return Ok(());
    }
    handle.host.down().map_err(Failure::from)
}

/// This library's file.
fn own_path() -> Result<std::path::PathBuf> {
    let unknown = || Failure { errno: libc::ENOENT, words: "libxensim.so does not know its own path".into() };
    // SAFETY: plain data, for which zeroes are a value.
    let mut info: libc::Dl_info = unsafe { std::mem::zeroed() };
    let own: *const c_void = (&raw const OWNED).cast();
    // SAFETY: an address, and a place for the answer.
    if unsafe { libc::dladdr(own, &raw mut info) } == 0 || info.dli_fname.is_null() {
        return Err(unknown());
    }
    // SAFETY: the loader's own string.
    let path = unsafe { CStr::from_ptr(info.dli_fname) };
    Ok(Path::new(OsStr::from_bytes(path.to_bytes())).to_owned())
}

fn box_up(host: Host, owner: Option<u32>) -> Result<Box<Handle>> {
    let dir = CString::new(host.dir().as_os_str().as_bytes())
        .map_err(|_| Failure::invalid("a directory's name has a zero byte"))?;
    Ok(Box::new(Handle { host, dir, owner }))
}

fn become_client(host: &Host) {
    for (name, value) in host.env() {
        // SAFETY: the header asks that no other thread reads the environment meanwhile.
        unsafe { std::env::set_var(name, value) };
    }
}

/// See `xensim.h`.
#[unsafe(no_mangle)]
pub extern "C" fn xensim_up(flags: c_uint) -> *mut Handle {
    const WITHOUT_XENSTORED: c_uint = 1;
    guard(std::ptr::null_mut(), || {
        if flags & !WITHOUT_XENSTORED != 0 {
            return Err(Failure::invalid("an unknown flag"));
        }
        let mut builder = Host::builder().library(own_path()?);
        if flags & WITHOUT_XENSTORED != 0 {
            builder = builder.without_xenstored();
        }
        let host = builder.up()?;
        become_client(&host);
        let handle = Box::into_raw(box_up(host, Some(std::process::id()))?);
        OWNED.lock().unwrap_or_else(PoisonError::into_inner).push(handle as usize);
        AT_EXIT.call_once(|| {
            // SAFETY: a function that takes and returns nothing. Should there be no room for it, the host is swept
            // later.
            unsafe { libc::atexit(take_all_down) };
        });
        Ok(handle)
    })
}

/// See `xensim.h`.
///
/// # Safety
/// `dir` is null or a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xensim_attach(dir: *const c_char) -> *mut Handle {
    guard(std::ptr::null_mut(), || {
        let host = if dir.is_null() {
            Host::from_env()?
        } else {
            // SAFETY: the caller's word.
            Host::attach(Path::new(unsafe { text(dir, "the directory") }?))?
        };
        Ok(Box::into_raw(box_up(host, None)?))
    })
}

/// See `xensim.h`.
///
/// # Safety
/// `host` is null or a handle that is in use.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xensim_use(host: *mut Handle) -> c_int {
    status(|| {
        // SAFETY: the caller's word.
        become_client(&unsafe { handle(host) }?.host);
        Ok(())
    })
}

/// Takes a handle off the list, so that only its caller has it.
fn disown(host: *mut Handle) {
    OWNED.lock().unwrap_or_else(PoisonError::into_inner).retain(|owned| *owned != host as usize);
}

/// See `xensim.h`.
///
/// # Safety
/// `host` is null or a handle that is in use; not any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xensim_down(host: *mut Handle) -> c_int {
    status(|| {
        // SAFETY: the caller's word.
        unsafe { handle(host) }?;
        disown(host);
        // SAFETY: a handle, and nobody else has it any more.
        take_down(*unsafe { Box::from_raw(host) })
    })
}

/// See `xensim.h`.
///
/// # Safety
/// `host` is null or a handle that is in use; not any more, if this succeeds.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xensim_detach(host: *mut Handle) -> c_int {
    status(|| {
        // SAFETY: the caller's word.
        if unsafe { handle(host) }?.owner.is_some() {
            return Err(Failure::invalid("this process has brought the host up: take it down"));
        }
        // SAFETY: a handle, and nobody else has it any more.
        drop(unsafe { Box::from_raw(host) });
        Ok(())
    })
}

/// See `xensim.h`.
///
/// # Safety
/// `host` is null or a handle that is in use.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xensim_dir(host: *mut Handle) -> *const c_char {
    // SAFETY: the caller's word.
    guard(std::ptr::null(), || Ok(unsafe { handle(host) }?.dir.as_ptr()))
}

/// See `xensim.h`.
#[unsafe(no_mangle)]
pub extern "C" fn xensim_error() -> *const c_char {
    LAST_ERROR.with(|last| last.borrow().as_ptr())
}
