// SPDX-License-Identifier: LGPL-2.1-or-later
//! What has been counted, and how a context stands.

use super::Context;
use crate::stats::Stats;
use crate::xen::hypervisor::Hypervisor;

impl Context {
    /// What has been counted, and how things stand, all of one moment.
    pub fn stats(&self) -> Stats {
        let state = self.state.lock();
        Stats {
            counts: state.counts,
            asked: state.hypervisor.as_ref().map(Hypervisor::asked).unwrap_or_default(),
            queued: state.inbox.queue.len() as u64,
            queued_most: state.inbox.queue.longest() as u64,
            watching: state.armed && state.store.is_some(),
            death_generators: state.domains.deaths() as u64,
            eject_generators: state.drives.len() as u64,
            drives_watched: state.drives.watched_count() as u64,
            children_running: state.children.running_count() as u64,
            state_generators: state.domains.states() as u64,
            domains_known: state.domains.known() as u64,
            queued_for_subscribers: state.subscribers.inboxes().map(|inbox| inbox.queue.len() as u64).sum(),
            queued_bytes: {
                let of_subscribers: usize = state.subscribers.inboxes().map(|inbox| inbox.queue.bytes()).sum();
                (state.inbox.queue.bytes() + of_subscribers) as u64
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::context::{EventHooks, ForLibxl, Libxl};
    use crate::event::Event;
    use crate::evgen::Recipient;
    use crate::evgen::domain_death::{Change, Report};
    use crate::stats::Events;
    use crate::xen::log::NullLog;

    /// A libxenlight that nobody has to call.
    struct Idle;

    impl Libxl for Idle {
        fn occurred_fd(&self, _for_libxl: ForLibxl, _fd: i32, _events: i16, _revents: i16) {}

        fn occurred_timeout(&self, _for_libxl: ForLibxl) {}
    }

    fn context() -> Arc<Context> {
        Context::beside(Arc::new(Idle), Arc::new(NullLog)).unwrap()
    }

    fn bring(context: &Context, change: Change) {
        context.libxl_event(
            Event::from_report(&Report { domid: 1, uuid: [0; 16], user: 0, recipient: Recipient::OWN, change })
                .unwrap(),
        );
    }

    /// Wants deaths, and to be told of disasters.
    struct Deaths;

    impl EventHooks for Deaths {
        fn mask(&self) -> u64 {
            DEATH
        }

        fn event_occurs(&self, _event: Event) {}

        fn disaster(&self, _event_type: u32, _message: &str, _errno: i32) -> bool {
            true
        }
    }

    const ALL: u64 = u64::MAX;
    const DEATH: u64 = 1 << 2;

    #[test]
    fn a_new_context_has_counted_nothing() {
        assert_eq!(context().stats(), Stats::default());
    }

    #[test]
    fn events_are_counted_by_type_and_by_way() {
        let context = context();
        for _ in 0..3 {
            bring(&context, Change::Shutdown(0));
            bring(&context, Change::Death);
        }
        let stats = context.stats();
        assert_eq!(stats.counts.events, Events { domain_shutdown: 3, domain_death: 3, ..Events::default() });
        assert_eq!((stats.queued, stats.queued_most, stats.counts.events_called_back), (6, 6, 0));

        context.check(DEATH, None).unwrap();
        context.check(ALL, None).unwrap();
        context.set_event_hooks(Some(Arc::new(Deaths)));
        bring(&context, Change::Death);
        bring(&context, Change::Shutdown(0));
        let stats = context.stats();
        assert_eq!(stats.counts.events, Events { domain_shutdown: 4, domain_death: 4, ..Events::default() });
        assert_eq!((stats.queued, stats.queued_most, stats.counts.events_called_back), (5, 6, 1));
    }

    #[test]
    fn turns_and_disasters_are_counted() {
        let context = context();
        context.set_event_hooks(Some(Arc::new(Deaths)));
        context.disaster(0, "on purpose", 0);
        context.occurred();
        context.occurred();
        let counts = context.stats().counts;
        assert_eq!((counts.disasters, counts.turns), (1, 2));
    }

    #[test]
    fn looking_at_the_counters_changes_none() {
        let context = context();
        bring(&context, Change::Death);
        let before = context.stats();
        assert_eq!(context.stats(), before);
    }

    /// From a callback, where no lock is held.
    #[test]
    fn a_callback_can_look_at_the_counters() {
        struct Looks(Arc<Context>, parking_lot::Mutex<Vec<u64>>);
        impl EventHooks for Looks {
            fn mask(&self) -> u64 {
                ALL
            }

            fn event_occurs(&self, _event: Event) {
                self.1.lock().push(self.0.stats().counts.events_called_back);
            }

            fn disaster(&self, _event_type: u32, _message: &str, _errno: i32) -> bool {
                true
            }
        }
        let context = context();
        let looks = Arc::new(Looks(context.clone(), parking_lot::Mutex::default()));
        context.set_event_hooks(Some(looks.clone()));
        bring(&context, Change::Death);
        bring(&context, Change::Death);
        assert_eq!(*looks.1.lock(), [1, 2]);
        context.set_event_hooks(None);
    }
}
