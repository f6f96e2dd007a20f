// SPDX-License-Identifier: LGPL-2.1-or-later
//! Where events come from: the library, in a thread of its own, as it may have to wait for xenstored.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Instant, SystemTime};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use xlevent::context::{Context, EventHooks};
use xlevent::event::{Event, Kind};
use xlevent::evgen::domain_state::{CREATED, STATES};
use xlevent::evgen::targets::Subject;
use xlevent::xen::hypervisor::DomainInfo;
use xlevent::xen::log::{Level, Line, LogSink, printable};

use super::mailbox::Post;
use super::{Message, describe, host};
use crate::exit::{Failure, Result, complain};

/// What the thread posts.
pub enum Found {
    /// All domains, at the beginning.
    There(Result<Vec<DomainInfo>>),
    /// One step further on the way to the first event.
    Step,
    /// From now on events come.
    Watching,
    /// Events, in their order. It goes on when it is told to.
    News(Vec<News>),
    /// There will be no events.
    Failed(Failure),
}

/// An event.
#[derive(Debug)]
pub struct News {
    pub time: SystemTime,
    pub received: Instant,
    pub domid: u32,
    /// All zero if it isn't known.
    pub uuid: [u8; 16],
    pub kind: Kind,
}

/// Sees to it that a panic of the thread's, which says itself what it is, is not waited out.
struct End(Post<Message>);

impl Drop for End {
    fn drop(&mut self) {
        if thread::panicking() {
            let failure = Failure::Failed("there are no more events".to_owned());
            self.0.send(Message::Found(Found::Failed(failure)));
        }
    }
}

/// The thread.
pub struct Source {
    subjects: Sender<Vec<Subject>>,
    go_on: Sender<()>,
}

impl Source {
    /// Has it list the domains, and wait to be told which to watch.
    pub fn start(post: Post<Message>) -> Result<Self> {
        let (subjects, to_watch) = channel::<Vec<Subject>>();
        let (go_on, may_go_on) = channel();
        let work = move || {
            let _end = End(post.clone());
            let post = |found| post.send(Message::Found(found));
            post(Found::There(host::domains()));
            let Ok(subjects) = to_watch.recv() else { return };
            if let Err(failure) = follow(&subjects, &may_go_on, &post) {
                post(Found::Failed(failure));
            }
        };
        let started = thread::Builder::new().name("events".to_owned()).spawn(work);
        started.map_err(|why| Failure::failed("waiting for events", why))?;
        Ok(Source { subjects, go_on })
    }

    /// Has these watched.
    pub fn watch(&self, subjects: Vec<Subject>) {
        // If it has ended, it has said why.
        let _ = self.subjects.send(subjects);
    }

    /// Wants the next events.
    pub fn go_on(&self) {
        let _ = self.go_on.send(());
    }
}

fn follow(subjects: &[Subject], may_go_on: &Receiver<()>, post: &dyn Fn(Found)) -> Result<()> {
    let no_xen = |error| Failure::NoXen(describe(&error));
    let context = Context::standalone(Arc::new(Log)).map_err(no_xen)?;
    context.set_event_hooks(Some(Arc::new(Disasters)));
    for subject in subjects {
        post(Found::Step);
        let states = match subject {
            Subject::Any => STATES | CREATED,
            Subject::Domain(_) => STATES,
        };
        context.enable_domain_state(*subject, states, 0).map_err(no_xen)?;
    }
    let fd = context.fd().map_err(|error| Failure::failed("waiting for events", describe(&error)))?;
    post(Found::Watching);
    loop {
        let mut events = Vec::new();
        context.dispatch(u64::MAX, &mut |event| events.push(News::of(&event)));
        if !events.is_empty() {
            post(Found::News(events));
            // Who doesn't take them finds, later, what there is then.
            if may_go_on.recv().is_err() {
                return Ok(());
            }
            continue;
        }
        match poll(&mut [PollFd::new(fd, PollFlags::POLLIN)], PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(Failure::failed("waiting for events", errno)),
        }
    }
}

impl News {
    fn of(event: &Event) -> Self {
        let (time, received) = (SystemTime::now(), Instant::now());
        News { time, received, domid: event.domid(), uuid: event.uuid(), kind: event.kind() }
    }
}

/// What the library has to say that a user should know: failures, and that xenstored has gone and is back.
struct Log;

impl LogSink for Log {
    fn write(&self, line: &Line) {
        if line.level >= Level::Info {
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
