// SPDX-License-Identifier: LGPL-2.1-or-later
//! The liveness property of the reactor, explored: every order of steps that threads can take.
//!
//! A step is what one thread does under the context's lock, or the end of a sleep; the steps are those of `retrieval`,
//! `turn` and `deliver`. From the start, every reachable state is visited. In a state where nobody can take a step,
//! nobody may sleep while there is something for him. With one rule of the real thing left out, that must go wrong:
//! otherwise the model would prove nothing.

use std::collections::HashSet;

/// Events come in kinds; who waits wants one of them. Each kind comes to one inbox.
type Kind = usize;

/// In the context's own inbox, for threads that wait.
const OTHER: Kind = 0;
/// There too; the application's loop takes them.
const APPLICATIONS: Kind = 1;
/// In a subscriber's inbox.
const SUBSCRIBED: Kind = 2;

const OWN: usize = 0;
const SUBSCRIBER: usize = 1;

fn inbox_of(kind: Kind) -> usize {
    if kind == SUBSCRIBED { SUBSCRIBER } else { OWN }
}

/// Where a thread is in `Context::wait_in`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Place {
    /// Looks at its inbox next.
    Looks,
    /// The same for the last time: its time has passed.
    LooksLast,
    /// Sleeps in the reactor.
    Polls,
    /// Sleeps until the thread that polls has had a turn.
    Follows,
    /// Has its event.
    Done,
    /// Was called off.
    Aborted,
    /// Has come back without an event, its time being over or its subscriber gone.
    Returned,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Waiter {
    place: Place,
    wants: Kind,
    /// Its time may pass at any moment.
    timed: bool,
    /// Whether it was told of the end of another's sleep since it began to follow.
    told: bool,
}

impl Waiter {
    fn sleeps(&self) -> bool {
        matches!(self.place, Place::Polls | Place::Follows)
    }
}

/// Where the application's own loop is.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Loop {
    /// Sleeps in poll(2) on our descriptor.
    Polls,
    /// Looks at the queue next.
    Looks,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct State {
    /// Kinds of the events that are queued, in either inbox. The order doesn't matter here.
    queue: Vec<Kind>,
    /// Kinds of the events that a ready source will give when somebody takes it in.
    ready: Vec<Kind>,
    /// What is still to come: by sources, and queued by other threads (as an event of libxenlight's is).
    to_fire: Vec<Kind>,
    to_queue: Vec<Kind>,
    /// Inboxes that a wait for is still to be called off, and how many of those calls have ended none yet.
    to_cancel: Vec<usize>,
    cancels: [usize; 2],
    /// The subscriber is still to be freed; it has been.
    to_free: bool,
    freed: bool,
    polling: bool,
    waiter_woken: bool,
    application_woken: bool,
    waiters: Vec<Waiter>,
    application: Loop,
    /// Events that the loop has taken, and those that went with the subscriber.
    taken: usize,
    dropped: usize,
}

/// The rules whose absence must be noticed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fault {
    None,
    /// Who queues an event doesn't wake the thread that polls.
    WaiterNotWoken,
    /// Not for a subscriber's event, that is.
    WaiterNotWokenForOthers,
    /// Nor the application's loop.
    ApplicationNotWoken,
    /// Who stops polling doesn't tell those that follow.
    SuccessorNotTold,
    /// Not if his time has passed, that is.
    SuccessorNotToldOfTimeout,
    /// A waiting thread takes the application's wake-up back too, as it would with one descriptor for both.
    SharedWakeUp,
    /// Who calls a wait off doesn't wake the thread that polls.
    CancelNotTold,
    /// A wait that is called off leaves the call for others.
    CancelNotUsedUp,
    /// Who frees the subscriber doesn't wake the thread that polls.
    FreeingNotTold,
    /// A thread whose time has passed has no last look.
    NoLastLook,
}

impl State {
    fn wake_waiter(&mut self) {
        self.waiter_woken |= self.polling;
    }

    fn deliver(&mut self, kind: Kind, application_here: bool, fault: Fault) {
        if kind == SUBSCRIBED && self.freed {
            // There is no generator any more that it could come from.
            self.dropped += 1;
            return;
        }
        self.queue.push(kind);
        self.queue.sort_unstable();
        if !application_here && fault != Fault::ApplicationNotWoken {
            self.application_woken = true;
        }
        if fault != Fault::WaiterNotWoken && (fault != Fault::WaiterNotWokenForOthers || kind != SUBSCRIBED) {
            self.wake_waiter();
        }
    }

    fn turn(&mut self, application_here: bool, fault: Fault) {
        for kind in std::mem::take(&mut self.ready) {
            self.deliver(kind, application_here, fault);
        }
    }

    fn take(&mut self, kind: Kind) -> bool {
        let found = self.queue.iter().position(|queued| *queued == kind);
        found.map(|index| self.queue.remove(index)).is_some()
    }

    /// What a thread does that looks at its inbox.
    fn look(&mut self, index: usize, fault: Fault) {
        let Waiter { wants, place, .. } = self.waiters[index];
        let last = place == Place::LooksLast;
        let inbox = inbox_of(wants);
        self.waiters[index].place = if !(last && fault == Fault::NoLastLook) && self.take(wants) {
            Place::Done
        } else if inbox == SUBSCRIBER && self.freed {
            Place::Returned
        } else if self.cancels[inbox] > 0 {
            self.cancels[inbox] -= usize::from(fault != Fault::CancelNotUsedUp);
            Place::Aborted
        } else if last {
            Place::Returned
        } else if self.polling {
            self.waiters[index].told = false;
            Place::Follows
        } else {
            self.polling = true;
            Place::Polls
        };
    }

    /// The thread in the reactor wakes.
    fn stop_polling(&mut self, index: usize, in_time: bool, fault: Fault) {
        self.polling = false;
        self.waiter_woken = false;
        if fault == Fault::SharedWakeUp {
            self.application_woken = false;
        }
        if fault != Fault::SuccessorNotTold && (fault != Fault::SuccessorNotToldOfTimeout || in_time) {
            self.waiters.iter_mut().for_each(|waiter| waiter.told = true);
        }
        self.turn(false, fault);
        self.waiters[index].place = if in_time { Place::Looks } else { Place::LooksLast };
    }

    /// What can happen next.
    fn steps(&self, fault: Fault) -> Vec<State> {
        let mut next = Vec::new();
        let mut step = |change: &dyn Fn(&mut State)| {
            let mut state = self.clone();
            change(&mut state);
            next.push(state);
        };
        if !self.to_fire.is_empty() {
            step(&|state| {
                let kind = state.to_fire.remove(0);
                state.ready.push(kind);
            });
        }
        if !self.to_queue.is_empty() {
            step(&|state| {
                let kind = state.to_queue.remove(0);
                state.deliver(kind, false, fault);
            });
        }
        if !self.to_cancel.is_empty() {
            step(&|state| {
                let inbox = state.to_cancel.remove(0);
                state.cancels[inbox] += 1;
                if fault != Fault::CancelNotTold {
                    state.wake_waiter();
                }
            });
        }
        if self.to_free {
            step(&|state| {
                (state.to_free, state.freed) = (false, true);
                if fault != Fault::FreeingNotTold {
                    state.wake_waiter();
                }
                while state.take(SUBSCRIBED) {
                    state.dropped += 1;
                }
            });
        }
        if !self.ready.is_empty() {
            // Another context's turn takes it in.
            step(&|state| state.turn(false, fault));
        }
        for (index, waiter) in self.waiters.iter().enumerate() {
            let woken = !self.ready.is_empty() || self.waiter_woken;
            match waiter.place {
                Place::Looks | Place::LooksLast => step(&|state| state.look(index, fault)),
                Place::Polls if woken => step(&|state| state.stop_polling(index, true, fault)),
                Place::Follows if waiter.told => step(&|state| state.waiters[index].place = Place::Looks),
                _ => {}
            }
            match waiter.place {
                Place::Polls if waiter.timed => step(&|state| state.stop_polling(index, false, fault)),
                Place::Follows if waiter.timed => step(&|state| {
                    state.turn(false, fault);
                    state.waiters[index].place = Place::LooksLast;
                }),
                _ => {}
            }
        }
        match self.application {
            Loop::Polls if !self.ready.is_empty() || self.application_woken => step(&|state| {
                state.application_woken = false;
                state.turn(true, fault);
                state.application = Loop::Looks;
            }),
            Loop::Polls => {}
            Loop::Looks => step(&|state| match state.take(APPLICATIONS) {
                true => state.taken += 1,
                false => state.application = Loop::Polls,
            }),
        }
        next
    }

    /// Nothing can happen, and somebody sleeps though there is something for him.
    fn stuck(&self) -> bool {
        let concerned = |waiter: &Waiter| {
            let inbox = inbox_of(waiter.wants);
            let ended = self.cancels[inbox] > 0 || inbox == SUBSCRIBER && self.freed;
            waiter.sleeps() && (ended || self.queue.contains(&waiter.wants))
        };
        !self.ready.is_empty() || self.waiters.iter().any(concerned) || self.queue.contains(&APPLICATIONS)
    }

    fn count(&self, place: Place) -> usize {
        self.waiters.iter().filter(|waiter| waiter.place == place).count()
    }

    /// All events and all calls for an end of a wait: those to come, those that are there, those that have been used up.
    fn sums(&self) -> (usize, usize) {
        let to_come = self.to_fire.len() + self.to_queue.len() + self.ready.len();
        let events = to_come + self.queue.len() + self.count(Place::Done) + self.taken + self.dropped;
        (events, self.to_cancel.len() + self.cancels.iter().sum::<usize>() + self.count(Place::Aborted))
    }

    /// A thread has come back without an event that is there.
    fn left_behind(&self) -> bool {
        self.waiters.iter().any(|waiter| waiter.place == Place::Returned && self.queue.contains(&waiter.wants))
    }
}

/// Visits every state that can be reached; how many there are, or the first in which something is wrong.
fn explore(start: State, fault: Fault) -> Result<usize, Box<State>> {
    let sums = start.sums();
    // Nothing comes later, so that what was there was there in time.
    let all_there = start.to_fire.is_empty() && start.to_queue.is_empty();
    let mut seen = HashSet::from([start.clone()]);
    let mut open = vec![start];
    while let Some(state) = open.pop() {
        let next = state.steps(fault);
        if next.is_empty() && state.stuck() || state.sums() != sums || all_there && state.left_behind() {
            return Err(Box::new(state));
        }
        open.extend(next.into_iter().filter(|state| seen.insert(state.clone())));
    }
    Ok(seen.len())
}

/// Threads that wait for events of the kinds `waiting`, beside the application's loop.
fn start(waiting: &[Kind], to_fire: &[Kind], to_queue: &[Kind]) -> State {
    let waiter = |wants: &Kind| Waiter { place: Place::Looks, wants: *wants, timed: false, told: false };
    State {
        queue: Vec::new(),
        ready: Vec::new(),
        to_fire: to_fire.to_vec(),
        to_queue: to_queue.to_vec(),
        to_cancel: Vec::new(),
        cancels: [0; 2],
        to_free: false,
        freed: false,
        polling: false,
        waiter_woken: false,
        application_woken: false,
        waiters: waiting.iter().map(waiter).collect(),
        application: Loop::Polls,
        taken: 0,
        dropped: 0,
    }
}

impl State {
    /// The first so many of the threads wait for a time.
    fn timed(mut self, how_many: usize) -> State {
        self.waiters.iter_mut().take(how_many).for_each(|waiter| waiter.timed = true);
        self
    }

    fn cancelling(mut self, inboxes: &[usize]) -> State {
        self.to_cancel = inboxes.to_vec();
        self
    }

    fn freeing(mut self) -> State {
        self.to_free = true;
        self
    }

    /// These have become ready before anybody looks.
    fn with_ready(mut self, kinds: &[Kind]) -> State {
        self.ready = kinds.to_vec();
        self
    }
}

fn visit(start: State) -> usize {
    explore(start, Fault::None).map_err(|_| "somebody is forgotten").unwrap()
}

const KINDS: [Kind; 3] = [OTHER, APPLICATIONS, SUBSCRIBED];

#[test]
fn nobody_sleeps_while_there_is_something_for_him() {
    let mut visited = 0;
    for waiting in [&[][..], &[OTHER], &[OTHER, OTHER], &[OTHER, APPLICATIONS], &[OTHER, SUBSCRIBED]] {
        for first in KINDS {
            for second in KINDS {
                for third in KINDS {
                    visited += visit(start(waiting, &[first, second], &[third]));
                    visited += visit(start(waiting, &[first], &[second, third]));
                }
            }
        }
    }
    // More threads, and only the events that differ for them.
    for waiting in [[OTHER, OTHER, OTHER], [OTHER, OTHER, SUBSCRIBED]] {
        for third in KINDS {
            visited += visit(start(&waiting, &[OTHER, SUBSCRIBED], &[third]));
            visited += visit(start(&waiting, &[third], &[OTHER, SUBSCRIBED]));
        }
    }
    assert!(visited > 1000, "the model hardly moves: {visited} states");
}

#[test]
fn nor_while_others_come_back_because_their_time_has_passed() {
    let mut visited = 0;
    for waiting in [&[OTHER][..], &[OTHER, SUBSCRIBED], &[SUBSCRIBED, OTHER], &[OTHER, OTHER, SUBSCRIBED]] {
        for how_many in 1..=waiting.len() {
            for first in KINDS {
                for second in KINDS {
                    visited += visit(start(waiting, &[first], &[second]).timed(how_many));
                }
                visited += visit(start(waiting, &[], &[]).timed(how_many).with_ready(&[first]));
            }
        }
    }
    assert!(visited > 1000, "the model hardly moves: {visited} states");
}

#[test]
fn a_call_for_the_end_of_a_wait_ends_one_and_loses_no_event() {
    let mut visited = 0;
    for waiting in [&[OTHER][..], &[OTHER, OTHER], &[OTHER, SUBSCRIBED], &[SUBSCRIBED, SUBSCRIBED, OTHER]] {
        for cancelled in [&[OWN][..], &[SUBSCRIBER], &[OWN, OWN], &[SUBSCRIBER, OWN], &[SUBSCRIBER, SUBSCRIBER]] {
            for kind in KINDS {
                for how_many in 0..=1 {
                    visited += visit(start(waiting, &[kind], &[]).cancelling(cancelled).timed(how_many));
                    visited += visit(start(waiting, &[], &[kind]).cancelling(cancelled).timed(how_many));
                }
            }
        }
    }
    assert!(visited > 1000, "the model hardly moves: {visited} states");
}

#[test]
fn a_subscriber_that_goes_takes_its_threads_along_and_nobody_else() {
    let mut visited = 0;
    for waiting in [&[SUBSCRIBED][..], &[OTHER, SUBSCRIBED], &[SUBSCRIBED, SUBSCRIBED, OTHER]] {
        for first in KINDS {
            for second in KINDS {
                visited += visit(start(waiting, &[first], &[second]).freeing());
                visited += visit(start(waiting, &[first], &[]).cancelling(&[SUBSCRIBER, OWN]).freeing());
            }
        }
    }
    assert!(visited > 1000, "the model hardly moves: {visited} states");
}

#[test]
fn without_any_one_rule_somebody_would() {
    let wrong = |fault, start: State| {
        assert!(explore(start.clone(), Fault::None).is_ok());
        assert!(explore(start, fault).is_err(), "{fault:?} is not noticed");
    };
    wrong(Fault::WaiterNotWoken, start(&[OTHER], &[], &[OTHER]));
    wrong(Fault::WaiterNotWokenForOthers, start(&[SUBSCRIBED], &[], &[SUBSCRIBED]));
    wrong(Fault::ApplicationNotWoken, start(&[], &[], &[APPLICATIONS]));
    wrong(Fault::SharedWakeUp, start(&[OTHER], &[], &[APPLICATIONS]));
    wrong(Fault::SuccessorNotTold, start(&[OTHER, OTHER], &[OTHER, OTHER], &[]));
    wrong(Fault::SuccessorNotToldOfTimeout, start(&[OTHER, OTHER], &[], &[OTHER]).timed(1));
    wrong(Fault::CancelNotTold, start(&[OTHER], &[], &[]).cancelling(&[OWN]));
    wrong(Fault::CancelNotUsedUp, start(&[OTHER, OTHER], &[], &[]).cancelling(&[OWN]));
    wrong(Fault::FreeingNotTold, start(&[OTHER, SUBSCRIBED], &[], &[]).freeing());
    wrong(Fault::NoLastLook, start(&[OTHER], &[], &[]).timed(1).with_ready(&[OTHER]));
}
