// SPDX-License-Identifier: LGPL-2.1-or-later
//! Whether a descriptor's number is still ours.
//!
//! An application may close descriptors that it doesn't know (closefrom(3) in a late daemonise, a second close of a number
//! of its own), and its next files get their numbers. Whoever reads, writes or closes such a number then does it to the
//! application's file. So a number is checked before it is used.
//!
//! - Sockets, pipes and files on a disk have an inode each: [`Identity`] tells them apart.
//! - epoll, eventfd and timerfd descriptors share one inode. They are members of an epoll set of ours, and epoll_ctl finds
//!   a member by its file *and* its number: EPOLL_CTL_MOD fails if the number stands for another file.
//! - That this set is still ours is proved by the [`Guard`], a socket without use: its inode is checked, and it is a member
//!   of each of our sets and of no other.
//!
//! A check and the use after it are two steps: an application that closes our descriptors in another thread between them
//! can't be helped.

use std::os::fd::{AsRawFd, BorrowedFd, IntoRawFd, RawFd};
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, Weak};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use crate::error::{Error, Result};
use crate::forkguard::undisturbed;
use crate::sync::std_like::Mutex;

/// The file behind a number. Files without an inode of their own (epoll, eventfd, timerfd) are all the same here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    /// Of the file that has this number now. May be called by a signal handler.
    pub fn of(fd: RawFd) -> Option<Self> {
        Self::seen_at(fd).ok()
    }

    fn seen_at(fd: RawFd) -> std::result::Result<Self, Errno> {
        let mut status = std::mem::MaybeUninit::<libc::stat>::uninit();
        // SAFETY: a place for the answer.
        Errno::result(unsafe { libc::fstat(fd, status.as_mut_ptr()) })?;
        // SAFETY: filled in, since the call has succeeded.
        let status = unsafe { status.assume_init() };
        Ok(Identity { device: status.st_dev, inode: status.st_ino })
    }

    /// As a handler can keep it.
    pub fn numbers(self) -> (u64, u64) {
        (self.device, self.inode)
    }

    /// Whether the number still stands for it, as far as can be known.
    pub fn is_at(self, fd: RawFd) -> bool {
        match Self::seen_at(fd) {
            Ok(seen) => seen == self,
            Err(errno) => errno != Errno::EBADF,
        }
    }
}

/// A socket that nobody uses. As long as its number is its own, nobody has closed all descriptors. All contexts of a process
/// share one.
#[derive(Debug)]
pub struct Guard {
    fd: RawFd,
    identity: Identity,
}

/// std's lock, and taken in `undisturbed` alone: a forked child finds it free.
static SHARED: Mutex<Weak<Guard>> = Mutex::new(Weak::new());

/// The newest guard, for signal handlers: -1 if there is none.
static FD: AtomicI32 = AtomicI32::new(-1);
static DEVICE: AtomicU64 = AtomicU64::new(0);
static INODE: AtomicU64 = AtomicU64::new(0);

impl Guard {
    /// The process's, or a new one if it has none, or no longer. Not under a lock that a fork waits for.
    pub fn shared() -> Result<Arc<Self>> {
        undisturbed(|| {
            let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(guard) = shared.upgrade().filter(|guard| guard.is_whole()) {
                return Ok(guard);
            }
            let guard = Arc::new(Guard::new()?);
            FD.store(-1, Ordering::SeqCst);
            DEVICE.store(guard.identity.device, Ordering::SeqCst);
            INODE.store(guard.identity.inode, Ordering::SeqCst);
            FD.store(guard.fd, Ordering::SeqCst);
            *shared = Arc::downgrade(&guard);
            Ok(guard)
        })
    }

    fn new() -> Result<Self> {
        let failed = |errno| Error::os("creating a socket that guards the others", errno);
        // Of a kind that never hangs up, and so is never reported by a set.
        let socket = socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None).map_err(failed)?;
        let identity = Identity::of(socket.as_raw_fd()).ok_or_else(|| failed(Errno::last()))?;
        Ok(Guard { fd: socket.into_raw_fd(), identity })
    }

    /// Its number is still its own.
    pub fn is_whole(&self) -> bool {
        self.identity.is_at(self.fd)
    }

    /// For a set that it is to be a member of.
    pub fn fd(&self) -> BorrowedFd<'_> {
        // SAFETY: not negative, and only passed to epoll_ctl, which takes any such number.
        unsafe { BorrowedFd::borrow_raw(self.fd) }
    }

    fn close(&self) {
        if self.is_whole() {
            // SAFETY: a descriptor of ours that nothing uses any more.
            unsafe { libc::close(self.fd) };
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // A newer one may have the same number.
        if INODE.load(Ordering::SeqCst) == self.identity.inode {
            FD.store(-1, Ordering::SeqCst);
        }
        self.close();
    }
}

/// Whether the newest guard is whole; true where there is none to ask. May be called by a signal handler.
pub fn guard_is_whole() -> bool {
    let fd = FD.load(Ordering::SeqCst);
    let identity = Identity { device: DEVICE.load(Ordering::SeqCst), inode: INODE.load(Ordering::SeqCst) };
    fd < 0 || identity.is_at(fd)
}

/// In a forked child: closes the parent's guard, after everything that it has guarded.
pub fn forget_guard() {
    undisturbed(|| {
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(guard) = std::mem::take(&mut *shared).upgrade() {
            guard.close();
            FD.store(-1, Ordering::SeqCst);
            // It belongs to contexts that are never dropped here.
            std::mem::forget(guard);
        }
    });
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    /// Gives a file this number too, in one step, so that no other test gets it.
    fn put(file: &UnixStream, fd: RawFd) {
        // SAFETY: what had the number is the caller's.
        assert_eq!(unsafe { libc::dup2(file.as_raw_fd(), fd) }, fd);
    }

    #[test]
    fn a_number_that_stands_for_another_file_is_told_from_ours() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let identity = Identity::of(ours.as_raw_fd()).unwrap();
        assert!(identity.is_at(ours.as_raw_fd()));
        assert!(!identity.is_at(theirs.as_raw_fd()));
        let copy = OwnedFd::from(ours.try_clone().unwrap());
        assert!(identity.is_at(copy.as_raw_fd()));
        // As an application does that has closed it and opened something of its own.
        put(&theirs, ours.as_raw_fd());
        assert!(!identity.is_at(ours.as_raw_fd()));
        assert_eq!(Identity::of(-1), None);
    }

    #[test]
    fn a_guard_that_was_replaced_is_not_whole_and_leaves_the_number_alone() {
        let guard = Guard::new().unwrap();
        assert!(guard.is_whole());
        let (theirs, _other) = UnixStream::pair().unwrap();
        put(&theirs, guard.fd);
        assert!(!guard.is_whole());
        let fd = guard.fd;
        drop(guard);
        assert!(Identity::of(theirs.as_raw_fd()).unwrap().is_at(fd), "the application's file was closed");
        // SAFETY: this test's.
        assert_eq!(unsafe { libc::close(fd) }, 0);
    }
}
