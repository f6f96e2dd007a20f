// SPDX-License-Identifier: LGPL-2.1-or-later
//! Keeps SIGPIPE away from the application while we write to what may be gone: libxenstore to its daemon, above all.
//!
//! libxenstore of Xen 4.17 has the process ignore SIGPIPE for the time of a request, and then puts back what it has found.
//! Two threads that do so at once take turns badly: the one that comes back first puts the application's action back while
//! the other writes, and the other puts back what it has found, which is that the signal is ignored: for good. So around each
//! request ([`spared`]):
//!
//! - the thread has the signal blocked, and takes one that has come of the request. It never reaches the application,
//!   whatever the process's action is at that moment;
//! - the first of several that are at it takes note of the application's action, and the last sees to it that it is there.
//!
//! The lock is held for the notes alone, never during a request. Requests of libxenlight's own are not seen here. A fork
//! waits for the lock ([`hold`]); a forked child gets the application's action back ([`release_in_child`]), since the requests
//! of its parent's other threads don't end there.

use std::cell::Cell;
use std::mem::{ManuallyDrop, MaybeUninit};
use std::sync::PoisonError;

use libc::{SIGPIPE, c_int, sigaction, sigset_t, timespec};
use nix::errno::Errno;

use crate::sync::std_like::{Mutex, MutexGuard};

/// Requests that are under way.
struct Requests {
    count: usize,
    /// What the application wants done at SIGPIPE, from before the first of them.
    before: Option<sigaction>,
}

/// std's lock and not parking_lot's, as for all that a forked child may find.
static REQUESTS: Mutex<Requests> = Mutex::new(Requests { count: 0, before: None });

fn lock() -> MutexGuard<'static, Requests> {
    REQUESTS.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Requests {
    fn begin(&mut self) {
        if self.count == 0 {
            self.before = Some(action(None));
        }
        self.count += 1;
    }

    fn end(&mut self) {
        self.count = self.count.saturating_sub(1);
        if self.count == 0 {
            self.put_right();
        }
    }

    /// Ignored is what libxenstore may have left behind. Anything else is the application's newest wish.
    fn put_right(&mut self) {
        let Some(before) = self.before.take() else { return };
        if before.sa_sigaction != libc::SIG_IGN && action(None).sa_sigaction == libc::SIG_IGN {
            action(Some(&before));
        }
    }
}

/// The present action, which is replaced if there is another to replace it.
fn action(new: Option<&sigaction>) -> sigaction {
    let mut old = MaybeUninit::<sigaction>::zeroed();
    // SAFETY: SIGPIPE can be caught, and both pointers are null or good, so this can't fail; zero is a valid value too.
    unsafe {
        sigaction(SIGPIPE, new.map_or(std::ptr::null(), |new| &raw const *new), old.as_mut_ptr());
        old.assume_init()
    }
}

/// Runs a request of libxenstore's. errno is as the request has left it.
pub fn spared<R>(request: impl FnOnce() -> R) -> R {
    /// A request is under way, until it is dropped.
    struct UnderWay;

    impl Drop for UnderWay {
        fn drop(&mut self) {
            lock().end();
        }
    }

    let mask = Masked::new();
    lock().begin();
    let under_way = UnderWay;
    let result = request();
    let errno = Errno::last_raw();
    drop(under_way);
    drop(mask);
    Errno::set_raw(errno);
    result
}

/// Writes somewhere without a SIGPIPE of it.
pub fn blocked<R>(write: impl FnOnce() -> R) -> R {
    let _mask = Masked::new();
    write()
}

/// SIGPIPE is blocked in this thread.
struct Masked {
    before: sigset_t,
    /// One was waiting already, which is the application's.
    pending: bool,
}

fn only_sigpipe() -> sigset_t {
    let mut set = MaybeUninit::<sigset_t>::zeroed();
    // SAFETY: the set is this function's, and SIGPIPE a signal.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), SIGPIPE);
        set.assume_init()
    }
}

fn holds_sigpipe(set: &sigset_t) -> bool {
    // SAFETY: reads the set.
    unsafe { libc::sigismember(set, SIGPIPE) == 1 }
}

impl Masked {
    fn new() -> Self {
        let mut before = MaybeUninit::<sigset_t>::zeroed();
        let mut pending = MaybeUninit::<sigset_t>::zeroed();
        // SAFETY: the sets are this function's; with these arguments neither can fail, and all zero is an empty set.
        let before = unsafe {
            libc::pthread_sigmask(libc::SIG_BLOCK, &only_sigpipe(), before.as_mut_ptr());
            before.assume_init()
        };
        // Where it was not blocked, none can have waited.
        let pending = holds_sigpipe(&before) && {
            // SAFETY: as above.
            let pending = unsafe {
                libc::sigpending(pending.as_mut_ptr());
                pending.assume_init()
            };
            holds_sigpipe(&pending)
        };
        Masked { before, pending }
    }
}

impl Drop for Masked {
    fn drop(&mut self) {
        const NO_TIME: timespec = timespec { tv_sec: 0, tv_nsec: 0 };
        let taken = |set: &sigset_t| -> c_int {
            // SAFETY: reads the set and the time; nobody wants to know more of the signal.
            unsafe { libc::sigtimedwait(set, std::ptr::null_mut(), &NO_TIME) }
        };
        while !self.pending && taken(&only_sigpipe()) == -1 && Errno::last() == Errno::EINTR {}
        // SAFETY: what `new` was given.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &self.before, std::ptr::null_mut()) };
    }
}

// ---- fork ----

thread_local! {
    /// The lock, from before this thread forks until after it has, in the parent and in the child. Without a destructor: its
    /// registration takes memory for each thread, which the children of other threads lose.
    static HELD: Cell<Option<ManuallyDrop<MutexGuard<'static, Requests>>>> = const { Cell::new(None) };
}

/// Before a fork.
pub fn hold() {
    HELD.set(Some(ManuallyDrop::new(lock())));
}

/// After it, in the parent.
pub fn release() {
    drop(HELD.take().map(ManuallyDrop::into_inner));
}

/// After it, in the child: no request is under way here.
pub fn release_in_child() {
    if let Some(mut requests) = HELD.take().map(ManuallyDrop::into_inner) {
        requests.count = 0;
        requests.put_right();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    static SEEN: AtomicUsize = AtomicUsize::new(0);

    extern "C" fn handler(_signal: c_int) {
        SEEN.fetch_add(1, Ordering::SeqCst);
    }

    fn present() -> usize {
        action(None).sa_sigaction
    }

    fn set(to: usize) {
        let mut wanted = action(None);
        wanted.sa_sigaction = to;
        action(Some(&wanted));
    }

    /// What two threads in libxenstore do at worst: one test, since there is but one action in a process.
    #[test]
    fn the_applications_action_outlasts_requests_that_overlap_and_none_of_their_signals_is_seen() {
        let ours = handler as *const () as usize;
        set(ours);
        let mut requests = Requests { count: 0, before: None };
        requests.begin();
        requests.begin();
        set(libc::SIG_IGN);
        requests.end();
        assert_eq!(present(), libc::SIG_IGN);
        requests.end();
        assert_eq!(present(), ours);

        spared(|| {
            // SAFETY: a signal to this thread, which has it blocked.
            unsafe { libc::raise(SIGPIPE) };
            Errno::set_raw(libc::EPIPE);
        });
        assert_eq!(Errno::last(), Errno::EPIPE);
        assert_eq!((present(), SEEN.load(Ordering::SeqCst)), (ours, 0));

        // One that waited before is the application's.
        let blocked = Masked::new();
        // SAFETY: as above.
        unsafe { libc::raise(SIGPIPE) };
        spared(|| ());
        let inner = Masked::new();
        assert!(inner.pending);
        drop(inner);
        drop(blocked);
        // `blocked` has taken it, since it wasn't there before that.
        assert_eq!(SEEN.load(Ordering::SeqCst), 0);
        set(libc::SIG_IGN);
        spared(|| ());
        assert_eq!(present(), libc::SIG_IGN);

        // A panic ends a request like anything else.
        set(ours);
        let panicked = std::panic::catch_unwind(|| {
            spared(|| {
                set(libc::SIG_IGN);
                panic!("on purpose");
            })
        });
        assert!(panicked.is_err());
        assert_eq!((present(), lock().count), (ours, 0));
        assert!(!holds_sigpipe(&Masked::new().before));
        set(libc::SIG_IGN);
    }
}
