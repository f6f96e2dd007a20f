// SPDX-License-Identifier: LGPL-2.1-or-later
//! What a context's threads meet at: locks, and what depends on which thread runs.
//!
//! `context` and `reactor` take these from here, so that their own code, and no copy of it, can run under a scheduler that
//! tries orders of steps: with `--cfg xlevent_shuttle` the unit tests get [`shuttle`](https://docs.rs/shuttle)'s, and the
//! tests of `context::model` run. Every other build has parking_lot's and the system's.
//!
//! What a forked child may find locked (`context::registry`, `forkguard`, `context::neighbours`) is std's, by way of
//! [`std_like`], and no scheduler's, and so is what is looked at with those locks held. They must not be held where another
//! thread could be scheduled: not across any lock, nor any atomic, of this room's. `neighbours` does that, where there are two
//! contexts that are armed; the model has none that is.

#[cfg(not(all(test, xlevent_shuttle)))]
mod real {
    use std::cell::Cell;
    use std::num::NonZeroU64;
    use std::sync::atomic::{AtomicU64, Ordering};

    pub(crate) use parking_lot::{Condvar, Mutex, MutexGuard, ReentrantMutex};
    pub(crate) use std::sync::atomic::AtomicBool;
    pub(crate) use std::thread_local;

    /// Names a thread. No other thread of the process has, or will have, the same.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) struct ThreadId(NonZeroU64);

    /// The thread that runs. Not the system's number, which a new thread may have after the old one's end; nor std's: the first
    /// question for that takes memory, which a fork by another thread loses.
    pub(crate) fn this_thread() -> ThreadId {
        static LAST: AtomicU64 = AtomicU64::new(0);
        thread_local! {
            static SERIAL: Cell<Option<NonZeroU64>> = const { Cell::new(None) };
        }
        ThreadId(SERIAL.with(|serial| {
            let known = serial.get().or_else(|| NonZeroU64::new(LAST.fetch_add(1, Ordering::Relaxed) + 1));
            // It begins at 1, and doesn't come to its end.
            let known = known.unwrap_or(NonZeroU64::MAX);
            serial.set(Some(known));
            known
        }))
    }
}
#[cfg(not(all(test, xlevent_shuttle)))]
pub(crate) use real::*;

pub(crate) mod std_like;

#[cfg(all(test, xlevent_shuttle))]
mod scheduled;
#[cfg(all(test, xlevent_shuttle))]
pub use scheduled::*;
