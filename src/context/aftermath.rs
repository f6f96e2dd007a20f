// SPDX-License-Identifier: LGPL-2.1-or-later
//! After a panic: what it has interrupted is taken up again.
//!
//! State is read, not counted, so another look finds out what was not. Looks, and attempts to reach xenstored, come after a
//! pause: what panics each time must not do so without end. Nothing waits here, and the application isn't called.

use super::turn::{Later, RESCAN_LAST};
use super::{Context, State, arming};
use crate::evgen::disk_eject::DriveId;
use crate::reactor::now;

impl Context {
    /// Does what takes in firings and timers, which don't come again. If a panic ends it, everything is looked at again.
    pub(super) fn in_turn<T>(&self, state: &mut State, work: impl FnOnce(&mut State) -> T) -> T {
        let unfinished = Unfinished { context: self, state };
        let result = work(unfinished.state);
        std::mem::forget(unfinished);
        result
    }

    /// Firings were taken in, and a panic has kept us from acting upon them.
    #[cold]
    pub(super) fn look_at_everything(&self, state: &mut State) {
        let drives: Vec<DriveId> = state.drives.watched().map(|(id, _)| id).collect();
        drives.into_iter().for_each(|id| state.ask_for_look(id));
        state.all_tasks_fired();
        state.strangers.fired();
        self.take_up(state);
    }

    /// Sets timers for what goes on by itself, and may have been interrupted.
    #[cold]
    pub(super) fn take_up(&self, state: &mut State) {
        if !state.domains.is_empty() && !state.rescan_due {
            state.rescan_due = true;
            self.schedule(state, now() + RESCAN_LAST, Later::Rescan);
        }
        self.plan_pulse(state);
        self.plan_stranger_look(state);
        // A thread in the gate is at work on the connection.
        if state.gate.is_none() && state.armed {
            match state.store {
                None => self.look_for_store(state, arming::LONGEST_PAUSE),
                Some(_) if state.wants_other_watches() => self.plan_retarget(state, now() + arming::LONGEST_PAUSE),
                Some(_) => {}
            }
        }
        self.leave_the_rest(state);
        // The application's loop was in a call of ours, and may not come to look at the queue after it.
        if state.has_events() && !state.application_woken {
            state.application_woken = true;
            self.reactor.wake_application();
        }
        // It has run out, and a turn that comes to its end sets it again.
        if let Some(deadline) = state.timers.earliest() {
            self.reactor.set_timer(deadline);
        }
    }
}

impl State {
    /// There are events that nobody has fetched yet.
    fn has_events(&self) -> bool {
        !self.inbox.queue.is_empty() || self.subscribers.inboxes().any(|inbox| !inbox.queue.is_empty())
    }
}

/// A turn, or a look, that hasn't come to its end.
struct Unfinished<'a> {
    context: &'a Context,
    state: &'a mut State,
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        self.context.look_at_everything(self.state);
    }
}

/// Where a test can bring about a panic, as a defect of ours would.
#[cfg(test)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Turn,
    Sleep,
    Task,
    Drive,
}

#[cfg(test)]
impl State {
    /// Panics, once, if this is the place.
    pub(super) fn pass(&mut self, place: Place) {
        if self.trap == Some(place) {
            self.trap = None;
            panic!("on purpose");
        }
    }
}
