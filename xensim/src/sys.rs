// SPDX-License-Identifier: LGPL-2.1-or-later
//! System calls that std lacks or that must not allocate: thin, with a retry after a signal and an `io::Result`.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// An owned descriptor.
pub type Fd = OwnedFd;

fn retry(mut call: impl FnMut() -> libc::c_int) -> io::Result<libc::c_int> {
    loop {
        let result = call();
        if result >= 0 {
            return Ok(result);
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// Opens `path`, close-on-exec.
pub fn open(path: &CStr, flags: libc::c_int) -> io::Result<Fd> {
    // SAFETY: a C string; no mode is needed as nothing is created.
    let fd = retry(|| unsafe { libc::open(path.as_ptr(), flags | libc::O_CLOEXEC) })?;
    // SAFETY: just opened, and nobody else's.
    Ok(unsafe { Fd::from_raw_fd(fd) })
}

/// What an open descriptor refers to.
pub fn fstat(fd: libc::c_int) -> io::Result<libc::stat> {
    // SAFETY: plain data, for which zeroes are a value.
    let mut status: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: a valid place to write to; a bad descriptor gives an error.
    retry(|| unsafe { libc::fstat(fd, &raw mut status) })?;
    Ok(status)
}

/// Locks an open file, or unlocks it, until it is closed for the last time.
pub fn flock(file: &impl AsRawFd, operation: libc::c_int) -> io::Result<()> {
    // SAFETY: the descriptor is borrowed from its owner.
    retry(|| unsafe { libc::flock(file.as_raw_fd(), operation) }).map(drop)
}

/// Makes a FIFO that only its owner may use.
pub fn mkfifo(path: &CStr) -> io::Result<()> {
    // SAFETY: a C string.
    retry(|| unsafe { libc::mkfifo(path.as_ptr(), 0o600) }).map(drop)
}

/// Writes `bytes` whole in one call, or fails.
pub fn write(fd: &impl AsRawFd, bytes: &[u8]) -> io::Result<()> {
    // SAFETY: the bytes are valid for their length.
    let written = unsafe { libc::write(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len()) };
    match usize::try_from(written) {
        Ok(written) if written == bytes.len() => Ok(()),
        Ok(_) => Err(io::Error::from_raw_os_error(libc::EAGAIN)),
        Err(_) => Err(io::Error::last_os_error()),
    }
}

/// Sends `bytes` whole over a socket; a peer that is gone is an error and no signal.
pub fn send(socket: &impl AsRawFd, bytes: &[u8]) -> io::Result<()> {
    let mut rest = bytes;
    while !rest.is_empty() {
        // SAFETY: the bytes are valid for their length.
        let sent = unsafe { libc::send(socket.as_raw_fd(), rest.as_ptr().cast(), rest.len(), libc::MSG_NOSIGNAL) };
        match usize::try_from(sent) {
            Ok(sent) => rest = &rest[sent..],
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
    Ok(())
}

/// Gives a range of a file back to the file system: it reads as zeroes from now on.
pub fn punch_hole(file: &impl AsRawFd, offset: u64, length: u64) -> io::Result<()> {
    let (Ok(offset), Ok(length)) = (libc::off_t::try_from(offset), libc::off_t::try_from(length)) else {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    };
    // SAFETY: the descriptor is borrowed from its owner.
    retry(|| unsafe {
        libc::fallocate(file.as_raw_fd(), libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE, offset, length)
    })
    .map(drop)
}

/// A descriptor for a process, which becomes readable when the process ends.
pub fn pidfd_open(pid: libc::pid_t) -> io::Result<Fd> {
    // SAFETY: a system call with two numbers.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let Ok(fd) = libc::c_int::try_from(fd) else { return Err(io::Error::from_raw_os_error(libc::EBADF)) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: just opened, and nobody else's.
    Ok(unsafe { Fd::from_raw_fd(fd) })
}

/// Whether no process has this number, or one that has ended and is still to be reaped. Allocates nothing.
pub fn has_ended(pid: libc::pid_t) -> bool {
    let gone = |error: &io::Error| error.raw_os_error() == Some(libc::ESRCH);
    match pidfd_open(pid) {
        Ok(pidfd) => {
            let mut polled = libc::pollfd { fd: pidfd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
            // SAFETY: one entry, which is ours.
            retry(|| unsafe { libc::poll(&mut polled, 1, 0) }).is_ok_and(|ready| ready == 1)
        }
        Err(error) if gone(&error) => true,
        // No descriptor left, or a kernel or valgrind that does not know the call.
        Err(_) => kill(pid, 0).is_err_and(|error| gone(&error)),
    }
}

/// Sends a signal to the process that the descriptor is for, and never to another that got its number.
pub fn pidfd_send_signal(pidfd: &impl AsRawFd, signal: libc::c_int) -> io::Result<()> {
    // SAFETY: no siginfo is given.
    let result = unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, std::ptr::null::<libc::siginfo_t>(), 0)
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Sends a signal to the process with this number.
pub fn kill(pid: libc::pid_t, signal: libc::c_int) -> io::Result<()> {
    // SAFETY: a system call with two numbers.
    retry(|| unsafe { libc::kill(pid, signal) }).map(drop)
}

/// Fills `bytes` with random ones.
pub fn random(bytes: &mut [u8]) -> io::Result<()> {
    // SAFETY: the bytes are valid for their length. Up to 256 are never cut short.
    let got = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    match usize::try_from(got) {
        Ok(got) if got == bytes.len() => Ok(()),
        Ok(_) => Err(io::Error::from_raw_os_error(libc::EAGAIN)),
        Err(_) => Err(io::Error::last_os_error()),
    }
}

/// The user that this process acts as.
pub fn effective_uid() -> u32 {
    // SAFETY: has no conditions.
    unsafe { libc::geteuid() }
}

/// Waits until one of two descriptors is readable.
pub fn wait_readable_any(fds: &[&Fd; 2]) -> io::Result<()> {
    let mut polls = fds.map(|fd| libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 });
    // SAFETY: two valid pollfds.
    retry(|| unsafe { libc::poll(polls.as_mut_ptr(), 2, -1) }).map(drop)
}

/// Makes an open descriptor's number refer to what another refers to.
pub fn replace(source: &impl AsRawFd, target: &impl AsRawFd) -> io::Result<()> {
    // SAFETY: both are open; the target's number stays open.
    retry(|| unsafe { libc::dup2(source.as_raw_fd(), target.as_raw_fd()) }).map(drop)
}
