// SPDX-License-Identifier: LGPL-2.1-or-later
//! The end of a context, while threads are in it, come to it, or are just leaving it.

use super::*;
use crate::context::registry;

/// As `libxl_ctx_free`, beside a libxenlight that gives its descriptor back when its own context is freed.
fn free(address: usize, played: &Played, id: Option<RegistrationId>) -> bool {
    let Some(context) = registry::lookup(address) else { return false };
    context.close();
    if let Some(id) = id {
        context.libxl_fd_deregister(played.ready.as_fd().as_raw_fd(), id);
    }
    context.finish();
    registry::remove(address, &context)
}

/// Puts a context where threads find it by a number, as those of a C program do.
fn known() -> (usize, Weak<Context>, Arc<Played>, RegistrationId) {
    let (context, played) = silent();
    let id = register(&context, &played);
    let (address, weak) = (Arc::as_ptr(&context).addr(), Arc::downgrade(&context));
    registry::insert(address, context);
    (address, weak, played, id)
}

#[test]
fn the_end_of_a_context_ends_every_wait() {
    explore("the_end_of_a_context_ends_every_wait", || {
        let (address, weak, played, id) = known();
        let subscriber = weak.upgrade().unwrap().add_subscriber().unwrap();
        // Looked up before the end, as by a call that has begun; those that come later find nothing.
        let waiters: Vec<_> = (0..3)
            .map(|index| {
                spawn(move || {
                    let Some(context) = registry::lookup(address) else { return };
                    let result = match index {
                        0 => context.subscriber_wait(subscriber, ALL, None, None),
                        1 => context.wait(SHUTDOWN, None),
                        _ => context.wait(ALL, None),
                    };
                    assert!(matches!(result, Ok(_) | Err(Error::Invalid(_))), "{result:?}");
                })
            })
            .collect();
        let fires = {
            let played = played.clone();
            spawn(move || played.fire(1, true))
        };
        assert!(free(address, &played, Some(id)));
        for thread in waiters {
            thread.join().unwrap();
        }
        fires.join().unwrap();
        assert!(weak.upgrade().is_none(), "something keeps the context");
    });
}

/// Tells another thread, from within a callback, that the context may be freed.
struct Hurried {
    called: Arc<AtomicUsize>,
}

impl EventHooks for Hurried {
    fn mask(&self) -> u64 {
        DEATH
    }

    fn event_occurs(&self, _event: Event) {
        assert_unlocked();
        self.called.fetch_add(1, Ordering::Relaxed);
    }

    fn disaster(&self, _event_type: u32, message: &str, _errno: i32) -> bool {
        panic!("{message}");
    }
}

#[test]
fn a_context_may_go_while_others_are_just_leaving_it() {
    explore("a_context_may_go_while_others_are_just_leaving_it", || {
        let (address, weak, played, id) = known();
        let called = Arc::new(AtomicUsize::new(0));
        weak.upgrade().unwrap().set_event_hooks(Some(Arc::new(Hurried { called: called.clone() })));
        // Two loops, of which one has the callback made and is then on its way out of the call.
        let loops: Vec<_> = (0..2)
            .map(|_| {
                let called = called.clone();
                spawn(move || {
                    while called.load(Ordering::Relaxed) == 0 {
                        let Some(context) = registry::lookup(address) else { return };
                        context.occurred();
                        drop(context);
                        shuttle::thread::yield_now();
                    }
                })
            })
            .collect();
        played.fire(1, true);
        sleep_until(|| called.load(Ordering::Relaxed) > 0, None);
        assert!(free(address, &played, Some(id)));
        for thread in loops {
            thread.join().unwrap();
        }
        assert_eq!(called.load(Ordering::Relaxed), 1);
        assert!(weak.upgrade().is_none(), "something keeps the context");
    });
}

#[test]
fn of_two_that_free_a_context_one_has_done_it() {
    explore("of_two_that_free_a_context_one_has_done_it", || {
        let (address, weak, played, _) = known();
        let waiter = {
            let context = weak.upgrade().unwrap();
            spawn(move || assert!(matches!(context.wait(ALL, None), Err(Error::Invalid(_)))))
        };
        let other = {
            let played = played.clone();
            spawn(move || free(address, &played, None))
        };
        let this = free(address, &played, None);
        assert_ne!(this, other.join().unwrap(), "both or neither");
        waiter.join().unwrap();
        assert!(weak.upgrade().is_none(), "something keeps the context");
    });
}
