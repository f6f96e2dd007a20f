// SPDX-License-Identifier: LGPL-2.1-or-later
//! Sequences of calls of the C interface, with anything that may happen to the host between them.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use xlevent_fuzz::application::{Application, Step, end_at_panics};

#[derive(Debug, Arbitrary)]
struct Input {
    /// Whether xenstored can watch single domains.
    features: bool,
    steps: Vec<Step>,
}

fuzz_target!(init: end_at_panics(), |input: Input| {
    let mut application = Application::begin(input.features);
    application.step(Step::Open { pollset: false });
    application.run(input.steps);
});
