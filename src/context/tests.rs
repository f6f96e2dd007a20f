// SPDX-License-Identifier: LGPL-2.1-or-later
//! The context without Xen: beside a libxenlight that is played here, whose events stand for all.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Weak;
use std::sync::atomic::AtomicUsize;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout};

use super::*;
use crate::ao::course::Goal;
use crate::ao::device::{self, Device};
use crate::childproc::Command;
use crate::event::Kind;
use crate::evgen::Recipient;
use crate::evgen::domain_death::{Change, Report};
use crate::xen::DOMID_LIMIT;
use crate::xen::log::NullLog;

/// Longer than anything here takes on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// What libxenlight was told.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Told {
    Fd { for_libxl: usize, fd: i32, events: i16, revents: i16 },
    Timeout(usize),
}

struct Played {
    told: Mutex<Sender<Told>>,
}

impl Libxl for Played {
    fn occurred_fd(&self, for_libxl: ForLibxl, fd: i32, events: i16, revents: i16) {
        self.told.lock().send(Told::Fd { for_libxl: for_libxl.0, fd, events, revents }).unwrap();
    }

    fn occurred_timeout(&self, for_libxl: ForLibxl) {
        self.told.lock().send(Told::Timeout(for_libxl.0)).unwrap();
    }
}

pub(crate) fn context() -> (Arc<Context>, Receiver<Told>) {
    let (told, hear) = channel();
    (Context::beside(Arc::new(Played { told: Mutex::new(told) }), Arc::new(NullLog)).unwrap(), hear)
}

pub(crate) fn event(domid: u32, change: Change) -> Event {
    Event::from_report(&Report { domid, uuid: [0; 16], user: 0, recipient: Recipient::OWN, change }).unwrap()
}

const ALL: u64 = u64::MAX;
const SHUTDOWN: u64 = 1 << 1;
const DEATH: u64 = 1 << 2;

fn readable(context: &Context) -> bool {
    let mut fds = [PollFd::new(context.fd().unwrap(), PollFlags::POLLIN)];
    nix::poll::poll(&mut fds, PollTimeout::ZERO).unwrap() == 1
}

/// Waits until the context's descriptor is readable.
fn await_readable(context: &Context) {
    let mut fds = [PollFd::new(context.fd().unwrap(), PollFlags::POLLIN)];
    let patience = PollTimeout::try_from(PATIENCE).unwrap();
    assert_eq!(nix::poll::poll(&mut fds, patience).unwrap(), 1, "the descriptor stays silent");
}

/// Turns until libxenlight has been told something.
fn hear_next(context: &Context, hear: &Receiver<Told>) -> Told {
    loop {
        if let Ok(told) = hear.try_recv() {
            return told;
        }
        await_readable(context);
        context.occurred();
    }
}

/// An application's hooks, which refuse with a number until it is taken away.
#[derive(Default)]
struct Loop {
    refusal: Mutex<Option<i32>>,
    calls: Mutex<Vec<&'static str>>,
}

impl OsEventHooks for Loop {
    fn fd_register(&self, _fd: RawFd) -> std::result::Result<(), i32> {
        match *self.refusal.lock() {
            Some(rc) => Err(rc),
            None => {
                self.calls.lock().push("register");
                Ok(())
            }
        }
    }

    fn fd_deregister(&self, _fd: RawFd) {
        self.calls.lock().push("deregister");
    }
}

#[test]
fn two_threads_that_wait_get_one_event_each() {
    let (context, _hear) = context();
    std::thread::scope(|scope| {
        let waiters: Vec<_> = (0..2).map(|_| scope.spawn(|| context.wait(ALL, None).unwrap().domid())).collect();
        context.libxl_event(event(1, Change::Death));
        context.libxl_event(event(2, Change::Death));
        let mut domids: Vec<u32> = waiters.into_iter().map(|waiter| waiter.join().unwrap()).collect();
        domids.sort_unstable();
        assert_eq!(domids, [1, 2]);
    });
}

#[test]
fn many_threads_that_want_different_events_each_get_theirs() {
    let (context, _hear) = context();
    std::thread::scope(|scope| {
        let waiters: Vec<_> = (0..16)
            .map(|domid| {
                let context = &context;
                scope.spawn(move || {
                    let mask = if domid % 2 == 0 { SHUTDOWN } else { DEATH };
                    let mut mine = |event: &Event| event.domid() == domid;
                    context.wait(mask, Some(&mut mine)).unwrap().domid()
                })
            })
            .collect();
        for domid in (0..16).rev() {
            context.libxl_event(event(domid, if domid % 2 == 0 { Change::Shutdown(0) } else { Change::Death }));
        }
        for (domid, waiter) in waiters.into_iter().enumerate() {
            assert_eq!(waiter.join().unwrap() as usize, domid);
        }
    });
}

#[test]
fn a_queued_event_makes_the_descriptor_readable_once() {
    let (context, _hear) = context();
    assert!(!readable(&context));
    context.libxl_event(event(1, Change::Death));
    assert!(readable(&context));
    context.occurred();
    assert!(!readable(&context), "an event that nobody retrieves makes a loop spin");
    context.libxl_event(event(2, Change::Death));
    assert!(readable(&context), "a second event is not announced");
    assert_eq!(context.check(ALL, None).unwrap().domid(), 1);
    assert_eq!(context.check(ALL, None).unwrap().domid(), 2);
    assert_eq!(context.check(ALL, None).unwrap_err(), Error::NotReady);
}

#[test]
fn a_waiting_thread_does_not_take_the_wake_up_from_the_loop() {
    let (context, _hear) = context();
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| context.wait(DEATH, None).unwrap().domid());
        context.libxl_event(event(1, Change::Shutdown(0)));
        context.libxl_event(event(2, Change::Death));
        assert_eq!(waiter.join().unwrap(), 2);
    });
    assert!(readable(&context));
    assert_eq!(context.check(ALL, None).unwrap().domid(), 1);
}

#[test]
fn predicates_see_the_oldest_first_and_only_what_passes_the_mask() {
    let (context, _hear) = context();
    for domid in 1..=3 {
        context.libxl_event(event(domid, Change::Shutdown(0)));
        context.libxl_event(event(domid, Change::Death));
    }
    let mut seen = Vec::new();
    let mut third = |event: &Event| {
        seen.push((event.domid(), event.kind()));
        event.domid() == 3
    };
    assert_eq!(context.check(DEATH, Some(&mut third)).unwrap().domid(), 3);
    assert_eq!(seen, [(1, Kind::DomainDeath), (2, Kind::DomainDeath), (3, Kind::DomainDeath)]);
}

#[test]
fn a_predicate_may_call_back_but_cannot_take_what_it_looks_at() {
    let (context, _hear) = context();
    for domid in 1..=3 {
        context.libxl_event(event(domid, Change::Death));
    }
    let mut nested = Vec::new();
    let mut wanted = |event: &Event| {
        if nested.is_empty() {
            nested.push(context.check(ALL, None).unwrap().domid());
            context.libxl_event(self::event(4, Change::Death));
        }
        event.domid() == 1
    };
    assert_eq!(context.check(ALL, Some(&mut wanted)).unwrap().domid(), 1);
    assert_eq!(nested, [2]);
    assert_eq!(context.check(ALL, None).unwrap().domid(), 3);
    assert_eq!(context.check(ALL, None).unwrap().domid(), 4);
}

#[test]
fn what_a_predicate_has_taken_is_not_shown_to_it() {
    let (context, _hear) = context();
    for domid in 1..=5 {
        context.libxl_event(event(domid, Change::Death));
    }
    let mut shown = Vec::new();
    let mut greedy = |event: &Event| {
        shown.push(event.domid());
        let next = context.check(ALL, None).ok();
        assert_ne!(next.map(|next| next.domid()), Some(event.domid()));
        false
    };
    assert_eq!(context.check(ALL, Some(&mut greedy)).unwrap_err(), Error::NotReady);
    // Looking at 1 it takes 2, at 3 the 1 that it has rejected, at 4 the 3, at 5 the 4.
    assert_eq!(shown, [1, 3, 4, 5]);
    assert_eq!(context.check(ALL, None).unwrap().domid(), 5);
}

#[test]
fn a_predicate_that_panics_leaves_the_queue_whole() {
    let (context, _hear) = context();
    context.libxl_event(event(1, Change::Death));
    let mut broken = |_: &Event| panic!("on purpose");
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| context.check(ALL, Some(&mut broken))));
    assert!(caught.is_err());
    assert_eq!(context.check(ALL, None).unwrap().domid(), 1);
}

#[test]
fn an_event_that_comes_while_a_predicate_looks_is_not_missed_by_the_wait() {
    let (context, _hear) = context();
    context.libxl_event(event(1, Change::Death));
    let mut late = true;
    let mut second = |event: &Event| {
        if std::mem::take(&mut late) {
            context.libxl_event(self::event(2, Change::Death));
        }
        event.domid() == 2
    };
    assert_eq!(context.wait(ALL, Some(&mut second)).unwrap().domid(), 2);
}

#[test]
fn closing_the_context_ends_every_wait() {
    let (context, _hear) = context();
    std::thread::scope(|scope| {
        let waiters: Vec<_> = (0..3).map(|_| scope.spawn(|| context.wait(ALL, None))).collect();
        context.close();
        for waiter in waiters {
            assert!(matches!(waiter.join().unwrap(), Err(Error::Invalid(_))));
        }
    });
    assert!(matches!(context.enable_domain_death(1, 0), Err(Error::Invalid(_))));
}

/// Event callbacks that keep what they get, and call the context from inside.
struct Keeper {
    context: Weak<Context>,
    kept: Mutex<Vec<u32>>,
    depth: AtomicUsize,
}

impl EventHooks for Keeper {
    fn mask(&self) -> u64 {
        DEATH
    }

    fn event_occurs(&self, event: Event) {
        self.kept.lock().push(event.domid());
        if self.depth.fetch_add(1, Ordering::Relaxed) == 0 {
            // Delivered before this inner call returns, as by libxl.
            let context = self.context.upgrade().unwrap();
            context.libxl_event(self::event(9, Change::Death));
            assert_eq!(self.kept.lock().last(), Some(&9));
        }
    }

    fn disaster(&self, _event_type: u32, _message: &str, _errno: i32) -> bool {
        false
    }
}

#[test]
fn masked_events_go_to_the_callback_which_may_call_back_and_others_are_queued() {
    let (context, _hear) = context();
    context.libxl_event(event(1, Change::Death));
    let keeper =
        Arc::new(Keeper { context: Arc::downgrade(&context), kept: Mutex::default(), depth: AtomicUsize::new(0) });
    context.set_event_hooks(Some(keeper.clone()));
    context.libxl_event(event(2, Change::Shutdown(0)));
    context.libxl_event(event(3, Change::Death));
    assert_eq!(*keeper.kept.lock(), [3, 9]);
    context.set_event_hooks(None);
    context.libxl_event(event(4, Change::Death));
    let queued: Vec<u32> = std::iter::from_fn(|| context.check(ALL, None).ok()).map(|event| event.domid()).collect();
    assert_eq!(queued, [1, 2, 4]);
}

/// A part of the application's. When it goes, which runs the application's code, no lock may be held.
struct Belonging {
    context: Weak<Context>,
    gone: Arc<AtomicUsize>,
}

impl Drop for Belonging {
    fn drop(&mut self) {
        let context = self.context.upgrade().unwrap();
        self.gone.fetch_add(usize::from(context.state.try_lock().is_some()), Ordering::Relaxed);
    }
}

impl EventHooks for Belonging {
    fn mask(&self) -> u64 {
        0
    }

    fn event_occurs(&self, _event: Event) {}

    fn disaster(&self, _event_type: u32, _message: &str, _errno: i32) -> bool {
        true
    }
}

#[test]
fn what_the_application_has_given_goes_without_a_lock() {
    let (context, _hear) = context();
    let gone = Arc::new(AtomicUsize::new(0));
    let belonging = || Belonging { context: Arc::downgrade(&context), gone: gone.clone() };
    context.set_event_hooks(Some(Arc::new(belonging())));
    context.set_event_hooks(Some(Arc::new(belonging())));
    assert_eq!(gone.load(Ordering::Relaxed), 1);
    // Neither is begun.
    let kept = belonging();
    assert!(context.run_child(&Command::new("/\0"), Box::new(move |_| drop(kept))).is_err());
    assert_eq!(gone.load(Ordering::Relaxed), 2);
    let kept = belonging();
    let told = Tell::Callback(0, 0, Box::new(move |_| drop(kept)));
    let device = Device { domid: DOMID_LIMIT, kind: device::Kind::Vbd, devid: 51712 };
    assert!(context.begin_operation(DOMID_LIMIT, &[(device, Goal::Connect)], told).is_err());
    assert_eq!(gone.load(Ordering::Relaxed), 3);
    context.close();
    assert_eq!(gone.load(Ordering::Relaxed), 4);
}

#[test]
fn one_descriptor_registered_twice_tells_both_by_their_events() {
    let (context, hear) = context();
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let fd = ours.as_raw_fd();
    let reader = context.libxl_fd_register(fd, libc::POLLIN, ForLibxl(1)).unwrap();
    let writer = context.libxl_fd_register(fd, 0, ForLibxl(2)).unwrap();
    assert!(!readable(&context));
    context.libxl_fd_modify(fd, writer, libc::POLLOUT).unwrap();
    let (events, revents) = (libc::POLLOUT, libc::POLLOUT);
    assert_eq!(hear_next(&context, &hear), Told::Fd { for_libxl: 2, fd, events, revents });
    context.libxl_fd_modify(fd, writer, 0).unwrap();
    assert!(!readable(&context));
    theirs.write_all(b"x").unwrap();
    let (events, revents) = (libc::POLLIN, libc::POLLIN);
    assert_eq!(hear_next(&context, &hear), Told::Fd { for_libxl: 1, fd, events, revents });
    context.libxl_fd_deregister(fd, reader);
    assert!(!readable(&context));
    context.libxl_fd_deregister(fd, writer);
    context.libxl_fd_deregister(fd, writer);
    assert!(context.libxl_fd_modify(fd, writer, libc::POLLIN).is_err());
}

#[test]
fn a_hang_up_of_a_descriptor_that_nobody_wants_anything_of_does_not_spin() {
    let (context, hear) = context();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let fd = ours.as_raw_fd();
    let id = context.libxl_fd_register(fd, libc::POLLIN, ForLibxl(1)).unwrap();
    drop(theirs);
    assert!(
        matches!(hear_next(&context, &hear), Told::Fd { for_libxl: 1, revents, .. } if revents & libc::POLLHUP != 0)
    );
    context.libxl_fd_modify(fd, id, 0).unwrap();
    assert!(!readable(&context));
}

#[test]
fn a_file_on_a_disk_is_always_ready_as_for_poll() {
    let (context, hear) = context();
    let file = std::fs::File::open("/proc/self/exe").unwrap();
    let fd = file.as_raw_fd();
    let id = context.libxl_fd_register(fd, libc::POLLIN, ForLibxl(5)).unwrap();
    for _ in 0..3 {
        let (events, revents) = (libc::POLLIN, libc::POLLIN);
        assert_eq!(hear_next(&context, &hear), Told::Fd { for_libxl: 5, fd, events, revents });
    }
    context.libxl_fd_deregister(fd, id);
    context.occurred();
    assert!(!readable(&context));
}

#[test]
fn each_file_on_a_disk_is_told_of_once_a_turn_however_many_they_are() {
    let (context, hear) = context();
    let files = [1, 2, 3].map(|number| (number, std::fs::File::open("/proc/self/exe").unwrap()));
    for (number, file) in &files {
        context.libxl_fd_register(file.as_raw_fd(), libc::POLLIN, ForLibxl(*number)).unwrap();
    }
    for _ in 0..3 {
        await_readable(&context);
        context.occurred();
        let told = hear.try_iter().map(|told| match told {
            Told::Fd { for_libxl, .. } => for_libxl,
            Told::Timeout(_) => panic!("there is no timeout"),
        });
        let mut told: Vec<usize> = told.collect();
        told.sort_unstable();
        assert_eq!(told, [1, 2, 3]);
    }
}

#[test]
fn however_many_looks_fail_there_is_one_time_for_the_next() {
    let (context, _hear) = context();
    let mut state = context.state.lock();
    state.domains.add_death(1, 0);
    for _ in 0..5 {
        // There is no hypervisor.
        context.scan(&mut state, true);
    }
    assert_eq!(state.counts.failed_scans, 5);
    let mut times = Vec::new();
    while let Some(what) = state.timers.pop_due(Duration::MAX) {
        times.push(what);
    }
    assert_eq!(times, [turn::Later::Rescan]);
}

#[test]
fn however_often_a_watch_is_refused_there_is_one_time_for_the_next_try() {
    let (context, _hear) = context();
    let mut state = context.state.lock();
    for seconds in 1..=5 {
        context.plan_retarget(&mut state, Duration::from_secs(seconds));
    }
    assert_eq!(state.timers.pop_due(Duration::from_secs(4)), None);
    assert_eq!(state.timers.pop_due(Duration::MAX), Some(turn::Later::Retarget));
    assert_eq!(state.timers.pop_due(Duration::MAX), None);
}

#[test]
fn a_descriptor_number_that_is_used_again_is_another_descriptor() {
    let (context, hear) = context();
    let (first, mut first_end) = UnixStream::pair().unwrap();
    let fd = first.as_raw_fd();
    let id = context.libxl_fd_register(fd, libc::POLLIN, ForLibxl(1)).unwrap();
    first_end.write_all(b"x").unwrap();
    await_readable(&context);
    context.libxl_fd_deregister(fd, id);
    drop(first);
    let (second, mut second_end) = UnixStream::pair().unwrap();
    // The lowest free number, unless another test was quicker: then there is nothing to see, and nothing wrong either.
    let fd = second.as_raw_fd();
    context.libxl_fd_register(fd, libc::POLLIN, ForLibxl(2)).unwrap();
    context.occurred();
    assert!(hear.try_recv().is_err());
    second_end.write_all(b"y").unwrap();
    assert!(matches!(hear_next(&context, &hear), Told::Fd { for_libxl: 2, .. }));
}

/// A time of day as libxl has it.
fn time_of_day() -> Duration {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap()
}

#[test]
fn a_timeout_passes_once_also_when_it_is_hastened() {
    let (context, hear) = context();
    context.libxl_timeout_register(time_of_day(), ForLibxl(1)).unwrap();
    assert_eq!(hear_next(&context, &hear), Told::Timeout(1));
    let never = context.libxl_timeout_register(time_of_day() + 1000 * PATIENCE, ForLibxl(2)).unwrap();
    context.occurred();
    assert!(!readable(&context));
    context.libxl_timeout_hasten(never);
    context.libxl_timeout_hasten(never);
    assert_eq!(hear_next(&context, &hear), Told::Timeout(2));
    context.libxl_timeout_hasten(never);
    context.occurred();
    assert!(hear.try_recv().is_err());
    assert!(!readable(&context));
}

#[test]
fn the_application_is_asked_to_watch_once_and_told_when_nothing_is_left() {
    let (context, _hear) = context();
    let hooks = Arc::new(Loop::default());
    context.set_os_hooks(hooks.clone()).unwrap();
    assert!(context.set_os_hooks(hooks.clone()).is_err(), "hooks are registered once");
    assert!(hooks.calls.lock().is_empty(), "nothing to wait for yet");
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let fd = ours.as_raw_fd();
    let first = context.libxl_fd_register(fd, libc::POLLIN, ForLibxl(1)).unwrap();
    let second = context.libxl_fd_register(fd, libc::POLLOUT, ForLibxl(2)).unwrap();
    context.libxl_fd_deregister(fd, first);
    assert_eq!(*hooks.calls.lock(), ["register"]);
    context.libxl_fd_deregister(fd, second);
    assert_eq!(*hooks.calls.lock(), ["register", "deregister"]);
    context.libxl_fd_register(fd, libc::POLLIN, ForLibxl(3)).unwrap();
    context.close();
    context.finish();
    assert_eq!(*hooks.calls.lock(), ["register", "deregister", "register", "deregister"]);
    theirs.write_all(b"x").unwrap();
    let mut byte = [0];
    (&ours).read_exact(&mut byte).unwrap();
}

#[test]
fn a_refusal_goes_back_to_the_call_that_needed_the_registration_and_a_retry_works() {
    let (context, _hear) = context();
    let hooks = Arc::new(Loop { refusal: Mutex::new(Some(5)), calls: Mutex::default() });
    context.set_os_hooks(hooks.clone()).unwrap();
    let (ours, _theirs) = UnixStream::pair().unwrap();
    let fd = ours.as_raw_fd();
    assert_eq!(context.libxl_fd_register(fd, libc::POLLIN, ForLibxl(1)), Err(Error::Hook(5)));
    *hooks.refusal.lock() = Some(-12);
    assert_eq!(context.enable_domain_death(1, 0), Err(Error::Hook(-12)));
    assert_eq!(context.libxl_timeout_register(Duration::ZERO, ForLibxl(1)), Err(Error::Hook(-12)));
    assert!(hooks.calls.lock().is_empty());
    *hooks.refusal.lock() = None;
    context.libxl_fd_register(fd, libc::POLLIN, ForLibxl(1)).unwrap();
    assert_eq!(*hooks.calls.lock(), ["register"]);
}

#[test]
fn hooks_that_come_too_late_are_refused() {
    let (context, _hear) = context();
    let (ours, _theirs) = UnixStream::pair().unwrap();
    context.libxl_fd_register(ours.as_raw_fd(), libc::POLLIN, ForLibxl(1)).unwrap();
    assert!(matches!(context.set_os_hooks(Arc::new(Loop::default())), Err(Error::Invalid(_))));
}

#[test]
fn a_descriptor_that_cannot_be_watched_is_refused_and_leaves_nothing() {
    let (context, _hear) = context();
    let hooks = Arc::new(Loop::default());
    context.set_os_hooks(hooks.clone()).unwrap();
    assert!(matches!(context.libxl_fd_register(-1, libc::POLLIN, ForLibxl(1)), Err(Error::Os { .. })));
    assert_eq!(*hooks.calls.lock(), ["register", "deregister"]);
}

#[test]
fn an_unknown_handle_is_an_error() {
    let (context, _hear) = context();
    for handle in [1, u64::MAX, 1 << 48] {
        assert!(matches!(context.disable_domain_death(Key::from(handle)), Err(Error::Invalid(_))));
    }
}

#[test]
fn the_registry_knows_who_is_who() {
    let (one, _hear) = context();
    let (other, _hear) = context();
    let address = Arc::as_ptr(&one).addr();
    assert!(lookup(address).is_none());
    insert(address, one.clone());
    assert!(Arc::ptr_eq(&lookup(address).unwrap(), &one));
    assert!(!remove(address, &other));
    assert!(remove(address, &one));
    assert!(lookup(address).is_none());
}
