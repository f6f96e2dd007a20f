// SPDX-License-Identifier: LGPL-2.1-or-later
//! Xen's event library, `libxl_event.h`, in Rust and with the same C ABI.
//!
//! # The house
//!
//! Each room may use those below it, never those above.
//!
//! | room | what it is for |
//! |---|---|
//! | [`capi`] | the C boundary: takes C's arguments apart, calls the core, puts the answer together |
//! | [`context`] | one `libxl_ctx`: the lock, the outbox, turns and waiting; the registry of contexts |
//! | [`evgen`] | what generates events: the rules, and the domain monitor; pure bookkeeping |
//! | [`ao`] | asynchronous operations: what is to be done with a device, as a state machine; its nodes and scripts |
//! | [`childproc`] | child processes: who owns SIGCHLD, who reaps, and our own |
//! | [`event`] | events, and the queue they wait in |
//! | [`reactor`] | the one place that waits: epoll, timerfd, eventfd |
//! | [`pollset`] | what hooks have registered, for programs that call poll(2) themselves |
//! | [`xen`] | all that touches Xen: libxenstore, libxenctrl, xentoollog |
//! | `companion` | the functions of a real libxenlight in the process |
//! | `forkguard` | keeps forks out of moments that a child could not deal with |
//! | `dynlib` | the dynamic linker |
//! | [`stats`] | what a context counts |
//! | [`abi`] | C's types |
//! | [`error`] | what can go wrong |
//!
//! `unsafe` stands in `capi`, `xen`, `reactor`, `childproc`, `event`, `companion` and `dynlib`, and in two places of
//! `context`: what a predicate is shown, and what a forked child closes. Each block says why it holds.
//!
//! # For Rust programs
//!
//! [`context::Context`] is the whole library without C: open one with [`context::Context::standalone`], ask for a domain
//! with [`context::Context::enable_domain_death`], and [`context::Context::wait`].

pub mod abi;
pub mod ao;
pub mod capi;
pub mod childproc;
mod companion;
pub mod context;
mod dynlib;
pub mod error;
pub mod event;
pub mod evgen;
mod forkguard;
pub mod pollset;
pub mod reactor;
pub mod stats;
pub mod xen;
