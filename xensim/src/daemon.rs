// SPDX-License-Identifier: LGPL-2.1-or-later
//! The real xenstored of a host: found, started, stopped, waited for.
//!
//! Invariants:
//! - It is nobody's child: it is started by a process that has gone, so that the program under test gets no SIGCHLD for
//!   it and may reap what it likes.
//! - It is named by a process id and a start time, in a file; a number that has gone to another process is never
//!   signalled.
//! - In a host that has an owner it does not outlive the owner: the preloaded library in it asks the kernel for a
//!   signal when the last writer of the host's lifeline has closed it.

use std::ffi::{CStr, OsStr};
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::error::{Context, Error, Result};
use crate::evtchn::{Channels, VIRQ_DOM_EXC};
use crate::store::Store;
use crate::sys;
use crate::table::Table;

/// How long the daemon may take to come up or to go. Generous: the machine may be busy; nothing waits this long but a
/// failure.
const PATIENCE: Duration = Duration::from_secs(60);

/// Names the daemon's program; the environment variable for those who have their own.
pub const PROGRAM_VARIABLE: &str = "XENSIM_XENSTORED";

/// Tells the preloaded library that it is in the daemon.
pub const ROLE_VARIABLE: &str = "XENSIM_ROLE";
/// The same, for C.
pub const ROLE_VARIABLE_C: &CStr = c"XENSIM_ROLE";

/// How many bytes the daemon's heap may keep without using them.
const HEAP_SLACK: &str = "67108864";

/// The daemon of the host in a directory.
pub struct Daemon<'a> {
    dir: &'a Path,
    table: &'a Table,
}

/// What identifies a process for as long as the machine runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Identity {
    pid: libc::pid_t,
    start_time: u64,
}

impl Identity {
    fn of(pid: libc::pid_t) -> Option<Identity> {
        let status = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The second field is the program's name in parentheses, and may contain anything.
        let (_, fields) = status.rsplit_once(") ")?;
        let mut fields = fields.split(' ');
        let state = fields.next()?;
        let start_time = fields.nth(18)?.parse().ok()?;
        // A process that has ended and is waiting for its parent is gone.
        (!matches!(state, "Z" | "X")).then_some(Identity { pid, start_time })
    }

    fn parse(text: &str) -> Option<Identity> {
        let (pid, start_time) = text.trim_end().split_once(' ')?;
        Some(Identity { pid: pid.parse().ok()?, start_time: start_time.parse().ok()? })
    }
}

impl<'a> Daemon<'a> {
    /// The daemon of the host with this directory and table.
    pub fn new(dir: &'a Path, table: &'a Table) -> Daemon<'a> {
        Daemon { dir, table }
    }

    /// Its socket.
    pub fn socket(dir: &Path) -> PathBuf {
        dir.join("run/socket")
    }

    /// What it has written to its standard output and error.
    pub fn log(dir: &Path) -> PathBuf {
        dir.join("xenstored.log")
    }

    fn pid_file(&self) -> PathBuf {
        self.dir.join("xenstored.pid")
    }

    /// Its process id, while it runs.
    pub fn pid(&self) -> Option<i32> {
        let identity = Identity::parse(&fs::read_to_string(self.pid_file()).ok()?)?;
        (Identity::of(identity.pid) == Some(identity)).then_some(identity.pid)
    }

    /// Starts it, and waits until it serves and has bound its event channel. Running already is an error.
    pub fn start(&self, library: &Path) -> Result<()> {
        if let Some(pid) = self.pid() {
            return Err(Error::other(format!("xenstored (process {pid})"), "already runs"));
        }
        let program = find_program()?;
        let socket = Daemon::socket(self.dir);
        let _ = fs::remove_file(&socket);
        let pid = self.spawn(&program, library)?;
        let what = || format!("start {}", program.display());
        let identity = Identity::of(pid).ok_or_else(|| Error::other(what(), self.last_words()))?;
        fs::write(self.pid_file(), format!("{} {}\n", identity.pid, identity.start_time)).context(what)?;
        let deadline = Instant::now() + PATIENCE;
        let channels = Channels::new(self.table, self.dir);
        while !(channels.is_bound(VIRQ_DOM_EXC)
            && Store::connect(&socket).is_ok_and(|mut store| store.round_trip().is_ok()))
        {
            if self.pid().is_none() {
                return Err(Error::other(what(), self.last_words()));
            }
            if Instant::now() > deadline {
                return Err(Error::new(what(), io::Error::from(io::ErrorKind::TimedOut)));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    fn spawn(&self, program: &Path, library: &Path) -> Result<libc::pid_t> {
        let what = || format!("start {}", program.display());
        let log = File::options().create(true).append(true).open(Daemon::log(self.dir)).context(what)?;
        let (mut pid_in, pid_out) = pipe().context(what)?;
        let pid_out_number = pid_out.as_raw_fd();
        let mut command = Command::new(program);
        command.arg("-N").env_clear();
        command.env("LD_PRELOAD", library).env("XENSIM_DIR", self.dir).env(ROLE_VARIABLE, "xenstored");
        command.env("XENSTORED_RUNDIR", self.dir.join("run")).env("XENSTORED_ROOTDIR", self.dir.join("run"));
        // It allocates and frees much for each request in a large store: let its heap stay as large as it was, instead
        // of growing and shrinking each time.
        command.env("MALLOC_TRIM_THRESHOLD_", HEAP_SLACK).env("MALLOC_TOP_PAD_", HEAP_SLACK);
        command.current_dir("/").stdin(Stdio::null());
        command.stdout(log.try_clone().context(what)?).stderr(log);
        let detach = move || {
            // SAFETY: between fork and exec of a process that may have threads: nothing but system calls.
            unsafe {
                match libc::fork() {
                    -1 => Err(io::Error::last_os_error()),
                    0 => {
                        // Away from the terminal of whoever started us, and from its process group's signals.
                        libc::setsid();
                        let pid = libc::getpid().to_ne_bytes();
                        libc::write(pid_out_number, pid.as_ptr().cast(), pid.len());
                        Ok(())
                    }
                    _ => libc::_exit(0),
                }
            }
        };
        // SAFETY: as said there.
        unsafe { command.pre_exec(detach) };
        let mut starter = command.spawn().context(what)?;
        // Someone else in this process may reap all children, this one, too: then there is nothing to wait for.
        let _ = starter.wait();
        drop(pid_out);
        let mut pid = [0; 4];
        pid_in.read_exact(&mut pid).context(what)?;
        Ok(libc::pid_t::from_ne_bytes(pid))
    }

    /// The end of its log, for an error.
    fn last_words(&self) -> String {
        let mut text = String::new();
        if let Ok(mut log) = File::open(Daemon::log(self.dir)) {
            let length = log.metadata().map_or(0, |metadata| metadata.len());
            let _ = log.seek(SeekFrom::Start(length.saturating_sub(500)));
            let _ = log.read_to_string(&mut text);
        }
        let text = text.trim_end();
        if text.is_empty() { "it ended and said nothing".into() } else { format!("it ended and said: {text}") }
    }

    /// Kills it and waits until it has gone. What the store held is lost, as when the real one dies. False if none ran.
    pub fn kill(&self) -> Result<bool> {
        let what = || "stop xenstored";
        let killed = self.signal(libc::SIGKILL).context(what)?;
        let deadline = Instant::now() + PATIENCE;
        while killed && self.pid().is_some() {
            if Instant::now() > deadline {
                return Err(Error::new(what(), io::Error::from(io::ErrorKind::TimedOut)));
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        let _ = fs::remove_file(self.pid_file());
        Ok(killed)
    }

    /// Stops it where it stands (it answers nothing until it is continued), or lets it go on. False if none runs.
    pub fn pause(&self, pause: bool) -> Result<bool> {
        let signal = if pause { libc::SIGSTOP } else { libc::SIGCONT };
        self.signal(signal).context(|| "pause or continue xenstored")
    }

    /// False if it does not run.
    fn signal(&self, signal: libc::c_int) -> io::Result<bool> {
        let Some(pid) = self.pid() else { return Ok(false) };
        match sys::pidfd_open(pid) {
            // The number may have changed hands before it was opened.
            Ok(_) if self.pid() != Some(pid) => Ok(false),
            Ok(pidfd) => found(sys::pidfd_send_signal(&pidfd, signal)),
            // Under valgrind, which does not know the call: the number cannot change hands that fast.
            Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => found(sys::kill(pid, signal)),
            Err(error) => found(Err(error)),
        }
    }

    /// Waits until it has dealt with all events that were raised for it, and all that it sends because of them is on
    /// its way.
    pub fn settle(&self) -> Result<()> {
        let what = || "wait for xenstored";
        let channels = Channels::new(self.table, self.dir);
        let deadline = Instant::now() + PATIENCE;
        while !channels.is_settled(VIRQ_DOM_EXC) {
            if self.pid().is_none() {
                return Err(Error::other(what(), "it does not run"));
            }
            channels.finish_delivery(VIRQ_DOM_EXC).context(what)?;
            if Instant::now() > deadline {
                return Err(Error::new(what(), io::Error::from(io::ErrorKind::TimedOut)));
            }
            std::thread::sleep(Duration::from_micros(50));
        }
        Store::connect(&Daemon::socket(self.dir)).and_then(|mut store| store.round_trip()).context(what)
    }
}

/// A process that has gone meanwhile is no error.
fn found(result: io::Result<()>) -> io::Result<bool> {
    match result {
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(false),
        result => result.map(|()| true),
    }
}

fn pipe() -> io::Result<(File, File)> {
    let mut fds = [0; 2];
    // SAFETY: a place for two descriptors.
    if unsafe { libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: both just opened, and nobody else's.
    Ok(unsafe { (File::from_raw_fd(fds[0]), File::from_raw_fd(fds[1])) })
}

/// The daemon's program: the one that the environment names, or that of the newest Xen that is installed. Not the
/// wrapper in sbin, which starts Debian's choice for the Xen that runs.
fn find_program() -> Result<PathBuf> {
    if let Some(program) = std::env::var_os(PROGRAM_VARIABLE).filter(|program| !program.is_empty()) {
        return Ok(program.into());
    }
    let version = |name: &OsStr| -> Option<Vec<u32>> {
        let digits = name.to_str()?.strip_prefix("xen-")?;
        digits.split('.').map(|part| part.parse().ok()).collect()
    };
    let mut found: Vec<(Vec<u32>, PathBuf)> = Vec::new();
    for folder in fs::read_dir("/usr/lib").into_iter().flatten().flatten() {
        let program = folder.path().join("bin/xenstored");
        if let Some(version) = version(&folder.file_name()).filter(|_| program.is_file()) {
            found.push((version, program));
        }
    }
    found.sort();
    let elsewhere = || {
        ["/usr/libexec/xen/bin/xenstored", "/usr/local/sbin/xenstored"]
            .map(PathBuf::from)
            .into_iter()
            .find(|program| program.is_file())
    };
    found.pop().map(|(_, program)| program).or_else(elsewhere).ok_or_else(|| {
        Error::other(
            "find xenstored",
            format!("it is in Debian's packages xen-utils-4.*; {PROGRAM_VARIABLE} may name another"),
        )
    })
}

/// Writes a line to the daemon's log: what was done to it, among what it says itself.
pub(crate) fn note(dir: &Path, line: &str) {
    if let Ok(mut log) = File::options().append(true).create(true).open(Daemon::log(dir)) {
        let _ = log.write_all(format!("xensim: {line}\n").as_bytes());
    }
}
