// SPDX-License-Identifier: LGPL-2.1-or-later
//! Domains: created, changed and destroyed.

use std::ffi::{c_char, c_int, c_long, c_uint};

use driver::toolstack::Change;
use driver::{Config, Domid, Nodes, Reason};

use super::{Failure, Handle, Result, guard, handle, status, text};

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
domain_function!(xensim_soft_reset, host, domid => host.soft_reset(domid));
domain_function!(xensim_kill, host, domid => host.kill(domid));
domain_function!(xensim_destroy, host, domid => host.destroy(domid));
domain_function!(xensim_pause, host, domid => host.pause(domid));
domain_function!(xensim_unpause, host, domid => host.unpause(domid));

/// See `xensim.h`.
///
/// # Safety
/// `host` is null or a handle that is in use, `uuid` null or 16 bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xensim_set_uuid(host: *mut Handle, domain: u32, uuid: *const u8) -> c_int {
    status(|| {
        // SAFETY: the caller's word.
        let host = &unsafe { handle(host) }?.host;
        if uuid.is_null() {
            return Err(Failure::invalid("the UUID is NULL"));
        }
        // SAFETY: the caller's word.
        let uuid = unsafe { uuid.cast::<[u8; 16]>().read_unaligned() };
        Ok(host.set_uuid(domid(domain)?, &uuid)?)
    })
}

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
