// SPDX-License-Identifier: LGPL-2.1-or-later
//! From C's handles and to C's error numbers.

use std::ffi::{c_int, c_void};
use std::sync::Arc;

use super::ctx::libxl_ctx;
use super::entry::{stderr_line, uncancelled};
use crate::abi::*;
use crate::companion::{self, Libxenlight};
use crate::context::{self, Context};
use crate::error::Error;
use crate::xen::log::{Level, Line};

#[cfg(not(target_pointer_width = "64"))]
compile_error!("a generator's handle is a 64-bit number made to look like a pointer");

/// The context behind a pointer. NULL and unknown ones are logged, to stderr as there is no logger, and are ERROR_INVAL.
pub(super) fn context(name: &str, ctx: *mut libxl_ctx) -> Result<Arc<Context>, c_int> {
    context::lookup(ctx.addr()).ok_or_else(|| unknown(name, ctx))
}

#[cold]
fn unknown(name: &str, ctx: *mut libxl_ctx) -> c_int {
    if ctx.is_null() {
        stderr_line(format_args!("{name}: the context is NULL"));
    } else if context::left_behind(ctx.addr()) {
        stderr_line(format_args!(
            "{name}: {ctx:p} is a context of the parent process; call libxl_postfork_child_noexec first"
        ));
    } else {
        stderr_line(format_args!("{name}: {ctx:p} is not a context"));
    }
    ERROR_INVAL
}

/// Logs what is wrong with an argument.
pub(super) fn invalid(context: &Context, name: &str, why: &str) -> c_int {
    uncancelled(|| context.log(&Line::new(Level::Error, format!("{name}: {why}"))));
    ERROR_INVAL
}

/// Logs a failure, and gives its number. That there is no event is none; that descriptors of ours were closed was logged when
/// it was found.
pub(super) fn failed(context: &Context, what: &str, error: &Error) -> c_int {
    if !matches!(error, Error::NotReady | Error::TimeIsUp | Error::Aborted) && !context.is_stolen() {
        uncancelled(|| context.log(&Line::failure(Level::Error, what, error)));
    }
    number(error)
}

/// The same for what is about a domain, which the line names once.
pub(super) fn failed_with(context: &Context, name: &str, domid: u32, error: &Error) -> c_int {
    match error {
        // They name what they are about.
        Error::DomainNotFound(_) | Error::NotFound(_) | Error::Invalid(_) => failed(context, name, error),
        _ => failed(context, &format!("{name}: domain {domid}"), error),
    }
}

/// The number that stands for an error.
pub(super) fn number(error: &Error) -> c_int {
    match error {
        Error::NotReady => ERROR_NOT_READY,
        Error::TimeIsUp => ERROR_TIMEDOUT,
        Error::Invalid(_) => ERROR_INVAL,
        Error::Version(_) => ERROR_VERSION,
        Error::BufferFull(_) => ERROR_BUFFERFULL,
        Error::DomainNotFound(_) => ERROR_DOMAIN_NOTFOUND,
        Error::NotFound(_) => ERROR_NOTFOUND,
        Error::Failed(_) => ERROR_FAIL,
        Error::TimedOut(_) => ERROR_TIMEDOUT,
        Error::Aborted => ERROR_ABORTED,
        Error::NotImplemented(_) => ERROR_NI,
        Error::Os { errno: nix::errno::Errno::ENOMEM, .. } => ERROR_NOMEM,
        Error::Os { .. } => ERROR_FAIL,
        // 0 would mean that it had not refused.
        Error::Hook(0) => ERROR_OSEVENT_REG_FAIL,
        Error::Hook(rc) => *rc,
    }
}

/// libxenlight, and the same context as it knows it; `None` where there is no libxenlight.
pub(super) fn real(ctx: *mut libxl_ctx) -> Option<(&'static Libxenlight, *mut c_void)> {
    companion::present().map(|real| (real, ctx.cast()))
}
