// SPDX-License-Identifier: LGPL-2.1-or-later
//! Waiting for an event: with a time-out or without, and until somebody calls it off.
//!
//! One thread of a context sleeps in the reactor, whichever inbox it waits for; others follow it, and each of them can take
//! its place. `reactor` says why nobody is forgotten.
//!
//! What ends a wait, in this order: an event; the end of the context or of the subscriber; a cancellation, which is used up
//! by it; the time.

use std::time::Duration;

use super::arming::{PULSE, PULSES_AT_MOST};
use super::retrieval::Predicate;
use super::subscribers::{Own, Which, unknown};
use super::{Context, State, SubscriberKey, neighbours};
use crate::error::{Error, Result};
use crate::event::Event;
use crate::reactor::{Monotonic, now, stolen};
use crate::sync::MutexGuard;

impl Context {
    /// The oldest event whose type is in `mask` and that the predicate wants, as soon as there is one. Signals don't end the
    /// wait; closing the context does, and [`Context::cancel_wait`].
    pub fn wait(&self, mask: u64, predicate: Option<&mut Predicate<'_>>) -> Result<Event> {
        self.wait_in(Own, mask, predicate, None)
    }

    /// The same for so long at most. What is ready when the time has passed is still taken in, and an event that is there
    /// then is returned. With no time at all that is all that is done.
    pub fn wait_for(&self, mask: u64, predicate: Option<&mut Predicate<'_>>, timeout: Duration) -> Result<Event> {
        self.wait_in(Own, mask, predicate, Some(timeout))
    }

    /// The same among a subscriber's events; without a timeout, for ever. That the subscriber goes ends it too.
    pub fn subscriber_wait(
        &self,
        subscriber: SubscriberKey,
        mask: u64,
        predicate: Option<&mut Predicate<'_>>,
        timeout: Option<Duration>,
    ) -> Result<Event> {
        self.wait_in(subscriber, mask, predicate, timeout)
    }

    /// Ends one wait for the context's own events: that of a thread that waits now, or else the next that finds no event
    /// and would wait. So a thread that is on its way to its wait needn't be known of. A wait that ends otherwise leaves
    /// this to another.
    pub fn cancel_wait(&self) {
        // There is always that inbox.
        let _ = self.cancel_in(Own);
    }

    /// The same for a subscriber's.
    pub fn subscriber_cancel_wait(&self, subscriber: SubscriberKey) -> Result<()> {
        self.cancel_in(subscriber).ok_or_else(|| unknown(subscriber))
    }

    fn cancel_in(&self, which: impl Which) -> Option<()> {
        let mut state = self.state.lock();
        which.inbox_mut(&mut state)?.cancels += 1;
        self.wake_waiter(&mut state);
        Some(())
    }

    fn wait_in(
        &self,
        which: impl Which,
        mask: u64,
        mut predicate: Option<&mut Predicate<'_>>,
        timeout: Option<Duration>,
    ) -> Result<Event> {
        let waits = timeout != Some(Duration::ZERO);
        let deadline = timeout.map(|timeout| now().saturating_add(timeout));
        // The time has passed, and what was ready then has been taken in.
        let mut over = false;
        // Events before this serial were looked at and not wanted.
        let mut seen = 0;
        loop {
            let predicate = predicate.as_mut().map(|predicate| &mut **predicate as &mut Predicate<'_>);
            if let Some(event) = self.retrieve(which, mask, predicate, &mut seen) {
                return Ok(event);
            }
            let mut state = self.state.lock();
            if state.closed {
                return Err(Error::Invalid("the context was freed during the wait".to_owned()));
            }
            self.refuse_if_stolen()?;
            let Some(inbox) = which.inbox_mut(&mut state) else {
                return Err(unknown(which.mark()));
            };
            if inbox.queue.end() > seen && !over {
                continue;
            }
            if waits && inbox.cancels > 0 {
                inbox.cancels -= 1;
                return Err(Error::Aborted);
            }
            if over {
                return Err(Error::TimeIsUp);
            }
            over = self.sleep_and_turn(state, deadline)?;
        }
    }

    /// Sleeps until something has happened, and takes it in; or leaves that to the thread that does so already. Whether the
    /// deadline has passed: then what was ready by then has been taken in by this thread itself, as anyone may at any time.
    pub(super) fn sleep_and_turn(&self, mut state: MutexGuard<'_, State>, deadline: Option<Monotonic>) -> Result<bool> {
        let left = deadline.map(|deadline| deadline.saturating_sub(now()));
        let mut over = left == Some(Duration::ZERO);
        if !over && !self.reactor.is_ours() {
            self.flush(state);
            return Err(stolen());
        }
        if !over && state.polling {
            match left {
                Some(left) => drop(self.arrived.wait_for(&mut state, left)),
                None => self.arrived.wait(&mut state),
            }
            return Ok(false);
        }
        if !over {
            self.reactor.prepare_wait()?;
            let polling = Polling::begin(self, &mut state);
            let at_most = longest_sleep(left);
            MutexGuard::unlocked(polling.state, || self.reactor.wait(at_most));
            #[cfg(test)]
            polling.state.pass(super::aftermath::Place::Sleep);
            over = deadline.is_some_and(|deadline| deadline <= now());
            drop(polling);
        }
        self.turn(&mut state);
        self.flush(state);
        Ok(over)
    }
}

/// A thread sleeps in the reactor, for those too that follow it.
struct Polling<'a, 'lock> {
    context: &'a Context,
    state: &'a mut MutexGuard<'lock, State>,
}

impl<'a, 'lock> Polling<'a, 'lock> {
    fn begin(context: &'a Context, state: &'a mut MutexGuard<'lock, State>) -> Self {
        state.polling = true;
        Polling { context, state }
    }
}

impl Drop for Polling<'_, '_> {
    fn drop(&mut self) {
        self.state.polling = false;
        if self.state.waiter_woken {
            self.state.waiter_woken = false;
            self.context.reactor.quiet_waiter();
        }
        // This thread may return, or be kept by a callback: another must be able to take its place.
        self.context.arrived.notify_all();
    }
}

/// A thread that sleeps sees by itself whether the descriptors that it sleeps on are still ours: closing them doesn't wake it.
/// A context that watches is woken more often for its connection.
fn longest_sleep(left: Option<Duration>) -> Option<Duration> {
    // The model's threads wake for a reason alone.
    if cfg!(all(test, xlevent_shuttle)) {
        return left;
    }
    let pulses = neighbours::count().clamp(1, PULSES_AT_MOST) as u32;
    let longest = PULSE * pulses * 3 / 2;
    Some(left.map_or(longest, |left| left.min(longest)))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;
    use std::sync::{Arc, OnceLock, Weak};

    use super::super::tests::{context, event};
    use super::super::{ForLibxl, Libxl};
    use super::*;
    use crate::evgen::domain_death::Change;
    use crate::xen::log::NullLog;

    const ALL: u64 = u64::MAX;
    const NO_TIME: Duration = Duration::ZERO;
    const LITTLE: Duration = Duration::from_micros(200);

    fn bring(context: &Context, domid: u32) {
        context.libxl_event(event(domid, Change::Death));
    }

    #[test]
    fn without_an_event_the_time_passes_and_not_less() {
        let (context, _hear) = context();
        for timeout in [NO_TIME, Duration::from_millis(3)] {
            let begin = now();
            assert_eq!(context.wait_for(ALL, None, timeout).unwrap_err(), Error::TimeIsUp);
            assert!(now() >= begin + timeout);
        }
        bring(&context, 1);
        assert_eq!(context.wait_for(0, None, LITTLE).unwrap_err(), Error::TimeIsUp);
        assert_eq!(context.wait_for(ALL, None, NO_TIME).unwrap().domid(), 1);
    }

    /// A libxenlight that makes an event of whatever is ready.
    #[derive(Default)]
    struct Eager(OnceLock<Weak<Context>>);

    impl Libxl for Eager {
        fn occurred_fd(&self, _for_libxl: ForLibxl, fd: i32, _events: i16, _revents: i16) {
            if let Some(context) = self.0.get().and_then(Weak::upgrade) {
                context.libxl_fd_deregister(fd, context.libxl_fd_register(fd, 0, ForLibxl(0)).unwrap());
                bring(&context, fd.unsigned_abs());
            }
        }

        fn occurred_timeout(&self, _for_libxl: ForLibxl) {}
    }

    #[test]
    fn what_is_ready_when_the_time_has_passed_is_taken_in_and_returned() {
        let eager = Arc::new(Eager::default());
        let context = Context::beside(eager.clone(), Arc::new(NullLog)).unwrap();
        eager.0.set(Arc::downgrade(&context)).unwrap();
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let fd = ours.as_raw_fd();
        context.libxl_fd_register(fd, libc::POLLIN, ForLibxl(1)).unwrap();
        assert_eq!(context.wait_for(ALL, None, NO_TIME).unwrap_err(), Error::TimeIsUp);
        theirs.write_all(b"x").unwrap();
        assert_eq!(context.wait_for(ALL, None, NO_TIME).unwrap().domid(), fd.unsigned_abs());
    }

    #[test]
    fn a_follower_takes_in_what_is_ready_too_when_its_time_has_passed() {
        let (context, _hear) = context();
        std::thread::scope(|scope| {
            let polls = scope.spawn(|| context.wait(1 << 1, None).unwrap().domid());
            while !context.state.lock().polling {
                std::thread::yield_now();
            }
            assert_eq!(context.wait_for(ALL, None, LITTLE).unwrap_err(), Error::TimeIsUp);
            let turns = context.stats().counts.turns;
            assert_eq!(context.wait_for(ALL, None, NO_TIME).unwrap_err(), Error::TimeIsUp);
            assert_eq!(context.stats().counts.turns, turns + 1);
            context.libxl_event(event(7, Change::Shutdown(0)));
            assert_eq!(polls.join().unwrap(), 7);
        });
    }

    #[test]
    fn a_wait_that_is_called_off_before_it_begins_ends_at_once_and_the_next_does_not() {
        let (context, _hear) = context();
        context.cancel_wait();
        assert_eq!(context.wait(ALL, None).unwrap_err(), Error::Aborted);
        assert_eq!(context.wait_for(ALL, None, LITTLE).unwrap_err(), Error::TimeIsUp);
        context.cancel_wait();
        context.cancel_wait();
        assert_eq!(context.wait_for(ALL, None, LITTLE).unwrap_err(), Error::Aborted);
        assert_eq!(context.wait(ALL, None).unwrap_err(), Error::Aborted);
        assert_eq!(context.wait_for(ALL, None, LITTLE).unwrap_err(), Error::TimeIsUp);
    }

    #[test]
    fn an_event_comes_first_and_who_would_not_wait_is_not_called_off() {
        let (context, _hear) = context();
        context.cancel_wait();
        bring(&context, 1);
        assert_eq!(context.wait(ALL, None).unwrap().domid(), 1);
        assert_eq!(context.check(ALL, None).unwrap_err(), Error::NotReady);
        assert_eq!(context.wait_for(ALL, None, NO_TIME).unwrap_err(), Error::TimeIsUp);
        // One that isn't wanted is no reason to go on.
        bring(&context, 2);
        assert_eq!(context.wait(0, None).unwrap_err(), Error::Aborted);
        assert_eq!(context.check(ALL, None).unwrap().domid(), 2);
    }

    /// In every round each thread comes back, with one event or one cancellation, whatever the order of things was.
    #[test]
    fn each_call_ends_one_of_many_waits_and_no_event_is_lost() {
        const EVENTS: u32 = 4;
        const CANCELS: usize = 4;
        let (context, _hear) = context();
        for round in 0..200 {
            let results: Vec<_> = std::thread::scope(|scope| {
                let wait = || context.wait(ALL, None).map(|event| event.domid());
                let waiters: Vec<_> = (0..EVENTS as usize + CANCELS).map(|_| scope.spawn(wait)).collect();
                if round % 2 == 0 {
                    while !context.state.lock().polling {
                        std::thread::yield_now();
                    }
                }
                let cancels = scope.spawn(|| (0..CANCELS).for_each(|_| context.cancel_wait()));
                (1..=EVENTS).for_each(|domid| bring(&context, domid));
                cancels.join().unwrap();
                waiters.into_iter().map(|waiter| waiter.join().unwrap()).collect()
            });
            let mut events: Vec<u32> = results.iter().filter_map(|result| result.as_ref().ok()).copied().collect();
            events.sort_unstable();
            assert!(events.into_iter().eq(1..=EVENTS));
            assert_eq!(results.iter().filter(|result| **result == Err(Error::Aborted)).count(), CANCELS);
        }
        assert_eq!(context.state.lock().inbox.cancels, 0);
    }

    #[test]
    fn of_waits_that_end_by_themselves_too_no_more_are_called_off_than_was_asked() {
        let (context, _hear) = context();
        for _ in 0..200 {
            let ended: usize = std::thread::scope(|scope| {
                let wait = || usize::from(context.wait_for(ALL, None, LITTLE).unwrap_err() == Error::Aborted);
                let waiters: Vec<_> = (0..4).map(|_| scope.spawn(wait)).collect();
                context.cancel_wait();
                context.cancel_wait();
                waiters.into_iter().map(|waiter| waiter.join().unwrap()).sum()
            });
            let left = std::mem::take(&mut context.state.lock().inbox.cancels);
            assert_eq!(ended + left as usize, 2);
        }
    }

    #[test]
    fn who_polls_for_others_can_be_called_off_and_leaves_them_served() {
        let (context, _hear) = context();
        let subscriber = context.add_subscriber().unwrap();
        std::thread::scope(|scope| {
            let polls = scope.spawn(|| context.wait(ALL, None));
            while !context.state.lock().polling {
                std::thread::yield_now();
            }
            let follows = scope.spawn(|| context.subscriber_wait(subscriber, ALL, None, None));
            context.cancel_wait();
            assert_eq!(polls.join().unwrap().unwrap_err(), Error::Aborted);
            // It has taken over, or will.
            context.subscriber_cancel_wait(subscriber).unwrap();
            assert_eq!(follows.join().unwrap().unwrap_err(), Error::Aborted);
        });
    }
}
