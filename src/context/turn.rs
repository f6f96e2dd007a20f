// SPDX-License-Identifier: LGPL-2.1-or-later
//! A turn: takes in all that has become ready, without waiting.

use std::sync::atomic::Ordering;
use std::time::Duration;

use nix::errno::Errno;

use super::arming::Watch;
use super::outbox::Item;
use super::tasks::TaskId;
use super::{Context, State, TimeoutId};
use crate::event::Event;
use crate::evgen::disk_eject::DriveId;
use crate::evgen::domain_death::Report;
use crate::evgen::snapshot::Snapshot;
use crate::reactor::now;
use crate::xen::log::{Level, Line};
use crate::xen::store::Store;

/// What a source in the reactor is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Token {
    /// The reactor's timer.
    Timer,
    /// Watches have fired.
    Watch,
    /// The connection to xenstored on which nothing waits: its end, or answers.
    Idle,
    /// The same to a daemon that may be in the place of one that has gone.
    Probe,
    /// SIGCHLD.
    Sigchld,
    /// A child of ours may have ended.
    ChildEnd(u32),
    /// A child of ours has written something.
    ChildOutput(u32),
    /// A descriptor of libxenlight's. The version tells one from an earlier one of the same number.
    Libxl { fd: i32, version: u32 },
}

const LIBXL: u64 = 1 << 63;
const CHILD_END: u64 = 1 << 32;
const CHILD_OUTPUT: u64 = 2 << 32;

impl From<Token> for u64 {
    fn from(token: Token) -> u64 {
        match token {
            Token::Timer => 0,
            Token::Watch => 1,
            Token::Idle => 2,
            Token::Sigchld => 3,
            Token::Probe => 4,
            Token::ChildEnd(id) => CHILD_END | u64::from(id),
            Token::ChildOutput(id) => CHILD_OUTPUT | u64::from(id),
            // A descriptor isn't negative; the version keeps 31 bits.
            Token::Libxl { fd, version } => LIBXL | (u64::from(version) << 32) | u64::from(fd.unsigned_abs()),
        }
    }
}

impl From<u64> for Token {
    fn from(token: u64) -> Token {
        match token {
            0 => Token::Timer,
            1 => Token::Watch,
            2 => Token::Idle,
            3 => Token::Sigchld,
            4 => Token::Probe,
            _ if token >> 32 == CHILD_END >> 32 => Token::ChildEnd(token as u32),
            _ if token >> 32 == CHILD_OUTPUT >> 32 => Token::ChildOutput(token as u32),
            _ => Token::Libxl { fd: token as i32, version: (token >> 32) as u32 & VERSION_MASK },
        }
    }
}

impl State {
    /// Whether there is what this token stands for.
    fn knows(&self, token: Token) -> bool {
        match token {
            Token::Timer => true,
            Token::Watch | Token::Idle => self.store.is_some(),
            Token::Probe => self.outage.as_ref().is_some_and(|outage| outage.probe().is_some()),
            Token::Sigchld => self.children.catches_sigchld(),
            Token::ChildEnd(id) | Token::ChildOutput(id) => self.children.knows(id),
            Token::Libxl { fd, version } => self.companion.knows(fd, version),
        }
    }
}

/// What a token can carry of a version.
pub(super) const VERSION_MASK: u32 = u32::MAX >> 1;

/// What is done when its time has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Later {
    /// Look at the domains of new generators.
    Fresh,
    /// Do what another context has left to be done here.
    Flush,
    /// Look at all domains again: the last scan failed.
    Rescan,
    /// Look at the domains that are suspended.
    ResumeLook,
    /// Look at the domains that xenstored doesn't know.
    Strangers,
    /// Look for xenstored again.
    Reconnect,
    /// See whether the connection to it still lives.
    Pulse,
    /// Set or give up watches for domains.
    Retarget,
    /// Look at a drive again: the last look failed, or its watch has fired meanwhile.
    Drive(DriveId),
    /// A task's time has passed.
    Task(TaskId),
    /// Call libxenlight for descriptors that are always ready.
    AlwaysReady,
    /// Look at a child of ours.
    Child(u32),
    /// Write what is held back of lines that have repeated.
    HeldLines,
    /// A timeout of libxenlight's.
    Libxl(TimeoutId),
}

/// What xenstored's firings give cause to look at.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Looks {
    /// All domains.
    pub(super) all: bool,
    /// Some, which the generators know.
    pub(super) asked: bool,
}

/// A failed scan is tried again after 1, 10, 100 ms; then it is a disaster. If the application survives that, once a second.
const RESCAN_TRIES: u32 = 3;
pub(super) const RESCAN_LAST: Duration = Duration::from_secs(1);

/// Firings that one turn takes off xenstored's queue; the descriptor stays readable if there are more.
const FIRINGS_AT_ONCE: usize = 10_000;

/// The application's loop will look at the queue after this: an event needn't wake it.
struct ApplicationHere<'a> {
    state: &'a mut State,
}

impl<'a> ApplicationHere<'a> {
    fn raise(state: &'a mut State) -> Self {
        state.application_here = true;
        ApplicationHere { state }
    }
}

impl Drop for ApplicationHere<'_> {
    fn drop(&mut self) {
        self.state.application_here = false;
    }
}

impl Context {
    /// A turn for the application's own loop, which has found our descriptor readable.
    pub fn occurred(&self) {
        let mut state = self.state.lock();
        let announced = state.application_woken;
        if announced {
            state.application_woken = false;
            self.reactor.quiet_application();
        }
        let here = ApplicationHere::raise(&mut state);
        let found_nothing = self.turn(here.state) == 0;
        drop(here);
        if found_nothing && !announced {
            // As when the number is another file's.
            self.reactor.outer_is_ours();
        }
        self.flush(state);
    }

    /// Whether a deadline has passed that nobody has acted upon.
    pub fn overdue(&self) -> bool {
        self.state.lock().timers.earliest().is_some_and(|deadline| deadline <= now())
    }

    /// Takes in what is ready; how much that was.
    pub(super) fn turn(&self, state: &mut State) -> usize {
        self.in_turn(state, |state| self.take_turn(state))
    }

    fn take_turn(&self, state: &mut State) -> usize {
        self.stirred.store(false, Ordering::Relaxed);
        state.counts.turns += 1;
        let (mut all, mut fresh, mut asked) = (false, false, false);
        let (mut ready_count, mut strays) = (0, 0);
        for ready in self.reactor.ready() {
            ready_count += 1;
            let token = Token::from(ready.token);
            strays += usize::from(!state.knows(token));
            match token {
                Token::Watch => {
                    let looks = self.drain_watches(state);
                    all |= looks.all;
                    asked |= looks.asked;
                }
                Token::Idle => asked |= self.take_answers(state),
                Token::Probe => self.probe_answered(state),
                Token::Libxl { fd, version } => state.companion.ready(fd, version, ready.revents, &mut state.outbox),
                Token::Sigchld => self.sigchld(state),
                Token::ChildEnd(id) => self.look_at_child(state, id),
                Token::ChildOutput(id) => self.read_child(state, id),
                Token::Timer => {
                    self.reactor.quiet_timer();
                    let now = now();
                    while let Some(due) = state.timers.pop_due(now) {
                        match due {
                            Later::Fresh => {
                                state.fresh_due = false;
                                fresh = true;
                            }
                            // Who takes a turn empties the outbox after it.
                            Later::Flush => state.flush_due = false,
                            Later::Rescan => {
                                state.rescan_due = false;
                                all = true;
                            }
                            Later::ResumeLook => {
                                self.resume_look_due(state);
                                asked = true;
                            }
                            Later::Strangers => {
                                self.stranger_look_due(state);
                                asked = true;
                            }
                            Later::Reconnect => self.look_for_xenstored(state),
                            Later::Pulse => {
                                state.pulse = None;
                                self.plan_pulse(state);
                            }
                            Later::Retarget => {
                                state.retarget = None;
                                state.outbox.push_back(Item::Retarget);
                            }
                            Later::Drive(id) => state.retry_look(id),
                            Later::Task(id) => state.task_time_up(id),
                            Later::AlwaysReady => self.always_ready(state),
                            Later::Child(id) => self.look_at_child(state, id),
                            Later::HeldLines => state.outbox.push_back(Item::HeldLines),
                            Later::Libxl(id) => state.companion.passed(id, &mut state.outbox),
                        }
                    }
                    if let Some(deadline) = state.timers.earliest() {
                        self.reactor.set_timer(deadline);
                    }
                    // Its end makes nothing readable where it is libxenstore's own doing.
                    let looks = self.drain_watches(state);
                    all |= looks.all;
                    asked |= looks.asked;
                }
            }
        }
        #[cfg(test)]
        state.pass(super::aftermath::Place::Turn);
        if ready_count > 0 {
            self.note_strays(state, strays == ready_count);
        }
        if all {
            self.scan_with_neighbours(state);
        } else if fresh || asked {
            self.scan(state, false);
        }
        self.ask_about_strangers(state);
        ready_count
    }

    /// Takes all firings off xenstored's queue, so that a burst is one scan; says what there is to look at. Drives whose
    /// watches have fired are looked at from the outbox.
    pub(super) fn drain_watches(&self, state: &mut State) -> Looks {
        let mut looks = Looks::default();
        // Taking one reads from libxenstore's pipe.
        if !self.store_is_ours(state) {
            return looks;
        }
        for _ in 0..FIRINGS_AT_ONCE {
            let firing = match state.store.as_ref().map(Store::take_firing) {
                Some(Ok(Some(firing))) => firing,
                Some(Ok(None)) | None => break,
                Some(Err(errno)) => {
                    looks.all = true;
                    self.firing_lost(state, errno);
                    break;
                }
            };
            match Watch::of(firing.token()) {
                // It says that something may have become of that domain, and no more.
                Some(Watch::Release) => {
                    state.counts.releases += 1;
                    state.strangers.fired();
                    match firing.domid() {
                        Some(domid) => looks.asked |= state.domains.ask(domid),
                        None => looks.all = true,
                    }
                }
                Some(Watch::Introduce) => {
                    state.counts.introductions += 1;
                    looks.all = true;
                }
                Some(Watch::Drive(id)) => state.ask_for_look(id),
                Some(Watch::Task(id)) => state.task_fired(id),
                None => {}
            }
        }
        looks
    }

    /// Something has fired and can't be told, or nothing will fire any more. What may have happened is looked at, since
    /// state is read, not counted.
    fn firing_lost(&self, state: &mut State, errno: Errno) {
        state.strangers.fired();
        if errno == Errno::EINVAL {
            // Without generators a dead connection hurts nobody; the next enable makes another.
            if state.armed {
                self.store_lost(state, "the connection to xenstored has ended");
            }
            return;
        }
        let text = "a message of xenstored's is lost; everything is looked at".to_owned();
        state.outbox.push_back(Item::Log(Line::new(Level::Warn, text).with_errno(errno)));
        let drives: Vec<DriveId> = state.drives.watched().map(|(id, _)| id).collect();
        drives.into_iter().for_each(|id| state.ask_for_look(id));
        state.all_tasks_fired();
    }

    /// Asks the hypervisor about all watched domains, or about those of new generators and those asked for.
    pub(super) fn scan(&self, state: &mut State, all: bool) {
        // What libxenctrl has the number of may be the application's then.
        if state.domains.is_empty() || self.is_stolen() {
            return;
        }
        match all {
            true => state.counts.scans += 1,
            false => state.counts.partial_scans += 1,
        }
        let (mut reports, mut starved) = (Vec::new(), false);
        let result = match &mut state.hypervisor {
            Some(hypervisor) => {
                let tell = &mut |_, report| starved |= !keep(&mut reports, report);
                let result = match all {
                    true => state.domains.scan(hypervisor, tell),
                    false => state.domains.scan_fresh(hypervisor, tell),
                };
                state.outbox.extend(hypervisor.take_log().into_iter().map(Item::Log));
                result
            }
            // There is one as soon as there is a generator (`arm`).
            None => Err(Errno::EBADF),
        };
        state.starved |= starved;
        self.scanned(state, &reports, result);
    }

    /// Goes through all watched domains in a look that was taken with this context's lock held.
    pub(super) fn scan_found(&self, state: &mut State, found: &mut Result<Snapshot, Errno>) {
        if state.domains.is_empty() || self.is_stolen() {
            return;
        }
        state.counts.scans += 1;
        let (mut reports, mut starved) = (Vec::new(), false);
        let tell = &mut |_, report| starved |= !keep(&mut reports, report);
        let result = match found {
            Ok(snapshot) => state.domains.scan_found(snapshot, tell),
            Err(errno) => Err(*errno),
        };
        state.starved |= starved;
        self.scanned(state, &reports, result);
    }

    fn scanned(&self, state: &mut State, reports: &[Report], result: Result<(), Errno>) {
        // What a failed scan has found out before it failed is as good as any.
        reports.iter().for_each(|report| self.report(state, report));
        state.domains.take_newcomers().into_iter().for_each(|domid| state.strangers.note(domid));
        state.domains.take_resetting().into_iter().for_each(|domid| state.strangers.note_reset(domid));
        match result {
            Ok(()) => state.failed_scans = 0,
            Err(errno) => self.scan_failed(state, errno),
        }
        self.plan_resume_look(state);
    }

    /// Nothing is lost by a failed scan, since state is looked at, not counted; so it is simply tried again: once, however many
    /// have failed by then. Each firing meanwhile is a try, too.
    fn scan_failed(&self, state: &mut State, errno: Errno) {
        // Another reason than the hypervisor's.
        if !self.reactor.is_ours() {
            return;
        }
        let what = "asking the hypervisor for its domains";
        let transient = matches!(errno, Errno::EINTR | Errno::EAGAIN | Errno::EBUSY | Errno::ENOMEM);
        let tries = state.failed_scans;
        state.failed_scans = tries.saturating_add(1);
        state.counts.failed_scans += 1;
        if tries == 0 {
            state.outbox.push_back(Item::Log(Line::new(Level::Error, what).with_errno(errno)));
        }
        let pause = if transient && tries < RESCAN_TRIES {
            Duration::from_millis(10u64.pow(tries))
        } else {
            if tries == 0 || tries == RESCAN_TRIES && transient {
                state.outbox.push_back(Item::Disaster { message: what.to_owned(), errno: errno as i32 });
            }
            RESCAN_LAST
        };
        if !state.rescan_due {
            state.rescan_due = true;
            self.schedule(state, now() + pause, Later::Rescan);
        }
    }

    fn report(&self, state: &mut State, report: &Report) {
        self.deliver_new(state, report.recipient, Event::from_report(report), report.domid);
    }
}

/// Adds a report to those that a look has brought; false if there is no memory for it. They may be as many as generators.
fn keep(reports: &mut Vec<Report>, report: Report) -> bool {
    // Asked only when it is needed: each report passes here.
    let room = reports.len() < reports.capacity() || reports.try_reserve(1).is_ok();
    if room {
        reports.push(report);
    }
    room
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_come_back_as_they_went() {
        let libxl = |fd, version| Token::Libxl { fd, version };
        let own = [Token::Timer, Token::Watch, Token::Idle, Token::Probe, Token::Sigchld];
        let children =
            [Token::ChildEnd(0), Token::ChildOutput(0), Token::ChildEnd(u32::MAX), Token::ChildOutput(u32::MAX)];
        let libxl = [libxl(0, 0), libxl(3, 7), libxl(i32::MAX, VERSION_MASK)];
        for token in own.into_iter().chain(children).chain(libxl) {
            assert_eq!(Token::from(u64::from(token)), token);
        }
    }
}
