// SPDX-License-Identifier: LGPL-2.1-or-later
//! What is undone, or done all the same, when a panic passes.
//!
//! A panic, in the library or in a hook of a Rust program's, ends at the C boundary or in the program, and both go on. So
//! nothing may stay raised behind it:
//!
//! - A mark, a count, a flag is lowered by the `Drop` of a guard. A guard of what the context's lock protects has the `&mut`
//!   to it, so the lock is held when it is dropped. No `Drop` calls the application: a second panic would end the process.
//! - Code that calls the application, and has more to do afterwards, does so in [`Steps`].

use std::any::Any;
use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};

/// A cell has another value as long as this lives: a thread's mark, mostly. They nest.
#[derive(Debug)]
#[must_use]
pub(crate) struct Replaced<'a, T: Copy> {
    cell: &'a Cell<T>,
    before: T,
}

impl<'a, T: Copy> Replaced<'a, T> {
    pub(crate) fn with(cell: &'a Cell<T>, value: T) -> Self {
        Replaced { cell, before: cell.replace(value) }
    }
}

impl<T: Copy> Drop for Replaced<'_, T> {
    fn drop(&mut self) {
        self.cell.set(self.before);
    }
}

/// What a panic carries.
type Payload = Box<dyn Any + Send>;

/// Several steps, all of which are taken even if one panics. The first panic goes on when they are over.
#[derive(Debug, Default)]
#[must_use]
pub(crate) struct Steps {
    panic: Option<Payload>,
}

impl Steps {
    /// Takes one. `None` if it has panicked.
    pub(crate) fn take<R>(&mut self, step: impl FnOnce() -> R) -> Option<R> {
        // What the step has left is put right by guards, or by the steps that come after it.
        match panic::catch_unwind(AssertUnwindSafe(step)) {
            Ok(result) => Some(result),
            Err(payload) => {
                self.note(payload);
                None
            }
        }
    }

    #[cold]
    fn note(&mut self, payload: Payload) {
        match self.panic {
            // It has been written to stderr. Its destructor might panic in its turn.
            Some(_) => std::mem::forget(payload),
            None => self.panic = Some(payload),
        }
    }

    /// They are over. The panic, if there was one, goes on: no lock of the caller's should be held.
    pub(crate) fn end(self) {
        if let Some(payload) = self.panic {
            panic::resume_unwind(payload);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_lowered_after_a_panic_too_and_one_around_it_stays() {
        let mark = Cell::new(0);
        let outer = Replaced::with(&mark, 1);
        let _ = panic::catch_unwind(AssertUnwindSafe(|| {
            let _inner = Replaced::with(&mark, 2);
            assert_eq!(mark.get(), 2);
            panic!("on purpose");
        }));
        assert_eq!(mark.get(), 1);
        drop(outer);
        assert_eq!(mark.get(), 0);
    }

    #[test]
    fn every_step_is_taken_and_the_first_panic_goes_on() {
        let mut taken = Vec::new();
        let panicked = panic::catch_unwind(AssertUnwindSafe(|| {
            let mut steps = Steps::default();
            assert_eq!(steps.take(|| taken.push(1)), Some(()));
            assert_eq!(steps.take(|| -> i32 { panic!("first") }), None);
            steps.take(|| panic!("second"));
            steps.take(|| taken.push(4));
            steps.end();
            taken.push(5);
        }));
        assert_eq!(panicked.unwrap_err().downcast_ref::<&str>(), Some(&"first"));
        assert_eq!(taken, [1, 4]);
        Steps::default().end();
    }
}
