// SPDX-License-Identifier: LGPL-2.1-or-later
//! `xlevent run`: becomes another program, with the library preloaded into that one alone.
//!
//! `LD_PRELOAD` names the library, and ahead of it an object that takes both out again as soon as they are loaded: see
//! `preload/src/lib.rs`. There is no process in between, so signals, job control and the exit status are the program's.

use std::convert::Infallible;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use crate::args;
use crate::exit::{Failure, Result, complain, said};
use crate::libraries::Libraries;
use crate::program::{self, Missing};

/// By which the preloaded object knows this process again.
const PROCESS: &str = "XLEVENT_RUN";

pub fn run(run: &args::Run) -> Result<Infallible> {
    let Some((name, arguments)) = run.command.split_first() else {
        return Err(Failure::Run("no program is named".to_owned()));
    };
    // A name may be empty, or have blanks.
    let shown = format!("'{}'", Path::new(name).display());
    let path = program::find(Path::new(name)).map_err(|missing| match missing {
        Missing::NotFound => Failure::NoSuchProgram(format!("{shown}: there is no such program")),
        Missing::NotExecutable => Failure::NotExecutable(format!("{shown} can't be executed")),
    })?;
    let mut command = Command::new(&path);
    command.arg0(name).args(arguments);
    match program::why_not_preloaded(&path) {
        // What it starts would be given the library in its place.
        Some(why) => {
            complain(format_args!("{why}, so it runs without the library"));
            said();
        }
        None => {
            let preload = Libraries::find().and_then(|found| found.preload(std::env::var_os("LD_PRELOAD")));
            command.env("LD_PRELOAD", preload.map_err(Failure::Run)?);
            command.env(PROCESS, std::process::id().to_string());
        }
    }
    let error = command.exec();
    Err(match error.kind() {
        // The interpreter of a script, or what loads a program.
        std::io::ErrorKind::NotFound => Failure::NoSuchProgram(format!("{shown}: {error}")),
        _ => Failure::NotExecutable(format!("{shown}: {error}")),
    })
}
