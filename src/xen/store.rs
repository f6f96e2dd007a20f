// SPDX-License-Identifier: LGPL-2.1-or-later
//! A connection to xenstored, its watches and nodes, and a way to notice that the daemon has gone.
//!
//! A [`Store`] is what its owner connects, watches and gives up. A [`Connection`] is a share in it for who reads nodes
//! meanwhile, outside the owner's lock: the connection is closed when the last share is dropped, which waits.
//!
//! Beside it there is an [`Idle`] connection, which says what libxenstore doesn't: that the daemon has gone, and which domains it
//! knows. When the daemon isn't reached through a socket (xenbus), there is none.
//!
//! libxenstore keeps its descriptors by number. Before it is asked for anything it is seen to that these are still its own
//! (`Handle::is_ours`): the application may have closed them, and have the numbers for files of its own. Its reading thread
//! has a table of its own, where it can, in which nobody closes anything.

use std::ffi::{CStr, CString, OsStr, c_char, c_int, c_uint, c_ulong, c_void};
use std::mem::ManuallyDrop;
use std::os::fd::{BorrowedFd, FromRawFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::time::Duration;

use nix::errno::Errno;
use xenstore_sys::{
    XS_OPEN_SOCKETONLY, xs_check_watch, xs_close, xs_daemon_destroy_postfork, xs_daemon_socket, xs_fileno, xs_handle,
    xs_open, xs_read, xs_unwatch, xs_watch, xs_write,
};

use super::apart::{apart, keep_only};
use super::idle::Idle;
use super::sigpipe::spared;
use crate::dynlib::{Library, function};
use crate::error::{Error, Result};
use crate::forkguard::undisturbed;
use crate::identity::Identity;
use crate::sync::std_like::OnceLock;

/// Fires when a domain has shut down, is dying, or is gone; which one, nobody says.
pub const RELEASE_DOMAIN: &CStr = c"@releaseDomain";

/// Fires when xenstored has been told of a new domain; of which one, nobody says.
pub const INTRODUCE_DOMAIN: &CStr = c"@introduceDomain";

/// [`RELEASE_DOMAIN`] for one domain alone. Only for a daemon that has such ([`Connection::watches_single_domains`]): an older one
/// accepts it, fires once, and never again.
pub fn release_of(domid: u32) -> CString {
    // Letters and a number: there is no zero byte to fail for.
    CString::new(format!("@releaseDomain/{domid}")).unwrap_or_default()
}

/// The bit of a daemon's features (`XENSTORE_SERVER_FEATURE_WATCHDEPTH`) that says that single domains can be watched.
const FEATURE_WATCH_DEPTH: c_uint = 1 << 4;

type GetFeaturesDomain = unsafe extern "C" fn(*mut xs_handle, c_uint, *mut c_uint) -> bool;

/// libxenstore's question for a daemon's features, which releases before Xen 4.22 don't have. (Its
/// `xs_get_features_supported` keeps the first answer for the life of the process, whatever daemon comes after.)
fn get_features_domain() -> Option<GetFeaturesDomain> {
    static FOUND: OnceLock<Option<GetFeaturesDomain>> = OnceLock::new();
    // SAFETY: it is libxenstore's function of that name, which has this type.
    *FOUND.get_or_init(|| unsafe { function!(Library::process(), c"xs_get_features_domain", GetFeaturesDomain) })
}

/// A descriptor of libxenstore's.
#[derive(Debug, Clone, Copy)]
struct Numbered {
    fd: RawFd,
    identity: Identity,
}

impl Numbered {
    fn of(fd: RawFd) -> Option<Self> {
        Identity::of(fd).map(|identity| Numbered { fd, identity })
    }

    fn is_ours(self) -> bool {
        self.identity.is_at(self.fd)
    }

    /// Closes it, if that hasn't been done.
    fn close(self) {
        if self.is_ours() {
            // SAFETY: libxenstore's, whose handle has ended.
            unsafe { libc::close(self.fd) };
        }
    }
}

type SetWatch = unsafe extern "C" fn(*mut xs_handle, *const c_char, *const c_char) -> bool;
type Fileno = unsafe extern "C" fn(*mut xs_handle) -> c_int;

/// libxenstore's own functions that set a watch and take it away, past what may stand in front of them. `None` if there is no
/// such library, or if it isn't the library whose pipe we have: what stands in front of it may have descriptors of its own.
fn own_watches() -> Option<(SetWatch, SetWatch)> {
    static FOUND: OnceLock<Option<(SetWatch, SetWatch)>> = OnceLock::new();
    *FOUND.get_or_init(|| {
        let library = Library::loaded("libxenstore.so")?;
        // SAFETY: libxenstore's functions of those names have these types.
        let (fileno, watches) = unsafe {
            let watch = function!(library, c"xs_watch", SetWatch)?;
            (function!(library, c"xs_fileno", Fileno)?, (watch, function!(library, c"xs_unwatch", SetWatch)?))
        };
        (fileno as usize == xs_fileno as *const () as usize).then_some(watches)
    })
}

/// Of a watch that is never set.
const NO_TOKEN: &CStr = c"xlevent-none";

/// What xs_open gives. All of libxenstore's functions may be called from any thread.
#[derive(Debug)]
struct Handle {
    raw: NonNull<xs_handle>,
    serial: u64,
    /// The daemon has gone, or a watch could not be set or taken away.
    broken: AtomicBool,
    /// The connection, if we know which it is.
    socket: Option<Numbered>,
    /// The end of libxenstore's pipe that is readable when a watch has fired, and the other. Made when it is first asked for.
    pipe: OnceLock<[Option<Numbered>; 2]>,
    /// libxenstore has begun its thread, or will with the next watch.
    reads: AtomicBool,
    /// One of the numbers was found to be the application's.
    stolen: AtomicBool,
}

// SAFETY: libxenstore guards a handle with locks of its own.
unsafe impl Send for Handle {}
// SAFETY: as above.
unsafe impl Sync for Handle {}

/// How long libxenstore's thread may take to find that the daemon has gone. It takes microseconds.
const READER_ENDS_MS: u32 = 20;

/// The connection's number, which libxenstore doesn't tell: a handle begins with it, in every release so far. It is taken for
/// that if it is a connection to the daemon.
fn number_of(raw: NonNull<xs_handle>) -> &'static AtomicI32 {
    // SAFETY: an allocation of some hundred bytes, aligned for anything, of which the first four are looked at; who asks has
    // the handle.
    unsafe { raw.cast::<AtomicI32>().as_ref() }
}

fn socket_of(raw: NonNull<xs_handle>) -> Option<Numbered> {
    let fd = number_of(raw).load(Ordering::Relaxed);
    if fd < 0 {
        return None;
    }
    // SAFETY: libxenstore's, which keeps it: it is asked for its peer and not dropped.
    let stream = ManuallyDrop::new(unsafe { UnixStream::from_raw_fd(fd) });
    let peer = stream.peer_addr().ok()?;
    // The daemon may have bound it by another name of the folder.
    let same = peer.as_pathname().and_then(Path::file_name) == daemon_socket()?.file_name();
    if same { Numbered::of(fd) } else { None }
}

impl Handle {
    /// Whether libxenstore's numbers are still its own, as far as we know them. False for good once it was false.
    fn is_ours(&self) -> bool {
        if self.stolen.load(Ordering::Relaxed) {
            return false;
        }
        let socket = self.socket.is_none_or(|socket| {
            // A thread that has found the end of the connection has closed it, and has said so before.
            socket.is_ours() || number_of(self.raw).load(Ordering::SeqCst) != socket.fd
        });
        let pipe = self.pipe.get().is_none_or(|[reads, _]| reads.is_none_or(Numbered::is_ours));
        if !(socket && pipe) {
            self.stolen.store(true, Ordering::Relaxed);
        }
        socket && pipe
    }

    /// Notes libxenstore's pipe, which there is now.
    fn note_pipe(&self, fd: RawFd) {
        self.pipe.get_or_init(|| {
            let Some(reads) = Numbered::of(fd) else { return [None; 2] };
            // Made at once, so it is mostly the next number. Both ends have the same inode.
            let writes = [fd + 1].into_iter().chain(0..fd + 64);
            let writes = writes.filter(|other| *other != fd).find(|other| reads.identity.is_at(*other));
            [Some(reads), writes.map(|fd| Numbered { fd, identity: reads.identity })]
        });
    }

    /// Has libxenstore begin its thread, in a table of descriptors with nothing in it but the connection and the pipe. It does
    /// so with the first watch that it is asked for. Where it can't be had so, it begins it with ours, in everybody's table.
    fn begin_reader(&self) {
        if self.reads.swap(true, Ordering::Relaxed) {
            return;
        }
        let Some((kept, (watch, unwatch))) = self.kept_by_reader().zip(own_watches()) else { return };
        let raw = Shared(self.raw);
        apart(move || {
            // No daemon sets a watch on nothing.
            // SAFETY: a live handle and two C strings.
            if keep_only(&kept) && spared(|| unsafe { watch(raw.get(), c"".as_ptr(), NO_TOKEN.as_ptr()) }) {
                // SAFETY: as above.
                spared(|| unsafe { unwatch(raw.get(), c"".as_ptr(), NO_TOKEN.as_ptr()) });
            }
        });
    }

    /// The numbers that libxenstore's thread needs, ascending, if we know all of them.
    fn kept_by_reader(&self) -> Option<[RawFd; 3]> {
        let [reads, writes] = *self.pipe.get()?;
        let mut kept = [self.socket?.fd, reads?.fd, writes?.fd];
        kept.sort_unstable();
        Some(kept)
    }

    /// Waits until libxenstore's thread has closed the socket of a daemon that has gone. xs_close cancels that thread, and
    /// a thread that is cancelled as it begins to close loses the descriptor.
    fn await_reader(&self) {
        for _ in 0..READER_ENDS_MS {
            // SAFETY: a live handle, shared with nobody any more. What it gives is null, or one allocation that becomes ours.
            let firing = NonNull::new(unsafe { xs_check_watch(self.raw.as_ptr()) }).map(Firing);
            // EAGAIN while the socket is open, and nothing has fired.
            let closed = firing.is_none() && Errno::last() == Errno::EINVAL;
            std::thread::sleep(Duration::from_millis(1));
            if closed {
                return;
            }
        }
    }
}

/// A handle on its way to another thread.
#[derive(Clone, Copy)]
struct Shared(NonNull<xs_handle>);

// SAFETY: libxenstore guards a handle with locks of its own.
unsafe impl Send for Shared {}

impl Shared {
    fn get(self) -> *mut xs_handle {
        self.0.as_ptr()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let raw = Shared(self.raw);
        // SAFETY: opened by xs_open, closed once. Joins the reading thread.
        let close = move || undisturbed(|| unsafe { xs_close(raw.get()) });
        if self.is_ours() {
            if *self.broken.get_mut() {
                self.await_reader();
            }
            close();
        } else if apart(close).is_none() {
            // Rather a handle too many than a file of the application's closed.
            return;
        }
        // What libxenstore has left: its thread, when it finds the connection's end, closes that in its own table alone.
        let pipe = self.pipe.get().into_iter().flatten().flatten();
        self.socket.iter().chain(pipe).for_each(|descriptor| descriptor.close());
    }
}

/// A share in a connection. Every call waits for the daemon's answer, and so may dropping it: not under a lock.
#[derive(Debug, Clone)]
pub struct Connection(Arc<Handle>);

impl Connection {
    pub(super) fn raw(&self) -> *mut xs_handle {
        self.0.raw.as_ptr()
    }

    /// Runs a request of libxenstore's. If its numbers are no longer its own, there is none, but `refused` and EBADF.
    pub(super) fn request<R>(&self, refused: R, request: impl FnOnce() -> R) -> R {
        if self.0.is_ours() {
            spared(request)
        } else {
            Errno::EBADF.set();
            refused
        }
    }

    /// The daemon has gone. So it is closed with care.
    pub fn mark_broken(&self) {
        self.0.broken.store(true, Ordering::Relaxed);
    }

    /// Whether the daemon of this connection lets single domains be watched. It is asked each time.
    pub fn watches_single_domains(&self) -> bool {
        let Some(get_features_domain) = get_features_domain() else { return false };
        let mut features: c_uint = 0;
        // SAFETY: a live handle and a place for the answer; domain 0 has all that the daemon has.
        self.request(false, || unsafe { get_features_domain(self.raw(), 0, &mut features) })
            && features & FEATURE_WATCH_DEPTH != 0
    }

    /// Sets a watch, which fires once at once.
    pub fn watch(&self, path: &CStr, token: &CStr) -> Result<()> {
        // SAFETY: a live handle and two C strings.
        if self.request(false, || unsafe { xs_watch(self.raw(), path.as_ptr(), token.as_ptr()) }) {
            Ok(())
        } else {
            let failure = failure("setting a watch on", path);
            self.mark_broken();
            Err(failure)
        }
    }

    /// Takes a watch away. Nothing that it fires comes after this; what it has fired before may still be there.
    pub fn unwatch(&self, path: &CStr, token: &CStr) -> Result<()> {
        // SAFETY: a live handle and two C strings.
        if self.request(false, || unsafe { xs_unwatch(self.raw(), path.as_ptr(), token.as_ptr()) }) {
            Ok(())
        } else {
            let failure = failure("removing the watch on", path);
            self.mark_broken();
            Err(failure)
        }
    }

    /// A node's value, `None` if there is no such node. Whoever owns the node chooses the bytes, up to the 4096 that
    /// xenstore's protocol allows.
    pub fn read(&self, path: &CStr) -> Result<Option<Vec<u8>>> {
        let mut length: c_uint = 0;
        // SAFETY: a live handle, a C string and a place for the length; transaction 0 is none.
        let read = || unsafe { xs_read(self.raw(), 0, path.as_ptr(), &mut length) };
        let value: *mut c_void = self.request(std::ptr::null_mut(), read);
        if value.is_null() {
            // No error is put together where none is wanted: most nodes that are looked for aren't there.
            return if Errno::last() == Errno::ENOENT { Ok(None) } else { Err(failure("reading", path)) };
        }
        // SAFETY: one allocation of that many bytes, and a zero byte behind them, which becomes ours.
        let bytes = unsafe { std::slice::from_raw_parts(value.cast::<u8>(), length as usize) }.to_vec();
        // SAFETY: as above; nothing refers to it any more.
        unsafe { libc::free(value) };
        Ok(Some(bytes))
    }

    /// Sets a node's value; makes the node if there is none.
    pub fn write(&self, path: &CStr, value: &[u8]) -> Result<()> {
        let Ok(length) = c_uint::try_from(value.len()) else {
            return Err(Error::os(format!("writing {}", path.to_string_lossy()), Errno::E2BIG));
        };
        // SAFETY: a live handle, a C string and as many bytes as we say; transaction 0 is none.
        let write = || unsafe { xs_write(self.raw(), 0, path.as_ptr(), value.as_ptr().cast(), length) };
        if self.request(false, write) { Ok(()) } else { Err(failure("writing", path)) }
    }
}

/// The error of the libxenstore call that has just failed.
pub(super) fn failure(what: &str, path: &CStr) -> Error {
    let errno = Errno::last();
    Error::os(format!("{what} {}", path.to_string_lossy()), errno)
}

/// That a watch has fired.
#[derive(Debug)]
pub struct Firing(NonNull<*mut c_char>);

impl Firing {
    /// What the watch was set with.
    pub fn token(&self) -> &CStr {
        // SAFETY: libxenstore gives two C strings, the path and the token, in one allocation that lives as long as this.
        unsafe { CStr::from_ptr(*self.0.as_ptr().add(1)) }
    }

    /// Of a firing of [`RELEASE_DOMAIN`] or [`release_of`]: the domain to look at, or `None` for all of them.
    pub fn domid(&self) -> Option<u32> {
        // SAFETY: as above.
        released(unsafe { CStr::from_ptr(*self.0.as_ptr()) })
    }
}

impl Drop for Firing {
    fn drop(&mut self) {
        // SAFETY: one allocation, which is ours.
        unsafe { libc::free(self.0.as_ptr().cast()) };
    }
}

/// The domain that a path speaks of, if it does of one.
fn released(path: &CStr) -> Option<u32> {
    path.to_str().ok()?.strip_prefix("@releaseDomain/")?.parse().ok()
}

/// A connection with its watches' descriptor, and the idle one that tells of the daemon's end.
#[derive(Debug)]
pub struct Store {
    connection: Connection,
    idle: Option<Idle>,
}

impl Store {
    /// Connects. Waits for the daemon to accept, so call it without a lock.
    pub fn open() -> Result<Self> {
        Self::open_with(0, None)
    }

    /// Connects to a daemon that has answered on this connection. Where its socket isn't there for the moment, libxenstore would
    /// go through the kernel, which lets nobody go until there is an answer; so it may not.
    pub fn open_beside(idle: Idle) -> Result<Self> {
        Self::open_with(XS_OPEN_SOCKETONLY.into(), Some(idle))
    }

    fn open_with(flags: c_ulong, idle: Option<Idle>) -> Result<Self> {
        undisturbed(|| {
            // SAFETY: no preconditions.
            let handle = unsafe { xs_open(flags) };
            let handle = NonNull::new(handle).ok_or_else(|| Error::os("connecting to xenstored", Errno::last()))?;
            static NEXT_SERIAL: AtomicU64 = AtomicU64::new(1);
            let handle = Handle {
                raw: handle,
                serial: NEXT_SERIAL.fetch_add(1, Ordering::Relaxed),
                broken: AtomicBool::new(false),
                socket: socket_of(handle),
                pipe: OnceLock::new(),
                reads: AtomicBool::new(false),
                stolen: AtomicBool::new(false),
            };
            Ok(Store { connection: Connection(Arc::new(handle)), idle })
        })
    }

    /// Tells this connection from all others of the process, before and after it.
    pub fn serial(&self) -> u64 {
        self.connection.0.serial
    }

    /// Whether its descriptors are still its own. False for good once it was false.
    pub fn is_ours(&self) -> bool {
        self.connection.0.is_ours() && self.idle.as_ref().is_none_or(Idle::is_ours)
    }

    /// It was found that the application has closed libxenstore's descriptors.
    pub fn connection_is_stolen(&self) -> bool {
        self.connection.0.stolen.load(Ordering::Relaxed)
    }

    /// A share in the connection.
    pub fn connection(&self) -> Connection {
        self.connection.clone()
    }

    /// Makes the watches' descriptor and the connection on which nothing waits. Waits for the daemon to accept, so call it without a lock.
    pub fn listen(&mut self) -> Result<()> {
        let fd = self.fd();
        if fd < 0 {
            return Err(Error::os("making a descriptor for xenstored's watches", Errno::last()));
        }
        self.connection.0.note_pipe(fd);
        self.connection.0.begin_reader();
        if self.idle.is_none() {
            self.idle = Idle::open()?;
        }
        Ok(())
    }

    /// Closes that again: without a watch, nobody asks whether the daemon is there.
    pub fn stop_idling(&mut self) {
        self.idle = None;
    }

    /// Readable when [`Store::take_firing`] has something.
    pub fn fd(&self) -> RawFd {
        // SAFETY: a live handle.
        unsafe { xs_fileno(self.connection.raw()) }
    }

    /// The same for who waits by itself; `None` before [`Store::listen`].
    pub fn watches_fd(&self) -> Option<BorrowedFd<'_>> {
        let fd = self.fd();
        // SAFETY: libxenstore keeps it open until the handle is closed, which isn't while `self` is borrowed.
        (fd >= 0).then(|| unsafe { BorrowedFd::borrow_raw(fd) })
    }

    /// The connection on which nothing waits, if there is one.
    pub fn idle(&self) -> Option<&Idle> {
        self.idle.as_ref()
    }

    /// The same, to be used.
    pub fn idle_mut(&mut self) -> Option<&mut Idle> {
        self.idle.as_mut()
    }

    /// Takes one firing off the queue without waiting, if there is one. Of one that can't be had, for want of memory, nothing
    /// is left. EINVAL if none will come any more: the connection has come to its end, or libxenstore to its wits'.
    pub fn take_firing(&self) -> std::result::Result<Option<Firing>, Errno> {
        // SAFETY: a live handle. What it gives is null, or one allocation that becomes ours.
        match NonNull::new(unsafe { xs_check_watch(self.connection.raw()) }) {
            Some(firing) => Ok(Some(Firing(firing))),
            None => match Errno::last() {
                Errno::EAGAIN => Ok(None),
                errno => Err(errno),
            },
        }
    }

    /// The raw handle, for [`abandon`].
    pub fn raw(&self) -> *mut u8 {
        self.connection.raw().cast()
    }
}

/// Where the daemon's socket is looked for: `$XENSTORED_PATH`, or `socket` in `$XENSTORED_RUNDIR` or in Xen's own folder.
pub fn daemon_socket() -> Option<PathBuf> {
    // SAFETY: returns a static string, or null.
    let path: *const c_char = unsafe { xs_daemon_socket() };
    // SAFETY: a C string, if not null.
    (!path.is_null()).then(|| PathBuf::from(OsStr::from_bytes(unsafe { CStr::from_ptr(path) }.to_bytes())))
}

/// Throws a parent's connection away in a forked child, without a word to the daemon.
///
/// # Safety
/// `raw` is [`Store::raw`] of a connection of the parent's that this process never uses again.
pub unsafe fn abandon(raw: *mut u8) {
    if !raw.is_null() {
        // SAFETY: the function for just this; the caller vouches for `raw`.
        unsafe { xs_daemon_destroy_postfork(raw.cast()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_names_no_domain_is_about_all() {
        assert_eq!(released(&release_of(7)), Some(7));
        for path in
            [RELEASE_DOMAIN, c"@releaseDomain/", c"@releaseDomain/x", c"@introduceDomain/7", c"@releaseDomain/7/8", c""]
        {
            assert_eq!(released(path), None);
        }
    }
}
