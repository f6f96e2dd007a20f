// SPDX-License-Identifier: LGPL-2.1-or-later
//! Hotplug scripts: which are run for a device, with which arguments, and the environment that libxl gives them.
//!
//! The script's path, and all else that it is given, comes from the backend's directory, which is the serving domain's. It is
//! asked for only where that domain is our own.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::time::Duration;

use super::device::{Backend, Device};
use crate::childproc::{Command, End, Outcome};
use crate::error::{Error, Result};
use crate::evgen::vbd::c_value;

/// A script that takes longer is told to end.
const LIMIT: Duration = Duration::from_secs(40);

/// How much of a script's output the log is shown.
const OUTPUT_SHOWN: usize = 400;

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

/// What a script's end means. `explained` asks for what it has left behind to say why it has failed.
pub fn verdict(outcome: &Outcome, explained: impl FnOnce() -> Option<String>) -> Result<()> {
    let ended = match outcome.end {
        End::Exited(0) if !outcome.timed_out => return Ok(()),
        _ if outcome.timed_out => {
            return Err(Error::TimedOut(format!("the hotplug script has not ended within {} s", LIMIT.as_secs())));
        }
        End::Exited(status) => format!("has failed with status {status}"),
        End::Signalled(signal) => format!("was killed by signal {signal}"),
        End::Unknown => "has ended, and somebody else has taken its status".to_owned(),
        End::NotStarted(errno) => format!("can't be started: {}", errno.desc()),
    };
    let text = explained().unwrap_or_else(|| {
        let output = String::from_utf8_lossy(&outcome.output);
        output.trim().chars().take(OUTPUT_SHOWN).collect()
    });
    let colon = if text.is_empty() { "" } else { ": " };
    Err(Error::Failed(format!("the hotplug script {ended}{colon}{text}")))
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

    #[test]
    fn a_verdict_says_what_the_script_has_left_behind_or_else_has_written() {
        let outcome = |end| Outcome { end, output: b"it said\n".to_vec(), truncated: false, timed_out: false };
        assert_eq!(verdict(&outcome(End::Exited(0)), || None), Ok(()));
        let text = |outcome: Outcome, left: Option<&str>| match verdict(&outcome, || left.map(str::to_owned)) {
            Err(Error::Failed(text)) => text,
            other => panic!("{other:?}"),
        };
        let prefix = "the hotplug script";
        assert_eq!(text(outcome(End::Exited(3)), Some("left")), format!("{prefix} has failed with status 3: left"));
        assert_eq!(text(outcome(End::Signalled(9)), None), format!("{prefix} was killed by signal 9: it said"));
        assert!(text(outcome(End::Unknown), None).contains("somebody else"));
        let silent = Outcome { output: Vec::new(), ..outcome(End::NotStarted(Errno::ENOENT)) };
        assert!(text(silent, None).ends_with("No such file or directory"));
        for end in [End::Exited(0), End::Signalled(15)] {
            let late = Outcome { timed_out: true, ..outcome(end) };
            assert!(matches!(verdict(&late, || None), Err(Error::TimedOut(_))));
        }
    }
}
