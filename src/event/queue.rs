// SPDX-License-Identifier: LGPL-2.1-or-later
//! The events of a context that wait to be retrieved, oldest first.
//!
//! Each event type has a lane of its own, so that events whose type isn't wanted cost nothing, however many there are.
//! A serial number tells the order across lanes.

use std::collections::VecDeque;

use super::Event;
use crate::abi::libxl_event_type;

/// A queue.
#[derive(Debug, Default)]
pub struct Queue {
    lanes: Vec<Lane>,
    next: u64,
}

#[derive(Debug)]
struct Lane {
    event_type: libxl_event_type,
    events: VecDeque<(u64, Event)>,
}

impl Lane {
    /// Whether a mask of event types has this one.
    fn passes(&self, mask: u64) -> bool {
        1u64.checked_shl(self.event_type).is_some_and(|bit| mask & bit != 0)
    }
}

impl Queue {
    /// Adds an event as the newest.
    pub fn push(&mut self, event: Event) {
        let event_type = event.event_type();
        let lane = match self.lanes.iter().position(|lane| lane.event_type == event_type) {
            Some(lane) => lane,
            None => {
                self.lanes.push(Lane { event_type, events: VecDeque::new() });
                self.lanes.len() - 1
            }
        };
        self.lanes[lane].events.push_back((self.next, event));
        self.next += 1;
    }

    /// The serial that the next event will have.
    pub fn end(&self) -> u64 {
        self.next
    }

    /// The events from serial `from` on whose type is in `mask`, oldest first.
    pub fn matches(&self, mask: u64, from: u64) -> impl Iterator<Item = (u64, &Event)> {
        let mut lanes: Vec<_> = self
            .lanes
            .iter()
            .filter(|lane| lane.passes(mask))
            .map(|lane| lane.events.range(lane.events.partition_point(|(serial, _)| *serial < from)..).peekable())
            .collect();
        std::iter::from_fn(move || {
            let oldest =
                lanes.iter_mut().filter_map(|lane| Some((lane.peek()?.0, lane))).min_by_key(|(serial, _)| *serial)?;
            oldest.1.next().map(|(serial, event)| (*serial, event))
        })
    }

    /// Takes an event out.
    pub fn take(&mut self, serial: u64) -> Option<Event> {
        self.lanes.iter_mut().find_map(|lane| {
            let index = lane.events.binary_search_by_key(&serial, |(serial, _)| *serial).ok()?;
            lane.events.remove(index).map(|(_, event)| event)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evgen::domain_death::{Change, Report};

    const SHUTDOWN: u64 = 1 << 1;
    const DEATH: u64 = 1 << 2;

    fn event(domid: u32, change: Change) -> Event {
        Event::from_report(&Report { domid, uuid: [0; 16], user: 0, change }).unwrap()
    }

    fn queue() -> Queue {
        let mut queue = Queue::default();
        for domid in 0..3 {
            queue.push(event(domid, Change::Shutdown(0)));
            queue.push(event(domid, Change::Death));
        }
        queue
    }

    fn drain(queue: &mut Queue, mask: u64) -> Vec<(u32, libxl_event_type)> {
        std::iter::from_fn(|| {
            let (serial, _) = queue.matches(mask, 0).next()?;
            queue.take(serial).map(|event| (event.domid(), event.event_type()))
        })
        .collect()
    }

    #[test]
    fn oldest_first_across_types() {
        assert_eq!(drain(&mut queue(), u64::MAX), [(0, 1), (0, 2), (1, 1), (1, 2), (2, 1), (2, 2)]);
    }

    #[test]
    fn the_mask_leaves_others_in_place() {
        let mut queue = queue();
        assert_eq!(drain(&mut queue, DEATH), [(0, 2), (1, 2), (2, 2)]);
        assert_eq!(queue.matches(DEATH, 0).count(), 0);
        assert_eq!(queue.matches(0, 0).count(), 0);
        assert_eq!(queue.matches(!(SHUTDOWN | DEATH), 0).count(), 0);
        assert_eq!(drain(&mut queue, u64::MAX), [(0, 1), (1, 1), (2, 1)]);
    }

    #[test]
    fn taking_from_the_middle_keeps_the_order() {
        let mut queue = queue();
        assert_eq!(queue.take(2).unwrap().domid(), 1);
        assert!(queue.take(2).is_none());
        assert!(queue.take(99).is_none());
        assert_eq!(drain(&mut queue, u64::MAX), [(0, 1), (0, 2), (1, 2), (2, 1), (2, 2)]);
    }

    #[test]
    fn a_look_can_begin_anywhere() {
        let queue = queue();
        let serials = |mask, from| queue.matches(mask, from).map(|(serial, _)| serial).collect::<Vec<_>>();
        assert_eq!(serials(u64::MAX, 0), [0, 1, 2, 3, 4, 5]);
        assert_eq!(serials(SHUTDOWN, 1), [2, 4]);
        assert_eq!(serials(u64::MAX, 5), [5]);
        assert_eq!(serials(u64::MAX, queue.end()), []);
    }

    #[test]
    fn an_event_has_zeroes_where_its_type_says_nothing() {
        let event = event(7, Change::Death);
        let raw = event.as_ptr().cast::<u8>();
        // SAFETY: that many bytes are allocated, and all have been written (zeroed).
        let bytes = unsafe { std::slice::from_raw_parts(raw, super::super::ALLOCATION) };
        let used = std::mem::offset_of!(crate::abi::libxl_event, u);
        assert!(bytes[used..].iter().all(|byte| *byte == 0));
    }
}
