// SPDX-License-Identifier: LGPL-2.1-or-later
//! libxl's way to say how the end of an asynchronous operation is told; a type of `<libxl.h>`.

use std::ffi::{c_int, c_void};

use super::ctx::libxl_ctx;
use crate::abi::*;

/// By what an application knows an operation again.
#[repr(C)]
#[derive(Clone, Copy)]
pub union libxl_asyncop_how_u {
    /// Without a callback: `for_user` of the event.
    pub for_event: libxl_ev_user,
    /// With one: its argument.
    pub for_callback: *mut c_void,
}

/// How the end of an asynchronous operation is told.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct libxl_asyncop_how {
    /// Called once, with the operation's result. NULL: there is an event of type LIBXL_EVENT_TYPE_OPERATION_COMPLETE instead.
    pub callback: Option<unsafe extern "C" fn(ctx: *mut libxl_ctx, rc: c_int, for_callback: *mut c_void)>,
    /// What comes back with it.
    pub u: libxl_asyncop_how_u,
}
