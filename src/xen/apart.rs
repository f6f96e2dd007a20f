// SPDX-License-Identifier: LGPL-2.1-or-later
//! Work in a thread that has a table of descriptors of its own.
//!
//! Xen's libraries keep descriptors by number, and an application may close them behind our back (closefrom(3)), and have
//! the numbers again for files of its own. Two things are kept away from those files in this way:
//!
//! - libxenstore's thread, which reads from its number for as long as the connection lives. The thread that it is begun by
//!   hands its table on to it: one in which there is the connection and nothing else ([`keep_only`]).
//! - The end of a handle whose numbers are no longer its own: what is closed there are copies.

use std::mem::MaybeUninit;
use std::os::fd::RawFd;

use nix::errno::Errno;

/// Room for a request of libxenstore's.
const STACK: usize = 256 * 1024;

/// Runs `work` there; `None` if there is no such thread to be had: then nothing was run. No signal is handled in it. What
/// it leaves in errno is in the caller's after it.
pub fn apart<R: Send>(work: impl FnOnce() -> R + Send) -> Option<R> {
    let work = || {
        // SAFETY: no memory is involved, and it concerns this thread alone.
        if unsafe { libc::unshare(libc::CLONE_FILES) } != 0 {
            return None;
        }
        Some((work(), Errno::last_raw()))
    };
    let before = block_signals();
    let done = std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, work);
        thread.ok().and_then(|thread| thread.join().ok().flatten())
    });
    // SAFETY: what `block_signals` has given.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &before, std::ptr::null_mut()) };
    done.map(|(result, errno)| {
        Errno::set_raw(errno);
        result
    })
}

fn block_signals() -> libc::sigset_t {
    let (mut before, mut all) = (MaybeUninit::zeroed(), MaybeUninit::zeroed());
    // SAFETY: both sets are this function's, and the call can't fail with these arguments.
    unsafe {
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
        before.assume_init()
    }
}

/// In a thread with a table of its own: closes all but these, which are ascending. False if that can't be done, before
/// Linux 5.9: then nothing was closed.
pub fn keep_only(kept: &[RawFd]) -> bool {
    let mut first = 0;
    for fd in kept {
        if first < *fd && !close_range(first, fd - 1) {
            return false;
        }
        first = fd + 1;
    }
    close_range(first, RawFd::MAX)
}

fn close_range(first: RawFd, last: RawFd) -> bool {
    // SAFETY: no memory is involved; these are copies, which nothing uses.
    unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) == 0 }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn what_is_closed_there_stays_open_here() {
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        let fd = ours.as_raw_fd();
        // SAFETY: a copy.
        assert_eq!(apart(|| unsafe { libc::close(fd) }), Some(0));
        theirs.write_all(b"x").unwrap();
        ours.read_exact(&mut [0]).unwrap();
    }

    #[test]
    fn what_is_kept_there_lives_without_the_number_here_and_nothing_else_does() {
        let (kept, mut theirs) = UnixStream::pair().unwrap();
        let (other, mut end) = UnixStream::pair().unwrap();
        let fd = kept.as_raw_fd();
        let (read, go) = std::sync::mpsc::channel::<()>();
        let (begun, begins) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            apart(move || {
                let kept_alone = keep_only(&[fd]);
                begun.send(()).unwrap();
                go.recv().unwrap();
                let mut byte = [0u8];
                // SAFETY: one byte.
                let count = unsafe { libc::read(fd, byte.as_mut_ptr().cast(), 1) };
                (kept_alone, count, byte[0])
            })
        });
        begins.recv().unwrap();
        drop((kept, other));
        // It has no copy of the other one.
        assert_eq!(end.read(&mut [0]).unwrap(), 0);
        theirs.write_all(b"x").unwrap();
        read.send(()).unwrap();
        assert_eq!(thread.join().unwrap(), Some((true, 1, b'x')));
    }

    #[test]
    fn errno_comes_back() {
        apart(|| Errno::EXDEV.set()).unwrap();
        assert_eq!(Errno::last(), Errno::EXDEV);
    }
}
