// SPDX-License-Identifier: LGPL-2.1-or-later
//! The hosts that this process has to do with.
//!
//! Invariants:
//! - The list only grows and its members never change, so that it is read without a lock while others add to it. A
//!   process has to do with few hosts, and one that has gone costs some address space.
//! - Which host a device is opened on is looked up when it is opened: the environment's, so that a program may turn to
//!   another host in between.

use std::ffi::CStr;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

use driver::Role;
use driver::evtchn::Channels;
use driver::table::{Device, Lock, Mapped};
use driver::{daemon, host};

/// Room for a path in a host's directory. A longer directory has no room for a socket.
pub const PATH_ROOM: usize = 256;

/// One host.
pub struct Attached {
    dir: Path,
    /// What it shares with all its processes.
    pub table: Mapped,
    /// What this process is to it.
    pub role: Role,
    /// The table's file: a directory may come to hold another host.
    identity: Identity,
    next: *const Attached,
}

// SAFETY: immutable once it is made, and never freed; `next` points to another of its kind.
unsafe impl Sync for Attached {}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
}

/// A path that is made without allocation.
#[derive(Clone, Copy)]
pub struct Path {
    bytes: [u8; PATH_ROOM],
    length: usize,
}

impl Path {
    /// The parts one after the other; `None` if there is no room for them.
    pub fn new(parts: &[&[u8]]) -> Option<Path> {
        Path { bytes: [0; PATH_ROOM], length: 0 }.and(parts)
    }

    fn and(self, parts: &[&[u8]]) -> Option<Path> {
        let mut path = self;
        for part in parts {
            let end = path.length + part.len();
            // The last byte stays zero.
            path.bytes.get_mut(path.length..end).filter(|_| end < PATH_ROOM)?.copy_from_slice(part);
            path.length = end;
        }
        Some(path)
    }

    /// As the C library takes it.
    pub fn as_c_str(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.bytes).unwrap_or_default()
    }

    /// Without the closing zero.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl Attached {
    /// A path in its directory, in parts.
    pub fn path(&self, name: &[&[u8]]) -> Option<Path> {
        self.dir.and(&[b"/"])?.and(name)
    }

    /// Its event channels.
    pub fn channels(&self) -> Channels<'_> {
        Channels::with_dir(&self.table, self.dir.as_bytes())
    }

    /// Waits for the right to add and remove.
    pub fn lock(&self) -> std::io::Result<Lock> {
        let path = self.path(&[driver::table::LOCK_FILE.as_bytes()]);
        Lock::wait(path.ok_or_else(|| std::io::Error::from_raw_os_error(libc::ENAMETOOLONG))?.as_c_str())
    }
}

static FIRST: AtomicPtr<Attached> = AtomicPtr::new(ptr::null_mut());

fn all() -> impl Iterator<Item = &'static Attached> {
    let mut next: *const Attached = FIRST.load(Ordering::Acquire);
    std::iter::from_fn(move || {
        // SAFETY: what is on the list was leaked for ever, and is not changed any more.
        let host = unsafe { next.as_ref() }?;
        next = host.next;
        Some(host)
    })
}

/// A variable of the environment, unless it is unset or empty.
fn variable(name: &CStr) -> Option<&'static CStr> {
    // SAFETY: a C string. As with every getenv, the value stays until the program changes the variable.
    let value = unsafe { libc::getenv(name.as_ptr()) };
    if value.is_null() {
        return None;
    }
    // SAFETY: not null, hence a C string.
    let value = unsafe { CStr::from_ptr(value) };
    (!value.is_empty()).then_some(value)
}

/// Whether the process has a host, which is cheap to find out.
pub fn is_any() -> bool {
    variable(host::DIR_VARIABLE_C).is_some()
}

/// Whether this process is a host's xenstored.
pub fn is_xenstored() -> bool {
    variable(daemon::ROLE_VARIABLE_C).is_some_and(|role| role == c"xenstored")
}

/// The host that the environment names.
pub fn current() -> std::io::Result<&'static Attached> {
    let gone = || std::io::Error::from_raw_os_error(libc::ENOENT);
    let dir = variable(host::DIR_VARIABLE_C).ok_or_else(gone)?;
    let table = Path::new(&[dir.to_bytes(), b"/", driver::table::TABLE_FILE.as_bytes()]).ok_or_else(gone)?;
    let identity = identify(table.as_c_str())?;
    match all().find(|host| host.identity == identity) {
        Some(host) => Ok(host),
        None => attach(dir, table.as_c_str(), identity),
    }
}

fn identify(path: &CStr) -> std::io::Result<Identity> {
    // Opened rather than looked at: stat is one of those that we stand in for.
    let file = driver::sys::open(path, libc::O_PATH)?;
    let status = driver::sys::fstat(std::os::fd::AsRawFd::as_raw_fd(&file))?;
    Ok(Identity { device: status.st_dev, inode: status.st_ino })
}

fn attach(dir: &CStr, table: &CStr, identity: Identity) -> std::io::Result<&'static Attached> {
    let too_long = || std::io::Error::from_raw_os_error(libc::ENAMETOOLONG);
    let host = Box::leak(Box::new(Attached {
        dir: Path::new(&[dir.to_bytes()]).ok_or_else(too_long)?,
        table: Mapped::attach(table)?,
        role: if is_xenstored() { Role::Xenstored } else { Role::Client },
        identity,
        next: ptr::null(),
    }));
    // Should another thread have done the same meanwhile, then it is on the list twice, which does no harm.
    let mut first = FIRST.load(Ordering::Acquire);
    loop {
        host.next = first;
        match FIRST.compare_exchange(first, host, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => return Ok(host),
            Err(other) => first = other,
        }
    }
}

/// The host and the device that an open descriptor belongs to.
pub fn of_descriptor(fd: i32) -> Option<(&'static Attached, Device)> {
    let find = || all().find_map(|host| host.table.device_of(fd).map(|device| (host, device)));
    find().or_else(|| {
        // It may have been inherited, and the host not been needed yet.
        is_any().then(current)?.ok()?;
        find()
    })
}
