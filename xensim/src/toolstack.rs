// SPDX-License-Identifier: LGPL-2.1-or-later
//! What a toolstack, and the guests themselves, do to a host.
//!
//! Invariants:
//! - The order is a toolstack's: a domain exists before the store knows of it, and its nodes are removed before it
//!   goes.
//! - What happens to many domains in one call happens under one virtual interrupt, raised when all of it has happened.
//! - What was done in the store for a domain is noted in its record, so that a xenstored that is started anew can be
//!   told again.

use std::sync::atomic::Ordering;

use crate::daemon::note;
use crate::domains::{Domain, Domid, Name, Reason, State};
use crate::error::{Context, Error, Result};
use crate::evtchn::VIRQ_DOM_EXC;
use crate::grants;
use crate::host::Host;
use crate::inject::{Access, Call, Fault, Role};
use crate::store::{Request, Store, batch_on};
use crate::sys;

/// The port of a domain's that its store connection is to be bound to. There is no guest, so any does.
const STORE_PORT: u32 = 1;

/// How many connections are used for what concerns many domains.
const CONNECTIONS: usize = 16;
/// How many domains are worth a connection.
const SHARE_MIN: usize = 32;

/// Which nodes a new domain gets in the store.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(u32)]
pub enum Nodes {
    /// None: for a toolstack under test that writes its own.
    None = 0,
    /// Its name alone.
    Name = 1,
    /// What a toolstack writes for a guest without devices.
    #[default]
    All = 2,
}

/// The bits of a record's notes.
const NODES_MASK: u64 = 3;
const INTRODUCED: u64 = 1 << 2;

/// A domain that is to be created.
#[derive(Clone, Debug)]
pub struct Config {
    /// Its name; when many are created, each gets its number behind it.
    pub name: String,
    /// Its number, otherwise the next free one. Many get numbers from here on.
    pub domid: Option<Domid>,
    /// Its handle, otherwise a random UUID. One only when one domain is created.
    pub handle: Option<[u8; 16]>,
    /// How many virtual processors it has.
    pub vcpus: u32,
    /// How much memory it has.
    pub memory_mib: u64,
    /// Whether it is fully virtualised.
    pub hvm: bool,
    /// Whether it begins paused.
    pub paused: bool,
    /// Whether xenstored is told of it. One that it does not know of fires no watch.
    pub introduce: bool,
    /// Which nodes it gets.
    pub nodes: Nodes,
}

impl Config {
    /// An ordinary guest with this name.
    pub fn named(name: impl Into<String>) -> Config {
        Config {
            name: name.into(),
            domid: None,
            handle: None,
            vcpus: 1,
            memory_mib: 64,
            hvm: false,
            paused: false,
            introduce: true,
            nodes: Nodes::All,
        }
    }
}

/// What happens to domains.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change {
    /// The guest shuts down, for this reason.
    Shutdown(Reason),
    /// Somebody kills it; it stays listed, because something still refers to it.
    Dying,
    /// It shuts down and is killed before anybody can look.
    ShutdownAndDying(Reason),
    /// It runs again after a shutdown, as after a checkpoint.
    Resume,
    /// The toolstack pauses it.
    Pause,
    /// The toolstack lets it run.
    Unpause,
}

impl Change {
    /// The state after it; `None` if it cannot happen any more.
    pub fn apply(self, state: State) -> Option<State> {
        let down = |reason| state.shutdown.or(Some(reason));
        match self {
            // The hypervisor keeps the first reason, and the dead do not shut down.
            Change::Shutdown(reason) => {
                (!state.dying && state.shutdown.is_none()).then_some(State { shutdown: Some(reason), ..state })
            }
            Change::Dying => (!state.dying).then_some(State { dying: true, ..state }),
            Change::ShutdownAndDying(reason) => {
                (!state.dying).then_some(State { dying: true, shutdown: down(reason), ..state })
            }
            Change::Resume => (!state.dying && state.shutdown.is_some()).then_some(State {
                shutdown: None,
                resumed: state.resumed.wrapping_add(1),
                ..state
            }),
            Change::Pause => Some(State { paused: true, ..state }),
            Change::Unpause => Some(State { paused: false, ..state }),
        }
    }

    /// Whether the hypervisor raises VIRQ_DOM_EXC for it.
    pub fn is_noticed(self) -> bool {
        !matches!(self, Change::Resume | Change::Pause | Change::Unpause)
    }

    fn name(self) -> &'static str {
        match self {
            Change::Shutdown(_) => "shut down",
            Change::Dying => "kill",
            Change::ShutdownAndDying(_) => "shut down and kill",
            Change::Resume => "resume",
            Change::Pause => "pause",
            Change::Unpause => "unpause",
        }
    }
}

impl Host {
    /// Creates a domain. Its number.
    pub fn create(&self, config: &Config) -> Result<Domid> {
        let created = self.create_many(1, config)?;
        created.first().copied().ok_or_else(|| Error::other("create a domain", "none was created"))
    }

    /// Creates many domains. Their numbers, in order. All or none.
    ///
    /// If xenstored still has to deal with the end of earlier domains, that is waited for: a daemon that finds a number in
    /// use again before it has seen its last domain go takes the new one for the old. (Xen counts numbers up, so there it
    /// has all the time it needs.)
    pub fn create_many(&self, count: usize, config: &Config) -> Result<Vec<Domid>> {
        if self.daemon().pid().is_some() {
            self.settle()?;
        }
        let mut created: Vec<Domain> = Vec::with_capacity(count);
        let result = self.add_all(count, config, &mut created).and_then(|()| {
            for domain in &created {
                self.set_notes(domain.domid, config.nodes, config.introduce);
            }
            self.tell_store(&created)
        });
        if let Err(error) = result {
            let domids: Vec<Domid> = created.iter().map(|domain| domain.domid).collect();
            let _ = self.remove_domains(&domids);
            return Err(error.within(format_args!("create {count} of {:?}", config.name)));
        }
        Ok(created.iter().map(|domain| domain.domid).collect())
    }

    fn add_all(&self, count: usize, config: &Config, created: &mut Vec<Domain>) -> Result<()> {
        let grants_file = self.grants_file()?;
        let lock = self.lock()?;
        for index in 0..count {
            let wanted = config.domid.map(|first| u32::from(first) + index as u32);
            let handle = match config.handle {
                Some(handle) if count == 1 => handle,
                _ => random_uuid()?,
            };
            let name = if count == 1 { config.name.clone() } else { format!("{}{}", config.name, index + 1) };
            let name = Name::new(&name).ok_or_else(|| Error::errno(format!("name {name:?}"), libc::ENAMETOOLONG))?;
            let mut domain = Domain {
                domid: 0,
                state: State { paused: config.paused, hvm: config.hvm, ..State::default() },
                handle,
                vcpus: config.vcpus,
                pages: config.memory_mib.saturating_mul(256),
                name,
            };
            domain.domid = self.table().add(&lock, wanted, &domain).map_err(|error| {
                let domid = wanted.map_or_else(|| "any number".into(), |wanted| wanted.to_string());
                Error::errno(format!("domain {domid}"), error.errno())
            })?;
            created.push(domain);
            grants::clear(&grants_file, domain.domid.into()).context(|| "clear granted pages")?;
        }
        Ok(())
    }

    fn set_notes(&self, domid: Domid, nodes: Nodes, introduce: bool) {
        if let Some(record) = self.table().domains.get(usize::from(domid)) {
            let notes = nodes as u64 | if introduce { INTRODUCED } else { 0 };
            record.notes.store(notes, Ordering::Relaxed);
        }
    }

    fn notes(&self, domid: Domid) -> (Nodes, bool) {
        let record = self.table().domains.get(usize::from(domid));
        let notes = record.map_or(0, |record| record.notes.load(Ordering::Relaxed));
        let nodes = match notes & NODES_MASK {
            1 => Nodes::Name,
            2 => Nodes::All,
            _ => Nodes::None,
        };
        (nodes, notes & INTRODUCED != 0)
    }

    /// Writes the nodes of these domains, then introduces them, as their records note. (Nodes first: with thousands of
    /// domains introduced, every request costs the daemon a look at each.)
    fn tell_store(&self, domains: &[Domain]) -> Result<()> {
        self.batch(domains.iter().flat_map(|domain| self.node_requests(domain)))?;
        let introduced: Vec<&Domain> =
            domains.iter().filter(|domain| self.notes(domain.domid).1 && !domain.state.dying).collect();
        // Over several connections, as the daemon looks at all domains before it looks at each connection once.
        let share = introduced.len().div_ceil(CONNECTIONS).max(SHARE_MIN);
        let introduce = |domain: &&Domain| introduction(domain.domid);
        let series: Vec<_> = introduced.chunks(share).map(|share| share.iter().map(introduce)).collect();
        let mut stores = series.iter().map(|_| self.store()).collect::<Result<Vec<Store>>>()?;
        batch_on(&mut stores, series).context(|| "introduce domains to xenstored")
    }

    /// Makes requests, in order, if there are any: there may be no daemon for none.
    fn batch(&self, requests: impl IntoIterator<Item = Request>) -> Result<()> {
        let mut requests = requests.into_iter().peekable();
        if requests.peek().is_none() {
            return Ok(());
        }
        self.store()?.batch(requests).context(|| "change nodes of the store")
    }

    fn node_requests(&self, domain: &Domain) -> Vec<Request> {
        let Domain { domid, name, handle, .. } = domain;
        let home = format!("/local/domain/{domid}");
        let name = name.as_str();
        if *domid == 0 {
            return vec![
                Request::write(&format!("{home}/name"), name),
                Request::write(&format!("{home}/domid"), "0"),
                Request::write("/local/pool/0/name", "Pool-0"),
                Request::write("/tool/xenstored", ""),
            ];
        }
        match self.notes(*domid).0 {
            Nodes::None => Vec::new(),
            Nodes::Name => vec![Request::write(&format!("{home}/name"), name)],
            Nodes::All => {
                let uuid = format_uuid(handle);
                let guest = format!("r{domid}");
                let memory_kib = (domain.pages * 4).to_string();
                let kind = if domain.state.hvm { "hvm" } else { "pv" };
                let page = grants::offset((*domid).into(), grants::STORE_REFERENCE).unwrap_or(0) / grants::PAGE;
                vec![
                    Request::mkdir(&home),
                    Request::permissions(&home, &["n0", &guest]),
                    Request::write(&format!("{home}/vm"), &format!("/vm/{uuid}")),
                    Request::write(&format!("{home}/name"), name),
                    Request::write(&format!("{home}/domid"), &domid.to_string()),
                    Request::write(&format!("{home}/memory/static-max"), &memory_kib),
                    Request::write(&format!("{home}/memory/target"), &memory_kib),
                    Request::write(&format!("{home}/control/shutdown"), ""),
                    Request::permissions(&format!("{home}/control/shutdown"), &[&format!("n{domid}")]),
                    Request::write(&format!("{home}/store/port"), &STORE_PORT.to_string()),
                    Request::write(&format!("{home}/store/ring-ref"), &page.to_string()),
                    Request::write(&format!("/vm/{uuid}/name"), name),
                    Request::write(&format!("/vm/{uuid}/uuid"), &uuid),
                    Request::write(&format!("/libxl/{domid}/type"), kind),
                ]
            }
        }
    }

    /// Lets something happen to domains, all at once. How many it happened to: a domain that is not there, or that
    /// cannot change so any more, is left out.
    pub fn change(&self, domids: impl IntoIterator<Item = Domid>, change: Change) -> Result<usize> {
        let changed =
            domids.into_iter().filter(|domid| self.table().change(*domid, |state| change.apply(state)).is_some());
        let changed = changed.count();
        if changed > 0 && change.is_noticed() {
            self.raise_virq()?;
        }
        Ok(changed)
    }

    fn change_one(&self, domid: Domid, change: Change) -> Result<()> {
        if self.change([domid], change)? == 1 {
            return Ok(());
        }
        let what = format!("{} domain {domid}", change.name());
        match self.table().state(domid) {
            None => Err(Error::errno(what, libc::ESRCH)),
            Some(_) => Err(Error::errno(what, libc::EINVAL)),
        }
    }

    /// A guest shuts down.
    pub fn shutdown(&self, domid: Domid, reason: Reason) -> Result<()> {
        self.change_one(domid, Change::Shutdown(reason))
    }

    /// A guest suspends itself.
    pub fn suspend(&self, domid: Domid) -> Result<()> {
        self.shutdown(domid, Reason::SUSPEND)
    }

    /// A domain is killed, and stays listed.
    pub fn kill(&self, domid: Domid) -> Result<()> {
        self.change_one(domid, Change::Dying)
    }

    /// A domain that had shut down runs again, as after a checkpoint; xenstored is told of those that it knows.
    pub fn resume(&self, domid: Domid) -> Result<()> {
        self.change_one(domid, Change::Resume)?;
        let what = || format!("resume domain {domid}");
        if self.notes(domid).1 {
            self.store()?.request(Request::resume(domid)).context(what)?;
        }
        Ok(())
    }

    /// A domain that had shut down is reset in place and runs again, as its toolstack does it: xenstored, if it knows it, is
    /// told to forget it, and is told of it anew.
    pub fn soft_reset(&self, domid: Domid) -> Result<()> {
        let what = || format!("reset domain {domid}");
        let introduced = self.notes(domid).1;
        if introduced {
            self.store()?.request(Request::release(domid)).context(what)?;
        }
        self.change_one(domid, Change::Resume)?;
        if introduced {
            self.store()?.request(introduction(domid)).context(what)?;
        }
        Ok(())
    }

    /// The toolstack gives a domain another UUID. Its nodes stay as they are.
    pub fn set_uuid(&self, domid: Domid, uuid: &[u8; 16]) -> Result<()> {
        let lock = self.lock()?;
        match self.table().set_handle(&lock, domid, uuid) {
            true => Ok(()),
            false => Err(Error::errno(format!("give domain {domid} another UUID"), libc::ESRCH)),
        }
    }

    /// The toolstack pauses a domain.
    pub fn pause(&self, domid: Domid) -> Result<()> {
        self.change_one(domid, Change::Pause)
    }

    /// The toolstack lets a paused domain run.
    pub fn unpause(&self, domid: Domid) -> Result<()> {
        self.change_one(domid, Change::Unpause)
    }

    /// Destroys domains: their nodes removed, unless they are to be kept, then gone, all at once. How many: those that
    /// are not there are left out.
    pub fn destroy_many(&self, domids: impl IntoIterator<Item = Domid>, keep_nodes: bool) -> Result<usize> {
        let there = domids.into_iter().filter(|domid| *domid != 0).filter_map(|domid| self.domain(domid));
        let domains: Vec<Domain> = there.collect();
        if !keep_nodes && self.daemon().pid().is_some() {
            let paths = |domain: &Domain| {
                let Domain { domid, handle, .. } = domain;
                let written = self.notes(*domid).0 != Nodes::None;
                let paths = [
                    format!("/vm/{}", format_uuid(handle)),
                    format!("/local/domain/{domid}"),
                    format!("/libxl/{domid}"),
                ];
                paths.into_iter().filter(move |_| written).map(|path| Request::remove(&path))
            };
            self.batch(domains.iter().flat_map(paths))?;
        }
        let domids: Vec<Domid> = domains.iter().map(|domain| domain.domid).collect();
        let gone = self.remove_domains(&domids)?;
        if gone > 0 {
            self.raise_virq()?;
        }
        Ok(gone)
    }

    /// Destroys a domain: gone, its nodes removed.
    pub fn destroy(&self, domid: Domid) -> Result<()> {
        match self.destroy_many([domid], false)? {
            0 => Err(Error::errno(format!("destroy domain {domid}"), libc::ESRCH)),
            _ => Ok(()),
        }
    }

    fn remove_domains(&self, domids: &[Domid]) -> Result<usize> {
        let lock = self.lock()?;
        Ok(domids.iter().filter(|domid| self.table().remove(&lock, **domid)).count())
    }

    /// All domains, by ascending number.
    pub fn domains(&self) -> Vec<Domain> {
        self.table().domains_from(0).collect()
    }

    /// One domain.
    pub fn domain(&self, domid: Domid) -> Option<Domain> {
        self.table().domain(domid)
    }

    /// Raises the virtual interrupt that tells xenstored to look at its domains. False if there is no xenstored to hear
    /// it.
    pub fn raise_virq(&self) -> Result<bool> {
        self.channels().raise(VIRQ_DOM_EXC).context(|| "raise VIRQ_DOM_EXC")
    }

    /// Waits until xenstored has dealt with what happened so far, and has sent what it will send because of it.
    pub fn settle(&self) -> Result<()> {
        self.daemon().settle()
    }

    /// Starts xenstored and tells it of the domains, as their toolstack would.
    pub fn start_xenstored(&self) -> Result<()> {
        self.start_empty_xenstored()?;
        self.tell_store(&self.domains())
    }

    /// Starts xenstored and tells it of nothing but itself, as the kernel does.
    pub fn start_empty_xenstored(&self) -> Result<()> {
        note(self.dir(), "start");
        self.daemon().start(self.library())
    }

    /// Kills xenstored, and what it held is lost. False if none ran.
    pub fn kill_xenstored(&self) -> Result<bool> {
        note(self.dir(), "kill");
        self.daemon().kill()
    }

    /// Kills xenstored and starts it anew in the same place.
    pub fn restart_xenstored(&self) -> Result<()> {
        self.kill_xenstored()?;
        self.start_xenstored()
    }

    /// Stops xenstored where it stands, so that it answers nothing, or lets it go on. False if none runs.
    pub fn pause_xenstored(&self, pause: bool) -> Result<bool> {
        self.daemon().pause(pause)
    }

    /// Makes hypercalls of this kind misbehave.
    pub fn inject(&self, call: Call, fault: &Fault) {
        self.table().set_fault(call, fault);
    }

    /// Makes all hypercalls behave again.
    pub fn clear_faults(&self) {
        for call in Call::ALL {
            self.table().clear_fault(call);
        }
    }

    /// How many hypercalls of this kind clients have made since the counters were reset.
    pub fn count(&self, call: Call) -> u64 {
        self.table().count(Role::Client, call)
    }

    /// Begins to count from 0 again.
    pub fn reset_counts(&self) {
        self.table().reset_counts();
    }

    /// Says whether clients may open the devices from now on.
    pub fn set_access(&self, access: Access) {
        self.table().set_access(access);
    }
}

/// A new random UUID.
fn random_uuid() -> Result<[u8; 16]> {
    let mut uuid = [0; 16];
    sys::random(&mut uuid).context(|| "make a UUID")?;
    // Version 4, variant 1.
    uuid[6] = uuid[6] & 0x0f | 0x40;
    uuid[8] = uuid[8] & 0x3f | 0x80;
    Ok(uuid)
}

/// Tells xenstored of a domain.
fn introduction(domid: Domid) -> Request {
    let page = grants::offset(domid.into(), grants::STORE_REFERENCE).unwrap_or(0) / grants::PAGE;
    Request::introduce(domid, page, STORE_PORT)
}

/// A UUID as it is written.
pub fn format_uuid(uuid: &[u8; 16]) -> String {
    let mut text = String::with_capacity(36);
    for (index, byte) in uuid.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

/// The UUID that is written so.
pub fn parse_uuid(text: &str) -> Option<[u8; 16]> {
    let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b'-').collect();
    let mut uuid = [0; 16];
    if digits.len() != 32 || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    for (byte, pair) in uuid.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(uuid)
}
