// SPDX-License-Identifier: LGPL-2.1-or-later
//! Devices of guests: their names, the places of their nodes, and who serves them.
//!
//! A device has a frontend, the guest's side; a backend, the side of the domain that serves it; and a directory of the
//! toolstack's own, below `/libxl`, which alone is believed: guests own their frontends' nodes, and may write anything
//! there. Even of the toolstack's own only a backend path of exactly the right form is taken.

use std::ffi::CString;
use std::fmt;

use crate::xen::DOMID_LIMIT;

/// A path made of numbers and of names that were checked: there is no zero byte to fail for.
fn path(path: String) -> CString {
    CString::new(path).unwrap_or_default()
}

/// What a device is to its guest. The discriminants are those of the C interface, which are libxl's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A network interface.
    Vif = 1,
    /// A disk, whoever serves it.
    Vbd = 2,
    /// A framebuffer.
    Vfb = 5,
    /// A keyboard and a pointer.
    Vkbd = 6,
    /// A TPM.
    Vtpm = 8,
    /// A directory of the host's, by the 9P protocol.
    P9 = 11,
    /// A display.
    Vdispl = 12,
    /// Calls of the host's sockets.
    Pvcalls = 14,
    /// A sound card.
    Vsnd = 15,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 9] =
        [Kind::Vif, Kind::Vbd, Kind::Vfb, Kind::Vkbd, Kind::Vtpm, Kind::P9, Kind::Vdispl, Kind::Pvcalls, Kind::Vsnd];

    /// The kind of this number, if there is one.
    pub fn of_number(number: u32) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| *kind as u32 == number)
    }

    /// As it is called in xenstore's paths.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Vif => "vif",
            Kind::Vbd => "vbd",
            Kind::Vfb => "vfb",
            Kind::Vkbd => "vkbd",
            Kind::Vtpm => "vtpm",
            Kind::P9 => "9pfs",
            Kind::Vdispl => "vdispl",
            Kind::Pvcalls => "pvcalls",
            Kind::Vsnd => "vsnd",
        }
    }
}

/// A device of a guest's, whether it exists or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Device {
    /// The guest.
    pub domid: u32,
    /// What it is.
    pub kind: Kind,
    /// Which of them.
    pub devid: u32,
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "device {} {} of domain {}", self.kind.name(), self.devid, self.domid)
    }
}

impl Device {
    /// The toolstack's own directory for it.
    pub fn own(&self) -> CString {
        path(format!("/libxl/{}/device/{}/{}", self.domid, self.kind.name(), self.devid))
    }

    /// Where that says who serves it.
    pub fn own_backend(&self) -> CString {
        path(format!("/libxl/{}/device/{}/{}/backend", self.domid, self.kind.name(), self.devid))
    }

    /// The guest's side.
    pub fn frontend(&self) -> CString {
        path(format!("/local/domain/{}/device/{}/{}", self.domid, self.kind.name(), self.devid))
    }

    /// What the path of a backend says, if it is the path of a backend of this device:
    /// `/local/domain/BACKEND-DOMAIN/backend/KIND/DOMID/DEVID`.
    pub fn backend(&self, value: &[u8]) -> Option<Backend> {
        let text = std::str::from_utf8(value).ok()?;
        let parts: Vec<&str> = text.splitn(9, '/').collect();
        let ["", "local", "domain", domid, "backend", kind, front, devid] = parts[..] else { return None };
        let domid = number(domid).filter(|domid| *domid < DOMID_LIMIT)?;
        let fits = number(front) == Some(self.domid) && number(devid) == Some(self.devid);
        let named = (1..=KIND_MAX).contains(&kind.len())
            && kind.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
        (fits && named).then(|| Backend { domid, kind: kind.to_owned(), device: *self })
    }
}

/// Longer than the name of any kind of backend.
const KIND_MAX: usize = 15;

/// A number as a toolstack writes it: digits, and no more of them than it takes.
fn number(text: &str) -> Option<u32> {
    let canonical = text == "0" || (!text.starts_with('0') && text.bytes().all(|byte| byte.is_ascii_digit()));
    if canonical { text.parse().ok() } else { None }
}

/// Who serves a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backend {
    /// The domain that does.
    pub domid: u32,
    /// By what, as it is called in paths: letters, digits and `_`.
    kind: String,
    /// The device.
    pub device: Device,
}

impl Backend {
    /// By what it is served.
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// Whether QEMU serves it, which may be gone before the toolstack comes to the guest's devices.
    pub fn is_qemus(&self) -> bool {
        matches!(self.kind(), "qdisk" | "vfb" | "qusb" | "9pfs" | "vkbd")
    }

    /// Where it is below the nodes of the domain that serves it.
    pub fn relative(&self) -> String {
        let Device { domid, devid, .. } = self.device;
        format!("backend/{}/{domid}/{devid}", self.kind)
    }

    /// Its directory.
    pub fn directory(&self) -> CString {
        path(format!("/local/domain/{}/{}", self.domid, self.relative()))
    }

    /// One of its nodes.
    pub fn node(&self, name: &str) -> CString {
        path(format!("/local/domain/{}/{}/{name}", self.domid, self.relative()))
    }
}

/// How far a backend has come: the numbers of Xen's `XenbusState`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct BackendState(u32);

impl BackendState {
    /// `XenbusStateInitWait`: it waits for its hotplug script, or for the frontend.
    pub const INIT_WAIT: BackendState = BackendState(2);
    /// `XenbusStateConnected`.
    pub const CONNECTED: BackendState = BackendState(4);
    /// `XenbusStateClosing`.
    pub const CLOSING: BackendState = BackendState(5);
    /// `XenbusStateClosed`.
    pub const CLOSED: BackendState = BackendState(6);

    /// What a value of the node says; 0, `XenbusStateUnknown`, for what isn't a number.
    pub fn of(value: &[u8]) -> BackendState {
        BackendState(std::str::from_utf8(value).ok().and_then(number).unwrap_or(0))
    }

    /// The node's value.
    pub fn value(self) -> String {
        self.0.to_string()
    }

    /// It is there for its frontend, or will be as soon as its hotplug script has been run.
    pub fn is_ready(self) -> bool {
        (BackendState::INIT_WAIT..=BackendState::CONNECTED).contains(&self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DISK: Device = Device { domid: 3, kind: Kind::Vbd, devid: 51712 };

    #[test]
    fn every_kind_has_a_number_and_a_name_of_its_own() {
        for (index, kind) in Kind::ALL.into_iter().enumerate() {
            assert_eq!(Kind::of_number(kind as u32), Some(kind));
            assert!(Kind::ALL[..index].iter().all(|other| other.name() != kind.name()));
        }
        for number in [0, 3, 4, 7, 9, 10, 13, 16, u32::MAX] {
            assert_eq!(Kind::of_number(number), None);
        }
    }

    #[test]
    fn nodes_are_where_libxl_has_them() {
        assert_eq!(DISK.own().to_bytes(), b"/libxl/3/device/vbd/51712");
        assert_eq!(DISK.own_backend().to_bytes(), b"/libxl/3/device/vbd/51712/backend");
        assert_eq!(DISK.frontend().to_bytes(), b"/local/domain/3/device/vbd/51712");
        let backend = DISK.backend(b"/local/domain/7/backend/qdisk/3/51712").unwrap();
        assert_eq!((backend.domid, backend.kind(), backend.is_qemus()), (7, "qdisk", true));
        assert_eq!(backend.directory().to_bytes(), b"/local/domain/7/backend/qdisk/3/51712");
        assert_eq!(backend.node("state").to_bytes(), b"/local/domain/7/backend/qdisk/3/51712/state");
        assert_eq!(backend.relative(), "backend/qdisk/3/51712");
        assert!(!DISK.backend(b"/local/domain/0/backend/vbd/3/51712").unwrap().is_qemus());
    }

    #[test]
    fn what_is_no_path_of_a_backend_of_the_device_is_not_believed() {
        for value in [
            "",
            "/",
            "/local/domain/0/backend/vbd/3",
            "/local/domain/0/backend/vbd/3/51712/",
            "/local/domain/0/backend/vbd/3/51712/state",
            "/local/domain/0/backend/vbd/3/51713",
            "/local/domain/0/backend/vbd/4/51712",
            "/local/domain/0/backend/vbd/03/51712",
            "/local/domain/0/backend/vbd/3/+51712",
            "/local/domain/0/backend/../3/51712",
            "/local/domain/0/backend//3/51712",
            "/local/domain/0/backend/VBD/3/51712",
            "/local/domain/0/backend/averylongkindindeed/3/51712",
            "/local/domain/../backend/vbd/3/51712",
            "/local/domain/32752/backend/vbd/3/51712",
            "/local/domain//backend/vbd/3/51712",
            "/local/domain/3/device/vbd/3/51712",
            "/libxl/domain/0/backend/vbd/3/51712",
            "local/domain/0/backend/vbd/3/51712",
            " /local/domain/0/backend/vbd/3/51712",
            "/local/domain/0/backend/vbd/3/51712\n",
            "/local/domain/0/backend/vbd/3/51712\0",
        ] {
            assert_eq!(DISK.backend(value.as_bytes()), None, "{value:?}");
        }
        assert_eq!(DISK.backend(b"/local/domain/0/backend/vbd/3/51712\xff"), None);
    }

    #[test]
    fn a_state_that_is_no_number_is_unknown() {
        for value in [&b""[..], b"x", b" 6", b"6 ", b"06", b"+6", b"-6", b"6\0", b"99999999999", b"\xff"] {
            let state = BackendState::of(value);
            assert_eq!(state, BackendState(0), "{value:?}");
            assert!(!state.is_ready());
        }
        assert_eq!(BackendState::of(b"6"), BackendState::CLOSED);
        assert_eq!(BackendState::of(BackendState::CLOSING.value().as_bytes()), BackendState::CLOSING);
        for (state, ready) in [(b"1", false), (b"2", true), (b"3", true), (b"4", true), (b"5", false), (b"6", false)] {
            assert_eq!(BackendState::of(state).is_ready(), ready);
        }
    }
}
