// SPDX-License-Identifier: LGPL-2.1-or-later
//! Log lines to the application's `xentoollog` logger, and libxenctrl's own lines caught on their way.
//!
//! A logger is the application's code, so a line is written only when no lock of ours is held: whoever holds one keeps
//! the [`Line`] and hands it on later (see `context::outbox`). [`Capture`] does the same for what libxenctrl says.
//!
//! A line may quote what a guest or a driver domain has written. It must not be able to end the line and begin another, nor
//! to command the terminal on which somebody reads it, nor to fill a disk: what a log is given is [`printable`].

mod repeats;

use std::borrow::Cow;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::io::Write;
use std::ptr::NonNull;

use nix::errno::Errno;
use parking_lot::Mutex;

pub use repeats::{Admitted, Kind, Repeats};

/// How bad it is; the numbers are `xentoollog_level`'s.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(i32)]
pub enum Level {
    /// For those who develop this library.
    Debug = 1,
    /// What an operator may want to know.
    Info = 5,
    /// Something unusual that was dealt with.
    Warn = 7,
    /// A call failed.
    Error = 8,
    /// Events may be missing from here on.
    Critical = 9,
}

/// One line of the log, kept until it can be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// How bad it is.
    pub level: Level,
    /// Printed by the logger as text, where the line is about a failed call.
    pub errno: Option<Errno>,
    /// The line without its end.
    pub text: String,
    /// What it is a repetition of.
    pub kind: Kind,
}

impl Line {
    /// A line without an errno.
    pub fn new(level: Level, text: impl Into<String>) -> Self {
        Line { level, errno: None, text: text.into(), kind: Kind::Text }
    }

    /// A failure as a line: its text, its errno.
    pub fn failure(level: Level, what: &str, error: &crate::error::Error) -> Self {
        Line { errno: error.errno(), ..Line::new(level, format!("{what}: {error}")) }
    }

    /// A failed call as a line, with its errno.
    pub fn with_errno(self, errno: Errno) -> Self {
        Line { errno: Some(errno), ..self }
    }

    /// A line of this kind.
    pub fn of(self, kind: Kind) -> Self {
        Line { kind, ..self }
    }
}

/// Where lines go. Implementations may be called from any thread, never with a lock of this library held.
pub trait LogSink: Send + Sync {
    /// Writes one line. Its text may quote what a guest has written, as it is: before somebody reads it on a terminal, or line
    /// by line, it has to be made [`printable`].
    fn write(&self, line: &Line);

    /// It drops every line.
    fn is_silent(&self) -> bool {
        false
    }
}

/// Drops every line: for contexts that were made without a logger.
#[derive(Debug, Default)]
pub struct NullLog;

impl LogSink for NullLog {
    fn write(&self, _line: &Line) {}

    fn is_silent(&self) -> bool {
        true
    }
}

/// Writes to standard error: where there is no logger to be had, such as for a call with an unknown context.
#[derive(Debug, Default)]
pub struct StderrLog;

impl LogSink for StderrLog {
    fn write(&self, line: &Line) {
        let text = printable(&line.text);
        // One that nobody reads any more is no reason to panic.
        let _ = match line.errno {
            Some(errno) => writeln!(std::io::stderr(), "xlevent: {text}: {}", errno.desc()),
            None => writeln!(std::io::stderr(), "xlevent: {text}"),
        };
    }
}

/// Longer than any line of our own. What is quoted may be a node's value, of 4096 bytes.
const LINE_MAX: usize = 1000;

/// A text as it can be shown: characters that stand for nothing visible, or that change how others are shown, are written as
/// Rust writes them, such as `\n` or `\u{1b}`, and what is too long is cut off. A zero byte is one of them, so that a C string
/// has all of the text.
pub fn printable(text: &str) -> Cow<'_, str> {
    if text.len() <= LINE_MAX && !text.chars().any(is_hidden) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::new();
    for character in text.chars() {
        if shown.len() >= LINE_MAX {
            shown.push_str("...");
            break;
        }
        match is_hidden(character) {
            true => shown.extend(character.escape_default()),
            false => shown.push(character),
        }
    }
    Cow::Owned(shown)
}

/// Control characters; line and paragraph separators; what changes the direction of writing.
fn is_hidden(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[link(name = "xentoollog")]
unsafe extern "C" {
    fn xtl_log(logger: *mut c_void, level: c_int, errnoval: c_int, context: *const c_char, format: *const c_char, ...);
}

/// The application's `xentoollog_logger`.
#[derive(Debug)]
pub struct XtlLog(NonNull<c_void>);

// SAFETY: libxl's contract has the logger called from any thread that calls the library.
unsafe impl Send for XtlLog {}
// SAFETY: as above; each call is one complete `vmessage`.
unsafe impl Sync for XtlLog {}

impl XtlLog {
    /// # Safety
    /// `logger` is a `xentoollog_logger` that outlives every use of the returned value.
    pub unsafe fn new(logger: NonNull<c_void>) -> Self {
        XtlLog(logger)
    }
}

impl LogSink for XtlLog {
    fn write(&self, line: &Line) {
        // There is no zero byte in what is printable.
        let text = CString::new(printable(&line.text).into_owned()).unwrap_or_default();
        let errno = line.errno.map_or(-1, |errno| errno as c_int);
        // SAFETY: the logger is alive (`new`), the strings end in NUL, and the format takes one string.
        unsafe {
            xtl_log(self.0.as_ptr(), line.level as c_int, errno, c"xlevent".as_ptr(), c"%s".as_ptr(), text.as_ptr());
        }
    }
}

/// `va_list` as a parameter: an array or a large structure on the platforms that we build for, so a pointer arrives.
type VaList = *mut c_void;

unsafe extern "C" {
    fn vsnprintf(buffer: *mut c_char, size: usize, format: *const c_char, arguments: VaList) -> c_int;
}

/// A `xentoollog_logger` of our own that keeps what libxenctrl says until it can be passed on.
///
/// The address is given to libxenctrl, so it lives in a box and starts with the C structure.
#[repr(C)]
pub struct Capture {
    vmessage: unsafe extern "C" fn(*mut Capture, c_int, c_int, *const c_char, *const c_char, VaList),
    progress: Option<unsafe extern "C" fn()>,
    destroy: Option<unsafe extern "C" fn()>,
    lines: Mutex<Vec<Line>>,
}

/// More lines than this between two looks are dropped: a library that fails in a loop must not fill memory.
const CAPTURE_LIMIT: usize = 64;

impl Capture {
    /// An empty one.
    pub fn new() -> Box<Self> {
        Box::new(Capture { vmessage: capture_vmessage, progress: None, destroy: None, lines: Mutex::new(Vec::new()) })
    }

    /// What to pass where a `xentoollog_logger *` is expected. Valid as long as the box.
    pub fn as_logger(&self) -> *mut c_void {
        std::ptr::from_ref(self).cast_mut().cast()
    }

    /// Takes the lines that have come in.
    pub fn take(&self) -> Vec<Line> {
        std::mem::take(&mut self.lines.lock())
    }
}

unsafe extern "C" fn capture_vmessage(
    logger: *mut Capture,
    level: c_int,
    errnoval: c_int,
    context: *const c_char,
    format: *const c_char,
    arguments: VaList,
) {
    let level = match level {
        9.. => Level::Critical,
        8 => Level::Error,
        7 => Level::Warn,
        // libxenctrl's chatter is not what an event library's user has asked for.
        _ => return,
    };
    let mut text = [0; 512];
    // SAFETY: the buffer's size is passed; format and arguments are the caller's, as for any `vmessage`.
    let written = unsafe { vsnprintf(text.as_mut_ptr(), text.len(), format, arguments) };
    if written < 0 {
        return;
    }
    // SAFETY: vsnprintf ended the buffer with NUL.
    let text = unsafe { CStr::from_ptr(text.as_ptr()) }.to_string_lossy().into_owned();
    let text = if context.is_null() {
        text
    } else {
        // SAFETY: a logger's context is a C string or null, and it is not null.
        format!("{}: {text}", unsafe { CStr::from_ptr(context) }.to_string_lossy())
    };
    // SAFETY: `logger` is the `Capture` whose address `as_logger` gave out; libxenctrl is closed before it is dropped.
    let capture = unsafe { &*logger };
    let mut lines = capture.lines.lock();
    if lines.len() < CAPTURE_LIMIT {
        let errno = (errnoval > 0).then(|| Errno::from_raw(errnoval));
        lines.push(Line { errno, ..Line::new(level, text) });
    }
}

/// The head of a `xentoollog_logger` that has nothing behind it.
#[repr(C)]
struct SilentLogger {
    vmessage: unsafe extern "C" fn(*mut c_void, c_int, c_int, *const c_char, *const c_char, VaList),
    progress: Option<unsafe extern "C" fn()>,
    destroy: Option<unsafe extern "C" fn()>,
}

unsafe extern "C" fn say_nothing(
    _logger: *mut c_void,
    _level: c_int,
    _errnoval: c_int,
    _context: *const c_char,
    _format: *const c_char,
    _arguments: VaList,
) {
}

/// A `xentoollog_logger *` that drops every line, for libraries that can't do without one. Lives for ever.
pub fn silent_logger() -> *mut c_void {
    static SILENT: SilentLogger = SilentLogger { vmessage: say_nothing, progress: None, destroy: None };
    (&raw const SILENT).cast_mut().cast()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capture_keeps_errors_with_errno_and_drops_chatter() {
        let capture = Capture::new();
        let say = |level: Level, errno: c_int| {
            // SAFETY: the logger is a live `Capture`, whose head is a `xentoollog_logger`.
            unsafe {
                xtl_log(
                    capture.as_logger(),
                    level as c_int,
                    errno,
                    c"xc".as_ptr(),
                    c"opening %s, try %d".as_ptr(),
                    c"/dev/xen/privcmd".as_ptr(),
                    7 as c_int,
                );
            }
        };
        say(Level::Debug, -1);
        assert_eq!(capture.take(), []);
        say(Level::Error, Errno::EACCES as c_int);
        let expected = Line::new(Level::Error, "xc: opening /dev/xen/privcmd, try 7").with_errno(Errno::EACCES);
        assert_eq!(capture.take(), [expected]);
        assert_eq!(capture.take(), []);
    }

    #[test]
    fn what_is_quoted_stays_within_its_line() {
        for plain in ["", "giving up a watch", "Gr\u{fc}\u{df}e, \"%n\" and \\ $(id)", "\u{fffd}"] {
            assert!(matches!(printable(plain), Cow::Borrowed(same) if same == plain));
        }
        for (text, shown) in [
            ("a\nxl: fine\r", "a\\nxl: fine\\r"),
            ("\u{1b}[2J\u{7f}\u{9b}", "\\u{1b}[2J\\u{7f}\\u{9b}"),
            ("a\0b\t", "a\\u{0}b\\t"),
            ("\u{202e}cba\u{2028}\u{feff}", "\\u{202e}cba\\u{2028}\\u{feff}"),
        ] {
            assert_eq!(printable(text), shown);
        }
    }

    #[test]
    fn a_line_is_bounded() {
        for text in ["x", "\n", "\u{10ffff}", "\u{1b}"] {
            let shown = printable(&text.repeat(4096)).into_owned();
            assert!(shown.len() < LINE_MAX + 20 && shown.ends_with("..."), "{}", shown.len());
            assert!(!shown.chars().any(is_hidden));
        }
        assert_eq!(printable(&"x".repeat(LINE_MAX)), "x".repeat(LINE_MAX));
    }

    #[test]
    fn capture_is_bounded() {
        let capture = Capture::new();
        for _ in 0..10 * CAPTURE_LIMIT {
            // SAFETY: as above.
            unsafe { xtl_log(capture.as_logger(), 8, -1, std::ptr::null(), c"again".as_ptr()) };
        }
        assert_eq!(capture.take().len(), CAPTURE_LIMIT);
    }
}
