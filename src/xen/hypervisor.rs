// SPDX-License-Identifier: LGPL-2.1-or-later
//! What the hypervisor says of its domains.

use std::path::PathBuf;
use std::ptr::NonNull;
use std::sync::Arc;

use nix::errno::Errno;
use xenctrl_sys::{xc_domaininfo_t, xc_interface};

use super::DOMID_LIMIT;
use super::apart::apart;
use super::log::{Capture, Line};
use super::xenctrl::{self, XenCtrl};
use crate::error::{Error, Result};
use crate::forkguard::undisturbed;
use crate::identity::Guard;
use crate::stats::Asked;
use crate::sync::std_like::OnceLock;

/// `XEN_DOMINF_*`: the bits and the shutdown reason's place in `flags`.
mod flags {
    pub const DYING: u32 = 1 << 0;
    pub const HVM: u32 = 1 << 1;
    pub const SHUTDOWN: u32 = 1 << 2;
    pub const PAUSED: u32 = 1 << 3;
    pub const RUNNING: u32 = 1 << 5;
    pub const REASON_SHIFT: u32 = 16;
}

/// `LIBXL_SHUTDOWN_REASON_SOFT_RESET`.
const REASON_SOFT_RESET: u8 = 5;

/// A domain as of one look. The shutdown reason is the guest's own word (`SHUTDOWN_*`, or anything else in 8 bits).
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct DomainInfo(xc_domaininfo_t);

impl DomainInfo {
    /// Its number.
    pub fn domid(&self) -> u32 {
        self.0.domain.into()
    }

    /// Being destroyed: its resources are going, it never runs again.
    pub fn dying(&self) -> bool {
        self.0.flags & flags::DYING != 0
    }

    /// Neither being destroyed nor shut down.
    pub fn running(&self) -> bool {
        self.0.flags & (flags::DYING | flags::SHUTDOWN) == 0
    }

    /// Alive, and not paused by its toolstack: it can do its part in something.
    pub fn takes_part(&self) -> bool {
        self.running() && self.0.flags & flags::PAUSED == 0
    }

    /// Shut down, and why; `None` while it lives.
    pub fn shutdown_reason(&self) -> Option<u8> {
        (self.0.flags & flags::SHUTDOWN != 0).then_some((self.0.flags >> flags::REASON_SHIFT) as u8)
    }

    /// Shut down to be reset in place, and run again: for which its toolstack takes it out of xenstored's hands for a while.
    pub fn awaits_reset(&self) -> bool {
        !self.dying() && self.shutdown_reason() == Some(REASON_SOFT_RESET)
    }

    /// For how many nanoseconds its virtual processors have run, all together. It stands still while none of them runs.
    pub fn cpu_time_ns(&self) -> u64 {
        self.0.cpu_time
    }

    /// How many virtual processors it may have.
    pub fn processors(&self) -> u64 {
        u64::from(self.0.max_vcpu_id) + 1
    }

    /// One of its virtual processors is on a processor of the host's, be it on its way out of there.
    pub fn on_a_processor(&self) -> bool {
        self.0.flags & flags::RUNNING != 0
    }

    /// The UUID that its toolstack has given it. It may change while the domain lives.
    pub fn uuid(&self) -> [u8; 16] {
        self.0.handle
    }

    /// Of a paravirtualised domain: where the page is that it shares with the hypervisor. `None` for any other, which can move
    /// it.
    pub fn pv_frame(&self) -> Option<u64> {
        (self.0.flags & flags::HVM == 0).then_some(self.0.shared_info_frame)
    }
}

#[cfg(test)]
impl DomainInfo {
    pub(crate) fn alive(domid: u16) -> Self {
        let mut info = DomainInfo(xc_domaininfo_t { domain: domid, ..Default::default() });
        info.0.handle[..2].copy_from_slice(&domid.to_be_bytes());
        info
    }

    pub(crate) fn shut_down(mut self, reason: u8) -> Self {
        self.0.flags |= flags::SHUTDOWN | (u32::from(reason) << flags::REASON_SHIFT);
        self
    }

    pub(crate) fn being_destroyed(mut self) -> Self {
        self.0.flags |= flags::DYING;
        self
    }

    pub(crate) fn with_cpu_time(mut self, cpu_time_ns: u64) -> Self {
        self.0.cpu_time = cpu_time_ns;
        self
    }

    pub(crate) fn with_processors(mut self, count: u32) -> Self {
        self.0.max_vcpu_id = count - 1;
        self
    }

    pub(crate) fn on_its_processor(mut self) -> Self {
        self.0.flags |= flags::RUNNING;
        self
    }

    pub(crate) fn with_uuid(mut self, uuid: [u8; 16]) -> Self {
        self.0.handle = uuid;
        self
    }

    pub(crate) fn with_frame(mut self, frame: u64) -> Self {
        self.0.shared_info_frame = frame;
        self
    }

    pub(crate) fn fully_virtualised(mut self) -> Self {
        self.0.flags |= flags::HVM;
        self
    }

    /// In its place, another that can be told from it.
    pub(crate) fn another(self) -> Self {
        let frame = self.0.shared_info_frame + 1;
        self.with_frame(frame).with_uuid([9; 16])
    }
}

/// Something that knows the domains of a host: the hypervisor, or a table in a test.
pub trait Host {
    /// Asks for the existing domains with `domid >= first`, the first `max` of them at most. `first` is below
    /// [`DOMID_LIMIT`].
    fn ask(&mut self, first: u32, max: usize) -> std::result::Result<(), Errno>;

    /// The last answer, ascending by domid.
    fn answer(&self) -> &[DomainInfo];
}

/// The file of the libxenctrl that hypercalls go through: of the running hypervisor's release, where it can be had.
/// `None` where there is none.
pub fn library() -> Option<PathBuf> {
    xenctrl::file()
}

/// An open hypercall interface.
pub struct Hypervisor {
    functions: &'static XenCtrl,
    handle: NonNull<xc_interface>,
    /// Room for the largest answer so far.
    buffer: Vec<DomainInfo>,
    /// How many of them the last answer filled.
    found: usize,
    capture: Box<Capture>,
    asked: Asked,
    /// libxenctrl doesn't tell its descriptors' numbers. If this is whole, nobody has closed all that a process has.
    guard: Arc<Guard>,
}

// SAFETY: an xc_interface may be used by any one thread at a time; ours is only reached through `&mut`.
unsafe impl Send for Hypervisor {}

impl Hypervisor {
    /// Opens it. The lines that libxenctrl has to say come back in either case.
    pub fn open() -> (Result<Self>, Vec<Line>) {
        let Some(functions) = xenctrl::bind() else {
            return (Err(Error::os("no libxenctrl.so.4.* found", Errno::ENOENT)), Vec::new());
        };
        let guard = match Guard::shared() {
            Ok(guard) => guard,
            Err(error) => return (Err(error), Vec::new()),
        };
        let capture = Capture::new();
        let logger = capture.as_logger().cast();
        let open = || {
            // SAFETY: the logger lives until after interface_close (`drop`); no flags.
            let handle = unsafe { (functions.interface_open)(logger, logger, 0) };
            NonNull::new(handle).ok_or_else(|| Error::os("opening the hypercall interface", Errno::last()))
        };
        let handle = match undisturbed(open) {
            Ok(handle) => handle,
            Err(error) => return (Err(error), capture.take()),
        };
        let asked = Asked::default();
        let mut hypervisor = Hypervisor { functions, handle, buffer: Vec::new(), found: 0, capture, asked, guard };
        let fits = match hypervisor.layout_fits() {
            Ok(false) => Err(Error::os("this libxenctrl has another xc_domaininfo_t than ours", Errno::EPROTO)),
            // A hypervisor that doesn't answer now may do so later; `ask` has to find out then.
            Ok(true) | Err(_) => Ok(()),
        };
        let lines = hypervisor.take_log();
        (fits.map(|()| hypervisor), lines)
    }

    /// All domains that there are, ascending; the control domain, and those that are on their way out, among them.
    pub fn domains(&mut self) -> Result<Vec<DomainInfo>> {
        const AT_ONCE: usize = 1024;
        let mut domains = Vec::new();
        let mut first = 0;
        while first < DOMID_LIMIT {
            self.ask(first, AT_ONCE).map_err(|errno| Error::os("asking the hypervisor for its domains", errno))?;
            let found = self.answer();
            domains.extend_from_slice(found);
            match found.last() {
                Some(last) if found.len() == AT_ONCE => first = last.domid() + 1,
                _ => break,
            }
        }
        Ok(domains)
    }

    /// What libxenctrl had to say since the last time.
    pub fn take_log(&self) -> Vec<Line> {
        self.capture.take()
    }

    /// What it was asked through this interface.
    pub fn asked(&self) -> Asked {
        self.asked
    }

    /// The raw handle, for [`abandon`].
    pub fn raw(&self) -> *mut u8 {
        self.handle.as_ptr().cast()
    }

    /// Whether this libxenctrl's idea of `xc_domaininfo_t` is the one that we were built with. A later release may append
    /// to it; the answer would then be misread, or run over the buffer's end. One look at one domain tells: nothing
    /// behind the first entry may have been written, and a domain's fields must read as such. What has fitted once is
    /// not asked again in this process.
    fn layout_fits(&mut self) -> std::result::Result<bool, Errno> {
        static FITS: OnceLock<()> = OnceLock::new();
        if FITS.get().is_some() {
            return Ok(true);
        }
        const DOMAIN: u16 = 0x5a5a;
        const FLAGS: u32 = 0x5a5a_5a5a;
        let sentinel = xc_domaininfo_t { domain: DOMAIN, flags: FLAGS, ..Default::default() };
        let mut probe = [DomainInfo(sentinel); 8];
        let look = || {
            // SAFETY: room for one entry of up to eight times our size.
            unsafe { (self.functions.domain_getinfolist)(self.handle.as_ptr(), 0, 1, probe.as_mut_ptr().cast()) }
        };
        self.asked.hypercalls += 1;
        // libxencall keeps buffers behind one lock for all handles.
        let found = undisturbed(look);
        self.asked.domains += u64::try_from(found).unwrap_or(0);
        if found < 0 {
            return Err(Errno::last());
        }
        let untouched = probe[1..].iter().all(|entry| entry.0.domain == DOMAIN && entry.0.flags == FLAGS);
        let fits = untouched && (found == 0 || probe[0].domid() < DOMID_LIMIT);
        if fits {
            let _ = FITS.set(());
        }
        Ok(fits)
    }
}

impl Host for Hypervisor {
    fn ask(&mut self, first: u32, max: usize) -> std::result::Result<(), Errno> {
        self.found = 0;
        if !self.layout_fits()? {
            return Err(Errno::EPROTO);
        }
        if self.buffer.len() < max {
            self.buffer.try_reserve(max - self.buffer.len()).map_err(|_| Errno::ENOMEM)?;
            self.buffer.resize(max, DomainInfo(xc_domaininfo_t::default()));
        }
        let max_domains = u32::try_from(max).unwrap_or(u32::MAX);
        // SAFETY: the buffer has `max` entries, whose layout was checked in `open`.
        let list = || unsafe {
            (self.functions.domain_getinfolist)(
                self.handle.as_ptr(),
                first,
                max_domains,
                self.buffer.as_mut_ptr().cast(),
            )
        };
        self.asked.hypercalls += 1;
        let found = undisturbed(list);
        self.found = usize::try_from(found).map_err(|_| Errno::last())?.min(max);
        self.asked.domains += self.found as u64;
        Ok(())
    }

    fn answer(&self) -> &[DomainInfo] {
        &self.buffer[..self.found]
    }
}

/// A handle on its way to another thread.
#[derive(Clone, Copy)]
struct Shared(NonNull<xc_interface>);

// SAFETY: an xc_interface may be used by any one thread at a time.
unsafe impl Send for Shared {}

impl Shared {
    fn get(self) -> *mut xc_interface {
        self.0.as_ptr()
    }
}

impl Drop for Hypervisor {
    fn drop(&mut self) {
        let (functions, handle) = (self.functions, Shared(self.handle));
        // SAFETY: opened by interface_open, closed once.
        let close = move || undisturbed(|| unsafe { (functions.interface_close)(handle.get()) });
        if self.guard.is_whole() {
            close();
        } else {
            // Where that can't be had, rather a handle too many than a file of the application's closed.
            let _ = apart(close);
        }
    }
}

/// Closes the descriptors of a parent's interface in a forked child.
///
/// # Safety
/// `raw` is [`Hypervisor::raw`] of an interface of the parent's that this process never uses again.
pub unsafe fn abandon(raw: *mut u8) {
    if let (Some(functions), false) = (xenctrl::bind(), raw.is_null()) {
        // SAFETY: closing unmaps and closes, both of which concern this process alone; the caller vouches for `raw`.
        unsafe { (functions.interface_close)(raw.cast()) };
    }
}
