// SPDX-License-Identifier: LGPL-2.1-or-later
//! Names and nodes of virtual disks: from a disk's name to its nodes in xenstore, and what their values mean.
//!
//! A guest owns its frontends' nodes, and may write any bytes: what isn't exactly of the form that toolstacks write has no
//! meaning. What it must not be able to choose is read in the toolstack's own nodes, below `/libxl`. Values are as C sees
//! them: they end at their first zero byte.

use std::ffi::CString;

use crate::xen::DOMID_LIMIT;

/// The largest number of a disk, and of a partition on it, that the extended encoding has room for.
const DISK_MAX: u32 = (1 << 20) - 1;
const PARTITION_MAX: u32 = 255;

/// The number of the device by whose name, `vdev`, a toolstack's user knows a disk; `None` for what is no such name.
///
/// The names are `xvda` or `xvda1`, `d0p0`, `hda` to `hdd`, `sda` to `sdp`, each with a partition or none, and the number
/// itself, which may be hexadecimal (`0x…`) or octal (`0…`) as in C.
pub fn devid(vdev: &[u8]) -> Option<u32> {
    if let Some(devid) = c_number(vdev) {
        return (devid <= i32::MAX as u32).then_some(devid);
    }
    if let Some((disk, partition)) = lettered(vdev, b"xvd", DISK_MAX, PARTITION_MAX).or_else(|| numbered(vdev)) {
        return Some(match disk <= 15 && partition <= 15 {
            true => (202 << 8) | (disk << 4) | partition,
            false => (1 << 28) | (disk << 8) | partition,
        });
    }
    if let Some((disk, partition)) = lettered(vdev, b"hd", 3, 63) {
        let major = if disk < 2 { 3 } else { 22 };
        return Some((major << 8) | ((disk & 1) << 6) | partition);
    }
    let (disk, partition) = lettered(vdev, b"sd", 15, 15)?;
    Some((8 << 8) | (disk << 4) | partition)
}

/// Disk and partition of a name like `xvdc1`. After `z` comes `aa`.
fn lettered(vdev: &[u8], prefix: &[u8], disk_max: u32, partition_max: u32) -> Option<(u32, u32)> {
    let rest = vdev.strip_prefix(prefix)?;
    let letters = rest.iter().take_while(|byte| byte.is_ascii_lowercase()).count();
    let (letters, digits) = rest.split_at(letters);
    let mut count = 0u32;
    for letter in letters {
        count = count * 26 + u32::from(letter - b'a') + 1;
        if count > disk_max + 1 {
            return None;
        }
    }
    let disk = count.checked_sub(1)?;
    let partition = match digits {
        [] => 0,
        // There is no partition 0, and 01 would be a second name of 1.
        [b'0', ..] => return None,
        digits => decimal(digits)?,
    };
    (partition <= partition_max).then_some((disk, partition))
}

/// Disk and partition of a name like `d2p1`.
fn numbered(vdev: &[u8]) -> Option<(u32, u32)> {
    let rest = vdev.strip_prefix(b"d")?;
    let at = rest.iter().position(|byte| *byte == b'p')?;
    let (disk, partition) = (c_number(&rest[..at])?, c_number(&rest[at + 1..])?);
    (disk <= DISK_MAX && partition <= PARTITION_MAX).then_some((disk, partition))
}

/// A number without sign, in one of C's bases.
fn c_number(text: &[u8]) -> Option<u32> {
    match text {
        [b'0', b'x' | b'X', digits @ ..] => number(digits, 16),
        [b'0', digits @ ..] if !digits.is_empty() => number(digits, 8),
        digits => number(digits, 10),
    }
}

fn decimal(text: &[u8]) -> Option<u32> {
    number(text, 10)
}

/// At least one digit, nothing but digits.
fn number(digits: &[u8], base: u32) -> Option<u32> {
    if digits.is_empty() {
        return None;
    }
    digits
        .iter()
        .try_fold(0u32, |number, byte| number.checked_mul(base)?.checked_add(char::from(*byte).to_digit(base)?))
}

/// The number of a domain that there can be.
fn domid(text: &[u8]) -> Option<u32> {
    decimal(text).filter(|domid| *domid < DOMID_LIMIT)
}

/// A value as C sees it.
pub fn c_value(value: &[u8]) -> &[u8] {
    value.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// Where the number of a domain's stub domain stands, if it has one.
pub fn stub_domain_path(domid: u32) -> CString {
    path(format!("/local/domain/{domid}/image/device-model-domid"))
}

/// The stub domain that a value of that node names. 0 stands for a device model in the control domain.
pub fn stub_domain(value: &[u8]) -> Option<u32> {
    domid(c_value(value)).filter(|domid| *domid != 0)
}

/// A disk as a frontend, the side of the guest. It is named by numbers, which need not be those of anything that exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Frontend {
    /// The domain whose device it is: the guest, or its stub domain.
    pub domid: u32,
    /// See [`devid`].
    pub devid: u32,
}

impl Frontend {
    /// The path of one of its nodes.
    pub fn node(self, name: &str) -> CString {
        path(format!("/local/domain/{}/device/vbd/{}/{name}", self.domid, self.devid))
    }

    /// The path of one of the toolstack's own nodes of the disk.
    pub fn own_node(self, name: &str) -> CString {
        path(format!("/libxl/{}/device/vbd/{}/{name}", self.domid, self.devid))
    }
}

/// Only numbers and names of our own are in our paths, so there is no zero byte to fail for.
fn path(path: String) -> CString {
    CString::new(path).unwrap_or_default()
}

/// What kind of backend serves a disk, as far as libxl tells them apart here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BackendKind {
    /// None of these.
    #[default]
    Unknown,
    /// blktap, and what the kernel serves, which libxl counts among it here.
    Tap,
    /// QEMU.
    Qdisk,
}

/// A disk's other side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Backend {
    /// The domain that serves it; 0 if that isn't known.
    pub domid: u32,
    /// How.
    pub kind: BackendKind,
}

/// What the path of a backend says: `/local/domain/DOMID/backend/TYPE/FRONTEND/DEVID`. Of anything else, nothing is
/// believed. Whose frontend and device it is isn't used: we know of which disk the path is.
pub fn backend(value: &[u8]) -> Backend {
    let parts: Vec<&[u8]> = c_value(value).splitn(9, |byte| *byte == b'/').collect();
    let [b"", b"local", b"domain", back, b"backend", kind, front, devid] = parts[..] else {
        return Backend::default();
    };
    let (Some(back), Some(_), Some(_)) = (domid(back), domid(front), decimal(devid)) else {
        return Backend::default();
    };
    let kind = match kind {
        b"tap" | b"vbd" | b"vbd3" => BackendKind::Tap,
        b"qdisk" => BackendKind::Qdisk,
        _ => BackendKind::Unknown,
    };
    Backend { domid: back, kind }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_disks_have_the_numbers_that_xen_gives_them() {
        for (vdev, number) in [
            ("xvda", 51712),
            ("xvda1", 51713),
            ("xvdp15", 51967),
            // Beyond 16 disks or 16 partitions: the extended encoding.
            ("xvdq", (1 << 28) | (16 << 8)),
            ("xvda16", (1 << 28) | 16),
            ("xvdz", (1 << 28) | (25 << 8)),
            ("xvdaa", (1 << 28) | (26 << 8)),
            ("xvdba255", (1 << 28) | (52 << 8) | 255),
            ("xvdbgqcv", (1 << 28) | (DISK_MAX << 8)),
            ("d0p0", 51712),
            ("d0p1", 51713),
            ("d16p0", (1 << 28) | (16 << 8)),
            ("d0x10p010", (1 << 28) | (16 << 8) | 8),
            ("d1048575p255", (1 << 28) | (DISK_MAX << 8) | 255),
            ("hda", 768),
            ("hdb", 832),
            ("hdc", 5632),
            ("hdd63", 5759),
            ("sda", 2048),
            ("sda1", 2049),
            ("sdp15", 2303),
            ("0", 0),
            ("51712", 51712),
            ("0xca00", 51712),
            ("0145000", 51712),
            ("2147483647", i32::MAX as u32),
        ] {
            assert_eq!(devid(vdev.as_bytes()), Some(number), "{vdev}");
        }
    }

    #[test]
    fn other_names_are_none() {
        for vdev in [
            "",
            "x",
            "xv",
            "xvd",
            "xvd1",
            "xvda0",
            "xvda01",
            "xvda256",
            "xvdA",
            "xvda ",
            " xvda",
            "xvda1x",
            "xvdbgqcw",
            "xvdaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
            "xvda4294967297",
            "hd",
            "hde",
            "hda64",
            "hdaa",
            "sdq",
            "sda16",
            "d",
            "dp",
            "d0",
            "d0p",
            "dp0",
            "d-1p0",
            "d0p256",
            "d1048576p0",
            "d0p0 ",
            "d0p0p0",
            "d4294967296p0",
            "2147483648",
            "-1",
            "+1",
            " 1",
            "1 ",
            "0x",
            "08",
            "cdrom",
            "hdc\n",
            "../hdc",
            "vda",
        ] {
            assert_eq!(devid(vdev.as_bytes()), None, "{vdev:?}");
        }
        assert_eq!(devid(b"hdc\0"), None);
        assert_eq!(devid(b"\xffhdc"), None);
    }

    #[test]
    fn every_lettered_name_means_the_disk_of_its_number() {
        let mut names: Vec<String> = ('a'..='z').map(String::from).collect();
        names.extend(('a'..='z').flat_map(|first| ('a'..='z').map(move |second| format!("{first}{second}"))));
        for (disk, name) in names.iter().enumerate() {
            let numbered = devid(format!("d{disk}p3").as_bytes());
            assert!(numbered.is_some());
            assert_eq!(devid(format!("xvd{name}3").as_bytes()), numbered, "xvd{name}3");
        }
    }

    #[test]
    fn nodes_are_those_of_the_frontend() {
        let frontend = Frontend { domid: u32::MAX, devid: 5632 };
        assert_eq!(frontend.node("eject").to_bytes(), b"/local/domain/4294967295/device/vbd/5632/eject");
        assert_eq!(stub_domain_path(7).to_bytes(), b"/local/domain/7/image/device-model-domid");
    }

    #[test]
    fn a_stub_domain_is_a_number_that_a_guest_can_have() {
        assert_eq!(stub_domain(b"12"), Some(12));
        assert_eq!(stub_domain(b"12\0rest"), Some(12));
        assert_eq!(stub_domain(b"32751"), Some(32751));
        for value in [&b""[..], b"0", b"-1", b" 12", b"12 ", b"32752", b"4294967308", b"12x", b"0x1", b"\0", b"\xff"] {
            assert_eq!(stub_domain(value), None, "{value:?}");
        }
    }

    #[test]
    fn a_backend_path_says_who_serves_the_disk_and_how() {
        use BackendKind::*;
        for (path, domid, kind) in [
            ("/local/domain/0/backend/vbd/3/5632", 0, Tap),
            ("/local/domain/0/backend/vbd3/3/5632", 0, Tap),
            ("/local/domain/4/backend/tap/3/5632", 4, Tap),
            ("/local/domain/32751/backend/qdisk/3/5632", 32751, Qdisk),
            ("/local/domain/2/backend/phy/3/5632", 2, Unknown),
            ("/local/domain/2/backend//3/5632", 2, Unknown),
            ("/local/domain/0/backend/qdisk/3/5632\0more", 0, Qdisk),
        ] {
            assert_eq!(backend(path.as_bytes()), Backend { domid, kind }, "{path}");
        }
    }

    #[test]
    fn nothing_is_believed_of_what_is_no_backend_path() {
        for path in [
            "",
            "/",
            "qdisk",
            "\0/local/domain/5/backend/qdisk/3/5632",
            "local/domain/5/backend/qdisk/3/5632",
            "//local/domain/5/backend/qdisk/3/5632",
            "/local/domain/5/backend/qdisk/3",
            "/local/domain/5/backend/qdisk",
            "/local/domain/5/backend/qdisk/3/5632/",
            "/local/domain/5/backend/qdisk/3/5632/x",
            "/local/domain/5/backend/qdisk/../5632",
            "/local/domain/5/backend/qdisk/3/..",
            "/local/domain/../backend/qdisk/3/5632",
            "/local/domain/-5/backend/qdisk/3/5632",
            "/local/domain/ 5/backend/qdisk/3/5632",
            "/local/domain/32752/backend/qdisk/3/5632",
            "/local/domain/4294967301/backend/qdisk/3/5632",
            "/local/domain//backend/qdisk/3/5632",
            "/local/domain/5/backend/qdisk/40000/5632",
            "/local/domain/5/backend/qdisk/3/99999999999",
            "/local/domain/5/device/qdisk/3/5632",
            "/vm/domain/5/backend/qdisk/3/5632",
        ] {
            assert_eq!(backend(path.as_bytes()), Backend::default(), "{path:?}");
        }
        assert_eq!(backend(b"/local/domain/5/backend/qdisk/3/5632\xff"), Backend::default());
        assert_eq!(backend(&[b'/'; 4096]), Backend::default());
    }
}
