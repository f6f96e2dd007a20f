// SPDX-License-Identifier: LGPL-2.1-or-later
//! Transactions: nodes are looked at and changed as one step, which others see whole or not at all.
//!
//! If somebody else changes meanwhile what a transaction has looked at, it comes to nothing and is done again from its
//! start. Every call waits for xenstored: not under a lock.

use std::ffi::{CStr, CString, c_char, c_uint, c_void};

use nix::errno::Errno;
use xenstore_sys::{
    XS_PERM_NONE, XS_PERM_READ, xs_directory, xs_permissions, xs_read, xs_rm, xs_set_permissions, xs_transaction_end,
    xs_transaction_start, xs_transaction_t, xs_write,
};

use super::store::{Connection, failure};
use crate::error::{Error, Result};

/// A transaction that comes to nothing so often is given up: somebody writes without end, who may be a guest.
const TRIES: usize = 1000;

/// Who may do what with a node. Domain 0 may do everything with all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permissions {
    /// Domain 0 owns the node, and this domain may read it.
    ReadableBy(u32),
    /// This domain owns the node: it may read and write it, and the others nothing.
    OwnedBy(u32),
}

impl Permissions {
    /// As xenstored has them: the first entry names the owner, and what everybody may do who isn't named.
    fn entries(self) -> Vec<xs_permissions> {
        match self {
            Permissions::ReadableBy(domid) => {
                vec![xs_permissions { id: 0, perms: XS_PERM_NONE }, xs_permissions { id: domid, perms: XS_PERM_READ }]
            }
            Permissions::OwnedBy(domid) => vec![xs_permissions { id: domid, perms: XS_PERM_NONE }],
        }
    }
}

impl Connection {
    /// Runs `body` in a transaction, as often as it takes for nobody to have interfered. If it fails, nothing is changed.
    pub fn transaction<R>(&self, mut body: impl FnMut(&Transaction<'_>) -> Result<R>) -> Result<R> {
        for _ in 0..TRIES {
            let transaction = Transaction::begin(self)?;
            let result = body(&transaction)?;
            if transaction.commit()? {
                return Ok(result);
            }
        }
        Err(Error::os("a transaction, which others disturb without end,", Errno::EAGAIN))
    }
}

/// One try. Dropped, it comes to nothing.
#[derive(Debug)]
pub struct Transaction<'connection> {
    connection: &'connection Connection,
    id: xs_transaction_t,
    open: bool,
}

impl<'connection> Transaction<'connection> {
    fn begin(connection: &'connection Connection) -> Result<Self> {
        // SAFETY: a live handle.
        match connection.request(0, || unsafe { xs_transaction_start(connection.raw()) }) {
            0 => Err(Error::os("beginning a transaction of xenstored's", Errno::last())),
            id => Ok(Transaction { connection, id, open: true }),
        }
    }

    /// Lets others see it; false if somebody has interfered, and it has come to nothing.
    fn commit(mut self) -> Result<bool> {
        self.open = false;
        // SAFETY: a live handle and a transaction of its own, which ends here.
        if self.connection.request(false, || unsafe { xs_transaction_end(self.connection.raw(), self.id, false) }) {
            return Ok(true);
        }
        match Errno::last() {
            Errno::EAGAIN => Ok(false),
            errno => Err(Error::os("ending a transaction of xenstored's", errno)),
        }
    }

    /// A node's value, `None` if there is no such node.
    pub fn read(&self, path: &CStr) -> Result<Option<Vec<u8>>> {
        let mut length: c_uint = 0;
        // SAFETY: a live handle, a transaction of its own, a C string and a place for the length.
        let read = || unsafe { xs_read(self.connection.raw(), self.id, path.as_ptr(), &mut length) };
        let value: *mut c_void = self.connection.request(std::ptr::null_mut(), read);
        if value.is_null() {
            return if Errno::last() == Errno::ENOENT { Ok(None) } else { Err(failure("reading", path)) };
        }
        // SAFETY: one allocation of that many bytes, which becomes ours.
        let bytes = unsafe { std::slice::from_raw_parts(value.cast::<u8>(), length as usize) }.to_vec();
        // SAFETY: as above; nothing refers to it any more.
        unsafe { libc::free(value) };
        Ok(Some(bytes))
    }

    /// Sets a node's value; makes the node, and those above it, if they aren't there.
    pub fn write(&self, path: &CStr, value: &[u8]) -> Result<()> {
        let Ok(length) = c_uint::try_from(value.len()) else {
            return Err(Error::os(format!("writing {}", path.to_string_lossy()), Errno::E2BIG));
        };
        let (handle, bytes) = (self.connection.raw(), value.as_ptr().cast());
        // SAFETY: a live handle, a transaction of its own, a C string and as many bytes as we say.
        match self.connection.request(false, || unsafe { xs_write(handle, self.id, path.as_ptr(), bytes, length) }) {
            true => Ok(()),
            false => Err(failure("writing", path)),
        }
    }

    /// Says who may do what with a node.
    pub fn set_permissions(&self, path: &CStr, permissions: Permissions) -> Result<()> {
        let mut entries = permissions.entries();
        let count = entries.len() as c_uint;
        let handle = self.connection.raw();
        // SAFETY: a live handle, a transaction of its own, a C string and as many entries as we say.
        let set = || unsafe { xs_set_permissions(handle, self.id, path.as_ptr(), entries.as_mut_ptr(), count) };
        match self.connection.request(false, set) {
            true => Ok(()),
            false => Err(failure("setting the permissions of", path)),
        }
    }

    /// Removes a node with all that is below it; whether it can have been there.
    pub fn remove(&self, path: &CStr) -> Result<bool> {
        // SAFETY: a live handle, a transaction of its own and a C string.
        if self.connection.request(false, || unsafe { xs_rm(self.connection.raw(), self.id, path.as_ptr()) }) {
            return Ok(true);
        }
        if Errno::last() == Errno::ENOENT { Ok(false) } else { Err(failure("removing", path)) }
    }

    /// The same; then also the nodes above it, as far as they have no value and nothing else below them.
    pub fn remove_with_empty_parents(&self, path: &CStr) -> Result<()> {
        if !self.remove(path)? {
            return Ok(());
        }
        let mut path = path.to_bytes();
        while let Some(slash) = path.iter().rposition(|byte| *byte == b'/').filter(|slash| *slash > 0) {
            path = &path[..slash];
            // Part of a C string: there is no zero byte to fail for.
            let parent = CString::new(path).unwrap_or_default();
            let empty = self.read(&parent)?.is_some_and(|value| value.is_empty());
            if !empty || self.children(&parent)? != 0 || !self.remove(&parent)? {
                break;
            }
        }
        Ok(())
    }

    /// How many nodes there are directly below one; none below one that isn't there.
    pub fn children(&self, path: &CStr) -> Result<usize> {
        let mut count: c_uint = 0;
        let handle = self.connection.raw();
        // SAFETY: a live handle, a transaction of its own, a C string and a place for the number.
        let list = || unsafe { xs_directory(handle, self.id, path.as_ptr(), &mut count) };
        let names: *mut *mut c_char = self.connection.request(std::ptr::null_mut(), list);
        if names.is_null() {
            return if Errno::last() == Errno::ENOENT { Ok(0) } else { Err(failure("listing", path)) };
        }
        // SAFETY: one allocation, with all names in it, which is ours.
        unsafe { libc::free(names.cast()) };
        Ok(count as usize)
    }
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        if self.open {
            // SAFETY: a live handle and a transaction of its own, which ends here. If that fails, it has ended before.
            self.connection.request(false, || unsafe { xs_transaction_end(self.connection.raw(), self.id, true) });
        }
    }
}
