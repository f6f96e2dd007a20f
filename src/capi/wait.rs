// SPDX-License-Identifier: LGPL-2.1-or-later
//! Waiting with a time-out, calling a wait off, and subscribers.
//!
//! A subscriber's handle is an opaque number made to look like a pointer; it is looked up in its context and never
//! dereferenced.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::time::Duration;

use super::ctx::libxl_ctx;
use super::entry::entry;
use super::event::{libxl_event_predicate, retrieve_with};
use super::evgen::{enable, enable_drive, libxl_evgen_disk_eject, libxl_evgen_domain_death};
use super::handle::{context, failed, invalid};
use super::state::{libxl_evgen_domain_state, subject};
use crate::abi::*;
use crate::context::{Context, Predicate, SubscriberKey};

/// A time-out as poll(2) has it.
fn timeout(timeout_ms: c_int) -> Option<Duration> {
    u64::try_from(timeout_ms).ok().map(Duration::from_millis)
}

/// Like libxl_event_wait, but for a limited time.
///
/// `timeout_ms` is in milliseconds, as for poll(2): negative waits for ever, and 0 not at all. The time is that of
/// CLOCK_MONOTONIC; signals neither end nor prolong it. An event that is there when it has passed is returned: what is
/// ready by then is taken in first, as libxl_osevent_afterpoll would. So a call with 0 does the library's work once and
/// looks. A callback, or a predicate, that takes long makes the call longer.
///
/// Returns 0 and the event in `*event_r`; ERROR_TIMEDOUT if none came in time; ERROR_ABORTED if xlevent_wait_cancel has
/// ended the wait; otherwise as libxl_event_wait. On an error `*event_r` is as it was.
///
/// # Safety
///
/// As for libxl_event_check.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xlevent_event_wait(
    ctx: *mut libxl_ctx,
    event_r: *mut *mut libxl_event,
    typemask: u64,
    predicate: libxl_event_predicate,
    predicate_user: *mut c_void,
    timeout_ms: c_int,
) -> c_int {
    entry!("xlevent_event_wait", ERROR_FAIL, {
        let wait = |context: &Context, predicate: Option<&mut Predicate<'_>>| match timeout(timeout_ms) {
            Some(timeout) => context.wait_for(typemask, predicate, timeout),
            None => context.wait(typemask, predicate),
        };
        // SAFETY: the caller's promises are the same.
        unsafe { retrieve_with("xlevent_event_wait", ctx, event_r, predicate, predicate_user, wait) }
    })
}

/// Ends one wait: a call of libxl_event_wait or xlevent_event_wait on this context returns ERROR_ABORTED.
///
/// Each call of this function ends exactly one. If no thread waits at the moment, it is the next that finds no event and
/// would wait (one with `timeout_ms` 0 would not): so a thread that is just about to wait, or is busy with an event, need
/// not be known of. To end a pool of N threads, call this N times, join them, and free the context.
///
/// No event is lost: a wait that finds one returns it, and leaves the cancellation to another. Which one is ended, of
/// several, is not said. What was not used up by the time the context is freed goes with it.
///
/// May be called from any thread and any callback; not from a signal handler, since it takes a lock: let a thread take the
/// signal with sigwait(3) or signalfd(2).
///
/// Returns 0, or ERROR_INVAL for a NULL or unknown `ctx`.
///
/// # Safety
///
/// No requirement: the context is looked up, not followed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xlevent_wait_cancel(ctx: *mut libxl_ctx) -> c_int {
    entry!("xlevent_wait_cancel", ERROR_FAIL, {
        match context("xlevent_wait_cancel", ctx) {
            Ok(context) => {
                context.cancel_wait();
                0
            }
            Err(rc) => rc,
        }
    })
}

/// One of several users of a context, with events of its own.
///
/// Events of generators that were enabled for a subscriber come to that subscriber alone: by xlevent_subscriber_check and
/// xlevent_subscriber_wait, not by libxl_event_check and libxl_event_wait, and not by event_occurs, whatever its mask:
/// those are for who uses the context itself, and would not know whose `for_user` it is. Everything else is the context's:
/// its disaster callback, its descriptor, its children, the completion of operations.
///
/// The handle is not an address: compare it, pass it on, nothing else. It belongs to its context, and ends with it.
pub struct xlevent_subscriber {
    _opaque: (),
}

/// The name by which the core knows a subscriber.
fn key(subscriber: *mut xlevent_subscriber) -> SubscriberKey {
    SubscriberKey::from(subscriber.addr() as u64)
}

/// Adds a subscriber to a context, without any generators.
///
/// It costs no descriptor and no thread. There may be 65535 at the same time.
///
/// Returns 0 and a handle in `*subscriber_r`; ERROR_INVAL for a NULL or unknown `ctx` or a NULL `subscriber_r`; ERROR_FAIL
/// if there are too many. On an error `*subscriber_r` is as it was.
///
/// # Safety
///
/// `subscriber_r` is NULL or points to a writable pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xlevent_subscriber_new(
    ctx: *mut libxl_ctx,
    subscriber_r: *mut *mut xlevent_subscriber,
) -> c_int {
    entry!("xlevent_subscriber_new", ERROR_FAIL, {
        let name = "xlevent_subscriber_new";
        let context = match context(name, ctx) {
            Ok(context) => context,
            Err(rc) => return rc,
        };
        if subscriber_r.is_null() {
            return invalid(&context, name, "the place for the handle is NULL");
        }
        match context.add_subscriber() {
            Ok(key) => {
                // SAFETY: not null, so writable.
                unsafe { *subscriber_r = u64::from(key) as *mut xlevent_subscriber };
                0
            }
            Err(error) => failed(&context, name, &error),
        }
    })
}

/// Removes a subscriber, with all that is its own: its generators are disabled and their handles become invalid, its events
/// that nobody has fetched are freed, and its handle becomes invalid.
///
/// Threads that are in xlevent_subscriber_wait for it return ERROR_INVAL; end them with xlevent_subscriber_wait_cancel
/// first. Events that have been fetched stay the application's. May wait for xenstored's answers, for a thread that is
/// enabling a generator, and for one whose predicate is running. May be called from any thread and from event callbacks,
/// but not from a predicate, nor from an fd_register or fd_deregister hook.
///
/// A NULL `subscriber` does nothing. Returns 0; ERROR_INVAL for a NULL or unknown `ctx`, an unknown `subscriber`, or where it
/// may not be called: then nothing has changed.
///
/// # Safety
///
/// No requirement: the handle is looked up, not followed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xlevent_subscriber_free(ctx: *mut libxl_ctx, subscriber: *mut xlevent_subscriber) -> c_int {
    entry!("xlevent_subscriber_free", ERROR_FAIL, {
        let name = "xlevent_subscriber_free";
        if subscriber.is_null() {
            return 0;
        }
        let context = match context(name, ctx) {
            Ok(context) => context,
            Err(rc) => return rc,
        };
        context.remove_subscriber(key(subscriber)).map_or_else(|error| failed(&context, name, &error), |()| 0)
    })
}

/// As libxl_evenable_domain_death, for a subscriber: from the first on, all events of this generator come to it alone.
///
/// The handle is like any other, and given to libxl_evdisable_domain_death. Returns what libxl_evenable_domain_death does;
/// ERROR_INVAL also for a NULL or unknown `subscriber`.
///
/// # Safety
///
/// `evgen_out` is NULL or points to a writable pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xlevent_subscriber_evenable_domain_death(
    ctx: *mut libxl_ctx,
    subscriber: *mut xlevent_subscriber,
    domid: u32,
    user: libxl_ev_user,
    evgen_out: *mut *mut libxl_evgen_domain_death,
) -> c_int {
    entry!("xlevent_subscriber_evenable_domain_death", ERROR_FAIL, {
        let name = "xlevent_subscriber_evenable_domain_death";
        let work = |context: &Context| context.enable_domain_death_for(Some(key(subscriber)), domid, user);
        // SAFETY: the caller's promise is the same.
        unsafe { enable(name, ctx, evgen_out, format_args!("domain {domid}"), work) }
    })
}

/// As libxl_evenable_domain_state, for a subscriber: from the first on, all events of this generator come to it alone.
///
/// The handle is like any other, and given to libxl_evdisable_domain_state. Returns what libxl_evenable_domain_state does;
/// ERROR_INVAL also for a NULL or unknown `subscriber`.
///
/// # Safety
///
/// `evgen_out` is NULL or points to a writable pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xlevent_subscriber_evenable_domain_state(
    ctx: *mut libxl_ctx,
    subscriber: *mut xlevent_subscriber,
    domid: u32,
    states: u64,
    user: libxl_ev_user,
    evgen_out: *mut *mut libxl_evgen_domain_state,
) -> c_int {
    entry!("xlevent_subscriber_evenable_domain_state", ERROR_FAIL, {
        let name = "xlevent_subscriber_evenable_domain_state";
        let (subject, whose) = subject(domid);
        let work = |context: &Context| context.enable_domain_state_for(Some(key(subscriber)), subject, states, user);
        // SAFETY: the caller's promise is the same.
        unsafe { enable(name, ctx, evgen_out, whose, work) }
    })
}

/// As libxl_evenable_disk_eject, for a subscriber: from the first on, all events of this generator come to it alone.
///
/// The handle is like any other, and given to libxl_evdisable_disk_eject. Returns what libxl_evenable_disk_eject does;
/// ERROR_INVAL also for a NULL or unknown `subscriber`.
///
/// # Safety
///
/// `vdev` is NULL or a string that ends with a zero byte; `evgen_out` is NULL or points to a writable pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xlevent_subscriber_evenable_disk_eject(
    ctx: *mut libxl_ctx,
    subscriber: *mut xlevent_subscriber,
    domid: u32,
    vdev: *const c_char,
    user: libxl_ev_user,
    evgen_out: *mut *mut libxl_evgen_disk_eject,
) -> c_int {
    entry!("xlevent_subscriber_evenable_disk_eject", ERROR_FAIL, {
        let name = "xlevent_subscriber_evenable_disk_eject";
        let work =
            |context: &Context, vdev: &CStr| context.enable_disk_eject_for(Some(key(subscriber)), domid, vdev, user);
        // SAFETY: the caller's promises are the same.
        unsafe { enable_drive(name, ctx, domid, vdev, evgen_out, work) }
    })
}

/// Like libxl_event_check, among the events of a subscriber.
///
/// Predicates of one context run one at a time, whomever they are for.
///
/// Returns what libxl_event_check does; ERROR_INVAL also for a NULL or unknown `subscriber`.
///
/// # Safety
///
/// As for libxl_event_check.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xlevent_subscriber_check(
    ctx: *mut libxl_ctx,
    subscriber: *mut xlevent_subscriber,
    event_r: *mut *mut libxl_event,
    typemask: u64,
    predicate: libxl_event_predicate,
    predicate_user: *mut c_void,
) -> c_int {
    entry!("xlevent_subscriber_check", ERROR_FAIL, {
        let check = |context: &Context, predicate: Option<&mut Predicate<'_>>| {
            context.subscriber_check(key(subscriber), typemask, predicate)
        };
        // SAFETY: the caller's promises are the same.
        unsafe { retrieve_with("xlevent_subscriber_check", ctx, event_r, predicate, predicate_user, check) }
    })
}

/// Like xlevent_event_wait, among the events of a subscriber.
///
/// While it waits it does the library's work for the whole context. Returns what xlevent_event_wait does; ERROR_ABORTED if
/// xlevent_subscriber_wait_cancel has ended the wait; ERROR_INVAL also for a NULL or unknown `subscriber`, and if it is freed
/// meanwhile.
///
/// # Safety
///
/// As for libxl_event_check.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xlevent_subscriber_wait(
    ctx: *mut libxl_ctx,
    subscriber: *mut xlevent_subscriber,
    event_r: *mut *mut libxl_event,
    typemask: u64,
    predicate: libxl_event_predicate,
    predicate_user: *mut c_void,
    timeout_ms: c_int,
) -> c_int {
    entry!("xlevent_subscriber_wait", ERROR_FAIL, {
        let wait = |context: &Context, predicate: Option<&mut Predicate<'_>>| {
            context.subscriber_wait(key(subscriber), typemask, predicate, timeout(timeout_ms))
        };
        // SAFETY: the caller's promises are the same.
        unsafe { retrieve_with("xlevent_subscriber_wait", ctx, event_r, predicate, predicate_user, wait) }
    })
}

/// As xlevent_wait_cancel, for a call of xlevent_subscriber_wait for this subscriber. Other waits go on.
///
/// Returns 0, or ERROR_INVAL for a NULL or unknown `ctx` or `subscriber`.
///
/// # Safety
///
/// No requirement: the handle is looked up, not followed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xlevent_subscriber_wait_cancel(
    ctx: *mut libxl_ctx,
    subscriber: *mut xlevent_subscriber,
) -> c_int {
    entry!("xlevent_subscriber_wait_cancel", ERROR_FAIL, {
        let name = "xlevent_subscriber_wait_cancel";
        let context = match context(name, ctx) {
            Ok(context) => context,
            Err(rc) => return rc,
        };
        context.subscriber_cancel_wait(key(subscriber)).map_or_else(|error| failed(&context, name, &error), |()| 0)
    })
}
