// SPDX-License-Identifier: LGPL-2.1-or-later
//! A client that is killed in the middle of something leaves a host that works. In a process without other tests: it forks.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod support;

use std::time::Duration;

use support::host;
use xensim::evtchn::{Channels, VIRQ_DOM_EXC};

#[test]
fn xenstored_is_still_told_after_a_client_was_killed_while_it_told_it() {
    let host = host();
    let channels = Channels::new(host.table(), host.dir());
    for round in 0..300 {
        // SAFETY: the child makes system calls and changes atomics, until it is killed.
        let child = unsafe { libc::fork() };
        assert!(child >= 0);
        if child == 0 {
            loop {
                let _ = channels.raise(VIRQ_DOM_EXC);
            }
        }
        std::thread::sleep(Duration::from_micros(1000 + round * 7));
        // SAFETY: our own child, which has not been waited for.
        let ended = unsafe { libc::kill(child, libc::SIGKILL) == 0 && libc::waitpid(child, &mut 0, 0) == child };
        assert!(ended);
        host.settle().unwrap();
    }
}
