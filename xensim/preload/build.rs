// SPDX-License-Identifier: LGPL-2.1-or-later
//! Compiles abi/abi.c, which takes hypercalls apart by the installed Xen headers (Debian: libxen-dev), and gives the
//! library its SONAME.

use std::process::Command;

fn main() {
    for file in ["build.rs", "abi/abi.c", "abi/abi.h"] {
        println!("cargo:rerun-if-changed={file}");
    }
    let (major, minor) = xen_version();
    cc::Build::new()
        .file("abi/abi.c")
        // Xen's headers are GNU C.
        .std("gnu99")
        .extra_warnings(true)
        .warnings_into_errors(true)
        .define("XENSIM_XEN_MAJOR", major.as_str())
        .define("XENSIM_XEN_MINOR", minor.as_str())
        .compile("xensim_abi");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libxensim.so");
}

/// The release whose headers are installed: what the simulated hypervisor says that it is. The headers themselves don't
/// say.
fn xen_version() -> (String, String) {
    println!("cargo:rerun-if-env-changed=PKG_CONFIG_PATH");
    let output = Command::new("pkg-config").args(["--modversion", "xencontrol"]).output();
    let text = match &output {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout).into_owned(),
        _ => {
            println!("cargo:warning=pkg-config does not know xencontrol (Debian: libxen-dev); taken for Xen 4.17");
            "4.17.0".into()
        }
    };
    let mut parts = text.trim().split('.').map(str::to_owned);
    match (parts.next(), parts.next()) {
        (Some(major), Some(minor)) => (major, minor),
        _ => panic!("xencontrol's version {text:?} is not understood"),
    }
}
