// SPDX-License-Identifier: LGPL-2.1-or-later
//! What libxenlight waits for, kept in our reactor on its behalf.
//!
//! libxenlight calls the methods of [`Context`] here from its hooks, with its own lock held; it is never called back
//! from them. What became ready is told to it from the outbox.

use std::cell::Cell;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::errno::Errno;

use super::outbox::Item;
use super::turn::{Later, Token, VERSION_MASK};
use super::{Context, State};
use crate::error::{Error, Result};
use crate::event::Event;
use crate::guard::Replaced;
use crate::reactor::{Monotonic, Reactor, TimerId, now};

/// A value of libxenlight's that goes back to it. It ignores one that is stale.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ForLibxl(pub usize);

/// The context of libxenlight's that ours is beside. Called with no lock held.
pub trait Libxl: Send + Sync {
    /// A descriptor is ready.
    fn occurred_fd(&self, for_libxl: ForLibxl, fd: i32, events: i16, revents: i16);

    /// A timeout has passed.
    fn occurred_timeout(&self, for_libxl: ForLibxl);
}

/// Names a registered descriptor. Never used twice in a context.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RegistrationId(pub u64);

/// Names a registered timeout. Never used twice in a context.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TimeoutId(pub u64);

#[derive(Debug)]
struct Registration {
    id: RegistrationId,
    events: i16,
    for_libxl: ForLibxl,
}

/// A descriptor, which may be registered more than once.
#[derive(Debug)]
struct Descriptor {
    version: u32,
    registrations: Vec<Registration>,
    presence: Presence,
}

/// Where a descriptor stands with the reactor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Presence {
    /// Nobody wants anything of it. It must not be in the epoll set, where a hang-up would be reported for ever.
    Absent,
    /// In the epoll set.
    Waiting,
    /// A file on a disk: always ready, says poll(2), and epoll doesn't take it.
    AlwaysReady,
}

/// All that libxenlight has registered.
#[derive(Debug, Default)]
pub(super) struct Sources {
    descriptors: HashMap<i32, Descriptor>,
    timeouts: HashMap<TimeoutId, (ForLibxl, TimerId)>,
    next: u64,
    /// [`Later::AlwaysReady`] is among the timers.
    always_ready_due: bool,
}

/// What poll(2) reports whether it was asked for or not.
const UNASKED: i16 = libc::POLLERR | libc::POLLHUP | libc::POLLNVAL;

impl Sources {
    /// Nothing is registered.
    pub(super) fn is_empty(&self) -> bool {
        self.descriptors.is_empty() && self.timeouts.is_empty()
    }

    /// Forgets everything: libxenlight's context is gone.
    pub(super) fn clear(&mut self) {
        self.descriptors.clear();
        self.timeouts.clear();
    }

    /// A descriptor in the epoll set is ready: everyone who asked for one of the bits is told.
    pub(super) fn ready(&self, fd: i32, version: u32, revents: i16, outbox: &mut VecDeque<Item>) {
        let Some(descriptor) = self.descriptors.get(&fd).filter(|descriptor| descriptor.version == version) else {
            return;
        };
        for Registration { events, for_libxl, .. } in &descriptor.registrations {
            let (events, for_libxl) = (*events, *for_libxl);
            let revents = revents & (events | UNASKED);
            if revents != 0 && events != 0 {
                outbox.push_back(Item::LibxlFd { for_libxl, fd, events, revents });
            }
        }
    }

    /// A descriptor is registered that has this token.
    pub(super) fn knows(&self, fd: i32, version: u32) -> bool {
        self.descriptors.get(&fd).is_some_and(|descriptor| descriptor.version == version)
    }

    /// Tells of the descriptors that are always ready; whether there are any.
    pub(super) fn always_ready(&self, outbox: &mut VecDeque<Item>) -> bool {
        let mut any = false;
        for (fd, descriptor) in &self.descriptors {
            if descriptor.presence == Presence::AlwaysReady {
                any = true;
                self.ready(*fd, descriptor.version, libc::POLLIN | libc::POLLOUT, outbox);
            }
        }
        any
    }

    /// A timeout has passed. Its registration is over.
    pub(super) fn passed(&mut self, id: TimeoutId, outbox: &mut VecDeque<Item>) {
        if let Some((for_libxl, _)) = self.timeouts.remove(&id) {
            outbox.push_back(Item::LibxlTimeout(for_libxl));
        }
    }

    fn next_id(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}

impl Descriptor {
    /// Brings the reactor in line with what is wanted now.
    fn settle(&mut self, fd: i32, reactor: &Reactor) -> std::result::Result<(), Errno> {
        let wanted = self.registrations.iter().fold(0, |events, registration| events | registration.events);
        let token = Token::Libxl { fd, version: self.version }.into();
        self.presence = match (self.presence, wanted) {
            (Presence::Waiting, 0) => {
                reactor.remove(fd);
                Presence::Absent
            }
            (_, 0) => Presence::Absent,
            (Presence::Waiting, _) => {
                reactor.modify(fd, wanted, token)?;
                Presence::Waiting
            }
            (Presence::AlwaysReady, _) => Presence::AlwaysReady,
            (Presence::Absent, _) => match reactor.add(fd, wanted, token) {
                Ok(()) => Presence::Waiting,
                Err(Errno::EPERM) => Presence::AlwaysReady,
                Err(errno) => return Err(errno),
            },
        };
        Ok(())
    }
}

crate::sync::thread_local! {
    /// This thread is inside libxenlight because we have called it.
    static DISPATCHING: Cell<bool> = const { Cell::new(false) };
}

/// Calls libxenlight from the outbox.
pub(super) fn dispatch(call: impl FnOnce()) {
    DISPATCHING.with(|dispatching| {
        let _mark = Replaced::with(dispatching, true);
        call();
    });
}

impl Context {
    /// libxenlight is at work. If not on our account, the application has called it; what came of that, a look at the
    /// queue must know ([`Context::check`]).
    fn stir(&self) {
        if !DISPATCHING.with(Cell::get) {
            self.stirred.store(true, Ordering::Relaxed);
        }
    }

    /// libxenlight waits for a descriptor.
    pub fn libxl_fd_register(&self, fd: i32, events: i16, for_libxl: ForLibxl) -> Result<RegistrationId> {
        self.stir();
        let mut state = self.state.lock();
        self.register_descriptor(&mut state)?;
        let id = RegistrationId(state.companion.next_id());
        let version = id.0 as u32 & VERSION_MASK;
        let absent = || Descriptor { version, registrations: Vec::new(), presence: Presence::Absent };
        let descriptor = state.companion.descriptors.entry(fd).or_insert_with(absent);
        descriptor.registrations.push(Registration { id, events, for_libxl });
        let result = self.settle(&mut state, fd);
        if let Err(errno) = result {
            self.drop_registration(&mut state, fd, id);
            self.release_descriptor(&mut state);
            return Err(Error::os(format!("waiting for libxenlight's descriptor {fd}"), errno));
        }
        Ok(id)
    }

    /// It waits for something else of it.
    pub fn libxl_fd_modify(&self, fd: i32, id: RegistrationId, events: i16) -> Result<()> {
        self.stir();
        let mut state = self.state.lock();
        let registration = state
            .companion
            .descriptors
            .get_mut(&fd)
            .and_then(|descriptor| descriptor.registrations.iter_mut().find(|registration| registration.id == id));
        let Some(registration) = registration else {
            return Err(Error::Invalid(format!("descriptor {fd} isn't registered")));
        };
        let before = std::mem::replace(&mut registration.events, events);
        self.settle(&mut state, fd).map_err(|errno| {
            // A refused change leaves things as they were.
            let descriptor = state.companion.descriptors.get_mut(&fd);
            let mut registrations = descriptor.into_iter().flat_map(|descriptor| &mut descriptor.registrations);
            if let Some(registration) = registrations.find(|registration| registration.id == id) {
                registration.events = before;
            }
            Error::os(format!("waiting for libxenlight's descriptor {fd}"), errno)
        })
    }

    /// It no longer waits for it.
    pub fn libxl_fd_deregister(&self, fd: i32, id: RegistrationId) {
        self.stir();
        let mut state = self.state.lock();
        self.drop_registration(&mut state, fd, id);
        self.release_descriptor(&mut state);
    }

    /// It wants to be told at a time of day.
    pub fn libxl_timeout_register(&self, at: Duration, for_libxl: ForLibxl) -> Result<TimeoutId> {
        self.stir();
        let mut state = self.state.lock();
        self.register_descriptor(&mut state)?;
        let id = TimeoutId(state.companion.next_id());
        let timer = self.schedule(&mut state, monotonic(at), Later::Libxl(id));
        state.companion.timeouts.insert(id, (for_libxl, timer));
        Ok(id)
    }

    /// It wants to be told as soon as possible. A timeout that is passing just now passes once.
    pub fn libxl_timeout_hasten(&self, id: TimeoutId) {
        self.stir();
        let mut state = self.state.lock();
        let Some((_, timer)) = state.companion.timeouts.get(&id).copied() else { return };
        if state.timers.remove(timer).is_some() {
            let timer = self.schedule(&mut state, now(), Later::Libxl(id));
            if let Some((_, pending)) = state.companion.timeouts.get_mut(&id) {
                *pending = timer;
            }
        }
    }

    /// libxenlight has an event for the application.
    pub fn libxl_event(&self, event: Event) {
        self.stir();
        let mut state = self.state.lock();
        self.deliver(&mut state, event);
        self.flush(state);
    }

    fn settle(&self, state: &mut State, fd: i32) -> std::result::Result<(), Errno> {
        let Some(descriptor) = state.companion.descriptors.get_mut(&fd) else { return Ok(()) };
        let before = descriptor.presence;
        descriptor.settle(fd, &self.reactor)?;
        if before != Presence::AlwaysReady && descriptor.presence == Presence::AlwaysReady {
            self.plan_always_ready(state);
        }
        Ok(())
    }

    /// Once a turn, for all of them.
    fn plan_always_ready(&self, state: &mut State) {
        if !state.companion.always_ready_due {
            state.companion.always_ready_due = true;
            self.schedule(state, now(), Later::AlwaysReady);
        }
    }

    /// Tells libxenlight of its descriptors that are always ready, and has that done again as long as there are any.
    pub(super) fn always_ready(&self, state: &mut State) {
        state.companion.always_ready_due = false;
        if state.companion.always_ready(&mut state.outbox) {
            self.plan_always_ready(state);
        }
    }

    fn drop_registration(&self, state: &mut State, fd: i32, id: RegistrationId) {
        let Some(descriptor) = state.companion.descriptors.get_mut(&fd) else { return };
        descriptor.registrations.retain(|registration| registration.id != id);
        // Asking for less can't fail.
        let _ = descriptor.settle(fd, &self.reactor);
        if descriptor.registrations.is_empty() {
            state.companion.descriptors.remove(&fd);
        }
    }
}

/// A time of day on our clock. libxl counts on gettimeofday; should the day's time be set meanwhile, the timeout still
/// comes after the time that it had left.
fn monotonic(at: Duration) -> Monotonic {
    let time_of_day = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now() + at.saturating_sub(time_of_day)
}
