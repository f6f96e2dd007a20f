// SPDX-License-Identifier: LGPL-2.1-or-later
//! `xlevent watch` on a simulated host: domains do things, and the lines are compared.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod support;

use std::os::fd::OwnedFd;
use std::process::Stdio;

use serde_json::{Value, json};
use support::{Running, nowhere, on, output, pipe, text, wait_for};
use xensim::store::Request;
use xensim::toolstack::{Nodes, format_uuid};
use xensim::{Config, Domid, Host, Reason};

/// Starts it, and returns when it watches: domains come until it tells of one, and it has told of the end of each. They live
/// until then: a line of one that is gone before its name was read would come later.
fn watching_all(host: &Host, options: &[&str]) -> Running {
    let watch = Running::start(&mut on(host, &[&["watch", "--json"], options].concat()));
    let mut canaries = Vec::new();
    wait_for("a watch", || {
        canaries.push(host.create(&Config::named("canary")).unwrap());
        watch.has_line()
    });
    // When the last has come, all of them are known; before that, one might come and go unseen.
    let last = host.create(&Config::named("canary")).unwrap();
    canaries.push(last);
    loop {
        let line = object(&watch.line());
        if line["domid"] == last && line["type"] == "created" {
            break;
        }
    }
    for canary in &canaries {
        host.destroy(*canary).unwrap();
    }
    while !canaries.is_empty() {
        let line = object(&watch.line());
        if line["type"] == "death" {
            canaries.retain(|canary| line["domid"] != *canary);
        }
    }
    watch
}

fn object(line: &str) -> Value {
    serde_json::from_str(line).unwrap()
}

/// What of a line can be known before.
fn essence(line: &str) -> Value {
    let line = object(line);
    let time = line["time"].as_str().unwrap();
    assert!(time.len() == "2026-01-01T00:00:00.000000Z".len() && time.ends_with('Z'), "{time}");
    json!([line["domid"], line["type"], line["reason"], line["name"]])
}

fn next(watch: &Running) -> Value {
    essence(&watch.line())
}

fn signal(watch: &Running, signal: i32) {
    xensim::sys::kill(watch.pid(), signal).unwrap();
}

const SIGHUP: i32 = 1;
const SIGINT: i32 = 2;
const SIGTERM: i32 = 15;

#[test]
fn all_that_becomes_of_domains_is_told_in_order() {
    let host = support::host();
    let watch = Running::start(&mut on(&host, &["watch", "--json", "--since-start", "--all"]));
    let web = host.create(&Config::named("web")).unwrap();
    assert_eq!(next(&watch), json!([web, "created", null, "web"]));
    host.suspend(web).unwrap();
    assert_eq!(next(&watch), json!([web, "suspended", null, "web"]));
    host.resume(web).unwrap();
    assert_eq!(next(&watch), json!([web, "running", null, "web"]));
    host.shutdown(web, Reason::CRASH).unwrap();
    let line = object(&watch.line());
    let uuid = format_uuid(&host.domain(web).unwrap().handle);
    assert_eq!(line["uuid"], uuid);
    assert_eq!(
        [&line["type_number"], &line["reason"], &line["reason_number"]],
        [&json!(1), &json!("crash"), &json!(3)]
    );
    host.destroy(web).unwrap();
    assert_eq!(next(&watch), json!([web, "death", null, "web"]));
    signal(&watch, SIGTERM);
    assert_eq!(watch.end().code(), Some(0));
}

#[test]
fn columns_say_the_same() {
    let host = support::host();
    let web = host.create(&Config::named("web")).unwrap();
    host.shutdown(web, Reason::REBOOT).unwrap();
    let done = output(&mut on(&host, &["watch", "-s", "-c", "2"]));
    assert_eq!((done.status.code(), text(&done.stderr)), (Some(0), String::new()));
    let said = text(&done.stdout);
    let uuid = format_uuid(&host.domain(web).unwrap().handle);
    let rows: Vec<Vec<&str>> = said.lines().map(|line| line.splitn(6, ' ').skip(1).collect()).collect();
    let web = web.to_string();
    assert_eq!(rows, [[&web, &uuid, "created", "-", "web"], [&web, &uuid, "shutdown", "reboot(1)", "web"]]);
}

#[test]
fn what_is_there_at_the_beginning_is_told_on_request_alone() {
    let host = support::host();
    let [runs, down, saved] = ["runs", "down", "saved"].map(|name| host.create(&Config::named(name)).unwrap());
    host.shutdown(down, Reason::POWEROFF).unwrap();
    host.suspend(saved).unwrap();
    host.settle().unwrap();
    let all = Running::start(&mut on(&host, &["watch", "--json", "--since-start"]));
    for expected in [
        json!([runs, "created", null, "runs"]),
        json!([down, "created", null, "down"]),
        json!([down, "shutdown", "poweroff", "down"]),
        json!([saved, "created", null, "saved"]),
        json!([saved, "suspended", null, "saved"]),
    ] {
        assert_eq!(next(&all), expected);
    }
    let news = watching_all(&host, &[]);
    host.resume(saved).unwrap();
    assert_eq!(next(&news), json!([saved, "running", null, "saved"]));
    host.shutdown(runs, Reason::WATCHDOG).unwrap();
    assert_eq!(next(&news), json!([runs, "shutdown", "watchdog", "runs"]));
    host.destroy(down).unwrap();
    assert_eq!(next(&news), json!([down, "death", null, "down"]));
}

#[test]
fn the_death_of_those_that_were_named_ends_it() {
    let host = support::host();
    let [one, two, other] = ["one", "two", "other"].map(|name| host.create(&Config::named(name)).unwrap());
    let number = two.to_string();
    let watch = Running::start(&mut on(&host, &["watch", "--json", "-s", "--domain", "one", "--domain", &number]));
    assert_eq!(next(&watch), json!([one, "created", null, "one"]));
    assert_eq!(next(&watch), json!([two, "created", null, "two"]));
    host.shutdown(other, Reason::CRASH).unwrap();
    host.destroy(one).unwrap();
    assert_eq!(next(&watch), json!([one, "death", null, "one"]));
    host.shutdown(two, Reason::POWEROFF).unwrap();
    assert_eq!(next(&watch), json!([two, "shutdown", "poweroff", "two"]));
    host.destroy(two).unwrap();
    assert_eq!(next(&watch), json!([two, "death", null, "two"]));
    assert_eq!(watch.end().code(), Some(0));
}

/// Then the library can't know its UUID either.
#[test]
fn one_that_was_named_and_is_gone_before_anyone_looks_has_its_name() {
    let host = support::host();
    for round in 0..20 {
        let name = format!("short-{round}");
        let domid = host.create(&Config::named(&name)).unwrap();
        let uuid = format_uuid(&host.domain(domid).unwrap().handle);
        let watch = Running::start(&mut on(&host, &["watch", "--json", "-s", "-d", &name]));
        assert_eq!(next(&watch), json!([domid, "created", null, name]));
        host.destroy(domid).unwrap();
        let death = watch.line();
        assert_eq!(essence(&death), json!([domid, "death", null, name]));
        assert_eq!(object(&death)["uuid"], uuid);
        assert_eq!(watch.end().code(), Some(0));
    }
}

#[test]
fn a_domain_that_is_on_its_way_out_is_still_waited_for() {
    let host = support::host();
    let web = host.create(&Config::named("web")).unwrap();
    host.kill(web).unwrap();
    let done = output(&mut on(&host, &["watch", "--json", "--domain", &web.to_string()]));
    assert_eq!(essence(text(&done.stdout).trim_end())[1], "death");
    assert_eq!(done.status.code(), Some(0));
}

#[test]
fn xenstored_may_come_and_go() {
    let host = support::host();
    let [web, other] = ["web", "other"].map(|name| host.create(&Config::named(name)).unwrap());
    let mut command = on(&host, &["watch", "--json", "--since-start"]);
    let watch = Running::start(command.stderr(Stdio::null()));
    assert_eq!(next(&watch)[0], web);
    assert_eq!(next(&watch)[0], other);
    for (round, name) in ["a", "b", "c"].into_iter().enumerate() {
        host.kill_xenstored().unwrap();
        if round == 1 {
            host.shutdown(other, Reason::CRASH).unwrap();
        }
        host.start_xenstored().unwrap();
        if round == 1 {
            assert_eq!(next(&watch), json!([other, "shutdown", "crash", "other"]));
        }
        let new = host.create(&Config::named(name)).unwrap();
        assert_eq!(next(&watch), json!([new, "created", null, name]));
        host.shutdown(new, Reason::POWEROFF).unwrap();
        assert_eq!(next(&watch), json!([new, "shutdown", "poweroff", name]));
    }
    host.destroy(web).unwrap();
    assert_eq!(next(&watch), json!([web, "death", null, "web"]));
    signal(&watch, SIGINT);
    assert_eq!(watch.end().code(), Some(0));
}

#[test]
fn a_hostile_name_is_a_name() {
    let host = support::host();
    let name = "\u{1b}[2J\u{7}\u{85}x";
    let web: Domid = host.create(&Config::named(name)).unwrap();
    let done = output(&mut on(&host, &["watch", "-s", "-c", "1"]));
    assert!(text(&done.stdout).ends_with(" created - \\x1b[2J\\x07\\xc2\\x85x\n"), "{}", text(&done.stdout));
    let done = output(&mut on(&host, &["watch", "-s", "-c", "1", "--json", "-d", name]));
    assert!(done.stdout.iter().all(|byte| *byte == b'\n' || (0x20..0x7f).contains(byte)));
    assert_eq!(essence(text(&done.stdout).trim_end()), json!([web, "created", null, name]));
    let done = output(&mut on(&host, &["watch", "-d", "\u{1b}[2J"]));
    assert_eq!(text(&done.stderr), "xlevent: there is no domain '\\x1b[2J'\n");
}

#[test]
fn a_name_that_is_changed_is_the_new_one() {
    let host = support::host();
    let web = host.create(&Config::named("web")).unwrap();
    let watch = watching_all(&host, &[]);
    rename(&host, web, "web--gone");
    host.shutdown(web, Reason::POWEROFF).unwrap();
    assert_eq!(next(&watch), json!([web, "shutdown", "poweroff", "web--gone"]));
}

/// What a toolstack writes for a domain's name.
fn rename(host: &Host, domid: Domid, name: &str) {
    let request = Request::write(&format!("/local/domain/{domid}/name"), name);
    host.store().unwrap().request(request).unwrap();
}

/// As when it is migrated to the same host, and can't be freed.
#[test]
fn a_death_has_the_last_name_of_the_domain_and_not_that_of_another() {
    let host = support::host();
    let web = host.create(&Config::named("web")).unwrap();
    let follows = Running::start(&mut on(&host, &["watch", "--json", "-s", "-d", "web"]));
    assert_eq!(next(&follows), json!([web, "created", null, "web"]));
    let all = watching_all(&host, &[]);
    let incoming = host.create(&Config { paused: true, ..Config::named("web--incoming") }).unwrap();
    assert_eq!(next(&all), json!([incoming, "created", null, "web--incoming"]));
    host.suspend(web).unwrap();
    for watch in [&all, &follows] {
        assert_eq!(next(watch), json!([web, "suspended", null, "web"]));
    }
    rename(&host, web, "web--migratedaway");
    rename(&host, incoming, "web");
    host.kill(web).unwrap();
    for watch in [&all, &follows] {
        assert_eq!(next(watch), json!([web, "death", null, "web--migratedaway"]));
    }
    host.shutdown(incoming, Reason::POWEROFF).unwrap();
    assert_eq!(next(&all), json!([incoming, "shutdown", "poweroff", "web"]));
    host.destroy(incoming).unwrap();
    assert_eq!(next(&all), json!([incoming, "death", null, "web"]));
    assert_eq!(follows.end().code(), Some(0));
}

/// The name is watched: nothing else has happened to the domain since it was given that name.
#[test]
fn a_death_has_the_last_name_also_when_its_node_has_gone() {
    let host = support::host();
    let web = host.create(&Config::named("web")).unwrap();
    let watch = watching_all(&host, &[]);
    rename(&host, web, "web--gone");
    // When this one's name is known, all is that was changed before.
    let next_one = host.create(&Config::named("next")).unwrap();
    assert_eq!(next(&watch), json!([next_one, "created", null, "next"]));
    host.destroy(web).unwrap();
    assert_eq!(next(&watch), json!([web, "death", null, "web--gone"]));
}

#[test]
fn a_number_that_is_used_again_brings_its_name_to_the_new_domain_alone() {
    let host = support::host();
    let domid = host.create(&Config::named("old")).unwrap();
    let watch = watching_all(&host, &[]);
    for (old, new) in [("old", "new"), ("new", "newer"), ("newer", "newest")] {
        host.destroy(domid).unwrap();
        assert_eq!(next(&watch), json!([domid, "death", null, old]));
        host.create(&Config { domid: Some(domid), ..Config::named(new) }).unwrap();
        assert_eq!(next(&watch), json!([domid, "created", null, new]));
    }
}

#[test]
fn a_name_that_comes_after_the_domain_is_on_its_first_line_and_nobody_else_waits_for_it() {
    let host = support::host();
    let other = host.create(&Config::named("other")).unwrap();
    let watch = watching_all(&host, &[]);
    // On a machine that is too slow the second may be over before the name is written.
    let come = (0..20).any(|_| {
        let web = host.create(&Config { nodes: Nodes::None, ..Config::named("") }).unwrap();
        host.suspend(other).unwrap();
        let first = next(&watch);
        rename(&host, web, "web");
        let second = next(&watch);
        host.resume(other).unwrap();
        assert_eq!(next(&watch), json!([other, "running", null, "other"]));
        host.destroy(web).unwrap();
        next(&watch);
        [first, second] == [json!([other, "suspended", null, "other"]), json!([web, "created", null, "web"])]
    });
    assert!(come);
}

#[test]
fn a_domain_without_a_name_is_told_of_all_the_same() {
    let host = support::host();
    let watch = watching_all(&host, &[]);
    let domid = host.create(&Config { nodes: Nodes::None, ..Config::named("") }).unwrap();
    host.shutdown(domid, Reason::POWEROFF).unwrap();
    assert_eq!(next(&watch), json!([domid, "created", null, null]));
    assert_eq!(next(&watch), json!([domid, "shutdown", "poweroff", null]));
}

#[test]
fn of_those_with_a_name_the_one_that_lives_is_meant() {
    let host = support::host();
    let old = host.create(&Config::named("web")).unwrap();
    host.kill(old).unwrap();
    let new = host.create(&Config::named("web")).unwrap();
    let watch = Running::start(&mut on(&host, &["watch", "--json", "-s", "-d", "web"]));
    assert_eq!(next(&watch), json!([new, "created", null, "web"]));
    host.kill(new).unwrap();
    assert_eq!(next(&watch), json!([new, "death", null, "web"]));
    assert_eq!(watch.end().code(), Some(0));
    // Now that none lives, they are all dead.
    let watch = Running::start(&mut on(&host, &["watch", "--json", "-d", "web"]));
    assert_eq!(next(&watch), json!([old, "death", null, "web"]));
    assert_eq!(next(&watch), json!([new, "death", null, "web"]));
    assert_eq!(watch.end().code(), Some(0));
}

#[test]
fn a_name_may_be_a_number() {
    let host = support::host();
    let [one, two] = ["2", "domid:1"].map(|name| host.create(&Config::named(name)).unwrap());
    for (wanted, domid, name) in [
        ("name:2", one, "2"),
        ("1", one, "2"),
        ("domid:1", one, "2"),
        ("2", two, "domid:1"),
        ("domid:2", two, "domid:1"),
        ("name:domid:1", two, "domid:1"),
    ] {
        let done = output(&mut on(&host, &["watch", "--json", "-s", "-c", "1", "-d", wanted]));
        assert_eq!(essence(text(&done.stdout).trim_end()), json!([domid, "created", null, name]), "{wanted}");
    }
}

/// In both forms: it isn't about a domain.
#[test]
fn that_xenstored_has_gone_and_is_back_is_said_on_standard_error() {
    let host = support::host();
    for options in [&["-s"][..], &["-s", "--json"]] {
        let web = host.create(&Config::named("web")).unwrap();
        let (reader, writer) = pipe();
        let watch = Running::start(on(&host, &[&["watch"], options].concat()).stderr(writer));
        watch.line();
        host.restart_xenstored().unwrap();
        let lines = support::lines(reader);
        let mut said = std::iter::from_fn(|| lines.recv_timeout(support::PATIENCE).ok());
        let gone = said.next().unwrap();
        assert!(gone.contains("xenstored") && gone.ends_with("; waiting for it to come back"), "{gone}");
        assert!(said.any(|line| line.starts_with("xlevent: xenstored is back after ")));
        signal(&watch, SIGTERM);
        assert_eq!(said.next(), None);
        assert_eq!(watch.end().code(), Some(0));
        host.destroy(web).unwrap();
    }
}

#[test]
fn each_signal_ends_it_well() {
    let host = support::host();
    for number in [SIGINT, SIGTERM, SIGHUP] {
        let watch = watching_all(&host, &[]);
        signal(&watch, number);
        assert_eq!(watch.end().code(), Some(0), "signal {number}");
    }
}

#[test]
fn who_reads_no_more_ends_it_at_once() {
    let host = support::host();
    let (reader, writer) = pipe();
    let mut watch = on(&host, &["watch"]).stdin(Stdio::null()).stdout(OwnedFd::from(writer)).spawn().unwrap();
    drop(reader);
    assert_eq!(watch.wait().unwrap().code(), Some(0));
}

#[test]
fn the_time_and_the_count_end_it() {
    let host = support::host();
    let done = output(&mut on(&host, &["watch", "--timeout", "10ms"]));
    assert_eq!((done.status.code(), done.stdout.len(), done.stderr.len()), (Some(4), 0, 0));
    host.create(&Config::named("web")).unwrap();
    let done = output(&mut on(&host, &["watch", "-s", "--count", "1", "--timeout", "10min"]));
    assert_eq!((done.status.code(), text(&done.stdout).lines().count()), (Some(0), 1));
}

#[test]
fn a_time_that_no_clock_comes_to_is_no_limit() {
    let host = support::host();
    host.create(&Config::named("web")).unwrap();
    let done = output(&mut on(&host, &["watch", "-s", "--count", "1", "--timeout", "500000000000years"]));
    assert_eq!(text(&done.stderr), "");
    assert_eq!((done.status.code(), text(&done.stdout).lines().count()), (Some(0), 1));
}

#[test]
fn what_cannot_be_is_refused() {
    let host = support::host();
    for name in ["twin", "twin"] {
        host.create(&Config::named(name)).unwrap();
    }
    let refused = |words: &[&str]| {
        let done = output(&mut on(&host, &[&["watch"], words].concat()));
        assert_eq!(text(&done.stdout), "");
        (done.status.code(), text(&done.stderr))
    };
    assert_eq!(refused(&["-d", "nobody"]), (Some(1), "xlevent: there is no domain 'nobody'\n".to_owned()));
    assert_eq!(refused(&["-d", ""]), (Some(1), "xlevent: there is no domain ''\n".to_owned()));
    assert_eq!(refused(&["-d", "77"]), (Some(1), "xlevent: there is no domain 77\n".to_owned()));
    assert_eq!(
        refused(&["-d", "twin"]),
        (Some(1), "xlevent: 'twin' is the name of several domains: 1, 2\n".to_owned())
    );
    for words in [
        &["-d", "1", "--all"][..],
        &["-d", "domid:twin"],
        &["--count", "0"],
        &["--timeout", "soon"],
        &["--fast"],
        &["web"],
    ] {
        assert_eq!(refused(words).0, Some(2), "{words:?}");
    }
}

#[test]
fn where_there_is_no_xen_it_says_so() {
    let done = output(&mut nowhere(&["watch"]));
    assert_eq!(done.status.code(), Some(3));
    let said = text(&done.stderr);
    assert!(said.ends_with("; `xlevent doctor` says what is missing\n") && said.lines().count() == 1, "{said}");

    let host = support::host();
    host.kill_xenstored().unwrap();
    let done = output(&mut on(&host, &["watch"]));
    assert_eq!((done.status.code(), text(&done.stdout)), (Some(3), String::new()));
    assert!(text(&done.stderr).contains("connecting to xenstored"), "{}", text(&done.stderr));
}

#[test]
fn ignored_signals_stay_ignored() {
    let host = support::host();
    let web = host.create(&Config::named("web")).unwrap();
    let program = env!("CARGO_BIN_EXE_xlevent");
    let mut command = host.command("sh");
    command.args(["-c", &format!("trap '' HUP; exec {program} watch --json -s -d web")]);
    let watch = Running::start(&mut command);
    assert_eq!(next(&watch)[1], "created");
    signal(&watch, SIGHUP);
    wait_for("a shutdown", || host.shutdown(web, Reason::POWEROFF).is_ok());
    assert_eq!(next(&watch)[1], "shutdown");
    signal(&watch, SIGTERM);
    assert_eq!(watch.end().code(), Some(0));
}
