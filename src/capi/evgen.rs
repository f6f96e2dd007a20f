// SPDX-License-Identifier: LGPL-2.1-or-later
//! Event generators: asking for events.
//!
//! A handle is an opaque number made to look like a pointer; it is looked up in its context and never dereferenced.

use std::ffi::{CStr, c_char, c_int};
use std::fmt::Display;

use super::ctx::libxl_ctx;
use super::entry::entry;
use super::handle::{context, failed, invalid};
use crate::abi::*;
use crate::context::Context;
use crate::error::Result;
use crate::evgen::{disk_eject, monitor};

/// What all functions that enable a generator have in common: the arguments before, the handle after. `whose` is for the log.
///
/// # Safety
/// `evgen_out` is NULL or points to a writable pointer.
pub(super) unsafe fn enable<Handle, Key: Into<u64>>(
    name: &str,
    ctx: *mut libxl_ctx,
    evgen_out: *mut *mut Handle,
    whose: impl Display,
    work: impl FnOnce(&Context) -> Result<Key>,
) -> c_int {
    let context = match context(name, ctx) {
        Ok(context) => context,
        Err(rc) => return rc,
    };
    if evgen_out.is_null() {
        return invalid(&context, name, "the place for the handle is NULL");
    }
    match work(&context) {
        Ok(key) => {
            // SAFETY: not null, so writable.
            unsafe { *evgen_out = key.into() as *mut Handle };
            0
        }
        Err(error) => failed(&context, &format!("{name}: {whose}"), &error),
    }
}

/// The same of a drive, with its name.
///
/// # Safety
/// As for [`enable`]; and `vdev` is NULL or a string that ends with a zero byte.
pub(super) unsafe fn enable_drive<Handle, Key: Into<u64>>(
    name: &str,
    ctx: *mut libxl_ctx,
    domid: u32,
    vdev: *const c_char,
    evgen_out: *mut *mut Handle,
    work: impl FnOnce(&Context, &CStr) -> Result<Key>,
) -> c_int {
    if vdev.is_null() {
        return match context(name, ctx) {
            Ok(context) => invalid(&context, name, "the disk's name is NULL"),
            Err(rc) => rc,
        };
    }
    // SAFETY: not null, so a string.
    let vdev = unsafe { CStr::from_ptr(vdev) };
    let work = |context: &Context| work(context, vdev);
    // SAFETY: the caller's promise is the same.
    unsafe { enable(name, ctx, evgen_out, format_args!("domain {domid}, disk {vdev:?}"), work) }
}

/// What `libxl_evgen_domain_death` names. Applications see the pointer alone.
pub struct libxl__evgen_domain_death {
    _opaque: (),
}

/// The handle of a generator of shutdown and death events. It is not an address: compare it, pass it on, nothing else.
pub type libxl_evgen_domain_death = libxl__evgen_domain_death;

/// Asks for the shutdown and the death of a domain.
///
/// Produces LIBXL_EVENT_TYPE_DOMAIN_SHUTDOWN, with the reason, when the domain stops running, and
/// LIBXL_EVENT_TYPE_DOMAIN_DEATH when it is being destroyed or is gone. The DEATH comes once, and nothing after it. A SHUTDOWN
/// comes for each time that the domain shuts down: once, unless it runs again (resumed, or after a soft reset). A domain that is destroyed while it runs, or whose shutdown and destruction are seen together, gives only the
/// DEATH. The present state counts: a domain that is already shut down, dead or missing gives its event at once. Both
/// events carry `domid`, `user`, and the UUID that the domain has then, where it could be learnt. A domain may be given another
/// UUID while it lives; that is no event.
///
/// What can be seen, and what can't. The library looks at domains when xenstored says that something has happened, and at
/// those that xenstored doesn't know (they were never introduced, or it has crashed since) each second at the latest.
///
/// - A second shutdown is reported also if nobody looked while the domain ran, by its other reason or by the processor time that
///   it has used since. Of several shutdowns between two looks the last is reported. A domain that was shut down again without
///   having run at all can't be told from one that still is.
/// - A domain that is gone, and whose number another domain has before anyone looks, gives no DEATH: the generator follows the
///   new one, as libxl's does, and reports its shutdown and its death.
///
/// A shutdown with reason 2, suspend, is not reported: the domain will run again or die, and then its later shutdown or
/// death is reported. With `XLEVENT_REPORT_SUSPEND=1` in the environment it is reported, and is then the only SHUTDOWN.
///
/// Several generators may watch one domain; each gives its own events. When several have something to report at the
/// same time, domains come in ascending order, and within a domain the generator enabled last comes first.
///
/// Returns 0 and a handle in `*evgen_out`; ERROR_INVAL for a NULL or unknown `ctx` or a NULL `evgen_out`; the value that
/// the application's fd_register hook returned if that refused; ERROR_FAIL if Xen cannot be asked (the log says why). On
/// an error nothing is left behind, `*evgen_out` is as it was, and a later try may succeed.
///
/// # Safety
///
/// `evgen_out` is NULL or points to a writable pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn libxl_evenable_domain_death(
    ctx: *mut libxl_ctx,
    domid: u32,
    user: libxl_ev_user,
    evgen_out: *mut *mut libxl_evgen_domain_death,
) -> c_int {
    entry!("libxl_evenable_domain_death", ERROR_FAIL, {
        let name = "libxl_evenable_domain_death";
        // SAFETY: the caller's promise is the same.
        unsafe {
            enable(name, ctx, evgen_out, format_args!("domain {domid}"), |context| {
                context.enable_domain_death(domid, user)
            })
        }
    })
}

/// Stops a generator of shutdown and death events, and makes its handle invalid.
///
/// When this returns it produces nothing more. What it has produced before is still delivered: events that are queued are
/// given out by libxl_event_check and libxl_event_wait like all others, whenever they are called. Events for a callback have
/// been given to it when this returns, but for those that other threads, in calls with the same context, have in hand: such a
/// callback may still be running, or just begin. With no other thread in a call with the context, none comes after this.
///
/// A NULL `evgen` does nothing; one that this context does not know, or no longer knows, is logged and ignored. May be called
/// from any thread and from event callbacks.
///
/// # Safety
///
/// No requirement beyond those of all functions: the handle is looked up, not followed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn libxl_evdisable_domain_death(ctx: *mut libxl_ctx, evgen: *mut libxl_evgen_domain_death) {
    entry!("libxl_evdisable_domain_death", (), {
        let name = "libxl_evdisable_domain_death";
        if evgen.is_null() {
            return;
        }
        let Ok(context) = context(name, ctx) else { return };
        if let Err(error) = context.disable_domain_death(monitor::Key::from(evgen.addr() as u64)) {
            failed(&context, name, &error);
        }
    })
}

/// What `libxl_evgen_disk_eject` names. Applications see the pointer alone.
pub struct libxl__evgen_disk_eject {
    _opaque: (),
}

/// The handle of a generator of disk-eject events. As opaque as that of domain death.
pub type libxl_evgen_disk_eject = libxl__evgen_disk_eject;

/// Asks for the ejections of a virtual CD drive by its guest.
///
/// `vdev` is the drive's name, such as `hdc` or `xvdb`; it is copied. Each ejection gives one
/// LIBXL_EVENT_TYPE_DISK_EJECT with `domid` and `user`. In it, `u.disk_eject.vdev` is a copy of `vdev`, and
/// `u.disk_eject.disk` is the drive without its medium: `vdev` as xenstore had it at the time of this call, or NULL if it
/// had none; `backend_domid` and `backend` as they are now, as far as libxl tells backends apart here; `pdev_path` empty,
/// `format` LIBXL_DISK_FORMAT_EMPTY, `removable` and `is_cdrom` 1, everything else as libxl_device_disk_init leaves it.
/// These come from the nodes that the toolstack keeps for itself (`/libxl/DOMID/device/vbd/...`). Only if it has noted no name
/// there, `vdev` is what the frontend's nodes say, where the guest may write any bytes.
///
/// If the domain has a stub domain at the time of this call, the drive is a device of that. Neither the domain nor the
/// drive need be there yet. An ejection that is there already, and that nobody has taken notice of, counts.
///
/// An ejection is acknowledged in xenstore before it is told. Several generators in one context for one drive each give
/// their own event, the generator enabled last first; of several contexts, or processes, that watch one drive, the first
/// to take notice of an ejection leaves nothing to see for the others. One that cannot be acknowledged is told once, and
/// its acknowledgement tried again later. One of a drive that the toolstack has no backend of, because it is being removed, is
/// acknowledged and not told.
///
/// While an event of a generator is still in the queue, another ejection is acknowledged and gives that generator no event
/// of its own: the one that is there says that the drive is empty, and a guest that ejects again and again can't fill the
/// memory of a program that doesn't fetch its events. (xlevent_stats counts these.)
///
/// Waits for xenstored's answers. Returns 0 and a handle in `*evgen_out`; ERROR_INVAL for a NULL or unknown `ctx`, a NULL
/// `evgen_out`, a `vdev` that is NULL or no name of a disk, or if called by an fd_register or fd_deregister hook;
/// ERROR_FAIL also while xenstored is away; otherwise as libxl_evenable_domain_death. On an error nothing is left behind,
/// `*evgen_out` is as it was, and a later try may succeed.
///
/// # Safety
///
/// `vdev` is NULL or a string that ends with a zero byte; `evgen_out` is NULL or points to a writable pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn libxl_evenable_disk_eject(
    ctx: *mut libxl_ctx,
    domid: u32,
    vdev: *const c_char,
    user: libxl_ev_user,
    evgen_out: *mut *mut libxl_evgen_disk_eject,
) -> c_int {
    entry!("libxl_evenable_disk_eject", ERROR_FAIL, {
        let name = "libxl_evenable_disk_eject";
        // SAFETY: the caller's promises are the same.
        unsafe {
            enable_drive(name, ctx, domid, vdev, evgen_out, |context, vdev| {
                context.enable_disk_eject(domid, vdev, user)
            })
        }
    })
}

/// Stops a generator of disk-eject events, and makes its handle invalid.
///
/// As libxl_evdisable_domain_death: events that it has produced are still delivered, NULL does nothing, and an unknown
/// handle, that of another kind of generator too, is logged and ignored. May be called from any thread and from event
/// callbacks.
///
/// # Safety
///
/// No requirement beyond those of all functions: the handle is looked up, not followed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn libxl_evdisable_disk_eject(ctx: *mut libxl_ctx, evgen: *mut libxl_evgen_disk_eject) {
    entry!("libxl_evdisable_disk_eject", (), {
        let name = "libxl_evdisable_disk_eject";
        if evgen.is_null() {
            return;
        }
        let Ok(context) = context(name, ctx) else { return };
        if let Err(error) = context.disable_disk_eject(disk_eject::Key::from(evgen.addr() as u64)) {
            failed(&context, name, &error);
        }
    })
}
