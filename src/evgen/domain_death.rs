// SPDX-License-Identifier: LGPL-2.1-or-later
//! One generator of DOMAIN_SHUTDOWN and DOMAIN_DEATH, and the rule by which it speaks.
//!
//! ```text
//!             shut down, reason ≠ suspend: SHUTDOWN
//!   Running ─────────────────────────────────────────▶ ShutDown
//!    ▲   │                  runs again                    │
//!    │   ◀────────────────────────────────────────────────┘
//!    │   │ dying or gone: DEATH                           │ dying or gone: DEATH
//!    │   ▼                                                ▼
//!    │  Dead ◀────────────────────────────────────────────┘
//!    └── a suspended domain counts as running: it is expected to run again or to die
//! ```
//!
//! That it has run between two looks which both find it shut down, another reason or more processor time tells. It may also be
//! another domain of that number, which nobody has seen alive: the generator follows it, as libxl's does. Its shutdown is
//! news in either case.

use super::Recipient;
use super::evidence::{CpuTime, at_rest};
use super::monitor::Generator;
use crate::abi::*;
use crate::xen::hypervisor::DomainInfo;

/// `LIBXL_SHUTDOWN_REASON_SUSPEND`: the state in which a domain is saved, migrated or snapshotted.
pub const REASON_SUSPEND: u8 = 2;

/// How shutdowns with reason suspend are treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SuspendRule {
    /// They are not reported, and the shutdown that comes after the resume is.
    #[default]
    Hide,
    /// As libxl: the suspend is reported, and no shutdown after the first.
    Report,
}

/// What has been said of the domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Said {
    Nothing,
    /// A shutdown for this reason, and some processor was still on its way into it: see [`at_rest`].
    Leaving(u8),
    /// A shutdown for this reason.
    Shutdown(u8),
    Death,
}

/// What happened to a domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It shut down, for this reason.
    Shutdown(u8),
    /// It is being destroyed, or gone.
    Death,
    /// It shut down in order to be saved, migrated or snapshotted. Only of generators of states, as all that follows.
    Suspended,
    /// It runs again after it had shut down.
    Running,
    /// It is there, and wasn't before; or a generator has begun, and finds it.
    Created,
}

impl Change {
    /// The type of the event that tells of it.
    pub fn event_type(self) -> libxl_event_type {
        match self {
            Change::Shutdown(_) => LIBXL_EVENT_TYPE_DOMAIN_SHUTDOWN,
            Change::Death => LIBXL_EVENT_TYPE_DOMAIN_DEATH,
            Change::Suspended => LIBXL_EVENT_TYPE_DOMAIN_SUSPENDED,
            Change::Running => LIBXL_EVENT_TYPE_DOMAIN_RUNNING,
            Change::Created => LIBXL_EVENT_TYPE_DOMAIN_CREATED,
        }
    }
}

/// Something to tell a generator's owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    /// As the generator was asked for, also where it can't be a domain's.
    pub domid: u32,
    /// As last seen; zero if the domain never was.
    pub uuid: [u8; 16],
    /// The owner's own value.
    pub user: u64,
    /// Who the owner is.
    pub recipient: Recipient,
    /// What happened.
    pub change: Change,
}

/// A generator.
#[derive(Debug, Clone)]
pub struct DomainDeath {
    user: u64,
    uuid: [u8; 16],
    /// As of the shutdown that was reported; without one, of no meaning.
    cpu_time: CpuTime,
    domid: u32,
    recipient: Recipient,
    said: Said,
}

impl DomainDeath {
    /// One that has said nothing yet.
    pub fn new(domid: u32, user: u64, recipient: Recipient) -> Self {
        DomainDeath { user, uuid: [0; 16], cpu_time: CpuTime::default(), domid, recipient, said: Said::Nothing }
    }

    /// Takes in a look at the domain, `None` if there is no such domain.
    pub fn look(&mut self, info: Option<&DomainInfo>, rule: SuspendRule) -> Option<Report> {
        if let Some(info) = info {
            self.uuid = info.uuid();
            // As nearly always; what follows would come to the same.
            if self.said == Said::Nothing && info.running() {
                return None;
            }
        }
        let change = self.change(info, rule)?;
        Some(Report { domid: self.domid, uuid: self.uuid, user: self.user, recipient: self.recipient, change })
    }

    /// What is new, if it isn't simply running.
    fn change(&mut self, info: Option<&DomainInfo>, rule: SuspendRule) -> Option<Change> {
        if self.said == Said::Death {
            return None;
        }
        let Some(info) = info.filter(|info| !info.dying()) else {
            self.said = Said::Death;
            return Some(Change::Death);
        };
        let before = match self.said {
            Said::Leaving(reason) => Some((reason, false)),
            Said::Shutdown(reason) => Some((reason, true)),
            Said::Nothing | Said::Death => None,
        };
        if before.is_some() && rule == SuspendRule::Report {
            return None;
        }
        match (before, info.shutdown_reason()) {
            (_, None) => {
                self.said = Said::Nothing;
                None
            }
            (_, Some(REASON_SUSPEND)) if rule == SuspendRule::Hide => {
                self.said = Said::Nothing;
                None
            }
            (Some((before, rested)), Some(reason))
                if before == reason && !self.cpu_time.is_of_another_run(rested, info) =>
            {
                if !rested && at_rest(info) {
                    self.has_shut_down(reason, info);
                }
                None
            }
            (_, Some(reason)) => {
                self.has_shut_down(reason, info);
                Some(Change::Shutdown(reason))
            }
        }
    }

    fn has_shut_down(&mut self, reason: u8, info: &DomainInfo) {
        self.cpu_time = CpuTime::of(info);
        self.said = if at_rest(info) { Said::Shutdown(reason) } else { Said::Leaving(reason) };
    }
}

impl Generator for DomainDeath {
    type Rule = SuspendRule;

    fn recipient(&self) -> Recipient {
        self.recipient
    }

    fn dead(&self) -> bool {
        self.said == Said::Death
    }

    fn take_in(&mut self, info: Option<&DomainInfo>, rule: SuspendRule, mut tell: impl FnMut(Report)) {
        if let Some(report) = self.look(info, rule) {
            tell(report);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(generator: &mut DomainDeath, rule: SuspendRule, looks: &[Option<DomainInfo>]) -> Vec<Change> {
        looks.iter().filter_map(|look| generator.look(look.as_ref(), rule)).map(|report| report.change).collect()
    }

    fn running() -> Option<DomainInfo> {
        Some(DomainInfo::alive(5))
    }

    fn shut_down(reason: u8) -> Option<DomainInfo> {
        Some(DomainInfo::alive(5).shut_down(reason))
    }

    fn dying(reason: u8) -> Option<DomainInfo> {
        Some(DomainInfo::alive(5).shut_down(reason).being_destroyed())
    }

    /// There may be ten thousand of them.
    #[test]
    fn a_generator_is_small() {
        assert!(size_of::<DomainDeath>() <= 40);
    }

    #[test]
    fn shutdown_then_death_once_each() {
        let looks = [running(), shut_down(3), shut_down(3), dying(3), dying(3), None, None];
        for rule in [SuspendRule::Hide, SuspendRule::Report] {
            let changes = said(&mut DomainDeath::new(5, 0, Recipient::OWN), rule, &looks);
            assert_eq!(changes, [Change::Shutdown(3), Change::Death]);
        }
    }

    #[test]
    fn shutdown_and_dying_in_one_look_is_death_alone() {
        assert_eq!(
            said(&mut DomainDeath::new(5, 0, Recipient::OWN), SuspendRule::Hide, &[dying(0), None]),
            [Change::Death]
        );
    }

    #[test]
    fn poweroff_after_a_suspend_is_reported_and_the_suspend_is_not() {
        let looks = [shut_down(2), running(), shut_down(2), shut_down(2), running(), shut_down(0), None];
        let changes = said(&mut DomainDeath::new(5, 0, Recipient::OWN), SuspendRule::Hide, &looks);
        assert_eq!(changes, [Change::Shutdown(0), Change::Death]);
    }

    #[test]
    fn poweroff_right_after_a_suspend_is_reported_though_the_resume_was_not_seen() {
        let changes =
            said(&mut DomainDeath::new(5, 0, Recipient::OWN), SuspendRule::Hide, &[shut_down(2), shut_down(1)]);
        assert_eq!(changes, [Change::Shutdown(1)]);
    }

    #[test]
    fn a_domain_that_runs_again_can_shut_down_again() {
        let looks = [shut_down(5), running(), shut_down(0), None];
        let changes = said(&mut DomainDeath::new(5, 0, Recipient::OWN), SuspendRule::Hide, &looks);
        assert_eq!(changes, [Change::Shutdown(5), Change::Shutdown(0), Change::Death]);
    }

    #[test]
    fn each_of_several_shutdowns_is_reported_though_nobody_saw_it_run() {
        let at = |reason: u8, cpu_time_ns| shut_down(reason).map(|info| info.with_cpu_time(cpu_time_ns));
        let looks = [
            at(5, 10),
            at(5, 10),
            // Soft resets, one after the other.
            at(5, 20),
            at(5, 30),
            at(5, 30),
            // Another reason is enough.
            at(3, 30),
            at(3, 30),
            // Another domain, which has run for less.
            at(3, 4),
            None,
        ];
        let changes = said(&mut DomainDeath::new(5, 0, Recipient::OWN), SuspendRule::Hide, &looks);
        let shutdowns = [5, 5, 5, 3, 3].map(Change::Shutdown);
        assert_eq!(changes, shutdowns.into_iter().chain([Change::Death]).collect::<Vec<_>>());
    }

    #[test]
    fn a_shut_down_domain_that_is_given_another_uuid_has_not_shut_down_again() {
        let mut generator = DomainDeath::new(5, 0, Recipient::OWN);
        let looks = [shut_down(3), shut_down(3).map(|info| info.with_uuid([7; 16]))];
        assert_eq!(said(&mut generator, SuspendRule::Hide, &looks), [Change::Shutdown(3)]);
        let death = generator.look(None, SuspendRule::Hide).unwrap();
        assert_eq!((death.change, death.uuid), (Change::Death, [7; 16]), "the UUID that it had last");
    }

    #[test]
    fn a_processor_that_has_not_come_to_rest_is_no_second_shutdown() {
        let leaving = |cpu_time_ns| shut_down(3).map(|info| info.with_cpu_time(cpu_time_ns).on_its_processor());
        let rests = |cpu_time_ns| shut_down(3).map(|info| info.with_cpu_time(cpu_time_ns));
        let looks = [leaving(10), leaving(15), rests(17), rests(17), rests(18)];
        let changes = said(&mut DomainDeath::new(5, 0, Recipient::OWN), SuspendRule::Hide, &looks);
        assert_eq!(changes, [Change::Shutdown(3), Change::Shutdown(3)]);
    }

    #[test]
    fn a_shutdown_a_suspend_and_a_shutdown_are_two_shutdowns() {
        let looks = [shut_down(3), shut_down(2), shut_down(3)];
        let changes = said(&mut DomainDeath::new(5, 0, Recipient::OWN), SuspendRule::Hide, &looks);
        assert_eq!(changes, [Change::Shutdown(3), Change::Shutdown(3)]);
    }

    #[test]
    fn the_old_rule_reports_the_suspend_and_loses_the_poweroff() {
        let looks = [shut_down(2), running(), shut_down(0), None];
        let changes = said(&mut DomainDeath::new(5, 0, Recipient::OWN), SuspendRule::Report, &looks);
        assert_eq!(changes, [Change::Shutdown(2), Change::Death]);
    }

    #[test]
    fn death_of_a_suspended_domain_is_reported() {
        assert_eq!(
            said(&mut DomainDeath::new(5, 0, Recipient::OWN), SuspendRule::Hide, &[shut_down(2), dying(2)]),
            [Change::Death]
        );
    }

    #[test]
    fn the_uuid_is_remembered_for_the_death() {
        let mut generator = DomainDeath::new(5, 9, Recipient::OWN);
        assert_eq!(generator.look(running().as_ref(), SuspendRule::Hide), None);
        let uuid = DomainInfo::alive(5).uuid();
        assert_ne!(uuid, [0; 16]);
        let report = Report { domid: 5, uuid, user: 9, recipient: Recipient::OWN, change: Change::Death };
        assert_eq!(generator.look(None, SuspendRule::Hide), Some(report));
    }
}
