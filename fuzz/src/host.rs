// SPDX-License-Identifier: LGPL-2.1-or-later
//! A host to be told anything by: stand-ins for libxenstore and libxenctrl, in one process and without a daemon.
//!
//! A program's own functions come before those of shared libraries, so the library calls these. They behave as the real ones
//! do, unless they have been told to fail, or to hand out something else. What a caller gets or gives is a real allocation,
//! and a handle is one too: what is used after its end, or not given back, the address sanitizer finds.
//!
//! One thread: nothing here waits, and no lock is held while the library is called.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::os::fd::RawFd;
use std::ptr;
use std::sync::{Mutex, MutexGuard};

use xenctrl_sys::xc_domaininfo_t;

/// Two strings and the watch's own bytes: nothing longer passes xenstore's protocol.
const PAYLOAD_MAX: usize = 4096;

/// What a real daemon holds against a client that never comes to its end.
const FIRINGS_MAX: usize = 10_000;

/// `XENSTORE_SERVER_FEATURE_WATCHDEPTH`.
const FEATURE_WATCH_DEPTH: c_uint = 1 << 4;

/// Only what needs room fails for want of it.
const NO_SPACE: c_int = libc::ENOSPC;

const DYING: u32 = 1 << 0;
const SHUTDOWN: u32 = 1 << 2;
const REASON_SHIFT: u32 = 16;

/// A domain as the hypervisor knows it.
#[derive(Clone, Copy)]
pub struct Domain {
    flags: u32,
    cpu_time: u64,
    uuid: u8,
}

/// What the next calls come to instead of what they should.
#[derive(Default)]
struct Faults {
    /// Of the next calls of libxenstore, this many fail so.
    store: (u32, c_int),
    /// Of the next lists of domains, this many fail so.
    lists: (u32, c_int),
    /// The next lists are these, as they are.
    answers: VecDeque<Answer>,
}

/// An answer of the hypervisor's that nobody has checked.
#[derive(Clone)]
pub struct Answer {
    /// The records, of which a caller gets what it has room for.
    pub records: Vec<xc_domaininfo_t>,
    /// How many it is told that it got.
    pub count: c_int,
}

#[derive(Default)]
struct Host {
    nodes: BTreeMap<Vec<u8>, Vec<u8>>,
    watches: Vec<Watch>,
    handles: BTreeSet<usize>,
    domains: BTreeMap<u16, Domain>,
    next_uuid: u8,
    features: bool,
    away: bool,
    faults: Faults,
    /// How often a node has been given the value `eject`.
    ejections: BTreeMap<Vec<u8>, usize>,
    /// Programs that were to be started.
    forks: usize,
}

struct Watch {
    handle: usize,
    path: Vec<u8>,
    token: Vec<u8>,
}

/// What `xs_handle` points to.
struct Handle {
    /// An eventfd that is readable while there are firings; made when it is first asked for.
    fd: RawFd,
    firings: VecDeque<(Vec<u8>, Vec<u8>)>,
}

static HOST: Mutex<Option<Host>> = Mutex::new(None);

fn lock() -> MutexGuard<'static, Option<Host>> {
    HOST.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn with<R>(work: impl FnOnce(&mut Host) -> R) -> R {
    work(lock().get_or_insert_default())
}

fn fail(errno: c_int) {
    // SAFETY: this thread's own.
    unsafe { *libc::__errno_location() = errno };
}

// ---- what happens to it ----

/// A new host, with a control domain and nothing else. There may be no handles.
pub fn begin(features: bool) {
    let mut host = Host { features, ..Host::default() };
    host.domains.insert(0, Domain { flags: 0, cpu_time: 0, uuid: 0 });
    *lock() = Some(host);
}

/// Whether every handle has been closed.
pub fn is_idle() -> bool {
    with(|host| host.handles.is_empty() && host.watches.is_empty())
}

/// How often a node was given the value `eject`.
pub fn ejections(path: &[u8]) -> usize {
    with(|host| host.ejections.get(path).copied().unwrap_or(0))
}

/// Whether somebody wanted to start a program.
pub fn forks() -> usize {
    with(|host| host.forks)
}

/// A node's value.
pub fn node(path: &[u8]) -> Option<Vec<u8>> {
    with(|host| host.nodes.get(path).cloned())
}

/// Somebody sets a node's value.
pub fn write(path: &[u8], value: &[u8]) {
    with(|host| host.write(path, value));
}

/// Somebody removes a node and all below it.
pub fn remove(path: &[u8]) {
    with(|host| host.remove(path));
}

/// A watch fires that has this token and path, whether it was ever set or not.
pub fn fire(path: &[u8], token: &[u8]) {
    // Both reach a client as C strings.
    let text =
        |bytes: &[u8]| bytes.iter().copied().take(PAYLOAD_MAX / 2).take_while(|byte| *byte != 0).collect::<Vec<u8>>();
    with(|host| {
        for handle in host.handles.clone() {
            host.queue(handle, text(path), text(token));
        }
    });
}

/// The tokens that there are.
pub fn tokens() -> Vec<Vec<u8>> {
    with(|host| host.watches.iter().map(|watch| watch.token.clone()).collect())
}

/// A domain runs, be it new or one that was shut down.
pub fn start_domain(domid: u16) {
    with(|host| {
        host.next_uuid = host.next_uuid.wrapping_add(1);
        let uuid = host.next_uuid;
        let domain = host.domains.entry(domid).or_insert(Domain { flags: 0, cpu_time: 0, uuid });
        if domain.flags & DYING == 0 {
            domain.flags = 0;
            domain.cpu_time += 1000;
        }
        host.tell(b"@introduceDomain", domid);
    });
}

/// A domain shuts down, if it runs.
pub fn shut_down(domid: u16, reason: u8) {
    with(|host| {
        if let Some(domain) = host.domains.get_mut(&domid).filter(|domain| domain.flags & (DYING | SHUTDOWN) == 0) {
            domain.flags = SHUTDOWN | u32::from(reason) << REASON_SHIFT;
            host.tell(b"@releaseDomain", domid);
        }
    });
}

/// A domain is being destroyed, or is gone.
pub fn end_domain(domid: u16, gone: bool) {
    with(|host| {
        match host.domains.get_mut(&domid).filter(|_| domid != 0) {
            None => return,
            Some(_) if gone => drop(host.domains.remove(&domid)),
            Some(domain) => domain.flags |= DYING,
        }
        host.tell(b"@releaseDomain", domid);
    });
}

/// Whether a domain lives, be it shut down or not.
pub fn lives(domid: u32) -> bool {
    u16::try_from(domid)
        .is_ok_and(|domid| with(|host| host.domains.get(&domid).is_some_and(|it| it.flags & DYING == 0)))
}

/// The next calls of libxenstore, or lists of domains, fail so.
pub fn fail_next(store: bool, times: u32, errno: c_int) {
    with(|host| {
        let fault = if store { &mut host.faults.store } else { &mut host.faults.lists };
        *fault = (times, errno);
    });
}

/// The list of domains that is asked for next is this.
pub fn answer_next(answer: Answer) {
    with(|host| host.faults.answers.push_back(answer));
}

/// From now on all is as it should be; every watch has fired.
pub fn calm() {
    with(|host| {
        host.faults = Faults::default();
        host.away = false;
        for watch in std::mem::take(&mut host.watches) {
            host.queue(watch.handle, watch.path.clone(), watch.token.clone());
            host.watches.push(watch);
        }
    });
}

/// Nobody can connect, or everybody can again.
pub fn set_away(away: bool) {
    with(|host| host.away = away);
}

impl Host {
    fn write(&mut self, path: &[u8], value: &[u8]) {
        let value = &value[..value.len().min(PAYLOAD_MAX)];
        if value.split(|byte| *byte == 0).next() == Some(b"eject") {
            *self.ejections.entry(path.to_vec()).or_default() += 1;
        }
        self.nodes.insert(path.to_vec(), value.to_vec());
        self.changed(path);
    }

    fn remove(&mut self, path: &[u8]) {
        let below = [path, b"/"].concat();
        self.nodes.retain(|node, _| node != path && !node.starts_with(&below));
        self.changed(path);
    }

    fn changed(&mut self, path: &[u8]) {
        let is_about = |watch: &&Watch| {
            path.strip_prefix(&watch.path[..]).is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
                || watch.path.strip_prefix(path).is_some_and(|rest| rest.first() == Some(&b'/'))
        };
        let about: Vec<_> =
            self.watches.iter().filter(is_about).map(|watch| (watch.handle, watch.token.clone())).collect();
        about.into_iter().for_each(|(handle, token)| self.queue(handle, path.to_vec(), token));
    }

    /// What the daemon says of a domain.
    fn tell(&mut self, special: &[u8], domid: u16) {
        let single = format!("{}/{domid}", String::from_utf8_lossy(special)).into_bytes();
        let about = |watch: &&Watch| watch.path == special || self.features && watch.path == single;
        let told: Vec<_> = self
            .watches
            .iter()
            .filter(about)
            .map(|watch| (watch.handle, watch.path.clone(), watch.token.clone()))
            .collect();
        told.into_iter().for_each(|(handle, path, token)| self.queue(handle, path, token));
    }

    fn queue(&mut self, handle: usize, path: Vec<u8>, token: Vec<u8>) {
        // SAFETY: a handle that is open, and nobody else is in here.
        let handle = unsafe { &mut *(handle as *mut Handle) };
        if handle.firings.len() < FIRINGS_MAX {
            handle.firings.push_back((path, token));
            handle.raise();
        }
    }

    /// Whether a call of libxenstore is to fail; errno is set.
    fn store_fails(&mut self) -> bool {
        self.faults.store.1 != NO_SPACE && self.write_fails()
    }

    /// The same of one that needs room.
    fn write_fails(&mut self) -> bool {
        let (times, errno) = &mut self.faults.store;
        if *times == 0 {
            return false;
        }
        *times -= 1;
        fail(*errno);
        true
    }
}

impl Handle {
    fn raise(&self) {
        if self.fd >= 0 {
            // SAFETY: a descriptor of ours and eight bytes.
            unsafe { libc::write(self.fd, (&raw const ONE).cast(), 8) };
        }
    }
}

static ONE: u64 = 1;

/// A caller's handle. One that is closed is found by the sanitizer.
unsafe fn handle<'a>(raw: *mut c_void) -> &'a mut Handle {
    // SAFETY: the caller says that it is open.
    unsafe { &mut *raw.cast::<Handle>() }
}

/// Bytes as malloc's, with a zero byte behind them that isn't counted.
fn allocated(bytes: &[u8]) -> *mut c_void {
    // SAFETY: room for them and a zero byte.
    unsafe {
        let copy = libc::malloc(bytes.len() + 1).cast::<u8>();
        assert!(!copy.is_null(), "out of memory");
        ptr::copy_nonoverlapping(bytes.as_ptr(), copy, bytes.len());
        *copy.add(bytes.len()) = 0;
        copy.cast()
    }
}

/// # Safety
/// A C string.
unsafe fn bytes(text: *const c_char) -> Vec<u8> {
    // SAFETY: the caller's promise.
    unsafe { CStr::from_ptr(text) }.to_bytes().to_vec()
}

// ---- libxenstore ----
//
// # Safety, of all of them: as in the real library's header.

#[unsafe(no_mangle)]
extern "C" fn xs_open(_flags: std::ffi::c_ulong) -> *mut c_void {
    with(|host| {
        if host.away {
            fail(libc::ECONNREFUSED);
            return ptr::null_mut();
        }
        if host.store_fails() {
            return ptr::null_mut();
        }
        let raw = Box::into_raw(Box::new(Handle { fd: -1, firings: VecDeque::new() }));
        host.handles.insert(raw as usize);
        raw.cast()
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn xs_close(raw: *mut c_void) {
    if raw.is_null() {
        return;
    }
    with(|host| {
        assert!(host.handles.remove(&(raw as usize)), "a handle is closed that is not open");
        host.watches.retain(|watch| watch.handle != raw as usize);
    });
    // SAFETY: it was open.
    let handle = unsafe { Box::from_raw(raw.cast::<Handle>()) };
    if handle.fd >= 0 {
        // SAFETY: its own descriptor.
        unsafe { libc::close(handle.fd) };
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn xs_daemon_destroy_postfork(raw: *mut c_void) {
    // SAFETY: the same here.
    unsafe { xs_close(raw) }
}

#[unsafe(no_mangle)]
extern "C" fn xs_daemon_socket() -> *const c_char {
    ptr::null()
}

#[unsafe(no_mangle)]
unsafe extern "C" fn xs_fileno(raw: *mut c_void) -> c_int {
    // SAFETY: an open handle.
    let handle = unsafe { handle(raw) };
    if handle.fd < 0 {
        // SAFETY: no memory is involved.
        handle.fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if !handle.firings.is_empty() {
            handle.raise();
        }
    }
    handle.fd
}

#[unsafe(no_mangle)]
unsafe extern "C" fn xs_check_watch(raw: *mut c_void) -> *mut *mut c_char {
    // SAFETY: an open handle.
    let handle = unsafe { handle(raw) };
    let Some((path, token)) = handle.firings.pop_front() else {
        fail(libc::EAGAIN);
        return ptr::null_mut();
    };
    if handle.firings.is_empty() && handle.fd >= 0 {
        let mut count = 0u64;
        // SAFETY: its own descriptor and eight bytes.
        unsafe { libc::read(handle.fd, (&raw mut count).cast(), 8) };
    }
    let head = 2 * size_of::<*mut c_char>();
    // SAFETY: one allocation: two pointers and what they point to.
    unsafe {
        let vector = libc::malloc(head + path.len() + token.len() + 2).cast::<*mut c_char>();
        assert!(!vector.is_null(), "out of memory");
        let text = vector.cast::<c_char>().add(head);
        let behind = text.add(path.len() + 1);
        for (place, bytes) in [(text, &path), (behind, &token)] {
            ptr::copy_nonoverlapping(bytes.as_ptr().cast(), place, bytes.len());
            *place.add(bytes.len()) = 0;
        }
        *vector = text;
        *vector.add(1) = behind;
        vector
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn xs_watch(raw: *mut c_void, path: *const c_char, token: *const c_char) -> bool {
    // SAFETY: two C strings.
    let (path, token) = unsafe { (bytes(path), bytes(token)) };
    with(|host| {
        if host.store_fails() {
            return false;
        }
        let handle = raw as usize;
        assert!(host.handles.contains(&handle), "a watch is set on a handle that is not open");
        if host.watches.iter().any(|watch| watch.handle == handle && watch.path == path && watch.token == token) {
            fail(libc::EEXIST);
            return false;
        }
        host.queue(handle, path.clone(), token.clone());
        host.watches.push(Watch { handle, path, token });
        true
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn xs_unwatch(raw: *mut c_void, path: *const c_char, token: *const c_char) -> bool {
    // SAFETY: two C strings.
    let (path, token) = unsafe { (bytes(path), bytes(token)) };
    with(|host| {
        if host.store_fails() {
            return false;
        }
        let before = host.watches.len();
        // What has fired already is left in the queue: the library is to cope with that.
        host.watches.retain(|watch| watch.handle != raw as usize || watch.path != path || watch.token != token);
        if host.watches.len() == before {
            fail(libc::ENOENT);
        }
        host.watches.len() < before
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn xs_read(
    _raw: *mut c_void,
    _transaction: u32,
    path: *const c_char,
    length: *mut c_uint,
) -> *mut c_void {
    // SAFETY: a C string.
    let path = unsafe { bytes(path) };
    with(|host| {
        if host.store_fails() {
            return ptr::null_mut();
        }
        match host.nodes.get(&path) {
            Some(value) => {
                if !length.is_null() {
                    // SAFETY: a place for it.
                    unsafe { *length = value.len() as c_uint };
                }
                allocated(value)
            }
            None => {
                fail(libc::ENOENT);
                ptr::null_mut()
            }
        }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn xs_write(
    _raw: *mut c_void,
    _transaction: u32,
    path: *const c_char,
    data: *const c_void,
    length: c_uint,
) -> bool {
    // SAFETY: a C string, and as many bytes.
    let (path, value) = unsafe { (bytes(path), std::slice::from_raw_parts(data.cast::<u8>(), length as usize)) };
    with(|host| {
        let fails = host.write_fails();
        if !fails {
            host.write(&path, value);
        }
        !fails
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn xs_rm(_raw: *mut c_void, _transaction: u32, path: *const c_char) -> bool {
    // SAFETY: a C string.
    let path = unsafe { bytes(path) };
    with(|host| {
        if host.store_fails() {
            return false;
        }
        if !host.nodes.contains_key(&path) {
            fail(libc::ENOENT);
            return false;
        }
        host.remove(&path);
        true
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn xs_directory(
    _raw: *mut c_void,
    _transaction: u32,
    path: *const c_char,
    count: *mut c_uint,
) -> *mut *mut c_char {
    // SAFETY: a C string.
    let below = [&unsafe { bytes(path) }[..], b"/"].concat();
    with(|host| {
        if host.store_fails() {
            return ptr::null_mut();
        }
        let children = host.nodes.keys().filter(|node| node.starts_with(&below)).count();
        // SAFETY: a place for it.
        unsafe { *count = children as c_uint };
        // Nobody looks at the names.
        allocated(&vec![0; children * size_of::<*mut c_char>()]).cast()
    })
}

#[unsafe(no_mangle)]
extern "C" fn xs_set_permissions(
    _raw: *mut c_void,
    _transaction: u32,
    _path: *const c_char,
    _permissions: *mut c_void,
    _count: c_uint,
) -> bool {
    with(|host| !host.store_fails())
}

#[unsafe(no_mangle)]
extern "C" fn xs_transaction_start(_raw: *mut c_void) -> u32 {
    with(|host| if host.store_fails() { 0 } else { 1 })
}

#[unsafe(no_mangle)]
extern "C" fn xs_transaction_end(_raw: *mut c_void, _transaction: u32, _abort: bool) -> bool {
    with(|host| !host.store_fails())
}

#[unsafe(no_mangle)]
unsafe extern "C" fn xs_get_features_domain(_raw: *mut c_void, _domid: c_uint, features: *mut c_uint) -> bool {
    with(|host| {
        // SAFETY: a place for them.
        unsafe { *features = FEATURE_WATCH_DEPTH };
        host.features
    })
}

// ---- libxenctrl ----

#[unsafe(no_mangle)]
extern "C" fn xc_interface_open(_logger: *mut c_void, _dombuild_logger: *mut c_void, _flags: c_uint) -> *mut c_void {
    Box::into_raw(Box::new(0u64)).cast()
}

#[unsafe(no_mangle)]
unsafe extern "C" fn xc_interface_close(raw: *mut c_void) -> c_int {
    if !raw.is_null() {
        // SAFETY: opened above, closed once.
        drop(unsafe { Box::from_raw(raw.cast::<u64>()) });
    }
    0
}

#[unsafe(no_mangle)]
unsafe extern "C" fn xc_domain_getinfolist(
    _raw: *mut c_void,
    first: u32,
    max: c_uint,
    found: *mut xc_domaininfo_t,
) -> c_int {
    with(|host| {
        let (times, errno) = &mut host.faults.lists;
        if *times > 0 {
            *times -= 1;
            fail(*errno);
            return -1;
        }
        let answer = host.faults.answers.pop_front().unwrap_or_else(|| host.list(first, max as usize));
        for (index, record) in answer.records.iter().take(max as usize).enumerate() {
            // SAFETY: room for `max`.
            unsafe { *found.add(index) = *record };
        }
        answer.count
    })
}

impl Host {
    fn list(&mut self, first: u32, max: usize) -> Answer {
        let listed = self.domains.iter_mut().filter(|(domid, _)| u32::from(**domid) >= first).take(max);
        let records: Vec<xc_domaininfo_t> = listed
            .map(|(domid, domain)| {
                if domain.flags == 0 {
                    domain.cpu_time += 1;
                }
                let mut record = xc_domaininfo_t {
                    domain: *domid,
                    flags: domain.flags,
                    cpu_time: domain.cpu_time,
                    ..Default::default()
                };
                record.handle[0] = domain.uuid;
                record
            })
            .collect();
        let count = records.len() as c_int;
        Answer { records, count }
    }
}

// ---- libc ----

/// Nothing is started here, whoever asks.
#[unsafe(no_mangle)]
extern "C" fn fork() -> libc::pid_t {
    with(|host| host.forks += 1);
    fail(libc::EAGAIN);
    -1
}

/// A function that only the dynamic linker asks for: the linker must not leave it out.
macro_rules! keep {
    ($($kept:ident: $function:expr => $type:ty;)*) => {
        $(
            #[used]
            static $kept: $type = $function;
        )*
    };
}

keep! {
    OPEN: xc_interface_open => extern "C" fn(*mut c_void, *mut c_void, c_uint) -> *mut c_void;
    CLOSE: xc_interface_close => unsafe extern "C" fn(*mut c_void) -> c_int;
    LIST: xc_domain_getinfolist => unsafe extern "C" fn(*mut c_void, u32, c_uint, *mut xc_domaininfo_t) -> c_int;
    FEATURES: xs_get_features_domain => unsafe extern "C" fn(*mut c_void, c_uint, *mut c_uint) -> bool;
}
