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
    /** LIBXL_EVENT_TYPE_OPERATION_COMPLETE. These, and those of the next two counters, are libxenlight's. */
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
    /** Events that are in the queue now. */
    uint64_t events_queued;
    /** The most events that the queue ever held. */
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

#ifdef __cplusplus
}
#endif

#endif /* XLEVENT_H */
