// SPDX-License-Identifier: LGPL-2.1-or-later
//! One look at the host for many contexts of a process.
//!
//! A process may have a context for each domain, and each of them is told of every domain that ends. The first of them to
//! have its turn *leads*: it takes off its neighbours' queues what xenstored has told them so far, looks once at the domains
//! of all who are to look at theirs, and takes in for each of them what that look has found.
//!
//! - Nobody waits for another context's lock: a neighbour whose lock is held just now is left alone, and looks for itself.
//!   A leader holds the locks of those that it serves from before their firings are taken off until they are served. So
//!   what had happened before a firing is seen by the look that follows it, and no generator is shown a look that is older
//!   than itself.
//! - A leader calls no application but its own. It puts a neighbour's events where they belong, and wakes who waits for
//!   them; whatever else there is to do for a neighbour (callbacks, log lines, drives, a failed look to be repeated) stays in
//!   the neighbour's outbox or among its timers, for a turn of its own ([`Later::Flush`]).
//! - A neighbour for which there is nothing new isn't woken.
//! - The list of contexts is held by leaders as long as they lead, shared, and changed by who comes and goes: a context
//!   that has left is in no leader's hands any more, so that freeing it waits for one look at most. Leaders don't wait for
//!   the list either. It is only held inside [`undisturbed`], so that a forked child finds it free.
//!
//! Hypercalls are counted by the leader, everything else by the context that it is for.

use std::cell::OnceCell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, TryLockError, Weak};

use nix::errno::Errno;

use super::outbox::Item;
use super::turn::Later;
use super::{Context, State};
use crate::evgen::domains::{self, Domains};
use crate::evgen::snapshot::Snapshot;
use crate::forkguard::undisturbed;
use crate::reactor::now;
use crate::sync::MutexGuard;
use crate::sync::std_like::RwLock;

/// The contexts that are armed. std's lock, as for all that a forked child may find.
static ARMED: RwLock<Vec<Weak<Context>>> = RwLock::new(Vec::new());

/// How many they are, for who is alone and needs no more of them than that.
static COUNT: AtomicUsize = AtomicUsize::new(0);

/// A leader visits at most so many neighbours, those that come after it in the list, so that its turn doesn't become long.
const AT_ONCE: usize = 128;

/// And it goes no further after so many in a row that it finds nothing to do for. xenstored tells its connections one after
/// the other, in the order in which they were opened, much as they stand in the list: where a loop, or a thread each, comes
/// to the first of them before the others have been told, those that have been are next to it, and going to see all of the
/// rest each time would cost more than is saved.
const IN_VAIN: usize = 16;

/// A context has been armed.
pub(super) fn enter(context: &Weak<Context>) {
    change(|armed| armed.push(context.clone()));
}

/// It no longer is. Waits for those who lead just now.
pub(super) fn leave(context: &Weak<Context>) {
    change(|armed| armed.retain(|other| !other.ptr_eq(context)));
}

fn change(change: impl FnOnce(&mut Vec<Weak<Context>>)) {
    undisturbed(|| {
        let mut armed = ARMED.write().unwrap_or_else(PoisonError::into_inner);
        // Those that were dropped without a word.
        armed.retain(|context| context.strong_count() > 0);
        change(&mut armed);
        COUNT.store(armed.len(), Ordering::Relaxed);
    });
}

/// How many contexts are armed, about.
pub(super) fn count() -> usize {
    COUNT.load(Ordering::Relaxed)
}

/// In a forked child: the parent's contexts are nobody's neighbours here. Forks come when nobody holds the list.
pub(super) fn forget_all() {
    let mut armed = match ARMED.try_write() {
        Ok(armed) => armed,
        // A panic does no harm to it.
        Err(TryLockError::Poisoned(armed)) => armed.into_inner(),
        Err(TryLockError::WouldBlock) => return,
    };
    armed.clear();
    COUNT.store(0, Ordering::Relaxed);
}

/// A neighbour that is to look at its domains, with its lock.
struct Served<'context> {
    context: &'context Context,
    state: MutexGuard<'context, State>,
    /// It has been shown what there was to see.
    done: bool,
}

impl Drop for Served<'_> {
    fn drop(&mut self) {
        if !self.done {
            // A panic has kept it from that, and its firings have been taken.
            self.context.look_at_everything(&mut self.state);
        }
    }
}

impl Context {
    /// Looks at all domains, and serves the neighbours that have to do the same.
    pub(super) fn scan_with_neighbours(&self, state: &mut State) {
        if count() < 2 || state.domains.is_empty() {
            return self.scan(state, true);
        }
        undisturbed(|| match ARMED.try_read() {
            Ok(armed) => self.lead(state, &armed),
            Err(TryLockError::Poisoned(armed)) => self.lead(state, &armed.into_inner()),
            Err(TryLockError::WouldBlock) => self.scan(state, true),
        });
    }

    fn lead(&self, state: &mut State, armed: &[Weak<Context>]) {
        // Each is filled when it is come to: what was found before it says whether to go on.
        let visited: Vec<OnceCell<Arc<Context>>> = self.nearby(armed).map(|_| OnceCell::new()).collect();
        let mut served: Vec<Served> = Vec::with_capacity(visited.len());
        let mut in_vain = 0;
        for (context, visited) in self.nearby(armed).zip(&visited) {
            let Some(context) = context.upgrade() else { continue };
            match visited.get_or_init(|| context).to_be_served() {
                Some(neighbour) => {
                    served.push(neighbour);
                    in_vain = 0;
                }
                None if in_vain + 1 == IN_VAIN => break,
                None => in_vain += 1,
            }
        }
        if served.is_empty() {
            self.scan(state, true);
        } else {
            let mut found = look(state, &served);
            self.scan_found(state, &mut found);
            for Served { context, state, done } in &mut served {
                context.scan_found(state, &mut found);
                context.leave_the_rest(state);
                *done = true;
            }
        }
        drop(served);
        give_back(state, visited.into_iter().filter_map(OnceCell::into_inner));
    }

    /// Those that come after this one in the list, all the way round.
    fn nearby<'list>(&self, armed: &'list [Weak<Context>]) -> impl Iterator<Item = &'list Weak<Context>> {
        let own = armed.iter().position(|context| context.ptr_eq(&self.me));
        let (before, from_own) = armed.split_at(own.unwrap_or(0));
        let after = &from_own[usize::from(own.is_some())..];
        after.iter().chain(before).take(AT_ONCE)
    }

    /// Takes in what xenstored has told a neighbour of the caller's. The neighbour with its lock, if it now has to look at its
    /// domains.
    fn to_be_served(&self) -> Option<Served<'_>> {
        let state = self.state.try_lock()?;
        // Who watches single domains is only told of its own.
        if !state.targets.tell_of_all() {
            return None;
        }
        let mut neighbour = Served { context: self, state, done: false };
        let asked = self.take_due_answers(&mut neighbour.state);
        let looks = self.drain_watches(&mut neighbour.state);
        if looks.all || looks.asked || asked {
            return Some(neighbour);
        }
        self.leave_the_rest(&mut neighbour.state);
        neighbour.done = true;
        None
    }

    /// Has this context take a turn of its own, if it was left something to do.
    pub(super) fn leave_the_rest(&self, state: &mut State) {
        let left = !state.outbox.is_empty() || state.starved || state.strangers.has_questions();
        if left && !state.flush_due {
            state.flush_due = true;
            self.schedule(state, now(), Later::Flush);
        }
    }
}

/// Ends the leader's hold on its neighbours.
fn give_back(state: &mut State, neighbours: impl IntoIterator<Item = Arc<Context>>) {
    for context in neighbours {
        // Its owner has dropped it meanwhile. To close what it has open takes calls that wait.
        if let Some(context) = Arc::into_inner(context) {
            state.outbox.push_back(Item::Drop(Box::new(context)));
        }
    }
}

/// Looks at the domains of the leader and of all whom it serves.
fn look(state: &mut State, served: &[Served]) -> Result<Snapshot, Errno> {
    let neighbours = served.iter().map(|neighbour| &neighbour.state.domains);
    let whose: Vec<&Domains> = std::iter::once(&state.domains).chain(neighbours).collect();
    // There is one as soon as there is a generator (`arm`).
    let hypervisor = state.hypervisor.as_mut().ok_or(Errno::EBADF)?;
    let found = domains::look(hypervisor, &whose);
    state.outbox.extend(hypervisor.take_log().into_iter().map(Item::Log));
    found
}

#[cfg(test)]
mod tests {
    use nix::poll::{PollFd, PollFlags, PollTimeout};
    use parking_lot::Mutex;

    use super::*;
    use crate::context::{EventHooks, ForLibxl, Libxl};
    use crate::event::Event;
    use crate::evgen::monitor::tests::Table;
    use crate::evgen::targets::Target;
    use crate::xen::log::{Level, Line, LogSink, NullLog};

    /// A libxenlight that nobody has to call.
    struct Idle;

    impl Libxl for Idle {
        fn occurred_fd(&self, _for_libxl: ForLibxl, _fd: i32, _events: i16, _revents: i16) {}

        fn occurred_timeout(&self, _for_libxl: ForLibxl) {}
    }

    /// Notes what an application is told.
    #[derive(Default)]
    struct Notes(Mutex<Vec<String>>);

    impl LogSink for Notes {
        fn write(&self, line: &Line) {
            self.0.lock().push(line.text.clone());
        }
    }

    impl EventHooks for Notes {
        fn mask(&self) -> u64 {
            u64::MAX
        }

        fn event_occurs(&self, event: Event) {
            self.0.lock().push(format!("event of {}", event.domid()));
        }

        fn disaster(&self, _event_type: u32, _message: &str, errno: i32) -> bool {
            self.0.lock().push(format!("disaster {errno}"));
            true
        }
    }

    fn context(log: Arc<dyn LogSink>) -> Arc<Context> {
        Context::beside(Arc::new(Idle), log).unwrap()
    }

    fn readable(context: &Context) -> bool {
        let mut fds = [PollFd::new(context.fd().unwrap(), PollFlags::POLLIN)];
        nix::poll::poll(&mut fds, PollTimeout::ZERO).unwrap() == 1
    }

    /// As a leader does that has looked at a host without domains, or has failed to.
    fn serve(context: &Context, found: Result<(), Errno>) {
        let mut state = context.state.lock();
        let mut found = found.and_then(|()| domains::look(&mut Table::of([]), &[&state.domains]));
        context.scan_found(&mut state, &mut found);
        context.leave_the_rest(&mut state);
    }

    fn watch(context: &Context, domid: u32) {
        context.state.lock().domains.add_death(domid, 0);
    }

    #[test]
    fn callbacks_and_log_lines_wait_for_a_turn_of_the_context_itself() {
        let notes = Arc::new(Notes::default());
        let context = context(notes.clone());
        context.set_event_hooks(Some(notes.clone()));
        watch(&context, 7);
        assert!(!readable(&context));
        serve(&context, Ok(()));
        // Served once more before it has had its turn.
        watch(&context, 8);
        serve(&context, Ok(()));
        assert_eq!(*notes.0.lock(), Vec::<String>::new());
        assert!(readable(&context), "nobody tells it to take a turn");
        context.occurred();
        assert_eq!(*notes.0.lock(), ["event of 7", "event of 8"]);
        assert!(!readable(&context));
        serve(&context, Ok(()));
        assert!(!readable(&context), "it is woken for nothing");
        notes.0.lock().clear();
        watch(&context, 9);
        serve(&context, Err(Errno::EPERM));
        assert_eq!(*notes.0.lock(), Vec::<String>::new());
        assert!(readable(&context));
        context.occurred();
        assert!(notes.0.lock().contains(&format!("disaster {}", libc::EPERM)));
        let stats = context.stats();
        assert_eq!((stats.counts.scans, stats.counts.failed_scans, stats.asked.hypercalls), (4, 1, 0));
        context.set_event_hooks(None);
    }

    #[test]
    fn what_a_look_has_left_for_a_callback_comes_before_disable_returns_and_nothing_after() {
        let notes = Arc::new(Notes::default());
        let context = context(notes.clone());
        context.set_event_hooks(Some(notes.clone()));
        let key = context.state.lock().domains.add_death(7, 0);
        serve(&context, Ok(()));
        assert_eq!(*notes.0.lock(), Vec::<String>::new());
        context.disable_domain_death(key).unwrap();
        assert_eq!(*notes.0.lock(), ["event of 7"]);
        serve(&context, Ok(()));
        context.occurred();
        assert_eq!(*notes.0.lock(), ["event of 7"]);
        context.set_event_hooks(None);
    }

    #[test]
    fn a_neighbour_that_has_nothing_to_look_at_is_left_what_else_there_is() {
        let notes = Arc::new(Notes::default());
        let context = context(notes.clone());
        let mut state = context.state.lock();
        state.targets.insert(Target::All);
        state.outbox.push_back(Item::Log(Line::new(Level::Info, "as by a drive's firing")));
        assert!(context.to_be_served().is_none(), "its lock is held");
        drop(state);
        assert!(!readable(&context));
        assert!(context.to_be_served().is_none(), "nothing was fired");
        assert!(readable(&context), "nobody tells it to take a turn");
        context.occurred();
        assert_eq!(*notes.0.lock(), ["as by a drive's firing"]);
        assert!(context.to_be_served().is_none() && !readable(&context));
    }

    #[test]
    fn an_event_from_a_neighbours_look_ends_a_wait() {
        let context = context(Arc::new(NullLog));
        watch(&context, 7);
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| context.wait(u64::MAX, None).unwrap().domid());
            while !context.state.lock().polling {
                std::thread::yield_now();
            }
            serve(&context, Ok(()));
            assert_eq!(waiter.join().unwrap(), 7);
        });
    }

    #[test]
    fn a_neighbour_that_a_panic_keeps_from_its_look_looks_for_itself() {
        let context = context(Arc::new(NullLog));
        watch(&context, 7);
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _served = Served { context: &context, state: context.state.lock(), done: false };
            panic!("on purpose");
        }));
        assert!(panicked.is_err());
        let mut state = context.state.lock();
        assert!(state.rescan_due);
        assert_eq!(state.timers.pop_due(std::time::Duration::MAX), Some(Later::Rescan));
    }

    #[test]
    fn those_nearby_are_the_next_in_the_list_all_the_way_round() {
        let contexts: Vec<Arc<Context>> = (0..AT_ONCE + 3).map(|_| context(Arc::new(NullLog))).collect();
        let armed: Vec<Weak<Context>> = contexts.iter().map(Arc::downgrade).collect();
        let nearby = |armed: &[Weak<Context>], own: usize| -> Vec<usize> {
            let place = |near: &Weak<Context>| contexts.iter().position(|context| context.me.ptr_eq(near)).unwrap();
            contexts[own].nearby(armed).map(place).collect()
        };
        assert_eq!(nearby(&armed, 0), (1..=AT_ONCE).collect::<Vec<_>>());
        assert_eq!(nearby(&armed[..4], 2), [3, 0, 1]);
        assert_eq!(nearby(&armed[..4], 3), [0, 1, 2]);
        assert_eq!(nearby(&armed[..1], 0), Vec::<usize>::new());
        // One that isn't in the list.
        assert_eq!(nearby(&armed[..2], 5), [0, 1]);
    }

    #[test]
    fn who_leaves_is_in_the_list_no_more() {
        let listed = |context: &Arc<Context>| {
            let armed = ARMED.read().unwrap();
            armed.iter().filter(|other| other.ptr_eq(&context.me)).count()
        };
        let contexts = [context(Arc::new(NullLog)), context(Arc::new(NullLog))];
        contexts.iter().for_each(|context| enter(&context.me));
        leave(&contexts[0].me);
        leave(&contexts[0].me);
        assert_eq!((listed(&contexts[0]), listed(&contexts[1])), (0, 1));
        // Dropped without a word: the next who comes or goes takes it out.
        let [_, dropped] = contexts;
        let dropped_one = dropped.me.clone();
        drop(dropped);
        let other = context(Arc::new(NullLog));
        enter(&other.me);
        assert!(!ARMED.read().unwrap().iter().any(|context| context.ptr_eq(&dropped_one)));
        leave(&other.me);
    }

    #[test]
    fn a_neighbour_that_its_owner_has_dropped_is_closed_without_the_lock() {
        let leader = context(Arc::new(NullLog));
        let log = Arc::new(Notes::default());
        let (kept, dropped) = (context(log.clone()), context(log.clone()));
        let mut state = leader.state.lock();
        give_back(&mut state, vec![kept.clone(), dropped]);
        assert_eq!(Arc::strong_count(&log), 3);
        assert_eq!(state.outbox.len(), 1);
        leader.flush(state);
        assert_eq!(Arc::strong_count(&log), 2);
        drop(kept);
        assert_eq!(Arc::strong_count(&log), 1);
    }
}
