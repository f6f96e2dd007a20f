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
//! application's own loop through the outer epoll, the only descriptor that it ever sees, and at most one thread that waits
//! for an event. Each kind has a wake-up of its own, for "look at your queue": only its own kind takes it back, so
//! neither can swallow the other's. What a kind of waiter needs is made when the first of its kind turns up: most programs
//! have one kind.
//!
//! **Liveness.** Whoever waits is woken by whatever becomes ready, when added before or during the wait:
//!
//! 1. A source is added to, changed in and removed from the inner epoll, a kernel object. Everyone waits on that object
//!    itself, never on a copy of its members, so there is no stale set.
//! 2. Sources are level-triggered, and only under the context's lock is a source's readiness taken away, by a turn that
//!    does what it asked for; that may be another context's turn (`context::neighbours`). A waiter that goes back to sleep
//!    because another thread was quicker has missed nothing but work.
//! 3. Work done by another thread matters to a waiter only if it queued an event, in whichever inbox, and whoever queues
//!    one raises the wake-ups of both kinds under the same lock; who calls a wait off, or frees whom it is for, raises the
//!    waiting thread's. A wake-up is taken back only by its kind, under that lock, before it
//!    looks at the queue: an event queued before the look is seen, one queued after it raises the wake-up again.
//! 4. More threads that wait do so for the first to leave the descriptors to them, whatever makes it leave
//!    (`context::waiting`).
//! 5. A thread whose time has passed takes a turn, and looks once more, before it says so.
//!
//! `context::liveness` explores every order of these steps.

mod timers;

use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
#[cfg(not(all(test, xlevent_shuttle)))]
use nix::time::clock_gettime;

use crate::error::{Error, Result};
use crate::identity::Guard;
use crate::sync::std_like::OnceLock;

pub use timers::{TimerId, Timers};

/// A point in time on CLOCK_MONOTONIC.
pub type Monotonic = Duration;

/// Now, on CLOCK_MONOTONIC.
#[cfg(not(all(test, xlevent_shuttle)))]
pub fn now() -> Monotonic {
    // A clock that every Linux has had since 2.6: there is nothing to fail.
    clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from)
}
#[cfg(all(test, xlevent_shuttle))]
pub use crate::sync::now;

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
///
/// Each number is checked before it is used (`identity`): the application may have closed it, and have it again for a file
/// of its own. Once that is found ([`Reactor::is_stolen`]) nothing is done with any of them any more, and what can't be
/// closed without harm stays open.
#[derive(Debug)]
pub struct Reactor {
    guard: Arc<Guard>,
    inner: ManuallyDrop<Epoll>,
    timer: ManuallyDrop<TimerFd>,
    timer_token: u64,
    application: OnceLock<Application>,
    waiter: OnceLock<ManuallyDrop<EventFd>>,
    stolen: AtomicBool,
}

/// What the application's own loop looks at.
#[derive(Debug)]
struct Application {
    outer: ManuallyDrop<Epoll>,
    wake_up: ManuallyDrop<EventFd>,
}

/// The token of members that are never reported: they are there to be recognised.
const NEVER_REPORTED: u64 = u64::MAX;

fn epoll() -> Result<Epoll> {
    Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(|errno| Error::os("creating an epoll descriptor", errno))
}

fn eventfd() -> Result<EventFd> {
    EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
        .map_err(|errno| Error::os("creating an eventfd", errno))
}

fn add_readable(to: &Epoll, source: impl AsFd, token: u64) -> Result<()> {
    to.add(source, EpollEvent::new(EpollFlags::EPOLLIN, token))
        .map_err(|errno| Error::os("filling an epoll descriptor", errno))
}

/// Makes a descriptor a member of a set, so that it is recognised there, and reported never.
fn make_known(to: &Epoll, fd: impl AsFd) -> Result<()> {
    to.add(fd, EpollEvent::new(EpollFlags::empty(), NEVER_REPORTED))
        .map_err(|errno| Error::os("filling an epoll descriptor", errno))
}

/// Whether the number stands for the file that was made a member under it, with this interest.
fn knows(set: &Epoll, fd: impl AsFd, events: EpollFlags, token: u64) -> bool {
    let result = set.modify(fd, &mut EpollEvent::new(events, token));
    // No member by that number, or no set. Another failure, for want of memory, says nothing about whose they are.
    !matches!(result, Err(Errno::ENOENT | Errno::EBADF | Errno::EINVAL | Errno::EPERM | Errno::ELOOP))
}

impl Reactor {
    /// Creates the descriptors that every context needs; `timer_token` is reported when the timer runs out.
    pub fn new(timer_token: u64) -> Result<Self> {
        let guard = Guard::shared()?;
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK)
            .map_err(|errno| Error::os("creating a timerfd", errno))?;
        let inner = epoll()?;
        add_readable(&inner, &timer, timer_token)?;
        make_known(&inner, guard.fd())?;
        Ok(Reactor {
            guard,
            inner: ManuallyDrop::new(inner),
            timer: ManuallyDrop::new(timer),
            timer_token,
            application: OnceLock::new(),
            waiter: OnceLock::new(),
            stolen: AtomicBool::new(false),
        })
    }

    /// The application's descriptor, if it has asked for it: readable when there is something to do.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.application.get().map(|application| application.outer.0.as_fd())
    }

    /// The same; makes it if there is none. Its wake-up isn't raised then.
    pub fn open_fd(&self) -> Result<BorrowedFd<'_>> {
        if self.application.get().is_none() {
            if !self.is_ours() {
                return Err(stolen());
            }
            let (outer, wake_up) = (epoll()?, eventfd()?);
            add_readable(&outer, &self.inner.0, 0)?;
            add_readable(&outer, &wake_up, 0)?;
            make_known(&outer, self.guard.fd())?;
            make_known(&self.inner, &wake_up)?;
            // Whoever comes here holds the context's lock: nobody else has set it.
            let (outer, wake_up) = (ManuallyDrop::new(outer), ManuallyDrop::new(wake_up));
            let _ = self.application.set(Application { outer, wake_up });
        }
        self.fd().ok_or_else(|| Error::Invalid("the descriptor was made and is not there".to_owned()))
    }

    /// Makes what [`Reactor::wait`] needs.
    pub fn prepare_wait(&self) -> Result<()> {
        if self.waiter.get().is_none() {
            if !self.is_ours() {
                return Err(stolen());
            }
            let waiter = eventfd()?;
            make_known(&self.inner, &waiter)?;
            // As above.
            let _ = self.waiter.set(ManuallyDrop::new(waiter));
        }
        Ok(())
    }

    /// Descriptors that are still ours: what is left to be closed.
    pub fn descriptors(&self) -> Vec<RawFd> {
        let mut ours = Vec::new();
        if !self.has_inner() {
            return ours;
        }
        if let Some(application) = self.application.get() {
            ours.extend(self.has_outer(application).then(|| application.outer.0.as_raw_fd()));
            ours.extend(self.has_wake_up(&application.wake_up).then(|| application.wake_up.as_fd().as_raw_fd()));
        }
        ours.extend(
            self.waiter.get().filter(|waiter| self.has_wake_up(waiter)).map(|waiter| waiter.as_fd().as_raw_fd()),
        );
        ours.extend(self.has_timer().then(|| self.timer.as_fd().as_raw_fd()));
        ours.push(self.inner.0.as_raw_fd());
        ours
    }

    // ---- whose they are ----

    /// It was found that the application has closed descriptors of ours. That doesn't change any more.
    pub fn is_stolen(&self) -> bool {
        self.stolen.load(Ordering::Relaxed)
    }

    /// Somebody has found so elsewhere.
    pub fn mark_stolen(&self) {
        self.stolen.store(true, Ordering::Relaxed);
    }

    /// What a check has found. False for good once it was false.
    fn found(&self, ours: bool) -> bool {
        if !ours {
            self.mark_stolen();
        }
        ours
    }

    /// Whether the inner set is still ours, as far as is known without looking at each of its members.
    pub fn is_ours(&self) -> bool {
        !self.is_stolen() && self.found(self.has_inner())
    }

    /// Whether the descriptor that the application has been given is; true if there is none.
    pub fn outer_is_ours(&self) -> bool {
        !self.is_stolen() && self.found(self.application.get().is_none_or(|application| self.has_outer(application)))
    }

    fn has_inner(&self) -> bool {
        self.guard.is_whole() && knows(&self.inner, self.guard.fd(), EpollFlags::empty(), NEVER_REPORTED)
    }

    fn has_outer(&self, application: &Application) -> bool {
        self.guard.is_whole() && knows(&application.outer, self.guard.fd(), EpollFlags::empty(), NEVER_REPORTED)
    }

    fn has_wake_up(&self, eventfd: &EventFd) -> bool {
        self.guard.is_whole() && knows(&self.inner, eventfd, EpollFlags::empty(), NEVER_REPORTED)
    }

    fn has_timer(&self) -> bool {
        self.guard.is_whole() && knows(&self.inner, self.timer.as_fd(), EpollFlags::EPOLLIN, self.timer_token)
    }

    // ---- sources ----

    /// Adds a source. `events` are poll(2)'s. EEXIST if the descriptor is there already, EPERM if it is of a kind that is
    /// always ready (a file on a disk).
    pub fn add(&self, fd: RawFd, events: i16, token: u64) -> std::result::Result<(), Errno> {
        if !self.is_ours() {
            return Err(Errno::EBADF);
        }
        self.inner.add(borrow(fd)?, EpollEvent::new(interest(events), token))
    }

    /// Changes what a source is watched for.
    pub fn modify(&self, fd: RawFd, events: i16, token: u64) -> std::result::Result<(), Errno> {
        if !self.is_ours() {
            return Err(Errno::EBADF);
        }
        self.inner.modify(borrow(fd)?, &mut EpollEvent::new(interest(events), token))
    }

    /// Removes a source. One that is gone already (its descriptor was closed) is no error.
    pub fn remove(&self, fd: RawFd) {
        if self.is_ours() {
            let _ = borrow(fd).and_then(|fd| self.inner.delete(fd));
        }
    }

    /// What is ready now; never waits. Nothing, if the set is no longer ours.
    pub fn ready(&self) -> impl Iterator<Item = Ready> + use<> {
        let mut events = [EpollEvent::empty(); READY_AT_ONCE];
        // It can only fail for arguments that are right here.
        let count = if self.is_ours() { self.inner.wait(&mut events, EpollTimeout::ZERO).unwrap_or(0) } else { 0 };
        events.into_iter().take(count).map(|event| {
            // EPOLLIN and its like have poll's values.
            Ready { token: event.data(), revents: event.events().bits() as i16 }
        })
    }

    /// Sleeps until a source is ready, the waiter's wake-up is raised, a signal is caught, or this time has passed, if one is
    /// given. It may wake earlier than that, but not by rounding. After [`Reactor::prepare_wait`].
    pub fn wait(&self, at_most: Option<Duration>) {
        #[cfg(not(all(test, xlevent_shuttle)))]
        self.poll(at_most);
        // Nobody may wait in the kernel there.
        #[cfg(all(test, xlevent_shuttle))]
        crate::sync::sleep_until(|| self.poll(Some(Duration::ZERO)), at_most);
    }

    /// The sleep itself; whether there was a reason to wake.
    fn poll(&self, at_most: Option<Duration>) -> bool {
        let fds = [Some(self.inner.0.as_fd()), self.waiter.get().map(|waiter| waiter.as_fd())];
        let mut fds = fds.map(|fd| PollFd::new(fd.unwrap_or(self.inner.0.as_fd()), PollFlags::POLLIN));
        match nix::poll::poll(&mut fds, at_most.map_or(PollTimeout::NONE, poll_timeout)) {
            Ok(ready) => return ready > 0,
            Err(Errno::EINTR) => {}
            // ENOMEM is all that is left: give the system a moment rather than spin.
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
        false
    }

    /// Raises the wake-up of the thread in [`Reactor::wait`], if there is any such thread.
    pub fn wake_waiter(&self) {
        self.waiter.get().filter(|waiter| self.found(self.has_wake_up(waiter))).map(|waiter| waiter.write(1));
    }

    /// Takes it back.
    pub fn quiet_waiter(&self) {
        self.waiter.get().filter(|waiter| self.found(self.has_wake_up(waiter))).map(|waiter| waiter.read());
    }

    /// Raises the wake-up of the application's loop, if that has our descriptor.
    pub fn wake_application(&self) {
        self.application_wake_up().map(|wake_up| wake_up.write(1));
    }

    /// Takes it back.
    pub fn quiet_application(&self) {
        self.application_wake_up().map(|wake_up| wake_up.read());
    }

    fn application_wake_up(&self) -> Option<&EventFd> {
        let wake_up = self.application.get().map(|application| &*application.wake_up);
        wake_up.filter(|wake_up| self.found(self.has_wake_up(wake_up)))
    }

    /// Lets the timer run out at `deadline`, at once if that is past.
    pub fn set_timer(&self, deadline: Monotonic) {
        if self.is_stolen() || !self.found(self.has_timer()) {
            return;
        }
        #[cfg(all(test, xlevent_shuttle))]
        let deadline = crate::sync::due(deadline);
        // Zero would disarm it.
        let deadline = TimeSpec::from_duration(deadline.max(Duration::from_nanos(1)));
        // It can only fail for arguments that are right here.
        let _ = self.timer.set(Expiration::OneShot(deadline), TimerSetTimeFlags::TFD_TIMER_ABSTIME);
        // It has run out: by when exactly the kernel says so must not make two runs of a schedule differ.
        #[cfg(all(test, xlevent_shuttle))]
        let _ = nix::poll::poll(&mut [PollFd::new(self.timer.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE);
    }

    /// Takes in that the timer has run out.
    pub fn quiet_timer(&self) {
        if self.found(self.has_timer()) {
            let mut count = [0; 8];
            let _ = nix::unistd::read(&*self.timer, &mut count);
        }
    }
}

impl Drop for Reactor {
    fn drop(&mut self) {
        for fd in self.descriptors() {
            // SAFETY: made by this reactor and still its own; nothing uses it after this.
            unsafe { libc::close(fd) };
        }
    }
}

/// What every call fails with from then on.
pub fn stolen() -> Error {
    Error::os("the library's descriptors have been closed by someone else", Errno::EBADF)
}

/// Rounded up: who woke earlier would spin until the time has really passed. As long as poll(2) can, if it is longer.
fn poll_timeout(time: Duration) -> PollTimeout {
    PollTimeout::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(PollTimeout::MAX)
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
