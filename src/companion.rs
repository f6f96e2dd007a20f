// SPDX-License-Identifier: LGPL-2.1-or-later
//! The real libxenlight beside us: whether it is in the process, and its functions of the names that we export.
//!
//! Nothing is decided when we are loaded, since a preloaded library lands in every child process too: the first
//! `libxl_ctx_alloc` asks. Once found, libxenlight is there for good.
//!
//! There may be several copies of this library in a process: preloaded, linked, loaded from another file, linked into a
//! plugin. None takes another for libxenlight. And only the one that libxenlight's own calls of our functions come to can
//! stand beside it ([`another_in_front`]): those calls have to do with contexts that the others don't know.

use std::ffi::{CStr, c_int, c_void};
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use crate::dynlib::{self, Library, function, object_of};

/// A `libxl_ctx *` of libxenlight's.
pub type RealCtx = *mut c_void;

/// An identifier as a C string.
macro_rules! c_name {
    ($name:ident) => {
        const {
            match CStr::from_bytes_with_nul(concat!(stringify!($name), "\0").as_bytes()) {
                Ok(name) => name,
                Err(_) => panic!("an identifier has no NUL inside"),
            }
        }
    };
}

/// Declares the table of functions with, for each, its C type; and how to fill it.
macro_rules! functions {
    ($($(#[$doc:meta])* $name:ident ($($argument:ty),*) $(-> $result:ty)?;)*) => {
        /// libxenlight's own functions, past our exports of the same names.
        #[derive(Debug)]
        #[allow(missing_docs, reason = "libxl's functions of these names, documented in our header")]
        pub struct Libxenlight {
            $($(#[$doc])* pub $name: unsafe extern "C" fn($($argument),*) $(-> $result)?,)*
        }

        fn resolve(library: Library) -> Option<Libxenlight> {
            // SAFETY: libxenlight's functions of those names have had these types since Xen 4.3.
            unsafe {
                Some(Libxenlight {
                    $($name: function!(library, c_name!($name),
                        unsafe extern "C" fn($($argument),*) $(-> $result)?)?,)*
                })
            }
        }
    };
}

functions! {
    libxl_ctx_alloc(*mut RealCtx, c_int, u32, *mut c_void) -> c_int;
    libxl_ctx_free(RealCtx) -> c_int;
    libxl_event_free(RealCtx, *mut c_void);
    libxl_event_register_callbacks(RealCtx, *const c_void, *mut c_void);
    libxl_osevent_register_hooks(RealCtx, *const c_void, *mut c_void);
    libxl_osevent_occurred_fd(RealCtx, *mut c_void, c_int, i16, i16);
    libxl_osevent_occurred_timeout(RealCtx, *mut c_void);
    libxl_childproc_setmode(RealCtx, *const c_void, *mut c_void);
    libxl_childproc_reaped(RealCtx, libc::pid_t, c_int) -> c_int;
    libxl_childproc_sigchld_occurred(RealCtx);
    libxl_postfork_child_noexec(RealCtx);
}

static FOUND: AtomicPtr<Libxenlight> = AtomicPtr::new(std::ptr::null_mut());

/// libxenlight, if an earlier [`find`] has found it. Costs one load.
pub fn present() -> Option<&'static Libxenlight> {
    // SAFETY: null, or a table that was leaked for good.
    unsafe { FOUND.load(Ordering::Acquire).as_ref() }
}

/// A function that every copy of this library exports, and libxenlight doesn't have.
const OURS: &CStr = c"xlevent_stats";

/// libxenlight behind us in the linker's order, unless what stands there is another copy of this library.
fn behind_us() -> Option<Libxenlight> {
    let next = Library::next();
    let object = |name| next.symbol(name).map(|function| object_of(function.addr().get()));
    if object(c"libxl_ctx_alloc")? == object(OURS).unwrap_or_default() {
        return None;
    }
    resolve(next)
}

/// Whether another copy of this library is what the process's calls come to, libxenlight's among them.
pub fn another_in_front() -> bool {
    let first = Library::process().symbol(OURS).map(|function| object_of(function.addr().get()));
    first.is_some_and(|first| first != object_of(another_in_front as *const () as usize))
}

/// Looks for libxenlight: behind us in the linker's order, or loaded privately (a plugin).
pub fn find() -> Option<&'static Libxenlight> {
    if let Some(present) = present() {
        return Some(present);
    }
    /// How many libraries there were when it was last looked for in vain.
    static IN_VAIN: AtomicU64 = AtomicU64::new(0);
    let loads = dynlib::loads();
    if IN_VAIN.load(Ordering::Relaxed) == loads {
        return None;
    }
    let Some(table) = behind_us().or_else(|| resolve(Library::loaded("libxenlight.so")?)) else {
        IN_VAIN.store(loads, Ordering::Relaxed);
        return None;
    };
    // Two threads may both come here: both tables are good, and one small leak is cheaper than a lock around dlsym.
    FOUND.store(Box::leak(Box::new(table)), Ordering::Release);
    present()
}
