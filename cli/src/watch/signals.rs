// SPDX-License-Identifier: LGPL-2.1-or-later
//! The signals that end the command, as something to poll.
//!
//! A thread takes them. The first makes the descriptor readable, so that the loop ends between two lines. If that doesn't
//! happen soon, because somebody keeps us waiting (xenstored, a reader that doesn't read), the thread ends the process.

use std::io::{PipeReader, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals as Taken;

use crate::exit::{Failure, Result};

const ENDING: [i32; 3] = [SIGINT, SIGTERM, SIGHUP];

/// How long the loop has to end.
const PATIENCE: Duration = Duration::from_secs(2);

pub struct Signals(PipeReader);

impl Signals {
    /// From now on.
    pub fn catch() -> Result<Self> {
        let failed = |why| Failure::failed("catching signals", why);
        let ignored = ignored();
        // What nohup or a shell's & has had ignored stays so.
        let wanted = ENDING.iter().filter(|signal| ignored & 1 << (**signal - 1) == 0);
        let mut taken = Taken::new(wanted).map_err(failed)?;
        let (reader, mut writer) = std::io::pipe().map_err(failed)?;
        let wait = move || {
            if let Some(signal) = taken.forever().next() {
                // Kept open until the end.
                let _ = writer.write_all(b"\n");
                std::thread::sleep(PATIENCE);
                std::process::exit(128 + signal);
            }
        };
        std::thread::Builder::new().name("signals".to_owned()).spawn(wait).map_err(failed)?;
        Ok(Signals(reader))
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The signals that are ignored, as the kernel shows them; none if it doesn't.
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}
