// SPDX-License-Identifier: LGPL-2.1-or-later
//! Lines that come again and again: a loop that goes on with a mistake, a guest that misbehaves on purpose, a daemon that
//! flaps. The first of a kind is written at once; then one a minute at most, which says how many there were.
//!
//! - A line's kind is its text without the numbers in it. Its subject is the text with them: a handle, a domain. The first
//!   line of each subject is written too, of so many a minute.
//! - [`Kind::Named`] is for lines whose text never is the same twice: then there are no subjects.
//! - News ([`Kind::News`]) are what somebody wants to read each time. A few a minute are written of those.
//! - There is room for so many kinds, since a guest may make some up. What comes beyond them shares one.
//! - The last count isn't lost: whoever keeps this asks for what is held back ([`Repeats::held`]) when its minute is over
//!   ([`Admitted::due`]), and at the end.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::{PoisonError, TryLockError};
use std::time::Duration;

use super::{Level, Line};
use crate::sync::std_like::{Mutex, MutexGuard};

/// What makes two lines the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Their text, but for the numbers in it.
    Text,
    /// This name.
    Named(&'static str),
    /// This name; and a few a minute are written.
    News(&'static str),
    /// None: it is what a script has said, and how much that is was bounded before.
    Quoted,
}

/// Of one kind, one line in such a time.
pub const MINUTE: Duration = Duration::from_secs(60);

/// Of news, so many.
const NEWS_A_MINUTE: usize = 5;

/// As many kinds are told apart.
const KINDS: usize = 128;

/// Of one kind, as many subjects.
const SUBJECTS: usize = 32;

/// What is to become of a line.
#[derive(Debug, PartialEq, Eq)]
pub struct Admitted {
    /// To be written now.
    pub line: Option<Line>,
    /// It is held back, as the first of its minute, which is over then.
    pub due: Option<Duration>,
}

/// A kind, in a minute that began with a line that was written.
#[derive(Debug)]
struct Entry {
    key: u64,
    since: Duration,
    /// Of the lines that were written: their subjects.
    written: Vec<u64>,
    held: u64,
    /// The last that was held back.
    last: Option<Line>,
}

impl Entry {
    fn new(key: u64, since: Duration, subject: u64) -> Self {
        Entry { key, since, written: vec![subject], held: 0, last: None }
    }

    fn is_over(&self, now: Duration) -> bool {
        now.saturating_sub(self.since) >= MINUTE
    }

    fn admit(&mut self, line: &Line, now: Duration) -> Admitted {
        let subject = subject(line);
        if self.is_over(now) {
            let held = self.held;
            *self = Entry::new(self.key, now, subject);
            return Admitted { line: Some(counted(line, held)), due: None };
        }
        let at_once = match line.kind {
            Kind::Text => self.written.len() < SUBJECTS && !self.written.contains(&subject),
            Kind::News(_) => self.written.len() < NEWS_A_MINUTE,
            Kind::Named(_) | Kind::Quoted => false,
        };
        // Those beyond that there is room for are one kind, whatever they are.
        if at_once && self.key != OTHERS {
            self.written.push(subject);
            return Admitted { line: Some(line.clone()), due: None };
        }
        self.held += 1;
        self.last = Some(line.clone());
        Admitted { line: None, due: (self.held == 1).then(|| self.since + MINUTE) }
    }

    /// The line that stands for those that were held back. It begins a new minute.
    fn release(&mut self, now: Duration) -> Option<Line> {
        let (held, last) = (self.held, self.last.take()?);
        *self = Entry::new(self.key, now, subject(&last));
        Some(counted(&last, held - 1))
    }
}

/// A line that stands for others too.
fn counted(line: &Line, others: u64) -> Line {
    let mut line = line.clone();
    if others > 0 {
        line.text = format!("{} (and {others} more like it in the last minute)", line.text);
    }
    line
}

/// The kinds of one log.
#[derive(Debug, Default)]
pub struct Repeats(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    kinds: Vec<Entry>,
    /// Beyond those that there is room for.
    others: Option<Entry>,
}

impl Table {
    const fn new() -> Self {
        Table { kinds: Vec::new(), others: None }
    }

    fn admit(&mut self, line: &Line, now: Duration) -> Admitted {
        if line.kind == Kind::Quoted {
            return Admitted { line: Some(line.clone()), due: None };
        }
        let key = key(line);
        if let Some(entry) = self.kinds.iter_mut().find(|entry| entry.key == key) {
            return entry.admit(line, now);
        }
        if self.kinds.len() >= KINDS {
            self.kinds.retain(|entry| entry.held > 0 || !entry.is_over(now));
        }
        let first = Admitted { line: Some(line.clone()), due: None };
        if self.kinds.len() < KINDS {
            self.kinds.push(Entry::new(key, now, subject(line)));
            return first;
        }
        match &mut self.others {
            Some(others) => others.admit(line, now),
            None => {
                self.others = Some(Entry::new(OTHERS, now, 0));
                first
            }
        }
    }
}

impl Repeats {
    /// Nothing has been written yet.
    pub const fn new() -> Self {
        Repeats(Mutex::new(Table::new()))
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A line has come. `now` is a time that goes on.
    pub fn admit(&self, line: &Line, now: Duration) -> Admitted {
        self.lock().admit(line, now)
    }

    /// The line to be written, where nothing may be waited for: a forked child may find the lock taken for ever.
    pub fn try_admit(&self, line: &Line, now: Duration) -> Option<Line> {
        match self.0.try_lock() {
            Ok(mut table) => table.admit(line, now).line,
            Err(TryLockError::Poisoned(table)) => table.into_inner().admit(line, now).line,
            Err(TryLockError::WouldBlock) => Some(line.clone()),
        }
    }

    /// What is held back and whose minute is over, or all of it.
    pub fn held(&self, now: Duration, all: bool) -> Vec<Line> {
        let mut table = self.lock();
        let Table { kinds, others } = &mut *table;
        let due = kinds.iter_mut().chain(others).filter(|entry| all || entry.is_over(now));
        due.filter_map(|entry| entry.release(now)).collect()
    }
}

/// The key of what shares a kind, and of nothing else.
const OTHERS: u64 = 0;

fn key(line: &Line) -> u64 {
    let mut hasher = DefaultHasher::new();
    line.level.hash(&mut hasher);
    match line.kind {
        Kind::Named(name) | Kind::News(name) => name.hash(&mut hasher),
        Kind::Text | Kind::Quoted => {
            line.errno.map(|errno| errno as i32).hash(&mut hasher);
            // 0x… is an address, or a handle.
            for (number, part) in line.text.split("0x").enumerate() {
                let part = part.trim_start_matches(|c: char| number > 0 && c.is_ascii_hexdigit());
                part.split(|c: char| c.is_ascii_digit())
                    .filter(|word| !word.is_empty())
                    .for_each(|word| word.hash(&mut hasher));
            }
        }
    }
    hasher.finish().max(OTHERS + 1)
}

fn subject(line: &Line) -> u64 {
    let mut hasher = DefaultHasher::new();
    line.text.hash(&mut hasher);
    hasher.finish()
}

impl Hash for Level {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        (*self as i32).hash(hasher);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(1000 + seconds)
    }

    fn line(text: &str) -> Line {
        Line::new(Level::Error, text)
    }

    fn written(repeats: &Repeats, line: &Line, now: Duration) -> Option<String> {
        repeats.admit(line, now).line.map(|line| line.text)
    }

    fn held(repeats: &Repeats, now: Duration, all: bool) -> Vec<String> {
        repeats.held(now, all).into_iter().map(|line| line.text).collect()
    }

    #[test]
    fn the_first_is_written_at_once_and_then_one_a_minute_with_how_many_there_were() {
        let (repeats, again) = (Repeats::new(), line("again"));
        assert_eq!(written(&repeats, &again, at(0)), Some("again".to_owned()));
        assert_eq!(repeats.admit(&again, at(1)), Admitted { line: None, due: Some(at(60)) });
        for second in 2..60 {
            assert_eq!(repeats.admit(&again, at(second)), Admitted { line: None, due: None });
        }
        assert_eq!(held(&repeats, at(59), false), [""; 0]);
        assert_eq!(held(&repeats, at(60), false), ["again (and 58 more like it in the last minute)"]);
        // That began another minute.
        assert_eq!(repeats.admit(&again, at(119)), Admitted { line: None, due: Some(at(120)) });
        assert_eq!(held(&repeats, at(120), false), ["again"]);
        assert_eq!(held(&repeats, at(1000), true), [""; 0]);
        assert_eq!(written(&repeats, &again, at(1000)), Some("again".to_owned()));
    }

    #[test]
    fn where_nobody_asks_for_it_the_next_line_has_the_count() {
        let (repeats, again) = (Repeats::new(), line("again"));
        (0..10).for_each(|_| drop(repeats.admit(&again, at(0))));
        assert_eq!(written(&repeats, &again, at(61)), Some("again (and 9 more like it in the last minute)".to_owned()));
    }

    #[test]
    fn at_the_end_everything_comes_out() {
        let repeats = Repeats::new();
        for text in ["a", "b", "c"] {
            written(&repeats, &line(text), at(0));
        }
        for text in ["a", "b", "b"] {
            assert_eq!(written(&repeats, &line(text), at(1)), None);
        }
        assert_eq!(held(&repeats, at(2), true), ["a", "b (and 1 more like it in the last minute)"]);
        assert_eq!(held(&repeats, at(2), true), [""; 0]);
    }

    #[test]
    fn kinds_do_not_keep_one_another_back() {
        let repeats = Repeats::new();
        let texts = ["f: 0x7f00 is not a context", "g: 0x7f00 is not a context", "f: the context is NULL"];
        for text in texts {
            assert_eq!(written(&repeats, &line(text), at(0)), Some(text.to_owned()));
            assert_eq!(written(&repeats, &line(text), at(1)), None);
        }
        let with_errno = |errno| line("f").with_errno(errno);
        assert!(written(&repeats, &with_errno(nix::errno::Errno::EIO), at(1)).is_some());
        assert!(written(&repeats, &with_errno(nix::errno::Errno::EPERM), at(1)).is_some());
        assert!(written(&repeats, &with_errno(nix::errno::Errno::EIO), at(1)).is_none());
        let child = |pid: u32| line(&format!("child {pid}")).of(Kind::Named("child"));
        assert!(written(&repeats, &child(1), at(1)).is_some());
        assert!(written(&repeats, &child(2), at(1)).is_none());
    }

    #[test]
    fn each_subject_of_a_kind_has_its_first_line_and_there_are_not_many() {
        let repeats = Repeats::new();
        let handle = |number: u64| line(&format!("f: no generator of domain {number} has the handle {number:#x}"));
        let count = (0..1000).filter(|&number| written(&repeats, &handle(number), at(0)).is_some()).count();
        assert_eq!(count, SUBJECTS);
        assert!(written(&repeats, &handle(0), at(1)).is_none());
        assert!(written(&repeats, &line("another"), at(1)).is_some());
        assert_eq!(held(&repeats, at(60), false).len(), 1);
        assert_eq!(repeats.lock().kinds.len(), 2);
    }

    #[test]
    fn of_news_a_few_are_written_and_no_flood() {
        let repeats = Repeats::new();
        let news = |seconds: u32| line(&format!("back after {seconds} s")).of(Kind::News("back"));
        let count = (0..1000).filter(|&number| written(&repeats, &news(number), at(1)).is_some()).count();
        assert_eq!(count, NEWS_A_MINUTE);
        assert_eq!(held(&repeats, at(61), false), ["back after 999 s (and 994 more like it in the last minute)"]);
    }

    #[test]
    fn what_a_script_has_said_is_written_whatever_it_is() {
        let repeats = Repeats::new();
        let count =
            (0..1000).filter(|_| written(&repeats, &line("retrying").of(Kind::Quoted), at(1)).is_some()).count();
        assert_eq!(count, 1000);
        assert_eq!(held(&repeats, at(61), true), [""; 0]);
    }

    #[test]
    fn what_a_guest_can_make_up_takes_no_more_memory_and_writes_no_more_lines_than_there_is_room_for() {
        let repeats = Repeats::new();
        let letters =
            |number: u32| number.to_string().chars().map(|digit| (digit as u8 + 49) as char).collect::<String>();
        let made_up = |number: u32| line(&format!("a node says {}", letters(number)));
        let count = (0..10_000).filter(|&number| written(&repeats, &made_up(number), at(0)).is_some()).count();
        assert_eq!(count, KINDS + 1);
        assert_eq!(repeats.lock().kinds.len(), KINDS);
        // Those beyond are counted together.
        let others = 10_000 - KINDS - 2;
        let last = format!("a node says jjjj (and {others} more like it in the last minute)");
        assert_eq!(held(&repeats, at(60), false), [last]);
        // And what is over makes room.
        assert!(written(&repeats, &line("something else"), at(61)).is_some());
        assert_eq!(repeats.lock().kinds.len(), 1);
    }
}
