// SPDX-License-Identifier: LGPL-2.1-or-later
//! Giving events out: at once, or after waiting for one.

use std::cell::{Cell, RefCell};
use std::mem::ManuallyDrop;
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
            self.reactor.prepare_wait()?;
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
    fn retrieve(&self, mask: u64, predicate: Option<&mut Predicate<'_>>, seen: &mut u64) -> Option<Event> {
        match predicate {
            None => self.retrieve_any(mask, seen),
            Some(predicate) => self.retrieve_wanted(mask, predicate, seen),
        }
    }

    fn retrieve_any(&self, mask: u64, seen: &mut u64) -> Option<Event> {
        let retrieval = self.retrieval.lock();
        let mut state = self.state.lock();
        if !retrieval.examines_any() {
            let first = state.queue.take_first(mask, *seen);
            *seen = state.queue.end();
            retrieval.count_taken();
            return first;
        }
        while let Some((serial, _)) = state.queue.first(mask, *seen) {
            *seen = serial + 1;
            if !retrieval.examines(serial) {
                retrieval.count_taken();
                return state.queue.take(serial);
            }
        }
        *seen = state.queue.end();
        None
    }

    fn retrieve_wanted(&self, mask: u64, predicate: &mut Predicate<'_>, seen: &mut u64) -> Option<Event> {
        let retrieval = self.retrieval.lock();
        let mut batch: Vec<(u64, ManuallyDrop<Event>)> = Vec::with_capacity(BATCH);
        let examining = Examining::begin(&retrieval);
        loop {
            let state = self.state.lock();
            state.queue.each_match(mask, *seen, BATCH, |run| {
                // SAFETY: looked at below, and only while it is in the queue: other threads are kept out by `retrieval`, and
                // a predicate that takes events itself ends the batch.
                batch.extend(run.iter().map(|(serial, event)| (*serial, unsafe { event.alias() })));
            });
            if batch.is_empty() {
                *seen = state.queue.end();
                return None;
            }
            drop(state);
            let taken = retrieval.taken.get();
            for (serial, event) in &batch {
                *seen = serial + 1;
                if examining.inner && retrieval.examines(*serial) {
                    continue;
                }
                examining.look_at(*serial);
                if predicate(event) {
                    retrieval.count_taken();
                    return self.state.lock().queue.take(*serial);
                }
                if retrieval.taken.get() != taken {
                    break;
                }
            }
            batch.clear();
        }
    }
}

/// How many events a predicate is shown without a look at the queue in between.
const BATCH: usize = 64;

/// What one thread at a time knows of the events that it is deciding on. Within a predicate there may be another, and so
/// this thread again.
#[derive(Debug, Default)]
pub(super) struct Retrieval {
    /// The event that the innermost predicate looks at.
    examined: Cell<Option<u64>>,
    /// Those of the predicates around it. Nobody can take what a predicate looks at.
    outer: RefCell<Vec<u64>>,
    /// How many events have been taken.
    taken: Cell<u64>,
}

impl Retrieval {
    /// Whether this is within a predicate.
    fn examines_any(&self) -> bool {
        self.examined.get().is_some()
    }

    fn examines(&self, serial: u64) -> bool {
        self.examined.get() == Some(serial) || self.outer.borrow().contains(&serial)
    }

    fn count_taken(&self) {
        self.taken.set(self.taken.get() + 1);
    }
}

/// A retrieval by predicate, from its first look to its end, also if that is a panic.
struct Examining<'a> {
    retrieval: &'a Retrieval,
    /// It runs within another's predicate.
    inner: bool,
}

impl<'a> Examining<'a> {
    fn begin(retrieval: &'a Retrieval) -> Self {
        let outer = retrieval.examined.take();
        retrieval.outer.borrow_mut().extend(outer);
        Examining { retrieval, inner: outer.is_some() }
    }

    fn look_at(&self, serial: u64) {
        self.retrieval.examined.set(Some(serial));
    }
}

impl Drop for Examining<'_> {
    fn drop(&mut self) {
        let outer = if self.inner { self.retrieval.outer.borrow_mut().pop() } else { None };
        self.retrieval.examined.set(outer);
    }
}
