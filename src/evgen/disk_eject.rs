// SPDX-License-Identifier: LGPL-2.1-or-later
//! The generators of DISK_EJECT of a context, and the rule by which they speak.
//!
//! A guest that opens the tray of a virtual CD drive writes `eject` into a node of the drive's. Whoever takes notice
//! empties the node, which is the acknowledgement. So a context watches each drive once, whatever number of generators it
//! has for it, and tells them all of one ejection. (Of two contexts, or two processes, one tells: the node is the only
//! sign that there is.)
//!
//! ```text
//!            `eject`, acknowledged: told
//!         ┌──────────────────────────────┐
//!         └▶          Nothing ◀──────────┘
//!            │           ▲
//!            │ `eject`,  │ acknowledged at last, or
//!            │ can't be  │ the node says something else
//!            │ acknow-   │
//!            │ ledged:   │
//!            ▼ told      │
//!             Unacknowledged ── `eject`, still can't be acknowledged: not told again
//! ```
//!
//! So an ejection is told once, and is told also if it can't be acknowledged.
//!
//! Looking at a drive means waiting for xenstored, which is done elsewhere. [`Drives`] keeps the books: one look at a
//! time for each drive, so that one ejection isn't found twice, and another after it if the watch has fired meanwhile.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Recipient;
use super::vbd::{Backend, Frontend, c_value};

/// The value of the node by which a guest says so.
const EJECT: &[u8] = b"eject";

/// Whether a value of the node says that the guest has ejected the medium.
pub fn says_eject(value: &[u8]) -> bool {
    c_value(value) == EJECT
}

/// Names a generator. Serial numbers run backwards, so that a drive's generators come newest first, and are never used
/// twice in a process: a stale handle, or one of another context's, finds nothing. The upper 16 bits are those that no
/// handle of a death generator has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key(u64);

impl Key {
    fn new() -> Self {
        // Not from 0: a handle of all ones would pass for an error in some programs.
        static NEXT_SERIAL: AtomicU64 = AtomicU64::new(1);
        Key(u64::MAX - (NEXT_SERIAL.fetch_add(1, Ordering::Relaxed) & (u64::MAX >> 16)))
    }
}

// A handle is a key that has crossed the C boundary as a pointer, and may come back as anything.
impl From<u64> for Key {
    fn from(value: u64) -> Self {
        Key(value)
    }
}

impl From<Key> for u64 {
    fn from(key: Key) -> Self {
        key.0
    }
}

/// A generator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskEject {
    /// The guest, also where its disk is a stub domain's device.
    pub domid: u32,
    /// The owner's own value.
    pub user: u64,
    /// Who the owner is.
    pub recipient: Recipient,
    /// The disk's name as the owner gave it.
    pub vdev: CString,
    /// The disk's name in xenstore when the generator was made, if it was there.
    pub dev: Option<CString>,
    /// The serial of its last event, where that was queued. While nobody has fetched it, there is no other: a guest can
    /// eject as often as it likes, and must not fill its toolstack's memory. Nothing is lost by that, who fetches the one
    /// learns that the drive is empty.
    pub unread: Option<u64>,
}

/// Names a watched drive. Never used twice in a context.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DriveId(pub u64);

/// What a look at a drive has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// The node doesn't say `eject`, or isn't there.
    NoEjection,
    /// It does.
    Ejection {
        /// `None` if the drive has none: then it is being removed, and nobody is told.
        backend: Option<Backend>,
        /// Whether the node could be emptied.
        acknowledged: bool,
    },
    /// There was no finding out.
    Unknown,
}

/// What has been dealt with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Known {
    #[default]
    Nothing,
    /// The node says `eject`; nobody is to be told of that again.
    Unacknowledged,
}

/// Where a drive stands with looks at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Look {
    #[default]
    None,
    /// One will begin: further firings ask for no more than that.
    Due,
    /// One is being taken.
    Underway,
    /// One is being taken, and the watch has fired since it began.
    UnderwayAndDue,
}

#[derive(Debug)]
struct Drive {
    frontend: Frontend,
    generators: BTreeMap<Key, DiskEject>,
    known: Known,
    look: Look,
    /// The last look has failed.
    failing: bool,
    /// There is a time set for the next try.
    retry: bool,
}

/// The end of a look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Looked {
    /// The watch has fired since it began: another has to be asked for, soon.
    pub again: bool,
    /// It has failed, and the one before had not.
    pub newly_failed: bool,
}

/// All watched drives of one context, and their generators.
#[derive(Debug, Default)]
pub struct Drives {
    drives: BTreeMap<DriveId, Drive>,
    by_frontend: BTreeMap<Frontend, DriveId>,
    by_key: BTreeMap<Key, DriveId>,
    next: u64,
}

impl Drives {
    /// Nobody wants to know anything.
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    /// Adds a generator; its name, and the drive if this is its first: then a watch has to be set.
    pub fn insert(&mut self, frontend: Frontend, generator: DiskEject) -> (Key, Option<DriveId>) {
        let key = Key::new();
        let next = DriveId(self.next);
        let id = *self.by_frontend.entry(frontend).or_insert(next);
        let drive = self.drives.entry(id).or_insert_with(|| Drive {
            frontend,
            generators: BTreeMap::new(),
            known: Known::default(),
            look: Look::default(),
            failing: false,
            retry: false,
        });
        drive.generators.insert(key, generator);
        self.by_key.insert(key, id);
        if id == next {
            self.next += 1;
        }
        (key, (id == next).then_some(id))
    }

    /// Removes a generator: `None` if there is none of this name; else the drive if it was its last, whose watch has to be
    /// taken away.
    pub fn remove(&mut self, key: Key) -> Option<Option<(DriveId, Frontend)>> {
        let id = self.by_key.remove(&key)?;
        let drive = self.drives.get_mut(&id)?;
        drive.generators.remove(&key);
        if !drive.generators.is_empty() {
            return Some(None);
        }
        let frontend = drive.frontend;
        self.drives.remove(&id);
        self.by_frontend.remove(&frontend);
        Some(Some((id, frontend)))
    }

    /// Removes all generators of a recipient's; the drives whose watches have to be taken away.
    pub fn remove_all_of(&mut self, recipient: Recipient) -> Vec<(DriveId, Frontend)> {
        let all = self.drives.values().flat_map(|drive| &drive.generators);
        let keys: Vec<Key> = all.filter(|(_, it)| it.recipient == recipient).map(|(key, _)| *key).collect();
        keys.into_iter().filter_map(|key| self.remove(key)?).collect()
    }

    /// How many generators there are.
    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    /// How many drives they watch.
    pub fn watched_count(&self) -> usize {
        self.drives.len()
    }

    /// The drives that are watched.
    pub fn watched(&self) -> impl Iterator<Item = (DriveId, Frontend)> + '_ {
        self.drives.iter().map(|(id, drive)| (*id, drive.frontend))
    }

    /// Whether a drive is watched.
    pub fn contains(&self, id: DriveId) -> bool {
        self.drives.contains_key(&id)
    }

    /// A drive has to be looked at; whether the caller has to see to it, since nobody else does.
    pub fn ask(&mut self, id: DriveId) -> bool {
        let Some(drive) = self.drives.get_mut(&id) else { return false };
        let (look, new) = match drive.look {
            Look::None => (Look::Due, true),
            Look::Due => (Look::Due, false),
            Look::Underway | Look::UnderwayAndDue => (Look::UnderwayAndDue, false),
        };
        drive.look = look;
        new
    }

    /// Whether a time has to be set for another look at a drive: not if there is one.
    pub fn plan_retry(&mut self, id: DriveId) -> bool {
        self.drives.get_mut(&id).is_some_and(|drive| !std::mem::replace(&mut drive.retry, true))
    }

    /// That time has come: as [`Drives::ask`].
    pub fn retry(&mut self, id: DriveId) -> bool {
        if let Some(drive) = self.drives.get_mut(&id) {
            drive.retry = false;
        }
        self.ask(id)
    }

    /// A look begins, by whoever was told to see to it; `None` if the drive is no longer watched.
    pub fn begin(&mut self, id: DriveId) -> Option<Frontend> {
        let drive = self.drives.get_mut(&id)?;
        drive.look = Look::Underway;
        Some(drive.frontend)
    }

    /// A look has ended: tells the drive's generators, newest first, if there is something to tell.
    pub fn end(&mut self, id: DriveId, seen: Seen, tell: &mut dyn FnMut(Key, &DiskEject, Backend)) -> Option<Looked> {
        let drive = self.drives.get_mut(&id)?;
        let again = drive.look == Look::UnderwayAndDue;
        drive.look = Look::None;

        let failed = matches!(seen, Seen::Unknown | Seen::Ejection { acknowledged: false, .. });
        let newly_failed = failed && !drive.failing;
        drive.failing = failed;

        let (known, told) = match (drive.known, seen) {
            (known, Seen::Unknown) => (known, None),
            (_, Seen::NoEjection) => (Known::Nothing, None),
            (Known::Nothing, Seen::Ejection { backend, acknowledged: true }) => (Known::Nothing, backend),
            (Known::Nothing, Seen::Ejection { backend, acknowledged: false }) => (Known::Unacknowledged, backend),
            (Known::Unacknowledged, Seen::Ejection { acknowledged: true, .. }) => (Known::Nothing, None),
            (Known::Unacknowledged, Seen::Ejection { acknowledged: false, .. }) => (Known::Unacknowledged, None),
        };
        drive.known = known;
        if let Some(backend) = told {
            drive.generators.iter().for_each(|(key, generator)| tell(*key, generator, backend));
        }
        Some(Looked { again, newly_failed })
    }

    /// A generator's event was queued with this serial.
    pub fn note_unread(&mut self, key: Key, serial: Option<u64>) {
        let drive = self.by_key.get(&key).and_then(|id| self.drives.get_mut(id));
        if let Some(generator) = drive.and_then(|drive| drive.generators.get_mut(&key)) {
            generator.unread = serial;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::vbd::BackendKind;
    use super::*;

    const DRIVE: Frontend = Frontend { domid: 5, devid: 5632 };
    const OTHER: Frontend = Frontend { domid: 6, devid: 5632 };
    const BACKEND: Backend = Backend { domid: 0, kind: BackendKind::Qdisk };

    const ACKNOWLEDGED: Seen = Seen::Ejection { backend: Some(BACKEND), acknowledged: true };
    const UNACKNOWLEDGED: Seen = Seen::Ejection { backend: Some(BACKEND), acknowledged: false };

    fn generator(user: u64) -> DiskEject {
        DiskEject { domid: 5, user, recipient: Recipient::OWN, vdev: c"hdc".into(), dev: None, unread: None }
    }

    /// One drive with one generator.
    fn watched() -> (Drives, DriveId, Key) {
        let mut drives = Drives::default();
        let (key, id) = drives.insert(DRIVE, generator(1));
        (drives, id.unwrap(), key)
    }

    /// A whole look; the users that were told.
    fn look(drives: &mut Drives, id: DriveId, seen: Seen) -> Vec<u64> {
        assert!(drives.ask(id));
        assert!(drives.begin(id).is_some());
        let mut told = Vec::new();
        let looked = drives.end(id, seen, &mut |_, generator, _| told.push(generator.user)).unwrap();
        assert!(!looked.again);
        told
    }

    #[test]
    fn only_the_word_itself_is_an_ejection() {
        assert!(says_eject(b"eject"));
        assert!(says_eject(b"eject\0"), "guests that write the zero byte too");
        for value in [&b""[..], b"ejec", b"ejected", b"eject ", b" eject", b"Eject", b"eject\n", b"\0eject", b"\xff"] {
            assert!(!says_eject(value), "{value:?}");
        }
        assert!(!says_eject(&[b'e'; 4096]));
    }

    #[test]
    fn each_acknowledged_ejection_is_told_once() {
        let (mut drives, id, _) = watched();
        assert_eq!(look(&mut drives, id, Seen::NoEjection), []);
        assert_eq!(look(&mut drives, id, ACKNOWLEDGED), [1]);
        assert_eq!(look(&mut drives, id, Seen::NoEjection), []);
        assert_eq!(look(&mut drives, id, ACKNOWLEDGED), [1]);
        assert_eq!(look(&mut drives, id, ACKNOWLEDGED), [1]);
    }

    #[test]
    fn an_ejection_that_cannot_be_acknowledged_is_told_once() {
        let (mut drives, id, _) = watched();
        assert_eq!(look(&mut drives, id, UNACKNOWLEDGED), [1]);
        assert_eq!(look(&mut drives, id, UNACKNOWLEDGED), []);
        assert_eq!(look(&mut drives, id, Seen::Unknown), []);
        assert_eq!(look(&mut drives, id, ACKNOWLEDGED), []);
        assert_eq!(look(&mut drives, id, ACKNOWLEDGED), [1], "a new one is told");
        assert_eq!(look(&mut drives, id, UNACKNOWLEDGED), [1]);
        assert_eq!(look(&mut drives, id, Seen::NoEjection), []);
        assert_eq!(look(&mut drives, id, UNACKNOWLEDGED), [1], "so is one after the node was seen without");
    }

    #[test]
    fn an_ejection_without_a_backend_is_acknowledged_and_not_told() {
        let (mut drives, id, _) = watched();
        for acknowledged in [true, false] {
            assert_eq!(look(&mut drives, id, Seen::Ejection { backend: None, acknowledged }), []);
        }
    }

    #[test]
    fn a_failure_is_news_until_the_next_success() {
        let (mut drives, id, _) = watched();
        let mut newly_failed = |seen| {
            drives.ask(id);
            drives.begin(id);
            drives.end(id, seen, &mut |_, _, _| {}).unwrap().newly_failed
        };
        let looks = [Seen::Unknown, Seen::Unknown, UNACKNOWLEDGED, ACKNOWLEDGED, UNACKNOWLEDGED, Seen::Unknown];
        assert_eq!(looks.map(&mut newly_failed), [true, false, false, false, true, false]);
        assert_eq!([Seen::NoEjection, Seen::Unknown].map(newly_failed), [false, true]);
    }

    #[test]
    fn one_retry_at_a_time_is_planned() {
        let (mut drives, id, key) = watched();
        assert!(drives.plan_retry(id));
        assert!(!drives.plan_retry(id), "looks that fail in between don't add up to more and more of them");
        assert!(drives.retry(id));
        assert!(drives.plan_retry(id));
        drives.remove(key);
        assert!(!drives.retry(id) && !drives.plan_retry(id));
    }

    #[test]
    fn all_generators_of_a_drive_are_told_newest_first_and_share_a_watch() {
        let (mut drives, id, first) = watched();
        let (second, watch) = drives.insert(DRIVE, generator(2));
        assert_eq!(watch, None);
        let (_, other) = drives.insert(OTHER, generator(3));
        assert_eq!(drives.watched().collect::<Vec<_>>(), [(id, DRIVE), (other.unwrap(), OTHER)]);
        assert_eq!(look(&mut drives, id, ACKNOWLEDGED), [2, 1]);
        assert_eq!(drives.remove(first), Some(None));
        assert_eq!(look(&mut drives, id, ACKNOWLEDGED), [2]);
        assert_eq!(drives.remove(second), Some(Some((id, DRIVE))));
        assert!(!drives.contains(id) && !drives.is_empty());
    }

    #[test]
    fn a_recipient_is_removed_with_all_generators_and_the_drives_that_were_its_own_alone() {
        let (mut drives, id, _) = watched();
        let recipient = Recipient::subscriber(0).unwrap();
        for (frontend, user) in [(DRIVE, 2), (OTHER, 3), (OTHER, 4)] {
            drives.insert(frontend, DiskEject { recipient, ..generator(user) });
        }
        let other = drives.by_frontend[&OTHER];
        assert_eq!(drives.remove_all_of(recipient), [(other, OTHER)]);
        assert_eq!((drives.len(), drives.watched_count()), (1, 1));
        assert_eq!(look(&mut drives, id, ACKNOWLEDGED), [1]);
    }

    #[test]
    fn a_drive_that_is_watched_again_is_another() {
        let (mut drives, id, key) = watched();
        assert_eq!(look(&mut drives, id, UNACKNOWLEDGED), [1]);
        assert_eq!(drives.remove(key), Some(Some((id, DRIVE))));
        assert!(drives.is_empty());
        assert_eq!(drives.remove(key), None, "a stale handle");
        let (_, again) = drives.insert(DRIVE, generator(2));
        assert_ne!(again, Some(id), "what the old watch still fires must not be taken for the new one's");
        assert!(!drives.ask(id));
        assert_eq!(look(&mut drives, again.unwrap(), UNACKNOWLEDGED), [2]);
    }

    #[test]
    fn one_look_at_a_time_and_no_firing_is_lost() {
        let (mut drives, id, key) = watched();
        assert!(drives.ask(id));
        assert!(!drives.ask(id), "a burst is one look");
        assert_eq!(drives.begin(id), Some(DRIVE));
        assert!(!drives.ask(id), "nobody else looks meanwhile");
        let end = |drives: &mut Drives| drives.end(id, Seen::NoEjection, &mut |_, _, _| {});
        assert!(end(&mut drives).unwrap().again, "what the look may have missed is looked for");
        assert!(drives.retry(id));
        assert!(!drives.ask(id));
        assert_eq!(drives.begin(id), Some(DRIVE));
        assert!(!end(&mut drives).unwrap().again);
        assert!(drives.ask(id));
        assert_eq!(drives.begin(id), Some(DRIVE));
        drives.remove(key);
        assert_eq!(end(&mut drives), None, "disabled during the look");
    }

    #[test]
    fn a_key_is_none_of_a_death_generator_and_survives_the_boundary() {
        let (mut drives, _, key) = watched();
        assert_eq!(u64::from(key) >> 48, 0xffff);
        const { assert!(crate::xen::DOMID_LIMIT < 0xffff, "what stands there in the handle of a death generator") };
        assert_eq!(Key::from(u64::from(key)), key);
        assert_eq!(drives.remove(Key::from(0)), None);
    }
}
