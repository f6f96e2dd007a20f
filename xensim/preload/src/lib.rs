// SPDX-License-Identifier: LGPL-2.1-or-later
//! `libxensim.so`: what programs on a simulated host have in place of Xen's devices, and the C driver for tests.
//!
//! | room | what it is for |
//! |---|---|
//! | [`paths`] | the C library's functions that take a path: Xen's devices and files are in the host's directory |
//! | [`ioctl`] | calls on the devices |
//! | [`evtchn`] | the one call on event channels that is no ioctl |
//! | [`hypercall`] | what a hypercall does to the table |
//! | [`abi`] | how hypercalls are laid out, with `abi/abi.c` |
//! | [`hosts`] | the hosts that this process has to do with |
//! | [`lifeline`] | in xenstored: the end with the host's owner |
//! | [`cdriver`] | the functions of `include/xensim.h` |
//!
//! Invariants:
//! - Nothing is caught unless the path is one of Xen's and the process has a host, or the descriptor is one of a
//!   host's. Everything else goes on to the next library in line, with its arguments and errno as they were.
//! - An open device is known by its inode, and by no list in this process: duplicated, inherited and passed-on
//!   descriptors are as good as the first, and closing one needs no care.
//! - No lock is held and nothing is allocated in a caught call, but that the first call on a host maps its table, and
//!   that creating domains and opening event channels take the host's file lock. A fork at any moment is fine.
//! - Functions that the C library may be cancelled in (open, and what else waits) are `extern "C-unwind"` and hold
//!   nothing that would have to be dropped.

mod abi;
mod cdriver;

mod evtchn;
mod hosts;
mod hypercall;
mod ioctl;
mod lifeline;
mod paths;

/// The next definition of a function after ours, looked up once; `None` if nobody else has it.
macro_rules! next {
    ($name:ident as $type:ty) => {{
        static NEXT: std::sync::atomic::AtomicPtr<libc::c_void> =
            std::sync::atomic::AtomicPtr::new(std::ptr::null_mut());
        let mut address = NEXT.load(std::sync::atomic::Ordering::Relaxed);
        if address.is_null() {
            // SAFETY: a constant name that ends with a zero; the answer is an address or null.
            address = unsafe { libc::dlsym(libc::RTLD_NEXT, concat!(stringify!($name), "\0").as_ptr().cast()) };
            NEXT.store(address, std::sync::atomic::Ordering::Relaxed);
        }
        // SAFETY: the function of that name has that type; null becomes None.
        unsafe { std::mem::transmute::<*mut libc::c_void, Option<$type>>(address) }
    }};
}
pub(crate) use next;

/// This thread's errno.
fn errno() -> i32 {
    // SAFETY: always valid, and this thread's own.
    unsafe { *libc::__errno_location() }
}

/// Sets this thread's errno.
fn set_errno(errno: i32) {
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = errno };
}

/// Sets errno and returns -1, as most calls fail.
fn fail(errno: i32) -> i32 {
    set_errno(errno);
    -1
}

/// The errno of a failed operation.
fn errno_of(error: &std::io::Error) -> i32 {
    error.raw_os_error().unwrap_or(libc::EIO)
}
