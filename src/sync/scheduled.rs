// SPDX-License-Identifier: LGPL-2.1-or-later
//! The same for the model: each lock and each sleep is a place where the scheduler may go on with another thread.
//!
//! - Threads are shuttle's, of which one runs at a time, all in one thread of the system's. So nobody may wait in the kernel:
//!   who sleeps asks whether there is a reason to wake, and gives way, until there is one. Who sleeps for ever does so
//!   beyond the number of steps that a run may have, which ends it as a failure.
//! - Time passes only where the scheduler says so: a sleep with a deadline may end by it at any moment, which is chosen at
//!   random. So a run is the same each time that its schedule is given.
//! - A lock knows how many of its kind the running thread holds: callbacks look at that ([`locks_held`]).

use std::cell::Cell;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::lock_api::{self, GetThreadId, GuardNoSend};
use shuttle::future::batch_semaphore::{BatchSemaphore, Fairness};
use shuttle::rand::Rng;

pub(crate) use shuttle::sync::atomic::AtomicBool;
pub(crate) use shuttle::thread_local;

/// Names a thread.
pub(crate) type ThreadId = shuttle::thread::ThreadId;

/// The thread that runs.
pub(crate) fn this_thread() -> ThreadId {
    shuttle::thread::current().id()
}

thread_local! {
    static HELD: Cell<usize> = const { Cell::new(0) };
}

/// How many locks of this room the running thread holds.
pub(crate) fn locks_held() -> usize {
    HELD.with(Cell::get)
}

fn count_held(change: isize) {
    // A thread that ends by a panic may have lost it.
    let _ = HELD.try_with(|held| held.set(held.get().wrapping_add_signed(change)));
}

/// Unfair, as parking_lot's: who comes just now may be quicker than who has waited.
pub(crate) struct RawMutex(BatchSemaphore);

// SAFETY: there is one permit, so that one thread at a time has it.
unsafe impl lock_api::RawMutex for RawMutex {
    #[allow(clippy::declare_interior_mutable_const)]
    const INIT: RawMutex = RawMutex(BatchSemaphore::const_new(1, Fairness::Unfair));

    type GuardMarker = GuardNoSend;

    fn lock(&self) {
        // It fails only if the semaphore is closed, which nobody does.
        let _ = self.0.acquire_blocking(1);
        count_held(1);
    }

    fn try_lock(&self) -> bool {
        let taken = self.0.try_acquire(1).is_ok();
        count_held(isize::from(taken));
        taken
    }

    unsafe fn unlock(&self) {
        count_held(-1);
        self.0.release(1);
    }
}

pub(crate) type Mutex<T> = lock_api::Mutex<RawMutex, T>;
pub(crate) type MutexGuard<'a, T> = lock_api::MutexGuard<'a, RawMutex, T>;
pub(crate) type ReentrantMutex<T> = lock_api::ReentrantMutex<RawMutex, TaskNumber, T>;

/// For the re-entrant lock.
pub(crate) struct TaskNumber;

// SAFETY: no two threads of a run have the same number.
unsafe impl GetThreadId for TaskNumber {
    const INIT: TaskNumber = TaskNumber;

    fn nonzero_thread_id(&self) -> NonZeroUsize {
        NonZeroUsize::MIN.saturating_add(usize::from(shuttle::current::me()))
    }
}

/// Whom it is for asks it again and again.
#[derive(Default)]
pub(crate) struct Condvar {
    notified: AtomicU64,
}

impl Condvar {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn notify_all(&self) {
        self.notified.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
        self.sleep(guard, None);
    }

    /// Whether it was notified in time.
    pub(crate) fn wait_for<T>(&self, guard: &mut MutexGuard<'_, T>, time: Duration) -> bool {
        self.sleep(guard, Some(time))
    }

    fn sleep<T>(&self, guard: &mut MutexGuard<'_, T>, at_most: Option<Duration>) -> bool {
        // With the lock held: what is notified of from here on counts.
        let before = self.notified.load(Ordering::Relaxed);
        MutexGuard::unlocked(guard, || sleep_until(|| self.notified.load(Ordering::Relaxed) != before, at_most))
    }
}

std::thread_local! {
    // The system's thread runs one schedule after another, each of which begins with `begin_time`.
    static NOW: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

/// Any time but zero, with room before it.
const BEGINNING: Duration = Duration::from_secs(1000);

/// At the beginning of each run.
pub(crate) fn begin_time() {
    NOW.set(BEGINNING);
}

/// The model's time.
pub fn now() -> Duration {
    NOW.get()
}

/// A deadline of the model's as the kernel's clock has it. There are deadlines that are due alone.
pub(crate) fn due(deadline: Duration) -> Duration {
    assert!(deadline <= now(), "the model has no deadlines to come");
    Duration::from_nanos(1)
}

/// Sleeps until there is a reason to wake, or until the scheduler has it that the time has passed. Whether there was a reason.
pub(crate) fn sleep_until(woken: impl Fn() -> bool, at_most: Option<Duration>) -> bool {
    // Here the thread may be held up before it sleeps, also if it needn't.
    shuttle::thread::yield_now();
    let end = at_most.map(|time| NOW.get() + time);
    loop {
        if woken() {
            return true;
        }
        if let Some(end) = end.filter(|end| NOW.get() >= *end || shuttle::rand::thread_rng().gen_bool(0.25)) {
            NOW.set(NOW.get().max(end));
            return false;
        }
        shuttle::thread::yield_now();
    }
}
