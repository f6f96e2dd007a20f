// SPDX-License-Identifier: LGPL-2.1-or-later
//! The suspend event channel's node.

use std::ffi::c_int;

use super::ctx::libxl_ctx;
use super::entry::entry;
use super::handle::{context, failed_with};
use crate::abi::*;

/// Lets a guest name its suspend event channel.
///
/// A guest that can be asked to suspend through an event channel writes its number into
/// `/local/domain/DOMID/device/suspend/event-channel`. With `xend_compat` 0 the node is made, empty, and is the guest's to
/// write; the directories above it can be read by the guest and not written. That is what libxl does for every domain
/// that it creates, with the same permissions.
///
/// Otherwise the node is left out, and taken away if it is there; instead the guest owns `/local/domain/DOMID/device` and may
/// write below it, as with xend, and with libxl for a domain that is configured with `xend_suspend_evtchn_compat`: there are
/// PV drivers for Windows from xend's time that write the node themselves, and don't work where it exists before.
///
/// It is done in one transaction, so that nobody sees a part of it, and again if others have changed the same nodes
/// meanwhile. It may be called again, also the other way round: a node that the guest has written keeps its value. The nodes
/// of devices are left alone.
///
/// Waits for xenstored's answers. Needs no event loop, and starts none. May be called from any callback.
///
/// Returns 0; ERROR_INVAL for a NULL or unknown `ctx`; ERROR_DOMAIN_NOTFOUND if xenstore has no such domain; ERROR_FAIL if
/// xenstored can't be asked, or refuses (the log says why). On an error nothing is changed.
///
/// # Safety
///
/// No requirement beyond those of all functions.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xlevent_suspend_node_create(ctx: *mut libxl_ctx, domid: u32, xend_compat: c_int) -> c_int {
    entry!("xlevent_suspend_node_create", ERROR_FAIL, {
        let name = "xlevent_suspend_node_create";
        let context = match context(name, ctx) {
            Ok(context) => context,
            Err(rc) => return rc,
        };
        match context.create_suspend_node(domid, xend_compat != 0) {
            Ok(()) => 0,
            Err(error) => failed_with(&context, name, domid, &error),
        }
    })
}
