// SPDX-License-Identifier: LGPL-2.1-or-later
//! The `xlevent` command.
//!
//! | room | what it is for |
//! |---|---|
//! | [`args`] | the command line, and what users are told of it |
//! | [`watch`] | `xlevent watch`: a line for each event |
//! | [`run`] | `xlevent run`: a program with the library preloaded |
//! | [`doctor`] | `xlevent doctor`: what there is, and what is amiss |
//! | [`libraries`] | where the library is |
//! | [`program`] | what kind of file a program is |
//! | [`output`] | writing to who may not read |
//! | [`exit`] | how the command ends |
//!
//! It is a user of the library like any other: what it does with Xen it does through the crate's public functions.

mod args;
mod doctor;
mod exit;
mod libraries;
mod output;
mod program;
mod run;
mod watch;

use std::process::ExitCode;

use args::{Arguments, Command};
use clap::Parser;

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Watch(watch) => watch::watch(&watch),
        Command::Run(run) => run::run(&run).map(|never| match never {}),
        Command::Doctor(_) => doctor::doctor(),
    };
    match result {
        Ok(()) => {
            exit::parting();
            ExitCode::SUCCESS
        }
        Err(failure) => failure.report(),
    }
}
