// SPDX-License-Identifier: LGPL-2.1-or-later
//! Xen's event library, `libxl_event.h`, in Rust and with the same C ABI.

pub mod capi;
mod dynlib;
pub mod error;
pub mod evgen;
pub mod reactor;
pub mod xen;
