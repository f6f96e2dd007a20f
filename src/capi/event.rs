// SPDX-License-Identifier: LGPL-2.1-or-later
//! Receiving events: by asking (check, wait) or by callback.

use std::ffi::{c_char, c_int, c_ulong, c_void};

use std::ffi::CString;
use std::ptr::NonNull;
use std::sync::Arc;

use super::ctx::libxl_ctx;
use super::entry::{brief_entry, entry, uncancelled};
use super::handle::{context, failed, invalid};
use crate::abi::*;
use crate::context::{Context, EventHooks, Predicate};
use crate::error::Result;
use crate::event::Event;

/// The mask of all event types, for a `typemask` or an `event_occurs_mask`.
///
/// cbindgen:ignore
pub const LIBXL_EVENTMASK_ALL: c_ulong = !0;

/// A caller's choice among events. The header declares the function's type by hand (in the frame), as C users know it:
/// without the pointer, which cbindgen can't express.
///
/// cbindgen:ignore
pub type libxl_event_predicate = Option<unsafe extern "C" fn(event: *const libxl_event, user: *mut c_void) -> c_int>;

/// `libxl_event`, const where the caller asks for the interface of Xen 4.2; the header's frame defines the macro.
///
/// cbindgen:ignore
pub type libxl_event_maybe_const = libxl_event;

/// Looks for an event that has already happened, without waiting.
///
/// Finds the oldest queued event whose type is in `typemask` (bit `1 << type`) and which `predicate` accepts, takes it
/// out of the queue and stores it in `*event_r`. The event is then the caller's, to be freed with libxl_event_free.
/// `predicate` is called with events that pass the mask, oldest first, until it returns non-zero; NULL accepts all. It
/// may call functions of this library; it must not free or keep the event that it is shown.
///
/// This looks only at what has been found out before. What is going on outside is looked at in libxl_osevent_afterpoll,
/// libxl_osevent_occurred_fd and libxl_event_wait.
///
/// Returns 0; ERROR_NOT_READY if no event matches, with `*event_r` left as it was; ERROR_INVAL for a NULL or unknown
/// `ctx` or a NULL `event_r`.
///
/// # Safety
///
/// `event_r` is NULL or points to a writable pointer. `predicate` returns normally: no longjmp, no C++ exception.
///
/// cbindgen:postfix=LIBXL_EXTERNAL_CALLERS_ONLY
#[unsafe(no_mangle)]
pub unsafe extern "C" fn libxl_event_check(
    ctx: *mut libxl_ctx,
    event_r: *mut *mut libxl_event,
    typemask: u64,
    predicate: libxl_event_predicate,
    predicate_user: *mut c_void,
) -> c_int {
    brief_entry!("libxl_event_check", ERROR_FAIL, {
        let retrieve = |context: &Context, predicate: Option<&mut Predicate<'_>>| {
            let known = if predicate.is_none() { context.check_known(typemask) } else { None };
            known.unwrap_or_else(|| uncancelled(|| context.check(typemask, predicate)))
        };
        // SAFETY: the caller's promises are the same.
        unsafe { retrieve_with("libxl_event_check", ctx, event_r, predicate, predicate_user, retrieve) }
    })
}

/// What check and wait have in common: the arguments before, the event after.
///
/// # Safety
/// As for [`libxl_event_check`].
pub(super) unsafe fn retrieve_with(
    name: &str,
    ctx: *mut libxl_ctx,
    event_r: *mut *mut libxl_event,
    predicate: libxl_event_predicate,
    predicate_user: *mut c_void,
    retrieve: impl FnOnce(&Context, Option<&mut Predicate<'_>>) -> Result<Event>,
) -> c_int {
    let context = match context(name, ctx) {
        Ok(context) => context,
        Err(rc) => return rc,
    };
    if event_r.is_null() {
        return invalid(&context, name, "the place for the event is NULL");
    }
    let result = match predicate {
        None => retrieve(&context, None),
        Some(predicate) => {
            // SAFETY: the caller's function, given an event that stays as it is for the time of the call.
            let mut wanted = |event: &Event| unsafe { predicate(event.as_ptr(), predicate_user) } != 0;
            retrieve(&context, Some(&mut wanted))
        }
    };
    match result {
        Ok(event) => {
            // SAFETY: not null, so writable.
            unsafe { *event_r = event.into_raw().as_ptr() };
            0
        }
        Err(error) => failed(&context, name, &error),
    }
}

/// Waits until there is an event that matches, and fetches it as libxl_event_check does.
///
/// While it waits it does the library's work, also where hooks are registered for that. Any number of threads may wait
/// on one context; each event that is queued wakes them all, and goes to one that wants it. Event callbacks may run
/// inside this call. Signals do not end it.
///
/// Returns 0 and the event in `*event_r`, or ERROR_INVAL as libxl_event_check does, or ERROR_FAIL when it cannot wait
/// (the log says why); ERROR_ABORTED if the program has asked for that by xlevent_wait_cancel.
///
/// # Safety
///
/// As for libxl_event_check.
///
/// cbindgen:postfix=LIBXL_EXTERNAL_CALLERS_ONLY
#[unsafe(no_mangle)]
pub unsafe extern "C" fn libxl_event_wait(
    ctx: *mut libxl_ctx,
    event_r: *mut *mut libxl_event,
    typemask: u64,
    predicate: libxl_event_predicate,
    predicate_user: *mut c_void,
) -> c_int {
    entry!("libxl_event_wait", ERROR_FAIL, {
        let retrieve = |context: &Context, predicate: Option<&mut Predicate<'_>>| context.wait(typemask, predicate);
        // SAFETY: the caller's promises are the same.
        unsafe { retrieve_with("libxl_event_wait", ctx, event_r, predicate, predicate_user, retrieve) }
    })
}

/// Frees an event that was fetched or was handed to a callback, with all that belongs to it.
///
/// `ctx` may be any context, a freed one, or NULL: the event alone counts. A NULL `event` does nothing. May be called
/// from any thread and any callback, event_occurs included.
///
/// # Safety
///
/// `event` is NULL or an event that this library, or libxenlight, has given to the application and that has not been
/// freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn libxl_event_free(ctx: *mut libxl_ctx, event: *mut libxl_event) {
    // Nothing of an event's is closed or written, which is where a thread could be cancelled.
    brief_entry!("libxl_event_free", (), {
        let _ = ctx;
        // SAFETY: the caller gives the event away.
        drop(NonNull::new(event).map(|event| unsafe { Event::from_raw(event) }));
    })
}

/// The application's callbacks, for libxl_event_register_callbacks.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct libxl_event_hooks {
    /// The types of event to hand to event_occurs: the sum of `1 << type`.
    pub event_occurs_mask: u64,
    /// Receives an event, which then is the application's: it must free it with libxl_event_free, here or later. May be
    /// NULL if the mask is 0. It may call any function of this library except libxl_ctx_free on the same context.
    pub event_occurs: Option<unsafe extern "C" fn(user: *mut c_void, event: *mut libxl_event_maybe_const)>,
    /// Told when events may have been lost for good: `type` is the type that may be missing, 0 if any may, `msg` and
    /// `errnoval` say what failed. Let it take a note, and the program exit or open a new context later. It may call this
    /// library, but for libxl_ctx_free, unless libxenlight is in the process: that may hold a lock of its own meanwhile. May be
    /// NULL.
    pub disaster:
        Option<unsafe extern "C" fn(user: *mut c_void, r#type: libxl_event_type, msg: *const c_char, errnoval: c_int)>,
}

/// Has events handed to a callback instead of queued, and names whom to tell of a disaster.
///
/// From now on, events whose type is in `hooks->event_occurs_mask` go to `hooks->event_occurs`, on the thread whose
/// call found them and before that call returns. All others, and those already queued, go the way of
/// libxl_event_check. The callbacks run with no lock of the library's held.
///
/// A disaster is something that cannot be put right even after trying again for a while: xenstored is gone and does not
/// come back, the hypervisor refuses to answer; or there was no memory for an event. It is logged as critical first. The
/// callback may return, and the library goes on then; what it may call, libxl_event_hooks says. Without a
/// `disaster` callback the message also goes to stderr and the process ends with `exit(-1)`, unless it is xenstored that is
/// away: what happens meanwhile is told when it is back; or unless the program has closed the library's descriptors
/// (libxl_ctx_alloc).
///
/// May be called again; the last call counts. A NULL `hooks` puts everything back: all events are queued and there is no
/// disaster callback. Keep `*hooks` valid as long as the context. Call this before the first generator is enabled, and
/// not from a callback or while another thread uses the context, so that it is clear which event goes where.
///
/// A NULL or unknown `ctx`, or a NULL event_occurs with a mask that is not 0, is logged and changes nothing.
///
/// # Safety
///
/// `hooks` is NULL or points to valid callbacks that stay valid as long as the context. They return normally: no
/// longjmp, no C++ exception.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn libxl_event_register_callbacks(
    ctx: *mut libxl_ctx,
    hooks: *const libxl_event_hooks,
    user: *mut c_void,
) {
    entry!("libxl_event_register_callbacks", (), {
        let Ok(context) = context("libxl_event_register_callbacks", ctx) else { return };
        // SAFETY: NULL, or the caller's table.
        let Some(hooks) = (unsafe { hooks.as_ref() }) else { return context.set_event_hooks(None) };
        if hooks.event_occurs.is_none() && hooks.event_occurs_mask != 0 {
            invalid(&context, "libxl_event_register_callbacks", "there is a mask, but event_occurs is NULL");
            return;
        }
        context.set_event_hooks(Some(Arc::new(Callbacks { hooks: *hooks, user })));
    })
}

/// An application's callbacks.
struct Callbacks {
    hooks: libxl_event_hooks,
    user: *mut c_void,
}

// SAFETY: the header says that callbacks run on any thread that calls the library; `user` is only handed back.
unsafe impl Send for Callbacks {}
// SAFETY: as above.
unsafe impl Sync for Callbacks {}

impl EventHooks for Callbacks {
    fn mask(&self) -> u64 {
        self.hooks.event_occurs_mask
    }

    fn event_occurs(&self, event: Event) {
        if let Some(event_occurs) = self.hooks.event_occurs {
            // SAFETY: the application's function; the event becomes its own.
            unsafe { event_occurs(self.user, event.into_raw().as_ptr()) };
        }
    }

    fn disaster(&self, event_type: u32, message: &str, errno: i32) -> bool {
        let Some(disaster) = self.hooks.disaster else { return false };
        let message = CString::new(message.replace('\0', " ")).unwrap_or_default();
        // SAFETY: the application's function; the string lives through the call.
        unsafe { disaster(self.user, event_type, message.as_ptr(), errno) };
        true
    }
}
