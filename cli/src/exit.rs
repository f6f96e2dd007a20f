// SPDX-License-Identifier: LGPL-2.1-or-later
//! How the command ends: its exit codes, and what it says when it fails. `args` tells users of them.

use std::fmt::Display;
use std::io;
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::sync::OnceLock;
use std::time::Duration;

use crate::output::Writer;

/// How long what the command fails with may take to be written, if standard error isn't read.
const PATIENCE: Duration = Duration::from_secs(1);

/// The same for what else there is to say when it ends in time, or by a signal.
const PARTING: Duration = Duration::from_millis(100);

/// How many lines wait for standard error to be read. More are dropped.
const LINES_MAX: usize = 200;

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
    /// The time that was given has passed; and what has not come about in it, if there is something to say of that.
    TimeIsUp(Option<String>),
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
            Failure::TimeIsUp(_) => 4,
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
            Failure::TimeIsUp(Some(why)) => complain(why),
            Failure::TimeIsUp(None) | Failure::Amiss { .. } => {}
        }
        part(if matches!(self, Failure::TimeIsUp(_)) { PARTING } else { PATIENCE });
        ExitCode::from(self.code())
    }
}

/// Standard error, from the first complaint on; `None` if there can be no thread for it.
static STDERR: OnceLock<Option<Writer>> = OnceLock::new();

/// A line on standard error. It is on its way then: see [`said`].
pub fn complain(what: impl Display) {
    let line = format!("xlevent: {what}\n");
    let start = || Writer::start(io::stderr().as_fd().try_clone_to_owned().ok()?, || {}).ok();
    match STDERR.get_or_init(start) {
        Some(stderr) if stderr.left() < LINES_MAX => stderr.push(line.into_bytes()),
        Some(_) => {}
        // Nobody is left to tell if that fails.
        None => drop(io::Write::write_all(&mut io::stderr(), line.as_bytes())),
    }
}

/// Waits until all complaints are written, but not long if nobody reads them.
pub fn said() {
    part(PATIENCE);
}

/// The same at the end of a command that has nothing to complain of itself.
pub fn parting() {
    part(PARTING);
}

fn part(patience: Duration) {
    if let Some(Some(stderr)) = STDERR.get() {
        stderr.finish(patience);
    }
}
