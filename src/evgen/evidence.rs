// SPDX-License-Identifier: LGPL-2.1-or-later
//! Whether the domain that a look finds under a domid is the one that the look before found there, and whether it has run
//! in between.
//!
//! A domid is used again sooner or later, and a UUID may change while its domain lives: a migrated domain gets its true one
//! late, and a domain that can't be freed may be given another, so that the old one can be used again. So neither says who a
//! domain is. What does:
//!
//! | two looks at one domid | verdict |
//! |---|---|
//! | no such domain at a look in between | it has ended |
//! | dying, then not dying | another domain: nothing revives one |
//! | paravirtualised, then fully virtualised, or the other way about | another: that is decided when it is created |
//! | paravirtualised, and the page that it shares with the hypervisor lies elsewhere | another: that page stays as long as the domain |
//! | less processor time than before | another: it only grows |
//! | more processor time, and shut down both times | the same, which has run in between |
//! | shut down both times, for different reasons | the same, which has run in between |
//! | shut down, then not | the same, which runs again |
//! | another UUID, and none of the above | the same |
//! | xenstored has released and introduced some domain in between | the same: it doesn't say which one, and a soft reset does both to a domain that lives on |
//!
//! What can't be seen: a domain that has ended, if another has its domid before anyone looks, and has run for longer; and
//! that a domain has shut down again, if it didn't run for a moment in between, or runs once more before anyone looks.

use crate::xen::hypervisor::DomainInfo;

/// The clocks of two processors of the host may differ by so much, for each of a domain's processors that runs: less processor time by
/// more than that is another domain's.
const CLOCKS_DIFFER_NS: u64 = 100_000;

/// A domain counts as shut down before its processors have come to rest. They run on for less than this, all together.
const LEAVING_NS: u64 = 10_000_000;

/// How long a domain's processors have run, as of one look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CpuTime {
    ns: u64,
}

impl CpuTime {
    /// As of this look.
    pub fn of(info: &DomainInfo) -> Self {
        CpuTime { ns: info.cpu_time_ns() }
    }

    /// A domain that was shut down at that look, and is at this one, has run in between. `at_rest`: see [`at_rest`].
    pub fn has_grown(self, at_rest: bool, info: &DomainInfo) -> bool {
        let leaving = if at_rest { 0 } else { LEAVING_NS };
        info.cpu_time_ns() > self.ns.saturating_add(leaving)
    }

    /// The same, or this look has found another domain in its place, as far as processor time says so.
    pub fn is_of_another_run(self, at_rest: bool, info: &DomainInfo) -> bool {
        self.has_grown(at_rest, info) || info.cpu_time_ns() < self.ns
    }
}

/// None of its processors is still on its way into the shutdown: its processor time stands still from here on.
pub fn at_rest(info: &DomainInfo) -> bool {
    !info.on_a_processor()
}

/// What is kept of a look at a domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Trace {
    uuid: [u8; 16],
    cpu_time: CpuTime,
    frame: u32,
    at_rest: bool,
}

/// In place of a fully virtualised domain's frame, which its guest moves.
const MOVABLE: u32 = u32::MAX;

impl Trace {
    /// Of a look at a domain.
    pub fn of(info: &DomainInfo) -> Self {
        Trace { uuid: info.uuid(), cpu_time: CpuTime::of(info), frame: frame(info), at_rest: at_rest(info) }
    }

    /// The UUID that it had.
    pub fn uuid(&self) -> [u8; 16] {
        self.uuid
    }

    /// Nothing says that this look found another domain.
    pub fn fits(&self, info: &DomainInfo) -> bool {
        let differs = CLOCKS_DIFFER_NS.saturating_mul(info.processors());
        self.frame == frame(info) && self.cpu_time.ns <= info.cpu_time_ns().saturating_add(differs)
    }

    /// The domain was shut down at that look, and is at this one: it has run in between.
    pub fn has_run(&self, info: &DomainInfo) -> bool {
        self.cpu_time.has_grown(self.at_rest, info)
    }

    /// Another look has found it shut down still, without having run. As long as it isn't at rest, the processor time of the
    /// first look is what counts.
    pub fn lies_still(&mut self, info: &DomainInfo) {
        self.uuid = info.uuid();
        if !self.at_rest && at_rest(info) {
            *self = Trace::of(info);
        }
    }
}

fn frame(info: &DomainInfo) -> u32 {
    // Two pages of one host differ in the lower bits, but on one of 16 TiB and more; there the upper ones are mixed in.
    info.pv_frame().map_or(MOVABLE, |frame| (frame ^ (frame >> 32)) as u32 & !(1 << 31))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alive() -> DomainInfo {
        DomainInfo::alive(5).with_cpu_time(SECOND)
    }

    const SECOND: u64 = 1_000_000_000;

    fn same(before: DomainInfo, after: DomainInfo) -> bool {
        Trace::of(&before).fits(&after)
    }

    #[test]
    fn another_uuid_is_no_other_domain() {
        for other in [[7; 16], [0; 16]] {
            assert!(same(alive(), alive().with_uuid(other)));
            assert!(same(alive().with_uuid(other), alive()));
        }
    }

    #[test]
    fn less_processor_time_is_another_domains() {
        assert!(!same(alive(), alive().with_cpu_time(SECOND / 2)));
        assert!(same(alive(), alive().with_cpu_time(2 * SECOND)));
        // The clocks of two processors.
        assert!(same(alive(), alive().with_cpu_time(SECOND - CLOCKS_DIFFER_NS)));
        assert!(!same(alive(), alive().with_cpu_time(SECOND - CLOCKS_DIFFER_NS - 1)));
    }

    #[test]
    fn each_of_a_domains_processors_may_have_been_asked_by_another_clock() {
        let before = alive().with_processors(128);
        assert!(same(before, before.with_cpu_time(SECOND - 128 * CLOCKS_DIFFER_NS)));
        assert!(!same(before, before.with_cpu_time(SECOND - 128 * CLOCKS_DIFFER_NS - 1)));
    }

    #[test]
    fn another_kind_of_guest_is_another_domain() {
        assert!(!same(alive(), alive().fully_virtualised()));
        assert!(!same(alive().fully_virtualised(), alive()));
    }

    #[test]
    fn a_paravirtualised_guests_shared_page_stays_and_a_fully_virtualised_ones_moves() {
        assert!(!same(alive().with_frame(7), alive().with_frame(8)));
        assert!(!same(alive().with_frame(7), alive().with_frame(7 | (1 << 40))));
        assert!(same(alive().with_frame(7).fully_virtualised(), alive().with_frame(8).fully_virtualised()));
    }

    #[test]
    fn a_shutdown_and_a_run_are_no_other_domain() {
        assert!(same(alive(), alive().shut_down(5)));
        assert!(same(alive().shut_down(5), alive()));
        assert!(same(alive().shut_down(5), alive().shut_down(0)));
    }

    #[test]
    fn who_has_run_in_between_has_more_processor_time() {
        let down = alive().shut_down(5);
        let trace = Trace::of(&down);
        assert!(!trace.has_run(&down));
        assert!(trace.has_run(&down.with_cpu_time(SECOND + 1)));
    }

    #[test]
    fn a_processor_on_its_way_into_the_shutdown_has_not_run() {
        let leaving = alive().shut_down(5).on_its_processor();
        let mut trace = Trace::of(&leaving);
        let later = leaving.with_cpu_time(SECOND + LEAVING_NS);
        assert!(!trace.has_run(&later));
        // However often it is looked at, the first counts.
        trace.lies_still(&later);
        assert!(trace.has_run(&later.with_cpu_time(SECOND + LEAVING_NS + 1)));
        // Until it is at rest.
        let rests = alive().shut_down(5).with_cpu_time(SECOND + 3);
        trace.lies_still(&rests.with_uuid([7; 16]));
        assert_eq!(trace.uuid(), [7; 16]);
        assert!(!trace.has_run(&rests));
        assert!(trace.has_run(&rests.with_cpu_time(SECOND + 4)));
    }
}
