// SPDX-License-Identifier: LGPL-2.1-or-later
//! Whose an event is. What a generator finds goes to the inbox of whom it was enabled for: to the context's own, from
//! which whoever has the context takes events; or to that of a *subscriber*, one of several users of a context who
//! must not take each other's.
//!
//! - A subscriber's events go to its inbox alone, also where the application has callbacks: those are another user's.
//! - The reactor, its wake-ups and the thread that polls serve all inboxes. An event for any of them wakes everyone who
//!   waits, and each looks at its own.
//! - A subscriber goes together with its generators and the events that nobody has fetched: who else could say what they
//!   are about?

use std::sync::atomic::{AtomicU64, Ordering};

use nix::errno::Errno;

use super::{Context, State};
use crate::error::{Error, Result};
use crate::event::{Event, Queue};
use crate::evgen::Recipient;
use crate::guard::Steps;

/// Names a subscriber: its place in the upper 16 bits, from 1, below it a serial number that is never used twice in a
/// process: a stale handle, or one of another context's, finds nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key(u64);

const SERIAL_BITS: u32 = 48;

impl Key {
    fn new(place: usize) -> Self {
        static NEXT_SERIAL: AtomicU64 = AtomicU64::new(0);
        let serial = NEXT_SERIAL.fetch_add(1, Ordering::Relaxed) & ((1 << SERIAL_BITS) - 1);
        Key(((place as u64 + 1) << SERIAL_BITS) | serial)
    }

    fn place(self) -> Option<usize> {
        ((self.0 >> SERIAL_BITS) as usize).checked_sub(1)
    }
}

// A handle is a key that has crossed the C boundary as a pointer, and may come back as anything.
impl From<u64> for Key {
    fn from(value: u64) -> Self {
        Key(value)
    }
}

impl From<Key> for u64 {
    fn from(key: Key) -> Self {
        key.0
    }
}

/// What waits for one user.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    pub(super) queue: Queue,
    /// How many waits are still to be ended without an event.
    pub(super) cancels: u64,
}

#[derive(Debug)]
struct Subscriber {
    key: Key,
    inbox: Inbox,
    /// It is being freed: nobody may use it any more, and no other may have its place yet.
    leaving: bool,
}

/// A context's subscribers.
#[derive(Debug, Default)]
pub(super) struct Subscribers {
    places: Vec<Option<Subscriber>>,
}

impl Subscribers {
    /// One more; `None` if there can't be.
    fn insert(&mut self) -> Option<Key> {
        let place = self.places.iter().position(Option::is_none).unwrap_or(self.places.len());
        Recipient::subscriber(place)?;
        let key = Key::new(place);
        if place == self.places.len() {
            self.places.push(None);
        }
        self.places[place] = Some(Subscriber { key, inbox: Inbox::default(), leaving: false });
        Some(key)
    }

    fn place_of(&self, key: Key) -> Option<usize> {
        let place = key.place()?;
        let subscriber = self.places.get(place)?.as_ref()?;
        (subscriber.key == key && !subscriber.leaving).then_some(place)
    }

    /// Its name for generators.
    fn recipient(&self, key: Key) -> Option<Recipient> {
        Recipient::subscriber(self.place_of(key)?)
    }

    fn get(&self, key: Key) -> Option<&Inbox> {
        self.places[self.place_of(key)?].as_ref().map(|subscriber| &subscriber.inbox)
    }

    fn get_mut(&mut self, key: Key) -> Option<&mut Inbox> {
        let place = self.place_of(key)?;
        self.places[place].as_mut().map(|subscriber| &mut subscriber.inbox)
    }

    /// Where a generator's events go. There is none for an owner of no generators.
    pub(super) fn inbox_of(&mut self, recipient: Recipient) -> Option<&mut Inbox> {
        self.places.get_mut(recipient.place()?)?.as_mut().map(|subscriber| &mut subscriber.inbox)
    }

    /// The same, to be looked at.
    pub(super) fn inbox_at(&self, recipient: Recipient) -> Option<&Inbox> {
        self.places.get(recipient.place()?)?.as_ref().map(|subscriber| &subscriber.inbox)
    }

    /// Each inbox.
    pub(super) fn inboxes(&self) -> impl Iterator<Item = &Inbox> {
        self.places.iter().flatten().map(|subscriber| &subscriber.inbox)
    }

    /// From now on nobody can use it.
    fn begin_leaving(&mut self, key: Key) -> Option<Recipient> {
        let recipient = self.recipient(key)?;
        self.places[recipient.place()?].as_mut()?.leaving = true;
        Some(recipient)
    }

    /// Its place is free again.
    fn leave(&mut self, recipient: Recipient) -> Option<Inbox> {
        let subscriber = self.places.get_mut(recipient.place()?)?.take();
        subscriber.map(|subscriber| subscriber.inbox)
    }
}

/// One of a context's inboxes, for retrieval from it. Two types rather than one, so that what is looked up for a subscriber
/// costs who uses the context itself nothing.
pub(super) trait Which: Copy {
    /// A number that no other inbox of the context has.
    fn mark(self) -> u64;

    /// `None` if there is no such subscriber, or no longer.
    fn inbox(self, state: &State) -> Option<&Inbox>;

    /// The same, to be changed.
    fn inbox_mut(self, state: &mut State) -> Option<&mut Inbox>;
}

/// The context's own.
#[derive(Debug, Clone, Copy)]
pub(super) struct Own;

impl Which for Own {
    fn mark(self) -> u64 {
        0
    }

    fn inbox(self, state: &State) -> Option<&Inbox> {
        Some(&state.inbox)
    }

    fn inbox_mut(self, state: &mut State) -> Option<&mut Inbox> {
        Some(&mut state.inbox)
    }
}

impl Which for Key {
    fn mark(self) -> u64 {
        self.0
    }

    fn inbox(self, state: &State) -> Option<&Inbox> {
        state.subscribers.get(self)
    }

    fn inbox_mut(self, state: &mut State) -> Option<&mut Inbox> {
        state.subscribers.get_mut(self)
    }
}

/// There is no such subscriber.
pub(super) fn unknown(handle: impl Into<u64>) -> Error {
    Error::Invalid(format!("no subscriber has the handle {:#x}", handle.into()))
}

impl State {
    /// Whom generators are for that are enabled for this subscriber, or for who uses the context itself.
    pub(super) fn recipient(&self, subscriber: Option<Key>) -> Result<Recipient> {
        match subscriber {
            None => Ok(Recipient::OWN),
            Some(key) => self.subscribers.recipient(key).ok_or_else(|| unknown(key)),
        }
    }
}

impl Context {
    /// A new subscriber, without generators.
    pub fn add_subscriber(&self) -> Result<Key> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(Error::Invalid("the context is being freed".to_owned()));
        }
        state.subscribers.insert().ok_or_else(|| Error::os("adding a subscriber to all those there are", Errno::ENOSPC))
    }

    /// Ends what [`Context::add_subscriber`] began: disables the subscriber's generators, drops its events, ends its waits.
    pub fn remove_subscriber(&self, key: Key) -> Result<()> {
        if self.retrieval.is_owned_by_current_thread() {
            return Err(Error::Invalid("a predicate may not call this".to_owned()));
        }
        let mut state = self.state.lock();
        // Who is enabling a generator for it is let finish.
        let Some(mut gate) = self.enter_gate(&mut state) else {
            return Err(Error::Invalid("a hook that waits for descriptors may not call this".to_owned()));
        };
        let left = gate.subscribers.begin_leaving(key);
        if let Some(recipient) = left {
            gate.domains.remove_all_of(recipient);
            for (id, frontend) in gate.drives.remove_all_of(recipient) {
                gate.give_up_watch(id, frontend);
            }
            self.wake_waiter(&mut gate);
        }
        drop(gate);
        let recipient = left.ok_or_else(|| unknown(key))?;
        // Also after a panic nobody can use it any more, and its place has to be free again.
        let mut steps = Steps::default();
        steps.take(move || {
            self.plan_resume_look(&mut state);
            state.retarget_later();
            self.disarm_and_flush(state);
        });
        // Nobody's predicate may be looking at one of its events when they are dropped.
        let retrieval = self.retrieval.lock();
        let inbox = self.state.lock().subscribers.leave(recipient);
        drop(retrieval);
        // Frees its events, which may mean a call into libxenlight.
        drop(inbox);
        steps.end();
        Ok(())
    }

    /// Puts an event where its recipient will find it, and wakes who may be waiting for it. Its serial, if it was queued.
    pub(super) fn deliver_to(&self, state: &mut State, recipient: Recipient, event: Event) -> Option<u64> {
        if recipient == Recipient::OWN {
            return self.deliver(state, event);
        }
        self.deliver_to_subscriber(state, recipient, event)
    }

    // Apart, so that what goes to nobody in particular, as mostly, doesn't pay for it.
    #[inline(never)]
    fn deliver_to_subscriber(&self, state: &mut State, recipient: Recipient, event: Event) -> Option<u64> {
        state.counts.events.count(event.event_type());
        let serial = state.subscribers.inbox_of(recipient)?.queue.push(event);
        match serial {
            Some(_) => self.wake_all(state),
            None => state.starved = true,
        }
        serial
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;

    use super::super::EventHooks;
    use super::super::tests::{context, event};
    use super::*;
    use crate::evgen::domain_death::Change;

    const ALL: u64 = u64::MAX;

    /// As a generator of that subscriber's, or of the context's own.
    fn bring(context: &Context, subscriber: Option<Key>, domid: u32) {
        let mut state = context.state.lock();
        let recipient = state.recipient(subscriber).unwrap();
        context.deliver_to(&mut state, recipient, event(domid, Change::Death));
        context.flush(state);
    }

    fn queued(context: &Context, subscriber: Option<Key>) -> Vec<u32> {
        let next = || match subscriber {
            Some(key) => context.subscriber_check(key, ALL, None),
            None => context.check(ALL, None),
        };
        std::iter::from_fn(|| next().ok()).map(|event| event.domid()).collect()
    }

    #[test]
    fn each_gets_what_is_its_own_and_nothing_else() {
        let (context, _hear) = context();
        let [one, other] = [0, 1].map(|_| context.add_subscriber().unwrap());
        for (domid, whose) in [None, Some(one), Some(other), Some(one), None].into_iter().enumerate() {
            bring(&context, whose, domid as u32);
        }
        assert_eq!(queued(&context, Some(one)), [1, 3]);
        assert_eq!(queued(&context, None), [0, 4]);
        assert_eq!(queued(&context, Some(other)), [2]);
        assert_eq!(context.stats().counts.events.domain_death, 5);
    }

    #[test]
    fn callbacks_are_not_for_the_events_of_subscribers() {
        #[derive(Default)]
        struct Counts(AtomicUsize);
        impl EventHooks for Counts {
            fn mask(&self) -> u64 {
                ALL
            }

            fn event_occurs(&self, _event: Event) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }

            fn disaster(&self, _event_type: u32, _message: &str, _errno: i32) -> bool {
                true
            }
        }
        let (context, _hear) = context();
        let subscriber = context.add_subscriber().unwrap();
        let counts = Arc::new(Counts::default());
        context.set_event_hooks(Some(counts.clone()));
        bring(&context, Some(subscriber), 1);
        bring(&context, None, 2);
        assert_eq!(counts.0.load(Ordering::Relaxed), 1);
        assert_eq!(queued(&context, Some(subscriber)), [1]);
    }

    #[test]
    fn threads_of_different_subscribers_that_wait_each_get_theirs() {
        let (context, _hear) = context();
        for _ in 0..50 {
            let subscribers: Vec<Key> = (0..4).map(|_| context.add_subscriber().unwrap()).collect();
            std::thread::scope(|scope| {
                let wait = |key| context.subscriber_wait(key, ALL, None, None).unwrap().domid();
                let waiters: Vec<_> = subscribers.iter().map(|key| scope.spawn(move || wait(*key))).collect();
                let own = scope.spawn(|| context.wait(ALL, None).unwrap().domid());
                for (domid, key) in subscribers.iter().enumerate().rev() {
                    bring(&context, Some(*key), domid as u32);
                }
                bring(&context, None, 9);
                for (domid, waiter) in waiters.into_iter().enumerate() {
                    assert_eq!(waiter.join().unwrap() as usize, domid);
                }
                assert_eq!(own.join().unwrap(), 9);
            });
            subscribers.into_iter().for_each(|key| context.remove_subscriber(key).unwrap());
        }
    }

    #[test]
    fn freeing_ends_its_waits_and_no_others_and_drops_its_events() {
        let (context, _hear) = context();
        let subscriber = context.add_subscriber().unwrap();
        bring(&context, Some(subscriber), 1);
        std::thread::scope(|scope| {
            let own = scope.spawn(|| context.wait(ALL, None).unwrap().domid());
            let waiters: Vec<_> = (0..3)
                .map(|_| scope.spawn(|| context.subscriber_wait(subscriber, 0, None, None).unwrap_err()))
                .collect();
            while !context.state.lock().polling {
                std::thread::yield_now();
            }
            context.remove_subscriber(subscriber).unwrap();
            for waiter in waiters {
                assert!(matches!(waiter.join().unwrap(), Error::Invalid(_)));
            }
            bring(&context, None, 2);
            assert_eq!(own.join().unwrap(), 2);
        });
        assert!(matches!(context.remove_subscriber(subscriber), Err(Error::Invalid(_))));
        assert!(matches!(context.subscriber_check(subscriber, ALL, None), Err(Error::Invalid(_))));
        assert!(matches!(context.subscriber_cancel_wait(subscriber), Err(Error::Invalid(_))));
        assert!(matches!(context.enable_domain_death_for(Some(subscriber), 1, 0), Err(Error::Invalid(_))));
        // Who has its place now has nothing of it.
        let next = context.add_subscriber().unwrap();
        assert_eq!(queued(&context, Some(next)), []);
        assert_eq!(queued(&context, None), []);
    }

    #[test]
    fn a_predicate_may_look_into_another_inbox_but_not_free_one() {
        let (context, _hear) = context();
        let subscriber = context.add_subscriber().unwrap();
        // The same serials in both.
        for domid in 1..=2 {
            bring(&context, None, domid);
            bring(&context, Some(subscriber), 10 * domid);
        }
        let mut taken = Vec::new();
        let mut wanted = |event: &Event| {
            assert!(matches!(context.remove_subscriber(subscriber), Err(Error::Invalid(_))));
            let mut inner = |inner: &Event| {
                taken.extend(queued(&context, None));
                inner.domid() == 20
            };
            let got = context.subscriber_check(subscriber, ALL, Some(&mut inner)).ok().map(|event| event.domid());
            taken.extend(got);
            taken.extend(queued(&context, Some(subscriber)));
            event.domid() == 1
        };
        assert_eq!(context.check(ALL, Some(&mut wanted)).unwrap().domid(), 1);
        assert_eq!(taken, [2, 20, 10]);
    }

    #[test]
    fn an_event_that_a_predicate_looks_at_is_not_freed_with_its_subscriber() {
        let (context, _hear) = context();
        let subscriber = context.add_subscriber().unwrap();
        bring(&context, Some(subscriber), 7);
        std::thread::scope(|scope| {
            let mut freeing = None;
            let mut look = |event: &Event| {
                freeing = Some(scope.spawn(|| context.remove_subscriber(subscriber)));
                while context.subscriber_cancel_wait(subscriber).is_ok() {
                    std::thread::yield_now();
                }
                assert_eq!(event.domid(), 7);
                true
            };
            // Its end was told to whoever asks from then on.
            assert_eq!(context.subscriber_check(subscriber, ALL, Some(&mut look)).unwrap_err(), Error::NotReady);
            freeing.unwrap().join().unwrap().unwrap();
        });
    }

    #[test]
    fn a_place_is_used_again_and_a_handle_is_not() {
        let mut subscribers = Subscribers::default();
        let [first, second] = [0, 1].map(|_| subscribers.insert().unwrap());
        let recipient = subscribers.recipient(first).unwrap();
        assert_ne!(Some(recipient), subscribers.recipient(second));
        assert_eq!(subscribers.begin_leaving(first), Some(recipient));
        assert_eq!(subscribers.begin_leaving(first), None);
        assert!(subscribers.get(first).is_none());
        let third = subscribers.insert().unwrap();
        assert_ne!(subscribers.recipient(third), Some(recipient), "one that is still leaving keeps its place");
        assert!(subscribers.leave(recipient).is_some());
        let fourth = subscribers.insert().unwrap();
        assert_eq!(subscribers.recipient(fourth), Some(recipient));
        assert!(subscribers.get(first).is_none() && subscribers.get(fourth).is_some());
    }

    #[test]
    fn handles_of_elsewhere_find_nothing() {
        let (mut one, mut other) = (Subscribers::default(), Subscribers::default());
        let key = one.insert().unwrap();
        other.insert().unwrap();
        assert!(other.get(key).is_none());
        for stray in [0, 1, u64::MAX, 1 << 48, u64::from(key) + (1 << 48)] {
            assert!(one.get(Key::from(stray)).is_none(), "{stray:#x}");
        }
        assert!(one.get(Key::from(u64::from(key))).is_some());
    }

    #[test]
    fn there_are_as_many_as_generators_can_tell_apart() {
        let mut subscribers = Subscribers::default();
        assert_eq!(subscribers.places.len(), 0);
        let place = usize::from(u16::MAX) - 1;
        subscribers.places.resize_with(place, || None);
        subscribers.places.iter_mut().enumerate().for_each(|(place, free)| {
            *free = Some(Subscriber { key: Key::new(place), inbox: Inbox::default(), leaving: false });
        });
        assert!(subscribers.insert().is_some());
        assert!(subscribers.insert().is_none());
    }
}
