// SPDX-License-Identifier: LGPL-2.1-or-later
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::sync::mpsc;

use super::*;

const TIMER: u64 = 7;

fn readable(fd: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::new(fd, PollFlags::POLLIN)];
    nix::poll::poll(&mut fds, PollTimeout::ZERO).unwrap() == 1
}

#[test]
fn a_source_that_is_added_during_the_wait_ends_it() {
    let reactor = Reactor::new(TIMER).unwrap();
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    theirs.write_all(b"x").unwrap();
    let (about_to_wait, waits) = mpsc::channel();
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| {
            about_to_wait.send(()).unwrap();
            reactor.wait();
        });
        waits.recv().unwrap();
        reactor.add(ours.as_raw_fd(), libc::POLLIN, 42).unwrap();
        waiter.join().unwrap();
    });
    assert!(readable(reactor.fd()));
    assert_eq!(reactor.ready().collect::<Vec<_>>(), [Ready { token: 42, revents: libc::POLLIN }]);
}

#[test]
fn each_kind_of_waiter_has_a_wake_up_of_its_own() {
    let reactor = Reactor::new(TIMER).unwrap();
    assert!(!readable(reactor.fd()));
    reactor.wake_waiter();
    assert!(!readable(reactor.fd()));
    reactor.wake_application();
    assert!(readable(reactor.fd()));
    reactor.wait();
    reactor.quiet_waiter();
    assert!(readable(reactor.fd()));
    reactor.quiet_application();
    assert!(!readable(reactor.fd()));
}

#[test]
fn the_timer_runs_out_also_for_a_time_that_is_past_or_zero() {
    let reactor = Reactor::new(TIMER).unwrap();
    for deadline in [Duration::ZERO, now().saturating_sub(Duration::from_secs(1)), now() + Duration::from_millis(5)] {
        reactor.set_timer(deadline);
        reactor.wait();
        assert_eq!(reactor.ready().map(|ready| ready.token).collect::<Vec<_>>(), [TIMER]);
        reactor.quiet_timer();
        assert!(!readable(reactor.fd()));
    }
}

#[test]
fn a_descriptor_is_added_once_and_a_file_on_a_disk_is_refused() {
    let reactor = Reactor::new(TIMER).unwrap();
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
