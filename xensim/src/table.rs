// SPDX-License-Identifier: LGPL-2.1-or-later
//! The file that all processes of a host map: domains, event channels, faults and counters.
//!
//! Invariants:
//! - Every field is atomic, so that any process may read at any time, without a lock, in a signal handler or after a
//!   fork; a process that dies in the middle of an operation leaves nobody waiting.
//! - Whoever adds or removes domains or event channel handles holds the [`Lock`]; a state word that exists already is
//!   changed by compare-and-swap, and needs no lock.
//! - The file is sparse and all zeroes mean "nothing there": an unused domid costs nothing.
//! - Nothing here allocates but making a host: the preloaded library calls it from inside other programs' system calls.

use std::ffi::CStr;
use std::io;
use std::ops::Deref;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicI32, AtomicI64, AtomicU32, AtomicU64, Ordering};

use crate::sys;

/// The first domid that is not a domain's: Xen keeps those from here on for itself.
pub const FIRST_RESERVED_DOMID: usize = 0x7ff0;
/// How many event channel ports a host has.
pub const PORTS: usize = 1 << 16;
/// How many processes at once may hold the event channel device open.
pub const HANDLES: usize = 128;
/// How many global virtual interrupts there are.
pub const VIRQS: usize = 24;
/// How many kinds of hypercall are told apart.
pub const CALLS: usize = 9;
/// How many kinds of process are told apart.
pub const ROLES: usize = 2;
/// Longest name of a domain, in bytes.
pub const NAME_MAX: usize = 64;

/// The table's name in the host's directory.
pub const TABLE_FILE: &str = "table";
/// The name of the file that writers lock.
pub const LOCK_FILE: &str = "lock";

/// "xensim", and the layout's number: to be changed with every change of what follows.
const MAGIC: u64 = u64::from_be_bytes(*b"xensim\0\x02");

/// One domain. See [`crate::domains`] for who writes what when.
#[repr(C)]
pub struct Record {
    /// Presence, flags and shutdown reason, all that changes in a domain's life: one word, so that a reader sees one
    /// state.
    pub(crate) state: AtomicU64,
    /// Odd while what follows is written.
    pub(crate) sequence: AtomicU32,
    pub(crate) vcpus: AtomicU32,
    pub(crate) handle: [AtomicU64; 2],
    pub(crate) pages: AtomicU64,
    /// How many domains the host had had before it.
    pub(crate) birth: AtomicU64,
    /// What the toolstack did in the store: see [`crate::toolstack`].
    pub(crate) notes: AtomicU64,
    pub(crate) name: [AtomicU64; NAME_MAX / 8],
}

/// A process that holds the event channel device open.
#[repr(C)]
pub struct Handle {
    /// The inode of its FIFO; 0 while the slot is free.
    pub(crate) inode: AtomicU64,
}

/// How one kind of hypercall is made to misbehave.
#[repr(C)]
pub struct Rule {
    pub(crate) delay_ns: AtomicU64,
    /// How many calls still pass before the failures begin.
    pub(crate) skip: AtomicI64,
    /// How many calls still fail: 0 none, negative all.
    pub(crate) remaining: AtomicI64,
    pub(crate) errno: AtomicI32,
    /// Bit per role.
    pub(crate) roles: AtomicU32,
}

/// What all processes of a host share.
#[repr(C)]
pub struct Table {
    magic: AtomicU64,
    size: AtomicU64,
    /// Device and inodes of the stand-ins for devices: an open descriptor is recognised by them, so that it may be
    /// duplicated, inherited and passed on as any other.
    device: AtomicU64,
    privcmd_inode: AtomicU64,
    gntdev_inode: AtomicU64,
    /// An [`crate::Access`] as a number.
    pub(crate) access: AtomicU32,
    pub(crate) next_domid: AtomicU32,
    pub(crate) next_port: AtomicU32,
    /// How many domains there have been.
    pub(crate) births: AtomicU64,
    pub(crate) virq_ports: [AtomicU32; VIRQS],
    pub(crate) counts: [[AtomicU64; CALLS]; ROLES],
    pub(crate) rules: [Rule; CALLS],
    /// A bit per domid: which records to look at.
    pub(crate) present: [AtomicU64; FIRST_RESERVED_DOMID.div_ceil(64)],
    pub(crate) handles: [Handle; HANDLES],
    pub(crate) ports: [AtomicU64; PORTS],
    pub(crate) domains: [Record; FIRST_RESERVED_DOMID],
}

/// What an open descriptor stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Device {
    /// `/dev/xen/privcmd`.
    Privcmd,
    /// `/dev/xen/gntdev`.
    Gntdev,
    /// `/dev/xen/evtchn`, and the slot of its FIFO.
    Evtchn(usize),
}

impl Table {
    /// What an open descriptor stands for, if it is one of this host's devices.
    pub fn device_of(&self, fd: i32) -> Option<Device> {
        let status = sys::fstat(fd).ok()?;
        if status.st_dev != self.device.load(Ordering::Relaxed) {
            return None;
        }
        let inode = status.st_ino;
        match status.st_mode & libc::S_IFMT {
            libc::S_IFREG if inode == self.privcmd_inode.load(Ordering::Relaxed) => Some(Device::Privcmd),
            libc::S_IFREG if inode == self.gntdev_inode.load(Ordering::Relaxed) => Some(Device::Gntdev),
            libc::S_IFIFO => {
                let is_it = |handle: &Handle| handle.inode.load(Ordering::Acquire) == inode;
                self.handles.iter().position(is_it).map(Device::Evtchn)
            }
            _ => None,
        }
    }
}

/// A host's table in this process's memory.
pub struct Mapped {
    at: NonNull<Table>,
}

// SAFETY: all of a Table is atomics, and the mapping belongs to nobody's thread.
unsafe impl Send for Mapped {}
// SAFETY: as above.
unsafe impl Sync for Mapped {}

impl Deref for Mapped {
    type Target = Table;

    fn deref(&self) -> &Table {
        // SAFETY: `at` is a mapping of size_of::<Table>() bytes that lives as long as self; other processes only ever
        // change it through atomics.
        unsafe { self.at.as_ref() }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: the mapping was made with this size, and no reference to it outlives self.
        unsafe { libc::munmap(self.at.as_ptr().cast(), size_of::<Table>()) };
    }
}

impl Mapped {
    /// Makes the table of a new host, in its directory. `privcmd` and `gntdev` are the stand-ins for these devices.
    pub fn create(dir: &Path, privcmd: &Path, gntdev: &Path) -> io::Result<Mapped> {
        use std::os::unix::fs::MetadataExt;

        let file = std::fs::File::options().read(true).write(true).create_new(true).open(dir.join(TABLE_FILE))?;
        file.set_len(size_of::<Table>() as u64)?;
        let table = Mapped::map(&file)?;
        let privcmd = std::fs::metadata(privcmd)?;
        table.device.store(privcmd.dev(), Ordering::Relaxed);
        table.privcmd_inode.store(privcmd.ino(), Ordering::Relaxed);
        table.gntdev_inode.store(std::fs::metadata(gntdev)?.ino(), Ordering::Relaxed);
        table.next_domid.store(1, Ordering::Relaxed);
        table.next_port.store(1, Ordering::Relaxed);
        table.size.store(size_of::<Table>() as u64, Ordering::Relaxed);
        table.magic.store(MAGIC, Ordering::Release);
        Ok(table)
    }

    /// Maps the table of the host whose table file this is.
    pub fn attach(path: &CStr) -> io::Result<Mapped> {
        let table = Mapped::map(&sys::open(path, libc::O_RDWR)?)?;
        if table.magic.load(Ordering::Acquire) != MAGIC
            || table.size.load(Ordering::Relaxed) != size_of::<Table>() as u64
        {
            return Err(other_build());
        }
        Ok(table)
    }

    fn map(file: &impl AsRawFd) -> io::Result<Mapped> {
        if usize::try_from(sys::fstat(file.as_raw_fd())?.st_size) != Ok(size_of::<Table>()) {
            return Err(other_build());
        }
        // SAFETY: a new mapping at an address of the kernel's choice.
        let at = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                size_of::<Table>(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                0,
            )
        };
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // A successful mmap is not at 0.
        NonNull::new(at.cast()).map(|at| Mapped { at }).ok_or_else(|| io::Error::from_raw_os_error(libc::ENOMEM))
    }
}

/// Another build of xensim made the table, or one that was not finished.
fn other_build() -> io::Error {
    io::Error::from_raw_os_error(libc::EPROTO)
}

/// The right to add and remove; given back when dropped, and by the kernel when its holder dies.
pub struct Lock {
    _file: sys::Fd,
}

impl Lock {
    /// Waits for the lock file at `path`.
    pub fn wait(path: &CStr) -> io::Result<Lock> {
        let file = sys::open(path, libc::O_RDWR)?;
        sys::flock(&file, libc::LOCK_EX)?;
        Ok(Lock { _file: file })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::path::PathBuf;
    use std::sync::atomic::AtomicUsize;

    /// A table of its own, in a directory that goes with it, without anything running.
    pub(crate) struct Fixture {
        pub(crate) table: Mapped,
        dir: PathBuf,
    }

    impl Fixture {
        pub(crate) fn new() -> Fixture {
            static COUNT: AtomicUsize = AtomicUsize::new(0);
            let number = COUNT.fetch_add(1, Ordering::Relaxed);
            let dir = std::env::temp_dir().join(format!("xensim-table-{}-{number}", std::process::id()));
            std::fs::create_dir(&dir).unwrap();
            std::fs::create_dir(dir.join(crate::evtchn::FIFO_DIR)).unwrap();
            for file in ["privcmd", "gntdev", LOCK_FILE] {
                std::fs::write(dir.join(file), "").unwrap();
            }
            let table = Mapped::create(&dir, &dir.join("privcmd"), &dir.join("gntdev")).unwrap();
            Fixture { table, dir }
        }

        pub(crate) fn dir(&self) -> &Path {
            &self.dir
        }

        pub(crate) fn lock(&self) -> Lock {
            Lock::wait(&crate::host::c_path(&self.dir.join(LOCK_FILE)).unwrap()).unwrap()
        }
    }

    impl Drop for Fixture {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.dir);
        }
    }

    #[test]
    fn a_table_is_shared_by_all_who_map_it() {
        let fixture = Fixture::new();
        let path = crate::host::c_path(&fixture.dir().join(TABLE_FILE)).unwrap();
        let other = Mapped::attach(&path).unwrap();
        other.next_domid.store(77, Ordering::Relaxed);
        assert_eq!(fixture.table.next_domid.load(Ordering::Relaxed), 77);
    }

    #[test]
    fn what_is_no_table_is_refused() {
        let fixture = Fixture::new();
        let file = fixture.dir().join("other");
        let path = crate::host::c_path(&file).unwrap();
        assert_eq!(Mapped::attach(&path).err().unwrap().raw_os_error(), Some(libc::ENOENT));
        std::fs::write(&file, "short").unwrap();
        assert_eq!(Mapped::attach(&path).err().unwrap().raw_os_error(), Some(libc::EPROTO));
        // As long as a table, but none.
        std::fs::File::options().write(true).open(&file).unwrap().set_len(size_of::<Table>() as u64).unwrap();
        assert_eq!(Mapped::attach(&path).err().unwrap().raw_os_error(), Some(libc::EPROTO));
    }

    #[test]
    fn descriptors_are_known_by_what_they_refer_to() {
        let fixture = Fixture::new();
        let open = |name: &str| std::fs::File::open(fixture.dir().join(name)).unwrap();
        let device = |file: &std::fs::File| fixture.table.device_of(file.as_raw_fd());
        let privcmd = open("privcmd");
        assert_eq!(device(&privcmd), Some(Device::Privcmd));
        assert_eq!(device(&privcmd.try_clone().unwrap()), Some(Device::Privcmd));
        assert_eq!(device(&open("gntdev")), Some(Device::Gntdev));
        assert_eq!(device(&open(LOCK_FILE)), None);
        assert_eq!(fixture.table.device_of(-1), None);
    }
}
