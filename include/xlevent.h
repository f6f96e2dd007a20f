/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * xlevent.h: what xlevent has beyond libxl_event.h.
 *
 * Generated from src/capi; do not edit. A contributor changes the Rust file and runs `make headers`.
 *
 * Use it with either libxl_event.h, ours or Xen's own, beside <libxl.h> or alone: whichever the source file has included
 * first counts, and if it has included none, this header brings ours.
 *
 * The functions are in libxlevent.so and not in libxenlight. A program that must also run where libxlevent is missing
 * declares what it uses weak, or looks it up with dlsym.
 *
 * What libxl_event.h says of every function holds here too.
 */

#ifndef XLEVENT_H
#define XLEVENT_H

#include <stddef.h>
#include <stdint.h>
#include <sys/select.h>
#include <sys/time.h>

#include "libxl_event.h"

#ifdef __cplusplus
extern "C" {
#endif

/*
 * ==== Counters ====
 *
 * What a context has done so far, for operators who want to see it and programs that measure it.
 */

/**
 * A context's counters, as xlevent_stats fills them in.
 *
 * Most have counted since the context was opened, and only grow: two snapshots give what happened between them. Those
 * that say `now` tell how things stand.
 *
 * Later versions of this library append fields; none is ever moved or taken away.
 */
struct xlevent_stats {
    /**
     * How many bytes of this structure the library has filled in, with this field. What lies beyond is zero: the
     * library is older than the caller's header, and doesn't know it.
     */
    uint64_t filled;
    /**
     * Firings of xenstore's `@releaseDomain`, for all domains or for one, that were taken in: one or more whenever domains
     * end; and one for each new watch, of which there is one after each time without any generator, and after each
     * reconnection.
     */
    uint64_t releases;
    /**
     * Looks at all watched domains. A burst of firings costs one. Contexts of a process that have been told of something
     * share a look; it counts in each of them.
     */
    uint64_t scans;
    /**
     * Looks at some domains alone: those of new generators, and those whose own watch has fired. If there is news, all
     * are looked at after all, at once.
     */
    uint64_t partial_scans;
    /** Looks of either kind that the hypervisor did not answer to the end. Each is tried again. */
    uint64_t failed_scans;
    /**
     * Hypercalls of this library for a list of domains, also those that failed. They count where they were made: of
     * contexts that share a look, in one. One hypercall, in a process's first context that watches domains, has found out
     * whether libxenctrl speaks of domains as this library does.
     */
    uint64_t hypercalls;
    /** The domains in the answers to them, whether anybody watches them or not. They count with the hypercalls. */
    uint64_t domains_examined;
    /** Looks at drives whose guests may eject. */
    uint64_t drive_looks;
    /** Events, by type: LIBXL_EVENT_TYPE_DOMAIN_SHUTDOWN. */
    uint64_t events_domain_shutdown;
    /** LIBXL_EVENT_TYPE_DOMAIN_DEATH. */
    uint64_t events_domain_death;
    /** LIBXL_EVENT_TYPE_DISK_EJECT. */
    uint64_t events_disk_eject;
    /**
     * LIBXL_EVENT_TYPE_OPERATION_COMPLETE, of this library's operations and of libxenlight's. Those of the next two counters
     * are libxenlight's.
     */
    uint64_t events_operation_complete;
    /** LIBXL_EVENT_TYPE_DOMAIN_CREATE_CONSOLE_AVAILABLE. */
    uint64_t events_domain_create_console_available;
    /** Events of any other type. */
    uint64_t events_other;
    /** How many of all these events went to the event_occurs callback; the others were queued. */
    uint64_t events_called_back;
    /** Times that events may have been missed, and that the disaster callback was called for. */
    uint64_t disasters;
    /** Times that xenstored went away while there were generators. */
    uint64_t xenstored_losses;
    /** Times that it came back, was connected to again, and all domains were looked at. */
    uint64_t reconnections;
    /** Child processes that the library has started. libxenlight's own are not among them. */
    uint64_t children_started;
    /**
     * Times that the library was called because something was ready, or might be. Far more than there are firings,
     * events and timeouts: somebody spins.
     */
    uint64_t turns;
    /** Events that are in the context's own queue now; those of subscribers are not counted here. */
    uint64_t events_queued;
    /** The most events that it ever held. */
    uint64_t events_queued_most;
    /** Whether xenstored is watched now: 1; or 0 while there are no generators, or while xenstored is away. */
    uint64_t watching;
    /** Generators of libxl_evenable_domain_death that there are now. */
    uint64_t death_generators;
    /** Generators of libxl_evenable_disk_eject that there are now. */
    uint64_t eject_generators;
    /** The drives that those watch now. Several generators may watch one. */
    uint64_t drives_watched;
    /** Child processes of the library now: those that run, and those whose end has not been dealt with yet. */
    uint64_t children_running;
    /** More events by type: LIBXL_EVENT_TYPE_DOMAIN_SUSPENDED. */
    uint64_t events_domain_suspended;
    /** LIBXL_EVENT_TYPE_DOMAIN_RUNNING. */
    uint64_t events_domain_running;
    /** LIBXL_EVENT_TYPE_DOMAIN_CREATED. */
    uint64_t events_domain_created;
    /**
     * Firings of xenstore's `@introduceDomain` that were taken in: one or more whenever domains begin, and one for each new
     * watch. There is none while there is no generator for any domain.
     */
    uint64_t introductions;
    /** Looks at suspended domains, to see whether they run again. They count among `partial_scans` too. */
    uint64_t resume_looks;
    /** Generators of libxl_evenable_domain_state that there are now. */
    uint64_t state_generators;
    /** Domains that those among them for any domain know now, each of them. */
    uint64_t domains_known;
    /** Ejections that have given a generator no event of their own, since nobody had fetched the one before. */
    uint64_t ejections_merged;
    /** Events that are in the queues of all subscribers now. */
    uint64_t events_queued_for_subscribers;
    /**
     * About how many bytes of memory all queued events take now, those of subscribers too. What events point to is not
     * counted: the strings of an ejection, and what libxenlight's own events have besides.
     */
    uint64_t events_queued_bytes;
};

/**
 * Takes a snapshot of a context's counters.
 *
 * `size` is that of the caller's structure, `sizeof *stats`. Caller and library may have been built with different
 * versions of it: what both know is filled in, and the rest of the caller's structure is zeroed. `stats->filled` says
 * how much that is.
 *
 * All counters are of one moment. The call makes no system call, changes no counter, and may be made from any thread and
 * any callback.
 *
 * Returns 0; ERROR_INVAL for a NULL or unknown `ctx`, a NULL `stats`, or a `size` with no room for `filled`. Then nothing
 * is written.
 *
 * # Safety
 *
 * `stats` is NULL or points to `size` writable bytes.
 */
int xlevent_stats(libxl_ctx *ctx,
                  struct xlevent_stats *stats,
                  size_t size);

/*
 * ==== Domain states ====
 *
 * What becomes of a domain, or of all domains: suspended, running, shut down, dead. For programs that take snapshots, and
 * for monitors.
 */

/* libxl_evenable_domain_state and libxl_evdisable_domain_state are there. */
#define LIBXL_HAVE_EVENABLE_DOMAIN_STATE 1

/*
 * Event types, besides those of libxl_event_type. In a mask of types the bit is `(uint64_t)1 << type`, as for the others.
 * libxl's own list has no such names: a `switch` over `event->type` has to be one over a number, `switch ((int)event->type)`,
 * for compilers not to warn of them.
 *
 * They come from libxl_evenable_domain_state and from nowhere else.
 */

/* The domain has shut down in order to be saved, migrated or snapshotted. Nothing in `u`. */
#define LIBXL_EVENT_TYPE_DOMAIN_SUSPENDED 40
/* The domain runs again, after it was suspended or had shut down. Nothing in `u`. */
#define LIBXL_EVENT_TYPE_DOMAIN_RUNNING 41
/* There is a new domain; or the generator is new, and there is a domain. Nothing in `u`. */
#define LIBXL_EVENT_TYPE_DOMAIN_CREATED 42

/*
 * Any domain but the control domain, number 0. No domain has this number: Xen gives out 0 to 0x7fef, keeps 0x7ff0 to 0x7fff
 * for meanings of its own, and libxl's number of no domain, INVALID_DOMID, is all ones.
 */
#define LIBXL_DOMID_ANY ((uint32_t)0xfffffffe)

/** What `libxl_evgen_domain_state` names. Applications see the pointer alone. */
struct libxl__evgen_domain_state;

/** The handle of a generator of domain states. It is not an address: compare it, pass it on, nothing else. */
typedef struct libxl__evgen_domain_state libxl_evgen_domain_state;

/**
 * Asks for what becomes of a domain, or of any domain.
 *
 * `states` is a mask of event types, `(uint64_t)1 << LIBXL_EVENT_TYPE_...` each. Those that can be asked for:
 *
 * - DOMAIN_SUSPENDED: the domain has shut down with reason 2, suspend: it is being saved, migrated or snapshotted.
 * - DOMAIN_RUNNING: it runs again, after it was suspended or had shut down. That it runs at all is no event.
 * - DOMAIN_SHUTDOWN, with the reason: it has shut down for another reason. A suspend is never told as a shutdown here,
 *   whatever `XLEVENT_REPORT_SUSPEND` says.
 * - DOMAIN_DEATH: it is being destroyed, or gone. This comes once, after all else of that domain, and in place of what
 *   else the same look would tell.
 * - DOMAIN_CREATED: there is a new domain. Only for any domain.
 *
 * The events of a domain come in the order of its life, so that a program which takes snapshots can follow it: SUSPENDED,
 * RUNNING, SUSPENDED, RUNNING, SHUTDOWN, DEATH. The present state counts: a domain that is suspended, shut down, dead or
 * missing gives its event at once. All carry `domid`, the domain's own also where any was asked for, `user`, and in
 * `domuuid` its UUID where it could be learnt.
 *
 * A domain's number may be given out again when the domain is gone. If that is noticed, the old domain's DEATH comes, and
 * nothing of the new one. (A generator of libxl_evenable_domain_death would follow the new one.) It is noticed when someone
 * looked in between; and otherwise if the domain has used less processor time than before, lives where the old one was dying,
 * is paravirtualised where the old one was not or the other way about, or, both paravirtualised, shares another page with the
 * hypervisor. Another UUID alone says nothing: a domain may be given one while it lives, as a migrated one is; that is no event,
 * and later events carry it.
 *
 * With LIBXL_DOMID_ANY, all domains but the control domain, number 0, are told of. A generator begins with CREATED for each
 * domain that is there, in ascending order, followed by its present state; then it tells of what comes. Nothing falls in
 * between. Each domain gives CREATED once, DEATH once, and is then forgotten; another domain with its number is CREATED
 * again. CREATED is told when xenstored has been told of the domain, or earlier, if there was cause to look: nodes that the
 * toolstack writes into xenstore need not all be there yet.
 *
 * What can be seen, and what can't. The library looks at domains when xenstored says that something has happened, finds out
 * what they are then, and tells how they came to be so.
 *
 * - Nobody says that a domain runs again, so while a domain is suspended, and RUNNING has been asked for, the library
 *   looks at it: after 10 ms, then at intervals that double up to a second. One that was suspended at two such looks and
 *   has run in between, which its processor time shows, gives RUNNING and SUSPENDED. While no domain is suspended there are
 *   no such looks. (A domain that had shut down for another reason and runs again is told of when there is cause to look. If
 *   it has shut down again by then, another reason or more processor time says so: RUNNING and SHUTDOWN.)
 * - A domain that is suspended and runs again before the library looks has run all the time as far as anyone can see: an
 *   application that doesn't come to its event loop meanwhile misses both, never one of them.
 * - Where a toolstack has subscribed to a guest's suspend event channel, a suspend raises that channel, and not what
 *   xenstored waits for. Its SUSPENDED is told if there is a look for another reason while it lasts, else not at all, and
 *   then neither is its RUNNING.
 * - A toolstack that lets a domain run again must tell xenstored, as libxl does; or xenstored will not fire for the
 *   domain's next suspend or shutdown.
 * - A domain that xenstored is never told of is noticed when something happens to another; from then on, or if it was asked
 *   for by its number, it is looked at each second at the latest. So are all domains that xenstored has forgotten, since it has
 *   crashed, until it knows them again.
 *
 * Several generators may be about one domain; each gives its own events, and those of libxl_evenable_domain_death give
 * theirs, of their two types, as if there were no others. What one look finds comes in ascending order of domains, and of one
 * domain's generators that enabled last speaks first.
 *
 * Returns 0 and a handle in `*evgen_out`; ERROR_INVAL for a NULL or unknown `ctx`, a NULL `evgen_out`, a `domid` that no
 * domain can have, a `states` that is 0 or has other bits; otherwise as libxl_evenable_domain_death. On an error nothing is
 * left behind, `*evgen_out` is as it was, and a later try may succeed. May be called from any thread and from event
 * callbacks.
 *
 * # Safety
 *
 * `evgen_out` is NULL or points to a writable pointer.
 */
int libxl_evenable_domain_state(libxl_ctx *ctx,
                                uint32_t domid,
                                uint64_t states,
                                libxl_ev_user user,
                                libxl_evgen_domain_state **evgen_out);

/**
 * Stops a generator of domain states, and makes its handle invalid.
 *
 * As libxl_evdisable_domain_death: events that it has produced are still delivered, NULL does nothing, and an unknown
 * handle, that of another kind of generator too, is logged and ignored. May be called from any thread and from event
 * callbacks.
 *
 * # Safety
 *
 * No requirement beyond those of all functions: the handle is looked up, not followed.
 */
void libxl_evdisable_domain_state(libxl_ctx *ctx,
                                  libxl_evgen_domain_state *evgen);

/*
 * ==== Waiting, and subscribers ====
 *
 * For threads that wait for events: with a time-out, and so that they can be stopped. And for several users of one
 * context, a library in the process among them, that must not take each other's events.
 */

/**
 * One of several users of a context, with events of its own.
 *
 * Events of generators that were enabled for a subscriber come to that subscriber alone: by xlevent_subscriber_check and
 * xlevent_subscriber_wait, not by libxl_event_check and libxl_event_wait, and not by event_occurs, whatever its mask:
 * those are for who uses the context itself, and would not know whose `for_user` it is. Everything else is the context's:
 * its disaster callback, its descriptor, its children, the completion of operations.
 *
 * The handle is not an address: compare it, pass it on, nothing else. It belongs to its context, and ends with it.
 */
struct xlevent_subscriber;

/**
 * Like libxl_event_wait, but for a limited time.
 *
 * `timeout_ms` is in milliseconds, as for poll(2): negative waits for ever, and 0 not at all. The time is that of
 * CLOCK_MONOTONIC; signals neither end nor prolong it. An event that is there when it has passed is returned: what is
 * ready by then is taken in first, as libxl_osevent_afterpoll would. So a call with 0 does the library's work once and
 * looks. A callback, or a predicate, that takes long makes the call longer.
 *
 * Returns 0 and the event in `*event_r`; ERROR_TIMEDOUT if none came in time; ERROR_ABORTED if xlevent_wait_cancel has
 * ended the wait; otherwise as libxl_event_wait. On an error `*event_r` is as it was.
 *
 * # Safety
 *
 * As for libxl_event_check.
 */
int xlevent_event_wait(libxl_ctx *ctx,
                       libxl_event **event_r,
                       uint64_t typemask,
                       libxl_event_predicate *predicate,
                       void *predicate_user,
                       int timeout_ms);

/**
 * Ends one wait: a call of libxl_event_wait or xlevent_event_wait on this context returns ERROR_ABORTED.
 *
 * Each call of this function ends exactly one. If no thread waits at the moment, it is the next that finds no event and
 * would wait (one with `timeout_ms` 0 would not): so a thread that is just about to wait, or is busy with an event, need
 * not be known of. To end a pool of N threads, call this N times, join them, and free the context.
 *
 * No event is lost: a wait that finds one returns it, and leaves the cancellation to another. Which one is ended, of
 * several, is not said. What was not used up by the time the context is freed goes with it.
 *
 * May be called from any thread and any callback; not from a signal handler, since it takes a lock: let a thread take the
 * signal with sigwait(3) or signalfd(2).
 *
 * Returns 0, or ERROR_INVAL for a NULL or unknown `ctx`.
 *
 * # Safety
 *
 * No requirement: the context is looked up, not followed.
 */
int xlevent_wait_cancel(libxl_ctx *ctx);

/**
 * Adds a subscriber to a context, without any generators.
 *
 * It costs no descriptor and no thread. There may be 65535 at the same time.
 *
 * Returns 0 and a handle in `*subscriber_r`; ERROR_INVAL for a NULL or unknown `ctx` or a NULL `subscriber_r`; ERROR_FAIL
 * if there are too many. On an error `*subscriber_r` is as it was.
 *
 * # Safety
 *
 * `subscriber_r` is NULL or points to a writable pointer.
 */
int xlevent_subscriber_new(libxl_ctx *ctx,
                           struct xlevent_subscriber **subscriber_r);

/**
 * Removes a subscriber, with all that is its own: its generators are disabled and their handles become invalid, its events
 * that nobody has fetched are freed, and its handle becomes invalid.
 *
 * Threads that are in xlevent_subscriber_wait for it return ERROR_INVAL; end them with xlevent_subscriber_wait_cancel
 * first. Events that have been fetched stay the application's. May wait for xenstored's answers, for a thread that is
 * enabling a generator, and for one whose predicate is running. May be called from any thread and from event callbacks,
 * but not from a predicate, nor from an fd_register or fd_deregister hook.
 *
 * A NULL `subscriber` does nothing. Returns 0; ERROR_INVAL for a NULL or unknown `ctx`, an unknown `subscriber`, or where it
 * may not be called: then nothing has changed.
 *
 * # Safety
 *
 * No requirement: the handle is looked up, not followed.
 */
int xlevent_subscriber_free(libxl_ctx *ctx,
                            struct xlevent_subscriber *subscriber);

/**
 * As libxl_evenable_domain_death, for a subscriber: from the first on, all events of this generator come to it alone.
 *
 * The handle is like any other, and given to libxl_evdisable_domain_death. Returns what libxl_evenable_domain_death does;
 * ERROR_INVAL also for a NULL or unknown `subscriber`.
 *
 * # Safety
 *
 * `evgen_out` is NULL or points to a writable pointer.
 */
int xlevent_subscriber_evenable_domain_death(libxl_ctx *ctx,
                                             struct xlevent_subscriber *subscriber,
                                             uint32_t domid,
                                             libxl_ev_user user,
                                             libxl_evgen_domain_death **evgen_out);

/**
 * As libxl_evenable_domain_state, for a subscriber: from the first on, all events of this generator come to it alone.
 *
 * The handle is like any other, and given to libxl_evdisable_domain_state. Returns what libxl_evenable_domain_state does;
 * ERROR_INVAL also for a NULL or unknown `subscriber`.
 *
 * # Safety
 *
 * `evgen_out` is NULL or points to a writable pointer.
 */
int xlevent_subscriber_evenable_domain_state(libxl_ctx *ctx,
                                             struct xlevent_subscriber *subscriber,
                                             uint32_t domid,
                                             uint64_t states,
                                             libxl_ev_user user,
                                             libxl_evgen_domain_state **evgen_out);

/**
 * As libxl_evenable_disk_eject, for a subscriber: from the first on, all events of this generator come to it alone.
 *
 * The handle is like any other, and given to libxl_evdisable_disk_eject. Returns what libxl_evenable_disk_eject does;
 * ERROR_INVAL also for a NULL or unknown `subscriber`.
 *
 * # Safety
 *
 * `vdev` is NULL or a string that ends with a zero byte; `evgen_out` is NULL or points to a writable pointer.
 */
int xlevent_subscriber_evenable_disk_eject(libxl_ctx *ctx,
                                           struct xlevent_subscriber *subscriber,
                                           uint32_t domid,
                                           const char *vdev,
                                           libxl_ev_user user,
                                           libxl_evgen_disk_eject **evgen_out);

/**
 * Like libxl_event_check, among the events of a subscriber.
 *
 * Predicates of one context run one at a time, whomever they are for.
 *
 * Returns what libxl_event_check does; ERROR_INVAL also for a NULL or unknown `subscriber`.
 *
 * # Safety
 *
 * As for libxl_event_check.
 */
int xlevent_subscriber_check(libxl_ctx *ctx,
                             struct xlevent_subscriber *subscriber,
                             libxl_event **event_r,
                             uint64_t typemask,
                             libxl_event_predicate *predicate,
                             void *predicate_user);

/**
 * Like xlevent_event_wait, among the events of a subscriber.
 *
 * While it waits it does the library's work for the whole context. Returns what xlevent_event_wait does; ERROR_ABORTED if
 * xlevent_subscriber_wait_cancel has ended the wait; ERROR_INVAL also for a NULL or unknown `subscriber`, and if it is freed
 * meanwhile.
 *
 * # Safety
 *
 * As for libxl_event_check.
 */
int xlevent_subscriber_wait(libxl_ctx *ctx,
                            struct xlevent_subscriber *subscriber,
                            libxl_event **event_r,
                            uint64_t typemask,
                            libxl_event_predicate *predicate,
                            void *predicate_user,
                            int timeout_ms);

/**
 * As xlevent_wait_cancel, for a call of xlevent_subscriber_wait for this subscriber. Other waits go on.
 *
 * Returns 0, or ERROR_INVAL for a NULL or unknown `ctx` or `subscriber`.
 *
 * # Safety
 *
 * No requirement: the handle is looked up, not followed.
 */
int xlevent_subscriber_wait_cancel(libxl_ctx *ctx,
                                   struct xlevent_subscriber *subscriber);

/*
 * ==== Loops ====
 *
 * For programs with a loop of their own, as an alternative to libxl_osevent_beforepoll and to hooks.
 */

/** Stands in a table of handlers for all types of event that the table does not name, and ends it. */
#define XLEVENT_ALL_OTHERS 0

/** An entry of a table of handlers, for xlevent_dispatch. */
struct xlevent_handler {
    /** The type of event, LIBXL_EVENT_TYPE_...; in the last entry XLEVENT_ALL_OTHERS. */
    uint32_t type;
    /**
     * Deals with an event of that type. The event stays the library's and is freed after the return: don't free it, and
     * copy what is to be kept. NULL leaves events of that type in the queue.
     */
    void (*handle)(void *user, const libxl_event *event);
};

/**
 * Gives the one descriptor that a context's work announces itself by, for epoll, libuv, GLib, select or an async runtime.
 *
 * Wait for it to become readable, and then call xlevent_dispatch (or libxl_osevent_afterpoll with a pollfd that holds it);
 * wait for nothing else of it, and don't read from it. It is the same descriptor that libxl_osevent_beforepoll fills in and
 * fd_register is given, also beside libxenlight, whose own work it announces too. The library's timers make it readable, so
 * that no timeout is needed.
 *
 * It is readable as long as there is something to take in (a level), and once (an edge) after an event has been queued by
 * another thread's call or outside of the call that you make when it is readable. Both end with that call. An event that
 * stays in the queue after it does not make it readable again: fetch all that you want each time. Since an event may be
 * there already, call xlevent_dispatch or libxl_event_check once before the first wait. With an edge-triggered wait
 * (EPOLLET) go on until the descriptor is no longer readable; a level-triggered one is simpler and costs no more.
 *
 * One loop should wait for it: what it announces is announced once, to whoever comes first. That loop looks for the events
 * of those subscribers, too, that don't wait in a thread.
 *
 * The descriptor is the library's: never close it (libxl_ctx_alloc says what happens if it is closed). It is valid until the context is freed; take it out of the loop before
 * that. A child that is forked must not use it.
 *
 * Returns the descriptor; ERROR_INVAL for a NULL or unknown `ctx`; ERROR_FAIL if there is no descriptor to be had, which a
 * later call may find otherwise, or if the library's descriptors were closed. Errors are negative, descriptors are not.
 *
 * # Safety
 *
 * No requirement: the context is looked up, not followed.
 */
int xlevent_get_fd(libxl_ctx *ctx);

/**
 * Does the library's work, and hands each event that there is then to its handler.
 *
 * `handlers` is a table that ends with the entry for XLEVENT_ALL_OTHERS: to its handler go events of all types that no
 * entry before it names, also those that this version of the header doesn't know. If a type is named twice, the first
 * entry counts. `user` is passed on to the handlers.
 *
 * This does what libxl_osevent_afterpoll does, whether or not the descriptor is readable, and then what a loop around
 * libxl_event_check would. It never waits. Events come oldest first. Those that go to event_occurs, and those of
 * subscribers, are not among them. A handler may call any function of the library, this one included: then the inner call
 * hands out what the outer one would have; but not libxl_ctx_free on this context.
 *
 * Not to be called from inside a hook.
 *
 * Returns how many events were handled; ERROR_FAIL if there was none and the library's descriptors were closed; ERROR_INVAL for a NULL or unknown `ctx`, a NULL `handlers`, a type in it that is no
 * type of event (1 to 63 are), or if called from inside a hook: then nothing has been done.
 *
 * # Safety
 *
 * `handlers` is NULL or points to a table as described. Its functions return normally: no longjmp, no C++ exception.
 */
int xlevent_dispatch(libxl_ctx *ctx,
                     const struct xlevent_handler *handlers,
                     void *user);

/*
 * With poll(2) and hooks, a program goes round like this:
 *
 *     xlevent_pollset_new(ctx, NULL, NULL, &set);
 *     libxl_osevent_register_hooks(ctx, xlevent_pollset_hooks(), set);
 *     for (;;) {
 *         nfds = ROOM, timeout_ms = -1;
 *         xlevent_pollset_beforepoll(set, &nfds, fds, &timeout_ms);
 *         poll(fds, nfds, timeout_ms);
 *         xlevent_pollset_afterpoll(set, nfds, fds);
 *         ... libxl_event_check or xlevent_dispatch ...
 *     }
 */

/**
 * What the hooks of one context have registered: descriptors and timeouts, for a program that calls poll(2) or select(2)
 * itself.
 *
 * With this library a context has one descriptor, and xlevent_get_fd is simpler. The set is for programs that also run with
 * a libxenlight alone, which registers several descriptors, and timeouts, and changes them from whatever thread calls it:
 * one that waits meanwhile is woken. For that purpose the set has a descriptor of its own, which comes first.
 *
 * The handle is not an address: compare it, pass it on, nothing else.
 */
struct xlevent_pollset;

/**
 * Makes an empty set for a context.
 *
 * Whoever made the context is told what has become ready: `occurred_fd` and `occurred_timeout` are
 * libxl_osevent_occurred_fd and libxl_osevent_occurred_timeout of that library. NULL for both means those of this one; a
 * program for which libxenlight alone answers, with this library linked after it, names them, and the linker knows which they
 * are.
 *
 * Returns 0 and a handle in `*set_r`; ERROR_INVAL for a NULL `ctx` or `set_r`, or if one of the functions alone is NULL;
 * ERROR_FAIL if there is no descriptor to be had. On an error `*set_r` is as it was.
 *
 * # Safety
 *
 * `set_r` is NULL or points to a writable pointer. The functions may be called with `ctx` as long as the set is used.
 */
int xlevent_pollset_new(libxl_ctx *ctx,
                        void (*occurred_fd)(libxl_ctx *ctx,
                                            void *for_libxl,
                                            int fd,
                                            short events,
                                            short revents),
                        void (*occurred_timeout)(libxl_ctx *ctx, void *for_libxl),
                        struct xlevent_pollset **set_r);

/**
 * Ends a set. Free the context first, which may call the hooks until then; a registration that comes later is refused.
 *
 * A NULL or unknown `set` does nothing; an unknown one is logged.
 *
 * # Safety
 *
 * No requirement: the handle is looked up, not followed.
 */
void xlevent_pollset_free(struct xlevent_pollset *set);

/**
 * The hooks to give to libxl_osevent_register_hooks, with the set as `user`. They live as long as the process.
 *
 * # Safety
 *
 * No requirement.
 */
const libxl_osevent_hooks *xlevent_pollset_hooks(void);

/**
 * Says what to wait for with poll(2).
 *
 * On entry `*nfds_io` is how many entries there are at `fds`, on return how many are needed, which are then filled in if
 * there was room. `*timeout_upd`, in milliseconds with negative for infinite, is what the application will give to poll; it
 * is shortened to the next timeout. One thread at a time waits for a set.
 *
 * Returns 0; ERROR_BUFFERFULL if there was not enough room; ERROR_INVAL for a NULL or unknown `set`, a NULL `nfds_io` or
 * `timeout_upd`, or a NULL `fds` with `*nfds_io` greater than 0.
 *
 * # Safety
 *
 * `nfds_io` and `timeout_upd` are NULL or point to an int; `fds` is NULL or points to `*nfds_io` writable entries.
 */
int xlevent_pollset_beforepoll(struct xlevent_pollset *set,
                               int *nfds_io,
                               struct pollfd *fds,
                               int *timeout_upd);

/**
 * Does what is to be done after poll(2): tells the library what has become ready, and which timeouts have passed.
 *
 * `fds[0 .. nfds]` is what xlevent_pollset_beforepoll filled in and poll went over; entries of others among them do no harm.
 * With `nfds` 0 only timeouts are looked at. The library may call back from inside.
 *
 * Returns 0, or ERROR_INVAL for a NULL or unknown `set`, or a NULL `fds` with `nfds` greater than 0.
 *
 * # Safety
 *
 * `fds` is NULL or points to `nfds` entries.
 */
int xlevent_pollset_afterpoll(struct xlevent_pollset *set,
                              int nfds,
                              const struct pollfd *fds);

/**
 * Says what to wait for with select(2).
 *
 * Adds to the three sets, and raises `*nfds_io`, which is what select wants as its first argument, as needed: both may hold
 * what the application itself waits for. `*timeout_io` is the pointer that will be given to select, NULL for no limit; if
 * that would be too long for the next timeout, it is replaced by `room`, with the shorter time in it.
 *
 * Returns 0; ERROR_BUFFERFULL if a descriptor is too high for select (FD_SETSIZE and above): use poll; ERROR_INVAL for a NULL
 * or unknown `set` or another NULL argument. On an error nothing has been changed.
 *
 * # Safety
 *
 * The pointers are NULL or point to what their types say, `*timeout_io` too.
 */
int xlevent_pollset_beforeselect(struct xlevent_pollset *set,
                                 int *nfds_io,
                                 fd_set *readfds,
                                 fd_set *writefds,
                                 fd_set *exceptfds,
                                 struct timeval **timeout_io,
                                 struct timeval *room);

/**
 * Does what is to be done after select(2), as xlevent_pollset_afterpoll does after poll.
 *
 * The sets are as select has left them. If it has failed they mean nothing: then pass NULL for each, and only timeouts are
 * looked at.
 *
 * Returns 0, or ERROR_INVAL for a NULL or unknown `set`.
 *
 * # Safety
 *
 * Each of the sets is NULL or points to one.
 */
int xlevent_pollset_afterselect(struct xlevent_pollset *set,
                                const fd_set *readfds,
                                const fd_set *writefds,
                                const fd_set *exceptfds);

/*
 * ==== Asynchronous operations ====
 *
 * What takes its time with devices: libxl's algorithms, with ends that are told as libxl's are. They need nothing but
 * xenstored, the hypervisor and the context's event loop, and go on in any call that does the library's work.
 */

/**
 * What a device is to its guest, with libxl's numbers. Which backend serves it is found out: a disk is a VBD also where QEMU
 * serves it. PCI devices, USB controllers and consoles are not among them: their removal takes other steps.
 */
enum xlevent_device_kind {
    /** A network interface. */
    XLEVENT_DEVICE_KIND_VIF = 1,
    /** A disk. */
    XLEVENT_DEVICE_KIND_VBD = 2,
    /** A framebuffer. */
    XLEVENT_DEVICE_KIND_VFB = 5,
    /** A keyboard and a pointer. */
    XLEVENT_DEVICE_KIND_VKBD = 6,
    /** A TPM. */
    XLEVENT_DEVICE_KIND_VTPM = 8,
    /** A directory of the host's, by the 9P protocol. */
    XLEVENT_DEVICE_KIND_9PFS = 11,
    /** A display. */
    XLEVENT_DEVICE_KIND_VDISPL = 12,
    /** Calls of the host's sockets. */
    XLEVENT_DEVICE_KIND_PVCALLS = 14,
    /** A sound card. */
    XLEVENT_DEVICE_KIND_VSND = 15,
};

/** Whether a backend that doesn't close is waited for. */
enum xlevent_force {
    /**
     * It has 10 s. Then the frontend's nodes are removed, so that the backend sees that its guest's side is gone, and it has
     * another 10 s; after those, the rest is removed too. As libxl_device_disk_remove and its like.
     */
    XLEVENT_FORCE_LATE = 0,
    /**
     * The frontend's nodes are removed at the beginning, and the backend has 10 s before the rest is. As
     * libxl_device_disk_destroy and its like.
     */
    XLEVENT_FORCE_NOW = 1,
    /** It has 10 s, and after those the removal has failed. As libxl_device_disk_safe_remove. */
    XLEVENT_FORCE_NEVER = 2,
};

/** A device of a domain. */
struct xlevent_device {
    /** What it is. */
    enum xlevent_device_kind kind;
    /**
     * Which of the domain's devices of this kind: the number in its nodes' paths. Of a disk that is what libxl makes of its
     * name, such as 51712 of `xvda`.
     */
    uint32_t devid;
};

/**
 * Removes a device from a domain.
 *
 * As libxl does it. The backend is told to close (`online` 0, `state` 5, in one transaction), and has 10 s to say that it
 * has (`state` 6, or no `state` any more); what comes then is said by `force`. Then the device's hotplug script is run, if
 * it has one (`script` among the backend's nodes, with the argument `remove`, for a network interface `offline`, and the
 * environment that libxl gives it), with 40 s for it. At last the nodes of backend and frontend and those that libxl has of
 * the device are removed, in one transaction, and the directories above them that are empty then. A transaction that others
 * disturb is done again. In one thing it isn't as with libxl: that takes no notice of a script that fails, and removes the
 * nodes.
 *
 * The script has /dev/null as its input. What it says on stdout and stderr goes to the context's logger when it has ended, in
 * lines, with control characters escaped: stderr as warnings; stdout as information, or as warnings if the script has failed.
 * Of each the first 32 lines are logged and the last 32, and of a line 400 bytes; how much is left out is said. What explains
 * a failure stands in the line of the failure, which is an error. A daemon that the script leaves running may keep stdout and
 * stderr, and write there for as long as it lives: from the script's end on that is read and dropped, by a process `cat` that
 * is no child of the application's, and ends with the daemon. (With libxl, a script has the program's own stdout and stderr.)
 *
 * - A backend that is QEMU, of a guest that is paused, shut down, dying or gone, isn't told anything: QEMU has 2 s to leave,
 *   and then its backend is called closed in its place.
 * - A backend in another domain has that domain run its script, and remove the backend's nodes: it has another 10 s for
 *   that.
 * - The nodes that the guest owns are never read. Which backend it is, libxl's own nodes say, below
 *   `/libxl/DOMID/device`; the script is the backend's domain's.
 *
 * The end is told as `ao_how` says, like that of any of libxl's asynchronous operations: by a call of its callback, with no
 * lock held, which may call any function but libxl_ctx_free; or, where that is NULL, by an event of type
 * LIBXL_EVENT_TYPE_OPERATION_COMPLETE with `domid`, `for_user` and the result. `*ao_how` is copied. The callback may come
 * before this function returns. If `ao_how` is NULL the function does the library's work until the end, as libxl_event_wait
 * does, and returns the result. May be called from any thread, and from any callback or hook but fd_register and
 * fd_deregister. Devices are removed at the same time if several operations run.
 *
 * Results: 0 if the device is gone; ERROR_TIMEDOUT if a backend, or the script, took too long; ERROR_FAIL if the script or
 * xenstored failed (the log says why); ERROR_ABORTED if it was called off with xlevent_ao_abort, or the context was freed
 * meanwhile. After one of these the nodes are still there and the removal can be repeated, unless `force` came to it: then
 * they are removed whatever else failed.
 *
 * Returns, with nothing begun and nothing told to `ao_how`: ERROR_INVAL for a NULL or unknown `ctx`, a `kind`, `devid` or
 * `force` that there can't be, or a device that an operation of this context is at already; ERROR_DOMAIN_NOTFOUND if there
 * is no such domain, and nothing left of its device; ERROR_NOTFOUND if the domain has no such device; the value that the
 * application's fd_register hook returned if that refused; ERROR_FAIL if Xen can't be asked, or there is no descriptor left
 * to wait with (the log says why).
 *
 * # Safety
 *
 * `ao_how` is NULL or points to one whose callback, if any, returns normally: no longjmp, no C++ exception.
 */
int xlevent_device_remove(libxl_ctx *ctx,
                          uint32_t domid,
                          enum xlevent_device_kind kind,
                          uint32_t devid,
                          enum xlevent_force force,
                          const libxl_asyncop_how *ao_how);

/**
 * Removes several devices from a domain, all at the same time, in one operation.
 *
 * Each as xlevent_device_remove does it. The operation ends when all of them have come to their ends, and its result is that
 * of the first in `devices` that has failed, or 0. Calling it off calls off all that are still under way. With `count` 0
 * there is nothing to do, and the end is told at once; `devices` may be NULL then.
 *
 * Returns as xlevent_device_remove; ERROR_INVAL also if a device is there twice, or for NULL `devices`. If any device is
 * refused, nothing is begun with the others.
 *
 * # Safety
 *
 * `devices` is NULL or points to `count` of them; `ao_how` is as for xlevent_device_remove.
 */
int xlevent_devices_remove(libxl_ctx *ctx,
                           uint32_t domid,
                           const struct xlevent_device *devices,
                           size_t count,
                           enum xlevent_force force,
                           const libxl_asyncop_how *ao_how);

/**
 * Waits until a new device's backend is ready for its guest, and runs the hotplug script.
 *
 * The other direction of xlevent_device_remove, for who has written the nodes of a new device: the backend has 10 s to come
 * to `state` 2 (InitWait), or further (3, 4). Then the script is run with `add`, for a network interface `online`. QEMU is
 * not waited for and has no script; a backend in another domain has its script run there.
 *
 * If the backend is late or gone, or the script fails or is late, the device is removed as xlevent_device_remove does it
 * with XLEVENT_FORCE_NOW, and the result is what had failed. If the operation is called off, nodes are left as they are: it
 * can be begun again, or the device removed.
 *
 * The end is told, and the results and return values are, as with xlevent_device_remove.
 *
 * # Safety
 *
 * As for xlevent_device_remove.
 */
int xlevent_device_wait_ready(libxl_ctx *ctx,
                              uint32_t domid,
                              enum xlevent_device_kind kind,
                              uint32_t devid,
                              const libxl_asyncop_how *ao_how);

/**
 * Calls an asynchronous operation of this library's off. (libxenlight's own are libxl_ao_abort's.)
 *
 * As libxl_ao_abort, it is found by its `how`: the same callback with the same argument, or without a callback the same
 * `for_event`; NULL stands for one that a thread waits for in the function that began it. Of several, the latest counts.
 *
 * It ends as soon as it can, with ERROR_ABORTED, and that is told as its `how` says, maybe before this function returns. What
 * is under way is never left half done: a change of nodes is waited for, and a script is told to end (SIGTERM, and SIGKILL 5 s
 * later). It may also end otherwise, if it was about to. After a removal that was called off, the nodes that are there are
 * left, and it can be repeated.
 *
 * Returns 0; ERROR_NOTFOUND if there is no such operation under way, it may just have ended; ERROR_ABORTED if it has been
 * called off before; ERROR_INVAL for a NULL or unknown `ctx`. May be called from any thread and any callback.
 *
 * # Safety
 *
 * `how` is NULL or points to one.
 */
int xlevent_ao_abort(libxl_ctx *ctx,
                     const libxl_asyncop_how *how);

/*
 * ==== The suspend event channel ====
 */

/**
 * Lets a guest name its suspend event channel.
 *
 * A guest that can be asked to suspend through an event channel writes its number into
 * `/local/domain/DOMID/device/suspend/event-channel`. With `xend_compat` 0 the node is made, empty, and is the guest's to
 * write; the directories above it can be read by the guest and not written. That is what libxl does for every domain
 * that it creates, with the same permissions.
 *
 * Otherwise the node is left out, and taken away if it is there; instead the guest owns `/local/domain/DOMID/device` and may
 * write below it, as with xend, and with libxl for a domain that is configured with `xend_suspend_evtchn_compat`: there are
 * PV drivers for Windows from xend's time that write the node themselves, and don't work where it exists before.
 *
 * It is done in one transaction, so that nobody sees a part of it, and again if others have changed the same nodes
 * meanwhile. It may be called again, also the other way round: a node that the guest has written keeps its value. The nodes
 * of devices are left alone.
 *
 * Waits for xenstored's answers. Needs no event loop, and starts none. May be called from any callback.
 *
 * Returns 0; ERROR_INVAL for a NULL or unknown `ctx`; ERROR_DOMAIN_NOTFOUND if xenstore has no such domain; ERROR_FAIL if
 * xenstored can't be asked, or refuses (the log says why). On an error nothing is changed.
 *
 * # Safety
 *
 * No requirement beyond those of all functions.
 */
int xlevent_suspend_node_create(libxl_ctx *ctx,
                                uint32_t domid,
                                int xend_compat);

#ifdef __cplusplus
}
#endif

#endif /* XLEVENT_H */
