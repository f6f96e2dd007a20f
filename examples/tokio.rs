// SPDX-License-Identifier: LGPL-2.1-or-later
//! tokio: say what becomes of a domain until it is dead, or of all domains.
//!
//! ```text
//! cargo run --example tokio [DOMID]
//! ```
//!
//! The library as a Rust crate, without C: its one descriptor wakes a task of tokio's, and events are awaited like anything
//! else, beside signals here.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::ExitCode;
use std::sync::Arc;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::signal::unix::{SignalKind, signal};
use xlevent::context::Context;
use xlevent::error::Error;
use xlevent::event::{Event, Kind};
use xlevent::evgen::domain_state::{CREATED, STATES};
use xlevent::evgen::targets::Subject;
use xlevent::xen::log::NullLog;

/// The events of a context, one after the other.
struct Events {
    context: Arc<Context>,
    fd: AsyncFd<OwnedFd>,
}

impl Events {
    fn of(context: Arc<Context>) -> Result<Self, Box<dyn std::error::Error>> {
        // Another number for the same, so that it is open for as long as tokio has it.
        let fd = context.fd()?.try_clone_to_owned()?;
        // SAFETY: an owned descriptor, which is closed when its owner, the AsyncFd, has deregistered it.
        let fd = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE)? };
        Ok(Events { context, fd })
    }

    /// The next. No event is lost if the wait is given up.
    async fn next(&self) -> io::Result<Event> {
        loop {
            // First what is there: that doesn't make the descriptor readable.
            match self.context.check(u64::MAX, None) {
                Err(Error::NotReady) => {}
                result => return result.map_err(io::Error::other),
            }
            let mut guard = self.fd.readable().await?;
            // tokio is told of changes alone: it may forget that the descriptor is readable once it no longer is, not before.
            let turn = guard.try_io(|fd| {
                if !is_readable(fd.as_fd())? {
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                self.context.occurred();
                Ok(())
            });
            if let Ok(result) = turn {
                result?;
            }
        }
    }
}

fn is_readable(fd: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(poll(&mut [PollFd::new(fd, PollFlags::POLLIN)], PollTimeout::ZERO)? > 0)
}

fn print(event: &Event) {
    let what = match event.kind() {
        Kind::DomainCreated => "CREATED".to_owned(),
        Kind::DomainSuspended => "SUSPENDED".to_owned(),
        Kind::DomainRunning => "RUNNING".to_owned(),
        Kind::DomainShutdown { reason } => format!("SHUTDOWN {reason}"),
        Kind::DomainDeath => "DEATH".to_owned(),
        other => format!("{other:?}"),
    };
    println!("{} {what}", event.domid());
}

async fn follow(domid: Option<u32>) -> Result<(), Box<dyn std::error::Error>> {
    let context = Context::standalone(Arc::new(NullLog))?;
    match domid {
        Some(domid) => context.enable_domain_state(Subject::Domain(domid), STATES, 0)?,
        None => context.enable_domain_state(Subject::Any, STATES | CREATED, 0)?,
    };
    let events = Events::of(context)?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    loop {
        tokio::select! {
            event = events.next() => {
                let event = event?;
                print(&event);
                if domid.is_some() && event.kind() == Kind::DomainDeath {
                    return Ok(());
                }
            }
            _ = interrupt.recv() => return Ok(()),
            _ = terminate.recv() => return Ok(()),
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let domid = match std::env::args().nth(1).map(|word| word.parse()).transpose() {
        Ok(domid) => domid,
        Err(_) => {
            eprintln!("usage: tokio [DOMID]");
            return ExitCode::from(2);
        }
    };
    match follow(domid).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tokio: {error}");
            ExitCode::FAILURE
        }
    }
}
