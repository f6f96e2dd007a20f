// SPDX-License-Identifier: LGPL-2.1-or-later
//! Generators of the states of all domains of a host but the control domain, those that are yet to come too.
//!
//! Each keeps, for every domain that the last look has found, what it has told of it, and nothing of those that are gone: so
//! it takes as much memory as there are domains. A generator that is new knows none, and so hears of all that there are.

use std::collections::{BTreeMap, BTreeSet};

use nix::errno::Errno;

use super::Recipient;
use super::domain_death::{Change, Report};
use super::domain_state::{Life, wants};
use super::monitor::Key;
use super::questions::{Answer, Questions};
use crate::xen::hypervisor::{DomainInfo, Host};

/// The control domain is there as long as the host, and is nobody's guest.
const CONTROL_DOMAIN: u32 = 0;

/// A generator.
#[derive(Debug)]
struct AnyDomain {
    user: u64,
    recipient: Recipient,
    states: u64,
    /// Ascending by domid. The dead are among them as long as they are listed.
    lives: Vec<(u32, Life)>,
}

impl AnyDomain {
    /// Takes in a look at all domains, ascending. `newcomers` gets those that it begins to follow.
    fn look(&mut self, found: &[DomainInfo], newcomers: &mut Vec<u32>, tell: &mut dyn FnMut(Report)) {
        let mut say = |domid, uuid, change| {
            if wants(self.states, change) {
                tell(Report { domid, uuid, user: self.user, recipient: self.recipient, change });
            }
        };
        // What was known is replaced when all of the look is taken in: one that a panic ends has never been.
        let mut lives = Vec::with_capacity(found.len());
        let mut known = self.lives.iter().cloned().peekable();
        for info in found {
            let domid = info.domid();
            while let Some((gone, mut life)) = known.next_if(|(known, _)| *known < domid) {
                look(gone, &mut life, None, &mut say);
            }
            let mut life = match known.next_if(|(known, _)| *known == domid) {
                Some((_, life)) if life.is_of(info) => life,
                before => {
                    if let Some((_, mut life)) = before {
                        look(domid, &mut life, None, &mut say);
                    }
                    say(domid, info.uuid(), Change::Created);
                    newcomers.push(domid);
                    Life::default()
                }
            };
            look(domid, &mut life, Some(info), &mut say);
            lives.push((domid, life));
        }
        for (gone, mut life) in known {
            look(gone, &mut life, None, &mut say);
        }
        self.lives = lives;
    }

    /// Takes in a look at one domain, if there is nothing to tell of it; whether there is nothing.
    fn is_quiet(&mut self, domid: u32, info: Option<&DomainInfo>) -> bool {
        let Ok(index) = self.lives.binary_search_by_key(&domid, |(domid, _)| *domid) else { return info.is_none() };
        let (_, life) = &mut self.lives[index];
        let mut looked = life.clone();
        let news = looked.look(info).into_iter().flatten().any(|change| wants(self.states, change));
        if news || info.is_some_and(|info| !life.is_of(info)) {
            return false;
        }
        *life = looked;
        true
    }
}

fn look(domid: u32, life: &mut Life, info: Option<&DomainInfo>, say: &mut dyn FnMut(u32, [u8; 16], Change)) {
    for change in life.look(info).into_iter().flatten() {
        say(domid, life.uuid(), change);
    }
}

/// All such generators of one context.
#[derive(Debug, Default)]
pub struct AnyDomains {
    generators: BTreeMap<Key, AnyDomain>,
    /// One of them has had no look yet.
    fresh: bool,
    /// Domains that wait for a look.
    asked: BTreeSet<u32>,
    /// Domains that one of them has begun to follow.
    newcomers: Vec<u32>,
    /// Domains that a look has found to be reset in place, whether somebody has to tell of it or not.
    resetting: BTreeSet<u32>,
}

impl AnyDomains {
    /// Adds a generator.
    pub fn insert(&mut self, recipient: Recipient, states: u64, user: u64) -> Key {
        let key = Key::of_any_domain();
        self.generators.insert(key, AnyDomain { user, recipient, states, lives: Vec::new() });
        self.fresh = true;
        key
    }

    /// Removes a generator; whether there was one.
    pub fn remove(&mut self, key: Key) -> bool {
        let removed = self.generators.remove(&key).is_some();
        self.removed();
        removed
    }

    /// Removes all generators of a recipient's.
    pub fn remove_all_of(&mut self, recipient: Recipient) {
        self.generators.retain(|_, generator| generator.recipient != recipient);
        self.removed();
    }

    fn removed(&mut self) {
        if self.generators.is_empty() {
            self.clear_fresh();
            self.newcomers.clear();
        }
    }

    /// Nobody wants to know anything.
    pub fn is_empty(&self) -> bool {
        self.generators.is_empty()
    }

    /// How many generators there are.
    pub fn len(&self) -> usize {
        self.generators.len()
    }

    /// How many domains they know, each of them.
    pub fn known(&self) -> usize {
        self.generators.values().map(|generator| generator.lives.len()).sum()
    }

    /// The domains that one of them has begun to follow since this was asked last. One may come more than once.
    pub fn take_newcomers(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.newcomers)
    }

    /// The domains that looks have found to be reset in place since this was asked last.
    pub fn take_resetting(&mut self) -> BTreeSet<u32> {
        std::mem::take(&mut self.resetting)
    }

    /// The domains that they follow, and that haven't ended. One may come more than once.
    pub fn living(&self) -> impl Iterator<Item = u32> {
        let lives = self.generators.values().flat_map(|generator| &generator.lives);
        lives.filter(|(_, life)| !life.dead()).map(|(domid, _)| *domid)
    }

    /// Whether one of them follows this domain, and it hasn't ended.
    pub fn follows(&self, domid: u32) -> bool {
        let life = |generator: &AnyDomain| {
            let index = generator.lives.binary_search_by_key(&domid, |(domid, _)| *domid).ok()?;
            (!generator.lives[index].1.dead()).then_some(())
        };
        self.generators.values().any(|generator| life(generator).is_some())
    }

    /// One of them has had no look yet, which has to be one at everything.
    pub fn has_fresh(&self) -> bool {
        self.fresh
    }

    /// This domain is to be looked at in the next partial look. False if nobody wants to know.
    pub fn ask(&mut self, domid: u32) -> bool {
        let wanted = !self.is_empty();
        if wanted {
            self.asked.insert(domid);
        }
        wanted
    }

    /// The domains that are suspended, and of which somebody has to tell when they run again. One may come more than once.
    pub fn awaiting_resume(&self) -> impl Iterator<Item = u32> {
        let wanted = self.generators.values().filter(|generator| wants(generator.states, Change::Running));
        wanted.flat_map(|generator| &generator.lives).filter(|(_, life)| life.suspended()).map(|(domid, _)| *domid)
    }

    /// Takes in a look at all domains of the host, ascending.
    pub fn look(&mut self, found: &[DomainInfo], tell: &mut dyn FnMut(Key, Report)) {
        let found = &found[found.partition_point(|info| info.domid() == CONTROL_DOMAIN)..];
        for (key, generator) in &mut self.generators {
            generator.look(found, &mut self.newcomers, &mut |report| tell(*key, report));
        }
        if !self.is_empty() {
            self.resetting.extend(found.iter().filter(|info| info.awaits_reset()).map(DomainInfo::domid));
        }
        self.clear_fresh();
    }

    /// Whether there is nothing to tell of the domains that wait for a look. Up to the first of which there is, looks are
    /// taken in.
    pub(super) fn asked_are_quiet<H: Host + ?Sized>(&mut self, host: &mut H) -> Result<bool, Errno> {
        let questions = Questions { most: self.asked.len(), last: self.asked.last().copied().unwrap_or(0) };
        let mut answer = Answer::none();
        for (done, &domid) in self.asked.iter().enumerate() {
            if !answer.tells_of(domid) {
                answer = questions.ask(host, domid, done)?;
            }
            let info = answer.find(domid);
            if info.is_some_and(DomainInfo::awaits_reset) {
                self.resetting.insert(domid);
            }
            if !self.generators.values_mut().all(|generator| generator.is_quiet(domid, info)) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Nothing waits for a look any more.
    pub(super) fn clear_fresh(&mut self) {
        self.fresh = false;
        self.asked.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::super::domain_state::{CREATED, STATES};
    use super::super::monitor::tests::Table;
    use super::*;
    use crate::abi::*;

    use Change::*;

    const ALL: u64 = STATES | CREATED;

    fn look(any: &mut AnyDomains, table: &Table) -> Vec<(u32, u64, Change)> {
        let found: Vec<DomainInfo> = table.domains.values().copied().collect();
        let mut told = Vec::new();
        any.look(&found, &mut |_, report| told.push((report.domid, report.user, report.change)));
        told
    }

    /// One generator that wants everything.
    fn watching() -> AnyDomains {
        let mut any = AnyDomains::default();
        any.insert(Recipient::OWN, ALL, 1);
        any
    }

    #[test]
    fn what_is_there_comes_first_and_the_control_domain_is_none_of_it() {
        let mut any = watching();
        let mut table = Table::of([0, 3, 7, 9, 12]);
        table.edit(0, |info| info.shut_down(3));
        table.edit(7, |info| info.shut_down(1));
        table.edit(9, |info| info.shut_down(2));
        table.edit(12, DomainInfo::being_destroyed);
        let expected = [
            (3, 1, Created),
            (7, 1, Created),
            (7, 1, Shutdown(1)),
            (9, 1, Created),
            (9, 1, Suspended),
            (12, 1, Created),
            (12, 1, Death),
        ];
        assert_eq!(look(&mut any, &table), expected);
        assert_eq!(look(&mut any, &table), []);
    }

    #[test]
    fn domains_come_and_go() {
        let mut any = watching();
        let mut table = Table::of([3, 5]);
        assert_eq!(look(&mut any, &table), [(3, 1, Created), (5, 1, Created)]);
        table.domains.remove(&3);
        table.domains.insert(4, DomainInfo::alive(4));
        table.domains.insert(6, DomainInfo::alive(6));
        table.edit(5, |info| info.shut_down(0));
        assert_eq!(look(&mut any, &table), [(3, 1, Death), (4, 1, Created), (5, 1, Shutdown(0)), (6, 1, Created)]);
        table.domains.clear();
        assert_eq!(look(&mut any, &table), [(4, 1, Death), (5, 1, Death), (6, 1, Death)]);
        assert_eq!(any.known(), 0);
    }

    #[test]
    fn a_dying_domain_is_dead_once_and_forgotten_when_it_is_gone() {
        let mut any = watching();
        let mut table = Table::of([3]);
        look(&mut any, &table);
        table.edit(3, DomainInfo::being_destroyed);
        assert_eq!(look(&mut any, &table), [(3, 1, Death)]);
        assert_eq!(look(&mut any, &table), []);
        assert_eq!(any.known(), 1);
        table.domains.clear();
        assert_eq!(look(&mut any, &table), []);
        assert_eq!(any.known(), 0);
    }

    #[test]
    fn a_number_that_is_used_again_is_a_death_and_another_life() {
        for used_again_by in [DomainInfo::alive(3), DomainInfo::alive(3).shut_down(2)] {
            let mut any = watching();
            let mut table = Table::of([3]);
            look(&mut any, &table);
            table.domains.insert(3, used_again_by.another());
            let mut expected = vec![(3, 1, Death), (3, 1, Created)];
            expected.extend(used_again_by.shutdown_reason().map(|_| (3, 1, Suspended)));
            assert_eq!(look(&mut any, &table), expected);
            // A dead one that was listed until then has been told of.
            table.edit(3, DomainInfo::being_destroyed);
            assert_eq!(look(&mut any, &table), [(3, 1, Death)]);
            table.domains.insert(3, DomainInfo::alive(3));
            assert_eq!(look(&mut any, &table), [(3, 1, Created)]);
        }
    }

    #[test]
    fn a_domain_that_gets_another_uuid_is_nothing_to_tell_and_its_later_events_have_it() {
        let mut any = watching();
        let mut table = Table::of([3, 4, 5, 6]);
        table.edit(4, |info| info.shut_down(2));
        table.edit(5, |info| info.shut_down(3));
        table.edit(6, DomainInfo::being_destroyed);
        look(&mut any, &table);
        for domid in 3..=6 {
            table.edit(domid, |info| info.with_uuid([7; 16]));
        }
        assert_eq!(look(&mut any, &table), []);
        for domid in 3..=6 {
            any.ask(domid);
        }
        assert_eq!(any.asked_are_quiet(&mut table), Ok(true));
        table.domains.clear();
        let mut told = Vec::new();
        any.look(&[], &mut |_, report| told.push((report.domid, report.change, report.uuid)));
        assert_eq!(told, [3, 4, 5].map(|domid| (domid, Death, [7; 16])));
    }

    #[test]
    fn each_report_has_the_uuid_of_its_domain() {
        let mut any = watching();
        let mut table = Table::of([3]);
        look(&mut any, &table);
        table.edit(3, DomainInfo::another);
        let found: Vec<DomainInfo> = table.domains.values().copied().collect();
        let mut told = Vec::new();
        any.look(&found, &mut |_, report| told.push((report.change, report.uuid)));
        assert_eq!(told, [(Death, DomainInfo::alive(3).uuid()), (Created, [9; 16])]);
    }

    #[test]
    fn each_generator_has_its_own_view_and_hears_what_it_asked_for() {
        let mut any = watching();
        let mut table = Table::of([3]);
        look(&mut any, &table);
        let key = any.insert(Recipient::OWN, CREATED | (1 << LIBXL_EVENT_TYPE_DOMAIN_DEATH), 2);
        assert!(any.has_fresh());
        assert_eq!(look(&mut any, &table), [(3, 2, Created)]);
        assert!(!any.has_fresh());
        table.edit(3, |info| info.shut_down(2));
        assert_eq!(look(&mut any, &table), [(3, 1, Suspended)]);
        assert_eq!(any.awaiting_resume().collect::<Vec<_>>(), [3], "the other doesn't want to know");
        table.domains.clear();
        assert_eq!(look(&mut any, &table), [(3, 2, Death), (3, 1, Death)], "the newest first");
        assert!(any.remove(key));
        assert!(!any.remove(key));
        assert_eq!(any.len(), 1);
    }

    #[test]
    fn a_look_that_was_asked_for_is_taken_in_where_there_is_nothing_to_tell() {
        let mut any = watching();
        let mut table = Table::of([3, 4]);
        table.edit(3, |info| info.shut_down(2).with_cpu_time(5).on_its_processor());
        look(&mut any, &table);
        table.edit(3, |_| DomainInfo::alive(3).shut_down(2).with_cpu_time(7));
        assert!(any.ask(3));
        assert_eq!(any.asked_are_quiet(&mut table), Ok(true));
        table.edit(3, |info| info.with_cpu_time(8));
        assert_eq!(any.asked_are_quiet(&mut table), Ok(false), "it has run since it came to rest");
        assert_eq!(look(&mut any, &table), [(3, 1, Running), (3, 1, Suspended)]);
    }

    #[test]
    fn a_look_that_was_asked_for_finds_every_kind_of_news() {
        let mut any = watching();
        let mut table = Table::of([3]);
        look(&mut any, &table);
        for (domid, info) in [
            (3, Some(DomainInfo::alive(3).shut_down(0))),
            (3, Some(DomainInfo::alive(3).another())),
            (3, None),
            (4, Some(DomainInfo::alive(4))),
        ] {
            let mut host = Table::of([3]);
            host.domains.remove(&domid);
            host.domains.extend(info.map(|info| (domid, info)));
            any.ask(domid);
            assert_eq!(any.asked_are_quiet(&mut host), Ok(false), "{domid}: {:?}", info.map(|info| info.uuid()));
            any.clear_fresh();
        }
        any.ask(3);
        any.ask(4);
        assert_eq!(any.asked_are_quiet(&mut table), Ok(true));
    }
}
