// SPDX-License-Identifier: LGPL-2.1-or-later
//! The one call on event channels that is no ioctl: unmasking a port is a write to the device.
//!
//! It is caught one step earlier, where libxenevtchn is called, so that nobody's `write` has to be. (What the device
//! would be written to is a FIFO: the number would come back as an event.)

use std::ffi::{c_int, c_void};

use driver::table::Device;

use crate::{errno, errno_of, fail, hosts, next, set_errno};

/// Lets a port deliver again.
///
/// # Safety
/// As in libxenevtchn.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn xenevtchn_unmask(handle: *mut c_void, port: u32) -> c_int {
    type Function = unsafe extern "C-unwind" fn(*mut c_void, u32) -> c_int;
    type GetFd = unsafe extern "C-unwind" fn(*mut c_void) -> c_int;
    if let Some(get_fd) = next!(xenevtchn_fd as GetFd) {
        let before = errno();
        // SAFETY: our caller's handle.
        let device = hosts::of_descriptor(unsafe { get_fd(handle) });
        set_errno(before);
        if let Some((host, Device::Evtchn(slot))) = device {
            return match host.channels().unmask(slot, port) {
                Ok(()) => {
                    set_errno(before);
                    0
                }
                Err(error) => fail(errno_of(&error)),
            };
        }
    }
    match next!(xenevtchn_unmask as Function) {
        // SAFETY: our caller's arguments.
        Some(next) => unsafe { next(handle, port) },
        None => fail(libc::ENOSYS),
    }
}
