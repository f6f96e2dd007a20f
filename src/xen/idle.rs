// SPDX-License-Identifier: LGPL-2.1-or-later
//! A connection of our own to xenstored's socket, on which nothing ever waits.
//!
//! It is idle nearly always, and says two things that libxenstore doesn't:
//!
//! - that the daemon has gone: libxenstore tells nobody when its socket is closed, its descriptor for watches just stays silent.
//!   Here the kernel reports the hang-up at once;
//! - whether the daemon knows a domain ([`Idle::ask`]): for one that it doesn't know, no watch ever fires. A first answer also
//!   says that a new daemon serves requests, so that whoever asks it by libxenstore, which waits, needn't wait long.
//!
//! Questions are sent and answers taken as far as the socket goes along. A daemon that sends what is no answer is as good as gone.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read};
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, connect, send, socket};

use super::store::daemon_socket;
use super::wire::{self, IS_DOMAIN_INTRODUCED, Message};
use crate::error::{Error, Result};
use crate::identity::Identity;

/// So many questions are under way at once; the daemon has others to serve too.
const UNDER_WAY: usize = 64;

/// A request or an answer is a few dozen bytes; as many answers as are under way fit in.
const READ_AT_ONCE: usize = 4096;

/// An answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// The domain that it is about.
    pub domid: u32,
    /// The daemon knows it, or won't say.
    pub introduced: bool,
}

/// The connection.
#[derive(Debug)]
pub struct Idle {
    stream: ManuallyDrop<UnixStream>,
    /// Whose number it has: the application may have closed it, and use the number for a file of its own.
    identity: Option<Identity>,
    /// Not sent yet.
    out: Vec<u8>,
    /// Received, and no whole answer yet.
    received: Vec<u8>,
    /// Asked for, in the order of their requests.
    under_way: VecDeque<(u32, u32)>,
    next_request: u32,
}

impl Idle {
    /// Connects, if there is a socket. Waits for the daemon to accept, so call it without a lock.
    pub fn open() -> Result<Option<Self>> {
        Self::connect(SockFlag::empty())
    }

    /// The same without waiting: EAGAIN if the daemon has too many others to accept.
    pub fn try_open() -> Result<Option<Self>> {
        Self::connect(SockFlag::SOCK_NONBLOCK)
    }

    fn connect(flags: SockFlag) -> Result<Option<Self>> {
        let Some(path) = daemon_socket() else { return Ok(None) };
        let connected = || {
            let address = UnixAddr::new(&path)?;
            let socket = socket(AddressFamily::Unix, SockType::Stream, flags | SockFlag::SOCK_CLOEXEC, None)?;
            connect(socket.as_raw_fd(), &address)?;
            let stream = UnixStream::from(socket);
            stream.set_nonblocking(true).map_err(|error| errno_of(&error))?;
            Ok(stream)
        };
        match connected() {
            Ok(stream) => Ok(Some(Self::of(stream))),
            Err(Errno::ENOENT) => Ok(None),
            Err(errno) => Err(Error::os(format!("connecting to {}", path.display()), errno)),
        }
    }

    /// `stream` doesn't block.
    fn of(stream: UnixStream) -> Self {
        let identity = Identity::of(stream.as_raw_fd());
        let stream = ManuallyDrop::new(stream);
        Idle { stream, identity, out: Vec::new(), received: Vec::new(), under_way: VecDeque::new(), next_request: 0 }
    }

    /// Its number is still its own.
    pub fn is_ours(&self) -> bool {
        self.identity.is_none_or(|identity| identity.is_at(self.stream.as_raw_fd()))
    }

    /// Readable when there are answers; hangs up when the daemon goes away.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    /// For how many domains it can be asked now.
    pub fn room(&self) -> usize {
        UNDER_WAY - self.under_way.len()
    }

    /// Questions are under way.
    pub fn awaits_answers(&self) -> bool {
        !self.under_way.is_empty()
    }

    /// Asks whether the daemon knows these domains, as many as there is room for.
    pub fn ask(&mut self, domids: impl IntoIterator<Item = u32>) -> std::result::Result<(), Errno> {
        for domid in domids.into_iter().take(self.room()) {
            wire::put_request(&mut self.out, IS_DOMAIN_INTRODUCED, self.next_request, &domid.to_string());
            self.under_way.push_back((self.next_request, domid));
            self.next_request = self.next_request.wrapping_add(1);
        }
        self.send()
    }

    fn send(&mut self) -> std::result::Result<(), Errno> {
        if !self.out.is_empty() && !self.is_ours() {
            return Err(Errno::EBADF);
        }
        while !self.out.is_empty() {
            // The application may not ignore SIGPIPE.
            match send(self.stream.as_raw_fd(), &self.out, MsgFlags::MSG_NOSIGNAL) {
                Ok(sent) => _ = self.out.drain(..sent),
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => break,
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }

    /// Takes the answers that are there. An error, or the end of the connection (EPIPE), says that it is of no more use.
    pub fn answers(&mut self) -> std::result::Result<Vec<Answer>, Errno> {
        // What the socket had no room for.
        self.send()?;
        if !self.is_ours() {
            return Err(Errno::EBADF);
        }
        let mut answers = Vec::new();
        let mut bytes = [0; READ_AT_ONCE];
        loop {
            match self.stream.read(&mut bytes) {
                Ok(0) => return Err(Errno::EPIPE),
                Ok(length) => self.received.extend_from_slice(&bytes[..length]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(answers),
                Err(error) => return Err(errno_of(&error)),
            }
            let mut taken = 0;
            while let Some((message, length)) = wire::first(&self.received[taken..])? {
                taken += length;
                let (request, domid) = self.under_way.pop_front().ok_or(Errno::EPROTO)?;
                let introduced = introduced(&message).filter(|_| message.request == request).ok_or(Errno::EPROTO)?;
                answers.push(Answer { domid, introduced });
            }
            self.received.drain(..taken);
        }
    }
}

impl Drop for Idle {
    fn drop(&mut self) {
        if self.is_ours() {
            // SAFETY: not used after this.
            unsafe { ManuallyDrop::drop(&mut self.stream) };
        }
    }
}

/// What an answer says. A daemon that refuses to say counts as one that knows: there is nothing to learn by asking again.
fn introduced(message: &Message<'_>) -> Option<bool> {
    match (message.kind, message.payload) {
        (IS_DOMAIN_INTRODUCED, b"T\0" | b"T") | (wire::ERROR, _) => Some(true),
        (IS_DOMAIN_INTRODUCED, b"F\0" | b"F") => Some(false),
        _ => None,
    }
}

fn errno_of(error: &std::io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// The connection, and what stands in for the daemon's end of it.
    fn pair() -> (Idle, UnixStream) {
        let (ours, daemons) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        daemons.set_nonblocking(true).unwrap();
        (Idle::of(ours), daemons)
    }

    /// The requests that have arrived: number and payload.
    fn requests(daemon: &mut UnixStream) -> Vec<(u32, String)> {
        let mut bytes = vec![0; 1 << 16];
        let length = daemon.read(&mut bytes).unwrap_or(0);
        let (mut rest, mut requests) = (&bytes[..length], Vec::new());
        while let Some((message, length)) = wire::first(rest).unwrap() {
            assert_eq!(message.kind, IS_DOMAIN_INTRODUCED);
            requests.push((message.request, String::from_utf8_lossy(message.payload).into_owned()));
            rest = &rest[length..];
        }
        assert!(rest.is_empty());
        requests
    }

    fn answer(kind: u32, request: u32, payload: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        wire::put_request(&mut bytes, kind, request, payload);
        bytes
    }

    #[test]
    fn a_domain_is_known_or_not() {
        let (mut idle, mut daemon) = pair();
        idle.ask([5, 6, 7]).unwrap();
        assert_eq!(requests(&mut daemon), [(0, "5\0".to_owned()), (1, "6\0".to_owned()), (2, "7\0".to_owned())]);
        assert_eq!(idle.answers(), Ok(vec![]));
        daemon.write_all(&answer(IS_DOMAIN_INTRODUCED, 0, "T")).unwrap();
        daemon.write_all(&answer(IS_DOMAIN_INTRODUCED, 1, "F")).unwrap();
        let is = |domid, introduced| Answer { domid, introduced };
        assert_eq!(idle.answers(), Ok(vec![is(5, true), is(6, false)]));
        // It won't say.
        daemon.write_all(&answer(wire::ERROR, 2, "EACCES")).unwrap();
        assert_eq!(idle.answers(), Ok(vec![is(7, true)]));
    }

    #[test]
    fn answers_may_come_byte_by_byte() {
        let (mut idle, mut daemon) = pair();
        idle.ask([5]).unwrap();
        let bytes = answer(IS_DOMAIN_INTRODUCED, 0, "F");
        for byte in &bytes[..bytes.len() - 1] {
            daemon.write_all(&[*byte]).unwrap();
            assert_eq!(idle.answers(), Ok(vec![]));
        }
        daemon.write_all(&bytes[bytes.len() - 1..]).unwrap();
        assert_eq!(idle.answers(), Ok(vec![Answer { domid: 5, introduced: false }]));
    }

    #[test]
    fn no_more_questions_are_under_way_than_there_is_room_for() {
        let (mut idle, mut daemon) = pair();
        idle.ask(0..1000).unwrap();
        assert_eq!((idle.room(), requests(&mut daemon).len()), (0, UNDER_WAY));
        for request in 0..10 {
            daemon.write_all(&answer(IS_DOMAIN_INTRODUCED, request, "T")).unwrap();
        }
        assert_eq!(idle.answers().unwrap().len(), 10);
        idle.ask(0..1000).unwrap();
        assert_eq!(requests(&mut daemon).len(), 10);
    }

    #[test]
    fn a_daemon_that_is_gone_or_sends_anything_else_is_an_error() {
        let (mut idle, daemon) = pair();
        drop(daemon);
        assert_eq!(idle.answers(), Err(Errno::EPIPE));
        for garbage in [answer(IS_DOMAIN_INTRODUCED, 0, "T"), vec![0xff; 16], answer(99, 0, "T")] {
            let (mut idle, mut daemon) = pair();
            daemon.write_all(&garbage).unwrap();
            assert_eq!(idle.answers(), Err(Errno::EPROTO), "nothing was asked");
        }
        for garbage in [answer(IS_DOMAIN_INTRODUCED, 1, "T"), answer(IS_DOMAIN_INTRODUCED, 0, "X"), answer(2, 0, "T")] {
            let (mut idle, mut daemon) = pair();
            idle.ask([5]).unwrap();
            daemon.write_all(&garbage).unwrap();
            assert_eq!(idle.answers(), Err(Errno::EPROTO));
        }
    }

    #[test]
    fn a_daemon_that_reads_nothing_is_not_waited_for() {
        let (mut idle, _daemon) = pair();
        idle.ask(0..1000).unwrap();
        assert_eq!(idle.answers(), Ok(vec![]));
    }
}
