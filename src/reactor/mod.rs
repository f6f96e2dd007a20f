// SPDX-License-Identifier: LGPL-2.1-or-later
//! The one place that waits.
//!
//! ```text
//!   application's loop ──▶ outer epoll ──┬── application's wake-up (eventfd)
//!                                        └── inner epoll ──┬── xenstored's watches, its hang-up
//!   a thread in event_wait ──┬──▶ inner epoll              ├── one timerfd
//!                            └── waiter's wake-up (eventfd) └── libxenlight's descriptors
//! ```
//!
//! Everything that a context waits for is in the inner epoll, level-triggered. Two kinds of waiters look at it: the
//! application's own loop through the outer epoll, the only descriptor that it ever sees, and at most one thread inside
//! `libxl_event_wait`. Each kind has a wake-up of its own, for "look at the queue": only its own kind takes it back, so
//! neither can swallow the other's.
//!
//! **Liveness.** Whoever waits is woken by whatever becomes ready, when added before or during the wait:
//!
//! 1. A source is added to, changed in and removed from the inner epoll, a kernel object. Everyone waits on that object
//!    itself, never on a copy of its members, so there is no stale set.
//! 2. Sources are level-triggered, and only a turn under the context's lock takes a source's readiness away, having done
//!    what it asked for. A waiter that goes back to sleep because another thread was quicker has missed nothing but work.
//! 3. Work done by another thread matters to a waiter only if it queued an event, and whoever queues one raises the
//!    wake-ups of both kinds under the same lock. A wake-up is taken back only by its kind, under that lock, before it
//!    looks at the queue: an event queued before the look is seen, one queued after it raises the wake-up again.
//! 4. More threads in `libxl_event_wait` wait for the first to leave the descriptors to them (`context::retrieval`).
//!
//! `context::liveness` explores every order of these steps.

mod timers;

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use nix::time::clock_gettime;

use crate::error::{Error, Result};

pub use timers::{TimerId, Timers};

/// A point in time on CLOCK_MONOTONIC.
pub type Monotonic = Duration;

/// Now, on CLOCK_MONOTONIC.
pub fn now() -> Monotonic {
    // A clock that every Linux has had since 2.6: there is nothing to fail.
    clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from)
}

/// How many ready sources one turn takes in; the rest stay ready for the next.
const READY_AT_ONCE: usize = 64;

/// Something that was ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ready {
    /// What the source was added with.
    pub token: u64,
    /// As poll(2) would report it.
    pub revents: i16,
}

/// The descriptors. All methods may be called from any thread; those that change what waiters see are called under the
/// context's lock.
#[derive(Debug)]
pub struct Reactor {
    inner: Epoll,
    outer: Epoll,
    application: EventFd,
    waiter: EventFd,
    timer: TimerFd,
}

impl Reactor {
    /// Creates the descriptors; `timer_token` is reported when the timer runs out.
    pub fn new(timer_token: u64) -> Result<Self> {
        let failed = |what: &'static str| move |errno| Error::os(what, errno);
        let epoll = || Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(failed("creating an epoll descriptor"));
        let eventfd = || {
            EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK).map_err(failed("creating an eventfd"))
        };
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK)
            .map_err(failed("creating a timerfd"))?;
        let reactor = Reactor { inner: epoll()?, outer: epoll()?, application: eventfd()?, waiter: eventfd()?, timer };
        let fill = || {
            reactor.inner.add(&reactor.timer, EpollEvent::new(EpollFlags::EPOLLIN, timer_token))?;
            reactor.outer.add(&reactor.inner.0, EpollEvent::new(EpollFlags::EPOLLIN, 0))?;
            reactor.outer.add(&reactor.application, EpollEvent::new(EpollFlags::EPOLLIN, 0))
        };
        fill().map_err(failed("filling an epoll descriptor"))?;
        Ok(reactor)
    }

    /// The application's descriptor: readable when there is something to do.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.outer.0.as_fd()
    }

    /// All descriptors, for a forked child to close.
    pub fn descriptors(&self) -> [RawFd; 5] {
        [
            self.outer.0.as_raw_fd(),
            self.inner.0.as_raw_fd(),
            self.application.as_fd().as_raw_fd(),
            self.waiter.as_fd().as_raw_fd(),
            self.timer.as_fd().as_raw_fd(),
        ]
    }

    /// Adds a source. `events` are poll(2)'s. EEXIST if the descriptor is there already, EPERM if it is of a kind that is
    /// always ready (a file on a disk).
    pub fn add(&self, fd: RawFd, events: i16, token: u64) -> std::result::Result<(), Errno> {
        self.inner.add(borrow(fd)?, EpollEvent::new(interest(events), token))
    }

    /// Changes what a source is watched for.
    pub fn modify(&self, fd: RawFd, events: i16, token: u64) -> std::result::Result<(), Errno> {
        self.inner.modify(borrow(fd)?, &mut EpollEvent::new(interest(events), token))
    }

    /// Removes a source. One that is gone already (its descriptor was closed) is no error.
    pub fn remove(&self, fd: RawFd) {
        let _ = borrow(fd).and_then(|fd| self.inner.delete(fd));
    }

    /// What is ready now; never waits.
    pub fn ready(&self) -> impl Iterator<Item = Ready> + use<> {
        let mut events = [EpollEvent::empty(); READY_AT_ONCE];
        // It can only fail for arguments that are right here.
        let count = self.inner.wait(&mut events, EpollTimeout::ZERO).unwrap_or(0);
        events.into_iter().take(count).map(|event| {
            // EPOLLIN and its like have poll's values.
            Ready { token: event.data(), revents: event.events().bits() as i16 }
        })
    }

    /// Sleeps until a source is ready, the waiter's wake-up is raised, or a signal is caught.
    pub fn wait(&self) {
        let mut fds =
            [PollFd::new(self.inner.0.as_fd(), PollFlags::POLLIN), PollFd::new(self.waiter.as_fd(), PollFlags::POLLIN)];
        match nix::poll::poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            // ENOMEM is all that is left: give the system a moment rather than spin.
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    }

    /// Raises the wake-up of the thread in [`Reactor::wait`].
    pub fn wake_waiter(&self) {
        let _ = self.waiter.write(1);
    }

    /// Takes it back.
    pub fn quiet_waiter(&self) {
        let _ = self.waiter.read();
    }

    /// Raises the wake-up of the application's loop.
    pub fn wake_application(&self) {
        let _ = self.application.write(1);
    }

    /// Takes it back.
    pub fn quiet_application(&self) {
        let _ = self.application.read();
    }

    /// Lets the timer run out at `deadline`, at once if that is past.
    pub fn set_timer(&self, deadline: Monotonic) {
        // Zero would disarm it.
        let deadline = TimeSpec::from_duration(deadline.max(Duration::from_nanos(1)));
        // It can only fail for arguments that are right here.
        let _ = self.timer.set(Expiration::OneShot(deadline), TimerSetTimeFlags::TFD_TIMER_ABSTIME);
    }

    /// Takes in that the timer has run out.
    pub fn quiet_timer(&self) {
        let mut count = [0; 8];
        let _ = nix::unistd::read(&self.timer, &mut count);
    }
}

fn interest(events: i16) -> EpollFlags {
    EpollFlags::from_bits_truncate(i32::from(events))
}

fn borrow(fd: RawFd) -> std::result::Result<BorrowedFd<'static>, Errno> {
    if fd < 0 {
        return Err(Errno::EBADF);
    }
    // SAFETY: not negative, and only passed to epoll_ctl, which takes any such number; the borrow ends there. Who
    // registers a descriptor answers for its being open (`fd_register`'s contract); if it isn't, epoll_ctl says EBADF.
    Ok(unsafe { BorrowedFd::borrow_raw(fd) })
}

#[cfg(test)]
mod tests;
