// SPDX-License-Identifier: LGPL-2.1-or-later
//! The glue to a context of libxenlight's: the hooks that it is given, and the calls that go back to it.
//!
//! libxenlight gets our hooks for descriptors, timeouts and events as soon as its context exists, and knows nothing of
//! the application's. As `user` it carries the context's address, which is looked up like any that comes from C.
//!
//! It may call the hooks with its own lock held, so nothing here calls it back.

use std::ffi::{CStr, c_char, c_int, c_short, c_void};
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Duration;

use libc::timeval;
use nix::errno::Errno;

use super::childproc::*;
use super::entry::entry;
use super::event::libxl_event_hooks;
use super::osevent::libxl_osevent_hooks;
use crate::abi::*;
use crate::childproc::{Answer, Hooks, NoHooks, Owner, sigchld};
use crate::companion::Libxenlight;
use crate::context::{self, Context, ForLibxl, Libxl, RegistrationId, TimeoutId};
use crate::dynlib::object_of;
use crate::error::{Error, Result};
use crate::event::Event;
use crate::xen::log::{Kind, Level, Line};

/// A context of libxenlight's.
struct RealContext {
    functions: &'static Libxenlight,
    ctx: usize,
}

impl Libxl for RealContext {
    fn occurred_fd(&self, for_libxl: ForLibxl, fd: i32, events: i16, revents: i16) {
        let (ctx, for_libxl) = (self.ctx as *mut c_void, for_libxl.0 as *mut c_void);
        // SAFETY: the context lives until `libxl_ctx_free`, which ends ours first; `for_libxl` is libxenlight's own, and
        // it recognises a stale one.
        unsafe { (self.functions.libxl_osevent_occurred_fd)(ctx, for_libxl, fd, events, revents) };
    }

    fn occurred_timeout(&self, for_libxl: ForLibxl) {
        let (ctx, for_libxl) = (self.ctx as *mut c_void, for_libxl.0 as *mut c_void);
        // SAFETY: as above; each timeout comes here once.
        unsafe { (self.functions.libxl_osevent_occurred_timeout)(ctx, for_libxl) };
    }
}

/// The handle by which our core calls a context of libxenlight's.
pub(super) fn real_context(functions: &'static Libxenlight, ctx: *mut c_void) -> Arc<dyn Libxl> {
    Arc::new(RealContext { functions, ctx: ctx.addr() })
}

/// Puts our hooks into a context of libxenlight's that has nothing registered yet.
///
/// # Safety
/// `ctx` is such a context, fresh from libxenlight's `libxl_ctx_alloc`, and ours for it can be looked up.
pub(super) unsafe fn adopt(functions: &'static Libxenlight, ctx: *mut c_void) {
    // SAFETY: both tables are static, as libxenlight requires; the caller vouches for `ctx`.
    unsafe {
        (functions.libxl_osevent_register_hooks)(ctx, (&raw const OS_HOOKS).cast(), ctx);
        (functions.libxl_event_register_callbacks)(ctx, (&raw const EVENT_HOOKS).cast(), ctx);
        set_childproc(functions, ctx, Owner::Libxl);
    }
}

static OS_HOOKS: libxl_osevent_hooks = libxl_osevent_hooks {
    fd_register: Some(fd_register),
    fd_modify: Some(fd_modify),
    fd_deregister: Some(fd_deregister),
    timeout_register: Some(timeout_register),
    timeout_modify: Some(timeout_modify),
    timeout_deregister: Some(timeout_deregister),
};

static EVENT_HOOKS: libxl_event_hooks =
    libxl_event_hooks { event_occurs_mask: u64::MAX, event_occurs: Some(event_occurs), disaster: Some(disaster) };

/// What libxenlight is given for each owner of SIGCHLD. The application's functions are called by ours, so these serve
/// all contexts and live long enough for any.
static CHILDPROC_HOOKS: [libxl_childproc_hooks; 4] = [
    libxl_childproc_hooks {
        chldowner: libxl_sigchld_owner_libxl,
        fork_replacement: Some(fork_replacement),
        reaped_callback: Some(reaped_callback),
    },
    libxl_childproc_hooks {
        chldowner: libxl_sigchld_owner_mainloop,
        fork_replacement: Some(fork_replacement),
        reaped_callback: None,
    },
    libxl_childproc_hooks {
        chldowner: libxl_sigchld_owner_libxl_always,
        fork_replacement: Some(fork_replacement),
        reaped_callback: Some(reaped_callback),
    },
    libxl_childproc_hooks {
        chldowner: libxl_sigchld_owner_libxl_always_selective_reap,
        fork_replacement: Some(fork_replacement),
        reaped_callback: Some(reaped_callback),
    },
];

/// Has libxenlight deal with children as our context does.
///
/// # Safety
/// `ctx` is a live context of libxenlight's, and if we have one for it, nothing is known against the new owner.
pub(super) unsafe fn set_childproc(functions: &'static Libxenlight, ctx: *mut c_void, owner: Owner) {
    let hooks = match owner {
        Owner::Libxl => &CHILDPROC_HOOKS[0],
        Owner::Mainloop => &CHILDPROC_HOOKS[1],
        Owner::Always => &CHILDPROC_HOOKS[2],
        Owner::Selective => &CHILDPROC_HOOKS[3],
    };
    // SAFETY: the table is static, as libxenlight requires; the caller vouches for `ctx`.
    unsafe { (functions.libxl_childproc_setmode)(ctx, (&raw const *hooks).cast(), ctx) };
}

/// Whether libxenlight would end the process if SIGCHLD became its own: it insists that nobody has a handler but itself.
pub(super) fn would_abort(functions: &'static Libxenlight, owner: Owner) -> bool {
    let handler = sigchld::handler_present().filter(|_| matches!(owner, Owner::Always | Owner::Selective));
    handler.is_some_and(|handler| object_of(handler) != object_of(functions.libxl_childproc_setmode as usize))
}

/// Our context for one of libxenlight's. There is none in a forked child that has forgotten its parent's.
fn ours(user: *mut c_void) -> Option<Arc<Context>> {
    context::lookup(user.addr())
}

/// Runs a registration; its number for libxenlight, which passes it on to the application.
fn registered(user: *mut c_void, register: impl FnOnce(&Context) -> Result<()>) -> c_int {
    let Some(context) = ours(user) else { return ERROR_OSEVENT_REG_FAIL };
    match register(&context) {
        Ok(()) => 0,
        // What the application's own hook said, if it is something that libxl lets a hook say.
        Err(Error::Hook(rc)) if rc > 0 => rc,
        Err(Error::Hook(_)) => ERROR_OSEVENT_REG_FAIL,
        Err(error) => {
            let what = "a registration of libxenlight's";
            context.log(&Line::failure(Level::Error, what, &error).of(Kind::Named(what)));
            ERROR_OSEVENT_REG_FAIL
        }
    }
}

unsafe extern "C" fn fd_register(
    user: *mut c_void,
    fd: c_int,
    registration_out: *mut *mut c_void,
    events: c_short,
    for_libxl: *mut c_void,
) -> c_int {
    entry!("libxenlight's fd_register", ERROR_OSEVENT_REG_FAIL, {
        registered(user, |context| {
            let id = context.libxl_fd_register(fd, events, ForLibxl(for_libxl.addr()))?;
            // SAFETY: libxenlight passes a place to write to.
            unsafe { *registration_out = id.0 as *mut c_void };
            Ok(())
        })
    })
}

unsafe extern "C" fn fd_modify(user: *mut c_void, fd: c_int, registration: *mut *mut c_void, events: c_short) -> c_int {
    entry!("libxenlight's fd_modify", ERROR_OSEVENT_REG_FAIL, {
        // SAFETY: libxenlight passes the place where it keeps what `fd_register` stored.
        let id = RegistrationId(unsafe { *registration }.addr() as u64);
        registered(user, |context| context.libxl_fd_modify(fd, id, events))
    })
}

unsafe extern "C" fn fd_deregister(user: *mut c_void, fd: c_int, registration: *mut c_void) {
    entry!("libxenlight's fd_deregister", (), {
        if let Some(context) = ours(user) {
            context.libxl_fd_deregister(fd, RegistrationId(registration.addr() as u64));
        }
    })
}

unsafe extern "C" fn timeout_register(
    user: *mut c_void,
    registration_out: *mut *mut c_void,
    abs: timeval,
    for_libxl: *mut c_void,
) -> c_int {
    entry!("libxenlight's timeout_register", ERROR_OSEVENT_REG_FAIL, {
        let seconds = Duration::from_secs(abs.tv_sec.max(0).unsigned_abs());
        let at = seconds + Duration::from_micros(abs.tv_usec.max(0).unsigned_abs());
        registered(user, |context| {
            let id = context.libxl_timeout_register(at, ForLibxl(for_libxl.addr()))?;
            // SAFETY: libxenlight passes a place to write to.
            unsafe { *registration_out = id.0 as *mut c_void };
            Ok(())
        })
    })
}

unsafe extern "C" fn timeout_modify(user: *mut c_void, registration: *mut *mut c_void, _abs: timeval) -> c_int {
    entry!("libxenlight's timeout_modify", ERROR_OSEVENT_REG_FAIL, {
        // SAFETY: libxenlight passes the place where it keeps what `timeout_register` stored.
        let id = TimeoutId(unsafe { *registration }.addr() as u64);
        registered(user, |context| {
            context.libxl_timeout_hasten(id);
            Ok(())
        })
    })
}

unsafe extern "C" fn timeout_deregister(_user: *mut c_void, _registration: *mut c_void) {
    // libxl promises never to call it.
}

unsafe extern "C" fn event_occurs(user: *mut c_void, event: *mut libxl_event) {
    entry!("libxenlight's event_occurs", (), {
        let Some(event) = NonNull::new(event) else { return };
        // SAFETY: libxenlight gives the event away.
        let event = unsafe { Event::from_raw(event) };
        if let Some(context) = ours(user) {
            context.libxl_event(event);
        }
    })
}

unsafe extern "C" fn disaster(user: *mut c_void, event_type: libxl_event_type, message: *const c_char, errno: c_int) {
    entry!("libxenlight's disaster", (), {
        let message = if message.is_null() {
            std::borrow::Cow::Borrowed("libxenlight doesn't say")
        } else {
            // SAFETY: a C string, not null.
            unsafe { CStr::from_ptr(message) }.to_string_lossy()
        };
        if let Some(context) = ours(user) {
            context.disaster(event_type, &message, errno);
        }
    })
}

unsafe extern "C" fn fork_replacement(user: *mut c_void) -> libc::pid_t {
    let mut errno = Errno::UnknownErrno;
    let pid = entry!("libxenlight's fork", -1, {
        let pid = match ours(user) {
            Some(context) => context.libxl_fork(),
            None => NoHooks.fork(),
        };
        errno = Errno::last();
        pid
    });
    // As fork leaves it, whatever we have done since.
    errno.set();
    pid
}

unsafe extern "C" fn reaped_callback(pid: libc::pid_t, status: c_int, user: *mut c_void) -> c_int {
    entry!("libxenlight's reaped_callback", ERROR_FAIL, {
        let answer = match ours(user) {
            Some(context) => context.libxl_reaped(pid, status),
            None => Answer::Unknown,
        };
        match answer {
            Answer::Noted => 0,
            Answer::Unknown => ERROR_UNKNOWN_CHILD,
            Answer::Failed(rc) => rc,
        }
    })
}
