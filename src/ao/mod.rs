// SPDX-License-Identifier: LGPL-2.1-or-later
//! Asynchronous operations: what is to be done with a device, as a state machine; and what its nodes and its hotplug script
//! are.
//!
//! Nothing here waits, and nothing but [`nodes`] talks to xenstored. `context::operations` does what a machine says is to be
//! done, and tells it what came of that.
//!
//! - [`device`]: which devices there are, where their nodes are, and what a backend's path says.
//! - [`course`]: the machine. Its states, and what leads from one to the next, stand in one place.
//! - [`nodes`]: the changes of nodes, each one transaction.
//! - [`script`]: the hotplug script, and what it is given.

pub mod course;
#[cfg(test)]
mod course_tests;
pub mod device;
pub mod nodes;
pub mod script;
