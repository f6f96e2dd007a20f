// SPDX-License-Identifier: LGPL-2.1-or-later
//! All that touches Xen: the store, the hypervisor, the log. Nothing here knows of contexts or events.
//!
//! Both bindings crates (`xenstore-sys`, `xenctrl-sys`) are used in this room alone, so that they can be replaced.

mod apart;
pub mod hypervisor;
pub mod idle;
pub mod log;
pub mod sigpipe;
pub mod store;
pub mod transaction;
pub mod wire;
mod xenctrl;

/// Domids from here on (`DOMID_FIRST_RESERVED`) are never a domain's; hypercalls would read them as something else.
pub const DOMID_LIMIT: u32 = 0x7ff0;
