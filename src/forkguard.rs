// SPDX-License-Identifier: LGPL-2.1-or-later
//! Keeps forks away from moments in which a child would find Xen's libraries in the middle of something.
//!
//! libxenstore and libxenctrl register their handles in lists behind locks of their own. A child that is forked while
//! another thread holds one of those can never take it again. So we open and close handles inside [`undisturbed`], and a
//! fork waits for that ([`hold`]). Nothing in there may call the application: it may hold a lock of its own while it forks.

use std::cell::{Cell, RefCell};
use std::sync::{PoisonError, RwLock, RwLockWriteGuard};

/// std's lock and not parking_lot's: a child finds it as if the parent's other threads were still waiting for it, and
/// parking_lot hands a lock on to whom it takes for the next in the queue, who doesn't exist there.
static FORK: RwLock<()> = RwLock::new(());

thread_local! {
    /// This thread is inside `undisturbed`.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
    /// The lock, from before this thread forks until after it has, in the parent and in the child.
    static HELD: RefCell<Option<RwLockWriteGuard<'static, ()>>> = const { RefCell::new(None) };
}

/// Does something with Xen's libraries that no fork of another thread may fall into.
pub fn undisturbed<R>(work: impl FnOnce() -> R) -> R {
    let inside = INSIDE.with(|inside| inside.replace(true));
    let _guard = (!inside).then(|| FORK.read().unwrap_or_else(PoisonError::into_inner));
    let result = work();
    INSIDE.with(|inside_now| inside_now.set(inside));
    result
}

/// Before a fork: waits until nobody is in `undisturbed`.
pub fn hold() {
    if !INSIDE.try_with(Cell::get).unwrap_or(false) {
        let guard = FORK.write().unwrap_or_else(PoisonError::into_inner);
        // A thread that is ending has no such place any more: its child takes its chances.
        let _ = HELD.try_with(|held| *held.borrow_mut() = Some(guard));
    }
}

/// After it, in the parent and in the child.
pub fn release() {
    let _ = HELD.try_with(|held| held.borrow_mut().take());
}
