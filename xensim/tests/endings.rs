// SPDX-License-Identifier: LGPL-2.1-or-later
//! Nothing is left of a host whose owner has ended, however it ended; a persistent one stays.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod support;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use support::{Folder, linked, runs, text, wait_for, xensim};
use xensim::Host;

/// Starts the C program that owns a host in `root`. The program, the host's directory, its xenstored, and the child that
/// the program has forked.
fn start_owner(root: &Path, arguments: &[&str]) -> (Child, PathBuf, i32, i32) {
    let program = support::compile("owner", "-std=gnu99", &[]);
    let mut owner = linked(&program).args(arguments).env("XENSIM_ROOT", root).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(owner.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let (dir, child) = line.trim_end().split_once(' ').unwrap();
    let (dir, child) = (PathBuf::from(dir), child.parse().unwrap());
    let pid = match Host::attach(&dir) {
        Ok(host) => host.daemon().pid().unwrap_or(0),
        Err(_) => 0,
    };
    (owner, dir, pid, child)
}

#[test]
fn a_killed_owner_takes_xenstored_along_and_the_next_host_sweeps() {
    let root = Folder::new("killed");
    let (mut owner, dir, xenstored, _) = start_owner(root.path(), &[]);
    assert!(runs(xenstored));
    assert_eq!(xensim::host::sweep(root.path()).unwrap(), 0);
    owner.kill().unwrap();
    owner.wait().unwrap();
    wait_for("xenstored's end", || !runs(xenstored));
    assert!(dir.exists());
    let next = Host::builder().library(support::library()).root(root.path()).up().unwrap();
    assert!(!dir.exists());
    next.down().unwrap();
    assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 0);
}

#[test]
fn an_owner_that_just_exits_leaves_nothing() {
    let root = Folder::new("exits");
    let (mut owner, dir, ..) = start_owner(root.path(), &["exit"]);
    assert!(owner.wait().unwrap().success());
    assert!(!dir.exists());
}

#[test]
fn a_forked_child_that_outlives_the_owner_does_not_keep_the_host() {
    let root = Folder::new("forked");
    let (mut owner, dir, xenstored, child) = start_owner(root.path(), &["fork"]);
    assert!(runs(xenstored) && runs(child));
    owner.kill().unwrap();
    owner.wait().unwrap();
    wait_for("xenstored's end", || !runs(xenstored));
    assert_eq!(xensim::host::sweep(root.path()).unwrap(), 1);
    assert!(!dir.exists());
    assert!(runs(child));
    xensim::sys::kill(child, libc::SIGKILL).unwrap();
}

#[test]
fn a_restarted_xenstored_ends_with_the_owner_too() {
    let root = Folder::new("restarted");
    let (mut owner, dir, first, _) = start_owner(root.path(), &[]);
    let host = Host::attach(&dir).unwrap();
    host.restart_xenstored().unwrap();
    let second = host.daemon().pid().unwrap();
    assert_ne!(first, second);
    drop(host);
    assert!(runs(second));
    owner.kill().unwrap();
    owner.wait().unwrap();
    wait_for("xenstored's end", || !runs(second));
}

#[test]
fn a_host_that_is_dropped_is_gone() {
    let host = support::host();
    let (dir, xenstored) = (host.dir().to_owned(), host.daemon().pid().unwrap());
    assert!(runs(xenstored));
    drop(host);
    assert!(!dir.exists() && !runs(xenstored));
}

#[test]
fn a_host_is_kept_for_another_process() {
    let root = Folder::new("kept");
    let mut owner = Command::new("sleep").arg("1000").spawn().unwrap();
    let up = xensim().args(["up", "--owner", &owner.id().to_string()]).env("XENSIM_ROOT", root.path()).output();
    let dir = PathBuf::from(text(&up.unwrap()).trim_end());
    let host = Host::attach(&dir).unwrap();
    let xenstored = host.daemon().pid().unwrap();
    assert!(runs(xenstored));
    drop(host);
    owner.kill().unwrap();
    owner.wait().unwrap();
    wait_for("the host's end", || !dir.exists() && !runs(xenstored));
}

#[test]
fn a_host_that_is_kept_can_be_taken_down_before() {
    let root = Folder::new("before");
    let pid = std::process::id().to_string();
    let up = xensim().args(["up", "--owner", &pid]).env("XENSIM_ROOT", root.path()).output().unwrap();
    let dir = PathBuf::from(text(&up).trim_end());
    let keepers = || {
        let mine = |entry: &std::fs::DirEntry| {
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
            words.get(1) == Some(&&b"keep"[..]) && words.get(2) == Some(&pid.as_bytes())
        };
        std::fs::read_dir("/proc").unwrap().flatten().filter(mine).count()
    };
    assert_eq!(keepers(), 1);
    let down = xensim().args(["down", "--host"]).arg(&dir).output().unwrap();
    assert!(down.status.success(), "{}", text(&down));
    assert!(!dir.exists());
    wait_for("the keeper's end", || keepers() == 0);
}

#[test]
fn a_persistent_host_stays_until_it_is_taken_down() {
    let root = Folder::new("stays");
    let up = xensim().arg("up").env("XENSIM_ROOT", root.path()).output().unwrap();
    let dir = PathBuf::from(text(&up).trim_end());
    assert_eq!(xensim::host::sweep(root.path()).unwrap(), 0);
    let xenstored = Host::attach(&dir).unwrap().daemon().pid().unwrap();
    assert!(runs(xenstored));
    let hosts = xensim().arg("hosts").env("XENSIM_ROOT", root.path()).output().unwrap();
    assert_eq!(text(&hosts).trim_end(), dir.to_str().unwrap());
    let down = xensim().args(["down", "--all"]).env("XENSIM_ROOT", root.path()).output().unwrap();
    assert!(down.status.success(), "{}", text(&down));
    assert!(!dir.exists() && !runs(xenstored));
}
