// SPDX-License-Identifier: LGPL-2.1-or-later
//! The domains' records: what the hypervisor would know of each.
//!
//! Invariants:
//! - `state` is one word. Whoever reads it sees a domain as it was at one instant: shut down with its reason, never
//!   without.
//! - The rest of a record is written while `sequence` is odd, and read again if `sequence` has changed meanwhile.
//! - A domain's bit in `present` is set after its record is complete and cleared after the record says "gone"; the bit
//!   only says where to look, the record decides.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::time::Duration;

use crate::table::{FIRST_RESERVED_DOMID, Lock, NAME_MAX, Record, Table};

/// A domain's number: 0 to 32751.
pub type Domid = u16;

/// Why a domain shut down: 8 bits, of which Xen gives a meaning to the first few.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reason(pub u8);

impl Reason {
    /// The guest switched itself off.
    pub const POWEROFF: Reason = Reason(0);
    /// The guest wants to be started again.
    pub const REBOOT: Reason = Reason(1);
    /// The guest has suspended itself, to be saved, migrated or resumed.
    pub const SUSPEND: Reason = Reason(2);
    /// The guest crashed.
    pub const CRASH: Reason = Reason(3);
    /// The guest's watchdog expired.
    pub const WATCHDOG: Reason = Reason(4);
    /// The guest wants its state reset in place.
    pub const SOFT_RESET: Reason = Reason(5);

    const NAMES: [&'static str; 6] = ["poweroff", "reboot", "suspend", "crash", "watchdog", "soft_reset"];

    /// The reason with this name or number.
    pub fn parse(text: &str) -> Option<Reason> {
        match Reason::NAMES.iter().position(|name| *name == text) {
            Some(index) => u8::try_from(index).ok().map(Reason),
            None => text.parse().ok().map(Reason),
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Reason::NAMES.get(usize::from(self.0)) {
            Some(name) => f.write_str(name),
            None => write!(f, "{}", self.0),
        }
    }
}

/// What changes in a domain's life.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct State {
    /// The domain has been killed, but something still refers to it: it is listed, and will run no more.
    pub dying: bool,
    /// The domain has shut down, and why.
    pub shutdown: Option<Reason>,
    /// The toolstack has paused it.
    pub paused: bool,
    /// It is fully virtualised, not paravirtualised.
    pub hvm: bool,
    /// How often it has run again after a shutdown. Its processor time grows with it: [`Vitals::cpu_time`].
    pub resumed: u32,
}

const PRESENT: u64 = 1 << 0;
const DYING: u64 = 1 << 1;
const SHUTDOWN: u64 = 1 << 2;
const PAUSED: u64 = 1 << 3;
const HVM: u64 = 1 << 4;
const REASON_SHIFT: u32 = 8;
const RESUMED_SHIFT: u32 = 32;

impl State {
    fn pack(self) -> u64 {
        let bit = |set: bool, bit: u64| if set { bit } else { 0 };
        PRESENT
            | bit(self.dying, DYING)
            | bit(self.paused, PAUSED)
            | bit(self.hvm, HVM)
            | self.shutdown.map_or(0, |reason| SHUTDOWN | (u64::from(reason.0) << REASON_SHIFT))
            | (u64::from(self.resumed) << RESUMED_SHIFT)
    }

    fn unpack(word: u64) -> Option<State> {
        let reason = || Reason(((word >> REASON_SHIFT) & 0xff) as u8);
        (word & PRESENT != 0).then(|| State {
            dying: word & DYING != 0,
            shutdown: (word & SHUTDOWN != 0).then(reason),
            paused: word & PAUSED != 0,
            hvm: word & HVM != 0,
            resumed: (word >> RESUMED_SHIFT) as u32,
        })
    }
}

/// A domain's name, as bytes that end at the first zero.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Name([u8; NAME_MAX]);

impl Default for Name {
    /// None.
    fn default() -> Name {
        Name([0; NAME_MAX])
    }
}

impl Name {
    /// The name, or `None` if it is too long or has a zero byte.
    pub fn new(name: &str) -> Option<Name> {
        let mut bytes = [0; NAME_MAX];
        if name.contains('\0') {
            return None;
        }
        bytes.get_mut(..name.len())?.copy_from_slice(name.as_bytes());
        Some(Name(bytes))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        let length = self.0.iter().position(|byte| *byte == 0).unwrap_or(NAME_MAX);
        std::str::from_utf8(&self.0[..length]).unwrap_or("?")
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(f)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A domain as it was when it was looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Domain {
    /// Its number.
    pub domid: Domid,
    /// What it was doing.
    pub state: State,
    /// Its handle: the UUID that its toolstack gave it.
    pub handle: [u8; 16],
    /// How many virtual processors it has.
    pub vcpus: u32,
    /// How many pages of memory (4 KiB) it has.
    pub pages: u64,
    /// Its name, as far as the simulation knows it: the hypervisor knows none.
    pub name: Name,
}

/// What the hypervisor knows of a domain.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Vitals {
    /// Its number.
    pub domid: Domid,
    /// What it was doing.
    pub state: State,
    /// Its handle.
    pub handle: [u8; 16],
    /// How many virtual processors it has.
    pub vcpus: u32,
    /// How many pages of memory (4 KiB) it has.
    pub pages: u64,
    birth: u64,
}

/// Where the first domain's page lies that it shares with the hypervisor.
const FIRST_SHARED_FRAME: u64 = 0x10000;

impl Vitals {
    /// How long its processors have run: a millisecond for each time that it was let run, and some nanoseconds, which are no
    /// other domain's. It stands still while it is shut down, and has grown when it is so again.
    pub fn cpu_time(&self) -> Duration {
        Duration::from_millis(1 + u64::from(self.state.resumed)) + Duration::from_nanos(self.birth)
    }

    /// Where the page lies that it shares with the hypervisor: its own as long as it is there, and no other domain's after it.
    pub fn shared_frame(&self) -> u64 {
        FIRST_SHARED_FRAME + self.birth
    }
}

impl Record {
    fn domain(&self, domid: Domid) -> Option<Domain> {
        let (Vitals { domid, state, handle, vcpus, pages, birth: _ }, name) =
            self.read(|state| (self.vitals(domid, state), Name(bytes(&self.name))))?;
        Some(Domain { domid, state, handle, vcpus, pages, name })
    }

    fn vitals(&self, domid: Domid, state: State) -> Vitals {
        Vitals {
            domid,
            state,
            handle: bytes(&self.handle),
            vcpus: self.vcpus.load(Ordering::Relaxed),
            pages: self.pages.load(Ordering::Relaxed),
            birth: self.birth.load(Ordering::Relaxed),
        }
    }

    /// Reads it as it is at one moment, if there is such a domain.
    fn read<T>(&self, take: impl Fn(State) -> T) -> Option<T> {
        // A writer is quick, but may lose the processor in the middle. One that died there leaves an odd sequence; what it
        // left is then as good as it gets.
        const QUICK_TRIES: u32 = 1000;
        const TRIES: u32 = 3000;
        const PAUSE: Duration = Duration::from_micros(50);
        for attempt in 1..=TRIES {
            let before = self.sequence.load(Ordering::Acquire);
            let state = State::unpack(self.state.load(Ordering::Acquire))?;
            let taken = take(state);
            fence(Ordering::Acquire);
            if before % 2 == 0 && self.sequence.load(Ordering::Relaxed) == before || attempt == TRIES {
                return Some(taken);
            }
            if attempt < QUICK_TRIES {
                std::hint::spin_loop();
            } else {
                std::thread::sleep(PAUSE);
            }
        }
        None
    }

    fn write(&self, change: impl FnOnce(&Record)) {
        let before = self.sequence.load(Ordering::Relaxed) & !1;
        self.sequence.store(before.wrapping_add(1), Ordering::Relaxed);
        fence(Ordering::Release);
        change(self);
        self.sequence.store(before.wrapping_add(2), Ordering::Release);
    }
}

fn bytes<const WORDS: usize, const BYTES: usize>(words: &[AtomicU64; WORDS]) -> [u8; BYTES] {
    let mut bytes = [0; BYTES];
    for (chunk, word) in bytes.chunks_exact_mut(8).zip(words) {
        chunk.copy_from_slice(&word.load(Ordering::Relaxed).to_ne_bytes());
    }
    bytes
}

fn set_bytes(words: &[AtomicU64], bytes: &[u8]) {
    for (chunk, word) in bytes.chunks_exact(8).zip(words) {
        let mut value = [0; 8];
        value.copy_from_slice(chunk);
        word.store(u64::from_ne_bytes(value), Ordering::Relaxed);
    }
}

/// Why a domain could not be added.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AddError {
    /// The number that was asked for is not one that a domain may have.
    Invalid,
    /// A domain has that number.
    Exists,
    /// No number is free.
    Full,
}

impl AddError {
    /// The hypervisor's error number for it.
    pub fn errno(self) -> i32 {
        match self {
            AddError::Invalid => libc::EINVAL,
            AddError::Exists => libc::EEXIST,
            AddError::Full => libc::ENOMEM,
        }
    }
}

impl Table {
    /// The domain, if there is one with this number.
    pub fn domain(&self, domid: Domid) -> Option<Domain> {
        self.domains.get(usize::from(domid))?.domain(domid)
    }

    /// What the domain is doing, if there is one with this number.
    pub fn state(&self, domid: Domid) -> Option<State> {
        State::unpack(self.domains.get(usize::from(domid))?.state.load(Ordering::Acquire))
    }

    /// All domains from `first` on, by ascending number, each as it is when it is come to.
    pub fn domains_from(&self, first: u32) -> impl Iterator<Item = Domain> {
        self.each_from(first, Record::domain)
    }

    /// The same, as the hypervisor knows them: cheaper by their names.
    pub fn vitals_from(&self, first: u32) -> impl Iterator<Item = Vitals> {
        self.each_from(first, |record, domid| record.read(|state| record.vitals(domid, state)))
    }

    fn each_from<T>(&self, first: u32, read: impl Fn(&Record, Domid) -> Option<T>) -> impl Iterator<Item = T> {
        let mut next = first as usize;
        std::iter::from_fn(move || {
            while next < FIRST_RESERVED_DOMID {
                let word = self.present[next / 64].load(Ordering::Acquire) >> (next % 64);
                if word == 0 {
                    next = (next / 64 + 1) * 64;
                    continue;
                }
                let found = next + word.trailing_zeros() as usize;
                next = found + 1;
                // Below FIRST_RESERVED_DOMID, hence a Domid.
                if let Some(domain) = read(&self.domains[found], found as Domid) {
                    return Some(domain);
                }
            }
            None
        })
    }

    /// Adds a domain with the number `wanted`, or with the next free one: numbers count up and are not used again
    /// before they have all been used, as in Xen.
    pub fn add(&self, _lock: &Lock, wanted: Option<u32>, new: &Domain) -> Result<Domid, AddError> {
        let free = |domid: usize| self.domains[domid].state.load(Ordering::Acquire) & PRESENT == 0;
        let domid = match wanted {
            Some(wanted) if wanted as usize >= FIRST_RESERVED_DOMID => return Err(AddError::Invalid),
            Some(wanted) if !free(wanted as usize) => return Err(AddError::Exists),
            Some(wanted) => wanted as usize,
            None => {
                let start = self.next_domid.load(Ordering::Relaxed) as usize;
                // Never 0, which is the control domain's.
                let found = (start..FIRST_RESERVED_DOMID).chain(1..start).find(|domid| free(*domid));
                let found = found.ok_or(AddError::Full)?;
                let next = if found + 1 < FIRST_RESERVED_DOMID { found + 1 } else { 1 };
                self.next_domid.store(next as u32, Ordering::Relaxed);
                found
            }
        };
        let record = &self.domains[domid];
        let birth = self.births.fetch_add(1, Ordering::Relaxed);
        record.write(|record| {
            record.birth.store(birth, Ordering::Relaxed);
            set_bytes(&record.handle, &new.handle);
            record.vcpus.store(new.vcpus, Ordering::Relaxed);
            record.pages.store(new.pages, Ordering::Relaxed);
            set_bytes(&record.name, &new.name.0);
            record.state.store(new.state.pack(), Ordering::Release);
        });
        self.present[domid / 64].fetch_or(1 << (domid % 64), Ordering::Release);
        Ok(domid as Domid)
    }

    /// Takes a domain away: gone, its number free. False if there was none.
    pub fn remove(&self, _lock: &Lock, domid: Domid) -> bool {
        let Some(record) = self.domains.get(usize::from(domid)) else { return false };
        let was = record.state.swap(0, Ordering::AcqRel);
        self.present[usize::from(domid) / 64].fetch_and(!(1 << (domid % 64)), Ordering::Release);
        was & PRESENT != 0
    }

    /// Changes what a domain is doing, in one step. The state before, or `None` if there is no such domain or `change`
    /// declines.
    pub fn change(&self, domid: Domid, change: impl Fn(State) -> Option<State>) -> Option<State> {
        let record = self.domains.get(usize::from(domid))?;
        let changed = record.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, |word| {
            State::unpack(word).and_then(&change).map(State::pack)
        });
        changed.ok().and_then(State::unpack)
    }

    /// Gives a domain another handle. False if there is no such domain.
    pub fn set_handle(&self, _lock: &Lock, domid: Domid, handle: &[u8; 16]) -> bool {
        match self.domains.get(usize::from(domid)) {
            Some(record) if self.state(domid).is_some() => {
                record.write(|record| set_bytes(&record.handle, handle));
                true
            }
            _ => false,
        }
    }

    /// Sets what the simulation knows of a domain's size. False if there is no such domain.
    pub fn set_size(&self, _lock: &Lock, domid: Domid, vcpus: Option<u32>, pages: Option<u64>) -> bool {
        match self.domains.get(usize::from(domid)) {
            Some(record) if self.state(domid).is_some() => {
                record.write(|record| {
                    if let Some(vcpus) = vcpus {
                        record.vcpus.store(vcpus, Ordering::Relaxed);
                    }
                    if let Some(pages) = pages {
                        record.pages.store(pages, Ordering::Relaxed);
                    }
                });
                true
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::tests::Fixture;
    use std::sync::atomic::AtomicBool;
    use std::thread;

    fn guest(handle: u8) -> Domain {
        Domain {
            domid: 0,
            state: State::default(),
            handle: [handle; 16],
            vcpus: 1,
            pages: 16,
            name: Name::new("guest").unwrap(),
        }
    }

    #[test]
    fn a_state_survives_its_word() {
        for word in 0..32_u8 {
            for reason in [None, Some(Reason(0)), Some(Reason(255))] {
                let bit = |index: u8| word & (1 << index) != 0;
                let resumed = u32::from(word) * (u32::MAX / 31);
                let state = State { dying: bit(0), paused: bit(1), hvm: bit(2), shutdown: reason, resumed };
                assert_eq!(State::unpack(state.pack()), Some(state));
            }
        }
        assert_eq!(State::unpack(0), None);
    }

    #[test]
    fn names_have_a_longest_length() {
        assert_eq!(Name::new(&"x".repeat(NAME_MAX)).unwrap().as_str(), "x".repeat(NAME_MAX));
        assert_eq!(Name::new(&"x".repeat(NAME_MAX + 1)), None);
        assert_eq!(Name::new("a\0b"), None);
        assert_eq!(Name::default().as_str(), "");
    }

    #[test]
    fn reasons_have_names_and_numbers() {
        assert_eq!(Reason::parse("crash"), Some(Reason::CRASH));
        assert_eq!(Reason::parse("3"), Some(Reason::CRASH));
        assert_eq!(Reason::parse("255"), Some(Reason(255)));
        assert_eq!(Reason::parse("256"), None);
        assert_eq!(Reason::parse("tired"), None);
        assert_eq!((Reason(5).to_string(), Reason(6).to_string()), ("soft_reset".into(), "6".into()));
    }

    #[test]
    fn domains_are_found_in_order_from_any_number_on() {
        let fixture = Fixture::new();
        let table = &fixture.table;
        for domid in [0, 63, 64, 5000, 32751] {
            assert_eq!(table.add(&fixture.lock(), Some(domid), &guest(1)), Ok(domid as Domid));
        }
        assert_eq!(table.add(&fixture.lock(), Some(64), &guest(1)), Err(AddError::Exists));
        assert_eq!(table.add(&fixture.lock(), Some(32752), &guest(1)), Err(AddError::Invalid));
        assert_eq!(table.add(&fixture.lock(), Some(u32::MAX), &guest(1)), Err(AddError::Invalid));
        let from = |first| table.domains_from(first).map(|domain| domain.domid).collect::<Vec<_>>();
        assert_eq!(from(0), [0, 63, 64, 5000, 32751]);
        assert_eq!(from(64), [64, 5000, 32751]);
        assert_eq!(from(5001), [32751]);
        assert_eq!(from(32752), []);
        assert_eq!(from(u32::MAX), []);
        assert!(table.remove(&fixture.lock(), 64));
        assert!(!table.remove(&fixture.lock(), 64));
        assert_eq!(from(1), [63, 5000, 32751]);
    }

    #[test]
    fn a_change_that_declines_changes_nothing() {
        let fixture = Fixture::new();
        let domid = fixture.table.add(&fixture.lock(), None, &guest(1)).unwrap();
        assert_eq!(fixture.table.change(domid, |_| None), None);
        let paused = |state: State| Some(State { paused: true, ..state });
        assert_eq!(fixture.table.change(domid, paused), Some(State::default()));
        assert!(fixture.table.state(domid).unwrap().paused);
        assert_eq!(fixture.table.change(77, paused), None);
    }

    /// While one thread changes a domain and another its handle, a third never sees half a change.
    #[test]
    fn nobody_sees_half_a_change() {
        let fixture = Fixture::new();
        let table = &fixture.table;
        let domid = table.add(&fixture.lock(), None, &guest(1)).unwrap();
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                for round in 0..20_000_u32 {
                    let shutdown = (round % 2 == 0).then_some(Reason(7));
                    table.change(domid, |state| Some(State { shutdown, ..state }));
                }
                done.store(true, Ordering::Release);
            });
            scope.spawn(|| {
                let lock = fixture.lock();
                let mut value = 1;
                while !done.load(Ordering::Acquire) {
                    value = 3 - value;
                    assert!(table.set_handle(&lock, domid, &[value; 16]));
                }
            });
            while !done.load(Ordering::Acquire) {
                let domain = table.domain(domid).unwrap();
                assert!(domain.state.shutdown.is_none_or(|reason| reason == Reason(7)));
                assert!(domain.handle == [1; 16] || domain.handle == [2; 16], "{:?}", domain.handle);
            }
        });
    }
}
