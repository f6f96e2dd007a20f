// SPDX-License-Identifier: LGPL-2.1-or-later
//! ioctl: calls on the devices of a host.

use std::ffi::{c_int, c_ulong, c_void};
use std::io;

use driver::evtchn::Binding;
use driver::grants;
use driver::table::Device;

use crate::abi::{self, Request};
use crate::hosts::{self, Attached};
use crate::{errno, errno_of, fail, hypercall, next, set_errno};

/// As in the C library, but for requests to Xen's devices on descriptors that are a host's. Variadic in C: see
/// [`crate::paths`].
///
/// # Safety
/// As in the C library.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn ioctl(fd: c_int, request: c_ulong, argument: *mut c_void) -> c_int {
    type Function = unsafe extern "C-unwind" fn(c_int, c_ulong, *mut c_void) -> c_int;
    let kind = abi::request(request);
    if kind != Request::Foreign {
        let before = errno();
        let device = hosts::of_descriptor(fd);
        set_errno(before);
        if let Some((host, device)) = device {
            // SAFETY: our caller's argument for this request.
            return match unsafe { serve(host, device, kind, argument) } {
                Ok(value) => {
                    set_errno(before);
                    value
                }
                Err(errno) => fail(errno),
            };
        }
    }
    match next!(ioctl as Function) {
        // SAFETY: our caller's arguments.
        Some(next) => unsafe { next(fd, request, argument) },
        None => fail(libc::ENOSYS),
    }
}

/// # Safety
/// `argument` is what the request takes.
unsafe fn serve(host: &Attached, device: Device, request: Request, argument: *mut c_void) -> Result<c_int, c_int> {
    let done = |result: io::Result<()>| result.map(|()| 0).map_err(|error| errno_of(&error));
    match (device, request) {
        (Device::Privcmd, Request::Hypercall) => {
            // SAFETY: the caller vouches for the argument.
            let value = unsafe { hypercall::call(host, argument) };
            let value = c_int::try_from(value).unwrap_or(c_int::MAX);
            if value < 0 { Err(-value) } else { Ok(value) }
        }
        (Device::Gntdev, Request::GrantMap) => {
            // SAFETY: as above.
            let grant = unsafe { abi::get_grant(argument) };
            let offset = grants::offset(grant.domid, grant.reference).filter(|_| grant.count == 1);
            // SAFETY: as above.
            unsafe { abi::put_grant_index(argument, offset.ok_or(libc::EINVAL)?) };
            Ok(0)
        }
        (Device::Gntdev, Request::GrantOffset) => {
            // SAFETY: as above.
            unsafe { abi::put_grant_offset(argument) };
            Ok(0)
        }
        (Device::Gntdev, Request::GrantNothing) => Ok(0),
        (Device::Evtchn(slot), Request::BindVirq) => {
            // SAFETY: as above.
            let virq = unsafe { abi::get_number(argument) };
            bind(host, slot, Binding::Virq(virq))
        }
        (Device::Evtchn(slot), Request::BindInterdomain) => bind(host, slot, Binding::Interdomain),
        (Device::Evtchn(slot), Request::BindUnbound) => bind(host, slot, Binding::Unbound),
        // SAFETY: as above.
        (Device::Evtchn(slot), Request::Unbind) => {
            // SAFETY: as above.
            let port = unsafe { abi::get_number(argument) };
            done(host.channels().unbind(slot, port))
        }
        // SAFETY: as above.
        (Device::Evtchn(slot), Request::Notify) => {
            // SAFETY: as above.
            let port = unsafe { abi::get_number(argument) };
            done(host.channels().notify(slot, port))
        }
        _ => Err(libc::ENOTTY),
    }
}

fn bind(host: &Attached, slot: usize, binding: Binding) -> Result<c_int, c_int> {
    let port = host.channels().bind(slot, binding).map_err(|error| errno_of(&error))?;
    c_int::try_from(port).map_err(|_| libc::ENOSPC)
}
