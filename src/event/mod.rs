// SPDX-License-Identifier: LGPL-2.1-or-later
//! Events, and the queue in which they wait to be retrieved.
//!
//! An event is a `libxl_event` from its first moment to its last, in memory of the C allocator: a program may dispose of
//! one that it was given and `free` it, and a predicate is shown the very event that is then returned.

mod queue;

use std::mem::ManuallyDrop;
use std::ptr::NonNull;

use crate::abi::{LIBXL_EVENT_TYPE_DOMAIN_DEATH, LIBXL_EVENT_TYPE_DOMAIN_SHUTDOWN, libxl_event, libxl_event_type};
use crate::companion;
use crate::evgen::domain_death::{Change, Report};

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
    /// Another of libxl's event types.
    Other(libxl_event_type),
}

/// What is allocated for an event. `libxl_event` is 208 bytes in Xen 4.17, and a later release's `libxl_event_dispose`
/// may clear more of it than that.
const ALLOCATION: usize = 240;
const _: () = assert!(size_of::<libxl_event>() <= ALLOCATION);

impl Event {
    /// An event of one of the domain generators; `None` if there is no memory for it.
    pub fn from_report(report: &Report) -> Option<Self> {
        // SAFETY: calloc's result is null or a zeroed allocation, and an all-zero libxl_event is a valid one.
        let mut raw = NonNull::new(unsafe { libc::calloc(1, ALLOCATION) }.cast::<libxl_event>())?;
        // SAFETY: freshly allocated, large enough and aligned for anything.
        let event = unsafe { raw.as_mut() };
        event.domid = report.domid;
        event.domuuid.uuid = report.uuid;
        event.for_user = report.user;
        match report.change {
            Change::Shutdown(reason) => {
                event.r#type = LIBXL_EVENT_TYPE_DOMAIN_SHUTDOWN;
                event.u.domain_shutdown.shutdown_reason = reason;
            }
            Change::Death => event.r#type = LIBXL_EVENT_TYPE_DOMAIN_DEATH,
        }
        Some(Event(raw))
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

    /// What has happened.
    pub fn kind(&self) -> Kind {
        match self.event_type() {
            LIBXL_EVENT_TYPE_DOMAIN_SHUTDOWN => {
                // SAFETY: the member that goes with this type.
                Kind::DomainShutdown { reason: unsafe { self.raw().u.domain_shutdown.shutdown_reason } }
            }
            LIBXL_EVENT_TYPE_DOMAIN_DEATH => Kind::DomainDeath,
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
            // Alone, all events are ours, and none has strings.
            // SAFETY: allocated by `from_report`, freed once.
            None => unsafe { libc::free(self.0.as_ptr().cast()) },
        }
    }
}
