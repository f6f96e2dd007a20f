// SPDX-License-Identifier: LGPL-2.1-or-later
//! The application's event loop: with poll(2), or with hooks.

use std::cell::Cell;
use std::ffi::{c_int, c_short, c_void};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, Ordering};

use libc::{pollfd, timeval};

use super::ctx::libxl_ctx;
use super::entry::{brief_entry, entry, uncancelled};
use super::handle::{context, failed, invalid};
use crate::abi::*;
use crate::context::{Context, OsEventHooks};
use crate::guard::Replaced;

/// Says what to wait for: prepares a call of poll(2).
///
/// The library needs room for exactly one entry, however many domains are watched. On entry `*nfds_io` is how many
/// entries there are at `fds`; on return it is 1. If there was room, `fds[0]` is filled in. `fds` may point into a
/// larger array. With `fds` NULL and `*nfds_io` 0 the call only asks how much room is needed.
///
/// `*timeout_upd`, in milliseconds with negative for infinite, is what the application will give to poll. A library may
/// shorten it; this one never needs to, since its timers make the descriptor readable.
///
/// Any thread may wait on the descriptor at any time; what is enabled or disabled meanwhile takes effect at once.
///
/// If the program has closed the library's descriptors (see libxl_ctx_alloc), there is nothing to wait for: `*nfds_io` is 0 on
/// return, and the timeout is as it was. `now` only says when to check for that again.
///
/// Returns 0; ERROR_BUFFERFULL if there was no room; ERROR_INVAL for a NULL or unknown `ctx`, a NULL `nfds_io` or
/// `timeout_upd`, or a NULL `fds` with `*nfds_io` greater than 0; ERROR_FAIL if the descriptor, which the first call
/// makes, cannot be had.
///
/// # Safety
///
/// `nfds_io` and `timeout_upd` are NULL or point to an int; `fds` is NULL or points to `*nfds_io` writable entries.
///
/// cbindgen:postfix=LIBXL_EXTERNAL_CALLERS_ONLY
#[unsafe(no_mangle)]
pub unsafe extern "C" fn libxl_osevent_beforepoll(
    ctx: *mut libxl_ctx,
    nfds_io: *mut c_int,
    fds: *mut pollfd,
    timeout_upd: *mut c_int,
    now: timeval,
) -> c_int {
    brief_entry!("libxl_osevent_beforepoll", ERROR_FAIL, {
        let name = "libxl_osevent_beforepoll";
        let context = match context(name, ctx) {
            Ok(context) => context,
            Err(rc) => return rc,
        };
        // SAFETY: NULL, or the caller's number.
        let Some(room) = (unsafe { nfds_io.as_mut() }) else {
            return invalid(&context, name, "the place for the number is NULL");
        };
        if timeout_upd.is_null() {
            return invalid(&context, name, "the place for the timeout is NULL");
        }
        let tenth = (now.tv_sec as u64).wrapping_mul(10).wrapping_add(now.tv_usec as u64 / 100_000);
        if context.is_stolen() || context.is_check_due(tenth) && uncancelled(|| context.check_descriptors()).is_err() {
            *room = 0;
            return 0;
        }
        let have = std::mem::replace(room, 1);
        if have < 1 {
            return ERROR_BUFFERFULL;
        }
        // SAFETY: NULL, or room for at least one entry.
        let Some(entry) = (unsafe { fds.as_mut() }) else {
            *room = have;
            return invalid(&context, name, "the array is NULL, though it is said to have room");
        };
        let fd = match context.known_fd() {
            Some(fd) => Ok(fd),
            None => uncancelled(|| context.fd().map(|fd| fd.as_raw_fd())),
        };
        match fd {
            Ok(fd) => {
                *entry = pollfd { fd, events: libc::POLLIN, revents: 0 };
                0
            }
            Err(_) if context.is_stolen() => {
                *room = 0;
                0
            }
            Err(error) => {
                *room = have;
                failed(&context, name, &error)
            }
        }
    })
}

/// Does what is to be done after poll(2): reads what has come in, looks at the domains, and produces events.
///
/// `fds[0 .. nfds]` is what libxl_osevent_beforepoll filled in and poll went over. It only says whether there is
/// something to do; what it is, the library finds out by itself, so that calling this twice, with `nfds` 0, or with
/// `revents` that are not true is harmless. It never waits for anything. Events go to the queue or to event_occurs,
/// which then runs inside this call. `now` is not used.
///
/// A NULL or unknown `ctx`, or a NULL `fds` with `nfds` greater than 0, is logged and nothing is done.
///
/// # Safety
///
/// `fds` is NULL or points to `nfds` entries.
///
/// cbindgen:postfix=LIBXL_EXTERNAL_CALLERS_ONLY
#[unsafe(no_mangle)]
pub unsafe extern "C" fn libxl_osevent_afterpoll(ctx: *mut libxl_ctx, nfds: c_int, fds: *const pollfd, now: timeval) {
    brief_entry!("libxl_osevent_afterpoll", (), {
        let (name, _) = ("libxl_osevent_afterpoll", now);
        let Ok(context) = context(name, ctx) else { return };
        let Ok(count @ 1..) = usize::try_from(nfds) else {
            // There was nothing to poll, but there is the time of day.
            if context.overdue() {
                uncancelled(|| context.occurred());
            }
            return;
        };
        if fds.is_null() {
            invalid(&context, name, "the array is NULL, though it is said to have entries");
            return;
        }
        // SAFETY: not null, so that many entries.
        let fds = unsafe { std::slice::from_raw_parts(fds, count) };
        let Some(ours) = context.known_fd() else { return };
        let Some(entry) = fds.iter().find(|entry| entry.fd == ours && entry.revents != 0) else { return };
        if entry.revents & libc::POLLNVAL != 0 {
            if uncancelled(|| context.check_descriptors()).is_ok() {
                invalid(&context, name, "the library's descriptor is said to be closed, and is open");
            }
            return;
        }
        uncancelled(|| context.occurred());
    })
}

/// The application's event loop, for libxl_osevent_register_hooks.
///
/// A hook that registers or modifies returns 0, or ERROR_OSEVENT_REG_FAIL or any positive number if it refuses; then
/// nothing must have changed, and the number goes back to the application from the call that needed the registration.
/// The value that a hook stores through its third argument is the application's own: later hooks for the same descriptor
/// get it back. Hooks are called with no lock of the library's held, on the thread of whichever call needs them.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct libxl_osevent_hooks {
    /// Start to watch `fd` for `events`, as for poll(2), and call libxl_osevent_occurred_fd with `for_libxl` when one
    /// occurs. A context has one descriptor; this is called when there is first something to wait for, and again when
    /// there is after fd_deregister. `*for_app_registration_out` is NULL on entry.
    pub fd_register: Option<
        unsafe extern "C" fn(
            user: *mut c_void,
            fd: c_int,
            for_app_registration_out: *mut *mut c_void,
            events: c_short,
            for_libxl: *mut c_void,
        ) -> c_int,
    >,
    /// Watch `fd` for other events from now on; 0 means none. This library never needs it.
    pub fd_modify: Option<
        unsafe extern "C" fn(
            user: *mut c_void,
            fd: c_int,
            for_app_registration_update: *mut *mut c_void,
            events: c_short,
        ) -> c_int,
    >,
    /// Stop watching `fd`: there is nothing left to wait for. Also called when the program has closed `fd` (see
    /// libxl_ctx_alloc); the number may then be another file's.
    pub fd_deregister: Option<unsafe extern "C" fn(user: *mut c_void, fd: c_int, for_app_registration: *mut c_void)>,
    /// Start a timer that calls libxl_osevent_occurred_timeout at the time `abs`. This library never calls it: its
    /// timers make its descriptor readable.
    pub timeout_register: Option<
        unsafe extern "C" fn(
            user: *mut c_void,
            for_app_registration_out: *mut *mut c_void,
            abs: timeval,
            for_libxl: *mut c_void,
        ) -> c_int,
    >,
    /// Let a timer fire as soon as possible. This library never calls it.
    pub timeout_modify: Option<
        unsafe extern "C" fn(user: *mut c_void, for_app_registration_update: *mut *mut c_void, abs: timeval) -> c_int,
    >,
    /// Stop a timer. This library never calls it.
    pub timeout_deregister: Option<unsafe extern "C" fn(user: *mut c_void, for_app_registration: *mut c_void)>,
}

/// Has the library use the application's event loop: an alternative to libxl_osevent_beforepoll and _afterpoll.
///
/// The application sees one descriptor, registered while there is something to wait for, and never a timeout. Both ways
/// may be mixed, and libxl_event_wait goes on working.
///
/// Once per context, and before any generator is enabled: a later call is logged and refused. Keep `*hooks` valid as
/// long as the context. A NULL or unknown `ctx`, a NULL `hooks`, or hooks without fd_register or fd_deregister are
/// logged and refused too.
///
/// # Safety
///
/// `hooks` is NULL or points to valid functions, which stay valid as long as the context and return normally: no
/// longjmp, no C++ exception.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn libxl_osevent_register_hooks(
    ctx: *mut libxl_ctx,
    hooks: *const libxl_osevent_hooks,
    user: *mut c_void,
) {
    entry!("libxl_osevent_register_hooks", (), {
        let name = "libxl_osevent_register_hooks";
        let Ok(context) = context(name, ctx) else { return };
        // SAFETY: NULL, or the caller's table.
        let hooks = unsafe { hooks.as_ref() };
        let complete = hooks.and_then(|hooks| hooks.fd_register.zip(hooks.fd_deregister));
        let Some((fd_register, fd_deregister)) = complete else {
            invalid(&context, name, "there are no hooks, or none for descriptors");
            return;
        };
        let hooks = Hooks {
            fd_register,
            fd_deregister,
            user,
            registration: AtomicPtr::new(std::ptr::null_mut()),
            for_libxl: ctx,
        };
        if let Err(error) = context.set_os_hooks(Arc::new(hooks)) {
            failed(&context, name, &error);
        }
    })
}

/// An application's hooks, with what it has stored for our one descriptor.
struct Hooks {
    fd_register: FdRegister,
    fd_deregister: FdDeregister,
    user: *mut c_void,
    /// What `fd_register` has stored. Written and read by one thread at a time (the context's gate).
    registration: AtomicPtr<c_void>,
    for_libxl: *mut libxl_ctx,
}

type FdRegister = unsafe extern "C" fn(*mut c_void, c_int, *mut *mut c_void, c_short, *mut c_void) -> c_int;
type FdDeregister = unsafe extern "C" fn(*mut c_void, c_int, *mut c_void);

// SAFETY: the header says that hooks run on any thread that calls the library; the pointers are only handed back.
unsafe impl Send for Hooks {}
// SAFETY: as above.
unsafe impl Sync for Hooks {}

thread_local! {
    /// This thread is inside one of the application's hooks.
    static IN_HOOK: Cell<bool> = const { Cell::new(false) };
}

/// Calls a hook, noting that we are inside it.
fn call_hook<R>(hook: impl FnOnce() -> R) -> R {
    IN_HOOK.with(|inside| {
        let _mark = Replaced::with(inside, true);
        hook()
    })
}

impl OsEventHooks for Hooks {
    fn fd_register(&self, fd: RawFd) -> Result<(), i32> {
        let mut registration = std::ptr::null_mut();
        // SAFETY: the application's function, with arguments as the header promises them.
        let rc = call_hook(|| unsafe {
            (self.fd_register)(self.user, fd, &mut registration, libc::POLLIN, self.for_libxl.cast())
        });
        if rc != 0 {
            return Err(rc);
        }
        self.registration.store(registration, Ordering::Relaxed);
        Ok(())
    }

    fn fd_deregister(&self, fd: RawFd) {
        let registration = self.registration.swap(std::ptr::null_mut(), Ordering::Relaxed);
        // SAFETY: the application's function, with what it stored itself.
        call_hook(|| unsafe { (self.fd_deregister)(self.user, fd, registration) });
    }
}

/// The context of an occurrence; `None`, and a log line, where there is none or where it comes from inside a hook.
pub(super) fn occurrence(name: &str, ctx: *mut libxl_ctx) -> Option<Arc<Context>> {
    let context = context(name, ctx).ok()?;
    if IN_HOOK.with(Cell::get) {
        invalid(&context, name, "called from inside a hook; ignored");
        return None;
    }
    Some(context)
}

/// To be called by the application's event loop when a descriptor that it was given has something to report.
///
/// `for_libxl`, `fd` and `events` are those of the registration, `revents` is what poll(2) reports. The library finds
/// out by itself what is to be done, does it without blocking, and produces events. A call that comes late, for a
/// registration that is gone, is ignored; so are wrong `revents`.
///
/// Not to be called from inside a hook: that is logged and ignored. A NULL or unknown `ctx` is logged.
///
/// # Safety
///
/// No requirement beyond those of all functions: `for_libxl` is looked up, not followed.
///
/// cbindgen:postfix=LIBXL_EXTERNAL_CALLERS_ONLY
#[unsafe(no_mangle)]
pub unsafe extern "C" fn libxl_osevent_occurred_fd(
    ctx: *mut libxl_ctx,
    for_libxl: *mut c_void,
    fd: c_int,
    events: c_short,
    revents: c_short,
) {
    entry!("libxl_osevent_occurred_fd", (), {
        let (name, _) = ("libxl_osevent_occurred_fd", events);
        let Some(context) = occurrence(name, ctx) else { return };
        // Anything else is late, or made up. Whether there is something to do, the descriptor itself knows.
        if for_libxl.addr() != ctx.addr() || Some(fd) != context.known_fd() {
            return;
        }
        if revents & libc::POLLNVAL == 0 {
            context.occurred();
        } else if context.check_descriptors().is_ok() {
            invalid(&context, name, "the library's descriptor is said to be closed, and is open");
        }
    })
}

/// To be called by the application's event loop when a timer that it was given fires.
///
/// This library gives it none, so that there is never a reason to call this; a call is harmless. A NULL or unknown `ctx`
/// is logged.
///
/// # Safety
///
/// No requirement beyond those of all functions: `for_libxl` is looked up, not followed.
///
/// cbindgen:postfix=LIBXL_EXTERNAL_CALLERS_ONLY
#[unsafe(no_mangle)]
pub unsafe extern "C" fn libxl_osevent_occurred_timeout(ctx: *mut libxl_ctx, for_libxl: *mut c_void) {
    entry!("libxl_osevent_occurred_timeout", (), {
        let _ = for_libxl;
        let context = occurrence("libxl_osevent_occurred_timeout", ctx);
        if let Some(context) = context.filter(|context| context.overdue()) {
            context.occurred();
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_panic_in_a_hook_this_thread_is_in_none() {
        let hook = || call_hook(|| assert!(!IN_HOOK.get(), "on purpose"));
        assert!(std::panic::catch_unwind(hook).is_err());
        assert!(!IN_HOOK.get());
        assert!(call_hook(|| IN_HOOK.get()));
    }
}
