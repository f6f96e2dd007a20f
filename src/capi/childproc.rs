// SPDX-License-Identifier: LGPL-2.1-or-later
//! Child processes: who owns SIGCHLD, who reaps, and what to do after fork.

use std::ffi::{c_int, c_uint, c_void};

use libc::pid_t;

use super::ctx::in_real_alloc;
use super::ctx::libxl_ctx;
use super::entry::entry;
use super::handle::{context, invalid, real};
use crate::abi::*;
use crate::context;

/// Who catches SIGCHLD, and who reaps which children.
#[repr(C)]
pub enum LibxlSigchldOwnerValues {
    /// The library, but only while it has a child of its own; then it reaps every child of the process. The default.
    libxl_sigchld_owner_libxl,
    /// The application. It tells the library with libxl_childproc_reaped or libxl_childproc_sigchld_occurred, and not
    /// from inside a signal handler.
    libxl_sigchld_owner_mainloop,
    /// The library, all the time; it reaps every child and tells the application about those that are not its own.
    libxl_sigchld_owner_libxl_always,
    /// The library, all the time; it reaps only its own. The application waits for its children by their pids.
    libxl_sigchld_owner_libxl_always_selective_reap,
}

/// A SIGCHLD owner as it crosses the boundary: one of [`LibxlSigchldOwnerValues`], or anything that a caller makes up.
///
/// cbindgen:ignore
pub type libxl_sigchld_owner = c_uint;

constants! { LibxlSigchldOwnerValues as libxl_sigchld_owner:
    libxl_sigchld_owner_libxl, libxl_sigchld_owner_mainloop, libxl_sigchld_owner_libxl_always,
    libxl_sigchld_owner_libxl_always_selective_reap,
}

/// How children are dealt with, for libxl_childproc_setmode. The functions may be NULL.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct libxl_childproc_hooks {
    /// Who owns SIGCHLD.
    pub chldowner: libxl_sigchld_owner,
    /// Called in place of fork(2), and to behave just like it, errno included. It must not call this library.
    pub fork_replacement: Option<unsafe extern "C" fn(user: *mut c_void) -> pid_t>,
    /// Told of a child that the library has reaped and that is not its own. Returns 0 if the application takes note,
    /// ERROR_UNKNOWN_CHILD if it does not know it either (which is logged); anything else is a disaster. It runs inside
    /// an ordinary call, never in a signal handler, and may call this library.
    pub reaped_callback: Option<unsafe extern "C" fn(pid: pid_t, status: c_int, user: *mut c_void) -> c_int>,
}

/// Says how children are dealt with.
///
/// A NULL `hooks` means libxl_sigchld_owner_libxl without functions, which is the default. Keep `*hooks` valid as long
/// as the context. Call it right after libxl_ctx_alloc: it must not be called while the library may have a child.
///
/// This goes to libxenlight, whose children they are. Without libxenlight in the process this library starts no
/// children and leaves SIGCHLD alone; a mode is accepted and has no effect.
///
/// A NULL or unknown `ctx`, or an owner that does not exist, is logged and changes nothing.
///
/// # Safety
///
/// `hooks` is NULL or points to valid functions, which stay valid as long as the context and return normally: no
/// longjmp, no C++ exception.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn libxl_childproc_setmode(
    ctx: *mut libxl_ctx,
    hooks: *const libxl_childproc_hooks,
    user: *mut c_void,
) {
    entry!("libxl_childproc_setmode", (), {
        let name = "libxl_childproc_setmode";
        let real = real(ctx);
        if let (Some((real, ctx)), true) = (real, in_real_alloc()) {
            // SAFETY: libxenlight's own half-made context, and its own arguments.
            return unsafe { (real.libxl_childproc_setmode)(ctx, hooks.cast(), user) };
        }
        let Ok(context) = context(name, ctx) else { return };
        // SAFETY: NULL, or the caller's table.
        let owner = unsafe { hooks.as_ref() }.map_or(libxl_sigchld_owner_libxl, |hooks| hooks.chldowner);
        if owner > libxl_sigchld_owner_libxl_always_selective_reap {
            invalid(&context, name, &format!("there is no SIGCHLD owner {owner}"));
            return;
        }
        if let Some((real, ctx)) = real {
            // SAFETY: the caller's arguments, and the context that stands beside ours.
            unsafe { (real.libxl_childproc_setmode)(ctx, hooks.cast(), user) };
        }
    })
}

/// Tells the library that the application has reaped a child.
///
/// Only with libxl_sigchld_owner_mainloop, by an application that reaps all children of the process. `status` is what
/// waitpid stored. Not to be called from a signal handler.
///
/// Returns 0 if the child was the library's; ERROR_UNKNOWN_CHILD, with nothing logged, if it was not (without
/// libxenlight in the process none is); ERROR_INVAL for a NULL or unknown `ctx`.
///
/// # Safety
///
/// No requirement beyond those of all functions.
///
/// cbindgen:postfix=LIBXL_EXTERNAL_CALLERS_ONLY
#[unsafe(no_mangle)]
pub unsafe extern "C" fn libxl_childproc_reaped(ctx: *mut libxl_ctx, pid: pid_t, status: c_int) -> c_int {
    entry!("libxl_childproc_reaped", ERROR_FAIL, {
        match (context("libxl_childproc_reaped", ctx), real(ctx)) {
            (Err(rc), _) => rc,
            // SAFETY: the caller's arguments, and the context that stands beside ours.
            (Ok(_), Some((real, ctx))) => unsafe { (real.libxl_childproc_reaped)(ctx, pid, status) },
            (Ok(_), None) => ERROR_UNKNOWN_CHILD,
        }
    })
}

/// Tells the library that there was a SIGCHLD.
///
/// Only with libxl_sigchld_owner_mainloop, by an application that does not reap all children itself. The library then
/// looks at its own children, reaps those that have ended, and touches no others. Not to be called from a signal
/// handler.
///
/// A NULL or unknown `ctx` is logged and nothing is done.
///
/// # Safety
///
/// No requirement beyond those of all functions.
///
/// cbindgen:postfix=LIBXL_EXTERNAL_CALLERS_ONLY
#[unsafe(no_mangle)]
pub unsafe extern "C" fn libxl_childproc_sigchld_occurred(ctx: *mut libxl_ctx) {
    entry!("libxl_childproc_sigchld_occurred", (), {
        let Ok(_context) = context("libxl_childproc_sigchld_occurred", ctx) else { return };
        if let Some((real, ctx)) = real(ctx) {
            // SAFETY: the context that stands beside ours.
            unsafe { (real.libxl_childproc_sigchld_occurred)(ctx) };
        }
    })
}

/// To be called in a child after fork, by a program that had contexts before and does not exec at once.
///
/// One call, with any context of the parent's, does it for all of them. Until it has returned, no other function of
/// this library may be called in the child, and the child must not fork or touch SIGCHLD. After it the parent's contexts
/// do not exist in the child, not even to be freed; new ones can be opened. The descriptors that this library had open
/// are closed in the child, and the parent notices nothing.
///
/// May be called before an exec. A NULL or unknown `ctx`, as in a second call, is logged; our contexts are forgotten all
/// the same, but libxenlight, which wants a context of the parent's, is not told.
///
/// # Safety
///
/// To be called in a forked child, by its only thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn libxl_postfork_child_noexec(ctx: *mut libxl_ctx) {
    entry!("libxl_postfork_child_noexec", (), {
        let known = context("libxl_postfork_child_noexec", ctx).is_ok();
        // Ours are forgotten first: what libxenlight then takes back through our hooks concerns nobody.
        context::forget_all();
        if let Some((real, ctx)) = real(ctx).filter(|_| known) {
            // SAFETY: the caller says that this is a forked child; the context was the parent's, and is libxenlight's.
            unsafe { (real.libxl_postfork_child_noexec)(ctx) };
        }
    })
}
