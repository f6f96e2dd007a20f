// SPDX-License-Identifier: LGPL-2.1-or-later
//! Giving events out: at once, or after waiting for one.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::Ordering;

use parking_lot::MutexGuard;

use super::Context;
use crate::error::{Error, Result};
use crate::event::Event;

/// Says whether an event is wanted. May call the context again, but can't take the event that it is looking at.
pub type Predicate<'a> = dyn FnMut(&Event) -> bool + 'a;

impl Context {
    /// The oldest event that has happened, whose type is in `mask` and that the predicate wants. Makes no system call,
    /// unless the application has had libxenlight do something since the last turn. That may have been the destruction
    /// of a domain, whose death is then expected here, so the domains are looked at: xenstored's word may be still on its
    /// way to us.
    pub fn check(&self, mask: u64, predicate: Option<&mut Predicate<'_>>) -> Result<Event> {
        if self.stirred.load(Ordering::Relaxed) {
            let mut state = self.state.lock();
            self.turn(&mut state);
            self.scan(&mut state, true);
            self.flush(state);
        }
        self.retrieve(mask, predicate, &mut 0).ok_or(Error::NotReady)
    }

    /// The same, but waits for one. Signals don't end the wait; closing the context does.
    pub fn wait(&self, mask: u64, mut predicate: Option<&mut Predicate<'_>>) -> Result<Event> {
        // Events before this serial were looked at and not wanted.
        let mut seen = 0;
        loop {
            let predicate = predicate.as_mut().map(|predicate| &mut **predicate as &mut Predicate<'_>);
            if let Some(event) = self.retrieve(mask, predicate, &mut seen) {
                return Ok(event);
            }
            let mut state = self.state.lock();
            if state.closed {
                return Err(Error::Invalid("the context was freed during the wait".to_owned()));
            }
            if state.queue.end() > seen {
                continue;
            }
            if state.polling {
                self.arrived.wait(&mut state);
                continue;
            }
            state.polling = true;
            MutexGuard::unlocked(&mut state, || self.reactor.wait());
            state.polling = false;
            if state.waiter_woken {
                state.waiter_woken = false;
                self.reactor.quiet_waiter();
            }
            self.turn(&mut state);
            // This thread may return, or be kept by a callback: another must be able to take its place.
            self.arrived.notify_all();
            self.flush(state);
        }
    }

    /// Takes out the first match from serial `seen` on, and moves `seen` past what was looked at.
    fn retrieve(&self, mask: u64, mut predicate: Option<&mut Predicate<'_>>, seen: &mut u64) -> Option<Event> {
        let _retrieval = self.retrieval.lock();
        let mut state = self.state.lock();
        loop {
            let Some((serial, event)) = state.queue.find(mask, *seen) else {
                *seen = state.queue.end();
                return None;
            };
            *seen = serial + 1;
            let wanted = match &mut predicate {
                None => true,
                Some(predicate) => {
                    // SAFETY: the event stays in the queue until `release`: it is marked as examined, so that
                    // `find` passes it over for this thread, and others are kept out by `retrieval`.
                    let event = unsafe { event.alias() };
                    state.queue.examine(serial);
                    let look = || catch_unwind(AssertUnwindSafe(|| predicate(&event)));
                    let wanted = MutexGuard::unlocked(&mut state, look);
                    state.queue.release();
                    wanted.unwrap_or_else(|panic| resume_unwind(panic))
                }
            };
            if wanted {
                return state.queue.take(serial);
            }
        }
    }
}
