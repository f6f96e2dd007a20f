// SPDX-License-Identifier: LGPL-2.1-or-later
//! Tells the command the name that Debian's library directories have on this kind of machine.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let of = |what: &str| std::env::var(format!("CARGO_CFG_TARGET_{what}")).unwrap_or_default();
    println!("cargo:rustc-env=XLEVENT_MULTIARCH={}-{}-{}", of("ARCH"), of("OS"), of("ENV"));
}
