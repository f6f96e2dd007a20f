// SPDX-License-Identifier: LGPL-2.1-or-later
//! What inputs are made of. Numbers are small where a small choice makes things meet, and any where any can come.

use std::ffi::c_int;

use arbitrary::{Arbitrary, Result, Unstructured};
use xenctrl_sys::xc_domaininfo_t;

use crate::host::Answer;

/// A domain's number: mostly one of a few.
#[derive(Debug, Clone, Copy)]
pub struct Domid(pub u32);

impl<'a> Arbitrary<'a> for Domid {
    fn arbitrary(input: &mut Unstructured<'a>) -> Result<Self> {
        const ODD: [u32; 9] = [0, 100, 32751, 32752, 40000, 65535, 65536, u32::MAX - 1, u32::MAX];
        Ok(Domid(match u8::arbitrary(input)? {
            small @ ..200 => u32::from(small % 8) + 1,
            odd @ ..250 => ODD[usize::from(odd) % ODD.len()],
            _ => u32::arbitrary(input)?,
        }))
    }
}

/// One of a few things that there may be.
#[derive(Debug, Clone, Copy, Arbitrary)]
pub struct Which(u8);

impl Which {
    /// The first.
    pub const FIRST: Which = Which(0);

    /// One of these.
    pub fn of<T>(self, these: &[T]) -> Option<&T> {
        these.get(self.index(these.len())?)
    }

    /// The place of one of so many.
    pub fn index(self, count: usize) -> Option<usize> {
        usize::from(self.0).checked_rem(count)
    }
}

/// A handle to call with.
#[derive(Debug, Clone, Copy, Arbitrary)]
pub enum Handle {
    /// One that was given out, be it good still or not.
    Given(Which),
    /// Likewise: most should be.
    AlsoGiven(Which),
    /// NULL.
    Null,
    /// Any bits.
    Bits(u64),
}

/// A name that a disk is called by, or that one can't be.
#[derive(Debug, Clone, Arbitrary)]
pub enum Vdev {
    /// `hdc`.
    Cd,
    /// `xvdb`.
    Xvdb,
    /// The number of the first, as a name.
    Number,
    /// Anything.
    Text(Vec<u8>),
    /// NULL.
    Null,
}

/// The path of a node.
#[derive(Debug, Clone, Arbitrary)]
pub enum Path {
    /// One of a drive's.
    Drive(Domid, DriveNode),
    /// One of a disk's backend, as the toolstack names it.
    Backend(Domid, BackendNode),
    /// What the toolstack keeps of a disk.
    Own(Domid),
    /// Where a domain's stub domain stands.
    Stub(Domid),
    /// One of the watches' own.
    Special(Option<Domid>),
    /// Anything.
    Text(Vec<u8>),
}

/// A node of a frontend.
#[derive(Debug, Clone, Copy, Arbitrary)]
pub enum DriveNode {
    Eject,
    EjectBelow,
    Backend,
    Dev,
    State,
    Whole,
}

/// A node of a backend.
#[derive(Debug, Clone, Copy, Arbitrary)]
pub enum BackendNode {
    State,
    Online,
    Script,
    HotplugError,
    Type,
    Gateway,
    Whole,
}

/// The number of `hdc`, which is the disk that inputs are mostly about.
pub const HDC: u32 = 5632;

impl Path {
    /// Its bytes.
    pub fn bytes(&self) -> Vec<u8> {
        match self {
            Path::Drive(Domid(domid), node) => {
                let name = match node {
                    DriveNode::Eject => "/eject",
                    DriveNode::EjectBelow => "/eject/below",
                    DriveNode::Backend => "/backend",
                    DriveNode::Dev => "/dev",
                    DriveNode::State => "/state",
                    DriveNode::Whole => "",
                };
                format!("/local/domain/{domid}/device/vbd/{HDC}{name}").into_bytes()
            }
            Path::Backend(Domid(domid), node) => {
                let name = match node {
                    BackendNode::State => "/state",
                    BackendNode::Online => "/online",
                    BackendNode::Script => "/script",
                    BackendNode::HotplugError => "/hotplug-error",
                    BackendNode::Type => "/type",
                    BackendNode::Gateway => "/gatewaydev",
                    BackendNode::Whole => "",
                };
                format!("/local/domain/0/backend/vbd/{domid}/{HDC}{name}").into_bytes()
            }
            Path::Own(Domid(domid)) => format!("/libxl/{domid}/device/vbd/{HDC}/backend").into_bytes(),
            Path::Stub(Domid(domid)) => format!("/local/domain/{domid}/image/device-model-domid").into_bytes(),
            Path::Special(None) => b"@releaseDomain".to_vec(),
            Path::Special(Some(Domid(domid))) => format!("@releaseDomain/{domid}").into_bytes(),
            Path::Text(bytes) => bytes.clone(),
        }
    }
}

/// A node's value.
#[derive(Debug, Clone, Arbitrary)]
pub enum Value {
    /// The word.
    Eject,
    /// A small number.
    Number(u8),
    /// The path of a disk's backend, which may be that of another.
    Backend(Domid, Domid),
    /// Anything.
    Bytes(Vec<u8>),
    /// As long as can be.
    Long(u8),
}

impl Value {
    /// Its bytes.
    pub fn bytes(&self) -> Vec<u8> {
        match self {
            Value::Eject => b"eject".to_vec(),
            Value::Number(number) => number.to_string().into_bytes(),
            Value::Backend(Domid(back), Domid(front)) => {
                format!("/local/domain/{back}/backend/vbd/{front}/{HDC}").into_bytes()
            }
            Value::Bytes(bytes) => bytes.clone(),
            Value::Long(byte) => vec![*byte; 4096],
        }
    }
}

/// A watch's token.
#[derive(Debug, Clone, Arbitrary)]
pub enum Token {
    /// One that there is.
    Given(Which),
    /// A drive's.
    Drive(u64),
    /// A task's.
    Task(u64),
    /// Of domains.
    Domains,
    /// Of new domains.
    Introduced,
    /// Anything.
    Text(Vec<u8>),
}

impl Token {
    /// Its bytes.
    pub fn bytes(&self) -> Vec<u8> {
        match self {
            Token::Given(which) => which.of(&crate::host::tokens()).cloned().unwrap_or_default(),
            Token::Drive(number) => format!("xlevent-drive-{number}").into_bytes(),
            Token::Task(number) => format!("xlevent-task-{number}").into_bytes(),
            Token::Domains => b"xlevent".to_vec(),
            Token::Introduced => b"xlevent-introduce".to_vec(),
            Token::Text(bytes) => bytes.clone(),
        }
    }
}

/// A record of the hypervisor's.
#[derive(Debug, Clone, Copy)]
pub struct Record(pub xc_domaininfo_t);

impl<'a> Arbitrary<'a> for Record {
    fn arbitrary(input: &mut Unstructured<'a>) -> Result<Self> {
        let mut record = xc_domaininfo_t::default();
        if bool::arbitrary(input)? {
            // Fields that mean something.
            record.domain = Domid::arbitrary(input)?.0 as u16;
            record.flags = u32::arbitrary(input)?;
            record.cpu_time = u64::arbitrary(input)?;
            record.handle[0] = u8::arbitrary(input)?;
        } else {
            let mut bytes = [0; size_of::<xc_domaininfo_t>()];
            input.fill_buffer(&mut bytes)?;
            // SAFETY: numbers and arrays of them: any bytes are one.
            record = unsafe { std::mem::transmute::<[u8; size_of::<xc_domaininfo_t>()], xc_domaininfo_t>(bytes) };
        }
        Ok(Record(record))
    }
}

/// A list of domains in any order, of which a caller is told any number.
#[derive(Debug, Clone, Arbitrary)]
pub struct List {
    records: Vec<Record>,
    /// Mostly as many as there are.
    count: Option<c_int>,
}

impl From<List> for Answer {
    fn from(List { records, count }: List) -> Answer {
        let records: Vec<xc_domaininfo_t> = records.into_iter().map(|record| record.0).collect();
        let count = count.unwrap_or(records.len() as c_int);
        Answer { records, count }
    }
}

/// Something that happens to the host, from whichever side.
#[derive(Debug, Clone, Arbitrary)]
pub enum Incident {
    Start(Domid),
    ShutDown(Domid, u8),
    End(Domid, bool),
    Write(Path, Value),
    Remove(Path),
    Fire(Path, Token),
    /// The next calls fail.
    Fail {
        store: bool,
        times: u8,
        errno: Errno,
    },
    Answer(List),
    Away(bool),
}

/// Why something fails.
#[derive(Debug, Clone, Copy, Arbitrary)]
pub enum Errno {
    Again,
    Memory,
    Access,
    Io,
    Interrupted,
    Space,
}

impl Errno {
    /// Its number.
    pub fn number(self) -> c_int {
        match self {
            Errno::Again => libc::EAGAIN,
            Errno::Memory => libc::ENOMEM,
            Errno::Access => libc::EACCES,
            Errno::Io => libc::EIO,
            Errno::Interrupted => libc::EINTR,
            Errno::Space => libc::ENOSPC,
        }
    }
}

/// Lets it happen. True if what the host says from now on need not be so.
pub fn befall(incident: Incident) -> bool {
    use crate::host;
    // Domain 0 is there as long as the host, and there are none from 32752 on.
    let domid = |Domid(domid): Domid| u16::try_from(domid).ok().filter(|domid| (1..32752).contains(domid));
    match incident {
        Incident::Start(it) => domid(it).into_iter().for_each(host::start_domain),
        Incident::ShutDown(it, reason) => domid(it).into_iter().for_each(|domid| host::shut_down(domid, reason)),
        Incident::End(it, gone) => domid(it).into_iter().for_each(|domid| host::end_domain(domid, gone)),
        Incident::Write(path, value) => host::write(&path.bytes(), &value.bytes()),
        Incident::Remove(path) => host::remove(&path.bytes()),
        Incident::Fire(path, token) => host::fire(&path.bytes(), &token.bytes()),
        Incident::Fail { store, times, errno } => host::fail_next(store, times.into(), errno.number()),
        Incident::Answer(list) => {
            host::answer_next(list.into());
            return true;
        }
        Incident::Away(away) => host::set_away(away),
    }
    false
}
