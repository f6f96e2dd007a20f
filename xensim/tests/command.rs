// SPDX-License-Identifier: LGPL-2.1-or-later
//! The command, as a shell script uses it.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod support;

use std::process::{Command, Output};

use support::{text, xensim};
use xensim::{Call, Host};

fn on(host: &Host, words: &str) -> Output {
    xensim().args(words.split(' ')).arg("--host").arg(host.dir()).output().unwrap()
}

/// What it prints when all is well.
fn ok(host: &Host, words: &str) -> String {
    let output = on(host, words);
    assert!(output.status.success(), "xensim {words}: {}", text(&output));
    text(&output)
}

/// What it says when not, and its exit status.
fn fails(host: &Host, words: &str) -> (i32, String) {
    let output = on(host, words);
    assert!(output.stdout.is_empty(), "{}", text(&output));
    (output.status.code().unwrap(), text(&output))
}

#[test]
fn a_domains_life() {
    let host = support::host();
    assert_eq!(ok(&host, "create web --memory 128 --uuid 01020304-0506-0708-090a-0b0c0d0e0f10"), "1\n");
    assert_eq!(ok(&host, "create node --count 3 --nodes name"), "2\n3\n4\n");
    assert_eq!(ok(&host, "create --domid 300 --hvm --paused"), "300\n");
    ok(&host, "shutdown web --reason crash");
    ok(&host, "shutdown 2-3 --reason=77");
    ok(&host, "kill node3");
    let expected = "\
domid state    reason     uuid                                 name
    0 running  -          00000000-0000-0000-0000-000000000000 Domain-0
    1 shutdown crash      01020304-0506-0708-090a-0b0c0d0e0f10 web
    2 shutdown 77         UUID node1
    3 shutdown 77         UUID node2
    4 dying    -          UUID node3
  300 paused   -          UUID guest
";
    let mut listed = ok(&host, "list");
    for domain in host.domains().into_iter().filter(|domain| domain.domid > 1) {
        listed = listed.replace(&xensim::toolstack::format_uuid(&domain.handle), "UUID");
    }
    assert_eq!(listed, expected);
    ok(&host, "resume 1");
    ok(&host, "unpause 300");
    assert!(ok(&host, "list 1 300").lines().skip(1).all(|line| line.contains(" running ")));
    ok(&host, "suspend 300");
    assert!(ok(&host, "list 300").contains(" suspend "));
    ok(&host, "destroy all");
    assert_eq!(ok(&host, "list").lines().count(), 2);
    assert_eq!(ok(&host, "destroy all"), "");
}

#[test]
fn what_cannot_be_is_refused() {
    let host = support::host();
    ok(&host, "create web");
    assert_eq!(fails(&host, "shutdown nobody").0, 2);
    assert_eq!(fails(&host, "shutdown").0, 2);
    assert_eq!(fails(&host, "shutdown 1 --reason tired").0, 2);
    assert_eq!(fails(&host, "shutdown 1 --reason 256").0, 2);
    assert_eq!(fails(&host, "shutdown 1 --raeson crash").0, 2);
    assert_eq!(
        fails(&host, "create --domid 1"),
        (1, "xensim: create 1 of \"guest\": domain 1: File exists (os error 17)\n".into())
    );
    assert_eq!(fails(&host, "create a b").0, 2);
    assert_eq!(fails(&host, "inject getdomaininfolist").0, 2);
    assert_eq!(fails(&host, "inject no-such-call --errno EIO").0, 2);
    assert_eq!(fails(&host, "inject domctl --errno EVERYTHING").0, 2);
    assert_eq!(fails(&host, "access everything").0, 2);
    assert_eq!(fails(&host, "xenstored dance").0, 2);
    assert_eq!(fails(&host, "fly").0, 2);
    let (status, said) = fails(&host, "shutdown 1 50");
    assert_eq!((status, said.as_str()), (1, "xensim: 1 of 2 domains left as they were\n"));
    let nowhere = xensim().arg("list").env_remove("XENSIM_DIR").output().unwrap();
    assert_eq!(text(&nowhere), "xensim: find the host: XENSIM_DIR is not set\n");
    assert_eq!(xensim().output().unwrap().status.code(), Some(2));
}

#[test]
fn faults_and_counters() {
    let host = support::host();
    ok(&host, "inject getdomaininfolist --errno EPERM --times 2 --after 1 --delay 1");
    let verdict = || host.table().judge(xensim::Role::Client, Call::GetDomainInfoList).errno;
    assert_eq!([verdict(), verdict(), verdict(), verdict()], [None, Some(1), Some(1), None]);
    let counters = ok(&host, "counters --reset");
    assert!(counters.contains("getdomaininfolist           4          0\n"), "{counters}");
    assert_eq!(host.count(Call::GetDomainInfoList), 0);
    ok(&host, "inject getdomaininfolist domctl --errno 5");
    ok(&host, "inject --clear");
    assert_eq!(verdict(), None);
    ok(&host, "access no-permission");
    assert!(host.table().access().errno() == Some(libc::EACCES));
    ok(&host, "access full");
    ok(&host, "xenstored restart --empty");
    ok(&host, "virq");
    ok(&host, "settle");
    assert!(ok(&host, "xenstored log").contains("xensim: kill\n"));
}

#[test]
fn a_shell_evaluates_the_environment() {
    let script = r#"
        set -eu
        eval "$("$XENSIM" up --env --owner $$)"
        domid=$("$XENSIM" create web)
        [ "$(xenstore-read /local/domain/$domid/name)" = web ]
        case $LD_PRELOAD in libm.so.6:*/libxensim.so) ;; *) echo "$LD_PRELOAD"; exit 1 ;; esac
        "$XENSIM" down
        ! xenstore-read /local/domain/$domid/name 2>/dev/null
    "#;
    let output = Command::new("bash")
        .args(["-c", script])
        .env("XENSIM", env!("CARGO_BIN_EXE_xensim"))
        .env("XENSIM_LIBRARY", support::library())
        .env("LD_PRELOAD", "libm.so.6")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output));
}

#[test]
fn run_gives_a_host_for_one_command_and_its_exit_status() {
    let run = |words: &[&str]| xensim().arg("run").args(words).output().unwrap();
    let output = run(&["sh", "-c", "xenstore-ls /local/domain/0; exit 7"]);
    assert_eq!(output.status.code(), Some(7));
    assert!(text(&output).contains("name = \"Domain-0\""), "{}", text(&output));
    assert_eq!(run(&["sh", "-c", "kill -9 $$"]).status.code(), Some(137));
    assert_eq!(run(&["/nowhere/program"]).status.code(), Some(2));
    assert_eq!(run(&["--name"]).status.code(), Some(2));
    let output = run(&["--no-xenstored", "sh", "-c", "test -d $XENSIM_DIR && ! xenstore-list /"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
}

/// xl itself, from the distribution.
#[test]
fn xl_lists_and_destroys() {
    let host = support::host();
    ok(&host, "create web --memory 256");
    let find = Command::new("sh").args(["-c", "ls /usr/lib/xen-*/bin/xl | tail -n 1"]).output().unwrap();
    let xl = || host.command(text(&find).trim_end());
    let list = xl().arg("list").output().unwrap();
    let out = text(&list);
    assert!(list.status.success(), "{out}");
    let columns: Vec<Vec<&str>> = out.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(columns[1][..4], ["Domain-0", "0", "1024", "1"]);
    assert_eq!(columns[2][..5], ["web", "1", "256", "1", "-b----"]);
    let destroyed = xl().args(["destroy", "web"]).output().unwrap();
    assert!(destroyed.status.success(), "{}", text(&destroyed));
    assert_eq!(host.domain(1), None);
}
