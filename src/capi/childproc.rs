// SPDX-License-Identifier: LGPL-2.1-or-later
//! Child processes: who owns SIGCHLD, who reaps, and what to do after fork.

use std::ffi::{c_int, c_uint, c_void};
use std::sync::Arc;

use libc::pid_t;

use super::beside;
use super::ctx::in_real_alloc;
use super::ctx::libxl_ctx;
use super::entry::entry;
use super::handle::{context, failed, invalid, real};
use crate::abi::*;
use crate::childproc::{Answer, Hooks, NoHooks, Owner};
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

/// What a table says, with what is to be passed to its functions.
struct Table {
    hooks: libxl_childproc_hooks,
    user: *mut c_void,
}

// SAFETY: `user` is only ever passed on to the application's functions, which the header has called from any thread.
unsafe impl Send for Table {}
// SAFETY: as above.
unsafe impl Sync for Table {}

impl Hooks for Table {
    fn fork(&self) -> pid_t {
        match self.hooks.fork_replacement {
            // SAFETY: the application's function, with its argument.
            Some(fork_replacement) => unsafe { fork_replacement(self.user) },
            None => NoHooks.fork(),
        }
    }

    fn reaped(&self, pid: pid_t, status: c_int) -> Answer {
        let Some(reaped_callback) = self.hooks.reaped_callback else { return Answer::Unknown };
        // SAFETY: as above.
        match unsafe { reaped_callback(pid, status, self.user) } {
            0 => Answer::Noted,
            ERROR_UNKNOWN_CHILD => Answer::Unknown,
            rc => Answer::Failed(rc),
        }
    }
}

fn owner(number: libxl_sigchld_owner) -> Option<Owner> {
    match number {
        libxl_sigchld_owner_libxl => Some(Owner::Libxl),
        libxl_sigchld_owner_mainloop => Some(Owner::Mainloop),
        libxl_sigchld_owner_libxl_always => Some(Owner::Always),
        libxl_sigchld_owner_libxl_always_selective_reap => Some(Owner::Selective),
        _ => None,
    }
}

/// Says how children are dealt with.
///
/// A NULL `hooks` means libxl_sigchld_owner_libxl without functions, which is the default. Keep `*hooks` valid as long
/// as the context. Call it right after libxl_ctx_alloc and the registration of hooks: it must not be called while the
/// library may have a child.
///
/// With libxl_sigchld_owner_libxl_always and libxl_sigchld_owner_libxl_always_selective_reap a handler of SIGCHLD is
/// there from now on, with SA_RESTART and SA_NOCLDSTOP; and with libxl_sigchld_owner_libxl while the library has a
/// child. What was there before, which is to be SIG_DFL or SIG_IGN, comes back when no context needs the handler any
/// more. At least one thread must have SIGCHLD unblocked.
///
/// A NULL or unknown `ctx`, an owner that does not exist, and a call while the library has a child are logged and change
/// nothing. A handler of the application's own is logged too, and stays: the library's own children are cared for all
/// the same, but nobody tells it of others.
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
        let default = libxl_childproc_hooks {
            chldowner: libxl_sigchld_owner_libxl,
            fork_replacement: None,
            reaped_callback: None,
        };
        // SAFETY: NULL, or the caller's table.
        let hooks = unsafe { hooks.as_ref() }.copied().unwrap_or(default);
        let Some(owner) = owner(hooks.chldowner) else {
            invalid(&context, name, &format!("there is no SIGCHLD owner {}", hooks.chldowner));
            return;
        };
        if real.is_some_and(|(real, _)| beside::would_abort(real, owner)) {
            invalid(&context, name, "the application has a handler of SIGCHLD, which stays; nothing is changed");
            return;
        }
        if let Err(error) = context.set_childproc(owner, Arc::new(Table { hooks, user })) {
            failed(&context, name, &error);
            return;
        }
        if let Some((real, ctx)) = real {
            // SAFETY: the context that stands beside ours.
            unsafe { beside::set_childproc(real, ctx, owner) };
        }
    })
}

/// Tells the library that the application has reaped a child.
///
/// Only with libxl_sigchld_owner_mainloop, by an application that reaps all children of the process. `status` is what
/// waitpid stored. Not to be called from a signal handler.
///
/// Returns 0 if the child was the library's, and was started with this context; ERROR_UNKNOWN_CHILD, with nothing
/// logged, if it was not; ERROR_INVAL for a NULL or unknown `ctx`, or with another owner.
///
/// # Safety
///
/// No requirement beyond those of all functions.
///
/// cbindgen:postfix=LIBXL_EXTERNAL_CALLERS_ONLY
#[unsafe(no_mangle)]
pub unsafe extern "C" fn libxl_childproc_reaped(ctx: *mut libxl_ctx, pid: pid_t, status: c_int) -> c_int {
    entry!("libxl_childproc_reaped", ERROR_FAIL, {
        let name = "libxl_childproc_reaped";
        let context = match context(name, ctx) {
            Ok(context) => context,
            Err(rc) => return rc,
        };
        match (context.childproc_reaped(pid, status), real(ctx)) {
            (Ok(true), _) => 0,
            // SAFETY: the caller's arguments, and the context that stands beside ours, with this owner.
            (Ok(false), Some((real, ctx))) => unsafe { (real.libxl_childproc_reaped)(ctx, pid, status) },
            (Ok(false), None) => ERROR_UNKNOWN_CHILD,
            (Err(error), _) => failed(&context, name, &error),
        }
    })
}

/// Tells the library that there was a SIGCHLD.
///
/// Only with libxl_sigchld_owner_mainloop, by an application that does not reap all children itself. The library then
/// looks at its own children, reaps those that have ended, and touches no others. Not to be called from a signal
/// handler.
///
/// A NULL or unknown `ctx`, or another owner, is logged and nothing is done.
///
/// # Safety
///
/// No requirement beyond those of all functions.
///
/// cbindgen:postfix=LIBXL_EXTERNAL_CALLERS_ONLY
#[unsafe(no_mangle)]
pub unsafe extern "C" fn libxl_childproc_sigchld_occurred(ctx: *mut libxl_ctx) {
    entry!("libxl_childproc_sigchld_occurred", (), {
        let name = "libxl_childproc_sigchld_occurred";
        let Ok(context) = context(name, ctx) else { return };
        match (context.childproc_sigchld_occurred(), real(ctx)) {
            // SAFETY: the context that stands beside ours, with this owner.
            (Ok(()), Some((real, ctx))) => unsafe { (real.libxl_childproc_sigchld_occurred)(ctx) },
            (Ok(()), None) => {}
            (Err(error), _) => {
                failed(&context, name, &error);
            }
        }
    })
}

/// To be called in a child after fork, by a program that had contexts before and does not exec at once.
///
/// One call, with any context of the parent's, does it for all of them. Until it has returned, no other function of
/// this library may be called in the child, and the child must not fork or touch SIGCHLD. (Where that is forgotten: a
/// context that another thread was using during the fork, or that has or had generators, is refused in the child with
/// ERROR_INVAL; one that was only opened is as good there, for one of the two processes.) After it the parent's contexts
/// do not exist in the child, not even to be freed; new ones can be opened. The descriptors that this library had open
/// are closed in the child, its handler of SIGCHLD is replaced by what was there before, and the parent notices nothing.
///
/// Xen's libraries have locks that a child finds taken for ever if another thread held one during the fork. Forks wait for this
/// library's own use of them; not for the application's (xs_open, xs_close, xc_interface_open and their like), nor for
/// libxenlight's. So an application doesn't fork while another thread of its own is in those. If one is in libxl_ctx_alloc or
/// libxl_ctx_free, and libxenlight is there, then this function leaves the connections to xenstored and to the hypervisor
/// open in the child, and opening another context there may hang, as it may with libxenlight alone. Its handler of SIGCHLD,
/// which is there while it has children or, with the two owners that say "always", while it has contexts, takes a lock too:
/// in a child that was forked while another thread was in it, this function may never return. (This library's own handler
/// takes none.)
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
        let known = context::left_behind(ctx.addr()) || context("libxl_postfork_child_noexec", ctx).is_ok();
        // Ours are forgotten first: what libxenlight then takes back through our hooks concerns nobody.
        context::forget_all();
        if let Some((real, ctx)) = real(ctx).filter(|_| known) {
            // SAFETY: the caller says that this is a forked child; the context was the parent's, and is libxenlight's.
            unsafe { (real.libxl_postfork_child_noexec)(ctx) };
        }
    })
}
