// SPDX-License-Identifier: LGPL-2.1-or-later
//! A program that calls the library through its C interface as an input says, and keeps books of what it has asked for.
//!
//! What ends the process, beside what the sanitizer finds: a panic, also one that the library has kept from crossing its
//! boundary; an event that nobody has asked for, or that is another's; a second death; more ejections than there were; a
//! death that was not told when all had come to rest; a program that was started without a script; an operation whose end is
//! told twice or not at all; a context that leaves a connection behind.

use std::cell::RefCell;
use std::ffi::{CString, c_char, c_int, c_short, c_void};
use std::ptr;

use arbitrary::Arbitrary;
use libc::{pollfd, timeval};
use xlevent::abi::*;
use xlevent::capi::ao::*;
use xlevent::capi::asyncop::{libxl_asyncop_how, libxl_asyncop_how_u};
use xlevent::capi::childproc::*;
use xlevent::capi::ctx::*;
use xlevent::capi::event::*;
use xlevent::capi::evgen::*;
use xlevent::capi::loops::*;
use xlevent::capi::osevent::*;
use xlevent::capi::pollset::*;
use xlevent::capi::state::*;
use xlevent::capi::stats::*;
use xlevent::capi::suspend::*;
use xlevent::capi::wait::*;

use crate::host;
use crate::input::{Domid, HDC, Handle, Incident, Vdev, Which, befall};

/// A call, or something that happens between calls.
#[derive(Debug, Clone, Arbitrary)]
pub enum Step {
    Open { pollset: bool },
    Close(Which),
    Enable { ctx: Which, subscriber: Option<Handle>, what: Wanted, nowhere: bool },
    Disable { ctx: Which, generator: Handle, kind: Kind },
    Subscribe(Which),
    Unsubscribe(Which, Handle),
    Check { ctx: Which, subscriber: Option<Handle>, mask: Mask, predicate: Option<Answers> },
    Wait { ctx: Which, subscriber: Option<Handle>, mask: Mask, predicate: Option<Answers> },
    Cancel(Which, Option<Handle>),
    Callbacks { ctx: Which, mask: Mask },
    Poll { ctx: Which, room: i8, lie: Option<c_short>, set: bool },
    Occurred { ctx: Which, handle: Handle, fd: c_int, revents: c_short, timeout: bool },
    Dispatch { ctx: Which, kinds: Vec<u8> },
    Stats { ctx: Which, size: u16 },
    Remove { ctx: Which, domid: Domid, devices: Vec<Device>, force: u8, event: bool },
    Connect { ctx: Which, domid: Domid, device: Device },
    Abort(Which, Handle),
    SuspendNode(Which, Domid, bool),
    Children { ctx: Which, owner: u8, hooks: bool },
    Reaped { ctx: Which, pid: i32, status: i32, signal: bool },
    Host(Incident),
}

/// What an event is wanted of.
#[derive(Debug, Clone, Arbitrary)]
pub enum Wanted {
    Death(Domid),
    State(Domid, Mask),
    Eject(Domid, Vdev),
}

#[derive(Debug, Clone, Copy, Arbitrary, PartialEq, Eq)]
pub enum Kind {
    Death,
    State,
    Eject,
}

/// A mask of types of events.
#[derive(Debug, Clone, Copy, Arbitrary)]
pub enum Mask {
    All,
    States,
    None,
    Bits(u64),
}

impl Mask {
    fn bits(self) -> u64 {
        match self {
            Mask::All => u64::MAX,
            Mask::States => 1 << 1 | 1 << 2 | 1 << 40 | 1 << 41 | 1 << 42,
            Mask::None => 0,
            Mask::Bits(bits) => bits,
        }
    }
}

/// What a predicate says, event by event, and whether it looks for events itself.
#[derive(Debug, Clone, Copy, Arbitrary)]
pub struct Answers {
    yes: u8,
    looks: bool,
}

#[derive(Debug, Clone, Copy, Arbitrary)]
pub struct Device {
    kind: u8,
    usual: bool,
    devid: u32,
}

impl Device {
    fn named(self) -> xlevent_device {
        // A disk, mostly.
        let kind = if self.usual { 2 } else { self.kind.into() };
        xlevent_device { kind, devid: if self.usual { HDC } else { self.devid } }
    }
}

const CONTEXTS_MAX: usize = 3;
/// More are no news.
const GENERATORS_MAX: usize = 64;
/// Nothing is told in a time that an input waits for.
const AT_ONCE: c_int = 0;

/// What was asked for; the value that comes with its events is its place in the books.
struct Generator {
    ctx: usize,
    subscriber: Option<usize>,
    domid: u32,
    kind: Kind,
    states: u64,
    /// The node of a drive.
    node: Vec<u8>,
    handle: usize,
    live: bool,
    deaths: usize,
    ejections: usize,
}

/// An operation; its value or argument is its place in the books.
struct Operation {
    ctx: usize,
    domid: u32,
    by_event: bool,
    told: usize,
}

struct Opened {
    /// In the order of opening, also of those before.
    serial: usize,
    ctx: *mut libxl_ctx,
    subscribers: Vec<Subscriber>,
    /// NULL without one.
    set: *mut xlevent_pollset,
    /// What the callbacks are given.
    source: Box<Source>,
    /// They are to stay valid as long as the context.
    #[expect(clippy::vec_box, reason = "the library keeps their addresses")]
    hooks: Vec<Box<libxl_event_hooks>>,
}

/// Where an event comes from.
#[derive(Clone, Copy)]
struct Source {
    ctx: *mut libxl_ctx,
    serial: usize,
}

struct Subscriber {
    handle: usize,
    live: bool,
}

#[derive(Default)]
struct Books {
    generators: Vec<Generator>,
    operations: Vec<Operation>,
}

/// Operations are told apart from generators by this.
const OPERATION: u64 = 1 << 32;

thread_local! {
    /// Callbacks come here too, without the application's leave.
    static BOOKS: RefCell<Books> = RefCell::default();
}

fn books<R>(work: impl FnOnce(&mut Books) -> R) -> R {
    BOOKS.with_borrow_mut(work)
}

/// The program.
pub struct Application {
    contexts: Vec<Opened>,
    opened: usize,
    /// The host has said what isn't so, or was away: what was missed is no fault.
    misled: bool,
}

impl Application {
    /// On a new host.
    pub fn begin(features: bool) -> Application {
        host::begin(features);
        books(|books| *books = Books::default());
        Application { contexts: Vec::new(), opened: 0, misled: false }
    }

    /// Does all of this, and comes to its end.
    pub fn run(mut self, steps: Vec<Step>) {
        for step in steps {
            self.step(step);
        }
        self.end();
    }

    /// Does one thing.
    pub fn step(&mut self, step: Step) {
        match step {
            Step::Open { pollset } => self.open(pollset),
            Step::Close(which) => {
                if let Some(index) = which.index(self.contexts.len()) {
                    self.close(index);
                }
            }
            Step::Host(incident) => {
                self.misled |= matches!(incident, Incident::Away(_) | Incident::Fail { .. });
                self.misled |= befall(incident);
            }
            Step::Enable { ctx, subscriber, what, nowhere } => self.enable(ctx, subscriber, what, nowhere),
            Step::Disable { ctx, generator, kind } => self.disable(ctx, generator, kind),
            Step::Subscribe(which) => {
                let Some(opened) = self.opened(which) else { return };
                let mut handle = ptr::null_mut();
                // SAFETY: a context and a place for the handle.
                if unsafe { xlevent_subscriber_new(opened.ctx, &mut handle) } == 0 {
                    opened.subscribers.push(Subscriber { handle: handle.addr(), live: true });
                }
            }
            Step::Unsubscribe(which, handle) => {
                let Some(opened) = self.opened(which) else { return };
                let (raw, index) = subscriber(opened, handle);
                // SAFETY: a context; a handle may be anything.
                let rc = unsafe { xlevent_subscriber_free(opened.ctx, raw) };
                if let Some(index) = index {
                    assert_eq!(rc == 0, std::mem::replace(&mut opened.subscribers[index].live, false));
                    let serial = opened.serial;
                    books(|books| {
                        let its = |it: &&mut Generator| it.ctx == serial && it.subscriber == Some(index);
                        books.generators.iter_mut().filter(its).for_each(|generator| generator.live = false);
                    });
                }
            }
            Step::Check { ctx, subscriber, mask, predicate } => {
                self.retrieve(ctx, subscriber, mask.bits(), predicate, false);
            }
            Step::Wait { ctx, subscriber, mask, predicate } => {
                self.retrieve(ctx, subscriber, mask.bits(), predicate, true);
            }
            Step::Cancel(which, handle) => {
                let Some(opened) = self.opened(which) else { return };
                // SAFETY: a context; a handle may be anything.
                unsafe {
                    match handle {
                        None => xlevent_wait_cancel(opened.ctx),
                        Some(handle) => xlevent_subscriber_wait_cancel(opened.ctx, subscriber(opened, handle).0),
                    }
                };
            }
            Step::Callbacks { ctx, mask } => self.call_back(ctx, mask.bits()),
            Step::Poll { ctx, room, lie, set } => self.poll(ctx, room, lie, set),
            Step::Occurred { ctx, handle, fd, revents, timeout } => {
                let Some(opened) = self.opened(ctx) else { return };
                let for_libxl = match handle {
                    Handle::Bits(bits) => bits as *mut c_void,
                    _ => ptr::null_mut(),
                };
                // SAFETY: what is no registration is looked up and not found.
                unsafe {
                    match timeout {
                        true => libxl_osevent_occurred_timeout(opened.ctx, for_libxl),
                        false => libxl_osevent_occurred_fd(opened.ctx, for_libxl, fd, libc::POLLIN, revents),
                    }
                }
            }
            Step::Dispatch { ctx, kinds } => {
                let Some(opened) = self.opened(ctx) else { return };
                let mut source = Source { ctx: opened.ctx, serial: opened.serial };
                let handler = |kind: u8| xlevent_handler { r#type: kind.into(), handle: Some(dispatched) };
                let mut table: Vec<xlevent_handler> = kinds.into_iter().filter(|kind| *kind > 0).map(handler).collect();
                table.truncate(8);
                table.push(xlevent_handler { r#type: XLEVENT_ALL_OTHERS, handle: Some(dispatched) });
                // SAFETY: a table that ends as it should, and an argument that outlives the call.
                unsafe { xlevent_dispatch(opened.ctx, table.as_ptr(), (&raw mut source).cast()) };
            }
            Step::Stats { ctx, size } => {
                let Some(opened) = self.opened(ctx) else { return };
                let mut room = vec![0u64; usize::from(size) / 8 + 1];
                // SAFETY: at least so many bytes.
                unsafe { xlevent_stats(opened.ctx, room.as_mut_ptr().cast(), size.into()) };
            }
            Step::Remove { ctx, domid: Domid(domid), devices, force, event } => {
                let devices: Vec<xlevent_device> = devices.into_iter().take(4).map(Device::named).collect();
                self.operate(ctx, domid, event, |ctx, how| {
                    // SAFETY: as many devices as are said, and how to be told.
                    unsafe {
                        match &devices[..] {
                            [device] => xlevent_device_remove(ctx, domid, device.kind, device.devid, force.into(), how),
                            devices => {
                                xlevent_devices_remove(ctx, domid, devices.as_ptr(), devices.len(), force.into(), how)
                            }
                        }
                    }
                });
            }
            Step::Connect { ctx, domid: Domid(domid), device } => {
                let device = device.named();
                self.operate(ctx, domid, false, |ctx, how| {
                    // SAFETY: how to be told.
                    unsafe { xlevent_device_wait_ready(ctx, domid, device.kind, device.devid, how) }
                });
            }
            Step::Abort(which, handle) => {
                let Some(opened) = self.opened(which) else { return };
                let place = match handle {
                    Handle::Given(which) | Handle::AlsoGiven(which) => {
                        which.index(books(|books| books.operations.len())).unwrap_or(0) as u64 | OPERATION
                    }
                    Handle::Null => {
                        // SAFETY: nobody waits for one.
                        unsafe { xlevent_ao_abort(opened.ctx, ptr::null()) };
                        return;
                    }
                    Handle::Bits(bits) => bits,
                };
                let by_event = libxl_asyncop_how { callback: None, u: libxl_asyncop_how_u { for_event: place } };
                let by_callback = libxl_asyncop_how { callback: Some(told), u: by_event.u };
                // SAFETY: whole.
                unsafe {
                    xlevent_ao_abort(opened.ctx, &by_event);
                    xlevent_ao_abort(opened.ctx, &by_callback);
                }
            }
            Step::SuspendNode(which, Domid(domid), xend) => {
                let Some(opened) = self.opened(which) else { return };
                // SAFETY: a context.
                unsafe { xlevent_suspend_node_create(opened.ctx, domid, xend.into()) };
            }
            Step::Children { ctx, owner, hooks } => {
                const fn of(chldowner: libxl_sigchld_owner) -> libxl_childproc_hooks {
                    libxl_childproc_hooks { chldowner, fork_replacement: None, reaped_callback: None }
                }
                static OWNERS: [libxl_childproc_hooks; 5] = [of(0), of(1), of(2), of(3), of(4)];
                let Some(opened) = self.opened(ctx) else { return };
                let chosen = if hooks { &OWNERS[usize::from(owner) % OWNERS.len()] } else { ptr::null() };
                // SAFETY: NULL, or lives for ever.
                unsafe { libxl_childproc_setmode(opened.ctx, chosen, ptr::null_mut()) };
            }
            Step::Reaped { ctx, pid, status, signal } => {
                let Some(opened) = self.opened(ctx) else { return };
                // SAFETY: a context.
                unsafe {
                    match signal {
                        true => libxl_childproc_sigchld_occurred(opened.ctx),
                        // No process of this number is asked for anything.
                        false => drop(libxl_childproc_reaped(opened.ctx, pid, status)),
                    }
                }
            }
        }
    }
}

impl Application {
    fn opened(&mut self, which: Which) -> Option<&mut Opened> {
        let index = which.index(self.contexts.len())?;
        self.contexts.get_mut(index)
    }

    fn open(&mut self, pollset: bool) {
        if self.contexts.len() == CONTEXTS_MAX {
            return;
        }
        let mut ctx = ptr::null_mut();
        // SAFETY: a place for the context; no logger.
        let rc = unsafe { libxl_ctx_alloc(&mut ctx, LIBXL_VERSION, 0, ptr::null_mut()) };
        assert_eq!(rc == 0, !ctx.is_null());
        if rc != 0 {
            return;
        }
        self.opened += 1;
        let serial = self.opened;
        let mut set = ptr::null_mut();
        if pollset {
            // SAFETY: a new context, and a set that is freed after it.
            unsafe {
                assert_eq!(xlevent_pollset_new(ctx, None, None, &mut set), 0);
                libxl_osevent_register_hooks(ctx, xlevent_pollset_hooks(), set.cast());
            }
        }
        let source = Box::new(Source { ctx, serial });
        let mut opened = Opened { serial, ctx, subscribers: Vec::new(), set, source, hooks: Vec::new() };
        opened.call_back(0);
        self.contexts.push(opened);
    }

    fn close(&mut self, index: usize) {
        let opened = self.contexts.remove(index);
        // SAFETY: a context, and then the set that was made for it. Nobody uses them any more.
        unsafe {
            assert_eq!(libxl_ctx_free(opened.ctx), 0);
            if !opened.set.is_null() {
                xlevent_pollset_free(opened.set);
            }
        }
        books(|books| {
            let its = |it: &&mut Generator| it.ctx == opened.serial;
            books.generators.iter_mut().filter(its).for_each(|generator| generator.live = false);
            for operation in books.operations.iter().filter(|it| it.ctx == opened.serial && !it.by_event) {
                assert_eq!(operation.told, 1, "the end of an operation was told {} times", operation.told);
            }
        });
    }

    fn enable(&mut self, which: Which, whose: Option<Handle>, what: Wanted, nowhere: bool) {
        let count = books(|books| books.generators.len());
        let Some(opened) = self.opened(which).filter(|_| count < GENERATORS_MAX) else { return };
        let (ctx, user) = (opened.ctx, count as u64);
        let (sub, index) = whose.map_or((ptr::null_mut(), None), |handle| subscriber(opened, handle));
        let (kind, domid) = match what {
            Wanted::Death(Domid(domid)) => (Kind::Death, domid),
            Wanted::State(Domid(domid), _) => (Kind::State, domid),
            Wanted::Eject(Domid(domid), _) => (Kind::Eject, domid),
        };
        let mut generator = Generator {
            ctx: opened.serial,
            subscriber: index,
            domid,
            kind,
            states: 0,
            node: Vec::new(),
            handle: 0,
            live: true,
            deaths: 0,
            ejections: 0,
        };
        let (mut death, mut state, mut eject) = (ptr::null_mut(), ptr::null_mut(), ptr::null_mut());
        // SAFETY: places for handles, or NULL, and strings; a subscriber's handle may be anything.
        let rc = unsafe {
            match what {
                Wanted::Death(_) => {
                    let out = if nowhere { ptr::null_mut() } else { &raw mut death };
                    match whose {
                        None => libxl_evenable_domain_death(ctx, domid, user, out),
                        Some(_) => xlevent_subscriber_evenable_domain_death(ctx, sub, domid, user, out),
                    }
                }
                Wanted::State(_, states) => {
                    generator.states = states.bits();
                    if matches!(states, Mask::States) && domid != LIBXL_DOMID_ANY {
                        generator.states &= !(1 << LIBXL_EVENT_TYPE_DOMAIN_CREATED);
                    }
                    let (states, out) = (generator.states, if nowhere { ptr::null_mut() } else { &raw mut state });
                    match whose {
                        None => libxl_evenable_domain_state(ctx, domid, states, user, out),
                        Some(_) => xlevent_subscriber_evenable_domain_state(ctx, sub, domid, states, user, out),
                    }
                }
                Wanted::Eject(_, vdev) => {
                    let vdev = match vdev {
                        Vdev::Cd => Some(c"hdc".to_owned()),
                        Vdev::Xvdb => Some(c"xvdb".to_owned()),
                        Vdev::Number => Some(c"0x1600".to_owned()),
                        Vdev::Text(text) => CString::new(text).ok(),
                        Vdev::Null => None,
                    };
                    let name = vdev.as_ref().map_or(ptr::null(), |vdev| vdev.as_ptr());
                    if let Some(devid) = vdev.as_ref().and_then(|vdev| xlevent::evgen::vbd::devid(vdev.to_bytes())) {
                        generator.node = format!("{}{devid}/eject", drives_of(domid)).into_bytes();
                    }
                    let out = if nowhere { ptr::null_mut() } else { &raw mut eject };
                    match whose {
                        None => libxl_evenable_disk_eject(ctx, domid, name, user, out),
                        Some(_) => xlevent_subscriber_evenable_disk_eject(ctx, sub, domid, name, user, out),
                    }
                }
            }
        };
        generator.handle = death.addr() | state.addr() | eject.addr();
        assert_eq!(rc == 0, generator.handle != 0, "{rc}");
        // Events of one that was refused would be nobody's.
        generator.live = rc == 0;
        books(|books| books.generators.push(generator));
    }

    fn disable(&mut self, which: Which, handle: Handle, kind: Kind) {
        let Some(opened) = self.opened(which) else { return };
        let (ctx, serial) = (opened.ctx, opened.serial);
        let raw = books(|books| match handle {
            Handle::Given(which) | Handle::AlsoGiven(which) => {
                let Some(generator) = which.index(books.generators.len()).map(|it| &mut books.generators[it]) else {
                    return 0;
                };
                // Of another context, or of another kind: it goes on.
                generator.live &= generator.ctx != serial || generator.kind != kind;
                generator.handle
            }
            Handle::Null => 0,
            // Not one that was given out: as with any handle, guessing one is using it.
            Handle::Bits(bits) if books.generators.iter().any(|it| it.handle as u64 == bits) => 0,
            Handle::Bits(bits) => bits as usize,
        });
        // SAFETY: a handle may be anything.
        unsafe {
            match kind {
                Kind::Death => libxl_evdisable_domain_death(ctx, raw as *mut _),
                Kind::State => libxl_evdisable_domain_state(ctx, raw as *mut _),
                Kind::Eject => libxl_evdisable_disk_eject(ctx, raw as *mut _),
            }
        }
    }

    /// Takes one event, if there is one that is wanted; whether there was.
    fn retrieve(
        &mut self,
        which: Which,
        whose: Option<Handle>,
        mask: u64,
        predicate: Option<Answers>,
        wait: bool,
    ) -> bool {
        self.opened(which).is_some_and(|opened| opened.retrieve(whose, mask, predicate, wait))
    }

    fn call_back(&mut self, which: Which, mask: u64) {
        if let Some(opened) = self.opened(which) {
            opened.call_back(mask);
        }
    }

    fn poll(&mut self, which: Which, room: i8, lie: Option<c_short>, of_set: bool) {
        let Some(opened) = self.opened(which) else { return };
        let mut fds = [pollfd { fd: -1, events: 0, revents: 0 }; 8];
        let (mut count, mut timeout) = (c_int::from(room).min(8), -1);
        let (ctx, set) = (opened.ctx, opened.set);
        let of_set = of_set && !set.is_null();
        // SAFETY: as much room as is said.
        let rc = unsafe {
            match of_set {
                true => xlevent_pollset_beforepoll(set, &mut count, fds.as_mut_ptr(), &mut timeout),
                false => libxl_osevent_beforepoll(ctx, &mut count, fds.as_mut_ptr(), &mut timeout, NO_TIME),
            }
        };
        if rc != 0 {
            return;
        }
        let count = usize::try_from(count).unwrap_or(0).min(8);
        // SAFETY: the array, which is not waited for.
        unsafe { libc::poll(fds.as_mut_ptr(), count as libc::nfds_t, AT_ONCE) };
        if let Some(lie) = lie {
            // What poll says of a descriptor that somebody has closed is said to the log.
            fds.iter_mut().for_each(|entry| entry.revents = lie);
        }
        // SAFETY: the array.
        unsafe {
            match of_set {
                true => drop(xlevent_pollset_afterpoll(set, count as c_int, fds.as_ptr())),
                false => libxl_osevent_afterpoll(ctx, count as c_int, fds.as_ptr(), NO_TIME),
            }
        }
    }

    fn operate(
        &mut self,
        which: Which,
        domid: u32,
        by_event: bool,
        call: impl FnOnce(*mut libxl_ctx, *const libxl_asyncop_how) -> c_int,
    ) {
        let Some(opened) = self.opened(which) else { return };
        let place = books(|books| {
            books.operations.push(Operation { ctx: opened.serial, domid, by_event, told: 0 });
            books.operations.len() - 1
        });
        let u = libxl_asyncop_how_u { for_event: place as u64 | OPERATION };
        let how = libxl_asyncop_how { callback: if by_event { None } else { Some(told) }, u };
        if call(opened.ctx, &how) != 0 {
            // Refused: its end isn't told. From here on it counts as told.
            books(|books| {
                assert_eq!(books.operations[place].told, 0, "the end of an operation that was refused was told");
                books.operations[place].told = 1;
            });
        }
    }

    /// One context with generators of every kind, and two operations.
    pub fn follow_everything(&mut self) {
        let first = Which::FIRST;
        let enable = |what| Step::Enable { ctx: first, subscriber: None, what, nowhere: false };
        (1..=5).for_each(host::start_domain);
        for domid in 1..=4 {
            let (own, backend) =
                (format!("/libxl/{domid}/device/vbd/{HDC}"), format!("/local/domain/0/backend/vbd/{domid}/{HDC}"));
            host::write(format!("{own}/backend").as_bytes(), backend.as_bytes());
            host::write(format!("{backend}/state").as_bytes(), b"4");
            host::write(format!("/local/domain/{domid}/device/vbd/{HDC}/backend").as_bytes(), backend.as_bytes());
        }
        self.step(Step::Open { pollset: false });
        for domid in [1, 2, 3, 40000] {
            self.step(enable(Wanted::Death(Domid(domid))));
            self.step(enable(Wanted::State(Domid(domid), Mask::States)));
            self.step(enable(Wanted::Eject(Domid(domid), Vdev::Cd)));
        }
        self.step(enable(Wanted::State(Domid(LIBXL_DOMID_ANY), Mask::States)));
        for domid in [3, 4] {
            let devices = vec![Device { kind: 0, usual: true, devid: 0 }];
            self.step(Step::Remove { ctx: first, domid: Domid(domid), devices, force: 0, event: false });
        }
    }

    /// Something happens to the host.
    pub fn befall(&mut self, incident: Incident) {
        self.step(Step::Host(incident));
    }

    /// Does what there is to do, and takes what there is.
    pub fn turn(&mut self) {
        for _ in 0..3 {
            self.poll(Which::FIRST, 1, None, false);
            while self.retrieve(Which::FIRST, None, u64::MAX, None, false) {}
        }
    }

    /// All comes to rest, is told, and is given back.
    pub fn end(mut self) {
        // What has happened was said, and what is new was looked at: nothing more is needed for all to be told.
        for calm in [false, true] {
            if calm {
                host::calm();
            }
            self.count_generators();
            if !self.misled {
                self.rest();
                self.count_deaths();
            }
        }
        while !self.contexts.is_empty() {
            self.close(0);
        }
        assert!(host::is_idle(), "a connection to xenstored is left");
    }

    /// Turns until there is nothing more to do, and takes all events.
    fn rest(&mut self) {
        const ROUNDS: usize = 2000;
        for opened in &mut self.contexts {
            opened.call_back(0);
        }
        let mut quiet = false;
        for _ in 0..ROUNDS {
            quiet = true;
            for opened in &self.contexts {
                // SAFETY: a context, and one entry.
                unsafe {
                    let fd = xlevent_get_fd(opened.ctx);
                    assert!(fd >= 0);
                    let mut entry = pollfd { fd, events: libc::POLLIN, revents: 0 };
                    if libc::poll(&mut entry, 1, AT_ONCE) > 0 {
                        quiet = false;
                        libxl_osevent_afterpoll(opened.ctx, 1, &entry, NO_TIME);
                    }
                }
            }
            if quiet {
                break;
            }
        }
        assert!(quiet, "a context does not come to rest");
        for opened in &mut self.contexts {
            let live = opened.subscribers.iter().filter(|subscriber| subscriber.live);
            let whose: Vec<Handle> = live.map(|subscriber| Handle::Bits(subscriber.handle as u64)).collect();
            for whose in whose.into_iter().map(Some).chain([None]) {
                while opened.retrieve(whose, u64::MAX, None, false) {}
            }
        }
    }

    /// There are the generators that should be, no more and no fewer.
    fn count_generators(&self) {
        for opened in &self.contexts {
            // SAFETY: numbers, and a place for them.
            let stats = unsafe {
                let mut stats: xlevent_stats = std::mem::zeroed();
                assert_eq!(xlevent_stats(opened.ctx, &mut stats, size_of_val(&stats)), 0);
                stats
            };
            for (kind, count) in [
                (Kind::Death, stats.death_generators),
                (Kind::State, stats.state_generators),
                (Kind::Eject, stats.eject_generators),
            ] {
                let live = books(|books| {
                    let its = |it: &&Generator| it.live && it.ctx == opened.serial && it.kind == kind;
                    books.generators.iter().filter(its).count()
                });
                assert_eq!(count, live as u64, "generators of kind {kind:?}");
            }
        }
    }

    /// Nothing was left untold.
    fn count_deaths(&self) {
        books(|books| {
            for generator in books.generators.iter().filter(|generator| generator.live) {
                let tells = match generator.kind {
                    Kind::Death => true,
                    Kind::State => {
                        generator.states & 1 << LIBXL_EVENT_TYPE_DOMAIN_DEATH != 0 && generator.domid != LIBXL_DOMID_ANY
                    }
                    Kind::Eject => false,
                };
                if tells && !host::lives(generator.domid) {
                    assert_eq!(generator.deaths, 1, "the death of domain {} was not told", generator.domid);
                }
            }
        });
    }
}

impl Opened {
    fn call_back(&mut self, mask: u64) {
        let event_occurs_mask = mask;
        let hooks = libxl_event_hooks { event_occurs_mask, event_occurs: Some(occurs), disaster: Some(disaster) };
        let hooks = Box::new(hooks);
        // SAFETY: hooks and an argument that live as long as the context.
        unsafe { libxl_event_register_callbacks(self.ctx, &*hooks, (&raw mut *self.source).cast()) };
        self.hooks.push(hooks);
    }

    fn retrieve(&mut self, whose: Option<Handle>, mask: u64, predicate: Option<Answers>, wait: bool) -> bool {
        let (ctx, serial) = (self.ctx, self.serial);
        let (sub, index) = whose.map_or((ptr::null_mut(), None), |handle| subscriber(self, handle));
        let mut looker = predicate.map(|answers| Looker { answers, asked: 0, source: *self.source, mask });
        let user = looker.as_mut().map_or(ptr::null_mut(), |looker| ptr::from_mut(looker).cast());
        let predicate: libxl_event_predicate = if predicate.is_some() { Some(wants) } else { None };
        let mut event = ptr::null_mut();
        // SAFETY: a place for the event, and an argument that outlives the call; a subscriber's handle may be anything.
        let rc = unsafe {
            match (whose, wait) {
                (None, false) => libxl_event_check(ctx, &mut event, mask, predicate, user),
                (None, true) => xlevent_event_wait(ctx, &mut event, mask, predicate, user, AT_ONCE),
                (Some(_), false) => xlevent_subscriber_check(ctx, sub, &mut event, mask, predicate, user),
                (Some(_), true) => xlevent_subscriber_wait(ctx, sub, &mut event, mask, predicate, user, AT_ONCE),
            }
        };
        assert_eq!(rc == 0, !event.is_null());
        if rc != 0 {
            return false;
        }
        // SAFETY: an event that is ours.
        unsafe {
            assert!(mask.checked_shr((*event).r#type).unwrap_or(0) & 1 != 0, "an event that the mask leaves out");
            note(serial, Some(index), &*event);
            libxl_event_free(ctx, event);
        }
        true
    }
}

const NO_TIME: timeval = timeval { tv_sec: 0, tv_usec: 0 };

/// The directory of a domain's disks, or of those of its stub domain.
fn drives_of(domid: u32) -> String {
    let stub = host::node(format!("/local/domain/{domid}/image/device-model-domid").as_bytes());
    let stub = stub.as_deref().and_then(xlevent::evgen::vbd::stub_domain);
    format!("/local/domain/{}/device/vbd/", stub.unwrap_or(domid))
}

/// A subscriber's handle, and its place if it is one of this context's.
fn subscriber(opened: &Opened, handle: Handle) -> (*mut xlevent_subscriber, Option<usize>) {
    let raw = match handle {
        Handle::Given(which) | Handle::AlsoGiven(which) => which.of(&opened.subscribers).map_or(0, |it| it.handle),
        Handle::Null => 0,
        Handle::Bits(bits) => bits as usize,
    };
    (raw as *mut _, opened.subscribers.iter().position(|it| it.handle == raw))
}

/// Notes an event. `whose` is the inbox that it came from, if that is known: a subscriber's, or the context's own.
fn note(serial: usize, whose: Option<Option<usize>>, event: &libxl_event) {
    let (kind, user) = (event.r#type, event.for_user);
    books(|books| {
        if user & OPERATION != 0 {
            let operation = &mut books.operations[(user & !OPERATION) as usize];
            assert_eq!(kind, LIBXL_EVENT_TYPE_OPERATION_COMPLETE);
            assert!(operation.by_event && operation.ctx == serial && operation.domid == event.domid);
            operation.told += 1;
            assert_eq!(operation.told, 1, "the end of an operation was told again");
            return;
        }
        let generator = &mut books.generators[user as usize];
        assert_eq!(generator.ctx, serial, "another context's event");
        assert!(generator.handle != 0, "an event of a generator that was refused");
        if let Some(whose) = whose {
            assert_eq!(generator.subscriber, whose, "another subscriber's event");
        }
        let any = generator.kind == Kind::State && generator.domid == LIBXL_DOMID_ANY;
        assert!(any || generator.domid == event.domid, "another domain's event");
        match (generator.kind, kind) {
            (Kind::Death, LIBXL_EVENT_TYPE_DOMAIN_SHUTDOWN) => {}
            (Kind::Death, LIBXL_EVENT_TYPE_DOMAIN_DEATH) => generator.deaths += 1,
            (Kind::State, LIBXL_EVENT_TYPE_DOMAIN_DEATH) if !any => generator.deaths += 1,
            (Kind::State, _) => assert!(generator.states & 1 << kind != 0, "a state that nobody has asked for"),
            (Kind::Eject, LIBXL_EVENT_TYPE_DISK_EJECT) => {
                generator.ejections += 1;
                let most = host::ejections(&generator.node);
                assert!(generator.ejections <= most, "{} ejections of {most} were told", generator.ejections);
            }
            (_, kind) => panic!("an event of type {kind}, which the generator has not"),
        }
        assert!(generator.deaths <= 1, "a domain has died twice");
    });
}

/// What a predicate has at hand.
struct Looker {
    answers: Answers,
    asked: u32,
    source: Source,
    mask: u64,
}

unsafe extern "C" fn wants(event: *const libxl_event, user: *mut c_void) -> c_int {
    // SAFETY: an event, and the looker that came with the call.
    let (event, looker) = unsafe { (&*event, &mut *user.cast::<Looker>()) };
    assert!(looker.mask.checked_shr(event.r#type).unwrap_or(0) & 1 != 0);
    let before = event.for_user;
    if std::mem::take(&mut looker.answers.looks) {
        let mut other = ptr::null_mut();
        // SAFETY: a place for it; what this predicate looks at is not given away.
        unsafe {
            if libxl_event_check(looker.source.ctx, &mut other, u64::MAX, None, ptr::null_mut()) == 0 {
                assert!(!ptr::eq(other, event));
                note(looker.source.serial, Some(None), &*other);
                libxl_event_free(looker.source.ctx, other);
            }
        }
    }
    assert_eq!(event.for_user, before);
    looker.asked += 1;
    (looker.answers.yes >> (looker.asked % 8) & 1).into()
}

unsafe extern "C" fn occurs(user: *mut c_void, event: *mut libxl_event) {
    // SAFETY: an event that is ours now, and the source that the hooks were registered with.
    unsafe {
        let source = *user.cast::<Source>();
        note(source.serial, Some(None), &*event);
        libxl_event_free(source.ctx, event);
    }
}

unsafe extern "C" fn dispatched(user: *mut c_void, event: *const libxl_event) {
    // SAFETY: an event, and the source that came with the call.
    unsafe { note((*user.cast::<Source>()).serial, Some(None), &*event) };
}

unsafe extern "C" fn told(_ctx: *mut libxl_ctx, _rc: c_int, user: *mut c_void) {
    books(|books| {
        let operation = &mut books.operations[(user.addr() as u64 & !OPERATION) as usize];
        operation.told += 1;
        assert_eq!(operation.told, 1, "the end of an operation was told again");
    });
}

/// A disaster is what an application must live with.
unsafe extern "C" fn disaster(_user: *mut c_void, _type: libxl_event_type, _message: *const c_char, _errno: c_int) {}

/// Makes every panic the end, also one that the library would keep from its caller.
pub fn end_at_panics() {
    // The library puts a hook of its own before the others at its first call.
    // SAFETY: NULL is nothing to free.
    unsafe { libxl_event_free(ptr::null_mut(), ptr::null_mut()) };
    std::panic::set_hook(Box::new(|panic| {
        eprintln!("{panic}");
        std::process::abort();
    }));
}
