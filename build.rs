// SPDX-License-Identifier: LGPL-2.1-or-later
//! Gives the shared library its SONAME, and has it stay once it is loaded: it leaves behind what refers to its code (functions
//! to be called at a fork, destructors of threads' variables, at times a handler of SIGCHLD and libxenlight's hooks), so a
//! dlclose must not take that code away. Nothing is probed or generated here: the headers are committed
//! (tests/header.rs keeps them true), and Xen's libraries are found by the -sys crates.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libxlevent.so.1");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
}
