// SPDX-License-Identifier: LGPL-2.1-or-later
//! The Rust driver over real xenstored.

mod support;

use std::process::Stdio;
use std::thread;

use support::{host, text, wait_for};
use xensim::toolstack::{Change, format_uuid};
use xensim::{Call, Config, Fault, Host, Nodes, Reason, Role};

#[test]
fn numbers_count_up_and_are_not_used_again_unless_asked_for() {
    let host = host();
    let config = Config::named("guest");
    assert_eq!(host.create(&config).unwrap(), 1);
    assert_eq!(host.create(&config).unwrap(), 2);
    host.destroy(2).unwrap();
    assert_eq!(host.create(&config).unwrap(), 3);
    assert_eq!(host.create(&Config { domid: Some(2), ..config.clone() }).unwrap(), 2);
    assert_eq!(host.create(&Config { domid: Some(32751), ..config.clone() }).unwrap(), 32751);
    assert_eq!(host.create(&config).unwrap(), 4);
    let listed: Vec<u16> = host.domains().iter().map(|domain| domain.domid).collect();
    assert_eq!(listed, [0, 1, 2, 3, 4, 32751]);
}

#[test]
fn after_the_last_number_comes_the_first_free_one() {
    let host = host();
    let bare = Config { introduce: false, nodes: Nodes::None, ..Config::named("g") };
    let all = host.create_many(32751, &bare).unwrap();
    assert_eq!((all[0], all[32750]), (1, 32751));
    assert_eq!(host.create(&bare).unwrap_err().raw_os_error(), libc::ENOMEM);
    assert_eq!(host.destroy_many([700, 5000], false).unwrap(), 2);
    assert_eq!(host.create(&bare).unwrap(), 700);
    assert_eq!(host.create(&bare).unwrap(), 5000);
    assert_eq!(host.domains().len(), 32752);
}

#[test]
fn thousands_are_introduced_and_each_is_known() {
    let host = host();
    let bare = Config { nodes: Nodes::None, ..Config::named("g") };
    let domids = host.create_many(2000, &bare).unwrap();
    let mut store = host.store().unwrap();
    assert!(domids.iter().all(|domid| store.is_introduced(*domid).unwrap()));
    assert_eq!(host.change(domids.iter().copied(), Change::Shutdown(Reason::REBOOT)).unwrap(), 2000);
    assert_eq!(host.destroy_many(domids.iter().copied(), false).unwrap(), 2000);
    host.settle().unwrap();
    assert!(!domids.iter().any(|domid| store.is_introduced(*domid).unwrap()));
}

#[test]
fn many_are_created_together_or_not_at_all() {
    let host = host();
    host.create(&Config { domid: Some(105), ..Config::named("in the way") }).unwrap();
    let config = Config { domid: Some(100), ..Config::named("g") };
    assert_eq!(host.create_many(10, &config).unwrap_err().raw_os_error(), libc::EEXIST);
    assert_eq!(host.domains().len(), 2);
    host.kill_xenstored().unwrap();
    assert!(host.create_many(3, &Config::named("unheard of")).is_err());
    assert_eq!(host.domains().len(), 2);
    host.start_xenstored().unwrap();
    let created = host.create_many(3, &Config::named("g")).unwrap();
    let names: Vec<String> = created.iter().map(|domid| host.domain(*domid).unwrap().name.to_string()).collect();
    assert_eq!(names, ["g1", "g2", "g3"]);
}

#[test]
fn a_toolstacks_nodes_come_and_go_with_the_domain() {
    let host = host();
    let mut store = host.store().unwrap();
    let domid = host.create(&Config::named("web")).unwrap();
    let uuid = format_uuid(&host.domain(domid).unwrap().handle);
    let home = format!("/local/domain/{domid}");
    assert_eq!(store.read(&format!("{home}/name")).unwrap().unwrap(), b"web");
    assert_eq!(store.read(&format!("{home}/vm")).unwrap().unwrap(), format!("/vm/{uuid}").as_bytes());
    assert_eq!(store.read(&format!("/vm/{uuid}/name")).unwrap().unwrap(), b"web");
    assert!(store.is_introduced(domid).unwrap());
    host.destroy(domid).unwrap();
    host.settle().unwrap();
    assert_eq!(store.read(&home).unwrap(), None);
    assert_eq!(store.directory("/vm").unwrap(), [] as [&str; 0]);
    assert!(!store.is_introduced(domid).unwrap());

    let named = host.create(&Config { nodes: Nodes::Name, ..Config::named("db") }).unwrap();
    assert_eq!(store.directory(&format!("/local/domain/{named}")).unwrap(), ["name"]);
    assert_eq!(host.destroy_many([named], true).unwrap(), 1);
    assert_eq!(store.read(&format!("/local/domain/{named}/name")).unwrap().unwrap(), b"db");

    let silent = host.create(&Config { nodes: Nodes::None, introduce: false, ..Config::named("x") }).unwrap();
    assert_eq!(store.read(&format!("/local/domain/{silent}")).unwrap(), None);
    assert!(!store.is_introduced(silent).unwrap());
}

#[test]
fn what_happens_to_many_happens_to_those_that_can() {
    let host = host();
    let bare = Config { nodes: Nodes::None, ..Config::named("g") };
    let domids = host.create_many(5, &bare).unwrap();
    host.shutdown(domids[0], Reason::CRASH).unwrap();
    host.kill(domids[1]).unwrap();
    let asked = domids.iter().copied().chain([9999]);
    assert_eq!(host.change(asked, Change::Shutdown(Reason(200))).unwrap(), 3);
    let reasons: Vec<Option<u8>> =
        domids.iter().map(|domid| host.domain(*domid).unwrap().state.shutdown.map(|reason| reason.0)).collect();
    assert_eq!(reasons, [Some(3), None, Some(200), Some(200), Some(200)]);
    assert_eq!(host.shutdown(domids[0], Reason::POWEROFF).unwrap_err().raw_os_error(), libc::EINVAL);
    assert_eq!(host.shutdown(9999, Reason::POWEROFF).unwrap_err().raw_os_error(), libc::ESRCH);
    assert_eq!(host.resume(domids[1]).unwrap_err().raw_os_error(), libc::EINVAL);
    host.resume(domids[0]).unwrap();
    assert_eq!(host.domain(domids[0]).unwrap().state.shutdown, None);
}

#[test]
fn a_soft_reset_leaves_the_domain_and_xenstored_knows_it_anew() {
    let host = host();
    let domid = host.create(&Config::named("g")).unwrap();
    let silent = host.create(&Config { nodes: Nodes::None, introduce: false, ..Config::named("x") }).unwrap();
    assert_eq!(host.soft_reset(domid).unwrap_err().raw_os_error(), libc::EINVAL, "it runs");
    for domid in [domid, silent] {
        let before = host.domain(domid).unwrap();
        host.shutdown(domid, Reason::SOFT_RESET).unwrap();
        host.soft_reset(domid).unwrap();
        let after = host.domain(domid).unwrap();
        assert_eq!((after.handle, after.state.shutdown), (before.handle, None));
        assert!(after.state.resumed > before.state.resumed);
    }
    let mut store = host.store().unwrap();
    assert!(store.is_introduced(domid).unwrap());
    assert!(!store.is_introduced(silent).unwrap());
}

#[test]
fn a_domain_may_be_given_another_uuid_as_long_as_it_is_there() {
    let host = host();
    let domid = host.create(&Config::named("g")).unwrap();
    host.kill(domid).unwrap();
    host.set_uuid(domid, &[7; 16]).unwrap();
    assert_eq!(host.domain(domid).unwrap().handle, [7; 16]);
    host.destroy(domid).unwrap();
    assert_eq!(host.set_uuid(domid, &[7; 16]).unwrap_err().raw_os_error(), libc::ESRCH);
}

#[test]
fn hosts_side_by_side_do_not_meet() {
    let threads: Vec<_> = (1..=6_usize)
        .map(|count| {
            thread::spawn(move || {
                let host = host();
                host.create_many(count, &Config::named("g")).unwrap();
                let output = host.command("xenstore-list").arg("/local/domain").output().unwrap();
                (host.dir().to_owned(), host.domains().len(), text(&output).lines().count(), count)
            })
        })
        .collect();
    let seen: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    for (dir, listed, in_store, count) in &seen {
        assert_eq!((*listed, *in_store), (count + 1, count + 1));
        assert!(!dir.exists(), "{} stayed", dir.display());
        assert_eq!(seen.iter().filter(|(other, ..)| other == dir).count(), 1);
    }
}

#[test]
fn a_restarted_xenstored_is_told_again_or_not() {
    let host = host();
    let kept = host.create(&Config::named("kept")).unwrap();
    let dying = host.create(&Config::named("dying")).unwrap();
    let silent = host.create(&Config { nodes: Nodes::None, introduce: false, ..Config::named("x") }).unwrap();
    host.kill(dying).unwrap();
    let before = host.daemon().pid().unwrap();
    host.restart_xenstored().unwrap();
    assert_ne!(host.daemon().pid().unwrap(), before);
    let mut store = host.store().unwrap();
    assert_eq!(store.read(&format!("/local/domain/{kept}/name")).unwrap().unwrap(), b"kept");
    assert!(store.is_introduced(kept).unwrap());
    assert!(!store.is_introduced(dying).unwrap());
    assert!(!store.is_introduced(silent).unwrap());

    host.kill_xenstored().unwrap();
    assert_eq!(host.daemon().pid(), None);
    assert!(host.store().is_err());
    assert!(host.settle().is_err());
    host.start_empty_xenstored().unwrap();
    let mut store = host.store().unwrap();
    assert_eq!(store.read(&format!("/local/domain/{kept}/name")).unwrap(), None);
    assert!(!store.is_introduced(kept).unwrap());
}

#[test]
fn a_paused_xenstored_answers_when_it_goes_on() {
    let host = host();
    assert!(host.pause_xenstored(true).unwrap());
    let mut reader = host.command("xenstore-read").arg("/local/domain/0/name").stdout(Stdio::piped()).spawn().unwrap();
    let state = || std::fs::read_to_string(format!("/proc/{}/stat", host.daemon().pid().unwrap())).unwrap();
    wait_for("the stop", || state().contains(") T "));
    assert!(reader.try_wait().unwrap().is_none());
    assert!(host.pause_xenstored(false).unwrap());
    assert_eq!(text(&reader.wait_with_output().unwrap()), "Domain-0\n");
}

#[test]
fn xenstoreds_own_hypercalls_are_counted_and_failed_apart() {
    let host = host();
    let bare = Config { nodes: Nodes::None, ..Config::named("g") };
    let domids = host.create_many(10, &bare).unwrap();
    host.reset_counts();
    host.inject(Call::GetDomainInfo, &Fault::always(libc::EPERM));
    host.change(domids.iter().copied(), Change::Shutdown(Reason::POWEROFF)).unwrap();
    host.settle().unwrap();
    assert!(host.table().count(Role::Xenstored, Call::GetDomainInfo) >= 10);
    assert_eq!(host.count(Call::GetDomainInfo), 0);
    // A client's faults are not xenstored's: it still knows of all.
    let mut store = host.store().unwrap();
    assert!(domids.iter().all(|domid| store.is_introduced(*domid).unwrap()));
    // Its own: it takes the one that it cannot ask about for gone. Not the first: that of a newer one is domain 0, and then it
    // serves nobody any more.
    host.inject(Call::GetDomainInfo, &Fault { role: Role::Xenstored, after: 1, ..Fault::once(libc::ESRCH) });
    host.raise_virq().unwrap();
    host.settle().unwrap();
    assert_eq!(domids.iter().filter(|domid| store.is_introduced(**domid).unwrap()).count(), 9);
    host.clear_faults();
}

#[test]
fn a_host_without_xenstored_can_be_given_one() {
    let host = Host::builder().library(support::library()).without_xenstored().up().unwrap();
    assert!(host.store().is_err());
    assert!(!host.raise_virq().unwrap());
    let bare = Config { nodes: Nodes::None, introduce: false, ..Config::named("g") };
    let domid = host.create(&bare).unwrap();
    host.destroy(domid).unwrap();
    host.start_xenstored().unwrap();
    assert_eq!(host.store().unwrap().read("/local/domain/0/name").unwrap().unwrap(), b"Domain-0");
    assert!(host.start_xenstored().is_err(), "a second one was started");
}

#[test]
fn what_is_no_host_is_refused() {
    let folder = support::Folder::new("none");
    assert_eq!(Host::attach(folder.path()).err().unwrap().raw_os_error(), libc::ENOENT);
    std::fs::write(folder.path().join("table"), "something else").unwrap();
    assert_eq!(Host::attach(folder.path()).err().unwrap().raw_os_error(), libc::EPROTO);
    let up = |name: &str| Host::builder().library(support::library()).root(folder.path()).name(name).up();
    assert!(up("a/b").is_err());
    assert_eq!(up(&"x".repeat(100)).err().unwrap().raw_os_error(), libc::ENAMETOOLONG);
    let first = up("same").unwrap();
    assert_eq!(up("same").err().unwrap().raw_os_error(), libc::EEXIST);
    first.down().unwrap();
    up("same").unwrap();
    let nowhere = Host::builder().library("/nowhere/libxensim.so").up();
    assert_eq!(nowhere.err().unwrap().raw_os_error(), libc::ENOENT);
}
