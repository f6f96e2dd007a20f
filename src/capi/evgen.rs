// SPDX-License-Identifier: LGPL-2.1-or-later
//! Event generators: asking for events.
//!
//! A handle is an opaque number made to look like a pointer; it is looked up in its context and never dereferenced.

use std::ffi::{c_char, c_int};

use super::ctx::libxl_ctx;
use super::entry::entry;
use super::handle::{context, failed, invalid, real};
use crate::abi::*;
use crate::error::Error;
use crate::evgen::monitor::Key;

/// What `libxl_evgen_domain_death` names. Applications see the pointer alone.
pub struct libxl__evgen_domain_death {
    _opaque: (),
}

/// The handle of a generator of shutdown and death events. It is not an address: compare it, pass it on, nothing else.
pub type libxl_evgen_domain_death = libxl__evgen_domain_death;

/// Asks for the shutdown and the death of a domain.
///
/// Produces LIBXL_EVENT_TYPE_DOMAIN_SHUTDOWN, with the reason, when the domain stops running, and
/// LIBXL_EVENT_TYPE_DOMAIN_DEATH when it is being destroyed or is gone. Each comes once; after the DEATH comes nothing
/// more. A domain that is destroyed while it runs, or whose shutdown and destruction are seen together, gives only the
/// DEATH. The present state counts: a domain that is already shut down, dead or missing gives its event at once. Both
/// events carry `domid`, `user`, and the domain's UUID where it could be learnt.
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
        let context = match context(name, ctx) {
            Ok(context) => context,
            Err(rc) => return rc,
        };
        if evgen_out.is_null() {
            return invalid(&context, name, "the place for the handle is NULL");
        }
        match context.enable_domain_death(domid, user) {
            Ok(key) => {
                // SAFETY: not null, so writable.
                unsafe { *evgen_out = u64::from(key) as *mut libxl_evgen_domain_death };
                0
            }
            Err(error) => failed(&context, &format!("{name}: domain {domid}"), &error),
        }
    })
}

/// Stops a generator of shutdown and death events, and makes its handle invalid.
///
/// Events that it has already produced are still delivered. A NULL `evgen` does nothing; one that this context does not
/// know, or no longer knows, is logged and ignored. May be called from any thread and from event callbacks.
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
        if let Err(error) = context.disable_domain_death(Key::from(evgen.addr() as u64)) {
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
/// `vdev` is the drive's name in the guest, such as `hdc`; the string is copied. Each ejection gives one
/// LIBXL_EVENT_TYPE_DISK_EJECT with `domid`, `user` and, in `u.disk_eject`, the drive.
///
/// This goes to libxenlight, which must be in the process: without it the answer is ERROR_NI.
///
/// Returns 0 and a handle in `*evgen_out`, or an error: ERROR_INVAL for a NULL or unknown `ctx`, a NULL `vdev` or
/// `evgen_out`, otherwise as libxl_evenable_domain_death.
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
        let context = match context(name, ctx) {
            Ok(context) => context,
            Err(rc) => return rc,
        };
        if vdev.is_null() || evgen_out.is_null() {
            return invalid(&context, name, "the disk's name or the place for the handle is NULL");
        }
        let Some((real, ctx)) = real(ctx) else {
            return failed(&context, name, &Error::NotImplemented("watching a disk"));
        };
        // SAFETY: the caller's arguments, and the context that stands beside ours.
        unsafe { (real.libxl_evenable_disk_eject)(ctx, domid, vdev, user, evgen_out.cast()) }
    })
}

/// Stops a generator of disk-eject events, and makes its handle invalid.
///
/// As libxl_evdisable_domain_death: NULL does nothing, an unknown handle is logged and ignored.
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
        match real(ctx) {
            // SAFETY: the handle is one that libxenlight gave for this context.
            Some((real, ctx)) => unsafe { (real.libxl_evdisable_disk_eject)(ctx, evgen.cast()) },
            None => {
                invalid(&context, name, "no generator has this handle");
            }
        }
    })
}
