// SPDX-License-Identifier: LGPL-2.1-or-later
//! The context's own code under a scheduler that tries orders in which threads can take their steps (`crate::sync`).
//!
//! A run is one order: at every lock, every sleep and every giving way the scheduler says who goes on. Half of the runs are
//! random, half by PCT, which lets the threads run by priorities that change a few times. What is Xen's or the application's is
//! played; epoll, eventfds and the timer are the kernel's. In each scenario it is counted who gets what: no event is lost, none
//! comes twice, everybody comes back. Who sleeps for ever has more steps than a run may have. Callbacks look at whether a lock
//! is held.
//!
//! `liveness` goes through every state of a handful of rules and says that the rules suffice; here it is tried whether the code
//! keeps them. That these tests notice where it doesn't is shown by `trials/model`, which breaks it on purpose.
//!
//! `RUSTFLAGS="--cfg xlevent_shuttle" cargo test --lib context::model`, with in the environment
//!
//! | variable | what |
//! |---|---|
//! | `MODEL_RUNS` | how many runs of each scenario, half of them by each scheduler (default 1000) |
//! | `MODEL_SEED` | a number: the same runs once more. Each scenario prints the one that it has |
//! | `MODEL_SCHEDULE` | what a failure has printed: that run alone |

mod callbacks;
mod endings;
mod waits;

use std::cell::Cell;
use std::os::fd::AsFd;
use std::sync::Weak;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};
use shuttle::rand::Rng;
use shuttle::scheduler::{
    PctScheduler, RandomScheduler, ReplayScheduler, Scheduler, UncontrolledNondeterminismCheckScheduler,
};
use shuttle::thread::{JoinHandle, spawn};
use shuttle::{Config, FailurePersistence, MaxSteps, Runner};

use super::*;
use crate::evgen::domain_death::{Change, Report};
use crate::sync::{begin_time, locks_held, sleep_until, thread_local};
use crate::xen::log::NullLog;

const ALL: u64 = u64::MAX;
const SHUTDOWN: u64 = 1 << 1;
const DEATH: u64 = 1 << 2;

/// More than any run takes in which everybody comes back.
const STEPS: usize = 50_000;

/// How many changes of priority a run by PCT has.
const CHANGES: usize = 3;

fn setting<T: std::str::FromStr>(name: &str) -> Option<T> {
    std::env::var(name).ok()?.parse().ok()
}

/// Runs a scenario in many orders.
fn explore(name: &str, scenario: impl Fn() + Send + Sync + Clone + 'static) {
    let run = move |scheduler: Box<dyn Scheduler + Send>| {
        let mut config = Config::new();
        config.stack_size = 256 * 1024;
        config.max_steps = MaxSteps::FailAfter(STEPS);
        config.failure_persistence = FailurePersistence::Print;
        config.silence_warnings = true;
        let scenario = scenario.clone();
        Runner::new(scheduler, config).run(move || {
            begin_time();
            scenario();
            assert_eq!(locks_held(), 0, "a lock is still held at the end");
        })
    };
    if let Some(schedule) = setting::<String>("MODEL_SCHEDULE") {
        run(Box::new(ReplayScheduler::new_from_encoded(&schedule)));
        return;
    }
    let seed = setting("MODEL_SEED").unwrap_or_else(|| std::process::id().into());
    let each = setting("MODEL_RUNS").unwrap_or(1000usize).div_ceil(2);
    println!("model {name}: seed {seed}");
    let random = run(Box::new(RandomScheduler::new_from_seed(seed, each)));
    let pct = run(Box::new(PctScheduler::new_from_seed(seed, CHANGES, each)));
    // Some once more each, in the same order: what they do must depend on nothing else, or none could be repeated.
    let twice = RandomScheduler::new_from_seed(seed.wrapping_add(1), each.div_ceil(20));
    let twice = run(Box::new(UncontrolledNondeterminismCheckScheduler::new(twice)));
    println!("model {name}: {} runs", random + pct + twice);
}

/// A number below `end`, as the scheduler has it.
fn any(end: u32) -> u32 {
    shuttle::rand::thread_rng().gen_range(0..end)
}

fn event(domid: u32, change: Change) -> Event {
    Event::from_report(&Report { domid, uuid: [0; 16], user: 0, recipient: Recipient::OWN, change }).unwrap()
}

fn shutdown(domid: u32) -> Event {
    event(domid, Change::Shutdown(0))
}

thread_local! {
    /// How many predicates the running thread is in. It has the lock of retrieval then: nobody else may look meanwhile.
    static PREDICATES: Cell<usize> = const { Cell::new(0) };
}

/// In each callback, hook and call into libxenlight.
fn assert_unlocked() {
    let own = usize::from(PREDICATES.with(Cell::get) > 0);
    assert_eq!(locks_held(), own, "a lock is held while the application or libxenlight is called");
}

/// A libxenlight whose one descriptor is ready when it has events to make.
struct Played {
    context: std::sync::OnceLock<Weak<Context>>,
    ready: EventFd,
    /// The domid of the next event, and whether it is a death.
    to_make: std::sync::Mutex<VecDeque<(u32, bool)>>,
    calls: AtomicUsize,
}

impl Played {
    /// Something has happened, in the kernel: nobody is called.
    fn fire(&self, domid: u32, death: bool) {
        self.to_make.lock().unwrap().push_back((domid, death));
        self.ready.write(1).unwrap();
    }
}

impl Libxl for Played {
    fn occurred_fd(&self, _for_libxl: ForLibxl, _fd: i32, _events: i16, _revents: i16) {
        assert_unlocked();
        self.calls.fetch_add(1, Ordering::Relaxed);
        // None, if another thread was quicker.
        let Ok(count) = self.ready.read() else { return };
        for _ in 0..count {
            let (domid, death) = self.to_make.lock().unwrap().pop_front().unwrap();
            let change = if death { Change::Death } else { Change::Shutdown(0) };
            if let Some(context) = self.context.get().and_then(Weak::upgrade) {
                context.libxl_event(event(domid, change));
            }
        }
    }

    fn occurred_timeout(&self, _for_libxl: ForLibxl) {
        assert_unlocked();
        self.calls.fetch_add(1, Ordering::Relaxed);
    }
}

/// A context beside a libxenlight that waits for its descriptor.
fn beside() -> (Arc<Context>, Arc<Played>) {
    let (context, played) = silent();
    register(&context, &played);
    (context, played)
}

/// The same before it does.
fn silent() -> (Arc<Context>, Arc<Played>) {
    let ready = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK).unwrap();
    let played = Arc::new(Played {
        context: std::sync::OnceLock::new(),
        ready,
        to_make: std::sync::Mutex::default(),
        calls: AtomicUsize::new(0),
    });
    let context = Context::beside(played.clone(), Arc::new(NullLog)).unwrap();
    played.context.set(Arc::downgrade(&context)).unwrap();
    (context, played)
}

fn register(context: &Context, played: &Played) -> RegistrationId {
    context.libxl_fd_register(played.ready.as_fd().as_raw_fd(), libc::POLLIN, ForLibxl(1)).unwrap()
}

/// How an event comes to be.
#[derive(Clone, Copy)]
enum Way {
    /// Another thread has libxenlight make it.
    Queued,
    /// A descriptor is ready, and whoever finds that has libxenlight make it.
    Fired,
}

fn any_way() -> Way {
    if any(2) == 0 { Way::Queued } else { Way::Fired }
}

fn bring(context: &Context, played: &Played, domid: u32, death: bool) {
    match any_way() {
        Way::Queued if death => context.libxl_event(event(domid, Change::Death)),
        Way::Queued => context.libxl_event(shutdown(domid)),
        Way::Fired => played.fire(domid, death),
    }
}

fn is_readable(fd: BorrowedFd<'_>) -> bool {
    nix::poll::poll(&mut [PollFd::new(fd, PollFlags::POLLIN)], PollTimeout::ZERO).unwrap() == 1
}

/// The application's loop, until it has taken so many events of these types.
fn run_loop(context: &Context, mask: u64, events: usize) -> Vec<u32> {
    let mut taken = Vec::new();
    // It looks before it sleeps: what came before it had the descriptor may have been queued.
    loop {
        while let Ok(event) = context.check(mask, None) {
            taken.push(event.domid());
        }
        if taken.len() >= events {
            return taken;
        }
        let fd = context.fd().unwrap();
        sleep_until(|| is_readable(fd), None);
        context.occurred();
    }
}

/// All that threads have brought back, in order.
fn joined<T: Ord + 'static>(threads: impl IntoIterator<Item = JoinHandle<T>>) -> Vec<T> {
    let mut all: Vec<T> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    all.sort();
    all
}

/// Nothing keeps the context once its owner has let it go.
fn assert_dropped(context: Arc<Context>) {
    let context = {
        let weak = Arc::downgrade(&context);
        drop(context);
        weak
    };
    assert!(context.upgrade().is_none(), "something keeps the context");
}
