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
//! | `sync` | what threads meet at; under a scheduler, for the model, and in sight of a race detector |
//! | `guard` | what is undone, or done all the same, when a panic passes |
//! | `identity` | whether a descriptor's number is still ours, or the application's by now |
//! | `forkguard` | keeps forks out of moments that a child could not deal with |
//! | `dynlib` | the dynamic linker |
//! | [`stream`] | a context's events as a stream, for Rust programs |
//! | [`stats`] | what a context counts |
//! | [`abi`] | C's types |
//! | [`error`] | what can go wrong |
//!
//! `unsafe` stands in `capi`, `xen`, `reactor`, `childproc`, `event`, `companion`, `identity`, `pollset` and `dynlib`, and in three places of
//! `context`: what a predicate is shown, what is done at a fork, and what a forked child closes. Each block says why it holds.
//!
//! # For Rust programs
//!
//! [`stream::Events`] is all that most programs need: an iterator of a host's events that waits for them, or a descriptor for
//! an event loop or an async runtime. [`context::Context`] is the whole library without C: generators for single domains and
//! drives, waiting with a time-out and calling it off, subscribers, operations with devices, counters. It may be shared
//! between threads; no callback is ever called with a lock held. [`xen`] has what is needed besides: the list of
//! domains, and xenstore's nodes.
//!
//! ```no_run
//! use std::sync::Arc;
//! use std::time::Duration;
//!
//! use xlevent::context::Context;
//! use xlevent::error::Error;
//! use xlevent::event::Kind;
//! use xlevent::xen::log::StderrLog;
//!
//! // Domain 5 has a minute to shut down.
//! let context = Context::standalone(Arc::new(StderrLog))?;
//! context.enable_domain_death(5, 0)?;
//! match context.wait_for(u64::MAX, None, Duration::from_secs(60)) {
//!     Ok(event) => match event.kind() {
//!         Kind::DomainShutdown { reason } => println!("it has, for reason {reason}"),
//!         other => println!("{other:?}"),
//!     },
//!     Err(Error::TimeIsUp) => println!("it hasn't"),
//!     Err(error) => return Err(error),
//! }
//! # Ok::<(), Error>(())
//! ```
//!
//! A program that is linked with this crate is a wiring of its own, without libxenlight; [`Context::beside`] is for the C
//! boundary. After a fork without exec, contexts of the parent's are not to be used in the child.
//!
//! [`Context::beside`]: context::Context::beside

#![deny(missing_docs)]

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
mod guard;
mod identity;
pub mod pollset;
pub mod reactor;
pub mod stats;
pub mod stream;
mod sync;
pub mod xen;
