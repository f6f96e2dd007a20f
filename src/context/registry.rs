// SPDX-License-Identifier: LGPL-2.1-or-later
//! Which contexts there are: from a `libxl_ctx *` as a number to the context.
//!
//! A pointer from C is looked up, never followed, so an unknown one is an error and not a crash. The registry is the
//! one piece that all contexts share, and what a forked child has to find whole: see [`forget_all`].

use std::cell::Cell;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::mem::ManuallyDrop;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use super::{Context, neighbours};
use crate::childproc::process;
use crate::forkguard;
use crate::identity;
use crate::sync::std_like::{Mutex, Once, RwLock, RwLockReadGuard, RwLockWriteGuard};
use crate::xen::sigpipe;

type Contexts = HashMap<usize, Arc<Context>, BuildHasherDefault<AddressHasher>>;

/// std's lock and not parking_lot's: a forked child finds it as if the parent's other threads were still waiting for it, and
/// parking_lot hands a lock on to whom it takes for the next in the queue, who doesn't exist there.
static CONTEXTS: RwLock<Contexts> = RwLock::new(Contexts::with_hasher(BuildHasherDefault::new()));

/// Nothing here panics with the lock held, and a map is whole in any case.
fn read() -> RwLockReadGuard<'static, Contexts> {
    CONTEXTS.read().unwrap_or_else(PoisonError::into_inner)
}

fn write() -> RwLockWriteGuard<'static, Contexts> {
    CONTEXTS.write().unwrap_or_else(PoisonError::into_inner)
}

/// Addresses are their own hash, mixed so that the allocator's alignment doesn't show.
#[derive(Debug, Default)]
struct AddressHasher(u64);

impl Hasher for AddressHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_usize(usize::from(*byte)));
    }

    fn write_usize(&mut self, address: usize) {
        self.0 = (self.0 ^ address as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23);
    }
}

/// The context of that address. None that a parent has left in such a state that it can't be used here ([`left_behind`]).
pub fn lookup(address: usize) -> Option<Arc<Context>> {
    read().get(&address).filter(|context| !context.left_behind.load(Ordering::Relaxed)).cloned()
}

/// In a forked child: whether there is a context of that address, and it was the parent's and must not be used.
pub fn left_behind(address: usize) -> bool {
    read().get(&address).is_some_and(|context| context.left_behind.load(Ordering::Relaxed))
}

/// Adds a context.
pub fn insert(address: usize, context: Arc<Context>) {
    hold_during_fork();
    let before = write().insert(address, context);
    // The address was freed behind our back, and given out again.
    drop(before);
}

/// Takes out a context, unless the address is another's by now.
pub fn remove(address: usize, context: &Arc<Context>) -> bool {
    let mut contexts = write();
    let removed = match contexts.get(&address) {
        Some(present) if Arc::ptr_eq(present, context) => contexts.remove(&address),
        _ => None,
    };
    drop(contexts);
    removed.is_some()
}

/// In a forked child: closes what the parent's contexts had open, and forgets them. Their memory stays: another thread of
/// the parent's may have been anywhere in them.
pub fn forget_all() {
    static FORGOTTEN: Mutex<Vec<Contexts>> = Mutex::new(Vec::new());
    let contexts = std::mem::take(&mut *write());
    contexts.values().for_each(|context| context.abandon());
    process::forget();
    identity::forget_guard();
    FORGOTTEN.lock().unwrap_or_else(PoisonError::into_inner).push(contexts);
}

/// From the first context on, a fork waits until nobody changes the registry, so that the child finds it whole and
/// unlocked.
fn hold_during_fork() {
    static HOLD: Once = Once::new();

    thread_local! {
        /// The lock, from before this thread forks until after it has, in the parent and in the child. Without a
        /// destructor: its registration takes memory for each thread, which the children of other threads lose.
        static HELD: Cell<Option<ManuallyDrop<RwLockWriteGuard<'static, Contexts>>>> = const { Cell::new(None) };
    }

    extern "C" fn lock() {
        forkguard::hold();
        HELD.set(Some(ManuallyDrop::new(write())));
        process::hold();
        sigpipe::hold();
    }

    extern "C" fn unlock() {
        sigpipe::release();
        release();
    }

    fn release() {
        process::release();
        drop(HELD.take().map(ManuallyDrop::into_inner));
        forkguard::release();
    }

    extern "C" fn unlock_in_child() {
        neighbours::forget_all();
        sigpipe::release_in_child();
        if let Some(contexts) = HELD.take() {
            contexts.values().for_each(mark);
            HELD.set(Some(contexts));
        }
        release();
    }

    /// A context that one thread alone had, and that has not listened to xenstored, is as good here as there: a daemon may
    /// open one and then fork once more. Any other isn't: what a thread was doing in it will not be done, its locks may stay
    /// taken, and libxenstore waits for a thread that reads for it, which is not here.
    fn mark(context: &Arc<Context>) {
        if Arc::strong_count(context) > 1 || context.inherited.listened.load(Ordering::Relaxed) {
            context.left_behind.store(true, Ordering::Relaxed);
        }
    }

    HOLD.call_once(|| {
        // SAFETY: three functions that may be called at any fork, for the life of the process.
        let _ = unsafe { libc::pthread_atfork(Some(lock), Some(unlock), Some(unlock_in_child)) };
    });
}
