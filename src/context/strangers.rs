// SPDX-License-Identifier: LGPL-2.1-or-later
//! Domains that xenstored doesn't know: asking it, and looking at them. The books are `evgen::strangers`'s.
//!
//! Questions go out at the end of a turn, answers come in with another, and neither waits. A domain that xenstored knows, as
//! nearly all are, costs one question; a host on which it knows all that are watched has no timer for this.

use super::turn::Later;
use super::{Context, State};
use crate::reactor::now;
use crate::xen::idle::Idle;
use crate::xen::store::Store;

impl Context {
    /// Asks xenstored about the domains that it may not know, as many as it can be asked about now.
    #[inline]
    pub(super) fn ask_about_strangers(&self, state: &mut State) {
        if state.strangers.has_questions() {
            self.ask_about_some(state);
        }
    }

    #[cold]
    fn ask_about_some(&self, state: &mut State) {
        let State { strangers, store, domains, .. } = state;
        match store.as_mut().and_then(Store::idle_mut) {
            Some(idle) => {
                let questions = strangers.take_questions(idle.room(), |domid| domains.follows(domid));
                // A connection that can't be written to hangs up, and its end is dealt with then.
                let _ = idle.ask(questions);
            }
            // It is away, and the next is asked anew; or there is no asking it without waiting.
            None => strangers.lost(),
        }
    }

    /// Takes in xenstored's answers if some are due, as of a neighbour, whose turn this isn't. True if domains are to be looked at.
    pub(super) fn take_due_answers(&self, state: &mut State) -> bool {
        let due = state.store.as_ref().and_then(Store::idle).is_some_and(Idle::awaits_answers);
        due && self.take_answers(state)
    }

    /// Takes in xenstored's answers. True if domains are to be looked at.
    pub(super) fn take_answers(&self, state: &mut State) -> bool {
        let Some(idle) = state.store.as_mut().and_then(Store::idle_mut) else { return false };
        let Ok(answers) = idle.answers() else {
            self.store_lost(state, "xenstored has gone away");
            return false;
        };
        let mut looks = false;
        for answer in answers {
            if state.strangers.answered(answer.domid, answer.introduced) {
                looks |= state.domains.ask(answer.domid);
            }
        }
        self.plan_stranger_look(state);
        looks
    }

    /// Sees to it that there is a next look while there are domains to look at.
    pub(super) fn plan_stranger_look(&self, state: &mut State) {
        if let (None, Some(pause)) = (state.stranger_look, state.strangers.pause()) {
            state.stranger_look = Some(self.schedule(state, now() + pause, Later::Strangers));
        }
    }

    /// The time for a look has come.
    pub(super) fn stranger_look_due(&self, state: &mut State) {
        state.stranger_look = None;
        let State { strangers, domains, .. } = state;
        strangers.due(|domid| domains.follows(domid) && domains.ask(domid));
        self.plan_stranger_look(state);
    }

    /// A connection is new: its daemon may know none of the domains that are followed.
    pub(super) fn all_may_be_strangers(&self, state: &mut State) {
        let State { strangers, domains, .. } = state;
        domains.followed().for_each(|domid| strangers.note(domid));
        self.ask_about_strangers(state);
    }

    /// There is no daemon to ask.
    pub(super) fn strangers_lost(&self, state: &mut State) {
        state.strangers.lost();
        self.cancel_stranger_look(state);
    }

    /// Nobody watches anything.
    pub(super) fn forget_strangers(&self, state: &mut State) {
        state.strangers.clear();
        self.cancel_stranger_look(state);
    }

    fn cancel_stranger_look(&self, state: &mut State) {
        if let Some(look) = state.stranger_look.take() {
            state.timers.remove(look);
        }
    }
}
