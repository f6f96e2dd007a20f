// SPDX-License-Identifier: LGPL-2.1-or-later
//! The application's event loop: with poll(2), or with hooks.

use std::ffi::{c_int, c_short, c_void};

use libc::{pollfd, timeval};

use super::ctx::libxl_ctx;
use super::entry::entry;
#[allow(unused_imports)] // for the bodies
use super::types::*;

/// Says what to wait for: prepares a call of poll(2).
///
/// The library needs room for exactly one entry, however many domains are watched. On entry `*nfds_io` is how many
/// entries there are at `fds`; on return it is 1. If there was room, `fds[0]` is filled in. `fds` may point into a
/// larger array. With `fds` NULL and `*nfds_io` 0 the call only asks how much room is needed.
///
/// `*timeout_upd`, in milliseconds with negative for infinite, is what the application will give to poll. A library may
/// shorten it; this one never needs to, since its timers make the descriptor readable. `now` is not used.
///
/// Any thread may wait on the descriptor at any time; what is enabled or disabled meanwhile takes effect at once.
///
/// Returns 0; ERROR_BUFFERFULL if there was no room; ERROR_INVAL for a NULL or unknown `ctx`, a NULL `nfds_io` or
/// `timeout_upd`, or a NULL `fds` with `*nfds_io` greater than 0.
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
    entry!("libxl_osevent_beforepoll", ERROR_FAIL, {
        let _ = (ctx, nfds_io, fds, timeout_upd, now);
        ERROR_NI
    })
}

/// Does what is to be done after poll(2): reads what has come in, looks at the domains, and produces events.
///
/// `fds[0 .. nfds]` is what libxl_osevent_beforepoll filled in and poll went over. It serves as a hint only: the library
/// finds out by itself what is ready, so that calling this twice, with `nfds` 0, or without the other is harmless. It
/// never blocks. Events go to the queue or to event_occurs, which then runs inside this call. `now` is not used.
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
    entry!("libxl_osevent_afterpoll", (), {
        let _ = (ctx, nfds, fds, now);
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
    /// occurs. Called once in a context's life for its one descriptor, when there is first something to wait for.
    /// `*for_app_registration_out` is NULL on entry.
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
    /// Stop watching `fd`.
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
/// The application sees one descriptor, registered when there is first something to wait for, and never a timeout. Both
/// ways may be mixed, and libxl_event_wait goes on working.
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
        let _ = (ctx, hooks, user);
    })
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
        let _ = (ctx, for_libxl, fd, events, revents);
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
        let _ = (ctx, for_libxl);
    })
}
