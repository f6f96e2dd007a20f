// SPDX-License-Identifier: LGPL-2.1-or-later
//! What reads bytes that somebody else has written: names of disks, paths of backends, states, numbers of stub domains,
//! scripts' paths and what they leave behind. What is taken must be of the form that is written, and nothing else.
#![no_main]

use libfuzzer_sys::fuzz_target;
use xlevent::ao::device::{BackendState, Device, Kind};
use xlevent::ao::script::{self, Action, Found};
use xlevent::childproc::{End, Outcome, Said};
use xlevent::evgen::{disk_eject, vbd};
use xlevent_fuzz::application::end_at_panics;

/// There are none from here on.
const DOMID_LIMIT: u32 = 32752;

fuzz_target!(init: end_at_panics(), |input: &[u8]| {
    let before_zero = input.split(|byte| *byte == 0).next().unwrap_or_default();
    assert_eq!(disk_eject::says_eject(input), before_zero == b"eject");

    if let Some(devid) = vbd::devid(input) {
        assert!(devid <= i32::MAX as u32);
        // Nothing of a name gets anywhere: a number does, and is a name of the same disk.
        assert!(input.iter().all(u8::is_ascii_alphanumeric));
        assert_eq!(vbd::devid(devid.to_string().as_bytes()), Some(devid));
    }

    if let Some(domid) = vbd::stub_domain(input) {
        assert!((1..DOMID_LIMIT).contains(&domid));
        assert_eq!(before_zero.iter().copied().skip_while(|byte| *byte == b'0').collect::<Vec<u8>>(), domid.to_string().into_bytes());
    }

    let backend = vbd::backend(input);
    assert!(backend.domid < DOMID_LIMIT);
    if backend != vbd::Backend::default() {
        assert!(before_zero.starts_with(b"/local/domain/"));
        assert_eq!(before_zero.iter().filter(|byte| **byte == b'/').count(), 7);
    }

    // Which device it is said to be of is the path's own to say here; it is believed if it is exactly that.
    let numbers: Vec<u32> = before_zero
        .rsplitn(3, |byte| *byte == b'/')
        .filter_map(|part| std::str::from_utf8(part).ok()?.parse().ok())
        .collect();
    if let [devid, domid] = numbers[..] {
        let device = Device { domid, kind: Kind::Vbd, devid };
        if let Some(backend) = device.backend(input) {
            assert_eq!(backend.directory().as_bytes(), input, "another directory than was written");
            assert!(backend.domid < DOMID_LIMIT);
            assert!(backend.kind().bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'));
            assert!(Device { domid: domid ^ 1, ..device }.backend(input).is_none());
        }
    }

    let state = BackendState::of(input);
    if state != BackendState::of(b"") {
        assert_eq!(state.value().as_bytes(), input);
    }

    // A script is a path, whatever else it is, and reaches no shell: it is the program itself.
    let device = Device { domid: 5, kind: Kind::Vif, devid: 1 };
    let Some(backend) = device.backend(b"/local/domain/0/backend/vif/5/1") else { unreachable!() };
    let found = Found {
        script: Some(input.to_vec()),
        gateway_device: Some(input.to_vec()),
        interface_type: Some(input.to_vec()),
        has_stub_domain: false,
    };
    for run in script::runs(&backend) {
        match script::command(&backend, *run, Action::Remove, &found) {
            Ok(None) => {}
            Ok(Some(_)) => assert_eq!(before_zero.first(), Some(&b'/')),
            Err(_) => assert_ne!(before_zero.first(), Some(&b'/')),
        }
    }

    let status = input.first().copied().unwrap_or(1);
    let said = |pieces: &mut dyn Iterator<Item = &[u8]>| {
        let mut said = Said::default();
        pieces.for_each(|piece| said.push(piece));
        said.end();
        said
    };
    let output = said(&mut std::iter::once(input));
    // How it comes in is nothing to it.
    assert_eq!(output, said(&mut input.chunks(3)));
    let outcome = Outcome { end: End::Exited(status.into()), output, errors: said(&mut input.rchunks(7)), timed_out: false };
    let left = (input.len() & 1 == 0).then(|| String::from_utf8_lossy(input).into_owned());
    let (verdict, lines) = script::verdict(&outcome, || left);
    assert_eq!(verdict.is_ok(), status == 0);
    assert!(lines.len() <= 2 * 65);
    assert!(lines.iter().all(|(_, text)| text.len() < 1000 && !text.contains(char::is_control)));
});
