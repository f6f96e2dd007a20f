// SPDX-License-Identifier: LGPL-2.1-or-later
//! One child of ours: its output, its time, its end. The stages are those of the room's heading.
//!
//! A child doesn't wait for anything by itself. Whoever has it looks at it ([`Child::look`]) when its pidfd is readable,
//! when somebody has told of its end, and when the time has come that the last look asked for; a look too many does no
//! harm. It is over when the process has ended, not when its output has: something that it has left behind may hold that
//! open for ever. What was in the pipes at its end is its own, and kept; what comes after that is dropped, and who reads it
//! when the child is over is for [`drain`](super::drain) to say.
//!
//! Its status is the kernel's answer to whoever reaps it. Where somebody else has done so and says nothing, it may still be
//! known: from a look at the child before that, or from a kernel that keeps it with the pidfd (Linux 6.15).
//!
//! Dropping a child that runs kills it.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use libc::{c_int, pid_t};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout};

use super::process::{self, Asked, Descriptor, Fate};
use super::spawn::{self, Gate, Spawned};
use super::{Command, Hooks, Left, Said};
use crate::error::Result;
use crate::reactor::{Monotonic, now};

/// How a child has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// By itself, with this status.
    Exited(i32),
    /// By this signal.
    Signalled(i32),
    /// Somebody else has taken its status, hasn't told us, and there is no other way to know.
    Unknown,
    /// It never was the program: why it couldn't be.
    NotStarted(Errno),
}

/// What has become of a child.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// How it has ended.
    pub end: End,
    /// What it has written to its output.
    pub output: Said,
    /// And to its errors.
    pub errors: Said,
    /// It has used up its time, and was told to end.
    pub timed_out: bool,
}

/// What a look at a child has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// It runs. The next look is due when something happens, and at this time.
    Runs(Option<Monotonic>),
    /// It has ended, and its status is still to be told. Its pidfd has no more to say. The next look is due at this time.
    Ended(Monotonic),
    /// [`Child::outcome`] has the rest.
    Done,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Not started yet.
    Held,
    /// Until this time.
    Running(Option<Monotonic>),
    /// SIGTERM was sent. Until this time.
    Terminated(Monotonic),
    /// SIGKILL was sent.
    Killed,
    /// It has ended, at this time, and its status isn't known.
    Ended(Monotonic),
    /// Everything is known that will be.
    Done,
}

/// Where somebody else may have a child's status, he has this long to tell us.
const TELLING: Duration = Duration::from_secs(1);

/// An application that reaps for us may be busy for so long. If it hasn't come to it by then, we reap.
const REAPING: Duration = Duration::from_secs(10);

/// How often we look meanwhile: it may be told to another context.
const TICK: Duration = Duration::from_millis(20);

/// How often we look at a child without a pidfd.
const SLOW_TICK: Duration = Duration::from_millis(100);

/// How much one look reads of an output: what a pipe holds, as it is made.
const READ_AT_ONCE: usize = 64 * 1024;

/// A pipe's reading end, and what has come from it.
#[derive(Debug)]
struct Output {
    pipe: Descriptor,
    /// Something may still write to it.
    is_open: bool,
    said: Said,
}

impl Output {
    fn new(pipe: Descriptor) -> Self {
        Output { pipe, is_open: true, said: Said::default() }
    }

    /// Reads what is there, but no more than `at_most` or a little above.
    fn read(&mut self, at_most: usize, keep: bool) {
        let mut buffer = [0; 4096];
        let mut length = 0;
        while self.is_open && length < at_most {
            match nix::unistd::read(&self.pipe, &mut buffer) {
                Ok(count @ 1..) => {
                    length += count;
                    if keep {
                        self.said.push(&buffer[..count]);
                    }
                }
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return,
                Ok(0) | Err(_) => self.is_open = false,
            }
        }
    }

    /// Reads what the child has left in the pipe, which it may have made larger. What it has started may go on writing.
    fn read_last(&mut self) {
        let holds = fcntl(&self.pipe, FcntlArg::F_GETPIPE_SZ).ok().and_then(|size| usize::try_from(size).ok());
        self.read(holds.unwrap_or(READ_AT_ONCE), true);
        self.said.end();
    }

    /// What has come from it; the pipe, if somebody can still write to it.
    fn into_parts(self) -> (Said, Option<Descriptor>) {
        let mut fds = [PollFd::new(self.pipe.as_fd(), PollFlags::empty())];
        // Nothing but a hang-up can come.
        let hung_up = nix::poll::poll(&mut fds, PollTimeout::ZERO) == Ok(1);
        (self.said, (self.is_open && !hung_up).then_some(self.pipe))
    }
}

/// See the module.
#[derive(Debug)]
pub struct Child {
    pid: pid_t,
    fate: Arc<Fate>,
    pidfd: Option<Descriptor>,
    /// Its output, its errors. None when it is over.
    outputs: Option<[Output; 2]>,
    gate: Gate,
    stage: Stage,
    time_limit: Option<Duration>,
    grace: Duration,
    /// What it has said is complete.
    is_silent: bool,
    timed_out: bool,
    /// Its wait status, where that is known and nobody has given it to us.
    seen_status: Option<c_int>,
}

impl Child {
    /// Forks a child, which is held until [`Child::go`]. No lock of the caller's may be held: it calls the application.
    pub fn new(command: &Command, hooks: &dyn Hooks) -> Result<Self> {
        let Spawned { pid, fate, pidfd, output, errors, gate } = spawn::spawn(command, hooks)?;
        Ok(Child {
            pid,
            fate,
            pidfd,
            outputs: Some([output, errors].map(Output::new)),
            gate,
            stage: Stage::Held,
            time_limit: command.time_limit,
            grace: command.grace,
            is_silent: false,
            timed_out: false,
            seen_status: None,
        })
    }

    /// Its number.
    pub fn pid(&self) -> pid_t {
        self.pid
    }

    /// Readable when it has ended.
    pub fn pidfd(&self) -> Option<BorrowedFd<'_>> {
        self.pidfd.as_ref().map(AsFd::as_fd)
    }

    /// Each readable when it has written something there.
    pub fn outputs(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.outputs.iter().flatten().map(|output| output.pipe.as_fd())
    }

    /// Lets it run.
    pub fn go(&mut self) {
        if self.stage == Stage::Held {
            self.stage = Stage::Running(self.time_limit.map(|limit| now() + limit));
            self.gate.open();
        }
    }

    /// Its time is up now.
    pub fn hurry(&mut self) {
        if let Stage::Running(_) = self.stage {
            self.stage = Stage::Running(Some(now()));
        }
    }

    /// Reads what it has written, as much as a pipe holds. Those of its outputs that have come to their end.
    pub fn read(&mut self) -> impl Iterator<Item = BorrowedFd<'_>> {
        for output in self.outputs.iter_mut().flatten() {
            output.read(READ_AT_ONCE, !self.is_silent);
        }
        self.outputs.iter().flatten().filter(|output| !output.is_open).map(|output| output.pipe.as_fd())
    }

    /// It has ended, and so has what it says.
    fn hear_last(&mut self) {
        if !std::mem::replace(&mut self.is_silent, true) {
            self.outputs.iter_mut().flatten().for_each(Output::read_last);
        }
    }

    /// What has become of it by now; sends the signals whose time has come. With `may_reap` its status is taken from the
    /// kernel, without it that is left to the application for a while.
    pub fn look(&mut self, may_reap: bool) -> Seen {
        let now = now();
        if self.stage != Stage::Done && self.is_over(now, may_reap) {
            self.stage = Stage::Done;
            process::disown(self.pid, &self.fate);
            self.hear_last();
        }
        let deadline = match self.stage {
            Stage::Done => return Seen::Done,
            Stage::Ended(_) => return Seen::Ended(now + TICK),
            Stage::Running(Some(limit)) if limit <= now => {
                self.timed_out = true;
                self.signal(libc::SIGTERM);
                self.stage = Stage::Terminated(now + self.grace);
                Some(now + self.grace)
            }
            Stage::Terminated(limit) if limit <= now => {
                self.signal(libc::SIGKILL);
                self.stage = Stage::Killed;
                None
            }
            Stage::Running(limit) => limit,
            Stage::Terminated(limit) => Some(limit),
            Stage::Killed | Stage::Held => None,
        };
        if self.pidfd.is_some() {
            return Seen::Runs(deadline);
        }
        let tick = now + SLOW_TICK;
        Seen::Runs(Some(deadline.map_or(tick, |deadline| deadline.min(tick))))
    }

    /// Whether all is known that will be.
    fn is_over(&mut self, now: Monotonic, may_reap: bool) -> bool {
        if self.fate.status().is_some() {
            return true;
        }
        let ended = match self.stage {
            Stage::Ended(since) => Some(since),
            _ if self.has_ended() => {
                self.seen_status = self.peek();
                self.kill_what_is_left();
                self.hear_last();
                self.stage = Stage::Ended(now);
                Some(now)
            }
            // Its pidfd will tell.
            _ if self.pidfd.is_some() => return false,
            _ => None,
        };
        let waited = ended.map(|since| now.saturating_sub(since));
        if !may_reap && waited.is_none_or(|waited| waited < REAPING) {
            return false;
        }
        match process::reap(self.pid, &self.fate) {
            Asked::Ended => true,
            Asked::Runs => false,
            Asked::Gone => {
                if waited.is_none() {
                    self.hear_last();
                    self.stage = Stage::Ended(now);
                }
                // Who has it may be about to tell us, and would be told that it is no child of ours.
                waited.is_some_and(|waited| waited >= TELLING)
            }
        }
    }

    /// What its pidfd says.
    fn has_ended(&self) -> bool {
        let Some(pidfd) = self.pidfd.as_ref().filter(|pidfd| pidfd.is_ours()) else { return false };
        let mut fds = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
        nix::poll::poll(&mut fds, PollTimeout::ZERO) == Ok(1)
    }

    /// What has become of it, and what it has left, after [`Seen::Done`].
    pub fn outcome(mut self) -> (Outcome, Left) {
        let status = self.fate.status().or(self.seen_status).or_else(|| self.status_kept());
        let end = match (self.gate.refusal(), status) {
            (Some(errno), _) => End::NotStarted(errno),
            (None, Some(status)) if libc::WIFEXITED(status) => End::Exited(libc::WEXITSTATUS(status)),
            (None, Some(status)) if libc::WIFSIGNALED(status) => End::Signalled(libc::WTERMSIG(status)),
            _ => End::Unknown,
        };
        // It may not be over, if the kernel can't let go of it.
        self.hear_last();
        let mut outcome = Outcome { end, output: Said::default(), errors: Said::default(), timed_out: self.timed_out };
        let mut left = Vec::new();
        if let Some(outputs) = self.outputs.take() {
            let [output, errors] = outputs.map(|output| {
                let (said, pipe) = output.into_parts();
                left.extend(pipe);
                said
            });
            (outcome.output, outcome.errors) = (output, errors);
        }
        (outcome, Left::new(left))
    }

    /// Kills it, and waits until it is dead, which is now, unless the kernel can't let go of it. Not under a lock.
    pub fn kill_and_wait(&mut self, may_reap: bool) {
        // One that the application has closed tells nothing.
        self.pidfd = self.pidfd.take().filter(Descriptor::is_ours);
        self.go_nowhere();
        let deadline = now() + TELLING;
        while self.look(may_reap) != Seen::Done && now() < deadline {
            if !may_reap && self.has_ended() {
                // The application finds it.
                self.stage = Stage::Done;
                process::disown(self.pid, &self.fate);
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn go_nowhere(&mut self) {
        if !matches!(self.stage, Stage::Ended(_) | Stage::Done) {
            self.signal(libc::SIGKILL);
            self.stage = Stage::Killed;
        }
    }

    /// To the child and to what it has started, unless it has ended: then the number may be another's.
    fn signal(&self, signal: c_int) {
        if self.fate.status().is_none() && !self.has_ended() {
            send(self.pid, signal);
        }
    }

    /// A child that has ended after it was told to may leave behind what didn't want to. As long as the child is unreaped,
    /// the group's number is its own.
    fn kill_what_is_left(&self) {
        if self.timed_out && self.is_unreaped() {
            send(self.pid, libc::SIGKILL);
        }
    }

    fn is_unreaped(&self) -> bool {
        self.peek().is_some()
    }

    /// Its wait status, if it has ended and nobody has reaped it. That is left to whose matter it is.
    fn peek(&self) -> Option<c_int> {
        // SAFETY: all zero is a valid siginfo_t, and the call writes to nothing else; what is read is there for an end.
        unsafe {
            let mut info: libc::siginfo_t = std::mem::zeroed();
            let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
            if libc::waitid(libc::P_PID, self.pid.unsigned_abs(), &mut info, options) != 0 || info.si_pid() == 0 {
                return None;
            }
            Some(match info.si_code {
                libc::CLD_EXITED => (info.si_status() & 0xff) << 8,
                _ => info.si_status(),
            })
        }
    }

    /// Its wait status after somebody has reaped it, from a kernel that keeps it as long as there is a pidfd.
    fn status_kept(&self) -> Option<c_int> {
        let pidfd = self.pidfd.as_ref()?;
        // SAFETY: all zero is a valid pidfd_info, and the call writes to nothing else. It is given the size.
        unsafe {
            let mut info: libc::pidfd_info = std::mem::zeroed();
            info.mask = u64::from(libc::PIDFD_INFO_EXIT);
            let result = libc::ioctl(pidfd.as_raw_fd(), libc::PIDFD_GET_INFO, &mut info);
            (result == 0 && info.mask & u64::from(libc::PIDFD_INFO_EXIT) != 0).then_some(info.exit_code)
        }
    }
}

/// To a process group, or to the process if it is not, or not yet, one.
fn send(pid: pid_t, signal: c_int) {
    // SAFETY: no memory is involved.
    unsafe {
        if libc::kill(-pid, signal) != 0 {
            libc::kill(pid, signal);
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.stage != Stage::Done {
            self.go_nowhere();
            // Dead in a moment; who reaps the others may reap it too.
            let _ = process::reap(self.pid, &self.fate);
            process::disown(self.pid, &self.fate);
        }
    }
}
