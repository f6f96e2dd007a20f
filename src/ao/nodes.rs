// SPDX-License-Identifier: LGPL-2.1-or-later
//! What is read of a device's nodes, and what is changed: each change one transaction, done again if others interfere.
//!
//! Every function waits for xenstored: not under a lock.

use super::device::{Backend, BackendState, Device};
use super::script::Found;
use crate::error::{Error, Result};
use crate::evgen::vbd::{c_value, stub_domain, stub_domain_path};
use crate::xen::store::Connection;

/// The domain that domains and their devices belong to.
pub const TOOLSTACK_DOMID: u32 = 0;

/// The domain that this program runs in, as xenstored knows it. The control domain's may be without the node.
pub fn own_domid(connection: &Connection) -> Result<u32> {
    let Some(value) = connection.read(c"domid")? else { return Ok(TOOLSTACK_DOMID) };
    let text = std::str::from_utf8(c_value(&value)).ok();
    let number = text.and_then(|text| text.parse().ok());
    number.ok_or_else(|| Error::Failed("xenstore's node domid, of the own domain, is no number".to_owned()))
}

/// Who serves a device, as the toolstack's own nodes have it; `None` if there is no such device.
pub fn backend(connection: &Connection, device: Device) -> Result<Option<Backend>> {
    let node = device.own_backend();
    let Some(value) = connection.read(&node)? else { return Ok(None) };
    let backend = device.backend(&value);
    backend.map(Some).ok_or_else(|| {
        let value = String::from_utf8_lossy(&value).into_owned();
        Error::Failed(format!("{} is {value:?}, which is no backend of it", node.to_string_lossy()))
    })
}

/// What there was to close.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closing {
    /// The backend has been told to.
    Told,
    /// There is no backend.
    Gone,
}

/// Tells a backend to close, after cutting the frontend off or not.
pub fn close(connection: &Connection, backend: &Backend, cut_off: bool) -> Result<Closing> {
    connection.transaction(|transaction| {
        if cut_off {
            transaction.remove_with_empty_parents(&backend.device.frontend())?;
        }
        let Some(state) = transaction.read(&backend.node("state"))? else { return Ok(Closing::Gone) };
        transaction.write(&backend.node("online"), b"0")?;
        if BackendState::of(&state) != BackendState::CLOSED {
            transaction.write(&backend.node("state"), BackendState::CLOSING.value().as_bytes())?;
        }
        Ok(Closing::Told)
    })
}

/// Says that a backend has closed, in its place, if it is still there.
pub fn set_closed(connection: &Connection, backend: &Backend) -> Result<()> {
    let node = backend.node("state");
    connection.transaction(|transaction| match transaction.read(&node)? {
        Some(state) if BackendState::of(&state) != BackendState::CLOSED => {
            transaction.write(&node, BackendState::CLOSED.value().as_bytes())
        }
        _ => Ok(()),
    })
}

/// Removes a device's nodes, those above them that are empty then, and the toolstack's own. In a driver domain, which may
/// change no others, those of its own backend alone.
pub fn clean_up(connection: &Connection, backend: &Backend, own_domid: u32) -> Result<()> {
    let device = backend.device;
    connection.transaction(|transaction| {
        if own_domid == TOOLSTACK_DOMID {
            transaction.remove_with_empty_parents(&device.frontend())?;
            transaction.remove_with_empty_parents(&device.own())?;
        }
        if own_domid == TOOLSTACK_DOMID || own_domid == backend.domid {
            transaction.remove_with_empty_parents(&backend.directory())?;
        }
        Ok(())
    })
}

/// What a hotplug script has to be told of a device. Of the guest's own nodes, none is asked.
pub fn script(connection: &Connection, backend: &Backend) -> Result<Found> {
    let read = |name| connection.read(&backend.node(name));
    let stub = connection.read(&stub_domain_path(backend.device.domid))?;
    Ok(Found {
        script: read("script")?,
        gateway_device: read("gatewaydev")?,
        interface_type: read("type")?,
        has_stub_domain: stub.as_deref().and_then(stub_domain).is_some(),
    })
}

/// What a hotplug script has left behind to say why it has failed.
pub fn hotplug_error(connection: &Connection, backend: &Backend) -> Option<String> {
    let value = connection.read(&backend.node("hotplug-error")).ok().flatten()?;
    Some(String::from_utf8_lossy(c_value(&value)).into_owned())
}
