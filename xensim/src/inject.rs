// SPDX-License-Identifier: LGPL-2.1-or-later
//! Faults and delays of hypercalls, whether the devices may be opened at all, and the counters of what was called.
//!
//! Invariant: a rule that is being set is first switched off, so that a call never meets half a rule.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::table::{CALLS, Table};

/// The kinds of hypercall that are told apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Call {
    /// sysctl `getdomaininfolist`: the information on all domains from one on (`xc_domain_getinfolist`).
    GetDomainInfoList = 0,
    /// domctl `getdomaininfo`: the information on one domain (`xc_domain_getinfo` and its like).
    GetDomainInfo = 1,
    /// Any other sysctl.
    Sysctl = 2,
    /// Any other domctl.
    Domctl = 3,
    /// `xen_version`.
    XenVersion = 4,
    /// `sched_op`, such as the remote shutdown.
    SchedOp = 5,
    /// `event_channel_op`.
    EventChannelOp = 6,
    /// `memory_op`.
    MemoryOp = 7,
    /// Any other hypercall.
    Other = 8,
}

impl Call {
    /// All of them, in the order of their numbers.
    pub const ALL: [Call; CALLS] = [
        Call::GetDomainInfoList,
        Call::GetDomainInfo,
        Call::Sysctl,
        Call::Domctl,
        Call::XenVersion,
        Call::SchedOp,
        Call::EventChannelOp,
        Call::MemoryOp,
        Call::Other,
    ];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Call::GetDomainInfoList => "getdomaininfolist",
            Call::GetDomainInfo => "getdomaininfo",
            Call::Sysctl => "sysctl",
            Call::Domctl => "domctl",
            Call::XenVersion => "xen_version",
            Call::SchedOp => "sched_op",
            Call::EventChannelOp => "event_channel_op",
            Call::MemoryOp => "memory_op",
            Call::Other => "other",
        }
    }
}

/// The kinds of process that are told apart: a fault is meant for the programs under test, not for xenstored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Role {
    /// Any program but xenstored.
    Client = 0,
    /// The host's xenstored.
    Xenstored = 1,
}

/// Whether a client may open the devices.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(u32)]
pub enum Access {
    /// It may.
    #[default]
    Full = 0,
    /// The devices exist, and the client is not privileged: opening one fails with `EACCES`.
    NoPermission = 1,
    /// The kernel does not run on Xen: there are no devices, opening one fails with `ENOENT`.
    NoHypervisor = 2,
}

impl Access {
    /// The error number of opening a device, if it may not be opened.
    pub fn errno(self) -> Option<i32> {
        match self {
            Access::Full => None,
            Access::NoPermission => Some(libc::EACCES),
            Access::NoHypervisor => Some(libc::ENOENT),
        }
    }
}

/// How the hypercalls of one kind misbehave.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fault {
    /// The error number that they fail with; 0 for none.
    pub errno: i32,
    /// How many of them fail; `None` for all from now on.
    pub times: Option<u64>,
    /// How many succeed before.
    pub after: u64,
    /// How long each takes, failing or not.
    pub delay: Duration,
    /// Whose calls.
    pub role: Role,
}

impl Fault {
    /// All fail with this error number, until the fault is cleared.
    pub fn always(errno: i32) -> Fault {
        Fault { errno, times: None, after: 0, delay: Duration::ZERO, role: Role::Client }
    }

    /// The next `times` fail with this error number.
    pub fn times(errno: i32, times: u64) -> Fault {
        Fault { times: Some(times), ..Fault::always(errno) }
    }

    /// The next one fails with this error number.
    pub fn once(errno: i32) -> Fault {
        Fault::times(errno, 1)
    }

    /// All take this long, and succeed.
    pub fn delay(delay: Duration) -> Fault {
        Fault { delay, ..Fault::times(0, 0) }
    }
}

/// What is to happen to one call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Verdict {
    /// How long it takes.
    pub delay: Duration,
    /// The error number that it fails with, if it does.
    pub errno: Option<i32>,
}

impl Table {
    /// Makes the hypercalls of this kind misbehave.
    pub fn set_fault(&self, call: Call, fault: &Fault) {
        let rule = &self.rules[call as usize];
        self.clear_fault(call);
        rule.errno.store(fault.errno, Ordering::Relaxed);
        rule.roles.store(1 << fault.role as u32, Ordering::Relaxed);
        rule.skip.store(i64::try_from(fault.after).unwrap_or(i64::MAX), Ordering::Relaxed);
        rule.delay_ns.store(u64::try_from(fault.delay.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
        let remaining = match fault.times {
            _ if fault.errno == 0 => 0,
            Some(times) => i64::try_from(times).unwrap_or(i64::MAX),
            None => -1,
        };
        rule.remaining.store(remaining, Ordering::Release);
    }

    /// Makes the hypercalls of this kind behave again.
    pub fn clear_fault(&self, call: Call) {
        let rule = &self.rules[call as usize];
        rule.remaining.store(0, Ordering::Release);
        rule.delay_ns.store(0, Ordering::Release);
    }

    /// Counts a hypercall and says what is to happen to it.
    pub fn judge(&self, role: Role, call: Call) -> Verdict {
        self.counts[role as usize][call as usize].fetch_add(1, Ordering::Relaxed);
        let rule = &self.rules[call as usize];
        let remaining = rule.remaining.load(Ordering::Acquire);
        let delay_ns = rule.delay_ns.load(Ordering::Acquire);
        if remaining == 0 && delay_ns == 0 || rule.roles.load(Ordering::Relaxed) & (1 << role as u32) == 0 {
            return Verdict { delay: Duration::ZERO, errno: None };
        }
        let take = |left: i64| (left > 0).then_some(left - 1);
        let skipped = || rule.skip.fetch_update(Ordering::AcqRel, Ordering::Acquire, take).is_ok();
        let fails = remaining != 0
            && !skipped()
            && (remaining < 0 || rule.remaining.fetch_update(Ordering::AcqRel, Ordering::Acquire, take).is_ok());
        Verdict { delay: Duration::from_nanos(delay_ns), errno: fails.then(|| rule.errno.load(Ordering::Relaxed)) }
    }

    /// How many hypercalls of this kind have been made, failed ones too.
    pub fn count(&self, role: Role, call: Call) -> u64 {
        self.counts[role as usize][call as usize].load(Ordering::Relaxed)
    }

    /// Begins to count from 0 again.
    pub fn reset_counts(&self) {
        for count in self.counts.iter().flatten() {
            count.store(0, Ordering::Relaxed);
        }
    }

    /// Whether clients may open the devices.
    pub fn access(&self) -> Access {
        match self.access.load(Ordering::Acquire) {
            1 => Access::NoPermission,
            2 => Access::NoHypervisor,
            _ => Access::Full,
        }
    }

    /// Says whether clients may open the devices from now on; descriptors that are open stay good.
    pub fn set_access(&self, access: Access) {
        self.access.store(access as u32, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::tests::Fixture;

    #[test]
    fn a_fault_fails_as_often_as_it_says_and_after_as_many() {
        let fixture = Fixture::new();
        let table = &fixture.table;
        table.set_fault(Call::Domctl, &Fault { after: 2, ..Fault::times(libc::EIO, 2) });
        let errnos: Vec<_> = (0..6).map(|_| table.judge(Role::Client, Call::Domctl).errno).collect();
        assert_eq!(errnos, [None, None, Some(libc::EIO), Some(libc::EIO), None, None]);
        assert_eq!(table.count(Role::Client, Call::Domctl), 6);
        assert_eq!(table.count(Role::Client, Call::Sysctl), 0);
    }

    #[test]
    fn a_fault_is_for_one_role_and_one_kind() {
        let fixture = Fixture::new();
        let table = &fixture.table;
        table.set_fault(Call::Sysctl, &Fault::always(libc::EPERM));
        assert_eq!(table.judge(Role::Xenstored, Call::Sysctl).errno, None);
        assert_eq!(table.judge(Role::Client, Call::Domctl).errno, None);
        for _ in 0..100 {
            assert_eq!(table.judge(Role::Client, Call::Sysctl).errno, Some(libc::EPERM));
        }
        table.clear_fault(Call::Sysctl);
        assert_eq!(table.judge(Role::Client, Call::Sysctl).errno, None);
    }

    #[test]
    fn a_delay_alone_fails_nothing() {
        let fixture = Fixture::new();
        let delay = Duration::from_millis(5);
        fixture.table.set_fault(Call::Other, &Fault::delay(delay));
        assert_eq!(fixture.table.judge(Role::Client, Call::Other), Verdict { delay, errno: None });
    }

    #[test]
    fn threads_share_the_failures_out() {
        let fixture = Fixture::new();
        let table = &fixture.table;
        table.set_fault(Call::Domctl, &Fault { after: 50, ..Fault::times(libc::EIO, 100) });
        let failures = || (0..100).filter(|_| table.judge(Role::Client, Call::Domctl).errno.is_some()).count();
        let failed: usize = std::thread::scope(|scope| {
            let threads = [(); 4].map(|()| scope.spawn(failures));
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(failed, 100);
        assert_eq!(table.count(Role::Client, Call::Domctl), 400);
    }
}
