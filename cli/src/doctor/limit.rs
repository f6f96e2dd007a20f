// SPDX-License-Identifier: LGPL-2.1-or-later
//! Whatever hangs, a check comes to its end.
//!
//! A check is done by a thread. One that takes too long is left behind, and so are the threads of a program that can't be killed.

use std::io::{self, Read};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use super::Finding;

/// How long a check may take.
pub const LIMIT: Duration = Duration::from_secs(5);

/// How long the programs may take that a check starts: all together, so that it has something to say then.
const PROGRAMS_LIMIT: Duration = Duration::from_millis(4500);

/// When the programs of a check that begins now have to be done.
pub fn for_programs() -> Instant {
    Instant::now() + PROGRAMS_LIMIT
}

/// Does a check. One that takes too long is bad.
pub fn check<T: Send + 'static>(
    what: &'static str,
    check: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Box<Finding>> {
    check_within(LIMIT, what, check)
}

fn check_within<T: Send + 'static>(
    limit: Duration,
    what: &'static str,
    check: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Box<Finding>> {
    let bad = |text: String, advice| Box::new(Finding::bad(what, text, advice));
    let result = started(check).map_err(|why| bad(format!("no thread to check it: {why}"), "see ulimit -u"))?;
    result.recv_timeout(limit).map_err(|_| {
        let text = format!("no answer within {} s", limit.as_secs());
        bad(text, "the kernel's log, or /proc/PID/stack of this command, may show what it waits for")
    })
}

/// Has a thread do something; the result comes when it is there.
pub fn started<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> io::Result<Receiver<T>> {
    let (sender, result) = mpsc::channel();
    // Nobody is there any more to hear of it if it comes late.
    thread::Builder::new().spawn(move || drop(sender.send(work())))?;
    Ok(result)
}

/// What a program writes, and how it ends. One that isn't done by then is killed.
pub fn output(command: &mut Command, deadline: Instant) -> io::Result<Output> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let result = said_by(&mut child, deadline);
    if result.is_err() {
        let _ = child.kill();
    }
    let (stdout, stderr) = result?;
    // It may go on without a word.
    let status = loop {
        match child.try_wait()? {
            Some(status) => break status,
            None if Instant::now() < deadline => thread::sleep(Duration::from_millis(1)),
            None => {
                let _ = child.kill();
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
    };
    Ok(Output { status, stdout, stderr })
}

/// All that it writes.
fn said_by(child: &mut Child, deadline: Instant) -> io::Result<(Vec<u8>, Vec<u8>)> {
    let stdout = child.stdout.take().map(all_of).transpose()?;
    let stderr = child.stderr.take().map(all_of).transpose()?;
    let taken = |all: Option<Receiver<io::Result<Vec<u8>>>>| match all {
        None => Ok(Vec::new()),
        Some(all) => all
            .recv_timeout(deadline.saturating_duration_since(Instant::now()))
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?,
    };
    Ok((taken(stdout)?, taken(stderr)?))
}

fn all_of(mut from: impl Read + Send + 'static) -> io::Result<Receiver<io::Result<Vec<u8>>>> {
    started(move || {
        let mut all = Vec::new();
        from.read_to_end(&mut all).map(|_| all)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_that_hangs_is_bad_and_the_next_is_done() {
        let (_never, answer) = mpsc::channel::<()>();
        let hangs = move || answer.recv();
        let finding = check_within(Duration::from_millis(10), "it", hangs).unwrap_err().to_string();
        assert!(finding.starts_with("BAD   it ") && finding.contains("no answer within"), "{finding}");
        assert_eq!(check("it", || 7).unwrap(), 7);
    }

    #[test]
    fn a_program_that_hangs_is_killed() {
        for script in ["exec sleep 1000", "exec sleep 1000 >&- 2>&-"] {
            let result = output(Command::new("sh").args(["-c", script]), Instant::now() + Duration::from_millis(50));
            assert_eq!(result.map_err(|error| error.kind()).unwrap_err(), io::ErrorKind::TimedOut);
        }
    }

    #[test]
    fn all_that_a_program_writes_is_there() {
        let script = "head -c 300000 /dev/zero; head -c 200000 /dev/zero >&2; exit 3";
        let deadline = Instant::now() + Duration::from_secs(60);
        let output = output(Command::new("sh").args(["-c", script]), deadline).unwrap();
        assert_eq!((output.stdout.len(), output.stderr.len(), output.status.code()), (300_000, 200_000, Some(3)));
    }
}
