// SPDX-License-Identifier: LGPL-2.1-or-later
//! What a child has said on one of its outputs, as lines, and how much of it is kept.
//!
//! A child may say any number of lines, of any length, and any bytes. The first lines and the last ones are kept, and of
//! each its beginning; what lies between is counted. So the memory that one takes is bounded, whatever it says.

use std::collections::VecDeque;

/// So many lines are kept from the beginning.
const FIRST_LINES: usize = 32;

/// And so many from the end.
const LAST_LINES: usize = 32;

/// So much is kept of a line.
pub const LINE_BYTES: usize = 400;

/// A line, or its beginning.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Line {
    /// Any bytes, without the line's end; at most [`LINE_BYTES`].
    pub text: Vec<u8>,
    /// How many more bytes it had.
    pub cut_off: u64,
}

/// See the module. Lines with nothing to be seen on them aren't counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Said {
    first: Vec<Line>,
    last: VecDeque<Line>,
    /// One whose end has not come.
    current: Line,
    left_out: u64,
}

impl Said {
    /// It has said more.
    pub fn push(&mut self, bytes: &[u8]) {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, is_whole) = match part.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (part, false),
            };
            let room = LINE_BYTES.saturating_sub(self.current.text.len());
            let (kept, cut_off) = text.split_at(text.len().min(room));
            self.current.text.extend_from_slice(kept);
            self.current.cut_off += cut_off.len() as u64;
            if is_whole {
                self.end_line();
            }
        }
    }

    /// It says no more. A last line need not have an end.
    pub fn end(&mut self) {
        self.end_line();
    }

    fn end_line(&mut self) {
        if self.current.cut_off == 0 && self.current.text.trim_ascii().is_empty() {
            self.current.text.clear();
            return;
        }
        if self.first.len() < FIRST_LINES {
            self.first.push(std::mem::take(&mut self.current));
            return;
        }
        let mut next = Line::default();
        if let Some(oldest) = (self.last.len() == LAST_LINES).then(|| self.last.pop_front()).flatten() {
            self.left_out += 1;
            // Its memory is used again: there may be millions.
            next = oldest;
            next.text.clear();
            next.cut_off = 0;
        }
        self.last.push_back(std::mem::replace(&mut self.current, next));
    }

    /// Nothing was said.
    pub fn is_empty(&self) -> bool {
        self.first.is_empty()
    }

    /// The lines from the beginning.
    pub fn first(&self) -> impl DoubleEndedIterator<Item = &Line> {
        self.first.iter()
    }

    /// How many there were after those that are not kept.
    pub fn left_out(&self) -> u64 {
        self.left_out
    }

    /// The lines at the end.
    pub fn last(&self) -> impl DoubleEndedIterator<Item = &Line> {
        self.last.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(parts: &[&[u8]]) -> Said {
        let mut said = Said::default();
        parts.iter().for_each(|part| said.push(part));
        said.end();
        said
    }

    fn texts(said: &Said) -> Vec<&str> {
        said.first().chain(said.last()).map(|line| std::str::from_utf8(&line.text).unwrap()).collect()
    }

    #[test]
    fn lines_come_in_any_pieces_and_the_last_needs_no_end() {
        assert!(said(&[]).is_empty());
        assert!(said(&[b"", b"\n", b" \t\r\n\n"]).is_empty());
        assert_eq!(texts(&said(&[b"one\ntwo"])), ["one", "two"]);
        assert_eq!(texts(&said(&[b"o", b"ne", b"\n", b"\ntwo\nthr", b"ee"])), ["one", "two", "three"]);
    }

    #[test]
    fn of_many_lines_the_first_and_the_last_are_kept_and_the_others_counted() {
        for count in [1, FIRST_LINES, FIRST_LINES + LAST_LINES, FIRST_LINES + LAST_LINES + 1, 20_000] {
            let lines: Vec<String> = (0..count).map(|number| format!("line {number}")).collect();
            let text = lines.join("\n");
            let said = said(&text.as_bytes().chunks(7).collect::<Vec<_>>());
            let kept = count.min(FIRST_LINES + LAST_LINES);
            assert_eq!(said.left_out(), (count - kept) as u64);
            let shown = texts(&said);
            assert_eq!(shown.len(), kept);
            assert_eq!(shown[..kept.min(FIRST_LINES)], lines[..kept.min(FIRST_LINES)]);
            assert_eq!(shown.last(), lines.last().map(String::as_str).as_ref());
        }
    }

    #[test]
    fn of_a_long_line_the_beginning_is_kept_and_the_rest_counted() {
        let long = vec![b'x'; 1_000_000];
        let said = said(&[&long, &long, b"\nshort\n", &long[..LINE_BYTES]]);
        let lines: Vec<_> = said.first().map(|line| (line.text.len(), line.cut_off)).collect();
        assert_eq!(lines, [(LINE_BYTES, 2_000_000 - LINE_BYTES as u64), (5, 0), (LINE_BYTES, 0)]);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut said = Said::default();
        for _ in 0..2000 {
            said.push(&[b'x'; 3000]);
            said.push(b"\n");
        }
        let lines = || said.first().chain(said.last());
        assert_eq!(lines().count(), FIRST_LINES + LAST_LINES);
        assert!(lines().map(|line| line.text.capacity()).sum::<usize>() <= 2 * LINE_BYTES * (FIRST_LINES + LAST_LINES));
    }
}
