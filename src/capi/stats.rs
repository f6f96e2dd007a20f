// SPDX-License-Identifier: LGPL-2.1-or-later
//! Counters: what a context has done so far, and how it stands.

use std::ffi::c_int;

use libc::size_t;

use super::ctx::libxl_ctx;
use super::entry::entry;
use super::handle::{context, invalid};
use crate::abi::*;
use crate::stats::{Asked, Counts, Events, Stats};

/// A context's counters, as xlevent_stats fills them in.
///
/// Most have counted since the context was opened, and only grow: two snapshots give what happened between them. Those
/// that say `now` tell how things stand.
///
/// Later versions of this library append fields; none is ever moved or taken away.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub struct xlevent_stats {
    /// How many bytes of this structure the library has filled in, with this field. What lies beyond is zero: the
    /// library is older than the caller's header, and doesn't know it.
    pub filled: u64,

    /// Firings of xenstore's `@releaseDomain`, for all domains or for one, that were taken in: one or more whenever domains
    /// end; and one for each new watch, of which there is one after each time without any generator, and after each
    /// reconnection.
    pub releases: u64,
    /// Looks at all watched domains. A burst of firings costs one. Contexts of a process that have been told of something
    /// share a look; it counts in each of them.
    pub scans: u64,
    /// Looks at some domains alone: those of new generators, and those whose own watch has fired. If there is news, all
    /// are looked at after all, at once.
    pub partial_scans: u64,
    /// Looks of either kind that the hypervisor did not answer to the end. Each is tried again.
    pub failed_scans: u64,
    /// Hypercalls of this library for a list of domains, also those that failed. They count where they were made: of
    /// contexts that share a look, in one. One hypercall, in a process's first context that watches domains, has found out
    /// whether libxenctrl speaks of domains as this library does.
    pub hypercalls: u64,
    /// The domains in the answers to them, whether anybody watches them or not. They count with the hypercalls.
    pub domains_examined: u64,
    /// Looks at drives whose guests may eject.
    pub drive_looks: u64,

    /// Events, by type: LIBXL_EVENT_TYPE_DOMAIN_SHUTDOWN.
    pub events_domain_shutdown: u64,
    /// LIBXL_EVENT_TYPE_DOMAIN_DEATH.
    pub events_domain_death: u64,
    /// LIBXL_EVENT_TYPE_DISK_EJECT.
    pub events_disk_eject: u64,
    /// LIBXL_EVENT_TYPE_OPERATION_COMPLETE, of this library's operations and of libxenlight's. Those of the next two counters
    /// are libxenlight's.
    pub events_operation_complete: u64,
    /// LIBXL_EVENT_TYPE_DOMAIN_CREATE_CONSOLE_AVAILABLE.
    pub events_domain_create_console_available: u64,
    /// Events of any other type.
    pub events_other: u64,
    /// How many of all these events went to the event_occurs callback; the others were queued.
    pub events_called_back: u64,

    /// Times that events may have been missed, and that the disaster callback was called for.
    pub disasters: u64,
    /// Times that xenstored went away while there were generators.
    pub xenstored_losses: u64,
    /// Times that it came back, was connected to again, and all domains were looked at.
    pub reconnections: u64,
    /// Child processes that the library has started. libxenlight's own are not among them.
    pub children_started: u64,
    /// Times that the library was called because something was ready, or might be. Far more than there are firings,
    /// events and timeouts: somebody spins.
    pub turns: u64,

    /// Events that are in the context's own queue now; those of subscribers are not counted here.
    pub events_queued: u64,
    /// The most events that it ever held.
    pub events_queued_most: u64,
    /// Whether xenstored is watched now: 1; or 0 while there are no generators, or while xenstored is away.
    pub watching: u64,
    /// Generators of libxl_evenable_domain_death that there are now.
    pub death_generators: u64,
    /// Generators of libxl_evenable_disk_eject that there are now.
    pub eject_generators: u64,
    /// The drives that those watch now. Several generators may watch one.
    pub drives_watched: u64,
    /// Child processes of the library now: those that run, and those whose end has not been dealt with yet.
    pub children_running: u64,

    /// More events by type: LIBXL_EVENT_TYPE_DOMAIN_SUSPENDED.
    pub events_domain_suspended: u64,
    /// LIBXL_EVENT_TYPE_DOMAIN_RUNNING.
    pub events_domain_running: u64,
    /// LIBXL_EVENT_TYPE_DOMAIN_CREATED.
    pub events_domain_created: u64,
    /// Firings of xenstore's `@introduceDomain` that were taken in: one or more whenever domains begin, and one for each new
    /// watch. There is none while there is no generator for any domain.
    pub introductions: u64,
    /// Looks at suspended domains, to see whether they run again. They count among `partial_scans` too.
    pub resume_looks: u64,
    /// Generators of libxl_evenable_domain_state that there are now.
    pub state_generators: u64,
    /// Domains that those among them for any domain know now, each of them.
    pub domains_known: u64,
    /// Ejections that have given a generator no event of their own, since nobody had fetched the one before.
    pub ejections_merged: u64,
    /// Events that are in the queues of all subscribers now.
    pub events_queued_for_subscribers: u64,
    /// About how many bytes of memory all queued events take now, those of subscribers too. What events point to is not
    /// counted: the strings of an ejection, and what libxenlight's own events have besides.
    pub events_queued_bytes: u64,
}

impl From<Stats> for xlevent_stats {
    // Each field by name, so that the compiler misses one that is forgotten.
    fn from(stats: Stats) -> Self {
        let Stats {
            counts,
            asked,
            queued,
            queued_most,
            watching,
            death_generators,
            eject_generators,
            drives_watched,
            children_running,
            state_generators,
            domains_known,
            queued_for_subscribers,
            queued_bytes,
        } = stats;
        let Counts {
            releases,
            scans,
            partial_scans,
            failed_scans,
            drive_looks,
            events,
            events_called_back,
            disasters,
            xenstored_losses,
            reconnections,
            children_started,
            turns,
            introductions,
            resume_looks,
            ejections_merged,
        } = counts;
        let Asked { hypercalls, domains } = asked;
        let Events {
            domain_shutdown,
            domain_death,
            domain_suspended,
            domain_running,
            domain_created,
            disk_eject,
            operation_complete,
            domain_create_console_available,
            other,
        } = events;
        xlevent_stats {
            filled: size_of::<xlevent_stats>() as u64,
            releases,
            scans,
            partial_scans,
            failed_scans,
            hypercalls,
            domains_examined: domains,
            drive_looks,
            events_domain_shutdown: domain_shutdown,
            events_domain_death: domain_death,
            events_disk_eject: disk_eject,
            events_operation_complete: operation_complete,
            events_domain_create_console_available: domain_create_console_available,
            events_other: other,
            events_called_back,
            disasters,
            xenstored_losses,
            reconnections,
            children_started,
            turns,
            events_queued: queued,
            events_queued_most: queued_most,
            watching: watching.into(),
            death_generators,
            eject_generators,
            drives_watched,
            children_running,
            events_domain_suspended: domain_suspended,
            events_domain_running: domain_running,
            events_domain_created: domain_created,
            introductions,
            resume_looks,
            state_generators,
            domains_known,
            ejections_merged,
            events_queued_for_subscribers: queued_for_subscribers,
            events_queued_bytes: queued_bytes,
        }
    }
}

/// The size of one field; all have the same.
const FIELD: usize = size_of::<u64>();

/// Takes a snapshot of a context's counters.
///
/// `size` is that of the caller's structure, `sizeof *stats`. Caller and library may have been built with different
/// versions of it: what both know is filled in, and the rest of the caller's structure is zeroed. `stats->filled` says
/// how much that is.
///
/// All counters are of one moment. The call makes no system call, changes no counter, and may be made from any thread and
/// any callback.
///
/// Returns 0; ERROR_INVAL for a NULL or unknown `ctx`, a NULL `stats`, or a `size` with no room for `filled`. Then nothing
/// is written.
///
/// # Safety
///
/// `stats` is NULL or points to `size` writable bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xlevent_stats(ctx: *mut libxl_ctx, stats: *mut xlevent_stats, size: size_t) -> c_int {
    entry!("xlevent_stats", ERROR_FAIL, {
        let name = "xlevent_stats";
        let context = match context(name, ctx) {
            Ok(context) => context,
            Err(rc) => return rc,
        };
        if stats.is_null() {
            return invalid(&context, name, "the place for the counters is NULL");
        }
        if size < FIELD {
            return invalid(&context, name, &format!("{size} bytes have no room for any counter"));
        }
        let known = size.min(size_of::<xlevent_stats>()) / FIELD * FIELD;
        let full = xlevent_stats { filled: known as u64, ..context.stats().into() };
        // SAFETY: the caller's bytes, `size` of them, and ours, of which there are `known`; as bytes, they need no alignment.
        unsafe {
            stats.cast::<u8>().write_bytes(0, size);
            stats.cast::<u8>().copy_from_nonoverlapping((&raw const full).cast(), known);
        }
        0
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counter_has_a_field_of_its_own() {
        let counts = Counts {
            releases: 1,
            scans: 2,
            partial_scans: 3,
            failed_scans: 4,
            drive_looks: 7,
            events: Events {
                domain_shutdown: 8,
                domain_death: 9,
                domain_suspended: 27,
                domain_running: 28,
                domain_created: 29,
                disk_eject: 10,
                operation_complete: 11,
                domain_create_console_available: 12,
                other: 13,
            },
            events_called_back: 14,
            disasters: 15,
            xenstored_losses: 16,
            reconnections: 17,
            children_started: 18,
            turns: 19,
            introductions: 30,
            resume_looks: 31,
            ejections_merged: 34,
        };
        let asked = Asked { hypercalls: 5, domains: 6 };
        let stats = Stats {
            counts,
            asked,
            queued: 20,
            queued_most: 21,
            watching: true,
            death_generators: 23,
            eject_generators: 24,
            drives_watched: 25,
            children_running: 26,
            state_generators: 32,
            domains_known: 33,
            queued_for_subscribers: 35,
            queued_bytes: 36,
        };
        const FIELDS: usize = size_of::<xlevent_stats>() / FIELD;
        // SAFETY: a structure of so many 64-bit numbers and nothing else.
        let fields: [u64; FIELDS] = unsafe { std::mem::transmute(xlevent_stats::from(stats)) };
        let mut expected: [u64; FIELDS] = std::array::from_fn(|index| index as u64);
        expected[0] = size_of::<xlevent_stats>() as u64;
        expected[22] = 1;
        assert_eq!(fields, expected);
    }
}
