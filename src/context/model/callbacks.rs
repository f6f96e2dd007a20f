// SPDX-License-Identifier: LGPL-2.1-or-later
//! Callbacks for events, hooks for descriptors, and what another context leaves to be done.

use super::*;
use crate::evgen::domains;
use crate::evgen::monitor::tests::Table;

/// Keeps what it is given; the first call makes another event from within.
struct Keeper {
    context: Weak<Context>,
    kept: std::sync::Mutex<Vec<u32>>,
    again: Option<u32>,
}

impl Keeper {
    fn new(context: &Arc<Context>, again: Option<u32>) -> Arc<Self> {
        Arc::new(Keeper { context: Arc::downgrade(context), kept: std::sync::Mutex::default(), again })
    }

    fn kept(&self) -> Vec<u32> {
        let mut kept = self.kept.lock().unwrap().clone();
        kept.sort_unstable();
        kept
    }
}

impl EventHooks for Keeper {
    fn mask(&self) -> u64 {
        DEATH
    }

    fn event_occurs(&self, event: Event) {
        assert_unlocked();
        let domid = event.domid();
        let first = {
            let mut kept = self.kept.lock().unwrap();
            kept.push(domid);
            kept.len() == 1
        };
        shuttle::thread::yield_now();
        if let (true, Some(again), Some(context)) = (first, self.again, self.context.upgrade()) {
            context.libxl_event(self::event(again, Change::Death));
        }
    }

    fn disaster(&self, _event_type: u32, message: &str, _errno: i32) -> bool {
        panic!("{message}");
    }
}

#[test]
fn each_event_goes_to_the_callback_or_into_the_queue() {
    explore("each_event_goes_to_the_callback_or_into_the_queue", || {
        let (context, played) = beside();
        let keeper = Keeper::new(&context, Some(9));
        context.set_event_hooks(Some(keeper.clone()));
        let sender = |first: u32| {
            let (context, played) = (context.clone(), played.clone());
            spawn(move || (first..first + 2).for_each(|domid| bring(&context, &played, domid, true)))
        };
        let threads = [sender(1), sender(3)];
        let takes_away = any(2) == 0;
        if takes_away {
            context.set_event_hooks(None);
        }
        for thread in threads {
            thread.join().unwrap();
        }
        // What has been fired, if nobody came by.
        context.occurred();
        let queued = std::iter::from_fn(|| context.check(ALL, None).ok()).map(|event| event.domid());
        let mut all: Vec<u32> = queued.chain(keeper.kept()).collect();
        all.sort_unstable();
        if !takes_away {
            assert_eq!(all, keeper.kept());
        }
        all.retain(|domid| *domid != 9 || keeper.kept().is_empty());
        assert_eq!(all, [1, 2, 3, 4]);
        context.set_event_hooks(None);
        assert_dropped(context);
    });
}

/// The application's side of the hooks: it is asked to watch, then no longer, in turns.
#[derive(Default)]
struct Watched {
    watching: AtomicUsize,
    asked: AtomicUsize,
}

impl OsEventHooks for Watched {
    fn fd_register(&self, _fd: RawFd) -> std::result::Result<(), i32> {
        assert_unlocked();
        shuttle::thread::yield_now();
        assert_eq!(self.watching.fetch_add(1, Ordering::Relaxed), 0, "asked twice to watch");
        self.asked.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn fd_deregister(&self, _fd: RawFd) {
        assert_unlocked();
        shuttle::thread::yield_now();
        assert_eq!(self.watching.fetch_sub(1, Ordering::Relaxed), 1, "told twice not to");
    }
}

#[test]
fn the_application_watches_when_there_is_something_to_wait_for() {
    explore("the_application_watches_when_there_is_something_to_wait_for", || {
        let (context, _played) = silent();
        let watched = Arc::new(Watched::default());
        context.set_os_hooks(watched.clone()).unwrap();
        let threads: Vec<_> = (0..3)
            .map(|_| {
                let (context, watched) = (context.clone(), watched.clone());
                spawn(move || {
                    let ready = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK).unwrap();
                    let fd = ready.as_fd().as_raw_fd();
                    for _ in 0..1 + any(2) {
                        let id = context.libxl_fd_register(fd, libc::POLLIN, ForLibxl(1)).unwrap();
                        assert_eq!(watched.watching.load(Ordering::Relaxed), 1, "something is there to wait for");
                        context.libxl_fd_deregister(fd, id);
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(watched.watching.load(Ordering::Relaxed), 0);
        assert!(watched.asked.load(Ordering::Relaxed) > 0);
        context.finish();
        drop(watched);
        assert_dropped(context);
    });
}

#[test]
fn what_another_contexts_look_finds_is_called_back_by_a_turn_of_its_own() {
    explore("what_another_contexts_look_finds_is_called_back_by_a_turn_of_its_own", || {
        let (context, _played) = beside();
        let keeper = Keeper::new(&context, None);
        context.set_event_hooks(Some(keeper.clone()));
        for domid in [7, 8] {
            context.state.lock().domains.add_death(domid, 0);
        }
        let leader = {
            let context = context.clone();
            spawn(move || {
                let mut state = context.state.lock();
                let mut found = domains::look(&mut Table::of([]), &[&state.domains]);
                context.scan_found(&mut state, &mut found);
                context.leave_the_rest(&mut state);
            })
        };
        // A thread that waits for something else: it may have the turn, or the loop.
        let waiter = {
            let context = context.clone();
            spawn(move || context.wait(SHUTDOWN, None).unwrap().domid())
        };
        let kept = keeper.clone();
        let by_loop = {
            let context = context.clone();
            spawn(move || {
                let fd = context.fd().unwrap();
                while kept.kept().len() < 2 {
                    sleep_until(|| is_readable(fd) || kept.kept().len() == 2, None);
                    context.occurred();
                }
            })
        };
        leader.join().unwrap();
        by_loop.join().unwrap();
        assert_eq!(keeper.kept(), [7, 8]);
        context.libxl_event(shutdown(1));
        assert_eq!(waiter.join().unwrap(), 1);
        context.set_event_hooks(None);
        assert_dropped(context);
    });
}

#[test]
fn a_timeout_of_libxenlights_passes_once() {
    explore("a_timeout_of_libxenlights_passes_once", || {
        let (context, played) = silent();
        let id = context.libxl_timeout_register(Duration::ZERO, ForLibxl(2)).unwrap();
        let hastens = {
            let context = context.clone();
            spawn(move || context.libxl_timeout_hasten(id))
        };
        let waiter = {
            let context = context.clone();
            spawn(move || context.wait(ALL, None).unwrap().domid())
        };
        let turns = {
            let context = context.clone();
            spawn(move || context.occurred())
        };
        sleep_until(|| played.calls.load(Ordering::Relaxed) > 0, None);
        context.libxl_event(shutdown(1));
        assert_eq!(waiter.join().unwrap(), 1);
        hastens.join().unwrap();
        turns.join().unwrap();
        context.occurred();
        assert_eq!(played.calls.load(Ordering::Relaxed), 1);
        assert_dropped(context);
    });
}
