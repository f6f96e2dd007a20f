// SPDX-License-Identifier: LGPL-2.1-or-later
//! What a context counts, for operators and benchmarks.
//!
//! Counting costs an addition: the numbers are plain, and each is changed under a lock that is held there anyway, the
//! context's own. Nothing is decided by them.

use crate::abi::*;

/// What has happened in a context since it was opened. The numbers only grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Firings of `@releaseDomain` that were taken in, with the one by which every new watch begins.
    pub releases: u64,
    /// Looks at all watched domains, whoever asked the hypervisor.
    pub scans: u64,
    /// Looks at some of them: those of new generators, and those whose own watch has fired. If one has news, the look goes on
    /// to all, and is still one of these.
    pub partial_scans: u64,
    /// Looks of either kind that the hypervisor did not answer to the end.
    pub failed_scans: u64,
    /// Looks at drives.
    pub drive_looks: u64,
    /// Events, by type.
    pub events: Events,
    /// How many of them went to callbacks, not into the queue.
    pub events_called_back: u64,
    /// Times that the application had to be told that events may be missing.
    pub disasters: u64,
    /// Times that xenstored went away while it was needed.
    pub xenstored_losses: u64,
    /// Times that it was connected to again after that.
    pub reconnections: u64,
    /// Children of ours that were started.
    pub children_started: u64,
    /// Times that what had become ready was taken in.
    pub turns: u64,
    /// Firings of `@introduceDomain` that were taken in, with the one by which every new watch begins.
    pub introductions: u64,
    /// Looks at suspended domains, to see whether they run again. They are among `partial_scans`.
    pub resume_looks: u64,
    /// Ejections that gave a generator no event, since its last one was still there.
    pub ejections_merged: u64,
}

/// Events, by type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Events {
    /// DOMAIN_SHUTDOWN.
    pub domain_shutdown: u64,
    /// DOMAIN_DEATH.
    pub domain_death: u64,
    /// DOMAIN_SUSPENDED.
    pub domain_suspended: u64,
    /// DOMAIN_RUNNING.
    pub domain_running: u64,
    /// DOMAIN_CREATED.
    pub domain_created: u64,
    /// DISK_EJECT.
    pub disk_eject: u64,
    /// OPERATION_COMPLETE, of our operations and of libxenlight's.
    pub operation_complete: u64,
    /// DOMAIN_CREATE_CONSOLE_AVAILABLE, which are libxenlight's.
    pub domain_create_console_available: u64,
    /// Those of types that this library doesn't know, likewise.
    pub other: u64,
}

impl Events {
    /// There is one more.
    pub fn count(&mut self, event_type: libxl_event_type) {
        *match event_type {
            LIBXL_EVENT_TYPE_DOMAIN_SHUTDOWN => &mut self.domain_shutdown,
            LIBXL_EVENT_TYPE_DOMAIN_DEATH => &mut self.domain_death,
            LIBXL_EVENT_TYPE_DOMAIN_SUSPENDED => &mut self.domain_suspended,
            LIBXL_EVENT_TYPE_DOMAIN_RUNNING => &mut self.domain_running,
            LIBXL_EVENT_TYPE_DOMAIN_CREATED => &mut self.domain_created,
            LIBXL_EVENT_TYPE_DISK_EJECT => &mut self.disk_eject,
            LIBXL_EVENT_TYPE_OPERATION_COMPLETE => &mut self.operation_complete,
            LIBXL_EVENT_TYPE_DOMAIN_CREATE_CONSOLE_AVAILABLE => &mut self.domain_create_console_available,
            _ => &mut self.other,
        } += 1;
    }
}

/// What the hypervisor was asked, by this context. It may have been asked for others too, and others for this one
/// (`context::neighbours`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Asked {
    /// Hypercalls for a list of domains, those that failed too.
    pub hypercalls: u64,
    /// Domains in the answers, whether anybody watches them or not.
    pub domains: u64,
}

/// A context's counters, and how it stands, all of one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// What has happened since it was opened.
    pub counts: Counts,
    /// What the hypervisor was asked since then.
    pub asked: Asked,
    /// Events in the queue.
    pub queued: u64,
    /// The most that there ever were.
    pub queued_most: u64,
    /// xenstored is connected to, and told us what to watch.
    pub watching: bool,
    /// Generators of shutdown and death events.
    pub death_generators: u64,
    /// Generators of disk-eject events.
    pub eject_generators: u64,
    /// The drives that those watch.
    pub drives_watched: u64,
    /// Children of ours that have not been dealt with to the end.
    pub children_running: u64,
    /// Generators of domains' states.
    pub state_generators: u64,
    /// The domains that generators of all domains' states know, each of them.
    pub domains_known: u64,
    /// Events in the queues of subscribers.
    pub queued_for_subscribers: u64,
    /// The memory that all queued events take, in bytes.
    pub queued_bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_of_event_has_a_counter_of_its_own() {
        let mut events = Events::default();
        for event_type in [1, 2, 2, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 5, 0, 6, 63, 64, 1000, libxl_event_type::MAX] {
            events.count(event_type);
        }
        for (event_type, times) in [(40, 7), (41, 8), (42, 9)] {
            (0..times).for_each(|_| events.count(event_type));
        }
        let expected = Events {
            domain_shutdown: 1,
            domain_death: 2,
            domain_suspended: 7,
            domain_running: 8,
            domain_created: 9,
            disk_eject: 3,
            operation_complete: 4,
            domain_create_console_available: 5,
            other: 6,
        };
        assert_eq!(events, expected);
    }
}
