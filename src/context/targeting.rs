// SPDX-License-Identifier: LGPL-2.1-or-later
//! The watches that tell of domains' ends, and of new domains: setting and giving them up as generators come and go. Which
//! ones there are to be is `evgen::targets`'s to say.
//!
//! Every change is made in the gate, by one thread at a time, and waits for xenstored without the lock. A watch that a new
//! generator needs is set before its enable returns; what is no longer needed is given up from the outbox.

use std::collections::BTreeSet;
use std::ffi::CStr;

use super::arming::LONGEST_PAUSE;
use super::outbox::Item;
use super::turn::Later;
use super::{Context, State};
use crate::error::{Error, Result};
use crate::evgen::targets::{Demand, MANY, Step, Subject, Target, Targets};
use crate::reactor::{Monotonic, now};
use crate::sync::MutexGuard;
use crate::xen::DOMID_LIMIT;
use crate::xen::log::{Kind, Level, Line};
use crate::xen::store::{Connection, INTRODUCE_DOMAIN, RELEASE_DOMAIN, Store, release_of};

/// Of the watch for the ends of all domains.
pub(super) const RELEASE_TOKEN: &CStr = c"xlevent";
/// Of that for new ones.
pub(super) const INTRODUCE_TOKEN: &CStr = c"xlevent-introduce";
/// Of those for one each.
pub(super) const DOMAIN_TOKEN: &CStr = c"xlevent-domain";

/// The domains for which a new connection must be watched.
#[derive(Debug)]
pub(super) struct Wanted {
    demand: Demand,
    /// Their numbers, unless they are so many that one watch serves for all.
    domids: BTreeSet<u32>,
}

impl State {
    /// The domains that have generators, and what is about to have one.
    pub(super) fn wanted_domains(&self, subject: Option<Subject>) -> Wanted {
        let new = match subject {
            Some(Subject::Domain(domid)) if domid < DOMID_LIMIT && !self.domains.has(domid) => Some(domid),
            _ => None,
        };
        let demand = match self.domains.demand() {
            Demand::Ends(_) if subject == Some(Subject::Any) => Demand::All,
            Demand::Ends(count) => Demand::Ends(count + usize::from(new.is_some())),
            Demand::All => Demand::All,
        };
        let mut domids = BTreeSet::new();
        if matches!(demand, Demand::Ends(count) if count <= MANY) {
            domids = self.domains.each_domain();
            domids.extend(new);
        }
        Wanted { demand, domids }
    }

    fn next_step(&self) -> Option<Step> {
        self.targets.next(self.domains.demand(), || self.domains.each_domain())
    }

    /// Has the outbox set and give up watches, if there are any to; whether there are.
    pub(super) fn retarget_later(&mut self) -> bool {
        let due = self.wants_other_watches();
        if due {
            self.outbox.push_back(Item::Retarget);
        }
        due
    }

    /// There are watches to be set, or to be given up.
    pub(super) fn wants_other_watches(&self) -> bool {
        self.armed && self.store.is_some() && self.next_step().is_some()
    }
}

impl Context {
    /// Has what there is to know of a subject told to us, before it gets a generator. What a failure leaves behind is given up
    /// with the next step. In the gate.
    pub(super) fn watch_subject(&self, state: &mut MutexGuard<'_, State>, subject: Subject) -> Result<()> {
        loop {
            let needed = state.targets.needed(subject, state.wanted_domains(Some(subject)).demand);
            // Without a connection, the next one is set up for all generators that there are then.
            let (Some(store), Some(target)) = (state.store.as_ref(), needed) else { return Ok(()) };
            let connection = store.connection();
            let result = MutexGuard::unlocked(state, move || watch(&connection, target));
            if state.store.is_none() {
                // It was lost meanwhile, and its watches with it.
                return Ok(());
            }
            result?;
            state.targets.insert(target);
        }
    }

    /// The next time that [`Context::retarget`] comes without being called for. There is one, however often a watch is refused.
    pub(super) fn plan_retarget(&self, state: &mut State, at: Monotonic) {
        if let Some(planned) = state.retarget.take() {
            state.timers.remove(planned);
        }
        state.retarget = Some(self.schedule(state, at, Later::Retarget));
    }

    /// Goes on to the watches that there should be.
    pub(super) fn retarget(&self) {
        let mut state = self.state.lock();
        if !state.wants_other_watches() {
            return;
        }
        let Some(mut gate) = self.enter_gate(&mut state) else {
            // Inside a hook that was called in the gate: when it is done.
            self.plan_retarget(&mut state, now());
            return;
        };
        self.retarget_in_gate(&mut gate);
        drop(gate);
        self.flush(state);
    }

    fn retarget_in_gate(&self, state: &mut MutexGuard<'_, State>) {
        // Others may come and go while a step is taken, so the next is decided when it is done. `armed` doesn't change.
        while state.armed {
            let (Some(store), Some(step)) = (state.store.as_ref(), state.next_step()) else { return };
            let connection = store.connection();
            let result = match step {
                Step::Watch(target) => MutexGuard::unlocked(state, move || watch(&connection, target)),
                Step::Unwatch(target) => {
                    state.targets.remove(target);
                    MutexGuard::unlocked(state, move || unwatch(&connection, target))
                }
            };
            if state.store.is_none() {
                // The next connection gets its watches anew.
                return;
            }
            match (step, result) {
                (Step::Watch(target), Ok(())) => state.targets.insert(target),
                (Step::Unwatch(_), Ok(())) => {}
                (Step::Watch(target), Err(error)) => {
                    log_failure(state, "moving to other watches", &error);
                    if !state.targets.refused(target) {
                        self.plan_retarget(state, now() + LONGEST_PAUSE);
                        return;
                    }
                }
                (Step::Unwatch(_), Err(error)) => log_failure(state, "giving up a watch", &error),
            }
        }
    }
}

fn log_failure(state: &mut MutexGuard<'_, State>, what: &'static str, error: &Error) {
    let line = Line::failure(Level::Warn, what, error).of(Kind::Named(what));
    state.outbox.push_back(Item::Log(line));
}

/// Sets a new connection's watches for domains, which is asked first what it can do.
pub(super) fn watch_domains(store: &mut Store, wanted: &Wanted) -> Result<Targets> {
    store.listen()?;
    let connection = store.connection();
    let mut targets = Targets::new(connection.watches_single_domains());
    while let Some(Step::Watch(target)) = targets.next(wanted.demand, || wanted.domids.clone()) {
        watch(&connection, target)?;
        targets.insert(target);
    }
    Ok(targets)
}

fn watch(connection: &Connection, target: Target) -> Result<()> {
    match target {
        Target::All => connection.watch(RELEASE_DOMAIN, RELEASE_TOKEN),
        Target::New => connection.watch(INTRODUCE_DOMAIN, INTRODUCE_TOKEN),
        Target::Domain(domid) => connection.watch(&release_of(domid), DOMAIN_TOKEN),
    }
}

pub(super) fn unwatch(connection: &Connection, target: Target) -> Result<()> {
    match target {
        Target::All => connection.unwatch(RELEASE_DOMAIN, RELEASE_TOKEN),
        Target::New => connection.unwatch(INTRODUCE_DOMAIN, INTRODUCE_TOKEN),
        Target::Domain(domid) => connection.unwatch(&release_of(domid), DOMAIN_TOKEN),
    }
}
