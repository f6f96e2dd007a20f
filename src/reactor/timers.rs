// SPDX-License-Identifier: LGPL-2.1-or-later
//! What is to be done later, ordered by when. The reactor's one timer is set to the earliest.

use std::collections::BTreeMap;

use super::Monotonic;

/// Deadlines, and what each is for.
#[derive(Debug)]
pub struct Timers<T> {
    /// The number tells equal deadlines apart, first come first.
    pending: BTreeMap<(Monotonic, u64), T>,
    next: u64,
}

/// Names a deadline, to take it back.
pub type TimerId = (Monotonic, u64);

impl<T> Default for Timers<T> {
    fn default() -> Self {
        Timers { pending: BTreeMap::new(), next: 0 }
    }
}

impl<T> Timers<T> {
    /// Adds a deadline; the second value tells whether it is now the earliest, for which the timer must be set.
    pub fn insert(&mut self, deadline: Monotonic, what: T) -> (TimerId, bool) {
        let id = (deadline, self.next);
        self.next += 1;
        let earliest = self.earliest().is_none_or(|earliest| deadline < earliest);
        self.pending.insert(id, what);
        (id, earliest)
    }

    /// Takes a deadline back, if it has not passed.
    pub fn remove(&mut self, id: TimerId) -> Option<T> {
        self.pending.remove(&id)
    }

    /// Takes out one whose time has come.
    pub fn pop_due(&mut self, now: Monotonic) -> Option<T> {
        let entry = self.pending.first_entry()?;
        (entry.key().0 <= now).then(|| entry.remove())
    }

    /// The next deadline.
    pub fn earliest(&self) -> Option<Monotonic> {
        self.pending.first_key_value().map(|((deadline, _), _)| *deadline)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn due_in_order_of_time_then_of_insertion() {
        let at = Duration::from_millis;
        let mut timers = Timers::default();
        assert!(timers.insert(at(20), "b").1);
        assert!(timers.insert(at(10), "a").1);
        assert!(!timers.insert(at(20), "c").1);
        let (id, earliest) = timers.insert(at(15), "x");
        assert!(!earliest);
        assert_eq!(timers.remove(id), Some("x"));
        assert_eq!(timers.remove(id), None);
        assert_eq!(timers.pop_due(at(9)), None);
        assert_eq!(timers.earliest(), Some(at(10)));
        let due: Vec<_> = std::iter::from_fn(|| timers.pop_due(at(20))).collect();
        assert_eq!(due, ["a", "b", "c"]);
        assert_eq!(timers.earliest(), None);
    }
}
