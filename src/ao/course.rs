// SPDX-License-Identifier: LGPL-2.1-or-later
//! What becomes of one device, from the request to the end: the state machine. It does nothing itself: it says what is to be
//! done next ([`Step`]), and is told what came of that ([`Input`]). One thing at a time.
//!
//! # Removal
//!
//! The order is libxl's.
//!
//! ```text
//!                  begin
//!   QEMU serves it,  │  anything else
//!   and the guest    │
//!   is no more       │                                time is up, for the first time:
//!      ┌─────────────┴─────────┐    ┌──── closes by force: the frontend is cut off first ────┐
//!      ▼                       ▼    ▼                                                        │
//!   Leaving                 Closing ──────── told ───────▶ AwaitingClosed ───────────────────┤
//!      │ 2 s                   │                             │       │  │                     │ time is up, by force
//!      ▼                       │ there is no backend         │closed │  └──── gone ────┐      │
//!   SettingClosed              └───────────────────────┐     │       └ time is up:     │      │
//!      │                                               │     │         not by force    │      │
//!      └────────────── served by this domain? ◀────────┼─────┘               │         │      │
//!                      yes │         │ no              │                     ▼         │      │
//!                          ▼         ▼                 │                   failed      │      │
//!                      Scripting   AwaitingGone        │                               │      │
//!                          │         │                 ▼                               │      │
//!                          └─────────┴──────────▶  CleaningUp ◀────────────────────────┴──────┘
//!                                                      │
//!                                                      ▼
//!                                                     done
//! ```
//!
//! A script that fails, or a backend in another domain that stays, is a failure, and the nodes are left, so that the removal
//! can be repeated; by force they are removed all the same. (libxl takes no notice of a script that fails here.) A failed
//! change of nodes has changed nothing.
//!
//! # Connection
//!
//! AwaitingReady, then Scripting. When something fails, or takes too long, the device is removed by force, and the failure is
//! the result.
//!
//! # Being called off
//!
//! In any state this is the end, and nodes are left as they are. What is under way is waited for: a change of nodes is never
//! left half done, and a script is told to end first.

use std::time::Duration;

use super::device::Backend;
use super::nodes::{Closing, TOOLSTACK_DOMID};
use super::script::{self, Action, Run};
use crate::error::{Error, Result};

/// A backend has so long to become ready.
pub const READY_LIMIT: Duration = Duration::from_secs(10);

/// And so long to close, or, in a driver domain, to remove its nodes.
pub const CLOSE_LIMIT: Duration = Duration::from_secs(10);

/// QEMU has so long to leave when its guest is no more.
pub const QEMU_LEAVES: Duration = Duration::from_secs(2);

/// What is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goal {
    /// The device gone.
    Remove(Force),
    /// A new device ready for its guest.
    Connect,
}

/// Whether a backend that doesn't close is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Force {
    /// It has its time; then the frontend is cut off, and it has the same time again.
    Late,
    /// The frontend is cut off at once.
    Now,
    /// Its time is all it has: then the removal has failed.
    Never,
}

/// A device as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Who serves it.
    pub backend: Backend,
    /// The domain that we are in.
    pub own_domid: u32,
    /// The guest is paused, shut down, dying or gone: it can't take part.
    pub guest_absent: bool,
}

/// What is awaited of a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Awaited {
    /// Its state says that it is ready.
    Ready,
    /// Its state says that it has closed.
    Closed,
    /// It has no nodes any more.
    Gone,
}

/// What is to be done next.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Wait; then [`Input::TimeUp`].
    Pause(Duration),
    /// Wait for the backend; then [`Input::Reached`], [`Input::Gone`] or [`Input::TimeUp`].
    Await(Awaited, Duration),
    /// Tell the backend to close, after cutting the frontend off or not; then [`Input::Closing`].
    Close {
        /// Cut it off.
        cut_off: bool,
    },
    /// Say that it has, in its place; then [`Input::Done`].
    SetClosed,
    /// Run a script, if there is one for this; then [`Input::Done`] or [`Input::Failed`].
    Script(Run, Action),
    /// Remove the nodes; then [`Input::Done`].
    CleanUp,
    /// Nothing: this is what has come of it.
    End(Result<()>),
}

/// What has come of a step.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// It is done.
    Done,
    /// It has failed, and has changed nothing.
    Failed(Error),
    /// What a backend was found to do when it was told to close.
    Closing(Closing),
    /// The backend is as was awaited.
    Reached,
    /// The backend is gone, where that was not what was awaited.
    Gone,
    /// The time has passed.
    TimeUp,
    /// Somebody has called it off. May come at any time.
    Aborted,
}

/// Where it stands. See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// A new backend is to become ready.
    AwaitingReady,
    /// QEMU is given time.
    Leaving,
    /// The backend is to be called closed.
    SettingClosed,
    /// The backend is to be told to close.
    Closing,
    /// It is to say that it has closed.
    AwaitingClosed,
    /// This one of its scripts is to be run.
    Scripting(usize),
    /// Its nodes are to go.
    AwaitingGone,
    /// We are to remove its nodes.
    CleaningUp,
    /// It is over.
    Ended,
}

/// See the module.
#[derive(Debug)]
pub struct Course {
    facts: Facts,
    goal: Goal,
    state: State,
    /// The nodes are to be removed whatever happens.
    forced: bool,
    /// What has gone wrong first, and didn't end it.
    failure: Option<Error>,
}

impl Course {
    /// Begins; the second value is the first thing to do.
    pub fn begin(goal: Goal, facts: Facts) -> (Self, Step) {
        let mut course = Course { facts, goal, state: State::Ended, forced: false, failure: None };
        let step = match goal {
            // QEMU needs no telling, and has no script.
            Goal::Connect if course.facts.backend.is_qemus() => course.end(Ok(())),
            Goal::Connect => course.go(State::AwaitingReady, Step::Await(Awaited::Ready, READY_LIMIT)),
            Goal::Remove(force) => course.remove(force == Force::Now),
        };
        (course, step)
    }

    /// The device as it was found.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Where it stands.
    pub fn state(&self) -> State {
        self.state
    }

    /// Takes in what has come of the last step; what to do next.
    pub fn next(&mut self, input: Input) -> Step {
        match (self.state, input) {
            (_, Input::Aborted) => self.end(Err(Error::Aborted)),

            (State::AwaitingReady, Input::Reached) => self.after_backend(),
            (State::AwaitingReady, Input::TimeUp) => self.undo(self.late("has not become ready")),
            (State::AwaitingReady, Input::Gone) => self.undo(Error::Failed("the backend was removed".to_owned())),
            (State::AwaitingReady, Input::Failed(error)) => self.undo(error),

            (State::Leaving, Input::TimeUp) => self.go(State::SettingClosed, Step::SetClosed),
            (State::SettingClosed, Input::Done) => self.after_backend(),

            (State::Closing, Input::Closing(Closing::Told)) => {
                self.go(State::AwaitingClosed, Step::Await(Awaited::Closed, CLOSE_LIMIT))
            }
            (State::Closing, Input::Closing(Closing::Gone)) => self.clean_up(),

            (State::AwaitingClosed, Input::Reached) => self.after_backend(),
            (State::AwaitingClosed, Input::Gone) => self.clean_up(),
            (State::AwaitingClosed, Input::TimeUp) if self.forced => self.fail(self.late("has not closed")),
            (State::AwaitingClosed, Input::TimeUp) if self.goal == Goal::Remove(Force::Late) => {
                self.forced = true;
                self.go(State::Closing, Step::Close { cut_off: true })
            }
            (State::AwaitingClosed, Input::TimeUp) => self.end(Err(self.late("has not closed"))),

            (State::Scripting(index), Input::Done) => self.script(index + 1),
            (State::Scripting(_), Input::Failed(error)) if self.goal == Goal::Connect => self.undo(error),
            (State::Scripting(index), Input::Failed(error)) => {
                // The others have their turn all the same.
                self.failure.get_or_insert(error);
                self.script(index + 1)
            }

            (State::AwaitingGone, Input::Reached) => self.clean_up(),
            (State::AwaitingGone, Input::TimeUp) => self.fail(self.late("has not been removed by its domain")),

            (State::CleaningUp, Input::Done) => {
                let failure = self.failure.take();
                self.end(failure.map_or(Ok(()), Err))
            }

            (_, Input::Failed(error)) => {
                let first = self.failure.take().unwrap_or(error);
                self.end(Err(first))
            }
            (state, input) => self.end(Err(Error::Failed(format!("{input:?} is no answer in the state {state:?}")))),
        }
    }

    /// Takes the way of a removal from its beginning.
    fn remove(&mut self, forced: bool) -> Step {
        self.forced = forced;
        let Facts { backend, own_domid, guest_absent } = &self.facts;
        if backend.is_qemus() && *guest_absent && *own_domid == TOOLSTACK_DOMID {
            return self.go(State::Leaving, Step::Pause(QEMU_LEAVES));
        }
        self.go(State::Closing, Step::Close { cut_off: forced })
    }

    /// The device that was to be connected is removed.
    fn undo(&mut self, error: Error) -> Step {
        self.failure.get_or_insert(error);
        self.goal = Goal::Remove(Force::Now);
        self.remove(true)
    }

    /// The backend has done its part: scripts, where it is ours.
    fn after_backend(&mut self) -> Step {
        match (self.facts.backend.domid == self.facts.own_domid, self.goal) {
            (true, _) => self.script(0),
            // Its own domain runs them.
            (false, Goal::Connect) => self.end(Ok(())),
            (false, Goal::Remove(_)) => self.go(State::AwaitingGone, Step::Await(Awaited::Gone, CLOSE_LIMIT)),
        }
    }

    fn script(&mut self, index: usize) -> Step {
        let action = match self.goal {
            Goal::Connect => Action::Add,
            Goal::Remove(_) => Action::Remove,
        };
        match (script::runs(&self.facts.backend).get(index), self.goal) {
            (Some(run), _) => self.go(State::Scripting(index), Step::Script(*run, action)),
            (None, Goal::Connect) => self.end(Ok(())),
            (None, Goal::Remove(_)) => match self.failure.take() {
                Some(error) => self.fail(error),
                None => self.clean_up(),
            },
        }
    }

    /// The end, with the nodes left as they are; or, by force, without them.
    fn fail(&mut self, error: Error) -> Step {
        let first = self.failure.take().unwrap_or(error);
        if !self.forced {
            return self.end(Err(first));
        }
        self.failure = Some(first);
        self.clean_up()
    }

    fn clean_up(&mut self) -> Step {
        self.go(State::CleaningUp, Step::CleanUp)
    }

    fn end(&mut self, result: Result<()>) -> Step {
        self.go(State::Ended, Step::End(result))
    }

    fn go(&mut self, state: State, step: Step) -> Step {
        self.state = state;
        step
    }

    fn late(&self, what: &str) -> Error {
        let limit = if self.state == State::AwaitingReady { READY_LIMIT } else { CLOSE_LIMIT };
        Error::TimedOut(format!("the backend {what} within {} s", limit.as_secs()))
    }
}
