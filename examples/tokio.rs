// SPDX-License-Identifier: LGPL-2.1-or-later
//! tokio: say what becomes of a domain until it is dead, or of all domains.
//!
//! ```text
//! cargo run --example tokio [DOMID]
//! ```
//!
//! The library as a Rust crate, without C: its one descriptor wakes a task of tokio's, and events are awaited like anything
//! else, beside signals here.

use std::process::ExitCode;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::signal::unix::{SignalKind, signal};
use xlevent::event::{Event, Kind};
use xlevent::stream::Events;

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
    let events = match domid {
        Some(domid) => Events::of_domain(domid)?,
        None => Events::of_all_domains()?,
    };
    // SAFETY: the descriptor is open for as long as the events are there, and the AsyncFd has deregistered it before they go.
    let mut events = unsafe { AsyncFd::register_with_interest(events, Interest::READABLE)? };
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    loop {
        // First what is there: that doesn't make the descriptor readable. When there is no more, it isn't.
        while let Some(event) = events.get_mut().try_next()? {
            print(&event);
            if domid.is_some() && event.kind() == Kind::DomainDeath {
                return Ok(());
            }
        }
        tokio::select! {
            // tokio is told of changes alone. What changes from here on is one.
            ready = events.readable_mut() => ready?.clear_ready(),
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
