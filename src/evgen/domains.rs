// SPDX-License-Identifier: LGPL-2.1-or-later
//! All that generates events of domains in one context: generators of shutdown and death, of the states of a domain, and of
//! those of all domains. They share each look, so that what it brings to light comes in one order, and is asked for once.
//!
//! Where there are generators of shutdown and death alone, as with all programs that know `libxl_event.h` only, they go
//! through the hypervisor's answers themselves, and the others cost nothing.
//!
//! A resume need not be told by anyone. So the domains that are suspended, and of which somebody has to tell when they run
//! again, are kept here ([`Domains::awaiting_resume`]), for the context to look at them from time to time.

use std::collections::BTreeSet;

use nix::errno::Errno;

use super::Recipient;
use super::any_domain::AnyDomains;
use super::domain_death::{Change, Report, SuspendRule};
use super::domain_state::DomainState;
use super::monitor::{Key, Monitor, StateMonitor};
use super::snapshot::Snapshot;
use super::targets::{Demand, MANY};
use crate::xen::hypervisor::Host;

/// All such generators of one context.
#[derive(Debug, Default)]
pub struct Domains {
    deaths: Monitor,
    states: StateMonitor,
    any: AnyDomains,
    /// Domains that are suspended, and of which somebody has to tell when they run again, as of the last look. One of which
    /// nobody has to any more is found out at the next.
    suspended: BTreeSet<u32>,
    /// One of them is so only since that look.
    newly_suspended: bool,
}

impl Domains {
    /// None. `rule` is for generators of shutdown and death.
    pub fn new(rule: SuspendRule) -> Self {
        Domains { deaths: Monitor::new(rule), ..Domains::default() }
    }

    /// Adds a generator of shutdown and death, for a recipient.
    pub fn add_death_for(&mut self, recipient: Recipient, domid: u32, user: u64) -> Key {
        self.deaths.insert_for(recipient, domid, user)
    }

    /// Removes all generators of a recipient's.
    pub fn remove_all_of(&mut self, recipient: Recipient) {
        self.deaths.remove_all_of(recipient);
        self.states.remove_all_of(recipient);
        self.any.remove_all_of(recipient);
        self.states_removed();
    }

    /// Removes one; whether there was one.
    pub fn remove_death(&mut self, key: Key) -> bool {
        self.deaths.remove(key)
    }

    /// How many there are.
    pub fn deaths(&self) -> usize {
        self.deaths.len()
    }

    /// Adds a generator of a domain's states, for a recipient.
    pub fn add_state_for(&mut self, recipient: Recipient, domid: u32, states: u64, user: u64) -> Key {
        self.states.add(domid, DomainState::new(domid, states, user, recipient))
    }

    /// Adds one of all domains' states, for a recipient.
    pub fn add_any_for(&mut self, recipient: Recipient, states: u64, user: u64) -> Key {
        self.any.insert(recipient, states, user)
    }

    /// Removes one of either kind; whether there was one.
    pub fn remove_state(&mut self, key: Key) -> bool {
        let removed = self.states.remove(key) || self.any.remove(key);
        self.states_removed();
        removed
    }

    fn states_removed(&mut self) {
        if self.deaths_alone() {
            self.suspended.clear();
        }
    }

    /// How many of either kind there are.
    pub fn states(&self) -> usize {
        self.states.len() + self.any.len()
    }

    /// How many domains the generators of all domains' states know, each of them.
    pub fn known(&self) -> usize {
        self.any.known()
    }

    /// Nobody wants to know anything.
    pub fn is_empty(&self) -> bool {
        self.deaths.is_empty() && self.deaths_alone()
    }

    /// There are no other generators than those of shutdown and death.
    pub fn deaths_alone(&self) -> bool {
        self.states.is_empty() && self.any.is_empty()
    }

    /// What has to be told to this context by watches.
    pub fn demand(&self) -> Demand {
        if !self.any.is_empty() {
            return Demand::All;
        }
        let most = self.deaths.domains().max(self.states.domains());
        // Nobody wants to know exactly how many more they are.
        Demand::Ends(if most > MANY || self.states.is_empty() { most } else { self.each_domain().len() })
    }

    /// The domains that have a generator of their own. Takes time for each, so ask for few.
    pub fn each_domain(&self) -> BTreeSet<u32> {
        self.deaths.each_domain().chain(self.states.each_domain()).collect()
    }

    /// Whether a domid has a generator of its own.
    pub fn has(&self, domid: u32) -> bool {
        self.deaths.has(domid) || self.states.has(domid)
    }

    /// Whether somebody has something left to tell of a domid that they know of.
    pub fn follows(&self, domid: u32) -> bool {
        self.deaths.follows(domid) || self.states.follows(domid) || self.any.follows(domid)
    }

    /// The domains of which that is so. One may come more than once.
    pub fn followed(&self) -> impl Iterator<Item = u32> {
        self.deaths.wanted().chain(self.states.wanted()).chain(self.any.living())
    }

    /// The domains that generators of all domains have begun to follow since this was asked last. One may come more than once.
    pub fn take_newcomers(&mut self) -> Vec<u32> {
        self.any.take_newcomers()
    }

    /// The domains that looks have found to be reset in place since this was asked last.
    pub fn take_resetting(&mut self) -> BTreeSet<u32> {
        let mut resetting = self.deaths.take_resetting();
        resetting.append(&mut self.states.take_resetting());
        resetting.append(&mut self.any.take_resetting());
        resetting
    }

    /// This domain is to be looked at in the next [`Domains::scan_fresh`]. False if nobody has anything left to tell of it.
    pub fn ask(&mut self, domid: u32) -> bool {
        // Each of them is to know.
        let (death, state, any) = (self.deaths.ask(domid), self.states.ask(domid), self.any.ask(domid));
        death || state || any
    }

    /// Looks at all that there are generators for, and tells what is new: ascending by domid, newest generator first.
    pub fn scan<H: Host + ?Sized>(&mut self, host: &mut H, tell: &mut dyn FnMut(Key, Report)) -> Result<(), Errno> {
        if self.deaths_alone() {
            return self.deaths.scan(host, tell);
        }
        let mut found = look(host, &[&*self])?;
        self.scan_found(&mut found, tell)
    }

    /// The same in a look that was taken for several contexts, this one among them.
    pub fn scan_found(&mut self, found: &mut Snapshot, tell: &mut dyn FnMut(Key, Report)) -> Result<(), Errno> {
        if self.deaths_alone() {
            return self.deaths.scan(found, tell);
        }
        let mut told: Vec<(Key, Report)> = Vec::new();
        let mut keep = |key: Key, report: Report| told.push((key.among_those_of(report.domid), report));
        self.deaths.scan(found, &mut keep)?;
        self.states.scan(found, &mut keep)?;
        self.any.look(found.domains(), &mut keep);
        // What one generator has to tell of a domain stays in its order.
        told.sort_by_key(|(key, _)| *key);
        self.note_suspended(&told);
        told.into_iter().for_each(|(key, report)| tell(key, report));
        Ok(())
    }

    /// The same when there is nothing to see but new generators' domains, and those asked for: only they are looked at. If
    /// there is news, everything is looked at after all, so that whatever has happened comes in one order.
    pub fn scan_fresh<H: Host + ?Sized>(
        &mut self,
        host: &mut H,
        tell: &mut dyn FnMut(Key, Report),
    ) -> Result<(), Errno> {
        if self.deaths_alone() {
            return self.deaths.scan_fresh(host, tell);
        }
        let quiet = !self.any.has_fresh()
            && self.deaths.fresh_are_quiet(host)?
            && self.states.fresh_are_quiet(host)?
            && self.any.asked_are_quiet(host)?;
        if !quiet {
            return self.scan(host, tell);
        }
        self.deaths.clear_fresh();
        self.states.clear_fresh();
        self.any.clear_fresh();
        // There may be a suspended one that nobody had to tell of.
        self.note_suspended(&[]);
        Ok(())
    }

    /// After a look: takes down who is suspended now.
    fn note_suspended(&mut self, told: &[(Key, Report)]) {
        let awaited = self.states.living().filter_map(DomainState::awaits_resume);
        let suspended: BTreeSet<u32> = awaited.chain(self.any.awaiting_resume()).collect();
        // It may have been resumed, and suspended again.
        let again = |(_, report): &(Key, Report)| report.change == Change::Running && suspended.contains(&report.domid);
        self.newly_suspended |= !suspended.is_subset(&self.suspended) || told.iter().any(again);
        self.suspended = suspended;
    }

    /// There are suspended domains whose resume somebody has to tell.
    pub fn awaiting_resume(&self) -> bool {
        !self.suspended.is_empty()
    }

    /// One of them has been suspended since this was asked last.
    pub fn take_newly_suspended(&mut self) -> bool {
        std::mem::take(&mut self.newly_suspended)
    }

    /// They are to be looked at in the next [`Domains::scan_fresh`].
    pub fn ask_suspended(&mut self) {
        let Domains { states, any, suspended, .. } = self;
        suspended.retain(|domid| {
            let (state, any) = (states.ask(*domid), any.ask(*domid));
            state || any
        });
    }
}

/// Looks at what several contexts have generators for.
pub fn look<H: Host + ?Sized>(host: &mut H, whose: &[&Domains]) -> Result<Snapshot, Errno> {
    if whose.iter().any(|domains| !domains.any.is_empty()) {
        return Snapshot::of_all(host);
    }
    let mut wanted = Vec::new();
    for domains in whose {
        add(&mut wanted, domains.deaths.wanted())?;
        if !domains.states.is_empty() {
            add(&mut wanted, domains.states.wanted())?;
        }
    }
    Snapshot::take(host, wanted)
}

fn add(domids: &mut Vec<u32>, more: impl Iterator<Item = u32>) -> Result<(), Errno> {
    for domid in more {
        domids.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
        domids.push(domid);
    }
    Ok(())
}

/// As who uses the context itself does it.
#[cfg(test)]
impl Domains {
    pub(crate) fn add_death(&mut self, domid: u32, user: u64) -> Key {
        self.add_death_for(Recipient::OWN, domid, user)
    }

    pub(crate) fn add_state(&mut self, domid: u32, states: u64, user: u64) -> Key {
        self.add_state_for(Recipient::OWN, domid, states, user)
    }

    pub(crate) fn add_any(&mut self, states: u64, user: u64) -> Key {
        self.add_any_for(Recipient::OWN, states, user)
    }
}

#[cfg(test)]
mod tests {
    use super::super::domain_state::{CREATED, STATES};
    use super::super::monitor::tests::{Table, told};
    use super::*;
    use crate::abi::*;
    use crate::xen::hypervisor::DomainInfo;

    use Change::*;

    const SUSPENDED: u64 = 1 << LIBXL_EVENT_TYPE_DOMAIN_SUSPENDED;

    fn scan(domains: &mut Domains, table: &mut Table) -> Vec<(u32, u64, Change)> {
        told(|tell| domains.scan(table, tell))
    }

    fn scan_fresh(domains: &mut Domains, table: &mut Table) -> Vec<(u32, u64, Change)> {
        told(|tell| domains.scan_fresh(table, tell))
    }

    #[test]
    fn all_kinds_tell_in_one_order() {
        let mut domains = Domains::default();
        let mut table = Table::of([0, 3, 5, 9]);
        domains.add_death(5, 1);
        domains.add_any(STATES | CREATED, 2);
        domains.add_state(3, STATES, 3);
        domains.add_state(5, STATES, 4);
        domains.add_death(3, 5);
        assert_eq!(scan_fresh(&mut domains, &mut table), [(3, 2, Created), (5, 2, Created), (9, 2, Created)]);
        table.edit(3, |info| info.shut_down(2));
        table.edit(5, |info| info.shut_down(1));
        table.domains.remove(&9);
        let expected = [
            (3, 3, Suspended),
            (3, 2, Suspended),
            (5, 4, Shutdown(1)),
            (5, 2, Shutdown(1)),
            (5, 1, Shutdown(1)),
            (9, 2, Death),
        ];
        assert_eq!(scan(&mut domains, &mut table), expected);
        table.edit(3, |info| info.with_cpu_time(7));
        let expected = [(3, 3, Running), (3, 3, Suspended), (3, 2, Running), (3, 2, Suspended)];
        assert_eq!(scan(&mut domains, &mut table), expected);
    }

    #[test]
    fn generators_of_shutdown_and_death_hear_nothing_new_whoever_else_there_is() {
        let life = [
            DomainInfo::alive(5),
            DomainInfo::alive(5).shut_down(2),
            DomainInfo::alive(5).shut_down(2).with_cpu_time(9),
            DomainInfo::alive(5),
            DomainInfo::alive(5).shut_down(3),
            DomainInfo::alive(5).being_destroyed(),
        ];
        for rule in [SuspendRule::Hide, SuspendRule::Report] {
            let (mut alone, mut among_others) = (Domains::new(rule), Domains::new(rule));
            alone.add_death(5, 1);
            among_others.add_state(5, STATES, 2);
            among_others.add_death(5, 1);
            among_others.add_any(STATES | CREATED, 3);
            let mut heard_alone = Vec::new();
            let mut heard = Vec::new();
            for info in life {
                let mut table = Table::of([5]);
                table.edit(5, |_| info);
                heard_alone.extend(scan(&mut alone, &mut table));
                heard.extend(scan(&mut among_others, &mut table).into_iter().filter(|(_, user, _)| *user == 1));
            }
            assert_eq!(heard, heard_alone);
            assert!(!heard.is_empty());
        }
    }

    #[test]
    fn a_look_at_new_generators_alone_is_taken_as_far_as_it_goes() {
        let mut domains = Domains::default();
        let mut table = Table::of(0..1000);
        domains.add_any(STATES | CREATED, 1);
        scan(&mut domains, &mut table);
        (table.questions, table.longest) = (0, 0);
        domains.add_state(7, STATES, 2);
        domains.add_death(900, 3);
        assert_eq!(scan_fresh(&mut domains, &mut table), []);
        assert_eq!((table.questions, table.longest), (2, 1));
        table.edit(8, |info| info.shut_down(0));
        table.domains.remove(&5);
        domains.add_state(8, STATES, 4);
        let expected = [(5, 1, Death), (8, 4, Shutdown(0)), (8, 1, Shutdown(0))];
        assert_eq!(scan_fresh(&mut domains, &mut table), expected);
        assert_eq!(scan_fresh(&mut domains, &mut table), []);
    }

    #[test]
    fn one_look_serves_all_generators() {
        let mut domains = Domains::default();
        let mut table = Table::of(0..100);
        for domid in 1..50 {
            domains.add_death(domid, 0);
            domains.add_state(domid + 40, STATES, 0);
        }
        scan(&mut domains, &mut table);
        assert_eq!(table.questions, 1);
        domains.add_any(STATES, 0);
        table.questions = 0;
        scan(&mut domains, &mut table);
        assert_eq!(table.questions, 1);
    }

    #[test]
    fn a_failed_look_loses_nothing() {
        let mut domains = Domains::default();
        let mut table = Table::of([3]);
        domains.add_any(STATES | CREATED, 1);
        domains.add_death(4, 2);
        for _ in 0..2 {
            table.fail = Some(Errno::ENOMEM);
            assert_eq!(domains.scan(&mut table, &mut |_, _| panic!("nothing is known")), Err(Errno::ENOMEM));
        }
        assert_eq!(scan_fresh(&mut domains, &mut table), [(3, 1, Created), (4, 2, Death)]);
    }

    /// What the domains that wait for a resume are, as far as the context sees it.
    fn awaiting(domains: &mut Domains) -> (bool, bool) {
        (domains.awaiting_resume(), domains.take_newly_suspended())
    }

    #[test]
    fn suspended_domains_are_looked_at_again_until_they_run() {
        for any in [false, true] {
            let mut domains = Domains::default();
            let mut table = Table::of([3, 4]);
            match any {
                true => domains.add_any(STATES, 1),
                false => domains.add_state(3, STATES, 1),
            };
            scan(&mut domains, &mut table);
            assert_eq!(awaiting(&mut domains), (false, false));
            table.edit(3, |info| info.shut_down(2));
            assert_eq!(scan(&mut domains, &mut table), [(3, 1, Suspended)]);
            assert_eq!(awaiting(&mut domains), (true, true));
            (table.questions, table.longest) = (0, 0);
            domains.ask_suspended();
            assert_eq!(scan_fresh(&mut domains, &mut table), []);
            assert_eq!((table.questions, table.longest), (1, 1), "nobody else is looked at");
            assert_eq!(awaiting(&mut domains), (true, false));
            table.edit(3, |info| info.with_cpu_time(3));
            domains.ask_suspended();
            assert_eq!(scan_fresh(&mut domains, &mut table), [(3, 1, Running), (3, 1, Suspended)]);
            assert_eq!(awaiting(&mut domains), (true, true));
            table.edit(3, |_| DomainInfo::alive(3));
            domains.ask_suspended();
            assert_eq!(scan_fresh(&mut domains, &mut table), [(3, 1, Running)]);
            assert_eq!(awaiting(&mut domains), (false, false));
        }
    }

    #[test]
    fn nobody_waits_for_a_resume_that_nobody_wants_to_know_of() {
        let mut domains = Domains::default();
        let mut table = Table::of([3]);
        table.edit(3, |info| info.shut_down(2));
        domains.add_death(3, 1);
        domains.add_state(3, SUSPENDED, 2);
        assert_eq!(scan(&mut domains, &mut table), [(3, 2, Suspended)]);
        assert_eq!(awaiting(&mut domains), (false, false));
        let key = domains.add_state(3, STATES, 3);
        scan(&mut domains, &mut table);
        assert_eq!(awaiting(&mut domains), (true, true));
        domains.add_any(SUSPENDED, 4);
        scan(&mut domains, &mut table);
        domains.remove_state(key);
        domains.ask_suspended();
        scan(&mut domains, &mut table);
        assert_eq!(awaiting(&mut domains), (false, false));
    }

    #[test]
    fn who_wants_to_know_of_a_resume_alone_waits_for_it_too() {
        for any in [false, true] {
            let mut domains = Domains::default();
            let mut table = Table::of([3, 4]);
            let running = 1 << LIBXL_EVENT_TYPE_DOMAIN_RUNNING;
            domains.add_state(4, STATES, 1);
            if any {
                domains.add_any(running, 2);
                assert_eq!(scan_fresh(&mut domains, &mut table), []);
            }
            table.edit(3, |info| info.shut_down(2));
            match any {
                true => assert!(domains.ask(3)),
                false => _ = domains.add_state(3, running, 2),
            }
            assert_eq!(scan_fresh(&mut domains, &mut table), [], "there is nothing to tell");
            assert_eq!(awaiting(&mut domains), (true, true));
            table.edit(3, |_| DomainInfo::alive(3));
            domains.ask_suspended();
            assert_eq!(scan_fresh(&mut domains, &mut table), [(3, 2, Running)]);
        }
    }

    #[test]
    fn whoever_looks_finds_who_is_to_be_reset_also_where_nobody_asked_for_shutdowns() {
        let ends = 1 << LIBXL_EVENT_TYPE_DOMAIN_DEATH;
        let add: [fn(&mut Domains) -> Key; 3] = [
            |domains| domains.add_death(3, 0),
            |domains| domains.add_state(3, 1 << LIBXL_EVENT_TYPE_DOMAIN_DEATH, 0),
            |domains| domains.add_any(1 << LIBXL_EVENT_TYPE_DOMAIN_DEATH, 0),
        ];
        for rule in [SuspendRule::Hide, SuspendRule::Report] {
            for add in add {
                let mut domains = Domains::new(rule);
                let mut table = Table::of([3, 4, 5]);
                table.edit(3, |info| info.shut_down(2));
                add(&mut domains);
                scan(&mut domains, &mut table);
                assert_eq!(domains.take_resetting(), BTreeSet::new());
                table.edit(3, |_| DomainInfo::alive(3).shut_down(5));
                domains.add_state(4, ends, 0);
                scan(&mut domains, &mut table);
                assert_eq!(domains.take_resetting(), BTreeSet::from([3]));
                assert!(domains.ask(3));
                scan_fresh(&mut domains, &mut table);
                assert_eq!(domains.take_resetting(), BTreeSet::from([3]));
                table.edit(3, DomainInfo::being_destroyed);
                scan(&mut domains, &mut table);
                assert_eq!(domains.take_resetting(), BTreeSet::new());
            }
        }
    }

    #[test]
    fn each_kind_removes_its_own() {
        let mut domains = Domains::default();
        let death = domains.add_death(3, 0);
        let (state, any) = (domains.add_state(3, STATES, 0), domains.add_any(STATES, 0));
        assert!(!domains.remove_state(death));
        assert!(!domains.remove_death(state) && !domains.remove_death(any));
        assert_eq!((domains.deaths(), domains.states()), (1, 2));
        assert!(domains.remove_death(death) && domains.remove_state(state) && domains.remove_state(any));
        assert!(domains.is_empty());
        assert!(!domains.remove_state(any));
    }

    #[test]
    fn what_watches_are_needed_is_counted_over_all_kinds() {
        let mut domains = Domains::default();
        assert_eq!(domains.demand(), Demand::Ends(0));
        domains.add_death(3, 0);
        domains.add_state(3, STATES, 0);
        let four = domains.add_state(4, STATES, 0);
        assert_eq!(domains.demand(), Demand::Ends(2));
        assert_eq!(domains.each_domain(), BTreeSet::from([3, 4]));
        assert!(domains.has(4));
        domains.remove_state(four);
        assert!(!domains.has(4));
        for domid in 0..=MANY as u32 {
            domains.add_state(domid, STATES, 0);
        }
        assert!(matches!(domains.demand(), Demand::Ends(domains) if domains > MANY));
        let any = domains.add_any(STATES, 0);
        assert_eq!(domains.demand(), Demand::All);
        domains.remove_state(any);
        assert!(matches!(domains.demand(), Demand::Ends(_)));
    }
}
