// SPDX-License-Identifier: LGPL-2.1-or-later
//! What the tests of the command have in common: the libraries, hosts, programs that are waited for.
#![allow(dead_code, reason = "each test program uses its own part")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "in a test a panic is the report")]

use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{LazyLock, mpsc};
use std::time::Duration;

use nix::fcntl::OFlag;
use xensim::Host;

/// Bound for what ought to happen at once, on a machine that may be busy with much else.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The folder with the command and the libraries. cargo doesn't build other packages' libraries for these tests on its own.
pub fn folder() -> &'static Path {
    static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
        let folder = Path::new(env!("CARGO_BIN_EXE_xlevent")).parent().unwrap();
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "--manifest-path", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")]);
        // With the command, so that nothing has to be built in another way.
        cargo.args(["-p", "xlevent", "-p", "xlevent-cli", "-p", "xlevent-run", "-p", "xensim-preload"]);
        cargo.arg("--target-dir").arg(folder.parent().unwrap());
        if folder.ends_with("release") {
            cargo.arg("--release");
        }
        assert!(cargo.status().unwrap().success(), "{cargo:?}");
        folder.to_owned()
    });
    &FOLDER
}

/// A pipe: what is read from, and what is written to.
pub fn pipe() -> (File, File) {
    let (reader, writer) = nix::unistd::pipe2(OFlag::O_CLOEXEC).unwrap();
    (reader.into(), writer.into())
}

/// A host that goes with the test.
pub fn host() -> Host {
    Host::builder().library(folder().join("libxensim.so")).up().unwrap()
}

/// The command on a host. The signals that end it are as by default: who runs the tests in the background of a shell has had
/// SIGINT ignored.
pub fn on(host: &Host, arguments: &[&str]) -> Command {
    folder();
    let mut command = host.command("env");
    command.args(["--default-signal=HUP,INT,TERM", env!("CARGO_BIN_EXE_xlevent")]).args(arguments);
    command
}

/// The command where there is no host.
pub fn nowhere(arguments: &[&str]) -> Command {
    folder();
    let mut command = Command::new(env!("CARGO_BIN_EXE_xlevent"));
    // Also where the tests' machine is a Xen host.
    command.args(arguments).env("XENSTORED_PATH", "/nonexistent/socket").env_remove("LD_PRELOAD");
    command
}

pub fn output(command: &mut Command) -> Output {
    command.output().unwrap()
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// A program that writes lines, and ends with the test.
pub struct Running {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Running {
    pub fn start(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = lines(child.stdout.take().unwrap());
        Running { child, lines }
    }

    pub fn pid(&self) -> i32 {
        self.child.id().try_into().unwrap()
    }

    /// The next line.
    pub fn line(&self) -> String {
        self.lines.recv_timeout(PATIENCE).expect("another line")
    }

    /// The next line, `None` at the end.
    pub fn next_line(&self) -> Option<String> {
        match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => Some(line),
            Err(mpsc::RecvTimeoutError::Disconnected) => None,
            Err(mpsc::RecvTimeoutError::Timeout) => panic!("neither a line nor the end"),
        }
    }

    /// Takes a line, if there is one soon.
    pub fn has_line(&self) -> bool {
        self.lines.recv_timeout(Duration::from_millis(20)).is_ok()
    }

    /// Nothing else is written until the end, which comes.
    pub fn end(mut self) -> ExitStatus {
        assert_eq!(self.lines.recv_timeout(PATIENCE), Err(mpsc::RecvTimeoutError::Disconnected));
        self.child.wait().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Lines as they come.
pub fn lines(from: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || {
        BufReader::new(from).lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
    });
    lines
}

/// A folder that goes with the test.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new(name: &str) -> Folder {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        Folder(folder)
    }

    pub fn path(&self, name: impl AsRef<OsStr>) -> PathBuf {
        self.0.join(Path::new(name.as_ref()))
    }

    /// A script that can be executed. Another process writes it: a file that this one had open for writing can't be executed
    /// as long as a child of another thread's, which has not come to its exec, has it open too.
    pub fn script(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        let mut shell = Command::new("sh");
        shell.args(["-c", "cat >\"$0\" && chmod 755 \"$0\""]).arg(&path).stdin(Stdio::piped());
        let mut shell = shell.spawn().unwrap();
        shell.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        assert!(shell.wait().unwrap().success());
        path
    }

    /// A program or a library by another name; not a copy, for the same reason.
    pub fn link(&self, from: &Path, name: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::hard_link(from, &path).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Waits until something has come about.
pub fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + PATIENCE;
    while !condition() {
        assert!(std::time::Instant::now() < deadline, "{what} did not come about");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// All that a reader gives.
pub fn all(mut reader: impl Read) -> String {
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    text
}
