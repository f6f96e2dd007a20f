// SPDX-License-Identifier: LGPL-2.1-or-later
//! The command where something hangs: xenstored, the hypervisor, a program that is asked, or the reader of the output. It keeps
//! its time, and signals end it with the status that its manual page says.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod support;

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use serde_json::{Value, json};
use support::{Folder, Running, host, on, pipe, text, wait_for};
use xensim::inject::{Call, Fault};
use xensim::toolstack::Change;
use xensim::{Config, Host, Reason};

const SIGINT: i32 = 2;
const SIGTERM: i32 = 15;

/// A program that ends with the test.
struct Started(Child);

impl Started {
    fn start(command: &mut Command) -> Self {
        Started(command.stdin(Stdio::null()).spawn().unwrap())
    }

    fn pid(&self) -> i32 {
        self.0.id().try_into().unwrap()
    }

    fn signal(&self, signal: i32) {
        xensim::sys::kill(self.pid(), signal).unwrap();
    }

    /// It ends by itself.
    fn end(mut self) -> ExitStatus {
        let mut status = None;
        wait_for("the end of the command", || {
            status = self.0.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }

    /// It catches the signals that end it.
    fn catches_signals(&self) -> bool {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
        let caught = u64::from_str_radix(caught.trim(), 16).unwrap();
        [SIGINT, SIGTERM].iter().all(|signal| caught & (1 << (signal - 1)) != 0)
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// As many clients as xenstored lets wait to be accepted: the next has to wait to be let wait.
fn crowd(host: &Host) -> Vec<OwnedFd> {
    let address = UnixAddr::new(&host.socket()).unwrap();
    let mut crowd = Vec::new();
    loop {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let client = socket(AddressFamily::Unix, SockType::Stream, flags, None).unwrap();
        match connect(client.as_raw_fd(), &address) {
            Ok(()) => crowd.push(client),
            Err(errno) => {
                assert_eq!(errno, Errno::EAGAIN);
                return crowd;
            }
        }
    }
}

/// A pipe that nobody reads, and into which nothing more goes.
fn full_pipe() -> (File, OwnedFd) {
    let (reader, mut writer) = pipe();
    let size = fcntl(&writer, FcntlArg::F_GETPIPE_SZ).unwrap();
    writer.write_all(&vec![b'.'; size.try_into().unwrap()]).unwrap();
    (reader, writer.into())
}

fn said(mut from: File) -> String {
    let mut said = Vec::new();
    from.read_to_end(&mut said).unwrap();
    text(&said)
}

fn essence(line: &str) -> Value {
    let line: Value = serde_json::from_str(line).unwrap();
    json!([line["domid"], line["type"], line["name"]])
}

/// What `watch` may be asked for at the beginning.
const BEGINNINGS: [&[&str]; 4] = [&[], &["-d", "web"], &["-d", "1"], &["-s", "--json"]];

#[test]
fn the_time_is_kept_while_xenstored_hangs_at_the_beginning_and_it_says_why() {
    let host = host();
    host.create(&Config::named("web")).unwrap();
    host.pause_xenstored(true).unwrap();
    for others_wait in [false, true] {
        let _crowd = others_wait.then(|| crowd(&host));
        for options in BEGINNINGS {
            let (reader, writer) = pipe();
            let options = [&["watch", "--timeout", "2s"], options].concat();
            let status = Started::start(on(&host, &options).stderr(OwnedFd::from(writer))).end();
            assert_eq!(status.code(), Some(4), "{options:?}, others wait: {others_wait}");
            assert_eq!(said(reader), "xlevent: the time is up, and xenstored doesn't answer\n");
        }
    }
}

#[test]
fn without_a_time_a_xenstored_that_does_not_answer_is_none() {
    let host = host();
    host.pause_xenstored(true).unwrap();
    let (reader, writer) = pipe();
    let status = Started::start(on(&host, &["watch"]).stderr(OwnedFd::from(writer))).end();
    assert_eq!(status.code(), Some(3));
    let said = said(reader);
    assert!(said.starts_with("xlevent: xenstored doesn't answer within 10 s; "), "{said}");
}

#[test]
fn the_time_is_kept_while_the_hypervisor_hangs() {
    let host = host();
    host.inject(Call::GetDomainInfoList, &Fault::delay(Duration::from_secs(1000)));
    let (reader, writer) = pipe();
    let options = ["watch", "--timeout", "2s"];
    let status = Started::start(on(&host, &options).stderr(OwnedFd::from(writer))).end();
    assert_eq!(status.code(), Some(4));
    assert_eq!(said(reader), "xlevent: the time is up, and the hypervisor doesn't answer\n");
}

#[test]
fn signals_end_it_at_the_beginning_whatever_hangs() {
    let host = host();
    host.create(&Config::named("web")).unwrap();
    let ends = |others: bool| {
        for signal in [SIGINT, SIGTERM] {
            for options in BEGINNINGS {
                let watch = Started::start(&mut on(&host, &[&["watch"], options].concat()));
                wait_for("a handler", || watch.catches_signals());
                watch.signal(signal);
                let status = watch.end();
                assert_eq!(status.code(), Some(0), "{signal} {options:?} {others} {:?}", status.signal());
            }
        }
    };
    host.pause_xenstored(true).unwrap();
    ends(false);
    let crowd = crowd(&host);
    ends(true);
    drop(crowd);
    host.pause_xenstored(false).unwrap();
    host.inject(Call::GetDomainInfoList, &Fault::delay(Duration::from_secs(1000)));
    ends(false);
}

#[test]
fn a_line_has_the_last_name_that_is_known_when_xenstored_hangs() {
    let host = host();
    let web = host.create(&Config::named("web")).unwrap();
    let watch = Running::start(&mut on(&host, &["watch", "--json", "-s", "-d", "web"]));
    assert_eq!(essence(&watch.line()), json!([web, "created", "web"]));
    host.suspend(web).unwrap();
    assert_eq!(essence(&watch.line()), json!([web, "suspended", "web"]));
    host.pause_xenstored(true).unwrap();
    // xenstored isn't needed to notice that.
    host.change([web], Change::Resume).unwrap();
    assert_eq!(essence(&watch.line()), json!([web, "running", "web"]));
    xensim::sys::kill(watch.pid(), SIGTERM).unwrap();
    assert_eq!(watch.end().code(), Some(0));
}

#[test]
fn a_signal_ends_it_while_a_name_is_looked_up() {
    let host = host();
    let web = host.create(&Config::named("web")).unwrap();
    host.suspend(web).unwrap();
    for signal in [SIGINT, SIGTERM] {
        let watch = Running::start(&mut on(&host, &["watch", "--json", "-s"]));
        for _ in 0..2 {
            watch.line();
        }
        host.pause_xenstored(true).unwrap();
        host.change([web], Change::Resume).unwrap();
        // Such a look finds it running, and its name is asked for.
        let before = host.count(Call::GetDomainInfoList);
        wait_for("a look", || host.count(Call::GetDomainInfoList) > before);
        xensim::sys::kill(watch.pid(), signal).unwrap();
        let ran = watch.next_line();
        assert!(ran.is_none_or(|line| essence(&line) == json!([web, "running", "web"])));
        assert_eq!(watch.end().code(), Some(0));
        host.pause_xenstored(false).unwrap();
        host.suspend(web).unwrap();
        host.settle().unwrap();
    }
}

#[test]
fn the_time_is_kept_while_a_name_is_looked_up() {
    let host = host();
    let web = host.create(&Config::named("web")).unwrap();
    host.suspend(web).unwrap();
    let watch = Running::start(&mut on(&host, &["watch", "--json", "-s", "--timeout", "5s"]));
    for _ in 0..2 {
        watch.line();
    }
    host.pause_xenstored(true).unwrap();
    host.change([web], Change::Resume).unwrap();
    // Or the time is up before it is seen to run.
    let ran = watch.next_line();
    assert!(ran.is_none_or(|line| essence(&line) == json!([web, "running", "web"])));
    assert_eq!(watch.end().code(), Some(4));
}

#[test]
fn the_time_and_signals_are_kept_while_nobody_reads() {
    let host = host();
    host.create(&Config::named("web")).unwrap();
    let (reader, writer) = full_pipe();
    let watch = |options: &[&str]| {
        let options = [&["watch", "-s"], options].concat();
        Started::start(on(&host, &options).stdout(writer.try_clone().unwrap()))
    };
    assert_eq!(watch(&["--timeout", "2s"]).end().code(), Some(4));
    // Also when there is nothing to wait for but the reader.
    assert_eq!(watch(&["--timeout", "2s", "--count", "1"]).end().code(), Some(4));
    for signal in [SIGINT, SIGTERM] {
        let watch = watch(&[]);
        wait_for("a handler", || watch.catches_signals());
        watch.signal(signal);
        assert_eq!(watch.end().code(), Some(0));
    }
    let last = watch(&[]);
    drop((reader, writer));
    assert_eq!(last.end().code(), Some(0));
}

#[test]
fn who_reads_late_gets_all_lines() {
    let host = host();
    let domids = host.create_many(20, &Config::named("web")).unwrap();
    let (reader, writer) = full_pipe();
    let watch = Started::start(on(&host, &["watch", "--json", "-s", "-c", "20"]).stdout(writer));
    let said = said(reader);
    let lines = said.trim_start_matches('.');
    let created: Vec<Value> = lines.lines().map(essence).collect();
    let expected: Vec<Value> = (1..).zip(domids).map(|(n, id)| json!([id, "created", format!("web{n}")])).collect();
    assert_eq!(created, expected);
    assert_eq!(watch.end().code(), Some(0));
}

#[test]
fn a_standard_error_that_nobody_reads_keeps_nothing() {
    let host = host();
    let web = host.create(&Config::named("web")).unwrap();
    let (_reader, writer) = full_pipe();
    let stderr = || writer.try_clone().unwrap();
    let watch = Running::start(on(&host, &["watch", "--json", "-s", "-d", "web"]).stderr(stderr()));
    assert_eq!(essence(&watch.line()), json!([web, "created", "web"]));
    // Which it complains of.
    host.restart_xenstored().unwrap();
    host.shutdown(web, Reason::CRASH).unwrap();
    assert_eq!(essence(&watch.line()), json!([web, "shutdown", "web"]));
    xensim::sys::kill(watch.pid(), SIGTERM).unwrap();
    assert_eq!(watch.end().code(), Some(0));
    let fails = |words: &[&str]| Started::start(on(&host, words).stderr(stderr())).end().code();
    assert_eq!(fails(&["watch", "-d", "nobody"]), Some(1));
    assert_eq!(fails(&["run", "no-such-program-anywhere"]), Some(127));
}

fn doctor(command: &mut Command) -> (String, Option<i32>) {
    let (reader, writer) = pipe();
    let doctor = Started::start(command.stdout(writer));
    // It holds the other end of the pipe, too.
    command.stdout(Stdio::null());
    let code = doctor.end().code();
    (said(reader), code)
}

#[test]
fn doctor_ends_however_many_wait_for_xenstored() {
    let host = host();
    host.pause_xenstored(true).unwrap();
    let _crowd = crowd(&host);
    let (said, code) = doctor(&mut on(&host, &["doctor"]));
    assert!(said.contains("BAD   xenstored"), "{said}");
    assert!(said.contains("doesn't answer within 5 s"), "{said}");
    assert!(said.contains("ok    preload"), "what comes after it is looked at: {said}");
    assert_eq!(code, Some(3));
}

#[test]
fn doctor_ends_when_the_hypervisor_hangs() {
    let host = host();
    host.inject(Call::GetDomainInfoList, &Fault::delay(Duration::from_secs(1000)));
    let (said, code) = doctor(&mut on(&host, &["doctor"]));
    assert!(said.contains("BAD   hypercalls   no answer within 5 s"), "{said}");
    assert!(said.contains("ok    xenstored"), "{said}");
    assert_eq!(code, Some(3));
}

#[test]
fn doctor_ends_when_a_program_that_it_asks_hangs() {
    let host = host();
    let folder = Folder::new("doctor-with-a-hanging-program");
    folder.script("ldconfig", "#!/bin/sh\nexec sleep 1000\n");
    let mut path = folder.path("").into_os_string();
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap_or_default());
    let (said, code) = doctor(on(&host, &["doctor"]).env("PATH", path));
    assert!(said.contains("ok    libxenlight"), "xl finds one: {said}");
    assert_eq!(code, Some(0), "{said}");
}

#[test]
fn doctor_ends_when_nobody_reads() {
    let host = host();
    let (_reader, writer) = full_pipe();
    let doctor = Started::start(on(&host, &["doctor"]).stdout(writer));
    assert_eq!(doctor.end().code(), Some(1));
}
