// SPDX-License-Identifier: LGPL-2.1-or-later
//! Domain states: what becomes of a domain, or of all domains.

use std::ffi::c_int;

use super::ctx::libxl_ctx;
use super::entry::entry;
use super::evgen::enable;
use super::handle::{context, failed};
use crate::abi::*;
use crate::evgen::monitor::Key;
use crate::evgen::targets::Subject;

/// Any domain but the control domain. Not in a domain's range, nor libxl's number of no domain, which is all ones.
///
/// cbindgen:ignore
pub const LIBXL_DOMID_ANY: libxl_domid = 0xffff_fffe;

/// What `libxl_evgen_domain_state` names. Applications see the pointer alone.
pub struct libxl__evgen_domain_state {
    _opaque: (),
}

/// The handle of a generator of domain states. It is not an address: compare it, pass it on, nothing else.
pub type libxl_evgen_domain_state = libxl__evgen_domain_state;

/// Asks for what becomes of a domain, or of any domain.
///
/// `states` is a mask of event types, `(uint64_t)1 << LIBXL_EVENT_TYPE_...` each. Those that can be asked for:
///
/// - DOMAIN_SUSPENDED: the domain has shut down with reason 2, suspend: it is being saved, migrated or snapshotted.
/// - DOMAIN_RUNNING: it runs again, after it was suspended or had shut down. That it runs at all is no event.
/// - DOMAIN_SHUTDOWN, with the reason: it has shut down for another reason. A suspend is never told as a shutdown here,
///   whatever `XLEVENT_REPORT_SUSPEND` says.
/// - DOMAIN_DEATH: it is being destroyed, or gone. This comes once, after all else of that domain, and in place of what
///   else the same look would tell.
/// - DOMAIN_CREATED: there is a new domain. Only for any domain.
///
/// The events of a domain come in the order of its life, so that a program which takes snapshots can follow it: SUSPENDED,
/// RUNNING, SUSPENDED, RUNNING, SHUTDOWN, DEATH. The present state counts: a domain that is suspended, shut down, dead or
/// missing gives its event at once. All carry `domid`, the domain's own also where any was asked for, `user`, and in
/// `domuuid` its UUID where it could be learnt.
///
/// A domain's number may be given out again when the domain is gone. If that is noticed, the old domain's DEATH comes, and
/// nothing of the new one. (A generator of libxl_evenable_domain_death would follow the new one.) It is noticed when someone
/// looked in between; and otherwise if the domain has used less processor time than before, lives where the old one was dying,
/// is paravirtualised where the old one was not or the other way about, or, both paravirtualised, shares another page with the
/// hypervisor. Another UUID alone says nothing: a domain may be given one while it lives, as a migrated one is; that is no event,
/// and later events carry it.
///
/// With LIBXL_DOMID_ANY, all domains but the control domain, number 0, are told of. A generator begins with CREATED for each
/// domain that is there, in ascending order, followed by its present state; then it tells of what comes. Nothing falls in
/// between. Each domain gives CREATED once, DEATH once, and is then forgotten; another domain with its number is CREATED
/// again. CREATED is told when xenstored has been told of the domain, or earlier, if there was cause to look: nodes that the
/// toolstack writes into xenstore need not all be there yet.
///
/// What can be seen, and what can't. The library looks at domains when xenstored says that something has happened, finds out
/// what they are then, and tells how they came to be so.
///
/// - Nobody says that a domain runs again, so while a domain is suspended, and RUNNING has been asked for, the library
///   looks at it: after 10 ms, then at intervals that double up to a second. One that was suspended at two such looks and
///   has run in between, which its processor time shows, gives RUNNING and SUSPENDED. While no domain is suspended there are
///   no such looks. (A domain that had shut down for another reason and runs again is told of when there is cause to look. If
///   it has shut down again by then, another reason or more processor time says so: RUNNING and SHUTDOWN.)
/// - A domain that is suspended and runs again before the library looks has run all the time as far as anyone can see: an
///   application that doesn't come to its event loop meanwhile misses both, never one of them.
/// - Where a toolstack has subscribed to a guest's suspend event channel, a suspend raises that channel, and not what
///   xenstored waits for. Its SUSPENDED is told if there is a look for another reason while it lasts, else not at all, and
///   then neither is its RUNNING.
/// - A toolstack that lets a domain run again must tell xenstored, as libxl does; or xenstored will not fire for the
///   domain's next suspend or shutdown.
/// - A domain that xenstored is never told of is noticed when something happens to another; from then on, or if it was asked
///   for by its number, it is looked at each second at the latest. So are all domains that xenstored has forgotten, since it has
///   crashed, until it knows them again.
///
/// Several generators may be about one domain; each gives its own events, and those of libxl_evenable_domain_death give
/// theirs, of their two types, as if there were no others. What one look finds comes in ascending order of domains, and of one
/// domain's generators that enabled last speaks first.
///
/// Returns 0 and a handle in `*evgen_out`; ERROR_INVAL for a NULL or unknown `ctx`, a NULL `evgen_out`, a `domid` that no
/// domain can have, a `states` that is 0 or has other bits; otherwise as libxl_evenable_domain_death. On an error nothing is
/// left behind, `*evgen_out` is as it was, and a later try may succeed. May be called from any thread and from event
/// callbacks.
///
/// # Safety
///
/// `evgen_out` is NULL or points to a writable pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn libxl_evenable_domain_state(
    ctx: *mut libxl_ctx,
    domid: u32,
    states: u64,
    user: libxl_ev_user,
    evgen_out: *mut *mut libxl_evgen_domain_state,
) -> c_int {
    entry!("libxl_evenable_domain_state", ERROR_FAIL, {
        let name = "libxl_evenable_domain_state";
        let (subject, whose) = subject(domid);
        // SAFETY: the caller's promise is the same.
        unsafe { enable(name, ctx, evgen_out, whose, |context| context.enable_domain_state(subject, states, user)) }
    })
}

/// What a domid asks for, and how it is called in a log line.
pub(super) fn subject(domid: u32) -> (Subject, String) {
    match domid {
        LIBXL_DOMID_ANY => (Subject::Any, "any domain".to_owned()),
        _ => (Subject::Domain(domid), format!("domain {domid}")),
    }
}

/// Stops a generator of domain states, and makes its handle invalid.
///
/// As libxl_evdisable_domain_death: events that it has produced are still delivered, NULL does nothing, and an unknown
/// handle, that of another kind of generator too, is logged and ignored. May be called from any thread and from event
/// callbacks.
///
/// # Safety
///
/// No requirement beyond those of all functions: the handle is looked up, not followed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn libxl_evdisable_domain_state(ctx: *mut libxl_ctx, evgen: *mut libxl_evgen_domain_state) {
    entry!("libxl_evdisable_domain_state", (), {
        let name = "libxl_evdisable_domain_state";
        if evgen.is_null() {
            return;
        }
        let Ok(context) = context(name, ctx) else { return };
        if let Err(error) = context.disable_domain_state(Key::from(evgen.addr() as u64)) {
            failed(&context, name, &error);
        }
    })
}
