// SPDX-License-Identifier: LGPL-2.1-or-later
//! Writing to standard output and standard error, which somebody may not read.
//!
//! A write to a full pipe, or to a terminal that was stopped, waits for its reader. So a thread writes, and the one who has
//! something to say goes on. The descriptor's own flags are left alone: others may have it open, too.
//!
//! - What is pushed is written in that order, each piece with one write where the kernel takes it whole.
//! - After a failure nothing more is written. A thread that waits for a reader is left behind when the process ends.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// What is still to be written, and by whom.
#[derive(Debug)]
pub struct Writer(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// The first is being written.
    left: VecDeque<Vec<u8>>,
    failure: Option<io::Error>,
    /// There was a failure, or nobody will push any more.
    over: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Writer {
    /// One that calls `progress`, on a thread of its own, when a piece has been written, or can't be.
    pub fn start(to: OwnedFd, progress: impl Fn() + Send + 'static) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let work = {
            let shared = shared.clone();
            move || write_all(&shared, &mut File::from(to), &progress)
        };
        std::thread::Builder::new().name("output".to_owned()).spawn(work)?;
        Ok(Writer(shared))
    }

    /// Has this written.
    pub fn push(&self, piece: Vec<u8>) {
        let mut state = self.0.lock();
        if !state.over {
            state.left.push_back(piece);
            self.0.changed.notify_all();
        }
    }

    /// How many pieces are not written yet.
    pub fn left(&self) -> usize {
        self.0.lock().left.len()
    }

    /// Why nothing can be written any more; once.
    pub fn take_failure(&self) -> Option<io::Error> {
        self.0.lock().failure.take()
    }

    /// Waits until all is written, or can't be, but not for longer than this. True if nothing is left.
    pub fn finish(&self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        let mut state = self.0.lock();
        while !state.left.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            state = self.0.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.0.lock().over = true;
        self.0.changed.notify_all();
    }
}

/// The thread's work.
fn write_all(shared: &Shared, to: &mut File, progress: &dyn Fn()) {
    loop {
        let mut state = shared.lock();
        let piece = loop {
            if let Some(piece) = state.left.front_mut() {
                break std::mem::take(piece);
            }
            if state.over {
                return;
            }
            state = shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        };
        drop(state);
        let result = write(to, &piece);
        let mut state = shared.lock();
        state.left.pop_front();
        let failed = result.is_err();
        if let Err(error) = result {
            state.failure = Some(error);
            state.over = true;
            state.left.clear();
        }
        shared.changed.notify_all();
        drop(state);
        progress();
        if failed {
            return;
        }
    }
}

/// Also where somebody else has made the descriptor one that doesn't wait.
fn write(to: &mut File, mut piece: &[u8]) -> io::Result<()> {
    while !piece.is_empty() {
        match to.write(piece) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => piece = &piece[written..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                // A failure here shows in the next write.
                let _ = poll(&mut [PollFd::new(to.as_fd(), PollFlags::POLLOUT)], PollTimeout::NONE);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    use nix::fcntl::OFlag;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn pipe() -> (File, File) {
        let (reader, writer) = nix::unistd::pipe2(OFlag::O_CLOEXEC).unwrap();
        (reader.into(), writer.into())
    }

    /// More than a pipe or a socket takes.
    fn large() -> Vec<u8> {
        vec![b'x'; 4 << 20]
    }

    #[test]
    fn who_has_something_to_say_goes_on_while_nobody_reads() {
        let (mut reader, writer) = pipe();
        let output = Writer::start(writer.into(), || {}).unwrap();
        output.push(large());
        output.push(b"end".to_vec());
        assert!(!output.finish(Duration::from_millis(10)));
        assert_eq!(output.left(), 2);
        let mut all = vec![0; large().len() + 3];
        reader.read_exact(&mut all).unwrap();
        assert!(output.finish(LONG));
        assert!(all.ends_with(b"xend"));
    }

    #[test]
    fn a_descriptor_that_does_not_wait_is_waited_for() {
        let (mut reader, writer) = UnixStream::pair().unwrap();
        writer.set_nonblocking(true).unwrap();
        let output = Writer::start(writer.into(), || {}).unwrap();
        output.push(large());
        assert!(!output.finish(Duration::from_millis(10)));
        reader.read_exact(&mut large()).unwrap();
        assert!(output.finish(LONG));
        assert!(output.take_failure().is_none());
    }

    #[test]
    fn that_the_reader_has_gone_is_reported_once_and_nothing_is_left() {
        let (reader, writer) = pipe();
        let (seen, progress) = std::sync::mpsc::channel();
        let output = Writer::start(writer.into(), move || seen.send(()).unwrap()).unwrap();
        drop(reader);
        output.push(b"a".to_vec());
        progress.recv_timeout(LONG).unwrap();
        assert!(output.finish(LONG));
        assert_eq!(output.take_failure().map(|error| error.kind()), Some(io::ErrorKind::BrokenPipe));
        assert!(output.take_failure().is_none());
        output.push(b"b".to_vec());
        assert_eq!(output.left(), 0);
    }
}
