// SPDX-License-Identifier: LGPL-2.1-or-later
//! What has to be done without the lock, in order: calls to the application and to libxenlight, log lines.
//!
//! Filled under the lock, emptied by whoever comes to the end of a call, one item at a time: an item may call us again,
//! which then goes on with the rest, and a callback that takes its time doesn't hold up what other threads find. One that
//! panics is over, and the rest is done all the same.

use std::sync::Arc;

use super::children::{Completion, Running};
use super::companion::dispatch;
use super::operations::Told;
use super::tasks::TaskId;
use super::{Context, EventHooks, ForLibxl, State};
use crate::childproc::{Left, Outcome};
use crate::error::Result;
use crate::event::Event;
use crate::evgen::disk_eject::DriveId;
use crate::evgen::vbd::Frontend;
use crate::guard::Steps;
use crate::sync::MutexGuard;
use crate::xen::hypervisor::Hypervisor;
use crate::xen::log::{Level, Line, LogSink, StderrLog};
use crate::xen::store::{Connection, Store};

/// Something to do.
pub(super) enum Item {
    /// An event for a callback.
    Event(Arc<dyn EventHooks>, Event),
    /// A line for the log.
    Log(Line),
    /// The minute of lines that were held back is over.
    HeldLines,
    /// Events may be missing from here on.
    Disaster { message: String, errno: i32 },
    /// The application has closed our descriptors, and is told so.
    Stolen,
    /// xenstored has been away for long. Nothing is lost by that yet.
    LongOutage { message: String, errno: i32 },
    /// A descriptor of libxenlight's is ready.
    LibxlFd { for_libxl: ForLibxl, fd: i32, events: i16, revents: i16 },
    /// A timeout of libxenlight's has passed.
    LibxlTimeout(ForLibxl),
    /// There was a SIGCHLD: children are to be reaped.
    Reap,
    /// A child of ours has ended.
    Child(Box<(Completion, Outcome, Left)>),
    /// A child of ours is to end.
    EndChild(Box<Running>),
    /// A task is to be gone on with.
    Task(TaskId),
    /// An operation has ended, with this.
    Told(Told, Result<()>),
    /// xenstored is to be looked for.
    Reconnect,
    /// Watches for domains are to be set, or given up.
    Retarget,
    /// A connection to a xenstored that has gone is to be closed, which waits for its thread to end.
    Close(Box<Store>),
    /// The hypervisor is no longer asked.
    CloseHypervisor(Box<Hypervisor>),
    /// A context whose last owner was a turn of this one, to be closed: that waits too.
    Drop(Box<Context>),
    /// A drive is to be looked at.
    Look(DriveId),
    /// A drive's watch is to be taken away.
    Unwatch(Connection, DriveId, Frontend),
}

/// As many items as an empty outbox keeps room for.
const ROOM_KEPT: usize = 256;

impl Context {
    /// Empties the outbox, and gives up the lock. A panic in one of the items keeps none of the others from being done, and
    /// goes on when they are.
    pub(super) fn flush(&self, mut state: MutexGuard<'_, State>) {
        if state.store.as_ref().is_some_and(|store| store.connection_is_stolen()) {
            self.reactor.mark_stolen();
        }
        if self.reactor.is_stolen() {
            self.dismantle(&mut state);
        }
        let mut steps = Steps::default();
        loop {
            while let Some(item) = state.outbox.pop_front() {
                if steps.take(|| MutexGuard::unlocked(&mut state, || self.perform(item))).is_none() {
                    self.take_up(&mut state);
                }
            }
            if !std::mem::take(&mut state.starved) {
                break;
            }
            let message = "there was no memory to keep an event".to_owned();
            state.outbox.push_back(Item::Disaster { message, errno: libc::ENOMEM });
        }
        // A look may have found thousands of events for callbacks.
        if state.outbox.capacity() > ROOM_KEPT {
            state.outbox.shrink_to(ROOM_KEPT);
        }
        drop(state);
        steps.end();
    }

    /// The same, after giving up what nobody needs any more.
    pub(super) fn disarm_and_flush(&self, mut state: MutexGuard<'_, State>) {
        let mut steps = Steps::default();
        steps.take(|| self.disarm(&mut state));
        steps.take(|| self.flush(state));
        steps.end();
    }

    /// The same, where that may be our descriptor.
    pub(super) fn release_and_flush(&self, mut state: MutexGuard<'_, State>) {
        let mut steps = Steps::default();
        steps.take(|| self.release_descriptor(&mut state));
        steps.take(|| self.flush(state));
        steps.end();
    }

    /// Ends a call that has begun something, and returns its name. If a panic keeps that from the caller, it is undone: he takes
    /// it for a failure.
    pub(super) fn flush_or_undo<T: Copy, U>(
        &self,
        state: MutexGuard<'_, State>,
        result: Result<T>,
        undo: impl FnOnce(T) -> U,
    ) -> Result<T> {
        let mut steps = Steps::default();
        let flushed = steps.take(|| self.flush(state));
        if let (None, Ok(name)) = (flushed, &result) {
            steps.take(|| undo(*name));
        }
        steps.end();
        result
    }

    fn perform(&self, item: Item) {
        match item {
            Item::Event(hooks, event) => hooks.event_occurs(event),
            Item::Log(line) => self.log(&line),
            Item::HeldLines => self.write_held_lines(false),
            Item::Disaster { message, errno } => self.disaster(0, &message, errno),
            Item::LongOutage { message, errno } => {
                // Who can't be told of it isn't ended for it: what happens meanwhile is told when xenstored is back.
                self.tell_disaster(0, &message, errno);
            }
            Item::LibxlFd { for_libxl, fd, events, revents } => {
                if let Some(libxl) = &self.libxl {
                    dispatch(|| libxl.occurred_fd(for_libxl, fd, events, revents));
                }
            }
            Item::LibxlTimeout(for_libxl) => {
                if let Some(libxl) = &self.libxl {
                    dispatch(|| libxl.occurred_timeout(for_libxl));
                }
            }
            Item::Reap => self.reap(),
            Item::Child(child) => {
                let (done, outcome, left) = *child;
                self.child_done(done, outcome, left);
            }
            Item::EndChild(running) => self.end_child(*running),
            Item::Task(id) => self.go_on(id),
            Item::Told(told, result) => told(&result),
            Item::Reconnect => self.reconnect(),
            Item::Retarget => self.retarget(),
            Item::Stolen => self.tell_of_theft(),
            Item::Close(store) => drop(store),
            Item::CloseHypervisor(hypervisor) => drop(hypervisor),
            Item::Drop(context) => drop(context),
            Item::Look(id) => self.look_at_drive(id),
            Item::Unwatch(connection, id, frontend) => self.unwatch_drive(&connection, id, frontend),
        }
    }

    /// Tells the application that events are missing. If it has no way to be told, it is ended, as the header says: it would
    /// wait for ever for what doesn't come.
    pub fn disaster(&self, event_type: u32, message: &str, errno: i32) {
        if !self.tell_disaster(event_type, message, errno) {
            std::process::exit(-1);
        }
    }

    /// Writes it to the log and calls the disaster callback. False if there is none: then it stands on stderr too.
    fn tell_disaster(&self, event_type: u32, message: &str, errno: i32) -> bool {
        let line = disaster_line(message, errno);
        self.log(&line);
        let told = self.call_disaster(event_type, message, errno);
        if !told {
            StderrLog.write(&line);
        }
        told
    }

    /// The same for what no program is ended for, and that is told in one line: on stderr where there is neither callback nor
    /// logger.
    pub(super) fn tell_quietly(&self, message: &str, errno: i32) {
        let line = disaster_line(message, errno);
        self.log(&line);
        if !self.call_disaster(0, message, errno) && self.log.is_silent() {
            StderrLog.write(&line);
        }
    }

    /// False if there is no such callback.
    fn call_disaster(&self, event_type: u32, message: &str, errno: i32) -> bool {
        let hooks = {
            let mut state = self.state.lock();
            state.counts.disasters += 1;
            state.event_hooks.clone()
        };
        hooks.is_some_and(|hooks| hooks.disaster(event_type, message, errno))
    }
}

fn disaster_line(message: &str, errno: i32) -> Line {
    let line = Line::new(Level::Critical, format!("disaster: {message}"));
    if errno > 0 { line.with_errno(nix::errno::Errno::from_raw(errno)) } else { line }
}
