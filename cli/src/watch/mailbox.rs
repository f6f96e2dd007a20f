// SPDX-License-Identifier: LGPL-2.1-or-later
//! Messages for a thread that waits in poll(2).

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

/// Where they arrive. Its descriptor is readable if there may be some.
pub struct Mailbox<M> {
    messages: Receiver<M>,
    bell: UnixStream,
}

/// Where they are posted.
pub struct Post<M> {
    messages: Sender<M>,
    bell: Arc<UnixStream>,
}

impl<M> Clone for Post<M> {
    fn clone(&self) -> Self {
        Post { messages: self.messages.clone(), bell: self.bell.clone() }
    }
}

impl<M> Post<M> {
    /// Never waits. If nobody takes them any more, it is dropped.
    pub fn send(&self, message: M) {
        if self.messages.send(message).is_ok() {
            // If there is no room, it rings already.
            let _ = (&*self.bell).write(b"!");
        }
    }
}

pub fn mailbox<M>() -> io::Result<(Post<M>, Mailbox<M>)> {
    let (sender, receiver) = channel();
    let (ringer, bell) = UnixStream::pair()?;
    ringer.set_nonblocking(true)?;
    bell.set_nonblocking(true)?;
    Ok((Post { messages: sender, bell: Arc::new(ringer) }, Mailbox { messages: receiver, bell }))
}

impl<M> Mailbox<M> {
    /// All that have arrived.
    pub fn take(&self) -> Vec<M> {
        // First: what is posted now rings again.
        while matches!((&self.bell).read(&mut [0; 256]), Ok(1..)) {}
        self.messages.try_iter().collect()
    }
}

impl<M> AsFd for Mailbox<M> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    use super::*;

    fn rings<M>(mailbox: &Mailbox<M>) -> bool {
        poll(&mut [PollFd::new(mailbox.as_fd(), PollFlags::POLLIN)], PollTimeout::ZERO) == Ok(1)
    }

    #[test]
    fn it_rings_while_there_are_messages_and_never_keeps_who_posts() {
        let (post, mailbox) = mailbox().unwrap();
        assert!(!rings(&mailbox));
        for number in 0..100_000 {
            post.send(number);
        }
        assert!(rings(&mailbox));
        assert!(mailbox.take().into_iter().eq(0..100_000));
        assert!(!rings(&mailbox));
        drop(mailbox);
        post.send(1);
    }
}
