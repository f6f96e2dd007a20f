// SPDX-License-Identifier: LGPL-2.1-or-later
//! Every edge of the machine.

use super::course::*;
use super::device::{Device, Kind};
use super::nodes::Closing;
use super::script::{Action, Run};
use crate::error::{Error, Result};

fn facts(kind: Kind, backend: &str) -> Facts {
    let device = Device { domid: 5, kind, devid: 1 };
    let backend = device.backend(backend.as_bytes()).unwrap();
    Facts { backend, own_domid: 0, guest_absent: false }
}

fn disk() -> Facts {
    facts(Kind::Vbd, "/local/domain/0/backend/vbd/5/1")
}

fn qemus_disk() -> Facts {
    facts(Kind::Vbd, "/local/domain/0/backend/qdisk/5/1")
}

fn driver_domains_disk() -> Facts {
    facts(Kind::Vbd, "/local/domain/7/backend/vbd/5/1")
}

fn interface() -> Facts {
    facts(Kind::Vif, "/local/domain/0/backend/vif/5/1")
}

const AWAIT_CLOSED: Step = Step::Await(Awaited::Closed, CLOSE_LIMIT);
const AWAIT_GONE: Step = Step::Await(Awaited::Gone, CLOSE_LIMIT);
const AWAIT_READY: Step = Step::Await(Awaited::Ready, READY_LIMIT);
const CLOSE: Step = Step::Close { cut_off: false };
const CUT_OFF: Step = Step::Close { cut_off: true };
const TOLD: Input = Input::Closing(Closing::Told);
const NO_BACKEND: Input = Input::Closing(Closing::Gone);
const REMOVE_SCRIPT: Step = Step::Script(Run::Disk, Action::Remove);
const ADD_SCRIPT: Step = Step::Script(Run::Disk, Action::Add);
const SUCCESS: Step = Step::End(Ok(()));

fn failure() -> Error {
    Error::Failed("on purpose".to_owned())
}

fn failed() -> Input {
    Input::Failed(failure())
}

fn in_vain() -> Step {
    Step::End(Err(failure()))
}

/// A course, with the answers that it gets and what it does after each.
struct Walk(Course);

impl Walk {
    fn begin(goal: Goal, facts: Facts, first: Step) -> Walk {
        let (course, step) = Course::begin(goal, facts);
        assert_eq!(step, first);
        Walk(course)
    }

    fn on(mut self, input: Input, step: Step) -> Walk {
        let from = self.0.state();
        assert_eq!(self.0.next(input.clone()), step, "{input:?} in {from:?}");
        assert_eq!(self.0.state() == State::Ended, matches!(step, Step::End(_)));
        self
    }

    /// The next step is the end, because something took too long.
    fn times_out(mut self, input: Input) {
        match self.0.next(input) {
            Step::End(Err(Error::TimedOut(_))) => {}
            step => panic!("{step:?}"),
        }
    }
}

fn remove(force: Force, facts: Facts) -> Walk {
    let first = if force == Force::Now { CUT_OFF } else { CLOSE };
    Walk::begin(Goal::Remove(force), facts, first)
}

#[test]
fn a_backend_that_closes_has_its_script_run_and_its_nodes_removed() {
    for force in [Force::Late, Force::Now, Force::Never] {
        let walk = remove(force, disk()).on(TOLD, AWAIT_CLOSED).on(Input::Reached, REMOVE_SCRIPT);
        walk.on(Input::Done, Step::CleanUp).on(Input::Done, SUCCESS);
    }
}

#[test]
fn without_a_backend_or_when_it_vanishes_the_nodes_alone_are_removed() {
    for force in [Force::Late, Force::Now, Force::Never] {
        remove(force, disk()).on(NO_BACKEND, Step::CleanUp).on(Input::Done, SUCCESS);
        remove(force, disk()).on(TOLD, AWAIT_CLOSED).on(Input::Gone, Step::CleanUp).on(Input::Done, SUCCESS);
    }
}

#[test]
fn a_backend_that_does_not_close_is_cut_off_and_has_its_time_again() {
    let late = || remove(Force::Late, disk()).on(TOLD, AWAIT_CLOSED).on(Input::TimeUp, CUT_OFF);
    let answered = late().on(TOLD, AWAIT_CLOSED).on(Input::Reached, REMOVE_SCRIPT);
    answered.on(Input::Done, Step::CleanUp).on(Input::Done, SUCCESS);
    late().on(NO_BACKEND, Step::CleanUp).on(Input::Done, SUCCESS);
    late().on(TOLD, AWAIT_CLOSED).on(Input::Gone, Step::CleanUp).on(Input::Done, SUCCESS);
    late().on(TOLD, AWAIT_CLOSED).on(Input::TimeUp, Step::CleanUp).times_out(Input::Done);
}

#[test]
fn by_force_it_has_its_time_once_and_without_force_the_removal_fails_then() {
    let now = remove(Force::Now, disk()).on(TOLD, AWAIT_CLOSED);
    now.on(Input::TimeUp, Step::CleanUp).times_out(Input::Done);
    remove(Force::Never, disk()).on(TOLD, AWAIT_CLOSED).times_out(Input::TimeUp);
}

#[test]
fn nodes_that_cannot_be_removed_after_all_leave_the_first_failure() {
    let late = remove(Force::Now, disk()).on(TOLD, AWAIT_CLOSED).on(Input::TimeUp, Step::CleanUp);
    late.times_out(failed());
}

#[test]
fn qemu_has_time_to_leave_when_its_guest_is_no_more() {
    let absent = Facts { guest_absent: true, ..qemus_disk() };
    for force in [Force::Late, Force::Now, Force::Never] {
        let walk = Walk::begin(Goal::Remove(force), absent.clone(), Step::Pause(QEMU_LEAVES));
        let walk = walk.on(Input::TimeUp, Step::SetClosed);
        // It has no script.
        walk.on(Input::Done, Step::CleanUp).on(Input::Done, SUCCESS);
    }
    let walk = Walk::begin(Goal::Remove(Force::Now), absent.clone(), Step::Pause(QEMU_LEAVES));
    walk.on(Input::TimeUp, Step::SetClosed).on(failed(), in_vain());
    // It is asked like any other while the guest is there, and by a driver domain; and so is another backend.
    remove(Force::Late, qemus_disk());
    remove(Force::Late, Facts { own_domid: 7, ..absent });
    remove(Force::Late, Facts { guest_absent: true, ..disk() });
}

#[test]
fn qemus_backend_in_another_domain_is_removed_there() {
    let facts = facts(Kind::Vbd, "/local/domain/7/backend/qdisk/5/1");
    let absent = Facts { guest_absent: true, ..facts };
    let walk = Walk::begin(Goal::Remove(Force::Late), absent, Step::Pause(QEMU_LEAVES));
    let walk = walk.on(Input::TimeUp, Step::SetClosed).on(Input::Done, AWAIT_GONE);
    walk.on(Input::Reached, Step::CleanUp).on(Input::Done, SUCCESS);
}

#[test]
fn another_domains_backend_has_no_script_here_and_is_awaited_until_it_is_gone() {
    for force in [Force::Late, Force::Now, Force::Never] {
        let walk = remove(force, driver_domains_disk()).on(TOLD, AWAIT_CLOSED).on(Input::Reached, AWAIT_GONE);
        walk.on(Input::Reached, Step::CleanUp).on(Input::Done, SUCCESS);
    }
    for force in [Force::Late, Force::Never] {
        let walk = remove(force, driver_domains_disk()).on(TOLD, AWAIT_CLOSED).on(Input::Reached, AWAIT_GONE);
        walk.times_out(Input::TimeUp);
    }
    let walk = remove(Force::Now, driver_domains_disk()).on(TOLD, AWAIT_CLOSED).on(Input::Reached, AWAIT_GONE);
    walk.on(Input::TimeUp, Step::CleanUp).times_out(Input::Done);
    let walk = remove(Force::Never, driver_domains_disk()).on(TOLD, AWAIT_CLOSED).on(Input::Reached, AWAIT_GONE);
    walk.on(failed(), in_vain());
}

#[test]
fn in_a_driver_domain_its_own_backends_have_their_scripts_run() {
    let facts = Facts { own_domid: 7, ..driver_domains_disk() };
    remove(Force::Late, facts).on(TOLD, AWAIT_CLOSED).on(Input::Reached, REMOVE_SCRIPT);
}

#[test]
fn a_script_that_fails_leaves_the_nodes_unless_by_force() {
    for force in [Force::Late, Force::Never] {
        let walk = remove(force, disk()).on(TOLD, AWAIT_CLOSED).on(Input::Reached, REMOVE_SCRIPT);
        walk.on(failed(), in_vain());
    }
    let walk = remove(Force::Now, disk()).on(TOLD, AWAIT_CLOSED).on(Input::Reached, REMOVE_SCRIPT);
    walk.on(failed(), Step::CleanUp).on(Input::Done, in_vain());
}

#[test]
fn an_interface_has_two_scripts_and_the_second_is_run_also_when_the_first_fails() {
    let (first, second) =
        (Step::Script(Run::Interface, Action::Remove), Step::Script(Run::EmulatedInterface, Action::Remove));
    let closed = || remove(Force::Late, interface()).on(TOLD, AWAIT_CLOSED).on(Input::Reached, first.clone());
    closed().on(Input::Done, second.clone()).on(Input::Done, Step::CleanUp).on(Input::Done, SUCCESS);
    let other = || Input::Failed(Error::Failed("later".to_owned()));
    closed().on(failed(), second.clone()).on(Input::Done, in_vain());
    closed().on(failed(), second.clone()).on(other(), in_vain());
}

#[test]
fn a_change_of_nodes_that_fails_is_the_end() {
    remove(Force::Late, disk()).on(failed(), in_vain());
    remove(Force::Late, disk()).on(TOLD, AWAIT_CLOSED).on(failed(), in_vain());
    remove(Force::Late, disk()).on(TOLD, AWAIT_CLOSED).on(Input::TimeUp, CUT_OFF).on(failed(), in_vain());
    let closed = remove(Force::Late, disk()).on(TOLD, AWAIT_CLOSED).on(Input::Reached, REMOVE_SCRIPT);
    closed.on(Input::Done, Step::CleanUp).on(failed(), in_vain());
}

fn connect(facts: Facts) -> Walk {
    Walk::begin(Goal::Connect, facts, AWAIT_READY)
}

#[test]
fn a_backend_that_is_ready_has_its_script_run() {
    connect(disk()).on(Input::Reached, ADD_SCRIPT).on(Input::Done, SUCCESS);
    let interface = connect(interface()).on(Input::Reached, Step::Script(Run::Interface, Action::Add));
    let interface = interface.on(Input::Done, Step::Script(Run::EmulatedInterface, Action::Add));
    interface.on(Input::Done, SUCCESS);
    connect(driver_domains_disk()).on(Input::Reached, SUCCESS);
    Walk::begin(Goal::Connect, qemus_disk(), SUCCESS);
}

#[test]
fn what_fails_while_a_device_is_connected_is_undone() {
    let undone = |walk: Walk| {
        let walk = walk.on(TOLD, AWAIT_CLOSED).on(Input::Reached, REMOVE_SCRIPT);
        walk.on(Input::Done, Step::CleanUp)
    };
    undone(connect(disk()).on(Input::TimeUp, CUT_OFF)).times_out(Input::Done);
    undone(connect(disk()).on(failed(), CUT_OFF)).on(Input::Done, in_vain());
    let script = |input| connect(disk()).on(Input::Reached, ADD_SCRIPT).on(input, CUT_OFF);
    undone(script(failed())).on(Input::Done, in_vain());
    // The first failure stays the result, whatever comes of the removal.
    let other = || Input::Failed(Error::Failed("later".to_owned()));
    script(failed()).on(other(), in_vain());
    script(failed()).on(TOLD, AWAIT_CLOSED).on(Input::TimeUp, Step::CleanUp).on(Input::Done, in_vain());
    let walk = script(failed()).on(TOLD, AWAIT_CLOSED).on(Input::Reached, REMOVE_SCRIPT);
    walk.on(other(), Step::CleanUp).on(Input::Done, in_vain());
}

#[test]
fn a_backend_that_vanishes_while_it_is_awaited_is_a_failure() {
    let (mut course, _) = Course::begin(Goal::Connect, disk());
    assert_eq!(course.next(Input::Gone), CUT_OFF);
    assert_eq!(course.next(NO_BACKEND), Step::CleanUp);
    assert!(matches!(course.next(Input::Done), Step::End(Err(Error::Failed(_)))));
}

#[test]
fn being_called_off_is_the_end_in_every_state() {
    let absent = Facts { guest_absent: true, ..qemus_disk() };
    let called_off = |walk: Walk| drop(walk.on(Input::Aborted, Step::End(Err(Error::Aborted))));
    called_off(connect(disk()));
    called_off(connect(disk()).on(Input::Reached, ADD_SCRIPT));
    called_off(connect(disk()).on(failed(), CUT_OFF));
    called_off(Walk::begin(Goal::Remove(Force::Late), absent.clone(), Step::Pause(QEMU_LEAVES)));
    let leaving = Walk::begin(Goal::Remove(Force::Late), absent, Step::Pause(QEMU_LEAVES));
    called_off(leaving.on(Input::TimeUp, Step::SetClosed));
    called_off(remove(Force::Late, disk()));
    called_off(remove(Force::Late, disk()).on(TOLD, AWAIT_CLOSED));
    let closed = |facts, step| remove(Force::Late, facts).on(TOLD, AWAIT_CLOSED).on(Input::Reached, step);
    called_off(closed(disk(), REMOVE_SCRIPT));
    called_off(closed(disk(), REMOVE_SCRIPT).on(Input::Done, Step::CleanUp));
    called_off(closed(driver_domains_disk(), AWAIT_GONE));
}

#[test]
fn an_answer_to_another_question_is_an_end_too_and_no_crash() {
    let (mut course, _) = Course::begin(Goal::Remove(Force::Late), disk());
    let ended: Result<()> = match course.next(Input::Reached) {
        Step::End(result) => result,
        step => panic!("{step:?}"),
    };
    assert!(matches!(ended, Err(Error::Failed(_))));
}
