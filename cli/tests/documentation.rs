// SPDX-License-Identifier: LGPL-2.1-or-later
//! The Rust documentation: that there is nothing to warn of, and its examples, run on a simulated host with a domain.
//!
//! Where there is no Xen the examples can only be compiled, as `cargo test` does. Here they are tested once more, by a cargo that is a
//! client of the host, with `on_a_host` set.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod support;

use std::process::Command;

use support::{folder, host, text};
use xensim::Config;

/// How many of the examples need a host.
const ON_A_HOST: usize = 2;

/// cargo on this workspace, in which everything is built already, as it was for this test.
fn cargo(words: &[&str]) -> Command {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(words).args(["--workspace", "--manifest-path", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")]);
    cargo.arg("--target-dir").arg(folder().parent().unwrap());
    if folder().ends_with("release") {
        cargo.arg("--release");
    }
    cargo
}

#[test]
fn there_is_nothing_to_warn_of() {
    let output = cargo(&["doc", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings").output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
}

#[test]
fn the_examples_run_on_a_host() {
    let host = host();
    host.create(&Config::named("web")).unwrap();
    let mut cargo = cargo(&["test", "--doc"]);
    let output = cargo.envs(host.env()).env("RUSTDOCFLAGS", "--cfg on_a_host").output().unwrap();
    let said = text(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", text(&output.stderr));
    // Those that were only compiled say so.
    let ran = |line: &&str| line.starts_with("test src/stream.rs") && line.ends_with(") ... ok");
    assert_eq!(said.lines().filter(ran).count(), ON_A_HOST, "{said}");
}
