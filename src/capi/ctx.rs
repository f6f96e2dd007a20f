// SPDX-License-Identifier: LGPL-2.1-or-later
//! Contexts. `<libxl.h>` declares these two functions, not `<libxl_event.h>`; a program without libxenlight needs them.

use std::ffi::{c_int, c_uint};

use super::entry::entry;
use super::types::*;

/// What `libxl_ctx` names. Applications see the pointer alone.
pub struct libxl__ctx {
    _opaque: (),
}

/// A context: one program's connection to Xen. Everything else in this header takes one.
///
/// A process may have several; each has its own events, hooks and generators. All functions may be called from any
/// thread, also at the same time with the same context, except where their descriptions say otherwise.
pub type libxl_ctx = libxl__ctx;

/// Opens a context and stores it in `*pctx`.
///
/// `version` is LIBXL_VERSION. `flags` is 0; nothing is defined for it yet and all values are accepted. `lg` receives
/// the log lines; it stays the caller's and must outlive the context. It may be NULL: then nothing is logged.
///
/// Nothing is registered with an event loop yet, and no signal handler is installed.
///
/// Returns 0, ERROR_VERSION for another version, ERROR_INVAL for a NULL `pctx`, or ERROR_FAIL (no hypervisor, no
/// xenstored, no permission, no descriptors left; the log says which). On any error `*pctx` is NULL and nothing is
/// left behind.
///
/// # Safety
///
/// `pctx` is NULL or points to a writable pointer. `lg` is NULL or a logger made with xentoollog.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn libxl_ctx_alloc(
    pctx: *mut *mut libxl_ctx,
    version: c_int,
    flags: c_uint,
    lg: *mut xentoollog_logger,
) -> c_int {
    entry!("libxl_ctx_alloc", ERROR_FAIL, {
        let _ = (pctx, version, flags, lg);
        ERROR_NI
    })
}

/// Closes a context: stops its generators, frees the events that nobody has fetched, and closes its descriptors.
///
/// Its generator handles become invalid with it and need no evdisable call. Events that the application has fetched
/// stay the application's; they may still be given to libxl_event_free, with a NULL context.
///
/// Not to be called while another thread is inside a call with the same context, nor from one of its callbacks. NULL is
/// fine and does nothing.
///
/// Returns 0, or ERROR_INVAL for something that is not a live context.
///
/// # Safety
///
/// `ctx` is NULL or was returned by libxl_ctx_alloc. A context that was freed before is recognised, unless its address
/// has been given to a new one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn libxl_ctx_free(ctx: *mut libxl_ctx) -> c_int {
    entry!("libxl_ctx_free", ERROR_FAIL, {
        let _ = ctx;
        ERROR_NI
    })
}
