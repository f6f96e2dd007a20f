// SPDX-License-Identifier: LGPL-2.1-or-later
//! The gate: one thread at a time changes what a context is connected to.
//!
//! That takes calls that wait, and the application's hooks, so it isn't done under the lock. A thread that has entered holds a
//! [`Gate`], which is its way to the state meanwhile. It may give up the lock; others then wait for the gate. When the `Gate`
//! is dropped, also by a panic, the next thread enters.

use std::ops::{Deref, DerefMut};

use super::{Context, State};
use crate::sync::{MutexGuard, this_thread};

/// This thread has entered; no other can.
#[must_use]
pub(super) struct Gate<'gate, 'lock> {
    context: &'gate Context,
    state: &'gate mut MutexGuard<'lock, State>,
}

impl Context {
    /// Waits for the gate, and enters; `None` if this thread is inside already.
    pub(super) fn enter_gate<'gate, 'lock>(
        &'gate self,
        state: &'gate mut MutexGuard<'lock, State>,
    ) -> Option<Gate<'gate, 'lock>> {
        let me = this_thread();
        while let Some(holder) = state.gate {
            if holder == me {
                return None;
            }
            self.settled.wait(state);
        }
        state.gate = Some(me);
        Some(Gate { context: self, state })
    }
}

impl<'lock> Deref for Gate<'_, 'lock> {
    type Target = MutexGuard<'lock, State>;

    fn deref(&self) -> &Self::Target {
        self.state
    }
}

impl DerefMut for Gate<'_, '_> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        self.state
    }
}

impl Drop for Gate<'_, '_> {
    fn drop(&mut self) {
        self.state.gate = None;
        self.context.settled.notify_all();
        if std::thread::panicking() {
            self.context.take_up(self.state);
        }
    }
}
