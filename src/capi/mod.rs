// SPDX-License-Identifier: LGPL-2.1-or-later
//! The C boundary: what `libxl_event.h` declares, plus libxl_ctx_alloc and libxl_ctx_free; and what `xlevent.h` adds.
//!
//! One file per section of a header. A function here takes C's arguments apart, calls the safe core, and puts the
//! answer together again; it decides nothing itself. No raw pointer passes beyond this module.
//!
//! The committed headers are generated from these files: their items and doc comments are the C programmer's interface
//! and manual, so what they say must hold, and read well, in both languages.
//!
//! Rules that every function keeps:
//! - Its body is one `entry!`, or `brief_entry!`, so that no panic crosses into C. What does no more than name a constant
//!   needs none.
//! - Any pointer may be NULL without a crash. It is ERROR_INVAL and a log line (from a function that returns nothing, a
//!   log line), except where NULL means something; then the function's documentation says what.
//! - A context or a handle is looked up, never dereferenced: an unknown or stale one is an error like any other.
//! - A C enum that comes from outside is an integer until it has been checked.

// The names are C's.
#![allow(non_camel_case_types, non_upper_case_globals)]

pub mod ao;
pub mod asyncop;
mod beside;
pub mod childproc;
pub mod ctx;
pub(crate) mod entry;
pub mod event;
pub mod evgen;
mod handle;
pub mod loops;
pub mod osevent;
pub mod pollset;
pub mod state;
pub mod stats;
pub mod suspend;
pub mod wait;

pub use crate::abi as types;
