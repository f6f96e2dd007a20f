// SPDX-License-Identifier: LGPL-2.1-or-later
//! What can go wrong, with what it went wrong on.

use std::fmt;
use std::io;

/// The result of an operation on a host.
pub type Result<T> = std::result::Result<T, Error>;

/// Why an operation on a host failed: a system error, and what was being done.
#[derive(Debug)]
pub struct Error {
    what: String,
    cause: io::Error,
}

impl Error {
    /// An error of this kind, while doing `what`.
    pub(crate) fn new(what: impl Into<String>, cause: io::Error) -> Error {
        Error { what: what.into(), cause }
    }

    /// The error with this number, while doing `what`.
    pub(crate) fn errno(what: impl Into<String>, errno: i32) -> Error {
        Error::new(what, io::Error::from_raw_os_error(errno))
    }

    /// An error with words and no number, while doing `what`.
    pub(crate) fn other(what: impl Into<String>, why: impl Into<String>) -> Error {
        Error::new(what, io::Error::other(why.into()))
    }

    /// The same error, in the course of something larger.
    pub(crate) fn within(self, what: impl fmt::Display) -> Error {
        Error { what: format!("{what}: {}", self.what), cause: self.cause }
    }

    /// The system's error number, or `EIO` where there is none.
    pub fn raw_os_error(&self) -> i32 {
        self.cause.raw_os_error().unwrap_or(match self.cause.kind() {
            io::ErrorKind::TimedOut => libc::ETIMEDOUT,
            _ => libc::EIO,
        })
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.cause)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.cause)
    }
}

impl From<io::Error> for Error {
    fn from(cause: io::Error) -> Error {
        Error::new("simulated host", cause)
    }
}

/// Says what was being done when a system error came.
pub(crate) trait Context<T> {
    /// Names what was being done.
    fn context<S: Into<String>>(self, what: impl FnOnce() -> S) -> Result<T>;
}

impl<T> Context<T> for io::Result<T> {
    fn context<S: Into<String>>(self, what: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|cause| Error::new(what(), cause))
    }
}
