// SPDX-License-Identifier: LGPL-2.1-or-later
//! Hotplug scripts: which are run for a device, with which arguments, and the environment that libxl gives them.
//!
//! The script's path, and all else that it is given, comes from the backend's directory, which is the serving domain's. It is
//! asked for only where that domain is our own.
//!
//! What a script says goes to the log, whatever it ends with, and is bounded: of its output and of its errors the first 32
//! lines and the last 32, 400 bytes of each, or 800 characters with escapes. Control characters are escaped. Errors are warnings; output is information, or
//! a warning too if the script has failed. What explains a failure is part of the failure's own line.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::time::Duration;

use super::device::{Backend, Device};
use crate::childproc::said::Line;
use crate::childproc::{Command, End, Outcome, Said};
use crate::error::{Error, Result};
use crate::evgen::vbd::c_value;
use crate::xen::log::{Level, printable};

/// A script that takes longer is told to end.
const LIMIT: Duration = Duration::from_secs(40);

/// How much of what a script has said the line of its failure quotes.
const QUOTED: usize = 400;

/// So much is shown of a line. The log cuts off what is a little longer, and would cut off how much was left out.
const SHOWN: usize = 800;

/// What is to be done with a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// It has come.
    Add,
    /// It goes.
    Remove,
}

/// A script that is run for a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Run {
    /// For a disk.
    Disk,
    /// For a network interface of the backend's.
    Interface,
    /// For the emulated twin of one.
    EmulatedInterface,
}

/// The scripts for a backend, in their order. Those for which there is no use after all are left out by [`command`].
pub fn runs(backend: &Backend) -> &'static [Run] {
    match backend.kind() {
        "vbd" | "vbd3" => &[Run::Disk],
        "vif" => &[Run::Interface, Run::EmulatedInterface],
        _ => &[],
    }
}

/// What a backend's nodes say about its script.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// `script`: its path.
    pub script: Option<Vec<u8>>,
    /// `gatewaydev`: what `netdev` is to say.
    pub gateway_device: Option<Vec<u8>>,
    /// `type`: what an interface is to the guest.
    pub interface_type: Option<Vec<u8>>,
    /// The guest has a stub domain, which sees to its own emulated interfaces.
    pub has_stub_domain: bool,
}

/// The command; `None` if nothing is to be run. The environment is added to our own.
pub fn command(backend: &Backend, run: Run, action: Action, found: &Found) -> Result<Option<Command>> {
    let Some(script) = found.script.as_deref().map(c_value) else { return Ok(None) };
    if !script.starts_with(b"/") {
        let script = String::from_utf8_lossy(script).into_owned();
        return Err(Error::Failed(format!("{} is {script:?}, no path", backend.node("script").to_string_lossy())));
    }
    let emulated = match found.interface_type.as_deref().map(c_value) {
        Some(kind) => kind.eq_ignore_ascii_case(b"vif_ioemu"),
        None => false,
    };
    let (plug, hotplug) = match action {
        Action::Add => ("add", "online"),
        Action::Remove => ("remove", "offline"),
    };
    let arguments: &[&str] = match run {
        Run::Disk => &[plug],
        Run::Interface => &[hotplug, "type_if=vif"],
        Run::EmulatedInterface if emulated && !found.has_stub_domain => &[plug, "type_if=tap"],
        Run::EmulatedInterface => return Ok(None),
    };
    let script = OsString::from_vec(script.to_vec());
    let mut command = Command::new(script.clone())
        .args(arguments.iter().copied())
        .env("script", script)
        .env("XENBUS_TYPE", backend.kind())
        .env("XENBUS_PATH", backend.relative())
        .env("XENBUS_BASE_PATH", "backend")
        .time_limit(LIMIT);
    if run != Run::Disk {
        let gateway_device = found.gateway_device.as_deref().map(c_value).unwrap_or_default();
        let Device { domid, devid, .. } = backend.device;
        command = command
            .env("netdev", OsString::from_vec(gateway_device.to_vec()))
            .env("vif", format!("vif{domid}.{devid}"));
        if emulated {
            command = command.env("INTERFACE", format!("vif{domid}.{devid}-emu"));
        }
    }
    Ok(Some(command))
}

/// What a script's end means, and what the log is to say of what it has said. `explained` asks for what it has left behind to
/// say why it has failed.
pub fn verdict(outcome: &Outcome, explained: impl FnOnce() -> Option<String>) -> (Result<()>, Vec<(Level, String)>) {
    let ended = match outcome.end {
        _ if outcome.timed_out => format!("has not ended within {} s", LIMIT.as_secs()),
        End::Exited(0) => return (Ok(()), said(outcome)),
        End::Exited(status) => format!("has failed with status {status}"),
        End::Signalled(signal) => format!("was killed by signal {signal}"),
        End::Unknown => "has ended, and somebody else has taken its status".to_owned(),
        End::NotStarted(errno) => format!("can't be started: {}", errno.desc()),
    };
    let source = if outcome.errors.is_empty() { &outcome.output } else { &outcome.errors };
    let (text, is_all) = explained().map_or_else(|| last_words(source), |text| (text, false));
    let mut lines = Vec::new();
    for (stream, said) in [("stderr", &outcome.errors), ("stdout", &outcome.output)] {
        // The log says it once.
        if !(is_all && std::ptr::eq(said, source)) {
            list(&mut lines, Level::Warn, stream, said);
        }
    }
    let colon = if text.is_empty() { "" } else { ": " };
    let text = format!("the hotplug script {ended}{colon}{text}");
    (Err(if outcome.timed_out { Error::TimedOut(text) } else { Error::Failed(text) }), lines)
}

/// What a script has said that has not failed, for the log.
pub fn said(outcome: &Outcome) -> Vec<(Level, String)> {
    let mut lines = Vec::new();
    list(&mut lines, Level::Warn, "stderr", &outcome.errors);
    list(&mut lines, Level::Info, "stdout", &outcome.output);
    lines
}

fn list(lines: &mut Vec<(Level, String)>, level: Level, stream: &str, said: &Said) {
    let mut add = |text: String| lines.push((level, format!("hotplug script, {stream}: {text}")));
    said.first().for_each(|line| add(shown(line)));
    if said.left_out() > 0 {
        add(format!("({} more lines)", said.left_out()));
    }
    said.last().for_each(|line| add(shown(line)));
}

/// The last lines, as many as there is room for, and at least a part of the last; whether these are all.
fn last_words(said: &Said) -> (String, bool) {
    let mut words = String::new();
    let mut is_all = said.left_out() == 0;
    for line in said.first().chain(said.last()).rev() {
        let text = shown(line);
        if words.is_empty() {
            words = text;
        } else if words.len() + text.len() <= QUOTED {
            words = format!("{text}; {words}");
        } else {
            is_all = false;
            break;
        }
    }
    (words, is_all)
}

/// A line as it can be shown: escapes are longer than what they stand for, and all that is left out is counted.
fn shown(line: &Line) -> String {
    let text = line.text.trim_ascii_end();
    let (mut shown, mut left_out) = (String::new(), text.len() as u64 + line.cut_off);
    'line: for chunk in text.utf8_chunks() {
        let invalid = Some(('\u{fffd}', chunk.invalid().len())).filter(|(_, bytes)| *bytes > 0);
        for (character, bytes) in chunk.valid().chars().map(|valid| (valid, valid.len_utf8())).chain(invalid) {
            if shown.len() >= SHOWN {
                break 'line;
            }
            match character {
                '\t' => shown.push(' '),
                character => shown.push_str(&printable(character.encode_utf8(&mut [0; 4]))),
            }
            left_out -= bytes as u64;
        }
    }
    if left_out > 0 { format!("{shown}... ({left_out} more bytes)") } else { shown }
}

#[cfg(test)]
mod tests {
    use nix::errno::Errno;

    use super::super::device::Kind;
    use super::*;

    fn backend(kind: Kind, path: &str) -> Backend {
        Device { domid: 5, kind, devid: 1 }.backend(path.as_bytes()).unwrap()
    }

    fn interface() -> Backend {
        backend(Kind::Vif, "/local/domain/0/backend/vif/5/1")
    }

    fn found(script: &[u8], interface_type: &[u8]) -> Found {
        let some = |value: &[u8]| Some(value.to_vec());
        Found { script: some(script), interface_type: some(interface_type), ..Found::default() }
    }

    #[test]
    fn only_what_the_kernel_serves_has_scripts() {
        let runs_of = |kind| runs(&backend(Kind::Vbd, &format!("/local/domain/0/backend/{kind}/5/1"))).len();
        assert_eq!([runs_of("vbd"), runs_of("vbd3"), runs_of("qdisk"), runs_of("tap")], [1, 1, 0, 0]);
        assert_eq!(runs(&interface()), [Run::Interface, Run::EmulatedInterface]);
    }

    #[test]
    fn nothing_is_run_without_a_script() {
        assert!(command(&interface(), Run::Interface, Action::Add, &Found::default()).unwrap().is_none());
    }

    #[test]
    fn a_script_that_is_not_a_path_is_refused() {
        for script in [&b""[..], b"block", b"./block", b"\0/etc/xen/scripts/block", b" /bin/sh"] {
            assert!(matches!(
                command(&interface(), Run::Interface, Action::Add, &found(script, b"vif")),
                Err(Error::Failed(_))
            ));
        }
    }

    #[test]
    fn the_emulated_twin_is_seen_to_only_where_there_is_one_here() {
        let runs = |found: &Found| command(&interface(), Run::EmulatedInterface, Action::Add, found).unwrap().is_some();
        assert!(runs(&found(b"/bin/vif", b"vif_ioemu")));
        assert!(runs(&found(b"/bin/vif", b"VIF_IOEMU")));
        assert!(!runs(&found(b"/bin/vif", b"vif")));
        assert!(!runs(&Found { interface_type: None, ..found(b"/bin/vif", b"") }));
        assert!(!runs(&Found { has_stub_domain: true, ..found(b"/bin/vif", b"vif_ioemu") }));
    }

    fn said(text: &[u8]) -> Said {
        let mut said = Said::default();
        said.push(text);
        said.end();
        said
    }

    fn outcome(end: End) -> Outcome {
        Outcome { end, output: Said::default(), errors: said(b"it said\n"), timed_out: false }
    }

    fn failure(outcome: &Outcome, left: Option<&str>) -> String {
        match verdict(outcome, || left.map(str::to_owned)).0 {
            Err(Error::Failed(text) | Error::TimedOut(text)) => text,
            other => panic!("{other:?}"),
        }
    }

    fn lines(outcome: &Outcome) -> Vec<(Level, String)> {
        verdict(outcome, || None).1
    }

    #[test]
    fn a_verdict_says_what_the_script_has_left_behind_or_else_has_written() {
        assert_eq!(verdict(&outcome(End::Exited(0)), || None).0, Ok(()));
        let prefix = "the hotplug script";
        assert_eq!(failure(&outcome(End::Exited(3)), Some("left")), format!("{prefix} has failed with status 3: left"));
        assert_eq!(failure(&outcome(End::Signalled(9)), None), format!("{prefix} was killed by signal 9: it said"));
        assert!(failure(&outcome(End::Unknown), None).contains("somebody else"));
        let silent = Outcome { errors: Said::default(), ..outcome(End::NotStarted(Errno::ENOENT)) };
        assert!(failure(&silent, None).ends_with("No such file or directory"));
        for end in [End::Exited(0), End::Signalled(15)] {
            let late = Outcome { timed_out: true, ..outcome(end) };
            assert!(matches!(verdict(&late, || None), (Err(Error::TimedOut(_)), _)));
            assert!(failure(&late, None).ends_with("s: it said"));
        }
        let talks = Outcome { output: said(b"out\n"), errors: Said::default(), ..outcome(End::Exited(1)) };
        assert!(failure(&talks, None).ends_with(": out"));
    }

    #[test]
    fn what_a_script_says_is_in_the_log_whatever_it_ends_with_and_once() {
        let warning = (Level::Warn, "hotplug script, stderr: it said".to_owned());
        let both = Outcome { output: said(b"out\n"), ..outcome(End::Exited(0)) };
        assert_eq!(lines(&both), [warning.clone(), (Level::Info, "hotplug script, stdout: out".to_owned())]);
        let failed = Outcome { end: End::Exited(1), ..both };
        // What it has left says something else.
        let out = (Level::Warn, "hotplug script, stdout: out".to_owned());
        assert_eq!(verdict(&failed, || Some("left".to_owned())).1, [warning, out.clone()]);
        // Its failure's line has the errors.
        assert_eq!(lines(&failed), [out]);
    }

    #[test]
    fn a_failure_quotes_the_last_words_of_a_script_that_says_much() {
        let text: Vec<_> = (0..1000).map(|number| format!("line {number}\n")).collect();
        let much = Outcome { errors: said(text.concat().as_bytes()), ..outcome(End::Exited(1)) };
        let text = failure(&much, None);
        assert!(text.ends_with("; line 998; line 999") && text.len() < QUOTED + 100, "{text}");
        let lines = lines(&much);
        assert_eq!(lines.len(), 32 + 1 + 32);
        assert_eq!(lines[32].1, "hotplug script, stderr: (936 more lines)");
    }

    #[test]
    fn what_a_script_says_cannot_command_a_terminal_or_fill_a_log() {
        let hostile = [&b"\x1b[2J\x07a\tb\x00\x80\xff\r\n"[..], &[b'x'; 5000], b"\n", &[0x1b; 5000]].concat();
        let lines = lines(&Outcome { errors: said(&hostile), ..outcome(End::Exited(0)) });
        let texts: Vec<&str> = lines.iter().map(|(_, text)| text.as_str()).collect();
        assert_eq!(texts.len(), 3);
        assert_eq!(texts[0], "hotplug script, stderr: \\u{1b}[2J\\u{7}a b\\u{0}\u{fffd}\u{fffd}");
        assert!(texts[1].ends_with("xxx... (4600 more bytes)"));
        // An escape is six characters.
        assert!(texts[2].ends_with("\\u{1b}... (4866 more bytes)"), "{}", texts[2]);
        assert!(texts.iter().all(|text| text.len() < 1100 && !text.contains(char::is_control)));
    }
}
