// SPDX-License-Identifier: LGPL-2.1-or-later
//! A context whose descriptors the application has closed, one of them at a time: what all contexts of a process share is not
//! this test's to take. `ctests/closed.c` closes all.

use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::time::Duration;

use parking_lot::Mutex;

use super::tests::{context, event};
use super::{Context, EventHooks, OsEventHooks, Tell};
use crate::childproc::{Command, End};
use crate::error::Error;
use crate::event::Event;
use crate::evgen::domain_death::Change;
use crate::reactor::stolen;

const ALL: u64 = u64::MAX;

/// Gives the application's socket the number of a descriptor of ours, and gives it back closed at the end of the test.
struct Thief {
    fd: RawFd,
    _socket: UnixStream,
    _end: UnixStream,
}

impl Thief {
    fn takes(fd: RawFd) -> Self {
        let (socket, end) = UnixStream::pair().unwrap();
        // SAFETY: in one step, so that no other test gets the number.
        assert_eq!(unsafe { libc::dup2(socket.as_raw_fd(), fd) }, fd);
        Thief { fd, _socket: socket, _end: end }
    }
}

impl Drop for Thief {
    fn drop(&mut self) {
        // SAFETY: the application's.
        assert_eq!(unsafe { libc::close(self.fd) }, 0, "the application's descriptor was closed");
    }
}

fn inner_fd(context: &Context) -> RawFd {
    *context.reactor.descriptors().last().unwrap()
}

/// Counts what an application is told.
#[derive(Default)]
struct Told {
    disasters: AtomicUsize,
    fds: Mutex<Vec<(bool, RawFd)>>,
}

impl EventHooks for Told {
    fn mask(&self) -> u64 {
        0
    }

    fn event_occurs(&self, _event: Event) {}

    fn disaster(&self, event_type: u32, message: &str, errno: i32) -> bool {
        assert_eq!((event_type, errno), (0, libc::EBADF), "{message}");
        self.disasters.fetch_add(1, Ordering::SeqCst);
        true
    }
}

impl OsEventHooks for Told {
    fn fd_register(&self, fd: RawFd) -> Result<(), i32> {
        self.fds.lock().push((true, fd));
        Ok(())
    }

    fn fd_deregister(&self, fd: RawFd) {
        self.fds.lock().push((false, fd));
    }
}

#[test]
fn it_is_told_once_and_every_call_that_needs_a_descriptor_fails() {
    let (context, _hear) = context();
    let told = Arc::new(Told::default());
    context.set_event_hooks(Some(told.clone()));
    context.libxl_event(event(1, Change::Death));
    let thief = Thief::takes(inner_fd(&context));
    assert_eq!(context.check_descriptors(), Err(stolen()));
    for _ in 0..100 {
        context.occurred();
        assert_eq!(context.enable_domain_death(5, 0).unwrap_err(), stolen());
        assert_eq!(context.enable_disk_eject(5, c"xvda", 0).unwrap_err(), stolen());
        assert_eq!(context.run_child(&Command::new("/bin/true"), Box::new(|_| {})).unwrap_err(), stolen());
        assert_eq!(context.begin_operation(5, &[], Tell::Waiter).unwrap_err(), stolen());
    }
    // What had been found before is still there.
    assert_eq!(context.wait(ALL, None).unwrap().domid(), 1);
    assert_eq!(context.wait(ALL, None).unwrap_err(), stolen());
    assert_eq!(context.check(ALL, None).unwrap_err(), stolen());
    assert_eq!(told.disasters.load(Ordering::SeqCst), 1);
    context.close();
    context.finish();
    drop((context, thief));
    assert_eq!(told.disasters.load(Ordering::SeqCst), 1);
}

#[test]
fn a_loop_is_told_to_forget_the_descriptor() {
    let (context, _hear) = context();
    let told = Arc::new(Told::default());
    context.set_event_hooks(Some(told.clone()));
    context.set_os_hooks(told.clone()).unwrap();
    let (ours, _theirs) = UnixStream::pair().unwrap();
    context.libxl_fd_register(ours.as_raw_fd(), libc::POLLIN, super::ForLibxl(1)).unwrap();
    let fd = context.known_fd().unwrap();
    let thief = Thief::takes(fd);
    // The loop finds something at that number, which isn't ours any more.
    for _ in 0..3 {
        context.occurred();
    }
    assert_eq!(*told.fds.lock(), [(true, fd), (false, fd)]);
    context.close();
    context.finish();
    drop((context, thief));
    assert_eq!(told.fds.lock().len(), 2);
    assert_eq!(told.disasters.load(Ordering::SeqCst), 1);
}

#[test]
fn threads_that_wait_return_when_another_has_found_it() {
    let (context, _hear) = context();
    let mut thief = None;
    std::thread::scope(|scope| {
        let waiters: Vec<_> = (0..3).map(|_| scope.spawn(|| context.wait(ALL, None).unwrap_err())).collect();
        while !context.state.lock().polling {
            std::thread::yield_now();
        }
        context.fd().unwrap();
        thief = Some(Thief::takes(context.known_fd().unwrap()));
        assert_eq!(context.check_descriptors(), Err(stolen()));
        for waiter in waiters {
            assert_eq!(waiter.join().unwrap(), stolen());
        }
    });
    drop(context);
    drop(thief);
}

#[test]
fn a_child_whose_context_is_lost_ends_and_is_told() {
    let (context, _hear) = context();
    let (done, ends) = channel();
    let command = Command::new("/bin/sleep").args(["1000"]);
    context.run_child(&command, Box::new(move |outcome| done.send(outcome.end).unwrap())).unwrap();
    let thief = Thief::takes(inner_fd(&context));
    assert_eq!(context.check_descriptors(), Err(stolen()));
    let end = ends.recv_timeout(Duration::from_secs(60)).unwrap();
    assert!(matches!(end, End::Signalled(libc::SIGKILL)), "{end:?}");
    drop((context, thief));
}

/// A copy in a forked child keeps what the application has closed in the kernel's set, where it is reported for ever.
#[test]
fn what_is_left_in_the_set_of_a_closed_descriptor_makes_no_loop_spin() {
    let (context, _hear) = context();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let copy = ours.try_clone().unwrap();
    context.reactor.add(ours.as_raw_fd(), libc::POLLIN, super::turn::Token::Idle.into()).unwrap();
    drop(ours);
    drop(theirs);
    let mut turns = 0;
    while context.check_descriptors().is_ok() {
        context.occurred();
        turns += 1;
        assert!(turns < 1000, "it goes on for ever");
    }
    drop(copy);
    assert!(matches!(context.check(ALL, None), Err(Error::Os { .. })));
}

#[test]
fn a_loops_calls_look_when_the_time_changes_and_where_it_does_not_after_a_while() {
    let (context, _hear) = context();
    assert!(context.is_check_due(5));
    let due = (0..1024).filter(|_| context.is_check_due(5)).count();
    assert_eq!(due, 4);
    assert!(context.is_check_due(6));
    assert!(context.is_check_due(5));
}
