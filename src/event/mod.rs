// SPDX-License-Identifier: LGPL-2.1-or-later
//! Events, and the queue in which they wait to be retrieved.
//!
//! An event is a `libxl_event` from its first moment to its last, in memory of the C allocator: a program may dispose of
//! one that it was given and `free` it, and a predicate is shown the very event that is then returned.

mod queue;

use std::ffi::{CStr, c_char, c_int};
use std::hint::black_box;
use std::mem::ManuallyDrop;
use std::ptr::NonNull;

use crate::abi::*;
use crate::companion;
use crate::evgen::disk_eject::DiskEject;
use crate::evgen::domain_death::{Change, Report};
use crate::evgen::vbd::{Backend, BackendKind};

pub use queue::Queue;

/// An event that we own.
#[derive(Debug)]
pub struct Event(NonNull<libxl_event>);

// SAFETY: an allocation with one owner, not tied to a thread.
unsafe impl Send for Event {}
// SAFETY: read-only through a shared reference.
unsafe impl Sync for Event {}

/// What an event says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// The domain has shut down, for this reason.
    DomainShutdown {
        /// `LIBXL_SHUTDOWN_REASON_*`, or whatever else the guest said.
        reason: u8,
    },
    /// The domain is being destroyed, or gone.
    DomainDeath,
    /// The domain has shut down in order to be saved, migrated or snapshotted.
    DomainSuspended,
    /// The domain runs again.
    DomainRunning,
    /// The domain is there, and wasn't before.
    DomainCreated,
    /// The guest has ejected the medium of a CD drive.
    DiskEject,
    /// An operation has ended.
    OperationComplete {
        /// 0 or an error number.
        rc: i32,
    },
    /// Another of libxl's event types.
    Other(libxl_event_type),
}

/// What is allocated for an event. `libxl_event` is 208 bytes in Xen 4.17, and a later release's `libxl_event_dispose`
/// may clear more of it than that. Not so much that malloc's blocks are 256 bytes apart: where all lie at the same places of
/// their pages, a processor's caches keep a quarter of them.
const ALLOCATION: usize = 232;
const _: () = assert!(size_of::<libxl_event>() <= ALLOCATION);

impl Event {
    /// What one takes of the allocator, with the allocator's own word, and without what it points to.
    pub const BYTES: usize = ALLOCATION + size_of::<usize>();

    /// An event of one of the domain generators; `None` if there is no memory for it.
    pub fn from_report(report: &Report) -> Option<Self> {
        let mut event = Event::blank()?;
        let raw = event.raw_mut();
        raw.domid = report.domid;
        raw.domuuid.uuid = report.uuid;
        raw.for_user = report.user;
        match report.change {
            Change::Shutdown(reason) => {
                raw.r#type = LIBXL_EVENT_TYPE_DOMAIN_SHUTDOWN;
                raw.u.domain_shutdown.shutdown_reason = reason;
            }
            change => raw.r#type = change.event_type(),
        }
        Some(event)
    }

    /// An event of a generator of DISK_EJECT; `None` if there is no memory for it. The disk is the empty drive, as
    /// `libxl_cdrom_insert` would take it to leave it so; what isn't set here has libxl's default, which is zero.
    pub fn of_ejection(generator: &DiskEject, backend: Backend) -> Option<Self> {
        let mut event = Event::blank()?;
        let raw = event.raw_mut();
        raw.domid = generator.domid;
        raw.for_user = generator.user;
        raw.r#type = LIBXL_EVENT_TYPE_DISK_EJECT;
        // SAFETY: the member that goes with this type; all zero, it is a disk without a name.
        let eject = unsafe { &mut *raw.u.disk_eject };
        let disk = &mut eject.disk;
        disk.backend_domid = backend.domid;
        disk.backend = match backend.kind {
            BackendKind::Unknown => LIBXL_DISK_BACKEND_UNKNOWN,
            BackendKind::Tap => LIBXL_DISK_BACKEND_TAP,
            BackendKind::Qdisk => LIBXL_DISK_BACKEND_QDISK,
        };
        disk.format = LIBXL_DISK_FORMAT_EMPTY;
        disk.removable = 1;
        disk.is_cdrom = 1;
        // What is there when one fails is freed with the event.
        eject.vdev = duplicate(&generator.vdev)?;
        disk.pdev_path = duplicate(c"")?;
        if let Some(dev) = &generator.dev {
            disk.vdev = duplicate(dev)?;
        }
        Some(event)
    }

    /// An event that tells of an operation's end; `None` if there is no memory for it.
    pub fn of_operation(domid: u32, user: u64, rc: c_int) -> Option<Self> {
        let mut event = Event::blank()?;
        let raw = event.raw_mut();
        raw.domid = domid;
        raw.for_user = user;
        raw.r#type = LIBXL_EVENT_TYPE_OPERATION_COMPLETE;
        raw.u.operation_complete.rc = rc;
        Some(event)
    }

    /// An event that is all zero.
    fn blank() -> Option<Self> {
        // Not calloc, which in glibc goes past the thread's cache of freed blocks; nor what the compiler sees to be the same.
        // SAFETY: no preconditions.
        let block = NonNull::new(black_box(unsafe { libc::malloc(ALLOCATION) }))?;
        // SAFETY: so many bytes were allocated, aligned for anything.
        unsafe { block.cast::<u8>().write_bytes(0, ALLOCATION) };
        // All zero, it is a valid libxl_event.
        Some(Event(block.cast()))
    }

    /// # Safety
    /// `raw` is a complete event, which the caller owns and gives away.
    pub unsafe fn from_raw(raw: NonNull<libxl_event>) -> Self {
        Event(raw)
    }

    /// Gives the event away as a pointer, to be freed with `libxl_event_free`.
    pub fn into_raw(self) -> NonNull<libxl_event> {
        ManuallyDrop::new(self).0
    }

    /// The event as a pointer, still ours.
    pub fn as_ptr(&self) -> *const libxl_event {
        self.0.as_ptr()
    }

    /// The same event a second time.
    ///
    /// # Safety
    /// The event itself must outlive what is returned, which must not be dropped.
    pub(crate) unsafe fn alias(&self) -> ManuallyDrop<Event> {
        ManuallyDrop::new(Event(self.0))
    }

    fn raw(&self) -> &libxl_event {
        // SAFETY: an event that we own is complete and alive.
        unsafe { self.0.as_ref() }
    }

    fn raw_mut(&mut self) -> &mut libxl_event {
        // SAFETY: as above; nobody else refers to it.
        unsafe { self.0.as_mut() }
    }

    /// The domain that it happened to.
    pub fn domid(&self) -> u32 {
        self.raw().domid
    }

    /// That domain's UUID, all zero where it could not be learnt.
    pub fn uuid(&self) -> [u8; 16] {
        self.raw().domuuid.uuid
    }

    /// What the subscriber gave when it asked for such events.
    pub fn user(&self) -> u64 {
        self.raw().for_user
    }

    /// `LIBXL_EVENT_TYPE_*`.
    pub fn event_type(&self) -> libxl_event_type {
        self.raw().r#type
    }

    /// Of an ejection: the drive's name, as the subscriber gave it.
    pub fn vdev(&self) -> Option<&CStr> {
        if self.event_type() != LIBXL_EVENT_TYPE_DISK_EJECT {
            return None;
        }
        // SAFETY: the member that goes with this type.
        let vdev = unsafe { self.raw().u.disk_eject.vdev };
        // SAFETY: a string of the event's, if not null.
        (!vdev.is_null()).then(|| unsafe { CStr::from_ptr(vdev) })
    }

    /// What has happened.
    pub fn kind(&self) -> Kind {
        match self.event_type() {
            LIBXL_EVENT_TYPE_DOMAIN_SHUTDOWN => {
                // SAFETY: the member that goes with this type.
                Kind::DomainShutdown { reason: unsafe { self.raw().u.domain_shutdown.shutdown_reason } }
            }
            LIBXL_EVENT_TYPE_DOMAIN_DEATH => Kind::DomainDeath,
            LIBXL_EVENT_TYPE_DOMAIN_SUSPENDED => Kind::DomainSuspended,
            LIBXL_EVENT_TYPE_DOMAIN_RUNNING => Kind::DomainRunning,
            LIBXL_EVENT_TYPE_DOMAIN_CREATED => Kind::DomainCreated,
            LIBXL_EVENT_TYPE_DISK_EJECT => Kind::DiskEject,
            LIBXL_EVENT_TYPE_OPERATION_COMPLETE => {
                // SAFETY: as above.
                Kind::OperationComplete { rc: unsafe { self.raw().u.operation_complete.rc } }
            }
            other => Kind::Other(other),
        }
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        match companion::present() {
            // libxenlight knows every type that it may have made.
            // SAFETY: an event that we own, freed once; libxenlight calls this function with a null context itself.
            Some(real) => unsafe { (real.libxl_event_free)(std::ptr::null_mut(), self.0.as_ptr().cast()) },
            // Alone, all events are ours.
            None => {
                if self.event_type() == LIBXL_EVENT_TYPE_DISK_EJECT {
                    // SAFETY: the member that goes with this type.
                    free_strings(unsafe { &self.raw().u.disk_eject });
                }
                // SAFETY: allocated by `blank`, freed once.
                unsafe { libc::free(self.0.as_ptr().cast()) };
            }
        }
    }
}

/// A copy of a string in memory of the C allocator.
fn duplicate(text: &CStr) -> Option<*mut c_char> {
    // SAFETY: a C string.
    let copy = unsafe { libc::strdup(text.as_ptr()) };
    (!copy.is_null()).then_some(copy)
}

/// Frees all strings of an ejection, also those that we leave out: a program may fill them in.
fn free_strings(eject: &libxl_event_disk_eject) {
    let disk = &eject.disk;
    for string in [
        eject.vdev,
        disk.backend_domname,
        disk.pdev_path,
        disk.vdev,
        disk.script,
        disk.colo_host,
        disk.colo_export,
        disk.active_disk,
        disk.hidden_disk,
    ] {
        // SAFETY: null, or of the C allocator as all of an event; the event is going away.
        unsafe { libc::free(string.cast()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evgen::Recipient;

    #[test]
    fn an_ejection_says_whose_drive_it_is_and_that_it_is_empty() {
        let generator = DiskEject {
            domid: 5,
            user: 7,
            recipient: Recipient::OWN,
            vdev: c"hdc".into(),
            dev: Some(c"xvdc".into()),
            unread: None,
        };
        let event = Event::of_ejection(&generator, Backend { domid: 3, kind: BackendKind::Tap }).unwrap();
        assert_eq!((event.domid(), event.user(), event.kind()), (5, 7, Kind::DiskEject));
        assert_eq!(event.vdev(), Some(c"hdc"));
        // SAFETY: the member that goes with the type.
        let disk = unsafe { &event.raw().u.disk_eject.disk };
        assert_eq!((disk.backend_domid, disk.backend), (3, LIBXL_DISK_BACKEND_TAP));
        assert_eq!((disk.format, disk.removable, disk.readwrite, disk.is_cdrom), (LIBXL_DISK_FORMAT_EMPTY, 1, 0, 1));
        // SAFETY: strings of the event's.
        let strings = unsafe { [CStr::from_ptr(disk.vdev), CStr::from_ptr(disk.pdev_path)] };
        assert_eq!(strings, [c"xvdc", c""]);
    }

    #[test]
    fn other_events_have_no_drive() {
        let report = Report { domid: 5, uuid: [0; 16], user: 7, recipient: Recipient::OWN, change: Change::Death };
        assert_eq!(Event::from_report(&report).unwrap().vdev(), None);
    }
}
