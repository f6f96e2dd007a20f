// SPDX-License-Identifier: LGPL-2.1-or-later
//! std's locks, as far as the library uses them; and for a race detector, some with std's ways whose steps it sees.
//!
//! ThreadSanitizer sees nothing of what was compiled without it, and that is std: it would report whatever std's locks guard.
//! With `--cfg xlevent_tsan`, which `trials/tsan` sets, there is an atomic number under them, which is compiled with us.
//! Nothing but that trial has these.

#[cfg(not(xlevent_tsan))]
pub(crate) use std::sync::{Mutex, MutexGuard, Once, OnceLock, RwLock, RwLockReadGuard, RwLockWriteGuard};

#[cfg(xlevent_tsan)]
mod seen {
    use std::ptr;
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
    use std::sync::{LockResult, TryLockError};

    use parking_lot::lock_api::{self, GuardNoSend, RawMutex, RawRwLock};

    pub(crate) type MutexGuard<'a, T> = lock_api::MutexGuard<'a, Asked, T>;
    pub(crate) type RwLockReadGuard<'a, T> = lock_api::RwLockReadGuard<'a, Asked, T>;
    pub(crate) type RwLockWriteGuard<'a, T> = lock_api::RwLockWriteGuard<'a, Asked, T>;

    /// How many have it: readers, or one who writes. All that wait are woken each time, and ask again: there is no queue in
    /// which a forked child could find its parent's threads, and no lock of parking_lot's own.
    #[derive(Debug)]
    pub(crate) struct Asked(AtomicU32);

    impl Asked {
        const WRITTEN: u32 = u32::MAX;

        /// Asks until it is so, and waits in the kernel as std's do.
        fn until(&self, obtained: impl Fn() -> bool) {
            while !obtained() {
                match self.0.load(Ordering::Relaxed) {
                    0 => {}
                    taken => self.futex(libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG, taken),
                }
            }
        }

        fn wake(&self) {
            self.futex(libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG, i32::MAX as u32);
        }

        fn futex(&self, operation: i32, value: u32) {
            // SAFETY: the number lives as long as the lock; without a time-out.
            unsafe { libc::syscall(libc::SYS_futex, self.0.as_ptr(), operation, value, ptr::null::<libc::timespec>()) };
        }
    }

    // SAFETY: only who finds nobody there writes, and nobody reads until he has said that he is done.
    unsafe impl RawRwLock for Asked {
        // Each lock is to have its own.
        #[allow(clippy::declare_interior_mutable_const)]
        const INIT: Asked = Asked(AtomicU32::new(0));
        type GuardMarker = GuardNoSend;

        fn lock_shared(&self) {
            self.until(|| self.try_lock_shared());
        }

        fn try_lock_shared(&self) -> bool {
            let one_more = |readers| (readers != Asked::WRITTEN).then(|| readers + 1);
            self.0.fetch_update(Ordering::Acquire, Ordering::Relaxed, one_more).is_ok()
        }

        unsafe fn unlock_shared(&self) {
            self.0.fetch_sub(1, Ordering::Release);
            self.wake();
        }

        fn lock_exclusive(&self) {
            self.until(|| self.try_lock_exclusive());
        }

        fn try_lock_exclusive(&self) -> bool {
            self.0.compare_exchange(0, Asked::WRITTEN, Ordering::Acquire, Ordering::Relaxed).is_ok()
        }

        unsafe fn unlock_exclusive(&self) {
            self.0.store(0, Ordering::Release);
            self.wake();
        }
    }

    // SAFETY: as one who writes.
    unsafe impl RawMutex for Asked {
        #[allow(clippy::declare_interior_mutable_const)]
        const INIT: Asked = <Asked as RawRwLock>::INIT;
        type GuardMarker = GuardNoSend;

        fn lock(&self) {
            self.lock_exclusive();
        }

        fn try_lock(&self) -> bool {
            self.try_lock_exclusive()
        }

        unsafe fn unlock(&self) {
            // SAFETY: the caller has it.
            unsafe { self.unlock_exclusive() }
        }
    }

    #[derive(Debug, Default)]
    pub(crate) struct Mutex<T>(lock_api::Mutex<Asked, T>);

    impl<T> Mutex<T> {
        pub(crate) const fn new(value: T) -> Self {
            Mutex(lock_api::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> LockResult<MutexGuard<'_, T>> {
            Ok(self.0.lock())
        }

        pub(crate) fn try_lock(&self) -> Result<MutexGuard<'_, T>, TryLockError<MutexGuard<'_, T>>> {
            self.0.try_lock().ok_or(TryLockError::WouldBlock)
        }
    }

    #[derive(Debug, Default)]
    pub(crate) struct RwLock<T>(lock_api::RwLock<Asked, T>);

    impl<T> RwLock<T> {
        pub(crate) const fn new(value: T) -> Self {
            RwLock(lock_api::RwLock::new(value))
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
