// SPDX-License-Identifier: LGPL-2.1-or-later
//! Children with real programs, on contexts without Xen. SIGCHLD and children are the process's, so each test runs in a
//! process of its own: the test's program again, with this test alone.

use std::mem::{self, MaybeUninit};
use std::sync::atomic::AtomicUsize;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use libc::{c_int, pid_t};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout};

use super::*;
use crate::childproc::{Answer, Command, End, Hooks, NoHooks, Outcome, Owner, Said, said};
use crate::xen::log::Level;

const PATIENCE: Duration = Duration::from_secs(60);

mod left;
mod life;
mod programs;
mod reaping;

// ---- a process for each test ----

const ALONE: &str = "XLEVENT_TEST_ALONE";

macro_rules! tests {
    ($(fn $name:ident() $body:block)*) => {$(
        #[test]
        fn $name() {
            alone(concat!(module_path!(), "::", stringify!($name)), || $body)
        }
    )*};
}
use tests;

fn alone(path: &str, test: impl FnOnce()) {
    // As the test's frame has it: without the crate.
    let (_, name) = path.split_once("::").unwrap();
    if std::env::var(ALONE).is_ok_and(|wanted| wanted == name) {
        return test();
    }
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture"])
        .env(ALONE, name)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

// ---- a context, and an application ----

#[derive(Default)]
struct Log(Mutex<Vec<Line>>);

impl LogSink for Log {
    fn write(&self, line: &Line) {
        self.0.lock().push(line.clone());
    }
}

impl Log {
    /// Levels and texts since the last look.
    fn take(&self) -> Vec<(Level, String)> {
        mem::take(&mut *self.0.lock()).into_iter().map(|line| (line.level, line.text)).collect()
    }
}

fn context() -> (Arc<Context>, Arc<Log>) {
    let log = Arc::new(Log::default());
    (Context::new(log.clone(), None, None, None).unwrap(), log)
}

/// As beside a libxenlight that does nothing.
fn context_beside() -> Arc<Context> {
    struct Idle;
    impl Libxl for Idle {
        fn occurred_fd(&self, _for_libxl: ForLibxl, _fd: i32, _events: i16, _revents: i16) {}
        fn occurred_timeout(&self, _for_libxl: ForLibxl) {}
    }
    Context::beside(Arc::new(Idle), Arc::new(Log::default())).unwrap()
}

/// An application that counts what it is asked for.
struct Application {
    answer: Mutex<Answer>,
    forks: AtomicUsize,
    fork_fails: Option<Errno>,
    told: Mutex<Vec<(pid_t, c_int)>>,
}

fn application() -> Arc<Application> {
    Arc::new(Application {
        answer: Mutex::new(Answer::Noted),
        forks: AtomicUsize::new(0),
        fork_fails: None,
        told: Mutex::new(Vec::new()),
    })
}

impl Hooks for Application {
    fn fork(&self) -> pid_t {
        self.forks.fetch_add(1, Ordering::Relaxed);
        match self.fork_fails {
            None => NoHooks.fork(),
            Some(errno) => {
                errno.set();
                -1
            }
        }
    }

    fn reaped(&self, pid: pid_t, status: c_int) -> Answer {
        self.told.lock().push((pid, status));
        *self.answer.lock()
    }
}

fn start(context: &Context, command: &Command) -> (pid_t, Receiver<Outcome>) {
    let (tell, hear) = channel();
    let pid = context.run_child(command, teller(tell)).unwrap();
    (pid, hear)
}

fn teller(tell: Sender<Outcome>) -> Completion {
    Box::new(move |outcome| tell.send(outcome).unwrap())
}

fn is_readable(context: &Context) -> bool {
    let mut fds = [PollFd::new(context.fd().unwrap(), PollFlags::POLLIN)];
    nix::poll::poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}

/// Drives a context, as an application's loop does, until it is so.
fn drive_until(context: &Context, mut so: impl FnMut() -> bool) {
    let end = now() + PATIENCE;
    while !so() {
        let mut fds = [PollFd::new(context.fd().unwrap(), PollFlags::POLLIN)];
        // Not for ever: what is waited for may be on no descriptor. A signal may end it, too.
        let _ = nix::poll::poll(&mut fds, PollTimeout::from(20u8));
        context.occurred();
        assert!(now() < end, "it never happens");
    }
}

fn await_outcome(context: &Context, hear: &Receiver<Outcome>) -> Outcome {
    let mut outcome = None;
    drive_until(context, || {
        outcome = hear.try_recv().ok();
        outcome.is_some()
    });
    outcome.unwrap()
}

fn run(context: &Context, command: &Command) -> Outcome {
    let (_, hear) = start(context, command);
    await_outcome(context, &hear)
}

fn sh(script: &str) -> Command {
    Command::new("/bin/sh").args(["-c", script])
}

/// What it has said on its output, which all was kept.
fn text(outcome: &Outcome) -> String {
    lines(&outcome.output)
}

fn lines(said: &Said) -> String {
    assert_eq!(said.left_out(), 0);
    let line = |line: &said::Line| format!("{}\n", std::str::from_utf8(&line.text).unwrap());
    said.first().chain(said.last()).map(line).collect()
}

/// Whether this thread has a signal blocked.
fn is_blocked(signal: c_int) -> bool {
    let mut mask = MaybeUninit::zeroed();
    // SAFETY: the set is this function's, and is only written to.
    unsafe {
        libc::pthread_sigmask(libc::SIG_BLOCK, std::ptr::null(), mask.as_mut_ptr());
        libc::sigismember(mask.as_ptr(), signal) == 1
    }
}

/// A child of the application's, which ends with this status.
fn short_lived(status: c_int) -> pid_t {
    // SAFETY: the child makes one call.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        // SAFETY: as above.
        unsafe { libc::_exit(status) };
    }
    pid
}

/// One that has ended, and waits to be reaped.
fn zombie(status: c_int) -> pid_t {
    let pid = short_lived(status);
    await_end(pid);
    pid
}

/// Waits until a child has ended, and leaves it unreaped; false if it was reaped before.
fn await_end(pid: pid_t) -> bool {
    // SAFETY: `info` is written to, and nothing else.
    unsafe {
        let mut info = mem::zeroed();
        libc::waitid(libc::P_PID, pid as u32, &mut info, libc::WEXITED | libc::WNOWAIT) == 0
    }
}

fn waitpid(pid: pid_t, options: c_int) -> Result<(pid_t, c_int)> {
    let mut status = 0;
    // SAFETY: `status` is written to, and nothing else.
    let pid = unsafe { libc::waitpid(pid, &mut status, options) };
    Errno::result(pid).map(|pid| (pid, status)).map_err(|errno| Error::os("waitpid", errno))
}

fn action() -> libc::sigaction {
    let mut action = MaybeUninit::zeroed();
    // SAFETY: a valid place; zero is a valid value.
    unsafe {
        libc::sigaction(libc::SIGCHLD, std::ptr::null(), action.as_mut_ptr());
        action.assume_init()
    }
}

fn disposition() -> usize {
    action().sa_sigaction
}

fn set_disposition(handler: usize) {
    // SAFETY: SIG_IGN, SIG_DFL or a function that does nothing.
    unsafe { libc::signal(libc::SIGCHLD, handler) };
}

fn handler_is_ours() -> bool {
    let action = action();
    ![libc::SIG_DFL, libc::SIG_IGN].contains(&action.sa_sigaction)
        && action.sa_flags & libc::SA_RESTART != 0
        && action.sa_flags & libc::SA_NOCLDSTOP != 0
}

/// From here on this system call does not exist, for this thread and its children.
fn without(call: libc::c_long) {
    let step = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    let refuse = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;
    let mut filter = [
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, call as u32),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, refuse),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: a filter of four steps that lives through the call.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        assert_eq!(libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program), 0);
        assert_eq!(libc::syscall(call, -1, 0, 0), -1);
    }
    assert_eq!(Errno::last(), Errno::ENOSYS);
}

/// Whether a process is there and is not a zombie.
fn lives(pid: pid_t) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
}

/// Whether a process is there, and has become this program.
fn lives_as(pid: pid_t, program: &str) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == program)
}

/// Whether the kernel says what a process ended with to whoever has a pidfd of it: 6.15 and later.
fn keeps_statuses() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(['.', '-', '\n']).map_while(|part| part.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(6), Some(15))
}
