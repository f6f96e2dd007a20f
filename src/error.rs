// SPDX-License-Identifier: LGPL-2.1-or-later
//! What can go wrong, as the core says it. Numbers (`ERROR_FAIL`, …) exist at the C boundary only.

use std::fmt;

use nix::errno::Errno;

/// The result of a call into the core.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a call failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// No event that matches is queued.
    NotReady,
    /// No event that matches came in the time that was given.
    TimeIsUp,
    /// An argument, or the moment of the call, is wrong; the text says which.
    Invalid(String),
    /// The caller's library version is not ours.
    Version(i32),
    /// The caller's array is too small; the number is how many entries are needed.
    BufferFull(usize),
    /// The application's own hook refused; the number is what it returned.
    Hook(i32),
    /// There is no domain of this number.
    DomainNotFound(u32),
    /// There is no such thing; the text says what.
    NotFound(String),
    /// It has failed; the text says what and why.
    Failed(String),
    /// Somebody else did not answer in time; the text says who and what.
    TimedOut(String),
    /// It was called off.
    Aborted,
    /// Not available in this wiring.
    NotImplemented(&'static str),
    /// A system call or a call of Xen's libraries failed.
    Os {
        /// What was being done, on what.
        what: String,
        /// Why it failed.
        errno: Errno,
    },
}

impl Error {
    /// A failed system or library call: what it was, and its errno.
    pub fn os(what: impl Into<String>, errno: Errno) -> Self {
        Error::Os { what: what.into(), errno }
    }

    /// A panic has ended it.
    pub(crate) fn panicked() -> Self {
        Error::Failed("a panic has ended it".to_owned())
    }

    /// The errno to log beside the text, where there is one.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Error::Os { errno, .. } => Some(*errno),
            _ => None,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::NotReady => f.write_str("no matching event has happened"),
            Error::TimeIsUp => f.write_str("no matching event came in time"),
            Error::Invalid(why) => f.write_str(why),
            Error::Version(version) => write!(f, "library version {version} was asked for, 0 is what there is"),
            Error::BufferFull(needed) => write!(f, "room for {needed} entries is needed"),
            Error::Hook(rc) => write!(f, "the application's hook refused with {rc}"),
            Error::DomainNotFound(domid) => write!(f, "there is no domain {domid}"),
            Error::NotFound(what) => write!(f, "there is no {what}"),
            Error::Failed(what) | Error::TimedOut(what) => f.write_str(what),
            Error::Aborted => f.write_str("it was called off"),
            Error::NotImplemented(what) => write!(f, "{what} needs libxenlight in the process"),
            Error::Os { what, .. } => f.write_str(what),
        }
    }
}

impl std::error::Error for Error {}
