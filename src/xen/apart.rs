// SPDX-License-Identifier: LGPL-2.1-or-later
//! Work in a thread that has a table of descriptors of its own.
//!
//! Xen's libraries keep descriptors by number, and an application may close them behind our back (closefrom(3)), and have
//! the numbers again for files of its own. Two things are kept away from those files in this way:
//!
//! - libxenstore's thread, which reads from its number for as long as the connection lives. The thread that it is begun by
//!   hands its table on to it: one in which there is the connection and nothing else ([`keep_only`]).
//! - The end of a handle whose numbers are no longer its own: what is closed there are copies.

use std::ffi::c_void;
use std::mem::MaybeUninit;
use std::os::fd::RawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

use nix::errno::Errno;

/// Room for a request of libxenstore's.
const STACK: usize = 256 * 1024;

/// Runs `work` there; `None` if there is no such thread to be had: then nothing was run. No signal is handled in it. What
/// it leaves in errno is in the caller's after it.
pub fn apart<R: Send>(work: impl FnOnce() -> R + Send) -> Option<R> {
    let mut work = Work { work: Some(work), done: None };
    let before = block_signals();
    run_and_wait(&mut work);
    // SAFETY: what `block_signals` has given.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &before, ptr::null_mut()) };
    work.done.map(|(result, errno)| {
        Errno::set_raw(errno);
        result
    })
}

/// What the thread is given, and gives back: a result, and errno.
struct Work<F, R> {
    work: Option<F>,
    done: Option<(R, i32)>,
}

/// By the system's own means: the standard library's may want variables of this thread that are gone, where the thread ends
/// and a destructor calls us.
fn run_and_wait<R: Send, F: FnOnce() -> R + Send>(work: &mut Work<F, R>) {
    let mut attributes = MaybeUninit::uninit();
    let mut thread = MaybeUninit::uninit();
    // SAFETY: the attributes are made before they are used, and the thread is waited for, so `work` outlives it.
    unsafe {
        if libc::pthread_attr_init(attributes.as_mut_ptr()) != 0 {
            return;
        }
        libc::pthread_attr_setstacksize(attributes.as_mut_ptr(), STACK);
        let argument = ptr::from_mut(work).cast();
        if libc::pthread_create(thread.as_mut_ptr(), attributes.as_ptr(), run::<R, F>, argument) == 0 {
            libc::pthread_join(thread.assume_init(), ptr::null_mut());
        }
        libc::pthread_attr_destroy(attributes.as_mut_ptr());
    }
}

extern "C" fn run<R: Send, F: FnOnce() -> R + Send>(work: *mut c_void) -> *mut c_void {
    // SAFETY: `run_and_wait`'s, which doesn't touch it until we have ended.
    let this = unsafe { &mut *work.cast::<Work<F, R>>() };
    // SAFETY: no memory is involved, and it concerns this thread alone.
    if unsafe { libc::unshare(libc::CLONE_FILES) } == 0 {
        let result = this.work.take().and_then(|work| catch_unwind(AssertUnwindSafe(work)).ok());
        this.done = result.map(|result| (result, Errno::last_raw()));
    }
    ptr::null_mut()
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
