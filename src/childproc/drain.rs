// SPDX-License-Identifier: LGPL-2.1-or-later
//! What is left of a child that has ended: outputs that something it has started still writes to.
//!
//! A program may start a daemon that keeps its output and errors. Of those we have the reading ends. Closing them would end
//! the daemon by SIGPIPE at its next line, leaving them full would have it wait for ever, and reading them ourselves would
//! cost a descriptor for each daemon, and end with the context or the process. A descriptor can't be changed in another
//! process, and there is no file that takes whatever is written and forgets it, but can be read for a while: a memory file
//! grows, or refuses what goes beyond its size; a socket can't be opened as `/dev/stderr`, which scripts do. So somebody has
//! to read as long as the daemon writes. For each such output there is a process that does nothing else: `cat`, with its
//! output to /dev/null. It ends with the last process that has the output open.
//!
//! - It costs us nothing: it isn't our child, but that of a process that ends at once, and so init's (or the subreaper's).
//!   That one is made so that it sends no SIGCHLD and is found by no wait but that for clones (`__WALL`, `__WCLONE`), so an
//!   application that counts its children, or reaps all of them, doesn't meet it. For the same reason the application's
//!   fork isn't used: it is for children that the application is to know of.
//! - It has none of our descriptors, a session of its own, an empty environment (in particular no LD_PRELOAD), and, once it
//!   is `cat`, none of our memory. Where there is no `cat`, it reads as it is, a copy of us.
//! - The child's end of the pipe is a reading end, too (`spawn`). So if we end before we have come to this, what is left
//!   doesn't get SIGPIPE, and goes on until the pipe is full.

use std::ffi::{CStr, c_char, c_int};
use std::os::fd::{AsRawFd, RawFd};

use libc::pid_t;
use nix::errno::Errno;

use super::process::Descriptor;
use super::spawn::{SignalsBlocked, close_from, default_signals, unblock_signals};
use crate::error::{Error, Result};

/// The reading ends of outputs that are still written to. Dropping it closes them.
#[derive(Debug, Default)]
#[must_use]
pub struct Left(Vec<Descriptor>);

impl Left {
    pub(super) fn new(outputs: Vec<Descriptor>) -> Self {
        Left(outputs)
    }

    /// Starts those who read from now on. On a failure nobody does, of some or all. Not under a lock: it forks.
    pub fn hand_over(self) -> Result<()> {
        if self.0.is_empty() {
            return Ok(());
        }
        let failed = |errno| Error::os("starting a reader for it", errno);
        let blocked = SignalsBlocked::new();
        // SAFETY: a fork; the child does only what a signal handler may do.
        let pid = unsafe { clone() };
        if pid == 0 {
            self.start_readers();
        }
        let errno = Errno::last();
        drop(blocked);
        if pid < 0 {
            return Err(failed(errno));
        }
        match wait_for(pid) {
            Some(0) | None => Ok(()),
            Some(_) => Err(failed(Errno::EAGAIN)),
        }
    }

    /// In a process that ends with this. No memory is taken, no lock, and nothing here panics.
    fn start_readers(&self) -> ! {
        let mut failures = 0;
        for output in &self.0 {
            // SAFETY: as in `hand_over`.
            match unsafe { clone() } {
                0 => read_for_ever(output.as_raw_fd()),
                -1 => failures += 1,
                _ => {}
            }
        }
        // SAFETY: no memory is involved.
        unsafe { libc::_exit(failures) }
    }
}

/// A fork whose child sends no signal at its end, and which calls nobody's handlers for forks.
///
/// # Safety
/// In the child only that may be done that a signal handler may do.
unsafe fn clone() -> pid_t {
    // All arguments are zero, so that their order, which is not the same everywhere, doesn't matter: no flags, no signal,
    // the stack that there is.
    // SAFETY: the caller's promise; memory is copied, and shared with nobody.
    let pid = unsafe { libc::syscall(libc::SYS_clone, 0, 0, 0, 0, 0) };
    pid as pid_t
}

/// Waits for a process that is about to end; its status, unless somebody else has it.
fn wait_for(pid: pid_t) -> Option<c_int> {
    let mut status = 0;
    loop {
        // SAFETY: writes to `status` alone.
        match unsafe { libc::waitpid(pid, &mut status, libc::__WALL) } {
            -1 if Errno::last() == Errno::EINTR => {}
            -1 => return None,
            _ => return Some(status),
        }
    }
}

const READERS: [&CStr; 2] = [c"/bin/cat", c"/usr/bin/cat"];

/// In a process of its own: reads until nobody can write any more.
fn read_for_ever(output: RawFd) -> ! {
    let arguments: [*const c_char; 2] = [c"cat".as_ptr(), std::ptr::null()];
    // For who finds it among the processes.
    let environment: [*const c_char; 2] =
        [c"XLEVENT=reads and drops what a hotplug script has left running still writes".as_ptr(), std::ptr::null()];
    // SAFETY: calls that a signal handler may make; the arrays and the buffer are this function's, the strings static. The
    // signals are blocked until their handlers, which are the application's, are gone.
    unsafe {
        default_signals();
        libc::setsid();
        let _ = libc::chdir(c"/".as_ptr());
        libc::dup2(output, 0);
        close_from(1);
        // It was ours alone until now, and doesn't block.
        libc::fcntl(0, libc::F_SETFL, 0);
        // The lowest number that is free.
        if libc::open(c"/dev/null".as_ptr(), libc::O_WRONLY) == 1 && libc::dup2(1, 2) == 2 {
            unblock_signals();
            for reader in READERS {
                libc::execve(reader.as_ptr(), arguments.as_ptr(), environment.as_ptr());
            }
        }
        unblock_signals();
        let mut buffer = [0u8; 4096];
        loop {
            match libc::read(0, buffer.as_mut_ptr().cast(), buffer.len()) {
                -1 if *libc::__errno_location() == libc::EINTR => {}
                ..=0 => libc::_exit(0),
                _ => {}
            }
        }
    }
}
