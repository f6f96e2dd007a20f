// SPDX-License-Identifier: LGPL-2.1-or-later
//! Watched domains that xenstored may not know: no watch fires for them, whatever becomes of them.
//!
//! A domain is unknown to it that was never introduced, because its creation has failed half-way; and so is every domain that
//! was there when xenstored crashed, for the next one begins with nothing, and nobody introduces a running domain again. So
//! xenstored is asked about each domain once, when somebody begins to watch it, and again when the connection is new. While
//! there are domains that it doesn't know, they are looked at from time to time, and it is asked again, until it knows them or
//! nobody watches them any more.
//!
//! A soft reset takes a domain out of xenstored's hands for a while, and may fail there: so a domain that has shut down for that
//! reason is asked about again whenever something has been fired.
//!
//! Pure bookkeeping: who asks, and looks, is the context.

use std::collections::BTreeSet;
use std::time::Duration;

/// The pause before the first look at a domain that xenstored doesn't know; it doubles up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(125);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// The books.
#[derive(Debug, Default)]
pub struct Strangers {
    /// To be asked about.
    unasked: BTreeSet<u32>,
    /// xenstored has said that it doesn't know them.
    unknown: BTreeSet<u32>,
    /// They are in a soft reset, or are going to be.
    resetting: BTreeSet<u32>,
    /// Looks since the first of those that are unknown came.
    looks: u32,
}

impl Strangers {
    /// A domain is watched from now on.
    pub fn note(&mut self, domid: u32) {
        self.unasked.insert(domid);
    }

    /// A look has found a domain shut down to be reset. It is asked about at once too: what was fired for it may have come with
    /// what told of the shutdown.
    pub fn note_reset(&mut self, domid: u32) {
        if self.resetting.insert(domid) {
            self.unasked.insert(domid);
        }
    }

    /// Something was fired, by which one of those may have left xenstored's hands.
    pub fn fired(&mut self) {
        if !self.resetting.is_empty() {
            self.unasked.extend(&self.resetting);
        }
    }

    /// Whether there is something to ask.
    pub fn has_questions(&self) -> bool {
        !self.unasked.is_empty()
    }

    /// Takes out at most so many domains to ask about now; those that nobody watches any more are none of them.
    pub fn take_questions(&mut self, most: usize, watched: impl Fn(u32) -> bool) -> Vec<u32> {
        let mut questions = Vec::new();
        while questions.len() < most {
            let Some(domid) = self.unasked.pop_first() else { break };
            if watched(domid) {
                questions.push(domid);
            } else {
                self.resetting.remove(&domid);
            }
        }
        questions
    }

    /// xenstored has answered. True if the domain is to be looked at once more: it was unknown until now, and something may have
    /// become of it before it was introduced.
    pub fn answered(&mut self, domid: u32, introduced: bool) -> bool {
        if introduced {
            return self.unknown.remove(&domid);
        }
        if self.unknown.is_empty() {
            self.looks = 0;
        }
        self.unknown.insert(domid);
        false
    }

    /// Until the next look at those that are unknown; `None` if there are none.
    pub fn pause(&self) -> Option<Duration> {
        let pause = FIRST_PAUSE.saturating_mul(2u32.saturating_pow(self.looks));
        (!self.unknown.is_empty()).then(|| pause.min(LONGEST_PAUSE))
    }

    /// The time for that has come. Those that are to be looked at; xenstored is to be asked about them again. `watched`: somebody
    /// watches it still.
    pub fn due(&mut self, mut watched: impl FnMut(u32) -> bool) {
        self.looks = self.looks.saturating_add(1);
        self.unknown.retain(|domid| watched(*domid));
        self.resetting.retain(|domid| watched(*domid));
        self.unasked.extend(&self.unknown);
    }

    /// There is no daemon to ask. The next will be asked about all that is watched then; which of them are in a reset stays so.
    pub fn lost(&mut self) {
        let resetting = std::mem::take(&mut self.resetting);
        *self = Strangers { resetting, ..Strangers::default() };
    }

    /// Nobody watches anything.
    pub fn clear(&mut self) {
        *self = Strangers::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(strangers: &mut Strangers) -> Vec<u32> {
        strangers.take_questions(usize::MAX, |_| true)
    }

    #[test]
    fn a_domain_that_xenstored_knows_is_asked_about_once() {
        let mut strangers = Strangers::default();
        strangers.note(5);
        strangers.note(5);
        assert_eq!(ask(&mut strangers), [5]);
        assert!(!strangers.answered(5, true));
        assert_eq!((strangers.pause(), strangers.has_questions()), (None, false));
    }

    #[test]
    fn one_that_it_does_not_know_is_looked_at_until_it_does() {
        let mut strangers = Strangers::default();
        strangers.note(5);
        ask(&mut strangers);
        assert!(!strangers.answered(5, false));
        let mut pauses = Vec::new();
        for _ in 0..6 {
            pauses.extend(strangers.pause().map(|pause| pause.as_millis()));
            strangers.due(|_| true);
            assert_eq!(ask(&mut strangers), [5]);
            assert!(!strangers.answered(5, false));
        }
        assert_eq!(pauses, [125, 250, 500, 1000, 1000, 1000]);
        assert!(strangers.answered(5, true), "it may have ended before it was introduced");
        assert_eq!((strangers.pause(), strangers.has_questions()), (None, false));
        // The next begins soon again.
        strangers.answered(6, false);
        assert_eq!(strangers.pause(), Some(FIRST_PAUSE));
    }

    #[test]
    fn who_is_not_watched_any_more_is_forgotten() {
        let mut strangers = Strangers::default();
        for domid in [5, 6] {
            strangers.note(domid);
            strangers.answered(domid, false);
        }
        assert_eq!(strangers.take_questions(9, |domid| domid == 6), [6]);
        strangers.due(|domid| domid == 6);
        assert_eq!(ask(&mut strangers), [6]);
        strangers.due(|_| false);
        assert_eq!((strangers.pause(), strangers.has_questions()), (None, false));
    }

    #[test]
    fn questions_are_as_many_as_may_be_under_way() {
        let mut strangers = Strangers::default();
        (0..10).for_each(|domid| strangers.note(domid));
        assert_eq!(strangers.take_questions(4, |_| true), [0, 1, 2, 3]);
        assert_eq!(strangers.take_questions(0, |_| true), []);
        assert!(strangers.has_questions());
        assert_eq!(strangers.take_questions(9, |_| true), [4, 5, 6, 7, 8, 9]);
    }

    #[test]
    fn a_domain_that_is_found_in_a_reset_is_asked_about_at_once_and_once() {
        let mut strangers = Strangers::default();
        strangers.note_reset(5);
        assert_eq!(ask(&mut strangers), [5]);
        strangers.note_reset(5);
        assert!(!strangers.has_questions());
    }

    #[test]
    fn who_is_in_a_reset_is_so_under_the_next_daemon_too() {
        let mut strangers = Strangers::default();
        strangers.note_reset(5);
        strangers.note(6);
        strangers.answered(7, false);
        strangers.lost();
        assert_eq!((strangers.pause(), strangers.has_questions()), (None, false));
        strangers.fired();
        assert_eq!(ask(&mut strangers), [5]);
        strangers.clear();
        strangers.fired();
        assert!(!strangers.has_questions());
    }

    #[test]
    fn a_domain_that_is_being_reset_is_asked_about_whenever_something_is_fired() {
        let mut strangers = Strangers::default();
        strangers.fired();
        assert!(!strangers.has_questions());
        strangers.note_reset(5);
        for _ in 0..2 {
            strangers.fired();
            assert_eq!(ask(&mut strangers), [5]);
            strangers.answered(5, true);
        }
        strangers.due(|_| false);
        strangers.fired();
        assert!(!strangers.has_questions());
    }
}
