// SPDX-License-Identifier: LGPL-2.1-or-later
//! For programs with a loop of their own: the one descriptor, and a table of handlers.

use std::ffi::{c_int, c_void};
use std::os::fd::AsRawFd;

use super::ctx::libxl_ctx;
use super::entry::entry;
use super::handle::{context, failed, invalid};
use super::osevent::occurrence;
use crate::abi::*;
use crate::event::Event;
use crate::reactor::stolen;

/// Gives the one descriptor that a context's work announces itself by, for epoll, libuv, GLib, select or an async runtime.
///
/// Wait for it to become readable, and then call xlevent_dispatch (or libxl_osevent_afterpoll with a pollfd that holds it);
/// wait for nothing else of it, and don't read from it. It is the same descriptor that libxl_osevent_beforepoll fills in and
/// fd_register is given, also beside libxenlight, whose own work it announces too. The library's timers make it readable, so
/// that no timeout is needed.
///
/// It is readable as long as there is something to take in (a level), and once (an edge) after an event has been queued by
/// another thread's call or outside of the call that you make when it is readable. Both end with that call. An event that
/// stays in the queue after it does not make it readable again: fetch all that you want each time. Since an event may be
/// there already, call xlevent_dispatch or libxl_event_check once before the first wait. With an edge-triggered wait
/// (EPOLLET) go on until the descriptor is no longer readable; a level-triggered one is simpler and costs no more.
///
/// One loop should wait for it: what it announces is announced once, to whoever comes first. That loop looks for the events
/// of those subscribers, too, that don't wait in a thread.
///
/// The descriptor is the library's: never close it (libxl_ctx_alloc says what happens if it is closed). It is valid until the context is freed; take it out of the loop before
/// that. A child that is forked must not use it.
///
/// Returns the descriptor; ERROR_INVAL for a NULL or unknown `ctx`; ERROR_FAIL if there is no descriptor to be had, which a
/// later call may find otherwise, or if the library's descriptors were closed. Errors are negative, descriptors are not.
///
/// # Safety
///
/// No requirement: the context is looked up, not followed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xlevent_get_fd(ctx: *mut libxl_ctx) -> c_int {
    entry!("xlevent_get_fd", ERROR_FAIL, {
        let name = "xlevent_get_fd";
        let context = match context(name, ctx) {
            Ok(context) => context,
            Err(rc) => return rc,
        };
        let fd = context.check_descriptors().and_then(|()| context.fd());
        fd.map_or_else(|error| failed(&context, name, &error), |fd| fd.as_raw_fd())
    })
}

/// Stands in a table of handlers for all types of event that the table does not name, and ends it.
pub const XLEVENT_ALL_OTHERS: u32 = 0;

/// An entry of a table of handlers, for xlevent_dispatch.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct xlevent_handler {
    /// The type of event, LIBXL_EVENT_TYPE_...; in the last entry XLEVENT_ALL_OTHERS.
    pub r#type: u32,
    /// Deals with an event of that type. The event stays the library's and is freed after the return: don't free it, and
    /// copy what is to be kept. NULL leaves events of that type in the queue.
    pub handle: Option<unsafe extern "C" fn(user: *mut c_void, event: *const libxl_event)>,
}

/// Does the library's work, and hands each event that there is then to its handler.
///
/// `handlers` is a table that ends with the entry for XLEVENT_ALL_OTHERS: to its handler go events of all types that no
/// entry before it names, also those that this version of the header doesn't know. If a type is named twice, the first
/// entry counts. `user` is passed on to the handlers.
///
/// This does what libxl_osevent_afterpoll does, whether or not the descriptor is readable, and then what a loop around
/// libxl_event_check would. It never waits. Events come oldest first. Those that go to event_occurs, and those of
/// subscribers, are not among them. A handler may call any function of the library, this one included: then the inner call
/// hands out what the outer one would have; but not libxl_ctx_free on this context.
///
/// Not to be called from inside a hook.
///
/// Returns how many events were handled; ERROR_FAIL if there was none and the library's descriptors were closed; ERROR_INVAL for a NULL or unknown `ctx`, a NULL `handlers`, a type in it that is no
/// type of event (1 to 63 are), or if called from inside a hook: then nothing has been done.
///
/// # Safety
///
/// `handlers` is NULL or points to a table as described. Its functions return normally: no longjmp, no C++ exception.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xlevent_dispatch(
    ctx: *mut libxl_ctx,
    handlers: *const xlevent_handler,
    user: *mut c_void,
) -> c_int {
    entry!("xlevent_dispatch", ERROR_FAIL, {
        let name = "xlevent_dispatch";
        let Some(context) = occurrence(name, ctx) else { return ERROR_INVAL };
        if handlers.is_null() {
            return invalid(&context, name, "the table of handlers is NULL");
        }
        // SAFETY: a table that ends with the entry for all others.
        let handlers = unsafe { table(handlers) };
        let mask = match mask(handlers) {
            Ok(mask) => mask,
            Err(wrong) => return invalid(&context, name, &format!("the table has a handler for type {wrong}")),
        };
        let count = context.dispatch(mask, &mut |event: Event| {
            let event_type = event.event_type();
            let wanted = |handler: &&xlevent_handler| [event_type, XLEVENT_ALL_OTHERS].contains(&handler.r#type);
            if let Some(handle) = handlers.iter().find(wanted).and_then(|handler| handler.handle) {
                // SAFETY: the application's function; the event lives until after the call.
                unsafe { handle(user, event.as_ptr()) };
            }
        });
        if count == 0 && context.is_stolen() {
            return failed(&context, name, &stolen());
        }
        count.try_into().unwrap_or(c_int::MAX)
    })
}

/// A table as a slice, with the entry that ends it.
///
/// # Safety
/// It has such an entry, and lives as long as the slice.
unsafe fn table<'table>(handlers: *const xlevent_handler) -> &'table [xlevent_handler] {
    let mut count = 1;
    // SAFETY: up to the one that ends it, there are entries.
    while unsafe { (*handlers.add(count - 1)).r#type } != XLEVENT_ALL_OTHERS {
        count += 1;
    }
    // SAFETY: as above.
    unsafe { std::slice::from_raw_parts(handlers, count) }
}

/// The types that a table has a handler for; or one of it that is none.
fn mask(handlers: &[xlevent_handler]) -> Result<u64, u32> {
    let (mut named, mut handled) = (0, 0);
    for handler in handlers {
        let bits = match handler.r#type {
            XLEVENT_ALL_OTHERS => u64::MAX,
            event_type => 1u64.checked_shl(event_type).ok_or(event_type)?,
        } & !named;
        named |= bits;
        if handler.handle.is_some() {
            handled |= bits;
        }
    }
    Ok(handled)
}

#[cfg(test)]
mod tests {
    use super::*;

    unsafe extern "C" fn nothing(_user: *mut c_void, _event: *const libxl_event) {}

    fn entry(event_type: u32, handled: bool) -> xlevent_handler {
        xlevent_handler { r#type: event_type, handle: if handled { Some(nothing) } else { None } }
    }

    #[test]
    fn a_type_is_its_first_entrys_and_the_last_has_the_rest() {
        assert_eq!(mask(&[entry(XLEVENT_ALL_OTHERS, true)]), Ok(u64::MAX));
        assert_eq!(mask(&[entry(XLEVENT_ALL_OTHERS, false)]), Ok(0));
        assert_eq!(mask(&[entry(1, true), entry(2, false), entry(XLEVENT_ALL_OTHERS, false)]), Ok(1 << 1));
        assert_eq!(mask(&[entry(2, false), entry(2, true), entry(XLEVENT_ALL_OTHERS, true)]), Ok(!(1 << 2)));
        assert_eq!(mask(&[entry(63, true), entry(63, false), entry(XLEVENT_ALL_OTHERS, false)]), Ok(1 << 63));
    }

    #[test]
    fn what_is_no_type_is_refused() {
        for event_type in [64, u32::MAX] {
            assert_eq!(mask(&[entry(event_type, true), entry(XLEVENT_ALL_OTHERS, true)]), Err(event_type));
        }
    }

    #[test]
    fn a_table_ends_with_the_entry_for_all_others() {
        let handlers = [entry(1, true), entry(2, true), entry(XLEVENT_ALL_OTHERS, true), entry(3, true)];
        // SAFETY: it has such an entry.
        assert_eq!(unsafe { table(handlers.as_ptr()) }.len(), 3);
    }
}
