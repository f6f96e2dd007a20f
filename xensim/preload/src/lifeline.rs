// SPDX-License-Identifier: LGPL-2.1-or-later
//! In xenstored: the end with the host's owner.
//!
//! The owner of a host holds the lifeline, a FIFO, open for writing. xenstored opens it for reading and asks the kernel
//! for a signal when something happens to it; the last writer's end is such a thing, and the signal's default action is
//! to end the process. So xenstored needs no thread and no parent for it, and nothing is missed: whoever has gone
//! already is noticed on opening.
//!
//! Invariant: in any other process, and in a host without a lifeline, this does nothing.

use std::os::fd::IntoRawFd;

use driver::{Role, sys};

use crate::hosts;

/// Runs when the library is loaded.
#[used]
#[unsafe(link_section = ".init_array")]
static ON_LOAD: extern "C" fn() = hold;

extern "C" fn hold() {
    if !hosts::is_xenstored() {
        return;
    }
    let Ok(host) = hosts::current() else { return };
    let Some(path) = host.path(&[b"lifeline"]).filter(|_| host.role == Role::Xenstored) else { return };
    let Ok(lifeline) = sys::open(path.as_c_str(), libc::O_RDONLY | libc::O_NONBLOCK) else { return };
    // It stays open for as long as the process lives.
    let fd = lifeline.into_raw_fd();
    // SAFETY: our own descriptor; the process asks for a signal to itself, and reads into a byte of its own.
    unsafe {
        libc::fcntl(fd, libc::F_SETOWN, libc::getpid());
        libc::fcntl(fd, libc::F_SETFL, libc::O_NONBLOCK | libc::O_ASYNC);
        let mut poll = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        // Nobody holds it any more, or the host is being taken down.
        if libc::poll(&raw mut poll, 1, 0) > 0 {
            libc::_exit(1);
        }
    }
}
