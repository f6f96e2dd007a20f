// SPDX-License-Identifier: LGPL-2.1-or-later
//! Asynchronous operations of a context: beginning one, calling it off, and telling of its end.
//!
//! An operation is one request of the application's, for one device or several; each of them is a task (`tasks`), and the
//! operation ends when all of its tasks have. It keeps the context armed: there is a watched connection as long as one runs.
//!
//! - A request that is refused has begun nothing, and its end isn't told.
//! - The end is told once, from the outbox; it may be told before the call that began it returns.

use std::collections::BTreeMap;

use nix::errno::Errno;

use super::outbox::Item;
use super::tasks::{Task, TaskId};
use super::{Context, State};
use crate::ao::course::{Facts, Goal};
use crate::ao::device::{Backend, Device};
use crate::ao::nodes::{self, TOOLSTACK_DOMID};
use crate::error::{Error, Result};
use crate::event::Event;
use crate::evgen::Recipient;
use crate::sync::MutexGuard;
use crate::xen::DOMID_LIMIT;
use crate::xen::hypervisor::Host;
use crate::xen::log::{Level, Line};
use crate::xen::store::{Connection, Store};

/// By what an application finds its operation again. It need not be unique: the latest counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// A thread waits for the end.
    Waiter,
    /// The end is an event with this value.
    Event(u64),
    /// The end is told to this function, with this argument: addresses, which are only compared.
    Callback(usize, usize),
}

/// Names an operation. Never used twice in a context.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OperationId(u64);

/// How the end of an operation is told.
pub enum Tell {
    /// The call that begins it waits for it.
    Waiter,
    /// By an event, which is made of the result; `None` if there is no memory for it.
    Event(u64, MakeEvent),
    /// By a call, without a lock held.
    Callback(usize, usize, Told),
}

/// Makes an event of an operation's result, and does nothing else: a lock is held meanwhile.
pub type MakeEvent = Box<dyn FnOnce(&Result<()>) -> Option<Event> + Send>;

/// The application is told of an operation's end.
pub type Told = Box<dyn FnOnce(&Result<()>) + Send>;

impl Tell {
    fn mark(&self) -> Mark {
        match self {
            Tell::Waiter => Mark::Waiter,
            Tell::Event(user, _) => Mark::Event(*user),
            Tell::Callback(function, argument, _) => Mark::Callback(*function, *argument),
        }
    }
}

/// What a context has under way.
#[derive(Default)]
pub(super) struct Operations {
    /// Operations and tasks have numbers that are never used again in a context.
    next: u64,
    running: BTreeMap<u64, Operation>,
    pub(super) tasks: BTreeMap<TaskId, Task>,
}

struct Operation {
    domid: u32,
    mark: Mark,
    /// Gone when it has been told.
    tell: Option<Tell>,
    /// Of each task; `None` while it runs.
    results: Vec<Option<Result<()>>>,
    aborted: bool,
}

impl Operation {
    /// What has come of it, when all has ended: the first failure, in the order of the request.
    fn result(&self) -> Option<Result<()>> {
        let ended: Option<Vec<&Result<()>>> = self.results.iter().map(Option::as_ref).collect();
        ended.map(|results| results.into_iter().find(|result| result.is_err()).cloned().unwrap_or(Ok(())))
    }
}

impl Operations {
    /// Nothing is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.tasks.is_empty()
    }

    fn next_id(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}

impl Context {
    /// Does what is wanted with devices of a domain, all at once, and tells of the end when all have come to theirs. The
    /// devices are of that domain. On an error nothing is begun.
    pub fn begin_operation(&self, domid: u32, wanted: &[(Device, Goal)], tell: Tell) -> Result<OperationId> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(Error::Invalid("the context is being freed".to_owned()));
        }
        self.refuse_if_stolen()?;
        if matches!(tell, Tell::Waiter) {
            // Later it can't fail any more: who had begun it would leave it to nobody.
            self.reactor.prepare_wait()?;
        }
        let Some(mut gate) = self.enter_gate(&mut state) else {
            return Err(Error::Invalid("a hook that waits for descriptors may not call this".to_owned()));
        };
        // What isn't called goes after the lock: it is the application's code.
        let begun = match self.facts_in_gate(&mut gate, domid, wanted) {
            Ok(facts) => Ok(self.begin_in_gate(&mut gate, domid, wanted, facts, tell)),
            Err(error) => Err(error),
        };
        drop(gate);
        // If it has come to nothing, all is as before.
        self.disarm(&mut state);
        self.flush_or_undo(state, begun, |id| self.forget_operation(id)).map(OperationId)
    }

    /// Calls an operation off, and leaves its end untold.
    pub(super) fn forget_operation(&self, id: u64) {
        let mut state = self.state.lock();
        let forgotten = state.operations.running.remove(&id);
        let State { operations, outbox, .. } = &mut *state;
        let tasks = operations.tasks.iter_mut().filter(|(_, task)| task.operation() == id);
        outbox.extend(tasks.map(|(id, task)| Item::Task(task.call_off(*id))));
        self.flush(state);
        // It is the application's code.
        drop(forgotten);
    }

    /// What has to be known of each of the devices; whether it can be begun with all of them.
    fn facts_in_gate(
        &self,
        state: &mut MutexGuard<'_, State>,
        domid: u32,
        wanted: &[(Device, Goal)],
    ) -> Result<Vec<Facts>> {
        if !state.armed {
            self.arm_in_gate(state, None)?;
        }
        let away = || Error::os("xenstored has gone away", Errno::ENOTCONN);
        let connection = state.store.as_ref().map(Store::connection).ok_or_else(away)?;
        let found = MutexGuard::unlocked(state, move || find(&connection, wanted));
        let (own_domid, backends) = found?;
        let guest = self.guest(state, domid, own_domid)?;
        let busy = |device: &Device| state.operations.tasks.values().any(|task| task.device() == *device);
        for (index, (device, _)) in wanted.iter().enumerate() {
            if wanted[..index].iter().any(|(other, _)| other == device) {
                return Err(Error::Invalid(format!("{device} is named twice")));
            }
            if busy(device) {
                return Err(Error::Invalid(format!("an operation on {device} is under way")));
            }
        }
        let mut facts = Vec::with_capacity(wanted.len());
        for ((device, _), backend) in wanted.iter().zip(backends) {
            let missing = || match guest {
                Guest::Gone => Error::DomainNotFound(domid),
                Guest::Absent | Guest::Present => Error::NotFound(device.to_string()),
            };
            let backend = backend.ok_or_else(missing)?;
            facts.push(Facts { backend, own_domid, guest_absent: guest != Guest::Present });
        }
        Ok(facts)
    }

    pub(super) fn begin_in_gate(
        &self,
        state: &mut State,
        domid: u32,
        wanted: &[(Device, Goal)],
        facts: Vec<Facts>,
        tell: Tell,
    ) -> u64 {
        let operation = state.operations.next_id();
        let results = vec![None; wanted.len()];
        let mark = tell.mark();
        let entry = Operation { domid, mark, tell: Some(tell), results, aborted: false };
        state.operations.running.insert(operation, entry);
        for (index, ((_, goal), facts)) in wanted.iter().zip(facts).enumerate() {
            let id = TaskId(state.operations.next_id());
            state.operations.tasks.insert(id, Task::new(operation, index, *goal, facts));
            state.outbox.push_back(Item::Task(id));
        }
        if wanted.is_empty() {
            self.tell_of_end(state, operation);
        }
        operation
    }

    /// What the hypervisor says of a guest. In a driver domain there is no asking.
    fn guest(&self, state: &mut State, domid: u32, own_domid: u32) -> Result<Guest> {
        if own_domid != TOOLSTACK_DOMID {
            return Ok(Guest::Present);
        }
        if domid >= DOMID_LIMIT {
            return Ok(Guest::Gone);
        }
        // There is one as soon as there is a watched connection.
        let asking = |errno| Error::os("asking the hypervisor for a domain", errno);
        let hypervisor = state.hypervisor.as_mut().ok_or_else(|| asking(Errno::EBADF))?;
        let asked = hypervisor.ask(domid, 1);
        let found = hypervisor.answer().first().filter(|domain| domain.domid() == domid);
        let guest = match found {
            None => Guest::Gone,
            Some(domain) if domain.takes_part() => Guest::Present,
            Some(_) => Guest::Absent,
        };
        let lines = hypervisor.take_log();
        state.outbox.extend(lines.into_iter().map(Item::Log));
        asked.map(|()| guest).map_err(asking)
    }

    /// Calls an operation off: the latest of that mark that is under way. It ends as soon as it can; its end is told as ever.
    pub fn abort_operation(&self, mark: Mark) -> Result<()> {
        let mut state = self.state.lock();
        let operations = &mut state.operations;
        let mut matching = operations.running.iter_mut().rev();
        let found = matching.find(|(_, operation)| operation.mark == mark && operation.result().is_none());
        let Some((id, operation)) = found else {
            return Err(Error::NotFound("operation under way that this would be".to_owned()));
        };
        if operation.aborted {
            return Err(Error::Aborted);
        }
        operation.aborted = true;
        let id = *id;
        let tasks = operations.tasks.iter_mut().filter(|(_, task)| task.operation() == id);
        let called_off: Vec<TaskId> = tasks.map(|(id, task)| task.call_off(*id)).collect();
        state.outbox.extend(called_off.into_iter().map(Item::Task));
        self.flush(state);
        Ok(())
    }

    /// A task has come to its end, and is no more.
    pub(super) fn task_ended(&self, state: &mut State, task: Task, result: Result<()>) {
        if let Err(error) = &result {
            let level = if *error == Error::Aborted { Level::Info } else { Level::Error };
            let line = Line::failure(level, &format!("{}", task.device()), error);
            state.outbox.push_back(Item::Log(line));
        }
        let id = task.operation();
        if let Some(operation) = state.operations.running.get_mut(&id) {
            if let Some(place) = operation.results.get_mut(task.index()) {
                *place = Some(result);
            }
            if operation.result().is_some() {
                self.tell_of_end(state, id);
            }
        }
    }

    /// An operation has come to its end.
    fn tell_of_end(&self, state: &mut State, id: u64) {
        let Some(operation) = state.operations.running.get_mut(&id) else { return };
        let Some(result) = operation.result() else { return };
        let domid = operation.domid;
        match operation.tell.take() {
            Some(Tell::Callback(_, _, told)) => {
                state.operations.running.remove(&id);
                state.outbox.push_back(Item::Told(told, result));
            }
            Some(Tell::Event(_, make)) => {
                state.operations.running.remove(&id);
                self.deliver_new(state, Recipient::OWN, make(&result), domid);
            }
            Some(Tell::Waiter) => self.wake_waiters(state),
            None => {}
        }
    }

    /// Threads in [`Context::wait_for_operation`] look again.
    fn wake_waiters(&self, state: &mut State) {
        self.arrived.notify_all();
        self.wake_waiter(state);
    }

    /// Waits for the end of an operation that is told so ([`Tell::Waiter`]), and does the context's work meanwhile.
    pub fn wait_for_operation(&self, OperationId(id): OperationId) -> Result<()> {
        loop {
            let mut state = self.state.lock();
            let Some(operation) = state.operations.running.get(&id) else { return Err(Error::Aborted) };
            if let Some(result) = operation.result() {
                state.operations.running.remove(&id);
                return result;
            }
            self.sleep_and_turn(state, None)?;
        }
    }

    /// Ends all that is under way with this error.
    pub(super) fn fail_operations(&self, state: &mut State, error: &Error) {
        state.operations.tasks.clear();
        let ids: Vec<u64> = state.operations.running.keys().copied().collect();
        for id in ids {
            if let Some(operation) = state.operations.running.get_mut(&id) {
                operation
                    .results
                    .iter_mut()
                    .filter(|result| result.is_none())
                    .for_each(|result| *result = Some(Err(error.clone())));
            }
            self.tell_of_end(state, id);
        }
    }

    /// When the context is closed: what is under way is left as it is. Who is to be called is told so, and events are lost
    /// with the context.
    pub(super) fn close_operations(&self, state: &mut State) {
        state.operations.tasks.clear();
        for (_, operation) in std::mem::take(&mut state.operations.running) {
            if let Some(Tell::Callback(_, _, told)) = operation.tell {
                state.outbox.push_back(Item::Told(told, Err(Error::Aborted)));
            }
        }
        self.wake_waiters(state);
    }
}

/// A guest as the hypervisor knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Guest {
    Present,
    /// Paused, shut down or dying.
    Absent,
    Gone,
}

/// Which domain is ours, and who serves the devices.
fn find(connection: &Connection, wanted: &[(Device, Goal)]) -> Result<(u32, Vec<Option<Backend>>)> {
    let own_domid = nodes::own_domid(connection)?;
    let backends = wanted.iter().map(|(device, _)| nodes::backend(connection, *device));
    Ok((own_domid, backends.collect::<Result<_>>()?))
}
