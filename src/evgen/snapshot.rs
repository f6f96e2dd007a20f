// SPDX-License-Identifier: LGPL-2.1-or-later
//! What a host said of some domains, kept so that several monitors can be scanned against one look.
//!
//! The look asks what one monitor with all of these domains would ask, with as few questions. To each of the monitors the
//! snapshot then is a host that has those domains and no others: it knows all that such a monitor asks for.

use std::ops::Range;

use nix::errno::Errno;

use super::questions::{Answer, BATCH, Questions};
use crate::xen::DOMID_LIMIT;
use crate::xen::hypervisor::{DomainInfo, Host};

/// A look's answer.
pub struct Snapshot {
    /// Those that exist, ascending by domid.
    domains: Vec<DomainInfo>,
    /// Where in them the last answer is.
    answer: Range<usize>,
}

impl Snapshot {
    /// Looks at these domains, in any order. Nothing is kept of a look that fails.
    pub fn take<H: Host + ?Sized>(host: &mut H, mut domids: Vec<u32>) -> Result<Self, Errno> {
        domids.sort_unstable();
        domids.dedup();
        let questions = Questions { most: domids.len(), last: domids.last().copied().unwrap_or(0) };
        let mut answer = Answer::none();
        let mut domains = Vec::new();
        domains.try_reserve_exact(domids.len()).map_err(|_| Errno::ENOMEM)?;
        for (done, domid) in domids.into_iter().enumerate() {
            if !answer.tells_of(domid) {
                answer = questions.ask(host, domid, done)?;
            }
            domains.extend(answer.find(domid).copied());
        }
        Ok(Snapshot { domains, answer: 0..0 })
    }

    /// Looks at all domains of the host.
    pub fn of_all<H: Host + ?Sized>(host: &mut H) -> Result<Self, Errno> {
        let mut domains = Vec::new();
        let mut first = 0;
        while first < DOMID_LIMIT {
            host.ask(first, BATCH)?;
            let found = host.answer();
            domains.try_reserve(found.len()).map_err(|_| Errno::ENOMEM)?;
            domains.extend_from_slice(found);
            first = match found.last() {
                Some(last) if found.len() == BATCH => last.domid() + 1,
                _ => DOMID_LIMIT,
            };
        }
        Ok(Snapshot { domains, answer: 0..0 })
    }

    /// Those that exist, ascending by domid.
    pub fn domains(&self) -> &[DomainInfo] {
        &self.domains
    }
}

impl Host for Snapshot {
    fn ask(&mut self, first: u32, max: usize) -> Result<(), Errno> {
        let start = self.domains.partition_point(|info| info.domid() < first);
        self.answer = start..self.domains.len().min(start.saturating_add(max));
        Ok(())
    }

    fn answer(&self) -> &[DomainInfo] {
        &self.domains[self.answer.clone()]
    }
}

#[cfg(test)]
mod tests {
    use super::super::domain_death::{Change, SuspendRule};
    use super::super::monitor::Monitor;
    use super::super::monitor::tests::{Table, told};
    use super::*;

    fn take<'monitor>(table: &mut Table, monitors: impl IntoIterator<Item = &'monitor Monitor>) -> Snapshot {
        let wanted = monitors.into_iter().flat_map(Monitor::wanted).collect();
        Snapshot::take(table, wanted).unwrap()
    }

    fn scan<H: Host>(monitor: &mut Monitor, host: &mut H) -> Vec<(u32, u64, Change)> {
        told(|tell| monitor.scan(host, tell))
    }

    /// Of a few kinds, the same every time: few and many domains, neighbouring ones, shared ones, scattered ones.
    fn monitors() -> Vec<Monitor> {
        let domids: [&[u32]; 6] = [
            &[5],
            &[1, 2, 3, 4, 5, 6, 7, 8],
            &[5, 300, 600, 900, 1200, 1500],
            &[2, 2, 40000, u32::MAX],
            &[],
            &[1999, 32751],
        ];
        let mut monitors: Vec<Monitor> = (0..domids.len()).map(|_| Monitor::new(SuspendRule::Hide)).collect();
        for (index, (monitor, domids)) in monitors.iter_mut().zip(domids).enumerate() {
            for domid in domids {
                monitor.insert(*domid, index as u64);
            }
        }
        monitors.extend((0..10).map(|offset| {
            let mut monitor = Monitor::new(SuspendRule::Hide);
            for step in 0..50 {
                monitor.insert(100 + offset + 10 * step, 1000);
            }
            monitor
        }));
        monitors
    }

    #[test]
    fn a_scan_of_a_snapshot_finds_what_a_scan_of_the_host_finds() {
        let (mut direct, mut shared) = (monitors(), monitors());
        let mut table = Table::of((0..2000).chain([32751]));
        for round in 0..4 {
            match round {
                1 => (1..2000).filter(|domid| domid % 7 == 5).for_each(|domid| {
                    table.edit(domid, |info| info.shut_down(3));
                }),
                2 => table.domains.retain(|domid, _| domid % 5 == 0),
                3 => table.domains.clear(),
                _ => {}
            }
            let mut snapshot = take(&mut table, &shared);
            for (direct, shared) in direct.iter_mut().zip(&mut shared) {
                assert_eq!(scan(shared, &mut snapshot), scan(direct, &mut table), "round {round}");
            }
        }
        assert!(shared.iter().all(|monitor| monitor.wanted().next().is_none()), "the dead are asked for again");
    }

    #[test]
    fn a_snapshot_for_many_monitors_costs_the_questions_of_one_monitor_with_all_of_their_domains() {
        let mut table = Table::of(0..2000);
        let mut one = Monitor::default();
        let many: Vec<Monitor> = (0..100)
            .map(|offset| {
                let mut monitor = Monitor::default();
                (0..10).for_each(|step| {
                    monitor.insert(100 + offset + 100 * step, 0);
                    one.insert(100 + offset + 100 * step, 0);
                });
                monitor
            })
            .collect();
        scan(&mut one, &mut table);
        let questions = std::mem::take(&mut table.questions);
        assert_eq!(questions, 1);
        take(&mut table, &many);
        assert_eq!(table.questions, questions);
        assert_eq!(table.longest, 1000);
    }

    #[test]
    fn a_few_domains_are_asked_for_one_by_one_however_many_others_there_are() {
        let mut table = Table::of(0..2000);
        let many: Vec<Monitor> = [5, 900, 1900, 900]
            .map(|domid| {
                let mut monitor = Monitor::default();
                monitor.insert(domid, 0);
                monitor
            })
            .into();
        take(&mut table, &many);
        assert_eq!((table.questions, table.longest), (3, 1));
    }

    #[test]
    fn nobody_who_can_be_asked_for_is_no_question() {
        let mut table = Table::of(0..10);
        let mut monitor = Monitor::default();
        monitor.insert(DOMID_LIMIT, 1);
        let mut snapshot = take(&mut table, [&monitor]);
        assert_eq!(table.questions, 0);
        assert_eq!(scan(&mut monitor, &mut snapshot), [(DOMID_LIMIT, 1, Change::Death)]);
    }

    #[test]
    fn a_snapshot_of_all_has_all_in_as_few_answers_as_they_fit_in() {
        for (count, questions) in [(0, 1), (5, 1), (BATCH - 1, 1), (BATCH, 2), (BATCH + 1, 2), (2 * BATCH + 7, 3)] {
            let mut table = Table::of((0..count as u16).map(|domid| domid + 10));
            let all = Snapshot::of_all(&mut table).unwrap();
            assert!(all.domains().iter().map(DomainInfo::domid).eq(10..10 + count as u32));
            assert_eq!(table.questions, questions);
        }
        let mut table = Table::of((DOMID_LIMIT - BATCH as u32..DOMID_LIMIT).map(|domid| domid as u16));
        assert_eq!(Snapshot::of_all(&mut table).unwrap().domains().len(), BATCH, "there is nobody after the last");
    }

    #[test]
    fn a_question_that_fails_leaves_no_snapshot() {
        let mut table = Table::of(0..10);
        table.fail = Some(Errno::EBUSY);
        assert_eq!(Snapshot::take(&mut table, vec![1]).err(), Some(Errno::EBUSY));
    }
}
