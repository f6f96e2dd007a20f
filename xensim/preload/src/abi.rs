// SPDX-License-Identifier: LGPL-2.1-or-later
//! How hypercalls and ioctls are laid out: mirrors `abi/abi.h`, behind which the installed Xen headers are.

use std::ffi::{c_int, c_long, c_ulong, c_void};

use driver::domains::Vitals;

/// What a hypercall asks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Op {
    Other,
    OtherSysctl,
    OtherDomctl,
    OtherSched,
    EventChannel,
    Memory,
    XenVersion,
    GetDomainInfoList,
    PhysInfo,
    GetDomainInfo,
    Create,
    Destroy,
    Pause,
    Unpause,
    Resume,
    SetHandle,
    MaxVcpus,
    MaxMem,
    Shutdown,
    CpupoolInfo,
    CpupoolFree,
    CpupoolMove,
    Unsupported,
}

const OPS: [Op; 23] = [
    Op::Other,
    Op::OtherSysctl,
    Op::OtherDomctl,
    Op::OtherSched,
    Op::EventChannel,
    Op::Memory,
    Op::XenVersion,
    Op::GetDomainInfoList,
    Op::PhysInfo,
    Op::GetDomainInfo,
    Op::Create,
    Op::Destroy,
    Op::Pause,
    Op::Unpause,
    Op::Resume,
    Op::SetHandle,
    Op::MaxVcpus,
    Op::MaxMem,
    Op::Shutdown,
    Op::CpupoolInfo,
    Op::CpupoolFree,
    Op::CpupoolMove,
    Op::Unsupported,
];

/// What an ioctl asks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Request {
    Foreign,
    Unknown,
    Hypercall,
    GrantMap,
    GrantOffset,
    GrantNothing,
    BindVirq,
    BindInterdomain,
    BindUnbound,
    Unbind,
    Notify,
}

const REQUESTS: [Request; 11] = [
    Request::Foreign,
    Request::Unknown,
    Request::Hypercall,
    Request::GrantMap,
    Request::GrantOffset,
    Request::GrantNothing,
    Request::BindVirq,
    Request::BindInterdomain,
    Request::BindUnbound,
    Request::Unbind,
    Request::Notify,
];

/// `struct xensim_call`: a hypercall, taken apart.
#[repr(C)]
pub struct Call {
    op: u32,
    /// The domain that it is about.
    pub domid: u32,
    /// A number that belongs to it.
    pub count: u32,
    flag: u32,
    /// A domain's handle.
    pub handle: [u8; 16],
    argument: *mut c_void,
}

/// `struct xensim_domain`.
#[repr(C)]
struct CDomain {
    domid: u32,
    dying: u32,
    shutdown: u32,
    reason: u32,
    paused: u32,
    hvm: u32,
    vcpus: u32,
    pages: u64,
    cpu_time_ns: u64,
    shared_frame: u64,
    handle: [u8; 16],
}

/// `struct xensim_grant`.
#[repr(C)]
#[derive(Default)]
pub struct Grant {
    pub count: u32,
    pub domid: u32,
    pub reference: u32,
}

unsafe extern "C" {
    safe fn xensim_abi_request(request: c_ulong) -> c_int;
    fn xensim_abi_decode(hypercall: *const c_void, call: *mut Call) -> c_int;
    fn xensim_abi_put_domain(call: *const Call, index: u32, domain: *const CDomain);
    fn xensim_abi_put_count(call: *const Call, count: u32);
    fn xensim_abi_put_domid(call: *const Call, domid: u32);
    fn xensim_abi_put_physinfo(call: *const Call, used_pages: u64);
    fn xensim_abi_put_cpupool(call: *const Call, domains: u32);
    fn xensim_abi_put_no_free_cpu(call: *const Call);
    fn xensim_abi_xen_version(call: *const Call) -> c_long;
    fn xensim_abi_get_grant(argument: *const c_void, grant: *mut Grant);
    fn xensim_abi_put_grant_index(argument: *mut c_void, index: u64);
    fn xensim_abi_put_grant_offset(argument: *mut c_void);
    fn xensim_abi_get_number(argument: *const c_void) -> u32;
}

/// What this request asks.
pub fn request(request: c_ulong) -> Request {
    usize::try_from(xensim_abi_request(request))
        .ok()
        .and_then(|index| REQUESTS.get(index))
        .copied()
        .unwrap_or(Request::Foreign)
}

impl Call {
    /// Takes a hypercall apart. The second value is an errno if the caller speaks another version of the interface.
    ///
    /// # Safety
    /// `hypercall` is what a caller of the privcmd device gives it, and what it points to stays until the call returns.
    pub unsafe fn decode(hypercall: *const c_void) -> (Call, c_int) {
        let mut call = Call { op: 0, domid: 0, count: 0, flag: 0, handle: [0; 16], argument: std::ptr::null_mut() };
        // SAFETY: the caller vouches for the hypercall; `call` is a struct xensim_call.
        let errno = unsafe { xensim_abi_decode(hypercall, &raw mut call) };
        (call, errno)
    }

    /// What it asks.
    pub fn op(&self) -> Op {
        OPS.get(self.op as usize).copied().unwrap_or(Op::Other)
    }

    /// What it asks for is optional: see the operations.
    pub fn flag(&self) -> bool {
        self.flag != 0
    }

    /// Puts a domain into the answer: into place `index` of a list, which the caller must have room for.
    pub fn put_domain(&self, index: u32, domain: &Vitals) {
        let state = domain.state;
        let domain = CDomain {
            domid: domain.domid.into(),
            dying: state.dying.into(),
            shutdown: state.shutdown.is_some().into(),
            reason: state.shutdown.map_or(0, |reason| reason.0.into()),
            paused: state.paused.into(),
            hvm: state.hvm.into(),
            vcpus: domain.vcpus,
            pages: domain.pages,
            cpu_time_ns: domain.cpu_time().as_nanos() as u64,
            shared_frame: domain.shared_frame(),
            handle: domain.handle,
        };
        // SAFETY: `decode`'s caller vouched for what the call points to; the index is below its count.
        unsafe { xensim_abi_put_domain(self, index, &raw const domain) }
    }

    /// Says how many domains were put into the answer's list.
    pub fn put_count(&self, count: u32) {
        // SAFETY: as above.
        unsafe { xensim_abi_put_count(self, count) }
    }

    /// Says which domain was created.
    pub fn put_domid(&self, domid: u32) {
        // SAFETY: as above.
        unsafe { xensim_abi_put_domid(self, domid) }
    }

    /// Describes the machine.
    pub fn put_physinfo(&self, used_pages: u64) {
        // SAFETY: as above.
        unsafe { xensim_abi_put_physinfo(self, used_pages) }
    }

    /// Describes the one pool of processors, which has so many domains.
    pub fn put_cpupool(&self, domains: u32) {
        // SAFETY: as above.
        unsafe { xensim_abi_put_cpupool(self, domains) }
    }

    /// Says that no processor is in no pool.
    pub fn put_no_free_cpu(&self) {
        // SAFETY: as above.
        unsafe { xensim_abi_put_no_free_cpu(self) }
    }

    /// Answers `xen_version`: its value, or -errno.
    pub fn xen_version(&self) -> i64 {
        // SAFETY: as above.
        unsafe { xensim_abi_xen_version(self) }
    }
}

/// What a grant is wanted of.
///
/// # Safety
/// `argument` is that of a `GrantMap`.
pub unsafe fn get_grant(argument: *const c_void) -> Grant {
    let mut grant = Grant::default();
    // SAFETY: the caller vouches for it.
    unsafe { xensim_abi_get_grant(argument, &raw mut grant) };
    grant
}

/// Says where a grant is to be mapped from.
///
/// # Safety
/// `argument` is that of a `GrantMap`.
pub unsafe fn put_grant_index(argument: *mut c_void, index: u64) {
    // SAFETY: the caller vouches for it.
    unsafe { xensim_abi_put_grant_index(argument, index) }
}

/// Says where a mapping came from, in a form that will do to unmap it.
///
/// # Safety
/// `argument` is that of a `GrantOffset`.
pub unsafe fn put_grant_offset(argument: *mut c_void) {
    // SAFETY: the caller vouches for it.
    unsafe { xensim_abi_put_grant_offset(argument) }
}

/// The virtual interrupt or the port of an event channel's ioctl.
///
/// # Safety
/// `argument` is that of a `BindVirq`, `Unbind` or `Notify`.
pub unsafe fn get_number(argument: *const c_void) -> u32 {
    // SAFETY: the caller vouches for it.
    unsafe { xensim_abi_get_number(argument) }
}
