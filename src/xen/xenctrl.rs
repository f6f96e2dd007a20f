// SPDX-License-Identifier: LGPL-2.1-or-later
//! libxenctrl's functions, bound at run time.
//!
//! Its SONAME carries Xen's release (`libxenctrl.so.4.17`), because the hypercalls behind it do. Linking it would tie one
//! build of ours to one release, and would load it into every child of a preloaded program. So it is looked for, when
//! first needed, in this order:
//!
//! 1. what the process has already (libxenlight brings it, also when that was loaded privately);
//! 2. the release that the running hypervisor names in /sys/hypervisor/version;
//! 3. the newest that the dynamic linker finds.

use std::ffi::{CString, c_int, c_uint, c_void};
use std::path::PathBuf;

use xenctrl_sys::{xc_domaininfo_t, xc_interface, xentoollog_logger};

use crate::dynlib::{self, Library, function};
use crate::sync::std_like::OnceLock;

type InterfaceOpen = unsafe extern "C" fn(*mut xentoollog_logger, *mut xentoollog_logger, c_uint) -> *mut xc_interface;
type InterfaceClose = unsafe extern "C" fn(*mut xc_interface) -> c_int;
type DomainGetinfolist = unsafe extern "C" fn(*mut xc_interface, u32, c_uint, *mut xc_domaininfo_t) -> c_int;

/// The functions that we call.
pub struct XenCtrl {
    /// Opens the hypercall interface; null and errno on failure.
    pub interface_open: InterfaceOpen,
    /// Closes it.
    pub interface_close: InterfaceClose,
    /// The domains from a domid on, ascending; their number, or -1 and errno.
    pub domain_getinfolist: DomainGetinfolist,
}

/// Xen 4.x releases that are tried when nothing names one; those before 4.8 have another interface.
const MINOR_RELEASES: std::ops::RangeInclusive<u32> = 8..=40;

/// The functions, or `None` when no libxenctrl can be found. A success is kept for the life of the process.
pub fn bind() -> Option<&'static XenCtrl> {
    static BOUND: OnceLock<XenCtrl> = OnceLock::new();
    if let Some(bound) = BOUND.get() {
        return Some(bound);
    }
    let found = libraries().find_map(resolve)?;
    Some(BOUND.get_or_init(|| found))
}

/// The file of the libxenctrl that is used, or would be.
pub fn file() -> Option<PathBuf> {
    dynlib::file_of(bind()?.interface_open as *const c_void)
}

/// Every place to look, best first; a library is only opened when those before it have not served.
fn libraries() -> impl Iterator<Item = Library> {
    let present = std::iter::once(Library::process());
    let private = std::iter::once_with(|| Library::loaded("libxenctrl.so")).flatten();
    let running = std::iter::once_with(running_release).flatten().filter_map(|release| open(&release));
    let newest = MINOR_RELEASES.rev().filter_map(|minor| open(&format!("4.{minor}")));
    present.chain(private).chain(running).chain(newest)
}

fn open(release: &str) -> Option<Library> {
    Library::open(&CString::new(format!("libxenctrl.so.{release}")).ok()?)
}

/// "4.17", as the hypervisor under us says.
fn running_release() -> Option<String> {
    let number = |name| -> Option<u32> {
        std::fs::read_to_string(format!("/sys/hypervisor/version/{name}")).ok()?.trim().parse().ok()
    };
    Some(format!("{}.{}", number("major")?, number("minor")?))
}

fn resolve(library: Library) -> Option<XenCtrl> {
    // SAFETY: these are libxenctrl's functions of those names. Their types have been the same since Xen 4.8; the one
    // structure that they fill is checked before it is used (`hypervisor::layout_fits`).
    unsafe {
        Some(XenCtrl {
            interface_open: function!(library, c"xc_interface_open", InterfaceOpen)?,
            interface_close: function!(library, c"xc_interface_close", InterfaceClose)?,
            domain_getinfolist: function!(library, c"xc_domain_getinfolist", DomainGetinfolist)?,
        })
    }
}
