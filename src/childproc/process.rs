// SPDX-License-Identifier: LGPL-2.1-or-later
//! What there is once in a process, whatever number of contexts: which children are ours, what they have ended with, and
//! which descriptors a forked child has to close.
//!
//! One lock guards it. It is the innermost of all, and nothing that waits or calls anybody is done under it. A fork takes
//! it first ([`hold`]), so that a child finds all this whole.
//!
//! We reap nowhere but here, under the lock: a status that the kernel has given out is in its child's [`Fate`] before
//! anybody can ask for it again.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::sync::{Arc, PoisonError};

use libc::{c_int, pid_t};
use nix::errno::Errno;

use super::sigchld::{self, Installed};
use crate::identity::{Guard, Identity, guard_is_whole};
use crate::sync::std_like::{Mutex, MutexGuard, OnceLock};

pub(super) struct Process {
    descriptors: BTreeSet<RawFd>,
    children: BTreeMap<pid_t, Arc<Fate>>,
    pub(super) sigchld: Installed,
}

/// std's lock and not parking_lot's: a forked child finds it as if the parent's other threads were still waiting for it,
/// and parking_lot hands a lock on to whom it takes for the next in the queue, who doesn't exist there.
static PROCESS: Mutex<Process> =
    Mutex::new(Process { descriptors: BTreeSet::new(), children: BTreeMap::new(), sigchld: Installed::none() });

/// Nothing panics with the lock held that would leave it half done.
pub(super) fn lock() -> MutexGuard<'static, Process> {
    PROCESS.lock().unwrap_or_else(PoisonError::into_inner)
}

thread_local! {
    /// The lock, from before this thread forks until after it has, in the parent and in the child. Without a destructor: its
    /// registration takes memory for each thread, which the children of other threads lose.
    static HELD: Cell<Option<ManuallyDrop<MutexGuard<'static, Process>>>> = const { Cell::new(None) };
}

/// Before a fork.
pub fn hold() {
    HELD.set(Some(ManuallyDrop::new(lock())));
}

/// After it, in the parent and in the child.
pub fn release() {
    drop(HELD.take().map(ManuallyDrop::into_inner));
}

/// In a forked child: the handler goes, descriptors are closed, the parent's children are nobody's here.
pub fn forget() {
    let mut process = lock();
    sigchld::forget(&mut process.sigchld);
    // Where the parent had closed descriptors of ours, these numbers may be the application's.
    let ours = guard_is_whole();
    for fd in std::mem::take(&mut process.descriptors).into_iter().filter(|_| ours) {
        // SAFETY: a descriptor of ours whose owner, a context of the parent's, is never used or dropped here.
        unsafe { libc::close(fd) };
    }
    process.children.clear();
}

// ---- descriptors ----

/// A descriptor of ours that a forked child closes when it forgets its parent's contexts.
#[derive(Debug)]
pub struct Descriptor {
    fd: RawFd,
    identity: Option<Identity>,
    guard: Option<Arc<Guard>>,
}

impl Descriptor {
    /// Makes `N` of them at once. No fork comes between their being made and their being known.
    pub(super) fn make<const N: usize>(make: impl FnOnce() -> nix::Result<[OwnedFd; N]>) -> nix::Result<[Self; N]> {
        // There is one as soon as there is a context.
        let guard = Guard::shared().ok();
        let mut process = lock();
        let made = make()?;
        Ok(made.map(|fd| {
            let fd = fd.into_raw_fd();
            process.descriptors.insert(fd);
            Descriptor { fd, identity: Identity::of(fd), guard: guard.clone() }
        }))
    }

    /// Whether the number is still ours. The application may have closed it, and have it for a file of its own: then it is
    /// neither read, written nor closed.
    pub(super) fn is_ours(&self) -> bool {
        self.guard.as_ref().is_none_or(|guard| guard.is_whole())
            && self.identity.is_some_and(|identity| identity.is_at(self.fd))
    }
}

impl AsFd for Descriptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: open until this is dropped. In a forked child that has forgotten it, nothing uses it any more.
        unsafe { BorrowedFd::borrow_raw(self.fd) }
    }
}

impl AsRawFd for Descriptor {
    fn as_raw_fd(&self) -> RawFd {
        self.fd
    }
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        let mut process = lock();
        if process.descriptors.remove(&self.fd) && self.is_ours() {
            // SAFETY: ours alone. A forked child that has forgotten it has closed it before, and doesn't get here.
            unsafe { libc::close(self.fd) };
        }
    }
}

// ---- children ----

/// What a child of ours has ended with, once somebody knows: its wait status.
#[derive(Debug, Default)]
pub struct Fate(OnceLock<c_int>);

impl Fate {
    /// The wait status.
    pub fn status(&self) -> Option<c_int> {
        self.0.get().copied()
    }
}

/// A child is ours from here on.
pub(super) fn adopt(pid: pid_t) -> Arc<Fate> {
    let fate = Arc::new(Fate::default());
    lock().children.insert(pid, fate.clone());
    fate
}

/// It is no longer: its end is known, or never will be.
pub(super) fn disown(pid: pid_t, fate: &Arc<Fate>) {
    let mut process = lock();
    // Its number may be another's by now.
    if process.children.get(&pid).is_some_and(|present| Arc::ptr_eq(present, fate)) {
        process.children.remove(&pid);
    }
}

/// Somebody else has reaped a child, and says so. Whether it is one of ours.
pub fn tell(pid: pid_t, status: c_int) -> bool {
    lock().tell(pid, status)
}

impl Process {
    fn tell(&mut self, pid: pid_t, status: c_int) -> bool {
        let Some(fate) = self.children.remove(&pid) else { return false };
        // Nobody else sets it: it has just been taken out.
        let _ = fate.0.set(status);
        true
    }
}

/// What the kernel says of a child that we have asked about by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// It has ended; its fate says with what.
    Ended,
    /// It runs.
    Runs,
    /// We have no such child: somebody else has reaped it, or nobody needs to (SIGCHLD is ignored).
    Gone,
}

/// Reaps a child of ours if it has ended.
pub(super) fn reap(pid: pid_t, fate: &Fate) -> Asked {
    let mut process = lock();
    if fate.status().is_some() {
        return Asked::Ended;
    }
    match wait_now(pid) {
        Ok(Some((pid, status))) => {
            process.tell(pid, status);
            Asked::Ended
        }
        Ok(None) => Asked::Runs,
        Err(_) => Asked::Gone,
    }
}

/// A child that we have found by asking for any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reaped {
    /// One of ours, perhaps of another context's. Its fate knows.
    Ours,
    /// Somebody else's.
    Other {
        /// Its number, which may be another's from now on.
        pid: pid_t,
        /// As waitpid gives it.
        status: c_int,
    },
}

/// Reaps any child of the process that has ended.
pub fn reap_any() -> Option<Reaped> {
    let mut process = lock();
    let (pid, status) = wait_now(-1).ok().flatten()?;
    Some(if process.tell(pid, status) { Reaped::Ours } else { Reaped::Other { pid, status } })
}

/// waitpid without waiting. The error can only be ECHILD: the arguments are right.
fn wait_now(pid: pid_t) -> nix::Result<Option<(pid_t, c_int)>> {
    let mut status = 0;
    loop {
        // SAFETY: writes to `status` alone.
        match unsafe { libc::waitpid(pid, &mut status, libc::WNOHANG) } {
            0 => return Ok(None),
            -1 => match Errno::last() {
                Errno::EINTR => {}
                errno => return Err(errno),
            },
            pid => return Ok(Some((pid, status))),
        }
    }
}
