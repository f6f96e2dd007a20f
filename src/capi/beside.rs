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

use super::entry::entry;
use super::event::libxl_event_hooks;
use super::osevent::libxl_osevent_hooks;
use crate::abi::*;
use crate::companion::Libxenlight;
use crate::context::{self, Context, ForLibxl, Libxl, RegistrationId, TimeoutId};
use crate::error::{Error, Result};
use crate::event::Event;
use crate::xen::log::{Level, Line};

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
            context.log(&Line::failure(Level::Error, "a registration of libxenlight's", &error));
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
