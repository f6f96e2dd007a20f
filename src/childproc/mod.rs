// SPDX-License-Identifier: LGPL-2.1-or-later
//! Child processes: who owns SIGCHLD, who reaps what, and our own children.
//!
//! This room knows nothing of contexts; `context::children` ties it to one.
//!
//! - [`sigchld`]: the process's signal handler, and whom it wakes.
//! - [`process`]: what there is once in a process: which children are ours, and what a forked child has to close.
//! - [`Command`], [`spawn`], [`child`]: one child of ours, from the fork to its outcome.
//! - [`Said`]: what a child has said. [`drain`]: what becomes of its outputs when it has ended, and something that it has
//!   started still writes to them.
//!
//! # A child's life
//!
//! ```text
//!   forked ──▶ held ──go──▶ running ──limit──▶ terminated ──grace──▶ killed
//!                │             │   (SIGTERM)       │    (SIGKILL)      │
//!                │             └────────┬──────────┴────────────┬──────┘
//!                │                      │ its status is known   │ it has ended, and somebody else has its status
//!                ▼                      │                       ▼
//!             given up                  │                  ended: the status may still be told
//!                                       ▼                       │ told, or not in time: unknown
//!                                     done ◀────────────────────┘
//! ```
//!
//! *Held*: a forked child does nothing until it is told to. By then its parent has it in its books and has a pidfd for
//! it, so that nobody can reap it before it can be recognised, and no pidfd can be another process's.
//!
//! # Who reaps
//!
//! | owner of SIGCHLD | our handler is there | who reaps the others | who reaps ours |
//! |---|---|---|---|
//! | libxl (default) | while there is a child of ours | we, then | we |
//! | mainloop | never | the application | the application, which tells us; or we, when it says so |
//! | libxl_always | always | we | we |
//! | libxl_always_selective_reap | always | the application | we |
//!
//! Whoever reaps: all that is reaped by us goes through [`process`], so that a child that one context finds gets back to
//! the context that it belongs to. Beside libxenlight the handler is libxenlight's, which reaps as the table says and
//! hands ours back.
//!
//! Ours are followed by pidfds, so they don't depend on the handler, which may be the application's own. A kernel
//! without pidfds has us look again from time to time instead.

pub mod child;
mod command;
pub mod drain;
pub mod process;
pub mod said;
pub mod sigchld;
pub mod spawn;

use libc::{c_int, pid_t};

pub use child::{End, Outcome};
pub use command::Command;
pub use drain::Left;
pub use said::Said;

/// Who catches SIGCHLD, and who reaps which children. See the table above.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// The library while it has a child of its own; then it reaps them all.
    Libxl,
    /// The application.
    Mainloop,
    /// The library; it reaps them all.
    Always,
    /// The library; it reaps its own.
    Selective,
}

/// What an application does about children.
pub trait Hooks: Send + Sync {
    /// fork(2), or what the application has in its place: 0 in the child, -1 and errno on failure. In the child nothing
    /// is done after it that a signal handler may not do.
    fn fork(&self) -> pid_t;

    /// We have reaped a child that isn't ours.
    fn reaped(&self, pid: pid_t, status: c_int) -> Answer;
}

/// What an application says to a child that it is told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// It takes note.
    Noted,
    /// It doesn't know it either.
    Unknown,
    /// It can't go on: a disaster, with the application's own number.
    Failed(c_int),
}

/// An application that has said nothing: plain fork, no children of its own.
#[derive(Debug, Default)]
pub struct NoHooks;

impl Hooks for NoHooks {
    fn fork(&self) -> pid_t {
        // SAFETY: what may be done in the child is the caller's to mind, as with any fork.
        unsafe { libc::fork() }
    }

    fn reaped(&self, _pid: pid_t, _status: c_int) -> Answer {
        Answer::Unknown
    }
}

/// A wait status in words, for the log.
pub fn describe(status: c_int) -> String {
    if libc::WIFEXITED(status) {
        format!("exited with status {}", libc::WEXITSTATUS(status))
    } else if libc::WIFSIGNALED(status) {
        format!("was killed by signal {}", libc::WTERMSIG(status))
    } else {
        format!("has the wait status {status:#x}")
    }
}
