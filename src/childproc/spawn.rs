// SPDX-License-Identifier: LGPL-2.1-or-later
//! Fork, and what the two processes do after it.
//!
//! - The fork is the application's, if it has one. All signals are blocked around it, so that the child runs no handler
//!   of the application's.
//! - The child calls nothing but what a signal handler may call: another thread of the parent's may have held any lock.
//! - The child waits at the *gate*, a socket, for one byte. It writes an errno back if it can't become the program; the
//!   exec closes it otherwise.
//! - What the parent has open, the program has not: it gets three descriptors, /dev/null and two pipes.
//! - The program's ends of the pipes can be read, too, which nobody does: as long as it has them open they have a reader,
//!   so it isn't ended by SIGPIPE if we end before it does.

use std::ffi::c_int;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use libc::pid_t;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType};
use nix::sys::stat::Mode;

use super::Hooks;
use super::command::{Command, Prepared};
use super::process::{self, Descriptor, Fate};
use crate::error::{Error, Result};

/// A forked child that is held at the gate.
pub(super) struct Spawned {
    pub(super) pid: pid_t,
    pub(super) fate: Arc<Fate>,
    /// None where the kernel has no such thing, or no more of them.
    pub(super) pidfd: Option<Descriptor>,
    pub(super) output: Descriptor,
    pub(super) errors: Descriptor,
    pub(super) gate: Gate,
}

/// Our end of the socket between a child and us.
#[derive(Debug)]
pub(super) struct Gate(Descriptor);

impl Gate {
    /// Lets the child go on. If it has been killed meanwhile, that will be seen soon enough.
    pub(super) fn open(&self) {
        if !self.0.is_ours() {
            return;
        }
        let _ = nix::sys::socket::send(self.0.as_raw_fd(), &[0], MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT);
    }

    /// Why the child, which has ended, could not become the program, if that is so.
    pub(super) fn refusal(&self) -> Option<Errno> {
        if !self.0.is_ours() {
            return None;
        }
        let mut errno = [0; size_of::<c_int>()];
        match nix::sys::socket::recv(self.0.as_raw_fd(), &mut errno, MsgFlags::MSG_DONTWAIT) {
            Ok(length) if length == errno.len() => Some(Errno::from_raw(c_int::from_ne_bytes(errno))),
            _ => None,
        }
    }
}

/// Forks. Whoever drops what this returns without having opened the gate has a child that ends.
pub(super) fn spawn(command: &Command, hooks: &dyn Hooks) -> Result<Spawned> {
    let prepared = command.prepare()?;
    let failed = |what: &'static str| move |errno| Error::os(what, errno);
    let [null] = Descriptor::make(|| Ok([lifted(open_null()?)?])).map_err(failed("opening /dev/null"))?;
    let [output, output_there] = Descriptor::make(pipe).map_err(failed("making a pipe for a child"))?;
    let [errors, errors_there] = Descriptor::make(pipe).map_err(failed("making a pipe for a child"))?;
    let [gate, gate_there] = Descriptor::make(gate).map_err(failed("making a socket for a child"))?;
    let plan = Plan {
        prepared: &prepared,
        input: null.as_raw_fd(),
        output: output_there.as_raw_fd(),
        errors: errors_there.as_raw_fd(),
        gate: gate_there.as_raw_fd(),
    };

    let blocked = SignalsBlocked::new();
    let pid = hooks.fork();
    if pid == 0 {
        plan.carry_out();
    }
    let errno = Errno::last();
    drop(blocked);
    if pid < 0 {
        return Err(Error::os(format!("forking for {}", command.program().to_string_lossy()), errno));
    }
    let fate = process::adopt(pid);
    // SAFETY: no memory is involved; the child is held, so the number is its own, and it has not become the program yet.
    unsafe { libc::setpgid(pid, pid) };
    Ok(Spawned { pid, fate, pidfd: open_pidfd(pid), output, errors, gate: Gate(gate) })
}

fn open_null() -> nix::Result<OwnedFd> {
    nix::fcntl::open("/dev/null", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())
}

fn pipe() -> nix::Result<[OwnedFd; 2]> {
    let (ours, theirs) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
    // Ours alone; the program's end is an ordinary one.
    fcntl(&ours, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    let path = format!("/proc/self/fd/{}", theirs.as_raw_fd());
    // Without /proc it has to do as it is.
    let theirs = nix::fcntl::open(path.as_str(), OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty()).unwrap_or(theirs);
    Ok([lifted(ours)?, lifted(theirs)?])
}

fn gate() -> nix::Result<[OwnedFd; 2]> {
    let (ours, theirs) =
        nix::sys::socket::socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC)?;
    Ok([lifted(ours)?, lifted(theirs)?])
}

/// Moves a descriptor out of the way of those that the child makes for itself.
fn lifted(fd: OwnedFd) -> nix::Result<OwnedFd> {
    if fd.as_raw_fd() > GATE {
        return Ok(fd);
    }
    let lifted = fcntl(&fd, FcntlArg::F_DUPFD_CLOEXEC(GATE + 1))?;
    // SAFETY: just made, and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(lifted) })
}

/// The child's descriptor of the gate: the first after those that the program gets.
const GATE: RawFd = 3;

fn open_pidfd(pid: pid_t) -> Option<Descriptor> {
    let make = || {
        // SAFETY: no memory is involved. It is closed by exec from the start.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        let fd = Errno::result(c_int::try_from(fd).unwrap_or(-1))?;
        // SAFETY: just made, and nobody else's.
        Ok([unsafe { OwnedFd::from_raw_fd(fd) }])
    };
    Descriptor::make(make).ok().map(|[fd]| fd)
}

type SignalSet = libc::sigset_t;

/// This thread has all signals blocked; before it, these.
pub(super) struct SignalsBlocked(SignalSet);

impl SignalsBlocked {
    pub(super) fn new() -> Self {
        let mut before = MaybeUninit::<SignalSet>::zeroed();
        let mut all = MaybeUninit::<SignalSet>::zeroed();
        // SAFETY: both sets are this function's, and the call can't fail with these arguments.
        unsafe {
            libc::sigfillset(all.as_mut_ptr());
            libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
            SignalsBlocked(before.assume_init())
        }
    }
}

impl Drop for SignalsBlocked {
    fn drop(&mut self) {
        // SAFETY: what `new` was given.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &self.0, std::ptr::null_mut()) };
    }
}

/// In a forked child: no signal has a handler any more, or is ignored.
///
/// # Safety
/// The process isn't to do anything else that depends on them.
pub(super) unsafe fn default_signals() {
    let by_default = [0u64; 4];
    for signal in 1..=LAST_SIGNAL {
        // The kernel's own call, since libc's leaves out two signals, which may have been inherited as ignored. Those that
        // can't be changed refuse.
        // SAFETY: the action is this function's, and large enough everywhere.
        unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, by_default.as_ptr(), 0, SIGNAL_SET_SIZE) };
    }
}

/// In a forked child: no signal is blocked any more.
///
/// # Safety
/// None has a handler.
pub(super) unsafe fn unblock_signals() {
    let mut none = MaybeUninit::<SignalSet>::zeroed();
    // SAFETY: the set is this function's.
    unsafe {
        libc::sigemptyset(none.as_mut_ptr());
        libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut());
    }
}

/// What the child does; everything is there before the fork.
struct Plan<'a> {
    prepared: &'a Prepared,
    input: RawFd,
    output: RawFd,
    errors: RawFd,
    gate: RawFd,
}

impl Plan<'_> {
    /// In the child: becomes the program, or says why it can't. No memory is taken, no lock, and nothing here panics.
    fn carry_out(&self) -> ! {
        let errno = self.become_program();
        // SAFETY: calls that a signal handler may make, on this function's own memory.
        unsafe {
            libc::send(GATE, (&raw const errno).cast(), size_of_val(&errno), libc::MSG_NOSIGNAL);
            libc::_exit(127)
        }
    }

    /// Returns only with an errno.
    fn become_program(&self) -> c_int {
        // SAFETY: calls that a signal handler may make; the descriptors are above those that are made here, the strings
        // and arrays are the parent's, of which this process has a copy, and end as C wants it.
        unsafe {
            default_signals();
            if libc::dup3(self.gate, GATE, libc::O_CLOEXEC) < 0 {
                // What has that number is the application's, and no place to say why.
                libc::_exit(127);
            }
            if libc::dup2(self.input, 0) < 0 || libc::dup2(self.output, 1) < 0 || libc::dup2(self.errors, 2) < 0 {
                return *libc::__errno_location();
            }
            close_from(GATE + 1);
            let mut go = 0u8;
            if libc::read(GATE, (&raw mut go).cast(), 1) != 1 {
                // The parent has ended, or doesn't want us.
                libc::_exit(127);
            }
            unblock_signals();
            let Prepared { program, arguments, environment } = self.prepared;
            libc::execve(program.as_ptr(), arguments.as_ptr(), environment.as_ptr());
            *libc::__errno_location()
        }
    }
}

const LAST_SIGNAL: c_int = 64;

/// In bytes, as the kernel has it.
const SIGNAL_SET_SIZE: usize = 8;

/// Kernels before 5.9 can't close a range; there each is closed that a process is likely to have.
const LIKELY_DESCRIPTORS: RawFd = 65536;

/// # Safety
/// In a forked child: nobody uses these descriptors.
pub(super) unsafe fn close_from(first: RawFd) {
    // SAFETY: no memory is involved but the limit, which is this function's.
    unsafe {
        if libc::syscall(libc::SYS_close_range, first, c_int::MAX, 0) == 0 {
            return;
        }
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit);
        let end = if limit.rlim_cur < LIKELY_DESCRIPTORS as u64 { limit.rlim_cur as RawFd } else { LIKELY_DESCRIPTORS };
        for fd in first..end {
            libc::close(fd);
        }
    }
}
