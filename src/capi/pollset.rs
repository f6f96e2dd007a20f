// SPDX-License-Identifier: LGPL-2.1-or-later
//! Hooks for programs that call poll(2) or select(2): `pollset` for C.
//!
//! A set's handle is an opaque number made to look like a pointer; it is looked up and never dereferenced.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{c_int, c_short, c_void};
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use libc::{fd_set, pollfd, timeval};

use super::ctx::libxl_ctx;
use super::entry::{entry, stderr_line};
use super::handle::{invalid, number};
use super::osevent::{libxl_osevent_hooks, libxl_osevent_occurred_fd, libxl_osevent_occurred_timeout};
use crate::abi::*;
use crate::context;
use crate::pollset::{Id, PollSet, Wanted};
use crate::sync::std_like::RwLock;
use crate::xen::log::{Level, Line};

/// What the hooks of one context have registered: descriptors and timeouts, for a program that calls poll(2) or select(2)
/// itself.
///
/// With this library a context has one descriptor, and xlevent_get_fd is simpler. The set is for programs that also run with
/// a libxenlight alone, which registers several descriptors, and timeouts, and changes them from whatever thread calls it:
/// one that waits meanwhile is woken. For that purpose the set has a descriptor of its own, which comes first.
///
/// The handle is not an address: compare it, pass it on, nothing else.
pub struct xlevent_pollset {
    _opaque: (),
}

/// As libxenlight has it.
type OccurredFd = unsafe extern "C" fn(*mut libxl_ctx, *mut c_void, c_int, c_short, c_short);
/// As libxenlight has it.
type OccurredTimeout = unsafe extern "C" fn(*mut libxl_ctx, *mut c_void);

/// A set, and whom to tell.
struct Member {
    set: PollSet<usize>,
    ctx: usize,
    occurred_fd: OccurredFd,
    occurred_timeout: OccurredTimeout,
}

/// All sets of the process.
static MEMBERS: RwLock<BTreeMap<usize, Arc<Member>>> = RwLock::new(BTreeMap::new());

fn lookup(set: *mut c_void) -> Option<Arc<Member>> {
    MEMBERS.read().unwrap_or_else(PoisonError::into_inner).get(&set.addr()).cloned()
}

/// The set of a handle. NULL and unknown ones are logged, to stderr as there is no logger, and are ERROR_INVAL.
fn member(name: &str, set: *mut xlevent_pollset) -> Result<Arc<Member>, c_int> {
    lookup(set.cast()).ok_or_else(|| {
        stderr_line(format_args!("{name}: {set:p} is not a set"));
        ERROR_INVAL
    })
}

impl Member {
    /// Logs what is wrong with an argument, where it can: the context may be one that we don't know.
    fn invalid(&self, name: &str, why: &str) -> c_int {
        match context::lookup(self.ctx) {
            Some(context) => invalid(&context, name, why),
            None => {
                stderr_line(format_args!("{name}: {why}"));
                ERROR_INVAL
            }
        }
    }

    fn ctx(&self) -> *mut libxl_ctx {
        self.ctx as *mut libxl_ctx
    }

    /// Tells of what was found, and of timeouts.
    fn tell(&self, found: &HashMap<RawFd, i16>) {
        for (id, revents) in self.set.ready(found) {
            if let Some(it) = self.set.descriptor(id) {
                // SAFETY: the function that goes with the context, with what was registered for it.
                unsafe { (self.occurred_fd)(self.ctx(), it.for_libxl as *mut c_void, it.fd, it.events, revents) };
            }
        }
        // Of those that are added now, in the past, the next time.
        let now = time_of_day();
        while let Some(for_libxl) = self.set.take_due(now) {
            // SAFETY: as above; each comes once.
            unsafe { (self.occurred_timeout)(self.ctx(), for_libxl as *mut c_void) };
        }
    }
}

/// Now, as libxl's timeouts have it.
fn time_of_day() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn duration(time: timeval) -> Duration {
    Duration::from_secs(time.tv_sec.max(0).unsigned_abs()) + Duration::from_micros(time.tv_usec.max(0).unsigned_abs())
}

/// Makes an empty set for a context.
///
/// Whoever made the context is told what has become ready: `occurred_fd` and `occurred_timeout` are
/// libxl_osevent_occurred_fd and libxl_osevent_occurred_timeout of that library. NULL for both means those of this one; a
/// program for which libxenlight alone answers, with this library linked after it, names them, and the linker knows which they
/// are.
///
/// Returns 0 and a handle in `*set_r`; ERROR_INVAL for a NULL `ctx` or `set_r`, or if one of the functions alone is NULL;
/// ERROR_FAIL if there is no descriptor to be had. On an error `*set_r` is as it was.
///
/// # Safety
///
/// `set_r` is NULL or points to a writable pointer. The functions may be called with `ctx` as long as the set is used.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xlevent_pollset_new(
    ctx: *mut libxl_ctx,
    occurred_fd: Option<
        unsafe extern "C" fn(ctx: *mut libxl_ctx, for_libxl: *mut c_void, fd: c_int, events: c_short, revents: c_short),
    >,
    occurred_timeout: Option<unsafe extern "C" fn(ctx: *mut libxl_ctx, for_libxl: *mut c_void)>,
    set_r: *mut *mut xlevent_pollset,
) -> c_int {
    entry!("xlevent_pollset_new", ERROR_FAIL, {
        let name = "xlevent_pollset_new";
        let (occurred_fd, occurred_timeout) = match (occurred_fd, occurred_timeout) {
            (Some(fd), Some(timeout)) => (fd, timeout),
            (None, None) => {
                (libxl_osevent_occurred_fd as OccurredFd, libxl_osevent_occurred_timeout as OccurredTimeout)
            }
            _ => {
                stderr_line(format_args!("{name}: one of the functions is NULL"));
                return ERROR_INVAL;
            }
        };
        if ctx.is_null() || set_r.is_null() {
            stderr_line(format_args!("{name}: the context or the place for the handle is NULL"));
            return ERROR_INVAL;
        }
        let set = match PollSet::new() {
            Ok(set) => set,
            Err(error) => {
                let line = Line::failure(Level::Error, name, &error);
                match context::lookup(ctx.addr()) {
                    Some(context) => context.log(&line),
                    None => stderr_line(format_args!("{}", line.text)),
                }
                return number(&error);
            }
        };
        // Never 0, and never used twice.
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let handle = NEXT.fetch_add(1, Ordering::Relaxed) as usize;
        let member = Member { set, ctx: ctx.addr(), occurred_fd, occurred_timeout };
        MEMBERS.write().unwrap_or_else(PoisonError::into_inner).insert(handle, Arc::new(member));
        // SAFETY: not null, so writable.
        unsafe { *set_r = handle as *mut xlevent_pollset };
        0
    })
}

/// Ends a set. Free the context first, which may call the hooks until then; a registration that comes later is refused.
///
/// A NULL or unknown `set` does nothing; an unknown one is logged.
///
/// # Safety
///
/// No requirement: the handle is looked up, not followed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xlevent_pollset_free(set: *mut xlevent_pollset) {
    entry!("xlevent_pollset_free", (), {
        let freed = MEMBERS.write().unwrap_or_else(PoisonError::into_inner).remove(&set.addr());
        if freed.is_none() && !set.is_null() {
            stderr_line(format_args!("xlevent_pollset_free: {set:p} is not a set"));
        }
    })
}

/// The hooks to give to libxl_osevent_register_hooks, with the set as `user`. They live as long as the process.
///
/// # Safety
///
/// No requirement.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xlevent_pollset_hooks() -> *const libxl_osevent_hooks {
    &raw const HOOKS
}

static HOOKS: libxl_osevent_hooks = libxl_osevent_hooks {
    fd_register: Some(fd_register),
    fd_modify: Some(fd_modify),
    fd_deregister: Some(fd_deregister),
    timeout_register: Some(timeout_register),
    timeout_modify: Some(timeout_modify),
    timeout_deregister: Some(timeout_deregister),
};

/// Says what to wait for with poll(2).
///
/// On entry `*nfds_io` is how many entries there are at `fds`, on return how many are needed, which are then filled in if
/// there was room. `*timeout_upd`, in milliseconds with negative for infinite, is what the application will give to poll; it
/// is shortened to the next timeout. One thread at a time waits for a set.
///
/// Returns 0; ERROR_BUFFERFULL if there was not enough room; ERROR_INVAL for a NULL or unknown `set`, a NULL `nfds_io` or
/// `timeout_upd`, or a NULL `fds` with `*nfds_io` greater than 0.
///
/// # Safety
///
/// `nfds_io` and `timeout_upd` are NULL or point to an int; `fds` is NULL or points to `*nfds_io` writable entries.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xlevent_pollset_beforepoll(
    set: *mut xlevent_pollset,
    nfds_io: *mut c_int,
    fds: *mut pollfd,
    timeout_upd: *mut c_int,
) -> c_int {
    entry!("xlevent_pollset_beforepoll", ERROR_FAIL, {
        let name = "xlevent_pollset_beforepoll";
        let member = match member(name, set) {
            Ok(member) => member,
            Err(rc) => return rc,
        };
        // SAFETY: NULL, or the caller's numbers.
        let (Some(room), Some(timeout)) = (unsafe { (nfds_io.as_mut(), timeout_upd.as_mut()) }) else {
            return member.invalid(name, "the place for the number or for the timeout is NULL");
        };
        let have = usize::try_from(*room).unwrap_or(0);
        if fds.is_null() && have > 0 {
            return member.invalid(name, "the array is NULL, though it is said to have room");
        }
        let Wanted { fds: wanted, until } = member.set.wanted();
        *room = wanted.len().try_into().unwrap_or(c_int::MAX);
        if wanted.len() > have {
            return ERROR_BUFFERFULL;
        }
        for (index, (fd, events)) in wanted.into_iter().enumerate() {
            // SAFETY: there is room for that many.
            unsafe { fds.add(index).write(pollfd { fd, events, revents: 0 }) };
        }
        if let Some(until) = until {
            let left = until.saturating_sub(time_of_day()).as_nanos().div_ceil(1_000_000);
            let left = c_int::try_from(left).unwrap_or(c_int::MAX);
            *timeout = if *timeout < 0 { left } else { left.min(*timeout) };
        }
        0
    })
}

/// Does what is to be done after poll(2): tells the library what has become ready, and which timeouts have passed.
///
/// `fds[0 .. nfds]` is what xlevent_pollset_beforepoll filled in and poll went over; entries of others among them do no harm.
/// With `nfds` 0 only timeouts are looked at. The library may call back from inside.
///
/// Returns 0, or ERROR_INVAL for a NULL or unknown `set`, or a NULL `fds` with `nfds` greater than 0.
///
/// # Safety
///
/// `fds` is NULL or points to `nfds` entries.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xlevent_pollset_afterpoll(
    set: *mut xlevent_pollset,
    nfds: c_int,
    fds: *const pollfd,
) -> c_int {
    entry!("xlevent_pollset_afterpoll", ERROR_FAIL, {
        let name = "xlevent_pollset_afterpoll";
        let member = match member(name, set) {
            Ok(member) => member,
            Err(rc) => return rc,
        };
        let count = usize::try_from(nfds).unwrap_or(0);
        if fds.is_null() && count > 0 {
            return member.invalid(name, "the array is NULL, though it is said to have entries");
        }
        let mut found = HashMap::new();
        for index in 0..count {
            // SAFETY: not null, so that many entries.
            let entry = unsafe { fds.add(index).read() };
            *found.entry(entry.fd).or_insert(0) |= entry.revents;
        }
        member.tell(&found);
        0
    })
}

/// Says what to wait for with select(2).
///
/// Adds to the three sets, and raises `*nfds_io`, which is what select wants as its first argument, as needed: both may hold
/// what the application itself waits for. `*timeout_io` is the pointer that will be given to select, NULL for no limit; if
/// that would be too long for the next timeout, it is replaced by `room`, with the shorter time in it.
///
/// Returns 0; ERROR_BUFFERFULL if a descriptor is too high for select (FD_SETSIZE and above): use poll; ERROR_INVAL for a NULL
/// or unknown `set` or another NULL argument. On an error nothing has been changed.
///
/// # Safety
///
/// The pointers are NULL or point to what their types say, `*timeout_io` too.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xlevent_pollset_beforeselect(
    set: *mut xlevent_pollset,
    nfds_io: *mut c_int,
    readfds: *mut fd_set,
    writefds: *mut fd_set,
    exceptfds: *mut fd_set,
    timeout_io: *mut *mut timeval,
    room: *mut timeval,
) -> c_int {
    entry!("xlevent_pollset_beforeselect", ERROR_FAIL, {
        let name = "xlevent_pollset_beforeselect";
        let member = match member(name, set) {
            Ok(member) => member,
            Err(rc) => return rc,
        };
        let sets = [(readfds, libc::POLLIN), (writefds, libc::POLLOUT), (exceptfds, libc::POLLPRI)];
        let missing = nfds_io.is_null() || timeout_io.is_null() || room.is_null();
        if missing || sets.iter().any(|(set, _)| set.is_null()) {
            return member.invalid(name, "one of the places to write to is NULL");
        }
        let Wanted { fds, until } = member.set.wanted();
        let fits = |fd: RawFd| usize::try_from(fd).is_ok_and(|fd| fd < libc::FD_SETSIZE);
        if let Some((fd, _)) = fds.iter().find(|(fd, _)| !fits(*fd)) {
            member.invalid(name, &format!("descriptor {fd} is too high for select"));
            return ERROR_BUFFERFULL;
        }
        for (fd, events) in fds {
            for (set, wanted) in sets {
                if events & wanted != 0 {
                    // SAFETY: not null, so a set; the descriptor fits, as was seen above.
                    unsafe { libc::FD_SET(fd, set) };
                }
            }
            // SAFETY: not null, so writable.
            unsafe { *nfds_io = (*nfds_io).max(fd + 1) };
        }
        if let Some(until) = until {
            // Rounded up, as for poll: who wakes before the time would go round for nothing.
            let left = until.saturating_sub(time_of_day()) + Duration::from_nanos(999);
            // SAFETY: not null; and what it points to, if that isn't null either, is a time.
            let given = unsafe { (*timeout_io).as_ref() }.map(|given| duration(*given));
            if given.is_none_or(|given| left < given) {
                let seconds = left.as_secs().try_into().unwrap_or(i32::MAX.into());
                // SAFETY: not null, so writable.
                unsafe {
                    *room = timeval { tv_sec: seconds, tv_usec: left.subsec_micros().into() };
                    *timeout_io = room;
                }
            }
        }
        0
    })
}

/// Does what is to be done after select(2), as xlevent_pollset_afterpoll does after poll.
///
/// The sets are as select has left them. If it has failed they mean nothing: then pass NULL for each, and only timeouts are
/// looked at.
///
/// Returns 0, or ERROR_INVAL for a NULL or unknown `set`.
///
/// # Safety
///
/// Each of the sets is NULL or points to one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xlevent_pollset_afterselect(
    set: *mut xlevent_pollset,
    readfds: *const fd_set,
    writefds: *const fd_set,
    exceptfds: *const fd_set,
) -> c_int {
    entry!("xlevent_pollset_afterselect", ERROR_FAIL, {
        let member = match member("xlevent_pollset_afterselect", set) {
            Ok(member) => member,
            Err(rc) => return rc,
        };
        let sets = [(readfds, libc::POLLIN), (writefds, libc::POLLOUT), (exceptfds, libc::POLLPRI)];
        let mut found = HashMap::new();
        for fd in member.set.all() {
            if usize::try_from(fd).is_ok_and(|fd| fd < libc::FD_SETSIZE) {
                let set_in = sets.iter().filter(|(set, _)| {
                    // SAFETY: not null, so a set; the descriptor fits.
                    !set.is_null() && unsafe { libc::FD_ISSET(fd, *set) }
                });
                found.insert(fd, set_in.fold(0, |revents, (_, bit)| revents | bit));
            }
        }
        member.tell(&found);
        0
    })
}

/// Runs a registration, if there is the set, and stores its name.
fn registered(set: *mut c_void, out: *mut *mut c_void, register: impl FnOnce(&PollSet<usize>) -> Id) -> c_int {
    let Some(member) = lookup(set) else { return ERROR_OSEVENT_REG_FAIL };
    let id = register(&member.set);
    // SAFETY: the library passes a place to write to.
    unsafe { *out = id.0 as *mut c_void };
    0
}

/// Changes one.
fn modified(set: *mut c_void, at: *mut *mut c_void, modify: impl FnOnce(&PollSet<usize>, Id) -> bool) -> c_int {
    // SAFETY: the library passes the place where it keeps what was stored.
    let id = Id(unsafe { *at }.addr() as u64);
    match lookup(set) {
        Some(member) if modify(&member.set, id) => 0,
        _ => ERROR_OSEVENT_REG_FAIL,
    }
}

unsafe extern "C" fn fd_register(
    user: *mut c_void,
    fd: c_int,
    out: *mut *mut c_void,
    events: c_short,
    for_libxl: *mut c_void,
) -> c_int {
    entry!("fd_register of a set", ERROR_OSEVENT_REG_FAIL, {
        registered(user, out, |set| set.register_fd(fd, events, for_libxl.addr()))
    })
}

unsafe extern "C" fn fd_modify(user: *mut c_void, _fd: c_int, at: *mut *mut c_void, events: c_short) -> c_int {
    entry!("fd_modify of a set", ERROR_OSEVENT_REG_FAIL, { modified(user, at, |set, id| set.modify_fd(id, events)) })
}

unsafe extern "C" fn fd_deregister(user: *mut c_void, _fd: c_int, registration: *mut c_void) {
    entry!("fd_deregister of a set", (), {
        if let Some(member) = lookup(user) {
            member.set.deregister_fd(Id(registration.addr() as u64));
        }
    })
}

unsafe extern "C" fn timeout_register(
    user: *mut c_void,
    out: *mut *mut c_void,
    abs: timeval,
    for_libxl: *mut c_void,
) -> c_int {
    entry!("timeout_register of a set", ERROR_OSEVENT_REG_FAIL, {
        registered(user, out, |set| set.register_timeout(duration(abs), for_libxl.addr()))
    })
}

unsafe extern "C" fn timeout_modify(user: *mut c_void, at: *mut *mut c_void, abs: timeval) -> c_int {
    entry!("timeout_modify of a set", ERROR_OSEVENT_REG_FAIL, {
        // One that is being told just now, in another thread, has gone; libxl takes that for done.
        modified(user, at, |set, id| {
            set.modify_timeout(id, duration(abs));
            true
        })
    })
}

unsafe extern "C" fn timeout_deregister(user: *mut c_void, registration: *mut c_void) {
    entry!("timeout_deregister of a set", (), {
        if let Some(member) = lookup(user) {
            member.set.deregister_timeout(Id(registration.addr() as u64));
        }
    })
}
