// SPDX-License-Identifier: LGPL-2.1-or-later
//! The real libxenlight beside us: whether it is in the process, and its functions of the names that we export.
//!
//! Nothing is decided when we are loaded, since a preloaded library lands in every child process too: the first
//! `libxl_ctx_alloc` asks. Once found, libxenlight is there for good.
//!
//! There may be several copies of this library in a process: preloaded, linked, loaded from another file, linked statically
//! into a program or a plugin. None takes another for libxenlight. Where libxenlight's own calls of our functions come to one
//! of them, only that one can stand beside it ([`another_in_front`]): those calls have to do with contexts that the others
//! don't know. A copy is known by its note ([`NOTE`]): a program that it is linked into statically may export all of our
//! functions, none, or only those that libxenlight has too.

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

/// The owner of [`NOTE`].
const OWNER: &[u8; 8] = b"xlevent\0";

/// An ELF note: it marks every program and library that contains a copy of this one.
#[repr(C)]
struct Note {
    owner_size: u32,
    description_size: u32,
    kind: u32,
    owner: [u8; OWNER.len()],
}

#[used]
#[unsafe(link_section = ".note.xlevent")]
static NOTE: Note = Note { owner_size: OWNER.len() as u32, description_size: 0, kind: 1, owner: *OWNER };

/// A function that every shared copy of this library exports, and libxenlight doesn't have.
const OURS: &CStr = c"xlevent_stats";

/// A function that libxenlight has, and no copy of this library.
const LIBXENLIGHTS: &CStr = c"libxl_domain_info";

/// The functions of ours that libxenlight calls itself in such a way that what stands in front of it is called.
const CALLED_BY_LIBXENLIGHT: [&CStr; 3] = [c"libxl_event_free", c"libxl_ctx_free", c"libxl_childproc_setmode"];

/// The object that defines a function, seen from there.
fn definer(library: Library, name: &CStr) -> Option<usize> {
    library.symbol(name).map(|function| object_of(function.addr().get()))
}

/// libxenlight behind us in the linker's order, unless what stands there is another copy of this library.
fn behind_us() -> Option<Libxenlight> {
    let next = Library::next();
    if definer(next, c"libxl_ctx_alloc")? != definer(next, LIBXENLIGHTS)? {
        return None;
    }
    resolve(next)
}

/// What is wrong if another copy of this library is what libxenlight's own calls come to.
pub fn another_in_front(real: &Libxenlight) -> Option<String> {
    /// How many libraries there were when there was none.
    static NONE: AtomicU64 = AtomicU64::new(0);
    let loads = dynlib::loads();
    if NONE.load(Ordering::Relaxed) == loads {
        return None;
    }
    let Some(other) = copy_in_front(object_of(real.libxl_ctx_alloc as usize)) else {
        NONE.store(loads, Ordering::Relaxed);
        return None;
    };
    let file = |object: usize| dynlib::file_of(object as *const c_void).unwrap_or_default();
    Some(format!(
        "another copy of this library, {}, stands in front of libxenlight, and only that one can be used: leave it out \
         (LD_PRELOAD), or use it in place of the one in {}",
        file(other).display(),
        file(our_object()).display(),
    ))
}

/// The program or library that contains this copy.
fn our_object() -> usize {
    object_of((&raw const NOTE).addr())
}

/// The object with the copy, other than ours, that libxenlight's own calls come to.
fn copy_in_front(libxenlight: usize) -> Option<usize> {
    let ours = our_object();
    let objects = dynlib::objects(OWNER.strip_suffix(b"\0").unwrap_or(OWNER));
    let others: Vec<usize> =
        objects.iter().filter(|object| object.has_note && object.object != ours).map(|object| object.object).collect();
    if others.is_empty() {
        return None;
    }
    let global = Library::program()?;
    // A program may export some of our functions and not others.
    let called = CALLED_BY_LIBXENLIGHT.map(|name| definer(global, name));
    if let Some(other) = called.iter().flatten().find(|object| others.contains(object)) {
        return Some(*other);
    }
    if called.iter().flatten().any(|object| *object == ours || *object == libxenlight) {
        return None;
    }
    // Something that hands on to one of us, a tracer for instance; or a program that isn't position-independent and has taken
    // the function's address.
    if let Some(first) = definer(global, OURS) {
        return (first != ours).then_some(first);
    }
    // libxenlight was loaded privately, and what stands in front of it has been loaded along with it.
    if definer(Library::process(), c"libxl_ctx_alloc") == Some(ours)
        && definer(Library::next(), c"libxl_ctx_alloc") == Some(libxenlight)
    {
        return None;
    }
    let exports = |object: &usize| {
        let file = dynlib::file_of(*object as *const c_void);
        let library = file.and_then(|file| Library::of_file(&file));
        library.is_some_and(|library| definer(library, c"libxl_event_free") == Some(*object))
    };
    let earlier = objects.iter().map(|object| object.object).take_while(|object| *object != libxenlight);
    earlier.filter(|object| others.contains(object)).find(exports)
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
