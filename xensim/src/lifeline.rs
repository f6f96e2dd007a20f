// SPDX-License-Identifier: LGPL-2.1-or-later
//! What ties a host to the process that owns it: a FIFO that the owner holds open, for writing too, and locked.
//!
//! When the owner has gone, the kernel has closed its end, of which xenstored, which holds the other, is told by a signal
//! (`preload/src/lifeline.rs`), and the lock is free, by which others know that the host is a leftover. A byte in the FIFO
//! says that the host has been taken down.
//!
//! Invariant: the owner is one process. It does not hand its end on: neither to the programs that it starts
//! (close-on-exec) nor to the children that it forks (closed there at once), however long these live.

use std::io;
use std::os::fd::{AsRawFd, IntoRawFd};
use std::path::Path;
use std::sync::Once;
use std::sync::atomic::{AtomicI32, Ordering};

use crate::host::c_path;
use crate::sys;
use crate::table::TABLE_FILE;

/// The FIFO's name in the host's directory.
const FILE: &str = "lifeline";
/// How many hosts of one process are known to its forked children; of one more these keep the owner's end open.
const KNOWN: usize = 256;
/// No descriptor.
const NONE: i32 = -1;

/// The descriptors of this process's lifelines.
static HELD: [AtomicI32; KNOWN] = [const { AtomicI32::new(NONE) }; KNOWN];

/// In a child that was just forked, where nothing but system calls may be made.
extern "C" fn let_go() {
    for held in &HELD {
        let fd = held.swap(NONE, Ordering::Relaxed);
        if fd != NONE {
            // SAFETY: the child's copy of a lifeline, which its copy of the owner's `Lifeline` will not touch.
            unsafe { libc::close(fd) };
        }
    }
}

/// The owner's end.
pub struct Lifeline {
    /// Taken out when it is dropped.
    fifo: Option<sys::Fd>,
    owner: u32,
}

impl Lifeline {
    /// Makes the lifeline of the host in this directory, and this process its owner.
    pub fn make(dir: &Path) -> io::Result<Lifeline> {
        static ATFORK: Once = Once::new();
        ATFORK.call_once(|| {
            // SAFETY: the handler makes system calls alone. Without room for it, forked children keep the end open.
            unsafe { libc::pthread_atfork(None, None, Some(let_go)) };
        });
        let path = c_path(&dir.join(FILE))?;
        sys::mkfifo(&path)?;
        let fifo = sys::open(&path, libc::O_RDWR | libc::O_NONBLOCK)?;
        sys::flock(&fifo, libc::LOCK_EX | libc::LOCK_NB)?;
        let take = |held: &&AtomicI32| {
            held.compare_exchange(NONE, fifo.as_raw_fd(), Ordering::Relaxed, Ordering::Relaxed).is_ok()
        };
        let _known = HELD.iter().find(take);
        Ok(Lifeline { fifo: Some(fifo), owner: std::process::id() })
    }

    /// Whether this process is the owner, not a child with a copy.
    pub fn is_mine(&self) -> bool {
        self.owner == std::process::id()
    }

    /// Becomes readable when somebody else has taken the host down.
    pub fn fifo(&self) -> Option<&sys::Fd> {
        self.fifo.as_ref()
    }
}

impl Drop for Lifeline {
    fn drop(&mut self) {
        let Some(fifo) = self.fifo.take() else { return };
        if !self.is_mine() {
            // Closed already, and the number may be another file's.
            let _ = fifo.into_raw_fd();
            return;
        }
        let number = fifo.as_raw_fd();
        for held in &HELD {
            let _ = held.compare_exchange(number, NONE, Ordering::Relaxed, Ordering::Relaxed);
        }
    }
}

/// Whether the host in this directory has had an owner, who has gone.
pub fn is_stale(dir: &Path) -> bool {
    let Ok(path) = c_path(&dir.join(FILE)) else { return false };
    match sys::open(&path, libc::O_RDONLY | libc::O_NONBLOCK) {
        // The owner locked it before it made the table.
        Ok(lifeline) => dir.join(TABLE_FILE).exists() && sys::flock(&lifeline, libc::LOCK_EX | libc::LOCK_NB).is_ok(),
        Err(_) => false,
    }
}

/// Tells the owner of the host in this directory, if it is one that listens, that there is nothing to own any more.
pub fn say_down(dir: &Path) {
    let open = |path: std::ffi::CString| sys::open(&path, libc::O_WRONLY | libc::O_NONBLOCK);
    if let Ok(lifeline) = c_path(&dir.join(FILE)).and_then(open) {
        let _ = sys::write(&lifeline, b"x");
    }
}
