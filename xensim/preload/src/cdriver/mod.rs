// SPDX-License-Identifier: LGPL-2.1-or-later
//! The functions of `include/xensim.h`, a file for each of its sections: each function converts its arguments, calls
//! the driver, and converts the result.
//!
//! Invariants:
//! - No panic leaves a function: it becomes a failure with EIO.
//! - A handle is a [`Handle`] in a box, which the C program owns from up or attach to down or detach.

mod calls;
mod domains;
mod hosts;
mod xenstored;

use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char, c_int};
use std::panic::{AssertUnwindSafe, catch_unwind};

use driver::{Error, Host};

use crate::set_errno;

/// What `xensim_host` is.
pub struct Handle {
    host: Host,
    dir: CString,
    /// The process that has brought it up; `None` for one that was attached to.
    owner: Option<u32>,
}

/// A failure: an errno and words.
struct Failure {
    errno: c_int,
    words: String,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure { errno: error.raw_os_error(), words: error.to_string() }
    }
}

impl Failure {
    fn invalid(words: &str) -> Failure {
        Failure { errno: libc::EINVAL, words: words.into() }
    }
}

type Result<T> = std::result::Result<T, Failure>;

thread_local! {
    static LAST_ERROR: RefCell<CString> = RefCell::default();
}

/// Runs `act`; a failure or a panic is noted, and gives `failed`.
fn guard<T>(failed: T, act: impl FnOnce() -> Result<T>) -> T {
    let before = crate::errno();
    let panicked = |_| Err(Failure { errno: libc::EIO, words: "a defect in xensim".into() });
    match catch_unwind(AssertUnwindSafe(act)).unwrap_or_else(panicked) {
        Ok(value) => {
            set_errno(before);
            value
        }
        Err(Failure { errno, words }) => {
            let words = CString::new(words).unwrap_or_default();
            LAST_ERROR.with(|last| *last.borrow_mut() = words);
            set_errno(errno);
            failed
        }
    }
}

fn status(act: impl FnOnce() -> Result<()>) -> c_int {
    guard(-1, || act().map(|()| 0))
}

/// # Safety
/// `host` is null or a handle that is in use.
unsafe fn handle<'a>(host: *mut Handle) -> Result<&'a Handle> {
    // SAFETY: the caller vouches for it.
    unsafe { host.as_ref() }.ok_or_else(|| Failure::invalid("the host is NULL"))
}

/// # Safety
/// `text` is null or a C string that outlives the result.
unsafe fn text<'a>(text: *const c_char, what: &str) -> Result<&'a str> {
    if text.is_null() {
        return Err(Failure::invalid(&format!("{what} is NULL")));
    }
    // SAFETY: the caller vouches for it.
    unsafe { CStr::from_ptr(text) }.to_str().map_err(|_| Failure::invalid(&format!("{what} is not UTF-8")))
}
