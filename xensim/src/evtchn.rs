// SPDX-License-Identifier: LGPL-2.1-or-later
//! Event channels between processes: what the hypervisor and the kernel's `/dev/xen/evtchn` do together.
//!
//! Whoever opens the device gets a FIFO of its own, from which it reads the numbers of ports that an event has come in
//! on, four bytes each, as from the real device; descriptors can be polled, duplicated and inherited like any other.
//!
//! Invariants:
//! - A port delivers once and is then masked until its owner unmasks it. What comes meanwhile is remembered as one bit,
//!   and delivered when it is unmasked. So a FIFO never holds more than one number per port, and a burst costs one
//!   delivery.
//! - Whoever is about to write a port's number says so in the port's word, with the number of his process, until it is
//!   written: he may be killed before. Who raises the next event, or waits for this one to be dealt with, finds that, waits
//!   while he lives, and takes his place if he doesn't.
//! - A port's word changes by compare-and-swap only. Slots of handles are given and taken under the table's lock.
//! - A process that is gone is known by its FIFO having no reader. Its slot and ports are taken back when a slot is
//!   needed, and when someone wants its virtual interrupt.

use std::ffi::CStr;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::sys;
use crate::table::{HANDLES, Lock, PORTS, Table, VIRQS};

/// The virtual interrupt that says that some domain has shut down, died or gone.
pub const VIRQ_DOM_EXC: u32 = 3;

/// The folder of the FIFOs, in the host's directory.
pub const FIFO_DIR: &str = "evtchn";

const USED: u64 = 1 << 0;
const MASKED: u64 = 1 << 1;
const PENDING: u64 = 1 << 2;
const IS_VIRQ: u64 = 1 << 3;
/// The process [`WRITER_SHIFT`] bits further up is about to write the number, or was when it died.
const WRITING: u64 = 1 << 4;
/// Who has been about to for so long never will, though there is a process of that number: it may be another by now, or run
/// another program. It takes microseconds.
const NEVER_AFTER: Duration = Duration::from_secs(20);
const WRITER_SHIFT: u32 = 32;
const WRITER_MASK: u64 = 0xffff_ffff << WRITER_SHIFT;
const SLOT_SHIFT: u32 = 16;
const SLOT_MASK: u64 = 0xffff << SLOT_SHIFT;

/// What a port is bound to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Binding {
    /// A virtual interrupt.
    Virq(u32),
    /// Another domain's port; there is no guest behind it, so notifications go nowhere.
    Interdomain,
    /// Another domain may bind to it.
    Unbound,
}

/// The event channels of one host: its table, and the paths of the FIFOs.
pub struct Channels<'a> {
    table: &'a Table,
    dir: &'a [u8],
}

/// Room for the path of a FIFO. A directory that has no room for a socket's path is refused long before.
const PATH_ROOM: usize = 256;

/// The path of a FIFO, made without allocation.
struct FifoPath {
    bytes: [u8; PATH_ROOM],
}

impl FifoPath {
    fn new(dir: &[u8], slot: usize) -> io::Result<FifoPath> {
        use std::io::Write;

        let mut path = FifoPath { bytes: [0; PATH_ROOM] };
        let mut rest = &mut path.bytes[..];
        rest.write_all(dir)?;
        // The zeroes that the array was made of end the string.
        write!(rest, "/{FIFO_DIR}/{slot}")?;
        if rest.is_empty() { Err(io::Error::from_raw_os_error(libc::ENAMETOOLONG)) } else { Ok(path) }
    }

    fn as_c_str(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.bytes).unwrap_or_default()
    }
}

impl<'a> Channels<'a> {
    /// The event channels of the host with this table and directory (absolute, without zero bytes).
    pub fn new(table: &'a Table, dir: &'a Path) -> Channels<'a> {
        Channels { table, dir: dir.as_os_str().as_bytes() }
    }

    /// As `new`, with the directory as bytes.
    pub fn with_dir(table: &'a Table, dir: &'a [u8]) -> Channels<'a> {
        Channels { table, dir }
    }

    /// Opens the device. The descriptor is close-on-exec, and non-blocking if so wished.
    pub fn open(&self, lock: &Lock, nonblocking: bool) -> io::Result<sys::Fd> {
        self.take_back(lock)?;
        let free = |slot: &usize| self.table.handles[*slot].inode.load(Ordering::Relaxed) == 0;
        let slot = (0..HANDLES).find(free).ok_or_else(|| io::Error::from_raw_os_error(libc::ENFILE))?;
        let path = FifoPath::new(self.dir, slot)?;
        match sys::mkfifo(path.as_c_str()) {
            // One that is left over from a process that is gone; it may hold what that did not read, and others may
            // have kept it open.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                // SAFETY: a C string.
                unsafe { libc::unlink(path.as_c_str().as_ptr()) };
                sys::mkfifo(path.as_c_str())?;
            }
            result => result?,
        }
        // For reading and writing: so opening it does not wait, and reading it never sees an end.
        let flags = if nonblocking { libc::O_NONBLOCK } else { 0 };
        let fifo = sys::open(path.as_c_str(), libc::O_RDWR | flags)?;
        let inode = sys::fstat(fifo.as_raw_fd())?.st_ino;
        self.table.handles[slot].inode.store(inode, Ordering::Release);
        Ok(fifo)
    }

    /// Binds a new port.
    pub fn bind(&self, slot: usize, binding: Binding) -> io::Result<u32> {
        let invalid = || io::Error::from_raw_os_error(libc::EINVAL);
        let virq = match binding {
            Binding::Virq(virq) => Some(self.table.virq_ports.get(virq as usize).ok_or_else(invalid)?),
            Binding::Interdomain | Binding::Unbound => None,
        };
        if let Some(virq) = virq {
            // Bound by someone who is still there?
            let bound = virq.load(Ordering::Acquire);
            if bound != 0 && self.owner(bound).is_some_and(|owner| self.is_alive(owner)) {
                return Err(io::Error::from_raw_os_error(libc::EEXIST));
            }
        }
        let word = USED | ((slot as u64) << SLOT_SHIFT) | if virq.is_some() { IS_VIRQ } else { 0 };
        let start = self.table.next_port.load(Ordering::Relaxed) as usize;
        for port in (start..PORTS).chain(1..start) {
            let taken = self.table.ports[port].compare_exchange(0, word, Ordering::AcqRel, Ordering::Relaxed);
            if taken.is_ok() {
                let next = if port + 1 < PORTS { port + 1 } else { 1 };
                self.table.next_port.store(next as u32, Ordering::Relaxed);
                if let Some(virq) = virq {
                    virq.store(port as u32, Ordering::Release);
                }
                return Ok(port as u32);
            }
        }
        Err(io::Error::from_raw_os_error(libc::ENOSPC))
    }

    /// Gives a port back.
    pub fn unbind(&self, slot: usize, port: u32) -> io::Result<()> {
        if self.owner(port) != Some(slot) {
            return Err(io::Error::from_raw_os_error(libc::ENOTCONN));
        }
        for virq in &self.table.virq_ports {
            let _ = virq.compare_exchange(port, 0, Ordering::AcqRel, Ordering::Relaxed);
        }
        self.table.ports[port as usize].store(0, Ordering::Release);
        Ok(())
    }

    /// Whether the port may be notified: there is no guest, so that is all there is to it.
    pub fn notify(&self, slot: usize, port: u32) -> io::Result<()> {
        if self.owner(port) == Some(slot) { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::ENOTCONN)) }
    }

    /// Raises a virtual interrupt. False if nobody has bound it.
    pub fn raise(&self, virq: u32) -> io::Result<bool> {
        self.finish_delivery(virq)?;
        match self.virq_port(virq) {
            0 => Ok(false),
            port => self.deliver(port),
        }
    }

    fn deliver(&self, port: u32) -> io::Result<bool> {
        let Some(word) = self.table.ports.get(port as usize) else { return Ok(false) };
        let next = |word: u64| match word {
            _ if word & USED == 0 => None,
            _ if word & MASKED != 0 => Some(word | PENDING),
            _ => Some(written_by_us(word) | MASKED),
        };
        match word.fetch_update(Ordering::AcqRel, Ordering::Acquire, next) {
            Err(_) => Ok(false),
            Ok(before) if before & MASKED != 0 => Ok(true),
            Ok(before) => self.write_and_say_so(slot(before), port),
        }
    }

    fn write_and_say_so(&self, slot: usize, port: u32) -> io::Result<bool> {
        let written = self.write(slot, port);
        // Its owner may have seen to it meanwhile, and somebody else be about to write the next.
        let ours = |word| (word == written_by_us(word)).then_some(word & !(WRITING | WRITER_MASK));
        let _ = self.table.ports[port as usize].fetch_update(Ordering::AcqRel, Ordering::Acquire, ours);
        written
    }

    fn write(&self, slot: usize, port: u32) -> io::Result<bool> {
        let path = FifoPath::new(self.dir, slot)?;
        match sys::open(path.as_c_str(), libc::O_WRONLY | libc::O_NONBLOCK) {
            Ok(fifo) => sys::write(&fifo, &port.to_ne_bytes()).map(|()| true),
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENXIO | libc::ENOENT)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Waits until nobody is in the middle of delivering a virtual interrupt, while he lives. For who has died there it is
    /// delivered.
    pub fn finish_delivery(&self, virq: u32) -> io::Result<()> {
        let port = self.virq_port(virq);
        let Some(word) = self.table.ports.get(port as usize) else { return Ok(()) };
        let mut begin = None;
        loop {
            let now = word.load(Ordering::Acquire);
            if now & WRITING == 0 {
                return Ok(());
            }
            let never = sys::has_ended(writer(now)) || begin.get_or_insert_with(Instant::now).elapsed() > NEVER_AFTER;
            if never && word.compare_exchange(now, written_by_us(now), Ordering::AcqRel, Ordering::Acquire).is_ok() {
                return self.write_and_say_so(slot(now), port).map(|_| ());
            }
            std::thread::sleep(Duration::from_micros(50));
        }
    }

    /// 0 if nobody has bound it.
    fn virq_port(&self, virq: u32) -> u32 {
        self.table.virq_ports.get(virq as usize).map_or(0, |port| port.load(Ordering::Acquire))
    }

    /// Lets a port deliver again; what has come since is delivered now. One that the caller hasn't bound, or no longer, is
    /// left out: the device doesn't say so either. A xenstored that has replaced itself may still read the number of a port
    /// that the one before has given back.
    pub fn unmask(&self, slot: usize, port: u32) -> io::Result<()> {
        if self.owner(port) != Some(slot) {
            return Ok(());
        }
        let before =
            self.table.ports[port as usize].fetch_and(!(MASKED | PENDING | WRITING | WRITER_MASK), Ordering::AcqRel);
        if before & PENDING != 0 {
            self.deliver(port)?;
        }
        Ok(())
    }

    /// Whether all that was raised of a virtual interrupt has been taken note of and dealt with by its owner, who
    /// unmasks the port when it is done. True, too, if it has no owner.
    pub fn is_settled(&self, virq: u32) -> bool {
        self.table.ports.get(self.virq_port(virq) as usize).is_none_or(|word| {
            let word = word.load(Ordering::Acquire);
            word & USED == 0 || word & (MASKED | PENDING) == 0
        })
    }

    /// Whether somebody has bound the virtual interrupt and lives.
    pub fn is_bound(&self, virq: u32) -> bool {
        self.owner(self.virq_port(virq)).is_some_and(|slot| self.is_alive(slot))
    }

    fn owner(&self, port: u32) -> Option<usize> {
        let word = self.table.ports.get(port as usize)?.load(Ordering::Acquire);
        (word & USED != 0).then(|| slot(word))
    }

    fn is_alive(&self, slot: usize) -> bool {
        self.table.handles.get(slot).is_some_and(|handle| handle.inode.load(Ordering::Acquire) != 0)
            && FifoPath::new(self.dir, slot)
                .is_ok_and(|path| sys::open(path.as_c_str(), libc::O_WRONLY | libc::O_NONBLOCK).is_ok())
    }

    /// Takes back the slots and the ports of processes that are gone.
    pub fn take_back(&self, _lock: &Lock) -> io::Result<()> {
        for (slot, handle) in self.table.handles.iter().enumerate() {
            if handle.inode.load(Ordering::Acquire) == 0 || self.is_alive(slot) {
                continue;
            }
            for (port, word) in self.table.ports.iter().enumerate() {
                let value = word.load(Ordering::Acquire);
                if value & USED == 0 || value & SLOT_MASK != (slot as u64) << SLOT_SHIFT {
                    continue;
                }
                for virq in &self.table.virq_ports {
                    let _ = virq.compare_exchange(port as u32, 0, Ordering::AcqRel, Ordering::Relaxed);
                }
                word.store(0, Ordering::Release);
            }
            handle.inode.store(0, Ordering::Release);
        }
        Ok(())
    }
}

/// The word of a port whose number this process is about to write.
fn written_by_us(word: u64) -> u64 {
    word & !WRITER_MASK | WRITING | (u64::from(std::process::id()) << WRITER_SHIFT)
}

/// The process that is about to, or was.
fn writer(word: u64) -> libc::pid_t {
    // A process's number is positive and has come from one.
    ((word & WRITER_MASK) >> WRITER_SHIFT) as libc::pid_t
}

fn slot(word: u64) -> usize {
    ((word & SLOT_MASK) >> SLOT_SHIFT) as usize
}

const _: () = assert!((VIRQ_DOM_EXC as usize) < VIRQS && HANDLES <= 1 << 16);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::Device;
    use crate::table::tests::Fixture;
    use std::fs::File;
    use std::io::Read;

    /// The ports that have come in.
    fn ports(fifo: &sys::Fd) -> Vec<u32> {
        let mut bytes = [0; 64];
        let mut file = File::from(fifo.try_clone().unwrap());
        match file.read(&mut bytes) {
            Ok(length) => {
                bytes[..length].chunks_exact(4).map(|port| u32::from_ne_bytes(port.try_into().unwrap())).collect()
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Vec::new(),
            Err(error) => panic!("{error}"),
        }
    }

    fn open(fixture: &Fixture, channels: &Channels) -> (sys::Fd, usize) {
        let fifo = channels.open(&fixture.lock(), true).unwrap();
        match fixture.table.device_of(fifo.as_raw_fd()) {
            Some(Device::Evtchn(slot)) => (fifo, slot),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_burst_is_one_delivery_and_one_more_after_the_unmask() {
        let fixture = Fixture::new();
        let channels = Channels::new(&fixture.table, fixture.dir());
        assert!(!channels.raise(VIRQ_DOM_EXC).unwrap());
        let (fifo, slot) = open(&fixture, &channels);
        let port = channels.bind(slot, Binding::Virq(VIRQ_DOM_EXC)).unwrap();
        assert!(channels.is_settled(VIRQ_DOM_EXC));
        for _ in 0..5 {
            assert!(channels.raise(VIRQ_DOM_EXC).unwrap());
        }
        assert_eq!(ports(&fifo), [port]);
        assert!(!channels.is_settled(VIRQ_DOM_EXC));
        channels.unmask(slot, port).unwrap();
        assert!(!channels.is_settled(VIRQ_DOM_EXC));
        assert_eq!(ports(&fifo), [port]);
        channels.unmask(slot, port).unwrap();
        assert!(channels.is_settled(VIRQ_DOM_EXC));
        assert_eq!(ports(&fifo), []);
    }

    #[test]
    fn what_somebody_had_begun_to_deliver_when_he_died_is_delivered() {
        let fixture = Fixture::new();
        let channels = Channels::new(&fixture.table, fixture.dir());
        let (fifo, slot) = open(&fixture, &channels);
        let port = channels.bind(slot, Binding::Virq(VIRQ_DOM_EXC)).unwrap();
        let mut dead = std::process::Command::new("true").spawn().unwrap();
        dead.wait().unwrap();
        let begin = |pid: u32| {
            let word = MASKED | WRITING | (u64::from(pid) << WRITER_SHIFT);
            fixture.table.ports[port as usize].fetch_or(word, Ordering::AcqRel);
        };
        let begin_and_die = || begin(dead.id());
        let deliveries = || {
            let mut count = 0;
            while !channels.is_settled(VIRQ_DOM_EXC) {
                assert_eq!(ports(&fifo), [port]);
                channels.unmask(slot, port).unwrap();
                count += 1;
            }
            assert_eq!(ports(&fifo), []);
            count
        };
        begin_and_die();
        assert_eq!(ports(&fifo), []);
        channels.finish_delivery(VIRQ_DOM_EXC).unwrap();
        channels.finish_delivery(VIRQ_DOM_EXC).unwrap();
        assert_eq!(deliveries(), 1);
        begin_and_die();
        assert!(channels.raise(VIRQ_DOM_EXC).unwrap());
        assert_eq!(deliveries(), 2, "his, and the one that was raised");
        // Several that wait for one who has died write it once.
        begin_and_die();
        std::thread::scope(|scope| {
            let waits = || channels.finish_delivery(VIRQ_DOM_EXC).unwrap();
            (0..4).for_each(|_| drop(scope.spawn(waits)));
        });
        assert_eq!(deliveries(), 1);
        // One that has ended and hasn't been reaped is dead too.
        let mut unreaped = std::process::Command::new("true").spawn().unwrap();
        begin(unreaped.id());
        channels.finish_delivery(VIRQ_DOM_EXC).unwrap();
        assert_eq!(deliveries(), 1);
        unreaped.wait().unwrap();
    }

    #[test]
    fn who_lives_is_waited_for_and_nobody_writes_in_his_place() {
        let fixture = Fixture::new();
        let channels = Channels::new(&fixture.table, fixture.dir());
        let (fifo, slot) = open(&fixture, &channels);
        let port = channels.bind(slot, Binding::Virq(VIRQ_DOM_EXC)).unwrap();
        let word = &fixture.table.ports[port as usize];
        word.fetch_or(MASKED | WRITING | (u64::from(std::process::id()) << WRITER_SHIFT), Ordering::AcqRel);
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| channels.finish_delivery(VIRQ_DOM_EXC).unwrap());
            // Longer than it takes; of one that would write after some time nothing is known.
            std::thread::sleep(Duration::from_millis(300));
            assert!(!waits.is_finished());
            assert_eq!(ports(&fifo), []);
            channels.write_and_say_so(slot, port).unwrap();
            waits.join().unwrap();
        });
        assert_eq!(ports(&fifo), [port]);
        channels.unmask(slot, port).unwrap();
        assert!(channels.is_settled(VIRQ_DOM_EXC));
    }

    #[test]
    fn a_virtual_interrupt_has_one_owner_while_that_lives() {
        let fixture = Fixture::new();
        let channels = Channels::new(&fixture.table, fixture.dir());
        let (first, first_slot) = open(&fixture, &channels);
        let (second, second_slot) = open(&fixture, &channels);
        assert_ne!(first_slot, second_slot);
        channels.bind(first_slot, Binding::Virq(VIRQ_DOM_EXC)).unwrap();
        let refused = channels.bind(second_slot, Binding::Virq(VIRQ_DOM_EXC)).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EEXIST));
        drop(first);
        assert!(!channels.raise(VIRQ_DOM_EXC).unwrap());
        let port = channels.bind(second_slot, Binding::Virq(VIRQ_DOM_EXC)).unwrap();
        assert!(channels.raise(VIRQ_DOM_EXC).unwrap());
        assert_eq!(ports(&second), [port]);
        assert!(channels.bind(second_slot, Binding::Virq(1000)).is_err());
    }

    #[test]
    fn slots_and_ports_of_the_dead_are_taken_back() {
        let fixture = Fixture::new();
        let channels = Channels::new(&fixture.table, fixture.dir());
        let held: Vec<_> = (0..HANDLES).map(|_| open(&fixture, &channels)).collect();
        let full = channels.open(&fixture.lock(), true).unwrap_err();
        assert_eq!(full.raw_os_error(), Some(libc::ENFILE));
        let port = channels.bind(held[0].1, Binding::Unbound).unwrap();
        drop(held);
        let (_fifo, slot) = open(&fixture, &channels);
        assert!(channels.notify(slot, port).is_err());
        assert_eq!(fixture.table.ports[port as usize].load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_port_belongs_to_who_bound_it() {
        let fixture = Fixture::new();
        let channels = Channels::new(&fixture.table, fixture.dir());
        let (_first, first_slot) = open(&fixture, &channels);
        let (_second, second_slot) = open(&fixture, &channels);
        let port = channels.bind(first_slot, Binding::Interdomain).unwrap();
        assert!(channels.notify(second_slot, port).is_err());
        // Asked by another, nothing happens, and nothing is said.
        let virq = channels.bind(first_slot, Binding::Virq(VIRQ_DOM_EXC)).unwrap();
        assert!(channels.raise(VIRQ_DOM_EXC).unwrap());
        channels.unmask(second_slot, virq).unwrap();
        channels.unmask(second_slot, u32::MAX).unwrap();
        assert!(!channels.is_settled(VIRQ_DOM_EXC));
        assert!(channels.unbind(second_slot, port).is_err());
        channels.notify(first_slot, port).unwrap();
        channels.unbind(first_slot, port).unwrap();
        assert!(channels.notify(first_slot, port).is_err());
        assert!(channels.notify(first_slot, u32::MAX).is_err());
    }
}
