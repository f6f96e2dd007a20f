// SPDX-License-Identifier: LGPL-2.1-or-later
//! A connection to xenstored, its watches, and a way to notice that the daemon has gone.
//!
//! libxenstore tells nobody when its socket is closed: the descriptor for watches just stays silent. So a second, idle
//! connection of our own is kept to the daemon's socket; the kernel reports its hang-up at once, and it costs nothing
//! until then ([`Store::hangup_fd`]). When the daemon isn't reached through a socket (xenbus), there is none.

use std::ffi::{CStr, OsStr, c_char};
use std::os::fd::{AsFd, BorrowedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::ptr::NonNull;

use nix::errno::Errno;
use xenstore_sys::{
    xs_check_watch, xs_close, xs_daemon_destroy_postfork, xs_daemon_socket, xs_fileno, xs_handle, xs_open, xs_unwatch,
    xs_watch,
};

use crate::error::{Error, Result};
use crate::forkguard::undisturbed;

/// Fires when a domain has shut down, is dying, or is gone; which one, nobody says.
pub const RELEASE_DOMAIN: &CStr = c"@releaseDomain";

/// A connection. All of libxenstore's functions may be called from any thread.
#[derive(Debug)]
pub struct Store {
    handle: NonNull<xs_handle>,
    idle: Option<UnixStream>,
}

// SAFETY: libxenstore guards a handle with locks of its own.
unsafe impl Send for Store {}
// SAFETY: as above.
unsafe impl Sync for Store {}

impl Store {
    /// Connects. Waits for the daemon to accept, so call it without a lock.
    pub fn open() -> Result<Self> {
        undisturbed(|| {
            // SAFETY: no preconditions.
            let handle = unsafe { xs_open(0) };
            let handle = NonNull::new(handle).ok_or_else(|| Error::os("connecting to xenstored", Errno::last()))?;
            Ok(Store { handle, idle: None })
        })
    }

    /// Sets a watch, which fires once at once. Waits for the daemon's answer, so call it without a lock. The first one
    /// starts libxenstore's reading thread, and our idle connection.
    pub fn watch(&mut self, path: &CStr, token: &CStr) -> Result<()> {
        // SAFETY: a live handle and two C strings.
        if !unsafe { xs_watch(self.handle.as_ptr(), path.as_ptr(), token.as_ptr()) } {
            return Err(Error::os(format!("setting a watch on {}", path.to_string_lossy()), Errno::last()));
        }
        let mut rest = || {
            if self.fd() < 0 {
                return Err(Error::os("making a descriptor for xenstored's watches", Errno::last()));
            }
            if self.idle.is_none() {
                self.idle = idle_connection()?;
            }
            Ok(())
        };
        let result = rest();
        if result.is_err() {
            // Nothing half done: a connection may serve again.
            let _ = self.unwatch(path, token);
        }
        result
    }

    /// Takes a watch away. Waits for the daemon's answer, so call it without a lock.
    pub fn unwatch(&self, path: &CStr, token: &CStr) -> Result<()> {
        // SAFETY: a live handle and two C strings.
        if unsafe { xs_unwatch(self.handle.as_ptr(), path.as_ptr(), token.as_ptr()) } {
            Ok(())
        } else {
            Err(Error::os(format!("removing the watch on {}", path.to_string_lossy()), Errno::last()))
        }
    }

    /// Closes the idle connection: without a watch, nobody asks whether the daemon is there.
    pub fn stop_idling(&mut self) {
        self.idle = None;
    }

    /// Readable when [`Store::take_firing`] has something. Exists once a watch has been set.
    pub fn fd(&self) -> RawFd {
        // SAFETY: a live handle.
        unsafe { xs_fileno(self.handle.as_ptr()) }
    }

    /// Hangs up when the daemon goes away.
    pub fn hangup_fd(&self) -> Option<BorrowedFd<'_>> {
        self.idle.as_ref().map(AsFd::as_fd)
    }

    /// Takes one firing off the queue without waiting; whether there was one.
    pub fn take_firing(&self) -> bool {
        // SAFETY: a live handle.
        let firing = unsafe { xs_check_watch(self.handle.as_ptr()) };
        // SAFETY: one allocation, which becomes ours, or null.
        unsafe { libc::free(firing.cast()) };
        !firing.is_null()
    }

    /// The raw handle, for [`abandon`].
    pub fn raw(&self) -> *mut u8 {
        self.handle.as_ptr().cast()
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // SAFETY: opened by xs_open, closed once. Joins the reading thread.
        undisturbed(|| unsafe { xs_close(self.handle.as_ptr()) });
    }
}

/// `None` if the daemon has no socket; an error if it has one, but there is no connecting to it.
fn idle_connection() -> Result<Option<UnixStream>> {
    // SAFETY: returns a static string, or null.
    let path: *const c_char = unsafe { xs_daemon_socket() };
    if path.is_null() {
        return Ok(None);
    }
    // SAFETY: a C string, not null.
    let path = Path::new(OsStr::from_bytes(unsafe { CStr::from_ptr(path) }.to_bytes()));
    match UnixStream::connect(path) {
        Ok(stream) => Ok(Some(stream)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::os(
            format!("keeping an idle connection to {}", path.display()),
            Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)),
        )),
    }
}

/// Throws a parent's connection away in a forked child, without a word to the daemon.
///
/// # Safety
/// `raw` is [`Store::raw`] of a connection of the parent's that this process never uses again.
pub unsafe fn abandon(raw: *mut u8) {
    if !raw.is_null() {
        // SAFETY: the function for just this; the caller vouches for `raw`.
        unsafe { xs_daemon_destroy_postfork(raw.cast()) };
    }
}
