// SPDX-License-Identifier: LGPL-2.1-or-later
//! Reading the domains' names from xenstore, in a thread of its own: xenstored may let us wait.
//!
//! - The names of the domains that are followed are watched, so that the last one that a domain had is known when it is gone.
//! - A number may be given to another domain. So the hypervisor is asked before and after a name is read, and what is posted
//!   says of which UUID, living or not, the name is.
//! - When xenstored has gone, it is looked for, and everything is read again.

use std::collections::{BTreeSet, HashSet};
use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use xlevent::error::Error;
use xlevent::xen::hypervisor::{Host, Hypervisor};
use xlevent::xen::idle::Idle;
use xlevent::xen::store::Store;

use super::mailbox::{Mailbox, Post, mailbox};
use super::{Message, describe};
use crate::exit::{Failure, Result};

/// What the thread is to do.
#[derive(Debug)]
enum Request {
    /// Read a domain's name, and follow it from then on if so.
    Read { domid: u32, follow: bool },
    /// It needn't be followed any more.
    Forget(u32),
}

/// What it posts.
#[derive(Debug)]
pub enum Answer {
    /// It is connected, or can't be, at the beginning.
    Connected(Result<()>),
    /// A name that was read.
    Name(Reading),
    /// So many requests for names have been dealt with; none: others are dealt with meanwhile.
    Done(usize),
}

/// A name as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    pub domid: u32,
    /// The domain that had the number before and after; `None` if there was none.
    pub of: Option<Holder>,
    pub name: Vec<u8>,
}

/// Who has a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holder {
    pub uuid: [u8; 16],
    pub dying: bool,
}

/// The thread, for those who ask it for names.
pub struct Names {
    requests: Post<Request>,
    /// How many names have been asked for, and how many of these requests are answered.
    asked: usize,
    answered: usize,
    /// When the first of those that are not was made, or the last answer came.
    since: Option<Instant>,
}

/// xenstored hangs if it has not answered for so long.
const PATIENCE: Duration = Duration::from_secs(1);

impl Names {
    pub fn start(post: Post<Message>) -> Result<Self> {
        let failed = |why| Failure::failed("reading names", why);
        let (requests, mailbox) = mailbox().map_err(failed)?;
        thread::Builder::new().name("names".to_owned()).spawn(move || serve(&mailbox, &post)).map_err(failed)?;
        Ok(Names { requests, asked: 0, answered: 0, since: None })
    }

    /// Has a name read; the request's number.
    pub fn ask(&mut self, domid: u32, follow: bool, now: Instant) -> usize {
        self.requests.send(Request::Read { domid, follow });
        self.since.get_or_insert(now);
        self.asked += 1;
        self.asked
    }

    pub fn forget(&self, domid: u32) {
        self.requests.send(Request::Forget(domid));
    }

    /// So many more requests are answered.
    pub fn done(&mut self, count: usize, now: Instant) {
        self.answered += count;
        self.since = (self.answered < self.asked).then_some(now);
    }

    /// The last request that is answered.
    pub fn answered(&self) -> usize {
        self.answered
    }

    pub fn all_answered(&self) -> bool {
        self.answered == self.asked
    }

    /// From when on nothing is to be expected of xenstored, unless it answers before.
    pub fn hangs_from(&self) -> Option<Instant> {
        self.since.map(|since| since + PATIENCE)
    }
}

/// The thread's state.
struct Reader<'a> {
    post: &'a Post<Message>,
    hypervisor: Option<Hypervisor>,
    store: Option<Store>,
    followed: HashSet<u32>,
    watched: HashSet<u32>,
    /// Those of them whose watch has not fired yet, as it does once when it is set.
    fresh: HashSet<u32>,
    /// Those whose names are to be read again.
    changed: BTreeSet<u32>,
}

/// How many watches there are at most. xenstored goes through all of them at each write.
const WATCHES_MAX: usize = 1024;
/// After how many names at most it is said that it goes on, and what is asked for comes first again. On a host with thousands of
/// domains xenstored takes milliseconds for each request.
const AT_ONCE: usize = 16;
/// After how many milliseconds xenstored is looked for again.
const PAUSE_MS: u16 = 500;

fn serve(requests: &Mailbox<Request>, post: &Post<Message>) {
    let (hypervisor, _) = Hypervisor::open();
    let mut reader = Reader {
        post,
        hypervisor: hypervisor.ok(),
        store: None,
        followed: HashSet::new(),
        watched: HashSet::new(),
        fresh: HashSet::new(),
        changed: BTreeSet::new(),
    };
    let connected = Store::open().and_then(|store| reader.connected(store));
    let failed = connected.is_err();
    post.send(Message::Names(Answer::Connected(connected.map_err(|error| Failure::NoXen(describe(&error))))));
    if failed {
        return;
    }
    loop {
        let arrived = requests.take();
        if arrived.is_empty() && reader.changed.is_empty() {
            reader.wait(requests.as_fd());
        }
        for requests in arrived.chunks(AT_ONCE) {
            reader.deal_with(requests);
        }
        reader.catch_up();
    }
}

impl Reader<'_> {
    /// Waits until there is something to do.
    fn wait(&mut self, requests: BorrowedFd<'_>) {
        let Some(store) = &self.store else {
            let _ = poll(&mut [PollFd::new(requests, PollFlags::POLLIN)], PAUSE_MS);
            self.reconnect();
            return;
        };
        let mut fds = vec![PollFd::new(requests, PollFlags::POLLIN)];
        fds.extend(store.watches_fd().map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
        // Nothing is asked there, so nothing is said but that it has ended.
        let hangup = store.idle().map(|idle| PollFd::new(idle.fd(), PollFlags::POLLIN));
        let hangup_is_last = hangup.is_some();
        fds.extend(hangup);
        let woken = poll(&mut fds, PollTimeout::NONE).is_ok();
        if woken && hangup_is_last && fds.last().is_some_and(|hangup| hangup.any() == Some(true)) {
            self.lost();
        }
    }

    fn deal_with(&mut self, requests: &[Request]) {
        let mut domids = BTreeSet::new();
        for request in requests {
            match *request {
                Request::Read { domid, follow } => {
                    domids.insert(domid);
                    if follow && self.followed.insert(domid) {
                        self.watch(domid);
                    }
                }
                Request::Forget(domid) => self.forget(domid),
            }
        }
        domids.into_iter().for_each(|domid| self.look(domid));
        // So what was changed before this was asked for is known when it is answered, but for a host where much changes.
        self.catch_up();
        let done = requests.iter().filter(|request| matches!(request, Request::Read { .. })).count();
        if done > 0 {
            self.post.send(Message::Names(Answer::Done(done)));
        }
    }

    /// Reads a domain's name, and posts it.
    fn look(&mut self, domid: u32) {
        // More often than that nobody changes hands.
        for _ in 0..3 {
            let of = self.holder(domid);
            let Some(name) = self.read(domid) else { return };
            if of.map(|of| of.uuid) == self.holder(domid).map(|of| of.uuid) {
                self.post.send(Message::Names(Answer::Name(Reading { domid, of, name })));
                return;
            }
        }
    }

    /// Reads names that have changed, or may have.
    fn catch_up(&mut self) {
        self.take_firings();
        for _ in 0..AT_ONCE {
            let Some(domid) = self.changed.pop_first() else { return };
            // On a new connection it isn't watched yet.
            if self.followed.contains(&domid) && !self.watched.contains(&domid) {
                self.watch(domid);
            }
            self.look(domid);
        }
        self.post.send(Message::Names(Answer::Done(0)));
    }

    fn holder(&mut self, domid: u32) -> Option<Holder> {
        let hypervisor = self.hypervisor.as_mut()?;
        hypervisor.ask(domid, 1).ok()?;
        let info = hypervisor.answer().first().filter(|info| info.domid() == domid)?;
        Some(Holder { uuid: info.uuid(), dying: info.dying() })
    }

    /// From xenstore; `None` also while there is no xenstored.
    fn read(&mut self, domid: u32) -> Option<Vec<u8>> {
        let path = path(domid);
        // One that was restarted wants a new connection.
        for _ in 0..2 {
            if self.store.is_none() {
                self.reconnect();
            }
            match self.store.as_ref()?.connection().read(&path) {
                Ok(name) => return name,
                Err(error) if error.errno() == Some(Errno::EACCES) => return None,
                Err(_) => self.lost(),
            }
        }
        None
    }

    fn watch(&mut self, domid: u32) {
        let Some(store) = self.store.as_ref().filter(|_| self.watched.len() < WATCHES_MAX) else { return };
        if store.connection().watch(&path(domid), &token(domid)).is_ok() {
            self.watched.insert(domid);
            self.fresh.insert(domid);
        }
    }

    fn forget(&mut self, domid: u32) {
        self.followed.remove(&domid);
        self.changed.remove(&domid);
        self.fresh.remove(&domid);
        if !self.watched.remove(&domid) {
            return;
        }
        if let Some(store) = &self.store {
            // A daemon that has gone doesn't fire it either.
            let _ = store.connection().unwatch(&path(domid), &token(domid));
        }
    }

    fn take_firings(&mut self) {
        let Some(store) = &self.store else { return };
        loop {
            match store.take_firing() {
                Ok(None) => return,
                Ok(Some(firing)) => {
                    let domid = firing.token().to_str().ok().and_then(|token| token.parse().ok());
                    let Some(domid) = domid.filter(|domid| self.watched.contains(domid)) else { continue };
                    if !self.fresh.remove(&domid) {
                        self.changed.insert(domid);
                    }
                }
                // Want of memory.
                Err(Errno::ENOMEM) => return,
                Err(_) => return self.lost(),
            }
        }
    }

    fn lost(&mut self) {
        if let Some(store) = self.store.take() {
            store.connection().mark_broken();
        }
    }

    fn reconnect(&mut self) {
        let Ok(Some(idle)) = Idle::open() else { return };
        if let Ok(store) = Store::open_beside(idle) {
            // If it has gone again, that shows soon.
            let _ = self.connected(store);
        }
    }

    /// Has all names watched and read on a new connection.
    fn connected(&mut self, mut store: Store) -> std::result::Result<(), Error> {
        store.listen()?;
        self.store = Some(store);
        self.watched.clear();
        self.fresh.clear();
        self.changed.extend(&self.followed);
        Ok(())
    }
}

fn path(domid: u32) -> CString {
    // Letters and a number: there is no zero byte to fail for.
    CString::new(format!("/local/domain/{domid}/name")).unwrap_or_default()
}

fn token(domid: u32) -> CString {
    CString::new(domid.to_string()).unwrap_or_default()
}
