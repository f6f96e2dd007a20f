// SPDX-License-Identifier: LGPL-2.1-or-later
//! `xlevent watch`: a line for each thing that happens to a domain.
//!
//! - Which domains to watch is found out first, then they are watched; what was so at the beginning is left out unless it
//!   was asked for (`host::Beginning`), so that nothing falls in between.
//! - Whatever may wait for somebody has a thread of its own: the library and the hypervisor (`source`), the names
//!   (`names`), standard output (`output`). They post what comes of it.
//! - The main thread waits in one place (`Watching::turn`): for what is posted, for a signal, for the time to pass, and for the one who
//!   reads our output to go away. So each of these ends the command at once. Threads that still wait are left behind.
//! - A line is written with one write, as soon as there is the event and the domain's name, for which it waits a moment
//!   (`queue`).

mod choose;
mod host;
mod line;
mod lives;
mod mailbox;
mod names;
mod queue;
mod signals;
mod source;

use std::collections::HashSet;
use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use xlevent::error::Error;
use xlevent::event::Kind;
use xlevent::evgen::targets::Subject;
use xlevent::xen::hypervisor::DomainInfo;

use crate::args::{self, Wanted};
use crate::exit::{Failure, Result};
use crate::output::Writer;
use host::{Beginning, CONTROL_DOMAIN};
use line::Happening;
use lives::Lives;
use mailbox::{Mailbox, Post, mailbox};
use names::{Answer, Names};
use queue::{Pending, Queue};
use signals::Signals;
use source::{Found, News, Source};

/// How long xenstored and the hypervisor may let us wait for any one thing at the beginning.
const PATIENCE: Duration = Duration::from_secs(10);

/// If the time is up at the beginning, and there was no answer for this long, that is the reason.
const SILENCE: Duration = Duration::from_millis(500);

/// How long the reader may take for the last lines, when a signal or the time ends the command.
const PARTING: Duration = Duration::from_millis(100);

/// While so many lines are not written, no more events are taken: what becomes of the domains meanwhile is seen later.
const BACKLOG: usize = 1000;

/// What threads post.
pub enum Message {
    Found(Found),
    Names(Answer),
    /// Output was written, or can't be.
    Output,
}

/// Why the main thread waits no more.
#[derive(Debug)]
enum Stop {
    /// All has been done.
    Done,
    /// A signal has come.
    Signal,
    /// Nobody reads what is written.
    NoReader,
    Failure(Failure),
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Stop::Failure(failure)
    }
}

type Step<T> = std::result::Result<T, Stop>;

pub fn watch(watch: &args::Watch) -> Result<()> {
    let signals = Signals::catch()?;
    let begin = Instant::now();
    let failed = |why| Failure::failed("beginning", why);
    let (post, mailbox) = mailbox().map_err(failed)?;
    let tell = post.clone();
    let output = io::stdout().as_fd().try_clone_to_owned();
    let output = output.and_then(|stdout| Writer::start(stdout, move || tell.send(Message::Output))).map_err(failed)?;
    let mut watching = Watching {
        signals,
        mailbox,
        output,
        // A time that no clock comes to is no limit.
        deadline: watch.timeout.and_then(|timeout| begin.checked_add(timeout)),
        progress: begin,
        source: Source::start(post.clone())?,
        names: None,
        connected: false,
        lives: Lives::default(),
        queue: Queue::default(),
        there: None,
        watches: false,
        beginning: Beginning::default(),
        chosen: Vec::new(),
        since_start: watch.since_start,
        left: None,
        lines: watch.count.unwrap_or(u64::MAX),
        json: watch.json,
        held_back: false,
    };
    let Err(stop) = watching.run(&watch.domain, &post);
    match stop {
        Stop::Done | Stop::NoReader => Ok(()),
        Stop::Signal => {
            watching.part();
            Ok(())
        }
        Stop::Failure(failure) => {
            if matches!(failure, Failure::TimeIsUp(_)) {
                watching.part();
            }
            Err(failure)
        }
    }
}

/// What is known while events come.
struct Watching {
    signals: Signals,
    mailbox: Mailbox<Message>,
    output: Writer,
    deadline: Option<Instant>,
    /// When something was last heard of, at the beginning.
    progress: Instant,
    source: Source,
    names: Option<Names>,
    /// xenstored can be asked for names.
    connected: bool,
    lives: Lives,
    queue: Queue,
    there: Option<Vec<DomainInfo>>,
    /// Events come from now on.
    watches: bool,
    beginning: Beginning,
    /// Those that were named.
    chosen: Vec<DomainInfo>,
    since_start: bool,
    /// The domains that are still to die, where some were named.
    left: Option<HashSet<u32>>,
    /// How many lines are still to be written.
    lines: u64,
    json: bool,
    /// The source waits until there are fewer lines to write.
    held_back: bool,
}

impl Watching {
    /// Never returns but to stop.
    fn run(&mut self, wanted: &[Wanted], post: &Post<Message>) -> Step<std::convert::Infallible> {
        let subjects = self.prepare(wanted, post)?;
        self.source.watch(subjects);
        self.until("xenstored", |watching| watching.watches)?;
        loop {
            self.release()?;
            let all_dead = self.left.as_ref().is_some_and(HashSet::is_empty) && self.queue.is_empty();
            if all_dead || self.lines == 0 {
                while self.output.left() > 0 {
                    self.turn(None)?;
                }
                self.check_output()?;
                return Err(Stop::Done);
            }
            self.turn(self.next_time())?;
        }
    }

    /// Finds out what to watch.
    fn prepare(&mut self, wanted: &[Wanted], post: &Post<Message>) -> Step<Vec<Subject>> {
        self.until("the hypervisor", |watching| watching.there.is_some())?;
        let there = self.there.take().unwrap_or_default();
        self.names = Some(Names::start(post.clone())?);
        self.until("xenstored", |watching| watching.connected)?;
        if !self.since_start {
            self.beginning = Beginning::of(&there);
        }
        if wanted.is_empty() {
            // Also those that are dead when their first event comes.
            self.read_names(there.iter().filter(|info| info.domid() != CONTROL_DOMAIN), true)?;
            return Ok(vec![Subject::Any]);
        }
        if wanted.iter().any(|wanted| matches!(wanted, Wanted::Name(_))) {
            self.read_names(there.iter(), false)?;
        }
        let name = |domid| self.lives.of(domid).and_then(|id| self.lives.name(id));
        self.chosen = choose::choose(wanted, &there, name)?;
        self.left = Some(self.chosen.iter().map(DomainInfo::domid).collect());
        self.lives = Lives::default();
        let chosen = self.chosen.clone();
        self.read_names(chosen.iter(), true)?;
        Ok(chosen.iter().map(|info| Subject::Domain(info.domid())).collect())
    }

    /// Has the names of these read.
    fn read_names<'a>(&mut self, domains: impl Iterator<Item = &'a DomainInfo>, follow: bool) -> Step<()> {
        let now = Instant::now();
        for info in domains {
            self.lives.found(info.domid(), info.uuid());
            self.names.as_mut().map(|names| names.ask(info.domid(), follow, now));
        }
        self.until("xenstored", |watching| watching.names.as_ref().is_none_or(Names::all_answered))
    }

    /// Waits for something at the beginning.
    fn until(&mut self, whose: &str, condition: impl Fn(&Self) -> bool) -> Step<()> {
        self.progress = Instant::now();
        while !condition(self) {
            let limit = self.progress + PATIENCE;
            let result = self.turn(Some(limit));
            let silent = self.progress.elapsed();
            match result {
                Err(Stop::Failure(Failure::TimeIsUp(_))) if silent >= SILENCE => {
                    let why = format!("the time is up, and {whose} doesn't answer");
                    return Err(Failure::TimeIsUp(Some(why)).into());
                }
                Ok(()) if silent >= PATIENCE => {
                    let text = format!("{whose} doesn't answer within {} s", PATIENCE.as_secs());
                    return Err(Failure::NoXen(text).into());
                }
                result => result?,
            }
        }
        Ok(())
    }

    /// Waits until something is posted, or for the time given; and takes in what is.
    fn turn(&mut self, limit: Option<Instant>) -> Step<()> {
        let now = Instant::now();
        if self.deadline.is_some_and(|deadline| deadline <= now) {
            return Err(Failure::TimeIsUp(None).into());
        }
        let until = [self.deadline, limit].into_iter().flatten().min();
        let stdout = io::stdout();
        // That nobody reads is always reported.
        let mut fds = [
            PollFd::new(self.mailbox.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(stdout.as_fd(), PollFlags::empty()),
        ];
        match poll(&mut fds, timeout(until.map(|until| until.saturating_duration_since(now)))) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(Failure::failed("waiting for events", errno).into()),
        }
        let gone = PollFlags::POLLERR | PollFlags::POLLHUP;
        if fds[1].any() == Some(true) {
            return Err(Stop::Signal);
        }
        if fds[2].revents().is_some_and(|revents| revents.intersects(gone)) {
            return Err(Stop::NoReader);
        }
        self.mailbox.take().into_iter().try_for_each(|message| self.take_in(message))
    }

    fn take_in(&mut self, message: Message) -> Step<()> {
        let now = Instant::now();
        self.progress = now;
        match message {
            Message::Found(Found::There(there)) => self.there = Some(there?),
            Message::Found(Found::Step) => {}
            Message::Found(Found::Watching) => self.begin(now),
            Message::Found(Found::News(news)) => {
                self.held_back = true;
                news.into_iter().for_each(|news| self.hear(news, now));
            }
            Message::Found(Found::Failed(failure)) => return Err(failure.into()),
            Message::Names(Answer::Connected(result)) => {
                result?;
                self.connected = true;
            }
            Message::Names(Answer::Name(reading)) => self.lives.learn(reading),
            Message::Names(Answer::Done(count)) => {
                if let Some(names) = &mut self.names {
                    names.done(count, now);
                }
            }
            Message::Output => self.check_output()?,
        }
        Ok(())
    }

    /// Events come from now on.
    fn begin(&mut self, now: Instant) {
        self.watches = true;
        if self.since_start {
            for info in std::mem::take(&mut self.chosen) {
                // As the library tells it where all domains are watched.
                let time = std::time::SystemTime::now();
                let (domid, uuid, kind) = (info.domid(), info.uuid(), Kind::DomainCreated);
                self.hear(News { time, received: now, domid, uuid, kind }, now);
            }
        }
    }

    /// Something has happened to a domain.
    fn hear(&mut self, news: News, now: Instant) {
        let News { time, received, domid, uuid, kind } = news;
        let (life, new) = self.lives.event(domid, uuid, kind);
        let uuid = self.lives.uuid(life);
        let dead = kind == Kind::DomainDeath;
        let awaited = dead && self.left.as_mut().is_some_and(|left| left.remove(&domid));
        // That a domain is dead which was waited for is always told.
        if self.beginning.has(domid, uuid, kind) && !awaited {
            if dead {
                self.forget(life, domid);
            }
            return;
        }
        // Of a dead one, too: it may have been given another name just before.
        let request = self.names.as_mut().map_or(0, |names| names.ask(domid, !dead, now));
        self.queue.push(Pending { time, received, domid, uuid, kind, life, request, new });
    }

    fn forget(&mut self, life: lives::LifeId, domid: u32) {
        if !self.lives.forget(life) {
            return;
        }
        if let Some(names) = &self.names {
            names.forget(domid);
        }
    }

    /// Until when nothing has to be done.
    fn next_time(&self) -> Option<Instant> {
        if self.queue.is_empty() {
            return None;
        }
        let now = Instant::now();
        let hangs = self.names.as_ref().and_then(Names::hangs_from).filter(|hangs| *hangs > now);
        [hangs, self.queue.next_time(now)].into_iter().flatten().min()
    }

    /// Writes the lines that wait no more, and has the source go on.
    fn release(&mut self) -> Step<()> {
        if let Some(names) = self.names.as_ref().filter(|_| !self.queue.is_empty()) {
            let now = Instant::now();
            let hangs = names.hangs_from().is_some_and(|hangs| hangs <= now);
            let ready = self.queue.take_ready(now, names.answered(), hangs, &self.lives);
            ready.into_iter().try_for_each(|pending| self.write(pending))?;
        }
        if self.held_back && self.queue.len() + self.output.left() < BACKLOG {
            self.held_back = false;
            self.source.go_on();
        }
        Ok(())
    }

    fn write(&mut self, pending: Pending) -> Result<()> {
        let Pending { time, domid, uuid, kind, life, .. } = pending;
        if self.lines > 0 {
            let name = self.lives.name(life).map(<[u8]>::to_vec);
            let uuid = if uuid == lives::UNKNOWN { self.lives.uuid(life) } else { uuid };
            let happening = Happening { time, domid, uuid, name, kind };
            let line = if self.json { happening.json() } else { Ok(happening.text()) };
            self.output.push(line.map_err(|why| Failure::failed("writing", why))?.into_bytes());
            self.lines -= 1;
        }
        if kind == Kind::DomainDeath {
            self.forget(life, domid);
        }
        Ok(())
    }

    fn check_output(&self) -> Step<()> {
        match self.output.take_failure() {
            None => Ok(()),
            Some(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Stop::NoReader),
            Some(error) => Err(Failure::failed("writing", error).into()),
        }
    }

    /// Writes what there is still to write, if somebody reads it at once.
    fn part(&mut self) {
        for pending in self.queue.take_all() {
            // It ends for another reason.
            let _ = self.write(pending);
        }
        self.output.finish(PARTING);
    }
}

/// Not before the time: poll counts whole milliseconds.
fn timeout(left: Option<Duration>) -> PollTimeout {
    let Some(left) = left else { return PollTimeout::NONE };
    let left = left.as_nanos().div_ceil(1_000_000);
    i32::try_from(left).ok().and_then(|left| PollTimeout::try_from(left).ok()).unwrap_or(PollTimeout::MAX)
}

/// A failure of the library's with what the system says.
pub fn describe(error: &Error) -> String {
    match error.errno() {
        Some(errno) => format!("{error}: {}", errno.desc()),
        None => error.to_string(),
    }
}
