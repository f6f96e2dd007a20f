/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the tests do again and again with libxl_event.h. Every function here ends the test if something is not as its
 * name says.
 */
#ifndef CTESTS_XL_H
#define CTESTS_XL_H

#include <poll.h>

#include <libxl_event.h>
#include <xentoollog.h>

#include "assert.h"

/* A domid of no domain: dead, and so a source of events where domains can't be commanded. */
enum { NOBODY = 30000 };

/* Neither library looks at the time that the poll functions are given when no timer runs. */
extern const struct timeval no_time;

/* ---- contexts ---- */

/* The logger of every context: counts, and passes on to stderr. */
extern xentoollog_logger logger;
/* Keeps stderr to what does not come through the logger. */
extern bool log_quietly;
/* Lines of level error or worse. */
extern int logged_errors;
/* Lines of any level. */
extern int logged_lines;
/* Those of them that libxenlight has written. */
extern int logged_by_libxl;

libxl_ctx *open_context(void);
void close_context(libxl_ctx *ctx);

libxl_evgen_domain_death *enable(libxl_ctx *ctx, uint32_t domid, libxl_ev_user user);

/* Watches a missing domain, and waits for its death, on a context that comes and goes. */
void use_a_new_context(void);
/* The same in a forked child, which forgets its parent's contexts first, of which this is one. */
void forget_and_begin_anew(void *ctx);

/* ---- events ---- */

/* The bits of event types. */
#define SHUTDOWN_BIT ((uint64_t)1 << LIBXL_EVENT_TYPE_DOMAIN_SHUTDOWN)
#define DEATH_BIT ((uint64_t)1 << LIBXL_EVENT_TYPE_DOMAIN_DEATH)

/* A pointer that no function may store: a place for results must be left alone where it holds this. */
#define UNTOUCHED ((void *)&logger)

libxl_event *wait_event(libxl_ctx *ctx);

/* The next event that comes is this one. It is freed. */
void expect_shutdown(libxl_ctx *ctx, uint32_t domid, libxl_ev_user user, int reason);
void expect_death(libxl_ctx *ctx, uint32_t domid, libxl_ev_user user);

/* An event is this one. It is not freed. */
void check_shutdown(const libxl_event *event, uint32_t domid, libxl_ev_user user, int reason);
void check_death(const libxl_event *event, uint32_t domid, libxl_ev_user user);

/* No event is queued; one may be on its way. */
void expect_nothing_queued(libxl_ctx *ctx);

/*
 * Nothing is queued and nothing is on its way: a drive is ejected that no domain has, and that is the next event. No domain
 * begins or ends for it, so that nobody looks at domains because of it: what they owe to a look of their own must come from
 * that. (DOMAIN_TEST)
 */
void expect_silence(libxl_ctx *ctx);

/* A predicate: the event's for_user is *user. */
int is_for_user(const libxl_event *event, void *user);
/* A predicate that wants nothing. */
int is_never_wanted(const libxl_event *event, void *user);

/*
 * Has the library look at all domains once more: libxenlight reports the state at the time of an enable only then, unless
 * it is its first. Where domains can't be commanded this does nothing, and need not: libxlevent reports at once.
 */
void stir(void);

/* ---- the poll loop ---- */

enum { FDS_MAX = 8 };

/* What beforepoll has filled in. */
struct polled {
    struct pollfd fds[FDS_MAX];
    int nfds, timeout;
};

/* Asks what to poll for; the timeout is what the library makes of `timeout` (milliseconds, -1 for ever). */
void before_poll(libxl_ctx *ctx, struct polled *polled, int timeout);
/* poll(2), not disturbed by signals; how many descriptors are ready. */
int poll_now(struct polled *polled);
void after_poll(libxl_ctx *ctx, struct polled *polled);

/* One round of the loop; whether poll has found something. */
bool poll_once(libxl_ctx *ctx, int timeout);
/* Rounds until event_check has an event that the predicate (or NULL) wants; returns it. */
libxl_event *poll_until_event(libxl_ctx *ctx, libxl_event_predicate *predicate, void *user);

#endif
