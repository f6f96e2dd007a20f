// SPDX-License-Identifier: LGPL-2.1-or-later
//! The watches that tell of domains' ends: setting and giving them up as generators come and go. Which ones there are to be
//! is `evgen::targets`'s to say.
//!
//! Every change is made in the gate, by one thread at a time, and waits for xenstored without the lock. A watch that a new
//! generator needs is set before its enable returns; what is no longer needed is given up from the outbox.

use std::collections::BTreeSet;
use std::ffi::CStr;

use parking_lot::MutexGuard;

use super::arming::LONGEST_PAUSE;
use super::outbox::Item;
use super::turn::Later;
use super::{Context, State};
use crate::error::{Error, Result};
use crate::evgen::targets::{MANY, Step, Target, Targets};
use crate::reactor::now;
use crate::xen::DOMID_LIMIT;
use crate::xen::log::{Level, Line};
use crate::xen::store::{Connection, RELEASE_DOMAIN, Store, release_of};

/// Of the watch for all domains.
pub(super) const RELEASE_TOKEN: &CStr = c"xlevent";
/// Of those for one each.
pub(super) const DOMAIN_TOKEN: &CStr = c"xlevent-domain";

/// The domains for which a new connection must be watched.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    count: usize,
    /// Their numbers, unless they are so many that one watch serves for all.
    domids: BTreeSet<u32>,
}

impl State {
    /// The domains that have generators, and one that is about to.
    pub(super) fn wanted_domains(&self, domid: Option<u32>) -> Wanted {
        let new = domid.filter(|domid| *domid < DOMID_LIMIT && !self.monitor.has(*domid));
        let count = self.monitor.domains() + usize::from(new.is_some());
        let few = count <= MANY;
        let domids = if few { self.monitor.each_domain().chain(new).collect() } else { BTreeSet::new() };
        Wanted { count, domids }
    }

    fn next_step(&self) -> Option<Step> {
        self.targets.next(self.monitor.domains(), || self.monitor.each_domain().collect())
    }

    /// Has the outbox set and give up watches, if there are any to; whether there are.
    pub(super) fn retarget_later(&mut self) -> bool {
        let due = self.armed && self.store.is_some() && self.next_step().is_some();
        if due {
            self.outbox.push_back(Item::Retarget);
        }
        due
    }
}

impl Context {
    /// Has a domain's end told to us, before it gets a generator. On failure all is as before. In the gate.
    pub(super) fn watch_domain(&self, state: &mut MutexGuard<'_, State>, domid: u32) -> Result<()> {
        let needed = state.targets.needed(domid, state.wanted_domains(Some(domid)).count);
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
        Ok(())
    }

    /// Goes on to the watches that there should be.
    pub(super) fn retarget(&self) {
        let mut state = self.state.lock();
        if !state.armed || state.store.is_none() || state.next_step().is_none() {
            return;
        }
        if !self.enter_gate(&mut state) {
            // Inside a hook that was called in the gate: when it is done.
            self.schedule(&mut state, now(), Later::Retarget);
            return;
        }
        self.retarget_in_gate(&mut state);
        self.leave_gate(&mut state);
        self.flush(state);
    }

    fn retarget_in_gate(&self, state: &mut MutexGuard<'_, State>) {
        // Others may come and go while a step is taken, so the next is decided when it is done. `armed` doesn't change.
        while state.armed
            && let (Some(store), Some(step)) = (state.store.as_ref(), state.next_step())
        {
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
                        self.schedule(state, now() + LONGEST_PAUSE, Later::Retarget);
                        return;
                    }
                }
                (Step::Unwatch(_), Err(error)) => log_failure(state, "giving up a watch", &error),
            }
        }
    }
}

fn log_failure(state: &mut MutexGuard<'_, State>, what: &str, error: &Error) {
    let line = Line::failure(Level::Warn, what, error);
    state.outbox.push_back(Item::Log(line));
}

/// Sets a new connection's watches for domains, which is asked first what it can do.
pub(super) fn watch_domains(store: &mut Store, wanted: &Wanted) -> Result<Targets> {
    store.listen()?;
    let connection = store.connection();
    let mut targets = Targets::new(connection.watches_single_domains());
    while let Some(Step::Watch(target)) = targets.next(wanted.count, || wanted.domids.clone()) {
        watch(&connection, target)?;
        targets.insert(target);
    }
    Ok(targets)
}

fn watch(connection: &Connection, target: Target) -> Result<()> {
    match target {
        Target::All => connection.watch(RELEASE_DOMAIN, RELEASE_TOKEN),
        Target::Domain(domid) => connection.watch(&release_of(domid), DOMAIN_TOKEN),
    }
}

pub(super) fn unwatch(connection: &Connection, target: Target) -> Result<()> {
    match target {
        Target::All => connection.unwatch(RELEASE_DOMAIN, RELEASE_TOKEN),
        Target::Domain(domid) => connection.unwatch(&release_of(domid), DOMAIN_TOKEN),
    }
}
