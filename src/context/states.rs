// SPDX-License-Identifier: LGPL-2.1-or-later
//! Generators of domains' states: asking for them, and the looks at suspended domains.
//!
//! Nobody has to tell when a suspended domain runs again: the hypervisor raises nothing, and whether xenstored fires is a
//! matter of its version and of the toolstack. So while there are suspended domains whose resume somebody wants to know of,
//! these are looked at from time to time, soon at first and then less and less often; from the beginning again whenever one
//! is suspended. Where there are none, there are no such looks.

use std::time::Duration;

use super::turn::Later;
use super::{Context, State, SubscriberKey};
use crate::error::{Error, Result};
use crate::evgen::domain_state::{CREATED, STATES};
use crate::evgen::monitor::Key;
use crate::evgen::targets::Subject;
use crate::reactor::{TimerId, now};
use crate::xen::DOMID_LIMIT;

/// The pause before the first look at a suspended domain; it doubles up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// When suspended domains are looked at.
#[derive(Debug, Default)]
pub(super) struct ResumeLooks {
    /// The next look.
    next: Option<TimerId>,
    /// How many there were since one was last suspended.
    done: u32,
}

impl ResumeLooks {
    fn pause(&self) -> Duration {
        (FIRST_PAUSE * 2u32.saturating_pow(self.done)).min(LONGEST_PAUSE)
    }
}

impl Context {
    /// Generates events for the states in the mask, bits `1 << LIBXL_EVENT_TYPE_…`, of a domain or of all domains but the
    /// control domain. It begins with the present state.
    pub fn enable_domain_state(&self, subject: Subject, states: u64, user: u64) -> Result<Key> {
        self.enable_domain_state_for(None, subject, states, user)
    }

    /// The same for a subscriber. No event of the generator's goes anywhere else.
    pub fn enable_domain_state_for(
        &self,
        subscriber: Option<SubscriberKey>,
        subject: Subject,
        states: u64,
        user: u64,
    ) -> Result<Key> {
        let allowed = match subject {
            Subject::Domain(domid) if domid >= DOMID_LIMIT => {
                return Err(Error::Invalid("no domain can have this number".to_owned()));
            }
            Subject::Domain(_) => STATES,
            Subject::Any => STATES | CREATED,
        };
        if states == 0 || states & !allowed != 0 {
            return Err(Error::Invalid(format!("a mask of states {states:#x}, which may have the bits {allowed:#x}")));
        }
        self.add_generator(subscriber, subject, |domains, recipient| match subject {
            Subject::Domain(domid) => domains.add_state_for(recipient, domid, states, user),
            Subject::Any => domains.add_any_for(recipient, states, user),
        })
    }

    /// Ends what [`Context::enable_domain_state`] began. Events that are queued stay queued.
    pub fn disable_domain_state(&self, key: Key) -> Result<()> {
        let mut state = self.state.lock();
        if !state.domains.remove_state(key) {
            return Err(Error::Invalid(format!("no generator has the handle {:#x}", u64::from(key))));
        }
        self.plan_resume_look(&mut state);
        self.domain_generator_removed(state);
        Ok(())
    }

    /// After whatever may have changed who is suspended: sets the time of the next look at them, or takes it back.
    #[inline]
    pub(super) fn plan_resume_look(&self, state: &mut State) {
        if !state.domains.deaths_alone() || state.resume_looks.next.is_some() {
            self.plan_next_resume_look(state);
        }
    }

    fn plan_next_resume_look(&self, state: &mut State) {
        let newly_suspended = state.domains.take_newly_suspended();
        let awaiting = state.domains.awaiting_resume();
        if newly_suspended || !awaiting {
            if let Some(next) = state.resume_looks.next.take() {
                state.timers.remove(next);
            }
        }
        if newly_suspended {
            state.resume_looks.done = 0;
        }
        if awaiting && state.resume_looks.next.is_none() {
            let pause = state.resume_looks.pause();
            state.resume_looks.next = Some(self.schedule(state, now() + pause, Later::ResumeLook));
        }
    }

    /// The time for one has come.
    pub(super) fn resume_look_due(&self, state: &mut State) {
        state.resume_looks.next = None;
        state.resume_looks.done = state.resume_looks.done.saturating_add(1);
        state.counts.resume_looks += 1;
        state.domains.ask_suspended();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::abi::*;
    use crate::context::{ForLibxl, Libxl};
    use crate::evgen::domains;
    use crate::evgen::monitor::tests::Table;
    use crate::xen::log::NullLog;

    #[test]
    fn looks_become_rarer_up_to_one_a_second() {
        let pauses =
            [0, 1, 2, 3, 4, 5, 6, 7, 8, u32::MAX].map(|done| ResumeLooks { done, next: None }.pause().as_millis());
        assert_eq!(pauses, [10, 20, 40, 80, 160, 320, 640, 1000, 1000, 1000]);
    }

    /// A libxenlight that nobody has to call.
    struct Idle;

    impl Libxl for Idle {
        fn occurred_fd(&self, _for_libxl: ForLibxl, _fd: i32, _events: i16, _revents: i16) {}

        fn occurred_timeout(&self, _for_libxl: ForLibxl) {}
    }

    fn context() -> Arc<Context> {
        Context::beside(Arc::new(Idle), Arc::new(NullLog)).unwrap()
    }

    /// Has the context look at a host; how many looks at suspended domains there have been since one was last suspended, if
    /// another is planned.
    fn looks_planned(context: &Context, table: &mut Table) -> Option<u32> {
        let mut state = context.state.lock();
        let mut found = domains::look(table, &[&state.domains]);
        context.scan_found(&mut state, &mut found);
        assert_eq!(state.timers.earliest(), state.resume_looks.next.map(|(deadline, _)| deadline));
        state.resume_looks.next.map(|_| state.resume_looks.done)
    }

    /// As if its time had come, which is then looked at.
    fn look_is_due(context: &Context) {
        let mut state = context.state.lock();
        let next = state.resume_looks.next.unwrap();
        assert_eq!(state.timers.remove(next), Some(Later::ResumeLook));
        context.resume_look_due(&mut state);
    }

    const SUSPEND: u8 = 2;

    #[test]
    fn there_is_a_timer_while_a_domain_is_suspended_and_it_starts_again_with_each() {
        let context = context();
        let mut table = Table::of([3, 4]);
        context.state.lock().domains.add_any(STATES, 0);
        assert_eq!(looks_planned(&context, &mut table), None);
        table.edit(3, |info| info.shut_down(SUSPEND));
        assert_eq!(looks_planned(&context, &mut table), Some(0));
        assert_eq!(looks_planned(&context, &mut table), Some(0), "a look for another reason changes nothing");
        look_is_due(&context);
        assert_eq!(looks_planned(&context, &mut table), Some(1));
        look_is_due(&context);
        assert_eq!(looks_planned(&context, &mut table), Some(2));
        table.edit(4, |info| info.shut_down(SUSPEND));
        assert_eq!(looks_planned(&context, &mut table), Some(0));
        look_is_due(&context);
        table.edit(3, |info| info.with_cpu_time(1));
        assert_eq!(looks_planned(&context, &mut table), Some(0), "it was suspended again");
        table.domains = Table::of([3, 4]).domains;
        assert_eq!(looks_planned(&context, &mut table), None);
        assert_eq!(context.stats().counts.resume_looks, 3);
    }

    #[test]
    fn there_is_no_timer_where_nobody_wants_to_know_of_a_resume() {
        let context = context();
        let mut table = Table::of([3]);
        table.edit(3, |info| info.shut_down(SUSPEND));
        context.state.lock().domains.add_death(3, 0);
        context.state.lock().domains.add_state(3, 1 << LIBXL_EVENT_TYPE_DOMAIN_SUSPENDED, 0);
        assert_eq!(looks_planned(&context, &mut table), None);
        let key = context.state.lock().domains.add_state(3, 1 << LIBXL_EVENT_TYPE_DOMAIN_RUNNING, 0);
        assert_eq!(looks_planned(&context, &mut table), Some(0));
        context.disable_domain_state(key).unwrap();
        look_is_due(&context);
        assert_eq!(looks_planned(&context, &mut table), None);
    }

    #[test]
    fn the_last_generator_takes_the_timer_along() {
        for close in [false, true] {
            let context = context();
            let mut table = Table::of([3]);
            table.edit(3, |info| info.shut_down(SUSPEND));
            let key = context.state.lock().domains.add_state(3, STATES, 0);
            assert_eq!(looks_planned(&context, &mut table), Some(0));
            match close {
                false => context.disable_domain_state(key).unwrap(),
                true => context.close(),
            }
            assert_eq!(context.state.lock().timers.earliest(), None);
        }
    }

    #[test]
    fn masks_and_numbers_that_mean_nothing_are_refused() {
        let context = context();
        let (domain, any) = (Subject::Domain(3), Subject::Any);
        let bad_bits = [0, 1, 1 << LIBXL_EVENT_TYPE_DISK_EJECT, 1 << 39, 1 << 43, 1 << 63, u64::MAX];
        let masks = bad_bits.into_iter().flat_map(|mask| [(domain, mask), (any, mask)]);
        let masks = masks.chain([(domain, CREATED), (domain, STATES | CREATED)]);
        let numbers = [DOMID_LIMIT, 40000, u32::MAX - 1, u32::MAX].map(|domid| (Subject::Domain(domid), STATES));
        for (subject, states) in masks.chain(numbers) {
            let result = context.enable_domain_state(subject, states, 0);
            assert!(matches!(result, Err(Error::Invalid(_))), "{subject:?} {states:#x}");
        }
        let state = context.state.lock();
        assert!(state.domains.is_empty() && !state.armed && state.timers.earliest().is_none());
    }
}
