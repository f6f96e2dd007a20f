// SPDX-License-Identifier: LGPL-2.1-or-later
//! A small client of the xenstore protocol, over the daemon's socket: what a toolstack needs to write.
//!
//! It exists so that the simulation does not depend on libxenstore, which is under test, and so that thousands of
//! domains are cheap: a batch of requests is sent ahead of its replies.
//!
//! Invariants:
//! - Requests are answered in order, one reply each; no watch is ever set, so nothing else arrives.
//! - At most `WINDOW` requests are unanswered, so that neither side's buffers fill while the other only writes.
//! - After an error that is not the daemon's answer the connection is not used again.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use crate::sys;

/// How many requests are sent ahead of their replies.
const WINDOW: usize = 64;
/// How long the daemon may take for an answer. It is one process; a paused one is not an endless wait.
const PATIENCE: Duration = Duration::from_secs(60);
/// The longest payload that the protocol allows.
const PAYLOAD_MAX: usize = 4096;
/// Bytes of a message before its payload: type, request id, transaction id, length.
const HEADER: usize = 16;

/// The requests that are used, by their numbers in the protocol.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
enum Op {
    Directory = 1,
    Read = 2,
    Introduce = 8,
    Release = 9,
    Write = 11,
    Mkdir = 12,
    Rm = 13,
    SetPerms = 14,
    Error = 16,
    IsDomainIntroduced = 17,
    Resume = 18,
}

/// A request, ready to be sent.
#[derive(Clone, Debug)]
pub struct Request {
    op: Op,
    payload: Vec<u8>,
    /// An error of the daemon's that counts as success.
    accept: Option<&'static str>,
}

impl Request {
    fn new(op: Op, parts: &[&[u8]]) -> Request {
        Request { op, payload: parts.concat(), accept: None }
    }

    /// Sets a node's value, creating it and its parents.
    pub fn write(path: &str, value: &str) -> Request {
        Request::new(Op::Write, &[path.as_bytes(), b"\0", value.as_bytes()])
    }

    /// Creates a node, if it is not there.
    pub fn mkdir(path: &str) -> Request {
        Request::new(Op::Mkdir, &[path.as_bytes(), b"\0"])
    }

    /// Removes a node and all below it; one that is not there is fine.
    pub fn remove(path: &str) -> Request {
        Request { accept: Some("ENOENT"), ..Request::new(Op::Rm, &[path.as_bytes(), b"\0"]) }
    }

    /// Gives a node to a domain, or lets it read: entries as `n0`, `r5`, `b5`, the first names the owner.
    pub fn permissions(path: &str, entries: &[&str]) -> Request {
        let mut payload = [path.as_bytes(), b"\0"].concat();
        for entry in entries {
            payload.extend_from_slice(entry.as_bytes());
            payload.push(0);
        }
        Request { op: Op::SetPerms, payload, accept: None }
    }

    /// Tells the daemon of a domain, its store page and its event channel; `@introduceDomain` fires.
    pub fn introduce(domid: u16, page: u64, port: u32) -> Request {
        Request::new(Op::Introduce, &[format!("{domid}\0{page}\0{port}\0").as_bytes()])
    }

    /// Tells the daemon to forget a domain; `@releaseDomain` fires. A domain that it does not know is fine.
    pub fn release(domid: u16) -> Request {
        Request { accept: Some("ENOENT"), ..Request::new(Op::Release, &[format!("{domid}\0").as_bytes()]) }
    }

    /// Tells the daemon that a domain runs again after a suspend. A domain that it does not know is fine.
    pub fn resume(domid: u16) -> Request {
        Request { accept: Some("ENOENT"), ..Request::new(Op::Resume, &[format!("{domid}\0").as_bytes()]) }
    }
}

/// A connection to the daemon.
pub struct Store {
    stream: UnixStream,
}

impl Store {
    /// Connects to the daemon's socket.
    pub fn connect(socket: &Path) -> io::Result<Store> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Store { stream })
    }

    /// Reads a node's value; `None` if there is no such node.
    pub fn read(&mut self, path: &str) -> io::Result<Option<Vec<u8>>> {
        match self.one(Request::new(Op::Read, &[path.as_bytes(), b"\0"])) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            result => result.map(Some),
        }
    }

    /// The names of a node's children; none if there is no such node.
    pub fn directory(&mut self, path: &str) -> io::Result<Vec<String>> {
        let payload = match self.one(Request::new(Op::Directory, &[path.as_bytes(), b"\0"])) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(Vec::new()),
            result => result?,
        };
        let names = payload.split(|byte| *byte == 0).filter(|name| !name.is_empty());
        Ok(names.map(|name| String::from_utf8_lossy(name).into_owned()).collect())
    }

    /// Whether the daemon knows of a domain.
    pub fn is_introduced(&mut self, domid: u16) -> io::Result<bool> {
        let payload = self.one(Request::new(Op::IsDomainIntroduced, &[format!("{domid}\0").as_bytes()]))?;
        Ok(payload.starts_with(b"T"))
    }

    /// Asks the daemon for something trivial: when the answer comes, all that it did before has been done.
    pub fn round_trip(&mut self) -> io::Result<()> {
        self.directory("/").map(drop)
    }

    /// Makes one request.
    pub fn request(&mut self, request: Request) -> io::Result<()> {
        self.batch([request])
    }

    /// Makes many requests, in order. The first that the daemon refuses is reported, after all have been answered.
    pub fn batch(&mut self, requests: impl IntoIterator<Item = Request>) -> io::Result<()> {
        batch_on(std::slice::from_mut(self), [requests])
    }

    fn one(&mut self, request: Request) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        encode(&mut out, &request)?;
        sys::send(&self.stream, &out).map_err(timed_out)?;
        receive(&mut self.stream, request.op, request.accept)?
    }
}

/// Makes many requests over several connections, a series on each, at the same time: within a series in order, between
/// them in none. The daemon serves a request of each connection in turn, so this spares it going round for each. The
/// first refusal is reported, after all have been answered.
pub fn batch_on<Requests>(stores: &mut [Store], series: impl IntoIterator<Item = Requests>) -> io::Result<()>
where
    Requests: IntoIterator<Item = Request>,
{
    let pipelines = stores.iter_mut().zip(series).map(|(store, requests)| Pipeline {
        store,
        requests: requests.into_iter().fuse(),
        unanswered: VecDeque::with_capacity(WINDOW),
        more: true,
    });
    let mut pipelines: Vec<_> = pipelines.collect();
    let mut refused = Ok(());
    while !pipelines.is_empty() {
        for pipeline in &mut pipelines {
            pipeline.send()?;
        }
        for pipeline in &mut pipelines {
            refused = refused.and(pipeline.receive()?);
        }
        pipelines.retain(|pipeline| pipeline.more || !pipeline.unanswered.is_empty());
    }
    refused
}

/// A connection, what is still to be sent over it, and what has been sent and not been answered.
struct Pipeline<'a, Requests> {
    store: &'a mut Store,
    requests: Requests,
    unanswered: VecDeque<(Op, Option<&'static str>)>,
    more: bool,
}

impl<Requests: Iterator<Item = Request>> Pipeline<'_, Requests> {
    /// Fills the window.
    fn send(&mut self) -> io::Result<()> {
        let mut out = Vec::new();
        while self.more && self.unanswered.len() < WINDOW {
            match self.requests.next() {
                Some(request) => {
                    encode(&mut out, &request)?;
                    self.unanswered.push_back((request.op, request.accept));
                }
                None => self.more = false,
            }
        }
        sys::send(&self.store.stream, &out).map_err(timed_out)
    }

    /// Receives half of the answers, so that the daemon has something to do while more is sent; all if there is no
    /// more. The inner result is the daemon's.
    fn receive(&mut self) -> io::Result<io::Result<()>> {
        let keep = if self.more { WINDOW / 2 } else { 0 };
        let mut refused = Ok(());
        while self.unanswered.len() > keep {
            let Some((op, accept)) = self.unanswered.pop_front() else { break };
            let answer = receive(&mut self.store.stream, op, accept)?;
            refused = refused.and(answer.map(drop));
        }
        Ok(refused)
    }
}

fn encode(out: &mut Vec<u8>, request: &Request) -> io::Result<()> {
    if request.payload.len() > PAYLOAD_MAX {
        return Err(io::Error::from_raw_os_error(libc::E2BIG));
    }
    let mut header = [0; HEADER];
    header[0..4].copy_from_slice(&(request.op as u32).to_ne_bytes());
    header[12..16].copy_from_slice(&(request.payload.len() as u32).to_ne_bytes());
    out.extend_from_slice(&header);
    out.extend_from_slice(&request.payload);
    Ok(())
}

/// The outer result is the connection's, the inner one the daemon's.
fn receive(stream: &mut UnixStream, op: Op, accept: Option<&'static str>) -> io::Result<io::Result<Vec<u8>>> {
    let mut header = [0; HEADER];
    stream.read_exact(&mut header).map_err(timed_out)?;
    let word = |at: usize| {
        let mut bytes = [0; 4];
        bytes.copy_from_slice(&header[at..at + 4]);
        u32::from_ne_bytes(bytes)
    };
    let length = word(12) as usize;
    if length > PAYLOAD_MAX {
        return Err(io::Error::from_raw_os_error(libc::EPROTO));
    }
    let mut payload = vec![0; length];
    stream.read_exact(&mut payload).map_err(timed_out)?;
    if word(0) == Op::Error as u32 {
        let name = payload.split(|byte| *byte == 0).next().unwrap_or_default();
        let name = String::from_utf8_lossy(name);
        if accept.is_some_and(|accept| name == accept) {
            return Ok(Ok(Vec::new()));
        }
        return Ok(Err(match errno(&name) {
            Some(errno) => io::Error::from_raw_os_error(errno),
            None => io::Error::other(format!("xenstored says {name}")),
        }));
    }
    if word(0) != op as u32 {
        return Err(io::Error::from_raw_os_error(libc::EPROTO));
    }
    Ok(Ok(payload))
}

fn timed_out(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::WouldBlock => io::Error::from(io::ErrorKind::TimedOut),
        _ => error,
    }
}

/// The number of an error that the daemon names.
fn errno(name: &str) -> Option<i32> {
    Some(match name {
        "EINVAL" => libc::EINVAL,
        "EACCES" => libc::EACCES,
        "EEXIST" => libc::EEXIST,
        "EISDIR" => libc::EISDIR,
        "ENOENT" => libc::ENOENT,
        "ENOMEM" => libc::ENOMEM,
        "ENOSPC" => libc::ENOSPC,
        "EIO" => libc::EIO,
        "ENOTEMPTY" => libc::ENOTEMPTY,
        "ENOSYS" => libc::ENOSYS,
        "EROFS" => libc::EROFS,
        "EBUSY" => libc::EBUSY,
        "EAGAIN" => libc::EAGAIN,
        "EISCONN" => libc::EISCONN,
        "E2BIG" => libc::E2BIG,
        "EPERM" => libc::EPERM,
        _ => return None,
    })
}
