// SPDX-License-Identifier: LGPL-2.1-or-later
//! The signals that end the command, as something to poll.
//!
//! Whoever waits for it waits for nothing else that could keep it: the main thread alone ends the process.

use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::low_level::pipe;

use crate::exit::{Failure, Result};

const ENDING: [i32; 3] = [SIGINT, SIGTERM, SIGHUP];

/// Readable when one of them has come.
pub struct Signals {
    reader: UnixStream,
    /// Kept open, also where all of them are ignored: its end would look like a signal.
    _writer: UnixStream,
}

impl Signals {
    /// From now on.
    pub fn catch() -> Result<Self> {
        let failed = |why| Failure::failed("catching signals", why);
        let ignored = ignored();
        let (reader, writer) = UnixStream::pair().map_err(failed)?;
        // What nohup or a shell's & has had ignored stays so.
        for signal in ENDING.into_iter().filter(|signal| ignored & (1 << (signal - 1)) == 0) {
            writer.try_clone().and_then(|writer| pipe::register(signal, writer)).map_err(failed)?;
        }
        Ok(Signals { reader, _writer: writer })
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.reader.as_fd()
    }
}

/// The signals that are ignored, as the kernel shows them; none if it doesn't.
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}
