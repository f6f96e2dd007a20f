// SPDX-License-Identifier: LGPL-2.1-or-later
//! The C driver and the simulated devices, by C programs over Xen's own libraries.

mod support;

#[test]
fn libxenlight_sees_what_happens_to_domains() {
    support::run_c_tests(&support::compile("libxl", "-std=gnu99", &["xenlight", "xentoollog"]), 11);
}

#[test]
fn the_devices_behave_and_everything_else_is_left_alone() {
    support::run_c_tests(&support::compile("devices", "-std=gnu99", &["xenstore", "xencontrol", "xenevtchn"]), 13);
}

#[test]
fn the_header_is_good_c_and_good_cxx() {
    let header = concat!(env!("CARGO_MANIFEST_DIR"), "/include/xensim.h");
    for (compiler, language, standard) in
        [("cc", "c", "-std=c99"), ("cc", "c", "-std=c11"), ("c++", "c++", "-std=c++17")]
    {
        let status = std::process::Command::new(compiler)
            .args(["-x", language, standard, "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-fsyntax-only", header])
            .status()
            .unwrap();
        assert!(status.success(), "{compiler} {standard}");
    }
}

/// Each function that the header declares is there, and nothing is exported that is neither there nor stands in for a
/// function of the C library's or libxenevtchn's.
#[test]
fn the_library_exports_what_the_header_declares() {
    let header = include_str!("../include/xensim.h");
    let declared: Vec<&str> = header
        .lines()
        .filter(|line| !line.starts_with([' ', '#', '/']))
        .filter_map(|line| line.split_once('(').map(|(before, _)| before))
        .filter_map(|before| before.rsplit([' ', '*']).next())
        .filter(|name| name.starts_with("xensim_"))
        .collect();
    assert!(declared.len() > 25, "{declared:?}");
    let output = std::process::Command::new("nm")
        .args(["-D", "--defined-only", "--format=just-symbols"])
        .arg(support::library())
        .output()
        .unwrap();
    let exported = String::from_utf8(output.stdout).unwrap();
    let exported: Vec<&str> = exported.lines().filter(|name| name.starts_with("xensim")).collect();
    let mut sorted = declared.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, exported);
}
