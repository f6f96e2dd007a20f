// SPDX-License-Identifier: LGPL-2.1-or-later
//! The library looks for libxenctrl's functions, and for those that libxenstore has since Xen 4.22, with the dynamic linker:
//! it is to find those of src/host.rs.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    for name in ["xc_interface_open", "xc_interface_close", "xc_domain_getinfolist", "xs_get_features_domain"] {
        println!("cargo:rustc-link-arg-bins=-Wl,--export-dynamic-symbol={name}");
    }
}
