// SPDX-License-Identifier: LGPL-2.1-or-later
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::sync::mpsc;

use super::*;

const TIMER: u64 = 7;

/// As every kind of waiter leaves it.
fn reactor() -> Reactor {
    let reactor = Reactor::new(TIMER).unwrap();
    reactor.open_fd().unwrap();
    reactor.prepare_wait().unwrap();
    reactor
}

fn readable(reactor: &Reactor) -> bool {
    let mut fds = [PollFd::new(reactor.open_fd().unwrap(), PollFlags::POLLIN)];
    nix::poll::poll(&mut fds, PollTimeout::ZERO).unwrap() == 1
}

#[test]
fn a_source_that_is_added_during_the_wait_ends_it() {
    let reactor = reactor();
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    theirs.write_all(b"x").unwrap();
    let (about_to_wait, waits) = mpsc::channel();
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| {
            about_to_wait.send(()).unwrap();
            reactor.wait(None);
        });
        waits.recv().unwrap();
        reactor.add(ours.as_raw_fd(), libc::POLLIN, 42).unwrap();
        waiter.join().unwrap();
    });
    assert!(readable(&reactor));
    assert_eq!(reactor.ready().collect::<Vec<_>>(), [Ready { token: 42, revents: libc::POLLIN }]);
}

#[test]
fn each_kind_of_waiter_has_a_wake_up_of_its_own() {
    let reactor = reactor();
    assert!(!readable(&reactor));
    reactor.wake_waiter();
    assert!(!readable(&reactor));
    reactor.wake_application();
    assert!(readable(&reactor));
    reactor.wait(None);
    reactor.quiet_waiter();
    assert!(readable(&reactor));
    reactor.quiet_application();
    assert!(!readable(&reactor));
}

#[test]
fn the_timer_runs_out_also_for_a_time_that_is_past_or_zero() {
    let reactor = reactor();
    for deadline in [Duration::ZERO, now().saturating_sub(Duration::from_secs(1)), now() + Duration::from_millis(5)] {
        reactor.set_timer(deadline);
        reactor.wait(None);
        assert_eq!(reactor.ready().map(|ready| ready.token).collect::<Vec<_>>(), [TIMER]);
        reactor.quiet_timer();
        assert!(!readable(&reactor));
    }
}

#[test]
fn a_descriptor_is_added_once_and_a_file_on_a_disk_is_refused() {
    let reactor = reactor();
    let (ours, _theirs) = UnixStream::pair().unwrap();
    reactor.add(ours.as_raw_fd(), libc::POLLIN, 1).unwrap();
    assert_eq!(reactor.add(ours.as_raw_fd(), libc::POLLOUT, 2), Err(Errno::EEXIST));
    reactor.modify(ours.as_raw_fd(), libc::POLLOUT, 3).unwrap();
    assert_eq!(reactor.ready().collect::<Vec<_>>(), [Ready { token: 3, revents: libc::POLLOUT }]);
    reactor.remove(ours.as_raw_fd());
    reactor.remove(ours.as_raw_fd());
    assert_eq!(reactor.ready().count(), 0);
    let file = std::fs::File::open("/proc/self/exe").unwrap();
    assert_eq!(reactor.add(file.as_raw_fd(), libc::POLLIN, 4), Err(Errno::EPERM));
}

#[test]
fn what_nobody_has_asked_for_is_not_made() {
    let reactor = Reactor::new(TIMER).unwrap();
    reactor.wake_application();
    reactor.wake_waiter();
    assert_eq!(reactor.descriptors().count(), 2);
    assert!(reactor.fd().is_none());
    reactor.prepare_wait().unwrap();
    assert_eq!(reactor.descriptors().count(), 3);
    reactor.open_fd().unwrap();
    reactor.open_fd().unwrap();
    assert_eq!(reactor.descriptors().count(), 5);
    assert!(!readable(&reactor));
}

#[test]
fn a_wait_ends_when_its_time_has_passed_and_never_by_rounding_before() {
    let reactor = reactor();
    for time in [Duration::ZERO, Duration::from_nanos(1), Duration::from_micros(1500)] {
        let begin = now();
        reactor.wait(Some(time));
        assert!(now() >= begin + time);
    }
    assert_eq!(poll_timeout(Duration::from_nanos(1)), PollTimeout::from(1u8));
    assert_eq!(poll_timeout(Duration::MAX), PollTimeout::MAX);
}
