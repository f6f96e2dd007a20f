// SPDX-License-Identifier: LGPL-2.1-or-later
//! A simulated host: its directory, how it comes up and goes down, who owns it, what its clients need in their
//! environment.
//!
//! Everything of a host is in one directory that belongs to it alone, `<temporary directory>/xensim-<uid>/<name>`:
//!
//! | file | what |
//! |---|---|
//! | `table` | what all its processes map ([`crate::table`]) |
//! | `lock` | held by whoever adds or removes something |
//! | `dev/`, `proc/` | what its clients see as `/dev/xen` and `/proc/xen` |
//! | `run-xen/`, `lib-xen/` | what they see as `/run/xen` and `/var/lib/xen` |
//! | `evtchn/` | the FIFOs of event channels |
//! | `run/` | xenstored's folder, with its socket |
//! | `xenstored.pid`, `xenstored.log` | the daemon |
//! | `library` | names the preloaded library |
//! | `lifeline` | a FIFO that the owner holds open and locked; absent in a host that stays until it is taken down |
//!
//! Invariants:
//! - A host with an owner ends with it, however it ends: the daemon is killed by the kernel when the lifeline's last
//!   writer is gone, and the directory, of which nothing is used any more, is removed by the next host that comes up.
//! - A directory without a table is one that is just being made, and is removed only when it is old.

use std::collections::hash_map::RandomState;
use std::ffi::{CStr, CString, OsStr, OsString};
use std::fs::{self, File};
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::daemon::{self, Daemon};
use crate::domains::{Domain, Name, State};
use crate::error::{Context, Error, Result};
use crate::evtchn::{Channels, FIFO_DIR};
use crate::grants;
use crate::lifeline::{self, Lifeline};
use crate::store::Store;
use crate::sys;
use crate::table::{LOCK_FILE, Lock, Mapped, TABLE_FILE};

/// Names the host in the environment of its clients.
pub const DIR_VARIABLE: &str = "XENSIM_DIR";
/// The same, for C.
pub const DIR_VARIABLE_C: &CStr = c"XENSIM_DIR";
/// Names the preloaded library, for those who have it elsewhere.
pub const LIBRARY_VARIABLE: &str = "XENSIM_LIBRARY";
/// Names another folder for the hosts' directories.
pub const ROOT_VARIABLE: &str = "XENSIM_ROOT";
/// The preloaded library's file name.
pub const LIBRARY_NAME: &str = "libxensim.so";

/// The longest path that a socket's address holds, with its closing zero.
const SOCKET_PATH_MAX: usize = 108;
/// A directory without a table that is younger is still being made.
const HALF_MADE: Duration = Duration::from_secs(60);

/// A simulated host. One that was brought up with an owner (as by [`Host::up`]) goes down when this is dropped; one
/// that was attached to does not.
pub struct Host {
    dir: PathBuf,
    library: PathBuf,
    table: Mapped,
    /// Held by the owner.
    lifeline: Option<Lifeline>,
    down_on_drop: bool,
}

/// How a host is to come up.
#[derive(Clone, Debug)]
pub struct Builder {
    root: Option<PathBuf>,
    name: Option<String>,
    library: Option<PathBuf>,
    persistent: bool,
    xenstored: bool,
}

impl Default for Builder {
    fn default() -> Builder {
        Builder { root: None, name: None, library: None, persistent: false, xenstored: true }
    }
}

impl Builder {
    /// The folder for the host's directory.
    pub fn root(mut self, root: impl Into<PathBuf>) -> Builder {
        self.root = Some(root.into());
        self
    }

    /// The host's name, which must not be taken: that of its directory.
    pub fn name(mut self, name: impl Into<String>) -> Builder {
        self.name = Some(name.into());
        self
    }

    /// The library to preload, `libxensim.so`. Otherwise it is the one that `XENSIM_LIBRARY` names, or one beside this
    /// program.
    pub fn library(mut self, library: impl Into<PathBuf>) -> Builder {
        self.library = Some(library.into());
        self
    }

    /// The host is to stay when this process ends, until it is taken down.
    pub fn persistent(mut self) -> Builder {
        self.persistent = true;
        self
    }

    /// The host is to have no xenstored, until one is started.
    pub fn without_xenstored(mut self) -> Builder {
        self.xenstored = false;
        self
    }

    /// Brings the host up. Directories of hosts whose owners have gone are removed on the way.
    pub fn up(self) -> Result<Host> {
        let library = match self.library {
            Some(library) => library,
            None => find_library()?,
        };
        // The daemon runs in another directory.
        let library = fs::canonicalize(&library).context(|| library.display().to_string())?;
        let root = match self.root {
            Some(root) => root,
            None => default_root()?,
        };
        sweep(&root)?;
        let dir = make_dir(&root, self.name.as_deref())?;
        let clean_up = |error: Error| {
            let _ = fs::remove_dir_all(&dir);
            error
        };
        let host = Host::furnish(&dir, library, self.persistent).map_err(clean_up)?;
        host.add_control_domain()?;
        if self.xenstored {
            // From here on dropping the host cleans up; not so a persistent one.
            if let Err(error) = host.start_xenstored() {
                let _ = host.remove();
                return Err(error);
            }
        }
        Ok(host)
    }
}

impl Host {
    /// Brings up a host that this process owns, with xenstored and a control domain.
    pub fn up() -> Result<Host> {
        Host::builder().up()
    }

    /// For a host that is to come up otherwise.
    pub fn builder() -> Builder {
        Builder::default()
    }

    fn furnish(dir: &Path, library: PathBuf, persistent: bool) -> Result<Host> {
        let what = || format!("make a host in {}", dir.display());
        let lifeline = if persistent { None } else { Some(Lifeline::make(dir).context(what)?) };
        for folder in ["dev", "proc", "run", "run-xen", "lib-xen", FIFO_DIR] {
            fs::DirBuilder::new().mode(0o700).create(dir.join(folder)).context(what)?;
        }
        fs::write(dir.join(LOCK_FILE), "").context(what)?;
        fs::write(dir.join("library"), library.as_os_str().as_bytes()).context(what)?;
        // What a process needs of a device that no call is made on is that it can be opened and mapped.
        let privcmd = dir.join("dev/privcmd");
        fs::write(&privcmd, "").context(what)?;
        symlink("/dev/zero", dir.join("dev/hypercall")).context(what)?;
        let gntdev = dir.join("dev/gntdev");
        File::create(&gntdev).and_then(|file| file.set_len(grants::SIZE)).context(what)?;
        // There to be seen; opening it makes a FIFO.
        fs::write(dir.join("dev/evtchn"), "").context(what)?;
        fs::write(dir.join("proc/capabilities"), "control_d\n").context(what)?;
        fs::write(dir.join("proc/xsd_port"), "1").context(what)?;
        File::create(dir.join("proc/xsd_kva")).and_then(|file| file.set_len(grants::PAGE)).context(what)?;
        let table = Mapped::create(dir, &privcmd, &gntdev).context(what)?;
        Ok(Host { dir: dir.into(), library, table, lifeline, down_on_drop: !persistent })
    }

    fn add_control_domain(&self) -> Result<()> {
        let name = Name::new("Domain-0").unwrap_or_else(|| unreachable!("it is short"));
        let control = Domain { domid: 0, state: State::default(), handle: [0; 16], vcpus: 1, pages: 1 << 18, name };
        self.table
            .add(&self.lock()?, Some(0), &control)
            .map(drop)
            .map_err(|error| Error::errno("add the control domain", error.errno()))
    }

    /// The host in this directory, which someone else has brought up.
    pub fn attach(dir: &Path) -> Result<Host> {
        let what = || format!("host {}", dir.display());
        let dir = fs::canonicalize(dir).context(what)?;
        let path = c_path(&dir.join(TABLE_FILE)).context(what)?;
        let table = Mapped::attach(&path).context(what)?;
        let library = fs::read(dir.join("library")).context(what)?;
        let library = PathBuf::from(OsStr::from_bytes(&library));
        Ok(Host { dir, library, table, lifeline: None, down_on_drop: false })
    }

    /// The host that the environment names.
    pub fn from_env() -> Result<Host> {
        match std::env::var_os(DIR_VARIABLE).filter(|dir| !dir.is_empty()) {
            Some(dir) => Host::attach(Path::new(&dir)),
            None => Err(Error::other("find the host", format!("{DIR_VARIABLE} is not set"))),
        }
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Its preloaded library.
    pub fn library(&self) -> &Path {
        &self.library
    }

    /// xenstored's socket.
    pub fn socket(&self) -> PathBuf {
        Daemon::socket(&self.dir)
    }

    /// What all its processes share.
    pub fn table(&self) -> &Mapped {
        &self.table
    }

    pub(crate) fn lock(&self) -> Result<Lock> {
        c_path(&self.dir.join(LOCK_FILE))
            .and_then(|path| Lock::wait(&path))
            .context(|| format!("lock {}", self.dir.display()))
    }

    pub(crate) fn channels(&self) -> Channels<'_> {
        Channels::new(&self.table, &self.dir)
    }

    pub(crate) fn grants_file(&self) -> Result<CString> {
        c_path(&self.dir.join("dev/gntdev")).context(|| "granted pages")
    }

    /// Its xenstored.
    pub fn daemon(&self) -> Daemon<'_> {
        Daemon::new(&self.dir, &self.table)
    }

    /// A connection to its xenstored, as the control domain.
    pub fn store(&self) -> Result<Store> {
        Store::connect(&self.socket()).context(|| "connect to xenstored")
    }

    /// What its clients need in their environment. `LD_PRELOAD` keeps what this process has in it.
    pub fn env(&self) -> Vec<(&'static str, OsString)> {
        let run = self.dir.join("run");
        vec![
            (DIR_VARIABLE, self.dir.clone().into()),
            // Also keeps a client from the real /dev/xen/xenbus, should there be one.
            ("XENSTORED_PATH", self.socket().into()),
            ("XENSTORED_RUNDIR", run.into()),
            ("LD_PRELOAD", self.preload(std::env::var_os("LD_PRELOAD").as_deref())),
        ]
    }

    /// `LD_PRELOAD` with the library in it, after what else is there.
    pub fn preload(&self, others: Option<&OsStr>) -> OsString {
        let mut preload = OsString::new();
        let others = others.map_or(&[][..], OsStr::as_bytes).split(|byte| matches!(byte, b' ' | b':'));
        let is_other = |path: &&[u8]| {
            !path.is_empty() && Path::new(OsStr::from_bytes(path)).file_name() != self.library.file_name()
        };
        for other in others.filter(is_other) {
            preload.push(OsStr::from_bytes(other));
            preload.push(":");
        }
        preload.push(&self.library);
        preload
    }

    /// A program that will run as a client of this host.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.envs(self.env()).env_remove(daemon::ROLE_VARIABLE);
        command
    }

    /// Takes the host down: kills its xenstored, removes its directory.
    pub fn down(mut self) -> Result<()> {
        self.down_on_drop = false;
        self.remove()
    }

    fn remove(&self) -> Result<()> {
        self.daemon().kill()?;
        lifeline::say_down(&self.dir);
        remove_dir(&self.dir)
    }

    /// Owns the host for another process: waits until that has ended, or the host has been taken down by someone else,
    /// and takes it down.
    pub fn keep_for(self, owner: &Owner) -> Result<()> {
        if let Some(lifeline) = self.lifeline.as_ref().and_then(Lifeline::fifo) {
            sys::wait_readable_any(&[&owner.pidfd, lifeline]).context(|| "wait for the host's owner")?;
        }
        self.down()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // A child that was forked has a copy of this, and is not the one to end the host.
        if self.down_on_drop && self.lifeline.as_ref().is_none_or(Lifeline::is_mine) {
            // Nobody is left to tell; what remains is swept by the next host.
            let _ = self.remove();
        }
    }
}

/// A process that a host is kept for.
pub struct Owner {
    pidfd: sys::Fd,
}

impl Owner {
    /// The process with this number.
    pub fn new(pid: i32) -> Result<Owner> {
        let pidfd = sys::pidfd_open(pid).context(|| format!("find process {pid}"))?;
        Ok(Owner { pidfd })
    }
}

/// Lets go of this process's standard output and error, for a process that stays behind: whoever waits for their end
/// shall not wait for it.
pub fn detach_output() -> Result<()> {
    let null = sys::open(c"/dev/null", libc::O_RDWR).context(|| "/dev/null")?;
    sys::replace(&null, &std::io::stdout()).context(|| "standard output")?;
    sys::replace(&null, &std::io::stderr()).context(|| "standard error")
}

pub(crate) fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
}

fn remove_dir(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        // A client that opens an event channel at this moment puts a FIFO in.
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => fs::remove_dir_all(dir),
        result => result,
    }
    .context(|| format!("remove {}", dir.display()))
}

/// Where hosts have their directories unless told otherwise: one folder per user.
pub fn default_root() -> Result<PathBuf> {
    if let Some(root) = std::env::var_os(ROOT_VARIABLE).filter(|root| !root.is_empty()) {
        return Ok(root.into());
    }
    let uid = sys::effective_uid();
    let root = std::env::temp_dir().join(format!("xensim-{uid}"));
    let what = || format!("use {}", root.display());
    match fs::DirBuilder::new().mode(0o700).create(&root) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        result => result.context(what)?,
    }
    let metadata = fs::symlink_metadata(&root).context(what)?;
    if !metadata.is_dir() || metadata.uid() != uid {
        return Err(Error::errno(what(), libc::EPERM));
    }
    Ok(root)
}

fn make_dir(root: &Path, name: Option<&str>) -> Result<PathBuf> {
    fs::DirBuilder::new().mode(0o700).recursive(true).create(root).context(|| root.display().to_string())?;
    let root = fs::canonicalize(root).context(|| root.display().to_string())?;
    let is_bad = |name: &&str| name.is_empty() || name.contains(['/', '\0', ':', ' ']) || name.starts_with('.');
    if let Some(name) = name.filter(is_bad) {
        return Err(Error::other(format!("host {name:?}"), "a name without / : and blanks, and no leading dot"));
    }
    loop {
        let dir = root.join(name.map_or_else(random_name, str::to_owned));
        let what = || format!("make {}", dir.display());
        if Daemon::socket(&dir).as_os_str().len() >= SOCKET_PATH_MAX {
            return Err(Error::errno(what(), libc::ENAMETOOLONG));
        }
        match fs::DirBuilder::new().mode(0o700).create(&dir) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && name.is_none() => {}
            result => return result.context(what).map(|()| dir),
        }
    }
}

fn random_name() -> String {
    // Every RandomState has other keys.
    format!("{:08x}", RandomState::new().build_hasher().finish() as u32)
}

fn is_half_made(dir: &Path) -> bool {
    let old =
        |metadata: fs::Metadata| metadata.modified().is_ok_and(|time| time.elapsed().is_ok_and(|age| age > HALF_MADE));
    !dir.join(TABLE_FILE).exists() && fs::metadata(dir).is_ok_and(old)
}

/// Removes the directories of hosts whose owners have gone. How many.
pub fn sweep(root: &Path) -> Result<usize> {
    let mut swept = 0;
    for entry in fs::read_dir(root).into_iter().flatten().flatten() {
        let dir = entry.path();
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) || !(lifeline::is_stale(&dir) || is_half_made(&dir)) {
            continue;
        }
        // The kernel has killed the daemon, unless it could not start properly.
        match Host::attach(&dir) {
            Ok(host) => host.remove()?,
            Err(_) => remove_dir(&dir)?,
        }
        swept += 1;
    }
    Ok(swept)
}

/// The hosts in a folder that are up.
pub fn all(root: &Path) -> Vec<PathBuf> {
    let mut dirs: Vec<PathBuf> = fs::read_dir(root)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|dir| dir.join(TABLE_FILE).exists() && !lifeline::is_stale(dir))
        .collect();
    dirs.sort();
    dirs
}

/// The library to preload: the one that the environment names, or one beside this program or, for a test program that
/// cargo built, in the folder above it, or in the system's.
fn find_library() -> Result<PathBuf> {
    if let Some(library) = std::env::var_os(LIBRARY_VARIABLE).filter(|library| !library.is_empty()) {
        return Ok(library.into());
    }
    let program = std::env::current_exe().and_then(fs::canonicalize).unwrap_or_default();
    let beside = program.ancestors().skip(1).take(2).map(Path::to_owned);
    let installed = program.ancestors().nth(2).map(|prefix| prefix.join("lib"));
    let system = ["/usr/local/lib", "/usr/lib"].map(PathBuf::from);
    let folders: Vec<PathBuf> = beside.chain(installed).chain(system).collect();
    folders.iter().map(|folder| folder.join(LIBRARY_NAME)).find(|library| library.is_file()).ok_or_else(|| {
        let folders: Vec<String> = folders.iter().map(|folder| folder.display().to_string()).collect();
        Error::other(
            format!("find {LIBRARY_NAME}"),
            format!(
                "not in {}; build it with `cargo build -p xensim-preload`, or name it in {LIBRARY_VARIABLE}",
                folders.join(", ")
            ),
        )
    })
}
