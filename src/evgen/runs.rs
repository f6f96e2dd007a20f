// SPDX-License-Identifier: LGPL-2.1-or-later
//! An ordered map for many small entries that are mostly gone through from end to end.
//!
//! The entries lie in runs, each a sorted vector of a bounded length; all of a run is below all of the next. To go through
//! them is to go through arrays; to find, add or remove one is a search for its run and one within it, and moves
//! at most a run. Keys that come in ascending order, as domids do, fill their runs to the end.
//!
//! Invariants: no run is empty or longer than [`FULL`].

/// The longest run. Moving half of it costs about as much as finding it.
const FULL: usize = 32;

/// The map.
#[derive(Debug)]
pub struct Runs<K, V> {
    runs: Vec<Vec<(K, V)>>,
    len: usize,
}

/// The keys next to a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Beside<K> {
    /// The next lower key.
    pub before: Option<K>,
    /// The next higher.
    pub after: Option<K>,
}

impl<K, V> Default for Runs<K, V> {
    fn default() -> Self {
        Runs { runs: Vec::new(), len: 0 }
    }
}

impl<K: Ord + Copy, V> Runs<K, V> {
    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// There is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The highest key.
    pub fn last_key(&self) -> Option<K> {
        Some(self.runs.last()?.last()?.0)
    }

    /// Adds an entry, or replaces that of the same key; its neighbours.
    pub fn insert(&mut self, key: K, value: V) -> Beside<K> {
        let mut at = self.run_of(key);
        let Some(run) = self.runs.get_mut(at) else {
            self.runs.push(vec![(key, value)]);
            self.len = 1;
            return Beside { before: None, after: None };
        };
        let mut index = match run.binary_search_by_key(&key, |(key, _)| *key) {
            Ok(index) => {
                run[index].1 = value;
                return self.beside(at, index, index + 1);
            }
            Err(index) => index,
        };
        if run.len() == FULL {
            // Behind everything, a new run is begun, and the full one stays full.
            let last = index == FULL && at + 1 == self.runs.len();
            let middle = if last { FULL } else { FULL / 2 };
            let upper = self.runs[at].split_off(middle);
            self.runs.insert(at + 1, upper);
            if index > middle || last {
                at += 1;
                index -= middle;
            }
        }
        self.runs[at].insert(index, (key, value));
        self.len += 1;
        self.beside(at, index, index + 1)
    }

    /// Removes an entry; what were its neighbours.
    pub fn remove(&mut self, key: K) -> Option<(V, Beside<K>)> {
        let at = self.run_of(key);
        let run = self.runs.get_mut(at)?;
        let index = run.binary_search_by_key(&key, |(key, _)| *key).ok()?;
        let (_, value) = run.remove(index);
        let beside = self.beside(at, index, index);
        self.len -= 1;
        if self.runs[at].is_empty() {
            self.runs.remove(at);
        } else {
            // What is left of two shares one, which then has room: nothing is split and joined again and again.
            self.join(at);
            self.join(at.wrapping_sub(1));
        }
        Some((value, beside))
    }

    /// The keys before one place and from another on, both of the same run, which may lie at its ends or past them.
    fn beside(&self, at: usize, before: usize, after: usize) -> Beside<K> {
        let key = |entry: &(K, V)| entry.0;
        let in_run = |index: usize| self.runs[at].get(index).map(key);
        let lower = || self.runs.get(at.wrapping_sub(1)).and_then(|run| run.last()).map(key);
        let upper = || self.runs.get(at + 1).and_then(|run| run.first()).map(key);
        Beside { before: in_run(before.wrapping_sub(1)).or_else(lower), after: in_run(after).or_else(upper) }
    }

    /// All entries from a key on, ascending.
    pub fn since(&self, key: K) -> impl Iterator<Item = (K, &V)> {
        let (at, index) = self.seek(key);
        let runs = self.runs.get(at..).unwrap_or_default().iter().flatten();
        runs.skip(index).map(|(key, value)| (*key, value))
    }

    /// The same, to be changed.
    pub fn since_mut(&mut self, key: K) -> impl Iterator<Item = (K, &mut V)> {
        let (at, index) = self.seek(key);
        let runs = self.runs.get_mut(at..).unwrap_or_default().iter_mut().flatten();
        runs.skip(index).map(|(key, value)| (*key, value))
    }

    /// All entries, ascending, to be changed.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (K, &mut V)> {
        self.runs.iter_mut().flatten().map(|(key, value)| (*key, value))
    }

    /// All keys, ascending.
    pub fn keys(&self) -> impl Iterator<Item = K> {
        self.runs.iter().flatten().map(|(key, _)| *key)
    }

    /// Makes one run of this and the next, if they are short.
    fn join(&mut self, at: usize) {
        let Some([run, next]) = self.runs.get(at..).and_then(|runs| runs.get(..2)) else { return };
        if run.len() + next.len() <= FULL / 2 {
            let next = self.runs.remove(at + 1);
            self.runs[at].extend(next);
        }
    }

    /// The run in which a key is, or would be.
    fn run_of(&self, key: K) -> usize {
        self.runs.partition_point(|run| run[0].0 <= key).saturating_sub(1)
    }

    /// Where the first entry is whose key isn't below this one. It may be past the run's end, and so in the next.
    fn seek(&self, key: K) -> (usize, usize) {
        let at = self.run_of(key);
        let index = self.runs.get(at).map_or(0, |run| run.partition_point(|(other, _)| *other < key));
        (at, index)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// The map, and one that is known to be right.
    #[derive(Default)]
    struct Pair {
        runs: Runs<u32, u32>,
        model: BTreeMap<u32, u32>,
    }

    impl Pair {
        fn insert(&mut self, key: u32, value: u32) {
            self.model.insert(key, value);
            assert_eq!(self.runs.insert(key, value), self.beside(key));
        }

        fn remove(&mut self, key: u32) {
            let removed = self.model.remove(&key).map(|value| (value, self.beside(key)));
            assert_eq!(self.runs.remove(key), removed);
        }

        fn beside(&self, key: u32) -> Beside<u32> {
            Beside {
                before: self.model.range(..key).next_back().map(|(key, _)| *key),
                after: self.model.range(key + 1..).next().map(|(key, _)| *key),
            }
        }

        fn check(&mut self) {
            assert_eq!(self.runs.len(), self.model.len());
            assert_eq!(self.runs.is_empty(), self.model.is_empty());
            assert_eq!(self.runs.last_key(), self.model.last_key_value().map(|(key, _)| *key));
            assert!(self.runs.keys().eq(self.model.keys().copied()));
            assert!(self.runs.iter_mut().map(|(key, value)| (key, *value)).eq(self.model.clone()));
            assert!(self.runs.runs.iter().all(|run| (1..=FULL).contains(&run.len())));
        }

        fn check_from(&mut self, key: u32) {
            let expected: Vec<_> = self.model.range(key..).map(|(key, value)| (*key, *value)).collect();
            assert!(self.runs.since(key).map(|(key, value)| (key, *value)).eq(expected.iter().copied()));
            assert!(self.runs.since_mut(key).map(|(key, value)| (key, *value)).eq(expected));
        }
    }

    #[test]
    fn it_holds_what_was_put_into_it_and_in_order() {
        let mut pair = Pair::default();
        // Steps that visit all residues, so that keys come in no simple order, often twice.
        let mut key = 1;
        for step in 0..20_000u32 {
            key = (key * 75 + 74) % 65_537;
            let near = key % 997;
            // It grows and shrinks in turns, to nothing at the end of each.
            match step / 2500 % 2 {
                0 => pair.insert(near, step),
                _ => pair.remove(near),
            }
            if step % 97 == 0 {
                pair.check();
                pair.check_from(key % 1100);
            }
        }
        for key in 0..997 {
            pair.remove(key);
        }
        pair.check();
        pair.check_from(0);
    }

    #[test]
    fn ascending_keys_fill_their_runs() {
        let mut pair = Pair::default();
        (0..1000).for_each(|key| pair.insert(key, key));
        pair.check();
        assert_eq!(pair.runs.runs.len(), 1000usize.div_ceil(FULL));
    }

    #[test]
    fn one_that_comes_and_goes_at_a_runs_end_moves_nobody() {
        let mut pair = Pair::default();
        (0..1000).for_each(|key| pair.insert(key * 2, key));
        pair.insert(63, 0);
        let runs = pair.runs.runs.len();
        for _ in 0..100 {
            pair.remove(63);
            pair.insert(63, 0);
            assert_eq!(pair.runs.runs.len(), runs);
        }
        pair.check();
    }

    #[test]
    fn what_is_taken_out_leaves_no_empty_room() {
        let mut pair = Pair::default();
        (0..1000).for_each(|key| pair.insert(key, key));
        (0..1000).filter(|key| key % 16 != 0).for_each(|key| pair.remove(key));
        pair.check();
        assert!(pair.runs.runs.len() <= 2 * 63usize.div_ceil(FULL / 2), "{} runs", pair.runs.runs.len());
    }
}
