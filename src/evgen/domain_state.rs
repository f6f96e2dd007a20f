// SPDX-License-Identifier: LGPL-2.1-or-later
//! The states of one domain, from look to look, and a generator of events for those of them that were asked for.
//!
//! ```text
//!                   suspended: SUSPENDED
//!     ┌──────────────────────────────────────────┐
//!     │                 runs: RUNNING            ▼        suspended again, and has run
//!  Running ◀──────────────────────────────── Suspended ──┐ in between: RUNNING, SUSPENDED
//!     │  ▲                                    │  ▲   ▲   │
//!     │  │ runs: RUNNING                      │  │   └───┘
//!     │  │         shut down: RUNNING, SHUTDOWN  │
//!     │  │    ┌───────────────────────────────┘  │
//!     │  │    ▼                                  │
//!     │ ShutDown ────────────────────────────────┘
//!     │   │   ▲        suspended: RUNNING, SUSPENDED
//!     │   └───┤ shut down again, and has run in between: RUNNING, SHUTDOWN
//!     └───────┘
//!      shut down, reason ≠ suspend: SHUTDOWN
//!
//!  any of them ─── dying, gone, or another domain has its number: DEATH ──▶ Dead
//! ```
//!
//! A domain that was suspended and is shut down for another reason, or the other way about, has run in between: of two
//! looks, nothing is told that the path from one to the other does not go through. What can't be seen is a suspend and a
//! resume between two looks that both find it running. Whether it has run between two looks that find it shut down for the same
//! reason, and whether it is the same domain at all, `Trace` says (`evidence`).

use super::Recipient;
use super::domain_death::{Change, REASON_SUSPEND, Report};
use super::evidence::Trace;
use super::monitor::Generator;
use crate::abi::*;
use crate::xen::hypervisor::DomainInfo;

/// Bits of the event types that can be asked for, for a single domain.
pub const STATES: u64 = (1 << LIBXL_EVENT_TYPE_DOMAIN_SHUTDOWN)
    | (1 << LIBXL_EVENT_TYPE_DOMAIN_DEATH)
    | (1 << LIBXL_EVENT_TYPE_DOMAIN_SUSPENDED)
    | (1 << LIBXL_EVENT_TYPE_DOMAIN_RUNNING);

/// For all domains, also this one.
pub const CREATED: u64 = 1 << LIBXL_EVENT_TYPE_DOMAIN_CREATED;

/// A mask of event types has that of a change.
pub(super) fn wants(states: u64, change: Change) -> bool {
    states & (1 << change.event_type()) != 0
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Phase {
    /// Not looked at yet. A domain that simply runs is nothing to tell.
    #[default]
    New,
    Running,
    Suspended,
    /// The reason.
    ShutDown(u8),
    Dead,
}

/// What a look brings to light: two things at most, in this order.
pub type Changes = [Option<Change>; 2];

/// A domain, from the first look at it to its end.
#[derive(Debug, Clone, Default)]
pub struct Life {
    /// Of the last look that found it; of no meaning while it is new.
    trace: Trace,
    phase: Phase,
}

impl Life {
    /// As last seen; zero if it never was.
    pub fn uuid(&self) -> [u8; 16] {
        self.trace.uuid()
    }

    /// It is over.
    pub fn dead(&self) -> bool {
        self.phase == Phase::Dead
    }

    /// It is suspended, as far as is known.
    pub fn suspended(&self) -> bool {
        self.phase == Phase::Suspended
    }

    /// Whether it is this domain, not another that has its number.
    pub fn is_of(&self, info: &DomainInfo) -> bool {
        match self.phase {
            Phase::New => true,
            Phase::Dead => info.dying() && self.trace.fits(info),
            Phase::Running | Phase::Suspended | Phase::ShutDown(_) => self.trace.fits(info),
        }
    }

    /// Takes in a look at the domain, `None` if it is gone. Another's is its end.
    pub fn look(&mut self, info: Option<&DomainInfo>) -> Changes {
        if self.dead() {
            return [None, None];
        }
        let Some(info) = info.filter(|info| self.is_of(info)) else {
            self.phase = Phase::Dead;
            return [Some(Change::Death), None];
        };
        let before = std::mem::replace(&mut self.phase, phase(info));
        if before == self.phase && matches!(before, Phase::Suspended | Phase::ShutDown(_)) && !self.trace.has_run(info)
        {
            self.trace.lies_still(info);
            return [None, None];
        }
        self.trace = Trace::of(info);
        let change = match self.phase {
            Phase::New | Phase::Running => None,
            Phase::Suspended => Some(Change::Suspended),
            Phase::ShutDown(reason) => Some(Change::Shutdown(reason)),
            Phase::Dead => Some(Change::Death),
        };
        let ran = matches!(before, Phase::Suspended | Phase::ShutDown(_)) && self.phase != Phase::Dead;
        match ran {
            true => [Some(Change::Running), change],
            false => [change, None],
        }
    }
}

/// What a look finds a domain to be.
fn phase(info: &DomainInfo) -> Phase {
    match info.shutdown_reason() {
        _ if info.dying() => Phase::Dead,
        None => Phase::Running,
        Some(REASON_SUSPEND) => Phase::Suspended,
        Some(reason) => Phase::ShutDown(reason),
    }
}

/// A generator for one domain.
#[derive(Debug, Clone)]
pub struct DomainState {
    domid: u32,
    user: u64,
    recipient: Recipient,
    states: u64,
    life: Life,
}

impl DomainState {
    /// One that tells of these states, of [`STATES`].
    pub fn new(domid: u32, states: u64, user: u64, recipient: Recipient) -> Self {
        DomainState { domid, user, recipient, states, life: Life::default() }
    }

    /// Its domain, if that is suspended and it has to tell when it runs again.
    pub fn awaits_resume(&self) -> Option<u32> {
        (self.life.suspended() && wants(self.states, Change::Running)).then_some(self.domid)
    }
}

impl Generator for DomainState {
    type Rule = ();

    fn recipient(&self) -> Recipient {
        self.recipient
    }

    fn dead(&self) -> bool {
        self.life.dead()
    }

    fn take_in(&mut self, info: Option<&DomainInfo>, (): (), mut tell: impl FnMut(Report)) {
        for change in self.life.look(info).into_iter().flatten().filter(|change| wants(self.states, *change)) {
            tell(Report {
                domid: self.domid,
                uuid: self.life.uuid(),
                user: self.user,
                recipient: self.recipient,
                change,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn running() -> DomainInfo {
        DomainInfo::alive(5)
    }

    fn shut_down(reason: u8) -> DomainInfo {
        running().shut_down(reason)
    }

    fn suspended_at(cpu_time_ns: u64) -> DomainInfo {
        shut_down(REASON_SUSPEND).with_cpu_time(cpu_time_ns)
    }

    /// What looks bring to light, one after the other.
    fn told(looks: &[Option<DomainInfo>]) -> Vec<Vec<Change>> {
        let mut life = Life::default();
        looks.iter().map(|look| life.look(look.as_ref()).into_iter().flatten().collect()).collect()
    }

    use Change::*;

    #[test]
    fn a_domain_that_simply_runs_is_nothing_to_tell() {
        assert_eq!(told(&[Some(running()), Some(running().with_cpu_time(5))]), [[], []]);
    }

    #[test]
    fn suspended_and_running_in_turns_and_then_the_end() {
        let looks = [
            Some(running()),
            Some(suspended_at(10)),
            Some(suspended_at(10)),
            Some(running().with_cpu_time(12)),
            Some(suspended_at(20)),
            Some(running().with_cpu_time(20)),
            Some(shut_down(0).with_cpu_time(30)),
            Some(shut_down(0).with_cpu_time(30)),
            None,
            None,
        ];
        let expected = [
            vec![],
            vec![Suspended],
            vec![],
            vec![Running],
            vec![Suspended],
            vec![Running],
            vec![Shutdown(0)],
            vec![],
            vec![Death],
            vec![],
        ];
        assert_eq!(told(&looks), expected);
    }

    #[test]
    fn what_it_is_at_the_first_look_is_told() {
        assert_eq!(told(&[Some(suspended_at(1))]), [[Suspended]]);
        assert_eq!(told(&[Some(shut_down(3))]), [[Shutdown(3)]]);
        assert_eq!(told(&[Some(shut_down(0).being_destroyed())]), [[Death]]);
        assert_eq!(told(&[None]), [[Death]]);
    }

    #[test]
    fn a_resume_and_a_suspend_between_two_looks_show_in_the_processor_time() {
        let looks = [Some(suspended_at(10)), Some(suspended_at(11)), Some(suspended_at(11)), Some(suspended_at(30))];
        let expected = [vec![Suspended], vec![Running, Suspended], vec![], vec![Running, Suspended]];
        assert_eq!(told(&looks), expected);
    }

    #[test]
    fn a_processor_that_has_not_come_to_rest_is_no_resume() {
        let leaving = |cpu_time_ns| Some(suspended_at(cpu_time_ns).on_its_processor());
        let looks = [leaving(10), leaving(15), Some(suspended_at(17)), Some(suspended_at(17)), Some(suspended_at(18))];
        let expected = [vec![Suspended], vec![], vec![], vec![], vec![Running, Suspended]];
        assert_eq!(told(&looks), expected);
        // One that is on its way into the next suspend is as good as there.
        let looks = [Some(suspended_at(10)), leaving(20), Some(suspended_at(22)), Some(suspended_at(22))];
        assert_eq!(told(&looks), [vec![Suspended], vec![Running, Suspended], vec![], vec![]]);
    }

    #[test]
    fn what_must_lie_between_two_looks_is_told() {
        let looks = [Some(suspended_at(10)), Some(shut_down(1)), Some(suspended_at(20)), Some(running())];
        let expected = [vec![Suspended], vec![Running, Shutdown(1)], vec![Running, Suspended], vec![Running]];
        assert_eq!(told(&looks), expected);
    }

    /// As a generator of shutdown and death does.
    #[test]
    fn each_of_several_shutdowns_is_told_though_nobody_saw_it_run() {
        let down = |reason, cpu_time_ns| Some(shut_down(reason).with_cpu_time(cpu_time_ns));
        let looks = [down(5, 1), down(5, 1), down(5, 2), down(0, 2), down(0, 2), Some(running().with_cpu_time(3))];
        let again = |reason| vec![Running, Shutdown(reason)];
        assert_eq!(told(&looks), [vec![Shutdown(5)], vec![], again(5), again(0), vec![], vec![Running]]);
    }

    #[test]
    fn every_phase_ends_in_death_and_nothing_comes_after_it() {
        for before in [running(), suspended_at(1), shut_down(0)] {
            for end in [Some(running().being_destroyed()), Some(shut_down(2).being_destroyed()), None] {
                let mut changes = told(&[Some(before), end, Some(running()), Some(suspended_at(9)), None]);
                changes.remove(0);
                assert_eq!(changes, [vec![Death], vec![], vec![], vec![]]);
            }
        }
    }

    #[test]
    fn another_domain_of_that_number_is_the_end() {
        for before in [running(), suspended_at(1), shut_down(0)] {
            for after in [running(), suspended_at(2), shut_down(0).with_cpu_time(2)] {
                let mut life = Life::default();
                life.look(Some(&before));
                assert_eq!(life.look(Some(&after.another())), [Some(Death), None]);
                assert_eq!(life.uuid(), before.uuid(), "the death is that of the old one");
            }
        }
    }

    #[test]
    fn another_uuid_is_nothing_to_tell_whatever_the_domain_does_and_its_end_has_it() {
        let renamed = |info: DomainInfo| Some(info.with_uuid([7; 16]));
        let zombie = running().being_destroyed();
        for (info, first) in [
            (running(), None),
            (suspended_at(1), Some(Suspended)),
            (shut_down(3), Some(Shutdown(3))),
            (zombie, Some(Death)),
        ] {
            for other in [renamed(info), Some(info.with_uuid([0; 16]))] {
                let mut life = Life::default();
                assert_eq!(life.look(Some(&info)), [first, None]);
                assert!(other.is_some_and(|other| life.is_of(&other)));
                assert_eq!(life.look(other.as_ref()), [None, None]);
                assert_eq!(life.look(Some(&info)), [None, None]);
                assert_eq!(life.look(renamed(info).as_ref()), [None, None]);
                assert_eq!(life.look(None), if info.dying() { [None, None] } else { [Some(Death), None] });
                assert!(info.dying() || life.uuid() == [7; 16]);
            }
        }
    }

    #[test]
    fn a_zombie_is_the_same_until_a_living_domain_has_its_number() {
        let mut life = Life::default();
        assert_eq!(life.look(Some(&running().being_destroyed())), [Some(Death), None]);
        assert!(life.is_of(&running().being_destroyed().with_uuid([7; 16])));
        assert!(!life.is_of(&running()));
    }

    #[test]
    fn a_generator_tells_what_it_was_asked_for() {
        let looks = [Some(suspended_at(1)), Some(suspended_at(2)), Some(shut_down(3)), None];
        let told = |states: u64| -> Vec<Change> {
            let mut generator = DomainState::new(5, states, 9, Recipient::OWN);
            let mut reports = Vec::new();
            for look in &looks {
                generator.take_in(look.as_ref(), (), |report| reports.push(report));
            }
            assert!(generator.dead());
            assert!(reports.iter().all(|report| (report.domid, report.user) == (5, 9)));
            assert!(reports.iter().all(|report| report.uuid == running().uuid()));
            reports.into_iter().map(|report| report.change).collect()
        };
        assert_eq!(told(STATES), [Suspended, Running, Suspended, Running, Shutdown(3), Death]);
        assert_eq!(told(1 << LIBXL_EVENT_TYPE_DOMAIN_SUSPENDED), [Suspended, Suspended]);
        assert_eq!(told(1 << LIBXL_EVENT_TYPE_DOMAIN_RUNNING), [Running, Running]);
        assert_eq!(told(1 << LIBXL_EVENT_TYPE_DOMAIN_SHUTDOWN), [Shutdown(3)]);
        assert_eq!(told(1 << LIBXL_EVENT_TYPE_DOMAIN_DEATH), [Death]);
    }

    #[test]
    fn a_resume_is_awaited_by_who_wants_to_know_of_it_and_while_there_can_be_one() {
        let awaited = |states: u64, info: DomainInfo| {
            let mut generator = DomainState::new(5, states, 0, Recipient::OWN);
            generator.take_in(Some(&info), (), |_| {});
            generator.awaits_resume().is_some()
        };
        assert!(awaited(STATES, suspended_at(1)));
        assert!(!awaited(STATES & !(1 << LIBXL_EVENT_TYPE_DOMAIN_RUNNING), suspended_at(1)));
        for info in [running(), shut_down(0), suspended_at(1).being_destroyed()] {
            assert!(!awaited(STATES, info));
        }
    }
}
