// SPDX-License-Identifier: LGPL-2.1-or-later
//! Giving events out that have happened.

use std::cell::{Cell, RefCell};
use std::mem::ManuallyDrop;
use std::sync::atomic::Ordering;

use super::subscribers::{Own, Which, unknown};
use super::{Context, SubscriberKey};
use crate::error::{Error, Result};
use crate::event::Event;
use crate::guard::Steps;
use crate::reactor::stolen;

/// Says whether an event is wanted. May call the context again, but can't take the event that it is looking at.
pub type Predicate<'a> = dyn FnMut(&Event) -> bool + 'a;

impl Context {
    /// The oldest event that has happened, whose type is in `mask` and that the predicate wants. Makes no system call,
    /// unless the application has had libxenlight do something since the last turn. That may have been the destruction
    /// of a domain, whose death is then expected here, so the domains are looked at: xenstored's word may be still on its
    /// way to us.
    pub fn check(&self, mask: u64, predicate: Option<&mut Predicate<'_>>) -> Result<Event> {
        self.catch_up();
        self.retrieve(Own, mask, predicate, &mut 0).ok_or_else(|| self.no_event())
    }

    /// What [`Context::check`] finds that has no predicate to ask; `None` where it has to look outside first. So this makes no
    /// system call whatever.
    pub fn check_known(&self, mask: u64) -> Option<Result<Event>> {
        let caught_up = !self.stirred.load(Ordering::Relaxed);
        caught_up.then(|| self.retrieve_any(Own, mask, &mut 0).ok_or_else(|| self.no_event()))
    }

    /// As [`Context::check`], among a subscriber's events.
    pub fn subscriber_check(
        &self,
        subscriber: SubscriberKey,
        mask: u64,
        predicate: Option<&mut Predicate<'_>>,
    ) -> Result<Event> {
        self.catch_up();
        if subscriber.inbox(&self.state.lock()).is_none() {
            return Err(unknown(subscriber));
        }
        self.retrieve(subscriber, mask, predicate, &mut 0).ok_or_else(|| self.no_event())
    }

    /// Why there is none.
    fn no_event(&self) -> Error {
        if self.is_stolen() { stolen() } else { Error::NotReady }
    }

    /// Takes in what is ready, as [`Context::occurred`], and then hands over the events that are there of the types in `mask`,
    /// oldest first, until there are no more; how many they were. What is handed over may call the context again.
    pub fn dispatch(&self, mask: u64, handle: &mut dyn FnMut(Event)) -> usize {
        self.catch_up();
        self.occurred();
        let mut steps = Steps::default();
        let handled = steps.take(|| std::iter::from_fn(|| self.retrieve(Own, mask, None, &mut 0)).map(handle).count());
        if handled.is_none() {
            // The rest waits for another call.
            self.take_up(&mut self.state.lock());
        }
        steps.end();
        handled.unwrap_or(0)
    }

    /// Looks at the domains, if the application has had libxenlight do something.
    fn catch_up(&self) {
        if self.stirred.load(Ordering::Relaxed) {
            let mut state = self.state.lock();
            self.turn(&mut state);
            self.in_turn(&mut state, |state| self.scan(state, true));
            self.flush(state);
        }
    }

    /// Takes out the first match from serial `seen` on, and moves `seen` past what was looked at.
    pub(super) fn retrieve(
        &self,
        which: impl Which,
        mask: u64,
        predicate: Option<&mut Predicate<'_>>,
        seen: &mut u64,
    ) -> Option<Event> {
        match predicate {
            None => self.retrieve_any(which, mask, seen),
            Some(predicate) => self.retrieve_wanted(which, mask, predicate, seen),
        }
    }

    fn retrieve_any(&self, which: impl Which, mask: u64, seen: &mut u64) -> Option<Event> {
        let retrieval = self.retrieval.lock();
        let mut state = self.state.lock();
        let queue = &mut which.inbox_mut(&mut state)?.queue;
        if !retrieval.examines_any() {
            let first = queue.take_first(mask, *seen);
            *seen = queue.end();
            retrieval.count_taken();
            return first;
        }
        while let Some((serial, _)) = queue.first(mask, *seen) {
            *seen = serial + 1;
            if !retrieval.examines(which.mark(), serial) {
                retrieval.count_taken();
                return queue.take(serial);
            }
        }
        *seen = queue.end();
        None
    }

    fn retrieve_wanted(
        &self,
        which: impl Which,
        mask: u64,
        predicate: &mut Predicate<'_>,
        seen: &mut u64,
    ) -> Option<Event> {
        let retrieval = self.retrieval.lock();
        let mut batch: Vec<(u64, ManuallyDrop<Event>)> = Vec::with_capacity(BATCH);
        let examining = Examining::begin(&retrieval, which.mark());
        loop {
            let state = self.state.lock();
            let queue = &which.inbox(&state)?.queue;
            queue.each_match(mask, *seen, BATCH, |run| {
                // SAFETY: looked at below, and only while it is in the queue: other threads are kept out by `retrieval`, as
                // is who drops a subscriber's queue; a predicate that takes events itself ends the batch.
                batch.extend(run.iter().map(|(serial, event)| (*serial, unsafe { event.alias() })));
            });
            let Some(mut last) = batch.last().map(|(serial, _)| *serial) else {
                *seen = queue.end();
                return None;
            };
            drop(state);
            let taken = retrieval.taken.get();
            for (serial, event) in &batch {
                if examining.inner && retrieval.examines(which.mark(), *serial) {
                    continue;
                }
                examining.look_at(*serial);
                if predicate(event) {
                    *seen = serial + 1;
                    retrieval.count_taken();
                    return which.inbox_mut(&mut self.state.lock())?.queue.take(*serial);
                }
                if retrieval.taken.get() != taken {
                    last = *serial;
                    break;
                }
            }
            *seen = last + 1;
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
    /// In which inbox it is.
    mark: Cell<u64>,
    /// Those of the predicates around it, each after its inbox. Nobody can take what a predicate looks at.
    outer: RefCell<Vec<(u64, u64)>>,
    /// How many events have been taken.
    taken: Cell<u64>,
}

impl Retrieval {
    /// Whether this is within a predicate.
    fn examines_any(&self) -> bool {
        self.examined.get().is_some()
    }

    fn examines(&self, mark: u64, serial: u64) -> bool {
        self.examined.get() == Some(serial) && self.mark.get() == mark || self.outer.borrow().contains(&(mark, serial))
    }

    fn count_taken(&self) {
        self.taken.set(self.taken.get() + 1);
    }
}

/// A retrieval by predicate, from its first look to its end, also if that is a panic.
struct Examining<'a> {
    retrieval: &'a Retrieval,
    /// The inbox of the retrieval around this one.
    outer_mark: u64,
    /// It runs within another's predicate.
    inner: bool,
}

impl<'a> Examining<'a> {
    fn begin(retrieval: &'a Retrieval, mark: u64) -> Self {
        let (outer, outer_mark) = (retrieval.examined.take(), retrieval.mark.replace(mark));
        retrieval.outer.borrow_mut().extend(outer.map(|serial| (outer_mark, serial)));
        Examining { retrieval, outer_mark, inner: outer.is_some() }
    }

    fn look_at(&self, serial: u64) {
        self.retrieval.examined.set(Some(serial));
    }
}

impl Drop for Examining<'_> {
    fn drop(&mut self) {
        let outer = if self.inner { self.retrieval.outer.borrow_mut().pop() } else { None };
        self.retrieval.examined.set(outer.map(|(_, serial)| serial));
        self.retrieval.mark.set(self.outer_mark);
    }
}
