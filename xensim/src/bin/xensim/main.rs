// SPDX-License-Identifier: LGPL-2.1-or-later
//! The command `xensim`: brings simulated Xen hosts up and down and lets things happen on them, from a shell or a test
//! script.
//!
//! Every subcommand is one function in `commands.rs`; what it does is the library's.

mod args;
mod commands;
mod names;

use std::process::ExitCode;

use args::Args;
use commands::Failure;

const USAGE: &str = "\
usage: xensim COMMAND ...

A simulated Xen host: real xenstored and libxl over simulated hypercalls.

Hosts
  up [--name NAME] [--root FOLDER] [--owner PID] [--no-xenstored] [--env]
                        bring a host up; print its directory, or what to eval
  run [--name NAME] [--root FOLDER] [--no-xenstored] COMMAND ...
                        run a command as a client of a host of its own
  env                   print what a client's environment needs, for eval
  down [--all]          take the host down, or all hosts of this user
  hosts                 list the hosts of this user
  sweep                 remove what hosts left behind whose owners died

Domains (DOMAIN: a number, a range 5-90, a name, or all)
  create [NAME] [--count N] [--domid N] [--uuid UUID] [--memory MIB]
         [--vcpus N] [--hvm] [--paused] [--no-introduce]
         [--nodes all|name|none]
                        create domains; print their numbers
  shutdown DOMAIN ... [--reason REASON] [--and-die]
                        REASON: poweroff, reboot, suspend, crash, watchdog,
                        soft_reset or 0 to 255
  suspend DOMAIN ...    shut down with reason suspend
  resume DOMAIN ...     let run again what has shut down
  soft-reset DOMAIN ... the same by a reset in place: xenstored forgets them
                        and is told of them anew
  kill DOMAIN ...       dying, but still there
  destroy DOMAIN ... [--keep-nodes]
                        gone
  pause DOMAIN ... | unpause DOMAIN ...
  set-uuid DOMAIN UUID  as a toolstack does to a domain that is there
  list [DOMAIN ...]     number, state, reason, UUID, name

What goes wrong
  inject CALL ... [--errno ERRNO] [--times N] [--after N] [--delay MS]
         [--xenstored]  make hypercalls fail (for ever, or N times) or slow
  inject --clear        make all hypercalls behave
  counters [--reset]    how many hypercalls were made, of each kind
  access full | no-permission | no-hypervisor
                        whether clients may open the devices
  xenstored start | kill | restart [--empty]
  xenstored pause | continue | log
  virq                  let xenstored look at its domains, for no reason
  settle                wait until xenstored has dealt with all that happened

The host is the one that $XENSIM_DIR names, or --host DIRECTORY.
";

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let command = words.next().unwrap_or_default();
    let mut args = Args::new(words);
    let result = match command.as_str() {
        "" => Err(Failure::Usage("a command is missing".into())),
        "help" | "--help" | "-h" => {
            print!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        _ if command != "run" && (args.flag("--help") || args.flag("-h")) => {
            print!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        _ => commands::run(&command, args),
    };
    match result {
        Ok(status) => status,
        Err(Failure::Usage(error)) => {
            eprintln!("xensim: {error}\nTry: xensim help");
            ExitCode::from(2)
        }
        Err(Failure::Host(error)) => {
            eprintln!("xensim: {error}");
            ExitCode::FAILURE
        }
    }
}
