// SPDX-License-Identifier: LGPL-2.1-or-later
//! How every exported function begins and ends: the panic boundary, and the trace.
//!
//! Invariants:
//! - A panic never unwinds into C. It becomes one line on stderr and the function's error value.
//! - With `XLEVENT_TRACE` set in the environment (decided at the first call, for good) each call writes two lines to
//!   stderr: one on entry, so that a call that blocks is seen, and one with its result. Without it the cost is one load.
//! - A line goes out in one `write`, past std's stderr lock: that lock may be held by a thread that does not exist in a
//!   forked child. A stderr that is closed or full is no error, and a pipe that nobody reads no SIGPIPE.
//! - A thread is not cancelled (pthread_cancel) inside: that would unwind through frames that can't take it. What has been
//!   asked for is done when the call is over, at the caller's next cancellation point.
//!
//! Rust's own panic message goes to stderr through the process-wide panic hook, which may be the application's. So a
//! hook of ours is put in front of it, once, which takes note of where a panic inside an entry point came from and
//! leaves all others to the hook that was there.

use std::cell::{Cell, RefCell};
use std::ffi::c_int;
use std::fmt::{self, Debug};
use std::fs::File;
use std::io::Write;
use std::mem::ManuallyDrop;
use std::os::fd::FromRawFd;
use std::panic::{self, AssertUnwindSafe, PanicHookInfo};

use crate::reactor::now;
use crate::sync::std_like::{Once, OnceLock};
use crate::xen::log::{Level, Line, Repeats, printable};
use crate::xen::sigpipe;

/// The body of an exported function: `entry!("libxl_event_check", ERROR_FAIL, { ... })`.
///
/// The second argument is what the function returns after a panic; `()` where it returns nothing. `return` inside the
/// block leaves the block, with its value, and so the function.
macro_rules! entry {
    ($name:literal, $on_panic:expr, $body:block) => {
        $crate::capi::entry::run($name, $on_panic, || $crate::capi::entry::uncancelled(|| $body))
    };
}
pub(crate) use entry;

/// The same for a function that mostly does next to nothing, and itself sees to what may be cancelled ([`uncancelled`]).
macro_rules! brief_entry {
    ($name:literal, $on_panic:expr, $body:block) => {
        $crate::capi::entry::run($name, $on_panic, || $body)
    };
}
pub(crate) use brief_entry;

/// What [`entry!`] expands to.
#[inline]
pub(crate) fn run<R: Debug>(name: &'static str, on_panic: R, body: impl FnOnce() -> R) -> R {
    let trace = tracing();
    if trace {
        write_stderr(name);
    }
    let result = guard(name, on_panic, body);
    if trace {
        write_stderr(&format!("{name} = {result:?}"));
    }
    result
}

/// Runs `body`; a panic in it is logged and gives `on_panic`.
fn guard<R>(name: &'static str, on_panic: R, body: impl FnOnce() -> R) -> R {
    note_panics();
    // The core keeps its state behind locks and puts it right in destructors; what the closure borrows besides is C's.
    match inside(|| panic::catch_unwind(AssertUnwindSafe(body))) {
        Ok(result) => result,
        Err(payload) => {
            // try_with: a thread that ends may have lost its thread-local storage already.
            let what = PANIC.try_with(RefCell::take).ok().flatten().unwrap_or_else(|| "panicked".to_owned());
            stderr_line(format_args!("{name}: {what}"));
            // A payload whose destructor panics would take the panic across the boundary after all.
            std::mem::forget(payload);
            on_panic
        }
    }
}

/// Writes one line to stderr, unless it repeats what has just been written. Never fails, never panics.
pub(crate) fn stderr_line(text: fmt::Arguments<'_>) {
    static REPEATS: Repeats = Repeats::new();
    let line = Line::new(Level::Error, text.to_string());
    // Where another thread has them, which may be one of a parent's, it is written in any case.
    if let Some(line) = REPEATS.try_admit(&line, now()) {
        write_stderr(&line.text);
    }
}

/// The same for each line, with our name before it; line breaks inside become spaces, and what else can't be shown is written
/// out.
fn write_stderr(text: &str) {
    let text = format!("xlevent: {text}").replace(['\n', '\r'], " ");
    let line = printable(&text).into_owned() + "\n";
    // SAFETY: descriptor 2 is borrowed for one write and, thanks to ManuallyDrop, not closed. Should the application
    // have closed or reused it, the write fails or goes where its own messages would have gone.
    let mut stderr = ManuallyDrop::new(unsafe { File::from_raw_fd(2) });
    let _ = uncancelled(|| sigpipe::blocked(|| stderr.write_all(line.as_bytes())));
}

/// Whether calls are traced.
fn tracing() -> bool {
    static TRACING: OnceLock<bool> = OnceLock::new();
    *TRACING.get_or_init(|| std::env::var_os("XLEVENT_TRACE").is_some())
}

thread_local! {
    /// How many entry points this thread is inside of: callbacks may call us again.
    static DEPTH: Cell<usize> = const { Cell::new(0) };
    /// What the last panic inside an entry point said, until the guard takes it.
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Marks this thread as inside an entry point while `body` runs, which lets no panic out.
fn inside<R>(body: impl FnOnce() -> R) -> R {
    DEPTH.with(|depth| {
        depth.set(depth.get() + 1);
        let result = body();
        depth.set(depth.get() - 1);
        result
    })
}

/// Does what another thread may not cancel.
pub(crate) fn uncancelled<R>(body: impl FnOnce() -> R) -> R {
    /// Also after a panic. Who has disabled it himself, or is in a call already, keeps it so.
    struct AsBefore(c_int);

    impl Drop for AsBefore {
        fn drop(&mut self) {
            if self.0 == PTHREAD_CANCEL_ENABLE {
                set_cancellation(PTHREAD_CANCEL_ENABLE);
            }
        }
    }

    let _before = AsBefore(set_cancellation(PTHREAD_CANCEL_DISABLE));
    body()
}

const PTHREAD_CANCEL_ENABLE: c_int = 0;
const PTHREAD_CANCEL_DISABLE: c_int = 1;

unsafe extern "C" {
    // libc's crate leaves it out.
    fn pthread_setcancelstate(state: c_int, before: *mut c_int) -> c_int;
}

/// Sets whether this thread may be cancelled; how it was before.
fn set_cancellation(state: c_int) -> c_int {
    let mut before = PTHREAD_CANCEL_DISABLE;
    // SAFETY: one of the two states, and a place for the other.
    unsafe { pthread_setcancelstate(state, &mut before) };
    before
}

/// Puts our panic hook in front of the one that is there, once.
fn note_panics() {
    static HOOKED: Once = Once::new();
    // Hooks can't be changed while this thread unwinds (a destructor that calls us); a later call will do it.
    if HOOKED.is_completed() || std::thread::panicking() {
        return;
    }
    HOOKED.call_once(|| {
        let previous = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !note(info) {
                previous(info)
            }
        }));
    });
}

/// Keeps a panic's text for the guard; false if this thread is not inside an entry point.
fn note(info: &PanicHookInfo<'_>) -> bool {
    if DEPTH.with(Cell::get) == 0 {
        return false;
    }
    let _ = PANIC.try_with(|panic| panic.replace(Some(info.to_string())));
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_the_error_value() {
        assert_eq!(entry!("test", -3, { panic!("on purpose") }), -3);
    }

    #[test]
    fn a_body_returns_its_own_value_early_or_late() {
        let run = |early: bool| {
            entry!("test", -3, {
                if early {
                    return 1;
                }
                2
            })
        };
        assert_eq!((run(true), run(false)), (1, 2));
    }

    #[test]
    fn a_panic_in_a_nested_entry_point_leaves_the_outer_one_whole() {
        let result = entry!("outer", -1, { entry!("inner", -3, { panic!("on purpose") }) + 10 });
        assert_eq!(result, 7);
        assert_eq!(DEPTH.with(Cell::get), 0);
    }

    #[test]
    fn a_payload_that_panics_when_dropped_is_contained() {
        struct Bomb;
        impl Drop for Bomb {
            fn drop(&mut self) {
                panic!("second panic");
            }
        }
        assert_eq!(entry!("test", -3, { panic::panic_any(Bomb) }), -3);
    }

    #[test]
    fn the_text_of_a_panic_is_kept_for_the_log() {
        note_panics();
        let _ = inside(|| panic::catch_unwind(|| panic!("what happened")));
        let text = PANIC.take();
        assert!(text.is_some_and(|text| text.contains("entry.rs") && text.contains("what happened")));
    }

    #[test]
    fn panics_elsewhere_go_to_the_hook_that_was_there() {
        note_panics();
        let _ = panic::catch_unwind(|| panic!("not ours: this message is part of the test"));
        assert_eq!(PANIC.take(), None);
    }
}
