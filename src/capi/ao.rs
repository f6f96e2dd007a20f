// SPDX-License-Identifier: LGPL-2.1-or-later
//! Asynchronous operations with devices.

use std::ffi::{c_int, c_uint, c_void};

use libc::size_t;

use super::asyncop::libxl_asyncop_how;
use super::ctx::libxl_ctx;
use super::entry::entry;
use super::handle::{context, failed_with, invalid, number};
use crate::abi::*;
use crate::ao::course::{Force, Goal};
use crate::ao::device::{Device, Kind};
use crate::context::{Context, Mark, Tell};
use crate::error::Result;
use crate::event::Event;

/// What a device is to its guest, with libxl's numbers. Which backend serves it is found out: a disk is a VBD also where QEMU
/// serves it. PCI devices, USB controllers and consoles are not among them: their removal takes other steps.
#[repr(C)]
pub enum XleventDeviceKindValues {
    /// A network interface.
    XLEVENT_DEVICE_KIND_VIF = 1,
    /// A disk.
    XLEVENT_DEVICE_KIND_VBD = 2,
    /// A framebuffer.
    XLEVENT_DEVICE_KIND_VFB = 5,
    /// A keyboard and a pointer.
    XLEVENT_DEVICE_KIND_VKBD = 6,
    /// A TPM.
    XLEVENT_DEVICE_KIND_VTPM = 8,
    /// A directory of the host's, by the 9P protocol.
    XLEVENT_DEVICE_KIND_9PFS = 11,
    /// A display.
    XLEVENT_DEVICE_KIND_VDISPL = 12,
    /// Calls of the host's sockets.
    XLEVENT_DEVICE_KIND_PVCALLS = 14,
    /// A sound card.
    XLEVENT_DEVICE_KIND_VSND = 15,
}

/// A kind as it crosses the boundary: one of [`XleventDeviceKindValues`], or anything that a caller makes up.
///
/// cbindgen:ignore
pub type xlevent_device_kind = c_uint;

/// Whether a backend that doesn't close is waited for.
#[repr(C)]
pub enum XleventForceValues {
    /// It has 10 s. Then the frontend's nodes are removed, so that the backend sees that its guest's side is gone, and it has
    /// another 10 s; after those, the rest is removed too. As libxl_device_disk_remove and its like.
    XLEVENT_FORCE_LATE = 0,
    /// The frontend's nodes are removed at the beginning, and the backend has 10 s before the rest is. As
    /// libxl_device_disk_destroy and its like.
    XLEVENT_FORCE_NOW = 1,
    /// It has 10 s, and after those the removal has failed. As libxl_device_disk_safe_remove.
    XLEVENT_FORCE_NEVER = 2,
}

/// A choice as it crosses the boundary: one of [`XleventForceValues`], or anything that a caller makes up.
///
/// cbindgen:ignore
pub type xlevent_force = c_uint;

constants! { XleventForceValues as xlevent_force: XLEVENT_FORCE_LATE, XLEVENT_FORCE_NOW, XLEVENT_FORCE_NEVER }

/// A device of a domain.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct xlevent_device {
    /// What it is.
    pub kind: xlevent_device_kind,
    /// Which of the domain's devices of this kind: the number in its nodes' paths. Of a disk that is what libxl makes of its
    /// name, such as 51712 of `xvda`.
    pub devid: u32,
}

fn device(domid: u32, device: xlevent_device) -> std::result::Result<Device, String> {
    let xlevent_device { kind, devid } = device;
    let kind = Kind::of_number(kind).ok_or_else(|| format!("{kind} is no kind of device that this is for"))?;
    // libxl's numbers of devices are ints.
    if i32::try_from(devid).is_err() {
        return Err(format!("{devid} is no number of a device"));
    }
    Ok(Device { domid, kind, devid })
}

fn forced(force: xlevent_force) -> std::result::Result<Force, String> {
    match force {
        XLEVENT_FORCE_LATE => Ok(Force::Late),
        XLEVENT_FORCE_NOW => Ok(Force::Now),
        XLEVENT_FORCE_NEVER => Ok(Force::Never),
        other => Err(format!("{other} is no choice of force")),
    }
}

/// What is passed on to a callback.
struct Called {
    ctx: *mut libxl_ctx,
    callback: unsafe extern "C" fn(*mut libxl_ctx, c_int, *mut c_void),
    argument: *mut c_void,
}

// SAFETY: the pointers are only passed back to the application, which lets the callback come from any thread.
unsafe impl Send for Called {}

impl Called {
    fn call(&self, rc: c_int) {
        // SAFETY: the application's function, with its argument.
        unsafe { (self.callback)(self.ctx, rc, self.argument) };
    }
}

fn result_number(result: &Result<()>) -> c_int {
    result.as_ref().map_or_else(number, |()| 0)
}

/// # Safety
/// `how` is NULL or points to one.
unsafe fn tell(ctx: *mut libxl_ctx, domid: u32, how: *const libxl_asyncop_how) -> Tell {
    // SAFETY: the caller's promise.
    let Some(how) = (unsafe { how.as_ref() }) else { return Tell::Waiter };
    match how.callback {
        Some(callback) => {
            // SAFETY: the member that goes with a callback; any bytes are a pointer.
            let argument = unsafe { how.u.for_callback };
            let called = Called { ctx, callback, argument };
            Tell::Callback(
                callback as usize,
                argument.addr(),
                Box::new(move |result| called.call(result_number(result))),
            )
        }
        None => {
            // SAFETY: the member that goes without one; any bytes are a number.
            let user = unsafe { how.u.for_event };
            Tell::Event(user, Box::new(move |result| Event::of_operation(domid, user, result_number(result))))
        }
    }
}

/// Begins an operation, and waits for its end if that is asked for.
///
/// # Safety
/// `how` is NULL or points to one.
unsafe fn operate(
    ctx: *mut libxl_ctx,
    context: &Context,
    name: &str,
    domid: u32,
    wanted: &[(Device, Goal)],
    how: *const libxl_asyncop_how,
) -> c_int {
    // SAFETY: the caller's promise.
    let tell = unsafe { tell(ctx, domid, how) };
    match context.begin_operation(domid, wanted, tell) {
        Err(error) => failed_with(context, name, domid, &error),
        Ok(_) if !how.is_null() => 0,
        // What has failed with a device was logged with it.
        Ok(id) => result_number(&context.wait_for_operation(id)),
    }
}

/// Removes a device from a domain.
///
/// As libxl does it. The backend is told to close (`online` 0, `state` 5, in one transaction), and has 10 s to say that it
/// has (`state` 6, or no `state` any more); what comes then is said by `force`. Then the device's hotplug script is run, if
/// it has one (`script` among the backend's nodes, with the argument `remove`, for a network interface `offline`, and the
/// environment that libxl gives it), with 40 s for it. At last the nodes of backend and frontend and those that libxl has of
/// the device are removed, in one transaction, and the directories above them that are empty then. A transaction that others
/// disturb is done again. In one thing it isn't as with libxl: that takes no notice of a script that fails, and removes the
/// nodes.
///
/// The script has /dev/null as its input. What it says on stdout and stderr goes to the context's logger when it has ended, in
/// lines, with control characters escaped: stderr as warnings; stdout as information, or as warnings if the script has failed.
/// Of each the first 32 lines are logged and the last 32, and of a line 400 bytes; how much is left out is said. What explains
/// a failure stands in the line of the failure, which is an error. A daemon that the script leaves running may keep stdout and
/// stderr, and write there for as long as it lives: from the script's end on that is read and dropped, by a process `cat` that
/// is no child of the application's, and ends with the daemon. (With libxl, a script has the program's own stdout and stderr.)
///
/// - A backend that is QEMU, of a guest that is paused, shut down, dying or gone, isn't told anything: QEMU has 2 s to leave,
///   and then its backend is called closed in its place.
/// - A backend in another domain has that domain run its script, and remove the backend's nodes: it has another 10 s for
///   that.
/// - The nodes that the guest owns are never read. Which backend it is, libxl's own nodes say, below
///   `/libxl/DOMID/device`; the script is the backend's domain's.
///
/// The end is told as `ao_how` says, like that of any of libxl's asynchronous operations: by a call of its callback, with no
/// lock held, which may call any function but libxl_ctx_free; or, where that is NULL, by an event of type
/// LIBXL_EVENT_TYPE_OPERATION_COMPLETE with `domid`, `for_user` and the result. `*ao_how` is copied. The callback may come
/// before this function returns. If `ao_how` is NULL the function does the library's work until the end, as libxl_event_wait
/// does, and returns the result. May be called from any thread, and from any callback or hook but fd_register and
/// fd_deregister. Devices are removed at the same time if several operations run.
///
/// Results: 0 if the device is gone; ERROR_TIMEDOUT if a backend, or the script, took too long; ERROR_FAIL if the script or
/// xenstored failed (the log says why); ERROR_ABORTED if it was called off with xlevent_ao_abort, or the context was freed
/// meanwhile. After one of these the nodes are still there and the removal can be repeated, unless `force` came to it: then
/// they are removed whatever else failed.
///
/// Returns, with nothing begun and nothing told to `ao_how`: ERROR_INVAL for a NULL or unknown `ctx`, a `kind`, `devid` or
/// `force` that there can't be, or a device that an operation of this context is at already; ERROR_DOMAIN_NOTFOUND if there
/// is no such domain, and nothing left of its device; ERROR_NOTFOUND if the domain has no such device; the value that the
/// application's fd_register hook returned if that refused; ERROR_FAIL if Xen can't be asked, or there is no descriptor left
/// to wait with (the log says why).
///
/// # Safety
///
/// `ao_how` is NULL or points to one whose callback, if any, returns normally: no longjmp, no C++ exception.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xlevent_device_remove(
    ctx: *mut libxl_ctx,
    domid: u32,
    kind: xlevent_device_kind,
    devid: u32,
    force: xlevent_force,
    ao_how: *const libxl_asyncop_how,
) -> c_int {
    entry!("xlevent_device_remove", ERROR_FAIL, {
        let name = "xlevent_device_remove";
        let context = match context(name, ctx) {
            Ok(context) => context,
            Err(rc) => return rc,
        };
        let wanted = forced(force).and_then(|force| Ok((device(domid, xlevent_device { kind, devid })?, force)));
        match wanted {
            // SAFETY: the caller's promise is the same.
            Ok((device, force)) => unsafe {
                operate(ctx, &context, name, domid, &[(device, Goal::Remove(force))], ao_how)
            },
            Err(why) => invalid(&context, name, &why),
        }
    })
}

/// Removes several devices from a domain, all at the same time, in one operation.
///
/// Each as xlevent_device_remove does it. The operation ends when all of them have come to their ends, and its result is that
/// of the first in `devices` that has failed, or 0. Calling it off calls off all that are still under way. With `count` 0
/// there is nothing to do, and the end is told at once; `devices` may be NULL then.
///
/// Returns as xlevent_device_remove; ERROR_INVAL also if a device is there twice, or for NULL `devices`. If any device is
/// refused, nothing is begun with the others.
///
/// # Safety
///
/// `devices` is NULL or points to `count` of them; `ao_how` is as for xlevent_device_remove.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xlevent_devices_remove(
    ctx: *mut libxl_ctx,
    domid: u32,
    devices: *const xlevent_device,
    count: size_t,
    force: xlevent_force,
    ao_how: *const libxl_asyncop_how,
) -> c_int {
    entry!("xlevent_devices_remove", ERROR_FAIL, {
        let name = "xlevent_devices_remove";
        let context = match context(name, ctx) {
            Ok(context) => context,
            Err(rc) => return rc,
        };
        if devices.is_null() && count > 0 {
            return invalid(&context, name, "the devices are NULL");
        }
        let goal = match forced(force) {
            Ok(force) => Goal::Remove(force),
            Err(why) => return invalid(&context, name, &why),
        };
        let mut wanted = Vec::new();
        for index in 0..count {
            // SAFETY: not null, so an array of `count`; any bytes are one of these.
            let listed = unsafe { *devices.add(index) };
            match device(domid, listed) {
                Ok(device) => wanted.push((device, goal)),
                Err(why) => return invalid(&context, name, &why),
            }
        }
        // SAFETY: the caller's promise is the same.
        unsafe { operate(ctx, &context, name, domid, &wanted, ao_how) }
    })
}

/// Waits until a new device's backend is ready for its guest, and runs the hotplug script.
///
/// The other direction of xlevent_device_remove, for who has written the nodes of a new device: the backend has 10 s to come
/// to `state` 2 (InitWait), or further (3, 4). Then the script is run with `add`, for a network interface `online`. QEMU is
/// not waited for and has no script; a backend in another domain has its script run there.
///
/// If the backend is late or gone, or the script fails or is late, the device is removed as xlevent_device_remove does it
/// with XLEVENT_FORCE_NOW, and the result is what had failed. If the operation is called off, nodes are left as they are: it
/// can be begun again, or the device removed.
///
/// The end is told, and the results and return values are, as with xlevent_device_remove.
///
/// # Safety
///
/// As for xlevent_device_remove.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xlevent_device_wait_ready(
    ctx: *mut libxl_ctx,
    domid: u32,
    kind: xlevent_device_kind,
    devid: u32,
    ao_how: *const libxl_asyncop_how,
) -> c_int {
    entry!("xlevent_device_wait_ready", ERROR_FAIL, {
        let name = "xlevent_device_wait_ready";
        let context = match context(name, ctx) {
            Ok(context) => context,
            Err(rc) => return rc,
        };
        match device(domid, xlevent_device { kind, devid }) {
            // SAFETY: the caller's promise is the same.
            Ok(device) => unsafe { operate(ctx, &context, name, domid, &[(device, Goal::Connect)], ao_how) },
            Err(why) => invalid(&context, name, &why),
        }
    })
}

/// Calls an asynchronous operation of this library's off. (libxenlight's own are libxl_ao_abort's.)
///
/// As libxl_ao_abort, it is found by its `how`: the same callback with the same argument, or without a callback the same
/// `for_event`; NULL stands for one that a thread waits for in the function that began it. Of several, the latest counts.
///
/// It ends as soon as it can, with ERROR_ABORTED, and that is told as its `how` says, maybe before this function returns. What
/// is under way is never left half done: a change of nodes is waited for, and a script is told to end (SIGTERM, and SIGKILL 5 s
/// later). It may also end otherwise, if it was about to. After a removal that was called off, the nodes that are there are
/// left, and it can be repeated.
///
/// Returns 0; ERROR_NOTFOUND if there is no such operation under way, it may just have ended; ERROR_ABORTED if it has been
/// called off before; ERROR_INVAL for a NULL or unknown `ctx`. May be called from any thread and any callback.
///
/// # Safety
///
/// `how` is NULL or points to one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xlevent_ao_abort(ctx: *mut libxl_ctx, how: *const libxl_asyncop_how) -> c_int {
    entry!("xlevent_ao_abort", ERROR_FAIL, {
        let name = "xlevent_ao_abort";
        let context = match context(name, ctx) {
            Ok(context) => context,
            Err(rc) => return rc,
        };
        // SAFETY: the caller's promise.
        let mark = match unsafe { how.as_ref() } {
            None => Mark::Waiter,
            // SAFETY: the members that go with a callback and without; any bytes are one.
            Some(how) => unsafe {
                match how.callback {
                    Some(callback) => Mark::Callback(callback as usize, how.u.for_callback.addr()),
                    None => Mark::Event(how.u.for_event),
                }
            },
        };
        match context.abort_operation(mark) {
            Ok(()) => 0,
            // Neither is a mistake: it may just have ended.
            Err(error) => number(&error),
        }
    })
}
