// SPDX-License-Identifier: LGPL-2.1-or-later
//! What a hypercall does to the table, and what it answers.
//!
//! What a domain's end looks like from outside is the hypervisor's: a shutdown, a death and a disappearance raise
//! VIRQ_DOM_EXC each; the first shutdown's reason counts; the dead don't come back.

use std::ffi::c_void;
use std::time::Duration;

use driver::domains::{Name, State};
use driver::evtchn::VIRQ_DOM_EXC;
use driver::table::FIRST_RESERVED_DOMID;
use driver::toolstack::Change;
use driver::{Domain, Domid, Reason, grants};

use crate::abi::{Call, Op};
use crate::errno_of;
use crate::hosts::Attached;

/// KiB in a page.
const PAGE_KIB: u64 = grants::PAGE / 1024;

/// Carries a hypercall out: its value, or -errno.
///
/// # Safety
/// As for [`Call::decode`].
pub unsafe fn call(host: &Attached, hypercall: *const c_void) -> i64 {
    // SAFETY: the caller vouches for it.
    let (call, refused) = unsafe { Call::decode(hypercall) };
    let verdict = host.table.judge(host.role, kind(call.op()));
    if !verdict.delay.is_zero() {
        sleep(verdict.delay);
    }
    let errno = verdict.errno.unwrap_or(refused);
    if errno != 0 {
        return -i64::from(errno);
    }
    match answer(host, &call) {
        Ok(value) => value,
        Err(errno) => -i64::from(errno),
    }
}

/// What it is counted as.
fn kind(op: Op) -> driver::Call {
    match op {
        Op::GetDomainInfoList => driver::Call::GetDomainInfoList,
        Op::GetDomainInfo => driver::Call::GetDomainInfo,
        Op::OtherSysctl | Op::PhysInfo | Op::CpupoolInfo | Op::CpupoolFree | Op::CpupoolMove => driver::Call::Sysctl,
        Op::OtherDomctl
        | Op::Create
        | Op::Destroy
        | Op::Pause
        | Op::Unpause
        | Op::Resume
        | Op::SetHandle
        | Op::MaxVcpus
        | Op::MaxMem
        | Op::Unsupported => driver::Call::Domctl,
        Op::OtherSched | Op::Shutdown => driver::Call::SchedOp,
        Op::EventChannel => driver::Call::EventChannelOp,
        Op::Memory => driver::Call::MemoryOp,
        Op::XenVersion => driver::Call::XenVersion,
        Op::Other => driver::Call::Other,
    }
}

/// Sleeps whole, signals or not: a hypercall is not interrupted either.
fn sleep(delay: Duration) {
    let mut left = libc::timespec {
        tv_sec: libc::time_t::try_from(delay.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: delay.subsec_nanos().into(),
    };
    // SAFETY: both point to a timespec of ours; the same one may serve as both.
    while unsafe { libc::clock_nanosleep(libc::CLOCK_MONOTONIC, 0, &raw const left, &raw mut left) } == libc::EINTR {}
}

fn answer(host: &Attached, call: &Call) -> Result<i64, i32> {
    match call.op() {
        Op::GetDomainInfoList => {
            let mut count = 0;
            let room = call.count as usize;
            for (index, domain) in host.table.vitals_from(call.domid).take(room).enumerate() {
                call.put_domain(index as u32, &domain);
                count = index as u32 + 1;
            }
            call.put_count(count);
            Ok(0)
        }
        Op::GetDomainInfo => {
            if call.domid as usize >= FIRST_RESERVED_DOMID {
                return Err(libc::EINVAL);
            }
            let domain = host.table.vitals_from(call.domid).next().ok_or(libc::ESRCH)?;
            if call.flag() && u32::from(domain.domid) != call.domid {
                return Err(libc::ESRCH);
            }
            call.put_domain(0, &domain);
            Ok(0)
        }
        Op::PhysInfo => {
            call.put_physinfo(host.table.vitals_from(0).map(|domain| domain.pages).sum());
            Ok(0)
        }
        // There is one pool, for all processors and domains.
        Op::CpupoolInfo if call.count == 0 => {
            call.put_cpupool(host.table.vitals_from(0).count() as u32);
            Ok(0)
        }
        Op::CpupoolFree => {
            call.put_no_free_cpu();
            Ok(0)
        }
        Op::CpupoolMove if call.count == 0 => {
            let domid = domid(call).map_err(|_| libc::EINVAL)?;
            host.table.state(domid).map(|_| 0).ok_or(libc::EINVAL)
        }
        Op::CpupoolInfo | Op::CpupoolMove => Err(libc::ENOENT),
        Op::XenVersion => Ok(call.xen_version()),
        Op::Create => create(host, call),
        Op::Destroy => destroy(host, guest(call)?),
        Op::Pause => change(host, guest(call)?, Change::Pause),
        Op::Unpause => change(host, guest(call)?, Change::Unpause),
        // The hypervisor lets only those run on that have shut down, and says nothing of the others.
        Op::Resume => change(host, guest(call)?, Change::Resume).or_else(ignore_unchanged),
        Op::Shutdown => {
            let reason = Reason(u8::try_from(call.count).map_err(|_| libc::EINVAL)?);
            change(host, guest(call)?, Change::Shutdown(reason)).or_else(ignore_unchanged)
        }
        Op::SetHandle => with_lock(host, |lock| match host.table.set_handle(lock, domid(call)?, &call.handle) {
            true => Ok(0),
            false => Err(libc::ESRCH),
        }),
        Op::MaxVcpus => with_lock(host, |lock| match host.table.set_size(lock, domid(call)?, Some(call.count), None) {
            true => Ok(0),
            false => Err(libc::ESRCH),
        }),
        Op::MaxMem => with_lock(host, |lock| {
            let pages = u64::from(call.count) / PAGE_KIB;
            match host.table.set_size(lock, domid(call)?, None, Some(pages)) {
                true => Ok(0),
                false => Err(libc::ESRCH),
            }
        }),
        Op::Unsupported => Err(libc::EOPNOTSUPP),
        Op::Other | Op::OtherSysctl | Op::OtherDomctl | Op::OtherSched | Op::EventChannel | Op::Memory => {
            Err(libc::ENOSYS)
        }
    }
}

fn domid(call: &Call) -> Result<Domid, i32> {
    Domid::try_from(call.domid).ok().filter(|domid| usize::from(*domid) < FIRST_RESERVED_DOMID).ok_or(libc::ESRCH)
}

/// A domain but the control domain, which cannot do such things to itself.
fn guest(call: &Call) -> Result<Domid, i32> {
    domid(call).and_then(|domid| if domid == 0 { Err(libc::EINVAL) } else { Ok(domid) })
}

/// What cannot change any more stays, and that is no error to the hypervisor.
fn ignore_unchanged(errno: i32) -> Result<i64, i32> {
    if errno == libc::EINVAL { Ok(0) } else { Err(errno) }
}

fn change(host: &Attached, domid: Domid, change: Change) -> Result<i64, i32> {
    if host.table.change(domid, |state| change.apply(state)).is_none() {
        return Err(if host.table.state(domid).is_none() { libc::ESRCH } else { libc::EINVAL });
    }
    if change.is_noticed() { raise(host) } else { Ok(0) }
}

fn raise(host: &Attached) -> Result<i64, i32> {
    host.channels().raise(VIRQ_DOM_EXC).map(|_| 0).map_err(|error| errno_of(&error))
}

fn with_lock(host: &Attached, act: impl FnOnce(&driver::table::Lock) -> Result<i64, i32>) -> Result<i64, i32> {
    act(&host.lock().map_err(|error| errno_of(&error))?)
}

fn create(host: &Attached, call: &Call) -> Result<i64, i32> {
    let new = Domain {
        domid: 0,
        // A toolstack builds it before it lets it run.
        state: State { paused: true, hvm: call.flag(), ..State::default() },
        handle: call.handle,
        vcpus: call.count,
        pages: 0,
        name: Name::default(),
    };
    // 0 and the numbers that are nobody's ask for any.
    let wanted = Some(call.domid).filter(|wanted| *wanted != 0 && (*wanted as usize) < FIRST_RESERVED_DOMID);
    with_lock(host, |lock| {
        let domid = host.table.add(lock, wanted, &new).map_err(|error| error.errno())?;
        let grants_file = host.path(&[b"dev/gntdev"]).ok_or(libc::ENAMETOOLONG)?;
        grants::clear(grants_file.as_c_str(), domid.into()).map_err(|error| errno_of(&error))?;
        call.put_domid(domid.into());
        Ok(0)
    })
}

/// Dead, for xenstored to see if it is quick, and gone: nothing refers to a simulated domain.
fn destroy(host: &Attached, domid: Domid) -> Result<i64, i32> {
    host.table.state(domid).ok_or(libc::ESRCH)?;
    with_lock(host, |lock| {
        host.table.remove(lock, domid);
        Ok(0)
    })?;
    raise(host)
}
