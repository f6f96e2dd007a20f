// SPDX-License-Identifier: LGPL-2.1-or-later
//! The functions of `include/xensim.h`: each converts its arguments, calls the driver, and converts the result.
//!
//! Invariants:
//! - No panic leaves a function: it becomes a failure with EIO.
//! - A handle is a `Handle` in a box, which the C program owns from up or attach to down or detach.
//! - A host that this process has brought up and not taken down is taken down when it exits; not by a child that it forked.

use std::cell::RefCell;
use std::ffi::{CStr, CString, OsStr, c_char, c_int, c_long, c_uint, c_void};
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Mutex, Once, PoisonError};
use std::time::Duration;

use driver::store::Request;
use driver::toolstack::Change;
use driver::{Access, Call, Config, Domid, Error, Fault, Host, Nodes, Reason, Role};

use crate::set_errno;

/// What `xensim_host` is.
pub struct Handle {
    host: Host,
    dir: CString,
    /// The process that has brought it up; `None` for one that was attached to.
    owner: Option<u32>,
}

/// A failure: an errno and words.
struct Failure {
    errno: c_int,
    words: String,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure { errno: error.raw_os_error(), words: error.to_string() }
    }
}

impl Failure {
    fn invalid(words: &str) -> Failure {
        Failure { errno: libc::EINVAL, words: words.into() }
    }
}

type Result<T> = std::result::Result<T, Failure>;

thread_local! {
    static LAST_ERROR: RefCell<CString> = RefCell::default();
}

/// Runs `act`; a failure or a panic is noted, and gives `failed`.
fn guard<T>(failed: T, act: impl FnOnce() -> Result<T>) -> T {
    let before = crate::errno();
    let panicked = |_| Err(Failure { errno: libc::EIO, words: "a defect in xensim".into() });
    match catch_unwind(AssertUnwindSafe(act)).unwrap_or_else(panicked) {
        Ok(value) => {
            set_errno(before);
            value
        }
        Err(Failure { errno, words }) => {
            let words = CString::new(words).unwrap_or_default();
            LAST_ERROR.with(|last| *last.borrow_mut() = words);
            set_errno(errno);
            failed
        }
    }
}

fn status(act: impl FnOnce() -> Result<()>) -> c_int {
    guard(-1, || act().map(|()| 0))
}

/// # Safety
/// `host` is null or a handle that is in use.
unsafe fn handle<'a>(host: *mut Handle) -> Result<&'a Handle> {
    // SAFETY: the caller vouches for it.
    unsafe { host.as_ref() }.ok_or_else(|| Failure::invalid("the host is NULL"))
}

/// # Safety
/// `text` is null or a C string that outlives the result.
unsafe fn text<'a>(text: *const c_char, what: &str) -> Result<&'a str> {
    if text.is_null() {
        return Err(Failure::invalid(&format!("{what} is NULL")));
    }
    // SAFETY: the caller vouches for it.
    unsafe { CStr::from_ptr(text) }.to_str().map_err(|_| Failure::invalid(&format!("{what} is not UTF-8")))
}

fn domid(domid: u32) -> Result<Domid> {
    Domid::try_from(domid).map_err(|_| Failure { errno: libc::ESRCH, words: format!("no domain {domid}") })
}

fn reason(reason: c_uint) -> Result<Reason> {
    u8::try_from(reason).map(Reason).map_err(|_| Failure::invalid("a reason has 8 bits"))
}

/// # Safety
/// `domids` is null or points to `count` numbers.
unsafe fn domids(domids: *const u32, count: usize) -> Result<Vec<Domid>> {
    if domids.is_null() && count > 0 {
        return Err(Failure::invalid("the domains are NULL"));
    }
    if count == 0 {
        return Ok(Vec::new());
    }
    // SAFETY: the caller vouches for it.
    let domids = unsafe { std::slice::from_raw_parts(domids, count) };
    // Numbers that no domain can have are left out like all that are not there.
    Ok(domids.iter().filter_map(|domid| Domid::try_from(*domid).ok()).collect())
}

// ---- Hosts ----

/// Handles of hosts that this process has brought up and not taken down, as numbers.
static OWNED: Mutex<Vec<usize>> = Mutex::new(Vec::new());
static AT_EXIT: Once = Once::new();

extern "C" fn take_all_down() {
    let owned = std::mem::take(&mut *OWNED.lock().unwrap_or_else(PoisonError::into_inner));
    for handle in owned {
        // SAFETY: only handles in use are on the list, and this one's use ends here with the process.
        let handle = unsafe { Box::from_raw(handle as *mut Handle) };
        let _ = catch_unwind(AssertUnwindSafe(|| take_down(*handle)));
    }
}

/// A child that was forked has a copy of the handle, and is not the one to end the host.
fn take_down(handle: Handle) -> Result<()> {
    if handle.owner.is_some_and(|owner| owner != std::process::id()) {
        std::mem::forget(handle);
        return Ok(());
    }
    handle.host.down().map_err(Failure::from)
}

/// This library's file.
fn own_path() -> Result<std::path::PathBuf> {
    let unknown = || Failure { errno: libc::ENOENT, words: "libxensim.so does not know its own path".into() };
    // SAFETY: plain data, for which zeroes are a value.
    let mut info: libc::Dl_info = unsafe { std::mem::zeroed() };
    let own: *const c_void = (&raw const OWNED).cast();
    // SAFETY: an address, and a place for the answer.
    if unsafe { libc::dladdr(own, &raw mut info) } == 0 || info.dli_fname.is_null() {
        return Err(unknown());
    }
    // SAFETY: the loader's own string.
    let path = unsafe { CStr::from_ptr(info.dli_fname) };
    Ok(Path::new(OsStr::from_bytes(path.to_bytes())).to_owned())
}

fn box_up(host: Host, owner: Option<u32>) -> Result<Box<Handle>> {
    let dir = CString::new(host.dir().as_os_str().as_bytes())
        .map_err(|_| Failure::invalid("a directory's name has a zero byte"))?;
    Ok(Box::new(Handle { host, dir, owner }))
}

fn become_client(host: &Host) {
    for (name, value) in host.env() {
        // SAFETY: the header asks that no other thread reads the environment meanwhile.
        unsafe { std::env::set_var(name, value) };
    }
}

/// See `xensim.h`.
#[unsafe(no_mangle)]
pub extern "C" fn xensim_up(flags: c_uint) -> *mut Handle {
    const WITHOUT_XENSTORED: c_uint = 1;
    guard(std::ptr::null_mut(), || {
        if flags & !WITHOUT_XENSTORED != 0 {
            return Err(Failure::invalid("an unknown flag"));
        }
        let mut builder = Host::builder().library(own_path()?);
        if flags & WITHOUT_XENSTORED != 0 {
            builder = builder.without_xenstored();
        }
        let host = builder.up()?;
        become_client(&host);
        let handle = Box::into_raw(box_up(host, Some(std::process::id()))?);
        OWNED.lock().unwrap_or_else(PoisonError::into_inner).push(handle as usize);
        AT_EXIT.call_once(|| {
            // SAFETY: a function that takes and returns nothing. Should there be no room for it, the host is swept later.
            unsafe { libc::atexit(take_all_down) };
        });
        Ok(handle)
    })
}

/// See `xensim.h`.
///
/// # Safety
/// `dir` is null or a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xensim_attach(dir: *const c_char) -> *mut Handle {
    guard(std::ptr::null_mut(), || {
        let host = if dir.is_null() {
            Host::from_env()?
        } else {
            // SAFETY: the caller's word.
            Host::attach(Path::new(unsafe { text(dir, "the directory") }?))?
        };
        Ok(Box::into_raw(box_up(host, None)?))
    })
}

/// See `xensim.h`.
///
/// # Safety
/// `host` is null or a handle that is in use.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xensim_use(host: *mut Handle) -> c_int {
    status(|| {
        // SAFETY: the caller's word.
        become_client(&unsafe { handle(host) }?.host);
        Ok(())
    })
}

/// Takes a handle off the list, so that only its caller has it.
fn disown(host: *mut Handle) {
    OWNED.lock().unwrap_or_else(PoisonError::into_inner).retain(|owned| *owned != host as usize);
}

/// See `xensim.h`.
///
/// # Safety
/// `host` is null or a handle that is in use; not any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xensim_down(host: *mut Handle) -> c_int {
    status(|| {
        // SAFETY: the caller's word.
        unsafe { handle(host) }?;
        disown(host);
        // SAFETY: a handle, and nobody else has it any more.
        take_down(*unsafe { Box::from_raw(host) })
    })
}

/// See `xensim.h`.
///
/// # Safety
/// `host` is null or a handle that is in use; not any more, if this succeeds.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xensim_detach(host: *mut Handle) -> c_int {
    status(|| {
        // SAFETY: the caller's word.
        if unsafe { handle(host) }?.owner.is_some() {
            return Err(Failure::invalid("this process has brought the host up: take it down"));
        }
        // SAFETY: a handle, and nobody else has it any more.
        drop(unsafe { Box::from_raw(host) });
        Ok(())
    })
}

/// See `xensim.h`.
///
/// # Safety
/// `host` is null or a handle that is in use.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xensim_dir(host: *mut Handle) -> *const c_char {
    // SAFETY: the caller's word.
    guard(std::ptr::null(), || Ok(unsafe { handle(host) }?.dir.as_ptr()))
}

/// See `xensim.h`.
#[unsafe(no_mangle)]
pub extern "C" fn xensim_error() -> *const c_char {
    LAST_ERROR.with(|last| last.borrow().as_ptr())
}

// ---- Domains ----

/// `struct xensim_config`.
#[repr(C)]
pub struct CConfig {
    name: *const c_char,
    domid: u32,
    vcpus: u32,
    memory_mib: u64,
    uuid: *const u8,
    flags: u32,
    nodes: c_uint,
}

const DOMID_ANY: u32 = u32::MAX;

impl CConfig {
    /// # Safety
    /// `name` is null or a C string, `uuid` null or 16 bytes.
    unsafe fn read(&self) -> Result<Config> {
        const HVM: u32 = 1;
        const PAUSED: u32 = 2;
        const NOT_INTRODUCED: u32 = 4;
        // SAFETY: the caller's word.
        let mut config = Config::named(unsafe { text(self.name, "the name") }?);
        if self.domid != DOMID_ANY {
            config.domid = Some(domid(self.domid).map_err(|_| Failure::invalid("no domain may have that number"))?);
        }
        if self.vcpus != 0 {
            config.vcpus = self.vcpus;
        }
        if self.memory_mib != 0 {
            config.memory_mib = self.memory_mib;
        }
        if !self.uuid.is_null() {
            // SAFETY: the caller's word.
            config.handle = Some(unsafe { self.uuid.cast::<[u8; 16]>().read_unaligned() });
        }
        if self.flags & !(HVM | PAUSED | NOT_INTRODUCED) != 0 {
            return Err(Failure::invalid("an unknown flag"));
        }
        config.hvm = self.flags & HVM != 0;
        config.paused = self.flags & PAUSED != 0;
        config.introduce = self.flags & NOT_INTRODUCED == 0;
        config.nodes = match self.nodes {
            0 => Nodes::All,
            1 => Nodes::Name,
            2 => Nodes::None,
            _ => return Err(Failure::invalid("an unknown kind of nodes")),
        };
        Ok(config)
    }
}

/// See `xensim.h`.
///
/// # Safety
/// `host` is null or a handle that is in use, `name` null or a C string, `domid` null or a place for a number.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xensim_create(host: *mut Handle, name: *const c_char, domid: *mut u32) -> c_int {
    status(|| {
        // SAFETY: the caller's word.
        let (handle, name) = unsafe { (handle(host)?, text(name, "the name")?) };
        let created = handle.host.create(&Config::named(name))?;
        if !domid.is_null() {
            // SAFETY: the caller's word.
            unsafe { domid.write(created.into()) };
        }
        Ok(())
    })
}

/// See `xensim.h`.
///
/// # Safety
/// `host` is null or a handle that is in use, `config` null or valid, `domids` null or a place for `count` numbers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xensim_create_many(
    host: *mut Handle,
    config: *const CConfig,
    count: usize,
    domids: *mut u32,
) -> c_int {
    status(|| {
        // SAFETY: the caller's word.
        let (handle, config) = unsafe { (handle(host)?, config.as_ref()) };
        let config = config.ok_or_else(|| Failure::invalid("the configuration is NULL"))?;
        // SAFETY: the caller's word.
        let config = unsafe { config.read() }?;
        for (index, domid) in handle.host.create_many(count, &config)?.into_iter().enumerate() {
            if !domids.is_null() {
                // SAFETY: the caller's word; as many as were asked for.
                unsafe { domids.add(index).write(domid.into()) };
            }
        }
        Ok(())
    })
}

/// See `xensim.h`.
///
/// # Safety
/// `host` is null or a handle that is in use.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xensim_shutdown(host: *mut Handle, domain: u32, why: c_uint) -> c_int {
    // SAFETY: the caller's word.
    status(|| Ok(unsafe { handle(host) }?.host.shutdown(domid(domain)?, reason(why)?)?))
}

/// Defines a function that lets something happen to one domain.
macro_rules! domain_function {
    ($name:ident, $host:ident, $domid:ident => $act:expr) => {
        /// See `xensim.h`.
        ///
        /// # Safety
        /// `host` is null or a handle that is in use.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(host: *mut Handle, domain: u32) -> c_int {
            status(|| {
                // SAFETY: the caller's word.
                let $host = &unsafe { handle(host) }?.host;
                let $domid = domid(domain)?;
                Ok($act?)
            })
        }
    };
}

domain_function!(xensim_suspend, host, domid => host.suspend(domid));
domain_function!(xensim_resume, host, domid => host.resume(domid));
domain_function!(xensim_kill, host, domid => host.kill(domid));
domain_function!(xensim_destroy, host, domid => host.destroy(domid));
domain_function!(xensim_pause, host, domid => host.pause(domid));
domain_function!(xensim_unpause, host, domid => host.unpause(domid));

/// See `xensim.h`.
///
/// # Safety
/// `host` is null or a handle that is in use, `domains` null or `count` numbers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xensim_change_many(
    host: *mut Handle,
    domains: *const u32,
    count: usize,
    change: c_uint,
    why: c_uint,
) -> c_long {
    guard(-1, || {
        // SAFETY: the caller's word.
        let (handle, domids) = unsafe { (handle(host)?, domids(domains, count)?) };
        let change = match change {
            0 => Change::Shutdown(reason(why)?),
            1 => Change::Dying,
            2 => Change::ShutdownAndDying(reason(why)?),
            3 => Change::Pause,
            4 => Change::Unpause,
            _ => return Err(Failure::invalid("an unknown change")),
        };
        Ok(handle.host.change(domids, change)? as c_long)
    })
}

/// See `xensim.h`.
///
/// # Safety
/// `host` is null or a handle that is in use, `domains` null or `count` numbers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xensim_destroy_many(
    host: *mut Handle,
    domains: *const u32,
    count: usize,
    flags: c_uint,
) -> c_long {
    const KEEP_NODES: c_uint = 1;
    guard(-1, || {
        // SAFETY: the caller's word.
        let (handle, domids) = unsafe { (handle(host)?, domids(domains, count)?) };
        if flags & !KEEP_NODES != 0 {
            return Err(Failure::invalid("an unknown flag"));
        }
        Ok(handle.host.destroy_many(domids, flags & KEEP_NODES != 0)? as c_long)
    })
}

// ---- xenstored ----

/// See `xensim.h`.
///
/// # Safety
/// `host` is null or a handle that is in use.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xensim_settle(host: *mut Handle) -> c_int {
    // SAFETY: the caller's word.
    status(|| Ok(unsafe { handle(host) }?.host.settle()?))
}

/// See `xensim.h`.
///
/// # Safety
/// `host` is null or a handle that is in use.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xensim_virq(host: *mut Handle) -> c_int {
    // SAFETY: the caller's word.
    status(|| Ok(unsafe { handle(host) }?.host.raise_virq().map(drop)?))
}

/// See `xensim.h`.
///
/// # Safety
/// `host` is null or a handle that is in use.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xensim_xenstored(host: *mut Handle, what: c_uint) -> c_int {
    status(|| {
        // SAFETY: the caller's word.
        let host = &unsafe { handle(host) }?.host;
        let not_running = || Failure { errno: libc::ESRCH, words: "xenstored does not run".into() };
        match what {
            0 => host.start_xenstored()?,
            1 => host.start_empty_xenstored()?,
            2 => drop(host.kill_xenstored()?),
            3 => host.restart_xenstored()?,
            4 | 5 => return if host.pause_xenstored(what == 4)? { Ok(()) } else { Err(not_running()) },
            _ => return Err(Failure::invalid("unknown what xenstored shall do")),
        }
        Ok(())
    })
}

fn store_failure(path: &str, error: &std::io::Error) -> Failure {
    Failure { errno: crate::errno_of(error), words: format!("{path} in the store: {error}") }
}

/// See `xensim.h`.
///
/// # Safety
/// `host` is null or a handle that is in use, the others null or C strings.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xensim_store_write(host: *mut Handle, path: *const c_char, value: *const c_char) -> c_int {
    status(|| {
        // SAFETY: the caller's word.
        let (handle, path, value) = unsafe { (handle(host)?, text(path, "the path")?, text(value, "the value")?) };
        handle.host.store()?.request(Request::write(path, value)).map_err(|error| store_failure(path, &error))
    })
}

/// See `xensim.h`.
///
/// # Safety
/// `host` is null or a handle that is in use, `path` null or a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xensim_store_read(host: *mut Handle, path: *const c_char) -> *mut c_char {
    guard(std::ptr::null_mut(), || {
        // SAFETY: the caller's word.
        let (handle, path) = unsafe { (handle(host)?, text(path, "the path")?) };
        let value = handle.host.store()?.read(path).map_err(|error| store_failure(path, &error))?;
        let value = value.ok_or_else(|| Failure { errno: libc::ENOENT, words: format!("no node {path}") })?;
        // SAFETY: room for the value and a zero byte, all of which is written.
        unsafe {
            let copy = libc::malloc(value.len() + 1).cast::<u8>();
            if copy.is_null() {
                return Err(Failure { errno: libc::ENOMEM, words: "out of memory".into() });
            }
            copy.copy_from_nonoverlapping(value.as_ptr(), value.len());
            copy.add(value.len()).write(0);
            Ok(copy.cast())
        }
    })
}

/// See `xensim.h`.
///
/// # Safety
/// `host` is null or a handle that is in use, `path` null or a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xensim_store_remove(host: *mut Handle, path: *const c_char) -> c_int {
    status(|| {
        // SAFETY: the caller's word.
        let (handle, path) = unsafe { (handle(host)?, text(path, "the path")?) };
        handle.host.store()?.request(Request::remove(path)).map_err(|error| store_failure(path, &error))
    })
}

// ---- Hypercalls ----

/// `struct xensim_fault`.
#[repr(C)]
pub struct CFault {
    errnum: c_int,
    times: u64,
    after: u64,
    delay_us: u64,
}

fn call(call: c_uint) -> Result<Call> {
    Call::ALL.get(call as usize).copied().ok_or_else(|| Failure::invalid("an unknown kind of hypercall"))
}

/// See `xensim.h`.
///
/// # Safety
/// `host` is null or a handle that is in use, `fault` null or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xensim_inject(host: *mut Handle, kind: c_uint, fault: *const CFault) -> c_int {
    const ALWAYS: u64 = u64::MAX;
    status(|| {
        // SAFETY: the caller's word.
        let (handle, fault) = unsafe { (handle(host)?, fault.as_ref()) };
        let fault = fault.ok_or_else(|| Failure::invalid("the fault is NULL"))?;
        let fault = Fault {
            errno: fault.errnum,
            times: Some(fault.times).filter(|times| *times != ALWAYS),
            after: fault.after,
            delay: Duration::from_micros(fault.delay_us),
            role: Role::Client,
        };
        handle.host.inject(call(kind)?, &fault);
        Ok(())
    })
}

/// See `xensim.h`.
///
/// # Safety
/// `host` is null or a handle that is in use.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xensim_clear_faults(host: *mut Handle) -> c_int {
    status(|| {
        // SAFETY: the caller's word.
        unsafe { handle(host) }?.host.clear_faults();
        Ok(())
    })
}

/// See `xensim.h`.
///
/// # Safety
/// `host` is null or a handle that is in use.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xensim_count(host: *mut Handle, kind: c_uint) -> u64 {
    // SAFETY: the caller's word.
    guard(0, || Ok(unsafe { handle(host) }?.host.count(call(kind)?)))
}

/// See `xensim.h`.
///
/// # Safety
/// `host` is null or a handle that is in use.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xensim_reset_counts(host: *mut Handle) -> c_int {
    status(|| {
        // SAFETY: the caller's word.
        unsafe { handle(host) }?.host.reset_counts();
        Ok(())
    })
}

/// See `xensim.h`.
///
/// # Safety
/// `host` is null or a handle that is in use.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xensim_access(host: *mut Handle, access: c_uint) -> c_int {
    status(|| {
        let access = match access {
            0 => Access::Full,
            1 => Access::NoPermission,
            2 => Access::NoHypervisor,
            _ => return Err(Failure::invalid("an unknown kind of access")),
        };
        // SAFETY: the caller's word.
        unsafe { handle(host) }?.host.set_access(access);
        Ok(())
    })
}
