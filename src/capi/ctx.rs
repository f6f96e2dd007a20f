// SPDX-License-Identifier: LGPL-2.1-or-later
//! Contexts. `<libxl.h>` declares these two functions, not `<libxl_event.h>`; a program without libxenlight needs them.

use std::cell::Cell;
use std::ffi::{c_int, c_uint, c_void};
use std::ptr::NonNull;
use std::sync::Arc;

use super::beside;
use super::entry::{entry, stderr_line};
use super::handle::{number, real};
use crate::abi::*;
use crate::companion::{self, Libxenlight};
use crate::context::{self, Context};
use crate::error::Error;
use crate::forkguard::unguarded;
use crate::guard::{Replaced, Steps};
use crate::xen::log::{self, Level, Line, LogSink, NullLog, XtlLog};

/// What `libxl_ctx` names. Applications see the pointer alone.
pub struct libxl__ctx {
    _opaque: (),
}

/// A context: one program's connection to Xen. Everything else in this header takes one.
///
/// A process may have several; each has its own events, hooks and generators. All functions may be called from any
/// thread, also at the same time with the same context, except where their descriptions say otherwise. A thread that is in
/// a call is not cancelled: what pthread_cancel has asked for happens when the call is over, and xlevent_wait_cancel ends one
/// that waits. Callbacks, hooks and predicates return normally; they don't leave by pthread_exit either. They may end the
/// process.
pub type libxl_ctx = libxl__ctx;

/// Opens a context and stores it in `*pctx`.
///
/// `version` is LIBXL_VERSION. `flags` is 0; nothing is defined for it yet and all values are accepted. `lg` receives
/// the log lines; it stays the caller's and must outlive the context. It may be NULL: then nothing is logged. A line that
/// repeats is written at once the first time, and then once a minute at most, with how many there were.
///
/// Nothing is registered with an event loop yet, and no signal handler is installed.
///
/// The context's descriptors are the library's. A program that closes them (closefrom in a late daemonise, or a number of its
/// own closed twice) loses the context. When the library finds that, it calls the disaster callback once and logs one line. It
/// does not end the program. From then on no events come, threads in libxl_event_wait return, operations end with an error, and
/// calls that need a descriptor return ERROR_FAIL. Events that are queued can still be fetched, and libxl_ctx_free works; other
/// contexts, and new ones, are not affected.
///
/// The library checks its numbers before it reads, writes or closes them, so files of the program's that have got them are left
/// alone. It finds a loss at the next call that uses a descriptor, in libxl_osevent_beforepoll within a second or so, and in a
/// thread that waits in libxl_event_wait within a quarter of a minute (later with many contexts). It cannot find or prevent:
///
/// - a loss in a loop of the program's that waits with epoll, and so is never called again: the kernel takes a closed descriptor
///   out of it without a word;
/// - descriptors that are closed by one thread while another is inside a call;
/// - one of libxenctrl's descriptors that is closed alone; and one of libxenstore's, where the kernel is older than Linux 5.9, or
///   xenstored is not reached through a socket: its thread may then read a message's rest from the new file;
/// - what libxenlight does with its own descriptors, if it is in the process. libxl_ctx_free leaves libxenlight's context as it
///   is then, rather than have it close numbers that are not its own; its handler of SIGCHLD may write one byte to one of them.
///
/// Returns 0, ERROR_VERSION for another version, ERROR_INVAL for a NULL `pctx`, or ERROR_FAIL (no hypervisor, no
/// xenstored, no permission, no descriptors left, or libxenlight is there and another copy of this library in front of it;
/// the log says which, and where that copy is). On any error `*pctx` is NULL and nothing is left behind.
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
        if pctx.is_null() {
            stderr_line(format_args!("libxl_ctx_alloc: the place for the context is NULL"));
            return ERROR_INVAL;
        }
        // SAFETY: not null, so writable.
        unsafe { *pctx = std::ptr::null_mut() };
        let sink: Arc<dyn LogSink> = match NonNull::new(lg) {
            // SAFETY: the caller's logger outlives the context.
            Some(logger) => Arc::new(unsafe { XtlLog::new(logger.cast()) }),
            None => Arc::new(NullLog),
        };
        let opened = match (version, companion::find()) {
            (LIBXL_VERSION, Some(real)) => match companion::another_in_front(real) {
                Some(why) => Err(Refusal::Ours(Error::Failed(why))),
                None => open_beside(real, flags, lg, &sink),
            },
            (LIBXL_VERSION, None) => open_alone(&sink),
            (other, _) => Err(Refusal::Ours(Error::Version(other))),
        };
        match opened {
            Ok(ctx) => {
                // SAFETY: as above.
                unsafe { *pctx = ctx };
                0
            }
            Err(Refusal::Real(rc)) => rc,
            Err(Refusal::Ours(error)) => {
                sink.write(&Line::failure(Level::Error, "libxl_ctx_alloc", &error));
                number(&error)
            }
        }
    })
}

/// Why there is no context.
enum Refusal {
    /// libxenlight has refused, and has logged it.
    Real(c_int),
    /// We have.
    Ours(Error),
}

fn open_alone(log: &Arc<dyn LogSink>) -> Result<*mut libxl_ctx, Refusal> {
    let context = Context::standalone(log.clone()).map_err(Refusal::Ours)?;
    // The address is only a name.
    let ctx = Arc::as_ptr(&context).addr();
    context::insert(ctx, context);
    Ok(ctx as *mut libxl_ctx)
}

thread_local! {
    /// This thread is inside libxenlight's `libxl_ctx_alloc`, which frees the context itself if it fails half-way, by
    /// functions that we export: they are passed on, though we don't know the context.
    static IN_REAL_ALLOC: Cell<bool> = const { Cell::new(false) };
}

/// Whether a context that we don't know may be libxenlight's all the same.
pub(super) fn in_real_alloc() -> bool {
    IN_REAL_ALLOC.with(Cell::get)
}

fn open_beside(
    real: &'static Libxenlight,
    flags: c_uint,
    logger: *mut xentoollog_logger,
    log: &Arc<dyn LogSink>,
) -> Result<*mut libxl_ctx, Refusal> {
    // libxenlight can't do without a logger.
    let logger: *mut c_void = if logger.is_null() { log::silent_logger() } else { logger.cast() };
    let mut ctx = std::ptr::null_mut();
    let rc = IN_REAL_ALLOC.with(|inside| {
        let _mark = Replaced::with(inside, true);
        // SAFETY: libxenlight's own function, with the caller's arguments.
        unguarded(|| unsafe { (real.libxl_ctx_alloc)(&mut ctx, LIBXL_VERSION, flags, logger) })
    });
    if rc != 0 {
        return Err(Refusal::Real(rc));
    }
    match Context::beside(beside::real_context(real, ctx), log.clone()) {
        Ok(context) => context::insert(ctx.addr(), context),
        Err(error) => {
            // SAFETY: opened above, known to nobody.
            unguarded(|| unsafe { (real.libxl_ctx_free)(ctx) });
            return Err(Refusal::Ours(error));
        }
    }
    // SAFETY: fresh, and just inserted.
    unsafe { beside::adopt(real, ctx) };
    Ok(ctx.cast())
}

/// Closes a context: stops its generators, frees the events that nobody has fetched, and closes its descriptors.
///
/// Its generator handles become invalid with it and need no evdisable call. Events for a callback that have been found and not
/// yet given to it are given to it before this returns. Events that the application has fetched
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
        if ctx.is_null() {
            return 0;
        }
        let Some(context) = context::lookup(ctx.addr()) else {
            return match real(ctx) {
                // SAFETY: libxenlight's own half-made context.
                Some((real, ctx)) if in_real_alloc() => unsafe { (real.libxl_ctx_free)(ctx) },
                _ => {
                    stderr_line(format_args!("libxl_ctx_free: {ctx:p} is not a context"));
                    ERROR_INVAL
                }
            };
        };
        // Whatever a panic may have left undone, the context is gone.
        let mut steps = Steps::default();
        steps.take(|| context.close());
        let rc = steps.take(|| match real(ctx) {
            // It would close the numbers of its descriptors, which may be the application's by now.
            Some(_) if context.is_beside() && context.is_stolen() => {
                context.log(&Line::new(Level::Warn, "libxl_ctx_free: libxenlight's context is left as it is"));
                0
            }
            // SAFETY: opened by `open_beside`; freed once, as the registry knew it.
            Some((real, ctx)) if context.is_beside() => unguarded(|| unsafe { (real.libxl_ctx_free)(ctx) }),
            _ => 0,
        });
        steps.take(|| context.finish());
        context::remove(ctx.addr(), &context);
        steps.end();
        rc.unwrap_or(ERROR_FAIL)
    })
}
