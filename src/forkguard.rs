// SPDX-License-Identifier: LGPL-2.1-or-later
//! Keeps forks away from moments in which a child would find Xen's libraries in the middle of something.
//!
//! libxenstore and libxenctrl register their handles in lists behind locks of their own. A child that is forked while
//! another thread holds one of those can never take it again. So we open and close handles inside [`undisturbed`], and a
//! fork waits for that ([`hold`]). Nothing in there may call the application: it may hold a lock of its own while it forks.
//!
//! libxenlight opens and closes handles too, and logs meanwhile, which calls the application. A fork can't wait for that. So it
//! is counted who is there ([`unguarded`]), and a child that may find a lock taken leaves Xen's libraries alone.

use std::cell::Cell;
use std::mem::ManuallyDrop;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::guard::Replaced;
use crate::sync::std_like::{RwLock, RwLockWriteGuard};

/// std's lock and not parking_lot's: a child finds it as if the parent's other threads were still waiting for it, and
/// parking_lot hands a lock on to whom it takes for the next in the queue, who doesn't exist there.
static FORK: RwLock<()> = RwLock::new(());

/// How many threads are inside [`unguarded`]. In a child: those of the parent's too, for good.
static UNGUARDED: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// How often this thread is.
    static UNGUARDED_HERE: Cell<usize> = const { Cell::new(0) };
    /// This thread is inside `undisturbed`.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
    /// The lock, from before this thread forks until after it has, in the parent and in the child. Without a destructor: its
    /// registration takes memory for each thread, which the children of other threads lose.
    static HELD: Cell<Option<ManuallyDrop<RwLockWriteGuard<'static, ()>>>> = const { Cell::new(None) };
}

/// Does something with Xen's libraries that no fork of another thread may fall into.
pub fn undisturbed<R>(work: impl FnOnce() -> R) -> R {
    INSIDE.with(|inside| {
        let outermost = !inside.get();
        let _mark = Replaced::with(inside, true);
        let _lock = outermost.then(|| FORK.read().unwrap_or_else(PoisonError::into_inner));
        work()
    })
}

/// Has libxenlight do something in which it opens or closes handles.
pub fn unguarded<R>(work: impl FnOnce() -> R) -> R {
    /// One more, until it is dropped.
    struct Counted;

    impl Drop for Counted {
        fn drop(&mut self) {
            UNGUARDED.fetch_sub(1, Ordering::SeqCst);
        }
    }

    UNGUARDED.fetch_add(1, Ordering::SeqCst);
    let _counted = Counted;
    UNGUARDED_HERE.with(|here| {
        let _here = Replaced::with(here, here.get() + 1);
        work()
    })
}

/// In a forked child: whether another thread of the parent's was there, so that a lock may be taken for ever.
pub fn locks_may_be_taken() -> bool {
    UNGUARDED.load(Ordering::SeqCst) > UNGUARDED_HERE.get()
}

/// Before a fork: waits until nobody is in `undisturbed`.
pub fn hold() {
    if !INSIDE.get() {
        HELD.set(Some(ManuallyDrop::new(FORK.write().unwrap_or_else(PoisonError::into_inner))));
    }
}

/// After it, in the parent and in the child.
pub fn release() {
    drop(HELD.take().map(ManuallyDrop::into_inner));
}

#[cfg(test)]
mod tests {
    use std::panic::catch_unwind;

    use super::*;

    #[test]
    fn after_a_panic_inside_a_fork_waits_again_and_nobody_is_counted() {
        assert!(catch_unwind(|| undisturbed(|| undisturbed(|| panic!("on purpose")))).is_err());
        assert!(!INSIDE.get(), "a fork of this thread would not wait");
        assert!(catch_unwind(|| undisturbed(|| {})).is_ok());
        unguarded(|| {
            assert!(catch_unwind(|| unguarded(|| panic!("on purpose"))).is_err());
            assert_eq!(UNGUARDED_HERE.get(), 1);
        });
        assert_eq!(UNGUARDED_HERE.get(), 0);
        // Nothing else in these tests has libxenlight do anything.
        assert_eq!(UNGUARDED.load(Ordering::SeqCst), 0);
    }
}
