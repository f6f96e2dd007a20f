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
    assert_eq!(reactor.descriptors().len(), 2);
    assert!(reactor.fd().is_none());
    reactor.prepare_wait().unwrap();
    assert_eq!(reactor.descriptors().len(), 3);
    reactor.open_fd().unwrap();
    reactor.open_fd().unwrap();
    assert_eq!(reactor.descriptors().len(), 5);
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

/// Which descriptor it is, in [`Reactor::descriptors`].
const OUTER: usize = 0;
const WAKE_UP: usize = 1;
const WAITER: usize = 2;
const TIMER_FD: usize = 3;
const INNER: usize = 4;

/// An application's file that has got a number of ours.
struct Theirs {
    fd: RawFd,
    end: UnixStream,
}

impl Theirs {
    fn instead_of(fd: RawFd) -> Self {
        let (theirs, mut end) = UnixStream::pair().unwrap();
        end.write_all(b"application").unwrap();
        // SAFETY: in one step, so that no other test gets the number. It is ours no more.
        assert_eq!(unsafe { libc::dup2(theirs.as_raw_fd(), fd) }, fd);
        Theirs { fd, end }
    }

    /// What was to be read is there, nothing was written, and it is open.
    fn assert_untouched(self) {
        use std::os::fd::FromRawFd;
        // SAFETY: it has been the application's since.
        let mut theirs = unsafe { UnixStream::from_raw_fd(self.fd) };
        let mut text = [0; 100];
        assert_eq!(std::io::Read::read(&mut theirs, &mut text).unwrap(), 11);
        let mut end = self.end;
        end.set_nonblocking(true).unwrap();
        let error = std::io::Read::read(&mut end, &mut text).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
    }
}

fn use_all(reactor: &Reactor) {
    reactor.wake_application();
    reactor.quiet_application();
    reactor.wake_waiter();
    reactor.quiet_waiter();
    reactor.set_timer(Duration::ZERO);
    reactor.quiet_timer();
    assert_eq!(reactor.ready().count(), 0);
}

#[test]
fn a_number_that_has_become_the_applications_is_neither_read_nor_written_nor_closed() {
    for which in [OUTER, WAKE_UP, WAITER, TIMER_FD, INNER] {
        let reactor = reactor();
        use_all(&reactor);
        assert!(!reactor.is_stolen());
        let theirs = Theirs::instead_of(reactor.descriptors()[which]);
        use_all(&reactor);
        reactor.outer_is_ours();
        assert!(reactor.is_stolen(), "{which}");
        let (ours, _other) = UnixStream::pair().unwrap();
        assert_eq!(reactor.add(ours.as_raw_fd(), libc::POLLIN, 42), Err(Errno::EBADF));
        drop(reactor);
        theirs.assert_untouched();
    }
}

#[test]
fn an_epoll_set_of_the_applications_is_not_taken_for_ours() {
    for which in [OUTER, INNER] {
        let reactor = reactor();
        let fd = reactor.descriptors()[which];
        let (ready, mut end) = UnixStream::pair().unwrap();
        end.write_all(b"x").unwrap();
        let set = epoll().unwrap();
        // Told once, to whoever asks first.
        set.add(&ready, EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLONESHOT, 5)).unwrap();
        // SAFETY: in one step, as above.
        assert_eq!(unsafe { libc::dup2(set.0.as_raw_fd(), fd) }, fd);
        use_all(&reactor);
        reactor.outer_is_ours();
        assert!(reactor.is_stolen());
        drop(reactor);
        let mut events = [EpollEvent::empty()];
        assert_eq!(set.wait(&mut events, EpollTimeout::ZERO).unwrap(), 1);
        assert_eq!(events[0].data(), 5);
        // SAFETY: the application's copy, which nothing uses.
        assert_eq!(unsafe { libc::close(fd) }, 0);
    }
}

#[test]
fn eventfds_and_timers_of_the_applications_are_not_taken_for_ours() {
    for which in [WAKE_UP, WAITER, TIMER_FD] {
        let reactor = reactor();
        let fd = reactor.descriptors()[which];
        let theirs = EventFd::from_value_and_flags(3, EfdFlags::EFD_NONBLOCK).unwrap();
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::empty()).unwrap();
        let far = TimeSpec::from_duration(Duration::from_secs(1000));
        timer.set(Expiration::OneShot(far), TimerSetTimeFlags::empty()).unwrap();
        let copied = if which == TIMER_FD { timer.as_fd().as_raw_fd() } else { theirs.as_fd().as_raw_fd() };
        // SAFETY: in one step, as above.
        assert_eq!(unsafe { libc::dup2(copied, fd) }, fd);
        use_all(&reactor);
        assert!(reactor.is_stolen());
        drop(reactor);
        assert_eq!(theirs.read(), Ok(3));
        assert!(
            matches!(timer.get().unwrap(), Some(Expiration::OneShot(left)) if left > TimeSpec::from_duration(Duration::from_secs(500)))
        );
        // SAFETY: the application's copy, which nothing uses.
        assert_eq!(unsafe { libc::close(fd) }, 0);
    }
}
