// SPDX-License-Identifier: LGPL-2.1-or-later
//! One child of ours: its output, its time, its end. The stages are those of the room's heading.
//!
//! A child doesn't wait for anything by itself. Whoever has it looks at it ([`Child::look`]) when its pidfd is readable,
//! when somebody has told of its end, and when the time has come that the last look asked for; a look too many does no
//! harm. It is over when the process has ended, not when its output has: something that it has left behind may hold that
//! open for ever.
//!
//! Dropping a child that runs kills it.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use libc::{c_int, pid_t};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout};

use super::process::{self, Asked, Descriptor, Fate};
use super::spawn::{self, Gate, Spawned};
use super::{Command, Hooks};
use crate::error::Result;
use crate::reactor::{Monotonic, now};

/// How a child has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// By itself, with this status.
    Exited(i32),
    /// By this signal.
    Signalled(i32),
    /// Somebody else has taken its status, and hasn't told us.
    Unknown,
    /// It never was the program: why it couldn't be.
    NotStarted(Errno),
}

/// What has become of a child.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// How it has ended.
    pub end: End,
    /// What it has written to its output and errors, from the start.
    pub output: Vec<u8>,
    /// It has written more than that.
    pub truncated: bool,
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

/// How much one look reads of the output: what a pipe holds.
const READ_AT_ONCE: usize = 64 * 1024;

/// See the module.
#[derive(Debug)]
pub struct Child {
    pid: pid_t,
    fate: Arc<Fate>,
    pidfd: Option<Descriptor>,
    output: Descriptor,
    gate: Gate,
    stage: Stage,
    time_limit: Option<Duration>,
    grace: Duration,
    output_limit: usize,
    kept: Vec<u8>,
    truncated: bool,
    timed_out: bool,
}

impl Child {
    /// Forks a child, which is held until [`Child::go`]. No lock of the caller's may be held: it calls the application.
    pub fn new(command: &Command, hooks: &dyn Hooks) -> Result<Self> {
        let Spawned { pid, fate, pidfd, output, gate } = spawn::spawn(command, hooks)?;
        Ok(Child {
            pid,
            fate,
            pidfd,
            output,
            gate,
            stage: Stage::Held,
            time_limit: command.time_limit,
            grace: command.grace,
            output_limit: command.output_limit,
            kept: Vec::new(),
            truncated: false,
            timed_out: false,
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

    /// Readable when it has written something.
    pub fn output(&self) -> BorrowedFd<'_> {
        self.output.as_fd()
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

    /// Reads what it has written, as much as a pipe holds. False when there will be no more.
    pub fn read(&mut self) -> bool {
        if !self.output.is_ours() {
            return false;
        }
        let mut buffer = [0; 4096];
        let mut length = 0;
        while length < READ_AT_ONCE {
            match nix::unistd::read(&self.output, &mut buffer) {
                Ok(0) => return false,
                Ok(count) => {
                    length += count;
                    let room = self.output_limit - self.kept.len();
                    self.truncated |= count > room;
                    self.kept.extend_from_slice(&buffer[..count.min(room)]);
                }
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return true,
                Err(_) => return false,
            }
        }
        true
    }

    /// What has become of it by now; sends the signals whose time has come. With `may_reap` its status is taken from the
    /// kernel, without it that is left to the application for a while.
    pub fn look(&mut self, may_reap: bool) -> Seen {
        let now = now();
        if self.stage != Stage::Done && self.is_over(now, may_reap) {
            self.stage = Stage::Done;
            process::disown(self.pid, &self.fate);
            self.read();
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
                self.kill_what_is_left();
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
                    self.stage = Stage::Ended(now);
                }
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

    /// What has become of it, after [`Seen::Done`].
    pub fn outcome(mut self) -> Outcome {
        let end = match (self.gate.refusal(), self.fate.status()) {
            (Some(errno), _) => End::NotStarted(errno),
            (None, Some(status)) if libc::WIFEXITED(status) => End::Exited(libc::WEXITSTATUS(status)),
            (None, Some(status)) if libc::WIFSIGNALED(status) => End::Signalled(libc::WTERMSIG(status)),
            _ => End::Unknown,
        };
        let output = std::mem::take(&mut self.kept);
        Outcome { end, output, truncated: self.truncated, timed_out: self.timed_out }
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
        // SAFETY: all zero is a valid siginfo_t, and the call writes to nothing else.
        unsafe {
            let mut info = std::mem::zeroed();
            let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
            libc::waitid(libc::P_PID, self.pid.unsigned_abs(), &mut info, options) == 0
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
