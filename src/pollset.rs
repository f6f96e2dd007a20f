// SPDX-License-Identifier: LGPL-2.1-or-later
//! What hooks have registered, for a program that calls poll(2) or select(2) itself.
//!
//! A library with hooks, ours or a libxenlight that has nothing to do with ours, tells the application what to wait for as it
//! goes. The set keeps the books, says what to give to poll, and afterwards who is to be told of what. It waits for nothing,
//! and calls nobody.
//!
//! - Registrations may come from any thread while another is in poll with what the set has said before. Then its wake-up,
//!   which is the first thing that it says to wait for, is raised. It is taken back, under the same lock, when the set is
//!   next asked: what comes later raises it again.
//! - Who is to be told is found first, and each registration looked up again when its turn comes: one that has gone by then,
//!   or is for something else, isn't told. A timeout is told once.

use std::collections::{BTreeMap, HashMap};
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::error::{Error, Result};
use crate::identity::{Guard, Identity};
use crate::sync::std_like::{Mutex, MutexGuard};

/// Names a registration. Never used twice in a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Id(pub u64);

/// A registered descriptor. `T` is what its library wants back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Descriptor<T> {
    /// The descriptor.
    pub fd: RawFd,
    /// What it is wanted for, as for poll(2); 0 for nothing.
    pub events: i16,
    /// For its library.
    pub for_libxl: T,
}

#[derive(Debug)]
struct Timeout<T> {
    /// The time of day.
    at: Duration,
    for_libxl: T,
}

/// What to wait for.
#[derive(Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Descriptors, with poll(2)'s events; one may come more than once. The first is the set's own, unless it was closed by
    /// someone else.
    pub fds: Vec<(RawFd, i16)>,
    /// Until this time of day at most.
    pub until: Option<Duration>,
}

/// A set.
#[derive(Debug)]
pub struct PollSet<T> {
    table: Mutex<Table<T>>,
    wake_up: WakeUp,
}

/// The set's own descriptor. Once the application has closed it, it is left alone: the number may be another file's.
#[derive(Debug)]
struct WakeUp {
    eventfd: ManuallyDrop<EventFd>,
    identity: Option<Identity>,
    guard: Arc<Guard>,
}

impl WakeUp {
    fn ours(&self) -> Option<&EventFd> {
        let fd = self.eventfd.as_fd().as_raw_fd();
        let ours = self.guard.is_whole() && self.identity.is_some_and(|identity| identity.is_at(fd));
        ours.then_some(&*self.eventfd)
    }
}

impl Drop for WakeUp {
    fn drop(&mut self) {
        if self.ours().is_some() {
            // SAFETY: not used after this.
            unsafe { ManuallyDrop::drop(&mut self.eventfd) };
        }
    }
}

#[derive(Debug)]
struct Table<T> {
    descriptors: BTreeMap<Id, Descriptor<T>>,
    timeouts: BTreeMap<Id, Timeout<T>>,
    next: u64,
    woken: bool,
}

/// What poll(2) reports whether it was asked for or not.
const UNASKED: i16 = libc::POLLERR | libc::POLLHUP | libc::POLLNVAL;

impl<T: Copy> PollSet<T> {
    /// An empty set.
    pub fn new() -> Result<Self> {
        let wake_up = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
            .map_err(|errno| Error::os("creating an eventfd", errno))?;
        let table = Table { descriptors: BTreeMap::new(), timeouts: BTreeMap::new(), next: 1, woken: false };
        let wake_up = WakeUp {
            identity: Identity::of(wake_up.as_fd().as_raw_fd()),
            eventfd: ManuallyDrop::new(wake_up),
            guard: Guard::shared()?,
        };
        Ok(PollSet { table: Mutex::new(table), wake_up })
    }

    /// Nothing here panics with the lock held.
    fn lock(&self) -> MutexGuard<'_, Table<T>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something else is to be waited for.
    fn changed(&self, table: &mut Table<T>) {
        if !std::mem::replace(&mut table.woken, true) {
            // A counter that is far from its end: there is nothing to fail.
            self.wake_up.ours().map(|wake_up| wake_up.write(1));
        }
    }

    /// Adds a descriptor.
    pub fn register_fd(&self, fd: RawFd, events: i16, for_libxl: T) -> Id {
        let mut table = self.lock();
        let id = table.next_id();
        table.descriptors.insert(id, Descriptor { fd, events, for_libxl });
        self.changed(&mut table);
        id
    }

    /// Changes what one is wanted for; false if there is none of this name.
    pub fn modify_fd(&self, id: Id, events: i16) -> bool {
        let mut table = self.lock();
        let Some(descriptor) = table.descriptors.get_mut(&id) else { return false };
        descriptor.events = events;
        self.changed(&mut table);
        true
    }

    /// Takes one out.
    pub fn deregister_fd(&self, id: Id) {
        // Who waits for it needlessly does no harm: it isn't told.
        self.lock().descriptors.remove(&id);
    }

    /// Adds a timeout, for a time of day.
    pub fn register_timeout(&self, at: Duration, for_libxl: T) -> Id {
        let mut table = self.lock();
        let id = table.next_id();
        table.timeouts.insert(id, Timeout { at, for_libxl });
        self.changed(&mut table);
        id
    }

    /// Moves it; false if there is none of this name, or no longer.
    pub fn modify_timeout(&self, id: Id, at: Duration) -> bool {
        let mut table = self.lock();
        let Some(timeout) = table.timeouts.get_mut(&id) else { return false };
        timeout.at = at;
        self.changed(&mut table);
        true
    }

    /// Takes it out.
    pub fn deregister_timeout(&self, id: Id) {
        self.lock().timeouts.remove(&id);
    }

    /// What to wait for now. What changes later raises the wake-up.
    pub fn wanted(&self) -> Wanted {
        let mut table = self.lock();
        if std::mem::take(&mut table.woken) {
            self.wake_up.ours().map(|wake_up| wake_up.read());
        }
        let wanted = table.descriptors.values().filter(|descriptor| descriptor.events != 0);
        let wanted = wanted.map(|descriptor| (descriptor.fd, descriptor.events));
        let own = self.wake_up.ours().map(|wake_up| (wake_up.as_fd().as_raw_fd(), libc::POLLIN));
        let fds = own.into_iter().chain(wanted).collect();
        Wanted { fds, until: table.timeouts.values().map(|timeout| timeout.at).min() }
    }

    /// All descriptors that are wanted for something; one may come more than once.
    pub fn all(&self) -> Vec<RawFd> {
        let table = self.lock();
        table.descriptors.values().filter(|descriptor| descriptor.events != 0).map(|descriptor| descriptor.fd).collect()
    }

    /// Who is to be told of what, after these descriptors were found ready.
    pub fn ready(&self, found: &HashMap<RawFd, i16>) -> Vec<(Id, i16)> {
        let table = self.lock();
        let each = table.descriptors.iter().filter_map(|(id, descriptor)| {
            let revents = found.get(&descriptor.fd)? & (descriptor.events | UNASKED);
            (descriptor.events != 0 && revents != 0).then_some((*id, revents))
        });
        each.collect()
    }

    /// One of them, as it is now.
    pub fn descriptor(&self, id: Id) -> Option<Descriptor<T>> {
        self.lock().descriptors.get(&id).copied().filter(|descriptor| descriptor.events != 0)
    }

    /// The next timeout whose time has come, which then is over.
    pub fn take_due(&self, now: Duration) -> Option<T> {
        let mut table = self.lock();
        let due = table.timeouts.iter().filter(|(_, timeout)| timeout.at <= now);
        let id = due.min_by_key(|(id, timeout)| (timeout.at, **id)).map(|(id, _)| *id)?;
        table.timeouts.remove(&id).map(|timeout| timeout.for_libxl)
    }
}

impl<T> Table<T> {
    fn next_id(&mut self) -> Id {
        let id = Id(self.next);
        self.next += 1;
        id
    }
}

#[cfg(test)]
mod tests {
    use nix::poll::{PollFd, PollFlags, PollTimeout};

    use super::*;

    const IN: i16 = libc::POLLIN;
    const OUT: i16 = libc::POLLOUT;

    fn woken(set: &PollSet<u32>) -> bool {
        let mut fds = [PollFd::new(set.wake_up.eventfd.as_fd(), PollFlags::POLLIN)];
        nix::poll::poll(&mut fds, PollTimeout::ZERO).unwrap() == 1
    }

    /// Without the set's own.
    fn wanted(set: &PollSet<u32>) -> Vec<(RawFd, i16)> {
        let mut fds = set.wanted().fds;
        assert_eq!(fds.remove(0), (set.wake_up.eventfd.as_fd().as_raw_fd(), IN));
        fds
    }

    fn told(set: &PollSet<u32>, found: &[(RawFd, i16)]) -> Vec<(u32, i16)> {
        let ready = set.ready(&found.iter().copied().collect());
        ready.into_iter().map(|(id, revents)| (set.descriptor(id).unwrap().for_libxl, revents)).collect()
    }

    #[test]
    fn it_says_what_is_wanted_and_no_more() {
        let set = PollSet::new().unwrap();
        assert_eq!(wanted(&set), []);
        let reads = set.register_fd(100, IN, 1);
        let writes = set.register_fd(100, 0, 2);
        set.register_fd(101, IN | OUT, 3);
        assert_eq!(wanted(&set), [(100, IN), (101, IN | OUT)]);
        assert!(set.modify_fd(writes, OUT));
        assert_eq!(wanted(&set), [(100, IN), (100, OUT), (101, IN | OUT)]);
        set.deregister_fd(reads);
        assert!(!set.modify_fd(reads, IN));
        assert_eq!(wanted(&set), [(100, OUT), (101, IN | OUT)]);
    }

    #[test]
    fn each_is_told_of_what_it_wants_and_of_what_is_wrong() {
        let set = PollSet::new().unwrap();
        set.register_fd(100, IN, 1);
        set.register_fd(100, OUT, 2);
        let nothing = set.register_fd(100, 0, 3);
        set.register_fd(101, IN, 4);
        assert_eq!(told(&set, &[]), []);
        assert_eq!(told(&set, &[(100, IN), (102, IN)]), [(1, IN)]);
        assert_eq!(told(&set, &[(100, IN | OUT), (101, 0)]), [(1, IN), (2, OUT)]);
        assert_eq!(told(&set, &[(100, libc::POLLHUP), (101, IN)]), [(1, libc::POLLHUP), (2, libc::POLLHUP), (4, IN)]);
        assert_eq!(set.descriptor(nothing), None);
    }

    #[test]
    fn a_change_wakes_who_waits_once_until_the_set_is_asked_again() {
        let set = PollSet::new().unwrap();
        assert!(!woken(&set));
        let id = set.register_fd(100, IN, 1);
        assert!(woken(&set));
        set.modify_fd(id, OUT);
        set.wanted();
        assert!(!woken(&set));
        set.modify_fd(id, IN);
        assert!(woken(&set));
        set.wanted();
        set.deregister_fd(id);
        assert!(!woken(&set), "there is nothing to wait for that there wasn't before");
        let timeout = set.register_timeout(Duration::from_secs(5), 2);
        assert!(woken(&set));
        set.wanted();
        set.modify_timeout(timeout, Duration::ZERO);
        assert!(woken(&set));
    }

    #[test]
    fn timeouts_come_once_each_the_earliest_first() {
        let set = PollSet::new().unwrap();
        let at = Duration::from_secs;
        assert_eq!(set.wanted().until, None);
        let late = set.register_timeout(at(9), 9);
        set.register_timeout(at(3), 3);
        set.register_timeout(at(5), 5);
        let never = set.register_timeout(at(1), 1);
        assert_eq!(set.wanted().until, Some(at(1)));
        set.deregister_timeout(never);
        assert_eq!(set.wanted().until, Some(at(3)));
        assert_eq!(set.take_due(at(2)), None);
        assert_eq!([0; 3].map(|_| set.take_due(at(6))), [Some(3), Some(5), None]);
        assert!(set.modify_timeout(late, Duration::ZERO));
        assert_eq!(set.take_due(at(6)), Some(9));
        assert_eq!(set.take_due(at(10)), None);
        assert!(!set.modify_timeout(late, Duration::ZERO));
        assert_eq!(set.wanted().until, None);
    }
}
