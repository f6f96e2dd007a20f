// SPDX-License-Identifier: LGPL-2.1-or-later
//! Waits, cancellations, the application's loop, subscribers.

use super::*;

const LITTLE: Duration = Duration::from_millis(1);

#[test]
fn each_event_ends_one_wait() {
    explore("each_event_ends_one_wait", || {
        let (context, played) = beside();
        let count = 1 + any(3);
        let wait = |context: Arc<Context>| move || context.wait(ALL, None).unwrap().domid();
        let waiters: Vec<_> = (0..count).map(|_| spawn(wait(context.clone()))).collect();
        let sender = {
            let (context, played) = (context.clone(), played.clone());
            spawn(move || (1..count).for_each(|domid| bring(&context, &played, domid, true)))
        };
        bring(&context, &played, 0, true);
        assert!(joined(waiters).into_iter().eq(0..count));
        sender.join().unwrap();
        assert_eq!(context.check(ALL, None).unwrap_err(), Error::NotReady);
        assert_dropped(context);
    });
}

#[test]
fn a_loop_and_threads_that_wait_each_get_theirs() {
    explore("a_loop_and_threads_that_wait_each_get_theirs", || {
        let (context, played) = beside();
        let (deaths, shutdowns) = (1 + any(2), 1 + any(2));
        let by_loop = {
            let context = context.clone();
            spawn(move || run_loop(&context, SHUTDOWN, shutdowns as usize))
        };
        let wait = |context: Arc<Context>| move || context.wait(DEATH, None).unwrap().domid();
        let waiters: Vec<_> = (0..deaths).map(|_| spawn(wait(context.clone()))).collect();
        let sender = {
            let (context, played) = (context.clone(), played.clone());
            spawn(move || (0..shutdowns).for_each(|domid| bring(&context, &played, 100 + domid, false)))
        };
        (0..deaths).for_each(|domid| bring(&context, &played, domid, true));
        assert!(joined(waiters).into_iter().eq(0..deaths));
        let mut taken = by_loop.join().unwrap();
        // By two ways they may overtake each other.
        taken.sort_unstable();
        assert!(taken.into_iter().eq(100..100 + shutdowns));
        sender.join().unwrap();
        assert_dropped(context);
    });
}

/// What has come of a wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    Event(u32),
    Cancelled,
    TimeIsUp,
    Gone,
}

fn end(result: Result<Event>) -> End {
    match result {
        Ok(event) => End::Event(event.domid()),
        Err(Error::Aborted) => End::Cancelled,
        Err(Error::TimeIsUp) => End::TimeIsUp,
        Err(Error::Invalid(_)) => End::Gone,
        Err(error) => panic!("{error}"),
    }
}

fn count(ends: &[End], which: End) -> u64 {
    ends.iter().filter(|end| **end == which).count() as u64
}

#[test]
fn a_cancellation_ends_one_wait_and_loses_no_event() {
    explore("a_cancellation_ends_one_wait_and_loses_no_event", || {
        let (context, played) = beside();
        let (events, cancels) = (any(3), 1 + any(2));
        let wait = |context: Arc<Context>| move || end(context.wait(ALL, None));
        let waiters: Vec<_> = (0..events + cancels).map(|_| spawn(wait(context.clone()))).collect();
        let canceller = {
            let context = context.clone();
            spawn(move || (0..cancels).for_each(|_| context.cancel_wait()))
        };
        (0..events).for_each(|domid| bring(&context, &played, domid, true));
        let ends = joined(waiters);
        canceller.join().unwrap();
        assert_eq!(count(&ends, End::Cancelled), u64::from(cancels));
        assert!(ends.into_iter().filter(|end| *end != End::Cancelled).eq((0..events).map(End::Event)));
        assert_eq!(context.state.lock().inbox.cancels, 0);
        assert_dropped(context);
    });
}

#[test]
fn of_waits_that_may_end_by_themselves_nothing_is_lost() {
    explore("of_waits_that_may_end_by_themselves_nothing_is_lost", || {
        let (context, played) = beside();
        let timed = 1 + any(3);
        let wait = |context: Arc<Context>| move || end(context.wait_for(ALL, None, LITTLE));
        let waiters: Vec<_> = (0..timed).map(|_| spawn(wait(context.clone()))).collect();
        // This one has no time to be over: whoever came back, it isn't forgotten.
        let stays = {
            let context = context.clone();
            spawn(move || end(context.wait(DEATH, None)))
        };
        let canceller = {
            let context = context.clone();
            spawn(move || context.cancel_wait())
        };
        bring(&context, &played, 1, false);
        let mut ends = joined(waiters);
        canceller.join().unwrap();
        // The one that stays may have been called off, and then leaves this in the queue.
        bring(&context, &played, 2, true);
        ends.push(stays.join().unwrap());
        let left: Vec<u32> = {
            context.occurred();
            std::iter::from_fn(|| context.check(ALL, None).ok()).map(|event| event.domid()).collect()
        };
        let got = |domid| count(&ends, End::Event(domid)) + left.iter().filter(|left| **left == domid).count() as u64;
        assert_eq!((got(1), got(2)), (1, 1));
        assert_eq!(count(&ends, End::Cancelled) + context.state.lock().inbox.cancels, 1);
        assert_dropped(context);
    });
}

#[test]
fn what_is_there_before_the_time_has_passed_is_returned() {
    explore("what_is_there_before_the_time_has_passed_is_returned", || {
        let (context, played) = beside();
        // Ready before the wait begins. There is nobody else whom it could keep busy.
        played.fire(1, true);
        let time = if any(2) == 0 { LITTLE } else { Duration::ZERO };
        assert_eq!(end(context.wait_for(DEATH, None, time)), End::Event(1));
        let follower = {
            let context = context.clone();
            spawn(move || end(context.wait(SHUTDOWN, None)))
        };
        let turns = {
            let context = context.clone();
            spawn(move || context.occurred())
        };
        context.libxl_event(event(2, Change::Death));
        assert_eq!(end(context.wait_for(DEATH, None, LITTLE)), End::Event(2));
        context.libxl_event(shutdown(3));
        assert_eq!(follower.join().unwrap(), End::Event(3));
        turns.join().unwrap();
        assert_dropped(context);
    });
}

/// As a generator's report is.
fn deliver_to(context: &Context, subscriber: SubscriberKey, domid: u32) -> bool {
    let mut state = context.state.lock();
    let Ok(recipient) = state.recipient(Some(subscriber)) else { return false };
    context.deliver_to(&mut state, recipient, event(domid, Change::Death));
    context.flush(state);
    true
}

#[test]
fn users_of_one_context_each_get_theirs() {
    explore("users_of_one_context_each_get_theirs", || {
        let (context, played) = beside();
        let subscribers = [context.add_subscriber().unwrap(), context.add_subscriber().unwrap()];
        let waiters: Vec<_> = (0..2)
            .map(|index| {
                let context = context.clone();
                spawn(move || (index, end(context.subscriber_wait(subscribers[index], ALL, None, None))))
            })
            .collect();
        let own = {
            let context = context.clone();
            spawn(move || end(context.wait(ALL, None)))
        };
        let sender = {
            let context = context.clone();
            spawn(move || assert!(deliver_to(&context, subscribers[0], 10)))
        };
        bring(&context, &played, 1, true);
        match any(2) {
            0 => assert!(deliver_to(&context, subscribers[1], 11)),
            _ => context.subscriber_cancel_wait(subscribers[1]).unwrap(),
        }
        let ends = joined(waiters);
        assert_eq!(ends[0], (0, End::Event(10)));
        assert!([(1, End::Event(11)), (1, End::Cancelled)].contains(&ends[1]));
        assert_eq!(own.join().unwrap(), End::Event(1));
        sender.join().unwrap();
        assert_dropped(context);
    });
}

#[test]
fn a_subscriber_that_goes_ends_its_waits_and_no_others() {
    explore("a_subscriber_that_goes_ends_its_waits_and_no_others", || {
        let (context, played) = beside();
        let subscriber = context.add_subscriber().unwrap();
        let wait = |context: Arc<Context>| move || end(context.subscriber_wait(subscriber, ALL, None, None));
        let waiters: Vec<_> = (0..2).map(|_| spawn(wait(context.clone()))).collect();
        let own = {
            let context = context.clone();
            spawn(move || end(context.wait(ALL, None)))
        };
        let sender = {
            let context = context.clone();
            spawn(move || u64::from(deliver_to(&context, subscriber, 10)))
        };
        // One that looks at the events of who goes. They are freed before the call that frees the subscriber returns.
        let gone = Arc::new(AtomicUsize::new(0));
        let looks = {
            let (context, gone) = (context.clone(), gone.clone());
            spawn(move || {
                let mut look = |_: &Event| {
                    shuttle::thread::yield_now();
                    assert_eq!(gone.load(Ordering::Relaxed), 0, "what is looked at has been freed");
                    false
                };
                let _ = context.subscriber_check(subscriber, ALL, Some(&mut look));
            })
        };
        context.remove_subscriber(subscriber).unwrap();
        gone.store(1, Ordering::Relaxed);
        let ends = joined(waiters);
        let sent = sender.join().unwrap();
        let got = count(&ends, End::Event(10));
        assert!(got <= sent && got + count(&ends, End::Gone) == 2, "{ends:?}");
        // Its place is free for another, which has none of its events.
        let next = context.add_subscriber().unwrap();
        assert_eq!(context.subscriber_check(next, ALL, None).unwrap_err(), Error::NotReady);
        assert!(matches!(context.remove_subscriber(subscriber), Err(Error::Invalid(_))));
        bring(&context, &played, 1, true);
        assert_eq!(own.join().unwrap(), End::Event(1));
        looks.join().unwrap();
        assert_dropped(context);
    });
}

#[test]
fn an_event_that_a_predicate_looks_at_is_nobody_elses() {
    explore("an_event_that_a_predicate_looks_at_is_nobody_elses", || {
        let (context, played) = beside();
        let looked_at = Arc::new(AtomicUsize::new(0));
        let threads: Vec<_> = (0..3u32)
            .map(|index| {
                let (context, looked_at) = (context.clone(), looked_at.clone());
                spawn(move || {
                    let mut inner = true;
                    let mut mine = |event: &Event| {
                        PREDICATES.with(|predicates| predicates.set(predicates.get() + 1));
                        assert_unlocked();
                        assert_eq!(looked_at.fetch_add(1, Ordering::Relaxed), 0, "two threads look at once");
                        let domid = event.domid();
                        shuttle::thread::yield_now();
                        // It may call the context, but not take this one.
                        if std::mem::take(&mut inner) {
                            let mut never = |_: &Event| false;
                            assert!(context.check(SHUTDOWN, Some(&mut never)).is_err());
                        }
                        assert_eq!(event.domid(), domid);
                        looked_at.fetch_sub(1, Ordering::Relaxed);
                        PREDICATES.with(|predicates| predicates.set(predicates.get() - 1));
                        domid % 3 == index
                    };
                    context.wait(DEATH, Some(&mut mine)).unwrap().domid()
                })
            })
            .collect();
        let sender = {
            let (context, played) = (context.clone(), played.clone());
            spawn(move || bring(&context, &played, 2, true))
        };
        bring(&context, &played, 1, true);
        bring(&context, &played, 3, true);
        assert_eq!(joined(threads), [1, 2, 3]);
        sender.join().unwrap();
        assert_dropped(context);
    });
}
