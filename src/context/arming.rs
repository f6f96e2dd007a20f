// SPDX-License-Identifier: LGPL-2.1-or-later
//! What we are connected to: the application's loop, the hypervisor, xenstored's watches; and getting it back.
//!
//! These steps wait, or call the application, so they are done without the lock. The *gate* makes each one step for
//! others: its holder alone changes `armed`, `registered` and the connections, and whoever depends on them waits for it
//! to open. The thread that holds it may come in again (from a hook), and is let through.

use std::ffi::{CStr, CString};
use std::os::fd::AsRawFd;
use std::time::Duration;

use nix::errno::Errno;

use super::eject::EJECT_NODE;
use super::outbox::Item;
use super::targeting::{DOMAIN_TOKEN, INTRODUCE_TOKEN, RELEASE_TOKEN, Wanted, unwatch, watch_domains};
use super::tasks::TaskId;
use super::turn::{Later, Token};
use super::{Context, State, neighbours};
use crate::error::{Error, Result};
use crate::evgen::disk_eject::DriveId;
use crate::evgen::targets::{Subject, Targets};
use crate::evgen::vbd::Frontend;
use crate::guard::Steps;
use crate::reactor::{Monotonic, TimerId, now, stolen};
use crate::sync::MutexGuard;
use crate::xen::DOMID_LIMIT;
use crate::xen::hypervisor::Hypervisor;
use crate::xen::idle::Idle;
use crate::xen::log::{Kind, Level, Line};
use crate::xen::store::Store;

/// What a watch is for. Its token says so; xenstored and its logs see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Watch {
    /// Domains that end, or one.
    Release,
    /// New domains.
    Introduce,
    /// A drive.
    Drive(DriveId),
    /// A device in an operation.
    Task(TaskId),
}

/// Before a drive's number.
const DRIVE_TOKEN: &str = "xlevent-drive-";

impl Watch {
    /// The watch of this token. Costs no allocation: there may be a firing for every domain of the host.
    pub(super) fn of(token: &CStr) -> Option<Watch> {
        if token == RELEASE_TOKEN || token == DOMAIN_TOKEN {
            return Some(Watch::Release);
        }
        if token == INTRODUCE_TOKEN {
            return Some(Watch::Introduce);
        }
        let token = token.to_str().ok()?;
        if let Some(number) = token.strip_prefix(DRIVE_TOKEN) {
            return Some(Watch::Drive(DriveId(number.parse().ok()?)));
        }
        let number = token.strip_prefix(Watch::TASK_TOKEN)?;
        Some(Watch::Task(TaskId(number.parse().ok()?)))
    }

    /// Before a task's number.
    pub(super) const TASK_TOKEN: &str = "xlevent-task-";

    /// A drive's token.
    pub(super) fn drive_token(id: DriveId) -> CString {
        // Letters and a number: there is no zero byte to fail for.
        CString::new(format!("{DRIVE_TOKEN}{}", id.0)).unwrap_or_default()
    }
}

/// A time without xenstored.
#[derive(Debug)]
pub(super) struct Outage {
    since: Monotonic,
    tries: u32,
    told: bool,
    /// When it is looked for next. There is one such time, whatever has ended before and begun again.
    timer: Option<TimerId>,
    /// The connection that was lost, to be closed with the first look: who closes it at once meets libxenstore's own
    /// thread closing it.
    lost: Option<Store>,
    /// A connection to a daemon, which was asked something. What waits for the daemon is only begun when it has answered: one
    /// that is busy, or hangs, holds nobody up.
    probe: Option<Idle>,
    /// It has.
    answered: bool,
}

impl Outage {
    fn new(lost: Option<Store>) -> Self {
        Outage { since: now(), tries: 0, told: false, timer: None, lost, probe: None, answered: false }
    }

    /// The connection to a daemon that was found, and may not have answered yet.
    pub(super) fn probe(&self) -> Option<&Idle> {
        self.probe.as_ref()
    }
}

/// What a connection on which nothing waits is watched for.
const ANSWER_OR_END: i16 = libc::POLLIN | libc::POLLRDHUP;

/// The pause before the first try; it doubles up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// More don't count.
const MOST_TRIES: u32 = 16;

/// The pause before the next try, after so many.
fn pause_after(tries: u32) -> Duration {
    FIRST_PAUSE.saturating_mul(2u32.saturating_pow(tries)).min(LONGEST_PAUSE)
}

/// Some part of a pause, another each time. A daemon that is back lets in few at once; contexts that have all come to it at the same
/// time, and were turned away, would go on to do so.
fn some_of(pause: Duration, now: Monotonic) -> Duration {
    let mixed = now.subsec_nanos().wrapping_mul(0x9e37_79b1);
    pause * (mixed >> 24) / 256
}

/// xenstored was found again.
#[derive(Debug, Clone, Copy)]
pub(super) struct Returned {
    at: Monotonic,
    tries: u32,
}

impl Returned {
    /// How many tries the next outage begins with, if it begins now.
    fn tries_if_lost(self, now: Monotonic) -> u32 {
        let soon = now < self.at + LONGEST_PAUSE;
        if soon { (self.tries + 1).min(MOST_TRIES) } else { 0 }
    }
}

/// What a daemon that was found is asked about; any domain would do.
const CONTROL_DOMAIN: u32 = 0;

/// For [`Context::arm`], where all generators are there already.
const NO_DOMAIN_IN_PARTICULAR: Subject = Subject::Domain(DOMID_LIMIT);

/// libxenstore reads in a thread of its own. If that ends for a reason of its own, as when there is no memory for a message,
/// or after a request that could not be written, nobody is told, and the daemon is still there. So the connection is looked at
/// so often, without asking the daemon; with many contexts each seldomer, so that a process isn't woken more often.
pub(super) const PULSE: Duration = Duration::from_secs(10);

/// And each at least once in so many pulses.
pub(super) const PULSES_AT_MOST: usize = 60;

/// An outage of this length is a disaster, though none that ends a program which can't be told of it. Trying goes on after it.
const DISASTER_AFTER: Duration = Duration::from_secs(60);

impl Context {
    /// Sees to it that a generator for this is served; true if a watch was set by this call which will have everything
    /// looked at that has generators when the lock is given up. On failure all is as before.
    pub(super) fn arm(&self, state: &mut MutexGuard<'_, State>, subject: Subject) -> Result<bool> {
        if state.closed {
            return Err(Error::Invalid("the context is being freed".to_owned()));
        }
        self.refuse_if_stolen()?;
        if state.armed && state.gate.is_none() && state.targets.covers(subject) {
            return Ok(false);
        }
        let Some(mut gate) = self.enter_gate(state) else {
            // From a hook that this very step has called: it will be served when the step is done.
            self.plan_retarget(state, now());
            return Ok(false);
        };
        if gate.armed {
            // The new watch may have fired, and found nothing, before there is the generator.
            self.watch_subject(&mut gate, subject).map(|()| false)
        } else {
            self.arm_in_gate(&mut gate, Some(subject)).map(|()| gate.targets.tells_of(subject))
        }
    }

    pub(super) fn arm_in_gate(&self, state: &mut MutexGuard<'_, State>, subject: Option<Subject>) -> Result<()> {
        if !self.reactor.is_ours() || !self.store_is_ours(state) {
            return Err(stolen());
        }
        self.register_in_gate(state)?;
        self.forget_store_pointer();
        let store = state.store.take();
        let need_hypervisor = state.hypervisor.is_none();
        let wanted = state.wanted_domains(subject);
        // After a panic, which the log may have brought, there is no connection, and all is as before too.
        let mut steps = Steps::default();
        let connected = steps.take(|| {
            MutexGuard::unlocked(state, || {
                let hypervisor = if need_hypervisor {
                    let (hypervisor, lines) = Hypervisor::open();
                    lines.iter().for_each(|line| self.log(line));
                    Some(hypervisor?)
                } else {
                    None
                };
                Ok((hypervisor, watched_store(store, &wanted)?))
            })
        });
        let connected = connected.unwrap_or_else(|| Err(Error::panicked()));
        let result = connected.and_then(|(hypervisor, store)| {
            if hypervisor.is_some() {
                state.hypervisor = hypervisor;
            }
            self.install_store(state, store)
        });
        match result {
            Ok(()) => {
                state.armed = true;
                self.plan_pulse(state);
                neighbours::enter(&self.me);
            }
            Err(_) => {
                steps.take(|| self.release_in_gate(state));
            }
        }
        self.remember_connections(state);
        steps.end();
        result
    }

    /// Puts a watched connection's descriptors into the reactor.
    fn install_store(&self, state: &mut State, (store, targets): (Store, Targets)) -> Result<()> {
        let failed = |errno| Error::os("waiting for xenstored's watches", errno);
        self.reactor.add(store.fd(), libc::POLLIN, Token::Watch.into()).map_err(failed)?;
        let added = store.idle().map(|idle| self.reactor.add(idle.fd().as_raw_fd(), ANSWER_OR_END, Token::Idle.into()));
        if let Some(Err(errno)) = added {
            self.reactor.remove(store.fd());
            return Err(failed(errno));
        }
        state.store = Some(store);
        state.targets = targets;
        Ok(())
    }

    fn uninstall_store(&self, store: &Store) {
        self.reactor.remove(store.fd());
        if let Some(idle) = store.idle() {
            self.reactor.remove(idle.fd().as_raw_fd());
        }
    }

    /// Takes the watches away when no generator is left.
    pub(super) fn disarm(&self, state: &mut MutexGuard<'_, State>) {
        if !state.generates_nothing() || !state.armed {
            return;
        }
        let Some(mut gate) = self.enter_gate(state) else { return };
        let mut steps = Steps::default();
        // Others may have come and gone while we waited for the gate.
        if gate.generates_nothing() && gate.armed {
            steps.take(|| self.disarm_in_gate(&mut gate));
            self.remember_connections(&gate);
            steps.take(|| self.release_in_gate(&mut gate));
        }
        drop(gate);
        // An enable of another thread's that came in meanwhile has waited for the gate, and arms again by itself. One from
        // the hook that we have called could not wait, and was told that it is served.
        if !state.domains.is_empty() && !state.armed && !state.closed {
            if let Err(error) = self.arm(state, NO_DOMAIN_IN_PARTICULAR) {
                state.outbox.push_back(Item::Disaster {
                    message: format!("a generator that a hook has enabled can't be served: {error}"),
                    errno: error.errno().map_or(0, |errno| errno as i32),
                });
            }
        }
        steps.end();
    }

    fn disarm_in_gate(&self, state: &mut MutexGuard<'_, State>) {
        state.armed = false;
        if let Some(pulse) = state.pulse.take() {
            state.timers.remove(pulse);
        }
        neighbours::leave(&self.me);
        self.forget_strangers(state);
        self.end_outage(state);
        let targets = state.targets.take();
        self.forget_store_pointer();
        if let Some(mut store) = state.store.take() {
            self.uninstall_store(&store);
            let (store, result) = MutexGuard::unlocked(state, || {
                let connection = store.connection();
                let result = targets.into_iter().try_for_each(|target| unwatch(&connection, target));
                store.stop_idling();
                // What has fired until then would lie there as long as nothing is watched: for a burst, much.
                while let Ok(Some(_)) = store.take_firing() {}
                // A connection that can't take a watch away is of no more use.
                (result.is_ok().then_some(store), result)
            });
            state.store = store;
            if let Err(error) = result {
                state.outbox.push_back(Item::Log(Line::failure(Level::Warn, "giving up a watch", &error)));
            }
        }
    }

    /// Asks the application to wait for our descriptor, if it has hooks and doesn't yet.
    pub(super) fn register_descriptor(&self, state: &mut MutexGuard<'_, State>) -> Result<()> {
        if state.os_hooks.is_none() || (state.registered && state.gate.is_none()) {
            return Ok(());
        }
        match self.enter_gate(state) {
            Some(mut gate) => self.register_in_gate(&mut gate),
            None => Ok(()),
        }
    }

    fn register_in_gate(&self, state: &mut MutexGuard<'_, State>) -> Result<()> {
        let Some(hooks) = state.os_hooks.clone().filter(|_| !state.registered) else { return Ok(()) };
        let fd = self.open_fd(state)?.as_raw_fd();
        MutexGuard::unlocked(state, || hooks.fd_register(fd)).map_err(Error::Hook)?;
        state.registered = true;
        Ok(())
    }

    /// Tells the application that there is nothing left to wait for, if that is so.
    pub(super) fn release_descriptor(&self, state: &mut MutexGuard<'_, State>) {
        if !state.registered {
            return;
        }
        if let Some(mut gate) = self.enter_gate(state) {
            self.release_in_gate(&mut gate);
        }
    }

    pub(super) fn release_in_gate(&self, state: &mut MutexGuard<'_, State>) {
        if state.armed || !state.companion.is_empty() || !state.children.is_idle() || !state.registered {
            return;
        }
        let (Some(hooks), Some(fd)) = (state.os_hooks.clone(), self.known_fd()) else { return };
        state.registered = false;
        MutexGuard::unlocked(state, || hooks.fd_deregister(fd));
    }

    /// Sees to it that the connection is looked at now and then.
    pub(super) fn plan_pulse(&self, state: &mut State) {
        if state.armed && state.pulse.is_none() {
            let pulses = neighbours::count().clamp(1, PULSES_AT_MOST) as u32;
            state.pulse = Some(self.schedule(state, now() + PULSE * pulses, Later::Pulse));
        }
    }

    /// The daemon is gone, or our connection to it is of no more use. Looks for it again soon.
    pub(super) fn store_lost(&self, state: &mut State, how: &str) {
        let Some(store) = state.store.take() else { return };
        state.counts.xenstored_losses += 1;
        self.uninstall_store(&store);
        state.targets = Targets::default();
        self.strangers_lost(state);
        self.remember_connections(state);
        store.connection().mark_broken();
        let line = Line::new(Level::Warn, format!("{how}; waiting for it to come back"));
        let line = line.of(Kind::News("xenstored is lost"));
        state.outbox.push_back(Item::Log(line));
        self.end_outage(state);
        // One that comes and goes is looked for no more often than one that stays away.
        let tries = state.returned.take().map_or(0, |returned| returned.tries_if_lost(now()));
        state.outage = Some(Outage { tries, ..Outage::new(Some(store)) });
        self.look_for_store(state, pause_after(tries));
    }

    /// Has xenstored looked for after this pause, and at no other time.
    pub(super) fn look_for_store(&self, state: &mut State, pause: Duration) {
        let timer = self.schedule(state, now() + pause, Later::Reconnect);
        let before = state.outage.get_or_insert_with(|| Outage::new(None)).timer.replace(timer);
        before.map(|before| state.timers.remove(before));
    }

    /// xenstored is back, or needn't be; how long it was away.
    pub(super) fn end_outage(&self, state: &mut State) -> Duration {
        self.drop_probe(state);
        let Some(outage) = state.outage.take() else { return Duration::ZERO };
        outage.timer.map(|timer| state.timers.remove(timer));
        state.outbox.extend(outage.lost.map(Box::new).map(Item::Close));
        now().saturating_sub(outage.since)
    }

    fn drop_probe(&self, state: &mut State) -> Option<Idle> {
        let outage = state.outage.as_mut()?;
        outage.answered = false;
        outage.probe.take().inspect(|probe| self.reactor.remove(probe.fd().as_raw_fd()))
    }

    /// The time to look for xenstored has come. Waits for nothing: one that is found is asked something, and what waits for it
    /// is done when it has answered.
    pub(super) fn look_for_xenstored(&self, state: &mut State) {
        let Some(outage) = &mut state.outage else { return };
        outage.timer = None;
        state.outbox.extend(outage.lost.take().map(Box::new).map(Item::Close));
        // The application may have closed that one's number: then nothing tells of an answer.
        match outage.probe.as_ref().filter(|probe| probe.is_ours()) {
            Some(_) if outage.answered => return state.outbox.push_back(Item::Reconnect),
            Some(_) => return self.still_out(state, &Error::os("waiting for an answer", Errno::ETIMEDOUT)),
            None => self.drop_probe(state),
        };
        match self.probe() {
            Ok(probe) => {
                state.outage.get_or_insert_with(|| Outage::new(None)).probe = Some(probe);
                self.remember_connections(state);
                self.look_for_store(state, LONGEST_PAUSE);
            }
            Err(error) => self.still_out(state, &error),
        }
    }

    /// Connects to xenstored's socket without waiting, and asks what only a daemon that serves requests answers.
    fn probe(&self) -> Result<Idle> {
        let failed = |errno| Error::os("asking xenstored something", errno);
        let mut probe = Idle::try_open()?.ok_or_else(|| Error::os("connecting to xenstored", Errno::ENOENT))?;
        probe.ask([CONTROL_DOMAIN]).map_err(failed)?;
        self.reactor.add(probe.fd().as_raw_fd(), ANSWER_OR_END, Token::Probe.into()).map_err(failed)?;
        Ok(probe)
    }

    /// The daemon that was found has answered, or is gone again.
    pub(super) fn probe_answered(&self, state: &mut State) {
        let Some(outage) = &mut state.outage else { return };
        match outage.probe.as_mut().map(Idle::answers) {
            Some(Ok(answers)) if !answers.is_empty() => {
                outage.answered = true;
                state.outbox.push_back(Item::Reconnect);
            }
            Some(Ok(_)) | None => {}
            Some(Err(errno)) => {
                self.drop_probe(state);
                self.remember_connections(state);
                // One that accepts and goes away again may do so for ever: no sooner than one that isn't there.
                self.still_out(state, &Error::os("asking xenstored something", errno));
            }
        }
    }

    /// Connects to a xenstored that has answered, and sets the watches again. A new watch fires at once, and so everything is
    /// looked at: what happened meanwhile is seen, since state is read, not counted.
    pub(super) fn reconnect(&self) {
        let mut lock = self.state.lock();
        let Some(mut state) = self.enter_gate(&mut lock) else {
            // Inside a hook that was called in the gate: not now.
            self.look_for_store(&mut lock, FIRST_PAUSE);
            return;
        };
        let is_due =
            state.armed && state.store.is_none() && state.outage.as_ref().is_some_and(|outage| outage.answered);
        if let Some(probe) = is_due.then(|| self.drop_probe(&mut state)).flatten() {
            let drives: Vec<(DriveId, Frontend)> = state.drives.watched().collect();
            let wanted = state.wanted_domains(None);
            self.forget_store_pointer();
            let connected =
                MutexGuard::unlocked(&mut state, || watch_all(Store::open_beside(probe)?, &drives, &wanted));
            match connected.and_then(|store| self.install_store(&mut state, store)) {
                Ok(()) => {
                    state.counts.reconnections += 1;
                    // None has come meanwhile, that takes the gate; but some may have gone.
                    drives.into_iter().for_each(|(id, frontend)| state.give_up_watch(id, frontend));
                    state.retarget_later();
                    state.tasks_reconnected();
                    self.all_may_be_strangers(&mut state);
                    let tries = state.outage.as_ref().map_or(0, |outage| outage.tries);
                    state.returned = Some(Returned { at: now(), tries });
                    let text = format!("xenstored is back after {:.1} s", self.end_outage(&mut state).as_secs_f64());
                    let line = Line::new(Level::Info, text).of(Kind::News("xenstored is back"));
                    state.outbox.push_back(Item::Log(line));
                }
                Err(error) => self.still_out(&mut state, &error),
            }
            self.remember_connections(&state);
        }
        drop(state);
        self.flush(lock);
    }

    fn still_out(&self, state: &mut State, error: &Error) {
        let outage = state.outage.get_or_insert_with(|| Outage::new(None));
        let mut pause = pause_after(outage.tries);
        if error.errno() == Some(Errno::EAGAIN) {
            pause = some_of(pause, now());
        }
        outage.tries = outage.tries.saturating_add(1).min(MOST_TRIES);
        if !outage.told && now().saturating_sub(outage.since) >= DISASTER_AFTER {
            outage.told = true;
            state.outbox.push_back(Item::LongOutage {
                message: format!("xenstored has been away for {} s: {error}", DISASTER_AFTER.as_secs()),
                errno: error.errno().unwrap_or(Errno::ENOTCONN) as i32,
            });
        }
        self.look_for_store(state, pause);
    }
}

/// A connection with the watches for domains set: the given one if it is still good, else a new one.
/// A store that is given is one that nothing else was watched on.
fn watched_store(store: Option<Store>, wanted: &Wanted) -> Result<(Store, Targets)> {
    if let Some(mut store) = store {
        // It may be from before a restart of the daemon. Nothing is offered by one that is gone, so that one watch at least
        // is tried on it, and fails.
        if let Ok(targets) = watch_domains(&mut store, wanted) {
            return Ok((store, targets));
        }
    }
    watch_all(Store::open()?, &[], wanted)
}

/// Sets all watches on a new connection.
fn watch_all(mut store: Store, drives: &[(DriveId, Frontend)], wanted: &Wanted) -> Result<(Store, Targets)> {
    let targets = watch_domains(&mut store, wanted)?;
    for (id, frontend) in drives {
        store.connection().watch(&frontend.node(EJECT_NODE), &Watch::drive_token(*id))?;
    }
    Ok((store, targets))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_firing_is_told_by_its_token() {
        assert_eq!(Watch::of(RELEASE_TOKEN), Some(Watch::Release));
        assert_eq!(Watch::of(DOMAIN_TOKEN), Some(Watch::Release));
        assert_eq!(Watch::of(INTRODUCE_TOKEN), Some(Watch::Introduce));
        for id in [DriveId(0), DriveId(7), DriveId(u64::MAX)] {
            assert_eq!(Watch::of(&Watch::drive_token(id)), Some(Watch::Drive(id)));
        }
        for id in [TaskId(0), TaskId(7), TaskId(u64::MAX)] {
            assert_eq!(Watch::of(&Watch::task_token(id)), Some(Watch::Task(id)));
        }
        for token in [c"", c"xlevent-", c"xlevent-drive-", c"xlevent-drive-x", c"xlevent-drive--1", c"drive-1", c"\xff"]
        {
            assert_eq!(Watch::of(token), None);
        }
    }

    #[test]
    fn who_was_turned_away_at_the_same_time_as_others_comes_again_at_another() {
        // As of contexts that are served one after the other.
        let pauses: Vec<Duration> =
            (0..100).map(|nth| some_of(LONGEST_PAUSE, Duration::new(7, 1000 + nth * 9973))).collect();
        assert!(pauses.iter().all(|pause| *pause < LONGEST_PAUSE));
        for tenth in 0..10 {
            let here = pauses.iter().filter(|pause| pause.as_millis() / 100 == tenth).count();
            assert!((5..=20).contains(&here), "{here} in tenth {tenth}");
        }
    }

    #[test]
    fn one_that_comes_and_goes_is_looked_for_ever_more_seldom() {
        let at = Duration::from_secs(100);
        let mut returned = Returned { at, tries: 0 };
        let mut pauses = Vec::new();
        for _ in 0..100 {
            returned.tries = returned.tries_if_lost(at);
            pauses.push(pause_after(returned.tries).as_millis());
        }
        assert_eq!(pauses[..8], [20, 40, 80, 160, 320, 640, 1000, 1000]);
        assert_eq!(pauses.last(), Some(&1000));
        assert_eq!(returned.tries_if_lost(at + LONGEST_PAUSE), 0, "it has stayed for a while");
    }

    #[test]
    fn a_program_without_a_disaster_callback_outlives_a_long_outage() {
        let (context, _) = super::super::tests::context();
        let mut state = context.state.lock();
        let since = now().saturating_sub(DISASTER_AFTER);
        state.outage = Some(Outage { since, ..Outage::new(None) });
        for _ in 0..3 {
            context.still_out(&mut state, &Error::os("connecting", Errno::ENOENT));
        }
        context.flush(state);
        // Told once, and this process is still there.
        assert_eq!(context.stats().counts.disasters, 1);
    }
}
