// SPDX-License-Identifier: LGPL-2.1-or-later
//! The handler of SIGCHLD, and whom it wakes.
//!
//! - The handler does nothing but write to eventfds, after a look whether they still are what they were. It finds them in slots that are never freed, without a lock, and
//!   keeps errno.
//! - An eventfd is closed only after its slot was emptied and no handler that may have seen it is running any more.
//! - The handler is there while somebody subscribes. What was there before comes back after the last one, whether
//!   ignored or default. A handler of the application's own is left alone, before and after: it is not ours to chain.

use std::ffi::c_int;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicI32, AtomicPtr, AtomicU64, AtomicUsize, Ordering};

use nix::errno::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::process::{self, Descriptor};
use crate::identity::{Identity, guard_is_whole};

// ---- the handler ----

const SLOTS: usize = 32;
const EMPTY: c_int = -1;

/// Descriptors that the handler writes to. There are always more of them if need be, and they stay for ever.
struct Slots {
    fds: [AtomicI32; SLOTS],
    more: AtomicPtr<Slots>,
}

impl Slots {
    const fn new() -> Self {
        Slots { fds: [const { AtomicI32::new(EMPTY) }; SLOTS], more: AtomicPtr::new(std::ptr::null_mut()) }
    }

    fn more(&self) -> Option<&'static Slots> {
        // SAFETY: null, or leaked for good before it was stored.
        unsafe { self.more.load(Ordering::SeqCst).as_ref() }
    }
}

static SLOTS_HERE: Slots = Slots::new();

/// How many handlers are running.
static RUNNING: AtomicUsize = AtomicUsize::new(0);

extern "C" fn handler(_signal: c_int) {
    let errno = Errno::last_raw();
    RUNNING.fetch_add(1, Ordering::SeqCst);
    let mut slots = Some(&SLOTS_HERE);
    while let Some(here) = slots {
        for slot in &here.fds {
            let fd = slot.load(Ordering::SeqCst);
            if fd != EMPTY && is_ours(fd) {
                let one = 1u64;
                // SAFETY: eight bytes, to an eventfd that is open: who closes it waits until no handler is running. It
                // doesn't block; one that is full has been raised.
                unsafe { libc::write(fd, (&raw const one).cast(), size_of_val(&one)) };
            }
        }
        slots = here.more();
    }
    RUNNING.fetch_sub(1, Ordering::SeqCst);
    Errno::set_raw(errno);
}

/// What eventfds are, on their shared inode; of no file before the first is made.
static DEVICE: AtomicU64 = AtomicU64::new(0);
static INODE: AtomicU64 = AtomicU64::new(0);

/// Whether this number is still an eventfd of ours, as far as a signal handler can find out: the application may have closed
/// it, and have it for a file of its own.
fn is_ours(fd: c_int) -> bool {
    let eventfds = (DEVICE.load(Ordering::SeqCst), INODE.load(Ordering::SeqCst));
    guard_is_whole() && Identity::of(fd).is_some_and(|identity| identity.numbers() == eventfds)
}

/// Finds an empty slot, or makes more. Under the process's lock.
fn fill_slot(fd: c_int) -> &'static AtomicI32 {
    let mut slots = &SLOTS_HERE;
    loop {
        if let Some(slot) = slots.fds.iter().find(|slot| slot.load(Ordering::SeqCst) == EMPTY) {
            slot.store(fd, Ordering::SeqCst);
            return slot;
        }
        slots = slots.more().unwrap_or_else(|| {
            let more = Box::leak(Box::new(Slots::new()));
            slots.more.store(more, Ordering::SeqCst);
            more
        });
    }
}

// ---- installing it ----

/// What has been done to SIGCHLD. Part of what the process's lock guards.
pub(super) struct Installed {
    /// How many subscribe.
    users: usize,
    /// What was there before our handler, if ours is there.
    before: Option<libc::sigaction>,
}

impl Installed {
    pub(super) const fn none() -> Self {
        Installed { users: 0, before: None }
    }

    /// Sees to it that our handler is there; false if there is a foreign one.
    fn install(&mut self) -> bool {
        let present = action(None);
        if is_our_action(&present) {
            return true;
        }
        if is_foreign(&present) {
            return false;
        }
        // SAFETY: all zero is a valid sigaction: no flags, nothing masked.
        let mut ours = unsafe { MaybeUninit::<libc::sigaction>::zeroed().assume_init() };
        ours.sa_sigaction = handler as *const () as usize;
        ours.sa_flags = libc::SA_RESTART | libc::SA_NOCLDSTOP;
        let before = action(Some(&ours));
        if is_foreign(&before) {
            // The application has put it there in this moment.
            action(Some(&before));
            return false;
        }
        // Ours may have been taken away behind our back, and is put there again.
        self.before.get_or_insert(before);
        true
    }

    fn uninstall(&mut self) {
        if let Some(before) = self.before.take().filter(|_| is_our_action(&action(None))) {
            action(Some(&before));
        }
    }
}

/// The present action, which is replaced if there is another to replace it.
fn action(new: Option<&libc::sigaction>) -> libc::sigaction {
    let mut old = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: SIGCHLD can be caught, and both pointers are null or good, so this can't fail; zero is a valid value too.
    unsafe {
        libc::sigaction(libc::SIGCHLD, new.map_or(std::ptr::null(), |new| &raw const *new), old.as_mut_ptr());
        old.assume_init()
    }
}

fn is_our_action(action: &libc::sigaction) -> bool {
    action.sa_sigaction == handler as *const () as usize
}

fn is_foreign(action: &libc::sigaction) -> bool {
    !is_our_action(action) && action.sa_sigaction != libc::SIG_DFL && action.sa_sigaction != libc::SIG_IGN
}

/// The address of the handler that there is now, whose ever it may be.
pub fn handler_present() -> Option<usize> {
    let present = action(None).sa_sigaction;
    (present != libc::SIG_DFL && present != libc::SIG_IGN).then_some(present)
}

/// In a forked child: as if nobody had ever subscribed. The descriptors are closed elsewhere.
pub(super) fn forget(installed: &mut Installed) {
    installed.users = 0;
    installed.uninstall();
    let mut slots = Some(&SLOTS_HERE);
    while let Some(here) = slots {
        here.fds.iter().for_each(|slot| slot.store(EMPTY, Ordering::SeqCst));
        slots = here.more();
    }
    // Those of the parent's other threads don't run here.
    RUNNING.store(0, Ordering::SeqCst);
}

// ---- subscribing ----

/// Someone who is woken by SIGCHLD: a descriptor that is readable after one.
#[derive(Debug)]
pub struct Subscriber {
    eventfd: Descriptor,
    slot: &'static AtomicI32,
}

/// Whether the handler could be installed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handler {
    /// It is there.
    Ours,
    /// The application has one, which stays.
    Foreign,
}

impl Subscriber {
    /// Wakes the new subscriber from now on.
    pub fn new() -> nix::Result<Self> {
        let make = || Ok([EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?.into()]);
        let [eventfd] = Descriptor::make(make)?;
        if let Some((device, inode)) = Identity::of(eventfd.as_raw_fd()).map(Identity::numbers) {
            DEVICE.store(device, Ordering::SeqCst);
            INODE.store(inode, Ordering::SeqCst);
        }
        let mut process = process::lock();
        let slot = fill_slot(eventfd.as_raw_fd());
        process.sigchld.users += 1;
        process.sigchld.install();
        Ok(Subscriber { eventfd, slot })
    }

    /// Whether the handler is there. If it isn't, this tries once more.
    pub fn handler(&self) -> Handler {
        if process::lock().sigchld.install() { Handler::Ours } else { Handler::Foreign }
    }

    /// Takes the wake-up back.
    pub fn quiet(&self) {
        let mut count = [0; 8];
        if self.eventfd.is_ours() {
            let _ = nix::unistd::read(&self.eventfd, &mut count);
        }
    }
}

impl AsFd for Subscriber {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.eventfd.as_fd()
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        let mut process = process::lock();
        process.sigchld.users = process.sigchld.users.saturating_sub(1);
        if process.sigchld.users == 0 {
            process.sigchld.uninstall();
        }
        self.slot.store(EMPTY, Ordering::SeqCst);
        drop(process);
        // One that has come before may have the number still in its hand.
        while RUNNING.load(Ordering::SeqCst) != 0 {
            std::thread::yield_now();
        }
    }
}
