// SPDX-License-Identifier: LGPL-2.1-or-later
//! std's locks, as far as the library uses them; and for a race detector, some with std's ways whose steps it sees.
//!
//! ThreadSanitizer sees nothing of what was compiled without it, and that is std: it would report whatever std's locks guard.
//! With `--cfg xlevent_tsan`, which `trials/tsan` sets, there are parking_lot's under them, which are compiled with us.
//! Nothing but that trial has these: they aren't to be trusted in a forked child.

#[cfg(not(xlevent_tsan))]
pub(crate) use std::sync::{Mutex, MutexGuard, Once, OnceLock, RwLock, RwLockReadGuard, RwLockWriteGuard};

#[cfg(xlevent_tsan)]
mod seen {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::{LockResult, TryLockError};

    pub(crate) use parking_lot::{MutexGuard, RwLockReadGuard, RwLockWriteGuard};

    #[derive(Debug, Default)]
    pub(crate) struct Mutex<T>(parking_lot::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) const fn new(value: T) -> Self {
            Mutex(parking_lot::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> LockResult<MutexGuard<'_, T>> {
            Ok(self.0.lock())
        }
    }

    #[derive(Debug, Default)]
    pub(crate) struct RwLock<T>(parking_lot::RwLock<T>);

    impl<T> RwLock<T> {
        pub(crate) const fn new(value: T) -> Self {
            RwLock(parking_lot::RwLock::new(value))
        }

        pub(crate) fn read(&self) -> LockResult<RwLockReadGuard<'_, T>> {
            Ok(self.0.read())
        }

        pub(crate) fn try_read(&self) -> Result<RwLockReadGuard<'_, T>, TryLockError<RwLockReadGuard<'_, T>>> {
            self.0.try_read().ok_or(TryLockError::WouldBlock)
        }

        pub(crate) fn write(&self) -> LockResult<RwLockWriteGuard<'_, T>> {
            Ok(self.0.write())
        }

        pub(crate) fn try_write(&self) -> Result<RwLockWriteGuard<'_, T>, TryLockError<RwLockWriteGuard<'_, T>>> {
            self.0.try_write().ok_or(TryLockError::WouldBlock)
        }
    }

    /// std's, and what tells others that it is made: an edge that is seen, and no more of them than std has.
    #[derive(Debug, Default)]
    pub(crate) struct OnceLock<T>(std::sync::OnceLock<T>, AtomicBool);

    impl<T> OnceLock<T> {
        pub(crate) const fn new() -> Self {
            OnceLock(std::sync::OnceLock::new(), AtomicBool::new(false))
        }

        pub(crate) fn get(&self) -> Option<&T> {
            if self.1.load(Ordering::Acquire) { self.0.get() } else { None }
        }

        pub(crate) fn set(&self, value: T) -> Result<(), T> {
            self.0.set(value)?;
            self.1.store(true, Ordering::Release);
            Ok(())
        }

        pub(crate) fn get_or_init(&self, make: impl FnOnce() -> T) -> &T {
            let mut made = false;
            let value = self.0.get_or_init(|| {
                made = true;
                make()
            });
            if made {
                self.1.store(true, Ordering::Release);
            }
            while !self.1.load(Ordering::Acquire) {
                std::thread::yield_now();
            }
            value
        }
    }

    #[derive(Debug)]
    pub(crate) struct Once(parking_lot::Once);

    impl Once {
        pub(crate) const fn new() -> Self {
            Once(parking_lot::Once::new())
        }

        pub(crate) fn is_completed(&self) -> bool {
            self.0.state().done()
        }

        pub(crate) fn call_once(&self, work: impl FnOnce()) {
            self.0.call_once(work);
        }
    }
}
#[cfg(xlevent_tsan)]
pub(crate) use seen::*;
