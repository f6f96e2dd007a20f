// SPDX-License-Identifier: LGPL-2.1-or-later
//! Hypercalls: made to misbehave, and counted.

use std::ffi::{c_int, c_uint};
use std::time::Duration;

use driver::{Access, Call, Fault, Role};

use super::{Failure, Handle, Result, guard, handle, status};

/// `struct xensim_fault`.
#[repr(C)]
pub struct CFault {
    errnum: c_int,
    times: u64,
    after: u64,
    delay_us: u64,
}

fn call(call: c_uint) -> Result<Call> {
    Call::ALL.get(call as usize).copied().ok_or_else(|| Failure::invalid("an unknown kind of hypercall"))
}

/// See `xensim.h`.
///
/// # Safety
/// `host` is null or a handle that is in use, `fault` null or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xensim_inject(host: *mut Handle, kind: c_uint, fault: *const CFault) -> c_int {
    const ALWAYS: u64 = u64::MAX;
    status(|| {
        // SAFETY: the caller's word.
        let (handle, fault) = unsafe { (handle(host)?, fault.as_ref()) };
        let fault = fault.ok_or_else(|| Failure::invalid("the fault is NULL"))?;
        let fault = Fault {
            errno: fault.errnum,
            times: Some(fault.times).filter(|times| *times != ALWAYS),
            after: fault.after,
            delay: Duration::from_micros(fault.delay_us),
            role: Role::Client,
        };
        handle.host.inject(call(kind)?, &fault);
        Ok(())
    })
}

/// See `xensim.h`.
///
/// # Safety
/// `host` is null or a handle that is in use.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xensim_clear_faults(host: *mut Handle) -> c_int {
    status(|| {
        // SAFETY: the caller's word.
        unsafe { handle(host) }?.host.clear_faults();
        Ok(())
    })
}

/// See `xensim.h`.
///
/// # Safety
/// `host` is null or a handle that is in use.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xensim_count(host: *mut Handle, kind: c_uint) -> u64 {
    // SAFETY: the caller's word.
    guard(0, || Ok(unsafe { handle(host) }?.host.count(call(kind)?)))
}

/// See `xensim.h`.
///
/// # Safety
/// `host` is null or a handle that is in use.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xensim_reset_counts(host: *mut Handle) -> c_int {
    status(|| {
        // SAFETY: the caller's word.
        unsafe { handle(host) }?.host.reset_counts();
        Ok(())
    })
}

/// See `xensim.h`.
///
/// # Safety
/// `host` is null or a handle that is in use.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xensim_access(host: *mut Handle, access: c_uint) -> c_int {
    status(|| {
        let access = match access {
            0 => Access::Full,
            1 => Access::NoPermission,
            2 => Access::NoHypervisor,
            _ => return Err(Failure::invalid("an unknown kind of access")),
        };
        // SAFETY: the caller's word.
        unsafe { handle(host) }?.host.set_access(access);
        Ok(())
    })
}
