// SPDX-License-Identifier: LGPL-2.1-or-later
//! The command line. What `--help` says, the manual page and the completions are all made of this.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::time::Duration;

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueHint};

/// The exit codes, and what they mean.
pub const EXIT_STATUS: [(&str, &str); 8] = [
    (
        "0",
        "Done. Of watch: the domains that were named are dead, the count is reached, a signal (SIGINT, SIGTERM, SIGHUP) has \
         ended it, or nobody reads its output any more.",
    ),
    ("1", "Failed. Of doctor: something of xlevent's own is amiss."),
    ("2", "The command line makes no sense."),
    ("3", "There is no Xen here, or none that answers."),
    ("4", "Of watch: the time is up."),
    ("125", "Of run, whose status is otherwise the program's: run itself has failed."),
    ("126", "Of run: the program can't be executed."),
    ("127", "Of run: there is no such program."),
];

fn exit_status() -> String {
    let lines = EXIT_STATUS.iter().map(|(code, meaning)| format!("\n  {code:<4} {meaning}"));
    std::iter::once("Exit status:".to_owned()).chain(lines).collect()
}

/// Events of a Xen host's domains
///
/// xlevent is Xen's event library, libxl_event.h, with the same C ABI. This command watches a host with it, runs programs
/// that use libxenlight on it, and says what is amiss.
#[derive(Debug, Parser)]
#[command(name = "xlevent", version, after_long_help = exit_status(), max_term_width = 100)]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    Watch(Watch),
    Run(Run),
    Doctor(Doctor),
}

/// A domain that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    Number(u32),
    /// As xenstore has it: any bytes.
    Name(Vec<u8>),
}

impl Wanted {
    fn parse(text: OsString) -> Result<Self, String> {
        let bytes = text.into_vec();
        let number = |bytes: &[u8]| std::str::from_utf8(bytes).ok()?.parse().ok();
        if let Some(name) = bytes.strip_prefix(b"name:") {
            return Ok(Wanted::Name(name.to_vec()));
        }
        if let Some(digits) = bytes.strip_prefix(b"domid:") {
            return number(digits).map(Wanted::Number).ok_or_else(|| "no number follows domid:".to_owned());
        }
        Ok(number(&bytes).map_or(Wanted::Name(bytes), Wanted::Number))
    }
}

/// Write a line for each thing that happens to a domain
///
/// A domain is created, suspended, running (again, after it was suspended or had shut down), shut down for a reason, dead. A
/// line has six columns: the time (RFC 3339, UTC) at which the event was received, the domain's number, its UUID, what has
/// happened, the reason with its number or -, and the domain's name, which is empty where it could not (yet) be learnt. In names,
/// bytes that are not printable ASCII, and backslashes, are written as \xNN. Each line is written at once.
///
/// The name is the last one that this domain had, also on the line of its death, when another domain may have its name or its
/// number already. A toolstack may name a domain after it has created it: so the line "created" of a domain without a name
/// waits for the name, but not longer than a second. Meanwhile lines of other domains go ahead, so the times need not
/// ascend. If xenstored doesn't answer for a second, lines have the last name that is known.
///
/// xenstored may be restarted meanwhile: nothing that can still be seen is lost. That it has gone, and that it is back, is
/// written to standard error, with --json too. At the beginning it has to answer: if it doesn't for 10 seconds, or the
/// hypervisor doesn't, the exit status is 3. The control domain, number 0, is only watched where it is named.
///
/// A signal, or the end of the time, ends the command at once, whatever it waits for: xenstored, the hypervisor, or the one who
/// reads its output. Lines that nobody reads are lost then.
#[derive(Debug, Args)]
pub struct Watch {
    /// Watch this domain alone, and end when it is dead; may be given several times
    ///
    /// A number is a domain's number, anything else a name. name:42 is the domain with the name 42, domid:42 the same as 42.
    ///
    /// Of several domains with the name, the living one is meant: one that is dying, such as one that can't be freed, doesn't
    /// count beside it. If several live, the command fails and says their numbers. If none lives, all that are dying are meant,
    /// and it ends at once with a line for each. Which domain is meant is found out once: it is followed under whatever
    /// name it is given later.
    #[arg(short, long, value_name = "N|NAME", value_hint = ValueHint::Other, conflicts_with = "all")]
    #[arg(value_parser = OsStringValueParser::new().try_map(Wanted::parse))]
    pub domain: Vec<Wanted>,

    /// Watch all domains, also those that are yet to come (the default)
    #[arg(short, long)]
    pub all: bool,

    /// Write JSON: an object for each event, on a line of its own
    ///
    /// Its members: time, domid, uuid, name (null if unknown; what is not UTF-8 in it is replaced), type, type_number
    /// (LIBXL_EVENT_TYPE_...), reason and reason_number (null but for a shutdown). All that is not ASCII is escaped.
    #[arg(short, long)]
    pub json: bool,

    /// Begin with what is there already
    ///
    /// A line "created" for each domain that there is, and one for its present state if it is suspended, shut down or dying.
    /// Without this option only what happens from now on is told.
    #[arg(short, long)]
    pub since_start: bool,

    /// End after so many lines
    #[arg(short, long, value_name = "LINES", value_hint = ValueHint::Other)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,

    /// End after this time, such as 30s or 5min, with exit status 4
    ///
    /// The time begins when the command does. It is kept also while xenstored doesn't answer, and while nobody reads the output.
    #[arg(short, long, value_name = "TIME", value_hint = ValueHint::Other, value_parser = humantime::parse_duration)]
    pub timeout: Option<Duration>,
}

/// Run a program with the library in front of libxenlight
///
/// The program is executed in place of this command, with libxlevent.so preloaded. What the program starts is not: neither
/// LD_PRELOAD nor the library gets there. If it is a script, its interpreter has the library, and so has the program that
/// the script becomes with exec, as Debian's xl does; what a script starts as a child has not.
///
/// Programs that are linked statically, that gain privileges when they are started (setuid), or that are made for another
/// kind of processor can't be given a library in this way: they are run without, and a line on standard error says so.
#[derive(Debug, Args)]
pub struct Run {
    /// The program and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    #[arg(value_hint = ValueHint::CommandWithArguments)]
    pub command: Vec<OsString>,
}

/// Say what there is on this host, and what is amiss
///
/// A line for each thing that was looked at: the hypervisor, its device, libxenctrl, xenstored, libxenlight, and whether
/// `xlevent run` gets the library in front of it in xl. Each is ok, warn or BAD; below the last two stands what to do.
///
/// What is said is found out by doing what a program would do: hypercalls are made, xenstored is asked, and the dynamic linker,
/// too. Nothing is changed, and xl isn't started. What doesn't answer within 5 seconds is BAD, and the next check is made.
#[derive(Debug, Args)]
pub struct Doctor {}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_number_is_a_number_and_what_follows_name_is_a_name() {
        let parse = |text: &[u8]| Wanted::parse(OsString::from_vec(text.to_vec()));
        for number in ["42", "domid:42"] {
            assert_eq!(parse(number.as_bytes()), Ok(Wanted::Number(42)));
        }
        for (text, name) in [
            (&b"web"[..], &b"web"[..]),
            (b"name:42", b"42"),
            (b"name:domid:42", b"domid:42"),
            (b"name:", b""),
            (b"", b""),
            (b"4294967296", b"4294967296"),
            (b"\xff", b"\xff"),
        ] {
            assert_eq!(parse(text), Ok(Wanted::Name(name.to_vec())));
        }
        for text in [&b"domid:"[..], b"domid:web", b"domid:4294967296", b"domid:\xff"] {
            assert!(parse(text).is_err());
        }
    }

    #[test]
    fn options_of_the_program_are_the_programs() {
        for line in
            [&["xlevent", "run", "xl", "-v", "--", "--help"][..], &["xlevent", "run", "--", "xl", "-v", "--", "--help"]]
        {
            let Command::Run(run) = Arguments::parse_from(line).command else { panic!("{line:?}") };
            assert_eq!(run.command, ["xl", "-v", "--", "--help"]);
        }
    }
}
