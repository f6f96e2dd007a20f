// SPDX-License-Identifier: LGPL-2.1-or-later
//! The node by which a guest says on which event channel it wants to be asked to suspend.
//!
//! A guest may write into nodes that it owns, and those of its devices' directory it doesn't: so a toolstack makes this one
//! node for it. xend gave guests the whole directory instead, and there are drivers for Windows from that time that write
//! the node themselves, and are confused by one that is there already.

use std::ffi::CString;

use super::Context;
use crate::error::{Error, Result};
use crate::xen::store::{Connection, Store};
use crate::xen::transaction::Permissions;

impl Context {
    /// Lets a guest name its suspend event channel: as libxl does when it makes a domain, or as xend did.
    pub fn create_suspend_node(&self, domid: u32, xend_compat: bool) -> Result<()> {
        let node = |rest: &str| {
            // A number and names of our own: there is no zero byte to fail for.
            CString::new(format!("/local/domain/{domid}{rest}")).unwrap_or_default()
        };
        let (home, device) = (node(""), node("/device"));
        let (suspend, channel) = (node("/device/suspend"), node("/device/suspend/event-channel"));
        self.connection_for_one_call()?.transaction(|transaction| {
            if transaction.read(&home)?.is_none() {
                return Err(Error::DomainNotFound(domid));
            }
            // What is there keeps its value: the guest may have written it.
            let make = |path, permissions| {
                if transaction.read(path)?.is_none() {
                    transaction.write(path, b"")?;
                }
                transaction.set_permissions(path, permissions)
            };
            if xend_compat {
                make(&device, Permissions::OwnedBy(domid))?;
                transaction.remove(&channel)?;
                if transaction.children(&suspend)? == 0 {
                    transaction.remove(&suspend)?;
                }
                return Ok(());
            }
            make(&device, Permissions::ReadableBy(domid))?;
            make(&suspend, Permissions::ReadableBy(domid))?;
            make(&channel, Permissions::OwnedBy(domid))
        })
    }

    /// The context's connection while it is watched, and so known to be good; otherwise a new one.
    fn connection_for_one_call(&self) -> Result<Connection> {
        let state = self.state.lock();
        match &state.store {
            Some(store) if state.armed => Ok(store.connection()),
            _ => {
                drop(state);
                Ok(Store::open()?.connection())
            }
        }
    }
}
