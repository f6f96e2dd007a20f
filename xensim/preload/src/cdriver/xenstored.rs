// SPDX-License-Identifier: LGPL-2.1-or-later
//! xenstored, and what is in the store.

use std::ffi::{c_char, c_int, c_uint};

use driver::store::Request;

use super::{Failure, Handle, guard, handle, status, text};

/// See `xensim.h`.
///
/// # Safety
/// `host` is null or a handle that is in use.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xensim_settle(host: *mut Handle) -> c_int {
    // SAFETY: the caller's word.
    status(|| Ok(unsafe { handle(host) }?.host.settle()?))
}

/// See `xensim.h`.
///
/// # Safety
/// `host` is null or a handle that is in use.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xensim_virq(host: *mut Handle) -> c_int {
    // SAFETY: the caller's word.
    status(|| Ok(unsafe { handle(host) }?.host.raise_virq().map(drop)?))
}

/// See `xensim.h`.
///
/// # Safety
/// `host` is null or a handle that is in use.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xensim_xenstored(host: *mut Handle, what: c_uint) -> c_int {
    status(|| {
        // SAFETY: the caller's word.
        let host = &unsafe { handle(host) }?.host;
        let not_running = || Failure { errno: libc::ESRCH, words: "xenstored does not run".into() };
        match what {
            0 => host.start_xenstored()?,
            1 => host.start_empty_xenstored()?,
            2 => drop(host.kill_xenstored()?),
            3 => host.restart_xenstored()?,
            4 | 5 => return if host.pause_xenstored(what == 4)? { Ok(()) } else { Err(not_running()) },
            _ => return Err(Failure::invalid("unknown what xenstored shall do")),
        }
        Ok(())
    })
}

fn store_failure(path: &str, error: &std::io::Error) -> Failure {
    Failure { errno: crate::errno_of(error), words: format!("{path} in the store: {error}") }
}

/// See `xensim.h`.
///
/// # Safety
/// `host` is null or a handle that is in use, the others null or C strings.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xensim_store_write(host: *mut Handle, path: *const c_char, value: *const c_char) -> c_int {
    status(|| {
        // SAFETY: the caller's word.
        let (handle, path, value) = unsafe { (handle(host)?, text(path, "the path")?, text(value, "the value")?) };
        handle.host.store()?.request(Request::write(path, value)).map_err(|error| store_failure(path, &error))
    })
}

/// See `xensim.h`.
///
/// # Safety
/// `host` is null or a handle that is in use, `path` null or a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xensim_store_read(host: *mut Handle, path: *const c_char) -> *mut c_char {
    guard(std::ptr::null_mut(), || {
        // SAFETY: the caller's word.
        let (handle, path) = unsafe { (handle(host)?, text(path, "the path")?) };
        let value = handle.host.store()?.read(path).map_err(|error| store_failure(path, &error))?;
        let value = value.ok_or_else(|| Failure { errno: libc::ENOENT, words: format!("no node {path}") })?;
        // SAFETY: room for the value and a zero byte, all of which is written.
        unsafe {
            let copy = libc::malloc(value.len() + 1).cast::<u8>();
            if copy.is_null() {
                return Err(Failure { errno: libc::ENOMEM, words: "out of memory".into() });
            }
            copy.copy_from_nonoverlapping(value.as_ptr(), value.len());
            copy.add(value.len()).write(0);
            Ok(copy.cast())
        }
    })
}

/// See `xensim.h`.
///
/// # Safety
/// `host` is null or a handle that is in use, `path` null or a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xensim_store_remove(host: *mut Handle, path: *const c_char) -> c_int {
    status(|| {
        // SAFETY: the caller's word.
        let (handle, path) = unsafe { (handle(host)?, text(path, "the path")?) };
        handle.host.store()?.request(Request::remove(path)).map_err(|error| store_failure(path, &error))
    })
}
