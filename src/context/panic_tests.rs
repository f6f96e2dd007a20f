// SPDX-License-Identifier: LGPL-2.1-or-later
//! What a panic leaves behind, be it in the library or in what a Rust program has given it: nothing. Contexts without Xen.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::AtomicUsize;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout};

use super::aftermath::Place;
use super::tests::{context, event};
use super::turn::Later;
use super::*;
use crate::ao::course::{Facts, Goal};
use crate::ao::device::{Device, Kind};
use crate::evgen::disk_eject::DiskEject;
use crate::evgen::domain_death::Change;
use crate::evgen::targets::Target;
use crate::evgen::vbd::Frontend;
use crate::xen::log::{Level, NullLog};

const ALL: u64 = u64::MAX;

/// Longer than anything here takes on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Whether it ends by a panic.
fn panics<R>(work: impl FnOnce() -> R) -> bool {
    catch_unwind(AssertUnwindSafe(work)).is_err()
}

fn poll(context: &Context, timeout: PollTimeout) -> bool {
    let mut fds = [PollFd::new(context.fd().unwrap(), PollFlags::POLLIN)];
    nix::poll::poll(&mut fds, timeout).unwrap() == 1
}

fn readable(context: &Context) -> bool {
    poll(context, PollTimeout::ZERO)
}

fn await_readable(context: &Context) {
    assert!(poll(context, PollTimeout::try_from(PATIENCE).unwrap()), "the descriptor stays silent");
}

fn death(domid: u32) -> Event {
    event(domid, Change::Death)
}

/// As if it had its watches, and a generator's would be among them.
fn pretend_to_be_armed(context: &Context) {
    let mut state = context.state.lock();
    state.armed = true;
    state.targets.insert(Target::All);
}

/// Callbacks and hooks that panic when they are told to, and note the calls.
#[derive(Default)]
struct Application {
    /// The event of this domain, and the call of this hook, bring a panic.
    bad_domid: u32,
    bad_hook: &'static str,
    masks: AtomicUsize,
    calls: Mutex<Vec<String>>,
}

impl Application {
    fn call(&self, what: &str, bad: bool) {
        self.calls.lock().push(what.to_owned());
        assert!(!bad, "on purpose");
    }

    fn calls(&self) -> Vec<String> {
        std::mem::take(&mut *self.calls.lock())
    }
}

impl EventHooks for Application {
    fn mask(&self) -> u64 {
        self.masks.fetch_add(1, Ordering::Relaxed);
        ALL
    }

    fn event_occurs(&self, event: Event) {
        self.call(&event.domid().to_string(), event.domid() == self.bad_domid);
    }

    fn disaster(&self, _event_type: u32, message: &str, _errno: i32) -> bool {
        self.call(message, false);
        true
    }
}

impl OsEventHooks for Application {
    fn fd_register(&self, _fd: RawFd) -> std::result::Result<(), i32> {
        self.call("register", self.bad_hook == "register");
        Ok(())
    }

    fn fd_deregister(&self, _fd: RawFd) {
        self.call("deregister", self.bad_hook == "deregister");
    }
}

// ---- turns ----

#[test]
fn after_a_panic_in_a_turn_another_threads_event_still_wakes_the_applications_loop() {
    let (context, _hear) = context();
    assert!(!readable(&context));
    context.state.lock().trap = Some(Place::Turn);
    assert!(panics(|| context.occurred()));
    std::thread::scope(|scope| {
        scope.spawn(|| context.libxl_event(death(1)));
    });
    await_readable(&context);
    context.occurred();
    assert_eq!(context.check(ALL, None).unwrap().domid(), 1);
    assert!(!readable(&context));
}

#[test]
fn what_a_turn_has_queued_before_a_panic_wakes_the_applications_loop() {
    let (context, _hear) = context();
    assert!(!readable(&context));
    let panicked = panics(|| {
        let mut state = context.state.lock();
        state.application_here = true;
        context.in_turn(&mut state, |state| {
            context.deliver(state, death(1));
            panic!("on purpose");
        });
    });
    assert!(panicked);
    assert!(readable(&context));
}

#[test]
fn after_a_panic_in_a_turn_everything_is_looked_at_again() {
    let (context, _hear) = context();
    // A look that fails is a disaster.
    context.set_event_hooks(Some(Arc::new(Application::default())));
    {
        let mut state = context.state.lock();
        state.domains.add_death(1, 0);
        context.look_at_new_generator(&mut state, false);
        // Far from now: its timer was set before, and must be set again.
        context.schedule(&mut state, now() + PATIENCE * 60, Later::Flush);
        state.trap = Some(Place::Turn);
    }
    await_readable(&context);
    assert!(panics(|| context.occurred()));
    let end = Instant::now() + PATIENCE;
    // There is no hypervisor: that a look was tried is counted.
    while context.stats().counts.failed_scans == 0 {
        assert!(Instant::now() < end, "nobody looks again");
        await_readable(&context);
        context.occurred();
    }
    let mut state = context.state.lock();
    assert!(!state.fresh_due);
    context.look_at_new_generator(&mut state, false);
    assert!(state.fresh_due);
}

#[test]
fn a_thread_that_waits_and_meets_with_a_panic_leaves_the_others_served() {
    for place in [Place::Sleep, Place::Turn] {
        let (context, _hear) = context();
        let wait = |context: Arc<Context>| move || context.wait(ALL, None).unwrap().domid();
        let waiters: Vec<_> = (0..3).map(|_| in_time(wait(context.clone()))).collect();
        while !context.state.lock().polling {
            std::thread::yield_now();
        }
        context.state.lock().trap = Some(place);
        (1..=3).for_each(|domid| context.libxl_event(death(domid)));
        let ended: Vec<_> = waiters.iter().map(|waiter| waiter.recv_timeout(PATIENCE)).collect();
        let panicked = ended.iter().filter(|ended| **ended == Err(RecvTimeoutError::Disconnected)).count();
        let served = ended.iter().filter(|ended| ended.is_ok()).count();
        assert_eq!((panicked, served), (1, 2), "{place:?}: {ended:?}");
        assert!(!context.state.lock().polling);
        assert!(context.check(ALL, None).is_ok());
    }
}

#[test]
fn events_behind_one_whose_handler_panics_wake_the_loop_again() {
    let (context, _hear) = context();
    assert!(!readable(&context));
    (1..=3).for_each(|domid| context.libxl_event(death(domid)));
    assert!(panics(|| context.dispatch(ALL, &mut |event| assert_ne!(event.domid(), 2, "on purpose"))));
    assert!(readable(&context));
    let mut handled = Vec::new();
    context.dispatch(ALL, &mut |event| handled.push(event.domid()));
    assert_eq!(handled, [3]);
    assert!(!readable(&context));
}

// ---- the gate ----

/// Runs it in a thread of its own; a thread that never comes back is a failure.
fn in_time<R: Send + 'static>(work: impl FnOnce() -> R + Send + 'static) -> Receiver<R> {
    let (tell, hear) = channel();
    std::thread::spawn(move || {
        let _ = tell.send(work());
    });
    hear
}

#[test]
fn after_a_panic_inside_the_gate_other_threads_get_it() {
    let (context, _hear) = context();
    let entered = Arc::new(std::sync::Barrier::new(2));
    struct Late(Arc<std::sync::Barrier>, AtomicUsize);
    impl OsEventHooks for Late {
        fn fd_register(&self, _fd: RawFd) -> std::result::Result<(), i32> {
            if self.1.fetch_add(1, Ordering::Relaxed) > 0 {
                return Ok(());
            }
            // In the gate; and another waits for it.
            self.0.wait();
            self.0.wait();
            panic!("on purpose");
        }

        fn fd_deregister(&self, _fd: RawFd) {}
    }
    context.set_os_hooks(Arc::new(Late(entered.clone(), AtomicUsize::new(0)))).unwrap();
    let register = |context: Arc<Context>| move || context.libxl_timeout_register(Duration::ZERO, ForLibxl(1));
    let fails = std::thread::spawn(register(context.clone()));
    entered.wait();
    let waits = {
        let (context, entered) = (context.clone(), entered.clone());
        in_time(move || {
            let mut state = context.state.lock();
            entered.wait();
            // The lock is given up when it waits: who panics takes it before.
            context.enter_gate(&mut state).is_some()
        })
    };
    assert_eq!(waits.recv_timeout(PATIENCE), Ok(true), "who waited for the gate waits for ever");
    assert!(fails.join().is_err());
    let comes_later = in_time(register(context.clone()));
    assert!(comes_later.recv_timeout(PATIENCE).expect("the gate stays shut").is_ok());
    assert!(context.state.lock().registered);
}

/// The system's number of the thread that runs.
fn system_id() -> usize {
    // SAFETY: it has no preconditions.
    unsafe { libc::pthread_self() as usize }
}

#[test]
fn a_new_thread_with_a_dead_ones_id_is_not_its_gates_holder() {
    let (context, _hear) = context();
    let dies = || {
        let mut state = context.state.lock();
        // As if it had never come to leave it.
        std::mem::forget(context.enter_gate(&mut state).unwrap());
        system_id()
    };
    let dead = std::thread::scope(|scope| scope.spawn(dies).join().unwrap());
    let end = Instant::now() + PATIENCE;
    loop {
        let (tell, hear) = channel();
        let entered = std::thread::scope(|scope| {
            let context = &context;
            let comes = scope.spawn(move || {
                if system_id() != dead {
                    tell.send(false).unwrap();
                    return None;
                }
                let mut state = context.state.lock();
                tell.send(true).unwrap();
                // Waits, and gives up the lock only then.
                let entered = context.enter_gate(&mut state).is_some();
                Some(entered)
            });
            if hear.recv().unwrap() {
                let mut state = context.state.lock();
                state.gate = None;
                context.settled.notify_all();
            }
            comes.join().unwrap()
        });
        match entered {
            Some(entered) => {
                assert!(entered, "it was taken for the dead thread");
                return;
            }
            None => assert!(Instant::now() < end, "no thread gets the dead one's number"),
        }
    }
}

#[test]
fn a_hook_that_panics_counts_as_one_that_refuses() {
    let (context, _hear) = context();
    let bad = Arc::new(Application { bad_hook: "register", ..Application::default() });
    context.set_os_hooks(bad.clone()).unwrap();
    for _ in 0..2 {
        assert!(panics(|| context.libxl_timeout_register(Duration::ZERO, ForLibxl(1))));
        let state = context.state.lock();
        assert!(!state.registered && state.companion.is_empty() && state.timers.earliest().is_none());
    }
    assert_eq!(bad.calls(), ["register", "register"]);
}

#[test]
fn when_the_hook_panics_that_ends_the_watch_what_was_to_be_done_is_done() {
    let (context, _hear) = context();
    let application = Arc::new(Application { bad_hook: "deregister", ..Application::default() });
    context.set_os_hooks(application.clone()).unwrap();
    context.set_event_hooks(Some(application.clone()));
    pretend_to_be_armed(&context);
    let (tell, hear) = channel();
    {
        let mut state = context.state.lock();
        context.register_descriptor(&mut state).unwrap();
        context.deliver(&mut state, death(1));
        let told = Tell::Callback(0, 0, Box::new(move |result| tell.send(result.clone()).unwrap()));
        context.begin_in_gate(&mut state, 5, &[(disk(), Goal::Connect)], vec![facts()], told);
    }
    assert!(panics(|| context.close()));
    assert_eq!(application.calls(), ["register", "deregister", "1"]);
    assert_eq!(hear.try_recv(), Ok(Err(Error::Aborted)));
    let state = context.state.lock();
    assert!(state.gate.is_none() && !state.armed && !state.registered && state.outbox.is_empty());
    assert!(state.event_hooks.is_none());
}

// ---- the outbox ----

#[test]
fn a_callback_that_panics_keeps_nothing_that_comes_after_it() {
    let (context, _hear) = context();
    let application = Arc::new(Application { bad_domid: 2, ..Application::default() });
    context.set_event_hooks(Some(application.clone()));
    let mut state = context.state.lock();
    (1..=3).for_each(|domid| assert!(context.deliver(&mut state, death(domid)).is_none()));
    assert!(panics(|| context.flush(state)));
    assert_eq!(application.calls(), ["1", "2", "3"]);
}

#[test]
fn a_log_that_panics_keeps_nothing_that_comes_after_it() {
    struct Bad;
    impl LogSink for Bad {
        fn write(&self, _line: &Line) {
            panic!("on purpose");
        }
    }
    struct Idle;
    impl Libxl for Idle {
        fn occurred_fd(&self, _for_libxl: ForLibxl, _fd: i32, _events: i16, _revents: i16) {}
        fn occurred_timeout(&self, _for_libxl: ForLibxl) {}
    }
    let log = |state: &mut State, text| state.outbox.push_back(outbox::Item::Log(Line::new(Level::Info, text)));
    let context = Context::beside(Arc::new(Idle), Arc::new(Bad)).unwrap();
    let application = Arc::new(Application::default());
    context.set_event_hooks(Some(application.clone()));
    let key = context.state.lock().domains.add_death(7, 0);
    {
        let mut state = context.state.lock();
        log(&mut state, "one");
        context.deliver(&mut state, death(7));
        log(&mut state, "two");
        context.deliver(&mut state, death(8));
    }
    assert!(panics(|| context.disable_domain_death(key)));
    assert_eq!(application.calls(), ["7", "8"], "after the call none of its events may come");
    assert!(context.state.lock().domains.is_empty());
    // A subscriber that goes has gone.
    let subscriber = context.add_subscriber().unwrap();
    log(&mut context.state.lock(), "three");
    assert!(panics(|| context.remove_subscriber(subscriber)));
    let state = context.state.lock();
    assert_eq!(state.subscribers.inboxes().count(), 0);
}

#[test]
fn what_a_panic_keeps_from_its_caller_is_undone() {
    let (context, _hear) = context();
    let application = Arc::new(Application { bad_domid: 1, ..Application::default() });
    context.set_event_hooks(Some(application.clone()));
    pretend_to_be_armed(&context);
    let mut state = context.state.lock();
    let key = state.domains.add_death(7, 0);
    context.deliver(&mut state, death(1));
    assert!(panics(|| context.flush_or_undo(state, Ok(key), |key| context.forget_generator(key))));
    let mut state = context.state.lock();
    assert!(state.domains.is_empty() && !state.armed);
    // A failure stays one.
    context.deliver(&mut state, death(1));
    let failed = Err::<Key, _>(Error::NotReady);
    assert!(panics(|| context.flush_or_undo(state, failed, |_| unreachable!())));
}

#[test]
fn callbacks_are_asked_for_their_mask_once_and_without_the_lock() {
    struct Asks(Weak<Context>);
    impl EventHooks for Asks {
        fn mask(&self) -> u64 {
            assert!(self.0.upgrade().unwrap().state.try_lock().is_some());
            ALL
        }

        fn event_occurs(&self, _event: Event) {}

        fn disaster(&self, _event_type: u32, _message: &str, _errno: i32) -> bool {
            true
        }
    }
    let (context, _hear) = context();
    context.set_event_hooks(Some(Arc::new(Asks(Arc::downgrade(&context)))));
    let application = Arc::new(Application::default());
    context.set_event_hooks(Some(application.clone()));
    (1..=3).for_each(|domid| context.libxl_event(death(domid)));
    assert_eq!(application.masks.load(Ordering::Relaxed), 1);
    assert_eq!(application.calls(), ["1", "2", "3"]);
}

#[test]
fn after_a_panic_inside_libxenlight_the_applications_own_calls_are_seen_again() {
    struct Bad;
    impl Libxl for Bad {
        fn occurred_fd(&self, _for_libxl: ForLibxl, _fd: i32, _events: i16, _revents: i16) {}

        fn occurred_timeout(&self, _for_libxl: ForLibxl) {
            panic!("on purpose");
        }
    }
    let context = Context::beside(Arc::new(Bad), Arc::new(NullLog)).unwrap();
    context.libxl_timeout_register(Duration::ZERO, ForLibxl(1)).unwrap();
    await_readable(&context);
    assert!(panics(|| context.occurred()));
    assert!(!context.stirred.load(Ordering::Relaxed));
    context.libxl_event(death(1));
    assert!(context.stirred.load(Ordering::Relaxed));
}

// ---- drives, operations ----

#[test]
fn a_drive_whose_look_a_panic_has_ended_is_looked_at_again() {
    let (context, _hear) = context();
    let mut state = context.state.lock();
    let frontend = Frontend { domid: 5, devid: 5632 };
    let recipient = Recipient::OWN;
    let generator = DiskEject { domid: 5, user: 0, recipient, vdev: c"hdc".into(), dev: None, unread: None };
    let (_, id) = state.drives.insert(frontend, generator);
    let id = id.unwrap();
    state.ask_for_look(id);
    state.trap = Some(Place::Drive);
    assert!(panics(|| context.flush(state)));
    let mut state = context.state.lock();
    assert_eq!(state.timers.pop_due(Duration::MAX), Some(Later::Drive(id)));
    assert!(state.drives.retry(id), "whoever is asked to look at it leaves that to a look that has ended");
}

fn disk() -> Device {
    Device { domid: 5, kind: Kind::Vbd, devid: 51712 }
}

fn facts() -> Facts {
    let backend = disk().backend(b"/local/domain/0/backend/vbd/5/51712").unwrap();
    Facts { backend, own_domid: 0, guest_absent: false }
}

#[test]
fn an_operation_that_meets_with_a_panic_fails_and_is_told() {
    let (context, _hear) = context();
    pretend_to_be_armed(&context);
    let (tell, hear) = channel();
    let mut state = context.state.lock();
    let told = Tell::Callback(0, 0, Box::new(move |result| tell.send(result.clone()).unwrap()));
    context.begin_in_gate(&mut state, 5, &[(disk(), Goal::Connect)], vec![facts()], told);
    state.trap = Some(Place::Task);
    assert!(panics(|| context.flush(state)));
    assert!(matches!(hear.try_recv(), Ok(Err(Error::Failed(_)))));
    let state = context.state.lock();
    assert!(state.operations.is_idle() && !state.armed);
}

#[test]
fn an_operation_whose_name_nobody_has_is_called_off_and_not_told() {
    let (context, _hear) = context();
    let (tell, hear) = channel();
    let mut state = context.state.lock();
    let told = Tell::Callback(0, 0, Box::new(move |result| tell.send(result.clone()).unwrap()));
    let id = context.begin_in_gate(&mut state, 5, &[(disk(), Goal::Connect)], vec![facts()], told);
    state.outbox.clear();
    state.outbox.push_back(outbox::Item::Told(Box::new(|_| panic!("on purpose")), Ok(())));
    assert!(panics(|| context.flush_or_undo(state, Ok(id), |id| context.forget_operation(id))));
    assert!(hear.try_recv().is_err());
    assert!(context.state.lock().operations.is_idle());
}
