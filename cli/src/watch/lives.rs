// SPDX-License-Identifier: LGPL-2.1-or-later
//! Whose name it is.
//!
//! A life is a domain from its creation to its death. Its number may be another's before or after it, its name may be changed, and
//! so may its UUID. So a name that was read for a number goes to the life that had the number and the UUID at that time.
//!
//! - A life has the last name that was read of it; that the node has gone doesn't take it away.
//! - A name with a UUID that no life of this number has is kept: either a new domain has the number, or this one has another
//!   UUID. The next event tells which.
//! - A dead life is kept until the line of its death is written.

use std::collections::HashMap;

use xlevent::event::Kind;

use super::names::{Holder, Reading};

/// Of a domain whose UUID could not be learnt.
pub const UNKNOWN: [u8; 16] = [0; 16];

/// Which life. Never given to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LifeId(u64);

#[derive(Debug)]
struct Life {
    domid: u32,
    uuid: [u8; 16],
    name: Option<Vec<u8>>,
    dead: bool,
}

/// All lives of which there is still something to write.
#[derive(Debug, Default)]
pub struct Lives {
    lives: HashMap<LifeId, Life>,
    /// The last one of each number.
    current: HashMap<u32, LifeId>,
    /// Names with a UUID that is not that of the number's life.
    unclaimed: HashMap<u32, ([u8; 16], Vec<u8>)>,
    next: u64,
}

impl Lives {
    /// A domain that was there at the beginning.
    pub fn found(&mut self, domid: u32, uuid: [u8; 16]) -> LifeId {
        let id = LifeId(self.next);
        self.next += 1;
        let name = self.unclaimed.remove(&domid).filter(|(of, _)| *of == uuid).map(|(_, name)| name);
        self.lives.insert(id, Life { domid, uuid, name, dead: false });
        self.current.insert(domid, id);
        id
    }

    /// Something has happened to the domain that has this number, or to the last one that had. Its life, and whether it begins
    /// with this.
    pub fn event(&mut self, domid: u32, uuid: [u8; 16], kind: Kind) -> (LifeId, bool) {
        let created = kind == Kind::DomainCreated;
        let current = self.current.get(&domid).copied();
        let current = current.and_then(|id| self.lives.get_mut(&id).map(|life| (id, life)));
        // One that was there at the beginning may be reported as created.
        let goes_on = |life: &Life| !life.dead && (!created || life.uuid == uuid);
        let Some((id, life)) = current.filter(|(_, life)| goes_on(life)) else {
            return (self.found(domid, uuid), created);
        };
        if uuid != UNKNOWN && life.uuid != uuid {
            life.uuid = uuid;
            if let Some((_, name)) = self.unclaimed.remove(&domid).filter(|(of, _)| *of == uuid) {
                life.name = Some(name);
            }
        }
        life.dead |= kind == Kind::DomainDeath;
        (id, false)
    }

    /// A name was read.
    pub fn learn(&mut self, reading: Reading) {
        let Reading { domid, of, name } = reading;
        let current = self.current.get(&domid).copied();
        let Some(Holder { uuid, dying }) = of else {
            // Nobody has the number, and the node is still there. It may be that of one that has come and gone meanwhile.
            if let Some(life) = current.and_then(|id| self.lives.get_mut(&id)).filter(|life| life.name.is_none()) {
                life.name = Some(name);
            }
            return;
        };
        // A dead one doesn't live.
        let is_its = |life: &Life| life.domid == domid && life.uuid == uuid && (dying || !life.dead);
        let is_theirs = |life: &Life| is_its(life) || (life.uuid == UNKNOWN && !life.dead);
        if let Some(life) = current.and_then(|id| self.lives.get_mut(&id)).filter(|life| is_theirs(life)) {
            life.uuid = uuid;
            life.name = Some(name);
            return;
        }
        match self.lives.values_mut().find(|life| life.dead && is_its(life)) {
            Some(life) => life.name = Some(name),
            None => drop(self.unclaimed.insert(domid, (uuid, name))),
        }
    }

    pub fn name(&self, id: LifeId) -> Option<&[u8]> {
        self.lives.get(&id)?.name.as_deref()
    }

    pub fn uuid(&self, id: LifeId) -> [u8; 16] {
        self.lives.get(&id).map_or(UNKNOWN, |life| life.uuid)
    }

    /// The life of a number that goes on.
    pub fn of(&self, domid: u32) -> Option<LifeId> {
        self.current.get(&domid).copied()
    }

    /// There is nothing more to write of it. True if no other life has its number.
    pub fn forget(&mut self, id: LifeId) -> bool {
        let Some(life) = self.lives.remove(&id) else { return false };
        let was_last = self.current.get(&life.domid) == Some(&id);
        if was_last {
            self.current.remove(&life.domid);
        }
        was_last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: [u8; 16] = [1; 16];
    const TWO: [u8; 16] = [2; 16];

    fn read(uuid: [u8; 16], name: &str) -> Reading {
        Reading { domid: 5, of: Some(Holder { uuid, dying: false }), name: name.into() }
    }

    fn dying(uuid: [u8; 16], name: &str) -> Reading {
        Reading { of: Some(Holder { uuid, dying: true }), ..read(uuid, name) }
    }

    fn gone(name: &str) -> Reading {
        Reading { of: None, ..read(UNKNOWN, name) }
    }

    /// Domain 5 with a name.
    fn one_called(name: &str) -> (Lives, LifeId) {
        let mut lives = Lives::default();
        let id = lives.found(5, ONE);
        lives.learn(read(ONE, name));
        (lives, id)
    }

    fn name(lives: &Lives, id: LifeId) -> Option<&str> {
        lives.name(id).map(|name| std::str::from_utf8(name).unwrap())
    }

    #[test]
    fn the_last_name_is_the_name() {
        let (mut lives, id) = one_called("web");
        lives.learn(read(ONE, "web--gone"));
        assert_eq!(lives.event(5, ONE, Kind::DomainDeath), (id, false));
        assert_eq!(name(&lives, id), Some("web--gone"));
        lives.learn(dying(ONE, "web--zombie"));
        assert_eq!(name(&lives, id), Some("web--zombie"));
        assert!(lives.forget(id));
        assert_eq!((name(&lives, id), lives.of(5)), (None, None));
    }

    #[test]
    fn the_next_one_with_its_number_leaves_it_its_name() {
        let (mut lives, old) = one_called("web");
        lives.learn(read(TWO, "other"));
        lives.event(5, ONE, Kind::DomainDeath);
        assert_eq!(name(&lives, old), Some("web"));
        let (new, begins) = lives.event(5, TWO, Kind::DomainCreated);
        assert!(begins && new != old);
        assert_eq!([name(&lives, old), name(&lives, new)], [Some("web"), Some("other")]);
        lives.learn(dying(ONE, "web--late"));
        assert_eq!([name(&lives, old), name(&lives, new)], [Some("web--late"), Some("other")]);
        assert!(!lives.forget(old), "the number is another's");
        assert_eq!(lives.of(5), Some(new));
    }

    #[test]
    fn one_that_lives_has_no_name_for_a_dead_one_of_the_same_uuid() {
        let (mut lives, old) = one_called("web");
        lives.event(5, ONE, Kind::DomainDeath);
        lives.learn(read(ONE, "other"));
        assert_eq!(name(&lives, old), Some("web"));
        let (new, begins) = lives.event(5, ONE, Kind::DomainCreated);
        assert!(begins);
        assert_eq!(name(&lives, new), Some("other"));
    }

    #[test]
    fn another_uuid_is_no_other_life() {
        let (mut lives, id) = one_called("web--incoming");
        lives.learn(read(TWO, "web"));
        assert_eq!(name(&lives, id), Some("web--incoming"), "it may be another's");
        assert_eq!(lives.event(5, TWO, Kind::DomainSuspended), (id, false));
        assert_eq!((name(&lives, id), lives.uuid(id)), (Some("web"), TWO));
        lives.learn(read(TWO, "web--2"));
        lives.event(5, UNKNOWN, Kind::DomainDeath);
        assert_eq!((name(&lives, id), lives.uuid(id)), (Some("web--2"), TWO));

        let (mut lives, id) = one_called("web--incoming");
        lives.learn(read(TWO, "web"));
        assert_eq!(lives.event(5, TWO, Kind::DomainDeath), (id, false));
        assert_eq!(name(&lives, id), Some("web"), "its death tells, too");
    }

    #[test]
    fn what_a_gone_domain_has_left_is_its_name_if_it_has_none() {
        let (mut lives, id) = one_called("web");
        lives.learn(gone("other"));
        assert_eq!(name(&lives, id), Some("web"));
        let mut lives = Lives::default();
        let (id, begins) = lives.event(5, ONE, Kind::DomainCreated);
        assert!(begins);
        lives.event(5, ONE, Kind::DomainDeath);
        lives.learn(gone("short"));
        assert_eq!(name(&lives, id), Some("short"));
        lives.learn(Reading { domid: 6, ..gone("nobody") });
    }

    #[test]
    fn one_that_was_there_at_the_beginning_is_not_created() {
        let (mut lives, id) = one_called("web");
        assert_eq!(lives.event(5, ONE, Kind::DomainCreated), (id, false));
        assert_eq!(name(&lives, id), Some("web"));
        let (other, begins) = lives.event(5, TWO, Kind::DomainCreated);
        assert!(begins && other != id);
        assert_eq!(name(&lives, other), None);
    }

    #[test]
    fn a_uuid_that_is_not_known_is_learnt_with_the_name() {
        let mut lives = Lives::default();
        let id = lives.found(5, UNKNOWN);
        lives.learn(read(ONE, "web"));
        assert_eq!((name(&lives, id), lives.uuid(id)), (Some("web"), ONE));
    }
}
