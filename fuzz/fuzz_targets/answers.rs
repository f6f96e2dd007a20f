// SPDX-License-Identifier: LGPL-2.1-or-later
//! What the hypervisor answers: any records, in any order and number, to a context with generators of every kind.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use xlevent_fuzz::application::{Application, end_at_panics};
use xlevent_fuzz::input::{Domid, Errno, Incident, List};

#[derive(Debug, Arbitrary)]
struct Input {
    features: bool,
    happenings: Vec<Happening>,
}

#[derive(Debug, Arbitrary)]
enum Happening {
    Answers(Vec<List>),
    Fails(u8, Errno),
    Start(Domid),
    ShutDown(Domid, u8),
    End(Domid, bool),
    Turn,
}

fuzz_target!(init: end_at_panics(), |input: Input| {
    let mut application = Application::begin(input.features);
    application.follow_everything();
    for happening in input.happenings {
        match happening {
            Happening::Answers(lists) => {
                lists.into_iter().for_each(|list| application.befall(Incident::Answer(list)));
                application.turn();
            }
            Happening::Fails(times, errno) => application.befall(Incident::Fail { store: false, times, errno }),
            Happening::Start(domid) => application.befall(Incident::Start(domid)),
            Happening::ShutDown(domid, reason) => application.befall(Incident::ShutDown(domid, reason)),
            Happening::End(domid, gone) => application.befall(Incident::End(domid, gone)),
            Happening::Turn => application.turn(),
        }
    }
    application.end();
});
