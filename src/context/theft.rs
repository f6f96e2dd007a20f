// SPDX-License-Identifier: LGPL-2.1-or-later
//! The application has closed descriptors of ours: by closefrom(3) in a late daemonise, or a number of its own once too
//! often. What it opens next has our numbers.
//!
//! The reactor and the connection check their numbers before they use them, and remember what they have found. Whoever ends
//! its call with that ([`Context::flush`]) *dismantles* the context: nothing is waited for any more, what is under way ends
//! with an error, threads that wait return, and the application is told once, as a disaster. Each later call that needs a
//! descriptor fails. What can't be closed without harm is left open.

use std::sync::atomic::{AtomicU64, Ordering};

use super::outbox::Item;
use super::states::ResumeLooks;
use super::{Context, State, neighbours};
use crate::error::{Error, Result};
use crate::evgen::targets::Targets;
use crate::reactor::{Timers, stolen};
use crate::sync::MutexGuard;

/// Turns in a row that bring nothing but what nobody knows, until it is taken for what is left of a closed descriptor: where
/// a forked child has a copy, the kernel goes on to report it, and it can't be taken out by its number.
const STRAY_TURNS: u32 = 16;

/// When a loop's calls last had a look.
#[derive(Debug, Default)]
pub(super) struct Checked {
    time: AtomicU64,
    calls: AtomicU64,
}

/// Also where the caller's clock stands still.
const CALLS_AT_MOST: u64 = 256;

impl Checked {
    fn is_due(&self, time: u64) -> bool {
        // Neither counts to the last: two threads may look at once, or one may be counted for both.
        let calls = self.calls.load(Ordering::Relaxed) + 1;
        self.calls.store(calls, Ordering::Relaxed);
        let due = calls % CALLS_AT_MOST == 0 || self.time.load(Ordering::Relaxed) != time;
        if due {
            self.time.store(time, Ordering::Relaxed);
        }
        due
    }
}

impl Context {
    /// The application has closed descriptors of ours, and that was found.
    pub fn is_stolen(&self) -> bool {
        self.reactor.is_stolen()
    }

    /// An error if it has.
    pub(super) fn refuse_if_stolen(&self) -> Result<()> {
        if self.reactor.is_stolen() { Err(stolen()) } else { Ok(()) }
    }

    /// Looks whether it has, as far as that can be known without a look at every descriptor, and tells of it.
    pub fn check_descriptors(&self) -> Result<()> {
        if self.reactor.outer_is_ours() && self.reactor.is_ours() {
            return Ok(());
        }
        self.flush(self.state.lock());
        Err(stolen())
    }

    /// Whether the time for that has come again, for calls that a loop makes each time round. `time` is any number that
    /// changes with the time.
    pub fn is_check_due(&self, time: u64) -> bool {
        self.checked.is_due(time)
    }

    /// What the kernel reports was, or wasn't, something that is known here.
    pub(super) fn note_strays(&self, state: &mut State, strays_alone: bool) {
        state.stray_turns = if strays_alone { state.stray_turns + 1 } else { 0 };
        if state.stray_turns >= STRAY_TURNS {
            self.reactor.mark_stolen();
        }
    }

    /// Whether the connection's descriptors are still its own.
    pub(super) fn store_is_ours(&self, state: &State) -> bool {
        let ours = state.store.as_ref().is_none_or(|store| store.is_ours());
        if !ours {
            self.reactor.mark_stolen();
        }
        ours
    }

    /// Once it was found.
    #[cold]
    pub(super) fn dismantle(&self, state: &mut MutexGuard<'_, State>) {
        // Inside a hook that was called in the gate: at the end of that call.
        if state.dismantled {
            return;
        }
        let Some(mut gate) = self.enter_gate(state) else { return };
        if !std::mem::replace(&mut gate.dismantled, true) {
            let state = &mut *gate;
            state.outbox.push_front(Item::Stolen);
            state.armed = false;
            neighbours::leave(&self.me);
            state.timers = Timers::default();
            (state.pulse, state.retarget, state.stranger_look) = (None, None, None);
            state.strangers.clear();
            state.resume_looks = ResumeLooks::default();
            self.end_outage(state);
            state.targets = Targets::default();
            self.forget_store_pointer();
            let (store, hypervisor) = (state.store.take(), state.hypervisor.take());
            state.outbox.extend(store.map(Box::new).map(Item::Close));
            state.outbox.extend(hypervisor.map(Box::new).map(Item::CloseHypervisor));
            self.remember_connections(state);
            self.close_children(state);
            state.companion.clear();
            self.fail_operations(state, &stolen());
            self.release_in_gate(state);
        }
        drop(gate);
        self.arrived.notify_all();
        self.reactor.wake_waiter();
    }

    pub(super) fn tell_of_theft(&self) {
        let error: Error = stolen();
        let errno = error.errno().map_or(0, |errno| errno as i32);
        // A program that can't be told isn't ended for it.
        self.tell_quietly(&format!("{error}; there will be no more events"), errno);
    }
}
