// SPDX-License-Identifier: LGPL-2.1-or-later
//! Child processes and the context: what to reap when SIGCHLD comes, and what our own children are waited for with.
//!
//! - A child of ours, its output and the eventfd of SIGCHLD are sources in the reactor like any other, so whoever drives
//!   the context drives these.
//! - Forking, asking the application about children, and telling who started a child of its end are done without the
//!   lock.
//! - Beside libxenlight SIGCHLD is not touched: libxenlight does so as the application has told it.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;

use libc::{c_int, pid_t};
use nix::errno::Errno;

use super::outbox::Item;
use super::turn::{Later, Token};
use super::{Context, State};
use crate::childproc::child::{Child, Seen};
use crate::childproc::process::{self, Reaped};
use crate::childproc::sigchld::{Handler, Subscriber};
use crate::childproc::{Answer, Command, Hooks, Left, NoHooks, Outcome, Owner, describe};
use crate::error::{Error, Result};
use crate::guard::Steps;
use crate::reactor::TimerId;
use crate::sync::MutexGuard;
use crate::xen::log::{Kind, Level, Line};

/// Told once what has become of a child, without a lock held. May use the context.
pub type Completion = Box<dyn FnOnce(Outcome) + Send>;

/// A context's part in the process's children.
pub(super) struct Children {
    owner: Owner,
    hooks: Arc<dyn Hooks>,
    /// While SIGCHLD is ours.
    sigchld: Option<Subscriber>,
    /// How many are being forked.
    starting: usize,
    running: BTreeMap<u32, Running>,
    next: u32,
    /// In default mode, the log has been told that SIGCHLD isn't caught.
    uncaught_told: bool,
}

/// A child of ours.
pub(super) struct Running {
    child: Child,
    done: Completion,
    timer: Option<TimerId>,
}

/// A child is being forked.
struct Starting<'a, 'lock> {
    state: &'a mut MutexGuard<'lock, State>,
}

impl<'a, 'lock> Starting<'a, 'lock> {
    fn begin(state: &'a mut MutexGuard<'lock, State>) -> Self {
        state.children.starting += 1;
        Starting { state }
    }
}

impl Drop for Starting<'_, '_> {
    fn drop(&mut self) {
        self.state.children.starting -= 1;
    }
}

impl Default for Children {
    fn default() -> Self {
        Children {
            owner: Owner::Libxl,
            hooks: Arc::new(NoHooks),
            sigchld: None,
            starting: 0,
            running: BTreeMap::new(),
            next: 0,
            uncaught_told: false,
        }
    }
}

impl Children {
    /// Nothing is waited for.
    pub(super) fn is_idle(&self) -> bool {
        self.sigchld.is_none() && !self.exist()
    }

    /// How many run, or have ended and not been dealt with to the end.
    pub(super) fn running_count(&self) -> usize {
        self.running.len()
    }

    /// SIGCHLD is a source.
    pub(super) fn catches_sigchld(&self) -> bool {
        self.sigchld.is_some()
    }

    /// There is a child of this number.
    pub(super) fn knows(&self, id: u32) -> bool {
        self.running.contains_key(&id)
    }

    /// There are, or are about to be, children of ours.
    fn exist(&self) -> bool {
        self.starting > 0 || !self.running.is_empty()
    }

    /// Whether SIGCHLD is the library's now.
    fn want_sigchld(&self) -> bool {
        match self.owner {
            Owner::Libxl => self.exist(),
            Owner::Mainloop => false,
            Owner::Always | Owner::Selective => true,
        }
    }

    /// Whether the library reaps children that aren't its own now.
    fn reap_all(&self) -> bool {
        self.want_sigchld() && self.owner != Owner::Selective
    }

    /// Whether the library reaps its own by itself.
    fn reap_ours(&self) -> bool {
        self.owner != Owner::Mainloop
    }
}

impl Context {
    /// Says how children are dealt with. Refused while there is a child of ours.
    pub fn set_childproc(&self, owner: Owner, hooks: Arc<dyn Hooks>) -> Result<()> {
        let mut state = self.state.lock();
        if let Some(running) = state.children.running.values().next() {
            let pid = running.child.pid();
            return Err(Error::Invalid(format!("the library has a child, {pid}; nothing is changed")));
        }
        if state.children.exist() {
            return Err(Error::Invalid("the library is starting a child; nothing is changed".to_owned()));
        }
        let before = std::mem::replace(&mut state.children.hooks, hooks);
        state.children.owner = owner;
        let needed = state.children.want_sigchld() && !self.is_beside();
        // A hook that panics is one that refuses.
        let mut steps = Steps::default();
        let registered = steps.take(|| if needed { self.register_descriptor(&mut state) } else { Ok(()) });
        match registered.unwrap_or_else(|| Err(Error::panicked())) {
            Ok(()) => {
                self.settle_sigchld(&mut state);
                check_handler(&mut state);
            }
            Err(error) => {
                let line = Line::failure(Level::Error, "SIGCHLD isn't caught", &error);
                state.outbox.push_back(Item::Log(line));
            }
        }
        steps.take(|| self.release_and_flush(state));
        // It is the application's code.
        steps.take(|| drop(before));
        steps.end();
        Ok(())
    }

    /// Whether the application has said that it deals with SIGCHLD and tells us.
    pub fn mainloop_owns_sigchld(&self) -> bool {
        self.state.lock().children.owner == Owner::Mainloop
    }

    /// Starts a child, and returns its number; `done` is called once, with what has become of it. On an error, which may
    /// be the application's refusal to poll or to fork, there is no child and no call. A child that runs when the context
    /// is closed is killed.
    pub fn run_child(&self, command: &Command, done: Completion) -> Result<pid_t> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(Error::Invalid("the context is being freed".to_owned()));
        }
        self.refuse_if_stolen()?;
        self.register_descriptor(&mut state)?;
        let starting = Starting::begin(&mut state);
        if self.settle_sigchld(starting.state) {
            check_handler(starting.state);
        }
        let hooks = starting.state.children.hooks.clone();
        let mut steps = Steps::default();
        let child = steps.take(|| MutexGuard::unlocked(starting.state, || Child::new(command, &*hooks)));
        drop(starting);
        let child = child.unwrap_or_else(|| Err(Error::panicked()));
        let installed = child.and_then(|child| Ok((self.install_child(&mut state, &child)?, child)));
        // What isn't called goes after the lock: it is the application's code.
        let started = match installed {
            Ok((id, child)) => Ok(self.let_run(&mut state, id, child, done)),
            Err(error) => {
                self.settle_sigchld(&mut state);
                steps.take(|| self.release_descriptor(&mut state));
                Err(error)
            }
        };
        steps.take(|| self.flush(state));
        steps.end();
        started
    }

    /// Puts a child into the reactor.
    fn install_child(&self, state: &mut State, child: &Child) -> Result<u32> {
        if state.closed {
            return Err(Error::Invalid("the context was freed while a child was forked".to_owned()));
        }
        let id = state.children.next;
        state.children.next = id.wrapping_add(1);
        self.watch_child(child, id).map_err(|errno| Error::os("waiting for a child", errno))?;
        Ok(id)
    }

    fn let_run(&self, state: &mut State, id: u32, mut child: Child, done: Completion) -> pid_t {
        child.go();
        state.counts.children_started += 1;
        let pid = child.pid();
        state.children.running.insert(id, Running { child, done, timer: None });
        self.look_at_child(state, id);
        pid
    }

    fn watch_child(&self, child: &Child, id: u32) -> nix::Result<()> {
        let outputs = child.outputs().map(|output| (output, Token::ChildOutput(id)));
        let end = child.pidfd().map(|pidfd| (pidfd, Token::ChildEnd(id)));
        let added =
            outputs.chain(end).try_for_each(|(fd, token)| self.reactor.add(fd.as_raw_fd(), libc::POLLIN, token.into()));
        if added.is_err() {
            self.unwatch_descriptors(child);
        }
        added
    }

    /// Before its descriptors are closed: a copy in a forked child would keep them in the reactor.
    fn unwatch_child(&self, state: &mut State, running: &mut Running) {
        self.unwatch_descriptors(&running.child);
        if let Some(timer) = running.timer.take() {
            state.timers.remove(timer);
        }
    }

    /// Some of them may not be watched, or no longer.
    fn unwatch_descriptors(&self, child: &Child) {
        child.outputs().chain(child.pidfd()).for_each(|fd| self.reactor.remove(fd.as_raw_fd()));
    }

    /// It has written something, or closed an output.
    pub(super) fn read_child(&self, state: &mut State, id: u32) {
        let Some(running) = state.children.running.get_mut(&id) else { return };
        running.child.read().for_each(|ended| self.reactor.remove(ended.as_raw_fd()));
    }

    /// Something has happened to a child, or its time has come.
    pub(super) fn look_at_child(&self, state: &mut State, id: u32) {
        self.look(state, id, state.children.reap_ours());
    }

    fn look(&self, state: &mut State, id: u32, may_reap: bool) {
        let Some(running) = state.children.running.get_mut(&id) else { return };
        if let Some(timer) = running.timer.take() {
            state.timers.remove(timer);
        }
        let at = match running.child.look(may_reap) {
            Seen::Runs(at) => at,
            Seen::Ended(at) => {
                if let Some(pidfd) = running.child.pidfd() {
                    self.reactor.remove(pidfd.as_raw_fd());
                }
                Some(at)
            }
            Seen::Done => {
                if let Some(mut running) = state.children.running.remove(&id) {
                    self.unwatch_child(state, &mut running);
                    let (outcome, left) = running.child.outcome();
                    state.outbox.push_back(Item::Child(Box::new((running.done, outcome, left))));
                }
                self.settle_sigchld(state);
                return;
            }
        };
        let timer = at.map(|at| self.schedule(state, at, Later::Child(id)));
        if let Some(running) = state.children.running.get_mut(&id) {
            running.timer = timer;
        }
    }

    fn look_at_children(&self, state: &mut State, may_reap: bool) {
        let ids: Vec<u32> = state.children.running.keys().copied().collect();
        ids.into_iter().for_each(|id| self.look(state, id, may_reap));
    }

    /// A child is to end before its time: it is told to, and killed if it doesn't.
    pub(super) fn hurry_child(&self, state: &mut State, pid: pid_t) {
        let Some(id) = state.children.id_of(pid) else { return };
        if let Some(running) = state.children.running.get_mut(&id) {
            running.child.hurry();
        }
        self.look_at_child(state, id);
    }

    /// From the outbox: who started a child is told of its end. There may be nothing left to wait for then.
    pub(super) fn child_done(&self, done: Completion, outcome: Outcome, left: Left) {
        let mut steps = Steps::default();
        steps.take(|| self.hand_over(left));
        steps.take(|| done(outcome));
        steps.take(|| self.release_and_flush(self.state.lock()));
        steps.end();
    }

    /// When the context is closed: its children end, and SIGCHLD is no longer its matter.
    pub(super) fn close_children(&self, state: &mut State) {
        for (_, mut running) in std::mem::take(&mut state.children.running) {
            self.unwatch_child(state, &mut running);
            state.outbox.push_back(Item::EndChild(Box::new(running)));
        }
        self.settle_sigchld(state);
    }

    /// From the outbox.
    pub(super) fn end_child(&self, mut running: Running) {
        let may_reap = self.state.lock().children.reap_ours();
        running.child.kill_and_wait(may_reap);
        let (outcome, left) = running.child.outcome();
        self.hand_over(left);
        (running.done)(outcome);
    }

    /// What a child has left running keeps somebody who reads what it writes.
    fn hand_over(&self, left: Left) {
        if let Err(error) = left.hand_over() {
            self.log(&Line::failure(
                Level::Warn,
                "what a child has left running may wait for ever when it writes",
                &error,
            ));
        }
    }

    // ---- SIGCHLD ----

    /// Begins or ends to catch SIGCHLD, as is wanted now; whether it has begun.
    fn settle_sigchld(&self, state: &mut State) -> bool {
        let wanted = state.children.want_sigchld() && !self.is_beside() && !state.closed && !self.is_stolen();
        match (wanted, state.children.sigchld.take()) {
            (true, None) => match self.subscribe() {
                Ok(subscriber) => {
                    state.children.sigchld = Some(subscriber);
                    return true;
                }
                Err(errno) => uncaught(state, Level::Warn, Some(errno), "making a descriptor for it"),
            },
            (false, Some(subscriber)) => self.reactor.remove(subscriber.as_fd().as_raw_fd()),
            (_, as_it_is) => state.children.sigchld = as_it_is,
        }
        false
    }

    fn subscribe(&self) -> std::result::Result<Subscriber, Errno> {
        let subscriber = Subscriber::new()?;
        self.reactor.add(subscriber.as_fd().as_raw_fd(), libc::POLLIN, Token::Sigchld.into())?;
        Ok(subscriber)
    }

    /// There was a SIGCHLD.
    pub(super) fn sigchld(&self, state: &mut State) {
        if let Some(subscriber) = &state.children.sigchld {
            subscriber.quiet();
            state.outbox.push_back(Item::Reap);
        }
    }

    /// From the outbox: reaps what is to be reaped, one at a time, since the application may change its mind.
    pub(super) fn reap(&self) {
        let mut steps = Steps::default();
        loop {
            let mut state = self.state.lock();
            let reaped = match &state.children.sigchld {
                Some(_) if state.children.reap_all() => process::reap_any(),
                _ => None,
            };
            match reaped {
                Some(Reaped::Other { pid, status }) => {
                    let hooks = state.children.hooks.clone();
                    drop(state);
                    steps.take(|| self.reaped_other(&*hooks, pid, status));
                }
                ours => {
                    let may_reap = state.children.reap_ours();
                    self.look_at_children(&mut state, may_reap);
                    steps.take(|| self.flush(state));
                    if ours.is_none() {
                        break;
                    }
                }
            }
        }
        steps.end();
    }

    fn reaped_other(&self, hooks: &dyn Hooks, pid: pid_t, status: c_int) {
        match hooks.reaped(pid, status) {
            Answer::Noted => {}
            Answer::Unknown => {
                let text = format!("child {pid}, which nobody knows, {}", describe(status));
                self.log(&Line::new(Level::Warn, text).of(Kind::Named("child, which nobody knows")));
            }
            Answer::Failed(rc) => {
                let message =
                    format!("the application's reaped_callback has failed with {rc}: child {pid}, {status:#x}");
                self.disaster(0, &message, 0);
            }
        }
    }

    /// The application, which owns SIGCHLD, has reaped a child. Whether it was one of this context's.
    pub fn childproc_reaped(&self, pid: pid_t, status: c_int) -> Result<bool> {
        let mut state = self.state.lock();
        state.children.mainloop_only()?;
        let Some(id) = state.children.id_of(pid) else { return Ok(false) };
        if libc::WIFEXITED(status) || libc::WIFSIGNALED(status) {
            process::tell(pid, status);
            self.look_at_child(&mut state, id);
        } else {
            let line = Line::new(Level::Warn, format!("child {pid} has not ended: it {}", describe(status)));
            state.outbox.push_back(Item::Log(line.of(Kind::Named("child has not ended"))));
        }
        self.flush(state);
        Ok(true)
    }

    /// The application, which owns SIGCHLD, has seen one, and has us reap our own.
    pub fn childproc_sigchld_occurred(&self) -> Result<()> {
        let mut state = self.state.lock();
        state.children.mainloop_only()?;
        self.look_at_children(&mut state, true);
        self.flush(state);
        Ok(())
    }

    // ---- beside libxenlight ----

    /// libxenlight forks. What it does in the child is its matter.
    pub fn libxl_fork(&self) -> pid_t {
        let hooks = self.state.lock().children.hooks.clone();
        hooks.fork()
    }

    /// libxenlight has reaped a child that isn't its own: ours, or the application's.
    pub fn libxl_reaped(&self, pid: pid_t, status: c_int) -> Answer {
        let ours = process::tell(pid, status);
        let mut state = self.state.lock();
        if !ours {
            let hooks = state.children.hooks.clone();
            drop(state);
            return hooks.reaped(pid, status);
        }
        if let Some(id) = state.children.id_of(pid) {
            self.look_at_child(&mut state, id);
        }
        self.flush(state);
        Answer::Noted
    }
}

/// Says so if the application has a handler where ours should be.
fn check_handler(state: &mut State) {
    if state.children.sigchld.as_ref().is_some_and(|subscriber| subscriber.handler() == Handler::Foreign) {
        let text =
            "the application has a handler of its own, which stays; it should say so with libxl_childproc_setmode";
        uncaught(state, Level::Info, None, text);
    }
}

/// SIGCHLD isn't caught. Whoever has asked for that with a mode is told that it has failed. In default mode it is caught for
/// each child again, and isn't needed for ours, which are followed by pidfds: one line will do, of this level.
fn uncaught(state: &mut State, level: Level, errno: Option<Errno>, why: &str) {
    let by_default = state.children.owner == Owner::Libxl;
    if by_default && std::mem::replace(&mut state.children.uncaught_told, true) {
        return;
    }
    let level = if by_default { level } else { Level::Error };
    let line = Line::new(level, format!("SIGCHLD isn't caught: {why}"));
    state.outbox.push_back(Item::Log(match errno {
        Some(errno) => line.with_errno(errno),
        None => line,
    }));
}

impl Children {
    fn id_of(&self, pid: pid_t) -> Option<u32> {
        self.running.iter().find(|(_, running)| running.child.pid() == pid).map(|(id, _)| *id)
    }

    fn mainloop_only(&self) -> Result<()> {
        match self.owner {
            Owner::Mainloop => Ok(()),
            owner => Err(Error::Invalid(format!(
                "only for an application that owns SIGCHLD (libxl_sigchld_owner_mainloop), not with {owner:?}"
            ))),
        }
    }
}
