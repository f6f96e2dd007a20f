// SPDX-License-Identifier: LGPL-2.1-or-later
//! Lines that are to be written as soon as the domain's name is known, or isn't to be expected.
//!
//! - A line waits for xenstored's answer, as long as xenstored answers anything.
//! - One that says that a domain was created waits for its name, if it has none yet: its toolstack may write that later. For a second
//!   at most.
//! - The lines of a domain stay in order. Others don't wait for a name that isn't there.

use std::collections::HashSet;
use std::time::{Duration, Instant, SystemTime};

use xlevent::event::Kind;

use super::lives::{LifeId, Lives};

/// How long a new domain may take to have a name.
const NAMELESS: Duration = Duration::from_secs(1);

/// A line that is to be written.
#[derive(Debug, Clone)]
pub struct Pending {
    /// When the event was received: for people, and for us.
    pub time: SystemTime,
    pub received: Instant,
    pub domid: u32,
    pub uuid: [u8; 16],
    pub kind: Kind,
    pub life: LifeId,
    /// The request for its name.
    pub request: usize,
    /// The domain is new, and may not have its name yet.
    pub new: bool,
}

impl Pending {
    fn until(&self) -> Instant {
        self.received + NAMELESS
    }
}

/// Lines in the order of their events.
#[derive(Debug, Default)]
pub struct Queue(Vec<Pending>);

impl Queue {
    pub fn push(&mut self, pending: Pending) {
        self.0.push(pending);
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes those that wait no more, where `answered` is the last request that is answered, and xenstored may hang.
    pub fn take_ready(&mut self, now: Instant, answered: usize, hangs: bool, lives: &Lives) -> Vec<Pending> {
        let (mut held, mut ready, mut left) = (HashSet::new(), Vec::new(), Vec::new());
        for pending in self.take_all() {
            let is_ready = !held.contains(&pending.domid)
                && (pending.request <= answered || hangs)
                && (!pending.new
                    || now >= pending.until()
                    || lives.name(pending.life).is_some_and(|name| !name.is_empty()));
            if is_ready {
                ready.push(pending);
            } else {
                held.insert(pending.domid);
                left.push(pending);
            }
        }
        self.0 = left;
        ready
    }

    /// Takes all.
    pub fn take_all(&mut self) -> Vec<Pending> {
        std::mem::take(&mut self.0)
    }

    /// When one has waited long enough for the name of a new domain.
    pub fn next_time(&self, now: Instant) -> Option<Instant> {
        self.0.iter().filter(|pending| pending.new).map(Pending::until).filter(|until| *until > now).min()
    }
}

#[cfg(test)]
mod tests {
    use super::super::names::{Holder, Reading};
    use super::*;

    /// Lines of domains with the requests that they wait for; the first kind is of a new domain.
    fn queue(lives: &mut Lives, begin: Instant, lines: &[(u32, Kind, usize)]) -> Queue {
        let mut queue = Queue::default();
        for (domid, kind, request) in lines.iter().copied() {
            let uuid = [domid as u8; 16];
            let (life, new) = lives.event(domid, uuid, kind);
            let time = SystemTime::now();
            queue.push(Pending { time, received: begin, domid, uuid, kind, life, request, new });
        }
        queue
    }

    fn learn(lives: &mut Lives, domid: u32) {
        let of = Some(Holder { uuid: [domid as u8; 16], dying: false });
        lives.learn(Reading { domid, of, name: b"name".to_vec() });
    }

    fn taken(pending: Vec<Pending>) -> Vec<(u32, Kind)> {
        pending.into_iter().map(|pending| (pending.domid, pending.kind)).collect()
    }

    use Kind::{DomainCreated as Created, DomainDeath as Death, DomainSuspended as Suspended};

    #[test]
    fn a_line_waits_for_its_answer_and_the_order_is_that_of_the_events() {
        let (mut lives, begin) = (Lives::default(), Instant::now());
        let mut queue = queue(&mut lives, begin, &[(1, Suspended, 1), (2, Death, 2), (1, Death, 3)]);
        assert_eq!(taken(queue.take_ready(begin, 0, false, &lives)), []);
        assert_eq!(queue.next_time(begin), None);
        assert_eq!(taken(queue.take_ready(begin, 2, false, &lives)), [(1, Suspended), (2, Death)]);
        assert_eq!(taken(queue.take_ready(begin, 3, false, &lives)), [(1, Death)]);
        assert!(queue.is_empty());
    }

    #[test]
    fn nothing_waits_for_a_xenstored_that_hangs() {
        let (mut lives, begin) = (Lives::default(), Instant::now());
        let mut queue = queue(&mut lives, begin, &[(1, Suspended, 1), (2, Death, 2)]);
        assert_eq!(taken(queue.take_ready(begin, 0, true, &lives)), [(1, Suspended), (2, Death)]);
    }

    #[test]
    fn a_new_domain_without_a_name_keeps_its_own_lines_alone_and_for_a_second() {
        let (mut lives, begin) = (Lives::default(), Instant::now());
        let lines = [(1, Created, 1), (2, Created, 2), (1, Suspended, 3), (3, Death, 4)];
        let mut queue = queue(&mut lives, begin, &lines);
        assert_eq!(taken(queue.take_ready(begin, 4, false, &lives)), [(3, Death)]);
        learn(&mut lives, 2);
        assert_eq!(taken(queue.take_ready(begin, 4, false, &lives)), [(2, Created)]);
        assert_eq!(queue.next_time(begin), Some(begin + NAMELESS));
        let late = begin + NAMELESS;
        assert_eq!(taken(queue.take_ready(late, 4, false, &lives)), [(1, Created), (1, Suspended)]);
        assert_eq!(queue.len(), 0);
    }
}
