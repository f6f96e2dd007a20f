// SPDX-License-Identifier: LGPL-2.1-or-later
//! A context's events for Rust programs: an iterator that waits for them, and a descriptor for those that wait otherwise.
//!
//! It adds no state to the context, and takes no event before it is asked for one.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::context::Context;
use crate::error::{Error, Result};
use crate::event::Event;
use crate::evgen::domain_state::{CREATED, STATES};
use crate::evgen::targets::Subject;
use crate::xen::log::StderrLog;

/// All types.
const ALL: u64 = u64::MAX;

/// The events of a context, as they happen.
///
/// As an iterator it waits for the next one, for as long as that takes, and yields errors as items. Another thread
/// ends it with [`Context::cancel_wait`]: then the iterator yields `None`, once.
///
#[cfg_attr(on_a_host, doc = "```")]
#[cfg_attr(not(on_a_host), doc = "```no_run")]
/// use xlevent::event::Kind;
/// use xlevent::stream::Events;
///
/// for event in Events::of_all_domains()? {
///     let event = event?;
///     println!("domain {}: {:?}", event.domid(), event.kind());
///     # assert_eq!((event.domid(), event.kind()), (1, Kind::DomainCreated));
///     if event.kind() == Kind::DomainDeath {
///         break;
///     }
///     # break;
/// }
/// # Ok::<(), xlevent::error::Error>(())
#[doc = "```"]
///
/// In an event loop, wait until its descriptor is readable, and then call [`Events::try_next`] until there are no more. With
/// tokio that is an `AsyncFd` of the events, registered for what is readable: a round of `try_next()` first, for what is there
/// already, then `readable_mut()` and its `clear_ready()` before each further round (`examples/tokio.rs`).
///
#[cfg_attr(on_a_host, doc = "```")]
#[cfg_attr(not(on_a_host), doc = "```no_run")]
/// use std::os::fd::AsFd;
/// use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
/// use xlevent::stream::Events;
///
/// let mut events = Events::of_all_domains()?;
/// # let mut seen = 0;
/// loop {
///     while let Some(event) = events.try_next()? {
///         println!("domain {}: {:?}", event.domid(), event.kind());
///         # seen += 1;
///     }
///     # if seen > 0 { break; }
///     poll(&mut [PollFd::new(events.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE)?;
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
#[doc = "```"]
pub struct Events {
    context: Arc<Context>,
    fd: RawFd,
}

impl Events {
    /// Those of a context, which has, or will be given, its generators by the caller. Events that go to callbacks or to
    /// subscribers are not among them.
    pub fn of(context: Arc<Context>) -> Result<Self> {
        let fd = context.fd()?.as_raw_fd();
        Ok(Events { context, fd })
    }

    /// What becomes of all domains but the control domain, beginning with those that there are. The context is a new one,
    /// whose log goes to stderr.
    pub fn of_all_domains() -> Result<Self> {
        Self::following(Subject::Any, STATES | CREATED)
    }

    /// What becomes of one domain, beginning with its present state; its death is the last event. The context is a new one,
    /// whose log goes to stderr.
    pub fn of_domain(domid: u32) -> Result<Self> {
        Self::following(Subject::Domain(domid), STATES)
    }

    fn following(subject: Subject, states: u64) -> Result<Self> {
        let context = Context::standalone(Arc::new(StderrLog))?;
        context.enable_domain_state(subject, states, 0)?;
        Self::of(context)
    }

    /// The context, for what else it can do.
    pub fn context(&self) -> &Arc<Context> {
        &self.context
    }

    /// The next event that has happened, without waiting. `None`: there is none, and the descriptor is not readable; it will
    /// be when that may have changed. So who is told of changes alone (`EPOLLET`) misses nothing either.
    pub fn try_next(&mut self) -> Result<Option<Event>> {
        loop {
            match self.context.check(ALL, None) {
                Ok(event) => return Ok(Some(event)),
                Err(Error::NotReady) => {}
                Err(error) => return Err(error),
            }
            if !self.is_readable() {
                return Ok(None);
            }
            self.context.occurred();
        }
    }

    fn is_readable(&self) -> bool {
        // On a failure there may be something to do.
        poll(&mut [PollFd::new(self.as_fd(), PollFlags::POLLIN)], PollTimeout::ZERO) != Ok(0)
    }
}

impl Iterator for Events {
    type Item = Result<Event>;

    fn next(&mut self) -> Option<Result<Event>> {
        match self.context.wait(ALL, None) {
            Err(Error::Aborted) => None,
            result => Some(result),
        }
    }
}

impl AsFd for Events {
    fn as_fd(&self) -> BorrowedFd<'_> {
        #[allow(clippy::expect_used)]
        self.context.fd().expect("`of` has had it made, and it stays as long as the context")
    }
}

impl AsRawFd for Events {
    fn as_raw_fd(&self) -> RawFd {
        self.fd
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evgen::domain_death::Change;

    fn events() -> Events {
        let (context, _) = crate::context::tests::context();
        Events::of(context).unwrap()
    }

    fn bring(events: &Events, domid: u32) {
        events.context().libxl_event(crate::context::tests::event(domid, Change::Death));
    }

    #[test]
    fn the_descriptor_tells_of_events_and_not_when_they_have_been_taken() {
        let mut events = events();
        assert!(events.try_next().unwrap().is_none());
        assert!(!events.is_readable());
        for round in 0..3 {
            bring(&events, round);
            bring(&events, round + 10);
            assert!(events.is_readable());
            let mut next = || events.try_next().unwrap().map(|event| event.domid());
            assert_eq!([next(), next(), next()], [Some(round), Some(round + 10), None]);
            assert!(!events.is_readable());
        }
        assert_eq!(events.as_fd().as_raw_fd(), events.as_raw_fd());
    }

    #[test]
    fn the_iterator_waits_and_is_called_off() {
        let mut events = events();
        let context = events.context().clone();
        std::thread::scope(|scope| {
            let taken = scope.spawn(move || events.by_ref().map(|event| event.unwrap().domid()).collect::<Vec<_>>());
            for domid in 1..=3 {
                context.libxl_event(crate::context::tests::event(domid, Change::Death));
            }
            context.cancel_wait();
            assert_eq!(taken.join().unwrap(), [1, 2, 3]);
        });
    }
}
