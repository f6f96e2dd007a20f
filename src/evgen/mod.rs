// SPDX-License-Identifier: LGPL-2.1-or-later
//! What generates events. Pure bookkeeping over looks at the host: nothing here waits, locks or calls anyone back.

pub mod any_domain;
pub mod disk_eject;
pub mod domain_death;
pub mod domain_state;
pub mod domains;
mod evidence;
pub mod monitor;
mod questions;
mod runs;
pub mod snapshot;
pub mod strangers;
pub mod targets;
pub mod vbd;

/// Whom a generator's events are for, as a number that it can carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Recipient(u16);

impl Recipient {
    /// Who uses the context itself.
    pub const OWN: Recipient = Recipient(0);

    /// The subscriber in this place, if there can be so many.
    pub fn subscriber(place: usize) -> Option<Recipient> {
        u16::try_from(place).ok()?.checked_add(1).map(Recipient)
    }

    /// The subscriber's place; `None` if it is none.
    pub fn place(self) -> Option<usize> {
        self.0.checked_sub(1).map(usize::from)
    }
}
