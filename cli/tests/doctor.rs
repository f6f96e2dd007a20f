// SPDX-License-Identifier: LGPL-2.1-or-later
//! `xlevent doctor` with Xen, with less and less of it, and without.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod support;

use std::fs::File;
use std::process::Command;

use support::{Folder, host, nowhere, on, output, pipe, text};
use xensim::{Access, Host};

/// The verdict on each thing, and the exit code.
fn verdicts(command: &mut Command) -> (Vec<(String, String)>, String, Option<i32>) {
    let done = output(command);
    assert_eq!(text(&done.stderr), "");
    let said = text(&done.stdout);
    let findings = said.lines().filter(|line| !line.starts_with(' '));
    let verdict = |line: &str| {
        let mut words = line.split_whitespace().map(str::to_owned);
        (words.next().unwrap(), words.next().unwrap())
    };
    (findings.map(verdict).map(|(verdict, what)| (what, verdict)).collect(), said, done.status.code())
}

fn of(host: &Host) -> (Vec<(String, String)>, String, Option<i32>) {
    verdicts(&mut on(host, &["doctor"]))
}

#[track_caller]
fn assert_verdict(findings: &[(String, String)], what: &str, verdict: &str) {
    let found: Vec<&str> = findings.iter().filter(|(of, _)| of == what).map(|(_, verdict)| verdict.as_str()).collect();
    assert!(!found.is_empty() && found.iter().all(|found| *found == verdict), "{what}: {found:?}");
}

#[test]
fn where_all_is_well_it_says_what_is_used() {
    let host = host();
    let (findings, said, code) = of(&host);
    for what in ["privcmd", "libxenctrl", "hypercalls", "xenstored", "watches", "libxenlight", "xlevent", "preload"] {
        assert_verdict(&findings, what, "ok");
    }
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("xl: its libxl_event_wait is xlevent's\n"), "{said}");
    assert!(said.contains("/bin/xenstored, process "), "{said}");
    assert!(said.contains("one for all domains, and a scan"), "{said}");
}

#[test]
fn libxenlight_is_found_without_the_linkers_cache() {
    let host = host();
    let folder = Folder::new("doctor-without-cache");
    folder.script("ldconfig", "#!/bin/sh\necho \"Can't open cache file\" >&2\nexit 1\n");
    let mut path = folder.path("").into_os_string();
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap_or_default());
    let (findings, said, code) = verdicts(on(&host, &["doctor"]).env("PATH", path));
    assert_verdict(&findings, "libxenlight", "ok");
    let line = said.lines().find(|line| line.contains("ok    libxenlight")).unwrap();
    assert!(line.contains("/libxenlight.so.4."), "{said}");
    assert_eq!(code, Some(0), "{said}");
}

#[test]
fn who_reads_no_more_is_not_complained_of() {
    let host = host();
    let (reader, writer) = pipe();
    drop(reader);
    let done = output(on(&host, &["doctor"]).stdout(writer));
    assert_eq!((done.status.code(), text(&done.stderr)), (Some(0), String::new()));
}

#[test]
fn what_cannot_be_written_is_a_failure() {
    let host = host();
    let full = File::options().write(true).open("/dev/full").unwrap();
    let done = output(on(&host, &["doctor"]).stdout(full));
    assert_eq!(done.status.code(), Some(1));
    assert!(text(&done.stderr).starts_with("xlevent: writing: "), "{}", text(&done.stderr));
}

#[test]
fn each_thing_that_is_missing_is_named_with_what_to_do() {
    let host = host();
    host.set_access(Access::NoPermission);
    let (findings, said, code) = of(&host);
    assert_verdict(&findings, "privcmd", "BAD");
    assert_verdict(&findings, "hypercalls", "BAD");
    assert_verdict(&findings, "xenstored", "ok");
    assert!(said.contains("-> run this as root"), "{said}");
    assert_eq!(code, Some(3));
    host.set_access(Access::Full);

    host.kill_xenstored().unwrap();
    let (findings, said, code) = of(&host);
    assert_verdict(&findings, "hypercalls", "ok");
    assert_verdict(&findings, "xenstored", "BAD");
    assert!(said.contains("-> start it"), "{said}");
    assert_eq!(code, Some(3));
    host.start_xenstored().unwrap();

    host.pause_xenstored(true).unwrap();
    let (findings, said, code) = of(&host);
    host.pause_xenstored(false).unwrap();
    assert_verdict(&findings, "xenstored", "BAD");
    assert!(said.contains("doesn't answer"), "{said}");
    assert_eq!(code, Some(3));
    assert_eq!(of(&host).2, Some(0));
}

#[test]
fn without_xen_it_says_so_and_looks_at_the_rest() {
    let (findings, said, code) = verdicts(&mut nowhere(&["doctor"]));
    assert_verdict(&findings, "xenstored", "BAD");
    for what in ["libxenlight", "xlevent", "preload"] {
        assert_verdict(&findings, what, "ok");
    }
    assert_eq!(code, Some(3), "{said}");
}

#[test]
fn what_spoils_the_preload_is_seen() {
    // Something with a function of the same name, ahead of all that LD_PRELOAD can bring, can't be had without changing the
    // system. A command without its library can.
    let host = host();
    let folder = Folder::new("doctor");
    let command = folder.link(env!("CARGO_BIN_EXE_xlevent").as_ref(), "xlevent");
    let (findings, said, code) = verdicts(host.command(&command).arg("doctor"));
    assert_verdict(&findings, "xlevent", "BAD");
    assert_verdict(&findings, "hypercalls", "ok");
    assert_eq!(code, Some(1), "{said}");
    let reports = on(&host, &["doctor"]).env("XLEVENT_REPORT_SUSPEND", "1").output().unwrap();
    assert!(text(&reports.stdout).contains("warn  environment"), "{}", text(&reports.stdout));
    assert_eq!(reports.status.code(), Some(0));
}
