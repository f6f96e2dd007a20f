// SPDX-License-Identifier: LGPL-2.1-or-later
//! What the integration tests have in common: the library that is preloaded, hosts, C programs, waiting.
#![allow(dead_code, reason = "each test program uses its own part")]
#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use xensim::Host;

/// Bound for what ought to happen at once, on a machine that may be busy with much else.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The command under test.
pub fn xensim() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xensim"));
    command.env("XENSIM_LIBRARY", library());
    command
}

/// libxensim.so, built: cargo does not build another package's library for these tests on its own.
pub fn library() -> &'static Path {
    static LIBRARY: LazyLock<PathBuf> = LazyLock::new(|| {
        let folder = Path::new(env!("CARGO_BIN_EXE_xensim")).parent().unwrap();
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "--manifest-path"]);
        cargo.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/preload/Cargo.toml"));
        cargo.arg("--target-dir").arg(folder.parent().unwrap());
        if folder.ends_with("release") {
            cargo.arg("--release");
        }
        assert!(cargo.status().unwrap().success(), "{cargo:?}");
        folder.join("libxensim.so")
    });
    &LIBRARY
}

/// A host that goes with the test.
pub fn host() -> Host {
    Host::builder().library(library()).up().unwrap()
}

/// A folder that goes with the test; its path is short, as a socket's address must be.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new(name: &str) -> Folder {
        let folder = std::env::temp_dir().join(format!("xensim-{name}-{}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        Folder(folder)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Compiles tests/c/`name`.c with these packages' libraries and the assertions of the C tests, once.
pub fn compile(name: &str, standard: &str, packages: &[&str]) -> PathBuf {
    static COMPILED: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());
    let mut compiled = COMPILED.lock().unwrap_or_else(PoisonError::into_inner);
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("xensim-{name}"));
    if compiled.contains(&program) {
        return program;
    }
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut compiler = Command::new(std::env::var_os("CC").unwrap_or_else(|| "cc".into()));
    let ctests = here.join("../ctests");
    compiler.args([standard, "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", "-g", "-pthread"]);
    compiler.arg("-I").arg(here.join("include")).arg("-I").arg(&ctests);
    compiler.arg(here.join(format!("tests/c/{name}.c"))).arg(ctests.join("harness/assert.c")).arg("-o").arg(&program);
    compiler.arg("-L").arg(library().parent().unwrap()).arg("-lxensim");
    if !packages.is_empty() {
        let flags = Command::new("pkg-config").args(["--cflags", "--libs"]).args(packages).output().unwrap();
        assert!(flags.status.success(), "pkg-config {packages:?}: {}", String::from_utf8_lossy(&flags.stderr));
        compiler.args(String::from_utf8(flags.stdout).unwrap().split_whitespace());
    }
    assert!(compiler.status().unwrap().success(), "{compiler:?}");
    compiled.push(program.clone());
    program
}

/// A C program that is linked with libxensim.so and not preloaded.
pub fn linked(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env("LD_LIBRARY_PATH", library().parent().unwrap());
    command
}

/// Runs a C test program; all its tests must pass, and at least `least` there must be.
pub fn run_c_tests(program: &Path, least: usize) {
    let output = linked(program).output().unwrap();
    let out = text(&output);
    print!("{out}");
    assert!(output.status.success(), "{out}");
    assert!(out.lines().filter(|line| line.starts_with("PASS ")).count() >= least, "{out}");
}

/// What a program wrote.
pub fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Waits until something has come about.
pub fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "{what} did not come about");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Whether a process runs (one that has ended and waits to be reaped does not).
pub fn runs(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|status| !status.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(['Z', 'X'])))
}
