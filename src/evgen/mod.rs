// SPDX-License-Identifier: LGPL-2.1-or-later
//! What generates events. Pure bookkeeping over looks at the host: nothing here waits, locks or calls anyone back.

pub mod any_domain;
pub mod disk_eject;
pub mod domain_death;
pub mod domain_state;
pub mod domains;
pub mod monitor;
mod questions;
mod runs;
pub mod snapshot;
pub mod targets;
pub mod vbd;
