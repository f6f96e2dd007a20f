// SPDX-License-Identifier: LGPL-2.1-or-later
//! How the command ends: its exit codes, and what it says when it fails. `args` tells users of them.

use std::fmt::Display;
use std::process::ExitCode;

/// Why the command ends, where it isn't that it has done what it was asked for.
#[derive(Debug, PartialEq, Eq)]
pub enum Failure {
    /// It could not be done.
    Failed(String),
    /// There is no Xen here, or none that answers.
    NoXen(String),
    /// The same, or something else is amiss, and everything has been said.
    Amiss {
        /// Xen can't be used.
        xen: bool,
    },
    /// The time that was given has passed.
    TimeIsUp,
    /// `run` itself has failed.
    Run(String),
    /// The program to run is there and can't be executed.
    NotExecutable(String),
    /// There is no such program.
    NoSuchProgram(String),
}

pub type Result<T> = std::result::Result<T, Failure>;

impl Failure {
    /// What could not be done, and why.
    pub fn failed(what: &str, why: impl Display) -> Self {
        Failure::Failed(format!("{what}: {why}"))
    }

    /// As the process's exit code.
    pub fn code(&self) -> u8 {
        match self {
            Failure::Failed(_) | Failure::Amiss { xen: false } => 1,
            // 2 is clap's, for a command line that makes no sense.
            Failure::NoXen(_) | Failure::Amiss { xen: true } => 3,
            Failure::TimeIsUp => 4,
            // Those of env, nice and the like.
            Failure::Run(_) => 125,
            Failure::NotExecutable(_) => 126,
            Failure::NoSuchProgram(_) => 127,
        }
    }

    /// Says what is to be said, and gives the exit code.
    pub fn report(&self) -> ExitCode {
        match self {
            Failure::Failed(why) | Failure::Run(why) | Failure::NotExecutable(why) | Failure::NoSuchProgram(why) => {
                complain(why);
            }
            Failure::NoXen(why) => complain(format_args!("{why}; `xlevent doctor` says what is missing")),
            Failure::TimeIsUp | Failure::Amiss { .. } => {}
        }
        ExitCode::from(self.code())
    }
}

/// A line on standard error.
pub fn complain(what: impl Display) {
    // Nobody is left to tell if that fails.
    let _ = std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("xlevent: {what}\n"));
}
