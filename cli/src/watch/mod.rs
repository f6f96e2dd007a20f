// SPDX-License-Identifier: LGPL-2.1-or-later
//! `xlevent watch`: a line for each thing that happens to a domain.
//!
//! - Which domains to watch is found out first, then they are watched; what was so at the beginning is left out unless it
//!   was asked for (`host::Beginning`), so that nothing falls in between.
//! - One loop waits for the library's descriptor, for a signal, for the time to pass, and for whoever reads our output to
//!   go away.
//! - A line is written with one write, as soon as there is the event.

mod host;
mod line;
mod signals;

use std::collections::{HashMap, HashSet, VecDeque};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use xlevent::context::{Context, EventHooks};
use xlevent::error::Error;
use xlevent::event::{Event, Kind};
use xlevent::evgen::domain_state::{CREATED, STATES};
use xlevent::evgen::targets::Subject;
use xlevent::xen::hypervisor::DomainInfo;
use xlevent::xen::log::{Level, Line, LogSink, printable};

use crate::args;
use crate::exit::{Failure, Result, complain};
use host::{Beginning, CONTROL_DOMAIN, Names};
use line::Happening;
use signals::Signals;

pub fn watch(watch: &args::Watch) -> Result<()> {
    let signals = Signals::catch()?;
    let begin = Instant::now();
    let there = host::domains()?;
    let mut names = Names::open()?;
    // Also those that are dead when their first event comes.
    for info in there.iter().filter(|info| info.domid() != CONTROL_DOMAIN) {
        names.of(info.domid(), info.uuid(), true);
    }
    let chosen = choose(&watch.domain, &there, &mut names)?;

    let context = Context::standalone(Arc::new(Log)).map_err(|error| Failure::NoXen(describe(&error)))?;
    context.set_event_hooks(Some(Arc::new(Disasters)));
    let enable = |subject, states| {
        context.enable_domain_state(subject, states, 0).map_err(|error| Failure::NoXen(describe(&error)))
    };
    match &chosen {
        None => drop(enable(Subject::Any, STATES | CREATED)?),
        Some(chosen) => {
            for info in chosen {
                enable(Subject::Domain(info.domid()), STATES)?;
            }
        }
    }

    let mut watching = Watching {
        names,
        beginning: Beginning::of(if watch.since_start { &[] } else { &there }),
        left: chosen.as_ref().map(|chosen| chosen.iter().map(DomainInfo::domid).collect()),
        lines: watch.count.unwrap_or(u64::MAX),
        json: watch.json,
    };
    if watch.since_start {
        for info in chosen.iter().flatten() {
            // As the library tells it where all domains are watched.
            if watching.tell(info.domid(), info.uuid(), Kind::DomainCreated)? == Next::End {
                return Ok(());
            }
        }
    }
    // A time that no clock comes to is no limit.
    watching.follow(&context, &signals, watch.timeout.and_then(|timeout| begin.checked_add(timeout)))
}

/// The domains that are named, `None` for all of them.
fn choose(wanted: &[String], there: &[DomainInfo], names: &mut Names) -> Result<Option<Vec<DomainInfo>>> {
    if wanted.is_empty() {
        return Ok(None);
    }
    let mut chosen: HashMap<u32, DomainInfo> = HashMap::new();
    for wanted in wanted {
        let (found, shown): (Vec<&DomainInfo>, String) = match wanted.parse::<u32>() {
            Ok(domid) => (there.iter().filter(|info| info.domid() == domid).collect(), domid.to_string()),
            Err(_) => {
                let is_called = |info: &&DomainInfo| {
                    names.of(info.domid(), info.uuid(), true).is_some_and(|name| name == wanted.as_bytes())
                };
                // A name may be empty, or have blanks.
                (there.iter().filter(is_called).collect(), format!("'{}'", line::printable(wanted.as_bytes())))
            }
        };
        match found[..] {
            [] => return Err(Failure::Failed(format!("there is no domain {shown}"))),
            [info] => drop(chosen.insert(info.domid(), *info)),
            _ => {
                let domids: Vec<_> = found.iter().map(|info| info.domid().to_string()).collect();
                return Err(Failure::Failed(format!("{shown} is the name of several domains: {}", domids.join(", "))));
            }
        }
    }
    let mut chosen: Vec<DomainInfo> = chosen.into_values().collect();
    chosen.sort_by_key(DomainInfo::domid);
    Ok(Some(chosen))
}

/// Of an event whose domain's UUID could not be learnt.
const UNKNOWN: [u8; 16] = [0; 16];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    GoOn,
    End,
}

/// What is known while events come.
struct Watching {
    names: Names,
    beginning: Beginning,
    /// The domains that are still to die, where some were named.
    left: Option<HashSet<u32>>,
    /// How many lines are still to be written.
    lines: u64,
    json: bool,
}

impl Watching {
    fn follow(&mut self, context: &Context, signals: &Signals, deadline: Option<Instant>) -> Result<()> {
        let fd = context.fd().map_err(|error| Failure::failed("waiting for events", describe(&error)))?;
        let stdout = io::stdout();
        loop {
            let mut events = VecDeque::new();
            context.dispatch(u64::MAX, &mut |event| events.push_back(event));
            for event in events {
                if self.take(&event)? == Next::End {
                    return Ok(());
                }
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                return Err(Failure::TimeIsUp);
            }
            // That nobody reads is always reported.
            let mut fds = [
                PollFd::new(fd, PollFlags::POLLIN),
                PollFd::new(signals.as_fd(), PollFlags::POLLIN),
                PollFd::new(stdout.as_fd(), PollFlags::empty()),
            ];
            match poll(&mut fds, timeout(left)) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(Failure::failed("waiting for events", errno)),
            }
            let gone = PollFlags::POLLERR | PollFlags::POLLHUP;
            if fds[1].any() == Some(true) || fds[2].revents().is_some_and(|revents| revents.intersects(gone)) {
                return Ok(());
            }
        }
    }

    fn take(&mut self, event: &Event) -> Result<Next> {
        let (domid, kind) = (event.domid(), event.kind());
        let uuid = match event.uuid() {
            UNKNOWN => self.names.uuid(domid).unwrap_or(UNKNOWN),
            uuid => uuid,
        };
        let dead = kind == Kind::DomainDeath;
        let awaited = dead && self.left.as_mut().is_some_and(|left| left.remove(&domid));
        // That a domain is dead which was waited for is always told.
        let old = self.beginning.has(domid, uuid, kind) && !awaited;
        let next = if old { Next::GoOn } else { self.tell(domid, uuid, kind)? };
        if dead {
            self.names.forget(domid, uuid);
        }
        Ok(if self.left.as_ref().is_some_and(HashSet::is_empty) { Next::End } else { next })
    }

    fn tell(&mut self, domid: u32, uuid: [u8; 16], kind: Kind) -> Result<Next> {
        let time = SystemTime::now();
        let name = self.names.of(domid, uuid, kind != Kind::DomainDeath);
        let happening = Happening { time, domid, uuid, name, kind };
        let line = if self.json { happening.json() } else { Ok(happening.text()) };
        let mut stdout = io::stdout().lock();
        match line.and_then(|line| stdout.write_all(line.as_bytes())).and_then(|()| stdout.flush()) {
            Ok(()) => {}
            // Nobody reads any more.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(Next::End),
            Err(error) => return Err(Failure::failed("writing", error)),
        }
        self.lines -= 1;
        Ok(if self.lines == 0 { Next::End } else { Next::GoOn })
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

/// What the library has to say that a user should know.
struct Log;

impl LogSink for Log {
    fn write(&self, line: &Line) {
        if line.level >= Level::Warn {
            let text = printable(&line.text);
            match line.errno {
                Some(errno) => complain(format_args!("{text}: {}", errno.desc())),
                None => complain(text),
            }
        }
    }
}

/// Events may be missing: the log has said so, and the next that come are still wanted.
struct Disasters;

impl EventHooks for Disasters {
    fn mask(&self) -> u64 {
        0
    }

    fn event_occurs(&self, _event: Event) {}

    fn disaster(&self, _event_type: u32, _message: &str, _errno: i32) -> bool {
        true
    }
}
