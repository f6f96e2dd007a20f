// SPDX-License-Identifier: LGPL-2.1-or-later
//! A context's generators of one kind that are about a domain each, ordered by domid, and the scan that asks the host about
//! their domains.
//!
//! A scan goes through the generators and the host's domains side by side, both ascending, so that its cost is that of
//! the longer list, and one answer of the hypervisor serves as many generators as it covers.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::errno::Errno;

use super::Recipient;
use super::domain_death::{DomainDeath, Report, SuspendRule};
use super::domain_state::DomainState;
use super::questions::{Answer, FEW, Questions};
use super::runs::{Beside, Runs};
use crate::xen::DOMID_LIMIT;
use crate::xen::hypervisor::{DomainInfo, Host};

/// Names a generator, and is where it is filed: the domid in the upper 16 bits, below it a serial number that runs
/// backwards, so that the generators of one domain come newest first. Serial numbers are never used twice in a process,
/// whatever kind the generators are of: a stale handle, or one of another context's, or kind, finds nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key(u64);

const SERIAL_BITS: u32 = 48;
const SERIAL_MASK: u64 = (1 << SERIAL_BITS) - 1;

impl Key {
    /// A new one for a domain's generator.
    fn of_domain(domid: u32) -> Self {
        Key::at(place(domid))
    }

    /// A new one for a generator that is about no domain in particular.
    pub(super) fn of_any_domain() -> Self {
        Key::at(ANY_PLACE)
    }

    fn at(place: u32) -> Self {
        static NEXT_SERIAL: AtomicU64 = AtomicU64::new(0);
        // At least 1, so that no key is 0: a handle is never null.
        let serial = SERIAL_MASK - NEXT_SERIAL.fetch_add(1, Ordering::Relaxed) % SERIAL_MASK;
        Key((u64::from(place) << SERIAL_BITS) | serial)
    }

    /// Where what this generator has to tell of a domain belongs among what all have to tell.
    pub(super) fn among_those_of(self, domid: u32) -> Key {
        Key((u64::from(place(domid)) << SERIAL_BITS) | self.0 & SERIAL_MASK)
    }

    fn place(self) -> u32 {
        (self.0 >> SERIAL_BITS) as u32
    }

    /// Whether the generator is its domain's only one, if a domain can be there at all.
    fn alone_in_its_place(self, beside: Beside<Key>) -> bool {
        let place = self.place();
        place < DOMID_LIMIT && ![beside.before, beside.after].into_iter().flatten().any(|key| key.place() == place)
    }

    /// Below all keys of a place, and above those of the places before it.
    fn first_of(place: u32) -> Key {
        Key(u64::from(place) << SERIAL_BITS)
    }
}

// A handle is a key that has crossed the C boundary as a pointer, and may come back as anything.
impl From<u64> for Key {
    fn from(value: u64) -> Self {
        Key(value)
    }
}

impl From<Key> for u64 {
    fn from(key: Key) -> Self {
        key.0
    }
}

/// Where a domid is filed: every domid that can't be a domain's shares the last place.
fn place(domid: u32) -> u32 {
    domid.min(DOMID_LIMIT)
}

/// Behind the last place: for generators that are about no domain in particular.
const ANY_PLACE: u32 = DOMID_LIMIT + 1;

/// A generator that is about one domain.
pub trait Generator: Clone {
    /// What they have in common.
    type Rule: Copy + Default;

    /// Whom it speaks to.
    fn recipient(&self) -> Recipient;

    /// Has nothing more to say.
    fn dead(&self) -> bool;

    /// Takes in a look at the domain, `None` if there is no such domain, and tells what is new.
    fn take_in(&mut self, info: Option<&DomainInfo>, rule: Self::Rule, tell: impl FnMut(Report));
}

/// All generators of one kind of one context.
#[derive(Debug)]
pub struct Generators<G: Generator> {
    generators: Runs<Key, G>,
    /// Places that wait for a look: those of new generators, and of domains whose own watch has fired. Bounded by the
    /// number of places, also if nobody looks.
    fresh: BTreeSet<u32>,
    /// Domains that a look has found to be reset in place, whether somebody has to tell of it or not.
    resetting: BTreeSet<u32>,
    /// How many domids that a domain can have there are generators for.
    domains: usize,
    rule: G::Rule,
}

/// Those of shutdown and death events.
pub type Monitor = Generators<DomainDeath>;

/// Those of the states that are asked for.
pub type StateMonitor = Generators<DomainState>;

impl<G: Generator> Default for Generators<G> {
    fn default() -> Self {
        Generators::with(G::Rule::default())
    }
}

impl Monitor {
    /// An empty one.
    pub fn new(rule: SuspendRule) -> Self {
        Monitor::with(rule)
    }

    /// Adds a generator.
    pub fn insert(&mut self, domid: u32, user: u64) -> Key {
        self.insert_for(Recipient::OWN, domid, user)
    }

    /// The same for this recipient.
    pub fn insert_for(&mut self, recipient: Recipient, domid: u32, user: u64) -> Key {
        self.add(domid, DomainDeath::new(domid, user, recipient))
    }
}

impl<G: Generator> Generators<G> {
    fn with(rule: G::Rule) -> Self {
        Generators { generators: Runs::default(), fresh: BTreeSet::new(), resetting: BTreeSet::new(), domains: 0, rule }
    }

    /// Adds a generator. It hears of its domain's present state at the next [`Generators::scan_fresh`].
    pub fn add(&mut self, domid: u32, generator: G) -> Key {
        let key = Key::of_domain(domid);
        let beside = self.generators.insert(key, generator);
        self.domains += usize::from(key.alone_in_its_place(beside));
        self.fresh.insert(key.place());
        key
    }

    /// Removes a generator; whether there was one.
    pub fn remove(&mut self, key: Key) -> bool {
        let Some((_, beside)) = self.generators.remove(key) else { return false };
        self.domains -= usize::from(key.alone_in_its_place(beside));
        if self.generators.is_empty() {
            self.fresh.clear();
        }
        true
    }

    /// Removes all generators of a recipient's.
    pub fn remove_all_of(&mut self, recipient: Recipient) {
        let all = self.generators.since(Key::first_of(0));
        let keys: Vec<Key> = all.filter(|(_, it)| it.recipient() == recipient).map(|(key, _)| key).collect();
        for key in keys {
            self.remove(key);
        }
    }

    /// How many generators there are.
    pub fn len(&self) -> usize {
        self.generators.len()
    }

    /// Nobody wants to know anything.
    pub fn is_empty(&self) -> bool {
        self.generators.is_empty()
    }

    /// How many domains have a generator; domids that no domain can have don't count.
    pub fn domains(&self) -> usize {
        self.domains
    }

    /// Their numbers, ascending. Takes time for each, so ask for few.
    pub fn each_domain(&self) -> impl Iterator<Item = u32> {
        let from = |place| self.generators.since(Key::first_of(place)).next().map(|(key, _)| key.place());
        std::iter::successors(from(0), move |place| from(place + 1)).take_while(|place| *place < DOMID_LIMIT)
    }

    /// Whether a domid has a generator.
    pub fn has(&self, domid: u32) -> bool {
        self.generators_of(place(domid)).next().is_some()
    }

    /// Newest first.
    fn generators_of(&self, place: u32) -> impl Iterator<Item = &G> {
        self.generators.since(Key::first_of(place)).take_while(move |(key, _)| key.place() == place).map(|(_, it)| it)
    }

    /// Whether somebody has something left to tell of a domid.
    pub fn follows(&self, domid: u32) -> bool {
        self.generators_of(place(domid)).any(|generator| !generator.dead())
    }

    /// This domain is to be looked at in the next [`Generators::scan_fresh`]. False if nobody there has anything left to tell.
    pub fn ask(&mut self, domid: u32) -> bool {
        let wanted = self.follows(domid);
        if wanted {
            self.fresh.insert(place(domid));
        }
        wanted
    }

    /// The domains that the next [`Generators::scan`] will ask for, ascending. One may come more than once.
    pub fn wanted(&self) -> impl Iterator<Item = u32> {
        let living = self.generators.since(Key::first_of(0)).filter(|(_, generator)| !generator.dead());
        living.map(|(key, _)| key.place()).take_while(|place| *place < DOMID_LIMIT)
    }

    /// Whether a place waits for a look.
    pub fn has_fresh(&self) -> bool {
        !self.fresh.is_empty()
    }

    /// The living generators, ascending by domid, newest first.
    pub fn living(&self) -> impl Iterator<Item = &G> {
        self.generators.since(Key::first_of(0)).map(|(_, generator)| generator).filter(|generator| !generator.dead())
    }

    /// Looks at every domain that has a generator, and tells what is new: ascending by domid, newest generator first.
    pub fn scan<H: Host + ?Sized>(&mut self, host: &mut H, tell: &mut dyn FnMut(Key, Report)) -> Result<(), Errno> {
        let questions =
            Questions { most: self.generators.len(), last: self.generators.last_key().map_or(0, Key::place) };
        let mut answer = Answer::none();
        for (done, (key, generator)) in self.generators.iter_mut().enumerate() {
            if generator.dead() {
                continue;
            }
            if !answer.tells_of(key.place()) {
                answer = questions.ask(host, key.place(), done)?;
            }
            let info = answer.find(key.place());
            generator.take_in(info, self.rule, |report| tell(key, report));
            if info.is_some_and(DomainInfo::awaits_reset) {
                self.resetting.insert(key.place());
            }
        }
        self.clear_fresh();
        Ok(())
    }

    /// The same when there is nothing to see but new generators' domains, and those asked for: only they are looked at. If
    /// one has news, everything is looked at after all, so that whatever has happened comes in one order.
    pub fn scan_fresh<H: Host + ?Sized>(
        &mut self,
        host: &mut H,
        tell: &mut dyn FnMut(Key, Report),
    ) -> Result<(), Errno> {
        if self.all_are_fresh() || !self.fresh_are_quiet(host)? {
            return self.scan(host, tell);
        }
        self.clear_fresh();
        Ok(())
    }

    /// The domains that looks have found to be reset in place since this was asked last.
    pub fn take_resetting(&mut self) -> BTreeSet<u32> {
        std::mem::take(&mut self.resetting)
    }

    /// None waits for a look any more.
    pub(super) fn clear_fresh(&mut self) {
        // As mostly: then there is nothing to take apart.
        if !self.fresh.is_empty() {
            self.fresh.clear();
        }
    }

    /// Whether a look at them is a look at everything, which then needn't be taken twice. No, where to know would take long.
    fn all_are_fresh(&self) -> bool {
        self.fresh.len() <= FEW && self.generators.keys().all(|key| self.fresh.contains(&key.place()))
    }

    /// Whether nobody at the places that wait has anything to tell. Up to the first who has, looks are taken in.
    pub(super) fn fresh_are_quiet<H: Host + ?Sized>(&mut self, host: &mut H) -> Result<bool, Errno> {
        let questions = Questions { most: self.fresh.len(), last: self.fresh.last().copied().unwrap_or(0) };
        let mut answer = Answer::none();
        for (done, &place) in self.fresh.iter().enumerate() {
            if !answer.tells_of(place) {
                answer = questions.ask(host, place, done)?;
            }
            let info = answer.find(place);
            if info.is_some_and(DomainInfo::awaits_reset) {
                self.resetting.insert(place);
            }
            let generators = self.generators.since_mut(Key::first_of(place));
            for (_, generator) in generators.take_while(|(key, _)| key.place() == place) {
                let mut looked = generator.clone();
                let mut news = false;
                looked.take_in(info, self.rule, |_| news = true);
                if news {
                    return Ok(false);
                }
                *generator = looked;
            }
        }
        Ok(true)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeMap;

    use super::super::domain_death::Change;
    use super::super::questions::{BATCH, PER_QUESTION};
    use super::*;

    /// A host whose domains a test edits, and which counts what it is asked.
    #[derive(Default)]
    pub struct Table {
        pub domains: BTreeMap<u32, DomainInfo>,
        answer: Vec<DomainInfo>,
        pub questions: usize,
        pub longest: usize,
        pub fail: Option<Errno>,
    }

    impl Table {
        pub fn of(domids: impl IntoIterator<Item = u16>) -> Self {
            let domains = domids.into_iter().map(|domid| (u32::from(domid), DomainInfo::alive(domid))).collect();
            Table { domains, ..Table::default() }
        }

        pub fn edit(&mut self, domid: u32, change: impl Fn(DomainInfo) -> DomainInfo) {
            let info = self.domains.get_mut(&domid).unwrap();
            *info = change(*info);
        }
    }

    impl Host for Table {
        fn ask(&mut self, first: u32, max: usize) -> Result<(), Errno> {
            assert!(first < DOMID_LIMIT, "a hypercall would read this domid as another");
            self.questions += 1;
            if let Some(errno) = self.fail.take() {
                return Err(errno);
            }
            self.answer = self.domains.range(first..).take(max).map(|(_, info)| *info).collect();
            self.longest = self.longest.max(self.answer.len());
            Ok(())
        }

        fn answer(&self) -> &[DomainInfo] {
            &self.answer
        }
    }

    /// What a look tells: of which domain, for which user, and what.
    pub fn told(look: impl FnOnce(&mut dyn FnMut(Key, Report)) -> Result<(), Errno>) -> Vec<(u32, u64, Change)> {
        let mut told = Vec::new();
        look(&mut |_, report| told.push((report.domid, report.user, report.change))).unwrap();
        told
    }

    fn scan(monitor: &mut Monitor, table: &mut Table) -> Vec<(u32, u64, Change)> {
        told(|tell| monitor.scan(table, tell))
    }

    fn scan_fresh(monitor: &mut Monitor, table: &mut Table) -> Vec<(u32, u64, Change)> {
        told(|tell| monitor.scan_fresh(table, tell))
    }

    #[test]
    fn reports_come_ascending_by_domid_with_the_newest_generator_first() {
        let mut monitor = Monitor::default();
        for (domid, user) in [(30, 1), (10, 2), (20, 3), (10, 4), (20, 5), (20, 6)] {
            monitor.insert(domid, user);
        }
        let mut table = Table::of([10, 20, 30]);
        assert_eq!(scan(&mut monitor, &mut table), []);
        table.edit(10, |info| info.shut_down(0));
        table.domains.remove(&20);
        table.edit(30, |info| info.shut_down(1));
        let expected = [
            (10, 4, Change::Shutdown(0)),
            (10, 2, Change::Shutdown(0)),
            (20, 6, Change::Death),
            (20, 5, Change::Death),
            (20, 3, Change::Death),
            (30, 1, Change::Shutdown(1)),
        ];
        assert_eq!(scan(&mut monitor, &mut table), expected);
        assert_eq!(scan(&mut monitor, &mut table), []);
    }

    #[test]
    fn a_new_generator_hears_of_the_present_state_and_the_others_hear_nothing_twice() {
        let mut monitor = Monitor::default();
        let mut table = Table::of([7, 8]);
        table.edit(7, |info| info.shut_down(3));
        monitor.insert(7, 1);
        assert_eq!(scan_fresh(&mut monitor, &mut table), [(7, 1, Change::Shutdown(3))]);
        assert!(!monitor.has_fresh());
        monitor.insert(7, 2);
        monitor.insert(9, 3);
        assert!(monitor.has_fresh());
        assert_eq!(scan_fresh(&mut monitor, &mut table), [(7, 2, Change::Shutdown(3)), (9, 3, Change::Death)]);
    }

    #[test]
    fn a_new_generators_news_comes_after_that_of_lower_domids_that_nobody_has_looked_at() {
        let mut monitor = Monitor::default();
        let mut table = Table::of([3, 5, 9]);
        monitor.insert(5, 1);
        assert_eq!(scan(&mut monitor, &mut table), []);
        table.domains.clear();
        monitor.insert(9, 2);
        monitor.insert(3, 3);
        assert_eq!(
            scan_fresh(&mut monitor, &mut table),
            [(3, 3, Change::Death), (5, 1, Change::Death), (9, 2, Change::Death)]
        );
        assert!(!monitor.has_fresh());
    }

    #[test]
    fn new_generators_of_live_domains_cost_the_others_nothing() {
        let mut monitor = Monitor::default();
        let mut table = Table::of(1..=1000);
        for domid in 1..=999 {
            monitor.insert(domid, 0);
        }
        scan(&mut monitor, &mut table);
        (table.questions, table.longest) = (0, 0);
        monitor.insert(1000, 0);
        assert_eq!(scan_fresh(&mut monitor, &mut table), []);
        assert_eq!((table.questions, table.longest), (1, 1));
    }

    #[test]
    fn domids_that_no_domain_can_have_are_dead_and_the_host_is_not_asked() {
        let mut monitor = Monitor::default();
        let mut table = Table::of([0, 5]);
        for domid in [u32::MAX, 65536 + 5, 65536, 40000, DOMID_LIMIT] {
            monitor.insert(domid, u64::from(domid));
        }
        let reports = scan_fresh(&mut monitor, &mut table);
        let mut domids: Vec<u32> = reports.iter().map(|(domid, ..)| *domid).collect();
        domids.sort_unstable();
        assert_eq!(domids, [DOMID_LIMIT, 40000, 65536, 65541, u32::MAX]);
        assert!(reports.iter().all(|(domid, user, change)| *user == u64::from(*domid) && *change == Change::Death));
        assert_eq!(table.questions, 0);
    }

    #[test]
    fn one_watched_domain_is_one_question_and_a_thousand_are_one_batch() {
        let mut table = Table::of(1..=1000);
        let mut monitor = Monitor::default();
        monitor.insert(900, 0);
        scan(&mut monitor, &mut table);
        assert_eq!((table.questions, table.answer.len()), (1, 1));
        for domid in 1..=1000 {
            monitor.insert(domid, 0);
        }
        table.questions = 0;
        scan(&mut monitor, &mut table);
        assert_eq!(table.questions, 1);
    }

    #[test]
    fn a_few_domains_among_many_take_few_questions_and_short_answers() {
        let mut table = Table::of(1..=2000);
        let mut monitor = Monitor::default();
        for domid in [1, 2, 3, 500, 1000, 1500, 1999] {
            monitor.insert(domid, 0);
        }
        assert_eq!(scan(&mut monitor, &mut table), []);
        assert_eq!(table.questions, 5);
        assert!(table.longest <= 7 * PER_QUESTION);
    }

    #[test]
    fn a_host_of_many_batches_is_read_to_its_end() {
        let last = 3 * BATCH as u16;
        let mut table = Table::of(1..=last);
        let mut monitor = Monitor::default();
        for domid in (1..=u32::from(last)).step_by(7) {
            monitor.insert(domid, 0);
        }
        assert_eq!(scan(&mut monitor, &mut table), []);
        table.domains.clear();
        assert_eq!(scan(&mut monitor, &mut table).len(), (1..=last).step_by(7).count());
    }

    #[test]
    fn dead_generators_are_not_asked_about_again() {
        let mut table = Table::default();
        let mut monitor = Monitor::default();
        monitor.insert(1, 0);
        assert_eq!(scan(&mut monitor, &mut table), [(1, 0, Change::Death)]);
        table.questions = 0;
        assert_eq!(scan(&mut monitor, &mut table), []);
        assert_eq!(table.questions, 0);
    }

    #[test]
    fn a_failed_scan_loses_nothing() {
        let mut table = Table::of([1, 2]);
        let mut monitor = Monitor::default();
        monitor.insert(1, 0);
        monitor.insert(2, 0);
        table.domains.clear();
        table.fail = Some(Errno::ENOMEM);
        assert_eq!(monitor.scan_fresh(&mut table, &mut |_, _| panic!("nothing is known")), Err(Errno::ENOMEM));
        assert!(monitor.has_fresh());
        assert_eq!(scan_fresh(&mut monitor, &mut table), [(1, 0, Change::Death), (2, 0, Change::Death)]);
    }

    #[test]
    fn a_look_asked_for_costs_the_others_nothing_and_its_news_come_in_order() {
        let mut table = Table::of(1..=10);
        let mut monitor = Monitor::default();
        for domid in 1..=10 {
            monitor.insert(domid, 0);
        }
        scan(&mut monitor, &mut table);
        (table.questions, table.longest) = (0, 0);
        assert!(monitor.ask(7));
        assert_eq!(scan_fresh(&mut monitor, &mut table), []);
        assert_eq!((table.questions, table.longest), (1, 1));
        table.edit(7, |info| info.shut_down(0));
        table.domains.remove(&3);
        assert!(monitor.ask(7));
        assert_eq!(scan_fresh(&mut monitor, &mut table), [(3, 0, Change::Death), (7, 0, Change::Shutdown(0))]);
        assert!(!monitor.ask(3), "the dead have nothing more to tell");
        assert!(!monitor.ask(11), "nobody wants to know");
        assert!(!monitor.has_fresh());
    }

    #[test]
    fn a_few_domains_are_one_question_if_they_are_near_each_other() {
        for (domids, questions, longest) in [(vec![5, 36], 1, 32), (vec![5, 37], 2, 1), (vec![5, 6, 900, 901], 3, 2)] {
            let mut table = Table::of(0..2000);
            let mut monitor = Monitor::default();
            domids.iter().for_each(|domid| _ = monitor.insert(*domid, 0));
            assert_eq!(scan(&mut monitor, &mut table), []);
            assert_eq!((table.questions, table.longest), (questions, longest), "{domids:?}");
        }
    }

    #[test]
    fn one_domain_is_asked_about_once_also_when_it_has_news() {
        let mut table = Table::of([5]);
        let mut monitor = Monitor::default();
        monitor.insert(5, 1);
        monitor.insert(5, 2);
        scan(&mut monitor, &mut table);
        table.edit(5, |info| info.shut_down(0));
        table.questions = 0;
        monitor.ask(5);
        assert_eq!(scan_fresh(&mut monitor, &mut table).len(), 2);
        assert_eq!(table.questions, 1);
    }

    #[test]
    fn domains_are_counted_once_each_whatever_their_generators() {
        let mut monitor = Monitor::default();
        let keys: Vec<Key> = [9, 4, 9, 40000, DOMID_LIMIT, 0, 4].map(|domid| monitor.insert(domid, 0)).into();
        assert_eq!(monitor.each_domain().collect::<Vec<_>>(), [0, 4, 9]);
        assert_eq!(monitor.domains(), 3);
        let left: Vec<usize> = keys.into_iter().map(|key| (monitor.remove(key), monitor.domains()).1).collect();
        assert_eq!(left, [3, 3, 2, 2, 2, 1, 0]);
        assert!(!monitor.has(9));
    }

    #[test]
    fn stale_and_foreign_keys_remove_nothing() {
        let (mut monitor, mut other) = (Monitor::default(), Monitor::default());
        let key = monitor.insert(1, 0);
        let foreign = other.insert(1, 0);
        assert!(!monitor.remove(foreign));
        assert!(monitor.remove(key));
        assert!(!monitor.remove(key));
        monitor.insert(1, 0);
        assert!(!monitor.remove(key));
        assert!(!monitor.is_empty());
    }

    #[test]
    fn each_speaks_to_its_recipient_and_a_recipient_is_removed_with_all_that_is_its_own() {
        let mut monitor = Monitor::default();
        let other = Recipient::subscriber(0).unwrap();
        for domid in 1..=3 {
            monitor.insert(domid, 0);
            monitor.insert_for(other, domid, 1);
        }
        monitor.insert_for(other, 4, 1);
        let mut reports = Vec::new();
        monitor.scan(&mut Table::of([2, 3, 4]), &mut |_, r| reports.push((r.domid, r.recipient))).unwrap();
        assert_eq!(reports, [(1, other), (1, Recipient::OWN)]);
        monitor.remove_all_of(other);
        assert_eq!((monitor.len(), monitor.domains()), (3, 3));
        assert_eq!(scan(&mut monitor, &mut Table::default()), [(2, 0, Change::Death), (3, 0, Change::Death)]);
    }

    #[test]
    fn a_disabled_generator_says_nothing() {
        let mut monitor = Monitor::default();
        let key = monitor.insert(1, 0);
        monitor.insert(2, 0);
        monitor.remove(key);
        assert_eq!(scan_fresh(&mut monitor, &mut Table::default()), [(2, 0, Change::Death)]);
    }
}
