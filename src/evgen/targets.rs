// SPDX-License-Identifier: LGPL-2.1-or-later
//! Which watches tell a context that domains have ended: one for all domains of the host, or one for each domain that is
//! watched, where xenstored has such; and that there are new ones, where somebody wants to know. Policy and books alone; who
//! sets the watches is `context::targeting`.
//!
//! With a watch for each, no other domain's end wakes the context. With one for all, a burst is one firing however many end.
//!
//! It goes from one way to the other by single steps: new watches are set before old ones are taken away, so that at every
//! moment something tells of each domain. A new watch fires once by itself, and the look that follows finds what came
//! before it; what comes after, it tells. State is looked at, not counted: who is told twice sees nothing new.

use std::collections::BTreeSet;

use crate::xen::DOMID_LIMIT;

/// More watched domains than this, and one watch tells of all. Each watch of its own costs a round trip to set, a place in
/// the daemon, and in a burst a firing of about 0.1 ms; against that stands a look, of a few hypercalls at most for so
/// many, whenever any domain of the host ends. A program that follows its own guest has one, a small service a handful;
/// who watches more than this watches a host, and wants the ends of most of it anyway.
pub const MANY: usize = 16;

/// Down to this many, before each has a watch of its own again. Well below [`MANY`], so that one domain which comes and goes
/// doesn't move watches each time.
pub const FEW: usize = 8;

/// What a generator is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// The domain of this number.
    Domain(u32),
    /// All domains, those that are yet to come too.
    Any,
}

impl Subject {
    /// A single domain that may be there, and isn't the control domain: xenstored always knows that.
    pub fn guest(self) -> Option<u32> {
        match self {
            Subject::Domain(domid) => (domid != 0 && domid < DOMID_LIMIT).then_some(domid),
            Subject::Any => None,
        }
    }
}

/// What all generators together have to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Demand {
    /// The ends of so many domains.
    Ends(usize),
    /// The ends of all domains, and their beginnings.
    All,
}

/// What a watch tells of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// The ends of all domains of the host.
    All,
    /// New domains.
    New,
    /// The end of the domain of this number.
    Domain(u32),
}

/// A step towards the watches that there should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Set a watch.
    Watch(Target),
    /// Take one away.
    Unwatch(Target),
}

/// The watches of one connection. Each comes in after it was set, and goes out before it is taken away.
#[derive(Debug, Default)]
pub struct Targets {
    /// The daemon can watch single domains.
    offered: bool,
    /// That for the ends of all domains is set.
    all: bool,
    /// That for new domains.
    new: bool,
    /// Those for single domains.
    single: BTreeSet<u32>,
}

impl Targets {
    /// Those of a new connection: none. `offered`: its daemon can watch single domains.
    pub fn new(offered: bool) -> Self {
        Targets { offered, ..Targets::default() }
    }

    /// Whether the domains are to have a watch each.
    fn each(&self, demand: Demand) -> bool {
        let limit = if self.all { FEW } else { MANY };
        self.offered && matches!(demand, Demand::Ends(domains) if domains <= limit)
    }

    /// Whether all that there is to know of it will be told. A number that no domain can have needs no watch.
    pub fn covers(&self, subject: Subject) -> bool {
        matches!(subject, Subject::Domain(domid) if domid >= DOMID_LIMIT) || self.tells_of(subject)
    }

    /// Whether the watches for it are set.
    pub fn tells_of(&self, subject: Subject) -> bool {
        match subject {
            Subject::Domain(domid) => self.all || self.single.contains(&domid),
            Subject::Any => self.all && self.new,
        }
    }

    /// Whether the watch for all domains' ends is set.
    pub fn tell_of_all(&self) -> bool {
        self.all
    }

    /// A watch that must be set before there is a generator for this, if there must be one; with it, the demand will be that.
    pub fn needed(&self, subject: Subject, demand: Demand) -> Option<Target> {
        if self.covers(subject) {
            return None;
        }
        Some(match subject {
            Subject::Domain(domid) if self.each(demand) => Target::Domain(domid),
            Subject::Any if self.all => Target::New,
            _ => Target::All,
        })
    }

    /// What to do next to meet a demand; `list` gives the numbers of the domains that have generators of their own. `None` when
    /// all is as it should be.
    pub fn next(&self, demand: Demand, list: impl FnOnce() -> BTreeSet<u32>) -> Option<Step> {
        let each = self.each(demand);
        let new = demand == Demand::All;
        let wanted = if each { list() } else { BTreeSet::new() };
        let missing = match each {
            true => wanted.iter().find(|domid| !self.single.contains(domid)).map(|domid| Target::Domain(*domid)),
            false if !self.all => Some(Target::All),
            false => (new && !self.new).then_some(Target::New),
        };
        if missing.is_some() {
            return missing.map(Step::Watch);
        }
        let needless = || match (each, new) {
            (true, _) if self.all => Some(Target::All),
            (_, false) if self.new => Some(Target::New),
            _ => self.single.iter().find(|domid| !wanted.contains(domid)).map(|domid| Target::Domain(*domid)),
        };
        needless().map(Step::Unwatch)
    }

    /// A watch has been set.
    pub fn insert(&mut self, target: Target) {
        match target {
            Target::All => self.all = true,
            Target::New => self.new = true,
            Target::Domain(domid) => _ = self.single.insert(domid),
        }
    }

    /// A watch is going to be taken away.
    pub fn remove(&mut self, target: Target) {
        match target {
            Target::All => self.all = false,
            Target::New => self.new = false,
            Target::Domain(domid) => _ = self.single.remove(&domid),
        }
    }

    /// All of them are going to be.
    pub fn take(&mut self) -> BTreeSet<Target> {
        let before = std::mem::replace(self, Targets::new(self.offered));
        let for_all = [(before.all, Target::All), (before.new, Target::New)];
        let for_all = for_all.into_iter().filter_map(|(set, target)| set.then_some(target));
        for_all.chain(before.single.into_iter().map(Target::Domain)).collect()
    }

    /// The daemon has refused a watch of this kind: no more of them on this connection. False if there is nothing else.
    pub fn refused(&mut self, target: Target) -> bool {
        let single = matches!(target, Target::Domain(_));
        self.offered &= !single;
        single
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goes all the way, and gives the steps. No step takes a domain's last watch.
    fn settle(targets: &mut Targets, wanted: &BTreeSet<u32>) -> Vec<Step> {
        settle_for(targets, Demand::Ends(wanted.len()), wanted)
    }

    fn settle_for(targets: &mut Targets, demand: Demand, wanted: &BTreeSet<u32>) -> Vec<Step> {
        let mut steps = Vec::new();
        while let Some(step) = targets.next(demand, || wanted.clone()) {
            let domain = |domid: &u32| Subject::Domain(*domid);
            let told: Vec<Subject> = wanted.iter().map(domain).filter(|domain| targets.tells_of(*domain)).collect();
            match step {
                Step::Watch(target) => targets.insert(target),
                Step::Unwatch(target) => targets.remove(target),
            }
            assert!(told.into_iter().all(|domain| targets.tells_of(domain)), "{step:?}");
            steps.push(step);
            assert!(steps.len() < 100, "it comes to no end");
        }
        steps
    }

    fn first(count: usize) -> BTreeSet<u32> {
        (1..).take(count).collect()
    }

    #[test]
    fn few_domains_have_a_watch_each() {
        let mut targets = Targets::new(true);
        let wanted = BTreeSet::from([3, 9]);
        let steps = settle(&mut targets, &wanted);
        assert_eq!(steps, [Step::Watch(Target::Domain(3)), Step::Watch(Target::Domain(9))]);
        assert!(targets.covers(Subject::Domain(3)) && !targets.covers(Subject::Domain(4)));
        assert_eq!(settle(&mut targets, &BTreeSet::from([9])), [Step::Unwatch(Target::Domain(3))]);
        assert_eq!(settle(&mut targets, &BTreeSet::new()), [Step::Unwatch(Target::Domain(9))]);
    }

    #[test]
    fn a_daemon_that_cannot_gets_one_watch_for_all() {
        let mut targets = Targets::new(false);
        for count in [0, 1, MANY, MANY + 1, 1, 0] {
            settle(&mut targets, &first(count));
            assert_eq!((targets.all, targets.new, targets.single.len()), (true, false, 0));
        }
        assert_eq!(Targets::new(false).needed(Subject::Domain(1), Demand::Ends(1)), Some(Target::All));
    }

    #[test]
    fn many_domains_have_one_watch_and_new_ones_are_set_before_old_ones_go() {
        let mut targets = Targets::new(true);
        settle(&mut targets, &first(MANY));
        let steps = settle(&mut targets, &first(MANY + 1));
        assert_eq!(steps.first(), Some(&Step::Watch(Target::All)));
        assert!(steps[1..].iter().all(|step| matches!(step, Step::Unwatch(Target::Domain(_)))));
        let steps = settle(&mut targets, &first(FEW));
        assert_eq!(steps.last(), Some(&Step::Unwatch(Target::All)));
        assert_eq!(steps.len(), FEW + 1);
        assert!(steps[..FEW].iter().all(|step| matches!(step, Step::Watch(Target::Domain(_)))));
    }

    #[test]
    fn a_domain_that_comes_and_goes_moves_no_watch() {
        let mut targets = Targets::new(true);
        settle(&mut targets, &first(MANY + 1));
        for count in [MANY, MANY + 1, MANY, FEW + 1, MANY] {
            assert_eq!(settle(&mut targets, &first(count)), []);
        }
        settle(&mut targets, &first(FEW));
        for count in [FEW + 1, FEW, MANY, FEW] {
            let steps = settle(&mut targets, &first(count));
            assert!(!steps.contains(&Step::Watch(Target::All)), "{count}");
        }
    }

    #[test]
    fn one_that_is_needed_is_the_domains_own_or_that_for_all() {
        let mut targets = Targets::new(true);
        let five = Subject::Domain(5);
        assert_eq!(targets.needed(five, Demand::Ends(1)), Some(Target::Domain(5)));
        assert_eq!(targets.needed(five, Demand::Ends(MANY)), Some(Target::Domain(5)));
        assert_eq!(targets.needed(five, Demand::Ends(MANY + 1)), Some(Target::All));
        assert_eq!(targets.needed(five, Demand::All), Some(Target::All));
        targets.insert(Target::Domain(5));
        assert_eq!(targets.needed(five, Demand::Ends(1)), None);
        targets.insert(Target::All);
        assert_eq!(targets.needed(Subject::Domain(6), Demand::Ends(2)), None);
    }

    #[test]
    fn who_wants_all_domains_is_told_of_their_ends_and_of_new_ones() {
        for offered in [true, false] {
            let mut targets = Targets::new(offered);
            settle(&mut targets, &first(2));
            let mut needed = Vec::new();
            while let Some(target) = targets.needed(Subject::Any, Demand::All) {
                assert!(!targets.covers(Subject::Any));
                targets.insert(target);
                needed.push(target);
            }
            assert!(targets.covers(Subject::Any) && targets.tells_of(Subject::Domain(9)));
            assert_eq!(needed, if offered { vec![Target::All, Target::New] } else { vec![Target::New] });
            settle_for(&mut targets, Demand::All, &first(2));
            assert_eq!((targets.all, targets.new, targets.single.len()), (true, true, 0));
            assert_eq!(settle_for(&mut targets, Demand::All, &first(MANY + 1)), []);
            // Nobody does any more.
            let steps = settle(&mut targets, &first(MANY + 1));
            assert_eq!(steps, [Step::Unwatch(Target::New)]);
        }
    }

    #[test]
    fn when_nobody_wants_all_domains_any_more_few_have_a_watch_each_again() {
        let mut targets = Targets::new(true);
        settle_for(&mut targets, Demand::All, &first(2));
        let steps = settle(&mut targets, &first(2));
        assert!(steps[..2].iter().all(|step| matches!(step, Step::Watch(Target::Domain(_)))));
        assert_eq!(steps[2..], [Step::Unwatch(Target::All), Step::Unwatch(Target::New)]);
    }

    #[test]
    fn what_no_domain_can_be_needs_no_watch() {
        for domid in [DOMID_LIMIT, 40000, 65541, u32::MAX] {
            assert_eq!(Targets::new(true).needed(Subject::Domain(domid), Demand::Ends(0)), None);
        }
    }

    #[test]
    fn what_is_taken_out_is_what_was_set_and_the_daemon_stays_what_it_is() {
        let mut targets = Targets::new(true);
        let set = BTreeSet::from([Target::All, Target::New, Target::Domain(3), Target::Domain(4)]);
        set.iter().for_each(|target| targets.insert(*target));
        assert_eq!(targets.take(), set);
        assert_eq!(targets.take(), BTreeSet::new());
        assert_eq!(targets.needed(Subject::Domain(3), Demand::Ends(1)), Some(Target::Domain(3)));
    }

    #[test]
    fn what_was_refused_is_not_asked_for_again() {
        let mut targets = Targets::new(true);
        targets.insert(Target::All);
        assert_eq!(targets.next(Demand::Ends(1), || first(1)), Some(Step::Watch(Target::Domain(1))));
        assert!(targets.refused(Target::Domain(1)));
        assert_eq!(targets.next(Demand::Ends(1), || first(1)), None);
        assert!(!targets.refused(Target::All) && !targets.refused(Target::New));
    }
}
