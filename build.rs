// SPDX-License-Identifier: LGPL-2.1-or-later
//! Gives the shared library its SONAME. Nothing is probed or generated here: the headers are committed
//! (tests/header.rs keeps them true), and Xen's libraries are found by the -sys crates.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libxlevent.so.1");
}
