// SPDX-License-Identifier: LGPL-2.1-or-later
//! Tasks: one device's way through its operation. The machine (`ao::course`) says what is to be done, and is told here what
//! came of it.
//!
//! - One thread at a time is at a task ([`Task::busy`]), and does one thing at a time: what waits for xenstored, or starts a
//!   script, without the lock.
//! - What happens meanwhile (its watch fires, its time has passed, its script has ended, it is called off) is a sign, set
//!   under the lock; whoever is at the task looks at the signs again before he leaves it. So nothing is lost, whichever
//!   comes first, and a sign too many does no harm.
//! - A watch is set on the connection of the moment, and again on the next one after xenstored was away. A new watch fires
//!   once at once, and what it is for is looked at, not counted.

use std::ffi::{CStr, CString};

use libc::pid_t;
use nix::errno::Errno;

use super::arming::Watch;
use super::outbox::Item;
use super::turn::Later;
use super::{Context, State};
use crate::ao::course::{Awaited, Course, Facts, Goal, Input, Step};
use crate::ao::device::{Backend, BackendState, Device};
use crate::ao::nodes;
use crate::ao::script::{self, Action, Run};
use crate::childproc::{Command, Outcome};
use crate::error::{Error, Result};
use crate::guard::Steps;
use crate::reactor::{TimerId, now};
use crate::sync::MutexGuard;
use crate::xen::log::{Kind, Level, Line};
use crate::xen::store::{Connection, Store};

/// Names a task. Never used twice in a context.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct TaskId(pub(super) u64);

/// A device in an operation.
pub(super) struct Task {
    operation: u64,
    /// Its place in the operation.
    index: usize,
    course: Course,
    doing: Doing,
    signs: Signs,
    /// A thread is at it.
    busy: bool,
}

/// What a task is doing.
enum Doing {
    /// This is to be begun.
    Next(Step),
    /// Time is to pass.
    Pause(TimerId),
    /// The backend is to do something.
    Await {
        awaited: Awaited,
        timer: TimerId,
        /// The connection on which there is a watch ([`Connection::serial`]).
        watched: Option<u64>,
    },
    /// A script runs, if it has been started yet.
    Script {
        pid: Option<pid_t>,
        /// It has been told to end.
        told: bool,
    },
}

/// What has happened since the last look.
#[derive(Default)]
struct Signs {
    fired: bool,
    time_up: bool,
    ended: Option<Outcome>,
    aborted: bool,
}

impl Task {
    pub(super) fn new(operation: u64, index: usize, goal: Goal, facts: Facts) -> Self {
        let (course, step) = Course::begin(goal, facts);
        Task { operation, index, course, doing: Doing::Next(step), signs: Signs::default(), busy: false }
    }

    pub(super) fn operation(&self) -> u64 {
        self.operation
    }

    pub(super) fn index(&self) -> usize {
        self.index
    }

    pub(super) fn device(&self) -> Device {
        self.course.facts().backend.device
    }

    /// It is to end as soon as it can. Returns its name.
    pub(super) fn call_off(&mut self, id: TaskId) -> TaskId {
        self.signs.aborted = true;
        id
    }
}

/// What comes next for a task that a thread is at.
enum Turn {
    /// Something has come of what it did.
    Input(Input),
    /// It does something else now, or there may be more signs.
    Again,
    /// It waits.
    Wait,
}

impl State {
    fn task(&mut self, id: TaskId) -> Option<&mut Task> {
        self.operations.tasks.get_mut(&id)
    }

    fn task_does(&mut self, id: TaskId, doing: Doing) -> Turn {
        if let Some(task) = self.task(id) {
            task.doing = doing;
        }
        Turn::Again
    }

    /// A task's watch has fired.
    pub(super) fn task_fired(&mut self, id: TaskId) {
        if let Some(task) = self.task(id) {
            task.signs.fired = true;
            self.outbox.push_back(Item::Task(id));
        }
    }

    /// Any of them may have.
    pub(super) fn all_tasks_fired(&mut self) {
        let ids: Vec<TaskId> = self.operations.tasks.keys().copied().collect();
        ids.into_iter().for_each(|id| self.task_fired(id));
    }

    /// A task's time has passed.
    pub(super) fn task_time_up(&mut self, id: TaskId) {
        if let Some(task) = self.task(id) {
            task.signs.time_up = true;
            self.outbox.push_back(Item::Task(id));
        }
    }

    /// There is a new connection: tasks have to set their watches on it.
    pub(super) fn tasks_reconnected(&mut self) {
        self.outbox.extend(self.operations.tasks.keys().copied().map(Item::Task));
    }
}

/// A thread is at a task. One that a panic has interrupted fails: nobody knows where it stands.
struct Busy<'a, 'lock> {
    context: &'a Context,
    state: &'a mut MutexGuard<'lock, State>,
    id: TaskId,
}

impl<'a, 'lock> Busy<'a, 'lock> {
    /// `None` if another is, or there is no such task.
    fn begin(context: &'a Context, state: &'a mut MutexGuard<'lock, State>, id: TaskId) -> Option<Self> {
        let task = state.task(id).filter(|task| !task.busy)?;
        task.busy = true;
        Some(Busy { context, state, id })
    }
}

impl Drop for Busy<'_, '_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.context.end_task(self.state, self.id, Err(Error::panicked()));
        } else if let Some(task) = self.state.task(self.id) {
            task.busy = false;
        }
    }
}

impl Context {
    /// Goes on with a task as far as that is possible now.
    pub(super) fn go_on(&self, id: TaskId) {
        let mut state = self.state.lock();
        // Who is at it will see.
        let Some(busy) = Busy::begin(self, &mut state, id) else { return };
        let mut steps = Steps::default();
        steps.take(|| self.take_task_far(busy));
        steps.take(|| self.disarm_and_flush(state));
        steps.end();
    }

    /// As far as that is possible.
    fn take_task_far(&self, busy: Busy<'_, '_>) {
        let Busy { id, .. } = busy;
        loop {
            let turn = self.take_task_on(busy.state, id);
            #[cfg(test)]
            busy.state.pass(super::aftermath::Place::Task);
            // The context may have been closed meanwhile.
            let Some(task) = busy.state.task(id) else { break };
            match turn {
                Turn::Again => {}
                Turn::Wait => break,
                Turn::Input(input) => match task.course.next(input) {
                    Step::End(result) => {
                        self.end_task(busy.state, id, result);
                        break;
                    }
                    step => task.doing = Doing::Next(step),
                },
            }
        }
    }

    fn end_task(&self, state: &mut State, id: TaskId, result: Result<()>) {
        if let Some(task) = state.operations.tasks.remove(&id) {
            self.task_ended(state, task, result);
        }
    }

    /// One thing that can be done for a task now.
    fn take_task_on(&self, state: &mut MutexGuard<'_, State>, id: TaskId) -> Turn {
        let Some(task) = state.task(id) else { return Turn::Wait };
        let aborted = task.signs.aborted;
        match &mut task.doing {
            Doing::Next(_) if aborted => Turn::Input(Input::Aborted),
            Doing::Next(step) => {
                let step = step.clone();
                self.begin_step(state, id, step)
            }
            Doing::Pause(timer) => {
                let timer = *timer;
                if !aborted && !task.signs.time_up {
                    return Turn::Wait;
                }
                state.timers.remove(timer);
                Turn::Input(if aborted { Input::Aborted } else { Input::TimeUp })
            }
            Doing::Await { .. } => self.look_at_backend(state, id),
            Doing::Script { pid, told } => match task.signs.ended.take() {
                Some(outcome) if aborted => {
                    let device = task.device();
                    log_said(state, device, script::said(&outcome));
                    Turn::Input(Input::Aborted)
                }
                Some(outcome) => {
                    let backend = task.course.facts().backend.clone();
                    let connection = connection(state);
                    let (verdict, said) = MutexGuard::unlocked(state, || {
                        let connection = connection;
                        script::verdict(&outcome, || nodes::hotplug_error(connection.as_ref()?, &backend))
                    });
                    log_said(state, backend.device, said);
                    Turn::Input(verdict.map_or_else(Input::Failed, |()| Input::Done))
                }
                None if aborted && !*told => {
                    *told = true;
                    if let Some(pid) = *pid {
                        self.hurry_child(state, pid);
                    }
                    Turn::Again
                }
                None => Turn::Wait,
            },
        }
    }

    fn begin_step(&self, state: &mut MutexGuard<'_, State>, id: TaskId, step: Step) -> Turn {
        let Some(task) = state.task(id) else { return Turn::Wait };
        task.signs.fired = false;
        task.signs.time_up = false;
        let facts = task.course.facts().clone();
        let Facts { backend, own_domid, .. } = &facts;
        let changed = match step {
            Step::Pause(duration) => {
                let timer = self.schedule(state, now() + duration, Later::Task(id));
                return state.task_does(id, Doing::Pause(timer));
            }
            Step::Await(awaited, limit) => {
                let timer = self.schedule(state, now() + limit, Later::Task(id));
                return state.task_does(id, Doing::Await { awaited, timer, watched: None });
            }
            Step::Close { cut_off } => {
                on_connection(state, |connection| nodes::close(connection, backend, cut_off)).map(Input::Closing)
            }
            Step::SetClosed => {
                on_connection(state, |connection| nodes::set_closed(connection, backend)).map(|()| Input::Done)
            }
            Step::CleanUp => {
                let clean_up = |connection: &Connection| nodes::clean_up(connection, backend, *own_domid);
                on_connection(state, clean_up).map(|()| Input::Done)
            }
            Step::Script(run, action) => return self.run_script(state, id, backend, run, action),
            // Only a course that needs nothing begins with its end.
            Step::End(result) => {
                self.end_task(state, id, result);
                return Turn::Wait;
            }
        };
        Turn::Input(changed.unwrap_or_else(Input::Failed))
    }

    // ---- backends ----

    fn look_at_backend(&self, state: &mut MutexGuard<'_, State>, id: TaskId) -> Turn {
        let current = serial_now(state);
        let Some(task) = state.task(id) else { return Turn::Wait };
        let Doing::Await { awaited, timer, watched } = task.doing else { return Turn::Again };
        let node = match awaited {
            Awaited::Ready | Awaited::Closed => task.course.facts().backend.node("state"),
            Awaited::Gone => task.course.facts().backend.directory(),
        };
        let input = if task.signs.aborted {
            Input::Aborted
        } else if current.is_some() && watched != current {
            match self.watch_backend(state, id, &node) {
                Ok(()) => return Turn::Again,
                Err(error) => Input::Failed(error),
            }
        } else if current.is_some() && std::mem::take(&mut task.signs.fired) {
            match on_connection(state, |connection| connection.read(&node)) {
                // The next connection's watch will fire.
                Err(_) if serial_now(state) != current => return Turn::Again,
                Err(error) => Input::Failed(error),
                Ok(value) => match judge(awaited, value.as_deref()) {
                    Some(input) => input,
                    None => return Turn::Again,
                },
            }
        } else if task.signs.time_up {
            Input::TimeUp
        } else {
            return Turn::Wait;
        };
        state.timers.remove(timer);
        // One that is gone has no watches, and one that can't take a watch away will be gone soon.
        if watched.is_some() && watched == serial_now(state) {
            let _ = on_connection(state, |connection| connection.unwatch(&node, &Watch::task_token(id)));
        }
        Turn::Input(input)
    }

    fn watch_backend(&self, state: &mut MutexGuard<'_, State>, id: TaskId, node: &CStr) -> Result<()> {
        let on = serial_now(state);
        let result = on_connection(state, |connection| connection.watch(node, &Watch::task_token(id)));
        if serial_now(state) != on {
            // It was lost meanwhile; the next one is watched when it is there.
            return Ok(());
        }
        if let Some(Doing::Await { watched, .. }) = state.task(id).map(|task| &mut task.doing) {
            *watched = on.filter(|_| result.is_ok());
        }
        result
    }

    // ---- scripts ----

    fn run_script(
        &self,
        state: &mut MutexGuard<'_, State>,
        id: TaskId,
        backend: &Backend,
        run: Run,
        action: Action,
    ) -> Turn {
        let found = on_connection(state, |connection| nodes::script(connection, backend));
        let command = match found.and_then(|found| script::command(backend, run, action, &found)) {
            Ok(Some(command)) => command,
            Ok(None) => return Turn::Input(Input::Done),
            Err(error) => return Turn::Input(Input::Failed(error)),
        };
        state.task_does(id, Doing::Script { pid: None, told: false });
        match MutexGuard::unlocked(state, || self.start_script(&command, id, backend.device)) {
            Ok(started) => {
                if let Some(Doing::Script { pid, .. }) = state.task(id).map(|task| &mut task.doing) {
                    *pid = Some(started);
                }
                Turn::Again
            }
            Err(error) => Turn::Input(Input::Failed(error)),
        }
    }

    fn start_script(&self, command: &Command, id: TaskId, device: Device) -> Result<pid_t> {
        let context = self.me.clone();
        self.run_child(
            command,
            Box::new(move |outcome| {
                let Some(context) = context.upgrade() else { return };
                let mut state = context.state.lock();
                match state.task(id) {
                    Some(task) => {
                        task.signs.ended = Some(outcome);
                        state.outbox.push_back(Item::Task(id));
                    }
                    // The context is being freed.
                    None => log_said(&mut state, device, script::said(&outcome)),
                }
                context.flush(state);
            }),
        )
    }
}

impl Watch {
    /// A task's token.
    pub(super) fn task_token(id: TaskId) -> CString {
        // Letters and a number: there is no zero byte to fail for.
        CString::new(format!("{}{}", Watch::TASK_TOKEN, id.0)).unwrap_or_default()
    }
}

/// A share in the connection of the moment.
fn connection(state: &MutexGuard<'_, State>) -> Option<Connection> {
    state.store.as_ref().map(Store::connection)
}

/// Does something with it, without the lock. The last share may be dropped then, which waits as well.
fn on_connection<R>(state: &mut MutexGuard<'_, State>, work: impl FnOnce(&Connection) -> Result<R>) -> Result<R> {
    let Some(connection) = connection(state) else { return Err(away()) };
    MutexGuard::unlocked(state, move || work(&connection))
}

/// What a device's script has said.
fn log_said(state: &mut State, device: Device, lines: Vec<(Level, String)>) {
    let line = |(level, text)| Line::new(level, format!("{device}: {text}")).of(Kind::Quoted);
    let lines = lines.into_iter().map(|said| Item::Log(line(said)));
    state.outbox.extend(lines);
}

fn serial_now(state: &State) -> Option<u64> {
    state.store.as_ref().map(Store::serial)
}

fn away() -> Error {
    Error::os("xenstored has gone away", Errno::ENOTCONN)
}

/// What a backend's node means to who awaits something; nothing as yet, maybe.
fn judge(awaited: Awaited, value: Option<&[u8]>) -> Option<Input> {
    match (awaited, value) {
        (Awaited::Gone, None) => Some(Input::Reached),
        (Awaited::Gone, Some(_)) => None,
        (Awaited::Ready | Awaited::Closed, None) => Some(Input::Gone),
        (Awaited::Ready, Some(value)) => BackendState::of(value).is_ready().then_some(Input::Reached),
        (Awaited::Closed, Some(value)) => (BackendState::of(value) == BackendState::CLOSED).then_some(Input::Reached),
    }
}
