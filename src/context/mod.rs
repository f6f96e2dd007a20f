// SPDX-License-Identifier: LGPL-2.1-or-later
//! A context: what one `libxl_ctx` has enabled, what has happened, and who wants to know.
//!
//! - One lock guards all state (`State`). No callback into the application, no call into libxenlight and no wait ever
//!   happens while it is held. What has to be done outside goes through `outbox`, in order.
//! - One thread at a time changes what we are connected to (`arming`): that takes calls that wait for xenstored, and
//!   the application's hooks, so it can't be done under the lock. The gate makes it one step for everyone else.
//! - A panic leaves nothing raised: flags and the gate are lowered by guards, and `aftermath` takes up what was interrupted.
//! - `turn` takes in what has become ready, `retrieval` gives events out, `waiting` waits for them, `companion` keeps
//!   libxenlight's descriptors and timeouts, `subscribers` tell users of one context apart, `eject` looks at drives, `states`
//!   at suspended domains, `strangers` at those that xenstored doesn't know, `targeting` sets the watches for domains, `neighbours` are the other contexts of the process,
//!   `children` has the child processes, `operations` and their `tasks` are what is under way with devices, `suspend` makes a
//!   node for it, `stats` is what was counted, `theft` is what becomes of a context whose descriptors the application has closed.

mod aftermath;
mod arming;
mod children;
#[cfg(test)]
mod children_tests;
mod companion;
mod eject;
mod gate;
#[cfg(test)]
mod liveness;
#[cfg(all(test, xlevent_shuttle))]
mod model;
mod neighbours;
mod operations;
mod outbox;
#[cfg(test)]
mod panic_tests;
mod registry;
mod retrieval;
mod states;
mod stats;
mod strangers;
mod subscribers;
mod suspend;
mod targeting;
mod tasks;
#[cfg(test)]
pub(crate) mod tests;
mod theft;
#[cfg(test)]
mod theft_tests;
mod turn;
mod waiting;

use std::collections::VecDeque;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::sync::atomic::{self, AtomicI32, AtomicPtr, Ordering};
use std::sync::{Arc, Weak};

use crate::error::{Error, Result};
use crate::event::Event;
use crate::evgen::Recipient;
use crate::evgen::disk_eject::Drives;
use crate::evgen::domain_death::SuspendRule;
use crate::evgen::domains::Domains;
use crate::evgen::monitor::Key;
use crate::evgen::strangers::Strangers;
use crate::evgen::targets::{Subject, Targets};
use crate::forkguard;
use crate::guard::Steps;
use crate::reactor::{Monotonic, Reactor, TimerId, Timers, now};
use crate::stats::Counts;
use crate::sync::{AtomicBool, Condvar, Mutex, MutexGuard, ReentrantMutex, ThreadId};
use crate::xen::hypervisor::{self, Hypervisor};
use crate::xen::log::{Admitted, Line, LogSink, Repeats};
use crate::xen::store::{self, Store};

pub use children::Completion;
pub use companion::{ForLibxl, Libxl, RegistrationId, TimeoutId};
pub use operations::{MakeEvent, Mark, OperationId, Tell, Told};
pub use registry::{forget_all, insert, left_behind, lookup, remove};
pub use retrieval::Predicate;
use retrieval::Retrieval;
pub use subscribers::Key as SubscriberKey;
use subscribers::{Inbox, Subscribers};

/// What an application gives to be told of events by callbacks.
pub trait EventHooks: Send + Sync {
    /// Which event types come here rather than into the queue. Asked once, when the hooks are set.
    fn mask(&self) -> u64;

    /// An event, which becomes the application's.
    fn event_occurs(&self, event: Event);

    /// Events of this type (0: of any) may be missing from here on. False if the application can't be told.
    fn disaster(&self, event_type: u32, message: &str, errno: i32) -> bool;
}

/// What an application gives to wait for our descriptor in a loop of its own.
pub trait OsEventHooks: Send + Sync {
    /// Call us ([`Context::occurred`]) when the descriptor is readable. The error is the application's own number.
    fn fd_register(&self, fd: RawFd) -> std::result::Result<(), i32>;

    /// No longer.
    fn fd_deregister(&self, fd: RawFd);
}

/// One `libxl_ctx`.
pub struct Context {
    /// For the list of contexts.
    me: Weak<Context>,
    reactor: Reactor,
    log: Arc<dyn LogSink>,
    /// What was written lately.
    repeats: Repeats,
    /// Held while one thread retrieves, so that what a predicate looks at isn't given to another thread. Taken before
    /// `state`, and the only lock that is held while a predicate runs; a predicate may take it again.
    retrieval: ReentrantMutex<Retrieval>,
    state: Mutex<State>,
    /// The gate has opened.
    settled: Condvar,
    /// The thread that polls has had a turn: for those in `wait` that leave the polling to it.
    arrived: Condvar,
    /// The application has called libxenlight since the last turn: something may have happened that it knows of.
    stirred: AtomicBool,
    /// When the descriptors were last looked at.
    checked: theft::Checked,
    /// Copies for a forked child, which can't take the lock: another thread of the parent's may have held it.
    inherited: Inherited,
    /// This is a forked child, and the context is one that its parent's threads were using.
    left_behind: atomic::AtomicBool,
    libxl: Option<Arc<dyn Libxl>>,
}

/// What a parent's context leaves in a forked child.
#[derive(Debug)]
struct Inherited {
    store: AtomicPtr<u8>,
    hangup: AtomicI32,
    hypervisor: AtomicPtr<u8>,
    /// libxenstore has, or has had, a thread that reads for the connection.
    listened: AtomicBool,
}

/// What the lock guards.
struct State {
    /// Of who uses the context itself.
    inbox: Inbox,
    subscribers: Subscribers,
    outbox: VecDeque<outbox::Item>,
    event_hooks: Option<Arc<dyn EventHooks>>,
    /// What comes to these hooks: their own word, which isn't asked for with the lock held.
    event_mask: u64,
    os_hooks: Option<Arc<dyn OsEventHooks>>,
    /// The application has been asked to watch our descriptor. Changed by the gate's holder only.
    registered: bool,
    domains: Domains,
    /// The watches for domains that are set. Changed by the gate's holder, and forgotten with the connection.
    targets: Targets,
    drives: Drives,
    /// Domains that xenstored may not know.
    strangers: Strangers,
    /// When they are looked at next.
    stranger_look: Option<TimerId>,
    hypervisor: Option<Hypervisor>,
    store: Option<Store>,
    /// Generators are served: there is a watch, or one is being set again after xenstored went. Changed by the gate's
    /// holder only.
    armed: bool,
    /// Since when, and how often, xenstored has been looked for in vain.
    outage: Option<arming::Outage>,
    /// When it was found last.
    returned: Option<arming::Returned>,
    /// There was no memory to keep an event: the application is to be told. What takes memory by the number of events, or of
    /// domains whose ends are watched, is asked for so that it may be refused; the rest is small, but for what a generator of
    /// states keeps of each domain.
    starved: bool,
    /// When it is next seen to that the connection lives, while generators are served.
    pulse: Option<TimerId>,
    /// When the watches are gone on with.
    retarget: Option<TimerId>,
    /// Scans that failed one after another.
    failed_scans: u32,
    companion: companion::Sources,
    children: children::Children,
    operations: operations::Operations,
    /// What has happened so far. Whoever does what is counted, counts it.
    counts: Counts,
    timers: Timers<turn::Later>,
    resume_looks: states::ResumeLooks,
    /// [`turn::Later::Fresh`] is among the timers.
    fresh_due: bool,
    /// [`turn::Later::Flush`] is among the timers.
    flush_due: bool,
    /// [`turn::Later::Rescan`] is among the timers.
    rescan_due: bool,
    /// The thread that has entered the gate.
    gate: Option<ThreadId>,
    /// A thread in `wait` sleeps in the reactor.
    polling: bool,
    /// Its wake-up is raised.
    waiter_woken: bool,
    /// The application's wake-up is raised.
    application_woken: bool,
    /// The application's loop is in a call of ours that it will follow with a look at the queue.
    application_here: bool,
    closed: bool,
    #[cfg(test)]
    trap: Option<aftermath::Place>,
    /// Turns in a row in which nothing was ready but what nobody knows.
    stray_turns: u32,
    /// The application has closed our descriptors: nothing is served any more.
    dismantled: bool,
}

impl State {
    /// The application is told of an event that it won't get.
    #[cold]
    fn no_memory_for_event(&mut self, domid: u32) {
        let message = format!("no memory for an event of domain {domid}");
        self.outbox.push_back(outbox::Item::Disaster { message, errno: libc::ENOMEM });
    }

    /// There is nothing to generate: xenstored needn't be listened to.
    fn generates_nothing(&self) -> bool {
        self.domains.is_empty() && self.drives.is_empty() && self.operations.is_idle()
    }
}

impl Context {
    /// A context of our own, connected to the hypervisor and to xenstored.
    pub fn standalone(log: Arc<dyn LogSink>) -> Result<Arc<Self>> {
        let (hypervisor, lines) = Hypervisor::open();
        lines.iter().for_each(|line| log.write(line));
        let hypervisor = hypervisor?;
        let store = Store::open()?;
        Self::new(log, Some(hypervisor), Some(store), None)
    }

    /// A context beside one of libxenlight's. Nothing is connected until it has to be.
    pub fn beside(libxl: Arc<dyn Libxl>, log: Arc<dyn LogSink>) -> Result<Arc<Self>> {
        Self::new(log, None, None, Some(libxl))
    }

    fn new(
        log: Arc<dyn LogSink>,
        hypervisor: Option<Hypervisor>,
        store: Option<Store>,
        libxl: Option<Arc<dyn Libxl>>,
    ) -> Result<Arc<Self>> {
        let inherited = Inherited {
            store: AtomicPtr::new(store.as_ref().map_or(std::ptr::null_mut(), Store::raw)),
            hangup: AtomicI32::new(-1),
            hypervisor: AtomicPtr::new(hypervisor.as_ref().map_or(std::ptr::null_mut(), Hypervisor::raw)),
            listened: AtomicBool::new(false),
        };
        let state = State {
            inbox: Inbox::default(),
            subscribers: Subscribers::default(),
            outbox: VecDeque::new(),
            event_hooks: None,
            event_mask: 0,
            os_hooks: None,
            registered: false,
            domains: Domains::new(suspend_rule()),
            targets: Targets::default(),
            drives: Drives::default(),
            strangers: Strangers::default(),
            stranger_look: None,
            hypervisor,
            store,
            armed: false,
            outage: None,
            returned: None,
            pulse: None,
            retarget: None,
            starved: false,
            failed_scans: 0,
            companion: companion::Sources::default(),
            children: children::Children::default(),
            operations: operations::Operations::default(),
            counts: Counts::default(),
            timers: Timers::default(),
            resume_looks: states::ResumeLooks::default(),
            fresh_due: false,
            flush_due: false,
            rescan_due: false,
            gate: None,
            polling: false,
            waiter_woken: false,
            application_woken: false,
            application_here: false,
            closed: false,
            #[cfg(test)]
            trap: None,
            stray_turns: 0,
            dismantled: false,
        };
        let reactor = Reactor::new(turn::Token::Timer.into())?;
        Ok(Arc::new_cyclic(|me| Context {
            me: me.clone(),
            reactor,
            log,
            repeats: Repeats::new(),
            retrieval: ReentrantMutex::new(Retrieval::default()),
            state: Mutex::new(state),
            settled: Condvar::new(),
            arrived: Condvar::new(),
            stirred: AtomicBool::new(false),
            checked: theft::Checked::default(),
            inherited,
            left_behind: atomic::AtomicBool::new(false),
            libxl,
        }))
    }

    /// The one descriptor that everything hangs off: readable when [`Context::occurred`] has something to do.
    /// Made when it is first asked for, which may fail.
    pub fn fd(&self) -> Result<BorrowedFd<'_>> {
        match self.reactor.fd() {
            Some(fd) => Ok(fd),
            None => self.open_fd(&self.state.lock()),
        }
    }

    /// The same descriptor, if it has been asked for.
    pub fn known_fd(&self) -> Option<RawFd> {
        self.reactor.fd().map(|fd| fd.as_raw_fd())
    }

    fn open_fd(&self, state: &State) -> Result<BorrowedFd<'_>> {
        let fd = self.reactor.open_fd()?;
        // Events may have been queued before there was anything to raise.
        if state.application_woken {
            self.reactor.wake_application();
        }
        Ok(fd)
    }

    /// Whether there is a context of libxenlight's beside this one.
    pub fn is_beside(&self) -> bool {
        self.libxl.is_some()
    }

    /// Writes a line to the application's log, unless it repeats what has just been written. No lock of the caller's may be
    /// held.
    pub fn log(&self, line: &Line) {
        if self.log.is_silent() {
            return;
        }
        let Admitted { line, due } = self.repeats.admit(line, now());
        if let Some(line) = line {
            self.log.write(&line);
        }
        if let Some(due) = due {
            self.schedule(&mut self.state.lock(), due, turn::Later::HeldLines);
        }
    }

    /// What was held back of lines that have repeated, and whose minute is over; or all of it.
    fn write_held_lines(&self, all: bool) {
        self.repeats.held(now(), all).iter().for_each(|line| self.log.write(line));
    }

    /// Sends events whose type is in the hooks' mask to the application instead of into the queue. What is queued stays
    /// queued.
    pub fn set_event_hooks(&self, hooks: Option<Arc<dyn EventHooks>>) {
        let mask = hooks.as_ref().map_or(0, |hooks| hooks.mask());
        let mut state = self.state.lock();
        state.event_mask = mask;
        let before = std::mem::replace(&mut state.event_hooks, hooks);
        drop(state);
        // It is the application's code.
        drop(before);
    }

    /// Lets the application's loop wait for our descriptor. Only before there is anything to wait for.
    pub fn set_os_hooks(&self, hooks: Arc<dyn OsEventHooks>) -> Result<()> {
        let mut state = self.state.lock();
        if state.os_hooks.is_some() {
            return Err(Error::Invalid("hooks are registered already".to_owned()));
        }
        if state.armed || !state.companion.is_empty() || !state.children.is_idle() || state.gate.is_some() {
            return Err(Error::Invalid("hooks must be registered before anything is enabled".to_owned()));
        }
        state.os_hooks = Some(hooks);
        Ok(())
    }

    /// Generates DOMAIN_SHUTDOWN and DOMAIN_DEATH for a domain, beginning with its present state.
    pub fn enable_domain_death(&self, domid: u32, user: u64) -> Result<Key> {
        self.enable_domain_death_for(None, domid, user)
    }

    /// The same for a subscriber. No event of the generator's goes anywhere else.
    pub fn enable_domain_death_for(&self, subscriber: Option<SubscriberKey>, domid: u32, user: u64) -> Result<Key> {
        self.add_generator(subscriber, Subject::Domain(domid), |domains, recipient| {
            domains.add_death_for(recipient, domid, user)
        })
    }

    /// Adds a generator, whose events are served when this returns. On failure nothing is left behind.
    fn add_generator(
        &self,
        subscriber: Option<SubscriberKey>,
        subject: Subject,
        add: impl FnOnce(&mut Domains, Recipient) -> Key,
    ) -> Result<Key> {
        let mut state = self.state.lock();
        state.recipient(subscriber)?;
        let result = self.arm(&mut state, subject).and_then(|newly_armed| {
            // Arming waits at times. The subscriber may have gone.
            let recipient = state.recipient(subscriber)?;
            if let Some(domid) = subject.guest().filter(|domid| !state.domains.follows(*domid)) {
                state.strangers.note(domid);
            }
            self.look_at_new_generator(&mut state, newly_armed);
            // It was found there, if nowhere else.
            self.refuse_if_stolen()?;
            Ok(add(&mut state.domains, recipient))
        });
        if result.is_err() {
            self.disarm(&mut state);
        }
        // Also what a failure has left.
        if state.retarget_later() || result.is_err() {
            return self.flush_or_undo(state, result, |key| self.forget_generator(key));
        }
        result
    }

    /// Takes out a generator of domains that nobody has the name of.
    fn forget_generator(&self, key: Key) {
        let mut state = self.state.lock();
        if state.domains.remove_death(key) || state.domains.remove_state(key) {
            self.plan_resume_look(&mut state);
            self.domain_generator_removed(state);
        }
    }

    /// Ends what [`Context::enable_domain_death`] began. Events that are queued stay queued.
    pub fn disable_domain_death(&self, key: Key) -> Result<()> {
        let mut state = self.state.lock();
        if !state.domains.remove_death(key) {
            return Err(Error::Invalid(format!("no generator has the handle {:#x}", u64::from(key))));
        }
        self.domain_generator_removed(state);
        Ok(())
    }

    /// Sees to it that a new generator gets its first look. A new watch fires once by itself, and everything is looked at then.
    fn look_at_new_generator(&self, state: &mut State, newly_armed: bool) {
        if !newly_armed && !state.fresh_due {
            state.fresh_due = true;
            self.schedule(state, now(), turn::Later::Fresh);
        }
    }

    /// Ends with the lock what taking out a generator of domains began.
    fn domain_generator_removed(&self, mut state: MutexGuard<'_, State>) {
        state.retarget_later();
        self.disarm_and_flush(state);
    }

    /// Before libxenlight frees the context beside ours: no more events, threads in `wait` return.
    pub fn close(&self) {
        let mut state = self.state.lock();
        self.store_is_ours(&state);
        if !self.reactor.is_ours() {
            self.dismantle(&mut state);
        }
        state.closed = true;
        state.domains = Domains::default();
        self.plan_resume_look(&mut state);
        // Their watches end with the connection.
        state.drives = Drives::default();
        let hooks = state.event_hooks.take();
        self.arrived.notify_all();
        self.wake_waiter(&mut state);
        self.close_operations(&mut state);
        self.close_children(&mut state);
        let mut steps = Steps::default();
        steps.take(|| self.disarm_and_flush(state));
        // It is the application's code.
        steps.take(|| drop(hooks));
        steps.end();
    }

    /// After it has: the application's loop no longer needs our descriptor.
    pub fn finish(&self) {
        let mut state = self.state.lock();
        state.companion.clear();
        self.release_and_flush(state);
        self.write_held_lines(true);
    }

    /// In a forked child: closes the descriptors without a word to anyone. The context must not be used again, nor
    /// dropped.
    fn abandon(&self) {
        let take = |pointer: &AtomicPtr<u8>| pointer.swap(std::ptr::null_mut(), Ordering::Relaxed);
        // What is left open instead ends with an exec, or with this process. Where the parent had closed descriptors of ours,
        // these numbers may be the application's.
        let ours = self.reactor.is_ours();
        if ours && !forkguard::locks_may_be_taken() {
            // SAFETY: handles of the parent's, which this process leaves to it.
            unsafe {
                store::abandon(take(&self.inherited.store));
                hypervisor::abandon(take(&self.inherited.hypervisor));
            }
        }
        let hangup = self.inherited.hangup.swap(-1, Ordering::Relaxed);
        for fd in self.reactor.descriptors().into_iter().chain([hangup].into_iter().filter(|_| ours)) {
            // SAFETY: descriptors of our own that nothing in this process uses any more, or -1.
            unsafe { libc::close(fd) };
        }
    }

    /// Adds a deadline.
    fn schedule(&self, state: &mut State, deadline: Monotonic, what: turn::Later) -> TimerId {
        let (id, earliest) = state.timers.insert(deadline, what);
        if earliest {
            self.reactor.set_timer(deadline);
        }
        id
    }

    /// Delivers an event that was just made for a domain; `None` if there was no memory for it. Its serial, if it was
    /// queued.
    fn deliver_new(&self, state: &mut State, recipient: Recipient, event: Option<Event>, domid: u32) -> Option<u64> {
        match event {
            Some(event) => self.deliver_to(state, recipient, event),
            None => {
                state.no_memory_for_event(domid);
                None
            }
        }
    }

    /// Puts an event where who uses the context will find it, and wakes who may be waiting for it. Its serial, if it was
    /// queued.
    fn deliver(&self, state: &mut State, event: Event) -> Option<u64> {
        state.counts.events.count(event.event_type());
        match &state.event_hooks {
            Some(hooks) if state.event_mask & 1u64.checked_shl(event.event_type()).unwrap_or(0) != 0 => {
                let hooks = hooks.clone();
                if state.outbox.try_reserve(1).is_err() {
                    state.starved = true;
                    return None;
                }
                state.counts.events_called_back += 1;
                state.outbox.push_back(outbox::Item::Event(hooks, event));
                None
            }
            _ => match state.inbox.queue.push(event) {
                Some(serial) => {
                    self.wake_all(state);
                    Some(serial)
                }
                None => {
                    state.starved = true;
                    None
                }
            },
        }
    }

    /// An event has been queued.
    fn wake_all(&self, state: &mut State) {
        if !state.application_here && !state.application_woken {
            state.application_woken = true;
            self.reactor.wake_application();
        }
        self.wake_waiter(state);
    }

    /// There is something that a thread in `wait` may want. Those that follow the one that polls are told by it.
    fn wake_waiter(&self, state: &mut State) {
        if state.polling && !state.waiter_woken {
            state.waiter_woken = true;
            self.reactor.wake_waiter();
        }
    }

    /// Before the lock is given up for something that may close the connection: a child that is forked meanwhile would close
    /// it once more. What it leaves open instead ends with an exec, or with that process.
    fn forget_store_pointer(&self) {
        self.inherited.store.store(std::ptr::null_mut(), Ordering::Relaxed);
        self.inherited.hangup.store(-1, Ordering::Relaxed);
    }

    fn remember_connections(&self, state: &State) {
        let store = state.store.as_ref();
        self.inherited.store.store(store.map_or(std::ptr::null_mut(), Store::raw), Ordering::Relaxed);
        let probe = state.outage.as_ref().and_then(arming::Outage::probe);
        let idle = store.and_then(Store::idle).or(probe).map_or(-1, |idle| idle.fd().as_raw_fd());
        self.inherited.hangup.store(idle, Ordering::Relaxed);
        let hypervisor = state.hypervisor.as_ref().map_or(std::ptr::null_mut(), Hypervisor::raw);
        self.inherited.hypervisor.store(hypervisor, Ordering::Relaxed);
        // The thread stays as long as the connection, also when there is no watch any more.
        let listened = store.is_some() && (state.armed || self.inherited.listened.load(Ordering::Relaxed));
        self.inherited.listened.store(listened, Ordering::Relaxed);
    }
}

/// `XLEVENT_REPORT_SUSPEND=1` brings libxl's old rule back, for who relies on it.
fn suspend_rule() -> SuspendRule {
    match std::env::var_os("XLEVENT_REPORT_SUSPEND") {
        Some(value) if value == "1" => SuspendRule::Report,
        _ => SuspendRule::Hide,
    }
}
