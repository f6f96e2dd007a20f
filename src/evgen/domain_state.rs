// SPDX-License-Identifier: LGPL-2.1-or-later
//! The states of one domain, from look to look, and a generator of events for those of them that were asked for.
//!
//! ```text
//!                   suspended: SUSPENDED
//!     ┌──────────────────────────────────────────┐
//!     │                 runs: RUNNING            ▼        still suspended, and its processors
//!  Running ◀──────────────────────────────── Suspended ──┐ have run: RUNNING, SUSPENDED
//!     │  ▲                                    │  ▲   ▲   │
//!     │  │ runs: RUNNING                      │  │   └───┘
//!     │  │         shut down: RUNNING, SHUTDOWN  │
//!     │  │    ┌───────────────────────────────┘  │
//!     │  │    ▼                                  │
//!     │ ShutDown ────────────────────────────────┘
//!     │       ▲        suspended: RUNNING, SUSPENDED
//!     └───────┘
//!      shut down, reason ≠ suspend: SHUTDOWN
//!
//!  any of them ─── dying, gone, or another domain has its number: DEATH ──▶ Dead
//! ```
//!
//! A domain that was suspended and is shut down for another reason, or the other way about, has run in between: of two
//! looks, nothing is told that the path from one to the other does not go through. What can't be seen is a suspend and a
//! resume between two looks that both find it running.
//!
//! That a suspended domain was resumed and suspended again between two looks, its processor time tells. The hypervisor
//! counts it to the nanosecond, and only while one of the domain's processors runs. While a domain is suspended it stands
//! still, but for the last moment: a domain counts as shut down before the processor that has asked for it has come to
//! rest. For so long the hypervisor also says that a processor runs, and what it has counted isn't compared with.
//!
//! The processor time, and the reason, tell too whether a domain that has shut down, and has another UUID now, is another: a toolstack that
//! preserves a crashed domain, to start a new one in its place, gives its UUID to the new one.

use super::Recipient;
use super::domain_death::{Change, REASON_SUSPEND, Report};
use super::monitor::Generator;
use crate::abi::*;
use crate::xen::hypervisor::DomainInfo;

/// Bits of the event types that can be asked for, for a single domain.
pub const STATES: u64 = 1 << LIBXL_EVENT_TYPE_DOMAIN_SHUTDOWN
    | 1 << LIBXL_EVENT_TYPE_DOMAIN_DEATH
    | 1 << LIBXL_EVENT_TYPE_DOMAIN_SUSPENDED
    | 1 << LIBXL_EVENT_TYPE_DOMAIN_RUNNING;

/// For all domains, also this one.
pub const CREATED: u64 = 1 << LIBXL_EVENT_TYPE_DOMAIN_CREATED;

/// A mask of event types has that of a change.
pub(super) fn wants(states: u64, change: Change) -> bool {
    states & 1 << change.event_type() != 0
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Or not looked at yet: a domain that simply runs is nothing to tell.
    Running,
    /// Its processor time in nanoseconds, as soon as that stands still.
    Suspended(Option<u64>),
    /// The reason, and likewise.
    ShutDown(u8, Option<u64>),
    Dead,
}

/// What a look brings to light: two things at most, in this order.
pub type Changes = [Option<Change>; 2];

/// A domain, from the first look at it to its end.
#[derive(Debug, Clone)]
pub struct Life {
    /// As last seen; zero if it never was.
    uuid: [u8; 16],
    phase: Phase,
}

impl Default for Life {
    fn default() -> Self {
        Life { uuid: [0; 16], phase: Phase::Running }
    }
}

impl Life {
    /// As last seen; zero if it never was.
    pub fn uuid(&self) -> [u8; 16] {
        self.uuid
    }

    /// It is over.
    pub fn dead(&self) -> bool {
        self.phase == Phase::Dead
    }

    /// It is suspended, as far as is known.
    pub fn suspended(&self) -> bool {
        matches!(self.phase, Phase::Suspended(_))
    }

    /// Whether it is this domain, not another that has its number. One without a UUID may have been given it meanwhile, and
    /// one that has shut down another.
    pub fn is_of(&self, info: &DomainInfo) -> bool {
        self.uuid == info.uuid() || self.uuid == [0; 16] || self.has_lain_still(info)
    }

    /// It had shut down before this look, and hasn't run since.
    fn has_lain_still(&self, info: &DomainInfo) -> bool {
        let Phase::ShutDown(reason, then) = self.phase else { return false };
        info.shutdown_reason() == Some(reason) && then.is_none_or(|then| then == info.cpu_time_ns())
    }

    /// Takes in a look at the domain, `None` if it is gone. Another's is its end.
    pub fn look(&mut self, info: Option<&DomainInfo>) -> Changes {
        let info = info.filter(|info| self.is_of(info));
        self.uuid = info.map_or(self.uuid, DomainInfo::uuid);
        let alive = info.filter(|info| !info.dying());
        let (phase, changes) = match (self.phase, alive.map(|info| (info, info.shutdown_reason()))) {
            (Phase::Dead, _) => (Phase::Dead, [None, None]),
            (_, None) => (Phase::Dead, [Some(Change::Death), None]),
            (Phase::Running, Some((_, None))) => (Phase::Running, [None, None]),
            (Phase::Suspended(_) | Phase::ShutDown(..), Some((_, None))) => {
                (Phase::Running, [Some(Change::Running), None])
            }
            (phase, Some((info, Some(REASON_SUSPEND)))) => suspended(phase, info),
            (Phase::Running, Some((info, Some(reason)))) => {
                (Phase::ShutDown(reason, at_rest(info)), [Some(Change::Shutdown(reason)), None])
            }
            (Phase::Suspended(_), Some((info, Some(reason)))) => {
                (Phase::ShutDown(reason, at_rest(info)), [Some(Change::Running), Some(Change::Shutdown(reason))])
            }
            (Phase::ShutDown(..), Some((info, Some(reason)))) => (Phase::ShutDown(reason, at_rest(info)), [None, None]),
        };
        self.phase = phase;
        changes
    }
}

/// The processor time of a domain that is shut down, if it stands still.
fn at_rest(info: &DomainInfo) -> Option<u64> {
    (!info.on_a_processor()).then(|| info.cpu_time_ns())
}

/// A look has found a domain suspended, which was in that phase.
fn suspended(before: Phase, info: &DomainInfo) -> (Phase, Changes) {
    let changes = match before {
        Phase::Running => [Some(Change::Suspended), None],
        Phase::Suspended(None) => [None, None],
        Phase::Suspended(Some(then)) if info.cpu_time_ns() <= then => return (before, [None, None]),
        _ => [Some(Change::Running), Some(Change::Suspended)],
    };
    (Phase::Suspended(at_rest(info)), changes)
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
                uuid: self.life.uuid,
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
    fn of_two_shutdowns_without_a_look_in_between_the_first_is_told() {
        let looks = [Some(shut_down(1)), Some(shut_down(0)), Some(running()), Some(shut_down(0))];
        assert_eq!(told(&looks), [vec![Shutdown(1)], vec![], vec![Running], vec![Shutdown(0)]]);
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
        let other = |info: DomainInfo| Some(info.with_uuid([7; 16]));
        for before in [running(), suspended_at(1), shut_down(0)] {
            for after in [running(), suspended_at(2), shut_down(0).with_cpu_time(2)] {
                let mut life = Life::default();
                life.look(Some(&before));
                assert_eq!(life.look(other(after).as_ref()), [Some(Death), None]);
                assert_eq!(life.uuid(), before.uuid(), "the death is that of the old one");
            }
        }
    }

    #[test]
    fn a_uuid_that_comes_later_makes_no_other_domain() {
        let nameless = running().with_uuid([0; 16]);
        assert_eq!(told(&[Some(nameless), Some(running()), Some(running())]), [[], [], []]);
        assert_eq!(told(&[Some(running()), Some(nameless)]), [vec![], vec![Death]]);
    }

    #[test]
    fn another_domain_that_has_shut_down_too_is_known_by_its_reason() {
        for before in [shut_down(0), shut_down(0).on_its_processor()] {
            let mut life = Life::default();
            life.look(Some(&before));
            let other = shut_down(3).with_uuid([7; 16]);
            assert!(!life.is_of(&other));
            assert_eq!(life.look(Some(&other)), [Some(Death), None]);
        }
    }

    #[test]
    fn a_domain_that_has_shut_down_may_be_given_another_uuid() {
        let preserved = shut_down(3).with_cpu_time(7).with_uuid([7; 16]);
        for before in [shut_down(3).with_cpu_time(7), shut_down(3).with_cpu_time(6).on_its_processor()] {
            let mut life = Life::default();
            assert_eq!(life.look(Some(&before)), [Some(Shutdown(3)), None]);
            assert_eq!(life.look(Some(&preserved)), [None, None]);
            assert_eq!(life.uuid(), [7; 16]);
            assert_eq!(life.look(Some(&preserved.being_destroyed())), [Some(Death), None]);
        }
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
