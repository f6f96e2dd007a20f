// SPDX-License-Identifier: LGPL-2.1-or-later
//! What xenstored hands out: firings with any path and token, nodes with any value, of guests, backends and drives that a
//! context follows with generators of every kind and an operation for each of two devices.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use xlevent_fuzz::application::{Application, end_at_panics};
use xlevent_fuzz::input::{Path, Token, Value};

#[derive(Debug, Arbitrary)]
struct Input {
    features: bool,
    happenings: Vec<Happening>,
}

#[derive(Debug, Arbitrary)]
enum Happening {
    Write(Path, Value),
    Fire(Path, Token),
    FireMany(Path, Token, u8),
    Remove(Path),
    Turn,
}

fuzz_target!(init: end_at_panics(), |input: Input| {
    use xlevent_fuzz::host;
    let mut application = Application::begin(input.features);
    application.follow_everything();
    for happening in input.happenings {
        match happening {
            Happening::Write(path, value) => host::write(&path.bytes(), &value.bytes()),
            Happening::Fire(path, token) => host::fire(&path.bytes(), &token.bytes()),
            Happening::FireMany(path, token, times) => {
                let (path, token) = (path.bytes(), token.bytes());
                (0..times).for_each(|_| host::fire(&path, &token));
            }
            Happening::Remove(path) => host::remove(&path.bytes()),
            Happening::Turn => application.turn(),
        }
    }
    application.end();
});
