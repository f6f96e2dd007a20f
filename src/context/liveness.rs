// SPDX-License-Identifier: LGPL-2.1-or-later
//! The liveness property of the reactor, explored: every order of steps that threads can take.
//!
//! A step is what one thread does under the context's lock, or the end of a sleep; the steps are those of `retrieval`,
//! `turn` and `deliver`. From the start, every reachable state is visited. In a state where nobody can take a step,
//! nobody may sleep while there is something for him. With one rule of the real thing left out, that must go wrong:
//! otherwise the model would prove nothing.

use std::collections::HashSet;

/// Events come in two kinds; who waits wants one of them.
type Kind = usize;

/// Where a thread is in `Context::wait`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Waiter {
    /// Looks at the queue next.
    Looks,
    /// Sleeps in the reactor.
    Polls,
    /// Sleeps until the thread that polls has had a turn.
    Follows,
    /// Has its event.
    Done,
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
    /// Kinds of the events that are queued. The order doesn't matter here.
    queue: Vec<Kind>,
    /// Kinds of the events that a ready source will give when somebody takes it in.
    ready: Vec<Kind>,
    /// What is still to come: by sources, and queued by other threads (as an event of libxenlight's is).
    to_fire: Vec<Kind>,
    to_queue: Vec<Kind>,
    polling: bool,
    waiter_woken: bool,
    application_woken: bool,
    waiters: Vec<(Waiter, Kind)>,
    application: Loop,
    /// Whether the threads that follow have been told since they went to sleep.
    told: Vec<bool>,
}

/// The rules whose absence must be noticed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fault {
    None,
    /// Who queues an event doesn't wake the thread that polls.
    WaiterNotWoken,
    /// Nor the application's loop.
    ApplicationNotWoken,
    /// Who stops polling doesn't tell those that follow.
    SuccessorNotTold,
    /// A waiting thread takes the application's wake-up back too, as it would with one descriptor for both.
    SharedWakeUp,
}

/// The application's loop takes the events of this kind.
const APPLICATIONS: Kind = 1;

impl State {
    fn deliver(&mut self, kind: Kind, application_here: bool, fault: Fault) {
        self.queue.push(kind);
        self.queue.sort_unstable();
        if !application_here && fault != Fault::ApplicationNotWoken {
            self.application_woken = true;
        }
        if self.polling && fault != Fault::WaiterNotWoken {
            self.waiter_woken = true;
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
        if !self.ready.is_empty() {
            // Another context's turn takes it in.
            step(&|state| state.turn(false, fault));
        }
        for (index, (waiter, kind)) in self.waiters.iter().copied().enumerate() {
            match waiter {
                Waiter::Looks => step(&|state| {
                    state.waiters[index].0 = if state.take(kind) {
                        Waiter::Done
                    } else if state.polling {
                        state.told[index] = false;
                        Waiter::Follows
                    } else {
                        state.polling = true;
                        Waiter::Polls
                    };
                }),
                Waiter::Polls if !self.ready.is_empty() || self.waiter_woken => step(&|state| {
                    state.polling = false;
                    state.waiter_woken = false;
                    if fault == Fault::SharedWakeUp {
                        state.application_woken = false;
                    }
                    state.turn(false, fault);
                    if fault != Fault::SuccessorNotTold {
                        state.told.fill(true);
                    }
                    state.waiters[index].0 = Waiter::Looks;
                }),
                Waiter::Follows if self.told[index] => step(&|state| state.waiters[index].0 = Waiter::Looks),
                Waiter::Polls | Waiter::Follows | Waiter::Done => {}
            }
        }
        match self.application {
            Loop::Polls if !self.ready.is_empty() || self.application_woken => step(&|state| {
                state.application_woken = false;
                state.turn(true, fault);
                state.application = Loop::Looks;
            }),
            Loop::Polls => {}
            Loop::Looks => step(&|state| {
                if !state.take(APPLICATIONS) {
                    state.application = Loop::Polls;
                }
            }),
        }
        next
    }

    /// Nothing can happen, and somebody sleeps though there is something for him.
    fn stuck(&self) -> bool {
        let wanted = |(waiter, kind): &(Waiter, Kind)| *waiter != Waiter::Done && self.queue.contains(kind);
        !self.ready.is_empty() || self.waiters.iter().any(wanted) || self.queue.contains(&APPLICATIONS)
    }
}

/// Visits every state that can be reached; how many there are, or the first that is stuck.
fn explore(start: State, fault: Fault) -> Result<usize, Box<State>> {
    let mut seen = HashSet::from([start.clone()]);
    let mut open = vec![start];
    while let Some(state) = open.pop() {
        let next = state.steps(fault);
        if next.is_empty() && state.stuck() {
            return Err(Box::new(state));
        }
        open.extend(next.into_iter().filter(|state| seen.insert(state.clone())));
    }
    Ok(seen.len())
}

/// Threads that wait for events of the kinds `waiting`, beside the application's loop.
fn start(waiting: &[Kind], to_fire: &[Kind], to_queue: &[Kind]) -> State {
    State {
        queue: Vec::new(),
        ready: Vec::new(),
        to_fire: to_fire.to_vec(),
        to_queue: to_queue.to_vec(),
        polling: false,
        waiter_woken: false,
        application_woken: false,
        waiters: waiting.iter().map(|kind| (Waiter::Looks, *kind)).collect(),
        application: Loop::Polls,
        told: vec![false; waiting.len()],
    }
}

const OTHER: Kind = 0;

#[test]
fn nobody_sleeps_while_there_is_something_for_him() {
    let kinds = [OTHER, APPLICATIONS];
    let mut visited = 0;
    for waiting in [&[][..], &[OTHER], &[OTHER, OTHER], &[OTHER, APPLICATIONS], &[OTHER, OTHER, OTHER]] {
        for first in kinds {
            for second in kinds {
                for third in kinds {
                    visited +=
                        explore(start(waiting, &[first, second], &[third]), Fault::None).map_err(|_| "stuck").unwrap();
                    visited +=
                        explore(start(waiting, &[first], &[second, third]), Fault::None).map_err(|_| "stuck").unwrap();
                }
            }
        }
    }
    assert!(visited > 1000, "the model hardly moves: {visited} states");
}

#[test]
fn without_any_one_rule_somebody_would() {
    let stuck = |fault, waiting: &[Kind], to_fire: &[Kind], to_queue: &[Kind]| {
        assert!(explore(start(waiting, to_fire, to_queue), fault).is_err(), "{fault:?} is not noticed");
    };
    stuck(Fault::WaiterNotWoken, &[OTHER], &[], &[OTHER]);
    stuck(Fault::ApplicationNotWoken, &[], &[], &[APPLICATIONS]);
    stuck(Fault::SharedWakeUp, &[OTHER], &[], &[APPLICATIONS]);
    stuck(Fault::SuccessorNotTold, &[OTHER, OTHER], &[OTHER, OTHER], &[]);
}
