// SPDX-License-Identifier: LGPL-2.1-or-later
//! Which watches tell a context that domains have ended: one for all domains of the host, or one for each domain that is
//! watched, where xenstored has such. Policy and books alone; who sets the watches is `context::targeting`.
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

/// What a watch tells of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// All domains of the host.
    All,
    /// The domain of this number.
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

/// The watches of one connection.
#[derive(Debug, Default)]
pub struct Targets {
    /// The daemon can watch single domains.
    offered: bool,
    /// Those that are set. A watch comes in after it was set, and goes out before it is taken away.
    set: BTreeSet<Target>,
}

impl Targets {
    /// Those of a new connection: none. `offered`: its daemon can watch single domains.
    pub fn new(offered: bool) -> Self {
        Targets { offered, set: BTreeSet::new() }
    }

    /// Whether so many domains are to have a watch each.
    fn each(&self, domains: usize) -> bool {
        let limit = if self.set.contains(&Target::All) { FEW } else { MANY };
        self.offered && domains <= limit
    }

    /// Whether this domain's end will be told. A number that no domain can have needs no watch.
    pub fn covers(&self, domid: u32) -> bool {
        domid >= DOMID_LIMIT || self.tells_of(domid)
    }

    /// Whether a watch for this domain, or for all, is set.
    pub fn tells_of(&self, domid: u32) -> bool {
        self.set.contains(&Target::All) || self.set.contains(&Target::Domain(domid))
    }

    /// Whether the watch for all domains is set.
    pub fn tell_of_all(&self) -> bool {
        self.set.contains(&Target::All)
    }

    /// The watch that must be set before one more domain is watched, if there must be one; with it, there will be `domains`.
    pub fn needed(&self, domid: u32, domains: usize) -> Option<Target> {
        if self.covers(domid) {
            return None;
        }
        Some(if self.each(domains) { Target::Domain(domid) } else { Target::All })
    }

    /// What to do next for `domains` watched domains, whose numbers `list` gives; `None` when all is as it should be.
    pub fn next(&self, domains: usize, list: impl FnOnce() -> BTreeSet<u32>) -> Option<Step> {
        let all = self.set.contains(&Target::All);
        if !self.each(domains) {
            let single = self.set.iter().find(|target| **target != Target::All);
            return if all { single.copied().map(Step::Unwatch) } else { Some(Step::Watch(Target::All)) };
        }
        let wanted = list();
        let missing = wanted.iter().copied().map(Target::Domain).find(|target| !self.set.contains(target));
        if let Some(missing) = missing {
            return Some(Step::Watch(missing));
        }
        let needless = |target: &&Target| match target {
            Target::All => true,
            Target::Domain(domid) => !wanted.contains(domid),
        };
        self.set.iter().find(needless).copied().map(Step::Unwatch)
    }

    /// A watch has been set.
    pub fn insert(&mut self, target: Target) {
        self.set.insert(target);
    }

    /// A watch is going to be taken away.
    pub fn remove(&mut self, target: Target) {
        self.set.remove(&target);
    }

    /// All of them are going to be.
    pub fn take(&mut self) -> BTreeSet<Target> {
        std::mem::take(&mut self.set)
    }

    /// The daemon has refused a watch of this kind: no more of them on this connection. False if there is nothing else.
    pub fn refused(&mut self, target: Target) -> bool {
        self.offered = false;
        target != Target::All
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goes all the way, and gives the steps. No step takes a domain's last watch.
    fn settle(targets: &mut Targets, wanted: &BTreeSet<u32>) -> Vec<Step> {
        let mut steps = Vec::new();
        while let Some(step) = targets.next(wanted.len(), || wanted.clone()) {
            let told: Vec<u32> = wanted.iter().copied().filter(|domid| targets.tells_of(*domid)).collect();
            match step {
                Step::Watch(target) => targets.insert(target),
                Step::Unwatch(target) => targets.remove(target),
            }
            assert!(told.into_iter().all(|domid| targets.tells_of(domid)), "{step:?}");
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
        assert!(targets.covers(3) && !targets.covers(4));
        assert_eq!(settle(&mut targets, &BTreeSet::from([9])), [Step::Unwatch(Target::Domain(3))]);
        assert_eq!(settle(&mut targets, &BTreeSet::new()), [Step::Unwatch(Target::Domain(9))]);
    }

    #[test]
    fn a_daemon_that_cannot_gets_one_watch_for_all() {
        let mut targets = Targets::new(false);
        for count in [0, 1, MANY, MANY + 1, 1, 0] {
            settle(&mut targets, &first(count));
            assert_eq!(targets.set, BTreeSet::from([Target::All]));
        }
        assert_eq!(Targets::new(false).needed(1, 1), Some(Target::All));
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
        assert_eq!(targets.needed(5, 1), Some(Target::Domain(5)));
        assert_eq!(targets.needed(5, MANY), Some(Target::Domain(5)));
        assert_eq!(targets.needed(5, MANY + 1), Some(Target::All));
        targets.insert(Target::Domain(5));
        assert_eq!(targets.needed(5, 1), None);
        targets.insert(Target::All);
        assert_eq!(targets.needed(6, 2), None);
    }

    #[test]
    fn what_no_domain_can_be_needs_no_watch() {
        for domid in [DOMID_LIMIT, 40000, 65541, u32::MAX] {
            assert_eq!(Targets::new(true).needed(domid, 0), None);
        }
    }

    #[test]
    fn what_was_refused_is_not_asked_for_again() {
        let mut targets = Targets::new(true);
        targets.insert(Target::All);
        assert_eq!(targets.next(1, || first(1)), Some(Step::Watch(Target::Domain(1))));
        assert!(targets.refused(Target::Domain(1)));
        assert_eq!(targets.next(1, || first(1)), None);
        assert!(!targets.refused(Target::All));
    }
}
