// SPDX-License-Identifier: LGPL-2.1-or-later
//! Drives whose guests may eject: their watches, and the looks at their nodes.
//!
//! Everything that asks xenstored waits for its answer, and is done without the lock: finding and watching a drive in the
//! gate, so that the connection doesn't change meanwhile; looking at one, and giving up its watch, from the outbox, on a
//! share in the connection of the time. The rule and the books are `evgen::disk_eject`'s.

use std::ffi::{CStr, CString};
use std::time::Duration;

use nix::errno::Errno;

use super::arming::Watch;
use super::outbox::Item;
use super::turn::Later;
use super::{Context, State, SubscriberKey};
use crate::abi::LIBXL_EVENT_TYPE_DISK_EJECT;
use crate::error::{Error, Result};
use crate::event::Event;
use crate::evgen::disk_eject::{DiskEject, DriveId, Key, Seen, says_eject};
use crate::evgen::vbd::{self, Frontend, c_value};
use crate::guard::Steps;
use crate::reactor::now;
use crate::sync::MutexGuard;
use crate::xen::log::{Kind, Level, Line};
use crate::xen::store::Connection;

/// The node of a drive that is watched.
pub(super) const EJECT_NODE: &str = "eject";

/// After a failed look, until the next.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

impl State {
    /// Sees to it that a drive is looked at.
    pub(super) fn ask_for_look(&mut self, id: DriveId) {
        if self.drives.ask(id) {
            self.outbox.push_back(Item::Look(id));
        }
    }

    /// Sees to it that it is looked at again: the time for that, which was set by the last look, has come.
    pub(super) fn retry_look(&mut self, id: DriveId) {
        if self.drives.retry(id) {
            self.outbox.push_back(Item::Look(id));
        }
    }

    /// Gives up the watch of a drive that nobody wants to know of any more.
    pub(super) fn give_up_watch(&mut self, id: DriveId, frontend: Frontend) {
        // Without a connection there is no watch.
        if let Some(store) = self.store.as_ref().filter(|_| !self.drives.contains(id)) {
            self.outbox.push_back(Item::Unwatch(store.connection(), id, frontend));
        }
    }
}

impl Context {
    /// Generates DISK_EJECT for a drive of a domain's, beginning with what its node says at present. The domain, and the
    /// drive, need not be there yet; whether it has a stub domain is found out now.
    pub fn enable_disk_eject(&self, domid: u32, vdev: &CStr, user: u64) -> Result<Key> {
        self.enable_disk_eject_for(None, domid, vdev, user)
    }

    /// The same for a subscriber. No event of the generator's goes anywhere else.
    pub fn enable_disk_eject_for(
        &self,
        subscriber: Option<SubscriberKey>,
        domid: u32,
        vdev: &CStr,
        user: u64,
    ) -> Result<Key> {
        let Some(devid) = vbd::devid(vdev.to_bytes()) else {
            return Err(Error::Invalid("that is no name of a disk".to_owned()));
        };
        let mut state = self.state.lock();
        if state.closed {
            return Err(Error::Invalid("the context is being freed".to_owned()));
        }
        self.refuse_if_stolen()?;
        let Some(mut gate) = self.enter_gate(&mut state) else {
            return Err(Error::Invalid("a hook that waits for descriptors may not call this".to_owned()));
        };
        // It can't go before the gate opens.
        let result = gate.recipient(subscriber).and_then(|recipient| {
            let generator = DiskEject { domid, user, recipient, vdev: vdev.to_owned(), dev: None, unread: None };
            self.enable_in_gate(&mut gate, devid, generator)
        });
        drop(gate);
        // If it has come to nothing, all is as before.
        self.disarm(&mut state);
        self.flush_or_undo(state, result, |key| self.disable_disk_eject(key))
    }

    fn enable_in_gate(&self, state: &mut MutexGuard<'_, State>, devid: u32, generator: DiskEject) -> Result<Key> {
        if !state.armed {
            self.arm_in_gate(state, None)?;
        }
        let away = || Error::os("xenstored has gone away", Errno::ENOTCONN);
        let connection = state.store.as_ref().ok_or_else(away)?.connection();
        let result = self.enable_on(state, &connection, devid, generator);
        // It may be the last share by now, and wait.
        MutexGuard::unlocked(state, || drop(connection));
        result
    }

    fn enable_on(
        &self,
        state: &mut MutexGuard<'_, State>,
        connection: &Connection,
        devid: u32,
        mut generator: DiskEject,
    ) -> Result<Key> {
        let domid = generator.domid;
        let (frontend, dev) = MutexGuard::unlocked(state, || find(connection, domid, devid))?;
        generator.dev = dev;
        // Before its watch is set, so that the first firing finds it.
        let (key, new) = state.drives.insert(frontend, generator);
        if let Some(id) = new {
            let watch = || connection.watch(&frontend.node(EJECT_NODE), &Watch::drive_token(id));
            let mut steps = Steps::default();
            let watched = steps.take(|| MutexGuard::unlocked(state, watch));
            if !matches!(watched, Some(Ok(()))) {
                state.drives.remove(key);
            }
            steps.end();
            watched.unwrap_or(Ok(()))?;
        }
        Ok(key)
    }

    /// Ends what [`Context::enable_disk_eject`] began. Events that are queued stay queued.
    pub fn disable_disk_eject(&self, key: Key) -> Result<()> {
        let mut state = self.state.lock();
        let Some(last) = state.drives.remove(key) else {
            return Err(Error::Invalid(format!("no generator has the handle {:#x}", u64::from(key))));
        };
        if let Some((id, frontend)) = last {
            state.give_up_watch(id, frontend);
        }
        self.disarm_and_flush(state);
        Ok(())
    }

    /// Looks at a drive, and tells what there is to tell.
    pub(super) fn look_at_drive(&self, id: DriveId) {
        let mut state = self.state.lock();
        let Some(frontend) = state.drives.begin(id) else { return };
        let mut steps = Steps::default();
        let found = steps.take(|| {
            #[cfg(test)]
            state.pass(super::aftermath::Place::Drive);
            match state.store.as_ref().map(|store| store.connection()) {
                Some(connection) => {
                    state.counts.drive_looks += 1;
                    MutexGuard::unlocked(&mut state, move || look(&connection, frontend))
                }
                // Its watch is set again when xenstored is back, and will fire.
                None => (Seen::Unknown, None),
            }
        });
        // A look that a panic has ended has ended.
        let (seen, failure) = found.unwrap_or_else(|| (Seen::Unknown, Some(Error::panicked())));
        let mut events = Vec::new();
        let State { drives, inbox, subscribers, counts, .. } = &mut *state;
        let tell = &mut |key, generator: &DiskEject, backend| {
            let inbox = subscribers.inbox_at(generator.recipient).unwrap_or(inbox);
            match generator.unread {
                Some(serial) if inbox.queue.holds(LIBXL_EVENT_TYPE_DISK_EJECT, serial) => counts.ejections_merged += 1,
                _ => events.push((key, generator.recipient, Event::of_ejection(generator, backend), generator.domid)),
            }
        };
        let looked = drives.end(id, seen, tell);
        for (key, recipient, event, domid) in events {
            let serial = self.deliver_new(&mut state, recipient, event, domid);
            state.drives.note_unread(key, serial);
        }
        if looked.is_some_and(|looked| looked.again) {
            // In another turn: while a guest writes without end, no call may be kept here by what other threads take in.
            self.schedule(&mut state, now(), Later::Drive(id));
        }
        if let Some(error) = failure {
            if looked.is_some_and(|looked| looked.newly_failed) {
                let what = format!("a disk of domain {}", frontend.domid);
                state.outbox.push_back(Item::Log(Line::failure(Level::Error, &what, &error)));
            }
            if state.drives.plan_retry(id) {
                self.schedule(&mut state, now() + LOOK_AGAIN, Later::Drive(id));
            }
        }
        steps.take(|| self.flush(state));
        steps.end();
    }

    /// Takes a drive's watch away.
    pub(super) fn unwatch_drive(&self, connection: &Connection, id: DriveId, frontend: Frontend) {
        if let Err(error) = connection.unwatch(&frontend.node(EJECT_NODE), &Watch::drive_token(id)) {
            self.log(&Line::failure(Level::Warn, "giving up a watch", &error).of(Kind::Named("giving up a watch")));
        }
    }
}

/// Finds a disk's frontend, which a stub domain may have in the guest's place, and what the disk is called: by the toolstack,
/// or, if that has not noted it, by the frontend's nodes.
fn find(connection: &Connection, domid: u32, devid: u32) -> Result<(Frontend, Option<CString>)> {
    let stub = connection.read(&vbd::stub_domain_path(domid))?;
    let stub = stub.as_deref().and_then(vbd::stub_domain);
    let frontend = Frontend { domid: stub.unwrap_or(domid), devid };
    let dev = match connection.read(&frontend.own_node("dev"))? {
        Some(dev) => Some(dev),
        None => connection.read(&frontend.node("dev"))?,
    };
    // Up to the first zero byte there is none.
    Ok((frontend, dev.and_then(|dev| CString::new(c_value(&dev)).ok())))
}

/// Looks whether a guest has ejected, and acknowledges it; and what failed, if something did. What the event needs is
/// read first: an ejection that was acknowledged can be told. Who serves the disk is the toolstack's word: an application goes
/// on with what the event says of that, so the guest must not have it in its hand.
fn look(connection: &Connection, frontend: Frontend) -> (Seen, Option<Error>) {
    let node = frontend.node(EJECT_NODE);
    let read = || {
        let ejected = connection.read(&node)?.is_some_and(|value| says_eject(&value));
        Ok(if ejected { Some(connection.read(&frontend.own_node("backend"))?) } else { None })
    };
    let backend = match read() {
        Ok(None) => return (Seen::NoEjection, None),
        Ok(Some(backend)) => backend.map(|path| vbd::backend(&path)),
        Err(error) => return (Seen::Unknown, Some(error)),
    };
    let written = connection.write(&node, b"");
    (Seen::Ejection { backend, acknowledged: written.is_ok() }, written.err())
}
