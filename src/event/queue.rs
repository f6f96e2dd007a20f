// SPDX-License-Identifier: LGPL-2.1-or-later
//! The events of a context that wait to be retrieved, oldest first.
//!
//! Each event type has a lane of its own, so that events whose type isn't wanted cost nothing, however many there are.
//! A serial number tells the order across lanes.
//!
//! A queue that nobody reads grows without bound; what it has grown by is given back as it is read.

use std::collections::VecDeque;

use super::Event;
use crate::abi::libxl_event_type;

/// A queue.
#[derive(Debug, Default)]
pub struct Queue {
    lanes: Vec<Lane>,
    next: u64,
    length: usize,
    /// The most that it ever was.
    longest: usize,
}

#[derive(Debug)]
struct Lane {
    event_type: libxl_event_type,
    /// Its bit in a mask; none, if the type is beyond those that masks have.
    bit: u64,
    events: VecDeque<(u64, Event)>,
}

/// As many events as a lane keeps room for, even if it is empty.
const ROOM_KEPT: usize = 1024;

impl Lane {
    /// Gives back room that it doesn't need: where three quarters are empty, half of it. So it costs each event that was
    /// ever there a part of a move, and who goes up and down by a few gives nothing back.
    fn give_back(&mut self) {
        let room = self.events.capacity();
        if room > ROOM_KEPT && self.events.len() <= room / 4 {
            self.shrink((room / 2).max(ROOM_KEPT));
        }
    }

    #[cold]
    fn shrink(&mut self, room: usize) {
        self.events.shrink_to(room);
    }

    /// Whether a mask of event types has this one.
    fn passes(&self, mask: u64) -> bool {
        mask & self.bit != 0
    }

    /// Where its events from a serial on begin.
    fn index_from(&self, from: u64) -> usize {
        match self.events.front() {
            // None of them has been looked at: so it is for who asks without a predicate, and at the first look of one.
            Some((oldest, _)) if *oldest >= from => 0,
            _ => self.events.partition_point(|(serial, _)| *serial < from),
        }
    }

    /// The serial of its oldest event from a serial on, and where that is.
    fn first(&self, from: u64) -> Option<(u64, usize)> {
        let (oldest, _) = self.events.front()?;
        if *oldest >= from {
            return Some((*oldest, 0));
        }
        let index = self.index_from(from);
        self.events.get(index).map(|(serial, _)| (*serial, index))
    }

    /// Its events from a serial on, in the two pieces that they lie in.
    fn slices(&self, from: u64) -> [&[(u64, Event)]; 2] {
        let index = self.index_from(from);
        let (front, back) = self.events.as_slices();
        [front.get(index..).unwrap_or_default(), &back[index.saturating_sub(front.len())..]]
    }
}

impl Queue {
    /// Adds an event as the newest; its serial. `None` if there is no memory to keep it: then it is gone. How long a queue
    /// becomes is the application's doing, which need not fetch its events.
    #[inline(always)] // As `take_first`.
    #[must_use]
    pub fn push(&mut self, event: Event) -> Option<u64> {
        let event_type = event.event_type();
        let lane = self.lanes.iter().position(|lane| lane.event_type == event_type);
        let lane = lane.unwrap_or_else(|| self.new_lane(event_type));
        let events = &mut self.lanes[lane].events;
        if events.len() == events.capacity() {
            events.try_reserve(1).ok()?;
        }
        let serial = self.next;
        events.push_back((serial, event));
        self.next += 1;
        self.length += 1;
        self.longest = self.longest.max(self.length);
        Some(serial)
    }

    #[cold]
    fn new_lane(&mut self, event_type: libxl_event_type) -> usize {
        let bit = 1u64.checked_shl(event_type).unwrap_or(0);
        self.lanes.push(Lane { event_type, bit, events: VecDeque::new() });
        self.lanes.len() - 1
    }

    /// Whether an event of this type is still there.
    pub fn holds(&self, event_type: libxl_event_type, serial: u64) -> bool {
        let lane = self.lanes.iter().find(|lane| lane.event_type == event_type);
        lane.is_some_and(|lane| lane.events.binary_search_by_key(&serial, |(serial, _)| *serial).is_ok())
    }

    /// How many bytes its events take, and the room for them, without what events point to.
    pub fn bytes(&self) -> usize {
        let room: usize = self.lanes.iter().map(|lane| lane.events.capacity()).sum();
        room * size_of::<(u64, Event)>() + self.length * Event::BYTES
    }

    /// How many events there are.
    pub fn len(&self) -> usize {
        self.length
    }

    /// There is none.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// The most that there ever were.
    pub fn longest(&self) -> usize {
        self.longest
    }

    /// The serial that the next event will have.
    pub fn end(&self) -> u64 {
        self.next
    }

    /// The oldest event from serial `from` on whose type is in `mask`.
    pub fn first(&self, mask: u64, from: u64) -> Option<(u64, &Event)> {
        let (lane, index) = self.find_first(mask, from)?;
        self.lanes[lane].events.get(index).map(|(serial, event)| (*serial, event))
    }

    /// Takes that event out.
    #[inline(always)] // Each event passes through its one caller.
    pub fn take_first(&mut self, mask: u64, from: u64) -> Option<Event> {
        let mut oldest = u64::MAX;
        let mut first = None;
        for lane in &mut self.lanes {
            if !lane.passes(mask) {
                continue;
            }
            match lane.events.front() {
                Some((serial, _)) if *serial < oldest => {
                    oldest = *serial;
                    first = Some(lane);
                }
                _ => {}
            }
        }
        let lane = first?;
        if oldest < from {
            return self.take_first_among(mask, from);
        }
        // None of them has been looked at: so it is for who asks without a predicate, and at the first look of one.
        let (_, event) = lane.events.pop_front()?;
        lane.give_back();
        self.length -= 1;
        Some(event)
    }

    /// The same where some of the lanes' oldest are older than that.
    #[cold]
    fn take_first_among(&mut self, mask: u64, from: u64) -> Option<Event> {
        let (lane, index) = self.find_first(mask, from)?;
        let lane = &mut self.lanes[lane];
        let (_, event) = lane.events.remove(index)?;
        lane.give_back();
        self.length -= 1;
        Some(event)
    }

    /// In which lane it is, and where there.
    fn find_first(&self, mask: u64, from: u64) -> Option<(usize, usize)> {
        let mut first = None;
        let mut oldest = u64::MAX;
        for (at, lane) in self.lanes.iter().enumerate() {
            if !lane.passes(mask) {
                continue;
            }
            match lane.first(from) {
                Some((serial, index)) if serial < oldest => {
                    oldest = serial;
                    first = Some((at, index));
                }
                _ => {}
            }
        }
        first
    }

    /// Up to `max` events from serial `from` on whose type is in `mask`, oldest first, in slices that may have any length.
    pub fn each_match<'queue>(
        &'queue self,
        mask: u64,
        from: u64,
        max: usize,
        mut each: impl FnMut(&'queue [(u64, Event)]),
    ) {
        let mut lanes: Vec<_> =
            self.lanes.iter().filter(|lane| lane.passes(mask)).map(|lane| lane.slices(from)).collect();
        if let [[front, back]] = lanes.as_slice() {
            // Nothing to merge, as where all wait for the same thing.
            let rest = max.saturating_sub(front.len());
            each(&front[..front.len().min(max)]);
            each(&back[..back.len().min(rest)]);
            return;
        }
        for _ in 0..max {
            let heads = lanes.iter_mut().flatten().filter_map(|slice| Some((slice.first()?.0, slice)));
            let Some((_, slice)) = heads.min_by_key(|(serial, _)| *serial) else { return };
            let (oldest, rest) = slice.split_at(1);
            *slice = rest;
            each(oldest);
        }
    }

    /// Takes an event out.
    pub fn take(&mut self, serial: u64) -> Option<Event> {
        let taken = self.lanes.iter_mut().find_map(|lane| {
            let index = lane.events.binary_search_by_key(&serial, |(serial, _)| *serial).ok()?;
            let (_, event) = lane.events.remove(index)?;
            lane.give_back();
            Some(event)
        });
        self.length -= usize::from(taken.is_some());
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evgen::Recipient;
    use crate::evgen::domain_death::{Change, Report};

    const SHUTDOWN: u64 = 1 << 1;
    const DEATH: u64 = 1 << 2;

    fn event(domid: u32, change: Change) -> Event {
        Event::from_report(&Report { domid, uuid: [0; 16], user: 0, recipient: Recipient::OWN, change }).unwrap()
    }

    fn queue() -> Queue {
        let mut queue = Queue::default();
        for domid in 0..3 {
            assert!(queue.push(event(domid, Change::Shutdown(0))).is_some());
            assert!(queue.push(event(domid, Change::Death)).is_some());
        }
        queue
    }

    fn drain(queue: &mut Queue, mask: u64) -> Vec<(u32, libxl_event_type)> {
        std::iter::from_fn(|| {
            let (serial, _) = queue.first(mask, 0)?;
            queue.take(serial).map(|event| (event.domid(), event.event_type()))
        })
        .collect()
    }

    fn serials(queue: &Queue, mask: u64, from: u64, max: usize) -> Vec<u64> {
        let mut serials = Vec::new();
        queue.each_match(mask, from, max, |run| serials.extend(run.iter().map(|(serial, _)| *serial)));
        assert_eq!(serials.first().copied(), queue.first(mask, from).map(|(serial, _)| serial).filter(|_| max > 0));
        serials
    }

    #[test]
    fn what_a_queue_has_grown_by_is_given_back_as_it_is_read() {
        const MANY: usize = 20_000;
        let mut queue = Queue::default();
        let serials: Vec<u64> = (0..MANY as u32).filter_map(|domid| queue.push(event(domid, Change::Death))).collect();
        let full = queue.bytes();
        assert!(full >= MANY * (Event::BYTES + size_of::<(u64, Event)>()));
        assert!(queue.holds(2, serials[7]) && !queue.holds(1, serials[7]));
        for serial in &serials[..MANY / 2] {
            queue.take(*serial).unwrap();
        }
        assert!(!queue.holds(2, serials[7]));
        for domid in MANY / 2..MANY {
            assert_eq!(queue.take_first(u64::MAX, 0).unwrap().domid(), domid as u32);
        }
        assert!(queue.is_empty());
        assert!(queue.bytes() <= ROOM_KEPT * size_of::<(u64, Event)>(), "{} bytes of {full}", queue.bytes());
    }

    #[test]
    fn oldest_first_across_types() {
        assert_eq!(drain(&mut queue(), u64::MAX), [(0, 1), (0, 2), (1, 1), (1, 2), (2, 1), (2, 2)]);
    }

    #[test]
    fn the_mask_leaves_others_in_place() {
        let mut queue = queue();
        assert_eq!(drain(&mut queue, DEATH), [(0, 2), (1, 2), (2, 2)]);
        assert!(queue.first(DEATH, 0).is_none());
        assert_eq!(serials(&queue, DEATH, 0, 9), []);
        assert!(queue.first(0, 0).is_none());
        assert_eq!(serials(&queue, 0, 0, 9), []);
        assert!(queue.first(!(SHUTDOWN | DEATH), 0).is_none());
        assert_eq!(serials(&queue, !(SHUTDOWN | DEATH), 0, 9), []);
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
    fn its_length_is_known_and_the_longest_that_it_was() {
        let mut queue = Queue::default();
        assert_eq!((queue.len(), queue.longest(), queue.is_empty()), (0, 0, true));
        for domid in 0..5 {
            assert!(
                queue.push(event(domid, if domid % 2 == 0 { Change::Shutdown(0) } else { Change::Death })).is_some()
            );
        }
        assert_eq!((queue.len(), queue.longest(), queue.is_empty()), (5, 5, false));
        // What isn't there can't be taken.
        assert!(queue.take(5).is_none());
        assert!(queue.take(3).is_some() && queue.take(3).is_none());
        assert_eq!((queue.len(), queue.longest()), (4, 5));
        assert_eq!(drain(&mut queue, SHUTDOWN).len(), 3);
        assert!(queue.push(event(9, Change::Death)).is_some());
        assert_eq!((queue.len(), queue.longest()), (2, 5));
        assert_eq!(drain(&mut queue, u64::MAX).len(), 2);
        assert_eq!((queue.len(), queue.longest(), queue.is_empty()), (0, 5, true));
    }

    #[test]
    fn a_look_can_begin_anywhere() {
        let queue = queue();
        assert_eq!(serials(&queue, u64::MAX, 0, 9), [0, 1, 2, 3, 4, 5]);
        assert_eq!(serials(&queue, u64::MAX, 0, 4), [0, 1, 2, 3]);
        assert_eq!(serials(&queue, SHUTDOWN, 1, 9), [2, 4]);
        assert_eq!(serials(&queue, SHUTDOWN, 0, 2), [0, 2]);
        assert_eq!(serials(&queue, u64::MAX, 5, 9), [5]);
        assert_eq!(serials(&queue, u64::MAX, queue.end(), 9), []);
        assert_eq!(serials(&queue, u64::MAX, 0, 0), []);
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
